"""Whole runs against their floor and against others, in one interleaved session; writes docs/measured/benchmarks.md.

    python benchmarks/end_to_end.py --datasets mnist cifar100 --data-dir ../shared/data --published --sklearn

For each data set and kernel, ``--repeats`` times: the ceilings of this machine in this process, then each contestant in
a fresh process. Floor of a run: train 2 n p d + n p^2 flops (identity: n p^2), validation and test 2 n p d (identity:
none), at the sgemm and ssyrk ceilings just measured, and one eigenvalue-only float64 factorisation of order p.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import report
from ceilings import Ceilings, describe, measure
from machine import machine_facts
from memory import NotDoneError, last_json, physical_bytes, run_watched
from problem import KERNELS, PUBLISHED_KERNELS, Problem, load_problem
from work import Work, pipeline_work

_HERE = Path(__file__).resolve().parent
_PRODUCT_P = 3072  # of the products that the ceilings time
_EXACT = 1e-6
_WATCH_INTERVAL = 0.05  # seconds; a look takes 0.1 ms of a core
_PEERS = ("sklearn", "himalaya")  # they distil nothing
_ONCE = ("published", *_PEERS)  # run once, not --repeats times


def contestants(kernel: str, arguments: argparse.Namespace) -> list[str]:
    """Who runs, in this order."""
    chosen = ["ours"]
    chosen += ["numpy"] if arguments.numpy else []
    chosen += ["published"] if arguments.published and kernel in PUBLISHED_KERNELS else []
    return chosen + [peer for peer in _PEERS if getattr(arguments, peer) and kernel in arguments.peer_kernels]


def plan(kernel: str, arguments: argparse.Namespace) -> Iterator[tuple[int, str, int]]:
    """(repeat, contestant, ipc): contestants alternate; the slow ones come in the first round only."""
    for repeat in range(arguments.repeats):
        for name in contestants(kernel, arguments):
            ipcs = arguments.ipcs if name == "ours" else arguments.others_ipcs
            if name in _PEERS:
                ipcs = arguments.ipcs[:1]
            if repeat == 0 or name not in _ONCE:
                yield from ((repeat, name, ipc) for ipc in ipcs)


def run_once(name: str, dataset: str, kernel: str, ipc: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One contestant in a fresh process. Raises NotDoneError where another one than ours takes more than it may."""
    if name == "published":
        command = [arguments.published_python, str(_HERE / "published.py"), "--json"]
    else:
        command = [sys.executable, str(_HERE / "contestants.py"), name]
    command += ["--dataset", dataset, "--kernel", kernel, "--ipc", str(ipc)]
    if arguments.data_dir is not None:
        command += ["--data-dir", str(arguments.data_dir)]
    if arguments.train_rows is not None:
        command += ["--train-rows", str(arguments.train_rows)]
    limits = {} if name == "ours" else {"most_seconds": arguments.limit_seconds, "most_bytes": arguments.limit_bytes}
    watched = run_watched(command, _WATCH_INTERVAL, **limits)
    result = last_json(watched.stdout)
    result["peak_anonymous_bytes"] = watched.peak_anonymous_bytes
    result["process_seconds"] = watched.seconds
    return result


def floor_of(problem: Problem, kernel: str) -> dict[str, Work]:
    """The floor's work per stage."""
    n = len(problem.x_train)
    held_out = round(0.05 * n)
    return pipeline_work(problem.feature_map(kernel), n - held_out, held_out, len(problem.x_test))


def run_kernel(problem: Problem, kernel: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs of one data set and kernel, with the ceilings and the floor of the same session."""
    p = problem.feature_map(kernel).output_dim
    ceilings: Ceilings | None = None
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    not_done: dict[tuple[str, int], str] = {}
    previous = -1
    for repeat, name, ipc in plan(kernel, arguments):
        if repeat != previous:
            found = measure(arguments.ceiling_p, factor_p=p, repeats=3)
            ceilings = found if ceilings is None else ceilings.better_of(found)
            previous = repeat
        if (name, ipc) in not_done:
            continue
        try:
            result = run_once(name, problem.dataset.name, kernel, ipc, arguments)
        except NotDoneError as reason:
            not_done[name, ipc] = outcome = str(reason)
            runs.pop((name, ipc), None)
        else:
            runs.setdefault((name, ipc), []).append(result)
            outcome = f"{result['seconds']['total']:.2f} s"
        print(f"{problem.source} {kernel} ipc {ipc} {name}: {outcome}", file=sys.stderr, flush=True)
    assert ceilings is not None
    print(describe(ceilings), file=sys.stderr)
    stages = {stage: work.floor(ceilings) for stage, work in floor_of(problem, kernel).items()}
    return {
        "kernel": kernel,
        "p": p,
        "ceilings": asdict(ceilings),
        "floor": {**stages, "total": sum(stages.values())},
        "rows": [summary(name, ipc, found) for (name, ipc), found in runs.items()],
        "not_done": [{"contestant": name, "ipc": ipc, "why": why} for (name, ipc), why in not_done.items()],
    }


def summary(name: str, ipc: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs of a contestant; the last run's accuracies."""
    stages = {stage for run in runs for stage in run["seconds"]}
    kept = ("test_accuracy", "distilled_test_accuracy", "weight_relative_error", "prediction_agreement", "lambda")
    return {
        "contestant": name,
        "ipc": ipc,
        "runs": len(runs),
        "seconds": {
            stage: statistics.median(run["seconds"].get(stage, 0.0) for run in runs) for stage in sorted(stages)
        },
        "totals": [run["seconds"]["total"] for run in runs],
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "peak_anonymous_bytes": max((run["peak_anonymous_bytes"] or 0 for run in runs), default=0) or None,
        **{key: runs[-1].get(key) for key in kept},
    }


def inexact(groups: list[dict[str, Any]]) -> list[str]:
    """What of ours was not exact: a fast wrong answer is no result."""
    return [
        f"{group['kernel']} ipc {row['ipc']}: weight error {row['weight_relative_error']:.1e}"
        for group in groups
        for row in group["rows"]
        if row["contestant"] == "ours"
        and not (row["weight_relative_error"] <= _EXACT and row["prediction_agreement"] == 1.0)
    ]


def main() -> int:
    """Runs what was asked for; 1 if a file of ours was not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["digits"])
    parser.add_argument("--data-dir", type=Path, default=None, help="real data sets (KRRDISTILL_DATA)")
    parser.add_argument("--train-rows", type=int, default=None, help="only the first rows of each training set")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--ipcs", nargs="+", type=int, default=[1, 50])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--published", action="store_true", help="also published.py (needs PyTorch), once per cell")
    parser.add_argument("--published-python", default=sys.executable, help="an interpreter with torch and krrdistill")
    parser.add_argument("--others-ipcs", nargs="+", type=int, default=[1])
    parser.add_argument("--sklearn", action="store_true", help="also RidgeClassifierCV, once per kernel")
    parser.add_argument("--himalaya", action="store_true", help="also himalaya's RidgeCV, once per kernel")
    parser.add_argument("--peer-kernels", nargs="+", choices=KERNELS, default=list(KERNELS), help="of those two")
    parser.add_argument("--no-numpy", dest="numpy", action="store_false", help="without the plain NumPy pipeline")
    parser.add_argument("--label", default="", help="of a session beside another, such as the instruction set of BLAS")
    parser.add_argument("--ceiling-p", type=int, default=_PRODUCT_P, help="p of the products that the ceilings time")
    parser.add_argument("--limit-seconds", type=float, default=600.0, help="of a run of the others, then it is ended")
    parser.add_argument(
        "--limit-bytes", type=float, default=0.85 * physical_bytes(), help="of the others (85 %% of the machine's)"
    )
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    arguments = parser.parse_args()
    if arguments.published:
        run_watched(
            [arguments.published_python, "-c", "import torch, krrdistill"]
        )  # fails now rather than after an hour
    wrong = []
    for name in arguments.datasets:
        problem = load_problem(name, data_dir=arguments.data_dir, train_rows=arguments.train_rows)
        groups = [run_kernel(problem, kernel, arguments) for kernel in arguments.kernels]
        wrong += inexact(groups)
        content = {
            "machine": machine_facts(),
            "dataset": name,
            "source": problem.source,
            "label": arguments.label,
            "n_train": len(problem.x_train),
            "d": problem.dataset.input_dim,
            "k": problem.dataset.n_classes,
            "repeats": arguments.repeats,
            "kernels": groups,
        }
        arguments.results.mkdir(parents=True, exist_ok=True)
        path = arguments.results / f"end_to_end-{name}{'-' * bool(arguments.label)}{arguments.label}.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report.write(arguments.results, arguments.docs)
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
