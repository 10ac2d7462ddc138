"""Peak memory of the pass over a memory-mapped file, for files of growing length: it must not grow.

    python benchmarks/memory_source.py --dataset mnist --data-dir ../shared/data --rows 50000 100000 200000 500000

The rows are real images, repeated, in a temporary .npy file that is opened with ``mmap_mode="r"``;
RidgeStatistics.update runs over it in a fresh process per length. Anonymous memory (RssAnon + RssShmem, read every 2 ms
from outside) is what the process allocates. Resident memory (VmHWM) also counts pages of the file that the kernel
happens to keep in its cache and drops under pressure: it is reported, but says nothing about the need.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
import report
from machine import machine_facts
from memory import anonymous_bytes, last_json, peak_rss_bytes, run_watched
from problem import KERNELS, load_problem
from work import pass_work

_HERE = Path(__file__).resolve().parent
_BLOCK = 4096
_WATCH_INTERVAL = 0.002


def write_tiled(path: Path, images: Any, rows: int) -> None:
    """A .npy file of ``rows`` rows, the images over and over, written block by block."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=images.dtype, shape=(rows, *images.shape[1:]))
    for start in range(0, rows, _BLOCK):
        picked = np.arange(start, min(start + _BLOCK, rows)) % len(images)
        out[start : start + _BLOCK] = images[picked]
    out.flush()


def run_pass(path: Path, dataset: str, kernel: str) -> dict[str, Any]:
    """The child: one pass over the mapped file. Labels are i mod k; 8 bytes per row, the only array that grows."""
    from krrdistill.maps import make_map

    X = np.load(path, mmap_mode="r")
    k = 10
    placeholder = kd.Dataset(dataset, X[:k].copy(), np.arange(k), X[:k].copy(), np.arange(k), tuple("0123456789"))
    scaling = kd.standardize(placeholder)
    chain = make_map(kernel, placeholder, scaling)
    statistics = kd.RidgeStatistics(chain, k)
    before = anonymous_bytes()
    start = time.perf_counter()
    statistics.update(X, np.arange(len(X)) % k)
    seconds = time.perf_counter() - start
    assert statistics.n == len(X)
    assert np.isfinite(statistics.gram).all()
    return {
        "rows": len(X),
        "p": chain.output_dim,
        "seconds": seconds,
        "anonymous_before_bytes": before,
        "peak_rss_bytes": peak_rss_bytes(),
        "flops": pass_work(chain, len(X)).total_flops,
    }


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One fresh process per number of rows."""
    problem = load_problem(arguments.dataset, data_dir=arguments.data_dir)
    images, rows = problem.dataset.x_train, []
    for n in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            path = Path(folder) / "rows.npy"
            write_tiled(path, images, n)
            size = path.stat().st_size
            command = [sys.executable, str(Path(__file__).resolve()), "--child", str(path)]
            watched = run_watched(
                [*command, "--dataset", arguments.dataset, "--kernel", arguments.kernel], _WATCH_INTERVAL
            )
        row = {**last_json(watched.stdout), "file_bytes": size, "peak_anonymous_bytes": watched.peak_anonymous_bytes}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Measures and writes results/memory_source.json; 1 if memory grows by more than the labels and 5%."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--kernel", choices=KERNELS, default="FCNN")
    parser.add_argument("--rows", nargs="+", type=int, default=[50_000, 100_000, 200_000, 500_000])
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the temporary file")
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(run_pass(arguments.child, arguments.dataset, arguments.kernel)))
        return 0
    rows = measure(arguments)
    content = {"machine": machine_facts(), "dataset": arguments.dataset, "kernel": arguments.kernel, "rows": rows}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "memory_source.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report.write(arguments.results, arguments.docs)
    peaks = [row["peak_anonymous_bytes"] for row in rows]
    if None in peaks:
        return 0
    labels = 3 * 8 * (rows[-1]["rows"] - rows[0]["rows"])  # the labels, their int64 copy, and i mod k while it is made
    return 1 if peaks[-1] > 1.05 * peaks[0] + labels else 0


if __name__ == "__main__":
    raise SystemExit(main())
