"""What X may be: arrays of every type and layout, tables and matrices, without a whole copy and to the last bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from krrdistill.common.rows import ConvertedRows
from krrdistill.common.samples import as_samples

N, D, K = 300, 12, 3
Y = np.arange(N) % K
PHI = kd.FCNN(D, seed=1)


def numbers(dtype: Any = np.float32) -> Any:
    values = 10.0 * np.random.default_rng(0).normal(size=(N, D))
    return values.round() if np.dtype(dtype).kind in "iu" else values


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


def memory_map(tmp_path: Any, dtype: str) -> Any:
    stored = np.memmap(tmp_path / "x.bin", dtype=dtype, mode="w+", shape=(N, D))
    stored[:] = numbers(dtype)
    return stored


KINDS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "float16": lambda _: (numbers().astype("f2"), numbers().astype("f2").astype("f4")),
    "int16": lambda _: (numbers("i2").astype("i2"), numbers("i2").astype("f4")),
    "int64": lambda _: (numbers("i8").astype("i8"), numbers("i8").astype("f8")),
    "big-endian": lambda _: (numbers().astype(">f4"), numbers().astype("f4")),
    "Fortran order": lambda _: (np.asfortranarray(numbers().astype("f4")), numbers().astype("f4")),
    "float16 memory map": lambda tmp: (memory_map(tmp, "f2"), numbers().astype("f2").astype("f4")),
    "bfloat16 tensor": lambda _: (
        library("torch").from_numpy(numbers()).bfloat16(),
        library("torch").from_numpy(numbers()).bfloat16().float().numpy(),
    ),
    "bfloat16 of JAX": lambda _: (
        library("jax.numpy").asarray(numbers().astype("f4"), dtype="bfloat16"),
        library("torch").from_numpy(numbers().astype("f4")).bfloat16().float().numpy(),
    ),
    "sparse": lambda _: (library("scipy.sparse").coo_matrix(numbers()), numbers()),
    "pandas": lambda _: (library("pandas").DataFrame(numbers()), numbers()),
    "pandas nullable": lambda _: (library("pandas").DataFrame(numbers()).astype("Float64"), numbers()),
    "polars": lambda _: (library("polars").DataFrame(numbers()), numbers()),
    "polars vectors": lambda _: (library("polars").DataFrame({"x": numbers().astype("f4")}), numbers().astype("f4")),
    "a series of vectors": lambda _: (
        library("polars").DataFrame({"x": numbers().astype("f4")})["x"],
        numbers().astype("f4"),
    ),
    "arrow": lambda _: (library("polars").DataFrame(numbers()).to_arrow(), numbers()),
    "list": lambda _: (numbers().tolist(), numbers()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_kind_give_the_points_of_arrays_to_the_last_bit(kind: str, tmp_path: Any) -> None:
    X, plain = KINDS[kind](tmp_path)
    scaling = kd.standardize(plain)
    tolerances.assert_exact(kd.standardize(X).unit, scaling.unit)
    phi = kd.FCNN(D, seed=1, preprocessing=scaling)
    found, expected = kd.distill(X, Y, phi), kd.distill(plain, Y, phi)
    tolerances.assert_exact(found.distilled.inputs, expected.distilled.inputs)
    tolerances.assert_exact(found.distilled.Y, expected.distilled.Y)
    tolerances.assert_exact(found.model.predict(X), expected.model.predict(plain))


@pytest.mark.parametrize("backend_name", [None, "array"])
def test_blocks_end_where_sums_change_their_precision(
    backend_name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krrdistill.common.rows._BLOCK_BYTES", 1)  # blocks as small as they may be
    monkeypatch.setattr("krrdistill.backends.tiles._MAX_ROWS", 1000)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12_345, D)).astype("f4"), np.arange(12_345) % K
    sums = [kd.RidgeStatistics(PHI, K, backend=backend_name).update(x, y) for x in (X, ConvertedRows("test", X))]
    tolerances.assert_exact(sums[1].gram, sums[0].gram)
    tolerances.assert_exact(sums[1].cross, sums[0].cross)


@pytest.mark.parametrize("dtype", ["f2", "i2"])
def test_an_update_copies_a_block_at_a_time(dtype: str) -> None:
    X = np.ones((400_000, 64), dtype)  # 51 MB, as float32 102 MB
    X[::2] = 0
    phi, y = kd.Identity(64), np.arange(400_000) % 2
    kd.RidgeStatistics(phi, 2).update(X[:10], y[:10])
    tracemalloc.start()
    kd.RidgeStatistics(phi, 2).update(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # two blocks of 32 MiB and the row numbers


def test_bad_rows_are_named_by_their_number_in_the_data() -> None:
    X = numbers().astype("f2")
    X[211, 3] = np.nan
    with pytest.raises(kd.DataError, match="row 211 holds NaN or infinity"):
        kd.RidgeStatistics(PHI, K).update(X, Y)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: library("polars").DataFrame(numbers()).lazy(), TypeError, r"X is a LazyFrame, .* pass X.collect\(\)"),
        (lambda: (x for x in numbers()), TypeError, r"X is a generator, not an array; a stream goes into statistics"),
        (lambda: None, TypeError, "X must be an array, got a NoneType"),
        (lambda: {"x": 1}, TypeError, "X must be an array, got a dict"),
        (
            lambda: "data.npz",
            TypeError,
            r"X is a str, not an array; read a file or folder with",
        ),
        (lambda: library("pandas").DataFrame({"a": ["x"] * N}), TypeError, "column 'a' of X holds String, .* no numb"),
        (lambda: library("pandas").Series(numbers()[0]), TypeError, "X is one column of numbers, or one row; pass a"),
        (lambda: numbers().astype(object), TypeError, "X must be a numeric array, got dtype object"),
        (lambda: np.full((N, D), 1e200), kd.DataError, r"X: row 0 holds 1e\+200, which overflows float32; scale X"),
    ],
)
def test_samples_that_are_none_are_refused_with_the_remedy(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kd.RidgeStatistics(PHI, K).update(make(), Y)


def test_statistics_of_few_samples_travel_as_rows(tmp_path: Any) -> None:
    wide = kd.Identity(20_000)  # G would take 3.2 GB
    X = np.random.default_rng(0).normal(size=(30, 20_000))
    statistics = kd.RidgeStatistics(wide, K, precision="float64").update(X, np.arange(30) % K)
    statistics.save(tmp_path / "a.npz")
    loaded = kd.RidgeStatistics.load(tmp_path / "a.npz", wide)
    tolerances.assert_exact(kd.fit_model(loaded, 1.0).W, kd.fit_model(statistics, 1.0).W)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_images_are_standardised_by_channel_in_either_layout(layout: str) -> None:
    last = np.random.default_rng(0).normal(size=(20, 6, 5, 3)) * [1.0, 5.0, 25.0] + [0.0, 10.0, 100.0]
    X = last if layout == "NHWC" else np.moveaxis(last, -1, 1).copy()
    scaling = kd.standardize(X, layout=layout)
    unit = scaling.unit.reshape(X.shape[1:])
    expected = np.broadcast_to(kd.standardize(last).unit.reshape(6, 5, 3), (6, 5, 3))
    tolerances.assert_exact(unit if layout == "NHWC" else np.moveaxis(unit, 0, -1), expected)


def test_convolutions_take_channels_first_images_as_they_are() -> None:
    last = np.random.default_rng(0).normal(size=(7, 6, 5, 3))
    first = np.moveaxis(last, -1, 1).copy()
    phi = kd.ConvolutionalNetwork((6, 5, 3), seed=2)
    turned = kd.ConvolutionalNetwork((3, 6, 5), seed=2, layout="NCHW")
    tolerances.assert_exact(turned.transform(first), phi.transform(last))
    assert turned.fingerprint() != phi.fingerprint()
    features = phi.transform(last)
    points = turned.on_standardised.linearize(first.reshape(7, -1))
    straight = phi.on_standardised.linearize(last.reshape(7, -1))
    back = points.backward(features).reshape(7, 3, 6, 5)
    tolerances.assert_exact(np.moveaxis(back, 1, -1).reshape(7, -1), straight.backward(features))


def test_images_that_look_channels_first_are_asked_about() -> None:
    X = np.zeros((9, 3, 32, 32), np.uint8)
    words = r"samples of shape \(3, 32, 32\) look like images .* first: pass layout='NCHW' \(--layout NCHW\)"
    for call in (lambda: kd.standardize(X), lambda: kd.make_map("conv", X), lambda: kd.Moments.of(X)):
        with pytest.raises(kd.DataError, match=words):
            call()
    with pytest.raises(kd.DataError, match=words):
        kd.Dataset("cifar10", X, np.arange(9) % 3, X, np.arange(9) % 3)
    data = kd.Dataset("cifar10", X, np.arange(9) % 3, X, np.arange(9) % 3, layout="NCHW")
    assert kd.standardize(data).constants["source"] == "published"


def test_a_named_set_with_channels_first_names_the_layout(tmp_path: Path) -> None:
    X, y = np.zeros((30, 3, 32, 32), np.uint8), np.arange(30) % 10
    X[::2] = 9
    np.savez(tmp_path / "cifar10.npz", x_train=X, y_train=y, x_test=X, y_test=y)
    remedy = r"name the file itself, --dataset FILE.npz --layout NCHW \(layout='NCHW'\)"
    for asked in (None, "NCHW"):
        with pytest.raises(kd.DataError, match=remedy):
            kd.load_dataset("cifar10", data_dir=tmp_path, layout=asked)
    data = kd.load_dataset(tmp_path / "cifar10.npz", layout="NCHW")
    assert (data.layout, kd.standardize(data).constants["source"]) == ("NCHW", "published")


def test_one_lambda_is_a_grid() -> None:
    assert kd.DistillOptions(lambdas=1.0).lambdas == (1.0,)


def test_samples_are_used_where_they_are() -> None:
    X = numbers().astype("f4")
    assert np.shares_memory(as_samples("f", X), X)
    assert np.shares_memory(as_samples("f", X[::3]), X)


def unaligned(array: Any) -> Any:
    """The same array at an odd address, as arrays that came from another process may be."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    found = memory.view(array.dtype).reshape(array.shape)
    assert not found.flags.aligned
    return found


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("backend", ["native", "numba", "array"])
def test_arrays_at_odd_addresses_are_read_like_others(dtype: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    X, y, weight = rng.standard_normal((50, 6)).astype(dtype), np.arange(50) % 3, rng.uniform(1.0, 2.0, 50)
    phi = kd.FCNN(6, seed=0)
    try:
        kd.get_backend(backend)
    except kd.errors.BackendUnavailable as error:
        pytest.skip(str(error))
    found, expected = (kd.RidgeStatistics(phi, classes=3, backend=backend) for _ in range(2))
    found.update(unaligned(X), unaligned(y)).update(unaligned(X), unaligned(y), sample_weight=unaligned(weight))
    expected.update(X, y).update(X, y, sample_weight=weight)
    tolerances.assert_exact(found.gram, expected.gram)
    tolerances.assert_exact(found.cross, expected.cross)
    tolerances.assert_exact(phi.transform(unaligned(X), backend=backend), phi.transform(X, backend=backend))


@pytest.mark.parametrize(
    ("shape", "said"), [((8, 8), "X has 8 columns, the map takes 64"), ((64,), r"one row per sample, got \(64,\)")]
)
def test_a_single_sample_is_refused_with_what_makes_it_one_row(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(kd.DataError, match=f"{said}; if it is one sample, pass X\\[None\\]$"):
        kd.Identity(64).transform(np.ones(shape))
