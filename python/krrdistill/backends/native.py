"""The operations in C++ (csrc/cpu): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np

from krrdistill.common.native import load_native

from .base import Chain
from .compiled import CompiledBackend

__all__ = ["NativeBackend"]


class NativeBackend(CompiledBackend):
    """CPU backend; preimages by LU, of wide weights by QR of W^T; paths as ``csrc/cpu/ridge.cpp`` chooses."""

    def __init__(self) -> None:
        module = load_native()
        super().__init__("native", module, module)

    def product_dtype(self, chain: Chain, X: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """float64 for affine functions of bytes: then they are summed as integers (csrc/cpu/byte_gram.cpp)."""
        integers = chain.is_affine_of_bytes(X) and self._module.has_byte_products()
        return np.dtype(np.float64) if integers else dtype
