"""Choosing lambda: by held-out rows, by held-out statistics, by counts that were summed elsewhere, or by GCV.

Ties go to the larger lambda. Lambdas below the noise floor of G are used only if no other is solvable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_count
from krrdistill.common.samples import as_samples, check_columns
from krrdistill.errors import DataError, NotPositiveDefinite

from .held_out import HeldOutRows
from .path import RidgePath
from .scores import batched_scores, r_squared
from .statistics import RidgeStatistics
from .sums import check_weights

__all__ = [
    "CorrectCounts",
    "check_solvable",
    "count_correct",
    "select_by_counts",
    "select_by_gcv",
    "select_by_rows",
    "select_by_statistics",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CorrectCounts:
    """Number of n held-out samples that each model of a path classifies correctly.

    Counts of disjoint samples can be added with ``+``.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    correct : array of int, shape (L,)
        Number of correct predictions of each of the L models.
    n : int
        Number of held-out samples.
    """

    correct: IntArray
    n: int

    def __repr__(self) -> str:
        return f"CorrectCounts({len(self.correct)} lambdas, {self.n} samples)"

    def __add__(self, other: CorrectCounts) -> CorrectCounts:
        if self.correct.shape != other.correct.shape:
            raise DataError(f"counts of {len(self.correct)} and {len(other.correct)} lambdas do not add")
        return CorrectCounts(self.correct + other.correct, self.n + other.n)


def count_correct(path: RidgePath, statistics: RidgeStatistics, held_out: HeldOutRows) -> CorrectCounts:
    """Count how many held-out samples each model of a path classifies correctly.

    Parameters
    ----------
    path : RidgePath
        A path with its models, from ``ridge_path``.
    statistics : RidgeStatistics
        Statistics that the path was computed from. Their map, classes, precision and backend are used.
    held_out : HeldOutRows

    Returns
    -------
    CorrectCounts
    """
    return _count_correct("count_correct", path, statistics, held_out)


def _count_correct(where: str, path: RidgePath, statistics: RidgeStatistics, held_out: HeldOutRows) -> CorrectCounts:
    feature_map, samples = statistics.feature_map, _samples(where, statistics, held_out)
    if statistics.classes is None:
        raise TypeError(f"{where}: the statistics are of real-valued targets, which are scored by R^2")
    labels = statistics.classes.encode(where, held_out.y, samples.shape[0])
    rows = np.arange(len(labels)) if held_out.rows is None else held_out.rows
    backend = statistics.backend_for(samples)
    if path.intercepts is None:
        with feature_map.named_rows(where, samples, statistics.precision, rows):
            correct = backend.score_path(
                feature_map, samples, labels, path.stacked(), dtype=np.dtype(statistics.precision), rows=rows
            )
        return CorrectCounts(correct, len(rows))
    b = np.nan_to_num(path.intercepts)
    correct = np.zeros(len(path.lambdas), dtype=np.int64)
    scored = batched_scores(
        feature_map, samples, path.models(), b, precision=statistics.precision, backend=backend, where=where, rows=rows
    )
    for part, scores in scored:
        correct += np.count_nonzero(scores.argmax(axis=2) == labels[part][:, None], axis=0)
    return CorrectCounts(correct, len(rows))


def _samples(where: str, statistics: RidgeStatistics, held_out: HeldOutRows) -> Any:
    """X of held-out rows, with the columns and in the units of the training samples."""
    samples = as_samples(where, held_out.X, input_dim=statistics.feature_map.input_dim)
    check_columns(where, statistics.columns, samples)
    statistics.warn_of_units(where, samples)
    return samples


def select_by_counts(path: RidgePath, counts: CorrectCounts) -> RidgePath:
    """The lambda of the best accuracy on held-out samples."""
    check_count("fit_model", "n of the counts", counts.n)
    correct = np.asarray(counts.correct)
    if correct.shape != path.lambdas.shape or correct.dtype.kind not in "iu":
        raise DataError(f"fit_model: counts must be integers of shape {path.lambdas.shape}, got {correct.shape}")
    return _selected(path, "accuracy", correct / counts.n)


def select_by_rows(
    path: RidgePath, statistics: RidgeStatistics, held_out: HeldOutRows, *, where: str, per_target: bool = False
) -> RidgePath:
    """The lambda of the best accuracy on held-out rows; of real-valued targets of the best R^2."""
    if not len(held_out):
        raise DataError("fit_model: there are no held-out rows")
    if statistics.classes is not None:
        return select_by_counts(path, _count_correct(where, path, statistics, held_out))
    feature_map, samples = statistics.feature_map, _samples(where, statistics, held_out)
    targets = statistics.as_targets(where, held_out.y, samples.shape[0])
    weights = None if held_out.sample_weight is None else check_weights(where, held_out.sample_weight, len(targets))
    scored = batched_scores(
        feature_map,
        samples,
        path.models(),
        None if path.intercepts is None else np.nan_to_num(path.intercepts),
        precision=statistics.precision,
        backend=statistics.backend_for(samples),
        where=where,
        rows=held_out.rows,
    )
    return select_by_r2(path, r_squared(scored, targets, sample_weight=weights)[0], per_target=per_target)


def select_by_r2(path: RidgePath, r2: FloatArray, *, per_target: bool = False) -> RidgePath:
    """The lambda of the best mean of R^2 (L, k) over targets, or of every target's best."""
    r2 = np.where(path.positive_definite[:, None], r2, np.nan)
    path = _selected(replace(path, val_r2=r2), "r2", r2.mean(axis=1))
    return replace(path, chosen=_best(r2, _eligible(path)) if per_target else None)


def select_by_statistics(path: RidgePath, held_out: RidgeStatistics, *, per_target: bool = False) -> RidgePath:
    """The lambda of the least squared error on held-out statistics; of real-valued targets of the best R^2.

    The error is ``RidgeStatistics.squared_errors``.
    """
    weights = path.stacked()
    b = np.zeros(weights.shape[:2]) if path.intercepts is None else np.nan_to_num(path.intercepts)
    errors = np.array(
        [held_out.squared_errors(np.nan_to_num(W), intercept) for W, intercept in zip(weights, b, strict=True)]
    )
    errors /= max(held_out.total_weight, np.finfo(np.float64).tiny)
    if held_out.classes is not None:
        return _selected(path, "squared_error", errors.sum(axis=1))
    variance = held_out.target_spread**2
    varies = variance > 0.0
    return select_by_r2(
        path, np.where(varies, 1.0, 0.0) - errors / np.where(varies, variance, 1.0), per_target=per_target
    )


def select_by_gcv(path: RidgePath, statistics: RidgeStatistics, *, center: str = "none") -> RidgePath:
    """The lambda of the least generalised cross-validation score, from the statistics alone.

    GCV(lambda) = n RSS / (n - df)^2 with df = tr(G (G + lambda I)^-1), one more with an intercept. Source: Golub,
    Heath, Wahba, Generalized cross-validation as a method for choosing a good ridge parameter, Technometrics 21, 1979.
    """
    system = statistics.system(center)
    freedom = statistics.backend.degrees_of_freedom(system.gram, path.lambdas) + (center != "none")
    freedom -= system.filled / (system.filled + path.lambdas)  # a direction that is not in the data
    n = float(statistics.n)
    left = n - freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        score = n * np.square(path.train_rmse) * statistics.total_weight / np.square(left)
    return _selected(path, "gcv", np.where(left > 0.0, score, np.inf))


_SMALLER_IS_BETTER = ("squared_error", "gcv")


def _selected(path: RidgePath, criterion: str, score: FloatArray) -> RidgePath:
    """The path with its scores and the index of the best."""
    score = np.where(path.positive_definite, score, np.nan)
    signed = -score if criterion in _SMALLER_IS_BETTER else score
    best = _best(signed[:, None], _eligible(path))
    return replace(path, criterion=criterion, score=score, best=int(best[0]))


def check_solvable(path: RidgePath) -> None:
    """Raises NotPositiveDefinite where no lambda has a model."""
    if not path.positive_definite.any():
        remedy = " or use precision float64" if path.product_precision == "float32" else ""
        raise NotPositiveDefinite(
            f"ridge_path: no lambda up to {path.lambdas[-1]:.3g} makes G + lambda I positive definite in its precision "
            f"(noise floor {path.noise_floor:.3g}); raise lambda{remedy}"
        )


def _eligible(path: RidgePath) -> npt.NDArray[np.bool_]:
    """Which lambdas may be chosen."""
    check_solvable(path)
    eligible = path.positive_definite & ~path.below_noise_floor
    return eligible if eligible.any() else path.positive_definite


def _best(scores: FloatArray, eligible: npt.NDArray[np.bool_]) -> IntArray:
    """The row of the largest eligible score in each column of scores (L, k), the last of equals."""
    scores = np.where(eligible[:, None], scores, -np.inf)
    return np.asarray(len(scores) - 1 - np.argmax(scores[::-1], axis=0), dtype=np.int64)
