"""A stream of batches in one pass: blocks of whole tiles, held-out rows by row number, reading beside computing."""

from __future__ import annotations

import mmap
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends.tiles import FLUSH_ROWS
from krrdistill.common.arrays import check_count, check_number, check_seed, host_rows, take_rows
from krrdistill.common.random import Stream, uniform
from krrdistill.common.rows import RowSource, as_slice, check_finite
from krrdistill.common.samples import as_samples, check_columns, check_shape, columns_of, sample_shape
from krrdistill.common.warning import user_context, warn
from krrdistill.data.batches import Batch
from krrdistill.errors import DataError, DataWarning

__all__ = ["Block", "Rows", "Split", "StreamPlace", "Training", "blocks", "is_held_out", "read_ahead"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
T = TypeVar("T")
_BLOCK_BYTES = 64 << 20  # of a block: after each, its G is added to the sum
_AHEAD = 2  # blocks: some take longer to read than the one before them to sum
_MOST_BYTES = 256 << 20  # at most; of wider samples a block has fewer rows than a sum in float32


class Rows(NamedTuple):
    """Samples (r, *shape), their codes or targets, and their weights or None."""

    X: Any
    y: Array
    sample_weight: Array | None


class Training(NamedTuple):
    """Rows to train on, all or some of those of a part of a stream."""

    rows: Rows
    chosen: IntArray | None = None  # of the rows; None for all
    where: str = "statistics.update"  # what messages about them begin with


class Block(NamedTuple):
    """Rows to train on and rows held out, which follow each other in the stream."""

    training: Training | None
    held_out: Rows | None
    first_row: int
    rows_read: int  # row number behind the last
    columns: tuple[str, ...] | None
    labels: int  # CRC-32 of the labels of the stream up to there


def is_held_out(fraction: float, seed: int, first_row: int, n: int) -> npt.NDArray[np.bool_]:
    """Which of n rows that follow each other are held out: those whose number has a hash below the fraction."""
    return np.asarray(uniform(seed, Stream.HELD_OUT, n, first=first_row) < fraction)


@dataclass
class Split:
    """The rows of a stream that are held out, at most so many.

    Parameters
    ----------
    fraction : float
    seed : int
    most : int
        No row is held out after so many, which is said once.
    """

    fraction: float
    seed: int
    most: int
    _count: int = field(default=0, init=False)

    def held_out(self, first_row: int, n: int) -> npt.NDArray[np.bool_]:
        """Which of n rows of the stream are; they must be asked for in order."""
        if self.fraction == 0.0 or self._count > self.most:
            return np.zeros(n, dtype=bool)
        chosen = is_held_out(self.fraction, self.seed, first_row, n)
        rank = self._count + np.cumsum(chosen)
        self._count += int(chosen.sum())
        if self._count > self.most:
            warn(
                f"update_batches: {self.most} rows are held out; all from row "
                f"{first_row + int(np.argmax(rank > self.most))} on are trained on (max_held_out=, or "
                "held_out='statistics', which keeps no rows)",
                DataWarning,
            )
        return chosen & (rank <= self.most)


class StreamPlace(NamedTuple):
    """How the rows of a stream are split, and the CRC-32 of the labels read so far: a resumed stream repeats both."""

    holdout: float
    seed: int
    first_row: int
    max_held_out: int | None  # None: no limit
    labels: int = 0

    @staticmethod
    def from_json(found: Any) -> StreamPlace | None:
        """Raises ValueError, TypeError, KeyError for what ``_asdict`` did not make."""
        if found is None:
            return None
        place = StreamPlace(**{name: found[name] for name in StreamPlace._fields})
        check_number("stream", "holdout", place.holdout)
        check_seed("stream", place.seed)
        for name in ("first_row", "labels"):
            check_count("stream", name, getattr(place, name), minimum=0)
        if place.max_held_out is not None:
            check_count("stream", "max_held_out", place.max_held_out, minimum=0)
        return place

    def check_split(self, where: str, other: StreamPlace) -> None:
        """Raises ValueError where a stream that goes on would be split in another way than so far."""
        for name in ("holdout", "seed", "first_row", "max_held_out"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(
                    f"{where}: the rows before skip were read with {name}={ours}, not {theirs}; resume with the same, "
                    "or rows that were trained on are held out"
                )


@dataclass
class _Labels:
    """CRC-32 of the labels of a stream up to a row; those before the row ``resumed`` must be the ones of ``before``."""

    row: int
    resumed: int
    before: StreamPlace | None
    value: int = field(default=0, init=False)

    def up_to(self, row: int, y: Array, first_row: int) -> int:
        """Goes on to a row; y are the labels from ``first_row`` on."""
        self.value = zlib.crc32(np.ascontiguousarray(y[self.row - first_row : row - first_row]).data, self.value)
        self.row = row
        return self.value

    def check(self, where: str, y: Array, first_row: int) -> None:
        """Raises DataError where a resumed stream does not begin as before."""
        if self.before is None or not first_row < self.resumed <= first_row + len(y):
            return
        if self.up_to(self.resumed, y, first_row) != self.before.labels:
            raise DataError(
                f"{where}: the labels before skip are not those that were read before; resume with the same rows in "
                "the same order (a DataLoader with shuffle=True has another order each time)"
            )


class _Staging:
    """Rows of batches until they make a block."""

    def __init__(self, batch: Rows, dtype: np.dtype[Any], width: int) -> None:
        rows = _block_rows(width, dtype)
        self.X = np.empty((rows, width), dtype)
        self.y = np.empty((rows, *batch.y.shape[1:]), batch.y.dtype)
        self.sample_weight = None if batch.sample_weight is None else np.empty(rows)
        self.used = 0

    @property
    def room(self) -> int:
        return len(self.X) - self.used

    def put(self, where: str, batch: Rows, rows: IntArray) -> None:
        place = slice(self.used, self.used + len(rows))
        _read(where, batch.X, rows, self.X[place])
        self.y[place] = batch.y[rows]
        if self.sample_weight is not None and batch.sample_weight is not None:
            self.sample_weight[place] = batch.sample_weight[rows]
        self.used += len(rows)

    def taken(self, shape: tuple[int, ...]) -> Training:
        n = self.used
        weight = None if self.sample_weight is None else self.sample_weight[:n]
        return Training(Rows(self.X[:n].reshape(n, *shape), self.y[:n], weight))


def _block_rows(width: int, dtype: np.dtype[Any]) -> int:
    """Training rows of a block: whole sums in float32."""
    row = width * dtype.itemsize
    rows = max(1, _BLOCK_BYTES // (row * FLUSH_ROWS)) * FLUSH_ROWS
    return rows if rows * row <= _MOST_BYTES else max(1, _MOST_BYTES // row)


def _in_file(X: Any) -> Array | None:
    """Samples (n, d) that may be summed where they are, later: in a memory map that nobody can write to; else None."""
    array = X.half if isinstance(X, RowSource) else X
    owner = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    fixed = isinstance(owner, mmap.mmap) and memoryview(owner).readonly
    return np.asarray(array) if fixed and array is not None and array.flags.c_contiguous else None


def _in_place(where: str, batch: Rows, in_file: Array, rows: IntArray, shape: tuple[int, ...]) -> Training:
    """The rows of a batch: samples from the first to the last where they are, and copies of what may change."""
    place = slice(int(rows[0]), int(rows[-1]) + 1)
    weight = None if batch.sample_weight is None else batch.sample_weight[place].copy()
    return Training(Rows(in_file[place].reshape(-1, *shape), batch.y[place].copy(), weight), rows - rows[0], where)


def _fetch(X: Array, rows: IntArray) -> None:
    """Has the pages of rows that follow each other, but for a few, read from their file."""
    numbers = X[rows[0] : rows[-1] + 1].reshape(-1).view(np.uint8)
    numbers[:: mmap.PAGESIZE].max(initial=0)


def _half_or_dtype(X: Any) -> Any:
    """The type of samples, on any device: float16 where they are converted from it."""
    half = X.half if isinstance(X, RowSource) else None
    return X.dtype if half is None else half.dtype


def _stored_as(X: Any) -> np.dtype[Any]:
    """The type that samples are staged in: float16 as it is, which a backend widens where it is used."""
    found: np.dtype[Any] = np.dtype(_half_or_dtype(X))
    return found


def _read(where: str, X: Any, rows: IntArray, out: Array) -> Array:
    """Rows of samples in host memory into ``out``, converted on the way. Raises DataError for NaN."""
    if isinstance(X, RowSource):
        half = X.half if out.dtype == np.float16 else None
        if half is None:
            return X.read(rows, out)
        X = half
    place = as_slice(rows)
    if isinstance(place, slice) or not X.flags.c_contiguous:
        out[...] = X[place]
    else:
        np.take(X, rows, axis=0, out=out, mode="clip")  # any other mode copies twice
    try:
        return check_finite(out, rows)
    except DataError as error:
        raise DataError(f"{where}: X: {error}") from error


def blocks(
    where: str,
    batches: Iterable[Batch],
    *,
    input_dim: int,
    columns: tuple[str, ...] | None,
    read_y: Callable[[str, Any, int], Array],
    read_weight: Callable[[str, Any, int], Array],
    split: Split,
    first_row: int,
    skip: int,
    before: StreamPlace | None,
) -> Iterator[Block]:
    """The rows of a stream in blocks whose ends do not depend on those of the batches.

    Rows before ``first_row + skip`` are passed over, but for those held out; their labels must be those of ``before``.
    Batches on a device are blocks of their own. Rows are copied, as whoever yields a batch may use its memory again;
    but for memory maps, where a whole block is in one batch.
    """
    labels = _Labels(first_row, first_row + skip, before)
    row = at = first_row  # the next row, and the first of the block
    shape: tuple[int, ...] = ()
    first: Rows | None = None
    staged: _Staging | None = None
    held: list[Rows] = []
    for number, (X, y, weight) in enumerate(batches):
        here = f"{where}: batch {number} (from row {row})"
        samples = as_samples(here, X, input_dim=input_dim)
        columns = _known_columns(here, columns, samples)
        n = samples.shape[0]
        if n == 0:
            continue
        batch = Rows(samples, read_y(here, y, n), None if weight is None else read_weight(here, weight, n))
        found = sample_shape(X, input_dim)
        shape, first = shape or found, first or batch
        _check_alike(here, first, batch, shape, found)
        labels.check(where, batch.y, row)
        out = split.held_out(row, n)
        train = np.flatnonzero(~out & (np.arange(row, row + n) >= first_row + skip))
        on_host = isinstance(samples, (np.ndarray, RowSource))
        in_file, done = _in_file(samples) if on_host else None, 0
        while len(train):
            room = n if not on_host else staged.room if staged else _block_rows(input_dim, _stored_as(samples))
            part, train = train[:room], train[room:]
            end = int(part[-1]) + 1
            if not on_host:
                if staged is not None:
                    yield Block(staged.taken(shape), _joined(held), at, row, columns, labels.value)
                    at, held = row, []
                full, end = Training(Rows(take_rows(samples, part), batch.y[part], _at(batch.sample_weight, part))), n
            elif staged is None and in_file is not None and len(part) == room:
                _fetch(in_file, part)
                full = _in_place(f"batch {number} (from row {row + part[0]})", batch, in_file, part, shape)
            else:
                staged = staged or _Staging(batch, _stored_as(samples), input_dim)
                staged.put(here, batch, part)
                if staged.room:
                    break
                full = staged.taken(shape)
            held += _held(here, batch, out, done, end, shape)
            yield Block(full, _joined(held), at, row + end, columns, labels.up_to(row + end, batch.y, row))
            staged, held, at, done = None, [], row + end, end
        held += _held(here, batch, out, done, n, shape)
        labels.up_to(row + n, batch.y, row)
        row += n
    if row > at:
        yield Block(None if staged is None else staged.taken(shape), _joined(held), at, row, columns, labels.value)


def _known_columns(here: str, columns: tuple[str, ...] | None, samples: Any) -> tuple[str, ...] | None:
    """The columns of all batches. Raises DataError where those of ``samples`` are others."""
    check_columns(here, columns, samples)
    return columns or columns_of(samples)


def _check_alike(here: str, first: Rows, batch: Rows, shape: tuple[int, ...], found: tuple[int, ...]) -> None:
    """Raises DataError for a batch of another kind than the first, or of samples of another shape."""
    check_shape(here, shape, found)
    for what, ours, theirs in (("X", first.X, batch.X), ("y", first.y, batch.y)):
        kinds = [_half_or_dtype(array) for array in (ours, theirs)]
        if kinds[0] != kinds[1]:
            raise DataError(f"{here}: {what} is {kinds[1]}, in the first batch it was {kinds[0]}")
    if (first.sample_weight is None) != (batch.sample_weight is None):
        raise DataError(f"{here}: all batches must have a sample_weight, or none")


def _at(array: Array | None, rows: Any) -> Array | None:
    return None if array is None else array[rows]


def _held(
    here: str, batch: Rows, out: npt.NDArray[np.bool_], start: int, stop: int, shape: tuple[int, ...]
) -> list[Rows]:
    """Copies of the held-out rows between two places of a batch."""
    rows = start + np.flatnonzero(out[start:stop])
    if not len(rows):
        return []
    if isinstance(batch.X, (np.ndarray, RowSource)):
        samples = _read(here, batch.X, rows, np.empty((len(rows), batch.X.shape[1]), batch.X.dtype))
    else:
        samples = np.array(host_rows(here, batch.X, rows))
    return [Rows(samples.reshape(len(rows), *shape), batch.y[rows], _at(batch.sample_weight, rows))]


def _joined(parts: list[Rows]) -> Rows | None:
    """Parts of a block as one, so that nothing depends on where batches end."""
    if not parts:
        return None
    X, y, weights = zip(*parts, strict=True)
    return Rows(np.concatenate(X), np.concatenate(y), None if weights[0] is None else np.concatenate(weights))


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, read by a thread while those before them are used."""
    end, wait = object(), True
    reader, context = ThreadPoolExecutor(1, thread_name_prefix="krrdistill-reader"), user_context()

    def read() -> T | object:
        return context.run(lambda: next(items, end))

    try:
        coming = deque(reader.submit(read) for _ in range(_AHEAD))
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(read))
            yield item  # type: ignore[misc]
    except KeyboardInterrupt:  # a stream may never answer
        wait = False
        raise
    finally:
        reader.shutdown(wait=wait, cancel_futures=True)
