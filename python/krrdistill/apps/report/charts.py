"""Charts of a run: each is one Matplotlib figure, saved as PNG or put into a page as SVG.

Matplotlib is used through its object interface: nothing is registered in ``pyplot``, no window system is needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from krrdistill.apps.text import plain_number, printable
from krrdistill.common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

__all__ = [
    "LAMBDA",
    "PALETTE",
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
    "own_style",
    "panels_figure",
    "race_charts",
    "save_figure",
    "scatter_figure",
    "text_width",
    "to_svg",
]

FloatArray = npt.NDArray[np.float64]
Style = tuple[str, tuple[float, ...]]  # of a curve: colour and dashes
LAMBDA = "\N{GREEK SMALL LETTER LAMDA}"
# Colours on light paper; the page's style sheet has others under the same names for dark paper.
PALETTE = {
    "paper": "#ffffff",
    "ink": "#1b1d21",
    "muted": "#565b63",
    "rule": "#d5d8dd",
    "line": "#1f5fa8",
    "accent": "#b3410f",
    "shade": "#e4e6ea",
}
WIDTH, HEIGHT = 360.0, 225.0  # points
DPI = 192  # of PNG files, 960 by 600 pixels
_LEFT, _RIGHT, _BOTTOM, _LINE = 46.0, 8.0, 36.0, 13.0
_AXIS_SIZE, _NAME_SIZE = 9.0, 8.0  # points: of the letters of what an axis is, and of its ticks
_MAX_MARKERS = 80
_LEGEND_SIZE, _HANDLE = 8.5, 40.0  # points: of its letters; the line before a name, and the gap behind it
_MOST_TICKS = 10
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STYLES = (("line", "-"), ("accent", (0, (5, 2))), ("muted", (0, (1.5, 2.5))))  # of up to three curves
# Of any number of curves: hues of middle lightness, three times as light as dark paper and as dark as light paper.
_HUES = ("#2c7bc9", "#c4561c", "#2b9455", "#b04a9e", "#8a7a12", "#7a62d0", "#cc4056", "#178c9b")
_DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2), (1, 3), (12, 4), (8, 2, 2, 2, 2, 2), (4, 1, 1, 1))
_MARKS = (("line", "o", "line"), ("accent", "D", "paper"), ("muted", "s", "paper"))  # of up to three kinds of dots
_DODGE = 0.22  # columns between the dots of one column
_LEAST_SPAN = 5.0  # largest over smallest value on a log axis
_EXTREME = 1e100  # of an axis, whose limits are to be finite
_BAR_STEPS = 64  # of a scale of colours
_MOST_ROW_NAMES, _MOST_NAMES, _LONGEST_NAME = 18, 25, 16  # beside and below a matrix, and letters of one
_MOST_NUMBERED = 12  # rows and columns of a matrix that has its numbers in it
_LETTER = 4.4  # points that a digit of such a number takes
_DROPPED = ("clip-path", "version", "width", "height", "xmlns")


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults in the block, also as a decorator.

    A matplotlibrc, which may lie in the working directory, decides otherwise what a picture is and whether it can be
    drawn, and can have LaTeX typeset texts of files.
    """
    defaults = matplotlib.rcParamsDefault
    with matplotlib.rc_context({name: defaults[name] for name in defaults if not name.startswith("backend")}):
        yield


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
    figure, axes = _new_axes(LAMBDA, label, above=1 + bool(below.any()), title=title)
    _scale(axes, "x", lam, log=True)
    spread = np.zeros(len(y)) if error is None else np.asarray(error, dtype=np.float64)
    _scale(axes, "y", np.concatenate([y - spread, y + spread]) if y_limits is None else np.asarray(y_limits))
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
        _write_above(axes, 0.0, 1, f"shaded: under the noise floor of G, {plain_number(noise_floor)}", "muted")
    _mark_choice(axes, float(lam[best]), float(y[best]), unit)
    return figure


@own_style()
def line_figure(x: npt.ArrayLike, y: npt.ArrayLike, *, x_label: str, y_label: str, x_log: bool, y_log: bool) -> Figure:
    """One curve, with gaps where y is not finite or, on a log axis, not positive."""
    figure, axes = _new_axes(x_label, y_label)
    at, values = (np.asarray(array, dtype=np.float64) for array in (x, y))
    _scale(axes, "x", at, log=x_log)
    _scale(axes, "y", values, log=y_log)
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
    widths = [max((text_width(name, _NAME_SIZE) for name in names), default=0.0) for names in named]
    left = 34.0 + max(widths[0], 15.0)
    turned = widths[1] > (WIDTH - left - 62.0) / columns - 4.0
    below = 30.0 + (widths[1] if turned else 8.0)
    height = below + float(np.clip(16.0 * rows, max(84.0, text_width(y_label, _AXIS_SIZE)), 180.0)) + 8.0
    figure = Figure(figsize=(WIDTH / 72, height / 72), facecolor="white")
    room = (left / WIDTH, below / height, (WIDTH - left - 62.0) / WIDTH, (height - below - 8.0) / height)
    axes = figure.add_axes(room)
    bar = figure.add_axes((1 - 52.0 / WIDTH, room[1], 9.0 / WIDTH, room[3]))
    limit = min(float(np.abs(shown).max(initial=0.0)), _EXTREME) or 1.0
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
        each.tick_params(labelsize=_NAME_SIZE, labelcolor=PALETTE["muted"], left=False, right=False, bottom=False)
        each.spines[:].set(color=PALETTE["muted"], linewidth=0.6)
    if turned:
        axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlabel(x_label, fontsize=_AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.set_ylabel(y_label, fontsize=_AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
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
    figure, axes = _new_axes(x_label, y_label, above=1)
    together = np.concatenate([points for _, points in groups])
    for which, values in zip("xy", together.T, strict=True):
        _scale(axes, which, values)
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
    _legend(figure, len(groups))
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
    figure, axes = _new_axes(x_label, y_label, above=1)
    _scale(axes, "x", np.concatenate([curve.x for curve in curves]).astype(np.float64), log=True)
    _scale(axes, "y", np.concatenate([curve.y for curve in curves]).astype(np.float64))
    for curve, (color, dashes) in zip(curves, _STYLES, strict=False):
        style: dict[str, Any] = {"color": PALETTE[color], "linewidth": 1.4}
        x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
        if len(x) == 1:
            axes.plot([x[0], axes.get_xlim()[1]], [y[0], y[0]], linestyle=dashes, **style)
        style |= {"marker": "o", "markersize": 3.5} if len(x) <= _MAX_MARKERS else {}
        axes.plot(x, y, linestyle=dashes, label=printable(curve.name), **style)
    _legend(figure, len(curves))
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
    figure, axes = _new_axes("", y_label, above=1)
    _scale(axes, "y", np.concatenate([kind.y for kind in kinds]).astype(np.float64), log=y_log)
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
    _legend(figure, len(kinds))
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
        _draw_panel(_axes_in(figure, "distilled samples per class", panel.y_label, column=index), panel)
    if legend:
        _legend_above(figure)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    _scale(axes, "x", np.concatenate([curve.x for curve in panel.curves]).astype(np.float64), log=True, ticks=True)
    _scale(axes, "y", np.concatenate([[*curve.low, *curve.high] for curve in panel.curves]), log=panel.y_log)
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
    room = width - _LEFT - _RIGHT - _HANDLE
    longest = max(text_width(name, _LEGEND_SIZE) for name in handles)
    columns = max(1, int((room + _HANDLE) // (longest + _HANDLE)))
    letters = max(1, int(max(map(len, handles)) * min(1.0, room / longest)))
    named = {"\n".join(wrap(name, letters)): handles[name] for name in handles}
    legend = _legend(figure, min(columns, len(named)), named, length=2.8)
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
    figure, axes = _new_axes(x_label, y_label)
    _scale(axes, "x", np.concatenate([curve.x for curve, _ in curves]).astype(np.float64), log=True, ticks=True)
    _scale(axes, "y", np.concatenate([curve.y for curve, _ in curves]).astype(np.float64))
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


@own_style()
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and without a date or version: equal figures, equal bytes.

    Raises
    ------
    OSError
        When the folder is missing, cannot be written or is full.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    write_atomically(Path(path), lambda stream: stream.write(buffer.getvalue()))


@own_style()
def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an ``<svg>`` inside a page, in colours that the page's style sheet names.

    name : of this chart, which no other on the page has
    description : what a reader who does not see the chart is told
    """
    buffer = io.BytesIO()
    figure.patch.set_visible(False)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "krrdistill", "font.sans-serif": ["DejaVu Sans"]}
    ):
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}style", "}metadata", "}clipPath")):
                element.remove(child)
    for element in root.iter():
        _inline(element, name)
    view = root.attrib.pop("viewBox")
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": description, "class": "chart"})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _inline(element: ElementTree.Element, name: str) -> None:
    """SVG without namespaces, clipping and needless digits; ids get the chart's name, colours those of the palette."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag == "image":  # with its size and exact place
        shown = {key: value for key, value in attributes.items() if key not in _DROPPED[:1]}
    else:
        shown = {key: for_page(value) for key, value in attributes.items() if key not in _DROPPED}
    if element.tag == "g":
        shown.pop("id", None)
    if "id" in shown:
        shown["id"] = f"{name}-{shown['id']}"
    if "href" in shown:
        shown["href"] = re.sub("^#", f"#{name}-", shown["href"])
    element.attrib.clear()
    element.attrib.update(shown)
    if element.tag != "text":
        element.text = None
    element.tail = None


def for_page(value: str) -> str:
    """Two decimals at most, no line breaks, and ``var(--name)`` for every colour of the palette."""
    for color, code in PALETTE.items():
        value = value.replace(code, f"var(--{color})")
    return re.sub(r"(\.\d\d)\d+", r"\1", value.replace("\n", " ")).strip()


def _new_axes(x_label: str, y_label: str, *, above: int = 0, title: str | None = None) -> tuple[Figure, Axes]:
    """A figure with empty axes, ``above`` lines of room above them, and one more for a title."""
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="white")
    return figure, _axes_in(figure, x_label, y_label, above=above, title=title)


def _axes_in(
    figure: Figure, x_label: str, y_label: str, *, above: int = 0, title: str | None = None, column: int = 0
) -> Axes:
    """Those axes in a figure of the usual height, in one of its columns of the usual width."""
    top, width = 8.0 + _LINE * above + (16.0 if title else 0.0), 72.0 * figure.get_size_inches()[0]
    left, bottom = (column * WIDTH + _LEFT) / width, _BOTTOM / HEIGHT
    axes = figure.add_axes((left, bottom, (WIDTH - _LEFT - _RIGHT) / width, (HEIGHT - _BOTTOM - top) / HEIGHT))
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label, fontsize=_AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.set_ylabel(y_label, fontsize=_AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.tick_params(labelsize=_NAME_SIZE, labelcolor=PALETTE["muted"], left=False, bottom=False)
    axes.grid(True, color=PALETTE["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=PALETTE["muted"], linewidth=0.8)
    if title:
        figure.text(
            0.5,
            1 - 4 / HEIGHT,
            printable(title),
            ha="center",
            va="top",
            fontsize=9.5,
            color=PALETTE["ink"],
            parse_math=False,
        )
    return axes


def _scale(axes: Axes, which: str, values: FloatArray, *, log: bool = False, ticks: bool = False) -> None:
    """Limits with a margin around the finite values, positive ones on a log axis, and few round ticks.

    With ``ticks`` these stand at the values themselves, where they are few.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    known = values[np.isfinite(values) & (values > 0.0 if log else True)]
    known = np.clip(known, -_EXTREME, _EXTREME) if not log else np.clip(known, 1.0 / _EXTREME, _EXTREME)
    low, high = (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)
    locator: Any = MaxNLocator(5, steps=(1, 2, 2.5, 5, 10))
    text: Callable[[float, Any], str] = _plain
    if log:
        widen = max(1.0, _LEAST_SPAN * low / high) ** 0.5
        low, high = low / widen, high * widen
        decades = np.log10(high) - np.log10(low)
        low, high = low / 10 ** (0.03 * decades), high * 10 ** (0.03 * decades)
        locator = LogLocator(subs=(1.0,) if decades >= 2.0 else (1.0, 2.0, 5.0), numticks=7)
        text = _power_of_ten if decades >= 2.0 else _plain
    else:
        margin = 0.06 * (high - low) or 0.5 * (abs(high) or 1.0)
        low, high = low - margin, high + margin
    axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": (low, high)})
    at = np.unique(known)
    if ticks and len(at) <= _MOST_TICKS:
        locator, text = FixedLocator(at.tolist()), _plain
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(text))


def _legend(figure: Figure, columns: int, named: Mapping[str, Artist] | None = None, *, length: float = 1.6) -> Legend:
    """The names of what is drawn, or those given, above the axes, behind lines of some length."""
    given = {} if named is None else {"handles": list(named.values()), "labels": list(named)}
    return figure.legend(
        **given,
        loc="upper left",
        bbox_to_anchor=((_LEFT - 7.2) / (72.0 * figure.get_size_inches()[0]), 1.0),
        ncols=columns,
        frameon=False,
        fontsize=_LEGEND_SIZE,
        labelcolor=PALETTE["ink"],
        borderaxespad=0.0,
        handlelength=length,
        columnspacing=1.2,
    )


def text_width(text: str, size: float) -> float:
    """Points that a line of text takes, in letters of this size."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def _short(value: float) -> str:
    """At most three digits, of numbers with an exponent two."""
    text = f"{value:.3g}"
    return f"{value:.1e}" if "e-" in text else f"{float(text):g}"


def _plain(value: float, _: Any) -> str:
    return f"{value:.4g}"


def _power_of_ten(value: float, _: Any) -> str:
    return f"10{str(round(np.log10(value))).translate(_SUPERSCRIPTS)}"


def _mark_choice(axes: Axes, lam: float, value: float, unit: str) -> None:
    """A vertical line and a point at the chosen lambda, with its value above, on the roomier side."""
    axes.axvline(lam, color=PALETTE["accent"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    if not np.isfinite(value):
        return
    axes.plot([lam], [value], "o", color=PALETTE["accent"], markersize=6.5, zorder=4)
    left, right = np.log10(axes.get_xlim())
    at = (np.log10(lam) - left) / (right - left)
    text = f"{plain_number(value)}{unit} at {LAMBDA} = {plain_number(lam)}"
    _write_above(axes, at, 0, text, "accent", align="left" if at < 0.5 else "right")


def _write_above(axes: Axes, at: float, line: int, text: str, color: str, *, align: str = "left") -> None:
    """Text above the axes, where no curve crosses it; ``at`` is 0 at their left end and 1 at the right one."""
    axes.annotate(
        text,
        (at, 1.0),
        xycoords="axes fraction",
        xytext=(0.0, 4.0 + _LINE * line),
        textcoords="offset points",
        ha=align,
        va="bottom",
        fontsize=8.5,
        color=PALETTE[color],
        annotation_clip=False,
        parse_math=False,
    )
