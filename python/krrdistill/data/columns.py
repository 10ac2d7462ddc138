"""Which columns of a table are X and y: those asked for, or what is usual; else the error says which there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from krrdistill.common.warning import warn
from krrdistill.errors import DataError, DataWarning

__all__ = ["Columns", "chosen_columns", "first_of", "listed"]

Columns = str | Sequence[str] | None
USUAL_LABELS = ("label", "labels", "target", "y")  # what the column of labels is called
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the index in a Parquet file
_WRITTEN_INDEX = "Unnamed: 0"  # and in a .csv file


def chosen_columns(
    where: str, found: Sequence[str], x: Columns, y: Columns, like: Any = None, *, labels: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """The columns of X and of y: those asked for, those of ``like``, or the usual ones."""
    x, y = first_of(x, like and like.x_names), first_of(y, like and like.y_names)
    ys = _named(where, "y", y, found) if y is not None else [name for name in labels or USUAL_LABELS if name in found]
    if len(ys) != 1 and y is None:
        raise DataError(f"{where}: which column holds y is not obvious; {listed('y', 'COLUMN', found)}")
    xs = _named(where, "x", x, found) if x is not None else _features(where, [name for name in found if name not in ys])
    if not xs or set(xs) & set(ys):
        raise DataError(f"{where}: {ys[0]} cannot be y and all of X too; {listed('x', 'COLUMN', found)}")
    return xs, ys


def _features(where: str, found: Sequence[str]) -> list[str]:
    """The columns that are X where nobody named them: all but an index of pandas, with a word."""
    indices = [name for name in found if _INDEX.fullmatch(name)]
    says = [
        f"column {name!r} is the index that pandas stored; it is no feature (x= takes it all the same)"
        for name in indices
    ]
    if _WRITTEN_INDEX in found:
        says.append(
            f"column {_WRITTEN_INDEX!r} looks like an index that pandas wrote; it is a feature unless x= leaves it out"
        )
    for said in says:
        warn(f"{where}: {said}", DataWarning)
    return [name for name in found if name not in indices]


def _named(where: str, argument: str, names: Columns, found: Sequence[str]) -> list[str]:
    """ "a,b" or ["a", "b"] as columns that there are."""
    if isinstance(names, str):
        names = [names] if names in found else [name.strip() for name in names.split(",")]
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{where}: {argument} must name columns, got {type(names).__name__}")
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise DataError(f"{where}: has no column {', '.join(map(repr, missing))}; {listed(argument, 'COLUMN', found)}")
    if len(set(names)) < len(names):
        raise DataError(f"{where}: {argument} names a column twice")
    return list(names)


def listed(argument: str, what: str, found: Sequence[str], kind: str = "columns") -> str:
    listed = ", ".join(map(str, found[:30])) + (", ..." if len(found) > 30 else "")
    return f"pass {argument}={what}; it has the {kind} {listed or '(none)'}"


def first_of(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
