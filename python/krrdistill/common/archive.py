"""The one reader of .npz and .npy files.

What a file promises (names, number, kind and size of its arrays) is held against the bytes that it has before anything
of that size is allocated. Nothing in a file is run. Whatever does not fit is a DataError that names file and array.
"""

from __future__ import annotations

import io
import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.errors import DataError

__all__ = ["DEFLATE_RATIO", "UNREADABLE", "Archive", "FileKind", "map_npy", "one_line", "read_into"]

Array = npt.NDArray[Any]
DEFLATE_RATIO = 1032  # bytes that one byte of deflated data can stand for: 258 from two bits
# What the standard library raises on files that are cut, corrupt or not what their name says.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,  # NotImplementedError and RecursionError are
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
_END = 22  # bytes of the record that ends a zip archive
_END_64 = 76  # and of those before it in a large one
_LOCAL = 30  # least bytes of the record in front of each member
_ENCRYPTED = 0x41  # flags
_LARGEST_DIRECTORY = 1 << 20
_LONGEST_NAME = 200
_LONGEST_HEADER = 4096  # characters; that of 32 axes has 700
_MOST_AXES = 32
_LARGEST_EMPTY_AXIS = 1 << 24  # of an array without bytes, whose length nothing else bounds
_CHUNK = 1 << 20
_HEADER = re.compile(
    r"\{(?:(?:'descr':'(?P<kind>[<>|=]?[A-Za-z]\d{0,9})'"
    r"|'fortran_order':(?P<fortran>True|False)"
    r"|'shape':\((?P<shape>(?:\d{1,19}L?(?:,|(?=\))))*)\)),?){3}\}"
)


def one_line(error: BaseException, *, limit: int | None = 200) -> str:
    """The text of an exception, on one line of at most ``limit`` printable characters, or else its type."""
    line = " ".join(str(error).splitlines())[:limit]
    return "".join(letter if letter.isprintable() else "?" for letter in line) or type(error).__name__


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Makes DataError of whatever a damaged file raises."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: {what} does not fit in memory") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot read {what}: {one_line(error)}") from error


class _Header(NamedTuple):
    """What the head of a .npy file says; ``start`` is where its numbers begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


class FileKind(NamedTuple):
    """One kind of .npz file of this package: what messages call it, and the names that its arrays may have."""

    what: str
    arrays: re.Pattern[str]


class Archive:
    """The arrays of an .npz file, read when they are asked for. A context manager.

    Parameters
    ----------
    path : Path
    kind : FileKind, optional
        The kind of file that it has to be, by default any.
    most : int, optional
        Bytes that all arrays may have together, for files with compressed members; by default what deflated bytes can
        stand for.

    Raises
    ------
    DataError
        For anything but an archive of stored or deflated .npy members, each of its own name and place in the file, and
        of sizes that the bytes of the file can have.
    """

    def __init__(self, path: Path, *, kind: FileKind | None = None, most: int | None = None) -> None:
        self._path = path
        if path.is_dir():
            raise DataError(f"{path}: is a folder; name the .npz file in it")
        if not path.is_file():
            raise DataError(f"no such file: {path}")
        with _reading(path, "its directory"):
            self._stream = path.open("rb")
        try:
            with _reading(path, "its directory"):
                self._size = self._stream.seek(0, io.SEEK_END)
                self._check_directory()
                self._zip = zipfile.ZipFile(self._stream)
                self._members = self._checked(self._zip.infolist(), kind, most)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()
        self._stream.close()

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in their order in the directory."""
        return list(self._members)

    def array(self, name: str) -> Array:
        """One array, in memory."""
        info = self._members[name]
        with _reading(self._path, name), self._zip.open(info) as member:
            header = _read_header(self._path, name, member, info.file_size)
            numbers = np.empty(math.prod(header.shape), header.dtype)
            read_into(member, numbers)
            return _checked_values(self._path, name, numbers, header)

    def arrays(self) -> dict[str, Array]:
        """All arrays."""
        return {name: self.array(name) for name in self._members}

    def _check_directory(self) -> None:
        """Raises DataError unless the file begins and ends as a zip archive does, with a directory of bounded size."""
        self._stream.seek(max(0, self._size - _END - _END_64))
        tail = self._stream.read()
        end, before = tail[-_END:], tail[:-_END]
        self._stream.seek(0)
        if self._stream.read(2) != b"PK" or end[:4] != b"PK\5\6" or end[-2:] != b"\0\0":
            raise DataError(
                f"{self._path}: not an .npz file: cut short, or another kind of file (an .npz is a zip archive)"
            )
        large = before[-20:-16] == b"PK\6\7" and before[-_END_64:][:4] == b"PK\6\6"
        listed = int.from_bytes(before[-_END_64:][40:48] if large else end[12:16], "little")
        if listed > _LARGEST_DIRECTORY:
            raise DataError(f"{self._path}: its directory has {listed} bytes, more than {_LARGEST_DIRECTORY}")

    def _checked(
        self, infos: list[zipfile.ZipInfo], kind: FileKind | None, most: int | None
    ) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name == info.filename or len(name) > _LONGEST_NAME:
                raise DataError(f"{self._path}: has a member {info.filename[:_LONGEST_NAME]!r}, which is no array")
            if kind is not None and not kind.arrays.fullmatch(name):
                raise DataError(f"{self._path}: not {kind.what}: such a file has no array {name!r}")
            if name in members:
                raise DataError(f"{self._path}: has an array {name!r} twice")
            refusal = _refusal(info)
            if refusal is not None:
                raise DataError(f"{self._path}: the member {info.filename!r} {refusal}")
            members[name] = info
        placed = sorted(members.values(), key=lambda info: info.header_offset)
        starts = [*(info.header_offset for info in placed), self._size]
        for info, start in zip(placed, starts[1:], strict=True):
            if info.header_offset < 0 or info.header_offset + _LOCAL + info.compress_size > start:
                raise DataError(f"{self._path}: the member {info.filename!r} overlaps what comes after it")
        total = sum(info.file_size for info in members.values())
        if most is not None and total > max(most, self._size):
            raise DataError(f"{self._path}: its arrays would have {total} bytes; such a file has at most {most}")
        return members


def _refusal(info: zipfile.ZipInfo) -> str | None:
    """Why a member cannot be what this package reads; None where it can."""
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is neither stored nor deflated (method {info.compress_type})"
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if info.file_size > (DEFLATE_RATIO if deflated else 1) * info.compress_size:
        return f"promises {info.file_size} bytes, which its {info.compress_size} cannot hold"
    return None


def map_npy(path: Path) -> Array:
    """The array of a .npy file, mapped into memory, not read. Raises DataError."""
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if path.suffix.lower() != ".npy":
        raise DataError(f"{path}: not a .npy file")
    with _reading(path, "the array"), path.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        header = _read_header(path, "the array", stream, size)
        numbers = np.memmap(stream, header.dtype, "r", header.start, (math.prod(header.shape),))
        return _checked_values(path, "the array", numbers, header)


def read_into(stream: IO[bytes], numbers: Array) -> None:
    """Fills ``numbers`` (n,) with all that is left of a stream, a piece at a time. Raises ValueError unless it fits."""
    raw = numbers.view(np.uint8).data if numbers.size else memoryview(b"")
    at = 0
    while at < len(raw):
        got = stream.readinto(raw[at : at + _CHUNK])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"it ends after {at} of {len(raw)} bytes")
        at += got
    if stream.read(1):
        raise ValueError(f"it goes on after the {len(raw)} bytes that its header promises")


def _read_header(path: Path, name: str, stream: IO[bytes], size: int) -> _Header:
    """The head of a .npy file of ``size`` bytes. Raises DataError for all but plain numbers and texts that fill it."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY":
        raise DataError(f"{path}: {name} is not a NumPy array")
    if start[6:] not in (b"\1\0", b"\2\0"):
        raise DataError(f"{path}: {name} is of .npy version {'.'.join(map(str, start[6:]))}, expected 1.0 or 2.0")
    counted = stream.read(2 if start[6] == 1 else 4)
    length = int.from_bytes(counted, "little")
    if length > _LONGEST_HEADER:
        raise DataError(f"{path}: {name} has a header of {length} bytes, more than {_LONGEST_HEADER}")
    text = stream.read(length).decode("latin1")
    found = _HEADER.fullmatch("".join(text.split()).replace('"', "'"))
    if found is None or None in found.groups():
        raise DataError(f"{path}: {name} is no plain array of numbers or texts ({text[:80]!r})")
    kind, fortran, sizes = found.group("kind", "fortran", "shape")
    if kind.lstrip("<>|=").startswith("O"):
        raise DataError(f"{path}: {name} holds Python objects (a pickle), which are never loaded")
    if kind.lstrip("<>|=")[0] not in "biufSU":
        raise DataError(f"{path}: {name} has dtype {kind}, expected real numbers, truth values or texts")
    try:
        dtype = np.dtype(kind)
    except TypeError as error:
        raise DataError(f"{path}: {name} has dtype {kind}, which NumPy does not know") from error
    shape = tuple(int(each.rstrip("L")) for each in sizes.split(",") if each)
    header = _Header(dtype, shape, fortran == "True", 8 + len(counted) + length)
    if len(shape) > _MOST_AXES or not dtype.itemsize or (not header.nbytes and max(shape) > _LARGEST_EMPTY_AXIS):
        raise DataError(f"{path}: {name} is {dtype} of shape {shape}, which no array of such a file has")
    if header.start + header.nbytes != size:
        promised = f"{header.nbytes} bytes ({dtype} of shape {shape})"
        raise DataError(f"{path}: {name} promises {promised}, {size - header.start} are there")
    return header


def _checked_values(path: Path, name: str, numbers: Array, header: _Header) -> Array:
    """``numbers`` (n,) in the shape of the header. Raises DataError for truth values and texts that are none."""
    if header.dtype.kind == "b" and numbers.view(np.uint8).max(initial=0) > 1:
        raise DataError(f"{path}: {name} holds bytes that are no truth values")
    if header.dtype.kind == "U":
        letters = numbers.view(np.dtype(np.uint32).newbyteorder(header.dtype.byteorder))
        if letters.max(initial=0) > sys.maxunicode:
            raise DataError(f"{path}: {name} holds numbers that are no letters")
    return numbers.reshape(header.shape[::-1]).transpose() if header.fortran else numbers.reshape(header.shape)
