"""Symmetric positive definite solves, one large and a batch of small ones."""

# mypy: disable-error-code="import-not-found"
# tolerances are the tests'.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tolerances
from harness import BACKENDS, Recorder, backend_or_skip
from problem import Problem
from work import Work, factor_work


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("shape", ["one", "batch"])
def test_solve_spd(record: Recorder, problem: Problem, shape: str, name: str) -> None:
    p, columns = problem.dataset.input_dim, problem.dataset.n_classes
    batch, order = (1, p) if shape == "one" else (24, p // 4)
    rng = np.random.default_rng(0)
    root = rng.standard_normal((batch, order, order))
    A = root @ root.swapaxes(-1, -2) + order * np.eye(order)
    B = rng.standard_normal((batch, order, columns))
    call: Callable[[], Any] = lambda: np.linalg.solve(A, B)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.solve_spd(A, B)  # noqa: E731
    one = factor_work(order, columns)
    work = Work({routine: batch * flops for routine, flops in one.flops.items()}, 8.0 * (A.size + 2 * B.size))
    X = record(call, work, order=order, batch=batch, columns=columns)
    error = np.linalg.norm(A @ X - B) / (np.linalg.norm(A) * np.linalg.norm(X))
    assert error <= tolerances.solve(1.0)
