"""Arrays of any framework, converted to what the backends take and back, with errors that name the argument.

The only file that knows the frameworks. Host memory is the same for all of them: an array there becomes a NumPy view of
itself, through DLPack. An array on another device stays what it is, and the backend of its framework works on it.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import array_api_compat as compat
import array_api_compat.numpy as numpy_namespace
import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

from .frames import refuse_lazy
from .options import did_you_mean
from .rows import RowSource, as_slice

__all__ = [
    "as_matrix",
    "as_rows",
    "check_choice",
    "check_count",
    "check_device",
    "check_number",
    "check_seed",
    "check_writable",
    "checked_columns",
    "checked_shape",
    "cuda_device",
    "device_of",
    "dtype_name",
    "host_rows",
    "in_namespace",
    "is_half",
    "is_on_host",
    "largest_entry",
    "like",
    "namespace_of",
    "read_only",
    "refuse_gradients",
    "take_rows",
    "to_host",
]

Array = npt.NDArray[Any]
_HOST_DEVICES = (1, 3)  # DLPack's numbers for memory that the CPU reads: its own, and pinned for CUDA
_CUDA_DEVICES = (2, 13)  # of a CUDA device: its own, and managed


# Frameworks


def is_on_host(X: Any) -> bool:
    """Whether the CPU can read X: NumPy, numbers and lists, and arrays of other frameworks in host memory."""
    if not _is_framework_array(X):
        return True
    try:
        return int(X.__dlpack_device__()[0]) in _HOST_DEVICES
    except ValueError:  # a device that DLPack does not know
        return False


def cuda_device(X: Any) -> int | None:
    """The index of the CUDA device that X is on, as DLPack counts them; None for an array elsewhere."""
    if not _is_framework_array(X) or is_on_host(X):
        return None
    kind, index = X.__dlpack_device__()
    return int(index) if int(kind) in _CUDA_DEVICES else None


def namespace_of(X: Any) -> Any:
    """The array API namespace of an array, NumPy's for what is none."""
    return compat.array_namespace(X) if _is_framework_array(X) else numpy_namespace


def device_of(X: Any) -> Any:
    """The device of an array as its framework names it; "cpu" for NumPy and for what is no array."""
    return compat.device(X) if _is_framework_array(X) else "cpu"


def dtype_name(dtype: Any) -> str:
    """The name that a dtype has in NumPy, whatever the framework: "float32" for ``torch.float32``."""
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).rpartition(".")[2]


def to_host(where: str, name: str, X: Any) -> Array:
    """X as a NumPy array: a view where it lies in host memory, a copy of what lies elsewhere.

    Raises ``TypeError`` for arrays that carry gradients, for types that NumPy does not have, for arrays of Dask, and
    for masked ones: what is masked would count.
    """
    if isinstance(X, RowSource):
        return X[:]
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{where}: {name} is a masked array; fill or drop what is masked")
    refuse_gradients(where, name, X)
    refuse_lazy(where, name, X)
    try:
        return _as_numpy(X)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if not _is_framework_array(X):
            raise
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{where}: {name} is a {_kind(X)} that NumPy cannot read ({reason}); convert it") from error


def in_namespace(array: Any, xp: Any, device: Any) -> Any:
    """A NumPy array, or one of ``xp``, on ``device`` of ``xp``: the same memory where that is the host's.

    Frameworks other than NumPy have no read-only arrays and no strides below zero: such arrays are copied.
    """
    if xp is numpy_namespace:
        return _as_numpy(array)
    if isinstance(array, np.ndarray) and (not array.flags.writeable or min(array.strides, default=0) < 0):
        array = array.copy()
    return xp.asarray(array, device=device)


def like(result: Any, X: Any) -> Any:
    """``result``, of NumPy or of the framework of X, as an array of the kind and on the device of X.

    JAX rounds float64 to float32 unless ``jax_enable_x64`` is set.
    """
    return in_namespace(result, namespace_of(X), device_of(X))


def take_rows(X: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Rows of X (n, d) where X is, of its kind: a view where they follow each other, else a copy."""
    if isinstance(X, RowSource):
        return X.picked(rows)
    picked = as_slice(rows)
    if isinstance(picked, slice):
        return X[picked, :]
    if isinstance(X, np.ndarray):
        return X[rows]
    xp = namespace_of(X)
    return xp.take(X, in_namespace(rows, xp, device_of(X)), axis=0)


def read_only(array: Array) -> Array:
    """A view that nobody writes through; the array itself where that is so."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def is_half(dtype: Any) -> bool:
    """Whether numbers of this type have 16 bits, which float32 holds: float16 and bfloat16."""
    return dtype_name(dtype) in ("float16", "bfloat16")


def host_rows(where: str, X: Any, rows: npt.NDArray[np.int64]) -> Array:
    """Rows of X (n, d) as a NumPy array, which has no bfloat16: numbers of 16 bits become float32."""
    picked = take_rows(X, rows)
    if is_half(picked.dtype):
        xp = namespace_of(picked)
        picked = xp.astype(picked, xp.float32)
    return to_host(where, "X", picked)


def check_device(where: str, **arrays: Any) -> None:
    """Raises ``TypeError`` unless all of these lie on one device; for NumPy arrays, lists and numbers any is right."""
    places = {name: _place(X) for name, X in arrays.items() if _is_framework_array(X)}
    if len(set(places.values())) > 1:
        found = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise TypeError(f"{where}: all arrays must be on one device, got {found}")


def check_writable(where: str, X: Any) -> None:
    """Raises ``TypeError`` for a framework whose arrays cannot be written to, which operations on a device do."""
    if compat.is_jax_array(X):
        raise TypeError(f"{where}: JAX arrays cannot be written to; copy this one from {device_of(X)} to the host")


def _is_framework_array(X: Any) -> bool:
    """An array of another framework than NumPy."""
    known = compat.is_array_api_obj(X) and not isinstance(X, (np.ndarray, np.generic))
    return known and hasattr(type(X), "__dlpack__")


def _kind(X: Any) -> str:
    return f"{type(X).__module__.partition('.')[0]} array of {getattr(X, 'dtype', 'unknown dtype')}"


def _place(X: Any) -> str:
    return "the host" if is_on_host(X) else str(device_of(X))


def refuse_gradients(where: str, name: str, X: Any) -> None:
    """Raises ``TypeError`` for arrays that carry gradients, or are traced."""
    if getattr(X, "requires_grad", False):
        raise TypeError(
            f"{where}: {name} requires gradients, which end here; pass {name}.detach(), "
            "or use the operations of krrdistill.interop.torch"
        )
    if compat.is_jax_array(X) and isinstance(X, sys.modules["jax"].core.Tracer):
        raise TypeError(
            f"{where}: {name} is being traced by JAX (jit, grad or vmap) and has no values; call it outside"
        )


def _as_numpy(X: Any) -> Array:
    if not _is_framework_array(X):
        return np.asanyarray(X)
    if not is_on_host(X):
        if compat.is_jax_array(X):
            return np.asarray(X)
        if compat.is_torch_array(X) or compat.is_cupy_array(X):
            X = compat.to_device(X, "cpu")
        else:  # as the standard has it
            X = X.to_device(namespace_of(X).__array_namespace_info__().default_device())
    return np.asarray(np.from_dlpack(X))


# Data


def largest_entry(X: Array, rows: npt.NDArray[np.int64]) -> float:
    """The largest |entry| of the picked rows of X (n, d). Raises ``DataError`` for NaN or infinity."""
    largest, step = 0.0, max(1, (1 << 20) // max(1, X.shape[1]))
    for start in range(0, len(rows), step):
        part = X[rows[start : start + step]]
        extremes = np.array([part.max(), -part.min()], dtype=np.float64)  # NaN stays NaN
        if not np.isfinite(extremes).all():
            bad = int((~np.isfinite(part)).any(axis=1).argmax())
            raise DataError(f"row {rows[start + bad]} holds NaN or infinity")
        largest = max(largest, float(extremes.max()))
    return largest


def as_matrix(where: str, name: str, values: Any, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """``values`` as a finite float64 matrix of this shape."""
    array = np.asarray(to_host(where, name, values), dtype=np.float64)
    if array.shape != shape:
        raise DataError(f"{where}: {name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {name} holds NaN or infinity")
    return array


def as_rows(where: str, rows: Any, n: int) -> npt.NDArray[np.int64]:
    """Row indices as int64 (r,), each in [0, n); a copy, as compiled code reads where they say."""
    array = to_host(where, "rows", rows).copy()
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"{where}: rows must hold integer row indices, got dtype {array.dtype}")
    if array.ndim != 1:
        raise DataError(f"{where}: rows must have shape (r,), got {array.shape}")
    for index in (array.min(), array.max()) if array.size else ():
        if not 0 <= index < n:
            raise DataError(f"{where}: rows holds the index {index}, X has {n} rows")
    return np.ascontiguousarray(array, dtype=np.int64)


def checked_columns(names: Any, input_dim: int) -> tuple[str, ...] | None:
    """Names of the columns of X that a file tells, None where it tells none. Raises ValueError."""
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != input_dim or not all(isinstance(name, str) for name in names):
        raise ValueError(f"columns must be {input_dim} names")
    return tuple(names)


def checked_shape(shape: Any, size: int) -> tuple[int, ...]:
    """The shape of a sample from a file: positive integers whose product is ``size``. Raises ``DataError``."""
    if not isinstance(shape, list) or not all(type(s) is int and s > 0 for s in shape) or math.prod(shape) != size:
        raise DataError(f"shape {shape!r} does not have {size} entries")
    return tuple(shape)


# Options


def check_choice(where: str, name: str, value: str, choices: tuple[str, ...]) -> str:
    """``value`` if it is one of ``choices``."""
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ValueError(f"{where}: {name} must be one of {', '.join(choices)}; got {value!r}{hint}")
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
