"""The model: three calls equal the one call, and every way to choose lambda against explicit formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.data.labels import Classes
from krrdistill.options import DistillOptions
from krrdistill.problem import split

Array = npt.NDArray[Any]
N, D, K = 160, 6, 3
MAPS = {"identity": kd.Identity(D), "FCNN": kd.FCNN(D, [5]), "random_fourier": kd.RandomFourier(D, 5, sigma2=9.0)}
CENTERS = ("none", "targets", "both")


def samples(n: int = N, seed: int = 0, offset: float = 0.0) -> tuple[Array, Array, Array]:
    """(X, classes, real-valued targets about ``offset``)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    Y = np.tanh(X @ rng.standard_normal((D, K))) + 0.2 * rng.standard_normal((n, K))
    return X, Y.argmax(axis=1), Y + offset


def statistics(X: Array, y: Array, phi: Any = MAPS["identity"], precision: str = "float64") -> kd.RidgeStatistics:
    kind: dict[str, Any] = {"classes": K} if y.ndim == 1 else {"n_targets": K}
    return kd.RidgeStatistics(phi, **kind, precision=precision).update(X, y)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("options", [{}, {"init": "real", "points_per_class": 2, "intercept": True}])
def test_three_calls_give_the_bits_of_one_call(name: str, real: bool, options: dict[str, Any]) -> None:
    X, labels, Y = samples()
    y, phi = (Y if real else labels), MAPS[name]
    one = kd.distill(X, y, phi, **options)
    held, train = split("distill", y, DistillOptions())
    center = "both" if "intercept" in options else "none"
    model = kd.fit_model(statistics(X[train], y[train], phi, "float32"), validation=(X[held], y[held]), center=center)
    reference = (X[train], y[train]) if "init" in options else None
    of_points = {key: value for key, value in options.items() if key != "intercept"}
    points = kd.distill_model(model, reference=reference, **of_points)
    assert model.lambda_ == one.model.lambda_
    for found, expected in ((model.W, one.model.W), (points.X, one.distilled.X), (points.Y, one.distilled.Y)):
        tolerances.assert_exact(found, expected)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_held_out_statistics_choose_by_the_squared_error(center: str, offset: float) -> None:
    X, _, Y = samples(offset=offset if center != "none" else 0.0)
    training, held = statistics(X[:120], Y[:120]), statistics(X[120:], Y[120:])
    path = kd.ridge_path(training, center=center)
    weights = path.models()
    b = np.zeros(weights.shape[:2]) if path.intercepts is None else path.intercepts
    for W, intercept in zip(weights, b, strict=True):
        residual = Y[120:] - X[120:] @ W.T - intercept
        expected = np.square(residual).sum(axis=0)
        scale = np.square(Y[120:] - intercept).sum(axis=0) + np.square(residual).sum(axis=0)
        found = held.squared_errors(W, intercept)
        tolerances.assert_within(found, expected, tolerances.solve(1e3) * scale * max(1.0, offset) ** 0.5)
    model = kd.fit_model(training, validation=held, center=center)
    assert model.path.criterion == "r2"
    assert model.lambda_ == kd.fit_model(training, validation=(X[120:], Y[120:]), center=center).lambda_


@pytest.mark.parametrize("n", [5, 120])
@pytest.mark.parametrize("center", CENTERS)
def test_gcv_is_its_formula(center: str, n: int) -> None:
    X, _, Y = samples(n)
    lambdas = np.array([3.0, 10.0, 30.0])
    model = kd.fit_model(statistics(X, Y), lambdas, selection="gcv", center=center)
    A = X - X.mean(axis=0) if center == "both" else X
    B = Y - Y.mean(axis=0) if center != "none" else Y
    expected = []
    for value in lambdas:
        hat = A @ np.linalg.solve(A.T @ A + value * np.eye(D), A.T)
        left = n - np.trace(hat) - (center != "none")
        expected.append(n * np.square(B - hat @ B).sum() / left**2)
    assert model.path.score is not None
    tolerances.assert_solve(model.path.score, np.array(expected), 1e3)
    assert model.lambda_ == lambdas[int(np.argmin(expected))]


def test_counts_of_halves_add_to_those_of_all_rows() -> None:
    X, y, _ = samples()
    training = statistics(X[:100], y[:100])
    path = kd.ridge_path(training)
    halves = [
        kd.count_correct(path, training, kd.HeldOutRows(X[part], y[part])) for part in (slice(100, 130), slice(130, N))
    ]
    total = halves[0] + halves[1]
    expected = [(y[100:] == (X[100:] @ W.T).argmax(axis=1)).sum() for W in path.models()]
    tolerances.assert_exact(total.correct, expected)
    model = kd.fit_model(training, validation=total)
    assert model.lambda_ == kd.fit_model(training, validation=(X[100:], y[100:])).lambda_
    assert model.score(X[100:], y[100:]) == model.path.val_accuracy[model.path.best]


def test_models_and_held_out_rows_come_back_from_files(tmp_path: Path) -> None:
    X, y, _ = samples()
    names = np.array(["cat", "dog", "emu"])[y]
    made = kd.RidgeStatistics(MAPS["FCNN"], classes=["cat", "dog", "emu"]).update(X[:100], names[:100])
    kd.HeldOutRows(X, names, rows=np.arange(100, N)).save(tmp_path / "held.npz")
    model = kd.fit_model(made, validation=kd.HeldOutRows.load(tmp_path / "held.npz"))
    model.save(tmp_path / "model.npz")
    again = kd.RidgeModel.load(tmp_path / "model.npz", MAPS["FCNN"])
    tolerances.assert_exact(again.W, model.W)
    assert list(again.predict(X[:5])) == list(model.predict(X[:5]))
    assert set(again.predict(X)) <= {"cat", "dog", "emu"}
    assert (again.lambda_, again.classes, repr(again)) == (model.lambda_, model.classes, repr(model))
    with pytest.raises(kd.DataError, match="another feature map"):
        kd.RidgeModel.load(tmp_path / "model.npz", MAPS["identity"])


def test_fit_model_refuses_what_it_cannot_choose_by() -> None:
    X, y, _ = samples()
    made = statistics(X, y)
    other = statistics(X, y, kd.FCNN(D, [D]))
    for arguments, error, message in (
        ({}, ValueError, "nothing to choose by"),
        ({"validation": 3}, TypeError, "validation must be"),
        ({"validation": other}, kd.DataError, "fit_model: validation: the statistics are of different feature maps"),
        ({"selection": "gcv", "validation": (X, y)}, ValueError, "neither validation"),
        ({"validation": (X, y), "per_target": True}, ValueError, "per_target needs real-valued"),
    ):
        with pytest.raises(error, match=message):
            kd.fit_model(made, **arguments)
    with pytest.raises(kd.DataError, match="class 2 has no sample"):
        kd.fit_model(statistics(X[y < 2], y[y < 2]), 1.0)


def test_lambda_at_an_end_of_the_grid_is_said() -> None:
    X, y, _ = samples()
    made = statistics(X, y)
    said = kd.fit_model(made, [10.0, 1e3], validation=made).statements()  # training errors: the smaller the better
    assert any("is the smallest of the grid" in sentence for sentence in said)
    said = kd.fit_model(made, [1e7, 1e8], validation=(X, y)).statements()
    assert any("scores alike" in sentence for sentence in said)
    assert kd.fit_model(made, 1.0).statements() == []


def test_stratified_split_keeps_every_class() -> None:
    labels = np.array([0] * 60 + [1] * 37 + [2] * 2 + [3])
    for seed in range(200):
        held, train = split("distill", labels, DistillOptions(seed=seed, validation_fraction=0.1))
        assert np.bincount(labels[held]).tolist() == [6, 4]  # shares 6, 3.7, 0.2, 0.1
        assert set(labels[train]) == {0, 1, 2, 3}
        assert sorted([*held, *train]) == list(range(100))
    lost = [seed for seed in range(200) if _lost(labels, seed)]
    assert lost  # without stratification some seeds take the only sample, which is refused


def test_stratified_split_takes_no_only_sample_for_a_large_share() -> None:
    """Four of ten are held out; four classes have one sample, and shares that come next when all else is rounded up."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 3, 4, 5])
    for seed in range(20):
        held, train = split("distill", labels, DistillOptions(seed=seed, validation_fraction=0.4))
        assert np.bincount(labels[held]).tolist() == [3, 1]
        assert set(labels[train]) == set(range(6))


def _lost(labels: Array, seed: int) -> bool:
    try:
        split("distill", labels, DistillOptions(seed=seed, validation_fraction=0.1, stratify=False))
    except kd.DataError as error:
        return "use stratify" in str(error)
    return False


def test_labels_are_encoded_in_the_order_that_was_given() -> None:
    classes = Classes.of("t", ["emu", "cat", "dog"])
    codes = classes.encode("t", np.array(["dog", "emu", "cat", "dog"]), 4)
    tolerances.assert_exact(codes, [2, 0, 1, 2])
    assert list(classes.decode(codes)) == ["dog", "emu", "cat", "dog"]
    tolerances.assert_exact(Classes.of("t", [7, -1, 3]).encode("t", np.array([-1, 3, 7]), 3), [1, 2, 0])
    with pytest.raises(kd.DataError, match=r"label .*cow.* \(row 1\), which is no class"):
        classes.encode("t", np.array(["cat", "cow"]), 2)


def test_classes_grow_by_number_or_by_labels() -> None:
    assert Classes(2).grown("t", 3) == Classes(5)
    assert Classes(2).grown("t", [2]) == Classes(3)
    assert Classes.of("t", [-1, 1]).grown("t", [0]).names == (-1, 1, 0)
    with pytest.raises(TypeError, match="give the new labels"):
        Classes.of("t", ["cat"]).grown("t", 1)
    with pytest.raises(ValueError, match="a label twice"):
        Classes.of("t", ["cat"]).grown("t", ["cat"])


def test_large_offset_costs_no_digits(tmp_path: Path) -> None:
    X, y, _ = samples()
    errors = []
    for offset in (0.0, 1e6):
        raw = X + offset
        phi = kd.FCNN(D, preprocessing=kd.standardize(raw))
        result = kd.distill(raw, y, phi, precision="float64")
        result.distilled.save(tmp_path / "d.npz")
        certificate = kd.DistilledDataset.load(tmp_path / "d.npz").verify(result.model, test=(raw, y))
        errors.append(certificate.weight_relative_error)
    assert errors[1] < 10 * errors[0] + tolerances.eps(np.float64)


# What is said of a model


def test_a_lambda_at_the_edge_of_the_grid_warns() -> None:
    X, _, Y = samples()
    with pytest.warns(kd.ResultWarning, match=r"^fit_model: the lambda chosen, 1e\+07, is the smallest of the grid"):
        kd.fit_model(statistics(X, Y), [1e7, 1e8, 1e9], validation=(X, Y), center="both")


def test_targets_that_their_means_predict_better_warn_with_the_remedy(rng: np.random.Generator) -> None:
    X, Y = rng.standard_normal((200, 5)), 10.0 + rng.standard_normal((200, 2))
    made = kd.RidgeStatistics(kd.Identity(5), n_targets=2).update(X, Y)
    with pytest.warns(kd.ResultWarning, match=r"R\^2 is below 0 .* for 2 of 2 targets .*intercept=True") as said:
        model = kd.fit_model(made, 1.0, validation=(X, Y))
    assert str(said[0].message) == f"fit_model: {model.statements()[-1]}"
    assert kd.fit_model(made, 1.0, validation=(X, Y), center="both").below_mean() is None


def test_more_points_than_samples_warn(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((50, 8)), np.arange(50) % 3
    with pytest.warns(kd.ResultWarning, match="^distill: 60 points are made of 48 training samples: use fewer"):
        kd.distill(X, y, kd.Identity(8), points_per_class=20)


def test_held_out_rows_add_in_order() -> None:
    X, y, _ = samples()
    names = np.array(["cat", "dog", "emu"])[y]
    both = kd.HeldOutRows(X, names, rows=np.array([1, 3])) + kd.HeldOutRows(X[5:7], names[5:7])
    tolerances.assert_exact(both.X, X[[1, 3, 5, 6]])
    assert list(both.y) == list(names[[1, 3, 5, 6]])
    with pytest.raises(TypeError):
        both + 1  # type: ignore[operator]


def test_held_out_rows_of_streams_with_other_classes_add_by_their_labels() -> None:
    X, held = np.arange(40.0).reshape(20, 2), []
    for names in (["cat", "dog"], ["dog", "eel"]):
        y = np.array(names)[np.arange(20) % 2]
        statistics = kd.RidgeStatistics(kd.Identity(2), classes=names)
        held.append(statistics.update_batches([(X, y)], holdout=0.5))
    assert set((held[0] + held[1]).y) == {"cat", "dog", "eel"}


def test_nobody_writes_into_a_model_or_a_map() -> None:
    rng = np.random.default_rng(0)
    phi = kd.RandomFourier(4, 9, sigma2=3.0)
    statistics = kd.RidgeStatistics(phi, 2).update(rng.standard_normal((40, 4)), np.arange(40) % 2)
    model = kd.fit_model(statistics, 1.0, center="both")
    for array in (model.W, model.b, model.spread, phi.layers[0].bias, phi.layers[0].weight):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
