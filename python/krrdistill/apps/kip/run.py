"""Runs KIP from data set to verified files, without printing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from krrdistill.apps.distillation import RunData, asked_of_map, certified, common_facts, map_for
from krrdistill.apps.likeness import likeness
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.record import ClosedFormRecord, KipPointRecord, KipRecord, to_json
from krrdistill.common.files import sha256_of, write_npz
from krrdistill.common.options import differing
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset
from krrdistill.errors import ResultWarning
from krrdistill.options import NAMED
from krrdistill.ridge.model import RidgeModel

from .distill import KipPoint, KipResult, kip_distill
from .iteration import KipOptions

__all__ = ["KipRun", "run_kip"]


@dataclass(frozen=True, eq=False)
class KipRun:
    """What ``run_kip`` leaves besides its files: the facts of the run, the best set as read back, the result."""

    record: KipRecord
    distilled: DistilledDataset
    result: KipResult
    start_images: npt.NDArray[Any] | None
    certificate: Certificate  # of the best set

    def __repr__(self) -> str:
        return f"KipRun({self.record.title}: {self.result!r}, {self.record.artifact})"

    @property
    def model(self) -> RidgeModel:
        """The original."""
        return self.result.model

    @property
    def report(self) -> dict[str, Any]:
        """The record as report.json has it."""
        return to_json(self.record)


def run_kip(
    dataset: Dataset,
    *,
    kernel: str = "identity",
    map_options: Mapping[str, Any] | None = None,
    use_zca: bool = False,
    options: KipOptions | None = None,
    out: Path | str,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
) -> KipRun:
    """Run KIP on a data set and write the results to a folder.

    The sets are written, read back and verified.

    The folder ``out`` gets distilled.npz (best on the validation set), last.npz, curve.npz and checkpoint.npz. If it
    has a checkpoint of the same run, the run resumes from it.

    Parameters
    ----------
    dataset : Dataset
    kernel : str
        As in ``make_map``.
    map_options : mapping, optional
        Options for ``make_map``.
    use_zca : bool
        Whether to whiten (ZCA) instead of standardising.
    options : KipOptions, optional
    out : Path
    load_seconds : float
        Seconds that loading the data took, for the record.
    progress : callable, optional
        Called with (stage, fraction done). A ``krrdistill.common.progress.Listener`` also gets facts of every step.

    Returns
    -------
    KipRun
    """
    dataset.check_classes("kip")
    options, out = options or KipOptions(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    watch = Stopwatch(progress, {"load": load_seconds})
    with limited_threads(options.threads):
        feature_map = map_for(dataset, kernel, map_options, use_zca=use_zca, seed=options.seed, watch=watch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResultWarning)  # the record says it
            result = kip_distill(
                dataset.x_train,
                dataset.train_targets,
                feature_map,
                classes=dataset.classes,
                validation=dataset.validation,
                options=options,
                checkpoint=out / "checkpoint.npz",
                progress=progress,
            )
        watch.seconds.update(result.seconds)
        best_path, last_path, curve_path = (out / name for name in ("distilled.npz", "last.npz", "curve.npz"))
        model = result.model
        data = RunData.of(dataset)
        distilled, certificate = certified(result.best.distilled, best_path, model, data, options, watch)
        _, last = certified(result.last.distilled, last_path, model, data, options, watch)
        with watch.stage("save"):
            write_npz(curve_path, {"losses": result.losses, **result.curve}, sealed=True)
        images = None if result.start_rows is None else dataset.x_train[result.start_rows]
        seconds = {**watch.seconds, "total": load_seconds + time.perf_counter() - start}
        iterations = len(result.losses)
        said = [*model.statements(), _rise(result, options), _moves(result)]
        record = KipRecord(
            **common_facts(data, kernel, options, model, distilled, certificate),
            variant=options.variant,
            range_scale=1.0,
            init=options.init,
            asked={**asked_of_map(map_options, use_zca=use_zca), **differing(options, never=("variant", *NAMED))},
            warm_start=options.warm_start,
            iterations=iterations,
            lr=options.lr,
            batch_size=options.batch(model.n_train),
            best=_point(result.best, certificate),
            last=_point(result.last, last),
            closed_form=None if result.closed_form is None else ClosedFormRecord(**asdict(result.closed_form)),
            setup_seconds=result.setup_seconds,
            device=dict(result.device),
            seconds_per_iteration=result.seconds["optimize"] / iterations,
            resumed_from=result.resumed_from,
            realism=likeness(distilled.samples, images, data.value_range),
            seconds=seconds,
            artifact=str(best_path),
            artifact_sha256=sha256_of(best_path),
            last_artifact=str(last_path),
            curve=str(curve_path),
            warnings=tuple(sentence for sentence in said if sentence is not None),
        )
    return KipRun(record, distilled, result, images, certificate)


def _point(point: KipPoint, certificate: Certificate) -> KipPointRecord:
    """An iteration and the test accuracy of its file."""
    return KipPointRecord(**point.facts(), test_accuracy=certificate.distilled_accuracy)


def _moves(result: KipResult) -> str | None:
    """What to say of a run whose steps were taken in several places."""
    if len(result.ran_on) < 2:
        return None
    parts = "; ".join(f"from iteration {iteration} on {where}" for iteration, where in result.ran_on)
    return f"steps were taken in several places, and seconds are of all of them: {parts}"


def _rise(result: KipResult, options: KipOptions) -> str | None:
    """What to say of a run that ended above its start."""
    first, last = result.curve["train_loss"][[0, -1]]
    if last <= first:
        return None
    return f"the loss per training point rose from {first:.4g} to {last:.4g}: try a smaller lr than {options.lr:g}"
