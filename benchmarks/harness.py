"""What every bench_*.py shares: time a call, keep its work beside it, print time, rate and fraction of the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
from ceilings import Ceilings
from krrdistill.backends import BACKENDS, Backend
from work import Work, as_json

__all__ = ["BACKENDS", "Benchmark", "Recorder", "Row", "backend_or_skip", "relative_error", "table"]

T = TypeVar("T")
AnyArray = npt.NDArray[Any]


class Benchmark(Protocol):
    """The part of pytest-benchmark's fixture that is used here."""

    name: str
    extra_info: dict[str, Any]
    stats: Any

    def __call__(self, function: Callable[[], T]) -> T: ...


@dataclass(frozen=True)
class Row:
    """One line of the final table; seconds and floor in s, rates in flop/s and bytes/s."""

    name: str
    seconds: float
    median: float
    flops: float
    bytes: float
    floor: float
    note: str = ""

    @property
    def fraction(self) -> float:
        """Of the ceiling: the floor's share of the shortest run."""
        return self.floor / self.seconds


@dataclass(frozen=True, eq=False)
class Recorder:
    """Runs a benchmark and stores flops, bytes, floor, fraction of the ceiling and the machine's facts with it."""

    benchmark: Benchmark
    ceilings: Ceilings
    facts: dict[str, Any]
    rows: list[Row]

    def __call__(self, function: Callable[[], T], work: Work, share_of: Work | None = None, **facts: Any) -> T:
        """Times ``function`` (often) and returns its last result; ``share_of`` is other work to relate the time to."""
        result = self.benchmark(function)
        self.benchmark.extra_info.update({**self.facts, **as_json(work), **facts})
        if self.benchmark.stats is None:  # --benchmark-disable: checks only
            return result
        stats = self.benchmark.stats.stats
        share = None if share_of is None else float(stats.min) / share_of.floor(self.ceilings)
        row = Row(
            name=self.benchmark.name.removeprefix("test_"),
            seconds=float(stats.min),
            median=float(stats.median),
            flops=work.total_flops,
            bytes=work.bytes,
            floor=work.floor(self.ceilings),
            note="" if share is None else f"{100 * share:.1f}% of the pass's floor",
        )
        self.rows.append(row)
        self.benchmark.extra_info.update(floor_seconds=row.floor, fraction_of_ceiling=row.fraction, share_of_pass=share)
        return result


def table(rows: Sequence[Row], ceilings: Ceilings) -> list[str]:
    """The final table: time, rate, and the fraction of the ceiling measured in the same process."""
    width = max((len(row.name) for row in rows), default=4)
    lines = [
        f"{'name':<{width}}  {'best ms':>10}  {'median ms':>10}  {'GFLOP/s':>8}  {'GB/s':>6}  {'of ceiling':>10}",
    ]
    for row in rows:
        rate = f"{row.flops / row.seconds / 1e9:8.1f}" if row.flops else f"{'-':>8}"
        traffic = f"{row.bytes / row.seconds / 1e9:6.1f}" if row.bytes else f"{'-':>6}"
        share = f"{100 * row.fraction:9.1f}%" if row.floor else f"{'-':>10}"
        best, median = 1e3 * row.seconds, 1e3 * row.median
        lines.append(
            f"{row.name:<{width}}  {best:10.3f}  {median:10.3f}  {rate}  {traffic}  {share}  {row.note}".rstrip()
        )
    lines.append(f"ceilings: {', '.join(f'{name} {value:.4g}' for name, value in asdict(ceilings).items())}")
    return lines


def backend_or_skip(name: str) -> Backend:
    """The backend, or a skip that says why there is none."""
    try:
        return kd.get_backend(name)
    except kd.BackendUnavailable as error:
        pytest.skip(str(error))


def relative_error(actual: Any, expected: Any) -> float:
    """||actual - expected||_F / ||expected||_F."""
    expected = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(actual, dtype=np.float64) - expected) / np.linalg.norm(expected))
