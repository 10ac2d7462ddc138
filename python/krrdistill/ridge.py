"""Ridge regression from sufficient statistics: the lambda path and its selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from krrdistill.arrays import check_number, to_host
from krrdistill.errors import NotPositiveDefinite
from krrdistill.statistics import RidgeStatistics

__all__ = ["RidgePath", "default_lambdas", "fit_ridge", "ridge_path", "select"]

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

    def statement(self) -> str | None:
        """One sentence about the lambdas under the noise floor, or None if there are none."""
        under = self.lambdas[self.below_noise_floor]
        if under.size == 0:
            return None
        return (
            f"lambda {under.min():.3g} ... {under.max():.3g} ({under.size} of {self.lambdas.size}) lie under the noise "
            f"floor {self.noise_floor:.3g} of the Gram matrix and were not eligible; precision float64 resolves them"
        )


def ridge_path(statistics: RidgeStatistics, lambdas: Sequence[float] | FloatArray | None = None) -> RidgePath:
    """All models of a grid from one factorisation of G.

    Training residual: ||Y - W Phi||^2 = ||Y||^2 - <W, C> - lambda ||W||^2, since W G = C - lambda W.
    """
    grid = _check_lambdas(lambdas)
    solution = statistics.backend.ridge_path(
        statistics.gram, statistics.cross, grid, rounding=statistics.noise_floor(1.0)
    )
    weights = solution.weights
    products = np.einsum("lkp,kp->l", weights, statistics.cross)
    squares = np.einsum("lkp,lkp->l", weights, weights)
    residual = np.maximum(statistics.target_square - products - grid * squares, 0.0)
    return RidgePath(
        lambdas=grid,
        weights=weights,
        positive_definite=solution.positive_definite,
        largest_eigenvalue=solution.largest_eigenvalue,
        noise_floor=statistics.noise_floor(solution.largest_eigenvalue),
        below_noise_floor=~solution.resolved,
        train_rmse=np.sqrt(residual / max(statistics.n, 1)),
        val_accuracy=np.full(len(grid), np.nan),
        best=-1,
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
    eligible = path.positive_definite & ~path.below_noise_floor
    if not eligible.any():
        eligible = path.positive_definite
    if not eligible.any():
        raise NotPositiveDefinite(
            f"ridge_path: no lambda up to {path.lambdas[-1]:.3g} makes G + lambda I positive definite in its precision "
            f"(noise floor {path.noise_floor:.3g}); raise lambda or use precision float64"
        )
    scores = np.where(eligible, accuracy, -1.0)
    best = len(scores) - 1 - int(np.argmax(scores[::-1]))
    return replace(path, val_accuracy=accuracy, best=best)


def fit_ridge(statistics: RidgeStatistics, lambda_: float) -> FloatArray:
    """W = C (G + lambda I)^-1, shape (k, p), by Cholesky in float64. Raises NotPositiveDefinite."""
    check_number("fit_ridge", "lambda_", lambda_)
    shifted = statistics.gram + lambda_ * np.eye(len(statistics.gram))
    return np.ascontiguousarray(statistics.backend.solve_spd(shifted, statistics.cross.T).T)
