"""Backends by name; ``get_backend(None)`` is the compiled one, or plain NumPy (with a warning) without it."""

from __future__ import annotations

import functools
import warnings
from typing import Any

from krrdistill.compiled import load_native
from krrdistill.errors import BackendUnavailable

from .base import Backend, Chain, Layer

__all__ = ["BACKENDS", "Backend", "Chain", "Layer", "backend_status", "get_backend"]

BACKENDS = ("native", "array")
_BUILD_REMEDY = "install a C++20 compiler (Debian: apt-get install g++), then: pip install --force-reinstall krrdistill"


def get_backend(backend: Backend | str | None = None) -> Backend:
    """The backend called ``backend`` (or itself, if it is one already). Raises BackendUnavailable, ValueError."""
    if backend is None:
        return _default()
    if not isinstance(backend, str):
        return backend
    if backend == "array":
        from .array import ArrayBackend

        return ArrayBackend()
    if backend == "native":
        _native_module()
        from .native import NativeBackend

        return NativeBackend()
    raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")


@functools.cache
def _default() -> Backend:
    try:
        return get_backend("native")
    except BackendUnavailable as error:
        warnings.warn(f"{error}; using NumPy instead, several times slower", RuntimeWarning, stacklevel=3)
        return get_backend("array")


def _native_module() -> Any:
    try:
        return load_native()
    except ImportError as error:
        raise BackendUnavailable(f"the compiled backend is not usable ({error}); {_BUILD_REMEDY}") from error


def backend_status() -> dict[str, dict[str, Any]]:
    """For each backend: ``available``, ``detail`` (facts, or the reason) and ``remedy`` (or None)."""
    status: dict[str, dict[str, Any]] = {}
    try:
        facts = _native_module().build_facts()
        status["native"] = {"available": True, "detail": facts, "remedy": None}
    except BackendUnavailable as error:
        status["native"] = {"available": False, "detail": str(error), "remedy": _BUILD_REMEDY}
    status["array"] = {"available": True, "detail": "NumPy, no compiled code", "remedy": None}
    return status
