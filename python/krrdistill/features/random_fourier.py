"""Random Fourier features of the Gaussian kernel (Rahimi and Recht, NeurIPS 2007; Theorem 5.4)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from krrdistill.arrays import check_count, check_number, check_seed
from krrdistill.backends.base import Layer, Weight
from krrdistill.random import Stream, permutation, uniform

from .base import LayeredMap
from .weights import gaussian_weight

__all__ = ["RandomFourier", "fourier_layer", "median_sigma2"]


class RandomFourier(LayeredMap):
    """phi(x) = sqrt(2/p) cos(A x + b),  A_ij ~ N(0, 1/sigma^2),  b ~ U[0, 2 pi].

    phi(x) . phi(y) approximates exp(-||x - y||^2 / (2 sigma^2)). Exact preimages need p <= d (Theorem 5.4).

    Parameters
    ----------
    input_dim : int
        d.
    n_features : int, optional
        p, by default d.
    sigma2 : float
        sigma^2 in units of squared (preprocessed) inputs.
    seed : int
        Of A and b: the same numbers on every machine and version.
    """

    kernel: ClassVar[str] = "random_fourier"

    def __init__(self, input_dim: int, n_features: int | None = None, *, sigma2: float, seed: int = 0) -> None:
        d = check_count("RandomFourier", "input_dim", input_dim)
        p = d if n_features is None else check_count("RandomFourier", "n_features", n_features)
        check_number("RandomFourier", "sigma2", sigma2, positive=True)
        check_seed("RandomFourier", seed)
        weight = gaussian_weight(seed, Stream.WEIGHTS, p, d, precision=sigma2)
        parameters = {"n_features": p, "sigma2": float(sigma2), "seed": int(seed)}
        super().__init__(d, (fourier_layer(weight, seed),), parameters)


def fourier_layer(weight: Weight, seed: int) -> Layer:
    """sqrt(2/p) cos(W x + b) with b ~ U[0, 2 pi], W (p, d)."""
    p = weight.shape[0]
    bias = 2.0 * math.pi * uniform(seed, Stream.FOURIER_BIAS, p)
    return Layer(weight, bias.astype(np.float32), "cosine", math.sqrt(2.0 / p))


def median_sigma2(X: npt.NDArray[np.float64], *, seed: int = 0) -> float:
    """The median heuristic: sigma^2 = median of ||x - y||^2 over pairs of at most 1000 seeded rows of X (n, d)."""
    rows = X[np.sort(permutation(seed, Stream.SUBSAMPLE, len(X))[:1000])]
    square = np.einsum("ij,ij->i", rows, rows)
    distance = square[:, None] + square[None, :] - 2.0 * rows @ rows.T
    pairs = distance[np.triu_indices(len(rows), k=1)]
    median = float(np.median(pairs)) if pairs.size else 0.0
    return median if median > 0.0 else 1.0
