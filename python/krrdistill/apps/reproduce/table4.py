"""Table 4: the closed form against KIP, as published and from the statistics: accuracy and seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from krrdistill.apps.report.charts import Dots, dots_figure, race_charts
from krrdistill.apps.report.svg import to_svg
from krrdistill.apps.reproduce.facts import (
    backend_device,
    common_section,
    group,
    missing_section,
    names_of,
    seconds_text,
)
from krrdistill.apps.reproduce.published import SOURCE, TABLE4
from krrdistill.apps.reproduce.sections import Publication, Section

__all__ = ["DEFAULTS", "publication"]

Result = Mapping[str, Any]
DEFAULTS: Mapping[str, Any] = {"kernels": ("FCNN",)}
_NAMES = {"closed_form": "closed form", "gram": "KIP, gram", "published": "KIP, published"}
_MARK = " (extrapolated)"


@dataclass(frozen=True)
class _Entry:
    """One method in one row of the table, over its seeds."""

    method: str
    cells: tuple[Result, ...]
    iterations: int  # of a whole run of KIP

    @property
    def extrapolated(self) -> bool:
        return any(self._iterations(cell) < self.iterations for cell in self.cells)

    @property
    def seconds(self) -> float:
        """Seconds of a whole run, mean over seeds: measured, or extrapolated from its preparation and steps."""
        return fmean(map(self._seconds, self.cells))

    @property
    def per_iteration(self) -> float | None:
        if self.method == "closed_form":
            return None
        return fmean(cell["seconds"]["steps"] / cell["iterations"] for cell in self.cells)

    def accuracies(self, end: str = "last") -> list[float]:
        """Test accuracies in per cent of one end of KIP's run, or of the closed form."""
        if self.method == "closed_form":
            return [100.0 * cell["distilled_accuracy"] for cell in self.cells]
        return [100.0 * cell[end]["test_accuracy"] for cell in self.cells]

    def done(self) -> str:
        """How many iterations stand behind the accuracies."""
        if self.method == "closed_form":
            return "–"
        counts = sorted({cell["iterations"] for cell in self.cells})
        text = " … ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        return f"{text} of {self.iterations:,}" if self.extrapolated else text

    def ran_on(self) -> str:
        """The devices of its cells; those of cells that do not say it are of before KIP ran on any but the CPU."""
        closed = self.method == "closed_form"
        found = (
            cell.get("ran_on", backend_device(cell.get("backend", "")) if closed else "cpu") for cell in self.cells
        )
        return ", ".join(dict.fromkeys(found))

    def _iterations(self, cell: Result) -> int:
        return self.iterations if self.method == "closed_form" else cell["iterations"]

    def _seconds(self, cell: Result) -> float:
        seconds = cell["seconds"]
        if self.method == "closed_form":
            return float(seconds["total"])
        return float(seconds["setup"] + seconds["steps"] * self.iterations / cell["iterations"])


_Row = tuple[tuple[str, str, int], dict[str, _Entry]]


def publication(document: Mapping[str, Any]) -> Publication:
    """Every cell, KIP's variants against each other, the curves, and how it was measured."""
    cells: list[Result] = document["cells"]
    iterations = document["asked"]["kip_iterations"]
    rows: list[_Row] = []
    for key, found in group(cells, "dataset", "kernel", "ipc").items():
        methods = group(found, "method")
        rows.append((key, {name: _Entry(name, tuple(of), iterations) for (name,), of in methods.items()}))
    duels = [(key, found["gram"], found["published"]) for key, found in rows if {"gram", "published"} <= found.keys()]
    return Publication(
        title=f"Table 4, {names_of(cells)}: the closed form against KIP",
        passed=bool(cells),
        verdict=_verdict(rows, duels),
        sections=(
            _race_section(rows, document),
            *((_duel_section(duels, document),) if duels else ()),
            *_curve_sections(rows),
            *missing_section(document),
            common_section(document, [f"Published figures: {SOURCE}, Table 4; four seeds, one 24 GB A5000."]),
        ),
    )


def _ratio(gram: _Entry, published: _Entry) -> float:
    return (published.per_iteration or 0.0) / (gram.per_iteration or 1.0)


def _verdict(rows: list[_Row], duels: list[tuple[Any, _Entry, _Entry]]) -> str:
    parts = []
    for method in ("published", "gram"):
        entries = [
            (found["closed_form"], found[method]) for _, found in rows if {"closed_form", method} <= found.keys()
        ]
        if entries:
            ratios = [kip.seconds / ours.seconds for ours, kip in entries]
            marked = _MARK if any(kip.extrapolated for _, kip in entries) else ""
            span = " to ".join(dict.fromkeys((seconds_text(min(ratios)), seconds_text(max(ratios)))))
            if min(ratios) >= 1.0:
                parts.append(f"The closed form takes {span} times fewer seconds than {_NAMES[method]}{marked}.")
            else:
                parts.append(f"{_NAMES[method]} takes {span} times the seconds of the closed form{marked}.")
    if duels:
        ratios = [_ratio(gram, published) for _, gram, published in duels]
        worse = [key for key, gram, published in duels if fmean(gram.accuracies()) < fmean(published.accuracies())]
        parts.append(
            f"A step of KIP takes {' to '.join(dict.fromkeys(f'{ratio:.0f}' for ratio in (min(ratios), max(ratios))))} "
            "times fewer seconds from the statistics than as published; after the same budget its accuracy is "
            f"{'LOWER for ' + '; '.join(map(_label, worse)) if worse else 'not lower in any cell'}."
        )
    return " ".join(parts) or "Nothing was measured."


def _label(key: tuple[str, str, int]) -> str:
    return f"{key[0]}, {key[1]}, {key[2]} per class"


def _race_section(rows: list[_Row], document: Mapping[str, Any]) -> Section:
    budget, iterations = document["asked"]["time_budget"], document["asked"]["kip_iterations"]
    how = (
        "Test accuracy in per cent, mean ± standard deviation over seeds where there are several. KIP ran until "
        f"{iterations:,} iterations or {seconds_text(budget)} s of steps, whichever came first; accuracies are of "
        "where it stopped: the last iteration, and the best by validation. Seconds are of a whole run from loaded "
        f"arrays. Those marked{_MARK} are what comes before the first step, plus {iterations:,} times the measured "
        "seconds per iteration; so are the speed-ups that rest on them."
    )
    published = (
        "In parentheses behind a published accuracy: ours less it. Published seconds are of another machine, a GPU; "
        "no tolerance applies to them."
    )
    head = (
        "data set", "kernel", "per class", "method", "ran on", "accuracy, last", "best by validation", "iterations",
        "seconds", "closed form is faster by", "published accuracy",
        "published seconds", "published speed-up",
    )  # fmt: skip
    lines = tuple(_race_line(key, entry, found.get("closed_form")) for key, found in rows for entry in found.values())
    return Section(
        name="race",
        title="Accuracy and seconds",
        text=(how, published),
        head=head,
        rows=lines,
        charts=_overview(rows) if rows else (),
    )


def _overview(rows: list[_Row]) -> tuple[tuple[str, Markup], ...]:
    """Accuracy and seconds of every method, row by row."""
    columns = [(f"{dataset}, {kernel}", str(ipc)) for (dataset, kernel, ipc), _ in rows]
    methods = [name for name in _NAMES if any(name in found for _, found in rows)]
    charts = []
    for name, label, log, value in (
        ("accuracy", "test accuracy (%)", False, lambda entry: fmean(entry.accuracies())),
        ("seconds", "seconds of a whole run", True, lambda entry: entry.seconds),
    ):
        kinds = [
            Dots(_NAMES[method], [value(found[method]) if method in found else math.nan for _, found in rows])
            for method in methods
        ]
        cut = name == "seconds" and any(entry.extrapolated for _, found in rows for entry in found.values())
        caption = f"{label[0].upper()}{label[1:]} by points per class{', those of KIP extrapolated' if cut else ''}"
        figure = dots_figure(columns, kinds, y_label=label, y_log=log)
        description = f"{caption}: {', '.join(kind.name for kind in kinds)}"
        charts.append((caption, to_svg(figure, f"race-{name}", description)))
    return tuple(charts)


def _race_line(key: tuple[str, str, int], entry: _Entry, ours: _Entry | None) -> tuple[str, ...]:
    dataset, kernel, ipc = key
    iterates = entry.method != "closed_form"
    mark = _MARK if entry.extrapolated else ""
    line = (
        dataset,
        kernel,
        str(ipc),
        _NAMES[entry.method],
        entry.ran_on(),
        _accuracy(entry.accuracies()),
        _accuracy(entry.accuracies("best")) if iterates else "–",
        entry.done(),
        seconds_text(entry.seconds) + mark,
        f"{seconds_text(entry.seconds / ours.seconds)} ×{mark}" if iterates and ours is not None else "–",
    )
    race = TABLE4.get((dataset, ipc)) if kernel == "FCNN" else None
    if race is None or entry.method == "gram":
        return (*line, "–", "–", "–")
    theirs = race.kip if iterates else race.closed_form
    mark = _MARK if theirs.extrapolated else ""
    accuracy = "–"
    if theirs.accuracy is not None:
        difference = fmean(entry.accuracies()) - theirs.accuracy
        accuracy = f"{theirs.accuracy:.2f} ± {theirs.deviation:.2f} ({difference:+.2f})"
    speed_up = f"{seconds_text(race.kip.seconds / race.closed_form.seconds)} ×{mark}" if iterates else "–"
    return (*line, accuracy, seconds_text(theirs.seconds) + mark, speed_up)


def _accuracy(values: list[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _duel_section(duels: list[tuple[Any, _Entry, _Entry]], document: Mapping[str, Any]) -> Section:
    rows = tuple(
        (
            *map(str, key),
            seconds_text(published.per_iteration or 0.0),
            seconds_text(gram.per_iteration or 0.0),
            f"{_ratio(gram, published):.1f} ×",
            _accuracy(published.accuracies()),
            _accuracy(gram.accuracies()),
            f"{fmean(gram.accuracies()) - fmean(published.accuracies()):+.2f}",
        )
        for key, gram, published in duels
    )
    text = (
        "Seconds per iteration are measured, over all steps of a run; looks at the validation set do not count. Both "
        f"accuracies are of the last iteration after the same budget of steps "
        f"({seconds_text(document['asked']['time_budget'])} s, or all iterations; at least one)."
    )
    head = (
        "data set", "kernel", "per class", "s per iteration, published", "gram", "ratio", "accuracy, published", "gram",
        "difference",
    )  # fmt: skip
    return Section(name="kip", title="KIP against KIP", text=(text,), head=head, rows=rows)


def _curve_sections(rows: Iterable[_Row]) -> tuple[Section, ...]:
    """KIP's loss and accuracy against time, and ours, per row; the first seed of each."""
    sections = []
    for key, found in rows:
        entries = [entry for entry in found.values() if entry.method != "closed_form"]
        if entries:
            sections.append(Section(name=_name(key), title=_label(key), charts=_charts(key, found)))
    return tuple(sections)


def _name(key: tuple[str, str, int]) -> str:
    """Names of a row's curves on the page."""
    return "-".join(("curve", *map(str, key)))


def _charts(key: tuple[str, str, int], found: Mapping[str, _Entry]) -> tuple[tuple[str, Markup], ...]:
    first = {method: entry.cells[0] for method, entry in found.items()}
    curves = {_NAMES[method]: _curve(method, cell) for method, cell in first.items()}
    return race_charts(curves, _label(key), _name(key))


def _curve(method: str, cell: Result) -> tuple[list[float], list[float], list[float]]:
    """(seconds, loss, accuracy) of one cell; the closed form has one of each."""
    if method == "closed_form":
        return [cell["seconds"]["total"]], [cell["train_loss"]], [cell["val_accuracy"]]
    curve = cell["curve"]
    return [cell["seconds"]["setup"] + value for value in curve["seconds"]], curve["train_loss"], curve["val_accuracy"]
