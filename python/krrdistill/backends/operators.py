"""Layers that no backend has a kernel for: they run in Python, and the backend takes their outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Linearization", "Operator"]

AnyArray = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


class Linearization(NamedTuple):
    """A map at some inputs X (m, d): its value (m, p) and products with its Jacobian, row by row."""

    value: FloatArray
    forward: Callable[[FloatArray], FloatArray]  # (m, d) -> (m, p)
    backward: Callable[[FloatArray], FloatArray]  # (m, p) -> (m, d), the transposed of forward


class Operator(ABC):
    """Takes the place of W in act(W h + b); need not be linear. Rows of a batch do not depend on each other."""

    @property
    def title(self) -> str | None:
        """What messages call it; None for the number of its layer."""
        return None

    @property
    def obstacle(self) -> str | None:
        """Why there is no exact preimage of everything; None where there is one."""
        return None

    @property
    def differentiable(self) -> bool:
        """Whether ``linearize`` works."""
        return True

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs), as of a dense weight."""

    @abstractmethod
    def apply(self, H: AnyArray) -> AnyArray:
        """(n, inputs) -> (n, outputs) in the precision of H."""

    @abstractmethod
    def linearize(self, H: FloatArray) -> Linearization:
        """Value and derivative at H (m, inputs). Called where ``differentiable``."""

    @abstractmethod
    def preimage(self, T: FloatArray, near: FloatArray) -> FloatArray:
        """X (m, inputs) with apply(X) = T, near ``near`` (m or 1, inputs) where there is a choice."""

    @abstractmethod
    def arrays(self) -> dict[str, AnyArray]:
        """What decides the operator, by the names of the file format."""
