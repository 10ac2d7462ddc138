"""The whole method in plain NumPy: what a careful user would write in an afternoon. A row of the comparisons.

float32 features tile by tile, float64 Gram matrix, one eigendecomposition for all lambdas, pseudo-inverses by SVD.
Map weights and standardisation are the package's, so that the same numbers are computed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import krrdistill as kd
from krrdistill.backends import HadamardWeight
from krrdistill.backends.base import matrix_of
from krrdistill.maps import FeatureMap

__all__ = ["apply_activation", "construct", "correct_counts", "features", "preimage", "ridge_path", "run", "statistics"]

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
_TILE = 2048
_VALIDATION = 0.05


def apply_activation(H: AnyArray, activation: str, parameter: float) -> AnyArray:
    """act(H) in place where NumPy can."""
    if activation == "cosine":
        np.cos(H, out=H)
        H *= parameter
    elif activation == "leaky_relu":
        np.maximum(H, H * np.asarray(parameter, H.dtype), out=H)
    return H


def features(chain: FeatureMap, X: AnyArray, dtype: Any = np.float32) -> AnyArray:
    """phi(X), (n, p)."""
    H = X.astype(dtype)
    if chain.scale is not None and chain.shift is not None:
        H *= chain.scale.astype(dtype)
        H += chain.shift.astype(dtype)
    for layer in chain.layers:
        weight = matrix_of(layer)
        H = weight.apply(H) if isinstance(weight, HadamardWeight) else H @ weight.T.astype(dtype, copy=False)
        if layer.bias is not None:
            H += layer.bias.astype(dtype, copy=False)
        H = apply_activation(H, layer.activation, layer.parameter)
    return H


def statistics(
    chain: FeatureMap, X: AnyArray, y: AnyArray, k: int, dtype: Any = np.float32
) -> tuple[FloatArray, FloatArray]:
    """G (p, p) and C (k, p) in float64, products in ``dtype``."""
    gram = np.zeros((chain.output_dim, chain.output_dim))
    cross = np.zeros((k, chain.output_dim))
    one_hot = np.eye(k, dtype=dtype)
    for start in range(0, len(X), _TILE):
        tile = features(chain, X[start : start + _TILE], dtype)
        gram += tile.T @ tile
        cross += one_hot[y[start : start + _TILE]].T @ tile
    return gram, cross


def ridge_path(gram: FloatArray, cross: FloatArray, lambdas: FloatArray) -> FloatArray:
    """W = C (G + lambda I)^-1 for every lambda, (L, k, p)."""
    values, vectors = np.linalg.eigh(gram)
    rotated = cross @ vectors
    return np.stack([(rotated / (values + value)) @ vectors.T for value in lambdas])


def correct_counts(chain: FeatureMap, X: AnyArray, y: AnyArray, weights: AnyArray) -> npt.NDArray[np.int64]:
    """Rows that each model of ``weights`` (L, k, p) classifies correctly."""
    correct = np.zeros(len(weights), dtype=np.int64)
    stacked = weights.reshape(-1, weights.shape[-1]).astype(np.float32)
    for start in range(0, len(X), _TILE):
        scores = features(chain, X[start : start + _TILE]) @ stacked.T
        classes = scores.reshape(len(scores), len(weights), -1).argmax(axis=2)
        correct += (classes == y[start : start + _TILE, None]).sum(axis=0)
    return correct


def construct(W: FloatArray, ipc: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """F (m, p) and Y (m, k) by pseudo-inverses: D = Y^+ W + (I - Y^+ Y) Z, F = (D^+)^T."""
    k, p = W.shape
    Y = np.tile(np.eye(k), (ipc, 1))
    inverse = np.linalg.pinv(Y).T
    fixed = inverse @ W
    Z = 0.1 * fixed.std() * np.random.default_rng(seed).standard_normal((len(Y), p))
    D = fixed + Z - inverse @ (Y.T @ Z)
    return np.linalg.pinv(D).T, Y


def preimage(chain: FeatureMap, F: FloatArray, Y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardised inputs X with phi(X) = F, and the labels, which scale with F where a cosine bounds it."""
    for layer in reversed(chain.layers):
        if layer.activation == "cosine":
            scale = min(1.0, layer.parameter / float(np.abs(F).max()))
            F, Y = np.arccos(np.clip(scale * F / layer.parameter, -1.0, 1.0)), scale * Y
        elif layer.activation == "leaky_relu":
            F = np.where(F > 0, F, F / layer.parameter)
        if layer.bias is not None:
            F = F - layer.bias
        weight = matrix_of(layer)
        if isinstance(weight, HadamardWeight):
            F = weight.solve(F)
        else:
            F = np.asarray(np.linalg.lstsq(weight.astype(np.float64), F.T)[0].T)
    return F, Y


def run(dataset: kd.Dataset, chain: FeatureMap, ipc: int, out: Path) -> dict[str, Any]:
    """From loaded arrays to a file whose retrained model was compared with the original; seconds per stage."""
    clock = _Clock()
    X, X_test = (part.reshape(len(part), -1) for part in (dataset.x_train, dataset.x_test))
    order = np.random.default_rng(0).permutation(len(X))
    held_out = round(_VALIDATION * len(X))
    validation, train = np.sort(order[:held_out]), np.sort(order[held_out:])
    y, k, lambdas = dataset.y_train, dataset.n_classes, kd.default_lambdas()
    gram, cross = statistics(chain, X[train], y[train], k)
    clock.lap("statistics")
    models = ridge_path(gram, cross, lambdas)
    correct = correct_counts(chain, X[validation], y[validation], models)
    best = len(lambdas) - 1 - int(np.argmax(correct[::-1]))
    W = models[best]
    clock.lap("ridge")
    F, Y = construct(W, ipc)
    clock.lap("construct")
    X_S, Y = preimage(chain, F, Y)
    clock.lap("preimage")
    np.savez(out / "numpy.npz", X=X_S, Y=Y)
    with np.load(out / "numpy.npz") as file:
        X_S, Y = file["X"], file["Y"]
    clock.lap("save")
    F_S = features(chain.on_standardised, X_S, np.float64)
    W_S = (np.linalg.pinv(F_S) @ Y).T
    scored = correct_counts(chain, X_test, dataset.y_test, np.stack([W, W_S])) / len(X_test)
    clock.lap("evaluate")
    return {
        "seconds": clock.seconds,
        "lambda": float(lambdas[best]),
        "test_accuracy": float(scored[0]),
        "distilled_test_accuracy": float(scored[1]),
        "weight_relative_error": float(np.linalg.norm(W_S - W) / np.linalg.norm(W)),
    }


class _Clock:
    """Seconds between laps, and their total."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"total": 0.0}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self.seconds["total"] += now - self._last
        self._last = now
