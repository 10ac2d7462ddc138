"""What both tables share: grouping of cells, and how they were measured."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from krrdistill.apps.reproduce.sections import Section

__all__ = [
    "backend_device",
    "command_for",
    "common_section",
    "group",
    "missing_section",
    "names_of",
    "range_of",
    "seconds_text",
]

Result = Mapping[str, Any]


def backend_device(backend: str) -> str:
    """Where a backend works, in words."""
    return "cuda:0" if backend.startswith("cuda") else "cpu"


def command_for(what: str, words: Sequence[str], data_dir: Path | None) -> str:
    """The command that asks for a table or the figures again, with the folder of the data where one was named."""
    folder = () if data_dir is None else ("--data-dir", str(data_dir))
    return shlex.join(["krrdistill", "reproduce", what, *words, *folder])


def group(cells: Iterable[Result], *names: str) -> dict[Any, list[Result]]:
    """Cells by their values under ``names``, in the order in which they come."""
    groups: dict[Any, list[Result]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in names), []).append(cell)
    return groups


def names_of(cells: Iterable[Result]) -> str:
    """The data sets of cells, in the order in which they come."""
    return ", ".join(dict.fromkeys(cell["dataset"] for cell in cells))


def seconds_text(value: float) -> str:
    """Three significant digits, thousands apart: 0.0443, 12.3, 33,800."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def range_of(values: Sequence[float]) -> str:
    """The only value, or the smallest and the largest."""
    low, high = seconds_text(min(values)), seconds_text(max(values))
    return low if low == high else f"{low} … {high}"


def missing_section(document: Mapping[str, Any]) -> tuple[Section, ...]:
    """The cells that could not be run, with the reason; nothing where all were."""
    if not document["not_run"]:
        return ()
    names = ("dataset", "kernel", "ipc", "seed", "method", "reason")
    rows = tuple(tuple(str(cell[name]) for name in names) for cell in document["not_run"])
    head = ("data set", "kernel", "per class", "seed", "method", "reason")
    return (Section(name="missing", title="Not run", head=head, rows=rows),)


def common_section(document: Mapping[str, Any], text: Iterable[str]) -> Section:
    """Sources, the command, the machines and versions that the cells were measured with."""
    cells = document["cells"]
    rows = []
    for title in ("machine", "versions"):
        kinds = {tuple(cell[title].items()): None for cell in cells}
        for facts in kinds:
            count = sum(tuple(cell[title].items()) == facts for cell in cells)
            where = title if len(kinds) == 1 else f"{title} of {count} cells"
            rows.append((where, ", ".join(f"{name} {value}" for name, value in facts)))
    finished = sorted(cell["finished"] for cell in cells)
    if finished:
        rows.append(("finished", finished[0] if finished[0] == finished[-1] else f"{finished[0]} to {finished[-1]}"))
    rows.append(("asked for by", document["command"]))
    return Section(name="how", title="How it was measured", text=tuple(text), head=("", ""), rows=tuple(rows))
