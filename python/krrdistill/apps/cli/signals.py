"""SIGTERM ends a command as Ctrl-C does: half-written files are removed, and one line says why."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["STOPPED", "Terminated", "stop_signal", "stoppable"]

STOPPED = {int(signal.SIGINT): "interrupted", int(signal.SIGTERM): "terminated"}  # in the words of the one line


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt no error, which ``except Exception`` would take for one."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` in the block, unless the process has an answer of its own, or ignores it."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_signal(error: BaseException | None) -> int | None:
    """The signal that an exception comes from; None where none does.

    A module that is interrupted while it is imported raises an ImportError about that.
    """
    while error is not None:
        if isinstance(error, Terminated):
            return int(signal.SIGTERM)
        if isinstance(error, KeyboardInterrupt):
            return int(signal.SIGINT)
        error = error.__cause__ or error.__context__
    return None
