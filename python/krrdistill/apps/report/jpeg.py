"""JPEG files from arrays of bytes, by Pillow (of the extra ``cli``)."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import numpy.typing as npt

__all__ = ["encode_jpeg", "has_jpeg"]


def has_jpeg() -> bool:
    """Whether Pillow is here."""
    return importlib.util.find_spec("PIL") is not None


def encode_jpeg(pixels: npt.NDArray[np.uint8], quality: int) -> bytes:
    """A JPEG of uint8 pixels (h, w) or (h, w, 1 or 3), colours at full resolution."""
    from PIL import Image, ImageFile

    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    # Optimised tables are written with all of the picture at once, and noise takes more bytes than Pillow reserves.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2 * pixels.size)
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()
