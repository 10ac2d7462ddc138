"""Charts of a run: each is one Matplotlib figure, saved as PNG or put into a page as SVG (svg.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from krrdistill.apps.report.axes import (
    AXIS_SIZE,
    EXTREME,
    HEIGHT,
    LAMBDA,
    LEFT,
    LEGEND_SIZE,
    NAME_SIZE,
    PALETTE,
    RIGHT,
    WIDTH,
    add_legend,
    axes_in,
    new_axes,
    own_style,
    scale_axis,
    text_width,
    write_above,
)
from krrdistill.apps.report.svg import for_page, to_svg
from krrdistill.apps.text import plain_number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Curve",
    "Dots",
    "Panel",
    "SpreadCurve",
    "Style",
    "curve_style",
    "curves_figure",
    "dots_figure",
    "heat_figure",
    "lambda_path_figure",
    "legend_of",
    "line_figure",
    "overlay_figure",
    "panels_figure",
    "race_charts",
    "scatter_figure",
]

FloatArray = npt.NDArray[np.float64]
Style = tuple[str, tuple[float, ...]]  # of a curve: colour and dashes
_MAX_MARKERS = 80
_HANDLE = 40.0  # points: the line before a name, and the gap behind it
_STYLES = (("line", "-"), ("accent", (0, (5, 2))), ("muted", (0, (1.5, 2.5))))  # of up to three curves
# Of any number of curves: hues of middle lightness, three times as light as dark paper and as dark as light paper.
_HUES = ("#2c7bc9", "#c4561c", "#2b9455", "#b04a9e", "#8a7a12", "#7a62d0", "#cc4056", "#178c9b")
_DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2), (1, 3), (12, 4), (8, 2, 2, 2, 2, 2), (4, 1, 1, 1))
_MARKS = (("line", "o", "line"), ("accent", "D", "paper"), ("muted", "s", "paper"))  # of up to three kinds of dots
_DODGE = 0.22  # columns between the dots of one column
_BAR_STEPS = 64  # of a scale of colours
_MOST_ROW_NAMES, _MOST_NAMES, _LONGEST_NAME = 18, 25, 16  # beside and below a matrix, and letters of one
_MOST_NUMBERED = 12  # rows and columns of a matrix that has its numbers in it
_LETTER = 4.4  # points that a digit of such a number takes


@own_style()
def lambda_path_figure(
    lambdas: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    label: str,
    unit: str = "",
    best: int,
    below_noise_floor: npt.ArrayLike,
    noise_floor: float,
    error: npt.ArrayLike | None = None,
    title: str | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """What is known of every lambda: the choice marked, the part under the noise floor shaded and hollow.

    Parameters
    ----------
    lambdas : array of shape (L,), positive
    values : array of shape (L,); NaN, drawn as a gap, where no factorisation existed
    label, unit : what the values are, and what stands behind the chosen one
    best : int, index of the chosen lambda
    below_noise_floor : bool array of shape (L,)
    noise_floor : float, the lambda under which rounding of the statistics decides the result; 0 for none
    error : array of shape (L,), standard errors of the values, drawn as a band about them
    y_limits : that the vertical axis includes, by default the extremes of the values

    Raises
    ------
    ValueError
        When the lengths differ, a lambda is not positive, or ``best`` is not one of the points.
    """
    lam, y = (np.asarray(array, dtype=np.float64) for array in (lambdas, values))
    below = np.asarray(below_noise_floor, dtype=bool)
    if lam.ndim != 1 or not len(lam) or y.shape != lam.shape or below.shape != lam.shape:
        raise ValueError(
            "lambda_path_figure: lambdas, values and below_noise_floor must have one length, "
            f"got shapes {lam.shape}, {y.shape} and {below.shape}"
        )
    if not np.all(lam > 0):
        raise ValueError(f"lambda_path_figure: lambdas must be positive, got {lam.min():g}")
    if not 0 <= best < len(lam):
        raise ValueError(f"lambda_path_figure: best must be in [0, {len(lam)}), got {best}")
    figure, axes = new_axes(LAMBDA, label, above=1 + bool(below.any()), title=title)
    scale_axis(axes, "x", lam, log=True)
    spread = np.zeros(len(y)) if error is None else np.asarray(error, dtype=np.float64)
    scale_axis(axes, "y", np.concatenate([y - spread, y + spread]) if y_limits is None else np.asarray(y_limits))
    order = np.argsort(lam, kind="stable")
    if error is not None:
        low, high = (y - spread)[order], (y + spread)[order]
        axes.fill_between(lam[order], low, high, color=PALETTE["line"], alpha=0.18, linewidth=0, zorder=1)
    axes.plot(lam[order], y[order], color=PALETTE["line"], linewidth=1.4, zorder=2)
    for points, fill in ((~below, "line"), (below, "paper")):
        axes.plot(lam[points], y[points], "o", color=PALETTE["line"], markerfacecolor=PALETTE[fill], markersize=4)
    if below.any():
        first_above = lam[~below].min(initial=axes.get_xlim()[1])
        axes.axvspan(
            axes.get_xlim()[0],
            min(max(noise_floor, lam[below].max()), first_above),
            facecolor=PALETTE["shade"],
            linewidth=0,
            zorder=0,
        )
        write_above(axes, 0.0, 1, f"shaded: under the noise floor of G, {plain_number(noise_floor)}", "muted")
    _mark_choice(axes, float(lam[best]), float(y[best]), unit)
    return figure


@own_style()
def line_figure(x: npt.ArrayLike, y: npt.ArrayLike, *, x_label: str, y_label: str, x_log: bool, y_log: bool) -> Figure:
    """One curve, with gaps where y is not finite or, on a log axis, not positive."""
    figure, axes = new_axes(x_label, y_label)
    at, values = (np.asarray(array, dtype=np.float64) for array in (x, y))
    scale_axis(axes, "x", at, log=x_log)
    scale_axis(axes, "y", values, log=y_log)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(at) <= _MAX_MARKERS else {}
    axes.plot(at, np.where(values > 0.0, values, np.nan) if y_log else values, color=PALETTE["line"], **marker)
    return figure


@own_style()
def heat_figure(
    values: npt.ArrayLike,
    *,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] | None = None,
    y_names: Sequence[str] | None = None,
    counts: bool = False,
) -> Figure:
    """A matrix as colours, with their scale at its right; small ones with their numbers.

    Parameters
    ----------
    values : array of shape (r, c), finite
    x_names, y_names : of the columns and rows, by default their numbers; equal neighbours are named once, and of
        many only some
    counts : whether they are counts, drawn from 0 on; others are signed, and 0 lies in the middle of their colours
    """
    shown = np.asarray(values, dtype=np.float64)
    rows, columns = shown.shape
    named = [[printable(name)[:_LONGEST_NAME] for name in names or ()] for names in (y_names, x_names)]
    widths = [max((text_width(name, NAME_SIZE) for name in names), default=0.0) for names in named]
    left = 34.0 + max(widths[0], 15.0)
    turned = widths[1] > (WIDTH - left - 62.0) / columns - 4.0
    below = 30.0 + (widths[1] if turned else 8.0)
    height = below + float(np.clip(16.0 * rows, max(84.0, text_width(y_label, AXIS_SIZE)), 180.0)) + 8.0
    figure = Figure(figsize=(WIDTH / 72, height / 72), facecolor="white")
    room = (left / WIDTH, below / height, (WIDTH - left - 62.0) / WIDTH, (height - below - 8.0) / height)
    axes = figure.add_axes(room)
    bar = figure.add_axes((1 - 52.0 / WIDTH, room[1], 9.0 / WIDTH, room[3]))
    limit = min(float(np.abs(shown).max(initial=0.0)), EXTREME) or 1.0
    least = 0.0 if counts else -limit
    drawn: dict[str, Any] = {"vmin": least, "vmax": limit, "cmap": "Blues" if counts else "RdBu_r"}
    drawn |= {"aspect": "auto", "interpolation": "none"}
    axes.imshow(shown, **drawn)
    bar.imshow(np.linspace(limit, least, _BAR_STEPS)[:, None], extent=(0.0, 1.0, least, limit), **drawn)
    most = (_MOST_ROW_NAMES, _MOST_NAMES if named[1] else _MOST_NUMBERED)
    for axis, names, count, limit_of_names in zip((axes.yaxis, axes.xaxis), named, (rows, columns), most, strict=True):
        texts = names or [str(index + 1) for index in range(count)]
        first = [index for index in range(count) if not index or texts[index] != texts[index - 1]]
        middle = [(start + end - 1) / 2 for start, end in zip(first, [*first[1:], count], strict=True)]
        every = slice(None, None, -(-len(first) // limit_of_names))
        axis.set_ticks(middle[every], [texts[index] for index in first[every]], parse_math=False)
    bar.yaxis.tick_right()
    bar.set_xticks([])
    bar.set_yticks([least, limit] if counts else [-limit, 0.0, limit])
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if counts else _short(value)))
    for each in (axes, bar):
        each.tick_params(labelsize=NAME_SIZE, labelcolor=PALETTE["muted"], left=False, right=False, bottom=False)
        each.spines[:].set(color=PALETTE["muted"], linewidth=0.6)
    if turned:
        axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlabel(x_label, fontsize=AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.set_ylabel(y_label, fontsize=AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    written = "{:.0f}".format if counts else _short
    texts = [written(value) for value in shown.flat] if max(rows, columns) <= _MOST_NUMBERED else []
    if max(map(len, texts), default=99) * _LETTER <= room[2] * WIDTH / columns:
        for (row, column), value in np.ndenumerate(shown):
            share = value / limit if counts else abs(value) / limit
            color = "#fefefe" if share > 0.6 else "#111111"  # on the colours of the map, light paper or dark
            text = texts[row * columns + column]
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    return figure


@own_style()
def scatter_figure(
    groups: Sequence[tuple[str, FloatArray]], names: Sequence[str], *, x_label: str, y_label: str
) -> Figure:
    """Up to two groups of named points (n, 2), each with a mark of its own; the name of every point beside it."""
    figure, axes = new_axes(x_label, y_label, above=1)
    together = np.concatenate([points for _, points in groups])
    for which, values in zip("xy", together.T, strict=True):
        scale_axis(axes, which, values)
    for (label, points), color, marker in zip(groups, ("line", "accent"), "o^", strict=False):
        style: dict[str, Any] = {"color": PALETTE[color], "markersize": 4, "linestyle": "none"}
        axes.plot(*points.T, marker, label=printable(label), **style)
        for point, name in zip(points, names, strict=True):
            axes.annotate(
                printable(name)[:_LONGEST_NAME],
                point,
                xytext=(4.0, 0.0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=PALETTE["muted"],
                parse_math=False,
            )
    add_legend(figure, len(groups))
    return figure


@dataclass(frozen=True)
class Curve:
    """One of several; ``chosen`` is the point that stands out, if any.

    In a race a single point is something that is there from then on, drawn with a line to its right.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    chosen: int | None = None


@own_style()
def curves_figure(curves: Sequence[Curve], *, x_label: str, y_label: str) -> Figure:
    """Up to three curves on one pair of axes, with their names above; x is positive, on a log axis."""
    figure, axes = new_axes(x_label, y_label, above=1)
    scale_axis(axes, "x", np.concatenate([curve.x for curve in curves]).astype(np.float64), log=True)
    scale_axis(axes, "y", np.concatenate([curve.y for curve in curves]).astype(np.float64))
    for curve, (color, dashes) in zip(curves, _STYLES, strict=False):
        style: dict[str, Any] = {"color": PALETTE[color], "linewidth": 1.4}
        x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
        if len(x) == 1:
            axes.plot([x[0], axes.get_xlim()[1]], [y[0], y[0]], linestyle=dashes, **style)
        style |= {"marker": "o", "markersize": 3.5} if len(x) <= _MAX_MARKERS else {}
        axes.plot(x, y, linestyle=dashes, label=printable(curve.name), **style)
    add_legend(figure, len(curves))
    return figure


@dataclass(frozen=True)
class Dots:
    """One of several values in every column; NaN where there is none."""

    name: str
    y: Sequence[float]


@own_style()
def dots_figure(columns: Sequence[tuple[str, str]], kinds: Sequence[Dots], *, y_label: str, y_log: bool) -> Figure:
    """Up to three kinds of dots beside each other in every column, with their names above.

    columns : (group, name): neighbours of one group share its name, which stands under theirs
    """
    figure, axes = new_axes("", y_label, above=1)
    scale_axis(axes, "y", np.concatenate([kind.y for kind in kinds]).astype(np.float64), log=y_log)
    at = np.arange(len(columns), dtype=np.float64)
    for index, (kind, (color, marker, fill)) in enumerate(zip(kinds, _MARKS, strict=False)):
        axes.plot(
            at + _DODGE * (index - (len(kinds) - 1) / 2),
            np.asarray(kind.y, dtype=np.float64),
            marker,
            color=PALETTE[color],
            markerfacecolor=PALETTE[fill],
            markersize=5,
            label=printable(kind.name),
        )
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(False, axis="x")
    axes.set_xticks(at, [printable(name) for _, name in columns])
    groups = [group for group, _ in columns]
    starts = [index for index, group in enumerate(groups) if index == 0 or group != groups[index - 1]]
    for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
        if start:
            axes.axvline(start - 0.5, color=PALETTE["rule"], linewidth=0.8)
        axes.annotate(
            printable(groups[start]),
            ((start + end - 1) / 2, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(0.0, -19.0),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8.5,
            color=PALETTE["ink"],
            annotation_clip=False,
            parse_math=False,
        )
    add_legend(figure, len(kinds))
    return figure


@dataclass(frozen=True)
class SpreadCurve:
    """A curve whose points have bars from ``low`` to ``high``; curves of one name have one look.

    style : numbers of its colour and of its dashes
    dotted : drawn as a dotted line without bars, as what others are compared with
    """

    name: str
    style: tuple[int, int]
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    dotted: bool = False

    @property
    def look(self) -> Style:
        """Colour and dashes."""
        return (PALETTE["ink"], (1.5, 2.5)) if self.dotted else curve_style(*self.style)


@dataclass(frozen=True)
class Panel:
    """Curves with bars on one pair of axes, against points per class on a log axis."""

    y_label: str
    curves: Sequence[SpreadCurve]
    y_log: bool = False


@own_style()
def panels_figure(panels: Sequence[Panel], *, legend: bool = True) -> Figure:
    """Panels side by side, and above them the name of every curve once."""
    figure = Figure(figsize=(len(panels) * WIDTH / 72, HEIGHT / 72), facecolor="white")
    for index, panel in enumerate(panels):
        _draw_panel(axes_in(figure, "distilled samples per class", panel.y_label, column=index), panel)
    if legend:
        _legend_above(figure)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    scale_axis(axes, "x", np.concatenate([curve.x for curve in panel.curves]).astype(np.float64), log=True, ticks=True)
    scale_axis(axes, "y", np.concatenate([[*curve.low, *curve.high] for curve in panel.curves]), log=panel.y_log)
    for curve in panel.curves:
        color, dashes = curve.look
        line: dict[str, Any] = {"color": color, "linestyle": (0, dashes) if dashes else "-"}
        line["label"] = printable(curve.name)
        if curve.dotted:
            axes.plot(curve.x, curve.y, linewidth=1.0, zorder=5, **line)
            continue
        y, low, high = (np.asarray(values, dtype=np.float64) for values in (curve.y, curve.low, curve.high))
        bars = np.maximum([y - low, high - y], 0.0)
        axes.plot(curve.x, y, marker="o", markersize=3.5, linewidth=1.4, **line)
        axes.errorbar(curve.x, y, bars, fmt="none", ecolor=color, elinewidth=1.0, capsize=2.5)


def _legend_above(figure: Figure) -> None:
    """Every name once, in as many columns as fit, in room that is added above the axes."""
    handles = {
        name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    width, height = 72.0 * figure.get_size_inches()
    room = width - LEFT - RIGHT - _HANDLE
    longest = max(text_width(name, LEGEND_SIZE) for name in handles)
    columns = max(1, int((room + _HANDLE) // (longest + _HANDLE)))
    letters = max(1, int(max(map(len, handles)) * min(1.0, room / longest)))
    named = {"\n".join(wrap(name, letters)): handles[name] for name in handles}
    legend = add_legend(figure, min(columns, len(named)), named, length=2.8)
    above = 72.0 * legend.get_window_extent().height / figure.dpi
    places = [axes.get_position().bounds for axes in figure.axes]
    figure.set_size_inches(width / 72, (height + above) / 72)
    for axes, (left, bottom, wide, tall) in zip(figure.axes, places, strict=True):
        share = height / (height + above)
        axes.set_position((left, bottom * share, wide, tall * share))


def curve_style(hue: int, dashes: int) -> Style:
    """Look of one of many curves: 64 of them are different."""
    return _HUES[hue % len(_HUES)], _DASHES[dashes % len(_DASHES)]


def legend_of(curves: Iterable[tuple[str, Style]]) -> tuple[tuple[str, str, str], ...]:
    """Name, colour and dashes of every curve, each once, for the list beside a chart of a page."""
    looks = ((name, for_page(color), " ".join(map(str, dashes))) for name, (color, dashes) in curves)
    return tuple(dict.fromkeys(looks))


@own_style()
def overlay_figure(curves: Sequence[tuple[Curve, Style]], *, x_label: str, y_label: str) -> Figure:
    """Any number of curves, each with its look, on one pair of axes; x is positive, on a log axis.

    Their names stand beside the chart, which has no room for many.
    """
    figure, axes = new_axes(x_label, y_label)
    scale_axis(axes, "x", np.concatenate([curve.x for curve, _ in curves]).astype(np.float64), log=True, ticks=True)
    scale_axis(axes, "y", np.concatenate([curve.y for curve, _ in curves]).astype(np.float64))
    for curve, (color, dashes) in curves:
        x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
        order = np.argsort(x, kind="stable")
        axes.plot(x[order], y[order], color=color, linestyle=(0, dashes) if dashes else "-", linewidth=1.3)
        shown = slice(None) if curve.chosen is None else [curve.chosen]
        axes.plot(x[shown], y[shown], "o", color=color, markersize=4.5 if curve.chosen is None else 6.5, zorder=4)
    return figure


def race_charts(
    methods: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]], title: str, name: str
) -> tuple[tuple[str, Markup], ...]:
    """(caption, chart) of the loss and of the accuracy of methods, name -> (seconds, loss, accuracy), against time."""
    charts = []
    for label, index, scale in (("loss per training sample", 1, 1.0), ("validation accuracy (%)", 2, 100.0)):
        curves = [Curve(method, of[0], [scale * value for value in of[index]]) for method, of in methods.items()]
        figure = curves_figure(curves, x_label="seconds", y_label=label)
        description = f"{title}: {label} against seconds: {', '.join(methods)}"
        caption = f"{label[0].upper()}{label[1:]} against seconds"
        charts.append((caption, to_svg(figure, f"{name}-{index}", description)))
    return tuple(charts)


def _short(value: float) -> str:
    """At most three digits, of numbers with an exponent two."""
    text = f"{value:.3g}"
    return f"{value:.1e}" if "e-" in text else f"{float(text):g}"


def _mark_choice(axes: Axes, lam: float, value: float, unit: str) -> None:
    """A vertical line and a point at the chosen lambda, with its value above, on the roomier side."""
    axes.axvline(lam, color=PALETTE["accent"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    if not np.isfinite(value):
        return
    axes.plot([lam], [value], "o", color=PALETTE["accent"], markersize=6.5, zorder=4)
    left, right = np.log10(axes.get_xlim())
    at = (np.log10(lam) - left) / (right - left)
    text = f"{plain_number(value)}{unit} at {LAMBDA} = {plain_number(lam)}"
    write_above(axes, at, 0, text, "accent", align="left" if at < 0.5 else "right")
