"""The part of the page that tells where time goes, from the results of ``breakdown.py``."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.shown import ABSENT, Result, Row, median, ms, ranged, rows_of, table, unfinished

__all__ = ["breakdown"]

_SHOWN = 5  # functions of a step


def breakdown(result: Result) -> list[str]:
    """Device and wall time, functions of the host, and the steps of a file."""
    lines = ["### Where the time goes", "", *unfinished(result, "breakdown")]
    rows = rows_of(result, "breakdown")
    if not rows:
        return [*lines, ABSENT]
    failed = [(row["name"], row["failed"]) for row in rows if "failed" in row]
    lines += table(("failed", "why"), failed) if failed else []
    lines += _device([row for row in rows if "busy_seconds" in row])
    for row in rows:
        if row.get("id") == "host_functions" and row.get("functions"):
            lines += [f"Functions of the host that take most themselves, `{row['name']}`:", "", *_functions([row])]
    return [*lines, *_file([row for row in rows if str(row.get("id", "")).startswith("file_")])]


def _device(rows: Sequence[Row]) -> list[str]:
    """The work of the device in one call."""
    if not rows:
        return []
    shown = [
        (
            f"{row['kernel']}: {row['name']}" if "kernel" in row else f"{row['name']}",
            ms(median(row)),
            *(ms(row[f"{kind}_seconds"]) for kind in ("busy", "kernel", "copy")),
            *(str(row[name]) for name in ("kernels", "copies", "synchronisations", "allocations")),
        )
        for row in rows
    ]
    said = "Milliseconds of one call, and of the device in it, by PyTorch's profiler; overlapping work counts once:"
    times = ("wall", "device busy", "kernels", "copies")
    return [said, "", *table(("call", *times, "kernels", "copies", "waits", "allocations"), shown)]


def _functions(rows: Sequence[Row]) -> list[str]:
    shown = [
        (row["name"], f"`{one['function']}`", str(one["calls"]), ms(one["seconds"]), ms(one["with_callees"]))
        for row in rows
        for one in row["functions"][:_SHOWN]
    ]
    return table(("of", "function", "calls", "milliseconds", "with what it calls"), shown)


def _file(rows: Sequence[Row]) -> list[str]:
    """Saving, reading and certifying, and what they consist of."""
    if not rows:
        return []
    shown = [
        (row["name"] if row["id"] == "file_alone" else f"**{row['name']}**", ranged(row), _rate(row)) for row in rows
    ]
    said = f"A set of {rows[0]['per_class']} points per class: whole steps, and what they do, each alone:"
    lines = [said, "", *table(("step", "milliseconds (range)", "rate"), shown)]
    return lines + _functions([row for row in rows if "functions" in row])


def _rate(row: Row) -> str:
    seconds = median(row)
    return f"{row['bytes'] / seconds / 1e9:.2f} GB/s" if seconds and "bytes" in row else "–"
