"""Data sets: validation, the .npz reader, and every official file format."""

import gzip
import hashlib
import os
import pickle
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_files import (
    MakesFolder,
    hostile_pickle,
    idx_bytes,
    pack,
    planes,
    python2_pickle,
    tiny_images,
    write_cifar_binary,
    write_cifar_python,
    write_mnist,
    write_npz,
)
from krrdistill.data import Dataset, available_datasets, load_dataset
from krrdistill.data.class_names import CIFAR10, CIFAR100, DIGITS
from krrdistill.errors import BackendUnavailable, DataError

REAL_DATA = Path(os.environ.get("KRRDISTILL_DATA") or Path(__file__).parents[2] / "shared" / "data")


def make(**changes):
    """A valid data set of 8 vectors in 3 dimensions, with some of its fields replaced."""
    rng = np.random.default_rng(1)
    fields = {
        "name": "tiny",
        "x_train": rng.normal(size=(6, 3)),
        "y_train": np.array([0, 1, 0, 1, 0, 1]),
        "x_test": rng.normal(size=(2, 3)),
        "y_test": np.array([1, 0]),
        "class_names": ("no", "yes"),
    }
    return Dataset(**(fields | changes))


def assert_holds(dataset, arrays, *, name, class_names):
    assert (dataset.name, dataset.class_names) == (name, tuple(class_names))
    for field, expected in zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True):
        got = getattr(dataset, field)
        np.testing.assert_array_equal(got, expected, err_msg=field)
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert got.dtype == (np.int64 if field.startswith("y") else expected.dtype)


def message(error):
    """The text of an exception, which has to be one line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def assert_loads_or_refuses(name, **options):
    """Any exception but DataError, or one of several lines, fails."""
    try:
        text = repr(load_dataset(name, **options))
    except DataError as error:
        text = str(error)
    assert "\n" not in text


# Dataset


def test_dataset_properties():
    x = np.zeros((4, 5, 6, 3), np.uint8)
    dataset = Dataset("a", x, np.arange(4) % 2, x[:2], np.zeros(2, int), ["x", "y"])
    assert (dataset.shape, dataset.input_dim, dataset.n_classes) == ((5, 6, 3), 90, 2)
    assert dataset.class_names == ("x", "y")
    assert repr(dataset) == "Dataset('a', train 4, test 2, shape (5, 6, 3), uint8, 2 classes)"
    with pytest.raises(AttributeError):
        dataset.name = "b"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_inputs_keep_their_dtype_and_are_not_copied(dtype):
    x = np.arange(18).reshape(6, 3).astype(dtype)
    dataset = make(x_train=x, x_test=x[:2])
    assert dataset.x_train.dtype == dtype
    assert np.shares_memory(dataset.x_train, x)


@pytest.mark.parametrize(
    ("given_as", "stored_as"),
    [
        (np.array([[1.5]], np.float16), np.float32),
        (np.array([[-3]], np.int8), np.float32),
        (np.array([[True]]), np.float32),
        (np.array([[65535]], np.uint16), np.float32),
        (np.array([[2**24]], np.int64), np.float64),
        (np.array([[-(2**24) - 1]], np.int32), np.float64),
        (np.array([[2**53]], np.uint64), np.float64),
        (np.array([[1.5]], ">f8"), np.float64),
        (np.array([[1.5]], ">f4"), np.float32),
    ],
)
def test_other_input_types_are_converted_without_loss(given_as, stored_as):
    dataset = Dataset("a", given_as, np.zeros(1, int), given_as, np.zeros(1, int), ("a",))
    assert dataset.x_train.dtype == stored_as
    assert dataset.x_train.dtype.isnative
    assert dataset.x_train[:].dtype == stored_as
    assert dataset.x_train[:].item() == given_as.item()


def test_float32_and_float64_meet_in_float64():
    dataset = make(x_test=np.ones((2, 3), np.float32))
    assert dataset.x_test.dtype == dataset.x_train.dtype == np.float64


def test_strided_inputs_are_read_in_blocks_with_contiguous_rows():
    x = np.asfortranarray(np.arange(18.0).reshape(6, 3))
    block = make(x_train=x).x_train[1:5]
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, x[1:5])


def test_integers_beyond_2_to_the_53_are_refused_when_they_are_read():
    dataset = make(x_train=np.full((6, 3), 2**53 + 1), x_test=np.zeros((2, 3), np.int64))
    with pytest.raises(DataError, match=r"X holds integers beyond 2\*\*53"):
        dataset.x_train[:2]


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64, np.float16, np.float64, ">i4"])
def test_labels_of_every_whole_type_become_int64(dtype):
    y = np.array([0, 1, 0, 1, 0, 1]).astype(dtype)
    dataset = make(y_train=y)
    assert dataset.y_train.dtype == np.int64
    assert dataset.y_train.dtype.isnative
    np.testing.assert_array_equal(dataset.y_train, [0, 1, 0, 1, 0, 1])


def test_a_class_may_be_absent_from_test():
    assert make(y_test=np.array([0, 0])).n_classes == 2


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": 3}, TypeError, "name must be a string, got int"),
        ({"x_train": None}, TypeError, "x_train must be an array, got a NoneType"),
        ({"x_test": np.ma.masked_array([[1.0]])}, TypeError, "x_test is a masked array; fill or drop what is masked"),
        (
            {"x_train": np.zeros(6)},
            DataError,
            "x_train must be (n, ...) with at least one entry, got shape (6,)",
        ),
        ({"x_train": np.zeros((0, 3))}, DataError, "x_train .* shape (0, 3)"),
        ({"x_test": np.zeros((0, 3)), "y_test": np.zeros(0, int)}, DataError, "x_test .* shape (0, 3)"),
        ({"x_train": np.zeros((6, 0))}, DataError, "x_train .* shape (6, 0)"),
        ({"x_train": np.zeros((6, 3), complex)}, TypeError, "x_train must be a numeric array, got dtype complex128"),
        ({"x_train": np.full((6, 3), "a")}, TypeError, "x_train must be a numeric array, got dtype <U1"),
        ({"x_train": np.full((6, 3), None)}, TypeError, "x_train must be a numeric array, got dtype object"),
        ({"x_test": np.zeros((2, 4))}, DataError, "x_test has samples of shape (4,), x_train of (3,)"),
        ({"x_test": np.zeros((2, 3), np.uint8)}, DataError, "x_test is uint8 but x_train float64"),
        ({"y_train": [0, 1]}, DataError, "y_train must have one label for each of the 6 samples, got shape (2,)"),
        (
            {"y_train": np.ones((6, 6))},
            DataError,
            "y_test must have shape (2, 6), got (2,)",
        ),
        (
            {"y_test": np.zeros(3, int)},
            DataError,
            "y_test must have one label for each of the 2 .* shape (3,)",
        ),
        ({"y_train": np.array(list("aacacc"))}, DataError, "y_train holds the label .*a.* (row 0), which is no class"),
        ({"y_train": np.array([True] * 6)}, DataError, "y_train has no sample of 1 of 2 classes: 0"),
        (
            {"y_train": np.array([0, 1, 0, 1, 0, 0.5])},
            DataError,
            "y_train must hold whole numbers as labels, got 0.5 (row 5)",
        ),
        (
            {"y_train": np.array([0, 1, 0, 1, 0, np.nan])},
            DataError,
            "y_train must hold whole numbers as labels, got a missing value (NaN) (row 5)",
        ),
        (
            {"y_train": np.array([0, 1, 0, 1, 0, np.inf])},
            DataError,
            "y_train must hold whole numbers as labels, got inf (row 5)",
        ),
        ({"y_train": np.array([0, 1, 0, 1, 0, 2])}, DataError, "y_train holds the label 2, there are 2 classes"),
        ({"y_test": np.array([0, -1])}, DataError, "y_test holds the label -1, the classes are 0 ... 1"),
        (
            {"y_test": np.array([0, 2**63], np.uint64)},
            DataError,
            "y_test holds the label 9223372036854775808, there are 2 classes",
        ),
        ({"y_train": np.zeros(6, int)}, DataError, "y_train has no sample of 1 of 2 classes: 1"),
        ({"class_names": tuple("abcdefgh")}, DataError, "no sample of 6 of 8 classes: 2, 3, 4, 5, 6, ..."),
        ({"class_names": ("a",)}, DataError, "y_train holds the label 1, there are 1 classes"),
        ({"class_names": "ab"}, TypeError, "class_names must be a sequence of strings, got str"),
        ({"class_names": 2}, TypeError, "class_names must be a sequence of strings, got int"),
        ({"class_names": (0, 1)}, TypeError, "class_names must hold strings, got int"),
    ],
)
def test_dataset_refuses(changes, error, words):
    pattern = "Dataset: .*" + words.replace("(", r"\(").replace(")", r"\)").replace("...", r"\.\.\.")
    with pytest.raises(error, match=pattern) as caught:
        make(**changes)
    message(caught)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["x_train", "x_test"])
def test_nan_and_infinity_are_found_in_any_block(field, bad, dtype, monkeypatch):
    monkeypatch.setattr("krrdistill.common.rows._BLOCK_BYTES", 6 * np.dtype(dtype).itemsize)  # two rows in a block
    x = np.ones((7, 3), dtype)
    for row in range(7):
        broken = x.copy()
        broken[row, 1] = bad
        fields = {"x_train": x, "x_test": x, field: broken}
        with pytest.raises(DataError, match=f"{field} holds NaN or infinity, first in row {row}$"):
            make(**fields, y_train=np.array([0, 1, 0, 1, 0, 1, 0]), y_test=np.zeros(7, int))


def test_validation_makes_no_copy_of_the_inputs():
    x = np.ones((6000, 1024), np.float64)  # 49 MB
    y = np.arange(6000) % 2
    tracemalloc.start()
    make(x_train=x, y_train=y, x_test=x, y_test=y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 10


# .npz


def test_npz_round_trip_without_class_names(tmp_path):
    arrays = tiny_images((4, 5), k=3)
    path = write_npz(tmp_path / "small set.npz", arrays)
    for given_as in (path, str(path)):
        assert_holds(load_dataset(given_as), arrays, name="small set", class_names="012")


@pytest.mark.parametrize("kind", ["U", "S"])
def test_npz_class_names(tmp_path, kind):
    arrays = tiny_images((7,), k=3)
    path = write_npz(tmp_path / "a.npz", arrays, class_names=np.array(["cat", "dog", "ox"], dtype=kind), other=1)
    assert load_dataset(path).class_names == ("cat", "dog", "ox")


def test_npz_compressed_and_float_labels(tmp_path):
    x, y, x_test, y_test = tiny_images((7,), k=3)
    path = tmp_path / "a.NPZ"
    with path.open("wb") as file:
        np.savez_compressed(file, x_train=x / 2, y_train=y.astype(np.float32), x_test=x_test / 2, y_test=y_test)
    with pytest.raises(DataError, match=r"y_train holds whole numbers as float32, .* targets='classes'"):
        load_dataset(path)
    assert_holds(load_dataset(path, targets="classes"), (x / 2, y, x_test / 2, y_test), name="a", class_names="012")


def corrupt_member(path):
    """Flips one byte inside the data of the first and largest array."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)


def not_an_array(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("class_names.npy", b"not an array")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: (p.unlink(), p.mkdir()), "no such file"),
        (lambda p: p.write_bytes(b""), "not an .npz file: cut short"),
        (lambda p: p.write_text("x_train,y_train"), "not an .npz file: cut short"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "not an .npz file: cut short"),
        (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "not an .npz file: cut short"),
        (lambda p: p.write_bytes(b"\x93NUMPY" + p.read_bytes()), "not an .npz file"),
        (corrupt_member, "cannot read x_train: Bad CRC-32"),
        (not_an_array, "class_names is not a NumPy array"),
    ],
)
def test_npz_damaged(tmp_path, damage, words):
    path = write_npz(tmp_path / "a.npz", tiny_images((20, 20), k=3))
    damage(path)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(path)
    assert message(caught).startswith("load_dataset: ")
    assert str(path) in message(caught)


def test_npz_without_a_key_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.ones((2, 2)), y_train=np.zeros(2, int), labels=np.zeros(2))
    with pytest.raises(DataError, match=r"lacks x_test, y_test; it holds x_train, y_train, labels") as caught:
        load_dataset(tmp_path / "a.npz")
    message(caught)


def test_npz_with_line_breaks_in_a_key_still_gives_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", **{"x_train\n": np.ones(2), "y\r\ntrain": np.ones(2)})
    with pytest.raises(DataError, match="lacks x_train, y_train") as caught:
        load_dataset(tmp_path / "a.npz")
    assert len(message(caught).splitlines()) == 1


@pytest.mark.parametrize("key", ["x_train", "y_test", "class_names"])
def test_npz_pickle_is_refused_and_not_run(tmp_path, key):
    arrays = tiny_images((4,), k=2)
    names = ("x_train", "y_train", "x_test", "y_test")
    fields = dict(zip(names, arrays, strict=True)) | {key: np.array([MakesFolder(tmp_path / "ran")], dtype=object)}
    np.savez(tmp_path / "a.npz", **fields)
    with pytest.raises(DataError, match=rf"{key} holds Python objects \(a pickle\), which are never loaded"):
        load_dataset(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"class_names": np.arange(3)}, "class_names must be a list of strings, got int64"),
        ({"class_names": np.array("abc")}, r"class_names must be a list of strings, got <U3 of shape \(\)"),
        ({"class_names": np.array(["a", "b"])}, "y_train holds the label 2, there are 2 classes"),
        ({"y_train": np.array(10**12)}, r"y_train must have shape \(n,\) or \(n, k\), got \(\)"),
        ({"y_train": np.array([0, 1, np.nan])}, r"y_train must have one label .* got shape \(3,\)"),
        ({"y_train": np.zeros((6, 2), int)}, r"y_test must have shape \(\d+, 2\), got"),
        ({"y_train": np.array(list("aabbcc"))}, "y_test holds int64, the classes are <U1"),
        ({"x_test": np.array(1.0)}, r"x_test must be \(n, ...\)"),
    ],
)
def test_npz_with_invalid_content(tmp_path, extra, words):
    write_npz(tmp_path / "a.npz", tiny_images((4,), k=3), **extra)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(tmp_path / "a.npz")
    assert message(caught).startswith(f"load_dataset: {tmp_path / 'a.npz'}: ")


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_damaged_npz_gives_a_data_set_or_a_data_error(tmp_path_factory, data):
    path = write_npz(tmp_path_factory.mktemp("npz") / "a.npz", tiny_images((2,), k=2, n_train=3, n_test=1))
    path.write_bytes(damaged(path.read_bytes(), data))
    assert_loads_or_refuses(path)


def damaged(content, data):
    """The bytes with up to three of them changed, or cut short."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)


# names and folders


def test_available_datasets():
    assert available_datasets() == ("digits", "mnist", "cifar10", "cifar100")


def test_unknown_name_lists_the_choices():
    with pytest.raises(DataError, match="load_dataset: unknown data set 'imagenet'; choose one of digits, mnist,"):
        load_dataset("imagenet")


@pytest.mark.parametrize("name", [3, None, b"mnist"])
def test_name_of_the_wrong_kind(name):
    with pytest.raises(TypeError):
        load_dataset(name)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_names_what_was_looked_for_and_offers_download(tmp_path, name):
    with pytest.raises(
        DataError, match=f"load_dataset: {name} is not in {tmp_path} .*{name}.npz.*--download"
    ) as caught:
        load_dataset(name, data_dir=tmp_path)
    text = message(caught)
    for word in {"mnist": ["train-images-idx3-ubyte", "MNIST/raw"]}.get(name, ["-python.tar.gz", "-binary.tar.gz"]):
        assert word in text


def test_default_folder_is_the_environment_then_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays, others = tiny_images((28, 28), seed=1), tiny_images((28, 28), seed=2)
    (tmp_path / "data").mkdir()
    write_npz(tmp_path / "data" / "mnist.npz", arrays)
    write_npz(tmp_path / "mnist.npz", others)
    monkeypatch.delenv("KRRDISTILL_DATA", raising=False)
    assert_holds(load_dataset("mnist"), arrays, name="mnist", class_names=DIGITS)
    monkeypatch.setenv("KRRDISTILL_DATA", str(tmp_path))
    assert_holds(load_dataset("MNIST"), others, name="mnist", class_names=DIGITS)
    assert_holds(load_dataset("mnist", data_dir="data"), arrays, name="mnist", class_names=DIGITS)


def test_named_npz_has_the_known_shape_type_and_names(tmp_path):
    arrays = tiny_images((32, 32, 3))
    write_npz(tmp_path / "cifar10.npz", arrays)
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), arrays, name="cifar10", class_names=CIFAR10)
    write_npz(tmp_path / "cifar10.npz", [a / 255 if a.ndim > 1 else a for a in arrays])
    with pytest.raises(DataError, match=r"must be uint8 images \(32, 32, 3\), got float64 \(32, 32, 3\)"):
        load_dataset("cifar10", data_dir=tmp_path)
    write_npz(tmp_path / "cifar10.npz", tiny_images((3, 32, 32)))
    with pytest.raises(DataError, match=r"must be uint8 images \(32, 32, 3\), got uint8 \(3, 32, 32\)"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_unreadable_folder_is_a_data_error(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"load_dataset: .*Permission denied: .*mnist.npz"):
        load_dataset("mnist", data_dir=tmp_path)


# digits


def test_digits():
    dataset = load_dataset("digits")
    assert repr(dataset) == "Dataset('digits', train 1438, test 359, shape (8, 8), uint8, 10 classes)"
    assert (dataset.x_train.min(), dataset.x_train.max()) == (0, 16)
    share = np.bincount(dataset.y_test) / (np.bincount(dataset.y_test) + np.bincount(dataset.y_train))
    assert np.abs(share - 0.2).max() < 0.005
    rows = {x.tobytes() for x in dataset.x_train} | {x.tobytes() for x in dataset.x_test}
    assert len(rows) == 1797  # all different: no image is in both parts
    # the same split on every machine and with every version of NumPy
    assert hashlib.sha256(dataset.x_test.tobytes()).hexdigest()[:16] == "0c5d03dc1981776a"


def test_digits_are_read_without_importing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(load_dataset("digits").x_train) == 1438


def test_digits_that_scikit_learn_keeps_elsewhere_are_the_same(monkeypatch):
    pytest.importorskip("sklearn.datasets")
    here = load_dataset("digits")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    there = load_dataset("digits")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))


def test_digits_without_scikit_learn(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=r'load_dataset: .*pip install "krrdistill\[cli\]"'):
        load_dataset("digits")


# MNIST in IDX files


@pytest.mark.parametrize("subfolder", ["", "MNIST/raw"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sep", ["-", "."])
def test_mnist_idx(tmp_path, sep, compress, subfolder):
    arrays = tiny_images((28, 28))
    write_mnist(tmp_path / subfolder, arrays, sep=sep, compress=compress)
    assert_holds(load_dataset("mnist", data_dir=tmp_path), arrays, name="mnist", class_names=DIGITS)


def test_mnist_search_order(tmp_path):
    sets = [tiny_images((28, 28), seed=s) for s in range(3)]
    write_mnist(tmp_path / "MNIST" / "raw", sets[0])
    assert_holds(load_dataset("mnist", data_dir=tmp_path), sets[0], name="mnist", class_names=DIGITS)
    write_mnist(tmp_path, sets[1])
    assert_holds(load_dataset("mnist", data_dir=tmp_path), sets[1], name="mnist", class_names=DIGITS)
    write_npz(tmp_path / "mnist.npz", sets[2])
    assert_holds(load_dataset("mnist", data_dir=tmp_path), sets[2], name="mnist", class_names=DIGITS)


def test_mnist_gzip_is_told_by_content(tmp_path):
    arrays = tiny_images((28, 28))
    write_mnist(tmp_path, arrays)
    plain = tmp_path / "train-images-idx3-ubyte"
    plain.rename(tmp_path / "train-images-idx3-ubyte.gz")  # unpacked by a browser that kept the name
    assert_holds(load_dataset("mnist", data_dir=tmp_path), arrays, name="mnist", class_names=DIGITS)


def test_mnist_with_a_file_missing(tmp_path):
    write_mnist(tmp_path, tiny_images((28, 28)))
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="mnist is not in"):
        load_dataset("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda b: b[:-1], "holds 15679 bytes of data, its header promises 15680"),
        (lambda b: b + b"x", "holds 15681 bytes of data, its header promises 15680"),
        (lambda b: b[:7], "not an IDX file of unsigned bytes with 3 axes"),
        (lambda b: b"", "not an IDX file"),
        (
            lambda b: b[:2] + b"\x0d" + b[3:],
            r"not an IDX file of unsigned bytes with 3 axes \(starts with 00000d03\)",
        ),
        (lambda b: b[:3] + b"\x01" + b[4:], "not an IDX file of unsigned bytes with 3 axes"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "its header promises 79228162458924105385300197375"),
        (lambda b: gzip.compress(b)[:-20], "train-images-idx3-ubyte: cannot be read"),
        (lambda b: gzip.compress(b)[:4000] + b"x" * 40 + gzip.compress(b)[4040:], "cannot be read"),
        (lambda b: b"\x1f\x8b" + b, "cannot be read"),
        (
            lambda b: idx_bytes(np.zeros((19, 28, 28))),
            "y_train must have one label for each of the 19 samples",
        ),
    ],
)
def test_mnist_damaged(tmp_path, damage, words):
    write_mnist(tmp_path, tiny_images((28, 28)))
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("mnist", data_dir=tmp_path)
    assert message(caught).startswith(f"load_dataset: {tmp_path}")


# CIFAR


def cifar(name, **options):
    return tiny_images((32, 32, 3), k=10 if name == "cifar10" else 100, n_test=7, **options)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dumps", [python2_pickle, lambda v: pickle.dumps(v, 2), lambda v: pickle.dumps(v, 4)])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_python(tmp_path, name, dumps, packed):
    arrays = cifar(name)
    names = [f"class {i}" for i in range(10 if name == "cifar10" else 100)]
    folder = write_cifar_python(tmp_path, name, arrays, dumps=dumps, class_names=names)
    if packed:
        pack(folder, tmp_path / f"{name.replace('cifar', 'cifar-')}-python.tar.gz")
    assert_holds(load_dataset(name, data_dir=tmp_path), arrays, name=name, class_names=names)
    assert len(list(tmp_path.iterdir())) == 1  # nothing was unpacked


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_binary(tmp_path, name, packed):
    arrays = cifar(name)
    names = [f"class {i}" for i in range(10 if name == "cifar10" else 100)]
    folder = write_cifar_binary(tmp_path, name, arrays, class_names=names)
    if packed:
        pack(folder, tmp_path / f"{name.replace('cifar', 'cifar-')}-binary.tar.gz")
    assert_holds(load_dataset(name, data_dir=tmp_path), arrays, name=name, class_names=names)


@pytest.mark.parametrize("write", [write_cifar_python, write_cifar_binary])
@pytest.mark.parametrize(("name", "names"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_without_its_names_file(tmp_path, name, names, write):
    arrays = cifar(name)
    write(tmp_path, name, arrays)
    assert_holds(load_dataset(name, data_dir=tmp_path), arrays, name=name, class_names=names)


def test_cifar_search_order(tmp_path):
    sets = [cifar("cifar10", seed=s) for s in range(4)]
    write_cifar_binary(tmp_path, "cifar10", sets[0])
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), sets[0], name="cifar10", class_names=CIFAR10)
    pack(write_cifar_python(tmp_path, "cifar10", sets[1]), tmp_path / "cifar-10-python.tar.gz")
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), sets[1], name="cifar10", class_names=CIFAR10)
    write_cifar_python(tmp_path, "cifar10", sets[2])
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), sets[2], name="cifar10", class_names=CIFAR10)
    write_npz(tmp_path / "cifar10.npz", sets[3])
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), sets[3], name="cifar10", class_names=CIFAR10)


def test_the_python2_pickles_of_these_tests_are_what_python_reads():
    images = np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    content = pickle.loads(python2_pickle({"data": images, "labels": [1, 2]}), encoding="latin1")
    np.testing.assert_array_equal(content["data"], images)
    assert content["labels"] == [1, 2]


def test_cifar_pickle_of_a_fortran_array(tmp_path):
    arrays = cifar("cifar10")
    folder = write_cifar_python(tmp_path, "cifar10", arrays)
    content = {"data": np.asfortranarray(planes(arrays[2])), "labels": arrays[3].tolist()}
    (folder / "test_batch").write_bytes(python2_pickle(content))
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), arrays, name="cifar10", class_names=CIFAR10)


class Encoded:
    """Pickles to a call of _codecs.encode with any codec."""

    def __init__(self, text, codec):
        self.call = (text, codec)

    def __reduce__(self):
        import _codecs

        return _codecs.encode, self.call


def naming(module, name):
    """A pickle that is nothing but a name, looked up as protocol 4 does: dots in it are followed."""
    return b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (naming("os", "system"), "it asks for os.system, which is not allowed"),
        (naming("builtins", "eval"), "it asks for builtins.eval, which is not allowed"),
        (naming("numpy", "ndarray.tofile"), "it asks for numpy.ndarray.tofile, which is not allowed"),
        (naming("numpy.core.multiarray", "fromfile"), "it asks for numpy.core.multiarray.fromfile"),
        (naming("numpy", "dtype"), "the pickle holds a type, expected a dict"),
        (pickle.dumps({"data": Encoded("ab", "rot13")}, 2), "text in encoding 'rot13', expected 'latin1'"),
        (pickle.dumps({"data": np.arange(3.0)}, 2), r"array of type 'f8', expected bytes \('u1'\)"),
        (pickle.dumps({"data": np.array(["a", None])}, 2), r"array of type 'O8', expected bytes \('u1'\)"),
        (pickle.dumps([1, 2], 2), "the pickle holds a list, expected a dict"),
        (pickle.dumps({"labels": [0]}, 2), r"'data' must be a uint8 array of shape \(n, 3072\)"),
        (pickle.dumps({"data": [0] * 3072, "labels": [0]}, 2), "'data' must be a uint8 array"),
        (
            python2_pickle({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}),
            "'data' must be a uint8 array",
        ),
        (
            python2_pickle({"data": np.zeros((1, 3072), np.uint8)}),
            "'labels' must be a list of small integers",
        ),
        (
            python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}),
            "'labels' must be a list of small integers",
        ),
        (
            pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [2**70]}, 2),
            "'labels' must be a list of small integers",
        ),
        (
            python2_pickle({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}),
            "holds 2 images but 1 labels",
        ),
        (python2_pickle({"data": np.zeros((2, 3072), np.uint8)})[:-9], "not a pickle that can be read"),
        (b"", "not a pickle that can be read"),
        (b"plain text\n", "not a pickle that can be read"),
    ],
)
def test_cifar_pickle_refused(tmp_path, content, words):
    folder = write_cifar_python(tmp_path, "cifar10", cifar("cifar10"))
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    assert message(caught).startswith(f"load_dataset: {folder}: data_batch_3: ")


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_cifar_pickle_is_never_run(tmp_path, file):
    folder = write_cifar_python(tmp_path, "cifar100", cifar("cifar100"))
    (folder / file).write_bytes(hostile_pickle(tmp_path / "ran"))
    with pytest.raises(DataError, match=f"{file}: .* it asks for (posix|nt).mkdir, which is not allowed"):
        load_dataset("cifar100", data_dir=tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(hostile_pickle(tmp_path / "ran"))
    assert (tmp_path / "ran").exists()  # the pickle would have done it


def test_cifar_names_must_be_names(tmp_path):
    folder = write_cifar_python(tmp_path, "cifar10", cifar("cifar10"), class_names=CIFAR10)
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": [1, 2]}))
    with pytest.raises(DataError, match=r"batches.meta: 'label_names' must be a list of class names"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("write", [write_cifar_python, write_cifar_binary])
def test_cifar_part_missing(tmp_path, write):
    folder = write(tmp_path, "cifar10", cifar("cifar10"))
    next(folder.glob("data_batch_4*")).unlink()
    with pytest.raises(DataError, match=f"load_dataset: {folder}: lacks data_batch_4"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("size", [0, 3072, 3075, 2 * 3074 - 1])
def test_cifar_binary_of_the_wrong_length(tmp_path, size):
    folder = write_cifar_binary(tmp_path, "cifar100", cifar("cifar100"))
    (folder / "test.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"test.bin: holds {size} bytes, not a multiple of the record size 3074"):
        load_dataset("cifar100", data_dir=tmp_path)


def test_cifar_label_out_of_range(tmp_path):
    folder = write_cifar_binary(tmp_path, "cifar10", cifar("cifar10"))
    (folder / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match=f"{folder}: Dataset: y_test holds the label 10, there are 10 classes"):
        load_dataset("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_cifar_archive_cut_short(tmp_path, keep):
    archive = tmp_path / "cifar-10-python.tar.gz"
    pack(write_cifar_python(tmp_path, "cifar10", cifar("cifar10")), archive)
    data = archive.read_bytes()
    archive.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(DataError, match=f"load_dataset: {archive}: (cannot be read|lacks)") as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    message(caught)


def test_cifar_archive_ignores_what_lies_elsewhere_in_it(tmp_path):
    arrays = cifar("cifar10")
    folder = write_cifar_python(tmp_path, "cifar10", arrays)
    (folder / "nested").mkdir()
    (folder / "nested" / "test_batch").write_bytes(hostile_pickle(tmp_path / "ran"))
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), arrays, name="cifar10", class_names=CIFAR10)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, arcname="./" + folder.name)
    folder.rename(tmp_path / "hidden")
    assert_holds(load_dataset("cifar10", data_dir=tmp_path), arrays, name="cifar10", class_names=CIFAR10)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_cifar_pickle_gives_a_data_set_or_a_data_error(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("cifar")
    folder = write_cifar_python(root, "cifar10", tiny_images((32, 32, 3), n_train=10, n_test=1))
    path = folder / "test_batch"
    content = python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [3]})
    head, tail = content[:300], content[300:]  # the pixels are no place to look for trouble
    path.write_bytes(damaged(head, data) + tail)
    assert_loads_or_refuses("cifar10", data_dir=root)


# the real sets


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "sizes", "names"),
    [
        ("mnist", (28, 28), (60000, 10000), DIGITS),
        ("cifar100", (32, 32, 3), (50000, 10000), CIFAR100),
    ],
)
def test_real_data(name, shape, sizes, names):
    if not (REAL_DATA / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not in {REAL_DATA}")
    dataset = load_dataset(name, data_dir=REAL_DATA)
    assert (len(dataset.x_train), len(dataset.x_test)) == sizes
    assert (dataset.shape, dataset.class_names) == (shape, names)
    assert dataset.x_train.dtype == np.uint8
