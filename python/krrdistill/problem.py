"""The arguments of a distillation, checked once; the pipeline, KIP and privacy start from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.arrays import check_device, host_rows
from krrdistill.common.options import shown_value
from krrdistill.common.progress import Stopwatch
from krrdistill.common.random import Stream, permutation
from krrdistill.common.samples import as_samples, check_columns, columns_of, sample_shape
from krrdistill.construct.labels import point_classes
from krrdistill.data.labels import Classes, Targets, read_targets, real_targets
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap, check_map
from krrdistill.options import DistillOptions, PointsPerClass, class_counts
from krrdistill.ridge.held_out import HeldOutRows
from krrdistill.ridge.model import RidgeModel
from krrdistill.ridge.statistics import RidgeStatistics
from krrdistill.ridge.sums import check_weights

__all__ = [
    "Problem",
    "check_present",
    "choose_real_rows",
    "points_of_classes",
    "points_of_model",
    "split",
    "standardised_rows",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Checked data, feature map and options, with the training and validation rows.

    Attributes
    ----------
    where : name of the function that messages are in
    X : array of shape (n, d), where the user's array is; ``shape`` is that of one sample
    y : codes of classes (n,), or real-valued targets (n, k)
    classes : Classes, or None for real-valued targets
    options : with points_per_class as ``points_of_classes`` gives it
    training, validation : rows, each ascending; none is held out with selection = "gcv" or a validation set of its own
    own_validation : that validation set, else None
    """

    where: str
    X: Any
    shape: tuple[int, ...]
    y: npt.NDArray[Any]
    k: int
    classes: Classes | None
    sample_weight: FloatArray | None
    feature_map: FeatureMap
    options: DistillOptions
    backend: Backend
    training: IntArray
    validation: IntArray
    own_validation: HeldOutRows | None = None

    @classmethod
    def of(
        cls,
        where: str,
        X: Any,
        y: Any,
        feature_map: Any,
        options: DistillOptions,
        *,
        classes: Any = None,
        targets: str | None = None,
        sample_weight: Any = None,
        validation: Any = None,
    ) -> Problem:
        """Checks the user's arguments. Raises DataError, TypeError, ValueError in the name of ``where``."""
        check_map(where, feature_map)
        samples = as_samples(where, X, input_dim=feature_map.input_dim)
        check_device(where, X=X, y=y)
        n = samples.shape[0]
        values, found = read_targets(where, y, n, targets=targets, classes=classes)
        if found is not None:
            check_present(where, values, found)
        k = values.shape[1] if found is None else found.count
        if options.lambda_per_target and found is not None:
            raise ValueError(
                f"{where}: lambda_per_target needs real-valued targets; the classes of one label share lambda"
            )
        points = points_of_classes(where, options.points_per_class, k, found, with_intercept=options.intercept)
        options = replace(options, points_per_class=points)
        weights = None if sample_weight is None else check_weights(where, sample_weight, n)
        own = None if validation is None else _own_validation(where, validation, samples, values, found, options)
        held_out, training = (
            split(where, values, options, weights) if own is None else (np.empty(0, np.int64), np.arange(n))
        )
        return cls(
            where=where,
            X=samples,
            shape=sample_shape(X, samples.shape[1]),
            y=values,
            k=k,
            classes=found,
            sample_weight=weights,
            feature_map=feature_map,
            options=options,
            backend=get_backend(options.backend, data=samples),
            training=training,
            validation=held_out,
            own_validation=own,
        )

    def with_points(self, options: DistillOptions) -> Problem:
        """The same model with other points. Raises ValueError for options that would train another model."""
        if options.training() != self.options.training():
            raise ValueError(f"{self.where}: these options train another model than {self.options.training()}")
        points = points_of_classes(
            self.where, options.points_per_class, self.k, self.classes, with_intercept=options.intercept
        )
        return replace(self, options=replace(options, points_per_class=points))

    @property
    def final_training_rows(self) -> IntArray:
        """The rows that the model is trained on in the end."""
        return np.arange(len(self.y)) if self.options.refit else self.training

    def statistics(self) -> RidgeStatistics:
        """Empty statistics for this problem."""
        return RidgeStatistics(
            self.feature_map,
            self.classes,
            n_targets=self.k if self.classes is None else None,
            precision=self.options.precision,
            backend=self.options.backend,
        )

    def add(self, statistics: RidgeStatistics, rows: IntArray, watch: Stopwatch) -> None:
        """Adds some of the samples to statistics."""
        self._add(statistics, HeldOutRows(self.X, self.targets, self.sample_weight, rows), watch, self.where)

    def add_held_out(self, statistics: RidgeStatistics, watch: Stopwatch) -> None:
        """Adds what lambda was chosen by."""
        if self.held_out is not None:
            where = self.where if self.own_validation is None else f"{self.where}: validation"
            self._add(statistics, self.held_out, watch, where)

    def _add(self, statistics: RidgeStatistics, part: HeldOutRows, watch: Stopwatch, where: str) -> None:
        with watch.stage("statistics") as report:
            X = part.X if len(self.shape) == 1 else part.X.reshape(part.X.shape[0], *self.shape)
            statistics.update(X, part.y, rows=part.rows, sample_weight=part.sample_weight, progress=report, where=where)

    @property
    def split_facts(self) -> dict[str, Any]:
        """How the training samples were chosen."""
        return {**self.options.training(), **({} if self.own_validation is None else {"own_validation": True})}

    @property
    def samples(self) -> Any:
        """X with the shape of its samples."""
        return self.X if len(self.shape) == 1 else self.X.reshape(self.X.shape[0], *self.shape)

    @property
    def targets(self) -> Any:
        """y as statistics take it: codes with their classes, or real values."""
        return Targets(self.y, self.classes)

    @property
    def held_out(self) -> HeldOutRows | None:
        """The held-out samples that lambda is chosen by, None where nothing is held out."""
        if self.own_validation is not None or not len(self.validation):
            return self.own_validation
        return HeldOutRows(self.X, self.targets, self.sample_weight, self.validation)

    def start_rows(self) -> IntArray | None:
        """Indices of the real samples that points start from, None for noise."""
        if self.options.start != "real":
            return None
        return choose_real_rows(self.where, self.y, self.final_training_rows, self.k, self.options, self.classes)

    def start(self, rows: IntArray | None) -> FloatArray | None:
        """Those samples as standardised inputs."""
        return None if rows is None else standardised_rows(self.where, self.feature_map, self.X, rows)


def _own_validation(
    where: str, validation: Any, samples: Any, y: npt.NDArray[Any], classes: Classes | None, options: DistillOptions
) -> HeldOutRows:
    """A validation set (X, y) that fits the training set."""
    if not isinstance(validation, tuple) or len(validation) != 2:
        parts = f" of {len(validation)}" if isinstance(validation, (tuple, list)) else ""
        raise TypeError(f"{where}: validation must be a pair (X, y), got {type(validation).__name__}{parts}")
    if options.selection == "gcv":
        raise ValueError(f"{where}: selection = 'gcv' chooses lambda without held-out samples, it takes no validation")
    X = as_samples(f"{where}: validation", validation[0], input_dim=samples.shape[1])
    check_columns(f"{where}: validation", columns_of(samples), X)
    check_device(f"{where}: validation", X=X, training=samples)
    if not X.shape[0]:
        raise DataError(f"{where}: validation has no samples")
    where = f"{where}: validation"
    if classes is None:
        return HeldOutRows(X, real_targets(where, validation[1], X.shape[0], y.shape[1]))
    return HeldOutRows(X, Targets(classes.encode(where, validation[1], X.shape[0]), classes))


def standardised_rows(where: str, feature_map: FeatureMap, X: Any, rows: IntArray) -> FloatArray:
    """Some rows of raw X (n, d) as standardised inputs, on the host."""
    picked = host_rows(where, X, rows)
    return np.asarray(feature_map.preprocessing.standardise(picked))


def check_present(where: str, codes: IntArray, classes: Classes) -> None:
    """Raises DataError unless every class has a sample."""
    if codes.size == 0:
        raise DataError(f"{where}: there are no samples")
    if classes.count < 2:
        raise DataError(f"{where}: y has one class only ({classes.label(0)!r}); there is nothing to tell apart")
    present = np.unique(codes)
    if len(present) < classes.count:  # the first gap, without a list of all classes, who may be many
        gaps = np.flatnonzero(present != np.arange(len(present)))
        absent = int(gaps[0]) if gaps.size else len(present)
        raise DataError(
            f"{where}: y has no sample of class {classes.label(absent)!r} "
            f"({classes.count - len(present)} of {classes.count} classes are missing)"
        )


def points_of_classes(
    where: str, asked: PointsPerClass, k: int, classes: Classes | None, *, with_intercept: bool = False
) -> int | tuple[int, ...]:
    """The points of each class: one number where they are alike, else one for each, in the order of the codes.

    Parameters
    ----------
    asked : int, sequence of k integers, or mapping from labels
        ``points_per_class`` of the options.
    k : int
        Classes, or real-valued targets, for which ``classes`` is None and only one number means something.

    Raises
    ------
    ValueError
        For numbers that are not those of the classes, and too few points for an intercept.
    """
    if classes is None and not isinstance(asked, int):
        raise ValueError(
            f"{where}: points_per_class must be one number for real-valued targets, whose points belong to no target, "
            f"got {shown_value(asked)}"
        )
    if isinstance(asked, Mapping):
        asked = _points_by_label(where, asked, k, classes)
    counts = class_counts(k, asked)
    if len(counts) != k:
        raise ValueError(f"{where}: points_per_class has {len(counts)} numbers for {k} classes: give each class one")
    if with_intercept and sum(counts) < (k + 1 if classes is None else max(k, 2)):
        raise ValueError(
            f"{where}: an intercept needs one point more than the {k} of the targets; points_per_class = {asked} gives "
            f"{sum(counts)}"
        )
    return counts[0] if len(set(counts)) == 1 else counts


def _points_by_label(where: str, asked: Mapping[Any, int], k: int, classes: Classes | None) -> tuple[int, ...]:
    """The numbers of a mapping in the order of the classes."""
    assert classes is not None
    labels = [classes.label(code) for code in range(k)]
    unknown, missing = sorted(asked.keys() - set(labels), key=str), [label for label in labels if label not in asked]
    if unknown:
        known = f"no labels of y: the classes are {shown_value(labels)}"
        raise ValueError(f"{where}: points_per_class has numbers for {shown_value(unknown)}, {known}")
    if missing:
        raise ValueError(f"{where}: points_per_class has no number for the classes {shown_value(missing)}")
    return tuple(asked[label] for label in labels)


def split(
    where: str, targets: npt.NDArray[Any], options: DistillOptions, sample_weight: FloatArray | None = None
) -> tuple[IntArray, IntArray]:
    """(validation rows, training rows), each ascending.

    Holds out round(n fraction) rows of a seeded permutation. With ``stratify`` each class gives its share, to one
    sample, and never its last sample. Samples of weight 0 stay in training.
    """
    if sample_weight is not None and not sample_weight.all():
        counted = np.flatnonzero(sample_weight)
        validation, training = split(where, targets[counted], options)
        return counted[validation], np.sort(np.concatenate([counted[training], np.flatnonzero(sample_weight == 0)]))
    n = len(targets)
    if options.selection == "gcv":
        return np.empty(0, np.int64), np.arange(n)
    held_out = max(1, round(n * options.validation_fraction))
    if held_out >= n:
        raise DataError(f"{where}: {n} samples leave nothing to train on after holding out {held_out}")
    order = permutation(options.seed, Stream.SPLIT, n)
    if options.stratify and targets.ndim == 1:
        order = _stratified(order, targets, held_out)
    validation, training = np.sort(order[:held_out]), np.sort(order[held_out:])
    if targets.ndim == 1:
        lost = np.setdiff1d(targets[validation], targets[training])
        if lost.size:
            remedy = _room(targets) if options.stratify else "use stratify"
            raise DataError(f"{where}: the hold-out took every sample of class {lost[0]}; {remedy}")
    return validation, training


def _room(labels: IntArray) -> str:
    """What to do where so many samples are held out that the classes cannot keep one each."""
    room = len(labels) - np.unique(labels).size
    largest = math.floor(1e4 * room / len(labels)) / 1e4
    if largest == 0.0:
        return "every class needs two samples, or use selection='gcv'"
    return f"lower validation_fraction to {largest:g}, which leaves every class a sample"


def _stratified(order: IntArray, labels: IntArray, held_out: int) -> IntArray:
    """``order`` with the rows to hold out first: the share of each class, the largest remainders rounded up."""
    counts = np.bincount(labels)
    exact = counts * (held_out / len(labels))
    takes = np.minimum(exact.astype(np.int64), np.maximum(counts - 1, 0))
    while takes.sum() < held_out and (takes < counts - 1).any():  # again only where classes of one sample give nothing
        short = np.argsort(-(exact - takes), kind="stable")
        short = short[takes[short] < counts[short] - 1]
        takes[short[: held_out - takes.sum()]] += 1
    by_class = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = rank < np.repeat(takes, counts)
    return np.concatenate([by_class[taken], by_class[~taken]])


def choose_real_rows(
    where: str,
    labels: npt.NDArray[Any],
    rows: IntArray,
    k: int,
    options: DistillOptions,
    classes: Classes | None = None,
) -> IntArray:
    """Indices, out of ``rows``, of points_per_class random samples per class, in the order of ``point_classes``.

    Raises ValueError for a class that has fewer, by its label where ``classes`` are given.
    """
    counts = class_counts(k, options.points_per_class)
    order = rows[permutation(options.seed, Stream.REAL_POINTS, len(rows))]
    if labels.ndim == 2:  # real-valued targets: any points
        m = sum(counts)
        if len(order) < m:
            asked = options.points_per_class
            raise ValueError(f"{where}: points_per_class = {asked} asks for {m} of {len(order)} training points")
        return np.asarray(order[:m])
    picked = []
    for c, count in enumerate(counts):
        of_class = order[labels[order] == c]
        if len(of_class) < count:
            label = c if classes is None else classes.label(c)
            raise ValueError(
                f"{where}: class {label!r} has {len(of_class)} training points, fewer than points_per_class = {count}; "
                "use init='noise' or fewer points per class"
            )
        picked.append(of_class[:count])
    chosen = np.empty(sum(counts), dtype=np.int64)
    chosen[np.argsort(point_classes(k, counts), kind="stable")] = np.concatenate(picked)
    return chosen


def points_of_model(model: RidgeModel, options: DistillOptions) -> DistillOptions:
    """The options with the points of each class of a model. Raises ValueError as ``points_of_classes``."""
    points = points_of_classes(
        "distill_model",
        options.points_per_class,
        len(model.W),
        model.classes,
        with_intercept=model.center == "both",
    )
    return replace(options, points_per_class=points)
