"""What kind of run a folder holds: files of two kinds in one folder would mislead its reader."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from krrdistill.common.documents import parse_json, read_bounded
from krrdistill.data.npz import npz_keys
from krrdistill.errors import DataError

__all__ = ["DISTILLED", "RELEASE", "SWEEP", "RunKind", "check_kind", "is_taken", "kind_of"]

DISTILLED, RELEASE, SWEEP = "distilled.npz", "release.json", "sweep.json"


class RunKind(Enum):
    """What writes a folder."""

    DISTILL = "krrdistill distill"
    KIP = "krrdistill kip"
    RELEASE = "a private release"
    TABLE = "krrdistill reproduce"
    SWEEP = "krrdistill sweep"
    FIGURES = "krrdistill reproduce figures"


# What each kind writes besides what tells it, of names that somebody else's files may have, too.
_OTHERS = {
    RunKind.DISTILL: ("distilled.png", "figure_data.npz", "lambda_path.png", "report.html"),
    RunKind.KIP: ("last.npz", "curve.npz", "distilled.png", "figure_data.npz", "lambda_path.png", "report.html"),
    RunKind.SWEEP: ("sweep.csv", "sweep.png", "sweep.html"),
}


def kind_of(folder: Path) -> RunKind | None:
    """The kind of run whose files, finished or not, a folder holds; None where there are none."""
    return _kind(folder, _report(folder))


def _kind(folder: Path, report: Any) -> RunKind | None:
    if (folder / RELEASE).exists():
        return RunKind.RELEASE
    if (folder / "cells").is_dir():
        return RunKind.TABLE
    if (folder / SWEEP).exists():
        return RunKind.SWEEP
    if (folder / "figures.html").exists():
        return RunKind.FIGURES
    if (folder / "checkpoint.npz").exists() or (isinstance(report, dict) and "variant" in report):
        return RunKind.KIP
    return RunKind.DISTILL if report is not None or (folder / DISTILLED).exists() else None


def _report(folder: Path) -> Any:
    """What report.json holds; None where there is none that is JSON."""
    try:
        return parse_json("report.json", read_bounded(folder / "report.json"))
    except (OSError, DataError):
        return None


def _is_report(document: Any) -> bool:
    """Whether a run may have written it: reports of other tools have this name, too."""
    return isinstance(document, dict) and {"dataset", "kernel"} <= document.keys()


def is_taken(folder: Path, kind: RunKind) -> bool:
    """Whether a folder holds a run of any kind; for a private release, whether it holds anything."""
    if kind is RunKind.RELEASE:
        return _first_file(folder) is not None
    return folder.is_dir() and any(_holds(folder, kind))


def _holds(folder: Path, kind: RunKind) -> tuple[RunKind | None, str | None]:
    """(the kind of run in a folder, a file there that a run of ``kind`` would replace and that no run wrote)."""
    report = _report(folder)
    held = _kind(folder, report)
    return held, _foreign(folder, kind, held, report)


def _foreign(folder: Path, kind: RunKind, held: RunKind | None, report: Any) -> str | None:
    if (folder / "report.json").exists() and not _is_report(report):
        return "report.json"
    distilled = folder / DISTILLED
    if distilled.exists() and not (folder / "report.json").exists() and not _is_distilled(distilled):
        return DISTILLED
    if held is not None:
        return None
    return next((name for name in _OTHERS.get(kind, ()) if (folder / name).exists()), None)


def _is_distilled(path: Path) -> bool:
    """Whether a file may be a distilled set: a data set, say, is none."""
    try:
        return {"X", "Y", "meta"} <= set(npz_keys(path))
    except DataError:
        return False


def _first_file(folder: Path) -> str | None:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return next((name for name in names if not name.startswith(".")), None)


def check_kind(folder: Path, kind: RunKind) -> None:
    """Raises DataError for a folder that holds a run of another kind, for a private release also one with any file.

    Names that start with a dot, of a lock or of an interrupted write, do not count.
    """
    if not folder.is_dir():
        return
    remedy = "give another --out, or remove what is in it"
    if kind is RunKind.RELEASE:
        found = _first_file(folder)
        if found is not None:
            raise DataError(
                f"{folder} is not empty ({found}): a private release beside other files may be published with them; "
                f"{remedy}"
            )
        return
    held, foreign = _holds(folder, kind)
    if held is not None and held is not kind:
        raise DataError(f"{folder} holds the files of {held.value}, not of {kind.value}: {remedy}")
    if foreign is not None:
        raise DataError(f"{folder} holds a file {foreign} that no run wrote: {kind.value} would replace it; {remedy}")
