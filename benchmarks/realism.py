"""How near an exact distilled set can stay to the real images it starts from: the published construction and ours.

    python benchmarks/realism.py --data-dir ../shared/data
    python benchmarks/realism.py --page-only                             # the page again from realism.json
    python benchmarks/realism.py --readme docs/figures/readme.png --data-dir ../shared/data

For every data set and kernel: Corollary 4.1.1 with one-hot labels, with labels W phi(x) (``--init real``), and the
nearest set (``--realism 1``). Every figure comes from a file after it was
written and read back. Writes <out>/figures/realism_<data set>_<kernel>.png, <out>/figures/realism.json and the table of
the page; rows that were not measured again keep their date. Exits 1 if a set misses a relative weight error of 1e-6.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import krrdistill as kd
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.report.rows import Panel, PictureRow, drawn, rows_figure, to_file
from krrdistill.apps.reproduce import FigureOptions, draw_figures
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
START, END = "<!-- measured: written by benchmarks/realism.py -->", "<!-- end of what was measured -->"


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


def draw(images: dict[str, Any], data: kd.Dataset, title: str, path: Path) -> None:
    """One row per method, the first classes in columns; pixels out of range are clipped, nothing is stretched."""
    limits = value_range(data.x_train)
    labels = {"real": "real images", **{name: text.replace(", ", ",\n") for name, text in METHODS.items()}}
    labels["nearest"] = "nearest\nexact set"
    rows = tuple(PictureRow(labels[name], "", drawn(of, data.n_classes, limits)) for name, of in images.items())
    panel = Panel(title, data.class_names, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_file(rows_figure([panel]), "png"))


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/measured/realism.md."""
    certified = "weight error | agreement | cond"
    lines = [
        f"| data set | map | per class | set | MSE | PSNR (dB) | out of range | {certified} | s | measured |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error, agreement = row["weight_relative_error"], row["prediction_agreement"]
        lines.append(
            f"| {row['dataset']} | {row['kernel']} | {row['ipc']} | {METHODS[row['method']]} | {row['mse']:.2e} | "
            f"{row['psnr']:.1f} | {100 * row['out_of_range']:.1f} % | {error:.0e} | {agreement:.4f} | "
            f"{row['condition']:.0e} | {row['seconds']:.1f} | {row['measured']} |"
        )
    return "\n".join(lines)


def write_page(page: Path, stored: dict[str, Any]) -> None:
    """Puts the table, and the machine of its newest rows, into the page."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END)
    middle = f"{to_markdown(stored['cells'])}\n\nThe newest rows: {one_line(stored['machine'])}."
    page.write_text(f"{before}{START}\n{middle}\n{END}{after}", encoding="utf-8")


def sort_key(row: dict[str, Any]) -> tuple[int, ...]:
    """Rows in the order of the page, whenever they were measured."""
    names = ("digits", "mnist", "cifar10", "cifar100")
    return (names.index(row["dataset"]), KERNELS.index(row["kernel"]), row["ipc"], list(METHODS).index(row["method"]))


def main() -> int:
    """Runs the cells that were asked for; 1 if a set is not exact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar100"])
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS))
    parser.add_argument("--ipc", type=int, nargs="+", default=[10], help="points per class; the last is drawn")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--page", type=Path, default=Path("docs/measured/realism.md"))
    parser.add_argument("--page-only", action="store_true", help="the page again, from what was stored")
    parser.add_argument("--readme", type=Path, metavar="PNG", help="only the picture of the README, and a .json beside")
    arguments = parser.parse_args()
    figures = arguments.out / "figures"
    if arguments.readme is not None:
        return readme(arguments.readme, arguments.data_dir, tuple(arguments.datasets))
    store = figures / "realism.json"
    known = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {"cells": []}
    rows: list[dict[str, Any]] = []
    today = f"{datetime.now(timezone.utc):%Y-%m-%d}, {kd.__version__}"
    for name in () if arguments.page_only else arguments.datasets:
        data = kd.load_dataset(name, data_dir=arguments.data_dir)
        for kernel in arguments.kernels:
            for ipc in arguments.ipc:
                found, images = run_cell(data, kernel, ipc)
                found = [{**row, "measured": today} for row in found]
                rows += found
                key = ("dataset", "kernel", "ipc")
                kept = [row for row in known["cells"] if any(row[part] != found[0][part] for part in key)]
                known = {"machine": machine_facts(), "cells": sorted(kept + found, key=sort_key)}
            draw(images, data, f"{name}, {kernel}, {ipc} per class", figures / f"realism_{name}_{kernel}.png")
            store.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write_page(arguments.page, known)
    return 1 if any(row["weight_relative_error"] > TARGET for row in rows) else 0


def readme(picture: Path, data_dir: Path | None, datasets: tuple[str, ...]) -> int:
    """The figure "realism" of ``krrdistill reproduce figures`` for the README; 1 if a set is not exact."""
    options = FigureOptions(datasets=datasets, only=("realism",), max_seconds=3600.0)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = draw_figures(options, folder=Path(folder), data_dir=data_dir)
    picture.write_bytes(made.files["realism.png"])
    picture.with_suffix(".json").write_text(json.dumps(made.document, indent=1) + "\n", encoding="utf-8")
    rows = [row for part in made.document["figures"][0]["parts"] for row in part["rows"][1:]]
    return 1 if any(row["weight_relative_error"] > TARGET for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
