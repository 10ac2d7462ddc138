"""Sizes that all backends share."""

from __future__ import annotations

from typing import Any

import numpy as np

from krrdistill.errors import NotSurjective

from .base import MapStages

__all__ = ["FLUSH_ROWS", "device_tile_rows", "rank_deficient", "rcond_floor", "tile_rows"]

_TILE_BYTES = 48 << 20  # one buffer of a tile: large enough for BLAS to run at its ceiling
_MIN_ROWS, _MAX_ROWS = 64, 4096
# On a GPU a tile has to fill all processors and the depth of integer products; its buffers lie in device memory.
_DEVICE_TILE_BYTES, _DEVICE_MAX_ROWS = 256 << 20, 8192
# Of data that are there already, which need no pinned memory: narrow ones take more rows, up to what int32 sums hold.
_THERE_TILE_BYTES, _THERE_MAX_ROWS = 128 << 20, 65536
# float32 sums go to float64 at the first tile of so many rows (flush_rows of csrc; docs/explanation/numerics.md).
FLUSH_ROWS = 4096


def tile_rows(feature_map: MapStages, dtype: np.dtype[Any]) -> int:
    """Rows of a tile whose widest buffer takes about 48 MiB."""
    return int(np.clip(_TILE_BYTES // _row_bytes(feature_map, dtype), _MIN_ROWS, _MAX_ROWS))


def device_tile_rows(feature_map: MapStages, dtype: np.dtype[Any], *, there: bool = False) -> int:
    """The same on a GPU, with buffers of at most 256 MiB; where they do not fit, the operations take fewer rows.

    ``there``: of data on the GPU, with buffers of 128 MiB for narrow maps.
    """
    row = _row_bytes(feature_map, dtype)
    rows = int(np.clip(_DEVICE_TILE_BYTES // row, _MIN_ROWS, _DEVICE_MAX_ROWS))
    return max(rows, min(_THERE_TILE_BYTES // row, _THERE_MAX_ROWS)) if there else rows


def _row_bytes(feature_map: MapStages, dtype: np.dtype[Any]) -> int:
    widths = (int(layer.weight.shape[0]) for layer in feature_map.layers)
    return max(feature_map.input_dim, *widths, 1) * dtype.itemsize


def rcond_floor(shape: tuple[int, ...]) -> float:
    """Reciprocal condition number below which a float64 matrix counts as rank deficient."""
    return float(np.finfo(np.float64).eps) * max(shape)


def rank_deficient(shape: tuple[int, ...]) -> NotSurjective:
    """The error of weights whose reciprocal condition number is below ``rcond_floor``."""
    return NotSurjective(f"preimage: the weights {tuple(shape)} are rank deficient to working precision")
