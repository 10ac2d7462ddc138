"""Gaussian noise on a grid of integers, whose privacy holds in the numbers that a computer has.

Noise in floating point gives data away by its last bits (Mironov, CCS 2012). Here numbers are rounded to multiples of a
power of two, and OpenDP adds discrete Gaussian noise to these integers, exactly (Canonne, Kamath, Steinke, NeurIPS
2020), from the randomness of the operating system; there is no seed. What follows is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.privacy.budget import PrivacyBudget
from krrdistill.errors import BackendUnavailable, DataError

__all__ = ["ROUNDING", "SECONDS_PER_NUMBER", "SLACK", "Part", "grid_step", "noisy", "opendp"]

FloatArray = npt.NDArray[np.float64]
ROUNDING = 2.0**-20  # what rounding to the grid may add to a sensitivity, relative to it
SLACK = 1e-6  # of epsilon and delta, kept back for the difference of discrete and continuous noise
SECONDS_PER_NUMBER = 4e-5  # OpenDP 0.16, one thread, AMD EPYC
_LARGEST = 2.0**62
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Part:
    """Numbers (any shape) that get noise of one deviation, on the grid of multiples of ``step``."""

    values: FloatArray
    step: float
    deviation: float


def opendp() -> Any:
    """OpenDP. Raises BackendUnavailable where it is not installed."""
    try:
        import opendp.prelude as library
    except ImportError as error:
        remedy = f'privacy: a private release needs OpenDP ({error}): pip install "krrdistill[privacy]"'
        raise BackendUnavailable(remedy) from error
    library.enable_features("contrib")  # where OpenDP keeps all of its noise
    return library


def grid_step(sensitivity: float, count: int, unit: float = 1.0) -> float:
    """The largest power of two g, in numbers of this unit, with (g / unit) sqrt(count) <= ROUNDING sensitivity.

    Rounding moves each of ``count`` numbers by g / 2 at most, of either data set: their distance grows by g sqrt(count)
    at most.
    """
    return math.ldexp(0.5, math.frexp(ROUNDING * sensitivity * unit / math.sqrt(count))[1])


def noisy(
    parts: Sequence[Part], budget: PrivacyBudget, *, progress: Callable[[float], None] | None = None
) -> list[FloatArray]:
    """step (round(values / step) + Z) of every part, Z discrete Gaussian of deviation / step.

    Raises DataError where the grid is too coarse for epsilon and delta.
    """
    library, done, total = opendp(), 0, sum(part.values.size for part in parts)
    _check_grid(budget, total, min(part.deviation / part.step for part in parts))
    integers = library.vector_domain(library.atom_domain(T="i64")), library.l2_distance(T="f64")
    results = []
    for part in parts:
        add_noise = library.m.make_gaussian(*integers, scale=part.deviation / part.step)
        exact = np.clip(np.rint(part.values.ravel() / part.step), -_LARGEST, _LARGEST).astype(np.int64)
        drawn = np.empty(exact.size)
        for start in range(0, exact.size, _CHUNK):
            chunk = exact[start : start + _CHUNK]
            drawn[start : start + _CHUNK] = add_noise(chunk.tolist())
            done += chunk.size
            if progress is not None:
                progress(done / total)
        results.append(part.step * drawn.reshape(part.values.shape))
    return results


def _check_grid(budget: PrivacyBudget, count: int, scale: float) -> None:
    """That SLACK is enough, see docs/explanation/private-noise.md, "From continuous to discrete noise".

    Discrete noise P and rounded continuous noise R have P <= e^a R everywhere, and R <= e^b P but for events of
    probability e^-x under R.
    """
    x = budget.epsilon + math.log(1e7 / budget.delta)
    a, b = (terms / (24.0 * scale * scale) for terms in (count, 5.0 * count + 6.0 * x))
    if scale < 2.0 or a > 0.5 * SLACK or a + b > SLACK * budget.epsilon:
        raise DataError(
            f"privacy: epsilon {budget.epsilon:g} and delta {budget.delta:g} are too extreme for the grid of the noise "
            f"(its deviation is {scale:.3g} steps): take an epsilon nearer to 1"
        )
