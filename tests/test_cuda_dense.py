"""Dense float64 products, solves and scores on the emulated GPU."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

import krrdistill as kd
import tolerances
from conftest import stages
from krrdistill.backends import Backend, Layer
from krrdistill.backends import cuda as module
from krrdistill.backends.cuda import CudaBackend
from krrdistill.common.products import gram, product, products_on, solve_factored
from test_cuda import FLOAT32, FLOAT64

Array = npt.NDArray[Any]
LAYOUTS = ("C", "F", "neither")


def laid_out(A: Array, layout: str) -> Array:
    if layout == "neither":
        wide = np.zeros((len(A), 2 * A.shape[1]))
        wide[:, ::2] = A
        return wide[:, ::2]
    return np.array(A, order=layout)  # type: ignore[call-overload]


@pytest.fixture
def everything(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> type[CudaBackend]:
    """Backends that take every product, however small."""
    monkeypatch.setattr(module, "_OPERATIONS_PER_NUMBER", 0.0)
    return CudaBackend


@pytest.mark.parametrize(("a", "b"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_products_of_every_layout(everything: type[CudaBackend], rng: np.random.Generator, a: str, b: str) -> None:
    A, B = rng.standard_normal((5, 7)), rng.standard_normal((7, 3))
    with products_on(everything()):
        actual = product(laid_out(A, a), laid_out(B, b))
    assert actual.flags.c_contiguous
    tolerances.assert_reduction(actual, A @ B, FLOAT64, 7, np.abs(A) @ np.abs(B))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 9), (40, 3), (1, 1)])
def test_gram_matrices_of_every_layout(
    everything: type[CudaBackend], rng: np.random.Generator, layout: str, shape: tuple[int, int]
) -> None:
    A = rng.standard_normal(shape)
    with products_on(everything()):
        actual = gram(laid_out(A, layout))
    tolerances.assert_exact(actual, actual.T)
    tolerances.assert_reduction(actual, A @ A.T, FLOAT64, shape[1], np.abs(A) @ np.abs(A).T)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("r", [1, 4, 30])
def test_solves_of_every_layout(everything: type[CudaBackend], rng: np.random.Generator, layout: str, r: int) -> None:
    root, B = rng.standard_normal((13, 13)), rng.standard_normal((13, r))
    A = root @ root.T + 13.0 * np.eye(13)
    lower = np.asfortranarray(np.linalg.cholesky(A))
    lower[np.triu_indices(13, 1)] = np.nan  # LAPACK leaves there what was there
    with products_on(everything()):
        actual = solve_factored(lower, laid_out(B, layout))
    tolerances.assert_solve(actual, scipy.linalg.solve(A, B), condition=float(np.linalg.cond(A)))


def test_small_products_stay_on_the_host(device: ModuleType, rng: np.random.Generator) -> None:
    A = rng.standard_normal((30, 30))
    backend = CudaBackend()
    backend.product(A, A)
    device.bus_bytes()
    with backend.dense():
        product(A, A)
    assert device.bus_bytes() == (0, 0)


def test_a_distilled_set_is_as_exact_with_products_on_the_device(
    everything: type[CudaBackend], rng: np.random.Generator
) -> None:
    X, y = rng.integers(0, 256, (200, 30), dtype=np.uint8), np.arange(200) % 4
    for per_class in (2, 20):  # fewer points than features, and more
        result = kd.distill(X, y, kd.FCNN(30, seed=1), points_per_class=per_class, backend=everything(), lambdas=[10.0])
        assert result.distilled.weight_error is not None
        assert result.distilled.weight_error <= tolerances.EXACT_WEIGHTS


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_scores_are_products_of_the_features(any_backend: Backend, rng: np.random.Generator, dtype: Any) -> None:
    phi = stages(6, (Layer(rng.standard_normal((5, 6)).astype(np.float32), None, "leaky_relu", 0.1),))
    X, W, rows = rng.standard_normal((40, 6)), rng.standard_normal((3, 5)), np.array([3, 3, 39, 0])
    expected = np.asarray(any_backend.transform(phi, X, dtype=dtype, rows=rows), dtype=np.float64)
    actual = any_backend.scores(phi, X, W, dtype=dtype, rows=rows)
    tolerances.assert_reduction(actual, expected @ W.T, FLOAT64, 5, np.abs(expected) @ np.abs(W).T)
    assert any_backend.scores(phi, X, W, dtype=dtype).shape == (40, 3)


def test_a_weight_crosses_the_bus_once_while_it_lives(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    weight = rng.standard_normal((40, 50)).astype(np.float32)
    weight.flags.writeable = False
    phi, X = stages(50, (Layer(weight, None, "linear", 1.0),)), np.ones((1, 50), np.float32)
    backend = CudaBackend()
    first = backend.transform(phi, X, dtype=FLOAT32)
    device.bus_bytes()
    tolerances.assert_exact(backend.transform(phi, X, dtype=FLOAT32), first)
    assert device.bus_bytes()[0] < weight.nbytes
    kept = device.live_objects()
    backend._operations.release_memory()
    waiting = kept - device.live_objects()
    del phi, weight  # its memory waits like other memory
    assert not backend._kept
    assert waiting > 0
    backend.release_memory()
    assert device.live_objects() == kept - waiting - 1


def test_a_weight_that_was_changed_after_all_goes_to_the_device_again(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under whatever name: operations find copies by where arrays begin."""
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    backend, X = CudaBackend(), np.ones((1, 6), np.float32)

    def first(weight: Array, dtype: Any) -> float:
        return float(backend.transform(stages(6, (Layer(weight, None, "linear", 1.0),)), X, dtype=dtype)[0, 0])

    for dtype in (FLOAT32, FLOAT64):
        for name in (lambda weight: weight, lambda weight: weight[:], lambda weight: weight.view()):
            weight = np.eye(6, dtype=np.float32)
            weight.flags.writeable = False
            assert first(weight, dtype) == 1.0
            weight.flags.writeable = True
            weight *= 2.0
            assert first(name(weight), dtype) == 2.0
            assert not backend._kept


@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_a_run_sends_samples_and_weights_once_and_brings_one_model_back(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, kernel: str
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    n, d, k = 2000, 64, 4
    X, y = rng.integers(0, 256, (n, d), dtype=np.uint8), np.arange(n) % k
    weights = 0 if kernel == "identity" else d * d * (4 + 8)  # float32 for the data, float64 for the points
    backend, matrix = CudaBackend(), k * d * 8
    kd.distill(X, y, kd.Identity(d), backend=backend)  # no state of a first call
    phi = kd.Identity(d) if kernel == "identity" else kd.FCNN(d, seed=20261127)
    device.bus_bytes()
    kd.distill(X, y, phi, backend=backend)
    to_device, to_host = device.bus_bytes()
    labels, small = 8 * n, 12 * matrix
    assert X.nbytes + weights < to_device < X.nbytes + weights + labels + small
    assert matrix < to_host < small  # C, the chosen model, points and their features: no G (d, d), no other model
    assert small < d * d * 8 < 24 * matrix
