"""Noise of known spectrum: a dual D whose singular values and vectors are known before it is formed.

With an orthonormal basis Q (m, r) of the columns of the labels, Y = Q R, training needs D = Q A + N with A = R^-T W and
any N of which Q^T N = 0 (construct/closed_form.py). Here N = s K O: the columns of K are orthonormal and orthogonal to
Q, the rows of O orthonormal and orthogonal to those of A. So the singular values of D are those of A and s, and

    F = Q U diag(f(sigma)) V^T + f(s) K O        for A = U diag(sigma) V^T,    f(sigma) = 1 / sigma at lambda_s = 0.

For m <= p no D has a smaller condition number: the largest singular value of D is at least, and the smallest at most,
that of A = Q^T D. Nothing is factored but W and Y: F costs 10 m p k operations, where a pseudo-inverse of D costs
3 m^2 p + m^3 / 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack, svd

from krrdistill.common.placed import AnyMatrix, Cosines
from krrdistill.common.products import add_product, add_scaled, beside, placed_cosines, product
from krrdistill.common.random import Stream, permutation, signs
from krrdistill.common.threads import blas_for

__all__ = ["OrthogonalDual", "orthonormal_noise"]

FloatArray = npt.NDArray[np.float64]
_RANK = 1e-10  # singular values of A under it, relative to the largest, are rounding and count as 0
_PART = 1 << 18  # numbers that are looked up at a time


@dataclass(frozen=True, eq=False)
class OrthogonalDual:
    """D = Q A + s N by its singular value decomposition.

    Parameters
    ----------
    left : array of shape (m, r), Q U
    values : array of shape (r,), the singular values of A, those that are not 0
    right : array of shape (r, p), V^T
    noise : array of shape (m, p), N; all its singular values are 1 or 0
    scale : float, s; 0 where N is 0
    """

    left: FloatArray
    values: FloatArray
    right: FloatArray
    noise: AnyMatrix | None
    scale: float

    @classmethod
    def of(cls, Q: FloatArray, A: FloatArray, *, seed: int, centered: bool = False) -> OrthogonalDual:
        """D for an orthonormal basis Q (m, r) of the labels and A (r, p), with noise as large as the average of A.

        ``centered`` : the columns of N have mean 0 although those of Q have, too.
        """
        m, p = len(Q), A.shape[1]
        with blas_for(8.0 * len(A) ** 2 * p):
            U, s, Vt = svd(A, full_matrices=False, check_finite=False)
        rank = int(np.count_nonzero(s > _RANK * s[0]))
        U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
        taken = np.column_stack([Q, np.full(m, m**-0.5)]) if centered else Q
        rows, columns = m - taken.shape[1], p - len(A)
        if min(rows, columns) <= 0:
            return cls(product(Q, U), s, Vt, None, 0.0)
        drawn, turns = _draw(rows, columns, seed), taken.shape[1] + len(A)
        operations, numbers = 4.0 * m * p * turns, (m + p) * turns
        noise: AnyMatrix | None = placed_cosines((m, p), drawn, operations=operations, numbers=numbers)
        if noise is None:
            noise = np.zeros((m, p))
            _fill(noise[-rows:, -columns:], drawn)
        _turn(noise, taken, A.T)
        return cls(product(Q, U), s, Vt, noise, float(np.sqrt(np.mean(s * s))))

    @property
    def largest_square(self) -> float:
        """The square of the largest singular value of D."""
        return max(self.fixed_square, self.scale**2)

    @property
    def fixed_square(self) -> float:
        """The square of the largest singular value of A, which the labels decide alone."""
        return float(self.values[0]) ** 2

    def array(self) -> AnyMatrix:
        """D, shape (m, p)."""
        return self.rescaled(np.ones_like)

    def inverse(self, lambda_s: float) -> AnyMatrix:
        """(D D^T + lambda_s I)^-1 D, shape (m, p); for lambda_s = 0 the transposed pseudo-inverse."""
        return self.rescaled(lambda square: 1.0 / (square + lambda_s))

    def rescaled(self, ratio: Callable[[FloatArray], FloatArray]) -> AnyMatrix:
        """The matrix with singular values sigma ratio(sigma^2) and the singular vectors of D."""
        left = self.left * (self.values * ratio(self.values**2))
        F: AnyMatrix = product(beside(self.noise, left), self.right)
        if self.noise is not None:
            add_scaled(F, self.noise, self.scale * float(ratio(np.array([self.scale**2]))[0]))
        return F

    def scaled(self, labels: float, *, most: float) -> OrthogonalDual:
        """D of labels that are ``labels`` times larger, its noise at most ``most``."""
        return replace(self, values=self.values / labels, scale=min(self.scale / labels, most))


def orthonormal_noise(out: FloatArray, *, seed: int) -> None:
    """Fills E (rows, columns) with orthonormal rows or columns, whichever are fewer, and entries of about one size.

    A corner of the discrete cosine transform of order M = max(rows, columns), with rows in a random order and random
    signs of rows and columns: E_ij = +- sqrt(2 / M) cos(pi (2 j + 1) i / (2 M)).
    """
    rows, columns = out.shape
    _fill(out, _draw(rows, columns, seed))


def _draw(rows: int, columns: int, seed: int) -> Cosines:
    """What the noise of these sizes is looked up in, and by."""
    order = max(rows, columns)
    frequencies = permutation(seed, Stream.NOISE_ORDER, order)[:rows]
    drawn = signs(seed, Stream.NOISE_SIGNS, rows + columns)
    table = np.sqrt(2.0 / order) * np.cos(np.pi / (2 * order) * np.arange(4 * order))
    return Cosines(table, order**-0.5, frequencies, drawn[:rows], drawn[rows:])


def _fill(out: FloatArray, drawn: Cosines) -> None:
    """E (rows, columns), some rows at a time."""
    rows, columns = out.shape
    odd = 2 * np.arange(columns) + 1
    step = max(1, _PART // columns)
    for start in range(0, rows, step):
        frequency = drawn.frequencies[start : start + step, None]
        part = drawn.table[frequency * odd % len(drawn.table)]
        part[frequency[:, 0] == 0] = drawn.flat
        part *= drawn.row_signs[start : start + len(part), None]
        np.multiply(part, drawn.column_signs, out=out[start : start + step])


def _turn(noise: AnyMatrix, left: FloatArray, right: FloatArray) -> None:
    """noise (m, p) -> H_left noise H_right^T in place; H the Householder reflections whose first columns span a matrix.

    Columns that are not in the first places are orthogonal to that matrix: left (m, r), right (p, k). All reflections
    of a side are applied at once, in two products; LAPACK's dormqr takes 32 and passes over the noise for each.
    """
    V, T = _reflections(right)
    add_product(noise, product(product(noise, V), T.T), V.T, -1.0)
    V, T = _reflections(left)
    add_product(noise, V, product(T, product(V.T, noise)), -1.0)


def _reflections(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """V (m, r), T (r, r): the reflections of the QR decomposition of a matrix (m, r) are H_1 ... H_r = I - V T V^T."""
    factored, tau, _, _ = lapack.dgeqrf(matrix)
    V = np.tril(factored, -1)
    np.fill_diagonal(V, 1.0)
    T, overlap = np.diag(tau), product(V.T, V)
    for i in range(1, len(tau)):
        T[:i, i] = -tau[i] * (T[:i, :i] @ overlap[:i, i])
    return V, T
