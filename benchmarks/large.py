"""Many features and many rows: time against the floor and peak memory, each in a fresh process.

    python benchmarks/large.py --data-dir ../shared/data --features 8192 16384 --classes 100 1000
    python benchmarks/large.py --rows 2000000 --widths 512 1024

``--features P``: an embedding of P numbers (random Fourier features of CIFAR-100, in a file): statistics, 24 lambdas,
held-out rows, one point per class. Memory is counted in matrices of P x P float64. More than 100 classes are those of
CIFAR-100 split at random. ``--rows N``: N float16 embeddings (N x 512, ten memory-mapped .npy files that are made here)
in one pass; memory must not grow with N. Writes results/large.json and
the tables of docs/measured/large.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from ceilings import measure
from machine import machine_facts, measured_on, one_line
from memory import anonymous_bytes, last_json, run_watched

K, SHARDS = 100, 10
"""Of --rows: classes, files."""
TRAINING, HELD_OUT = 20_000, 2_000
"""Of --features: rows."""
_WATCH_INTERVAL = 0.01


def write_embedding(path: Path, p: int, data_dir: Path | None) -> None:
    """Random Fourier features of CIFAR-100 as a file of float32: a wide embedding, whose map is then the identity."""
    data = kd.load_dataset("cifar100", data_dir=data_dir)
    phi = kd.make_map("random_fourier", data, kd.standardize(data), n_features=p)
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(TRAINING + HELD_OUT, p))
    for start in range(0, len(X), 2048):
        X[start : start + 2048] = phi.transform(data.x_train[start : min(start + 2048, len(X))], dtype=np.float32)
    X.flush()
    np.save(path.with_suffix(".labels.npy"), data.y_train[: len(X)])


def features_child(path: Path, k: int) -> dict[str, Any]:
    """Statistics, path, choice and points with p features; the seconds of each."""
    X, y = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".labels.npy"))
    p = X.shape[1]
    y = y + 100 * np.random.default_rng(0).integers(0, max(1, k // 100), len(y))
    seconds, start = {}, time.perf_counter()
    before = anonymous_bytes()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    statistics = kd.RidgeStatistics(kd.Identity(p), k).update(X, y, rows=np.arange(TRAINING))
    lap("statistics")
    model = kd.fit_model(statistics, validation=(X[TRAINING:], y[TRAINING:]))
    lap("fit_model")
    points = kd.distill_model(model, points_per_class=1)
    lap("distill_model")
    lambdas = len(model.path.lambdas)
    return {
        "p": p,
        "n": TRAINING,
        "k": k,
        "seconds": seconds,
        "anonymous_before_bytes": before,
        "weight_relative_error": points.weight_error,
        "flops": {
            "statistics_float32": float(TRAINING) * p * p,
            "fit_model_float64": 4.0 / 3.0 * p**3 + 2.0 * (lambdas + 1) * p * p * k,
        },
    }


def write_shards(folder: Path, n: int, d: int) -> None:
    """Embeddings of 100 classes: a mean for each, and noise; float16."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((K, d)).astype(np.float32)
    per_file, block = n // SHARDS, 1 << 16
    for shard in range(SHARDS):
        X = np.lib.format.open_memmap(folder / f"x{shard}.npy", mode="w+", dtype=np.float16, shape=(per_file, d))
        y = rng.integers(0, K, per_file)
        for start in range(0, per_file, block):
            codes = y[start : start + block]
            X[start : start + block] = means[codes] + 4.0 * rng.standard_normal((len(codes), d), dtype=np.float32)
        X.flush()
        np.save(folder / f"y{shard}.npy", y)


def batches(folder: Path, n: int) -> Iterator[tuple[Any, Any]]:
    """(X, y) of n rows: the files one after the other, as memory maps."""
    per_file = n // SHARDS
    for shard in range(SHARDS):
        yield np.load(folder / f"x{shard}.npy", mmap_mode="r")[:per_file], np.load(folder / f"y{shard}.npy")[:per_file]


def rows_child(folder: Path, n: int) -> dict[str, Any]:
    """One pass over n rows of the files."""
    d = next(batches(folder, n))[0].shape[1]
    statistics = kd.RidgeStatistics(kd.Identity(d), K)
    before = anonymous_bytes()
    start = time.perf_counter()
    held = statistics.update_batches(batches(folder, n), holdout=0.001)
    seconds = time.perf_counter() - start
    model = kd.fit_model(statistics, validation=held)
    points = kd.distill_model(model)
    return {
        "rows": n,
        "seconds": seconds,
        "anonymous_before_bytes": before,
        "d": d,
        "file_bytes": n * d * 2,
        "flops": float(n) * d * d,
        "held_out": len(held),
        "weight_relative_error": points.weight_error,
    }


def watched(*words: str) -> dict[str, Any]:
    """The facts of a child, and the peak of its anonymous memory as seen from outside."""
    seen = run_watched([sys.executable, str(Path(__file__).resolve()), *words], _WATCH_INTERVAL)
    return {**last_json(seen.stdout), "peak_anonymous_bytes": seen.peak_anonymous_bytes}


def page(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = ["# Many features, many rows\n"]
    lines.append(
        "Seconds against the floor: the flops of the stage at the rate of the machine's own routine (ssyrk, dgemm), "
        "measured in the session of that row. Memory is what the process allocated at its peak, less what it had "
        "before. *Error* is the weight error of the points. The floor of the path counts "
        "4/3 p³ + 2 p² k for every λ; G is reduced to a band, where a model costs less than that, so that many classes "
        "can take less than the floor.\n"
    )
    if "features" in results:
        lines.append("## Features\n")
        lines.append(
            "| p | k | statistics s (floor) | 24 λ, choice s (floor) | points s | peak memory | in G | error |"
        )
        lines.append("|---|---|---|---|---|---|---|---|")
        for row in results["features"]:
            floors = (
                row["flops"]["statistics_float32"] / row["rates"]["ssyrk"],
                row["flops"]["fit_model_float64"] / row["rates"]["dgemm"],
            )
            peak = row["peak_anonymous_bytes"] - row["anonymous_before_bytes"]
            s = row["seconds"]
            lines.append(
                f"| {row['p']} | {row['k']} | {s['statistics']:.1f} ({floors[0]:.1f}) | "
                f"{s['fit_model']:.1f} ({floors[1]:.1f}) | {s['distill_model']:.1f} | {peak / 1e9:.2f} GB | "
                f"{peak / (8 * row['p'] ** 2):.2f} | {row['weight_relative_error']:.1e} |"
            )
        lines.append("\nEmbeddings in a memory-mapped file of float32, n = 20,000, one point per class.\n")
        lines.append(measured_on(results["features"], lambda row: f"p = {row['p']}, k = {row['k']}") + "\n")
    if "rows" in results:
        lines.append("## Rows\n")
        lines.append("| rows | features | file | pass s (floor) | memory allocated |")
        lines.append("|---|---|---|---|---|")
        for row in results["rows"]:
            peak = row["peak_anonymous_bytes"] - row["anonymous_before_bytes"]
            floor = row["flops"] / row["rates"]["ssyrk"]
            lines.append(
                f"| {row['rows']:,} | {row['d']} | {row['file_bytes'] / 1e9:.1f} GB | "
                f"{row['seconds']:.1f} ({floor:.1f}) | {peak / 1e6:.0f} MB |"
            )
        lines.append(
            "\nFloat16 embeddings from ten memory-mapped files through `update_batches`, one row in a "
            "thousand held out. The floor is that of the products; reading and converting float16 come on top.\n"
        )
        lines.append(measured_on(results["rows"], lambda row: f"{row['rows']:,} × {row['d']}") + "\n")
    lines.append("Written by `benchmarks/large.py`.\n")
    return "\n".join(lines)


def main() -> None:
    """Measures in fresh processes; or is one of them (``--child``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--features", type=int, nargs="*", default=[])
    parser.add_argument("--classes", type=int, nargs="+", default=[100])
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--widths", type=int, nargs="+", default=[512])
    parser.add_argument("--scratch", type=Path, help="folder for the files of --rows")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, folder, number = options.child
        facts = (features_child if what == "features" else rows_child)(Path(folder), int(number))
        print(json.dumps(facts))
        return
    store = options.results / "large.json"
    results: dict[str, Any] = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    results["ceilings"] = asdict(measure(3072))
    rates = {name: results["ceilings"][name] for name in ("ssyrk", "dgemm")}
    session = {"rates": rates, "machine": one_line(machine_facts())}
    if options.features:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            results["features"] = []
            for p in options.features:
                file = Path(folder) / f"{p}.npy"
                write_embedding(file, p, options.data_dir)
                for k in options.classes:
                    results["features"].append(watched("--child", "features", str(file), str(k)) | session)
                file.unlink()
    if options.rows:
        asked = {(n, d) for n in options.rows for d in options.widths}
        results["rows"] = [row for row in results.get("rows", []) if (row["rows"], row["d"]) not in asked]
        for d in options.widths:
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                write_shards(Path(folder), max(options.rows), d)
                results["rows"] += [watched("--child", "rows", folder, str(n)) | session for n in options.rows]
    options.results.mkdir(parents=True, exist_ok=True)
    store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (options.out / "large.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
