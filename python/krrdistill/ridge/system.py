"""The linear system of a ridge model, in features or in samples, and what an intercept does to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.backends import ResidentGram
from krrdistill.common.products import gram
from krrdistill.data.dataset import row_blocks

from .feature_gram import largest_eigenvalue

__all__ = ["Moments", "RidgeSystem", "centred_system", "system_of_rows"]

FloatArray = npt.NDArray[np.float64]


class RidgeSystem(NamedTuple):
    """W = rhs (gram + lambda I)^-1, multiplied by ``features`` in the second form.

    With samples A (n, p) and targets B (n, k), about their means and times the roots of their weights, it is
    B^T A (A^T A + lambda I)^-1, or of fewer samples than features B^T (A A^T + lambda I)^-1 A.
    """

    gram: FloatArray | ResidentGram  # A^T A (p, p), or A A^T (n, n)
    rhs: FloatArray  # C (k, p), or B^T (k, n)
    features: FloatArray | None  # A (n, p) of the second form
    cross: FloatArray  # C = B^T A (k, p)
    target_square: float  # ||B||_F^2
    feature_mean: FloatArray  # (p,), 0 where features are not centred
    target_mean: FloatArray  # (k,), 0 where targets are not centred
    rounding: float  # of G, relative to its largest eigenvalue
    owned: bool  # gram is not the statistics' own: it may be overwritten
    filled: float = 0.0  # eigenvalue given to the direction that centring made singular, of the second form


class Moments(NamedTuple):
    """The fields of ``RidgeSystem`` of these names, before features are centred."""

    cross: FloatArray
    target_square: float
    feature_mean: FloatArray
    target_mean: FloatArray
    rounding: float


def system_of_rows(A: FloatArray, B: FloatArray, roots: FloatArray, moments: Moments, center: bool) -> RidgeSystem:
    """The second form, of samples A (n, p), in place, and B (n, k) times the roots (n, 1) of their weights.

    ``center`` takes the mean from A; B is about its own.
    """
    rounding, filled = moments.rounding, 0.0
    if center:
        before = float(np.linalg.norm(A))
        A -= roots * moments.feature_mean
        after = float(np.linalg.norm(A))
        rounding = min(1.0, rounding * before / after) if after > 0.0 else 1.0
    K = gram(A)
    if center:  # A^T r = B^T r = 0 for the roots r: their direction must not look singular
        filled = float(np.trace(K)) / len(K)
        K += filled * (roots @ roots.T) / np.vdot(roots, roots)
    moments = moments._replace(rounding=rounding)
    return RidgeSystem(K, np.ascontiguousarray(B.T), A, *moments, owned=True, filled=filled)


def centred_system(G: FloatArray, feature_sum: FloatArray, moments: Moments) -> RidgeSystem:
    """The first form of samples about their mean: G - s s^T / w with s = sum w phi, whose rounding weighs more."""
    centred = G.copy()
    for block in row_blocks(*G.shape):  # no temporary of the size of G
        centred[block] -= np.outer(feature_sum[block], moments.feature_mean)
    before, after = (largest_eigenvalue(len(matrix), matrix.__matmul__) for matrix in (G, centred))
    lost = before / after if after > moments.rounding * before else 1.0
    moments = moments._replace(rounding=moments.rounding * lost)
    return RidgeSystem(centred, moments.cross, None, *moments, owned=True)
