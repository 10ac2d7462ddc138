"""Closed-form distilled features, and the training on them."""

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
from harness import Recorder, relative_error
from krrdistill.construct.closed_form import construct, gaussian_start
from numpy_pipeline import construct as numpy_construct
from work import Work, factor_work

FloatArray = npt.NDArray[np.float64]
Statistics = Callable[[str], kd.RidgeStatistics]
_IPCS = (1, 10, 50)
_LAMBDA = 1e3


@pytest.fixture(scope="module", name="W")
def original_weights(statistics: Statistics) -> FloatArray:
    """A ridge model of the identity map, (k, p)."""
    return kd.fit_ridge(statistics("identity"), _LAMBDA)


def _pseudo_inverse_work(m: int, p: int) -> Work:
    """The smaller Gram matrix, its Cholesky factor and two triangular solves."""
    small, large = min(m, p), max(m, p)
    return Work({"dsyrk": float(small) ** 2 * large}) + factor_work(small, large)


def _check(F: FloatArray, Y: FloatArray, lambda_s: float, W: FloatArray) -> None:
    values = np.linalg.svd(F, compute_uv=False)
    error = relative_error(kd.fit_features(F, Y, lambda_s), W)
    assert error <= tolerances.solve(float(values[0] / values[-1]) ** 2)


@pytest.mark.parametrize("name", ["krrdistill", "numpy"])
@pytest.mark.parametrize("ipc", _IPCS)
def test_construct(record: Recorder, W: FloatArray, ipc: int, name: str) -> None:
    m, p = ipc * len(W), W.shape[1]
    call: Callable[[], Any] = lambda: numpy_construct(W, ipc)  # noqa: E731
    if name != "numpy":

        def call() -> tuple[FloatArray, FloatArray]:
            D, Y = gaussian_start(W, ipc, seed=0)
            points = construct(D, Y, 0.0, lambda_=_LAMBDA)
            return np.asarray(points.F), points.Y

    F, Y = record(call, _pseudo_inverse_work(m, p), m=m, p=p)
    _check(F, Y, 0.0, W)


@pytest.mark.parametrize("ipc", _IPCS)
def test_construct_lambda_s(record: Recorder, W: FloatArray, ipc: int) -> None:
    m, p = ipc * len(W), W.shape[1]

    def call() -> Any:
        D, Y = gaussian_start(W, ipc, seed=0)
        return construct(D, Y, None, lambda_=_LAMBDA)

    small, large = min(m, p), max(m, p)
    spectrum = Work({"dsyrk": float(small) ** 2 * large, "eigvalsh": 4.0 / 3.0 * small**3})
    points = record(call, spectrum + Work({"dgemm": 4.0 * small * small * large}), m=m, p=p)
    _check(points.F, points.Y, points.lambda_s, W)


@pytest.mark.parametrize("name", ["krrdistill", "numpy"])
@pytest.mark.parametrize("ipc", _IPCS)
def test_fit_features(record: Recorder, W: FloatArray, ipc: int, name: str) -> None:
    D, Y = gaussian_start(W, ipc, seed=0)
    F = construct(D, Y, 0.0, lambda_=_LAMBDA).F
    call: Callable[[], Any] = lambda: (np.linalg.pinv(F) @ Y).T  # noqa: E731
    if name != "numpy":
        call = lambda: kd.fit_features(F, Y, 0.0)  # noqa: E731
    small, large = min(F.shape), max(F.shape)
    work = Work({"dsyrk": float(small) ** 2 * large, "dgemm": 2.0 * F.size * Y.shape[1]}) + factor_work(
        small, Y.shape[1]
    )
    found = record(call, work, m=len(F), p=F.shape[1])
    values = np.linalg.svd(F, compute_uv=False)
    assert relative_error(found, W) <= tolerances.solve(float(values[0] / values[-1]) ** 2)
