"""The pass over the data on each of the two best instruction sets of this CPU, in alternation in one process.

    python benchmarks/instruction_sets.py --data-dir ../shared/data

Sums of CIFAR-100 under three maps and of 100,000 made-up embeddings of 1024 numbers; prints one JSON object with the
seconds of every run. Exits with 1 where the CPU has one instruction set alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from machine import machine_facts

KERNELS = ("identity", "FCNN", "orthogonal_fourier")
ROWS, WIDTH, CLASSES = 100_000, 1024, 100


def timed(X: Any, y: Any, feature_map: kd.FeatureMap, levels: list[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of each pass at each level."""
    import krrdistill._native as native

    seconds: dict[str, list[float]] = {level: [] for level in levels}
    for _ in range(repeats):
        for level, found in seconds.items():
            native.set_isa(level)
            start = time.perf_counter()
            kd.RidgeStatistics(feature_map, CLASSES).update(X, y)
            found.append(round(time.perf_counter() - start, 2))
    return seconds


def main() -> int:
    """Measures; 1 where there is nothing to compare."""
    import krrdistill._native as native

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    levels = list(native.build_facts()["isas"])[-2:]
    data = kd.load_dataset("cifar100", data_dir=arguments.data_dir)
    scaling = kd.standardize(data)
    rows = {
        kernel: timed(data.x_train, data.y_train, kd.make_map(kernel, data, scaling), levels, arguments.repeats)
        for kernel in KERNELS
    }
    X = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float16)
    for dtype in (np.float16, np.float32):
        name = f"embeddings, {np.dtype(dtype)}"
        rows[name] = timed(X.astype(dtype), np.arange(ROWS) % CLASSES, kd.Identity(WIDTH), levels, arguments.repeats)
    print(json.dumps({"machine": machine_facts(), "seconds": rows}, indent=1))
    return 0 if len(levels) > 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
