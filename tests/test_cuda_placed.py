"""Matrices that stay on the (emulated) GPU from features to points, and from points to a certificate."""

from __future__ import annotations

import copy
import functools
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
from krrdistill.backends import cuda as module
from krrdistill.backends.cuda import CudaBackend
from krrdistill.common.placed import Placed
from krrdistill.common.products import (
    all_finite,
    cholesky,
    eigenvectors,
    gram,
    largest_magnitude,
    placed,
    product,
    products_on,
    solve_factored,
    solve_vector,
)
from krrdistill.errors import DeviceError, DeviceOutOfMemory
from krrdistill.maps import FeatureMap
from krrdistill.ridge.feature_gram import FeatureGram, contrasts
from test_backends import spd

Array = npt.NDArray[Any]
D, K = 24, 3
MAPS = {
    "identity": lambda: kd.Identity(D),
    "FCNN": lambda: kd.FCNN(D, seed=1),
    "deep": lambda: kd.FCNN(D, widths=(22, 20), seed=1),
    "random_fourier": lambda: kd.RandomFourier(D, sigma2=1e5, seed=1),
    "orthogonal_fourier": lambda: kd.OrthogonalFourier(D, sigma2=1e5, seed=1),
}


@functools.cache
def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    y = np.arange(400) % K
    return (rng.integers(0, 200, (400, D)) + 20 * y[:, None]).astype(np.uint8), y


@functools.cache
def model_of(kernel: str, with_intercept: bool) -> kd.RidgeModel:
    """A model of the host, for both sides of a comparison."""
    X, y = data()
    statistics = kd.RidgeStatistics(MAPS[kernel](), K, backend="array", precision="float64").update(X, y)
    return kd.fit_model(statistics, 100.0, center="both" if with_intercept else "none")


@pytest.fixture
def everything(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> type[CudaBackend]:
    """Backends that take every matrix, however small."""
    monkeypatch.setattr(module, "_OPERATIONS_PER_NUMBER", 0.0)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    return CudaBackend


def points(kernel: str, backend: Any, *, intercept: bool = False, start: str = "noise", **options: Any) -> Any:
    """(points, certificate) of a model, all of it by one backend."""
    model = model_of(kernel, intercept)
    given: dict[str, Any] = {"reference": data()} if start == "real" else {}
    made = kd.distill_model(model, backend=backend, init=start, **given, **options)
    return made, made.verify(model, test=data(), backend=backend)


# Against the host


@pytest.mark.parametrize("per_class", [3, 20])  # fewer points than features, and more
@pytest.mark.parametrize("lambda_s", [0.0, "auto", 1e-6])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("kernel", MAPS)
def test_points_and_certificates_are_those_of_the_host(
    everything: type[CudaBackend], kernel: str, start: str, intercept: bool, lambda_s: Any, per_class: int
) -> None:
    backend = everything()
    run = functools.partial(
        points, kernel, intercept=intercept, start=start, lambda_s=lambda_s, points_per_class=per_class
    )
    (there, judged), (here, expected) = run(backend), run("array")
    for certificate in (judged, expected):
        assert certificate.weight_relative_error < tolerances.EXACT_WEIGHTS
    assert judged.prediction_agreement == expected.prediction_agreement == 1.0
    if intercept and start == "real":  # centred labels have a direction that is rounding, on any backend
        return
    condition = float(max(expected.condition, 1.0))  # its square is lost in Gram matrices, and once more by labels
    root = 1e6 if lambda_s == "auto" else 1.0  # at its bound F has the root of 1 - 4 lambda_s s^2, which is 1e-12 there
    tolerances.assert_solve(there.inputs, here.inputs, root * condition**3)
    tolerances.assert_solve(there.Y, here.Y, root * condition**3)
    assert judged.condition == pytest.approx(condition, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"root": "minus", "lambda_s": 1e-6}, {"noise": "gaussian"}, {"store": "uint8"}, {"store": "float32"}],
    ids=str,
)
@pytest.mark.parametrize("kernel", ["identity", "random_fourier"])
def test_other_options_are_those_of_the_host(
    everything: type[CudaBackend], kernel: str, options: dict[str, Any]
) -> None:
    backend = everything()
    (there, judged), (here, expected) = (points(kernel, b, points_per_class=20, **options) for b in (backend, "array"))
    tolerances.assert_solve(there.Y, here.Y, 1e7)
    assert (
        np.abs(there.inputs - here.inputs).max() <= (0.005 if "store" in options else 1e-9) * np.abs(here.inputs).max()
    )
    assert judged.condition == pytest.approx(expected.condition, rel=1e-2)


def test_ill_conditioned_features_come_down_for_their_singular_values(
    everything: type[CudaBackend], rng: np.random.Generator
) -> None:
    backend = everything()
    F, Y = rng.standard_normal((30, 8)) @ rng.standard_normal((8, 20)), rng.standard_normal((30, 2))
    expected = FeatureGram(F)
    with products_on(backend):
        features = FeatureGram(F)
        tolerances.assert_solve(features.inverse(0.0), expected.inverse(0.0), 1e6)
        tolerances.assert_solve(features.fit(Y, 0.0), expected.fit(Y, 0.0), 1e6)
        assert features.condition_number() > 1e12
        tolerances.assert_solve(features.rescaled(np.ones_like), F, 1e2)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_large_orders_have_their_extreme_values_by_iteration(
    everything: type[CudaBackend], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    backend = everything()
    monkeypatch.setattr("krrdistill.ridge.feature_gram._EXACT_CONDITION", 10)
    F = rng.standard_normal(shape)
    expected = FeatureGram(F).condition_number()
    with products_on(backend):
        features = FeatureGram(F)
        backend._module.bus_bytes()
        assert features.condition_number() == pytest.approx(expected, rel=1e-3)
    assert max(backend._module.bus_bytes()) < 100 * 8 * 30  # vectors
    assert features.singular_values() is None


def test_a_matrix_may_be_added_to_its_own_memory(everything: type[CudaBackend], rng: np.random.Generator) -> None:
    """Rows that many threads read while others write them."""
    A = rng.standard_normal((40, 40))
    for alpha, other in ((1.0, lambda A: A.T), (-1.0, lambda A: A[7:8]), (2.0, lambda A: A)):
        there = everything().place(A)
        there.engine.combine_into(1.0, there, alpha, other(there))
        tolerances.assert_exact(np.asarray(there), A + alpha * other(A))


def test_matrices_without_rows_or_columns_are_those_of_the_host(everything: type[CudaBackend]) -> None:
    backend = everything()
    for m, n, r in ((3, 0, 4), (0, 3, 4), (3, 4, 0), (0, 0, 0)):
        A, B = np.ones((m, n)), np.ones((n, r))
        with products_on(backend):
            for there, here in ((placed(A, 1.0), A), (placed(A, 1.0).T, A.T)):
                tolerances.assert_exact(np.asarray(gram(there)), here @ here.T)
            tolerances.assert_exact(np.asarray(product(backend.place(A), B)), A @ B)
            assert np.asarray(backend.place(A) + A).shape == (m, n)
            assert largest_magnitude(backend.place(A)) == float(A.size > 0)
    lower, _ = cholesky(backend.place(np.eye(3)), 0.0)
    assert lower is not None
    assert solve_factored(lower, backend.place(np.ones((3, 0)))).shape == (3, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_features_of_constant_samples_of_every_type(everything: type[CudaBackend], dtype: Any) -> None:
    X = data()[0].astype(dtype)
    X.flags.writeable = False
    phi = MAPS["FCNN"]()
    found = everything().features(phi, X)
    expected = kd.get_backend("array").transform(phi, X, dtype=np.dtype(np.float64))
    tolerances.assert_reduction(np.asarray(found), expected, np.dtype(np.float64), D, np.full_like(expected, 1e3))


def test_eigenvectors_that_the_device_refuses_are_the_hosts(
    everything: type[CudaBackend], monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(module, "_MOST_EIGENVECTORS", 19)
    backend, root = everything(), rng.standard_normal((20, 30))
    for order in (19, 20):
        A = (root @ root.T)[:order, :order]
        there = backend.place(A)
        backend._module.calls_by_name()
        values, vectors = eigenvectors(there)
        assert ("cusolverDnDsyevd" in backend._module.calls_by_name()) == (order == 19)
        assert isinstance(vectors, Placed)
        V = np.asarray(vectors)
        tolerances.assert_solve((V * values) @ V.T, A, 20.0)


# The bus


@pytest.mark.parametrize("per_class", [16, 150])  # fewer points than features, and more
@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("kernel", ["identity", "FCNN", "random_fourier", "orthogonal_fourier"])
def test_points_cross_the_bus_once_each_way(
    device: ModuleType,
    everything: type[CudaBackend],
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    kernel: str,
    start: str,
    per_class: int,
) -> None:
    """Real points up, U down, X of the points up once for all that judges them; else W_S, labels and vectors."""
    monkeypatch.setattr("krrdistill.ridge.feature_gram._EXACT_CONDITION", 10)
    d, m = 64, per_class * K
    X, y = rng.integers(0, 256, (m + K, d), dtype=np.uint8), np.arange(m + K) % K
    options: dict[str, Any] = {} if kernel == "identity" else {"seed": 20261128}
    phi = kd.make_map(kernel, X, **options, **({"sigma2": 1e6} if "fourier" in kernel else {}))
    statistics = kd.RidgeStatistics(phi, K, backend="array", precision="float64").update(X, y)
    model = kd.fit_model(statistics, 100.0)
    backend = everything()
    real: dict[str, Any] = {"init": "real", "reference": (X, y)} if start == "real" else {}
    kd.distill_model(kd.fit_model(statistics, 200.0), backend=backend)  # no state of a first call
    backend._kept.clear()
    device.bus_bytes()
    made = kd.distill_model(model, backend=backend, points_per_class=per_class, **real)
    judged = made.verify(model, backend=backend)
    to_device, to_host = device.bus_bytes()
    assert judged.weight_relative_error < tolerances.EXACT_WEIGHTS
    points, labels, matrix, short, long = (8 * n for n in (m * d, m * K, K * d, min(m, d), max(m, d)))
    weights = d * d * (4 + 8) if kernel in ("FCNN", "random_fourier") else 0  # for preimages, and for features
    signs = 60 * 8 * d if kernel == "orthogonal_fourier" else 0  # with every operation
    small = 10 * labels + 10 * matrix + 40 * short + 10 * long + signs
    ups = points * (2 if real else 1) + weights
    assert ups < to_device < ups + small
    assert points + 2 * matrix < to_host < points + 4 * labels + 6 * matrix + 60 * short + 4096
    if m > d:
        assert small < points  # whatever crossed twice would be seen


def test_matrices_below_the_threshold_stay_on_the_host(device: ModuleType, rng: np.random.Generator) -> None:
    backend = CudaBackend()
    A = rng.standard_normal((30, 40))
    device.bus_bytes()
    with backend.dense():
        assert placed(A, 1e5) is A
        assert isinstance(FeatureGram(A).gram, np.ndarray)
        assert isinstance(kd.Identity(40).standard_features(A), np.ndarray)
    assert device.bus_bytes() == (0, 0)


def test_without_an_engine_nothing_is_placed(everything: type[CudaBackend], rng: np.random.Generator) -> None:
    everything()
    A = rng.standard_normal((30, 40))
    assert placed(A, 1e30) is A
    assert isinstance(FeatureMap(40).standard_features(A), np.ndarray)


# Failures, orders, memory


def test_every_call_of_a_run_that_fails_is_an_error_and_leaves_nothing(
    device: ModuleType, everything: type[CudaBackend]
) -> None:
    backend = everything()

    def run(start: str) -> list[Array]:
        made, judged = points("random_fourier", backend, start=start, points_per_class=20, judge=False)
        return [made.inputs, made.Y, np.array([judged.condition, judged.weight_relative_error])]

    for start in ("noise", "real"):
        run(start)
        backend.release_memory()
        gc.collect()
        before = device.live_objects()
        device.emulate()
        expected = run(start)
        calls, told = device.calls(), []
        for number in range(1, calls + 1, 7):
            backend.release_memory()
            device.emulate(fail_at=number)
            try:
                found = run(start)
                assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), device.failed()
            except (DeviceError, DeviceOutOfMemory) as error:
                told.append(str(error))
            failed = device.failed()
            device.emulate()
            backend.release_memory()
            gc.collect()
            assert device.live_objects() == before, failed
        assert len(told) > calls // 20
        assert all("CUDA: " in message for message in told)


@pytest.mark.parametrize("start", ["noise", "real"])
def test_no_order_of_threads_or_streams_changes_a_run(
    device: ModuleType, everything: type[CudaBackend], start: str
) -> None:
    backend = everything()
    made, judged = points("random_fourier", backend, start=start, points_per_class=20)
    for order in ("reverse", "shuffled"):
        for eager in (False, True):
            device.emulate(order=order, eager=eager)
            again, once_more = points("random_fourier", backend, start=start, points_per_class=20)
            tolerances.assert_exact(again.inputs, made.inputs)
            tolerances.assert_exact(again.Y, made.Y)
            assert once_more == judged


def test_a_matrix_that_would_take_too_much_of_the_memory_is_not_placed(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(module, "_OPERATIONS_PER_NUMBER", 0.0)
    A = rng.standard_normal((50, 40))
    for budget, where in ((8 * A.nbytes, Placed), (8 * A.nbytes - 1, np.ndarray)):
        with CudaBackend(memory_budget=budget).dense():
            assert isinstance(placed(A, 1.0), where)
            assert isinstance(FeatureGram(A).F, where)
            assert isinstance(FeatureMap(40).standard_features(A), where)
    small = CudaBackend(memory_budget=600_000)
    made, judged = points("FCNN", small, points_per_class=200)  # as before: product by product
    assert judged.weight_relative_error < tolerances.EXACT_WEIGHTS
    assert len(made.inputs) * D * 8 * 8 > 600_000


@pytest.mark.parametrize("condition", [1.0, 1e9])  # by Cholesky, and by QR
def test_placed_preimages_come_some_rows_at_a_time(
    device: ModuleType, rng: np.random.Generator, condition: float
) -> None:
    p, d, m = 40, 50, 1000
    left, _ = np.linalg.qr(rng.standard_normal((p, p)))
    right, _ = np.linalg.qr(rng.standard_normal((d, p)))
    weight, rhs = left @ (np.geomspace(1.0, 1.0 / condition, p)[:, None] * right.T), rng.standard_normal((m, p))
    expected = CudaBackend().preimage_solve(weight, rhs)
    budget = 8 * (m * d + 2 * p * d + 2 * p * 400 + 64 * 400)  # beside X and the factors a part of the rows
    backend = CudaBackend(memory_budget=budget)
    found = backend.preimage_solve(weight, backend.place(rhs))
    tolerances.assert_solve(np.asarray(found), expected, condition)


def test_memory_that_runs_out_is_told(
    device: ModuleType, everything: type[CudaBackend], rng: np.random.Generator
) -> None:
    backend = everything()
    A = backend.place(rng.standard_normal((300, 300)))
    device.emulate(memory=1_000_000)
    for operation in (gram, lambda A: product(A, A), lambda A: A + A, eigenvectors, lambda A: cholesky(A, 1.0)):
        kept = []
        with pytest.raises(DeviceOutOfMemory, match=r"MiB of device memory are needed|out of memory"):
            kept.extend(operation(A) for _ in range(3))
    device.emulate()
    tolerances.assert_exact(np.asarray(A + A), 2.0 * np.asarray(A))


def test_memory_comes_back_to_the_next_operation(device: ModuleType) -> None:
    backend = CudaBackend()
    alone = device.live_objects()
    A = backend.place(np.eye(70))
    held = device.live_objects()
    for _ in range(3):
        B = A + A
        assert device.live_objects() == held + 1
        del B
    assert device.live_objects() == held + 1  # it waits
    backend.release_memory()
    assert device.live_objects() == held
    del A
    backend.release_memory()
    assert device.live_objects() == alone


def test_a_matrix_outlives_its_backend(device: ModuleType) -> None:
    before = device.live_objects()
    A = CudaBackend(keep_memory=False).place(np.eye(70))
    B = A.T[1:2] if A.made.by_columns else A[1:2]
    del A
    gc.collect()
    tolerances.assert_exact(np.asarray(B), np.eye(70)[1:2])
    del B
    gc.collect()
    assert device.live_objects() == before


def test_matrices_of_another_backend_are_refused(device: ModuleType) -> None:
    device.emulate(devices=2)
    one, two = CudaBackend(), CudaBackend(device=1)
    A, B = one.place(np.eye(3)), two.place(np.eye(3))
    for operation in (
        lambda: A + B,
        lambda: product(A, B),
        lambda: two.gram(A),
        lambda: two.cholesky(A, 0.0),
        lambda: two.eigenvectors(A),
        lambda: two.solve_factored(A.T, B),
        lambda: two.features(FeatureMap(3), A),
        lambda: two.preimage_solve(np.eye(3), A),
        lambda: two.combine_into(1.0, A, 1.0, B),
        lambda: two.largest_magnitude(A),
    ):
        with pytest.raises(ValueError, match="the matrix is of another backend"):
            operation()
    with pytest.raises(TypeError, match="a matrix must be a float64 array or a ResidentMatrix"):
        one._matrices.gram_of(None)
    assert device.current_device() == 0


def test_threads_may_share_a_matrix_and_let_go_of_it(device: ModuleType, rng: np.random.Generator) -> None:
    backend = CudaBackend()
    A = rng.standard_normal((60, 50))
    there, expected, found = backend.place(A), A @ A.T, []

    def work() -> None:
        for _ in range(20):
            found.append(np.asarray(gram(there)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        backend.place(A)  # and let go of
    assert len(found) == 60
    for G in found:
        tolerances.assert_reduction(G, expected, np.dtype("float64"), 50, np.abs(A) @ np.abs(A).T)


# The matrix itself


def test_a_placed_matrix_is_copied_when_asked(everything: type[CudaBackend], rng: np.random.Generator) -> None:
    backend = everything()
    for layout in ("C", "F"):
        A = np.array(rng.standard_normal((5, 7)), order=layout)  # type: ignore[call-overload]
        B = backend.place(A)
        assert (B.shape, B.size, len(B), B.T.shape) == ((5, 7), 35, 5, (7, 5))
        for arrived in (np.asarray(B), np.asarray(B.T).T, pickle.loads(pickle.dumps(B)), copy.deepcopy(B)):
            tolerances.assert_exact(arrived, A)
        assert np.asarray(B, dtype=np.float32).dtype == np.float32
        with pytest.raises(ValueError, match="NumPy gets a copy"):
            np.array(B, copy=False)
    with pytest.raises(ValueError, match="a step of 2"):
        backend.place(np.eye(3))[::2]
    with pytest.raises(ValueError, match="axis 0"):
        backend.place(np.eye(3)).mean(axis=1)
    with pytest.raises(ValueError, match="rows of a matrix by rows"):
        backend.place(np.asfortranarray(np.ones((3, 2))))[1:]
    with pytest.raises(ValueError, match="the shape of a, or one row of it"):
        backend.place(np.eye(3)) + np.ones((2, 3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_found(everything: type[CudaBackend], bad: float) -> None:
    backend = everything()
    for place in (0, 255, 256, 3 * 1000 - 1):
        A = np.linspace(-2.0, 1.0, 3000).reshape(3, 1000)
        assert largest_magnitude(backend.place(A)) == 2.0
        A.ravel()[place] = bad
        assert not all_finite(backend.place(A))
        assert np.isnan(largest_magnitude(backend.place(A))) == np.isnan(bad)


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e12])
def test_condition_numbers_of_factors_are_those_of_lapack(
    everything: type[CudaBackend], rng: np.random.Generator, n: int, condition: float
) -> None:
    backend = everything()
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, 1.0 / condition, n)) @ Q.T
    A = (A + A.T) / 2.0
    (lower, expected), (there, found) = cholesky(A, 1e-14), cholesky(backend.place(A), 1e-14)
    assert lower is not None
    assert there is not None
    assert found == pytest.approx(expected, rel=1e-2)
    B = rng.standard_normal(n)
    tolerances.assert_solve(solve_vector(there, B), solve_vector(lower, B), condition)


def test_what_a_factorisation_says_is_told(device: ModuleType, everything: type[CudaBackend]) -> None:
    backend = everything()
    A = backend.place(spd(20, np.random.default_rng(1)))
    device.emulate(factor_info=-2)
    with pytest.raises(DeviceError, match="potrf failed with info -2"):
        cholesky(A, 0.0)
    device.emulate(factor_info=3)
    assert cholesky(A, 0.0) == (None, float("inf"))
    device.emulate(factor_info=4)
    with pytest.raises(DeviceError, match="syevd failed with info 4"):
        eigenvectors(A)


def test_contrasts_are_those_of_the_host(everything: type[CudaBackend], rng: np.random.Generator) -> None:
    backend = everything()
    A = rng.standard_normal((30, 20)) + 5.0
    tolerances.assert_reduction(
        np.asarray(contrasts(backend.place(A))), contrasts(A), np.dtype("float64"), 30, np.full((29, 20), 200.0)
    )
