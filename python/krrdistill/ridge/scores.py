"""What models say about samples, batch by batch, and how far that is from real-valued targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, Chain
from krrdistill.common.arrays import to_host
from krrdistill.common.products import product

__all__ = ["TARGET_KINDS", "all_scores", "batched_scores", "kind_of_targets", "r_squared"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TARGET_KINDS = ("classes", "multilabel", "real")
_BATCH_ROWS = 2048


def kind_of_targets(y: npt.NDArray[np.generic]) -> str:
    """ "classes" for labels (n,); of targets (n, k) "multilabel" where all are 0 or 1, else "real"."""
    if y.ndim == 1:
        return "classes"
    return "multilabel" if bool(((y == 0) | (y == 1)).all()) else "real"


def batched_scores(
    chain: Chain,
    X: Any,
    weights: FloatArray,
    intercepts: FloatArray | None,
    *,
    precision: str,
    backend: Backend,
    rows: IntArray | None = None,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """(rows of X, scores (b, L, k)) for models ``weights`` (L, k, p) and ``intercepts`` (L, k).

    Features are computed in ``precision``, scores in float64: float32 scores would hide small differences.
    """
    stacked = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    chosen = np.arange(X.shape[0]) if rows is None else rows
    buffer = np.empty((min(_BATCH_ROWS, len(chosen)), stacked.shape[1]))
    for start in range(0, len(chosen), _BATCH_ROWS):
        part = chosen[start : start + _BATCH_ROWS]
        features = buffer[: len(part)]
        features[:] = to_host("predict", "features", backend.transform(chain, X, dtype=np.dtype(precision), rows=part))
        scores = product(features, stacked.T).reshape(len(part), *weights.shape[:2])
        yield part, scores if intercepts is None else scores + intercepts


def all_scores(
    chain: Chain,
    X: Any,
    weights: FloatArray,
    intercepts: FloatArray | None,
    *,
    precision: str,
    backend: Backend,
) -> FloatArray:
    """The scores (n, L, k) of all rows, see ``batched_scores``."""
    scores = np.empty((X.shape[0], *weights.shape[:2]))
    for part, some in batched_scores(chain, X, weights, intercepts, precision=precision, backend=backend):
        scores[part] = some
    return scores


def r_squared(
    scored: Iterable[tuple[IntArray, FloatArray]], Y: FloatArray, *, sample_weight: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """(R^2, mean squared error), each (L, k), of ``scored`` rows of Y (n, k), as ``batched_scores`` gives them.

    R^2 = 1 - mse / mean (y - y_mean)^2; means are weighted by ``sample_weight`` (n,). Where targets do not vary, R^2 is
    minus the mean squared error.
    """
    shares = np.ones(len(Y)) if sample_weight is None else sample_weight
    rows, errors = [], []
    for part, scores in scored:
        rows.append(part)
        errors.append(np.einsum("b,blk->lk", shares[part], np.square(scores - Y[part][:, None, :])))
    picked = np.concatenate(rows)
    used, w = Y[picked], shares[picked]
    total = max(float(w.sum()), np.finfo(np.float64).tiny)
    mse = np.sum(errors, axis=0) / total
    variance = w @ np.square(used - w @ used / total) / total
    varies = variance > 0.0
    return np.where(varies, 1.0, 0.0) - mse / np.where(varies, variance, 1.0), mse
