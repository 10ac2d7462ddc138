"""The compiled module gets arguments that are nearly right: it computes, or refuses, and writes nowhere else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from krrdistill.errors import DataError, NotPositiveDefinite

ROUNDS = 300  # calls of each function
REFUSALS = (ValueError, TypeError, MemoryError, DataError, NotPositiveDefinite)
TYPES = ("u1", "f2", "f4", "f8", "i4", "i8", "u8", "?", ">f8", "c16")
VALUES = (0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-310, 1e-30, 3e38, 1e300)
NUMBERS = (1, 1, 2, 3, 7, 64, 0, -1, 2**59, 2**62, 2**63 - 1, -(2**63), 2**64)
GUARD, PATTERN = 256, 0xA5  # bytes before and behind every array

Array = npt.NDArray[Any]


class Drawn:
    """Arguments that are right or, one time in eight, not; with every array's guards."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.guards: list[tuple[Array, Array, Array]] = []  # memory, and what of it an array may write

    def chance(self, one_in: int = 8) -> bool:
        return int(self.rng.integers(one_in)) == 0

    def pick(self, of: Any) -> Any:
        return of[int(self.rng.integers(len(of)))]

    def size(self, most: int = 9) -> int:
        return int(self.rng.integers(0 if self.chance() else 1, most))

    def number(self) -> int:
        return int(self.pick(NUMBERS)) if self.chance() else int(self.pick((1, 2, 3, 7, 64)))

    def shape(self, *right: int) -> tuple[int, ...]:
        sizes = [self.size() if self.chance(64) else size for size in right]
        if self.chance(64):
            sizes = sizes[:-1] if self.chance(2) else [*sizes, self.size(3)]
        return tuple(sizes)

    def array(self, dtype: str, *right: int, below: int | None = None) -> Array:
        """Of this type and shape, with labels or rows ``below`` a number, in any layout and at any address."""
        kind = np.dtype(self.pick(TYPES) if self.chance(32) else dtype)
        shape = self.shape(*right)
        step = self.pick((2, -1)) if shape and self.chance(32) else 1
        whole = (*shape[:-1], shape[-1] * abs(step)) if shape else shape
        offset = int(self.rng.integers(1, 8)) if self.chance(32) else 0
        room = int(np.prod(whole, dtype=np.int64)) * kind.itemsize
        memory = np.full(room + 2 * GUARD + 8, PATTERN, np.uint8)
        start = GUARD + (-memory.ctypes.data - GUARD) % 8 + offset
        inside = memory[start : start + room].view(kind).reshape(whole)
        inside[...] = self.values(whole, below).astype(kind)
        self.guards.append((memory, memory[:start].copy(), memory[start + room :].copy()))
        found = inside[..., ::step] if step != 1 else inside
        if found.ndim == 2 and self.chance(32):
            found = np.asfortranarray(found)
        if found.ndim and found.size and self.chance(32):
            found = np.broadcast_to(found[:1], found.shape)
        if self.chance(32):
            found.flags.writeable = False
        return found

    def values(self, shape: tuple[int, ...], below: int | None) -> Array:
        if below is not None:
            found = self.rng.integers(0, max(below, 1), shape).astype(np.float64)
            return np.where(self.rng.random(shape) < 0.003, self.pick((-1.0, float(below), 2.0**40)), found)
        found = self.rng.normal(size=shape)
        if self.chance(4):
            found = np.where(self.rng.random(shape) < 0.1, self.pick(VALUES), found)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.clip(found, -1e30, 1e30) if self.chance(2) else found

    def assert_guards_whole(self) -> None:
        for memory, before, behind in self.guards:
            assert (memory[: len(before)] == before).all()
            assert (memory[len(memory) - len(behind) :] == behind).all()


def feature_map(module: ModuleType, draw: Drawn) -> tuple[Any, str, int, int]:
    """(map, type of its features, d, p)."""
    kind = draw.pick(("f4", "f8"))
    d = width = int(draw.pick((1, 2, 3, 4, 8, 17)))
    layers: list[Any] = []
    for _ in range(int(draw.rng.integers(3))):
        outputs = draw.size()
        if draw.chance(3):
            block = 1 << max(width.bit_length() - 1, 0)
            outputs = min(outputs, width)
            weight: Any = (draw.array(kind, draw.size(4), 2, block), draw.array(kind, outputs))
        else:
            weight = draw.array(kind, outputs, width)
        bias = None if draw.chance(2) else draw.array(kind, outputs)
        layers.append(
            (weight, bias, draw.pick((0, 1, 2) if not draw.chance(32) else (3, -1)), float(draw.pick(VALUES)))
        )
        width = outputs
    factors = (None, None) if draw.chance(2) else (draw.array("f8", d), draw.array("f8", d))
    made = module.FeatureMapF32 if kind == "f4" else module.FeatureMapF64
    return made(d if not draw.chance(24) else draw.number(), *factors, layers), kind, d, width


def of_rows(module: ModuleType, draw: Drawn) -> tuple[Mapping[str, Any], str, int, int, int]:
    """(arguments about rows, type of features, rows of the data, rows that are used, p)."""
    phi, kind, d, p = feature_map(module, draw)
    n = draw.size(40)
    x = draw.array(draw.pick(("u1", "f4", "f8")), n, d)
    used = n if draw.chance(2) else draw.size(30)
    rows = None if used == n else draw.array("i8", used, below=n)
    return {"feature_map": phi, "x": x, "rows": rows, "tile_rows": draw.number()}, kind, n, used, p


def transform(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    arguments, kind, _, used, p = of_rows(module, draw)
    return {**arguments, "out": draw.array(kind, used, p)}


def accumulate(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    arguments, _, n, _, p = of_rows(module, draw)
    k = draw.size(5)
    y = draw.array("i8", n, below=k) if draw.chance(2) else draw.array("f8", n, k)
    return {**arguments, "y": y, "gram": draw.array("f8", p, p), "cross": draw.array("f8", k, p)}


def score_path(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    arguments, kind, n, _, p = of_rows(module, draw)
    models, k = draw.size(4), draw.size(5)
    made = {"labels": draw.array("i8", n, below=k), "weights": draw.array(kind, models, k, p)}
    return {**arguments, **made, "correct": draw.array("i8", models)}


def _gram(draw: Drawn, kind: str, *shape: int) -> Array:
    """Positive semidefinite where it is square and can be written."""
    gram = draw.array(kind, *shape)
    if gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2] and gram.flags.writeable and gram.dtype == kind:
        gram[...] = gram @ np.swapaxes(gram, -1, -2)
    return gram


def symmetrize(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    return {"gram": draw.array("f8", *[draw.size(80)] * 2)}


def ridge_path(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    p, k, count = draw.size(50), draw.size(4), draw.size(5)
    return {
        "gram": _gram(draw, "f8", p, p),
        "cross": draw.array("f8", k, p),
        "lambdas": draw.array("f8", count),
        "rounding": float(draw.pick((*VALUES, 1e-9, 1e-9, 1e-9))),
        "weights": draw.array("f8", count, k, p),
        "positive_definite": draw.array("?", count),
        "resolved": draw.array("?", count),
        "method": draw.pick(("cheaper", "band", "cholesky", "band", "cholesky", "", "qr")),
    }


def degrees_of_freedom(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    p, count = draw.size(70), draw.size(5)
    return {"gram": _gram(draw, "f8", p, p), "lambdas": draw.array("f8", count), "out": draw.array("f8", count)}


def solve_spd(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    kind, batch, n, r = draw.pick(("f4", "f8")), draw.size(4), draw.size(), draw.size()
    return {"a": _gram(draw, kind, batch, n, n), "rhs": draw.array(kind, batch, r, n)}


def preimage_solve(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    p, m = draw.size(), draw.size()
    d = p + (0 if draw.chance(2) else draw.size())
    rcond = float(draw.pick((*VALUES, 1e-15)))
    made = {"weight": draw.array("f8", p, d), "rhs": draw.array("f8", m, p), "x": draw.array("f8", m, d)}
    return {**made, "rcond_floor": rcond}


def hadamard_solve(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    block, m = int(draw.pick((1, 2, 4, 8))), draw.size()
    d = block + int(draw.rng.integers(block))
    p = int(draw.rng.integers(1, d + 1))
    weight = {"diagonals": draw.array("f8", draw.size(4), 2, block), "scale": draw.array("f8", p)}
    return {**weight, "rhs": draw.array("f8", m, p), "x": draw.array("f8", m, d)}


def normal_from_bits(module: ModuleType, draw: Drawn) -> Mapping[str, Any]:
    n = draw.size(40)
    return {"bits": draw.array("u8", n, below=2**40), "out": draw.array("f8", n)}


FUNCTIONS: tuple[Callable[[ModuleType, Drawn], Mapping[str, Any]], ...] = (
    transform, accumulate, score_path, symmetrize, ridge_path, degrees_of_freedom, solve_spd, preimage_solve,
    hadamard_solve, normal_from_bits,
)  # fmt: skip


def attack(module: ModuleType, arguments_of: Callable[[ModuleType, Drawn], Mapping[str, Any]], seed: int) -> bool:
    """Whether the function takes what is drawn. Fails where it answers in another way, or writes where it may not."""
    draw = Drawn(seed)
    with np.errstate(all="ignore"):
        try:
            arguments = arguments_of(module, draw)
            getattr(module, arguments_of.__name__)(**arguments)
        except REFUSALS:
            taken = False
        else:
            taken = True
    draw.assert_guards_whole()
    return taken


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Casting complex values:numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_compiled_function_takes_or_refuses_nearly_right_arguments(
    native_module: ModuleType, function: Callable[[ModuleType, Drawn], Mapping[str, Any]]
) -> None:
    taken = [attack(native_module, function, seed) for seed in range(ROUNDS)]
    assert 0.1 < np.mean(taken) < 0.95  # both are tested


@pytest.mark.parametrize("name", ["x", "out", "rows"])
def test_array_that_is_not_aligned_is_refused(native_module: ModuleType, name: str) -> None:
    arrays = {"x": np.ones((4, 2)), "rows": np.arange(4), "out": np.empty((4, 2))}
    memory = np.zeros(arrays[name].nbytes + 1, np.uint8)
    moved = memory[1:].view(arrays[name].dtype).reshape(arrays[name].shape)
    moved[...] = arrays[name]
    phi = native_module.FeatureMapF64(2, None, None, [])
    with pytest.raises(ValueError, match="aligned"):
        native_module.transform(phi, **{**arrays, name: moved}, tile_rows=2)


@pytest.mark.parametrize("kind", ["u1", "f8"])
def test_targets_without_columns_are_summed(native_module: ModuleType, kind: str) -> None:
    """k = 0: the sums of bytes take one class all the same."""
    x, gram = np.ones((300, 40), kind), np.zeros((40, 40))
    phi = native_module.FeatureMapF64(40, None, None, [])
    native_module.accumulate(phi, x, None, np.zeros((300, 0)), gram, np.zeros((0, 40)), 64)
    assert (np.tril(gram) == np.tril(np.full((40, 40), 300.0))).all()


# Rows and labels toggle between right and far outside while the module works on them.
_RACE = """
import sys, threading, time
import numpy as np
import krrdistill._native as native

feature_map = native.FeatureMapF64(4, None, None, [])
x, rows, y = np.ones((2000, 4)), np.arange(2000), np.zeros(2000, np.int64)
done = []

def change(array):
    while not done:
        array[-1] = 1 << 40
        array[-1] = 0

for array in (rows, y):
    done.clear()
    other = threading.Thread(target=change, args=(array,))
    other.start()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        try:
            native.accumulate(feature_map, x, rows, y, np.zeros((4, 4)), np.zeros((2, 4)), 64)
            native.transform(feature_map, x, rows, np.zeros((2000, 4)), 64)
            native.score_path(feature_map, x, rows, y, np.zeros((1, 2, 4)), np.zeros(1, np.int64), 64)
        except ValueError:
            pass
    done.append(True)
    other.join()
"""


def test_rows_and_labels_that_another_thread_changes_are_read_once() -> None:
    ended = subprocess.run([sys.executable, "-c", _RACE], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
