"""A layered map around some inputs: its features, and the products with its Jacobian that Newton's method needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from krrdistill.backends.base import Chain, dense_matrix, matrix_of
from krrdistill.maps.jacobian import activation

__all__ = ["ChainWeights", "Linearization"]

FloatArray = npt.NDArray[np.float64]


class ChainWeights:
    """The weights of a chain in both precisions: float64 for features, float32 for the products of an iteration."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.exact = [np.ascontiguousarray(dense_matrix(matrix_of(layer)), dtype=np.float64) for layer in chain.layers]
        self.scale: FloatArray = np.ones(chain.input_dim) if chain.scale is None else chain.scale
        self.shift: FloatArray = np.zeros(chain.input_dim) if chain.shift is None else chain.shift
        # W_1 diag(scale)^2 W_1^T, (p_1, p_1): what every product with J J^T has in its middle
        first = self.exact[0] * self.scale if self.exact else np.diag(self.scale)
        self.middle: FloatArray = first @ first.T if self.exact else np.square(first)
        self.rounded_middle = self.middle.astype(np.float32)
        self.rounded = [weight.astype(np.float32) for weight in self.exact[1:]]


class Linearization:
    """phi at the rows of X (m, d): features, and J_i = diag(a_L) W_L ... diag(a_1) W_1 diag(scale) for row i.

    a_l (m, p_l) are the slopes of the activations at each row.
    """

    def __init__(self, weights: ChainWeights, X: FloatArray) -> None:
        self._weights = weights
        H = X * weights.scale + weights.shift
        self._slopes: list[FloatArray] = []
        for layer, weight in zip(weights.chain.layers, weights.exact, strict=True):
            H, slope = activation(layer, H @ weight.T)
            self._slopes.append(slope)
        self.features: FloatArray = H
        self._rounded_slopes = [slope.astype(np.float32) for slope in self._slopes]

    def along(self, V: FloatArray) -> FloatArray:
        """Rows J_i v_i: array of shape (m, d) -> (m, p), in float64."""
        H = V * self._weights.scale
        for weight, slope in zip(self._weights.exact, self._slopes, strict=True):
            H = (H @ weight.T) * slope
        return H

    def back(self, V: FloatArray) -> FloatArray:
        """Rows J_i^T v_i: array of shape (m, p) -> (m, d), in float64."""
        for weight, slope in zip(reversed(self._weights.exact), reversed(self._slopes), strict=True):
            V = (V * slope) @ weight
        return V * self._weights.scale

    def there_and_back(self, V: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Rows J_i J_i^T v_i: array of shape (m, p) -> (m, p), in float32."""
        rounded, middle = self._weights.rounded, self._weights.rounded_middle
        if not self._slopes:
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
        B = self._weights.middle.copy()
        for number, slope in enumerate(self._slopes):
            if number > 0:
                weight = self._weights.exact[number]
                B = weight @ B @ weight.T
            B *= slope.T @ slope / len(slope)
        return B
