"""The time that the pass over the data cannot take less of: its arithmetic at the rate of a plain matrix product."""

from __future__ import annotations

import time

import numpy as np
from scipy.linalg import blas

from krrdistill.maps import FeatureMap

__all__ = ["pass_floor", "pass_flops"]

_ORDER = 1024  # of the matrix product: large enough for BLAS's full rate
_REPEATS = 3
_LEAST_FLOPS = 1e11  # of a pass that is worth the measurement, four products of 2 GFLOP


def pass_flops(feature_map: FeatureMap, n: int) -> float:
    """2 n (inputs x outputs) per dense layer for the features of n samples, and n p^2 for one triangle of G."""
    dense = (layer.weight for layer in feature_map.layers if isinstance(layer.weight, np.ndarray))
    layers = sum(2.0 * float(weight.size) for weight in dense)
    return n * (layers + float(feature_map.output_dim) ** 2)


def pass_floor(feature_map: FeatureMap, n: int, precision: str) -> float | None:
    """Seconds of ``pass_flops`` at the best rate, measured here, of a product of order 1024; None for short passes.

    No floor of sums of integers (bytes under the identity map), which can be faster than float products.
    """
    flops = pass_flops(feature_map, n)
    if flops < _LEAST_FLOPS:
        return None
    gemm = blas.sgemm if precision == "float32" else blas.dgemm
    A = np.ones((_ORDER, _ORDER), dtype=precision, order="F")
    gemm(1.0, A, A)  # starts the threads
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        gemm(1.0, A, A)
        best = min(best, time.perf_counter() - start)
    return flops * best / (2.0 * _ORDER**3)
