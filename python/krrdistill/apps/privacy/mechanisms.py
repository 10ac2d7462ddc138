"""Differentially private ridge models: discrete Gaussian noise on (G, C) or on W, calibrated to enforced bounds.

Neighbouring data sets have the same number n of samples and differ in one: input and label replaced by any others. n,
k, the map, its seed, the preprocessing, B and lambda are public and must not be chosen by looking at the data.
Features f are clipped to ||f|| <= B before they are summed, labels are one-hot, ||y|| = 1.

Sums are exact. Rounding to the grid of the noise and rounding errors of the solver are part of the sensitivities, so
the guarantee is for the numbers that are computed (docs/explanation/private-noise.md). Everything that is made of the
noisy numbers is as private (post-processing), also a distilled set with noise Z: it may be released with its labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import log_ndtr, ndtr

from krrdistill.apps.privacy.budget import MECHANISMS, PrivacyBudget
from krrdistill.apps.privacy.clipping import ClippedStatistics
from krrdistill.apps.privacy.noise import ROUNDING, SLACK, Part, grid_step, noisy
from krrdistill.common.arrays import check_choice, check_number
from krrdistill.common.products import product
from krrdistill.errors import DataError
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = [
    "STATISTICS_SENSITIVITY",
    "PrivateModel",
    "default_lambda",
    "discrete_noise_multiplier",
    "gaussian_delta",
    "gaussian_noise_multiplier",
    "least_above",
    "output_sensitivity",
    "perturb",
    "private_statistics",
    "private_weights",
    "release_rho",
    "released_sensitivity",
    "solver_error",
]

FloatArray = npt.NDArray[np.float64]
# Of (G / B^2, C / B) in the Frobenius norm. For f, f' of norm B at the cosine c the square is at most
# 2 - 2 c^2 + 2 - 2 c (equal labels), 4.5 at c = -1/2; for other labels, or shorter f, it is less.
STATISTICS_SENSITIVITY = math.sqrt(4.5)
_SCORE_NOISE = 0.05  # deviation of a score that the default lambda of output perturbation allows; labels are 0 and 1
_LARGEST_LAMBDA = 1e12  # in units of B^2


@dataclass(frozen=True, eq=False)
class PrivateModel:
    """W (k, p) of an (epsilon, delta)-differentially private release, and what the noise was.

    sensitivity : of what the noise was added to, (G / B^2, C / B) or W, in the Frobenius norm, rounding included
    noise_std : deviation of the noise in the same units, noise multiplier times sensitivity
    rho : the same guarantee in zero-concentrated differential privacy, where it adds over releases
    """

    W: FloatArray
    mechanism: str
    budget: PrivacyBudget
    lambda_: float
    norm_bound: float
    n: int
    sensitivity: float
    noise_std: float
    rho: float


def gaussian_delta(epsilon: float, multiplier: float) -> float:
    """The least delta for which N(0, multiplier^2) hides a shift of 1: the analytic Gaussian mechanism.

    Phi(1 / (2 sigma) - epsilon sigma) - e^epsilon Phi(-1 / (2 sigma) - epsilon sigma), sigma the multiplier. Source:
    B. Balle and Y.-X. Wang, ICML 2018, Theorem 8.
    """
    near, far = (sign * 0.5 / multiplier - epsilon * multiplier for sign in (1.0, -1.0))
    return float(ndtr(near) - np.exp(epsilon + log_ndtr(far)))


def gaussian_noise_multiplier(budget: PrivacyBudget) -> float:
    """The least sigma for which N(0, sigma^2) hides a shift of 1 with (epsilon, delta), any epsilon > 0: by bisection
    of ``gaussian_delta``, on the safe side."""
    return least_above(1e-8, lambda sigma: not gaussian_delta(budget.epsilon, sigma) > budget.delta)


def least_above(low: float, is_enough: Callable[[float], bool]) -> float:
    """The least number above ``low`` that is enough, where all larger ones are: by bisection, on the side of those."""
    high = 1.0
    while not is_enough(high):
        high *= 2.0
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def release_rho(budget: PrivacyBudget) -> float:
    """What a release spends in zero-concentrated differential privacy, where releases add."""
    return float(0.5 / discrete_noise_multiplier(budget) ** 2)


def discrete_noise_multiplier(budget: PrivacyBudget) -> float:
    """The same of discrete noise, for which SLACK of epsilon and delta is kept back."""
    return gaussian_noise_multiplier(PrivacyBudget((1.0 - SLACK) * budget.epsilon, (1.0 - SLACK) * budget.delta))


def output_sensitivity(lambda_: float, norm_bound: float, n: int) -> float:
    """The most that replacing one of n samples moves W = C (G + lambda I)^-1, in the Frobenius norm.

    Adding (f, y) to a set with model W_0 gives W - W_0 = (y - W_0 f) f^T A^-1 with A = G + lambda I including f:
        ||W_0|| <= sqrt(n - 1) / (2 sqrt(lambda)),   ||A^-1 f|| <= B / (lambda + B^2), or 1 / (2 sqrt(lambda)) if
    B^2 > lambda. Two such steps, there and back, replace a sample.
    """
    root = math.sqrt(lambda_)
    reach = norm_bound / (lambda_ + norm_bound**2) if norm_bound <= root else 0.5 / root
    return 2.0 * (1.0 + norm_bound * math.sqrt(n - 1) / (2.0 * root)) * reach


def default_lambda(mechanism: str, budget: PrivacyBudget, norm_bound: float, n: int, p: int) -> float:
    """lambda from public numbers alone.

    statistics : B^2 s sqrt(2 p), the spectral norm of the noise in G, s its deviation (semicircle law)
    output : the least lambda at which the noise moves the score of a feature vector of norm B by 0.05 (one deviation)
    """
    multiplier = gaussian_noise_multiplier(budget)
    square = norm_bound**2
    if mechanism == "statistics":
        return square * multiplier * STATISTICS_SENSITIVITY * math.sqrt(2.0 * p)
    low, high = 1e-12 * square, _LARGEST_LAMBDA * square
    for _ in range(200):
        middle = math.sqrt(low * high)
        if multiplier * output_sensitivity(middle, norm_bound, n) * norm_bound > _SCORE_NOISE:
            low = middle
        else:
            high = middle
    return high


def solver_error(lambda_: float, norm_bound: float, n: int, p: int) -> float:
    """Bound on ||W_computed - W||_F of ``_solve``, of every data set.

    ``_solve`` ensures ||C - W_computed A||_F <= e ||A||_F ||W_computed||_F, A = G + lambda I, for the residual as it
    is computed, e = (4 p^2 + 12 p) 2^-53; with the rounding of the residual itself it is 2 e. As A >= lambda I,
    ||G||_F <= n B^2 and ||W||_F <= sqrt(n) / (2 sqrt(lambda)), the error is kappa sqrt(n / lambda) at most,
        kappa = 2 e (n B^2 + lambda sqrt(p)) / lambda,   if kappa <= 1/2.
    Raises DataError for smaller lambda.
    """
    doubled = 2.0 * _backward_error(p)
    least = doubled * n * norm_bound**2 / (0.5 - doubled * math.sqrt(p))
    if lambda_ < least:
        raise DataError(
            f"privacy: lambda = {lambda_:.3g} is too small to bound the rounding errors of W, of {n} samples with "
            f"{p} features and B = {norm_bound:.4g}: give --model-lambda of {least:.2g} or more"
        )
    return doubled * (n * norm_bound**2 / lambda_ + math.sqrt(p)) * math.sqrt(n / lambda_)


def _backward_error(p: int) -> float:
    """Of W (G + lambda I) = C by Cholesky, relative to ||A||_F ||W||_F, and as computed from W.

    Cholesky: at most (3 p^2 + p) u, u = 2^-53, in any order of its sums (Higham, Accuracy and Stability, 2nd edition,
    Theorem 10.4); the residual C - W A: (2 p + 5) u. The rest covers terms in u^2, and lambda on the diagonal.
    """
    return (4.0 * p * p + 12.0 * p) * 2.0**-53


def _solve(gram: FloatArray, cross: FloatArray, lambda_: float) -> FloatArray:
    """W = C (G + lambda I)^-1 with a checked residual. Raises DataError where it is larger than Cholesky's can be."""
    shifted = gram + lambda_ * np.eye(len(gram))
    W = np.asarray(scipy.linalg.cho_solve(scipy.linalg.cho_factor(shifted, lower=True), cross.T).T)
    residual = float(np.linalg.norm(cross - product(W, gram) - lambda_ * W))
    if not residual <= _backward_error(len(gram)) * float(np.linalg.norm(shifted)) * float(np.linalg.norm(W)):
        raise DataError("privacy: the linear solver of this installation is less accurate than it has to be")
    return W


def perturb(
    clipped: ClippedStatistics,
    mechanism: str,
    budget: PrivacyBudget,
    *,
    lambda_: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> PrivateModel:
    """The private model of clipped statistics; each call spends the whole budget.

    statistics : noise on (G / B^2, C / B), symmetric on G; W = C~ (G~_+ + lambda I)^-1 with the negative eigenvalues of
    G~ set to 0. Source of the method: Y.-X. Wang, UAI 2018; noise and sensitivity as above.
    output : noise on W = C (G + lambda I)^-1. Sensitivity: ``output_sensitivity``, twice ``solver_error``, rounding.

    Raises DataError where nothing was clipped, or for a lambda so small that rounding errors have no bound, ValueError
    for an unknown mechanism or lambda_ <= 0, BackendUnavailable without OpenDP.
    """
    check_choice("privacy", "mechanism", mechanism, MECHANISMS)
    B, statistics = _checked(clipped)
    n, (k, p) = statistics.n, statistics.cross.shape
    if lambda_ is None:
        lambda_ = default_lambda(mechanism, budget, B, n, p)
    check_number("privacy", "lambda", lambda_, positive=True)
    sensitivity = released_sensitivity(mechanism, lambda_, B, n, p)
    deviation = discrete_noise_multiplier(budget) * sensitivity
    if mechanism == "output":
        part = Part(_solve(statistics.gram, statistics.cross, lambda_), grid_step(sensitivity, k * p), deviation)
        (W,) = noisy([part], budget, progress=progress)
    else:
        W = private_weights(*private_statistics(clipped, budget, progress=progress), lambda_)
    return PrivateModel(W, mechanism, budget, float(lambda_), B, n, sensitivity, deviation, release_rho(budget))


def _checked(clipped: ClippedStatistics) -> tuple[float, RidgeStatistics]:
    """(B, statistics) that noise can be calibrated to."""
    if not math.isfinite(clipped.norm_bound):
        raise DataError("privacy: the features were not clipped; sensitivities need a norm_bound that is enforced")
    if clipped.statistics.n < 2:
        raise DataError(f"privacy: {clipped.statistics.n} samples are too few for a private release")
    return clipped.norm_bound, clipped.statistics


def released_sensitivity(mechanism: str, lambda_: float, norm_bound: float, n: int, p: int) -> float:
    """Of the numbers that get noise: rounded to its grid, of W with errors of the solver."""
    if mechanism == "statistics":
        exact = STATISTICS_SENSITIVITY
    else:
        exact = output_sensitivity(lambda_, norm_bound, n) + 2.0 * solver_error(lambda_, norm_bound, n, p)
    return (1.0 + 2.0 * ROUNDING) * exact  # once for the grid, once for the rounding of this number itself


def private_statistics(
    clipped: ClippedStatistics, budget: PrivacyBudget, *, progress: Callable[[float], None] | None = None
) -> tuple[FloatArray, FloatArray]:
    """(G + noise (p, p), symmetric, C + noise (k, p)): what a site may send; each call spends the whole budget.

    Sums of several sites' are noisy statistics of all their data; each site's guarantee is for its own.
    """
    B, statistics = _checked(clipped)
    G, C = statistics.gram, statistics.cross
    k, p = C.shape
    deviation = discrete_noise_multiplier(budget) * released_sensitivity("statistics", 0.0, B, statistics.n, p)
    above, square = np.triu_indices(p, 1), B * B
    of_gram, of_cross = (grid_step(STATISTICS_SENSITIVITY, p * p + k * p, unit) for unit in (square, B))
    diagonal, upper, cross = noisy(
        [
            Part(np.diagonal(G), of_gram, deviation * square),
            Part(G[above], of_gram, deviation * square / math.sqrt(2.0)),
            Part(C, of_cross, deviation * B),
        ],
        budget,
        progress=progress,
    )
    gram = np.diag(diagonal)
    gram[above] = upper
    gram.T[above] = upper
    return gram, cross


def private_weights(gram: FloatArray, cross: FloatArray, lambda_: float) -> FloatArray:
    """W (k, p) = C~ (G~_+ + lambda I)^-1, the negative eigenvalues of noisy G~ set to 0."""
    values, vectors = scipy.linalg.eigh(gram)
    rotated = product(cross, vectors) / (np.maximum(values, 0.0) + lambda_)
    return np.asarray(product(rotated, vectors.T))
