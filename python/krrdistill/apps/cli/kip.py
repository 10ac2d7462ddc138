"""The work behind ``krrdistill kip``: call the library, draw, write, print."""

from __future__ import annotations

import time

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.inputs import load_data
from krrdistill.apps.cli.run import of_command, say_validation, show_record, tracked_run
from krrdistill.apps.cli.settings import KipSettings
from krrdistill.apps.drawing import require_drawing
from krrdistill.apps.folder import Existing, RunKind, output_folder


def run_kip(settings: KipSettings, *, as_json: bool) -> int:
    """Run KIP on one data set; write the artefacts, the curve, a figure, the report and its page; print the outcome."""
    from krrdistill.apps.kip import run_kip

    require_drawing()
    goes_on = Existing.CONTINUED  # from its checkpoint, which is refused where it is of another configuration
    with (
        output_folder(settings.folder, RunKind.KIP, goes_on, say=status.note) as folder,
        tracked_run(settings, folder) as tracker,
        output.stage_progress(tracker=tracker) as progress,
    ):
        start = time.perf_counter()
        progress("load", 0.0)
        dataset = load_data(settings, targets=settings.targets)
        run = run_kip(
            dataset,
            kernel=settings.map_options.kernel,
            map_options=settings.map_options.given(),
            use_zca=settings.zca,
            options=settings.options,
            out=folder,
            load_seconds=time.perf_counter() - start,
            progress=progress,
        )
        from krrdistill.apps.report.write import write_run

        record = of_command(run.record, folder, settings)
        write_run(folder, record, run)
        tracker.outcome(record)
    say_validation(dataset, record.n_val)
    show_record(record, as_json, output.print_kip_summary)
    return status.OK
