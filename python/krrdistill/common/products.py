"""Large products of float64 matrices, by the BLAS that LAPACK and the compiled core use: SciPy's, or by a device.

NumPy brings a BLAS of its own with threads of its own. Idle threads of either spin for some 25 ms after a product, and
take a core from the other: products that alternate between the two run at half of their speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from .threads import blas_for

__all__ = ["Engine", "gram", "product", "products_on", "solve_factored"]

FloatArray = npt.NDArray[np.float64]
_BLOCK = 256  # columns that are mirrored at a time


class Engine(Protocol):
    """What forms large products in the place of the host's BLAS."""

    def pays(self, operations: float, numbers: int) -> bool:
        """Whether so many operations are worth the way of so many numbers there and back."""
        ...

    def product(self, A: FloatArray, B: FloatArray) -> FloatArray: ...

    def gram(self, A: FloatArray) -> FloatArray: ...

    def solve_factored(self, lower: FloatArray, B: FloatArray) -> FloatArray: ...


_ENGINE: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def products_on(engine: Engine | None) -> Iterator[None]:
    """Inside of the block large products of this thread run there."""
    before = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(before)


def _engine(operations: float, numbers: int) -> Engine | None:
    engine = _ENGINE.get()
    return engine if engine is not None and engine.pays(operations, numbers) else None


def product(A: FloatArray, B: FloatArray) -> FloatArray:
    """A B for A (m, n) and B (n, r), C-contiguous."""
    (m, n), r = A.shape, B.shape[1]
    operations = 2.0 * m * n * r
    engine = _engine(operations, m * n + n * r + m * r)
    if engine is not None:
        return engine.product(A, B)
    left, transpose_left = _column_major(B.T)
    right, transpose_right = _column_major(A.T)
    with blas_for(operations):
        return np.asarray(blas.dgemm(1.0, left, right, trans_a=transpose_left, trans_b=transpose_right).T)


def gram(A: FloatArray) -> FloatArray:
    """A A^T for A (m, n): half the work of the product, then the mirror."""
    m, n = A.shape
    operations = 1.0 * m * m * n
    engine = _engine(operations, m * n + m * m)
    if engine is not None:
        return engine.gram(A)
    matrix, transpose = _column_major(A)
    with blas_for(operations):
        result = np.asarray(blas.dsyrk(1.0, matrix, trans=transpose).T)  # upper in column-major order, lower here
    for start in range(0, len(result), _BLOCK):
        stop = start + _BLOCK
        diagonal = result[start:stop, start:stop]
        diagonal += np.tril(diagonal, -1).T
        result[start:stop, stop:] = result[stop:, start:stop].T
    return result


def solve_factored(lower: FloatArray, B: FloatArray) -> FloatArray:
    """(L L^T)^-1 B for B (n,) or (n, r), L in the lower triangle of a column-major matrix (n, n)."""
    n = len(B)
    operations = 2.0 * n * B.size
    engine = _engine(operations, n * n + 2 * B.size) if B.ndim == 2 else None
    if engine is not None:
        return engine.solve_factored(lower, B)
    with blas_for(operations):
        solution, _ = lapack.dpotrs(lower, B, lower=1)
    return np.asarray(solution)


def _column_major(A: FloatArray) -> tuple[FloatArray, bool]:
    """(M, t): M in column-major order with A = M^T if t, else M; copies only what is neither."""
    if A.flags.c_contiguous and not A.flags.f_contiguous:
        return A.T, True
    return A, False
