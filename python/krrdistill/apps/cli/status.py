"""Which exception ends the command with which status and message. The only place that knows."""

from __future__ import annotations

import signal
import sys
from typing import Any

import typer

from krrdistill.apps.cli.settings import DistillSettings, KipSettings, UsageError
from krrdistill.apps.cli.signals import STOPPED, stop_signal
from krrdistill.apps.text import visible
from krrdistill.common.options import declared_options
from krrdistill.errors import (
    BackendUnavailable,
    DataError,
    KrrDistillError,
    LambdaOutOfRange,
    NotPositiveDefinite,
    NotSurjective,
)
from krrdistill.options import ALIASES

__all__ = [
    "FAILURE",
    "INTERRUPTED",
    "OK",
    "STATUSES",
    "USAGE",
    "WORSE_THAN_TOLERANCE",
    "UsageError",
    "exit_status",
    "message",
    "note",
    "say",
]

OK = 0
FAILURE = 1
USAGE = 2
WORSE_THAN_TOLERANCE = 3
INTERRUPTED = 128 + int(signal.SIGINT)

_ParserError: Any = typer.BadParameter.__base__  # the parser's own usage error, whichever parser typer brings

# The first class that matches decides.
STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (_ParserError, USAGE),
    (typer.Abort, INTERRUPTED),
    (LambdaOutOfRange, USAGE),
    (NotSurjective, USAGE),
    (DataError, FAILURE),
    (BackendUnavailable, FAILURE),
    (NotPositiveDefinite, FAILURE),
    (KrrDistillError, FAILURE),
    (FileNotFoundError, USAGE),
    (OSError, FAILURE),
    (MemoryError, FAILURE),
    (ImportError, FAILURE),
    (ValueError, USAGE),
)


def exit_status(error: BaseException) -> int:
    """The status for ``error``, 128 and its number for a signal; 1 for whatever is not in the table."""
    number = stop_signal(error)
    if number is not None:
        return 128 + number
    return next((status for kind, status in STATUSES if isinstance(error, kind)), FAILURE)


def message(error: BaseException) -> str:
    """One line that names what went wrong."""
    known = isinstance(error, tuple(kind for kind, _ in STATUSES))
    number = stop_signal(error)
    if number is not None or isinstance(error, typer.Abort):
        text = STOPPED[number or int(signal.SIGINT)]
    elif isinstance(error, _ParserError):
        text = _of_parser(error)
    elif isinstance(error, MemoryError):
        text = f"out of memory: {error}" if str(error) else "out of memory"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif known and str(error):
        text = str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error} (--traceback shows where)"
    return visible(" ".join(text.split()))


def _of_parser(error: Any) -> str:
    """The parser's message, with our own flag where an option's name in Python was given."""
    given = getattr(error, "option_name", None) or ""
    name = given.removeprefix("--").replace("-", "_")
    for each in (*declared_options(DistillSettings), *declared_options(KipSettings)):
        if ALIASES.get(name, name) == each.name and given != each.flag:
            return f"No such option: {given}; did you mean {each.flag}?"
    return str(error.format_message())


def say(text: str) -> None:
    """Prints one line on stderr, never wrapped and never read as markup."""
    print(f"krrdistill: {visible(text)}", file=sys.stderr)


def note(text: str) -> None:
    """Says what the user should know, and need not change."""
    say(f"note: {text}")
