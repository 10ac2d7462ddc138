"""A ``Dataset`` of any source: which part is for training, for validation and for the test."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.documents import at_home
from krrdistill.common.rows import ConvertedRows, RowSource
from krrdistill.common.samples import host_samples
from krrdistill.common.warning import warn
from krrdistill.errors import DataError, DataWarning

from .dataset import Dataset
from .labels import Targets, label_array, read_targets
from .npz import KEY_SETS, npz_arrays, npz_keys
from .sources import Columns, Read, hidden, is_saved_dataset, label_of, parquet_files, read, saved_dataset

__all__ = ["OnePart", "Parts", "fraction_rows", "read_dataset", "read_part"]

_NAMES = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}
_SPLIT_KEY = 20240601  # fixes every split for good
_NO_TEST = "has no test set: give one, test=SOURCE (--test), or take a part of it, test_fraction=0.2 (--test-fraction)"


class Part(NamedTuple):
    """A source and the names of its columns or keys."""

    source: Any
    x: Columns = None
    y: Columns = None


class Parts(NamedTuple):
    """What the user said about the parts of a data set."""

    x: Columns = None
    y: Columns = None
    test: Any = None
    x_test: Columns = None
    y_test: Columns = None
    validation: Any = None
    x_validation: Columns = None
    y_validation: Columns = None
    test_fraction: float | None = None


class OnePart(NamedTuple):
    """One part of a data set, or a shard of it, for itself: it need not have a sample of every class.

    name : of the data set
    X, y : samples and labels, ready for ``distill``
    class_names : k names, empty where the source has none
    layout : "NHWC" or "NCHW", None where nothing says it
    """

    name: str
    X: Any
    y: Any
    class_names: tuple[str, ...] = ()
    layout: str | None = None

    def targets(self, where: str, *, kind: str | None = None, classes: Any = None) -> Targets:
        """What y means; without ``classes`` by the names of the source, else by the labels that occur."""
        if isinstance(self.y, Targets) and classes is None:
            return self.y
        y = self.y.labels() if isinstance(self.y, Targets) else label_array(where, self.y)
        if classes is None and self.class_names and kind != "real" and (y.ndim == 1 or y.shape[1] == 1):
            classes = self.class_names if y.dtype.kind == "U" else len(self.class_names)
        return Targets(*read_targets(where, y, len(self.X), targets=kind, classes=classes))


def read_part(source: Any, part: str, x: Columns = None, y: Columns = None, *, layout: str | None = None) -> OnePart:
    """The part "train", "test" or "validation" of a source that has parts, all of one that has none.

    Raises DataError for a source that has other parts only.
    """
    label, path = label_of(source), at_home(str(source))
    if path.suffix.lower() == ".npz" and path.is_file():
        keys = set(npz_keys(path)) if x is None and y is None else set()
        held = [(name, names) for each in KEY_SETS for name, names in each.items() if keys.issuperset(names)]
        parts = {name: Part(path, *names) for name, names in reversed(held)}
    else:
        parts = {name: Part(each.source, x, y) for name, each in _own_parts(source, Parts()).items()}
    if parts and part not in parts:
        raise DataError(f"{label}: has no part for {part}; it has {', '.join(parts)}")
    found = read(*parts.get(part, Part(source, x, y)))
    names = () if "class_names" in (found.x_names, found.y_names) else _stored_names(source)
    samples = host_samples(label, found.X)
    if len(samples) != len(found.y):
        raise DataError(f"{label}: {len(samples)} samples and {len(found.y)} labels")
    return OnePart(_name_of(source), samples, found.y, names, layout)


def read_dataset(
    source: Any,
    asked: Parts | None = None,
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    targets: str | None = None,
    layout: str | None = None,
) -> Dataset:
    """The data set of a source that may have parts itself. Raises DataError, TypeError.

    source : as ``read_samples`` takes it, or one that has parts: a .npz file with the usual keys, a DatasetDict or
        mapping of splits, a folder with the folders train and test, a folder of Parquet files train-*, test-*
    name : by default that of the file or folder
    class_names : taken where the source has none
    """
    label, asked = label_of(source), asked or Parts()
    parts = _own_parts(source, asked)
    chosen = {
        "test": _asked_part(source, asked.test, asked.x_test, asked.y_test) or parts.get("test"),
        "validation": _asked_part(source, asked.validation, asked.x_validation, asked.y_validation)
        or parts.get("validation"),
    }
    if asked.test_fraction is not None and chosen["test"] is not None:
        raise DataError(f"{label}: there is a test set: it and test_fraction exclude each other")
    train = read(*parts.get("train", Part(source, asked.x, asked.y)))
    if asked.test_fraction is None and chosen["test"] is None:
        raise DataError(f"{label}: {_NO_TEST}")
    found = {"train": train}
    found |= {part: read(*each, like=train) for part, each in chosen.items() if each is not None}
    if asked.test_fraction is not None:
        found |= _fraction_of(label, train, asked.test_fraction, targets)
    if "class_names" not in (train.x_names, train.y_names):
        class_names = _stored_names(source) or class_names
    names = tuple(class_names or ())
    arrays = {f"{axis}_{part}": value for part, each in found.items() for axis, value in zip("xy", each, strict=False)}
    try:
        return Dataset(name or _name_of(source), class_names=names, targets=targets, layout=layout, **arrays)
    except (TypeError, DataError) as error:
        raise DataError(f"{label}: {error}") from error


def _asked_part(source: Any, given: Any, x: Columns, y: Columns) -> Part | None:
    """A part of its own, or other keys of the same file."""
    if given is None and x is None and y is None:
        return None
    return Part(source if given is None else given, x, y)


def _own_parts(source: Any, asked: Parts) -> dict[str, Part]:
    """The parts that a source has itself, empty for one that is whole."""
    if isinstance(source, Mapping):  # a DatasetDict too
        return _named_parts("the " + type(source).__name__, source, asked)
    if not isinstance(source, (str, os.PathLike)):
        return {}
    text = os.fspath(source)
    path = at_home(text.removeprefix("hf:"))
    if path.suffix.lower() == ".npz" and path.is_file():
        return {} if asked.x is not None or asked.y is not None else _npz_parts(path, asked)
    return _folder_parts(text, path, asked) if path.is_dir() else {}


def _folder_parts(text: str, path: Path, asked: Parts) -> dict[str, Part]:
    """The parts of a folder: splits that were saved, folders, or files named after parts."""
    if is_saved_dataset(path):
        saved = saved_dataset(path)
        return _named_parts(text, saved, asked) if isinstance(saved, Mapping) else {}
    folders = {folder.name: folder for folder in sorted(path.iterdir()) if folder.is_dir() and not hidden(folder)}
    if folders.keys() & _NAMES.keys():
        return _named_parts(text, folders, asked)
    files: dict[str, list[Path]] = {}
    for file in parquet_files(path):
        files.setdefault(file.name.partition(".")[0].partition("-")[0], []).append(file)
    return _named_parts(text, files, asked) if files.keys() & _NAMES.keys() else {}


def _named_parts(label: str, parts: Mapping[Any, Any], asked: Parts) -> dict[str, Part]:
    """Parts by their usual names."""
    found: dict[str, Part] = {}
    for name, source in parts.items():
        part = _NAMES.get(str(name))
        if part in found:
            raise DataError(f"{label}: has two parts for {part}")
        if part is not None:
            found[part] = Part(source, *((asked.x, asked.y) if part == "train" else ()))
    if "train" not in found:
        raise DataError(f"{label}: has no part called train; it has {', '.join(map(str, parts)) or 'nothing'}")
    others = [str(name) for name in parts if str(name) not in _NAMES]
    if others:
        warn(f"{label}: {', '.join(others)} is neither train, test nor validation: left out", DataWarning)
    return found


def _npz_parts(path: Path, asked: Parts) -> dict[str, Part]:
    """The parts of an .npz file with the usual keys."""
    keys = npz_keys(path)

    def held(layout: Mapping[str, tuple[str, str]], *parts: str) -> int:
        return sum(key in keys for part in parts for key in layout[part])

    layout = max(KEY_SETS, key=lambda each: (held(each, "train", "test"), held(each, "validation")))
    needed = ["train"] if asked.test is not None or asked.test_fraction is not None else ["train", "test"]
    needed += ["test"] * (needed == ["train"] and held(layout, "test") > 0)
    needed += ["validation"] * (held(layout, "validation") > 0)
    missing = [key for part in needed for key in layout[part] if key not in keys]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; it holds {', '.join(keys) or 'nothing'}; other keys are named by "
            "x=, y=, x_test=, y_test= (--x ...)"
        )
    return {part: Part(path, *layout[part]) for part in needed}


def _stored_names(source: Any) -> tuple[str, ...]:
    """What an .npz file calls its classes."""
    if not isinstance(source, (str, os.PathLike)) or not str(source).lower().endswith(".npz"):
        return ()
    path = at_home(source)
    if "class_names" not in npz_keys(path):
        return ()
    names = npz_arrays(path, ["class_names"])["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"{path}: class_names must be a list of strings, got {names.dtype} of shape {names.shape}")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)


def _name_of(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        path = at_home(os.fspath(source).removeprefix("hf:"))
        return path.resolve().name if path.is_dir() else path.stem
    return type(source).__name__


def _fraction_of(label: str, train: Read, fraction: float, targets: str | None) -> dict[str, Read]:
    """Training and test part of what has no test set, the same part of every class."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f"test_fraction must be a number between 0 and 1, got {fraction!r}")
    X = host_samples(label, train.X)
    y, classes = read_targets(label, train.y, len(X), targets=targets)
    test = fraction_rows(y if classes is not None else np.zeros(len(y), np.int64), fraction)
    if not 0 < test.sum() < len(X):
        raise DataError(f"{label}: test_fraction = {fraction:g} of {len(X)} samples leaves {test.sum()} for the test")
    source = X if isinstance(X, RowSource) else ConvertedRows(label, X)
    parts = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    return {
        part: Read(source.picked(rows), y[rows] if classes is None else Targets(y[rows], classes))
        for part, rows in parts.items()
    }


def fraction_rows(codes: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.bool_]:
    """Which rows are for the test: of every class the same part, always the same rows."""
    # Raw bits of Philox are the same in every NumPy; shuffles and normal deviates are not promised to be.
    order = np.argsort(np.random.Philox(key=_SPLIT_KEY).random_raw(len(codes)), kind="stable")
    by_class = order[np.argsort(codes[order], kind="stable")]
    test = np.zeros(len(codes), dtype=bool)
    start = 0
    for count in np.bincount(codes):
        test[by_class[start : start + math.floor(fraction * count + 0.5)]] = True
        start += count
    return test
