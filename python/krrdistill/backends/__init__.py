"""Backends by name; ``get_backend(None)`` is the first of ``BACKENDS`` that works, and says so if it is not native.

Data that is not in host memory decides too: it stays where it is, so its backend must be one that can work there. That
is "array", and for data on a CUDA device also "cuda", on that device.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from krrdistill.common.arrays import cuda_device, device_of, is_on_host
from krrdistill.common.native import load_native
from krrdistill.common.rows import RowSource
from krrdistill.common.threads import say_forked
from krrdistill.common.warning import warn
from krrdistill.errors import BackendUnavailable

from .base import Backend, Layer, MapStages, PackedGram, Products, ResidentGram, Weight, products_in
from .hadamard import HadamardWeight
from .operators import Linearization, Operator
from .reading import ReadingBackend
from .staged import StagedBackend

__all__ = [
    "BACKENDS",
    "Backend",
    "HadamardWeight",
    "Layer",
    "Linearization",
    "MapStages",
    "Operator",
    "PackedGram",
    "Products",
    "ResidentGram",
    "Weight",
    "backend_status",
    "get_backend",
    "products_in",
]

BACKENDS = ("native", "numba", "array", "cuda")
_PREFERENCE = ("native", "numba", "array")  # without a name: the first that works; a GPU is never taken unasked
_HOST_ONLY = ("native", "numba")
# --no-binary: where PyPI has no compiled wheel for a system it has a pure-Python one, which pip would take again.
_BUILD_REMEDY = (
    "install a C++20 compiler (Debian: apt-get install g++), then: "
    "pip install --force-reinstall --no-binary krrdistill krrdistill"
)
_NUMBA_REMEDY = 'pip install "krrdistill[numba]"'
# What takes over, and what it costs against native: pass and lambda path of CIFAR-100, FCNN (docs/guide/backends.md).
_FALLBACKS = {
    "numba": "using Numba instead: about 1.2 times slower, after 5 seconds of compilation once",
    "array": "using NumPy instead: about 2 times slower",
}


def get_backend(backend: Backend | str | None = None, *, data: Any = None) -> Backend:
    """Get a backend by name.

    Parameters
    ----------
    backend : str or Backend, optional
        Name of a backend; by default the first that works. A backend is returned as it is.
    data : array, optional
        Data that the backend is for. Data on a GPU stay there, and the backend is chosen accordingly.

    Returns
    -------
    Backend

    Raises
    ------
    BackendUnavailable
    ValueError
        For an unknown name.
    TypeError
        If it is neither, and for data on a device that the backend cannot use.
    """
    if isinstance(backend, str) and backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend is not None and not isinstance(backend, (str, Backend)):
        raise TypeError(f"backend must be a name or a Backend, got {backend!r}")
    say_forked()
    if isinstance(data, RowSource):
        return ReadingBackend(get_backend(backend))
    if data is not None and not is_on_host(data):
        name = backend if backend is None or isinstance(backend, str) else backend.name
        if name in _HOST_ONLY:
            raise TypeError(
                f"backend {name!r} takes arrays in host memory, the data is on {device_of(data)}; "
                "use backend='array', or copy the data to the host"
            )
        if name in (None, "array"):
            from .array import ArrayBackend

            return ArrayBackend(data)
        if backend == "cuda":
            return StagedBackend(_cuda(_cuda_index(data)))
    if backend is None:
        return _default()
    if not isinstance(backend, str):
        return backend
    loaded = _LOADERS[backend]()
    return loaded if backend == "array" else StagedBackend(loaded)


def _array() -> Backend:
    from .array import ArrayBackend

    return ArrayBackend()


def _numba() -> Backend:
    _numba_module()
    from .numba import NumbaBackend

    return NumbaBackend()


def _cuda(device: int = 0) -> Backend:
    from .cuda import shared_backend

    return shared_backend(device)


def _cuda_index(data: Any) -> int:
    index = cuda_device(data)
    if index is None:
        raise TypeError(
            f"backend 'cuda' takes arrays in host memory or on a CUDA device, the data is on {device_of(data)}; "
            "use backend='array', or copy the data to the host"
        )
    return index


def _native() -> Backend:
    _native_module()
    from .native import NativeBackend

    return NativeBackend()


_LOADERS = {"native": _native, "numba": _numba, "array": _array, "cuda": _cuda}


@functools.cache
def _default() -> Backend:
    missing = []
    for name in _PREFERENCE:
        try:
            backend = get_backend(name)
        except BackendUnavailable as error:
            missing.append(str(error))
        else:
            break
    if missing:
        warn(f"{'; '.join(missing)}; {_FALLBACKS[backend.name]}", RuntimeWarning)
    return backend


def _native_module() -> Any:
    try:
        return load_native()
    except ImportError as error:
        raise BackendUnavailable(f"the compiled backend is not usable ({error}); {_BUILD_REMEDY}") from error


def _numba_module() -> Any:
    try:
        return importlib.import_module("numba")
    except ImportError as error:
        raise BackendUnavailable(f"Numba is not usable ({error}); {_NUMBA_REMEDY}") from error


def backend_status() -> dict[str, dict[str, Any]]:
    """List the backends and whether they can be used in this installation.

    Returns
    -------
    dict
        For every name: ``available``, ``detail`` (facts, or why it is not available) and ``remedy`` (or None).
    """
    from .cuda import cuda_facts

    return {
        "native": _status(lambda: _native_module().build_facts(), _BUILD_REMEDY),
        "numba": _status(lambda: f"Numba {_numba_module().__version__}, compiles on first use", _NUMBA_REMEDY),
        "array": _status(lambda: "NumPy, and PyTorch or CuPy on their devices; no compiled code", None),
        "cuda": _status(cuda_facts, None),  # the reason names the remedy, which depends on it
    }


def _status(facts: Callable[[], Any], remedy: str | None) -> dict[str, Any]:
    try:
        return {"available": True, "detail": facts(), "remedy": None}
    except BackendUnavailable as error:
        return {"available": False, "detail": str(error), "remedy": remedy}
