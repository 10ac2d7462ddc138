"""The fused pass G += phi^T phi, C += Y^T phi: the hot loop of the package."""

# mypy: disable-error-code="import-not-found"
# oracles and tolerances are the tests'.
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import oracles
import tolerances
from harness import BACKENDS, Recorder, backend_or_skip, relative_error
from numpy_pipeline import statistics as numpy_statistics
from problem import KERNELS, Problem
from work import Work, pass_work

FloatArray = npt.NDArray[np.float64]
Expected = Callable[[str, int], tuple[FloatArray, FloatArray]]
_FLOAT64_ROWS = 8192
_TILE = 2048


@pytest.fixture(scope="module")
def expected(problem: Problem) -> Expected:
    """G and C of the first n training rows in plain float64, per kernel."""

    @cache
    def compute(kernel: str, n: int) -> tuple[FloatArray, FloatArray]:
        chain = problem.feature_map(kernel)
        layers = [layer._replace(weight=oracles.dense(layer.weight)) for layer in chain.layers]
        gram = np.zeros((chain.output_dim, chain.output_dim))
        cross = np.zeros((problem.dataset.n_classes, chain.output_dim))
        for start in range(0, n, _TILE):
            rows = slice(start, min(start + _TILE, n))
            phi = oracles.features(problem.x_train[rows].T, layers, chain.scale, chain.shift)
            gram += oracles.gram(phi)
            cross += oracles.cross(oracles.one_hot(problem.dataset.y_train[rows], len(cross)), phi)
        return gram, cross

    return compute


def _accumulator(
    problem: Problem, kernel: str, name: str, n: int, dtype: str, inputs: npt.NDArray[Any] | None = None
) -> Callable[[], Any]:
    """A call that returns G (its lower triangle) and C of the first n rows of ``inputs``, or else of the data."""
    chain, k = problem.feature_map(kernel), problem.dataset.n_classes
    X, y = (problem.x_train if inputs is None else inputs)[:n], problem.dataset.y_train[:n]
    if name == "numpy":
        return lambda: numpy_statistics(chain, X, y, k, np.dtype(dtype))
    backend = backend_or_skip(name)
    gram, cross = np.zeros((chain.output_dim, chain.output_dim)), np.zeros((k, chain.output_dim))

    def accumulate() -> tuple[FloatArray, FloatArray]:
        gram.fill(0.0)
        cross.fill(0.0)
        backend.accumulate(chain, X, y, gram, cross, dtype=np.dtype(dtype))
        return gram, cross

    return accumulate


def _check(found: tuple[FloatArray, FloatArray], wanted: tuple[FloatArray, FloatArray], n: int, dtype: str) -> None:
    bound = tolerances.reduction(np.dtype(dtype), n, 1.0)
    assert relative_error(np.tril(found[0]), np.tril(wanted[0])) <= bound
    assert relative_error(found[1], wanted[1]) <= bound


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_pass(record: Recorder, problem: Problem, expected: Expected, kernel: str, name: str) -> None:
    n, chain = len(problem.x_train), problem.feature_map(kernel)
    found = record(_accumulator(problem, kernel, name, n, "float32"), pass_work(chain, n))
    _check(found, expected(kernel, n), n, "float32")


@pytest.mark.parametrize("name", BACKENDS)
def test_pass_of_floats(record: Recorder, problem: Problem, expected: Expected, name: str) -> None:
    """Products in float32: what sums of integers, in ``test_pass`` with the identity map, are there instead of."""
    n = len(problem.x_train)
    call = _accumulator(problem, "identity", name, n, "float32", problem.x_train.astype(np.float32))
    found = record(call, pass_work(problem.feature_map("identity"), n))
    _check(found, expected("identity", n), n, "float32")


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
def test_pass_float64(record: Recorder, problem: Problem, expected: Expected, name: str) -> None:
    n = min(len(problem.x_train), _FLOAT64_ROWS)
    work = pass_work(problem.feature_map("FCNN"), n, "float64")
    found = record(_accumulator(problem, "FCNN", name, n, "float64"), work)
    _check(found, expected("FCNN", n), n, "float64")


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
def test_symmetrize(record: Recorder, problem: Problem, name: str) -> None:
    p = problem.dataset.input_dim
    lower = np.tril(np.random.default_rng(0).standard_normal((p, p)))
    gram = lower.copy()
    call: Callable[[], Any] = lambda: np.copyto(gram, np.tril(gram) + np.tril(gram, -1).T)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.symmetrize(gram)  # noqa: E731
    record(call, Work(bytes=8.0 * p * p))  # half is read, half written
    tolerances.assert_exact(gram, lower + np.tril(lower, -1).T)
