"""What the parts share: sizes, the device, timing, and the file that results are kept in."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["FULL", "SMALL", "Session", "Sizes"]


_RESERVE = 10.0  # seconds


@dataclass(frozen=True)
class Sizes:
    """How large the problems are.

    n, d, k : images of the size of CIFAR-100: rows, values of each (and features), classes
    tile : rows of one product of the ceilings
    per_class : points per class of whole runs
    later : runs of a cell after the first
    embeddings : rows, features and rows per batch of embeddings on the device
    wide : rows and features of the wide problem
    copied : bytes of one copy between host and device
    dataset : real images
    quick : whether everything runs once only
    """

    n: int = 50_000
    d: int = 3072
    k: int = 100
    tile: int = 8192
    per_class: tuple[int, ...] = (1, 10, 50)
    later: int = 5
    embeddings: tuple[int, int, int] = (2_000_000, 1024, 131_072)
    wide: tuple[int, int] = (20_000, 8192)
    copied: int = 150 << 20
    dataset: str = "mnist"
    quick: bool = False

    @property
    def trained(self) -> int:
        """Rows that are not held out."""
        return self.n - self.held_out

    @property
    def held_out(self) -> int:
        """Rows that lambda is chosen by."""
        return self.n // 20


FULL = Sizes()
# For the emulated device, which executes every thread of a kernel on one core.
SMALL = Sizes(
    n=400,
    d=16,
    k=3,
    tile=64,
    per_class=(1, 2),
    later=1,
    embeddings=(600, 12, 256),
    wide=(120, 20),
    copied=1 << 16,
    dataset="digits",
    quick=True,
)


class Session:
    """One part: runs what it is given, keeps every time, and writes the file again after each of them.

    Parameters
    ----------
    sizes : Sizes
    file : Path, optional
        Of the results.
    emulated : bool
        Whether the emulated device takes the place of the GPU, and PyTorch computes on the host.
    seconds : float
        After which the part is ended from outside.
    """

    def __init__(
        self, sizes: Sizes = FULL, file: Path | None = None, *, emulated: bool = False, seconds: float = 600.0
    ) -> None:
        if emulated:
            sys.modules["krrdistill._cuda"] = importlib.import_module("krrdistill._cuda_emulated")
        self._end = time.monotonic() + seconds
        self.sizes, self.file, self.emulated = sizes, file, emulated
        self.place = "cpu" if emulated else "cuda"
        self.results: dict[str, Any] = {"rows": []}
        self._torch: Any = None

    @property
    def torch(self) -> Any:
        """PyTorch, imported when it is first used."""
        if self._torch is None:
            self._torch = importlib.import_module("torch")
        return self._torch

    def left(self, most: float = 600.0) -> float:
        """Seconds that a process of this part may still take, at most ``most``; some remain to keep what it found."""
        return max(1.0, min(most, self._end - time.monotonic() - _RESERVE))

    def synchronize(self) -> None:
        """Waits for the device."""
        if not self.emulated and self._torch is not None:
            self._torch.cuda.synchronize()

    def keep(self, **facts: Any) -> None:
        """Adds facts to the results."""
        self.results.update(facts)
        self._write()

    def row(self, **facts: Any) -> None:
        """Adds a row that holds no time."""
        self.results["rows"].append(facts)
        self._write()

    def timed(
        self,
        name: str,
        work: Callable[[], Any],
        *,
        repeats: int = 3,
        warm: bool = True,
        most: float = 5.0,
        **facts: Any,
    ) -> Any:
        """Runs ``work`` once more than ``repeats`` times, keeps the seconds of each, and gives the last result.

        The first run is kept apart, unless ``warm`` is False. No run starts when ``most`` seconds are over, but one is
        always measured; ``sizes.quick`` leaves it at one. What fails is kept as a row that says why, and gives None:
        the next measurement goes on.
        """
        if self.sizes.quick:
            repeats, warm = 1, False
        result, begin = None, time.perf_counter()
        with self.attempt(name, **facts, seconds=[]) as row:
            self.synchronize()
            for number in range(repeats + warm):
                start = time.perf_counter()
                result = work()
                self.synchronize()
                seconds = time.perf_counter() - start
                if warm and number == 0:
                    row["first"] = seconds
                else:
                    row["seconds"].append(seconds)
                if row["seconds"] and time.perf_counter() - begin > most:
                    break
        return None if "failed" in row else result

    @contextlib.contextmanager
    def attempt(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """A row for the block to fill. Where the block fails, the row says why, and the next measurement goes on."""
        row: dict[str, Any] = {"name": name, **facts}
        self.results["rows"].append(row)
        try:
            yield row
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
        print(told(row), flush=True)
        self._write()

    def _write(self) -> None:
        if self.file is not None:
            beside = self.file.with_suffix(".new")
            beside.write_text(json.dumps(self.results), encoding="utf-8")
            os.replace(beside, self.file)

    def facts(self) -> dict[str, Any]:
        """The sizes, for the results."""
        return {**asdict(self.sizes), "emulated": self.emulated}


def told(row: dict[str, Any]) -> str:
    """A row as one line of the log."""
    where = " ".join(str(row[name]) for name in ("kernel", "per_class", "name") if name in row)
    if "failed" in row:
        return f"{where:60s} FAILED {row['failed']}"
    if not row.get("seconds"):
        return where
    middle = statistics.median(row["seconds"])
    rate = f"{row['flops'] / middle / 1e12:9.2f} Tflop/s" if row.get("flops") else ""
    rate = f"{row['bytes'] / middle / 1e9:9.1f} GB/s" if row.get("bytes") else rate
    first = f" (first {1e3 * row['first']:.1f})" if "first" in row else ""
    return f"{where:60s} {1e3 * middle:10.3f} ms{first} {rate}".rstrip()
