"""The commands that write pages from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from krrdistill.apps.cli import output, status
from krrdistill.apps.report.compare import Comparison, compare_page
from krrdistill.apps.report.page import write_page
from krrdistill.apps.report.run_folder import REPORT, read_run
from krrdistill.apps.run_kind import RunKind, kind_of
from krrdistill.common.files import write_atomically

_PAGE = b"<!DOCTYPE html>"  # begins every page
_KINDS = (RunKind.DISTILL, RunKind.KIP)  # of runs with a page


def write_report(folder: Path, *, as_json: bool) -> None:
    """Write RUN/report.html from what RUN holds."""
    page = write_page(_existing(folder))
    if as_json:
        output.emit_json({"page": page, "bytes": page.stat().st_size})
    else:
        output.emit_line(f"wrote {page}")


def compare_runs(folders: Sequence[Path], *, out: Path | None, sort: str | None, as_json: bool) -> None:
    """Print runs side by side, and write the page that was asked for; a folder of runs stands for those in it."""
    if out is not None:
        _existing(out.parent)
        if out.is_dir():
            raise status.UsageError(f"compare: --out must name a file, {out} is a folder")
        _check_replaced(out)
    given = [run for folder in folders for run in _runs_of(_existing(folder))]
    if len(given) < 2:
        raise status.UsageError(f"compare needs at least two runs, got {len(given)}")
    found = Comparison.of([read_run(folder) for folder in given], sort)
    if out is not None:
        page = compare_page(found)
        write_atomically(out, lambda stream: stream.write(page))
    if as_json:
        output.emit_json({"runs": found.entries, "page": out})
        return
    output.print_comparison(found)
    if out is not None:
        output.emit_line(f"wrote {out}")


def _check_replaced(out: Path) -> None:
    """Raises UsageError for a file that is no page."""
    if out.exists():
        with out.open("rb") as stream:
            if stream.read(len(_PAGE)) != _PAGE:
                raise status.UsageError(
                    f"compare: --out {out}: there is another kind of file: give another name, or remove it"
                )


def _runs_of(folder: Path) -> list[Path]:
    """The folder of a run itself, or the runs right below a folder of runs, which are said."""
    if kind_of(folder) in _KINDS:
        return [folder]
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    runs = [path for path in below if (path / REPORT).is_file() and kind_of(path) in _KINDS]
    if not runs:
        return [folder]  # reading it says what is missing
    others = ", ".join(path.name for path in below if path not in runs)
    passed_over = f"; passed over, as they hold no finished run: {others}" if others else ""
    status.say(f"note: {len(runs)} runs in {folder}: {', '.join(path.name for path in runs)}{passed_over}")
    return runs


def _existing(folder: Path) -> Path:
    if folder.is_file():
        raise status.UsageError(f"{folder} is a file: give the folder of its run, {folder.parent}")
    if not folder.is_dir():
        raise status.UsageError(f"no such folder: {folder}")
    return folder
