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
from krrdistill.construct.labels import rounds_and_classes
from krrdistill.data.layout import looks_channels_first
from krrdistill.options import class_counts, shown_points

__all__ = [
    "ClassPictures",
    "Gallery",
    "Pictured",
    "data_uri",
    "display_windows",
    "gallery",
    "signed_pictures",
    "to_bytes",
]

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
STRETCH_PERCENTILES = (1.0, 99.0)
RANGE_EXCESS = 0.05  # of the pixel range: an image that leaves it by less is clipped, by more stretched
RANGE_USE = 0.25  # of the pixel range: an image whose percentiles span less would look blank and is stretched
_BUDGET = 2_000_000  # bytes of pictures: in base64 they are 2.7 MB
_QUALITIES = (95, 90, 85, 80, 70, 60)  # of JPEG, for more pictures than fit as PNG
_GREY = 128  # between the samples of a JPEG, which has no transparent pixels
_CARD = 1000  # bytes of HTML around the pictures of a class
_MAX_COLUMNS = 10
_STRIP_SHARE, _MOST_STRIP = 16, 64  # height of a vector's strip: this part of its width, and at most so many pixels
_SIZES = (1, 2, 3, 4, 6, 8)  # screen pixels that a pixel may take in the list of classes
_ROOM, _DEFAULT_ROOM = 1140, 110  # screen pixels that a picture there may be wide, and is at first
_LARGE, _LARGE_NARROW = 480, 340  # screen pixels of one sample seen large, and on a phone
_TRIED = 12  # pictures from which the size of all is told


@dataclass(frozen=True, eq=False)
class Pictured:
    """Samples as pictures: (n, h, w[, 3]), or (n, d) where they are no images, the first of every class first.

    classes, rounds : of each sample its class, and how many of that class come before it
    """

    values: npt.NDArray[Any]
    classes: IntArray
    rounds: IntArray

    @classmethod
    def of(
        cls, samples: npt.NDArray[Any], k: int, name: str, points_per_class: int | Sequence[int] | None = None
    ) -> Pictured:
        """Of samples (m, *shape) in rounds of the classes; None: all classes have equally many.

        Raises ValueError, which names ``name``, where there are no such numbers of samples.
        """
        m = len(samples) if samples.ndim else 0
        whole = k >= 1 and samples.ndim >= 2
        counts = class_counts(k, (m // k if points_per_class is None else points_per_class)) if whole else ()
        if len(counts) != k or min(counts, default=0) < 1 or sum(counts) != m:
            asked = "a whole number of" if points_per_class is None else shown_points(points_per_class)
            raise ValueError(f"{name} of shape {samples.shape} is not {asked} samples for each of {k} classes")
        if looks_channels_first(samples.shape[1:]):
            samples = np.moveaxis(samples, 1, -1)
        if samples.ndim == 4 and samples.shape[-1] in (2, 4):
            samples = samples[..., :-1]  # without alpha
        shape = samples.shape[1:]
        if len(shape) == 3 and shape[-1] == 1:
            shape = shape[:2]
        elif len(shape) != 2 and not (len(shape) == 3 and shape[-1] == 3):
            shape = (int(np.prod(shape)),)
        rounds, classes = rounds_and_classes(k, counts)
        return cls(samples.reshape(m, *shape), classes, rounds)

    def among_first(self, copies: int, classes: int) -> npt.NDArray[np.bool_]:
        """Which samples are among the first ``copies`` of one of the first ``classes``."""
        return np.asarray((self.rounds < copies) & (self.classes < classes))

    def __getitem__(self, kept: npt.NDArray[np.bool_]) -> Pictured:
        return Pictured(self.values[kept], self.classes[kept], self.rounds[kept])

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of samples of each class."""
        return tuple(np.bincount(self.classes).tolist())

    @property
    def is_image(self) -> bool:
        """Whether the samples have rows and columns of their own."""
        return self.values.ndim > 2


@dataclass(frozen=True)
class ClassPictures:
    """The pictures of one class as data URIs, ``copies`` samples in rows of ``Gallery.columns``."""

    name: str
    distilled: str
    start: str | None
    copies: int
    width: int  # of either picture, in pixels
    height: int


@dataclass(frozen=True)
class Gallery:
    """What a page shows of a distilled set."""

    classes: tuple[ClassPictures, ...]
    copies: int  # shown of a class, at most
    columns: int
    side: int  # of a sample, in pixels: the longer one
    notes: tuple[str, ...]  # what is left out or altered

    @property
    def sizes(self) -> tuple[int, ...]:
        """Screen pixels for each pixel that may be chosen, all less than ``large``."""
        width = max(picture.width for picture in self.classes)
        fitting = tuple(size for size in _SIZES if size * width <= _ROOM and size < self.large)
        return fitting or _SIZES[:1]

    @property
    def size(self) -> int:
        """The one of ``sizes`` that is shown at first."""
        width = max(picture.width for picture in self.classes)
        return max((size for size in self.sizes if size * width <= _DEFAULT_ROOM), default=self.sizes[0])

    @property
    def large(self) -> int:
        """Screen pixels for each pixel of a class seen large."""
        return max(2, _LARGE // self.side)

    @property
    def large_narrow(self) -> int:
        """The same on a narrow screen."""
        return max(1, _LARGE_NARROW // self.side)


def gallery(
    samples: npt.NDArray[np.floating],
    names: Sequence[str],
    *,
    start: npt.NDArray[Any] | None,
    value_range: tuple[float, float] | None,
    points_per_class: int | Sequence[int] | None = None,
    budget: int = _BUDGET,
) -> Gallery:
    """Pictures of distilled samples (m, *shape), as ``Pictured`` takes them, and of the real ones they started from.

    All samples are shown where they fit the budget of bytes: as PNG, or else as JPEG of the best quality that fits.
    Where no quality does, as many per class as fit as PNG, at least one; then as many classes as fit.
    Contrast is stretched as in ``distilled_sheet``. A vector is drawn as a strip with a column for each feature.
    """
    all_of = Pictured.of(np.asarray(samples), len(names), "report: distilled_data", points_per_class)
    started = None if start is None else np.asarray(start)
    if started is not None:
        started = Pictured.of(started, len(names), "report: start_images", points_per_class).values
        if started.shape != all_of.values.shape:
            raise ValueError(f"report: start_images are {started.shape}, the distilled images {all_of.values.shape}")
    windows = display_windows(all_of.values, value_range)
    everything = (max(all_of.counts), len(names))
    copies, classes = _fit(all_of, started is not None, budget)
    lossy = None
    sheets = _sheets(all_of, windows, started, value_range)
    if (copies, classes) != everything:
        lossy = _jpegs(sheets, budget)
    if lossy is not None:
        copies, classes = everything
    kept = all_of.among_first(copies, classes)
    shown = all_of[kept]
    notes = _notes(all_of, shown, windows[kept], copies, classes, value_range)
    if lossy is not None:
        notes.append("pictures are compressed with loss (JPEG); distilled.npz holds the numbers")
    elif (copies, classes) != everything:
        sheets = _sheets(shown, windows[kept], None if started is None else started[kept], value_range)
    addresses = lossy or _pngs(sheets)
    starts = addresses[1] if len(addresses) > 1 else [None] * classes
    pictures = (
        ClassPictures(name.replace("_", " "), distilled, real, count, sheet.shape[1], sheet.shape[0])
        for name, distilled, real, count, sheet in zip(
            names[:classes], addresses[0], starts, shown.counts, sheets[0], strict=True
        )
    )
    side = max(to_bytes(shown.values[:1], windows[kept][:1]).shape[1:3])
    return Gallery(tuple(pictures), copies, min(copies, _MAX_COLUMNS), side, tuple(notes))


def display_windows(values: npt.NDArray[Any], value_range: tuple[float, float] | None) -> npt.NDArray[np.float64]:
    """Per sample of (n, ...) the pixel range, or the sample's own percentiles where that shows it badly or is None."""
    low, high = value_range or (0.0, 1.0)
    width = high - low
    flat = values.reshape(len(values), -1)
    own = np.percentile(flat, STRETCH_PERCENTILES, axis=-1).T
    constant = own[:, 0] == own[:, 1]
    own[constant] += (-0.5 * width, 0.5 * width)
    inside = (flat.min(-1) >= low - RANGE_EXCESS * width) & (flat.max(-1) <= high + RANGE_EXCESS * width)
    keep = (value_range is not None) & inside & (own[:, 1] - own[:, 0] >= RANGE_USE * width)
    return np.where(keep[:, None], np.asarray((low, high), dtype=np.float64), own)


def to_bytes(values: npt.NDArray[Any], windows: npt.NDArray[np.floating]) -> Bytes:
    """(n, h, w[, 3]), or strips of (n, d), as bytes; windows (n, 2), or one for all, are drawn black and white."""
    windows = np.broadcast_to(windows, (len(values), 2))
    if values.ndim == 2:
        height = min(_MOST_STRIP, math.ceil(values.shape[1] / _STRIP_SHARE))
        values = values[:, None, :].repeat(height, axis=1)
    low, high = (windows[:, i].reshape(-1, *(1,) * (values.ndim - 1)) for i in (0, 1))
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.asarray(np.rint(255.0 * np.clip(scaled, 0.0, 1.0)), dtype=np.uint8)


def signed_pictures(values: npt.NDArray[np.floating], limit: float) -> list[tuple[str, int, int]]:
    """(data URI, width, height) of signed images (n, h, w[, 3]): 0 is mid-grey, -limit black and limit white."""
    window = np.array([-1.0, 1.0]) * (limit or 1.0)
    return [
        (data_uri("png", _encode(image, "PNG", compress_level=6)), image.shape[1], image.shape[0])
        for image in to_bytes(values, window)
    ]


def _sheets(
    shown: Pictured,
    windows: npt.NDArray[np.float64],
    started: npt.NDArray[Any] | None,
    value_range: tuple[float, float] | None,
) -> list[list[Bytes]]:
    """Per class the picture of its distilled samples, and then those of the starts, where there are some."""
    drawn = [to_bytes(shown.values, windows)]
    if started is not None:
        drawn.append(to_bytes(started, np.asarray(value_range)))
    counts = shown.counts
    columns = min(max(counts), _MAX_COLUMNS)
    return [[_tile(images[shown.classes == c], columns) for c in range(len(counts))] for images in drawn]


def _tile(images: Bytes, columns: int) -> Bytes:
    """(n, h, w[, 3]) in rows of ``columns``, one transparent pixel between neighbours."""
    if columns == 1:
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


def _pngs(sheets: list[list[Bytes]]) -> list[list[str]]:
    return [[data_uri("png", _encode(sheet, "PNG", compress_level=6)) for sheet in kind] for kind in sheets]


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
            return [[data_uri("jpeg", file) for file in kind] for kind in files]
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


def data_uri(kind: str, content: bytes) -> str:
    """The address of an image that is inside of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _fit(all_of: Pictured, twice: bool, budget: int) -> tuple[int, int]:
    """How many samples, at most, of how many classes are shown."""
    k = len(all_of.counts)
    size = all_of.values[0].size * (2 if twice else 1)
    samples = np.cumsum(np.bincount(all_of.rounds))  # in the first rounds
    fitting = int(np.count_nonzero(samples * size <= budget - k * _CARD))
    if fitting >= 1:
        return fitting, k
    return 1, min(k, max(1, budget // (size + _CARD)))


def _notes(
    all_of: Pictured,
    shown: Pictured,
    windows: npt.NDArray[np.float64],
    copies: int,
    classes: int,
    value_range: tuple[float, float] | None,
) -> list[str]:
    """What is left out, how vectors are drawn, and whose contrast is altered; ``windows`` of those shown."""
    notes, counts = [], all_of.counts
    if copies < max(counts):
        notes.append(
            f"the first {copies} of {shown_points(counts)} samples per class are shown; distilled.npz holds all"
        )
    if classes < len(counts):
        notes.append(f"the first {classes} of {len(counts)} classes are shown; distilled.npz holds all")
    if not all_of.is_image:
        notes.append(
            f"samples are vectors of {all_of.values.shape[1]} features, each drawn as a strip, a column for each"
        )
    if value_range is None:
        notes.append(
            "the range of the real images is not known: every image is stretched to its own 1st to 99th percentile "
            f"(values {plain_number(shown.values.min())} to {plain_number(shown.values.max())})"
        )
        return notes
    stretched = int(np.any(windows != value_range, axis=-1).sum())
    if stretched:
        low, high = map(plain_number, value_range)
        notes.append(
            f"{stretched} of the {len(windows)} distilled images shown are stretched to their own 1st to 99th "
            f"percentile, since they leave the range of the real ones, {low} to {high} "
            f"(theirs is {plain_number(shown.values.min())} to {plain_number(shown.values.max())})"
        )
    return notes
