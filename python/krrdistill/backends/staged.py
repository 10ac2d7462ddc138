"""A compiled backend for maps whose first layers run in Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import device_of, is_on_host, namespace_of

from .array import ArrayBackend
from .base import (
    Backend,
    FloatArray,
    IntArray,
    Layer,
    MapStages,
    Matrix,
    PathSolution,
    Products,
    ResidentGram,
    products_in,
    scores_on_host,
)
from .models import Models
from .operators import Operator

__all__ = ["Forwarding", "StagedBackend"]

AnyArray = npt.NDArray[Any]


class Forwarding:
    """The operations on matrices of another backend, for wrappers that change how samples get there."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name
        self.reads_half = bool(getattr(inner, "reads_half", False))

    def dense(self) -> AbstractContextManager[None]:
        """See ``Backend.dense``."""
        return self.inner.dense()

    def zero_gram(self, p: int) -> FloatArray | ResidentGram:
        """See ``Backend.zero_gram``."""
        return self.inner.zero_gram(p)

    def own_gram(self, gram: Any) -> FloatArray | ResidentGram:
        """See ``Backend.own_gram``."""
        return self.inner.own_gram(gram)

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        self.inner.symmetrize(gram)

    def ridge_path(
        self,
        gram: Any,
        cross: FloatArray,
        lambdas: FloatArray,
        *,
        rounding: float,
        overwrite: bool = False,
    ) -> PathSolution:
        """See ``Backend.ridge_path``."""
        return self.inner.ridge_path(gram, cross, lambdas, rounding=rounding, overwrite=overwrite)

    def degrees_of_freedom(self, gram: Any, lambdas: FloatArray) -> FloatArray:
        """See ``Backend.degrees_of_freedom``."""
        return self.inner.degrees_of_freedom(gram, lambdas)

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """See ``Backend.solve_spd``."""
        return self.inner.solve_spd(A, B)

    def preimage_solve(self, weight: Matrix, rhs: Any, *, overwrite: bool = False) -> Any:
        """See ``Backend.preimage_solve``."""
        return self.inner.preimage_solve(weight, rhs, overwrite=overwrite)


class StagedBackend(Forwarding):
    """``inner``, with the ``array`` backend for the layers up to the last ``Operator``, tile by tile.

    What they give goes to ``inner``. Maps without an ``Operator`` go to ``inner`` as they are.
    """

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``."""
        front, rest = _split(feature_map)
        if front is None:
            return self.inner.transform(feature_map, X, dtype=dtype, rows=rows)
        xp, n = namespace_of(X), X.shape[0] if rows is None else len(rows)
        out = xp.empty((n, feature_map.output_dim), dtype=getattr(xp, dtype.name), device=device_of(X))
        for tile, _, H in _stages(front, X, rows, dtype):
            out[tile, :] = self.inner.transform(rest, H, dtype=dtype)
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
        front, rest = _split(feature_map)
        if front is None:
            return self.inner.accumulate(feature_map, X, Y, gram, cross, dtype=dtype, rows=rows)
        used = products_in(dtype)
        for _, picked, H in _stages(front, X, rows, dtype):
            targets = np.ascontiguousarray(Y[picked])
            used = used.worse(self.inner.accumulate(rest, H, targets, gram, cross, dtype=dtype))
        return used

    def scores(
        self, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> FloatArray:
        """See ``Backend.scores``."""
        if _split(feature_map)[0] is None:
            return self.inner.scores(feature_map, X, weights, dtype=dtype, rows=rows)
        return scores_on_host(self, feature_map, X, weights, dtype=dtype, rows=rows)

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
        front, rest = _split(feature_map)
        if front is None:
            return self.inner.score_path(feature_map, X, labels, weights, dtype=dtype, rows=rows)
        correct = np.zeros(len(weights), dtype=np.int64)
        for _, picked, H in _stages(front, X, rows, dtype):
            correct += self.inner.score_path(rest, H, np.ascontiguousarray(labels[picked]), weights, dtype=dtype)
        return correct


class _Part(NamedTuple):
    """Some stages of a map (``MapStages``)."""

    input_dim: int
    output_dim: int
    layers: tuple[Layer, ...]
    scale: FloatArray | None = None
    shift: FloatArray | None = None


def _split(feature_map: MapStages) -> tuple[MapStages | None, MapStages]:
    """(what runs in Python, the rest); None where nothing has to."""
    last = max((i for i, layer in enumerate(feature_map.layers) if isinstance(layer.weight, Operator)), default=-1)
    if last < 0:
        return None, feature_map
    layers, middle = feature_map.layers, int(feature_map.layers[last].weight.shape[0])
    front = _Part(feature_map.input_dim, middle, layers[: last + 1], feature_map.scale, feature_map.shift)
    return front, _Part(middle, feature_map.output_dim, layers[last + 1 :])


def _stages(
    front: MapStages, X: Any, rows: IntArray | None, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, AnyArray | slice, Any]]:
    """The tiles of ``ArrayBackend.feature_tiles`` where X is, as ``inner`` takes them."""
    for tile, picked, H in ArrayBackend(X).feature_tiles(front, X, rows, dtype):
        yield tile, picked, np.ascontiguousarray(H, dtype=dtype) if is_on_host(X) else H
