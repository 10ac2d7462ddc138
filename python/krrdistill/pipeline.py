"""The pipeline: data -> features -> statistics -> ridge -> construct -> preimage -> distilled set."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from krrdistill._version import __version__
from krrdistill.artifact.file import DistilledDataset
from krrdistill.backends import Backend, Chain, Operator, get_backend
from krrdistill.common.arrays import as_samples, as_targets, check_device, take_rows
from krrdistill.common.products import product
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.random import Stream, normal, permutation
from krrdistill.construct.closed_form import (
    Construction,
    affine_labels,
    construct,
    learned_labels,
    noise_start,
    real_start,
    shrink_to_bound,
    target_labels,
)
from krrdistill.construct.nearest import nearest_inputs
from krrdistill.construct.span import centered, span_model
from krrdistill.construct.storage import round_inputs
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError, NotSurjective
from krrdistill.maps import LayeredMap
from krrdistill.maps.ranges import layer_ranges
from krrdistill.options import DistillOptions
from krrdistill.ridge.path import RidgePath, fit_intercept, fit_ridge, ridge_path, select, select_by_r2
from krrdistill.ridge.scores import batched_scores, kind_of_targets, r_squared
from krrdistill.ridge.statistics import RidgeStatistics, check_weights

__all__ = ["Distillation", "Original", "Trained", "choose_model", "distill", "retrain_original", "train_original"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Original:
    """The model to be matched: W (k, p), its lambda and the path that it was chosen from."""

    W: FloatArray
    lambda_: float
    path: RidgePath
    n_train: int
    n_validation: int
    training: dict[str, Any]  # DistillOptions.training, and the fingerprint of the features
    b: FloatArray | None = None  # (k,), of the predictions W phi + b; None for 0
    lambdas: FloatArray | None = None  # (k,), where every target has its own; ``lambda_`` is the smallest
    outside_range: float | None = None  # relative part of W that a linear range of the map had cut off, if it has one


@dataclass(frozen=True, eq=False)
class Trained:
    """The original model, the statistics of the training part that it comes from, and the seconds of both."""

    original: Original
    statistics: RidgeStatistics
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Distillation:
    """A distilled set, the original model and how both came about."""

    distilled: DistilledDataset
    original: Original
    start_rows: IntArray | None  # rows of X that a real start took
    range_scale: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    solution: Mapping[str, Any] = field(default_factory=dict)  # method, and what there is to say about it


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Inputs X (m, d), before they are rounded to what is stored, and their labels, None for the best ones."""

    X: FloatArray
    Y: FloatArray | None
    lambda_s: float
    range_scale: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)


def distill(
    X: Any,
    y: Any,
    feature_map: LayeredMap,
    *,
    preprocessing: Preprocessing | None = None,
    n_classes: int | None = None,
    sample_weight: Any = None,
    options: DistillOptions | None = None,
    original: Original | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Distillation:
    """Distils labelled data to points_per_class * k points that retrain to the same ridge model.

    Statistics G, C of the training part; W = C (G + lambda I)^-1 with lambda by validation; D = Y^+ W + (I - Y^+ Y) Z;
    features from D (Theorem 4.1); inputs by the map's preimage (Theorems 5.2 to 5.4). A map without one gets inputs
    whose features span W as nearly as can be, and labels by Theorem 4.2; so do the kept inputs of ``labels_only``.

    Parameters
    ----------
    X : array of shape (n, *shape), uint8 or float, of any framework; on a device it stays there
    y : integer labels of shape (n,), or real-valued (or 0/1) targets, float of shape (n,) or any of shape (n, k); where
        X is
    feature_map : the map phi on preprocessed inputs
    preprocessing : affine map before phi, by default none
    sample_weight : array of shape (n,), >= 0; the original minimises sum w ||y - W phi||^2 + lambda ||W||^2
    options, keywords : a ``DistillOptions``, or its fields as keywords
    original : ``Distillation.original`` of the same data and map, to distil that model again without training it

    Raises
    ------
    DataError, NotSurjective, LambdaOutOfRange, NotPositiveDefinite, TypeError, ValueError
    """
    options = replace(options or DistillOptions(), **keywords)
    if not isinstance(feature_map, LayeredMap):
        kind = type(feature_map).__name__
        raise TypeError(f"distill: feature_map must be a map, got {kind}; a callable is UserMap(callable, input_dim)")
    shape = tuple(np.shape(X)[1:])
    samples = as_samples("distill", X, input_dim=feature_map.input_dim)
    check_device("distill", X=X, y=y)
    n = samples.shape[0]
    labels = as_targets("distill", y, n, n_classes=n_classes)
    if sample_weight is not None:
        sample_weight = check_weights("distill", sample_weight, n)
    k = labels.shape[1] if labels.ndim == 2 else count_classes("distill", labels, n_classes)
    check_targets(labels, k, options)
    preprocessing = preprocessing or Preprocessing.none(feature_map.input_dim)
    method = _choose_method(feature_map, options)  # before the long part
    watch = Stopwatch(progress)
    backend = get_backend(options.backend, data=samples)
    chain = feature_map.chain(preprocessing)

    validation, train = split(n, options)
    known = np.arange(n) if options.refit else train
    start_rows = choose_real_points(labels, known, k, options) if options.init == "real" else None
    if original is None:
        rows = (validation, train)
        trained = train_original(samples, labels, k, chain, rows, options, backend, progress, sample_weight)
        original = trained.original
        watch.seconds.update(trained.seconds)
    else:
        check_original("distill", original, k, chain, options)
    if not original.W.any():
        raise DataError("distill: the original model is zero; the features of X carry nothing about y")
    near = None if start_rows is None else preprocessing.apply(take_rows(samples, start_rows))
    spread = labels[train].std(axis=0) if labels.ndim == 2 else None
    if near is not None and options.realism is not None:
        found = _nearest(original, chain, preprocessing, near, options.realism, options, watch)
    elif method == "exact":
        found = _exact_inputs(original, feature_map, near, spread, options, backend, watch)
    else:
        found = _learned_inputs(original, feature_map, near, method, options, backend, watch)
    with watch.stage("preimage"):
        targets = found.Y
        stored, encoding = round_inputs(found.X, options.store)
        if targets is None or options.store != "float64":
            features = feature_map.transform(stored, dtype=np.float64, backend=backend)
            targets = _labels_of(features, original, found.lambda_s, options)
    distilled = DistilledDataset(
        X=stored,
        Y=targets,
        lambda_s=found.lambda_s,
        feature_map=feature_map,
        preprocessing=preprocessing,
        shape=shape,
        encoding=encoding,
        weights=original.W if options.include_weights else None,
        intercept=original.b if options.include_weights and options.intercept else None,
        targets=kind_of_targets(labels),
        centered=options.intercept,
        offset=original.b if options.center_targets else None,
        meta={**_meta(original, options, backend), "weighted": sample_weight is not None},
    )
    solution = {"method": method, "outside_range": original.outside_range, **found.facts}
    return Distillation(distilled, original, start_rows, found.range_scale, watch.seconds, solution)


def _choose_method(feature_map: LayeredMap, options: DistillOptions) -> str:
    """ "exact", "approximate" or "labels_only". Raises NotSurjective or ValueError where the map does not allow it."""
    if options.realism is not None:
        feature_map.check_surjective()
        if any(isinstance(layer.weight, Operator) for layer in feature_map.layers):
            raise ValueError(f"distill: realism needs a map whose layers are matrices, got kernel {feature_map.kernel}")
    if options.labels_only:
        return "labels_only"
    if feature_map.reach == "exact":
        return "exact"
    try:
        feature_map.range_projection()
    except NotSurjective as error:
        if options.strict:
            raise NotSurjective(f"distill: strict: {error}") from error
        if feature_map.reach == "none":
            raise NotSurjective(f"distill: {error} and no gradients; use labels_only, or a torch module") from error
        if options.root == "minus" or options.scale_labels:
            raise ValueError(f"distill: root and scale_labels belong to exact preimages; {error}") from error
    return feature_map.reach


def _within_range(original: Original, chain: Chain) -> Original:
    """W on the linear range of the features, where ridge keeps it but for rounding (Theorem 5.3), and what was cut."""
    Q = (layer_ranges(chain.layers) or [None])[-1]
    if Q is None:
        return original
    W = product(product(original.W, Q), Q.T)
    cut_off = float(np.linalg.norm(original.W - W)) / (float(np.linalg.norm(original.W)) or 1.0)
    return replace(original, W=W, outside_range=cut_off)


def count_classes(where: str, labels: IntArray, n_classes: int | None = None) -> int:
    """k = n_classes, by default the largest label + 1, where every class has a sample."""
    if labels.size == 0:
        raise DataError(f"{where}: there are no samples")
    k = int(labels.max()) + 1 if n_classes is None else n_classes
    absent = np.setdiff1d(np.arange(k), labels)
    if absent.size:
        raise DataError(f"{where}: y has no sample of class {absent[0]} ({absent.size} of {k} classes are missing)")
    return k


def check_targets(targets: npt.NDArray[Any], k: int, options: DistillOptions) -> None:
    """Raises ValueError for options that these targets do not take."""
    if options.lambda_per_target and targets.ndim == 1:
        raise ValueError("distill: lambda_per_target needs real-valued targets; the classes of one label share lambda")
    m = options.points_per_class * k
    if options.intercept and m < (k + 1 if targets.ndim == 2 else max(k, 2)):
        raise ValueError(
            f"distill: an intercept takes one point more than the {k} of the targets; points_per_class = "
            f"{options.points_per_class} gives {m}"
        )


def train_original(
    X: Any,
    y: npt.NDArray[Any],
    k: int,
    chain: Chain,
    rows: tuple[IntArray, IntArray],
    options: DistillOptions,
    backend: Backend,
    progress: Progress | None,
    sample_weight: FloatArray | None = None,
) -> Trained:
    """Statistics once, all lambdas from them, the best one on the held-out part (ties to the larger).

    ``rows`` are the validation and the training rows; with ``options.refit`` the statistics end up with both.
    Real-valued targets to be centred are accumulated about their mean: in float32, their size would cost digits.
    """
    watch = Stopwatch(progress)
    shift = np.average(y[rows[1]], axis=0) if y.ndim == 2 and options.center != "none" else None
    if shift is not None:
        y = y - shift
    with watch.stage("statistics") as report:
        statistics = RidgeStatistics(chain, k, precision=options.precision, backend=backend)
        statistics.update(X, y, rows=rows[1], weights=sample_weight, progress=report)
    original = _within_range(choose_model(statistics, X, y, rows, options, watch, sample_weight), chain)
    if shift is not None and original.b is not None:
        original = replace(original, b=original.b + shift)
    return Trained(original, statistics, watch.seconds)


def choose_model(
    statistics: RidgeStatistics,
    X: Any,
    y: npt.NDArray[Any],
    rows: tuple[IntArray, IntArray],
    options: DistillOptions,
    watch: Stopwatch,
    sample_weight: FloatArray | None = None,
) -> Original:
    """The model of the best lambda; ``statistics`` are those of the training rows, and with refit of all rows after."""
    validation, train = rows
    with watch.stage("ridge"):
        path = ridge_path(statistics, options.lambdas, center=options.center)
        path = _select(path, statistics, X, y, validation, options, sample_weight)
        W, b, lambdas = path.model()
        if options.refit:
            statistics.update(X, y, rows=validation, weights=sample_weight)
            W = fit_ridge(statistics, lambdas, center=options.center)
            b = fit_intercept(statistics, W, center=options.center)
        if y.ndim == 1 and options.center != "none":
            W = W - W.mean(axis=0)  # centred one-hot targets sum to 0, and so do the models, up to rounding
    n_train = X.shape[0] if options.refit else len(train)
    training = {**options.training(), "features": statistics.chain.fingerprint()}
    return Original(
        W,
        float(lambdas.min()),
        path,
        n_train,
        len(validation),
        training,
        b=None if options.center == "none" else b,
        lambdas=lambdas if options.lambda_per_target else None,
    )


def _select(
    path: RidgePath,
    statistics: RidgeStatistics,
    X: Any,
    y: npt.NDArray[Any],
    validation: IntArray,
    options: DistillOptions,
    sample_weight: FloatArray | None,
) -> RidgePath:
    """The path with its choice: by correct classes, of real-valued targets by R^2."""
    chain, backend, dtype = statistics.chain, statistics.backend, np.dtype(options.precision)
    usable = path.weights if path.positive_definite.all() else np.nan_to_num(path.weights)
    b = None if path.intercepts is None else np.nan_to_num(path.intercepts)
    common: Any = {"precision": options.precision, "backend": backend, "rows": validation}
    if y.ndim == 2:
        r2, _ = r_squared(batched_scores(chain, X, usable, b, **common), y, sample_weight=sample_weight)
        return select_by_r2(path, r2, per_target=options.lambda_per_target)
    if b is None:
        correct = backend.score_path(chain, X, y, usable, dtype=dtype, rows=validation)
    else:
        correct = np.zeros(len(usable), dtype=np.int64)
        for part, scores in batched_scores(chain, X, usable, b, **common):
            correct += np.count_nonzero(scores.argmax(axis=2) == y[part][:, None], axis=0)
    return select(path, correct, len(validation))


def check_original(where: str, original: Original, k: int, chain: Chain, options: DistillOptions) -> None:
    """A model that is used again must be the one that these arguments would train."""
    if not isinstance(original, Original):
        raise TypeError(f"{where}: original must be Distillation.original, got {type(original).__name__}")
    if original.W.shape != (k, chain.output_dim):
        raise ValueError(f"{where}: original has weights {original.W.shape}, expected {(k, chain.output_dim)}")
    wanted = {**options.training(), "features": chain.fingerprint()}
    different = sorted(name for name, value in wanted.items() if original.training[name] != value)
    if different:
        raise ValueError(f"{where}: original was trained with other {', '.join(different)}")


def split(n: int, options: DistillOptions) -> tuple[IntArray, IntArray]:
    """(validation rows, training rows), each ascending; round(n fraction) rows of a seeded permutation are held out."""
    held_out = max(1, round(n * options.validation_fraction))
    if held_out >= n:
        raise DataError(f"distill: {n} samples leave nothing to train on after holding out {held_out}")
    order = permutation(options.seed, Stream.SPLIT, n)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


def choose_real_points(labels: npt.NDArray[Any], train_rows: IntArray, k: int, options: DistillOptions) -> IntArray:
    """Rows of points_per_class seeded training points per class, the order of classes repeating.

    Raises ValueError for a class that has fewer.
    """
    ipc = options.points_per_class
    order = train_rows[permutation(options.seed, Stream.REAL_POINTS, len(train_rows))]
    if labels.ndim == 2:  # real-valued targets: any points
        if len(order) < ipc * k:
            raise ValueError(f"distill: points_per_class = {ipc} asks for {ipc * k} of {len(order)} training points")
        return np.asarray(order[: ipc * k])
    chosen = np.empty((ipc, k), dtype=np.int64)
    for c in range(k):
        of_class = order[labels[order] == c]
        if len(of_class) < ipc:
            raise ValueError(
                f"distill: class {c} has {len(of_class)} training points, fewer than points_per_class = {ipc}; "
                "use init='noise' or fewer points per class"
            )
        chosen[:, c] = of_class[:ipc]
    return chosen.ravel()


def _nearest(
    original: Original,
    chain: Chain,
    preprocessing: Preprocessing,
    real: FloatArray,
    share: float,
    options: DistillOptions,
    watch: Stopwatch,
) -> _Inputs:
    """Preprocessed inputs of the exact set nearest, in raw units, to a blend of a share of real points and noise."""
    noise = normal(options.seed, Stream.NOISE, real.size).reshape(real.shape)
    blend = share * real + (1.0 - share) * float(np.sqrt(np.mean(real * real))) * noise
    shape = (chain.input_dim,)
    with watch.stage("construct"):
        raw = nearest_inputs(chain, original.W, preprocessing.invert(blend, shape), centered=options.intercept)
    return _Inputs(np.asarray(preprocessing.apply(raw)), None, _free_lambda_s(original, options))


def _free_lambda_s(original: Original, options: DistillOptions) -> float:
    """lambda_s where labels come last, so that nothing bounds it: that of the options, "auto" is the original's."""
    return original.lambda_ if isinstance(options.lambda_s, str) else float(options.lambda_s)


def _labels_of(F: FloatArray, original: Original, lambda_s: float, options: DistillOptions) -> FloatArray:
    """The labels with which features train to the original model."""
    if options.intercept and original.b is not None:
        return affine_labels(F, original.W, original.b, lambda_s)
    return learned_labels(F, original.W, lambda_s)


def _exact_inputs(
    original: Original,
    feature_map: LayeredMap,
    near: FloatArray | None,
    spread: FloatArray | None,
    options: DistillOptions,
    backend: Backend,
    watch: Stopwatch,
) -> _Inputs:
    """Features in closed form and their preimage."""
    with watch.stage("construct"):
        points = _construct(original, feature_map, near, spread, options, backend)
    with watch.stage("preimage"):
        X = feature_map.preimage(points.F, near=near, backend=backend)
    Q = feature_map.range_projection()
    facts = {"range_dimension": feature_map.output_dim if Q is None else Q.shape[1]}
    return _Inputs(X, points.Y, points.lambda_s, points.range_scale, facts)


def _learned_inputs(
    original: Original,
    feature_map: LayeredMap,
    near: FloatArray | None,
    method: str,
    options: DistillOptions,
    backend: Backend,
    watch: Stopwatch,
) -> _Inputs:
    """The start's inputs, moved until their features span W unless only labels are learned."""
    facts: dict[str, Any] = {}
    with watch.stage("preimage") as report:
        if near is None:
            d, m = feature_map.input_dim, options.points_per_class * len(original.W)
            near = normal(options.seed, Stream.NOISE, m * d).reshape(m, d)
        if method == "approximate":
            linearize = centered(feature_map.linearize) if options.intercept else feature_map.linearize
            found = span_model(original.W, near, linearize, progress=report)
            near, facts = found.X, {"steps": found.steps}
    return _Inputs(near, None, _free_lambda_s(original, options), facts=facts)


def _construct(
    original: Original,
    feature_map: LayeredMap,
    near: FloatArray | None,
    spread: FloatArray | None,
    options: DistillOptions,
    backend: Backend,
) -> Construction:
    """Features and labels that train to the original model; ``spread`` (k,) is that of real-valued targets.

    With an intercept, features and labels about their means train to W; any mean f of the features then goes with the
    mean b + W f of the labels. It is that of the real points, and 0 for noise. Where the map's range is a subspace,
    all of it runs in coordinates of an orthonormal basis Q.
    """
    Q = feature_map.range_projection()
    W, k = original.W if Q is None else product(original.W, Q), len(original.W)
    lambda_s = None if isinstance(options.lambda_s, str) else float(options.lambda_s)
    limit, base = feature_map.feature_limit(), np.zeros(W.shape[1])
    if near is None:
        labels = None
        if spread is not None:
            spread = np.where(spread > 0.0, spread, 1.0)
            labels = target_labels(spread, k * options.points_per_class, seed=options.seed)
        D, Y = noise_start(W, options.points_per_class, seed=options.seed, labels=labels, centered=options.intercept)
    else:
        target = original.lambda_ if lambda_s is None else lambda_s
        F_real = feature_map.transform(near, dtype=np.float64, backend=backend)
        F_real = F_real if Q is None else product(F_real, Q)
        D, Y = real_start(W, F_real, target, centered=options.intercept)
        if options.intercept:
            base = F_real.mean(axis=0)
    if lambda_s:
        D, Y = shrink_to_bound(D, Y, W, lambda_s, scale_labels=options.scale_labels)
    limit -= float(np.abs(base).max())
    points = construct(D, Y, lambda_s, lambda_=original.lambda_, root=options.root, feature_limit=limit)
    if options.intercept and original.b is not None:
        points = replace(points, F=points.F + base, Y=points.Y + original.b + W @ base)
    return points if Q is None else replace(points, F=product(points.F, Q.T))


def _meta(original: Original, options: DistillOptions, backend: Backend) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in asdict(options).items()
        if name not in ("threads", "include_weights", "embed_map")
    }
    if options.lambdas is not None:
        kept["lambdas"] = [float(value) for value in options.lambdas]
    return {
        "options": {**kept, "backend": backend.name},
        "lambda": original.lambda_,
        **_selection(original),
        "n_train": original.n_train,
        "n_val": original.n_validation,
        "versions": versions(),
    }


def _selection(original: Original) -> dict[str, Any]:
    """How lambda did on the held-out part."""
    path = original.path
    if path.val_r2 is None:
        return {"val_accuracy": float(path.val_accuracy[path.best])}
    chosen = np.full(path.val_r2.shape[1], path.best) if path.chosen is None else path.chosen
    r2 = [float(value) for value in path.val_r2[chosen, np.arange(len(chosen))]]
    lambdas = None if original.lambdas is None else [float(value) for value in original.lambdas]
    return {"val_accuracy": None, "val_r2": r2, "lambda_per_target": lambdas}


def versions() -> dict[str, str]:
    """Of the packages that every result depends on."""
    return {
        "krrdistill": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def retrain_original(distilled: DistilledDataset, dataset: Dataset, *, backend: Any = None) -> Original:
    """The original model, trained again from the data as the file's meta records."""
    if distilled.meta.get("weighted"):
        raise DataError("verify: the original was trained with sample weights; store it in the file (include_weights)")
    try:
        lambdas = distilled.meta.get("lambda_per_target") or [distilled.meta["lambda"]]
        recorded = dict(distilled.meta["options"], backend=None, lambdas=lambdas)
        options = DistillOptions(**recorded)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"verify: the file does not record how its model was trained ({error})") from error
    X = as_samples("verify", dataset.x_train)
    chain = distilled.feature_map.chain(distilled.preprocessing)
    solver = get_backend(backend)
    rows = split(len(X), options)
    return train_original(X, dataset.y_train, dataset.n_classes, chain, rows, options, solver, None).original
