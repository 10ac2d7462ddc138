"""How close is close: one function per family of operations. No test has a tolerance of its own.

exact        the same numbers: integers, indices, copies, repeated runs
elementwise  a few units in the last place of a known magnitude (conversions, cos, LeakyReLU)
reduction    sums of ``terms`` products: rounding grows like their square root, relative to the sum of magnitudes
solve        backward stable solves: rounding times the condition number
statistical  moments of random samples: five standard errors
merged       what the documentation says of statistics that were merged: 1e-12 in float64
promised     what README says of a model retrained from a file, by how the file stores numbers
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ULPS = {"elementwise": 8.0, "reduction": 4.0, "solve": 100.0}
_STANDARD_ERRORS = 5.0
_BOUND_MARGIN = 2e-12
_ESTIMATE = 2e-3
_MERGED = 1e-12
_SLICES = 1e-8
# The tests keep the promise in numbers of their own: those of the package could be changed with it.
_PROMISED = {"float64": 1e-6, "float32": 1e-2, "float16": 1e-2, "uint8": 1e-2}
# float32 cosine: reduction in three parts, polynomials of degree 8 and 7, in float32 (docs/explanation/numerics.md).
_FLOAT32_COSINE_ULPS = 2.0
# Accuracies on a training set are no monotone function of lambda, only the residual is: what counts as noise.
ACCURACY_NOISE = 2e-3
# Relative: statistics that came from several places, in float64, against those of the data together.
TRAVELLED = 1e-12
# Relative: models and points after samples were taken away, and one point per class that retrains to the model.
EXACT_WEIGHTS = 1e-9


def eps(dtype: Any) -> float:
    """Distance from 1 to the next number."""
    return float(np.finfo(dtype).eps)


def assert_exact(actual: Any, expected: Any) -> None:
    """Same shape, same numbers, NaN equal to NaN."""
    np.testing.assert_array_equal(actual, expected, strict=False)
    assert np.shape(actual) == np.shape(expected)


def elementwise(dtype: Any, magnitude: Any = 1.0) -> Any:
    """Bound on |error| for numbers of the given magnitude."""
    return _ULPS["elementwise"] * eps(dtype) * magnitude


def cosine(dtype: Any) -> float:
    """Bound on |error| of cos(x) for an exact x."""
    return _FLOAT32_COSINE_ULPS * eps(np.float32) / 2 if dtype == np.float32 else elementwise(dtype)


def reduction(dtype: Any, terms: int, magnitude: Any) -> Any:
    """Bound on |error| of sums of ``terms`` products whose absolute values sum to ``magnitude``."""
    return _ULPS["reduction"] * eps(dtype) * (1.0 + np.sqrt(terms)) * magnitude


def solve(condition: float, dtype: Any = np.float64) -> float:
    """Bound on ||error|| / ||solution|| of a solve with a matrix of this condition number."""
    return _ULPS["solve"] * eps(dtype) * max(condition, 1.0)


def assert_estimate(actual: Any, expected: Any) -> None:
    """Agreement of what is only estimated, by a few iterations, with its exact value."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    _within(np.linalg.norm(actual - expected), 0.0, _ESTIMATE * np.linalg.norm(expected))


def promised(store: str = "float64") -> float:
    """Bound on ||W_S - W|| / ||W|| of a model W_S from a file that stores inputs in this type."""
    return _PROMISED[store]


def assert_promised(relative_error: float, store: str = "float64") -> None:
    """A relative weight error within ``promised``."""
    assert 0.0 <= relative_error <= _PROMISED[store]


def assert_promised_model(W_S: Any, W: Any, store: str = "float64") -> None:
    """||W_S - W||_F <= promised(store) ||W||_F."""
    _within(np.linalg.norm(np.asarray(W_S) - W), 0.0, _PROMISED[store] * np.linalg.norm(W))


def assert_merged(actual: Any, expected: Any) -> None:
    """What comes of merged float64 statistics against those of one pass, points of well-conditioned maps included."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    _within(np.linalg.norm(actual - expected), 0.0, _MERGED * np.linalg.norm(expected))


def slices(n: int) -> float:
    """Bound on what products of three int8 slices add to ||dG||_2 / ||G||_2 of n rows of CIFAR-100 features.

    1e-8 of 4096 rows (an FMA chain in float32: 8.5e-8); the digits that are left out add up at random.
    """
    return _SLICES * float(np.sqrt(4096 / n))


def difference_quotient(step: float, magnitude: Any, dtype: Any = np.float64) -> Any:
    """Bound on |error| of a central difference of values of this magnitude: rounding over the step, and its square."""
    return (_ULPS["solve"] * eps(dtype) / step + step * step) * magnitude


def cancellation(total: float, dtype: Any = np.float64) -> float:
    """Bound on the |error| of the root of a difference of numbers as large as ``total``."""
    return float(np.sqrt(_ULPS["solve"] * eps(dtype) * total))


def statistical(n: int, deviation: float = 1.0) -> float:
    """Bound on the |error| of the mean of n independent numbers with this standard deviation."""
    return _STANDARD_ERRORS * deviation / float(np.sqrt(n))


def assert_elementwise(actual: Any, expected: Any, dtype: Any, magnitude: Any = None) -> None:
    """Agreement within the elementwise family; the magnitude is |expected| unless given."""
    _within(actual, expected, elementwise(dtype, np.abs(expected) if magnitude is None else magnitude))


def assert_reduction(actual: Any, expected: Any, dtype: Any, terms: int, magnitude: Any) -> None:
    """Agreement within the reduction family."""
    _within(actual, expected, reduction(dtype, terms, magnitude))


def assert_solve(
    actual: Any, expected: Any, condition: float = 1.0, dtype: Any = np.float64, *, magnitude: float | None = None
) -> None:
    """||actual - expected||_F <= solve(condition) magnitude; the magnitude is ||expected||_F unless given."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    size = np.linalg.norm(expected) if magnitude is None else magnitude
    _within(np.linalg.norm(actual - expected), 0.0, solve(condition, dtype) * size)


def assert_within(actual: Any, expected: Any, bound: Any) -> None:
    """|actual - expected| <= bound, a bound that one of the functions above gave."""
    _within(actual, expected, bound)


def assert_at_bound(actual: float, bound: float) -> None:
    """As large as a bound allows, on its safe side."""
    assert bound * (1.0 - _BOUND_MARGIN) <= actual <= bound


def _within(actual: Any, expected: Any, bound: Any) -> None:
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if actual.size == 0:
        return
    excess = np.abs(actual - expected) - bound
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), np.inf, excess))), excess.shape)
    assert excess[worst] <= 0.0, (
        f"at {tuple(int(i) for i in worst)}: {actual[worst]!r}, expected {expected[worst]!r}, "
        f"difference {abs(actual[worst] - expected[worst]):.3g} over the bound by {excess[worst]:.3g}"
    )
