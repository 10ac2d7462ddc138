"""Writes small files in the official formats of the named data sets."""

import gzip
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

CIFAR_FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}


def tiny_images(shape, *, k=10, n_train=None, n_test=12, seed=0):
    """x_train, y_train, x_test, y_test: random uint8 images, every one of the k classes in train."""
    rng = np.random.default_rng(seed)
    n_train = 2 * k if n_train is None else n_train
    x = rng.integers(0, 256, size=(n_train + n_test, *shape), dtype=np.uint8)
    y = np.concatenate([rng.permutation(np.arange(n_train) % k), rng.integers(0, k, size=n_test)])
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def write_npz(path, arrays, **extra):
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **{**dict(zip(names, arrays, strict=True)), **extra})
    return path


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, arrays, *, sep="-", compress=False):
    """The four IDX files; sep "-" or "." before "idx", gzipped or not."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(("train-images", "train-labels", "t10k-images", "t10k-labels"), arrays, strict=True):
        data = idx_bytes(array)
        name = f"{stem}{sep}idx{array.ndim}-ubyte" + (".gz" if compress else "")
        (folder / name).write_bytes(gzip.compress(data, mtime=0) if compress else data)
    return folder


def planes(images):
    """Rows (n, 3072) as CIFAR stores them: red plane, green plane, blue plane."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python2_pickle(value):
    """Protocol 2 as Python 2 wrote it: text and array data are byte strings, and NumPy is numpy.core."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value):
    if isinstance(value, np.ndarray):
        return _python2_array(value)
    if isinstance(value, str):
        value = value.encode("latin1")
    write = {
        type(None): lambda _: b"N",
        bool: lambda flag: b"\x88" if flag else b"\x89",
        int: lambda number: b"J" + struct.pack("<i", number),
        bytes: lambda data: b"T" + struct.pack("<i", len(data)) + data,
        list: lambda items: b"](" + b"".join(map(_python2, items)) + b"e",
        tuple: lambda items: b"(" + b"".join(map(_python2, items)) + b"t",
        dict: lambda items: b"}(" + b"".join(_python2(k) + _python2(v) for k, v in items.items()) + b"u",
    }
    return write[type(value)](value)


def _python2_array(array):
    assert array.dtype == np.uint8
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _python2((0,)) + _python2("b") + b"tR"
    dtype = b"cnumpy\ndtype\n" + _python2(("u1", 0, 1)) + b"R"
    dtype += _python2((3, "|", None, None, None, -1, -1, 0)) + b"b"
    state = _python2(1) + _python2(array.shape) + dtype + _python2(fortran)
    return empty + b"(" + state + _python2(array.tobytes("F" if fortran else "C")) + b"tb"


def write_cifar_python(data_dir, name, arrays, *, dumps=python2_pickle, class_names=None):
    """cifar-10-batches-py (five train batches) or cifar-100-python."""
    folder = data_dir / CIFAR_FOLDERS[name][0]
    folder.mkdir(parents=True)
    x_train, y_train, x_test, y_test = arrays
    key = "labels" if name == "cifar10" else "fine_labels"

    def part(x, y):
        content = {"batch_label": "part", key: [int(c) for c in y], "data": planes(x), "filenames": ["a.png"]}
        if name == "cifar100":
            content["coarse_labels"] = [int(c) // 5 for c in y]
        return dumps(content)

    if name == "cifar10":
        splits = np.array_split(np.arange(len(y_train)), 5)
        for i, rows in enumerate(splits, start=1):
            (folder / f"data_batch_{i}").write_bytes(part(x_train[rows], y_train[rows]))
    else:
        (folder / "train").write_bytes(part(x_train, y_train))
    (folder / ("test_batch" if name == "cifar10" else "test")).write_bytes(part(x_test, y_test))
    if class_names is not None:
        meta, meta_key = ("batches.meta", "label_names") if name == "cifar10" else ("meta", "fine_label_names")
        (folder / meta).write_bytes(dumps({meta_key: list(class_names), "num_vis": 3072}))
    return folder


def write_cifar_binary(data_dir, name, arrays, *, class_names=None):
    """cifar-10-batches-bin or cifar-100-binary, whose records start with a coarse label."""
    folder = data_dir / CIFAR_FOLDERS[name][1]
    folder.mkdir(parents=True)
    x_train, y_train, x_test, y_test = arrays

    def records(x, y):
        labels = y[:, None] if name == "cifar10" else np.stack([y // 5, y], axis=1)
        return np.concatenate([labels.astype(np.uint8), planes(x)], axis=1).tobytes()

    if name == "cifar10":
        for i, rows in enumerate(np.array_split(np.arange(len(y_train)), 5), start=1):
            (folder / f"data_batch_{i}.bin").write_bytes(records(x_train[rows], y_train[rows]))
    else:
        (folder / "train.bin").write_bytes(records(x_train, y_train))
    (folder / ("test_batch.bin" if name == "cifar10" else "test.bin")).write_bytes(records(x_test, y_test))
    if class_names is not None:
        meta = "batches.meta.txt" if name == "cifar10" else "fine_label_names.txt"
        (folder / meta).write_text("\n".join(class_names) + "\n\n")
    return folder


def pack(folder: Path, archive: Path):
    """The folder as a .tar.gz with the folder's name inside; the folder itself is removed."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return archive


class MakesFolder:
    """Pickles to a call of os.mkdir: the folder exists once such a pickle has been run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def hostile_pickle(path):
    return pickle.dumps({"data": MakesFolder(path), "labels": [0]}, protocol=2)
