"""A table that fits the terminal: cells are folded at word borders, and the least important columns are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len, chop_cells

__all__ = ["TextColumn", "TextTable", "fitted", "folded"]

_WIDEST = (40, 24, 12)  # letters in a line of a cell: narrower lines are tried before columns are left out
_NAME = 24  # ... but not of the first column, which tells the rows apart
_LINES = 3  # of a cell
_GAP = "  "
_WORD = re.compile(r"[^\s_/,-]*[\s_/,-]|[^\s_/,-]+")  # with the border behind it


@dataclass(frozen=True)
class TextColumn:
    """Heading and cells; where room is short, those of the highest ``rank`` go first."""

    heading: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False  # aligned there, as words are

    def folded(self, widest: int) -> list[list[str]]:
        """The lines of heading and cells; the heading is no wider than its longest word or the cells make it."""
        cells = [folded(cell, widest) for cell in self.cells]
        width = max(cell_len(line) for cell in cells for line in cell)
        return [folded(self.heading, max(width, *map(cell_len, self.heading.split()))), *cells]


@dataclass(frozen=True)
class TextTable:
    """Columns as lines of text, and those that had no room."""

    columns: Sequence[TextColumn]
    parts: Sequence[list[list[str]]]  # of each column the lines of heading and cells
    left_out: Sequence[TextColumn] = ()

    @property
    def widths(self) -> list[int]:
        """Of the columns."""
        return [max(cell_len(line) for cell in cells for line in cell) for cells in self.parts]

    @property
    def width(self) -> int:
        """Of the lines."""
        return sum(self.widths) + len(_GAP) * (len(self.parts) - 1)

    def without_least(self) -> TextTable:
        """Without the last column of the highest rank, but for the first one."""
        least = max(range(1, len(self.columns)), key=lambda index: (self.columns[index].rank, index))
        columns, parts = list(self.columns), list(self.parts)
        del parts[least]
        return TextTable(columns, parts, [columns.pop(least), *self.left_out])

    def lines(self) -> Iterator[str]:
        """The heading and the rows."""
        for row in zip(*self.parts, strict=True):
            for line in zip_longest(*row, fillvalue=""):
                padded = []
                for text, column, width in zip(line, self.columns, self.widths, strict=True):
                    room = " " * (width - cell_len(text))
                    padded.append(text + room if column.left else room + text)
                yield _GAP.join(padded).rstrip()


def fitted(columns: Sequence[TextColumn], width: int | None) -> TextTable:
    """A table of at most ``width`` letters a line, or with one line for each row: the first column always stays."""
    if width is None:
        return TextTable(columns, [[[column.heading], *([cell] for cell in column.cells)] for column in columns])
    for widest in _WIDEST:
        limits = [max(widest, _NAME), *[widest] * (len(columns) - 1)]
        table = TextTable(columns, [column.folded(limit) for column, limit in zip(columns, limits, strict=True)])
        if table.width <= width:
            return table
    while len(table.columns) > 1 and table.width > width:
        table = table.without_least()
    return table


def folded(text: str, width: int) -> list[str]:
    """At most three lines, broken behind spaces, commas, dashes, _ and /; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in _WORD.findall(text):
        if lines[-1] and cell_len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        first, *rest = chop_cells(word, width) if cell_len(word.rstrip()) > width else [word]
        lines[-1:] = [lines[-1] + first, *rest]
    lines = [line.rstrip() for line in lines]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], chop_cells(lines[_LINES - 1], width - 1)[0] + "…"]
    return lines
