"""The exact set nearest to as many points as the model has rows: every point by itself (docs/explanation/nearest.md).

With m = k the rows of F must lie in the row space of W one by one: f = a Q with k unknowns a. For one nonlinear layer,
f = act(t) with t = x A^T + b, everything happens in t: the squared distance of inputs is (t - t_0) G^-1 (t - t_0)^T
with G = A A^T, and a step dt = (a Q - f) / act'(t) meets the linearised condition for every a. The best a is a least
squares problem in k numbers, solved for all points at once by products with G^-1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from krrdistill.backends.base import Layer, dense_matrix, matrix_of
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap
from krrdistill.maps.base import inverse_activation
from krrdistill.maps.jacobian import activation

from .iterations import EXACT, LEAST_T, PROGRESS, Clock, conjugate_gradients, inverse_of, shortened

__all__ = ["OneLayer", "nearest_square"]

FloatArray = npt.NDArray[np.float64]
# Square Gaussian weights have directions in which the inputs move 10^3 times as far as elsewhere. Steps that leave them
# alone at first end 7 dB (MNIST) and 18 dB (CIFAR-100) nearer for random Fourier features: G + damping I in place of G,
# relative to its mean eigenvalue, each for a few steps. Dampings a hundred times apart end up to 18 dB farther away.
_DAMPINGS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 0.0)
_DAMPED_STEPS = 3
_MAX_STEPS = 40
_PULL_STEPS = 20  # after which a row that was pulled stays where it was
_LEAST_DAMPING = 1e-13
_STEEPNESS = 0.1  # slopes under this times the relative residual count as no larger
_SOLVE_TOLERANCE = 1e-2
_MAX_SOLVE = 60
_MAX_PULLS = 3


@dataclass(frozen=True, eq=False)
class OneLayer:
    """A map act(x A^T + b) of raw inputs about the origin."""

    A: FloatArray
    bias: FloatArray
    last: Layer

    @staticmethod
    def of(feature_map: FeatureMap) -> OneLayer | None:
        """Linear layers and then one that is not, taken together; None for other maps."""
        if not feature_map.layers or feature_map.layers[-1].activation == "linear":
            return None
        if any(layer.activation != "linear" for layer in feature_map.layers[:-1]):
            return None
        A, bias = np.diag(feature_map.preprocessing.scale), np.zeros(feature_map.input_dim)
        for layer in feature_map.layers:
            weight = np.asarray(dense_matrix(matrix_of(layer)), dtype=np.float64)
            A, bias = weight @ A, weight @ bias + (0.0 if layer.bias is None else layer.bias)
        return OneLayer(A, bias, feature_map.layers[-1])


class _Metric:
    """(G + damping I)^-1 for a damping relative to the mean eigenvalue of G."""

    def __init__(self, G: FloatArray, damping: float) -> None:
        level = float(np.trace(G)) / len(G)
        shifted = G.copy()
        shifted[np.diag_indices_from(shifted)] += max(damping, _LEAST_DAMPING) * level
        inverse = inverse_of(shifted)
        if inverse is None:
            raise DataError(
                "nearest_inputs: no exact set was found near the given points: the weights have no full rank"
            )
        self.inverse = inverse
        self.rounded = self.inverse.astype(np.float32)
        self.damping, self.shift = damping, damping * level


class _Square:
    """Newton's method on act(T) P = 0 for the rows of T."""

    def __init__(self, last: Layer, Q: FloatArray, target: FloatArray, clock: Clock) -> None:
        self.last, self.Q, self.target, self.clock = last, Q, target, clock
        self.steps = 0

    def violation(self, F: FloatArray) -> FloatArray:
        """||f P|| of each row, (m, 1)."""
        return np.asarray(np.linalg.norm(F - (F @ self.Q.T) @ self.Q, axis=1, keepdims=True))

    def relative(self, T: FloatArray) -> FloatArray:
        """The violation relative to ||f||, (m, 1)."""
        F, _ = activation(self.last, T)
        size = np.linalg.norm(F, axis=1, keepdims=True)
        return np.asarray(self.violation(F) / np.maximum(size, np.finfo(np.float64).tiny))

    def change(self, T: FloatArray, target: FloatArray | None, metric: _Metric) -> FloatArray:
        """The step to first order exact and nearest to ``target``, by default the least one."""
        F, slopes = activation(self.last, T)
        mean = float(np.mean(np.square(slopes)))
        floor = mean * np.maximum(metric.damping, _STEEPNESS * np.square(self.relative(T)) + 1e-14)
        inverse = slopes / (np.square(slopes) + floor)
        coefficients = F @ self.Q.T
        offset = inverse * (coefficients @ self.Q - F) + (0.0 if target is None else T - target)
        coefficients += self._coefficients(inverse, offset, metric)
        change = inverse * (coefficients @ self.Q - F)
        return change if metric.shift == 0.0 else change - metric.shift * (change @ metric.inverse)

    def _coefficients(self, inverse: FloatArray, offset: FloatArray, metric: _Metric) -> FloatArray:
        """a (m, k) with the smallest ||inverse * (a Q) + offset|| in the metric, row by row."""
        Q, factors = self.Q.astype(np.float32), inverse.astype(np.float32)
        size = np.maximum(np.abs(offset).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        gradient = (factors * ((offset / size).astype(np.float32) @ metric.rounded)) @ Q.T
        mean = (Q @ (metric.rounded * (factors.T @ factors / np.float32(len(factors))))) @ Q.T
        eigenvalues, vectors = np.linalg.eigh(mean.astype(np.float64))
        eigenvalues = np.maximum(eigenvalues, np.finfo(np.float32).eps * eigenvalues[-1])
        preconditioner = ((vectors / eigenvalues) @ vectors.T).astype(np.float32)
        found = conjugate_gradients(
            lambda a: np.asarray((factors * ((factors * (a @ Q)) @ metric.rounded)) @ Q.T),
            lambda a: np.asarray(a @ preconditioner),
            -gradient.astype(np.float64),
            _SOLVE_TOLERANCE,
            max_steps=_MAX_SOLVE,
            separate=True,
            clock=self.clock,
        )
        return np.asarray(found * size)

    def restore(self, T: FloatArray, metric: _Metric, max_steps: int, tell: Callable[[float], None]) -> FloatArray:
        """Least steps for the rows that are not exact, each halved while it does not help."""
        T = T.copy()
        for _ in range(max_steps):
            relative = self.relative(T)[:, 0]
            tell(float(relative.max()))
            rows = np.flatnonzero(relative > EXACT)
            if not rows.size or self.clock.over():
                break
            self.steps += 1
            T[rows] = self._shortened(T[rows], self.change(T[rows], None, metric))
        return T

    def closed(self, T: FloatArray) -> FloatArray:
        """The preimage of the nearest features in the rows of Q, wherever its inputs are, for the rows not exact."""
        T = T.copy()
        rows = np.flatnonzero(self.relative(T)[:, 0] > EXACT)
        if rows.size:
            F = activation(self.last, T[rows])[0] @ self.Q.T @ self.Q
            T[rows] = inverse_activation(self.last, _within(F, self.last), T[rows])
        return T

    def _shortened(self, T: FloatArray, change: FloatArray) -> FloatArray:
        def ahead(length: FloatArray) -> tuple[FloatArray, FloatArray]:
            moved = T + length * change
            return moved, self.violation(activation(self.last, moved)[0])

        return shortened(ahead, self.violation(activation(self.last, T)[0]))[0]

    def distances(self, T: FloatArray, metric: _Metric) -> FloatArray:
        """Squared distances of the inputs of T to the given ones, (m,)."""
        offset = T - self.target
        return np.asarray(np.einsum("ij,ij->i", offset @ metric.inverse, offset))


def nearest_square(
    feature_map: FeatureMap,
    one: OneLayer,
    Q: FloatArray,
    X: FloatArray,
    clock: Clock,
    tell: Callable[[float], None],
) -> tuple[FloatArray, int]:
    """Standardised inputs near X (k, d), raw and about the origin, with features in the rows of Q (k, p); and steps."""
    G = one.A @ one.A.T
    target = X @ one.A.T + one.bias
    search = _Square(one.last, Q, target, clock)
    T, metric = target, _Metric(G, _DAMPINGS[0])
    for damping in _DAMPINGS:
        if damping != metric.damping:
            metric = _Metric(G, damping)
        T = search.restore(T, metric, _DAMPED_STEPS if damping else _MAX_STEPS, tell)
    arrived = bool(search.relative(T).max() <= EXACT)  # elsewhere pulls bring nothing
    T = _pulled(search, T, metric) if arrived else search.closed(T)
    near = (X + ((T - target) @ metric.inverse) @ one.A) / feature_map.preprocessing.unit
    F = _within(_independent(activation(one.last, T)[0], Q), one.last)
    for _ in range(2):  # the second has the digits that an ill-conditioned weight lost in the first
        near = feature_map.standard_preimage(F, near=near)
    return near, search.steps


def _pulled(search: _Square, T: FloatArray, metric: _Metric) -> FloatArray:
    """Steps towards the given points, each made exact again, for the rows that they bring nearer; else shorter ones."""
    distances, length = search.distances(T, metric), np.ones((len(T), 1))
    for _ in range(_MAX_PULLS):
        if search.clock.over():
            break
        pulled = T + length * search.change(T, search.target, metric)
        pulled = search.restore(pulled, metric, _PULL_STEPS, lambda relative: None)
        found = search.distances(pulled, metric)
        nearer = (found < distances) & (search.relative(pulled)[:, 0] <= EXACT)
        T = np.where(nearer[:, None], pulled, T)
        length = np.where(nearer[:, None], 1.0, 0.5 * length)
        before, distances = distances, np.where(nearer, found, distances)
        if distances.sum() > (1.0 - PROGRESS) * before.sum():
            break
    return T


def _independent(F: FloatArray, Q: FloatArray) -> FloatArray:
    """F with coefficients of full rank: singular values under ``LEAST_T`` of the largest are raised to it."""
    left, s, right = np.linalg.svd(F @ Q.T)
    if s[-1] >= LEAST_T * s[0]:
        return F
    return np.asarray(((left * np.maximum(s, LEAST_T * s[0])) @ right) @ Q)


def _within(F: FloatArray, last: Layer) -> FloatArray:
    """Rows of F scaled into the range of the activation where they leave it."""
    if last.activation != "cosine":
        return F
    largest = np.maximum(np.abs(F).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(F * np.minimum(1.0, last.parameter / largest))
