"""The folder that a run writes to: one run at a time, of one kind, and nothing left of runs that were killed."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any

from krrdistill.apps.run_kind import DISTILLED, RunKind, check_kind, is_taken
from krrdistill.common.files import lock, remove_leftovers, write_atomically
from krrdistill.common.warning import warn
from krrdistill.errors import KrrDistillError

__all__ = ["Existing", "OutputError", "RunKind", "locked", "output_folder"]

LOCK = ".krrdistill-lock"
_PROBE = ".krrdistill-probe"
_MAY_STAY = ("lambda_path.png", "privacy.json")  # of a run that is replaced: not every run writes them


class OutputError(KrrDistillError):
    """The output folder cannot be made or written, is full, or belongs to another run."""


class _BusyError(OutputError):
    """Another process writes to the folder."""


class Existing(Enum):
    """What becomes of a run that the folder holds already."""

    REFUSED = auto()
    KEPT = auto()  # the new one goes to a folder of the next free number
    REPLACED = auto()
    CONTINUED = auto()

    @staticmethod
    def of(out: Path | None, *, overwrite: bool = False) -> Existing:
        """By whether the folder was named, and ``--overwrite``."""
        return Existing.REPLACED if overwrite else Existing.KEPT if out is None else Existing.REFUSED


@contextmanager
def output_folder(
    path: Path, kind: RunKind, existing: Existing = Existing.REFUSED, *, say: Callable[[str], None] = warn
) -> Iterator[Path]:
    """Create ``path`` and prove that files can be written there, before any long work; nobody else writes meanwhile.

    Yields the folder: with ``Existing.KEPT`` the first of path, path_2, path_3 ... that no run has. When the work
    inside fails, folders that were made here and are still empty are removed again. The files of a run that is replaced
    stay until the new ones are whole. ``say`` is called with what the user should know.

    Raises
    ------
    OutputError
        When the folder cannot be made or written, or fills up, when another process writes to it, and when it holds a
        run that is neither kept, replaced nor continued.
    DataError
        When it holds a run of another kind, and for a private release when it holds anything.
    """
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            numbers = _numbered(path) if existing is Existing.KEPT else ()
            folders = itertools.chain([path], numbers)
            folder = next(each for each in folders if _take(each, kind, existing, stack, made, say))
            if folder != path:
                say(f"{path} holds a run already: this one goes to {folder}")
            _prove_writable(folder)
            before = _identities(folder)
            yield folder
            for name, file in before.items() if existing is Existing.REPLACED else ():
                if _identities(folder).get(name) == file:
                    (folder / name).unlink()
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, OSError) and error.filename is None and error.strerror:
            raise OutputError(f"{path}: {error.strerror}") from error
        raise


def _numbered(path: Path) -> Iterator[Path]:
    return (path.with_name(f"{path.name}_{number}") for number in itertools.count(2))


def _take(
    folder: Path,
    kind: RunKind,
    existing: Existing,
    stack: ExitStack,
    made: list[Path],
    say: Callable[[str], None],
) -> bool:
    """Locks a folder for as long as ``stack``; False where another run has it and the next number will do."""
    if not _is_free(folder, kind, existing):
        return False
    _make(folder, made)
    try:
        with ExitStack() as own:
            own.enter_context(locked(folder, say=say))
            if not _is_free(folder, kind, existing):  # another run may have ended between
                return False
            stack.enter_context(own.pop_all())
    except _BusyError:
        if existing is not Existing.KEPT:
            raise
        return False
    return True


def _is_free(folder: Path, kind: RunKind, existing: Existing) -> bool:
    """Whether this run may write there; raises where it may not and no other folder will do."""
    if existing is Existing.KEPT:
        return not is_taken(folder, kind)
    check_kind(folder, kind)
    if existing is Existing.REFUSED and is_taken(folder, kind):
        raise OutputError(f"{folder} holds a run already: give another --out, or --overwrite to replace it")
    return True


def _identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Which files may be left over from a replaced run; a new one is another file, whatever the clock says."""
    files = [folder / name for name in _MAY_STAY if (folder / name).is_file()]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def _make(path: Path, made: list[Path]) -> None:
    """Make the missing folders, noting each in ``made``."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
    except OSError as error:
        raise OutputError(f"cannot write to the folder {path}: {error.strerror}") from error


def _prove_writable(path: Path) -> None:
    probe = path / _PROBE
    try:
        write_atomically(probe, lambda stream: stream.write(b"krrdistill"))
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to the folder {path}: {error.strerror}") from error


@contextmanager
def locked(folder: Path, *, say: Callable[[str], None] = warn) -> Iterator[None]:
    """Nobody else writes to the folder in the block, and nothing is left of runs that were killed.

    A file in the folder is kept by the system for this process until it ends, however it ends.
    """
    path = folder / LOCK
    stream = _lock(path, folder)
    try:
        stream.seek(0)
        before = stream.read().strip()
        if before:
            say(f"process {before} was killed while it wrote to {folder}; its unfinished files are removed")
        stream.seek(0)
        stream.truncate()
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        (folder / _PROBE).unlink(missing_ok=True)
        remove_leftovers(folder, DISTILLED)
        yield
    finally:
        with suppress(OSError):
            stream.truncate(0)  # where the file cannot be removed, it says that nobody was killed
        with suppress(OSError):
            path.unlink()
        stream.close()


def _own_file(path: str, flags: int) -> int:
    """A file that is emptied, thus no other one by a link. Raises OSError."""
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{LOCK} is a link or no plain file: remove it", path)
    return descriptor


def _lock(path: Path, folder: Path) -> Any:
    """The open lock file. Raises _BusyError where another process has it."""
    while True:
        try:
            stream = open(  # noqa: SIM115 - kept open while it is locked
                path, "a+", encoding="ascii", errors="replace", opener=_own_file
            )
        except OSError as error:
            raise OutputError(f"cannot write to the folder {folder}: {error.strerror}") from error
        try:
            lock(stream.fileno())
            if os.path.exists(path) and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                return stream
        except OSError:
            stream.seek(0)
            other = stream.read().strip() or "unknown"
            stream.close()
            raise _BusyError(
                f"process {other} is writing to {folder}: wait until it ends, or write to another folder"
            ) from None
        stream.close()  # of a run that has ended meanwhile and removed it


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        if any(folder.iterdir()):
            return
        folder.rmdir()
