"""Samples that are converted, or fetched, a block of rows at a time: no whole copy is made.

Bytes, float32 and float64 with contiguous rows are taken as they are. ``RowSource`` stands for everything else: arrays
of other types and layouts, sparse matrices, data frames, files.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

__all__ = [
    "ConvertedRows",
    "FrameRows",
    "RowSource",
    "SparseRows",
    "as_slice",
    "block_rows",
    "blocks",
    "check_finite",
    "common_dtype",
]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
_BLOCK_BYTES = 32 << 20
_HALF_INFINITY = 0x7C00  # the bits of float16 above which a number is not finite
_CACHED_NUMBERS = 1 << 17  # of two bytes, twice
_LARGEST_INTEGER = 1 << 53  # that float64 represents, with all below it


class RowSource(ABC):
    """n samples of one shape, read as uint8, float32 or float64.

    Parameters
    ----------
    shape : tuple of int
        (n, *shape of a sample).
    dtype : numpy dtype
        Of what ``read`` gives.

    Attributes
    ----------
    columns : tuple of str, or None
        Names of the entries of a sample, of data frames with a column a feature.
    """

    columns: tuple[str, ...] | None = None
    _where = "X"  # what messages begin with: the function, or the file

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)

    @abstractmethod
    def fetch(self, rows: IntArray) -> Array:
        """Some samples, in any numeric type and any shape of their size."""

    @property
    def half(self) -> Array | None:
        """The samples (n, d) where they are, if those are float16 with contiguous rows; else None."""
        return None

    @property
    def ndim(self) -> int:
        """Dimensions of the whole, n included."""
        return len(self.shape)

    @property
    def width(self) -> int:
        """d, the number of entries of one sample."""
        return math.prod(self.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: IntArray, out: Array | None = None) -> Array:
        """Rows as a C-contiguous, aligned array (r, d) of ``dtype``, ``out`` where it is given."""
        found = np.asarray(self.fetch(rows)).reshape(len(rows), self.width)
        if out is None:
            out = np.require(found, self.dtype, ["C", "A"])
        else:
            out[...] = found
        try:
            return check_finite(out, rows)
        except DataError as error:
            raise DataError(f"{self._where}: X: {error}") from error

    def __getitem__(self, rows: Any) -> Array:
        """The picked samples with their shape, as an array."""
        picked = np.arange(len(self))[rows]
        found = self.read(np.atleast_1d(picked)).reshape(-1, *self.shape[1:])
        return found if np.ndim(picked) else found[0]

    def reshape(self, n: int, *shape: int) -> RowSource:
        """The same samples with another shape of their entries."""
        if n != self.shape[0] or math.prod(shape) != self.width:
            raise ValueError(f"{n} samples of shape {shape} are not {self.shape[0]} of {self.width} entries")
        return self if shape == self.shape[1:] else _Reshaped(self, shape)

    def picked(self, rows: IntArray) -> RowSource:
        """Some of the samples, read when they are needed."""
        return _Picked(self, rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, {self.dtype})"


class _Reshaped(RowSource):
    def __init__(self, source: RowSource, shape: tuple[int, ...]) -> None:
        super().__init__((len(source), *shape), source.dtype)
        self._source, self.columns, self._where = source, source.columns, source._where

    def fetch(self, rows: IntArray) -> Array:
        return self._source.fetch(rows)

    @property
    def half(self) -> Array | None:
        return self._source.half


class _Picked(RowSource):
    def __init__(self, source: RowSource, rows: IntArray) -> None:
        super().__init__((len(rows), *source.shape[1:]), source.dtype)
        self._source, self._rows, self.columns, self._where = source, rows, source.columns, source._where

    def fetch(self, rows: IntArray) -> Array:
        return self._source.fetch(self._rows[rows])


class ConvertedRows(RowSource):
    """An array of another type or layout: float16, integers, columns in Fortran order; a memory map stays one."""

    def __init__(self, where: str, array: Array) -> None:
        super().__init__(array.shape, common_dtype([array.dtype]))
        self._where, self._array = where, array

    @property
    def half(self) -> Array | None:
        """The array itself, where it is float16 with contiguous rows."""
        array = self._array
        stored = array.dtype == np.float16 and array.dtype.isnative and array.flags.aligned
        return array.reshape(len(array), self.width) if stored and array[:1].flags.c_contiguous else None

    def fetch(self, rows: IntArray) -> Array:
        """A view where the rows follow each other. Raises DataError for integers that float64 cannot hold."""
        found = np.asarray(self._array[as_slice(rows)])
        large = found.dtype.kind in "iu" and found.dtype.itemsize > 4 and found.size > 0
        if large and max(abs(int(found.min())), abs(int(found.max()))) > _LARGEST_INTEGER:
            raise DataError(f"{self._where}: X holds integers beyond 2**53, which float64 cannot represent")
        return found


class SparseRows(RowSource):
    """A sparse matrix of SciPy, dense a block at a time."""

    def __init__(self, where: str, matrix: Any) -> None:
        self._where, self._matrix = where, matrix.tocsr()
        super().__init__(matrix.shape, common_dtype([matrix.dtype]))

    def fetch(self, rows: IntArray) -> Array:
        """Dense rows."""
        return np.asarray(self._matrix[as_slice(rows)].toarray())


class FrameRows(RowSource):
    """A data frame: a column a feature, or one column of vectors."""

    def __init__(self, where: str, frame: Any) -> None:
        from .frames import numeric_block

        if not hasattr(frame, "iter_columns"):  # a series
            if frame.dtype.is_numeric():
                raise TypeError(
                    f"{where}: X is one column of numbers, or one row; pass a frame with a column a feature"
                )
            frame = frame.to_frame()
        self._where, self._frame, self._block = where, frame, numeric_block
        first = self._block(where, frame[:1])
        kinds = [_dtype_of(column) for column in frame.iter_columns()]
        names, vectors = frame.columns, first.shape[1] != len(kinds) or object in kinds
        kinds = [first.dtype] if vectors else kinds  # one column of vectors
        super().__init__((len(frame), first.shape[1]), common_dtype(kinds))
        if not vectors and all(isinstance(name, str) for name in names):  # pandas numbers columns without names
            self.columns = tuple(names)

    def fetch(self, rows: IntArray) -> Array:
        """The numbers of some rows."""
        return self._block(self._where, self._frame[as_slice(rows)])


def _dtype_of(column: Any) -> np.dtype[Any]:
    return np.asarray(column[:1].to_numpy()).dtype


def check_finite(samples: Array, rows: IntArray) -> Array:
    """The samples (r, d) themselves; raises DataError with the first of ``rows`` that holds NaN or infinity."""
    if samples.dtype == np.float16 and _finite_halves(samples):
        return samples
    if samples.dtype.kind == "f":
        finite = np.isfinite(samples)
        if not finite.all():
            raise DataError(f"row {rows[int(finite.all(axis=1).argmin())]} holds NaN or infinity")
    return samples


def _finite_halves(samples: Array) -> bool:
    """Whether float16 numbers (r, d) are finite, by their bits, several times faster; some rows at a time, in cache."""
    step = max(1, _CACHED_NUMBERS // max(1, samples.shape[1]))
    parts = (samples[start : start + step].view(np.uint16) for start in range(0, len(samples), step))
    return all(int((part & 0x7FFF).max(initial=0)) < _HALF_INFINITY for part in parts)


def as_slice(rows: IntArray) -> Any:
    """Rows that follow each other as a slice, so that they are not copied."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def common_dtype(dtypes: Any) -> np.dtype[Any]:
    """uint8, float32 or float64: the smallest that holds all of these types exactly, as far as float64 can.

    Raises TypeError for types that are no real numbers.
    """
    found = set()
    for dtype in map(np.dtype, dtypes):
        if dtype == np.uint8:
            found.add("uint8")
        elif dtype.kind in "iuf" or dtype.kind == "b" or "float" in dtype.name:  # bfloat16 too
            wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
            found.add("float64" if wide else "float32")
        else:
            raise TypeError(f"must hold real numbers, got dtype {dtype}")
    if len(found) == 1:
        return np.dtype(found.pop())
    return np.dtype("float64" if "float64" in found else "float32")


def block_rows(width: int, itemsize: int, multiple: int = 1) -> int:
    """How many rows of ``width`` entries a block has: about 32 MiB, a multiple of a tile's rows."""
    return max(1, _BLOCK_BYTES // max(1, width * itemsize * multiple)) * multiple


def blocks(X: Any, rows: IntArray | None = None) -> Iterator[tuple[IntArray, Array]]:
    """(rows, their samples (r, d)) of an array or ``RowSource`` (n, ...), about 32 MiB each."""
    chosen = np.arange(X.shape[0]) if rows is None else rows
    width = math.prod(X.shape[1:])
    step = block_rows(width, X.dtype.itemsize)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        yield part, X.read(part) if isinstance(X, RowSource) else X[as_slice(part)].reshape(len(part), width)
