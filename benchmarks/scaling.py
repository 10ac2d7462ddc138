"""How the time of every stage grows with n, p, k, points per class and threads; one parameter varies at a time.

    python benchmarks/scaling.py --dataset cifar100 --data-dir ../shared/data --repeats 3

Every point is a whole ``krrdistill.distill`` in this process with the fully connected map; rounds over all points are
repeated and the shortest time of each stage is kept. Writes results/scaling-<dataset>.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

import krrdistill as kd
import report
from krrdistill.maps import FCNN
from machine import blas_threads, machine_facts
from problem import Problem, load_problem

_HERE = Path(__file__).resolve().parent
_FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)
_IPCS = (1, 2, 5, 10, 20, 50)
Seconds = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Point:
    """One value of one parameter, and the run that times it."""

    axis: str
    value: int
    run: Callable[[], Seconds]


def r_squared(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Of the least-squares line y = a + b x."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) < 3 or np.ptp(y) == 0.0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def _seconds(problem: Problem, n: int, *, p: int | None = None, **options: Any) -> Seconds:
    """Stage seconds of a distillation of the first n rows to p features (d by default)."""
    d = problem.dataset.input_dim
    phi = FCNN(d, [p or d], preprocessing=problem.scaling)
    X, y = problem.x_train[:n], problem.dataset.y_train[:n]
    return kd.distill(X, y, phi, classes=problem.dataset.classes, **options).seconds


def _with_classes(problem: Problem, n: int, k: int) -> Seconds:
    """The same images under k labels: i mod k, which costs what real labels cost."""
    labels = np.arange(n) % k
    phi = problem.feature_map("FCNN")
    return kd.distill(problem.x_train[:n], labels, phi).seconds


def _with_threads(problem: Problem, n: int, threads: int) -> Seconds:
    with threadpoolctl.threadpool_limits(limits=threads):
        return _seconds(problem, n)


def points(problem: Problem, most_rows: int) -> Iterator[Point]:
    """All points: n and threads with all rows, p, k and points per class with at most ``most_rows``."""
    everything, d, k = len(problem.x_train), problem.dataset.input_dim, problem.dataset.n_classes
    n = min(everything, most_rows)
    for fraction in _FRACTIONS:
        rows, width = int(everything * fraction), max(1, int(d * fraction))
        yield Point("n", rows, lambda rows=rows: _seconds(problem, rows))  # type: ignore[misc]
        yield Point("p", width, lambda width=width: _seconds(problem, n, p=width))  # type: ignore[misc]
    for factor in (1, 2, 4, 8):
        yield Point("k", k * factor, lambda count=k * factor: _with_classes(problem, n, count))  # type: ignore[misc]
    for ipc in _IPCS:
        yield Point("ipc", ipc, lambda ipc=ipc: _seconds(problem, n, points_per_class=ipc))  # type: ignore[misc]
    for threads in range(1, blas_threads() + 1):
        yield Point("threads", threads, lambda threads=threads: _with_threads(problem, n, threads))  # type: ignore[misc]


def run(problem: Problem, most_rows: int, repeats: int) -> list[dict[str, Any]]:
    """The shortest seconds per stage of every point, over interleaved rounds."""
    chosen = list(points(problem, most_rows))
    best: list[dict[str, float]] = [{} for _ in chosen]
    for _ in range(repeats):
        for point, kept in zip(chosen, best, strict=True):
            found = dict(point.run())
            found["total"] = sum(found.values())
            kept.update({stage: min(value, kept.get(stage, value)) for stage, value in found.items()})
            print(f"{point.axis} = {point.value}: {found['total']:.2f} s", file=sys.stderr, flush=True)
    return [{"axis": p.axis, "value": p.value, "seconds": kept} for p, kept in zip(chosen, best, strict=True)]


def fits(rows: list[dict[str, Any]]) -> dict[str, float]:
    """R^2 of the pass and of the whole against n, and the speed-up of the pass by all threads."""

    def series(axis: str, stage: str) -> tuple[list[float], list[float]]:
        chosen = [row for row in rows if row["axis"] == axis]
        return [row["value"] for row in chosen], [row["seconds"][stage] for row in chosen]

    threads = series("threads", "statistics")[1]
    return {
        "r_squared_statistics_n": r_squared(*series("n", "statistics")),
        "r_squared_total_n": r_squared(*series("n", "total")),
        "threads": float(len(threads)),
        "thread_speed_up_statistics": threads[0] / threads[-1],
    }


def main() -> None:
    """Measures, writes the result file and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--train-rows", type=int, default=None, help="only the first rows of the training set")
    parser.add_argument("--most-rows", type=int, default=16384, help="rows for the parameters other than n")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    arguments = parser.parse_args()
    problem = load_problem(arguments.dataset, data_dir=arguments.data_dir, train_rows=arguments.train_rows)
    rows = run(problem, arguments.most_rows, arguments.repeats)
    names = {"dataset": arguments.dataset, "source": problem.source}
    content = {"machine": machine_facts(), **names, "rows": rows, "fits": fits(rows)}
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"scaling-{arguments.dataset}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report.write(arguments.results, arguments.docs)
    print(json.dumps(content["fits"]))


if __name__ == "__main__":
    main()
