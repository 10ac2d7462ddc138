"""Feature maps as chains of layers: h_0 = x, h_l = act_l(W_l h_{l-1} + b_l), phi(x) = h_L.

identity has no layer, Fourier features one with a cosine, an FCNN one per hidden layer with LeakyReLU; weights are
dense or structured. What a map adds to this file is how its weights are drawn; transform, range and preimage are the
same for all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, Linearization, Operator, get_backend
from krrdistill.backends.base import Chain, Layer, matrix_of, weight_arrays
from krrdistill.common.arrays import as_matrix, as_samples, check_choice, check_device, dtype_name, like
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError, NotSurjective

from .jacobian import linearize
from .ranges import layer_ranges, obstacle, preimage_in_range

__all__ = ["LayeredMap"]

FloatArray = npt.NDArray[np.float64]
_CACHED = 1 << 15  # numbers at a time in formulas of several steps
_BEYOND_RANGE = 1e-9  # relative excess of a feature over the cosine's range that counts as rounding


@dataclass(frozen=True, eq=False)
class LayeredMap:
    """A feature map phi: R^d -> R^p given by its layers.

    Parameters
    ----------
    input_dim : int
        d, the number of columns of the inputs.
    layers : tuple of Layer
        float32 weights (outputs, inputs), so that float32 and float64 pipelines use the very same map.
    parameters : dict
        What rebuilds the map (JSON-able); ``from_spec`` takes it back.
    """

    kernel: ClassVar[str] = ""

    input_dim: int
    layers: tuple[Layer, ...]
    parameters: dict[str, Any]

    @property
    def output_dim(self) -> int:
        """p, the number of features."""
        return self.layers[-1].weight.shape[0] if self.layers else self.input_dim

    def chain(self, preprocessing: Preprocessing | None = None) -> Chain:
        """The map as the backends take it, behind ``preprocessing`` of the raw inputs where there is one.

        ZCA, (z - mean) @ matrix with a symmetric matrix, is a leading linear layer.
        """
        if preprocessing is None or preprocessing.kind == "none":
            return Chain(self.input_dim, self.layers)
        layers = self.layers
        if preprocessing.mean is not None and preprocessing.matrix is not None:
            bias = -(preprocessing.mean @ preprocessing.matrix)
            layers = (Layer(preprocessing.matrix, bias, "linear", 1.0), *layers)
        return Chain(self.input_dim, layers, preprocessing.scale, preprocessing.shift)

    def transform(self, X: Any, *, dtype: Any = None, backend: Backend | str | None = None) -> Any:
        """phi(X): array of shape (n, d) -> (n, p), of the kind and on the device of X.

        ``dtype`` is "float32" or "float64", by default that of X, and float64 where X has neither. Raises DataError for
        NaN, infinity or a wrong width.
        """
        where = f"{type(self).__name__}.transform"
        samples = as_samples(where, X, input_dim=self.input_dim)
        if dtype is None:
            precision = "float32" if dtype_name(getattr(X, "dtype", None)) == "float32" else "float64"
        else:
            precision = check_choice(where, "dtype", dtype_name(dtype), ("float32", "float64"))
        solver = get_backend(backend, data=samples)
        return like(solver.transform(self.chain(), samples, dtype=np.dtype(precision)), X)

    def feature_limit(self) -> float:
        """The largest |entry| that features of this map can have: inf, or the scale of a final cosine."""
        if self.layers and self.layers[-1].activation == "cosine":
            return self.layers[-1].parameter
        return float("inf")

    def check_surjective(self) -> None:
        """Raises NotSurjective unless every feature vector (within ``feature_limit``) has an exact preimage."""
        Q = self.range_projection()
        if Q is not None:
            raise NotSurjective(f"{self.kernel}: the features have dimension {Q.shape[1]} of {self.output_dim} only")

    @property
    def reach(self) -> str:
        """How features get inputs: "exact", "approximate" (gradients lead near them) or "none"."""
        if self._ranges is not None:
            return "exact"
        operators = [layer.weight for layer in self.layers if isinstance(layer.weight, Operator)]
        return "approximate" if all(operator.differentiable for operator in operators) else "none"

    def range_projection(self) -> FloatArray | None:
        """Q (p, r), orthonormal: features are exactly what Q Q^T leaves alone; None where they are all of R^p.

        Deep linear networks with p > d have such a range (Theorem 5.3). Raises NotSurjective where the range is no
        linear subspace.
        """
        if self._ranges is None:
            raise NotSurjective(f"{self.kernel}: {obstacle(self.layers)}")
        return self._ranges[-1]

    @cached_property
    def _ranges(self) -> list[FloatArray | None] | None:
        return layer_ranges(self.layers)

    def linearize(self, X: FloatArray) -> Linearization:
        """phi at X (m, d) with the products of its Jacobian. Where ``reach`` is not "none"."""
        return linearize(self.layers, X)

    def preimage(self, F: Any, *, near: Any = None, backend: Backend | str | None = None) -> Any:
        """X with phi(X) = F, the one nearest to ``near`` (Theorems 5.2 to 5.4): float64, of the kind of F.

        Per layer, from the last: t = act^-1(f), then x = x_0 + W^+ (t - (W x_0 + b)); of the arccos branches
        +-arccos(f) + 2 pi j the one nearest to W x_0 + b is taken. Layers that run in Python invert themselves.

        Parameters
        ----------
        F : array of shape (m, p)
            Features inside of the map's range; what is outside of a linear range is lost.
        near : array of shape (m, d), optional
            Reference inputs x_0, by default the origin.

        Raises
        ------
        NotSurjective
            If the range is no linear subspace, or weights are rank deficient.
        DataError
            If an entry of F lies outside of the map's range; for wrong shapes, NaN or infinity.
        """
        self.range_projection()
        solver = get_backend(backend)
        where = f"{type(self).__name__}.preimage"
        check_device(where, F=F, near=near)
        m = next(iter(np.shape(F)), 0)
        H = as_matrix(where, "F", F, (m, self.output_dim))
        references = self._layer_inputs(None if near is None else as_matrix(where, "near", near, (m, self.input_dim)))
        bases = [] if self._ranges is None else self._ranges[:-1]
        for layer, reference, basis in zip(reversed(self.layers), reversed(references), reversed(bases), strict=True):
            if isinstance(layer.weight, Operator):
                H = layer.weight.preimage(_inverse(layer, H), reference)
            else:
                at_reference = _apply(solver, layer._replace(activation="linear"), reference)
                T = _inverse(layer, H, at_reference)
                H = reference + preimage_in_range(solver, matrix_of(layer), T - at_reference, basis)
        return like(H, F)

    def _layer_inputs(self, near: FloatArray | None) -> list[FloatArray]:
        """What each layer gets for the references; one row, the origin's, serves all where none are given."""
        inputs = [np.zeros((1, self.input_dim)) if near is None else near]
        oracle = get_backend("array")
        for layer in self.layers[:-1]:
            inputs.append(_apply(oracle, layer, inputs[-1]))
        return inputs[: len(self.layers)]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The weights under the names of the file format: map_weight_0 (or map_signs_0, map_scale_0), map_bias_0 ..."""
        named: dict[str, npt.NDArray[Any]] = {}
        for number, layer in enumerate(self.layers):
            named |= {f"map_{name}_{number}": array for name, array in weight_arrays(layer.weight).items()}
            if layer.bias is not None:
                named[f"map_bias_{number}"] = layer.bias
        return named

    def fingerprint(self) -> str:
        """SHA-256 over the weights, to check that a map rebuilt from its seed is the same map."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, array in self.arrays().items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def spec(self) -> dict[str, Any]:
        """Everything that rebuilds the map, as JSON-able values, with the fingerprint of its weights.

        ``layers`` states the formula of each layer, so that embedded weights can be used without this package.
        """
        layers = [{"activation": layer.activation, "parameter": layer.parameter} for layer in self.layers]
        return {
            "kernel": self.kernel,
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "layers": layers,
            "fingerprint": self.fingerprint(),
            **self.parameters,
        }


def _apply(backend: Backend, layer: Layer, H: FloatArray) -> FloatArray:
    """One layer alone, in float64."""
    return np.asarray(backend.transform(Chain(H.shape[1], (layer,)), H, dtype=np.dtype(np.float64)))


def _inverse(layer: Layer, H: FloatArray, near: FloatArray | float = 0.0) -> FloatArray:
    """T with act(T) = H, of the branches of arccos the one nearest to ``near``; some rows at a time, for the cache."""
    if layer.activation == "linear":
        return H
    largest = max(H.max(), -H.min()) / layer.parameter if H.size else 0.0
    if layer.activation == "cosine" and largest > 1.0 + _BEYOND_RANGE:
        raise DataError(f"preimage: a feature is {largest:.3g} times the range of the cosine; scale the features")
    near = np.broadcast_to(near, H.shape)
    T = np.empty_like(H)
    step = max(1, _CACHED // H.shape[1])
    for start in range(0, len(H), step):
        rows = slice(start, start + step)
        if layer.activation == "leaky_relu":
            T[rows] = np.where(H[rows] > 0, H[rows], H[rows] / layer.parameter)
        else:
            T[rows] = _nearest_angle(np.clip(H[rows] / layer.parameter, -1.0, 1.0), near[rows])
    return T


def _nearest_angle(cosine: FloatArray, near: FloatArray) -> FloatArray:
    """Of the angles +-arccos + 2 pi j the one nearest to ``near``."""
    theta = np.arccos(cosine)
    period = 2.0 * np.pi
    up = theta + period * np.round((near - theta) / period)
    down = -theta + period * np.round((near + theta) / period)
    return np.where(np.abs(up - near) <= np.abs(down - near), up, down)
