"""One data set, kernel and seed, with one pass over the data for all of its cells."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.distillation import map_for, peak_memory_bytes
from krrdistill.apps.kip import KipOptions, kip_distill
from krrdistill.apps.kip.distill import KipPoint
from krrdistill.apps.likeness import likeness, value_range
from krrdistill.apps.reproduce.facts import backend_device
from krrdistill.apps.text import shown_device
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.file import DistilledDataset
from krrdistill.backends import get_backend
from krrdistill.backends.cuda import cuda_facts
from krrdistill.common.progress import Progress, Stopwatch
from krrdistill.data import Dataset
from krrdistill.data.labels import Targets
from krrdistill.maps import FeatureMap
from krrdistill.options import DistillOptions
from krrdistill.pipeline import Trained, distill_model, train
from krrdistill.problem import Problem

__all__ = ["Case"]

_EVERY = {"gram": 100, "published": 10}  # iterations between two looks, and two checkpoints: about a second at least


@dataclass(frozen=True, eq=False)
class Case:
    """What all cells of one data set, kernel and seed share."""

    data: Dataset
    kernel: str
    seed: int
    backend: str | None
    threads: int | None
    progress: Progress | None
    device: str = "cpu"
    use_zca: bool = False

    @cached_property
    def map(self) -> FeatureMap:
        """phi, drawn from the seed."""
        return self._draw()[0]

    def _draw(self) -> tuple[FeatureMap, float]:
        """A fresh map, and the seconds that making it took."""
        watch = Stopwatch(None)
        drawn = map_for(self.data, self.kernel, None, use_zca=self.use_zca, seed=self.seed, watch=watch)
        return drawn, watch.seconds["preprocess"]

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Black and white of the training samples."""
        return value_range(self.data.x_train)

    @cached_property
    def _problem(self) -> Problem:
        data, options = self.data, self._options(1)
        return Problem.of("reproduce", data.x_train, data.train_targets, self.map, options, classes=data.classes)

    @cached_property
    def trained(self) -> Trained:
        """The original model and its statistics, by one pass over the training part."""
        return train(self._problem, self.progress)

    def real(self, ipc: int) -> npt.NDArray[Any]:
        """The samples that a start from real ones takes, in rounds of the classes."""
        options = replace(self._options(ipc), init="real")
        return np.asarray(self.data.x_train[replace(self._problem, options=options).start_rows()])

    def samples(self, ipc: int, folder: Path, **choices: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Distilled samples as they are read back from their file, and what is known of them.

        ``choices`` are options of the distillation: ``init``, ``realism`` and the like. Distances are to ``real``.
        """
        options = replace(self._options(ipc), **choices)
        data, rows = self.data, self._problem.training
        labels = Targets(data.y_train[rows], data.classes)
        reference = (data.x_train[rows], labels) if options.start == "real" else None
        model, watch = self.trained.model, Stopwatch(self.progress)
        start = time.perf_counter()
        distilled = distill_model(model, reference=reference, options=options, watch=watch, judge=False)
        seconds = time.perf_counter() - start
        reloaded = self._read_back(distilled, folder)
        certificate = reloaded.verify(model, test=data, backend=self.backend)
        found = reloaded.samples
        near = likeness(found, self.real(ipc) if reference is not None else None, self.limits)
        facts = {
            **{name: value if math.isfinite(value) else None for name, value in certificate.scalars().items()},
            "mse": near.mse,
            "psnr": near.psnr,
            "out_of_range": near.out_of_range,
            "lowest": float(found.min()),
            "highest": float(found.max()),
            "stopped": distilled.meta["solution"].get("stopped"),
            "seconds": seconds,
        }
        return found, facts

    def closed_form(self, ipc: int, folder: Path) -> dict[str, Any]:
        """The original model distilled from noise, and the certificate of its file.

        The seconds are those of a run of its own: a map of its own, and the pass over the data counts in full.
        """
        own_map, preprocess = self._draw()
        watch = Stopwatch(self.progress, {"preprocess": preprocess, **self.trained.seconds})
        model = replace(self.trained.model, feature_map=own_map)
        distilled = distill_model(model, options=self._options(ipc), watch=watch, judge=False)
        certificate = self._certify(distilled, folder)
        path, seconds = model.path, watch.seconds
        numbers = certificate.numbers()
        return {
            **self._facts(distilled, _ran_on(get_backend(self.backend).name)),
            "lambda": model.lambda_,
            "original_accuracy": certificate.original_accuracy,
            "distilled_accuracy": certificate.distilled_accuracy,
            "val_accuracy": model.val_accuracy,
            "train_loss": float(path.train_rmse[path.best]) ** 2,
            "certificate": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "seconds": {**seconds, "total": sum(seconds.values())},
        }

    def kip(
        self, ipc: int, variant: str, folder: Path, *, checkpoint: Path, iterations: int, time_budget: float
    ) -> dict[str, Any]:
        """KIP from real images until its iterations or its budget end, from where its checkpoint stands.

        ``setup`` is what it needs before the first step: the map, and the statistics or the training features; on a
        GPU also a step that does not count.
        """
        preprocess = self._draw()[1]
        options = KipOptions(
            variant=variant,
            points_per_class=ipc,
            iterations=iterations,
            time_budget=time_budget,
            evaluate_every=_EVERY[variant],
            checkpoint_every=_EVERY[variant],
            stratify=False,
            seed=self.seed,
            backend=self.backend,
            device=self.device,
            threads=self.threads,
        )
        result = kip_distill(
            self.data.x_train,
            self.data.train_targets,
            self.map,
            classes=self.data.classes,
            options=options,
            checkpoint=checkpoint,
            trained=self.trained,
            progress=self.progress,
        )
        setup = preprocess + result.setup_seconds
        return {
            **self._facts(result.last.distilled, shown_device(result.device)),
            "steps_on": dict(result.device),
            "iterations": len(result.losses),
            "seconds": {"setup": setup, "steps": result.seconds["optimize"]},
            "best": self._point(result.best, folder),
            "last": self._point(result.last, folder),
            "curve": {name: values.tolist() for name, values in result.curve.items()},
        }

    def _options(self, ipc: int) -> DistillOptions:
        return DistillOptions(
            points_per_class=ipc, stratify=False, seed=self.seed, backend=self.backend, threads=self.threads
        )

    def _facts(self, distilled: DistilledDataset, ran_on: str) -> dict[str, Any]:
        return {
            "ran_on": ran_on,
            "backend": get_backend(self.backend).name,
            "m": len(distilled.inputs),
            "p": self.map.output_dim,
            "n_train": self.trained.model.n_train,
            "n_test": len(self.data.x_test),
            "lambda_s": distilled.lambda_s,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _point(self, point: KipPoint, folder: Path) -> dict[str, Any]:
        return {**point.facts(), "test_accuracy": self._certify(point.distilled, folder).distilled_accuracy}

    def _certify(self, distilled: DistilledDataset, folder: Path) -> Certificate:
        """The certificate of what is read back from a file."""
        reloaded = self._read_back(distilled, folder)
        return reloaded.verify(self.trained.model, test=self.data, backend=self.backend)

    def _read_back(self, distilled: DistilledDataset, folder: Path) -> DistilledDataset:
        """What a file holds that is written, read and removed."""
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary) / "distilled.npz"
            distilled.save(path, embed_map=False)
            return DistilledDataset.load(path)


def _ran_on(backend: str) -> str:
    """Where the closed form was made, in words."""
    device = backend_device(backend)
    return device if device == "cpu" else f"{device} ({cuda_facts()['devices'][0]})"
