"""The work behind ``krrdistill reproduce``: compute the missing cells, write the table in several formats, print it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.config import resolve
from krrdistill.apps.cli.settings import FigureSettings, TableSettings
from krrdistill.apps.folder import Existing, RunKind, output_folder
from krrdistill.apps.reproduce import TABLES, draw_figures, figure_publication, publication, to_markdown, to_page
from krrdistill.apps.reproduce import reproduce as run
from krrdistill.apps.reproduce.sections import Publication
from krrdistill.common.files import write_atomically
from krrdistill.common.options import declared_options

T = TypeVar("T", TableSettings, FigureSettings)
FIGURES = "figures"
_KIP_ONLY = ("methods", "kip_iterations", "time_budget", "device")


def run_reproduce(what: str, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Write a table, or the figures, to ``out``.

    The status is 1 where a cell cannot be run, 3 where a measured one is not as claimed.
    """
    if what != FIGURES and what not in TABLES:
        raise status.UsageError(f"reproduce: there are {', '.join(TABLES)} and {FIGURES}; got {what!r}")
    return _run_figures(given, as_json=as_json) if what == FIGURES else _run_table(what, given, as_json=as_json)


def _run_table(table: str, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Write ``out``/TABLE.json, .md and .html."""
    if table == "table3":
        _refuse(table, "table4", [name for name in _KIP_ONLY if name in given])
    settings = _settings(TableSettings, table, {**TABLES[table].DEFAULTS, **given})
    out = Path("runs", table) if settings.out is None else settings.out
    with output_folder(out, RunKind.TABLE, Existing.CONTINUED, say=status.note) as folder:
        with output.stage_progress() as progress:
            document = run(
                table,
                settings.options,
                out=folder,
                data_dir=settings.data_dir,
                download=settings.download,
                progress=progress,
                say=status.say,
            )
        readable = publication(document)
        _write(folder, table, document, readable, {}, as_json=as_json)
    if document["not_run"]:
        return status.FAILURE
    return status.OK if readable.passed else status.WORSE_THAN_TOLERANCE


def _run_figures(given: Mapping[str, Any], *, as_json: bool) -> int:
    """Write to ``out`` every figure as .png and .pdf, what made them as figures.json, and figures.md and .html."""
    settings = _settings(FigureSettings, FIGURES, given)
    out = Path("runs", FIGURES) if settings.out is None else settings.out
    with output_folder(out, RunKind.FIGURES, Existing.CONTINUED, say=status.note) as folder:
        with output.stage_progress() as progress:
            figures = draw_figures(
                settings.options,
                folder=folder,
                data_dir=settings.data_dir,
                download=settings.download,
                progress=progress,
                say=status.say,
            )
        readable = figure_publication(figures)
        _write(folder, FIGURES, figures.document, readable, figures.files, as_json=as_json)
    return status.OK if readable.passed else status.WORSE_THAN_TOLERANCE


def _write(
    folder: Path,
    name: str,
    document: Mapping[str, Any],
    readable: Publication,
    pictures: Mapping[str, bytes],
    *,
    as_json: bool,
) -> None:
    """Writes the files of a table or of the figures, and prints the text or the object."""
    text = to_markdown(readable)
    files = {
        **pictures,
        f"{name}.json": (output.to_json(document, indent=1) + "\n").encode(),
        f"{name}.md": text.encode(),
        f"{name}.html": to_page(readable),
    }
    for path, content in files.items():
        _write_file(folder / path, content)
    if as_json:
        output.emit_json({**document, "passed": readable.passed, "verdict": readable.verdict, "folder": folder})
        return
    for line in text.splitlines():
        output.emit_line(line)
    output.emit_line(f"wrote {', '.join(files)} to {folder}")


def _write_file(path: Path, content: bytes) -> None:
    write_atomically(path, lambda stream: stream.write(content))


def _settings(kind: type[T], what: str, given: Mapping[str, Any]) -> T:
    """The settings of a table or of the figures; what belongs to the other is refused."""
    own = {each.name for each in declared_options(kind)}
    _refuse(what, "the tables" if kind is FigureSettings else FIGURES, [name for name in given if name not in own])
    return resolve(kind, given)[0]


def _refuse(what: str, owner: str, names: list[str]) -> None:
    """Raises UsageError for options that belong to something else."""
    if names:
        raise status.UsageError(f"--{names[0].replace('_', '-')} belongs to {owner}, not to {what}")
