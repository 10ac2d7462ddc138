"""The operations in C++ (csrc/cpu): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from krrdistill.compiled import load_native

from .compiled import CompiledBackend

__all__ = ["NativeBackend"]


class NativeBackend(CompiledBackend):
    """CPU backend; preimages by LU, of wide weights by QR of W^T; paths as ``csrc/cpu/ridge.cpp`` chooses."""

    def __init__(self) -> None:
        module = load_native()
        super().__init__("native", module, module)
