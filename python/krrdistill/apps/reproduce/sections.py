"""The text of a table, as Markdown and as a page of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from krrdistill.apps.report.render import render

_TAG = re.compile("<(?=[A-Za-z/!?])")

__all__ = ["Publication", "Section", "to_markdown", "to_page"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title, paragraphs, a table whose first column names its rows, and charts with captions (on the page only).

    legend : of all curves in the charts: names, colours, dashes
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    charts: tuple[tuple[str, Markup], ...] = ()
    legend: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A table with its verdict: whether what was measured is what is claimed."""

    title: str
    passed: bool
    verdict: str
    sections: tuple[Section, ...]


def to_markdown(publication: Publication, *, level: int = 1) -> str:
    """The text, its title as a heading of this level."""
    lines = [f"{'#' * level} {publication.title}", "", _literal(publication.verdict), ""]
    for part in publication.sections:
        if not part.text and not part.rows:
            continue  # charts only
        lines += [f"{'#' * (level + 1)} {part.title}", ""]
        for paragraph in part.text:
            lines += [_literal(paragraph), ""]
        if part.rows:
            lines += [_line(part.head), f"|{'---|' * len(part.head)}", *map(_line, part.rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_literal(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _literal(text: str) -> str:
    """One line without tags: Markdown takes those of HTML as they are."""
    return _TAG.sub(r"\\<", " ".join(text.split()))


def to_page(publication: Publication) -> bytes:
    """The page: like that of a run, it refers to nothing outside of itself and has no script."""
    return render("publication.html", publication=publication, broken_lines=_broken_lines)


def _broken_lines(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """What stands in parentheses on a line of its own; the style sheet keeps line breaks."""
    return [[cell.replace(" (", "\n(") for cell in row] for row in rows]
