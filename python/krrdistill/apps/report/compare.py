"""Runs side by side: a row for each run, for terminal, page and JSON alike; and the page with charts and pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from krrdistill.apps.report.axes import LAMBDA, PALETTE
from krrdistill.apps.report.charts import Curve, Style, curve_style, legend_of, overlay_figure
from krrdistill.apps.report.pictures import gallery
from krrdistill.apps.report.render import render
from krrdistill.apps.report.run_folder import RunFolder
from krrdistill.apps.report.svg import to_svg
from krrdistill.apps.text import megabytes, number, percent, seconds, shown_device
from krrdistill.artifact.record import CRITERIA, KipRecord, to_json
from krrdistill.common.options import as_word

__all__ = ["Column", "Comparison", "Fact", "compare_page", "run_entry"]


ASKED, ALWAYS, OTHER = range(3)  # what a fact is: an option, a result that always matters, anything else
_BARE = ("dataset", "kernel", "method")  # in labels they need no name before them, and are not left out
_ORDER = ("dataset", "kernel", "zca", "realism.asked", "ipc", "seed", "method")
_OF_COLUMNS = ("zca", "realism", "init", "noise", "store", "precision", "backend", "device", "iterations")
_PICTURE_BUDGET = 600_000  # bytes of pixels of all runs together
_PICTURED_CLASSES = 10


def _text(value: Any) -> str:
    """What an option or a count reads like."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return as_word(value) if isinstance(value, list) else number(value)


def _mean_percent(values: Sequence[float] | None) -> str:
    return percent(sum(values) / len(values) if values else None)


def _other_options(asked: Mapping[str, str]) -> str:
    """The options that a run was given and that no column is of."""
    given = {name: value for name, value in asked.items() if name not in _OF_COLUMNS}
    return ", ".join(f"{name} {value}".rstrip() for name, value in given.items()) or "-"


@dataclass(frozen=True)
class Fact:
    """What a column shows: what stands at ``key`` of a run's entry, as text.

    kind : ASKED, ALWAYS or OTHER
    rank : where room is short, columns of the highest one go first
    """

    key: str
    name: str
    shown: Callable[[Any], str] = _text
    kind: int = OTHER
    rank: int = 4


_FACTS = (
    Fact("dataset", "data set", kind=ASKED, rank=1),
    Fact("kernel", "kernel", kind=ASKED, rank=0),
    Fact("zca", "ZCA", kind=ASKED, rank=1),
    Fact("method", "method", kind=ASKED, rank=2),
    Fact("realism.asked", "realism", kind=ASKED, rank=1),
    Fact("ipc", "per class", kind=ASKED, rank=0),
    Fact("seed", "seed", kind=ASKED, rank=2),
    Fact("init", "init", kind=ASKED, rank=3),
    Fact("noise", "noise", kind=ASKED, rank=3),
    Fact("asked", "other options", _other_options, kind=ASKED, rank=2),
    Fact("store", "storage", kind=ASKED, rank=3),
    Fact("precision", "precision", kind=ASKED, rank=3),
    Fact("backend", "backend", kind=ASKED, rank=3),
    Fact("device", "steps on", shown_device, kind=ASKED, rank=3),
    Fact("original.test_accuracy", "test accuracy, original", percent, ALWAYS, rank=2),
    Fact("distilled.test_accuracy", "test accuracy, distilled", percent, ALWAYS, rank=0),
    Fact("original.test_per_target.r2", "test R\N{SUPERSCRIPT TWO}, original", _mean_percent, ALWAYS, rank=2),
    Fact("distilled.test_per_target.r2", "test R\N{SUPERSCRIPT TWO}, distilled", _mean_percent, ALWAYS, rank=0),
    Fact("certificate.weight_relative_error", "weight error", lambda value: number(value, digits=2), ALWAYS, rank=1),
    Fact("realism.psnr", "PSNR (dB)", lambda value: "-" if value is None else f"{value:.2f}", ALWAYS, rank=1),
    Fact("certificate.prediction_agreement", "same predictions", percent, ALWAYS, rank=3),
    Fact("seconds.total", "total time", seconds, ALWAYS, rank=2),
    Fact("exact", "exact"),
    Fact("lambda", LAMBDA),
    Fact("lambda_s", f"{LAMBDA}_S"),
    Fact("val_accuracy", "validation accuracy", percent),
    Fact("certificate.condition", "condition number"),
    Fact("m", "samples"),
    Fact("n_train", "training samples"),
    Fact("d", "inputs d"),
    Fact("p", "features p"),
)


def run_entry(run: RunFolder) -> dict[str, Any]:
    """All that is known of a run, as JSON has it."""
    record = run.record
    return {"folder": str(run.folder), "exact": record.exact, "method": record.method, **to_json(record)}


def _at(entry: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    value: Any = entry
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _natural(value: Any) -> tuple[Any, ...]:
    """A key by which numbers are sorted as numbers, also those within names; what is unknown comes first."""
    if value is None:
        return (0,)
    if isinstance(value, int | float):
        return (1, value)
    if isinstance(value, list):
        return (2, tuple(map(_natural, value)))
    parts = re.findall(r"\d+|\D+", str(value))
    digits = [(part.lstrip("0") if part.isdecimal() else None, part.casefold()) for part in parts]
    return (3, tuple((2, 0, part) if number is None else (1, len(number), number) for number, part in digits))


@dataclass(frozen=True)
class Column:
    """One fact of every run."""

    fact: Fact
    values: tuple[Any, ...]

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """The values as text."""
        return tuple(map(self.fact.shown, self.values))

    @property
    def known(self) -> bool:
        """Whether it is known of any run."""
        return any(cell != "-" for cell in self.cells)

    @property
    def differs(self) -> bool:
        """Whether the runs do not all have the same."""
        return len(set(self.cells)) > 1

    @property
    def is_text(self) -> bool:
        """Whether it holds words and no numbers."""
        return any(isinstance(value, str | Mapping) for value in self.values)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs in their order, and what is known of them.

    runs : sorted by data set, kernel, whitening, realism, points per class and seed, or by what ``of`` was told
    """

    runs: tuple[RunFolder, ...]
    entries: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, runs: Sequence[RunFolder], sort: str | None = None) -> Comparison:
        """The runs, sorted by the dotted key ``sort`` of their JSON first.

        Raises ValueError for a key that no run has.
        """
        pairs = [(run, run_entry(run)) for run in runs]
        keys = (*_ORDER, "folder") if sort is None else (sort, *_ORDER, "folder")
        if sort is not None and all(_at(entry, sort) is None for _, entry in pairs):
            known = ", ".join(fact.key for fact in _FACTS)
            raise ValueError(f"compare: no run has a field {sort!r} to sort by; fields of --json are {known}, ...")
        pairs.sort(key=lambda pair: [_natural(_at(pair[1], key)) for key in keys])
        return cls(*(tuple(part) for part in zip(*pairs, strict=True)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the folders, with as many parents as it takes to tell them apart."""
        parts = [run.folder.resolve().parts for run in self.runs]
        for count in range(1, max(map(len, parts))):
            names = tuple(str(Path(*part[-count:])) for part in parts)
            if len(set(names)) == len(set(parts)):
                return names
        return tuple(str(Path(*part)) for part in parts)

    @cached_property
    def facts(self) -> tuple[Column, ...]:
        """What is known of any run."""
        columns = (Column(fact, tuple(_at(entry, fact.key) for entry in self.entries)) for fact in _FACTS)
        return tuple(column for column in columns if column.known)

    @property
    def columns(self) -> tuple[Column, ...]:
        """In which the runs differ, and those that always matter."""
        return tuple(column for column in self.facts if column.differs or column.fact.kind == ALWAYS)

    @property
    def common(self) -> tuple[tuple[str, str], ...]:
        """(name, value) of what all runs have alike and the columns do not say."""
        same = (column for column in self.facts if not column.differs and column.fact.kind != ALWAYS)
        return tuple((column.fact.name, column.cells[0]) for column in same)

    @property
    def costs(self) -> tuple[Column, ...]:
        """Seconds of every stage, and memory."""
        stages = dict.fromkeys(stage for run in self.runs for stage in run.record.stages)
        facts = [Fact(f"seconds.{stage}", stage, seconds) for stage in stages]
        facts += [Fact("seconds.total", "total", seconds), Fact("peak_memory_bytes", "peak memory", megabytes)]
        return tuple(Column(fact, tuple(_at(entry, fact.key) for entry in self.entries)) for fact in facts)

    @property
    def inexact(self) -> tuple[str, ...]:
        """The names of runs that should be exact and are not; KIP does not claim to be."""
        pairs = zip(self.names, self.runs, strict=True)
        return tuple(name for name, run in pairs if not (run.record.exact or isinstance(run.record, KipRecord)))

    @cached_property
    def models(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the runs of each model: of one data set, kernel and lambda path."""
        return _grouped(
            (run.record.dataset, run.record.kernel, run.path.lambdas.tobytes(), run.path.score.tobytes())
            for run in self.runs
        )

    @cached_property
    def series(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the runs that were asked for the same but for points per class."""
        others = [column.cells for column in self.facts if column.fact.kind == ASKED and column.fact.key != "ipc"]
        return _grouped(tuple(cells[i] for cells in others) for i in range(len(self.runs)))

    def styles(self, groups: Sequence[Sequence[int]]) -> list[Style]:
        """Of a curve for each group: a run has one colour in all charts, dashes tell curves of one colour apart.

        Colours are of the models; where there is one model only, of what else was asked. A curve for runs of several
        colours is drawn in ink.
        """
        kinds = self.models if len(self.models) > 1 else self.series
        hues = {i: hue for hue, members in enumerate(kinds) for i in members}
        found, used = list[Style](), Counter[str]()
        for group in groups:
            own = {hues[i] for i in group}
            color = curve_style(own.pop(), 0)[0] if len(own) == 1 else PALETTE["ink"]
            found.append((color, curve_style(0, used[color])[1]))
            used[color] += 1
        return found

    def labels(self, groups: Sequence[Sequence[int]], *, without: str = "") -> list[str]:
        """What tells groups of runs, by their numbers, from each other: of what was asked as little as it takes."""
        asked = [
            column
            for column in self.facts
            if column.differs
            and column.fact.kind == ASKED
            and column.fact.key != without
            and all(len({column.cells[i] for i in group}) == 1 for group in groups)
        ]

        def distinct(columns: Sequence[Column]) -> bool:
            return len({tuple(column.cells[group[0]] for column in columns) for group in groups}) == len(groups)

        if not distinct(asked):
            return [", ".join(self.names[i] for i in group) for group in groups]
        for column in reversed(asked[:]):
            rest = [other for other in asked if other is not column]
            if column.fact.key not in _BARE and distinct(rest):
                asked = rest
        return [", ".join(_said(column, group[0]) for column in asked) or "all runs" for group in groups]


def _grouped(keys: Iterable[Hashable]) -> tuple[tuple[int, ...], ...]:
    """The numbers of equal keys, in the order in which these come."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return tuple(map(tuple, groups.values()))


def _said(column: Column, index: int) -> str:
    """ "mnist", "identity", "seed 3" or "no realism": data set, kernel and method speak for themselves."""
    value = column.cells[index]
    if value == "-":
        return f"no {column.fact.name}"
    return value if column.fact.key in _BARE else f"{column.fact.name} {value}"


@dataclass(frozen=True)
class Chart:
    """Curves of several runs on one pair of axes, and their legend: (name, colour, dashes)."""

    caption: str
    svg: Markup
    legend: tuple[tuple[str, str, str], ...]

    @staticmethod
    def of(name: str, caption: str, curves: Sequence[tuple[Curve, Style]], *, x_label: str, y_label: str) -> Chart:
        """A chart that no other on the page shares the ``name`` of."""
        described = f"Line chart: {y_label} against {x_label}: {'; '.join(curve.name for curve, _ in curves)}"
        svg = to_svg(overlay_figure(curves, x_label=x_label, y_label=y_label), name, described)
        return Chart(caption, svg, legend_of((curve.name, style) for curve, style in curves))


def compare_page(found: Comparison, unread: Mapping[str, str] | None = None) -> bytes:
    """The table, the lambda paths in one chart for each criterion, results against points per class, and pictures.

    unread : folders that could not be read, with the reason
    """
    pairs = list(zip(found.names, found.runs, strict=True))
    return render(
        "compare.html",
        found=found,
        unread=unread or {},
        iterative=sum(isinstance(run.record, KipRecord) for run in found.runs),
        paths=[
            _path_chart(found, criterion)
            for criterion in CRITERIA
            if criterion != "request" and any(run.record.criterion == criterion for run in found.runs)
        ],
        by_points=_charts_by_points(found),
        pictures=[(name, _first_pictures(run, _PICTURE_BUDGET // len(pairs))) for name, run in pairs],
    )


def _path_chart(found: Comparison, criterion: str) -> Chart:
    """One curve for every model: points per class and starts do not change its path."""
    groups = [group for group in found.models if found.runs[group[0]].record.criterion == criterion]
    kind, curves = CRITERIA[criterion], list[Curve]()
    for label, group in zip(found.labels(groups), groups, strict=True):
        path = found.runs[group[0]].path
        curves.append(Curve(label, path.lambdas.tolist(), kind.shown(path.score).tolist(), chosen=path.best))
    caption = f"{kind.title} for every {LAMBDA}; the point is the chosen one"
    styled = list(zip(curves, found.styles(groups), strict=True))
    return Chart.of(f"path-{criterion}", caption, styled, x_label=LAMBDA, y_label=kind.label)


def _charts_by_points(found: Comparison) -> list[Chart]:
    """Accuracy and PSNR against points per class, where the runs differ in those."""
    results = (
        ("distilled.test_accuracy", "test accuracy, distilled (%)", 100.0),
        ("realism.psnr", "PSNR to the real samples (dB)", 1.0),
    )
    charts, entries = list[Chart](), found.entries
    for key, label, scale in results:
        known = {i for i, of in enumerate(entries) if isinstance(of["ipc"], int) and _at(of, key) is not None}
        if len({entries[i]["ipc"] for i in known}) < 2:
            continue
        drawn = [
            ([i for i in group if i in known], style)
            for group, style in zip(found.series, found.styles(found.series), strict=True)
        ]
        groups, styles = zip(*((group, style) for group, style in drawn if group), strict=True)
        curves = [
            (Curve(name, [entries[i]["ipc"] for i in group], [scale * _at(entries[i], key) for i in group]), style)
            for name, group, style in zip(found.labels(groups, without="ipc"), groups, styles, strict=True)
        ]
        caption = f"{label[0].upper()}{label[1:]} against samples per class"
        charts.append(Chart.of(f"points-{len(charts)}", caption, curves, x_label="samples per class", y_label=label))
    return charts


def _first_pictures(run: RunFolder, budget: int) -> Sequence[object]:
    """One distilled sample of each of the first classes."""
    k, limits = len(run.class_names), run.record.value_range
    shown = gallery(run.images[:k], run.class_names, start=None, value_range=limits, budget=budget)
    return shown.classes[:_PICTURED_CLASSES]
