"""Least-norm solutions X of X W^T = R: square layers (LU) and wide ones (QR), and whole preimages."""

# mypy: disable-error-code="import-not-found"
# oracles and tolerances are the tests'.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oracles
import tolerances
from harness import BACKENDS, Recorder, backend_or_skip, relative_error
from krrdistill.backends import HadamardWeight
from numpy_pipeline import preimage as numpy_preimage
from problem import Problem
from work import Work, product_flops


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("shape", ["square", "wide"])
def test_preimage_solve(record: Recorder, problem: Problem, shape: str, name: str) -> None:
    d, m = problem.dataset.input_dim, 10 * problem.dataset.n_classes
    p = d if shape == "square" else d // 2
    rng = np.random.default_rng(0)
    weight, rhs = rng.standard_normal((p, d)), rng.standard_normal((m, p))
    call: Callable[[], Any] = lambda: np.linalg.lstsq(weight, rhs.T)[0].T  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.preimage_solve(weight, rhs)  # noqa: E731
    # LU: 2 p^3 / 3 and 2 p^2 m; QR of W^T: 2 p^2 (d - p / 3), triangular solve p^2 m, Q applied 2 m p (2 d - p)
    lu = 2.0 / 3.0 * p**3 + 2.0 * p * p * m
    qr = 2.0 * p * p * (d - p / 3.0) + float(p) * p * m + 2.0 * m * p * (2.0 * d - p)
    X = record(call, Work({"dgemm": lu if shape == "square" else qr}), p=p, d=d, m=m)
    backward = np.linalg.norm(X @ weight.T - rhs) / (np.linalg.norm(weight, 2) * np.linalg.norm(X))
    assert backward <= tolerances.solve(1.0)


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("kernel", ["random_fourier", "orthogonal_fourier", "FCNN"])
def test_preimage(record: Recorder, problem: Problem, kernel: str, name: str) -> None:
    phi = problem.feature_map(kernel)
    p, m = phi.output_dim, problem.dataset.n_classes
    inputs = np.random.default_rng(0).standard_normal((m, phi.input_dim))
    F = np.asarray(phi.transform(inputs))
    call: Callable[[], Any] = lambda: phi.preprocessing.invert(numpy_preimage(phi.on_standardised, F, np.eye(m))[0])  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: phi.preimage(F, backend=backend)  # noqa: E731
    weight = phi.layers[0].weight
    structured = isinstance(weight, HadamardWeight)
    work = Work({"dgemm": m * product_flops(weight) if structured else 2.0 / 3.0 * p**3 + 2.0 * p * p * m})
    X = record(call, work, p=p, m=m)
    condition = float(np.linalg.cond(oracles.dense(weight)))
    assert relative_error(phi.transform(X), F) <= tolerances.solve(condition)
