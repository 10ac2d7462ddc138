"""Large products of float64 matrices, by the BLAS that LAPACK and the compiled core use: SciPy's, or by a device.

NumPy brings a BLAS of its own with threads of its own. Idle threads of either spin for some 25 ms after a product, and
take a core from the other: products that alternate between the two run at half of their speed.

Matrices are the host's, or ``Placed`` ones, which stay on the device where their products are formed. Whoever calls
these functions need not know which. Feature maps and the device's backend alone tell them apart as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.linalg import blas, lapack

from .placed import AnyMatrix, Cosines, Engine, Placed
from .threads import blas_for

__all__ = [
    "Engine",
    "add_product",
    "add_scaled",
    "all_finite",
    "beside",
    "cholesky",
    "eigenvectors",
    "gram",
    "gram_operations",
    "largest_magnitude",
    "placed",
    "placed_cosines",
    "placed_features",
    "product",
    "products_on",
    "scaled_columns",
    "solve_factored",
    "solve_vector",
    "symmetric_product",
]

FloatArray = npt.NDArray[np.float64]
_BLOCK = 256  # columns that are mirrored at a time
_ESTIMATES = 5  # of the norm of an inverse, as LAPACK

_ENGINE: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def products_on(engine: Engine | None) -> Iterator[None]:
    """Inside of the block large products of this thread run there."""
    before = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(before)


def _engine(operations: float, numbers: int, *operands: AnyMatrix) -> Engine | None:
    """Where an operation runs: with an operand that is placed, or where it pays."""
    for operand in operands:
        if isinstance(operand, Placed):
            return operand.engine
    engine = _ENGINE.get()
    return engine if engine is not None and engine.pays(operations, numbers) else None


def _engine_with_room(operations: float, numbers: int, kept: int) -> Engine | None:
    """The engine, if it has room for a matrix of ``kept`` numbers and so many operations pay for moving ``numbers``."""
    engine = _engine(operations, numbers)
    return engine if engine is not None and engine.holds(kept) else None


def gram_operations(m: int, p: int) -> float:
    """Least number of operations with features (m, p): those of their smaller Gram matrix, of which half is formed."""
    return 1.0 * m * p * min(m, p)


def placed(A: AnyMatrix, operations: float) -> AnyMatrix:
    """A where so many operations with it will run: itself, or a copy on a device."""
    if isinstance(A, Placed):
        return A
    engine = _engine_with_room(operations, A.size, A.size)
    return A if engine is None else engine.place(A)


def beside(A: AnyMatrix | None, B: AnyMatrix) -> AnyMatrix:
    """B where A is."""
    return A.engine.place(B) if isinstance(A, Placed) and not isinstance(B, Placed) else B


def placed_features(feature_map: Any, X: npt.NDArray[Any] | Placed) -> Placed | None:
    """phi(X) (m, p) in float64 where products with it run; None for the host, which has its own ways to it."""
    (m, _), p = X.shape, feature_map.output_dim
    engine = X.engine if isinstance(X, Placed) else _engine_with_room(gram_operations(m, p), X.size, m * p)
    return None if engine is None else engine.features(feature_map, X)


@overload
def product(A: FloatArray, B: FloatArray) -> FloatArray: ...
@overload
def product(A: AnyMatrix, B: AnyMatrix) -> AnyMatrix: ...


def product(A: AnyMatrix, B: AnyMatrix) -> AnyMatrix:
    """A B for A (m, n) and B (n, r), C-contiguous."""
    (m, n), r = A.shape, B.shape[1]
    operations = 2.0 * m * n * r
    engine = _engine(operations, m * n + n * r + m * r, A, B)
    if engine is not None:
        return engine.product(A, B)
    return _dgemm(1.0, np.asarray(A), np.asarray(B))


def add_product(C: AnyMatrix, A: AnyMatrix, B: AnyMatrix, alpha: float) -> None:
    """C += alpha A B, in place; C is C-contiguous."""
    if isinstance(C, Placed):
        C.engine.combine_into(1.0, C, alpha, C.engine.product(A, B))
        return
    summed = _dgemm(alpha, np.asarray(A), np.asarray(B), beta=1.0, c=C.T, overwrite_c=True)
    assert np.shares_memory(summed, C)


def add_scaled(C: AnyMatrix, A: AnyMatrix, alpha: float) -> None:
    """C += alpha A, in place; both are C-contiguous."""
    if isinstance(C, Placed):
        C.engine.combine_into(1.0, C, alpha, A)
    else:
        blas.daxpy(np.asarray(A).ravel(), C.ravel(), a=alpha)


def scaled_columns(A: AnyMatrix, factors: FloatArray) -> AnyMatrix:
    """A diag(factors)."""
    return A.engine.scaled_columns(A, factors) if isinstance(A, Placed) else A * factors


def largest_magnitude(A: AnyMatrix) -> float:
    """max |A_ij|."""
    return A.engine.largest_magnitude(A) if isinstance(A, Placed) else max(float(A.max()), -float(A.min()))


def all_finite(A: AnyMatrix) -> bool:
    """Whether no number of A is NaN or infinite."""
    return bool(np.isfinite(largest_magnitude(A) if isinstance(A, Placed) else A).all())


def placed_cosines(shape: tuple[int, int], drawn: Cosines, *, operations: float, numbers: int) -> Placed | None:
    """A matrix that is zero but for its last rows and columns, which are E of ``drawn``.

    It is made where so many operations with it run, for which so many ``numbers`` go there; None for the host.
    """
    engine = _engine_with_room(operations, drawn.table.size + numbers, shape[0] * shape[1])
    return None if engine is None else engine.cosines(shape, drawn)


@overload
def gram(A: FloatArray) -> FloatArray: ...
@overload
def gram(A: AnyMatrix) -> AnyMatrix: ...


def gram(A: AnyMatrix) -> AnyMatrix:
    """A A^T for A (m, n): half the work of the product, then the mirror."""
    m, n = A.shape
    operations = 1.0 * m * m * n
    engine = _engine(operations, m * n + m * m, A)
    if engine is not None:
        return engine.gram(A)
    matrix, transpose = _column_major(np.asarray(A))
    with blas_for(operations):
        result = np.asarray(blas.dsyrk(1.0, matrix, trans=transpose).T)  # upper in column-major order, lower here
    for start in range(0, len(result), _BLOCK):
        stop = start + _BLOCK
        diagonal = result[start:stop, start:stop]
        diagonal += np.tril(diagonal, -1).T
        result[start:stop, stop:] = result[stop:, start:stop].T
    return result


def symmetric_product(A: AnyMatrix, x: FloatArray) -> FloatArray:
    """A x for a symmetric A (n, n) and a vector, on the host."""
    return x @ A if isinstance(A, Placed) else np.asarray(blas.dsymv(1.0, A.T, x))


def cholesky(A: AnyMatrix, shift: float) -> tuple[AnyMatrix | None, float]:
    """(L, estimate of the 1-norm condition number) of A + shift I; (None, inf) if that is not positive definite.

    L is in the lower triangle of a column-major matrix, whose upper one is anything.
    """
    if isinstance(A, Placed):
        made, norm = A.engine.cholesky(A, shift)
        if made is None:
            return None, float("inf")
        inverse = _inverse_norm(len(A), lambda x: solve_vector(made, x))
        return made, norm * inverse if np.isfinite(inverse) else float("inf")
    with blas_for(len(A) ** 3 / 3):
        shifted = np.array(A.T, order="F")  # symmetric, so this copy needs no transposition
        shifted[np.diag_indices_from(shifted)] += shift
        norm = float(lapack.dlange("1", shifted))
        lower, info = lapack.dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            return None, float("inf")
        rcond, _ = lapack.dpocon(lower, norm, uplo="L")
        return lower, float("inf") if rcond == 0.0 else 1.0 / float(rcond)


@overload
def eigenvectors(A: FloatArray) -> tuple[FloatArray, FloatArray]: ...
@overload
def eigenvectors(A: AnyMatrix) -> tuple[FloatArray, AnyMatrix]: ...


def eigenvectors(A: AnyMatrix) -> tuple[FloatArray, AnyMatrix]:
    """(eigenvalues of a symmetric A (n, n), ascending, eigenvectors in columns)."""
    if isinstance(A, Placed):
        return A.engine.eigenvectors(A)
    values, vectors = linalg.eigh(A)
    return values, vectors


def _inverse_norm(n: int, solve: Callable[[FloatArray], FloatArray]) -> float:
    """||A^-1||_1 from below, of a symmetric A by x -> A^-1 x: as LAPACK estimates it.

    Source: N. Higham, Algorithm 674, ACM Transactions on Mathematical Software 14 (1988).
    """
    x = solve(np.full(n, 1.0 / n))
    estimate = float(np.abs(x).sum())
    signs = np.where(x >= 0.0, 1.0, -1.0)
    gradient = np.abs(solve(signs))
    for _ in range(_ESTIMATES - 1):
        largest = int(np.argmax(gradient))
        x = solve(np.eye(1, n, largest)[0])
        before, estimate = estimate, float(np.abs(x).sum())
        turned = np.where(x >= 0.0, 1.0, -1.0)
        if not estimate > before or np.array_equal(turned, signs):
            estimate = max(estimate, before)
            break
        signs = turned
        gradient = np.abs(solve(signs))
        if gradient[largest] == gradient.max():
            break
    alternating = np.where(np.arange(n) % 2 == 0, 1.0, -1.0) * (1.0 + np.arange(n) / max(n - 1, 1))
    return max(estimate, 2.0 * float(np.abs(solve(alternating)).sum()) / (3.0 * n))


@overload
def solve_factored(lower: FloatArray, B: FloatArray) -> FloatArray: ...
@overload
def solve_factored(lower: AnyMatrix, B: AnyMatrix) -> AnyMatrix: ...


def solve_factored(lower: AnyMatrix, B: AnyMatrix) -> AnyMatrix:
    """(L L^T)^-1 B for B (n, r), L in the lower triangle of a column-major matrix (n, n)."""
    n = len(B)
    operations = 2.0 * n * B.size
    engine = _engine(operations, n * n + 2 * B.size, lower, B)
    if engine is not None:
        return engine.solve_factored(lower, B)
    with blas_for(operations):
        solution, _ = lapack.dpotrs(lower, B, lower=1)
    return np.asarray(solution)


def solve_vector(lower: AnyMatrix, x: FloatArray) -> FloatArray:
    """(L L^T)^-1 x for a vector, on the host."""
    if isinstance(lower, Placed):
        return np.asarray(lower.engine.solve_factored(lower, x[:, None])).ravel()
    with blas_for(2.0 * x.size**2):
        solution, _ = lapack.dpotrs(lower, x, lower=1)
    return np.asarray(solution)


def _dgemm(alpha: float, A: FloatArray, B: FloatArray, **onto: Any) -> FloatArray:
    """alpha A B, C-contiguous; ``onto`` are the arguments of BLAS for what it is added to."""
    left, transpose_left = _column_major(B.T)
    right, transpose_right = _column_major(A.T)
    with blas_for(2.0 * len(A) * B.size):
        found = blas.dgemm(alpha, left, right, trans_a=transpose_left, trans_b=transpose_right, **onto)
    return np.asarray(found.T)


def _column_major(A: FloatArray) -> tuple[FloatArray, bool]:
    """(M, t): M in column-major order with A = M^T if t, else M; copies only what is neither."""
    if A.flags.c_contiguous and not A.flags.f_contiguous:
        return A.T, True
    return A, False
