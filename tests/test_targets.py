"""Real-valued and multi-label targets, sample weights, lambda per target, intercepts and centred targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from krrdistill.backends import Backend
from krrdistill.construct.labels import affine_labels
from krrdistill.ridge.feature_gram import contrasts
from krrdistill.ridge.path import fit_intercept
from krrdistill.ridge.selection import select_by_r2

Array = npt.NDArray[Any]
N, D, P, K = 200, 8, 6, 3
PHI = kd.RandomFourier(D, P, sigma2=20.0, seed=3)
CENTERS = ("none", "targets", "both")


def problem(k: int = K, n: int = N, seed: int = 0) -> tuple[Array, Array, Array]:
    """(X, Y, weights): targets far from 0 that depend on the inputs, weights of which some are 0."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    Y = np.tanh(X @ rng.standard_normal((D, k))) + 0.1 * rng.standard_normal((n, k)) + 5.0 * np.arange(1, k + 1)
    return X, Y, np.maximum(rng.exponential(size=n) - 0.1, 0.0)


def ridge(Phi: Array, Y: Array, w: Array, lambda_: float, center: str) -> tuple[Array, Array]:
    """(W, b) of min sum w ||y - W phi - b||^2 + lambda ||W||^2, by an augmented least-squares problem."""
    p, k = Phi.shape[1], Y.shape[1]
    mean = np.average(Y, axis=0, weights=w) if center == "targets" else np.zeros(k)
    root = np.sqrt(w)[:, None]
    design, targets = root * Phi, root * (Y - mean)
    if center == "both":
        design = np.hstack([design, root])
    penalty = np.sqrt(lambda_) * np.eye(p, design.shape[1])
    solution = np.linalg.lstsq(np.vstack([design, penalty]), np.vstack([targets, np.zeros((p, k))]), rcond=None)[0]
    return solution[:p].T, solution[p] if center == "both" else mean


def empty(k: int = K) -> kd.RidgeStatistics:
    return kd.RidgeStatistics(PHI, n_targets=k, precision="float64")


def statistics(Y: Any, w: Any = None, **options: Any) -> kd.RidgeStatistics:
    X = problem()[0]
    kind = {"n_targets": Y.shape[1]} if Y.ndim == 2 else {"classes": K}
    return kd.RidgeStatistics(PHI, **kind, **{"precision": "float64", **options}).update(X, Y, sample_weight=w)


# Statistics and the path


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_sums(any_backend: Backend, dtype: np.dtype[Any], weighted: bool, labelled: bool) -> None:
    X, Y, w = problem()
    y = np.arange(N) % K
    taken = statistics(y if labelled else Y, w if weighted else None, precision=str(dtype), backend=any_backend)
    Phi, T = oracles.features(X.T, PHI.layers), oracles.one_hot(y, K) if labelled else Y.T
    w = w if weighted else np.ones(N)
    size = w * (np.abs(Phi) + 0.6)  # of the cosine's terms
    for actual, expected, magnitude in (
        (taken.gram, (Phi * w) @ Phi.T, size @ size.T + size @ np.ones((N, P))),
        (taken.cross, (T * w) @ Phi.T, np.abs(T) @ size.T),
        (taken.feature_sum, Phi @ w, size.sum(axis=1)),
        (taken.target_sum, T @ w, np.abs(T) @ w),
        (taken.target_square, (T * T) @ w, (T * T) @ w),
        (taken.total_weight, w.sum(), w.sum()),
    ):
        tolerances.assert_reduction(actual, expected, dtype, N, magnitude)
    assert taken.n == N


def test_whole_weights_are_repetitions() -> None:
    X, Y, _ = problem()
    w = np.arange(N) % 4
    rows = np.repeat(np.arange(N), w)
    weighted, repeated = statistics(Y, w), empty().update(X, Y, rows=rows)
    for name in ("gram", "cross", "feature_sum", "target_sum", "target_square", "total_weight"):
        tolerances.assert_solve(getattr(weighted, name), getattr(repeated, name))


def test_weighted_parts_add_and_are_saved(tmp_path: Path) -> None:
    X, Y, w = problem()
    whole = statistics(Y, w)
    first, second = np.arange(0, 90), np.arange(90, N)
    parts = empty().update(X, Y, rows=first, sample_weight=w)
    parts.merge(empty().update(X, Y, rows=second, sample_weight=w))
    parts.save(tmp_path / "s.npz")
    loaded = kd.RidgeStatistics.load(tmp_path / "s.npz", PHI)
    for center in CENTERS:
        expected = whole.system(center)._asdict()
        for name, actual in loaded.system(center)._asdict().items():
            if name != "features":
                tolerances.assert_solve(np.asarray(actual, np.float64), np.asarray(expected[name], np.float64))


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_path_against_least_squares(any_backend: Backend, center: str, weighted: bool) -> None:
    X, Y, w = problem()
    Phi = oracles.features(X.T, PHI.layers).T
    taken = statistics(Y, w if weighted else None, backend=any_backend)
    w = w if weighted else np.ones(N)
    grid = [1e-3, 1.0, 50.0]
    path = kd.ridge_path(taken, grid, center=center)
    for index, lambda_ in enumerate(grid):
        W, b = ridge(Phi, Y, w, lambda_, center)
        condition = oracles.condition(Phi) ** 2
        found = np.zeros(K) if path.intercepts is None else path.intercepts[index]
        size = float(np.linalg.norm(Y) * np.linalg.norm(W) / np.linalg.norm(Y - Y.mean(axis=0)))
        tolerances.assert_solve(path.weights[index], W, condition, magnitude=size)
        tolerances.assert_solve(found, b if center != "none" else np.zeros(K), condition, magnitude=size + 20.0)
        residual = np.sum(w[:, None] * (Y - Phi @ W.T - (b if center != "none" else 0.0)) ** 2)
        tolerances.assert_solve(path.train_rmse[index], np.sqrt(residual / w.sum()), 1e3)
        tolerances.assert_solve(kd.fit_ridge(taken, lambda_, center=center), W, condition, magnitude=size)
        tolerances.assert_solve(fit_intercept(taken, W, center=center), found, condition, magnitude=size + 20.0)


@pytest.mark.parametrize("intercept", [False, True])
def test_against_scikit_learn(intercept: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    X, Y, w = problem()
    Phi = PHI.transform(X)
    reference = linear_model.Ridge(alpha=0.7, fit_intercept=intercept).fit(Phi, Y, sample_weight=w)
    center = "both" if intercept else "none"
    W = kd.fit_ridge(statistics(Y, w), 0.7, center=center)
    tolerances.assert_solve(W, reference.coef_, 1e4)
    tolerances.assert_solve(fit_intercept(statistics(Y, w), W, center=center), reference.intercept_ + np.zeros(K), 1e4,
                            magnitude=10.0)  # fmt: skip


def test_lambda_of_every_target() -> None:
    _, Y, _ = problem()
    taken = statistics(Y)
    lambdas = np.array([0.1, 10.0, 0.1])
    W = kd.fit_ridge(taken, lambdas)
    for row, lambda_ in enumerate(lambdas):
        tolerances.assert_solve(W[row], kd.fit_ridge(taken, lambda_)[row], 1e3)
    path = kd.ridge_path(taken, [0.1, 1.0, 10.0], center="both")
    r2 = np.array([[0.9, 0.1, 0.3], [0.5, 0.2, 0.3], [0.0, 0.1, 0.3]])
    shared, own = select_by_r2(path, r2), select_by_r2(path, r2, per_target=True)
    assert shared.best == own.best == 0
    tolerances.assert_exact(own.chosen, [0, 1, 2])  # of equals the largest lambda
    W, b, chosen = own.model()
    tolerances.assert_exact(chosen, [0.1, 1.0, 10.0])
    for row in range(K):
        tolerances.assert_exact(W[row], path.weights[row, row])
        assert path.intercepts is not None
        assert b[row] == path.intercepts[row, row]


def test_contrasts() -> None:
    A = problem()[1]
    for m in (1, 2, 7, 16):
        H = contrasts(np.eye(m))
        assert H.shape == (m - 1, m)
        tolerances.assert_solve(H @ H.T, np.eye(m - 1), magnitude=10.0)
        tolerances.assert_solve(H @ np.ones(m), np.zeros(m - 1), magnitude=10.0)
        tolerances.assert_solve(contrasts(A[:m]), H @ A[:m], magnitude=100.0)


@pytest.mark.parametrize("lambda_s", [0.0, 0.5])
@pytest.mark.parametrize("m", [7, 20])
def test_affine_labels(m: int, lambda_s: float) -> None:
    rng = np.random.default_rng(1)
    F, W, b = rng.standard_normal((m, P)) + 3.0, rng.standard_normal((K, P)), rng.standard_normal(K)
    found = ridge(F, affine_labels(F, W, b, lambda_s), np.ones(m), lambda_s, "both")
    tolerances.assert_solve(found[0], W, 1e4)
    tolerances.assert_solve(found[1], b, 1e4, magnitude=20.0)


# The pipeline

STARTS = [{"init": "noise"}, {"init": "real"}, {"init": "real", "realism": 1.0}]
MAPS = {"identity": kd.Identity(D), "FCNN": kd.FCNN(D), "random_fourier": PHI}


@pytest.mark.parametrize("store", ["float64", "float32"])
@pytest.mark.parametrize("lambda_s", [0.0, 1e-3, "auto"])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("name", MAPS)
def test_real_targets_are_exact(name: str, center: str, start: Any, lambda_s: Any, store: str, tmp_path: Path) -> None:
    X, Y, w = problem()
    options = {"points_per_class": 2, "lambda_s": lambda_s, "store": store, "precision": "float64", **start}
    options |= {"intercept": center == "both", "center_targets": center == "targets"}
    if lambda_s == 1e-3 and start.get("realism") is None:
        options["scale_labels"] = True
    try:
        result = kd.distill(X, Y, MAPS[name], sample_weight=w, lambda_per_target=True, **options)
    except kd.LambdaOutOfRange:
        assert lambda_s == 1e-3
        assert name == "random_fourier"  # its range sets a bound of its own
        return
    path = tmp_path / "d.npz"
    result.distilled.save(path)
    loaded = kd.DistilledDataset.load(path)
    original = result.model
    W, b = loaded.fit_weights()
    tolerances.assert_promised_model(W, original.W, store)
    expected = np.zeros(K) if original.b is None else original.b
    assert np.linalg.norm(b - expected) <= 20.0 * tolerances.promised(store)
    predicted = loaded.predict(X)
    assert predicted.shape == Y.shape
    expected = MAPS[name].transform(X) @ original.W.T + expected
    tolerances.assert_within(predicted, expected, 100.0 * tolerances.promised(store))
    assert original.lambdas is not None
    assert original.lambda_ == original.lambdas.min()
    if center == "both":  # anybody's ridge with an intercept gives the same
        F, labels = loaded.features(), loaded.Y
        retrained = oracles.retrained((F - F.mean(axis=0)).T, (labels - labels.mean(axis=0)).T, loaded.lambda_s)
        tolerances.assert_promised_model(retrained, original.W, store)


@pytest.mark.parametrize("center", CENTERS)
def test_the_original_is_the_weighted_model(center: str) -> None:
    X, Y, w = problem()
    result = kd.distill(
        X, Y, PHI, sample_weight=w, lambdas=[0.3], refit=True, precision="float64", points_per_class=2,
        intercept=center == "both", center_targets=center == "targets",
    )  # fmt: skip
    W, b = ridge(PHI.transform(X), Y, w, 0.3, center)
    tolerances.assert_solve(result.model.W, W, 1e4)
    if center != "none":
        assert result.model.b is not None
        tolerances.assert_solve(result.model.b, b, 1e4)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("ipc", [1, 3])
@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "FCNN"])
def test_classes_with_an_intercept(kernel: str, ipc: int, start: Any, tmp_path: Path) -> None:
    data = kd.load_dataset("digits")
    options = kd.DistillOptions(points_per_class=ipc, intercept=True, **start)
    result = kd.run_distillation(data, kernel=kernel, options=options, out=tmp_path)
    tolerances.assert_promised(result.report["certificate"]["weight_relative_error"])
    assert result.report["distilled"] == result.report["original"]
    assert result.report["original"]["test_accuracy"] > 0.9
    again = kd.DistilledDataset.load(tmp_path / "distilled.npz")
    again = again.verify(kd.retrain(again, data.x_train, data.y_train), test=data)
    tolerances.assert_promised(again.weight_relative_error)


def dataset(k: int = K, multilabel: bool = False) -> kd.Dataset:
    X, Y, _ = problem(k)
    if multilabel:
        Y = np.asarray(Y.mean(axis=0) < Y, dtype=float)
    return kd.Dataset("made", X[:150], Y[:150], X[150:], Y[150:], tuple("abcdef"[:k]))


@pytest.mark.parametrize("multilabel", [False, True])
def test_report_of_targets(multilabel: bool, tmp_path: Path) -> None:
    data = dataset(multilabel=multilabel)
    assert data.targets == ("multilabel" if multilabel else "real")
    options = kd.DistillOptions(points_per_class=2, intercept=True)
    report = kd.run_distillation(data, kernel="identity", options=options, out=tmp_path).report
    original, distilled = report["original"]["test_per_target"], report["distilled"]["test_per_target"]
    tolerances.assert_within(original["r2"], distilled["r2"], tolerances.promised())
    assert min(original["r2"]) > (0.2 if multilabel else 0.5)
    assert report["certificate"]["prediction_agreement"] == 1.0
    assert report["val_accuracy"] is None
    if multilabel:
        assert original["accuracy"] == distilled["accuracy"]
        tolerances.assert_solve(report["original"]["test_accuracy"], np.mean(original["accuracy"]))
        assert min(original["accuracy"]) > 0.7
    else:
        assert report["original"]["test_accuracy"] is None
        Y = data.y_test
        expected = 1.0 - np.array(original["mse"]) / Y.var(axis=0)
        tolerances.assert_solve(original["r2"], expected)
    loaded = kd.DistilledDataset.load(tmp_path / "distilled.npz")
    assert loaded.targets == data.targets
    again = kd.retrain(loaded, data.x_train, data.y_train)
    tolerances.assert_promised(loaded.verify(again, test=data).weight_relative_error)


def test_one_point_for_one_target() -> None:
    X, Y, _ = problem(1)
    result = kd.distill(X, Y[:, 0], kd.Identity(D), precision="float64")
    assert result.distilled.X.shape == (1, D)
    tolerances.assert_solve(result.distilled.fit(), result.model.W, 100.0)


# What is refused


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sample_weight": np.ones(3)}, kd.DataError, r"sample_weight must have shape \(200,\), got \(3,\)"),
        ({"sample_weight": -np.ones(N)}, kd.DataError, "sample_weight must be finite and not negative"),
        ({"sample_weight": np.full(N, np.nan)}, kd.DataError, "sample_weight must be finite and not negative"),
        ({"sample_weight": np.zeros(N)}, kd.DataError, "sample_weight is all zero"),
        ({"sample_weight": np.full(N, "a")}, TypeError, "sample_weight must be numbers, got dtype <U1"),
        ({"y": np.full((N, 2), np.nan)}, kd.DataError, "y holds NaN or infinity"),
        ({"y": np.ones((N, 0))}, kd.DataError, r"y must have shape \(200,\) or \(200, k\), got \(200, 0\)"),
        ({"y": np.ones((N, 2, 2))}, kd.DataError, r"y must have shape \(n,\) or \(n, k\), got \(200, 2, 2\)"),
        ({"classes": 4}, kd.DataError, r"y must have shape \(200, 4\), got \(200, 3\)"),
        ({"intercept": True, "center_targets": True}, ValueError, "intercept implies center_targets"),
        ({"intercept": True, "points_per_class": 1}, ValueError, "an intercept needs one point more than the 3"),
        ({"y": np.arange(N) % 3, "lambda_per_target": True}, ValueError, "lambda_per_target needs real-valued targets"),
        ({"init": "real", "points_per_class": 70}, ValueError, "points_per_class = 70 asks for 210 of 190"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    X, Y, _ = problem()
    with pytest.raises(error, match=message):
        kd.distill(X, changes.pop("y", Y), PHI, **changes)


def test_bad_lambdas_and_centers() -> None:
    taken = statistics(problem()[1])
    with pytest.raises(ValueError, match="lambda_ must be one number or 3, got 2"):
        kd.fit_ridge(taken, [1.0, 2.0])
    with pytest.raises(ValueError, match="center must be one of none, targets, both; got 'all'"):
        kd.ridge_path(taken, center="all")
    with pytest.raises(kd.DataError, match="no samples to centre"):
        kd.RidgeStatistics(PHI, K).system("both")


# The command


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's diabetes data (442 patients, 10 measurements, one real target) as a file."""
    bundled = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_diabetes()
    path = tmp_path_factory.mktemp("data") / "diabetes.npz"
    X, y = 30.0 * bundled.data, bundled.target
    np.savez(path, x_train=X[:342], y_train=y[:342], x_test=X[342:], y_test=y[342:])
    return path


@pytest.mark.parametrize("start", [[], ["--init", "real"], ["--realism", "1", "--lambda-s", "2"]])
def test_command_on_diabetes(diabetes: Path, start: list[str], tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    out = str(tmp_path / "run")
    arguments = ["distill", "--dataset", str(diabetes), "--targets", "real", "--intercept", "--ipc", "4", *start]
    assert main([*arguments, "--precision", "float64", "--out", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["targets"] == "real"
    assert report["m"] == 4
    tolerances.assert_promised(report["certificate"]["weight_relative_error"])
    (original,), (distilled,) = (report[model]["test_per_target"]["r2"] for model in ("original", "distilled"))
    tolerances.assert_within(original, distilled, tolerances.promised())
    assert 0.4 < original < 0.6  # what ridge reaches on these data
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "validation R²" in page
    assert main(["verify", f"{out}/distilled.npz", "--dataset", str(diabetes)]) == 0
    assert main(["distill", *arguments[1:], "--out", out, "--overwrite"]) == 0
    assert "mean test R²" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "digits", "--targets", "real"], "targets = 'real' needs a file or folder, got 'digits'"),
        (
            ["--dataset", "FILE"],
            "y_train holds whole numbers as float64, which may be classes or values: pass targets=",
        ),
        (["--dataset", "FILE", "--targets", "many"], "--targets must be one of classes, real; got 'many'"),
        (["--dataset", "FILE", "--targets", "real", "--intercept"], "an intercept needs one point more"),
        (["--dataset", "digits", "--intercept", "--center-targets"], "intercept implies center_targets"),
        (["--dataset", "digits", "--lambda-per-target"], "lambda_per_target needs real-valued targets"),
        (["--dataset", "digits", "--realism", "1.5"], "--realism must be finite and >= 0 and <= 1, got 1.5"),
        (["--dataset", "digits", "--realism", "1", "--init", "noise"], "realism needs init = 'real', got 'noise'"),
    ],
)
def test_command_refuses(diabetes: Path, arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    named = [str(diabetes) if argument == "FILE" else argument for argument in arguments]
    assert main(["distill", *named, "--out", str(tmp_path / "run")]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
