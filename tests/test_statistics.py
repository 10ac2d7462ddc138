"""Sufficient statistics: against the oracle, as sums over data, to and from files, and with bad input."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

import krrdistill as kd
import oracles
import tolerances
from conftest import set_tile_rows
from krrdistill.backends import Backend
from krrdistill.common import memory
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError
from krrdistill.ridge import statistics as module
from krrdistill.ridge.stores import SummedGram

D, P, K = 6, 5, 3
PHI = kd.FCNN(D, [P], seed=3)

Array = npt.NDArray[Any]
Statistics = kd.RidgeStatistics
NUMBERS = ("gram", "cross", "feature_sum", "target_sum", "target_square", "target_spread")
FACTS = ("n", "k", "total_weight", "targets", "classes", "shape", "precision", "product_precision", "product_rounding")


def samples(n: int, seed: int = 0, targets: str = "labels") -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D)).astype(np.float32)
    return X, rng.integers(0, K, n) if targets == "labels" else rng.standard_normal((n, K))


def empty_for(Y: Array, phi: Any = PHI, **options: Any) -> Statistics:
    """No samples yet: of K classes, or of K real-valued targets where Y holds these."""
    kind = {"classes": K} if Y.ndim == 1 else {"n_targets": K}
    return Statistics(phi, **kind, **options)


def statistics_of(X: Array, Y: Array, dtype: Any = "float64", backend: Any = None, **keywords: Any) -> Statistics:
    return empty_for(Y, precision=str(dtype), backend=backend).update(X, Y, **keywords)


def targets_of(Y: Array) -> Array:
    return oracles.one_hot(Y, K) if Y.ndim == 1 else Y.T


def assert_close(actual: Statistics, expected: Statistics, X: Array, Y: Array, dtype: Any) -> None:
    """Equal up to the order of the sums over the samples X, Y."""
    magnitude = oracles.feature_magnitude(X.T, PHI.layers)
    terms = len(X) + D
    assert actual.n == expected.n
    tolerances.assert_reduction(actual.gram, expected.gram, dtype, terms, oracles.gram(magnitude))
    weights = np.abs(targets_of(Y))
    tolerances.assert_reduction(actual.cross, expected.cross, dtype, terms, oracles.cross(weights, magnitude))
    squares = np.sum(weights**2, axis=1)
    tolerances.assert_reduction(actual.target_square, expected.target_square, np.float64, terms, squares)


@pytest.mark.parametrize("targets", ["labels", "values"])
def test_against_the_oracle(any_backend: Backend, dtype: Any, targets: str) -> None:
    X, Y = samples(50, targets=targets)
    statistics = statistics_of(X, Y, dtype, any_backend)
    Phi, magnitude = oracles.features(X.T, PHI.layers), oracles.feature_magnitude(X.T, PHI.layers)
    T = targets_of(Y)
    tolerances.assert_reduction(statistics.gram, oracles.gram(Phi), dtype, 50 + D, oracles.gram(magnitude))
    tolerances.assert_reduction(
        statistics.cross, oracles.cross(T, Phi), dtype, 50 + D, oracles.cross(abs(T), magnitude)
    )
    squares = np.sum(T**2, axis=1)
    tolerances.assert_reduction(statistics.target_square, squares, np.float64, 50 * K, squares)
    assert statistics.n == 50
    assert statistics.gram.dtype == statistics.cross.dtype == np.float64


def test_class_sums(any_backend: Backend) -> None:
    X = np.arange(24, dtype=np.uint8).reshape(8, 3)
    y = np.array([2, 0, 2, 2, 0, 2, 0, 0])
    statistics = Statistics(kd.Identity(3), 3, backend=any_backend).update(X, y)
    tolerances.assert_exact(statistics.cross, [X[y == c].sum(axis=0, dtype=np.float64) for c in range(3)])
    tolerances.assert_exact(statistics.gram, X.T.astype(float) @ X)
    tolerances.assert_exact(statistics.target_square, [4.0, 0.0, 4.0])


def test_preprocessing_and_images(any_backend: Backend) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 3), dtype=np.uint8)
    y = np.arange(20) % K
    scaling = Preprocessing("standardize", np.full(D, 127.5), np.full(D, 255.0))
    raw = Statistics(PHI.with_preprocessing(scaling), K, precision="float64", backend=any_backend).update(images, y)
    standardised = images.reshape(20, D) / 255 - 0.5
    assert_close(raw, statistics_of(standardised, y, backend=any_backend), standardised, y, np.float64)


def test_nothing_is_no_data(any_backend: Backend, dtype: Any) -> None:
    X, Y = samples(4)
    empty = statistics_of(X[:0], Y[:0], dtype, any_backend).update(X, Y, rows=np.arange(0))
    assert empty.n == empty.total_weight == 0
    tolerances.assert_exact(empty.target_square, np.zeros(K))
    tolerances.assert_exact(empty.gram, np.zeros((P, P)))
    tolerances.assert_exact(empty.cross, np.zeros((K, P)))


# Properties


@settings(max_examples=40)  # for each of the backends
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_gram_is_symmetric_and_positive_semidefinite(any_backend: Backend, n: int, seed: int, precision: str) -> None:
    X, Y = samples(n, seed)
    G = statistics_of(X, Y, precision, any_backend).gram
    tolerances.assert_exact(G, G.T)
    eigenvalues = np.linalg.eigvalsh(G)
    assert eigenvalues[0] >= -tolerances.reduction(precision, n + D, abs(eigenvalues[-1]))


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["labels", "values"]), st.integers(0, 99))
def test_updates_add(any_backend: Backend, a: int, b: int, targets: str, seed: int) -> None:
    for precision in ("float32", "float64"):
        X, Y = samples(a + b, seed, targets)
        whole = statistics_of(X, Y, precision, any_backend)
        parts = statistics_of(X[:a], Y[:a], precision, any_backend)
        parts.gram  # noqa: B018 - reading it between updates must not matter
        assert_close(parts.update(X[a:], Y[a:]), whole, X, Y, precision)
        first, second = (statistics_of(X[s], Y[s], precision, any_backend) for s in (slice(a), slice(a, None)))
        first.gram  # noqa: B018 - so that one of them is complete and the other holds one triangle
        merged = first.merge(second)
        assert_close(merged, whole, X, Y, precision)
        tolerances.assert_exact(merged.gram, merged.gram.T)
        untouched = statistics_of(X[a:], Y[a:], precision, any_backend)
        tolerances.assert_exact(second.gram, untouched.gram)
        tolerances.assert_exact(second.cross, untouched.cross)
        tolerances.assert_exact(second.target_square, untouched.target_square)
        assert second.n == untouched.n


@settings(max_examples=40)
@given(st.permutations(range(25)), st.sampled_from(["labels", "values"]))
def test_order_does_not_matter(any_backend: Backend, order: list[int], targets: str) -> None:
    X, Y = samples(25, targets=targets)
    for precision in ("float32", "float64"):
        expected = statistics_of(X, Y, precision, any_backend)
        assert_close(statistics_of(X[order], Y[order], precision, any_backend), expected, X, Y, precision)
        assert_close(statistics_of(X, Y, precision, any_backend, rows=np.array(order)), expected, X, Y, precision)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 19), max_size=40), st.sampled_from(["labels", "values"]))
def test_rows_pick_samples(any_backend: Backend, rows: list[int], targets: str) -> None:
    X, Y = samples(20, targets=targets)
    picked = statistics_of(X, Y, backend=any_backend, rows=np.array(rows, dtype=np.int64))
    copied = statistics_of(X[rows], Y[rows], backend=any_backend)
    assert_close(picked, copied, X[rows], Y[rows], np.float64)


@pytest.mark.parametrize("kind", [list, np.int32, np.uint8, np.uint64])
def test_rows_of_any_integer_type(any_backend: Backend, kind: Any) -> None:
    X, Y = samples(20)
    rows = [4, 4, 19, 0]
    expected = statistics_of(X[rows], Y[rows], backend=any_backend)
    given_rows = rows if kind is list else np.array(rows, dtype=kind)
    assert_close(statistics_of(X, Y, backend=any_backend, rows=given_rows), expected, X[rows], Y[rows], np.float64)


@pytest.mark.parametrize("rows_of_tile", [1, 3, 16, 1000])
def test_tile_and_batch_size_do_not_matter(
    any_backend: Backend, dtype: Any, rows_of_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = samples(50)
    expected = statistics_of(X, Y, dtype, any_backend)
    set_tile_rows(monkeypatch, any_backend, rows_of_tile)
    assert_close(statistics_of(X, Y, dtype, any_backend), expected, X, Y, dtype)
    monkeypatch.setattr(module, "_BATCH_ROWS", 7)
    assert_close(statistics_of(X, Y, dtype, any_backend), expected, X, Y, dtype)
    backwards = np.arange(50)[::-1]
    assert_close(statistics_of(X, Y, dtype, any_backend, rows=backwards), expected, X, Y, dtype)


@pytest.mark.parametrize("targets", ["labels", "values"])
def test_threads_do_not_matter_and_runs_repeat(any_backend: Backend, dtype: Any, targets: str) -> None:
    rng = np.random.default_rng(5)
    n, p = 4500, 140  # more than one tile, and products that BLAS shares among threads
    phi = kd.RandomFourier(40, p, sigma2=40.0)
    X = rng.standard_normal((n, 40)).astype(np.float32)
    Y = rng.integers(0, K, n) if targets == "labels" else rng.standard_normal((n, K))

    def run(threads: int) -> Statistics:
        with threadpoolctl.threadpool_limits(threads):
            return empty_for(Y, phi, precision=str(dtype), backend=any_backend).update(X, Y)

    one, two, again = run(1), run(2), run(2)
    magnitude = np.full((p, n), np.sqrt(2 / p))
    tolerances.assert_reduction(two.gram, one.gram, dtype, n, oracles.gram(magnitude))
    tolerances.assert_reduction(two.cross, one.cross, dtype, n, oracles.cross(np.abs(targets_of(Y)), magnitude))
    tolerances.assert_exact(again.gram, two.gram)
    tolerances.assert_exact(again.cross, two.cross)
    tolerances.assert_exact(run(1).gram, one.gram)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_noise_floor_covers_the_rounding(any_backend: Backend, precision: str) -> None:
    X, Y = samples(3000)
    rounded, exact = (statistics_of(X, Y, p, any_backend).gram for p in (precision, "float64"))
    statistics = statistics_of(X, Y, precision, any_backend)
    largest = float(np.linalg.eigvalsh(exact)[-1])
    floor = statistics.noise_floor(largest)
    assert np.linalg.norm(rounded - exact, 2) <= floor <= tolerances.elementwise(np.float32, largest)
    assert statistics.noise_floor(2.0 * largest) == 2.0 * floor
    assert statistics.noise_floor(-1.0) == 0.0
    assert statistics_of(X, Y, "float64").noise_floor(largest) <= floor


def test_merging_keeps_the_worse_precision() -> None:
    X, Y = samples(9)
    for a, b, expected in (("float32", "float64", "float32"), ("float64", "float32", "float32")):
        merged = statistics_of(X, Y, a).merge(statistics_of(X[::-1], Y, b))
        assert (merged.product_precision, merged.precision) == (expected, a)
    assert statistics_of(X, Y).merge(statistics_of(X[::-1], Y)).product_precision == "float64"


def test_progress_ends_at_one(any_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 8)
    X, Y = samples(20)
    for rows, expected in ((None, [0.4, 0.8, 1.0]), (np.arange(10), [0.8, 1.0])):
        seen: list[float] = []
        statistics_of(X, Y, backend=any_backend, rows=rows, progress=seen.append)
        assert seen == expected


# Bytes under a map without layers: sums of integers where the CPU has a kernel for them


def stages(p: int, scale: Any = None, shift: Any = None) -> Any:
    """What backends know of a map without layers; unlike a preprocessing, its scale may be 0."""
    return SimpleNamespace(input_dim=p, output_dim=p, layers=(), scale=scale, shift=shift)


def sums_of_bytes(
    backend: Backend, X: Array, Y: Array, rows: Array | None = None, dtype: Any = np.float64, **affine: Any
) -> tuple[Array, Array]:
    p = X.shape[1]
    gram, cross = np.zeros((p, p)), np.zeros((K, p))
    backend.accumulate(stages(p, **affine), X, Y, gram, cross, dtype=np.dtype(dtype), rows=rows)
    backend.symmetrize(gram)
    return gram, cross


def assert_integer_sums(backend: Backend, X: Array, rng: np.random.Generator, rows: Array | None = None) -> None:
    """Against NumPy's int64, for labels and for targets that are integers: not one bit may differ."""
    picked = slice(None) if rows is None else rows
    U = X[picked].astype(np.int64)
    labels, values = rng.integers(0, K, len(X)), rng.integers(-9, 10, (len(X), K))
    for Y, T in ((labels, np.eye(K, dtype=np.int64)[labels]), (values.astype(np.float64), values)):
        gram, cross = sums_of_bytes(backend, X, Y, rows)
        tolerances.assert_exact(gram, U.T @ U)
        tolerances.assert_exact(cross, T[picked].T @ U)


@pytest.mark.parametrize("p", [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 96, 97, 129, 257])
def test_integer_sums_of_every_width(backend: Backend, p: int, rng: np.random.Generator) -> None:
    for n in (0, 1, 2, 15, 16, 17, 33):
        assert_integer_sums(backend, rng.integers(0, 256, (n, p), dtype=np.uint8), rng)


@pytest.mark.parametrize("n", [257, 1023, 1024, 1025, 3071])
def test_integer_sums_of_every_length(backend: Backend, n: int, rng: np.random.Generator) -> None:
    assert_integer_sums(backend, rng.integers(0, 256, (n, 18), dtype=np.uint8), rng)


def test_integer_sums_of_any_layout(backend: Backend, rng: np.random.Generator) -> None:
    room = rng.integers(0, 256, (80, 37), dtype=np.uint8)
    for X in (room[::2, 1:-3], room[::-1], np.broadcast_to(room[:1], (80, 37)), room[5:, 3:4]):
        for rows in (None, rng.integers(0, len(X), 95), np.array([len(X) - 1]), np.arange(0)):
            assert_integer_sums(backend, X, rng, rows)


@pytest.mark.parametrize("value", [0, 255])
def test_integer_sums_do_not_overflow(backend: Backend, value: int) -> None:
    n = (1 << 17) + 9001  # a row adds up to 2^14 to an int32: 2^17 of them are too many
    X = np.broadcast_to(np.full((1, 3), value, np.uint8), (n, 3))
    gram, cross = sums_of_bytes(backend, X, np.zeros(n, np.int64))
    tolerances.assert_exact(gram, np.full((3, 3), float(n * value**2)))
    tolerances.assert_exact(cross, np.outer([1.0, 0.0, 0.0], np.full(3, float(n * value))))


@pytest.mark.parametrize("n", [700, (1 << 16) + 5])
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_affine_bytes(backend: Backend, n: int, targets: str, rng: np.random.Generator) -> None:
    """Every sign and size of scale and shift."""
    scale = np.array([0.02, -0.3, 1e-3, 5.0, 0.0, 1e-300, -2.0, 0.5, 1.0])
    shift = np.array([-2.1, 40.0, 7.0, -1e4, 3.0, 2.0, -1e3, 0.0, -255.0])
    X = rng.integers(0, 256, (n, 9), dtype=np.uint8)
    Y = rng.integers(0, K, n) if targets == "labels" else rng.standard_normal((n, K))
    gram, cross = sums_of_bytes(backend, X, Y, scale=scale, shift=shift)
    Phi, magnitude = oracles.features(X.T, (), scale, shift), oracles.feature_magnitude(X.T, (), scale, shift)
    T = targets_of(Y)
    tolerances.assert_reduction(gram, oracles.gram(Phi), np.float64, n, oracles.gram(magnitude))
    tolerances.assert_reduction(cross, oracles.cross(T, Phi), np.float64, n, oracles.cross(abs(T), magnitude))


@pytest.fixture
def integer_kernel(isa: str, native_module: Any) -> Backend:
    """The native backend at every level that sums integers."""
    if not native_module.has_byte_products():
        pytest.skip(f"there is no integer kernel for {isa}")
    return kd.get_backend("native")


def test_a_large_mean_costs_nothing(integer_kernel: Backend, rng: np.random.Generator) -> None:
    """Features are half the step between bytes 200 and 201, a 400th of the parts that they are the sum of."""
    X, y = rng.integers(200, 202, (999, 5), dtype=np.uint8), rng.integers(0, K, 999)
    a, b = 2.0**12, -200.5 * 2.0**12
    gram, cross = sums_of_bytes(integer_kernel, X, y, scale=np.full(5, a), shift=np.full(5, b))
    Phi = a * X.T + b
    tolerances.assert_exact(gram, oracles.gram(Phi))
    tolerances.assert_exact(cross, oracles.cross(oracles.one_hot(y, K), Phi))


def test_affine_sums_of_bytes_are_the_same_bits_everywhere(
    integer_kernel: Backend, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Threads, tile size and the order of the rows change nothing, and float64 is not less exact than float32."""
    X, y = rng.integers(0, 256, (5000, 133), dtype=np.uint8), rng.integers(0, K, 5000)
    phi = kd.Identity(133, preprocessing=Preprocessing("standardize", rng.normal(size=133), rng.uniform(50, 100, 133)))
    found = []
    for threads, rows, order, precision in (
        (1, 64, None, "float32"),
        (2, 1000, rng.permutation(5000), "float32"),
        (3, 4096, np.arange(5000)[::-1], "float64"),
    ):
        monkeypatch.setattr("krrdistill.backends.compiled.tile_rows", lambda phi, dtype, rows=rows: rows)
        with threadpoolctl.threadpool_limits(threads):
            found.append(Statistics(phi, K, precision=precision, backend="native").update(X, y, rows=order))
    for other in found[1:]:
        tolerances.assert_exact(other.gram, found[0].gram)
        tolerances.assert_exact(other.cross, found[0].cross)


def test_noise_floor_of_integer_sums(isa: str, native_module: Any, tmp_path: Path) -> None:
    """That of float64 in both precisions where there is a kernel, until float32 products are added."""
    rng = np.random.default_rng(1)
    X, y = rng.integers(0, 256, (300, D), dtype=np.uint8), rng.integers(0, K, 300)

    def update(data: Array, **keywords: Any) -> Statistics:
        return Statistics(kd.Identity(D), K, backend="native").update(data, y[: len(data)], **keywords)

    exact, rounded, empty = update(X), update(X.astype(np.float32)), update(np.zeros((0, D), np.float32))
    formed = "float64" if native_module.has_byte_products() else "float32"
    assert [s.product_precision for s in (exact, rounded, empty)] == [formed, "float32", "float64"]
    tolerances.assert_exact(exact.gram, X.T.astype(np.int64) @ X)
    assert (exact.noise_floor(1.0) == D * np.finfo(np.float64).eps) == (formed == "float64")
    exact.save(tmp_path / "exact.npz")
    assert Statistics.load(tmp_path / "exact.npz", kd.Identity(D)).product_precision == formed
    held = update(X[: D - 1])
    tolerances.assert_exact(held.gram, X[: D - 1].T.astype(np.int64) @ X[: D - 1])
    assert held.product_precision == "float64"  # so few rows are held in float64
    assert held.update(X, y).product_precision == formed
    assert update(X, sample_weight=np.ones(300)).product_precision == "float32"
    assert update(X[::-1]).merge(exact).product_precision == formed
    real = Statistics(kd.Identity(D), n_targets=K, backend="native")
    assert real.update(X, np.eye(K)[y]).product_precision == formed
    others = update(X[::-1])
    assert update(X[::-1]).merge(rounded).product_precision == rounded.merge(others).product_precision == "float32"
    assert update(X).update(X.astype(np.float64), y).product_precision == "float32"
    rounded.save(tmp_path / "rounded.npz")
    assert Statistics.load(tmp_path / "rounded.npz", kd.Identity(D)).product_precision == "float32"


@pytest.mark.parametrize("n", [0, 4])
def test_accumulate_tells_the_precision_of_its_products(integer_kernel: Backend, dtype: Any, n: int) -> None:
    """float64 for integers, which are only for bytes without layers."""
    X = np.zeros((n, D), np.uint8)
    for phi, data, expected in (
        (kd.Identity(D), X, "float64"),
        (stages(D, np.full(D, 0.5), np.ones(D)), X, "float64"),
        (kd.Identity(D), X.astype(np.float32), str(dtype)),
        (PHI, X, str(dtype)),
    ):
        p = phi.output_dim
        gram, cross = np.zeros((p, p)), np.zeros((K, p))
        used = integer_kernel.accumulate(phi, data, np.zeros(n, np.int64), gram, cross, dtype=dtype)
        assert (used.precision, used.rounding > 0.0) == (expected, expected == "float32")


def test_other_backends_use_the_precision_that_was_asked_for(any_backend: Backend, dtype: Any) -> None:
    used = any_backend.accumulate(
        kd.Identity(2), np.zeros((3, 2)), np.zeros(3, np.int64), np.zeros((2, 2)), np.zeros((1, 2)), dtype=dtype
    )
    assert used.precision == str(dtype)


# Files


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_save_and_load(any_backend: Backend, tmp_path: Path, precision: str) -> None:
    X, Y = samples(30, targets="values")
    saved = statistics_of(X, Y, precision, any_backend)
    saved.save(tmp_path / "s.npz")
    loaded = Statistics.load(tmp_path / "s.npz", PHI, backend=any_backend)
    for name in NUMBERS:
        tolerances.assert_exact(getattr(loaded, name), getattr(saved, name))
    assert [getattr(loaded, name) for name in FACTS] == [getattr(saved, name) for name in FACTS]
    total = empty_for(Y, precision=precision, backend=any_backend, shard="others").update(X, Y)
    total += Statistics.load(str(tmp_path / "s.npz"))
    assert total.n == 60
    tolerances.assert_exact(total.gram, 2.0 * saved.gram)
    saved.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "s.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "s.npz"]


def spoil(arrays: dict[str, Array], **changes: Any) -> dict[str, Array]:
    header = {**json.loads(str(arrays["header"])), **changes}
    return {**arrays, "header": np.array(json.dumps(header))}


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {name: value for name, value in a.items() if name != "gram"},
        lambda a: {name: value for name, value in a.items() if name != "header"},
        lambda a: {name: value for name, value in a.items() if name != "target_square"},
        lambda a: {**a, "gram": a["gram"][:-1]},
        lambda a: {**a, "gram": a["gram"].astype(str)},
        lambda a: {**a, "gram": a["gram"].astype(complex)},
        lambda a: {**a, "gram": np.full_like(a["gram"], np.nan)},
        lambda a: {**a, "cross": a["cross"][:, :-1]},
        lambda a: {**a, "cross": np.full_like(a["cross"], np.inf)},
        lambda a: {**a, "cross": np.zeros((K + 1, P))},
        lambda a: {**a, "target_square": np.array([1.0, 2.0])},
        lambda a: {**a, "target_square": np.array(np.nan)},
        lambda a: {**a, "target_square": np.array("many")},
        lambda a: {**a, "header": np.array("{")},
        lambda a: {**a, "header": np.array("[1]")},
        lambda a: {**a, "feature_sum": np.zeros(P + 1)},
        lambda a: {**a, "target_sum": np.full(K, np.nan)},
        lambda a: {**a, "target_origin": np.zeros(1)},
        lambda a: {**a, "total_weight": np.zeros(1)},
        lambda a: {**a, "header": np.array("[" * 100_000)},
        lambda a: spoil(a, format="krrdistill-statistics-1"),
        lambda a: spoil(a, format="krrdistill-1"),
        lambda a: spoil(a, format=None),
        lambda a: spoil(a, map=kd.FCNN(D, [P], seed=4).spec()),
        lambda a: spoil(a, map=None),
        lambda a: spoil(a, shards=None),
        lambda a: spoil(a, shards={"own": 1, "merged": [], "removed": []}),
        lambda a: spoil(a, shards={"own": None, "merged": "cat", "removed": []}),
        lambda a: spoil(a, rows_read=-1),
        lambda a: spoil(a, stream=3),
        lambda a: spoil(a, stream={"holdout": 0.1}),
        lambda a: spoil(a, stream={"holdout": "a", "seed": 0, "first_row": 0, "labels": 0}),
        lambda a: spoil(a, classes=[0, 1]),
        lambda a: spoil(a, classes=["cat", "dog", "cat"]),
        lambda a: spoil(a, classes=["cat", 1, 2]),
        lambda a: spoil(a, classes="cat"),
        lambda a: spoil(a, classes=[]),
        lambda a: spoil(a, shape=[D + 1]),
        lambda a: spoil(a, shape=D),
        lambda a: spoil(a, k=K + 1),
        lambda a: spoil(a, k=0),
        lambda a: spoil(a, classes=None, k=10**12),  # refused before anything of this size is allocated
        lambda a: spoil(a, classes=10**12, k=10**12),
        lambda a: spoil(a, product_precision="float16"),
        lambda a: spoil(a, precision="float16"),
        lambda a: spoil(a, precision=None),
        lambda a: spoil(a, n=-1),
        lambda a: spoil(a, n=None),
        lambda a: spoil(a, n=float("inf")),
        lambda a: {**a, "gram": np.array([[object()]])},
        lambda a: {"X": np.ones((2, 2))},
    ],
)
def test_load_refuses_files_that_do_not_fit(tmp_path: Path, change: Callable[..., Any]) -> None:
    X, Y = samples(9)
    path = tmp_path / "s.npz"
    statistics_of(X, Y).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **change(arrays))
    with pytest.raises(DataError, match=r"s\.npz"):
        Statistics.load(path, PHI)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", "truncated", "array"])
def test_load_refuses_what_is_no_archive(tmp_path: Path, content: bytes | str) -> None:
    X, Y = samples(9)
    path = tmp_path / "s.npz"
    statistics_of(X, Y).save(path)
    if content == "array":
        with path.open("wb") as stream:
            np.save(stream, X)
    else:
        path.write_bytes(path.read_bytes()[:-30] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"s\.npz"):
        Statistics.load(path, PHI)
    with pytest.raises(DataError, match="no such file"):
        Statistics.load(tmp_path / "absent.npz", PHI)


# Bad input


def spoiled(X: Array, index: tuple[int, int], value: float) -> Array:
    X = X.copy()
    X[index] = value
    return X


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda X, y: (spoiled(X, (7, 0), np.nan), y), DataError, "row 7 holds NaN or infinity"),
        (lambda X, y: (spoiled(X, (0, D - 1), np.inf), y), DataError, "row 0 holds NaN or infinity"),
        (lambda X, y: (X[:, :-1], y), DataError, "X has 5 columns, the map takes 6"),
        (lambda X, y: (X[0], y), DataError, r"X must have shape \(n, \.\.\.\).*got \(6,\)"),
        (lambda X, y: (X.astype(str), y), TypeError, "X must be a numeric array"),
        (lambda X, y: (X.astype(complex), y), TypeError, "X must be a numeric array"),
        (lambda X, y: (X, y[:-1]), DataError, r"y must have one label for each of the 9 samples, got shape \(8,\)"),
        (
            lambda X, y: (X, y + 1),
            DataError,
            r"3 classes, 0 \.\.\. 2; classes=4 \(--classes 4\) has it",
        ),
        (lambda X, y: (X, y - 1), DataError, r"holds the label -1, the classes are 0 \.\.\. 2"),
        (lambda X, y: (X, y + 0.5), DataError, "y must hold whole numbers as labels, got 0.5"),
        (lambda X, y: (X, np.where(y, y, np.nan)), DataError, r"got a missing value \(NaN\) \(row 0\)"),
        (lambda X, y: (X, np.ma.masked_equal(y, 1)), TypeError, "y is a masked array"),
        (lambda X, y: (X, y.astype(str)), TypeError, "y must hold the numbers of 3 classes, got <U.*classes="),
        (
            lambda X, y: (X, np.zeros((9, 2), int)),
            DataError,
            r"y must have one label .*, got shape \(9, 2\)",
        ),
    ],
)
def test_bad_samples(any_backend: Backend, change: Callable[..., Any], kind: type[Exception], message: str) -> None:
    X, _ = samples(9)
    with pytest.raises(kind, match=message):
        Statistics(PHI, K, backend=any_backend).update(*change(X, np.arange(9) % 3))


@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (np.zeros(9), DataError, r"y must have shape \(9, 3\), got \(9,\)"),
        (np.zeros((9, 2)), DataError, r"y must have shape \(9, 3\), got \(9, 2\)"),
        (np.zeros((8, 3)), DataError, r"y must have shape .*got \(8, 3\)"),
        (np.zeros((9, 3, 1)), DataError, r"y must have shape .*got \(9, 3, 1\)"),
        (np.full((9, 3), np.nan), DataError, "y holds NaN or infinity"),
        (np.full((9, 3), "a"), TypeError, "y must hold numbers, got <U1"),
        (np.zeros((9, 3), complex), TypeError, "y must hold class labels or real-valued targets, got dtype complex128"),
    ],
)
def test_bad_targets(any_backend: Backend, y: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Statistics(PHI, n_targets=K, backend=any_backend).update(samples(9)[0], y)


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (np.array([0, 9]), DataError, "rows holds the index 9, X has 9 rows"),
        (np.array([-1]), DataError, "rows holds the index -1"),
        (np.array([2**63], dtype=np.uint64), DataError, "rows holds the index 9223372036854775808"),
        (np.ones(9, dtype=bool), TypeError, "rows must hold integer row indices, got dtype bool"),
        (np.array([0.0]), TypeError, "rows must hold integer row indices, got dtype float64"),
        (np.array([[0]]), DataError, r"rows must have shape \(r,\), got \(1, 1\)"),
        (["0"], TypeError, "rows must hold integer row indices"),
    ],
)
def test_bad_rows(any_backend: Backend, rows: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        statistics_of(*samples(9), backend=any_backend, rows=rows)


def test_bad_rows_are_named_beyond_the_first_batch(any_backend: Backend) -> None:
    n = module._BATCH_ROWS + 100
    X, Y = np.zeros((n, 1), np.float32), np.zeros(n, np.int64)
    X[n - 7] = np.nan
    with pytest.raises(DataError, match=f"row {n - 7} holds NaN or infinity"):
        Statistics(kd.Identity(1), 1, backend=any_backend).update(X, Y)
    with pytest.raises(DataError, match=f"row {n - 7} holds NaN or infinity"):
        Statistics(kd.Identity(1), 1, backend=any_backend).update(X, Y, rows=np.arange(n)[::-1])


@pytest.mark.filterwarnings("ignore:overflow encountered")  # NumPy's own, from the array backend
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_features_that_overflow_are_refused(any_backend: Backend, targets: str) -> None:
    X, Y = samples(9, targets=targets)
    with pytest.raises(DataError, match="features overflow float32; scale the inputs"):
        statistics_of(1e20 * X, Y, "float32", any_backend)
    statistics_of(1e20 * X.astype(np.float64), Y, "float64", any_backend)


@pytest.mark.parametrize("layout", ["structured", "reversed columns", "big endian", "half", "int16", "list", "fortran"])
def test_any_layout_and_number_type(any_backend: Backend, layout: str) -> None:
    X = np.arange(54, dtype=np.float32).reshape(9, D) / 64
    Y = np.arange(9) % K
    expected = statistics_of(X, Y, backend=any_backend)
    record = np.zeros(9, dtype=[("flag", "u1"), ("x", "<f4", D)])  # rows of 25 bytes: not aligned
    record["x"] = X
    variants: dict[str, Any] = {
        "structured": record["x"],
        "reversed columns": np.ascontiguousarray(X[:, ::-1])[:, ::-1],
        "big endian": X.astype(">f4"),
        "half": X.astype(np.float16),
        "int16": (64 * X).astype(np.int16),
        "list": X.tolist(),
        "fortran": np.asfortranarray(X),
    }
    if layout == "int16":
        scaled = PHI.with_preprocessing(Preprocessing("standardize", np.zeros(D), np.full(D, 64.0)))
        actual = Statistics(scaled, K, precision="float64", backend=any_backend).update(variants[layout], Y)
    else:
        actual = statistics_of(variants[layout], Y, backend=any_backend)
    assert_close(actual, expected, X, Y, np.float64)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"n_targets": 0}, ValueError, "n_targets must be at least 1, got 0"),
        ({"n_targets": 2.5}, TypeError, "n_targets must be an integer, got 2.5"),
        ({"precision": "float16"}, ValueError, "precision must be one of float32, float64; got 'float16'"),
        ({"backend": "gpu"}, ValueError, "backend must be one of native, numba, array, cuda; got 'gpu'"),
    ],
)
def test_bad_construction(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Statistics(**{"feature_map": PHI, "n_targets": K, **arguments})


def test_merge_refuses_other_shapes() -> None:
    X, Y = samples(9)
    statistics = statistics_of(X, Y)
    with pytest.raises(DataError, match=r"there are 3 and 2 classes without labels; .* grow.* classes=3"):
        statistics.merge(Statistics(PHI, 2))
    both = r"different feature maps: FCNN\(6 -> .*\) and Identity\(6 -> 6\); all shards take one map \(--like\)"
    with pytest.raises(DataError, match=both):
        statistics.merge(Statistics(kd.Identity(6), K))
    with pytest.raises(DataError, match=r"different targets: classes and 3 real targets$"):
        statistics.merge(Statistics(PHI, n_targets=K))
    with pytest.raises(DataError, match=r"targets: 2 real targets and 1 real targets; of different feature maps: FCNN"):
        Statistics(PHI, n_targets=2).merge(Statistics(kd.Identity(6), n_targets=1))
    ours, theirs = (kd.Identity(D, preprocessing=kd.standardize(scale * X)) for scale in (1.0, 2.0))
    with pytest.raises(DataError, match="each with the scaling of its own samples"):
        Statistics(ours, K).merge(Statistics(theirs, K))


def test_statistics_of_another_map_are_refused(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 6)), np.arange(20) % 2
    ours, theirs = (kd.RidgeStatistics(phi, 2).update(X, y) for phi in (kd.Identity(6), kd.FCNN(6)))
    with pytest.raises(kd.DataError, match="different feature maps"):
        ours.merge(theirs)
    theirs.save(tmp_path / "theirs.npz")
    with pytest.raises(kd.DataError, match="of another feature map"):
        Statistics.load(tmp_path / "theirs.npz", kd.Identity(6))


# Updates that fail


def snapshot(statistics: Statistics) -> dict[str, Array]:
    """Copies of all that statistics hold."""
    numbers = {name: np.copy(getattr(statistics, name)) for name in NUMBERS}
    return {**numbers, "n": np.asarray(statistics.n), "weight": np.asarray(statistics.total_weight)}


def assert_unchanged(statistics: Statistics, before: dict[str, Array]) -> None:
    for name, value in snapshot(statistics).items():
        tolerances.assert_exact(value, before[name])


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("rows", "bad"), [(40_000, np.nan), (40_000, -np.inf), (40_000, 1e30), (9, np.nan), (9, np.inf), (9, 1e30)]
)
def test_statistics_update_that_fails_leaves_everything_bit_for_bit(
    any_backend: Backend, targets: str, held: bool, rows: int, bad: float
) -> None:
    X, Y = samples(3 if held else 30, targets=targets)
    statistics = statistics_of(X, Y, "float32", any_backend)
    before = snapshot(statistics)
    more, theirs = samples(rows, 1, targets)
    with pytest.raises(DataError, match=r"NaN or infinity|overflow"):
        statistics.update(spoiled(more, (rows - 1, 2), bad), theirs)
    assert_unchanged(statistics, before)
    statistics.update(more[:50], theirs[:50])
    whole = np.vstack([X, more[:50]]), np.concatenate([Y, theirs[:50]])
    assert_close(statistics, statistics_of(*whole, "float32", any_backend), *whole, "float32")


def test_statistics_update_with_targets_that_overflow_leaves_everything(any_backend: Backend) -> None:
    """Features pass, products with targets or weights do not."""
    X, Y = samples(30, targets="values")
    statistics = statistics_of(X, Y, "float32", any_backend)
    before = snapshot(statistics)
    for changes in ({"y": 1e38 * Y}, {"y": 1e200 * Y}, {"y": Y, "sample_weight": np.full(30, 1e80)}):
        with pytest.raises(DataError, match="overflow"), np.errstate(over="ignore", invalid="ignore"):
            statistics.update(X, **changes)
        assert_unchanged(statistics, before)


def test_statistics_update_with_a_label_out_of_range_leaves_everything() -> None:
    X, Y = samples(30)
    statistics = statistics_of(X, Y)
    before = snapshot(statistics)
    with pytest.raises(DataError, match="label 3"):
        statistics.update(X, np.where(np.arange(30) == 29, K, Y))
    assert_unchanged(statistics, before)


def test_statistics_interrupted_in_place_refuse_later_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 8)
    X, y = np.zeros((30, D), np.uint8), np.arange(30) % K
    statistics, other = (Statistics(kd.Identity(D), K).update(X, y) for _ in range(2))

    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        statistics.update(X, y, progress=interrupt)
    for use in (
        lambda: statistics.gram,
        lambda: statistics.cross,
        statistics.system,
        lambda: statistics.update(X, y),
        lambda: statistics.merge(other),
        lambda: other.merge(statistics),
        lambda: statistics.copy().gram,
        lambda: statistics.save(tmp_path / "s.npz"),
    ):
        with pytest.raises(DataError, match="interrupted"):
            use()


@pytest.mark.parametrize("n", [2, 30])
def test_statistics_are_of_no_use_to_the_progress_of_their_update(n: int, tmp_path: Path) -> None:
    """A save from there held part of a batch; an update from there was lost."""
    X, y = np.zeros((n, D), np.uint8), np.arange(n) % K
    statistics = Statistics(kd.Identity(D), K).update(X, y)
    uses: list[Callable[[], Any]] = [
        lambda: statistics.save(tmp_path / "s.npz"),
        lambda: statistics.update(X, y),
        lambda: statistics.grow(1),
        lambda: statistics.merge(statistics_of(*samples(3))),
        lambda: statistics_of(*samples(3)).merge(statistics),
        lambda: statistics.gram,
        lambda: statistics.cross,
        statistics.copy,
    ]

    def refused(fraction: float) -> None:
        for use in uses:
            with pytest.raises(RuntimeError, match="an update is running"):
                use()

    statistics.update(X, y, progress=refused)
    assert statistics.n == 2 * n
    assert statistics.copy().n == 2 * n


@pytest.mark.parametrize("change", ["update", "merge", "subtract"])
def test_statistics_interrupted_after_gram_changed_refuse_later_use(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = samples(30)
    whole, part = statistics_of(X, Y), statistics_of(X[10:], Y[10:])
    rest = statistics_of(*samples(20, 1))
    merged = SummedGram.merged

    def interrupted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        merged(self, *arguments, **keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(SummedGram, "merged", interrupted)
    monkeypatch.setattr(Statistics, "_may_fail", lambda *_: True)  # a G of its own, which is merged
    changes: dict[str, Callable[[], Any]] = {
        "update": lambda: whole.update(*samples(30, 1)),
        "merge": lambda: whole.merge(rest),
        "subtract": lambda: whole.__isub__(part),
    }
    with pytest.raises(KeyboardInterrupt):
        changes[change]()
    monkeypatch.setattr(SummedGram, "merged", merged)
    for use in (lambda: whole.gram, lambda: whole.update(X, Y), lambda: rest.merge(whole)):
        with pytest.raises(DataError, match="interrupted"):
            use()


@pytest.mark.parametrize("n", [2, 30])
def test_sums_of_statistics_are_read_only(n: int) -> None:
    statistics = statistics_of(*samples(n))
    for name in ("gram", "cross", "feature_sum", "target_sum", "target_square"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(statistics, name)[...] = 0.0


def test_statistics_take_their_own_gram_as_samples() -> None:
    p, rng = 1100, np.random.default_rng(0)
    X, y = 0.01 * rng.standard_normal((p + 1, p)), np.arange(p + 1) % K
    statistics = Statistics(kd.Identity(p), K).update(X, y)
    rows, labels = np.tile(np.arange(p), 8), np.arange(p) % K  # more than are summed before G changes, in place
    expected = statistics.copy().update(statistics.gram.copy(), labels, rows=rows)
    statistics.update(statistics.gram, labels, rows=rows)
    tolerances.assert_exact(statistics.gram, expected.gram)


@pytest.mark.parametrize("n", [4, 30, 60])
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_statistics_refuse_to_lose_samples_that_they_never_had(n: int, targets: str) -> None:
    X, Y = samples(60, targets=targets)
    whole = statistics_of(X, Y)
    before = snapshot(whole)
    other = X[:n].copy()
    other[:, 2] *= 9.0
    with pytest.raises(DataError, match=r"no samples have the sums .*; only data that were added can be taken away"):
        whole -= statistics_of(other, Y[:n])
    assert_unchanged(whole, before)
    with pytest.raises(DataError, match="only data that were added"):
        whole -= statistics_of(X + 1.0, Y)  # as many samples as there are
    assert_unchanged(whole, before)
    whole -= statistics_of(X[:n], Y[:n])
    assert whole.n == 60 - n


@pytest.mark.parametrize("name", ["sample_weight", "rows", "X"])
def test_masked_arrays_are_refused(name: str) -> None:
    X, y = samples(20)
    given: dict[str, Any] = {"X": X, "sample_weight": np.ones(20), "rows": np.arange(20)}
    given[name] = np.ma.masked_array(given[name], mask=np.ones_like(given[name]))
    with pytest.raises(TypeError, match=f"{name} is a masked array; fill or drop what is masked"):
        empty_for(y).update(given["X"], y, sample_weight=given["sample_weight"], rows=given["rows"])


# Shards, classes and copies


@pytest.mark.parametrize("sizes", [(2, 2), (2, 30), (30, 2), (10, 3, 40)])
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_statistics_of_shards_in_any_order_equal_one_pass(sizes: tuple[int, ...], targets: str) -> None:
    X, Y = samples(sum(sizes), targets=targets)
    bounds = np.cumsum([0, *sizes])
    for order in (range(len(sizes)), reversed(range(len(sizes)))):
        total = empty_for(Y, precision="float64")
        for i in order:
            total += statistics_of(X[bounds[i] : bounds[i + 1]], Y[bounds[i] : bounds[i + 1]])
        assert_close(total, statistics_of(X, Y), X, Y, np.float64)


def test_statistics_minus_a_part_are_those_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, D), dtype=np.uint8), rng.integers(0, K, 60)
    whole, part, rest = (
        Statistics(kd.Identity(D), K, precision="float64").update(X[s], y[s])
        for s in (slice(None), slice(40, None), slice(40))
    )
    whole -= part
    for name in NUMBERS:
        tolerances.assert_exact(getattr(whole, name), getattr(rest, name))
    real, Y = samples(60, targets="values")
    left = statistics_of(real, Y)
    left -= statistics_of(real[40:], Y[40:])
    assert left.n == 40
    tolerances.assert_reduction(left.gram, statistics_of(real[:40], Y[:40]).gram, np.float64, 60,
                                oracles.gram(oracles.feature_magnitude(real.T, PHI.layers)))  # fmt: skip
    rounded = statistics_of(real, Y, "float32")
    with pytest.raises(DataError, match=r"products are in float32 and float64; those in float32 .* do not cancel"):
        rounded -= statistics_of(real[40:], Y[40:])


@pytest.mark.parametrize("names", [["cat", "dog"], [-1, 1], [3, 70]])
def test_statistics_of_named_classes_equal_those_of_codes(names: list[Any], tmp_path: Path) -> None:
    X, _ = samples(20)
    codes = np.arange(20) % 2
    named = Statistics(PHI, names, precision="float64").update(X, np.array(names)[codes])
    tolerances.assert_exact(named.cross, Statistics(PHI, 2, precision="float64").update(X, codes).cross)
    with pytest.raises(DataError, match="which is no class"):
        named.update(X, np.array([*names, type(names[0])(99)])[[0] * 19 + [2]])
    named.save(tmp_path / "s.npz")
    assert Statistics.load(tmp_path / "s.npz", PHI).classes == named.classes


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("n", [3, 30])
def test_statistics_copies_are_independent(duplicate: Callable[[Statistics], Statistics], n: int) -> None:
    X, Y = samples(n)
    original = statistics_of(X, Y)
    before = snapshot(original)
    other = duplicate(original)
    assert_unchanged(other, before)
    other.update(*samples(30, 1))
    assert other.n == n + 30
    assert_unchanged(original, before)


def test_statistics_of_many_features_and_few_rows_need_no_gram() -> None:
    """G would take 181 GB."""
    X = np.random.default_rng(0).integers(0, 256, (60, 150_528), dtype=np.uint8)
    statistics = Statistics(kd.Identity(150_528), classes=2).update(X, np.arange(60) % 2)
    assert len(statistics.system().gram) == 60


# Threads


@pytest.mark.parametrize("weighted", [False, True])
def test_update_from_eight_threads_gives_the_sums_of_one(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 9, (8, 300, 20)).astype(float), rng.integers(0, 3, (8, 300))  # sums are exact in any order
    one, shared = (kd.RidgeStatistics(kd.Identity(20), classes=3, precision="float64") for _ in range(2))
    for batch in zip(X, y, strict=True):
        one.update(*batch)
    start = threading.Barrier(8)

    def work(i: int) -> None:
        start.wait()
        for rows in np.array_split(np.arange(300), 60):
            shared.update(X[i][rows], y[i][rows], sample_weight=np.ones(len(rows)) if weighted else None)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("n", "gram", "cross", "feature_sum", "target_sum", "target_square"):
        tolerances.assert_exact(np.asarray(getattr(shared, name)), np.asarray(getattr(one, name)))
    tolerances.assert_exact(shared.system("both").gram, one.system("both").gram)


# Memory


def test_a_gram_matrix_larger_than_memory_is_refused_with_its_bytes() -> None:
    """Systems that overcommit would end the process while G fills."""
    p = 4_000_000
    statistics = Statistics(kd.Identity(p), classes=2)
    samples = np.zeros((1, 1), np.uint8)
    with pytest.raises(MemoryError, match=r"statistics: G of 4000000 x 4000000 features in float64 needs 128000\.0 GB"):
        statistics.update(np.broadcast_to(samples, (p, p)), np.zeros(p, np.int64))
    assert statistics.n == 0


def test_a_path_larger_than_memory_is_refused_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = statistics_of(*samples(20))
    monkeypatch.setattr(memory, "_LARGE", 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    with pytest.raises(MemoryError, match=r"ridge_path: a copy of G \(5 x 5\) and models"):
        kd.ridge_path(statistics)


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [
        ("5000", "anon 1000\nfile 3900\n", 4000),
        ("max", "anon 1000\n", None),
        ("5000", "file 1\n", None),
        (None, "", None),
    ],
)
def test_memory_of_a_container_is_what_its_processes_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, stat: str, expected: int | None
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.stat").write_text(stat)
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    whole = memory._of_the_system()
    assert memory.available_bytes() == (expected if expected is not None else pytest.approx(whole, rel=0.5))


def peak_of(act: Callable[[], Any]) -> int:
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_weighted_update_lays_out_targets_a_part_at_a_time():
    n, k = 60_000, 500
    X, y = np.ones((n, 8), np.float32), np.arange(n) % k
    phi, weights = kd.Identity(8), np.linspace(1.0, 2.0, n)
    peak = peak_of(lambda: Statistics(phi, k).update(X, y, sample_weight=weights))
    assert peak < 0.6 * n * k * 8  # of the one-hot targets, 240 MB


def test_solving_saving_loading_and_merging_take_few_gram_matrices(tmp_path):
    p = 1200
    X = np.random.default_rng(0).normal(size=(p + 400, p)).astype(np.float32)
    phi, y = kd.Identity(p), np.arange(p + 400) % K
    total, other = (Statistics(phi, K, shard=name).update(X, y) for name in "ab")
    path = tmp_path / "sums.npz"
    grams = {
        "merge": (lambda: total.merge(other), 0.2),
        "fit_model": (lambda: kd.fit_model(total, 1.0), 1.2),
        "fit_model, path": (lambda: kd.fit_model(total, validation=(X[:50], y[:50])), 1.2),
        "fit_ridge": (lambda: kd.fit_ridge(total, 1.0), 1.2),
        "fit_ridge, centred": (lambda: kd.fit_ridge(total, 1.0, center="both"), 2.4),
        "save": (lambda: total.save(path), 1.2),
        "load": (lambda: Statistics.load(path, phi), 1.7),  # G and its packed triangle
    }
    used = {name: peak_of(act) / (8 * p * p) for name, (act, _) in grams.items()}
    assert {name: found for name, found in used.items() if found > grams[name][1]} == {}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode here")
def test_any_file_name_holds_statistics_model_and_rows(tmp_path):
    X, y = samples(40)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xff\xce\xbb"))
    folder.mkdir()
    made = statistics_of(X, y)
    made.save(folder / "sums.npz")
    model = kd.fit_model(made, 1.0)
    model.save(folder / "model.npz")
    kd.HeldOutRows(X, y).save(folder / "rows.npz")
    tolerances.assert_exact(Statistics.load(folder / "sums.npz", PHI).gram, made.gram)
    tolerances.assert_exact(kd.RidgeModel.load(folder / "model.npz", PHI).W, model.W)
    tolerances.assert_exact(kd.HeldOutRows.load(folder / "rows.npz").X, X)
    with pytest.raises(DataError, match="not a file of a ridge model"):  # a message with such a name can be written
        kd.RidgeModel.load(folder / "rows.npz", PHI)


def test_a_class_without_positive_weight_has_no_model():
    X, y = samples(40)
    made = Statistics(PHI, K).update(X, y, sample_weight=(y != 1).astype(float))
    with pytest.raises(
        DataError, match=r"^fit_model: class 1 has no sample of positive weight \(1 classes have none\)"
    ):
        kd.fit_model(made, 1.0)
