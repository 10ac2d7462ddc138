"""One problem for every engine: what one process makes of it, and what an engine must make of it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import krrdistill as kd
import oracles
import tolerances

HOLDOUT, SEED = 0.2, 5


class Problem(NamedTuple):
    """Digits, a map with exact preimages, and their statistics from one ``update`` or one stream."""

    X: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    phi: kd.FeatureMap
    everything: kd.RidgeStatistics
    training: kd.RidgeStatistics
    held_out: kd.HeldOutRows


@functools.cache
def digits(precision: str = "float64") -> Problem:
    """The problem in one process."""
    data = kd.load_dataset("digits")
    X, y = np.asarray(data.x_train, dtype=np.float32).reshape(-1, 64), np.asarray(data.y_train)
    phi = kd.RandomFourier(64, 60, sigma2=64.0, seed=1, preprocessing=kd.standardize(data))
    everything = kd.RidgeStatistics(phi, 10, precision=precision).update(X, y)
    training = kd.RidgeStatistics(phi, 10, precision=precision)
    return Problem(X, y, phi, everything, training, training.update_batches([(X, y)], holdout=HOLDOUT, seed=SEED))


def assert_same_statistics(found: kd.RidgeStatistics, expected: kd.RidgeStatistics) -> None:
    """The same sums, and the same model, up to the rounding of sums in another order."""
    assert (found.n, found.targets, found.precision) == (expected.n, expected.targets, expected.precision)
    assert found.classes == expected.classes
    assert found.product_precision == expected.product_precision
    dtype, n = expected.product_precision, expected.n
    size = np.sqrt(np.outer(np.diag(expected.gram), np.diag(expected.gram)))  # >= sum |phi_i phi_j|
    tolerances.assert_reduction(found.gram, expected.gram, dtype, n, size)
    of_targets = np.sqrt(np.outer(expected.target_square, np.diag(expected.gram)))
    tolerances.assert_reduction(found.cross, expected.cross, dtype, n, of_targets)
    tolerances.assert_reduction(found.target_sum, expected.target_sum, np.float64, n, np.abs(expected.target_sum))
    condition = oracles.condition(expected.gram + np.eye(len(expected.gram)))
    ours, theirs = kd.fit_ridge(found, 1.0), kd.fit_ridge(expected, 1.0)
    tolerances.assert_solve(ours, theirs, condition, dtype)
    if dtype == "float64":
        assert np.linalg.norm(ours - theirs) <= tolerances.TRAVELLED * np.linalg.norm(theirs)


def assert_same_choice(found: kd.RidgeStatistics, counts: kd.CorrectCounts, problem: Problem) -> None:
    """The same lambda by the same counts of the same held-out rows; points that retrain to the model exactly."""
    expected = kd.fit_model(problem.training, validation=problem.held_out)
    assert counts.n == len(problem.held_out)
    model: Any = kd.fit_model(found, validation=counts)
    assert model.lambda_ == expected.lambda_
    tolerances.assert_exact(model.path.val_accuracy, expected.path.val_accuracy)
    points = kd.distill_model(model, points_per_class=1)
    certificate = points.verify(model, test=(problem.X, problem.y))
    tolerances.assert_promised(certificate.weight_relative_error)
    assert certificate.prediction_agreement == 1.0
