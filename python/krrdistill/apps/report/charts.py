"""Line charts as inline SVG; colours come from the page's style sheet, so that they follow light, dark and print."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from krrdistill.apps.report.html import Markup, element, join

__all__ = ["Chart", "Curve", "Curves", "power_of_ten", "race_charts"]

FloatArray = npt.NDArray[np.float64]
WIDTH, HEIGHT = 360.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 36.0, 40.0
_NOTE, _CHOICE = 13.0, 28.0  # heights of the texts above the plot, where no curve crosses them
_MAX_TICKS = 6
_MAX_MARKERS = 80
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TICK_DIGITS = 4


def power_of_ten(exponent: int) -> str:
    """10 with its exponent raised."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """y against x, with gaps where y is not finite.

    x, y : arrays of the same shape (n,), n >= 1; positive on a log axis
    x_label, y_label : what stands on the axes
    description : what a reader who does not see the chart is told
    chosen : index of the point that is marked, with ``chosen_text`` beside it
    shade_to : x up to which the area is shaded, with ``shade_text`` in it
    y_limits : of the axis, by default those of the values
    """

    x: FloatArray
    y: FloatArray
    x_label: str
    y_label: str
    description: str
    x_log: bool = True
    y_log: bool = False
    chosen: int | None = None
    chosen_text: str = ""
    shade_to: float | None = None
    shade_text: str = ""
    y_limits: tuple[float, float] | None = None
    point_text: Callable[[int], str] = field(default=lambda index: "")

    def svg(self) -> Markup:
        """The chart as one ``<svg>``."""
        to_x = _Axis.of(self.x, log=self.x_log, start=LEFT, end=WIDTH - RIGHT)
        known = self.y[np.isfinite(self.y)] if self.y_limits is None else np.asarray(self.y_limits)
        to_y = _Axis.of(known, log=self.y_log, start=HEIGHT - BOTTOM, end=TOP, margin=0.08)
        parts = [
            self._shade(to_x),
            _grid(to_x, to_y),
            *_labels(self.x_label, self.y_label),
            self._line(to_x, to_y),
            self._choice(to_x, to_y),
        ]
        top = 0.0 if self.shade_to is not None else _NOTE if self.chosen is not None else _CHOICE
        return element(
            "svg",
            *parts,
            viewBox=f"0 {top:g} {WIDTH:g} {HEIGHT - top:g}",
            role="img",
            aria_label=self.description,
            class_="chart",
        )

    def _shade(self, to_x: _Axis) -> Markup | None:
        if self.shade_to is None:
            return None
        right = min(max(to_x(self.shade_to), LEFT), WIDTH - RIGHT)
        area = element("rect", x=LEFT, y=TOP, width=f"{right - LEFT:.1f}", height=HEIGHT - TOP - BOTTOM, class_="shade")
        return join(area, element("text", f"shaded: {self.shade_text}", x=LEFT, y=_NOTE, class_="note"))

    def _line(self, to_x: _Axis, to_y: _Axis) -> Markup:
        runs: list[list[str]] = [[]]
        markers = []
        for index, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
            if not math.isfinite(y):
                runs.append([])
                continue
            at = (f"{to_x(x):.1f}", f"{to_y(y):.1f}")
            runs[-1].append(",".join(at))
            if len(self.x) <= _MAX_MARKERS:
                kind = "point hollow" if self.shade_to is not None and x <= self.shade_to else "point"
                tip = element("title", self.point_text(index)) if self.point_text(index) else None
                markers.append(element("circle", tip, cx=at[0], cy=at[1], r=2.6, class_=kind))
        lines = [element("polyline", points=" ".join(run), class_="line") for run in runs if len(run) > 1]
        return join(*lines, *markers)

    def _choice(self, to_x: _Axis, to_y: _Axis) -> Markup | None:
        if self.chosen is None or not math.isfinite(self.y[self.chosen]):
            return None
        x, y = to_x(float(self.x[self.chosen])), to_y(float(self.y[self.chosen]))
        left_half = x < (LEFT + WIDTH - RIGHT) / 2
        text = element(
            "text",
            self.chosen_text,
            x=f"{x + 7 if left_half else x - 7:.1f}",
            y=_CHOICE,
            class_="choice" if left_half else "choice end",
        )
        rule = element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=_CHOICE - 8, y2=HEIGHT - BOTTOM, class_="rule")
        return join(rule, element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4.5, class_="chosen"), text)


@dataclass(frozen=True)
class Curve:
    """One of several; a single point is something that is there from then on, drawn with a line to its right."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Up to three curves on one pair of axes, with their names above; x is positive, on a log axis."""

    curves: tuple[Curve, ...]
    x_label: str
    y_label: str
    description: str

    def svg(self) -> Markup:
        """The chart as one ``<svg>``."""
        x, y = (np.concatenate([np.asarray(getattr(curve, name), float) for curve in self.curves]) for name in "xy")
        to_x = _Axis.of(x[x > 0.0], log=True, start=LEFT, end=WIDTH - RIGHT)
        to_y = _Axis.of(y[np.isfinite(y)], log=False, start=HEIGHT - BOTTOM, end=TOP, margin=0.08)
        drawn = (self._draw(index, curve, to_x, to_y) for index, curve in enumerate(self.curves))
        parts = [_grid(to_x, to_y), *_labels(self.x_label, self.y_label), *drawn]
        said = f"{self.description}: {', '.join(curve.name for curve in self.curves)}"
        return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=said, class_="chart")

    def _draw(self, index: int, curve: Curve, to_x: _Axis, to_y: _Axis) -> Markup:
        pairs = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if x > 0.0 and math.isfinite(y)]
        points = [(f"{to_x(x):.1f}", f"{to_y(y):.1f}") for x, y in pairs]
        drawn = [(*points[-1:], (f"{WIDTH - RIGHT:g}", points[-1][1]))] if len(points) == 1 else [points]
        lines = [element("polyline", points=" ".join(map(",".join, line)), class_="line") for line in drawn if line]
        marked = points if len(points) <= _MAX_MARKERS else points[-1:]
        dots = (
            element(
                "circle",
                element("title", f"{curve.name}: {y:.4g} at {x:.3g}"),
                cx=at[0],
                cy=at[1],
                r=2.6,
                class_="point",
            )
            for at, (x, y) in zip(marked, pairs[-len(marked) :], strict=True)
        )
        left = LEFT + index * (WIDTH - LEFT - RIGHT) / 3
        key = element("line", x1=left, x2=left + 14, y1=_NOTE, y2=_NOTE, class_="line")
        name = element("text", curve.name, x=left + 18, y=_NOTE + 3.5, class_="tick")
        return element("g", *lines, *dots, key, name, class_=f"curve-{index}")


def race_charts(
    methods: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]], title: str
) -> tuple[tuple[str, Markup], ...]:
    """(caption, chart) of the loss and of the accuracy of methods, name -> (seconds, loss, accuracy), against time."""
    kinds = (("loss per training sample", 1, 1.0), ("validation accuracy (%)", 2, 100.0))
    return tuple(
        (
            f"{label[0].upper()}{label[1:]} against seconds",
            Curves(
                curves=tuple(
                    Curve(name, of[0], [scale * value for value in of[index]]) for name, of in methods.items()
                ),
                x_label="seconds",
                y_label=label,
                description=f"{title}: {label} against seconds",
            ).svg(),
        )
        for label, index, scale in kinds
    )


@dataclass(frozen=True)
class _Axis:
    """Values to pixels, and the values that get a tick."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def of(cls, values: FloatArray, *, log: bool, start: float, end: float, margin: float = 0.03) -> _Axis:
        """An axis on which all ``values`` lie, with a margin (a fraction of its length) at both ends."""
        scaled = np.log10(values) if log else values
        low, high = (float(scaled.min()), float(scaled.max())) if scaled.size else (0.0, 1.0)
        if high - low < 1e-12 * max(abs(high), 1.0):
            low, high = low - 0.5, high + 0.5
        pad = margin * (high - low)
        return cls(low - pad, high + pad, log, start, end)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        scaled = math.log10(value) if self.log else value
        return self.start + (scaled - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """(pixel, text) of at most seven round values."""
        step = _round_step((self.high - self.low) / _MAX_TICKS)
        if self.log:
            step = max(1.0, math.ceil(step))
        at = np.arange(math.ceil(self.low / step), math.floor(self.high / step) + 1) * step
        if self.log and at.size < 2:
            return self._within_decades()
        scale = (self.end - self.start) / (self.high - self.low)
        texts = [power_of_ten(round(t)) if self.log else f"{t:.{_TICK_DIGITS}g}" for t in at]
        return [(self.start + (t - self.low) * scale, text) for t, text in zip(at, texts, strict=True)]

    def _within_decades(self) -> list[tuple[float, str]]:
        """Ticks where less than two powers of ten lie on the axis: 1, 2 and 5 times them, or its ends."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        at = [t for e in decades for t in (e, e + math.log10(2.0), e + math.log10(5.0)) if self.low <= t <= self.high]
        ends = (self.low, self.high)
        scale = (self.end - self.start) / (self.high - self.low)
        return [(self.start + (t - self.low) * scale, f"{10**t:.2g}") for t in (at if len(at) > 1 else ends)]


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= least), 10.0 * power)


def _labels(x_label: str, y_label: str) -> tuple[Markup, Markup]:
    """What stands on the axes."""
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return (
        element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="label middle"),
        element("text", y_label, transform=f"translate(12 {middle}) rotate(-90)", class_="label middle"),
    )


def _grid(to_x: _Axis, to_y: _Axis) -> Markup:
    """Lines and texts of the ticks, and the two axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for x, text in to_x.ticks():
        parts.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=TOP, y2=bottom, class_="grid"))
        parts.append(element("text", text, x=f"{x:.1f}", y=bottom + 15, class_="tick middle"))
    for y, text in to_y.ticks():
        parts.append(element("line", x1=LEFT, x2=right, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid"))
        parts.append(element("text", text, x=LEFT - 5, y=f"{y + 3.5:.1f}", class_="tick end"))
    return join(*parts, element("path", d=f"M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}", class_="axis"))
