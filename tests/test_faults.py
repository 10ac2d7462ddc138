"""Rows that cannot be used: every message names function and argument, and what is wrong with which row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import krrdistill as kd

N, D, K = 60, 4, 3
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.arange(N) % K
PHI = kd.FCNN(D, seed=1)


def spoiled(value: float, dtype: str = "f8") -> Any:
    samples = X.astype(dtype)
    samples[7, 1] = value
    return samples


def statistics() -> kd.RidgeStatistics:
    return kd.RidgeStatistics(PHI, K).update(X, Y)


def made() -> kd.Distillation:
    return kd.distill(X, Y, PHI)


CASES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "distill": (lambda Z: kd.distill(Z, Y, PHI), "distill: X: "),
    "validation of distill": (lambda Z: kd.distill(X, Y, PHI, validation=(Z, Y)), "distill: validation: X: "),
    "update": (lambda Z: kd.RidgeStatistics(PHI, K).update(Z, Y), "statistics.update: X: "),
    "a second update": (lambda Z: statistics().update(Z, Y), "statistics.update: X: "),
    "weighted update": (
        lambda Z: kd.RidgeStatistics(PHI, K).update(Z, Y, sample_weight=np.ones(N)), "statistics.update: X: ",
    ),
    "fit_model": (lambda Z: kd.fit_model(statistics(), validation=(Z, Y)), "fit_model: validation: X: "),
    "count_correct": (
        lambda Z: kd.count_correct(kd.ridge_path(statistics()), statistics(), kd.HeldOutRows(Z, Y)),
        "count_correct: X: ",
    ),
    "verify": (lambda Z: made().distilled.verify(made().model, test=(Z, Y)), "verify: test: X: "),
    "transform": (lambda Z: PHI.transform(Z, dtype="float32"), "FCNN.transform: X: "),
    "retrain": (lambda Z: kd.retrain(made().distilled, Z, Y), "retrain: X: "),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (spoiled(np.nan), "row 7 holds NaN or infinity"),
        (spoiled(np.inf, "f4"), "row 7 holds NaN or infinity"),
        (spoiled(np.nan, "f2"), "row 7 holds NaN or infinity"),  # read a block at a time
        (spoiled(1e200), "row 7 holds 1e+200, which overflows float32; scale X, or use precision='float64'"),
        (np.asfortranarray(spoiled(-1e200)), "row 7 holds -1e+200, which overflows float32"),
    ],
    ids=["NaN", "infinity", "float16", "1e200", "blocks of 1e200"],
)
def test_a_bad_row_is_named_with_function_and_argument(case: str, samples: Any, fault: str) -> None:
    act, expected = CASES[case]
    with pytest.raises(kd.DataError) as error:
        act(samples)
    assert str(error.value).startswith(expected + fault)


@pytest.mark.parametrize("row", [0, 7, 59])  # whoever of them is held out
def test_a_bad_row_of_the_training_samples_is_named_alike_where_it_is_held_out(row: int) -> None:
    Z = X.copy()
    Z[row] = np.nan
    for fraction in (0.05, 0.95):
        with pytest.raises(kd.DataError, match=f"^distill: X: row {row} holds NaN or infinity$"):
            kd.distill(Z, Y, PHI, validation_fraction=fraction)


@pytest.mark.parametrize("kind", ["model", "distilled"])
def test_predictions_in_float64_refuse_only_what_is_no_number(kind: str) -> None:
    predict = getattr(made(), kind).predict
    with pytest.raises(kd.DataError, match=r"^predict: X: row 7 holds NaN or infinity$"):
        predict(spoiled(np.nan))
    predict(spoiled(1e200))


def test_integers_that_float64_cannot_hold_are_named_with_the_function() -> None:
    with pytest.raises(kd.DataError, match=r"^statistics.update: X holds integers beyond 2\*\*53"):
        kd.RidgeStatistics(PHI, K).update(np.full((N, D), 1 << 60), Y)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (kd.zca, "zca: X: row 7 holds NaN or infinity"),
        (kd.standardize, "standardize: X: row 7 holds NaN or infinity"),
        (lambda Z: kd.make_map("random_fourier", Z), "make_map: data: row 7 holds NaN or infinity, so that sigma2"),
        (lambda Z: kd.Dataset("mine", X, Y, Z, Y), "Dataset: x_test holds NaN or infinity, first in row 7"),
    ],
)
def test_data_that_are_no_numbers_are_named_by_what_learns_from_them(act: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(kd.DataError, match=f"^{message}"):
        act(spoiled(np.nan))
