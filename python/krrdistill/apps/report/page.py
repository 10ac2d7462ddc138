"""The page of a run: one HTML file that loads nothing from elsewhere, and works without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from krrdistill.apps.report.axes import LAMBDA
from krrdistill.apps.report.charts import lambda_path_figure, line_figure, race_charts
from krrdistill.apps.report.matrices import labels, predictions, target_rows, vectors, weights
from krrdistill.apps.report.pictures import Pictured, gallery
from krrdistill.apps.report.render import render
from krrdistill.apps.report.run_folder import DISTILLED, PAGE, PathData, RunFolder, read_run
from krrdistill.apps.report.svg import to_svg
from krrdistill.apps.text import number, percent, shown_device
from krrdistill.artifact.making import remedy_for
from krrdistill.artifact.record import CRITERIA, Criterion, ErrorCurve, KipRecord
from krrdistill.common.files import write_atomically
from krrdistill.common.options import as_word
from krrdistill.construct.points import METHODS

__all__ = ["run_page", "score_chart", "score_figure", "write_page"]

Rows = list[tuple[str, ...]]
_LEAST = 1e-17  # where the axis of errors ends: an error of 0 is below the rounding of float64
_OPTIONS = {
    "preprocessing": "preprocessing",
    "lambda_s": f"{LAMBDA}_S asked for",
    "realism": "realism, from noise (0) to real samples (1)",
    "root": "root of Theorem 4.1",
    "scale_labels": "labels may be scaled",
    "refit": "refit on all data",
    "validation_fraction": "held out for validation",
}
_OF_SPLIT = ("refit", "validation_fraction")  # of a run that had the data
_KIP_OPTIONS = {
    "variant": "variant of KIP",
    "iterations": "iterations asked for",
    "lr": "learning rate",
    "batch_size": "samples per step",
    "warm_start": "started at the closed form",
    "time_budget": "seconds of steps at most",
}


def write_page(folder: Path) -> Path:
    """Writes ``folder``/report.html from what the folder holds; the same folder gives the same bytes.

    Raises DataError for a folder that is not that of a run, OSError when it cannot be written.
    """
    page = run_page(read_run(folder))
    write_atomically(folder / PAGE, lambda stream: stream.write(page))
    return folder / PAGE


def run_page(run: RunFolder) -> bytes:
    """The page of one run."""
    record = run.record
    kip = record if isinstance(record, KipRecord) else None
    audit = run.privacy
    conditions = () if audit is None else audit.theorem.conditions
    remedy = _remedy(run)
    picture_like = Pictured.of(run.images, record.k, "report: distilled_data", record.ipc).is_image
    return render(
        "run.html",
        run=run,
        record=record,
        kip=kip,
        race=() if kip is None else _race(run, kip),
        kip_rows=() if kip is None else _kip_rows(kip),
        remedy=remedy,
        warnings=[warning for warning in record.warnings if remedy is None or remedy not in warning],
        gallery=gallery(
            run.images,
            run.class_names,
            start=run.start_images,
            value_range=record.value_range,
            points_per_class=record.ipc,
        )
        if picture_like
        else None,
        vectors=None if picture_like else vectors(run),
        labels=labels(run),
        predictions=predictions(run),
        target_rows=target_rows(run),
        weights=weights(run),
        near_best=_near_best(run),
        lines=_lines(run),
        certificate_rows=_certificate_rows(run),
        label_errors=None if record.labels_only is None else _label_errors(record.labels_only, record.p),
        path_charts=[
            *([] if record.criterion == "request" else [(record.chosen_by.title, score_chart(run, "path-score"))]),
            ("Training error", _rmse_chart(run)),
        ],
        path_rows=_path_rows(run),
        spectrum=_spectrum(run) if run.singular_values.size else None,
        assumptions=[(c.name, "holds" if c.holds else "VIOLATED", c.statement) for c in conditions],
        asked=_asked(run),
        surroundings=[*_dictionary(run.meta, "versions").items(), *(record.machine or {}).items()],
    )


def score_figure(
    path: PathData,
    criterion: Criterion,
    *,
    n_validation: int = 0,
    title: str | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Figure:
    """What lambda was chosen by against lambda; accuracies with their standard error on ``n_validation`` samples."""
    error = _standard_error(path.score, n_validation) if criterion is CRITERIA["accuracy"] and n_validation else None
    return lambda_path_figure(
        path.lambdas,
        criterion.shown(path.score),
        label=criterion.label,
        unit=" %" if criterion.percent else "",
        best=path.best,
        below_noise_floor=path.below_noise_floor,
        noise_floor=path.noise_floor,
        error=None if error is None else criterion.shown(error),
        title=title,
        y_limits=y_limits,
    )


def score_chart(run: RunFolder, name: str, *, y_limits: tuple[float, float] | None = None) -> Markup:
    """``score_figure`` for a page, on which no other chart has this name."""
    criterion = run.record.chosen_by
    figure = score_figure(run.path, criterion, n_validation=run.record.n_val, y_limits=y_limits)
    return to_svg(figure, name, _described(run, criterion.label, criterion.shown(run.path.score)))


def _standard_error(accuracy: Any, n: int) -> Any:
    """sqrt(a (1 - a) / n) of accuracies on n samples."""
    return np.sqrt(np.clip(accuracy * (1.0 - accuracy), 0.0, None) / n)


def _near_best(run: RunFolder) -> tuple[float, int] | None:
    """The standard error of the chosen accuracy, and of how many lambdas the accuracy is within one of it."""
    path, n = run.path, run.record.n_val
    if run.record.criterion != "accuracy" or not n or not np.isfinite(path.score[path.best]):
        return None
    error = float(_standard_error(path.score[path.best], n))
    return error, int(np.count_nonzero(path.score >= path.score[path.best] - error))


def _remedy(run: RunFolder) -> str | None:
    """Why a set is not exact and what makes it so; None of one that is, and of KIP, which does not claim it."""
    record = run.record
    if record.exact or record.solution is None or record.solution.method not in METHODS:
        return None
    return remedy_for(record.solution.method, len(run.meta["map"].get("layers", ())))


def _lines(run: RunFolder) -> str:
    """Python that loads the file of the run."""
    shape = ", ".join(map(str, ("n", *run.images.shape[1:])))
    given = ", feature_map=phi" if run.meta["map"].get("kernel") == "user" else ""
    comment = "  # phi: the map that it was made with" if given else ""
    return (
        "import krrdistill as kd\n\n"
        f'distilled = kd.DistilledDataset.load("{DISTILLED}"{given}){comment}\n'
        f"X, Y = distilled.X, distilled.Y  # {run.record.m} samples and their labels\n"
        "W, b = distilled.fit_weights()  # the model, retrained from them\n"
        f"predicted = distilled.predict(samples)  # of raw samples ({shape})\n"
    )


def _rmse_chart(run: RunFolder) -> Markup:
    path, label = run.path, "training RMSE"
    figure = lambda_path_figure(
        path.lambdas,
        path.train_rmse,
        label=label,
        best=path.best,
        below_noise_floor=path.below_noise_floor,
        noise_floor=path.noise_floor,
    )
    return to_svg(figure, "path-rmse", _described(run, label, path.train_rmse))


def _described(run: RunFolder, label: str, values: Any) -> str:
    """A chart along the lambda path, in words."""
    lam, best = run.path.lambdas, run.path.best
    return (
        f"Line chart: {label}, {LAMBDA} from {lam.min():.3g} to {lam.max():.3g}; "
        f"chosen: {values[best]:.4g} at {LAMBDA} = {lam[best]:.3g}"
    )


def _spectrum(run: RunFolder) -> Markup:
    values = run.singular_values
    index = np.arange(1, values.size + 1)
    figure = line_figure(index, values, x_label="index", y_label="singular value", x_log=False, y_log=True)
    description = f"Line chart of {values.size} singular values, from {values[0]:.3g} down to {values[-1]:.3g}"
    return to_svg(figure, "spectrum", description)


def _label_errors(curve: ErrorCurve, p: int) -> Markup:
    """How the error of learned labels falls with the number of points."""
    m, known = curve.m, [np.nan if error is None else error for error in curve.weight_relative_error]
    errors = np.maximum(known, _LEAST)
    label = f"points m, of p = {p} features"
    figure = line_figure(m, errors, x_label=label, y_label="relative weight error", x_log=True, y_log=True)
    description = (
        f"Line chart of the error of learned labels, from {errors[0]:.3g} with {m[0]} points to "
        f"{errors[-1]:.3g} with {m[-1]}"
    )
    return to_svg(figure, "label-errors", description)


def _race(run: RunFolder, record: KipRecord) -> tuple[tuple[str, Markup], ...]:
    """KIP's loss and accuracy against time, on one axis with what ``distill`` makes of the same model."""
    ours, curve = record.closed_form, run.curve or {}
    point = None if ours is None else (ours.seconds, ours.train_loss, ours.val_accuracy)
    methods: dict[str, Any] = {}
    if point is not None and None not in point:
        methods["closed form"] = tuple([value] for value in point)
    at = record.setup_seconds + curve["seconds"]
    methods[f"KIP, {record.variant}"] = (at, curve["train_loss"], curve["val_accuracy"])
    return race_charts(methods, record.title, "race")


def _kip_rows(record: KipRecord) -> Rows:
    """Both ends of a run of KIP, and the closed form."""
    rows: Rows = [
        (
            name,
            str(end.iteration),
            number(end.train_loss),
            percent(end.val_accuracy),
            percent(end.test_accuracy),
        )
        for name, end in (("KIP, best", record.best), ("KIP, last", record.last))
    ]
    ours = record.closed_form
    if ours is not None:
        accuracy = percent(record.original.test_accuracy)
        rows.append(("closed form", "none", number(ours.train_loss), percent(ours.val_accuracy), accuracy))
    return rows


def _certificate_rows(run: RunFolder) -> Rows:
    record, numbers = run.record, run.record.certificate
    original, distilled = record.original, record.distilled
    rows: Rows = [
        ("test accuracy", percent(original.test_accuracy), percent(distilled.test_accuracy)),
        (f"{LAMBDA}, absolute", number(record.lambda_), number(record.lambda_s)),
        ("relative weight error", "", number(numbers.weight_relative_error)),
        ("cosine of the weights", "", number(numbers.weight_cosine, digits=10)),
        ("predictions that agree", "", percent(numbers.prediction_agreement)),
        ("condition number of the distilled features", "", number(numbers.condition)),
    ]
    if not record.n_test:
        return rows[1:4] + rows[5:]
    if original.test_accuracy is None:  # of real values
        rows = rows[1:]
    if original.mean_r2 is not None:
        name = "R\N{SUPERSCRIPT TWO} on the test set, mean over targets"
        rows.insert(0, (name, percent(original.mean_r2), percent(distilled.mean_r2)))
    return rows


def _path_rows(run: RunFolder) -> Rows:
    path, shown = run.path, percent if run.record.chosen_by.percent else number
    return [
        (
            number(lam) + (" (chosen)" if index == path.best else ""),
            shown(_finite(score)),
            number(_finite(rmse)),
            "under the noise floor" if below else "",
        )
        for index, (lam, score, rmse, below) in enumerate(
            zip(
                path.lambdas.tolist(),
                path.score.tolist(),
                path.train_rmse.tolist(),
                path.below_noise_floor.tolist(),
                strict=True,
            )
        )
    ]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _asked(run: RunFolder) -> Rows:
    """The options of a run, from its record and from the file."""
    record, meta = run.record, run.meta
    pairs: Rows = [
        ("data set", record.dataset) if record.statistics is None else ("statistics", record.statistics),
        ("kernel", record.kernel),
        ("samples per class", as_word(record.ipc).replace(",", ", ")),
        ("init", record.init),
        ("samples: train, validation, test", f"{record.n_train}, {record.n_val}, {record.n_test}"),
        ("input size d", str(record.d)),
        ("features p", str(record.p)),
        ("classes k", str(record.k)),
        ("storage", record.store),
        ("precision", record.precision),
        ("backend", record.backend),
        *((("steps on", shown_device(record.device)),) if isinstance(record, KipRecord) and record.device else ()),
        ("seed", str(record.seed)),
    ]
    options = {**_dictionary(meta, "options"), "preprocessing": _dictionary(meta, "preprocessing").get("kind")}
    for given, texts in ((_dictionary(meta, "kip"), _KIP_OPTIONS), (options, _OPTIONS)):
        shown = [
            name for name in texts if given.get(name) is not None and (name not in _OF_SPLIT or meta.get("split", True))
        ]
        pairs += [(texts[name], _plain(given[name])) for name in shown]
    if record.range_scale != 1.0:
        pairs.append(("features scaled to the range of the map by", number(record.range_scale)))
    return pairs


def _plain(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else number(value)


def _dictionary(meta: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = meta.get(key)
    return value if isinstance(value, dict) else {}
