"""Numbers, tables and rows of results, as the page shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "ABSENT",
    "Result",
    "Row",
    "device_of",
    "is_real",
    "median",
    "ms",
    "part_of",
    "percent",
    "ranged",
    "rows_of",
    "scientific",
    "table",
    "times",
    "unfinished",
]

ABSENT = "Not run.\n"
Result = dict[str, Any]
Row = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def median(row: Row) -> float | None:
    return statistics.median(row["seconds"]) if row.get("seconds") else None


def ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def ranged(row: Row) -> str:
    """The median, and the range where there are several runs."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    taken = row["seconds"]
    spread = f" ({ms(min(taken))} … {ms(max(taken))})" if len(taken) > 1 else ""
    return ms(median(row)) + spread


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def scientific(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def part_of(result: Result, name: str) -> Result:
    return dict(result["parts"].get(name, {}))


def rows_of(result: Result, name: str) -> list[Result]:
    return list(part_of(result, name).get("rows", []))


def unfinished(result: Result, *names: str) -> list[str]:
    """A sentence for each part that did not come to its end."""
    lines = []
    for name in names:
        part = part_of(result, name)
        for said in (part.get("outcome", "done"), part.get("skipped"), part.get("failed")):
            if isinstance(said, str) and said != "done":
                lines += [f"Part `{name}`: {said}.", ""]
    return lines


def is_real(result: Result) -> bool:
    """Goals and predictions are about full sizes on hardware."""
    return not result["sizes"]["emulated"] and result["sizes"]["d"] == 3072


def device_of(result: Result) -> str:
    return str(part_of(result, "facts").get("device", "unknown device"))
