"""The figures of docs/explanation/theory.md, measured on MNIST: where the findings differ from the text of the paper.

    python benchmarks/theory.py --data-dir ../shared/data

Writes <docs>/theory.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.apps.kip.gram import GramObjective
from krrdistill.common.random import normal
from krrdistill.construct.closed_form import construct, dual, features_of_dual, gaussian_start
from krrdistill.construct.labels import learned_labels, one_hot_labels
from krrdistill.maps import FeatureMap
from machine import machine_facts, one_line

_HEAD = """\
# Where findings differ from the paper, measured

Written by `benchmarks/theory.py`. What is compared: [Theory](../explanation/theory.md).
"""
Array = np.ndarray[Any, np.dtype[np.float64]]


def error(W_S: Array, W: Array) -> float:
    """||W_S - W|| / ||W||."""
    return float(np.linalg.norm(W_S - W) / np.linalg.norm(W))


def gaussian(rows: int, columns: int, stream: int) -> Array:
    """Seeded standard normal numbers."""
    return normal(0, 1000 + stream, rows * columns).reshape(rows, columns)


def trained(data: kd.Dataset, kernel: str) -> tuple[kd.FeatureMap, Array]:
    """(map, W) of the original model."""
    scaling = kd.standardize(data)
    phi = kd.make_map(kernel, data, scaling)
    result = kd.distill(data.x_train, data.y_train, phi, stratify=False, precision="float64")
    return phi, result.model.W


def fourier_scale(data: kd.Dataset) -> list[str]:
    """Features divided by their largest entry, with the labels as they were (the paper) and divided alike."""
    phi, W = trained(data, "random_fourier")
    lines = ["| random Fourier, points per class | paper: features alone | features and labels |", "|---|---|---|"]
    for ipc in (1, 10, 50):
        D, Y = gaussian_start(W, ipc, seed=0)
        points = construct(D, Y, 0.0, lambda_=1.0, feature_limit=phi.feature_limit())
        alone, both = (error(kd.fit_features(points.F, labels), W) for labels in (Y, points.Y))
        lines.append(f"| {ipc} | {alone:.2g} | {both:.1e} |")
    return lines


def roots(data: kd.Dataset) -> list[str]:
    """Both roots of Theorem 4.1 up to the bound, identity map."""
    _, W = trained(data, "identity")
    lines = ["| λ_S / bound, identity, ten per class | plus root | minus root |", "|---|---|---|"]
    D, Y = gaussian_start(W, 10, seed=0)
    bound = 0.25 / float(np.linalg.norm(D, 2)) ** 2
    for fraction in (1e-6, 0.5, 1.0 - 1e-9):
        cells = []
        for root in ("plus", "minus"):
            F = features_of_dual(D, fraction * bound, root=root)
            cells.append(f"{error(kd.fit_features(F, Y, fraction * bound), W):.1e}")
        lines.append(f"| {fraction:.9g} | {' | '.join(cells)} |")
    return lines


def deep_linear(data: kd.Dataset) -> list[str]:
    """M = W_2 W_1, 784 -> 784 -> 1000: a trained W from k points, and a W outside of Range(M)."""
    d, p, k = data.input_dim, 1000, data.n_classes
    statistics = kd.RidgeStatistics(kd.Identity(d, preprocessing=kd.standardize(data)), k, precision="float64")
    statistics.update(data.x_train, data.y_train)
    M = gaussian(p, d, 1) @ gaussian(d, d, 2) / d
    W = np.linalg.solve(M @ statistics.gram @ M.T + 1e3 * np.eye(p), M @ statistics.cross.T).T.astype(np.float64)
    inverse = np.linalg.pinv(M)
    outside = gaussian(k, p, 3)
    distances = f"{error(W @ M @ inverse, W):.1e}; of a random one: {error(outside @ M @ inverse, outside):.2f}"
    lines = [
        f"Distance of the trained W (λ = 1000) from Range(M): {distances}.",
        "",
        "| deep linear, p = 1000 > d = 784, m | trained W | random W, best labels |",
        "|---|---|---|",
    ]
    for m in (k, k + 1, 2 * k, 784):
        Y = one_hot_labels(k, m // k) if m % k == 0 else gaussian(m, k, 4)
        Z = float(np.std(W)) * gaussian(m, d, 5) @ M.T / float(np.std(M)) / np.sqrt(d)
        F = features_of_dual(dual(W, Y, Z), 0.0) @ inverse.T @ M.T
        best = kd.fit_features(F, learned_labels(F, outside, 0.0))
        lines.append(f"| {m} | {error(kd.fit_features(F, Y), W):.1e} | {error(best, outside):.2f} |")
    return lines


def labels_only(data: kd.Dataset) -> list[str]:
    """Theorem 4.2 with training images as they are, balanced classes."""
    lines = ["| labels alone, m real images | identity, p = 784 | FCNN, p = 784 |", "|---|---|---|"]
    models = [trained(data, kernel) for kernel in ("identity", "FCNN")]
    ranks = []
    for m in (100, 400, 780, 790, 1000, 2000, 4000):
        cells = []
        for phi, W in models:
            F = phi.transform(data.x_train[:m], dtype="float64")
            cells.append(f"{error(kd.fit_features(F, learned_labels(F, W, 0.0)), W):.1e}")
            if m == 4000:
                ranks.append(int(np.linalg.matrix_rank(F)))
        lines.append(f"| {m} | {' | '.join(cells)} |")
    return [*lines, "", f"Rank of the features of 4000 images: identity {ranks[0]}, FCNN {ranks[1]}."]


def kip_minimum(data: kd.Dataset) -> list[str]:
    """KIP's loss per sample (labels solved again) of the closed form and of real images, n at most p and above."""
    phi, _ = trained(data, "FCNN")
    lines = ["| KIP's loss per sample, FCNN, m = 100 | closed form | real images |", "|---|---|---|"]
    for n in (500, 784, 5000):
        F = phi.transform(data.x_train[:n], dtype="float64")
        statistics = kd.RidgeStatistics(FeatureMap(phi.output_dim, ()), data.n_classes, precision="float64")
        statistics.update(F, data.y_train[:n])
        W = kd.fit_features(F, np.eye(data.n_classes)[data.y_train[:n]])  # lambda = 0
        distilled = np.asarray(features_of_dual(gaussian_start(W, 10, seed=0)[0], 0.0))
        objective = GramObjective((), statistics, dtype=np.float64)
        cells = [objective.loss_and_gradient(points, None)[0] / n for points in (distilled, F[:100])]
        lines.append(f"| n = {n} | {cells[0]:.1e} | {cells[1]:.1e} |")
    return lines


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--docs", type=Path, default=Path(__file__).resolve().parent.parent / "docs" / "measured")
    arguments = parser.parse_args()
    data = kd.load_dataset("mnist", data_dir=arguments.data_dir)
    lines = [f"Relative weight errors ‖W_S − W‖ / ‖W‖ on MNIST, {one_line(machine_facts())}.", ""]
    for part in (roots, labels_only, fourier_scale, deep_linear, kip_minimum):
        lines += [*part(data), ""]
    page = "\n".join([_HEAD, *lines]).rstrip() + "\n"
    (arguments.docs / "theory.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
