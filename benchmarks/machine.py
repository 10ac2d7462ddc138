"""Facts about the machine and its software, to stand beside every public figure."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import threadpoolctl

import krrdistill as kd


def machine_facts() -> dict[str, Any]:
    """CPU, cores, BLAS, threads, instruction set, compiler and versions."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    native = kd.backend_status()["native"]["detail"]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "blas": sorted({f"{pool['internal_api']} {pool['version']} {pool['architecture']}" for pool in pools}),
        "threads": max((int(pool["num_threads"]) for pool in pools), default=1),
        "native": native,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "krrdistill": kd.__version__,
    }


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
