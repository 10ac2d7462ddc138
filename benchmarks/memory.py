"""Peak memory of a process: what the kernel recorded, and anonymous memory as seen from outside.

VmHWM is the peak of all resident pages, those of mapped files included, and belongs to the program that runs (the peak
of ``getrusage`` also remembers the process that started it). RssAnon is what the process allocated itself; it has no
recorded peak, so the parent reads it at intervals: a lower bound that misses only shorter spikes.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NotDoneError", "Watched", "last_json", "peak_rss_bytes", "physical_bytes", "run_watched"]


class NotDoneError(RuntimeError):
    """A process was ended because it took more than it may."""


@dataclass(frozen=True)
class Watched:
    """What a finished process printed and used; no peak where nobody looked or /proc does not exist."""

    stdout: str
    seconds: float
    peak_anonymous_bytes: int | None


def peak_rss_bytes() -> int:
    """Peak resident memory of this program so far, mapped files included (VmHWM; getrusage where there is no /proc)."""
    value = _status("self", "VmHWM")
    if value is not None:
        return value
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def anonymous_bytes(pid: int | str = "self") -> int | None:
    """Anonymous resident memory now (RssAnon + RssShmem), None where /proc does not tell."""
    anonymous, shared = _status(pid, "RssAnon"), _status(pid, "RssShmem")
    return None if anonymous is None else anonymous + (shared or 0)


def _status(pid: int | str, name: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


def physical_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def run_watched(
    command: Sequence[str],
    interval: float | None = None,
    *,
    most_seconds: float = math.inf,
    most_bytes: float = math.inf,
) -> Watched:
    """Runs a command to its end and reads its anonymous memory every ``interval`` seconds (None: never, nor limits).

    Raises NotDoneError where it takes more time or memory than it may, and RuntimeError with the end of its stderr if
    it fails.
    """
    peak: int | None = None
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=stdout, stderr=stderr) as process:
            while interval is not None and process.poll() is None:
                now = anonymous_bytes(process.pid)
                if now is not None:
                    peak = max(peak or 0, now)
                took = time.perf_counter() - start
                if took > most_seconds or (peak or 0) > most_bytes:
                    process.kill()
                    limit = f"{most_seconds:.0f} s" if took > most_seconds else f"{most_bytes / 1e9:.0f} GB"
                    raise NotDoneError(f"more than {limit}" + (f", after {took:.0f} s" if took <= most_seconds else ""))
                time.sleep(interval)
            process.wait()
        seconds = time.perf_counter() - start
        for stream in (stdout, stderr):
            stream.seek(0)
        if process.returncode != 0:
            tail = "\n".join(stderr.read().splitlines()[-5:])
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}: {tail}")
        return Watched(stdout.read(), seconds, peak)


def last_json(text: str) -> dict[str, Any]:
    """The last JSON object on stdout: from its last line, or from the last line that is a lone opening brace."""
    lines = text.splitlines()
    for first in range(len(lines) - 1, -1, -1):
        if lines[first].startswith("{"):
            found: dict[str, Any] = json.loads("\n".join(lines[first:]))
            return found
    raise ValueError("no JSON object in the output")
