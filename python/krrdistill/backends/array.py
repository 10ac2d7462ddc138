"""The operations in plain NumPy, without compiled code; in float64 it is the oracle of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.errors import DataError, NotPositiveDefinite, NotSurjective

from .base import Chain, FloatArray, IntArray, Layer, PathSolution, Weight
from .hadamard import HadamardWeight
from .tiles import rcond_floor, tile_rows

__all__ = ["ArrayBackend"]

AnyArray = npt.NDArray[Any]


class ArrayBackend:
    """NumPy (and SciPy's LAPACK) on tiles."""

    name = "array"

    def transform(self, chain: Chain, X: AnyArray, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> AnyArray:
        """phi(X), see ``Backend.transform``."""
        n = len(X) if rows is None else len(rows)
        out = np.empty((n, chain.output_dim), dtype)
        for tile, _, features in _feature_tiles(chain, X, rows, dtype):
            out[tile] = features
        return out

    def accumulate(
        self,
        chain: Chain,
        X: AnyArray,
        Y: AnyArray,
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> None:
        """Adds to G and C, see ``Backend.accumulate``."""
        for _, picked, features in _feature_tiles(chain, X, rows, dtype):
            gram += features.T @ features
            targets = Y[picked]
            if Y.ndim == 1:
                targets = np.eye(len(cross), dtype=dtype)[targets]
            cross += targets.T.astype(dtype, copy=False) @ features

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        gram[...] = np.tril(gram) + np.tril(gram, -1).T

    def ridge_path(self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float) -> PathSolution:
        """One Cholesky factorisation per lambda, see ``Backend.ridge_path``."""
        weights = np.full((len(lambdas), *cross.shape), np.nan)
        positive_definite = np.zeros(len(lambdas), dtype=bool)
        for index, value in enumerate(lambdas):
            try:
                factor = scipy.linalg.cho_factor(gram + value * np.eye(len(gram)), lower=True)
            except np.linalg.LinAlgError:
                continue
            weights[index] = scipy.linalg.cho_solve(factor, cross.T).T
            positive_definite[index] = True
        eigenvalues = scipy.linalg.eigvalsh(gram)
        largest = float(eigenvalues[-1])
        resolved = eigenvalues[0] + lambdas > rounding * max(largest, 0.0)
        return PathSolution(weights, positive_definite, resolved, largest)

    def score_path(
        self,
        chain: Chain,
        X: AnyArray,
        labels: IntArray,
        weights: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        correct = np.zeros(len(weights), dtype=np.int64)
        for _, picked, features in _feature_tiles(chain, X, rows, dtype):
            for index, weight in enumerate(weights):
                scores = features @ weight.T.astype(dtype)
                correct[index] += np.count_nonzero(scores.argmax(axis=1) == labels[picked])
        return correct

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """See ``Backend.solve_spd``."""
        if A.ndim > 2:
            return np.stack([self.solve_spd(a, b) for a, b in zip(A, B, strict=True)])
        try:
            return np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(A, lower=True), B))
        except np.linalg.LinAlgError as error:
            raise NotPositiveDefinite(f"{error}; raise lambda") from error

    def preimage_solve(self, weight: Weight, rhs: FloatArray) -> FloatArray:
        """See ``Backend.preimage_solve``."""
        if isinstance(weight, HadamardWeight):
            return weight.solve(rhs)
        q, r = scipy.linalg.qr(weight.T.astype(np.float64), mode="economic")
        diagonal = np.abs(np.diag(r))
        if diagonal.min() <= rcond_floor(weight.shape) * diagonal.max():
            raise NotSurjective(f"preimage: the weights {weight.shape} are rank deficient to working precision")
        return np.asarray((q @ scipy.linalg.solve_triangular(r, rhs.T, trans="T")).T)


def _feature_tiles(
    chain: Chain, X: AnyArray, rows: IntArray | None, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, AnyArray | slice, AnyArray]]:
    """(rows of the batch, the same as an index into X, features) tile by tile."""
    n = len(X) if rows is None else len(rows)
    step = tile_rows(chain, dtype)
    for start in range(0, n, step):
        tile = slice(start, min(start + step, n))
        picked = tile if rows is None else rows[tile]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found just below
            H = X[picked].astype(dtype)
            if chain.scale is not None and chain.shift is not None:
                H = H * chain.scale.astype(dtype) + chain.shift.astype(dtype)
        finite = np.isfinite(H).all(axis=1)
        if not finite.all():
            first = start + int(np.argmin(finite))
            raise DataError(f"row {first if rows is None else rows[first]} holds NaN or infinity")
        for layer in chain.layers:
            H = _apply(layer, H)
        yield tile, picked, H


def _apply(layer: Layer, H: AnyArray) -> AnyArray:
    weight = layer.weight
    H = weight.apply(H) if isinstance(weight, HadamardWeight) else H @ weight.T.astype(H.dtype)
    if layer.bias is not None:
        H = H + layer.bias.astype(H.dtype)
    parameter = H.dtype.type(layer.parameter)
    if layer.activation == "leaky_relu":
        return np.where(H > 0, H, parameter * H)
    if layer.activation == "cosine":
        return np.asarray(parameter * np.cos(H))
    return H
