"""Killing a command at a moment that is known: while a file is put in its place."""

from __future__ import annotations

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
    """Runs ``krrdistill words`` up to the ``count``-th file whose name ends so, written but not yet in place; SIGKILL.

    The child says on its pipe when it is there: nothing waits for time.
    """
    command = [sys.executable, "-c", _CHILD, ending, str(count), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reached = any(line.strip() == "READY" for line in process.stdout)
        process.kill()
        assert reached, process.stderr.read()
