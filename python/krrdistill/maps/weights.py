"""Random weight matrices, drawn once for as long as some map uses them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from krrdistill.common.random import Stream, normal
from krrdistill.errors import DataError

__all__ = ["cauchy_weight", "drawn_for_a_file", "gaussian_weight", "most_drawn", "student_weight"]

FloatArray = npt.NDArray[np.float64]
# A file that is read back in the process that wrote it rebuilds its map from the seed: the same matrix.
_drawn: WeakValueDictionary[tuple[object, ...], npt.NDArray[np.float32]] = WeakValueDictionary()
_LEFT: ContextVar[list[int] | None] = ContextVar("left", default=None)  # numbers that a file may still ask for
_LEAST = 1 << 16  # numbers that a matrix counts for, so that there are not too many of them either
_MOST, _MOST_FEATURES = 1 << 26, 1 << 16


def most_drawn(input_dim: int) -> int:
    """Random numbers that a file may ask for without having them: 2^26, or 2^16 features of its inputs."""
    return max(_MOST, _MOST_FEATURES * input_dim)


@contextmanager
def drawn_for_a_file(input_dim: int, stored: int) -> Iterator[None]:
    """Inside of the block weights are drawn because a file says so.

    Raises DataError, before it draws, for more than ``most_drawn`` and than the file has ``stored`` itself.
    """
    before = _LEFT.set([max(most_drawn(input_dim), stored)])
    try:
        yield
    finally:
        _LEFT.reset(before)


def _count(numbers: int) -> None:
    left = _LEFT.get()
    if left is None:
        return
    left[0] -= max(numbers, _LEAST)
    if left[0] < 0:
        raise DataError(
            f"map: a layer of {numbers} random numbers is beyond what a file may ask for; store the weights in it "
            "(embed_map=True, --embed-map)"
        )


def gaussian_weight(seed: int, stream: int, outputs: int, inputs: int, *, precision: float) -> npt.NDArray[np.float32]:
    """W (outputs, inputs) with W_ij ~ N(0, 1 / precision), rounded to float32, read-only."""
    return _weight(lambda: normal(seed, stream, outputs * inputs), "gaussian", seed, stream, outputs, inputs, precision)


def cauchy_weight(seed: int, outputs: int, inputs: int, *, precision: float) -> npt.NDArray[np.float32]:
    """W with W_ij ~ Cauchy(0, 1 / sqrt(precision)): the ratio of two normal numbers, which IEEE 754 rounds alike."""

    def draw() -> FloatArray:
        size = outputs * inputs
        return normal(seed, Stream.WEIGHTS, size) / normal(seed, Stream.SPECTRAL, size)

    return _weight(draw, "cauchy", seed, Stream.WEIGHTS, outputs, inputs, precision)


def student_weight(seed: int, outputs: int, inputs: int, *, freedom: int, precision: float) -> npt.NDArray[np.float32]:
    """W whose rows are multivariate t: normal rows times sqrt(freedom / chi^2), chi^2 the sum of freedom squares."""
    _count(outputs * freedom)

    def draw() -> FloatArray:
        squares = normal(seed, Stream.SPECTRAL, outputs * freedom).reshape(freedom, outputs) ** 2
        chi_square = np.zeros(outputs)
        for row in squares:  # one after the other: a fixed order, the same rounding everywhere
            chi_square += row
        rows = normal(seed, Stream.WEIGHTS, outputs * inputs).reshape(outputs, inputs)
        return np.ravel(rows * np.sqrt(freedom / chi_square)[:, None])

    return _weight(draw, f"student {freedom}", seed, Stream.WEIGHTS, outputs, inputs, precision)


def _weight(
    draw: Callable[[], FloatArray], law: str, seed: int, stream: int, outputs: int, inputs: int, precision: float
) -> npt.NDArray[np.float32]:
    """draw() / sqrt(precision) as float32 (outputs, inputs), remembered while it is in use."""
    _count(outputs * inputs)
    key = (law, int(seed), int(stream), outputs, inputs, float(precision))
    weight = _drawn.get(key)
    if weight is None:
        numbers = draw()
        numbers /= math.sqrt(precision)
        weight = numbers.reshape(outputs, inputs).astype(np.float32)
        weight.flags.writeable = False
        _drawn[key] = weight
    return weight
