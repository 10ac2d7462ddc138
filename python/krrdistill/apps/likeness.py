"""How far distilled samples are from the real ones that they started from, in pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.record import Likeness
from krrdistill.common.rows import blocks
from krrdistill.data.dataset import row_blocks

__all__ = ["likeness", "value_range"]


def value_range(X: Any) -> tuple[float, float]:
    """Black and white of raw samples: 0 to 255 for bytes that use that range, else their extremes."""
    extremes = [(float(part.min()), float(part.max())) for _, part in blocks(X)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if X.dtype == "uint8":
        low, high = 0.0, 255.0 if high > 127 else max(high, 1.0)
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def likeness(
    samples: npt.NDArray[Any],
    start: npt.NDArray[Any] | None,
    limits: tuple[float, float] | None,
    *,
    asked: float | None = None,
) -> Likeness:
    """Distances in units in which ``limits`` are 0 and 1; nothing is known without them.

    mse : mean over pixels of (x - x_0)^2; None without real points x_0 = ``start``
    psnr : -10 log10(mse), in dB; None also for mse = 0
    asked : the realism that was asked for
    out_of_range : share of pixels outside of ``limits`` by more than float32 rounds
    """
    if limits is None:
        return Likeness(mse=None, psnr=None, out_of_range=None, asked=asked)
    low, width = limits[0], limits[1] - limits[0]
    squares, outside = 0.0, 0
    for rows in row_blocks(len(samples), math.prod(samples.shape[1:])):
        values = (np.asarray(samples[rows], dtype=np.float64) - low) / width
        outside += int(np.count_nonzero(np.abs(values - 0.5) > 0.5 + np.finfo(np.float32).eps))
        if start is not None:
            values -= (np.asarray(start[rows], dtype=np.float64) - low) / width
            squares += float(np.sum(np.square(values, out=values)))
    mse = None if start is None else squares / samples.size
    return Likeness(
        mse=mse,
        psnr=-10.0 * math.log10(mse) if mse else None,
        out_of_range=outside / samples.size,
        asked=asked,
    )
