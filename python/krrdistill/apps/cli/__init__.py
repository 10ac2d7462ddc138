"""The ``krrdistill`` command. It only parses, prints and maps errors to exit statuses."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

NEEDED = {
    "typer": "typer",
    "rich": "rich",
    "yaml": "pyyaml",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "PIL": "pillow",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on ``argv`` (``sys.argv[1:]`` when None) and return its exit status."""
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
