"""Exceptions of krrdistill. Each also derives from the built-in kind that a caller would expect."""

from __future__ import annotations

__all__ = [
    "BackendUnavailable",
    "DataError",
    "DataWarning",
    "DeviceError",
    "DeviceOutOfMemory",
    "Diverged",
    "KrrDistillError",
    "LambdaOutOfRange",
    "NotExactWarning",
    "NotPositiveDefinite",
    "NotSurjective",
    "ResultWarning",
]


class KrrDistillError(Exception):
    """Base of every exception that krrdistill raises on purpose."""


class DataError(KrrDistillError, ValueError):
    """Data or a file that cannot be used: unreadable, truncated, NaN, wrong shape, labels out of range."""


class DataWarning(UserWarning):
    """The data are usable but ambiguous. The message says how they were interpreted."""


class ResultWarning(UserWarning):
    """The result is probably worse than it could be. The message says why, and what to change."""


class NotExactWarning(ResultWarning):
    """The distilled set is less exact than its number format allows."""


class BackendUnavailable(KrrDistillError, ImportError):  # noqa: N818 - the name that users read
    """The backend or optional library is not available in this installation. The message says how to install it."""


class NotPositiveDefinite(KrrDistillError, ArithmeticError):  # noqa: N818
    """A matrix is not positive definite (Cholesky factorisation failed): raise lambda or the precision."""


class NotSurjective(KrrDistillError, ValueError):  # noqa: N818
    """The feature map has no exact preimage for arbitrary features (p > d, or rank-deficient weights)."""


class LambdaOutOfRange(KrrDistillError, ValueError):  # noqa: N818
    """lambda_s exceeds the bound 1 / (4 s1^2) of Theorem 4.1, beyond which no exact set exists."""


class Diverged(KrrDistillError, ArithmeticError):  # noqa: N818
    """An optimisation diverged. The message says what to change."""


class DeviceError(KrrDistillError, RuntimeError):
    """A call of CUDA, cuBLAS or cuSOLVER failed; the message names it and says why."""


class DeviceOutOfMemory(KrrDistillError, MemoryError):  # noqa: N818
    """The memory of a device, or the budget for it, is too small; the message shows both."""
