"""The tests on the GPU (``pytest -m gpu``), and some of them under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu.session import Session

__all__ = ["parity", "sanitizer"]

_ROOT = Path(__file__).resolve().parents[2]
_PROCESSES = min(10, os.cpu_count() or 1)
_INTERRUPTED = 8.0  # seconds to write the results
# What is run under the sanitizer: its tool, test files, and the words that choose from them (pytest -k).
_CHECKED = (
    ("racecheck", ("tests/test_cuda_device.py",), "halves_small or narrow_maps"),
    ("memcheck", ("tests/test_cuda_device.py",), "small"),
    ("memcheck", ("tests/test_hadamard.py",), ""),
    ("memcheck", ("tests/test_backends.py",), "accumulate or ridge_path"),
    ("racecheck", ("tests/test_hadamard.py",), "solve"),
)
_MOST_TESTS = 12


def _command(session: Session, *words: str) -> list[str]:
    chosen = ["-k", "cuda-emulated"] if session.emulated else ["-m", "gpu"]
    flags = ["-q", "-W", "default", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    return [sys.executable, "-m", "pytest", *flags, *chosen, *words]


def parity(session: Session) -> None:
    """Every test that is marked ``gpu``; one small file in the emulation.

    When its time is over, pytest is interrupted: it then writes what the tests until then gave.
    """
    words = ["--tb=line", "--durations=12"]
    if importlib.util.find_spec("xdist") is not None and not session.emulated:
        words += ["-n", str(_PROCESSES)]
    if session.emulated:
        words.append("tests/test_hadamard.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        with subprocess.Popen([*_command(session, *words), f"--junitxml={file}"], cwd=_ROOT) as process:
            try:
                process.wait(timeout=session.left())
            except subprocess.TimeoutExpired:
                session.keep(remark="The time was over before all tests had run.")
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_INTERRUPTED)
                process.kill()
        session.keep(status=process.returncode, **_outcomes(file))
    print({name: value for name, value in session.results.items() if name != "rows"}, flush=True)


def _outcomes(file: Path) -> dict[str, Any]:
    """Counts and names from a JUnit file."""
    if not file.exists():
        return {"skipped": "no test ran: see parity.log"}
    counts, failed = {"passed": 0, "skipped": 0}, []
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            module = (case.get("classname") or "").rpartition(".")[2]
            failed.append(f"{module}.py::{case.get('name')}")
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return {**counts, "failed": failed}


def sanitizer(session: Session) -> None:
    """Some tests under memcheck and racecheck."""
    if session.emulated or shutil.which("compute-sanitizer") is None:
        session.keep(skipped="there is no compute-sanitizer on the PATH, or this is the emulation")
        return
    for tool, files, words in _CHECKED:
        tests = _spread(_collected(session, files, words)) if words else list(files)
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *_command(session, *tests)]
        row: dict[str, Any] = {"name": f"{tool}, {' '.join(files)}{f' -k {words!r}' if words else ''}"}
        try:
            seconds = session.left(40.0)
            done = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            session.row(**row, failed=f"over its time limit of {seconds:.0f} s")
            continue
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n", flush=True)
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.+)", done.stdout + done.stderr)
        passed = re.findall(r"(\d+) passed", done.stdout)
        session.row(
            **row,
            status=done.returncode,
            passed=int(passed[-1]) if passed else 0,
            summary=summary[-1] if summary else "no summary",
        )


def _spread(tests: list[str]) -> list[str]:
    """At most so many of them, evenly chosen."""
    return tests[:: max(1, -(-len(tests) // _MOST_TESTS))]


def _collected(session: Session, files: tuple[str, ...], words: str) -> list[str]:
    """The names of the tests that these words choose."""
    command = [*_command(session, *files), "-k", words, "--collect-only"]
    done = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True, timeout=session.left(40.0))
    return [line for line in done.stdout.splitlines() if "::" in line and not line.startswith(("FAILED", "ERROR"))]
