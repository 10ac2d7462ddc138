"""Predictions of models, batch by batch, and their errors for real-valued targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap

__all__ = ["TARGET_KINDS", "all_scores", "batched_scores", "predictions", "r_squared", "score_of"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TARGET_KINDS = ("classes", "multilabel", "real")
_BATCH_SCORES = 1 << 23  # numbers of a batch
_LEAST_ROWS, _MOST_ROWS = 2048, 16384


def predictions(scores: FloatArray, targets: str) -> npt.NDArray[Any]:
    """What scores (n, k) predict: classes (n,), labels 0 or 1 above a half, or the values."""
    if targets == "classes":
        return np.asarray(scores.argmax(axis=1))
    return (scores > 0.5).astype(np.int64) if targets == "multilabel" else scores


def score_of(scores: FloatArray, y: npt.NDArray[Any], targets: str) -> float:
    """Accuracy of scores (n, k), of multi-label targets the mean over labels, of real-valued ones the mean R^2."""
    y = y[:, None] if targets != "classes" and y.ndim == 1 and scores.shape[1] == 1 else y
    if y.shape != (scores.shape[:1] if targets == "classes" else scores.shape):
        raise DataError(f"score: y has shape {y.shape}, the predictions {scores.shape}")
    if targets == "real":
        return float(r_squared([(np.arange(len(scores)), scores[:, None, :])], y)[0].mean())
    return float(np.mean(predictions(scores, targets) == y))


def batched_scores(
    feature_map: FeatureMap,
    X: Any,
    weights: FloatArray,
    intercepts: FloatArray | None,
    *,
    precision: str,
    backend: Backend,
    where: str = "predict",
    rows: IntArray | None = None,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """(rows of X, scores (b, L, k)) for models ``weights`` (L, k, p) and ``intercepts`` (L, k).

    Features are computed in ``precision``, scores in float64: float32 scores would hide small differences. Messages are
    in the name of ``where``.
    """
    stacked = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
    chosen = np.arange(X.shape[0]) if rows is None else rows
    step = int(np.clip(_BATCH_SCORES // max(1, len(stacked)), _LEAST_ROWS, _MOST_ROWS))
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        with feature_map.named_rows(where, X, precision, part):
            found = backend.scores(feature_map, X, stacked, dtype=np.dtype(precision), rows=part)
        scores = found.reshape(len(part), *weights.shape[:2])
        yield part, scores if intercepts is None else scores + intercepts


def all_scores(
    feature_map: FeatureMap,
    X: Any,
    weights: FloatArray,
    intercepts: FloatArray | None,
    *,
    precision: str,
    backend: Backend,
    where: str = "predict",
) -> FloatArray:
    """The scores (n, L, k) of all rows, see ``batched_scores``."""
    scores = np.empty((X.shape[0], *weights.shape[:2]))
    scored = batched_scores(feature_map, X, weights, intercepts, precision=precision, backend=backend, where=where)
    for part, some in scored:
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
