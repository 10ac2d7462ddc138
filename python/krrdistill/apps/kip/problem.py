"""The checked arguments of a KIP run and what follows from them: the network, its features and the start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.arrays import to_host
from krrdistill.common.random import Stream, normal
from krrdistill.data.labels import Targets
from krrdistill.errors import NotSurjective
from krrdistill.maps import FeatureMap
from krrdistill.options import class_counts
from krrdistill.pipeline import distill_model
from krrdistill.problem import Problem
from krrdistill.ridge.model import RidgeModel

from .iteration import KipOptions

__all__ = ["KipProblem"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KipProblem:
    """A ``Problem`` whose points are found by iterations; inputs Z (m, d) are preprocessed ones, as published."""

    common: Problem
    options: KipOptions
    start_rows: IntArray | None

    @classmethod
    def of(
        cls, X: Any, y: Any, feature_map: FeatureMap, classes: Any, options: KipOptions, *, validation: Any = None
    ) -> KipProblem:
        """Checks the user's arguments."""
        feature_map.check_matrices("kip:")
        if isinstance(validation, tuple):
            validation = (to_host("kip", "X of validation", validation[0]), *validation[1:])
        common = Problem.of(
            "kip",
            to_host("kip", "X", X),
            y,
            feature_map,
            options.distillation(),
            classes=classes,
            targets="classes",
            validation=validation,
        )
        if common.classes is None:
            raise TypeError(f"kip: y must hold integer class labels, got dtype {getattr(y, 'dtype', type(y).__name__)}")
        if options.warm_start:
            feature_map.check_surjective()  # before the long part
        resolved = replace(options, points_per_class=common.options.points_per_class)
        return cls(common, resolved, common.start_rows())

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d), the shape of the inputs."""
        return sum(class_counts(self.common.k, self.options.points_per_class)), self.network.input_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of inputs, features and products."""
        return np.dtype(self.options.precision)

    @cached_property
    def network(self) -> FeatureMap:
        """The map behind its preprocessing."""
        return FeatureMap(self.common.feature_map.input_dim, self.common.feature_map.own_layers)

    def features(self, rows: IntArray) -> Array:
        """phi of raw samples, (len(rows), p), in the run's precision."""
        common = self.common
        with common.feature_map.named_rows("kip", common.X, self.dtype.name, rows):
            return np.asarray(common.backend.transform(common.feature_map, common.X, dtype=self.dtype, rows=rows))

    def validation(self) -> tuple[Array, IntArray]:
        """Features, in the run's precision, and labels of the held-out samples."""
        common, held = self.common, self.common.own_validation
        if held is None:
            return self.features(common.validation), common.y[common.validation]
        with common.feature_map.named_rows("kip: validation", held.X, self.dtype.name):
            features = np.asarray(common.backend.transform(common.feature_map, held.X, dtype=self.dtype))
        return features, held.y.values

    def closed_form(self, model: RidgeModel) -> DistilledDataset | None:
        """What ``distill`` makes of the same model, points per class and start; None for a map that is not onto."""
        try:
            self.common.feature_map.check_surjective()
        except NotSurjective:
            return None
        reference, known = None, self.common.final_training_rows
        if self.start_rows is not None:
            reference = (self.common.samples[known], Targets(self.common.y[known], self.common.classes))
        return distill_model(model, reference=reference, options=self.options.distillation(), judge=False)

    def start(self, closed_form: DistilledDataset | None) -> Array:
        """Inputs Z (m, d) of iteration 0: the closed form's, real ones or noise."""
        warm = self.options.warm_start and closed_form is not None
        U = closed_form.inputs if warm else self.common.start(self.start_rows)  # type: ignore[union-attr]
        if U is None:
            Z = normal(self.options.seed, Stream.NOISE, self.shape[0] * self.shape[1]).reshape(self.shape)
        else:
            Z = self.common.feature_map.preprocessing.whiten(U)
        return Z.astype(self.dtype)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What a checkpoint has to agree with, the bytes of the training data included."""
        data = hashlib.sha256(np.ascontiguousarray(self.common.X).data)
        data.update(np.ascontiguousarray(self.common.y).data)
        if self.common.own_validation is not None:
            data.update(np.ascontiguousarray(self.common.own_validation.X).data)
            data.update(np.ascontiguousarray(self.common.own_validation.y.values).data)
        return {
            **self.options.configuration(len(self.common.training)),
            "features": self.common.feature_map.fingerprint(),
            "data": data.hexdigest(),
        }
