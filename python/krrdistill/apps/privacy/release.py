"""A private release from a data set to a file: clip, perturb, distil the noisy model, write it with its labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from krrdistill.apps.privacy.budget import ReleaseOptions
from krrdistill.apps.privacy.clipping import clipped_statistics
from krrdistill.apps.privacy.mechanisms import PrivateModel, perturb
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.construct.closed_form import construct, learned_labels, noise_start
from krrdistill.construct.storage import round_inputs
from krrdistill.data import Dataset, Preprocessing, standardize
from krrdistill.errors import DataError
from krrdistill.maps import LayeredMap, given_map, make_map
from krrdistill.pipeline import versions

__all__ = ["GUARANTEE", "PrivateRelease", "default_norm_bound", "private_release", "public_inputs"]

GUARANTEE = (
    "The whole file is (epsilon, delta)-differentially private, labels included.",
    "Neighbours are training sets of n samples of which one, its input and its label, is replaced by any other.",
    "Public, not protected: n, the classes, the shape of a sample, the preprocessing, the map, its seed, B and lambda.",
    "Not covered: the test set, and what was chosen by looking at the data (kernel, B, lambda, the number of tries).",
    "A second release of the same data adds its epsilon and delta.",
    "The noise has statistical quality: Philox bits under a secret key, rounded to float64.",
)


@dataclass(frozen=True, eq=False)
class PrivateRelease:
    """The file as read back, the model in it, and its certificate on the test set (which is not in the file)."""

    distilled: DistilledDataset
    model: PrivateModel
    certificate: Certificate
    seconds: Mapping[str, float]


def default_norm_bound(feature_map: LayeredMap) -> float:
    """B without a look at the data: the root mean square norm of features of independent standardised inputs.

    1 for features with a cosine, else sqrt(p prod (1 + slope^2) / 2) over the layers with LeakyReLU; sqrt(p) without.
    """
    if math.isfinite(feature_map.feature_limit()):
        return 1.0
    slopes = (layer.parameter for layer in feature_map.layers if layer.activation == "leaky_relu")
    return math.sqrt(feature_map.output_dim * math.prod(0.5 * (1.0 + slope * slope) for slope in slopes))


def public_inputs(
    dataset: Dataset, kernel: str, map_options: Mapping[str, Any], *, seed: int
) -> tuple[Preprocessing, LayeredMap]:
    """(preprocessing, map) that owe nothing to the training data: published constants, or raw inputs.

    Raises DataError for a Fourier map whose sigma2 would have to be found from the data.
    """
    preprocessing = standardize(dataset)
    if preprocessing.constants.get("source") != "published":
        preprocessing = Preprocessing.none(dataset.input_dim)
        if kernel.endswith("_fourier") and map_options.get("sigma2") is None:
            raise DataError(
                f"privacy: {kernel} needs sigma2: finding it from {dataset.name} would look at the private data"
            )
    return preprocessing, make_map(kernel, dataset, preprocessing, seed=seed, **map_options)


def private_release(
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    options: ReleaseOptions,
    out: Path,
    progress: Progress | None = None,
) -> PrivateRelease:
    """Writes ``out``/distilled.npz: a distilled set, with labels and W, of a private model of all training samples.

    Z is noise and lambda_S = 0; real starts would show images. Raises NotSurjective, DataError.
    """
    if options.mechanism is None:
        raise ValueError("privacy: a release needs a mechanism, statistics or output")
    dataset.check_classes("privacy")
    watch = Stopwatch(progress)
    preprocessing, feature_map = public_inputs(dataset, kernel, map_options or {}, seed=options.seed)
    feature_map.check_surjective()
    B = default_norm_bound(feature_map) if options.norm_bound is None else options.norm_bound
    with threadpoolctl.threadpool_limits(limits=options.threads):
        with watch.stage("statistics") as report:
            chain = feature_map.chain(preprocessing)
            clipped = clipped_statistics(
                dataset.x_train,
                dataset.y_train,
                chain,
                dataset.n_classes,
                norm_bound=B,
                backend=options.backend,
                progress=report,
            )
        with watch.stage("noise"):
            model = perturb(clipped, options.mechanism, options.budget, lambda_=options.lambda_)
        with watch.stage("construct"):
            distilled = _distil(model, feature_map, options)
        meta = {
            "privacy": _facts(model),
            "options": {"precision": "float64", "store": options.store, "init": "noise"},
            "lambda": model.lambda_,
            "n_train": model.n,
            "dataset": dataset.name,
            "class_names": list(dataset.class_names),
            "versions": versions(),
        }
        path = out / "distilled.npz"
        with watch.stage("save"):
            complete = DistilledDataset(
                **distilled,
                feature_map=feature_map,
                preprocessing=preprocessing,
                shape=dataset.shape,
                weights=model.W,
                meta=meta,
            )
            complete.save(path)
            loaded = DistilledDataset.load(path, feature_map=given_map(feature_map))
        with watch.stage("evaluate"):
            certificate = loaded.verify(dataset, backend=options.backend)
    return PrivateRelease(loaded, model, certificate, watch.seconds)


def _distil(model: PrivateModel, feature_map: LayeredMap, options: ReleaseOptions) -> dict[str, Any]:
    """X, its encoding, Y and lambda_S: from the noisy W and public numbers only."""
    D, Y = noise_start(model.W, options.points_per_class, seed=options.seed)
    points = construct(D, Y, 0.0, lambda_=model.lambda_, feature_limit=feature_map.feature_limit())
    X, encoding = round_inputs(feature_map.preimage(points.F, backend=options.backend), options.store)
    Y = points.Y
    if options.store != "float64":
        Y = learned_labels(feature_map.transform(X, dtype=np.float64, backend=options.backend), model.W, 0.0)
    return {"X": X, "encoding": encoding, "Y": np.asarray(Y), "lambda_s": 0.0}


def _facts(model: PrivateModel) -> dict[str, Any]:
    """What the file says about its guarantee; nothing in it depends on the data."""
    return {
        "mechanism": model.mechanism,
        "epsilon": model.budget.epsilon,
        "delta": model.budget.delta,
        "neighbours": "one sample replaced, n public",
        "norm_bound": model.norm_bound,
        "lambda": model.lambda_,
        "sensitivity": model.sensitivity,
        "noise_std": model.noise_std,
        "guarantee": list(GUARANTEE),
    }
