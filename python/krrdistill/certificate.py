"""How exact a distilled set is, from what was read back from its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.arrays import to_host
from krrdistill.backends import Backend, Chain, get_backend
from krrdistill.feature_gram import FeatureGram
from krrdistill.products import product

__all__ = ["Certificate", "certify", "predict_classes"]

FloatArray = npt.NDArray[np.float64]
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class Certificate:
    """W against W_S, the model retrained from the file.

    weight_relative_error : ||W_S - W||_F / ||W||_F, infinite for W = 0 unless W_S = 0 too
    weight_cosine : <W_S, W> / (||W_S||_F ||W||_F), 0 where one of them is 0
    prediction_agreement : share of test rows on which both models predict the same class
    condition : of the distilled features, s_1 / s_min(m, p)
    singular_values : of the distilled features, descending; None where only the condition number was computed
    """

    weight_relative_error: float
    weight_cosine: float
    prediction_agreement: float
    condition: float
    original_accuracy: float
    distilled_accuracy: float
    singular_values: FloatArray | None = field(default=None, repr=False, compare=False)

    def numbers(self) -> dict[str, float]:
        """The four that a report lists under "certificate"."""
        names = ("weight_relative_error", "weight_cosine", "prediction_agreement", "condition")
        return {name: getattr(self, name) for name in names}


def certify(
    W: FloatArray,
    W_S: FloatArray,
    features: FeatureGram,
    chain: Chain,
    X_test: npt.NDArray[Any],
    y_test: npt.NDArray[np.int64],
    *,
    precision: str,
    backend: Backend | str | None = None,
) -> Certificate:
    """Compares W and W_S (k, p) as matrices and on the test set; ``features`` are the distilled ones.

    Test features are computed in ``precision``, scores in float64: float32 scores would hide small differences.
    """
    solver = get_backend(backend)
    original, distilled = predict_classes(chain, X_test, (W, W_S), precision=precision, backend=solver)
    error, scale, size = (float(np.linalg.norm(A)) for A in (W_S - W, W, W_S))
    return Certificate(
        weight_relative_error=error / scale if scale > 0.0 else (float("inf") if error > 0.0 else 0.0),
        weight_cosine=float(np.vdot(W_S, W)) / (size * scale) if size * scale > 0.0 else 0.0,
        prediction_agreement=float(np.mean(original == distilled)),
        condition=features.condition_number(),
        original_accuracy=float(np.mean(original == y_test)),
        distilled_accuracy=float(np.mean(distilled == y_test)),
        singular_values=features.singular_values(),
    )


def predict_classes(
    chain: Chain, X: Any, models: tuple[FloatArray, ...], *, precision: str, backend: Backend
) -> list[npt.NDArray[np.int64]]:
    """Predicted class of every row of X under every model (k, p): features in ``precision``, scores in float64."""
    stacked = np.concatenate(models)
    k = len(stacked) // len(models)
    n = X.shape[0]
    predictions = [np.empty(n, dtype=np.int64) for _ in models]
    buffer = np.empty((min(_BATCH_ROWS, n), stacked.shape[1]))
    for start in range(0, n, _BATCH_ROWS):
        rows = np.arange(start, min(start + _BATCH_ROWS, n))
        features = buffer[: len(rows)]
        features[:] = to_host("predict", "features", backend.transform(chain, X, dtype=np.dtype(precision), rows=rows))
        scores = product(features, stacked.T).reshape(len(rows), len(models), k)
        for index, predicted in enumerate(predictions):
            predicted[rows] = scores[:, index].argmax(axis=1)
    return predictions
