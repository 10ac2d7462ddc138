"""The folder that a run writes to: one run at a time, of one kind, and nothing left of runs that were killed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from krrdistill.apps.cli.status import say
from krrdistill.apps.run_kind import RunKind, check_kind
from krrdistill.common.files import PARTIAL, lock, write_atomically
from krrdistill.errors import KrrDistillError

__all__ = ["OutputError", "RunKind", "output_folder"]

LOCK = ".krrdistill-lock"
_PROBE = ".krrdistill-probe"
_LEFTOVER = re.compile(rf"\..*(\.[0-9a-f]{{8}}{re.escape(PARTIAL)}|\.unverified\.npz)|{re.escape(_PROBE)}", re.DOTALL)


class OutputError(KrrDistillError):
    """The output folder cannot be made, cannot be written, is full, or belongs to a run that goes on."""


@contextmanager
def output_folder(path: Path, kind: RunKind) -> Iterator[Path]:
    """Create ``path`` and prove that files can be written there, before any long work; nobody else writes meanwhile.

    When that or the work inside fails, folders that were made here and are still empty are removed again.

    Raises
    ------
    OutputError
        When the folder cannot be made or written, or fills up, and when another process writes to it.
    DataError
        When it holds a run of another kind, and for a private release when it holds anything.
    """
    made: list[Path] = []
    try:
        check_kind(path, kind)
        _make(path, made)
        with _locked(path):
            check_kind(path, kind)  # another run may have ended between
            _remove_leftovers(path)
            _prove_writable(path)
            yield path
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, OSError) and error.filename is None and error.strerror:
            raise OutputError(f"{path}: {error.strerror}") from error
        raise


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
def _locked(folder: Path) -> Iterator[None]:
    """A file in the folder that the system keeps for this process until it ends, however it ends."""
    path = folder / LOCK
    stream = _take(path, folder)
    try:
        stream.seek(0)
        before = stream.read().strip()
        if before:
            say(f"note: process {before} was killed while it wrote to {folder}; its unfinished files are removed")
        stream.seek(0)
        stream.truncate()
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
    finally:
        with suppress(OSError):
            stream.truncate(0)  # where the file cannot be removed, it says that nobody was killed
        with suppress(OSError):
            path.unlink()
        stream.close()


def _take(path: Path, folder: Path) -> Any:
    """The open lock file. Raises OutputError where another process has it."""
    while True:
        try:
            stream = open(path, "a+", encoding="ascii", errors="replace")  # noqa: SIM115 - kept open while it is locked
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
            raise OutputError(
                f"process {other} is writing to {folder}: wait until it ends, or give another --out"
            ) from None
        stream.close()  # of a run that has ended meanwhile and removed it


def _remove_leftovers(folder: Path) -> None:
    """What runs that were killed left: nobody else writes here now."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        if any(folder.iterdir()):
            return
        folder.rmdir()
