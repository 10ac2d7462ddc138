"""Feature maps: raw inputs, preprocessing, then layers: h_0 = (x - origin) / unit, h_l = act_l(W_l h_{l-1} + b_l).

phi(x) = h_L. The identity has no layer, Fourier features one with a cosine, an FCNN one per hidden layer with
LeakyReLU; ZCA whitening is a linear layer in front of them. Weights are dense or structured. Subclasses only draw
weights; transform, Jacobian, range and preimage are here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, HadamardWeight, Linearization, Operator, get_backend
from krrdistill.backends.base import Layer, matrix_of, weight_arrays
from krrdistill.common.arrays import as_matrix, check_choice, check_count, check_device, dtype_name, like, read_only
from krrdistill.common.faults import rows_of
from krrdistill.common.placed import AnyMatrix, Placed
from krrdistill.common.products import beside, largest_magnitude, placed_features
from krrdistill.common.samples import as_samples
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError, NotSurjective

from .jacobian import LayerWeights
from .ranges import layer_ranges, obstacle, preimage_in_range

__all__ = ["FeatureMap"]

FloatArray = npt.NDArray[np.float64]
Map = TypeVar("Map", bound="FeatureMap")
_CACHED = 1 << 15  # numbers at a time in formulas of several steps
_BEYOND_RANGE = 1e-9  # relative excess of a feature over the cosine's range that counts as rounding


class FeatureMap:
    """A feature map phi: R^d -> R^p on raw inputs. It consists of a preprocessing and layers.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    input_dim : int
        d, the number of entries of a sample.
    layers : sequence of Layer
        Layers with float32 weights (outputs, inputs). Computations in float32 and float64 use the same weights.
    preprocessing : Preprocessing, optional
        First stage, an affine function of the inputs; by default none.
    parameters : mapping, optional
        JSON-able parameters from which ``map_from_spec`` builds the layers again.

    Attributes
    ----------
    layers : tuple of Layer
        All layers, the whitening included.
    own_layers : tuple of Layer
        The layers without the whitening.
    scale, shift : array of shape (d,), or None without preprocessing
        h_0 = x scale + shift, as the backends compute it.
    """

    kernel: ClassVar[str] = "layers"
    takes_shape: ClassVar[bool] = False  # whether the constructor needs (*shape) of a sample, not only d
    optional_in_spec: ClassVar[tuple[str, ...]] = ()  # parameters of the constructor that a description may lack

    def __init__(
        self,
        input_dim: int,
        layers: tuple[Layer, ...] = (),
        *,
        preprocessing: Preprocessing | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.input_dim = check_count("FeatureMap", "input_dim", input_dim)
        self.own_layers = tuple(map(_constant, layers))
        self.parameters = dict(parameters or {})
        if preprocessing is None:
            preprocessing = Preprocessing.none(self.input_dim)
        elif not isinstance(preprocessing, Preprocessing):
            found = type(preprocessing).__name__
            raise TypeError(f"{type(self).__name__}: preprocessing must be a Preprocessing, got {found}")
        if preprocessing.input_dim != self.input_dim:
            found = f"{preprocessing.input_dim} entries, the map of {self.input_dim}"
            raise DataError(f"{type(self).__name__}: preprocessing is of {found}")
        self.preprocessing = preprocessing
        whitening = preprocessing.whitening
        front = () if whitening is None else (Layer(whitening, None, "linear", 1.0),)
        self.layers = (*front, *self.own_layers)
        none = preprocessing.kind == "none"
        self.scale: FloatArray | None = None if none else preprocessing.scale
        self.shift: FloatArray | None = None if none else preprocessing.shift

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        kind = self.preprocessing.kind
        behind = "" if kind == "none" else f", preprocessing={kind!r}"
        return f"{type(self).__name__}({self.input_dim} -> {self.output_dim}{options}{behind})"

    @property
    def output_dim(self) -> int:
        """p, the number of features."""
        return int(self.layers[-1].weight.shape[0]) if self.layers else self.input_dim

    @cached_property
    def on_standardised(self) -> FeatureMap:
        """The map on standardised inputs u = (x - origin) / unit: whitening and layers only."""
        return FeatureMap(self.input_dim, self.layers)

    def with_preprocessing(self: Map, preprocessing: Preprocessing) -> Map:
        """The same layers with another preprocessing."""
        copy = type(self).__new__(type(self))
        FeatureMap.__init__(
            copy, self.input_dim, self.own_layers, preprocessing=preprocessing, parameters=self.parameters
        )
        return copy

    def transform(self, X: Any, *, dtype: Any = None, backend: Backend | str | None = None) -> Any:
        """Compute features phi(X), shape (n, p), for X of shape (n, d) or ``(n, *shape)``.

        The result is of the kind of X (NumPy, torch ...) and on its device.

        Parameters
        ----------
        X : array
            Raw inputs.
        dtype : "float32" or "float64"
            Type of the computation; by default that of X if it is one of them, otherwise float64.

        Raises
        ------
        DataError
            For NaN, infinity or a wrong width.
        """
        where = f"{type(self).__name__}.transform"
        samples = as_samples(where, X, input_dim=self.input_dim)
        if dtype is None:
            precision = "float32" if dtype_name(getattr(X, "dtype", None)) == "float32" else "float64"
        else:
            precision = check_choice(where, "dtype", dtype_name(dtype), ("float32", "float64"))
        solver = get_backend(backend, data=samples)
        with self.named_rows(where, samples, precision):
            return like(solver.transform(self, samples, dtype=np.dtype(precision)), X)

    def standard_features(self, U: npt.NDArray[Any] | Placed, *, backend: Backend | str | None = None) -> AnyMatrix:
        """phi in float64 of standardised inputs u = (x - origin) / unit, (m, p), where large products with them run.

        That is on a device inside of ``Backend.dense``, where it pays. Raises as ``transform``.
        """
        inner = self.on_standardised
        if isinstance(U, Placed):
            there = placed_features(inner, U)
        else:
            with inner.named_rows("FeatureMap.transform", U, "float64"):
                there = placed_features(inner, U)
        if there is not None:
            return there
        found: FloatArray = inner.transform(np.asarray(U), dtype=np.float64, backend=backend)
        return found

    def named_rows(
        self, where: str, X: Any, precision: str, rows: npt.NDArray[np.int64] | None = None
    ) -> AbstractContextManager[None]:
        """A context in which errors about rows of raw X (n, d) name the function ``where`` and the row."""
        return rows_of(where, X, precision, scale=self.scale, shift=self.shift, rows=rows)

    def feature_limit(self) -> float:
        """The largest absolute value that a feature can have: the scale of a final cosine, otherwise inf."""
        if self.layers and self.layers[-1].activation == "cosine":
            return float(self.layers[-1].parameter)
        return float("inf")

    def feature_bound(self, largest: float) -> float:
        """An upper bound of ``|phi(x)_j|`` for ``|x_i| <= largest``. It is inf for layers that run in Python."""
        if np.isfinite(self.feature_limit()):
            return self.feature_limit()
        unit, origin = np.abs(self.preprocessing.unit), np.abs(self.preprocessing.origin)
        with np.errstate(over="ignore"):
            bound = float(((largest + origin) / unit).max())
            for gain, bias, slope in self._gains:
                bound = (bound * gain + bias) * slope
        return bound

    @cached_property
    def _gains(self) -> list[tuple[float, float, float]]:
        """Per layer the largest row sum of |W|, the largest |b|, and the largest slope of the activation."""
        gains = []
        for layer in self.layers:
            if isinstance(layer.weight, Operator):
                gain = float("inf")
            elif isinstance(layer.weight, HadamardWeight):  # rows of norm |scale|
                gain = float(np.abs(layer.weight.scale).max()) * layer.weight.shape[1] ** 0.5
            else:
                gain = float(np.abs(layer.weight).sum(axis=1, dtype=np.float64).max())
            bias = 0.0 if layer.bias is None else float(np.abs(layer.bias).max())
            gains.append((gain, bias, max(1.0, layer.parameter)))
        return gains

    def check_surjective(self) -> None:
        """Raises NotSurjective unless every feature vector (within ``feature_limit``) has an exact preimage."""
        Q = self.range_basis()
        if Q is not None:
            raise NotSurjective(f"{self.kernel}: the features have dimension {Q.shape[1]} of {self.output_dim} only")

    def check_matrices(self, where: str) -> None:
        """Raises ValueError, in the name of ``where``, for a map with layers that run in Python."""
        if any(isinstance(layer.weight, Operator) for layer in self.layers):
            raise ValueError(f"{where} needs a map whose layers are matrices, got kernel {self.kernel}")

    @property
    def reach(self) -> str:
        """Kind of preimages that this map has: "exact", "approximate" (found by gradients) or "none"."""
        if self._ranges is not None:
            return "exact"
        operators = [layer.weight for layer in self.layers if isinstance(layer.weight, Operator)]
        return "approximate" if all(operator.differentiable for operator in operators) else "none"

    def range_basis(self) -> FloatArray | None:
        """Orthonormal basis Q (p, r) of the linear range of the features; None if the range is all of R^p.

        Deep linear networks with p > d have such a range (Theorem 5.3). Raises NotSurjective if the range is not a
        linear subspace (``reach`` is then not "exact").
        """
        if self._ranges is None:
            raise NotSurjective(f"{self.kernel}: {obstacle(self.layers)}")
        return self._ranges[-1]

    @cached_property
    def _ranges(self) -> list[FloatArray | None] | None:
        return layer_ranges(self.layers)

    def linearize(self, X: FloatArray) -> Linearization:
        """phi(X) for X (m, d), and its Jacobian as functions V -> V J^T and U -> U J, in float64.

        Not for maps whose ``reach`` is "none".
        """
        at, scale = self._weights.at(self.preprocessing.standardise(X)), self.preprocessing.scale
        return Linearization(at.value, lambda V: at.forward(V * scale), lambda U: at.backward(U) * scale)

    def jvp(self, X: FloatArray, V: FloatArray) -> FloatArray:
        """Rows J_i v_i, the derivative of phi at X (m, d) along V (m, d): array of shape (m, p)."""
        return np.asarray(self.linearize(X).forward(V))

    def vjp(self, X: FloatArray, U: FloatArray) -> FloatArray:
        """Rows J_i^T u_i, the gradient of <U, phi> at X (m, d) for U (m, p): array of shape (m, d)."""
        return np.asarray(self.linearize(X).backward(U))

    @cached_property
    def _weights(self) -> LayerWeights:
        return LayerWeights(self.layers)

    def preimage(self, F: Any, *, near: Any = None, backend: Backend | str | None = None) -> Any:
        """Find X with phi(X) = F, the one nearest to ``near``. Float64, of the kind of F.

        Layers are inverted from the last to the first: t = act^-1(f), then x = x_0 + W^+ (t - (W x_0 + b)). Of the
        branches +-arccos(f) + 2 pi j of a cosine the one nearest to W x_0 + b is taken. A ``UserMap`` uses its own
        inverse. Items 5.1 to 5.4 of the paper (invertible, FCNN, CNN, random Fourier) are special cases.

        Parameters
        ----------
        F : array of shape (m, p)
            Features in the range of the map. A part outside a linear range is dropped.
        near : array of shape (m, d), optional
            Raw reference inputs x_0; by default the origin of the preprocessing.

        Raises
        ------
        NotSurjective
            If the range is not a linear subspace, or the weights are rank deficient.
        DataError
            For entries of F outside the range of the map, wrong shapes, NaN or infinity.
        """
        where = f"{type(self).__name__}.preimage"
        check_device(where, F=F, near=near)
        m = next(iter(np.shape(F)), 0)
        H = as_matrix(where, "F", F, (m, self.output_dim))
        reference = None if near is None else as_matrix(where, "near", near, (m, self.input_dim))
        standard = None if reference is None else self.preprocessing.standardise(reference)
        return like(self.preprocessing.raw(self.standard_preimage(H, near=standard, backend=backend)), F)

    def standard_preimage(
        self, H: AnyMatrix, *, near: AnyMatrix | None = None, backend: Backend | str | None = None
    ) -> FloatArray:
        """``preimage`` in standardised inputs u = (x - origin) / unit. A large origin then costs no accuracy.

        Features that are placed become inputs where they are.
        """
        self.range_basis()  # raises
        solver, H = get_backend(backend), beside(near, H)
        bases = [] if self._ranges is None else self._ranges[:-1]
        references = self._layer_inputs(near)
        for layer, reference, basis in zip(reversed(self.layers), reversed(references), reversed(bases), strict=True):
            if isinstance(layer.weight, Operator):
                H = layer.weight.preimage(inverse_activation(layer, np.asarray(H)), np.asarray(reference))
            else:
                at_reference = _apply(solver, layer._replace(activation="linear"), reference)
                T = _from_reference(layer, H, at_reference)
                H = preimage_in_range(solver, matrix_of(layer), T, basis, overwrite=True)
                H = beside(reference, H)
                H += reference
        return np.asarray(H)

    def _layer_inputs(self, near: AnyMatrix | None) -> list[AnyMatrix]:
        """The input of each layer for the references; without references one row, that of the origin."""
        inputs: list[AnyMatrix] = [np.zeros((1, self.input_dim)) if near is None else near]
        oracle = get_backend("array")
        for layer in self.layers[:-1]:
            inputs.append(_apply(oracle, layer, inputs[-1]))
        return inputs[: len(self.layers)]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The weights under the names of the file format: map_weight_0 (or map_signs_0, map_scale_0), map_bias_0 ..."""
        named: dict[str, npt.NDArray[Any]] = {}
        for number, layer in enumerate(self.own_layers):
            named |= {f"map_{name}_{number}": array for name, array in weight_arrays(layer.weight).items()}
            if layer.bias is not None:
                named[f"map_bias_{number}"] = layer.bias
        return named

    def same_as(self, other: FeatureMap) -> bool:
        """Whether both give the same features."""
        return self is other or self.fingerprint() == other.fingerprint()

    def check_spec(self, spec: Mapping[str, Any]) -> None:
        """Raises DataError unless this is the map that ``spec`` describes."""
        if spec.get("fingerprint") != self.fingerprint():
            raise DataError("map: the file is of another feature map or preprocessing")

    def fingerprint(self) -> str:
        """SHA-256 digest of everything that determines the features. Equal maps have equal fingerprints."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        named: dict[str, npt.NDArray[Any]] = {}
        for number, layer in enumerate(self.layers):
            named |= {f"{name}_{number}": array for name, array in weight_arrays(layer.weight).items()}
            named |= {} if layer.bias is None else {f"bias_{number}": layer.bias}
        if self.scale is not None:
            named |= {"origin": self.preprocessing.origin, "unit": self.preprocessing.unit}
        for name, array in named.items():
            stored = np.dtype("<f8") if array.dtype == np.float64 else np.dtype("<f4")
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).astype(stored, copy=False).data)
        forms = [(layer.activation, float(layer.parameter)) for layer in self.layers]
        digest.update(repr((self.input_dim, forms)).encode())
        return digest.hexdigest()

    def spec(self) -> dict[str, Any]:
        """Everything that rebuilds the layers, as JSON-able values, with the fingerprint of the map.

        ``layers`` states the formula of each layer, so that embedded weights can be used without this package.
        """
        layers = [{"activation": layer.activation, "parameter": layer.parameter} for layer in self.own_layers]
        return {
            "kernel": self.kernel,
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "layers": layers,
            "fingerprint": self.fingerprint(),
            **self.parameters,
        }


def _constant(layer: Layer) -> Layer:
    """The layer with a bias that nobody writes to, as nobody writes to its weight."""
    return layer if layer.bias is None else layer._replace(bias=read_only(layer.bias))


def _apply(backend: Backend, layer: Layer, H: AnyMatrix) -> AnyMatrix:
    """Applies one layer, in float64."""
    if isinstance(H, Placed):
        return FeatureMap(H.shape[1], (layer,)).standard_features(H, backend=backend)
    if layer.activation == "linear" and not isinstance(layer.weight, Operator) and not H.any():  # no product for zero
        bias = np.zeros(layer.weight.shape[0]) if layer.bias is None else np.asarray(layer.bias, dtype=np.float64)
        return np.tile(bias, (len(H), 1))
    return np.asarray(backend.transform(FeatureMap(H.shape[1], (layer,)), H, dtype=np.dtype(np.float64)))


def inverse_activation(layer: Layer, H: FloatArray, near: FloatArray | float = 0.0) -> FloatArray:
    """T with act(T) = H, for arccos the branch nearest to ``near``; in blocks of rows that fit the cache."""
    if layer.activation == "linear":
        return H
    _check_in_range(layer, H)
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


def _check_in_range(layer: Layer, H: AnyMatrix) -> None:
    """Raises DataError for features beyond the range of a cosine."""
    largest = largest_magnitude(H) / layer.parameter if H.size and layer.activation == "cosine" else 0.0
    if largest > 1.0 + _BEYOND_RANGE:
        raise DataError(f"preimage: a feature is {largest:.3g} times the range of the cosine; scale the features")


def _from_reference(layer: Layer, H: AnyMatrix, at_reference: AnyMatrix) -> AnyMatrix:
    """T - W x_0 - b with act(T) = H, where H is."""
    if isinstance(H, Placed):
        _check_in_range(layer, H)
        return H.engine.undo_activation(layer, H, at_reference)
    near = np.asarray(at_reference)
    T = inverse_activation(layer, H, near)
    return np.asarray(np.subtract(T, near, out=None if T is H else T))  # H may be the caller's


def _nearest_angle(cosine: FloatArray, near: FloatArray) -> FloatArray:
    """The angle among +-arccos + 2 pi j that is nearest to ``near``."""
    theta = np.arccos(cosine)
    period = 2.0 * np.pi
    up = theta + period * np.round((near - theta) / period)
    down = -theta + period * np.round((near + theta) / period)
    return np.where(np.abs(up - near) <= np.abs(down - near), up, down)
