"""Data sets by name: where each is looked for, and in which order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from krrdistill.common.arrays import check_choice
from krrdistill.errors import BackendUnavailable, DataError
from krrdistill.options import DATASETS, TARGETS

from . import class_names
from .dataset import Dataset, one_line, read_npz
from .download import fetch
from .formats import CIFAR_VERSIONS, read_cifar, read_idx

_SPLIT_KEY = 20240601  # fixes the train/test split of the bundled digits for good
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
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    targets: str | None = None,
    layout: str | None = None,
) -> Dataset:
    """A data set by name, or from an ``.npz`` file.

    Parameters
    ----------
    name : str or path
        "digits" (bundled with scikit-learn, 8x8, split here 80/20 by class), "mnist", "cifar10", "cifar100", or a path
        ending in ".npz" with x_train, y_train, x_test, y_test and optional class_names.
    data_dir : str or path, optional
        Folder of the named sets; by default the environment variable KRRDISTILL_DATA, else ./data.
    download : bool
        Fetch the official files of a named set into data_dir when they are not there.
    targets : "classes" or "real", optional
        What y of an .npz file holds, where its type does not tell: whole-numbered floats may be either.
    layout : "NHWC" or "NCHW", optional
        Where images of an .npz file have their channels; needed where their shape looks like the latter.

    Returns
    -------
    Dataset

    Raises
    ------
    TypeError
        For a name that is no string or path.
    DataError
        For an unknown name and for missing, unreadable or invalid data.
    BackendUnavailable
        Without scikit-learn (digits) or pooch (download).

    Notes
    -----
    Looked for in data_dir, in this order:
    mnist : mnist.npz; the four IDX files, plain or .gz, "-idx3" or ".idx3"; the same in MNIST/raw.
    cifar10 : cifar10.npz; cifar-10-batches-py or cifar-10-python.tar.gz; cifar-10-batches-bin or its .tar.gz.
    cifar100 : cifar100.npz; cifar-100-python or its .tar.gz; cifar-100-binary or its .tar.gz. Fine labels.
    Images are uint8, (28, 28) for mnist and (32, 32, 3) for CIFAR.
    """
    text = os.fspath(name)
    if targets is not None:
        check_choice("load_dataset", "targets", targets, TARGETS)
    if not isinstance(text, str):
        raise TypeError(f"load_dataset: name must be a string or a path, got {type(name).__name__}")
    try:
        if text.lower().endswith(".npz"):
            return read_npz(Path(text).expanduser(), targets=targets, layout=layout)
        if targets not in (None, "classes"):
            raise DataError(f"targets = {targets!r} needs a path ending in .npz, got {text!r}")
        if text.lower() == "digits":
            return _load_digits()
        if text.lower() in _KNOWN:
            return _load_known(text.lower(), _data_folder(data_dir), fetch_missing=download)
        choices = ", ".join(available_datasets())
        raise DataError(f"unknown data set {text!r}; choose one of {choices}, or a path ending in .npz")
    except BackendUnavailable as error:
        raise BackendUnavailable(f"load_dataset: {error}") from error
    except (DataError, OSError) as error:
        raise DataError(f"load_dataset: {one_line(error, limit=None)}") from error


def _data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    chosen = os.environ.get("KRRDISTILL_DATA") or "data" if data_dir is None else data_dir
    return Path(chosen).expanduser()


def _load_known(name: str, folder: Path, *, fetch_missing: bool) -> Dataset:
    dataset = _find(name, folder)
    if dataset is None and fetch_missing:
        fetch(name, folder)
        dataset = _find(name, folder)
    if dataset is None:
        raise DataError(
            f"{name} is not in {folder.absolute()} (looked for: {_KNOWN[name].looked_for}); "
            "name another folder with --data-dir (data_dir=), or fetch it with --download (download=True)"
        )
    shape = _KNOWN[name].shape
    if dataset.x_train.dtype != np.uint8 or dataset.shape != shape:
        raise DataError(f"{name} in {folder} must be uint8 images {shape}, got {dataset.x_train.dtype} {dataset.shape}")
    return dataset


def _find(name: str, folder: Path) -> Dataset | None:
    names = _KNOWN[name].class_names
    npz = folder / f"{name}.npz"
    if npz.is_file():
        return read_npz(npz, name=name, class_names=names, layout="NHWC")
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
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BackendUnavailable('digits come with scikit-learn: pip install "krrdistill[cli]"') from error
    bundled = load_digits()
    x, y = bundled.images.astype(np.uint8), bundled.target.astype(np.int64)
    # Raw bits of Philox are the same in every NumPy; shuffles and normal deviates are not promised to be.
    order = np.argsort(np.random.Philox(key=_SPLIT_KEY).random_raw(len(y)), kind="stable")
    test = np.zeros(len(y), dtype=bool)
    for label in range(10):
        members = order[y[order] == label]
        test[members[: round(0.2 * len(members))]] = True
    return Dataset("digits", x[~test], y[~test], x[test], y[test], class_names.DIGITS)
