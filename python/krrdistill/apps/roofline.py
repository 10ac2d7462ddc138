"""Times estimated from the number of operations and the measured rate of a matrix product: a lower bound for the pass
over the data, and about how long a search takes."""

from __future__ import annotations

import time

import numpy as np
from scipy.linalg import blas

from krrdistill.maps import FeatureMap

__all__ = ["pass_floor", "pass_flops", "search_notice", "search_seconds"]

_ORDER = 1024  # of the matrix product: large enough for BLAS's full rate
_REPEATS = 3
_LEAST_FLOPS = 1e11  # of a pass that is worth the measurement, four products of 2 GFLOP
# Operations of a search for the nearest exact set over d p max(d, p). On CIFAR-100, 1 to 10 points per class, two
# threads of an AMD EPYC (Zen 5): 40 to 250, median 85, and of the identity 5 to 12. Fewer points take more iterations,
# so that their number hardly counts. On MNIST 80 to 530, and 10 to 66: about a second, which nobody is told of.
_SEARCH, _SEARCH_AFFINE = 100.0, 10.0
_SPREAD = 2.0  # of most of what was measured, either way


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
    return flops * _seconds_per_flop(precision)


def search_seconds(feature_map: FeatureMap) -> float:
    """Expected seconds of a search for the nearest exact set, to a factor of about two (docs/measured/realism.md)."""
    d, p = feature_map.input_dim, feature_map.output_dim
    per_entry = _SEARCH if feature_map.layers else _SEARCH_AFFINE
    return per_entry * float(d) * p * max(d, p) * _seconds_per_flop("float32")


def search_notice(feature_map: FeatureMap, max_seconds: float | None) -> str:
    """What to say before the search."""
    expected, limit = search_seconds(feature_map), float("inf") if max_seconds is None else max_seconds
    low, high = expected / _SPREAD, expected * _SPREAD
    if low >= limit:
        takes = f"its whole limit of {limit:g} s"
    elif high < 10.0:
        takes = "a few seconds"
    else:
        takes = f"{low:.0f} to {min(high, limit):.0f} s"
    bound = "--max-seconds bounds it"
    if max_seconds is not None:
        bound = f"it ends after {limit:g} s at the latest, exact but less near"
    return f"the search for the nearest exact set is expected to take {takes} after the model is trained; {bound}"


def _seconds_per_flop(precision: str) -> float:
    """Of a product of order 1024, the best of a few."""
    gemm = blas.sgemm if precision == "float32" else blas.dgemm
    A = np.ones((_ORDER, _ORDER), dtype=precision, order="F")
    gemm(1.0, A, A)  # starts the threads
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        gemm(1.0, A, A)
        best = min(best, time.perf_counter() - start)
    return best / (2.0 * _ORDER**3)
