"""How near an exact distilled set can stay to the real images it starts from: the published construction and ours.

    python benchmarks/realism.py --data-dir ../shared/data --out docs

For every data set and kernel: Corollary 4.1.1 with one-hot labels, with labels W phi(x) (``--init real``), and the
nearest set (``--realism 1``). Every figure comes from a file after it was
written and read back. Writes <out>/figures/realism_<data set>_<kernel>.png and <out>/figures/realism.json, prints the
table; exits 1 if a set misses a relative weight error of 1e-6.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import krrdistill as kd
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.construct.closed_form import construct, dual
from krrdistill.construct.labels import one_hot_labels
from krrdistill.pipeline import train
from krrdistill.problem import Problem
from krrdistill.ridge.feature_gram import pseudo_inverse
from machine import machine_facts, one_line

KERNELS = ("identity", "random_fourier", "FCNN")
METHODS = {
    "one-hot": "Corollary 4.1.1, one-hot labels",
    "published": "Corollary 4.1.1, labels WΦ",
    "nearest": "nearest exact set",
}
TARGET = 1e-6
PICTURED = 10


def one_hot_start(
    distilled: kd.DistilledDataset, W: npt.NDArray[np.float64], near: npt.NDArray[Any]
) -> kd.DistilledDataset:
    """Corollary 4.1.1 with one-hot labels, at lambda_s = 0, and the preimage nearest to the real points."""
    feature_map = distilled.feature_map
    Y = one_hot_labels(len(W), len(near) // len(W))
    D = dual(W, Y, pseudo_inverse(feature_map.on_standardised.transform(near)))
    points = construct(D, Y, 0.0, lambda_=1.0, feature_limit=feature_map.feature_limit())
    U = feature_map.standard_preimage(points.F, near=near)
    return replace(distilled, inputs=U, Y=points.Y, lambda_s=0.0)


def judge(distilled: kd.DistilledDataset, model: kd.RidgeModel, data: kd.Dataset, real: Any) -> tuple[Any, Any]:
    """Certificate and distances of what is read back, and its images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distilled.npz"
        distilled.save(path, embed_map=False)
        reloaded = kd.DistilledDataset.load(path)
    certificate = reloaded.verify(model, test=data)
    images = reloaded.samples
    near = likeness(images, real, value_range(data.x_train))
    distances = {"mse": near.mse, "psnr": near.psnr, "out_of_range": near.out_of_range}
    return {**certificate.scalars(), **distances}, images


def run_cell(data: kd.Dataset, kernel: str, ipc: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All methods on one data set and kernel: rows of the table, and the images.

    The original is trained once; the seconds of the first row include it.
    """
    scaling = kd.standardize(data)
    phi = kd.make_map(kernel, data, scaling)
    options = kd.DistillOptions(points_per_class=ipc, init="real", stratify=False)
    rows, images = [], {}
    start = time.perf_counter()
    problem = Problem.of("realism", data.x_train, data.train_targets, phi, options)
    model, chosen = train(problem).model, problem.start_rows()
    real, reference = data.x_train[chosen], (data.x_train[problem.training], data.y_train[problem.training])
    for method in METHODS:
        asked = 1.0 if method == "nearest" else None
        distilled = kd.distill_model(model, reference=reference, options=options, realism=asked)
        seconds = time.perf_counter() - start
        if method == "one-hot":
            distilled = one_hot_start(distilled, model.W, scaling.standardise(real))
        found, images[method] = judge(distilled, model, data, real)
        rows.append({"dataset": data.name, "kernel": kernel, "ipc": ipc, "method": method, "seconds": seconds, **found})
        print(json.dumps(rows[-1]), flush=True)
        start = time.perf_counter()
    return rows, {"real": real, **images}


def draw(images: dict[str, Any], data: kd.Dataset, path: Path) -> None:
    """One row per method, the first classes in columns; pixels out of range are clipped, nothing is stretched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = value_range(data.x_train)
    columns = min(PICTURED, data.n_classes)
    figure = Figure(figsize=(columns * 0.8 + 1.4, len(images) * 0.84 + 0.3), dpi=110)
    FigureCanvasAgg(figure)
    labels = {"real": "real", **METHODS}
    for row, (method, shown) in enumerate(images.items()):
        for column in range(columns):
            axes = figure.add_subplot(len(images), columns, row * columns + column + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            picture = np.clip((np.asarray(shown[column], dtype=float) - low) / (high - low), 0.0, 1.0)
            axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            if column == 0:
                text = labels[method].replace(", ", ",\n").replace("exact set", "\nexact set")
                axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=7)
    figure.subplots_adjust(left=0.16, right=0.995, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/guide/realism.md."""
    lines = [
        "| data set | map | per class | set | MSE | PSNR (dB) | out of range | weight error | agreement | cond | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error, agreement = row["weight_relative_error"], row["prediction_agreement"]
        lines.append(
            f"| {row['dataset']} | {row['kernel']} | {row['ipc']} | {METHODS[row['method']]} | {row['mse']:.2e} | "
            f"{row['psnr']:.1f} | {100 * row['out_of_range']:.1f} % | {error:.0e} | {agreement:.4f} | "
            f"{row['condition']:.0e} | {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs the cells that were asked for; 1 if a set is not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar100"])
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS))
    parser.add_argument("--ipc", type=int, nargs="+", default=[10], help="points per class; the last is drawn")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    arguments = parser.parse_args()
    store = arguments.out / "figures" / "realism.json"
    known = json.loads(store.read_text(encoding="utf-8"))["cells"] if store.is_file() else []
    rows: list[dict[str, Any]] = []
    for name in arguments.datasets:
        data = kd.load_dataset(name, data_dir=arguments.data_dir)
        for kernel in arguments.kernels:
            for ipc in arguments.ipc:
                found, images = run_cell(data, kernel, ipc)
                rows += found
                key = ("dataset", "kernel", "ipc")
                known = [row for row in known if any(row[part] != found[0][part] for part in key)] + found
            draw(images, data, arguments.out / "figures" / f"realism_{name}_{kernel}.png")
            content = {"machine": machine_facts(), "cells": known}
            store.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(to_markdown(known))
    print(one_line(machine_facts()))
    return 1 if any(row["weight_relative_error"] > TARGET for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
