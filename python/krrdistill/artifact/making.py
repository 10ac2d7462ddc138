"""From a model's points to the distilled set: inputs rounded as stored, labels for those, and how it was made."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from krrdistill._version import __version__
from krrdistill.backends import Backend
from krrdistill.common.options import declared_options
from krrdistill.common.progress import Stopwatch
from krrdistill.common.warning import warn
from krrdistill.construct.points import METHODS, choose_method, labels_for
from krrdistill.construct.storage import round_inputs
from krrdistill.errors import DataError, NotExactWarning, ResultWarning
from krrdistill.options import DistillOptions
from krrdistill.ridge.feature_gram import contrasts, feature_rank
from krrdistill.ridge.model import RidgeModel

from .certificate import relative_error
from .file import DistilledDataset
from .record import WEIGHT_ERROR_TARGETS, plain

__all__ = ["distilled_set", "judged", "not_exact", "remedy_for", "stopped_early", "too_many_points", "versions"]

FloatArray = npt.NDArray[np.float64]
_REMEDIES = {
    "exact": "use more points per class, or float64 storage",
    "deep": "deep maps lose digits in their preimage: use fewer layers, more points per class, or float64 storage",
    "nearest": "the nearest exact set is ill-conditioned: use more points per class, or less realism",
    "approximate": "the map has no exact preimage: use more points per class, or at most as many features as inputs",
    "labels_only": "labels for kept inputs are exact once their features have rank p: use more points per class",
}
_STOPPED = {"steps": "; the search stopped after its last step", "seconds": "; the search stopped after max_seconds"}


def distilled_set(
    model: RidgeModel, near: FloatArray | None, options: DistillOptions, backend: Backend, watch: Stopwatch
) -> DistilledDataset:
    """Makes inputs by the start's method, rounds them as stored, and computes labels for what is stored."""
    if not model.W.any():
        raise DataError("distill: the original model is zero; the features of X carry nothing about y")
    method = choose_method(model.feature_map, options)
    found = METHODS[method](model, near, options, backend, watch)
    with watch.stage("preimage"):
        stored, encoding = round_inputs(found.U, options.store)
        stored.flags.writeable = False  # a backend may keep a copy
        Y = found.Y
        if Y is None or options.store != "float64":
            F = model.feature_map.standard_features(stored, backend=backend)
            Y = labels_for(F, model, found.lambda_s)
    solution = {
        "method": method,
        "outside_range": model.outside_range,
        "range_scale": found.range_scale,
        **found.facts,
    }
    return DistilledDataset(
        inputs=stored,
        Y=Y,
        lambda_s=found.lambda_s,
        feature_map=model.feature_map,
        shape=model.shape,
        encoding=encoding,
        weights=model.W if options.include_weights else None,
        intercept=model.b if options.include_weights and model.center == "both" else None,
        targets=model.targets,
        classes=model.classes,
        centered=model.center == "both",
        offset=model.b if model.center == "targets" else None,
        sizes=model.sizes if model.feature_map.preprocessing.kind == "none" else None,
        meta={**_meta(model, options, backend), "solution": solution},
    )


def not_exact(distilled: DistilledDataset, error: float, agreement: float | None = None) -> str | None:
    """What to say of a set that does not retrain to its model as well as its storage should, None of any other."""
    target, solution = WEIGHT_ERROR_TARGETS[distilled.store], distilled.meta["solution"]
    if error <= target:
        return None
    agrees = "" if agreement is None else f" and agrees on {agreement:.2%} of the predictions"
    stopped = _STOPPED.get(solution.get("stopped"), "")
    remedy = remedy_for(solution["method"], len(distilled.feature_map.layers))
    if solution["method"] == "labels_only":
        remedy += _rank_of(distilled)
    return (
        f"NOT EXACT: the model retrained from the points is off by {error:.2g} (target {target:.0e} for "
        f"{distilled.store} storage){agrees}; {remedy}{stopped}"
    )


def _rank_of(distilled: DistilledDataset) -> str:
    """The rank of the features of the points, which alike points do not raise."""
    F = distilled.features()
    rank = feature_rank(contrasts(F) if distilled.centered else F)
    return f"; these {len(F)} have rank {rank} of p = {F.shape[1]}"


def remedy_for(method: str, layers: int) -> str:
    """What makes a set of this method exact that is not, with its reason; ``layers`` of the map."""
    return _REMEDIES["deep" if method == "exact" and layers > 1 else method]


def stopped_early(distilled: DistilledDataset) -> str | None:
    """What to say of an exact set that more time would have brought nearer to the real samples."""
    solution = distilled.meta["solution"]
    if solution["method"] != "nearest" or solution.get("stopped") is None:
        return None
    return "the search for the nearest exact set stopped after max_seconds: more time brings it nearer"


def too_many_points(distilled: DistilledDataset, model: RidgeModel) -> str | None:
    """What to say where more points are made than there were samples."""
    m, n = len(distilled.inputs), model.n_train
    return None if m <= n else f"{m} points are made of {n} training samples: use fewer points_per_class"


def judged(
    where: str, distilled: DistilledDataset, model: RidgeModel, backend: Backend, watch: Stopwatch
) -> DistilledDataset:
    """The set with its weight error; warns of points that are not exact, or more than there were samples."""
    with watch.stage("evaluate"):
        error = relative_error(model.W, distilled.fit(backend=backend))
    for said, category in (
        (not_exact(distilled, error), NotExactWarning),
        (stopped_early(distilled), ResultWarning),
        (too_many_points(distilled, model), ResultWarning),
    ):
        if said is not None:
            warn(f"{where}: {said}", category)
    return replace(distilled, weight_error=error)


def _meta(model: RidgeModel, options: DistillOptions, backend: Backend) -> dict[str, Any]:
    """How the set was made, JSON-able and without times: the same run writes the same bytes."""
    recorded = [each.name for each in declared_options(type(options)) if each.option.recorded]
    kept = {**{name: plain(getattr(options, name)) for name in recorded}, "init": options.start, "lambdas": None}
    kept |= {"intercept": model.center == "both", "center_targets": model.center == "targets"}
    kept["lambda_per_target"] = model.lambdas is not None
    split = {} if model.split is None else dict(model.split)
    own_validation = {"own_validation": True} if split.pop("own_validation", False) else {}
    facts: dict[str, Any] = {}
    if model.val_r2 is not None:
        per_target = None if model.lambdas is None else model.lambdas.tolist()
        facts = {"val_r2": list(model.val_r2), "lambda_per_target": per_target}
    return {
        "options": {**kept, **split, "precision": model.precision, "backend": backend.name},
        **({} if model.columns is None else {"columns": list(model.columns)}),
        "split": model.split is not None,
        **own_validation,
        "weighted": model.weighted,
        "lambda": model.lambda_,
        "criterion": model.path.criterion,
        "val_accuracy": model.val_accuracy,
        **facts,
        "n_train": model.n_train,
        "n_val": model.n_validation,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that every result depends on."""
    return {
        "krrdistill": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
