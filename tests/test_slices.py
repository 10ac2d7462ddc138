"""Products of float32 by slices of bfloat16 on a matrix unit (csrc/cpu/slice_products.cpp), against float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl

import krrdistill as kd
import oracles
import tolerances
from conftest import stages
from krrdistill.backends.base import Backend, Layer
from krrdistill.maps.base import FeatureMap

Array = npt.NDArray[Any]
_LARGEST_ERROR = 2e-7
"""Relative, of one entry: under two roundings of float32, however many terms a sum has."""
SIZES = [(64, 64), (65, 64), (100, 97), (2047, 130), (2113, 160), (4500, 96)]
"""Rows and features: whole tiles and panels, and parts of them; more rows than are packed at a time."""


@pytest.fixture
def native(native_module: Any) -> Iterator[Backend]:
    """The native backend with a matrix unit."""
    if "amx" not in native_module.build_facts()["isas"]:
        pytest.skip("this CPU, system or build has no AMX")
    before = native_module.build_facts()["isa"]
    native_module.set_isa("amx")
    yield kd.get_backend("native")
    native_module.set_isa(before)


def gram(native: Backend, X: Array, phi: FeatureMap | None = None) -> Array:
    """G of float32 samples; without a map, of themselves."""
    y = np.zeros(len(X), np.int64)
    return kd.RidgeStatistics(phi or stages(X.shape[1]), 1, backend=native.name).update(X, y).gram


def relative_error(found: Array, expected: Array) -> float:
    """Largest error of an entry, relative to the norms of its two columns."""
    size = np.sqrt(np.diag(expected))
    return float((np.abs(found - expected) / np.outer(size, size)).max())


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_gram_of_float32_is_as_accurate_as_float32_products(
    native: Backend, rng: np.random.Generator, n: int, p: int
) -> None:
    X = rng.standard_normal((n, p)).astype(np.float32) + np.float32(0.5)
    found, expected = gram(native, X), oracles.gram(X.astype(np.float64).T)
    assert relative_error(found, expected) < _LARGEST_ERROR
    tolerances.assert_exact(found, found.T)


@pytest.mark.parametrize(("bits", "share"), [(8, 0.5), (11, 0.01)])
def test_gram_of_short_numbers_is_exact(native: Backend, rng: np.random.Generator, bits: int, share: float) -> None:
    """One slice or two hold them whole; so few of them are not 0 that float32 holds all sums."""
    X = rng.integers(-(2**bits) + 1, 2**bits, (300, 70)) * (rng.random((300, 70)) < share)
    found = gram(native, X.astype(np.float32))
    tolerances.assert_exact(found, oracles.gram(X.astype(np.float64).T))


def test_gram_of_numbers_of_any_size_keeps_its_digits(native: Backend, rng: np.random.Generator) -> None:
    """The unit takes numbers under 2^-126 for 0: every feature is brought to the size of 1 first."""
    X = (rng.standard_normal((200, 66)) * 10.0 ** rng.integers(-25, 18, 66)).astype(np.float32)
    X[:, 7] = 0.0
    found, expected = gram(native, X), oracles.gram(X.astype(np.float64).T)
    kept = np.delete(np.arange(66), 7)
    assert relative_error(found[np.ix_(kept, kept)], expected[np.ix_(kept, kept)]) < _LARGEST_ERROR
    assert not found[7].any()


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_features_are_as_accurate_as_float32_products(
    native: Backend, rng: np.random.Generator, n: int, p: int
) -> None:
    d = 75
    X, W = rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((p, d)).astype(np.float32)
    found = native.transform(stages(d, [Layer(W, None, "linear", 1.0)]), X, dtype=np.dtype(np.float32))
    exact = X.astype(np.float64) @ W.T.astype(np.float64)
    sizes = np.outer(np.linalg.norm(X, axis=1), np.linalg.norm(W, axis=1))
    assert float((np.abs(found - exact) / sizes).max()) < _LARGEST_ERROR


def test_features_of_numbers_of_any_size_keep_their_digits(native: Backend, rng: np.random.Generator) -> None:
    X = (rng.standard_normal((100, 80)) * 10.0 ** rng.integers(-20, 15, (100, 1))).astype(np.float32)
    W = (rng.standard_normal((70, 80)) * 10.0 ** rng.integers(-18, 10, (70, 1))).astype(np.float32)
    found = native.transform(stages(80, [Layer(W, None, "linear", 1.0)]), X, dtype=np.dtype(np.float32))
    exact = X.astype(np.float64) @ W.T.astype(np.float64)
    sizes = np.outer(np.linalg.norm(X.astype(np.float64), axis=1), np.linalg.norm(W.astype(np.float64), axis=1))
    normal = np.abs(exact) > float(np.finfo(np.float32).tiny)
    assert float((np.abs(found - exact) / sizes)[normal].max()) < _LARGEST_ERROR


def test_sums_are_the_same_bits_on_any_number_of_threads(native: Backend, rng: np.random.Generator) -> None:
    X = rng.standard_normal((3000, 200)).astype(np.float32)
    phi = stages(200, [Layer(rng.standard_normal((150, 200)).astype(np.float32), None, "leaky_relu", 0.1)])
    found = []
    for threads in (1, 2, 3):
        with threadpoolctl.threadpool_limits(threads):
            found.append(gram(native, X, phi))
    tolerances.assert_exact(found[1], found[0])
    tolerances.assert_exact(found[2], found[0])


@pytest.mark.parametrize("value", [np.float32(3e38), np.float32(1e30)])
def test_features_that_float32_cannot_hold_are_refused(native: Backend, value: np.float32) -> None:
    W = np.full((64, 80), value, np.float32)
    with pytest.raises(kd.DataError, match=r"overflow|infinity|NaN"):
        gram(native, np.full((100, 80), value, np.float32), stages(80, [Layer(W, None, "linear", 1.0)]))
