"""The operations in C++/CUDA (csrc/cuda): fused kernels, cuBLAS and cuSOLVER; data in host memory or on the GPU."""

from __future__ import annotations

import importlib
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_choice, is_on_host, namespace_of
from krrdistill.errors import BackendUnavailable

from .array import ArrayBackend
from .base import FloatArray, IntArray, MapStages, Products, products_in
from .compiled import CompiledBackend
from .native import NativeBackend
from .tiles import device_tile_rows as tile_rows

__all__ = ["BUILD_REMEDY", "PRODUCTS", "CudaBackend", "cuda_facts", "shared_backend"]

BUILD_REMEDY = (
    'install the CUDA 13 toolkit (nvcc), then: pip install "krrdistill[cuda13]" && pip install --force-reinstall '
    "--no-deps --no-binary krrdistill krrdistill -C cmake.define.KRRDISTILL_CUDA=ON"
)
_DRIVER_REMEDY = "install NVIDIA driver 580 or newer (nvidia-smi shows the version)"
_CAPABILITY = (8, 0)
PRODUCTS = ("auto", "fp32", "tf32")


class CudaBackend(CompiledBackend):
    """GPU backend. Rows of data of any size stream through the device tile by tile, on two streams.

    X may be an array on this device: ``__dlpack__(stream=...)`` makes a stream of the backend wait for what the
    framework still does with it, and tiles are gathered from it on the device. Every operation returns when it is done,
    so that results are ready on every stream, and X may be changed.

    Parameters
    ----------
    device : int
        Index of the GPU.
    stream : int, optional
        Address of a ``cudaStream_t`` of this device, which must outlive the backend, or 1 or 2 for CUDA's legacy and
        per-thread default stream; without it, or with 0, a stream of its own.
    memory_budget : int, optional
        Bytes of device memory that an operation may take; without it, nine tenths of what is free when it starts.
    products : "auto", "fp32" or "tf32"
        "auto" takes integer tensor cores where they are exact (bytes under a map without layers) or as accurate as
        float32: the first layer on bytes, and G of float32 features, in slices of int8. Where a column's range makes
        slices less accurate, and with "fp32", float32 sums over at most 256 rows are added in float64. "tf32" takes
        TF32 tensor cores, which keep 10 bits of the mantissa, and raises the noise floor of the statistics.

    Raises
    ------
    BackendUnavailable
        If the module was not built, the driver is missing or too old, or there is no such device.
    DeviceError
        If CUDA fails; operations raise it too, and DeviceOutOfMemory.
    TypeError
        By operations, for X on another device.
    """

    def __init__(
        self, *, device: int = 0, stream: int | None = None, memory_budget: int | None = None, products: str = "auto"
    ) -> None:
        check_choice("CudaBackend", "products", products, PRODUCTS)
        if memory_budget is not None and memory_budget < 1:
            raise ValueError(f"CudaBackend: memory_budget must be at least 1 byte, got {memory_budget}")
        module = _load()
        _check_device(module.driver_facts(), device)
        operations = module.Device(
            device=device, stream=stream or 0, memory_budget=memory_budget or 0, products=products
        )
        self._integers = products == "auto"
        super().__init__("cuda (emulated)" if module.emulated else "cuda", module, operations)

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``; of X on the device it is there too, in memory that is not copied."""
        if is_on_host(X):
            return super().transform(feature_map, X, dtype=dtype, rows=rows)
        step = self._tile_rows(feature_map, dtype)
        made = self._operations.transform_there(self._map(feature_map, dtype), X, rows, step)
        return namespace_of(X).from_dlpack(made)

    def accumulate(
        self,
        feature_map: MapStages,
        X: Any,
        Y: npt.NDArray[Any],
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``; affine functions of bytes with the bits of the native backend.

        The device tells how it formed the products, and what it knows of their error.
        """
        if self._integers and not feature_map.layers and _is_bytes(X):
            dtype = np.dtype(np.float64)  # csrc/cuda/byte_statistics.cu, and faster than float32
        step = self._tile_rows(feature_map, dtype)
        arithmetic, bound = self._operations.accumulate(self._map(feature_map, dtype), X, rows, Y, gram, cross, step)
        plain = products_in(dtype)
        return plain._replace(rounding=max(plain.rounding, bound), arithmetic=arithmetic, bound=bound)

    def _tile_rows(self, feature_map: MapStages, dtype: np.dtype[Any]) -> int:
        return tile_rows(feature_map, dtype)

    def degrees_of_freedom(self, gram: FloatArray, lambdas: FloatArray) -> FloatArray:
        """On the host, where G is, by its native backend or else by NumPy, see ``Backend.degrees_of_freedom``."""
        return _host().degrees_of_freedom(gram, lambdas)


def _is_bytes(X: Any) -> bool:
    """Whether an array of any framework holds bytes."""
    return str(getattr(X, "dtype", "")).rpartition(".")[2] == "uint8"


def _host() -> NativeBackend | ArrayBackend:
    try:
        return NativeBackend()
    except ImportError:
        return ArrayBackend()


_shared: weakref.WeakValueDictionary[tuple[str, int], CudaBackend] = weakref.WeakValueDictionary()


def shared_backend(device: int) -> CudaBackend:
    """A backend on this device without options: the same one, with its streams and handles, while somebody has it."""
    key = (_load().__name__, device)
    backend = _shared.get(key)
    if backend is None:
        backend = _shared[key] = CudaBackend(device=device)
    return backend


def cuda_facts() -> dict[str, Any]:
    """``devices``, and the versions of ``driver`` and ``runtime``. Raises BackendUnavailable with the remedy."""
    module = _load()
    facts = dict(module.driver_facts())
    _check_device(facts, 0)
    names = [f"{d['name']} ({_version(d['compute_capability'])})" for d in facts["devices"]]
    shown = {"devices": names, "driver": _cuda(facts["driver"]), "runtime": _cuda(facts["runtime"])}
    return {**shown, "emulated": True} if module.emulated else shown


def _load() -> Any:
    try:
        return importlib.import_module("krrdistill._cuda")
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"the CUDA backend is not built ({error}); {BUILD_REMEDY}") from error
    except ImportError as error:
        remedy = 'pip install "krrdistill[cuda13]"'
        raise BackendUnavailable(f"the CUDA backend is built, but cannot be loaded ({error}); {remedy}") from error


def _check_device(facts: dict[str, Any], device: int) -> None:
    """Raises BackendUnavailable unless this device can run the module."""
    driver, runtime, devices = facts["driver"], facts["runtime"], facts["devices"]
    if driver == 0:
        raise BackendUnavailable(f"the CUDA backend is built, but no NVIDIA driver is loaded; {_DRIVER_REMEDY}")
    if driver // 1000 < runtime // 1000:
        found = f"the NVIDIA driver supports CUDA {_cuda(driver)}, this build needs {_cuda(runtime)}"
        raise BackendUnavailable(f"{found}; {_DRIVER_REMEDY}")
    if not devices:
        reason = facts["error"] or "none found"
        raise BackendUnavailable(f"no CUDA device is visible ({reason}); check nvidia-smi and CUDA_VISIBLE_DEVICES")
    if not 0 <= device < len(devices):
        raise BackendUnavailable(f"CUDA device {device} does not exist: there are {len(devices)}; choose another one")
    capability = tuple(devices[device]["compute_capability"])
    if capability < _CAPABILITY:
        found = f"CUDA device {device} ({devices[device]['name']}) has compute capability {_version(capability)}"
        raise BackendUnavailable(f"{found}, this build needs {_version(_CAPABILITY)}; choose another one")


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _version(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
