"""Structured weights: a diagonal times an orthogonal matrix that is applied in O(d log d) and never formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["HadamardWeight", "block_size"]

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class HadamardWeight:
    """W = diag(scale) (R_r ... R_1)[:p], each round R orthogonal, from signs and Walsh-Hadamard transforms.

    With n the largest power of two <= d and c = (d - n + 1) // 2, a round lets the first and the last c coordinates
    change places, then replaces the first n by H D h and then the last n by H D' h: H the orthonormal Walsh-Hadamard
    matrix in Sylvester's order, D and D' diagonals of signs. Both blocks together cover all d coordinates, as d < 2 n.
    Blocks: Yu et al., Orthogonal Random Features, NeurIPS 2016.

    Parameters
    ----------
    inputs : int
        d.
    signs : array of shape (rounds, 2, n), int8
        -1 or 1: the diagonals D and D' of every round.
    scale : array of shape (p,), float32
        Norms of the rows of W, p <= d.

    Raises
    ------
    ValueError
        If shapes do not fit, a sign is none, or a norm is not positive and finite.
    """

    inputs: int
    signs: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        d, n = self.inputs, block_size(self.inputs)
        if self.signs.ndim != 3 or self.signs.shape[1:] != (2, n) or not (np.abs(self.signs) == 1).all():
            raise ValueError(f"HadamardWeight: signs must be -1 or 1, (rounds, 2, {n}), got shape {self.signs.shape}")
        if self.scale.ndim != 1 or not 1 <= len(self.scale) <= d:
            raise ValueError(f"HadamardWeight: scale must have 1 to {d} entries, got shape {self.scale.shape}")
        if not ((self.scale > 0.0) & (self.scale < np.inf)).all():
            raise ValueError(f"HadamardWeight: scale must be positive and finite, got {self.scale.min()}")

    @property
    def shape(self) -> tuple[int, int]:
        """(p, d), as of a dense weight."""
        return len(self.scale), self.inputs

    @property
    def diagonals(self) -> npt.NDArray[np.float64]:
        """The signs over sqrt(n): with them the transforms need no factor of their own. Shape (rounds, 2, n)."""
        return np.asarray(self.signs / np.sqrt(self.signs.shape[2]))

    def apply(self, H: AnyArray) -> AnyArray:
        """H W^T in the precision of H: array of shape (n, d) -> (n, p)."""
        n, d = self.signs.shape[2], self.inputs
        for first, last in self.diagonals.astype(H.dtype):
            H = self._swap_ends(H)
            H[:, :n] = _walsh_hadamard(first * H[:, :n])
            H[:, d - n :] = _walsh_hadamard(last * H[:, d - n :])
        return np.asarray(H[:, : len(self.scale)] * self.scale.astype(H.dtype))

    def solve(self, rhs: AnyArray) -> AnyArray:
        """The least-norm X (m, d) with X W^T = rhs (m, p): rows are orthogonal, so W^+ is W^T over squared norms."""
        n, d, p = self.signs.shape[2], self.inputs, len(self.scale)
        X = np.zeros((len(rhs), d), rhs.dtype)
        X[:, :p] = rhs / self.scale
        for first, last in self.diagonals.astype(rhs.dtype)[::-1]:
            X[:, d - n :] = last * _walsh_hadamard(X[:, d - n :])
            X[:, :n] = first * _walsh_hadamard(X[:, :n])
            X = self._swap_ends(X)
        return X

    def _swap_ends(self, H: AnyArray) -> AnyArray:
        d = self.inputs
        c = (d - self.signs.shape[2] + 1) // 2
        return np.hstack([H[:, d - c :], H[:, c : d - c], H[:, :c]])


def block_size(d: int) -> int:
    """The largest power of two <= d."""
    return 1 << (d.bit_length() - 1)


def _walsh_hadamard(H: AnyArray) -> AnyArray:
    """Each row of H (m, n) times the matrix of +-1 (not orthonormal): H_ab = H_a (x) H_b, so two small products."""
    m, n = H.shape
    a = block_size(int(np.sqrt(n)))
    return np.asarray(_sylvester(a, H.dtype) @ H.reshape(m, a, n // a) @ _sylvester(n // a, H.dtype)).reshape(m, n)


def _sylvester(n: int, dtype: Any) -> AnyArray:
    """The symmetric n x n matrix of +-1 with H_2n = [[H_n, H_n], [H_n, -H_n]]."""
    H = np.ones((1, 1), dtype)
    while len(H) < n:
        H = np.block([[H, H], [H, -H]])
    return H
