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
    """Data that can be used and may not mean what the user thinks; the message says how they were taken."""


class ResultWarning(UserWarning):
    """A result that may be worse than it need be; the message says why and what to change."""


class NotExactWarning(ResultWarning):
    """Points that do not retrain to the model as well as their storage allows."""


class BackendUnavailable(KrrDistillError, ImportError):  # noqa: N818 - the name that users read
    """A backend was asked for that this installation cannot provide; the message says how to get it."""


class NotPositiveDefinite(KrrDistillError, ArithmeticError):  # noqa: N818
    """A Cholesky factorisation met a pivot that is not positive: raise lambda or the precision."""


class NotSurjective(KrrDistillError, ValueError):  # noqa: N818
    """The feature map has no exact preimage for arbitrary features (p > d, or rank-deficient weights)."""


class LambdaOutOfRange(KrrDistillError, ValueError):  # noqa: N818
    """lambda_s is beyond the bound 1 / (4 s1^2) of Theorem 4.1."""


class Diverged(KrrDistillError, ArithmeticError):  # noqa: N818
    """An iteration left the numbers that its loss can have; the message says what to change."""


class DeviceError(KrrDistillError, RuntimeError):
    """A call of CUDA, cuBLAS or cuSOLVER failed; the message names it and says why."""


class DeviceOutOfMemory(KrrDistillError, MemoryError):  # noqa: N818
    """The memory of a device, or the budget for it, is too small; the message shows both."""
