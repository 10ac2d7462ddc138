"""What importing the package costs beyond NumPy and SciPy, and how long ``krrdistill --help`` takes.

    python benchmarks/startup.py --rounds 11

Each is alternated with a process that imports NumPy and SciPy alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import report
from ab import compare
from machine import machine_facts

_HERE = Path(__file__).resolve().parent
_BASE = "import numpy, scipy"


def main() -> None:
    """Measures in alternation and writes results/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--results", type=Path, default=_HERE / "results")
    parser.add_argument("--docs", type=Path, default=_HERE.parent / "docs" / "measured")
    arguments = parser.parse_args()
    imports = compare([sys.executable, "-c", f"{_BASE}, krrdistill"], [sys.executable, "-c", _BASE], arguments.rounds)
    help_text = compare(
        [sys.executable, "-m", "krrdistill.apps.cli", "--help"], [sys.executable, "-c", _BASE], arguments.rounds
    )
    beyond = [a - b for a, b in zip(imports.a, imports.b, strict=True)]
    content = {
        "machine": machine_facts(),
        "rounds": arguments.rounds,
        "import_seconds": statistics.median(imports.a),
        "numpy_scipy_seconds": statistics.median(imports.b),
        "import_beyond_numpy_scipy_seconds": statistics.median(beyond),
        "help_seconds": statistics.median(help_text.a),
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "startup.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report.write(arguments.results, arguments.docs)
    print(json.dumps({name: value for name, value in content.items() if name != "machine"}))


if __name__ == "__main__":
    main()
