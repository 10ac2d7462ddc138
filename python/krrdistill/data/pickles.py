"""Reads the pickles of the CIFAR archives without running anything that they name.

A pickle is a program: it names functions and has them called. The CIFAR files name a few, to rebuild one array of
bytes. So this is no unpickler, but a reader of the few operations that such files have, each with an inert value for
what it builds. Every other operation and name is refused, and so is a length beyond the file.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from krrdistill.common.archive import one_line
from krrdistill.errors import DataError

_MOST_OPERATIONS = 1 << 21  # a million suffice for 50000 images with their names
_LONGEST_INTEGER = 16  # bytes


class _Name(NamedTuple):
    """A name that the pickle asks for."""

    module: str
    name: str


class _Dtype:
    """Stands for a numpy.dtype: its type code. Byte order and alignment mean nothing for single bytes."""

    def __init__(self, code: str) -> None:
        self.code = code


class PickledBytes:
    """Stands for a numpy.ndarray: ``values`` is the uint8 array once its state has arrived."""

    def __init__(self) -> None:
        self.values: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)


_ARRAYS = (
    _Name("numpy.core.multiarray", "_reconstruct"),
    _Name("numpy._core.multiarray", "_reconstruct"),
    _Name("numpy", "ndarray"),
)
_DTYPE, _ENCODE = _Name("numpy", "dtype"), _Name("_codecs", "encode")


def read_pickled_dict(data: bytes) -> dict[Any, Any]:
    """The dict in a pickle of dicts, lists, numbers, text and uint8 arrays (as ``PickledBytes``).

    Python 2 byte strings come back as latin1 text. Raises DataError for anything else, and for damaged data.
    """
    try:
        content = _Reader(data).read()
    except (ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, struct.error) as error:
        raise DataError(f"not a pickle that can be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        kind = "type" if isinstance(content, _Name) else type(content).__name__
        raise DataError(f"the pickle holds a {kind}, expected a dict")
    return content


class _Reader:
    """The stack, the marks and the memo of one pickle; operations by their names in ``pickletools``."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """The value that the pickle leaves."""
        for _ in range(_MOST_OPERATIONS):
            byte = self._take(1)
            code = pickletools.code2op.get(byte.decode("latin1"))  # type: ignore[attr-defined]
            name = repr(byte) if code is None else code.name
            if name == "STOP":
                return self._stack.pop()
            if name not in _OPERATIONS:
                raise ValueError(f"operation {name} at byte {self._at - 1} is none that such files have")
            _OPERATIONS[name](self)
        raise ValueError(f"it has more than {_MOST_OPERATIONS} operations")

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise EOFError(f"{count} bytes are promised at byte {self._at}, {len(self._data) - self._at} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def _line(self) -> str:
        end = self._data.index(b"\n", self._at)
        return self._take(end + 1 - self._at)[:-1].decode("utf-8")

    def number(self, form: str) -> Any:
        """The next number, as ``struct`` calls it."""
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self._stack.append(value)

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _last(self, count: int) -> list[Any]:
        if count > len(self._stack) - (self._marks[-1] if self._marks else 0):
            raise IndexError("the stack is empty")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def mark(self) -> None:
        """MARK."""
        self._marks.append(len(self._stack))

    def integer(self) -> None:
        """LONG1."""
        count = self.number("B")
        if count > _LONGEST_INTEGER:
            raise ValueError(f"an integer of {count} bytes")
        self.push(int.from_bytes(self._take(count), "little", signed=True))

    def text(self, form: str, encoding: str) -> None:
        """A text, or Python 2's bytes, after its length."""
        self.push(self._take(self.number(form)).decode(encoding, "strict"))

    def raw(self, form: str) -> None:
        """Bytes after their length."""
        self.push(self._take(self.number(form)))

    def remember(self, form: str | None) -> None:
        """BINPUT and its like, MEMOIZE."""
        self._memo[len(self._memo) if form is None else self.number(form)] = self._stack[-1]

    def recall(self, form: str) -> None:
        """BINGET and its like."""
        self.push(self._memo[self.number(form)])

    def group(self, count: int | None) -> None:
        """TUPLE and its like."""
        self.push(tuple(self._since_mark() if count is None else self._last(count)))

    def append(self, single: bool) -> None:
        """APPEND, APPENDS."""
        values = self._last(1) if single else self._since_mark()
        _expect(self._stack[-1], list).extend(values)

    def assign(self, single: bool) -> None:
        """SETITEM, SETITEMS. Keys are texts, whose hash takes no time."""
        values = self._last(2) if single else self._since_mark()
        target = _expect(self._stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_expect(key, str)] = value

    def name(self, module: str | None = None, name: str | None = None) -> None:
        """GLOBAL, STACK_GLOBAL."""
        if module is None or name is None:
            module, name = self._line(), self._line()
        asked = _Name(module, name)
        if asked not in (*_ARRAYS, _DTYPE, _ENCODE):
            raise ValueError(f"it asks for {module[:80]}.{name[:80]}, which is not allowed")
        self.push(asked)

    def name_on_stack(self) -> None:
        """STACK_GLOBAL."""
        module, name = self._last(2)
        self.name(_expect(module, str), _expect(name, str))

    def call(self) -> None:
        """REDUCE."""
        function, arguments = self._last(2)
        given = _expect(arguments, tuple)
        if function in _ARRAYS[:2]:
            self.push(PickledBytes())
        elif function == _DTYPE:
            self.push(_Dtype(_expect(given[0], str)))
        elif function == _ENCODE:
            text, encoding = (_expect(each, str) for each in given)
            if encoding != "latin1":
                raise ValueError(f"text in encoding {encoding[:20]!r}, expected 'latin1'")
            self.push(text.encode("latin1"))
        else:
            raise ValueError(f"it calls a {type(function).__name__}")

    def build(self) -> None:
        """BUILD: the state of an array; that of a dtype says nothing of single bytes."""
        (state,) = self._last(1)
        target = self._stack[-1]
        if isinstance(target, _Dtype):
            return
        _, shape, dtype, fortran, raw = _expect(state, tuple)
        code = _expect(dtype, _Dtype).code
        if code not in ("u1", "|u1"):
            raise ValueError(f"array of type {code[:20]!r}, expected bytes ('u1')")
        raw = raw.encode("latin1") if isinstance(raw, str) else _expect(raw, bytes)
        sizes = [_expect(size, int) for size in _expect(shape, tuple)]
        if len(sizes) > 2 or min(sizes, default=0) < 0 or math.prod(sizes) != len(raw):
            raise ValueError(f"an array with {len(sizes)} axes, whose {len(raw)} bytes do not fill it")
        values = np.frombuffer(raw, dtype=np.uint8)
        _expect(target, PickledBytes).values = values.reshape(sizes, order="F" if fortran is True else "C")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


# Protocols 2 and 4 of the values that the CIFAR files have.
_OPERATIONS: dict[str, Callable[[_Reader], Any]] = {
    "PROTO": lambda reader: reader.number("B"),
    "FRAME": lambda reader: reader.number("<Q"),
    "MARK": _Reader.mark,
    "NONE": lambda reader: reader.push(None),
    "NEWTRUE": lambda reader: reader.push(True),
    "NEWFALSE": lambda reader: reader.push(False),
    "BININT": lambda reader: reader.push(reader.number("<i")),
    "BININT1": lambda reader: reader.push(reader.number("B")),
    "BININT2": lambda reader: reader.push(reader.number("<H")),
    "LONG1": _Reader.integer,
    "BINFLOAT": lambda reader: reader.push(reader.number(">d")),
    "SHORT_BINSTRING": lambda reader: reader.text("B", "latin1"),
    "BINSTRING": lambda reader: reader.text("<i", "latin1"),
    "SHORT_BINUNICODE": lambda reader: reader.text("B", "utf-8"),
    "BINUNICODE": lambda reader: reader.text("<I", "utf-8"),
    "SHORT_BINBYTES": lambda reader: reader.raw("B"),
    "BINBYTES": lambda reader: reader.raw("<I"),
    "BINPUT": lambda reader: reader.remember("B"),
    "LONG_BINPUT": lambda reader: reader.remember("<I"),
    "MEMOIZE": lambda reader: reader.remember(None),
    "BINGET": lambda reader: reader.recall("B"),
    "LONG_BINGET": lambda reader: reader.recall("<I"),
    "EMPTY_DICT": lambda reader: reader.push({}),
    "EMPTY_LIST": lambda reader: reader.push([]),
    "EMPTY_TUPLE": lambda reader: reader.push(()),
    "TUPLE": lambda reader: reader.group(None),
    "TUPLE1": lambda reader: reader.group(1),
    "TUPLE2": lambda reader: reader.group(2),
    "TUPLE3": lambda reader: reader.group(3),
    "APPEND": lambda reader: reader.append(True),
    "APPENDS": lambda reader: reader.append(False),
    "SETITEM": lambda reader: reader.assign(True),
    "SETITEMS": lambda reader: reader.assign(False),
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name_on_stack,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.build,
}
