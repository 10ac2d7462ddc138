"""Sufficient statistics of features whose norm is bounded: what every statement about privacy starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.arrays import as_rows
from krrdistill.common.samples import as_samples
from krrdistill.data.labels import Classes
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap, Identity
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["ClippedStatistics", "clipped_statistics"]

FloatArray = npt.NDArray[np.float64]
_BATCH_ROWS = 4096
_EXACT = 2.0**26  # integers up to its square, and beyond, are float64 numbers
_LARGEST_SHRINKAGE = 0.005


@dataclass(frozen=True, eq=False)
class ClippedStatistics:
    """G and C of the features f min(1, B / ||f||), in float64, and what clipping met.

    Clipped features are rounded to multiples of ``step``, a power of two: all sums of them are exact, whatever their
    order, so that replacing a sample changes G and C by its own terms and nothing else. Their norms are at most B, then
    too. ``largest_norm`` and ``n_clipped`` are facts about the data: a private release must not contain them.
    """

    statistics: RidgeStatistics
    norm_bound: float  # B; inf where nothing is clipped
    step: float  # 0 where nothing is clipped
    largest_norm: float  # of the features before clipping
    n_clipped: int


def clipped_statistics(
    X: Any,
    y: Any,
    feature_map: FeatureMap,
    n_classes: int,
    *,
    norm_bound: float = float("inf"),
    rows: npt.NDArray[np.int64] | None = None,
    backend: Backend | str | None = None,
    progress: Callable[[float], None] | None = None,
) -> ClippedStatistics:
    """One pass over X (n, *shape) with labels y (n,), in float64.

    Raises DataError as ``RidgeStatistics.update``, and for so many samples that exact sums would need a coarse grid.
    """
    samples = as_samples("clipped_statistics", X, input_dim=feature_map.input_dim)
    labels = Classes(n_classes).encode("clipped_statistics", y, len(samples))
    picked = np.arange(len(samples)) if rows is None else as_rows("clipped_statistics", rows, len(samples))
    solver = get_backend(backend, data=samples)
    statistics = RidgeStatistics(Identity(feature_map.output_dim), n_classes, precision="float64", backend=solver)
    step, reach = _grid(len(picked), feature_map.output_dim, norm_bound)
    largest, n_clipped = 0.0, 0
    for start in range(0, len(picked), _BATCH_ROWS):
        part = picked[start : start + _BATCH_ROWS]
        with feature_map.named_rows("clipped_statistics", samples, "float64", part):
            features = solver.transform(feature_map, samples, dtype=np.dtype(np.float64), rows=part)
        norms = np.linalg.norm(features, axis=1)
        largest = max(largest, float(norms.max()))
        if step > 0.0:
            long = norms > reach
            n_clipped += int(np.count_nonzero(long))
            features[long] *= (reach / norms[long])[:, None]
            features = step * np.rint(features / step)
        statistics.update(features, labels[part])
        if progress is not None:
            progress(min(1.0, (start + _BATCH_ROWS) / len(picked)))
    return ClippedStatistics(statistics, norm_bound, step, largest, n_clipped)


def _grid(n: int, p: int, norm_bound: float) -> tuple[float, float]:
    """(step, norm to clip to): n (B / step)^2 <= 2^52, and B is kept when each of p entries moves by step / 2.

    Partial sums of n products of integers f / step are at most n (B / step)^2, so that none is rounded. The factor is
    the rounding of the norm and of the clipping itself.
    """
    if not math.isfinite(norm_bound):
        return 0.0, norm_bound
    step = math.ldexp(1.0, math.frexp(norm_bound * math.sqrt(n) / _EXACT)[1])
    moved = 0.5 * step * math.sqrt(p)
    if moved > _LARGEST_SHRINKAGE * norm_bound:
        raise DataError(
            f"clipped_statistics: sums of {n} samples of {p} features are exact only on a grid that is too coarse for "
            "them: take fewer samples or features"
        )
    return step, (norm_bound - moved) * (1.0 - 4.0 * p * float(np.finfo(np.float64).eps))
