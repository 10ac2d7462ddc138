"""Evaluation of inputs: their labels, loss and validation accuracy, and the distilled set that they make."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import versions
from krrdistill.artifact.record import plain
from krrdistill.backends import get_backend
from krrdistill.pipeline import Trained
from krrdistill.ridge.feature_gram import fit_features

from .gram import GramObjective, regularised_kernel
from .optimize import Objective
from .place import Place
from .problem import KipProblem
from .published import PublishedObjective

__all__ = ["Judge"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judge:
    """The loss of a problem, and what it is compared with: the statistics and the features of held-out samples."""

    problem: KipProblem
    trained: Trained
    objective: Objective
    val_features: Array
    val_labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, problem: KipProblem, trained: Trained, place: Place) -> Judge:
        """A judge with the variant's loss in a place; only one that uses training points keeps their features."""
        common, options, statistics = problem.common, problem.options, trained.statistics
        published = options.variant == "published"
        points = None
        if published or options.batch(statistics.n) is not None:
            points = (problem.features(common.training), common.y[common.training])
        objective: Objective
        if published and points is not None:
            objective = PublishedObjective(problem.network, *points, common.k, place)
        else:
            layers = problem.network.layers
            objective = GramObjective(layers, statistics, dtype=problem.dtype, points=points, place=place)
        return cls(problem, trained, objective, *problem.validation())

    def model(self, W: FloatArray) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of a model W (k, p)."""
        statistics = self.trained.statistics
        gain = 2.0 * np.vdot(W, statistics.cross) - np.vdot(W @ statistics.gram, W)
        predicted = (self.val_features @ W.T.astype(self.problem.dtype)).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.val_labels))
        return float(statistics.target_square.sum() - gain) / statistics.n, accuracy

    def inputs(self, Z: Array) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of the model trained on inputs Z; NaN where there is none."""
        F, labels, lambda_s = self._solve(Z)
        return self.model(fit_features(F, labels, lambda_s)) if np.isfinite(labels).all() else (math.nan, math.nan)

    def distilled(self, Z: Array, iteration: int) -> DistilledDataset:
        """Inputs Z of an iteration as a distilled set."""
        common = self.problem.common
        _, labels, lambda_s = self._solve(Z)
        return DistilledDataset(
            inputs=common.feature_map.preprocessing.unwhiten(Z).astype(self.problem.dtype, copy=False),
            Y=labels,
            lambda_s=lambda_s,
            feature_map=common.feature_map,
            shape=common.shape,
            classes=common.classes,
            meta=self._meta(iteration),
        )

    def _solve(self, Z: Array) -> tuple[FloatArray, FloatArray, float]:
        """(features, labels, lambda_s) of inputs Z, in float64."""
        F = np.asarray(self.problem.network.transform(Z, dtype=np.float64, backend=self.problem.options.backend))
        return F, self.objective.labels(Z, F), regularised_kernel(F)[1]

    def _meta(self, iteration: int) -> dict[str, Any]:
        """Facts for the file; no times, so that a resumed run writes the same bytes."""
        options, model = self.problem.options, self.trained.model
        common = options.distillation()
        kip = {name: value for name, value in asdict(options).items() if name not in ("threads", "backend")}
        return {
            "options": {
                **common.training(),
                "points_per_class": plain(common.points_per_class),
                "init": common.init,
                "backend": get_backend(common.backend).name,
            },
            "split": True,
            **({"own_validation": True} if self.problem.common.own_validation is not None else {}),
            "kip": {**kip, "lambdas": common.training()["lambdas"], "iteration": iteration},
            "lambda": model.lambda_,
            "val_accuracy": model.val_accuracy,
            "n_train": model.n_train,
            "n_val": model.n_validation,
            "versions": versions(),
        }
