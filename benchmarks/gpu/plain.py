"""The same model as a user would write it in PyTorch or CuPy: float32 products, float64 factorisations.

Bytes in host memory in, the weights of the lambda that scores best on the held-out rows out. Nothing is distilled.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from gpu.problem_data import Images

__all__ = ["with_cupy", "with_torch"]


def with_torch(images: Images, weight: Any, k: int, lambdas: Any, place: str) -> tuple[Any, float]:
    """(W, lambda) by torch.linalg; ``weight`` None is the identity map."""
    torch = importlib.import_module("torch")
    A = None if weight is None else torch.from_numpy(weight).to(place)
    y, y_held = (torch.from_numpy(images.y[rows]).to(place) for rows in (images.train, images.held_out))

    def features(rows: Any) -> Any:
        x = (torch.from_numpy(images.X[rows]).to(place).float() - 125.0) / 62.5
        return x if A is None else torch.nn.functional.leaky_relu(x @ A.T, 0.1)

    F, V = features(images.train), features(images.held_out)
    Y = torch.nn.functional.one_hot(y, k).float()
    G, C = (F.T @ F).double(), (F.T @ Y).double()
    eye = torch.eye(len(G), dtype=G.dtype, device=place)
    best: tuple[Any, float, float] = (None, 0.0, -1.0)
    for value in lambdas:
        lower, failed = torch.linalg.cholesky_ex(G + float(value) * eye)
        if failed.item():
            continue
        W = torch.cholesky_solve(C, lower)
        accuracy = ((V @ W.float()).argmax(1) == y_held).float().mean().item()
        if accuracy > best[2]:
            best = (W, float(value), accuracy)
    return best[0].T.cpu().numpy(), best[1]


def with_cupy(images: Images, weight: Any, k: int, lambdas: Any) -> tuple[Any, float]:
    """The same by CuPy."""
    cp: Any = importlib.import_module("cupy")
    solve = importlib.import_module("cupyx.scipy.linalg").solve_triangular
    A = None if weight is None else cp.asarray(weight)
    y, y_held = (cp.asarray(images.y[rows]) for rows in (images.train, images.held_out))

    def features(rows: Any) -> Any:
        x = (cp.asarray(images.X[rows]).astype(cp.float32) - cp.float32(125.0)) / cp.float32(62.5)
        if A is None:
            return x
        x = x @ A.T
        return cp.where(x > 0, x, cp.float32(0.1) * x)

    F, V = features(images.train), features(images.held_out)
    Y = cp.eye(k, dtype=cp.float32)[y]
    G, C = (F.T @ F).astype(cp.float64), (F.T @ Y).astype(cp.float64)
    eye = cp.eye(len(G))
    best: tuple[Any, float, float] = (None, 0.0, -1.0)
    for value in lambdas:
        lower = cp.linalg.cholesky(G + float(value) * eye)
        if not bool(cp.isfinite(lower).all()):
            continue
        W = solve(lower, solve(lower, C, lower=True), lower=True, trans="T")
        accuracy = float(((V @ W.astype(cp.float32)).argmax(1) == y_held).mean())
        if accuracy > best[2]:
            best = (W, float(value), accuracy)
    return np.asarray(best[0].T.get()), best[1]
