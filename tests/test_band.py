"""A path whose models are made when they are asked for: the same answers as a path that holds them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.backends import native as native_module
from krrdistill.backends.models import ModelStack
from krrdistill.backends.native import NativeBackend

native = pytest.importorskip("krrdistill._native")
Array = npt.NDArray[Any]
LAMBDAS = np.geomspace(1e-2, 1e3, 6)
SHAPES = [(1, 1), (2, 5), (7, 30), (40, 64), (70, 65), (150, 130)]  # (k, p): below, at and beyond one block of the band


def problem(k: int, p: int, *, least: float = 1e-3) -> tuple[Array, Array]:
    """(G, C), G with the smallest eigenvalue ``least`` and condition 1e5."""
    rng = np.random.default_rng(p)
    Q = np.linalg.qr(rng.standard_normal((p, p)))[0]
    values = np.geomspace(1e-3, 1e2, p)
    values[0] = least
    return np.asarray((Q * values) @ Q.T), rng.standard_normal((k, p))


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths keep no models, however few they are."""
    monkeypatch.setattr(native_module, "_HELD_MODELS", 0)
    monkeypatch.setattr(native_module, "_HELD_SHARE", 0.0)


@pytest.mark.parametrize(("k", "p"), SHAPES)
@pytest.mark.parametrize("least", [1e-3, -0.5])
def test_models_made_when_asked_for_are_those_of_a_held_path(k: int, p: int, least: float, nothing_held: None) -> None:
    G, C = problem(k, p, least=least)
    found = NativeBackend().ridge_path(G, C, LAMBDAS, rounding=1e-9)
    expected = super(NativeBackend, NativeBackend()).ridge_path(G, C, LAMBDAS, rounding=1e-9)
    assert isinstance(found.weights, ModelStack)
    definite = LAMBDAS + least > 0.0
    for name in ("positive_definite", "resolved"):
        tolerances.assert_exact(getattr(found, name), getattr(expected, name))
    tolerances.assert_exact(found.positive_definite, definite)
    tolerances.assert_estimate(found.largest_eigenvalue, np.linalg.eigvalsh(G)[-1])
    v, W = np.random.default_rng(1).standard_normal(p), np.asarray(found.weights)
    assert np.isnan(W[~definite]).all()
    for index in np.flatnonzero(definite):
        condition = 1e2 / (LAMBDAS[index] + least)
        one = np.linalg.solve(G + LAMBDAS[index] * np.eye(p), C.T).T
        tolerances.assert_solve(W[index], one, condition)
        tolerances.assert_solve(found.weights[index, [0, -1]], one[[0, -1]], condition, magnitude=np.linalg.norm(one))
        tolerances.assert_solve(found.squares[index], np.sum(one * one), condition)
        tolerances.assert_solve(found.products[index], np.sum(one * C), condition, magnitude=np.linalg.norm(one) * 1e3)
        scale = np.linalg.norm(one) * np.linalg.norm(v)
        tolerances.assert_solve((found.weights @ v)[index], one @ v, condition, magnitude=scale)


@pytest.mark.parametrize("centered", [False, True])
def test_lambda_is_chosen_alike(centered: bool, nothing_held: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((400, 20)) + 1.0, rng.integers(0, 9, 400)
    X[np.arange(400), y] += 2.0
    center = "both" if centered else "none"
    held = kd.HeldOutRows(X[300:], y[300:])
    statistics = kd.RidgeStatistics(kd.Identity(20), classes=9, precision="float64", backend="native")
    statistics.update(X[:300], y[:300])
    path = kd.ridge_path(statistics, center=center)
    assert isinstance(path.weights, ModelStack)
    tolerances.assert_exact(np.asarray(pickle.loads(pickle.dumps(path)).weights), np.asarray(path.weights))
    monkeypatch.setattr(native_module, "_HELD_MODELS", 60)  # three rows at a time
    streamed = [kd.fit_model(statistics, validation=held, center=center)]
    other = kd.RidgeStatistics(kd.Identity(20), classes=9, precision="float64", backend="native")
    streamed += [kd.fit_model(statistics, validation=other.update(X[300:], y[300:]), center=center)]
    monkeypatch.undo()
    whole = [kd.fit_model(statistics, validation=which, center=center) for which in (held, other)]
    for one, two in zip(streamed, whole, strict=True):
        assert one.lambda_ == two.lambda_
        tolerances.assert_solve(one.path.score, two.path.score, 1e3)
        tolerances.assert_solve(one.path.train_rmse, two.path.train_rmse, 1e3)
        tolerances.assert_solve(one.W, two.W, 1e3)


def test_real_targets_are_chosen_alike(nothing_held: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 6))
    Y = X @ rng.standard_normal((6, 4)) + rng.standard_normal((200, 4))
    statistics = kd.RidgeStatistics(kd.Identity(6), n_targets=4, backend="native").update(X[:150], Y[:150])
    held = kd.HeldOutRows(X[150:], Y[150:])
    streamed = kd.fit_model(statistics, validation=held, per_target=True)
    monkeypatch.undo()
    whole = kd.fit_model(statistics, validation=held, per_target=True)
    tolerances.assert_exact(streamed.lambdas, whole.lambdas)
    tolerances.assert_solve(streamed.W, whole.W, 1e3)


def test_a_path_holds_its_models_where_they_are_few() -> None:
    for k, p, held in ((3, 40, True), (40, 30, True)):
        G, C = problem(k, p)
        assert isinstance(NativeBackend().ridge_path(G, C, LAMBDAS, rounding=1e-9).weights, np.ndarray) == held


def test_statistics_that_are_not_finite_give_no_model(nothing_held: None) -> None:
    G, C = problem(7, 30)
    G[3, 3] = np.nan
    found = NativeBackend().ridge_path(G, C, LAMBDAS, rounding=1e-9)
    assert not found.positive_definite.any()
    assert np.isnan(found.largest_eigenvalue)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"factors": np.empty((5, 3))}, "factors, band"),
        (lambda a: a | {"band": np.empty((5, 3))}, "factors, band"),
        (lambda a: a | {"vectors": np.empty((2, 4))}, "vectors"),
        (lambda a: a | {"gram": np.empty((5, 4))}, "gram"),
    ],
)
def test_arrays_of_other_sizes_are_refused(change: Any, message: str) -> None:
    width = native.band_width(5)
    arrays = change({"gram": np.eye(5), "factors": np.empty((5, width)), "band": np.empty((5, width + 1))})
    vectors = arrays.pop("vectors", np.empty((2, 5)))
    with pytest.raises(ValueError, match=message):
        native.apply_q(*arrays.values(), vectors, True)
    with pytest.raises(ValueError, match=message):
        native.solve_band(*arrays.values(), 1.0, vectors)
