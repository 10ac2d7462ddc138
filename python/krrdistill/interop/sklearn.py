"""scikit-learn: ``RidgeDistiller``, a classifier that also distils its training data.

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
from scipy.optimize import brentq
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from krrdistill.artifact.file import DistilledDataset
from krrdistill.backends import get_backend
from krrdistill.common.arrays import check_choice
from krrdistill.common.samples import as_samples
from krrdistill.construct.labels import point_classes
from krrdistill.data import Preprocessing, standardize, zca
from krrdistill.data.labels import Classes, Targets
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap, make_map
from krrdistill.options import DistillOptions, PointsPerClass
from krrdistill.pipeline import distill_model, train
from krrdistill.problem import Problem
from krrdistill.ridge.model import RidgeModel, fit_model
from krrdistill.ridge.scores import all_scores
from krrdistill.ridge.statistics import RidgeStatistics
from krrdistill.ridge.sums import check_weights

__all__ = ["RidgeDistiller"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_PREPROCESSING = {
    "none": lambda X: Preprocessing.none(X.shape[1]),
    "standardize": standardize,
    "zca": zca,
}
_LOG_STEEPNESS = (-7.0, 12.0)  # of the largest score over the temperature
_DTYPES = (np.float64, np.float32, np.uint8)  # taken as they are; anything else becomes the first


class RidgeDistiller(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Kernel ridge classifier W phi(x) and the few points of each class from which ridge regression retrains to it.

    W = C (G + lam I)^-1 from the statistics G, C of phi(X) and one-hot targets, without an intercept; distilled inputs
    and labels in closed form (Theorems 4.1 to 5.4 of Chen, Huang, Weng, NeurIPS 2024). Predictions are those of the
    model that was retrained from the distilled points: ``certificate_`` says how near it is to W.

    Whole-numbered floats in y are classes here, as everywhere in scikit-learn.

    Parameters
    ----------
    kernel : "identity", "random_fourier", "orthogonal_fourier", "FCNN" or "deep_linear"
        "conv" needs images, and X has rows of numbers: it is refused.
    kernel_options : mapping, optional
        Of the map, as ``krrdistill.make_map`` takes them: n_features, sigma2, widths, hidden_layers, slope; not seed.
    preprocessing : "standardize", "none", "zca" or a ``krrdistill.Preprocessing``
        Affine, before phi, undone in ``X_distilled_``. A name is learned by ``fit``, from all rows alike whatever their
        weights, and by the first call of ``partial_fit`` from its rows.
    points_per_class : int, sequence of k integers or mapping of labels to them
        Sequences are in the order of ``classes_``.
    lam : None, a number > 0 or a sequence of them
        The (absolute) ridge parameter. The best of several, by default of 10^-6 ... 10^5.5, is chosen by accuracy on
        the part of the rows that ``validation_fraction`` holds out.
    selection : "held-out" or "gcv"
        "gcv" chooses lam by generalised cross-validation and holds nothing out.
    refit : bool
        With the lam chosen, train on all rows, as scikit-learn's searches do; False leaves out those held out.
    class_weight : None, "balanced" or a mapping of labels to weights
        Multiplies ``sample_weight``; lam is chosen by plain accuracy all the same.
    validation_fraction, init, lambda_s, precision, store, backend
        As in ``krrdistill.DistillOptions``.
    seed : int
        Of the split, the map's weights and the noise; the same on every machine.

    Attributes
    ----------
    classes_ : array of shape (k,)
    n_features_in_, feature_names_in_
        Those of scikit-learn.
    distilled_ : DistilledDataset
        Its ``save`` writes the file.
    X_distilled_ : array of shape (m, d)
        In the units of X.
    Y_distilled_ : array of shape (m, k)
        The labels to train with, one column per class.
    y_distilled_ : array of shape (m,)
        The class of each point.
    coef_ : array of shape (k, p)
        The model retrained from the distilled points.
    coef_original_ : array of shape (k, p)
        The model W that was learned from X.
    lambda_ : float
        The ridge parameter of W.
    lambda_s_ : float
        The one to train with on the distilled points.
    ridge_path_ : RidgePath
        All models that ``lambda_`` was chosen from, with their accuracies.
    certificate_ : Certificate
        Of ``coef_`` against ``coef_original_``, on the rows held out, or the training rows if none are.
    temperature_ : float
        See ``predict_proba``.
    statistics_ : RidgeStatistics
        Of the training rows; ``partial_fit`` adds to them.

    Notes
    -----
    The feature map takes inputs as they are, so that any solver finds ``coef_`` again (lambda_s = 0)::

        F = model.distilled_.feature_map.transform(model.X_distilled_)
        np.linalg.lstsq(F, model.Y_distilled_)[0].T
        Ridge(alpha=1e-300, fit_intercept=False, solver="svd").fit(F, model.Y_distilled_).coef_
        LinearRegression(fit_intercept=False, tol=1e-14).fit(F, model.Y_distilled_).coef_

    With its own ``tol`` the ``LinearRegression`` of scikit-learn 1.9 or later does not where F is ill-conditioned: it
    counts small singular values as zero. The rows of W add up to nearly nothing for standardised data without a random
    map, and F then has a condition number of 10^6 to 10^9 (``certificate_.condition``). Other solvers of ``Ridge`` lose
    it, too.
    """

    def __init__(
        self,
        kernel: str = "identity",
        *,
        kernel_options: Mapping[str, Any] | None = None,
        preprocessing: str | Preprocessing = "standardize",
        points_per_class: PointsPerClass = 1,
        lam: float | Sequence[float] | None = None,
        selection: str = "held-out",
        refit: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
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
        self.selection = selection
        self.refit = refit
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.init = init
        self.lambda_s = lambda_s
        self.precision = precision
        self.store = store
        self.seed = seed
        self.backend = backend

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RidgeDistiller:
        """Learns the ridge model of X (n, d), y (n,) and distils it.

        Raises ValueError (DataError, NotSurjective, LambdaOutOfRange), TypeError, NotPositiveDefinite.
        """
        _refuse_masks(X=X, y=y)
        X, y = validate_data(self, X, y, dtype=_DTYPES)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        labels = Targets(codes, _named(classes))
        options = self._options()
        weights = None if sample_weight is None else check_weights("RidgeDistiller", sample_weight, len(X))
        problem = Problem.of(
            "RidgeDistiller", X, labels, self._map(X), options, sample_weight=self._weights(y, weights)
        )
        trained, rows = train(problem), problem.final_training_rows
        distilled = self._distilled(trained.model, X[rows], Targets(codes[rows], labels.classes), options)
        self.classes_, self.statistics_ = classes, trained.statistics
        judged = problem.validation if len(problem.validation) else rows
        self._keep(distilled, trained.model, X[judged], codes[judged])
        scores = trained.selected.scores(X[judged], backend=options.backend)  # of a model that has not seen them
        self.temperature_ = _temperature(scores, codes[judged], None if weights is None else weights[judged])
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, *, solve: bool = True
    ) -> RidgeDistiller:
        """Adds the rows X (n, d), y (n,) to those of earlier calls, ``fit`` too; solves and distils with all of them.

        Nothing is held out, so that the model is that of one ``fit`` on all rows with the same lam, or with
        ``selection="gcv"`` (which chooses here whenever there are several), and with a ``preprocessing`` and sigma2
        that do not depend on the rows: names are learned from the first call.

        Parameters
        ----------
        X, y : array of shape (n, d), array of shape (n,)
        classes : array of shape (k,)
            All labels that will ever come, in the first call (not after ``fit``).
        sample_weight : array of shape (n,), >= 0, optional
        solve : bool
            False only adds the rows; predictions need a later call that solves. ``certificate_`` and ``temperature_``
            come from the rows of the call that solves, and so do the points of ``init="real"``.

        Raises
        ------
        ValueError
            For other classes than those of the first call, for ``class_weight="balanced"``, and where a model is asked
            for before every class has a row.
        """
        first = not hasattr(self, "statistics_")
        if self.class_weight == "balanced":
            raise ValueError("RidgeDistiller.partial_fit: class_weight='balanced' needs all rows: give a mapping")
        _refuse_masks(X=X, y=y)
        X, y = validate_data(self, X, y, dtype=_DTYPES, reset=first)
        check_classification_targets(y)
        known = self._known_classes(classes, first)
        named = _named(known)
        codes = np.minimum(np.searchsorted(known, y), len(known) - 1)
        if (unknown := y[known[codes] != y]).size:
            found = unknown.tolist()[0]
            raise ValueError(f"RidgeDistiller.partial_fit: y holds the label {found!r}, which is not in classes")
        options, labels = self._options(), Targets(codes, named)
        weights = None if sample_weight is None else check_weights("RidgeDistiller", sample_weight, len(X))
        statistics = (
            RidgeStatistics(self._map(X), labels.classes, precision=options.precision, backend=options.backend)
            if first
            else self.statistics_.copy()  # so that a failure leaves the estimator as it was
        )
        statistics.update(X, labels, sample_weight=self._weights(y, weights), where="RidgeDistiller.partial_fit")
        if solve:
            absent = np.flatnonzero(statistics.target_square == 0.0)
            if absent.size:
                raise DataError(
                    f"RidgeDistiller.partial_fit: no sample of class {known.tolist()[absent[0]]!r} so far; pass "
                    "solve=False until every class has come"
                )
            selection = "gcv" if options.lambdas is None or len(options.lambdas) > 1 else "held-out"
            model = fit_model(statistics, options.lambdas, selection=selection)
            distilled = self._distilled(model, X, labels, options)
        self.classes_, self.statistics_ = known, statistics
        for name in _SOLVED:
            self.__dict__.pop(name, None)
        if solve:
            self._keep(distilled, model, X, codes)
            self.temperature_ = _temperature(model.scores(X, backend=options.backend), codes, weights)
        return self

    def _distilled(self, model: RidgeModel, X: Any, labels: Targets, options: DistillOptions) -> DistilledDataset:
        """The points of a model; with init = "real" they start from rows of X."""
        given = {name: getattr(options, name) for name in vars(options) if name not in options.training()}
        reference = (X, labels) if options.start == "real" else None
        return distill_model(model, reference=reference, seed=options.seed, **given)

    def _keep(self, distilled: DistilledDataset, model: RidgeModel, X: Any, codes: IntArray) -> None:
        """Sets the attributes of a solution, judged on the rows X with the codes of their classes."""
        self.distilled_ = distilled
        self.X_distilled_ = distilled.X
        self.Y_distilled_ = distilled.Y
        points = distilled.meta["options"]["points_per_class"]
        self.y_distilled_ = self.classes_[point_classes(len(self.classes_), points)]
        self.coef_: FloatArray = distilled.fit(backend=self.backend)
        self.coef_original_ = model.W
        self.lambda_, self.lambda_s_ = model.lambda_, distilled.lambda_s
        self.ridge_path_ = model.path
        assert distilled.classes is not None
        self.certificate_ = distilled.verify(model, test=(X, Targets(codes, distilled.classes)), backend=self.backend)

    def fit_resample(self, X: Any, y: Any, sample_weight: Any = None) -> tuple[FloatArray, npt.NDArray[Any]]:
        """``(X_distilled_, y_distilled_)`` after ``fit``: imbalanced-learn's convention for samplers.

        The labels are classes. With init = "noise" and no lambda_s they are the distilled labels up to a common factor,
        so that least squares on their one-hot form finds W up to that factor and predicts the same classes. With
        init = "real", or inputs that are rounded for storage, the distilled labels are soft: only ``Y_distilled_``
        retrains to W.
        """
        self.fit(X, y, sample_weight=sample_weight)
        return self.X_distilled_, self.y_distilled_

    def decision_function(self, X: Any) -> FloatArray:
        """Scores ``coef_`` phi(x), shape (n, k); for two classes the second minus the first, shape (n,)."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The class with the largest score, the first of equals, shape (n,)."""
        scores = self._scores(X)
        return np.asarray(self.classes_[scores.argmax(axis=1)])

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities ``softmax(scores / temperature_)``, shape (n, k); the largest is that of the predicted class.

        Temperature scaling: the one number minimises the log-loss of the rows held out, under the model that has not
        seen them; with ``sample_weight``, without ``class_weight``. Each of n rows counts as a k-th part of one more of
        every class, in n + 1 (Laplace's rule, as in Platt's scaling), so that a few rows that happen to be right do not
        make it certain. With ``selection="gcv"``, and after ``partial_fit``, rows of the training take their place:
        probabilities are then too sure where features are not far fewer than rows.

        References
        ----------
        Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017.
        """
        return np.asarray(softmax(self._scores(X) / self.temperature_, axis=1))

    def _scores(self, X: Any) -> FloatArray:
        """Scores coef_ phi(x), shape (n, k)."""
        check_is_fitted(self, "distilled_")
        X = as_samples("RidgeDistiller", validate_data(self, X, dtype=_DTYPES, reset=False))
        (self.distilled_.sizes or self.distilled_.preprocessing).warn_of_units("RidgeDistiller", X)
        feature_map, model, backend = self.distilled_.feature_map, self.coef_[None], get_backend(self.backend, data=X)
        return all_scores(feature_map, X, model, None, precision="float64", backend=backend, where="RidgeDistiller")[
            :, 0
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # No intercept and p <= d: two random features do not separate the three blobs of scikit-learn's checks.
        tags.classifier_tags.poor_score = self.kernel != "identity"
        return tags

    def _map(self, X: Any) -> FeatureMap:
        """phi, with what it learns of X."""
        options = self._map_options()
        preprocessing = self.preprocessing
        if not isinstance(preprocessing, Preprocessing):
            check_choice("RidgeDistiller", "preprocessing", preprocessing, tuple(_PREPROCESSING))
            preprocessing = _PREPROCESSING[preprocessing](X)
        return make_map(self.kernel, X, preprocessing, seed=self.seed, **options)

    def _weights(self, y: npt.NDArray[Any], sample_weight: FloatArray | None) -> FloatArray | None:
        """Weights of rows times those of their classes."""
        if self.class_weight is None:
            return sample_weight
        of_class = np.asarray(compute_sample_weight(self.class_weight, y), dtype=np.float64)
        return of_class if sample_weight is None else of_class * sample_weight

    def _known_classes(self, classes: Any, first: bool) -> npt.NDArray[Any]:
        """The labels of ``partial_fit``, ascending."""
        if first and classes is None:
            raise ValueError("RidgeDistiller.partial_fit: the first call needs classes, all labels that will ever come")
        found = self.classes_ if classes is None else np.unique(np.asarray(classes))
        if not first and not np.array_equal(found, self.classes_):
            raise ValueError(f"RidgeDistiller.partial_fit: classes {found} are not those of the first call")
        return np.asarray(found)

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
            selection=self.selection,
            refit=self.refit and self.selection != "gcv",  # nothing is held out there
            validation_fraction=self.validation_fraction,
            init=self.init,
            lambda_s=self.lambda_s,
            precision=self.precision,
            store=self.store,
            seed=self.seed,
            backend=self.backend,
        )


_SOLVED = (
    "distilled_",
    "X_distilled_",
    "Y_distilled_",
    "y_distilled_",
    "coef_",
    "coef_original_",
    "lambda_",
    "lambda_s_",
    "ridge_path_",
    "certificate_",
    "temperature_",
)


def _refuse_masks(**arrays: Any) -> None:
    """Raises TypeError for masked arrays, whose masks scikit-learn drops."""
    for name, array in arrays.items():
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"RidgeDistiller: {name} is a masked array; fill or drop what is masked")


def _named(classes: npt.NDArray[Any]) -> Classes:
    """Ascending labels as the classes of a file; whole-numbered floats are integers there."""
    if len(classes) < 2:
        raise ValueError(f"RidgeDistiller: y has one class only, {classes.tolist()[0]!r}; a classifier needs two")
    names = classes.astype(np.int64) if classes.dtype.kind == "f" else classes
    codes = names.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names)))
    return Classes.of("RidgeDistiller", len(names) if codes else names)


def _temperature(scores: FloatArray, codes: IntArray, weights: FloatArray | None) -> float:
    """T > 0 with the smallest log-loss of softmax(scores / T) for smoothed labels; it is convex in 1 / T.

    Of n rows (the sum of their weights) and k classes, a label is (n + 1/k) / (n + 1) of its class and
    1 / (k (n + 1)) of every other.
    """
    n, k = scores.shape
    shares = np.ones(n) if weights is None or not weights.any() else weights
    total = float(shares.sum())
    targets = (total * np.eye(k)[codes] + 1.0 / k) / (total + 1.0)
    size = float(np.abs(scores).max()) or 1.0

    def slope(log_steepness: float) -> float:
        """The derivative of the log-loss by the steepness 1 / T, up to a factor > 0; it rises with it."""
        excess = softmax(scores * (np.exp(log_steepness) / size), axis=1) - targets
        return float(shares @ np.einsum("nk,nk->n", excess, scores))

    flattest, steepest = _LOG_STEEPNESS
    if slope(flattest) >= 0.0:  # the scores say nothing about the classes
        return size / float(np.exp(flattest))
    if slope(steepest) <= 0.0:
        return size / float(np.exp(steepest))
    return size / float(np.exp(brentq(slope, flattest, steepest)))
