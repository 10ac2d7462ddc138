"""Streams of batches: the same statistics however they are cut, held-out rows by number, failures that lose nothing."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.backends import Backend
from krrdistill.backends.tiles import FLUSH_ROWS
from krrdistill.ridge import batches as module

N, D, K = 3 * FLUSH_ROWS + 77, 5, 3
PHI = kd.FCNN(D, [7], seed=3)
Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of as few rows as the sums in float32 allow: three of them and a part."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)).astype(np.float32), rng.integers(0, K, N)


def cut(X: Array, y: Array, size: int, *more: Array) -> Iterator[tuple[Array, ...]]:
    for start in range(0, len(X), size):
        part = slice(start, start + size)
        yield (X[part], y[part], *(each[part] for each in more))


def empty(**options: Any) -> kd.RidgeStatistics:
    return kd.RidgeStatistics(PHI, **{"classes": K, **options})


def assert_same(a: kd.RidgeStatistics, b: kd.RidgeStatistics) -> None:
    for name in ("gram", "cross", "feature_sum", "target_sum", "target_square"):
        tolerances.assert_exact(getattr(a, name), getattr(b, name))
    assert (a.n, a.shape, a.total_weight, a.product_precision) == (b.n, b.shape, b.total_weight, b.product_precision)


@pytest.mark.parametrize("held_out", ["rows", "statistics"])
def test_a_stream_does_not_depend_on_its_batches(any_backend: Backend, data: Any, held_out: str) -> None:
    X, y = (each[:5000] for each in data)
    one = empty(backend=any_backend)
    expected = one.update_batches([(X, y)], holdout=0.2, held_out=held_out)
    for size in (1 if any_backend.name == "native" else 7, 1000, FLUSH_ROWS):  # batches become blocks before a backend
        other = empty(backend=any_backend)
        found = other.update_batches(cut(X, y, size), holdout=0.2, held_out=held_out)
        assert_same(other, one)
        assert other.rows_read == one.rows_read == 5000
        if held_out == "statistics":
            assert_same(found, expected)
            assert one.n + found.n == 5000
        else:
            tolerances.assert_exact(found.X, expected.X)
            tolerances.assert_exact(found.y.values, expected.y.values)
            assert one.n + len(found) == 5000
            assert abs(len(found) / 5000 - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 5000)


@pytest.mark.parametrize("size", [1000, N])
def test_a_stream_gives_what_one_update_gives(data: Any, size: int) -> None:
    streamed = empty()
    assert streamed.update_batches(cut(*data, size)) is None
    assert_same(streamed, empty().update(*data))


def test_held_out_rows_are_those_of_the_row_numbers(data: Any) -> None:
    X, y = data
    whole = empty().update_batches(cut(X, y, 999), holdout=0.1, seed=5)
    later = empty().update_batches(cut(X[7001:], y[7001:], 500), holdout=0.1, seed=5, first_row=7001)
    tolerances.assert_exact(later.X, whole.X[-len(later) :])
    other = empty().update_batches(cut(X, y, 999), holdout=0.1, seed=6)
    assert not np.array_equal(other.X[:50], whole.X[:50])


def test_weights_and_real_targets_travel_with_their_rows(data: Any) -> None:
    X, y = data
    Y, w = np.stack([y * 0.5, y + 0.25], axis=1), np.linspace(0.0, 2.0, N)
    one, other = (kd.RidgeStatistics(PHI, n_targets=2, precision="float64") for _ in range(2))
    held = one.update_batches(cut(X, Y, 1234, w), holdout=0.1)
    again = other.update_batches([(X, Y, w)], holdout=0.1)
    assert_same(one, other)
    tolerances.assert_exact(held.sample_weight, again.sample_weight)
    assert one.total_weight + held.sample_weight.sum() == pytest.approx(w.sum())
    tolerances.assert_exact(kd.fit_model(one, validation=held).W, kd.fit_model(other, validation=again).W)


def as_loader(X: Array, y: Array) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.from_numpy, (X, y))), batch_size=333)


def as_samples(X: Array, y: Array) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.TensorDataset(*map(torch.from_numpy, (X, y)))


def as_record_batches(X: Array, y: Array) -> Any:
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(X.ravel()), D)
    return pyarrow.table({"x": vectors, "label": y}).to_batches(700)


def as_frames(X: Array, y: Array) -> Any:
    import pandas

    return [pandas.DataFrame(a, columns=list("abcde")).assign(label=b) for a, b in cut(X, y, 600)]


def as_hugging_face(X: Array, y: Array) -> Any:
    import datasets

    return datasets.Dataset.from_dict({"x": X, "label": y}).cast_column(
        "x", datasets.Sequence(datasets.Value("float32"), length=D)
    )


STREAMS: list[Callable[[Array, Array], Any]] = [
    lambda X, y: cut(X, y, 411),
    lambda X, y: [{"x": a, "label": b} for a, b in cut(X, y, 512)],
    lambda X, y: ((row, label) for row, label in zip(X, y, strict=True)),  # as webdataset gives them
    as_loader,
    as_samples,
    as_record_batches,
    as_frames,
    as_hugging_face,
    lambda X, y: as_hugging_face(X, y).to_iterable_dataset(),
]


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_of_every_kind_give_the_same_bits(data: Any, stream: Callable[[Array, Array], Any]) -> None:
    X, y = (each[:1500] for each in data)
    one, other = empty(), empty()
    other.update_batches([(X, y)], holdout=0.1)
    held = one.update_batches(stream(X, y), holdout=0.1)
    for name in ("gram", "cross"):
        tolerances.assert_exact(getattr(one, name), getattr(other, name))
    assert one.n + len(held) == 1500


def test_pictures_keep_their_shape() -> None:
    PIL = pytest.importorskip("PIL.Image")
    pictures = np.random.default_rng(0).integers(0, 256, (40, 4, 3, 3), dtype=np.uint8)
    statistics = kd.RidgeStatistics(kd.Identity(36), ["a", "b"])
    held = statistics.update_batches(
        [{"image": PIL.fromarray(each), "label": "ab"[i % 2]} for i, each in enumerate(pictures)], holdout=0.3
    )
    assert statistics.shape == (4, 3, 3)
    assert held.X.shape == (40 - statistics.n, 4, 3, 3)
    assert set(held.y.labels()) <= {"a", "b"}


def test_an_interrupted_stream_goes_on_from_its_file(data: Any, tmp_path: Path) -> None:
    X, y = data
    expected = empty()
    held = expected.update_batches(cut(X, y, 1000), holdout=0.1)

    def breaking() -> Iterator[Any]:
        for number, batch in enumerate(cut(X, y, 1000)):
            if number == 10:
                raise ConnectionError("the store is gone")
            yield batch

    statistics = empty()
    with pytest.raises(ConnectionError, match="the store is gone"):
        statistics.update_batches(breaking(), holdout=0.1, progress=lambda rows: statistics.save(tmp_path / "s.npz"))
    resumed = kd.RidgeStatistics.load(tmp_path / "s.npz")
    assert 0 < resumed.rows_read < 10_000
    again = resumed.update_batches(cut(X, y, 777), holdout=0.1, skip=resumed.rows_read)
    assert_same(resumed, expected)
    tolerances.assert_exact(again.X, held.X)
    assert resumed.rows_read == N


def test_rows_beyond_the_bound_are_trained_on_with_a_word(data: Any) -> None:
    X, y = data
    statistics = empty()
    with pytest.warns(kd.DataWarning, match=r"50 rows are held out; all from row \d+ on are trained on"):
        held = statistics.update_batches(cut(X, y, 1000), holdout=0.1, max_held_out=50)
    assert len(held) == 50
    assert statistics.n == N - 50
    other = empty()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tolerances.assert_exact(other.update_batches([(X, y)], holdout=0.1, max_held_out=50).X, held.X)
    assert_same(statistics, other)


BAD: list[tuple[Callable[[Array, Array], Any], type[Exception], str]] = [
    (lambda X, y: X, TypeError, r"batches must be an iterable of \(X, y\), got ndarray; one batch is update\(X, y\)"),
    (lambda X, y: 5, TypeError, "batches must be an iterable"),
    (lambda X, y: {"x": X}, TypeError, "got dict"),
    (lambda X, y: [(X,)], TypeError, r"item 0 is a tuple of 1, not \(X, y\)"),
    (lambda X, y: [X], TypeError, "item 0 is a ndarray, not"),
    (lambda X, y: [(X, y[1:])], kd.DataError, rf"batch 0 \(from row 0\): y must have one label .* {N} samples"),
    (lambda X, y: [(X[:4], y[:4]), (X[:4, :3], y[:4])], kd.DataError, r"batch 1 \(from row 4\): X has 3 columns"),
    (
        lambda X, y: [(X, y), (X[:4].astype(float), y[:4])],
        kd.DataError,
        "batch 1 .*X is float64, in the first .*float32",
    ),
    (lambda X, y: [(X, y), (X, y, np.ones(N))], kd.DataError, "all batches must have a sample_weight, or none"),
    (lambda X, y: [(X, y), (X[:2], [0, 9])], kd.DataError, "batch 1 .*label 9"),
    (lambda X, y: [{"x": X, "z": y}], kd.DataError, "which column holds y is not obvious"),
    (lambda X, y: [(X[0], 1), (X[0, :3], 0)], kd.DataError, "samples have different shapes"),
]


@pytest.mark.parametrize(("stream", "kind", "message"), BAD)
def test_bad_batches_are_named(data: Any, stream: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"update_batches: .*{message}"):
        empty().update_batches(stream(*data))


@pytest.mark.parametrize("row", [9000, 9001])
def test_nan_is_named_and_the_blocks_before_it_are_in(data: Any, row: int) -> None:
    X, y = data[0].copy(), data[1]
    X[row, 2] = np.nan
    statistics = empty()
    with pytest.raises(kd.DataError, match=rf"batch 9 \(from row 9000\): X: row {row - 9000} holds NaN"):
        statistics.update_batches(cut(X, y, 1000), holdout=0.1)
    assert FLUSH_ROWS <= statistics.rows_read < 9000
    fresh = empty()
    fresh.update_batches(cut(X[: statistics.rows_read], y[: statistics.rows_read], 1000), holdout=0.1)
    assert_same(statistics, fresh)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 1.0}, "holdout is a part of the rows, below 1"),
        ({"holdout": -0.1}, "holdout must be finite and >= 0"),
        ({"held_out": "rest"}, "held_out must be one of rows, statistics"),
        ({"skip": -1}, "skip must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_options(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        empty().update_batches([data], **options)


def test_reading_goes_on_while_a_block_is_summed(data: Any) -> None:
    """The next block is asked for before the one before it is done: without a thread this would wait for ever."""
    asked = threading.Event()

    def stream() -> Iterator[Any]:
        for number, batch in enumerate(cut(*data, FLUSH_ROWS)):
            if number == 1:
                asked.set()
            yield batch

    def wait(rows: int) -> None:
        assert asked.wait(60)

    empty().update_batches(stream(), progress=wait)


def test_a_later_part_of_a_stream_is_resumed_by_its_own_rows(data: Any) -> None:
    X, y = data
    expected, resumed = empty(), empty()
    expected.update_batches(cut(X, y, 1000), holdout=0.1, first_row=70_000)

    def breaking() -> Iterator[Any]:
        yield from cut(X[:9000], y[:9000], 1000)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        resumed.update_batches(breaking(), holdout=0.1, first_row=70_000)
    assert 0 < resumed.rows_read < 9000
    resumed.update_batches(cut(X, y, 333), holdout=0.1, first_row=70_000, skip=resumed.rows_read)
    assert_same(resumed, expected)


def test_a_second_stream_is_resumed_by_its_own_rows(data: Any) -> None:
    X, y = data
    statistics = empty()
    statistics.update_batches(cut(X, y, 1000))

    def breaking() -> Iterator[Any]:
        yield from cut(X[:300], y[:300], 100)
        raise ConnectionError

    for stream in (breaking, breaking):
        with pytest.raises(ConnectionError):
            statistics.update_batches(stream())
        assert statistics.rows_read == 0
    statistics.update_batches(cut(X, y, 1000), skip=statistics.rows_read)
    assert statistics.n == 2 * N


def test_a_stream_interrupted_right_behind_a_sum_counts_no_row_twice(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, statistics, update = empty(), empty(), kd.RidgeStatistics._update

    def interrupted(self: kd.RidgeStatistics, *arguments: Any) -> None:
        update(self, *arguments)
        if self.n > FLUSH_ROWS:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kd.RidgeStatistics, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            statistics.update_batches(cut(*data, 1000))
    assert 0 < statistics.rows_read == statistics.n < N
    statistics.update_batches(cut(*data, 1000), skip=statistics.rows_read)
    whole.update_batches(cut(*data, 1000))
    assert_same(statistics, whole)


def test_a_skip_beyond_the_stream_is_refused(data: Any) -> None:
    X, y = data
    statistics = empty()
    with pytest.raises(kd.DataError, match=rf"skip is {N + 1}, the stream has {N} rows only"):
        statistics.update_batches(cut(X, y, 1000), skip=N + 1)
    assert statistics.n == 0


def test_a_held_out_row_that_fails_leaves_its_block_out(data: Any) -> None:
    X, y = data[0].copy(), data[1]
    held = empty().update_batches([(X, y)], holdout=0.1)
    row = int(np.flatnonzero((held.X[3] == X).all(axis=1))[0])
    X[row] = 1e25
    statistics = empty()
    with pytest.raises(kd.DataError, match="overflow"), np.errstate(over="ignore", invalid="ignore"):
        statistics.update_batches(cut(X, y, 1000), holdout=0.1, held_out="statistics")
    assert (statistics.n, statistics.rows_read) == (0, 0)


def test_columns_of_dicts_are_those_of_the_first() -> None:
    first = {"a": np.array([1.0, 1.0]), "b": np.array([10.0, 10.0]), "label": np.array([0, 1])}
    statistics = kd.RidgeStatistics(kd.Identity(2), 2, precision="float64")
    statistics.update_batches([first, dict(reversed(first.items()))])
    tolerances.assert_exact(statistics.gram, np.array([[4.0, 40.0], [40.0, 400.0]]))
    with pytest.raises(kd.DataError, match="item 1: has no column 'b'"):
        statistics.update_batches([first, {"a": first["a"], "c": first["b"], "label": first["label"]}])
    masked = first | {"a": np.ma.array([1.0, 99.0], mask=[0, 1])}
    with pytest.raises(TypeError, match="item 0 is a masked array"):
        statistics.update_batches([masked])
    with pytest.raises(kd.DataError, match=r"item 0: columns have different shapes: .*x= and y= name"):
        statistics.update_batches([first | {"a": np.ones(3)}])


def test_single_samples_may_share_one_buffer(data: Any) -> None:
    X, y = (each[:3000] for each in data)

    def reusing() -> Iterator[Any]:
        buffer, label = np.empty(D, np.float32), np.empty((), np.int64)
        for row, code in zip(X, y, strict=True):
            buffer[:], label[...] = row, code
            yield buffer, label

    one, other = empty(), empty()
    one.update_batches(reusing())
    other.update_batches([(X, y)])
    assert_same(one, other)


def test_weights_of_single_samples_are_all_or_none() -> None:
    with pytest.raises(kd.DataError, match="all samples must have a sample_weight, or none"):
        empty().update_batches([(np.ones(D), 0, 5.0), (np.ones(D), 1)])


def test_a_batch_of_zero_weights_and_an_empty_one_change_nothing(data: Any) -> None:
    X, y = (each[:1000] for each in data)
    w = np.ones(1000)
    w[:100] = 0.0
    one, other = empty(precision="float64"), empty(precision="float64")
    one.update_batches([(np.empty((0, D)), []), *cut(X, y, 100, w)])
    other.update_batches([(X, y, w)])
    assert_same(one, other)


def test_real_targets_of_any_type_follow_each_other() -> None:
    X = np.random.default_rng(0).normal(size=(6, D))
    statistics = kd.RidgeStatistics(PHI, n_targets=1, precision="float64")
    statistics.update_batches([(X[:3], np.arange(3)), (X[3:], np.arange(3) + 0.5)])
    assert statistics.target_sum == pytest.approx(3 + 4.5)


def test_samples_of_another_layout_are_refused() -> None:
    statistics = kd.RidgeStatistics(kd.Identity(6), 2)
    statistics.update(np.ones((4, 2, 3)), [0, 1, 0, 1])
    with pytest.raises(kd.DataError, match=r"samples have shape \(3, 2\), those trained on \(2, 3\)"):
        statistics.update(np.ones((4, 3, 2)), [0, 1, 0, 1])
    with pytest.raises(kd.DataError, match=r"samples have shape \(3, 2\), those trained on \(2, 3\)"):
        statistics.update_batches([(np.ones((4, 3, 2)), [0, 1, 0, 1])])
    statistics.update(np.ones((4, 6)), [0, 1, 0, 1])  # flat rows say nothing of a layout


def in_files(folder: Path, X: Array, y: Array, size: int) -> Iterator[tuple[Array, Array]]:
    """The batches of ``cut``, each a read-only memory map."""
    for part, labels in cut(X, y, size):
        path = folder / f"{len(list(folder.iterdir()))}.npy"
        np.save(path, part)
        yield np.load(path, mmap_mode="r"), labels


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("size", [1000, FLUSH_ROWS, 5500, N])
def test_memory_maps_give_the_bits_of_arrays(
    any_backend: Backend, data: Any, tmp_path: Path, dtype: Any, size: int
) -> None:
    X, y = (10.0 * np.abs(data[0])).astype(dtype), data[1]
    one, other = empty(backend=any_backend), empty(backend=any_backend)
    held = one.update_batches(in_files(tmp_path, X, y, size), holdout=0.1)
    expected = other.update_batches(cut(X, y, 1000), holdout=0.1)
    assert_same(one, other)
    tolerances.assert_exact(held.X, expected.X)
    assert one.rows_read == N


def test_weights_and_real_targets_of_memory_maps(data: Any, tmp_path: Path) -> None:
    X, y = data
    Y, w = np.stack([y * 0.5, y + 0.25], axis=1), np.linspace(0.0, 2.0, N)
    one, other = (kd.RidgeStatistics(PHI, n_targets=2) for _ in range(2))
    one.update_batches(((part, Y, w) for part, _ in in_files(tmp_path, X, y, N)), holdout=0.1, skip=50)
    other.update_batches([(X, Y, w)], holdout=0.1, skip=50)
    assert_same(one, other)


def test_whole_blocks_of_memory_maps_are_not_copied(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, update = [], kd.RidgeStatistics._update
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *given: copied.append(len(given[2])) or read(*given))
    seen = []

    def noting(self: Any, batch: Any, *more: Any) -> Any:
        seen.append(np.shares_memory(batch.samples, mapped))
        return update(self, batch, *more)

    monkeypatch.setattr(kd.RidgeStatistics, "_update", noting)
    ((mapped, y),) = in_files(tmp_path, *data, N)
    empty().update_batches([(mapped, y)], holdout=0.1)
    assert seen == [True, True, False]
    assert sum(copied) == N - 2 * FLUSH_ROWS  # held-out rows, and the last block


def test_memory_that_may_be_used_again_is_copied(data: Any, tmp_path: Path) -> None:
    """A writable memory map, whose first numbers are overwritten by the next."""
    X, y = data
    expected, statistics = empty(), empty()
    expected.update_batches([(X, y)])
    np.save(tmp_path / "x.npy", X[:FLUSH_ROWS])
    buffer = np.load(tmp_path / "x.npy", mmap_mode="r+")

    def reusing() -> Iterator[Any]:
        for part, labels in cut(X, y, FLUSH_ROWS):
            buffer[: len(part)] = part
            yield buffer[: len(part)], labels

    statistics.update_batches(reusing())
    assert_same(statistics, expected)


def test_nan_in_a_memory_map_is_named_and_the_blocks_before_it_are_in(data: Any, tmp_path: Path) -> None:
    X, y = data[0].astype(np.float16), data[1]
    X[9000, 2] = np.nan
    statistics, fresh = empty(), empty()
    with pytest.raises(kd.DataError, match=r"rows 8192 \.\.\. 12287: batch 1 \(from row 8192\): X: row 808 holds NaN"):
        statistics.update_batches(
            [*in_files(tmp_path, X[:4096], y[:4096], N), *in_files(tmp_path, X[4096:], y[4096:], N)]
        )
    assert statistics.rows_read == 8192
    fresh.update_batches([(X[:8192], y[:8192])])
    assert_same(statistics, fresh)


def resumed(data: Any, **options: Any) -> kd.RidgeStatistics:
    """Statistics of all but the last rows of a stream, as after a crash."""
    X, y = data
    statistics = empty(**options)
    with pytest.raises(ConnectionError):
        statistics.update_batches(_breaking(X, y), holdout=0.1, seed=3)
    assert 0 < statistics.rows_read < N
    return statistics


def _breaking(X: Array, y: Array) -> Iterator[Any]:
    yield from cut(X[: N - 200], y[: N - 200], 1000)
    raise ConnectionError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"holdout": 0.2}, "holdout=0.1, not 0.2; resume with the same"),
        ({"holdout": 0.0}, "holdout=0.1, not 0.0"),
        ({"seed": 4}, "seed=3, not 4"),
        ({"first_row": 5}, "first_row=0, not 5"),
        ({"max_held_out": 7}, "max_held_out=100000, not 7"),
    ],
)
@pytest.mark.parametrize("travelled", [False, True])
def test_a_stream_that_goes_on_with_another_split_is_refused(
    data: Any, tmp_path: Path, change: dict[str, Any], words: str, travelled: bool
) -> None:
    statistics = resumed(data)
    if travelled:
        statistics.save(tmp_path / "s.npz")
        statistics = kd.RidgeStatistics.load(tmp_path / "s.npz")
    before = statistics.copy()
    options = {"holdout": 0.1, "seed": 3, "skip": statistics.rows_read, **change}
    with pytest.raises(ValueError, match=words):
        statistics.update_batches(cut(*data, 1000), **options)
    assert_same(statistics, before)
    statistics.update_batches(cut(*data, 1000), holdout=0.1, seed=3, skip=statistics.rows_read)
    assert statistics.rows_read == N


@pytest.mark.parametrize("targets", ["classes", "real"])
def test_a_stream_that_goes_on_in_another_order_is_refused(data: Any, targets: str) -> None:
    X, y = data
    real = np.stack([y, 2 * y], axis=1).astype(np.float32)
    own, options = (y, {}) if targets == "classes" else (real, {"classes": None, "n_targets": 2})
    statistics = resumed((X, own), **options)
    before, order = statistics.copy(), np.random.default_rng(1).permutation(N)
    with pytest.raises(kd.DataError, match=r"labels before skip are not those .* shuffle=True"):
        statistics.update_batches(cut(X[order], own[order], 1000), holdout=0.1, seed=3, skip=statistics.rows_read)
    assert_same(statistics, before)
    statistics.update_batches(cut(X, own, 777), holdout=0.1, seed=3, skip=statistics.rows_read)
    assert statistics.rows_read == N


def test_an_interrupted_stream_may_be_resumed_twice(data: Any) -> None:
    X, y = data
    expected, statistics = empty(), resumed(data)
    expected.update_batches(cut(X, y, 1000), holdout=0.1, seed=3)
    with pytest.raises(ConnectionError):
        statistics.update_batches(_breaking(X, y), holdout=0.1, seed=3, skip=statistics.rows_read)
    statistics.update_batches(cut(X, y, 100), holdout=0.1, seed=3, skip=statistics.rows_read)
    assert_same(statistics, expected)


def test_a_stream_without_rows_is_said(data: Any) -> None:
    X, y = data
    stream, statistics = cut(X, y, 1000), empty()
    statistics.update_batches(stream)
    with pytest.warns(kd.DataWarning, match="the stream has no rows"):
        statistics.update_batches(stream)
    assert statistics.n == N


def test_a_pair_in_place_of_a_stream_is_told_of_update(data: Any) -> None:
    with pytest.raises(TypeError, match=r"one batch is update\(X, y\)"):
        empty().update_batches(data)


def test_targets_and_weights_beside_a_memory_map_may_be_used_again(data: Any, tmp_path: Path) -> None:
    """Blocks are read ahead: what the stream overwrites meanwhile is copied before."""
    X, _ = data
    np.save(tmp_path / "x.npy", X[: 2 * FLUSH_ROWS])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    y, w = np.empty((FLUSH_ROWS, 1)), np.empty(FLUSH_ROWS)

    def reusing() -> Iterator[Any]:
        for part in range(2):
            y[:], w[:] = part, part + 1
            yield mapped[part * FLUSH_ROWS : (part + 1) * FLUSH_ROWS], y, w

    statistics = kd.RidgeStatistics(PHI, n_targets=1)
    statistics.update_batches(reusing())
    assert statistics.target_sum.tolist() == [2 * FLUSH_ROWS]
    assert statistics.total_weight == 3 * FLUSH_ROWS


def test_a_stream_too_short_to_go_on_leaves_its_place(data: Any) -> None:
    X, y = data
    statistics, seen = resumed(data), []
    before = statistics.copy()
    options = {"holdout": 0.1, "seed": 3, "skip": statistics.rows_read}
    with pytest.raises(kd.DataError):
        statistics.update_batches(cut(X[:500], y[:500], 100), progress=seen.append, **options)
    assert not seen
    assert_same(statistics, before)
    statistics.update_batches(cut(X, y, 1000), **options)
    assert statistics.rows_read == N


def test_numbers_of_numpy_travel_with_a_stream(data: Any, tmp_path: Path) -> None:
    X, y = data
    statistics = empty()
    statistics.update_batches(cut(X, y, 1000), holdout=np.float32(0.1), first_row=np.int64(5), seed=np.int64(3))
    statistics.save(tmp_path / "s.npz")
    assert kd.RidgeStatistics.load(tmp_path / "s.npz").rows_read == statistics.rows_read


def test_float16_and_float32_in_one_stream_are_refused(data: Any) -> None:
    """Rows of float32 were rounded to the float16 of the rows before them."""
    X, y = data
    batches = [(X[:100].astype(np.float16), y[:100]), (X[100:200].astype(np.float32), y[100:200])]
    with pytest.raises(kd.DataError, match=r"batch 1 .*: X is float32, in the first batch it was float16"):
        empty().update_batches(batches)
