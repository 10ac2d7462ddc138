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

_QUERY = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.max.memory", "power.limit", "memory.total")
_LIBRARIES = ("torch", "cupy-cuda13x", "nvidia-cublas", "nvidia-cusolver", "jax")
_SETTINGS = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_MODULE_LOADING", "OPENBLAS_NUM_THREADS")


def measure(session: Session) -> None:
    """All facts."""
    gpu: dict[str, str] = {}
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        if done.returncode == 0 and done.stdout:
            gpu = dict(zip(_QUERY, (word.strip() for word in done.stdout.splitlines()[0].split(",")), strict=True))
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    backend = kd.backend_status()["cuda"]["detail"]
    session.keep(
        gpu=gpu,
        device="no GPU (emulated)" if session.emulated else session.torch.cuda.get_device_name(),
        versions=versions,
        backend=backend,
        machine=machine_facts(),
        settings={name: os.environ[name] for name in _SETTINGS if name in os.environ},
    )
    session.keep(torch={"version": session.torch.__version__, "cuda": session.torch.version.cuda})
    if not session.emulated:
        properties = session.torch.cuda.get_device_properties(0)
        session.keep(multiprocessors=properties.multi_processor_count, memory_bytes=properties.total_memory)
    print(session.results, flush=True)
