"""The operations in C++ (csrc/cpu): SIMD element-wise kernels, OpenMP, and SciPy's BLAS and LAPACK."""

from __future__ import annotations

from krrdistill.compiled import load_native

from .compiled import CompiledBackend

__all__ = ["NativeBackend"]


class NativeBackend(CompiledBackend):
    """CPU backend; LU for preimages of square weights, QR of W^T for wide ones, one reduction to a band per path."""

    def __init__(self) -> None:
        module = load_native()
        super().__init__("native", module, module)
