"""How the inputs of a run came about, and for labels only how the error falls with the number of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from krrdistill.apps.report.charts import Chart
from krrdistill.apps.report.html import Markup, element, join
from krrdistill.apps.text import number

__all__ = ["solution_section"]

_LEAST = 1e-17  # where the logarithmic axis ends: an error of 0 is below the rounding of float64
_METHODS = {
    "exact": "Features in closed form, inputs by the map's exact preimage.",
    "approximate": "The map has no exact preimage: inputs were moved until their features span the model as nearly as "
    "they came to, and labels learned.",
    "labels_only": "Real inputs were kept as they are and only their labels learned.",
}


def solution_section(report: dict[str, Any]) -> Markup | None:
    """What the report's ``solution`` and ``labels_only`` say; None where it has neither, as those of older runs."""
    solution = report.get("solution")
    if not isinstance(solution, dict) or solution.get("method") not in _METHODS:
        return None
    sentences = [_METHODS[solution["method"]]]
    if isinstance(solution.get("steps"), int):
        sentences.append(f"That took {solution['steps']} steps.")
    if isinstance(solution.get("outside_range"), float):
        outside = number(solution["outside_range"])
        sentences.append(f"The map's features have dimension {solution.get('range_dimension')} of {report['p']}.")
        sentences.append(f"Rounding had put {outside} of the trained weights outside of it, which was cut off.")
    return join(element("p", " ".join(sentences)), _curve(report))


def _curve(report: dict[str, Any]) -> Markup | None:
    curve = report.get("labels_only")
    if not isinstance(curve, dict):
        return None
    try:
        m, errors = (np.array(curve[key], dtype=np.float64) for key in ("m", "weight_relative_error"))
    except (KeyError, TypeError, ValueError):
        return None
    if m.ndim != 1 or m.shape != errors.shape or not (m > 0).all() or not np.isfinite(errors).any():
        return None
    chart = Chart(
        x=m,
        y=np.maximum(errors, _LEAST),
        x_label=f"points m, of p = {report['p']} features",
        y_label="relative weight error",
        description=f"Line chart of the error of learned labels, from {errors[0]:.3g} with {m[0]:g} points to "
        f"{errors[-1]:.3g} with {m[-1]:g}",
        y_log=True,
        point_text=lambda index: f"m = {m[index]:g}: {errors[index]:.3g}",
    )
    return element("div", element("figure", chart.svg()), class_="charts")
