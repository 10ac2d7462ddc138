"""Runs side by side: one table for the terminal and the page, and a page with charts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from krrdistill.apps.report.charts import LAMBDA
from krrdistill.apps.report.page import score_chart
from krrdistill.apps.report.pictures import gallery
from krrdistill.apps.report.render import render
from krrdistill.apps.report.run_folder import RunFolder
from krrdistill.apps.text import megabytes, number, percent, seconds, shown_device
from krrdistill.artifact.record import CRITERIA, KipRecord, RunRecord
from krrdistill.common.options import as_word

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


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """The names of the folders, with as many parents as it takes to tell them apart."""
    parts = [run.folder.resolve().parts for run in runs]
    longest = max(len(part) for part in parts)
    for count in range(1, longest):
        names = [str(Path(*part[-count:])) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(Path(*part)) for part in parts]


def comparison(runs: Sequence[RunFolder]) -> list[Row]:
    """What the runs were asked, what came out, and what it took."""
    records = [run.record for run in runs]

    def row(name: str, text: Callable[[RunRecord], str], *, fluctuates: bool = False) -> Row:
        return Row(name, tuple(map(text, records)), fluctuates)

    def time(stage: str) -> Row:
        return row(f"time: {stage}", lambda record: seconds(record.seconds.get(stage)), fluctuates=True)

    return [
        *(Row(name, tuple(as_word(getattr(record, name)) for record in records)) for name in _ASKED),
        row("samples m", lambda record: str(record.m)),
        row(LAMBDA, lambda record: number(record.lambda_)),
        row(f"{LAMBDA}_S", lambda record: number(record.lambda_s)),
        row("validation accuracy", lambda record: percent(record.val_accuracy)),
        row("test accuracy, original", lambda record: percent(record.original.test_accuracy)),
        row("test accuracy, distilled", lambda record: percent(record.distilled.test_accuracy)),
        row("predictions that agree", lambda record: percent(record.certificate.prediction_agreement)),
        row("relative weight error", lambda record: number(record.certificate.weight_relative_error, digits=2)),
        row("condition number", lambda record: number(record.certificate.condition)),
        row("method", lambda record: record.method),
        *([row("steps on", _steps_on)] if any(isinstance(record, KipRecord) for record in records) else []),
        row("exact", _exactness),
        *map(time, dict.fromkeys(stage for record in records for stage in record.stages)),
        time("total"),
        row("peak memory", lambda record: megabytes(record.peak_memory_bytes), fluctuates=True),
    ]


def _steps_on(record: RunRecord) -> str:
    """Of KIP; the backend is of the statistics."""
    return shown_device(record.device) if isinstance(record, KipRecord) else "-"


def _exactness(record: RunRecord) -> str:
    """KIP does not claim to be exact."""
    return "yes" if record.exact else "no, KIP" if isinstance(record, KipRecord) else _INEXACT


def compare_page(runs: Sequence[RunFolder]) -> bytes:
    """The table, the lambda paths (one scale for each criterion) and the first pictures of every run."""
    names = run_names(runs)
    limits = {criterion: _limits(runs, criterion) for criterion in CRITERIA}
    pairs = list(zip(names, runs, strict=True))
    return render(
        "compare.html",
        names=names,
        rows=comparison(runs),
        inexact=[name for name, run in pairs if _exactness(run.record) == _INEXACT],
        iterative=sum(isinstance(run.record, KipRecord) for run in runs),
        path_charts=[
            (name, score_chart(run, f"path-{index}", y_limits=limits[run.record.criterion]))
            for index, (name, run) in enumerate(pairs)
            if run.record.criterion != "request"
        ],
        pictures=[(name, _first_pictures(run, _PICTURE_BUDGET // len(runs))) for name, run in pairs],
    )


def _limits(runs: Sequence[RunFolder], criterion: str) -> tuple[float, float] | None:
    """The extremes of the scores of all runs with one criterion, as they are shown."""
    scores = [CRITERIA[criterion].shown(run.path.score) for run in runs if run.record.criterion == criterion]
    finite = np.concatenate([*scores, np.empty(0)])
    finite = finite[np.isfinite(finite)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _first_pictures(run: RunFolder, budget: int) -> Sequence[object]:
    """One distilled sample of each of the first classes."""
    k, limits = len(run.class_names), run.record.value_range
    shown = gallery(run.images[:k], run.class_names, start=None, value_range=limits, budget=budget)
    return shown.classes[:_PICTURED_CLASSES]
