"""Structured weights against the product of their factors, written out as matrices."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import krrdistill as kd
import oracles
import tolerances
from conftest import stages
from krrdistill.backends import Backend, HadamardWeight, Layer

# Around powers of two, where a block covers all or barely half, and around the strides and vectors of the transform.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 257)
Array = npt.NDArray[Any]


def make_weight(d: int, p: int, *, rounds: int = 3, seed: int = 0) -> HadamardWeight:
    rng = np.random.default_rng(seed)
    n = 2 ** int(np.log2(d))
    signs = rng.choice(np.array([-1, 1], np.int8), (rounds, 2, n))
    return HadamardWeight(d, signs, rng.uniform(0.5, 2.0, p).astype(np.float32))


def apply(backend: Backend, weight: HadamardWeight, X: Array, dtype: Any) -> Array:
    chain = stages(weight.inputs, (Layer(weight, None, "linear", 1.0),))
    return np.asarray(backend.transform(chain, X, dtype=np.dtype(dtype)))


@pytest.mark.parametrize("d", SIZES)
def test_apply(backend: Backend, dtype: Any, d: int) -> None:
    for p in sorted({1, (d + 1) // 2, d}):
        weight, X = make_weight(d, p), np.random.default_rng(1).standard_normal((5, d))
        magnitude = oracles.feature_magnitude(X.T, [(weight, None, "linear", 1.0)]).T
        tolerances.assert_reduction(apply(backend, weight, X, dtype), X @ oracles.dense(weight).T, dtype, d, magnitude)
        assert weight.shape == (p, d)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_any_number_of_rounds(any_backend: Backend, rounds: int) -> None:
    weight, X = make_weight(11, 9, rounds=rounds), np.random.default_rng(1).standard_normal((4, 11))
    expected = oracles.dense(weight)
    tolerances.assert_solve(apply(any_backend, weight, X, np.float64), X @ expected.T)
    rhs = np.random.default_rng(2).standard_normal((4, 9))
    tolerances.assert_solve(any_backend.preimage_solve(weight, rhs), oracles.least_norm(expected, rhs.T).T)


@pytest.mark.parametrize("d", SIZES)
def test_solve_is_the_least_norm_solution(backend: Backend, d: int) -> None:
    for p, m in ((1, 3), ((d + 1) // 2, 0), ((d + 1) // 2, 7), (d, 1)):
        weight, rhs = make_weight(d, p), np.random.default_rng(2).standard_normal((m, p))
        before = rhs.copy()
        X = backend.preimage_solve(weight, rhs)
        assert X.shape == (m, d)
        matrix = oracles.dense(weight)
        tolerances.assert_solve(X, oracles.least_norm(matrix, rhs.T).T, oracles.condition(matrix))
        tolerances.assert_solve(backend.preimage_solve(weight, np.asfortranarray(rhs)), X)
        tolerances.assert_exact(rhs, before)


@pytest.mark.parametrize("d", [1, 3, 784, 1023, 1024, 1025, 3072])
def test_rows_are_orthogonal(any_backend: Backend, d: int) -> None:
    """The columns of W W^T, which is diagonal: W applied to W^+ diag(scale)^2."""
    weight = make_weight(d, d)
    some = np.unique(np.linspace(0, d - 1, 16).astype(int))
    squares = np.diag(weight.scale.astype(float) ** 2)[some]
    columns = apply(any_backend, weight, any_backend.preimage_solve(weight, squares), np.float64)
    tolerances.assert_solve(columns, squares, 4.0)
    norms = np.linalg.norm(any_backend.preimage_solve(weight, squares), axis=1)
    tolerances.assert_solve(norms, weight.scale[some].astype(float), 4.0)


@given(st.integers(1, 300), st.integers(0, 10_000), st.data())
def test_apply_undoes_solve(d: int, seed: int, data: st.DataObject) -> None:
    weight = make_weight(d, data.draw(st.integers(1, d)), seed=seed)
    rhs = np.random.default_rng(seed).standard_normal((2, len(weight.scale)))
    for name in ("array", "native") if kd.backend_status()["native"]["available"] else ("array",):
        backend = kd.get_backend(name)
        back = apply(backend, weight, backend.preimage_solve(weight, rhs), np.float64)
        tolerances.assert_solve(back, rhs, 4.0)


@pytest.mark.parametrize("d", [511, 768, 1000])
def test_one_coordinate_spreads_over_all(d: int) -> None:
    """Three rounds leave no entry of Q much larger than a normal number of variance 1 / d would be."""
    weight = HadamardWeight(d, make_weight(d, 1).signs, np.ones(d, np.float32))
    Q = apply(kd.get_backend("array"), weight, np.eye(d), np.float64).T
    largest = np.sqrt(2.0 * np.log(2.0 * d * d) / d)  # the union bound of d^2 normal numbers has it
    assert np.abs(Q).max() <= 1.5 * largest
    shares = np.add.reduceat(Q**2, np.linspace(0, d, 5)[:4].astype(int), axis=1)  # of the norm, per quarter of inputs
    assert np.abs(shares.mean(axis=0) - 0.25).max() <= tolerances.statistical(d, deviation=0.25)


@pytest.mark.parametrize(
    ("inputs", "signs", "scale", "message"),
    [
        (4, np.ones((3, 2, 2), np.int8), np.ones(4), r"signs must be -1 or 1, \(rounds, 2, 4\), got shape \(3, 2, 2\)"),
        (4, np.ones((3, 1, 4), np.int8), np.ones(4), r"got shape \(3, 1, 4\)"),
        (4, np.ones((2, 4), np.int8), np.ones(4), r"got shape \(2, 4\)"),
        (5, np.ones((3, 2, 8), np.int8), np.ones(4), r"\(rounds, 2, 4\), got shape \(3, 2, 8\)"),
        (4, np.zeros((3, 2, 4), np.int8), np.ones(4), "signs must be -1 or 1"),
        (4, np.ones((3, 2, 4), np.int8), np.ones(5), r"scale must have 1 to 4 entries, got shape \(5,\)"),
        (4, np.ones((3, 2, 4), np.int8), np.ones(0), r"scale must have 1 to 4 entries, got shape \(0,\)"),
        (4, np.ones((3, 2, 4), np.int8), np.ones((2, 2)), r"scale must have 1 to 4 entries, got shape \(2, 2\)"),
        (4, np.ones((3, 2, 4), np.int8), np.array([1.0, 0.0]), "scale must be positive and finite, got 0.0"),
        (4, np.ones((3, 2, 4), np.int8), np.array([1.0, np.inf]), "scale must be positive and finite"),
        (4, np.ones((3, 2, 4), np.int8), np.array([1.0, np.nan]), "scale must be positive and finite, got nan"),
    ],
)
def test_bad_weights(inputs: int, signs: Array, scale: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HadamardWeight(inputs, signs, scale.astype(np.float32))


def native_weight(**change: Any) -> dict[str, Any]:
    good = {"diagonals": np.ones((3, 2, 4)), "scale": np.ones(5), "rhs": np.ones((2, 5)), "x": np.empty((2, 6))}
    return {**good, **change}


BAD_NATIVE = [
    {"diagonals": np.ones((3, 2, 3))},
    {"diagonals": np.ones((3, 2, 2))},
    {"diagonals": np.ones((3, 2, 8))},
    {"diagonals": np.ones((3, 2, 0))},
    {"diagonals": np.ones((3, 1, 4))},
    {"diagonals": np.ones((2, 4))},
    {"scale": np.ones(7), "rhs": np.ones((2, 7))},
    {"scale": np.ones(0), "rhs": np.ones((2, 0))},
    {"scale": np.ones((5, 1))},
    {"rhs": np.ones((2, 4))},
    {"rhs": np.ones((3, 5))},
    {"rhs": np.ones(5)},
    {"x": np.empty((2, 8))},
    {"x": np.empty((3, 6))},
    {"x": np.empty(6)},
    {"x": np.empty((2, 6), np.float32)},
    {"x": np.empty((2, 12))[:, ::2]},
]


def test_the_compiled_module_takes_a_good_weight(native_module: ModuleType) -> None:
    native_module.hadamard_solve(**native_weight())


@pytest.mark.parametrize("change", BAD_NATIVE, ids=" ".join)
def test_the_compiled_module_refuses_a_bad_weight(native_module: ModuleType, change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        native_module.hadamard_solve(**native_weight(**change))
