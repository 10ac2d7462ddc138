"""The checked arguments of a KIP run and what follows from them: ridge model, start, loss, validation."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.file import DistilledDataset
from krrdistill.artifact.making import versions
from krrdistill.backends import get_backend
from krrdistill.common.arrays import to_host
from krrdistill.common.progress import Progress
from krrdistill.common.random import Stream, normal
from krrdistill.errors import NotSurjective
from krrdistill.maps import FeatureMap
from krrdistill.pipeline import Trained, distill_model, train
from krrdistill.problem import Problem
from krrdistill.ridge.feature_gram import fit_features
from krrdistill.ridge.model import RidgeModel
from krrdistill.ridge.statistics import RidgeStatistics

from .gram import GramObjective, regularised_kernel
from .iteration import KipOptions
from .optimize import Objective
from .published import PublishedObjective

__all__ = ["KipProblem"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KipProblem:
    """A ``Problem`` whose points are found by iterations; inputs Z (m, d) are preprocessed ones, as published."""

    common: Problem
    options: KipOptions
    start_rows: IntArray | None

    @classmethod
    def of(cls, X: Any, y: Any, feature_map: FeatureMap, n_classes: int | None, options: KipOptions) -> KipProblem:
        """From what the user gave."""
        feature_map.check_matrices("kip")
        common = Problem.of("kip", to_host("kip", "X", X), y, feature_map, options.distillation(), n_classes=n_classes)
        if common.classes is None:
            raise TypeError(f"kip: y must hold integer class labels, got dtype {getattr(y, 'dtype', type(y).__name__)}")
        if options.warm_start:
            feature_map.check_surjective()  # before the long part
        return cls(common, options, common.start_rows())

    @property
    def m(self) -> int:
        """Number of points."""
        return self.options.points_per_class * self.common.k

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of inputs, features and products."""
        return np.dtype(self.options.precision)

    @cached_property
    def network(self) -> FeatureMap:
        """The map behind its preprocessing."""
        return FeatureMap(self.common.feature_map.input_dim, self.common.feature_map.own_layers)

    def features(self, rows: IntArray) -> Array:
        """phi of raw samples, (len(rows), p), in the run's precision."""
        return np.asarray(
            self.common.backend.transform(self.common.feature_map, self.common.X, dtype=self.dtype, rows=rows)
        )

    def train(self, known: Trained | None, progress: Progress | None) -> Trained:
        """The ridge model that ``distill`` would distil, and its statistics; ``known`` after a check, where given."""
        if known is None:
            return train(self.common, progress)
        model, wanted = known.model, self.options.distillation().training()
        if model.feature_map.fingerprint() != self.common.feature_map.fingerprint() or model.split != wanted:
            raise ValueError("kip: trained is of another map, split or lambdas")
        return known

    def objective(self, statistics: RidgeStatistics) -> Objective:
        """The variant's loss; only one that sees training points holds their features."""
        rows, layers = self.common.training, self.network.layers
        if self.options.variant == "published":
            return PublishedObjective(layers, self.features(rows), self.common.y[rows], self.common.k)
        sees_points = self.options.batch(statistics.n) is not None
        points = (self.features(rows), self.common.y[rows]) if sees_points else None
        return GramObjective(layers, statistics, dtype=self.dtype, points=points)

    def closed_form(self, model: RidgeModel) -> DistilledDataset | None:
        """What ``distill`` makes of the same model, points per class and start; None for a map that is not onto."""
        try:
            self.common.feature_map.check_surjective()
        except NotSurjective:
            return None
        reference = None
        if self.start_rows is not None:
            known = self.common.known
            reference = (self.common.samples[known], self.common.y[known])
        return distill_model(model, reference=reference, options=self.options.distillation())

    def start(self, closed_form: DistilledDataset | None) -> Array:
        """Inputs (m, d) of iteration 0."""
        preprocessing, d = self.common.feature_map.preprocessing, self.network.input_dim
        if self.options.warm_start and closed_form is not None:
            return np.asarray(preprocessing.apply(closed_form.X).astype(self.dtype))
        if self.start_rows is not None:
            return np.asarray(preprocessing.apply(self.common.X[self.start_rows]).astype(self.dtype))
        return normal(self.options.seed, Stream.NOISE, self.m * d).reshape(self.m, d).astype(self.dtype)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint has to agree with, the bytes of the training data included."""
        data = hashlib.sha256(np.ascontiguousarray(self.common.X).data)
        data.update(np.ascontiguousarray(self.common.y).data)
        return {
            **self.options.configuration(len(self.common.training)),
            "backend": self.common.backend.name,
            "features": self.common.feature_map.fingerprint(),
            "data": data.hexdigest(),
        }

    def solve(self, Z: Array, objective: Objective) -> tuple[FloatArray, FloatArray, float]:
        """(features, labels, lambda_s) of inputs Z, in float64."""
        F = np.asarray(self.network.transform(Z, dtype=np.float64, backend=self.options.backend))
        return F, objective.labels(Z, F), regularised_kernel(F)[1]

    def validate(
        self, Z: Array, objective: Objective, statistics: RidgeStatistics, val_features: Array
    ) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of the model trained on inputs Z; NaN where there is none."""
        F, labels, lambda_s = self.solve(Z, objective)
        if not np.isfinite(labels).all():
            return math.nan, math.nan
        return self.judge(fit_features(F, labels, lambda_s), statistics, val_features)

    def judge(self, W: FloatArray, statistics: RidgeStatistics, val_features: Array) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of a model W (k, p)."""
        gain = 2.0 * np.vdot(W, statistics.cross) - np.vdot(W @ statistics.gram, W)
        predicted = (val_features @ W.T.astype(self.dtype)).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.common.y[self.common.validation]))
        return float(statistics.target_square.sum() - gain) / statistics.n, accuracy

    def distilled(self, Z: Array, objective: Objective, model: RidgeModel, iteration: int) -> DistilledDataset:
        """Inputs Z of an iteration as a distilled set."""
        _, labels, lambda_s = self.solve(Z, objective)
        feature_map = self.common.feature_map
        return DistilledDataset(
            inputs=feature_map.preprocessing.unwhiten(Z).astype(self.dtype, copy=False),
            Y=labels,
            lambda_s=lambda_s,
            feature_map=feature_map,
            shape=self.common.shape,
            classes=self.common.classes,
            meta=self._meta(model, iteration),
        )

    def _meta(self, model: RidgeModel, iteration: int) -> dict[str, Any]:
        """Facts for the file; no times, so that a resumed run writes the same bytes."""
        common = self.options.distillation()
        kip = {name: value for name, value in asdict(self.options).items() if name not in ("threads", "backend")}
        return {
            "options": {
                **common.training(),
                "points_per_class": common.points_per_class,
                "init": common.init,
                "backend": get_backend(common.backend).name,
            },
            "split": True,
            "kip": {**kip, "lambdas": common.training()["lambdas"], "iteration": iteration},
            "lambda": model.lambda_,
            "val_accuracy": float(model.path.val_accuracy[model.path.best]),
            "n_train": model.n_train,
            "n_val": model.n_validation,
            "versions": versions(),
        }
