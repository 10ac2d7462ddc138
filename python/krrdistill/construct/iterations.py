"""What the searches for the nearest exact set share: the time they may take, and their inner iterations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = ["EXACT", "LEAST_T", "PROGRESS", "Clock", "Digits", "conjugate_gradients", "inverse_of", "shortened"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[Any]  # float32 or float64
State = TypeVar("State")
EXACT = 1e-13  # ||U F P|| relative to ||F|| at which a point counts as exact
LEAST_T = 1e-5  # of the singular values of T, relative to the largest of F: bounds the condition number of the result
SMALLEST_STEP = 1e-3  # share of a step under which halving ends
PROGRESS = 0.02  # change of the squared distance, relative, under which pulls end: 0.09 dB
_BLOCK = 256  # of a transposed copy


class Clock:
    """Whether the time is over: never without ``max_seconds``."""

    def __init__(self, max_seconds: float | None = None) -> None:
        self._end = np.inf if max_seconds is None else time.monotonic() + max_seconds

    def over(self) -> bool:
        """True from the end on."""
        return time.monotonic() > self._end


class Digits:
    """Progress of a search: the digits that a relative residual has lost, of those from its first value to the end."""

    def __init__(self, progress: Callable[[float], None] | None, end: float = 1e-9) -> None:
        self._progress, self._end, self._first, self._done = progress, end, 0.0, 0.0

    def tell(self, relative: float) -> None:
        """Reports the largest fraction so far."""
        self._first = self._first or max(relative, 10.0 * self._end)
        done = np.log(self._first / max(relative, self._end)) / np.log(self._first / self._end)
        self._done = float(np.clip(done, self._done, 1.0))
        if self._progress is not None:
            self._progress(self._done)


def inverse_of(A: Matrix) -> Matrix | None:
    """A^-1 of a symmetric positive definite A (n, n), which may be overwritten; None where it is not."""
    factorise, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (A,))
    factor, failed = factorise(A, lower=1, overwrite_a=1)
    if failed:
        return None
    inverse, failed = invert(factor, lower=1, overwrite_c=1)
    if failed:
        return None
    for start in range(0, len(inverse), _BLOCK):  # the upper triangle: np.tril would cost as much as the factorisation
        end = start + _BLOCK
        inverse[start:end, end:] = inverse[end:, start:end].T
        corner = inverse[start:end, start:end]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return np.asarray(inverse)


def shortened(
    ahead: Callable[[FloatArray], tuple[State, FloatArray]], before: FloatArray
) -> tuple[State, FloatArray, FloatArray]:
    """What a step leads to, its violations and lengths (m, 1): each 1, halved while the violation falls too little.

    ``ahead`` takes lengths to (what they lead to, violations). A full step has to take a tenth of ``before`` (m, 1), a
    shorter one its share of that; under ``SMALLEST_STEP`` any does.
    """
    length = np.ones_like(before)
    while True:
        state, violation = ahead(length)
        poor = (violation > (1.0 - 0.1 * length) * before) & (length > SMALLEST_STEP)
        if not poor.any():
            return state, violation, length
        length[poor] *= 0.5


def conjugate_gradients(
    product: Callable[[Float32Array], Float32Array],
    precondition: Callable[[Float32Array], Float32Array],
    R: FloatArray,
    tolerance: float,
    *,
    max_steps: int,
    separate: bool = False,
    clock: Clock | None = None,
) -> FloatArray:
    """M with product(M) = R to a relative ``tolerance``, or as far as steps and time allow, in float32.

    ``separate``: every row is a system of its own.
    """

    def dot(A: Float32Array, B: Float32Array) -> FloatArray:
        rows = np.einsum("ij,ij->i", A, B)[:, None].astype(np.float64)
        return np.asarray(rows if separate else rows.sum(axis=0, keepdims=True))

    size = np.abs(R).max(axis=1, keepdims=True) if separate else np.abs(R).max(keepdims=True)
    size = np.where(size > 0.0, size, 1.0)
    left = (R / size).astype(np.float32)  # float32 has no room for tiny residuals
    M = np.zeros_like(left)
    direction = Z = precondition(left)
    square = dot(left, Z)
    goal = tolerance**2 * square
    for _ in range(max_steps):
        image = product(direction)
        curvature = dot(direction, image)
        going = (square > goal) & (curvature > 0.0)  # no input moves features without curvature
        if not going.any() or (clock is not None and clock.over()):
            break
        length = np.where(going, square / np.where(going, curvature, 1.0), 0.0).astype(np.float32)
        M += length * direction
        left -= length * image
        Z = precondition(left)
        before, square = square, dot(left, Z)
        if not (square > goal).any():
            break
        direction = Z + np.where(going, square / np.where(going, before, 1.0), 0.0).astype(np.float32) * direction
    return np.asarray(size * M)
