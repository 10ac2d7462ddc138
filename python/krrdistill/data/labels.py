"""What y means, in Python, files and commands alike: labels of classes to codes 0 ... k-1 and back, or real values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_choice, check_count, to_host
from krrdistill.common.frames import column_values
from krrdistill.common.options import shown_value
from krrdistill.common.warning import warn
from krrdistill.errors import DataError, DataWarning
from krrdistill.options import TARGETS

__all__ = ["Classes", "Targets", "label_array", "label_names", "read_targets", "real_targets"]

IntArray = npt.NDArray[np.int64]
_PART_ROWS = 16384
_WHOLE = "targets='classes' where they are classes, or targets='real' for regression"


@dataclass(frozen=True)
class Classes:
    """The k classes of a model; code c stands for ``names[c]``, or for c itself where there are no names.

    Parameters
    ----------
    count : int
        k.
    names : tuple of str, int or bool, optional
        Distinct, all of one type.
    """

    count: int
    names: tuple[Any, ...] | None = None

    @staticmethod
    def of(where: str, classes: Any) -> Classes:
        """From a number k, or from the labels themselves: ["cat", "dog"], [-1, 1].

        Raises TypeError and ValueError for anything else.
        """
        if isinstance(classes, Classes):
            return classes
        if isinstance(classes, (int, np.integer)) and not isinstance(classes, bool):
            return Classes(check_count(where, "classes", int(classes)))
        if isinstance(classes, str) or not isinstance(classes, (Sequence, np.ndarray)):
            raise TypeError(f"{where}: classes must be a number or the labels themselves, got {classes!r}")
        names = tuple(name.item() if isinstance(name, np.generic) else name for name in classes)
        kinds = {type(name) for name in names}
        if len(kinds) != 1 or not kinds <= {str, int, bool}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
            raise TypeError(f"{where}: classes must all be strings, all integers or all booleans, got {found}")
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: classes holds a label twice")
        return Classes(len(names), _plain(names))

    @staticmethod
    def found_in(where: str, labels: npt.NDArray[Any]) -> Targets:
        """The classes that occur, in ascending order, and the code of every label (n,)."""
        if not len(labels):
            raise DataError(f"{where}: there are no samples")
        small = labels.dtype.kind in "iu" and labels.size and labels.min() >= 0 and labels.max() < len(labels)
        if small and np.bincount(labels.astype(np.int64)).all():  # they are codes, the usual case
            return Targets(labels.astype(np.int64), Classes(int(labels.max()) + 1))
        names, codes = np.unique(labels, return_inverse=True)
        if len(names) == len(labels) > 1:
            raise DataError(
                f"{where}: y has as many classes as samples ({len(names)}), so that none could be held out; "
                "real values need targets='real'"
            )
        return Targets(np.asarray(codes, dtype=np.int64), Classes(len(names), _plain(tuple(names.tolist()))))

    def encode(self, where: str, y: Any, n: int) -> IntArray:
        """Codes (n,) of labels y (n,). Raises DataError, TypeError for labels that are none of the classes."""
        if isinstance(y, Targets):
            return y.values
        labels = _one_column(where, label_array(where, y))
        if labels.shape != (n,):
            raise DataError(f"{where}: y must have one label for each of the {n} samples, got shape {labels.shape}")
        if labels.dtype.kind == "f":
            labels = _whole(where, labels)
        if self.names is None:
            return self._codes_of_integers(where, labels)
        known = np.array(self.names)
        if n and labels.dtype.kind != known.dtype.kind and not {labels.dtype.kind, known.dtype.kind} <= set("iu"):
            raise TypeError(f"{where}: y holds {labels.dtype}, the classes are {known.dtype}")
        order = np.argsort(known, kind="stable")
        position = np.minimum(np.searchsorted(known, labels, sorter=order), self.count - 1)
        codes = order[position]
        wrong = np.flatnonzero(known[codes] != labels)
        if wrong.size:
            raise DataError(f"{where}: y holds the label {labels[wrong[0]]!r} (row {wrong[0]}), which is no class")
        return np.asarray(codes, dtype=np.int64)

    def _codes_of_integers(self, where: str, labels: npt.NDArray[Any]) -> IntArray:
        if labels.dtype.kind not in "iub":
            raise TypeError(
                f"{where}: y must hold the numbers of {self.count} classes, got {labels.dtype}; "
                "give the labels themselves as classes=[...]"
            )
        labels = labels.copy()  # compiled code writes where a label says: nobody else may change what is checked here
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0:
            raise DataError(f"{where}: y holds the label {low}, the classes are 0 ... {self.count - 1}")
        if high >= self.count:
            raise DataError(
                f"{where}: y holds the label {high}, there are {self.count} classes, 0 ... {self.count - 1}; "
                f"classes={high + 1} (--classes {high + 1}) has it, statistics that exist grow(...)"
            )
        return np.ascontiguousarray(labels, dtype=np.int64)

    def decode(self, codes: IntArray) -> npt.NDArray[Any]:
        """The labels that codes (n,) stand for."""
        return codes if self.names is None else np.array(self.names)[codes]

    def label(self, code: int) -> Any:
        """The label that one code stands for."""
        return code if self.names is None else self.names[code]

    def union(self, where: str, other: Classes) -> tuple[Classes, IntArray]:
        """(these classes and those of ``other`` that are new behind them, the place of each of the other's classes).

        Raises DataError for other numbers of classes without labels, where nothing says which class is which.
        """
        if self == other:
            return self, np.arange(self.count)
        if self.names is None and other.names is None:
            most = max(self.count, other.count)
            raise DataError(
                f"{where}: there are {self.count} and {other.count} classes without labels; make the smaller ones "
                f"grow(...) first, or both with classes={most} (--classes {most}, which merge and subtract take)"
            )
        ours, theirs = self.names or tuple(range(self.count)), other.names or tuple(range(other.count))
        if type(ours[0]) is not type(theirs[0]):
            raise DataError(f"{where}: the classes are {ours[0]!r}, ... and {theirs[0]!r}, ..., of different types")
        known = {name: place for place, name in enumerate((*ours, *(name for name in theirs if name not in set(ours))))}
        return Classes(len(known), _plain(tuple(known))), np.array([known[name] for name in theirs])

    def grown(self, where: str, more: Any) -> Classes:
        """These classes and ``more`` of them behind: a number, or new labels where there are labels."""
        if isinstance(more, (int, np.integer)) and not isinstance(more, bool):
            if self.names is not None:
                raise TypeError(f"{where}: these classes have labels: give the new labels, not their number")
            return Classes(self.count + check_count(where, "classes", int(more)))
        added = Classes.of(where, more)
        return Classes.of(where, [*(self.names or range(self.count)), *(added.names or range(added.count))])


class Targets(NamedTuple):
    """What y was found to mean: codes (n,) of classes, or real-valued targets (n, k) and no classes."""

    values: npt.NDArray[Any]
    classes: Classes | None

    def labels(self) -> npt.NDArray[Any]:
        """What the user gave: the labels themselves, or the real values."""
        return self.values if self.classes is None else self.classes.decode(self.values)


def label_names(classes: Classes | None, k: int) -> tuple[str, ...]:
    """The labels of k classes as text; without classes the numbers of the targets."""
    return tuple(str(c if classes is None else classes.label(c)) for c in range(k))


def read_targets(
    where: str, y: Any, n: int, *, targets: str | None = None, classes: Any = None
) -> tuple[npt.NDArray[Any], Classes | None]:
    """What y (n,) or (n, k) means: (codes (n,), classes), or (finite float64 values (n, k), None).

    Integers, booleans, strings and categories are classes. Numbers in several columns, and fractions, are real-valued
    targets. Whole-numbered floats could be either, so that ``targets`` has to say.

    Parameters
    ----------
    where : str
        What messages begin with.
    y : array, list, series or data frame of one column
    n : int
        Samples.
    targets : "classes" or "real", optional
        What y holds, where its type does not tell.
    classes : int or sequence of labels, optional
        Of y, by default those that occur; of real-valued targets their number.

    Raises
    ------
    TypeError, DataError
        For missing values, masks, labels that are no class, shapes that do not fit.
    """
    if isinstance(y, Targets):
        return y
    if targets is not None:
        check_choice(where, "targets", targets, TARGETS)
    array = label_array(where, y)
    if array.ndim == 2 and targets is None and array.shape[1] > 1 and _is_one_hot(array):
        warn(
            f"{where}: every row of y has a single 1 (one-hot); its columns are taken as {array.shape[1]} labels of "
            "their own; pass y.argmax(axis=1) for classes, or targets='real' to be rid of this line",
            DataWarning,
        )
    if targets == "real" or (array.ndim == 2 and array.shape[1] != 1 and targets is None):
        return real_targets(where, array, n, None if classes is None else Classes.of(where, classes).count), None
    labels = _one_column(where, array)
    if labels.shape != (n,):
        raise DataError(f"{where}: y must have one label for each of the {n} samples, got shape {labels.shape}")
    if labels.dtype.kind == "f" and targets is None and classes is None:
        if not _is_whole(labels):
            return real_targets(where, labels, n), None
        raise TypeError(
            f"{where}: y holds whole numbers as {labels.dtype}, which may be classes or values: pass {_WHOLE} "
            "(or integers, which are classes)"
        )
    if labels.dtype.kind == "f" and targets is None and not _is_whole(labels):
        return real_targets(where, labels, n, Classes.of(where, classes).count), None
    if classes is not None:
        known = Classes.of(where, classes)
        return known.encode(where, labels, n), known
    return Classes.found_in(where, _whole(where, labels) if labels.dtype.kind == "f" else labels)


def real_targets(where: str, y: Any, n: int, k: int | None = None) -> npt.NDArray[Any]:
    """Real-valued or 0/1 targets (n, k), finite, in the type that they have: they become float64 part by part."""
    array = label_array(where, y)
    if array.dtype.kind not in "uifb":
        raise TypeError(f"{where}: y must hold numbers, got {array.dtype}")
    values = array[:, None] if array.ndim == 1 else array
    if values.ndim != 2 or len(values) != n or values.shape[1] == 0:
        raise DataError(f"{where}: y must have shape ({n},) or ({n}, k), got {array.shape}")
    if k is not None and values.shape[1] != k:
        raise DataError(f"{where}: y must have shape ({n}, {k}), got {array.shape}")
    for start in range(0, n, _PART_ROWS):
        finite = np.isfinite(values[start : start + _PART_ROWS]).all(axis=1)
        if not finite.all():
            raise DataError(f"{where}: y holds NaN or infinity (row {start + int(finite.argmin())})")
    return values


def _plain(names: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Names, None where every class is named by its code."""
    return None if type(names[0]) is int and names == tuple(range(len(names))) else names


def label_array(where: str, y: Any) -> npt.NDArray[Any]:
    """y as an array of integers, booleans, floats or strings. Raises TypeError, DataError, for missing values too."""
    if isinstance(y, Targets):
        return y.values
    _refuse_no_labels(where, y)
    if isinstance(y, np.ma.MaskedArray):
        raise TypeError(f"{where}: y is a masked array; fill or drop what is masked")
    values = column_values(where, "y", y)
    array = to_host(where, "y", y) if values is None else values
    if array.dtype.kind == "U" and isinstance(y, (list, tuple)):  # NumPy turns numbers among strings into strings
        array = np.array(y, dtype=object)
    if array.dtype.kind == "O":
        array = _from_objects(where, array)
    if array.dtype.kind == "T":  # NumPy's strings of variable length
        array = array.astype(str)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "V" and "bfloat16" in str(array.dtype):
        array = array.astype(np.float32)
    if array.dtype.kind not in "iubfU":
        raise TypeError(f"{where}: y must hold class labels or real-valued targets, got dtype {array.dtype}")
    if array.ndim not in (1, 2):
        raise DataError(f"{where}: y must have shape (n,) or (n, k), got {array.shape}")
    return array


def _refuse_no_labels(where: str, y: Any) -> None:
    """Raises TypeError, with the remedy, for None and for the name of a column."""
    if y is None:
        remedy = "of a file, frame or data set X, y = krrdistill.read_samples(source)"
        raise TypeError(f"{where}: y must be labels or targets, got None; {remedy}")
    if isinstance(y, str):
        named = shown_value(y)
        raise TypeError(
            f"{where}: y is the string {named}, not labels; X, y = krrdistill.read_samples(frame, y={named})"
        )


def _from_objects(where: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Python objects of one kind as an array of that kind."""
    flat = array.ravel()
    missing = [row for row, value in enumerate(flat) if value is None or value != value]  # noqa: PLR0124 - NaN, NaT
    if missing:
        row = missing[0] // max(1, array.size // max(1, len(array)))
        raise DataError(f"{where}: y has {len(missing)} missing values (first in row {row}); drop or fill them")
    kinds = {_object_kind(value) for value in flat}
    if len(kinds) > 1 or not kinds <= {str, bool, int, float}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"{where}: y must hold labels of one type, got objects of type {names}")
    return np.array(flat.tolist()).reshape(array.shape)


def _object_kind(value: Any) -> type:
    kind = type(value.item()) if isinstance(value, np.generic) else type(value)
    return kind if kind in (str, bool, int, float) else type(value)


def _one_column(where: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels (n, 1) as (n,), with a word."""
    if array.ndim == 2 and array.shape[1] == 1:
        if array.dtype.kind != "f" or _is_whole(array):
            warn(f"{where}: y has shape {array.shape}: its one column is taken as labels", DataWarning)
        return array[:, 0]
    return array


def _is_one_hot(array: npt.NDArray[Any]) -> bool:
    if array.dtype.kind not in "iubf" or not array.size:
        return False
    return bool(((array == 0) | (array == 1)).all()) and bool((array.sum(axis=1) == 1).all())


def _is_whole(array: npt.NDArray[Any]) -> bool:
    return bool(array.size) and bool((np.floor(array) == array).all()) and bool(np.isfinite(array).all())


def _whole(where: str, labels: npt.NDArray[Any]) -> IntArray:
    """Floats that are whole numbers as integers."""
    broken = np.flatnonzero(~(np.isfinite(labels) & (np.floor(labels) == labels)))
    if broken.size:
        found = labels[broken[0]].item()
        what = "a missing value (NaN)" if found != found else f"{found}"  # noqa: PLR0124
        raise DataError(
            f"{where}: y must hold whole numbers as labels, got {what} (row {broken[0]}); "
            "real values need targets='real'"
        )
    return labels.astype(np.int64)
