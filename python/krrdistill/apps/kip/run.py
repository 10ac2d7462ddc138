"""One KIP run from a data set to files: what the command line does, without the printing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from krrdistill.apps.distillation import peak_memory_bytes
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.roofline import pass_floor
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.files import write_npz
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.data import Dataset, standardize, zca
from krrdistill.maps import make_map

from .distill import KipResult, kip_distill
from .iteration import KipOptions

__all__ = ["KipRun", "run_kip"]


@dataclass(frozen=True, eq=False)
class KipRun:
    """What ``run_kip`` leaves besides its files: the report (JSON-able), the best set as read back, the result."""

    report: dict[str, Any]
    distilled: DistilledDataset
    result: KipResult
    start_images: npt.NDArray[Any] | None
    singular_values: npt.NDArray[np.float64] | None  # of the best set's features, where the certificate needed them


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
    """
    dataset.check_classes("kip")
    options = options or KipOptions()
    start = time.perf_counter()
    watch = Stopwatch(progress)
    watch.seconds["load"] = load_seconds
    with threadpoolctl.threadpool_limits(limits=options.threads):
        with watch.stage("preprocess"):
            preprocessing = zca(dataset) if use_zca else standardize(dataset)
            feature_map = make_map(kernel, dataset, preprocessing, seed=options.seed, **(map_options or {}))
        result = kip_distill(
            dataset.x_train,
            dataset.y_train,
            feature_map,
            preprocessing=preprocessing,
            n_classes=dataset.n_classes,
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
                certificates[name] = reloaded[name].verify(dataset, weights=result.original.W, backend=options.backend)
        with watch.stage("save"):
            write_npz(out / "curve.npz", {"losses": result.losses, **result.curve})
    report = _report(dataset, kernel, options, result, certificates, out)
    report["seconds"] = {**watch.seconds, "total": load_seconds + time.perf_counter() - start}
    passed = len(dataset.x_train) - report["n_val"]
    chain = feature_map.chain(preprocessing)
    report["floor_seconds"] = {"statistics": pass_floor(chain, passed, options.precision)}
    images = None if result.start_rows is None else dataset.x_train[result.start_rows]
    shown = likeness(reloaded["distilled"].distilled_data, images, value_range(dataset))
    report["realism"] = {"asked": None, **shown}
    return KipRun(report, reloaded["distilled"], result, images, certificates["distilled"].singular_values)


def _report(
    dataset: Dataset,
    kernel: str,
    options: KipOptions,
    result: KipResult,
    certificates: Mapping[str, Certificate],
    out: Path,
) -> dict[str, Any]:
    best, meta = certificates["distilled"], result.best.distilled.meta
    iterations, published = len(result.losses), options.variant == "published"
    warnings = [result.original.path.statement(), _rise(result, options)]
    return {
        "dataset": dataset.name,
        "kernel": kernel,
        "variant": options.variant,
        "ipc": options.points_per_class,
        "store": str(result.best.distilled.X.dtype),
        "range_scale": 1.0,
        "init": options.init,
        "warm_start": options.warm_start,
        "seed": options.seed,
        "iterations": iterations,
        "lr": options.lr,
        "batch_size": options.batch(meta["n_train"]),
        "n_train": meta["n_train"],
        "n_val": meta["n_val"],
        "n_test": len(dataset.x_test),
        "d": dataset.input_dim,
        "p": result.best.distilled.feature_map.output_dim,
        "k": dataset.n_classes,
        "m": len(result.best.distilled.X),
        "lambda": meta["lambda"],
        "lambda_s": result.best.distilled.lambda_s,
        "val_accuracy": meta["val_accuracy"],
        "original": {"test_accuracy": best.original_accuracy},
        "distilled": {"test_accuracy": best.distilled_accuracy},
        "best": {**result.best.facts(), "test_accuracy": best.distilled_accuracy},
        "last": {**result.last.facts(), "test_accuracy": certificates["last"].distilled_accuracy},
        "certificate": {name: value if math.isfinite(value) else None for name, value in best.numbers().items()},
        "closed_form": None if result.closed_form is None else asdict(result.closed_form),
        "setup_seconds": result.seconds["features"] + (0.0 if published else result.seconds["statistics"]),
        "seconds_per_iteration": result.seconds["optimize"] / iterations,
        "resumed_from": result.resumed_from,
        "peak_memory_bytes": peak_memory_bytes(),
        "backend": meta["options"]["backend"],
        "precision": options.precision,
        "artifact": str(out / "distilled.npz"),
        "last_artifact": str(out / "last.npz"),
        "curve": str(out / "curve.npz"),
        "warnings": [warning for warning in warnings if warning is not None],
    }


def _rise(result: KipResult, options: KipOptions) -> str | None:
    """What to say of a run that ended above its start."""
    first, last = result.curve["train_loss"][[0, -1]]
    if last <= first:
        return None
    return f"the loss per training point rose from {first:.4g} to {last:.4g}: try a smaller lr than {options.lr:g}"
