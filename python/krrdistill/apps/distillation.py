"""Runs one distillation from data set to verified file, without printing."""

from __future__ import annotations

import importlib
import math
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.roofline import pass_floor
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import not_exact, too_many_points
from krrdistill.artifact.record import (
    CertificateNumbers,
    ErrorCurve,
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
from krrdistill.errors import ResultWarning
from krrdistill.maps import FeatureMap, given_map, make_map
from krrdistill.options import DistillOptions, class_counts
from krrdistill.pipeline import distill, retrain
from krrdistill.ridge.model import RidgeModel

if TYPE_CHECKING:
    from krrdistill.apps.kip.iteration import KipOptions

__all__ = [
    "RunResult",
    "certificate_numbers",
    "certified",
    "common_facts",
    "map_for",
    "original_of",
    "peak_memory_bytes",
    "run_distillation",
    "score",
]


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run returns besides its file.

    Parameters
    ----------
    record : RunRecord
    distilled : DistilledDataset
        The set, as read back.
    model : RidgeModel
    start_images : array
        The real samples of the start, None for noise.
    singular_values : array
        Singular values of the distilled features, None if the certificate did not need them.
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
    out: Path | str,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
) -> RunResult:
    """Preprocesses, distils, writes ``out``/distilled.npz, reads it back and certifies what was read.

    Parameters
    ----------
    dataset : Dataset
    kernel : str
        As in ``make_map``.
    map_options : mapping, optional
        Options for ``make_map``.
    use_zca : bool
        Whether to whiten (ZCA) instead of standardising.
    options : DistillOptions, optional
    out : Path
        Folder, made where it is missing.
    load_seconds : float
        Seconds that loading the data took, for the record.
    progress : callable, optional
        Called with (stage, fraction done).

    Returns
    -------
    RunResult
    """
    options, out = options or DistillOptions(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    watch = Stopwatch(progress, {"load": load_seconds})
    with limited_threads(options.threads):
        feature_map = map_for(dataset, kernel, map_options, use_zca=use_zca, seed=options.seed, watch=watch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResultWarning)  # the record says it
            result = distill(
                dataset.x_train,
                dataset.train_targets,
                feature_map,
                classes=dataset.classes,
                validation=None if options.selection == "gcv" else dataset.validation,
                options=options,
                progress=progress,
                judge=False,  # what is read back from the file is
            )
        watch.seconds.update(result.seconds)
        path, model = out / "distilled.npz", result.model
        # Judged under another name, so that a set that cannot be read back replaces nothing.
        unverified = out / f".{path.name}.unverified.npz"
        try:
            distilled, certificate = certified(result.distilled, unverified, model, dataset, options, watch)
        finally:
            unverified.unlink(missing_ok=True)
        images = None if result.start_rows is None else dataset.x_train[result.start_rows]
        found = likeness(distilled.samples, images, value_range(dataset), asked=options.realism)
        curve = _error_curve(distilled, model.W) if options.labels_only and not options.intercept else None
        solution = result.solution
        said = [
            *model.statements(),
            too_many_points(distilled, model),
            not_exact(distilled, certificate.weight_relative_error, certificate.prediction_agreement),
        ]
        seconds = {**watch.seconds, "total": load_seconds + time.perf_counter() - start}
        record = RunRecord(
            **common_facts(dataset, kernel, options, model, distilled, certificate),
            init=options.start,
            range_scale=solution.pop("range_scale"),
            solution=Solution(**solution),
            val_r2=model.val_r2,
            lambda_per_target=None if model.lambdas is None else tuple(model.lambdas.tolist()),
            targets=dataset.targets,
            intercept=options.intercept,
            realism=found,
            labels_only=curve,
            seconds=seconds,
            warnings=tuple(sentence for sentence in said if sentence is not None),
            artifact=str(path),
        )
        facts, recorded = to_json(record), ("original", "distilled", "certificate", "seconds")
        distilled = distilled.with_meta(**{key: facts[key] for key in recorded})
        distilled.save(path, embed_map=options.embed_map)
        record = replace(record, artifact_sha256=sha256_of(path))
    return RunResult(record, distilled, model, images, certificate.singular_values)


def map_for(
    dataset: Dataset,
    kernel: str,
    map_options: Mapping[str, Any] | None,
    *,
    use_zca: bool,
    seed: int,
    watch: Stopwatch,
) -> FeatureMap:
    """The named map with the preprocessing of a run."""
    with watch.stage("preprocess"):
        preprocessing = zca(dataset) if use_zca else standardize(dataset)
        return make_map(kernel, dataset, preprocessing, seed=seed, **(map_options or {}))


def certified(
    distilled: DistilledDataset,
    path: Path,
    model: RidgeModel,
    dataset: Dataset,
    options: DistillOptions | KipOptions,
    watch: Stopwatch,
) -> tuple[DistilledDataset, Certificate]:
    """Writes a set, reads it back and certifies what was read."""
    with watch.stage("save"):
        named = distilled.with_meta(dataset=dataset.name, class_names=list(dataset.class_names))
        named.save(path, embed_map=options.embed_map)
        reloaded = DistilledDataset.load(path, feature_map=given_map(distilled.feature_map))
    with watch.stage("evaluate"):
        return reloaded, reloaded.verify(model, test=dataset, backend=options.backend)


def common_facts(
    dataset: Dataset,
    kernel: str,
    options: DistillOptions | KipOptions,
    model: RidgeModel,
    distilled: DistilledDataset,
    certificate: Certificate,
) -> dict[str, Any]:
    """The fields of ``RunRecord`` that every run fills alike."""
    points = distilled.meta["options"]["points_per_class"]
    held_out = model.n_validation if dataset.validation is None else 0
    floor = pass_floor(distilled.feature_map, len(dataset.x_train) - held_out, options.precision)
    return {
        "dataset": dataset.name,
        "kernel": kernel,
        "ipc": tuple(points) if isinstance(points, list) else points,
        "seed": options.seed,
        "store": distilled.store,
        "n_train": model.n_train,
        "n_val": model.n_validation,
        "n_test": len(dataset.x_test),
        "d": dataset.input_dim,
        "p": distilled.feature_map.output_dim,
        "k": dataset.n_classes,
        "m": len(distilled.inputs),
        "lambda_": model.lambda_,
        "lambda_s": distilled.lambda_s,
        "criterion": model.path.criterion,
        "val_accuracy": model.val_accuracy,
        "original": score(certificate, "original"),
        "distilled": score(certificate, "distilled"),
        "certificate": certificate_numbers(certificate),
        "value_range": value_range(dataset),
        "peak_memory_bytes": peak_memory_bytes(),
        "backend": distilled.meta["options"]["backend"],
        "precision": options.precision,
        "floor_seconds": {"statistics": floor},
    }


def original_of(distilled: DistilledDataset, dataset: Dataset, backend: Any) -> RidgeModel | None:
    """The original model of a file, trained again; None if the file holds it."""
    if distilled.weights is not None:
        return None
    return retrain(
        distilled,
        dataset.x_train,
        dataset.train_targets,
        classes=dataset.classes,
        validation=dataset.validation if distilled.meta.get("own_validation") else None,
        backend=backend,
        where="verify",
    )


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
    """The error of learned labels for the first 1, 2, ... points of every class, at most nine sizes."""
    F, counts = distilled.features(), class_counts(len(W), distilled.meta["options"]["points_per_class"])
    at_most = np.unique(np.geomspace(1, max(counts), 9).round().astype(int))
    sizes = [int(np.minimum(counts, count).sum()) for count in at_most]
    return ErrorCurve(m=tuple(sizes), weight_relative_error=tuple(labels_only_errors(F, W, sizes)))


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
