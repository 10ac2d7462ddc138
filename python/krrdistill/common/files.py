"""Atomic writing, and reading of .npz files without executing anything."""

from __future__ import annotations

import errno
import hashlib
import importlib
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

__all__ = ["PARTIAL", "content_digest", "lock", "read_npz", "sha256_of", "write_atomically", "write_npz"]

PARTIAL = ".partial"  # ends the name of a file that is being written


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls ``write`` on a temporary file beside ``path`` and renames it; on failure nothing is left behind."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"the folder {path.parent} does not exist; make it first", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with open(temporary, "xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename, error.filename2 = str(path), None  # what was asked for
        raise


def lock(descriptor: int) -> None:
    """Keep an open file for this process until it ends or closes it. Raises OSError where another process has it."""
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:
        msvcrt = importlib.import_module("msvcrt")
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # behind what is written: Windows lets nobody read what is locked
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sha256_of(path: Path) -> str:
    """Of a file, as ``sha256sum`` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and numbers of arrays, whatever their order and memory layout."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(repr((name, array.dtype.str, arrays[name].shape)).encode())
        if array.nbytes:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """An uncompressed .npz with the same bytes for the same arrays."""
    members: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda stream: np.savez(stream, **members))


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a .npz. Raises DataError for anything but a complete archive of plain arrays."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the .npz file in it")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):  # NumPy would take it for a pickle
                raise DataError(
                    f"{path}: not a readable .npz archive of plain arrays (cut short, or another kind of file)"
                )
            stream.seek(0)
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: not an .npz archive")
            with archive:
                return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, SyntaxError) as error:
        if isinstance(error, DataError):
            raise
        if "allow_pickle" in str(error):  # whose message advises to load them
            raise DataError(f"{path}: not a readable .npz archive of plain arrays (it holds Python objects)") from error
        raise DataError(f"{path}: not a readable .npz archive of plain arrays ({error})") from error
