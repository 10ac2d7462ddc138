"""Runs one distillation from data set to verified file, without printing."""

from __future__ import annotations

import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.roofline import pass_floor, search_notice
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import not_exact, stopped_early, too_many_points
from krrdistill.artifact.record import (
    CertificateNumbers,
    ErrorCurve,
    RunRecord,
    Score,
    Solution,
    to_json,
)
from krrdistill.common.files import reserve_unverified, sha256_of
from krrdistill.common.options import as_word, declared_options, differing
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.construct.labels import labels_only_errors
from krrdistill.construct.points import approximate_search
from krrdistill.data import Dataset, standardize, zca
from krrdistill.data.labels import label_names
from krrdistill.errors import ResultWarning
from krrdistill.maps import FeatureMap, given_map, make_map
from krrdistill.options import NAMED, DistillOptions, MapOptions, class_counts
from krrdistill.pipeline import Distillation, Trained, distill_model, distill_problem, retrain
from krrdistill.problem import Problem
from krrdistill.ridge.held_out import HeldOutRows
from krrdistill.ridge.model import RidgeModel, fit_model
from krrdistill.ridge.statistics import RidgeStatistics

if TYPE_CHECKING:
    from krrdistill.apps.kip.iteration import KipOptions

__all__ = [
    "PreparedRun",
    "RunData",
    "RunResult",
    "asked_of_map",
    "certificate_numbers",
    "certified",
    "common_facts",
    "map_for",
    "original_of",
    "peak_memory_bytes",
    "prepare_run",
    "run_distillation",
    "run_from_statistics",
    "run_points",
    "score",
    "written",
]


@dataclass(frozen=True, eq=False)
class RunResult:
    """Result of a run besides its files.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    record : RunRecord
    distilled : DistilledDataset
        The set, as read back from its file.
    model : RidgeModel
    start_images : array
        The real samples that the points were initialised from; None for noise.
    certificate : Certificate
        Certificate of the set that was read back.
    """

    record: RunRecord
    distilled: DistilledDataset
    model: RidgeModel
    start_images: npt.NDArray[Any] | None
    certificate: Certificate

    def __repr__(self) -> str:
        return f"RunResult({self.record.title}: {self.distilled!r}, {self.record.artifact})"

    @property
    def report(self) -> dict[str, Any]:
        """The record as report.json has it."""
        return to_json(self.record)


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run knows of its data besides the model.

    Parameters
    ----------
    name : str
    class_names : sequence of str
        Of classes or targets.
    test : (X, y), optional
        The test set.
    value_range : (lowest, highest), optional
        Of the raw samples; None where none were seen.
    summed : bool
        Whether the run passed over the data, or was given their statistics.
    """

    name: str
    class_names: tuple[str, ...]
    test: tuple[Any, Any] | None
    value_range: tuple[float, float] | None
    summed: bool = True

    @staticmethod
    def of(dataset: Dataset) -> RunData:
        """All of a data set."""
        test = (dataset.x_test, dataset.test_targets)
        return RunData(dataset.name, dataset.class_names, test, value_range(dataset.x_train))


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A data set with its map and split: runs that share their model have it in common (``run_points``).

    Parameters
    ----------
    dataset : Dataset
    data : RunData
        What the record says of it.
    kernel : str
        As in ``make_map``.
    asked : mapping
        What the map and its preprocessing were asked for, as in ``RunRecord``.
    problem : Problem
    seconds : mapping
        Seconds of each stage so far.
    elapsed : float
        Seconds of all of it.
    """

    dataset: Dataset
    data: RunData
    kernel: str
    asked: Mapping[str, str]
    problem: Problem
    seconds: Mapping[str, float]
    elapsed: float


def prepare_run(
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    use_zca: bool = False,
    options: DistillOptions,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
) -> PreparedRun:
    """The map and the split of a run; parameters are those of ``run_distillation``."""
    start = time.perf_counter() - load_seconds
    watch = Stopwatch(progress, {"load": load_seconds})
    with limited_threads(options.threads):
        feature_map = map_for(dataset, kernel, map_options, use_zca=use_zca, seed=options.seed, watch=watch)
        problem = Problem.of(
            "distill",
            dataset.x_train,
            dataset.train_targets,
            feature_map,
            options,
            classes=dataset.classes,
            validation=None if options.selection == "gcv" else dataset.validation,
        )
    asked, data = asked_of_map(map_options, use_zca=use_zca), RunData.of(dataset)
    return PreparedRun(dataset, data, kernel, asked, problem, watch.seconds, time.perf_counter() - start)


def run_points(
    prepared: PreparedRun,
    options: DistillOptions,
    trained: Trained | None = None,
    *,
    out: Path,
    progress: Progress | None = None,
) -> RunResult:
    """Distils, writes ``out``/distilled.npz, reads it back and certifies what was read.

    ``trained`` is the model of the prepared run where it was trained already; its seconds count as those of this run.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = prepared.elapsed + (0.0 if trained is None else sum(trained.seconds.values()))
    start = time.perf_counter() - earlier
    watch = Stopwatch(progress, prepared.seconds)
    with limited_threads(options.threads):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResultWarning)  # the record says it
            result = distill_problem(prepared.problem.with_points(options), trained, progress=progress)
        watch.seconds.update(result.seconds)
        images = None if result.start_rows is None else prepared.dataset.x_train[result.start_rows]
        return written(result, prepared.data, prepared.kernel, options, out, watch, start, images, asked=prepared.asked)


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
    say: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Preprocess and distil a data set, write ``out``/distilled.npz, read it back and verify it.

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
        Folder for the file. It is created if it does not exist.
    load_seconds : float
        Seconds that loading the data took, for the report.
    progress : callable, optional
        Called with (stage, fraction done).
    say : callable
        Called with a line about the search for the points, if there is one, before it starts.

    Returns
    -------
    RunResult
    """
    options, out = options or DistillOptions(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare_run(
        dataset,
        kernel=kernel,
        map_options=map_options,
        use_zca=use_zca,
        options=options,
        load_seconds=load_seconds,
        progress=progress,
    )
    _say_search(prepared.problem.feature_map, options, say)
    return run_points(prepared, options, out=out, progress=progress)


def run_from_statistics(
    statistics: RidgeStatistics,
    *,
    validation: HeldOutRows | None = None,
    test: tuple[Any, Any] | None = None,
    options: DistillOptions | None = None,
    out: Path | str,
    name: str,
    kernel: str | None = None,
    class_names: Sequence[str] = (),
    load_seconds: float = 0.0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """``run_distillation`` without the data: model and points from statistics, the same file and certificate.

    Parameters
    ----------
    statistics : RidgeStatistics
    validation : HeldOutRows, optional
        Samples that lambda is chosen by; without them it is ``selection`` = "gcv", or the one of ``lambdas``.
    test : (X, y), optional
        The test set; without one the certificate compares the weights alone.
    options : DistillOptions, optional
        What concerns data is not looked at.
    out : Path
        Folder for the file. It is created if it does not exist.
    name : str
        What the record calls the data.
    kernel : str, optional
        What the record calls the map, by default its own name.
    class_names : sequence of str, optional
        By default the labels of the statistics.
    load_seconds, progress, say
        As in ``run_distillation``.

    Returns
    -------
    RunResult
    """
    options, out = options or DistillOptions(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    watch = Stopwatch(progress, {"load": load_seconds})
    of_points = replace(options, **{**DistillOptions().training(), "seed": options.seed})
    _say_search(statistics.feature_map, of_points, say)
    with limited_threads(options.threads):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResultWarning)  # the record says it
            with watch.stage("ridge"):
                model = fit_model(
                    statistics,
                    options.lambdas,
                    validation=validation,
                    selection=options.selection,
                    center=options.center,
                    per_target=options.lambda_per_target,
                )
            distilled = distill_model(model, options=of_points, watch=watch, judge=False)
        seen = validation.X if validation is not None else None if test is None else test[0]
        limits = None if seen is None else value_range(seen)
        names = tuple(class_names) or label_names(statistics.classes, statistics.k)
        data = RunData(name, names, test, limits, summed=False)
        result = Distillation(distilled, model, None, watch.seconds)
        kernel = kernel or model.feature_map.kernel
        return written(result, data, kernel, options, out, watch, start - load_seconds, None)


def _say_search(feature_map: FeatureMap, options: DistillOptions, say: Callable[[str], None]) -> None:
    """The line about the search for the points of a run, if there is one."""
    nearest = options.realism is not None
    said = search_notice(feature_map, options.max_seconds) if nearest else approximate_search(feature_map, options)
    if said is not None:
        say(said)


def written(
    result: Distillation,
    data: RunData,
    kernel: str,
    options: DistillOptions,
    out: Path,
    watch: Stopwatch,
    start: float,
    images: npt.NDArray[Any] | None,
    *,
    asked: Mapping[str, str] | None = None,
) -> RunResult:
    """Writes ``out``/distilled.npz, reads it back and certifies what was read; ``images`` are the start's."""
    path, model = out / "distilled.npz", result.model
    # Judged under another name, so that a set that cannot be read back replaces nothing.
    judged = reserve_unverified(path)
    try:
        distilled, certificate = certified(result.distilled, judged, model, data, options, watch)
    finally:
        judged.unlink(missing_ok=True)
    curve = _error_curve(distilled, model.W) if options.labels_only and not options.intercept else None
    solution, agreement = result.solution, certificate.prediction_agreement
    said = [
        *model.statements(),
        stopped_early(distilled),
        too_many_points(distilled, model),
        not_exact(distilled, certificate.weight_relative_error, None if data.test is None else agreement),
    ]
    record = RunRecord(
        **common_facts(data, kernel, options, model, distilled, certificate),
        init=options.start,
        asked={**(asked or {}), **differing(options, never=NAMED)},
        noise=options.noise if options.start == "noise" else None,
        range_scale=solution.pop("range_scale"),
        solution=Solution(**solution),
        val_r2=model.val_r2,
        lambda_per_target=None if model.lambdas is None else tuple(model.lambdas.tolist()),
        targets=model.targets,
        intercept=options.intercept,
        realism=likeness(distilled.samples, images, data.value_range, asked=options.realism),
        labels_only=curve,
        seconds={**watch.seconds, "total": time.perf_counter() - start},
        warnings=tuple(sentence for sentence in said if sentence is not None),
        artifact=str(path),
    )
    facts, recorded = to_json(record), ("original", "distilled", "certificate", "seconds")
    distilled = distilled.with_meta(**{key: facts[key] for key in recorded})
    distilled.save(path, embed_map=options.embed_map)
    record = replace(record, artifact_sha256=sha256_of(path))
    return RunResult(record, distilled, model, images, certificate)


def map_for(
    data: Any,
    kernel: str,
    map_options: Mapping[str, Any] | None,
    *,
    use_zca: bool,
    seed: int,
    watch: Stopwatch,
    name: str = "",
    layout: str | None = None,
) -> FeatureMap:
    """The named map with the preprocessing of a run, for a data set, or for samples of a named one."""
    with watch.stage("preprocess"):
        preprocessing = zca(data, name=name) if use_zca else standardize(data, layout=layout, name=name)
        made = make_map(kernel, data, preprocessing, seed=seed, layout=layout, name=name, **(map_options or {}))
    if use_zca and made.preprocessing.kind != "zca":
        raise ValueError(f"{kernel} has a preprocessing of its own, {made.preprocessing.kind}: leave zca (--zca) out")
    return made


def asked_of_map(map_options: Mapping[str, Any] | None, *, use_zca: bool) -> dict[str, str]:
    """What a map and its preprocessing were asked for, as ``differing`` has it of options."""
    given = {name: value for name, value in (map_options or {}).items() if value is not None}
    found = {each.cli_name: as_word(given[each.name]) for each in declared_options(MapOptions) if each.name in given}
    return {**found, **({"zca": ""} if use_zca else {})}


def certified(
    distilled: DistilledDataset,
    path: Path,
    model: RidgeModel,
    data: RunData,
    options: DistillOptions | KipOptions,
    watch: Stopwatch,
) -> tuple[DistilledDataset, Certificate]:
    """Writes a set, reads it back and certifies what was read."""
    with watch.stage("save"):
        named = distilled.with_meta(dataset=data.name, class_names=list(data.class_names))
        named.save(path, embed_map=options.embed_map)
        reloaded = DistilledDataset.load(path, feature_map=given_map(distilled.feature_map))
    with watch.stage("evaluate"):
        return reloaded, reloaded.verify(model, test=data.test, backend=options.backend)


def common_facts(
    data: RunData,
    kernel: str,
    options: DistillOptions | KipOptions,
    model: RidgeModel,
    distilled: DistilledDataset,
    certificate: Certificate,
) -> dict[str, Any]:
    """The fields of ``RunRecord`` that every run fills alike."""
    points = distilled.meta["options"]["points_per_class"]
    floor = {"statistics": pass_floor(distilled.feature_map, model.n_train, model.precision)} if data.summed else {}
    return {
        "dataset": data.name,
        "kernel": kernel,
        "ipc": tuple(points) if isinstance(points, list) else points,
        "zca": distilled.preprocessing.kind == "zca",
        "seed": options.seed,
        "store": distilled.store,
        "n_train": model.n_train,
        "n_val": model.n_validation,
        "n_test": 0 if data.test is None else len(data.test[0]),
        "d": distilled.feature_map.input_dim,
        "p": distilled.feature_map.output_dim,
        "k": len(model.W),
        "m": len(distilled.inputs),
        "lambda_": model.lambda_,
        "lambda_s": distilled.lambda_s,
        "criterion": model.path.criterion or "request",
        "val_accuracy": model.val_accuracy,
        "original": score(certificate, "original"),
        "distilled": score(certificate, "distilled"),
        "certificate": certificate_numbers(certificate),
        "value_range": data.value_range,
        "peak_memory_bytes": peak_memory_bytes(),
        "backend": distilled.meta["options"]["backend"],
        "precision": model.precision,
        "floor_seconds": floor,
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
