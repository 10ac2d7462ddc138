"""Stopping a command at a moment that is known: while a file is put in its place."""

from __future__ import annotations

import signal
import subprocess
import sys

# The rename that puts the n-th file of a name in place says so, and waits for what never comes.
_CHILD = """
import os, sys
ending, count, *words = sys.argv[1:]
replace, seen = os.replace, []
def slow(source, target):
    if os.path.basename(target).endswith(ending):
        seen.append(target)
        if len(seen) == int(count):
            print("READY", file=sys.__stdout__, flush=True)
            sys.stdin.read()
    replace(source, target)
os.replace = slow
from krrdistill.apps.cli import main
sys.exit(main(words))
"""


def kill_at_write(ending: str, count: int, words: list[str]) -> None:
    """SIGKILL for ``krrdistill words`` at the ``count``-th file whose name ends so, written but not yet in place."""
    stop_at_write(ending, count, words, signal.SIGKILL)


def stop_at_write(ending: str, count: int, words: list[str], number: signal.Signals) -> tuple[int, str]:
    """(exit status, stderr) of ``krrdistill words`` that gets a signal at the ``count``-th file whose name ends so.

    The child says on its pipe when the file is written but not yet in place: nothing waits for time.
    """
    command = [sys.executable, "-c", _CHILD, ending, str(count), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reached = any(line.strip() == "READY" for line in process.stdout)
        process.send_signal(number)
        error = process.stderr.read()
        assert reached, error
    return process.returncode, error
