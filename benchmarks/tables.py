"""Writes docs/measured/tables.md and docs/measured/kip.md from the JSON files in benchmarks/results.

    krrdistill reproduce table3 --out runs/table3        # then copy table3.json to benchmarks/results, table4 alike
    python -m pytest benchmarks/bench_kip.py --size cifar100 --benchmark-json=benchmarks/results/kip-cifar100-FCNN.json
    python benchmarks/tables.py [--results benchmarks/results] [--docs docs/measured]

A table may come in several files (table4-mnist.json, table4-cifar100.json); so may the benchmark (kip-*.json).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from krrdistill.apps.reproduce import publication, to_markdown
from machine import one_line

__all__ = ["write"]

_HERE = Path(__file__).resolve().parent
_KIP = """\
# One step of KIP, measured

Written by `benchmarks/tables.py`. What the variants do: [KIP](../guide/kip.md).
"""
_INTRODUCTION = """\
# The published tables, made again

Written by `benchmarks/tables.py` from what `krrdistill reproduce table3` and `krrdistill reproduce table4` left; the
JSON files with every cell, per seed, are in `benchmarks/results`. Every figure is measured, but for those that are
marked as extrapolated: times of KIP runs that were not carried to their end.
"""


def _tables(results: Path) -> str:
    lines = [_INTRODUCTION]
    for table in ("table3", "table4"):
        paths = sorted(results.glob(f"{table}*.json"))
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        lines += [to_markdown(publication(document), level=2) for document in documents] or [f"## {table}: not run\n"]
    return "\n".join(lines)


def _kip(results: Path) -> str:
    """Seconds of one iteration per kernel, points per class and variant."""
    best: dict[tuple[str, str, int], dict[str, float]] = {}
    machines: dict[str, None] = {}
    for path in sorted(results.glob("kip-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        machines[one_line(content["machine_info"])] = None
        for row in content["benchmarks"]:
            facts = row["extra_info"]
            key = (facts["data"], facts["kernel"], facts["ipc"])
            best.setdefault(key, {})[facts["variant"]] = 1e3 * row["stats"]["min"]
    if not best:
        return "Not run.\n"
    lines = [
        "Milliseconds of one iteration, best of a few: over all training points (`gram`), and over batches of 5000.",
        "",
        "| data set | kernel | per class | `gram` | `gram`, batches | `published` | published / gram |",
        "|---|---|---|---|---|---|---|",
    ]
    for (data, kernel, ipc), found in best.items():
        cells = [_milliseconds(found.get(name)) for name in ("gram", "gram_batch", "published")]
        both = "gram" in found and "published" in found
        ratio = f"{found['published'] / found['gram']:.1f} ×" if both else "–"
        lines.append(f"| {data} | {kernel} | {ipc} | {' | '.join(cells)} | {ratio} |")
    return "\n".join([*lines, "", *(f"{machine}." for machine in machines), ""])


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def write(results: Path, docs: Path) -> None:
    """Both pages, from whatever result files there are."""
    (docs / "tables.md").write_text(_tables(results).rstrip() + "\n", encoding="utf-8")
    (docs / "kip.md").write_text(f"{_KIP}\n{_kip(results).rstrip()}\n", encoding="utf-8")


def main() -> None:
    """Writes both pages again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    arguments = parser.parse_args()
    write(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
