"""Large products of float64 matrices, by the BLAS that LAPACK and the compiled core use: SciPy's.

NumPy brings a BLAS of its own with threads of its own. Idle threads of either spin for some 25 ms after a product, and
take a core from the other: products that alternate between the two run at half of their speed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

__all__ = ["gram", "product"]

FloatArray = npt.NDArray[np.float64]
_BLOCK = 256  # columns that are mirrored at a time


def product(A: FloatArray, B: FloatArray) -> FloatArray:
    """A B for A (m, n) and B (n, r), C-contiguous."""
    left, transpose_left = _column_major(B.T)
    right, transpose_right = _column_major(A.T)
    return np.asarray(blas.dgemm(1.0, left, right, trans_a=transpose_left, trans_b=transpose_right).T)


def gram(A: FloatArray) -> FloatArray:
    """A A^T for A (m, n): half the work of the product, then the mirror."""
    matrix, transpose = _column_major(A)
    result = np.asarray(blas.dsyrk(1.0, matrix, trans=transpose).T)  # upper in column-major order: here the lower one
    for start in range(0, len(result), _BLOCK):
        stop = start + _BLOCK
        diagonal = result[start:stop, start:stop]
        diagonal += np.tril(diagonal, -1).T
        result[start:stop, stop:] = result[stop:, start:stop].T
    return result


def _column_major(A: FloatArray) -> tuple[FloatArray, bool]:
    """(M, t): M in column-major order with A = M^T if t, else M; copies only what is neither."""
    if A.flags.c_contiguous and not A.flags.f_contiguous:
        return A.T, True
    return A, False
