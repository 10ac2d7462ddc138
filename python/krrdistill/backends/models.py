"""The models of a lambda path: an array, or a stack that is on a device, or not there before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["ModelStack", "Models", "models_on_host"]

FloatArray = npt.NDArray[np.float64]


class ModelStack:
    """Models (L, k, p) in float64 that are no array yet, NaN where there is none; ``np.asarray`` makes it one.

    It does what an array of them does where only the result is copied: an index, iteration, and ``@`` with a vector.
    Pickled and copied it is an array.

    Parameters
    ----------
    handle : Any
        A ``ModelStack`` of a compiled module, for models on a device, or ``BandModels``, which makes them when asked.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, k, p)."""
        models, k, p = self.handle.shape
        return models, k, p

    def __len__(self) -> int:
        """L."""
        return self.shape[0]

    def __iter__(self) -> Iterator[FloatArray]:
        """The models, copied one by one."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> FloatArray:
        """A copy of rows: any NumPy index into the first two axes."""
        models, k, p = self.shape
        rows = np.asarray(np.arange(models * k, dtype=np.int64).reshape(models, k)[key])
        out = np.empty((rows.size, p))
        self.handle.download(rows.ravel(), out)
        return out.reshape(*rows.shape, p)

    def __matmul__(self, vector: FloatArray) -> FloatArray:
        """W v for every model, shape (L, k)."""
        out = np.empty(self.shape[:2])
        self.handle.multiply(np.ascontiguousarray(vector, dtype=np.float64), out)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """A copy of all models."""
        if copy is False:
            raise ValueError("models on a device become an array only by a copy")
        return self[:] if dtype is None else self[:].astype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """As an array."""
        return np.asarray, (self[:],)


Models: TypeAlias = FloatArray | ModelStack


def models_on_host(models: Any) -> Any:
    """A ``ModelStack`` as an array, zero where there is no model; arrays as they are."""
    return np.nan_to_num(np.asarray(models), copy=False) if isinstance(models, ModelStack) else models
