"""Where the arrays of a run lie: in host memory under NumPy, or on a device under PyTorch.

The formulas of a step are written once, over the operations that both share; a place moves arrays, and waits for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import to_host
from krrdistill.errors import BackendUnavailable, DeviceOutOfMemory

from .iteration import KipOptions

__all__ = ["HostPlace", "Place", "TorchPlace", "place_of", "require_torch"]

Array = npt.NDArray[Any]
_OVERRIDE = "NVIDIA_TF32_OVERRIDE"  # cuBLAS obeys it whatever PyTorch asks for


def require_torch(what: str, instead: str) -> Any:
    """The module ``torch``. Raises BackendUnavailable: ``what`` needs it, how to install it, what does ``instead``."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(f"kip: {what} needs PyTorch ({error}): pip install torch; {instead}") from error
    return torch


class HostPlace:
    """Host memory, NumPy."""

    name = "cpu"

    def put(self, array: Array) -> Any:
        """A NumPy array as an array of this place."""
        return array

    def take(self, array: Any) -> Array:
        """A copy of an array of this place in host memory."""
        return np.array(to_host("kip", "array", array))

    def synchronize(self) -> None:
        """Waits until the device is done; before every look at the clock."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """In the block the arithmetic of this place is as was asked for."""
        yield

    def facts(self) -> dict[str, str]:
        """Device and library, for the record of a run."""
        return {"device": self.name, "numpy": np.__version__}


class TorchPlace(HostPlace):
    """A device of PyTorch.

    Parameters
    ----------
    device : "cpu", "cuda" (PyTorch's current one) or "cuda:N"
    tf32 : whether float32 products may use TF32, which keeps 10 bits of the mantissa

    Raises
    ------
    BackendUnavailable
        If PyTorch or the device is missing.
    """

    def __init__(self, device: str = "cpu", *, tf32: bool = False) -> None:
        what = "variant 'published'" if device == "cpu" else f"device {device!r}"
        self._torch = torch = require_torch(what, "variant 'gram' on the CPU does without")
        self._cuda = device != "cpu"
        self._tf32 = tf32
        if self._cuda:
            device = _cuda_device(torch, device)
        self.name = device

    def put(self, array: Array) -> Any:
        """A copy on the device."""
        return self._torch.tensor(array, device=self.name)

    def synchronize(self) -> None:
        """Waits until the device is done; before every look at the clock."""
        if self._cuda:
            self._torch.cuda.synchronize(self.name)

    @contextmanager
    def active(self) -> Iterator[None]:
        """In the block TF32 is on or off, as was asked for. Raises DeviceOutOfMemory where memory is short."""
        torch = self._torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self._tf32 else "highest")
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).partition(". GPU")[0]
            raise DeviceOutOfMemory(
                f"kip: {self.name} has too little memory ({reason}); take fewer points per class, a smaller map, or "
                "variant 'gram', whose memory does not grow with the data"
            ) from error
        finally:
            torch.set_float32_matmul_precision(before)

    def facts(self) -> dict[str, str]:
        """Device, library and its arithmetic, for the record of a run."""
        found = {"device": self.name, "torch": str(self._torch.__version__)}
        if self._cuda:
            forced = os.environ.get(_OVERRIDE)
            found["gpu"] = self._torch.cuda.get_device_name(self.name)
            found["tf32"] = "on" if self._tf32 else "off"
            if forced is not None:
                found["tf32"] += f", but {_OVERRIDE}={forced}"
        return found


Place = HostPlace  # a device offers the same


def place_of(options: KipOptions) -> Place:
    """Where a run with these options takes its steps. Raises BackendUnavailable if that is not to be had."""
    if options.device == "cpu" and options.variant == "gram":
        return HostPlace()
    place = TorchPlace(options.device, tf32=options.tf32)
    if options.backend == "cuda" and place.name != "cuda:0":
        raise ValueError(
            f"kip: backend 'cuda' works on cuda:0, device is {place.name}; set CUDA_VISIBLE_DEVICES and pass "
            "device='cuda', or leave backend out"
        )
    return place


def _cuda_device(torch: Any, device: str) -> str:
    """The name with its number. Raises BackendUnavailable where there is no such device."""
    if torch.version.cuda is None:
        raise BackendUnavailable(
            f"kip: device {device!r} needs PyTorch with CUDA, this is {torch.__version__}: install the one for your "
            "system from https://pytorch.org; device 'cpu' does without"
        )
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            f"kip: device {device!r}: PyTorch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU; check "
            "nvidia-smi and CUDA_VISIBLE_DEVICES; device 'cpu' does without"
        )
    number = device.partition(":")[2]
    index = int(number) if number else torch.cuda.current_device()
    count = torch.cuda.device_count()
    if index >= count:
        raise BackendUnavailable(f"kip: device {device!r} does not exist: PyTorch sees {count}; choose another one")
    return f"cuda:{index}"
