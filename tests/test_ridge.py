"""The lambda path and its selection, and the retraining from a few features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import krrdistill as kd
import oracles
import tolerances
from krrdistill.backends import Backend
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError, NotPositiveDefinite
from krrdistill.ridge.feature_gram import pseudo_inverse
from krrdistill.ridge.path import RidgePath
from krrdistill.ridge.selection import CorrectCounts, select_by_counts

Array = npt.NDArray[Any]

D, P, K, N = 12, 10, 3, 60
PHI = kd.RandomFourier(D, P, sigma2=12.0, seed=1)
GRID = np.array([1e-4, 1e-2, 1.0, 100.0])


def samples(n: int = N, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    return rng.standard_normal((n, D)) + 2.0 * rng.standard_normal((K, D))[y], y


def statistics(precision: str = "float64", backend: Any = None, n: int = N) -> kd.RidgeStatistics:
    return kd.RidgeStatistics(PHI, K, precision=precision, backend=backend).update(*samples(n))


def oracle_data(n: int = N) -> tuple[Array, Array]:
    """(Y, Phi) of ``statistics``."""
    X, y = samples(n)
    return oracles.one_hot(y, K), oracles.features(X.T, PHI.layers)


def matrix(m: int, p: int, condition: float = 10.0, *, rank: int | None = None, seed: int = 0) -> Array:
    """A random (m, p) matrix of this condition number, or of this rank."""
    rng = np.random.default_rng(seed)
    r = min(m, p)
    U, V = (np.linalg.qr(rng.standard_normal((size, size)))[0][:, :r] for size in (m, p))
    s = np.geomspace(1.0, 1.0 / condition, r)
    s[r if rank is None else rank :] = 0.0
    return np.asarray((U * s) @ V.T)


# The path


def test_default_grid_is_the_published_one() -> None:
    grid = kd.default_lambdas()
    assert len(grid) == 24
    tolerances.assert_elementwise(grid, [10.0 ** (i / 2) for i in range(-12, 12)], np.float64)


def test_path_against_the_oracle(any_backend: Backend) -> None:
    path = kd.ridge_path(statistics(backend=any_backend), GRID)
    Y, Phi = oracle_data()
    assert path.weights.shape == (4, K, P)
    assert path.positive_definite.all()
    assert not path.below_noise_floor.any()
    assert path.best == -1
    assert np.isnan(path.val_accuracy).all()
    tolerances.assert_exact(path.lambdas, GRID)
    G = oracles.gram(Phi)
    for W, lambda_ in zip(path.weights, GRID, strict=True):
        tolerances.assert_solve(W, oracles.ridge(Y, Phi, lambda_), oracles.condition(G + lambda_ * np.eye(P)))
    tolerances.assert_estimate(path.largest_eigenvalue, np.linalg.eigvalsh(G)[-1])
    assert path.statements() == []


def test_grid_is_sorted_and_without_repeats(any_backend: Backend) -> None:
    path = kd.ridge_path(statistics(backend=any_backend), [100.0, 1e-2, 1.0, 100.0, 1e-4])
    tolerances.assert_exact(path.lambdas, GRID)
    tolerances.assert_exact(path.weights, kd.ridge_path(statistics(backend=any_backend), GRID).weights)
    assert len(kd.ridge_path(statistics(backend=any_backend)).lambdas) == 24


def test_train_rmse_is_the_residual(any_backend: Backend) -> None:
    path = kd.ridge_path(statistics(backend=any_backend), GRID)
    Y, Phi = oracle_data()
    for W, actual in zip(path.weights, path.train_rmse, strict=True):
        tolerances.assert_reduction(actual, oracles.rmse(W, Y, Phi), np.float64, N, 1.0)


def test_train_rmse_of_an_exact_fit_is_rounding(any_backend: Backend) -> None:
    few = kd.RidgeStatistics(PHI, K, precision="float64", backend=any_backend).update(*samples(5))
    path = kd.ridge_path(few, [1e-10])
    assert 0.0 <= path.train_rmse[0] <= tolerances.cancellation(float(few.target_square.sum()))


@settings(max_examples=12)  # of each backend
@given(st.integers(1, 40), st.integers(0, 1000))
def test_train_rmse_does_not_rise_as_lambda_falls(any_backend: Backend, n: int, seed: int) -> None:
    for precision in ("float32", "float64"):
        taken = kd.RidgeStatistics(PHI, K, precision=precision, backend=any_backend).update(*samples(n, seed))
        path = kd.ridge_path(taken)
        rmse = path.train_rmse[path.positive_definite & ~path.below_noise_floor]
        assert np.all(np.diff(rmse) >= -tolerances.cancellation(1.0, precision))


def test_real_valued_targets(any_backend: Backend) -> None:
    X, _ = samples()
    T = np.random.default_rng(1).standard_normal((N, 2))
    taken = kd.RidgeStatistics(PHI, n_targets=2, precision="float64", backend=any_backend).update(X, T)
    path = kd.ridge_path(taken, [0.1])
    _, Phi = oracle_data()
    condition = oracles.condition(oracles.gram(Phi) + 0.1 * np.eye(P))
    tolerances.assert_solve(path.weights[0], oracles.ridge(T.T, Phi, 0.1), condition)
    residual = oracles.rmse(oracles.ridge(T.T, Phi, 0.1), T.T, Phi)
    tolerances.assert_reduction(path.train_rmse[0], residual, np.float64, N, np.sqrt(np.mean(np.sum(T**2, axis=1))))


def test_noise_floor_of_a_singular_gram(any_backend: Backend) -> None:
    X, y = samples(5)
    few = kd.RidgeStatistics(PHI, K, precision="float32", backend=any_backend).update(np.tile(X, (P, 1)), np.tile(y, P))
    grid = np.array([1e-12, 1e-10, 1e-8, 1e-3, 1.0])
    path = kd.ridge_path(few, grid)
    assert path.noise_floor == few.noise_floor(path.largest_eigenvalue)
    smallest = np.linalg.eigvalsh(few.gram)[0]
    tolerances.assert_exact(path.below_noise_floor, smallest + grid <= path.noise_floor)
    assert path.below_noise_floor.tolist() == [True, True, True, False, False]
    (sentence,) = path.statements()
    assert "lambda 1e-12 ... 1e-08 (3 of 5) lie under" in sentence
    (of_one,) = kd.ridge_path(few, grid[2:]).statements()
    assert "lambda 1e-08 (1 of 3) lies under the noise floor" in of_one
    assert "was not eligible" in of_one
    assert f"{path.noise_floor:.3g}" in sentence
    assert path.positive_definite[3:].all()
    assert np.isnan(path.weights[~path.positive_definite]).all()
    assert np.isnan(path.train_rmse[~path.positive_definite]).all()


def test_small_lambdas_of_a_regular_gram_are_reliable(any_backend: Backend) -> None:
    data = statistics("float32", any_backend)
    path = kd.ridge_path(data, [1e-12, 1e-9])
    assert path.lambdas[-1] < path.noise_floor < np.linalg.eigvalsh(data.gram)[0]
    assert not path.below_noise_floor.any()


@pytest.mark.parametrize(
    ("lambdas", "kind", "message"),
    [
        ([], ValueError, "lambdas must hold at least one value"),
        ([0.0], ValueError, "lambdas must be finite and > 0, got 0.0"),
        ([1.0, -1.0], ValueError, "lambdas must be finite and > 0, got -1.0"),
        ([np.nan], ValueError, "lambdas must be finite and > 0, got nan"),
        ([np.inf], ValueError, "lambdas must be finite and > 0, got inf"),
        (["1"], TypeError, "lambdas must be a number, got '1'"),
        ([True], TypeError, "lambdas must be a number, got True"),
        ([None], TypeError, "lambdas must be a number, got None"),
    ],
)
def test_bad_lambdas(lambdas: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        kd.ridge_path(statistics(), lambdas)


# The choice of lambda


def path_of(positive_definite: str, below: str) -> RidgePath:
    """A path whose flags are given by letters: "y" for true."""
    count = len(positive_definite)
    return RidgePath(
        lambdas=np.geomspace(1e-3, 1.0, count),
        weights=np.zeros((count, 2, 3)),
        positive_definite=np.array([letter == "y" for letter in positive_definite]),
        largest_eigenvalue=1.0,
        noise_floor=1e-5,
        below_noise_floor=np.array([letter == "y" for letter in below]),
        train_rmse=np.zeros(count),
        intercepts=None,
        product_precision="float32",
    )


@pytest.mark.parametrize(
    ("correct", "positive_definite", "below", "best"),
    [
        ((1, 3, 2, 1), "yyyy", "nnnn", 1),
        ((3, 3, 2, 1), "yyyy", "nnnn", 1),  # ties go to the larger lambda
        ((2, 2, 2, 2), "yyyy", "nnnn", 3),
        ((0, 0, 0, 0), "yyyy", "nnnn", 3),
        ((9, 3, 2, 1), "yyyy", "ynnn", 1),  # under the noise floor
        ((9, 9, 2, 9), "nyyy", "nnnn", 3),
        ((9, 2, 2, 1), "nyyy", "nnnn", 2),  # no model
        ((1, 5, 2, 9), "yyyn", "yyyy", 1),  # all under the floor: the best there is
        ((9, 0, 0, 0), "nyyy", "yyyn", 3),
    ],
)
def test_selection(correct: tuple[int, ...], positive_definite: str, below: str, best: int) -> None:
    path = path_of(positive_definite, below)
    chosen = select_by_counts(path, CorrectCounts(np.array(correct), 10))
    assert chosen.best == best
    expected = np.where(path.positive_definite, np.array(correct) / 10, np.nan)
    tolerances.assert_exact(chosen.val_accuracy, expected)
    assert path.best == -1


def test_selection_without_any_model() -> None:
    with pytest.raises(NotPositiveDefinite, match=r"no lambda up to 1 makes .* \(noise floor 1e-05\); raise lambda"):
        select_by_counts(path_of("nnn", "yyy"), CorrectCounts(np.zeros(3, np.int64), 10))


def test_selection_from_scores(any_backend: Backend, dtype: Any) -> None:
    path = kd.ridge_path(statistics(str(dtype), any_backend))
    X, y = samples(300, seed=4)
    correct = any_backend.score_path(PHI, X, y, path.models(), dtype=dtype)
    chosen = select_by_counts(path, CorrectCounts(correct, 300))
    assert chosen.val_accuracy[chosen.best] == np.nanmax(chosen.val_accuracy)
    assert not np.any(chosen.val_accuracy[chosen.best + 1 :] >= chosen.val_accuracy[chosen.best])


# One lambda


@pytest.mark.parametrize("lambda_", [0.0, 1e-3, 7.0])
def test_fit_ridge(any_backend: Backend, lambda_: float) -> None:
    W = kd.fit_ridge(statistics(backend=any_backend), lambda_)
    Y, Phi = oracle_data()
    condition = oracles.condition(oracles.gram(Phi) + lambda_ * np.eye(P))
    tolerances.assert_solve(W, oracles.ridge(Y, Phi, lambda_), condition)
    assert W.flags.c_contiguous


def test_fit_ridge_of_a_singular_gram(any_backend: Backend) -> None:
    X = np.zeros((4, 2))
    X[:, 0] = 1.0
    taken = kd.RidgeStatistics(kd.Identity(2), 1, backend=any_backend).update(X, np.zeros(4, np.int64))
    with pytest.raises(NotPositiveDefinite, match="raise lambda"):
        kd.fit_ridge(taken, 0.0)
    tolerances.assert_elementwise(kd.fit_ridge(taken, 1.0), [[0.8, 0.0]], np.float64, 1.0)


@pytest.mark.parametrize(
    ("lambda_", "kind"), [(-1.0, ValueError), (np.nan, ValueError), ("1", TypeError), (None, TypeError)]
)
def test_fit_ridge_bad_lambda(lambda_: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="fit_ridge: lambda_ must be"):
        kd.fit_ridge(statistics(), lambda_)


# Retraining from a few features

SHAPES = [(1, 9), (4, 9), (9, 9), (20, 9), (9, 1)]


@pytest.mark.parametrize("lambda_s", [0.0, 1e-3, 5.0])
@pytest.mark.parametrize(("m", "p"), SHAPES)
def test_fit_features(m: int, p: int, lambda_s: float) -> None:
    F, Y = matrix(m, p), np.random.default_rng(1).standard_normal((m, 2))
    expected = oracles.retrained(F.T, Y.T, lambda_s)
    W = kd.fit_features(F, Y, lambda_s)
    tolerances.assert_solve(W, expected, oracles.condition(F) ** 2)
    assert W.flags.c_contiguous
    tolerances.assert_solve(kd.fit_features(F.tolist(), Y.tolist(), lambda_s), expected, oracles.condition(F) ** 2)


@pytest.mark.parametrize(("m", "p"), [(6, 9), (20, 9)])
def test_fit_features_of_float32_features(m: int, p: int) -> None:
    F, Y = matrix(m, p, 1e3).astype(np.float32), np.random.default_rng(1).standard_normal((m, 2)).astype(np.float32)
    expected = oracles.retrained(F.T.astype(np.float64), Y.T.astype(np.float64), 0.0)
    tolerances.assert_solve(kd.fit_features(F, Y), expected, 1e6)  # no arithmetic in float32


@pytest.mark.parametrize("condition", [1e3, 3e4, 9e4, 2e5, 1e7])
@pytest.mark.parametrize(("m", "p"), [(6, 9), (9, 9), (20, 9)])
def test_fit_features_of_ill_conditioned_features(m: int, p: int, condition: float) -> None:
    F = matrix(m, p, condition)
    Y = F @ np.random.default_rng(2).standard_normal((p, 3))  # a consistent system: its error is the condition's
    W = kd.fit_features(F, Y)
    tolerances.assert_solve(W, oracles.retrained(F.T, Y.T, 0.0), condition)


@pytest.mark.parametrize("lambda_s", [0.0, 1e-3])
@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize(("m", "p"), [(6, 9), (9, 9), (20, 9)])
def test_fit_features_of_rank_deficient_features(m: int, p: int, rank: int, lambda_s: float) -> None:
    F, Y = matrix(m, p, rank=rank), np.random.default_rng(3).standard_normal((m, 2))
    expected = oracles.retrained(F.T, Y.T, lambda_s) if rank else np.zeros((2, p))
    condition = 1.0 / max(lambda_s, 1e-2)
    tolerances.assert_solve(kd.fit_features(F, Y, lambda_s), expected, condition)


@pytest.mark.parametrize(
    ("F", "Y", "lambda_s", "kind", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), 0.0, DataError, r"got \(3, 2\) and \(4, 2\)"),
        (np.ones(3), np.ones((3, 2)), 0.0, DataError, r"got \(3,\) and \(3, 2\)"),
        (np.ones((3, 2)), np.ones(3), 0.0, DataError, r"got \(3, 2\) and \(3,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), 0.0, DataError, r"got \(0, 2\)"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), 0.0, DataError, "NaN or infinity"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), 0.0, DataError, "NaN or infinity"),
        (np.ones((3, 2)), np.ones((3, 2)), -1e-9, ValueError, "lambda_s must be finite and >= 0"),
        (np.ones((3, 2)), np.ones((3, 2)), np.inf, ValueError, "lambda_s must be finite and >= 0"),
        (np.ones((3, 2)), np.ones((3, 2)), None, TypeError, "lambda_s must be a number"),
    ],
)
def test_fit_features_bad_arguments(F: Any, Y: Any, lambda_s: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"fit_features: .*{message}"):
        kd.fit_features(F, Y, lambda_s)


@pytest.mark.parametrize("condition", [1.0, 100.0, 5e4, 3e5, 1e8])
@pytest.mark.parametrize(("m", "p"), SHAPES)
def test_pseudo_inverse(m: int, p: int, condition: float) -> None:
    D = matrix(m, p, condition)
    # Cholesky of the Gram matrix squares the condition number; the SVD takes over where that would show.
    expected_condition = condition**2 if condition <= 1e5 else condition
    tolerances.assert_solve(pseudo_inverse(D), np.linalg.pinv(D).T, expected_condition)


@pytest.mark.parametrize(("m", "p"), [(6, 9), (9, 9), (20, 9)])
def test_pseudo_inverse_of_rank_deficient_matrices(m: int, p: int) -> None:
    for rank in (1, 4):
        D = matrix(m, p, rank=rank)
        tolerances.assert_solve(pseudo_inverse(D), np.linalg.pinv(D, rcond=1e-8).T, 10.0)
    tolerances.assert_exact(pseudo_inverse(np.zeros((m, p))), np.zeros((m, p)))


# Real data


@pytest.mark.data
@pytest.mark.parametrize("kernel", ["identity", "random_fourier"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_training_accuracy_does_not_fall_as_lambda_falls(mnist: dict[str, Array], kernel: str, precision: str) -> None:
    """Float32 noise in the path is the known trap: under the noise floor accuracies jump about."""
    X, y = mnist["x_train"].reshape(3000, 784), mnist["y_train"]
    scaling = Preprocessing("standardize", np.full(784, 255 * 0.1307), np.full(784, 255 * 0.3081))
    phi = kd.Identity(784) if kernel == "identity" else kd.RandomFourier(784, 500, sigma2=1000.0)
    taken = kd.RidgeStatistics(phi.with_preprocessing(scaling), 10, precision=precision).update(X, y)
    path = kd.ridge_path(taken)
    correct = taken.backend.score_path(taken.feature_map, X, y, path.models(), dtype=np.dtype(precision))
    reliable = path.positive_definite & ~path.below_noise_floor
    assert np.count_nonzero(reliable) >= 8
    assert reliable.tolist() == sorted(reliable.tolist())  # the larger lambdas
    accuracy = correct[reliable] / len(y)
    best_of_larger = np.maximum.accumulate(accuracy[::-1])[::-1]
    assert np.all(best_of_larger - accuracy <= tolerances.ACCURACY_NOISE)
    assert np.all(np.diff(path.train_rmse[reliable]) >= 0.0)
    assert accuracy[0] > 0.9


def test_a_path_without_a_choice_has_no_model() -> None:
    X, y = np.random.default_rng(0).standard_normal((60, 5)), np.arange(60) % 3
    statistics = kd.RidgeStatistics(kd.Identity(5), classes=3).update(X, y)
    path = kd.ridge_path(statistics)
    with pytest.raises(ValueError, match=r"RidgePath\.model: no lambda was chosen"):
        path.model()
    assert repr(path) == "RidgePath(24 lambdas from 1e-06 to 3.16e+05, none chosen)"
    by_rows = kd.fit_model(statistics, validation=kd.HeldOutRows(X, y))
    assert (
        repr(by_rows.path) == f"RidgePath(24 lambdas from 1e-06 to 3.16e+05, {by_rows.lambda_:.3g} chosen by accuracy)"
    )
    assert repr(kd.fit_model(statistics, 2.0).path) == "RidgePath(one lambda, 2 chosen by request)"
