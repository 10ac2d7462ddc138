"""Files of NumPy, .npz, with the keys of data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from krrdistill.common.archive import Archive

__all__ = ["KEY_SETS", "npz_arrays", "npz_keys"]

Array = npt.NDArray[Any]


def _layout(x: str, y: str, validation: str) -> Mapping[str, tuple[str, str]]:
    names = {"train": "train", "test": "test", "validation": validation}
    return {part: (x.format(name), y.format(name)) for part, name in names.items()}


# The keys of (x, y) of every part: our own and Keras's first, then those of MedMNIST.
KEY_SETS = [
    _layout(x, y, validation)
    for x, y in (("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels"))
    for validation in ("val", "valid", "validation")
]


def npz_keys(path: Path) -> list[str]:
    """The names of the arrays of an .npz file. Raises DataError."""
    with Archive(path) as archive:
        return archive.names


def npz_arrays(path: Path, keys: Sequence[str]) -> dict[str, Array]:
    """Some arrays of an .npz file, by their keys. Raises DataError for what is damaged or holds Python objects."""
    with Archive(path) as archive:
        return {key: archive.array(key) for key in keys}
