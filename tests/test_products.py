"""Products by SciPy's BLAS against NumPy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import tolerances
from krrdistill.common.products import gram, product

Array = npt.NDArray[np.float64]
FORMS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "reversed": lambda A: A[::-1].copy()[::-1],
    "strided": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("left", FORMS)
@pytest.mark.parametrize("right", FORMS)
@pytest.mark.parametrize(("m", "n", "r"), [(1, 1, 1), (3, 1, 2), (1, 5, 4), (257, 7, 300), (7, 300, 2)])
def test_product(m: int, n: int, r: int, left: str, right: str, rng: np.random.Generator) -> None:
    A, B = rng.standard_normal((m, n)), rng.standard_normal((n, r))
    actual = product(FORMS[left](A), FORMS[right](B))
    tolerances.assert_solve(actual, A @ B, 1.0, magnitude=float(np.linalg.norm(A) * np.linalg.norm(B)))
    assert actual.flags.c_contiguous


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 5), (5, 1), (255, 3), (256, 3), (257, 3), (600, 40)])
def test_gram_is_symmetric(m: int, n: int, form: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal((m, n))
    actual = gram(FORMS[form](A))
    tolerances.assert_solve(actual, A @ A.T, 1.0, magnitude=float(np.linalg.norm(A)) ** 2)
    assert np.array_equal(actual, actual.T)


def test_products_over_nothing_are_zero() -> None:
    assert np.array_equal(product(np.empty((3, 0)), np.empty((0, 2))), np.zeros((3, 2)))


def test_arguments_are_not_changed(rng: np.random.Generator) -> None:
    A = rng.standard_normal((30, 20))
    kept = A.copy()
    product(A, A.T)
    gram(A)
    assert np.array_equal(A, kept)
