"""The compiled module, loaded in a way that keeps its idle threads from taking cores away from BLAS."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__all__ = ["MOST_THREADS", "load_native"]

# GCC's OpenMP lets idle threads spin for milliseconds after every loop. BLAS has threads of its own and would share
# the cores with them: on 2 cores the MNIST pass took 0.44 s (identity) and 0.83 s (random Fourier) with spinning,
# 0.21 s and 0.60 s without. The runtime reads its settings once, when it is loaded.
_WAITING = {"GOMP_SPINCOUNT": "0"}
_CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
MOST_THREADS = 1024  # OpenMP keeps its books of a team on the stack: 100,000 threads end the process
_THREADS = "OMP_NUM_THREADS"


def load_native() -> Any:
    """``krrdistill._native``; raises ImportError where it was not built. The environment is left as it was."""
    found = sys.modules.get("krrdistill._native")
    if found is not None:
        return found
    settings = {} if any(name in os.environ for name in _CHOSEN_BY_USER) else dict(_WAITING)
    threads = os.environ.get(_THREADS, "").partition(",")[0].strip()
    if threads.isdecimal() and int(threads) > MOST_THREADS:
        settings[_THREADS] = str(MOST_THREADS)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        return importlib.import_module("krrdistill._native")
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
