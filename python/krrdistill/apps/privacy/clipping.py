"""Sufficient statistics of features whose norm is bounded: what every statement about privacy starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.samples import as_samples
from krrdistill.data.labels import Classes
from krrdistill.maps import FeatureMap, Identity
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["ClippedStatistics", "clipped_statistics"]

_BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ClippedStatistics:
    """G and C of the features f min(1, B / ||f||), in float64, and what clipping met.

    ``largest_norm`` and ``n_clipped`` are facts about the data: a private release must not contain them.
    """

    statistics: RidgeStatistics
    norm_bound: float  # B; inf where nothing is clipped
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
    """One pass over X (n, *shape) with labels y (n,), in float64. Raises DataError as ``RidgeStatistics.update``."""
    samples = as_samples("clipped_statistics", X, input_dim=feature_map.input_dim)
    labels = Classes(n_classes).encode("clipped_statistics", y, len(samples))
    picked = np.arange(len(samples)) if rows is None else rows
    solver = get_backend(backend, data=samples)
    statistics = RidgeStatistics(Identity(feature_map.output_dim), n_classes, precision="float64", backend=solver)
    largest, n_clipped = 0.0, 0
    for start in range(0, len(picked), _BATCH_ROWS):
        part = picked[start : start + _BATCH_ROWS]
        with feature_map.named_rows("clipped_statistics", samples, "float64", part):
            features = solver.transform(feature_map, samples, dtype=np.dtype(np.float64), rows=part)
        norms = np.linalg.norm(features, axis=1)
        largest = max(largest, float(norms.max()))
        long = norms > norm_bound
        if long.any():
            n_clipped += int(np.count_nonzero(long))
            features[long] *= (norm_bound / norms[long])[:, None]
        statistics.update(features, labels[part])
        if progress is not None:
            progress(min(1.0, (start + _BATCH_ROWS) / len(picked)))
    return ClippedStatistics(statistics, norm_bound, largest, n_clipped)
