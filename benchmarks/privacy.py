"""The measured part of docs/privacy.md: accuracy against epsilon, and audits of files.

    python benchmarks/privacy.py curve --data-dir ../shared/data --dataset mnist --kernel FCNN --draws 5
    python benchmarks/privacy.py audit --data-dir ../shared/data --dataset mnist --kernel identity
    python benchmarks/privacy.py page

The first two write <results>/privacy-*.json; every call writes <docs>/privacy.md and <docs>/figures/privacy-*.png again
from all of these files. Predictions of a released file are those of its private model (its certificate says so), so the
curve scores the models.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from krrdistill.apps import privacy
from krrdistill.apps.privacy.release import default_norm_bound, public_inputs
from machine import machine_facts, one_line

ROOT = Path(__file__).resolve().parent.parent
EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
DELTA = 1e-5
START, END = "<!-- measured by benchmarks/privacy.py -->", "<!-- end -->"
COLORS = {"statistics": "#1f5f8b", "output": "#e07b39"}


def curve(data: kd.Dataset, kernel: str, draws: int) -> dict[str, Any]:
    """Test accuracy of private models, ``draws`` for each epsilon and mechanism, and of the model without privacy."""
    phi = public_inputs(data, kernel, {}, seed=0)
    B = default_norm_bound(phi)
    reference = kd.distill(data.x_train, data.y_train, phi, stratify=False)
    original = reference.model.score(data.x_test, data.y_test)
    clipped = privacy.clipped_statistics(data.x_train, data.y_train, phi, data.n_classes, norm_bound=B)
    features = phi.transform(data.x_test, dtype="float64")
    rows = []
    for mechanism in privacy.MECHANISMS:
        for epsilon in EPSILONS:
            budget = privacy.PrivacyBudget(epsilon, DELTA)
            models = [privacy.perturb(clipped, mechanism, budget) for _ in range(draws)]
            accuracies = [float(np.mean((features @ model.W.T).argmax(axis=1) == data.y_test)) for model in models]
            row = {"mechanism": mechanism, "epsilon": epsilon, "lambda": models[0].lambda_, "accuracies": accuracies}
            print(json.dumps(row), flush=True)
            rows.append(row)
    facts = {"dataset": data.name, "kernel": kernel, "n": clipped.statistics.n, "p": phi.output_dim, "norm_bound": B}
    clipping = {"clipped_share": clipped.n_clipped / clipped.statistics.n}  # a fact about public benchmark data
    return {**facts, **clipping, "original": original, "draws": draws, "rows": rows}


def audit(data: kd.Dataset, kernel: str) -> dict[str, Any]:
    """Audits of the files of a noise and of a real start, ten per class."""
    scaling = kd.standardize(data)
    phi, rows = kd.make_map(kernel, data, scaling), []
    for init in ("noise", "real"):
        options = kd.DistillOptions(points_per_class=10, init=init, include_weights=True)
        result = kd.distill(data.x_train, data.y_train, phi, options=options, stratify=False)
        found = privacy.audit_file(result.distilled, data, privacy.PrivacyBudget(1.0, DELTA))
        noise = privacy.noise_deviation(result.distilled)
        rows.append({"init": init, "noise": noise, **found})
    return {"dataset": data.name, "kernel": kernel, "rows": rows}


def curve_lines(result: dict[str, Any]) -> list[str]:
    """The table of one curve."""
    name, longer = f"{result['dataset']}-{result['kernel']}", 100 * result["clipped_share"]
    facts = f"n = {result['n']}, p = {result['p']}, B = {result['norm_bound']:.4g} ({longer:.1f} % are longer)"
    reference = f"without privacy, λ by validation: {100 * result['original']:.2f}"
    text = f"{facts}, δ = {DELTA:g}. Test accuracy in %, mean and range of {result['draws']} draws; {reference}."
    lines = [f"### {result['dataset']}, {result['kernel']}", "", text, one_line(result["machine"]) + ".", ""]
    lines += [f"![accuracy against ε](figures/privacy-{name}.png)", ""]
    lines += ["| ε | noise on (G, C) | λ | noise on W | λ |", "|---|---|---|---|---|"]
    found = {(row["mechanism"], row["epsilon"]): row for row in result["rows"]}
    for epsilon in sorted({row["epsilon"] for row in result["rows"]}):
        cells = []
        for mechanism in privacy.MECHANISMS:
            row = found[mechanism, epsilon]
            accuracies = 100 * np.asarray(row["accuracies"])
            spread = f" ({accuracies.min():.2f} … {accuracies.max():.2f})" if len(accuracies) > 1 else ""
            cells += [f"{accuracies.mean():.2f}{spread}", f"{row['lambda']:.3g}"]
        lines.append(f"| {epsilon:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def audit_lines(results: list[dict[str, Any]]) -> list[str]:
    """The table of all audits."""
    head = ("data set, kernel", "start", "error of W rebuilt", "nearest training sample, RMS: median (held-out)",
            "share near", "σ of Z in the file", "σ of Theorem 6.2", "B", "σ_min", "violated")  # fmt: skip
    lines = [
        "### Audits: ten points per class, ε = 1, δ = 1e-5",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for result in results:
        for row in result["rows"]:
            theorem, near = row["theorem"], row["neighbours"]
            cells = (
                f"{result['dataset']}, {result['kernel']}",
                row["init"],
                f"{row['reconstruction']['relative_error']:.1e}",
                f"{near['median']:.3g} ({near['baseline_median']:.3g})",
                f"{100 * near['near_share']:.1f} %",
                f"{row['noise']:.3g}",
                "none" if theorem["sigma"] is None else f"{theorem['sigma']:.3g}",
                f"{theorem['norm_bound']:.4g}",
                f"{theorem['smallest_singular_value']:.3g}",
                ", ".join(c["name"] for c in theorem["conditions"] if not c["holds"]),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def plot(result: dict[str, Any], figures: Path) -> None:
    """<figures>/privacy-NAME-KERNEL.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    names = {"statistics": "noise on (G, C)", "output": "noise on W"}
    for mechanism, name in names.items():
        rows = [row for row in result["rows"] if row["mechanism"] == mechanism]
        epsilons = [row["epsilon"] for row in rows]
        accuracies = [100 * np.asarray(row["accuracies"]) for row in rows]
        axis.semilogx(epsilons, [a.mean() for a in accuracies], "o-", ms=4, color=COLORS[mechanism], label=name)
        low, high = [a.min() for a in accuracies], [a.max() for a in accuracies]
        axis.fill_between(epsilons, low, high, color=COLORS[mechanism], alpha=0.2)
    axis.axhline(100 * result["original"], color="k", ls="--", lw=1, label="without privacy")
    axis.set_xlabel("ε (δ = 1e-5)")
    axis.set_ylabel("test accuracy (%)")
    axis.set_ylim(bottom=0.0)
    axis.set_title(f"{result['dataset']}, {result['kernel']}")
    axis.legend(fontsize="small", loc="lower right")
    figures.mkdir(parents=True, exist_ok=True)
    path = figures / f"privacy-{result['dataset']}-{result['kernel']}.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})


def write_page(results: Path, docs: Path) -> None:
    """Puts what was measured between the two marks of <docs>/privacy.md."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("privacy-*.json"))]
    curves, audits = [r for r in read if "original" in r], [r for r in read if "original" not in r]
    lines = [line for result in curves for line in curve_lines(result)] + audit_lines(audits)
    for result in curves:
        plot(result, docs / "figures")
    page = docs / "privacy.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    page.write_text("\n".join([before + START, "", *lines, END + after]), encoding="utf-8")


def main() -> None:
    """Measures one part, if any, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["curve", "audit", "page"])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--kernel", default="identity")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    if arguments.part != "page":
        data = kd.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
        measured = (
            curve(data, arguments.kernel, arguments.draws)
            if arguments.part == "curve"
            else audit(data, arguments.kernel)
        )
        arguments.results.mkdir(parents=True, exist_ok=True)
        path = arguments.results / f"privacy-{arguments.part}-{data.name}-{arguments.kernel}.json"
        path.write_text(json.dumps({**measured, "machine": machine_facts()}, indent=1) + "\n", encoding="utf-8")
    write_page(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
