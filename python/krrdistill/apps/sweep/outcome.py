"""The results of a sweep: one row per cell, and means over seeds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from krrdistill.apps.text import number
from krrdistill.artifact.record import RunRecord, to_json

__all__ = ["Outcome", "Spread", "Summary", "Sweep", "to_csv"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One cell: what was asked, and what came out.

    lambda_s : as it was asked for; ``lambda_s_used`` is the number
    original, distilled : test accuracy, of real-valued targets the mean of R^2; None without a test set
    psnr : to the real samples of the start, None for noise
    """

    folder: str
    kernel: str
    ipc: int
    seed: int
    init: str
    lambda_s: float | str
    lambda_s_used: float
    lambda_: float = field(metadata={"key": "lambda"})
    original: float | None
    distilled: float | None
    weight_relative_error: float | None
    prediction_agreement: float | None
    psnr: float | None
    exact: bool
    seconds: float

    @staticmethod
    def of(folder: str, lambda_s: float | str, record: RunRecord) -> Outcome:
        """The row of a run."""
        assert isinstance(record.ipc, int)
        original, distilled = record.original, record.distilled
        real = original.mean_r2 is not None
        return Outcome(
            folder=folder,
            kernel=record.kernel,
            ipc=record.ipc,
            seed=record.seed,
            init=record.init,
            lambda_s=lambda_s,
            lambda_s_used=record.lambda_s,
            lambda_=record.lambda_,
            original=original.mean_r2 if real else original.test_accuracy,
            distilled=distilled.mean_r2 if real else distilled.test_accuracy,
            weight_relative_error=record.certificate.weight_relative_error,
            prediction_agreement=record.certificate.prediction_agreement,
            psnr=record.realism.psnr,
            exact=record.exact,
            seconds=record.seconds["total"],
        )


@dataclass(frozen=True)
class Spread:
    """Values over seeds: their mean, and their standard deviation where there are two or more."""

    mean: float
    deviation: float | None

    @staticmethod
    def of(values: Iterable[float | None]) -> Spread | None:
        """None where a value is not known."""
        known = list(values)
        if not known or any(value is None for value in known):
            return None
        numbers = [float(value) for value in known if value is not None]
        return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None)


@dataclass(frozen=True)
class Summary:
    """The cells that differ in their seeds only."""

    kernel: str
    init: str
    lambda_s: float | str
    ipc: int
    cells: tuple[Outcome, ...]

    @property
    def variant(self) -> tuple[str, str]:
        """What else a curve is of, besides its kernel, in words."""
        return self.init, f"\N{GREEK SMALL LETTER LAMDA}_S {number(self.lambda_s)}"

    def spread(self, name: str) -> Spread | None:
        """Of a field over the seeds."""
        return Spread.of(getattr(cell, name) for cell in self.cells)

    @property
    def errors(self) -> tuple[float, float, float]:
        """Weight errors over the seeds: the geometric mean, the smallest and the largest; infinite if not known."""
        known = [cell.weight_relative_error for cell in self.cells]
        values = [math.inf if value is None else value for value in known]
        mean = math.exp(fmean(math.log(value) if value else -math.inf for value in values))
        return mean, min(values), max(values)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep: the cells that are done, in the order of the grid, and those that failed, with the reason.

    score : what ``Outcome.original`` and ``distilled`` are
    """

    dataset: str
    score: str
    request: Mapping[str, Any]
    command: str | None
    cells: tuple[Outcome, ...]
    failed: Mapping[str, str]
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    finished: str

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Rows of the table: kernels, starts and lambda_S in the order of the grid, points per class ascending."""
        groups: dict[tuple[str, str, float | str, int], list[Outcome]] = {}
        for cell in self.cells:
            groups.setdefault((cell.kernel, cell.init, cell.lambda_s, cell.ipc), []).append(cell)
        orders = [list(dict.fromkeys(axis)) for axis in zip(*groups, strict=True)][:3]
        rows = (Summary(*key, tuple(cells)) for key, cells in groups.items())

        def place(row: Summary) -> tuple[int, ...]:
            key = (row.kernel, row.init, row.lambda_s)
            return (*(order.index(of) for order, of in zip(orders, key, strict=True)), row.ipc)

        return tuple(sorted(rows, key=place))

    def to_json(self) -> dict[str, Any]:
        """As ``sweep.json`` has it."""
        return to_json(self)


def to_csv(cells: Iterable[Outcome]) -> str:
    """One line per cell, under the names of the fields; what is not known is empty."""
    rows = [to_json(cell) for cell in cells]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
