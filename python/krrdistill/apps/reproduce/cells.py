"""The cells of a table and their files: one JSON per finished cell, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from krrdistill.common.documents import UNFIT, parse_json, read_bounded
from krrdistill.common.files import write_atomically
from krrdistill.errors import DataError

__all__ = ["Cell", "Store"]

_FORMAT = "krrdistill-cell-1"


@dataclass(frozen=True)
class Cell:
    """What one cell is about."""

    dataset: str
    kernel: str
    seed: int
    ipc: int
    method: str
    device: str = "cpu"  # that was asked for: results of several stay apart

    @property
    def name(self) -> str:
        """Name of its files."""
        where = "" if self.device == "cpu" else f"-{self.device.replace(':', '')}"
        return f"{self.dataset}-{self.kernel}-ipc{self.ipc}-seed{self.seed}-{self.method}{where}"


def _digest(result: Any) -> str:
    """SHA-256 of a result as JSON without spaces, its keys in order."""
    return hashlib.sha256(json.dumps(result, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The finished cells in a folder."""

    folder: Path

    def path(self, cell: Cell) -> Path:
        """Path of a cell's result."""
        return self.folder / f"{cell.name}.json"

    def checkpoint(self, cell: Cell) -> Path:
        """Path of KIP's checkpoint."""
        return self.folder / f"{cell.name}.checkpoint.npz"

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """What was written for a cell, None where nothing was. Raises DataError for anything else in its place."""
        path = self.path(cell)
        if not path.exists():
            return None
        try:
            content = parse_json(f"{path}:", read_bounded(path), finite=True)
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r}, this version reads {_FORMAT!r}")
            if {"device": "cpu", **content["cell"]} != asdict(cell):
                raise ValueError(f"it is of {content['cell']}")
            digest = content.get("digest")
            if digest is not None and digest != _digest(content["result"]):  # older cells have none
                raise ValueError("it was changed after it was written")
            return dict(content["result"])
        except UNFIT as error:
            raise DataError(f"{path}: not the result of this cell ({error}); delete it to run the cell again") from None

    def write(self, cell: Cell, result: dict[str, Any]) -> None:
        """Replaces the result of a cell, whole or not at all."""
        content = {"format": _FORMAT, "cell": asdict(cell), "result": result, "digest": _digest(result)}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path(cell), lambda stream: stream.write(text.encode()))
