"""The operations in C++ (csrc/): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.compiled import load_native
from krrdistill.errors import NotSurjective

from .base import Chain, FloatArray, IntArray, PathSolution, Weight
from .hadamard import HadamardWeight
from .tiles import rcond_floor, tile_rows

if TYPE_CHECKING:
    from krrdistill import _native
else:
    _native = load_native()

__all__ = ["NativeBackend"]

AnyArray = npt.NDArray[Any]
_ACTIVATIONS = {"linear": 0, "leaky_relu": 1, "cosine": 2}


class NativeBackend:
    """CPU backend; sizes and types are checked by the callers, memory safety again by the compiled module."""

    name = "native"

    def transform(self, chain: Chain, X: AnyArray, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> AnyArray:
        """phi(X), see ``Backend.transform``."""
        out = np.empty((len(X) if rows is None else len(rows), chain.output_dim), dtype)
        _native.transform(_handle(chain, dtype), X, rows, out, tile_rows(chain, dtype))
        return out

    def accumulate(
        self,
        chain: Chain,
        X: AnyArray,
        Y: AnyArray,
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> None:
        """Adds to G and C, see ``Backend.accumulate``."""
        _native.accumulate(_handle(chain, dtype), X, rows, Y, gram, cross, tile_rows(chain, dtype))

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        _native.symmetrize(gram)

    def ridge_path(self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float) -> PathSolution:
        """One reduction to a band for all lambdas, see ``Backend.ridge_path``."""
        weights = np.empty((len(lambdas), *cross.shape))
        positive_definite, resolved = np.empty((2, len(lambdas)), dtype=bool)
        largest = _native.ridge_path(gram.copy(), cross, lambdas, rounding, weights, positive_definite, resolved)
        return PathSolution(weights, positive_definite, resolved, largest)

    def score_path(
        self,
        chain: Chain,
        X: AnyArray,
        labels: IntArray,
        weights: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        correct = np.empty(len(weights), dtype=np.int64)
        models = np.ascontiguousarray(weights, dtype=dtype)
        _native.score_path(_handle(chain, dtype), X, rows, labels, models, correct, tile_rows(chain, dtype))
        return correct

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """See ``Backend.solve_spd``."""
        n, r = B.shape[-2:]
        factors = np.array(A, dtype=np.float64, order="C").reshape(-1, n, n)
        columns = np.array(np.swapaxes(B, -1, -2), dtype=np.float64, order="C").reshape(-1, r, n)
        _native.solve_spd(factors, columns)
        return np.swapaxes(columns.reshape(*B.shape[:-2], r, n), -1, -2)

    def preimage_solve(self, weight: Weight, rhs: FloatArray) -> FloatArray:
        """Transposed rounds for structured weights, LU for square, QR of W^T for wide ones, see ``Backend``."""
        X = np.empty((len(rhs), weight.shape[1]))
        if isinstance(weight, HadamardWeight):
            _native.hadamard_solve(*_structured(weight, np.dtype(np.float64)), np.ascontiguousarray(rhs), X)
            return X
        floor = rcond_floor(weight.shape)
        dense = np.array(weight, dtype=np.float64, order="C")
        rcond = _native.preimage_solve(dense, np.array(rhs, order="C"), X, floor)
        if not rcond >= floor:
            raise NotSurjective(f"preimage: the weights {weight.shape} are rank deficient to working precision")
        return X


def _handle(chain: Chain, dtype: np.dtype[Any]) -> Any:
    kind = _native.FeatureMapF32 if dtype == np.float32 else _native.FeatureMapF64

    def cast(array: AnyArray | None) -> AnyArray | None:
        return None if array is None else np.ascontiguousarray(array, dtype=dtype)

    layers = []
    for layer in chain.layers:
        weight = layer.weight
        form = _structured(weight, dtype) if isinstance(weight, HadamardWeight) else cast(weight)
        layers.append((form, cast(layer.bias), _ACTIVATIONS[layer.activation], layer.parameter))
    return kind(chain.input_dim, cast(chain.scale), cast(chain.shift), layers)


def _structured(weight: HadamardWeight, dtype: np.dtype[Any]) -> tuple[AnyArray, AnyArray]:
    """(diagonals, scale) as the compiled module takes them."""
    return weight.diagonals.astype(dtype), weight.scale.astype(dtype)
