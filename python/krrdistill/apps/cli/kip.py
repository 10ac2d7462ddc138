"""The work behind ``krrdistill kip``: call the library, draw, write, print."""

from __future__ import annotations

import time

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.folder import output_folder
from krrdistill.apps.cli.run import FIGURE, page_facts, require_matplotlib, show_report, write_report
from krrdistill.apps.cli.settings import KipSettings


def kip(settings: KipSettings, *, as_json: bool) -> int:
    """Run KIP on one data set; write the artefacts, the curve, a figure, the report and its page; print the outcome."""
    from krrdistill.apps.kip import run_kip
    from krrdistill.apps.likeness import value_range
    from krrdistill.apps.report import distilled_figure, save_figure, write_figure_data, write_page
    from krrdistill.data import load_dataset

    require_matplotlib()
    options, kernel = settings.options, settings.map_options.kernel
    with output_folder(settings.folder) as folder, output.stage_progress() as progress:
        start = time.perf_counter()
        progress("load", 0.0)
        dataset = load_dataset(settings.dataset, data_dir=settings.data_dir, download=settings.download)
        run = run_kip(
            dataset,
            kernel=kernel,
            map_options=settings.map_options.given(),
            use_zca=settings.zca,
            options=options,
            out=folder,
            load_seconds=time.perf_counter() - start,
            progress=progress,
        )
        figure = distilled_figure(
            run.distilled.distilled_data,
            dataset.class_names,
            start_images=run.start_images,
            value_range=value_range(dataset),
            title=f"{dataset.name}, {kernel}, {options.points_per_class} per class, KIP ({options.variant})",
        )
        save_figure(figure, folder / FIGURE)
        report = {**run.report, "figure": str(folder / FIGURE), **page_facts(folder, settings, dataset)}
        write_figure_data(folder, run.result.original.path, run.singular_values, run.start_images)
        write_report(folder, report)
        write_page(folder)
    show_report(report, as_json, output.print_kip_summary)
    return status.OK
