"""A few features F (m, p): pseudo-inverse, retraining, spectrum and condition number from one Gram matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.common.arrays import check_device, check_number, like, to_host
from krrdistill.common.placed import AnyMatrix
from krrdistill.common.products import (
    all_finite,
    beside,
    cholesky,
    eigenvectors,
    gram,
    gram_operations,
    placed,
    product,
    scaled_columns,
    solve_factored,
    solve_vector,
    symmetric_product,
)
from krrdistill.common.threads import blas_for
from krrdistill.errors import DataError

__all__ = [
    "FeatureGram",
    "condition_number",
    "contrasts",
    "feature_rank",
    "fit_features",
    "largest_eigenvalue",
    "pseudo_inverse",
]

FloatArray = npt.NDArray[np.float64]
# Cholesky of a Gram matrix loses cond^2; beyond this condition number the singular value decomposition takes over.
_MAX_GRAM_CONDITION = 1e10
_RANK_CUTOFF = 1e-10  # relative to the largest singular value
_MIN_SQUARE_RATIO = 1e-10  # s_min^2 / s_max^2 below which the SVD replaces the Gram matrix
_EXACT_CONDITION = 1200  # up to this min(m, p) the condition number comes from all singular values
_GRAM_VALUES_CONDITION = 1e5  # of F; up to it the eigenvalues of the Gram matrix give s_min to a relative 1e-6
_BASIS = 12  # Lanczos vectors; the usual 20 take 20 products where 13 give 1e-6
_LANCZOS_CONDITION = 1e7  # of F; beyond it the rounding of the Gram matrix hides s_min


class FeatureGram:
    """F F^T or F^T F, the smaller of the two, of features F (m, p). What is factored is factored once.

    Where large products run on a device F goes there, unless it is there, and everything is made of it there. Results
    of the size of F stay; singular value decompositions are the host's.
    """

    def __init__(self, F: AnyMatrix) -> None:
        m, p = F.shape
        self.F = placed(F, gram_operations(m, p))
        self.wide = m <= p
        self.gram = gram(self.F if self.wide else self.F.T)
        self._factors: dict[float, tuple[AnyMatrix | None, float]] = {}
        self._values: FloatArray | None = None

    def inverse(self, lambda_s: float) -> AnyMatrix:
        """(F F^T + lambda_s I)^-1 F, shape (m, p); for lambda_s = 0 the transposed pseudo-inverse (F^+)^T.

        Where Cholesky is too ill-conditioned, by the SVD, with singular values below 1e-10 of the largest counted as 0.
        """
        lower = self._lower(lambda_s)
        if lower is None:
            U, s, Vt = _svd(self.F)
            return product(U * (s / (s * s + lambda_s)), Vt)
        found: AnyMatrix = solve_factored(lower, self.F) if self.wide else solve_factored(lower, self.F.T).T
        return found

    def fit(self, Y: FloatArray, lambda_s: float) -> FloatArray:
        """W = Y^T (F F^T + lambda_s I)^-1 F, shape (k, p), with one step of iterative refinement."""
        F = self.F
        if not (all_finite(F) and all_finite(Y)):
            raise DataError("fit_features: F or Y holds NaN or infinity")
        lower = self._lower(lambda_s)
        if lower is None:
            U, s, Vt = _svd(F)
            return np.asarray(((Y.T @ U) * (s / (s * s + lambda_s))) @ Vt)
        if self.wide:  # W^T = F^T a with (F F^T + lambda I) a = Y
            dual = solve_factored(lower, Y)
            dual = dual + solve_factored(lower, Y - product(F, product(F.T, dual)) - lambda_s * dual)
            return np.asarray(product(dual.T, F))
        W = solve_factored(lower, product(F.T, Y))
        W = W + solve_factored(lower, product(F.T, Y - product(F, W)) - lambda_s * W)
        return np.ascontiguousarray(np.asarray(W.T))

    @cached_property
    def spectrum(self) -> tuple[FloatArray, AnyMatrix]:
        """(squares of the singular values of F, their vectors on the smaller side), in no order."""
        square, basis = eigenvectors(self.gram)
        if square[0] < _MIN_SQUARE_RATIO * square[-1]:
            U, s, Vt = _svd(self.F)
            square, basis = s * s, U if self.wide else Vt.T
        return square, basis

    @property
    def largest_square(self) -> float:
        """The square of the largest singular value of F."""
        return float(self.spectrum[0].max())

    def rescaled(self, ratio: Callable[[FloatArray], FloatArray]) -> AnyMatrix:
        """The matrix with singular values s ratio(s^2) and the singular vectors of F."""
        square, basis = self.spectrum
        factors = ratio(square)
        if self.wide:
            return product(scaled_columns(basis, factors), product(basis.T, self.F))
        return product(scaled_columns(product(self.F, basis), factors), basis.T)

    def condition_number(self) -> float:
        """s_1 / s_min(m, p) of F; inf when F is rank deficient.

        Up to 1200 rows or columns from all eigenvalues of the Gram matrix (relative accuracy 1e-6; SVD beyond 1e5),
        above from its extreme ones, by Lanczos iterations with it and with its factor (1e-3; SVD beyond 1e7).
        """
        if len(self.gram) <= _EXACT_CONDITION:
            with blas_for(2.0 * len(self.gram) ** 3):
                square = scipy.linalg.eigvalsh(np.asarray(self.gram))[::-1]
            if square[-1] * _GRAM_VALUES_CONDITION**2 > square[0]:
                self._values = np.sqrt(square)
                return float(self._values[0] / self._values[-1])
        else:
            lower, _ = self._factor(0.0)
            if lower is not None:
                largest = largest_eigenvalue(len(self.gram), lambda x: symmetric_product(self.gram, x))
                inverse_largest = largest_eigenvalue(len(self.gram), lambda x: solve_vector(lower, x))
                condition = float(np.sqrt(largest * inverse_largest))
                if condition < _LANCZOS_CONDITION:
                    return condition
        self._values = scipy.linalg.svdvals(np.asarray(self.F))
        return float(self._values[0] / self._values[-1]) if self._values[-1] > 0.0 else float("inf")

    def singular_values(self) -> FloatArray | None:
        """All min(m, p) of F, descending, where ``condition_number`` computed them; None elsewhere."""
        return self._values

    def _lower(self, shift: float) -> AnyMatrix | None:
        """The Cholesky factor of gram + shift I, None where it is too ill-conditioned to be used."""
        lower, condition = self._factor(shift)
        return lower if condition <= _MAX_GRAM_CONDITION else None

    def _factor(self, shift: float) -> tuple[AnyMatrix | None, float]:
        """``cholesky`` of gram + shift I."""
        if shift not in self._factors:
            self._factors[shift] = cholesky(self.gram, shift)
        return self._factors[shift]


def pseudo_inverse(D: AnyMatrix) -> AnyMatrix:
    """(D^+)^T for D (m, p), again (m, p)."""
    return FeatureGram(D).inverse(0.0)


def fit_features(F: Any, Y: Any, lambda_s: float = 0.0) -> Any:
    """Train ridge regression on m feature vectors: W_S = Y^T (F F^T + lambda_s I)^-1 F.

    For lambda_s = 0 it is W_S = Y^T (F^+)^T. Solved by Cholesky of the smaller Gram matrix with one step of iterative
    refinement, or by the SVD if the Gram matrix is too ill-conditioned.

    Parameters
    ----------
    F : array of shape (m, p)
    Y : array of shape (m, k)
    lambda_s : float
        Ridge parameter, >= 0 and absolute.

    Returns
    -------
    array of shape (k, p)
        W_S, float64, of the kind of F.

    Raises
    ------
    DataError
        For shapes that do not fit, NaN or infinity.
    """
    check_number("fit_features", "lambda_s", lambda_s)
    check_device("fit_features", F=F, Y=Y)
    features = np.asarray(to_host("fit_features", "F", F), dtype=np.float64)
    labels = np.asarray(to_host("fit_features", "Y", Y), dtype=np.float64)
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels) or features.size == 0:
        found = f"{features.shape} and {labels.shape}"
        raise DataError(f"fit_features: F must have shape (m, p) and Y (m, k), got {found}")
    return like(FeatureGram(features).fit(labels, lambda_s), F)


@overload
def contrasts(A: FloatArray) -> FloatArray: ...
@overload
def contrasts(A: AnyMatrix) -> AnyMatrix: ...


def contrasts(A: AnyMatrix) -> AnyMatrix:
    """The m - 1 rows of an orthonormal basis of what has mean 0, times A (m, q): ridge of A with an unpenalised
    intercept is ridge of them without.

    Rows 2 ... m of the Householder reflection that takes the vector of ones to the first axis.
    """
    m = len(A)
    mirror = np.full(m, 1.0 / np.sqrt(m))
    mirror[0] += 1.0  # the sign that does not cancel
    along = (mirror @ A) / mirror[0]
    return (A - product(beside(A, mirror[:, None]), along[None]))[1:]


def condition_number(F: FloatArray) -> float:
    """s_1 / s_min(m, p) of F (m, p), see ``FeatureGram.condition_number``."""
    return FeatureGram(F).condition_number()


def feature_rank(F: FloatArray) -> int:
    """The rank of F (m, p), with singular values below 1e-10 of the largest counted as 0."""
    return _rank(scipy.linalg.svdvals(F))


def _svd(A: AnyMatrix) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Reduced SVD without the singular values below the rank cut-off."""
    U, s, Vt = scipy.linalg.svd(np.asarray(A), full_matrices=False, check_finite=True)
    rank = _rank(s)
    return U[:, :rank], s[:rank], Vt[:rank]


def _rank(s: FloatArray) -> int:
    """How many singular values, descending, are above the rank cut-off."""
    return int(np.count_nonzero(s > _RANK_CUTOFF * s[0])) if s.size and s[0] > 0 else 0


def largest_eigenvalue(n: int, product: Callable[[FloatArray], FloatArray]) -> float:
    """The largest eigenvalue of a symmetric positive definite operator, from a fixed starting vector.

    Raises DataError where there is none, as of matrices whose products overflow.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    start = np.cos(np.arange(1.0, n + 1.0))
    first = product(start)
    if not np.isfinite(first).all():  # ARPACK would go on with it
        raise DataError(f"the largest eigenvalue of {n} features cannot be found: their products overflow")
    if n == 1 or not first.any():  # where there is no Krylov space
        return float(first[0] / start[0])
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    try:
        return float(
            eigsh(operator, k=1, which="LA", v0=start, tol=1e-3, ncv=min(n, _BASIS), return_eigenvectors=False)[0]
        )
    except ArpackError as error:
        raise DataError(f"the largest eigenvalue of {n} features cannot be found: {error}") from error
