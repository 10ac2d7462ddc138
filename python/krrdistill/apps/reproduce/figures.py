"""The published figures drawn again, and what the nearest exact sets look like beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy.typing as npt
from markupsafe import Markup

from krrdistill.apps.info import machine
from krrdistill.apps.report.pictures import data_uri
from krrdistill.apps.report.rows import Panel, PictureRow, drawn, rows_figure, to_file
from krrdistill.apps.reproduce.case import Case
from krrdistill.apps.reproduce.facts import command_for, common_section, range_of, seconds_text
from krrdistill.apps.reproduce.published import FIGURE2, SOURCE
from krrdistill.apps.reproduce.sections import Publication, Section
from krrdistill.apps.reproduce.selection import FigureOptions
from krrdistill.apps.reproduce.table3 import WEIGHT_ERROR
from krrdistill.apps.roofline import search_notice
from krrdistill.apps.text import number, percent, plain_number
from krrdistill.artifact.making import versions
from krrdistill.backends import get_backend
from krrdistill.common.options import as_words
from krrdistill.common.progress import Progress
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset, load_dataset

__all__ = ["FigureSet", "draw_figures", "figure_publication"]

Say = Callable[[str], None]
REALISM_POINTS = 10  # per class, as in docs/measured/realism.md
_SHOWN_NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits"}
_SHOWN_KERNELS = {"identity": "linear", "FCNN": "FCNN", "random_fourier": "random Fourier"}
_TITLES = {
    "one-per-class": "One distilled image per class, linear",
    "figure2": "Figure 2 of the paper",
    "realism": "Real images, published construction, nearest exact set",
}
_CAPTIONS = {
    "one-per-class": "Images that the published code draws first: one per class, from the linear model alone. No image "
    "of the data is in them: with one point per class and one-hot labels they are the pseudo-inverse of the weights.",
    "figure2": "Figure 2 of the paper, drawn again for a linear model, 500 points on MNIST and CIFAR-100. First row: "
    "images of the training set. Second row: the distilled images that start from them (Corollary 4.1.1). Third row: "
    "distilled images that start from Gaussian noise (Theorem 4.1). Trained on the second or on the third row, ridge "
    "regression gives the same model as trained on all data: how a set looks says nothing of how well it works.",
    "realism": "First row: images of the training set. Second row: the distilled images that the published "
    "construction makes of them (Corollary 4.1.1). Third row: the set nearest to the first row among all that retrain "
    "to the same model (--realism 1). The number under a name is the PSNR to the first row, over all images of the "
    "set and with nothing cut off: more is nearer, and 30 dB are hard to tell from the original.",
}


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of a figure: all samples that it shows the first of, and what is known of them, nothing of real ones."""

    label: str
    samples: npt.NDArray[Any]
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class _Part:
    """The rows of one data set in a figure."""

    case: Case
    points_per_class: int
    rows: tuple[_Row, ...]
    stretched: bool  # black and white are the extremes of each picture


@dataclass(frozen=True, eq=False)
class FigureSet:
    """All figures as one JSON-able object, and the files of their pictures by name."""

    document: Mapping[str, Any]
    files: Mapping[str, bytes]


def draw_figures(
    options: FigureOptions | None = None,
    *,
    folder: Path,
    data_dir: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> FigureSet:
    """Distils what the figures show and draws it.

    Parameters
    ----------
    options : FigureOptions, optional
    folder : Path
        Where distilled sets are written before they are read back and removed.
    data_dir : Path, optional
        Folder of the named data sets.
    download : bool
        Whether to download those that are missing.
    progress : callable, optional
        Called with (stage, fraction done).
    say : callable
        Called with a line for every finished part.

    Returns
    -------
    FigureSet

    Raises
    ------
    DataError
        When a data set is not at hand.
    """
    options = options or FigureOptions()
    get_backend(options.backend)  # raises where there is none of this name, or it does not work here
    parts: dict[str, list[_Part]] = {name: [] for name in options.only}
    with limited_threads(options.threads):
        for name in options.datasets:
            data = load_dataset(name, data_dir=data_dir, download=download)
            linear = _case(data, "identity", options, progress, published_zca=_in_colour(data))
            mapped = _case(data, options.kernel, options, progress, published_zca=False)
            if (mapped.kernel, mapped.use_zca) == (linear.kernel, linear.use_zca):
                mapped = linear  # one pass over the data serves both
            for figure, made in parts.items():
                made.append(_MADE_BY[figure](linear, mapped, options, folder, say))
                say(f"{figure}, {name}: done")
    finished = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    document = {
        "figures": [_described(name, found) for name, found in parts.items()],
        "asked": asdict(options),
        "command": command_for("figures", as_words(options, always=("datasets",)), data_dir),
        "machine": machine(options.threads),
        "versions": versions(),
        "finished": finished,
    }
    files: dict[str, bytes] = {}
    for name, found in parts.items():
        picture = rows_figure([_panel(part) for part in found])
        files |= {f"{name}.{kind}": to_file(picture, kind) for kind in ("png", "pdf")}
    return FigureSet(document, files)


def _case(
    data: Dataset, kernel: str, options: FigureOptions, progress: Progress | None, *, published_zca: bool
) -> Case:
    use_zca = published_zca if options.zca is None else options.zca
    return Case(data, kernel, options.seed, options.backend, options.threads, progress, use_zca=use_zca)


def _in_colour(data: Dataset) -> bool:
    return bool(data.x_train.ndim == 4)


def _stretches(options: FigureOptions, *, published: bool) -> bool:
    """What was asked for, or else what was ``published``."""
    return published if options.pixels is None else options.pixels == "stretch"


def _one_per_class(linear: Case, mapped: Case, options: FigureOptions, folder: Path, say: Say) -> _Part:
    row = _Row("from the\nmodel alone", *linear.samples(1, folder, noise="gaussian"))
    return _Part(linear, 1, (row,), _stretches(options, published=not _in_colour(linear.data)))


def _figure2(linear: Case, mapped: Case, options: FigureOptions, folder: Path, say: Say) -> _Part:
    ipc = FIGURE2[linear.data.name]
    rows = (
        _Row("real images", linear.real(ipc)),
        _Row("distilled,\nfrom real", *linear.samples(ipc, folder, init="real")),
        _Row("distilled,\nfrom noise", *linear.samples(ipc, folder, noise="gaussian")),
    )
    return _Part(linear, ipc, rows, _stretches(options, published=not _in_colour(linear.data)))


def _realism(linear: Case, mapped: Case, options: FigureOptions, folder: Path, say: Say) -> _Part:
    ipc, limit = REALISM_POINTS, options.max_seconds
    say(f"note: {search_notice(mapped.map, limit)}")
    rows = (
        _Row("real images", mapped.real(ipc)),
        _Row("published\nconstruction", *mapped.samples(ipc, folder, init="real")),
        _Row("nearest\nexact set", *mapped.samples(ipc, folder, realism=1.0, max_seconds=limit)),
    )
    return _Part(mapped, ipc, rows, _stretches(options, published=False))


_MADE_BY = {"one-per-class": _one_per_class, "figure2": _figure2, "realism": _realism}


def _panel(part: _Part) -> Panel:
    """What of a part is drawn."""
    data, limits = part.case.data, part.case.limits
    k = data.n_classes
    rows = tuple(
        PictureRow(row.label, _note(row), drawn(row.samples, k, limits, stretch=part.stretched)) for row in part.rows
    )
    return Panel(_panel_title(part), data.class_names, rows)


def _panel_title(part: _Part) -> str:
    facts = [row.facts for row in part.rows if row.facts is not None]
    name, kernel = _SHOWN_NAMES[part.case.data.name], _SHOWN_KERNELS[part.case.kernel]
    retrained = ", ".join(dict.fromkeys(percent(row["distilled_accuracy"]) for row in facts))
    original = percent(facts[0]["original_accuracy"])
    return f"{name}, {kernel}, {part.points_per_class} per class: original {original}, retrained {retrained}"


def _note(row: _Row) -> str:
    psnr = None if row.facts is None else row.facts["psnr"]
    return "" if psnr is None else f"{_decibels(psnr)}"


def _decibels(psnr: float) -> str:
    return f"{psnr:.1f} dB".replace("-", "\N{MINUS SIGN}")


def _described(name: str, parts: Sequence[_Part]) -> dict[str, Any]:
    """All of a figure but its pixels."""
    found = [
        {
            "dataset": part.case.data.name,
            "kernel": part.case.kernel,
            "zca": part.case.use_zca,
            "pixels": "stretch" if part.stretched else "clip",
            "value_range": list(part.case.limits),
            "points_per_class": part.points_per_class,
            "rows": [{"label": " ".join(row.label.split()), **(row.facts or {})} for row in part.rows],
        }
        for part in parts
    ]
    return {"name": name, "title": _TITLES[name], "caption": _CAPTIONS[name], "parts": found}


def figure_publication(figures: FigureSet) -> Publication:
    """The page of all figures: what one sees, how it was drawn, and what was measured."""
    document = figures.document
    sets = [row for figure in document["figures"] for part in figure["parts"] for row in _distilled(part)]
    exact = sum(map(_is_exact, sets))
    return Publication(
        title="The figures of the paper, drawn again",
        passed=exact == len(sets) > 0,
        verdict=f"{exact} of {len(sets)} distilled sets retrain to the original model.",
        sections=(
            *(_section(figure, figures.files[f"{figure['name']}.png"]) for figure in document["figures"]),
            common_section({**document, "cells": [document]}, [f"The paper: {SOURCE}."]),
        ),
    )


def _distilled(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a part that are not of real images."""
    return [row for row in part["rows"] if "weight_relative_error" in row]


def _is_exact(row: Mapping[str, Any]) -> bool:
    return bool(
        row["weight_relative_error"] <= WEIGHT_ERROR
        and row["prediction_agreement"] == 1.0
        and row["original_accuracy"] == row["distilled_accuracy"]
    )


def _section(figure: Mapping[str, Any], png: bytes) -> Section:
    image = Markup('<img src="{}" alt="{}">').format(data_uri("png", png), figure["caption"])
    head = (
        "data set", "map", "ZCA", "per class", "row", "PSNR", "out of range", "values", "weight error",
        "predictions that agree", "seconds",
    )  # fmt: skip
    rows = tuple(_line(part, row) for part in figure["parts"] for row in _distilled(part))
    text = (figure["caption"], *map(_how_drawn, figure["parts"]))
    name = figure["name"]
    return Section(name=name, title=figure["title"], text=text, head=head, rows=rows, charts=((f"{name}.png", image),))


def _line(part: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        part["dataset"],
        part["kernel"],
        "on" if part["zca"] else "off",
        str(part["points_per_class"]),
        row["label"] + (" (stopped at --max-seconds)" if row["stopped"] == "seconds" else ""),
        "–" if row["psnr"] is None else _decibels(row["psnr"]),
        percent(row["out_of_range"]),
        f"{plain_number(row['lowest'])} … {plain_number(row['highest'])}",
        number(row["weight_relative_error"], digits=2),
        percent(row["prediction_agreement"]),
        seconds_text(row["seconds"]),
    )


def _how_drawn(part: Mapping[str, Any]) -> str:
    """How the pictures of a data set are made and drawn, and what that hides."""
    name = _SHOWN_NAMES[part["dataset"]]
    low, high = map(plain_number, part["value_range"])
    shares = [100.0 * row["out_of_range"] for row in _distilled(part)]
    beyond = f"{range_of(shares)} % of the pixels of a distilled set are outside of {low} to {high}"
    drawn_as = (
        f"black is {low} and white is {high}; {beyond}, and are drawn as black or white, so that how far they are "
        "outside is not seen"
        if part["pixels"] == "clip"
        else "every picture is stretched from its own smallest to its own largest value, so that grey levels of two "
        f"pictures do not compare; {beyond}"
    )
    whitened = (
        "ZCA whitening is on, and undone in the pictures" if part["zca"] else "standardised, ZCA whitening is off"
    )
    return f"{name}: {whitened}; {drawn_as}."
