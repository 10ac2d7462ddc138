"""The pipeline on one page: data -> statistics -> model -> points -> file and certificate.

    statistics = RidgeStatistics(phi, classes).update(X, y)            ridge/statistics.py
    model      = fit_model(statistics, validation=(X_held, y_held))    ridge/model.py
    points     = distill_model(model, points_per_class=1)              here (methods: construct/points.py)
    points.save(path); DistilledDataset.load(path)                     artifact/file.py
    points.verify(model, test=(X_test, y_test))                        artifact/file.py (artifact/certificate.py)

``distill`` does all of it in one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import distilled_set, judged
from krrdistill.backends import Backend, get_backend
from krrdistill.common.arrays import check_device
from krrdistill.common.documents import UNFIT
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.samples import as_samples, check_columns
from krrdistill.common.threads import limited_threads
from krrdistill.common.warning import warn
from krrdistill.construct.points import approximate_search
from krrdistill.errors import DataError, DeviceOutOfMemory, ResultWarning
from krrdistill.maps import FeatureMap
from krrdistill.options import ALIASES, DistillOptions, class_counts
from krrdistill.problem import Problem, choose_real_rows, points_of_model, standardised_rows
from krrdistill.ridge.model import RidgeModel, fit_model, fitted, refitted
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = [
    "Distillation",
    "Trained",
    "distill",
    "distill_model",
    "distill_problem",
    "retrain",
    "retrain_from_statistics",
    "train",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, its statistics and the seconds both took."""

    model: RidgeModel
    statistics: RidgeStatistics
    seconds: Mapping[str, float]
    selected: RidgeModel  # of the rows that were not held out; ``model`` itself without ``refit``


@dataclass(frozen=True, eq=False)
class Distillation:
    """Result of ``distill``: the distilled set, the original model, and how both were made.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    distilled : DistilledDataset
        The distilled set.
    model : RidgeModel
        The original model, trained on all of the data.
    start_rows : array of int
        Rows of X that the points were initialised from; None for noise.
    seconds : mapping
        Seconds of each stage.
    """

    distilled: DistilledDataset
    model: RidgeModel
    start_rows: IntArray | None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Distillation({self.distilled!r} of {self.model!r}, {sum(self.seconds.values()):.3g} s)"

    @property
    def solution(self) -> dict[str, Any]:
        """How the points were found, as a mapping: method, range_scale, outside_range and more."""
        return dict(self.distilled.meta["solution"])


def distill(
    X: Any,
    y: Any,
    feature_map: FeatureMap,
    *,
    classes: Any = None,
    targets: str | None = None,
    sample_weight: Any = None,
    validation: tuple[Any, Any] | None = None,
    options: DistillOptions | None = None,
    progress: Progress | None = None,
    judge: bool = True,
    name: str | None = None,
    **keywords: Any,
) -> Distillation:
    r"""Distil labelled data to a few points per class that train to the same ridge model.

    First the model W = C (G + lambda I)^-1 is trained from statistics G, C of the data, with lambda chosen by
    validation. Then D with Y^T D = W and features F are computed from W (Theorem 4.1). Last, inputs with these features
    are found by the exact preimage of the map (Theorem 5.1).

    If the map has no exact preimages, inputs are found by Gauss-Newton steps, and labels by Theorem 4.2. With
    ``labels_only`` only labels are computed, for real inputs.

    Parameters
    ----------
    X : array of shape ``(n, *shape)``, data frame or sparse matrix
        Raw inputs: NumPy, torch, JAX, CuPy ... They are not copied as a whole. Data on a GPU stay there.
    y : array, series or list
        Integers, booleans, strings or categories (n,) are class labels. Floats with fractions, and several columns
        (n, k), are real-valued or 0/1 targets. Whole-numbered floats could be either: pass ``targets``.
    feature_map : FeatureMap
        The feature map phi, with its preprocessing.
    classes : int or sequence of labels, optional
        Number k of classes 0 ... k-1, or the labels themselves; by default those that occur in y.
    targets : "classes" or "real", optional
        Meaning of y, if its type does not determine it.
    sample_weight : array of shape (n,), >= 0, optional
        Weights w. The model minimises sum w ||y - W phi||^2 + lambda ||W||^2.
    validation : (X, y), optional
        Validation set to choose lambda on; by default a part of X is held out. With ``refit`` the final model is also
        trained on it.
    options : DistillOptions, optional
    progress : callable, optional
        Called with (stage, fraction done).
    judge : bool
        Whether to train on the points, to see if they are exact. Pass False if ``verify`` follows.
    name : str, optional
        Name of the data in the file. ``krrdistill verify`` loads known data sets by it.
    **keywords
        Fields of ``DistillOptions``, such as ``points_per_class``. They override those of ``options``.

    Returns
    -------
    Distillation

    Raises
    ------
    DataError, NotSurjective, LambdaOutOfRange, NotPositiveDefinite, TypeError, ValueError

    Notes
    -----
    With the points as rows, labels Y of one row each, any matrix Z, and lambda_s = 0:

    .. math::

        W = C (G + \lambda I)^{-1}, \qquad
        D = (Y^\top)^+ W + (I - (Y^\top)^+ Y^\top) Z, \qquad
        \varphi(X) = (D^+)^\top

    References
    ----------
    Chen, Huang, Weng, "Provable and Efficient Dataset Distillation for Kernel Ridge Regression", NeurIPS 2024.

    Examples
    --------
    >>> import krrdistill as kd
    >>> digits = kd.load_dataset("digits")
    >>> phi = kd.FCNN(digits.input_dim, preprocessing=kd.standardize(digits))
    >>> result = kd.distill(digits.x_train, digits.y_train, phi, points_per_class=2)
    >>> result.distilled.X.shape
    (20, 64)
    >>> certificate = result.distilled.verify(result.model, test=(digits.x_test, digits.y_test))
    >>> certificate.weight_relative_error < 1e-9, certificate.prediction_agreement
    (True, 1.0)
    """
    options = _options("distill", options, keywords)
    with limited_threads(options.threads):
        problem = Problem.of(
            "distill",
            X,
            y,
            feature_map,
            options,
            classes=classes,
            targets=targets,
            sample_weight=sample_weight,
            validation=validation,
        )
        result = distill_problem(problem, progress=progress)
        if name is not None:
            result = replace(result, distilled=result.distilled.with_meta(dataset=str(name)))
        if not judge:
            return result
        watch = Stopwatch(progress, result.seconds)
        with _memory_of_points("distill", result.model, problem.options), problem.backend.dense():
            distilled = judged("distill", result.distilled, result.model, problem.backend, watch)
    return replace(result, distilled=distilled, seconds=watch.seconds)


def distill_problem(
    problem: Problem, trained: Trained | None = None, *, progress: Progress | None = None
) -> Distillation:
    """``distill`` from checked arguments, not judged; ``trained`` is the model of the problem where there is one."""
    options = problem.options
    _say_search(problem.where, problem.feature_map, options)
    start_rows = problem.start_rows()
    trained = train(problem, progress) if trained is None else trained
    watch = Stopwatch(progress, trained.seconds)
    with _memory_of_points(problem.where, trained.model, options), problem.backend.dense():
        distilled = distilled_set(trained.model, problem.start(start_rows), options, problem.backend, watch)
    return Distillation(distilled, trained.model, start_rows, watch.seconds)


def train(problem: Problem, progress: Progress | None = None) -> Trained:
    """One pass for the statistics, then all lambdas, then the best on held-out rows; ``refit`` adds those rows."""
    options, watch = problem.options, Stopwatch(progress)
    statistics = problem.statistics()
    problem.add(statistics, problem.training, watch)
    with watch.stage("ridge"):
        model = fitted(
            problem.where,
            statistics,
            options.lambdas,
            validation=problem.held_out,
            selection=options.selection,
            center=options.center,
            per_target=options.lambda_per_target,
        )
    model = selected = replace(model, split=problem.split_facts, weighted=problem.sample_weight is not None)
    if options.refit:
        problem.add_held_out(statistics, watch)
        with watch.stage("ridge"):
            model = refitted(selected, statistics)
    return Trained(model, statistics, watch.seconds, selected)


def distill_model(
    model: RidgeModel,
    *,
    reference: tuple[Any, Any] | None = None,
    options: DistillOptions | None = None,
    progress: Progress | None = None,
    watch: Stopwatch | None = None,
    judge: bool = True,
    **keywords: Any,
) -> DistilledDataset:
    """Distil a ridge model: compute points that train to it, without its data.

    Parameters
    ----------
    model : RidgeModel
    reference : (X, y), optional
        Raw samples from which ``init="real"`` chooses.
    options : DistillOptions, optional
    progress : callable, optional
        Called with (stage, fraction done).
    watch : Stopwatch, optional
        Records the seconds of each stage.
    judge : bool
        Whether to train on the points, to see if they are exact. Pass False if ``verify`` follows.
    **keywords
        Fields of ``DistillOptions``, such as ``points_per_class``. They override those of ``options``. Options of the
        training of the model are refused, unless this model was trained with them.

    Returns
    -------
    DistilledDataset

    Raises
    ------
    NotSurjective, LambdaOutOfRange, DataError, TypeError, ValueError

    Examples
    --------
    >>> import krrdistill as kd
    >>> digits = kd.load_dataset("digits")
    >>> statistics = kd.RidgeStatistics(kd.FCNN(digits.input_dim, seed=1), classes=10)
    >>> model = kd.fit_model(statistics.update(digits.x_train, digits.y_train), lambdas=100.0)
    >>> points = kd.distill_model(model, points_per_class=2)
    >>> points.X.shape, points.weight_error < 1e-9
    ((20, 64), True)
    """
    if not isinstance(model, RidgeModel):
        hint = "; pass result.model" if isinstance(model, Distillation) else ""
        raise TypeError(f"distill_model: model must be a RidgeModel, got {type(model).__name__}{hint}")
    options = _options("distill_model", options, keywords)
    defaults, trained = DistillOptions().training(), model.split or {}
    for name, value in options.training().items():
        if name != "seed" and value not in (defaults[name], trained.get(name, defaults[name])):
            raise TypeError(f"distill_model: {name} belongs to the training of a model: fit_model takes it")
    options = points_of_model(model, options)
    _say_search("distill_model", model.feature_map, options)
    near = None
    with limited_threads(options.threads):
        if options.start == "real":
            if reference is None:
                raise ValueError("distill_model: init='real' takes its points from reference=(X, y)")
            near = _reference(model, reference, options)
        elif reference is not None:
            raise ValueError("distill_model: reference belongs to init='real'")
        backend, watch = get_backend(options.backend), watch or Stopwatch(progress)
        with _memory_of_points("distill_model", model, options), backend.dense():
            distilled = distilled_set(model, near, options, backend, watch)
            return judged("distill_model", distilled, model, backend, watch) if judge else distilled


def _reference(model: RidgeModel, reference: tuple[Any, Any], options: DistillOptions) -> FloatArray:
    """The real points of a start as standardised inputs."""
    where, classes, (X, y) = "distill_model", model.classes, reference
    samples = as_samples(where, X, input_dim=model.feature_map.input_dim)
    check_columns(where, model.columns, samples)
    check_device(where, X=X, y=y)
    n = samples.shape[0]
    labels = np.zeros((n, len(model.W))) if classes is None else classes.encode(where, y, n)  # real: any points
    rows = choose_real_rows(where, labels, np.arange(n), len(model.W), options, classes)
    return standardised_rows(where, model.feature_map, samples, rows)


def retrain(
    distilled: DistilledDataset,
    X: Any,
    y: Any,
    *,
    classes: Any = None,
    validation: tuple[Any, Any] | None = None,
    backend: Backend | str | None = None,
    where: str = "retrain",
) -> RidgeModel:
    """Train the original model again from its data, with the options that the file records.

    Parameters
    ----------
    distilled : DistilledDataset
    X : array of shape ``(n, *shape)``
        The raw samples that were distilled, in their order.
    y : array
        Their labels or targets.
    classes : int or sequence of labels, optional
        The classes of y; by default those of the file.
    validation : (X, y), optional
        The validation set, if lambda was chosen on a separate one.
    backend : str or Backend, optional
    where : str
        Name of the caller, for messages.

    Returns
    -------
    RidgeModel

    Raises
    ------
    DataError
        If the file does not record how its model was trained.
    """
    meta = distilled.meta
    if meta.get("weighted") or not meta.get("split"):
        reason, remedy = "with sample weights", ""
        if not meta.get("weighted"):
            reason, remedy = "from statistics", ", or train it again from them: retrain_from_statistics (--statistics)"
        raise DataError(f"{where}: the original was trained {reason}; store it in the file (include_weights){remedy}")
    if bool(meta.get("own_validation")) != (validation is not None):
        found = (
            "by a validation set of its own: pass validation=(X, y), on the command line --validation SOURCE"
            if validation is None
            else "by samples held out of X: leave validation out"
        )
        raise DataError(f"{where}: the file's lambda was chosen {found}")
    try:
        lambdas = meta.get("lambda_per_target") or [meta["lambda"]]
        options = DistillOptions(**dict(meta["options"], backend=None, lambdas=lambdas))
    except UNFIT as error:
        raise DataError(f"{where}: the file does not record how its model was trained ({error})") from error
    options = replace(options, backend=backend)
    if classes is None and distilled.classes is not None:
        classes = distilled.classes
    targets = "classes" if distilled.targets == "classes" else "real"
    problem = Problem.of(
        where,
        X,
        y,
        distilled.feature_map,
        options,
        classes=classes,
        targets=targets,
        validation=validation,
    )
    check_columns(where, meta.get("columns"), problem.X)
    return train(problem).model


def retrain_from_statistics(
    distilled: DistilledDataset, statistics: RidgeStatistics, *, where: str = "retrain_from_statistics"
) -> RidgeModel:
    """Train the original model again from statistics of its data, with the lambda that the file records.

    Parameters
    ----------
    distilled : DistilledDataset
    statistics : RidgeStatistics
        Statistics of the training samples. Their classes may be in another order.
    where : str
        Name of the caller, for messages.

    Returns
    -------
    RidgeModel

    Raises
    ------
    DataError
        For statistics with another map or other classes, and for a file that does not record lambda.
    """
    k, meta = distilled.Y.shape[1], distilled.meta
    per_target, lambda_ = meta.get("lambda_per_target"), meta.get("lambda")
    if lambda_ is None:
        raise DataError(f"{where}: the file does not record the lambda of its model")
    targets = {"classes": distilled.classes} if distilled.classes is not None else {"n_targets": k}
    placed = RidgeStatistics(
        distilled.feature_map, **targets, precision=statistics.precision, backend=statistics.backend
    )
    placed.merge(statistics)
    if placed.k != k:
        raise DataError(f"{where}: the statistics are of {placed.k} classes, the file is of {k}")
    center = "both" if distilled.centered else "none" if distilled.offset is None else "targets"
    model = fit_model(placed, lambda_, center=center)
    return model if per_target is None else refitted(replace(model, lambdas=np.array(per_target)), placed)


def _say_search(where: str, feature_map: FeatureMap, options: DistillOptions) -> None:
    """Checks, before the long part, whether the map allows the options, and warns of a search for inputs."""
    said = approximate_search(feature_map, options)
    if said is not None:
        warn(f"{where}: {said}", ResultWarning)


@contextmanager
def _memory_of_points(where: str, model: RidgeModel, options: DistillOptions) -> Iterator[None]:
    """Too little memory, or numbers too large for it, in the block: the error says how many points were asked for."""
    try:
        yield
    except DeviceOutOfMemory:  # says what it needed, and of what
        raise
    except (MemoryError, OverflowError) as error:
        m, d = sum(class_counts(len(model.W), options.points_per_class)), model.feature_map.input_dim
        raise MemoryError(
            f"{where}: {m} points of {d} numbers take {m * d * 8 / 2**30:.3g} GiB, and more while they are made; lower "
            f"points_per_class = {options.points_per_class}"
        ) from error


def _options(where: str, options: DistillOptions | None, keywords: Mapping[str, Any]) -> DistillOptions:
    if options is not None and not isinstance(options, DistillOptions):
        hint = f"; its entries are arguments: {where}(..., **options)" if isinstance(options, Mapping) else ""
        raise TypeError(f"{where}: options must be DistillOptions, got {type(options).__name__}{hint}")
    known = [item.name for item in fields(DistillOptions)]
    unknown = sorted(keywords.keys() - set(known))
    if unknown:
        close = {name: ALIASES.get(name) or next(iter(get_close_matches(name, known, n=1)), None) for name in unknown}
        meant = [name for name in close.values() if name is not None]
        hint = f"; did you mean {', '.join(meant)}?" if meant else ""
        if "preprocessing" in unknown:
            hint = "; a map takes its preprocessing: FCNN(d, preprocessing=...)"
        raise TypeError(f"{where}: unknown option {', '.join(unknown)}{hint}")
    return replace(options or DistillOptions(), **keywords)
