"""The exact set nearest to given inputs: nearest where there is a formula, exact and much nearer elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize

import krrdistill as kd
import oracles
import tolerances
from conftest import stages
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.artifact.record import Likeness
from krrdistill.backends import Layer
from krrdistill.construct import nearest, nearest_square
from krrdistill.construct.labels import learned_labels
from krrdistill.construct.nearest import Tangent, TangentWeights, nearest_inputs

Array = npt.NDArray[Any]
D, K = 12, 3
MAPS = {
    "identity": kd.Identity(D),
    "FCNN": kd.FCNN(D),
    "deep": kd.FCNN(D, [11, 9]),
    "random_fourier": kd.RandomFourier(D, 10, sigma2=50.0),
    "orthogonal_fourier": kd.OrthogonalFourier(D, 9, sigma2=50.0),
}


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def assert_exact(feature_map: Any, X: Array, W: Array, lambda_s: float) -> None:
    F = feature_map.transform(X)
    Y = learned_labels(F, W, lambda_s)
    condition = oracles.condition(F) ** 2
    assert condition < 1e13
    tolerances.assert_solve(oracles.retrained(F.T, Y.T, lambda_s), W, condition)


# The nearest set


@pytest.mark.parametrize("m", [3, 4, 9, 11])
def test_identity_is_the_nearest_of_all(m: int) -> None:
    W, X = gaussian(K, D, seed=1), gaussian(m, D, seed=2)
    found = nearest_inputs(stages(D, ()), W, X).U
    outside = X - X @ np.linalg.pinv(W) @ W
    singular = np.linalg.svd(outside, compute_uv=False)
    smallest = np.sort(np.concatenate([singular, np.zeros(max(0, m - len(singular)))]))[:K]
    distance = np.linalg.norm(found - X)
    tolerances.assert_solve(distance, np.linalg.norm(smallest), 1e4, np.float32)  # its solver iterates in float32
    assert_exact(kd.Identity(D), found, W, 0.0)
    for seed in range(20):  # any other combination of points costs more
        U = np.linalg.qr(gaussian(m, K, seed=seed))[0].T
        assert np.linalg.norm(U @ outside) >= distance * (1 - tolerances.elementwise(np.float32))


def test_distance_is_that_of_the_raw_inputs() -> None:
    scale, shift = np.geomspace(0.1, 10.0, D), gaussian(D, seed=4)
    W, X = gaussian(K, D, seed=1), gaussian(7, D, seed=2)
    phi = stages(D, (), scale, shift)
    found = phi.preprocessing.raw(nearest_inputs(phi, W, phi.preprocessing.standardise(X)).U)
    Q = np.linalg.qr(W.T)[0]
    P = np.eye(D) - Q @ Q.T
    F = X * scale + shift
    cost = F @ np.linalg.pinv(P @ np.diag(scale**2) @ P, rcond=1e-12) @ F.T
    expected = np.sqrt(np.linalg.eigvalsh(cost)[:K].sum())
    tolerances.assert_solve(np.linalg.norm(found - X), expected, 1e4, np.float32)
    assert_exact(kd.Identity(D), found * scale + shift, W, 0.0)


@pytest.mark.parametrize("m", [12, 13, 30])
def test_enough_points_do_not_move(m: int) -> None:
    W, X = gaussian(K, D, seed=1), gaussian(m, D, seed=2)
    found = nearest_inputs(stages(D, ()), W, X).U
    tolerances.assert_solve(found, X, 1e4)
    assert_exact(kd.Identity(D), found, W, 0.3)


@pytest.mark.parametrize("lambda_s", [0.0, 7.0])  # labels are free: no bound on lambda_s
@pytest.mark.parametrize("name", MAPS)
def test_every_map_is_exact_and_near(name: str, lambda_s: float) -> None:
    feature_map, X = MAPS[name], gaussian(6, D, seed=2)
    W = gaussian(K, feature_map.output_dim, seed=1)
    found = nearest_inputs(feature_map, W, X).U
    assert_exact(feature_map, found, W, lambda_s)
    assert 0.01 < np.linalg.norm(found - X) / np.linalg.norm(X) < 1.0


@pytest.mark.parametrize("name", ["deep", "random_fourier", "orthogonal_fourier"])
def test_a_pull_towards_the_given_points_brings_it_nearer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feature_map, X = MAPS[name], gaussian(6, D, seed=2)
    W = gaussian(K, feature_map.output_dim, seed=1)
    pulled = nearest_inputs(feature_map, W, X).U
    monkeypatch.setattr(nearest._Search, "_approach", lambda search: None)
    assert np.linalg.norm(pulled - X) < np.linalg.norm(nearest_inputs(feature_map, W, X).U - X)


def coefficients_nearest(feature_map: Any, Q: Array, x: Array, start: Array) -> Array:
    """The inputs nearest to x (d,) among the preimages of a Q, by a plain minimiser over the few numbers a."""

    def offset(a: Array) -> Array:
        limit = feature_map.feature_limit()
        if np.abs(a @ Q).max() > limit:
            return np.full(D, 1e3)
        return np.asarray(feature_map.preimage((a @ Q)[None], near=start[None])[0] - x)

    a = feature_map.transform(start[None])[0] @ Q.T
    found = scipy.optimize.least_squares(offset, a, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    return np.asarray(offset(found) + x)


@pytest.mark.parametrize("name", ["FCNN", "random_fourier", "orthogonal_fourier"])
def test_as_many_points_as_rows_are_as_near_as_a_plain_minimiser_finds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_square, "_MAX_PULLS", 50)
    monkeypatch.setattr(nearest_square, "PROGRESS", -1.0)
    feature_map, X = MAPS[name], gaussian(K, D, seed=2)
    W = gaussian(K, feature_map.output_dim, seed=1)
    found = nearest_inputs(feature_map, W, X).U
    assert_exact(feature_map, found, W, 0.0)
    Q = np.linalg.qr(W.T)[0].T
    best = np.array([coefficients_nearest(feature_map, Q, x, start) for x, start in zip(X, found, strict=True)])
    tolerances.assert_estimate(np.linalg.norm(found - X), np.linalg.norm(best - X))


def test_as_many_points_as_rows_are_near_in_raw_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_square, "_MAX_PULLS", 50)
    monkeypatch.setattr(nearest_square, "PROGRESS", -1.0)
    scaled = stages(D, MAPS["FCNN"].layers, np.geomspace(0.5, 2.0, D), gaussian(D, seed=4))
    X, W = gaussian(K, D, seed=2), gaussian(K, D, seed=1)
    found = scaled.preprocessing.raw(nearest_inputs(scaled, W, scaled.preprocessing.standardise(X)).U)
    assert_exact(scaled, found, W, 0.0)
    Q = np.linalg.qr(W.T)[0].T
    best = np.array([coefficients_nearest(scaled, Q, x, start) for x, start in zip(X, found, strict=True)])
    tolerances.assert_estimate(np.linalg.norm(found - X), np.linalg.norm(best - X))


@pytest.mark.parametrize("name", ["FCNN", "random_fourier"])
def test_as_many_points_as_rows_keep_independent_features_of_equal_points(name: str) -> None:
    feature_map, X = MAPS[name], gaussian(K, D, seed=2)
    X[1] = X[0]
    W = gaussian(K, feature_map.output_dim, seed=1)
    F = feature_map.transform(nearest_inputs(feature_map, W, X).U)
    tolerances.assert_promised_model(kd.fit_features(F, learned_labels(F, W, 0.0), 0.0), W)


@pytest.mark.parametrize("m", [K + 1, 7])
@pytest.mark.parametrize("name", MAPS)
def test_centered_features_hold_the_model(name: str, m: int) -> None:
    feature_map, X = MAPS[name], gaussian(m, D, seed=2)
    W = gaussian(K, feature_map.output_dim, seed=1)
    F = feature_map.transform(nearest_inputs(feature_map, W, X, centered=True).U)
    F = F - F.mean(axis=0)
    F = np.linalg.svd(F, full_matrices=False)[2][: min(m - 1, F.shape[1])]  # one point fewer than there are rows
    tolerances.assert_promised_model(W @ F.T @ F, W)


@pytest.mark.parametrize("m", [K, 6])
@pytest.mark.parametrize("name", MAPS)
def test_time_that_ends_leaves_an_exact_set(name: str, m: int) -> None:
    feature_map, X = MAPS[name], gaussian(m, D, seed=2)
    W = gaussian(K, feature_map.output_dim, seed=1)
    fractions: list[float] = []
    unlimited = nearest_inputs(feature_map, W, X, max_seconds=1e6, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert unlimited.stopped is None
    tolerances.assert_exact(unlimited.U, nearest_inputs(feature_map, W, X).U)
    early = nearest_inputs(feature_map, W, X, max_seconds=1e-9)
    assert early.stopped == "seconds"
    assert_exact(feature_map, early.U, W, 0.0)
    assert np.linalg.norm(early.U - X) >= np.linalg.norm(unlimited.U - X) * (1 - tolerances.elementwise(np.float32))


def test_equal_points_stay_usable() -> None:
    X = gaussian(8, D, seed=2)
    X[1], X[5], X[6] = X[0], X[0], X[4]
    for name in ("identity", "FCNN"):
        W = gaussian(K, D, seed=1)
        found = nearest_inputs(MAPS[name], W, X).U
        F = MAPS[name].transform(found)
        Y = learned_labels(F, W, 0.0)
        tolerances.assert_promised_model(kd.fit_features(F, Y, 0.0), W)
        assert np.linalg.norm(found - X) < 0.2 * np.linalg.norm(X)


def test_model_of_lower_rank() -> None:
    W, X = gaussian(K, D, seed=1), gaussian(6, D, seed=2)
    W[2] = W[0] - W[1]
    assert_exact(kd.Identity(D), nearest_inputs(stages(D, ()), W, X).U, W, 0.0)


def test_bad_points() -> None:
    with pytest.raises(kd.DataError, match=r"X has 2 points, a model of rank 3 needs at least 3"):
        nearest_inputs(stages(D, ()), gaussian(K, D), gaussian(2, D))
    with pytest.raises(kd.DataError, match=r"X must have shape \(4, 12\), got \(4, 11\)"):
        nearest_inputs(stages(D, ()), gaussian(K, D), gaussian(4, 11))
    with pytest.raises(kd.DataError, match="X holds NaN or infinity"):
        nearest_inputs(stages(D, ()), gaussian(K, D), np.full((4, D), np.nan))
    flat = stages(D, (Layer(np.zeros((9, D)), None, "linear", 1.0),))
    with pytest.raises(kd.DataError, match="no exact set was found near the given points"):
        nearest_inputs(flat, gaussian(K, 9), gaussian(4, D))
    flat = stages(D, (Layer(np.outer(gaussian(9), gaussian(D)), None, "linear", 1.0),))
    with pytest.raises(kd.NotSurjective, match="rank deficient"):
        nearest_inputs(flat, gaussian(K, 9), gaussian(4, D))


# The map around its inputs


@pytest.mark.parametrize("name", MAPS)
def test_products_with_the_jacobian(name: str) -> None:
    scale, shift = np.geomspace(0.5, 2.0, D), gaussian(D, seed=4)
    chain = stages(D, MAPS[name].layers, scale, shift)
    X, V, U = gaussian(5, D), gaussian(5, D, seed=1), gaussian(5, chain.output_dim, seed=2)
    at = Tangent(TangentWeights(chain), X + shift / scale)  # its inputs are about the origin
    layers = [(layer.weight, layer.bias, layer.activation, layer.parameter) for layer in chain.layers]
    tolerances.assert_solve(at.features.T, oracles.features(X.T, layers, scale, shift), 100.0)
    step = 1e-6
    ahead, behind = (oracles.features((X + sign * step * V).T, layers, scale, shift).T for sign in (1, -1))
    difference = (ahead - behind) / (2 * step)
    magnitude = float(np.abs(difference).max() + np.abs(at.features).max())
    tolerances.assert_within(at.along(V), difference, tolerances.difference_quotient(step, magnitude))
    tolerances.assert_solve(np.vdot(at.back(U), V), np.vdot(U, at.along(V)), 100.0)
    product = at.along(at.back(U))
    tolerances.assert_solve(at.there_and_back(U.astype(np.float32)), product, 10.0, np.float32)
    if len(chain.layers) <= 1:
        rows = [Tangent(TangentWeights(chain), (X + shift / scale)[i : i + 1]) for i in range(5)]
        products = [row.along(np.eye(D)[j : j + 1]) for row in rows for j in range(D)]
        J = np.concatenate(products).reshape(5, D, -1)
        precision = np.float32 if chain.layers else np.float64  # an affine map is solved by it
        tolerances.assert_solve(at.mean_product(), np.einsum("idp,idq->pq", J, J) / 5, 100.0, precision)
    single = Tangent(TangentWeights(chain), X + shift / scale, single=True)
    for found, expected in (
        (single.features, at.features),
        (single.along(V), at.along(V)),
        (single.back(U), at.back(U)),
    ):
        assert found.dtype == np.float64
        tolerances.assert_solve(found, expected, 100.0, np.float32)


# The dial and its measures


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "orthogonal_fourier", "FCNN"])
def test_nearer_than_the_published_construction(digits: kd.Dataset, tmp_path: Path, kernel: str) -> None:
    found = {}
    for realism in (None, 0.0, 0.5, 1.0):
        options = kd.DistillOptions(points_per_class=4, init="real", realism=realism, lambda_s=0.1 if realism else 0.0)
        result = kd.run_distillation(digits, kernel=kernel, options=options, out=tmp_path)
        tolerances.assert_promised(result.report["certificate"]["weight_relative_error"])
        assert result.report["distilled"] == result.report["original"]
        assert result.report["lambda_s"] == (0.1 if realism else 0.0)
        found[realism] = result.report["realism"]
        assert found[realism]["asked"] == realism
    distances = [found[realism]["mse"] for realism in (0.0, 0.5, 1.0)]
    assert distances == sorted(distances, reverse=True)
    assert found[1.0]["mse"] < 0.1 * found[None]["mse"]  # 10 dB
    assert found[1.0]["out_of_range"] <= found[None]["out_of_range"]


@pytest.mark.parametrize("use_zca", [False, True])
@pytest.mark.parametrize("store", ["float64", "float32"])
def test_preprocessing_and_storage(digits: kd.Dataset, tmp_path: Path, use_zca: bool, store: str) -> None:
    options = kd.DistillOptions(points_per_class=2, init="real", realism=1.0, store=store, lambda_s="auto")
    result = kd.run_distillation(digits, kernel="FCNN", use_zca=use_zca, options=options, out=tmp_path)
    tolerances.assert_promised(result.report["certificate"]["weight_relative_error"], store)
    assert result.report["lambda_s"] == result.report["lambda"]
    assert result.report["realism"]["psnr"] > 15.0


@pytest.mark.parametrize("use_zca", [False, True])
def test_one_point_per_class_is_exact(digits: kd.Dataset, tmp_path: Path, use_zca: bool) -> None:
    options = kd.DistillOptions(points_per_class=1, init="real", realism=1.0)
    for kernel in ("identity", "FCNN", "random_fourier"):
        result = kd.run_distillation(digits, kernel=kernel, use_zca=use_zca, options=options, out=tmp_path)
        tolerances.assert_promised(result.report["certificate"]["weight_relative_error"])


def test_search_that_max_seconds_ends_says_so(digits: kd.Dataset) -> None:
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    options = kd.DistillOptions(points_per_class=2, init="real", realism=1.0, max_seconds=1e-9)
    with pytest.warns(kd.ResultWarning, match="search for the nearest exact set stopped after max_seconds"):
        result = kd.distill(digits.x_train, digits.y_train, phi, options=options)
    assert result.solution["stopped"] == "seconds"
    assert result.distilled.weight_error is not None
    tolerances.assert_promised(result.distilled.weight_error)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"realism": 1.5}, ValueError, "realism must be finite and >= 0 and <= 1, got 1.5"),
        ({"realism": -0.1}, ValueError, "realism must be finite and >= 0 and <= 1, got -0.1"),
        ({"realism": float("nan")}, ValueError, "realism must be finite"),
        ({"realism": "high"}, TypeError, "realism must be a number, got 'high'"),
        ({"realism": 1.0, "init": "noise"}, ValueError, "realism needs init = 'real', got 'noise'"),
        ({"realism": 1.0, "root": "minus", "lambda_s": 1.0}, ValueError, "root and scale_labels"),
        ({"realism": 1.0, "scale_labels": True, "lambda_s": 1.0}, ValueError, "root and scale_labels"),
    ],
)
def test_bad_dial(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kd.DistillOptions(**{"init": "real", **options})


def test_likeness() -> None:
    start = np.array([[0.0, 100.0], [200.0, 200.0]])
    assert likeness(start, start, (0.0, 200.0)) == Likeness(mse=0.0, psnr=None, out_of_range=0.0, asked=None)
    moved = start + np.array([[-20.0, 0.0], [0.0, 20.0]])
    found = likeness(moved, start, (0.0, 200.0))
    tolerances.assert_solve([found.mse, found.psnr], [0.005, -10 * np.log10(0.005)])
    assert found.out_of_range == 0.5
    assert likeness(moved, None, (-50.0, 250.0)) == Likeness(mse=None, psnr=None, out_of_range=0.0, asked=None)


def test_value_range(digits: kd.Dataset) -> None:
    assert value_range(digits.x_train) == (0.0, 16.0)
