"""Every kind of map on real data: original and distilled accuracy, and how exact the file is.

    python benchmarks/maps.py --data-dir ../shared/data --out docs

Each row distils, writes the file, reads it back and judges what was read. Writes <out>/maps.md and
<out>/maps.json; exits 1 if a row that theory allows to be exact is not (relative weight error above 1e-6).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from machine import machine_facts, one_line

_HERE = Path(__file__).resolve().parent
EXACT = 1e-6


@dataclass(frozen=True)
class Row:
    """One map on one data set; ``exact`` where a theorem, or the count of unknowns, promises it."""

    dataset: str
    label: str
    kernel: str
    exact: bool
    options: dict[str, Any] = field(default_factory=dict)
    map_options: dict[str, Any] = field(default_factory=dict)


def signed_root(X: Any) -> Any:
    """A user's map onto all of R^d: sign(x) sqrt(|x|)."""
    return np.sign(X) * np.sqrt(np.abs(X))


def signed_square(F: Any) -> Any:
    """The inverse of ``signed_root``."""
    return F * np.abs(F)


def rows() -> list[Row]:
    """The table. Sizes are such that all of it takes minutes on one core."""
    fourier = "random_fourier"
    real, ten = {"init": "real"}, {"points_per_class": 10}
    return [
        Row("mnist", "deep linear, p = 1000 > d, ipc 1", "deep_linear", True, {}, {"widths": [900, 1000]}),
        Row("mnist", "deep linear, p = 1000 > d, ipc 10", "deep_linear", True, {**real, **ten}, {"widths": [1000]}),
        Row("mnist", "Fourier, Gaussian, p = 500 < d", fourier, True, {**real, **ten}, {"n_features": 500}),
        Row("mnist", "Fourier, Laplacian, p = 500", fourier, True, ten, _spectral("laplacian")),
        Row("mnist", "Fourier, Matérn 3/2, p = 500", fourier, True, ten, _spectral("matern")),
        Row("mnist", "Fourier, Gaussian, p = 1000 > d, ipc 5", fourier, True, _points(5), {"n_features": 1000}),
        Row("mnist", "FCNN, p = 1000 > d, ipc 5", "FCNN", True, _points(5), {"widths": [1000]}),
        Row("mnist", "convolution 3×3, stride 2, 3 channels", "conv", True, {**real, **ten}),
        Row("mnist", "two convolutions, 4 and 6 channels", "conv", True, ten, _two_convolutions()),
        Row("mnist", "user's map with inverse", "user", True, {**real, **ten}),
        Row("mnist", "labels only, FCNN p = 300, m = 200", "FCNN", False, _labels(20), {"widths": [300]}),
        Row("mnist", "labels only, FCNN p = 300, m = 300", "FCNN", True, _labels(30), {"widths": [300]}),
        Row("cifar100", "convolution 3×3, stride 2, 4 channels", "conv", True, {}, {"channels": [4]}),
        Row("cifar100", "Fourier, Matérn 3/2, p = 1000 < d", fourier, True, real, _spectral("matern", 1000)),
        Row("mnist", "Fourier, Gaussian, p = 1000 > d, ipc 1", fourier, False, real, {"n_features": 1000}),
        Row("mnist", "FCNN, p = 1000 > d, ipc 1", "FCNN", False, real, {"widths": [1000]}),
    ]


def _points(points: int) -> dict[str, Any]:
    return {"init": "real", "points_per_class": points}


def _labels(points: int) -> dict[str, Any]:
    return {**_points(points), "labels_only": True}


def _spectral(name: str, p: int = 500) -> dict[str, Any]:
    return {"spectral": name, "n_features": p}


def _two_convolutions() -> dict[str, Any]:
    return {"channels": [4, 6], "kernel_size": 2, "stride": 2, "padding": 0}


def measure(row: Row, data: kd.Dataset) -> dict[str, Any]:
    """One row, from the data to the certificate of the reloaded file."""
    start = time.perf_counter()
    scaling = kd.standardize(data)
    phi: Any
    if row.kernel == "user":
        phi = kd.UserMap(signed_root, data.input_dim, inverse=signed_square, preprocessing=scaling)
    else:
        phi = kd.make_map(row.kernel, data, scaling, **row.map_options)
    result = kd.distill(data.x_train, data.y_train, phi, stratify=False, **row.options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distilled.npz"
        result.distilled.save(path, embed_map=False)
        given = phi if isinstance(phi, kd.UserMap) else None
        certificate = kd.DistilledDataset.load(path, feature_map=given).verify(result.model, test=data)
    return {
        "dataset": row.dataset,
        "map": row.label,
        "d": phi.input_dim,
        "p": phi.output_dim,
        "m": len(result.distilled.X),
        **result.solution,
        **certificate.scalars(),
        "seconds": time.perf_counter() - start,
        "met": not row.exact or certificate.weight_relative_error <= EXACT,
        "exact": row.exact,
    }


def to_markdown(facts: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """The page docs/measured/maps.md."""
    lines = [
        "# Every kind of map on real data",
        "",
        "Written by `benchmarks/maps.py`. Every figure comes from a file after it was written and read back;",
        "storage is float64, statistics are float32, λ by validation. *Promised*: a theorem, or enough unknowns,",
        "allows 1e-6.",
        "How the maps work: [feature-maps.md](../guide/feature-maps.md).",
        "",
        f"Machine: {one_line(facts)}",
        "",
        "| data set | map | d | p | m | inputs | promised | accuracy (%) | agreement | weight error | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        method = cell["method"].replace("_", " ")
        steps = f", {cell['steps']} steps" if "steps" in cell else ""
        accuracy = f"{100 * cell['original_accuracy']:.2f} → {100 * cell['distilled_accuracy']:.2f}"
        lines.append(
            f"| {cell['dataset']} | {cell['map']} | {cell['d']} | {cell['p']} | {cell['m']} | {method}{steps} | "
            f"{'yes' if cell['exact'] else 'no'} | {accuracy} | {cell['prediction_agreement']:.4f} | "
            f"{cell['weight_relative_error']:.1e}{'' if cell['met'] else ' **missed**'} | {cell['seconds']:.0f} |"
        )
    return "\n".join([*lines, ""])


def write(cells: dict[tuple[str, str], dict[str, Any]], out: Path, results: Path) -> list[dict[str, Any]]:
    """Both files, in the order of the table; returns the rows."""
    facts = machine_facts()
    for folder in (out, results):
        folder.mkdir(parents=True, exist_ok=True)
    ordered = [cells[row.dataset, row.label] for row in rows() if (row.dataset, row.label) in cells]
    (out / "maps.md").write_text(to_markdown(facts, ordered), encoding="utf-8")
    content = json.dumps({"machine": facts, "cells": ordered}, indent=1)
    (results / "maps.json").write_text(content + "\n", encoding="utf-8")
    return ordered


def main() -> int:
    """Measures the rows asked for, writing after each; 1 if one that should be exact is not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--resume", action="store_true", help="keep the rows that <results>/maps.json has")
    arguments = parser.parse_args()
    stored = arguments.results / "maps.json"
    known = json.loads(stored.read_text(encoding="utf-8"))["cells"] if arguments.resume and stored.exists() else []
    cells: dict[tuple[str, str], dict[str, Any]] = {(cell["dataset"], cell["map"]): cell for cell in known}
    loaded: dict[str, kd.Dataset] = {}
    for row in rows():
        if (row.dataset, row.label) in cells:
            continue
        if row.dataset not in loaded:
            loaded[row.dataset] = kd.load_dataset(row.dataset, data_dir=arguments.data_dir)
        cells[row.dataset, row.label] = measure(row, loaded[row.dataset])
        print(json.dumps(cells[row.dataset, row.label]), file=sys.stderr, flush=True)
        write(cells, arguments.out, arguments.results)
    return 0 if all(cell["met"] for cell in write(cells, arguments.out, arguments.results)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
