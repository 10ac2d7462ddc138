"""The lambda path: all models of a grid from one set of statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from krrdistill.backends.base import path_operations
from krrdistill.backends.models import Models, ModelStack, models_on_host
from krrdistill.common.arrays import check_number, to_host
from krrdistill.common.memory import require_memory
from krrdistill.common.products import product
from krrdistill.common.threads import blas_for
from krrdistill.errors import NotPositiveDefinite

from .statistics import RidgeStatistics

__all__ = ["RidgePath", "default_lambdas", "fit_intercept", "fit_ridge", "ridge_path"]

FloatArray = npt.NDArray[np.float64]


def default_lambdas() -> FloatArray:
    """The grid of the paper for lambda: 10^-6 ... 10^5.5 in steps of half a decade.

    Returns
    -------
    array of shape (24,)
    """
    return np.asarray(10.0 ** np.arange(-6.0, 6.0, 0.5))


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The models W(lambda) = C (G + lambda I)^-1 for a grid of lambdas, with their scores.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    lambdas : array of shape (L,)
        Ridge parameters, ascending.
    weights : array of shape (L, k, p)
        W for every lambda; NaN if G + lambda I is not positive definite in the precision of G. On a GPU it is a
        ``ModelStack``, whose parts are copied from there when they are indexed. None in the path that a model keeps.
    intercepts : array of shape (L, k)
        b of the predictions W phi + b; None for 0.
    positive_definite : array of bool, shape (L,)
        Whether G + lambda I is positive definite.
    below_noise_floor : array of bool, shape (L,)
        Whether the smallest eigenvalue of G + lambda I is below the noise floor.
    largest_eigenvalue : float
        Largest eigenvalue of G, to a relative 1e-3.
    noise_floor : float
        Size of the rounding errors of G. Smaller lambdas have no effect beyond rounding.
    train_rmse : array of shape (L,)
        Root mean square of the training residual per sample.
    product_precision : "float32" or "float64"
        Precision of the products in G. With float64 the noise floor is lower.
    criterion : "accuracy", "r2", "squared_error" or "gcv"
        Criterion by which lambda was chosen; "" before selection.
    score : array of shape (L,)
        Value of the criterion; NaN before selection, and for lambdas without a model.
    val_r2 : array of shape (L, k)
        R^2 of real-valued targets on held-out data, 1 - squared error / squared deviation.
    best : int
        Index of the chosen lambda; -1 before selection.
    chosen : array of shape (k,)
        Index of the lambda of every target, if each has its own.
    """

    lambdas: FloatArray
    weights: Models | None
    intercepts: FloatArray | None
    positive_definite: npt.NDArray[np.bool_]
    below_noise_floor: npt.NDArray[np.bool_]
    largest_eigenvalue: float
    noise_floor: float
    train_rmse: FloatArray
    product_precision: str
    criterion: str = ""
    score: FloatArray | None = None
    val_r2: FloatArray | None = None
    best: int = -1
    chosen: npt.NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        first, last = self.lambdas[0], self.lambdas[-1]
        own = "" if self.chosen is None else ", a lambda per target"
        chosen = (
            f"{self.lambdas[self.best]:.3g} chosen by {self.criterion or 'request'}{own}"
            if self.best >= 0
            else "none chosen"
        )
        grid = f"{len(self.lambdas)} lambdas from {first:.3g} to {last:.3g}" if len(self.lambdas) > 1 else "one lambda"
        return f"RidgePath({grid}, {chosen})"

    @property
    def val_accuracy(self) -> FloatArray:
        """Accuracy on held-out data, shape (L,); NaN if lambda was chosen by another criterion."""
        if self.criterion == "accuracy" and self.score is not None:
            return self.score
        return np.full(len(self.lambdas), np.nan)

    def models(self) -> FloatArray:
        """The weights (L, k, p), zero for lambdas without a model. Raises ValueError if they were not kept."""
        return np.asarray(models_on_host(self.stacked()))

    def stacked(self) -> Models:
        """As ``models()``, but on the device where they are, and NaN for lambdas without a model."""
        if self.weights is None:
            raise ValueError("ridge_path: this path keeps no models; make it again with ridge_path(statistics)")
        if isinstance(self.weights, ModelStack) or self.positive_definite.all():
            return self.weights
        return np.nan_to_num(self.weights)

    def model(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """W (k, p), b (k,) and lambda (k,) of the choice. Raises ValueError if there was none."""
        if self.chosen is None and self.best < 0:
            raise ValueError("RidgePath.model: no lambda was chosen; fit_model(statistics, validation=...) chooses one")
        weights = self.stacked()
        targets = np.arange(weights.shape[1])
        chosen = np.full(len(targets), self.best) if self.chosen is None else self.chosen
        intercepts = np.zeros(weights.shape[:2]) if self.intercepts is None else self.intercepts
        W = weights[chosen, targets]
        if not self.positive_definite[chosen].all():
            W = np.nan_to_num(W)
        return W, intercepts[chosen, targets], self.lambdas[chosen]

    def without_models(self) -> RidgePath:
        """Return the path without its weights."""
        return replace(self, weights=None, intercepts=None)

    def statements(self) -> list[str]:
        """Sentences about what a user should know about the choice of lambda."""
        return [said for said in (self._noise(), self.edge()) if said is not None]

    def _noise(self) -> str | None:
        under = self.lambdas[self.below_noise_floor]
        if under.size == 0:
            return None
        remedy = "; precision float64 lowers it" if self.product_precision == "float32" else ""
        which, lie, were = f"{under.min():.3g} ... {under.max():.3g}", "lie", "were"
        if under.size == 1:
            which, lie, were = f"{under[0]:.3g}", "lies", "was"
        return (
            f"lambda {which} ({under.size} of {self.lambdas.size}) {lie} under the noise floor {self.noise_floor:.3g} "
            f"of the Gram matrix and {were} not eligible{remedy}"
        )

    def edge(self) -> str | None:
        """A sentence if the choice is at an end of the grid or among lambdas that score alike; otherwise None."""
        last = len(self.lambdas) - 1
        scores = self.val_r2 if self.chosen is not None else self.score
        if last == 0 or scores is None:
            return None
        scores = scores.reshape(last + 1, -1)
        eligible = self.positive_definite & ~self.below_noise_floor
        eligible = eligible if eligible.any() else self.positive_definite
        better = set()  # ends that score better than the lambda beside them, which says on which side to look
        for target, index in enumerate(np.atleast_1d(self.best if self.chosen is None else self.chosen)):
            beside = 1 if index == 0 else last - 1
            if index in (0, last) and (not eligible[beside] or scores[index, target] != scores[beside, target]):
                better.add(int(index))
        if better:
            end, beyond = ("smallest", "smaller") if 0 in better else ("largest", "larger")
            edge = self.lambdas[0 if 0 in better else last]
            return f"the lambda chosen, {edge:.3g}, is the {end} of the grid: give {beyond} ones, too (lambdas)"
        if eligible.sum() > 1 and (scores[eligible] == scores[eligible][0]).all():
            return (
                f"every lambda of the grid scores alike ({scores[eligible].mean():.3g}), so that the largest is taken: "
                "hold out more samples (validation_fraction), use selection='gcv', or give other lambdas, "
                "as for X of a very large or small scale"
            )
        return None

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything except the models, as arrays by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: np.asarray(value)
            for name, value in values.items()
            if value is not None and name not in ("weights", "intercepts")
        }


def ridge_path(
    statistics: RidgeStatistics, lambdas: float | Sequence[float] | FloatArray | None = None, *, center: str = "none"
) -> RidgePath:
    """Compute the ridge models for all lambdas of a grid from the same statistics.

    W(lambda) = C (G + lambda I)^-1, predictions W phi + b with b = y_mean - W phi_mean. Training residual:
    ||Y - W Phi||^2 = ||Y||^2 - <W, C> - lambda ||W||^2, since W G = C - lambda W; for W = a A, from stored features A,
    lambda^2 ||a||^2.

    Parameters
    ----------
    statistics : RidgeStatistics
    lambdas : sequence of float, optional
        Positive numbers; by default ``default_lambdas``.
    center : "none", "targets" or "both"
        "targets" subtracts their mean. "both" fits an unpenalised intercept.

    Returns
    -------
    RidgePath
        The path, before a lambda is selected.
    """
    grid = _check_lambdas(lambdas)
    k, p = statistics.k, statistics.feature_map.output_dim
    if statistics.n >= p:
        require_memory("ridge_path", f"a copy of G ({p} x {p}) and models", 8 * p * (p + min(len(grid) * k, p)))
    with blas_for(path_operations(k, p, len(grid))):
        data = statistics.system(center)
        solution = statistics.backend.ridge_path(
            data.gram, data.rhs, grid, rounding=data.rounding, overwrite=data.owned
        )
        weights = solution.weights
        if data.features is None:
            residual = np.maximum(data.target_square - solution.products - grid * solution.squares, 0.0)
        else:
            flat = product(np.reshape(np.asarray(weights), (-1, len(data.features))), data.features)
            weights = flat.reshape(*weights.shape[:-1], -1)
            residual = grid * grid * solution.squares
        return RidgePath(
            lambdas=grid,
            weights=weights,
            intercepts=None if center == "none" else data.target_mean - weights @ data.feature_mean,
            positive_definite=solution.positive_definite,
            below_noise_floor=~solution.resolved,
            largest_eigenvalue=solution.largest_eigenvalue,
            noise_floor=data.rounding * max(solution.largest_eigenvalue, 0.0),
            train_rmse=np.sqrt(residual / (statistics.total_weight or 1.0)),
            product_precision=statistics.product_precision,
        )


def _check_lambdas(lambdas: Any) -> FloatArray:
    if lambdas is None:
        return default_lambdas()
    values = (
        np.ravel(to_host("ridge_path", "lambdas", lambdas)).tolist()
        if hasattr(lambdas, "ndim") or np.ndim(lambdas)
        else [lambdas]
    )
    grid = np.array([check_number("ridge_path", "lambdas", value, positive=True) for value in values])
    if grid.size == 0:
        raise ValueError("ridge_path: lambdas must hold at least one value")
    return np.unique(grid)


def fit_ridge(statistics: RidgeStatistics, lambda_: Any, *, center: str = "none") -> FloatArray:
    """Solve for W = C (G + lambda I)^-1, shape (k, p), by Cholesky in float64 with one copy of G.

    Parameters
    ----------
    statistics : RidgeStatistics
    lambda_ : float or sequence of k float
        Ridge parameter, or one for each target.
    center : "none", "targets" or "both"
        As in ``ridge_path``. The intercept is ``fit_intercept(statistics, W, center=center)``.

    Returns
    -------
    array of shape (k, p)

    Raises
    ------
    NotPositiveDefinite
        If G + lambda I is not positive definite, up to rounding.
    """
    data = statistics.system(center)
    given = lambda_ if np.ndim(lambda_) > 0 else [lambda_]
    lambdas = np.array([check_number("fit_ridge", "lambda_", value) for value in given])
    if lambdas.shape not in ((1,), (len(data.rhs),)):
        raise ValueError(f"fit_ridge: lambda_ must be one number or {len(data.rhs)}, got {lambdas.size}")
    lambdas = np.broadcast_to(lambdas, len(data.rhs))
    solution, G = np.empty_like(data.rhs), np.asarray(data.gram)
    for value in np.unique(lambdas):
        targets = lambdas == value
        solution[targets] = _solve(G, float(value), data.rhs[targets])
    return solution if data.features is None else product(solution, data.features)


def _solve(gram: FloatArray, shift: float, rhs: FloatArray) -> FloatArray:
    """rhs (gram + shift I)^-1 for a symmetric gram."""
    shifted = np.array(gram.T, order="F")  # symmetric, so this copy needs no transposition
    shifted[np.diag_indices_from(shifted)] += shift
    lower, info = lapack.dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise NotPositiveDefinite(f"fit_ridge: leading minor {info} of G + {shift:.3g} I; raise lambda")
    solution, _ = lapack.dpotrs(lower, np.asfortranarray(rhs.T), lower=1, overwrite_b=1)
    return np.asarray(solution.T)


def fit_intercept(statistics: RidgeStatistics, W: FloatArray, *, center: str) -> FloatArray:
    """b = y_mean - W phi_mean, shape (k,), of the predictions W phi + b; 0 without centring."""
    feature_mean, target_mean = statistics.means(center)
    return np.asarray(target_mean - W @ feature_mean)
