"""phi with the products of its Jacobian, for inputs that only iterations find."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from krrdistill.backends import HadamardWeight, Linearization, Operator, Weight
from krrdistill.backends.base import Layer

__all__ = ["activation", "linearize"]

FloatArray = npt.NDArray[np.float64]
_Product = Callable[[FloatArray], FloatArray]


def linearize(layers: Sequence[Layer], X: FloatArray) -> Linearization:
    """phi(X), V -> V J^T and U -> U J with J = D_L W_L ... D_1 W_1, D_l the slopes of the activations, in float64.

    X and V : arrays of shape (m, d), U : (m, p); each row has its own J.
    """
    H, steps = np.array(X, dtype=np.float64), []
    for layer in layers:
        T, forward, backward = _linearize_weight(layer.weight, H)
        H, slopes = activation(layer, T)
        steps.append((forward, backward, slopes))

    def push(V: FloatArray) -> FloatArray:
        for forward, _, slopes in steps:
            V = forward(V) * slopes
        return V

    def pull(U: FloatArray) -> FloatArray:
        for _, backward, slopes in reversed(steps):
            U = backward(U * slopes)
        return U

    return Linearization(H, push, pull)


def _linearize_weight(weight: Weight, H: FloatArray) -> tuple[FloatArray, _Product, _Product]:
    if isinstance(weight, Operator):
        return weight.linearize(H)
    if isinstance(weight, HadamardWeight):
        square = weight.scale.astype(np.float64) ** 2  # orthogonal rows: W^T = W^+ diag(square)
        return weight.apply(H), weight.apply, lambda U: weight.solve(U * square)
    W = weight.astype(np.float64)
    return H @ W.T, lambda V: V @ W.T, lambda U: U @ W


def activation(layer: Layer, T: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(act(T + b), its slopes)."""
    if layer.bias is not None:
        T = T + layer.bias
    if layer.activation == "cosine":
        return layer.parameter * np.cos(T), -layer.parameter * np.sin(T)
    if layer.activation == "leaky_relu":
        slopes = np.where(T > 0, 1.0, layer.parameter)
        return T * slopes, slopes
    return T, np.ones_like(T)
