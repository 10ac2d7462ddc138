"""Errors about rows that cannot be used, with the function and argument that the caller passed them to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

from .arrays import host_rows
from .rows import RowSource, block_rows

__all__ = ["rows_of"]

IntArray = npt.NDArray[np.int64]


@contextmanager
def rows_of(
    where: str, X: Any, dtype: npt.DTypeLike, *, scale: Any = None, shift: Any = None, rows: IntArray | None = None
) -> Iterator[None]:
    """A ``DataError`` about rows of X (n, d) in the block names the function, and tells too large from not a number.

    Backends compute x scale + shift in ``dtype`` and only know that a row of it is not finite.
    """
    try:
        yield
    except DataError as error:
        said = _fault(where, X, np.dtype(dtype), scale, shift, rows)
        if said is None:
            raise
        raise DataError(f"{where}: X: {said}") from error


def _fault(where: str, X: Any, dtype: np.dtype[Any], scale: Any, shift: Any, rows: IntArray | None) -> str | None:
    """What is wrong with the first bad row; None where none is."""
    chosen = np.arange(X.shape[0]) if rows is None else rows
    step = block_rows(X.shape[1], 8)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        found = X.fetch(part) if isinstance(X, RowSource) else host_rows(where, X, part)
        values = np.asarray(found, dtype=np.float64).reshape(len(part), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            used = (values if scale is None else values * np.asarray(scale) + np.asarray(shift)).astype(dtype)
        bad = ~np.isfinite(used)
        if not bad.any():
            continue
        at = int(bad.any(axis=1).argmax())
        if not np.isfinite(values[at]).all():
            return f"row {part[at]} holds NaN or infinity"
        largest = values[at][bad[at]][0]
        remedy = "scale X, or use precision='float64'" if dtype == np.float32 else "scale X"
        return f"row {part[at]} holds {largest:.3g}, which overflows {dtype.name}; {remedy}"
    return None
