"""Warnings point at the line that called the package, wherever in it they arise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd

N, D, K = 60, 6, 3
X = np.random.default_rng(0).standard_normal((N, D))
Y = np.arange(N) % K
PACKAGE = Path(kd.__file__).parent


def statistics(samples: Any = X) -> kd.RidgeStatistics:
    return kd.RidgeStatistics(kd.Identity(D), K).update(samples, Y)


CASES: dict[str, Callable[[], Any]] = {
    "a label column": lambda: kd.distill(X, Y[:, None], kd.Identity(D)),
    "one-hot labels": lambda: kd.distill(X, np.eye(K, dtype=int)[Y], kd.Identity(D), lambdas=1.0),
    "other units in distill": lambda: kd.distill(X, Y, kd.FCNN(D), validation=(1e3 * X, Y)),
    "other units in statistics": lambda: statistics().update(1e3 * X, Y),
    "other units in a merge": lambda: statistics().merge(statistics(1e3 * X)),
    "a lambda at the end of the grid": lambda: kd.fit_model(statistics(), [1e4, 1e5], validation=(X, Y)),
    "points that are not exact": lambda: kd.distill(X, Y, kd.RandomFourier(D, 20, sigma2=9.0), max_seconds=1e-9),
    "more points than samples": lambda: kd.distill(X, Y, kd.Identity(D), points_per_class=N, lambdas=1.0),
    "held-out rows beyond their bound": lambda: kd.RidgeStatistics(kd.Identity(D), K).update_batches(
        [(X, Y)], holdout=0.5, max_held_out=1
    ),
    "an index among the columns": lambda: kd.read_samples(frame(), y="label"),
}


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"Unnamed: 0": np.arange(N), "a": X[:, 0], "label": Y})


@pytest.mark.parametrize("case", CASES)
def test_every_warning_names_the_line_of_the_user(case: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CASES[case]()
    places = {warning.filename for warning in caught if issubclass(warning.category, UserWarning)}
    assert places == {__file__}


def test_the_package_warns_in_one_way() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if "warnings.warn" in path.read_text(encoding="utf-8")]
    assert [path.name for path in files] == ["warning.py"]
