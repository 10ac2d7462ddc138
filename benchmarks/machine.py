"""Facts about the machine and its software, to stand beside every public figure."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.linalg.cython_blas  # the BLAS that the package calls must be loaded to be seen
import threadpoolctl

import krrdistill as kd


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory, BLAS, threads, instruction set, compiler and versions."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    native = kd.backend_status()["native"]["detail"]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "blas": sorted({f"{pool['internal_api']} {pool['version']} {pool['architecture']}" for pool in pools}),
        "threads": blas_threads(),
        "native": native,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "krrdistill": kd.__version__,
    }


def blas_threads() -> int:
    """Threads of the largest BLAS pool in this process."""
    pools = threadpoolctl.threadpool_info()
    return max((int(pool["num_threads"]) for pool in pools if pool["user_api"] == "blas"), default=1)


def one_line(facts: dict[str, Any]) -> str:
    """The facts as one sentence."""
    native = facts["native"]
    core = native if isinstance(native, str) else f"{native['isa']}, {native['compiler']}"
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} BLAS thread(s), {', '.join(facts['blas'])}; "
        f"compiled core: {core}; krrdistill {facts['krrdistill']}, Python {facts['python']}, NumPy {facts['numpy']}, "
        f"SciPy {facts['scipy']}"
    )


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return round(total / 2**30, 1)


def _cpu_model() -> str:
    """Model name and the widest vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    flags = names.get("flags", "").split()
    widest = next((flag for flag in ("amx_tile", "avx512f", "avx2") if flag in flags), "")
    return f"{names.get('model name', 'unknown')} ({widest})"
