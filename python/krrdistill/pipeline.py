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
from krrdistill.arrays import as_labels, as_samples, check_device, take_rows
from krrdistill.artifact import DistilledDataset
from krrdistill.backends import Backend, Chain, get_backend
from krrdistill.construct import Construction, construct, learned_labels, noise_start, real_start, shrink_to_bound
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError
from krrdistill.features import LayeredMap
from krrdistill.options import DistillOptions
from krrdistill.random import Stream, permutation
from krrdistill.ridge import RidgePath, fit_ridge, ridge_path, select
from krrdistill.stages import Progress, Stopwatch
from krrdistill.statistics import RidgeStatistics
from krrdistill.storage import round_inputs

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


def distill(
    X: Any,
    y: Any,
    feature_map: LayeredMap,
    *,
    preprocessing: Preprocessing | None = None,
    n_classes: int | None = None,
    options: DistillOptions | None = None,
    original: Original | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Distillation:
    """Distils labelled data to points_per_class * k points that retrain to the same ridge model.

    Statistics G, C of the training part; W = C (G + lambda I)^-1 with lambda by validation; D = Y^+ W + (I - Y^+ Y) Z;
    features from D (Theorem 4.1); inputs by the map's preimage (Theorems 5.2 to 5.4).

    Parameters
    ----------
    X : array of shape (n, *shape), uint8 or float, of any framework; on a device it stays there
    y : integer labels of shape (n,), where X is
    feature_map : the map phi on preprocessed inputs
    preprocessing : affine map before phi, by default none
    options, keywords : a ``DistillOptions``, or its fields as keywords
    original : ``Distillation.original`` of the same data and map, to distil that model again without training it

    Raises
    ------
    DataError, NotSurjective, LambdaOutOfRange, NotPositiveDefinite, TypeError, ValueError
    """
    options = replace(options or DistillOptions(), **keywords)
    shape = tuple(np.shape(X)[1:])
    samples = as_samples("distill", X, input_dim=feature_map.input_dim)
    check_device("distill", X=X, y=y)
    n = samples.shape[0]
    labels = as_labels("distill", y, n, n_classes=n_classes)
    k = count_classes("distill", labels, n_classes)
    preprocessing = preprocessing or Preprocessing.none(feature_map.input_dim)
    feature_map.check_surjective()  # before the long part
    watch = Stopwatch(progress)
    backend = get_backend(options.backend, data=samples)
    chain = feature_map.chain(preprocessing)

    validation, train = split(n, options)
    known = np.arange(n) if options.refit else train
    start_rows = choose_real_points(labels, known, k, options) if options.init == "real" else None
    if original is None:
        trained = train_original(samples, labels, k, chain, (validation, train), options, backend, progress)
        original = trained.original
        watch.seconds.update(trained.seconds)
    else:
        check_original("distill", original, k, chain, options)
    if not original.W.any():
        raise DataError("distill: the original model is zero; the features of X carry nothing about y")
    with watch.stage("construct"):
        near = None if start_rows is None else preprocessing.apply(take_rows(samples, start_rows))
        points = _construct(original, feature_map, near, options, backend)
    with watch.stage("preimage"):
        inputs = feature_map.preimage(points.F, near=near, backend=backend)
        targets = points.Y
        stored, encoding = round_inputs(inputs, options.store)
        if options.store != "float64":
            features = feature_map.transform(stored, dtype=np.float64, backend=backend)
            targets = learned_labels(features, original.W, points.lambda_s)
    distilled = DistilledDataset(
        X=stored,
        Y=targets,
        lambda_s=points.lambda_s,
        feature_map=feature_map,
        preprocessing=preprocessing,
        shape=shape,
        encoding=encoding,
        weights=original.W if options.include_weights else None,
        meta=_meta(original, options, backend),
    )
    return Distillation(distilled, original, start_rows, points.range_scale, watch.seconds)


def count_classes(where: str, labels: IntArray, n_classes: int | None = None) -> int:
    """k = n_classes, by default the largest label + 1, where every class has a sample."""
    if labels.size == 0:
        raise DataError(f"{where}: there are no samples")
    k = int(labels.max()) + 1 if n_classes is None else n_classes
    absent = np.setdiff1d(np.arange(k), labels)
    if absent.size:
        raise DataError(f"{where}: y has no sample of class {absent[0]} ({absent.size} of {k} classes are missing)")
    return k


def train_original(
    X: Any,
    y: IntArray,
    k: int,
    chain: Chain,
    rows: tuple[IntArray, IntArray],
    options: DistillOptions,
    backend: Backend,
    progress: Progress | None,
) -> Trained:
    """Statistics once, all lambdas from them, the best one on the held-out part (ties to the larger).

    ``rows`` are the validation and the training rows; with ``options.refit`` the statistics end up with both.
    """
    watch = Stopwatch(progress)
    with watch.stage("statistics") as report:
        statistics = RidgeStatistics(chain, k, precision=options.precision, backend=backend)
        statistics.update(X, y, rows=rows[1], progress=report)
    return Trained(choose_model(statistics, X, y, rows, options, watch), statistics, watch.seconds)


def choose_model(
    statistics: RidgeStatistics,
    X: Any,
    y: IntArray,
    rows: tuple[IntArray, IntArray],
    options: DistillOptions,
    watch: Stopwatch,
) -> Original:
    """The model of the best lambda; ``statistics`` are those of the training rows, and with refit of all rows after."""
    validation, train = rows
    chain, backend, dtype = statistics.chain, statistics.backend, np.dtype(options.precision)
    with watch.stage("ridge"):
        path = ridge_path(statistics, options.lambdas)
        usable = path.weights if path.positive_definite.all() else np.nan_to_num(path.weights)
        correct = backend.score_path(chain, X, y, usable, dtype=dtype, rows=validation)
        path = select(path, correct, len(validation))
        W, lambda_ = path.weights[path.best].copy(), float(path.lambdas[path.best])
        if options.refit:
            W = fit_ridge(statistics.update(X, y, rows=validation), lambda_)
    n_train = X.shape[0] if options.refit else len(train)
    training = {**options.training(), "features": chain.fingerprint()}
    return Original(W, lambda_, path, n_train, len(validation), training)


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


def choose_real_points(labels: IntArray, train_rows: IntArray, k: int, options: DistillOptions) -> IntArray:
    """Rows of points_per_class seeded training points per class, the order of classes repeating.

    Raises ValueError for a class that has fewer.
    """
    ipc = options.points_per_class
    order = train_rows[permutation(options.seed, Stream.REAL_POINTS, len(train_rows))]
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


def _construct(
    original: Original, feature_map: LayeredMap, near: FloatArray | None, options: DistillOptions, backend: Backend
) -> Construction:
    lambda_s = None if isinstance(options.lambda_s, str) else float(options.lambda_s)
    if near is None:
        D, Y = noise_start(original.W, options.points_per_class, seed=options.seed)
    else:
        target = original.lambda_ if lambda_s is None else lambda_s
        D, Y = real_start(original.W, feature_map.transform(near, dtype=np.float64, backend=backend), target)
    if lambda_s:
        D, Y = shrink_to_bound(D, Y, original.W, lambda_s, scale_labels=options.scale_labels)
    return construct(
        D,
        Y,
        lambda_s,
        lambda_=original.lambda_,
        root=options.root,
        feature_limit=feature_map.feature_limit(),
    )


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
        "val_accuracy": float(original.path.val_accuracy[original.path.best]),
        "n_train": original.n_train,
        "n_val": original.n_validation,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that every result depends on."""
    return {
        "krrdistill": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def retrain_original(distilled: DistilledDataset, dataset: Dataset, *, backend: Any = None) -> FloatArray:
    """W of the original model, trained again from the data as the file's meta records."""
    try:
        recorded = dict(distilled.meta["options"], backend=None, lambdas=[distilled.meta["lambda"]])
        options = DistillOptions(**recorded)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"verify: the file does not record how its model was trained ({error})") from error
    X = as_samples("verify", dataset.x_train)
    chain = distilled.feature_map.chain(distilled.preprocessing)
    solver = get_backend(backend)
    rows = split(len(X), options)
    return train_original(X, dataset.y_train, dataset.n_classes, chain, rows, options, solver, None).original.W
