"""What a backend is: operations on matrices. The pipeline is written once, over them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import device_of, namespace_of, to_host
from krrdistill.common.products import product

from .hadamard import HadamardWeight
from .models import Models
from .operators import Operator

__all__ = [
    "Activation",
    "Backend",
    "HostMatrices",
    "Layer",
    "MapStages",
    "Matrix",
    "PackedGram",
    "Precision",
    "Products",
    "ResidentGram",
    "Weight",
    "dense_matrix",
    "matrix_of",
    "path_operations",
    "path_sums",
    "products_in",
    "scores_on_host",
    "weight_arrays",
]

_SCORED_ROWS = 2048  # rows whose features are held at once in float64
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Activation = Literal["linear", "leaky_relu", "cosine"]
Precision = Literal["float32", "float64"]
# ||dG||_2 / ||G||_2 of float32 features and products, measured on MNIST and CIFAR-100 (docs/explanation/numerics.md).
FLOAT32_ROUNDING = 10 * 2.0**-24
Matrix: TypeAlias = npt.NDArray[Any] | HadamardWeight  # dense or structured, of shape (outputs, inputs)
Weight: TypeAlias = Matrix | Operator  # or applied in Python


class Layer(NamedTuple):
    """act(W x + b): LeakyReLU with slope ``parameter``, or ``parameter`` times the cosine."""

    weight: Weight
    bias: npt.NDArray[Any] | None  # (outputs,)
    activation: Activation
    parameter: float


class Products(NamedTuple):
    """How features and their products in G were formed."""

    precision: Precision
    rounding: float  # of G, relative to its largest eigenvalue, on top of that of float64
    arithmetic: str = ""  # of products: "float64", "float32", "integers", "halves", "slices" (of int8) or "tf32",
    bound: float = 0.0  # and what they add to the rounding of the features

    def worse(self, other: Products) -> Products:
        """The larger rounding and the coarser precision of the two: that of sums of both."""
        coarse = self if self.rounding >= other.rounding else other
        return coarse._replace(precision="float32") if "float32" in (self.precision, other.precision) else coarse


def products_in(dtype: np.dtype[Any]) -> Products:
    """Features and products in a float type."""
    if dtype == np.float32:
        return Products("float32", FLOAT32_ROUNDING, "float32", FLOAT32_ROUNDING)
    return Products("float64", 0.0, "float64")


def matrix_of(layer: Layer) -> Matrix:
    """The weight of a layer that is a matrix. Raises TypeError for one that runs in Python."""
    if isinstance(layer.weight, Operator):
        raise TypeError(f"a layer of {type(layer.weight).__name__} has no matrix")
    return layer.weight


def dense_matrix(weight: Matrix) -> npt.NDArray[Any]:
    """A weight as a plain matrix (outputs, inputs): structured ones are formed, in float64."""
    return weight.dense() if isinstance(weight, HadamardWeight) else weight


def weight_arrays(weight: Weight) -> dict[str, npt.NDArray[Any]]:
    """What a weight is made of, by the names of the file format."""
    if isinstance(weight, Operator):
        return weight.arrays()
    if isinstance(weight, HadamardWeight):
        return {"signs": weight.signs, "scale": weight.scale}
    return {"weight": weight}


class MapStages(Protocol):
    """What a backend has to know of a feature map: x * scale + shift, then the layers."""

    @property
    def input_dim(self) -> int:
        """d."""
        ...

    @property
    def output_dim(self) -> int:
        """p."""
        ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """act_l(W_l h + b_l) in order; none for an affine map."""
        ...

    @property
    def scale(self) -> FloatArray | None:
        """Shape (d,); None, like ``shift``, for inputs that are taken as they are."""
        ...

    @property
    def shift(self) -> FloatArray | None:
        """Shape (d,)."""
        ...


class PackedGram(Protocol):
    """Some numbers and behind them the lower triangle of a G, row after row: one float64 array that a group adds up."""

    def shared(self) -> Any:
        """The array, (1, numbers), where it is: an object with ``__dlpack__``."""
        ...

    def write(self, numbers: FloatArray) -> None:
        """Sets the numbers before the triangle."""
        ...

    def read(self) -> FloatArray:
        """The numbers before the triangle."""
        ...

    def unpacked(self) -> ResidentGram:
        """G of the triangle. Nobody may be writing into the array any more."""
        ...


class ResidentGram(Protocol):
    """G (p, p) in memory of a device, where a backend adds to it and solves; ``np.asarray`` gives a symmetric copy."""

    @property
    def device(self) -> int:
        """Number of the CUDA device."""
        ...

    def packed(self, room: int) -> PackedGram:
        """A packed copy behind ``room`` numbers, on the device."""
        ...

    def __len__(self) -> int: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray: ...

    def add(self, other: FloatArray | ResidentGram, sign: int = 1) -> None:
        """+= sign times G of other samples."""
        ...

    def trace(self) -> float: ...

    def copy(self) -> ResidentGram: ...

    def clear(self) -> None:
        """G of no samples."""
        ...


class PathSolution(NamedTuple):
    """The ridge models of L lambdas and what their factorisations told."""

    weights: Models  # (L, k, p), NaN where G + lambda I is not positive definite
    positive_definite: npt.NDArray[np.bool_]  # (L,)
    resolved: npt.NDArray[np.bool_]  # (L,): G + (lambda - rounding s) I is positive definite too
    largest_eigenvalue: float  # s, of G, to a relative 1e-3
    squares: FloatArray  # ||W||^2, (L,)
    products: FloatArray  # <W, C>, (L,)


class HostMatrices:
    """For backends whose matrices are in host memory."""

    def scores(
        self, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> FloatArray:
        """Features of 2048 rows at a time, and their product, see ``Backend.scores``."""
        return scores_on_host(self, feature_map, X, weights, dtype=dtype, rows=rows)

    def dense(self) -> AbstractContextManager[None]:
        """Nothing: they run on the host."""
        return nullcontext()

    def zero_gram(self, p: int) -> FloatArray:
        """Zeros (p, p)."""
        return np.zeros((p, p))

    def own_gram(self, gram: Any) -> FloatArray:
        """Itself, or a copy of one that is on a device."""
        return np.asarray(gram)


def scores_on_host(
    backend: Any, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None
) -> FloatArray:
    """``Backend.scores`` by the backend's features."""
    chosen = np.arange(X.shape[0]) if rows is None else rows
    out = np.empty((len(chosen), len(weights)))
    buffer = np.empty((min(_SCORED_ROWS, len(chosen)), weights.shape[1]))
    for start in range(0, len(chosen), _SCORED_ROWS):
        part = chosen[start : start + _SCORED_ROWS]
        features = buffer[: len(part)]
        found = backend.transform(feature_map, X, dtype=dtype, rows=part)
        features[:] = to_host("scores", "features", found)
        out[start : start + len(part)] = product(features, weights.T)
    return out


def nonfinite_path(gram: Any, cross: Any, lambdas: Any) -> PathSolution | None:
    """What ``ridge_path`` answers to a Gram matrix with NaN or infinity; None for one that is finite."""
    xp, device, shape = namespace_of(gram), device_of(gram), (lambdas.shape[0], *cross.shape)
    if xp.all(xp.isfinite(gram)):
        return None
    no = xp.zeros(shape[0], dtype=xp.bool, device=device)
    weights = xp.full(shape, xp.nan, dtype=gram.dtype, device=device)
    return PathSolution(weights, no, xp.asarray(no, copy=True), float("nan"), *path_sums(weights, cross))


def path_operations(k: int, p: int, count: int) -> float:
    """Of a path that matter to its threads: more lambdas than two are more calls of BLAS, not larger ones."""
    return min(count, 2) * p * p * (p / 3.0 + 2.0 * k)


def path_sums(weights: Any, cross: Any) -> tuple[Any, Any]:
    """(||W||^2, <W, C>), each (L,), of models (L, k, p) in an array."""
    xp, flat = namespace_of(weights), (weights.shape[0], weights.shape[1] * weights.shape[2])
    rows = xp.reshape(weights, flat)
    return xp.vecdot(rows, rows), xp.vecdot(rows, xp.reshape(cross, (1, flat[1])))


@runtime_checkable
class Backend(Protocol):
    """X is (n, d) uint8, float32 or float64; ``rows`` picks a subset of its rows without a copy.

    Backends with ``reads_half`` take float16 in host memory too, and all that work on a device float16 and bfloat16
    there. These count as the float32 numbers that they are.

    X is a NumPy array, or for a backend that works on a device an array there; all others are NumPy arrays. Inputs in
    float64 are standardised before they become ``dtype``, so that a large offset costs no digits. G is a NumPy array,
    or what ``zero_gram`` made.

    Threads may share a backend; on a GPU their operations wait for each other.
    """

    name: str

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X) of shape (n, p) in ``dtype``, an array of the kind of X. Raises DataError for NaN or infinity."""
        ...

    def accumulate(
        self,
        feature_map: MapStages,
        X: Any,
        Y: npt.NDArray[Any],
        gram: Any,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """gram += phi^T phi (the lower triangle only), cross += Y^T phi, tile by tile; any number of rows.

        Y: labels (n,) int64 or targets (n, k) float64, one per row of X (before ``rows``). Sums over tiles are float64.
        Returns how features and products inside of a tile were formed: in ``dtype``, or better where the backend has a
        way that is as fast. The precision depends on the map and the type of X alone, not on the rows.
        """
        ...

    def zero_gram(self, p: int) -> FloatArray | ResidentGram:
        """G of no samples, where this backend sums it."""
        ...

    def own_gram(self, gram: Any) -> FloatArray | ResidentGram:
        """The same G where this backend sums it: itself, or a copy."""
        ...

    def symmetrize(self, gram: FloatArray) -> None:
        """Copies the lower triangle of ``gram`` over the upper one."""
        ...

    def ridge_path(
        self,
        gram: Any,
        cross: FloatArray,
        lambdas: FloatArray,
        *,
        rounding: float,
        overwrite: bool = False,
    ) -> PathSolution:
        """W = C (G + lambda I)^-1 for every lambda; ``rounding`` is that of G, relative to its largest eigenvalue.

        ``overwrite`` : G is not needed any more, and no copy of it has to be made. Models may stay on a device, as a
        ``ModelStack``.

        With NaN or infinity in G no lambda is positive definite or resolved, and all of W and s are NaN.
        """
        ...

    def degrees_of_freedom(self, gram: Any, lambdas: FloatArray) -> FloatArray:
        """tr(G (G + lambda I)^-1) = p - lambda tr((G + lambda I)^-1) for every lambda, of a symmetric G (p, p).

        NaN where G + lambda I is not positive definite, and everywhere if G holds NaN or infinity.
        """
        ...

    def score_path(
        self,
        feature_map: MapStages,
        X: Any,
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """How many rows each model of ``weights`` (L, k, p) classifies correctly, shape (L,).

        Models of a ``ModelStack`` that do not exist count as zero.
        """
        ...

    def scores(
        self, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> FloatArray:
        """phi(X) W^T (n, r) for weights W (r, p): features in ``dtype``, products in float64."""
        ...

    def dense(self) -> AbstractContextManager[None]:
        """A block in which large products of float64 matrices of this thread run where this backend runs."""
        ...

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """A^-1 B by Cholesky; A (..., n, n) symmetric positive definite, B (..., n, r). Raises NotPositiveDefinite."""
        ...

    def preimage_solve(self, weight: Matrix, rhs: Any, *, overwrite: bool = False) -> Any:
        """The least-norm X (m, d) with X W^T = rhs, W (p, d), rhs (m, p); it may be ``rhs`` where that may be lost.

        On a device X is where rhs is: an array, or ``Placed``.

        Raises NotSurjective.
        """
        ...
