"""The operations in C++ (csrc/cpu): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.native import load_native
from krrdistill.common.threads import threads_for

from .base import FloatArray, HostMatrices, IntArray, MapStages, Products
from .compiled import CompiledBackend

__all__ = ["NativeBackend"]


class NativeBackend(HostMatrices, CompiledBackend):
    """CPU backend; preimages by LU, of wide weights by QR of W^T; paths as ``csrc/cpu/ridge.cpp`` chooses."""

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
        return super().accumulate(feature_map, X, Y, gram, cross, dtype=dtype, rows=rows)
