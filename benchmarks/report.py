"""Writes docs/measured/benchmarks.md and its figures from the JSON files in benchmarks/results.

    python benchmarks/report.py [--results benchmarks/results] [--docs docs]

Says of everything that was not run that it was not run. Nothing on the page is extrapolated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import plots
from machine import one_line

__all__ = ["write"]

_HERE = Path(__file__).resolve().parent
_ORDER = ("digits", "mnist", "cifar10", "cifar100", "embeddings")
_ABSENT = "not run"
# Targets of the project: time over floor at ipc 1, speed over the published algorithm, peak memory in GB per ipc.
_OVER_FLOOR = {("cifar100", "identity"): 1.4, ("cifar100", "random_fourier"): 1.25, ("cifar100", "FCNN"): 1.25}
_OVER_PUBLISHED = {"mnist": 10.0, "cifar100": 15.0}
_MEMORY_GB = {("cifar100", 1): 1.0, ("cifar100", 50): 1.6}
_FIFTY_POINTS = {"cifar100": 1.35}  # time of 50 points per class over that of one
_LINEAR, _TWO_THREADS = 0.99, 1.8
_IMPORT_SECONDS, _HELP_SECONDS = 0.15, 0.6

_INTRODUCTION = """\
# Benchmarks

Written by the scripts in `benchmarks/` (its README has units and how to run and compare them). Every ratio is between
figures of one session on one machine. Nothing is extrapolated; what was not run says so.

Floor: the arithmetic that cannot be avoided, at the BLAS ceilings measured in the same session. Train 2npd + np² flops
(identity: np²), validation and test 2npd (identity: none), and one eigenvalue-only float64 factorisation of order p.
`published` is `published.py`, the published algorithm written plainly in PyTorch; `numpy` a plain NumPy pipeline;
`sklearn` is `RidgeClassifierCV` and `himalaya` `RidgeCV` over the same λ, which train the original model only and
distil nothing. Peak memory is of the whole process. What the rest of the time is, and what was tried:
[performance.md](../explanation/performance.md).
"""

Result = dict[str, Any]


def _load(path: Path) -> Result | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _seconds(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _judged(value: float, target: float | None, *, most: bool, unit: str = "") -> str:
    """The value, and whether it meets the target where there is one."""
    text = f"{value:.2f}{unit}"
    if target is None:
        return text
    met = value <= target if most else value >= target
    return f"{text} ({'≤' if most else '≥'} {target:g}: {'met' if met else '**missed**'})"


def _rows_of(group: Result, contestant: str) -> dict[int, Result]:
    return {row["ipc"]: row for row in group["rows"] if row["contestant"] == contestant}


def _is_whole(result: Result) -> bool:
    """Targets are about whole data sets."""
    return bool(result["source"] == result["dataset"])


def _against_floor(result: Result) -> list[str]:
    name, whole = result["dataset"], _is_whole(result)
    rows = []
    for group in result["kernels"]:
        kernel, floor = group["kernel"], group["floor"]["total"]
        for ipc, ours in _rows_of(group, "ours").items():
            total = ours["seconds"]["total"]
            limit = _OVER_FLOOR.get((name, kernel)) if whole and ipc == 1 else None
            memory = _MEMORY_GB.get((name, ipc)) if whole else None
            rows.append(
                (
                    kernel,
                    str(ipc),
                    f"{_seconds(total)} ({min(ours['totals']):.2f} … {max(ours['totals']):.2f})",
                    _seconds(floor),
                    _judged(total / floor, limit, most=True),
                    _judged(ours["peak_memory_bytes"] / 1e9, memory, most=True),
                    f"{_percent(ours['test_accuracy'])} → {_percent(ours['distilled_test_accuracy'])}",
                    f"{ours['weight_relative_error']:.1e}",
                )
            )
    head = ("kernel", "ipc", "seconds, median (range)", "floor", "ratio", "peak GB", "test accuracy %", "weight error")
    return _table(head, rows)


def _against_others(result: Result) -> list[str]:
    target = _OVER_PUBLISHED.get(result["dataset"]) if _is_whole(result) else None
    rows = []
    for group in result["kernels"]:
        ours = _rows_of(group, "ours")
        for contestant in ("published", "numpy", "sklearn", "himalaya"):
            others = {ipc: row for ipc, row in _rows_of(group, contestant).items() if ipc in ours}
            ended = [row for row in group.get("not_done", ()) if row["contestant"] == contestant]
            for row in ended:
                rows.append((group["kernel"], contestant, str(row["ipc"]), f"not done: {row['why']}", *["–"] * 3))
            if not (others or ended):
                rows.append((group["kernel"], contestant, "–", _ABSENT, "–", "–", "–"))
            for ipc, other in others.items():
                ratio = other["seconds"]["total"] / ours[ipc]["seconds"]["total"]
                accuracies = f"{_percent(other['test_accuracy'])} → {_percent(other['distilled_test_accuracy'])}"
                rows.append(
                    (
                        group["kernel"],
                        contestant,
                        str(ipc),
                        f"{_seconds(other['seconds']['total'])} ({other['runs']} run{'s' * (other['runs'] > 1)})",
                        _judged(ratio, target if contestant == "published" else None, most=False, unit=" ×"),
                        f"{other['peak_memory_bytes'] / 1e9:.2f}",
                        accuracies,
                    )
                )
    return _table(("kernel", "contestant", "ipc", "seconds", "time over ours", "peak GB", "test accuracy %"), rows)


def _stages(result: Result) -> list[str]:
    stages = ("preprocess", "statistics", "ridge", "construct", "preimage", "save", "evaluate")
    rows = []
    for group in result["kernels"]:
        for ipc, row in _rows_of(group, "ours").items():
            rows.append((group["kernel"], str(ipc), *(_seconds(row["seconds"].get(stage)) for stage in stages)))
        rows.append((group["kernel"], "floor", *(_seconds(group["floor"].get(stage, 0.0)) for stage in stages)))
    lines = _table(("kernel", "ipc", *stages), rows)
    limit = _FIFTY_POINTS.get(result["dataset"]) if _is_whole(result) else None
    for group in result["kernels"]:
        ours = _rows_of(group, "ours")
        if 1 in ours and 50 in ours:
            one, fifty = (ours[ipc]["seconds"]["total"] for ipc in (1, 50))
            ratio = _judged(fifty / one, limit, most=True, unit=" ×")
            lines += [f"ipc 50 over ipc 1, {group['kernel']}: {ratio}, {fifty - one:.2f} s more  "]
    return [*lines, ""]


def _ceilings(result: Result) -> list[str]:
    rows = []
    for group in result["kernels"]:
        c = group["ceilings"]
        rates = [f"{c[name] / 1e9:.1f}" for name in ("sgemm", "ssyrk", "dgemm", "dsyrk", "copy", "triad")]
        rows.append((group["kernel"], *rates, f"{c['eigvalsh_seconds']:.3f}", f"{c['dpotrf_seconds']:.3f}"))
    products = result["kernels"][0]["ceilings"]
    order = f"order {products['factor_p']}"
    lines = [
        f"Products of {products['tile_rows']} rows with p = {products['p']}; {products['threads']} BLAS thread(s).",
        "",
    ]
    head = (
        "session",
        "sgemm GFLOP/s",
        "ssyrk",
        "dgemm",
        "dsyrk",
        "copy GB/s",
        "triad",
        f"eigvalsh {order}, s",
        "dpotrf, s",
    )
    return lines + _table(head, rows)


def _end_to_end(name: str, result: Result | None, figures: Path) -> list[str]:
    if result is None:
        return [f"## {name}", "", f"{_ABSENT.capitalize()}.", ""]
    plots.plot_stages(result, figures / f"stages-{name}.png")
    lines = [
        f"## {result['source']}" + (f", {label}" if (label := result.get("label")) else ""),
        "",
        f"n = {result['n_train']}, d = {result['d']}, k = {result['k']}; {one_line(result['machine'])}.",
        f"Median of {result['repeats']} fresh process(es) per cell, interleaved, from loaded arrays to certified file.",
        "",
    ]
    lines += ["### Against the floor", "", *_against_floor(result), "### Against others", "", *_against_others(result)]
    lines += ["### Stages, seconds", "", *_stages(result), f"![stages and floor](figures/stages-{name}.png)", ""]
    return [*lines, "### Ceilings of these sessions", "", *_ceilings(result)]


def _scaling(results: dict[str, Result], figures: Path) -> list[str]:
    lines = ["## Scaling", ""]
    if not results:
        return [*lines, f"{_ABSENT.capitalize()}.", ""]
    for name, result in results.items():
        plots.plot_scaling(result, figures / f"scaling-{name}.png")
        fits, threads = result["fits"], int(result["fits"]["threads"])
        whole = _is_whole(result)
        least = _LINEAR if whole else None
        linear = [_judged(fits[f"r_squared_{part}_n"], least, most=False) for part in ("statistics", "total")]
        speed_up = "more than one thread: not run"
        if threads > 1:
            target = _TWO_THREADS if threads == 2 and whole else None
            judged = _judged(fits["thread_speed_up_statistics"], target, most=False, unit=" ×")
            speed_up = f"{threads} threads over 1 on the pass: {judged}"
        lines += [
            f"{result['source']}, FCNN: R² of time against n, pass {linear[0]}, all stages {linear[1]}; {speed_up}.",
            "",
            f"![scaling](figures/scaling-{name}.png)",
            "",
        ]
    return lines


def _memory(result: Result | None, figures: Path) -> list[str]:
    lines = ["## Memory of a pass over a memory-mapped file", ""]
    if result is None:
        return [*lines, f"{_ABSENT.capitalize()}.", ""]
    plots.plot_memory(result["rows"], figures / "memory_source.png")
    rows = [
        (
            f"{row['rows']:,}",
            f"{row['file_bytes'] / 1e6:.0f}",
            f"{row['peak_anonymous_bytes'] / 1e6:.0f}" if row["peak_anonymous_bytes"] else "not measured",
            f"{row['peak_rss_bytes'] / 1e6:.0f}",
            _seconds(row["seconds"]),
        )
        for row in result["rows"]
    ]
    lines += [
        f"{result['dataset']}, {result['kernel']}. Anonymous memory is what the process allocates.",
        "Resident memory also counts pages of the file that the kernel keeps cached and drops under pressure.",
        "",
        *_table(("rows", "file MB", "peak anonymous MB", "peak resident MB", "seconds"), rows),
        "![memory](figures/memory_source.png)",
        "",
    ]
    return lines


def _operations(results: dict[str, Result]) -> list[str]:
    lines = ["## Operations", ""]
    if not results:
        return [*lines, f"{_ABSENT.capitalize()}.", ""]
    for size, result in results.items():
        rows = [
            (
                row["name"],
                f"{1e3 * row['seconds']:.3f}",
                f"{row['flops'] / row['seconds'] / 1e9:.1f}" if row["flops"] else "–",
                f"{100 * row['fraction']:.0f}%",
            )
            for row in result["rows"]
        ]
        lines += [f"`--size {size}` ({result['data']}): {one_line(result['machine'])}.", ""]
        lines += _table(("operation", "best, ms", "GFLOP/s", "of ceiling"), rows)
    return lines


def _startup(result: Result | None) -> list[str]:
    lines = ["## Start-up", ""]
    if result is None:
        return [*lines, f"{_ABSENT.capitalize()}.", ""]
    beyond = _judged(result["import_beyond_numpy_scipy_seconds"], _IMPORT_SECONDS, most=True, unit=" s")
    help_text = _judged(result["help_seconds"], _HELP_SECONDS, most=True, unit=" s")
    return [*lines, f"`import krrdistill` beyond NumPy and SciPy: {beyond}; `krrdistill --help`: {help_text}.", ""]


def _named(folder: Path, prefix: str) -> dict[str, Result]:
    found = {path.stem.removeprefix(prefix): path for path in sorted(folder.glob(f"{prefix}*.json"))}
    return {name: result for name, path in found.items() if (result := _load(path)) is not None}


def _place(name: str) -> tuple[int, str]:
    """Data sets in order, sessions with a label after those without."""
    dataset = name.split("-", maxsplit=1)[0]
    return (_ORDER.index(dataset) if dataset in _ORDER else len(_ORDER)), name


def write(results: Path, docs: Path) -> None:
    """The page and its figures, from whatever result files there are."""
    figures = docs / "figures"
    runs = _named(results, "end_to_end-")
    names = sorted({*runs, "mnist", "cifar100"}, key=_place)
    lines = [_INTRODUCTION]
    for name in names:
        lines += _end_to_end(name, runs.get(name), figures)
    lines += _scaling(_named(results, "scaling-"), figures)
    lines += _memory(_load(results / "memory_source.json"), figures)
    lines += _startup(_load(results / "startup.json"))
    lines += _operations(_named(results, "operations-"))
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    """Writes the page again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    arguments = parser.parse_args()
    write(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
