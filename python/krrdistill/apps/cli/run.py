"""The work behind each command: call the library, draw, write, print."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.inputs import about, load_data, load_statistics, named_map, recorded_dataset, test_part
from krrdistill.apps.cli.settings import (
    DistillSettings,
    KipSettings,
    VerifySettings,
    command_line,
    verify_line,
)
from krrdistill.apps.drawing import require_drawing
from krrdistill.apps.folder import Existing, RunKind, output_folder
from krrdistill.apps.tracking import Tracker, tracked
from krrdistill.artifact.record import WEIGHT_ERROR_TARGETS, RunRecord, Verification, to_json
from krrdistill.common.arrays import check_number
from krrdistill.common.options import option_values
from krrdistill.errors import BackendUnavailable

if TYPE_CHECKING:
    from krrdistill.artifact.file import DistilledDataset
    from krrdistill.data import Dataset
    from krrdistill.ridge.model import RidgeModel

R = TypeVar("R", bound=RunRecord)
ROUNDING_AT_MOST = 1e-2  # a larger error has another cause
RETRAINED_TOLERANCE = 1e-4  # where the original itself was retrained from float32 statistics


def run_distill(settings: DistillSettings, *, as_json: bool) -> int:
    """Distil one data set; write the artefact, two figures, the report and its page; print the outcome."""
    from krrdistill.apps.distillation import run_distillation

    require_drawing()
    existing = Existing.of(settings.out, overwrite=settings.overwrite)
    with (
        output_folder(settings.folder, RunKind.DISTILL, existing, say=status.note) as folder,
        tracked_run(settings, folder) as tracker,
        output.stage_progress(tracker=tracker) as progress,
    ):
        start = time.perf_counter()
        progress("load", 0.0)
        dataset = load_data(settings, targets=settings.targets)
        load_seconds = time.perf_counter() - start
        result = run_distillation(
            dataset,
            kernel=settings.map_options.kernel,
            map_options=settings.map_options.given(),
            use_zca=settings.zca,
            options=settings.options,
            out=folder,
            load_seconds=load_seconds,
            progress=progress,
            say=status.note,
        )
        from krrdistill.apps.report.write import write_run

        record = of_command(result.record, folder, settings, with_path=True)
        write_run(folder, record, result)
        tracker.outcome(record)
    say_validation(dataset, record.n_val)
    show_record(record, as_json, output.print_summary)
    return status.OK


def say_validation(dataset: Dataset, n_val: int) -> None:
    """One line where lambda was chosen by a validation set of its own, or could have been."""
    if dataset.validation is not None:
        of = f"{len(dataset.x_validation)} samples of the validation part of {dataset.name}"
        status.say(
            f"note: lambda was chosen by the {of}" if n_val else f"note: the {of} were not used: GCV holds none out"
        )


def of_command(
    record: R,
    folder: Path,
    settings: DistillSettings | KipSettings,
    *,
    with_path: bool = False,
    statistics: str | None = None,
) -> R:
    """The record of a run with what only its command knows, and the picture of its lambda path where it has one."""
    from krrdistill.apps.report.write import in_folder

    return replace(
        in_folder(record, folder, threads=settings.options.threads, with_path=with_path),
        asked=settings.asked,
        command=shlex.join(command_line(settings)),
        verify_command=shlex.join(verify_line(settings, folder)),
        statistics=statistics,
    )


def tracked_run(settings: DistillSettings | KipSettings, folder: Path) -> AbstractContextManager[Tracker]:
    """The tracker that --log-to names, told the options."""
    return tracked(settings.log_to, folder, option_values(settings))


def show_record(record: R, as_json: bool, summary: Callable[[R], None]) -> None:
    """Warnings on stderr, then one JSON object or the summary on stdout."""
    for warning in record.warnings:
        status.say(f"warning: {warning}")
    if as_json:
        output.emit_json(to_json(record))
    else:
        summary(record)


def run_verify(file: Path, settings: VerifySettings, *, as_json: bool) -> int:
    """Recompute the certificate of a file; the status says whether it is within the tolerance."""
    from krrdistill.apps.distillation import certificate_numbers, score
    from krrdistill.apps.report.run_folder import DISTILLED, check_pair, recorded_sha256
    from krrdistill.artifact.file import DistilledDataset, has_digest

    kernel, tolerance = settings.kernel, settings.tolerance
    if file.is_dir():  # of a run
        file = file / DISTILLED
    if not file.is_file():
        raise status.UsageError(f"no such file: {file}")
    if file.name == DISTILLED:
        check_pair(file.parent, recorded_sha256(file.parent))
    if tolerance is not None:
        check_number("verify", "tolerance", tolerance)
    feature_map = None if kernel is None else named_map(kernel, file)
    distilled = DistilledDataset.load(file, feature_map=feature_map)
    backend = _recorded_backend(distilled)
    name, n, test, original = _compared_with(settings, distilled, file, backend)
    certificate = distilled.verify(original, test=test, backend=backend)
    retrained = original is not None
    error = certificate.weight_relative_error
    limit = WEIGHT_ERROR_TARGETS[distilled.store] if tolerance is None else tolerance
    if tolerance is None and retrained and _in_float32(distilled) and limit < error:
        limit = max(limit, RETRAINED_TOLERANCE)
        status.say(
            f"note: the tolerance is {limit:g}: the original was trained again from float32 sums, which round "
            "differently on another machine"
        )
    undigested = () if has_digest(file) else ("the file has no digest of its content: nothing tells if it was changed",)
    passed = error <= limit
    held_out = 0 if settings.statistics or distilled.meta.get("own_validation") else distilled.meta.get("n_val")
    known = int(distilled.meta.get("n_train") or 0) + int(held_out or 0)
    source = "data set" if settings.statistics is None else "statistics"
    doubts = _doubts(distilled, error, source, n, known) if retrained and not passed else ()
    outcome = Verification(
        artifact=str(file),
        dataset=name,
        store=distilled.store,
        lambda_s=distilled.lambda_s,
        original=score(certificate, "original"),
        distilled=score(certificate, "distilled"),
        certificate=certificate_numbers(certificate),
        tolerance=limit,
        passed=passed,
        statistics=None if settings.statistics is None else str(settings.statistics),
        warnings=(*undigested, *doubts),
    )
    for warning in outcome.warnings:
        status.say(f"warning: {warning}")
    if as_json:
        output.emit_json(to_json(outcome))
    else:
        output.print_certificate(outcome)
    return status.OK if passed else status.WORSE_THAN_TOLERANCE


def _compared_with(
    settings: VerifySettings, distilled: DistilledDataset, file: Path, backend: str | None
) -> tuple[str, int, tuple[Any, Any] | None, RidgeModel | None]:
    """(name of the data or statistics, their training samples, test set, original model; None for the file's own)."""
    from krrdistill.apps.distillation import original_of
    from krrdistill.pipeline import retrain_from_statistics

    if settings.statistics is not None:
        statistics, part = load_statistics(settings.statistics, settings.kernel, backend=backend), test_part(settings)
        with output.working("retraining"), about(settings.statistics):
            original = retrain_from_statistics(distilled, statistics, where="verify")
        return settings.statistics.name, statistics.n, None if part is None else (part.X, part.y), original
    name = recorded_dataset(distilled, file) if settings.dataset is None else settings.dataset
    data = load_data(settings, name=name, targets="classes" if distilled.targets == "classes" else "real")
    with output.working("retraining"):
        return data.name, len(data.x_train), (data.x_test, data.test_targets), original_of(distilled, data, backend)


def _in_float32(distilled: DistilledDataset) -> bool:
    """Whether the original is of sums that round differently elsewhere."""
    return bool(distilled.meta.get("options", {}).get("precision") != "float64")


def _doubts(distilled: DistilledDataset, error: float, source: str, n: int, known: int) -> tuple[str, ...]:
    """Why a certificate may be worse than the file is; it is of ``known`` training samples, ``source`` has ``n``."""
    if known != n:
        return (f"the file was made from {known} training samples, the {source} of {n}: it is another one",)
    recorded = (distilled.meta.get("certificate") or {}).get("weight_relative_error")
    if recorded is not None and error <= 2.0 * recorded:
        return (f"the points were not exact when they were made: the file records a weight error of {recorded:.2g}",)
    if not error < ROUNDING_AT_MOST:
        order = "" if source == "statistics" else ", or in another order, which decides who is held out"
        doubt = (
            f"the original was trained again from the {source}: the samples are others than those that were "
            f"distilled{order}"
        )
        return (doubt,)
    if not _in_float32(distilled):
        return ()
    doubt = (
        "the file does not hold the original weights, and retraining them from float32 statistics rounds "
        "differently on another machine or thread count; --include-weights or --precision float64 avoid that"
    )
    return (doubt,)


def _recorded_backend(distilled: DistilledDataset) -> str | None:
    """The backend that a file was made with, if it is here: two backends round float32 statistics apart."""
    from krrdistill.backends import get_backend

    name = distilled.meta.get("options", {}).get("backend")
    try:
        return get_backend(name).name if isinstance(name, str) else None
    except (BackendUnavailable, ValueError):
        return None
