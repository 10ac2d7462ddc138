"""Theorems 4.1, 4.2 and 5.1: whatever Z, labels and root, the constructed features retrain to W."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import krrdistill as kd
import oracles
import tolerances
from krrdistill.common.random import Stream, normal
from krrdistill.construct.closed_form import (
    ROOTS,
    Construction,
    construct,
    dual,
    features_of_dual,
    gaussian_start,
    orthogonal_start,
    raise_singular_values,
    real_start,
    shrink_to_bound,
)
from krrdistill.construct.labels import learned_labels, one_hot_labels
from krrdistill.construct.orthogonal import orthonormal_noise
from krrdistill.errors import DataError, LambdaOutOfRange

Array = npt.NDArray[Any]

P, K = 12, 3
SHAPES = [3, 6, 12, 21]  # m = k, k < m < p, m = p, m > p
FRACTIONS = [1.0, 1.0 - 1e-6, 0.5, 1e-3]  # of the bound on lambda_s


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def model(seed: int = 1) -> Array:
    return gaussian(K, P, seed=seed)


def labels_of_condition(m: int, k: int, condition: float) -> Array:
    U, V = np.linalg.qr(gaussian(m, m))[0][:, :k], np.linalg.qr(gaussian(k, k, seed=1))[0]
    return np.asarray((U * np.geomspace(1.0, 1.0 / condition, k)) @ V.T)


def random_dual(m: int, *, one_hot: bool = True, seed: int = 0) -> tuple[Array, Array, Array]:
    """(D, Y, W) for noise Z."""
    W = model(seed + 1)
    Y = one_hot_labels(K, m // K) if one_hot else gaussian(m, K, seed=seed + 2)
    return dual(W, Y, gaussian(m, P, seed=seed + 3)), Y, W


def assert_retrains(F: Array, Y: Array, lambda_s: float, W: Array) -> None:
    """W_S = W, by the oracle's retraining and by the package's."""
    s = np.linalg.svd(F, compute_uv=False)
    condition = float(s[0] / s[s > 1e-9 * s[0]][-1]) ** 2
    magnitude = np.linalg.norm(Y) * np.linalg.norm(oracles.regularised_inverse(F.T, lambda_s))
    tolerances.assert_solve(oracles.retrained(F.T, Y.T, lambda_s), W, condition, magnitude=magnitude)
    tolerances.assert_solve(kd.fit_features(F, Y, lambda_s), W, condition, magnitude=magnitude)


# D


def test_one_hot_labels_repeat_the_order_of_classes() -> None:
    tolerances.assert_exact(one_hot_labels(3, 2), oracles.one_hot([0, 1, 2, 0, 1, 2], 3).T)
    tolerances.assert_exact(one_hot_labels(1, 2), np.ones((2, 1)))


@given(st.integers(1, 6), st.integers(0, 12), st.integers(1, 9), st.integers(0, 10_000), st.floats(-3, 3))
def test_any_z_gives_an_exact_dual(k: int, more: int, p: int, seed: int, size: float) -> None:
    m = k + more
    W, Y, Z = gaussian(k, p, seed=seed), gaussian(m, k, seed=seed + 1), 10.0**size * gaussian(m, p, seed=seed + 2)
    condition = oracles.condition(Y)
    assume(condition < 1e4)
    D = dual(W, Y, Z)
    magnitude = float(np.linalg.norm(W) + np.linalg.norm(Y) * np.linalg.norm(Z))
    tolerances.assert_solve(Y.T @ D, W, condition, magnitude=magnitude)
    expected = oracles.dual(W, Y.T, Z)
    tolerances.assert_solve(D, expected, condition, magnitude=np.linalg.norm(expected) + magnitude)


@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8])
def test_ill_conditioned_labels_stay_exact(condition: float) -> None:
    W, Y = model(), labels_of_condition(9, K, condition)
    tolerances.assert_solve(Y.T @ dual(W, Y, gaussian(9, P)), W, condition)


@pytest.mark.parametrize(
    "Y",
    [
        np.eye(3)[:2],  # m < k
        np.tile(np.eye(3)[:, :2] @ np.ones((2, 3)), (2, 1)),  # rank 1
        labels_of_condition(9, 3, 1e14),
        np.zeros((6, 3)),
        np.eye(3)[[0, 1, 0, 1]],  # a class without a point
    ],
)
def test_labels_without_rank_k_are_refused(Y: Array) -> None:
    message = rf"labels of shape {re.escape(str(Y.shape))} must have rank 3; the construction needs m >= k"
    with pytest.raises(DataError, match=message):
        dual(model(), Y, np.zeros((len(Y), P)))


# Features of D


@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize("m", SHAPES)
def test_exact_without_regularisation(m: int, one_hot: bool) -> None:
    D, Y, W = random_dual(m, one_hot=one_hot)
    F = features_of_dual(D, 0.0)
    tolerances.assert_solve(F, oracles.features_of_dual(D, 0.0).T, oracles.condition(D) ** 2)
    assert_retrains(F, Y, 0.0, W)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize("m", SHAPES)
def test_exact_with_regularisation(m: int, one_hot: bool, fraction: float, root: str) -> None:
    D, Y, W = random_dual(m, one_hot=one_hot)
    lambda_s = fraction * oracles.bound(D)
    F = features_of_dual(D, lambda_s, root=root)
    assert_retrains(F, Y, lambda_s, W)
    if fraction < 0.9:  # at the bound the two roots meet, and rounding moves F by its square root
        tolerances.assert_solve(F, oracles.features_of_dual(D, lambda_s, root).T, oracles.condition(D) ** 2)


@given(st.integers(1, 5), st.integers(0, 8), st.integers(1, 9), st.floats(1e-6, 1.0), st.sampled_from(ROOTS))
def test_exact_for_any_sizes(k: int, more: int, p: int, fraction: float, root: str) -> None:
    m = k + more
    W, Y = gaussian(k, p), gaussian(m, k, seed=1)
    D = dual(W, Y, gaussian(m, p, seed=2))
    assume(oracles.condition(D) < 1e3 and oracles.condition(Y) < 1e3)
    assert_retrains(features_of_dual(D, 0.0), Y, 0.0, W)
    lambda_s = fraction * oracles.bound(D)
    assert_retrains(features_of_dual(D, lambda_s, root=root), Y, lambda_s, W)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("m", [6, 12, 21])
def test_exact_without_free_part(m: int, fraction: float, root: str) -> None:
    W, Y = model(), one_hot_labels(K, m // K)
    D = dual(W, Y, np.zeros((m, P)))  # rank k < m
    lambda_s = fraction * oracles.bound(D)
    F = features_of_dual(D, lambda_s, root=root)
    assert_retrains(F, Y, lambda_s, W)
    assert np.linalg.matrix_rank(F) == K


@pytest.mark.parametrize("condition", [1e3, 1e6, 1e8])
@pytest.mark.parametrize("m", [6, 12, 21])
def test_exact_for_ill_conditioned_duals(m: int, condition: float) -> None:
    U, V = np.linalg.qr(gaussian(m, m))[0], np.linalg.qr(gaussian(P, P, seed=1))[0]
    r = min(m, P)
    D = (U[:, :r] * np.geomspace(1.0, 1.0 / condition, r)) @ V[:, :r].T
    Y = gaussian(m, K)
    W = Y.T @ D
    for lambda_s, root in ((0.0, "plus"), (0.2, "plus"), (0.2, "minus")):
        F = features_of_dual(D, lambda_s, root=root)
        tolerances.assert_solve(kd.fit_features(F, Y, lambda_s), W, condition)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("m", SHAPES)
def test_beyond_the_bound(m: int, root: str) -> None:
    D, Y, _ = random_dual(m)
    bound = oracles.bound(D)
    for lambda_s in (1.001 * bound, 10.0 * bound):
        message = f"lambda_s = {lambda_s:.6g} exceeds its bound 1/(4 s1^2) = {bound:.6g}"
        with pytest.raises(LambdaOutOfRange, match=re.escape(message)):
            features_of_dual(D, lambda_s, root=root)
        with pytest.raises(LambdaOutOfRange, match=re.escape(message)):
            construct(D, Y, lambda_s, lambda_=1.0, root=root)


def test_unknown_root() -> None:
    D, Y, _ = random_dual(6)
    with pytest.raises(ValueError, match="root must be one of plus, minus; got 'both'"):
        features_of_dual(D, 0.0, root="both")
    with pytest.raises(ValueError, match="root must be one of plus, minus; got 'both'"):
        construct(D, Y, 0.0, lambda_=1.0, root="both")


# Construction within the range of a map


def assert_exact_construction(points: Construction, W: Array, Y: Array, limit: float = np.inf) -> None:
    assert np.abs(points.F).max() <= limit
    tolerances.assert_exact(points.Y, points.range_scale * Y)
    assert_retrains(points.F, points.Y, points.lambda_s, W)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("m", SHAPES)
@pytest.mark.parametrize("lambda_", [1e-3, 1e6])
def test_automatic_lambda(m: int, lambda_: float, root: str) -> None:
    D, Y, W = random_dual(m)
    points = construct(D, Y, None, lambda_=lambda_, root=root)
    assert_exact_construction(points, W, Y)
    assert points.range_scale == 1.0
    expected = min(lambda_, oracles.bound(D))
    tolerances.assert_at_bound(points.lambda_s, expected)


@pytest.mark.parametrize("share", [0.99, 1e-3])
@pytest.mark.parametrize("m", SHAPES)
def test_scaled_into_the_range(m: int, share: float) -> None:
    D, Y, W = random_dual(m)
    free = construct(D, Y, 0.0, lambda_=1.0)
    limit = share * float(np.abs(free.F).max())
    points = construct(D, Y, 0.0, lambda_=1.0, feature_limit=limit)
    assert_exact_construction(points, W, Y, limit)
    assert points.lambda_s == 0.0
    assert points.range_scale < 1.0 == free.range_scale
    tolerances.assert_at_bound(np.abs(points.F).max(), limit)
    tolerances.assert_solve(points.F, points.range_scale * free.F)
    naive = oracles.retrained(points.F.T, Y.T, 0.0)  # features scaled, labels not: only the direction of W is left
    tolerances.assert_solve(points.range_scale * naive, W, oracles.condition(points.F) ** 2)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("m", SHAPES)
def test_automatic_lambda_is_scaled_with_the_features(m: int, root: str) -> None:
    D, Y, W = random_dual(m)
    free = construct(D, Y, None, lambda_=0.01, root=root)
    limit = 0.3 * float(np.abs(free.F).max())
    points = construct(D, Y, None, lambda_=0.01, root=root, feature_limit=limit)
    assert_exact_construction(points, W, Y, limit)
    tolerances.assert_solve(points.lambda_s, points.range_scale**2 * free.lambda_s)
    for labels, lambda_s in ((Y, points.lambda_s), (points.Y, free.lambda_s), (Y, free.lambda_s)):
        naive = oracles.retrained(points.F.T, labels.T, lambda_s)
        assert np.linalg.norm(naive - W) > 1e-2 * np.linalg.norm(W)


@pytest.mark.parametrize("m", SHAPES)
def test_fixed_lambda_stays_when_features_are_scaled(m: int) -> None:
    D, Y, W = random_dual(m)
    lambda_s = 1e-3 * oracles.bound(D)
    limit = 0.5 * float(np.abs(features_of_dual(D, lambda_s)).max())
    points = construct(D, Y, lambda_s, lambda_=1.0, feature_limit=limit)
    assert_exact_construction(points, W, Y, limit)
    assert points.lambda_s == lambda_s
    assert points.range_scale < 1.0
    roomy = construct(D, Y, lambda_s, lambda_=1.0, feature_limit=1e6)
    assert roomy.range_scale == 1.0
    tolerances.assert_exact(roomy.F, features_of_dual(D, lambda_s))


@pytest.mark.parametrize("m", SHAPES)
def test_fixed_lambda_that_only_the_minus_root_fits(m: int) -> None:
    D, Y, W = random_dual(m)
    lambda_s = 0.9 * oracles.bound(D)
    limit = 1e-3 * float(np.abs(features_of_dual(D, lambda_s)).max())
    with pytest.raises(LambdaOutOfRange, match=re.escape(f"lambda_s = {lambda_s:.6g}")):
        construct(D, Y, lambda_s, lambda_=1.0, feature_limit=limit)
    points = construct(D, Y, lambda_s, lambda_=1.0, root="minus", feature_limit=limit)
    assert_exact_construction(points, W, Y, limit)
    assert points.lambda_s == lambda_s
    assert points.range_scale > 1.0


# A lambda_s that the user fixes


@pytest.mark.parametrize("m", SHAPES[1:])
def test_free_part_is_shrunk_to_the_bound(m: int) -> None:
    W, Y = model(), one_hot_labels(K, m // K)
    fixed = dual(W, Y, np.zeros((m, P)))
    D = dual(W, Y, 50.0 * gaussian(m, P, seed=3))
    lambda_s = 0.5 * oracles.bound(fixed)
    assert lambda_s > oracles.bound(D)
    shrunk, labels = shrink_to_bound(D, Y, W, lambda_s)
    tolerances.assert_exact(labels, Y)
    assert lambda_s <= oracles.bound(shrunk)
    tolerances.assert_solve(Y.T @ shrunk, W, 10.0)
    ratio = np.linalg.norm(shrunk - fixed) / np.linalg.norm(D - fixed)
    assert 0.0 < ratio < 1.0
    tolerances.assert_solve(shrunk - fixed, ratio * (D - fixed), 100.0)
    for root in ROOTS:
        assert_exact_construction(construct(shrunk, Y, lambda_s, lambda_=1.0, root=root), W, Y)


def test_a_dual_within_the_bound_is_left_alone() -> None:
    D, Y, W = random_dual(6)
    kept, labels = shrink_to_bound(D, Y, W, 0.99 * oracles.bound(D), scale_labels=True)
    assert kept is D
    assert labels is Y


@pytest.mark.parametrize("m", SHAPES)
@pytest.mark.parametrize("excess", [1.01, 1e4])
def test_labels_are_scaled_only_when_allowed(m: int, excess: float) -> None:
    D, Y, W = random_dual(m)
    largest = oracles.bound(dual(W, Y, np.zeros((m, P))))
    lambda_s = excess * largest
    message = f"lambda_s = {lambda_s:.6g} exceeds {largest:.6g}"
    with pytest.raises(LambdaOutOfRange, match=re.escape(message)):
        shrink_to_bound(D, Y, W, lambda_s)
    scaled, labels = shrink_to_bound(D, Y, W, lambda_s, scale_labels=True)
    factor = labels[0, 0] / Y[0, 0]
    assert factor > 1.0
    tolerances.assert_exact(labels, factor * Y)
    tolerances.assert_solve(labels.T @ scaled, W, 10.0)
    assert lambda_s <= oracles.bound(scaled)
    for root in ROOTS:
        assert_exact_construction(construct(scaled, labels, lambda_s, lambda_=1.0, root=root), W, labels)


# Choices of Z


@pytest.mark.parametrize("ipc", [1, 2, 7])
def test_noise_start(ipc: int) -> None:
    W = model()
    D, Y = gaussian_start(W, ipc, seed=5)
    tolerances.assert_exact(Y, one_hot_labels(K, ipc))
    scale = np.std(np.linalg.pinv(Y.T) @ W)
    Z = scale * normal(5, Stream.NOISE, ipc * K * P).reshape(ipc * K, P)
    tolerances.assert_solve(D, oracles.dual(W, Y.T, Z), 10.0)
    tolerances.assert_exact(gaussian_start(W, ipc, seed=5)[0], D)
    if ipc == 1:  # m = k leaves no freedom
        tolerances.assert_solve(D, W)
    else:
        assert np.abs(gaussian_start(W, ipc, seed=6)[0] - D).max() > 0.1 * scale
    assert np.linalg.matrix_rank(D) == min(ipc * K, P)


COUNTS = [1, 2, 4, 7, (1, 2, 3), (5, 1, 9)]  # m = k, m < p, m = p, m > p, and classes that differ


@pytest.mark.parametrize("points_per_class", COUNTS)
@pytest.mark.parametrize("centered", [False, True])
def test_orthogonal_noise_has_the_spectrum_that_it_states(points_per_class: Any, centered: bool) -> None:
    W = model() - centered * model().mean(axis=0)
    start, Y = orthogonal_start(W, points_per_class, seed=5, centered=centered)
    one_hot = one_hot_labels(K, points_per_class)
    tolerances.assert_solve(Y, one_hot - centered * one_hot.mean(axis=0))
    D, rank = start.array(), K - centered
    tolerances.assert_solve(Y.T @ D, W, 10.0)
    _, s, Vt = np.linalg.svd(Y, full_matrices=False)
    least = np.linalg.svd((Vt[:rank] @ W) / s[:rank, None], compute_uv=False)
    noise = np.full(max(0, min(len(Y) - K, P - rank)), start.scale)
    expected = np.sort(np.concatenate([least, noise]))[::-1]
    found = np.linalg.svd(D, compute_uv=False)[: len(expected)]
    tolerances.assert_solve(found, expected, 10.0)
    tolerances.assert_solve(start.largest_square, found[0] ** 2, 10.0)
    assert np.linalg.matrix_rank(D) == len(expected)
    if centered:
        tolerances.assert_solve(D.mean(axis=0), np.zeros(P), magnitude=found[0])


@pytest.mark.parametrize("points_per_class", [*COUNTS, 3])
def test_no_noise_has_features_of_a_smaller_condition(points_per_class: Any) -> None:
    W = model()
    start, Y = orthogonal_start(W, points_per_class, seed=5)
    F = construct(start, Y, 0.0, lambda_=1.0).F
    least = np.linalg.cond(W / np.sqrt(Y.sum(axis=0))[:, None])  # of the part of D that the labels decide
    assert np.linalg.cond(F) <= least * (1.0 + tolerances.solve(1e3))
    if len(Y) <= P:
        for seed in range(5):
            assert np.linalg.cond(gaussian_start(W, points_per_class, seed=seed)[0]) >= least * (1.0 - 1e-9)


@pytest.mark.parametrize("points_per_class", COUNTS)
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("limit", [np.inf, 0.05])
def test_orthogonal_noise_is_exact_for_every_lambda_s(points_per_class: Any, root: str, limit: float) -> None:
    W = model()
    start, Y = orthogonal_start(W, points_per_class, seed=5)
    for lambda_s in (None, 0.0) if root == "plus" else (None,):
        made = construct(start, Y, lambda_s, lambda_=0.3, root=root, feature_limit=limit)
        assert np.abs(made.F).max() <= limit
        assert_retrains(made.F, made.Y, made.lambda_s, W)
    assert construct(start, Y, None, lambda_=1e9, root=root).lambda_s <= oracles.bound(start.array())
    lambda_s = 50.0 * oracles.bound(start.array())
    with pytest.raises(LambdaOutOfRange, match="choose a smaller one or scale_labels"):
        shrink_to_bound(start, Y, W, lambda_s)
    scaled, labels = shrink_to_bound(start, Y, W, lambda_s, scale_labels=True)
    made = construct(scaled, labels, lambda_s, lambda_=0.3, root=root)
    assert made.lambda_s == lambda_s
    assert_retrains(made.F, made.Y, lambda_s, W)


def test_orthogonal_noise_shrinks_to_a_fixed_lambda_s_before_labels_grow() -> None:
    W = np.eye(K, P) * np.array([1.0, 1e-3, 1e-3])[:, None]
    start, Y = orthogonal_start(W, 4, seed=5)
    large = replace(start, scale=10.0)
    lambda_s = 0.9 * oracles.bound(dual(W, Y, np.zeros((len(Y), P))))
    shrunk, labels = shrink_to_bound(large, Y, W, lambda_s)
    tolerances.assert_exact(labels, Y)
    assert 0.0 < shrunk.scale < 10.0
    assert_retrains(construct(shrunk, Y, lambda_s, lambda_=1.0).F, Y, lambda_s, W)


def test_orthogonal_noise_depends_on_the_seed_alone() -> None:
    first, again, other = (orthogonal_start(model(), 3, seed=seed)[0].array() for seed in (5, 5, 6))
    tolerances.assert_exact(first, again)
    free = first - other
    assert np.linalg.norm(free) > 0.5 * np.linalg.norm(first - first.reshape(3, K, P).mean(axis=0).repeat(3, 0))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1), (5, 8), (8, 8), (13, 8)])
def test_orthonormal_noise_has_orthonormal_rows_or_columns(rows: int, columns: int) -> None:
    for seed in range(4):  # the first row of the transform is another one
        E = np.zeros((rows + 1, columns + 2))
        orthonormal_noise(E[1:, 2:], seed=seed)
        assert not E[0].any()
        assert not E[:, :2].any()
        E = E[1:, 2:]
        product = E @ E.T if rows <= columns else E.T @ E
        tolerances.assert_solve(product, np.eye(min(rows, columns)))


def test_models_of_lower_rank_and_real_targets_keep_orthogonal_noise() -> None:
    W = model()
    W[1] = 2.0 * W[0]
    start, Y = orthogonal_start(W, 3, seed=0)
    assert len(start.values) == K - 1
    for lambda_s in (0.0, None):
        made = construct(start, Y, lambda_s, lambda_=0.01)
        assert_retrains(made.F, made.Y, made.lambda_s, W)
    targets = gaussian(9, K, seed=4)
    start, Y = orthogonal_start(model(), 3, seed=0, labels=targets)
    assert_retrains(construct(start, Y, 0.0, lambda_=1.0).F, targets, 0.0, model())
    wide = gaussian(K, 2, seed=3)  # fewer features than classes: no room for noise
    start, Y = orthogonal_start(wide, 3, seed=0)
    assert start.noise is None
    assert_retrains(construct(start, Y, 0.0, lambda_=1.0).F, Y, 0.0, wide)


@pytest.mark.parametrize("lambda_s", [0.0, 0.05, 3.0])
@pytest.mark.parametrize("m", SHAPES)
def test_real_start(m: int, lambda_s: float) -> None:
    W, F_real = model(), gaussian(m, P, seed=7)
    D, Y = real_start(W, F_real, lambda_s)
    condition = oracles.condition(F_real) ** 2 * oracles.condition(Y)
    learned = (W @ oracles.unregularised(F_real.T, lambda_s)).T
    tolerances.assert_solve(Y, oracles.raise_singular_values(learned, 10.0), condition)
    tolerances.assert_solve(Y.T @ D, W, condition)
    R = oracles.regularised_inverse(F_real.T, lambda_s)
    tolerances.assert_solve(D, oracles.dual(W, Y.T, R), condition)
    Z = gaussian(m, P, seed=8)
    freedom = Z - Y @ np.linalg.pinv(Y) @ Z  # orthogonal to D - R: D is the nearest to R of all that are exact
    magnitude = float(np.linalg.norm(R) * np.linalg.norm(Z))
    tolerances.assert_solve(np.vdot(D - R, freedom), 0.0, condition, magnitude=magnitude)
    lambda_s = min(lambda_s, oracles.bound(D))
    assert_exact_construction(construct(D, Y, lambda_s, lambda_=1.0), W, Y)


def test_real_start_stays_near_the_real_features() -> None:
    W, F_real = model(), gaussian(6, P, seed=7)
    D, Y = real_start(W, F_real, 0.0)
    one_hot = one_hot_labels(K, 2)
    with_one_hot = dual(W, one_hot, np.linalg.pinv(F_real).T)
    near, far = (np.linalg.norm(features_of_dual(A, 0.0) - F_real) for A in (D, with_one_hot))
    assert near < far
    # Features that explain W already do not move at all.
    inside = model() @ np.linalg.pinv(F_real) @ F_real
    D, Y = real_start(inside, F_real, 0.0)
    tolerances.assert_solve(features_of_dual(D, 0.0), F_real, oracles.condition(F_real) ** 2)
    tolerances.assert_solve(Y, F_real @ inside.T, oracles.condition(F_real))


@pytest.mark.parametrize("cause", ["model", "points", "zero"])
def test_real_start_with_labels_of_lower_rank(cause: str) -> None:
    W, F_real = model(), gaussian(6, P, seed=7)
    if cause == "model":
        W[2] = W[0] + W[1]
    elif cause == "points":
        F_real[:] = F_real[[0, 1, 0, 1, 0, 1]]
    else:
        W[:] = 0.0
    D, Y = real_start(W, F_real, 0.1)
    assert oracles.condition(Y) <= 10.0 * (1.0 + 1e-12)
    tolerances.assert_solve(Y.T @ D, W, 10.0)


def test_raise_singular_values() -> None:
    A = gaussian(7, 4, seed=3) @ np.diag([1.0, 1e-1, 1e-3, 0.0])
    raised = raise_singular_values(A, 20.0)
    s, expected = np.linalg.svd(A, compute_uv=False), np.linalg.svd(raised, compute_uv=False)
    tolerances.assert_solve(expected, np.maximum(s, s[0] / 20.0), 10.0)
    tolerances.assert_solve(np.linalg.norm(raised - A), np.linalg.norm(expected - s), 10.0)  # none is nearer
    tolerances.assert_solve(raise_singular_values(gaussian(7, 4, seed=3), 1e6), gaussian(7, 4, seed=3), 10.0)


# Labels only (Theorem 4.2)


@pytest.mark.parametrize("lambda_s", [0.0, 0.3])
@pytest.mark.parametrize("m", [12, 21])
def test_learned_labels_are_exact_for_enough_points(m: int, lambda_s: float) -> None:
    W, F = model(), gaussian(m, P, seed=9)
    Y = learned_labels(F, W, lambda_s)
    tolerances.assert_solve(Y, (W @ oracles.unregularised(F.T, lambda_s)).T, oracles.condition(F) ** 2)
    assert_retrains(F, Y, lambda_s, W)


@pytest.mark.parametrize("lambda_s", [0.0, 0.3])
def test_learned_labels_are_least_squares_for_few_points(lambda_s: float) -> None:
    W, F = model(), gaussian(6, P, seed=9)
    Y = learned_labels(F, W, lambda_s)
    error = oracles.retrained(F.T, Y.T, lambda_s) - W
    outside = W @ (np.linalg.pinv(F) @ F - np.eye(P))  # the part of W outside of the row space of F
    tolerances.assert_solve(error, outside, oracles.condition(F) ** 2)
    for seed in range(5):
        other = Y + 1e-3 * gaussian(6, K, seed=seed)
        assert np.linalg.norm(oracles.retrained(F.T, other.T, lambda_s) - W) > np.linalg.norm(error)
