"""Atomic writing, and reading of .npz files without executing anything."""

from __future__ import annotations

import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

__all__ = ["read_npz", "write_atomically", "write_npz"]


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls ``write`` on a temporary file beside ``path`` and renames it; on failure nothing is left behind."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(temporary, "xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """An uncompressed .npz with the same bytes for the same arrays."""
    members: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda stream: np.savez(stream, **members))


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a .npz. Raises DataError for anything but a complete archive of plain arrays."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: not an .npz archive")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable .npz archive of plain arrays ({error})") from error
