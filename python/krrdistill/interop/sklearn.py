"""scikit-learn: ``RidgeDistiller``, a classifier that leaves the few points which retrain to it.

>>> from sklearn.datasets import load_digits
>>> from krrdistill.interop.sklearn import RidgeDistiller
>>> X, y = load_digits(return_X_y=True)
>>> model = RidgeDistiller(kernel="FCNN", points_per_class=1).fit(X, y)
>>> model.X_distilled_.shape, model.certificate_.prediction_agreement
((10, 64), 1.0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from krrdistill.backends import get_backend
from krrdistill.common.arrays import check_choice
from krrdistill.common.samples import as_samples
from krrdistill.data import Preprocessing, standardize, zca
from krrdistill.maps import make_map
from krrdistill.options import DistillOptions
from krrdistill.pipeline import distill
from krrdistill.problem import Problem
from krrdistill.ridge.scores import all_scores

__all__ = ["RidgeDistiller"]

FloatArray = npt.NDArray[np.float64]
_PREPROCESSING = {
    "none": lambda X: Preprocessing.none(X.shape[1]),
    "standardize": standardize,
    "zca": zca,
}
_DTYPES = (np.float64, np.float32, np.uint8)  # taken as they are; anything else becomes the first


class RidgeDistiller(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Kernel ridge classifier W phi(x) and m = points_per_class k points from which ridge regression retrains to it.

    W = C (G + lam I)^-1 from the statistics G, C of phi(X) and one-hot targets, without an intercept; distilled inputs
    and labels in closed form (Theorems 4.1 to 5.4 of Chen, Huang, Weng, NeurIPS 2024). Predictions are those of the
    model that was retrained from the distilled points: ``certificate_`` says how near it is to W.

    Parameters
    ----------
    kernel : "identity", "random_fourier", "orthogonal_fourier", "FCNN" or "deep_linear"
        "conv" needs images, and X has rows of numbers: it is refused.
    kernel_options : mapping, optional
        Of the map, as ``krrdistill.make_map`` takes them: n_features, sigma2, widths, hidden_layers, slope; not seed.
    preprocessing : "standardize", "none" or "zca"
        Affine, before phi, learned by ``fit``; undone in ``X_distilled_``.
    points_per_class : int
    lam : None, a number > 0 or a sequence of them
        The (absolute) ridge parameter. The best of several, by default of 10^-6 ... 10^5.5, is chosen by accuracy on
        the part of the rows that ``validation_fraction`` holds out.
    refit : bool
        With the lam chosen, train on all rows, as scikit-learn's searches do; False leaves out those held out.
    validation_fraction, init, lambda_s, precision, store, backend
        As in ``krrdistill.DistillOptions``.
    seed : int
        Of the split, the map's weights and the noise; the same on every machine.

    Attributes
    ----------
    classes_ : array of shape (k,)
    n_features_in_, feature_names_in_ : scikit-learn's
    distilled_ : DistilledDataset, with ``save``
    X_distilled_ : array of shape (m, d), in the units of X
    Y_distilled_ : array of shape (m, k), the labels to train with, one column per class
    y_distilled_ : array of shape (m,), the class of each point
    coef_ : array of shape (k, p), the model retrained from the distilled points
    coef_original_ : array of shape (k, p), the model W that was learned from X
    lambda_ : float, the ridge parameter of W; lambda_s_ : float, the one to train with on the distilled points
    ridge_path_ : RidgePath, all models that lambda_ was chosen from, with their accuracies
    certificate_ : Certificate, of coef_ against coef_original_, on the rows held out
    """

    def __init__(
        self,
        kernel: str = "identity",
        *,
        kernel_options: Mapping[str, Any] | None = None,
        preprocessing: str = "standardize",
        points_per_class: int = 1,
        lam: float | Sequence[float] | None = None,
        refit: bool = True,
        validation_fraction: float = 0.05,
        init: str = "noise",
        lambda_s: float | str = 0.0,
        precision: str = "float32",
        store: str = "float64",
        seed: int = 0,
        backend: str | None = None,
    ) -> None:
        self.kernel = kernel
        self.kernel_options = kernel_options
        self.preprocessing = preprocessing
        self.points_per_class = points_per_class
        self.lam = lam
        self.refit = refit
        self.validation_fraction = validation_fraction
        self.init = init
        self.lambda_s = lambda_s
        self.precision = precision
        self.store = store
        self.seed = seed
        self.backend = backend

    def fit(self, X: Any, y: Any) -> RidgeDistiller:
        """Learns the ridge model of X (n, d), y (n,) and distils it.

        Raises ValueError (DataError, NotSurjective, LambdaOutOfRange), TypeError, NotPositiveDefinite.
        """
        X, y = validate_data(self, X, y, dtype=_DTYPES)
        check_classification_targets(y)
        check_choice("RidgeDistiller", "preprocessing", self.preprocessing, tuple(_PREPROCESSING))
        map_options = self._map_options()
        classes, labels = np.unique(y, return_inverse=True)
        options = self._options()
        preprocessing = _PREPROCESSING[self.preprocessing](X)
        feature_map = make_map(self.kernel, X, preprocessing, seed=options.seed, **map_options)
        problem = Problem.of("RidgeDistiller", X, labels, feature_map, options, classes=len(classes))
        result = distill(X, labels, feature_map, classes=len(classes), options=options)
        distilled, model = result.distilled, result.model
        self.classes_ = classes
        self.distilled_ = distilled
        self.X_distilled_ = distilled.X
        self.Y_distilled_ = distilled.Y
        self.y_distilled_ = np.tile(classes, options.points_per_class)
        self.coef_: FloatArray = distilled.fit(backend=options.backend)
        self.coef_original_ = model.W
        self.lambda_, self.lambda_s_ = model.lambda_, distilled.lambda_s
        self.ridge_path_ = model.path
        held_out = problem.validation
        self.certificate_ = distilled.verify(model, test=(X[held_out], labels[held_out]), backend=options.backend)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[FloatArray, npt.NDArray[Any]]:
        """(X_distilled_, y_distilled_) after ``fit``: imbalanced-learn's convention for samplers.

        The labels are classes. With init = "noise" and no lambda_s they are the distilled labels up to a common factor,
        so that least squares on their one-hot form finds W up to that factor and predicts the same classes. With
        init = "real", or inputs that are rounded for storage, the distilled labels are soft: only ``Y_distilled_``
        retrains to W.
        """
        self.fit(X, y)
        return self.X_distilled_, self.y_distilled_

    def decision_function(self, X: Any) -> FloatArray:
        """Scores coef_ phi(x), shape (n, k); for two classes the second minus the first, shape (n,)."""
        check_is_fitted(self, "distilled_")
        X = as_samples("RidgeDistiller", validate_data(self, X, dtype=_DTYPES, reset=False))
        feature_map, model, backend = self.distilled_.feature_map, self.coef_[None], get_backend(self.backend, data=X)
        scores: FloatArray = all_scores(feature_map, X, model, None, precision="float64", backend=backend)[:, 0]
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The class with the largest score, the first of equals, shape (n,)."""
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # No intercept and p <= d: two random features do not separate the three blobs of scikit-learn's checks.
        tags.classifier_tags.poor_score = self.kernel != "identity"
        return tags

    def _map_options(self) -> Mapping[str, Any]:
        if not isinstance(self.kernel, str):
            raise TypeError(f"RidgeDistiller: kernel must be a name, got {self.kernel!r}")
        if self.kernel == "conv":
            raise ValueError("RidgeDistiller: kernel 'conv' needs images, X has rows of numbers")
        found = {} if self.kernel_options is None else self.kernel_options
        if not isinstance(found, Mapping):
            raise TypeError(f"RidgeDistiller: kernel_options must be a mapping, got {found!r}")
        if "seed" in found:
            raise ValueError("RidgeDistiller: kernel_options must not hold seed, which is a parameter of its own")
        return found

    def _options(self) -> DistillOptions:
        """Checks what scikit-learn leaves unchecked until ``fit``."""
        return DistillOptions(
            points_per_class=self.points_per_class,
            lambdas=None if self.lam is None else list(np.atleast_1d(self.lam)),
            refit=self.refit,
            validation_fraction=self.validation_fraction,
            init=self.init,
            lambda_s=self.lambda_s,
            precision=self.precision,
            store=self.store,
            seed=self.seed,
            backend=self.backend,
        )
