"""The operations in C++ (csrc/cpu): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.native import load_native
from krrdistill.common.threads import blas_for, threads_for

from .band import BandModels, banded_path
from .base import FloatArray, HostMatrices, IntArray, MapStages, PathSolution, Products, nonfinite_path
from .compiled import CompiledBackend
from .models import Models, ModelStack

__all__ = ["NativeBackend"]

_NARROW = 1024  # features up to which every thread sums rows of its own
_HELD_MODELS = 1 << 23  # numbers of a path's models that are held ...
_HELD_SHARE = 1.0  # ... or this share of those of G
_LEAST_LAMBDAS = 4  # that are worth a reduction to a band


class NativeBackend(HostMatrices, CompiledBackend):
    """CPU backend; preimages by LU, of wide weights by QR of W^T; paths as ``csrc/cpu/ridge.cpp`` chooses."""

    reads_half = True

    def __init__(self) -> None:
        module = load_native()
        super().__init__("native", module, module)

    def _threads(self, operations: float, *, blas: float | None = None) -> AbstractContextManager[None]:
        return threads_for(operations, blas=blas)

    def accumulate(
        self,
        feature_map: MapStages,
        X: npt.NDArray[Any],
        Y: npt.NDArray[Any],
        gram: Any,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``; for affine functions of bytes by exact sums of integers."""
        if not feature_map.layers and X.dtype == np.uint8 and self._module.has_byte_products():
            dtype = np.dtype(np.float64)  # csrc/cpu/byte_statistics.cpp, and faster than float32
        elif dtype == np.float32 and feature_map.output_dim <= _NARROW:
            with blas_for(0.0):  # csrc/cpu/row_statistics.cpp: every thread has rows of its own
                return super().accumulate(feature_map, X, Y, gram, cross, dtype=dtype, rows=rows)
        return super().accumulate(feature_map, X, Y, gram, cross, dtype=dtype, rows=rows)

    def ridge_path(
        self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float, overwrite: bool = False
    ) -> PathSolution:
        """See ``Backend.ridge_path``; models that take more memory than G are made when they are asked for."""
        few = len(lambdas) < _LEAST_LAMBDAS
        if few or len(lambdas) * cross.size <= max(_HELD_SHARE * gram.size, _HELD_MODELS):
            return super().ridge_path(gram, cross, lambdas, rounding=rounding, overwrite=overwrite)
        nonfinite = nonfinite_path(gram, cross, lambdas)
        if nonfinite is not None:
            return nonfinite
        return banded_path(self._module, gram if overwrite else gram.copy(), cross, lambdas, rounding=rounding)

    def score_path(
        self,
        feature_map: MapStages,
        X: npt.NDArray[Any],
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        if not (isinstance(weights, ModelStack) and isinstance(weights.handle, BandModels)):
            return super().score_path(feature_map, X, labels, weights, dtype=dtype, rows=rows)
        correct = np.zeros(len(weights), dtype=np.int64)
        chosen = np.arange(len(X)) if rows is None else rows
        p = weights.shape[2]
        step = max(1, max(p * p // 4, _HELD_MODELS) // p)  # every step solves for all models
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            features = self.transform(feature_map, X, dtype=dtype, rows=part)
            weights.handle.add_correct(features, labels[part], correct)
        return correct
