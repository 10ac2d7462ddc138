"""Seconds per iteration of KIP on the device, by ``kip.py`` in a process of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

from gpu.session import Session

__all__ = ["measure", "parsed"]

_MODULE = "gpu.kip"
_LINE = re.compile(r"KIP (\w+), s per iteration, ipc (\d+) ([\d.e+-]+)")
_SMALL = ("--rows", "60", "--dimension", "8", "--classes", "3", "--ipcs", "1,2", "--steps", "2")


def measure(session: Session) -> None:
    """Rows by variant and points per class, each kept as soon as it is measured."""
    if importlib.util.find_spec(_MODULE) is None:
        session.keep(skipped="benchmarks/gpu/kip.py is not there")
        return
    command = [sys.executable, "-m", _MODULE, "--device", session.place, *(_SMALL if session.sizes.quick else ())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            for row in parsed(line):
                session.row(**row)
    if process.returncode != 0:
        session.keep(failed=f"kip.py ended with status {process.returncode}")


def parsed(text: str) -> list[dict[str, object]]:
    """The rows that lines of the script's output tell."""
    return [
        {"name": f"KIP, {variant}", "variant": variant, "per_class": int(per_class), "seconds": [float(seconds)]}
        for variant, per_class, seconds in _LINE.findall(text)
    ]
