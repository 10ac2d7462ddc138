"""Structured weights: a diagonal times an orthogonal matrix that is applied in O(d log d) and never formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import device_of, in_namespace, namespace_of

__all__ = ["HadamardWeight", "block_size", "structured_product", "sylvester_factors"]

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

    def apply(self, H: Any) -> Any:
        """H W^T in the precision of H, an array (n, d) of any framework -> (n, p)."""
        return structured_product(namespace_of(H), H, *self._factors(H))

    def dense(self) -> npt.NDArray[np.float64]:
        """W as a plain matrix (p, d)."""
        return np.asarray(self.apply(np.eye(self.inputs)).T)

    def solve(self, rhs: Any) -> Any:
        """The least-norm X (m, d) with X W^T = rhs (m, p): rows are orthogonal, so W^+ is W^T over squared norms."""
        xp, (p, d), n = namespace_of(rhs), self.shape, self.signs.shape[2]
        diagonals, scale, left, right = self._factors(rhs)
        X = xp.concat([rhs / scale, xp.zeros((rhs.shape[0], d - p), dtype=rhs.dtype, device=device_of(rhs))], axis=1)
        for number in reversed(range(diagonals.shape[0])):
            first, last = diagonals[number, 0, :], diagonals[number, 1, :]
            X[:, d - n :] = last * _walsh_hadamard(xp, X[:, d - n :], left, right)
            X[:, :n] = first * _walsh_hadamard(xp, X[:, :n], left, right)
            X = _swap_ends(xp, X, n)
        return X

    def _factors(self, H: Any) -> list[Any]:
        """What ``structured_product`` takes, in the namespace, on the device and in the precision of H."""
        xp, device = namespace_of(H), device_of(H)
        arrays = (self.diagonals, self.scale, *sylvester_factors(self.signs.shape[2]))
        return [xp.astype(in_namespace(array, xp, device), H.dtype, copy=False) for array in arrays]


def structured_product(xp: Any, H: Any, diagonals: Any, scale: Any, left: Any, right: Any) -> Any:
    """H W^T in a namespace, (n, d) -> (n, p), from ``diagonals``, ``scale`` and ``sylvester_factors`` of the weight."""
    d, n = H.shape[1], diagonals.shape[2]
    for number in range(diagonals.shape[0]):
        first, last = diagonals[number, 0, :], diagonals[number, 1, :]
        H = _swap_ends(xp, H, n)
        H[:, :n] = _walsh_hadamard(xp, first * H[:, :n], left, right)
        H[:, d - n :] = _walsh_hadamard(xp, last * H[:, d - n :], left, right)
    return H[:, : scale.shape[0]] * scale


def _swap_ends(xp: Any, H: Any, n: int) -> Any:
    d = H.shape[1]
    c = (d - n + 1) // 2
    return xp.concat([H[:, d - c :], H[:, c : d - c], H[:, :c]], axis=1)


def block_size(d: int) -> int:
    """The largest power of two <= d."""
    return 1 << (d.bit_length() - 1)


def sylvester_factors(n: int) -> tuple[AnyArray, AnyArray]:
    """Matrices of +-1 whose Kronecker product is the Walsh-Hadamard matrix of order n: H_ab = H_a (x) H_b."""
    a = block_size(int(np.sqrt(n)))
    return _sylvester(a), _sylvester(n // a)


def _walsh_hadamard(xp: Any, H: Any, left: Any, right: Any) -> Any:
    """Each row of H (m, n) times the matrix of +-1 (not orthonormal), by two small products."""
    m, n = H.shape
    return xp.reshape(left @ xp.reshape(H, (m, left.shape[0], right.shape[0])) @ right, (m, n))


def _sylvester(n: int) -> AnyArray:
    """The symmetric n x n matrix of +-1 with H_2n = [[H_n, H_n], [H_n, -H_n]]."""
    H = np.ones((1, 1))
    while len(H) < n:
        H = np.block([[H, H], [H, -H]])
    return H
