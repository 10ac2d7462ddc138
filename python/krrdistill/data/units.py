"""Units of samples: bytes are 255 times floats 0 ... 1, which no shape and no type tells apart for certain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import host_rows
from krrdistill.common.rows import RowSource
from krrdistill.common.warning import warn
from krrdistill.errors import DataError, DataWarning

__all__ = ["Sizes", "some_rows", "warn_of_units"]

Vector = npt.NDArray[np.float64]
_RUNS, _RUN_ROWS = 8, 32  # places of X that are looked at, and rows at each
_MOST_NUMBERS = 1 << 16  # of the rows together: more of them cost milliseconds of a pass that takes five on a GPU
_OTHER_UNITS = 10.0
_USED, _LARGE = 0.01, 0.1  # parts of the entries
_FEW = 50  # entries that say nothing of units
_LARGEST = 1e140  # whose square, many times, float64 holds


class Sizes(NamedTuple):
    """Sums of the squares of every entry over ``rows`` of the samples that were looked at."""

    rows: float
    squares: Vector  # (d,)

    @staticmethod
    def of(X: Any) -> Sizes:
        """Those of up to 256 samples of X (n, d)."""
        looked = np.minimum(np.abs(some_rows(X)), _LARGEST)
        return Sizes(float(len(looked)), np.square(looked).sum(axis=0))

    def plus(self, other: Sizes | None) -> Sizes:
        """Of both."""
        return self if other is None else Sizes(self.rows + other.rows, self.squares + other.squares)

    def to_arrays(self) -> dict[str, Vector]:
        """By the names that files have."""
        return {"input_count": np.asarray(self.rows), "input_squares": self.squares}

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], d: int) -> Sizes | None:
        """What ``to_arrays`` gave; None where a file has none. Raises DataError for other arrays."""
        if "input_count" not in arrays:
            return None
        count, squares = arrays["input_count"], arrays["input_squares"]
        if count.shape != () or squares.shape != (d,) or not (count > 0 and np.isfinite(squares).all()):
            raise DataError(f"input_count and input_squares must be a number > 0 and {d} finite ones")
        return Sizes(float(count), np.asarray(squares, dtype=np.float64))

    @property
    def roots(self) -> Vector:
        """Root mean squares (d,)."""
        return np.asarray(np.sqrt(self.squares / self.rows))

    def warn_of_units(self, where: str, X: Any, whose: str = "the training samples'", few: int = _FEW) -> None:
        """Warns, in the name of ``where``, where samples X (n, d) are ten times as large or small as these.

        Fewer than ``few`` entries say nothing.
        """
        roots = self.roots
        overall = float(np.sqrt(np.mean(np.square(roots))))
        most = np.maximum(roots, overall)  # an entry that was 0 need not stay so
        warn_of_units(where, X, roots, most, whose, few)


def warn_of_units(where: str, X: Any, least: Vector, most: Vector, whose: str, few: int = _FEW) -> None:
    """Warns where samples X (n, d) are ten times as large or small as root mean squares between ``least`` and ``most``.

    Up to 256 rows in eight places are looked at: too small if 99 % of the entries that are not 0 are under 1/10, too
    large if a tenth of all are over 10. Outliers, zeros, single samples and shifts by a few standard deviations pass.
    """
    with np.errstate(over="ignore"):
        found = _other_units(np.abs(some_rows(X)), least, most, few)
    if found is None:
        return
    warn(
        f"{where}: X is {found} {whose} root mean square; give it in their units (bytes and floats 0 ... 1 are "
        "different ones)",
        DataWarning,
    )


def _other_units(magnitudes: Vector, least: Vector, most: Vector, few: int) -> str | None:
    """How much smaller or larger than ``least``, ``most`` (d,) magnitudes (n, d) are, in words; None where they fit."""
    counted = np.count_nonzero(magnitudes)
    if not np.isfinite(magnitudes.sum()) or counted < few or not most.any():
        return None  # found, and named, where it is used
    least, most = (np.maximum(sizes, np.finfo(np.float64).tiny) for sizes in (least, most))
    used = np.count_nonzero((magnitudes >= least / _OTHER_UNITS) & (magnitudes > 0.0))
    if used < _USED * counted:
        return f"at most {np.quantile((magnitudes / least)[magnitudes > 0.0], 1.0 - _USED):.2g} times"
    if np.count_nonzero(magnitudes > _OTHER_UNITS * most) > _LARGE * magnitudes.size:
        return f"for a tenth of its entries over {np.quantile(magnitudes / most, 1.0 - _LARGE):.2g} times"
    return None


def some_rows(X: Any, chosen: npt.NDArray[np.int64] | None = None) -> Vector:
    """Up to 256 rows of X (n, d), or of its chosen rows, on the host; fewer wide ones.

    They are a few runs of rows, which any source reads quickly.
    """
    n, width = X.shape[0] if chosen is None else len(chosen), X.shape[1]
    run_rows = max(1, min(_RUN_ROWS, _MOST_NUMBERS // (_RUNS * max(1, width))))
    starts = np.linspace(0, max(n - run_rows, 0), _RUNS).astype(np.int64)
    rows = np.unique(np.minimum(starts[:, None] + np.arange(run_rows), n - 1)) if n else np.empty(0, np.int64)
    rows = rows if chosen is None else chosen[rows]
    found = X.fetch(rows) if isinstance(X, RowSource) else host_rows("units", X, rows)
    return np.asarray(found, dtype=np.float64).reshape(len(rows), width)
