"""phi(x) = x: linear ridge regression on the inputs themselves."""

from __future__ import annotations

from typing import ClassVar

from krrdistill.common.arrays import check_count

from .base import LayeredMap

__all__ = ["Identity"]


class Identity(LayeredMap):
    """phi(x) = x, p = d. Every feature vector is its own preimage."""

    kernel: ClassVar[str] = "identity"

    def __init__(self, input_dim: int) -> None:
        super().__init__(check_count("Identity", "input_dim", input_dim), (), {})
