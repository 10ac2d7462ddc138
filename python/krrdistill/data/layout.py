"""Where the channels of an image are: last ("NHWC": height, width, channels) or first ("NCHW")."""

from __future__ import annotations

from krrdistill.common.arrays import check_choice
from krrdistill.errors import DataError
from krrdistill.options import LAYOUTS

__all__ = ["checked_layout", "count_channels", "looks_channels_first"]

_MOST_CHANNELS = 4  # of pictures: grey, grey and alpha, colours, colours and alpha


def looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether a sample of this shape would be a picture with its channels in front, and not with them behind."""
    return len(shape) == 3 and shape[0] <= _MOST_CHANNELS < min(shape[1:])


def checked_layout(where: str, shape: tuple[int, ...], layout: str | None) -> str:
    """ "NHWC" or "NCHW"; without an answer the first, unless the shape of a sample speaks against it (DataError)."""
    if layout is not None:
        check_choice(where, "layout", layout, LAYOUTS)
        if layout == "NCHW" and len(shape) != 3:
            raise DataError(f"{where}: layout='NCHW' needs samples of shape (channels, height, width), got {shape}")
        return layout
    if looks_channels_first(shape):
        raise DataError(
            f"{where}: samples of shape {shape} look like images with their channels first: pass layout='NCHW' "
            "(--layout NCHW) if they are, layout='NHWC' if the last axis has the channels"
        )
    return "NHWC"


def count_channels(shape: tuple[int, ...], layout: str) -> int:
    """Channels of images (h, w[, c]) or (c, h, w); of vectors (d,) every entry is one."""
    if layout == "NCHW":
        return shape[0]
    return {1: shape[0], 2: 1}.get(len(shape), shape[-1])
