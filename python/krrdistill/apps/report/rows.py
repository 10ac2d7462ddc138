"""Rows of pictures under each other, one column per class: what figures of distilled sets in papers look like."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from krrdistill.apps.report.axes import PALETTE, own_style
from krrdistill.apps.report.pictures import Pictured, to_bytes
from krrdistill.apps.text import printable

__all__ = ["COLUMNS", "DPI", "Panel", "PictureRow", "drawn", "rows_figure", "to_file"]

COLUMNS = 10  # at most, as in the paper
DPI = 300
# Inches: the width of a page of text, and what is around the pictures. 800 pixels wide, 7 points are 14 pixels high.
_WIDTH, _EDGE, _LABELS, _GAP = 5.5, 0.06, 0.98, 0.025
_TITLE, _NAME_LINE, _BETWEEN = 0.24, 0.125, 0.12
_TITLE_SIZE, _LABEL_SIZE, _NAME_SIZE = 8.5, 7.5, 7.0
_FEWEST = 6  # columns that there is room for: few classes make no posters
_LETTERS = 7  # of a name of a class that fit above a picture


@dataclass(frozen=True, eq=False)
class PictureRow:
    """Pictures (n, h, w[, 3]) as bytes, with a label at their left, and under it what is known of them."""

    label: str
    note: str
    pictures: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Panel:
    """The rows of one data set, and the names of the classes above the columns."""

    title: str
    names: tuple[str, ...]
    rows: tuple[PictureRow, ...]


def drawn(samples: npt.NDArray[Any], k: int, limits: tuple[float, float], *, stretch: bool = False) -> Any:
    """The first sample of each of the first classes as bytes (n, h, w[, 3]).

    samples : (m, *shape) raw, in rounds of k classes; limits : what is black and white, the rest is clipped
    stretch : black and white are each picture's own extremes instead
    """
    shown = Pictured.of(samples, k, "figures: samples")
    values = shown[shown.among_first(1, min(k, COLUMNS))].values
    if not stretch:
        return to_bytes(values, np.asarray(limits))
    flat = values.reshape(len(values), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    return to_bytes(values, np.stack([low, np.where(high > low, high, low + 1.0)], axis=1))


@own_style()
def rows_figure(panels: Sequence[Panel]) -> Figure:
    """All panels under each other, as wide as a page of text."""
    heights = [_height(panel) for panel in panels]
    height = sum(heights) + _BETWEEN * (len(panels) - 1) + 2 * _EDGE
    figure = Figure(figsize=(_WIDTH, height), facecolor=PALETTE["paper"])
    top = height - _EDGE
    for panel, needed in zip(panels, heights, strict=True):
        _draw(figure, panel, top)
        top -= needed + _BETWEEN
    return figure


@own_style()
def to_file(figure: Figure, kind: str) -> bytes:
    """The figure as "png" (300 dpi) or "pdf", without a date: equal figures, equal bytes."""
    buffer = io.BytesIO()
    nothing = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=nothing[kind])
    return buffer.getvalue()


def _side(panel: Panel) -> tuple[float, float]:
    """Width and height of a picture, in inches."""
    h, w = panel.rows[0].pictures.shape[1:3]
    columns = max(_columns(panel), _FEWEST)
    width = (_WIDTH - 2 * _EDGE - _LABELS) / columns - _GAP
    return width, width * h / w


def _columns(panel: Panel) -> int:
    return max(len(row.pictures) for row in panel.rows)


def _names(panel: Panel) -> list[list[str]]:
    """Lines of the names of the classes that have a column: long ones of several words take several."""
    shown = (printable(name.replace("_", " ")) for name in panel.names[: _columns(panel)])
    return [name.split() if len(name) > _LETTERS else [name] for name in shown]


def _height(panel: Panel) -> float:
    lines = max(map(len, _names(panel)), default=0)
    return _TITLE + lines * _NAME_LINE + len(panel.rows) * (_side(panel)[1] + _GAP)


def _draw(figure: Figure, panel: Panel, top: float) -> None:
    """One panel, its upper edge ``top`` inches above the lower edge of the figure."""
    height = figure.get_size_inches()[1]
    width, tall = _side(panel)
    left = _EDGE + _LABELS

    def write(x: float, y: float, text: str, size: float, color: str = "ink", **style: Any) -> None:
        style = {"ha": "left", "va": "center", "linespacing": 1.15, **style}
        figure.text(x / _WIDTH, y / height, text, fontsize=size, color=PALETTE[color], parse_math=False, **style)

    write(_EDGE, top - 0.4 * _TITLE, printable(panel.title), _TITLE_SIZE, weight="bold")
    names = _names(panel)
    top -= _TITLE + max(map(len, names), default=0) * _NAME_LINE
    for column, name in enumerate(names):
        x = left + column * (width + _GAP) + width / 2
        for line, text in enumerate(reversed(name)):
            write(x, top + 0.045 + line * _NAME_LINE, text, _NAME_SIZE, ha="center", va="baseline")
    for row in panel.rows:
        middle, lines = top - tall / 2, 1 + row.label.count("\n")
        shift = 0.065 if row.note else 0.0
        write(_EDGE, middle + shift, row.label, _LABEL_SIZE)
        if row.note:
            write(_EDGE, middle + shift - 0.065 * (lines + 1), row.note, _LABEL_SIZE, "muted")
        for column, picture in enumerate(row.pictures):
            x = left + column * (width + _GAP)
            axes = figure.add_axes((x / _WIDTH, (top - tall) / height, width / _WIDTH, tall / height))
            axes.set_axis_off()
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        top -= tall + _GAP
