"""A compiled backend for chains whose first layers run in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import device_of, is_on_host, namespace_of

from .array import ArrayBackend
from .base import Backend, Chain, FloatArray, IntArray, Matrix, PathSolution
from .operators import Operator

__all__ = ["StagedBackend"]

AnyArray = npt.NDArray[Any]


class StagedBackend:
    """``inner``, with the ``array`` backend for the layers up to the last ``Operator``, tile by tile.

    What they give goes to ``inner``. Chains without an ``Operator`` go to ``inner`` as they are.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name

    def product_dtype(self, chain: Chain, X: Any, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """See ``Backend.product_dtype``."""
        return self.inner.product_dtype(chain, X, dtype)

    def transform(self, chain: Chain, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``."""
        front, rest = _split(chain)
        if front is None:
            return self.inner.transform(chain, X, dtype=dtype, rows=rows)
        xp, n = namespace_of(X), X.shape[0] if rows is None else len(rows)
        out = xp.empty((n, chain.output_dim), dtype=getattr(xp, dtype.name), device=device_of(X))
        for tile, _, H in _stages(front, X, rows, dtype):
            out[tile, :] = self.inner.transform(rest, H, dtype=dtype)
        return out

    def accumulate(
        self,
        chain: Chain,
        X: Any,
        Y: AnyArray,
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> None:
        """Adds to G and C, see ``Backend.accumulate``."""
        front, rest = _split(chain)
        if front is None:
            self.inner.accumulate(chain, X, Y, gram, cross, dtype=dtype, rows=rows)
            return
        for _, picked, H in _stages(front, X, rows, dtype):
            self.inner.accumulate(rest, H, np.ascontiguousarray(Y[picked]), gram, cross, dtype=dtype)

    def score_path(
        self,
        chain: Chain,
        X: Any,
        labels: IntArray,
        weights: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        front, rest = _split(chain)
        if front is None:
            return self.inner.score_path(chain, X, labels, weights, dtype=dtype, rows=rows)
        correct = np.zeros(len(weights), dtype=np.int64)
        for _, picked, H in _stages(front, X, rows, dtype):
            correct += self.inner.score_path(rest, H, np.ascontiguousarray(labels[picked]), weights, dtype=dtype)
        return correct

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        self.inner.symmetrize(gram)

    def ridge_path(self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float) -> PathSolution:
        """See ``Backend.ridge_path``."""
        return self.inner.ridge_path(gram, cross, lambdas, rounding=rounding)

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """See ``Backend.solve_spd``."""
        return self.inner.solve_spd(A, B)

    def preimage_solve(self, weight: Matrix, rhs: FloatArray) -> FloatArray:
        """See ``Backend.preimage_solve``."""
        return self.inner.preimage_solve(weight, rhs)


def _split(chain: Chain) -> tuple[Chain | None, Chain]:
    """(what runs in Python, the rest); None where nothing has to."""
    last = max((i for i, layer in enumerate(chain.layers) if isinstance(layer.weight, Operator)), default=-1)
    if last < 0:
        return None, chain
    front = Chain(chain.input_dim, chain.layers[: last + 1], chain.scale, chain.shift)
    return front, Chain(front.output_dim, chain.layers[last + 1 :])


def _stages(
    front: Chain, X: Any, rows: IntArray | None, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, AnyArray | slice, Any]]:
    """The tiles of ``ArrayBackend.feature_tiles`` where X is, as ``inner`` takes them."""
    for tile, picked, H in ArrayBackend(X).feature_tiles(front, X, rows, dtype):
        yield tile, picked, np.ascontiguousarray(H, dtype=dtype) if is_on_host(X) else H
