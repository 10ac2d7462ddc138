"""Ridge regression from sufficient statistics: the lambda path and its selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_number, to_host
from krrdistill.errors import NotPositiveDefinite
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["RidgePath", "default_lambdas", "fit_intercept", "fit_ridge", "ridge_path", "select", "select_by_r2"]

FloatArray = npt.NDArray[np.float64]


def default_lambdas() -> FloatArray:
    """The paper's grid: 10^-6 ... 10^5.5 in half decades (24 values)."""
    return np.asarray(10.0 ** np.arange(-6.0, 6.0, 0.5))


@dataclass(frozen=True, eq=False)
class RidgePath:
    """W(lambda) = C (G + lambda I)^-1 on a grid, and what is known about each model.

    weights (L, k, p) are NaN where G + lambda I is not positive definite in the precision of G.
    """

    lambdas: FloatArray  # (L,), ascending
    weights: FloatArray  # (L, k, p)
    positive_definite: npt.NDArray[np.bool_]  # (L,)
    largest_eigenvalue: float  # of G, to a relative 1e-3
    noise_floor: float
    below_noise_floor: npt.NDArray[np.bool_]  # (L,), smallest eigenvalue of G + lambda I under the floor
    train_rmse: FloatArray  # (L,), root of the mean squared training residual per sample
    val_accuracy: FloatArray  # (L,), NaN before selection or where there is no model
    best: int  # the chosen index, -1 before selection
    intercepts: FloatArray | None = None  # (L, k): b of the predictions W phi + b; None for 0
    val_r2: FloatArray | None = None  # (L, k), of real-valued targets: 1 - squared error / squared deviation
    chosen: npt.NDArray[np.int64] | None = None  # (k,), where every target has an index of its own
    product_precision: str = "float64"  # of G, as in the statistics: the noise floor of float32 can be lowered

    @property
    def score(self) -> FloatArray:
        """What lambda is chosen by: validation accuracy (L,), of real-valued targets their mean R^2."""
        return self.val_accuracy if self.val_r2 is None else np.asarray(self.val_r2.mean(axis=1))

    def model(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(W (k, p), b (k,), lambda (k,)) of the chosen index, or of every target's."""
        targets = np.arange(self.weights.shape[1])
        chosen = np.full(len(targets), self.best) if self.chosen is None else self.chosen
        intercepts = np.zeros(self.weights.shape[:2]) if self.intercepts is None else self.intercepts
        return self.weights[chosen, targets], intercepts[chosen, targets], self.lambdas[chosen]

    def statement(self) -> str | None:
        """One sentence about the lambdas under the noise floor, or None if there are none."""
        under = self.lambdas[self.below_noise_floor]
        if under.size == 0:
            return None
        remedy = "; precision float64 lowers it" if self.product_precision == "float32" else ""
        return (
            f"lambda {under.min():.3g} ... {under.max():.3g} ({under.size} of {self.lambdas.size}) lie under the noise "
            f"floor {self.noise_floor:.3g} of the Gram matrix and were not eligible{remedy}"
        )


def ridge_path(
    statistics: RidgeStatistics,
    lambdas: Sequence[float] | FloatArray | None = None,
    *,
    center: str = "none",
) -> RidgePath:
    """All models of a grid from one set of statistics.

    ``center``: "both" for an unpenalised intercept, "targets" for targets about their mean, see
    ``RidgeStatistics.system``; predictions are W phi + b with b = y_mean - W phi_mean.
    Training residual: ||Y - W Phi||^2 = ||Y||^2 - <W, C> - lambda ||W||^2, since W G = C - lambda W; of W = a A, where
    rows A are held, lambda^2 ||a||^2.
    """
    grid = _check_lambdas(lambdas)
    data = statistics.system(center)
    solution = statistics.backend.ridge_path(data.gram, data.rhs, grid, rounding=data.rounding)
    weights = data.weights(solution.weights)
    squares = np.einsum("lkp,lkp->l", solution.weights, solution.weights)
    if data.rows is None:
        products = np.einsum("lkp,kp->l", weights, data.cross)
        residual = np.maximum(data.target_square - products - grid * squares, 0.0)
    else:
        residual = grid * grid * squares
    return RidgePath(
        lambdas=grid,
        weights=weights,
        positive_definite=solution.positive_definite,
        largest_eigenvalue=solution.largest_eigenvalue,
        noise_floor=data.rounding * max(solution.largest_eigenvalue, 0.0),
        below_noise_floor=~solution.resolved,
        train_rmse=np.sqrt(residual / (statistics.total_weight or 1.0)),
        val_accuracy=np.full(len(grid), np.nan),
        best=-1,
        intercepts=None if center == "none" else data.target_mean - weights @ data.feature_mean,
        product_precision=statistics.product_precision,
    )


def _check_lambdas(lambdas: Sequence[float] | FloatArray | None) -> FloatArray:
    if lambdas is None:
        return default_lambdas()
    values = lambdas if isinstance(lambdas, Sequence) else to_host("ridge_path", "lambdas", lambdas).ravel().tolist()
    grid = np.array([check_number("ridge_path", "lambdas", value, positive=True) for value in values])
    if grid.size == 0:
        raise ValueError("ridge_path: lambdas must hold at least one value")
    return np.unique(grid)


def select(path: RidgePath, correct: npt.NDArray[np.int64], n_validation: int) -> RidgePath:
    """The path with its validation accuracies and the best lambda: ties go to the larger one.

    Lambdas under the noise floor are eligible only if there is no other; raises NotPositiveDefinite if no model exists.
    """
    accuracy = np.where(path.positive_definite, correct / max(n_validation, 1), np.nan)
    best = _best(accuracy[:, None], _eligible(path))
    return replace(path, val_accuracy=accuracy, best=int(best[0]))


def select_by_r2(path: RidgePath, r2: FloatArray, *, per_target: bool = False) -> RidgePath:
    """The path with R^2 (L, k) on held-out data, and the lambda of the best mean over targets, or of every target."""
    r2 = np.where(path.positive_definite[:, None], r2, np.nan)
    eligible = _eligible(path)
    best = int(_best(r2.mean(axis=1, keepdims=True), eligible)[0])
    return replace(path, val_r2=r2, best=best, chosen=_best(r2, eligible) if per_target else None)


def _eligible(path: RidgePath) -> npt.NDArray[np.bool_]:
    """Which lambdas may be chosen."""
    eligible = path.positive_definite & ~path.below_noise_floor
    if not eligible.any():
        eligible = path.positive_definite
    if not eligible.any():
        remedy = " or use precision float64" if path.product_precision == "float32" else ""
        raise NotPositiveDefinite(
            f"ridge_path: no lambda up to {path.lambdas[-1]:.3g} makes G + lambda I positive definite in its precision "
            f"(noise floor {path.noise_floor:.3g}); raise lambda{remedy}"
        )
    return eligible


def _best(scores: FloatArray, eligible: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Per column of scores (L, k) the row of the largest eligible one, the last of equals."""
    scores = np.where(eligible[:, None], scores, -np.inf)
    return np.asarray(len(scores) - 1 - np.argmax(scores[::-1], axis=0), dtype=np.int64)


def fit_ridge(statistics: RidgeStatistics, lambda_: Any, *, center: str = "none") -> FloatArray:
    """W = C (G + lambda I)^-1, shape (k, p), by Cholesky in float64. Raises NotPositiveDefinite.

    lambda_ : one number, or k of them, one per target
    center : as in ``ridge_path``; the intercept is ``fit_intercept(statistics, W, center=center)``
    """
    data = statistics.system(center)
    per_target = np.ndim(lambda_) > 0
    lambdas = np.array(
        [check_number("fit_ridge", "lambda_", value) for value in (lambda_ if per_target else [lambda_])]
    )
    if lambdas.shape not in ((1,), (len(data.rhs),)):
        raise ValueError(f"fit_ridge: lambda_ must be one number or {len(data.rhs)}, got {lambdas.size}")
    lambdas = np.broadcast_to(lambdas, len(data.rhs))
    solution = np.empty_like(data.rhs)
    for value in np.unique(lambdas):
        targets = lambdas == value
        shifted = data.gram + value * np.eye(len(data.gram))
        solution[targets] = statistics.backend.solve_spd(shifted, np.ascontiguousarray(data.rhs[targets]).T).T
    return data.weights(solution)


def fit_intercept(statistics: RidgeStatistics, W: FloatArray, *, center: str) -> FloatArray:
    """b = y_mean - W phi_mean, shape (k,), of the predictions W phi + b; 0 without centring."""
    feature_mean, target_mean = statistics.means(center)
    return np.asarray(target_mean - W @ feature_mean)
