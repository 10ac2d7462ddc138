"""How many threads an operation takes: one where it is small, all of them where it is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl

import krrdistill as kd
import oracles
import tolerances
from krrdistill.backends import compiled
from krrdistill.backends.native import NativeBackend
from krrdistill.common import threads as module
from krrdistill.common.threads import allowed_threads, blas_for, limited_threads, threads_for
from krrdistill.errors import DataError, NotPositiveDefinite
from krrdistill.maps.base import FeatureMap

native = pytest.importorskip("krrdistill._native")
Array = npt.NDArray[Any]
LARGE = 1e12
SMALL = 1e3


def counts() -> tuple[int, set[int]]:
    """(threads of the loops of the compiled core, threads of every BLAS)"""
    loops = native.set_threads(1)
    native.set_threads(loops)
    blas = {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}
    return loops, blas


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """Three threads of everything, whatever machine this is."""
    before = native.set_threads(3)
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        yield
    native.set_threads(before)


class Recorder:
    """The compiled module, which notes the threads at each call."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, set[int]]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(native, name)

        def call(*arguments: Any) -> Any:
            self.seen[name] = counts()
            return operation(*arguments)

        return call


def spd(batch: int, n: int) -> Array:
    A = np.random.default_rng(0).standard_normal((batch, n, n))
    return np.asarray(A @ A.transpose(0, 2, 1) + n * np.eye(n))


def operations(backend: NativeBackend, n: int) -> None:
    """Every operation, at sizes that grow with n."""
    rng = np.random.default_rng(0)
    phi, X = kd.FCNN(n, seed=0), rng.standard_normal((4 * n, n)).astype(np.float32)
    labels, dtype = rng.integers(0, 3, 4 * n), np.dtype(np.float32)
    G, C = np.zeros((n, n)), np.zeros((3, n))
    backend.transform(phi, X, dtype=dtype)
    backend.accumulate(phi, X, labels, G, C, dtype=dtype)
    backend.symmetrize(G)
    path = backend.ridge_path(G + np.eye(n), C, np.geomspace(0.1, 10.0, 8), rounding=1e-7)
    backend.degrees_of_freedom(G, np.ones(1))
    backend.score_path(phi, X, labels, np.asarray(path.weights), dtype=dtype)
    backend.preimage_solve(rng.standard_normal((n, n)), X.astype(np.float64))


@pytest.mark.parametrize(("n", "loops"), [(16, 1), (900, 3)])
def test_an_operation_takes_all_threads_where_it_is_worth_them(n: int, loops: int) -> None:
    backend, recorder = NativeBackend(), Recorder()
    backend._operations = recorder
    operations(backend, n)
    alone = {"symmetrize", "accumulate"} if loops == 3 else set()  # little work; rows beside each other without BLAS's
    seen = {name: threads for name, threads in recorder.seen.items() if name not in alone}
    assert seen == dict.fromkeys(seen, (loops, {loops}))
    assert len(recorder.seen) >= 7
    assert counts() == (3, {3})


def test_the_sums_of_a_small_path_do_not_wake_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    sums = compiled.path_sums
    monkeypatch.setattr(compiled, "path_sums", lambda *arguments: seen.append(counts()) or sums(*arguments))
    X, y = np.random.default_rng(0).standard_normal((500, 128)), np.arange(500) % 100
    kd.ridge_path(kd.RidgeStatistics(kd.Identity(128), classes=100, backend="native").update(X, y))
    assert seen == [(1, {1})]


@pytest.mark.parametrize(
    ("batch", "n", "r", "expected"), [(2, 8, 1, (1, {1})), (400, 64, 100, (3, {1})), (2, 900, 9, (3, {3}))]
)
def test_small_systems_are_solved_beside_each_other(batch: int, n: int, r: int, expected: Any) -> None:
    backend, recorder = NativeBackend(), Recorder()
    backend._operations = recorder
    A, B = spd(batch, n), np.random.default_rng(1).standard_normal((batch, n, r))
    found = backend.solve_spd(A, B)
    tolerances.assert_solve(found, np.linalg.solve(A, B), max(oracles.condition(a) for a in A))
    assert recorder.seen == {"solve_spd": expected}


def test_of_systems_beside_each_other_the_first_without_solution_is_named() -> None:
    A, B = spd(200, 24), np.ones((200, 24, 40))
    A[150, 3, 3] = A[61, 7, 7] = -1.0
    with pytest.raises(NotPositiveDefinite, match="minor 8"):
        NativeBackend().solve_spd(A, B)


def test_threads_come_back_after_a_small_operation_that_failed() -> None:
    with pytest.raises(NotPositiveDefinite):
        NativeBackend().solve_spd(-np.eye(3)[None], np.ones((1, 3, 1)))
    assert counts() == (3, {3})


@contextmanager
def within(operations: float) -> Iterator[None]:
    with threads_for(operations), blas_for(operations):
        yield


def test_the_lowest_limit_of_nested_blocks_holds() -> None:
    with within(LARGE):
        assert counts() == (3, {3})
    with limited_threads(2):
        with within(SMALL):
            assert counts() == (1, {1})
        assert counts()[1] == {2}
        with within(LARGE):
            assert counts()[1] == {2}
    with within(SMALL), within(LARGE):
        assert counts() == (1, {1})
    assert counts() == (3, {3})


@pytest.mark.parametrize("phi", [kd.FCNN(128, seed=0), kd.Identity(128)], ids=["layers", "rows as they are"])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_few_features_are_summed_beside_each_other_with_the_same_bits(threads: int, phi: FeatureMap) -> None:
    backend, recorder = NativeBackend(), Recorder()
    backend._operations = recorder
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20_000, 128)), rng.integers(0, 5, 20_000)
    rows = rng.permutation(20_000)[:17_000]
    found = np.zeros((128, 128)), np.zeros((5, 128))
    native.set_threads(threads)
    backend.accumulate(phi, X, y, *found, dtype=np.dtype(np.float32), rows=rows)
    assert recorder.seen["accumulate"] == (threads, {1})
    assert counts() == (threads, {3})
    expected = np.zeros((128, 128)), np.zeros((5, 128))
    for start in range(0, len(rows), 4096):  # one group after the other
        backend.accumulate(phi, X, y, *expected, dtype=np.dtype(np.float32), rows=rows[start : start + 4096])
    for ours, theirs in zip(found, expected, strict=True):
        tolerances.assert_exact(ours, theirs)
    X[rows[9000]] = np.nan
    X[rows[16000]] = np.inf
    with pytest.raises(DataError, match=f"row {rows[9000]} holds NaN"):
        backend.accumulate(phi, X, y, *found, dtype=np.dtype(np.float32), rows=rows)
    assert counts() == (threads, {3})


@pytest.mark.parametrize("outer", [None, 2])
def test_interruption_while_a_limit_is_set_leaves_none(outer: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, steps = module._set_blas, iter([True])

    def interrupted() -> None:
        whole()
        if next(steps, False):
            raise KeyboardInterrupt

    free = allowed_threads()
    with limited_threads(outer):
        before = counts()
        monkeypatch.setattr(module, "_set_blas", interrupted)
        with pytest.raises(KeyboardInterrupt), blas_for(SMALL):
            pass
        assert counts() == before
        assert allowed_threads() == min(outer or free, free)
    assert counts() == (3, {3})


def test_small_operation_keeps_its_one_thread_when_another_ends() -> None:
    """Of two at once, the later one took the limit of the other, and went on with all threads: other bits."""
    first, second = blas_for(SMALL), blas_for(SMALL)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert counts()[1] == {1}
    second.__exit__(None, None, None)
    assert counts()[1] == {3}
