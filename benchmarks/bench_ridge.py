"""The lambda path from (G, C), and one ridge model."""

# mypy: disable-error-code="import-not-found"
# tolerances are the tests'.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from harness import BACKENDS, Recorder, backend_or_skip
from numpy_pipeline import ridge_path as numpy_ridge_path
from work import Work, factor_work

FloatArray = npt.NDArray[np.float64]
Statistics = Callable[[str], kd.RidgeStatistics]


def _residual(statistics: kd.RidgeStatistics, W: FloatArray, value: float) -> float:
    """Backward error ||W (G + lambda I) - C|| / (||W|| ||G + lambda I||)."""
    gram = statistics.gram
    left = W @ gram + value * W - statistics.cross
    return float(np.linalg.norm(left) / (np.linalg.norm(W) * (np.linalg.norm(gram) + value)))


@pytest.mark.parametrize("count", [1, 24])
@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
def test_ridge_path(record: Recorder, statistics: Statistics, name: str, count: int) -> None:
    found = statistics("random_fourier")
    gram, cross = found.gram, found.cross
    k, p = cross.shape
    lambdas = kd.default_lambdas()[-count:] if count < 24 else kd.default_lambdas()
    call: Callable[[], Any] = lambda: numpy_ridge_path(gram, cross, lambdas)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.ridge_path(gram, cross, lambdas, rounding=1e-6).weights  # noqa: E731
    # eigenvalues for the noise floor, and one p x p product per model
    work = Work({"eigvalsh": 4.0 / 3.0 * p**3, "dgemm": 2.0 * count * k * p * p})
    weights = record(call, work, lambdas=count, p=p, k=k)
    for W, value in zip(weights, lambdas, strict=True):
        if np.isfinite(W).all():
            assert _residual(found, W, float(value)) <= tolerances.solve(1.0)
    assert np.isfinite(weights[-1]).all()


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
def test_degrees_of_freedom(record: Recorder, statistics: Statistics, name: str) -> None:
    gram, lambdas = statistics("random_fourier").gram, kd.default_lambdas()
    p = len(gram)
    call: Callable[[], Any] = lambda: _degrees_of_freedom(gram, lambdas)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.degrees_of_freedom(gram, lambdas)  # noqa: E731
    found = record(call, Work({"eigvalsh": 4.0 / 3.0 * p**3}), lambdas=len(lambdas), p=p)
    wanted = _degrees_of_freedom(gram, lambdas)
    condition = 1.0 + float(np.linalg.norm(gram, 2)) / lambdas  # of G + lambda I, at most
    settled = np.isfinite(found)
    tolerances.assert_within(found[settled], wanted[settled], tolerances.solve(1.0) * p * condition[settled])
    assert settled[-1]


def _degrees_of_freedom(gram: FloatArray, lambdas: FloatArray) -> FloatArray:
    s = np.linalg.eigvalsh(gram)
    return np.asarray((s / (s + lambdas[:, None])).sum(axis=1))


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
def test_fit_ridge(record: Recorder, statistics: Statistics, name: str) -> None:
    found = statistics("random_fourier")
    gram, cross = found.gram, found.cross
    k, p = cross.shape
    shifted = gram + 10.0 * np.eye(p)
    call: Callable[[], Any] = lambda: np.linalg.solve(shifted, cross.T)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.solve_spd(shifted, cross.T)  # noqa: E731
    weights = record(call, factor_work(p, k), p=p, k=k)
    assert _residual(found, weights.T, 10.0) <= tolerances.solve(1.0)
