"""Streams of batches: (X, y) of a DataLoader, a generator, Arrow record batches, HF data sets, single samples too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from krrdistill.common.arrays import to_host
from krrdistill.common.frames import is_tabular, refuse_lazy
from krrdistill.errors import DataError

from .columns import Columns, chosen_columns
from .readers import picture_array
from .sources import is_of, read

__all__ = ["Batch", "read_batches"]

_SINGLE_ROWS = 1024  # single samples that are made into one batch


class Batch(NamedTuple):
    """Samples X (r, ...), their labels or targets y, and their weights or None."""

    X: Any
    y: Any
    sample_weight: Any = None


def read_batches(where: str, source: Any, x: Columns = None, y: Columns = None) -> Iterator[Batch]:
    """The batches of a stream, in its order.

    Items are (X, y) or (X, y, sample_weight), tables or dicts of columns (``x`` and ``y`` name them), or single samples
    (x, label), which are collected.
    """
    if not is_of(source, "ray") or hasattr(source, "iter_batches"):  # what that gives is a stream of this process
        refuse_lazy(where, "batches", source)
    if is_of(source, "datasets") and hasattr(source, "iter"):
        source = source.iter(batch_size=_SINGLE_ROWS)
    refused = isinstance(source, (str, bytes, Mapping, np.ndarray)) or is_tabular(source)
    if refused or not (isinstance(source, Iterable) or (hasattr(source, "__getitem__") and hasattr(source, "__len__"))):
        raise TypeError(
            f"{where}: batches must be an iterable of (X, y), got {type(source).__name__}; one batch is update(X, y)"
        )
    # Here, not in the thread that reads: loaders set up signals and workers.
    items = iter(source) if isinstance(source, Iterable) else (source[i] for i in range(len(source)))
    return _collected(where, items, x, y)


def _collected(where: str, items: Iterator[Any], x: Columns, y: Columns) -> Iterator[Batch]:
    singles: list[Batch] = []
    for number, item in enumerate(items):
        here = f"{where}: item {number}"
        if isinstance(item, Mapping):  # the columns of the first, in its order, are those of all
            x, y = chosen_columns(here, list(item), x, y)
        batch = _batch(here, item, x, y)
        single = _is_label(batch.y)
        if single:
            singles.append(_kept(here, batch))
        if singles and (not single or len(singles) == _SINGLE_ROWS):
            yield _stacked(where, singles)
            singles = []
        if not single:
            yield batch
    if singles:
        yield _stacked(where, singles)


def _is_label(y: Any) -> bool:
    """Whether y is one label, not those of a batch."""
    return isinstance(y, (str, bytes)) or not hasattr(y, "__len__") or getattr(y, "ndim", 1) == 0


def _batch(where: str, item: Any, x: Columns, y: Columns) -> Batch:
    if is_tabular(item):
        found = read(item, x, y)
        return Batch(found.X, found.y)
    if isinstance(item, Mapping):
        return Batch(*(_columns(where, item, list(names or ())) for names in (x, y)))
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        one = "; one batch is update(X, y)" if isinstance(item, np.ndarray) else ""
        raise TypeError(f"{where} is a {type(item).__name__}{size}, not (X, y) or (X, y, sample_weight){one}")
    return Batch(_plain(where, item[0]), *item[1:])


def _columns(where: str, item: Mapping[str, Any], names: list[str]) -> Any:
    """One column as it is, several side by side."""
    values = [_plain(where, item[name]) for name in names]
    if len(values) == 1:
        return values[0]
    arrays = [to_host(where, name, value) for name, value in zip(names, values, strict=True)]
    if len({array.shape for array in arrays}) > 1:
        found = ", ".join(f"{name!r} {array.shape}" for name, array in zip(names, arrays, strict=True))
        raise DataError(f"{where}: columns have different shapes: {found}; x= and y= name those to take")
    return np.stack(arrays, axis=-1)


def _plain(where: str, value: Any) -> Any:
    """Pillow images as arrays; anything else as it is. Raises TypeError for masked arrays."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array; fill or drop what is masked")
    if hasattr(value, "getbands"):
        return picture_array(where, value)
    if isinstance(value, list) and value and hasattr(value[0], "getbands"):
        return np.stack([picture_array(where, each) for each in value])
    return value


def _kept(where: str, single: Batch) -> Batch:
    """A copy: whoever yields samples may use their memory again."""
    label = single.y.tolist() if hasattr(single.y, "tolist") else single.y
    weight = None if single.sample_weight is None else float(single.sample_weight)
    return Batch(np.array(to_host(where, "X", single.X)), label, weight)


def _stacked(where: str, singles: list[Batch]) -> Batch:
    """Single samples as one batch."""
    rows = [single.X for single in singles]
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise DataError(f"{where}: samples have different shapes: {', '.join(map(str, sorted(shapes)))}")
    labels, weights = [single.y for single in singles], [single.sample_weight for single in singles]
    if all(weight is None for weight in weights):
        return Batch(np.stack(rows), labels)
    if any(weight is None for weight in weights):
        raise DataError(f"{where}: all samples must have a sample_weight, or none")
    return Batch(np.stack(rows), labels, np.array(weights))
