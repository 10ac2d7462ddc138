"""NumPy's files: .npz with the keys of data sets, and .npy as a memory map. Pickles are refused, never run."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

__all__ = ["KEY_SETS", "npy_array", "npz_arrays", "npz_keys", "one_line"]

Array = npt.NDArray[Any]
# What zipfile, zlib and NumPy's header parser raise on a file that is cut, corrupt or not what its name says.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    zlib.error,
    zipfile.BadZipFile,
)


def _layout(x: str, y: str, validation: str) -> Mapping[str, tuple[str, str]]:
    names = {"train": "train", "test": "test", "validation": validation}
    return {part: (x.format(name), y.format(name)) for part, name in names.items()}


# The keys of (x, y) of every part: our own and Keras's first, then those of MedMNIST.
KEY_SETS = [
    _layout(x, y, validation)
    for x, y in (("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels"))
    for validation in ("val", "valid", "validation")
]


def one_line(error: BaseException, *, limit: int | None = 200) -> str:
    """The text of an exception, on one line of at most ``limit`` characters, or else its type."""
    return " ".join(str(error).splitlines())[:limit] or type(error).__name__


def npz_keys(path: Path) -> list[str]:
    """The names of the arrays of an .npz file. Raises DataError."""
    with _opened(path) as archive:
        return list(archive)


def npz_arrays(path: Path, keys: Sequence[str]) -> dict[str, Array]:
    """Some arrays of an .npz file, by their keys. Raises DataError for what is damaged or holds Python objects."""
    arrays: dict[str, Array] = {}
    with _opened(path) as archive:
        for key in keys:
            with _readable(path, key):
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise DataError(f"{path}: {key} is not a NumPy array")
    return arrays


def npy_array(path: Path) -> Array:
    """The array of a .npy file, mapped into memory, not read. Raises DataError."""
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    with _readable(path, "the array"):
        if path.suffix.lower() != ".npy":
            raise DataError(f"{path}: not a .npy file")
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    with _readable(path, "its directory"), path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] != b"PK" or not zipfile.is_zipfile(file):
            raise DataError(
                f"{path}: not an .npz file, or cut short (an .npz is a zip archive with a directory at its end)"
            )
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            yield archive


@contextmanager
def _readable(path: Path, key: str) -> Iterator[None]:
    """Makes DataError of whatever a damaged file raises."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: {key} does not fit in memory") from error
    except _UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: {key} holds Python objects (a pickle), which are never loaded") from error
        raise DataError(f"{path}: cannot read {key}: {one_line(error)}") from error
