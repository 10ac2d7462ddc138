"""The work behind each command: call the library, draw, write, print."""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.folder import output_folder
from krrdistill.apps.cli.settings import DistillSettings, KipSettings, command_line
from krrdistill.apps.text import score_name
from krrdistill.common.arrays import check_number
from krrdistill.common.files import write_atomically
from krrdistill.errors import BackendUnavailable

if TYPE_CHECKING:
    from krrdistill.apps.distillation import RunResult
    from krrdistill.artifact.file import DistilledDataset
    from krrdistill.data import Dataset
    from krrdistill.maps import LayeredMap

FIGURE = "distilled.png"
PATH_FIGURE = "lambda_path.png"
ROUNDING_AT_MOST = 1e-2  # a larger error has another cause
RETRAINED_TOLERANCE = 1e-4  # where the original itself was retrained from float32 statistics


def distill(settings: DistillSettings, *, as_json: bool) -> int:
    """Distil one data set; write the artefact, two figures, the report and its page; print the outcome."""
    from krrdistill.apps.distillation import run_distillation
    from krrdistill.apps.report import write_figure_data, write_page
    from krrdistill.data import load_dataset

    require_matplotlib()
    with output_folder(settings.folder) as folder, output.stage_progress() as progress:
        start = time.perf_counter()
        progress("load", 0.0)
        dataset = load_dataset(
            settings.dataset, data_dir=settings.data_dir, download=settings.download, targets=settings.targets
        )
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
        )
        report = {
            **result.report,
            **_draw(folder, settings, dataset, result),
            **page_facts(folder, settings, dataset),
        }
        write_figure_data(folder, result.path, result.singular_values, result.start_images)
        write_report(folder, report)
        write_page(folder)
    show_report(report, as_json, output.print_summary)
    return status.OK


def page_facts(folder: Path, settings: DistillSettings | KipSettings, dataset: Dataset) -> dict[str, Any]:
    """What the page of a run says beyond what was computed."""
    from krrdistill.apps.info import machine
    from krrdistill.apps.likeness import value_range
    from krrdistill.apps.report.record import PAGE, REPORT

    return {
        "report": str(folder / REPORT),
        "page": str(folder / PAGE),
        "value_range": value_range(dataset),
        "command": shlex.join(command_line(settings)),
        "machine": machine(settings.options.threads),
        "finished": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """The report as ``folder``/report.json."""
    from krrdistill.apps.report.record import REPORT

    text = output.to_json(report, indent=2) + "\n"
    write_atomically(folder / REPORT, lambda stream: stream.write(text.encode()))


def show_report(report: Mapping[str, Any], as_json: bool, summary: Callable[[Mapping[str, Any]], None]) -> None:
    """Warnings on stderr, then one JSON object or the summary on stdout."""
    for warning in report["warnings"]:
        output.say(f"warning: {warning}")
    if as_json:
        output.emit_json(report)
    else:
        summary(report)


def require_matplotlib() -> None:
    """Raises BackendUnavailable, before any work, where the figures of a run cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BackendUnavailable('the figures need matplotlib: pip install "krrdistill[cli]"')


def _draw(folder: Path, settings: DistillSettings, dataset: Dataset, result: RunResult) -> dict[str, str]:
    """Write both figures; returns their entries of the report."""
    from krrdistill.apps.likeness import value_range
    from krrdistill.apps.report import distilled_figure, lambda_path_figure, save_figure

    title = f"{dataset.name}, {settings.map_options.kernel}, {settings.options.points_per_class} per class"
    figure = distilled_figure(
        result.distilled.distilled_data,
        dataset.class_names,
        start_images=result.start_images,
        value_range=value_range(dataset),
        title=f"{title}, {settings.options.init} start",
    )
    save_figure(figure, folder / FIGURE)
    path = result.path
    figure = lambda_path_figure(
        path.lambdas,
        path.score,
        best=path.best,
        below_noise_floor=path.below_noise_floor,
        noise_floor=path.noise_floor,
        title=f"{dataset.name}, {settings.map_options.kernel}: choice of \N{GREEK SMALL LETTER LAMDA}",
        score=score_name(result.report),
    )
    save_figure(figure, folder / PATH_FIGURE)
    return {"figure": str(folder / FIGURE), "lambda_path_figure": str(folder / PATH_FIGURE)}


def verify(
    file: Path,
    *,
    dataset: str | None,
    data_dir: Path | None,
    kernel: str | None,
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Recompute the certificate of a file; the status says whether it is within the tolerance."""
    from krrdistill.apps.distillation import measured
    from krrdistill.artifact.file import DistilledDataset
    from krrdistill.data import load_dataset

    if not file.is_file():
        raise status.UsageError(f"no such file: {file}")
    if tolerance is not None:
        check_number("verify", "tolerance", tolerance)
    feature_map = None if kernel is None else named_map(kernel, file)
    distilled = DistilledDataset.load(file, feature_map=feature_map)
    name = recorded_dataset(distilled, file) if dataset is None else dataset
    data = load_dataset(name, data_dir=data_dir, targets="classes" if distilled.targets == "classes" else "real")
    with output.working("retraining"):
        certificate = distilled.verify(data, backend=_recorded_backend(distilled))
    limit = _default_tolerance(distilled) if tolerance is None else tolerance
    passed = certificate.weight_relative_error <= limit
    outcome: dict[str, Any] = {
        "artifact": file,
        "dataset": data.name,
        "store": distilled.store,
        "lambda_s": distilled.lambda_s,
        "original": measured(certificate, "original"),
        "distilled": measured(certificate, "distilled"),
        "certificate": certificate.numbers(),
        "tolerance": limit,
        "passed": passed,
        "warnings": _doubts(distilled, certificate.weight_relative_error) if not passed else [],
    }
    for warning in outcome["warnings"]:
        output.say(f"warning: {warning}")
    if as_json:
        output.emit_json(outcome)
    else:
        output.print_certificate(outcome)
    return status.OK if passed else status.WORSE_THAN_TOLERANCE


def named_map(kernel: str, file: Path) -> LayeredMap:
    """The map that --kernel names, for a file that was made with a user's map."""
    from krrdistill.artifact.file import read_distilled_data
    from krrdistill.maps.user import load_object

    if ":" not in kernel:
        raise status.UsageError(f"--kernel names a map of your own, package.module:object, got {kernel!r}")
    _, images = read_distilled_data(file)
    return load_object(kernel, images[0].size)


def recorded_dataset(distilled: DistilledDataset, file: Path) -> str:
    """The named data set that a file says it was made from."""
    from krrdistill.data import available_datasets

    name = distilled.meta.get("dataset")
    if name not in available_datasets():
        raise status.UsageError(f"{file} was made from {name!r}: give that file with --dataset FILE.npz")
    return str(name)


def _retrains_in_float32(distilled: DistilledDataset) -> bool:
    """Whether the original has to be trained again from sums that round differently elsewhere."""
    return distilled.weights is None and distilled.meta.get("options", {}).get("precision") != "float64"


def _default_tolerance(distilled: DistilledDataset) -> float:
    from krrdistill.apps.distillation import WEIGHT_ERROR_TARGETS

    tolerance = WEIGHT_ERROR_TARGETS[distilled.store]
    return max(tolerance, RETRAINED_TOLERANCE) if _retrains_in_float32(distilled) else tolerance


def _doubts(distilled: DistilledDataset, error: float) -> list[str]:
    """Why a certificate may be worse than the file is."""
    if not _retrains_in_float32(distilled) or not error < ROUNDING_AT_MOST:
        return []
    doubt = (
        "the file does not hold the original weights, and retraining them from float32 statistics rounds "
        "differently on another machine or thread count; --include-weights or --precision float64 avoid that"
    )
    return [doubt]


def _recorded_backend(distilled: DistilledDataset) -> str | None:
    """The backend that a file was made with, if it is here: two backends round float32 statistics apart."""
    from krrdistill.backends import get_backend

    name = distilled.meta.get("options", {}).get("backend")
    try:
        return get_backend(name).name if isinstance(name, str) else None
    except (BackendUnavailable, ValueError):
        return None
