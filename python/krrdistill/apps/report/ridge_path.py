"""Accuracy along the ridge path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from krrdistill.apps.report.canvas import ACCENT, DPI, FONT, INK, LINE, MUTED, new_figure, plain_number, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.4, 3.8  # inches


def lambda_path_figure(
    lambdas: npt.ArrayLike,
    val_accuracy: npt.ArrayLike,
    *,
    best: int,
    below_noise_floor: npt.ArrayLike,
    noise_floor: float,
    title: str | None = None,
    score: str = "accuracy",
) -> Figure:
    """Validation accuracy, or another ``score``, against lambda: the choice marked, the noise floor shaded.

    Parameters
    ----------
    lambdas : array of shape (L,), positive
    val_accuracy : array of shape (L,), fractions; NaN, drawn as a gap, where no factorisation existed
    best : int, index of the chosen lambda
    below_noise_floor : bool array of shape (L,); these points are drawn hollow
    noise_floor : float, the lambda under which rounding of the statistics decides the result; 0 for none

    Raises
    ------
    ValueError
        When the lengths differ, a lambda is not positive, or ``best`` is not one of the points.
    """
    lam = np.asarray(lambdas, dtype=np.float64)
    acc = 100.0 * np.asarray(val_accuracy, dtype=np.float64)
    below = np.asarray(below_noise_floor, dtype=bool)
    if lam.ndim != 1 or not len(lam) or acc.shape != lam.shape or below.shape != lam.shape:
        raise ValueError(
            "lambda_path_figure: lambdas, val_accuracy and below_noise_floor must have one length, "
            f"got shapes {lam.shape}, {acc.shape} and {below.shape}"
        )
    if not np.all(lam > 0):
        raise ValueError(f"lambda_path_figure: lambdas must be positive, got {lam.min():g}")
    if not 0 <= best < len(lam):
        raise ValueError(f"lambda_path_figure: best must be in [0, {len(lam)}), got {best}")
    order = np.argsort(lam, kind="stable")
    fig = new_figure(WIDTH, HEIGHT)
    axes = fig.add_axes((0.105, 0.145, 0.87, 0.76 if title else 0.82))
    _style_path_axes(axes, lam, score)
    axes.plot(lam[order], acc[order], color=LINE, linewidth=1.3, zorder=2)
    axes.plot(lam[~below], acc[~below], "o", color=LINE, markersize=4, zorder=3)
    axes.plot(lam[below], acc[below], "o", color=LINE, markerfacecolor="white", markersize=4, zorder=3)
    if below.any():
        _mark_noise_floor(axes, lam[below].max(), lam[~below].min(initial=np.inf), noise_floor)
    _mark_choice(axes, float(lam[best]), float(acc[best]))
    if title:
        write_text(fig, 0.54 * WIDTH * DPI, 0.048 * HEIGHT * DPI, title, size=10)
    return fig


def _style_path_axes(axes: Axes, lam: npt.NDArray[np.float64], score: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    margin = 2.0 if lam.max() >= 10 * lam.min() else 10.0  # at least one labelled decade
    axes.set_xlim(lam.min() / margin, lam.max() * margin)
    axes.set_xlabel("\N{GREEK SMALL LETTER LAMDA}", fontsize=10, fontfamily=FONT, color=INK)
    axes.set_ylabel(f"validation {score} (%)", fontsize=9, fontfamily=FONT, color=INK)
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK, labelfontfamily=FONT)
    axes.grid(True, which="major", color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=MUTED, linewidth=0.8)


def _mark_noise_floor(axes: Axes, last_below: float, first_above: float, noise_floor: float) -> None:
    """Shade up to the floor, kept between the last point below it and the first one above."""
    left, right = axes.get_xlim()
    edge = min(max(noise_floor, last_below), first_above, right)
    axes.axvspan(left, edge, facecolor="#d9d9d9", alpha=0.5, linewidth=0, zorder=1)
    axes.text(
        left * 1.15,
        0.03,
        f"below the noise floor of G ({plain_number(noise_floor)})",
        transform=axes.get_xaxis_transform(),
        fontsize=8,
        fontfamily=FONT,
        color=MUTED,
    )


def _mark_choice(axes: Axes, lam: float, acc: float) -> None:
    """A vertical line and a ring at the chosen lambda, with its value written on the roomier side."""
    axes.axvline(lam, color=ACCENT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    if not np.isfinite(acc):
        return
    axes.plot([lam], [acc], "o", color=ACCENT, markersize=7, zorder=4)
    left, right = np.log10(axes.get_xlim())
    on_right = np.log10(lam) < 0.5 * (left + right)
    axes.annotate(
        f"\N{GREEK SMALL LETTER LAMDA} = {plain_number(lam)}: {acc:.2f} %",
        (lam, acc),
        xytext=(9 if on_right else -9, 7),
        textcoords="offset points",
        ha="left" if on_right else "right",
        fontsize=9,
        fontfamily=FONT,
        color=ACCENT,
        zorder=5,
    )
    axes.margins(y=0.12)
