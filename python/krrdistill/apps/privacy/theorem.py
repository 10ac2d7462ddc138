"""The noise of Theorem 6.2 (Chen, Huang, Weng, NeurIPS 2024), its assumptions checked, its limits said.

The theorem releases the inputs X_S alone. With Z ~ N(0, sigma^2) row i of D = Y_S^+ W + (I - Y_S^+ Y_S) Z carries
Gaussian noise of deviation sigma ||[I - Y_S^+ Y_S]_i||, and W = Y Phi^+ moves by at most sqrt(2) B ||...|| / sigma_0^2
when one column of Phi moves by at most B (perturbation bound of the pseudo-inverse, G. W. Stewart, SIAM Review 19,
1977). The classical Gaussian mechanism then gives sigma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from krrdistill.apps.privacy.budget import PrivacyBudget
from krrdistill.common.arrays import check_number

__all__ = ["LIMITS", "Condition", "TheoremNoise", "theorem_noise"]

FloatArray = npt.NDArray[np.float64]
_LABEL_RANK_CUTOFF = 1e-12  # relative to the largest singular value, as in the construction

# What no choice of sigma changes.
LIMITS = (
    "W is always revealed: whoever has X_S, Y_S and lambda_S retrains to it, whatever Z is.",
    "A released Y_S ends the guarantee: Y_S D = W holds without any noise, so that Y_S and all rows of D give W away.",
    "The guarantee is for each row of D alone. All rows together have noise in m - k of their m directions only.",
    "Labels are not protected: neighbours are data sets that differ in one input, by at most B, with the same labels.",
    "A point replaced by any other of norm B may move W twice as far: that needs twice the sigma.",
)


@dataclass(frozen=True)
class Condition:
    """One assumption: whether it holds, and a sentence with the numbers."""

    name: str
    holds: bool
    statement: str


@dataclass(frozen=True, eq=False)
class TheoremNoise:
    """The sigma of Theorem 6.2; inf where there is none. It means something only where every condition holds."""

    sigma: float
    budget: PrivacyBudget
    norm_bound: float  # B
    smallest_singular_value: float  # of Phi
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool:
        """Whether the theorem applies."""
        return all(condition.holds for condition in self.conditions)


def theorem_noise(
    gram: FloatArray,
    class_counts: npt.NDArray[np.int64],
    Y_S: FloatArray,
    budget: PrivacyBudget,
    *,
    lambda_: float,
    largest_norm: float,
    norm_bound: float | None = None,
    labels_secret: bool = False,
    noise_std: float | None = None,
) -> TheoremNoise:
    """sigma >= max_i 2 sqrt(ln(1.25 / delta)) B ||[Y_S^+]_i Y|| / (sigma_0^2 epsilon ||[I - Y_S^+ Y_S]_i||).

    Parameters
    ----------
    gram : G = Phi Phi^T (p, p); sigma_0 is the square root of its smallest eigenvalue
    class_counts : n_c (k,): ||a Y||^2 = sum n_c a_c^2 for one-hot Y
    Y_S : distilled labels (m, k)
    lambda_ : of the original model
    largest_norm : max ||phi(x_i)|| of the data
    norm_bound : B; None takes ``largest_norm``, which is a fact about the data and no bound
    labels_secret : whether Y_S stays unknown to the adversary
    noise_std : of the Gaussian Z that was used; 0 where Z was no such noise, None where none was drawn yet
    """
    Y_S = np.asarray(Y_S, dtype=np.float64)
    m, k = Y_S.shape
    inverse = np.linalg.pinv(Y_S, rcond=_LABEL_RANK_CUTOFF)  # (k, m): its columns are the rows of the paper's Y_S^+
    s = np.linalg.svd(Y_S, compute_uv=False)
    label_rank = int(np.count_nonzero(s > _LABEL_RANK_CUTOFF * s[0]))
    freedom = np.sqrt(np.maximum(1.0 - np.einsum("ik,ki->i", Y_S, inverse), 0.0))
    carried = np.sqrt(np.einsum("ki,k->i", inverse**2, np.asarray(class_counts, dtype=np.float64)))
    eigenvalues = np.linalg.eigvalsh(gram)
    floor = len(gram) * float(np.finfo(np.float64).eps) * float(eigenvalues[-1])
    rank = int(np.count_nonzero(eigenvalues > floor))
    smallest_square = float(eigenvalues[0]) if rank == len(gram) else 0.0
    B = largest_norm if norm_bound is None else check_number("privacy", "norm_bound", norm_bound, positive=True)
    free = m > k and bool((freedom > 1e-7).all())
    sigma = math.inf
    if smallest_square > 0.0 and free and label_rank == k:
        ratio = float((carried / freedom).max())
        scale = 2.0 * math.sqrt(math.log(1.25 / budget.delta)) * B
        sigma = scale * ratio / (smallest_square * budget.epsilon)
    conditions = (
        _lambda(lambda_),
        _norm(B, largest_norm, enforced=norm_bound is not None),
        _rank(smallest_square, rank, len(gram)),
        _neighbours(smallest_square, B),
        _freedom(free, m, k),
        _label_rank(label_rank, k),
        _epsilon(budget.epsilon),
        _labels(Y_S, secret=labels_secret),
        *_noise(noise_std, sigma),
    )
    return TheoremNoise(sigma, budget, B, math.sqrt(smallest_square), conditions)


def _lambda(lambda_: float) -> Condition:
    if lambda_ == 0.0:
        return Condition("lambda", True, "the original model has lambda = 0")
    return Condition("lambda", False, f"the original model has lambda = {lambda_:.3g}; the theorem is for lambda = 0")


def _norm(B: float, largest: float, *, enforced: bool) -> Condition:
    if not enforced:
        return Condition("norm", False, f"B = {B:.4g} was read off the data: nothing keeps a neighbour below it")
    if largest <= B * (1.0 + 1e-12):
        return Condition("norm", True, f"no feature vector is longer than B = {B:.4g} (the longest: {largest:.4g})")
    return Condition("norm", False, f"a feature vector has norm {largest:.4g}, more than B = {B:.4g}")


def _rank(smallest_square: float, rank: int, p: int) -> Condition:
    if smallest_square > 0.0:
        return Condition(
            "rank", True, f"the smallest singular value of the features is {math.sqrt(smallest_square):.4g}"
        )
    return Condition("rank", False, f"the features have rank {rank} of {p}: sigma_min = 0 and no sigma is enough")


def _neighbours(smallest_square: float, B: float) -> Condition:
    """Without a column x the Gram matrix is G - x x^T, whose eigenvalues are at least sigma_min^2 - B^2."""
    left = smallest_square - B * B
    if left > 0.0:
        return Condition("neighbours", True, f"without any one point sigma_min stays above {math.sqrt(left):.4g}")
    statement = (
        f"sigma_min^2 = {smallest_square:.3g} is below B^2 = {B * B:.3g}: a neighbouring data set may be singular, so "
        "that sigma_0 of this data set bounds no sensitivity"
    )
    return Condition("neighbours", False, statement)


def _freedom(free: bool, m: int, k: int) -> Condition:
    if free:
        return Condition("freedom", True, f"m = {m} points, k = {k}: every row of D has room for noise")
    return Condition("freedom", False, f"m = {m} points, k = {k}: a row of D has no room for noise")


def _label_rank(rank: int, k: int) -> Condition:
    if rank == k:
        return Condition("label_rank", True, f"the labels have rank {k}: D is Y_S^+ W and noise for every W")
    return Condition("label_rank", False, f"the labels have rank {rank} of {k}: Y_S D = W for some W only")


def _epsilon(epsilon: float) -> Condition:
    """Dwork and Roth, The Algorithmic Foundations of Differential Privacy (2014), Theorem A.1."""
    if epsilon <= 1.0:
        return Condition(
            "epsilon", True, f"epsilon = {epsilon:g} is in (0, 1], as the classical Gaussian mechanism asks"
        )
    return Condition("epsilon", False, f"epsilon = {epsilon:g}: the classical Gaussian mechanism needs epsilon <= 1")


def _labels(Y_S: FloatArray, *, secret: bool) -> Condition:
    if not secret:
        return Condition("labels", False, "Y_S is part of the file: the adversary knows it")
    if np.count_nonzero(Y_S) == len(Y_S):
        return Condition("labels", False, "Y_S is one-hot: the adversary guesses it, the order of classes repeats")
    return Condition("labels", True, "Y_S is kept secret by the one who releases")


def _noise(noise_std: float | None, sigma: float) -> tuple[Condition, ...]:
    if noise_std is None:
        return ()
    if noise_std == 0.0:
        statement = (
            "Z is no Gaussian noise: it is orthogonal (the theorem's is noise = gaussian), the start was real (and "
            "shows the images that it was given), the inputs are approximate, or their labels were learned again "
            "(rounded storage)"
        )
        return (Condition("noise", False, statement),)
    enough = noise_std >= sigma
    return (Condition("noise", enough, f"Z has deviation {noise_std:.3g}, the theorem asks for {sigma:.3g}"),)
