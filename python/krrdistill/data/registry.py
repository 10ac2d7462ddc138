"""Data sets by name: where each is looked for, and in which order."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.archive import one_line
from krrdistill.common.arrays import check_choice
from krrdistill.common.documents import at_home
from krrdistill.common.options import did_you_mean
from krrdistill.errors import BackendUnavailable, DataError
from krrdistill.options import DATASETS, TARGETS, is_source_name

from . import class_names
from .dataset import Dataset
from .download import fetch
from .formats import CIFAR_VERSIONS, read_cifar, read_idx
from .layout import looks_channels_first
from .parts import OnePart, Parts, fraction_rows, read_dataset, read_part
from .sources import Columns

_BY_FILE = "name the file itself, --dataset FILE.npz --layout NCHW (layout='NCHW')"
_MNIST_FILES = (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))


@dataclass(frozen=True)
class _Known:
    """What a named set looks like on every machine, and the words for what is looked for."""

    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    looked_for: str


_KNOWN: dict[str, _Known] = {
    "mnist": _Known(
        (28, 28),
        class_names.DIGITS,
        "mnist.npz; train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, with or without .gz, here or in MNIST/raw",
    ),
    "cifar10": _Known(
        (32, 32, 3),
        class_names.CIFAR10,
        "cifar10.npz; cifar-10-batches-py or cifar-10-python.tar.gz; cifar-10-batches-bin or cifar-10-binary.tar.gz",
    ),
    "cifar100": _Known(
        (32, 32, 3),
        class_names.CIFAR100,
        "cifar100.npz; cifar-100-python or cifar-100-python.tar.gz; cifar-100-binary or cifar-100-binary.tar.gz",
    ),
}


def available_datasets() -> tuple[str, ...]:
    """The names that ``load_dataset`` knows; "digits" needs no files."""
    return DATASETS


def load_dataset(
    source: Any,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    targets: str | None = None,
    layout: str | None = None,
    x: Columns = None,
    y: Columns = None,
    test: Any = None,
    x_test: Columns = None,
    y_test: Columns = None,
    validation: Any = None,
    x_validation: Columns = None,
    y_validation: Columns = None,
    test_fraction: float | None = None,
) -> Dataset:
    """Load a data set by name, or from files, tables and data sets of other libraries.

    Parameters
    ----------
    source : str, path, table or collection
        A name: "digits" (8x8 images from scikit-learn, split 80/20 within each class), "mnist", "cifar10", "cifar100".
        Or any source of ``read_samples``. Or a source with several parts: an .npz file with x_train, y_train, x_test,
        y_test (or train_images, train_labels, ...), optional x_val, y_val and class_names; a DatasetDict, also a saved
        one; a folder with the folders train, test and optionally val; Parquet files train-*, test-*; a mapping with
        these names.
    data_dir : str or path, optional
        Folder of the named data sets; by default the environment variable KRRDISTILL_DATA, otherwise ./data.
    download : bool
        Whether to download the official files of a named data set to ``data_dir`` if they are missing.
    targets : "classes" or "real", optional
        Meaning of y. Needed for whole-numbered floats, which could be either.
    layout : "NHWC" or "NCHW", optional
        Axis of the channels of images, last or first. Needed if the shape looks like channels first.
    x, y : str or sequence of str, optional
        Names of columns or keys, see ``read_samples``.
    test, validation : source, optional
        Test set, and validation set to choose lambda on; any source of ``read_samples``.
    x_test, y_test, x_validation, y_validation : str or sequence of str, optional
        Columns or keys of these sets; by default those of the training set. Without ``test`` (``validation``) they are
        keys in the file of the training set.
    test_fraction : float, optional
        If there is no test set: fraction of every class to set apart as one, with a fixed seed.

    Returns
    -------
    Dataset

    Raises
    ------
    TypeError
        For a source of another type.
    DataError
        For an unknown name and for missing, unreadable or invalid data.
    BackendUnavailable
        If a library that the source needs is missing.

    Notes
    -----
    Files of the named data sets in ``data_dir``, in the order in which they are looked for:
    mnist : mnist.npz; the four IDX files, plain or .gz, "-idx3" or ".idx3"; the same in MNIST/raw.
    cifar10 : cifar10.npz; cifar-10-batches-py or cifar-10-python.tar.gz; cifar-10-batches-bin or its .tar.gz.
    cifar100 : cifar100.npz; cifar-100-python or its .tar.gz; cifar-100-binary or its .tar.gz. Fine labels.
    Images are uint8, (28, 28) for mnist and (32, 32, 3) for CIFAR.

    Examples
    --------
    >>> import krrdistill as kd
    >>> kd.load_dataset("digits")
    Dataset('digits', train 1438, test 359, shape (8, 8), uint8, 10 classes)
    """
    asked = Parts(x, y, test, x_test, y_test, validation, x_validation, y_validation, test_fraction)
    if targets is not None:
        check_choice("load_dataset", "targets", targets, TARGETS)
    try:
        if isinstance(source, str) and source.lower() in DATASETS:
            return _load_named(source.lower(), asked, targets, layout, _data_folder(data_dir), fetch_missing=download)
        if isinstance(source, str) and not is_source_name(source):
            known = available_datasets()
            hint = did_you_mean(source, known)
            raise DataError(f"unknown data set {source!r}; choose one of {', '.join(known)}, or a file or folder{hint}")
        return read_dataset(source, asked, targets=targets, layout=layout)
    except (BackendUnavailable, TypeError) as error:
        raise type(error)(f"load_dataset: {error}") from error
    except (DataError, OSError) as error:
        raise DataError(f"load_dataset: {one_line(error, limit=None)}") from error


def load_part(
    source: str,
    part: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    x: Columns = None,
    y: Columns = None,
    layout: str | None = None,
) -> OnePart:
    """The part "train", "test" or "validation" of a data set by name or of a file or folder, or a shard without parts.

    Raises DataError, TypeError, BackendUnavailable as ``load_dataset`` does.
    """
    if source.lower() not in DATASETS:
        try:
            return read_part(source, part, x, y, layout=layout)
        except OSError as error:
            raise DataError(one_line(error, limit=None)) from error
    if x is not None or y is not None:
        raise DataError(f"x and y belong to a file, folder or table; {source!r} has its own parts")
    data = load_dataset(source, data_dir=data_dir, download=download)
    if part == "validation":
        raise DataError(f"{data.name} has no validation part")
    X, targets = (data.x_train, data.train_targets) if part == "train" else (data.x_test, data.test_targets)
    return OnePart(data.name, X, targets, data.class_names, data.layout)


def _load_named(
    name: str, asked: Parts, targets: str | None, layout: str | None, folder: Path, *, fetch_missing: bool
) -> Dataset:
    given = [field for field, value in zip(asked._fields, asked, strict=True) if value is not None]
    if targets not in (None, "classes"):
        raise DataError(f"targets = {targets!r} needs a file or folder, got {name!r}")
    if layout not in (None, "NHWC"):
        raise DataError(f"layout = {layout!r} needs a file or folder, got {name!r}: {_BY_FILE}")
    if given:
        raise DataError(f"{', '.join(given)} belongs to a file, folder or table; {name!r} has its own parts")
    return _load_digits() if name == "digits" else _load_known(name, folder, fetch_missing=fetch_missing)


def _data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    chosen = os.environ.get("KRRDISTILL_DATA") or "data" if data_dir is None else data_dir
    return at_home(chosen)


def _load_known(name: str, folder: Path, *, fetch_missing: bool) -> Dataset:
    dataset = _find(name, folder)
    if dataset is None and fetch_missing:
        fetch(name, folder)
        dataset = _find(name, folder)
    if dataset is None:
        where = f"{folder.absolute()}{'' if folder.is_dir() else ', which does not exist'}"
        raise DataError(
            f"{name} is not in {where} (looked for: {_KNOWN[name].looked_for}); "
            "name another folder with --data-dir (data_dir=), or fetch it with --download (download=True)"
        )
    shape = _KNOWN[name].shape
    if dataset.x_train.dtype != np.uint8 or dataset.shape != shape:
        found = f"{dataset.x_train.dtype} {dataset.shape}"
        remedy = f"; {_BY_FILE}" if looks_channels_first(dataset.shape) else ""
        raise DataError(f"{name} in {folder} must be uint8 images {shape}, got {found}{remedy}")
    return dataset


def _find(name: str, folder: Path) -> Dataset | None:
    names = _KNOWN[name].class_names
    npz = folder / f"{name}.npz"
    if npz.is_file():
        return read_dataset(npz, name=name, class_names=names, layout="NHWC")
    if name == "mnist":
        return _find_mnist(folder) or _find_mnist(folder / "MNIST" / "raw")
    for version in CIFAR_VERSIONS[name]:
        for path in (folder / version.folder, folder / version.archive):
            if path.exists():
                return read_cifar(path, version, name=name, class_names=names)
    return None


def _find_mnist(folder: Path) -> Dataset | None:
    """MNIST from four IDX files, or None when one of them is missing."""
    paths = [_idx_path(folder, stem, ndim) for stem, ndim in _MNIST_FILES]
    arrays = [read_idx(p, ndim=ndim) for p, (_, ndim) in zip(paths, _MNIST_FILES, strict=True) if p is not None]
    if len(arrays) < len(paths):
        return None
    x_train, y_train, x_test, y_test = arrays
    try:
        return Dataset("mnist", x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64), class_names.DIGITS)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _idx_path(folder: Path, stem: str, ndim: int) -> Path | None:
    spellings = (folder / f"{stem}{sep}idx{ndim}-ubyte{ext}" for sep in "-." for ext in ("", ".gz"))
    return next((path for path in spellings if path.is_file()), None)


def _load_digits() -> Dataset:
    """scikit-learn's 1797 digits, 8x8, grey levels 0 ... 16; a fifth of every class is the test set."""
    try:
        table = _digits_table()
    except ImportError as error:
        remedy = 'pip install "krrdistill[cli]"'
        raise BackendUnavailable(f"digits come with scikit-learn ({error}): {remedy}") from error
    x, y = table[:, :64].reshape(-1, 8, 8).astype(np.uint8), table[:, 64].astype(np.int64)
    test = fraction_rows(y, 0.2)
    return Dataset("digits", x[~test], y[~test], x[test], y[test], class_names.DIGITS)


def _digits_table() -> npt.NDArray[np.float64]:
    """The pixels and the label of each digit, (1797, 65): from its file, as importing scikit-learn takes a second."""
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    bundled = load_digits()
    return np.column_stack([bundled.data, bundled.target])
