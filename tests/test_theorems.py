"""Every theorem, corollary and proposition of the paper: what it states, and that it fails where it should.

Source: Chen, Huang, Weng, Provable and Efficient Dataset Distillation for Kernel Ridge Regression, NeurIPS 2024. Each
part checks the formulas by plain oracles (samples are columns) and the package's functions (samples are rows).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from conftest import stages
from krrdistill.apps import privacy
from krrdistill.apps.kip.gram import GramObjective, regularised_kernel
from krrdistill.construct.closed_form import construct, dual, features_of_dual, gaussian_start, real_start
from krrdistill.construct.labels import learned_labels, one_hot_labels

Array = npt.NDArray[Any]

P, K, N = 12, 3, 60


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def trained(p: int = P, k: int = K, n: int = N, lambda_: float = 0.5, seed: int = 1) -> tuple[Array, Array, Array]:
    """(W, Phi, Y) of ridge regression on n samples."""
    Phi, Y = gaussian(p, n, seed=seed), oracles.one_hot(np.arange(n) % k, k)
    return oracles.ridge(Y, Phi, lambda_), Phi, Y


def assert_same_model(F: Array, Y: Array, lambda_s: float, W: Array) -> None:
    """Features F (m, p) and labels Y (m, k) retrain to W, by the oracle and by the package."""
    condition = relative_condition(F) ** 2
    magnitude = float(np.linalg.norm(Y) * np.linalg.norm(oracles.regularised_inverse(F.T, lambda_s)))
    tolerances.assert_solve(oracles.retrained(F.T, Y.T, lambda_s), W, condition, magnitude=magnitude)
    tolerances.assert_solve(kd.fit_features(F, Y, lambda_s), W, condition, magnitude=magnitude)


def relative_condition(F: Array) -> float:
    """s_1 over the smallest singular value that is not rounding."""
    s = np.linalg.svd(F, compute_uv=False)
    return float(s[0] / s[s > 1e-9 * s[0]][-1])


def difference(W_S: Array, W: Array) -> float:
    return float(np.linalg.norm(W_S - W) / np.linalg.norm(W))


# Theorem 4.1: linear ridge regression, m >= k points are enough and necessary


@pytest.mark.parametrize("m", [3, 6, 12, 21])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0 - 1e-9])
def test_theorem_4_1_every_z_gives_w(m: int, fraction: float) -> None:
    W, _, _ = trained()
    Y, Z = gaussian(m, K, seed=2), gaussian(m, P, seed=3)
    expected = oracles.dual(W, Y.T, Z)
    lambda_s = fraction * oracles.bound(expected)
    tolerances.assert_solve(dual(W, Y, Z), expected, oracles.condition(Y), magnitude=np.linalg.norm(expected))
    for root in ("plus", "minus") if lambda_s else ("plus",):
        assert_same_model(oracles.features_of_dual(expected, lambda_s, root).T, Y, lambda_s, W)
        assert_same_model(features_of_dual(dual(W, Y, Z), lambda_s, root=root), Y, lambda_s, W)


def test_theorem_4_1_every_solution_has_the_form() -> None:
    W, _, _ = trained()
    F = gaussian(2 * P, P, seed=4)
    Y = learned_labels(F, W, 0.3)  # a solution that was not made from some Z
    D = oracles.regularised_inverse(F.T, 0.3)
    tolerances.assert_solve(oracles.dual(W, Y.T, D), D, oracles.condition(F) ** 2)


def test_theorem_4_1_fewer_points_than_classes_fail() -> None:
    W, _, _ = trained()
    with pytest.raises(kd.DataError, match=r"must have rank 3; the construction needs m >= k"):
        dual(W, gaussian(K - 1, K), np.zeros((K - 1, P)))
    # Whatever the points and labels, W_S has rank m < k: Eckart and Young's bound on the error.
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    for seed in range(20):
        W_S = oracles.retrained(gaussian(P, K - 1, seed=seed), gaussian(K, K - 1, seed=seed + 50), 0.1)
        assert np.linalg.norm(W_S - W) >= s[-1]
    best = (U[:, :-1] * s[:-1]) @ Vt[:-1]  # and it is attained, by two points
    F = np.linalg.pinv(Vt[:-1]).T
    tolerances.assert_solve(oracles.retrained(F.T, U[:, :-1] * s[:-1], 0.0), best, 10.0)
    tolerances.assert_solve(np.linalg.norm(best - W), s[-1], 10.0)


def test_theorem_4_1_labels_of_rank_below_k_fail() -> None:
    W, _, _ = trained()
    Y = gaussian(9, K - 1) @ gaussian(K - 1, K, seed=1)
    with pytest.raises(kd.DataError, match="must have rank 3"):
        dual(W, Y, gaussian(9, P))
    D = oracles.dual(W, Y.T, gaussian(9, P))
    assert difference(oracles.retrained(oracles.features_of_dual(D, 0.0), Y.T, 0.0), W) > 0.1


@pytest.mark.parametrize("excess", [1.001, 2.0])
def test_theorem_4_1_lambda_beyond_the_bound_fails(excess: float) -> None:
    W, _, _ = trained()
    Y = one_hot_labels(K, 2)
    D = dual(W, Y, gaussian(6, P, seed=3))
    lambda_s = excess * oracles.bound(D)
    with pytest.raises(kd.LambdaOutOfRange, match=r"exceeds its bound 1/\(4 s1\^2\)"):
        features_of_dual(D, lambda_s)
    # sigma / (sigma^2 + lambda_S) = s_1 has no real sigma: its maximum is 1 / (2 sqrt(lambda_S)) < s_1.
    sigma = np.geomspace(1e-4, 1e4, 100_001) * np.sqrt(lambda_s)
    assert np.max(sigma / (sigma**2 + lambda_s)) < np.linalg.svd(D, compute_uv=False)[0]


# Proposition 4.1: the rank of X_S


def test_proposition_4_1_full_rank() -> None:
    W, _, _ = trained()
    Y = one_hot_labels(K, 3)
    for Z in (gaussian(9, P, seed=3), 1e-3 * gaussian(9, P, seed=4)):
        joined = np.linalg.matrix_rank(np.vstack([W, Z]))
        assert joined == min(K + 9, P)  # Z of full rank; for m + k <= p the ranges meet in 0 only
        assert np.linalg.matrix_rank(features_of_dual(dual(W, Y, Z), 0.0)) == 9
        assert np.linalg.matrix_rank(oracles.features_of_dual(oracles.dual(W, Y.T, Z), 0.0)) == 9


def test_proposition_4_1_ranges_that_meet_lower_the_rank() -> None:
    W, _, _ = trained()
    Y = one_hot_labels(K, 3)
    inside = gaussian(9, K) @ W  # Range(Z^T) = Range(W^T)
    for Z in (np.zeros((9, P)), inside):
        F = features_of_dual(dual(W, Y, Z), 0.0)
        assert np.linalg.matrix_rank(F) == K
        assert_same_model(F, Y, 0.0, W)  # the model does not need the rank


# Corollary 4.1.1: real images as Z


@pytest.mark.parametrize("lambda_s", [0.0, 0.2])
def test_corollary_4_1_1_is_exact_and_nearest(lambda_s: float) -> None:
    W, Phi, _ = trained()
    F_real = Phi[:, :6].T
    D, Y = real_start(W, F_real, lambda_s)
    chosen = min(lambda_s, oracles.bound(D))
    assert_same_model(features_of_dual(D, chosen), Y, chosen, W)
    R = oracles.regularised_inverse(F_real.T, lambda_s)
    for seed in range(10):  # no other dual for these labels is nearer to that of the real images
        other = oracles.dual(W, Y.T, R + gaussian(6, P, seed=seed))
        assert np.linalg.norm(other - R) > np.linalg.norm(D - R)


def test_corollary_4_1_1_keeps_images_that_explain_w() -> None:
    W, Phi, _ = trained()
    F_real = Phi[:, :6].T
    inside = W @ np.linalg.pinv(F_real) @ F_real
    D, Y = real_start(inside, F_real, 0.0)
    tolerances.assert_solve(features_of_dual(D, 0.0), F_real, oracles.condition(F_real) ** 2)
    tolerances.assert_solve(Y.T, inside @ F_real.T, oracles.condition(F_real) ** 2)


def test_corollary_4_1_1_one_hot_labels_leave_no_choice_at_one_per_class() -> None:
    W, Phi, _ = trained()
    Y = one_hot_labels(K, 1)
    for Z in (gaussian(K, P), np.linalg.pinv(Phi[:, :K])):
        tolerances.assert_solve(dual(W, Y, Z), W, 10.0, magnitude=np.linalg.norm(Z))  # Z drops out


# Theorem 4.2: labels alone


@pytest.mark.parametrize("lambda_s", [0.0, 0.4])
@pytest.mark.parametrize("m", [P, P + 1, 3 * P])
def test_theorem_4_2_enough_points(m: int, lambda_s: float) -> None:
    W, _, _ = trained()
    F = gaussian(m, P, seed=5)
    Y = learned_labels(F, W, lambda_s)
    expected = W @ oracles.unregularised(F.T, lambda_s)
    tolerances.assert_solve(Y.T, expected, oracles.condition(F) ** 2)
    assert_same_model(F, Y, lambda_s, W)


@pytest.mark.parametrize("m", [K, P - 1])
def test_theorem_4_2_too_few_points_leave_what_is_outside_of_their_range(m: int) -> None:
    W, _, _ = trained()
    F = gaussian(m, P, seed=5)
    left = W @ (F.T @ np.linalg.pinv(F.T) - np.eye(P))
    for lambda_s in (0.0, 0.4):
        error = kd.fit_features(F, learned_labels(F, W, lambda_s), lambda_s) - W
        tolerances.assert_solve(error, left, oracles.condition(F) ** 2)
    assert difference(W + left, W) > 0.1
    for seed in range(20):
        other = oracles.retrained(F.T, gaussian(K, m, seed=seed), 0.0)
        assert np.linalg.norm(other - W) > np.linalg.norm(left)


def test_theorem_4_2_many_points_of_low_rank_fail() -> None:
    W, _, _ = trained()
    F = gaussian(3 * P, P - 1) @ gaussian(P - 1, P, seed=1)
    assert difference(kd.fit_features(F, learned_labels(F, W, 0.0), 0.0), W) > 1e-3


# Theorem 5.1: surjective feature maps


@pytest.mark.parametrize("reg_s", [False, True])
@pytest.mark.parametrize("phi", [kd.FCNN(16, [P], seed=3), kd.RandomFourier(16, P, sigma2=20.0, seed=3)])
@pytest.mark.parametrize("ipc", [1, 4])
def test_theorem_5_1_surjective_maps_are_exact(phi: Any, ipc: int, reg_s: bool) -> None:
    X = gaussian(16, N, seed=7)
    Phi = oracles.features(X, phi.layers)
    W = oracles.ridge(oracles.one_hot(np.arange(N) % K, K), Phi, 0.5)
    D, Y = gaussian_start(W, ipc, seed=0)
    points = construct(D, Y, None if reg_s else 0.0, lambda_=0.5, feature_limit=phi.feature_limit())
    inputs = phi.preimage(points.F)
    F = oracles.features(inputs.T, phi.layers).T
    condition = relative_condition(F) ** 2 * oracles.condition(oracles.dense(phi.layers[0].weight))
    tolerances.assert_solve(oracles.retrained(F.T, points.Y.T, points.lambda_s), W, condition)
    tolerances.assert_solve(kd.fit_features(F, points.Y, points.lambda_s), W, condition)


def test_theorem_5_1_fails_for_a_map_that_is_not_surjective() -> None:
    phi = kd.RandomFourier(P - 4, P, sigma2=20.0, seed=3)
    with pytest.raises(kd.NotSurjective, match="maps 8 inputs to 12 features"):
        phi.preimage(np.zeros((K, P)))
    W, _, _ = trained()
    D, Y = gaussian_start(W, 1, seed=0)
    F = construct(D, Y, 0.0, lambda_=1.0, feature_limit=phi.feature_limit()).F
    weight, bias = oracles.dense(phi.layers[0].weight), phi.layers[0].bias
    nearest = np.linalg.pinv(weight) @ (np.arccos(F.T / phi.feature_limit()) - np.asarray(bias)[:, None])
    reached = oracles.features(nearest, phi.layers)
    assert difference(oracles.retrained(reached, Y.T, 0.0), W) > 0.1


# Theorem 5.2: maps that are not surjective, labels for whatever features the points have


def test_theorem_5_2_labels_for_any_points() -> None:
    phi = kd.RandomFourier(4, P, sigma2=4.0, seed=3)
    X = gaussian(N, 4, seed=7)
    Phi = phi.transform(X)
    W = oracles.ridge(oracles.one_hot(np.arange(N) % K, K), Phi.T, 1e-3)
    errors, rounding = {}, {}
    for m in (K, P - 1, P, 2 * P):
        F = phi.transform(gaussian(m, 4, seed=8))
        errors[m] = difference(kd.fit_features(F, learned_labels(F, W, 0.0), 0.0), W)
        left = W @ (F.T @ np.linalg.pinv(F.T) - np.eye(P))
        magnitude = float(np.linalg.norm(W))
        rounding[m] = tolerances.solve(oracles.condition(F) ** 2)
        tolerances.assert_within(errors[m], np.linalg.norm(left) / magnitude, rounding[m])
    assert errors[K] > errors[P - 1] > 1e-3
    assert errors[P] <= rounding[P]
    assert errors[2 * P] <= rounding[2 * P]


# Theorem 5.3: deep linear networks with more features than inputs


def deep_linear(d: int = 8, p: int = 20) -> Array:
    return gaussian(p, 15, seed=1) @ gaussian(15, d, seed=2)


@pytest.mark.parametrize("m", [K, 2 * K, 8])
def test_theorem_5_3_k_points_are_enough_for_a_trained_model(m: int) -> None:
    """The paper has k + 1; a ridge model lies in the range of M already, so k are enough."""
    M = deep_linear()
    Phi = M @ gaussian(8, N, seed=3)
    W = oracles.ridge(oracles.one_hot(np.arange(N) % K, K), Phi, 0.5)
    inverse = np.linalg.pinv(M)
    condition = oracles.condition(M) ** 2 * (np.linalg.norm(Phi, 2) ** 2 / 0.5 + 1.0)
    tolerances.assert_solve(W @ M @ inverse, W, condition)  # rows in Range(M)
    Y = one_hot_labels(K, m // K) if m % K == 0 else gaussian(m, K, seed=4)
    Z = gaussian(m, 8, seed=5) @ M.T
    F = oracles.features_of_dual(oracles.dual(W, Y.T, Z), 0.0).T
    tolerances.assert_solve(features_of_dual(dual(W, Y, Z), 0.0), F, relative_condition(F) ** 2)
    X = F @ inverse.T
    tolerances.assert_solve(X @ M.T, F, oracles.condition(M) ** 2 * relative_condition(F) ** 2)
    retrained = kd.fit_features(X @ M.T, Y, 0.0)
    tolerances.assert_solve(retrained, W, condition * relative_condition(F) ** 2)


def test_theorem_5_3_a_model_outside_of_the_range_is_out_of_reach() -> None:
    M = deep_linear()
    W = gaussian(K, 20, seed=9)
    outside = np.linalg.norm(W - W @ M @ np.linalg.pinv(M))
    assert outside > 0.1 * np.linalg.norm(W)
    for m in (K, K + 1, 8, 40):  # neither one point more nor many
        F = gaussian(m, 8, seed=m) @ M.T
        W_S = kd.fit_features(F, learned_labels(F, W, 0.0), 0.0)
        assert np.linalg.norm(W_S - W) >= outside * (1.0 - 1e-12)
    tolerances.assert_solve(np.linalg.norm(W_S - W), outside, oracles.condition(M) ** 2)


# Theorem 6.1: KIP's loss


def kip_loss(W_S: Array, Phi: Array, Y: Array) -> float:
    """||Y_S (K_SS + lambda_S I)^-1 K_SX - Y||^2 = ||W_S Phi - Y||^2."""
    return float(np.sum((W_S @ Phi - Y) ** 2))


def assert_no_loss(loss: float, F: Array, W: Array, Phi: Array) -> None:
    """||W_S Phi - Y||^2 = 0 up to the rounding of W_S, retrained from features F."""
    magnitude = float(np.linalg.norm(W) * np.linalg.norm(Phi))
    tolerances.assert_solve(np.sqrt(loss), 0.0, oracles.condition(F) ** 2, magnitude=magnitude)


def gram_objective(Phi: Array, labels: Array) -> GramObjective:
    statistics = kd.RidgeStatistics(stages(P, ()), K, precision="float64", backend="array")
    statistics.update(Phi.T, labels)
    return GramObjective((), statistics, dtype=np.float64)


@pytest.mark.parametrize("points_per_class", [1, 2])  # with three there are as many points as samples: all fit
def test_theorem_6_1_distilled_sets_minimise_the_loss_for_n_at_most_p(points_per_class: int) -> None:
    labels = np.arange(9) % K
    W, Phi, Y = trained(n=9, lambda_=0.0)
    D, Y_S = gaussian_start(W, points_per_class, seed=0)
    F = features_of_dual(D, 0.0)
    assert_no_loss(kip_loss(kd.fit_features(F, Y_S, 0.0), Phi, Y), F, W, Phi)
    # KIP's own lambda_S = 1e-6 of the mean eigenvalue, labels solved again.
    objective, (_, lambda_s) = gram_objective(Phi, labels), regularised_kernel(F)
    W_S = oracles.retrained(F.T, objective.labels(F, F).T, lambda_s)
    assert_no_loss(kip_loss(W_S, Phi, Y), F, W, Phi)
    loss, gradient = objective.loss_and_gradient(F, None)
    # A difference of squares shows the square of an error of W_S, the gradient the error itself.
    tolerances.assert_reduction(loss, 0.0, np.float64, Y.size, float(np.sum(Y**2)))
    magnitude = float(np.linalg.norm(W) * np.linalg.norm(Phi))
    tolerances.assert_solve(gradient, np.zeros_like(gradient), oracles.condition(F) ** 2, magnitude=magnitude)
    moved = F * (1.0 + 1e-8 * gaussian(*F.shape, seed=9))
    _, gradient = objective.loss_and_gradient(moved, None)
    assert np.linalg.norm(gradient) > 100.0 * tolerances.solve(oracles.condition(F) ** 2) * magnitude
    other, _ = objective.loss_and_gradient(gaussian(*F.shape, seed=5), None)
    assert other > 0.1


def test_theorem_6_1_a_zero_of_the_loss_is_w_for_n_at_least_p() -> None:
    Phi = gaussian(P, N)
    W = gaussian(K, P, seed=2)
    Y = W @ Phi  # only then can the loss be zero
    F = gaussian(2 * P, P, seed=4)
    W_S = kd.fit_features(F, learned_labels(F, W, 0.0), 0.0)
    assert_no_loss(kip_loss(W_S, Phi, Y), F, W, Phi)
    tolerances.assert_solve(W_S, W, oracles.condition(F) ** 2)
    # For n < p many other models have loss zero.
    few = Phi[:, : P - 1]
    null = np.linalg.svd(few.T)[2][-1]
    others = W + np.outer(np.ones(K), null)
    assert_no_loss(kip_loss(others, few, Y[:, : P - 1]), np.eye(P), others, few)


def test_theorem_6_1_a_ridge_model_is_no_minimum_for_more_samples_than_features() -> None:
    W, Phi, Y = trained(lambda_=5.0)
    least = oracles.ridge(Y, Phi, 0.0)
    assert kip_loss(W, Phi, Y) > kip_loss(least, Phi, Y) * (1.0 + 1e-6) > 0.0


# Proposition 6.1: the file reveals W


def test_proposition_6_1_w_is_rebuilt_from_the_file(tmp_path: Path) -> None:
    data = kd.load_dataset("digits")
    scaling = kd.standardize(data)
    phi = kd.make_map("FCNN", data, scaling)
    result = kd.distill(data.x_train, data.y_train, phi, points_per_class=2)
    result.distilled.save(tmp_path / "d.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "d.npz")
    assert loaded.weights is None
    tolerances.assert_promised_model(privacy.reconstruct(loaded, data).W, result.model.W)
    guess = kd.fit_features(loaded.features(), np.roll(loaded.Y, 1, axis=1), 0.0)  # without the labels: not W
    assert difference(guess, result.model.W) > 0.1


def test_proposition_6_1_with_noise_nothing_but_w_is_used() -> None:
    W, Phi, Y = trained()
    Q = np.linalg.qr(np.hstack([np.ones((N, 1)), gaussian(N, N - 1)]))[0]
    other, other_labels = Phi @ Q, Y @ Q  # other data, the same G and C
    assert difference(other, Phi) > 0.5
    again = oracles.ridge(other_labels, other, 0.5)
    tolerances.assert_solve(again, W, oracles.condition(Phi) ** 2)
    first, second = (features_of_dual(gaussian_start(model, 2, seed=0)[0], 0.0) for model in (W, again))
    tolerances.assert_solve(first, second, oracles.condition(Phi) ** 2 * oracles.condition(first) ** 2)


# Theorem 6.2: the noise that hides a row


def requirement(**changes: Any) -> privacy.TheoremNoise:
    """Everything as the theorem wants it, but for ``changes``."""
    Phi = np.linalg.qr(gaussian(N, P))[0].T * 5.0  # every singular value is 5
    arguments: dict[str, Any] = {
        "gram": Phi @ Phi.T,
        "class_counts": np.full(K, N // K),
        "Y_S": gaussian(12, K, seed=6),
        "budget": privacy.PrivacyBudget(0.5, 1e-5),
        "lambda_": 0.0,
        "largest_norm": 3.9,
        "norm_bound": 4.0,
        "labels_secret": True,
        **changes,
    }
    return privacy.theorem_noise(**arguments)


def test_theorem_6_2_formula() -> None:
    Y_S, Y = gaussian(12, K, seed=6).T, oracles.one_hot(np.arange(N) % K, K)
    inverse = np.linalg.pinv(Y_S)
    free = np.eye(12) - inverse @ Y_S
    ratio = max(np.linalg.norm(inverse[i] @ Y) / np.linalg.norm(free[i]) for i in range(12))
    expected = 2.0 * np.sqrt(np.log(1.25 / 1e-5)) * 4.0 * ratio / (5.0**2 * 0.5)
    actual = requirement()
    assert actual.holds
    tolerances.assert_solve(actual.sigma, expected, 10.0)
    assert requirement(noise_std=1.01 * expected).holds


def test_theorem_6_2_bounds_how_far_a_row_moves() -> None:
    """||a Y (Phi^+ - Phi'^+)|| <= sqrt(2) B ||a Y|| / sigma_0^2 where one column, of norm at most B, becomes zero."""
    Y, a = oracles.one_hot(np.arange(N) % K, K), gaussian(1, K, seed=3)
    ratios = []
    for seed in range(30):
        Phi = gaussian(P, N, seed=seed)
        other = Phi.copy()
        other[:, seed] = 0.0
        sigma_0 = min(np.linalg.svd(A, compute_uv=False)[-1] for A in (Phi, other))
        bound = np.sqrt(2.0) * np.linalg.norm(Phi[:, seed]) * np.linalg.norm(a @ Y) / sigma_0**2
        ratios.append(np.linalg.norm(a @ Y @ (np.linalg.pinv(Phi) - np.linalg.pinv(other))) / bound)
    assert 0.0 < max(ratios) <= 1.0


def test_theorem_6_2_a_replaced_point_may_move_it_twice_as_far() -> None:
    """One sample, one feature, B = sigma_0 = 1: x = 1 becomes x' = -1, and W = y / x moves by 2 > sqrt(2)."""
    moved = abs(np.linalg.pinv([[1.0]]) - np.linalg.pinv([[-1.0]]))[0, 0]
    assert np.sqrt(2.0) < moved <= 2.0 * np.sqrt(2.0)
    assert any("needs twice the sigma" in limit for limit in privacy.LIMITS)


def test_theorem_6_2_all_rows_together_give_w_away() -> None:
    W, _, _ = trained()
    Y = one_hot_labels(K, 4)
    for sigma in (1.0, 1e6):
        D = dual(W, Y, sigma * gaussian(12, P, seed=3))
        tolerances.assert_solve(Y.T @ D, W, 10.0, magnitude=10.0 * sigma * np.sqrt(P))  # no noise is left


singular = np.diag([25.0] * (P - 2) + [0.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"lambda_": 10.0}, "lambda", "lambda = 10; the theorem is for lambda = 0"),
        ({"norm_bound": None}, "norm", "B = 3.9 was read off the data"),
        ({"norm_bound": 3.0}, "norm", "a feature vector has norm 3.9, more than B = 3"),
        ({"gram": singular}, "rank", "rank 10 of 12: sigma_min = 0 and no sigma is enough"),
        ({"gram": 9.0 * np.eye(P)}, "neighbours", "sigma_min^2 = 9 is below B^2 = 16"),
        ({"Y_S": gaussian(K, K)}, "freedom", "m = 3 points, k = 3: a row of D has no room for noise"),
        ({"Y_S": np.ones((12, K))}, "label_rank", "the labels have rank 1 of 3"),
        (
            {"budget": privacy.PrivacyBudget(2.0, 1e-5)},
            "epsilon",
            "epsilon = 2: the classical Gaussian mechanism needs",
        ),
        ({"labels_secret": False}, "labels", "the adversary knows it"),
        ({"Y_S": one_hot_labels(K, 4)}, "labels", "Y_S is one-hot: the adversary guesses it"),
        ({"noise_std": 1e-3}, "noise", "Z has deviation 0.001, the theorem asks for"),
        ({"noise_std": 0.0}, "noise", "Z is no Gaussian noise"),
    ],
)
def test_theorem_6_2_every_assumption_has_its_message(changes: dict[str, Any], name: str, message: str) -> None:
    actual = requirement(**changes)
    assert not actual.holds
    failed = {condition.name: condition.statement for condition in actual.conditions if not condition.holds}
    assert message in failed[name]
    # A singular data set has singular neighbours, too; every other assumption fails alone.
    assert failed.keys() == ({"rank", "neighbours"} if name == "rank" else {name})
    assert np.isfinite(actual.sigma) == (name not in ("rank", "freedom", "label_rank"))
