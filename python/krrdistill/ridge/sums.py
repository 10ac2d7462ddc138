"""The sums besides G from which ridge regression is solved, and what is looked at before targets are summed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import to_host
from krrdistill.data.labels import Classes
from krrdistill.errors import DataError

__all__ = [
    "Sums",
    "all_binary",
    "check_contained",
    "check_rest",
    "check_weights",
    "largest_factor",
    "mean_of_rows",
    "one_hot",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_SUMMED_WEIGHTS = 1e-9  # rounding of sums of sample weights
_TARGET_ROWS = 16384  # rows of targets that are looked at together


class Sums(NamedTuple):
    """Sums over samples with weight w, features phi and targets y, of one batch or of all."""

    n: int
    total_weight: float  # sum w
    target_square: FloatArray  # sum w y^2, (k,)
    target_sum: FloatArray  # sum w y, (k,)
    feature_sum: FloatArray  # sum w phi, (p,)
    cross: FloatArray  # C = sum w y phi^T, (k, p)

    @staticmethod
    def zero(k: int, p: int) -> Sums:
        """Those of no samples."""
        return Sums(0, 0.0, np.zeros(k), np.zeros(k), np.zeros(p), np.zeros((k, p)))

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        """Those of both, or with sign -1 of the rest. Nobody writes to the arrays of either."""
        if self.n == 0 and sign > 0:
            return other  # the first of many, and the only one of most
        return Sums(
            self.n + sign * other.n,
            self.total_weight + sign * other.total_weight,
            self.target_square + sign * other.target_square,
            self.target_sum + sign * other.target_sum,
            self.feature_sum + sign * other.feature_sum,
            self.cross + sign * other.cross,
        )

    def moved(self, shift: FloatArray) -> Sums:
        """The same sums for targets y + shift."""
        if not shift.any():
            return self
        return self._replace(
            target_square=self.target_square + 2.0 * shift * self.target_sum + self.total_weight * shift * shift,
            target_sum=self.target_sum + self.total_weight * shift,
            cross=self.cross + np.outer(shift, self.feature_sum),
        )

    def placed(self, positions: IntArray, k: int) -> Sums:
        """The same sums where target c is target positions[c] of k; the others are 0."""
        wider = Sums.zero(k, len(self.feature_sum))
        for ours, theirs in zip(wider[2:4], self[2:4], strict=True):
            ours[positions] = theirs
        wider.cross[positions] = self.cross
        return wider._replace(n=self.n, total_weight=self.total_weight, feature_sum=self.feature_sum)


def check_contained(ours: Sums, classes: Classes | None, theirs: Sums, other: Classes | None) -> None:
    """Raises DataError where theirs have more samples, or more of a class."""
    if theirs.n > ours.n:
        raise DataError(f"statistics -=: {theirs.n} samples cannot be taken from {ours.n}")
    if classes is None:
        return
    if classes != other:
        raise DataError("statistics -=: the other statistics have classes that these do not have")
    whole, part = ours.target_sum, theirs.target_sum  # the weight of every class
    more = np.flatnonzero(part > whole * (1.0 + _SUMMED_WEIGHTS) + _SUMMED_WEIGHTS)
    if more.size:
        c = int(more[0])
        raise DataError(
            f"statistics -=: {part[c]:.6g} samples of class {classes.label(c)!r} cannot be taken from {whole[c]:.6g}; "
            "only data that were added can be taken away"
        )


def check_rest(rest: Sums, weight: float, ours: FloatArray, theirs: FloatArray) -> None:
    """Raises DataError where no samples have the sums that would be left of a ``weight`` and of sums w phi^2 (p,).

    Squares sum to no less than 0, and to nothing where no weight is left; (sum w phi)^2 <= sum w sum w phi^2.
    """
    left, error = ours - theirs, _SUMMED_WEIGHTS * (ours + theirs)
    weight_left = max(rest.total_weight, 0.0)
    if weight_left <= _SUMMED_WEIGHTS * weight:
        fits = np.abs(left) <= error
    else:
        most = weight_left * (np.maximum(left, 0.0) + error) * (1.0 + _SUMMED_WEIGHTS)
        fits = (left >= -error) & (np.square(rest.feature_sum) <= most)
    if not fits.all():
        raise DataError(
            f"statistics -=: no samples have the sums of feature {int(fits.argmin())} that would be left; only "
            "data that were added can be taken away"
        )


def largest_factor(targets: npt.NDArray[Any], origin: FloatArray, weights: FloatArray | None) -> float:
    """Bound, at least 1, on what weights and centred targets multiply features by."""
    root = 1.0 if weights is None else max(1.0, float(np.sqrt(weights.max(initial=0.0))))
    if targets.ndim == 1:
        return root
    largest = max(np.abs(targets.max(axis=0) - origin).max(), np.abs(targets.min(axis=0) - origin).max())
    return root * max(1.0, float(largest))


def one_hot(codes: IntArray, k: int) -> FloatArray:
    """Rows of the identity (n, k), made without the identity."""
    values = np.zeros((len(codes), k))
    values[np.arange(len(codes)), codes] = 1.0
    return values


def all_binary(targets: npt.NDArray[Any], rows: IntArray) -> bool:
    """Whether all picked targets (n, k) are 0 or 1."""
    return all(bool(((targets[part] == 0) | (targets[part] == 1)).all()) for part in _parts(rows))


def _parts(rows: IntArray) -> Iterator[IntArray]:
    return (rows[start : start + _TARGET_ROWS] for start in range(0, len(rows), _TARGET_ROWS))


def mean_of_rows(targets: npt.NDArray[Any], rows: IntArray) -> FloatArray:
    """The mean of some rows of targets (n, k), without a copy of them."""
    sums = [targets[part].sum(axis=0, dtype=np.float64) for part in _parts(rows)]
    return np.asarray(np.sum(sums, axis=0) / len(rows))


def check_weights(where: str, weights: Any, n: int, *, all_zero: bool = False) -> FloatArray:
    """Sample weights as float64 (n,), finite, not negative; ``all_zero`` says whether all may be 0."""
    array = to_host(where, "sample_weight", weights)
    if array.dtype.kind not in "uifb":
        raise TypeError(f"{where}: sample_weight must be numbers, got dtype {array.dtype}")
    if array.shape != (n,):
        raise DataError(f"{where}: sample_weight must have shape ({n},), got {array.shape}")
    checked = np.ascontiguousarray(array, dtype=np.float64)
    if not (np.isfinite(checked).all() and (checked >= 0.0).all()):
        raise DataError(f"{where}: sample_weight must be finite and not negative")
    if n and not all_zero and not checked.any():
        raise DataError(f"{where}: sample_weight is all zero")
    return checked
