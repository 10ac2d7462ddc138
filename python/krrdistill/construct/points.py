"""From a model to points, one function per kind of start: model, start, options -> inputs, labels, lambda_s.

Inputs here are standardised, u = (x - origin) / unit: they keep their digits beside a large origin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend
from krrdistill.common.placed import AnyMatrix
from krrdistill.common.products import gram_operations, placed, product
from krrdistill.common.progress import Stopwatch
from krrdistill.common.random import Stream, normal
from krrdistill.errors import NotSurjective
from krrdistill.maps import FeatureMap
from krrdistill.maps.ranges import obstacle
from krrdistill.options import DistillOptions, class_counts
from krrdistill.ridge.model import RidgeModel

from .closed_form import Construction, construct, gaussian_start, orthogonal_start, real_start, shrink_to_bound
from .labels import affine_labels, learned_labels, target_labels
from .nearest import Nearest, nearest_inputs
from .orthogonal import OrthogonalDual
from .span import MAX_STEPS, Approach, span_model

__all__ = ["METHODS", "Points", "approximate_search", "choose_method", "labels_for"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Points:
    """Standardised inputs U (m, d), before they are rounded to what is stored, and their labels, None for the best."""

    U: FloatArray
    Y: FloatArray | None
    lambda_s: float
    range_scale: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)


def choose_method(feature_map: FeatureMap, options: DistillOptions) -> str:
    """The name in ``METHODS``. Raises NotSurjective or ValueError where the map does not allow the options."""
    if options.labels_only:
        return "labels_only"
    if options.realism is not None:
        feature_map.check_surjective()
        feature_map.check_matrices("distill: realism")
        return "nearest"
    if feature_map.reach == "exact":
        return "exact"
    try:
        feature_map.range_basis()
    except NotSurjective as error:
        if options.strict:
            raise NotSurjective(f"distill: strict: {error}") from error
        if feature_map.reach == "none":
            remedies = "give it an inverse, or a torch module, or keep real samples (labels_only=True, --labels-only)"
            raise NotSurjective(f"distill: {error} and no gradients; {remedies}") from error
        if options.root == "minus" or options.scale_labels or options.noise == "gaussian":
            raise ValueError(f"distill: root, scale_labels and noise belong to exact preimages; {error}") from error
    return feature_map.reach


def approximate_search(feature_map: FeatureMap, options: DistillOptions) -> str | None:
    """What to say before a search for approximate inputs, None where there is none. Raises as ``choose_method``."""
    if choose_method(feature_map, options) != "approximate":
        return None
    return (
        f"{feature_map.kernel}: {obstacle(feature_map.layers)}; approximate inputs are searched for, in up to "
        f"{MAX_STEPS} steps; max_seconds (--max-seconds) bounds the time, strict (--strict) refuses such maps"
    )


def exact_points(
    model: RidgeModel, near: FloatArray | None, options: DistillOptions, backend: Backend, watch: Stopwatch
) -> Points:
    """Features in closed form (Theorem 4.1) and their preimage (Theorem 5.1)."""
    feature_map = model.feature_map
    with watch.stage("construct"):
        at = None if near is None else placed(near, gram_operations(len(near), feature_map.output_dim))
        made = _construct(model, at, options, backend)
    with watch.stage("preimage"):
        U = feature_map.standard_preimage(made.F, near=at, backend=backend)
    Q = feature_map.range_basis()
    facts = {"range_dimension": feature_map.output_dim if Q is None else Q.shape[1]}
    return Points(U, made.Y, made.lambda_s, made.range_scale, facts)


def _construct(model: RidgeModel, near: AnyMatrix | None, options: DistillOptions, backend: Backend) -> Construction:
    """Features and labels that train to the model.

    With an intercept, features and labels about their means train to W; any mean f of the features then goes with the
    mean b + W f of the labels. It is that of the real points, and 0 for noise. Where the map's range is a subspace,
    all of it runs in coordinates of an orthonormal basis Q.
    """
    feature_map, with_intercept = model.feature_map, model.center == "both"
    Q = feature_map.range_basis()
    W, k = model.W if Q is None else product(model.W, Q), len(model.W)
    lambda_s = None if isinstance(options.lambda_s, str) else float(options.lambda_s)
    limit, base = feature_map.feature_limit(), np.zeros(W.shape[1])
    D: AnyMatrix | OrthogonalDual
    if near is None:
        labels = None
        if model.targets != "classes":
            spread = np.where(model.spread > 0.0, model.spread, 1.0)
            labels = target_labels(spread, sum(class_counts(k, options.points_per_class)), seed=options.seed)
        start = gaussian_start if options.noise == "gaussian" else orthogonal_start
        D, Y = start(W, options.points_per_class, seed=options.seed, labels=labels, centered=with_intercept)
    else:
        start_lambda = model.lambda_ if lambda_s is None else lambda_s
        F_real = feature_map.standard_features(near, backend=backend)
        F_real = F_real if Q is None else product(F_real, Q)
        D, Y = real_start(W, F_real, start_lambda, centered=with_intercept)
        if with_intercept:
            base = F_real.mean(axis=0)
    if lambda_s:
        D, Y = shrink_to_bound(D, Y, W, lambda_s, scale_labels=options.scale_labels)
    limit -= float(np.abs(base).max())
    made = construct(D, Y, lambda_s, lambda_=model.lambda_, root=options.root, feature_limit=limit)
    if with_intercept and model.b is not None:
        made = replace(made, F=made.F + base, Y=made.Y + model.b + W @ base)
    return made if Q is None else replace(made, F=product(made.F, Q.T))


def nearest_points(
    model: RidgeModel, near: FloatArray | None, options: DistillOptions, backend: Backend, watch: Stopwatch
) -> Points:
    """The exact set nearest, in raw units, to a blend of real points and noise (docs/explanation/nearest.md)."""
    assert near is not None  # DistillOptions has seen to it
    share = options.realism or 0.0
    noise = normal(options.seed, Stream.NOISE, near.size).reshape(near.shape)
    blend = share * near + (1.0 - share) * float(np.sqrt(np.mean(near * near))) * noise
    with watch.stage("construct") as report:
        found = nearest_inputs(
            model.feature_map,
            model.W,
            blend,
            centered=model.center == "both",
            max_seconds=options.max_seconds,
            progress=report,
        )
    return Points(found.U, None, _free_lambda_s(model, options), facts=_facts_of_search(found))


def spanning_points(
    model: RidgeModel, near: FloatArray | None, options: DistillOptions, backend: Backend, watch: Stopwatch
) -> Points:
    """Inputs found by Gauss-Newton steps, whose features span W as nearly as possible."""
    inner = model.feature_map.on_standardised
    with watch.stage("preimage") as report:
        if near is None:
            d, m = inner.input_dim, sum(class_counts(len(model.W), options.points_per_class))
            near = normal(options.seed, Stream.NOISE, m * d).reshape(m, d)
        found = span_model(
            model.W,
            near,
            inner.linearize,
            centered=model.center == "both",
            max_seconds=options.max_seconds,
            progress=report,
        )
    return Points(found.X, None, _free_lambda_s(model, options), facts=_facts_of_search(found))


def kept_points(
    model: RidgeModel, near: FloatArray | None, options: DistillOptions, backend: Backend, watch: Stopwatch
) -> Points:
    """The real inputs as they are (Theorem 4.2)."""
    assert near is not None  # DistillOptions has seen to it
    return Points(near, None, _free_lambda_s(model, options))


Method = Callable[[RidgeModel, FloatArray | None, DistillOptions, Backend, Stopwatch], Points]
METHODS: Mapping[str, Method] = {
    "exact": exact_points,
    "nearest": nearest_points,
    "approximate": spanning_points,
    "labels_only": kept_points,
}


def _facts_of_search(found: Nearest | Approach) -> dict[str, Any]:
    """What the record says of a search: its steps, and what stopped it before its end."""
    return {"steps": found.steps, **({} if found.stopped is None else {"stopped": found.stopped})}


def _free_lambda_s(model: RidgeModel, options: DistillOptions) -> float:
    """lambda_s of the options, "auto" is the model's lambda; nothing bounds it where labels come last."""
    return model.lambda_ if isinstance(options.lambda_s, str) else float(options.lambda_s)


def labels_for(F: AnyMatrix, model: RidgeModel, lambda_s: float) -> FloatArray:
    """The labels with which features F (m, p) train to the model, as nearly as possible."""
    if model.center == "both" and model.b is not None:
        return affine_labels(F, model.W, model.b, lambda_s)
    return learned_labels(F, model.W, lambda_s)
