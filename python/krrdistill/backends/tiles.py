"""Sizes that all backends share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import MapStages

__all__ = ["FLUSH_ROWS", "rcond_floor", "tile_rows"]

_TILE_BYTES = 48 << 20  # one buffer of a tile: large enough for BLAS to run at its ceiling
_MIN_ROWS, _MAX_ROWS = 64, 4096
# float32 sums go to float64 at the first tile that ends so many rows, as flush_rows of csrc says (docs/numerics.md).
FLUSH_ROWS = 4096


def tile_rows(feature_map: MapStages, dtype: np.dtype[Any]) -> int:
    """Rows of a tile whose widest buffer takes about 48 MiB."""
    width = max(feature_map.input_dim, *(layer.weight.shape[0] for layer in feature_map.layers), 1)
    return int(np.clip(_TILE_BYTES // (width * dtype.itemsize), _MIN_ROWS, _MAX_ROWS))


def rcond_floor(shape: tuple[int, ...]) -> float:
    """Reciprocal condition number below which a float64 matrix counts as rank deficient."""
    return float(np.finfo(np.float64).eps) * max(shape)
