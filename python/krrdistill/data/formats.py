"""Readers for the official files of MNIST (IDX) and CIFAR (Python pickles and the binary version)."""

from __future__ import annotations

import gzip
import math
import struct
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krrdistill.common.archive import DEFLATE_RATIO, UNREADABLE, one_line, read_into
from krrdistill.common.documents import check_plain, read_bounded
from krrdistill.errors import DataError

from .dataset import Dataset
from .pickles import PickledBytes, read_pickled_dict

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]  # rows (n, 3072) and labels (n,)
_CIFAR_PIXELS = 3 * 32 * 32
_UNREADABLE = (*UNREADABLE, tarfile.TarError)
_GZIP = b"\x1f\x8b"
_LARGEST = 1 << 28  # bytes of a CIFAR set; the official ones have up to 187 MB
_LARGEST_BLOCK = 1 << 20


def read_idx(path: Path, *, ndim: int) -> NDArray[np.uint8]:
    """Array of unsigned bytes with ``ndim`` axes from an IDX file, gzipped or not (told by its content).

    Layout: bytes 0, 0, type (8 = unsigned byte), ndim; ndim sizes as big-endian uint32; the data in C order.
    Raises DataError when the header or the length is not what the format asks for, before memory is taken for more than
    the file can hold.
    """
    check_plain(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            stream: Any = gzip.GzipFile(fileobj=file) if packed else file
            head = stream.read(4 + 4 * ndim)
            if len(head) < 4 + 4 * ndim or head[:4] != bytes((0, 0, 8, ndim)):
                found = f"starts with {head[:4].hex()}"
                raise DataError(f"{path}: not an IDX file of unsigned bytes with {ndim} axes ({found})")
            shape = struct.unpack(f">{ndim}I", head[4:])
            promised, most = math.prod(shape), size * DEFLATE_RATIO if packed else size - len(head)
            if promised > most or not promised or (not packed and promised < most):
                held = f"at most {most}" if packed else most
                raise DataError(f"{path}: holds {held} bytes of data, its header promises {promised}")
            numbers = np.empty(promised, np.uint8)
            read_into(stream, numbers)
            return numbers.reshape(shape)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: does not fit in memory") from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


@dataclass(frozen=True)
class CifarFiles:
    """One official version of a CIFAR set: a folder of files, or the archive that holds that folder.

    train, test, names : file names inside ``folder``; ``names`` lists the classes and may be absent
    read_part, read_names : parse the content of such a file
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str
    read_part: Callable[[bytes], Part]
    read_names: Callable[[bytes], tuple[str, ...]]


def read_cifar(path: Path, files: CifarFiles, *, name: str, class_names: tuple[str, ...]) -> Dataset:
    """CIFAR data set, images (n, 32, 32, 3) uint8, from a folder or from a tar archive, read in memory.

    class_names : used when the names file is absent. Raises DataError, naming the file inside ``path``.
    """
    parts: dict[str, Part] = {}
    for member, data in _members(path, files):
        try:
            if member == files.names:
                class_names = files.read_names(data)
            else:
                parts[member] = files.read_part(data)
        except DataError as error:
            raise DataError(f"{path}: {member}: {error}") from error
    missing = [f for f in (*files.train, files.test) if f not in parts]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}")
    x_train, y_train = _joined([parts[f] for f in files.train])
    x_test, y_test = _joined([parts[files.test]])
    try:
        return Dataset(name, x_train, y_train, x_test, y_test, class_names)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _members(path: Path, files: CifarFiles) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of the wanted files, one at a time, from a folder or a tar archive."""
    wanted = {*files.train, files.test, files.names}
    try:
        if path.is_dir():
            for name in sorted(wanted):
                if (path / name).is_file():
                    yield name, read_bounded(path / name, _LARGEST)
        else:
            yield from _tar_members(path, files.folder, wanted)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def _tar_members(path: Path, folder: str, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Those of a tar archive, gzipped or not. Raises DataError for more bytes than such an archive has."""
    check_plain(path)
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if packed else file
        bounded: Any = _Bounded(stream, path)  # all that tarfile asks of a file
        found: set[str] = set()
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for member in archive:
                if member.offset_data + member.size > _LARGEST:
                    raise DataError(f"{path}: {member.name[:80]!r} promises {member.size} bytes, which is too large")
                parent, _, name = member.name.removeprefix("./").rpartition("/")
                if parent == folder and name in wanted and member.isreg():
                    if member.issparse() or name in found:
                        raise DataError(f"{path}: {name} is {'sparse' if member.issparse() else 'there twice'}")
                    found.add(name)
                    yield name, bounded.content(member.offset_data, member.size)
        if packed:
            bounded.finish()


class _Bounded:
    """A stream that is read in pieces and not past what an archive of CIFAR has, whatever is promised in it."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path = stream, path

    def tell(self) -> int:
        """Bytes before the next one."""
        return int(self._stream.tell())

    def seek(self, position: int) -> int:
        """Goes to a byte."""
        self._check(position)
        return int(self._stream.seek(position))

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes. Raises DataError for more than one block of headers may have."""
        if count > _LARGEST_BLOCK:
            raise DataError(f"{self._path}: has a header of {count} bytes")
        self._check(self.tell() + count)
        return bytes(self._stream.read(count))

    def content(self, start: int, size: int) -> bytes:
        """The bytes of a member."""
        self._check(start + size)
        self._stream.seek(start)
        pieces = [self._stream.read(min(_LARGEST_BLOCK, size - at)) for at in range(0, size, _LARGEST_BLOCK)]
        content = b"".join(pieces)
        if len(content) != size:
            raise EOFError(f"it ends after {len(content)} of the {size} bytes of a file")
        return content

    def finish(self) -> None:
        """Reads what is left, so that a damaged end is found. Raises DataError where it is too much."""
        while self.read(_LARGEST_BLOCK):
            pass

    def _check(self, position: int) -> None:
        if position > _LARGEST:
            raise DataError(f"{self._path}: unpacks to more than {_LARGEST} bytes")


def _joined(parts: list[Part]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels of all parts. A row stores the red plane, then green, then blue."""
    images = np.empty((sum(len(rows) for rows, _ in parts), 32, 32, 3), dtype=np.uint8)
    np.concatenate([rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for rows, _ in parts], out=images)
    return images, np.concatenate([labels for _, labels in parts])


def _pickled_part(data: bytes, *, label_key: str) -> Part:
    content = read_pickled_dict(data)
    images, labels = content.get("data"), content.get(label_key)
    if not isinstance(images, PickledBytes) or images.values.ndim != 2 or images.values.shape[1] != _CIFAR_PIXELS:
        raise DataError(f"'data' must be a uint8 array of shape (n, {_CIFAR_PIXELS})")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError(f"{label_key!r} must be a list of small integers")
    if len(labels) != len(images.values):
        raise DataError(f"holds {len(images.values)} images but {len(labels)} labels")
    return images.values, np.array(labels, dtype=np.int64)


def _pickled_names(data: bytes, *, key: str) -> tuple[str, ...]:
    names = read_pickled_dict(data).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{key!r} must be a list of class names")
    return tuple(names)


def _binary_part(data: bytes, *, label_bytes: int) -> Part:
    """Records of label_bytes labels, the last of them the fine one, then 3072 pixels."""
    record = label_bytes + _CIFAR_PIXELS
    if not data or len(data) % record:
        raise DataError(f"holds {len(data)} bytes, not a multiple of the record size {record}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1].astype(np.int64)


def _text_names(data: bytes) -> tuple[str, ...]:
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    return tuple(line for line in lines if line)


_CIFAR10_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
# The official versions of each set, in the order in which they are looked for.
CIFAR_VERSIONS: dict[str, tuple[CifarFiles, ...]] = {
    "cifar10": (
        CifarFiles(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            train=_CIFAR10_TRAIN,
            test="test_batch",
            names="batches.meta",
            read_part=partial(_pickled_part, label_key="labels"),
            read_names=partial(_pickled_names, key="label_names"),
        ),
        CifarFiles(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            train=tuple(f"{name}.bin" for name in _CIFAR10_TRAIN),
            test="test_batch.bin",
            names="batches.meta.txt",
            read_part=partial(_binary_part, label_bytes=1),
            read_names=_text_names,
        ),
    ),
    "cifar100": (
        CifarFiles(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            train=("train",),
            test="test",
            names="meta",
            read_part=partial(_pickled_part, label_key="fine_labels"),
            read_names=partial(_pickled_names, key="fine_label_names"),
        ),
        CifarFiles(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            train=("train.bin",),
            test="test.bin",
            names="fine_label_names.txt",
            read_part=partial(_binary_part, label_bytes=2),
            read_names=_text_names,
        ),
    ),
}
