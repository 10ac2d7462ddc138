"""KIP's loss and gradient from the sufficient statistics: no step touches the n training features.

The derivation is in docs/explanation/kip.md. With A = F F^T + lambda_s I and B = A^-1 F (m, p), M = B Phi:
M M^T = B G B^T and Y M^T = C B^T.
The labels are Y_S^T = C B^T (B G B^T)^-1, the model is W_S = Y_S^T B, and W_S depends on the row space of B only. So
    loss   ||W_S Phi - Y||^2 = ||Y||^2 - <Y_S, B C^T>
    d/dF   2 A^-1 Y_S (W_S G - C)
where neither the labels (they are optimal) nor A (it leaves the row space alone) adds a term. B is the best
conditioned choice of rows for B G B^T: at real images its condition number is at most 1.7e4, that of F G F^T 1e8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Layer
from krrdistill.common.arrays import device_of, namespace_of
from krrdistill.maps.jacobian import LayerWeights
from krrdistill.ridge.statistics import RidgeStatistics

from .place import HostPlace, Place

__all__ = ["LAMBDA_S", "GramObjective", "regularised_kernel"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LAMBDA_S = 1e-6  # of the mean eigenvalue of F F^T
_RANK_CUTOFF = 32.0  # units of rounding, relative to the largest eigenvalue of B G B^T


def regularised_kernel(F: FloatArray) -> tuple[FloatArray, float]:
    """(F F^T + lambda_s I, lambda_s) with lambda_s = 1e-6 trace(F F^T) / m, F (m, p)."""
    kernel = F @ F.T
    lambda_s = LAMBDA_S * float(kernel.trace()) / len(kernel)
    kernel.reshape(-1)[:: len(kernel) + 1] += lambda_s
    return kernel, lambda_s


class GramObjective:
    """The loss over all training points from G and C, or over a batch from G, C and the batch's own features.

    Parameters
    ----------
    layers : layers of the feature map on preprocessed inputs
    statistics : of the training points
    dtype : of inputs, features and products; the systems of order m are float64
    points : features (n, p) and classes (n,) of the training points, only for losses over batches
    place : where the inputs of a step lie; everything else is moved there
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        statistics: RidgeStatistics,
        *,
        dtype: Any,
        points: tuple[Array, IntArray] | None = None,
        place: Place | None = None,
    ) -> None:
        self.place = place = place or HostPlace()
        self._weights = LayerWeights(layers, dtype).moved(place.put)
        self._statistics = statistics
        self._gram = place.put(statistics.gram.astype(dtype, copy=False))
        self._cross = place.put(statistics.cross.astype(dtype, copy=False))
        self._target_square = float(statistics.target_square.sum())
        self._points = None if points is None else tuple(place.put(array) for array in points)
        self._cutoff = _RANK_CUTOFF * float(np.finfo(statistics.precision).eps)

    @np.errstate(over="ignore", invalid="ignore")
    def loss_and_gradient(self, X: Array, rows: IntArray | None) -> tuple[float, Array]:
        """(loss, its gradient with respect to X), X (m, d); ``rows`` are the batch, None for all training points.

        Inputs, rows and gradient are arrays of the place.

        The gradient of a batch's loss, with V = 2 (W_S G_B - C_B), H = B G and Q = (B G B^T)^-1 B V^T, is
            d/dF   A^-1 (Y_S (V - Q^T H) + Q (C - Y_S^T H)).
        NaN and no change where the features or the systems are beyond floating point.
        """
        at = self._weights.at(X)
        solved = _solve(at.value, self._gram, self._cross, self._cutoff)
        if solved is None:
            return float("nan"), namespace_of(X).zeros_like(X)
        model_gram = _like(solved.labels.T, at.value) @ solved.H  # W_S G, (k, p)
        dual = solved.inverse @ solved.labels
        if rows is None:
            loss = self._target_square - float(_dot(solved.labels, solved.cross))
            gradient = _like(2.0 * dual, at.value) @ (model_gram - self._cross)
        else:
            loss, slope = self._batch(_like(solved.labels.T, at.value) @ solved.B, rows)
            Q = solved.solve_gram(_wide(solved.B @ slope.T))
            gradient = _like(dual, at.value) @ (slope - _like(Q.T, at.value) @ solved.H)
            gradient += _like(solved.inverse @ Q, at.value) @ (self._cross - model_gram)
        return loss, at.backward(gradient)

    def _batch(self, W: Array, rows: IntArray) -> tuple[float, Array]:
        """(||W Phi_B - Y_B||^2, its derivative 2 (W G_B - C_B)) without forming G_B."""
        if self._points is None:
            raise ValueError("kip: the loss over a batch needs the features of the training points")
        features, classes = (array[rows] for array in self._points)
        residual = features @ W.T
        residual[namespace_of(W).arange(len(rows), device=device_of(W)), classes] -= 1.0
        loss = float(_dot(residual, residual))
        residual *= 2.0
        return loss, residual.T @ features

    @np.errstate(over="ignore", invalid="ignore")
    def labels(self, X: Array, F: FloatArray) -> FloatArray:
        """Y_S (m, k), the best labels for inputs X (m, d) with features F (m, p), in float64; NaN for none.

        On the host wherever the steps are taken, so that the labels of a file depend on its inputs alone.
        """
        solved = _solve(F, self._statistics.gram, self._statistics.cross, self._cutoff)
        return np.full((len(X), len(self._cross)), np.nan) if solved is None else solved.labels


def _solve(F: Array, gram: Array, cross: Array, cutoff: float) -> _Solved | None:
    """Labels of features F, None where they are beyond floating point."""
    xp = namespace_of(F)
    try:
        return _Solved(F, gram, cross, cutoff) if bool(xp.all(xp.isfinite(F))) else None
    except (np.linalg.LinAlgError, xp.linalg.LinAlgError):
        return None


def _wide(array: Array) -> Array:
    """The array in float64."""
    xp = namespace_of(array)
    return xp.astype(array, xp.float64, copy=False)  # type: ignore[no-any-return]


def _like(array: Array, kind: Array) -> Array:
    """The array in the precision of ``kind``."""
    return namespace_of(array).astype(array, kind.dtype, copy=False)  # type: ignore[no-any-return]


def _dot(A: Array, B: Array) -> Any:
    """<A, B>, the sum over all entries."""
    return namespace_of(A).vdot(A.reshape(-1), B.reshape(-1))


class _Solved:
    """Labels of features F (m, p) and the matrices that the gradient shares with them.

    On the host through NumPy: SciPy brings threads of its own, and those that wait for work keep cores busy.
    """

    def __init__(self, F: Array, gram: Array, cross: Array, cutoff: float) -> None:
        wide = _wide(F)
        self.inverse: FloatArray = namespace_of(F).linalg.inv(regularised_kernel(wide)[0])  # A^-1
        self.B: Array = _like(self.inverse @ wide, F)
        self.H: Array = self.B @ gram
        self.cross: FloatArray = _wide(self.B @ cross.T)  # B C^T (m, k)
        self.solve_gram = _pseudo_solver(_wide(self.H @ self.B.T), cutoff)
        self.labels = self.solve_gram(self.cross)


def _pseudo_solver(S: FloatArray, cutoff: float) -> Callable[[FloatArray], FloatArray]:
    """R -> S^+ R for a symmetric positive semi-definite S; eigenvalues under cutoff times the largest count as zero.

    By elimination, or by eigenvectors where the pivots of Cholesky say that there are such eigenvalues (m > p).
    """
    xp = namespace_of(S)
    if not bool(xp.all(xp.isfinite(S))):
        raise np.linalg.LinAlgError("the products overflow")
    S = 0.5 * (S + S.T)
    try:
        pivots = xp.linalg.diagonal(xp.linalg.cholesky(S)) ** 2
        regular = bool(pivots.min() > cutoff * pivots.max())
    except xp.linalg.LinAlgError:
        regular = False
    if regular:
        return lambda R: xp.linalg.solve(S, R)
    values, vectors = xp.linalg.eigh(S)
    kept = values > cutoff * values[-1]
    basis, scale = vectors[:, kept], values[kept]
    return lambda R: basis @ ((basis.T @ R) / scale[:, None])
