"""G of float16 and bfloat16 rows on the CUDA backend, by tensor cores that truncate, as the emulated ones do, too."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from conftest import CudaArray, set_tile_rows, stages
from krrdistill.backends import Backend, Products, products_in
from krrdistill.backends.cuda import CudaBackend
from krrdistill.backends.tiles import device_tile_rows
from krrdistill.errors import DataError

Array = npt.NDArray[Any]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
KINDS = ("float16", "bfloat16")
SLAB = 2048  # rows whose sums stay in float32


@pytest.fixture
def auto(one_backend: Backend, device: ModuleType) -> Backend:
    """The backend without options."""
    return one_backend


def stored(numbers: Array, kind: str) -> tuple[Any, Array]:
    """(numbers as the backend gets them, what they are in float64); there is no bfloat16 in host memory."""
    if kind == "float16":
        halves = numbers.astype(np.float16)
        return halves, halves.astype(np.float64)
    bits = (np.ascontiguousarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return CudaArray(bits, bfloat=True), (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def sums(
    backend: Backend, X: Any, Y: Array, *, dtype: Any = FLOAT32, chain: Any = None, rows: Any = None
) -> tuple[Array, Array, Products]:
    """(lower triangle of G, C, how they were formed), added to numbers that are there already."""
    p, k = X.shape[1], int(Y.max()) + 1 if Y.ndim == 1 else Y.shape[1]
    gram, cross = np.tril(np.full((p, p), 0.25)), np.full((k, p), -0.5)
    used = backend.accumulate(stages(p) if chain is None else chain, X, Y, gram, cross, dtype=dtype, rows=rows)
    return np.tril(gram), cross, used


def gram_alone(backend: Backend, X: Any) -> tuple[Array, Products]:
    """(G, how it was formed)."""
    p = X.shape[1]
    gram = np.zeros((p, p))
    used = backend.accumulate(stages(p), X, np.zeros((X.shape[0], 0)), gram, np.zeros((0, p)), dtype=FLOAT32)
    return np.tril(gram) + np.tril(gram, -1).T, used


def relative(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected, 2) / np.linalg.norm(expected, 2))


# Agreement with float64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["labels", "values", "none"])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (15, 16), (17, 31), (300, 129), (70, 260), (2100, 20)])
def test_sums_of_halves_agree_with_float64(
    auto: Backend, monkeypatch: pytest.MonkeyPatch, n: int, p: int, targets: str, kind: str
) -> None:
    set_tile_rows(monkeypatch, auto, 2070 if n > SLAB else 100)
    rng = np.random.default_rng(n)
    X, exact = stored(rng.standard_normal((n, p)) * 2.0 ** rng.integers(-6, 7, p), kind)
    labels = rng.integers(0, 5, n)
    Y = {"labels": labels, "values": rng.standard_normal((n, 3)), "none": np.empty((n, 0))}[targets]
    for rows in (None, rng.integers(0, n, n)):
        gram, cross, used = sums(auto, X, Y, rows=rows)
        picked, chosen = (exact, Y) if rows is None else (exact[rows], Y[rows])
        size = np.abs(picked)
        assert (used.precision, used.arithmetic) == ("float32", "halves")
        assert used.bound <= used.rounding == products_in(FLOAT32).rounding
        tolerances.assert_reduction(gram, np.tril(picked.T @ picked + 0.25), FLOAT32, n, np.tril(size.T @ size + 0.25))
        wanted = np.eye(cross.shape[0])[chosen] if targets == "labels" else chosen
        dtype = FLOAT64 if targets == "labels" else FLOAT32  # sums of classes are float64 sums
        tolerances.assert_reduction(cross, wanted.T @ picked - 0.5, dtype, n, np.abs(wanted).T @ size + 0.5)


@pytest.mark.parametrize("layout", ["rows", "columns", "odd"])
def test_halves_lie_anywhere_on_the_device(auto: Backend, layout: str) -> None:
    rng = np.random.default_rng(1)
    whole = rng.standard_normal((90, 46)).astype(np.float16)
    x = {"rows": whole[::-2], "columns": whole.T[:40], "odd": whole[:, 1:36]}[layout]
    expected, found = (sums(auto, X, np.arange(len(x)) % 3) for X in (np.ascontiguousarray(x), CudaArray(x)))
    assert found[2].arithmetic == "halves"
    tolerances.assert_exact(found[0], expected[0])
    tolerances.assert_exact(found[1], expected[1])


def test_weighted_halves_are_features_in_float32(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((60, 12)).astype(np.float16), np.arange(60) % 3
    weight = rng.uniform(0.5, 2.0, 60)
    found, expected = (
        kd.RidgeStatistics(kd.Identity(12), 3, backend=backend).update(X, y, sample_weight=weight)
        for backend in ("cuda", "array")
    )
    magnitude = np.abs(X.astype(np.float64)).T @ (weight[:, None] * np.abs(X.astype(np.float64)))
    tolerances.assert_reduction(found.gram, expected.gram, FLOAT32, 60, magnitude)


# The bound


def families(rng: np.random.Generator, n: int, p: int) -> dict[str, Array]:
    """Numbers of one sign, of both, of many sizes, few, and hardly any different ones."""
    normal = rng.standard_normal((n, p))
    return {
        "positive": np.abs(normal),
        "uniform": rng.random((n, p)),
        "normal": normal,
        "bytes": rng.integers(0, 256, (n, p)) / 255,
        "sizes": np.exp(2.0 * normal),
        "sparse": (rng.random((n, p)) < 0.02) * rng.random((n, p)),
        "offset": 30.0 + normal,
        "constant": np.full((n, p), 0.7),
        "steps": np.outer(np.ones(n), rng.uniform(0.5, 1.0, p)),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", families(np.random.default_rng(0), 1, 1))
def test_errors_of_halves_stay_within_the_reported_bound(auto: Backend, family: str, kind: str) -> None:
    """Accumulators of 256 rows are 10 to 100 times further off, float32 sums of 2048 rows several times."""
    X, exact = stored(families(np.random.default_rng(4), 2 * SLAB + 100, 9)[family], kind)
    gram, used = gram_alone(auto, X)
    assert used.arithmetic == "halves"
    assert relative(gram, exact.T @ exact) <= used.bound <= products_in(FLOAT32).rounding


def test_tensor_cores_that_truncate_show(auto: Backend) -> None:
    """What the emulated device takes off: sums of positive numbers are too small, by the bound of one product."""
    X, exact = stored(np.random.default_rng(5).random((16, 40)), "float16")
    gram, _ = gram_alone(auto, X)
    expected = exact.T @ exact
    assert (gram <= expected).all()
    assert 0.2 * 2.0**-24 < relative(gram, expected) < 4.0 * 2.0**-24


@pytest.mark.data
def test_errors_on_real_images_stay_within_the_bound(auto: Backend, real_data_dir: Path) -> None:
    data = kd.load_dataset("cifar100", data_dir=real_data_dir)
    images = data.x_train[:2500].reshape(2500, -1)[:, ::24] / 255.0
    for kind in KINDS:
        X, exact = stored(images, kind)
        gram, used = gram_alone(auto, X)
        assert used.arithmetic == "halves"
        assert relative(gram, exact.T @ exact) <= used.bound


# The same bits


def test_slabs_beside_each_other_change_no_bit(device: ModuleType) -> None:
    """However many there is room for: they are added in their order."""
    X, _ = stored(np.random.default_rng(6).standard_normal((3 * SLAB + 77, 20)), "float16")
    found = []
    for processors, budget in ((132, None), (1, None), (132, 1_000_000)):
        device.emulate(multiprocessors=processors)
        device.peak_bytes()
        gram, used = gram_alone(CudaBackend(memory_budget=budget), X)
        assert used.arithmetic == "halves"
        assert budget is None or device.peak_bytes() <= budget
        found.append(gram)
    for gram in found[1:]:
        tolerances.assert_exact(gram, found[0])


def test_a_budget_holds_and_changes_no_sum_of_small_integers(device: ModuleType, rng: np.random.Generator) -> None:
    X, labels = rng.integers(0, 4, (2500, 40)).astype(np.float16), rng.integers(0, 3, 2500)
    expected = sums(CudaBackend(), X, labels)
    for budget in (150_000, 300_000, 1_000_000):
        device.peak_bytes()
        found = sums(CudaBackend(memory_budget=budget), X, labels)
        assert device.peak_bytes() <= budget
        assert found[2].arithmetic == "halves"
        tolerances.assert_exact(found[0], expected[0])
        tolerances.assert_exact(found[1], expected[1])


def test_tiles_of_narrow_data_on_the_device_have_more_rows() -> None:
    half = np.dtype(np.float16)
    assert [device_tile_rows(stages(p), FLOAT32) for p in (16, 1024, 8192, 16384)] == [8192, 8192, 8192, 4096]
    found = [device_tile_rows(stages(p), FLOAT32, there=True) for p in (16, 1024, 3072, 8192, 16384)]
    assert found == [65536, 32768, 10922, 8192, 4096]
    assert device_tile_rows(stages(1024), half, there=True) == 65536


# The range of float32


@pytest.mark.parametrize("size", [1e30, 3e38, 1e-30, 3e-20])
def test_halves_whose_squares_leave_float32_are_slices(auto: Backend, size: float) -> None:
    X, exact = stored(np.random.default_rng(7).uniform(0.5, 1.0, (200, 11)) * size, "bfloat16")
    labels = np.arange(200) % 2
    gram, cross, used = sums(auto, X, labels)
    assert used.arithmetic == "slices"
    assert np.isfinite(gram).all()
    tolerances.assert_reduction(gram, np.tril(exact.T @ exact + 0.25), FLOAT32, 200, np.tril(exact.T @ exact + 0.25))
    tolerances.assert_reduction(cross, np.eye(2)[labels].T @ exact - 0.5, FLOAT64, 200, exact.sum(axis=0) + 0.5)


def test_one_overflow_among_halves_is_not_finite_in_g(auto: Backend) -> None:
    """Also where an accumulator that truncates stops at the largest number of float32."""
    numbers = np.ones((40, 5))
    numbers[3, 2] = 2e19
    gram, used = gram_alone(auto, stored(numbers, "bfloat16")[0])
    assert used.arithmetic != "halves"
    assert not np.isfinite(gram.trace())


def test_the_largest_float16_fit(auto: Backend) -> None:
    X, exact = stored(np.full((3000, 3), 65504.0), "float16")
    gram, used = gram_alone(auto, X)
    assert used.arithmetic == "halves"
    assert relative(gram, exact.T @ exact) <= used.bound


# What is refused, and what stays as it was


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_the_first_bad_row_of_halves_is_named(
    auto: Backend, monkeypatch: pytest.MonkeyPatch, kind: str, bad: float, targets: str
) -> None:
    set_tile_rows(monkeypatch, auto, 16)
    numbers = np.ones((60, 7))
    numbers[41, 6] = numbers[50, 0] = bad
    X, _ = stored(numbers, kind)
    Y = np.arange(60) % 2 if targets == "labels" else np.ones((60, 2))
    gram, cross = np.full((7, 7), 0.5), np.full((2, 7), -0.5)
    with pytest.raises(DataError, match="row 41 holds NaN or infinity"):
        auto.accumulate(stages(7), X, Y, gram, cross, dtype=FLOAT32)
    tolerances.assert_exact(gram, np.full((7, 7), 0.5))
    tolerances.assert_exact(cross, np.full((2, 7), -0.5))


def test_only_plain_float32_sums_take_halves(device: ModuleType, rng: np.random.Generator) -> None:
    X, labels = rng.standard_normal((40, 7)).astype(np.float16), np.arange(40) % 2
    affine = stages(7, (), np.full(7, 0.5), np.full(7, 0.1))
    for backend, dtype, chain, expected in (
        (CudaBackend(), FLOAT64, None, "float64"),
        (CudaBackend(), FLOAT32, affine, "float32"),
        (CudaBackend(products="fp32"), FLOAT32, None, "float32"),
        (CudaBackend(products="tf32"), FLOAT32, None, "tf32"),
    ):
        assert sums(backend, X, labels, dtype=dtype, chain=chain)[2].arithmetic == expected


def test_statistics_of_halves_have_the_noise_floor_of_float32(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.random((3000, 8)).astype(np.float16), np.arange(3000) % 2
    statistics = kd.RidgeStatistics(kd.Identity(8), 2, backend="cuda").update(X, y)
    exact = X.astype(np.float64).T @ X.astype(np.float64)
    assert statistics.noise_floor(1.0) == products_in(FLOAT32).rounding
    assert np.linalg.norm(statistics.gram - exact, 2) <= statistics.noise_floor(float(np.linalg.norm(exact, 2)))
