"""Labels only (Theorem 4.2): the error of learned labels for m real points, and its drop at m = p.

    python benchmarks/labels_only.py --data-dir ../shared/data --out docs

MNIST, an FCNN with p = 100, 200 and 400 features; the points are the first m of a class-balanced order. Writes
<out>/labels-only.md, <results>/labels-only.json and <out>/figures/labels-only.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.construct.labels import labels_only_errors
from machine import machine_facts, one_line

_HERE = Path(__file__).resolve().parent
WIDTHS = (100, 200, 400)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5)  # m / p
CLASSES = 10


def measure(data: kd.Dataset, p: int) -> dict[str, Any]:
    """Weight error and test accuracy for several m."""
    scaling = kd.standardize(data)
    phi = kd.FCNN(data.input_dim, [p], preprocessing=scaling)
    sizes = sorted({CLASSES * round(share * p / CLASSES) for share in _SHARES} | {p - CLASSES})
    result = kd.distill(
        data.x_train,
        data.y_train,
        phi,
        stratify=False,
        init="real",
        labels_only=True,
        points_per_class=max(sizes) // CLASSES,
    )
    W, F = result.model.W, result.distilled.features()
    test = phi.transform(data.x_test, dtype="float64")
    accuracies = [_accuracy(test, kd.fit_features(F[:m], F[:m] @ W.T), data.y_test) for m in sizes]
    return {
        "p": p,
        "m": sizes,
        "weight_error": labels_only_errors(F, W, sizes),
        "accuracy": accuracies,
        "original_accuracy": _accuracy(test, W, data.y_test),
    }


def _accuracy(features: Any, W: Any, labels: Any) -> float:
    return float(np.mean((features @ W.T).argmax(axis=1) == labels))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against m / p, one line per p."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot(np.array(row["m"]) / row["p"], row["weight_error"], "o-", markersize=3, label=f"p = {row['p']}")
    axes.axvline(1.0, color="0.6", linewidth=1, linestyle="--")
    axes.set(xlabel="points m / features p", ylabel="relative weight error", yscale="log")
    axes.set_title("Real inputs with learned labels, MNIST, FCNN")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def to_markdown(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The page docs/measured/labels-only.md."""
    lines = [
        "# Labels only (Theorem 4.2)",
        "",
        "Written by `benchmarks/labels_only.py`. Inputs are real training points, kept as they are; labels are",
        "Y = Φ_S Wᵀ. The error is ‖W_S − W‖ / ‖W‖ = ‖W (Φ_S⁺Φ_S − I)‖ / ‖W‖: it stays above a tenth until m is",
        "nearly p and is rounding from m = p on. One run of the command shows the same for its own m:",
        "",
        "    krrdistill distill --dataset mnist --kernel FCNN --widths 200 --init real --labels-only --ipc 20",
        "",
        "![error against m / p](figures/labels-only.png)",
        "",
        f"Machine: {one_line(facts)}",
        "",
        "| p | m | m / p | weight error | test accuracy (%) | original (%) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        for m, error, accuracy in zip(row["m"], row["weight_error"], row["accuracy"], strict=True):
            original = f"{100 * row['original_accuracy']:.2f}"
            share = f"{m / row['p']:.2f}"
            lines.append(f"| {row['p']} | {m} | {share} | {error:.1e} | {100 * accuracy:.2f} | {original} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures, draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    arguments = parser.parse_args()
    data = kd.load_dataset("mnist", data_dir=arguments.data_dir)
    rows = [measure(data, p) for p in WIDTHS]
    facts = machine_facts()
    draw(rows, arguments.out / "figures" / "labels-only.png")
    (arguments.out / "labels-only.md").write_text(to_markdown(facts, rows), encoding="utf-8")
    content = json.dumps({"machine": facts, "rows": rows}, indent=1)
    (arguments.results / "labels-only.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
