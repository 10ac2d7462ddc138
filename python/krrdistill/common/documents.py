"""JSON and other small texts from files, with limits on size and depth."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from krrdistill.errors import DataError

__all__ = ["UNFIT", "at_home", "check_plain", "parse_json", "read_bounded"]

_LONGEST = 1 << 24  # characters
_DEEPEST = 64
# What Python raises where the parts of a document are not there, or not of the kind that is taken for granted.
UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
_PIECE = 1 << 20


def at_home(name: str | os.PathLike[str]) -> Path:
    """The path with ``~`` and ``~user`` replaced by a home; it stays where there is no such user."""
    return Path(os.path.expanduser(name))


def check_plain(path: Path) -> None:
    """Raises DataError for a pipe, which would be waited for, a device or a socket."""
    with suppress(OSError):  # whoever opens it says what is wrong
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{path}: is no plain file")


def read_bounded(path: Path, most: int = _LONGEST, *, pipes: bool = False) -> bytes:
    """The content of a file of at most ``most`` bytes. Raises DataError for a larger one, and for what is no file.

    ``pipes`` : whether to wait for what somebody writes into a pipe.
    """
    if not pipes:
        check_plain(path)
    content = bytearray()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            if len(content) + len(piece) > most:
                raise DataError(f"{path}: has more than {most} bytes")
            content += piece
    return bytes(content)


def parse_json(what: str, text: str | bytes, *, finite: bool = False) -> Any:
    """The value of a JSON text.

    Parameters
    ----------
    what : str
        What messages call the text.
    text : str or bytes
    finite : bool
        Refuse NaN and Infinity, which Python's JSON has and the standard does not.

    Raises
    ------
    DataError
        For what is no JSON, has more than 2^24 characters, or is nested more than 64 deep.
    """
    if len(text) > _LONGEST:
        raise DataError(f"{what} has {len(text)} characters, more than {_LONGEST}")
    try:
        document = json.loads(text, parse_constant=_no_constant if finite else None)
    except RecursionError:
        raise DataError(f"{what} is not JSON (nested too deeply)") from None
    except ValueError as error:
        raise DataError(f"{what} is not JSON ({str(error)[:200]})") from error
    level = [document]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return document
    raise DataError(f"{what} is not JSON that this package writes (nested more than {_DEEPEST} deep)")


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
