"""The page docs/measured/privacy.md: accuracy against epsilon, audits of files, and attacks on the noise.

    python benchmarks/privacy.py curve --data-dir ../shared/data --dataset mnist --kernel FCNN --draws 5
    python benchmarks/privacy.py audit --data-dir ../shared/data --dataset mnist --kernel identity
    python benchmarks/privacy.py attack --trials 20000
    python benchmarks/privacy.py page

The first three write <results>/privacy-*.json; every call writes <docs>/privacy.md and <docs>/figures/privacy-*.png
again from all of these files. Predictions of a released file are those of its private model (its certificate says so),
so the curve scores the models.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

import krrdistill as kd
from krrdistill.apps import privacy
from krrdistill.apps.privacy.release import default_norm_bound, public_inputs
from machine import machine_facts, one_line

FloatArray = npt.NDArray[np.float64]
Event = Callable[[FloatArray], npt.NDArray[np.bool_]]
Events = Mapping[str, Event]

ROOT = Path(__file__).resolve().parent.parent
EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
DELTA = 1e-5
LOOSE = privacy.PrivacyBudget(1e5, 0.5)  # all but no noise
_HEAD = """\
# Private releases and audits, measured

Written by `benchmarks/privacy.py`. What the figures mean: [Privacy](../guide/privacy.md).
"""
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
    drawn = {"noise": "the released noise, OpenDP's discrete Gaussian", "draws": draws}
    return {**facts, **clipping, "original": original, **drawn, "rows": rows}


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


def attack(trials: int, float_trials: int) -> dict[str, Any]:
    """Lower bounds on epsilon and delta, of releases of two neighbouring data sets that the adversary knows.

    The noise of before, float64 numbers, is drawn ``float_trials`` times, the released one ``trials`` times.
    """
    budget = privacy.PrivacyBudget(1.0, DELTA)
    zeros, canaries = zero_feature(), canary_pair()
    lambda_ = privacy.default_lambda("output", budget, zeros[0].norm_bound, zeros[0].statistics.n, 8)
    models = [privacy.perturb(one, "output", LOOSE, lambda_=lambda_).W for one in zeros]
    deviation = privacy.perturb(zeros[0], "output", budget, lambda_=lambda_).noise_std
    generator = np.random.default_rng(0)

    def output(one: int) -> FloatArray:
        return privacy.perturb(zeros[one], "output", budget, lambda_=lambda_).W

    def statistics(one: int) -> FloatArray:
        return as_vector(*privacy.private_statistics(canaries[one], budget), canaries[one].norm_bound)

    exact = [as_vector(each.statistics.gram, each.statistics.cross, each.norm_bound) for each in canaries]
    floats = [(model[0, 7] + deviation * generator.standard_normal(float_trials))[:, None] for model in models]
    outputs = [np.array([output(one) for _ in range(trials)]) for one in (0, 1)]
    sums = [np.array([statistics(one) for _ in range(trials)]) for one in (0, 1)]
    bits = last_bits(models[1][0, 7])
    found = (
        ("last bits of W[0, 7], all-zero feature", "float64 noise on W (before)", bits, floats),
        ("last bits of W[0, 7], all-zero feature", "output", bits, [draws[:, 0, 7:] for draws in outputs]),
        ("likelihood of W, all-zero feature", "output", likelihood(*models), [d.reshape(trials, -1) for d in outputs]),
        ("likelihood of (G, C), worst pair", "statistics", likelihood(*exact), sums),
    )
    rows = [{"attack": name, "noise": noise, **bounds(events, draws, budget)} for name, noise, events, draws in found]
    return {"attacks": rows, "epsilon": budget.epsilon, "delta": budget.delta}


def zero_feature() -> list[privacy.ClippedStatistics]:
    """n = 100, p = 8, k = 2: a feature that is zero throughout, and a neighbour with one sample that has it alone."""
    X, labels = np.random.default_rng(0).standard_normal((100, 8)), np.arange(100) % 2
    X[:, 7] = 0.0
    other = X.copy()
    other[0] = [*np.zeros(7), 3.0]
    return [privacy.clipped_statistics(x, labels, kd.Identity(8), 2, norm_bound=math.sqrt(8.0)) for x in (X, other)]


def canary_pair() -> list[privacy.ClippedStatistics]:
    """The replacement that moves (G, C) furthest: same label, features of norm B at the cosine -1/2."""
    pair = [np.zeros((100, 2)) for _ in range(2)]
    pair[0][0], pair[1][0] = [2.0, 0.0], [-1.0, math.sqrt(3.0)]
    labels = np.arange(100) % 2
    return [privacy.clipped_statistics(x, labels, kd.Identity(2), 2, norm_bound=2.0) for x in pair]


def as_vector(gram: FloatArray, cross: FloatArray, norm_bound: float) -> FloatArray:
    """(G / B^2, C / B), the upper triangle of G times sqrt(2): its noise has one deviation."""
    above = gram[np.triu_indices(len(gram), 1)] * math.sqrt(2.0)
    return np.concatenate([np.diagonal(gram) / norm_bound**2, above / norm_bound**2, cross.ravel() / norm_bound])


def last_bits(moved: float) -> Events:
    """Whether a number is no multiple of 2^j times the spacing of float64 at the number that the neighbour has."""

    def no_multiple(step: float) -> Event:
        return lambda x: x[:, 0] / step != np.rint(x[:, 0] / step)

    spacing = float(np.spacing(abs(moved)))
    return {f"no multiple of 2^{j} ulp": no_multiple(math.ldexp(spacing, j)) for j in range(-6, 46)}


def likelihood(first: FloatArray, second: FloatArray) -> Events:
    """Whether a release lies so far on the way from one exact value to the other, beyond its middle."""
    way, start = (second - first).ravel(), first.ravel()

    def beyond(far: float, sign: float) -> Event:
        return lambda x: sign * ((x - start) @ way / (way @ way) - 0.5) > far

    return {f"{sign:+g}, {far:g} ways": beyond(far, sign) for far in np.linspace(0.0, 15.0, 61) for sign in (1.0, -1.0)}


def bounds(events: Events, draws: list[FloatArray], budget: privacy.PrivacyBudget) -> dict[str, Any]:
    """The event that tells most in the first half of the draws, and what its counts in the second half prove.

    Clopper-Pearson intervals at 95 %: delta >= P - e^epsilon Q and epsilon >= ln((P - delta) / Q).
    """
    half = len(draws[0]) // 2
    first, second = ([draws[way][part] for way in (0, 1)] for part in (slice(half), slice(half, 2 * half)))
    chosen = {(name, way): hits_of(event, first, way) for name, event in events.items() for way in (0, 1)}
    found: dict[str, Any] = {"trials": half}
    for kind, lower in (("delta", delta_bound), ("epsilon", epsilon_bound)):
        name, way = max(chosen, key=lambda key: lower(chosen[key], half, budget))
        hits = hits_of(events[name], second, way)
        found[kind] = {"event": name, "hits": hits, "bound": max(0.0, lower(hits, half, budget))}
    return found


def hits_of(event: Event, draws: list[FloatArray], way: int) -> tuple[int, int]:
    """How often the event happens with one data set, and with the other."""
    return int(event(draws[way]).sum()), int(event(draws[1 - way]).sum())


def delta_bound(hits: tuple[int, int], trials: int, budget: privacy.PrivacyBudget) -> float:
    """The delta that these counts prove, for the stated epsilon."""
    return interval(hits[0], trials)[0] - math.exp(budget.epsilon) * interval(hits[1], trials)[1]


def epsilon_bound(hits: tuple[int, int], trials: int, budget: privacy.PrivacyBudget) -> float:
    """The epsilon that these counts prove, for the stated delta."""
    least = interval(hits[0], trials)[0] - budget.delta
    return math.log(least / interval(hits[1], trials)[1]) if least > 0.0 else 0.0


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson, 95 %."""
    found = scipy.stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def attack_lines(result: dict[str, Any]) -> list[str]:
    """The table of the attacks."""
    lines = [
        f"## Attacks: stated ε = {result['epsilon']:g}, δ = {result['delta']:g}",
        "",
        "| adversary | noise | draws of either | hits | proves δ ≥, at the stated ε | hits | ε ≥, at that δ |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["attacks"]:
        cells = [row["attack"], row["noise"], f"{row['trials']:,}"]
        for kind in ("delta", "epsilon"):
            cells += ["{:,} : {:,}".format(*row[kind]["hits"]), f"{row[kind]['bound']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def curve_lines(result: dict[str, Any]) -> list[str]:
    """The table of one curve."""
    name, longer = f"{result['dataset']}-{result['kernel']}", 100 * result["clipped_share"]
    facts = f"n = {result['n']}, p = {result['p']}, B = {result['norm_bound']:.4g} ({longer:.1f} % are longer)"
    reference = f"without privacy, λ by validation: {100 * result['original']:.2f}"
    text = (
        f"{facts}, δ = {DELTA:g}. Test accuracy in %, mean and range of {result['draws']} draws; {reference}. "
        f"Drawn with {result['noise']}."
    )
    lines = [f"## {result['dataset']}, {result['kernel']}", "", text, one_line(result["machine"]) + ".", ""]
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
        "## Audits: ten points per class, ε = 1, δ = 1e-5",
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
    """<docs>/privacy.md and its figures, from whatever result files there are."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("privacy-*.json"))]
    curves, attacks = ([result for result in read if key in result] for key in ("original", "attacks"))
    audits = [result for result in read if result not in curves + attacks]
    lines = [line for result in curves for line in curve_lines(result)] + audit_lines(audits)
    lines += [line for result in attacks for line in attack_lines(result)]
    for result in curves:
        plot(result, docs / "figures")
    (docs / "privacy.md").write_text("\n".join([_HEAD, *lines]).rstrip() + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Name of what was asked for, and what was found."""
    if arguments.part == "attack":
        return "attack", attack(arguments.trials, arguments.float_trials)
    data = kd.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
    part, name = arguments.part, f"{arguments.part}-{data.name}-{arguments.kernel}"
    return name, curve(data, arguments.kernel, arguments.draws) if part == "curve" else audit(data, arguments.kernel)


def main() -> None:
    """Measures one part, if any, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["curve", "audit", "attack", "page"])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--kernel", default="identity")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20_000, help="Releases of each data set that are attacked.")
    parser.add_argument("--float-trials", type=int, default=2_000_000, help="The same with float64 noise.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "measured")
    arguments = parser.parse_args()
    if arguments.part != "page":
        name, measured = measure(arguments)
        arguments.results.mkdir(parents=True, exist_ok=True)
        path = arguments.results / f"privacy-{name}.json"
        path.write_text(json.dumps({**measured, "machine": machine_facts()}, indent=1) + "\n", encoding="utf-8")
    write_page(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
