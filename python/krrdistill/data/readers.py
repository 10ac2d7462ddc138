"""Samples that stay where they are and are read a block at a time: Parquet files, HF datasets, pairs, pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import dtype_name, to_host
from krrdistill.common.frames import frame_of, numeric_block
from krrdistill.common.rows import FrameRows, RowSource, block_rows, common_dtype
from krrdistill.common.warning import warn
from krrdistill.errors import BackendUnavailable, DataError, DataWarning

__all__ = ["HuggingFaceRows", "PairRows", "ParquetRows", "PictureRows", "needed", "pair_labels", "parquet"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
_MODES = ("L", "RGB", "RGBA", "1", "I;16", "I", "F")  # whose numbers are grey levels or colours


def needed(where: str, module: str, install: str) -> BackendUnavailable:
    """The error for a source whose library is missing."""
    return BackendUnavailable(f"{where}: reading it needs {module}: pip install {install}")


def parquet(where: str) -> Any:
    """The module that reads Parquet files."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise needed(where, "pyarrow", '"krrdistill[data]"') from error
    return pyarrow.parquet


_ONE_AT_A_TIME = threading.Lock()  # not of each source: they travel to other processes, which a lock does not


class ParquetRows(RowSource):
    """Columns of Parquet files with one schema, one file after the other.

    One batch of about 32 MiB is held. Ascending rows are read in one pass; a step back starts at the row group again.
    """

    def __init__(self, where: str, files: Sequence[Path], columns: Sequence[str]) -> None:
        self._where, self._columns, self._open = where, list(columns), parquet(where).ParquetFile
        self._groups: list[tuple[Path, int]] = []
        counts, schema = [], None
        for path in files:
            file = self._open(path)
            found = [(name, file.schema_arrow.field(name).type) for name in columns]
            schema = schema or found
            if found != schema:
                (name, kind), (_, first) = next(pair for pair in zip(found, schema, strict=True) if pair[0] != pair[1])
                raise DataError(f"{path}: column {name!r} holds {kind}, in {files[0]} {first}")
            self._groups += [(path, group) for group in range(file.num_row_groups)]
            counts += [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        if not self._starts[-1]:
            raise DataError(f"{where}: has no rows")
        first_row = self._table(next(self._batches(int(np.argmax(counts)), 1)))
        example = FrameRows(where, frame_of(where, "X", first_row))
        super().__init__((int(self._starts[-1]), example.width), example.dtype)
        self.columns = example.columns
        self._group, self._at = -1, 0  # where the current batch is from, and its first row
        self._rest: Iterator[Any] = iter(())
        self._block: Array = np.empty((0, self.width), self.dtype)

    def fetch(self, rows: IntArray) -> Array:
        """Some rows, in the order of the file for as little reading as possible; one thread at a time."""
        with _ONE_AT_A_TIME:
            return self._fetched(rows)

    def _fetched(self, rows: IntArray) -> Array:
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        out, done = np.empty((len(rows), self.width), self.dtype), 0
        while done < len(rows):
            self._advance(int(wanted[done]))
            upto = int(np.searchsorted(wanted, self._at + len(self._block)))
            out[order[done:upto]] = self._block[wanted[done:upto] - self._at]
            done = upto
        return out

    def _advance(self, row: int) -> None:
        """Makes the batch that holds ``row`` the current one."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or row < self._at:
            self._rest = self._batches(group, block_rows(self.width, self.dtype.itemsize))
            self._group, self._at, self._block = group, int(self._starts[group]), self._block[:0]
        while row >= self._at + len(self._block):
            self._at += len(self._block)
            self._block = numeric_block(self._where, frame_of(self._where, "X", self._table(next(self._rest))))
            if self._block.shape[1] != self.width:
                raise DataError(f"{self._where}: {self._columns[0]} of X holds lists of different lengths")

    def _batches(self, group: int, size: int) -> Iterator[Any]:
        path, index = self._groups[group]
        found: Iterator[Any] = self._open(path).iter_batches(size, row_groups=[index], columns=self._columns)
        return found

    def _table(self, batch: Any) -> Any:
        import pyarrow

        return pyarrow.Table.from_batches([batch]).select(self._columns)


class HuggingFaceRows(RowSource):
    """Columns of a ``datasets.Dataset``: numbers, vectors, or one column of pictures."""

    def __init__(self, where: str, dataset: Any, columns: Sequence[str]) -> None:
        kinds = {name: type(dataset.features[name]).__name__ for name in columns}
        self._where = where
        self._picture = columns[0] if kinds[columns[0]] == "Image" else None
        if "Image" in kinds.values() and len(columns) > 1:
            raise DataError(f"{where}: X is one column of pictures or columns of numbers, got {', '.join(columns)}")
        self._data = dataset.select_columns(list(columns)).with_format(None if self._picture else "arrow")
        self._shape: tuple[int, ...] | None = getattr(dataset.features[columns[0]], "shape", None)
        if not len(dataset):
            raise DataError(f"{where}: has no rows")
        if self._picture is None:
            example = FrameRows(where, frame_of(where, "X", _stored(self._data[:1])))
            shape = self._shape if len(columns) == 1 and self._shape else (example.width,)
            super().__init__((len(dataset), *shape), example.dtype)
        else:
            self._first = picture_array(f"{where}: row 0", self._data[0][self._picture])
            super().__init__((len(dataset), *self._first.shape), common_dtype([self._first.dtype]))

    def fetch(self, rows: IntArray) -> Array:
        """The numbers of some rows."""
        found = self._data[rows.tolist()]
        if self._picture is None:
            return numeric_block(self._where, frame_of(self._where, "X", _stored(found)))
        pictures = zip(rows, found[self._picture], strict=True)
        arrays = [picture_array(f"{self._where}: row {row}", each) for row, each in pictures]
        return stacked(self._where, "row", rows, arrays, self._first)


def _stored(table: Any) -> Any:
    """A table whose matrices, a type of ``datasets``, are the lists that Arrow stores them as."""
    import pyarrow

    for index, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if isinstance(column.type, pyarrow.BaseExtensionType):
            kind = column.type.storage_type
            stored = pyarrow.chunked_array([chunk.storage for chunk in column.chunks], kind)
            table = table.set_column(index, name, stored)
    return table


class PairRows(RowSource):
    """The x of a map-style data set, whose items are (x, y): ``torch.utils.data.Dataset`` and its like."""

    def __init__(self, where: str, dataset: Any) -> None:
        self._where, self._dataset = where, dataset
        if not len(dataset):
            raise DataError(f"{where}: has no items")
        self._first = self._item(0)
        if not np.array_equal(self._first, self._item(0), equal_nan=self._first.dtype.kind == "f"):
            raise DataError(f"{where}: item 0 differs from read to read (a random transform?); X must stay the same")
        super().__init__((len(dataset), *self._first.shape), common_dtype([self._first.dtype]))

    def fetch(self, rows: IntArray) -> Array:
        """Some items, one after the other."""
        return stacked(self._where, "item", rows, [self._item(int(row)) for row in rows], self._first)

    def _item(self, index: int) -> Array:
        value = pair(self._where, self._dataset, index)[0]
        if hasattr(value, "getbands"):
            return picture_array(f"{self._where}: item {index}", value)
        if dtype_name(getattr(value, "dtype", "")) == "bfloat16":
            value = value.float()
        return to_host(self._where, f"x of item {index}", value)


def pair(where: str, dataset: Any, index: int) -> tuple[Any, Any]:
    """Item ``index`` as (x, y)."""
    item = dataset[index]
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        kind = f"a dict with {', '.join(map(str, item))}" if isinstance(item, dict) else f"a {type(item).__name__}"
        raise DataError(f"{where}: items must be pairs (x, y), item {index} is {kind}")
    return item[0], item[1]


def pair_labels(where: str, dataset: Any) -> Array:
    """The y of every item: ``targets`` of the data set where it has them and does not change them, else one pass."""
    found = getattr(dataset, "targets", None)
    if found is None or getattr(dataset, "target_transform", None) is not None or len(found) != len(dataset):
        values = (pair(where, dataset, index)[1] for index in range(len(dataset)))
        found = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    return to_host(where, "y", found)


class PictureRows(RowSource):
    """Picture files of one size and mode, decoded when they are read: (h, w), (h, w, 3) or, with alpha, (h, w, 4)."""

    def __init__(self, where: str, files: Sequence[Path]) -> None:
        self._where, self._files = where, list(files)
        try:
            from PIL import Image
        except ImportError as error:
            raise needed(where, "Pillow", '"krrdistill[data]"') from error
        self._open = Image.open
        first = self._facts(self._files[0])
        for path in self._files:
            found = self._facts(path)
            if found != first:
                raise DataError(
                    f"{path}: is {_described(*found)}, {self._files[0].name} is {_described(*first)}; "
                    "all pictures must be of one size and mode"
                )
        self._first = self._decoded(self._files[0])
        if first[1] == "RGBA":
            text = f"{where}: the pictures are RGBA; alpha is kept as a fourth channel (convert to RGB to leave it out)"
            warn(text, DataWarning)
        super().__init__((len(self._files), *self._first.shape), common_dtype([self._first.dtype]))

    def fetch(self, rows: IntArray) -> Array:
        """Some pictures."""
        return stacked(self._where, "picture", rows, [self._decoded(self._files[row]) for row in rows], self._first)

    def _facts(self, path: Path) -> tuple[tuple[int, int], str]:
        """Size and mode, from the head of the file."""
        try:
            with self._open(path) as image:
                return image.size, image.mode
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: no picture that Pillow reads") from error

    def _decoded(self, path: Path) -> Array:
        try:
            with self._open(path) as image:
                return picture_array(str(path), image)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path}: cannot be decoded ({error})") from error


def _described(size: tuple[int, int], mode: str) -> str:
    return f"{size[0]} x {size[1]}, {mode}"


def picture_array(where: str, image: Any) -> Array:
    """The pixels of a Pillow image. Raises DataError for modes whose numbers are no colours."""
    if image is None:
        raise DataError(f"{where}: has no picture")
    if image.mode not in _MODES:
        raise DataError(f"{where}: is of mode {image.mode}; convert it to L or RGB")
    return np.asarray(image)


def stacked(where: str, what: str, rows: IntArray, arrays: Sequence[Array], first: Array) -> Array:
    """Arrays as one, each of the shape and type of ``first``. Raises DataError naming the first that is not."""
    for row, array in zip(rows, arrays, strict=True):
        if array.shape != first.shape or array.dtype != first.dtype:
            found = f"{array.dtype} of shape {array.shape}"
            raise DataError(f"{where}: {what} {row} is {found}, {what} 0 {first.dtype} of shape {first.shape}")
    return np.stack(arrays) if arrays else np.empty((0, *first.shape), first.dtype)
