"""Many runs in one process: memory, open files and threads must not grow. Asserts it; writes results/soak.json.

    python benchmarks/soak.py --runs 2000

One run distils the bundled digits under one of three maps with one or two threads, saves, loads and verifies the file,
merges and copies statistics, and lets a file that is damaged be refused. The first fifth of the runs fills caches.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.errors import DataError
from machine import machine_facts

_HERE = Path(__file__).resolve().parent
_SAMPLES = 40  # how often a soak is looked at
_GROWTH = 4.0  # MB between the second fifth and the last: more is a leak


def one_run(number: int, data: Any, maps: list[Any], folder: Path) -> None:
    """Every part of the package that holds memory, files or threads."""
    phi, path = maps[number % len(maps)], folder / "distilled.npz"
    made = kd.distill(data.x_train, data.y_train, phi, threads=1 + number % 2, seed=number).distilled
    made.save(path)
    distilled = kd.DistilledDataset.load(path)
    distilled.verify(kd.retrain(distilled, data.x_train, data.y_train), test=(data.x_test, data.y_test))
    parts = [kd.RidgeStatistics(phi, 10).update(data.x_train[i::2], data.y_train[i::2]) for i in range(2)]
    kd.fit_model((parts[0] + parts[1]).copy(), selection="gcv")
    path.write_bytes(path.read_bytes()[:-100])
    try:
        kd.DistilledDataset.load(path)
    except DataError:
        return
    raise AssertionError("a damaged file was loaded")


def held() -> dict[str, float]:
    """What the process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def main() -> None:
    """Runs, looks every few runs at what is held, and compares the second fifth with the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", kd.ResultWarning)
    data = kd.load_dataset("digits")
    scaling = kd.standardize(data)
    maps = [
        kd.Identity(64, preprocessing=scaling),
        kd.RandomFourier(64, 60, sigma2=64.0, preprocessing=scaling),
        kd.FCNN(64, preprocessing=scaling),
    ]
    every, seen = max(1, arguments.runs // _SAMPLES), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.runs + 1):
            one_run(number, data, maps, Path(folder))
            if number % every == 0:
                seen.append({"run": number, **held()})
                print(json.dumps(seen[-1]), flush=True)
    fifth = max(1, len(seen) // 5)
    early, late = seen[fifth : 2 * fifth], seen[-fifth:]
    growth = {
        name: float(np.median([row[name] for row in late]) - np.median([row[name] for row in early]))
        for name in ("memory_mb", "files", "threads")
    }
    content = {"machine": machine_facts(), "runs": arguments.runs, "growth": growth, "held": seen}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "soak.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"runs": arguments.runs, "growth": growth}))
    assert growth["files"] == growth["threads"] == 0, "files or threads are left behind"
    assert growth["memory_mb"] < _GROWTH, "memory grows"


if __name__ == "__main__":
    main()
