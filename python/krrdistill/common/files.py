"""Atomic writing, and files of arrays."""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

from .archive import Archive, FileKind
from .documents import UNFIT

__all__ = [
    "content_digest",
    "lock",
    "opened_npz",
    "read_npz",
    "read_sealed",
    "remove_leftovers",
    "reserve_unverified",
    "sha256_of",
    "unverified",
    "write_atomically",
    "write_npz",
    "write_together",
]

_PARTIAL, _UNVERIFIED = ".partial", ".unverified.npz"  # end the names of files that are being written, or judged
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{8}}{re.escape(_PARTIAL)}")
_LEFTOVER = re.compile(rf"\..*{_TEMPORARY.pattern}", re.DOTALL)
_LONGEST_NAME = 255  # bytes, on most file systems
_MOST_INFLATED = 1 << 28  # bytes of the arrays of a file that somebody compressed; ours are stored as they are


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Calls ``write`` on a temporary file beside ``path`` and renames it; on failure nothing is left behind.

    A process that is killed leaves its temporary file: the next that writes the same file removes it. The new file has
    the permissions of the one that it replaces: nobody can read it who could not read that.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    if path.exists() and not path.is_file():  # a device, say: it would be replaced
        raise FileExistsError(errno.EEXIST, "is no plain file; name another", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"the folder {path.parent} does not exist; make it first", str(path))
    temporary = _temporary(path)
    try:
        _remove_dead(path)
        with open(temporary, "xb", opener=functools.partial(_opened, replaced=_status(path))) as stream:
            if not _is_ours(temporary, stream):
                temporary.unlink(missing_ok=True)
                return write_atomically(path, write)
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
            if os.name == "nt":  # which renames no open file
                stream.close()
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename, error.filename2 = str(path), None  # what was asked for
        raise


def _beside(path: Path, ending: str) -> Path:
    """A hidden file of ``path``, with this ending; by a digest where its name would be too long."""
    name = f".{path.name}"
    if len(os.fsencode(name + ending)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}"
    return path.with_name(f"{name}{ending}")


def _temporary(path: Path) -> Path:
    return _beside(path, f".{secrets.token_hex(4)}{_PARTIAL}")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _opened(path: str, flags: int, *, replaced: os.stat_result | None) -> int:
    """A new file with permissions and group of the one that it will replace, before anything is in it."""
    if replaced is None or not hasattr(os, "fchown"):  # Windows has no such permissions
        return os.open(path, flags, 0o666)
    descriptor, mode = os.open(path, flags, 0o600), replaced.st_mode & 0o777
    try:
        os.fchown(descriptor, -1, replaced.st_gid)
    except OSError:  # the user is not in that group: another one gets what everybody has
        mode = mode & 0o707 | (mode & 0o007) << 3
    with suppress(OSError):  # no permissions on this file system
        os.fchmod(descriptor, mode)
    return descriptor


def _is_ours(path: Path, stream: IO[bytes]) -> bool:
    """Lock a new file; False where another process takes it for a dead one before that."""
    try:
        lock(stream.fileno())
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: nobody takes a file for a dead one
        pass
    stream.seek(0)
    return path.exists()


def _remove_dead(path: Path) -> None:
    """Remove the temporary files of ``path`` that no process has: whoever writes one keeps it locked."""
    own, found = _temporary(path).name[: -len(f".01234567{_PARTIAL}")], []
    with suppress(OSError), os.scandir(path.parent) as folder:  # whoever may write there may perhaps not look
        found = [each for each in folder if each.name.startswith(own)]
    for each in found:
        if _TEMPORARY.fullmatch(each.name, len(own)):
            _remove_if_dead(Path(each.path))


def _remove_if_dead(temporary: Path) -> None:
    """Remove a file unless a process has it."""
    if temporary.is_symlink() or not temporary.is_file():
        return
    with suppress(OSError):  # it is locked, gone, or somebody else's
        with temporary.open("rb") as stream:
            lock(stream.fileno())
        temporary.unlink()


def remove_leftovers(folder: Path, judged: str) -> None:
    """What killed processes left of files in a folder, of ``judged`` also what nobody judges any more.

    What a living process writes there stays.
    """
    unverified(folder / judged).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            _remove_if_dead(path)


def unverified(path: Path) -> Path:
    """Where a file is written that is judged before it takes the place of ``path``."""
    return _beside(path, _UNVERIFIED)


def reserve_unverified(path: Path) -> Path:
    """``unverified(path)``, which has the permissions of ``path`` already where there is such a file."""
    beside, replaced = unverified(path), _status(path)
    if replaced is not None:
        beside.unlink(missing_ok=True)
        with open(beside, "xb", opener=functools.partial(_opened, replaced=replaced)):
            pass
    return beside


def write_together(saves: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Write each file beside its place, by its function, and move them there when all are whole.

    The last one means nothing without the others: the one that was there goes first, so that a process that is killed
    leaves the old files, the new ones, or none of that name, but never an old one beside new others.

    Raises ValueError where two of them are one file, by a link or by letters of another case.
    """
    *_, last = saves
    aside = _temporary(last)
    try:
        for path, save in saves.items():
            save(reserve_unverified(path))
        if len({(found.st_dev, found.st_ino) for found in map(os.stat, map(unverified, saves))}) < len(saves):
            raise ValueError(f"{', '.join(map(str, saves))} are one file: give each a name of its own")
        if last.is_file():
            os.replace(last, aside)
        for path in saves:
            os.replace(unverified(path), path)
        _remove_dead(last)  # what a killed process had put aside
    except BaseException:
        if aside.exists() and all(unverified(path).exists() for path in saves):  # none has moved
            os.replace(aside, last)
        for path in saves:
            unverified(path).unlink(missing_ok=True)
        raise
    finally:
        aside.unlink(missing_ok=True)


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
    digest, piece = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            digest.update(memoryview(piece)[:count])
    return digest.hexdigest()


def content_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and numbers of arrays, whatever their order and memory layout."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(repr((name, array.dtype.str, arrays[name].shape)).encode())
        if array.nbytes:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


_CHANGED = "its content was changed after it was written (its digest does not fit); copy or make it again"


@contextmanager
def opened_npz(path: Path, kind: FileKind) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The arrays of a file that this package wrote, for a block that makes something of them.

    Raises DataError, which names the file, for anything but a whole file of that kind; for what the block refuses; and
    behind the block, which may have a better reason, where the digest does not fit the arrays. Older files have none.
    """
    arrays = read_npz(path, kind)
    digest = arrays.pop("digest", None)
    changed = digest is not None and str(digest) != content_digest(arrays)
    try:
        yield arrays
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except UNFIT as error:
        raise DataError(f"{path}: not {kind.what} ({error})") from error
    if changed:
        raise DataError(f"{path}: {_CHANGED}")


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, sealed: bool = False) -> None:
    """An uncompressed .npz with the same bytes for the same arrays; ``sealed``: with their ``content_digest``, last."""

    def write(stream: IO[bytes]) -> None:
        with ThreadPoolExecutor(1) as pool, zipfile.ZipFile(stream, "w") as archive:
            digest = pool.submit(content_digest, arrays) if sealed else None  # meanwhile
            for name, array in arrays.items():
                add(archive, name, array)
            if digest is not None:
                add(archive, "digest", np.array(digest.result()))

    def add(archive: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    write_atomically(path, write)


def read_npz(path: Path, kind: FileKind | None = None) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a .npz that this package wrote. Raises DataError for anything but a whole file of that kind."""
    with Archive(path, kind=kind, most=_MOST_INFLATED) as archive:
        return archive.arrays()


def read_sealed(path: Path, kind: FileKind) -> dict[str, npt.NDArray[Any]]:
    """``read_npz`` without the digest. Raises DataError where that is of other arrays; older files have none."""
    with opened_npz(path, kind) as arrays:
        return arrays
