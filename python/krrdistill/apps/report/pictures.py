"""Samples as pixels: the distilled ones of every class, and what they started from, as one picture each."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from krrdistill.apps.text import plain_number
from krrdistill.data.layout import looks_channels_first

__all__ = ["ClassPictures", "Gallery", "by_class", "display_windows", "gallery", "to_bytes"]

Bytes = npt.NDArray[np.uint8]
STRETCH_PERCENTILES = (1.0, 99.0)
RANGE_EXCESS = 0.05  # of the pixel range: an image that leaves it by less is clipped, by more stretched
RANGE_USE = 0.25  # of the pixel range: an image whose percentiles span less would look blank and is stretched
_BUDGET = 2_000_000  # bytes of pictures: in base64 they are 2.7 MB
_QUALITIES = (95, 90, 85, 80, 70, 60)  # of JPEG, for more pictures than fit as PNG
_GREY = 128  # between the samples of a JPEG, which has no transparent pixels
_CARD = 1000  # bytes of HTML around the pictures of a class
_MAX_COLUMNS = 10
_TRIED = 12  # pictures from which the size of all is told


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
    start: npt.NDArray[Any] | None,
    value_range: tuple[float, float],
    budget: int = _BUDGET,
) -> Gallery:
    """Pictures of distilled samples (m, *shape), row i of class i mod k, and of the real ones that they started from.

    All samples are shown where they fit the budget of bytes: as PNG, or else as JPEG of the best quality that fits.
    Where no quality does, as many per class as fit as PNG, at least one; then as many classes as fit.
    Contrast is stretched as in ``distilled_sheet``. Vectors are drawn as images, row by row in a near square.
    """
    values = by_class(np.asarray(samples), len(names), "report: distilled_data")
    started = None if start is None else by_class(np.asarray(start), len(names), "report: start_images")
    if started is not None and started.shape != values.shape:
        raise ValueError(f"report: start_images are {started.shape}, the distilled images {values.shape}")
    windows = display_windows(values, value_range)
    copies, classes = _fit(values, started is not None, budget)
    lossy = None
    if (copies, classes) != values.shape[:2]:
        lossy = _jpegs(_sheets(values, windows, started, value_range), budget)
    if lossy is not None:
        copies, classes = values.shape[:2]
    notes = _notes(values, windows, copies, classes, value_range)
    if lossy is not None:
        notes.append("pictures are compressed with loss (JPEG); distilled.npz holds the numbers")
    shown = values[:copies, :classes]
    below = None if started is None else started[:copies, :classes]
    addresses = lossy or _pngs(_sheets(shown, windows[:copies, :classes], below, value_range))
    starts = addresses[1] if len(addresses) > 1 else [None] * classes
    width, height = _size(shown)
    pictures = (
        ClassPictures(name.replace("_", " "), distilled, real, width, height)
        for name, distilled, real in zip(names[:classes], addresses[0], starts, strict=True)
    )
    return Gallery(tuple(pictures), copies, min(copies, _MAX_COLUMNS), tuple(notes))


def by_class(samples: npt.NDArray[Any], k: int, name: str) -> npt.NDArray[Any]:
    """(m, *shape), row i of class i mod k -> (copies, classes, h, w[, 3]), or (copies, classes, d) for no images.

    Raises ValueError, which names ``name``, when m is not a positive multiple of k.
    """
    m = len(samples) if samples.ndim else 0
    if k < 1 or m < 1 or m % k or samples.ndim < 2:
        raise ValueError(f"{name} of shape {samples.shape} is not a whole number of samples for each of {k} classes")
    if looks_channels_first(samples.shape[1:]):
        samples = np.moveaxis(samples, 1, -1)
    if samples.ndim == 4 and samples.shape[-1] in (2, 4):
        samples = samples[..., :-1]  # without alpha
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


def to_bytes(values: npt.NDArray[Any], windows: npt.NDArray[np.floating]) -> Bytes:
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


def _sheets(
    values: npt.NDArray[Any],
    windows: npt.NDArray[np.float64],
    started: npt.NDArray[Any] | None,
    value_range: tuple[float, float],
) -> list[list[Bytes]]:
    """Per class the picture of its distilled samples, and then those of the starts, where there are some."""
    drawn = [to_bytes(values, windows)]
    if started is not None:
        drawn.append(to_bytes(started, np.asarray(value_range)))
    return [[_tile(images[:, c]) for c in range(values.shape[1])] for images in drawn]


def _tile(images: Bytes) -> Bytes:
    """(n, h, w[, 3]) in rows of ten, one transparent pixel between neighbours."""
    if len(images) == 1:
        return np.asarray(images[0])
    n, h, w = images.shape[:3]
    colors = images.reshape(n, h, w, -1)
    columns = min(n, _MAX_COLUMNS)
    rows = math.ceil(n / columns)
    picture = np.zeros((rows * (h + 1) - 1, columns * (w + 1) - 1, colors.shape[3] + 1), dtype=np.uint8)
    for i, image in enumerate(colors):
        y, x = (i // columns) * (h + 1), (i % columns) * (w + 1)
        picture[y : y + h, x : x + w, :-1] = image
        picture[y : y + h, x : x + w, -1] = 255
    return picture


def _size(values: npt.NDArray[Any]) -> tuple[int, int]:
    """Width and height of the picture of a class."""
    height, width = _tile(to_bytes(values[:, :1], np.array([0.0, 1.0]))[:, 0]).shape[:2]
    return width, height


def _pngs(sheets: list[list[Bytes]]) -> list[list[str]]:
    return [[_uri("png", _encode(sheet, "PNG", compress_level=6)) for sheet in kind] for kind in sheets]


def _jpegs(sheets: list[list[Bytes]], budget: int) -> list[list[str]] | None:
    """All pictures as JPEG of the best quality that fits the budget, None where none does."""
    opaque = [[_opaque(sheet) for sheet in kind] for kind in sheets]
    count = len(opaque) * len(opaque[0])
    every = max(1, len(opaque[0]) // _TRIED)
    for quality in _QUALITIES:
        tried = [_jpeg(sheet, quality) for kind in opaque for sheet in kind[::every]]
        if sum(map(len, tried)) * count / len(tried) > 1.05 * budget:
            continue
        files = [[_jpeg(sheet, quality) for sheet in kind] for kind in opaque]
        if sum(len(file) for kind in files for file in kind) + len(files[0]) * _CARD <= budget:
            return [[_uri("jpeg", file) for file in kind] for kind in files]
    return None


def _opaque(picture: Bytes) -> Bytes:
    """The picture without a channel of transparency."""
    if picture.shape[2:] not in ((2,), (4,)):
        return picture
    return np.where(picture[..., -1:] == 0, np.uint8(_GREY), picture[..., :-1])


def _jpeg(picture: Bytes, quality: int) -> bytes:
    """Colours at full resolution, Huffman tables of its own."""
    # Such tables are written with all of the picture at once, and noise takes more bytes than Pillow reserves.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2 * picture.size)
    return _encode(picture, "JPEG", quality=quality, subsampling=0, optimize=True)


def _encode(picture: Bytes, kind: str, **options: int | bool) -> bytes:
    """The file of a picture (h, w) or (h, w, channels): grey, grey and alpha, RGB, RGBA."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    """The address of an image that is inside of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _fit(values: npt.NDArray[Any], twice: bool, budget: int) -> tuple[int, int]:
    """How many samples of how many classes are shown."""
    copies, k = values.shape[:2]
    size = values[0, 0].size * (2 if twice else 1)
    fitting = (budget - k * _CARD) // (k * size)
    if fitting >= 1:
        return min(copies, fitting), k
    return 1, min(k, max(1, budget // (size + _CARD)))


def _notes(
    values: npt.NDArray[Any],
    windows: npt.NDArray[np.float64],
    copies: int,
    classes: int,
    value_range: tuple[float, float],
) -> list[str]:
    """What is left out, how vectors are drawn, and whose contrast is altered."""
    notes = []
    if copies < len(values):
        notes.append(f"the first {copies} of {len(values)} samples per class are shown; distilled.npz holds all")
    if classes < values.shape[1]:
        notes.append(f"the first {classes} of {values.shape[1]} classes are shown; distilled.npz holds all")
    if values.ndim == 3:
        notes.append(f"samples are vectors of {values.shape[2]} features, drawn row by row from the top left")
    shown = values[:copies, :classes]
    stretched = int(np.any(windows[:copies, :classes] != value_range, axis=-1).sum())
    if stretched:
        low, high = map(plain_number, value_range)
        notes.append(
            f"{stretched} of the {copies * classes} distilled images shown are stretched to their own 1st to 99th "
            f"percentile, since they leave the range of the real ones, {low} to {high} "
            f"(theirs is {plain_number(shown.min())} to {plain_number(shown.max())})"
        )
    return notes
