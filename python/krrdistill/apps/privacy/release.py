"""A private release from a data set to a file: clip, perturb, distil the noisy model, write it with its labels."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from krrdistill.apps.folder import output_folder
from krrdistill.apps.privacy.budget import ReleaseOptions
from krrdistill.apps.privacy.clipping import clipped_statistics
from krrdistill.apps.privacy.ledger import LedgerTotal, charge
from krrdistill.apps.privacy.mechanisms import (
    PrivateModel,
    default_lambda,
    perturb,
    release_rho,
    released_sensitivity,
)
from krrdistill.apps.privacy.noise import SECONDS_PER_NUMBER, opendp
from krrdistill.apps.privacy.public import unexplained
from krrdistill.apps.run_kind import RELEASE, RunKind
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import versions
from krrdistill.artifact.record import plain
from krrdistill.common.files import unverified, write_atomically
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.common.warning import warn
from krrdistill.construct.closed_form import construct, gaussian_start
from krrdistill.construct.labels import learned_labels
from krrdistill.construct.storage import round_inputs
from krrdistill.data import Dataset, Preprocessing, standardize
from krrdistill.errors import DataError, ResultWarning
from krrdistill.maps import FeatureMap, given_map, make_map
from krrdistill.options import PointsPerClass
from krrdistill.problem import points_of_classes

__all__ = ["GUARANTEE", "PrivateRelease", "default_norm_bound", "private_release", "public_inputs", "release_into"]

_LONG_NOISE = 30.0  # seconds that a user is told of beforehand
GUARANTEE = (
    "The whole file is (epsilon, delta)-differentially private, labels included.",
    "Neighbours are training sets of n samples of which one, its input and its label, is replaced by any other.",
    "Public, not protected: n, the classes, the shape of a sample, the preprocessing, the map, its seed, B and lambda.",
    "Not covered: the test set, and what was chosen by looking at the data (kernel, B, lambda, the number of tries).",
    "Not covered: how long the run took, and whether it failed.",
    "Releases of the same data add up: total_epsilon is of all in the ledger, null where no ledger was given.",
    "It holds in floating point: features are rounded to a grid on which their sums are exact, in whatever order.",
    "The noise is discrete Gaussian on integers (OpenDP); the rounding before it is part of the sensitivity.",
    "Assumed: a sample's features are computed from that sample alone, and sums are in IEEE double precision.",
    "Assumed: OpenDP samples exactly, from the randomness of the operating system.",
)
_OF_MECHANISM = {
    "statistics": (),
    "output": (
        "Rounding errors of W are part of the sensitivity: bounded by Cholesky's backward error, the residual checked.",
    ),
}


@dataclass(frozen=True, eq=False)
class PrivateRelease:
    """The file as read back, the model in it, and its certificate on the test set (which is not in the file)."""

    distilled: DistilledDataset
    model: PrivateModel
    total: LedgerTotal | None  # of the ledger; None without one
    certificate: Certificate
    seconds: Mapping[str, float]
    report: Mapping[str, Any]  # what release.json says


def default_norm_bound(feature_map: FeatureMap) -> float:
    """B without a look at the data: the root mean square norm of features of independent standardised inputs.

    1 for features with a cosine, else sqrt(p prod (1 + slope^2) / 2) over the layers with LeakyReLU; sqrt(p) without.
    """
    if math.isfinite(feature_map.feature_limit()):
        return 1.0
    slopes = (layer.parameter for layer in feature_map.layers if layer.activation == "leaky_relu")
    return math.sqrt(feature_map.output_dim * math.prod(0.5 * (1.0 + slope * slope) for slope in slopes))


def public_inputs(dataset: Dataset, kernel: str, map_options: Mapping[str, Any], *, seed: int) -> FeatureMap:
    """A map that owes nothing to the training data: with published constants, or on raw inputs.

    Raises DataError for a Fourier map whose sigma2 would have to be found from the data, and for a map of the user's
    own with another preprocessing, whose constants would be in the file.
    """
    preprocessing = standardize(dataset)
    if not _is_public(preprocessing):
        preprocessing = Preprocessing.none(dataset.input_dim)
        if kernel.endswith("_fourier") and map_options.get("sigma2") is None:
            raise DataError(
                f"privacy: {kernel} needs sigma2: finding it from {dataset.name} would look at the private data"
            )
    made = make_map(kernel, dataset, preprocessing, seed=seed, **map_options)
    if not _is_public(made.preprocessing):
        raise DataError(
            f"privacy: the map {kernel} brings a preprocessing ({made.preprocessing.kind}) that was measured on data, "
            "and the file would hold its constants: give the map without one"
        )
    return made


def _is_public(preprocessing: Preprocessing) -> bool:
    """Whether nothing of it was measured: there is none, or its constants are published ones."""
    return preprocessing.kind == "none" or preprocessing.constants.get("source") == "published"


def private_release(
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    options: ReleaseOptions,
    out: Path,
    progress: Progress | None = None,
) -> PrivateRelease:
    """Writes a distilled set, with labels and W, of a private model of all training samples, and its release.json.

    ``out``, made where it is missing, gets both files or none. Z is noise and lambda_S = 0; real starts would show
    images. The release is entered in ``options.ledger`` before its noise is drawn. Raises NotSurjective,
    BackendUnavailable without OpenDP, and DataError; that also for a folder that is not empty, and where the ledger's
    total would exceed ``options.budget_epsilon``. Raises KrrDistillError for a folder that cannot be written, or that
    another release has.
    """
    with output_folder(Path(out), RunKind.RELEASE) as folder:
        return release_into(folder, dataset, kernel=kernel, map_options=map_options, options=options, progress=progress)


def release_into(
    out: Path,
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    options: ReleaseOptions,
    progress: Progress | None = None,
) -> PrivateRelease:
    """``private_release`` into a folder that is this process's own."""
    if options.mechanism is None:
        raise ValueError("privacy: a release needs a mechanism, statistics or output")
    dataset.check_classes("privacy")
    points = points_of_classes("privacy", options.points_per_class, dataset.n_classes, dataset.classes)
    if options.ledger is not None and options.ledger.resolve().parent == out.resolve():
        raise DataError(
            f"privacy: --ledger {options.ledger} lies in the folder of the release, {out}, whose files are published: "
            "keep it with the data"
        )
    opendp()
    watch = Stopwatch(progress)
    feature_map = public_inputs(dataset, kernel, map_options or {}, seed=options.seed)
    feature_map.check_surjective()
    _say_time(options.mechanism, dataset.n_classes, feature_map.output_dim)
    _say_delta(options.budget.delta, len(dataset.x_train))
    B = default_norm_bound(feature_map) if options.norm_bound is None else options.norm_bound
    n, p = len(dataset.x_train), feature_map.output_dim
    lambda_ = options.lambda_
    if lambda_ is None:
        lambda_ = default_lambda(options.mechanism, options.budget, B, n, p)
    released_sensitivity(options.mechanism, lambda_, B, n, p)  # refuses what has none, before anything is spent
    with limited_threads(options.threads):
        with watch.stage("statistics") as report:
            clipped = clipped_statistics(
                dataset.x_train,
                dataset.y_train,
                feature_map,
                dataset.n_classes,
                norm_bound=B,
                backend=options.backend,
                progress=report,
            )
        with watch.stage("noise") as report:
            total = _enter(options, dataset)
            model = perturb(clipped, options.mechanism, options.budget, lambda_=lambda_, progress=report)
        with watch.stage("construct"):
            distilled = _distil(model, feature_map, options, points)
        meta = {
            "privacy": _facts(model, total),
            "options": {
                "precision": "float64",
                "store": options.store,
                "init": "noise",
                "points_per_class": plain(points),
            },
            "lambda": model.lambda_,
            "n_train": model.n,
            "dataset": dataset.name,
            "class_names": list(dataset.class_names),
            "versions": versions(),
        }
        path, report_path = out / "distilled.npz", out / RELEASE
        judged = unverified(path)
        try:
            with watch.stage("save"):
                complete = DistilledDataset(
                    **distilled,
                    feature_map=feature_map,
                    shape=dataset.shape,
                    classes=dataset.classes,
                    weights=model.W,
                    meta=meta,
                )
                complete.save(judged)
                _check_fields(judged)
                loaded = DistilledDataset.load(judged, feature_map=given_map(feature_map))
            with watch.stage("evaluate"):
                certificate = loaded.verify(test=dataset, backend=options.backend)
            facts = _report(kernel, loaded, certificate)
            text = json.dumps(plain(facts), indent=2, allow_nan=False) + "\n"
            write_atomically(report_path, lambda stream: stream.write(text.encode()))
            os.replace(judged, path)
        except BaseException:
            for each in (judged, report_path, path):
                each.unlink(missing_ok=True)
            raise
    return PrivateRelease(loaded, model, total, certificate, watch.seconds, facts)


def _report(kernel: str, distilled: DistilledDataset, certificate: Certificate) -> dict[str, Any]:
    """What release.json says."""
    meta = distilled.meta
    return {
        "dataset": meta["dataset"],
        "kernel": kernel,
        "ipc": meta["options"]["points_per_class"],
        "m": len(distilled.inputs),
        "release": meta["privacy"],
        "private": {"test_accuracy": certificate.original_accuracy},
        "distilled": {"test_accuracy": certificate.distilled_accuracy},
        "certificate": certificate.numbers(),
        "limits": meta["privacy"]["guarantee"],
    }


def _say_time(mechanism: str, k: int, p: int) -> None:
    """A warning where the noise takes long."""
    numbers = k * p + (p * (p + 1) // 2 if mechanism == "statistics" else 0)
    seconds = numbers * SECONDS_PER_NUMBER
    if seconds > _LONG_NOISE:
        warn(
            f"privacy: exact noise for {numbers:,} numbers takes about {seconds / 60:.1f} minutes",
            ResultWarning,
        )


def _say_delta(delta: float, n: int) -> None:
    """A warning where delta promises next to nothing."""
    if delta * n >= 1.0:
        warn(
            f"privacy: delta = {delta:g} is 1/n or more, with n = {n}: even who publishes one sample, drawn at random, "
            "keeps such a promise; take a delta well below 1/n",
            ResultWarning,
        )


def _enter(options: ReleaseOptions, dataset: Dataset) -> LedgerTotal | None:
    """The total with this release, which counts from here on; None without a ledger."""
    if options.ledger is None or options.mechanism is None:
        return None
    rho, n, limit = release_rho(options.budget), len(dataset.x_train), options.budget_epsilon
    return charge(options.ledger, dataset.name, n, options.mechanism, options.budget, rho, limit)


def _check_fields(path: Path) -> None:
    """Raises DataError for a file that holds more than PUBLIC has reasons for."""
    found = unexplained(path)
    if found:
        raise DataError(f"privacy: the file would hold {', '.join(found)}, which nothing says is public; removed")


def _distil(
    model: PrivateModel, feature_map: FeatureMap, options: ReleaseOptions, points_per_class: PointsPerClass
) -> dict[str, Any]:
    """Inputs, their encoding, Y and lambda_S: from the noisy W and public numbers only."""
    D, Y = gaussian_start(model.W, points_per_class, seed=options.seed)
    points = construct(D, Y, 0.0, lambda_=model.lambda_, feature_limit=feature_map.feature_limit())
    U, encoding = round_inputs(feature_map.standard_preimage(points.F, backend=options.backend), options.store)
    Y = points.Y
    if options.store != "float64":
        F = feature_map.on_standardised.transform(U, dtype=np.float64, backend=options.backend)
        Y = learned_labels(F, model.W, 0.0)
    return {"inputs": U, "encoding": encoding, "Y": np.asarray(Y), "lambda_s": 0.0}


def _facts(model: PrivateModel, total: LedgerTotal | None) -> dict[str, Any]:
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
        "rho": model.rho,
        "releases": None if total is None else total.releases,
        "total_rho": None if total is None else total.rho,
        "total_epsilon": None if total is None else total.epsilon,
        "guarantee": [*GUARANTEE, *_OF_MECHANISM[model.mechanism]],
    }
