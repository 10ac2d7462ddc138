"""Runs the parts of the suite, each in a process of its own with a time limit; results and logs go to one folder.

    benchmarks/gpu/run.sh                                   # everything, under 8 minutes; into $OUT or runs/gpu
    benchmarks/gpu/run.sh ceilings stages --out /tmp/gpu
    benchmarks/gpu/run.sh --emulated --small                # no GPU: the emulated device, small sizes; no times of use

Writes results.json, run.log, parity.log and sanitizer.log. ``python -m gpu.report`` renders docs/measured/gpu.md from
results.json in benchmarks/results/gpu/DEVICE/NAME.json.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gpu.report import FORMAT, summary
from gpu.session import FULL, SMALL, Session

__all__ = ["PARTS", "measured"]

_BENCHMARKS = Path(__file__).resolve().parents[1]
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@dataclass(frozen=True)
class Part:
    """A function of a module that measures, the seconds it may take, and its log."""

    module: str
    seconds: float
    function: str = "measure"
    log: str = "run.log"

    def __call__(self, session: Session) -> None:
        getattr(importlib.import_module(f"gpu.{self.module}"), self.function)(session)


# In the order of their worth: where time is short, the last ones do not run. If every part before the tests took all of
# its time, 50 seconds would be left for them.
PARTS = {
    "facts": Part("facts", 30),
    "ceilings": Part("ceilings", 30),
    "stages": Part("stages", 40),
    "end_to_end": Part("end_to_end", 65),
    "breakdown": Part("breakdown", 50),
    "contestants": Part("contestants", 75),
    "embeddings": Part("embeddings", 25),
    "kip": Part("kip_steps", 45),
    "wide": Part("wide", 25),
    "parity": Part("checks", 120, "parity", "parity.log"),
    "sanitizer": Part("checks", 120, "sanitizer", "sanitizer.log"),
}
_TOTAL = 440.0
_KILLED = 10.0  # seconds that a process may take to end when it is killed


def measured(name: str, flags: list[str], seconds: float, log: TextIO) -> dict[str, Any]:
    """One part in a process of its own; what it had measured is kept whatever ends it."""
    with tempfile.TemporaryDirectory() as folder:
        file, start = Path(folder) / "part.json", time.perf_counter()
        command = [sys.executable, "-m", "gpu.run", "--child", name, str(file), str(seconds), *flags]
        path = os.pathsep.join(filter(None, (str(_BENCHMARKS), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": path}
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(timeout=seconds)
            outcome = "done" if status == 0 else f"failed with status {status}: see {Path(log.name).name}"
        except subprocess.TimeoutExpired:
            outcome = f"over its time limit of {seconds:.0f} s"
        with contextlib.suppress(ProcessLookupError):  # what is left of it: the workers of pytest
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(timeout=_KILLED)
        except subprocess.TimeoutExpired:  # it hangs in the driver; the next parts may still run
            outcome += ", and it did not end when it was killed"
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": []}
        return {"outcome": outcome, "took_seconds": round(time.perf_counter() - start, 1), **found}


def _commit() -> str:
    """Of the working tree, and whether it was changed; "" where git does not tell."""
    try:
        words = ["git", "-C", str(_BENCHMARKS), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def main() -> int:
    """Runs what was asked for; 1 if a part did not come to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"by default all: {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu"))
    parser.add_argument("--label", default="", help="what is special about this run, for the page")
    parser.add_argument("--commit", default="", help="of the code, where git cannot tell it")
    parser.add_argument("--total", type=float, default=_TOTAL, help="seconds; parts that would begin later do not run")
    parser.add_argument("--emulated", action="store_true", help="on the emulated device instead of a GPU")
    parser.add_argument("--small", action="store_true", help="small sizes, which prove that the suite works")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else FULL
    if arguments.child:
        name, file, seconds = arguments.child
        PARTS[name](Session(sizes, Path(file), emulated=arguments.emulated, seconds=float(seconds)))
        return 0
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    flags = [*(["--emulated"] if arguments.emulated else []), *(["--small"] if arguments.small else [])]
    chosen = [name for name in PARTS if name in arguments.parts or not arguments.parts]
    results: dict[str, Any] = {
        "format": FORMAT,
        "label": arguments.label,
        "date": datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M"),
        "commit": arguments.commit or _commit(),
        "sizes": Session(sizes).facts() | {"emulated": arguments.emulated},
        "parts": {},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for log in {PARTS[name].log for name in chosen}:
        (arguments.out / log).write_text("", encoding="utf-8")
    end = time.monotonic() + arguments.total
    for name in chosen:
        part, left = PARTS[name], end - time.monotonic()
        if left < 5.0:
            results["parts"][name] = {"outcome": "not run: the time of the whole suite was over", "rows": []}
        else:
            with (arguments.out / part.log).open("a", encoding="utf-8") as log:
                print(f"==== {name}", file=log, flush=True)
                results["parts"][name] = measured(name, flags, min(part.seconds, left), log)
        outcome = results["parts"][name]
        print(f"{name:12s} {outcome.get('took_seconds', 0.0):6.1f} s  {outcome['outcome']}", flush=True)
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(results)))
    return int(any(part["outcome"] != "done" for part in results["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
