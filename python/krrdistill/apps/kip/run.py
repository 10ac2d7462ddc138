"""One KIP run from a data set to files: what the command line does, without the printing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.distillation import certificate_numbers, peak_memory_bytes, score
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.roofline import pass_floor
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.record import ClosedFormRecord, KipPointRecord, KipRecord, Likeness, to_json
from krrdistill.common.files import sha256_of, write_npz
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset, standardize, zca
from krrdistill.maps import make_map

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
    singular_values: npt.NDArray[np.float64] | None  # of the best set's features, where the certificate needed them

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
    out: Path,
    load_seconds: float = 0.0,
    progress: Progress | None = None,
) -> KipRun:
    """The command's pipeline: preprocess, optimise, write what was found to ``out``, read it back, compare.

    ``out`` gets distilled.npz (best by validation), last.npz, curve.npz and checkpoint.npz; a run finds its own
    checkpoint and goes on from it.

    Parameters
    ----------
    dataset : Dataset
    kernel : str
        As in ``make_map``.
    map_options : mapping, optional
        For ``make_map``.
    use_zca : bool
        ZCA whitening in place of standardising.
    options : KipOptions, optional
    out : Path
    load_seconds : float
        What reading the data took, for the record.
    progress : callable, optional
        Gets (stage, fraction done).

    Returns
    -------
    KipRun
    """
    dataset.check_classes("kip")
    options = options or KipOptions()
    start = time.perf_counter()
    watch = Stopwatch(progress)
    watch.seconds["load"] = load_seconds
    with limited_threads(options.threads):
        with watch.stage("preprocess"):
            preprocessing = zca(dataset) if use_zca else standardize(dataset)
            feature_map = make_map(kernel, dataset, preprocessing, seed=options.seed, **(map_options or {}))
        result = kip_distill(
            dataset.x_train,
            dataset.train_targets,
            feature_map,
            classes=dataset.classes,
            options=options,
            checkpoint=out / "checkpoint.npz",
            progress=progress,
        )
        watch.seconds.update(result.seconds)
        facts = {"dataset": dataset.name, "class_names": list(dataset.class_names)}
        certificates: dict[str, Certificate] = {}
        reloaded: dict[str, DistilledDataset] = {}
        for name, point in (("distilled", result.best), ("last", result.last)):
            path = out / f"{name}.npz"
            with watch.stage("save"):
                point.distilled.with_meta(**facts).save(path, embed_map=options.embed_map)
                reloaded[name] = DistilledDataset.load(path)
            with watch.stage("evaluate"):
                certificates[name] = reloaded[name].verify(result.model, test=dataset, backend=options.backend)
        with watch.stage("save"):
            write_npz(out / "curve.npz", {"losses": result.losses, **result.curve})
        seconds = {**watch.seconds, "total": load_seconds + time.perf_counter() - start}
        passed = len(dataset.x_train) - result.best.distilled.meta["n_val"]
        floor = pass_floor(feature_map, passed, options.precision)
    images = None if result.start_rows is None else dataset.x_train[result.start_rows]
    record = replace(
        _record(dataset, kernel, options, result, certificates, out),
        seconds=seconds,
        floor_seconds={"statistics": floor},
        realism=likeness(reloaded["distilled"].samples, images, value_range(dataset)),
    )
    return KipRun(record, reloaded["distilled"], result, images, certificates["distilled"].singular_values)


def _record(
    dataset: Dataset,
    kernel: str,
    options: KipOptions,
    result: KipResult,
    certificates: Mapping[str, Certificate],
    out: Path,
) -> KipRecord:
    """The facts of a run; times and likeness are filled in by the caller."""
    best, meta = certificates["distilled"], result.best.distilled.meta
    iterations, published = len(result.losses), options.variant == "published"
    warnings = [*result.model.statements(), _rise(result, options)]
    return KipRecord(
        dataset=dataset.name,
        kernel=kernel,
        variant=options.variant,
        ipc=options.points_per_class,
        store=result.best.distilled.store,
        range_scale=1.0,
        init=options.init,
        warm_start=options.warm_start,
        seed=options.seed,
        iterations=iterations,
        lr=options.lr,
        batch_size=options.batch(meta["n_train"]),
        n_train=meta["n_train"],
        n_val=meta["n_val"],
        n_test=len(dataset.x_test),
        d=dataset.input_dim,
        p=result.best.distilled.feature_map.output_dim,
        k=dataset.n_classes,
        m=len(result.best.distilled.inputs),
        lambda_=meta["lambda"],
        lambda_s=result.best.distilled.lambda_s,
        val_accuracy=meta["val_accuracy"],
        original=score(best, "original"),
        distilled=score(best, "distilled"),
        best=_point(result.best, best),
        last=_point(result.last, certificates["last"]),
        certificate=certificate_numbers(best),
        closed_form=None if result.closed_form is None else ClosedFormRecord(**asdict(result.closed_form)),
        setup_seconds=result.seconds["features"] + (0.0 if published else result.seconds["statistics"]),
        seconds_per_iteration=result.seconds["optimize"] / iterations,
        resumed_from=result.resumed_from,
        realism=Likeness(mse=None, psnr=None, out_of_range=None, asked=None),
        value_range=value_range(dataset),
        peak_memory_bytes=peak_memory_bytes(),
        backend=meta["options"]["backend"],
        precision=options.precision,
        seconds={"total": 0.0},
        floor_seconds={},
        artifact=str(out / "distilled.npz"),
        artifact_sha256=sha256_of(out / "distilled.npz"),
        last_artifact=str(out / "last.npz"),
        curve=str(out / "curve.npz"),
        warnings=tuple(warning for warning in warnings if warning is not None),
    )


def _point(point: KipPoint, certificate: Certificate) -> KipPointRecord:
    """An iteration and the test accuracy of its file."""
    return KipPointRecord(**point.facts(), test_accuracy=certificate.distilled_accuracy)


def _rise(result: KipResult, options: KipOptions) -> str | None:
    """What to say of a run that ended above its start."""
    first, last = result.curve["train_loss"][[0, -1]]
    if last <= first:
        return None
    return f"the loss per training point rose from {first:.4g} to {last:.4g}: try a smaller lr than {options.lr:g}"
