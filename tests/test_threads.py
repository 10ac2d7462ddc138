"""Objects that several Python threads share: the bits of one thread, whole states, and what is refused."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from conftest import framework
from krrdistill.common.threads import limited_threads
from krrdistill.maps import FeatureMap

THREADS, LIMIT = 8, 120  # seconds, after which a thread hangs

pytestmark = pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning")


def together(act: Callable[[int], Any]) -> list[Any]:
    """What ``act(0)`` ... gives in as many threads, which start at once."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        start.wait(LIMIT)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS), timeout=LIMIT))


def integers(rng: np.random.Generator, rows: int, d: int) -> tuple[Any, Any]:
    """Samples whose sums are exact in float64, in any order."""
    return rng.integers(0, 256, (rows, d)).astype(np.float64), rng.integers(0, 3, rows)


def numbers_of(statistics: kd.RidgeStatistics) -> dict[str, Any]:
    names = ("n", "total_weight", "gram", "cross", "feature_sum", "target_sum", "target_square")
    return {name: np.asarray(getattr(statistics, name)) for name in names}


@pytest.mark.parametrize("kind", ["bytes", "float64", "weighted"])
@pytest.mark.parametrize("held_as", ["rows", "sums"])
def test_statistics_updated_by_threads_have_the_bits_of_one(kind: str, held_as: str, rng: np.random.Generator) -> None:
    d, rounds, size = (2000, 3, 5) if held_as == "rows" else (24, 20, 50)
    X, y = integers(rng, THREADS * rounds * size, d)
    X = X.astype(np.uint8) if kind == "bytes" else X
    weight = rng.integers(1, 4, len(X)) ** 2.0 if kind == "weighted" else None
    phi = kd.Identity(d)
    shared, serial = (kd.RidgeStatistics(phi, 3, precision="float64") for _ in range(2))

    def act(number: int) -> None:
        for step in range(rounds):
            part = slice((number * rounds + step) * size, (number * rounds + step + 1) * size)
            shared.update(X[part], y[part], sample_weight=None if weight is None else weight[part])

    together(act)
    serial.update(X, y, sample_weight=weight)
    expected = numbers_of(serial)
    for name, found in numbers_of(shared).items():
        tolerances.assert_exact(found, expected[name])


def test_statistics_merged_by_threads_have_the_bits_of_one(rng: np.random.Generator) -> None:
    X, y = integers(rng, 20 * THREADS, 6)
    phi = kd.Identity(6)
    shared = kd.RidgeStatistics(phi, 3, precision="float64")

    def act(number: int) -> None:
        part = slice(20 * number, 20 * (number + 1))
        shared.merge(kd.RidgeStatistics(phi, 3, precision="float64").update(X[part], y[part]))

    together(act)
    expected = numbers_of(kd.RidgeStatistics(phi, 3, precision="float64").update(X, y))
    for name, found in numbers_of(shared).items():
        tolerances.assert_exact(found, expected[name])


def test_statistics_read_while_they_are_updated_are_of_one_moment() -> None:
    """Of samples of ones, every entry of every sum is the number of samples."""
    phi, ones, rounds = kd.Identity(64), np.ones((70, 64)), 30
    shared = kd.RidgeStatistics(phi, 1, precision="float64")
    seen: list[kd.RidgeStatistics] = []

    def act(number: int) -> None:
        for _ in range(rounds):
            if number % 2:
                seen.append(shared.copy())
            else:
                shared.update(ones, np.zeros(70, np.int64))

    together(act)
    for statistics in seen:
        for name in ("gram", "cross", "feature_sum", "target_sum"):
            assert (getattr(statistics, name) == statistics.n).all()
    assert shared.n == 70 * rounds * THREADS / 2


def test_statistics_merged_into_each_other_do_not_wait_for_ever(rng: np.random.Generator) -> None:
    X, y = integers(rng, 40, 6)
    phi = kd.Identity(6)
    refused = 0
    for _ in range(20):
        pair = [
            kd.RidgeStatistics(phi, 3, precision="float64").update(X[at], y[at]) for at in (slice(20), slice(20, 40))
        ]

        def act(number: int, pair: list[kd.RidgeStatistics] = pair) -> int:
            try:
                pair[number % 2].merge(pair[1 - number % 2])
            except kd.DataError:
                return 1
            return 0

        refused += sum(together(act))
        assert sorted(statistics.n for statistics in pair) == [20, 40]
    assert refused == 20 * (THREADS - 1)  # the other has these samples already


def test_second_stream_into_statistics_is_refused() -> None:
    statistics = kd.RidgeStatistics(kd.Identity(3), 2)

    def batches() -> Any:
        yield np.eye(3), np.array([0, 1, 1])
        statistics.update_batches([(np.eye(3), np.array([0, 1, 1]))])

    with pytest.raises(RuntimeError, match="another stream"):
        statistics.update_batches(batches())
    copies = statistics.copy()
    copies.update_batches([(2.0 * np.eye(3), np.array([0, 1, 1]))])
    assert (copies.rows_read, copies.n) == (3, statistics.n + 3)


# Objects that nothing changes


def maps() -> dict[str, Callable[[], FeatureMap]]:
    return {
        "identity": lambda: kd.Identity(64),
        "random_fourier": lambda: kd.RandomFourier(64, 48, sigma2=64.0, seed=1),
        "orthogonal_fourier": lambda: kd.OrthogonalFourier(64, 48, sigma2=64.0, seed=1),
        "FCNN": lambda: kd.FCNN(64, seed=1),
        "convolution": lambda: kd.ConvolutionalNetwork((8, 8, 1), channels=(1,), seed=1),
        "user": lambda: kd.UserMap(np.negative, 64, inverse=np.negative, name="negative"),
    }


def assert_same_bits(found: list[Any], expected: Any) -> None:
    for each in found:
        assert each.keys() == expected.keys()
        for name, value in expected.items():
            tolerances.assert_exact(each[name], value)


@pytest.mark.parametrize("name", list(maps()))
def test_shared_map_model_and_points_have_the_bits_of_one_thread(
    name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    X = rng.normal(size=(300, 64))
    y = rng.integers(0, 3, 300)
    F = 0.1 * rng.random((3, maps()[name]().output_dim))

    def of_map(phi: FeatureMap) -> dict[str, Any]:
        return {"features": phi.transform(X), "inputs": phi.preimage(F), "limit": phi.feature_bound(1.0)}

    shared = maps()[name]()
    assert_same_bits(together(lambda _: of_map(shared)), of_map(maps()[name]()))

    def of_points(phi: FeatureMap, number: int) -> dict[str, Any]:
        made = kd.distill(X, y, phi, points_per_class=1, seed=0, threads=1 + number % 3, judge=False).distilled
        return {"inputs": made.inputs, "Y": made.Y}

    assert_same_bits(together(lambda number: of_points(shared, number)), of_points(maps()[name](), 0))

    result = kd.distill(X, y, shared, points_per_class=1, seed=0, judge=False)

    def of_result(number: int) -> dict[str, Any]:
        path = tmp_path / f"{number}.npz"
        result.distilled.save(path)
        certificate = result.distilled.verify(result.model, test=(X, y))
        numbers = certificate.numbers()
        return {"file": np.frombuffer(path.read_bytes(), np.uint8), "labels": result.model.predict(X), **numbers}

    assert_same_bits(together(of_result), of_result(THREADS))


def test_parquet_file_shared_by_threads_gives_its_rows(rng: np.random.Generator, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    X, y = rng.normal(size=(3000, 4)), rng.integers(0, 3, 3000)
    table = arrow.table({**{f"x{i}": X[:, i] for i in range(4)}, "y": y})
    parquet.write_table(table, tmp_path / "data.parquet", row_group_size=100)
    samples = kd.read_samples(tmp_path / "data.parquet", y="y")[0]

    def act(number: int) -> None:
        for first in range(0, 3000, 250):
            rows = np.arange(first, first + 250)[:: 1 if number % 2 else -1]
            tolerances.assert_exact(samples.read(rows), X[rows])

    together(act)


def test_overlapping_limits_leave_torch_as_it_was() -> None:
    torch = framework("torch")
    before = torch.get_num_threads()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with limited_threads(1):
            inside.set()
            leave.wait(LIMIT)

    def of_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return int(pool.submit(torch.get_num_threads).result(LIMIT))

    torch.set_num_threads(3)
    try:
        thread = threading.Thread(target=other)
        with limited_threads(2):
            thread.start()
            inside.wait(LIMIT)
            with limited_threads(1):
                pass
            assert torch.get_num_threads() == 2
        leave.set()
        thread.join(LIMIT)
        assert (torch.get_num_threads(), of_new_thread()) == (3, 3)
    finally:
        torch.set_num_threads(before)


def test_more_threads_than_can_be_started_are_refused(native_module: ModuleType) -> None:
    with pytest.raises(ValueError, match="threads: at most 1024"):
        kd.distill(np.eye(4), np.array([0, 1, 0, 1]), kd.Identity(4), threads=100_000)
    with pytest.raises(ValueError, match="count: 1 to 1024"):
        native_module.set_threads(100_000)


# What they say


PUBLIC = sorted(
    name
    for name in kd.__all__
    if inspect.isclass(getattr(kd, name)) and not issubclass(getattr(kd, name), BaseException)
)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_class_says_whether_threads_may_share_it(name: str) -> None:
    said = [base.__doc__ or "" for base in getattr(kd, name).__mro__]
    assert any("Threads may share" in text for text in said)
