"""What all charts are drawn on: colours, sizes, axes with few round ticks, names above them.

Matplotlib is used through its object interface: nothing is registered in ``pyplot``, no window system is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from krrdistill.apps.text import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

__all__ = [
    "AXIS_SIZE",
    "EXTREME",
    "HEIGHT",
    "LAMBDA",
    "LEFT",
    "LEGEND_SIZE",
    "NAME_SIZE",
    "PALETTE",
    "RIGHT",
    "WIDTH",
    "add_legend",
    "axes_in",
    "new_axes",
    "own_style",
    "scale_axis",
    "text_width",
    "write_above",
]

FloatArray = npt.NDArray[np.float64]
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
LEFT, RIGHT, _BOTTOM, _LINE = 46.0, 8.0, 36.0, 13.0
AXIS_SIZE, NAME_SIZE = 9.0, 8.0  # points: of the letters of what an axis is, and of its ticks
LEGEND_SIZE = 8.5  # points: of the letters of names above the axes
_MOST_TICKS = 10
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEAST_SPAN = 5.0  # largest over smallest value on a log axis
EXTREME = 1e100  # of an axis, whose limits are to be finite


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults in the block, also as a decorator.

    A matplotlibrc, which may lie in the working directory, decides otherwise what a picture is and whether it can be
    drawn, and can have LaTeX typeset texts of files.
    """
    defaults = matplotlib.rcParamsDefault
    with matplotlib.rc_context({name: defaults[name] for name in defaults if not name.startswith("backend")}):
        yield


def new_axes(x_label: str, y_label: str, *, above: int = 0, title: str | None = None) -> tuple[Figure, Axes]:
    """A figure with empty axes, ``above`` lines of room above them, and one more for a title."""
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="white")
    return figure, axes_in(figure, x_label, y_label, above=above, title=title)


def axes_in(
    figure: Figure, x_label: str, y_label: str, *, above: int = 0, title: str | None = None, column: int = 0
) -> Axes:
    """Those axes in a figure of the usual height, in one of its columns of the usual width."""
    top, width = 8.0 + _LINE * above + (16.0 if title else 0.0), 72.0 * figure.get_size_inches()[0]
    left, bottom = (column * WIDTH + LEFT) / width, _BOTTOM / HEIGHT
    axes = figure.add_axes((left, bottom, (WIDTH - LEFT - RIGHT) / width, (HEIGHT - _BOTTOM - top) / HEIGHT))
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label, fontsize=AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.set_ylabel(y_label, fontsize=AXIS_SIZE, color=PALETTE["ink"], parse_math=False)
    axes.tick_params(labelsize=NAME_SIZE, labelcolor=PALETTE["muted"], left=False, bottom=False)
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


def scale_axis(axes: Axes, which: str, values: FloatArray, *, log: bool = False, ticks: bool = False) -> None:
    """Limits with a margin around the finite values, positive ones on a log axis, and few round ticks.

    With ``ticks`` these stand at the values themselves, where they are few.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    known = values[np.isfinite(values) & (values > 0.0 if log else True)]
    known = np.clip(known, -EXTREME, EXTREME) if not log else np.clip(known, 1.0 / EXTREME, EXTREME)
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


def add_legend(
    figure: Figure, columns: int, named: Mapping[str, Artist] | None = None, *, length: float = 1.6
) -> Legend:
    """The names of what is drawn, or those given, above the axes, behind lines of some length."""
    given = {} if named is None else {"handles": list(named.values()), "labels": list(named)}
    return figure.legend(
        **given,
        loc="upper left",
        bbox_to_anchor=((LEFT - 7.2) / (72.0 * figure.get_size_inches()[0]), 1.0),
        ncols=columns,
        frameon=False,
        fontsize=LEGEND_SIZE,
        labelcolor=PALETTE["ink"],
        borderaxespad=0.0,
        handlelength=length,
        columnspacing=1.2,
    )


def text_width(text: str, size: float) -> float:
    """Points that a line of text takes, in letters of this size."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def _plain(value: float, _: Any) -> str:
    return f"{value:.4g}"


def _power_of_ten(value: float, _: Any) -> str:
    return f"10{str(round(np.log10(value))).translate(_SUPERSCRIPTS)}"


def write_above(axes: Axes, at: float, line: int, text: str, color: str, *, align: str = "left") -> None:
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
