"""The commands that write pages from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from krrdistill.apps.cli import output, status
from krrdistill.apps.folder import locked
from krrdistill.apps.report.compare import Comparison, compare_page
from krrdistill.apps.report.page import write_page
from krrdistill.apps.report.run_folder import REPORT, RunFolder, read_run
from krrdistill.apps.run_kind import RunKind, kind_of
from krrdistill.common.files import write_atomically
from krrdistill.errors import DataError

_PAGE, _OURS = b"<!DOCTYPE html>", b": krrdistill</title>"  # begin every page, and ours
_HEAD = 1 << 14  # bytes that the title is in
_KINDS = (RunKind.DISTILL, RunKind.KIP)  # of runs with a page


def write_report(folder: Path, *, as_json: bool) -> None:
    """Write RUN/report.html from what RUN holds."""
    with locked(_existing(folder), say=status.note):
        page = write_page(folder)
    if as_json:
        output.emit_json({"page": page, "bytes": page.stat().st_size})
    else:
        output.emit_line(f"wrote {page}")


def compare_runs(folders: Sequence[Path], *, out: Path | None, sort: str | None, as_json: bool) -> int:
    """Print runs side by side, and write the page that was asked for; a folder of runs stands for those in it.

    A run that cannot be read is said, with the reason, and left out; the status is then 1.
    """
    if out is not None:
        _existing(out.parent)
        if out.is_dir():
            raise status.UsageError(f"compare: --out must name a file, {out} is a folder")
        _check_replaced(out)
    given = [run for folder in folders for run in _runs_of(_existing(folder))]
    if len(given) < 2:
        raise status.UsageError(f"compare needs at least two runs, got {len(given)}")
    runs, unread = _read(given)
    found = Comparison.of(runs, sort)
    for folder, reason in unread.items():
        status.say(f"warning: {folder} is left out: {reason}")
    if out is not None:
        page = compare_page(found, unread)
        write_atomically(out, lambda stream: stream.write(page))
    if as_json:
        output.emit_json({"runs": found.entries, "unread": unread, "page": out})
    else:
        output.print_comparison(found)
        if out is not None:
            output.emit_line(f"wrote {out}")
    return status.FAILURE if unread else status.OK


def _read(folders: Sequence[Path]) -> tuple[list[RunFolder], dict[str, str]]:
    """Runs, and the folders of those that cannot be read, with the reason; DataError where fewer than two can."""
    runs, unread = list[RunFolder](), dict[str, str]()
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except DataError as error:
            unread[str(folder)] = str(error)
    if len(runs) < 2:
        raise DataError(f"compare: fewer than two runs can be read: {'; '.join(unread.values())}")
    return runs, unread


def _check_replaced(out: Path) -> None:
    """Raises UsageError for a file that is no page of this package."""
    if out.is_file():
        with out.open("rb") as stream:
            head = stream.read(_HEAD)
            if not (head.startswith(_PAGE) and _OURS in head):
                raise status.UsageError(
                    f"compare: --out {out}: there is another kind of file: give another name, or remove it"
                )


def _runs_of(folder: Path) -> list[Path]:
    """The folder of a run itself, or the runs right below a folder of runs, which are said.

    Raises UsageError where there are none, and says where deeper ones are.
    """
    if kind_of(folder) in _KINDS:
        return [folder]
    below = _folders(folder)
    runs = [path for path in below if _is_run(path)]
    deeper = [path for path in below if path not in runs and any(map(_is_run, _folders(path)))]
    give = f"runs lie one level deeper, give their folders: {', '.join(map(str, deeper))}"
    if not runs:
        raise status.UsageError(f"compare: no run in {folder}{f'; {give}' if deeper else ''}")
    others = ", ".join(path.name for path in below if path not in (*runs, *deeper))
    passed_over = f"; passed over, as they hold no finished run: {others}" if others else ""
    status.say(f"note: {len(runs)} runs in {folder}: {', '.join(path.name for path in runs)}{passed_over}")
    if deeper:
        status.say(f"note: more {give}")
    return runs


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a finished run with a page."""
    return (folder / REPORT).is_file() and kind_of(folder) in _KINDS


def _existing(folder: Path) -> Path:
    if folder.is_file():
        raise status.UsageError(f"{folder} is a file: give the folder of its run, {folder.parent}")
    if not folder.is_dir():
        raise status.UsageError(f"no such folder: {folder}")
    return folder
