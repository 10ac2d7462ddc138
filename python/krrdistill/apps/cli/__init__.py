"""The ``krrdistill`` command. It only parses, prints and maps errors to exit statuses."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Sequence

from krrdistill.apps.cli.signals import STOPPED, stop_signal, stoppable

NEEDED = {
    "typer": "typer",
    "rich": "rich",
    "yaml": "pyyaml",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "PIL": "pillow",
}
# Imports, charts and pages make many objects and hardly any garbage: 297 collections took 0.1 s of a command's 2.3 s
# (MNIST, identity, one core). Large arrays are freed by their counts, not by collections.
_ALLOCATIONS = 50_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on ``argv`` (``sys.argv[1:]`` when None) and return its exit status."""
    try:
        with stoppable():
            return _main(argv)
    except BaseException as error:  # a signal while modules are imported, or after the command
        number = stop_signal(error)
        if number is None:
            raise
        print(f"krrdistill: error: {STOPPED[number]}", file=sys.stderr)
        return 128 + number


def _main(argv: Sequence[str] | None) -> int:
    if argv is None:  # a process of its own
        gc.set_threshold(_ALLOCATIONS)
    try:
        from krrdistill.apps.cli.app import run_app
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        missing = NEEDED[error.name]
        print(
            f'krrdistill: error: the command line needs {missing}: pip install "krrdistill[cli]"',
            file=sys.stderr,
        )
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that its encoding lacks is spelled out
            stream.reconfigure(errors="backslashreplace")
    return run_app(argv)
