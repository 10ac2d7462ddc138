"""Every operation of every backend against the oracle: maps, dtypes, layouts, and sizes around SIMD and tile edges."""

from __future__ import annotations

import functools
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl

import oracles
import tolerances
from conftest import ANY_BACKENDS, named_backend, pytest_terminal_summary, set_tile_rows, stages
from krrdistill import backends
from krrdistill.backends import Backend, HadamardWeight, Layer, backend_status, get_backend
from krrdistill.backends.compiled import CompiledBackend
from krrdistill.backends.tiles import tile_rows
from krrdistill.errors import BackendUnavailable, DataError, NotPositiveDefinite, NotSurjective
from krrdistill.maps import FeatureMap

SIZES = (1, 15, 16, 17, 31, 64, 65)
SAMPLES = (0, *SIZES)
MAPS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN_1", "FCNN_2", "ZCA_FCNN_2", "mixed_3")
INPUT_TYPES = ("uint8", "float32", "float64")
LAYOUTS = ("contiguous", "row_strided", "reversed", "broadcast", "read_only", "memmap")

Array = npt.NDArray[Any]


def make_chain(kind: str, d: int, p: int, rng: np.random.Generator, *, affine: bool = False) -> FeatureMap:
    """A chain from d inputs to p features (identity: p = d), with weights as the maps have them.

    Structured weights have at most as many outputs as inputs: orthogonal_fourier has min(p, d) features.
    """

    def layer(outputs: int, inputs: int, activation: Any, parameter: float, *, bias: bool, dtype: str) -> Layer:
        weight = rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)
        offset = rng.uniform(0.0, 6.0, outputs).astype(dtype) if bias else None
        return Layer(weight.astype(dtype), offset, activation, parameter)

    def structured(outputs: int, inputs: int, activation: Any, parameter: float) -> Layer:
        signs = rng.choice(np.array([-1, 1], np.int8), (3, 2, 2 ** int(np.log2(inputs))))
        scale = rng.uniform(0.5, 2.0, outputs).astype(np.float32)
        offset = rng.uniform(0.0, 6.0, outputs).astype(np.float32)
        return Layer(HadamardWeight(inputs, signs, scale), offset, activation, parameter)

    hidden = 17
    layers: dict[str, Callable[[], tuple[Layer, ...]]] = {
        "identity": lambda: (),
        "random_fourier": lambda: (layer(p, d, "cosine", float(np.sqrt(2 / p)), bias=True, dtype="float32"),),
        "orthogonal_fourier": lambda: (structured(min(p, d), d, "cosine", float(np.sqrt(2 / p))),),
        "FCNN_1": lambda: (layer(p, d, "leaky_relu", 0.1, bias=False, dtype="float32"),),
        "FCNN_2": lambda: (
            layer(hidden, d, "leaky_relu", 0.1, bias=False, dtype="float32"),
            layer(p, hidden, "leaky_relu", 0.2, bias=False, dtype="float32"),
        ),
        "ZCA_FCNN_2": lambda: (
            layer(d, d, "linear", 1.0, bias=True, dtype="float64"),
            layer(hidden, d, "leaky_relu", 0.1, bias=True, dtype="float32"),
            layer(p, hidden, "leaky_relu", 0.2, bias=False, dtype="float32"),
        ),
        "mixed_3": lambda: (
            layer(hidden, d, "linear", 1.0, bias=False, dtype="float32"),
            structured(hidden - 2, hidden, "leaky_relu", 0.1),
            layer(p, hidden - 2, "leaky_relu", 0.2, bias=True, dtype="float32"),
        ),
    }
    if affine:
        return stages(d, layers[kind](), rng.uniform(0.01, 0.02, d), rng.standard_normal(d))
    return stages(d, layers[kind]())


def make_inputs(n: int, d: int, input_type: str, rng: np.random.Generator) -> Array:
    if input_type == "uint8":
        return rng.integers(0, 256, (n, d), dtype=np.uint8)
    return rng.standard_normal((n, d)).astype(input_type)


def lay_out(X: Array, layout: str, folder: Path) -> Array:
    """The same numbers (or, for "broadcast", their first row n times) in another place of memory."""
    if layout == "row_strided":
        room = np.zeros((2 * len(X), X.shape[1] + 3), X.dtype)
        room[::2, 1:-2] = X
        return room[::2, 1:-2]
    if layout == "reversed":
        return np.ascontiguousarray(X[::-1])[::-1]
    if layout == "broadcast":
        return np.broadcast_to(X[:1], X.shape)
    if layout == "read_only":
        X = X.copy()
        X.flags.writeable = False
    if layout == "memmap":
        X.tofile(folder / "X.bin")
        return np.memmap(folder / "X.bin", dtype=X.dtype, mode="r", shape=X.shape)
    return X


def expected_features(chain: FeatureMap, X: Array) -> tuple[Array, Array, int]:
    """(features (n, p), their magnitude, number of terms in the longest sum)."""
    arguments = (X.T, chain.layers, chain.scale, chain.shift)
    terms = chain.input_dim + sum(layer.weight.shape[1] for layer in chain.layers)
    return oracles.features(*arguments).T, oracles.feature_magnitude(*arguments).T, terms


def check_transform(backend: Backend, chain: FeatureMap, X: Array, dtype: Any, rows: Any = None) -> None:
    actual = backend.transform(chain, X, dtype=dtype, rows=rows)
    expected, magnitude, terms = expected_features(chain, X if rows is None else X[rows])
    assert actual.dtype == dtype
    tolerances.assert_reduction(actual, expected, dtype, terms, magnitude)


def check_accumulate(backend: Backend, chain: FeatureMap, X: Array, Y: Array, dtype: Any, rows: Any = None) -> None:
    k, p = (3 if Y.ndim == 1 else Y.shape[1]), chain.output_dim
    gram, cross = np.full((p, p), 0.5), np.full((k, p), -0.25)
    backend.accumulate(chain, X, Y, gram, cross, dtype=dtype, rows=rows)
    backend.symmetrize(gram)
    picked = np.arange(len(X)) if rows is None else rows
    Phi, magnitude, terms = expected_features(chain, X[picked])
    targets = oracles.one_hot(Y[picked], k) if Y.ndim == 1 else Y[picked].T
    terms += len(picked)
    tolerances.assert_exact(gram, gram.T)
    tolerances.assert_reduction(gram, 0.5 + oracles.gram(Phi.T), dtype, terms, 0.5 + oracles.gram(magnitude.T))
    tolerances.assert_reduction(
        cross, -0.25 + oracles.cross(targets, Phi.T), dtype, terms, 0.25 + oracles.cross(np.abs(targets), magnitude.T)
    )


def check_score_path(
    backend: Backend, chain: FeatureMap, X: Array, labels: Array, W: Array, dtype: Any, rows: Any = None
) -> None:
    actual = backend.score_path(chain, X, labels, W, dtype=dtype, rows=rows)
    picked = np.arange(len(X)) if rows is None else rows
    Phi, magnitude, terms = expected_features(chain, X[picked])
    assert actual.shape == (len(W),)
    assert actual.dtype == np.int64
    for model, count in zip(W, actual, strict=True):
        right = oracles.predictions(model, Phi.T) == labels[picked]
        unsure = tolerances.reduction(dtype, terms + Phi.shape[1], np.abs(model) @ magnitude.T).max(axis=0, initial=0.0)
        close = oracles.margins(model, Phi.T) <= 2.0 * unsure  # decided by rounding: either answer is right
        assert abs(int(count) - int(right.sum())) <= int(close.sum())


# Features


@pytest.mark.parametrize("kind", MAPS)
def test_transform_sizes(backend: Backend, dtype: Any, kind: str, rng: np.random.Generator) -> None:
    """Every d with every p; the rest in turn, so that each d and each p meets all of it, with and without scaling."""
    samples, input_types = itertools.cycle(SAMPLES), itertools.cycle(INPUT_TYPES)
    affine = itertools.cycle([False, True, False, True, True])  # five in turn: no period of the others
    for d, p in itertools.product(SIZES, SIZES):
        chain = make_chain(kind, d, p, rng, affine=next(affine))
        check_transform(backend, chain, make_inputs(next(samples), d, next(input_types), rng), dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("input_type", INPUT_TYPES)
def test_transform_layouts(
    backend: Backend, dtype: Any, input_type: str, layout: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    for kind, affine, d in itertools.product(("identity", "FCNN_1"), (False, True), (1, 33)):
        X = lay_out(make_inputs(21, d, input_type, rng), layout, tmp_path)
        before = X.copy()
        check_transform(backend, make_chain(kind, d, 18, rng, affine=affine), X, dtype)
        tolerances.assert_exact(X, before)


@pytest.mark.parametrize("input_type", INPUT_TYPES)
def test_identity_only_converts(backend: Backend, dtype: Any, input_type: str, rng: np.random.Generator) -> None:
    for d in SIZES:
        X = make_inputs(5, d, input_type, rng)
        tolerances.assert_exact(backend.transform(stages(d, ()), X, dtype=dtype), X.astype(dtype))


@pytest.mark.parametrize("input_type", INPUT_TYPES)
def test_standardisation_is_elementwise(
    backend: Backend, dtype: Any, input_type: str, rng: np.random.Generator
) -> None:
    for d in SIZES:
        chain = make_chain("identity", d, d, rng, affine=True)
        X = make_inputs(7, d, input_type, rng)
        expected, magnitude, _ = expected_features(chain, X)
        tolerances.assert_elementwise(backend.transform(chain, X, dtype=dtype), expected, dtype, magnitude)


@pytest.mark.parametrize("kind", MAPS)
def test_rows_gather_with_repeats(backend: Backend, dtype: Any, kind: str, rng: np.random.Generator) -> None:
    chain = make_chain(kind, 17, 16, rng, affine=True)
    X = make_inputs(30, 17, "uint8", rng)
    labels, targets = rng.integers(0, 3, 30), rng.standard_normal((30, 2))
    W = rng.standard_normal((2, 3, chain.output_dim))
    for rows in (rng.integers(0, 30, 70), np.array([29, 0, 29, 29]), np.arange(0), np.array([5])):
        check_transform(backend, chain, X, dtype, rows)
        check_accumulate(backend, chain, X, labels, dtype, rows)
        check_accumulate(backend, chain, X, targets, dtype, rows)
        check_score_path(backend, chain, X, labels, W, dtype, rows)


# Tiles are cut before the layers, and each kind of layer is in one of these.
@pytest.mark.parametrize("kind", ["identity", "random_fourier", "orthogonal_fourier", "mixed_3"])
def test_tile_edges(
    backend: Backend, dtype: Any, kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 33
    chain = make_chain(kind, 15, 18, rng, affine=True)
    X = make_inputs(n, 15, "float32", rng)
    labels, targets = rng.integers(0, 3, n), rng.standard_normal((n, 2))
    W = rng.standard_normal((2, 3, chain.output_dim))
    backwards = np.arange(n)[::-1].copy()
    tiles = ((1, None), (7, backwards), (11, None), (32, backwards), (32, None), (33, backwards), (34, None))
    for rows_of_tile, rows in tiles:
        set_tile_rows(monkeypatch, backend, rows_of_tile)
        check_transform(backend, chain, X, dtype, rows)
        check_accumulate(backend, chain, X, labels, dtype, rows)
        check_accumulate(backend, chain, X, targets, dtype, rows)
        check_score_path(backend, chain, X, labels, W, dtype, rows)


def test_tile_rows_bound_the_memory() -> None:
    for d, p, size in itertools.product((1, 784, 3072, 100_000), (1, 10_000), ("float32", "float64")):
        weight = np.broadcast_to(np.float32(0), (p, d))
        rows = tile_rows(stages(d, (Layer(weight, None, "linear", 1.0),)), np.dtype(size))
        assert 64 <= rows <= 4096
        assert rows == 64 or rows * max(d, p) * np.dtype(size).itemsize <= 48 << 20


# Element-wise kernels: weights of zero leave the bias, so the activation sees chosen numbers


def activate(backend: Backend, values: Array, activation: Any, parameter: float) -> Array:
    layer = Layer(np.zeros((len(values), 1), values.dtype), values, activation, parameter)
    return backend.transform(stages(1, (layer,)), np.zeros((1, 1)), dtype=values.dtype)[0]


def angle_ranges(dtype: Any) -> Iterator[Array]:
    for limit in (1.0, 10.0, 1e3, 8192.0, 8300.0, 1e5, 1.1e6, 1e8, 1e12):
        yield np.linspace(-limit, limit, 10_001).astype(dtype)
    quarters = np.arange(-5300, 5300) * (np.pi / 2)
    for offset in (0.0, 1e-6, -1e-3):
        yield (quarters + offset).astype(dtype)
    end = dtype.type(8192.0)  # of the float32 kernel's own range
    yield np.array([0.0, -0.0, 1e-30, -1e-38, end, -end, np.nextafter(end, 2 * end), np.nextafter(end, 0 * end)], dtype)
    for place in (0, 7, 130, 299):  # one large angle sends its whole row another way
        mixed = np.linspace(-3.0, 3.0, 300).astype(dtype)
        mixed[place] = 3e7
        yield mixed


def test_cosine_is_accurate(backend: Backend, dtype: Any) -> None:
    for angles in angle_ranges(dtype):
        error = activate(backend, angles, "cosine", 0.75) - 0.75 * np.cos(angles.astype(np.float64))
        assert np.abs(error).max() <= tolerances.cosine(dtype)


def test_cosine_of_every_length(backend: Backend, dtype: Any) -> None:
    for length in range(1, 131):
        angles = np.linspace(-40.0, 55.0, length).astype(dtype)
        expected = 0.75 * np.cos(angles.astype(np.float64))
        assert np.abs(activate(backend, angles, "cosine", 0.75) - expected).max() <= tolerances.cosine(dtype)


def test_leaky_relu_of_every_length(backend: Backend, dtype: Any) -> None:
    special = np.array([0.0, -0.0, 1e-40, -1e-40, 1e38, -1e38, 1.0, -1.0], dtype)
    for length in range(1, 67):
        values = np.resize(special, length)
        expected = np.where(values > 0, values, dtype.type(0.125) * values)
        tolerances.assert_exact(activate(backend, values, "leaky_relu", 0.125), expected)
        tolerances.assert_exact(activate(backend, values, "linear", 1.0), values)


# NaN and infinity


@pytest.mark.parametrize("input_type", ["float32", "float64"])
def test_not_finite_is_found_in_every_column(
    backend: Backend, dtype: Any, input_type: str, rng: np.random.Generator
) -> None:
    for d, bad in itertools.product((1, 15, 16, 17, 40), (np.nan, np.inf, -np.inf)):
        chain = make_chain("FCNN_1", d, 3, rng, affine=d % 2 == 0)
        for column in range(d):
            X = make_inputs(4, d, input_type, rng)
            row = column % 4
            X[row, column] = bad
            with pytest.raises(DataError, match=f"row {row} holds NaN or infinity"):
                backend.transform(chain, X, dtype=dtype)


def test_not_finite_names_the_row_of_the_data(
    backend: Backend, dtype: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile_rows(monkeypatch, backend, 8)
    chain = make_chain("identity", 5, 5, rng)
    X = make_inputs(50, 5, "float64", rng)
    X[37, 4] = np.nan
    gram, cross, W = np.zeros((5, 5)), np.zeros((2, 5)), np.zeros((1, 2, 5))
    labels = np.zeros(50, np.int64)
    for rows in (None, np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 37]), np.array([37])):
        calls: tuple[Callable[[], Any], ...] = (
            lambda rows=rows: backend.transform(chain, X, dtype=dtype, rows=rows),
            lambda rows=rows: backend.accumulate(chain, X, labels, gram, cross, dtype=dtype, rows=rows),
            lambda rows=rows: backend.score_path(chain, X, labels, W, dtype=dtype, rows=rows),
        )
        for call in calls:
            with pytest.raises(DataError, match="row 37 holds NaN or infinity"):
                call()
    check_transform(backend, chain, X, dtype, np.delete(np.arange(50), 37))
    X[[36, 38, 49], 0] = np.inf
    with pytest.raises(DataError, match="row 36 holds NaN or infinity"):  # the first of several
        backend.transform(chain, X, dtype=dtype)


def test_overflow_of_float32_counts_as_infinity(backend: Backend, rng: np.random.Generator) -> None:
    X = np.array([[1.0, 2.0], [3.0, 1e300]])
    scale = np.array([1.0, 1e-100])
    for chain in (stages(2, ()), stages(2, (), scale, np.zeros(2))):
        with pytest.raises(DataError, match="row 1 holds NaN or infinity"):
            backend.transform(chain, X, dtype=np.dtype(np.float32))
        tolerances.assert_exact(backend.transform(stages(2, ()), X, dtype=np.dtype(np.float64)), X)
    shrunk = stages(2, (), np.array([1.0, 1e-300]), np.zeros(2))  # what counts is what is left
    expected = np.array([[1.0, 0.0], [3.0, 1.0]], np.float32)
    tolerances.assert_elementwise(
        backend.transform(shrunk, X, dtype=np.dtype(np.float32)), expected, np.float32, 1.0 + expected
    )


@pytest.mark.parametrize("input_type", ["float32", "float64"])
def test_a_large_offset_of_floats_costs_no_digits(
    backend: Backend, dtype: Any, input_type: str, rng: np.random.Generator
) -> None:
    """x * scale + shift is that of float64, rounded once."""
    for d in SIZES:
        X = (1e6 + rng.standard_normal((9, d))).astype(input_type)
        for scale in (np.ones(d), rng.uniform(0.5, 2.0, d)):
            chain = stages(d, (), scale, -1e6 * scale)
            expected = oracles.features(X.T, (), chain.scale, chain.shift).T
            rounding = tolerances.elementwise(np.float64, oracles.feature_magnitude(X.T, (), scale, chain.shift).T)
            bound = rounding + tolerances.elementwise(dtype, np.abs(expected))
            tolerances.assert_within(backend.transform(chain, X, dtype=dtype), expected, bound)


# Statistics and scores


@pytest.mark.parametrize("kind", MAPS)
def test_accumulate_sizes(backend: Backend, dtype: Any, kind: str, rng: np.random.Generator) -> None:
    samples, input_types = itertools.cycle(SAMPLES), itertools.cycle(INPUT_TYPES)
    for d, p in itertools.product((1, 17), SIZES):  # what happens before the products is that of transform
        n = next(samples)
        chain = make_chain(kind, d, p, rng, affine=True)
        X = make_inputs(n, d, next(input_types), rng)
        check_accumulate(backend, chain, X, rng.integers(0, 3, n), dtype)
        check_accumulate(backend, chain, X, rng.standard_normal((n, 1 + n % 3)), dtype)


@pytest.mark.parametrize("rows_of_tile", [700, 4095, 4096, 4097])
def test_accumulate_many_rows(
    backend: Backend, dtype: Any, rows_of_tile: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile_rows(monkeypatch, backend, rows_of_tile)  # around the interval at which float32 sums go to float64
    n = 2 * 4096 + 5
    X = make_inputs(n, 3, "float32", rng)
    check_accumulate(backend, make_chain("random_fourier", 3, 7, rng), X, rng.integers(0, 3, n), dtype)


def test_float32_sums_end_after_4096_rows(any_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    set_tile_rows(monkeypatch, any_backend, 1)
    X = np.ones((4096 + 300, 1), np.float32)
    X[0] = 4096.0  # in float32, 4096^2 + 1 is 4096^2
    gram = np.zeros((1, 1))
    any_backend.accumulate(
        stages(1, ()), X, np.zeros(len(X), np.int64), gram, np.zeros((1, 1)), dtype=np.dtype(np.float32)
    )
    assert 2.0**24 + 300 <= gram[0, 0] < 2.0**24 + len(X)


def test_accumulate_wider_than_a_block_of_columns(backend: Backend, dtype: Any, rng: np.random.Generator) -> None:
    for p in (255, 256, 257, 513):  # class sums go in blocks of 256 columns
        chain = make_chain("FCNN_1", 4, p, rng)
        check_accumulate(backend, chain, make_inputs(9, 4, "float32", rng), rng.integers(0, 3, 9), dtype)


@pytest.mark.parametrize("input_type", INPUT_TYPES)
def test_accumulate_without_targets_sums_g_alone(
    any_backend: Backend, dtype: Any, input_type: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile_rows(monkeypatch, any_backend, 1)  # the least workspace: what writes past its end is seen by sanitizers
    for kind in ("identity", "FCNN_1"):
        for n in (0, 40):
            chain = make_chain(kind, 33, 33, rng, affine=True)
            check_accumulate(any_backend, chain, make_inputs(n, 33, input_type, rng), np.empty((n, 0)), dtype)


def test_symmetrize(any_backend: Backend, rng: np.random.Generator) -> None:
    for p in (1, 2, 63, 64, 65, 130):
        gram = rng.standard_normal((p, p))
        expected = np.tril(gram) + np.tril(gram, -1).T
        any_backend.symmetrize(gram)
        tolerances.assert_exact(gram, expected)


@pytest.mark.parametrize("kind", MAPS)
def test_score_path_sizes(backend: Backend, dtype: Any, kind: str, rng: np.random.Generator) -> None:
    samples, widths = itertools.cycle(SAMPLES), itertools.cycle((1, 17))
    for p, models, k in itertools.product((1, 16, 31), (1, 5), (1, 2, 17)):
        n, d = next(samples), next(widths)
        chain = make_chain(kind, d, p, rng, affine=True)
        W = rng.standard_normal((models, k, chain.output_dim))
        check_score_path(backend, chain, make_inputs(n, d, "uint8", rng), rng.integers(0, k, n), W, dtype)


def test_ties_go_to_the_first_class(backend: Backend, dtype: Any, rng: np.random.Generator) -> None:
    X = rng.integers(0, 3, (200, 4)).astype(np.uint8)  # small integers: scores are exact and often equal
    W = rng.integers(-1, 2, (6, 5, 4)).astype(np.float64)
    W[0] = 0.0
    labels = rng.integers(0, 5, 200)
    expected = [int((oracles.predictions(model, X.T) == labels).sum()) for model in W]
    assert expected[0] == int((labels == 0).sum())
    tolerances.assert_exact(backend.score_path(stages(4, ()), X, labels, W, dtype=dtype), expected)


# Solvers


def spd(n: int, rng: np.random.Generator, *, smallest: float = 0.1) -> Array:
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return np.asarray((Q * np.geomspace(smallest, 1.0, n)) @ Q.T)


@pytest.mark.parametrize("n", [1, 2, 16, 31, 65, 129, 300])
def test_solve_spd(any_backend: Backend, n: int, rng: np.random.Generator) -> None:
    A, B = spd(n, rng), rng.standard_normal((n, 3))
    before = A.copy(), B.copy()
    expected = np.linalg.solve(A, B)
    tolerances.assert_solve(any_backend.solve_spd(A, B), expected, oracles.condition(A))
    tolerances.assert_solve(
        any_backend.solve_spd(np.asfortranarray(A), B[:, ::-1][:, ::-1]), expected, oracles.condition(A)
    )
    tolerances.assert_exact(A, before[0])
    tolerances.assert_exact(B, before[1])


@pytest.mark.parametrize("batch", [(1,), (4,), (2, 3)])
def test_solve_spd_batched(any_backend: Backend, batch: tuple[int, ...], rng: np.random.Generator) -> None:
    A = np.stack([spd(9, rng) for _ in range(int(np.prod(batch)))]).reshape(*batch, 9, 9)
    B = rng.standard_normal((*batch, 9, 2))
    actual = any_backend.solve_spd(A, B)
    assert actual.shape == B.shape
    for index in np.ndindex(*batch):
        tolerances.assert_solve(actual[index], np.linalg.solve(A[index], B[index]), oracles.condition(A[index]))


@pytest.mark.parametrize("shape", [(5, 0), (0, 2), (0, 5, 2), (2, 0, 5, 0)])
def test_solve_spd_of_nothing(any_backend: Backend, shape: tuple[int, ...]) -> None:
    A = np.broadcast_to(np.eye(shape[-2]), (*shape[:-1], shape[-2]))
    assert any_backend.solve_spd(A, np.ones(shape)).shape == shape


def test_solve_spd_refuses_what_is_not_positive_definite(any_backend: Backend, rng: np.random.Generator) -> None:
    indefinite = spd(6, rng)
    indefinite[3] = indefinite[:, 3] = 0.0
    with pytest.raises(NotPositiveDefinite, match=r"leading minor.*raise lambda") as caught:
        any_backend.solve_spd(indefinite, np.ones((6, 1)))
    assert "4" in str(caught.value)
    with pytest.raises(NotPositiveDefinite):
        any_backend.solve_spd(np.stack([np.eye(6), -np.eye(6)]), np.ones((2, 6, 1)))


@pytest.mark.parametrize(("p", "d"), [(1, 1), (1, 9), (15, 16), (16, 16), (17, 65), (65, 65), (31, 64)])
def test_preimage_solve(any_backend: Backend, p: int, d: int, rng: np.random.Generator) -> None:
    weight = rng.standard_normal((p, d))
    for m in (0, 1, 20):
        rhs = rng.standard_normal((m, p))
        before = weight.copy(), rhs.copy()
        X = any_backend.preimage_solve(weight, rhs)
        assert X.shape == (m, d)
        tolerances.assert_solve(X, oracles.least_norm(weight, rhs.T).T, oracles.condition(weight))
        tolerances.assert_solve(
            any_backend.preimage_solve(np.asfortranarray(weight), rhs[:, ::1]), X, oracles.condition(weight)
        )
        tolerances.assert_exact(weight, before[0])
        tolerances.assert_exact(rhs, before[1])


@pytest.mark.parametrize(("p", "d"), [(2, 2), (16, 16), (9, 20), (2, 3)])
@pytest.mark.parametrize("defect", ["repeated", "combined", "zero", "first"])
def test_preimage_solve_refuses_rank_deficient_weights(
    any_backend: Backend, p: int, d: int, defect: str, rng: np.random.Generator
) -> None:
    weight = rng.standard_normal((p, d))
    weight[-1] = {
        "repeated": weight[0], "combined": weight[:-1].sum(axis=0), "zero": np.zeros(d), "first": weight[-1]
    }[defect]  # fmt: skip
    if defect == "first":
        weight[0] = 0.0
    with pytest.raises(NotSurjective, match="rank deficient"):
        any_backend.preimage_solve(weight, rng.standard_normal((3, p)))


class FixedMethod:
    """The compiled module, every path by one method."""

    def __init__(self, module: ModuleType, method: str) -> None:
        self.ridge_path = functools.partial(module.ridge_path, method=method)


@pytest.fixture(params=[*ANY_BACKENDS, "native-band", "native-cholesky"])
def path_backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn; the native one with its own choice of the method, and with either of them."""
    name, _, method = request.param.partition("-")
    if name != "native" or not method:
        return named_backend(request.param, request)
    module = request.getfixturevalue("native_module")
    return CompiledBackend("native", module, FixedMethod(module, method))


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("p", [1, 2, 3, 16, 31, 32, 33, 34, 35, 63, 64, 65, 66, 67, 130])
def test_ridge_path(path_backend: Backend, p: int, k: int, rng: np.random.Generator) -> None:
    G, C = spd(p, rng, smallest=1e-4), rng.standard_normal((k, p))
    lambdas = np.array([10.0, 1e-6, 0.1])  # in any order
    before = G.copy(), C.copy()
    solution = path_backend.ridge_path(G, C, lambdas, rounding=1e-15)
    assert solution.positive_definite.tolist() == solution.resolved.tolist() == [True] * 3
    for index, (W, value) in enumerate(zip(solution.weights, lambdas, strict=True)):
        condition = oracles.condition(G + value * np.eye(p))
        tolerances.assert_solve(W, oracles.ridge_of_statistics(G, C, value), condition)
        tolerances.assert_reduction(solution.squares[index], np.sum(W * W), np.float64, W.size, np.sum(W * W))
        tolerances.assert_reduction(solution.products[index], np.sum(W * C), np.float64, W.size, np.sum(np.abs(W * C)))
    tolerances.assert_estimate(solution.largest_eigenvalue, np.linalg.eigvalsh(G)[-1])
    tolerances.assert_exact(G, before[0])
    tolerances.assert_exact(C, before[1])


@pytest.mark.parametrize("p", [1, 5, 16])
def test_ridge_path_marks_what_is_not_positive_definite(
    path_backend: Backend, p: int, rng: np.random.Generator
) -> None:
    G = spd(p, rng) - 0.5 * np.eye(p) if p > 1 else np.array([[-0.4]])
    lambdas = np.array([1e-3, 0.1, 0.39, 0.41, 2.0])  # the smallest eigenvalue is -0.4
    weights, positive_definite, *_ = path_backend.ridge_path(G, np.ones((2, p)), lambdas, rounding=0.0)
    assert positive_definite.tolist() == [False, False, False, True, True]
    assert np.isnan(weights[:3]).all()
    assert np.isfinite(weights[3:]).all()


@pytest.mark.parametrize("p", [1, 5, 70, 300])
def test_ridge_path_marks_what_rounding_hides(path_backend: Backend, p: int, rng: np.random.Generator) -> None:
    G = 100.0 * spd(p, rng)
    smallest, largest = np.linalg.eigvalsh(G)[[0, -1]]
    rounding = 2.0 * smallest / largest  # the floor is twice the smallest eigenvalue
    lambdas = smallest * np.array([1e-3, 0.9, 0.99, 1.01, 1.1, 10.0])
    solution = path_backend.ridge_path(G, np.ones((1, p)), lambdas, rounding=rounding)
    assert solution.positive_definite.all()
    assert solution.resolved.tolist() == [False, False, False, True, True, True]
    tolerances.assert_estimate(solution.largest_eigenvalue, largest)


def test_ridge_path_of_singular_and_zero_matrices(path_backend: Backend, rng: np.random.Generator) -> None:
    p = 80
    lambdas = np.array([1e-3, 1.0])
    zero = path_backend.ridge_path(np.zeros((p, p)), np.ones((1, p)), lambdas, rounding=1e-6)
    assert zero.largest_eigenvalue == 0.0
    assert zero.resolved.all()
    tolerances.assert_solve(zero.weights, np.ones((2, 1, p)) / lambdas[:, None, None])
    A = rng.standard_normal((5, p))
    A[:, 40:60] = 0.0  # columns that reflectors meet as zeros
    C = rng.standard_normal((2, p))
    found = path_backend.ridge_path(A.T @ A, C, lambdas, rounding=1e-12)
    for W, value in zip(found.weights, lambdas, strict=True):
        condition = oracles.condition(A.T @ A + value * np.eye(p))
        tolerances.assert_solve(W, oracles.ridge_of_statistics(A.T @ A, C, value), condition)


@pytest.mark.parametrize("p", [1, 16, 130])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_ridge_path_of_what_is_not_finite(path_backend: Backend, p: int, bad: float, rng: np.random.Generator) -> None:
    G = spd(p, rng)
    G[0, -1] = G[-1, 0] = bad
    solution = path_backend.ridge_path(G, np.ones((2, p)), np.array([0.1, 1.0, 1e9]), rounding=1e-15)
    assert solution.positive_definite.tolist() == solution.resolved.tolist() == [False] * 3
    assert solution.weights.shape == (3, 2, p)
    assert np.isnan(solution.weights).all()
    assert np.isnan(solution.largest_eigenvalue)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("rounding", [0.0, 1e-3])
def test_cholesky_path_settles_lambdas_by_others(native_module: ModuleType, order: int, rounding: float) -> None:
    """Lambdas on both sides of what is definite and of what is resolved, in both orders."""
    p, rng = 20, np.random.default_rng(3)
    values = np.concatenate([[-1.0], np.linspace(0.5, 100.0, p - 1)])
    Q = np.linalg.qr(rng.standard_normal((p, p)))[0]
    G, C = (Q * values) @ Q.T, rng.standard_normal((2, p))
    G = (G + G.T) / 2
    lambdas = np.array([0.5, 0.99, 1.01, 1.05, 1.09, 1.11, 1.2, 3.0])[::order]
    backend = CompiledBackend("native", native_module, FixedMethod(native_module, "cholesky"))
    found = backend.ridge_path(G, C, lambdas, rounding=rounding)
    tolerances.assert_exact(found.positive_definite, lambdas > 1.0)
    tolerances.assert_exact(found.resolved, lambdas > 1.0 + 100.0 * rounding)
    for W, value in zip(found.weights[lambdas > 1.0], lambdas[lambdas > 1.0], strict=True):
        condition = oracles.condition(G + value * np.eye(p))
        tolerances.assert_solve(W, oracles.ridge_of_statistics(G, C, value), condition)


@pytest.mark.parametrize("rank", ["full", "half"])
@pytest.mark.parametrize("p", [1, 2, 15, 31, 32, 33, 63, 64, 65, 97, 129, 300])
def test_degrees_of_freedom(any_backend: Backend, p: int, rank: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal((p + 3 if rank == "full" else (p + 1) // 2, p))
    G, lambdas = A.T @ A, np.array([1e3, 1e-4, 1.0, 0.0 if rank == "full" else 1e-2])  # in any order
    before = G.copy()
    found = any_backend.degrees_of_freedom(G, lambdas)
    assert found.shape == lambdas.shape
    for value, degrees in zip(lambdas, found, strict=True):
        condition = oracles.condition(G + value * np.eye(p))
        expected = oracles.degrees_of_freedom(G, value)
        tolerances.assert_solve(degrees, expected, condition, magnitude=float(p))
    tolerances.assert_exact(G, before)


@pytest.mark.parametrize("p", [1, 5, 70])
def test_degrees_of_freedom_are_nan_where_there_is_no_model(
    any_backend: Backend, p: int, rng: np.random.Generator
) -> None:
    G = spd(p, rng) - 0.5 * np.eye(p) if p > 1 else np.array([[-0.4]])
    lambdas = np.array([2.0, 0.39, 0.41, 1e-3])  # the smallest eigenvalue is -0.4
    assert np.isnan(any_backend.degrees_of_freedom(G, lambdas)).tolist() == [False, True, False, True]
    assert any_backend.degrees_of_freedom(G, np.empty(0)).shape == (0,)
    G[-1, 0] = G[0, -1] = np.nan
    assert np.isnan(any_backend.degrees_of_freedom(G, lambdas)).all()


@pytest.mark.usefixtures("native_module")  # the others have no band
def test_degrees_of_freedom_of_wide_bands(rng: np.random.Generator) -> None:
    p = 2050  # from 2048 on the band is twice as wide, and its last block is small
    A = rng.standard_normal((40, p))
    s = np.linalg.eigvalsh(A @ A.T)
    lambdas = np.array([1.0, 100.0])
    expected = (s / (s + lambdas[:, None])).sum(axis=1)
    found = get_backend("native").degrees_of_freedom(A.T @ A, lambdas)
    tolerances.assert_solve(found, expected, 1.0 + float(s[-1]), magnitude=float(p))


@pytest.mark.parametrize("function", ["transform", "accumulate", "score_path"])
@pytest.mark.parametrize("rows", [2**59, 2**61, 2**62, 2**63 - 1])
def test_tiles_that_no_memory_holds_are_refused(native_module: ModuleType, function: str, rows: int) -> None:
    arguments = {**native_arguments()[function], "tile_rows": rows}
    with pytest.raises((ValueError, MemoryError)):
        call_native(native_module, function, arguments)


def test_unknown_method(native_module: ModuleType) -> None:
    arguments = native_arguments()["ridge_path"]
    with pytest.raises(ValueError, match="method: cheaper, band or cholesky"):
        native_module.ridge_path(**arguments, method="qr")


# Choice of backend and instruction set


def test_get_backend(any_backend: Backend) -> None:
    assert get_backend(any_backend) is any_backend
    if any_backend.name in backends.BACKENDS:  # an emulated one is nothing that users get
        assert get_backend(any_backend.name).name == any_backend.name
    else:
        assert any_backend.name == "cuda (emulated)"
    with pytest.raises(ValueError, match=f"backend must be one of {', '.join(backends.BACKENDS)}; got 'gpu'"):
        get_backend("gpu")
    with pytest.raises(TypeError, match=r"^backend must be a name or a Backend, got 3$"):
        get_backend(3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("native_module")
def test_native_is_the_default() -> None:
    assert get_backend(None).name == "native"


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krrdistill._native", None)
    monkeypatch.setattr(backends, "_default", functools.cache(backends._default.__wrapped__))


@pytest.mark.usefixtures("no_native", "numba_module")
def test_numba_takes_over_for_the_compiled_module() -> None:
    with pytest.raises(BackendUnavailable, match=r"compiled backend is not usable.*g\+\+.*pip install"):
        get_backend("native")
    cost = r"compiled backend is not usable.*g\+\+.*pip install.*using Numba instead.* times.* seconds"
    with pytest.warns(RuntimeWarning, match=cost) as said:
        assert [get_backend(None).name for _ in range(2)] == ["numba"] * 2
    assert len(said) == 1
    status = backend_status()
    assert not status["native"]["available"]
    assert "pip install" in status["native"]["remedy"]
    assert status["numba"]["available"]
    assert status["array"]["available"]


@pytest.mark.usefixtures("no_native")
def test_numpy_takes_over_where_numba_is_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(BackendUnavailable, match=r"Numba is not usable \(.*\); pip install \"krrdistill\[numba\]\""):
        get_backend("numba")
    cost = r"compiled backend is not usable.*Numba is not usable.*using NumPy instead.* times"
    with pytest.warns(RuntimeWarning, match=cost) as said:
        assert [get_backend(None).name for _ in range(2)] == ["array"] * 2
    assert len(said) == 1
    status = backend_status()
    assert not status["numba"]["available"]
    assert status["numba"]["remedy"] == 'pip install "krrdistill[numba]"'


def test_backend_status(native_module: ModuleType) -> None:
    status = backend_status()
    assert list(status) == list(backends.BACKENDS)
    assert status["native"]["available"]
    assert status["native"]["detail"]["isa"] in status["native"]["detail"]["isas"]
    assert status["native"]["detail"] == native_module.build_facts()


def test_parity_matrix_leaves_out_modules_that_were_skipped() -> None:
    skipped = pytest.CollectReport("test_interop_ray.py", "skipped", ("test_interop_ray.py", 1, "no Ray"), [])
    lines: list[str] = []
    writer = SimpleNamespace(stats={"skipped": [skipped]}, section=lines.append, write_line=lines.append)
    pytest_terminal_summary(writer)
    assert lines == []


def test_set_isa(isa: str, native_module: ModuleType) -> None:
    assert native_module.build_facts()["isa"] == isa
    with pytest.raises(ValueError, match=r"'sse9'.*offer: base"):
        native_module.set_isa("sse9")
    assert native_module.build_facts()["isa"] == isa


@pytest.mark.usefixtures("native_module")
@pytest.mark.parametrize(("value", "printed"), [("base", "base"), ("sse9", "KRRDISTILL_ISA is 'sse9'")])
def test_isa_from_the_environment(value: str, printed: str) -> None:
    code = "import krrdistill as kd; print(kd.backend_status()['native']['detail'])"
    environment = {**os.environ, "KRRDISTILL_ISA": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed in done.stdout


# Threads, repetition, and what Numba keeps


def statistics_of(backend: Backend, dtype: Any) -> list[Array]:
    """Features, G and C, and counts of a few hundred rows, by every kernel."""
    rng = np.random.default_rng(7)
    found: list[Array] = []
    for kind in ("identity", "random_fourier", "FCNN_2"):
        chain = make_chain(kind, 40, 300 if kind != "identity" else 40, rng, affine=True)
        X, labels = make_inputs(301, 40, "uint8", rng), rng.integers(0, 5, 301)
        p = chain.output_dim
        gram, cross = np.zeros((p, p)), np.zeros((5, p))
        backend.accumulate(chain, X, labels, gram, cross, dtype=dtype)
        scores = backend.score_path(chain, X, labels, rng.standard_normal((3, 5, p)), dtype=dtype)
        found += [backend.transform(chain, X, dtype=dtype), np.tril(gram), cross, scores]
    return found


def test_two_runs_are_the_same(any_backend: Backend, dtype: Any) -> None:
    for first, second in zip(statistics_of(any_backend, dtype), statistics_of(any_backend, dtype), strict=True):
        tolerances.assert_exact(first, second)


def test_numba_threads_change_nothing(numba_module: ModuleType, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in (1, 2, 1000):
        pool = SimpleNamespace(lib_controllers=[SimpleNamespace(num_threads=threads)])  # BLAS itself keeps its own
        monkeypatch.setattr(numba_module, "_blas", lambda pool=pool: pool)
        results.append(statistics_of(get_backend("numba"), dtype))
    for one, *others in zip(*results, strict=True):
        for other in others:
            tolerances.assert_exact(other, one)


def test_a_limit_on_blas_holds_for_numba(numba_module: ModuleType) -> None:
    before = numba_module.numba.get_num_threads()
    seen: list[Any] = []
    kernel = SimpleNamespace(
        together=lambda: seen.append(numba_module.numba.get_num_threads()), alone=lambda: seen.append("alone")
    )
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            numba_module._run(kernel)
    assert seen == ["alone", "alone" if before == 1 else 2]
    assert numba_module.numba.get_num_threads() == before


TWO = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
_TRANSFORM = """
import numpy as np, threading
from krrdistill.backends import Layer, get_backend
from krrdistill.maps import FeatureMap
layer = Layer(np.ones((3, 2)), None, "leaky_relu", 0.1)
call = lambda: get_backend("numba").transform(FeatureMap(2, (layer,)), np.ones((4, 2)), dtype=np.dtype("f4"))
"""


def run_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", _TRANSFORM + code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("numba_module")
def test_numba_compiles_once_for_all_processes(tmp_path: Path) -> None:
    code = """
call()
from krrdistill.backends.numba import _leaky_relu
stats = [kernel.stats for kernel in (_leaky_relu.alone, _leaky_relu.together)]
print(*(sum(sum(getattr(each, name).values()) for each in stats) for name in ("cache_hits", "cache_misses")))
"""
    printed = [run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert printed == ["0 1\n", "1 0\n"]


@pytest.mark.usefixtures("numba_module")
def test_numba_threads_of_every_kind_take_calls_from_several_threads() -> None:
    code = """
threads = [threading.Thread(target=lambda: [call() for _ in range(300)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import numba; print(numba.threading_layer())
"""
    assert run_python(code, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2", **TWO) == "workqueue\n"


@pytest.mark.usefixtures("numba_module")
def test_numba_works_without_a_folder_to_keep_code_in() -> None:
    code = """
import numba
from krrdistill.backends.numba import _compile
plus_one = lambda x: x + 1  # a function of no file has no folder
try:
    numba.njit(cache=True)(plus_one)
except RuntimeError as error:
    print(error)
print(_compile()(plus_one)(1))
"""
    assert re.fullmatch(r"cannot cache function .*\n2\n", run_python(code))


# What memory safety needs is checked by the compiled module itself


def native_arguments() -> dict[str, dict[str, Any]]:
    """Arguments that the compiled module takes, per function; every test below spoils one of them."""
    d, p, n, k, m = 3, 2, 4, 2, 5
    # `feature_map` is made from these by the test.
    layers = [(np.ones((p, d), np.float32), np.ones(p, np.float32), 1, 0.1)]
    common = {"x": np.ones((n, d)), "rows": None, "tile_rows": 2}
    return {
        "FeatureMapF32": {"input_dim": d, "scale": np.ones(d, "f4"), "shift": np.ones(d, "f4"), "layers": layers},
        "transform": {**common, "out": np.empty((n, p), np.float32)},
        "accumulate": {**common, "y": np.zeros(n, np.int64), "gram": np.zeros((p, p)), "cross": np.zeros((k, p))},
        "score_path": {
            **common,
            "labels": np.zeros(n, np.int64),
            "weights": np.ones((m, k, p), np.float32),
            "correct": np.empty(m, np.int64),
        },
        "symmetrize": {"gram": np.zeros((p, p))},
        "ridge_path": {
            "gram": np.eye(p),
            "cross": np.ones((k, p)),
            "lambdas": np.ones(m),
            "weights": np.empty((m, k, p)),
            "positive_definite": np.empty(m, bool),
            "rounding": 0.0,
            "resolved": np.empty(m, bool),
        },
        "degrees_of_freedom": {"gram": np.eye(p), "lambdas": np.ones(m), "out": np.empty(m)},
        "normal_from_bits": {"bits": np.zeros(m, np.uint64), "out": np.empty(m)},
        "solve_spd": {"a": np.eye(p)[None], "rhs": np.ones((1, m, p))},
        "preimage_solve": {
            "weight": np.eye(p, d),
            "rhs": np.ones((m, p)),
            "x": np.empty((m, d)),
            "rcond_floor": 1e-15,
        },
    }


def call_native(module: ModuleType, function: str, arguments: dict[str, Any]) -> Any:
    if function in ("transform", "accumulate", "score_path"):
        feature_map = module.FeatureMapF32(**native_arguments()["FeatureMapF32"])
        return getattr(module, function)(feature_map=feature_map, **arguments)
    return getattr(module, function)(**arguments)


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("function", list(native_arguments()))
def test_the_compiled_module_takes_good_arguments(native_module: ModuleType, function: str) -> None:
    call_native(native_module, function, native_arguments()[function])


@pytest.mark.parametrize(
    ("function", "argument", "value"),
    [
        ("FeatureMapF32", "input_dim", 0),
        ("FeatureMapF32", "scale", None),
        ("FeatureMapF32", "scale", np.ones(2, "f4")),
        ("FeatureMapF32", "shift", np.ones(4, "f4")),
        ("FeatureMapF32", "layers", [(np.ones((2, 4), "f4"), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones(3, "f4"), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((0, 3), "f4"), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((2, 3), "f4"), np.ones(3, "f4"), 0, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((2, 3), "f4"), None, 3, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((2, 3), "f4"), None, -1, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((2, 3), "f4"), None, 0)]),
        ("FeatureMapF32", "layers", [((np.ones((1, 2, 4), "f4"), np.ones(2, "f4")), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [((np.ones((1, 2, 1), "f4"), np.ones(2, "f4")), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [((np.ones((1, 2, 2), "f4"), np.ones(4, "f4")), None, 0, 1.0)]),
        ("FeatureMapF32", "layers", [((np.ones((1, 2, 2), "f4"), np.ones(2, "f4")), np.ones(3, "f4"), 0, 1.0)]),
        ("FeatureMapF32", "layers", [(np.ones((2, 3), "f4"), None, 0, 1.0), (np.ones((2, 3), "f4"), None, 0, 1.0)]),
        ("transform", "x", np.ones((4, 2))),
        ("transform", "x", np.ones(4)),
        ("transform", "x", np.ones((4, 6))[:, ::2]),
        ("transform", "x", np.ones((4, 3), np.int64)),
        ("transform", "x", np.ones((4, 3), bool)),
        ("transform", "x", np.ones((4, 3), ">f8")),
        ("transform", "x", np.ones((4, 3), complex)),
        ("transform", "rows", np.array([0, 1, 2, 4])),
        ("transform", "rows", np.array([0, 1, 2, -1])),
        ("transform", "rows", np.array([0, 1, 2])),
        ("transform", "rows", np.array([0.0, 1.0, 2.0, 3.0])),
        ("transform", "out", np.empty((3, 2), np.float32)),
        ("transform", "out", np.empty((4, 3), np.float32)),
        ("transform", "out", np.empty(8, np.float32)),
        ("transform", "out", np.empty((4, 2))),
        ("transform", "out", np.empty((4, 4), np.float32)[:, ::2]),
        ("transform", "out", read_only(np.empty((4, 2), np.float32))),
        ("transform", "tile_rows", 0),
        ("accumulate", "x", np.ones((5, 3))),
        ("accumulate", "rows", np.array([4])),
        ("accumulate", "y", np.zeros(3, np.int64)),
        ("accumulate", "y", np.array([0, 1, 2, 0])),
        ("accumulate", "y", np.array([0, 1, -1, 0])),
        ("accumulate", "y", np.zeros(4, np.int32)),
        ("accumulate", "y", np.zeros(8, np.int64)[::2]),
        ("accumulate", "y", np.zeros((4, 3))),
        ("accumulate", "y", np.zeros((4, 4))[:, ::2]),
        ("accumulate", "y", np.zeros((4, 2), np.float32)),
        ("accumulate", "y", np.zeros((4, 2, 1))),
        ("accumulate", "y", np.array(1.0)),
        ("accumulate", "gram", np.zeros((2, 3))),
        ("accumulate", "gram", np.zeros((3, 3))),
        ("accumulate", "gram", np.zeros((2, 2), np.float32)),
        ("accumulate", "gram", read_only(np.zeros((2, 2)))),
        ("accumulate", "cross", np.zeros((2, 3))),
        ("accumulate", "cross", np.zeros(2)),
        ("accumulate", "cross", np.zeros((2, 2), order="F")),
        ("accumulate", "tile_rows", -1),
        ("score_path", "x", np.ones((5, 3))),
        ("score_path", "rows", np.array([-1])),
        ("score_path", "labels", np.zeros(3, np.int64)),
        ("score_path", "labels", np.zeros((4, 1), np.int64)),
        ("score_path", "weights", np.ones((5, 2, 3), np.float32)),
        ("score_path", "weights", np.ones((5, 2), np.float32)),
        ("score_path", "weights", np.ones((5, 0, 2), np.float32)),
        ("score_path", "correct", np.empty(4, np.int64)),
        ("score_path", "correct", np.empty(5, np.int32)),
        ("score_path", "correct", read_only(np.empty(5, np.int64))),
        ("score_path", "tile_rows", 0),
        ("symmetrize", "gram", np.zeros((2, 3))),
        ("symmetrize", "gram", np.zeros(4)),
        ("symmetrize", "gram", np.zeros((2, 2), np.float32)),
        ("symmetrize", "gram", read_only(np.zeros((2, 2)))),
        ("ridge_path", "gram", np.eye(3)),
        ("ridge_path", "gram", np.ones((2, 3))),
        ("ridge_path", "gram", np.empty((0, 0))),
        ("ridge_path", "gram", np.eye(2, dtype=np.float32)),
        ("ridge_path", "cross", np.ones((2, 3))),
        ("ridge_path", "cross", np.ones(2)),
        ("ridge_path", "lambdas", np.ones(4)),
        ("ridge_path", "weights", np.empty((5, 2, 1))),
        ("ridge_path", "weights", np.empty((5, 2, 4))[:, :, ::2]),
        ("ridge_path", "positive_definite", np.empty(4, bool)),
        ("ridge_path", "positive_definite", np.empty(5, np.uint8)),
        ("ridge_path", "resolved", np.empty(4, bool)),
        ("ridge_path", "resolved", np.empty(5, np.uint8)),
        ("normal_from_bits", "bits", np.zeros(4, np.uint64)),
        ("normal_from_bits", "bits", np.zeros(5, np.int32)),
        ("normal_from_bits", "bits", np.zeros(10, np.uint64)[::2]),
        ("normal_from_bits", "out", np.empty(5, np.float32)),
        ("normal_from_bits", "out", np.empty(10)[::2]),
        ("normal_from_bits", "out", read_only(np.empty(5))),
        ("solve_spd", "a", np.ones((1, 2, 3))),
        ("solve_spd", "a", np.eye(2)),
        ("solve_spd", "a", np.eye(2, dtype=np.float32)[None]),
        ("solve_spd", "a", np.zeros((2, 2, 2))),
        ("solve_spd", "rhs", np.ones((1, 5, 3))),
        ("solve_spd", "rhs", np.ones((5, 2))),
        ("solve_spd", "rhs", read_only(np.ones((1, 5, 2)))),
        ("preimage_solve", "weight", np.eye(3, 2)),
        ("preimage_solve", "weight", np.empty((0, 3))),
        ("degrees_of_freedom", "gram", np.ones((2, 3))),
        ("degrees_of_freedom", "gram", np.ones(2)),
        ("degrees_of_freedom", "gram", np.empty((0, 0))),
        ("degrees_of_freedom", "out", np.empty(4)),
        ("preimage_solve", "weight", np.ones(3)),
        ("preimage_solve", "rhs", np.ones((5, 3))),
        ("preimage_solve", "rhs", np.ones(2)),
        ("preimage_solve", "rhs", np.array(1.0)),
        ("preimage_solve", "x", np.empty((5, 2))),
        ("preimage_solve", "x", np.empty((4, 3))),
        ("preimage_solve", "x", np.empty((5, 3), np.float32)),
    ],
)
def test_the_compiled_module_refuses_what_would_be_unsafe(
    native_module: ModuleType, function: str, argument: str, value: Any
) -> None:
    arguments = {**native_arguments()[function], argument: value}
    with pytest.raises((ValueError, TypeError)):
        call_native(native_module, function, arguments)
