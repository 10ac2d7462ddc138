"""Facts about the machine and its software, to stand beside every public figure."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
import scipy.linalg.cython_blas  # the BLAS that the package calls must be loaded to be seen
import threadpoolctl

import krrdistill as kd
from krrdistill.apps.info import cpu_model


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory, BLAS, threads, instruction set, compiler and versions."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    native = kd.backend_status()["native"]["detail"]
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "blas": sorted({f"{pool['internal_api']} {pool['version']} {pool['architecture']}" for pool in pools}),
        "blas_asked": os.environ.get("OPENBLAS_CORETYPE"),
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
    blas = ", ".join(facts["blas"])
    blas += f" (OPENBLAS_CORETYPE={facts['blas_asked']})" if facts.get("blas_asked") else ""
    core = native if isinstance(native, str) else f"{native['isa']}, {native['compiler']}"
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} BLAS thread(s), {blas}; "
        f"compiled core: {core}; krrdistill {facts['krrdistill']}, Python {facts['python']}, NumPy {facts['numpy']}, "
        f"SciPy {facts['scipy']}"
    )


def measured_on(rows: Sequence[Mapping[str, Any]], name: Callable[[Any], object]) -> str:
    """What stands under a table: the machine of its rows, or each with the rows that were measured on it."""
    machines: dict[str, dict[str, None]] = {}
    for row in rows:
        machines.setdefault(row["machine"], {})[str(name(row))] = None
    if len(machines) == 1:
        return f"Measured on: {next(iter(machines))}."
    listed = "\n".join(f"* {', '.join(names)}: {machine}." for machine, names in machines.items())
    return f"Measured in several sessions, which may be of different versions of the code:\n\n{listed}"


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return round(total / 2**30, 1)
