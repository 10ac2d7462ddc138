"""What a page draws as matrices: labels, weights, samples that are no images, and what was predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from krrdistill.apps.report.charts import heat_figure, scatter_figure
from krrdistill.apps.report.pictures import Pictured, signed_pictures
from krrdistill.apps.report.run_folder import RunFolder, WeightsData
from krrdistill.apps.report.svg import to_svg
from krrdistill.apps.text import number, percent, plain_number
from krrdistill.construct.labels import rounds_and_classes

__all__ = ["Matrices", "Predictions", "WeightPictures", "labels", "predictions", "target_rows", "vectors", "weights"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Charts = tuple[tuple[str, Markup], ...]
_MOST_ROWS = 200  # of a matrix with a row for each sample
_MOST_COLUMNS = 512
_MOST_CLASSES = 500  # of a matrix or table with a row for each class
_PICTURED_CLASSES = 10  # whose weights are drawn as images
_MOST_NAMED_COLUMNS = 25
_MOST_NAMED = 60  # points of a plane that have their names beside them


@dataclass(frozen=True)
class Matrices:
    """Charts with captions, and what is left out of them."""

    charts: Charts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """What both models predict on the test set.

    rows : of each class its name, its number of samples, and the accuracy of both models on them
    """

    total: int
    differing: int
    rows: tuple[tuple[str, ...], ...]
    summary: str
    charts: Charts


@dataclass(frozen=True)
class WeightPictures:
    """Rows of W, W_S and W_S - W as images: (class, ((what, data URI, width, height), ...))."""

    classes: tuple[tuple[str, tuple[tuple[str, str, int, int], ...]], ...]
    scale: str


def labels(run: RunFolder) -> Matrices:
    """Y_S, a row for each distilled sample."""
    rows, notes = _rows_by_class(run)
    Y, names = run.points.Y[rows], run.class_names
    one_hot = np.array_equal(run.points.Y, np.eye(run.record.k)[rounds_and_classes(run.record.k, run.record.ipc)[1]])
    if run.record.targets == "classes":
        learned = (
            "one-hot: 1 for its own class" if one_hot else "learned: with one-hot labels the model would be another"
        )
        notes += (f"the labels of each sample are {learned}",)
    columns = min(Y.shape[1], _MOST_COLUMNS)
    if columns < Y.shape[1]:
        notes += (f"the first {columns} of {Y.shape[1]} columns are drawn",)
    figure = heat_figure(
        Y[:, :columns],
        x_label="class" if run.record.targets == "classes" else "target",
        y_label=_sample_of(run),
        x_names=names[:columns] if columns <= _MOST_NAMED_COLUMNS else None,
        y_names=_row_names(run, rows),
    )
    description = (
        f"Heat map of the labels of {len(Y)} distilled samples, from {plain_number(Y.min())} to {plain_number(Y.max())}"
    )
    return Matrices((("", to_svg(figure, "labels", description)),), notes)


def predictions(run: RunFolder) -> Predictions | None:
    """Accuracy for each class, confusion of the original, and which predictions differ; None where none are known."""
    if run.outcomes is None:
        return None
    names, k = run.class_names, run.record.k
    truth, original, distilled, counts = run.outcomes.T
    samples = _summed(truth, counts, k)
    right = [_summed(truth, counts * (predicted == truth), k) for predicted in (original, distilled)]
    accuracies = [np.divide(hits, samples, out=np.full(k, np.nan), where=samples > 0) for hits in right]
    rows = tuple(
        (name, str(count), *(percent(float(of[index]) if count else None) for of in accuracies))
        for index, (name, count) in enumerate(zip(names[:_MOST_CLASSES], samples.tolist(), strict=False))
    )
    differs = original != distilled
    differing, total = int(counts[differs].sum()), int(counts.sum())
    worst, best = (int(choose(accuracies[0])) for choose in (np.nanargmin, np.nanargmax))
    lowest, highest = (percent(float(accuracies[0][index])) for index in (worst, best))
    range_ = f"{lowest} of class {names[worst]} (lowest) to {highest} of class {names[best]} (highest)"
    summary = f"The original model is right on {f'{lowest} of every class' if lowest == highest else range_}."
    charts: Charts = ()
    if k <= _MOST_CLASSES:
        confusion = _summed(truth * k + original, counts, k * k).reshape(k, k)
        changed = _summed((original * k + distilled)[differs], counts[differs], k * k).reshape(k, k)
        x_names = names if k <= _MOST_NAMED_COLUMNS else None
        named: dict[str, Any] = {"x_names": x_names, "y_names": names, "counts": True}
        right_of = f"confusion matrix of {k} classes, {int(np.trace(confusion))} of {total} on its diagonal"
        charts = tuple(
            (caption, to_svg(heat_figure(matrix, x_label=x, y_label=y, **named), name, f"Heat map: {description}"))
            for name, matrix, x, y, description, caption in (
                ("confusion", confusion, "predicted", "true class", right_of, "Confusion matrix of the original model"),
                (
                    "changed",
                    changed,
                    "distilled predicts",
                    "original predicts",
                    f"{differing} of {total} predictions differ",
                    f"Predictions that differ: {differing} of {total}",
                ),
            )
        )
    return Predictions(total, differing, rows, summary, charts)


def target_rows(run: RunFolder) -> tuple[tuple[str, ...], ...]:
    """R^2, and of labels the accuracy, for each target of both models; empty for classes or without a test set."""
    scores = [score.test_per_target or {} for score in (run.record.original, run.record.distilled)]
    columns = [score[name] for name in ("r2", "accuracy") for score in scores if name in score]
    return tuple(
        (name, *map(percent, values))
        for name, *values in zip(run.class_names[:_MOST_CLASSES], *columns, strict=False)
        if values
    )


def weights(run: RunFolder) -> WeightPictures | Matrices | None:
    """W, W_S and their difference: images where a row of W weighs pixels, else heat maps; None where not known."""
    if run.weights is None:
        return None
    record = run.record
    weighs_inputs = record.p == record.d and not run.meta["map"].get("layers", [None])
    samples = Pictured.of(run.images, record.k, "report: distilled_data", record.ipc)
    return _weight_pictures(run, run.weights) if weighs_inputs and samples.is_image else _weight_maps(run, run.weights)


def vectors(run: RunFolder) -> Matrices:
    """Samples that are no images: the standardised features, a row for each sample, and their main plane."""
    rows, notes = _rows_by_class(run)
    preprocessing = run.points.preprocessing
    groups = [("distilled", np.asarray(run.points.inputs, dtype=np.float64))]
    if run.start_images is not None:
        start = run.start_images.reshape(len(run.start_images), -1)
        groups.insert(0, ("real start", preprocessing.standardise(start)))
    d = groups[0][1].shape[1]
    columns = min(d, _MOST_COLUMNS)
    if columns < d:
        notes += (f"the first {columns} of {d} features are drawn",)
    unit = "the units of the data" if preprocessing.kind == "none" else "standard deviations of the training data"
    names = _row_names(run, rows)
    charts = [
        (
            f"{name[0].upper()}{name[1:]}: samples (rows) by features (columns), in {unit}",
            to_svg(
                heat_figure(values[rows, :columns], x_label="feature", y_label=_sample_of(run), y_names=names),
                f"vectors-{index}",
                f"Heat map of the features of {len(rows)} samples: {name}",
            ),
        )
        for index, (name, values) in enumerate(groups)
    ]
    if d > 1 and len(groups[0][1]) > 2:
        charts.append(_plane(groups, run))
    return Matrices(tuple(charts), notes)


def _plane(groups: list[tuple[str, FloatArray]], run: RunFolder) -> tuple[str, Markup]:
    """All samples in the plane of their first two principal components."""
    together = np.concatenate([values for _, values in groups])
    mean = together.mean(axis=0)
    _, singular, axes = np.linalg.svd(together - mean, full_matrices=False)
    shares = singular**2 / max(float(np.sum(singular**2)), np.finfo(np.float64).tiny)
    points = [(name, (values - mean) @ axes[:2].T) for name, values in groups]
    m = run.record.m
    names = (_row_names(run, np.arange(m)) if m <= _MOST_NAMED else None) or [""] * m
    first, second = (f"principal component {index + 1} ({percent(float(shares[index]))})" for index in (0, 1))
    figure = scatter_figure(points, names, x_label=first, y_label=second)
    description = f"Scatter plot of {len(together)} samples in the plane of their first two principal components"
    return "The plane of their first two principal components", to_svg(figure, "plane", description)


def _weight_pictures(run: RunFolder, found: WeightsData) -> WeightPictures:
    count = min(len(found.original), _PICTURED_CLASSES)
    W, difference = found.original[:count], found.difference[:count]
    shape = run.images.shape[1:]
    limit, apart = (float(np.abs(each).max()) for each in (W, difference))
    drawn = []
    for name, values, scale in (("W", W, limit), ("W_S", W + difference, limit), ("W_S - W", difference, apart)):
        images = Pictured.of(values.reshape(count, *shape), count, "report: weights").values
        drawn.append([(name, *picture) for picture in signed_pictures(images, scale)])
    names = [name.replace("_", " ") for name in run.class_names]
    classes = tuple(zip(names, zip(*drawn, strict=True), strict=False))
    return WeightPictures(classes, _scale(limit, apart, run, count))


def _weight_maps(run: RunFolder, found: WeightsData) -> Matrices:
    count, p = found.original.shape
    columns = min(p, _MOST_COLUMNS)
    noun = "class" if run.record.targets == "classes" else "target"
    named: dict[str, Any] = {"x_label": "feature", "y_label": noun, "y_names": run.class_names[:count]}
    charts = tuple(
        (
            caption,
            to_svg(heat_figure(values[:, :columns], **named), name, f"Heat map of {count} rows: {caption}"),
        )
        for name, caption, values in (
            ("weights", "W of the original model", found.original),
            ("distilled-weights", "W_S, retrained from the distilled set", found.original + found.difference),
            ("difference", "W_S - W, on a scale of its own", found.difference),
        )
    )
    limit, apart = (float(np.abs(each[:, :columns]).max()) for each in (found.original, found.difference))
    features = (f"the first {columns} of {p} features are drawn",) if columns < p else ()
    return Matrices(charts, (_scale(limit, apart, run, count), *features))


def _scale(limit: float, apart: float, run: RunFolder, count: int) -> str:
    """The scales of W and of the difference, and how many classes are shown."""
    ratio = f", or {number(apart / limit, digits=2)} of the largest weight" if limit > 0.0 else ""
    first = f"; the first {count} of {run.record.k} classes" if count < run.record.k else ""
    scale = f"W and W_S from {plain_number(-limit)} to {plain_number(limit)}"
    return f"{scale}, W_S - W up to {plain_number(apart)}{ratio}{first}"


def _rows_by_class(run: RunFolder) -> tuple[IntArray, tuple[str, ...]]:
    """Distilled samples in the order of classes, as many of each as there is room for, and what is left out."""
    k, m = run.record.k, run.record.m
    rounds, classes = rounds_and_classes(k, run.record.ipc)
    copies = m if m <= _MOST_ROWS else max(1, _MOST_ROWS // k)
    order = np.lexsort((rounds, classes))
    kept = order[(rounds[order] < copies) & (classes[order] < _MOST_ROWS)]
    if len(kept) == m:
        return kept, ()
    of = "" if k <= _MOST_ROWS else f" of the first {_MOST_ROWS} classes"
    return kept, (f"{len(kept)} of {m} samples are drawn, the first {copies} of each class{of}",)


def _row_names(run: RunFolder, rows: IntArray) -> list[str] | None:
    """The classes of samples; None where their targets are no classes."""
    if run.record.targets != "classes":
        return None
    classes = rounds_and_classes(run.record.k, run.record.ipc)[1]
    return [run.class_names[c] for c in classes[rows].tolist()]


def _sample_of(run: RunFolder) -> str:
    return "sample of class" if run.record.targets == "classes" else "sample"


def _summed(index: IntArray, counts: IntArray, size: int) -> IntArray:
    """``counts`` added up by ``index``."""
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, index, counts)
    return sums
