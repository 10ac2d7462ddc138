"""What this installation can do, and how to get what it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from krrdistill._version import __version__

EXTRAS = {
    "cli": ("typer", "rich", "yaml", "matplotlib", "PIL", "jinja2", "sklearn"),
    "data": ("narwhals", "pyarrow", "PIL"),
    "download": ("pooch",),
    "numba": ("numba",),
    "privacy": ("opendp",),
    "sklearn": ("sklearn",),
}


def gather() -> dict[str, Any]:
    """Facts about this installation, JSON-able.

    Keys: ``version``, ``python``, ``platform``, ``numpy``, ``scipy``, ``backends`` (name -> available,
    detail, remedy), ``blas`` (one entry per loaded library), ``cpus`` and ``usable_cpus``, ``extras``
    (name -> available, missing, install) and ``torch`` (available, detail, install).
    """
    import numpy
    import scipy

    from krrdistill.backends import backend_status

    return {
        "version": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": _platform(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "backends": {name: dict(facts) for name, facts in backend_status().items()},
        "blas": _blas(),
        "cpus": os.cpu_count(),
        "usable_cpus": _usable_cpus(),
        "extras": {name: _extra(name, modules) for name, modules in EXTRAS.items()},
        "torch": _torch(),
    }


def machine(threads: int | None) -> dict[str, str]:
    """What the time of a run depends on, in words; ``threads`` are those asked for."""
    from krrdistill.backends.cuda import math_overrides

    isa, overrides = _instruction_set(), math_overrides()
    pools = {" ".join(filter(None, (pool["library"], pool["version"], pool["architecture"]))) for pool in _blas()}
    return {
        "platform": _platform(),
        "CPUs": f"{cpu_model()}, {_usable_cpus()} usable of {os.cpu_count()}",
        "threads": "all" if threads is None else str(threads),
        "BLAS": ", ".join(sorted(pools)),
        **({} if isa is None else {"instruction set": isa}),
        **({} if not overrides else {"CUDA arithmetic": ", ".join(overrides)}),
    }


def _instruction_set() -> str | None:
    """What the compiled module runs on here; None where there is none."""
    try:
        from krrdistill import _native
    except ImportError:
        return None
    return str(_native.build_facts()["isa"])


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def cpu_model() -> str:
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


def _blas() -> list[dict[str, Any]]:
    """Every BLAS and OpenMP runtime in this process: NumPy's and SciPy's may differ."""
    import scipy.linalg  # noqa: F401 - loads SciPy's BLAS, so that it is seen
    from threadpoolctl import threadpool_info

    return [
        {
            "library": pool.get("internal_api"),
            "kind": pool.get("user_api"),
            "version": pool.get("version"),
            "architecture": pool.get("architecture"),
            "threads": pool.get("num_threads"),
            "file": os.path.basename(pool.get("filepath") or ""),
        }
        for pool in threadpool_info()
    ]


def _usable_cpus() -> int | None:
    """CPUs that this process may run on, which a container or taskset can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _torch() -> dict[str, Any]:
    """PyTorch, which KIP as published or on a GPU and ``krrdistill.interop.torch`` use; looked up, not imported."""
    available = importlib.util.find_spec("torch") is not None
    detail = (
        importlib.metadata.version("torch")
        if available
        else "kip --variant published, kip --device cuda and krrdistill.interop.torch need it"
    )
    return {"available": available, "detail": detail, "install": "pip install torch"}


def _extra(name: str, modules: tuple[str, ...]) -> dict[str, Any]:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return {"available": not missing, "missing": missing, "install": f'pip install "krrdistill[{name}]"'}
