"""Figures of a run: the distilled samples beside the real ones they started from.

``lambda_path_figure`` (ridge_path.py) and ``save_figure`` (canvas.py) are handed on from here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.report.canvas import DPI, LINE, MUTED, new_figure, plain_number, save_figure, write_text
from krrdistill.apps.report.ridge_path import lambda_path_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["distilled_figure", "lambda_path_figure", "save_figure"]

MAX_CLASSES = 10
MAX_COPIES = 4
STRETCH_PERCENTILES = (1.0, 99.0)
RANGE_EXCESS = 0.05  # of the pixel range: an image that leaves it by less is clipped, by more stretched
RANGE_USE = 0.25  # of the pixel range: an image whose percentiles span less would look blank and is stretched

# Layout in pixels at DPI. Cells are whole multiples of the image's size, so that its pixels stay square.
WIDTH = 1540
MIN_WIDTH = 900
MAX_CELL = 220
GAP = 8
BLOCK_GAP = 22
LEFT = 46
RIGHT = 14
TITLE = 48
NAMES = 32
CAPTION_LINE = 18
GLYPH = 0.52  # mean width of a letter in units of the font size
CAPTION_SIZE = 7.0  # points
POINT = 72 / DPI  # points per pixel


@dataclass(frozen=True)
class _Block:
    """Rows of panels under one label."""

    label: str
    values: npt.NDArray[Any]  # (copies, classes, *sample)
    windows: npt.NDArray[np.float64]  # (copies, classes, 2): what is drawn black and white
    color: str

    @property
    def is_image(self) -> bool:
        return self.values.ndim in (4, 5)


@dataclass(frozen=True)
class _Layout:
    """Pixel positions of the panels, counted from the top left."""

    width: int
    height: int
    left: int
    top: int
    cell_w: int
    cell_h: int

    def x(self, column: int) -> int:
        return self.left + column * (self.cell_w + GAP)

    def box(self, column: int, y: int) -> tuple[float, float, float, float]:
        """Matplotlib's (left, bottom, width, height) in fractions of the figure."""
        return (
            self.x(column) / self.width,
            1 - (y + self.cell_h) / self.height,
            self.cell_w / self.width,
            self.cell_h / self.height,
        )


def distilled_figure(
    images: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    start_images: npt.ArrayLike | None = None,
    value_range: tuple[float, float] = (0.0, 255.0),
    title: str | None = None,
) -> Figure:
    """One column per class (the first ten), one row per distilled sample of that class (the first four).

    Parameters
    ----------
    images : array of shape (m, h, w), (m, h, w, 3) or (m, d)
        Distilled samples in the units of the raw data; row i belongs to class i mod k. Samples of any other
        shape are drawn as vectors: a line over the feature index.
    class_names : sequence of k strings
    start_images : array of the same shape, optional
        Real samples that the distilled ones started from, drawn above them.
    value_range : (low, high)
        Black and white of a real image: (0, 255) for uint8 images, (0, 16) for the bundled digits. A
        distilled image that leaves it by more than 5 %, or uses less than a quarter of it, is stretched to
        its own 1st to 99th percentile, and the caption says so; real images are never altered.
    title : str, optional

    Raises
    ------
    ValueError
        When m is not a positive multiple of k, the shapes differ, or ``value_range`` is not increasing.
    """
    if not value_range[0] < value_range[1]:
        raise ValueError(f"distilled_figure: value_range must be increasing, got {value_range}")
    k = len(class_names)
    values = _grid(np.asarray(images), k, "images")
    distilled = _Block("distilled", values, display_windows(values, value_range), LINE)
    blocks = [distilled]
    if start_images is not None:
        real = _grid(np.asarray(start_images), k, "start_images")
        if real.shape[2:] != values.shape[2:]:
            raise ValueError(
                f"distilled_figure: start_images hold samples of shape {real.shape[2:]}, "
                f"images of shape {values.shape[2:]}"
            )
        blocks.insert(0, _Block("real", real, np.broadcast_to(value_range, (*real.shape[:2], 2)), MUTED))
    notes = (
        _shown(k, MAX_CLASSES, "classes"),
        _shown(len(np.asarray(images)) // k, MAX_COPIES, "samples per class"),
        _scale_note(distilled, value_range),
    )
    caption = "; ".join(note for note in notes if note)
    return _draw(blocks, [str(name) for name in class_names[:MAX_CLASSES]], title, caption)


def _grid(samples: npt.NDArray[Any], k: int, name: str) -> npt.NDArray[Any]:
    """What is shown of ``by_class``."""
    return by_class(samples, k, f"distilled_figure: {name}")[:MAX_COPIES, :MAX_CLASSES]


def by_class(samples: npt.NDArray[Any], k: int, name: str) -> npt.NDArray[Any]:
    """(m, *shape), row i of class i mod k -> (copies, classes, h, w[, 3]), or (copies, classes, d) for no images.

    Raises ValueError, which names ``name``, when m is not a positive multiple of k.
    """
    m = len(samples) if samples.ndim else 0
    if k < 1 or m < 1 or m % k or samples.ndim < 2:
        raise ValueError(f"{name} of shape {samples.shape} is not a whole number of samples for each of {k} classes")
    shape = samples.shape[1:]
    if len(shape) == 3 and shape[-1] == 1:
        shape = shape[:2]
    elif len(shape) != 2 and not (len(shape) == 3 and shape[-1] == 3):
        shape = (int(np.prod(shape)),)
    return samples.reshape(m // k, k, *shape)


def display_windows(values: npt.NDArray[Any], value_range: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Per sample the pixel range, or the sample's own percentiles where the range would show it badly."""
    low, high = value_range
    width = high - low
    flat = values.reshape(*values.shape[:2], -1)
    own = np.moveaxis(np.percentile(flat, STRETCH_PERCENTILES, axis=-1), 0, -1)
    constant = own[..., 0] == own[..., 1]
    own[constant] += (-0.5 * width, 0.5 * width)
    inside = (flat.min(-1) >= low - RANGE_EXCESS * width) & (flat.max(-1) <= high + RANGE_EXCESS * width)
    keep = inside & (own[..., 1] - own[..., 0] >= RANGE_USE * width)
    return np.where(keep[..., None], np.asarray(value_range, dtype=np.float64), own)


def _shown(total: int, limit: int, noun: str) -> str:
    return f"first {limit} of {total} {noun}" if total > limit else ""


def _scale_note(block: _Block, value_range: tuple[float, float]) -> str:
    values = block.values
    if not block.is_image:
        return f"{values[0, 0].size} features from left to right, every panel on its own vertical scale"
    stretched = int(np.any(block.windows != value_range, axis=-1).sum())
    if not stretched:
        return ""
    low, high = value_range
    return (
        f"{stretched} of {len(values) * len(values[0])} distilled images contrast-stretched, 1st to 99th "
        f"percentile (values {plain_number(values.min())} to {plain_number(values.max())}, "
        f"real {plain_number(low)} to {plain_number(high)})"
    )


def _draw(blocks: Sequence[_Block], names: Sequence[str], title: str | None, caption: str) -> Figure:
    """Lay the blocks out from the top down, in whole pixels, and draw every panel."""
    layout, lines = _lay_out(blocks, len(names), bool(title), caption)
    fig = new_figure(layout.width / DPI, layout.height / DPI)
    y = layout.top
    for block in blocks:
        middle = y + (len(block.values) * (layout.cell_h + GAP) - GAP) / 2
        write_text(fig, layout.left - 0.55 * LEFT, middle, block.label, rotation=90)
        for row, windows in zip(block.values, block.windows, strict=True):
            for column, (value, window) in enumerate(zip(row, windows, strict=True)):
                _draw_panel(fig.add_axes(layout.box(column, y)), value, window, block)
            y += layout.cell_h + GAP
        y += BLOCK_GAP - GAP
    texts, size = _fit(names, layout.cell_w)
    for column, text in enumerate(texts):
        write_text(fig, layout.x(column) + layout.cell_w / 2, layout.top - 0.45 * NAMES, text, size)
    if title:
        write_text(fig, layout.width / 2, 0.5 * TITLE, title, size=10)
    for index, line in enumerate(lines):
        middle = layout.height - (len(lines) - index) * CAPTION_LINE
        write_text(fig, layout.left, middle, line, CAPTION_SIZE, align="left", color=MUTED)
    return fig


def _lay_out(blocks: Sequence[_Block], columns: int, titled: bool, caption: str) -> tuple[_Layout, list[str]]:
    """Cell size, margins and the caption's lines for a figure about 10 inches wide."""
    room = min(MAX_CELL, (WIDTH - LEFT - RIGHT + GAP) // columns - GAP)
    if blocks[0].is_image:
        h, w = blocks[0].values.shape[2:4]
        scale = room // w or room / w
        cell_w, cell_h = round(scale * w), max(1, round(scale * h))
    else:
        cell_w, cell_h = room, round(0.7 * room)
    content = columns * (cell_w + GAP) - GAP
    width = max(MIN_WIDTH, LEFT + content + RIGHT)
    left = LEFT + (width - LEFT - content - RIGHT) // 2
    lines = textwrap.wrap(caption, int((width - left - RIGHT) * POINT / (GLYPH * CAPTION_SIZE)))
    rows = sum(len(block.values) for block in blocks)
    top = (TITLE if titled else GAP) + NAMES
    body = rows * (cell_h + GAP) + (len(blocks) - 1) * (BLOCK_GAP - GAP)
    height = top + body + ((len(lines) + 1) * CAPTION_LINE if lines else GAP)
    return _Layout(width, height, left, top, cell_w, cell_h), lines


def _draw_panel(axes: Axes, value: npt.NDArray[Any], window: npt.NDArray[np.float64], block: _Block) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="#c4c4c4")
    if block.is_image:
        low, high = window
        scaled = np.clip((value.astype(np.float64) - low) / (high - low), 0.0, 1.0)
        axes.imshow(scaled, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    else:
        axes.plot(np.arange(value.size), value, color=block.color, linewidth=0.7)
        axes.margins(x=0.02, y=0.08)


def _fit(names: Sequence[str], cell_width: int) -> tuple[list[str], float]:
    """Class names and the one font size (6.5 to 9 points) at which they fit over their columns."""
    texts = [name.replace("_", " ") for name in names]
    room = (cell_width + 0.5 * GAP) * POINT / GLYPH
    size = min(9.0, max(6.5, room / max(len(text) or 1 for text in texts)))
    keep = int(room / size)
    ellipsis = "\N{HORIZONTAL ELLIPSIS}"
    return [text if len(text) <= keep else text[: keep - 1].rstrip() + ellipsis for text in texts], size
