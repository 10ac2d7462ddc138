"""A backend for samples that are read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.rows import RowSource, block_rows

from .base import FloatArray, IntArray, MapStages, Products, products_in
from .models import Models
from .staged import Forwarding
from .tiles import FLUSH_ROWS, tile_rows

__all__ = ["ReadingBackend"]

AnyArray = npt.NDArray[Any]
_MOST_BYTES = 256 << 20


class ReadingBackend(Forwarding):
    """``inner`` on the blocks of a ``RowSource``; other operations, and other samples, go to ``inner`` as they are.

    Blocks end where float32 sums go to float64, so that sums are those of an array with the same numbers, to the last
    bit. Of samples so wide that such a block takes over 256 MiB, blocks end at tiles: sums then differ by rounding.
    float16 goes to ``inner`` as it is where that reads it.
    """

    def _taken(self, X: Any) -> Any:
        half = X.half if isinstance(X, RowSource) and self.reads_half else None
        return X if half is None else half

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``."""
        X = self._taken(X)
        if not isinstance(X, RowSource):
            return self.inner.transform(feature_map, X, dtype=dtype, rows=rows)
        out = np.empty((len(X) if rows is None else len(rows), feature_map.output_dim), dtype)
        for at, _, block in _blocks(feature_map, X, rows, dtype):
            out[at] = self.inner.transform(feature_map, block, dtype=dtype)
        return out

    def accumulate(
        self,
        feature_map: MapStages,
        X: Any,
        Y: AnyArray,
        gram: Any,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``."""
        X = self._taken(X)
        if not isinstance(X, RowSource):
            return self.inner.accumulate(feature_map, X, Y, gram, cross, dtype=dtype, rows=rows)
        used = products_in(np.dtype(np.float64))
        for _, picked, block in _blocks(feature_map, X, rows, dtype):
            targets = np.ascontiguousarray(Y[picked])
            used = used.worse(self.inner.accumulate(feature_map, block, targets, gram, cross, dtype=dtype))
        return used

    def scores(
        self, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> FloatArray:
        """See ``Backend.scores``."""
        X = self._taken(X)
        if not isinstance(X, RowSource):
            return self.inner.scores(feature_map, X, weights, dtype=dtype, rows=rows)
        out = np.empty((len(X) if rows is None else len(rows), len(weights)))
        for at, _, block in _blocks(feature_map, X, rows, dtype):
            out[at] = self.inner.scores(feature_map, block, weights, dtype=dtype)
        return out

    def score_path(
        self,
        feature_map: MapStages,
        X: Any,
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        X = self._taken(X)
        if not isinstance(X, RowSource):
            return self.inner.score_path(feature_map, X, labels, weights, dtype=dtype, rows=rows)
        correct = np.zeros(len(weights), dtype=np.int64)
        for _, picked, block in _blocks(feature_map, X, rows, dtype):
            correct += self.inner.score_path(feature_map, block, labels[picked], weights, dtype=dtype)
        return correct


def _blocks(
    feature_map: MapStages, X: RowSource, rows: IntArray | None, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, IntArray, AnyArray]]:
    """(place among the rows, the rows, their samples), whole tiles but for the last."""
    chosen = np.arange(len(X)) if rows is None else rows
    tile = tile_rows(feature_map, dtype)
    group = -(-FLUSH_ROWS // tile) * tile
    fits = group * X.width * X.dtype.itemsize <= _MOST_BYTES
    step = block_rows(X.width, X.dtype.itemsize, group if fits else tile)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        yield slice(start, start + len(part)), part, X.read(part)
