"""What stays on the GPU between operations: G, and memory that waits. On the emulated device."""

from __future__ import annotations

import gc
import pickle
from types import ModuleType

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from conftest import stages
from krrdistill.backends import Layer
from krrdistill.backends.cuda import CudaBackend, ResidentGram
from test_cuda import FLOAT32, FLOAT64, OPERATIONS, same


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
