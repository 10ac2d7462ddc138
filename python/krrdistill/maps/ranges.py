"""Which feature vectors a chain of layers reaches exactly: all of them, or a linear subspace.

A layer with at most as many outputs as inputs (and full row rank) is onto; its activation can be undone. One with more
outputs that is linear reaches a subspace, and the linear layers behind it map that on. Behind a nonlinear layer with
more outputs than inputs the range is curved, and nothing exact can be said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg

from krrdistill.backends import Backend, HadamardWeight, Operator
from krrdistill.backends.base import Layer, Matrix, dense_matrix, matrix_of
from krrdistill.backends.tiles import rank_deficient, rcond_floor
from krrdistill.common.placed import AnyMatrix

__all__ = ["layer_ranges", "obstacle", "preimage_in_range"]

FloatArray = npt.NDArray[np.float64]


def layer_ranges(layers: Sequence[Layer]) -> list[FloatArray | None] | None:
    """What each layer gets, and last what the chain gives: an orthonormal basis (width, r), None for all of R^width.

    None instead of the list where the range is no linear subspace. Raises NotSurjective for rank-deficient weights.
    """
    bases: list[FloatArray | None] = [None]
    for layer in layers:
        if _obstacle(layer, bases[-1]) is not None:
            return None
        bases.append(_range_behind(layer, bases[-1]))
    return bases


def obstacle(layers: Sequence[Layer]) -> str | None:
    """Why ``layer_ranges`` gives None: the first layer that bends its range; None where none does."""
    basis: FloatArray | None = None
    for number, layer in enumerate(layers, start=1):
        reason = _obstacle(layer, basis)
        if reason is not None:
            title = layer.weight.title if isinstance(layer.weight, Operator) else None
            return f"{title or f'layer {number}'} {reason}"
        basis = _range_behind(layer, basis)
    return None


def _obstacle(layer: Layer, basis: FloatArray | None) -> str | None:
    if isinstance(layer.weight, Operator):
        return layer.weight.obstacle if basis is None else "gets a part of its inputs only"
    p, d = layer.weight.shape
    r = d if basis is None else basis.shape[1]
    if p <= r or (layer.activation == "linear" and layer.bias is None):
        return None
    return f"maps {r} inputs to {p} features; an exact preimage needs at most {r} features"


def _range_behind(layer: Layer, basis: FloatArray | None) -> FloatArray | None:
    """The range of one layer without an obstacle."""
    p, d = layer.weight.shape
    if isinstance(layer.weight, Operator) or p <= (d if basis is None else basis.shape[1]):
        return None
    Q, _ = _injective_factors(_in_coordinates(matrix_of(layer), basis))
    return Q


def preimage_in_range(
    solver: Backend, weight: Matrix, rhs: AnyMatrix, basis: FloatArray | None, *, overwrite: bool = False
) -> AnyMatrix:
    """The least-norm X (m, d) with X W^T = rhs (m, p) among combinations of ``basis`` (d, r), None for all X.

    Where W is injective on them, rhs is projected onto its range. ``overwrite`` : rhs may be lost. Where a solver
    answers it, a placed rhs has a placed X.
    """
    p, d = weight.shape
    if basis is None and p <= d:
        found: AnyMatrix = solver.preimage_solve(weight, rhs, overwrite=overwrite)
        return found
    rhs = np.asarray(rhs)
    A = _in_coordinates(weight, basis)
    if p <= A.shape[1]:
        coordinates = solver.preimage_solve(A, rhs, overwrite=overwrite)
    else:
        Q, R = _injective_factors(A)
        coordinates = scipy.linalg.solve_triangular(R, (rhs @ Q).T).T
    return np.asarray(coordinates if basis is None else coordinates @ basis.T)


def _in_coordinates(weight: Matrix, basis: FloatArray | None) -> FloatArray:
    """W, or W times the basis: float64 (p, r)."""
    if basis is not None and isinstance(weight, HadamardWeight):
        return np.asarray(weight.apply(basis.T).T)
    dense = np.asarray(dense_matrix(weight), dtype=np.float64)
    return dense if basis is None else dense @ basis


def _injective_factors(A: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A = Q R with A (p, r), p > r, of rank r."""
    Q, R = np.linalg.qr(A)
    diagonal = np.abs(np.diag(R))
    if diagonal.min() <= rcond_floor(A.shape) * diagonal.max():
        raise rank_deficient(A.shape)
    return Q, R
