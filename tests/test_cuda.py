"""The CUDA backend on an emulated device: orders of threads, late streams, failures, leaks, budgets, and its absence.

That its numbers are right is shown in test_backends.py, where it is one more row.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import oracles
import tolerances
from conftest import NO_GPU, CudaArray, emulated_backend, set_tile_rows, stages
from krrdistill.apps.info import machine
from krrdistill.backends import Backend, HadamardWeight, Layer, backend_status, get_backend
from krrdistill.backends.cuda import CudaBackend, forget_shared_backends, shared_backend
from krrdistill.backends.staged import StagedBackend
from krrdistill.common.placed import Cosines
from krrdistill.common.products import (
    add_product,
    add_scaled,
    cholesky,
    gram,
    largest_magnitude,
    product,
    scaled_columns,
    solve_factored,
    symmetric_product,
)
from krrdistill.errors import BackendUnavailable, DataError, DeviceError, DeviceOutOfMemory
from test_backends import make_chain, make_inputs, spd

Array = npt.NDArray[Any]
Operation = Callable[[Backend], list[Array]]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
ORDERS = ("forward", "reverse", "shuffled")


def transform(kind: str, dtype: Any, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(1)
    chain = make_chain(kind, 19, 18, rng, affine=True)
    return [backend.transform(chain, make_inputs(23, 19, "uint8", rng), dtype=dtype)]


def accumulate(kind: str, dtype: Any, classes: bool, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(2)
    chain = make_chain(kind, 19, 150, rng, affine=True)
    p = chain.output_dim
    X = make_inputs(23, 19, "float32", rng)
    Y = rng.integers(0, 3, 23) if classes else rng.standard_normal((23, 3))
    gram, cross = np.zeros((p, p)), np.zeros((3, p))
    backend.accumulate(chain, X, Y, gram, cross, dtype=dtype, rows=rng.integers(0, 23, 40))
    return [np.tril(gram), cross]


def accumulate_bytes(classes: bool, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(2)
    chain = make_chain("identity", 19, 19, rng, affine=True)
    X = make_inputs(23, 19, "uint8", rng)
    Y = rng.integers(0, 3, 23) if classes else rng.standard_normal((23, 3))
    gram, cross = np.zeros((19, 19)), np.zeros((3, 19))
    backend.accumulate(chain, X, Y, gram, cross, dtype=FLOAT32, rows=rng.integers(0, 23, 40))
    return [np.tril(gram), cross]


def accumulate_halves(classes: bool, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((23, 150)).astype(np.float16)
    Y = rng.integers(0, 3, 23) if classes else rng.standard_normal((23, 3))
    gram, cross = np.zeros((150, 150)), np.zeros((3, 150))
    used = backend.accumulate(stages(150), X, Y, gram, cross, dtype=FLOAT32, rows=rng.integers(0, 23, 40))
    assert used.arithmetic == "halves"
    return [np.tril(gram), cross]


def accumulate_bfloat16(bits: tuple[int, int], halves: bool, backend: Backend) -> list[Array]:
    """Numbers with bits in a range; those of tiny ones are no halves, because float32 does not hold their squares."""
    rng = np.random.default_rng(2)
    X = CudaArray(rng.integers(*bits, (40, 19)).astype(np.uint16), bfloat=True)
    gram, cross = np.zeros((19, 19)), np.zeros((3, 19))
    used = backend.accumulate(stages(19), X, rng.integers(0, 3, 40), gram, cross, dtype=FLOAT32)
    assert (used.arithmetic == "halves") == halves
    return [np.tril(gram), cross]


def accumulate_outliers(backend: Backend) -> list[Array]:
    X = np.random.default_rng(2).standard_normal((40, 33)).astype(np.float32)
    X[3] += 1e3 * np.arange(33)  # slices would lose the digits of the other rows
    gram, cross = np.zeros((33, 33)), np.zeros((2, 33))
    used = backend.accumulate(stages(33), X, np.arange(40) % 2, gram, cross, dtype=FLOAT32)
    assert used.arithmetic == "float32"
    return [np.tril(gram), cross]


def score_path(dtype: Any, k: int, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(3)
    chain = make_chain("FCNN_1", 19, 18, rng)
    W = rng.standard_normal((2, k, 18))
    return [backend.score_path(chain, make_inputs(40, 19, "uint8", rng), rng.integers(0, k, 40), W, dtype=dtype)]


def transform_there(backend: Backend) -> list[Array]:
    rng = np.random.default_rng(1)
    chain, X = make_chain("FCNN_1", 19, 18, rng, affine=True), CudaArray(make_inputs(23, 19, "float32", rng))
    return [X.module.read(backend.transform(chain, X, dtype=FLOAT64))]


def accumulate_there(backend: Backend) -> list[Array]:
    rng = np.random.default_rng(2)
    chain, X = make_chain("random_fourier", 16, 30, rng), CudaArray(make_inputs(23, 16, "uint8", rng))
    gram, cross = np.zeros((30, 30)), np.zeros((3, 30))
    rows = rng.integers(0, 23, 40)
    backend.accumulate(chain, X, rng.standard_normal((23, 3)), gram, cross, dtype=FLOAT32, rows=rows)
    return [np.tril(gram), cross]


def score_path_there(backend: Backend) -> list[Array]:
    rng = np.random.default_rng(3)
    chain, W = make_chain("FCNN_1", 19, 18, rng), rng.standard_normal((2, 5, 18))
    X = CudaArray(make_inputs(40, 19, "uint8", rng))
    return [backend.score_path(chain, X, rng.integers(0, 5, 40), W, dtype=FLOAT32)]


def symmetrize(backend: Backend) -> list[Array]:
    gram = np.random.default_rng(4).standard_normal((70, 70))
    backend.symmetrize(gram)
    return [gram]


def ridge_path(p: int, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(5)
    lambdas = np.array([1.0, 1e-3, -2.0, 0.1])
    return list(map(np.asarray, backend.ridge_path(spd(p, rng), rng.standard_normal((18, p)), lambdas, rounding=1e-3)))


def solve_spd(n: int, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(6)
    return [backend.solve_spd(np.stack([spd(n, rng) for _ in range(3)]), rng.standard_normal((3, n, 17)))]


def preimage_solve(p: int, backend: Backend) -> list[Array]:
    rng = np.random.default_rng(7)
    return [backend.preimage_solve(rng.standard_normal((p, 20)), rng.standard_normal((5, p)))]


def preimage_of(weight: Array, backend: Backend) -> list[Array]:
    return [backend.preimage_solve(weight, np.random.default_rng(7).standard_normal((5, len(weight))))]


def graded(p: int, d: int, condition: float) -> Array:
    """Weights (p, d) of this condition number."""
    rng = np.random.default_rng(8)
    left, _ = np.linalg.qr(rng.standard_normal((p, p)))
    right, _ = np.linalg.qr(rng.standard_normal((d, p)))
    return left @ (np.geomspace(1.0, 1.0 / condition, p)[:, None] * right.T)


def hidden(p: int, d: int) -> Array:
    """Weights (p, d) of condition number 2^p or so, which the diagonal of their factor does not show."""
    rotation, _ = np.linalg.qr(np.random.default_rng(8).standard_normal((d, d)))
    return (np.eye(p, d) - np.tril(np.ones((p, d)), -1)) @ rotation


def structured_preimage(backend: Backend) -> list[Array]:
    rng = np.random.default_rng(8)
    weight = make_chain("orthogonal_fourier", 45, 30, rng).layers[0].weight
    return [backend.preimage_solve(weight, rng.standard_normal((5, 30)))]


def score_models(backend: Backend) -> list[Array]:
    rng = np.random.default_rng(9)
    chain, labels = make_chain("FCNN_1", 19, 18, rng), rng.integers(0, 5, 40)
    lambdas = np.array([1.0, -2.0, 0.1])  # the second has no model
    models = backend.ridge_path(spd(18, rng), rng.standard_normal((5, 18)), lambdas, rounding=0.0).weights
    correct = backend.score_path(chain, make_inputs(40, 19, "uint8", rng), labels, models, dtype=FLOAT32)
    return [correct, np.asarray(models[2, 1:4]), np.asarray(models @ rng.standard_normal(18))]


def resident(backend: Any) -> list[Array]:
    rng = np.random.default_rng(2)
    X, gram, cross = make_inputs(9, 290, "float32", rng), backend.zero_gram(290), np.zeros((3, 290))
    backend.accumulate(stages(290), X, rng.integers(0, 3, 9), gram, cross, dtype=FLOAT32)
    known = gram.trace()
    doubled = gram.copy()
    doubled.add(gram)
    return [np.asarray(gram), cross, np.array([known, doubled.trace()])]


def packed(backend: Any) -> list[Array]:
    gram = backend.own_gram(np.random.default_rng(4).standard_normal((290, 290)))
    numbers = gram.packed(3)
    numbers.write(np.array([1.0, 2.0, 3.0]))
    return [np.asarray(numbers.unpacked()), numbers.read()]


def engine_of(backend: Any) -> CudaBackend:
    """What keeps matrices."""
    engine = backend.inner if isinstance(backend, StagedBackend) else backend
    assert isinstance(engine, CudaBackend)
    return engine


def placed_products(backend: Backend) -> list[Array]:
    rng, engine = np.random.default_rng(10), engine_of(backend)
    A = engine.place(rng.standard_normal((40, 300)))
    G = gram(A)
    lower, condition = cholesky(G, 0.5)
    assert lower is not None
    assert cholesky(G, -1e4)[0] is None  # what does not exist is let go of
    X = solve_factored(lower, product(A, rng.standard_normal((300, 3))))
    found = [solve_factored(lower, A)[1:3], solve_factored(lower, A.T.T[:]).T, X, X.T]
    return [np.asarray(B) for B in found] + [np.array(condition), symmetric_product(G, np.arange(40.0)), A.mean(axis=0)]


def placed_sums(backend: Backend) -> list[Array]:
    rng, engine = np.random.default_rng(11), engine_of(backend)
    B, row = rng.standard_normal((70, 33)), rng.standard_normal(33)
    A = engine.place(rng.standard_normal((70, 33)))
    found = [A + B, B - A, A - row, row - A, A.T + B.T, A.T - B.T.copy(), 2.0 * A, scaled_columns(A, row)]
    found += [scaled_columns(A.T, np.arange(70.0)), A + A.T.T]
    A += row
    A -= B
    A *= 0.5
    add_product(A, rng.standard_normal((70, 2)), rng.standard_normal((2, 33)), -1.0)
    add_scaled(A, found[0], 3.0)
    return [np.asarray(C) for C in (*found, A)] + [np.array(largest_magnitude(C)) for C in (A, A.T, found[3])]


def placed_eigenvectors(backend: Backend) -> list[Array]:
    values, vectors = engine_of(backend).eigenvectors(engine_of(backend).place(spd(20, np.random.default_rng(12))))
    return [values, np.asarray(vectors)]


def placed_cosines(backend: Backend) -> list[Array]:
    rng, table = np.random.default_rng(13), np.random.default_rng(14).standard_normal(4 * 300)
    signs = [rng.choice(np.array([-1, 1], np.int8), n) for n in (40, 290)]
    drawn = Cosines(table, 0.25, rng.permutation(300)[:40], *signs)
    return [np.asarray(engine_of(backend).cosines((43, 300), drawn))]


def placed_features(kind: str, backend: Backend) -> list[Array]:
    rng, engine = np.random.default_rng(1), engine_of(backend)
    chain, X = make_chain(kind, 19, 18, rng, affine=True), make_inputs(23, 19, "float32", rng)
    frozen = X.copy()
    frozen.flags.writeable = False
    wide = engine.place(X.astype(np.float64))
    found = (engine.features(chain, x) for x in (X, frozen, wide, engine.place(np.asfortranarray(wide))))
    return [np.asarray(F) for F in found]


def placed_preimages(kind: str, activation: Any, backend: Backend) -> list[Array]:
    rng, engine = np.random.default_rng(7), engine_of(backend)
    layer = make_chain(kind, 19, 18, rng).layers[0]._replace(activation=activation, parameter=0.5)
    H = engine.place(rng.uniform(-0.5, 0.5, (5, 18)))
    near = rng.standard_normal((5, 18))
    right = [
        engine.undo_activation(layer, F, x) for F in (H, engine.place(np.asfortranarray(H))) for x in (near, near[:1])
    ]
    return [np.asarray(backend.preimage_solve(layer.weight, T)) for T in right] + [np.asarray(T) for T in right]


OPERATIONS: dict[str, Operation] = {
    **{f"transform-{kind}": functools.partial(transform, kind, FLOAT32) for kind in ("identity", "ZCA_FCNN_2")},
    "transform-structured": functools.partial(transform, "mixed_3", FLOAT64),
    "transform-there": transform_there,
    "accumulate-there": accumulate_there,
    "score_path-there": score_path_there,
    "accumulate-classes": functools.partial(accumulate, "random_fourier", FLOAT32, True),
    "accumulate-targets": functools.partial(accumulate, "FCNN_1", FLOAT32, False),
    "accumulate-bytes": functools.partial(accumulate_bytes, True),
    "accumulate-bytes-targets": functools.partial(accumulate_bytes, False),
    "accumulate-halves": functools.partial(accumulate_halves, True),
    "accumulate-halves-targets": functools.partial(accumulate_halves, False),
    "accumulate-halves-there": functools.partial(accumulate_bfloat16, (0x3E00, 0x4000), True),
    "accumulate-halves-tiny-there": functools.partial(accumulate_bfloat16, (0x0800, 0x0A00), False),
    "accumulate-outliers": accumulate_outliers,
    "accumulate-float64": functools.partial(accumulate, "orthogonal_fourier", FLOAT64, True),
    "score_path-2": functools.partial(score_path, FLOAT32, 2),
    "score_path-40": functools.partial(score_path, FLOAT64, 40),
    "symmetrize": symmetrize,
    "resident": resident,
    "packed": packed,
    "ridge_path-fused": functools.partial(ridge_path, 37),
    "ridge_path-blocked": functools.partial(ridge_path, 130),
    "score_models": score_models,
    "solve_spd-fused": functools.partial(solve_spd, 37),
    "solve_spd-blocked": functools.partial(solve_spd, 130),
    "preimage_solve-square": functools.partial(preimage_solve, 20),
    "preimage_solve-wide": functools.partial(preimage_solve, 13),
    "preimage_solve-structured": structured_preimage,
    "placed-products": placed_products,
    "placed-sums": placed_sums,
    "placed-eigenvectors": placed_eigenvectors,
    "placed-cosines": placed_cosines,
    "placed-features": functools.partial(placed_features, "ZCA_FCNN_2"),
    "placed-features-structured": functools.partial(placed_features, "orthogonal_fourier"),
    "placed-preimages-leaky": functools.partial(placed_preimages, "FCNN_1", "leaky_relu"),
    "placed-preimages-cosine": functools.partial(placed_preimages, "random_fourier", "cosine"),
    "placed-preimages-structured": functools.partial(placed_preimages, "orthogonal_fourier", "cosine"),
    "placed-preimages-linear": functools.partial(placed_preimages, "FCNN_1", "linear"),
    "preimage_solve-orthogonal": functools.partial(preimage_of, graded(13, 20, 1e9)),
    "preimage_solve-refined_in_vain": functools.partial(preimage_of, hidden(26, 31)),
}


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Operation:
    """Every operation in turn, on every path through its code."""
    return OPERATIONS[request.param]


@pytest.fixture
def backend(one_backend: Backend, device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """On the emulated device, with so few rows in a tile that several are under way."""
    set_tile_rows(monkeypatch, one_backend, 7)
    return one_backend


def same(actual: list[Array], expected: list[Array]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(actual, expected, strict=True))


# Threads and streams


def test_no_order_of_threads_or_streams_changes_a_bit(
    operation: Operation, backend: Backend, device: ModuleType
) -> None:
    expected = operation(backend)
    for order in ORDERS:
        for eager in (False, True):
            device.emulate(order=order, eager=eager)
            assert same(operation(backend), expected), f"{order}, {'eager' if eager else 'late'}"


def test_a_stream_of_the_caller_is_used_and_left_alone(device: ModuleType) -> None:
    before = device.live_objects()
    stream = device.make_stream()
    for operation in OPERATIONS.values():
        assert same(operation(CudaBackend(stream=stream)), operation(CudaBackend()))
    gc.collect()
    assert device.live_objects() == before + 1
    device.destroy_stream(stream)


# Failures


def test_every_call_that_fails_is_an_error_and_leaves_nothing(
    operation: Operation, backend: Backend, device: ModuleType
) -> None:
    device.emulate()
    expected = operation(backend)
    calls, before = device.calls(), device.live_objects()
    assert calls >= 5
    told = set()
    ends = {*range(1, 41), *range(calls - 39, calls + 1)}  # in between a long loop does the same again and again
    for number in sorted((ends | {*range(1, calls, max(11, calls // 20))}) & {*range(1, calls + 1)}):
        device.emulate(fail_at=number)
        try:
            # The last calls of an operation only let go of things: its result is there.
            assert same(operation(backend), expected), device.failed()
            # an allocation is tried again without the memory that waits for later operations
            assert device.failed() in ("cudaStreamSynchronize", "cudaGetDevice", "cudaSetDevice", "cudaMalloc")
        except (DeviceError, DeviceOutOfMemory) as error:
            told.add(str(error))
        failed = device.failed()
        started = failed not in ("cudaGetDevice", "cudaSetDevice", "cudaMemGetInfo")
        assert not started or device.pending() == 0, failed  # nothing still uses memory of the caller
        device.emulate()  # runs what is left in the default streams
        assert device.live_objects() == before, failed
    assert all(re.match(r"CUDA: \w+ failed: .+", message) for message in told)
    assert any("cudaMalloc failed: out of memory (cudaErrorMemoryAllocation)" in message for message in told)
    device.emulate()
    assert same(operation(backend), expected)


def test_a_launch_that_fails_names_its_kernel(backend: Backend, device: ModuleType) -> None:
    device.emulate()
    accumulate("random_fourier", FLOAT32, True, backend)
    messages = []
    for number in range(1, device.calls() + 1):
        device.emulate(fail_at=number)
        try:
            accumulate("random_fourier", FLOAT32, True, backend)
        except (DeviceError, DeviceOutOfMemory) as error:
            messages.append((device.failed(), str(error)))
    launches = {message.split()[1] for call, message in messages if call == "launch"}
    assert launches >= {"standardise", "epilogue", "class_sums", "add"}


def test_a_context_that_fails_leaves_nothing(device: ModuleType) -> None:
    device.emulate()
    before = device.live_objects()
    backend = CudaBackend()
    calls = device.calls()
    del backend
    for number in range(1, calls + 1):
        device.emulate(fail_at=number)
        with pytest.raises(DeviceError, match=f"CUDA: {device.failed() or 'cu'}"):
            CudaBackend()
        assert device.live_objects() == before


def test_the_device_of_the_caller_stays_current(device: ModuleType) -> None:
    device.emulate(devices=2)
    before = device.live_objects()
    backend = CudaBackend(device=1)
    solve_spd(130, backend)
    assert device.current_device() == 0
    backend.release_memory()
    device.emulate(devices=2, fail_at=3)
    with pytest.raises(DeviceError, match="cudaMemGetInfo failed"):
        solve_spd(130, backend)
    assert device.current_device() == 0
    del backend
    gc.collect()
    assert device.live_objects() == before  # handles can only be destroyed on their own device
    assert device.current_device() == 0


@pytest.mark.parametrize("name", [name for name in OPERATIONS if "there" not in name])
def test_operations_work_on_another_device_than_the_current_one(device: ModuleType, name: str) -> None:
    device.emulate(devices=2)
    expected = OPERATIONS[name](CudaBackend())
    backend, found = CudaBackend(device=1), []
    worker = threading.Thread(target=lambda: found.append(OPERATIONS[name](backend)))
    worker.start()
    worker.join()
    assert same(found[0], expected)
    assert same(OPERATIONS[name](backend), expected)


@pytest.mark.parametrize(
    ("at", "routine", "weight"),
    [(1, "potrf", graded(13, 20, 1.0)), (2, "geqrf", graded(13, 20, 1e9)), (3, "ormqr", graded(13, 20, 1e9))],
)
def test_arguments_that_a_factorisation_refuses_are_an_error(
    at: int, routine: str, weight: Array, backend: Backend, device: ModuleType
) -> None:
    device.emulate(factor_info=-2, factor_at=at)
    with pytest.raises(DeviceError, match=f"{routine} failed with info -2"):
        preimage_of(weight, backend)


def test_weights_that_are_not_ill_conditioned_need_no_qr(backend: Backend, device: ModuleType) -> None:
    weight = graded(40, 40, 1e4)
    device.emulate(factor_info=-2, factor_at=2)  # geqrf would come second
    tolerances.assert_solve(preimage_of(weight, backend)[0], preimage_of(weight, get_backend("array"))[0], 1e4)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e5, 1e7, 1e9, 1e11])
@pytest.mark.parametrize(("p", "d"), [(13, 20), (40, 40)])
def test_preimages_are_as_accurate_as_by_qr(p: int, d: int, condition: float, backend: Backend) -> None:
    """Whatever their condition number, with a residual like that of LAPACK."""
    weight, rhs = graded(p, d, condition), np.random.default_rng(9).standard_normal((5, p))
    X = backend.preimage_solve(weight, rhs)
    tolerances.assert_solve(X, oracles.least_norm(weight, rhs.T).T, condition)
    tolerances.assert_solve(X @ weight.T, rhs, magnitude=float(np.linalg.norm(X)))


def test_preimages_that_refinement_does_not_help_come_from_qr(backend: Backend) -> None:
    weight = hidden(26, 31)
    rhs = np.random.default_rng(9).standard_normal((5, 26))
    X = backend.preimage_solve(weight, rhs)
    tolerances.assert_solve(X, oracles.least_norm(weight, rhs.T).T, float(np.linalg.cond(weight)))


def test_a_square_that_is_not_definite_is_left_to_qr(backend: Backend, device: ModuleType) -> None:
    expected = preimage_of(graded(13, 20, 1e3), backend)[0]
    device.emulate(factor_info=7)
    tolerances.assert_solve(preimage_of(graded(13, 20, 1e3), backend)[0], expected, 1e3)


@pytest.mark.parametrize("weight", [graded(40, 50, 1e3), graded(40, 50, 1e9), hidden(26, 45)])
def test_preimages_some_rows_at_a_time(weight: Array, device: ModuleType) -> None:
    p, d = weight.shape
    rhs = np.random.default_rng(9).standard_normal((1000, p))
    expected = CudaBackend().preimage_solve(weight, rhs)
    budget = 8 * 2 * (p + d) * 400  # rows, and less than as much for the factors and what LAPACK asks for
    found = CudaBackend(memory_budget=budget).preimage_solve(weight, rhs)
    tolerances.assert_solve(found, expected, float(np.linalg.cond(weight)))


def test_nan_in_the_data_leaves_the_statistics_as_they_were(backend: Backend, rng: np.random.Generator) -> None:
    X = make_inputs(30, 4, "float64", rng)
    X[22, 3] = np.nan
    gram, cross = np.full((4, 4), 0.5), np.full((2, 4), -0.5)
    with pytest.raises(DataError, match="row 22 holds NaN or infinity"):
        backend.accumulate(stages(4, ()), X, np.zeros(30, np.int64), gram, cross, dtype=FLOAT32)
    tolerances.assert_exact(gram, np.full((4, 4), 0.5))
    tolerances.assert_exact(cross, np.full((2, 4), -0.5))


# Memory


def test_a_memory_budget_holds_and_changes_no_sum(device: ModuleType, rng: np.random.Generator) -> None:
    X = rng.integers(0, 4, (500, 40)).astype(np.uint8)  # sums of small integers are exact in any order
    labels, W = rng.integers(0, 3, 500), rng.integers(-2, 3, (5, 3, 40)).astype(np.float64)
    chain = stages(40, ())
    expected = oracles.gram(X.T.astype(np.float64))
    for budget in (45_000, 60_000, 200_000, 1 << 30):
        backend = CudaBackend(memory_budget=budget)
        device.peak_bytes()
        gram, cross = np.zeros((40, 40)), np.zeros((3, 40))
        backend.accumulate(chain, X, labels, gram, cross, dtype=FLOAT32)
        backend.symmetrize(gram)
        tolerances.assert_exact(gram, expected)
        tolerances.assert_exact(backend.transform(chain, X, dtype=FLOAT32), X.astype(np.float32))
        tolerances.assert_exact(
            backend.score_path(chain, X, labels, W, dtype=FLOAT32),
            [int((oracles.predictions(model, X.T) == labels).sum()) for model in W],
        )
        assert 0 < device.peak_bytes() <= budget


def test_factorisations_that_do_not_fit_together_come_one_after_the_other(device: ModuleType) -> None:
    n, r = 130, 18
    system = 8 * ((n + r) * n + (n + r) * 128 + n * 128)  # factors, a block column, inverses of the diagonal blocks
    kept = 8 * (n * n + 6 * r * n) + 4096  # G, C, four models and that of the lowest shift, and what is small
    expected = ridge_path(130, CudaBackend())
    for systems in (1, 2, 3, 4, 5):
        budget = systems * system + kept
        device.peak_bytes()
        assert same(ridge_path(130, CudaBackend(memory_budget=budget)), expected)
        assert device.peak_bytes() <= budget


def test_a_budget_that_is_too_small_is_told(device: ModuleType) -> None:
    for name in ("accumulate-classes", "transform-identity", "score_path-2"):
        operation = name.split("-")[0]
        with pytest.raises(DeviceOutOfMemory, match=rf"CUDA: {operation} needs at least \d+ MiB of device memory"):
            OPERATIONS[name](CudaBackend(memory_budget=256))
    with pytest.raises(DeviceOutOfMemory, match=r"are needed, the budget has \d+ MiB left of 1 MiB"):
        solve_spd(130, CudaBackend(memory_budget=1 << 18))
    with pytest.raises(DeviceOutOfMemory, match="a Cholesky factorisation needs at least 1 MiB"):
        ridge_path(130, CudaBackend(memory_budget=1 << 18))
    with pytest.raises(ValueError, match="memory_budget must be at least 1 byte, got 0"):
        CudaBackend(memory_budget=0)
    device.emulate(memory=50_000)  # of the device itself, from which the budget follows
    with pytest.raises(DeviceOutOfMemory, match=r"accumulate needs at least \d+ MiB"):
        OPERATIONS["accumulate-classes"](CudaBackend())


def test_structured_rows_that_do_not_fit_shared_memory(backend: Backend, rng: np.random.Generator) -> None:
    signs = rng.choice(np.array([-1, 1], np.int8), (2, 2, 4096))
    weight = HadamardWeight(6500, signs, rng.uniform(0.5, 2.0, 40).astype(np.float32))  # rows of 52 kB of float64
    X, rhs = rng.standard_normal((2, 6500)), rng.standard_normal((2, 40))
    features = backend.transform(stages(6500, (Layer(weight, None, "linear", 1.0),)), X, dtype=FLOAT64)
    tolerances.assert_reduction(features, weight.apply(X), FLOAT64, 6500, 1.0)
    tolerances.assert_solve(backend.preimage_solve(weight, rhs), weight.solve(rhs))


# Where it is, and where it is not


def test_nothing_happens_on_the_device_at_import(cuda_emulated: ModuleType) -> None:
    code = f"import {cuda_emulated.__name__} as module; print(module.calls(), module.live_objects())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 0\n"


def test_one_context_serves_all_until_it_is_forgotten(device: ModuleType) -> None:
    device.emulate(devices=2)
    before = device.live_objects()
    first = shared_backend(1)
    with_one = device.live_objects()
    assert with_one > before
    assert shared_backend(1) is first
    assert shared_backend(0) is not first
    gc.collect()
    with_both = device.live_objects()
    assert with_both > with_one
    del first
    gc.collect()
    assert device.live_objects() == with_both
    forget_shared_backends()
    gc.collect()
    assert device.live_objects() == before
    kept = get_backend("cuda")
    assert isinstance(kept, StagedBackend)
    assert get_backend("cuda").inner is kept.inner


def test_status_of_an_emulated_device_says_so(device: ModuleType) -> None:
    before = device.live_objects()
    status = backend_status()["cuda"]
    assert status["available"]
    assert status["detail"] == {
        "devices": ["emulated GPU (9.0)"], "driver": "13.0", "runtime": "13.0", "emulated": True
    }  # fmt: skip
    assert device.live_objects() == before
    assert emulated_backend(device).name == "cuda (emulated)"


def test_asking_for_devices_leaves_the_process_as_it_was(device: ModuleType) -> None:
    device.emulate()
    assert backend_status()["cuda"]["available"]
    assert device.asked() == 0


def test_status_tells_why_devices_cannot_be_asked_for(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krrdistill.backends.cuda._ASK", "raise SystemExit('no such driver')")
    status = backend_status()["cuda"]
    assert not status["available"]
    assert "a process that asks for devices fails (no such driver)" in status["detail"]


def test_overrides_of_the_arithmetic_are_told(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "overrides" not in backend_status()["cuda"]["detail"]
    assert "CUDA arithmetic" not in machine(None)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1")
    overrides = ["CUBLAS_EMULATE_DOUBLE_PRECISION=1", "NVIDIA_TF32_OVERRIDE=1"]
    assert backend_status()["cuda"]["detail"]["overrides"] == overrides
    assert machine(None)["CUDA arithmetic"] == ", ".join(overrides)


FORK = """
import gc, os, sys
import numpy as np
import krrdistill as kd
from krrdistill import _cuda_emulated as module
sys.modules["krrdistill._cuda"] = module
{parent}
child = os.fork()
if child == 0:
    calls, answer = module.calls(), "nothing"
    try:
        {child}
    except Exception as error:
        answer = f"{{type(error).__name__}}: {{error}}"
    backend = None
    gc.collect()
    print(answer, module.calls() - calls)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
{after}
"""
UPDATE = "kd.RidgeStatistics(kd.Identity(3), 2, backend='cuda').update(np.ones((4, 3)), np.arange(4) % 2)"

KEEP = """
backend, phi = kd.get_backend("cuda"), kd.FCNN(600, widths=[600])
backend.transform(phi, np.ones((1, 600)), dtype=np.dtype("float32"))
assert backend.inner._kept
"""
HOLD = "from krrdistill.backends.cuda import CudaBackend; gram = CudaBackend({}).zero_gram(3)"

BUSY = """
import threading
backend, big = kd.get_backend('cuda').inner, np.ones((600, 600))
A = backend.place(np.eye(3))
threading.Thread(target=lambda: [backend.product(big, big) for _ in range(20)]).start()
"""
PLACE = "backend = kd.get_backend('cuda').inner; A = backend.place(np.eye(3))"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("cuda_emulated")
@pytest.mark.parametrize(
    ("parent", "child", "answer"),
    [
        (
            "backend = kd.get_backend('cuda')",
            "backend.symmetrize(np.eye(3))",
            "DeviceError: CUDA: this process was forked",
        ),
        ("backend = kd.get_backend('cuda')", "pass", "nothing 0"),  # the child frees nothing
        (KEEP, "del phi; backend.inner._kept.clear()", "nothing 0"),
        (HOLD.format(""), "del gram", "nothing 0"),
        (HOLD.format("memory_budget=1 << 20"), "del gram", "nothing 0"),
        (KEEP, "backend.inner.release_memory()", "DeviceError: CUDA: this process was forked"),
        (PLACE, "del A", "nothing 0"),
        (BUSY, "del A", "nothing"),  # although an operation of the parent had the context when it was forked
        (PLACE, "A + A", "DeviceError: CUDA: this process was forked"),
        (UPDATE, UPDATE, "DeviceError: CUDA: this process was forked"),
        (UPDATE, "kd.backend_status()['cuda']['detail']['devices']", "nothing"),
        ("kd.backend_status()", UPDATE, "nothing"),
    ],
    ids=[
        "backend of the parent",
        "end of the child",
        "end of a weight",
        "end of G",
        "end of G that goes back at once",
        "release",
        "end of a matrix",
        "end of a matrix in the middle of an operation",
        "use of a matrix",
        "use in both",
        "status in the child",
        "status in the parent",
    ],
)
def test_after_a_fork(parent: str, child: str, answer: str) -> None:
    code = FORK.format(parent=parent, child=child, after=UPDATE)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith(answer), done.stderr
    assert ("DeviceError" in answer) == ('start processes with multiprocessing.get_context("spawn")' in done.stdout)


@pytest.mark.gpu
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("parent", "answer"), [("kd.backend_status()", "nothing"), (UPDATE, "DeviceError: CUDA: this process was forked")]
)
def test_after_a_fork_on_the_gpu(parent: str, answer: str) -> None:
    code = FORK.replace("from krrdistill import _cuda_emulated as module", "from krrdistill import _cuda as module")
    code = code.replace("module.calls()", "0").format(parent=parent, child=UPDATE, after=UPDATE)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(answer), done.stderr


@pytest.mark.parametrize(
    ("settings", "index", "message"),
    [
        ({"driver_version": 0}, 0, "built, but no NVIDIA driver is loaded; install NVIDIA driver 580 or newer"),
        ({"driver_version": 12040}, 0, "supports CUDA 12.4, this build needs 13.0; install NVIDIA driver 580 or newer"),
        ({"devices": 0}, 0, r"no CUDA device is visible \(no CUDA-capable device .*NoDevice\)\); check nvidia-smi"),
        ({"devices": 2}, 2, "CUDA device 2 does not exist: there are 2; choose another one"),
        ({"compute_major": 7}, 0, r"\(emulated GPU\) has compute capability 7.0, this build needs 8.0"),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(
    device: ModuleType, settings: dict[str, int], index: int, message: str
) -> None:
    device.emulate(**settings)
    with pytest.raises(BackendUnavailable, match=message):
        CudaBackend(device=index)


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU: they run")
def test_what_needs_a_gpu_says_that_it_did_not_run() -> None:
    file = Path(__file__).with_name("test_cuda_arrays.py")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"did not run: {NO_GPU}" in done.stdout
    assert re.search(r"^\d+ skipped, \d+ deselected in", done.stdout, re.MULTILINE)


def test_without_the_module_the_build_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krrdistill._cuda", None)
    message = r"CUDA backend is not built \(.*\); install the CUDA 13 toolkit.*pip install.*KRRDISTILL_CUDA=ON"
    with pytest.raises(BackendUnavailable, match=message):
        get_backend("cuda")
    status = backend_status()["cuda"]
    assert not status["available"]
    assert "KRRDISTILL_CUDA=ON" in status["detail"]
