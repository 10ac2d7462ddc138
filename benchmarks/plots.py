"""The figures of docs/measured/benchmarks.md: stages against their floor, scaling, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["plot_memory", "plot_scaling", "plot_stages"]

_STAGES = ("preprocess", "statistics", "ridge", "construct", "preimage", "save", "evaluate")
_COLORS = ("#b0b0b0", "#1f5f8b", "#e07b39", "#4a9c5d", "#8d6cab", "#d6c14a", "#c44e52")
_AXES = {
    "n": "training rows n",
    "p": "features p",
    "k": "classes k",
    "ipc": "points per class",
    "threads": "threads",
}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def plot_stages(result: dict[str, Any], path: Path) -> None:
    """One pair of bars per kernel and ipc: seconds of each stage, and the floor of the same stages."""
    bars: list[tuple[str, dict[str, float]]] = []
    for group in result["kernels"]:
        for row in group["rows"]:
            if row["contestant"] == "ours":
                bars.append((f"{group['kernel']}, ipc {row['ipc']}", row["seconds"]))
        bars.append((f"{group['kernel']}, floor", group["floor"]))
    figure, (axis,) = _figure(8.0, 0.8 + 0.32 * len(bars))
    names = [name for name, _ in bars]
    left = [0.0] * len(bars)
    for stage, color in zip(_STAGES, _COLORS, strict=True):
        widths = [seconds.get(stage, 0.0) for _, seconds in bars]
        axis.barh(names, widths, left=left, color=color, label=stage, height=0.75)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.invert_yaxis()
    axis.set_xlabel("seconds")
    axis.set_title(f"{result['source']}: stages and their floor")
    figure.legend(fontsize="small", loc="outside right upper")
    _save(figure, path)


def plot_scaling(result: dict[str, Any], path: Path) -> None:
    """Seconds of the stages against each parameter."""
    figure, axes = _figure(15.0, 3.2, len(_AXES))
    for axis, (name, label) in zip(axes, _AXES.items(), strict=True):
        rows = [row for row in result["rows"] if row["axis"] == name]
        values = [row["value"] for row in rows]
        for stage, color in zip(_STAGES, _COLORS, strict=True):
            if any(stage in row["seconds"] for row in rows):
                axis.plot(
                    values, [row["seconds"].get(stage, 0.0) for row in rows], "o-", ms=3, color=color, label=stage
                )
        axis.plot(values, [row["seconds"]["total"] for row in rows], "k.--", lw=1, label="all stages")
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0.0)
        if name == "threads":
            axis.set_xticks(values)
    axes[0].set_ylabel("seconds")
    axes[0].set_title(f"R² against n: {result['fits']['r_squared_total_n']:.4f}", fontsize="small")
    axes[0].legend(fontsize="x-small")
    figure.suptitle(f"{result['source']}: one parameter at a time", fontsize="medium")
    _save(figure, path)


def plot_memory(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Peak anonymous memory, and the size of the file, against the number of rows."""
    figure, (axis,) = _figure(8.0, 3.4)
    n = [row["rows"] for row in rows]
    axis.plot(n, [row["file_bytes"] / 2**20 for row in rows], "s--", color=_COLORS[0], label="file")
    axis.plot(
        n, [row["peak_rss_bytes"] / 2**20 for row in rows], "^:", color=_COLORS[2], label="resident, with cached file"
    )
    anonymous = [(row["peak_anonymous_bytes"] or float("nan")) / 2**20 for row in rows]
    axis.plot(n, anonymous, "o-", color=_COLORS[1], label="anonymous")
    axis.set_xlabel("rows of the memory-mapped file")
    axis.set_ylabel("peak MiB")
    axis.set_ylim(bottom=0.0)
    figure.legend(fontsize="small", loc="outside right upper")
    _save(figure, path)
