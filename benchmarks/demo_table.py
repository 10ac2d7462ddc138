"""The table of ``make demo``: one row per run folder, from the report that ``krrdistill distill`` leaves there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def row(report: dict[str, Any]) -> tuple[str, ...]:
    """One run as text: accuracies and agreement on the test set in per cent."""
    certificate = report["certificate"]
    return (
        report["kernel"],
        f"{report['n_train'] + report['n_val']} -> {report['m']}",
        f"{100 * report['original']['test_accuracy']:.2f} %",
        f"{100 * report['distilled']['test_accuracy']:.2f} %",
        f"{100 * certificate['prediction_agreement']:.2f} %",
        f"{certificate['weight_relative_error']:.1e}",
        f"{report['seconds']['total']:.2f}",
    )


def main(folders: list[Path]) -> None:
    """Print the table and the places of the pictures."""
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in folders]
    table = Table(title=f"{reports[0]['dataset']}: {reports[0]['ipc']} point(s) per class retrain to the same model")
    table.add_column("kernel")
    for heading in ("points", "original", "distilled", "agreement", "weight error", "seconds"):
        table.add_column(heading, justify="right")
    for report in reports:
        table.add_row(*row(report))
    console = Console(width=100, soft_wrap=True)
    console.print(table)
    console.print("original, distilled: test accuracy; agreement: equal predictions on the test set;")
    console.print("weight error: ||W_S - W|| / ||W||, W_S retrained from the saved file.")
    console.print("Pictures of the distilled data:")
    for report in reports:
        console.print(f"  {report['figure']}", highlight=False)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
