"""A lambda path whose models are not held: G reduced to a band once, each model made when it is asked for.

With G = Q B Q^T and the rotated targets C Q, the model of one lambda is S Q^T for S = C Q (B + lambda I)^-1, which
costs O(k p width). What is asked of all models needs S alone: ||W|| = ||S||, <W, C> = <S, C Q>, W v = S (Q^T v), and
for the scores of samples it is their features that are rotated, once for all lambdas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.products import product

from .base import FloatArray, IntArray, PathSolution
from .models import ModelStack

__all__ = ["BandModels", "banded_path"]


class BandModels:
    """Models (L, k, p) of a reduced G, NaN where there is none: what a ``ModelStack`` asks.

    Parameters
    ----------
    module : Any
        The compiled module.
    gram : array of shape (p, p)
        G, which is overwritten and kept.
    cross : array of shape (k, p), C
    lambdas : array of shape (L,), ascending
    """

    def __init__(self, module: Any, gram: FloatArray, cross: FloatArray, lambdas: FloatArray) -> None:
        p, width = len(gram), module.band_width(len(gram))
        self.shape = (len(lambdas), len(cross), p)
        self._module = module
        self._reduction = (gram, np.empty((p, width)), np.empty((p, width + 1)))
        self.largest_eigenvalue: float = module.reduce_to_band(*self._reduction)
        self._rotated = self.rotated(cross)
        self._lambdas = lambdas

    def rotated(self, vectors: FloatArray) -> FloatArray:
        """Q^T v of the rows of an array (r, p), a copy."""
        rows = np.array(vectors, dtype=np.float64, order="C")
        self._module.apply_q(*self._reduction, rows, True)
        return rows

    def is_definite(self, shift: float) -> bool:
        """Whether G + shift I is positive definite."""
        return bool(self._module.solve_band(*self._reduction, shift, np.empty((0, self.shape[2]))))

    def solution(self, index: int, targets: Any = slice(None)) -> FloatArray:
        """S of a lambda for some targets, (r, p); NaN where there is no model."""
        S = np.array(self._rotated[targets])
        if not self._module.solve_band(*self._reduction, float(self._lambdas[index]), S):
            S.fill(np.nan)
        return S

    def download(self, rows: IntArray, out: FloatArray) -> None:
        """Writes rows of the models, counted through (L, k)."""
        indices, targets = np.divmod(rows, self.shape[1])
        for index in np.unique(indices):
            chosen = np.flatnonzero(indices == index)
            W = self.solution(int(index), targets[chosen])
            if np.isfinite(W).all():
                self._module.apply_q(*self._reduction, W, False)
            out[chosen] = W

    def multiply(self, vector: FloatArray, out: FloatArray) -> None:
        """Writes W v for every model, (L, k)."""
        rotated = self.rotated(vector[None])[0]
        for index, row in enumerate(out):
            row[:] = self.solution(index) @ rotated

    def add_correct(self, features: FloatArray, labels: IntArray, correct: IntArray) -> None:
        """Adds to ``correct`` (L,) how many rows each model classifies correctly; one that does not exist says 0."""
        rotated = self.rotated(features)
        for index in range(len(correct)):
            scores = product(rotated, np.nan_to_num(self.solution(index), copy=False).T)
            correct[index] += np.count_nonzero(scores.argmax(axis=1) == labels)


def banded_path(
    module: Any, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float
) -> PathSolution:
    """``Backend.ridge_path`` without its models; G is overwritten."""
    models = BandModels(module, gram, cross, lambdas)
    floor = rounding * max(models.largest_eigenvalue, 0.0)
    squares, products = np.full((2, len(lambdas)), np.nan)
    resolved = np.zeros(len(lambdas), dtype=bool)
    least = np.inf  # what is positive definite stays so for larger shifts
    for index, lambda_ in enumerate(lambdas):
        S = models.solution(index)
        squares[index], products[index] = np.vdot(S, S), np.vdot(S, models._rotated)
        shift = float(lambda_) - floor
        resolved[index] = shift >= least or models.is_definite(shift)
        least = min(least, shift) if resolved[index] else least
    positive_definite: npt.NDArray[np.bool_] = np.isfinite(squares)
    return PathSolution(ModelStack(models), positive_definite, resolved, models.largest_eigenvalue, squares, products)
