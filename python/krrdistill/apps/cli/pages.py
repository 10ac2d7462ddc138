"""The commands that write pages from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from krrdistill.apps.cli import output, status
from krrdistill.apps.report.compare import compare_page, comparison, run_names
from krrdistill.apps.report.page import write_page
from krrdistill.apps.report.run_folder import RunFolder, read_run
from krrdistill.artifact.record import to_json
from krrdistill.common.files import write_atomically


def write_report(folder: Path, *, as_json: bool) -> None:
    """Write RUN/report.html from what RUN holds."""
    page = write_page(_existing(folder))
    if as_json:
        output.emit_json({"page": page, "bytes": page.stat().st_size})
    else:
        output.emit_line(f"wrote {page}")


def compare_runs(folders: Sequence[Path], *, out: Path | None, as_json: bool) -> None:
    """Print runs side by side, and write the page that was asked for."""
    if len(folders) < 2:
        raise status.UsageError(f"compare needs at least two runs, got {len(folders)}")
    if out is not None:
        _existing(out.parent)
        if out.is_dir():
            raise status.UsageError(f"compare: --out must name a file, {out} is a folder")
    runs = [read_run(_existing(folder)) for folder in folders]
    if out is not None:
        page = compare_page(runs)
        write_atomically(out, lambda stream: stream.write(page))
    if as_json:
        output.emit_json({"runs": [_entry(run) for run in runs], "page": out})
        return
    output.print_comparison(run_names(runs), [(row.name, row.values) for row in comparison(runs)])
    if out is not None:
        output.emit_line(f"wrote {out}")


def _entry(run: RunFolder) -> dict[str, object]:
    return {"folder": run.folder, "exact": run.record.exact, **to_json(run.record)}


def _existing(folder: Path) -> Path:
    if folder.is_file():
        raise status.UsageError(f"{folder} is a file: give the folder of its run, {folder.parent}")
    if not folder.is_dir():
        raise status.UsageError(f"no such folder: {folder}")
    return folder
