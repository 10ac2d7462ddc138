"""Structured orthogonal random features of the Gaussian kernel (Yu et al., NeurIPS 2016)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from krrdistill.backends import HadamardWeight
from krrdistill.backends.hadamard import block_size
from krrdistill.common.arrays import check_count, check_number, check_seed
from krrdistill.common.random import Stream, signs
from krrdistill.data import Preprocessing

from .base import FeatureMap
from .random_fourier import fourier_layer

__all__ = ["OrthogonalFourier"]

_ROUNDS = 3  # as many as the paper's sqrt(d) / sigma H D1 H D2 H D3 has


class OrthogonalFourier(FeatureMap):
    """phi(x) = sqrt(2/p) cos(A x + b),  A = (sqrt(d) / sigma) Q[:p],  Q orthogonal,  b ~ U[0, 2 pi].

    phi(x) . phi(y) approximates exp(-||x - y||^2 / (2 sigma^2)), as random Fourier features do. This holds for d large
    enough that a row of Q times x is nearly normal. Q is a product of three random sign changes and Walsh-Hadamard
    transforms (``HadamardWeight``). A sample takes O(d log d) operations. A^+ = (sigma^2 / d) A^T, so that preimages
    need no linear solve (the paper's item 5.4).

    Parameters
    ----------
    input_dim : int
        d.
    n_features : int, optional
        p <= d, by default d.
    sigma2 : float
        sigma^2, the squared bandwidth, in units of squared (preprocessed) inputs.
    seed : int
        Seed of Q and b. The numbers are the same on every machine and in every version.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, before the layers; by default none.
    """

    kernel: ClassVar[str] = "orthogonal_fourier"

    def __init__(
        self,
        input_dim: int,
        n_features: int | None = None,
        *,
        sigma2: float,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        d = check_count("OrthogonalFourier", "input_dim", input_dim)
        p = d if n_features is None else check_count("OrthogonalFourier", "n_features", n_features)
        if p > d:
            raise ValueError(f"OrthogonalFourier: n_features must be at most input_dim = {d}, got {p}")
        check_number("OrthogonalFourier", "sigma2", sigma2, positive=True)
        check_seed("OrthogonalFourier", seed)
        n = block_size(d)
        drawn = signs(seed, Stream.WEIGHTS, _ROUNDS * 2 * n).reshape(_ROUNDS, 2, n)
        with np.errstate(over="ignore"):  # HadamardWeight refuses what float32 cannot hold
            scale = np.full(p, math.sqrt(d / sigma2), dtype=np.float32)
        parameters = {"n_features": p, "sigma2": float(sigma2), "seed": int(seed)}
        super().__init__(
            d,
            (fourier_layer(HadamardWeight(d, drawn, scale), seed),),
            preprocessing=preprocessing,
            parameters=parameters,
        )
