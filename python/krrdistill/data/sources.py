"""Labelled samples from files, tables and the collections of other libraries, as ``distill`` takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.archive import map_npy
from krrdistill.common.arrays import to_host
from krrdistill.common.documents import at_home, check_plain
from krrdistill.common.frames import column_values, frame_of, is_tabular, refuse_lazy
from krrdistill.common.rows import FrameRows
from krrdistill.common.samples import STREAM_REMEDY
from krrdistill.common.warning import warn
from krrdistill.errors import BackendUnavailable, DataError, DataWarning

from .columns import Columns, chosen_columns, first_of, listed
from .labels import label_array
from .npz import KEY_SETS, npz_arrays, npz_keys
from .readers import HuggingFaceRows, PairRows, ParquetRows, PictureRows, needed, pair_labels, parquet

__all__ = [
    "Columns",
    "Read",
    "hidden",
    "is_of",
    "is_saved_dataset",
    "label_of",
    "parquet_files",
    "read",
    "read_samples",
    "saved_dataset",
]

Array = npt.NDArray[Any]
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Read(NamedTuple):
    """Samples and labels, and the names that they were found by, where they have names."""

    X: Any
    y: Any
    x_names: Columns = None
    y_names: Columns = None


def read_samples(source: Any, *, x: Columns = None, y: Columns = None) -> tuple[Any, Any]:
    """Read labelled samples (X, y) for ``distill``. X is read block by block when it is used.

    Parameters
    ----------
    source : path, table or collection
        Files: a Parquet file or a folder of them; a folder that ``datasets`` saved ("hf:PATH" if it is not clear); a
        folder of images, ``ROOT/CLASS/*.png``, jpg, bmp or webp; an .npz file; an .npy file, with another one for y.
        Objects: a data frame or table of pandas, polars or pyarrow; a ``datasets.Dataset``; a map-style
        ``torch.utils.data.Dataset``; a pair (X, y) of arrays or of .npy files.
    x : str or sequence of str, optional
        Columns of the samples: "emb" for one column of vectors, or "a,b,c". For an .npz file a key. By default all
        columns except y.
    y : str or sequence of str, optional
        Column of the labels, or columns of real-valued targets. For an .npz file a key, for .npy files the path of the
        other file. By default the only column that is called label, labels, target or y. For ``datasets`` the only
        ClassLabel.

    Returns
    -------
    X : array or RowSource of shape (n, ...)
    y : array
        Labels or targets. Names of classes (from folders or a ClassLabel) are strings.

    Raises
    ------
    DataError
        If something cannot be read, or it is not clear what x or y is. The message lists the available names.
    BackendUnavailable
        If the library that reads this source is missing.
    TypeError
        For a source of another type.

    Examples
    --------
    >>> import numpy as np
    >>> import krrdistill as kd
    >>> X, y = kd.read_samples((np.eye(3), ["cat", "dog", "dog"]))
    >>> X.shape, list(y)
    ((3, 3), ['cat', 'dog', 'dog'])
    >>> X, y = kd.read_samples("embeddings.parquet", x="emb", y="label")  # doctest: +SKIP
    """
    try:
        found = read(source, x, y)
    except (DataError, BackendUnavailable, TypeError) as error:
        raise type(error)(f"read_samples: {error}") from error
    return found.X, found.y


def label_of(source: Any) -> str:
    """What messages call a source."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    return f"the {type(source).__name__}"


def read(source: Any, x: Columns = None, y: Columns = None, like: Read | None = None) -> Read:
    """Samples of any source; where it has columns, and x or y is not given, those of ``like``."""
    where = label_of(source)
    if isinstance(source, (str, os.PathLike)):
        return _read_path(where, os.fspath(source), x, y, like)
    refuse_lazy("read_samples", "source", source)
    if is_tabular(source):
        return _read_table(where, source, x, y, like)
    if is_of(source, "datasets"):
        return _read_hugging_face(where, source, x, y, like)
    if isinstance(source, list) and source and all(isinstance(path, Path) for path in source):
        return _read_parquet(where, source, x, y, like)
    if x is not None or y is not None:
        raise DataError(f"{where}: has no columns that x or y could name")
    if isinstance(source, tuple) and len(source) == 2:
        X, labels = (_array_or_file(each) for each in source)
        return Read(X, labels)
    no_pairs = isinstance(source, (np.ndarray, Mapping, set, bytes))
    if no_pairs or not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        streams = hasattr(source, "__iter__") and not no_pairs
        remedy = STREAM_REMEDY if streams else "pass a pair (X, y), a table, a data set or a path"
        raise TypeError(f"source is a {type(source).__name__}; {remedy}")
    return Read(PairRows(where, source), label_array(where, pair_labels(where, source)))


def is_of(source: Any, library: str) -> bool:
    """Whether this object is of a library, by its type's module: without an import."""
    return type(source).__module__.partition(".")[0] == library


# Files and folders


def _read_path(where: str, text: str, x: Columns, y: Columns, like: Read | None) -> Read:
    path = at_home(text.removeprefix("hf:"))
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if text.startswith("hf:") or is_saved_dataset(path):
        return _read_hugging_face(where, saved_dataset(path), x, y, like)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy") and not path.is_file():
        raise DataError(f"no such file: {path} is a folder")
    if suffix == ".npz":
        return _read_npz(path, x, y, like)
    if suffix == ".npy":
        return _read_npy(path, x, y)
    files = parquet_files(path)
    if files:
        return _read_parquet(where, files, x, y, like)
    if path.is_dir():
        if x is not None or y is not None:
            raise DataError(f"{where}: a folder of pictures has no columns that x or y could name")
        return _read_pictures(where, path)
    raise DataError(f"{where}: not a .parquet, .npz or .npy file, nor a folder")


def hidden(path: Path) -> bool:
    """Whether tools pass over this file: .DS_Store, _SUCCESS."""
    return path.name.startswith((".", "_"))


def parquet_files(path: Path) -> list[Path]:
    """A Parquet file, or those of a folder and of its folders, by name."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*.parquet") if file.is_file() and not hidden(file))
    return [path] if path.suffix.lower() == ".parquet" else []


def is_saved_dataset(path: Path) -> bool:
    """Whether ``datasets`` saved this folder."""
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def saved_dataset(path: Path) -> Any:
    """What ``save_to_disk`` of ``datasets`` wrote: a Dataset or a DatasetDict."""
    where = str(path)
    if not is_saved_dataset(path):
        raise DataError(f"{where}: not a folder that save_to_disk of datasets wrote; nothing is downloaded from here")
    try:
        import datasets
    except ImportError as error:
        raise needed(where, "datasets", "datasets") from error
    try:
        return datasets.load_from_disk(where)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{where}: cannot be read ({error})") from error


def _read_npz(path: Path, x: Columns, y: Columns, like: Read | None) -> Read:
    keys, where = npz_keys(path), str(path)
    if x is None and y is None and like is None:
        pairs = [layout["train"] for layout in KEY_SETS] + [("X", "y"), ("x", "y")]
        x, y = next((names for names in pairs if set(names) <= set(keys)), (None, None))
    names = first_of(x, like and like.x_names), first_of(y, like and like.y_names)
    for argument, key in zip("xy", names, strict=True):
        if key is None:
            remedy = listed(argument, "KEY", keys, "keys")
            raise DataError(f"{where}: which key holds {argument} is not obvious; {remedy}")
        if key not in keys:
            raise DataError(f"{where}: lacks {key}; it holds {', '.join(keys) or 'nothing'}")
    if names[0] == names[1]:
        raise DataError(f"{where}: {names[0]} cannot be both x and y")
    arrays = npz_arrays(path, [str(name) for name in names])
    return Read(arrays[str(names[0])], arrays[str(names[1])], *names)


def _read_npy(path: Path, x: Columns, y: Columns) -> Read:
    if x is not None or not isinstance(y, (str, os.PathLike)):
        raise DataError(f"{path}: a .npy file holds one array: x is the file itself, y=FILE.npy the labels")
    return Read(map_npy(path), map_npy(at_home(y)))


def _array_or_file(value: Any) -> Any:
    return map_npy(at_home(value)) if isinstance(value, (str, os.PathLike)) else value


def _read_parquet(where: str, files: Sequence[Path], x: Columns, y: Columns, like: Read | None) -> Read:
    module = parquet(where)
    for path in files:
        check_plain(path)
    try:
        found = list(module.read_schema(files[0]).names)
        xs, ys = chosen_columns(where, found, x, y, like)
        for path in files[1:]:
            missing = sorted({*xs, *ys} - set(module.read_schema(path).names))
            if missing:
                raise DataError(f"{path}: lacks {', '.join(missing)}, which {files[0].name} has")
        tables = [module.ParquetFile(path).read(columns=ys) for path in files]
        labels = np.concatenate([_labels(where, table, ys) for table in tables])
        return Read(ParquetRows(where, files, xs), labels, xs, ys)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: cannot be read ({error})") from error


def _read_pictures(where: str, root: Path) -> Read:
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not hidden(folder))
    files: list[Path] = []
    labels: list[str] = []
    others: list[Path] = [path for path in root.iterdir() if path.is_file() and not hidden(path)]
    for folder in folders:
        inside = sorted(path for path in folder.iterdir() if not hidden(path))
        pictures = [path for path in inside if path.suffix.lower() in _PICTURES]
        if not pictures:
            raise DataError(f"{where}: {folder.name} holds no pictures ({', '.join(_PICTURES)}): ROOT/CLASS/PICTURE")
        for path in pictures:
            check_plain(path)
        files += pictures
        labels += [folder.name] * len(pictures)
        others += [path for path in inside if path.suffix.lower() not in _PICTURES]
    if not files:
        raise DataError(f"{where}: holds no .parquet files and no folders of pictures, one for each class")
    if others:
        text = f"{where}: {len(others)} files are no pictures and left out, the first is {others[0]}"
        warn(text, DataWarning)
    return Read(PictureRows(where, files), np.array(labels))


# Tables


def _read_table(where: str, source: Any, x: Columns, y: Columns, like: Read | None) -> Read:
    frame = frame_of(where, "source", source)
    if not hasattr(frame, "columns"):
        raise DataError(f"{where}: is a single column; pass the table that has X and y")
    xs, ys = chosen_columns(where, list(frame.columns), x, y, like)
    return Read(FrameRows(where, frame.select(xs)), _labels(where, frame.select(ys).to_native(), ys), xs, ys)


def _read_hugging_face(where: str, source: Any, x: Columns, y: Columns, like: Read | None) -> Read:
    if isinstance(source, Mapping):
        splits = ", ".join(map(str, source))
        raise DataError(f"{where}: has the splits {splits}: pass one of them, source[NAME], or use load_dataset")
    if not hasattr(source, "select_columns") or not hasattr(source, "__len__"):
        raise TypeError(f"source is a {type(source).__name__}; {STREAM_REMEDY}")
    classes = [name for name, feature in source.features.items() if type(feature).__name__ == "ClassLabel"]
    xs, ys = chosen_columns(where, list(source.column_names), x, y, like, labels=classes if len(classes) == 1 else ())
    labels = _labels(where, source.select_columns(ys).with_format("arrow")[:], ys)
    if len(ys) == 1 and ys[0] in classes:
        if len(labels) and labels.min() < 0:
            raise DataError(
                f"{where}: row {labels.argmin()} has no label ({ys[0]} is {labels.min()}); leave such rows out"
            )
        labels = np.array(source.features[ys[0]].names)[labels]
    return Read(HuggingFaceRows(where, source, xs), labels, xs, ys)


def _labels(where: str, table: Any, names: Sequence[str]) -> Array:
    """One column as (n,), several as (n, k)."""
    values = column_values(where, "y", table)
    return label_array(where, to_host(where, "y", values[:, 0] if len(names) == 1 and values is not None else values))
