"""Seconds per iteration of KIP on the device, by ``kip.py`` in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu.session import Session

__all__ = ["measure", "parsed"]

_SCRIPT = Path(__file__).with_name("kip.py")
_LINE = re.compile(r"KIP (\w+), s per iteration, ipc (\d+) ([\d.e-]+)")


def measure(session: Session) -> None:
    """Rows by variant and points per class."""
    if not _SCRIPT.exists():
        session.keep(skipped="benchmarks/gpu/kip.py is not there")
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OUT": folder}
        command = [sys.executable, str(_SCRIPT)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    print(done.stdout, flush=True)
    for row in parsed(done.stdout):
        session.row(**row)
    if done.returncode != 0:
        session.keep(failed=f"kip.py ended with status {done.returncode}")


def parsed(text: str) -> list[dict[str, object]]:
    """The rows that lines of the script's output tell."""
    return [
        {"name": f"KIP, {variant}", "variant": variant, "per_class": int(per_class), "seconds": [float(seconds)]}
        for variant, per_class, seconds in _LINE.findall(text)
    ]
