"""Runs the worked examples on real data and writes what they print, with their text, to docs/measured/examples.md.

python benchmarks/examples.py --data-dir ../shared/data --dataset cifar100 --kernel FCNN
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import time
from pathlib import Path

from machine import machine_facts, one_line

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = {
    "federated": ["--epsilon", "8"],
    "continual": ["--tasks", "10"],
    "unlearning": ["--remove", "1000"],
}


def section(name: str, dataset: str, kernel: str, data_dir: Path | None) -> str:
    """One example: its first paragraph, the command, and what it printed."""
    file = EXAMPLES / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    title, _, rest = text.partition("\n\n")
    paragraph = " ".join(rest.split("\n\n")[0].split())
    words = [str(file), "--dataset", dataset, "--kernel", kernel, *NAMES[name]]
    environment = os.environ | ({} if data_dir is None else {"KRRDISTILL_DATA": str(data_dir.resolve())})
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, env=environment)
    seconds = time.perf_counter() - start
    command = " ".join(["python", f"examples/{name}.py", *words[1:]])
    return (
        f"## {title.rstrip('.')}\n\n{paragraph}\n\n"
        f"```\n$ {command}\n{done.stdout.rstrip()}\n```\n\n"
        f"{seconds:.0f} s in all. [{name}.py](../../examples/{name}.py)\n"
    )


def main() -> None:
    """Runs them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="cifar100")
    parser.add_argument("--kernel", default="FCNN")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    options = parser.parse_args()
    sections = [section(name, options.dataset, options.kernel, options.data_dir) for name in NAMES]
    flower = (
        "## On Flower\n\n[federated_flower.py](../../examples/federated_flower.py) is the federated round on Flower's "
        "clients and server; it needs `flwr[simulation]`.\n"
    )
    page = [
        "# Worked examples\n",
        "What the examples print; `tests/test_examples.py` runs them on the bundled digits.\n",
        *sections,
        flower,
        f"Written by `benchmarks/examples.py`. {one_line(machine_facts())}\n",
    ]
    (options.out / "examples.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
