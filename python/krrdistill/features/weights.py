"""Gaussian weight matrices, drawn once for as long as some map uses them."""

from __future__ import annotations

import math
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from krrdistill.random import normal

__all__ = ["gaussian_weight"]

# A file that is read back in the process that wrote it rebuilds its map from the seed: the same matrix.
_drawn: WeakValueDictionary[tuple[int, int, int, int, float], npt.NDArray[np.float32]] = WeakValueDictionary()


def gaussian_weight(seed: int, stream: int, outputs: int, inputs: int, *, precision: float) -> npt.NDArray[np.float32]:
    """W (outputs, inputs) with W_ij ~ N(0, 1 / precision), rounded to float32, read-only."""
    key = (int(seed), int(stream), outputs, inputs, float(precision))
    weight = _drawn.get(key)
    if weight is None:
        numbers = normal(seed, stream, outputs * inputs)
        numbers /= math.sqrt(precision)
        weight = numbers.reshape(outputs, inputs).astype(np.float32)
        weight.flags.writeable = False
        _drawn[key] = weight
    return weight
