"""The distilled samples beside the real ones that they started from, as one picture for papers and slides."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from krrdistill.apps.report.axes import PALETTE
from krrdistill.apps.report.pictures import Pictured, display_windows, to_bytes
from krrdistill.apps.text import plain_number, printable
from krrdistill.common.files import write_atomically
from krrdistill.options import shown_points

__all__ = ["Sheet", "distilled_sheet", "save_sheet"]

Box = tuple[int, int, int, int]
MAX_CLASSES = 10
MAX_COPIES = 4

# Layout in pixels, for about ten inches at 150 dpi. Cells are whole multiples of the image's size, so that its pixels
# stay square.
WIDTH, MIN_WIDTH, MAX_CELL = 1540, 900, 220
GAP, BLOCK_GAP = 8, 22
LEFT, RIGHT, TITLE, NAMES, CAPTION_LINE = 46, 14, 48, 32, 18
TITLE_SIZES, LABEL_SIZE, NAME_SIZES, CAPTION_SIZE = (21, 13), 19, (19, 14), 14
FRAME = "#c4c4c4"
_LONGEST_TEXT = 200  # letters that are measured
_SMOOTH = 3  # lines are drawn that much larger


@dataclass(frozen=True)
class Sheet:
    """The picture, and what is written on it and where its samples are.

    boxes : (left, top, right, bottom) of every sample, row by row
    """

    image: Image.Image
    title: str
    names: tuple[str, ...]
    caption: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class _Block:
    """Rows of samples under one label."""

    label: str
    shown: Pictured
    windows: npt.NDArray[np.float64]  # (n, 2): what is drawn black and white
    color: str

    @property
    def rows(self) -> int:
        return max(self.shown.counts)


def distilled_sheet(
    images: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    start_images: npt.ArrayLike | None = None,
    value_range: tuple[float, float] | None = (0.0, 255.0),
    points_per_class: int | Sequence[int] | None = None,
    title: str = "",
) -> Sheet:
    """One column per class (the first ten), one row per distilled sample of that class (the first four).

    Parameters
    ----------
    images : array of shape (m, h, w), (m, h, w, 3) or (m, d)
        Distilled samples in the units of the raw data, in rounds of the classes. Samples of any other
        shape are drawn as vectors: a line over the feature index.
    class_names : sequence of k strings
    start_images : array of the same shape, optional
        Real samples that the distilled ones started from, drawn above them.
    value_range : (low, high), or None where it is not known
        Black and white of a real image: (0, 255) for uint8 images, (0, 16) for the bundled digits. A
        distilled image that leaves it by more than 5 %, or uses less than a quarter of it, is stretched to
        its own 1st to 99th percentile, and the caption says so; real images are never altered.
    points_per_class : int or sequence of k integers, optional
        By default every class has m / k.
    title : str, optional

    Raises
    ------
    ValueError
        When the classes do not have so many, the shapes differ, or ``value_range`` is not increasing.
    """
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ValueError(f"distilled_sheet: value_range must be increasing, got {value_range}")
    k = len(class_names)
    distilled = Pictured.of(np.asarray(images), k, "distilled_sheet: images", points_per_class)
    shown = distilled[distilled.among_first(MAX_COPIES, MAX_CLASSES)]
    blocks = [_Block("distilled", shown, display_windows(shown.values, value_range), PALETTE["line"])]
    if start_images is not None and value_range is not None:
        starts = Pictured.of(np.asarray(start_images), k, "distilled_sheet: start_images", points_per_class)
        real = starts[starts.among_first(MAX_COPIES, MAX_CLASSES)]
        if real.values.shape[1:] != shown.values.shape[1:]:
            raise ValueError(
                f"distilled_sheet: start_images hold samples of shape {real.values.shape[1:]}, "
                f"images of shape {shown.values.shape[1:]}"
            )
        windows = np.broadcast_to(value_range, (len(real.values), 2))
        blocks.insert(0, _Block("real", real, windows, PALETTE["muted"]))
    notes = (
        _first((k,), MAX_CLASSES, "classes"),
        _first(distilled.counts, MAX_COPIES, "samples per class"),
        _scale_note(blocks[-1], value_range),
    )
    names = [printable(name.replace("_", " ")) for name in class_names[:MAX_CLASSES]]
    return _draw(blocks, names, printable(title), "; ".join(note for note in notes if note))


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Write the picture as PNG with its title and caption as description, whole or not at all.

    Equal sheets give equal bytes. Raises OSError when the folder is missing, cannot be written or is full.
    """
    buffer, text = io.BytesIO(), PngInfo()
    text.add_itxt("Description", "; ".join(part for part in (sheet.title, sheet.caption) if part))
    sheet.image.save(buffer, "PNG", compress_level=4, pnginfo=text)
    write_atomically(Path(path), lambda stream: stream.write(buffer.getvalue()))


def _first(totals: Sequence[int], limit: int, noun: str) -> str:
    return f"first {limit} of {shown_points(totals)} {noun}" if max(totals) > limit else ""


def _scale_note(block: _Block, value_range: tuple[float, float] | None) -> str:
    """How vectors are drawn, or whose contrast is altered."""
    values = block.shown.values
    if not block.shown.is_image:
        return f"{values[0].size} features from left to right, every panel on its own vertical scale"
    if value_range is None:
        return "every image stretched to its own 1st to 99th percentile: the range of real ones is not known"
    stretched = int(np.any(block.windows != value_range, axis=-1).sum())
    if not stretched:
        return ""
    low, high = map(plain_number, value_range)
    return (
        f"{stretched} of {len(values)} distilled images contrast-stretched, 1st to 99th "
        f"percentile (values {plain_number(values.min())} to {plain_number(values.max())}, real {low} to {high})"
    )


def _draw(blocks: Sequence[_Block], names: Sequence[str], title: str, caption: str) -> Sheet:
    """Lay the blocks out from the top down, in whole pixels, and draw every sample."""
    columns = len(names)
    cell_w, cell_h = _cell(blocks[0], columns)
    content = columns * (cell_w + GAP) - GAP
    width = max(MIN_WIDTH, LEFT + content + RIGHT)
    left = LEFT + (width - LEFT - content - RIGHT) // 2
    letters = int((width - left - RIGHT) / _font(CAPTION_SIZE).getlength("n"))
    lines = textwrap.wrap(caption, letters)
    top = (TITLE if title else GAP) + NAMES
    rows = sum(block.rows for block in blocks)
    body = rows * (cell_h + GAP) + (len(blocks) - 1) * (BLOCK_GAP - GAP)
    height = top + body + ((len(lines) + 1) * CAPTION_LINE if lines else GAP)
    image = Image.new("RGB", (width, height), PALETTE["paper"])
    draw = ImageDraw.Draw(image)
    boxes: list[Box] = []
    y = top
    for block in blocks:
        middle = y + (block.rows * (cell_h + GAP) - GAP) // 2
        _write_upwards(image, (left - LEFT // 2, middle), block.label)
        places = zip(block.shown.classes.tolist(), block.shown.rounds.tolist(), strict=True)
        for (column, row), panel in zip(places, _panels(block, cell_w, cell_h), strict=True):
            x, at_row = left + column * (cell_w + GAP), y + row * (cell_h + GAP)
            draw.rectangle((x - 1, at_row - 1, x + cell_w, at_row + cell_h), outline=FRAME)
            image.paste(panel, (x, at_row))
            boxes.append((x, at_row, x + cell_w, at_row + cell_h))
        y += block.rows * (cell_h + GAP) + BLOCK_GAP - GAP
    texts, size = _fitting(names, cell_w)
    for column, text in enumerate(texts):
        at = (left + column * (cell_w + GAP) + cell_w // 2, top - NAMES // 2)
        draw.text(at, text, PALETTE["ink"], _font(size), anchor="mm")
    (shown,), size = _fitting([title], width - 2 * GAP, TITLE_SIZES)
    draw.text((width // 2, TITLE // 2), shown, PALETTE["ink"], _font(size), anchor="mm")
    for index, line in enumerate(lines):
        at = (left, height - (len(lines) - index) * CAPTION_LINE)
        draw.text(at, line, PALETTE["muted"], _font(CAPTION_SIZE), anchor="lm")
    return Sheet(image, title, tuple(texts), caption, tuple(boxes))


def _cell(block: _Block, columns: int) -> tuple[int, int]:
    """Width and height of a sample."""
    room = min(MAX_CELL, (WIDTH - LEFT - RIGHT + GAP) // columns - GAP)
    if not block.shown.is_image:
        return room, round(0.7 * room)
    h, w = block.shown.values.shape[1:3]
    scale = room // w or room / w
    return round(scale * w), max(1, round(scale * h))


def _panels(block: _Block, width: int, height: int) -> list[Image.Image]:
    """Every sample of a block, as large as a cell."""
    if not block.shown.is_image:
        return [_line(sample, block.color, width, height) for sample in block.shown.values]
    pixels = to_bytes(block.shown.values, block.windows)
    return [Image.fromarray(of).resize((width, height), Image.Resampling.NEAREST) for of in pixels]


def _line(sample: npt.NDArray[Any], color: str, width: int, height: int) -> Image.Image:
    """A vector as a line from left to right, between its own smallest and largest value."""
    w, h = _SMOOTH * width, _SMOOTH * height
    values = sample.astype(np.float64)
    spread = np.ptp(values) or 1.0
    x = np.linspace(0.02 * w, 0.98 * w, len(values))
    y = h * (0.92 - 0.84 * (values - values.min()) / spread)
    image = Image.new("RGB", (w, h), PALETTE["paper"])
    ImageDraw.Draw(image).line(list(zip(x.tolist(), y.tolist(), strict=True)), color, width=_SMOOTH + 1)
    return image.resize((width, height), Image.Resampling.BOX)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib, so that every machine draws the same picture."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _write_upwards(image: Image.Image, at: tuple[int, int], text: str) -> None:
    """Write ``text`` from the bottom up, its middle at (x, y)."""
    left, top, right, bottom = map(round, _font(LABEL_SIZE).getbbox(text))
    label = Image.new("RGB", (right - left, bottom - top), PALETTE["paper"])
    ImageDraw.Draw(label).text((-left, -top), text, PALETTE["ink"], _font(LABEL_SIZE))
    turned = label.transpose(Image.Transpose.ROTATE_90)
    image.paste(turned, (at[0] - turned.width // 2, max(0, at[1] - turned.height // 2)))


def _fitting(names: Sequence[str], width: int, sizes: tuple[int, int] = NAME_SIZES) -> tuple[list[str], int]:
    """Names as they fit over their columns, all in one size, the longest ones cut off."""
    room = width + GAP // 2
    largest, smallest = sizes
    longest = max(_font(largest).getlength(name) for name in names)
    size = min(largest, max(smallest, int(largest * room / max(longest, 1.0))))
    texts = []
    for name in names:
        text = name[:_LONGEST_TEXT]
        while text and _font(size).getlength(text) > room:
            text = text.removesuffix("\N{HORIZONTAL ELLIPSIS}")[:-1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
            if text == "\N{HORIZONTAL ELLIPSIS}":
                break
        texts.append(text)
    return texts, size
