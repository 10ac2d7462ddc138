"""Blank figures, text and PNG files: the part of drawing that every figure shares.

Matplotlib is used through its object interface (``Figure`` on an Agg canvas) and imported when a figure is
drawn: nothing is registered in ``pyplot`` and no window system is needed.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from krrdistill.common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
FONT = "DejaVu Sans"  # bundled with Matplotlib, so that every machine draws the same picture
INK = "#222222"
MUTED = "#6b6b6b"
LINE = "#1f5fa8"
ACCENT = "#c8501e"


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure on an Agg canvas; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def write_text(
    fig: Figure,
    x: float,
    y: float,
    text: str,
    size: float = 9,
    *,
    rotation: float = 0,
    align: str = "center",
    color: str = INK,
) -> None:
    """Write ``text`` at pixel (x, y), counted from the top left; names are never read as mathematics."""
    width, height = fig.get_size_inches() * DPI
    fig.text(
        x / width,
        1 - y / height,
        text,
        fontsize=size,
        fontfamily=FONT,
        rotation=rotation,
        ha=align,
        va="center",
        color=color,
        parse_math=False,
    )


def save_figure(fig: Figure, path: str | os.PathLike[str]) -> None:
    """Write ``fig`` as PNG, whole or not at all, and without a date or version: equal figures, equal bytes.

    Raises
    ------
    OSError
        When the folder is missing, cannot be written or is full.
    """
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(Path(path), lambda stream: stream.write(buffer.getvalue()))


def plain_number(value: float) -> str:
    """Three significant digits, an exponent only from a million on: 1000, 0.00316, 1e+06."""
    return f"{float(f'{value:.3g}'):g}"
