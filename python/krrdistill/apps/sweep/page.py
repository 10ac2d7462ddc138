"""The table, the page and the plots of a sweep, against points per class."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

from krrdistill.apps.report.axes import LAMBDA
from krrdistill.apps.report.charts import Panel, SpreadCurve, legend_of, panels_figure
from krrdistill.apps.report.svg import save_figure, to_svg
from krrdistill.apps.reproduce.facts import seconds_text
from krrdistill.apps.reproduce.sections import Publication, Section, to_page
from krrdistill.apps.run_kind import SWEEP
from krrdistill.apps.text import number
from krrdistill.common.files import write_atomically

from .outcome import Spread, Summary, Sweep, to_csv
from .run import FORMAT

__all__ = ["sweep_publication", "write_sweep"]

CSV, PICTURE, PAGE = "sweep.csv", "sweep.png", "sweep.html"
_LEAST = 1e-17  # an error of 0 is below the rounding of float64
_NONE = "-"
_BARS = "Mean over seeds, bars of one standard deviation."
Point = tuple[float, float, float]  # of a curve: its value, and the ends of its bar


def write_sweep(sweep: Sweep, folder: Path | str) -> Publication:
    """Writes sweep.json, sweep.csv, sweep.png and sweep.html; returns what the page says."""
    folder, readable = Path(folder), sweep_publication(sweep)
    document = {"format": FORMAT, **sweep.to_json()}
    contents = {
        SWEEP: (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
        CSV: to_csv(sweep.cells).encode(),
        PAGE: to_page(readable),
    }
    for name, content in contents.items():
        _write(folder / name, content)
    panels = [panel for panel, _ in _panels(sweep)]
    if panels:
        save_figure(panels_figure(panels), folder / PICTURE)
    else:
        (folder / PICTURE).unlink(missing_ok=True)  # of an earlier time
    return readable


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda stream: stream.write(content))


def sweep_publication(sweep: Sweep) -> Publication:
    """The table, the plots, and what failed."""
    exact, total = sum(cell.exact for cell in sweep.cells), len(sweep.cells) + len(sweep.failed)
    verdict = f"{exact} of {total} cells retrain to their original model within the target of their storage."
    if sweep.failed:
        verdict += f" {len(sweep.failed)} failed."
    panels = _panels(sweep)
    kernels = f"Kernels: {_kernels(sweep)}."
    charts = tuple(
        (caption, to_svg(panels_figure([panel], legend=False), f"panel-{index}", f"{caption} {kernels}"))
        for index, (panel, caption) in enumerate(panels)
    )
    plots = Section(
        name="plots",
        title="Against points per class",
        legend=legend_of((curve.name, curve.look) for panel, _ in panels for curve in panel.curves),
        charts=charts,
    )
    failed = tuple(sweep.failed.items())
    return Publication(
        title=f"Sweep of {sweep.dataset}: {_kernels(sweep)}",
        passed=exact == total > 0,
        verdict=verdict,
        sections=(
            *((plots,) if charts else ()),
            _table(sweep),
            *((Section(name="missing", title="Failed", head=("cell", "reason"), rows=failed),) if failed else ()),
            _how(sweep),
        ),
    )


def _kernels(sweep: Sweep) -> str:
    return ", ".join(dict.fromkeys(cell.kernel for cell in sweep.cells)) or "no cell"


def _table(sweep: Sweep) -> Section:
    """Means over seeds with their standard deviation; of weight errors the largest."""
    rows = tuple(
        (
            row.kernel,
            row.init,
            number(row.lambda_s),
            str(row.ipc),
            str(len(row.cells)),
            _shown(row.spread("original"), 100.0),
            _shown(row.spread("distilled"), 100.0),
            f"{sum(cell.exact for cell in row.cells)} of {len(row.cells)}",
            f"{row.errors[2]:.1e}",
            _shown(row.spread("psnr")),
            _seconds(row),
        )
        for row in sweep.summaries
    )
    head = (
        *("kernel", "init", f"{LAMBDA}_S", "per class", "seeds", "original (%)", "distilled (%)", "exact"),
        *("weight error", "PSNR (dB)", "seconds"),
    )
    text = (
        f"Original and distilled: {sweep.score} of the original model and of the one retrained from the file. Means "
        "over seeds, with the standard deviation after \N{PLUS-MINUS SIGN}; the weight error is the largest. "
        "PSNR is to the real samples of the start. Seconds are those of a single run: cells of one kernel and seed "
        "share loading and the pass over the data, which count in each."
    )
    return Section(name="cells", title="Cells", text=(text,), head=head, rows=rows)


def _seconds(row: Summary) -> str:
    spread = row.spread("seconds")
    return _NONE if spread is None else seconds_text(spread.mean)


def _shown(spread: Spread | None, scale: float = 1.0) -> str:
    if spread is None:
        return _NONE
    deviation = "" if spread.deviation is None else f" \N{PLUS-MINUS SIGN} {scale * spread.deviation:.2f}"
    return f"{scale * spread.mean:.2f}{deviation}"


def _how(sweep: Sweep) -> Section:
    rows = [
        ("machine", ", ".join(f"{name} {value}" for name, value in sweep.machine.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in sweep.versions.items())),
        ("finished", sweep.finished),
        *((("asked for by", sweep.command),) if sweep.command else ()),
    ]
    return Section(name="how", title="How it was measured", head=("", ""), rows=tuple(rows))


def _panels(sweep: Sweep) -> list[tuple[Panel, str]]:
    """The plots that the cells have values for, with captions."""
    found = []
    score, distilled = f"{sweep.score} (%)", _curves(sweep, lambda row: _percent(row, "distilled"))
    if distilled:
        of_original = _curves(sweep, lambda row: _percent(row, "original"))
        original = [replace(curve, name="original model", dotted=True) for curve in of_original]
        caption = (
            f"{sweep.score[0].upper()}{sweep.score[1:]} of the model retrained from the file; dotted: the original."
        )
        found.append((Panel(score, (*distilled, *original)), f"{caption} {_BARS}"))
    errors = _curves(sweep, _error)
    if errors:
        caption = "Relative weight error: geometric mean over seeds, and the smallest and the largest."
        found.append((Panel("relative weight error", tuple(errors), y_log=True), caption))
    near = _curves(sweep, lambda row: _interval(row.spread("psnr")))
    if near:
        found.append((Panel("PSNR (dB)", tuple(near)), f"PSNR to the real samples of the start. {_BARS}"))
    return found


def _curves(sweep: Sweep, point: Callable[[Summary], Point | None]) -> list[SpreadCurve]:
    """A curve for each kernel and variant that has points; the kernel decides its colour, the variant its dashes."""
    rows = sweep.summaries
    kernels, variants = (
        list(dict.fromkeys(row.kernel for row in rows)),
        list(dict.fromkeys(row.variant for row in rows)),
    )
    alike = [len(set(values)) == 1 for values in zip(*variants, strict=True)]
    found = []
    for kernel, variant in product(kernels, variants):
        of = [row for row in rows if (row.kernel, row.variant) == (kernel, variant)]
        known = [(row.ipc, *at) for row in of if (at := point(row)) is not None]
        if known:
            name = ", ".join((kernel, *(part for part, same in zip(variant, alike, strict=True) if not same)))
            style = (kernels.index(kernel), variants.index(variant))
            x, y, low, high = zip(*known, strict=True)
            found.append(SpreadCurve(name, style, x, y, low, high))
    return found


def _percent(row: Summary, name: str) -> Point | None:
    return _interval(row.spread(name), 100.0)


def _interval(spread: Spread | None, scale: float = 1.0) -> Point | None:
    """The mean, and the ends of one standard deviation about it."""
    if spread is None:
        return None
    mean, deviation = scale * spread.mean, scale * (spread.deviation or 0.0)
    return mean, mean - deviation, mean + deviation


def _error(row: Summary) -> Point | None:
    mean, low, high = (max(value, _LEAST) for value in row.errors)
    return (mean, low, high) if math.isfinite(high) else None
