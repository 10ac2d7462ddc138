"""The labelled data set that every other room takes, and the reader for plain ``.npz`` files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from krrdistill.errors import DataError

BLOCK_ELEMENTS = 1 << 20  # 8 MiB of float64: the largest temporary that a pass over the inputs makes
_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
# What zipfile, zlib and NumPy's header parser raise on a file that is cut, corrupt or not what its name says.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set, split into train and test, checked once when it is made.

    Parameters
    ----------
    name : str
        What reports call it.
    x_train, x_test : array of shape (n, *shape)
        Inputs, C-contiguous uint8, float32 or float64, one dtype for both. Given as float16 they become float32; as
        another integer type float32 when that is exact, else float64.
    y_train, y_test : array of shape (n,) or (n, k)
        Labels in [0, k), stored as int64; any integer type and whole floats are taken. Or real-valued or 0/1 targets
        (n, k), stored as float64.
    class_names : sequence of str
        k names, of classes or targets. Every class has at least one training sample.

    Raises
    ------
    TypeError
        For the wrong kind of object.
    DataError
        For what is wrong inside it.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"Dataset: name must be a string, got {type(self.name).__name__}")
        names = _checked_names(self.class_names)
        x_train, x_test = _checked_pair(self.x_train, self.x_test)
        y_train = _checked_labels("y_train", self.y_train, n=len(x_train), names=names)
        if isinstance(self.y_test, np.ndarray) and self.y_test.ndim != y_train.ndim:
            raise DataError(f"Dataset: y_test has shape {self.y_test.shape}, y_train {y_train.shape}")
        y_test = _checked_labels("y_test", self.y_test, n=len(x_test), names=names)
        absent = np.setdiff1d(np.arange(len(names)), y_train)
        if y_train.ndim == 1 and absent.size:
            listed = ", ".join(str(c) for c in absent[:5]) + (", ..." if absent.size > 5 else "")
            raise DataError(f"Dataset: y_train has no sample of {absent.size} of {len(names)} classes: {listed}")
        for field, value in zip(
            ("class_names", "x_train", "x_test", "y_train", "y_test"),
            (names, x_train, x_test, y_train, y_test),
            strict=True,
        ):
            object.__setattr__(self, field, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (h, w), (h, w, channels) or (d,)."""
        return tuple(int(s) for s in self.x_train.shape[1:])

    @property
    def input_dim(self) -> int:
        """d, the number of entries of one sample."""
        return math.prod(self.shape)

    @property
    def n_classes(self) -> int:
        """k, the number of classes."""
        return len(self.class_names)

    @property
    def targets(self) -> str:
        """ "classes", "multilabel" (0 or 1 in every column of y) or "real"."""
        if self.y_train.ndim == 1:
            return "classes"
        both = (self.y_train, self.y_test)
        return "multilabel" if all(bool(((y == 0) | (y == 1)).all()) for y in both) else "real"

    def check_classes(self, where: str) -> None:
        """Raises DataError, in the name of ``where``, unless the targets are classes."""
        if self.targets != "classes":
            raise DataError(f"{where}: needs classes, {self.name} has {self.targets} targets")

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, train {len(self.x_train)}, test {len(self.x_test)}, "
            f"shape {self.shape}, {self.x_train.dtype}, {self.n_classes} classes)"
        )


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Slices that cover n rows of d entries, each at most 8 MiB in float64 (at least one row)."""
    step = max(1, BLOCK_ELEMENTS // d)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def read_npz(
    path: Path, *, name: str | None = None, class_names: Sequence[str] | None = None, targets: str = "classes"
) -> Dataset:
    """Data set from an ``.npz`` file with x_train, y_train, x_test, y_test and, optionally, class_names.

    name : of the result; the file's stem when None
    targets : "real" takes one-dimensional y as real values, (n, 1); two-dimensional y always is
    class_names : taken when the file has none; None makes them "0", "1", ... from the largest label.

    Nothing in the file is executed: object arrays, which are pickles, are refused.
    Raises DataError for a file that is missing, not an .npz, cut, corrupt or holds invalid data.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        arrays = _read_arrays(path)
        if targets == "real":
            arrays |= {key: _column(arrays[key]) for key in ("y_train", "y_test")}
        if "class_names" in arrays:
            class_names = _stored_names(arrays.pop("class_names"))
        elif class_names is None:
            class_names = _numbered_names(arrays["y_train"])
        return Dataset(name=name or path.stem, class_names=tuple(class_names), **arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    key = "its directory"
    try:
        with path.open("rb") as file, _opened_zip(file) as archive:
            missing = [k for k in _NPZ_KEYS if k not in archive]
            if missing:
                raise DataError(f"lacks {', '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
            arrays = {}
            for key in (*_NPZ_KEYS, *({"class_names"} & set(archive))):
                arrays[key] = archive[key]
                if not isinstance(arrays[key], np.ndarray):
                    raise DataError(f"{key} is not a NumPy array")
            return arrays
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{key} does not fit in memory") from error
    except _UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{key} holds Python objects (a pickle), which are never loaded") from error
        raise DataError(f"cannot read {key}: {one_line(error)}") from error


def _opened_zip(file: IO[bytes]) -> np.lib.npyio.NpzFile:
    start = file.read(4)
    file.seek(0)
    if start[:2] != b"PK" or not zipfile.is_zipfile(file):
        raise DataError("not an .npz file, or cut short (an .npz is a zip archive with a directory at its end)")
    file.seek(0)
    archive: np.lib.npyio.NpzFile = np.load(file, allow_pickle=False)
    return archive


def one_line(error: BaseException, *, limit: int | None = 200) -> str:
    """The text of an exception, on one line of at most ``limit`` characters, or else its type."""
    return " ".join(str(error).splitlines())[:limit] or type(error).__name__


def _column(y: NDArray[Any]) -> NDArray[Any]:
    return y[:, None] if y.ndim == 1 else y


def _numbered_names(y_train: NDArray[Any]) -> tuple[str, ...]:
    if y_train.ndim == 2:
        return tuple(str(c) for c in range(y_train.shape[1]))
    top = y_train.max().item() if y_train.size and y_train.dtype.kind in "iuf" else 0
    if not top < y_train.size:  # also NaN
        raise DataError(
            f"y_train holds label {top}, but {y_train.size} samples have at most {y_train.size} classes; "
            "real values need targets = 'real'"
        )
    return tuple(str(c) for c in range(max(int(top), 0) + 1))


def _stored_names(names: NDArray[Any]) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"class_names must be a list of strings, got {names.dtype} of shape {names.shape}")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"Dataset: class_names must be a sequence of strings, got {type(names).__name__}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Dataset: class_names must hold strings, got {type(name).__name__}")
    if not names:
        raise DataError("Dataset: class_names is empty")
    return tuple(names)


def _checked_pair(x_train: Any, x_test: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    train, test = _checked_inputs("x_train", x_train), _checked_inputs("x_test", x_test)
    if train.shape[1:] != test.shape[1:]:
        raise DataError(f"Dataset: x_test has samples of shape {test.shape[1:]}, x_train of {train.shape[1:]}")
    if train.dtype != test.dtype:
        if np.uint8 in (train.dtype, test.dtype):
            raise DataError(f"Dataset: x_test is {test.dtype} but x_train {train.dtype}; give both in the same units")
        train, test = train.astype(np.float64, copy=False), test.astype(np.float64, copy=False)
    return train, test


def _checked_inputs(argument: str, x: Any) -> NDArray[Any]:
    if not isinstance(x, np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"Dataset: {argument} must be a NumPy array, got {type(x).__name__}")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"Dataset: {argument} must be (n, ...) with at least one entry, got shape {x.shape}")
    checked: NDArray[Any] = np.ascontiguousarray(x, dtype=_stored_dtype(argument, x))
    if checked.dtype.kind == "f":
        rows = checked.reshape(len(checked), -1)
        for block in row_blocks(*rows.shape):
            finite = np.isfinite(rows[block]).all(axis=1)
            if not finite.all():
                first = block.start + int(finite.argmin())
                raise DataError(f"Dataset: {argument} holds NaN or infinity, first in row {first}")
    return checked


def _stored_dtype(argument: str, x: NDArray[Any]) -> np.dtype[Any]:
    native = x.dtype.newbyteorder("=")
    if native in (np.uint8, np.float32, np.float64):
        return native
    if native == np.float16:
        return np.dtype(np.float32)
    if native.kind in "biu":
        largest = max(abs(int(x.min())), abs(int(x.max())))
        if largest > 1 << 53:
            raise DataError(f"Dataset: {argument} holds integers beyond 2**53, which float64 cannot represent")
        return np.dtype(np.float32 if largest <= 1 << 24 else np.float64)
    raise DataError(f"Dataset: {argument} must be uint8, float32 or float64 (or convert to one), got {x.dtype}")


def _checked_labels(argument: str, y: Any, *, n: int, names: tuple[str, ...]) -> NDArray[Any]:
    if not isinstance(y, np.ndarray) or isinstance(y, np.ma.MaskedArray):
        raise TypeError(f"Dataset: {argument} must be a NumPy array, got {type(y).__name__}")
    if y.ndim == 2:
        return _checked_targets(argument, y, shape=(n, len(names)))
    if y.shape != (n,):
        raise DataError(f"Dataset: {argument} must have one label for each of the {n} samples, got shape {y.shape}")
    if y.dtype.kind not in "iuf":
        raise DataError(f"Dataset: {argument} must hold integers, got {y.dtype}")
    if y.dtype.kind == "f":
        broken = y[np.floor(y) != y]  # NaN is never equal to itself
        if broken.size:
            raise DataError(
                f"Dataset: {argument} must hold whole numbers, got {broken[0].item()}; real values take shape (n, k)"
            )
    for label in (y.min().item(), y.max().item()):
        if not 0 <= label < len(names):
            raise DataError(f"Dataset: {argument} holds label {label}, outside 0 ... {len(names) - 1}")
    return y.astype(np.int64)


def _checked_targets(argument: str, y: NDArray[Any], *, shape: tuple[int, int]) -> NDArray[np.float64]:
    n, k = shape
    if y.shape != shape:
        raise DataError(
            f"Dataset: {argument} must have one label for each of the {n} samples, or {k} numbers, got shape {y.shape}"
        )
    if y.dtype.kind not in "biuf":
        raise DataError(f"Dataset: {argument} must hold numbers, got {y.dtype}")
    if not np.isfinite(y).all():
        raise DataError(f"Dataset: {argument} holds NaN or infinity")
    return np.ascontiguousarray(y, dtype=np.float64)
