"""The sums besides G from which ridge regression is solved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Sums"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


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
