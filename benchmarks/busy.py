"""Small problems on one thread and on all, idle and beside processes that keep every core busy.

    python benchmarks/busy.py --python OTHER/bin/python

A path of 24 lambdas for 100 targets, and 64 systems of order 64, in fresh processes, with the threads that the package
chooses and with one; ``--python``: also by another installation. Writes results/busy.json; milliseconds, medians of 9.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.backends import get_backend
from machine import machine_facts
from memory import last_json

_ROUNDS, _BUSY = 9, 3
_BUSY_CODE = "while True: pass"


def measured(call: Callable[[], Any]) -> float:
    """Median milliseconds of a call."""
    call()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def child() -> dict[str, float]:
    """Every problem in this process."""
    backend, rng = get_backend("native"), np.random.default_rng(0)
    lambdas, found = kd.default_lambdas(), {}
    for p in (64, 128, 256, 512):
        A, C = rng.standard_normal((4 * p, p)), rng.standard_normal((100, p))
        G = A.T @ A
        found[f"path, p = {p}"] = measured(lambda G=G, C=C: backend.ridge_path(G, C, lambdas, rounding=1e-16))  # type: ignore[misc]
    A, B = rng.standard_normal((64, 64, 64)), rng.standard_normal((64, 64, 100))
    S = A @ A.transpose(0, 2, 1) + 64 * np.eye(64)
    found["64 systems of order 64"] = measured(lambda: backend.solve_spd(S, B))
    return found


def run(python: str, threads: str | None) -> dict[str, float]:
    """The child of an installation, with its own choice of threads or a fixed number."""
    limited = {} if threads is None else {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    words = [python, str(Path(__file__).resolve()), "--child"]
    seen = subprocess.run(words, env={**os.environ, **limited}, capture_output=True, text=True, check=True)
    return last_json(seen.stdout)


def main() -> None:
    """All of it, or one child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child()))
        return
    found: dict[str, Any] = {"machine": machine_facts(), "busy_processes": _BUSY}
    for state in ("idle", "busy"):
        others = [subprocess.Popen([sys.executable, "-c", _BUSY_CODE]) for _ in range(_BUSY * (state == "busy"))]
        try:
            found[state] = {"chosen": run(sys.executable, None), "one thread": run(sys.executable, "1")}
            found[state] |= {f"other {number}": run(python, None) for number, python in enumerate(options.python)}
        finally:
            for process in others:
                process.kill()
                process.wait()
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "busy.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    names = list(found["idle"])
    print(f"| problem | {' | '.join(f'{name}, {state}' for state in ('idle', 'busy') for name in names)} |")
    for problem in found["idle"]["chosen"]:
        cells = [f"{found[state][name][problem]:.2f}" for state in ("idle", "busy") for name in names]
        print(f"| {problem} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
