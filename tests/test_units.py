"""Samples in other units than those of training: one warning, wherever samples meet others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances

N, D, K = 240, 16, 3
X = np.random.default_rng(0).integers(0, 256, (N, D)).astype(np.float64)
Y = np.arange(N) % K
PLAIN = kd.FCNN(D, seed=1)
SCALED = kd.FCNN(D, seed=1, preprocessing=kd.standardize(X))
FLOATS = X / 255.0


def said(act: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(warning.message) for warning in caught if issubclass(warning.category, kd.DataWarning)]


def statistics(phi: kd.FeatureMap, samples: Any = X) -> kd.RidgeStatistics:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", kd.DataWarning)
        return kd.RidgeStatistics(phi, K).update(samples, Y)


def made(phi: kd.FeatureMap) -> kd.Distillation:
    return kd.distill(X, Y, phi)


CASES: dict[str, tuple[Callable[[kd.FeatureMap, Any], Any], str]] = {
    "a later batch": (lambda phi, Z: statistics(phi).update(Z, Y), "statistics.update: X is"),
    "merged statistics": (lambda phi, Z: statistics(phi).merge(statistics(phi, Z)), r"statistics \+=: X is"),
    "held-out rows": (
        lambda phi, Z: kd.fit_model(statistics(phi), validation=(Z, Y)),
        "fit_model: validation: X is",
    ),
    "held-out statistics": (
        lambda phi, Z: kd.fit_model(statistics(phi), validation=statistics(phi, Z)),
        "fit_model: validation: X is",
    ),
    "counts": (
        lambda phi, Z: kd.count_correct(kd.ridge_path(statistics(phi)), statistics(phi), kd.HeldOutRows(Z, Y)),
        "count_correct: X is",
    ),
    "a validation set": (
        lambda phi, Z: kd.distill(X, Y, phi, validation=(Z, Y), refit=False),
        "distill: validation: X is",
    ),
    "prediction of a model": (lambda phi, Z: made(phi).model.predict(Z), "predict: X is"),
    "prediction of a set": (lambda phi, Z: made(phi).distilled.predict(Z), "predict: X is"),
    "a test set": (lambda phi, Z: made(phi).distilled.verify(made(phi).model, test=(Z, Y)), "verify: test: X is"),
}


@pytest.mark.parametrize("phi", [PLAIN, SCALED], ids=["without preprocessing", "with preprocessing"])
@pytest.mark.parametrize("case", CASES)
def test_other_units_are_said_in_one_line(case: str, phi: kd.FeatureMap) -> None:
    act, expected = CASES[case]
    for other in (FLOATS, X * 255.0):
        (line,) = said(lambda other=other: act(phi, other))
        assert line.startswith(expected.replace("\\", ""))
        assert "give it in their units" in line
    assert said(lambda: act(phi, X[::-1].copy())) == []


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: kd.RidgeStatistics(SCALED, K).update(FLOATS, Y), "statistics.update: X is"),
        (lambda: kd.distill(FLOATS, Y, SCALED), "distill: X is"),
        (lambda: kd.retrain(made(SCALED).distilled, FLOATS, Y), "retrain: X is"),
    ],
)
def test_samples_in_other_units_than_the_map_are_said_in_one_line(act: Callable[[], Any], expected: str) -> None:
    (line,) = said(act)
    assert line.startswith(expected)


def test_units_travel_with_statistics_model_and_file(tmp_path: Path) -> None:
    sums, result = statistics(PLAIN), made(PLAIN)
    sums.save(tmp_path / "sums.npz")
    result.model.save(tmp_path / "model.npz")
    result.distilled.save(tmp_path / "distilled.npz")
    loaded = kd.RidgeStatistics.load(tmp_path / "sums.npz", PLAIN)
    assert loaded.sizes is not None
    assert sums.sizes is not None
    tolerances.assert_exact(loaded.sizes.squares, sums.sizes.squares)
    for predictor in (
        kd.RidgeModel.load(tmp_path / "model.npz", PLAIN),
        kd.DistilledDataset.load(tmp_path / "distilled.npz"),
    ):
        assert len(said(lambda predictor=predictor: predictor.predict(FLOATS))) == 1


def test_statistics_of_older_files_know_no_units() -> None:
    header, arrays = statistics(PLAIN).to_arrays()
    older = {name: array for name, array in arrays.items() if not name.startswith("input_")}
    assert kd.RidgeStatistics.from_arrays(PLAIN, header, older).sizes is None
    with pytest.raises(kd.DataError, match="input_count and input_squares must be"):
        kd.RidgeStatistics.from_arrays(PLAIN, header, {**arrays, "input_squares": np.ones(D + 1)})


def test_ordinary_batches_are_not_suspected() -> None:
    rng = np.random.default_rng(1)
    parts = np.zeros((2, 100, D))
    parts[0, :, :8], parts[1, :, 8:] = X[:100, :8], X[100:200, :8]  # sorted by class: other pixels in every batch
    sparse = (rng.random((200, D)) < 0.02).astype(float)
    tails = np.exp(2.0 * rng.standard_normal((200, D)))
    columns = X[:200] * np.array([1e6, *np.ones(D - 1)])
    for first, second in ((parts[0], parts[1]), *((x[:100], x[100:]) for x in (sparse, tails, columns))):
        sums = kd.RidgeStatistics(PLAIN, K).update(first, np.arange(100) % K)
        assert said(lambda sums=sums, second=second: sums.copy().update(second, np.arange(100) % K)) == []
        for row in second:
            sums.warn_of_units("test", row[None])  # a warning is an error here


def test_only_rows_that_are_summed_are_looked_at() -> None:
    X = np.ones((4000, 3))
    X[2000:] *= 1e6
    statistics = kd.RidgeStatistics(kd.Identity(3), 2).update(X, np.arange(4000) % 2, rows=np.arange(2000))
    tolerances.assert_exact(statistics.sizes.roots, np.ones(3))


def test_samples_that_are_taken_away_leave_no_trace() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    whole, part = (kd.RidgeStatistics(kd.Identity(3), 2, precision="float64").update(X[s], y[s])
                   for s in (slice(None), slice(40, None)))  # fmt: skip
    whole -= part
    assert whole.sizes is None
    assert not {"input_count", "input_squares"} & whole.to_arrays()[1].keys()
