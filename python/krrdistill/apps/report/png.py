"""PNG files from arrays of bytes, lossless, the same bytes for the same pixels (PNG 1.2, RFC 2083)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["encode_png"]

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: grey, grey + alpha, RGB, RGBA


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 pixels (h, w) or (h, w, channels), with 1 to 4 channels.

    Rows are stored as they are or as differences to the row above, whichever is smaller.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = pixels.reshape(height, -1)
    differences = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # modulo 256, as the filter wants
    data = min((_compress(rows, 0), _compress(differences, 2)), key=len)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _compress(rows: npt.NDArray[np.uint8], filter_type: int) -> bytes:
    return zlib.compress(np.insert(rows, 0, filter_type, axis=1).tobytes(), 9)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
