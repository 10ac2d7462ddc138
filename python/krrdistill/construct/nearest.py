"""The exact distilled set nearest to given inputs (docs/realism.md).

m points with features F (m, p) retrain to W with some labels, for any lambda_s >= 0, exactly when the rows of W lie in
the row space of F. With Q (k, p) an orthonormal basis of those rows and P = I - Q^T Q this reads: there is U (k, m)
with orthonormal rows and U F P = 0, where T = U F Q^T is invertible. Features nearest to given ones have U = the k left
singular vectors of F P with the smallest singular values; the squared distance is the sum of their squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.common.arrays import as_matrix
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap
from krrdistill.maps.jacobian import LayerWeights

__all__ = ["Tangent", "TangentWeights", "nearest_inputs"]

FloatArray = npt.NDArray[np.float64]
_ROUNDS = 2  # pulls towards the reference; more gain 0.1 dB (docs/realism.md)
_MAX_STEPS = 40
_EXACT = 1e-13  # ||U F P|| relative to ||F|| at which a point counts as exact ...
_TOLERATED = 1e-11  # ... and at which one that gets no better is taken
_SOLVE_TOLERANCES = (1e-4, 1e-1)  # of the inner iterations: as far as Newton's steps, which correct each other, can use
_PULL_TOLERANCE = 1e-2
_MAX_SOLVE = 150
_SMALLEST_STEP = 1e-3
_LEAST_T = 1e-5  # of the singular values of T, relative to the largest of F: bounds the condition number of the result
_RANK = 1e-10  # singular values of W under it, relative to the largest, are rounding
_TIE = 1e-12  # among equally near sets the one with the larger T
_RIDGE = 1e-12  # of the preconditioner, relative to its mean eigenvalue


class TangentWeights:
    """The weights of a map in both precisions: float64 for features, float32 for the products of an iteration."""

    def __init__(self, feature_map: FeatureMap) -> None:
        self.exact = LayerWeights(feature_map.layers, scale=feature_map.preprocessing.scale)
        self.gram = self.exact.gram()
        self.rounded = [matrix.astype(np.float32) for matrix in self.gram]


class Tangent:
    """phi at the rows of X (m, d), raw inputs about the origin, and the products with its Jacobian."""

    def __init__(self, weights: TangentWeights, X: FloatArray) -> None:
        self._weights = weights
        self._at = weights.exact.at(X)
        self.features: FloatArray = self._at.value
        self._rounded_slopes = [slope.astype(np.float32) for slope in self._at.slopes]

    def along(self, V: FloatArray) -> FloatArray:
        """Rows J_i v_i: array of shape (m, d) -> (m, p), in float64."""
        return self._at.forward(V)

    def back(self, V: FloatArray) -> FloatArray:
        """Rows J_i^T v_i: array of shape (m, p) -> (m, d), in float64."""
        return self._at.backward(V)

    def there_and_back(self, V: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rows J_i J_i^T v_i: array of shape (m, p) -> (m, p), in float32."""
        middle, *rounded = self._weights.rounded
        if not self._rounded_slopes:
            return V * np.diag(middle)
        first, *others = self._rounded_slopes
        for weight, slope in zip(reversed(rounded), reversed(others), strict=True):
            V = np.asarray((V * slope) @ weight)
        V = np.asarray(((V * first) @ middle) * first)
        for weight, slope in zip(rounded, others, strict=True):
            V = np.asarray((V @ weight.T) * slope)
        return V

    def mean_product(self) -> FloatArray:
        """About the mean of J_i J_i^T over the rows, (p, p): B_l = (W_l B_{l-1} W_l^T) * (a_l^T a_l / m).

        Exact for up to one layer; of deeper maps it takes the slopes of different layers as independent.
        """
        B = self._weights.gram[0].copy()
        for number, slope in enumerate(self._at.slopes):
            if number > 0:
                weight = self._weights.gram[number]
                B = weight @ B @ weight.T
            B *= slope.T @ slope / len(slope)
        return B


@dataclass(frozen=True, eq=False)
class _Constraint:
    """U phi(X) P = 0, and U phi(X) = t q for the rows u of U whose t would be too small."""

    U: FloatArray  # (k, m)
    Q: FloatArray  # (k, p)
    raised: npt.NDArray[np.bool_]  # (k,)
    least: float  # what t of those rows is raised to

    def project(self, A: FloatArray) -> FloatArray:
        """A (k, p) without the parts that the constraint leaves free."""
        return A - np.where(self.raised[:, None], 0.0, A @ self.Q.T) @ self.Q

    def residual(self, F: FloatArray) -> FloatArray:
        """What is left of the constraint, (k, p)."""
        return self.project(self.U @ F) - np.where(self.raised, self.least, 0.0)[:, None] * self.Q


class _Preconditioner:
    """The inverse of B restricted to the rows that a constraint allows, B about the mean of J J^T."""

    def __init__(self, at: Tangent, Q: FloatArray) -> None:
        B = at.mean_product()
        B[np.diag_indices_from(B)] += _RIDGE * np.trace(B) / len(B) + np.finfo(float).tiny
        self._factor = scipy.linalg.cho_factor(B, lower=True, overwrite_a=True, check_finite=False)
        self._of_q = self._solve(Q)  # Q B^-1
        self._correction = np.linalg.solve(self._of_q @ Q.T, self._of_q)
        self._Q = Q

    def apply(self, A: FloatArray, raised: npt.NDArray[np.bool_] | None = None) -> FloatArray:
        """Rows a -> a (P B P)^+ for a = a P; for ``raised`` rows a B^-1."""
        solved = self._solve(A)
        along = solved @ self._Q.T
        return solved - (along if raised is None else np.where(raised[:, None], 0.0, along)) @ self._correction

    def _solve(self, A: FloatArray) -> FloatArray:
        return np.asarray(scipy.linalg.cho_solve(self._factor, A.T, check_finite=False).T)


def nearest_inputs(feature_map: FeatureMap, W: FloatArray, U: FloatArray, *, centered: bool = False) -> FloatArray:
    """Standardised inputs near U (m, d) from whose features, with the right labels, W (k, p) is retrained exactly.

    The distance is that of the raw inputs, of pixels. Newton's method on U phi(X) P = 0, every step the least one, by
    preconditioned conjugate gradients; then pulls towards the given points along the solutions, as long as they bring
    it closer. Identity: the nearest set in one step.

    Parameters
    ----------
    feature_map : FeatureMap of layers that are matrices
    W : array of shape (k, p)
    U : array of shape (m, d), as ``Preprocessing.standardise`` gives it
    centered : retrained with an unpenalised intercept, that is from features about their mean

    Raises
    ------
    DataError
        If U has fewer points than W rows (one more with an intercept), or if no exact set is found near it.
    """
    unit = feature_map.preprocessing.unit
    X = as_matrix("nearest_inputs", "X", U, (len(U), feature_map.input_dim)) * unit
    weights = TangentWeights(feature_map)
    Q = _row_basis(W)
    if len(X) < len(Q) + centered:
        raise DataError(
            f"nearest_inputs: X has {len(X)} points, a model of rank {len(Q)} {'and an intercept ' if centered else ''}"
            f"needs at least {len(Q) + centered}"
        )
    start = Tangent(weights, X)
    if not start.features.any():
        raise DataError("nearest_inputs: no exact set was found near the given points: all their features are zero")
    constraint = _choose(start, Q, centered)
    at, nearest, distance = start, X, np.inf
    for _ in range(_ROUNDS):
        pulled = nearest + _least_step(at, constraint, X - nearest, tolerance=_PULL_TOLERANCE)
        candidate, at = _restore(weights, constraint, pulled)
        moved = float(np.linalg.norm(candidate - X))
        if moved >= distance:
            break
        nearest, distance = candidate, moved
        if moved == 0.0 or not feature_map.layers:  # an affine map: nothing to gain
            break
    return nearest / unit


def _row_basis(W: FloatArray) -> FloatArray:
    """Orthonormal rows that span those of W (k, p), as many as its rank."""
    _, s, Vt = np.linalg.svd(W, full_matrices=False)
    return np.ascontiguousarray(Vt[s > _RANK * s[0]])


def _choose(at: Tangent, Q: FloatArray, centered: bool) -> _Constraint:
    """The k combinations of points that cost least to bring into the row space of W, to first order in the inputs."""
    F = at.features - at.features.mean(axis=0) if centered else at.features
    inside = F @ Q.T
    outside = F - inside @ Q
    cost = outside @ _Preconditioner(at, Q).apply(outside).T
    tie = inside @ inside.T
    scale = float(np.trace(cost)) / max(float(np.trace(tie)), np.finfo(float).tiny)
    cost = 0.5 * (cost + cost.T) - _TIE * scale * tie
    if centered:  # combinations whose coefficients sum to 0 do not see the mean
        cost += (1.0 + 2.0 * np.linalg.norm(cost)) / len(F)
    U = np.asarray(scipy.linalg.eigh(cost, subset_by_index=(0, len(Q) - 1))[1].T)
    if centered:
        U = np.linalg.qr((U - U.mean(axis=1, keepdims=True)).T)[0].T
    left, t, right = np.linalg.svd(U @ inside)
    least = _LEAST_T * float(np.linalg.norm(F, 2))
    return _Constraint(left.T @ U, right @ Q, t < least, least)


def _least_step(at: Tangent, constraint: _Constraint, towards: FloatArray | None, *, tolerance: float) -> FloatArray:
    """The step V nearest to ``towards`` (by default none) with U (phi + J V) P = 0: V = towards + J^T U^T M."""
    F = at.features if towards is None else at.features + at.along(towards)
    multipliers = _solve(at, constraint, -constraint.residual(F), tolerance)
    step = at.back(constraint.U.T @ multipliers)
    return step if towards is None else towards + step


def _solve(at: Tangent, constraint: _Constraint, R: FloatArray, tolerance: float) -> FloatArray:
    """M with U J J^T (U^T M) P = R to a relative ``tolerance``, by preconditioned conjugate gradients."""
    preconditioner = _Preconditioner(at, constraint.Q)
    U = constraint.U.astype(np.float32)

    def product(M: FloatArray) -> FloatArray:
        return constraint.project(np.asarray(U @ at.there_and_back(U.T @ M.astype(np.float32)), dtype=np.float64))

    size = float(np.abs(R).max())  # float32 has no room for tiny residuals
    M = np.zeros_like(R)
    if size == 0.0:
        return M
    R = R / size
    Z = preconditioner.apply(R, constraint.raised)
    direction, square = Z, float(np.vdot(R, Z))
    goal = tolerance**2 * square
    for _ in range(_MAX_SOLVE):
        image = product(direction)
        curvature = float(np.vdot(direction, image))
        if not curvature > 0.0:  # no input moves these features
            break
        length = square / curvature
        M += length * direction
        R -= length * image
        Z = preconditioner.apply(R, constraint.raised)
        before, square = square, float(np.vdot(R, Z))
        if not square > goal:
            break
        direction = Z + (square / before) * direction
    return size * M


def _restore(weights: TangentWeights, constraint: _Constraint, X: FloatArray) -> tuple[FloatArray, Tangent]:
    """An exact point near X, and the map around it: least steps, halved while they do not help."""
    at = Tangent(weights, X)
    error, scale = _error(at, constraint), float(np.linalg.norm(at.features))
    for _ in range(_MAX_STEPS):
        if error <= _EXACT * scale:
            break
        finest, coarsest = _SOLVE_TOLERANCES
        step = _least_step(at, constraint, None, tolerance=max(finest, min(coarsest, error / scale)))
        length = 1.0
        while True:
            ahead = Tangent(weights, X + length * step)
            left = _error(ahead, constraint)
            if left <= (1.0 - 0.1 * length) * error or length < _SMALLEST_STEP:
                break
            length *= 0.5
        if not left < error:
            break
        X, at, error = X + length * step, ahead, left
    if error > _TOLERATED * scale:
        raise DataError(
            f"nearest_inputs: no exact set was found near the given points (relative residual {error / scale:.2g}); "
            "use the published construction, or other points"
        )
    return X, at


def _error(at: Tangent, constraint: _Constraint) -> float:
    return float(np.linalg.norm(constraint.residual(at.features)))
