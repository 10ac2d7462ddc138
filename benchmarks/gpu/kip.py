"""Seconds per iteration of KIP, as published and from the statistics, at the size of CIFAR-100 on random bytes.

    python benchmarks/gpu/kip.py --device cuda

Steps are those of ``krrdistill kip``: loss, gradient and Adam, everything on the device, the clock read when it is
done; a step before them is not counted. A line for each measurement, and one JSON object at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.apps.kip.checkpoint import State
from krrdistill.apps.kip.gram import GramObjective
from krrdistill.apps.kip.iteration import VARIANTS, KipOptions
from krrdistill.apps.kip.optimize import Objective, adam_step, batch_rows
from krrdistill.apps.kip.place import TorchPlace
from krrdistill.apps.kip.published import PublishedObjective

_STEPS = {1: 100, 10: 20, 50: 1}  # by points per class
_LR = 0.01


def step(state: State, objective: Objective, n: int, size: int | None) -> float:
    """One step; its loss per training point of the batch."""
    rows = None if size is None else objective.place.put(batch_rows(state.step, n, size, seed=0))
    loss, gradient = objective.loss_and_gradient(state.X, rows)
    adam_step(state, gradient, _LR)
    state.losses.append(loss / (n if size is None else size))
    return state.losses[-1]


def per_iteration(objective: Objective, start: Any, n: int, size: int | None, steps: int) -> tuple[float, float]:
    """(seconds of a step, loss per point of the last one); the first step is not counted."""
    place = objective.place
    state = State.start(start).moved(place.put)
    step(state, objective, n, size)
    place.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        loss = step(state, objective, n, size)
    place.synchronize()
    return (time.perf_counter() - begin) / steps, loss


def measure(place: TorchPlace, *, rows: int, d: int, k: int, steps: dict[int, int]) -> dict[str, Any]:
    """Every variant at every number of points per class, FCNN with d features."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (rows, d), np.uint8), np.arange(rows) % k
    phi = kd.FCNN(d, preprocessing=kd.Preprocessing("standardize", np.full(d, 127.5), np.full(d, 73.9)))
    statistics = kd.RidgeStatistics(phi, k).update(X, y)
    features = np.asarray(phi.transform(X, dtype="float32"))
    network = phi.on_standardised
    objectives: dict[str, Objective] = {
        "published": PublishedObjective(network, features, y, k, place),
        "gram": GramObjective(network.layers, statistics, dtype=np.float32, place=place),
    }
    found = []
    for per_class, count in steps.items():
        start = phi.preprocessing.whiten(phi.preprocessing.standardise(X[: per_class * k])).astype(np.float32)
        for variant in VARIANTS:
            size = KipOptions(variant=variant).batch(rows)
            seconds, loss = per_iteration(objectives[variant], start, rows, size, count)
            print(f"KIP {variant}, s per iteration, ipc {per_class} {seconds:.6g}", flush=True)
            if not math.isfinite(loss):
                raise ArithmeticError(f"KIP {variant}, ipc {per_class}: the loss is {loss}")
            found.append({"variant": variant, "ipc": per_class, "steps": count, "seconds": seconds, "loss": loss})
    return {"n": rows, "d": d, "p": d, "k": k, "rows": found, **place.facts()}


def main() -> None:
    """Measures, and prints one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--rows", type=int, default=47_500, help="training samples")
    parser.add_argument("--dimension", type=int, default=3072, help="values of a sample, and features")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--ipcs", default="1,10,50", help="points per class, with commas between")
    parser.add_argument("--steps", type=int, default=None, help="in place of 100, 20 and 1")
    given = parser.parse_args()
    steps = {ipc: given.steps or _STEPS.get(ipc, 1) for ipc in map(int, given.ipcs.split(","))}
    place = TorchPlace(given.device)
    with place.active():
        found = measure(place, rows=given.rows, d=given.dimension, k=given.classes, steps=steps)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
