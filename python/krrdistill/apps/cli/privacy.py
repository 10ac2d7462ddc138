"""The work behind ``krrdistill privacy``: audit a file, ask Theorem 6.2 about a data set, or make a private release."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.settings import PrivacySettings
from krrdistill.apps.folder import Existing, OutputError, RunKind, locked, output_folder
from krrdistill.common.files import sha256_of, write_atomically
from krrdistill.common.options import declared_options
from krrdistill.options import MapOptions, is_object_name

_OF_A_FILE = (
    *(each.name for each in declared_options(MapOptions) if each.name != "kernel"),
    *("points_per_class", "seed", "store", "lambda_", "out", "targets"),
)
_OF_A_RELEASE = ("out", "store", "threads", "ledger", "budget_epsilon")


def run_privacy(file: Path | None, settings: PrivacySettings, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Check what was asked for, do it, print it; ``given`` has the options that the command line gives."""
    if file is not None:
        _refuse(given, ("mechanism",), "makes a new file and belongs to --dataset, not to FILE")
        _refuse(given, ("threads", "ledger", "budget_epsilon"), "belongs to a release with --mechanism, not to FILE")
        of_a_file = _OF_A_FILE if is_object_name(settings.map_options.kernel) else ("kernel", *_OF_A_FILE)
        _refuse(given, of_a_file, "is what FILE says itself: leave it out")
        report = _audit(file, settings, given)
    elif settings.options.mechanism is not None:
        _refuse(given, ("secret_labels",), "belongs to Theorem 6.2; a release with --mechanism includes its labels")
        report = _release(settings)
    else:
        _refuse(given, _OF_A_RELEASE, "belongs to a release: give --mechanism")
        report = _theorem(settings)
    if as_json:
        output.emit_json(report)
    else:
        output.print_privacy(report)
    return status.OK


def _refuse(given: Mapping[str, Any], names: tuple[str, ...], why: str) -> None:
    flags = {each.name: each.flag for each in declared_options(PrivacySettings)}
    for name in names:
        if given.get(name, False) is not False:
            raise status.UsageError(f"{flags[name]} {why}")


def _audit(file: Path, settings: PrivacySettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """The audit of a file; where it lies in the folder of a run, its page gets the section."""
    from krrdistill.apps.cli.inputs import load_data, named_map, recorded_dataset
    from krrdistill.apps.privacy import audit_file
    from krrdistill.apps.report.page import write_page
    from krrdistill.apps.report.run_folder import DISTILLED, PRIVACY, REPORT
    from krrdistill.artifact.file import DistilledDataset

    options = settings.options
    if file.is_dir():  # of a run
        file = file / DISTILLED
    if not file.is_file():
        raise status.UsageError(f"no such file: {file}")
    feature_map = None if given.get("kernel") is None else named_map(settings.map_options.kernel, file)
    distilled = DistilledDataset.load(file, feature_map=feature_map)
    name = recorded_dataset(distilled, file) if given.get("dataset") is None else settings.dataset
    targets = "classes" if distilled.targets == "classes" else "real"
    data = load_data(settings, name=name, targets=targets)
    with output.working("measuring"):
        findings = audit_file(
            distilled,
            data,
            options.budget,
            norm_bound=options.norm_bound,
            labels_secret=settings.secret_labels,
            backend=options.backend,
        )
    report = {"artifact": str(file), "sha256": sha256_of(file), **findings}
    if file.name == DISTILLED and (file.parent / REPORT).is_file():
        try:
            with locked(file.parent, say=status.note):
                write_report(file.parent / PRIVACY, report)
                report["page"] = str(write_page(file.parent))
        except (OSError, OutputError) as error:  # what was found is printed all the same
            status.say(f"warning: the page of {file.parent} is without the audit: {status.message(error)}")
    return report


def _theorem(settings: PrivacySettings) -> dict[str, Any]:
    from krrdistill.apps.cli.inputs import load_data
    from krrdistill.apps.privacy import theorem_for_data
    from krrdistill.data import standardize
    from krrdistill.maps import make_map

    data = load_data(settings, targets=settings.targets)
    scaling = standardize(data)
    options, phi = settings.options, settings.map_options
    feature_map = make_map(phi.kernel, data, scaling, seed=options.seed, **phi.given())
    with output.working("measuring"):
        return theorem_for_data(
            data,
            feature_map,
            options.budget,
            lambda_=options.lambda_ or 0.0,
            points_per_class=options.points_per_class,
            norm_bound=options.norm_bound,
            labels_secret=settings.secret_labels,
            backend=options.backend,
        )


def _release(settings: PrivacySettings) -> dict[str, Any]:
    from krrdistill.apps.cli.inputs import load_data
    from krrdistill.apps.privacy.release import release_into

    existing = Existing.of(settings.out)
    with (
        output_folder(settings.folder, RunKind.RELEASE, existing, say=status.note) as folder,
        output.stage_progress() as progress,
    ):
        data = load_data(settings, targets=settings.targets)
        release = release_into(
            folder,
            data,
            kernel=settings.map_options.kernel,
            map_options=settings.map_options.given(),
            options=settings.options,
            progress=progress,
        )
    return {**release.report, "seconds": dict(release.seconds), "artifact": str(folder / "distilled.npz")}


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """The report as JSON."""
    text = output.to_json(report, indent=2) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode()))
