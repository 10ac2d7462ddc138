"""Table 3: the model trained on the distilled set is the original one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from krrdistill.apps.report.charts import Dots, dots_figure
from krrdistill.apps.report.svg import to_svg
from krrdistill.apps.reproduce.facts import common_section, group, missing_section, names_of, range_of
from krrdistill.apps.reproduce.published import SOURCE, TABLE3, differing_cells, spread
from krrdistill.apps.reproduce.sections import Publication, Section

__all__ = ["DEFAULTS", "WEIGHT_ERROR", "publication"]

Result = Mapping[str, Any]
DEFAULTS: Mapping[str, Any] = {"methods": ("closed_form",)}  # this table has no KIP
_SIGMAS = 2.0
WEIGHT_ERROR = 1e-6  # relative: up to it the retrained model counts as the original


def publication(document: Mapping[str, Any]) -> Publication:
    """Every cell, the originals against the published ones, and how it was measured."""
    cells: list[Result] = document["cells"]
    exact = [cell for cell in cells if _is_exact(cell)]
    originals = [_Original(*item) for item in group(cells, "dataset", "kernel").items()]
    verdict = f"Distilled equals original in {len(exact)} of {len(cells)} cells." if cells else "Nothing was measured."
    low = [f"{row.dataset}, {row.kernel}" for row in originals if row.within is False]
    if low:
        verdict += f" Originals beyond the noise of seeds below the published ones: {'; '.join(low)}."
    return Publication(
        title=f"Table 3, {names_of(cells)}: distilled models against original ones",
        passed=len(exact) == len(cells) > 0,
        verdict=verdict,
        sections=(
            _cells_section(cells),
            _originals_section(originals),
            *missing_section(document),
            common_section(document, [f"Published figures: {SOURCE}, Table 3."]),
        ),
    )


def _is_exact(cell: Result) -> bool:
    certificate = cell["certificate"]
    same = cell["original_accuracy"] == cell["distilled_accuracy"] and certificate["prediction_agreement"] == 1.0
    return bool(same and certificate["weight_relative_error"] <= WEIGHT_ERROR)


def _cells_section(cells: Iterable[Result]) -> Section:
    rows = []
    for (dataset, kernel, ipc), found in group(cells, "dataset", "kernel", "ipc").items():
        published = TABLE3.get((dataset, kernel))
        errors = [cell["certificate"]["weight_relative_error"] for cell in found]
        theirs = None if published is None else published.distilled.get(ipc)
        rows.append(
            (
                dataset,
                kernel,
                str(ipc),
                _mean(cell["original_accuracy"] for cell in found),
                _mean(cell["distilled_accuracy"] for cell in found),
                f"{sum(map(_is_exact, found))} of {len(found)}",
                f"{max(errors):.1e}",
                range_of([cell["seconds"]["total"] for cell in found]),
                "–" if published is None else f"{published.original:.2f}",
                "–" if theirs is None else f"{theirs:.2f}",
                "–" if published is None or theirs is None else f"{theirs - published.original:+.2f}",
            )
        )
    shown = {(dataset, kernel): TABLE3[dataset, kernel] for dataset, kernel, *_ in rows if (dataset, kernel) in TABLE3}
    here = (
        "Test accuracy in per cent, mean over seeds. “Equal” counts the seeds in which the model retrained from the "
        "file has the accuracy of the original, the same prediction for every test sample, and weights that differ by "
        f"at most {WEIGHT_ERROR:.0e} of their norm; the largest difference of the weights stands beside it. Seconds "
        "are of a whole run from loaded arrays to the distilled set; the pass over the data, made once per seed, "
        "counts in every cell."
    )
    theirs_differ = (
        f"In the published table {differing_cells(shown)} of the {3 * len(shown)} cells of these rows differ, "
        f"{differing_cells(TABLE3)} of all {3 * len(TABLE3)}."
        if shown
        else "The paper has no value for these cells."
    )
    there = f"{theirs_differ} Tolerance for accuracies here: none."
    head = (
        "data set", "kernel", "per class", "original", "distilled", "equal", "weight error", "seconds",
        "published original", "published distilled", "published difference",
    )  # fmt: skip
    return Section(
        name="cells",
        title="Distilled against original",
        text=(here, there),
        head=head,
        rows=tuple(rows),
        charts=tuple(_chart(name, found) for (name,), found in group(cells, "dataset").items()),
    )


def _chart(dataset: str, cells: Iterable[Result]) -> tuple[str, Markup]:
    """The accuracies of one data set, ours beside the published ones."""
    columns, originals, distilled, published = [], [], [], []
    for (kernel, ipc), found in group(cells, "kernel", "ipc").items():
        columns.append((kernel, str(ipc)))
        originals.append(100.0 * fmean(cell["original_accuracy"] for cell in found))
        distilled.append(100.0 * fmean(cell["distilled_accuracy"] for cell in found))
        row = TABLE3.get((dataset, kernel))
        published.append(math.nan if row is None else row.distilled.get(ipc, math.nan))
    kinds = [Dots("original", originals), Dots("distilled", distilled)]
    if any(map(math.isfinite, published)):
        kinds.append(Dots("distilled, published", published))
    figure = dots_figure(columns, kinds, y_label="test accuracy (%)", y_log=False)
    caption = f"{dataset}: test accuracy by map and points per class"
    named = ", ".join(kind.name for kind in kinds)
    return caption, to_svg(figure, f"accuracy-{dataset}", f"{caption}; {named}")


class _Original:
    """The original models of one data set and kernel, one per seed, against the published one."""

    def __init__(self, key: tuple[str, str], cells: list[Result]) -> None:
        self.dataset, self.kernel = key
        self.by_seed = {cell["seed"]: 100.0 * cell["original_accuracy"] for cell in cells}
        values = list(self.by_seed.values())
        self.mean = fmean(values)
        self.deviation = stdev(values) if len(values) > 1 else None
        self.published = TABLE3[key].original if key in TABLE3 else None
        self.their_deviation = spread(*key)
        known = [value for value in (self.deviation, self.their_deviation) if value is not None]
        self.tolerance = _SIGMAS * max(known) * math.sqrt(1.0 + 1.0 / len(values)) if known else None

    @property
    def within(self) -> bool | None:
        """At or above the published one within the noise of seeds; None where either is unknown."""
        if self.published is None or self.tolerance is None:
            return None
        return self.mean >= self.published - self.tolerance

    def row(self) -> tuple[str, ...]:
        """The row of the table."""
        return (
            self.dataset,
            self.kernel,
            ", ".join(f"{value:.2f}" for value in self.by_seed.values()),
            f"{self.mean:.2f}",
            _two(self.deviation),
            _two(self.their_deviation),
            _two(self.published),
            "–" if self.published is None else f"{self.mean - self.published:+.2f}",
            _two(self.tolerance),
            {True: "yes", False: "NO", None: "unknown"}[self.within],
        )


def _originals_section(originals: list[_Original]) -> Section:
    text = (
        "A published number stands for one draw of the weights and of the 5% held out. It counts as reached where "
        "our mean over n seeds is at least the published accuracy less 2 σ √(1 + 1/n), σ being the larger of our "
        "standard deviation over seeds and the largest that the published Table 4 states for that data set (it has "
        "FCNN only)."
    )
    head = (
        "data set", "kernel", "per seed", "mean", "σ", "published σ", "published", "difference", "tolerance", "reached",
    )  # fmt: skip
    rows = tuple(row.row() for row in originals)
    if all(row.published is None for row in originals):
        text = "The paper has no value for these models."
    return Section(name="originals", title="Original models", text=(text,), head=head, rows=rows)


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _mean(values: Iterable[float]) -> str:
    return f"{100.0 * fmean(values):.2f}"
