"""Features of held-out rows, and the correct predictions of every model of a path at once."""

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
from numpy_pipeline import correct_counts, features
from problem import KERNELS, Problem
from work import Work, map_work

_ROWS = 2500
_MODELS = 24
_AMBIGUOUS = 1e-4  # scores closer than this, relative to their size, may order differently in float32


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_transform(record: Recorder, problem: Problem, kernel: str, name: str) -> None:
    chain, X = problem.feature_map(kernel), problem.x_train[:_ROWS]
    call: Callable[[], Any] = lambda: features(chain, X)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.transform(chain, X, dtype=np.dtype(np.float32))  # noqa: E731
    found = record(call, map_work(chain, len(X), stored=True))
    wanted = oracles.features(X.T, chain.layers, chain.scale, chain.shift).T
    assert relative_error(found, wanted) <= tolerances.reduction(np.float32, problem.dataset.input_dim, 1.0)


@pytest.mark.parametrize("name", [*BACKENDS, "numpy"])
@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_score_path(record: Recorder, problem: Problem, kernel: str, name: str) -> None:
    chain, X, y = problem.feature_map(kernel), problem.x_train[:_ROWS], problem.dataset.y_train[:_ROWS]
    k, p = problem.dataset.n_classes, chain.output_dim
    weights = np.random.default_rng(0).standard_normal((_MODELS, k, p))
    call: Callable[[], Any] = lambda: correct_counts(chain, X, y, weights)  # noqa: E731
    if name != "numpy":
        backend = backend_or_skip(name)
        call = lambda: backend.score_path(chain, X, y, weights, dtype=np.dtype(np.float32))  # noqa: E731
    work = map_work(chain, len(X)) + Work({"sgemm": 2.0 * len(X) * p * k * _MODELS})
    correct = record(call, work, models=_MODELS)
    phi = oracles.features(X.T, chain.layers, chain.scale, chain.shift)
    for count, W in zip(correct, weights, strict=True):
        unclear = oracles.margins(W, phi) < _AMBIGUOUS * np.linalg.norm(W[0]) * np.linalg.norm(phi, axis=0)
        wanted = np.count_nonzero(oracles.predictions(W, phi) == y)
        assert abs(int(count) - wanted) <= np.count_nonzero(unclear)
