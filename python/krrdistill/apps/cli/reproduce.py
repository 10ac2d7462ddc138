"""The work behind ``krrdistill reproduce``: run the cells that are missing, write the table three times, print it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.folder import output_folder
from krrdistill.common.files import write_atomically

T = TypeVar("T")
_LISTS: Mapping[str, Callable[[str], Any]] = {
    "datasets": str,
    "kernels": str,
    "methods": str,
    "ipcs": int,
    "seeds": int,
}
_KIP_ONLY = ("methods", "kip_iterations", "time_budget")


def reproduce(table: str, given: Mapping[str, Any], *, data_dir: Path | None, out: Path | None, as_json: bool) -> int:
    """Write ``out``/TABLE.json, .md and .html.

    The status is 1 where a cell cannot be run, 3 where a measured one is not as claimed.
    """
    from krrdistill.apps.reproduce import TABLES, ReproduceOptions, publication, to_markdown, to_page
    from krrdistill.apps.reproduce import reproduce as run

    values = _values(table, given, tuple(TABLES))
    options = ReproduceOptions(**{**TABLES[table].DEFAULTS, **values})
    with output_folder(Path("runs", table) if out is None else out) as folder:
        with output.stage_progress() as progress:
            document = run(table, options, out=folder, data_dir=data_dir, progress=progress, say=output.say)
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
        print(text)
        print(f"wrote {', '.join(files)} to {folder}")
    if document["not_run"]:
        return status.FAILURE
    return status.OK if readable.passed else status.WORSE_THAN_TOLERANCE


def _values(table: str, given: Mapping[str, Any], tables: Sequence[str]) -> dict[str, Any]:
    """What was given, lists taken apart."""
    if table not in tables:
        raise status.UsageError(f"reproduce: the tables are {', '.join(tables)}; got {table!r}")
    values = {name: value for name, value in given.items() if value is not None}
    for name in _KIP_ONLY:
        if table == "table3" and name in values:
            raise status.UsageError(f"--{name.replace('_', '-')} belongs to table4, not to {table}")
    for name, kind in _LISTS.items():
        if name in values:
            values[name] = _list(name, values[name], kind)
    return values


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda stream: stream.write(content))


def _list(name: str, text: str, kind: Callable[[str], T]) -> Sequence[T]:
    """``"1,10"`` -> (1, 10)."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise status.UsageError(f"--{name} must be whole numbers with commas between, got {text!r}") from None
