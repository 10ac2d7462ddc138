"""Warnings that point at the line of the user."""

from __future__ import annotations

import sys
import warnings
from contextvars import Context, ContextVar, copy_context
from typing import Any, NamedTuple

__all__ = ["user_context", "warn"]


class _Line(NamedTuple):
    """A line of code, and what ``warnings`` keeps of its module to say nothing twice."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_LINE: ContextVar[_Line | None] = ContextVar("krrdistill_warning_line", default=None)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn in the name of the line that called this package, however deep in the package the warning arises."""
    line = _LINE.get() or _line_of_user()
    warnings.warn_explicit(message, category, **line._asdict())


def user_context() -> Context:
    """Context for work in another thread, whose warnings are in the name of the line that called the package here."""
    context = copy_context()
    context.run(_LINE.set, _LINE.get() or _line_of_user())
    return context


def _line_of_user() -> _Line:
    """The line of the nearest frame of code outside the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "krrdistill":
        frame = frame.f_back
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    return _Line(frame.f_code.co_filename, frame.f_lineno, str(names.get("__name__", "<string>")), registry)
