"""phi(x) = x: linear ridge regression on the inputs themselves."""

from __future__ import annotations

from typing import ClassVar

from krrdistill.common.arrays import check_count
from krrdistill.data import Preprocessing

from .base import FeatureMap

__all__ = ["Identity"]


class Identity(FeatureMap):
    """phi(x) = x with p = d: ridge regression on the inputs. Every feature vector is its own preimage.

    Parameters
    ----------
    input_dim : int
        d.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs; by default none.
    """

    kernel: ClassVar[str] = "identity"

    def __init__(self, input_dim: int, *, preprocessing: Preprocessing | None = None) -> None:
        super().__init__(check_count("Identity", "input_dim", input_dim), preprocessing=preprocessing)
