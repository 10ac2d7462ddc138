"""Random Fourier features (Rahimi and Recht, NeurIPS 2007; the paper's item 5.4)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy

from krrdistill.backends.base import Layer, Weight
from krrdistill.common.arrays import check_choice, check_count, check_number, check_seed
from krrdistill.common.random import Stream, permutation, uniform
from krrdistill.data import Preprocessing
from krrdistill.options import SPECTRAL

from .base import FeatureMap
from .weights import cauchy_weight, gaussian_weight, student_weight

__all__ = ["SPECTRAL", "RandomFourier", "fourier_layer", "median_sigma2"]

_DEFAULT_NU = 1.5
_MAX_NU = 50.0


class RandomFourier(FeatureMap):
    """phi(x) = sqrt(2/p) cos(A x + b),  rows of A from a spectral measure,  b ~ U[0, 2 pi].

    phi(x) . phi(y) approximates the kernel that belongs to the spectral measure (Bochner), with sigma = sqrt(sigma2)::

        gaussian   A_ij ~ N(0, 1/sigma^2)          exp(-||x - y||^2 / (2 sigma^2))
        laplacian  A_ij ~ Cauchy(0, 1/sigma)       exp(-||x - y||_1 / sigma)
        matern     rows ~ t_{2 nu}(0, I/sigma^2)   2^(1-nu) / Gamma(nu) s^nu K_nu(s),  s = sqrt(2 nu) ||x - y|| / sigma

    Sources: Rahimi and Recht, NeurIPS 2007, figure 1 (the first two); Rasmussen and Williams, Gaussian Processes for
    Machine Learning, 2006, equations 4.14 and 4.15 (Matern: a multivariate t with 2 nu degrees of freedom).
    Exact preimages need p <= d (the paper's item 5.4).

    Parameters
    ----------
    input_dim : int
        d.
    n_features : int, optional
        p, by default d.
    sigma2 : float
        sigma^2, the squared bandwidth, in units of squared (preprocessed) inputs; for laplacian of squared 1-norms.
    spectral : "gaussian", "laplacian" or "matern"
    nu : float, optional
        Smoothness of matern, a multiple of 1/2 up to 50; by default 1.5. For 1/2 the kernel is
        exp(-||x - y|| / sigma). Multiples of 1/2 can be drawn from normal numbers with exact IEEE arithmetic.
    seed : int
        Seed of A and b. The numbers are the same on every machine and in every version.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the layers; by default none.

    Raises
    ------
    ValueError, TypeError
        For an unknown measure, ``nu`` without matern or no multiple of 1/2, and for sizes out of range.
    """

    kernel: ClassVar[str] = "random_fourier"
    optional_in_spec: ClassVar[tuple[str, ...]] = ("spectral", "nu")  # a Gaussian kernel has neither

    def __init__(
        self,
        input_dim: int,
        n_features: int | None = None,
        *,
        sigma2: float,
        spectral: str = "gaussian",
        nu: float | None = None,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        d = check_count("RandomFourier", "input_dim", input_dim)
        p = d if n_features is None else check_count("RandomFourier", "n_features", n_features)
        check_number("RandomFourier", "sigma2", sigma2, positive=True)
        check_choice("RandomFourier", "spectral", spectral, SPECTRAL)
        check_seed("RandomFourier", seed)
        parameters: dict[str, Any] = {"n_features": p, "sigma2": float(sigma2), "seed": int(seed)}
        if spectral != "gaussian":
            parameters["spectral"] = spectral
        if spectral == "matern":
            parameters["nu"] = _checked_nu(_DEFAULT_NU if nu is None else nu)
            freedom = round(2 * parameters["nu"])
            weight = student_weight(seed, p, d, freedom=freedom, precision=sigma2)
        elif nu is not None:
            raise ValueError(f"RandomFourier: nu belongs to spectral = 'matern', not to {spectral!r}")
        elif spectral == "laplacian":
            weight = cauchy_weight(seed, p, d, precision=sigma2)
        else:
            weight = gaussian_weight(seed, Stream.WEIGHTS, p, d, precision=sigma2)
        super().__init__(d, (fourier_layer(weight, seed),), preprocessing=preprocessing, parameters=parameters)


def _checked_nu(nu: float) -> float:
    value = check_number("RandomFourier", "nu", nu, positive=True)
    if value > _MAX_NU or 2 * value != round(2 * value):
        raise ValueError(f"RandomFourier: nu must be a multiple of 1/2 up to {_MAX_NU:g}, got {nu}")
    return value


def fourier_layer(weight: Weight, seed: int) -> Layer:
    """sqrt(2/p) cos(W x + b) with b ~ U[0, 2 pi], W (p, d)."""
    p = weight.shape[0]
    bias = 2.0 * math.pi * uniform(seed, Stream.FOURIER_BIAS, p)
    return Layer(weight, bias.astype(np.float32), "cosine", math.sqrt(2.0 / p))


def median_sigma2(X: npt.NDArray[np.float64], *, spectral: str = "gaussian", seed: int = 0) -> float:
    """The median heuristic: sigma = median of ||x - y|| over pairs of at most 1000 seeded rows of X (n, d), squared.

    The norm is the kernel's: 1 for laplacian, else 2.
    """
    rows = X[np.sort(permutation(seed, Stream.SUBSAMPLE, len(X))[:1000])]
    if spectral == "laplacian":
        median = float(np.median(scipy.spatial.distance.pdist(rows, "cityblock"))) ** 2 if len(rows) > 1 else 0.0
        return median if median > 0.0 else 1.0
    square = np.einsum("ij,ij->i", rows, rows)
    distance = square[:, None] + square[None, :] - 2.0 * rows @ rows.T
    pairs = distance[np.triu_indices(len(rows), k=1)]
    median = float(np.median(pairs)) if pairs.size else 0.0
    return median if median > 0.0 else 1.0
