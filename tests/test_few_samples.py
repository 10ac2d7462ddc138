"""Fewer samples than features: they are held as rows, and ridge regression solves systems of their number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from krrdistill.backends import Backend
from krrdistill.ridge.path import fit_intercept
from krrdistill.ridge.statistics import CENTERS

Array = npt.NDArray[Any]
D, P, K = 7, 60, 3
PHI = kd.RandomFourier(D, P, sigma2=20.0, seed=3)


def data(n: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """(X, labels, targets, weights), one weight 0."""
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=n)
    weights[n // 2] = 0.0
    return rng.standard_normal((n, D)), np.arange(n) % K, rng.standard_normal((n, K)) + 2.0, weights


def statistics(backend: Any = "native", labelled: bool = True, **options: Any) -> kd.RidgeStatistics:
    kind = {"classes" if labelled else "n_targets": K}
    return kd.RidgeStatistics(PHI, **kind, **{"precision": "float64", **options}, backend=backend)


def primal(Phi: Array, T: Array, w: Array, lambda_: float, center: str) -> tuple[Array, Array]:
    """(W, b) of weighted ridge regression, from p equations; features and targets in columns."""
    mean = np.average(T, axis=1, weights=w) if center != "none" else np.zeros(len(T))
    base = np.average(Phi, axis=1, weights=w) if center == "both" else np.zeros(len(Phi))
    A, B = Phi - base[:, None], T - mean[:, None]
    W = np.linalg.solve((A * w) @ A.T + lambda_ * np.eye(P), (A * w) @ B.T).T
    return W, mean - W @ base


@pytest.mark.parametrize("n", [1, 2, 31, P - 1])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_models_are_those_of_the_primal(any_backend: Backend, n: int, labelled: bool, weighted: bool) -> None:
    X, y, Y, w = data(n)
    if n == 1 or not weighted:
        w = np.ones(n)
    few = statistics(any_backend, labelled).update(X, y if labelled else Y, sample_weight=w if weighted else None)
    Phi, T = oracles.features(X.T, PHI.layers), oracles.one_hot(y, K) if labelled else Y.T
    grid = np.array([1e-3, 1.0])
    for center in CENTERS:
        system = few.system(center)
        assert len(system.gram) == np.count_nonzero(w)
        path = kd.ridge_path(few, grid, center=center)
        assert path.positive_definite.all()
        assert not path.below_noise_floor.any()
        for lambda_, W in zip(grid, path.weights, strict=True):
            expected, b = primal(Phi, T, w, lambda_, center)
            condition = 1.0 + path.largest_eigenvalue / lambda_
            # One weight of two is 0: about its mean the other leaves W = 0, up to the rounding of targets near 2.
            alone = n == 2 and weighted and center != "none"
            scale = max(float(np.linalg.norm(expected)), 1e-2 if alone else 1e-3)
            assert np.linalg.norm(W - expected) <= tolerances.solve(condition) * scale
            fitted = kd.fit_ridge(few, lambda_, center=center)
            assert np.linalg.norm(fitted - expected) <= tolerances.solve(condition) * scale
            close = tolerances.solve(condition) * (scale + float(np.linalg.norm(b)))
            assert np.linalg.norm(fit_intercept(few, fitted, center=center) - b) <= close * np.sqrt(P)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gram_matrix_is_there_when_asked_for(any_backend: Backend, weighted: bool) -> None:
    X, y, _, w = data(20)
    w = w if weighted else np.ones(20)
    few = statistics(any_backend).update(X, y, rows=np.arange(12), sample_weight=w if weighted else None)
    Phi = oracles.features(X.T, PHI.layers)
    for rows in (np.arange(12), np.arange(20)):  # asked for, then more samples, then asked for again
        expected = (Phi[:, rows] * w[rows]) @ Phi[:, rows].T
        tolerances.assert_reduction(few.gram, expected, np.float64, 20, np.abs(Phi * w) @ np.abs(Phi.T) + 1.0)
        assert len(few.system().gram) == np.count_nonzero(w[rows])
        if len(rows) == 12:
            few.update(X, y, rows=np.arange(12, 20), sample_weight=w if weighted else None)


@pytest.mark.parametrize("sizes", [(20, 30), (40, 40), (30, 80), (80, 30)])
def test_growing_and_merging_beyond_the_number_of_features(sizes: tuple[int, int]) -> None:
    n = sum(sizes)
    X, y, _, w = data(n)
    Phi = oracles.features(X.T, PHI.layers)
    gram, cross = (Phi * w) @ Phi.T, (oracles.one_hot(y, K) * w) @ Phi.T
    first, second = np.arange(sizes[0]), np.arange(sizes[0], n)
    grown = statistics().update(X, y, rows=first, sample_weight=w).update(X, y, rows=second, sample_weight=w)
    merged = statistics().update(X, y, rows=first, sample_weight=w)
    merged.merge(statistics().update(X, y, rows=second, sample_weight=w))
    for parts in (grown, merged):
        assert (len(parts.system().gram) < P) == (n < P)
        assert parts.n == n
        tolerances.assert_solve(parts.gram, gram)
        tolerances.assert_solve(parts.feature_sum, Phi @ w, magnitude=float(np.linalg.norm(np.abs(Phi) @ w)))
        W = np.linalg.solve(gram + 0.1 * np.eye(P), cross.T).T
        condition = oracles.condition(gram + 0.1 * np.eye(P))
        tolerances.assert_solve(kd.ridge_path(parts, [0.1]).weights[0], W, condition)


def test_merging_leaves_the_other_as_it_was() -> None:
    X, y, _, _ = data(50)
    one, other = statistics().update(X[:20], y[:20]), statistics().update(X[20:], y[20:])
    before = kd.fit_ridge(other, 0.1)
    one.merge(other).update(X, y)
    np.testing.assert_array_equal(kd.fit_ridge(other, 0.1), before)


def test_saved_and_loaded(tmp_path: Path) -> None:
    X, y, _, _ = data(30)
    few = statistics().update(X, y)
    few.save(tmp_path / "s.npz")
    loaded = kd.RidgeStatistics.load(tmp_path / "s.npz", PHI)
    np.testing.assert_array_equal(loaded.gram, few.gram)
    tolerances.assert_solve(
        kd.fit_ridge(loaded, 0.1), kd.fit_ridge(few, 0.1), oracles.condition(few.gram + 0.1 * np.eye(P))
    )


def test_small_lambdas_that_a_singular_gram_hides_are_resolved() -> None:
    """G of 20 samples has 40 eigenvalues of 0, which rounding covers; A A^T has none."""
    X, y, _, _ = data(20)
    few = statistics(precision="float32").update(X, y)
    path = kd.ridge_path(few, [1e-9])
    assert np.linalg.eigvalsh(few.gram)[0] < few.noise_floor(path.largest_eigenvalue)
    assert not path.below_noise_floor.any()
    Phi = oracles.features(X.T, PHI.layers)
    interpolating = np.linalg.lstsq(Phi.T, oracles.one_hot(y, K).T, rcond=None)[0].T
    relative = np.linalg.norm(path.weights[0] - interpolating) / np.linalg.norm(interpolating)
    assert relative <= tolerances.solve(np.linalg.cond(Phi), np.float32)


@pytest.mark.parametrize("center", CENTERS)
def test_zero_weights_and_means_hide_nothing(center: str) -> None:
    """A A^T is singular by construction where a weight is 0, and about the mean."""
    X, y, _, w = data(20)
    few = statistics(precision="float32").update(X, y, sample_weight=w)
    path = kd.ridge_path(few, [1e-6], center=center)
    assert not path.below_noise_floor.any()
    expected, _ = primal(oracles.features(X.T, PHI.layers), oracles.one_hot(y, K), w, 1e-6, center)
    tolerances.assert_solve(path.weights[0], expected, 1.0 + path.largest_eigenvalue / 1e-6)
    assert np.isfinite(kd.fit_ridge(few, 0.0, center=center)).all()


def test_the_noise_floor_grows_where_the_mean_is_most_of_the_features() -> None:
    X = 1000.0 + np.random.default_rng(0).standard_normal((50, P))
    few = kd.RidgeStatistics(kd.Identity(P), 1).update(X, np.zeros(50, dtype=int))
    exact = kd.RidgeStatistics(kd.Identity(P), 1, precision="float64").update(X, np.zeros(50, dtype=int))
    error = np.linalg.norm(few.system("both").gram - exact.system("both").gram, 2)
    assert error <= kd.ridge_path(few, [1.0], center="both").noise_floor


@pytest.mark.parametrize("center", CENTERS)
def test_training_residual_of_small_lambdas(center: str) -> None:
    """lambda^2 ||a||^2, which does not cancel: it falls like lambda."""
    X, y, _, _ = data(20)
    few = statistics().update(X, y)
    rmse = kd.ridge_path(few, [1e-10, 1e-9], center=center).train_rmse
    tolerances.assert_estimate(rmse[1], 10.0 * rmse[0])
    W, b = primal(oracles.features(X.T, PHI.layers), oracles.one_hot(y, K), np.ones(20), 1e-2, center)
    residual = oracles.one_hot(y, K) - W @ oracles.features(X.T, PHI.layers) - b[:, None] * (center != "none")
    path = kd.ridge_path(few, [1e-2], center=center)
    condition = 1.0 + path.largest_eigenvalue / 1e-2
    tolerances.assert_solve(path.train_rmse[0], np.sqrt(np.sum(residual**2) / 20), condition)


def test_several_threads_may_ask_for_the_gram_matrix() -> None:
    Z = np.random.default_rng(0).standard_normal((390, 400))
    few = kd.RidgeStatistics(kd.Identity(400), n_targets=1, precision="float64")
    for start in range(0, 390, 30):
        few.update(Z[start : start + 30], np.ones((30, 1)))
    with ThreadPoolExecutor(4) as pool:
        for gram in pool.map(lambda _: few.gram, range(8)):
            tolerances.assert_solve(gram, Z.T @ Z)


def test_overflow_is_told() -> None:
    for n in (20, 100):
        X = np.full((n, 30), 1e200)
        with pytest.raises(kd.DataError, match="overflow float64"):
            kd.ridge_path(
                kd.RidgeStatistics(kd.Identity(30), n_targets=1, precision="float64").update(X, np.ones((n, 1)))
            )
    few = kd.RidgeStatistics(kd.Identity(30), n_targets=1).update(np.full((5, 30), 1e25), np.ones((5, 1)))
    tolerances.assert_elementwise(few.gram, np.full((30, 30), 5e50), np.float64)  # of rows held in float64
    with pytest.raises(kd.DataError, match="overflow float32"), np.errstate(over="ignore", invalid="ignore"):
        few.update(np.full((40, 30), 1e25), np.ones((40, 1)))
    assert few.n == 5


@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_distilling_fewer_samples_than_features(kernel: str) -> None:
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((K, 64))
    y = np.arange(48) % K
    X = centres[y] + 0.5 * rng.standard_normal((48, 64))
    phi = kd.Identity(64) if kernel == "identity" else kd.FCNN(64, (64,), seed=1)
    found = kd.distill(X, y, phi, points_per_class=2, seed=0, validation_fraction=0.1)
    assert found.model.n_train < 64
    condition = oracles.condition(found.distilled.features())
    tolerances.assert_solve(found.distilled.fit(), found.model.W, condition**2)
