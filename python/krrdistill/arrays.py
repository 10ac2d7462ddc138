"""Checks at the edge: user arrays to what the backends take, with errors that name the argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

__all__ = [
    "as_labels",
    "as_matrix",
    "as_rows",
    "as_samples",
    "check_choice",
    "check_count",
    "check_number",
    "check_seed",
]

Array = npt.NDArray[Any]
_INPUT_DTYPES = (np.uint8, np.float32, np.float64)


def as_samples(where: str, X: Any, *, input_dim: int | None = None) -> Array:
    """View of ``X`` as (n, d) uint8, float32 or float64 with contiguous rows; copies only other types.

    Raises ``TypeError`` for what is no numeric array, ``DataError`` for a wrong shape.
    """
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{where}: X is a masked array; fill or drop what is masked")
    array: Array = np.asanyarray(X)
    if array.dtype.kind not in "uifb":
        raise TypeError(f"{where}: X must be a numeric array, got dtype {array.dtype}")
    if array.ndim < 2:
        raise DataError(f"{where}: X must have shape (n, ...), one row per sample, got {array.shape}")
    width = math.prod(array.shape[1:])
    array = array.reshape(array.shape[0], width)
    if array.dtype.type not in _INPUT_DTYPES or not array.dtype.isnative:
        array = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32)
    if (width > 1 and array.strides[1] != array.itemsize) or not array.flags.aligned:
        array = array.copy(order="C")
    if input_dim is not None and width != input_dim:
        raise DataError(f"{where}: X has {width} columns, the map takes {input_dim}")
    return array


def as_labels(where: str, y: Any, n: int, *, n_classes: int | None = None) -> npt.NDArray[np.int64]:
    """Class labels as int64 (n,), each in [0, n_classes)."""
    array = np.asarray(y)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{where}: y must hold integer class labels, got dtype {array.dtype}")
    if array.shape != (n,):
        raise DataError(f"{where}: y must have shape ({n},), got {array.shape}")
    labels = np.ascontiguousarray(array, dtype=np.int64)
    if n and labels.min() < 0:
        raise DataError(f"{where}: y holds the label {labels.min()}, labels start at 0")
    if n and n_classes is not None and labels.max() >= n_classes:
        raise DataError(f"{where}: y holds the label {labels.max()}, there are {n_classes} classes")
    return labels


def as_matrix(where: str, name: str, values: Any, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """``values`` as a finite float64 matrix of this shape."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise DataError(f"{where}: {name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {name} holds NaN or infinity")
    return array


def as_rows(where: str, rows: Any, n: int) -> npt.NDArray[np.int64]:
    """Row indices as int64 (r,), each in [0, n)."""
    array = np.asarray(rows)
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"{where}: rows must hold integer row indices, got dtype {array.dtype}")
    if array.ndim != 1:
        raise DataError(f"{where}: rows must have shape (r,), got {array.shape}")
    for index in (array.min(), array.max()) if array.size else ():
        if not 0 <= index < n:
            raise DataError(f"{where}: rows holds the index {index}, X has {n} rows")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_choice(where: str, name: str, value: str, choices: tuple[str, ...]) -> str:
    """``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{where}: {name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def check_count(where: str, name: str, value: int, minimum: int = 1) -> int:
    """``value`` as an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: {name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{where}: {name} must be at least {minimum}, got {value}")
    return int(value)


def check_number(where: str, name: str, value: float, *, positive: bool = False) -> float:
    """``value`` as a finite float that is >= 0, or > 0 when ``positive``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{where}: {name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{where}: {name} must be finite and {'> 0' if positive else '>= 0'}, got {value}")
    return number


def check_seed(where: str, seed: int) -> int:
    """``seed`` as an integer in [0, 2^64)."""
    check_count(where, "seed", seed, minimum=0)
    if seed >= 1 << 64:
        raise ValueError(f"{where}: seed must be below 2^64, got {seed}")
    return int(seed)
