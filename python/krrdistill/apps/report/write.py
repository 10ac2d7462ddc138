"""What a run leaves beside its distilled set: pictures, the data of its charts, its record and its page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from krrdistill.apps.info import machine
from krrdistill.apps.report.axes import LAMBDA
from krrdistill.apps.report.page import score_figure, write_page
from krrdistill.apps.report.run_folder import (
    FIGURE,
    PAGE,
    PATH_FIGURE,
    REPORT,
    PathData,
    write_figure_data,
    write_record,
)
from krrdistill.apps.report.sheet import distilled_sheet, save_sheet
from krrdistill.apps.report.svg import save_figure
from krrdistill.artifact.record import RunRecord

if TYPE_CHECKING:
    from krrdistill.apps.distillation import RunResult
    from krrdistill.apps.kip.run import KipRun

__all__ = ["in_folder", "write_run"]

R = TypeVar("R", bound=RunRecord)


def in_folder(record: R, folder: Path, *, threads: int | None, with_path: bool = True) -> R:
    """The record with the files that ``write_run`` leaves in a folder, and when and where it was made."""
    return replace(
        record,
        figure=str(folder / FIGURE),
        lambda_path_figure=str(folder / PATH_FIGURE) if with_path else None,
        report=str(folder / REPORT),
        page=str(folder / PAGE),
        machine=machine(threads),
        finished=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    )


def write_run(
    folder: Path,
    record: RunRecord,
    run: RunResult | KipRun,
) -> None:
    """Writes the pictures that the record names, figure_data.npz, report.json and report.html to ``folder``.

    ``run`` has left distilled.npz there already.
    """
    distilled, data = run.distilled, PathData.of(run.model.path)
    if record.figure is not None:
        sheet = distilled_sheet(
            distilled.samples,
            distilled.meta["class_names"],
            start_images=run.start_images,
            value_range=record.value_range,
            points_per_class=record.ipc,
            title=record.title,
        )
        save_sheet(sheet, Path(record.figure))
    if record.lambda_path_figure is not None:
        title = f"{record.dataset}, {record.kernel}: choice of {LAMBDA}"
        figure = score_figure(data, record.chosen_by, n_validation=record.n_val, title=title)
        save_figure(figure, Path(record.lambda_path_figure))
    write_figure_data(folder, data, run.model.W, run.certificate, run.start_images)
    write_record(folder, record)
    write_page(folder)
