"""Reads the pickles of the CIFAR archives without running anything that they name.

A pickle is a program: it names functions and has them called. The CIFAR files name a few, to rebuild one
array of bytes. Each of these names gets an inert stand-in here; every other one is refused, never looked up.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krrdistill.common.archive import one_line
from krrdistill.errors import DataError


class _Dtype:
    """Stands in for numpy.dtype: remembers the type code."""

    def __init__(self, code: str, *_flags: Any) -> None:
        self.code = code

    def __setstate__(self, _state: Any) -> None:
        """Byte order and alignment mean nothing for single bytes."""


class PickledBytes:
    """Stands in for numpy.ndarray: ``values`` is the uint8 array once its state has arrived."""

    values: NDArray[np.uint8]

    def __init__(self, *_template: Any) -> None:
        self.values = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"array of type {getattr(dtype, 'code', dtype)!r}, expected bytes ('u1')")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def _encoded(text: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, which pickles written by Python 3 call to hold bytes: latin1 only."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}, expected 'latin1'")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): PickledBytes,
    ("numpy._core.multiarray", "_reconstruct"): PickledBytes,
    ("numpy", "ndarray"): PickledBytes,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


def read_pickled_dict(data: bytes) -> dict[Any, Any]:
    """The dict in a pickle of dicts, lists, numbers, text and uint8 arrays (as ``PickledBytes``).

    Python 2 byte strings come back as latin1 text. Raises DataError for anything else, and for damaged data.
    """
    try:
        content = _Restricted(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"not a pickle that can be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"the pickle holds a {type(content).__name__}, expected a dict")
    return content
