"""Mutations of files: of their bytes, and of what is inside of archives, gzip streams, arrays and JSON.

What is changed inside is packed again with the sums and lengths that fit, so that the change reaches the code behind
the checks of the packing; a part of the packings then lies in one field.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["mutated"]

T = TypeVar("T")
INTERESTING = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
WORDS = (
    "0",
    "-1",
    "1e999",
    "NaN",
    "10000000",
    "9" * 40,
    "1.5",
    "null",
    "true",
    "[]",
    "{}",
    '"\\ud800"',
    '"\\u001b[31m"',
)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e308, 1e-308, 1e160)
KINDS = ("<f4", "<f8", "<i8", "|u1", "|b1", ">f8", "<U3", "|S2", "<c16", "<M8[s]", "<f2", "<u8", "<i1", "<U1")
LIES = ("|O", "<U0", "<f3", "V8", "<U999999999", "f8", "<f8,<i4", "[('a', '<f8')]", "|b8", "<g", "")
SIZES = (0, 1, 2, 3, 4, 40)
_DIGEST = b"digest.npy"  # of a file's content: without it, as older files are, a change reaches what comes after
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
# Fields of the records of a zip archive that may lie: offset and bytes.
_LOCAL_FIELDS = ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))
_CENTRAL_FIELDS = ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))
_END_FIELDS = ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))
_BLOCK = 512  # of a tar archive
_TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155))
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def mutated(content: bytes, seeds: Sequence[bytes], rng: Random, words: Sequence[bytes] = ()) -> bytes:
    """One mutation or two, of what is inside of a file more often than of its bytes.

    ``words`` : what the format gives a meaning to, to be put in anywhere.
    """
    for _ in range(1 if rng.random() < 0.85 else 2):
        content = _once(content, seeds, rng, words)
    return content


def _once(content: bytes, seeds: Sequence[bytes], rng: Random, words: Sequence[bytes]) -> bytes:
    if rng.random() < 0.75:
        if content[:2] == b"PK":
            found = _zip_changed(content, rng)
        elif content[:6] == b"\x93NUMPY":
            found = _npy_changed(content, rng)
        elif content[:2] == b"\x1f\x8b":
            found = _gzip_changed(content, rng, words)
        elif content[257:262] == b"ustar":
            found = _tar_changed(content, rng, words)
        elif content[:1] in (b"{", b"["):
            found = _json_changed(content.decode("utf-8", "replace"), rng).encode("utf-8", "replace")
        else:
            found = None
        if found is not None:
            return found
    return _bytes_changed(content, _pick(seeds, rng), rng, words)


def _pick(values: Sequence[T], rng: Random) -> T:
    """As ``rng.choice``, at a third of its time."""
    return values[int(rng.random() * len(values))]


# ---- archives


class _Member(NamedTuple):
    name: bytes
    body: bytes
    crc: int


@lru_cache(maxsize=1024)
def _members(content: bytes) -> tuple[_Member, ...]:
    """Of a zip archive; none where it cannot be read, or is large."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > 1 << 20:
                return ()
            return tuple(_Member(info.filename.encode(), archive.read(info), info.CRC) for info in infos)
    except Exception:
        return ()


def _zip_changed(content: bytes, rng: Random) -> bytes | None:
    """The same archive with a member, or its entry in the directory, changed, and everything else made to fit."""
    members = list(_members(content))
    if not members:
        return None
    if rng.random() < 0.5:
        members = [each for each in members if each.name != _DIGEST] or members
    at, choice, packed = int(rng.random() * len(members)), rng.random(), {}
    name, body, crc = members[at]
    if choice < 0.05:
        members.append(_Member(_pick((name, b"extra.npy", b"a", b"../x.npy", b"x\x1b[31m.npy"), rng), body, crc))
    elif choice < 0.1:
        del members[at]
    elif choice < 0.15:
        members[at] = _Member(name, *_pick(members, rng)[1:])
    elif choice < 0.9:
        body = _npy_changed(body, rng) or _bytes_changed(body, body, rng, ())
        members[at] = _Member(name, body, zlib.crc32(body))
    method = rng.random()
    if method < 0.3 and at < len(members):
        packed[at] = _packed(members[at].body, method)
    lies = choice >= 0.9 or rng.random() < 0.05
    return _zipped(members, packed, rng if lies else None)


def _packed(body: bytes, choice: float) -> tuple[int, bytes]:
    """The method and the bytes of a compressed member: deflated, seldom by a method that no reader takes."""
    if choice < 0.005:
        return zipfile.ZIP_BZIP2, bz2.compress(body, 1)
    if choice < 0.007:
        return zipfile.ZIP_LZMA, b"\x09\x04\x05\x00]\x00\x00\x80\x00" + lzma.compress(body, lzma.FORMAT_ALONE)[13:]
    pressed = zlib.compressobj(1, zlib.DEFLATED, -15)
    return zipfile.ZIP_DEFLATED, pressed.compress(body) + pressed.flush()


def _zipped(members: Sequence[_Member], packed: dict[int, tuple[int, bytes]], liar: Random | None) -> bytes:
    """A zip archive of them, ``packed`` in other ways than stored; with ``liar``, one field of a record is changed."""
    written, directory, listed = bytearray(), bytearray(), []
    fields: list[tuple[int, tuple[tuple[int, int], ...]]] = []
    for number, (name, body, crc) in enumerate(members):
        method, inside = packed.get(number, (0, body))
        start, sizes = len(written), (crc, len(inside), len(body))
        fields.append((start, _LOCAL_FIELDS))
        written += _LOCAL.pack(b"PK\3\4", 20, 0, method, 0, 33, *sizes, len(name), 0) + name + inside
        extra = b""
        if liar is not None and liar.random() < 0.1:  # numbers of 64 bits, one of them perhaps another
            large = [len(body), len(inside), start]
            large[int(liar.random() * 3)] = _pick((*large, *INTERESTING), liar)
            extra, sizes, start = struct.pack("<2H3Q", 1, 24, *large), (crc, 0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF
        listed.append(len(directory))
        rest = (len(name), len(extra), 0, 0, 0, 0, start)
        directory += _CENTRAL.pack(b"PK\1\2", 20, 20, 0, method, 0, 33, *sizes, *rest) + name + extra
    fields += [(len(written) + at, _CENTRAL_FIELDS) for at in listed]
    fields.append((len(written) + len(directory), _END_FIELDS))
    counts = (len(members), len(members), len(directory), len(written), 0)
    written += directory + _END.pack(b"PK\5\6", 0, 0, *counts)
    if liar is not None:
        start, among = _pick(fields, liar)
        at, width = _pick(among, liar)
        told = int.from_bytes(written[start + at : start + at + width], "little")
        number = _pick((told + 1, told - 1, told ^ 1 << int(liar.random() * 8 * width), _pick(INTERESTING, liar)), liar)
        written[start + at : start + at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(written)


def _gzip_changed(content: bytes, rng: Random, words: Sequence[bytes]) -> bytes | None:
    inner = _unzipped(content)
    if inner is None:
        return None
    if inner[257:262] == b"ustar" and rng.random() < 0.8:
        inner = _tar_changed(inner, rng, words)
    else:
        inner = _bytes_changed(inner, inner, rng, words)
    return gzip.compress(inner, compresslevel=1, mtime=0)


@lru_cache(maxsize=1024)
def _unzipped(content: bytes) -> bytes | None:
    try:
        inner = zlib.decompressobj(31).decompress(content, 1 << 20)
    except zlib.error:
        return None
    return inner if len(inner) < 1 << 20 else None


def _tar_changed(content: bytes, rng: Random, words: Sequence[bytes]) -> bytes:
    """A header changed, its sum made to fit; or the bytes of a file inside of the archive, its length kept or told."""
    headers = [at for at in range(0, len(content) - _BLOCK, _BLOCK) if content[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return _bytes_changed(content, content, rng, words)
    at = _pick(headers, rng)
    head = bytearray(content[at : at + _BLOCK])
    body = content[at + _BLOCK :]
    try:
        size = int(bytes(head[124:136]).strip(b"\0 ") or b"0", 8)
    except ValueError:
        size = 0
    if size and rng.random() < 0.6:
        inside = _bytes_changed(body[:size], body[:size], rng, words)
        body = inside + bytes(-len(inside) % _BLOCK) + body[size + -size % _BLOCK :]
        head[124:136] = b"%011o\0" % len(inside)
    else:
        start, width = _pick(_TAR_FIELDS, rng)
        if width == 1:
            head[start] = _pick(b"\x000123456789LKSxgX", rng)
        else:
            numbers = [b"%o" % number for number in INTERESTING]
            value = _pick((*numbers, b"\x80" + b"\xff" * 11, b"../../x", b"", bytes(head[start : start + width])), rng)
            head[start : start + width] = value[:width].ljust(width, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return content[:at] + bytes(head) + body


# ---- arrays


@lru_cache(maxsize=4096)
def _array(body: bytes) -> npt.NDArray[Any] | None:
    """Of the bytes of a .npy file; None where they are none, or large."""
    if len(body) > 1 << 18:
        return None
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception:
        return None
    if array.dtype.kind == "U":  # it may hold numbers that are no letters
        numbers = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        return array if numbers.max(initial=0) <= sys.maxunicode else None
    return array


def _npy_changed(body: bytes, rng: Random) -> bytes | None:
    """A .npy file whose header or numbers changed; the text of a JSON member as text."""
    array = _array(body)
    if array is None:
        return None
    kind, choice = array.dtype, rng.random()
    if kind.kind == "U" and array.ndim == 0 and choice < 0.8:
        text = _json_changed(str(array), rng)
        return _npy(f"'<U{max(len(text), 1)}'", False, (), text.encode("utf-32-le", "surrogatepass") or bytes(4))
    if choice < 0.25 and array.size and kind.kind == "f":
        array = array.copy()
        array.flat[int(rng.random() * array.size)] = _pick(FLOATS, rng)
    elif choice < 0.45:
        array = _reshaped(array, rng)
    elif choice < 0.6:
        array = np.zeros(tuple(_pick(SIZES, rng) for _ in range(int(rng.random() * 4))), _pick(KINDS, rng))
    elif choice < 0.8:
        return _lying(array, rng)
    else:
        return _bytes_changed(body[:128], body, rng, ()) + body[128:]
    return _npy(f"'{array.dtype.str}'", False, array.shape, array.tobytes())


def _reshaped(array: npt.NDArray[Any], rng: Random) -> npt.NDArray[Any]:
    """The same numbers in another shape or type: such files pass all checks but those of their meaning."""
    choice = rng.random()
    if choice < 0.3 and array.dtype.kind in "biuf":
        with np.errstate(all="ignore"):
            return array.astype(_pick(("<f4", "<f8", "<i8", "|u1", "|b1", ">f8", "<f2"), rng))
    if choice < 0.6 and array.ndim:
        kept = array[: int(rng.random() * (len(array) + 1))]
        return kept if choice < 0.45 else np.concatenate([array, kept])
    return array.T if choice < 0.7 else array.ravel() if choice < 0.85 else array[None]


def _lying(array: npt.NDArray[Any], rng: Random) -> bytes:
    """The same bytes under another header."""
    kind, shape = f"'{array.dtype.str}'", list(array.shape)
    choice = rng.random()
    if choice < 0.4:
        kind = _pick([f"'{each}'" if each[:1] != "[" else each for each in (*KINDS, *LIES)], rng)
    elif choice < 0.8 and shape:
        shape[int(rng.random() * len(shape))] = _pick((*INTERESTING, -1), rng)
    else:
        shape.append(_pick((*INTERESTING, -1), rng))
    return _npy(kind, rng.random() < 0.3, tuple(shape), array.tobytes())


def _npy(kind: str, fortran: bool, shape: tuple[int, ...], numbers: bytes) -> bytes:
    head = f"{{'descr': {kind}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode("latin1", "replace")
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", min(len(head), 65535)) + head + numbers


# ---- texts


@lru_cache(maxsize=4096)
def _tokens(text: str) -> tuple[tuple[int, int], ...]:
    return tuple(found.span() for found in _TOKEN.finditer(text))


def _json_changed(text: str, rng: Random) -> str:
    """A JSON text with some of its values replaced, left out or moved, or with its letters changed."""
    choice, tokens = rng.random(), _tokens(text)
    if choice < 0.1 or not tokens:
        return _bytes_changed(text.encode("utf-8", "replace"), b"", rng, ()).decode("latin1")
    if choice < 0.35:
        changed = _rearranged(text, rng)
        if changed is not None:
            return changed
    for _ in range(int(rng.random() * 3) + 1):
        start, end = _pick(tokens, rng)
        put = _pick(WORDS, rng) if rng.random() < 0.7 else text[slice(*_pick(tokens, rng))]
        text = text[:start] + put + text[end:]
        tokens = _shifted(tokens, start, len(put) - (end - start))
    return text


def _shifted(tokens: tuple[tuple[int, int], ...], start: int, by: int) -> tuple[tuple[int, int], ...]:
    """Where the tokens are after the one at ``start`` became longer ``by`` letters."""
    return tuple((a + by, b + by) if a > start else (a, b + by) if a == start else (a, b) for a, b in tokens)


def _rearranged(text: str, rng: Random) -> str | None:
    """With members of objects and lists left out, or in other places; None where the text is no JSON."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    places = list(_places(document))
    for _ in range(int(rng.random() * 3) + 1):
        if not places:
            break
        holder, key = _pick(places, rng)
        try:
            if rng.random() < 0.5:
                del holder[key]
            else:
                holder[key] = _pick(places, rng)[0]
        except (KeyError, IndexError):
            continue
    try:
        return json.dumps(document)
    except (ValueError, RecursionError):  # it holds itself
        return "[" * _pick((65, 1000, 100000), rng)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(pairs):
        yield value, key
        yield from _places(each)


def _bytes_changed(content: bytes, other: bytes, rng: Random, words: Sequence[bytes]) -> bytes:
    """Some bytes changed, moved, repeated, left out, or taken from another file."""
    changed = bytearray(content)
    for _ in range(_pick((1, 1, 1, 2, 4, 16), rng)):
        at, length = int(rng.random() * (len(changed) + 1)), _pick((1, 2, 4, 8, 32, 256), rng)
        left_out, put = _pick(_CHANGES, rng)(bytes(changed[at : at + length]), other, words, rng)
        changed[at : at + left_out] = put
    if rng.random() < 0.03:
        del changed[int(rng.random() * len(changed)) :]
    return bytes(changed)


# How many bytes are left out, and what comes in their place; given those that are there, another file, words.


def _another(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    return 1, bytes([int(rng.random() * 256)])


def _flipped(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    return 1, bytes([here[0] ^ 1 << int(rng.random() * 8)]) if here else b""


def _number(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    width = _pick((1, 2, 4, 8), rng)
    number = _pick(INTERESTING, rng) % (1 << 8 * width)
    return width, number.to_bytes(width, "little" if rng.random() < 0.5 else "big")


def _nothing(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    return len(here), b""


def _repeated(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    return 0, here * _pick((1, 2, 16), rng)


def _of_other(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    start = int(rng.random() * (len(other) + 1))
    return len(here), other[start : start + len(here)]


def _word(here: bytes, other: bytes, words: Sequence[bytes], rng: Random) -> tuple[int, bytes]:
    return 0, _pick(words, rng) if words and rng.random() < 0.7 else _pick(WORDS, rng).encode()


_CHANGES = (_another, _flipped, _number, _nothing, _repeated, _of_other, _word)
