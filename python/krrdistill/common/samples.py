"""Anything that holds n samples, converted to what the backends take, without a whole copy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat as compat
import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

from .arrays import device_of, dtype_name, is_half, is_on_host, namespace_of, refuse_gradients, to_host
from .frames import frame_of, is_tabular, refuse_lazy
from .rows import ConvertedRows, FrameRows, RowSource, SparseRows

__all__ = [
    "STREAM_REMEDY",
    "as_samples",
    "check_columns",
    "check_shape",
    "columns_of",
    "host_samples",
    "row_source",
    "sample_shape",
]

Array = npt.NDArray[Any]
_SHOWN = 30  # names of columns in a message


def as_samples(where: str, X: Any, *, input_dim: int | None = None) -> Any:
    """X as (n, d): an array of uint8, float32 or float64 with contiguous rows, or a ``RowSource`` of any other data.

    Nothing is copied whole. Data on another device stay there, as an array of their framework, those of float16 and
    bfloat16 as they are, too. Raises ``TypeError``
    for what holds no numbers, ``DataError`` for a wrong shape.
    """
    source = row_source(where, X)
    if source is not None:
        array: Any = source
    else:
        xp = namespace_of(X)
        array = X
        if X.dtype not in (xp.uint8, xp.float32, xp.float64) and not is_half(X.dtype):
            array = xp.astype(X, xp.float64 if _bits(xp, X.dtype) > 16 else xp.float32)
    n, width = array.shape[0], math.prod(array.shape[1:])
    if array.ndim < 2:
        raise DataError(
            f"{where}: X must have shape (n, ...), one row per sample, got {tuple(array.shape)}"
            f"{_one_sample(array, input_dim)}"
        )
    if input_dim is not None and width != input_dim:
        has = f"{width} columns" if array.ndim == 2 else f"samples of shape {tuple(array.shape[1:])}, {width} numbers"
        raise DataError(f"{where}: X has {has}, the map takes {input_dim}{_one_sample(array, input_dim)}")
    if isinstance(array, (np.ndarray, RowSource)):
        return array.reshape(n, width)
    return namespace_of(array).reshape(array, (n, width))


def _one_sample(array: Any, input_dim: int | None) -> str:
    """A remedy for an array that is one sample and not n of them."""
    return "; if it is one sample, pass X[None]" if math.prod(array.shape) == input_dim else ""


def row_source(where: str, X: Any) -> Any:
    """X in host memory as an array of uint8, float32 or float64 (n, ...) with contiguous rows, or as a ``RowSource``.

    None for an array on another device. Raises ``TypeError`` for what holds no numbers.
    """
    _refuse_kind(where, X)
    if isinstance(X, RowSource):
        return X
    if is_tabular(X):
        return FrameRows(where, frame_of(where, "X", X))
    if hasattr(X, "tocsr"):
        return SparseRows(where, X)
    if not is_on_host(X):
        xp = namespace_of(X)
        if not xp.isdtype(X.dtype, ("bool", "integral", "real floating")):
            raise TypeError(f"{where}: X must be a numeric array, got dtype {X.dtype}")
        return None
    return _from_array(where, X)


def _from_array(where: str, X: Any) -> Any:
    if compat.is_torch_array(X) and dtype_name(X.dtype) == "bfloat16":
        return _BFloat16Rows(where, X)
    jax_only = compat.is_jax_array(X) and dtype_name(X.dtype) == "bfloat16"  # DLPack has no such type for NumPy
    array = np.asarray(X) if jax_only else to_host(where, "X", X)
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:
        raise TypeError(f"{where}: X must be a numeric array, got {_type_of(X, array)}")
    native = array.dtype in (np.uint8, np.float32, np.float64) and array.dtype.isnative
    if array.ndim < 2 or (native and array.flags.aligned and array[:1].flags.c_contiguous):
        return array
    return ConvertedRows(where, array)


def sample_shape(X: Any, width: int) -> tuple[int, ...]:
    """The shape of one sample of X (n, ...); (width,) for a column of vectors, whose own shape does not tell."""
    shape = tuple(int(size) for size in (X.shape if hasattr(X, "shape") else np.shape(X))[1:])
    return shape if shape and math.prod(shape) == width else (width,)


def columns_of(samples: Any) -> tuple[str, ...] | None:
    """The names of the columns of what ``as_samples`` or ``host_samples`` gave, None where there are none."""
    return samples.columns if isinstance(samples, RowSource) else None


def check_columns(where: str, known: Sequence[str] | None, samples: Any) -> None:
    """Raises DataError where the samples have other columns than ``known``, or the same in another order."""
    found = columns_of(samples)
    if known is None or found is None or list(known) == list(found):
        return
    ours, theirs = (", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") for names in (known, found))
    listed = list(known) if len(known) <= _SHOWN else "COLUMNS"
    remedy = f"; pass X[{listed}]" if set(known) <= set(found) else ""
    raise DataError(f"{where}: the columns of X are {theirs}, those trained on {ours}{remedy}")


def check_shape(where: str, known: tuple[int, ...], found: tuple[int, ...]) -> None:
    """Raises DataError for samples of another layout; flat ones may be of any, and axes of length 1 do not count."""
    if len(known) > 1 and len(found) > 1 and [n for n in known if n != 1] != [n for n in found if n != 1]:
        raise DataError(f"{where}: samples have shape {found}, those trained on {known}")


def host_samples(where: str, X: Any) -> Any:
    """Samples (n, ...) for work on the host: as ``row_source`` gives them, copied from another device."""
    source = row_source(where, X)
    samples = to_host(where, "X", X) if source is None else source
    if samples.ndim < 2 or math.prod(samples.shape) == 0:
        raise DataError(f"{where}: X must be (n, ...) with at least one entry, got shape {samples.shape}")
    return samples


class _BFloat16Rows(RowSource):
    """A tensor of bfloat16, a type that NumPy does not have."""

    def __init__(self, where: str, tensor: Any) -> None:
        super().__init__(tuple(tensor.shape), np.float32)
        self._where, self._tensor = where, tensor

    def fetch(self, rows: npt.NDArray[np.int64]) -> Array:
        """Some rows as float32, which holds every bfloat16."""
        return np.asarray(self._tensor[rows].float().numpy())


def _type_of(X: Any, array: Array) -> str:
    known = array.dtype != object or isinstance(X, (np.ndarray, list, tuple))
    return f"dtype {array.dtype}" if known else f"a {type(X).__name__}"


STREAM_REMEDY = "a stream goes into statistics: RidgeStatistics(phi, classes).update_batches(batches)"
_REMEDIES = {
    "DataLoader": STREAM_REMEDY,
    "generator": STREAM_REMEDY,
    "Dataset": "read it with krrdistill.read_samples, or " + STREAM_REMEDY,
    "IterableDataset": STREAM_REMEDY,
    "Subset": "read it with krrdistill.read_samples, or " + STREAM_REMEDY,
    "TensorDataset": "pass its tensors: X, y = dataset.tensors",
    "DatasetDict": "choose one of its splits and read it with krrdistill.read_samples",
    "str": "read a file or folder with krrdistill.load_dataset or krrdistill.read_samples",
    "PosixPath": "read a file or folder with krrdistill.load_dataset or krrdistill.read_samples",
}


def _refuse_kind(where: str, X: Any) -> None:
    """Raises ``TypeError``, with a remedy, for what is no array of samples."""
    refuse_lazy(where, "X", X)
    name = type(X).__name__
    if name == "Dataset" and type(X).__module__.startswith("krrdistill."):
        raise TypeError(
            f"{where}: X is a Dataset of training and test samples, not an array; pass data.x_train, data.train_targets"
        )
    if isinstance(X, (list, tuple)):
        _refuse_unequal(where, X)
    if name in _REMEDIES and not hasattr(X, "dtype"):
        raise TypeError(f"{where}: X is a {name}, not an array; {_REMEDIES[name]}")
    if isinstance(X, (Mapping, set)) or X is None:
        raise TypeError(f"{where}: X must be an array, got a {name}")
    refuse_gradients(where, "X", X)
    if str(device_of(X)) == "meta":
        raise TypeError(f"{where}: X is on PyTorch's meta device and has no values")


def _refuse_unequal(where: str, X: Any) -> None:
    """Raises TypeError for a pair (X, y), DataError for samples of different lengths."""
    if len(X) == 2 and all(hasattr(part, "shape") for part in X) and tuple(X[0].shape) != tuple(X[1].shape):
        raise TypeError(f"{where}: X is a {type(X).__name__} of 2, not an array; pass X and y apart, as two arguments")
    lengths = [len(part) if isinstance(part, (list, tuple)) or np.ndim(part) else 0 for part in X]
    other = next((length for length in lengths if length != lengths[0]), None)
    if other is not None:
        raise DataError(f"{where}: X has samples of different lengths ({lengths[0]} and {other})")


def _bits(xp: Any, dtype: Any) -> int:
    if xp.isdtype(dtype, "bool"):
        return 8
    return int((xp.finfo if xp.isdtype(dtype, "real floating") else xp.iinfo)(dtype).bits)
