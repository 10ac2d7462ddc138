"""Labels of distilled points: those of the closed form, and the best ones for given features (Theorem 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from krrdistill.common.placed import AnyMatrix
from krrdistill.common.products import product
from krrdistill.common.random import Stream, normal
from krrdistill.options import PointsPerClass, class_counts
from krrdistill.ridge.feature_gram import FeatureGram, pseudo_inverse

__all__ = [
    "affine_labels",
    "labels_only_errors",
    "learned_labels",
    "one_hot_labels",
    "point_classes",
    "rounds_and_classes",
    "target_labels",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def point_classes(n_classes: int, points_per_class: PointsPerClass) -> IntArray:
    """The class of each of m points (m,), in rounds: round r has the classes with more than r points, ascending."""
    return rounds_and_classes(n_classes, points_per_class)[1]


def rounds_and_classes(n_classes: int, points_per_class: PointsPerClass) -> tuple[IntArray, IntArray]:
    """Of each of m points its round (m,), the number of points of its class before it, and its class (m,)."""
    counts = np.array(class_counts(n_classes, points_per_class), dtype=np.int64)
    rounds, classes = np.nonzero(np.arange(counts.max())[:, None] < counts)
    return rounds, classes


def one_hot_labels(n_classes: int, points_per_class: PointsPerClass) -> FloatArray:
    """Y (m, k), row i the unit vector of the class of point i, see ``point_classes``."""
    return np.eye(n_classes)[point_classes(n_classes, points_per_class)]


def target_labels(spread: FloatArray, m: int, *, seed: int) -> FloatArray:
    """Y (m, k) of real-valued targets: normal, column c with standard deviation spread[c]."""
    return np.asarray(normal(seed, Stream.LABELS, m * len(spread)).reshape(m, -1) * spread)


def learned_labels(F: AnyMatrix, W: FloatArray, lambda_s: float) -> FloatArray:
    """The labels Y (m, k) that bring training on fixed features F (m, p) nearest to W (Theorem 4.2).

    Y = F_l W^T with F_l = F + lambda_s (F^+)^T; what remains is the part of W outside of the row space of F.
    """
    return np.asarray(product(F, W.T) + lambda_s * product(pseudo_inverse(F), W.T))


def affine_labels(F: AnyMatrix, W: FloatArray, b: FloatArray, lambda_s: float) -> FloatArray:
    """The labels Y (m, k) with which features F (m, p) train to W and an unpenalised intercept b.

    They are ``learned_labels`` of the features about their mean.
    The mean of the labels is b + W times that of the features.
    """
    mean = F.mean(axis=0)
    centered = learned_labels(F - mean, W, lambda_s)
    return np.asarray(centered - centered.mean(axis=0) + b + W @ mean)


def labels_only_errors(F: FloatArray, W: FloatArray, sizes: Sequence[int]) -> list[float]:
    """||W_S - W|| / ||W|| of the best labels for the first m of the features F (rows), for every m of ``sizes``.

    What the labels cannot reach, ||W (F^+ F - I)||, falls to rounding at m = p where F has rank p (Theorem 4.2). It is
    the same for every lambda_s.
    """
    scale = float(np.linalg.norm(W))
    errors = []
    for m in sizes:
        W_S = FeatureGram(F[:m]).fit(product(F[:m], W.T), 0.0)
        errors.append(float(np.linalg.norm(W_S - W)) / scale)
    return errors
