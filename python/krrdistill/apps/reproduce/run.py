"""Run the cells of a table that are missing, and put together what there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from krrdistill.apps.info import machine
from krrdistill.apps.kip.iteration import KipOptions
from krrdistill.apps.kip.place import place_of
from krrdistill.apps.reproduce import table3, table4
from krrdistill.apps.reproduce.case import Case
from krrdistill.apps.reproduce.cells import Cell, Store
from krrdistill.apps.reproduce.facts import command_for
from krrdistill.apps.reproduce.sections import Publication
from krrdistill.apps.reproduce.selection import ReproduceOptions
from krrdistill.artifact.making import versions
from krrdistill.backends import get_backend
from krrdistill.common.documents import UNFIT
from krrdistill.common.options import as_words
from krrdistill.common.progress import Progress
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset, load_dataset
from krrdistill.errors import DataError, KrrDistillError

__all__ = ["TABLES", "publication", "reproduce"]

TABLES: Mapping[str, Any] = {"table3": table3, "table4": table4}
Result = dict[str, Any]


def reproduce(
    table: str,
    options: ReproduceOptions | None = None,
    *,
    out: Path,
    data_dir: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """The table as one JSON-able object; ``publication`` makes text of it.

    Every finished cell has its file in ``out``/cells and is not run again; a KIP cell that the budget ended goes on
    when it is asked for more iterations or more time. A cell that cannot be run says why, under "not_run", and only
    there: also one that was run for longer than is asked now.

    Raises
    ------
    DataError
        When a data set is not at hand, or a file in ``out``/cells is not what it should be.
    OSError
        When ``out`` cannot be written.
    """
    options = options or ReproduceOptions(**TABLES[table].DEFAULTS)
    get_backend(options.backend)  # raises where there is none of this name, or it does not work here
    if table == "table3" and options.methods != ("closed_form",):
        raise ValueError(f"reproduce: table3 has the closed form only, got {', '.join(options.methods)}")
    if table == "table3" and options.device != "cpu":
        raise ValueError("reproduce: device is where KIP takes its steps, table3 has none; pass backend='cuda'")
    if options.device != "cpu" and options.methods != ("closed_form",):
        place_of(KipOptions(device=options.device, backend=options.backend))  # raises where there is no such device
    store, load = Store(out / "cells"), partial(load_dataset, data_dir=data_dir, download=download)
    store.folder.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    not_run: list[Result] = []
    with limited_threads(options.threads):
        for name in options.datasets:
            for kernel, seed in itertools.product(options.kernels, options.seeds):
                pairs = itertools.product(options.ipcs, options.methods)
                cells = [Cell(name, kernel, seed, ipc, method, options.device) for ipc, method in pairs]
                missing = [cell for cell in cells if not _is_finished(store, cell, options)]
                refused = _run(missing, options, store, load, progress, say) if missing else {}
                not_run += [{**asdict(cell), "reason": reason} for cell, reason in refused.items()]
                found = ((cell, store.read(cell)) for cell in cells if cell not in refused)
                results += [{**asdict(cell), **result} for cell, result in found if result is not None]
    command = _command(table, options, data_dir)
    return {"table": table, "asked": asdict(options), "command": command, "cells": results, "not_run": not_run}


def publication(document: Mapping[str, Any]) -> Publication:
    """What there is to read in a table."""
    try:
        return TABLES[document["table"]].publication(document)  # type: ignore[no-any-return]
    except (KeyError, TypeError, AttributeError) as error:  # of a cell that was edited, and is else what it was
        raise DataError(
            f"the results of the cells are not whole ({type(error).__name__}: {error}); run them again"
        ) from error


def _command(table: str, options: ReproduceOptions, data_dir: Path | None) -> str:
    """The command that asks for this table."""
    cells, of_kip = ("datasets", "kernels", "ipcs", "seeds"), ("methods", "kip_iterations", "time_budget", "device")
    if table == "table3":
        words = as_words(options, always=cells, never=of_kip)
    else:
        words = as_words(options, always=(*cells, *of_kip[:-1]))
    return command_for(table, words, data_dir)


def _is_finished(store: Store, cell: Cell, options: ReproduceOptions) -> bool:
    result = store.read(cell)
    try:
        return _finished(result, options)
    except UNFIT as error:
        raise DataError(
            f"{store.path(cell)}: not the result of this cell ({error}); delete it to run the cell again"
        ) from error


def _finished(result: Result | None, options: ReproduceOptions) -> bool:
    if result is None or "iterations" not in result:
        return result is not None
    if _overran(result, options) or result["iterations"] > options.kip_iterations:
        return False
    ended = _steps(result) >= options.time_budget and result.get("time_budget") == options.time_budget
    return ended or result["iterations"] == options.kip_iterations


def _overran(result: Result, options: ReproduceOptions) -> bool:
    """Whether a cell of KIP took more time than is asked for now, under a larger budget or one that it does not say."""
    return _steps(result) > options.time_budget and result.get("time_budget", math.inf) > options.time_budget


def _steps(result: Result) -> float:
    return float(result["seconds"]["steps"])


def _run(
    cells: list[Cell],
    options: ReproduceOptions,
    store: Store,
    load: Callable[[str], Dataset],
    progress: Progress | None,
    say: Callable[[str], None],
) -> dict[Cell, str]:
    """Runs cells of one data set, kernel and seed; returns those that cannot be run, with the reason."""
    first = cells[0]
    data = load(first.dataset)
    case = Case(data, first.kernel, first.seed, options.backend, options.threads, progress, options.device)
    refused = {}
    for cell in cells:
        try:
            result = _run_cell(case, cell, options, store)
        except (KrrDistillError, ValueError) as error:
            refused[cell] = " ".join(str(error).split())
            say(f"{cell.name}: not run: {error}")
            continue
        finished = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        facts = {"machine": machine(options.threads), "versions": versions(), "finished": finished}
        store.write(cell, {**result, **facts})
        say(f"{cell.name}: done")
    return refused


def _run_cell(case: Case, cell: Cell, options: ReproduceOptions, store: Store) -> Result:
    if cell.method == "closed_form":
        return case.closed_form(cell.ipc, store.folder)
    stored = store.read(cell)
    if stored is not None and _overran(stored, options):
        budget = (
            f"a time budget of {stored['time_budget']:g} s" if "time_budget" in stored else "an unknown time budget"
        )
        raise ValueError(
            f"{store.path(cell)} was made under {budget}, not {options.time_budget:g} s: use another folder, "
            "or delete it and its checkpoint"
        )
    result = case.kip(
        cell.ipc,
        cell.method,
        store.folder,
        checkpoint=store.checkpoint(cell),
        iterations=options.kip_iterations,
        time_budget=options.time_budget,
    )
    return {**result, "time_budget": options.time_budget}
