"""RidgeDistiller: scikit-learn's own checks, exactness, composition with its tools and with imbalanced-learn."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
from oracles import ridge
from tolerances import assert_elementwise, assert_exact, assert_promised, assert_promised_model, assert_solve

pytest.importorskip("sklearn", reason='scikit-learn is not installed (pip install "krrdistill[sklearn]")')

from scipy.special import softmax
from sklearn import datasets
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LinearRegression, Ridge, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    parametrize_with_checks,
)

from krrdistill import maps as features
from krrdistill.interop.sklearn import RidgeDistiller

Array = npt.NDArray[Any]
LETTERS = np.array(list("qwertzuiop"))  # not in alphabetical order


KERNELS = tuple(kernel for kernel in features.KERNELS if kernel != "conv")  # convolutions need images, rows are flat


def expected_failures(estimator: RidgeDistiller) -> dict[str, str]:
    held_out = "a row of weight 2 is held out as one row, two equal rows are not"
    failures = {"check_sample_weight_equivalence_on_dense_data": held_out}
    if estimator.kernel == "identity":  # the others carry poor_score
        failures["check_class_weight_classifiers"] = "without an intercept no weights give a class all of the plane"
    return failures


@parametrize_with_checks([RidgeDistiller(kernel) for kernel in KERNELS], expected_failed_checks=expected_failures)
def test_scikit_learn_accepts_the_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kernel", ["identity", "FCNN", "deep_linear"])
def test_weights_count_like_repeated_rows_where_nothing_is_held_out(kernel: str) -> None:
    estimator = RidgeDistiller(kernel, lam=1.0, selection="gcv", preprocessing="none", precision="float64")
    check_sample_weight_equivalence_on_dense_data("RidgeDistiller", estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array, Array, Array]:
    """X, y to fit and X, y to test, pixels uint8."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order].astype(np.uint8), y[order]
    return X[:1200], y[:1200], X[1200:], y[1200:]


def standardized(X: Array) -> Array:
    return StandardScaler().fit_transform(X)


def test_learns_ridge_regression_on_all_rows(digits: tuple[Array, ...]) -> None:
    X, y, _, _ = digits
    model = RidgeDistiller(lam=10.0, precision="float64").fit(X, y)
    Z = standardized(X)
    assert model.lambda_ == 10.0
    expected = ridge(np.eye(10)[y].T, Z.T, 10.0)
    condition = np.linalg.cond(Z.T @ Z + 10.0 * np.eye(64))
    assert_solve(model.coef_original_, expected, condition)


def test_rows_held_out_stay_out_without_refit(digits: tuple[Array, ...]) -> None:
    X, y, _, _ = digits
    model = RidgeDistiller(refit=False, validation_fraction=0.25, precision="float64").fit(X, y)
    path = model.ridge_path_
    assert model.distilled_.meta["n_train"] == 900
    assert model.lambda_ == path.lambdas[path.best]
    assert path.weights is None  # a model keeps what is known about the others, not the others
    assert model.certificate_.original_accuracy == path.val_accuracy[path.best]


def test_every_option_reaches_the_pipeline(digits: tuple[Array, ...]) -> None:
    options: dict[str, Any] = {
        "points_per_class": 2,
        "init": "real",
        "lambda_s": "auto",
        "validation_fraction": 0.2,
        "refit": False,
        "seed": 7,
        "precision": "float64",
        "store": "float32",
        "backend": "array",
    }
    model = RidgeDistiller(lam=[10.0, 1.0], preprocessing="zca", **options).fit(digits[0], digits[1])
    assert model.distilled_.meta["options"].items() >= options.items()
    assert model.distilled_.meta["options"]["lambdas"] == [10.0, 1.0]
    assert model.distilled_.preprocessing.kind == "zca"
    assert model.distilled_.inputs.dtype == np.float32


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("init", ["noise", "real"])
def test_the_distilled_points_retrain_to_the_model(digits: tuple[Array, ...], kernel: str, init: str) -> None:
    X, y, X_test, y_test = digits
    model = RidgeDistiller(kernel, points_per_class=2, init=init, lambda_s="auto").fit(X, LETTERS[y])
    assert model.X_distilled_.shape == (20, 64)
    assert model.Y_distilled_.shape == (20, 10)
    assert_exact(model.y_distilled_, np.tile(np.sort(LETTERS), 2))

    distilled = model.distilled_
    phi = distilled.feature_map.transform(model.X_distilled_)
    retrained = kd.fit_features(phi, model.Y_distilled_, model.lambda_s_)
    certificate = model.certificate_
    assert_promised(certificate.weight_relative_error)
    assert certificate.prediction_agreement == 1.0
    for weights in (retrained, model.coef_):
        assert_promised_model(weights, model.coef_original_)

    features = distilled.feature_map.transform(X_test, dtype="float64")
    assert_exact(model.predict(X_test), np.sort(LETTERS)[(features @ model.coef_original_.T).argmax(axis=1)])
    assert model.score(X_test, LETTERS[y_test]) > 0.85


def test_two_classes_have_one_score(digits: tuple[Array, ...]) -> None:
    X, y, X_test, y_test = digits
    model = RidgeDistiller().fit(X, np.where(y < 5, "low", "high"))
    scores = model.decision_function(X_test)
    assert scores.shape == (len(X_test),)
    assert_exact(model.predict(X_test), np.where(scores > 0, "low", "high"))
    assert model.score(X_test, np.where(y_test < 5, "low", "high")) > 0.8


def test_types_and_orders_of_the_data_do_not_matter(digits: tuple[Array, ...]) -> None:
    X, y, X_test, _ = digits
    expected = RidgeDistiller().fit(X, y).predict(X_test)
    for other in (X.astype(np.float32), X.astype(np.int64), np.asfortranarray(X, dtype=np.float64), X.tolist()):
        model = RidgeDistiller().fit(other, y)
        assert_exact(model.predict(np.asfortranarray(X_test)), expected)


@pytest.mark.parametrize("k", [2, 10])
def test_resampling_feeds_another_classifier(digits: tuple[Array, ...], k: int) -> None:
    """Least squares on the resampled points, with hard labels, makes the decisions of the distiller."""
    X, y, X_test, y_test = digits[0], digits[1] % k, digits[2], digits[3] % k
    least_squares = RidgeClassifier(1e-10, fit_intercept=False, solver="svd")
    imblearn = pytest.importorskip("imblearn.pipeline", reason="imbalanced-learn is not installed")
    pipeline = imblearn.make_pipeline(StandardScaler(), RidgeDistiller(preprocessing="none"), least_squares)
    pipeline.fit(X, LETTERS[y])
    distiller = pipeline.named_steps["ridgedistiller"]
    assert_exact(pipeline.predict(X_test), distiller.predict(pipeline[0].transform(X_test)))
    assert pipeline.score(X_test, LETTERS[y_test]) > 0.8

    resampled, labels = RidgeDistiller().fit_resample(X, y)
    again = RidgeDistiller().fit(X, y)
    assert_exact(resampled, again.X_distilled_)
    assert_exact(labels, again.y_distilled_)


def test_features_of_other_transformers_can_be_distilled(digits: tuple[Array, ...]) -> None:
    X, y, X_test, y_test = digits
    pipeline = make_pipeline(
        MinMaxScaler(), Nystroem(n_components=150, gamma=0.02, random_state=0), RidgeDistiller(preprocessing="none")
    )
    pipeline.fit(X, y)
    assert pipeline[-1].X_distilled_.shape == (10, 150)
    assert pipeline[-1].certificate_.prediction_agreement == 1.0
    assert pipeline.score(X_test, y_test) > 0.9


def test_searches_set_every_parameter(digits: tuple[Array, ...]) -> None:
    X, y, X_test, y_test = digits
    grid = {
        "ridgedistiller__kernel": ["FCNN", "random_fourier"],
        "ridgedistiller__lam": [1e6, 10.0],
        "ridgedistiller__points_per_class": [1, 2],
    }
    search = GridSearchCV(make_pipeline(StandardScaler(), RidgeDistiller(preprocessing="none")), grid, cv=2)
    search.fit(X, y)
    assert search.best_params_["ridgedistiller__lam"] == 10.0
    assert search.score(X_test, y_test) > 0.85
    scores = search.cv_results_["mean_test_score"].reshape(4, 2)
    assert_exact(scores[:, 0], scores[:, 1])  # the number of points does not change an exact model


def test_kernel_options_reach_the_map(digits: tuple[Array, ...]) -> None:
    X, y, _, _ = digits
    model = clone(RidgeDistiller("FCNN", kernel_options={"widths": [40, 20]}, seed=3)).fit(X, y)
    assert model.coef_.shape == (10, 20)
    assert model.distilled_.feature_map.spec()["seed"] == 3


def test_fitted_models_can_be_pickled_and_saved(digits: tuple[Array, ...], tmp_path: Path) -> None:
    X, y, X_test, _ = digits
    model = RidgeDistiller("random_fourier", seed=1).fit(X, y)
    predicted = model.predict(X_test)
    assert_exact(pickle.loads(pickle.dumps(model)).predict(X_test), predicted)
    model.distilled_.save(tmp_path / "distilled.npz")
    assert_exact(kd.DistilledDataset.load(tmp_path / "distilled.npz").predict(X_test), predicted)


def test_the_seed_alone_decides(digits: tuple[Array, ...]) -> None:
    X, y, _, _ = digits
    first, again, other = (RidgeDistiller("FCNN", seed=seed).fit(X, y) for seed in (5, 5, 6))
    assert_exact(first.X_distilled_, again.X_distilled_)
    assert not np.array_equal(first.X_distilled_, other.X_distilled_)


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"preprocessing": "whiten"}, ValueError, "preprocessing must be one of none, standardize, zca; got 'whiten'"),
        ({"kernel": "rbf"}, ValueError, "kernel must be one of .*; got 'rbf'"),
        ({"kernel": None}, TypeError, "^RidgeDistiller: kernel must be a name, got None$"),
        ({"kernel": np.tanh}, TypeError, "^RidgeDistiller: kernel must be a name, got <ufunc 'tanh'>$"),
        ({"kernel": "conv"}, ValueError, "^RidgeDistiller: kernel 'conv' needs images"),
        ({"kernel_options": 3}, TypeError, "^RidgeDistiller: kernel_options must be a mapping, got 3$"),
        ({"kernel_options": {"seed": 1}}, ValueError, "^RidgeDistiller: kernel_options must not hold seed"),
        ({"kernel": "FCNN", "kernel_options": {"depth": 2}}, ValueError, "FCNN does not take depth"),
        ({"points_per_class": 0}, ValueError, "points_per_class must be >= 1, got 0"),
        ({"init": "real", "points_per_class": 500}, ValueError, "fewer than points_per_class = 500"),
        ({"lam": -1.0}, ValueError, "lambdas must be finite and > 0, got -1.0"),
        ({"lam": []}, ValueError, "lambdas must hold at least one value"),
        ({"lambda_s": 1e9}, kd.LambdaOutOfRange, "lambda_s = 1e\\+09 exceeds"),
        ({"backend": "cupid"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_parameters_are_named_when_fitting(
    digits: tuple[Array, ...], parameters: dict[str, Any], kind: type[Exception], message: str
) -> None:
    model = RidgeDistiller(**parameters)
    with pytest.raises(kind, match=message):
        model.fit(digits[0], digits[1])
    with pytest.raises(NotFittedError):
        model.predict(digits[0])


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
@pytest.mark.parametrize("points_per_class", [1, 3])
def test_features_of_the_points_and_least_squares_give_the_model(name: str, points_per_class: int) -> None:
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    model = RidgeDistiller(points_per_class=points_per_class).fit(X, y)
    F = model.distilled_.feature_map.transform(model.X_distilled_)
    ridge_of_nothing = Ridge(alpha=1e-300, fit_intercept=False, solver="svd").fit(F, model.Y_distilled_)
    exact = {"tol": 1e-14} if "tol" in inspect.signature(LinearRegression).parameters else {}
    linear = LinearRegression(fit_intercept=False, **exact).fit(F, model.Y_distilled_)
    for W in (np.linalg.lstsq(F, model.Y_distilled_, rcond=None)[0].T, ridge_of_nothing.coef_, linear.coef_):
        # without an intercept the rows of W sum to nearly 0, and the condition number of F is 1e6 to 1e9
        assert_solve(W, model.coef_, float(np.linalg.cond(F)))
        scores = model.distilled_.feature_map.transform(X) @ W.T
        assert_exact(model.classes_[scores.argmax(axis=1)], model.predict(X))


# Labels


@pytest.mark.parametrize("argument", ["X", "y"])
def test_masked_arrays_are_refused(digits: tuple[Array, ...], argument: str) -> None:
    X, y = digits[:2]
    given = {"X": X, "y": y, argument: np.ma.masked_equal(X if argument == "X" else y, 1)}
    for method in ("fit", "partial_fit"):
        with pytest.raises(TypeError, match=f"RidgeDistiller: {argument} is a masked array"):
            getattr(RidgeDistiller(), method)(**given)


@pytest.mark.parametrize("as_type", [float, bool, str, object])
def test_any_labels_of_scikit_learn_are_classes(digits: tuple[Array, ...], as_type: Any) -> None:
    X, y = digits[0], digits[1] % 2 if as_type is bool else digits[1]
    y = LETTERS[y] if as_type is object else y
    expected = RidgeDistiller().fit(X, y)
    model = RidgeDistiller().fit(X, y.astype(as_type))
    assert_exact(model.predict(X), expected.predict(X).astype(as_type))
    assert_exact(model.distilled_.predict(X).astype(as_type), model.predict(X))
    assert model.classes_.dtype == y.astype(as_type).dtype
    assert_exact(model.X_distilled_, expected.X_distilled_)


def test_the_file_names_the_classes(digits: tuple[Array, ...]) -> None:
    model = RidgeDistiller().fit(digits[0], LETTERS[digits[1]])
    assert_exact(model.distilled_.predict(digits[2]), model.predict(digits[2]))


def test_labels_in_one_column_are_raveled_with_the_warning_of_scikit_learn(digits: tuple[Array, ...]) -> None:
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        model = RidgeDistiller().fit(digits[0], digits[1][:, None])
    assert_exact(model.X_distilled_, RidgeDistiller().fit(digits[0], digits[1]).X_distilled_)


def test_labels_of_one_class_are_refused(digits: tuple[Array, ...]) -> None:
    with pytest.raises(ValueError, match=r"^RidgeDistiller: y has one class only, 3; a classifier needs two$"):
        RidgeDistiller().fit(digits[0], np.full(len(digits[0]), 3))


def test_data_frames_name_the_features(digits: tuple[Array, ...]) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    names = [f"pixel {column}" for column in range(64)]
    frame = pandas.DataFrame(digits[0], columns=names)
    model = RidgeDistiller().fit(frame, pandas.Series(LETTERS[digits[1]]))
    assert_exact(model.feature_names_in_, names)
    assert_exact(model.predict(frame), RidgeDistiller().fit(digits[0], LETTERS[digits[1]]).predict(digits[0]))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[names[::-1]])


# Weights


def test_the_weights_are_those_of_ridge_regression(digits: tuple[Array, ...], rng: np.random.Generator) -> None:
    X, y, weights = digits[0], digits[1], rng.uniform(0.1, 3.0, len(digits[0]))
    of_class = {label: 1.0 + label for label in range(10)}
    model = RidgeDistiller(lam=10.0, precision="float64", class_weight=of_class).fit(X, y, sample_weight=weights)
    root = np.sqrt(weights * (1.0 + y))[:, None]
    Z = root * standardized(X)
    expected = ridge((root * np.eye(10)[y]).T, Z.T, 10.0)
    assert_solve(model.coef_original_, expected, np.linalg.cond(Z.T @ Z + 10.0 * np.eye(64)))


def test_balanced_classes_weigh_alike(digits: tuple[Array, ...]) -> None:
    rows = np.flatnonzero((digits[1] != 0) | (np.arange(len(digits[1])) % 5 == 0))
    X, y = digits[0][rows], digits[1][rows]
    given = {label: len(y) / (10 * np.sum(y == label)) for label in range(10)}
    balanced, expected = (RidgeDistiller(class_weight=weight).fit(X, y) for weight in ("balanced", given))
    assert_exact(balanced.coef_, expected.coef_)
    assert not np.array_equal(balanced.coef_, RidgeDistiller().fit(X, y).coef_)


# Probabilities


def test_probabilities_are_calibrated_on_the_rows_held_out(digits: tuple[Array, ...]) -> None:
    X, y, X_test, y_test = digits
    model = RidgeDistiller("FCNN", validation_fraction=0.2).fit(X, y)
    probabilities = model.predict_proba(X_test)
    assert_elementwise(probabilities.sum(axis=1), np.ones(len(X_test)), np.float64)
    assert_exact(model.classes_[probabilities.argmax(axis=1)], model.predict(X_test))
    raw = softmax(model.decision_function(X_test), axis=1)
    assert log_loss(y_test, probabilities) < 0.5 * log_loss(y_test, raw)
    confidence = probabilities.max(axis=1).mean()
    accuracy = model.score(X_test, y_test)
    assert abs(confidence - accuracy) < 0.2 * abs(raw.max(axis=1).mean() - accuracy)


def test_probabilities_of_few_rows_stay_away_from_certainty() -> None:
    X, y = datasets.load_iris(return_X_y=True)
    model = RidgeDistiller(validation_fraction=0.05).fit(X[y != 1], y[y != 1])  # 5 rows held out, all of them right
    assert model.score(X[y != 1], y[y != 1]) == 1.0
    assert model.certificate_.original_accuracy == 1.0
    assert model.predict_proba(X[y != 1]).max(axis=1).mean() < 0.999


# partial_fit


@pytest.mark.parametrize("options", [{"lam": 10.0}, {"selection": "gcv"}])
def test_parts_give_the_model_of_all_rows(digits: tuple[Array, ...], options: dict[str, Any]) -> None:
    X, y, X_test, _ = digits
    options |= {"preprocessing": kd.standardize(X), "precision": "float64"}
    whole = RidgeDistiller(**options).fit(X, LETTERS[y])
    weights = 1.0 + np.arange(len(X)) % 3
    parts, weighted = RidgeDistiller(**options), RidgeDistiller(**options)
    for rows in np.array_split(np.arange(len(X)), 5):
        last = rows[-1] == len(X) - 1
        parts.partial_fit(X[rows], LETTERS[y[rows]], classes=LETTERS, solve=last)
        weighted.partial_fit(X[rows], LETTERS[y[rows]], LETTERS, weights[rows], solve=last)
    condition = np.linalg.cond(parts.statistics_.gram + parts.lambda_ * np.eye(64))
    assert parts.lambda_ == whole.lambda_
    assert_solve(parts.coef_original_, whole.coef_original_, condition)
    assert_exact(parts.predict(X_test), whole.predict(X_test))
    expected = RidgeDistiller(**options).fit(X, LETTERS[y], sample_weight=weights)
    assert_solve(weighted.coef_original_, expected.coef_original_, condition)


def test_parts_go_on_after_a_fit(digits: tuple[Array, ...]) -> None:
    X, y, _, _ = digits
    options = {"lam": 10.0, "preprocessing": "none", "precision": "float64"}
    parts = RidgeDistiller(**options).fit(X[:600], y[:600]).partial_fit(X[600:], y[600:])
    whole = RidgeDistiller(**options).fit(X, y)
    assert_solve(parts.coef_original_, whole.coef_original_, np.linalg.cond(whole.statistics_.gram + 10.0 * np.eye(64)))


def test_predictions_wait_for_a_solution(digits: tuple[Array, ...]) -> None:
    X, y, X_test, _ = digits
    model = RidgeDistiller(init="real").partial_fit(X[:600], y[:600], classes=np.arange(10))
    before = model.predict(X_test)
    model.partial_fit(X[600:900], y[600:900], solve=False)
    with pytest.raises(NotFittedError):
        model.predict(X_test)
    model.partial_fit(X[900:], y[900:])
    assert model.statistics_.n == len(X)
    assert not np.array_equal(before, model.predict(X_test))


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({}, {}, "the first call needs classes"),
        ({}, {"classes": np.arange(9)}, "y holds the label 9, which is not in classes"),
        ({}, {"classes": np.arange(11)}, "no sample of class 10 so far"),
        ({}, {"classes": [3]}, "y has one class only, 3"),
        ({"class_weight": "balanced"}, {"classes": np.arange(10)}, "class_weight='balanced' needs all rows"),
    ],
)
def test_parts_that_do_not_fit_leave_no_trace(
    digits: tuple[Array, ...], parameters: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    model = RidgeDistiller(**parameters)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(digits[0], digits[1], **arguments)
    assert not hasattr(model, "statistics_")


def test_other_classes_than_before_are_refused(digits: tuple[Array, ...]) -> None:
    model = RidgeDistiller().partial_fit(digits[0], digits[1], classes=np.arange(10))
    with pytest.raises(ValueError, match="are not those of the first call"):
        model.partial_fit(digits[0], digits[1], classes=np.arange(11))
    assert model.statistics_.n == len(digits[0])
