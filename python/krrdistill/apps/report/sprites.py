"""Samples as pixels: the distilled ones of every class, and what they started from, as one picture each."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from krrdistill.apps.report.canvas import plain_number
from krrdistill.apps.report.figures import by_class, display_windows
from krrdistill.apps.report.jpeg import encode_jpeg, has_jpeg
from krrdistill.apps.report.png import encode_png

__all__ = ["ClassPictures", "Gallery", "gallery"]

Bytes = npt.NDArray[np.uint8]
_BUDGET = 2_000_000  # bytes of pictures: in base64 they are 2.7 MB
_QUALITIES = (95, 90, 85, 80, 70, 60)  # of JPEG, for more pictures than fit as PNG
_GREY = 128  # between the samples of a JPEG, which has no transparent pixels
_CARD = 1000  # bytes of HTML around the pictures of a class
_MAX_COLUMNS = 10


@dataclass(frozen=True)
class ClassPictures:
    """The pictures of one class as data URIs, every one ``columns`` by ``rows`` samples."""

    name: str
    distilled: str
    start: str | None
    width: int  # of either picture, in pixels
    height: int


@dataclass(frozen=True)
class Gallery:
    """What a page shows of a distilled set."""

    classes: tuple[ClassPictures, ...]
    copies: int  # shown of every class
    columns: int
    notes: tuple[str, ...]  # what is left out or altered


def gallery(
    samples: npt.NDArray[np.floating],
    names: Sequence[str],
    *,
    start: npt.NDArray[np.generic] | None,
    value_range: tuple[float, float],
    budget: int = _BUDGET,
) -> Gallery:
    """Pictures of distilled samples (m, *shape), row i of class i mod k, and of the real ones that they started from.

    All samples are shown where they fit the budget of bytes: as PNG, or else as JPEG of the best quality that fits.
    Where no quality does, as many per class as fit as PNG, at least one; then as many classes as fit.
    Contrast is stretched as in ``distilled_figure``. Vectors are drawn as images, row by row in a near square.
    """
    k = len(names)
    values = by_class(np.asarray(samples), k, "report: distilled_data")
    started = None if start is None else by_class(np.asarray(start), k, "report: start_images")
    if started is not None and started.shape != values.shape:
        raise ValueError(f"report: start_images are {started.shape}, the distilled images {values.shape}")
    copies, classes = values.shape[:2]
    fitting = _fit(values, started is not None, budget)
    addresses = None
    if fitting != (copies, classes) and has_jpeg():
        sheets = _sheets(values, started, value_range)
        addresses = _jpegs(sheets, budget)
    lossy = addresses is not None
    if addresses is None:
        copies, classes = fitting
        sheets = _sheets(values[:copies, :classes], started, value_range)
        addresses = [[_uri("png", encode_png(sheet)) for sheet in kind] for kind in sheets]
    notes = _notes(values, copies, classes)
    values = values[:copies, :classes]
    windows = display_windows(values, value_range)
    stretched = int(np.any(windows != value_range, axis=-1).sum())
    if stretched:
        low, high = value_range
        notes.append(
            f"{stretched} of the {copies * classes} distilled images shown are stretched to their own 1st to 99th "
            f"percentile, since they leave the range of the real ones, {plain_number(low)} to {plain_number(high)} "
            f"(theirs is {plain_number(values.min())} to {plain_number(values.max())})"
        )
    if lossy:
        notes.append("pictures are compressed with loss (JPEG); distilled.npz holds the numbers")
    height, width = sheets[0][0].shape[:2]
    starts = addresses[1] if len(addresses) > 1 else [None] * classes
    pictures = (
        ClassPictures(name.replace("_", " "), distilled, below, width, height)
        for name, distilled, below in zip(names[:classes], addresses[0], starts, strict=True)
    )
    return Gallery(tuple(pictures), copies, min(copies, _MAX_COLUMNS), tuple(notes))


def _uri(kind: str, content: bytes) -> str:
    """The address of an image that is inside of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _sheets(
    values: npt.NDArray[np.generic], started: npt.NDArray[np.generic] | None, value_range: tuple[float, float]
) -> list[list[Bytes]]:
    """Per class the picture of its distilled samples, and then those of the starts, where there are some."""
    copies, classes = values.shape[:2]
    drawn = [_pixels(values, display_windows(values, value_range))]
    if started is not None:
        drawn.append(_pixels(started[:copies, :classes], np.asarray(value_range)))
    columns = min(copies, _MAX_COLUMNS)
    return [[_tile(images[:, c], columns) for c in range(classes)] for images in drawn]


def _jpegs(sheets: list[list[Bytes]], budget: int) -> list[list[str]] | None:
    """All pictures as JPEG of the best quality that fits the budget, None where none does."""
    opaque = [[_opaque(sheet) for sheet in kind] for kind in sheets]
    for quality in _QUALITIES:
        files = [[encode_jpeg(sheet, quality) for sheet in kind] for kind in opaque]
        if sum(len(file) for kind in files for file in kind) + len(files[0]) * _CARD <= budget:
            return [[_uri("jpeg", file) for file in kind] for kind in files]
    return None


def _opaque(picture: Bytes) -> Bytes:
    """Without the channel of transparency, where there is one."""
    if picture.shape[2:] not in ((2,), (4,)):
        return picture
    return np.where(picture[..., -1:] == 0, np.uint8(_GREY), picture[..., :-1])


def _fit(values: npt.NDArray[np.generic], twice: bool, budget: int) -> tuple[int, int]:
    """How many samples of how many classes are shown."""
    copies, k = values.shape[:2]
    size = values[0, 0].size * (2 if twice else 1)
    fitting = (budget - k * _CARD) // (k * size)
    if fitting >= 1:
        return min(copies, fitting), k
    return 1, min(k, max(1, budget // (size + _CARD)))


def _notes(values: npt.NDArray[np.generic], copies: int, classes: int) -> list[str]:
    notes = []
    if copies < len(values):
        notes.append(f"the first {copies} of {len(values)} samples per class are shown; distilled.npz holds all")
    if classes < values.shape[1]:
        notes.append(f"the first {classes} of {values.shape[1]} classes are shown; distilled.npz holds all")
    if values.ndim == 3:
        notes.append(f"samples are vectors of {values.shape[2]} features, drawn row by row from the top left")
    return notes


def _pixels(values: npt.NDArray[np.generic], windows: npt.NDArray[np.floating]) -> Bytes:
    """(copies, classes, *shape) -> bytes (copies, classes, h, w[, 3]); windows (..., 2) are drawn black and white."""
    if values.ndim == 3:
        d = values.shape[2]
        side = math.ceil(math.sqrt(d))
        rows = math.ceil(d / side)
        padded = np.empty((*values.shape[:2], rows * side))
        padded[..., :d] = values
        padded[..., d:] = np.broadcast_to(windows[..., :1], (*values.shape[:2], 1))
        values = padded.reshape(*values.shape[:2], rows, side)
    low, high = (windows[..., i].reshape(windows.shape[:-1] + (1,) * (values.ndim - 2)) for i in (0, 1))
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.asarray(np.rint(255.0 * np.clip(scaled, 0.0, 1.0)), dtype=np.uint8)


def _tile(images: Bytes, columns: int) -> Bytes:
    """(n, h, w[, 3]) in rows of ``columns``, one transparent pixel between neighbours."""
    if len(images) == 1:
        return np.asarray(images[0])
    n, h, w = images.shape[:3]
    colors = images.reshape(n, h, w, -1)
    rows = math.ceil(n / columns)
    picture = np.zeros((rows * (h + 1) - 1, columns * (w + 1) - 1, colors.shape[3] + 1), dtype=np.uint8)
    for i, image in enumerate(colors):
        y, x = (i // columns) * (h + 1), (i % columns) * (w + 1)
        picture[y : y + h, x : x + w, :-1] = image
        picture[y : y + h, x : x + w, -1] = 255
    return picture
