"""Hostile files: refused with a DataError that names file and member, and before they cost memory or time."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import krrdistill as kd
from data_files import idx_bytes, python2_pickle, tiny_images, write_cifar_python, write_npz
from krrdistill.apps.kip.checkpoint import State, load_checkpoint, save_checkpoint
from krrdistill.apps.privacy import PrivacyBudget, ledger
from krrdistill.apps.report.run_folder import read_run
from krrdistill.artifact.file import read_points
from krrdistill.common.archive import Archive, map_npy
from krrdistill.common.documents import parse_json, read_bounded
from krrdistill.common.options import short_word
from krrdistill.data.formats import CIFAR_VERSIONS, read_cifar, read_idx
from krrdistill.data.pickles import read_pickled_dict
from krrdistill.errors import DataError
from krrdistill.maps.weights import drawn_for_a_file, most_drawn
from krrdistill.options import is_source_name
from krrdistill.ridge.feature_gram import largest_eigenvalue

MEMORY, SECONDS = 64 << 20, 20.0  # that a small file may cost; honest ones of these tests take a hundredth of either


@contextmanager
def refused(words: str, *names: str) -> Iterator[None]:
    """The block raises DataError with these words and names, without much memory or time."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(DataError, match=words) as caught:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for name in names:
        assert name in str(caught.value)
    assert len(str(caught.value)) < 600
    assert peak < MEMORY
    assert time.monotonic() - began < SECONDS


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_with(header: str, numbers: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with any header."""
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + numbers


def described(descr: str = "'<f8'", shape: str = "(2,)", fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def archive(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as written:
        for name, body in members:
            written.writestr(name, body)
    return path


def patched(path: Path, change: Callable[[bytearray, int, int], None]) -> Path:
    """The archive with the records of its first member changed: ``change(content, local, central)``."""
    content = bytearray(path.read_bytes())
    change(content, content.index(b"PK\3\4"), content.index(b"PK\1\2"))
    path.write_bytes(content)
    return path


def read(path: Path) -> Any:
    with Archive(path) as opened:
        return opened.arrays()


# ---- archives


def test_archive_round_trips_every_kind_of_array(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "f": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "text": np.array(["a", "\N{GREEK SMALL LETTER LAMDA}bc"]),
        "bytes": np.array([b"a", b"bc"]),
        "scalar": np.array(1.5),
        "empty": np.empty((0, 3)),
        "half": np.ones(2, np.float16),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_npy_round_trips_as_a_memory_map(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.uint8)), np.array(["a", "bc"])):
        np.save(tmp_path / "a.npy", array)
        found = map_npy(tmp_path / "a.npy")
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_member_of_another_compression_is_refused(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "a.npz", [("X.npy", npy(np.zeros(1 << 20)))], method)
    with refused("neither stored nor deflated", str(path), "X.npy"):
        read(path)


def test_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path / "a.npz", [("X.npy", npy(np.ones(2))), ("X.npy", npy(np.zeros(2)))])
    with refused("has an array 'X' twice", str(path)):
        read(path)


def test_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [("X.npy", npy(np.ones(2))), ("notes.txt", b"text")])
    with refused("has a member 'notes.txt', which is no array", str(path)):
        read(path)
    path = archive(tmp_path / "b.npz", [("X.npy", b"no array")])
    with refused("X is not a NumPy array", str(path)):
        read(path)


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    def encrypt(content: bytearray, local: int, central: int) -> None:
        content[local + 6] |= 1
        content[central + 8] |= 1

    path = patched(archive(tmp_path / "a.npz", [("X.npy", npy(np.ones(2)))]), encrypt)
    with refused("the member 'X.npy' is encrypted", str(path)):
        read(path)


def test_archive_of_a_later_zip_version_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [("X.npy", npy(np.ones(2)))])
    with refused("cannot read its directory: zip file version 25.5", str(path)):
        read(patched(path, lambda content, _, central: content.__setitem__(central + 6, 255)))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_member_that_promises_more_than_its_bytes_hold_is_refused(tmp_path: Path, method: int) -> None:
    def promise(content: bytearray, local: int, central: int) -> None:
        for at in (local + 22, central + 24):
            content[at : at + 4] = struct.pack("<I", 1 << 30)

    path = patched(archive(tmp_path / "a.npz", [("X.npy", npy(np.ones(2)))], method), promise)
    with refused("the member 'X.npy' promises 1073741824 bytes, which its", str(path)):
        read(path)


def test_members_in_the_same_place_are_refused(tmp_path: Path) -> None:
    body = npy(np.ones(200))
    path = archive(tmp_path / "a.npz", [("X.npy", body), ("Y.npy", body)])

    def share(content: bytearray, local: int, central: int) -> None:
        second = content.index(b"PK\1\2", central + 4)
        content[second + 42 : second + 46] = content[central + 42 : central + 46]

    with refused("overlaps what comes after it", str(path)):
        read(patched(path, share))


def test_directory_of_many_entries_is_refused_unread(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [(f"{'n' * 150}{number}.npy", b"") for number in range(6000)])
    with refused("its directory has .* bytes, more than", str(path)):
        read(path)


def test_compressed_file_of_ours_unpacks_to_a_bounded_size(tmp_path: Path) -> None:
    zeros = np.zeros(1 << 27, np.uint8)
    np.savez_compressed(tmp_path / "h.npz", X=zeros, y=zeros, sample_weight=zeros)
    with refused("its arrays would have 402653568 bytes", "h.npz"):
        kd.HeldOutRows.load(tmp_path / "h.npz")


HEADERS: dict[str, tuple[bytes, str]] = {
    "pickle": (npy_with(described("'|O'"), bytes(16)), "holds Python objects"),
    "structure": (npy_with(described("[('a', '<f8')]"), bytes(16)), "no plain array of numbers or texts"),
    "complex": (npy(np.ones(1, complex)), "has dtype <c16, expected real numbers"),
    "dates": (npy(np.zeros(2, "M8[s]")), "no plain array of numbers or texts"),
    "unknown type": (npy_with(described("'<f3'"), bytes(6)), "has dtype <f3, which NumPy does not know"),
    "tokens": (npy_with("{'descr': '<f8', 'shape': (2, 'fortran_order'"), "no plain array"),
    "nested": (npy_with(described(shape="(" * 1500 + ")" * 1500)), "no plain array"),
    "minus signs": (npy_with(described(shape="-" * 3000 + "1")), "no plain array"),
    "long": (npy_with(described() + " " * 9000, bytes(16)), "has a header of .* bytes, more than 4096"),
    "endless": (npy_with("", b"", 2)[:8] + b"\xff\xff\xff\x7f", "has a header of 2147483647 bytes"),
    "version": (b"\x93NUMPY\x03\x00" + bytes(8), "is of .npy version 3.0"),
    "negative": (npy_with(described(shape="(-1, -2)"), bytes(16)), "no plain array"),
    "huge": (npy_with(described(shape="(1000000000, 1000)")), "promises 8000000000000 bytes .* 0 are there"),
    "huge letters": (npy_with(described("'<U99999999'", "()")), "promises 399999996 bytes"),
    "no bytes": (npy_with(described(shape="(9223372036854775807, 0)")), "which no array of such a file has"),
    "no letters": (npy_with(described("'<U0'", "(1000000000,)")), "which no array of such a file has"),
    "axes": (npy_with(described(shape=f"({'1, ' * 60})"), bytes(8)), "which no array of such a file has"),
    "short": (npy(np.ones(9))[:-8], "promises 72 bytes .* 64 are there"),
    "trailing": (npy(np.ones(9)) + b"more", "promises 72 bytes .* 76 are there"),
    "truth": (npy_with(described("'|b1'"), b"\1\2"), "holds bytes that are no truth values"),
    "letters": (npy_with(described("'<U1'"), b"\xff\xff\xff\xff" * 2), "holds numbers that are no letters"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_array_whose_header_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    body, words = HEADERS[name]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = archive(tmp_path / "a.npz", [("X.npy", body)], method)
        with refused(words, str(path), "X "):
            read(path)
    (tmp_path / "a.npy").write_bytes(body)
    with refused(words, "a.npy"):
        map_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "load", [kd.DistilledDataset.load, kd.RidgeStatistics.load, kd.RidgeModel.load, kd.HeldOutRows.load]
)
def test_file_of_ours_has_no_other_arrays(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones(2), stowaway=np.ones(2))
    with refused("not (a |ridge).*: such a file has no array", "a.npz"):
        load(tmp_path / "a.npz")


# ---- JSON


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100 + "]" * 100, "nested more than 64 deep"),
        ('{"a":' * 100 + "1" + "}" * 100, "nested more than 64 deep"),
        ("9" * 10_000, "is not JSON"),
        (" " * (1 << 25), "has 33554432 characters, more than"),
        ("NaN", "NaN is no JSON number"),
    ],
)
def test_json_that_is_no_document_of_ours_is_refused(text: str, words: str) -> None:
    with refused(words, "report.json"):
        parse_json("report.json", text, finite=True)


def test_json_of_ordinary_depth_is_read() -> None:
    text = "[" * 60 + "1" + "]" * 60
    assert parse_json("a", text) == json.loads(text)


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "report.json").open("wb") as stream:
        stream.truncate(1 << 33)
    with refused("has more than 16777216 bytes", "report.json"):
        read_bounded(tmp_path / "report.json")


# ---- maps of files


def small(phi: Any) -> Any:
    X = np.random.default_rng(0).standard_normal((30, 4))
    return kd.distill(X, np.arange(30) % 2, phi)


def edited(path: Path, member: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """The file with its JSON changed."""
    with np.load(path) as found:
        arrays = dict(found)
    document = json.loads(str(arrays[member]))
    change(document)
    arrays.pop("digest", None)
    np.savez(path, **{**arrays, member: np.array(json.dumps(document))})


@pytest.mark.parametrize("widths", [[10**8], [1] * 5000, [30_000, 30_000], [10**12]])
def test_weights_that_a_small_file_cannot_mean_are_not_drawn(tmp_path: Path, widths: list[int]) -> None:
    result = small(kd.FCNN(4, [4]))
    statistics = kd.RidgeStatistics(result.model.feature_map, classes=2).update(np.ones((9, 4)), np.arange(9) % 2)
    files: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "d.npz": ("meta", kd.DistilledDataset.load),
        "m.npz": ("header", kd.RidgeModel.load),
        "s.npz": ("header", kd.RidgeStatistics.load),
    }
    result.distilled.save(tmp_path / "d.npz", embed_map=False)
    result.model.save(tmp_path / "m.npz")
    statistics.save(tmp_path / "s.npz")
    for name, (member, load) in files.items():
        edited(tmp_path / name, member, lambda document: document["map"].update(widths=widths))
        with refused("random numbers is beyond what a file may ask for", name):
            load(tmp_path / name)


def test_map_of_other_features_than_the_arrays_is_refused_before_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = small(kd.FCNN(4, [4]))
    result.model.save(tmp_path / "m.npz")
    edited(tmp_path / "m.npz", "header", lambda document: document["map"].update(widths=[5], output_dim=5))

    def draw(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were drawn")

    monkeypatch.setattr("krrdistill.maps.fcnn.gaussian_weight", draw)
    with refused(r"W has shape \(2, 4\), the map 5 features", "m.npz"):
        kd.RidgeModel.load(tmp_path / "m.npz")


def test_map_that_would_not_be_drawn_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled = small(kd.FCNN(4, [4])).distilled
    monkeypatch.setattr("krrdistill.artifact.file._EMBED_LIMIT", 0)
    distilled.save(tmp_path / "a.npz")
    assert not any(name.startswith("map_") for name in read(tmp_path / "a.npz"))
    monkeypatch.setattr("krrdistill.artifact.file.most_drawn", lambda input_dim: 15)
    distilled.save(tmp_path / "a.npz")
    assert "map_weight_0" in read(tmp_path / "a.npz")


def test_weights_are_counted_against_what_a_file_may_ask_for() -> None:
    with drawn_for_a_file(4, stored=0):
        assert most_drawn(4) == 1 << 26
        kd.FCNN(4, [8])
        with refused("a layer of 100000000 random numbers"):
            kd.RandomFourier(4, 25_000_000, sigma2=1.0)
        with refused("a layer of 100000000 random numbers"):
            kd.RandomFourier(4, 1_000_000, sigma2=1.0, spectral="matern", nu=50.0)
    assert most_drawn(4096) == 1 << 28
    with drawn_for_a_file(4, stored=1 << 27), pytest.raises(DataError, match="beyond"):
        kd.FCNN(4, [1] * 4096)


@pytest.mark.parametrize("open_file", [kd.DistilledDataset.load, read_points])
def test_edited_arrays_of_a_distilled_set_are_refused(tmp_path: Path, open_file: Callable[[Path], Any]) -> None:
    small(kd.Identity(4)).distilled.save(tmp_path / "a.npz")
    whole = read(tmp_path / "a.npz")
    for name, array in whole.items():
        changed = {**whole, name: np.array("0" * 64) if name == "digest" else array}
        if name in ("X", "Y", "lambda_s", "input_squares"):
            changed[name] = array + 1e-3
        elif name == "meta":
            changed[name] = np.array(str(array).replace("krrdistill-2", "krrdistill-2").replace("{", "{ ", 1))
        elif name != "digest":
            continue
        np.savez(tmp_path / "a.npz", **changed)
        with refused("its content was changed after it was written", "a.npz"):
            open_file(tmp_path / "a.npz")


def test_gram_matrix_without_a_largest_eigenvalue_is_a_data_error() -> None:
    matrix = np.full((5, 5), 1.7e308)
    with np.errstate(over="ignore"), refused("the largest eigenvalue of 5 features cannot be found"):
        largest_eigenvalue(5, matrix.__matmul__)
    assert largest_eigenvalue(5, np.zeros((5, 5)).__matmul__) == 0.0
    assert largest_eigenvalue(1, np.array([[3.0]]).__matmul__) == 3.0


# ---- IDX


def test_compressed_idx_is_not_unpacked_beyond_its_header(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((1, 1, 1))) + bytes(200 << 20), mtime=0))
    with refused("it goes on after the 1 bytes that its header promises", str(path)):
        read_idx(path, ndim=3)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sizes", [(2**32 - 1, 2**32 - 1, 0), (2**32 - 1,) * 3, (1, 1, 10**9)])
def test_idx_that_promises_what_it_cannot_hold_is_refused(tmp_path: Path, compress: bool, sizes: Any) -> None:
    content = bytes((0, 0, 8, 3)) + struct.pack(">3I", *sizes) + bytes(10)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if compress else content)
    with refused(f"its header promises {sizes[0] * sizes[1] * sizes[2]}", str(path)):
        read_idx(path, ndim=3)


# ---- CIFAR


def read_archive(path: Path) -> Any:
    return read_cifar(path, CIFAR_VERSIONS["cifar10"][0], name="cifar10", class_names=tuple("0123456789"))


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("name", ["test_batch", "elsewhere"])
def test_tar_member_that_is_too_large_is_refused_unread(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_header(name, 3 << 30) + bytes(100 << 20), mtime=0))
    with refused(f"{name}' promises 3221225472 bytes", str(path)):
        read_archive(path)


def test_tar_of_many_members_is_bounded_in_all(tmp_path: Path) -> None:
    content = b"".join(tar_header(f"part{number}", 60 << 20) + bytes(60 << 20) for number in range(5))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content, 1, mtime=0))
    del content
    with refused("promises 62914560 bytes, which is too large|unpacks to more than", str(path)):
        read_archive(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_tar_header_that_is_too_large_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_header("x", 150 << 20, kind) + bytes(150 << 20), 1, mtime=0))
    with refused("has a header of 157286400 bytes", str(path)):
        read_archive(path)


@pytest.mark.parametrize("mode", ["w:xz", "w:bz2"])
def test_tar_of_another_compression_is_refused(tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", mode) as written:
        written.addfile(tarfile.TarInfo("x"))
    with refused("cannot be read", "a.tar.gz"):
        read_archive(tmp_path / "a.tar.gz")


def test_tar_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = write_cifar_python(tmp_path, "cifar10", tiny_images((32, 32, 3), n_train=10, n_test=1))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as written:
        for _ in range(2):
            written.add(folder / "test_batch", "cifar-10-batches-py/test_batch")
    with refused("test_batch is there twice", "a.tar.gz"):
        read_archive(tmp_path / "a.tar.gz")


PICKLES: dict[str, tuple[bytes, str]] = {
    "state of a function": (b"\x80\x02c_codecs\nencode\n}X\1\0\0\0aNsb.", "a dict where a tuple belongs"),
    "memo": (b"}r\xff\xff\xff\x1f0.", "operation POP"),
    "promised bytes": (b"\x80\x02B\xff\xff\xff\x7f.", "2147483647 bytes are promised at byte 7, 1 are left"),
    "negative length": (b"\x80\x02T\xff\xff\xff\xff.", "-1 bytes are promised"),
    "long integer": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "operation LONG4"),
    "integer": (b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".", "an integer of 255 bytes"),
    "hash": (b"}()q\0" + b"h\0h\0\x86q\0" * 60 + b"Nu.", "a tuple where a str belongs"),
    "copies": (b"]q\0" + b"h\0h\0e.", "pop from empty list"),
    "no operation": (b"\xff.", "operation b'\\\\xff' at byte 0"),
    "persistent": (b"\x80\x02Pid\n.", "operation PERSID"),
    "instance": (b"(iposix\nsystem\n.", "operation INST"),
    "shape": (
        python2_pickle({"data": np.zeros((1, 4), np.uint8)}).replace(b"J\4\0\0\0", b"J\5\0\0\0"),
        "whose 4 bytes do not fill it",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickle_of_other_operations_or_lengths_is_refused(name: str) -> None:
    content, words = PICKLES[name]
    with refused(f"not a pickle that can be read: .*({words})"):
        read_pickled_dict(content)


def test_pickle_of_too_many_operations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krrdistill.data.pickles._MOST_OPERATIONS", 1000)
    with refused("more than 1000 operations"):
        read_pickled_dict(b"N" * 5000)


def test_pickle_with_a_far_place_in_its_memo_costs_nothing(tmp_path: Path) -> None:
    folder = write_cifar_python(tmp_path, "cifar10", tiny_images((32, 32, 3), n_train=10, n_test=1))
    (folder / "batches.meta").write_bytes(b"}r\xff\xff\xff\x1f.")
    with refused("batches.meta: 'label_names' must be a list of class names", str(folder)):
        read_archive(folder)


# ---- data sets


def test_data_set_with_a_member_of_another_compression_is_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", tiny_images((3, 3), k=2))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as written:
        written.writestr("class_names.npy", npy(np.array(["a", "b"])))
    with refused(r"the member 'class_names\.npy' is neither stored nor deflated", str(path)):
        kd.load_dataset(path)


def test_memory_map_of_texts_that_are_none_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    (tmp_path / "y.npy").write_bytes(npy_with(described("'<U1'"), struct.pack("<2I", 97, 0x110000)))
    with refused("holds numbers that are no letters", str(tmp_path / "y.npy")):
        kd.read_samples(tmp_path / "x.npy", y=str(tmp_path / "y.npy"))


# ---- messages


def test_messages_and_tables_of_the_command_hold_no_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import output, status
    from krrdistill.apps.report.compare import Column, Fact
    from krrdistill.apps.reproduce.sections import Publication, Section, to_markdown

    assert status.message(DataError("a\x1b[31mb\x9b\n\rc")) == r"a\x1b[31mb\x9b c"
    nasty = "\x1b]0;title\x07"
    columns = (Column(Fact("dataset", "data set"), (nasty,)),)
    output.print_comparison(
        cast(Any, SimpleNamespace(names=[nasty], common=[("a", nasty)], columns=columns, inexact=[nasty]))
    )
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", capsys.readouterr().out) is None
    section = Section(name="n", title="T", text=("<b>",), head=("a",), rows=(("<script>alert(1)</script>",),))
    text = to_markdown(Publication(title="T", passed=True, verdict="V", sections=(section,)))
    assert re.search(r"(?<!\\)<", text) is None
    assert r"\<script>" in text


# What is no file, and files whose digest does not fit


def _cifar(path: Path) -> Any:
    return read_cifar(path, CIFAR_VERSIONS["cifar10"][0], name="cifar10", class_names=("a",))


def _charge(path: Path) -> Any:
    return ledger.charge(path, "a", 1, "output", PrivacyBudget(1.0, 1e-5), 0.1, None)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("report.json", lambda path: read_run(path.parent)),
        ("distilled.npz", kd.DistilledDataset.load),
        ("statistics.npz", kd.RidgeStatistics.load),
        ("held.npz", kd.HeldOutRows.load),
        ("x.npy", map_npy),
        ("x.idx", lambda path: read_idx(path, ndim=3)),
        ("cifar.tar.gz", _cifar),
        ("ledger.json", _charge),
        (".ledger.json.lock", lambda path: _charge(path.with_name("ledger.json"))),
        ("a.parquet", lambda path: kd.load_dataset(path, y="y")),
    ],
)
def test_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(
    tmp_path: Path, name: str, read: Callable[[Path], Any]
) -> None:
    os.mkfifo(tmp_path / name)
    with refused("is no plain file|no such file"):
        read(tmp_path / name)


def _sealed(folder: Path) -> dict[str, tuple[Any, str]]:
    """Objects that are saved with a digest, and an array of each."""
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    statistics = kd.RidgeStatistics(kd.Identity(3), classes=2).update(X, y)
    return {
        "statistics": (statistics, "cross"),
        "model": (kd.fit_model(statistics, 1.0), "W"),
        "held-out rows": (kd.HeldOutRows(X, y), "X"),
    }


@pytest.mark.parametrize("what", ["statistics", "model", "held-out rows"])
def test_file_with_a_changed_number_is_refused_and_one_without_digest_is_not(tmp_path: Path, what: str) -> None:
    made, name = _sealed(tmp_path)[what]
    path = tmp_path / "a.npz"
    made.save(path)
    type(made).load(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, name: arrays[name] + 1.0})
    with refused("content was changed after it was written", str(path)):
        type(made).load(path)
    del arrays["digest"]  # as older files are
    np.savez(path, **arrays)
    type(made).load(path)


# What fuzzing found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"map": 3}, "meta has map = '3'"),
        ({"map": None}, "meta has map = 'None'"),
        ({"options": []}, "meta has options"),
        ({"certificate": 1}, "meta has certificate"),
        ({"certificate": {"weight_relative_error": "a"}}, "meta has weight_relative_error = 'a' in certificate"),
        ({"n_train": "many"}, "meta has n_train"),
        ({"dataset": ["a"]}, "meta has dataset"),
        ({"map": {"layers": 3}}, "meta has layers = '3' in map"),
    ],
)
@pytest.mark.parametrize("read", [kd.DistilledDataset.load, read_points])
def test_distilled_file_with_a_fact_of_another_kind_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str, read: Callable[[Path], Any]
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "distilled.npz"
    kd.distill(rng.standard_normal((40, 3)), np.arange(40) % 2, kd.Identity(3), points_per_class=1).distilled.save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "digest"}
    meta = json.loads(str(arrays["meta"]))
    np.savez(path, **{**arrays, "meta": np.array(json.dumps({**meta, **change}))})
    with refused(re.escape(words)):
        read(path)
    del meta["map"]
    np.savez(path, **{**arrays, "meta": np.array(json.dumps(meta))})
    with refused("meta does not describe a map"):
        read(path)


def test_model_whose_place_on_its_path_is_infinite_is_refused(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    path = tmp_path / "model.npz"
    kd.fit_model(kd.RidgeStatistics(kd.Identity(3), classes=2).update(X, y), 1.0).save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "digest"}
    np.savez(path, **{**arrays, "path_best": np.array(np.inf)})
    with refused("not a file of a ridge model"):
        kd.RidgeModel.load(path)


def test_checkpoint_of_more_steps_than_a_run_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    save_checkpoint(path, State.start(np.ones((2, 3))), {})
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "digest"}
    losses = np.zeros(1 << 24, np.uint8)  # 16 MB that would be a list of 128
    np.savez_compressed(path, **{**arrays, "losses": losses, "curve": np.zeros((1, 4))})
    with refused("of more steps than a run has"):
        load_checkpoint(path, {}, np.ones((2, 3)))


def test_word_with_half_of_a_surrogate_pair_has_a_short_form() -> None:
    assert len(short_word("\ud800")) == 8


def test_data_set_at_the_home_of_nobody_is_no_folder() -> None:
    assert not is_source_name("~nobody-of-this-name")
    with pytest.raises(DataError):
        kd.load_dataset("~nobody-of-this-name/a.npz")
