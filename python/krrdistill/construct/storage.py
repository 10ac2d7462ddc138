"""How inputs are stored: float64, float32, or in two or one bytes a number.

Compact storage keeps a code per number and two numbers per sample: x = scale code + offset.
    float16   scale = 2^e with |x| <= 2^e, offset = 0: eleven bits of every number, whatever the size of the inputs
    uint8     offset = min x, scale = (max x - min x) / 255: 256 levels between the extremes of each sample
Labels are learned again from the rounded inputs (Theorem 4.2); what rounding costs is in the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_choice
from krrdistill.errors import DataError
from krrdistill.options import STORES

__all__ = ["Encoding", "round_inputs"]

FloatArray = npt.NDArray[np.float64]
_COMPACT = ("float16", "uint8")
_LEVELS = 255.0


@dataclass(frozen=True, eq=False)
class Encoding:
    """x = scale code + offset, one scale > 0 and one offset per sample: float64 (m,); codes of dtype ``store``.

    Raises DataError for anything else.
    """

    store: str
    scale: FloatArray
    offset: FloatArray

    def __post_init__(self) -> None:
        if self.store not in _COMPACT:
            raise DataError(f"encoding: codes must be {' or '.join(_COMPACT)}, got {self.store}")
        for name in ("scale", "offset"):
            array = getattr(self, name)
            if array.dtype != np.float64 or array.shape != (len(self.scale),) or not np.isfinite(array).all():
                raise DataError(
                    f"encoding: X_{name} must be finite float64 of shape (m,), got {array.dtype} {array.shape}"
                )
        if not (self.scale > 0.0).all():
            raise DataError(f"encoding: X_scale must be positive, got {self.scale.min():.3g}")

    @staticmethod
    def of(X: FloatArray, store: str) -> Encoding:
        """The encoding for inputs X (m, d)."""
        if store == "float16":
            exponent = np.ceil(np.log2(np.maximum(np.abs(X).max(axis=1), np.finfo(np.float64).tiny)))
            return Encoding(store, np.exp2(exponent), np.zeros(len(X)))
        low, high = X.min(axis=1), X.max(axis=1)
        return Encoding(store, np.where(high > low, (high - low) / _LEVELS, 1.0), low)

    def encode(self, X: FloatArray) -> npt.NDArray[Any]:
        """Codes (m, d) of inputs; exact for inputs that ``decode`` gave."""
        codes = (X - self.offset[:, None]) / self.scale[:, None]
        return np.clip(np.rint(codes), 0.0, _LEVELS).astype(np.uint8) if self.store == "uint8" else codes.astype("f2")

    def decode(self, codes: npt.NDArray[Any]) -> FloatArray:
        """Inputs (m, d) in float64."""
        if codes.dtype != self.store or len(codes) != len(self.scale):
            expected = f"{self.store} with {len(self.scale)} rows"
            raise DataError(f"encoding: X is {codes.dtype} of shape {codes.shape}, expected {expected}")
        return np.asarray(codes.astype(np.float64) * self.scale[:, None] + self.offset[:, None])


def round_inputs(X: FloatArray, store: str) -> tuple[npt.NDArray[Any], Encoding | None]:
    """(inputs after rounding, how they are stored); float64 and float32 are stored as they are, without an encoding."""
    check_choice("round_inputs", "store", store, STORES)
    if store in _COMPACT:
        encoding = Encoding.of(X, store)
        return encoding.decode(encoding.encode(X)), encoding
    return X.astype(store, copy=False), None
