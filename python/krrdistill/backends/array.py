"""The operations over the array API, without compiled code; on NumPy in float64 it is the oracle of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_writable, device_of, in_namespace, like, namespace_of
from krrdistill.errors import DataError, NotPositiveDefinite

from .base import (
    FloatArray,
    HostMatrices,
    IntArray,
    Layer,
    MapStages,
    Matrix,
    PathSolution,
    Products,
    nonfinite_path,
    path_sums,
    products_in,
)
from .hadamard import HadamardWeight
from .models import Models, models_on_host
from .operators import Operator
from .tiles import rank_deficient, rcond_floor, tile_rows

__all__ = ["ArrayBackend"]

AnyArray = npt.NDArray[Any]
_SMALL = 256  # order up to which a triangular system is solved as a general one, and a Gram matrix sums few rows
_ROWS_OF_SMALL = 512  # at a time: BLAS libraries sum large products in blocks, small ones in float32 from end to end


class ArrayBackend(HostMatrices):
    """Tiles of any array API namespace whose arrays can be written to: NumPy, PyTorch, CuPy.

    Operations take NumPy arrays or those of the namespace, and answer in the kind of their first array.

    Parameters
    ----------
    kind : array, optional
        The namespace and device of this array do the arithmetic, by default NumPy.
    """

    name = "array"

    def __init__(self, kind: Any = None) -> None:
        check_writable("array backend", kind)
        self._xp, self._device = namespace_of(kind), device_of(kind)

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``."""
        n = X.shape[0] if rows is None else len(rows)
        out = self._xp.empty((n, feature_map.output_dim), dtype=self._dtype(dtype), device=self._device)
        for tile, _, features in self.feature_tiles(feature_map, X, rows, dtype):
            out[tile, :] = features
        return like(out, X)

    def accumulate(
        self,
        feature_map: MapStages,
        X: Any,
        Y: AnyArray,
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``."""
        G, C = self._take(gram), self._take(cross)
        for _, picked, features in self.feature_tiles(feature_map, X, rows, dtype):
            n = features.shape[0]
            step = _ROWS_OF_SMALL if len(gram) <= _SMALL else n
            for start in range(0, n, step):
                part = features[start : min(start + step, n), :]
                G += part.T @ part
            targets = Y[picked]
            if Y.ndim == 1:
                targets = np.eye(len(cross), dtype=dtype)[targets]
            C += self._take(targets, dtype).T @ features
        for total, summed in ((gram, G), (cross, C)):
            if summed is not total:
                total[...] = like(summed, total)
        return products_in(dtype)

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        gram[...] = np.tril(gram) + np.tril(gram, -1).T

    def ridge_path(
        self, gram: Any, cross: Any, lambdas: Any, *, rounding: float, overwrite: bool = False
    ) -> PathSolution:
        """G = V diag(s) V^T once for all lambdas, W = C V diag(1 / (s + lambda)) V^T, see ``Backend.ridge_path``."""
        nonfinite = nonfinite_path(gram, cross, lambdas)
        if nonfinite is not None:
            return nonfinite
        xp, steps = self._xp, self._take(lambdas)
        s, V = xp.linalg.eigh(self._take(gram))
        largest = max(float(s[-1]), 0.0)
        positive_definite = s[0] + steps > 0.0
        rotated, shape = self._take(cross) @ V, (lambdas.shape[0], *cross.shape)
        weights = xp.full(shape, xp.nan, dtype=s.dtype, device=self._device)
        for index in range(lambdas.shape[0]):
            if positive_definite[index]:
                weights[index, ...] = (rotated / (s + steps[index])) @ V.T
        resolved = s[0] + steps > float(rounding * largest)
        weights = like(weights, gram)
        sums = path_sums(weights, like(cross, weights))
        return PathSolution(weights, like(positive_definite, gram), like(resolved, gram), largest, *sums)

    def degrees_of_freedom(self, gram: Any, lambdas: Any) -> Any:
        """sum_i s_i / (s_i + lambda) over the eigenvalues of G, see ``Backend.degrees_of_freedom``."""
        xp, steps = self._xp, self._take(lambdas)
        if not xp.all(xp.isfinite(self._take(gram))):
            return like(xp.full(steps.shape, xp.nan, dtype=steps.dtype, device=self._device), gram)
        s = xp.linalg.eigvalsh(self._take(gram))
        shifted = s + steps[:, None]
        definite = shifted[:, 0] > 0.0
        degrees = xp.sum(s / xp.where(definite[:, None], shifted, 1.0), axis=1)
        return like(xp.where(definite, degrees, xp.nan), gram)

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
        xp, (models, k, p) = self._xp, weights.shape
        stacked = xp.reshape(self._take(models_on_host(weights), dtype), (models * k, p))
        correct = np.zeros(models, dtype=np.int64)
        for _, picked, features in self.feature_tiles(feature_map, X, rows, dtype):
            scores = xp.reshape(features @ stacked.T, (features.shape[0], models, k))
            right = xp.argmax(scores, axis=2) == self._take(labels[picked])[:, None]
            correct += like(xp.sum(xp.astype(right, xp.int64), axis=0), correct)
        return correct

    def solve_spd(self, A: Any, B: Any) -> Any:
        """See ``Backend.solve_spd``."""
        factor = self._cholesky(self._take(A))
        half = self._solve_lower(factor, self._take(B))
        # L^T x = y is a lower triangular system once rows and columns are in reverse order.
        upper = self._xp.flip(self._xp.matrix_transpose(factor), axis=(-2, -1))
        return like(self._xp.flip(self._solve_lower(upper, self._xp.flip(half, axis=-2)), axis=-2), A)

    def preimage_solve(self, weight: Matrix, rhs: Any, *, overwrite: bool = False) -> Any:
        """QR of W^T, see ``Backend.preimage_solve``."""
        if isinstance(weight, HadamardWeight):
            return like(weight.solve(self._take(rhs)), rhs)
        xp = self._xp
        q, r = xp.linalg.qr(self._take(weight, np.dtype(np.float64)).T)
        diagonal = xp.abs(xp.linalg.diagonal(r))
        if not xp.min(diagonal) > rcond_floor(weight.shape) * xp.max(diagonal):
            raise rank_deficient(weight.shape)
        return like((q @ self._solve_lower(r.T, self._take(rhs).T)).T, rhs)

    def _take(self, array: Any, dtype: np.dtype[Any] | None = None) -> Any:
        """``array`` in this namespace, on this device and in ``dtype``; the same memory where nothing has to change."""
        taken = in_namespace(array, self._xp, self._device)
        return taken if dtype is None else self._xp.astype(taken, self._dtype(dtype), copy=False)

    def _dtype(self, dtype: np.dtype[Any]) -> Any:
        return getattr(self._xp, dtype.name)

    def feature_tiles(
        self, feature_map: MapStages, X: Any, rows: IntArray | None, dtype: np.dtype[Any]
    ) -> Iterator[tuple[slice, AnyArray | slice, Any]]:
        """(rows of the batch, the same as an index into X, features) tile by tile."""
        xp, n = self._xp, X.shape[0] if rows is None else len(rows)
        step = tile_rows(feature_map, dtype)
        layers = [self._prepare(layer, dtype) for layer in feature_map.layers]
        for start in range(0, n, step):
            tile = slice(start, min(start + step, n))
            picked = tile if rows is None else rows[tile]
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found just below
                H = self._load(X, picked, feature_map, dtype)
            finite = xp.all(xp.isfinite(H), axis=1)
            if not xp.all(finite):
                first = start + int(xp.argmin(xp.astype(finite, xp.int32)))
                raise DataError(
                    f"row {first if rows is None else rows[first]} holds NaN or infinity, or overflows {dtype.name}"
                )
            for layer in layers:
                H = self._apply(layer, H)
            yield tile, picked, H

    def _load(self, X: Any, picked: IntArray | slice, feature_map: MapStages, dtype: np.dtype[Any]) -> Any:
        """A copy of some rows of X, gathered where X is and standardised: floats in float64, bytes in ``dtype``."""
        if isinstance(X, np.ndarray):
            part = X[picked]
        elif isinstance(picked, slice):
            part = X[picked, :]
        else:
            part = self._xp.take(X, self._take(picked), axis=0)
        part = self._take(part)
        if feature_map.scale is None:
            return self._xp.astype(part, self._dtype(dtype), copy=True)
        factors = dtype if part.dtype == self._xp.uint8 else np.dtype(np.float64)
        H = self._xp.astype(part, self._dtype(factors), copy=True)
        H *= self._take(feature_map.scale, factors)
        H += self._take(feature_map.shift, factors)
        return self._xp.astype(H, self._dtype(dtype), copy=False)

    def _prepare(self, layer: Layer, dtype: np.dtype[Any]) -> Layer:
        """The layer with W^T, or its structured weight, and bias ready for ``_apply``."""
        weight: Any = layer.weight
        if not isinstance(weight, (HadamardWeight, Operator)):
            weight = self._take(weight, dtype).T
        bias = None if layer.bias is None else self._take(layer.bias, dtype)
        return layer._replace(weight=weight, bias=bias)

    def _apply(self, layer: Layer, H: Any) -> Any:
        weight: Any = layer.weight
        if isinstance(weight, Operator):
            H = self._take(weight.apply(like(H, np.empty(0))))
        else:
            H = weight.apply(H) if isinstance(weight, HadamardWeight) else H @ weight
        if layer.bias is not None:
            H += layer.bias
        if layer.activation == "leaky_relu":
            return self._xp.where(H > 0, H, layer.parameter * H)
        if layer.activation == "cosine":
            H = self._xp.cos(H)
            H *= layer.parameter
        return H

    def _cholesky(self, A: Any) -> Any:
        """The lower factors of A (..., n, n). Raises NotPositiveDefinite with the first leading minor that is not."""
        factor = self._try_cholesky(A)
        if factor is not None:
            return factor
        n = A.shape[-1]
        matrices = self._xp.reshape(A, (-1, n, n))
        factored = (self._try_cholesky(matrices[i, ...]) for i in range(matrices.shape[0]))
        failed = next(i for i, found in enumerate(factored) if found is None)
        good, bad = 0, n
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._try_cholesky(matrices[failed, :middle, :middle]) is None:
                bad = middle
            else:
                good = middle
        raise NotPositiveDefinite(f"leading minor {bad}; raise lambda")

    def _try_cholesky(self, A: Any) -> Any:
        """The lower factors, or None. Some namespaces raise, each an error of its own, others leave a bad diagonal."""
        xp = self._xp
        try:
            factor = xp.linalg.cholesky(A)
        except Exception as error:
            if "LinAlgError" in type(error).__name__:
                return None
            raise
        return factor if xp.all(xp.linalg.diagonal(factor) > 0.0) else None

    def _solve_lower(self, L: Any, B: Any) -> Any:
        """L^-1 B by halves: the standard has no triangular solve, and a general one is cheap where L is small."""
        n = L.shape[-1]
        if n <= _SMALL:
            return self._xp.linalg.solve(L, B)
        half = n // 2
        top = self._solve_lower(L[..., :half, :half], B[..., :half, :])
        below = B[..., half:, :] - L[..., half:, :half] @ top
        return self._xp.concat([top, self._solve_lower(L[..., half:, half:], below)], axis=-2)
