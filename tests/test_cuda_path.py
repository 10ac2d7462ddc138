"""The lambda path on an emulated device: blocks, failures inside of a batch, bounds, and models that stay there."""

from __future__ import annotations

import copy
import gc
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from conftest import emulated_backend, stages
from krrdistill.backends import Backend, get_backend
from krrdistill.backends.cuda import CudaBackend
from krrdistill.backends.models import ModelStack
from krrdistill.errors import NotPositiveDefinite
from krrdistill.ridge.held_out import HeldOutRows
from krrdistill.ridge.selection import count_correct
from test_backends import spd

Array = npt.NDArray[Any]
FLOAT32 = np.dtype("float32")


def rotated(values: Array, rng: np.random.Generator) -> Array:
    """A symmetric matrix of these eigenvalues."""
    Q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    G = (Q * values) @ Q.T
    return np.asarray((G + G.T) / 2)


# Blocks


@pytest.mark.parametrize("r", [1, 130])
@pytest.mark.parametrize("n", [127, 128, 129, 144, 145, 255, 256, 257, 400])
def test_blocked_solves_at_the_edges_of_blocks(one_backend: Backend, n: int, r: int, rng: np.random.Generator) -> None:
    A = np.stack([spd(n, rng, smallest=1e-6), spd(n, rng)])
    B = rng.standard_normal((2, n, r))
    for found, matrix, columns in zip(one_backend.solve_spd(A, B), A, B, strict=True):
        tolerances.assert_solve(found, np.linalg.solve(matrix, columns), oracles.condition(matrix))


def test_blocked_solves_of_ill_conditioned_blocks_have_small_residuals(one_backend: Backend) -> None:
    x = np.arange(300.0)
    A = np.exp(-(np.subtract.outer(x, x) ** 2) / 18) + 1e-11 * np.eye(300)
    B = A @ np.random.default_rng(1).standard_normal((300, 4))
    X = one_backend.solve_spd(A, B)
    size = np.linalg.norm(A, 2) * np.linalg.norm(X)
    tolerances.assert_solve(A @ X, B, magnitude=size)  # however large the condition number is


@pytest.mark.parametrize("order", [1, 2, 16, 17, 127, 128, 129, 144, 256, 257, 300])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_the_leading_minor_that_fails_inside_of_a_batch_is_told(one_backend: Backend, order: int, bad: float) -> None:
    A = np.stack([spd(300, np.random.default_rng(seed)) for seed in range(3)])
    A[1, order - 1, :] = A[1, :, order - 1] = 0.0
    A[1, order - 1, order - 1] = bad
    with pytest.raises(NotPositiveDefinite, match=rf"leading minor {order} is not positive definite; raise lambda"):
        one_backend.solve_spd(A, np.ones((3, 300, 1)))


@pytest.mark.parametrize("p", [40, 300])
def test_lambdas_without_a_model_change_no_bit_of_the_others(one_backend: Backend, p: int) -> None:
    rng = np.random.default_rng(2)
    G, C = rotated(np.linspace(-1.0, 100.0, p), rng), rng.standard_normal((5, p))
    lambdas = np.array([2.0, 0.5, 30.0, -50.0, -99.0, 1.5])
    found = one_backend.ridge_path(G, C, lambdas, rounding=0.0)
    definite = lambdas > 1.0
    tolerances.assert_exact(found.positive_definite, definite)
    tolerances.assert_exact(found.resolved, definite)
    alone = one_backend.ridge_path(G, C, lambdas[definite], rounding=0.0)
    tolerances.assert_exact(found.weights[definite], np.asarray(alone.weights))
    for values, expected in ((found.squares, alone.squares), (found.products, alone.products)):
        tolerances.assert_exact(values[definite], expected)
        assert np.isnan(values[~definite]).all()
    assert np.isnan(found.weights[~definite]).all()


# What rounding hides


@pytest.mark.parametrize("diagonal", [False, True])  # its least pivot is the smallest eigenvalue
@pytest.mark.parametrize("rounding", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("smallest", [-1.0, 1e-9, 0.2])
@pytest.mark.parametrize("p", [20, 140])
def test_resolved_lambdas_are_those_above_the_floor(
    one_backend: Backend, p: int, smallest: float, rounding: float, diagonal: bool
) -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([[smallest], np.linspace(0.5, 100.0, p - 1)])
    G = np.diag(values) if diagonal else rotated(values, rng)
    lambdas = np.array([1e-6, 0.05, 0.099, 0.101, 0.5, 0.79, 0.81, 0.99, 1.01, 1.09, 1.11, 1.9, 2.1, 3.0])
    lambdas = rng.permutation(lambdas)
    found = one_backend.ridge_path(G, rng.standard_normal((2, p)), lambdas, rounding=rounding)
    tolerances.assert_exact(found.positive_definite, lambdas + smallest > 0.0)
    tolerances.assert_exact(found.resolved, lambdas + smallest > 100.0 * rounding)


def test_a_second_factorisation_is_only_made_where_bounds_leave_lambdas_open(device: ModuleType) -> None:
    rng = np.random.default_rng(4)
    G, C = rotated(np.concatenate([[1e-9], np.linspace(0.5, 100.0, 139)]), rng), rng.standard_normal((2, 140))
    well_conditioned = rotated(np.linspace(0.5, 100.0, 140), rng)
    backend = CudaBackend()

    def calls(lambdas: list[float], rounding: float, G: Array = G) -> int:
        device.emulate()
        backend.ridge_path(G, C, np.array(lambdas), rounding=rounding)
        return int(device.calls())

    lambdas = [1e-10, 1e-8, 1.0, 3.0]
    calls(lambdas, 1e-3)  # the first one makes what later ones find
    one_batch = calls(lambdas, 1e-12)  # the floor is under every lambda
    assert calls(lambdas, 1e-2 / 2) == one_batch  # it is 0.5, far above the smallest pivot
    assert calls(lambdas, 1e-10) > one_batch  # ten times the smallest eigenvalue, and equal to the second lambda
    assert calls(lambdas, 1e-3, well_conditioned) == calls(lambdas, 1e-12, well_conditioned)  # under that eigenvalue


# Models that stay


def models_of(backend: Backend, p: int = 12, k: int = 3) -> tuple[Any, Array]:
    """(models of 4 lambdas, the first of which has none, the same as an array)."""
    rng = np.random.default_rng(5)
    G, C = rotated(np.linspace(-0.5, 2.0, p), rng), rng.standard_normal((k, p))
    models = backend.ridge_path(G, C, np.array([0.1, 1.0, 2.0, 3.0]), rounding=0.0).weights
    return models, np.asarray(models)


def test_models_on_a_device_are_indexed_like_an_array(one_backend: Backend) -> None:
    models, array = models_of(one_backend)
    assert isinstance(models, ModelStack)
    assert models.shape == array.shape == (4, 3, 12)
    assert len(models) == 4
    assert np.isnan(array[0]).all()
    assert np.isfinite(array[1:]).all()
    keys = (2, -1, slice(1, None), np.array([3, 1]), np.array([True, False, True, True]), (1, 2), (slice(None), 0))
    for key in (*keys, (np.array([3, 1, 1]), np.array([2, 0, 1])), (slice(None, None, -1), slice(2, 0, -1)), []):
        tolerances.assert_exact(models[key], array[key])
    for W, expected in zip(models, array, strict=True):
        tolerances.assert_exact(W, expected)
    for key in (4, -5, (0, 3), (0, 0, 0)):
        with pytest.raises(IndexError):
            models[key]
    assert np.asarray(models, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="only by a copy"):
        models.__array__(copy=False)


def test_models_on_a_device_multiply_a_vector_and_travel_as_arrays(one_backend: Backend) -> None:
    models, array = models_of(one_backend)
    v = np.random.default_rng(6).standard_normal(24)[::2]
    magnitude = np.abs(array) @ np.abs(v)
    tolerances.assert_reduction((models @ v)[1:], (array @ v)[1:], np.float64, 12, magnitude[1:])
    assert np.isnan((models @ v)[0]).all()
    for travelled in (pickle.loads(pickle.dumps(models)), copy.deepcopy(models)):
        assert isinstance(travelled, np.ndarray)
        tolerances.assert_exact(travelled, array)


def test_models_outlive_their_backend_and_leave_nothing(device: ModuleType) -> None:
    before = device.live_objects()
    models, array = models_of(CudaBackend())
    gc.collect()
    tolerances.assert_exact(np.asarray(models), array)
    del models
    gc.collect()
    assert device.live_objects() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_score_alike_wherever_they_are(device: ModuleType, dtype: str) -> None:
    device.emulate(devices=2)
    backend, other = CudaBackend(), CudaBackend(device=1)
    models, array = models_of(backend)
    rng = np.random.default_rng(7)
    X, labels = rng.standard_normal((60, 12)), rng.integers(0, 3, 60)
    expected = backend.score_path(stages(12), X, labels, np.nan_to_num(array), dtype=np.dtype(dtype))
    assert expected[0] == np.count_nonzero(labels == 0)  # no model: all scores are zero
    for one in (backend, other, get_backend("array")):
        tolerances.assert_exact(one.score_path(stages(12), X, labels, models, dtype=np.dtype(dtype)), expected)


def test_a_path_takes_its_chosen_model_from_the_device(cuda_emulated: ModuleType) -> None:
    rng = np.random.default_rng(8)
    X, y = rng.standard_normal((40, 6)), np.arange(40) % 3
    paths = {}
    for center in ("none", "both"):
        for name, backend in (("device", emulated_backend(cuda_emulated)), ("host", get_backend("array"))):
            taken = kd.RidgeStatistics(kd.Identity(6), 3, precision="float64", backend=backend).update(X, y)
            path = kd.ridge_path(taken, [1e-3, 1.0, 100.0], center=center)
            paths[name] = path
            counts = count_correct(path, taken, HeldOutRows(X, y))
            assert counts.correct.tolist() == [
                np.count_nonzero((X @ W.T + b).argmax(axis=1) == y)
                for W, b in zip(path.models(), np.zeros((3, 3)) if center == "none" else path.intercepts, strict=True)
            ]
        assert isinstance(paths["device"].weights, ModelStack)
        assert isinstance(paths["host"].weights, np.ndarray)
        condition = oracles.condition(X) ** 2
        tolerances.assert_solve(paths["device"].models(), paths["host"].models(), condition)
        tolerances.assert_solve(paths["device"].train_rmse, paths["host"].train_rmse, condition)
        if center == "both":
            tolerances.assert_solve(paths["device"].intercepts, paths["host"].intercepts, condition)
        for path in paths.values():
            object.__setattr__(path, "best", 1)
            W, _, values = path.model()
            tolerances.assert_exact(W, path.models()[1])
            assert values.tolist() == [1.0] * 3
            object.__setattr__(path, "chosen", np.array([2, 0, 1]))
            tolerances.assert_exact(path.model()[0], path.models()[[2, 0, 1], [0, 1, 2]])


# Real sizes


@pytest.mark.gpu
def test_solve_spd_of_a_real_size() -> None:
    rng = np.random.default_rng(9)
    A = rng.standard_normal((1024, 1100))
    A, B = A @ A.T, rng.standard_normal((1024, 50))
    tolerances.assert_solve(get_backend("cuda").solve_spd(A, B), np.linalg.solve(A, B), oracles.condition(A))


@pytest.mark.gpu
def test_ridge_path_of_a_real_size() -> None:
    rng, p = np.random.default_rng(10), 3072
    Phi = rng.standard_normal((p + 500, p)) * np.geomspace(1.0, 1e-3, p)
    G, C = Phi.T @ Phi, rng.standard_normal((100, p))
    lambdas = kd.default_lambdas()
    found = get_backend("cuda").ridge_path(G, C, lambdas, rounding=1e-12)
    assert found.positive_definite.all()
    assert found.resolved.all()
    for W, value in zip(found.weights, lambdas, strict=True):
        magnitude = (found.largest_eigenvalue + value) * np.linalg.norm(W)
        tolerances.assert_solve(W @ G + value * W, C, magnitude=float(magnitude))
