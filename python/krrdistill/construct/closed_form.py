"""The closed-form construction of distilled features (Theorems 4.1 and 5.1, Corollary 4.1.1).

Samples are rows here. With labels Y (m, k) of rank k, training on features F (m, p) gives W (k, p) exactly when
D = (F F^T + lambda_s I)^-1 F satisfies Y^T D = W. All such D are
    D = P W + (I - P Y^T) Z,     P = Y (Y^T Y)^-1,     any Z of shape (m, p).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.common.arrays import check_choice
from krrdistill.common.placed import AnyMatrix
from krrdistill.common.products import largest_magnitude, product
from krrdistill.common.random import Stream, normal
from krrdistill.common.threads import blas_for
from krrdistill.errors import DataError, LambdaOutOfRange
from krrdistill.options import ROOTS, PointsPerClass
from krrdistill.ridge.feature_gram import FeatureGram, pseudo_inverse

from .labels import one_hot_labels
from .orthogonal import OrthogonalDual

__all__ = [
    "Construction",
    "construct",
    "dual",
    "features_of_dual",
    "gaussian_start",
    "orthogonal_start",
    "real_start",
    "shrink_to_bound",
]

FloatArray = npt.NDArray[np.float64]
_NOISE_SCALE = 1.0  # std of Z relative to P W; the published 0.1 costs one digit in float32 storage
_MAX_LABEL_CONDITION = 10.0  # condition number of a real start's labels; for one point per class, of its features
_MAX_LABEL_RANK_CONDITION = 1e12  # labels beyond it count as rank deficient
_OUTSIDE_LABELS = 1e-9  # largest part of W that rank-deficient labels may miss
_BOUND_MARGIN = 1.0 - 1e-12  # stay on the solvable side of lambda_s = 1 / (4 s1^2)
_MAX_SCALINGS = 50


@dataclass(frozen=True, eq=False)
class Construction:
    """Distilled features F (m, p), labels Y (m, k) and lambda_s: exact for W by construction."""

    F: AnyMatrix
    Y: FloatArray
    lambda_s: float
    range_scale: float  # features and labels were multiplied by it, lambda_s by its square, to fit the map's range


def _label_basis(Y: FloatArray, W: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(Q (m, r), S (r, k)): an orthonormal basis of the columns of Y = Q R, and S = R^-T; P = Y (Y^T Y)^-1 = Q S.

    Y^T Y itself would square the condition number of Y. Labels of lower rank, which centred one-hot labels are, do for
    a W whose columns they span: P = (Y^+)^T then.
    """
    m, k = Y.shape
    with blas_for(4.0 * m * k * k):
        Q, R = np.linalg.qr(Y)
        if m >= k and np.linalg.cond(R) <= _MAX_LABEL_RANK_CONDITION:
            return Q, np.asarray(scipy.linalg.solve_triangular(R, np.eye(k), trans="T"))
    U, s, Vt = np.linalg.svd(Y, full_matrices=False)
    rank = int(np.count_nonzero(s * _MAX_LABEL_RANK_CONDITION > s[0]))
    U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
    if np.linalg.norm(W - Vt.T @ (Vt @ W)) > _OUTSIDE_LABELS * np.linalg.norm(W):
        raise DataError(f"construct: labels of shape {Y.shape} must have rank {k}; the construction needs m >= k")
    return U, np.asarray(Vt / s[:, None])


@overload
def dual(W: FloatArray, Y: FloatArray, Z: FloatArray) -> FloatArray: ...
@overload
def dual(W: FloatArray, Y: FloatArray, Z: AnyMatrix) -> AnyMatrix: ...


def dual(W: FloatArray, Y: FloatArray, Z: AnyMatrix) -> AnyMatrix:
    """D = P W + (I - P Y^T) Z with P = Y (Y^T Y)^-1; then Y^T D = W for every Z (m, p)."""
    Q, S = _label_basis(Y, W)
    D = product(Q, product(S, W - product(Y.T, Z)))
    D += Z
    return D


def gaussian_start(
    W: FloatArray,
    points_per_class: PointsPerClass,
    *,
    seed: int,
    labels: FloatArray | None = None,
    centered: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """(D, Y) for one-hot labels, or those given, and Z ~ N(0, (k std(W) / m)^2), the scale of Y^+ W of one-hot labels.

    ``centered``: the columns of D and Y have mean 0, so that features and labels have, too.
    """
    k, p = W.shape
    Y = one_hot_labels(k, points_per_class) if labels is None else labels
    scale = _NOISE_SCALE * float(np.std(W)) / (len(Y) / k)
    if labels is not None:
        scale /= float(np.sqrt(np.mean(labels * labels)))
    Z = normal(seed, Stream.NOISE, Y.shape[0] * p).reshape(-1, p)
    Z *= scale
    if centered:
        Y, Z = Y - Y.mean(axis=0), Z - Z.mean(axis=0)
    return dual(W, Y, Z), Y


def orthogonal_start(
    W: FloatArray,
    points_per_class: PointsPerClass,
    *,
    seed: int,
    labels: FloatArray | None = None,
    centered: bool = False,
) -> tuple[OrthogonalDual, FloatArray]:
    """(D, Y) as ``gaussian_start`` with structured noise, of which the spectrum is known (construct/orthogonal.py)."""
    Y = one_hot_labels(len(W), points_per_class) if labels is None else labels
    Y = Y - Y.mean(axis=0) if centered else Y
    Q, S = _label_basis(Y, W)
    return OrthogonalDual.of(Q, product(S, W), seed=seed, centered=centered), Y


def real_start(
    W: FloatArray, F_real: AnyMatrix, lambda_s: float, *, centered: bool = False
) -> tuple[AnyMatrix, FloatArray]:
    """(D, Y) near the features of m balanced real points (Corollary 4.1.1).

    F_real (m, p) holds them in rows. With its regularised pseudo-inverse R = (F F^T + lambda_s I)^-1 F, D is R plus the
    least change that makes it exact. Labels are Y = F_l W^T, where F_l = F + lambda_s (F^+)^T is the matrix whose
    pseudo-inverse is R^T, with singular values below s1 / 10 raised to that. ``centered`` as in ``noise_start``, with
    the features about their mean.
    """
    features = FeatureGram(F_real - F_real.mean(axis=0) if centered else F_real)
    inverse = features.inverse(0.0)
    Y = product(features.F, W.T) + lambda_s * product(inverse, W.T)  # learned_labels, with the inverse at hand
    Y = raise_singular_values(np.asarray(Y), _MAX_LABEL_CONDITION)
    Z = features.inverse(lambda_s) if lambda_s > 0.0 else inverse
    if centered:  # again, since rounding in the direction of the mean is all that is left there
        Y, Z = Y - Y.mean(axis=0), Z - Z.mean(axis=0)
    return dual(W, Y, Z), Y


def raise_singular_values(Y: FloatArray, condition: float) -> FloatArray:
    """The matrix nearest to Y whose singular values are at least s1 / condition."""
    U, s, Vt = np.linalg.svd(Y, full_matrices=False)
    floor = s[0] / condition or 1.0  # labels that are all zero become orthonormal
    return np.asarray((U * np.maximum(s, floor)) @ Vt)


def features_of_dual(D: AnyMatrix, lambda_s: float, *, root: str = "plus") -> AnyMatrix:
    """F (m, p) with (F F^T + lambda_s I)^-1 F = D, so that training on (F, Y) gives Y^T D.

    lambda_s = 0: F = (D^+)^T. lambda_s > 0: the singular values s of D become
    (1 + sqrt(1 - 4 lambda_s s^2)) / (2 s) for ``root="plus"``, 2 lambda_s s / (1 + sqrt(1 - 4 lambda_s s^2)) for
    ``root="minus"``, and 0 where s = 0. Raises LambdaOutOfRange if lambda_s > 1 / (4 s1^2).
    """
    check_choice("construct", "root", root, ROOTS)
    if lambda_s == 0.0:
        return pseudo_inverse(D)
    return _features_of_spectrum(FeatureGram(D), lambda_s, root)


def _features_of_spectrum(spectrum: FeatureGram | OrthogonalDual, lambda_s: float, root: str) -> AnyMatrix:
    bound = 0.25 / spectrum.largest_square
    if lambda_s > bound * (1.0 + 1e-9):
        raise LambdaOutOfRange(f"construct: lambda_s = {lambda_s:.6g} exceeds its bound 1/(4 s1^2) = {bound:.6g}")

    def ratio(square: FloatArray) -> FloatArray:
        denominator = 1.0 + np.sqrt(np.maximum(1.0 - 4.0 * lambda_s * square, 0.0))
        if root == "minus":
            return np.asarray(2.0 * lambda_s / denominator)
        positive = square > 0.0
        return np.divide(denominator, 2.0 * square, out=np.zeros_like(square), where=positive)

    return spectrum.rescaled(ratio)


def shrink_to_bound(
    D: AnyMatrix | OrthogonalDual, Y: FloatArray, W: FloatArray, lambda_s: float, *, scale_labels: bool = False
) -> tuple[AnyMatrix | OrthogonalDual, FloatArray]:
    """(D, Y) with 4 lambda_s s1(D)^2 <= 1 for a lambda_s that the user fixes.

    The free part Z is shrunk; P W and it are orthogonal, so s1(D)^2 <= s1(P W)^2 + s1(Z)^2, the larger of both where
    their rows are orthogonal, too. When P W alone is too large and ``scale_labels`` is set, the labels are scaled up,
    which scales P W down. Raises LambdaOutOfRange otherwise.
    """
    limit = _BOUND_MARGIN * 0.25 / lambda_s
    if isinstance(D, OrthogonalDual):
        if D.largest_square <= limit:
            return D, Y
        factor = _label_factor(D.fixed_square, limit, lambda_s, scale_labels)
        return D.scaled(factor, most=float(np.sqrt(limit))), factor * Y
    D = np.asarray(D)  # for singular values, which are the host's
    if np.linalg.norm(D, 2) ** 2 <= limit:
        return D, Y
    fixed = dual(W, Y, np.zeros(D.shape))
    free, fixed_square = D - fixed, float(np.linalg.norm(fixed, 2)) ** 2
    factor = _label_factor(fixed_square, limit, lambda_s, scale_labels)
    room, free_square = limit - fixed_square / factor**2, float(np.linalg.norm(free, 2)) ** 2
    shrink = min(1.0, float(np.sqrt(room / free_square))) if free_square > 0.0 else 1.0
    return fixed / factor + shrink * free, factor * Y


def _label_factor(fixed_square: float, limit: float, lambda_s: float, scale_labels: bool) -> float:
    """What labels are multiplied by so that s1(P W)^2 fits the limit: 1 where it does."""
    if fixed_square <= limit:
        return 1.0
    if not scale_labels:
        raise LambdaOutOfRange(
            f"construct: lambda_s = {lambda_s:.6g} exceeds {0.25 / fixed_square:.6g}, the most that these labels "
            "allow for this model; choose a smaller one or scale_labels"
        )
    return float(np.sqrt(2.0 * fixed_square / limit))


def construct(
    D: AnyMatrix | OrthogonalDual,
    Y: FloatArray,
    lambda_s: float | None,
    *,
    lambda_: float,
    root: str = "plus",
    feature_limit: float = float("inf"),
) -> Construction:
    """Features for D within the map's range |F| <= feature_limit.

    ``lambda_s = None`` takes min(lambda_, 1 / (4 s1^2)), the automatic choice of the published code. Features times c
    and labels times c leave W alone when lambda_s is multiplied by c^2; a lambda_s > 0 that the user fixes stays, so c
    and the features are found together: a smaller c for the plus root, whose features fall with it, a larger one for
    the minus root, whose features are at most sqrt(lambda_s) and fall as c rises.
    """
    check_choice("construct", "root", root, ROOTS)
    spectrum = D if isinstance(D, OrthogonalDual) else FeatureGram(D)
    if lambda_s == 0.0:
        F = spectrum.inverse(0.0)
        c = _scale_to_range(F, feature_limit)
        return Construction(F, c * Y, 0.0, c)
    if lambda_s is None:
        chosen = min(lambda_, _BOUND_MARGIN * 0.25 / spectrum.largest_square)
        F = _features_of_spectrum(spectrum, chosen, root)
        c = _scale_to_range(F, feature_limit)
        return Construction(F, c * Y, c * c * chosen, c)
    c = 1.0
    bound = 0.25 / spectrum.largest_square
    for _ in range(_MAX_SCALINGS):
        if c < 1.0 and lambda_s > c * c * bound:
            break
        F = c * _features_of_spectrum(spectrum, lambda_s / (c * c), root)
        shrink = _range_scale(F, feature_limit)
        if shrink == 1.0:
            return Construction(F, c * Y, lambda_s, c)
        c = c / shrink if root == "minus" else c * shrink
    raise LambdaOutOfRange(
        f"construct: lambda_s = {lambda_s:.6g} is too large for features within the range of the map; "
        f"scaled by {c:.3g} to fit it, they allow at most {c * c * bound:.6g}; the minus root fits any"
    )


def _scale_to_range(F: AnyMatrix, limit: float) -> float:
    """c with |c F| <= limit, and c F in the place of F."""
    c = _range_scale(F, limit)
    if c != 1.0:
        F *= c
    return c


def _range_scale(F: AnyMatrix, limit: float) -> float:
    largest = largest_magnitude(F)
    return 1.0 if largest <= limit else limit / largest * (1.0 - 1e-12)
