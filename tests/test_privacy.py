"""Privacy: sensitivities against the worst that was found, noise against its stated scale, audits, the command."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.stats

import krrdistill as kd
import oracles
import tolerances
from krrdistill.apps import privacy
from krrdistill.apps.cli import main
from krrdistill.apps.folder import output_folder
from krrdistill.apps.privacy import mechanisms
from krrdistill.apps.privacy.mechanisms import default_lambda
from krrdistill.apps.privacy.noise import ROUNDING, Part, grid_step, noisy
from krrdistill.apps.privacy.release import default_norm_bound, public_inputs
from krrdistill.apps.run_kind import RunKind
from krrdistill.common.files import lock
from krrdistill.construct.labels import learned_labels

pytestmark = pytest.mark.usefixtures("undrawn_pages")

Array = npt.NDArray[Any]
P, K, N = 6, 3, 40
BUDGET = privacy.PrivacyBudget(1.0, 1e-5)


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def clipped(n: int = N, bound: float = 2.0, seed: int = 0) -> privacy.ClippedStatistics:
    labels = np.arange(n) % K
    return privacy.clipped_statistics(gaussian(n, P, seed=seed), labels, kd.Identity(P), K, norm_bound=bound)


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x))


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


# Clipping


@pytest.mark.parametrize("bound", [0.5, 2.0, math.inf])
def test_clipped_statistics(bound: float) -> None:
    X, labels = gaussian(N, P), np.arange(N) % K
    norms = np.linalg.norm(X, axis=1)
    Phi = (X * np.minimum(1.0, bound / norms)[:, None]).T
    actual = clipped(bound=bound)
    assert actual.n_clipped == np.count_nonzero(norms > bound)
    tolerances.assert_solve(actual.largest_norm, norms.max())
    close = tolerances.assert_solve if math.isinf(bound) else tolerances.assert_estimate  # clipped ones are rounded
    close(actual.statistics.gram, oracles.gram(Phi))
    close(actual.statistics.cross, oracles.cross(oracles.one_hot(labels, K), Phi))
    assert actual.statistics.n == N


@pytest.mark.parametrize("backend", ["native", "numba", "array"])
def test_sums_of_clipped_features_are_exact_in_any_order(backend: str) -> None:
    X, labels = gaussian(301, P), np.arange(301) % K
    order = np.random.default_rng(1).permutation(301)
    keywords: dict[str, Any] = {"norm_bound": 0.7, "backend": backend}
    found, shuffled = (
        privacy.clipped_statistics(X[rows], labels[rows], kd.Identity(P), K, **keywords)
        for rows in (np.arange(301), order)
    )
    tolerances.assert_exact(shuffled.statistics.gram, found.statistics.gram)
    tolerances.assert_exact(shuffled.statistics.cross, found.statistics.cross)
    assert 301 * (0.7 / found.step) ** 2 <= 2**52
    other = X.copy()
    other[5] *= -1e3
    changed = privacy.clipped_statistics(other, labels, kd.Identity(P), K, **keywords)
    old, new = (single(each, labels[5], found.step) for each in (X[5], other[5]))
    for name in ("gram", "cross"):
        moved = getattr(changed.statistics, name) - getattr(found.statistics, name)
        tolerances.assert_exact(moved, getattr(new, name) - getattr(old, name))


def single(x: Array, label: int, step: float) -> Any:
    """Statistics of one clipped sample, rounded to the grid of many."""
    reach = privacy.clipping._grid(301, P, 0.7)[1]
    q = step * np.rint(x * min(1.0, reach / np.linalg.norm(x)) / step)
    return kd.RidgeStatistics(kd.Identity(P), K, precision="float64").update(q[None], np.array([label]))


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e30])
def test_rounded_features_keep_the_norm_bound(scale: float) -> None:
    """In exact arithmetic, where clipping to B and rounding then would leave half of them longer."""
    X = scale * gaussian(500, 64)
    X[::2] = X[0]
    step, _ = privacy.clipping._grid(1, 64, scale)
    for x in X[:50]:
        found = privacy.clipped_statistics(x[None], [0], kd.Identity(64), 1, norm_bound=scale)
        assert found.step == step
        squares = sum(Fraction(float(value)) ** 2 for value in found.statistics.cross[0])
        assert squares <= Fraction(scale) ** 2
        assert np.linalg.norm(found.statistics.cross) > 0.99 * scale or np.linalg.norm(x) < scale


def test_more_samples_than_have_exact_sums_are_refused() -> None:
    with pytest.raises(kd.DataError, match="exact only on a grid that is too coarse"):
        privacy.clipping._grid(10**12, 3072, 1.0)


def test_clipping_is_of_features_and_of_chosen_rows() -> None:
    X, phi, rows = gaussian(N, 9), kd.FCNN(9, [P], seed=1), np.arange(3, N, 2)
    actual = privacy.clipped_statistics(X, np.arange(N) % K, phi, K, norm_bound=0.7, rows=rows)
    Phi = oracles.features(X[rows].T, phi.layers)
    Phi = Phi * np.minimum(1.0, 0.7 / np.linalg.norm(Phi, axis=0))
    tolerances.assert_estimate(actual.statistics.gram, oracles.gram(Phi))
    assert actual.statistics.n == len(rows)


# The analytic Gaussian mechanism


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.1])
def test_noise_multiplier_meets_the_definition(epsilon: float, delta: float) -> None:
    """delta = integral of max(0, p - e^epsilon q) for the densities p, q of N(1, sigma^2) and N(0, sigma^2)."""
    sigma = privacy.gaussian_noise_multiplier(privacy.PrivacyBudget(epsilon, delta))
    start = 0.5 + epsilon * sigma**2  # where p = e^epsilon q

    def excess(x: float) -> float:
        return float(scipy.stats.norm.pdf(x, 1, sigma) - np.exp(epsilon + scipy.stats.norm.logpdf(x, 0, sigma)))

    spent, _ = scipy.integrate.quad(excess, start, max(start, 1.0) + 40.0 * sigma, epsabs=0.0, epsrel=1e-10, limit=400)
    tolerances.assert_estimate(spent, delta)
    assert spent <= delta * (1.0 + 1e-6)


def test_noise_multiplier_is_below_the_classical_one_and_monotone() -> None:
    epsilons = np.geomspace(1e-3, 1.0, 13)
    sigmas = [privacy.gaussian_noise_multiplier(privacy.PrivacyBudget(float(e), 1e-5)) for e in epsilons]
    assert all(s < math.sqrt(2.0 * math.log(1.25e5)) / e for s, e in zip(sigmas, epsilons, strict=True))
    assert sigmas == sorted(sigmas, reverse=True)
    tolerances.assert_estimate(sigmas[-1], 3.7306)  # epsilon = 1, delta = 1e-5: the value that is quoted for it


# Sensitivities


def statistics_shift(f: Array, y: Array, other: Array, other_y: Array) -> float:
    """Distance of (G / B^2, C / B), B = 1, when (f, y) is replaced."""
    gram, cross = np.outer(f, f) - np.outer(other, other), np.outer(y, f) - np.outer(other_y, other)
    return float(np.sqrt(np.sum(gram**2) + np.sum(cross**2)))


def test_statistics_sensitivity_is_the_worst_case() -> None:
    eye, rng = np.eye(K), np.random.default_rng(0)
    worst = 0.0
    for _ in range(4000):
        f, other = (rng.uniform() ** 0.2 * unit(rng.standard_normal(2)) for _ in range(2))
        worst = max(worst, statistics_shift(f, eye[0], other, eye[rng.integers(2)]))
    assert 0.95 * privacy.STATISTICS_SENSITIVITY < worst <= privacy.STATISTICS_SENSITIVITY
    angle = np.arccos(-0.5)
    attained = statistics_shift(np.array([1.0, 0.0]), eye[0], np.array([np.cos(angle), np.sin(angle)]), eye[0])
    tolerances.assert_solve(attained, privacy.STATISTICS_SENSITIVITY)


@pytest.mark.parametrize("lambda_", [0.01, 0.3, 4.0, 200.0])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_output_sensitivity_bounds_every_replacement(lambda_: float, n: int) -> None:
    B = 1.5
    bound = privacy.output_sensitivity(lambda_, B, n)
    rng, worst = np.random.default_rng(n), 0.0
    for trial in range(300):
        d = 1 + trial % 3  # few features: the hard cases are nearly collinear
        Phi = rng.standard_normal((d, n))
        Phi *= B / np.maximum(B, np.linalg.norm(Phi, axis=0)) if trial % 2 else B / np.linalg.norm(Phi, axis=0)
        labels = rng.integers(0, 2, n)
        other, other_labels = Phi.copy(), labels.copy()
        other[:, 0] = -Phi[:, 0] if trial % 5 else B * unit(rng.standard_normal(d))
        other_labels[0] = 1 - labels[0]
        W, W_other = (
            oracles.ridge(oracles.one_hot(y, 2), F, lambda_) for F, y in ((Phi, labels), (other, other_labels))
        )
        worst = max(worst, float(np.linalg.norm(W - W_other)))
    assert 0.0 < worst <= bound


def test_output_sensitivity_needs_the_residual() -> None:
    """A model of the largest norm sqrt(n - 1) / (2 sqrt(lambda)), and a sample that it gets wrong by five."""
    n, lambda_ = 1001, 10.0
    Phi = np.full((1, n), np.sqrt(lambda_ / (n - 1)))
    labels = oracles.one_hot(np.zeros(n, np.int64), 2)
    Phi[0, 0], labels[:, 0] = 1.0, [0.0, 1.0]
    other = Phi.copy()
    other[0, 0] = 0.0
    moved = np.linalg.norm(oracles.ridge(labels, Phi, lambda_) - oracles.ridge(labels, other, lambda_))
    without_residual = 2.0 / (lambda_ + 1.0)
    assert without_residual < moved <= privacy.output_sensitivity(lambda_, 1.0, n)


def test_output_sensitivity_needs_both_steps() -> None:
    """Two samples with lambda and B such that half of the bound is passed: one of the two steps is not enough."""
    B, lambda_ = 1.0, 100.0
    one, other = np.array([[B, B]]), np.array([[B, -B]])
    Y = np.array([[1.0, 1.0], [0.0, 0.0]])
    moved = np.linalg.norm(oracles.ridge(Y, one, lambda_) - oracles.ridge(Y, other, lambda_))
    assert 0.5 * privacy.output_sensitivity(lambda_, B, 2) < moved <= privacy.output_sensitivity(lambda_, B, 2)


# The noise itself


def draws(mechanism: str, count: int, **keywords: Any) -> tuple[list[Array], Array, privacy.PrivateModel]:
    """Models of the same statistics under fresh noise, and the one without noise."""
    statistics = clipped()
    models = [privacy.perturb(statistics, mechanism, BUDGET, **keywords) for _ in range(count)]
    exact = oracles.ridge_of_statistics(statistics.statistics.gram, statistics.statistics.cross, models[0].lambda_)
    return [model.W for model in models], exact, models[0]


def assert_standard_normal(sample: Array) -> None:
    """Mean, variance and shape of what should be independent N(0, 1)."""
    tolerances.assert_within(np.mean(sample), 0.0, tolerances.statistical(sample.size))
    tolerances.assert_within(np.mean(sample**2), 1.0, tolerances.statistical(sample.size, math.sqrt(2.0)))
    assert scipy.stats.kstest(sample.ravel(), "norm").pvalue > 1e-8  # noise has no seed


def test_output_noise_has_the_stated_scale() -> None:
    models, exact, model = draws("output", 200, lambda_=3.0)
    sensitivity = privacy.output_sensitivity(3.0, 2.0, N) + 2.0 * privacy.solver_error(3.0, 2.0, N, P)
    tolerances.assert_solve(model.sensitivity, sensitivity * (1.0 + 2.0 * ROUNDING))
    assert model.noise_std == privacy.discrete_noise_multiplier(BUDGET) * model.sensitivity
    assert_standard_normal((np.array(models) - exact) / model.noise_std)


def test_statistics_noise_has_the_stated_scale() -> None:
    statistics = clipped()
    model = privacy.perturb(statistics, "statistics", BUDGET)
    tolerances.assert_solve(model.sensitivity, privacy.STATISTICS_SENSITIVITY * (1.0 + 2.0 * ROUNDING))
    assert model.noise_std == privacy.discrete_noise_multiplier(BUDGET) * model.sensitivity
    released = [privacy.private_statistics(statistics, BUDGET) for _ in range(200)]
    grams, crosses = (np.array(parts) for parts in zip(*released, strict=True))
    assert_standard_normal((crosses - statistics.statistics.cross) / (model.noise_std * 2.0))
    noise = (grams - statistics.statistics.gram) / (model.noise_std * 4.0)
    tolerances.assert_exact(noise, noise.transpose(0, 2, 1))
    above = np.triu_indices(P, 1)
    assert_standard_normal(np.array([math.sqrt(2.0) * one[above] for one in noise]))
    assert_standard_normal(np.array([np.diagonal(one) for one in noise]))


def test_statistics_model_is_that_of_the_noisy_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = clipped()
    gram, cross = privacy.private_statistics(statistics, BUDGET)
    monkeypatch.setattr(mechanisms, "private_statistics", lambda *_, **__: (gram, cross))
    model = privacy.perturb(statistics, "statistics", BUDGET, lambda_=5.0)
    values, V = np.linalg.eigh(gram)
    assert values[0] < 0.0 < values[-1]
    positive = V @ np.diag(np.maximum(values, 0.0)) @ V.T
    tolerances.assert_solve(model.W, oracles.ridge_of_statistics(positive, cross, 5.0), 100.0)


def zero_feature_pair() -> list[privacy.ClippedStatistics]:
    """Two neighbouring data sets, n = 100, p = 8, k = 2: a feature of the first is zero in all samples."""
    X, labels = gaussian(100, 8), np.arange(100) % 2
    X[:, 7] = 0.0
    other = X.copy()
    other[0] = [*np.zeros(7), 3.0]
    return [privacy.clipped_statistics(x, labels, kd.Identity(8), 2, norm_bound=math.sqrt(8.0)) for x in (X, other)]


def test_last_bits_of_released_weights_are_the_same_for_neighbours() -> None:
    """Of float64 noise they tell which of the two it was, with delta >= 0.023 (docs/measured/privacy.md)."""
    for statistics in zero_feature_pair():
        for _ in range(20):
            model = privacy.perturb(statistics, "output", BUDGET)
            steps = model.W / grid_step(model.sensitivity, 16)
            tolerances.assert_exact(steps, np.rint(steps))


def test_last_bits_of_released_statistics_are_the_same_for_neighbours() -> None:
    for statistics in zero_feature_pair():
        for _ in range(20):
            released = privacy.private_statistics(statistics, BUDGET)
            for sums, unit in zip(released, (8.0, math.sqrt(8.0)), strict=True):
                steps = sums / grid_step(privacy.STATISTICS_SENSITIVITY, 8 * 8 + 2 * 8, unit)
                tolerances.assert_exact(steps, np.rint(steps))


def test_grid_adds_what_it_says_to_a_sensitivity() -> None:
    for sensitivity, count, unit in ((1.0, 1, 1.0), (0.3, 7, 5.0), (2.0**-20, 4, 1e-30), (1e5, 4_723_200, 784.0)):
        step = grid_step(sensitivity, count, unit)
        assert math.frexp(step)[0] == 0.5
        assert step * math.sqrt(count) <= ROUNDING * sensitivity * unit < 2.0 * step * math.sqrt(count)


@pytest.mark.parametrize("scale", [2.0, 5.5, 300.0])
def test_discrete_noise_is_as_near_to_rounded_noise_as_its_slack_asks(scale: float) -> None:
    """P <= e^(1 / 24 s^2) R and R <= e^(z^2 / 24 s^4) P, R / phi = integral of cosh(z u / s^2) e^(-u^2 / 2 s^2)."""
    z = np.arange(-int(9 * scale), int(9 * scale) + 1)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = nodes[:, None] / 2.0
    rounded = 0.5 * weights @ (np.cosh(z * u / scale**2) * np.exp(-(u**2) / (2.0 * scale**2)))
    density = np.exp(-(z**2) / (2.0 * scale**2)) / (scale * math.sqrt(2.0 * math.pi))
    discrete = 1.0 / density.sum()  # both relative to the density of N(0, s^2)
    ratio, rounding = np.log(discrete / rounded), tolerances.elementwise(np.float64, 10.0)
    assert ratio.max() <= 1.0 / (24.0 * scale**2) + rounding
    assert (-ratio <= z**2 / (24.0 * scale**4) + rounding).all()
    assert -ratio.min() > 0.5 * (z**2 / (24.0 * scale**4)).max()  # no better bound


def test_noise_that_its_grid_would_show_is_refused() -> None:
    with pytest.raises(kd.DataError, match=r"epsilon 1e\+14 and delta 0.5 are too extreme"):
        privacy.perturb(clipped(), "output", privacy.PrivacyBudget(1e14, 0.5), lambda_=5.0)
    with pytest.raises(kd.DataError, match="its deviation is 1 steps"):
        noisy([Part(np.zeros(3), 1.0, 1.0)], BUDGET)


def test_without_opendp_a_release_is_refused_before_the_data_are_read(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    monkeypatch.setattr(privacy.release, "clipped_statistics", lambda *_, **__: pytest.fail("a pass over the data"))
    options = privacy.ReleaseOptions(mechanism="output")
    with pytest.raises(kd.BackendUnavailable, match=r'needs OpenDP .*: pip install "krrdistill\[privacy\]"'):
        privacy.private_release(digits, options=options, out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_long_noise_is_said_beforehand() -> None:
    with pytest.warns(kd.errors.ResultWarning, match=r"noise for 5,027,328 numbers takes about 3.4 minutes"):
        privacy.release._say_time("statistics", 100, 3072)
    privacy.release._say_time("output", 100, 3072)


# Rounding errors of the solver


def exact_weights(gram: Array, cross: Array, lambda_: float) -> list[Fraction]:
    """C (G + lambda I)^-1 in rational numbers, by Gauss-Jordan."""
    p = len(gram)
    rows = [[Fraction(float(v)) for v in [*gram[i], *cross[:, i]]] for i in range(p)]
    for i in range(p):
        rows[i][i] += Fraction(lambda_)
    for i in range(p):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(p):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [rows[i][p + c] for c in range(len(cross)) for i in range(p)]


@pytest.mark.parametrize("lambda_", [1e-9, 1e-3, 10.0])
def test_solver_error_bounds_the_distance_to_the_exact_weights(lambda_: float) -> None:
    X = gaussian(N, P)
    X[:, 1] = X[:, 0] * (1.0 + 1e-9)
    statistics = privacy.clipped_statistics(X, np.arange(N) % K, kd.Identity(P), K, norm_bound=2.0).statistics
    W = mechanisms._solve(statistics.gram, statistics.cross, lambda_)
    exact = exact_weights(statistics.gram, statistics.cross, lambda_)
    errors = [float(Fraction(float(a)) - b) for a, b in zip(W.ravel(), exact, strict=True)]
    assert 0.0 < np.linalg.norm(errors) <= privacy.solver_error(lambda_, 2.0, N, P)


def test_lambda_without_a_bound_on_rounding_is_refused_with_the_least_that_has_one() -> None:
    with pytest.raises(kd.DataError, match="too small to bound the rounding errors") as refused:
        privacy.perturb(clipped(), "output", BUDGET, lambda_=1e-13)
    least = float(re.findall(r"--model-lambda of (\S+) or more", str(refused.value))[0])
    assert privacy.perturb(clipped(), "output", BUDGET, lambda_=1.1 * least).sensitivity > 0.0
    privacy.perturb(clipped(), "statistics", BUDGET, lambda_=1e-13)


def test_inaccurate_solver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = mechanisms.scipy.linalg.cho_solve
    monkeypatch.setattr(mechanisms.scipy.linalg, "cho_solve", lambda *given: solve(*given) * (1.0 + 1e-9))
    with pytest.raises(kd.DataError, match="less accurate than it has to be"):
        privacy.perturb(clipped(), "output", BUDGET)


@pytest.mark.parametrize("mechanism", privacy.MECHANISMS)
def test_noise_is_fresh_and_vanishes_for_a_large_epsilon(mechanism: str) -> None:
    statistics = clipped()
    first, second = (privacy.perturb(statistics, mechanism, BUDGET).W for _ in range(2))
    assert np.abs(first - second).max() > 1e-6
    loose = [privacy.perturb(statistics, mechanism, privacy.PrivacyBudget(1e6, 0.5), lambda_=300.0) for _ in range(40)]
    exact = oracles.ridge_of_statistics(statistics.statistics.gram, statistics.statistics.cross, 300.0)
    tolerances.assert_estimate(np.mean([model.W for model in loose], axis=0), exact)


def test_default_lambdas_owe_nothing_to_the_data() -> None:
    sigma = privacy.gaussian_noise_multiplier(BUDGET)
    noise = sigma * privacy.STATISTICS_SENSITIVITY * 9.0
    tolerances.assert_solve(default_lambda("statistics", BUDGET, 3.0, N, 50), noise * math.sqrt(100.0))
    for n in (10, 60_000):
        chosen = default_lambda("output", BUDGET, 3.0, n, 50)
        tolerances.assert_estimate(3.0 * sigma * privacy.output_sensitivity(chosen, 3.0, n), 0.05)
    for mechanism in privacy.MECHANISMS:
        models = [privacy.perturb(clipped(seed=seed), mechanism, BUDGET) for seed in (0, 1)]
        assert models[0].lambda_ == models[1].lambda_ == default_lambda(mechanism, BUDGET, 2.0, N, P)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: privacy.perturb(clipped(), "laplace", BUDGET), ValueError, "mechanism must be one of"),
        (lambda: privacy.perturb(clipped(bound=math.inf), "output", BUDGET), kd.DataError, "features were not clipped"),
        (lambda: privacy.perturb(clipped(n=1), "output", BUDGET), kd.DataError, "1 samples are too few"),
        (lambda: privacy.perturb(clipped(), "output", BUDGET, lambda_=0.0), ValueError, "lambda must be finite"),
        (lambda: privacy.PrivacyBudget(0.0, 1e-5), ValueError, "epsilon must be finite and > 0, got 0.0"),
        (lambda: privacy.PrivacyBudget(math.inf, 1e-5), ValueError, "epsilon must be finite"),
        (lambda: privacy.PrivacyBudget(1.0, 1.0), ValueError, r"delta must be finite and > 0 and < 1, got 1.0"),
        (lambda: privacy.PrivacyBudget(1.0, "small"), TypeError, "delta must be a number, got 'small'"),  # type: ignore[arg-type]
        (lambda: privacy.ReleaseOptions(mechanism="output", budget=BUDGET, norm_bound=-1.0), ValueError, "norm_bound"),
        (lambda: privacy.ReleaseOptions(mechanism="output", budget=BUDGET, points_per_class=0), ValueError, "points"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# A private release


@pytest.mark.parametrize("mechanism", privacy.MECHANISMS)
@pytest.mark.parametrize("kernel", ["identity", "FCNN", "random_fourier"])
def test_release_holds_the_private_model(digits: kd.Dataset, tmp_path: Path, mechanism: str, kernel: str) -> None:
    options = privacy.ReleaseOptions(mechanism=mechanism, budget=privacy.PrivacyBudget(1e4, 1e-5), points_per_class=2)
    map_options = {"sigma2": 3000.0} if kernel == "random_fourier" else {}
    release = privacy.private_release(digits, kernel=kernel, map_options=map_options, options=options, out=tmp_path)
    tolerances.assert_exact(kd.DistilledDataset.load(tmp_path / "distilled.npz").weights, release.model.W)
    tolerances.assert_promised(release.certificate.weight_relative_error)
    assert release.certificate.original_accuracy > 0.7
    assert release.model.n == len(digits.x_train)


def test_nothing_in_a_release_but_the_noisy_model_depends_on_the_data(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two data sets of one size, the noisy W held equal: the files are the same, byte for byte."""
    W = gaussian(10, 64)
    real = privacy.release.perturb
    monkeypatch.setattr(
        privacy.release, "perturb", lambda *a, **k: privacy.PrivateModel(**{**vars(real(*a, **k)), "W": W})
    )
    options = privacy.ReleaseOptions(mechanism="statistics", budget=BUDGET, points_per_class=2, store="uint8")
    rng = np.random.default_rng(0)
    other = kd.Dataset(
        digits.name,
        rng.integers(0, 17, digits.x_train.shape, dtype=np.uint8),
        9 - digits.y_train,
        digits.x_test,
        digits.y_test,
        digits.class_names,
    )
    contents = []
    for name, data in (("a", digits), ("b", other)):
        (tmp_path / name).mkdir()
        privacy.private_release(data, kernel="FCNN", options=options, out=tmp_path / name)
        contents.append((tmp_path / name / "distilled.npz").read_bytes())
    assert contents[0] == contents[1]


def test_release_says_its_guarantee(digits: kd.Dataset, tmp_path: Path) -> None:
    options = privacy.ReleaseOptions(mechanism="output", budget=BUDGET, norm_bound=50.0)
    distilled = privacy.private_release(digits, options=options, out=tmp_path).distilled
    facts = distilled.meta["privacy"]
    assert (facts["epsilon"], facts["delta"], facts["norm_bound"]) == (1.0, 1e-5, 50.0)
    assert facts["guarantee"][:-1] == list(privacy.GUARANTEE)
    assert "Rounding errors of W" in facts["guarantee"][-1]
    assert facts["rho"] == 0.5 / privacy.discrete_noise_multiplier(BUDGET) ** 2
    assert facts["total_epsilon"] is None  # no ledger was given
    assert not {"val_accuracy", "original", "certificate", "seconds"} & distilled.meta.keys()
    audit = privacy.audit_file(distilled, digits, BUDGET)
    assert audit["release"] == facts
    assert "theorem" not in audit


def test_labels_of_rounded_inputs_are_learned_in_float64(digits: kd.Dataset, tmp_path: Path) -> None:
    options = privacy.ReleaseOptions(mechanism="output", budget=BUDGET, store="float32")
    release = privacy.private_release(digits, kernel="FCNN", options=options, out=tmp_path)
    expected = learned_labels(release.distilled.features(), release.model.W, 0.0)
    tolerances.assert_solve(release.distilled.Y, expected)


def test_public_inputs(digits: kd.Dataset) -> None:
    phi = public_inputs(digits, "FCNN", {}, seed=0)
    assert phi.preprocessing.kind == "none"  # the spread of the digits is a fact about them
    with pytest.raises(
        kd.DataError, match="random_fourier needs sigma2: finding it from digits would look at the private"
    ):
        public_inputs(digits, "random_fourier", {}, seed=0)
    images = kd.Dataset("mnist", *(a for _ in range(2) for a in (np.arange(784, dtype=np.uint8).reshape(1, 28, 28),
                                                                 np.zeros(1, np.int64))), ("zero",))  # fmt: skip
    phi = public_inputs(images, "random_fourier", {}, seed=0)
    assert phi.preprocessing.constants["source"] == "published"
    assert default_norm_bound(phi) == 1.0
    assert default_norm_bound(kd.Identity(784)) == 28.0
    phi = kd.FCNN(400, [400, 400], seed=0)
    norms = np.linalg.norm(phi.transform(gaussian(500, 400)), axis=1)
    assert abs(default_norm_bound(phi) / np.sqrt(np.mean(norms**2)) - 1.0) < 0.1  # one draw of weights


def test_map_that_brings_moments_of_data_is_refused_before_anything_is_spent(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "import krrdistill as kd",
        "raw = kd.Identity(64)",
        "phi = kd.Identity(64, preprocessing=kd.standardize(kd.load_dataset('digits').x_train))",
    )
    (tmp_path / "map_with_moments.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    out, ledger = tmp_path / "out", tmp_path / "ledger.json"
    options = privacy.ReleaseOptions(mechanism="output", ledger=ledger)
    with pytest.raises(kd.DataError, match=r"map_with_moments:phi brings a preprocessing .* that was measured on data"):
        privacy.private_release(digits, kernel="map_with_moments:phi", options=options, out=out)
    assert not out.exists()
    assert not ledger.exists()
    assert public_inputs(digits, "map_with_moments:raw", {}, seed=0).preprocessing.kind == "none"


def test_every_field_of_a_released_file_has_a_reason_to_be_public(digits: kd.Dataset, tmp_path: Path) -> None:
    seen: set[str] = set()
    for number, (kernel, store, ledger) in enumerate(
        [("identity", "float64", None), ("FCNN", "uint8", tmp_path / "l.json"), ("random_fourier", "float16", None)]
    ):
        out = tmp_path / str(number)
        out.mkdir()
        options = privacy.ReleaseOptions(mechanism="output", store=store, ledger=ledger)
        map_options = {"sigma2": 3000.0} if kernel == "random_fourier" else {}
        privacy.private_release(digits, kernel=kernel, map_options=map_options, options=options, out=out)
        assert privacy.unexplained(out / "distilled.npz") == []
        seen |= set(privacy.released_fields(out / "distilled.npz"))
    assert {"X", "Y", "W", "meta.privacy.rho", "meta.map.seed", "meta.versions.numpy"} <= seen
    for name in privacy.PUBLIC:
        assert name in seen or any(each.startswith(name[:-1]) for each in seen if name.endswith("*")), name


def test_release_with_a_field_without_a_reason_is_removed(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = privacy.release._facts
    monkeypatch.setattr(privacy.release, "_facts", lambda *given: {**facts(*given), "n_clipped": 7})
    with pytest.raises(kd.DataError, match=r"would hold meta.privacy.n_clipped, which nothing says is public"):
        privacy.private_release(digits, options=privacy.ReleaseOptions(mechanism="output"), out=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".distilled.npz.unverified.npz", "release.json", "distilled.npz"])
@pytest.mark.parametrize("done", [False, True])
def test_release_that_fails_at_either_of_its_files_leaves_none(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, done: bool
) -> None:
    replace = os.replace

    def interrupted(source: Any, target: Any) -> None:
        if Path(target).name != name:
            replace(source, target)
            return
        if done:
            replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        privacy.private_release(digits, options=privacy.ReleaseOptions(mechanism="output"), out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_reasons_in_the_documentation_are_those_of_the_code() -> None:
    text = (Path(__file__).parent.parent / "docs" / "explanation" / "private-noise.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|$", text.split("## What is in the file")[1], re.MULTILINE))
    assert rows == dict(privacy.PUBLIC)


# Several releases


def test_total_of_one_release_is_its_own_and_of_several_that_of_their_rho() -> None:
    for epsilon in (0.01, 1.0, 40.0):
        multiplier = privacy.discrete_noise_multiplier(privacy.PrivacyBudget(epsilon, 1e-5))
        rho = 0.5 / multiplier**2
        tolerances.assert_solve(privacy.total_epsilon([rho], 1e-5), epsilon, 1e4)
        several = privacy.total_epsilon([rho] * 9, 1e-5)
        assert 3.0 * epsilon * (1 - 1e-6) < several < 9.0 * epsilon
        tolerances.assert_estimate(privacy.gaussian_delta(several, multiplier / 3.0), 1e-5)


def test_ledger_adds_releases_and_refuses_beyond_the_budget(digits: kd.Dataset, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    options = privacy.ReleaseOptions(mechanism="output", budget=BUDGET, ledger=ledger, budget_epsilon=1.5)
    totals = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        totals.append(privacy.private_release(digits, options=options, out=tmp_path / name))
    facts = [release.distilled.meta["privacy"] for release in totals]
    assert [each["releases"] for each in facts] == [1, 2]
    tolerances.assert_solve(facts[0]["total_epsilon"], 1.0, 1e4)
    assert 1.4 < facts[1]["total_epsilon"] < 1.5
    assert facts[1]["total_rho"] == 2.0 * facts[1]["rho"] == totals[1].total.rho
    before = ledger.read_bytes()
    (tmp_path / "c").mkdir()
    with pytest.raises(kd.DataError, match=r"total would be epsilon 1\.8.* more than the 1.5 of --budget-epsilon"):
        privacy.private_release(digits, options=options, out=tmp_path / "c")
    assert ledger.read_bytes() == before
    assert not any((tmp_path / "c").iterdir())


def test_release_that_fails_after_it_was_entered_is_spent(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, out = tmp_path / "ledger.json", tmp_path / "out"
    out.mkdir()

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(mechanisms, "noisy", fail)
    options = privacy.ReleaseOptions(mechanism="output", ledger=ledger)
    with pytest.raises(MemoryError):
        privacy.private_release(digits, options=options, out=out)
    assert len(json.loads(ledger.read_text(encoding="utf-8"))["releases"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable ledger"),
        ("[1]", "not a readable ledger"),
        ('{"format": "other", "dataset": "d", "n": 3, "releases": []}', "not a ledger of releases"),
        ('{"format": "krrdistill-ledger-1", "dataset": "d", "n": 3, "releases": [{"rho": -1.0}]}', "not a ledger"),
        ('{"format": "krrdistill-ledger-1", "dataset": "d", "n": 3, "releases": [{}]}', "not a readable ledger"),
        ('{"format": "krrdistill-ledger-1", "dataset": "e", "n": 3, "releases": []}', "is the ledger of e with n = 3"),
    ],
)
def test_file_that_is_no_ledger_of_the_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(kd.DataError, match=message):
        privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None)
    assert path.read_text(encoding="utf-8") == text


def test_ledger_behind_a_link_counts_the_release_where_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    link, shared = tmp_path / "ledger.json", tmp_path / "shared" / "ledger.json"
    link.symlink_to(shared)
    for path in (link, shared):
        total = privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None)
    assert link.is_symlink()
    assert total.releases == 2


@pytest.mark.parametrize(("delta", "said"), [(1.1e-3, True), (1e-5, False)])
def test_release_with_a_delta_of_one_sample_or_more_warns(
    digits: kd.Dataset, tmp_path: Path, delta: float, said: bool
) -> None:
    options = privacy.ReleaseOptions(mechanism="output", budget=privacy.PrivacyBudget(1.0, delta))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", kd.ResultWarning)
        privacy.private_release(digits, options=options, out=tmp_path)
    assert ["1/n or more" in str(each.message) for each in caught] == [True] * said


def test_release_without_a_sensitivity_is_refused_before_it_is_entered(digits: kd.Dataset, tmp_path: Path) -> None:
    options = privacy.ReleaseOptions(mechanism="output", lambda_=1e-12, ledger=tmp_path / "ledger.json")
    (tmp_path / "out").mkdir()
    with pytest.raises(kd.DataError, match="give --model-lambda of"):
        privacy.private_release(digits, options=options, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_release_makes_its_folder_before_it_is_entered(digits: kd.Dataset, tmp_path: Path) -> None:
    """A folder that was missing, or could not be made, was found when the budget was spent."""
    ledger, out = tmp_path / "ledger.json", tmp_path / "new" / "out"
    options = privacy.ReleaseOptions(mechanism="output", ledger=ledger)
    privacy.private_release(digits, options=options, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["distilled.npz", "release.json"]
    before = ledger.read_bytes()
    with pytest.raises(kd.KrrDistillError, match="cannot write to the folder"):
        privacy.private_release(digits, options=options, out=ledger / "out")
    assert ledger.read_bytes() == before


def test_release_has_its_folder_for_itself(digits: kd.Dataset, tmp_path: Path) -> None:
    """Two at once wrote one folder, the file of one beside the statement of the other."""
    options = privacy.ReleaseOptions(mechanism="output")
    with output_folder(tmp_path, RunKind.RELEASE), pytest.raises(kd.KrrDistillError, match="is writing to"):
        privacy.private_release(digits, options=options, out=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["release.json", "distilled.npz", "ledger.json"])
def test_ledger_in_the_folder_of_the_release_is_refused(digits: kd.Dataset, tmp_path: Path, name: str) -> None:
    """The release took the place of a ledger of its name."""
    options = privacy.ReleaseOptions(mechanism="output", ledger=tmp_path / "out" / name)
    with pytest.raises(kd.DataError, match="lies in the folder of the release"):
        privacy.private_release(digits, options=options, out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="counts no names")
def test_ledger_of_two_names_is_refused(tmp_path: Path) -> None:
    """A file is replaced by its name: the other one kept the old total."""
    path, other = tmp_path / "ledger.json", tmp_path / "other.json"
    privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None)
    os.link(path, other)
    before = path.read_bytes()
    with pytest.raises(kd.DataError, match="one file by several names"):
        privacy.charge(other, "d", 3, "output", BUDGET, 0.03, None)
    assert path.read_bytes() == other.read_bytes() == before
    other.unlink()
    assert privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None).releases == 2


def test_ledger_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(kd.DataError, match="does not exist; make it first"):
        privacy.charge(tmp_path / "no" / "ledger.json", "d", 3, "output", BUDGET, 0.03, None)


def test_ledger_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    with open(tmp_path / ".ledger.json.lock", "a", encoding="ascii") as stream:
        lock(stream.fileno())
        with pytest.raises(kd.DataError, match="another release is entering itself"):
            privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None)
    assert privacy.charge(path, "d", 3, "output", BUDGET, 0.03, None).releases == 1


# Audits


def test_nearest_neighbours(digits: kd.Dataset) -> None:
    scaling = kd.standardize(digits)
    copies = digits.x_train[[5, 900, 33]]
    phi = kd.Identity(64, preprocessing=scaling)
    distilled = kd.DistilledDataset(scaling.standardise(copies), np.eye(10)[:3], 0.0, phi, digits.shape)
    near = privacy.nearest_neighbours(distilled, digits)
    tolerances.assert_exact(near.nearest, np.array([5, 900, 33]))
    assert near.distances.max() <= tolerances.cancellation(float(np.square(copies, dtype=np.float64).sum()))
    assert near.near_share == 1.0
    train, test = (x.reshape(len(x), -1).astype(float) for x in (digits.x_train, digits.x_test))
    expected = [np.sqrt(np.mean((train - row) ** 2, axis=1)).min() for row in test]
    tolerances.assert_solve(near.baseline, expected)
    noise = kd.DistilledDataset(1e3 * gaussian(20, 64), np.eye(10).repeat(2, axis=0), 0.0, phi, digits.shape)
    far = privacy.nearest_neighbours(noise, digits, limit=7)
    assert len(far.distances) == len(far.baseline) == 7
    assert far.near_share == 0.0


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(
    ("kernel", "lambda_s"), [("FCNN", 0.0), ("identity", "auto"), ("random_fourier", 0.0), ("deep_linear", 0.0)]
)
def test_the_noise_of_a_file_is_measured(digits: kd.Dataset, kernel: str, lambda_s: Any, intercept: bool) -> None:
    phi = kd.make_map(kernel, digits, kd.standardize(digits))
    keywords: dict[str, Any] = {"points_per_class": 5, "intercept": intercept, "noise": "gaussian"}
    result = kd.distill(digits.x_train, digits.y_train, phi, lambda_s=lambda_s, **keywords)
    Q = phi.range_basis()
    W = result.model.W if Q is None else result.model.W @ Q
    expected = np.std(W) / 5 / result.distilled.meta["solution"]["range_scale"]
    freedom = 40 * 64
    measured = privacy.noise_deviation(result.distilled)
    tolerances.assert_within(measured / expected, 1.0, tolerances.statistical(freedom, math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("phi", "options"),
    [
        (kd.Identity(64), {"init": "real"}),
        (kd.Identity(64), {"store": "float16"}),
        (kd.FCNN(64, [96], seed=0), {}),
        (kd.Identity(64), {"points_per_class": 1}),
    ],
    ids=["real start", "rounded", "approximate", "m = k"],
)
def test_no_noise_in_a_file(digits: kd.Dataset, phi: Any, options: dict[str, Any]) -> None:
    phi = phi.with_preprocessing(kd.standardize(digits))
    distilled = kd.distill(digits.x_train, digits.y_train, phi, **{"points_per_class": 2, **options}).distilled
    assert privacy.noise_deviation(distilled) == 0.0


def test_audit_of_a_file(digits: kd.Dataset) -> None:
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    result = kd.distill(digits.x_train, digits.y_train, phi, points_per_class=3)
    audit = json.loads(
        json.dumps(privacy.audit_file(result.distilled, digits, BUDGET, labels_secret=True), allow_nan=False)
    )
    tolerances.assert_promised(audit["reconstruction"]["relative_error"])
    failed = {c["name"] for c in audit["theorem"]["conditions"] if not c["holds"]}
    assert {"lambda", "norm", "labels", "noise"} <= failed
    assert audit["limits"] == list(privacy.LIMITS)
    broken = result.distilled.with_meta(options={"seed": "x"})
    with pytest.raises(kd.DataError, match="does not record how its model was trained"):
        privacy.audit_file(broken, digits, BUDGET)


def test_audit_of_labels_with_centred_targets(digits: kd.Dataset) -> None:
    """Learned again, they have rank k - 1."""
    phi = kd.make_map("identity", digits, kd.standardize(digits))
    keywords: dict[str, Any] = {"points_per_class": 2, "store": "float16"}
    result = kd.distill(digits.x_train, digits.y_train, phi, center_targets=True, **keywords)
    theorem = privacy.audit_file(result.distilled, digits, BUDGET)["theorem"]
    assert theorem["sigma"] is None
    assert "label_rank" in {c["name"] for c in theorem["conditions"] if not c["holds"]}


# The command


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["privacy", *words, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.drawn
def test_command_audits_a_file_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["distill", "--dataset", "digits", "--kernel", "FCNN", "--ipc", "2", "--out", str(run)]) == 0
    before = (run / "report.html").read_text(encoding="utf-8")
    assert "krrdistill privacy distilled.npz measures what else it gives away" in before
    capsys.readouterr()
    report = run_json(capsys, str(run / "distilled.npz"))
    tolerances.assert_promised(report["reconstruction"]["relative_error"])
    assert report["dataset"] == "digits"
    after = (run / "report.html").read_text(encoding="utf-8")
    assert "W rebuilt from the file alone" in after
    assert "Theorem 6.2 does not apply" in after
    for limit in privacy.LIMITS:
        assert limit.split(":")[0] in after
    assert main(["privacy", str(run)]) == 0  # the folder stands for its file
    shown = capsys.readouterr().out
    assert "VIOLATED lambda" in shown
    assert "W is always revealed" in shown
    # Another file in the same folder: the audit is no longer about it.
    words = ["--dataset", "digits", "--kernel", "FCNN", "--ipc", "3", "--overwrite"]
    assert main(["distill", *words, "--out", str(run)]) == 0
    assert "measures what else" in (run / "report.html").read_text(encoding="utf-8")


def test_command_audits_a_file_of_a_user_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "import numpy as np\nclass Phi:\n    __call__ = staticmethod(lambda X: 3.0 * X)\n"
    text += "    inverse = staticmethod(lambda F: F / 3.0)\nphi = Phi()\n"
    (tmp_path / "audited_map.py").write_text(text, encoding="utf-8")
    own = ["--kernel", "audited_map:phi"]
    assert main(["distill", "--dataset", "digits", "--init", "real", "--labels-only", *own, "--out", "run"]) == 0
    capsys.readouterr()
    assert run_json(capsys, "run/distilled.npz", *own)["theorem"]["holds"] is False


def test_command_downloads_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["distill", "--dataset", "digits", "--out", str(run)]) == 0
    capsys.readouterr()
    asked: list[bool] = []
    load_dataset = kd.load_dataset

    def load(name: str, *, download: bool, **given: Any) -> kd.Dataset:
        asked.append(download)
        return load_dataset(name, **given)

    monkeypatch.setattr("krrdistill.data.load_dataset", load)
    run_json(capsys, str(run / "distilled.npz"), "--download")
    assert asked == [True]


def test_damaged_audits_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["distill", "--dataset", "digits", "--out", str(run)]) == 0
    capsys.readouterr()
    run_json(capsys, str(run / "distilled.npz"))
    audit = json.loads((run / "privacy.json").read_text(encoding="utf-8"))
    for name, damage in (
        ("sha256", {"sha256": 3}),
        ("neighbours.median", {"neighbours": {**audit["neighbours"], "median": "small"}}),
        ("theorem.conditions", {"theorem": {**audit["theorem"], "conditions": [1]}}),
    ):
        (run / "privacy.json").write_text(json.dumps({**audit, **damage}), encoding="utf-8")
        assert main(["report", str(run)]) == 1
        assert f"privacy.json: {name}" in capsys.readouterr().err


def test_command_asks_the_theorem_about_data(capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, "--dataset", "digits", "--ipc", "3", "--norm-bound", "40", "--epsilon", "0.5")
    assert report["theorem"]["norm_bound"] == 40.0
    held = {c["name"]: c["holds"] for c in report["theorem"]["conditions"]}
    assert held["lambda"]
    assert held["epsilon"]
    assert not held["rank"]  # constant pixels
    assert report["theorem"]["sigma"] is None
    assert main(["privacy", "--dataset", "digits"]) == 0
    assert "Theorem 6.2 DOES NOT APPLY" in capsys.readouterr().out


def test_command_makes_a_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "private"
    words = ["--dataset", "digits", "--mechanism", "output", "--epsilon", "50", "--out", str(out), "--ipc", "2"]
    report = run_json(capsys, *words)
    assert report["release"]["epsilon"] == 50.0
    stored = json.loads((out / "release.json").read_text(encoding="utf-8"))
    assert stored["release"] == report["release"]
    assert report.keys() - stored.keys() == {"seconds", "artifact"}  # which are not for everybody
    assert main(["verify", str(out / "distilled.npz"), "--json"]) == 0
    capsys.readouterr()
    assert main(["privacy", *words]) == 1  # into the same folder
    assert "a private release beside other files" in capsys.readouterr().err
    ledger = ["--ledger", str(tmp_path / "ledger.json"), "--budget-epsilon", "60"]
    assert main(["privacy", *words, *ledger, "--out", str(tmp_path / "another")]) == 0
    shown = capsys.readouterr().out
    assert "labels included" in shown
    assert "with all 1 releases of the ledger: epsilon 50, delta 1e-05" in shown
    assert main(["privacy", *words, *ledger, "--out", str(tmp_path / "third")]) == 1
    assert "more than the 60 of --budget-epsilon; nothing was released" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.npz", "--mechanism", "output"], "--mechanism makes a new file and belongs to --dataset, not to FILE"),
        (["x.npz", "--kernel", "FCNN"], "--kernel is what FILE says itself"),
        (["x.npz", "--seed", "0"], "--seed is what FILE says itself"),
        (["x.npz", "--threads", "1"], "--threads belongs to a release with --mechanism, not to FILE"),
        (
            ["--mechanism", "output", "--norm-bound", "1e200"],
            "--norm-bound must be finite and >= 1e-50 and <= 1e+50, got 1e+200",
        ),
        (["x.npz"], "no such file: x.npz"),
        (["x.npz", "--ledger", "l.json"], "--ledger belongs to a release with --mechanism, not to FILE"),
        (["--out", "there"], "--out belongs to a release: give --mechanism"),
        (["--ledger", "l.json"], "--ledger belongs to a release: give --mechanism"),
        (["--mechanism", "output", "--budget-epsilon", "2"], "--budget-epsilon needs --ledger"),
        (["--mechanism", "output", "--secret-labels"], "--secret-labels belongs to Theorem 6.2"),
        (["--mechanism", "laplace"], "--mechanism must be one of statistics, output; got 'laplace'"),
        (["--epsilon", "-1"], "--epsilon must be finite and > 0, got -1"),
        (["--delta", "2"], "--delta must be finite and > 0 and < 1, got 2"),
        (["--norm-bound", "nan"], "--norm-bound must be finite"),
        (["--model-lambda", "0"], "--model-lambda must be finite and > 0"),
        (["--store", "int4"], "--store must be one of"),
        (["--mechanism", "output", "--kernel", "random_fourier"], "random_fourier needs sigma2"),
        (["--kernel", "random_fourier", "--n-features", "80", "--sigma2", "5", "--mechanism", "output"], "80 features"),
    ],
)
def test_command_refuses(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["privacy", *words]) in (1, 2)
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "words",
    [
        ["privacy"],
        ["privacy", "--mechanism", "output"],
        ["privacy", "run/distilled.npz"],
        ["kip", "--iterations", "1"],
    ],
)
def test_commands_need_classes(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = gaussian(30, 4), gaussian(30, 2, seed=1)
    np.savez("values.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    if "run/distilled.npz" in words:
        assert main(["distill", "--dataset", "values.npz", "--out", "run"]) == 0
    capsys.readouterr()
    assert main([*words, "--dataset", "values.npz"]) == 1
    assert capsys.readouterr().err == f"krrdistill: error: {words[0]}: needs classes, values has real targets\n"
