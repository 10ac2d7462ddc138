"""The exact distilled set nearest to given inputs (docs/explanation/nearest.md).

m points with features F (m, p) retrain to W with some labels, for any lambda_s >= 0, exactly when the rows of W lie in
the row space of F. With Q (k, p) an orthonormal basis of those rows and P = I - Q^T Q this reads: there is U (k, m)
with orthonormal rows and U F P = 0, where T = U F Q^T is invertible. Features nearest to given ones have U = the k left
singular vectors of F P with the smallest singular values; the squared distance is the sum of their squares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.common.arrays import as_matrix
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap
from krrdistill.maps.jacobian import LayerWeights, activation

from .iterations import EXACT, LEAST_T, PROGRESS, Clock, Digits, conjugate_gradients, inverse_of, shortened
from .nearest_square import OneLayer, nearest_square

__all__ = ["Nearest", "Tangent", "TangentWeights", "nearest_inputs"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Array = npt.NDArray[Any]  # float32 or float64
_ROUGH = 1e-2  # ||U F P|| relative to ||F||: pulls keep it at about this, and lead astray where it stays above
_SINGLE = 1e-4  # ... down to which features in float32 are good for: a hundred times their rounding
_TOLERATED = 1e-11  # ... at which one that gets no better is taken
_FARTHER = 1e-3  # how much of the distance the last correction may add, relative
_SOONER = (1.0, 1e-2, 1e-4)  # attempts of the last correction: the error relative to that expected to be small enough
_MAX_PULLS = 8
_MAX_STEPS = 60
_MAX_CORRECTIONS = 60
_SOLVE_TOLERANCES = (1e-2, 1e-1)  # of the inner iterations of Newton's steps: half of what the last step achieved
_PULL_TOLERANCES = (3e-2, 3e-1)  # of a pull: what is left is at most the second of the error, which the next one sees
_CORRECTION_TOLERANCE = 1e-4
_MAX_SOLVE = 300
_STALE = 0.1  # change of the squared slopes, relative, from which on the preconditioner is computed again
_RANK = 1e-10  # singular values of W under it, relative to the largest, are rounding
_TIE = 1e-12  # among equally near sets the one with the larger T


@dataclass(frozen=True, eq=False)
class Nearest:
    """Standardised inputs U (m, d), Newton steps, and "seconds" where the time ended them, else None."""

    U: FloatArray
    steps: int
    stopped: str | None = None


class TangentWeights:
    """The weights of a map in both precisions, and those of products with J J^T."""

    def __init__(self, feature_map: FeatureMap) -> None:
        scale = feature_map.preprocessing.scale
        self.exact = LayerWeights(feature_map.layers, scale=scale)
        self.single = LayerWeights(feature_map.layers, np.float32, scale=scale)
        # An affine map is solved by its preconditioner, which may be ill-conditioned; slopes that vary bound it.
        affine = all(layer.activation == "linear" for layer in feature_map.layers)
        self.gram = (self.exact if affine else self.single).gram()
        self.rounded = [matrix.astype(np.float32, copy=False) for matrix in self.gram]


class Tangent:
    """phi at the rows of X (m, d), raw inputs about the origin, and the products with its Jacobian.

    ``single``: computed in float32.
    """

    def __init__(self, weights: TangentWeights, X: FloatArray, *, single: bool = False) -> None:
        self._weights, self.single = weights, single
        self._at = (weights.single if single else weights.exact).at(X)
        self.features = np.asarray(self._at.value, dtype=np.float64)
        self.slopes = self._at.slopes
        self.preactivation: FloatArray = self._at.preactivation
        self._rounded_slopes = [slope.astype(np.float32, copy=False) for slope in self._at.slopes]

    def along(self, V: FloatArray) -> FloatArray:
        """Rows J_i v_i: array of shape (m, d) -> (m, p)."""
        return self._product(self._at.forward, V)

    def back(self, V: FloatArray) -> FloatArray:
        """Rows J_i^T v_i: array of shape (m, p) -> (m, d)."""
        return self._product(self._at.backward, V)

    def _product(self, of: Callable[[Array], Array], V: FloatArray) -> FloatArray:
        precision = np.float32 if self.single else np.float64
        return np.asarray(of(V.astype(precision, copy=False)), dtype=np.float64)

    def there_and_back(self, V: Float32Array) -> Float32Array:
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

    def mean_product(self) -> Array:
        """About the mean of J_i J_i^T over the rows, (p, p): B_l = (W_l B_{l-1} W_l^T) * (a_l^T a_l / m).

        Exact for up to one layer; of deeper maps it takes the slopes of different layers as independent.
        """
        B = self._weights.gram[0].copy()
        for number, slope in enumerate(self._rounded_slopes if B.dtype == np.float32 else self._at.slopes):
            if number > 0:
                weight = self._weights.gram[number]
                B = weight @ B @ weight.T
            B *= slope.T @ (slope / B.dtype.type(len(slope)))
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

    def rounded(self, A: Float32Array) -> Float32Array:
        """``project`` in float32."""
        Q = self.Q.astype(np.float32)
        return np.asarray(A - np.where(self.raised[:, None], np.float32(0.0), A @ Q.T) @ Q)

    def residual(self, F: FloatArray) -> FloatArray:
        """What is left of the constraint, (k, p)."""
        twice = self.project(self.project(self.U @ F))  # the first leaves rounding errors of U F along Q
        return twice - np.where(self.raised, self.least, 0.0)[:, None] * self.Q


class _Preconditioner:
    """The inverse of B restricted to the rows that a constraint allows, B about the mean of J J^T."""

    def __init__(self, at: Tangent, Q: FloatArray) -> None:
        B = at.mean_product()
        # Cholesky's rounding: p eps times the mean eigenvalue.
        B[np.diag_indices_from(B)] += np.finfo(B.dtype).eps * np.trace(B) + np.finfo(B.dtype).tiny
        inverse = inverse_of(B)
        if inverse is None:
            raise DataError("nearest_inputs: no exact set was found near the given points: their features do not move")
        of_q = Q.astype(B.dtype) @ inverse
        correction = np.linalg.solve(of_q @ Q.T, of_q)
        inverse -= (of_q.T @ correction).astype(B.dtype, copy=False)
        self.restricted = inverse  # (P B P)^+
        self._rounded = inverse.astype(np.float32, copy=False)
        self._of_q, self._correction = of_q.astype(np.float32), correction.astype(np.float32)
        self._slopes = at.slopes

    def apply(self, A: Float32Array, raised: npt.NDArray[np.bool_]) -> Float32Array:
        """Rows a -> a (P B P)^+ for a = a P; for ``raised`` rows a B^-1."""
        Z = np.asarray(A @ self._rounded)
        if raised.any():
            Z[raised] += (A[raised] @ self._of_q.T) @ self._correction
        return Z

    def stale(self, at: Tangent) -> bool:
        """Whether the slopes have changed much since."""
        moved = sum(float(np.square(now - then).sum()) for now, then in zip(at.slopes, self._slopes, strict=True))
        return moved > _STALE * sum(float(np.square(slope).sum()) for slope in self._slopes)


def nearest_inputs(
    feature_map: FeatureMap,
    W: FloatArray,
    U: FloatArray,
    *,
    centered: bool = False,
    max_seconds: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Nearest:
    """Standardised inputs near U (m, d) from whose features, with the right labels, W (k, p) is retrained exactly.

    The distance is that of the raw inputs, of pixels. Pulls go to the nearest points that solve the linearised
    U phi(X) P = 0, by preconditioned conjugate gradients; then Newton's method, every step the least one; then the
    digits that are left in the features alone, whose preimage is exact. Identity: the nearest set in one step.

    Parameters
    ----------
    feature_map : FeatureMap of layers that are matrices, with exact preimages
    W : array of shape (k, p)
    U : array of shape (m, d), as ``Preprocessing.standardise`` gives it
    centered : retrained with an unpenalised intercept, that is from features about their mean
    max_seconds : after which the steps end; the set is exact all the same, but less near
    progress : called with the fraction done

    Raises
    ------
    DataError
        If U has fewer points than W rows (one more with an intercept), or if no exact set is found near it.
    """
    unit = feature_map.preprocessing.unit
    X = as_matrix("nearest_inputs", "X", U, (len(U), feature_map.input_dim)) * unit
    Q = _row_basis(W)
    if len(X) < len(Q) + centered:
        raise DataError(
            f"nearest_inputs: X has {len(X)} points, a model of rank {len(Q)} {'and an intercept ' if centered else ''}"
            f"needs at least {len(Q) + centered}"
        )
    one = OneLayer.of(feature_map) if len(X) == len(Q) and not centered else None
    clock = Clock(max_seconds)
    if one is None:
        return _Search(feature_map, Q, X, centered, clock, progress).run()
    found, steps = nearest_square(feature_map, one, Q, X, clock, Digits(progress).tell)
    return Nearest(found, steps, "seconds" if clock.over() else None)


class _Search:
    """Newton's method from the points X (m, d), raw and about the origin."""

    def __init__(
        self,
        feature_map: FeatureMap,
        Q: FloatArray,
        X: FloatArray,
        centered: bool,
        clock: Clock,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.map, self.reference, self.clock = feature_map, X, clock
        self.tell = Digits(progress).tell
        self.weights = TangentWeights(feature_map)
        self.X, self.at = X, Tangent(self.weights, X)
        if not self.at.features.any():
            raise DataError("nearest_inputs: no exact set was found near the given points: all their features are zero")
        self.preconditioner = _Preconditioner(self.at, Q)
        self.constraint = _choose(self.at, Q, self.preconditioner, centered)
        self.scale = float(np.linalg.norm(self.at.features))
        self.error = self._error(self.at.features)
        self.multipliers = np.zeros_like(Q)  # of all steps together: X is about the reference + J^T U^T multipliers
        self.steps = 0

    def run(self) -> Nearest:
        """The exact points."""
        given = (self.X, self.at, self.error, self.preconditioner)
        self._approach()
        found = self._finished()
        if found is None and self.steps > 0:  # the pulls led astray: Newton's method from the given points
            self.X, self.at, self.error, self.preconditioner = given
            found = self._finished()
        if found is not None:
            return Nearest(found, self.steps, "seconds" if self.clock.over() else None)
        remedy = (
            "allow more than max_seconds" if self.clock.over() else "use the published construction, or other points"
        )
        raise DataError(
            "nearest_inputs: no exact set was found near the given points (relative residual "
            f"{self.error / self.scale:.2g}); {remedy}"
        )

    def _finished(self) -> FloatArray | None:
        """Newton's method and the last digits: standardised inputs, None where they do not get there."""
        for goal in (*self._goals(), EXACT):
            self._restore(goal)
            if self.error > _ROUGH * self.scale and not self.clock.over():
                return None
            found = self._corrected(strict=goal > EXACT and not self.clock.over())
            if found is not None:
                return found
        return None

    def _approach(self) -> None:
        """Pulls until they bring the points no nearer."""
        distance = np.inf
        for number in range(_MAX_PULLS):
            if self.error <= _SINGLE * self.scale or self.clock.over():  # affine, but for rounding
                break
            before, distance = distance, self._pull()
            if number > 1 and abs(before - distance) <= PROGRESS * before:  # the first stays far from exact
                break

    def _goals(self) -> list[float]:
        """Errors at which the last correction is tried, relative to the features.

        A square Gaussian weight moves inputs sqrt(p) times as far as features, on the average; what the correction
        adds to the distance is orthogonal to it.
        """
        moved, size = (float(np.linalg.norm(X)) for X in (self.X - self.reference, self.reference))
        expected = float(np.sqrt(_FARTHER / self.at.features.shape[1])) * moved / size if size > 0.0 else 0.0
        return [share * min(expected, _ROUGH) for share in _SOONER if share * expected > EXACT]

    def _restore(self, goal: float) -> None:
        """Steps to a relative residual of ``goal``, each the least one, halved while it does not help."""
        finest, coarsest = _SOLVE_TOLERANCES
        tolerance = coarsest
        for _ in range(_MAX_STEPS):
            relative = self.error / self.scale
            self.tell(relative)
            if relative <= goal or self.clock.over():
                return
            change = self._solve(-self.constraint.residual(self.at.features), tolerance)
            before = self.error
            self._step(self.at.back(self.constraint.U.T @ change), before)
            if not self.error < before:
                return
            tolerance = max(finest, min(coarsest, 0.5 * self.error / before))

    def _pull(self) -> float:
        """Towards the point nearest to the reference of those exact to first order; the squared distance reached."""
        U = self.constraint.U
        pulled = self.reference - self.X + self.at.back(U.T @ self.multipliers)
        residual = self.constraint.residual(self.at.features + self.at.along(pulled))
        finest, share = _PULL_TOLERANCES
        change = self._solve(-residual, max(finest, share * self.error / float(np.linalg.norm(residual))))
        pulled += self.at.back(U.T @ change)
        self.multipliers += self._step(pulled, max(self.error, _ROUGH * self.scale)) * change
        return float(np.square(self.X - self.reference).sum())

    def _step(self, step: FloatArray, before: float) -> float:
        """Takes a step, or less of it; the share that was taken, 0 where none makes the error smaller than before."""

        def ahead(length: FloatArray) -> tuple[tuple[FloatArray, Tangent], FloatArray]:
            X = self.X + length * step
            at = Tangent(self.weights, X, single=self.error > _SINGLE * self.scale)
            return (X, at), np.array([[self._error(at.features)]])

        (X, at), error, length = shortened(ahead, np.array([[before]]))
        if not error[0, 0] < before:
            return 0.0
        self.X, self.at, self.error = X, at, float(error[0, 0])
        self.steps += 1
        if self.preconditioner.stale(at):
            self.preconditioner = _Preconditioner(at, self.constraint.Q)
        return float(length[0, 0])

    def _solve(self, R: FloatArray, tolerance: float) -> FloatArray:
        """M with U J J^T (U^T M) P = R to a relative ``tolerance``."""
        U, at, project = self.constraint.U.astype(np.float32), self.at, self.constraint.rounded
        return conjugate_gradients(
            lambda M: project(np.asarray(U @ at.there_and_back(U.T @ M))),
            lambda A: self.preconditioner.apply(A, self.constraint.raised),
            R,
            tolerance,
            max_steps=_MAX_SOLVE,
            clock=self.clock,
        )

    def _corrected(self, *, strict: bool) -> FloatArray | None:
        """Standardised inputs with exact features near those reached; None where they are not, or much farther.

        Newton's method in what the last activation is of, with the least changes there, and the preimage of its result.
        """
        near = self.X / self.map.preprocessing.unit
        if self.at.single:
            self.at = Tangent(self.weights, self.X)
            self.error = self._error(self.at.features)
        if self.error <= EXACT * self.scale:
            return near
        F, error = self._corrected_features()
        if error > _TOLERATED * self.scale and not strict and self.clock.over():
            F = self._closed(F)
        found: FloatArray = self.map.standard_preimage(F, near=near)
        left = self._error(self.map.on_standardised.transform(found))
        if left > EXACT * self.scale:  # the digits that an ill-conditioned weight lost
            found = self.map.standard_preimage(F, near=found)
            left = self._error(self.map.on_standardised.transform(found))
        exact = left <= _TOLERATED * self.scale
        distances = [float(np.linalg.norm(X - self.reference)) for X in (found * self.map.preprocessing.unit, self.X)]
        return found if exact and (not strict or distances[0] <= (1.0 + _FARTHER) * distances[1]) else None

    def _corrected_features(self) -> tuple[FloatArray, float]:
        """Features, exact where they can be, with the least changes in what the last activation is of; their error."""
        U, T, F = self.constraint.U, self.at.preactivation, self.at.features
        slopes = self.at.slopes[-1] if self.at.slopes else np.ones_like(T)
        rounded, error = U.astype(np.float32), self.error
        for _ in range(_MAX_CORRECTIONS):
            if error <= np.finfo(np.float64).eps * self.scale:
                break
            squares = np.square(slopes).astype(np.float32)
            mean = np.maximum(squares.mean(axis=0), np.finfo(np.float32).tiny)
            M = conjugate_gradients(
                lambda M, squares=squares: self.constraint.rounded(np.asarray(rounded @ (squares * (rounded.T @ M)))),  # type: ignore[misc]
                lambda A, mean=mean: np.asarray(A / mean),  # type: ignore[misc]
                -self.constraint.residual(F),
                _CORRECTION_TOLERANCE,
                max_steps=_MAX_SOLVE,
            )
            ahead = self._along(T, slopes * (U.T @ M))
            (moved, F_ahead, slopes_ahead), left, _ = shortened(ahead, np.array([[error]]))
            if not left[0, 0] < error:
                break
            T, F, slopes, error = moved, F_ahead, slopes_ahead, float(left[0, 0])
        return F, error

    def _along(
        self, T: FloatArray, change: FloatArray
    ) -> Callable[[FloatArray], tuple[tuple[FloatArray, FloatArray, FloatArray], FloatArray]]:
        """length -> ((T, its features and slopes), error) of T + length change."""

        def ahead(length: FloatArray) -> tuple[tuple[FloatArray, FloatArray, FloatArray], FloatArray]:
            moved = T + length * change
            F, slopes = activation(self.map.layers[-1], moved) if self.map.layers else (moved, np.ones_like(moved))
            return (moved, F, slopes), np.array([[self._error(F)]])

        return ahead

    def _closed(self, F: FloatArray) -> FloatArray:
        """Exact features nearest to F, scaled into the range of the map, wherever their inputs are."""
        F = F - self.constraint.U.T @ self.constraint.residual(F)
        return np.asarray(F * min(1.0, self.map.feature_limit() / float(np.abs(F).max())))

    def _error(self, F: FloatArray) -> float:
        return float(np.linalg.norm(self.constraint.residual(F)))


def _row_basis(W: FloatArray) -> FloatArray:
    """Orthonormal rows that span those of W (k, p), as many as its rank."""
    _, s, Vt = np.linalg.svd(W, full_matrices=False)
    return np.ascontiguousarray(Vt[s > _RANK * s[0]])


def _choose(at: Tangent, Q: FloatArray, preconditioner: _Preconditioner, centered: bool) -> _Constraint:
    """The k combinations of points that cost least to bring into the row space of W, to first order in the inputs."""
    F = at.features - at.features.mean(axis=0) if centered else at.features
    inside = F @ Q.T
    outside = F - inside @ Q
    cost = outside @ preconditioner.restricted @ outside.T
    tie = inside @ inside.T
    scale = float(np.trace(cost)) / max(float(np.trace(tie)), np.finfo(float).tiny)
    cost = 0.5 * (cost + cost.T) - _TIE * scale * tie
    if centered:  # combinations whose coefficients sum to 0 do not see the mean
        cost += (1.0 + 2.0 * np.linalg.norm(cost)) / len(F)
    U = np.asarray(scipy.linalg.eigh(cost, subset_by_index=(0, len(Q) - 1))[1].T)
    if centered:
        U = np.linalg.qr((U - U.mean(axis=1, keepdims=True)).T)[0].T
    left, t, right = np.linalg.svd(U @ inside)
    least = LEAST_T * float(scipy.linalg.eigvalsh(F @ F.T, subset_by_index=(len(F) - 1, len(F) - 1))[0]) ** 0.5
    return _Constraint(left.T @ U, right @ Q, t < least, least)
