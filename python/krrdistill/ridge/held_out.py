"""Samples on which lambda is chosen: an object of their own, never part of statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.archive import FileKind
from krrdistill.common.documents import parse_json
from krrdistill.common.files import opened_npz, write_npz
from krrdistill.common.samples import host_samples
from krrdistill.data.labels import Targets, label_array
from krrdistill.errors import DataError

__all__ = ["HeldOutRows"]

_FORMAT = "krrdistill-held-out-1"
_KIND = FileKind(
    "a file of held-out rows",
    re.compile("X|y|sample_weight|header|digest"),
)


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Samples that are held out to choose lambda. They are not part of the statistics.

    Threads may share it if they may share X and y.

    Parameters
    ----------
    X : array of shape (n, d) or ``(n, *shape)``, raw inputs
    y : labels (n,), or targets (n, k)
    sample_weight : array of shape (n,), optional
    rows : array of int, optional
        Indices of the held-out samples in X and y; by default all of them.
    """

    X: Any
    y: Any
    sample_weight: Any = None
    rows: npt.NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return f"HeldOutRows({len(self)} samples)"

    def __add__(self, other: HeldOutRows) -> HeldOutRows:
        """The rows of both, in order. Raises DataError where they do not fit together."""
        if not isinstance(other, HeldOutRows):
            return NotImplemented
        both = HeldOutRows.joined([self, other])
        assert both is not None  # they are two
        return both

    def __len__(self) -> int:
        return (
            int(self.X.shape[0] if hasattr(self.X, "shape") else len(self.X)) if self.rows is None else len(self.rows)
        )

    @staticmethod
    def joined(parts: Sequence[HeldOutRows]) -> HeldOutRows | None:
        """Join the rows of several parts, in order. Returns None if there are none. Raises DataError."""
        if not parts:
            return None
        parts = [part if part.rows is None else part._picked(part.rows) for part in parts]
        kinds = {part.y.classes if isinstance(part.y, Targets) else Targets for part in parts}
        if len(kinds) > 1:  # codes of different classes: only their labels join
            parts = [replace(part, y=part.y.labels()) if isinstance(part.y, Targets) else part for part in parts]
        first, labels = parts[0], [part.y.values if isinstance(part.y, Targets) else part.y for part in parts]
        for part, y in zip(parts, labels, strict=True):
            if part.X.shape[1:] != first.X.shape[1:] or y.shape[1:] != labels[0].shape[1:]:
                found = f"{first.X.shape[1:]} with y {labels[0].shape[1:]} and {part.X.shape[1:]} with y {y.shape[1:]}"
                raise DataError(f"held-out rows of the shapes {found} do not join")
            if y.dtype.kind != labels[0].dtype.kind:  # NumPy would turn numbers into strings
                raise DataError(f"held-out rows with y of the types {labels[0].dtype} and {y.dtype} do not join")
        y = np.concatenate(labels)
        weights = None
        if any(part.sample_weight is not None for part in parts):
            own = (np.ones(len(part)) if part.sample_weight is None else part.sample_weight for part in parts)
            weights = np.concatenate(list(own))
        X = np.concatenate([part.X for part in parts])
        return HeldOutRows(X, Targets(y, first.y.classes) if isinstance(first.y, Targets) else y, weights)

    def _picked(self, rows: npt.NDArray[np.int64]) -> HeldOutRows:
        """Some rows of X and y, copied."""
        if isinstance(self.y, Targets):
            y: Any = Targets(self.y.values[rows], self.y.classes)
        else:
            y = label_array("held-out rows", self.y)[rows]
        weights = None if self.sample_weight is None else np.asarray(self.sample_weight)[rows]
        return HeldOutRows(host_samples("held-out rows", self.X)[rows], y, weights)

    def save(self, path: str | Path) -> None:
        """Write X, y and the weights to an .npz file, atomically. The file contains the samples themselves."""
        chosen = slice(None) if self.rows is None else self.rows
        samples = host_samples("held-out rows", self.X)
        y = self.y.labels() if isinstance(self.y, Targets) else label_array("held-out rows", self.y)
        arrays = {"X": samples[chosen], "y": y[chosen]}
        if self.sample_weight is not None:
            arrays["sample_weight"] = np.asarray(self.sample_weight)[chosen]
        write_npz(Path(path), {**arrays, "header": np.array(json.dumps({"format": _FORMAT}))}, sealed=True)

    @staticmethod
    def load(path: str | Path) -> HeldOutRows:
        """Read a file that ``save`` wrote. Raises DataError."""
        with opened_npz(Path(path), _KIND) as arrays:
            if parse_json("header", str(arrays["header"]))["format"] != _FORMAT:
                raise ValueError("another format")
            X, y, weights = arrays["X"], arrays["y"], arrays.get("sample_weight")
            if X.ndim < 2 or y.ndim not in (1, 2) or len(X) != len(y):
                raise ValueError(f"X has shape {X.shape}, y {y.shape}")
            if weights is not None and weights.shape != (len(X),):
                raise ValueError(f"sample_weight has shape {weights.shape}")
            return HeldOutRows(X, y, weights)
