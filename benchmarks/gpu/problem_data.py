"""Random bytes of the size of CIFAR-100, the maps on them, and the split that the stages use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import krrdistill as kd
from gpu.session import Sizes

__all__ = ["KERNELS", "Images", "map_of"]

KERNELS = ("identity", "FCNN", "random_fourier")
_SIGMA2 = 1000.0  # published for CIFAR-100
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Images:
    """Random bytes X (n, d), labels y (n,) that a linear model can learn, and the row numbers of both parts."""

    X: npt.NDArray[np.uint8]
    y: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]

    @staticmethod
    def draw(sizes: Sizes) -> Images:
        """Always the same bytes."""
        rng = np.random.default_rng(0)
        X = rng.integers(0, 256, (sizes.n, sizes.d), np.uint8)
        teacher = rng.standard_normal((sizes.d, sizes.k), np.float32)
        blocks = (X[start : start + _BLOCK].astype(np.float32) - 127.5 for start in range(0, sizes.n, _BLOCK))
        y = np.concatenate([np.argmax(block @ teacher, axis=1) for block in blocks])
        order = rng.permutation(sizes.n)
        return Images(X, y, np.sort(order[: sizes.trained]), np.sort(order[sizes.trained :]))


def scaling(d: int) -> kd.Preprocessing:
    """(x - 125) / 62.5."""
    return kd.Preprocessing("standardize", np.full(d, 125.0), np.full(d, 62.5))


def map_of(kernel: str, d: int) -> Any:
    """The map of a kernel, as wide as its inputs, on bytes."""
    if kernel == "identity":
        return kd.Identity(d, preprocessing=scaling(d))
    if kernel == "FCNN":
        return kd.FCNN(d, preprocessing=scaling(d))
    return kd.RandomFourier(d, sigma2=_SIGMA2, preprocessing=scaling(d))
