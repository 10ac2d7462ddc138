"""What there is to read in a table, as Markdown and as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from krrdistill.apps.report.html import Markup, document, element
from krrdistill.apps.report.page import section, table

__all__ = ["Publication", "Section", "to_markdown", "to_page"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title, paragraphs, a table whose first column names its rows, and charts with captions (on the page only)."""

    name: str
    title: str
    text: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    charts: tuple[tuple[str, Markup], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A table with its verdict: whether what was measured is what is claimed."""

    title: str
    passed: bool
    verdict: str
    sections: tuple[Section, ...]


def to_markdown(publication: Publication, *, level: int = 1) -> str:
    """The text, its title as a heading of this level."""
    lines = [f"{'#' * level} {publication.title}", "", publication.verdict, ""]
    for part in publication.sections:
        if not part.text and not part.rows:
            continue  # charts only
        lines += [f"{'#' * (level + 1)} {part.title}", ""]
        for paragraph in part.text:
            lines += [paragraph, ""]
        if part.rows:
            lines += [_line(part.head), f"|{'---|' * len(part.head)}", *map(_line, part.rows), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def to_page(publication: Publication) -> bytes:
    """The page: like that of a run, it refers to nothing outside of itself and has no script."""
    kind = "verdict good" if publication.passed else "verdict bad"
    return document(
        f"{publication.title}: krrdistill",
        element("header", element("h1", publication.title), element("p", publication.verdict, class_=kind)),
        element("main", *(_section(part) for part in publication.sections), class_="publication"),
    )


def _section(part: Section) -> Markup:
    rows = [[cell.replace(" (", "\n(") for cell in row] for row in part.rows]  # the style sheet keeps line breaks
    charts = (element("figure", svg, element("figcaption", caption)) for caption, svg in part.charts)
    return section(
        part.name,
        part.title,
        *(element("p", paragraph) for paragraph in part.text),
        table(part.head, rows) if rows else None,
        element("div", *charts, class_="charts") if part.charts else None,
    )
