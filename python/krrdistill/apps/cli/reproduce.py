"""The work behind ``krrdistill reproduce``: run the cells that are missing, write the table three times, print it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.config import resolve
from krrdistill.apps.cli.folder import Existing, RunKind, output_folder
from krrdistill.apps.cli.settings import TableSettings
from krrdistill.apps.reproduce import TABLES, publication, to_markdown, to_page
from krrdistill.apps.reproduce import reproduce as run
from krrdistill.common.files import write_atomically

_KIP_ONLY = {
    "methods": "--methods",
    "kip_iterations": "--kip-iterations",
    "time_budget": "--time-budget",
    "device": "--device",
}


def run_reproduce(table: str, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Write ``out``/TABLE.json, .md and .html.

    The status is 1 where a cell cannot be run, 3 where a measured one is not as claimed.
    """
    settings = _settings(table, given)
    out = Path("runs", table) if settings.out is None else settings.out
    with output_folder(out, RunKind.TABLE, Existing.CONTINUED) as folder:
        with output.stage_progress() as progress:
            document = run(
                table, settings.options, out=folder, data_dir=settings.data_dir, progress=progress, say=status.say
            )
        readable = publication(document)
        text = to_markdown(readable)
        files = {
            f"{table}.json": (output.to_json(document, indent=1) + "\n").encode(),
            f"{table}.md": text.encode(),
            f"{table}.html": to_page(readable),
        }
        for name, content in files.items():
            _write(folder / name, content)
    if as_json:
        output.emit_json({**document, "passed": readable.passed, "verdict": readable.verdict, "folder": folder})
    else:
        for line in text.splitlines():
            output.emit_line(line)
        output.emit_line(f"wrote {', '.join(files)} to {folder}")
    if document["not_run"]:
        return status.FAILURE
    return status.OK if readable.passed else status.WORSE_THAN_TOLERANCE


def _settings(table: str, given: Mapping[str, Any]) -> TableSettings:
    """What was given over the defaults of the table."""
    if table not in TABLES:
        raise status.UsageError(f"reproduce: the tables are {', '.join(TABLES)}; got {table!r}")
    for name, flag in _KIP_ONLY.items():
        if table == "table3" and name in given:
            raise status.UsageError(f"{flag} belongs to table4, not to {table}")
    return resolve(TableSettings, {**TABLES[table].DEFAULTS, **given})[0]


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda stream: stream.write(content))
