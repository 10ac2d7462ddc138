"""One run from a data set to a certified file: what the command line does, without the printing."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.roofline import pass_floor
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.record import (
    WEIGHT_ERROR_TARGETS,
    CertificateNumbers,
    ErrorCurve,
    Likeness,
    RunRecord,
    Score,
    Solution,
    to_json,
)
from krrdistill.common.files import sha256_of
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.construct.labels import labels_only_errors
from krrdistill.data import Dataset, standardize, zca
from krrdistill.maps import given_map, make_map
from krrdistill.options import DistillOptions
from krrdistill.pipeline import Distillation, distill, retrain
from krrdistill.ridge.model import RidgeModel

__all__ = ["RunResult", "certificate_numbers", "original_of", "peak_memory_bytes", "run_distillation", "score"]


@dataclass(frozen=True, eq=False)
class RunResult:
    """What ``run_distillation`` leaves besides the file.

    Parameters
    ----------
    record : RunRecord
    distilled : DistilledDataset
        As read back.
    model : RidgeModel
    start_images : array
        The real samples of the start, else None.
    singular_values : array
        Of the distilled features, where the certificate needed them, else None.
    """

    record: RunRecord
    distilled: DistilledDataset
    model: RidgeModel
    start_images: npt.NDArray[Any] | None
    singular_values: npt.NDArray[np.float64] | None

    @property
    def report(self) -> dict[str, Any]:
        """The record as report.json has it."""
        return to_json(self.record)


def run_distillation(
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    use_zca: bool = False,
    options: DistillOptions | None = None,
    out: Path,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
) -> RunResult:
    """The command's pipeline: preprocess, distil, write ``out``/distilled.npz, read it back, certify what was read.

    Parameters
    ----------
    dataset : Dataset
    kernel : str
        As in ``make_map``.
    map_options : mapping, optional
        For ``make_map``.
    use_zca : bool
        ZCA whitening in place of standardising.
    options : DistillOptions, optional
    out : Path
        Folder, made where it is missing.
    load_seconds : float
        What reading the data took, for the record.
    progress : callable, optional
        Gets (stage, fraction done).

    Returns
    -------
    RunResult
    """
    options = options or DistillOptions()
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    watch = Stopwatch(progress)
    watch.seconds["load"] = load_seconds
    with limited_threads(options.threads):
        with watch.stage("preprocess"):
            preprocessing = zca(dataset) if use_zca else standardize(dataset)
            feature_map = make_map(kernel, dataset, preprocessing, seed=options.seed, **(map_options or {}))
        result = distill(
            dataset.x_train,
            dataset.train_targets,
            feature_map,
            classes=dataset.classes,
            options=options,
            progress=progress,
        )
        watch.seconds.update(result.seconds)
        path = out / "distilled.npz"
        facts = {"dataset": dataset.name, "class_names": list(dataset.class_names)}
        # Judged under another name, so that a set that cannot be read back replaces nothing.
        unverified = out / f".{path.name}.unverified.npz"
        try:
            with watch.stage("save"):
                result.distilled.with_meta(**facts).save(unverified, embed_map=options.embed_map)
                reloaded = DistilledDataset.load(unverified, feature_map=given_map(feature_map))
            with watch.stage("evaluate"):
                certificate = reloaded.verify(result.model, test=dataset, backend=options.backend)
        finally:
            unverified.unlink(missing_ok=True)
        images = None if result.start_rows is None else dataset.x_train[result.start_rows]
        record = _record(dataset, kernel, options, result, certificate, path)
        curve = _error_curve(reloaded, result.model.W) if options.labels_only and not options.intercept else None
        record = replace(
            record,
            realism=likeness(reloaded.samples, images, record.value_range, asked=options.realism),
            labels_only=curve,
            seconds={**watch.seconds, "total": load_seconds + time.perf_counter() - start},
        )
        with watch.stage("save"):
            facts_of_run = to_json(record)
            keys = ("original", "distilled", "certificate", "seconds")
            reloaded = reloaded.with_meta(**{key: facts_of_run[key] for key in keys})
            reloaded.save(path, embed_map=options.embed_map)
        n_passed = len(dataset.x_train) - record.n_val
        floor = {"statistics": pass_floor(feature_map, n_passed, options.precision)}
        record = replace(record, floor_seconds=floor, artifact_sha256=sha256_of(path))
    return RunResult(record, reloaded, result.model, images, certificate.singular_values)


def _record(
    dataset: Dataset,
    kernel: str,
    options: DistillOptions,
    result: Distillation,
    certificate: Certificate,
    path: Path,
) -> RunRecord:
    """The facts of a run; times, likeness and the curve of labels only are filled in by the caller."""
    meta, distilled = result.distilled.meta, result.distilled
    facts = dict(meta["solution"])
    range_scale = facts.pop("range_scale")
    solution = Solution(**facts)
    deep = solution.method == "exact" and len(distilled.feature_map.layers) > 1
    remedy = _REMEDIES["deep" if deep else solution.method]
    warnings = [*result.model.statements(), _shortfall(certificate, options, remedy)]
    return RunRecord(
        dataset=dataset.name,
        kernel=kernel,
        ipc=options.points_per_class,
        init=options.init,
        seed=options.seed,
        store=options.store,
        n_train=meta["n_train"],
        n_val=meta["n_val"],
        n_test=len(dataset.x_test),
        d=dataset.input_dim,
        p=distilled.feature_map.output_dim,
        k=dataset.n_classes,
        m=len(distilled.inputs),
        lambda_=meta["lambda"],
        lambda_s=distilled.lambda_s,
        range_scale=range_scale,
        solution=solution,
        val_accuracy=meta["val_accuracy"],
        val_r2=meta.get("val_r2"),
        lambda_per_target=meta.get("lambda_per_target"),
        targets=dataset.targets,
        intercept=options.intercept,
        original=score(certificate, "original"),
        distilled=score(certificate, "distilled"),
        certificate=certificate_numbers(certificate),
        realism=Likeness(mse=None, psnr=None, out_of_range=None, asked=None),
        value_range=value_range(dataset),
        peak_memory_bytes=peak_memory_bytes(),
        backend=meta["options"]["backend"],
        precision=options.precision,
        seconds={"total": 0.0},
        floor_seconds={},
        warnings=tuple(warning for warning in warnings if warning is not None),
        artifact=str(path),
    )


def original_of(distilled: DistilledDataset, dataset: Dataset, backend: Any) -> RidgeModel | None:
    """The model that a file has to be compared with, trained again; None where the file holds it."""
    if distilled.weights is not None:
        return None
    return retrain(distilled, dataset.x_train, dataset.train_targets, classes=dataset.classes, backend=backend)


def score(certificate: Certificate, model: str) -> Score:
    """How a model of a certificate, "original" or "distilled", does on the test set."""
    accuracy = getattr(certificate, f"{model}_accuracy")
    per_target = None if certificate.per_target is None else certificate.per_target[model]
    return Score(
        test_accuracy=accuracy if math.isfinite(accuracy) else None,
        test_per_target=None if per_target is None else {name: tuple(of) for name, of in per_target.items()},
    )


def certificate_numbers(certificate: Certificate) -> CertificateNumbers:
    """The four that a record lists."""
    numbers = certificate.numbers()
    return CertificateNumbers(**{name: value if math.isfinite(value) else None for name, value in numbers.items()})


def _error_curve(distilled: DistilledDataset, W: npt.NDArray[np.float64]) -> ErrorCurve:
    """The error of learned labels for the first 1, 2, ... points per class, at most nine sizes."""
    F, k = distilled.features(), len(W)
    per_class = np.unique(np.geomspace(1, len(F) // k, 9).round().astype(int))
    sizes = [int(count) * k for count in per_class]
    return ErrorCurve(m=tuple(sizes), weight_relative_error=tuple(labels_only_errors(F, W, sizes)))


_REMEDIES = {
    "exact": "use more points per class, or float64 storage",
    "deep": "deep maps lose digits in their preimage: use fewer layers, more points per class, or float64 storage",
    "nearest": "the nearest exact set is ill-conditioned: use more points per class, or less realism",
    "approximate": "the map has no exact preimage, its inputs are approximate: use more points per class",
    "labels_only": "labels for kept inputs are exact from p independent points on: use more points per class",
}


def _shortfall(certificate: Certificate, options: DistillOptions, remedy: str) -> str | None:
    """What to say when the file does not retrain to the model as well as its storage should."""
    error, target = certificate.weight_relative_error, WEIGHT_ERROR_TARGETS[options.store]
    if error <= target:
        return None
    agreement = certificate.prediction_agreement
    return (
        f"NOT EXACT: the model retrained from the file is off by {error:.2g} (target {target:.0e} for "
        f"{options.store} storage) and agrees on {agreement:.2%} of the predictions; {remedy}"
    )


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process so far; None where the system does not tell.

    VmHWM where /proc has it: ru_maxrss starts from the peak of the parent process on Linux.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        resource = importlib.import_module("resource")  # of POSIX only
    except ImportError:
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024
