"""Runs pages of the gallery on a large data set and writes what they print to docs/measured/examples.md.

python benchmarks/examples.py --data-dir ../shared/data --dataset cifar100
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

from machine import machine_facts, one_line

GALLERY = Path(__file__).resolve().parents[1] / "examples" / "gallery"
PAGES = ("plot_07_federated", "plot_08_continual", "plot_09_unlearning")


def section(name: str, dataset: str, kernel: str, data_dir: Path | None) -> str:
    """One page: its first paragraph, the command, and what it printed."""
    file = GALLERY / f"{name}.py"
    title, _, *paragraphs = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")
    paragraph = " ".join("\n".join(paragraphs).strip().split("\n\n")[0].split())
    chosen = {"DATASET": dataset, "KERNEL": kernel}
    data = {} if data_dir is None else {"KRRDISTILL_DATA": str(data_dir.resolve())}
    environment = {**os.environ, "MPLBACKEND": "Agg", **data, **chosen}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True, env=environment)
    command = " ".join([*(f"{key}={value}" for key, value in chosen.items()), f"python examples/gallery/{name}.py"])
    return (
        f"## {title}\n\n{paragraph}\n\n"
        f"```\n$ {command}\n{done.stdout.rstrip()}\n```\n\n"
        f"[{name}.py](../../examples/gallery/{name}.py)\n"
    )


def main() -> None:
    """Runs them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="cifar100")
    parser.add_argument("--kernel", default="FCNN")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    options = parser.parse_args()
    sections = [section(name, options.dataset, options.kernel, options.data_dir) for name in PAGES]
    flower = (
        "## On Flower\n\n[federated_flower.py](../../examples/federated_flower.py) is the federated round on Flower's "
        "clients and server; it needs `flwr[simulation]`.\n"
    )
    page = [
        "# Pages of the gallery on a large data set\n",
        "What three pages of the gallery print on a larger data set. A time is of one run, beside other programs.\n",
        *sections,
        flower,
        f"Written by `benchmarks/examples.py`. {one_line(machine_facts())}\n",
    ]
    (options.out / "examples.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
