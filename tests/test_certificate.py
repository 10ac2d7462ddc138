"""The numbers of a certificate against their definitions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from conftest import framework
from krrdistill.artifact.certificate import certify
from krrdistill.backends import Backend, base
from krrdistill.data import Preprocessing
from krrdistill.errors import DataError
from krrdistill.ridge import feature_gram
from krrdistill.ridge import scores as module
from krrdistill.ridge.feature_gram import FeatureGram, condition_number

Array = npt.NDArray[Any]

D, P, K, N = 7, 5, 4, 50
SCALING = Preprocessing("standardize", np.full(D, 0.4 * 255), np.full(D, 255.0))
PHI = kd.FCNN(D, [P], seed=2, preprocessing=SCALING)


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def pixels(n: int = N) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (n, D), dtype=np.uint8), rng.integers(0, K, n)


def certificate_of(W: Array, W_S: Array, backend: Any = None, precision: str = "float64", **other: Any) -> Any:
    X, y = pixels()
    arguments: dict[str, Any] = {
        "features": FeatureGram(gaussian(6, P)),
        "feature_map": PHI,
        "X_test": X,
        "y_test": y,
        **other,
    }
    return certify(W, W_S, **arguments, precision=precision, backend=backend)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_against_the_definitions(any_backend: Backend, precision: str) -> None:
    W, F = gaussian(K, P), gaussian(6, P, seed=5)
    W_S = W + 0.5 * gaussian(K, P, seed=1)
    actual = certificate_of(W, W_S, any_backend, precision, features=FeatureGram(F))
    X, y = pixels()
    Phi = oracles.features(X.T / 255 - 0.4, PHI.layers)
    original, distilled = oracles.predictions(W, Phi), oracles.predictions(W_S, Phi)
    error = np.linalg.norm(W_S - W) / np.linalg.norm(W)
    tolerances.assert_elementwise(actual.weight_relative_error, error, np.float64)
    cosine = np.sum(W * W_S) / np.sqrt(np.sum(W * W) * np.sum(W_S * W_S))
    tolerances.assert_elementwise(actual.weight_cosine, cosine, np.float64, 1.0)
    tolerances.assert_solve(actual.condition, oracles.condition(F), oracles.condition(F))
    assert 0.1 < np.mean(original == distilled) < 0.95
    assert actual.prediction_agreement == np.mean(original == distilled)
    counted = np.zeros((K, K, K), int)
    np.add.at(counted, (y, original, distilled), 1)
    cases = np.argwhere(counted)
    np.testing.assert_array_equal(actual.outcomes, np.c_[cases, counted[tuple(cases.T)]])
    np.testing.assert_array_equal(actual.difference, W_S - W)
    assert actual.original_accuracy == np.mean(original == y)
    assert actual.distilled_accuracy == np.mean(distilled == y)


def test_the_same_model(any_backend: Backend) -> None:
    W = gaussian(K, P)
    actual = certificate_of(W, W.copy(), any_backend)
    assert (actual.weight_relative_error, actual.prediction_agreement) == (0.0, 1.0)
    tolerances.assert_elementwise(actual.weight_cosine, 1.0, np.float64)
    assert actual.original_accuracy == actual.distilled_accuracy
    opposite = certificate_of(W, -W, any_backend)
    assert opposite.weight_relative_error == 2.0
    tolerances.assert_elementwise(opposite.weight_cosine, -1.0, np.float64)


def test_models_of_zeros_have_a_certificate() -> None:
    W, zero = gaussian(K, P), np.zeros((K, P))
    numbers = [(c.weight_relative_error, c.weight_cosine) for c in
               (certificate_of(W, zero), certificate_of(zero, W), certificate_of(zero, zero))]  # fmt: skip
    assert numbers == [(1.0, 0.0), (math.inf, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_scores_are_compared_in_float64(any_backend: Backend, precision: str) -> None:
    """A difference of 1e-12 that turns predictions over is not lost in float32 scores."""
    W = np.zeros((2, D))
    W[:, 0] = 1.0  # every row is a tie, which goes to class 0
    W_S = W.copy()
    W_S[1, 0] += 1e-12
    X = np.ones((9, D), np.uint8)
    actual = certify(
        W,
        W_S,
        FeatureGram(np.eye(D)),
        kd.Identity(D),
        X,
        np.zeros(9, np.int64),
        precision=precision,
        backend=any_backend,
    )
    assert (actual.prediction_agreement, actual.original_accuracy, actual.distilled_accuracy) == (0.0, 1.0, 0.0)


def set_batches(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for owner, name in ((module, "_LEAST_ROWS"), (module, "_MOST_ROWS"), (base, "_SCORED_ROWS")):
        monkeypatch.setattr(owner, name, rows)


@pytest.mark.parametrize("batch", [1, 7, 49, 50, 51])
def test_batches_do_not_matter(any_backend: Backend, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    W, W_S = gaussian(K, P), gaussian(K, P, seed=1)
    expected = certificate_of(W, W_S, any_backend)
    set_batches(monkeypatch, batch)
    assert certificate_of(W, W_S, any_backend) == expected


def test_bad_test_rows_are_named(any_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    set_batches(monkeypatch, 8)
    X = np.zeros((N, D))
    X[33, 2] = np.nan
    with pytest.raises(DataError, match="row 33 holds NaN or infinity"):
        certificate_of(gaussian(K, P), gaussian(K, P), any_backend, X_test=X)


def test_numbers_are_those_of_a_report() -> None:
    actual = certificate_of(gaussian(K, P), gaussian(K, P, seed=1))
    assert set(actual.numbers()) == {"weight_relative_error", "weight_cosine", "prediction_agreement", "condition"}
    for name, value in actual.numbers().items():
        assert value == getattr(actual, name)
        assert type(value) is float


@pytest.mark.parametrize(("m", "p"), [(1, 1), (1, 9), (6, 9), (9, 9), (20, 9)])
def test_condition_number(m: int, p: int) -> None:
    F = gaussian(m, p)
    expected = oracles.condition(F)
    tolerances.assert_solve(condition_number(F), expected, expected)
    tolerances.assert_solve(condition_number(1e6 * F), expected, expected)


@pytest.mark.parametrize(("m", "p"), [(6, 9), (9, 9), (40, 30), (30, 40)])
def test_condition_number_of_large_features(m: int, p: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_gram, "_EXACT_CONDITION", 1)  # by iterations, as beyond 1200 rows and columns
    F = gaussian(m, p)
    tolerances.assert_estimate(condition_number(F), oracles.condition(F))
    assert condition_number(F) == condition_number(F.copy())
    F[-1] = F[0]
    if m <= p:
        assert condition_number(F) > 1e12


@pytest.mark.parametrize("m", [1, 6, 20])
def test_condition_number_of_nothing_is_infinite(m: int) -> None:
    assert condition_number(np.zeros((m, 9))) == math.inf


@pytest.mark.parametrize("b", [0.0, 1e-17])
def test_an_intercept_about_zero_is_measured_by_the_spread_of_the_scores(b: float) -> None:
    W, zero = gaussian(K, P), np.zeros(K)
    X, _ = pixels()
    Phi = oracles.features(X.T / 255 - 0.4, PHI.layers)
    spread = np.linalg.norm((W @ Phi).std(axis=1))
    for shift in (1e-16, 0.3):
        actual = certificate_of(W, W.copy(), intercepts=(zero + b, zero + b + shift))
        tolerances.assert_elementwise(actual.weight_relative_error, shift * math.sqrt(K) / spread, np.float64, 1.0)
    far = certificate_of(W, W.copy(), intercepts=(zero + 1e6, zero + 2e6))
    tolerances.assert_elementwise(far.weight_relative_error, 1.0, np.float64)
    nothing = certificate_of(0 * W, 0 * W, intercepts=(zero, zero + 1.0))
    assert nothing.weight_relative_error == math.inf


@pytest.mark.parametrize("targets", ["classes", "multilabel", "real"])
def test_without_a_test_set_only_the_weights_are_compared(targets: str) -> None:
    W, F = gaussian(K, P), gaussian(6, P)
    W_S = W + 0.1 * gaussian(K, P, seed=1)
    known = certificate_of(W, W_S, features=FeatureGram(F))
    other: Any = {"X_test": None, "y_test": None, "features": FeatureGram(F), "targets": targets}
    found = certificate_of(W, W_S, **other)
    for name in ("weight_relative_error", "weight_cosine", "condition"):
        assert getattr(found, name) == getattr(known, name)
    for name in ("prediction_agreement", "original_accuracy", "distilled_accuracy"):
        assert math.isnan(getattr(found, name))
    assert found.per_target is None
    shift = 0.3  # of an intercept about zero, measured by the spread of the scores of the points
    zero, spread = np.zeros(K), np.linalg.norm((F @ W.T).std(axis=0))
    moved = certificate_of(W, W.copy(), intercepts=(zero, zero + shift), **other)
    tolerances.assert_elementwise(moved.weight_relative_error, shift * math.sqrt(K) / spread, np.float64, 1.0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_real_predictions_agree_to_a_millionth_of_their_spread(scale: float) -> None:
    W = scale * gaussian(K, P)
    X, _ = pixels()
    for share, expected in ((1e-9, 1.0), (1e-3, 0.0)):
        zero = np.zeros(K)
        shift = share * scale * np.ones(K)
        actual = certificate_of(
            W, W.copy(), intercepts=(zero, shift), targets="real", y_test=gaussian(len(X), K, seed=4)
        )
        assert actual.prediction_agreement == expected
        assert math.isnan(actual.original_accuracy)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="long doubles are no wider than doubles here")
@pytest.mark.parametrize(
    ("kernel", "store"),
    [
        ("identity", "float32"),
        ("random_fourier", "float64"),
        ("FCNN", "float64"),
        ("FCNN", "float32"),
        ("deep", "float64"),
    ],
)
def test_certificate_is_that_of_extended_precision_within_a_factor_of_two(
    kernel: str, store: str, tmp_path: Path
) -> None:
    framework("sklearn")  # has the digits
    digits = kd.load_dataset("digits")
    options = {"hidden_layers": 2} if kernel == "deep" else {}
    phi = kd.make_map("FCNN" if kernel == "deep" else kernel, digits, kd.standardize(digits), **options)
    result = kd.distill(digits.x_train, digits.y_train, phi, points_per_class=3, store=store)
    result.distilled.save(tmp_path / "distilled.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "distilled.npz")
    stated = loaded.verify(result.model, test=digits).weight_relative_error
    F = oracles.extended_features(loaded.feature_map.on_standardised.layers, loaded.inputs)
    W_S = oracles.extended_retrained(F, loaded.Y, loaded.lambda_s)
    error = float(np.linalg.norm((W_S - result.model.W).astype(np.float64)) / np.linalg.norm(result.model.W))
    assert error > 0.0
    assert 0.5 <= stated / error <= 2.0
