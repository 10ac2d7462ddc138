"""The checked arguments of a KIP run and what follows from them: split, ridge model, start, loss, validation."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Operator, get_backend
from krrdistill.common.arrays import as_labels, as_samples, to_host
from krrdistill.common.progress import Progress
from krrdistill.common.random import Stream, normal
from krrdistill.data import Preprocessing
from krrdistill.errors import NotSurjective
from krrdistill.maps import LayeredMap
from krrdistill.pipeline import (
    Distillation,
    Original,
    Trained,
    check_original,
    choose_real_points,
    count_classes,
    distill,
    split,
    train_original,
    versions,
)
from krrdistill.ridge.feature_gram import fit_features
from krrdistill.ridge.statistics import RidgeStatistics

from .gram import GramObjective, regularised_kernel
from .iteration import KipOptions
from .optimize import Objective
from .published import PublishedObjective

__all__ = ["Problem"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """The checked arguments of ``kip_distill`` and what follows from them."""

    samples: Array
    classes: IntArray
    k: int
    shape: tuple[int, ...]
    feature_map: LayeredMap
    preprocessing: Preprocessing
    options: KipOptions
    validation: IntArray
    train_rows: IntArray
    start_rows: IntArray | None

    @classmethod
    def of(
        cls,
        X: Any,
        y: Any,
        feature_map: LayeredMap,
        preprocessing: Preprocessing | None,
        n_classes: int | None,
        options: KipOptions,
    ) -> Problem:
        if any(isinstance(layer.weight, Operator) for layer in feature_map.layers):
            raise ValueError(f"kip: needs a map whose layers are matrices, got kernel {feature_map.kernel}")
        samples = as_samples("kip", to_host("kip", "X", X), input_dim=feature_map.input_dim)
        classes = as_labels("kip", y, len(samples), n_classes=n_classes)
        k = count_classes("kip", classes, n_classes)
        if options.warm_start:
            feature_map.check_surjective()  # before the long part
        common = options.distillation()
        validation, train = split(len(samples), common)
        start_rows = choose_real_points(classes, train, k, common) if options.init == "real" else None
        return cls(
            samples=samples,
            classes=classes,
            k=k,
            shape=tuple(np.shape(X)[1:]),
            feature_map=feature_map,
            preprocessing=preprocessing or Preprocessing.none(feature_map.input_dim),
            options=options,
            validation=validation,
            train_rows=train,
            start_rows=start_rows,
        )

    @property
    def m(self) -> int:
        return self.options.points_per_class * self.k

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.options.precision)

    def features(self, rows: IntArray) -> Array:
        """phi of raw samples, (len(rows), p), in the run's precision."""
        chain = self.feature_map.chain(self.preprocessing)
        solver = get_backend(self.options.backend)
        return np.asarray(solver.transform(chain, self.samples, dtype=self.dtype, rows=rows))

    def train(self, known: Trained | None, progress: Progress | None) -> Trained:
        """The ridge model that ``distill`` would distil, and its statistics; ``known`` after a check, where given."""
        common = self.options.distillation()
        chain = self.feature_map.chain(self.preprocessing)
        if known is not None:
            check_original("kip", known.original, self.k, chain, common)
            return known
        rows, backend = (self.validation, self.train_rows), get_backend(common.backend)
        return train_original(self.samples, self.classes, self.k, chain, rows, common, backend, progress)

    def objective(self, statistics: RidgeStatistics) -> Objective:
        """The variant's loss; only one that sees training points holds their features."""
        layers, classes = self.feature_map.layers, self.classes[self.train_rows]
        if self.options.variant == "published":
            return PublishedObjective(layers, self.features(self.train_rows), classes, self.k)
        sees_points = self.options.batch(statistics.n) is not None
        points = (self.features(self.train_rows), classes) if sees_points else None
        return GramObjective(layers, statistics, dtype=self.dtype, points=points)

    def closed_form(self, original: Original) -> Distillation | None:
        """What ``distill`` makes of the same model, points per class and start; None for a map that is not onto."""
        try:
            self.feature_map.check_surjective()
        except NotSurjective:
            return None
        return distill(
            self.samples,
            self.classes,
            self.feature_map,
            preprocessing=self.preprocessing,
            n_classes=self.k,
            options=self.options.distillation(),
            original=original,
        )

    def start(self, closed_form: Distillation | None) -> Array:
        """Inputs (m, d) of iteration 0."""
        if self.options.warm_start and closed_form is not None:
            return closed_form.distilled.X.astype(self.dtype)
        if self.start_rows is not None:
            return np.asarray(self.preprocessing.apply(self.samples[self.start_rows]).astype(self.dtype))
        d = self.feature_map.input_dim
        return normal(self.options.seed, Stream.NOISE, self.m * d).reshape(self.m, d).astype(self.dtype)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint has to agree with, the bytes of the training data included."""
        data = hashlib.sha256(np.ascontiguousarray(self.samples).data)
        data.update(self.classes.data)
        return {
            **self.options.configuration(len(self.train_rows)),
            "backend": get_backend(self.options.backend).name,
            "features": self.feature_map.chain(self.preprocessing).fingerprint(),
            "data": data.hexdigest(),
        }

    def solve(self, X: Array, objective: Objective) -> tuple[FloatArray, FloatArray, float]:
        """(features, labels, lambda_s) of inputs X, in float64."""
        F = np.asarray(self.feature_map.transform(X, dtype=np.float64, backend=self.options.backend))
        return F, objective.labels(X, F), regularised_kernel(F)[1]

    def validate(
        self, X: Array, objective: Objective, statistics: RidgeStatistics, val_features: Array
    ) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of the model trained on inputs X; NaN where there is none."""
        F, labels, lambda_s = self.solve(X, objective)
        if not np.isfinite(labels).all():
            return math.nan, math.nan
        return self.judge(fit_features(F, labels, lambda_s), statistics, val_features)

    def judge(self, W: FloatArray, statistics: RidgeStatistics, val_features: Array) -> tuple[float, float]:
        """(loss per training point, validation accuracy) of a model W (k, p)."""
        gain = 2.0 * np.vdot(W, statistics.cross) - np.vdot(W @ statistics.gram, W)
        predicted = (val_features @ W.T.astype(self.dtype)).argmax(axis=1)
        accuracy = float(np.mean(predicted == self.classes[self.validation]))
        return float(statistics.target_square - gain) / statistics.n, accuracy

    def meta(self, original: Original, iteration: int) -> dict[str, Any]:
        """Facts for the file; no times, so that a resumed run writes the same bytes."""
        common = self.options.distillation()
        backend = get_backend(common.backend).name
        kip = {
            name: value
            for name, value in asdict(self.options).items()
            if name not in ("threads", "backend", "embed_map")
        }
        return {
            "options": {
                **common.training(),
                "points_per_class": common.points_per_class,
                "init": common.init,
                "backend": backend,
            },
            "kip": {**kip, "lambdas": common.training()["lambdas"], "iteration": iteration},
            "lambda": original.lambda_,
            "val_accuracy": float(original.path.val_accuracy[original.path.best]),
            "n_train": original.n_train,
            "n_val": original.n_validation,
            "versions": versions(),
        }
