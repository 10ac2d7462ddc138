"""Run the cells of a sweep that are missing: one pass over the data per map, and a run folder per cell."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from krrdistill.apps.distillation import PreparedRun, asked_of_map, prepare_run, run_points
from krrdistill.apps.info import machine
from krrdistill.apps.naming import fitting, run_name
from krrdistill.apps.report.run_folder import PAGE, read_run
from krrdistill.apps.report.write import in_folder, write_run
from krrdistill.apps.run_kind import DISTILLED, SWEEP, RunKind, check_kind
from krrdistill.apps.text import seconds
from krrdistill.artifact.making import versions
from krrdistill.artifact.record import RunRecord, plain
from krrdistill.backends import get_backend
from krrdistill.common.documents import parse_json, read_bounded
from krrdistill.common.files import remove_leftovers, write_atomically
from krrdistill.common.options import declared_options, differing, shown_value
from krrdistill.common.progress import Progress
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset
from krrdistill.data.dataset import row_blocks
from krrdistill.errors import DataError, KrrDistillError
from krrdistill.maps import kernels_with
from krrdistill.maps.user import load_object
from krrdistill.options import NAMED, DistillOptions, is_object_name
from krrdistill.pipeline import Trained, train

from .grid import SweepOptions
from .outcome import Outcome, Sweep

__all__ = ["Cell", "run_sweep"]

FORMAT = "krrdistill-sweep-1"
CELLS = "cells"  # the stage of the progress that all cells are


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its folder's name, and what it is asked for."""

    name: str
    kernel: str
    map_options: Mapping[str, Any]
    options: DistillOptions
    asked: Mapping[str, str]

    @property
    def model(self) -> tuple[str, int]:
        """What decides the model, of all that cells differ in."""
        return self.kernel, self.options.seed

    def made(self, record: RunRecord) -> bool:
        """Whether a record is of this cell."""
        found = (record.kernel, record.seed, record.ipc, record.init, dict(record.asked))
        options = self.options
        return found == (self.kernel, options.seed, options.points_per_class, options.start, dict(self.asked))


def run_sweep(
    dataset: Dataset,
    grid: SweepOptions | None = None,
    *,
    map_options: Mapping[str, Any] | None = None,
    use_zca: bool = False,
    options: DistillOptions | None = None,
    out: Path | str,
    asked: Mapping[str, str] | None = None,
    command: str | None = None,
    commands_of: Callable[[Cell, Path], tuple[str, str]] | None = None,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Distils a data set for every cell of a grid, with one pass over the data for each kernel and seed.

    Every cell gets a run folder in ``out``, as ``run_distillation`` and ``write_run`` leave it. Finished cells are kept
    when a sweep is run again; a cell that fails is reported, and the others go on. ``write_sweep`` writes the table and
    the plots.

    Parameters
    ----------
    dataset : Dataset
    grid : SweepOptions, optional
        What the cells differ in, by default one cell.
    map_options : mapping, optional
        Options for ``make_map``; each map gets those that it takes.
    use_zca : bool
        Whether to whiten (ZCA) instead of standardising.
    options : DistillOptions, optional
        What all cells share.
    out : Path
        Folder, made where it is missing.
    asked : mapping, optional
        Options of the data set, for titles and names.
    command : str, optional
        The words that ask for the sweep again.
    commands_of : callable, optional
        Called with a cell and its folder; returns ``command`` and ``verify_command`` of its record.
    load_seconds : float
        Seconds that loading the data took, for the records.
    progress : callable, optional
        Called with (stage, fraction done), also for the stage "cells".
    say : callable, optional
        Called with one line for every cell.

    Returns
    -------
    Sweep

    Raises
    ------
    DataError
        Where ``out`` holds another sweep, or files of another kind.
    ValueError
        For options that exclude each other in some cell, and options of the map that no kernel takes.
    """
    grid, options, out = grid or SweepOptions(), options or DistillOptions(), Path(out)
    cells = list(_cells(dataset, grid, options, map_options or {}, use_zca=use_zca, asked=asked or {}))
    _check_names(cells)
    get_backend(options.backend)  # raises where there is none of this name, or it does not work here
    request = plain(_request(dataset, cells, options, use_zca=use_zca))
    check_kind(out, RunKind.SWEEP)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out / SWEEP, request)
    kept = {cell.name: record for cell in cells if (record := _finished(out / cell.name, cell)) is not None}
    report = _Report(len(cells), len(kept), progress, say)
    records, failed = dict(kept), dict[str, str]()
    for _, group in groupby((cell for cell in cells if cell.name not in kept), key=lambda cell: cell.model):
        missing = list(group)
        try:
            prepared, trained = _model(dataset, missing[0], use_zca, load_seconds, progress)
        except (KrrDistillError, ValueError, MemoryError) as error:
            failed |= {cell.name: report.failed(cell, error) for cell in missing}
            continue
        for cell in missing:
            folder = out / cell.name
            try:
                record = _run(cell, prepared, trained, folder, commands_of, progress)
            except (KrrDistillError, ValueError, MemoryError, FileExistsError, NotADirectoryError) as error:
                failed[cell.name] = report.failed(cell, error)
                with suppress(OSError):
                    folder.rmdir()  # where nothing is in it
                continue
            records[cell.name] = record
            report.done(cell, record)
    real = any(record.original.mean_r2 is not None for record in records.values())
    return Sweep(
        dataset=dataset.name,
        score="mean test R\N{SUPERSCRIPT TWO}" if real else "test accuracy",
        request=request,
        command=command,
        cells=tuple(
            Outcome.of(cell.name, cell.options.lambda_s, records[cell.name]) for cell in cells if cell.name in records
        ),
        failed=failed,
        machine=machine(options.threads),
        versions=versions(),
        finished=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )


def _cells(
    dataset: Dataset,
    grid: SweepOptions,
    options: DistillOptions,
    map_options: Mapping[str, Any],
    *,
    use_zca: bool,
    asked: Mapping[str, str],
) -> Iterator[Cell]:
    for name in map_options:
        if not set(kernels_with(name)) & set(grid.kernels):
            raise ValueError(f"sweep: none of the kernels {', '.join(grid.kernels)} takes {name}")
    for kernel, of_cell in grid.cells(options):
        own = {name: value for name, value in map_options.items() if kernel in kernels_with(name)}
        facts = {**asked, **asked_of_map(own, use_zca=use_zca), **differing(of_cell, never=NAMED)}
        source = f"{fitting(dataset.name)}_{fitting(kernel)}"
        name = run_name(source, of_cell.points_per_class, of_cell.start, facts, of_cell.seed)
        yield Cell(name, kernel, own, of_cell, facts)


def _check_names(cells: Sequence[Cell]) -> None:
    """Raises ValueError where two cells would have one folder."""
    kernels: dict[str, str] = {}
    for cell in cells:
        other = kernels.setdefault(cell.name, cell.kernel)
        if other != cell.kernel:
            raise ValueError(f"sweep: the maps {other} and {cell.kernel} would share the folder {cell.name}")


def _digest(part: Any) -> str:
    """SHA-256 of samples or labels, read in blocks: the ``content_digest`` of the array that they are."""
    digest = hashlib.sha256(repr(("part", part.dtype.str, part.shape)).encode())
    n, *shape = part.shape
    for block in row_blocks(n, math.prod(shape)):
        digest.update(np.ascontiguousarray(part[block]).data)
    return digest.hexdigest()


def _request(dataset: Dataset, cells: Sequence[Cell], options: DistillOptions, *, use_zca: bool) -> dict[str, Any]:
    """What decides the files of a sweep, but for rounding."""
    axes = ("points_per_class", "seed", "init", "lambda_s")
    shared = [each for each in declared_options(DistillOptions) if each.name not in axes and each.name != "threads"]
    parts = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    parts |= {} if dataset.x_validation is None else {"x": dataset.x_validation, "y": dataset.y_validation}
    return {
        "dataset": dataset.name,
        "samples": {name: list(np.shape(part)) for name, part in parts.items()},
        "digests": {name: _digest(part) for name, part in parts.items()},
        "own_maps": {
            kernel: load_object(kernel, math.prod(dataset.shape)).fingerprint()
            for kernel in dict.fromkeys(cell.kernel for cell in cells)
            if is_object_name(kernel)
        },
        "zca": use_zca,
        "options": {each.name: getattr(options, each.name) for each in shared},
        "cells": [cell.name for cell in cells],
    }


def _claim(path: Path, request: Mapping[str, Any]) -> None:
    """Writes the request where there is none. Raises DataError where there is another one."""
    if not path.exists():
        text = json.dumps({"format": FORMAT, "request": request}, indent=1) + "\n"
        write_atomically(path, lambda stream: stream.write(text.encode()))
        return
    document = parse_json(f"{path}:", read_bounded(path), finite=True)
    if (
        not isinstance(document, dict)
        or document.get("format") != FORMAT
        or not isinstance(document.get("request"), dict)
    ):
        raise DataError(f"{path}: not a sweep that this version reads; give another --out, or remove it")
    found = document["request"]
    different = [name for name in (*request, *found) if request.get(name) != found.get(name)]
    if different:
        named = "; ".join(_difference(name, found.get(name), request.get(name)) for name in dict.fromkeys(different))
        raise DataError(
            f"{path.parent} holds another sweep ({named}): give another --out, or remove what is in it to start again"
        )


def _difference(name: str, found: Any, wanted: Any) -> str:
    """What differs between two requests, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = ((key, found.get(key), wanted.get(key)) for key in dict.fromkeys((*found, *wanted)))
        return "; ".join(_difference(*pair) for pair in pairs if pair[1] != pair[2])
    if isinstance(found, list) and isinstance(wanted, list) and name == "cells":
        more, less = [len(set(a) - set(b)) for a, b in ((wanted, found), (found, wanted))]
        parts = (f"{more} cells that it lacks" * bool(more), f"without {less} of its cells" * bool(less))
        return f"cells: {' and '.join(filter(None, parts))}"
    return f"{name} {shown_value(found)}, now {shown_value(wanted)}"


def _finished(folder: Path, cell: Cell) -> RunRecord | None:
    """The record of a cell that is done; None where something of it is missing, edited, damaged or of another run."""
    if not (folder / PAGE).is_file():
        return None
    try:
        run = read_run(folder)
    except DataError:
        return None
    return run.record if cell.made(run.record) and run.agrees else None


def _model(
    dataset: Dataset, cell: Cell, use_zca: bool, load_seconds: float, progress: Progress | None
) -> tuple[PreparedRun, Trained]:
    """The map and the model of a cell, and of all others of the same kernel and seed: one pass over the data."""
    prepared = prepare_run(
        dataset,
        kernel=cell.kernel,
        map_options=cell.map_options,
        use_zca=use_zca,
        options=cell.options,
        load_seconds=load_seconds,
        progress=progress,
    )
    with limited_threads(cell.options.threads):
        return prepared, train(prepared.problem, progress)


def _run(
    cell: Cell,
    prepared: PreparedRun,
    trained: Trained,
    folder: Path,
    commands_of: Callable[[Cell, Path], tuple[str, str]] | None,
    progress: Progress | None,
) -> RunRecord:
    """Makes one cell; what a killed process left of it is removed."""
    if folder.is_dir():
        remove_leftovers(folder, DISTILLED)
    result = run_points(prepared, cell.options, trained, out=folder, progress=progress)
    command, verify_command = (None, None) if commands_of is None else commands_of(cell, folder)
    record = replace(
        in_folder(result.record, folder, threads=cell.options.threads),
        asked=cell.asked,
        command=command,
        verify_command=verify_command,
    )
    write_run(folder, record, result)
    return record


class _Report:
    """Says how far a sweep is, and how much longer it will take if the other cells take as long on average.

    A warning that several cells have is said once.
    """

    def __init__(self, total: int, kept: int, progress: Progress | None, say: Callable[[str], None]) -> None:
        self._total, self._kept, self._ended = total, kept, kept
        self._progress, self._say, self._start = progress, say, time.perf_counter()
        self._warned = set[str]()
        if kept:
            say(f"{kept} of {total} cells are there already")
        self._show()

    def done(self, cell: Cell, record: RunRecord) -> None:
        """One more cell."""
        error = record.certificate.weight_relative_error
        found = "not finite" if error is None else f"{error:.1e}"
        self._end(f"{cell.name}: weight error {found}{'' if record.exact else ', NOT EXACT'}")
        for warning in dict.fromkeys(record.warnings):
            if warning not in self._warned:
                self._say(f"warning: {warning}")
        self._warned.update(record.warnings)

    def failed(self, cell: Cell, error: BaseException) -> str:
        """One more cell, without a result; returns the reason in one line."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, MemoryError):
            reason = f"out of memory: {error}" if str(error) else "out of memory"
        self._end(f"{cell.name}: FAILED: {reason}")
        return reason

    def _end(self, line: str) -> None:
        self._ended += 1
        left = self._total - self._ended
        expected = (time.perf_counter() - self._start) / (self._ended - self._kept) * left
        rest = f"; about {seconds(expected)} left" if left else ""
        self._say(f"{self._ended} of {self._total}, {line}{rest}")
        self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress(CELLS, self._ended / self._total)
