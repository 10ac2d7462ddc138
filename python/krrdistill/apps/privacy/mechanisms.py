"""Differentially private ridge models: Gaussian noise on (G, C) or on W, calibrated to enforced bounds.

Neighbouring data sets have the same number n of samples and differ in one: input and label replaced by any others. n,
k, the map, its seed, the preprocessing, B and lambda are public and must not be chosen by looking at the data.
Features f are clipped to ||f|| <= B before they are summed, labels are one-hot, ||y|| = 1.

Everything that is computed from the noisy model, a distilled set with noise Z as well, is as private as the model
(post-processing): such a set may be released with its labels. The noise comes from Philox bits under a fresh secret
128-bit key: statistical quality. Rounding of floating-point noise (Mironov, CCS 2012) is out of scope.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import log_ndtr, ndtr

from krrdistill.apps.privacy.budget import MECHANISMS, PrivacyBudget
from krrdistill.apps.privacy.clipping import ClippedStatistics
from krrdistill.common.arrays import check_choice, check_number
from krrdistill.common.products import product
from krrdistill.errors import DataError
from krrdistill.ridge.path import fit_ridge
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = [
    "STATISTICS_SENSITIVITY",
    "PrivateModel",
    "default_lambda",
    "gaussian_noise_multiplier",
    "output_sensitivity",
    "perturb",
    "private_statistics",
    "private_weights",
    "secret_generator",
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

    sensitivity : of what the noise was added to, (G / B^2, C / B) or W, in the Frobenius norm
    noise_std : deviation of the noise in the same units, noise multiplier times sensitivity
    """

    W: FloatArray
    mechanism: str
    budget: PrivacyBudget
    lambda_: float
    norm_bound: float
    n: int
    sensitivity: float
    noise_std: float


def gaussian_noise_multiplier(budget: PrivacyBudget) -> float:
    """The least sigma for which N(0, sigma^2) hides a shift of 1: the analytic Gaussian mechanism, for any epsilon > 0.

    Phi(1 / (2 sigma) - epsilon sigma) - e^epsilon Phi(-1 / (2 sigma) - epsilon sigma) <= delta, by bisection, on the
    safe side. Source: B. Balle and Y.-X. Wang, ICML 2018, Theorem 8.
    """
    epsilon, delta = budget.epsilon, budget.delta

    def excess(sigma: float) -> float:
        near, far = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return float(ndtr(near) - np.exp(epsilon + log_ndtr(far))) - delta

    low, high = 1e-8, 1.0
    while excess(high) > 0.0:
        high *= 2.0
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return high


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


def secret_generator() -> np.random.Generator:
    """Random numbers under a key from the operating system's entropy, known to nobody."""
    return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))


def perturb(
    clipped: ClippedStatistics,
    mechanism: str,
    budget: PrivacyBudget,
    *,
    lambda_: float | None = None,
    generator: np.random.Generator | None = None,
) -> PrivateModel:
    """The private model of clipped statistics; each call spends the whole budget.

    statistics : noise on (G / B^2, C / B), symmetric on G; W = C~ (G~_+ + lambda I)^-1 with the negative eigenvalues of
    G~ set to 0. Source of the method: Y.-X. Wang, UAI 2018; analytic Gaussian noise and sensitivity as above.
    output : noise on W = C (G + lambda I)^-1. Sensitivity: ``output_sensitivity``.

    Raises DataError where nothing was clipped, ValueError for an unknown mechanism or lambda_ <= 0.
    """
    check_choice("privacy", "mechanism", mechanism, MECHANISMS)
    B, statistics = _checked(clipped)
    p = len(statistics.gram)
    if lambda_ is None:
        lambda_ = default_lambda(mechanism, budget, B, statistics.n, p)
    check_number("privacy", "lambda", lambda_, positive=True)
    generator = secret_generator() if generator is None else generator
    sensitivity = STATISTICS_SENSITIVITY if mechanism == "statistics" else output_sensitivity(lambda_, B, statistics.n)
    deviation = gaussian_noise_multiplier(budget) * sensitivity
    if mechanism == "output":
        W = fit_ridge(statistics, lambda_) + deviation * generator.standard_normal(statistics.cross.shape)
    else:
        W = private_weights(*private_statistics(clipped, budget, generator=generator), lambda_)
    return PrivateModel(W, mechanism, budget, float(lambda_), B, statistics.n, sensitivity, deviation)


def _checked(clipped: ClippedStatistics) -> tuple[float, RidgeStatistics]:
    """(B, statistics) that noise can be calibrated to."""
    if not math.isfinite(clipped.norm_bound):
        raise DataError("privacy: the features were not clipped; sensitivities need a norm_bound that is enforced")
    if clipped.statistics.n < 2:
        raise DataError(f"privacy: {clipped.statistics.n} samples are too few for a private release")
    return clipped.norm_bound, clipped.statistics


def private_statistics(
    clipped: ClippedStatistics, budget: PrivacyBudget, *, generator: np.random.Generator | None = None
) -> tuple[FloatArray, FloatArray]:
    """(G + noise (p, p), symmetric, C + noise (k, p)): what a site may send; each call spends the whole budget.

    Sums of several sites' are noisy statistics of all their data; each site's guarantee is for its own.
    """
    B, statistics = _checked(clipped)
    generator = secret_generator() if generator is None else generator
    deviation = gaussian_noise_multiplier(budget) * STATISTICS_SENSITIVITY
    noise = deviation * generator.standard_normal(statistics.cross.shape)
    square = generator.standard_normal(statistics.gram.shape)
    return statistics.gram + (0.5 * deviation * B * B) * (square + square.T), statistics.cross + B * noise


def private_weights(gram: FloatArray, cross: FloatArray, lambda_: float) -> FloatArray:
    """W (k, p) = C~ (G~_+ + lambda I)^-1, the negative eigenvalues of noisy G~ set to 0."""
    values, vectors = scipy.linalg.eigh(gram)
    return product(product(cross, vectors) / (np.maximum(values, 0.0) + lambda_), vectors.T)
