"""phi around some inputs: its features, and products with its Jacobian in either direction.

J = diag(a_L) W_L ... diag(a_1) W_1 diag(scale) for each row of inputs, a_l the slopes of the activations there.
Newton's method for inputs, KIP's gradient and the nearest exact set all take their products from here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Linearization, Operator
from krrdistill.backends.base import Layer, dense_matrix, matrix_of
from krrdistill.common.arrays import device_of, namespace_of

__all__ = ["Jacobian", "LayerWeights", "activation"]

Array = npt.NDArray[Any]


class LayerWeights:
    """The layers of a map with their weights as matrices of one precision, but for layers that run in Python.

    Parameters
    ----------
    layers : sequence of Layer
    dtype : float32 or float64
        Precision of features and products.
    scale : array of shape (d,), optional
        Factors of the inputs before the first layer.
    """

    def __init__(self, layers: Sequence[Layer], dtype: Any = np.float64, *, scale: Array | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.layers = tuple(layers)
        self.scale = None if scale is None else scale.astype(self.dtype, copy=False)
        self.matrices = [self._cast(layer.weight) for layer in self.layers]
        self.biases = [None if layer.bias is None else layer.bias.astype(self.dtype, copy=False) for layer in layers]

    def _cast(self, weight: Any) -> Any:
        if isinstance(weight, Operator):
            return weight
        return np.ascontiguousarray(dense_matrix(weight), dtype=self.dtype)

    def moved(self, put: Callable[[Array], Any]) -> LayerWeights:
        """The same layers, which must be matrices, for inputs of another framework: ``put`` makes its arrays."""
        moved = copy.copy(self)
        moved.scale = None if self.scale is None else put(self.scale)
        moved.matrices = [put(matrix) for matrix in self.matrices]
        moved.biases = [None if bias is None else put(bias) for bias in self.biases]
        return moved

    def at(self, X: Array) -> Jacobian:
        """phi and its Jacobian at X (m, d)."""
        return Jacobian(self, X)

    def gram(self) -> list[Array]:
        """What products with J J^T need of the weights: W_1 diag(scale)^2 W_1^T, then the other weights.

        Raises TypeError where a layer runs in Python.
        """
        others = [dense_matrix(matrix_of(layer)).astype(self.dtype, copy=False) for layer in self.layers[1:]]
        scale = np.ones(1, self.dtype) if self.scale is None else self.scale
        if not self.layers:
            return [np.diag(np.square(scale))]
        first = dense_matrix(matrix_of(self.layers[0])).astype(self.dtype, copy=False) * scale
        return [first @ first.T, *others]


class Jacobian:
    """phi at the rows of X (m, d): ``value`` (m, p), and row by row V -> V J^T and U -> U J.

    X is of NumPy, or of the framework and on the device that the weights were ``moved`` to.

    Attributes
    ----------
    value : array of shape (m, p)
    slopes : of the activations, one array (m, p_l) for each layer
    preactivation : array of shape (m, p), what the last activation is of; the scaled inputs without layers
    """

    def __init__(self, weights: LayerWeights, X: Array) -> None:
        self._scale = weights.scale
        self._steps: list[tuple[Any, Array]] = []
        self.slopes: list[Array] = []
        xp = namespace_of(X)
        H = xp.asarray(X, dtype=getattr(xp, weights.dtype.name))
        H = self.preactivation = H if self._scale is None else H * self._scale
        for layer, matrix, bias in zip(weights.layers, weights.matrices, weights.biases, strict=True):
            at = matrix.linearize(H.astype(np.float64, copy=False)) if isinstance(matrix, Operator) else matrix
            T = at.value.astype(weights.dtype, copy=False) if isinstance(at, Linearization) else H @ at.T
            self.preactivation = T if bias is None else T + bias
            H, slope = activation(layer, self.preactivation)
            self._steps.append((at, slope))
            self.slopes.append(slope)
        self.value: Array = xp.asarray(H, copy=True) if H is X else H

    def forward(self, V: Array) -> Array:
        """Rows J_i v_i: (m, d) -> (m, p)."""
        V = V if self._scale is None else V * self._scale
        for matrix, slope in self._steps:
            V = (matrix.forward(V) if isinstance(matrix, Linearization) else V @ matrix.T) * slope
        return V

    def backward(self, U: Array) -> Array:
        """Rows J_i^T u_i: (m, p) -> (m, d)."""
        for matrix, slope in reversed(self._steps):
            U = U * slope
            U = matrix.backward(U) if isinstance(matrix, Linearization) else U @ matrix
        return U if self._scale is None else U * self._scale


def activation(layer: Layer, T: Array) -> tuple[Array, Array]:
    """(act(T), its slopes) in the precision of T, the bias already added."""
    xp = namespace_of(T)
    if layer.activation == "cosine":
        return layer.parameter * xp.cos(T), -layer.parameter * xp.sin(T)
    if layer.activation == "leaky_relu":
        above, below = (xp.full((), of, dtype=T.dtype, device=device_of(T)) for of in (1.0, layer.parameter))
        slopes = xp.where(T > 0, above, below)
        return T * slopes, slopes
    return T, xp.ones_like(T)
