"""How statistics hold G: as a sum, or as feature rows while there are fewer rows than features.

Both classes have one interface: ``add_weighted``, ``gram``, ``matrix``, ``trace``, ``squares``, ``holds``, ``merged``,
``summed``, ``arrays``, ``packed_on``, ``copied``, ``placed``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, PackedGram, Products, ResidentGram, products_in
from krrdistill.common.arrays import take_rows, to_host
from krrdistill.common.memory import require_memory
from krrdistill.common.products import product
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap, Identity

__all__ = ["FeatureRows", "SummedGram", "store_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_WEIGHTED_ROWS = 2048  # rows whose features are held at once while they are multiplied by their weights


class _Part(NamedTuple):
    """Samples times the roots of their weights."""

    features: npt.NDArray[Any]  # (r, p)
    targets: FloatArray  # (r, k + 1), the last column of ones


class SummedGram:
    """G (p, p), where a backend sums it; between two looks at it only its lower triangle is kept up.

    A packed triangle stays one until a matrix is needed, so that parts on their way are added without unpacking them.
    """

    def __init__(self, gram: FloatArray | ResidentGram) -> None:
        self._matrix: FloatArray | ResidentGram | None = gram
        self._triangle: FloatArray | None = None  # in place of the matrix
        self._shared = False  # others have this triangle, too: it is not written to
        self._symmetric = False

    @staticmethod
    def of_triangle(packed: FloatArray) -> SummedGram:
        """From the packed lower triangle, to which nobody writes."""
        made = SummedGram(np.empty((0, 0)))
        made._matrix, made._triangle, made._shared = None, packed, True
        return made

    @property
    def _gram(self) -> FloatArray | ResidentGram:
        """The matrix, unpacked when it is first needed."""
        if self._matrix is None:
            assert self._triangle is not None
            self._matrix, self._triangle = _unpacked(self._triangle), None
        return self._matrix

    @_gram.setter
    def _gram(self, gram: FloatArray | ResidentGram) -> None:
        self._matrix, self._triangle = gram, None

    @staticmethod
    def zero(p: int, backend: Backend) -> SummedGram:
        """G of no samples. Raises MemoryError, with the bytes, where it does not fit."""
        require_memory("statistics", f"G of {p} x {p} features in float64", 8 * p * p)
        return SummedGram(backend.zero_gram(p))

    def gram(self, backend: Backend) -> FloatArray:
        """G, symmetric, in host memory."""
        if not isinstance(self._gram, np.ndarray):
            return np.asarray(self._gram)
        if not self._symmetric:
            backend.symmetrize(self._gram)
            self._symmetric = True
        return self._gram

    def matrix(self, backend: Backend) -> FloatArray | ResidentGram:
        """G, symmetric, where it is."""
        return self.gram(backend) if isinstance(self._gram, np.ndarray) else self._gram

    def trace(self) -> float:
        """Trace of G."""
        return float(self._gram.trace())

    def holds(self, X: npt.NDArray[Any]) -> bool:
        """Whether X may be a part of G."""
        return isinstance(self._matrix, np.ndarray) and np.may_share_memory(self._matrix, X)

    def squares(self) -> FloatArray:
        """The diagonal of G, a copy."""
        return np.array(np.asarray(self._gram).diagonal())

    def add(
        self,
        backend: Backend,
        feature_map: FeatureMap,
        X: Any,
        targets: npt.NDArray[Any],
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """G += phi^T phi, cross += targets^T phi, targets of all rows of X; returns how products were formed."""
        self._symmetric = False
        self._gram = backend.own_gram(self._gram)
        return backend.accumulate(feature_map, X, targets, self._gram, cross, dtype=dtype, rows=rows)

    def add_weighted(
        self,
        backend: Backend,
        feature_map: FeatureMap,
        X: Any,
        targets: FloatArray,
        weights: FloatArray | None,
        cross: FloatArray,
        *,
        host: Backend,
        dtype: np.dtype[Any],
        rows: IntArray,
    ) -> Products:
        """``add`` with targets (r, k + 1) of the picked rows and their weights (r,); the last target is 1.

        ``host`` sums weighted features, which are in host memory wherever X is.
        """
        if weights is None:
            return self.add(backend, feature_map, take_rows(X, rows), targets, cross, dtype=dtype)
        used = products_in(dtype)
        for part in _features(backend, feature_map, X, targets, weights, dtype, rows):
            used = used.worse(self._add_part(host, part, cross))
        return used

    def _add_part(self, host: Backend, part: _Part, cross: FloatArray) -> Products:
        return self.add(host, Identity(len(self._gram)), part.features, part.targets, cross, dtype=part.features.dtype)

    def merged(
        self, other: SummedGram | FeatureRows, backend: Backend, sign: int = 1, *, shift: FloatArray | None = None
    ) -> SummedGram:
        """G += sign G_other, in place."""
        theirs = other.summed(backend)
        add = np.add if sign > 0 else np.subtract
        if self._triangle is not None and theirs._triangle is not None:
            self._triangle = add(self._triangle, theirs._triangle, out=None if self._shared else self._triangle)
            self._shared = False
            return self
        if not isinstance(self._gram, np.ndarray):
            self._gram.add(theirs._gram, sign)
            return self
        self._symmetric = self._symmetric and theirs._symmetric
        add(self._gram, np.asarray(theirs._gram), out=self._gram)
        return self

    def summed(self, backend: Backend) -> SummedGram:
        """Itself."""
        return self

    def arrays(self, k: int) -> dict[str, FloatArray]:
        """The packed lower triangle of G, whatever k is; read-only where these statistics hold it, too."""
        if self._triangle is None:
            return {"gram": _packed(np.asarray(self._gram))}
        self._shared, shown = True, self._triangle.view()
        shown.setflags(write=False)
        return {"gram": shown}

    def packed_on(self, device: int, room: int) -> PackedGram | None:
        """What ``arrays`` gives, behind ``room`` numbers, if G is on this CUDA device: it stays there."""
        gram = self._matrix
        if gram is None or isinstance(gram, np.ndarray) or gram.device != device:
            return None
        return gram.packed(room)

    def copied(self) -> SummedGram:
        """A copy with its own G."""
        if self._triangle is not None:
            return SummedGram.of_triangle(self._triangle.copy())
        other = SummedGram(self._gram.copy())
        other._symmetric = self._symmetric
        return other

    def placed(self, positions: IntArray, k: int) -> SummedGram:
        """Itself: G does not depend on the targets."""
        return self

    def clear(self) -> None:
        """Removes all samples."""
        if isinstance(self._gram, np.ndarray):
            self._gram[:] = 0.0
        else:
            self._gram.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matrix": np.asarray(self._gram), "_triangle": None}


class FeatureRows:
    """Feature rows and targets of fewer than p samples: ridge regression then solves systems of that order."""

    def __init__(self, p: int, parts: tuple[_Part, ...] = ()) -> None:
        self._p = p
        self._parts = parts
        self._formed: FloatArray | None = None

    def __len__(self) -> int:
        return sum(len(part.targets) for part in self._parts)

    def features(self) -> tuple[FloatArray, FloatArray]:
        """(features (n, p), targets (n, k + 1)) in float64, times the roots of their weights."""
        features = np.concatenate([part.features for part in self._parts], dtype=np.float64)
        return features, np.concatenate([part.targets for part in self._parts])

    def gram(self, backend: Backend) -> FloatArray:
        """G, formed when it is first needed."""
        if self._formed is None:
            self._formed = self.summed(backend).gram(backend)
        return self._formed

    def matrix(self, backend: Backend) -> FloatArray:
        """G in host memory."""
        return self.gram(backend)

    def holds(self, X: npt.NDArray[Any]) -> bool:
        """Whether X may be a part of what changes: stored rows do not."""
        return False

    def squares(self) -> FloatArray:
        """The diagonal of G."""
        squares = np.zeros(self._p)
        for part in self._parts:
            squares += np.square(part.features, dtype=np.float64).sum(axis=0)
        return squares

    def trace(self) -> float:
        """Trace of G; inf where it overflows."""
        with np.errstate(over="ignore"):
            return sum(float(np.square(part.features, dtype=np.float64).sum()) for part in self._parts)

    def add_weighted(
        self,
        backend: Backend,
        feature_map: FeatureMap,
        X: Any,
        targets: FloatArray,
        weights: FloatArray | None,
        cross: FloatArray,
        *,
        host: Backend,
        dtype: np.dtype[Any],
        rows: IntArray,
    ) -> Products:
        """Stores the picked rows, except those of weight 0; cross += targets^T diag(w) phi. See ``SummedGram``.

        In float64 whatever ``dtype`` is: so few rows cost little, and their systems are ill-conditioned.
        """
        self._formed, dtype = None, np.dtype(np.float64)
        ones = np.ones(len(rows)) if weights is None else weights
        for part in _features(backend, feature_map, X, targets, ones, dtype, rows):
            cross += product(part.targets.T, part.features)
            counted = part.targets[:, -1] > 0.0
            kept = part if counted.all() else _Part(part.features[counted], part.targets[counted])
            if len(kept.targets):
                self._parts = (*self._parts, kept)
        return products_in(dtype)

    def merged(
        self, other: SummedGram | FeatureRows, backend: Backend, sign: int = 1, *, shift: FloatArray | None = None
    ) -> FeatureRows | SummedGram:
        """Rows of both while they are fewer than p; else G of both. ``shift`` is added to the other's targets."""
        if isinstance(other, FeatureRows) and sign > 0 and len(self) + len(other) < self._p:
            theirs = other._parts
            if shift is not None and shift.any():
                moved = np.append(shift, 0.0)
                theirs = tuple(part._replace(targets=part.targets + part.targets[:, -1:] * moved) for part in theirs)
            return FeatureRows(self._p, (*self._parts, *theirs))
        return self.summed(backend).merged(other, backend, sign)

    def summed(self, backend: Backend) -> SummedGram:
        """Their G; ``backend`` works on host memory."""
        made = SummedGram.zero(self._p, backend)
        for part in self._parts:
            made._add_part(backend, part, np.zeros((part.targets.shape[1], self._p)))
        return made

    def arrays(self, k: int) -> dict[str, FloatArray]:
        """The rows, and their k targets."""
        if not self._parts:
            return {"features": np.empty((0, self._p)), "targets": np.empty((0, k + 1))}
        features, targets = self.features()
        return {"features": features, "targets": targets}

    def packed_on(self, device: int, room: int) -> None:
        """Rows are in host memory."""

    def copied(self) -> FeatureRows:
        """A copy that shares the parts, which are never written to."""
        return FeatureRows(self._p, self._parts)

    def placed(self, positions: IntArray, k: int) -> FeatureRows:
        """The same rows where target c is target positions[c] of k; the others are 0."""
        parts = []
        for part in self._parts:
            targets = np.zeros((len(part.targets), k + 1))
            targets[:, np.append(positions, k)] = part.targets
            parts.append(part._replace(targets=targets))
        return FeatureRows(self._p, tuple(parts))


def store_of(arrays: Mapping[str, FloatArray], p: int) -> SummedGram | FeatureRows:
    """The store that ``arrays`` were made from."""
    if "gram" in arrays:
        packed = arrays["gram"]
        return SummedGram(_unpacked(packed)) if packed.flags.writeable else SummedGram.of_triangle(packed)
    part = _Part(arrays["features"], arrays["targets"])
    return FeatureRows(p, (part,) if len(part.targets) else ())


def _packed(gram: FloatArray) -> FloatArray:
    """The lower triangle of G (p, p), row after row."""
    p = len(gram)
    packed = np.empty(p * (p + 1) // 2)
    for i in range(p):
        packed[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2] = gram[i, : i + 1]
    return packed


def _unpacked(packed: FloatArray) -> FloatArray:
    """G (p, p) with its lower triangle filled."""
    p = math.isqrt(2 * len(packed))  # p^2 <= p (p + 1) < (p + 1)^2
    gram = np.zeros((p, p))
    for i in range(p):
        gram[i, : i + 1] = packed[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
    return gram


def _features(
    backend: Backend,
    feature_map: FeatureMap,
    X: Any,
    targets: FloatArray,
    weights: FloatArray,
    dtype: np.dtype[Any],
    rows: IntArray,
) -> Any:
    """Yields parts of at most 2048 picked rows: features and targets times the roots of the weights."""
    for start in range(0, len(rows), _WEIGHTED_ROWS):
        part = slice(start, start + _WEIGHTED_ROWS)
        root = np.sqrt(weights[part])[:, None]
        features = backend.transform(feature_map, X, dtype=dtype, rows=rows[part])
        features = to_host("statistics.update", "X", features)
        with np.errstate(over="ignore", invalid="ignore"):
            weighted = _Part(features * root.astype(dtype), targets[part] * root)
        if not np.isfinite(weighted.features).all():
            raise DataError(f"statistics.update: weighted features overflow {dtype.name}; scale the weights")
        yield weighted
