"""What the compiled backends share: arrays in the form that their modules take, results in arrays made here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from .base import (
    FloatArray,
    IntArray,
    MapStages,
    Matrix,
    PathSolution,
    Products,
    matrix_of,
    nonfinite_path,
    path_operations,
    path_sums,
    products_in,
)
from .hadamard import HadamardWeight
from .models import Models, models_on_host
from .tiles import rank_deficient, rcond_floor, tile_rows

__all__ = ["ACTIVATIONS", "CompiledBackend", "check_rank", "structured"]

AnyArray = npt.NDArray[Any]
ACTIVATIONS = {"linear": 0, "leaky_relu": 1, "cosine": 2}
_ELEMENTWISE = 20.0  # operations that a number takes outside of products


class CompiledBackend:
    """Calls compiled operations; sizes and types are checked by the callers, memory safety again in the module.

    Parameters
    ----------
    name : str
        Name of the backend.
    module : Any
        The compiled module; it has the classes ``FeatureMapF32`` and ``FeatureMapF64``.
    operations : Any
        What has the operations: the module itself, or an object of it.
    """

    def __init__(self, name: str, module: Any, operations: Any) -> None:
        self.name = name
        self._module = module
        self._operations = operations

    def transform(
        self, feature_map: MapStages, X: AnyArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> AnyArray:
        """phi(X), see ``Backend.transform``."""
        out = np.empty((X.shape[0] if rows is None else len(rows), feature_map.output_dim), dtype)
        with self._threads(len(out) * _per_row(feature_map)):
            self._operations.transform(self._map(feature_map, dtype), X, rows, out, self._tile_rows(feature_map, dtype))
        return out

    def accumulate(
        self,
        feature_map: MapStages,
        X: AnyArray,
        Y: AnyArray,
        gram: Any,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``."""
        p = feature_map.output_dim
        with self._threads((X.shape[0] if rows is None else len(rows)) * (_per_row(feature_map) + p * p)):
            self._operations.accumulate(
                self._map(feature_map, dtype), X, rows, _taken(Y), gram, cross, self._tile_rows(feature_map, dtype)
            )
        return products_in(dtype)

    def symmetrize(self, gram: FloatArray) -> None:
        """See ``Backend.symmetrize``."""
        with self._threads(gram.size):
            self._operations.symmetrize(gram)

    def ridge_path(
        self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float, overwrite: bool = False
    ) -> PathSolution:
        """All lambdas in one call, see ``Backend.ridge_path``."""
        nonfinite = nonfinite_path(gram, cross, lambdas)
        if nonfinite is not None:
            return nonfinite
        weights = np.empty((len(lambdas), *cross.shape))
        positive_definite, resolved = np.empty((2, len(lambdas)), dtype=bool)
        with self._threads(path_operations(len(cross), len(gram), len(lambdas))):
            largest = self._operations.ridge_path(
                gram if overwrite else gram.copy(), cross, lambdas, rounding, weights, positive_definite, resolved
            )
            return PathSolution(weights, positive_definite, resolved, largest, *path_sums(weights, cross))

    def degrees_of_freedom(self, gram: FloatArray, lambdas: FloatArray) -> FloatArray:
        """A band of G, and the diagonal of its inverse for every lambda, see ``Backend.degrees_of_freedom``."""
        degrees = np.full(len(lambdas), np.nan)
        if np.isfinite(gram).all():
            with self._threads(2.0 * len(gram) ** 3):
                self._operations.degrees_of_freedom(gram.copy(), lambdas, degrees)
        return degrees

    def score_path(
        self,
        feature_map: MapStages,
        X: AnyArray,
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        correct = np.empty(len(weights), dtype=np.int64)
        models = _taken(models_on_host(weights), dtype)
        with self._threads((X.shape[0] if rows is None else len(rows)) * (_per_row(feature_map) + 2 * models.size)):
            taken, tile = _taken(labels), self._tile_rows(feature_map, dtype)
            self._operations.score_path(self._map(feature_map, dtype), X, rows, taken, models, correct, tile)
        return correct

    def solve_spd(self, A: FloatArray, B: FloatArray) -> FloatArray:
        """See ``Backend.solve_spd``."""
        if B.size == 0:
            return np.zeros(B.shape)
        n, r = B.shape[-2:]
        factors = np.array(A, dtype=np.float64, order="C").reshape(-1, n, n)
        columns = np.array(np.swapaxes(B, -1, -2), dtype=np.float64, order="C").reshape(-1, r, n)
        each = n * n * (n / 3 + 2.0 * r)
        with self._threads(len(factors) * each, blas=each):
            self._operations.solve_spd(factors, columns)
        return np.swapaxes(columns.reshape(*B.shape[:-2], r, n), -1, -2)

    def preimage_solve(self, weight: Matrix, rhs: Any, *, overwrite: bool = False) -> Any:
        """Transposed rounds for structured weights, a factorisation for dense ones, see ``Backend``."""
        shape = (len(rhs), weight.shape[1])
        if isinstance(weight, HadamardWeight):
            X = np.empty(shape)
            form = structured(weight, np.dtype(np.float64))
            with self._threads(100.0 * X.size):
                self._operations.hadamard_solve(*form, _taken(rhs, np.float64), X)
            return X
        floor = rcond_floor(weight.shape)
        dense = self._preimage_weight(weight)
        copy = np.require(rhs if overwrite else np.array(rhs), np.float64, ["C", "A", "W"])
        X = copy if copy.shape == shape else np.empty(shape)  # a square system is solved in place
        with self._threads(weight.size * (weight.shape[1] + 2.0 * len(rhs))):
            rcond = self._operations.preimage_solve(dense, copy, X, floor)
        check_rank(weight, rcond, floor)
        return X

    def _threads(self, operations: float, *, blas: float | None = None) -> AbstractContextManager[None]:
        """Around an operation: as many threads of the host as it is worth; ``blas`` operations of each of its calls."""
        return nullcontext()

    def _preimage_weight(self, weight: AnyArray) -> AnyArray:
        """A copy that the factorisation may overwrite."""
        return np.array(weight, dtype=np.float64, order="C")

    def _tile_rows(self, feature_map: MapStages, dtype: np.dtype[Any]) -> int:
        return tile_rows(feature_map, dtype)

    def _dense(self, weight: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
        """A dense weight as the compiled operations take it."""
        return _taken(weight, dtype)

    def _map(self, feature_map: MapStages, dtype: np.dtype[Any]) -> Any:
        kind = self._module.FeatureMapF32 if dtype == np.float32 else self._module.FeatureMapF64

        def cast(array: AnyArray | None, to: npt.DTypeLike = dtype) -> AnyArray | None:
            return None if array is None else _taken(array, to)

        layers = []
        for layer in feature_map.layers:
            weight = matrix_of(layer)
            form = structured(weight, dtype) if isinstance(weight, HadamardWeight) else self._dense(weight, dtype)
            layers.append((form, cast(layer.bias), ACTIVATIONS[layer.activation], layer.parameter))
        scale, shift = (cast(factor, np.float64) for factor in (feature_map.scale, feature_map.shift))
        return kind(feature_map.input_dim, scale, shift, layers)


def _taken(array: AnyArray, dtype: npt.DTypeLike | None = None) -> AnyArray:
    """The array itself, or a copy that is contiguous and aligned to its items: one from another process may not be."""
    return np.require(array, dtype, ["C", "A"])


def _per_row(feature_map: MapStages) -> float:
    """Operations for the features of one row, roughly."""
    wide = [feature_map.input_dim]
    products = 0.0
    for layer in feature_map.layers:
        p, d = matrix_of(layer).shape
        wide.append(p)
        products += _ELEMENTWISE * d if isinstance(layer.weight, HadamardWeight) else 2.0 * p * d
    return products + _ELEMENTWISE * sum(wide)


def check_rank(weight: Matrix, rcond: float, floor: float) -> None:
    """Raises NotSurjective for weights whose reciprocal condition number is below the floor."""
    if not rcond >= floor:
        raise rank_deficient(weight.shape)


def structured(weight: HadamardWeight, dtype: np.dtype[Any]) -> tuple[AnyArray, AnyArray]:
    """(diagonals, scale) as the compiled modules take them."""
    return weight.diagonals.astype(dtype), weight.scale.astype(dtype)
