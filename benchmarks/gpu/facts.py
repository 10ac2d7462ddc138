"""What was measured on: the GPU and its clocks, the driver, libraries, the host; no name of a machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess

import krrdistill as kd
from gpu.session import Session
from machine import machine_facts

__all__ = ["measure"]

_QUERY = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "power.limit",
    "memory.total",
)
_MORE = ("clocks.max.memory", "pcie.link.gen.max", "pcie.link.width.max")  # not every driver answers these
_PROPERTIES = ("major", "minor", "multi_processor_count", "total_memory", "L2_cache_size")
_LIBRARIES = ("torch", "cupy-cuda13x", "nvidia-cublas", "nvidia-cusolver", "jax", "pytest-xdist")
_TOOLS = ("nvidia-smi", "nvcc", "compute-sanitizer")
_SETTINGS = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_MODULE_LOADING", "OPENBLAS_NUM_THREADS")


def measure(session: Session) -> None:
    """All facts; each is kept before the next is asked for."""
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    backend = kd.backend_status()["cuda"]["detail"]
    session.keep(
        device="no GPU (emulated)" if session.emulated else _named(backend),
        backend=backend,
        versions=versions,
        machine=machine_facts(),
        settings={name: os.environ[name] for name in _SETTINGS if name in os.environ},
        missing=[name for name in _TOOLS if shutil.which(name) is None],
        gpu=_smi(),
    )
    session.keep(torch={"version": session.torch.__version__, "cuda": session.torch.version.cuda})
    if not session.emulated:
        session.keep(device=session.torch.cuda.get_device_name())
        properties = session.torch.cuda.get_device_properties(0)
        found = {name: getattr(properties, name) for name in _PROPERTIES if hasattr(properties, name)}
        session.keep(properties=found, multiprocessors=properties.multi_processor_count)
    print(session.results, flush=True)


def _named(backend: object) -> str:
    """The first device of the backend's status, which is a sentence where there is none."""
    devices = backend.get("devices") if isinstance(backend, dict) else None
    return str(devices[0]).rpartition(" (")[0] if devices else "unknown device"


def _smi() -> dict[str, str]:
    """What nvidia-smi tells of the first GPU; nothing where it is missing or hangs."""
    found: dict[str, str] = {}
    for names in (_QUERY, _MORE):
        command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=8)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"nvidia-smi: {error}", flush=True)
            break
        words = done.stdout.partition("\n")[0].split(",")
        found |= {name: word.strip() for name, word in zip(names, words, strict=False)}
    return found
