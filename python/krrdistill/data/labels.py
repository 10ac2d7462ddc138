"""Classes and their names: labels of users to codes 0 ... k-1 and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import as_labels, check_count, to_host
from krrdistill.errors import DataError

__all__ = ["Classes"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Classes:
    """The k classes of a model; code c stands for ``names[c]``, or for c itself where there are no names.

    Parameters
    ----------
    count : int
        k.
    names : tuple of str or int, optional
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
        if len(kinds) != 1 or not kinds <= {str, int}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
            raise TypeError(f"{where}: classes must all be strings or all be integers, got {found}")
        if len(set(names)) != len(names):
            raise ValueError(f"{where}: classes holds a label twice")
        return Classes(len(names), None if names == tuple(range(len(names))) else names)

    def encode(self, where: str, y: Any, n: int) -> IntArray:
        """Codes (n,) of labels y (n,). Raises DataError, TypeError for labels that are none of the classes."""
        if self.names is None:
            return as_labels(where, y, n, n_classes=self.count)
        labels = to_host(where, "y", y)
        if labels.shape != (n,):
            raise DataError(f"{where}: y must have shape ({n},), got {labels.shape}")
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

    def decode(self, codes: IntArray) -> npt.NDArray[Any]:
        """The labels that codes (n,) stand for."""
        return codes if self.names is None else np.array(self.names)[codes]

    def grown(self, where: str, more: Any) -> Classes:
        """These classes and ``more`` of them behind: a number, or new labels where there are labels."""
        if isinstance(more, (int, np.integer)) and not isinstance(more, bool):
            if self.names is not None:
                raise TypeError(f"{where}: these classes have labels: give the new labels, not their number")
            return Classes(self.count + check_count(where, "classes", int(more)))
        added = Classes.of(where, more)
        return Classes.of(where, [*(self.names or range(self.count)), *(added.names or range(added.count))])
