"""Runs side by side: one table for the terminal and the page, and a page with charts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from krrdistill.apps.report.html import Markup, document, element, join
from krrdistill.apps.report.page import LAMBDA, accuracy_chart
from krrdistill.apps.report.record import RunRecord
from krrdistill.apps.report.sprites import gallery
from krrdistill.apps.text import megabytes, number, percent, seconds

__all__ = ["Row", "compare_page", "comparison", "run_names"]

_ASKED = ("dataset", "kernel", "ipc", "init", "store", "precision", "backend", "seed", "n_train", "d", "p")
_INEXACT = "NOT EXACT"
_PICTURE_BUDGET = 600_000  # bytes of pixels of all runs together
_PICTURED_CLASSES = 10


@dataclass(frozen=True)
class Row:
    """One fact of every run, as text."""

    name: str
    values: tuple[str, ...]
    fluctuates: bool = False  # from one run to the next of the same command

    @property
    def differs(self) -> bool:
        """Whether the runs do not all have the same, and that means something."""
        return not self.fluctuates and len(set(self.values)) > 1


def run_names(runs: Sequence[RunRecord]) -> list[str]:
    """The names of the folders, with as many parents as it takes to tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    longest = max(len(part) for part in parts)
    for count in range(1, longest):
        names = [str(Path(*part[-count:])) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(Path(*part)) for part in parts]


def comparison(runs: Sequence[RunRecord]) -> list[Row]:
    """What the runs were asked, what came out, and what it took."""
    reports = [run.report for run in runs]

    def row(name: str, values: Sequence[str], *, fluctuates: bool = False) -> Row:
        return Row(name, tuple(values), fluctuates)

    certificates = [report["certificate"] for report in reports]
    stages = [stage for report in reports for stage in report["seconds"] if stage != "total"]
    return [
        *(row(key, [str(report[key]) for report in reports]) for key in _ASKED),
        row("samples m", [str(report["m"]) for report in reports]),
        row(LAMBDA, [number(report["lambda"]) for report in reports]),
        row(f"{LAMBDA}_S", [number(report["lambda_s"]) for report in reports]),
        row("validation accuracy", [percent(report["val_accuracy"]) for report in reports]),
        row("test accuracy, original", [percent(report["original"]["test_accuracy"]) for report in reports]),
        row("test accuracy, distilled", [percent(report["distilled"]["test_accuracy"]) for report in reports]),
        row("predictions that agree", [percent(values["prediction_agreement"]) for values in certificates]),
        row("relative weight error", [number(values["weight_relative_error"], digits=2) for values in certificates]),
        row("condition number", [number(values["condition"]) for values in certificates]),
        row("method", [_method(run) for run in runs]),
        row("exact", [_exactness(run) for run in runs]),
        *(
            row(f"time: {stage}", [seconds(report["seconds"].get(stage)) for report in reports], fluctuates=True)
            for stage in dict.fromkeys(stages)
        ),
        row("time: total", [seconds(report["seconds"]["total"]) for report in reports], fluctuates=True),
        row("peak memory", [megabytes(report["peak_memory_bytes"]) for report in reports], fluctuates=True),
    ]


def _method(run: RunRecord) -> str:
    return "closed form" if run.curve is None else f"KIP, {run.report['variant']}, {run.report['iterations']} steps"


def _exactness(run: RunRecord) -> str:
    """KIP does not claim to be exact."""
    return "yes" if run.exact else _INEXACT if run.curve is None else "no, KIP"


def compare_page(runs: Sequence[RunRecord]) -> bytes:
    """The table, the lambda paths on one scale and the first pictures of every run."""
    names = run_names(runs)
    inexact = [name for name, run in zip(names, runs, strict=True) if _exactness(run) == _INEXACT]
    iterative = sum(run.curve is not None for run in runs)
    good = "Every run is exact." if not iterative else f"Every closed form is exact; {iterative} of the runs are KIP."
    verdict = (
        element("p", element("strong", "NOT EXACT: "), ", ".join(inexact), class_="verdict bad", role="alert")
        if inexact
        else element("p", element("strong", good), class_="verdict good")
    )
    return document(
        f"{len(runs)} runs: krrdistill",
        element("header", element("h1", f"{len(runs)} runs side by side"), verdict),
        element(
            "main",
            element("h2", "Facts"),
            element("p", "Rows in which the runs differ stand out, time and memory aside.", class_="muted"),
            _table(names, comparison(runs)),
            element("h2", f"Choice of {LAMBDA}"),
            _charts(names, runs),
            element("h2", "First distilled samples"),
            *(_pictures(name, run, _PICTURE_BUDGET // len(runs)) for name, run in zip(names, runs, strict=True)),
        ),
    )


def _table(names: Sequence[str], rows: Sequence[Row]) -> Markup:
    head = element("tr", element("th", "", scope="col"), *(element("th", name, scope="col") for name in names))
    body = (
        element(
            "tr",
            element("th", row.name, scope="row"),
            *(element("td", value) for value in row.values),
            class_="different" if row.differs else None,
        )
        for row in rows
    )
    content = element("table", element("thead", head), element("tbody", *body), class_="runs")
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label="facts of the runs")


def _charts(names: Sequence[str], runs: Sequence[RunRecord]) -> Markup:
    accuracies = np.concatenate([100.0 * run.path["val_accuracy"] for run in runs])
    known = accuracies[np.isfinite(accuracies)]
    limits = (float(known.min()), float(known.max())) if known.size else None
    figures = (
        element("figure", element("figcaption", name), accuracy_chart(run, y_limits=limits).svg())
        for name, run in zip(names, runs, strict=True)
    )
    return element("div", *figures, class_="charts")


def _pictures(name: str, run: RunRecord, budget: int) -> Markup:
    k = len(run.class_names)
    low, high = run.report["value_range"]
    classes = gallery(run.images[:k], run.class_names, start=None, value_range=(low, high), budget=budget).classes
    cards = (
        element(
            "li",
            element(
                "figure",
                element("img", src=c.distilled, alt=f"{name}: {c.name}", width=c.width, height=c.height),
                element("figcaption", c.name),
            ),
        )
        for c in classes[:_PICTURED_CLASSES]
    )
    return join(element("h3", name), element("ul", *cards, class_="gallery", style="--card-width: 6rem"))
