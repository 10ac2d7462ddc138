"""The work behind ``krrdistill sweep``: run the cells that are missing, write the table and the plots, print them."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.inputs import load_data
from krrdistill.apps.cli.run import say_validation
from krrdistill.apps.cli.settings import SweepSettings, command_line, verify_line
from krrdistill.apps.folder import Existing, RunKind, output_folder
from krrdistill.common.options import differing


def run_sweep(settings: SweepSettings, *, as_json: bool) -> int:
    """Distil one data set for every cell; the status is 1 where a cell fails."""
    from krrdistill.apps.sweep import run_sweep, write_sweep
    from krrdistill.apps.sweep.run import Cell

    def commands_of(cell: Cell, folder: Path) -> tuple[str, str]:
        own = settings.of_cell(cell.kernel, cell.map_options, cell.options)
        return shlex.join(command_line(own)), shlex.join(verify_line(own, folder))

    run = settings.run
    with output_folder(settings.folder, RunKind.SWEEP, Existing.CONTINUED, say=status.note) as folder:
        with output.stage_progress(overall="cells") as progress:
            start = time.perf_counter()
            progress("load", 0.0)
            dataset = load_data(run, targets=run.targets)
            sweep = run_sweep(
                dataset,
                settings.grid,
                map_options=run.map_options.given(),
                use_zca=run.zca,
                options=run.options,
                out=folder,
                asked={**differing(run.source), **({} if run.targets is None else {"targets": run.targets})},
                command=shlex.join(command_line(settings)),
                commands_of=commands_of,
                load_seconds=time.perf_counter() - start,
                progress=progress,
                say=status.say,
            )
        readable = write_sweep(sweep, folder)
    say_validation(dataset, run.options.selection != "gcv")
    if as_json:
        output.emit_json({**sweep.to_json(), "folder": folder})
    else:
        output.print_sections(readable, names=("cells", "missing"))
        files = sorted(path.name for path in folder.glob("sweep.*"))
        output.emit_line(f"wrote {', '.join(files)} and {len(sweep.cells)} folders of runs to {folder}")
    return status.FAILURE if sweep.failed else status.OK
