"""The findings of ``krrdistill privacy`` as one report for JSON, with all conditions of a guarantee."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.privacy.audit import nearest_neighbours, noise_deviation, reconstruct
from krrdistill.apps.privacy.budget import PrivacyBudget
from krrdistill.apps.privacy.clipping import clipped_statistics
from krrdistill.apps.privacy.theorem import LIMITS, TheoremNoise, theorem_noise
from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.documents import UNFIT
from krrdistill.construct.labels import one_hot_labels
from krrdistill.data import Dataset
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap
from krrdistill.options import DistillOptions, PointsPerClass
from krrdistill.problem import points_of_classes, split

__all__ = ["audit_file", "theorem_for_data"]

FloatArray = npt.NDArray[np.float64]


def theorem_for_data(
    dataset: Dataset,
    feature_map: FeatureMap,
    budget: PrivacyBudget,
    *,
    lambda_: float,
    points_per_class: PointsPerClass = 1,
    norm_bound: float | None = None,
    labels_secret: bool = False,
    backend: Any = None,
) -> dict[str, Any]:
    """Theorem 6.2 for a data set before anything is distilled, with one-hot Y_S."""
    dataset.check_classes("privacy")
    points = points_of_classes("privacy", points_per_class, dataset.n_classes, dataset.classes)
    Y_S = one_hot_labels(dataset.n_classes, points)
    rows = np.arange(len(dataset.x_train))
    noise = _theorem(
        dataset,
        rows,
        feature_map,
        Y_S,
        budget,
        lambda_,
        norm_bound,
        labels_secret=labels_secret,
        noise=None,
        backend=backend,
    )
    facts = {"dataset": dataset.name, "kernel": feature_map.kernel, "ipc": points, "n_train": len(rows)}
    return {**facts, **_budget(budget), "theorem": _entry(noise), "limits": list(LIMITS)}


def audit_file(
    distilled: DistilledDataset,
    dataset: Dataset,
    budget: PrivacyBudget,
    *,
    norm_bound: float | None = None,
    labels_secret: bool = False,
    backend: Any = None,
) -> dict[str, Any]:
    """What a file gives away: W, Theorem 6.2 for its own Z and labels, and the nearest training samples.

    A private release (meta has "privacy") states its own guarantee; Theorem 6.2 has nothing to say about it.
    """
    dataset.check_classes("privacy")
    rebuilt = reconstruct(distilled, dataset, backend=backend)
    near = nearest_neighbours(distilled, dataset)
    report: dict[str, Any] = {
        "dataset": dataset.name,
        **_budget(budget),
        "reconstruction": {"relative_error": rebuilt.relative_error, "test_accuracy": rebuilt.test_accuracy},
        "neighbours": {
            "count": len(near.distances),
            "median": float(np.median(near.distances)),
            "minimum": float(near.distances.min()),
            "baseline_median": float(np.median(near.baseline)),
            "baseline_minimum": float(near.baseline.min()),
            "near_share": near.near_share,
        },
    }
    release = distilled.meta.get("privacy")
    if release is not None:
        return {**report, "release": release, "limits": list(release["guarantee"])}
    rows, lambda_ = _training_rows(distilled, dataset)
    noise = _theorem(
        dataset,
        rows,
        distilled.feature_map,
        distilled.Y,
        budget,
        lambda_,
        norm_bound,
        labels_secret=labels_secret,
        noise=noise_deviation(distilled, backend=backend),
        backend=backend,
    )
    return {**report, "theorem": _entry(noise), "limits": list(LIMITS)}


def _training_rows(distilled: DistilledDataset, dataset: Dataset) -> tuple[npt.NDArray[np.int64], float]:
    """The samples that the original model of a file was trained on, and its lambda."""
    try:
        options = DistillOptions(**dict(distilled.meta["options"], backend=None))
        lambda_ = float(distilled.meta["lambda"])
    except UNFIT as error:
        raise DataError(f"privacy: the file does not record how its model was trained ({error})") from error
    everything = np.arange(len(dataset.x_train))
    all_of_them = options.refit or distilled.meta.get("own_validation")
    return everything if all_of_them else split("privacy", dataset.y_train, options)[1], lambda_


def _theorem(
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    feature_map: FeatureMap,
    Y_S: FloatArray,
    budget: PrivacyBudget,
    lambda_: float,
    norm_bound: float | None,
    *,
    labels_secret: bool,
    noise: float | None,
    backend: Any,
) -> TheoremNoise:
    k = dataset.n_classes
    plain = clipped_statistics(dataset.x_train, dataset.y_train, feature_map, k, rows=rows, backend=backend)
    return theorem_noise(
        plain.statistics.gram,
        np.bincount(dataset.y_train[rows], minlength=k),
        Y_S,
        budget,
        lambda_=lambda_,
        largest_norm=plain.largest_norm,
        norm_bound=norm_bound,
        labels_secret=labels_secret,
        noise_std=noise,
    )


def _budget(budget: PrivacyBudget) -> dict[str, float]:
    return {"epsilon": budget.epsilon, "delta": budget.delta}


def _entry(noise: TheoremNoise) -> dict[str, Any]:
    """JSON-able; a sigma that does not exist is None."""
    return {
        "sigma": noise.sigma if np.isfinite(noise.sigma) else None,
        "holds": noise.holds,
        "norm_bound": noise.norm_bound,
        "smallest_singular_value": noise.smallest_singular_value,
        "conditions": [vars(condition) for condition in noise.conditions],
    }
