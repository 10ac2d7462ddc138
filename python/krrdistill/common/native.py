"""The compiled module, loaded in a way that keeps its idle threads from taking cores away from BLAS."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["load_native"]

# GCC's OpenMP lets idle threads spin for milliseconds after every loop. BLAS has threads of its own and would share
# the cores with them: on 2 cores the MNIST pass took 0.44 s (identity) and 0.83 s (random Fourier) with spinning,
# 0.21 s and 0.60 s without. The runtime reads its settings once, when it is loaded.
_WAITING = {"GOMP_SPINCOUNT": "0"}
_CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def load_native() -> Any:
    """``krrdistill._native``; raises ImportError where it was not built. The environment is left as it was."""
    if any(name in os.environ for name in _CHOSEN_BY_USER):
        return importlib.import_module("krrdistill._native")
    os.environ.update(_WAITING)
    try:
        return importlib.import_module("krrdistill._native")
    finally:
        for name in _WAITING:
            del os.environ[name]
