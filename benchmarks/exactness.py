"""Every cell of the exactness table: data sets x kernels x points per class x start x lambda_s x storage.

    python benchmarks/exactness.py --data-dir ../shared/data --datasets digits mnist cifar100 --out docs

Each cell distils, writes the file, reads it back and judges what was read. The original model is trained once per data
set, kernel and seed. Writes <out>/exactness.md and <out>/exactness.json and exits 1 if a cell misses its target.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.apps.reproduce.published import TABLE3
from krrdistill.pipeline import train
from krrdistill.problem import Problem
from machine import machine_facts, one_line

_HERE = Path(__file__).resolve().parent
KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
TARGETS = {"float64": (1e-6, 1.0), "float32": (1e-2, 0.998)}  # relative weight error, agreement
PUBLISHED = {key: row.original for key, row in TABLE3.items()}  # test accuracy (%) of the original models


def distil_cell(data: kd.Dataset, model: kd.RidgeModel, reference: Any, options: kd.DistillOptions) -> dict[str, Any]:
    """One cell, from the original model to the certificate of the reloaded file."""
    try:
        points = kd.distill_model(model, reference=reference if options.init == "real" else None, options=options)
    except kd.DataError as error:
        return {"error": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distilled.npz"
        points.save(path, embed_map=False)
        certificate = kd.DistilledDataset.load(path).verify(model, test=data)
    limit, agreement = TARGETS[options.store]
    met = certificate.weight_relative_error <= limit and certificate.prediction_agreement >= agreement
    if options.store == "float64":
        met = met and certificate.distilled_accuracy == certificate.original_accuracy
    return {
        **certificate.scalars(),
        "lambda_s": points.lambda_s,
        "met": met,
    }


def problem_of(data: kd.Dataset, phi: kd.FeatureMap, seed: int) -> Problem:
    """The published split of a data set."""
    options = kd.DistillOptions(seed=seed, stratify=False)
    return Problem.of("exactness", data.x_train, data.train_targets, phi, options)


def run_table(data: kd.Dataset, kernel: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells of one data set and kernel with the first seed."""
    scaling = kd.standardize(data)
    phi = kd.make_map(kernel, data, scaling, seed=arguments.seeds[0])
    trained = train(problem_of(data, phi, arguments.seeds[0]))
    known = problem_of(data, phi, arguments.seeds[0]).training
    reference = (data.x_train[known], data.y_train[known])
    rows = []
    for ipc, init, reg_s, store in itertools.product(
        arguments.ipcs, ("noise", "real"), (False, True), ("float64", "float32")
    ):
        lambda_s: float | str = "auto" if reg_s else 0.0
        options = kd.DistillOptions(
            points_per_class=ipc, init=init, lambda_s=lambda_s, store=store, seed=arguments.seeds[0]
        )
        cell = {"dataset": data.name, "kernel": kernel, "ipc": ipc, "init": init, "store": store}
        cell |= {"reg_s": reg_s, **distil_cell(data, trained.model, reference, options)}
        rows.append(cell)
        print(json.dumps(cell), file=sys.stderr, flush=True)
    return rows


def original_accuracies(data: kd.Dataset, kernel: str, seeds: list[int]) -> dict[str, Any]:
    """Test accuracy of the original model per seed, and what the paper reports."""
    scaling = kd.standardize(data)
    accuracies, lambdas = [], []
    for seed in seeds:
        phi = kd.make_map(kernel, data, scaling, seed=seed)
        model = train(problem_of(data, phi, seed)).model
        accuracies.append(100 * model.score(data.x_test, data.y_test))
        lambdas.append(model.lambda_)
    return {
        "dataset": data.name,
        "kernel": kernel,
        "accuracies": accuracies,
        "lambdas": lambdas,
        "mean": float(np.mean(accuracies)),
        "published": PUBLISHED.get((data.name, kernel)),
    }


def to_markdown(facts: dict[str, Any], originals: list[dict[str, Any]], cells: list[dict[str, Any]]) -> str:
    """The page docs/measured/exactness.md."""
    lines = [
        "# Exactness of every cell",
        "",
        "Written by `benchmarks/exactness.py`. Every figure comes from a file after it was written and read back.",
        "",
        f"Machine: {one_line(facts)}",
        "",
        "## Original models: test accuracy (%)",
        "",
        "| data set | kernel | seeds | mean | published | lambda |",
        "|---|---|---|---|---|---|",
    ]
    for row in originals:
        listed = " ".join(f"{value:.2f}" for value in row["accuracies"])
        published = "–" if row["published"] is None else f"{row['published']:.2f}"
        lambdas = " ".join(f"{value:.3g}" for value in row["lambdas"])
        lines.append(f"| {row['dataset']} | {row['kernel']} | {listed} | {row['mean']:.2f} | {published} | {lambdas} |")
    lines += [
        "",
        "## Cells",
        "",
        "| data set | kernel | ipc | start | λ_S | storage | accuracy (%) | agreement | weight error | cond |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_cell_line(cell) for cell in cells]
    missed = sum(not cell["met"] for cell in cells if "error" not in cell)
    refused = sum("error" in cell for cell in cells)
    lines += ["", f"{len(cells)} cells, {missed} missed their target, {refused} impossible (see their message).", ""]
    return "\n".join(lines)


def _cell_line(cell: dict[str, Any]) -> str:
    head = f"| {cell['dataset']} | {cell['kernel']} | {cell['ipc']} | {cell['init']} |"
    if "error" in cell:
        return f"{head} {'reg-s' if cell['reg_s'] else '0'} | {cell['store']} | {cell['error']} | | | |"
    flag = "" if cell["met"] else " **missed**"
    return (
        f"{head} {cell['lambda_s']:.3g} | {cell['store']} | "
        f"{100 * cell['original_accuracy']:.2f} → {100 * cell['distilled_accuracy']:.2f} | "
        f"{cell['prediction_agreement']:.4f} | {cell['weight_relative_error']:.1e}{flag} | {cell['condition']:.1e} |"
    )


def main() -> int:
    """Runs what was asked for; 1 if a cell missed its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--datasets", nargs="+", default=["digits", "mnist", "cifar100"])
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS))
    parser.add_argument("--ipcs", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    arguments = parser.parse_args()
    originals, cells = [], []
    for name in arguments.datasets:
        data = kd.load_dataset(name, data_dir=arguments.data_dir)
        for kernel in arguments.kernels:
            originals.append(original_accuracies(data, kernel, arguments.seeds))
            cells += run_table(data, kernel, arguments)
    facts = machine_facts()
    for folder in (arguments.out, arguments.results):
        folder.mkdir(parents=True, exist_ok=True)
    (arguments.out / "exactness.md").write_text(to_markdown(facts, originals, cells), encoding="utf-8")
    content = {"machine": facts, "originals": originals, "cells": cells}
    (arguments.results / "exactness.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if any(not cell["met"] for cell in cells if "error" not in cell) else 0


if __name__ == "__main__":
    raise SystemExit(main())
