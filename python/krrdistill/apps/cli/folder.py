"""The folder that a run writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from krrdistill.common.files import write_atomically
from krrdistill.errors import KrrDistillError


class OutputError(KrrDistillError):
    """The output folder cannot be made, cannot be written or is full."""


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Create ``path`` and prove that files can be written there, before any long work.

    When that or the work inside fails, folders that were made here and are still empty are removed again.

    Raises
    ------
    OutputError
        When the folder cannot be made or written, or fills up.
    """
    made: list[Path] = []
    try:
        _make_writable(path, made)
        yield path
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, OSError) and error.filename is None and error.strerror:
            raise OutputError(f"{path}: {error.strerror}") from error
        raise


def _make_writable(path: Path, made: list[Path]) -> None:
    """Make the missing folders, noting each in ``made``, and write and remove a small file."""
    probe = path / ".krrdistill-probe"
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        write_atomically(probe, lambda stream: stream.write(b"krrdistill"))
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to the folder {path}: {error.strerror}") from error


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        if any(folder.iterdir()):
            return
        folder.rmdir()
