"""What stays on the GPU between operations: G, and memory that waits. On the emulated device."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import threading
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from conftest import stages
from krrdistill.backends import Backend, Layer
from krrdistill.backends.base import MapStages
from krrdistill.backends.cuda import CudaBackend, ResidentGram
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError, DeviceError, DeviceOutOfMemory
from krrdistill.ridge.stores import _packed
from test_cuda import FLOAT32, FLOAT64, OPERATIONS, same

Array = npt.NDArray[Any]


def test_statistics_on_the_device_are_those_of_the_host(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 9, (60, 12)).astype(np.float64), rng.integers(0, 3, 60)  # sums of integers, in any order
    phi = kd.Identity(12)
    cuda = CudaBackend()
    there, here = (kd.RidgeStatistics(phi, 3, precision="float64", backend=b, shard="a") for b in (cuda, "array"))
    for part in (np.arange(20), np.arange(20, 60)):
        there.update(X, y, rows=part)
        here.update(X, y, rows=part)
    tolerances.assert_exact(there.gram, here.gram)
    tolerances.assert_exact(there.gram, there.gram.T)
    for sums in (there.copy(), pickle.loads(pickle.dumps(here)), there):
        other = kd.RidgeStatistics(phi, 3, precision="float64", backend=CudaBackend(), shard="b").update(X[::-1], y)
        sums.merge(other)
        tolerances.assert_exact(sums.gram, 2.0 * here.gram)
        sums.__isub__(other)
        tolerances.assert_exact(sums.gram, here.gram)
    models = [kd.fit_model(statistics, 0.5).W for statistics in (there, here)]
    tolerances.assert_solve(*models, condition=1e6)


def test_g_that_stays_crosses_the_bus_when_asked_for(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 256, (200, 64), dtype=np.uint8), rng.integers(0, 3, 200)
    statistics = kd.RidgeStatistics(kd.Identity(64), 3, backend=CudaBackend())
    statistics.update(X, y)
    square = 64 * 64 * 8
    device.bus_bytes()
    statistics.update(X, y)
    to_device, to_host = device.bus_bytes()
    assert to_device < X.nbytes + square
    assert to_host < square
    assert statistics.gram.shape == (64, 64)
    assert square <= device.bus_bytes()[1] < 2 * square


def test_statistics_that_were_pickled_go_on_where_they_arrive(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 9, (60, 12)).astype(np.float64), rng.integers(0, 3, 60)
    statistics = kd.RidgeStatistics(kd.Identity(12), 3, precision="float64", backend="cuda").update(X, y)
    arrived = pickle.loads(pickle.dumps(statistics)).update(X, y)
    assert isinstance(arrived.system().gram, ResidentGram)
    tolerances.assert_exact(arrived.gram, 2.0 * statistics.gram)


def test_g_travels_as_an_array(device: ModuleType) -> None:
    gram = CudaBackend().own_gram(np.diag([1.0, 2.0]))
    for arrived in (pickle.loads(pickle.dumps(gram)), copy.deepcopy(gram)):
        tolerances.assert_exact(arrived, np.diag([1.0, 2.0]))


def test_g_whose_bytes_cannot_be_counted_is_refused(device: ModuleType) -> None:
    for p in (-1, 2**29, 2**31, 2**32, 2**40):
        with pytest.raises(ValueError, match="p must not be negative, and the bytes of G must fit 64 bits"):
            CudaBackend().zero_gram(p)
    with pytest.raises(DeviceOutOfMemory, match="of device memory are needed"):
        CudaBackend().zero_gram(2**28)


def test_g_of_another_backend_is_refused(device: ModuleType) -> None:
    one, two = CudaBackend(), CudaBackend()
    gram = one.zero_gram(3)
    with pytest.raises(ValueError, match="gram is of another backend"):
        two.accumulate(stages(3, ()), np.ones((2, 3)), np.zeros(2, np.int64), gram, np.zeros((1, 3)), dtype=FLOAT64)
    with pytest.raises(ValueError, match="of another backend or another size"):
        gram.add(one.zero_gram(4))
    with pytest.raises(TypeError, match="gram must be a float64 array"):
        one.accumulate(stages(3, ()), np.ones((2, 3)), np.zeros(2, np.int64), None, np.zeros((1, 3)), dtype=FLOAT64)
    assert two.own_gram(gram) is not gram
    assert one.own_gram(gram) is gram


def test_memory_waits_for_the_next_operation_until_it_is_released(device: ModuleType) -> None:
    before = device.live_objects()
    backend = CudaBackend()
    alone = device.live_objects()
    expected = OPERATIONS["accumulate-classes"](backend)
    waiting = device.live_objects()
    assert waiting > alone
    device.emulate()
    assert same(OPERATIONS["accumulate-classes"](backend), expected)
    assert device.live_objects() == waiting
    backend.release_memory()
    assert device.live_objects() == alone
    del backend
    gc.collect()
    assert device.live_objects() == before


@pytest.mark.parametrize(("rows", "width", "ld"), [(1, 5_000_000, 5_000_000), (3, 3_000_001, 3_000_016)])
def test_long_copies_go_through_pinned_memory(device: ModuleType, rows: int, width: int, ld: int) -> None:
    weight = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    X = np.zeros((1, width), np.float32)
    X[0, -1] = 1.0
    features = CudaBackend().transform(stages(width, (Layer(weight, None, "linear", 1.0),)), X, dtype=FLOAT32)
    tolerances.assert_exact(features, weight[:, -1:].T)


def test_long_results_go_through_pinned_memory(device: ModuleType) -> None:
    p = 1700  # three parts of the ring, which then serves again
    gram = np.arange(p * p, dtype=np.float64).reshape(p, p)
    expected = np.tril(gram) + np.tril(gram, -1).T
    backend = CudaBackend()
    resident = backend.own_gram(gram)
    tolerances.assert_exact(np.asarray(resident), expected)
    for eager in (False, True):
        device.emulate(eager=eager)
        copied = gram.copy()
        backend.symmetrize(copied)
        tolerances.assert_exact(copied, expected)


def test_trace_waits_for_g(device: ModuleType) -> None:
    gram = CudaBackend().own_gram(np.diag(np.arange(1.0, 6.0)))
    assert gram.trace() == 15.0


@pytest.mark.parametrize("p", [1, 5, 300])
def test_trace_is_that_of_g_as_it_is(device: ModuleType, p: int) -> None:
    backend, ones = CudaBackend(), np.ones((2, p))
    gram = backend.zero_gram(p)
    assert gram.trace() == 0.0

    def add() -> None:
        backend.accumulate(stages(p), ones, np.zeros(2, np.int64), gram, np.zeros((1, p)), dtype=FLOAT64)

    add()
    device.calls_by_name()
    assert gram.trace() == 2.0 * p
    assert not device.calls_by_name()  # it came with C
    add()
    copied = gram.copy()
    gram.add(copied)
    for found, expected in ((gram, 8.0 * p), (copied, 4.0 * p)):
        assert found.trace() == found.trace() == expected
        tolerances.assert_exact(np.asarray(found), np.full((p, p), expected / p))
    gram.clear()
    assert gram.trace() == 0.0
    device.emulate()
    add()
    calls = device.calls()
    device.emulate(fail_at=calls // 2)
    with pytest.raises((DeviceError, DeviceOutOfMemory)):
        add()
    device.emulate()
    assert gram.trace() == np.trace(np.asarray(gram))


def test_trace_comes_where_there_are_no_targets(device: ModuleType) -> None:
    backend = CudaBackend()
    gram = backend.zero_gram(3)
    backend.accumulate(stages(3), np.ones((2, 3)), np.zeros((2, 0)), gram, np.zeros((0, 3)), dtype=FLOAT64)
    assert gram.trace() == 6.0


def test_sums_of_classes_are_added_to_those_so_far(device: ModuleType) -> None:
    backend, X, cross = CudaBackend(), np.ones((4, 3)), np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    before = cross.copy()
    for dtype in (FLOAT32, FLOAT64):
        backend.accumulate(stages(3), X, np.array([0, 1, 1, 1]), backend.zero_gram(3), cross, dtype=dtype)
    tolerances.assert_exact(cross, before + np.array([[2.0], [6.0]]))


# Memory that operations leave behind


def test_memory_of_g_and_of_models_serves_the_next_ones(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 256, (200, 64), dtype=np.uint8), rng.integers(0, 3, 200)
    backend = CudaBackend()

    def work() -> int:
        statistics = kd.RidgeStatistics(kd.Identity(64), 3, backend=backend).update(X, y)
        path = kd.ridge_path(statistics, [1.0, 10.0])
        assert path.weights[1].shape == (3, 64)
        calls = device.calls_by_name()
        return sum(calls.get(name, 0) for name in ("cudaMalloc", "cudaFree", "cudaMallocHost", "cudaMemGetInfo"))

    assert work() > 0
    assert work() == 0


@pytest.mark.parametrize("options", [{"keep_memory": False}, {"memory_budget": 1 << 20}])
def test_memory_of_g_goes_back_to_the_device_at_once(device: ModuleType, options: dict[str, Any]) -> None:
    device.emulate(devices=2)
    backend = CudaBackend(device=1, **options)
    alone = device.live_objects()
    gram = backend.zero_gram(30)
    assert device.live_objects() == alone + 1
    del gram
    assert device.live_objects() == alone
    assert device.current_device() == 0


def test_g_that_outlives_its_backend_holds_it(device: ModuleType) -> None:
    before = device.live_objects()
    gram = CudaBackend().own_gram(np.eye(3))
    tolerances.assert_exact(np.asarray(gram), np.eye(3))
    del gram
    gc.collect()
    assert device.live_objects() == before


def test_g_may_end_in_one_thread_while_another_works(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 9, (60, 12)).astype(np.float64), np.zeros(60, np.int64)
    backend = CudaBackend()
    found: list[Array] = []

    def work() -> None:
        for _ in range(30):
            gram = backend.zero_gram(12)
            backend.accumulate(stages(12), X, y, gram, np.zeros((1, 12)), dtype=FLOAT64)
            found.append(np.asarray(gram))

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        backend.zero_gram(12)  # and its end
    assert len(found) == 30
    for gram in found:
        tolerances.assert_exact(gram, X.T @ X)


def test_memory_that_waits_is_not_wasted_on_what_is_half_as_large(device: ModuleType) -> None:
    """Else two matrices that fit would not: the first would stay in memory that is large enough for both."""
    device.emulate(memory=10_000_000)
    backend = CudaBackend()
    backend.place(np.ones((1000, 1000)))
    A = backend.place(np.ones((1000, 510)))
    tolerances.assert_exact(np.asarray(A + A), np.full((1000, 510), 2.0))


# What is free


class Sum:
    """G of 500 rows of bytes. 60 kB are room for some of them at a time, on what takes more."""

    little = 60_000

    def __init__(self, device: ModuleType, rng: np.random.Generator) -> None:
        self.device, self.backend = device, CudaBackend()
        self.X = rng.integers(0, 4, (500, 40)).astype(np.uint8)

    def add(self) -> dict[str, int]:
        """How often each call was made; the sum is right."""
        gram = np.zeros((40, 40))
        self.device.calls_by_name()
        self.backend.accumulate(stages(40), self.X, np.zeros(500, np.int64), gram, np.zeros((1, 40)), dtype=FLOAT32)
        tolerances.assert_exact(np.tril(gram), np.tril(self.X.T.astype(np.float64) @ self.X))
        return dict(self.device.calls_by_name())

    def tiles(self) -> int:
        return self.add()["cublasGemmEx"]


def test_what_is_free_is_asked_for_when_memory_is_needed(device: ModuleType, rng: np.random.Generator) -> None:
    one_sum = Sum(device, rng)
    assert one_sum.add()["cudaMemGetInfo"] == 1
    assert "cudaMemGetInfo" not in one_sum.add()
    one_sum.device.emulate(memory=1)  # others have taken the rest
    calls = one_sum.add()
    assert "cudaMemGetInfo" not in calls
    assert calls["cublasGemmEx"] == 1
    one_sum.backend.release_memory()
    with pytest.raises(DeviceOutOfMemory, match="needs at least"):
        one_sum.add()


def test_memory_that_has_gone_is_not_counted_on(device: ModuleType, rng: np.random.Generator) -> None:
    one_sum = Sum(device, rng)
    assert one_sum.tiles() == 1
    one_sum.backend.release_memory()
    one_sum.device.emulate(memory=one_sum.little)
    assert one_sum.tiles() > 1
    assert one_sum.tiles() > 1  # what fitted once was fewer rows


def test_an_operation_that_failed_says_nothing_of_what_fits(device: ModuleType, rng: np.random.Generator) -> None:
    one_sum = Sum(device, rng)
    number = 10
    while one_sum.device.failed() != "cudaMalloc":  # in the middle of what it allocates
        number += 1
        one_sum.backend.release_memory()
        one_sum.device.emulate(fail_at=number)
        with contextlib.suppress(DeviceError, DeviceOutOfMemory):
            one_sum.add()
    one_sum.device.emulate(memory=one_sum.little)
    assert one_sum.tiles() > 1


def test_memory_that_an_operation_has_taken_counts_as_what_was_free(device: ModuleType) -> None:
    p, k, lambdas = 40, 10, np.array([1.0, 2.0, 3.0, 4.0])
    gram, cross = np.eye(p), np.ones((k, p))
    expected = np.asarray(CudaBackend().ridge_path(gram, cross, lambdas, rounding=0.0).weights)
    device.peak_bytes()
    CudaBackend().ridge_path(gram, cross, lambdas, rounding=0.0)
    peak = device.peak_bytes()
    device.emulate(memory=int(peak / 0.9) + 1000)
    backend = CudaBackend()
    backend.zero_gram(40)  # its memory waits, and serves the models: they have as many numbers
    tolerances.assert_exact(np.asarray(backend.ridge_path(gram, cross, lambdas, rounding=0.0).weights), expected)


def facts(statistics: kd.RidgeStatistics) -> str:
    """Everything that statistics say of themselves."""
    header, arrays = statistics.to_arrays()
    return repr((header, sorted(arrays.items()), statistics.classes))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("samples", [0, 5, 40])
@pytest.mark.parametrize("theirs", ["same", "another", "host"])
def test_a_merge_that_fails_changes_nothing(
    device: ModuleType, rng: np.random.Generator, theirs: str, samples: int, sign: int
) -> None:
    X, y = rng.integers(0, 9, (60, 12)).astype(np.float64), rng.integers(0, 3, 60)
    cuda = CudaBackend()
    backends: dict[str, Any] = {"same": cuda, "another": CudaBackend(), "host": "array"}
    phi = kd.Identity(12)
    other = kd.RidgeStatistics(phi, ["a", "b", "c"], precision="float64", backend=backends[theirs], shard="other")
    other.update(X[20:50], np.array(["a", "b", "c"])[y[20:50]])
    before = kd.RidgeStatistics(phi, ["a", "b"], precision="float64", backend=cuda, shard="own")
    before.update(X[:samples], np.array(["a", "b"])[y[:samples] % 2])
    if sign < 0:
        before.merge(other)
    operation = kd.RidgeStatistics.merge if sign > 0 else kd.RidgeStatistics.__isub__
    number, failures = 0, 0
    while True:
        number += 1
        statistics = before.copy()
        device.emulate(fail_at=number)
        try:
            operation(statistics, other)
        except (DeviceError, DeviceOutOfMemory):
            failures += 1
            device.emulate()
            assert facts(statistics) == facts(before)
        else:
            if not device.failed():
                break
    assert failures >= 3  # the device before, this one, and the sum


def test_an_update_of_g_that_fails_is_refused_afterwards(device: ModuleType, rng: np.random.Generator) -> None:
    X, y = rng.integers(0, 9, (60, 12)).astype(np.float64), rng.integers(0, 3, 60)
    before = kd.RidgeStatistics(kd.Identity(12), 3, precision="float64", backend=CudaBackend()).update(X, y)
    twice = 2.0 * before.gram
    number, failures = 0, 0
    while True:
        number += 1
        statistics = before.copy()
        device.emulate(fail_at=number)
        try:
            statistics.update(X, y)
        except (DeviceError, DeviceOutOfMemory):
            failures += 1
            device.emulate()
            with pytest.raises(DataError, match="an update was interrupted in the middle"):
                statistics.system()
        else:
            failed = device.failed()
            device.emulate()
            tolerances.assert_exact(statistics.gram, twice)
            if not failed:
                break
    assert failures >= 20


# Packed


@pytest.mark.parametrize("p", [1, 31, 32, 33, 300])
@pytest.mark.parametrize("room", [0, 7])
def test_a_packed_triangle_is_that_of_the_host(device: ModuleType, rng: np.random.Generator, p: int, room: int) -> None:
    first, second, numbers = rng.standard_normal((p, p)), rng.standard_normal((p, p)), rng.standard_normal(room)
    gram = CudaBackend().own_gram(first)
    np.asarray(gram)  # above the diagonal there is from here on what is not G
    gram.add(second)
    device.bus_bytes()
    packed = gram.packed(room)
    packed.write(numbers)
    assert device.bus_bytes() == (8 * room, 0)
    array = device.read(packed.shared())[0]
    tolerances.assert_exact(array[:room], numbers)
    tolerances.assert_exact(array[room:], _packed(np.asarray(gram)))
    tolerances.assert_exact(array[room:], (first + second)[np.tril_indices(p)])
    device.bus_bytes()
    other = packed.unpacked()
    tolerances.assert_exact(packed.read(), numbers)
    assert device.bus_bytes() == (0, 8 * room)
    tolerances.assert_exact(np.asarray(other), np.asarray(gram))
    assert other.trace() == gram.trace()
    gram.clear()
    tolerances.assert_exact(np.asarray(packed.unpacked()), np.asarray(other))  # a copy
    with pytest.raises(ValueError, match="numbers: \\(room,\\)"):
        packed.write(np.zeros(room + 1))


def test_a_packed_triangle_that_is_shared_outlives_everything(device: ModuleType) -> None:
    before = device.live_objects()
    shared = CudaBackend().own_gram(np.eye(3)).packed(0).shared()
    gc.collect()
    assert device.live_objects() == before + 1
    tolerances.assert_exact(device.read(shared), [[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]])


# Weights


def frozen(rows: int, width: int, dtype: Any = np.float32) -> Array:
    """A read-only weight of small integers that is large enough to stay."""
    weight = np.arange(rows * width, dtype=dtype).reshape(rows, width) % 7
    weight.flags.writeable = False
    return weight


def linear(weight: Array) -> MapStages:
    return stages(weight.shape[1], (Layer(weight, None, "linear", 1.0),))


def features(backend: Backend, weight: Array, dtype: Any = FLOAT32) -> Array:
    """The map of a weight, of two rows of ones: sums of small integers."""
    X = np.ones((2, weight.shape[1]), dtype)
    return np.asarray(backend.transform(linear(weight), X, dtype=dtype))


def expected_features(weight: Array) -> Array:
    return np.tile(weight.sum(axis=1), (2, 1))


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_a_weight_crosses_the_bus_once_while_it_lives(device: ModuleType, dtype: Any) -> None:
    weight, backend = frozen(600, 500), CudaBackend()
    alone, expected = device.live_objects(), expected_features(weight)
    device.bus_bytes()
    for repeat in range(3):
        tolerances.assert_exact(features(backend, weight, dtype), expected)
        assert (device.bus_bytes()[0] >= weight.nbytes) == (repeat == 0)
    backend.release_memory()
    assert device.live_objects() == alone
    tolerances.assert_exact(features(backend, weight, dtype), expected)
    assert device.bus_bytes()[0] >= weight.nbytes
    del weight
    assert not backend._kept
    backend.release_memory()
    assert device.live_objects() == alone


def test_weights_that_begin_at_one_address_are_told_apart(device: ModuleType) -> None:
    weight, backend = frozen(1024, 600), CudaBackend()
    for view in (weight[:500], weight, weight.reshape(2048, 300), weight.ravel()[:900].reshape(30, 30)):
        tolerances.assert_exact(features(backend, view), expected_features(view))


def test_a_weight_that_somebody_can_write_into_does_not_stay(device: ModuleType) -> None:
    backend, weight = CudaBackend(), np.array(frozen(600, 500))
    view = weight.view()
    view.flags.writeable = False
    for dtype in (FLOAT32, FLOAT64):
        for seen in (weight, view):
            features(backend, seen, dtype)
            weight += 1
            tolerances.assert_exact(features(backend, seen, dtype), expected_features(weight))
    weight.flags.writeable = False
    features(backend, weight)
    weight.flags.writeable = True
    weight += 1
    tolerances.assert_exact(features(backend, weight), expected_features(weight))


def test_whitening_cannot_be_written_into() -> None:
    whitening = np.eye(3)
    preprocessing = Preprocessing("zca", np.zeros(3), np.ones(3), whitening)
    whitening[0, 0] = 2.0
    assert preprocessing.whitening is not None
    tolerances.assert_exact(preprocessing.whitening, np.eye(3))
    with pytest.raises(ValueError, match="read-only"):
        preprocessing.whitening[0, 0] = 2.0


def test_a_weight_that_outlives_its_backend_holds_nothing_of_it(device: ModuleType) -> None:
    before, weight = device.live_objects(), frozen(600, 500)
    backend = CudaBackend()
    features(backend, weight)
    del backend
    gc.collect()
    assert device.live_objects() == before
    tolerances.assert_exact(features(CudaBackend(), weight), expected_features(weight))


def test_weights_that_stay_take_a_quarter_of_the_memory_at_most(device: ModuleType) -> None:
    weights = [frozen(600, 500 + i) for i in range(6)]
    device.emulate(memory=12 * weights[0].nbytes)
    backend = CudaBackend()
    for _ in range(2):
        for weight in weights:
            tolerances.assert_exact(features(backend, weight), expected_features(weight))
    assert [kept.copy.stays for kept in backend._kept.values()] == [True, True, False, False, False, False]


def test_room_for_a_weight_that_stays_is_not_needed_twice(device: ModuleType) -> None:
    weight = frozen(600, 500)
    device.emulate(memory=100 * weight.nbytes)
    backend = CudaBackend()
    features(backend, weight)
    device.emulate(memory=2 * weight.nbytes)  # as if somebody else had taken it
    tolerances.assert_exact(features(backend, weight), expected_features(weight))


def test_memory_that_is_released_while_an_operation_runs_stays_for_it(device: ModuleType) -> None:
    weight, backend, X = frozen(600, 500), CudaBackend(), np.ones((100, 500), np.float32)
    found: list[Array] = []

    def work() -> None:
        found.extend(backend.transform(linear(weight), X, dtype=FLOAT32) for _ in range(10))

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        backend._kept.clear()  # what release_memory does first; then it waits for the operation
    backend.release_memory()
    assert len(found) == 10
    for values in found:
        tolerances.assert_exact(values, np.tile(weight.sum(axis=1), (100, 1)))
