"""How exact a distilled set is, measured on the file after it was read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.products import product
from krrdistill.common.threads import blas_for
from krrdistill.maps import FeatureMap
from krrdistill.ridge.feature_gram import FeatureGram
from krrdistill.ridge.scores import all_scores, predictions, r_squared

__all__ = ["Certificate", "certify", "relative_error"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_SAME_VALUE = 1e-6  # of the standard deviation of the original model's predictions


@dataclass(frozen=True)
class Certificate:
    """How well W_S, the model trained on a distilled set, agrees with the original model W.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    weight_relative_error : float
        ||W_S - W||_F / ||W||_F; infinite if W = 0 and W_S is not. With an intercept b it is the larger of this and
        ||b_S - b|| / max(||b||, ||s||). Here s (k,) holds the standard deviations of the original's scores on the
        test set, or on the distilled points if there is no test set.
    weight_cosine : float
        <W_S, W> / (||W_S||_F ||W||_F), 0 where one of them is 0.
    prediction_agreement : float
        Fraction of test samples for which both models predict the same class. For several labels a sample: fraction
        of equal labels. For real values: fraction of predictions that agree to 1e-6 of their standard deviation. NaN
        without a test set.
    condition : float
        Condition number of the distilled features, s_1 / s_min(m, p).
    original_accuracy, distilled_accuracy : float
        Accuracies on the test set; for several labels a sample the mean over labels. NaN for real values, and
        without a test set.
    singular_values : array
        Singular values of the distilled features, descending; None if only the condition number was computed.
    per_target : dict
        For targets (n, k): under "original" and "distilled", lists of k numbers "r2", "mse" and, for 0/1 targets,
        "accuracy".
    outcomes : array of shape (r, 4)
        Predictions on a test set with class labels, one row for each combination that occurs: true class, prediction
        of the original, prediction of the distilled model, number of samples. None without such a test set.
    difference : array of shape (k, p)
        W_S - W.
    """

    weight_relative_error: float
    weight_cosine: float
    prediction_agreement: float
    condition: float
    original_accuracy: float
    distilled_accuracy: float
    singular_values: FloatArray | None = field(default=None, repr=False, compare=False)
    per_target: dict[str, dict[str, list[float]]] | None = field(default=None, compare=False)
    outcomes: IntArray | None = field(default=None, repr=False, compare=False)
    difference: FloatArray | None = field(default=None, repr=False, compare=False)

    def numbers(self) -> dict[str, float]:
        """The four that a report lists under "certificate"."""
        names = ("weight_relative_error", "weight_cosine", "prediction_agreement", "condition")
        return {name: getattr(self, name) for name in names}

    def scalars(self) -> dict[str, float]:
        """Those four and both accuracies: all that fits in a row of a table."""
        return {
            **self.numbers(),
            "original_accuracy": self.original_accuracy,
            "distilled_accuracy": self.distilled_accuracy,
        }


def certify(
    W: FloatArray,
    W_S: FloatArray,
    features: FeatureGram,
    feature_map: FeatureMap,
    X_test: npt.NDArray[Any] | None,
    y_test: npt.NDArray[Any] | None,
    *,
    precision: str,
    backend: Backend | str | None = None,
    intercepts: tuple[FloatArray, FloatArray] | None = None,
    targets: str = "classes",
) -> Certificate:
    """Compares two models as matrices and on the test set, if there is one; ``features`` are the distilled ones.

    Test features are computed in ``precision``, scores in float64: float32 scores would hide small differences.
    """
    b = None if intercepts is None else np.stack(intercepts)
    models = np.stack([W, W_S])
    both = (
        np.asarray(product(features.F, models.reshape(-1, models.shape[2]).T)).reshape(-1, *models.shape[:2])
        if X_test is None
        else all_scores(
            feature_map,
            X_test,
            models,
            b,
            precision=precision,
            backend=get_backend(backend, data=X_test),
            where="verify: test",
        )
    )
    original, distilled = (predictions(both[:, model], targets) for model in (0, 1))
    difference = W_S - W
    with blas_for(8.0 * W.size):
        scale, size = (float(np.linalg.norm(A)) for A in (W, W_S))
        relative, inner = _relative(float(np.linalg.norm(difference)), scale), float(np.vdot(W_S, W))
    if b is not None:  # of centred targets b is only rounding: it shifts scores, so their spread is a scale too
        spread = np.linalg.norm(both[:, 0].std(axis=0))
        relative = max(
            relative, _relative(float(np.linalg.norm(b[1] - b[0])), float(max(np.linalg.norm(b[0]), spread)))
        )
    known = targets != "real" and y_test is not None
    hits = [predicted == y_test if known else np.array(np.nan) for predicted in (original, distilled)]
    per_target = None
    if targets != "classes" and y_test is not None:
        measures = dict(zip(("r2", "mse"), r_squared([(np.arange(len(both)), both)], y_test), strict=True))
        if targets == "multilabel":
            measures["accuracy"] = np.stack([hit.mean(axis=0) for hit in hits])
        per_target = {
            model: {name: values[index].tolist() for name, values in measures.items()}
            for index, model in enumerate(("original", "distilled"))
        }
    return Certificate(
        weight_relative_error=relative,
        weight_cosine=inner / (size * scale) if size * scale > 0.0 else 0.0,
        prediction_agreement=float("nan") if y_test is None else _agreement(original, distilled, targets),
        condition=features.condition_number(),
        original_accuracy=float(hits[0].mean()),
        distilled_accuracy=float(hits[1].mean()),
        singular_values=features.singular_values(),
        per_target=per_target,
        outcomes=_outcomes(y_test, original, distilled, len(W))
        if y_test is not None and targets == "classes"
        else None,
        difference=difference,
    )


def _outcomes(truth: IntArray, original: IntArray, distilled: IntArray, k: int) -> IntArray:
    """See ``Certificate.outcomes``; at most as many rows as test samples."""
    cases, counts = np.unique((truth * k + original) * k + distilled, return_counts=True)  # k^3 < 2^63
    return np.stack([cases // k**2, cases // k % k, cases % k, counts], axis=1)


def relative_error(W: FloatArray, W_S: FloatArray) -> float:
    """||W_S - W||_F / ||W||_F, infinite for W = 0 unless W_S = 0 too."""
    with blas_for(4.0 * W.size):
        return _relative(float(np.linalg.norm(W_S - W)), float(np.linalg.norm(W)))


def _relative(error: float, scale: float) -> float:
    if scale > 0.0:
        return error / scale
    return float("inf") if error > 0.0 else 0.0


def _agreement(original: npt.NDArray[Any], distilled: npt.NDArray[Any], targets: str) -> float:
    if targets == "real":
        return float(np.mean(np.abs(distilled - original) <= _SAME_VALUE * original.std(axis=0)))
    return float(np.mean(original == distilled))
