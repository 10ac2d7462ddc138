"""The operations with kernels that Numba compiles on first use, and the matrix products of SciPy's BLAS.

Every thread owns its rows of a tile, its columns of C or its models: sums do not depend on how many threads Numba has.
The element-wise formulas are those of the compiled core (csrc/cpu/elementwise_impl.h).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import scipy.linalg
from numba import prange, types
from scipy.linalg import blas, lapack
from threadpoolctl import ThreadpoolController

from krrdistill.common.threads import forked, say_forked
from krrdistill.errors import DataError

from .array import ArrayBackend
from .base import (
    FloatArray,
    IntArray,
    Layer,
    MapStages,
    PathSolution,
    Products,
    matrix_of,
    nonfinite_path,
    path_sums,
    products_in,
)
from .hadamard import HadamardWeight
from .models import Models, models_on_host
from .tiles import FLUSH_ROWS, tile_rows

__all__ = ["NumbaBackend"]

AnyArray = npt.NDArray[Any]
_ONE_AT_A_TIME = threading.Lock()  # Numba's "workqueue" threads end the process when two Python threads call at once


class NumbaBackend(ArrayBackend):
    """Passes over the data by Numba and BLAS; the other solvers are those of ``ArrayBackend``, LAPACK either way."""

    name = "numba"

    def transform(
        self, feature_map: MapStages, X: AnyArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> AnyArray:
        """phi(X), see ``Backend.transform``."""
        out = np.empty((len(X) if rows is None else len(rows), feature_map.output_dim), dtype)
        for _ in _feature_tiles(feature_map, X, rows, dtype, out):
            pass
        return out

    def accumulate(
        self,
        feature_map: MapStages,
        X: AnyArray,
        Y: AnyArray,
        gram: FloatArray,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``."""
        scratch = gram if dtype == np.float64 else np.empty(gram.shape, dtype)
        pending = 0  # rows in `scratch` that are not yet in `gram`
        for picked, features in _feature_tiles(feature_map, X, rows, dtype):
            _syrk(dtype)(1.0, features.T, beta=scratch is gram or pending > 0, c=scratch.T, lower=0, overwrite_c=1)
            pending += len(features)
            if scratch is not gram and pending >= FLUSH_ROWS:
                _run(_flush, scratch, gram)
                pending = 0
            if Y.ndim == 1:
                _run(_class_sums, features, Y[picked], cross)
            else:
                cross += _gemm(dtype)(1.0, features.T, Y[picked].astype(dtype).T, trans_b=1).T
        if scratch is not gram and pending:
            _run(_flush, scratch, gram)
        return products_in(dtype)

    def score_path(
        self,
        feature_map: MapStages,
        X: AnyArray,
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``."""
        models, k, p = weights.shape
        stacked = np.array(models_on_host(weights), dtype=dtype, order="C").reshape(models * k, p)
        correct = np.zeros(models, dtype=np.int64)
        scores = np.empty(
            (min(tile_rows(feature_map, dtype), len(X) if rows is None else len(rows)), models * k), dtype
        )
        for picked, features in _feature_tiles(feature_map, X, rows, dtype):
            found = scores[: len(features)]
            _times_transposed(features, stacked, found)
            _run(_count_correct, found.reshape(-1, models, k), labels[picked], correct)
        return correct

    def ridge_path(
        self, gram: FloatArray, cross: FloatArray, lambdas: FloatArray, *, rounding: float, overwrite: bool = False
    ) -> PathSolution:
        """G = Q T Q^T once for all lambdas, T tridiagonal, see ``Backend.ridge_path``."""
        nonfinite = nonfinite_path(gram, cross, lambdas)
        if nonfinite is not None:
            return nonfinite
        p, k = len(gram), len(cross)
        if p == 1:  # nothing to reduce
            return super().ridge_path(gram, cross, lambdas, rounding=rounding, overwrite=overwrite)
        size = int(lapack.dsytrd_lwork(p, lower=1)[0])
        reflectors, diagonal, beside, tau, _ = lapack.dsytrd(gram, lower=1, lwork=size)
        largest = float(scipy.linalg.eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(p - 1, p - 1))[0])
        floor = rounding * max(largest, 0.0)
        resolved = np.array([lapack.dpttrf(diagonal + value - floor, beside)[2] == 0 for value in lambdas])
        rotated = _rotate("T", reflectors, tau, cross.T)
        factors = [lapack.dpttrf(diagonal + value, beside) for value in lambdas]
        positive_definite = np.array([info == 0 for *_, info in factors])
        solutions = [lapack.dpttrs(d, e, rotated)[0] for d, e, info in factors if info == 0]
        weights = np.full((len(lambdas), k, p), np.nan)
        if solutions:
            weights[positive_definite] = _rotate("N", reflectors, tau, np.hstack(solutions)).T.reshape(-1, k, p)
        return PathSolution(weights, positive_definite, resolved, largest, *path_sums(weights, cross))


def _rotate(transpose: str, reflectors: FloatArray, tau: FloatArray, columns: FloatArray) -> FloatArray:
    """Q A, or Q^T A for "T", with the Q of ``dsytrd``: it leaves the first row alone."""
    A = np.array(columns, order="F")
    work = lapack.dormqr("L", transpose, reflectors[1:, :-1], tau, A[1:], -1)[1]
    A[1:] = lapack.dormqr("L", transpose, reflectors[1:, :-1], tau, A[1:], int(work[0]))[0]
    return A


def _feature_tiles(
    feature_map: MapStages, X: AnyArray, rows: IntArray | None, dtype: np.dtype[Any], out: AnyArray | None = None
) -> Iterator[tuple[IntArray, AnyArray]]:
    """(indices into X, features) tile by tile: the features in ``out`` if given, else valid until the next tile."""
    n = len(X) if rows is None else len(rows)
    step = min(tile_rows(feature_map, dtype), n)
    factors = dtype if X.dtype == np.uint8 else np.dtype(np.float64)
    none = np.empty(0, factors)
    scale, shift = (none if a is None else np.array(a, factors) for a in (feature_map.scale, feature_map.shift))
    layers = [_cast(layer, dtype) for layer in feature_map.layers]
    widths = [feature_map.input_dim, *(layer.weight.shape[0] for layer in layers)]
    room = [np.empty(step * max(widths), dtype) for _ in range(min(len(widths), 2))]  # stages write to them in turn
    finite = np.empty(step, np.bool_)
    load = _load_kernel(X.dtype, factors, dtype)
    for start in range(0, n, step or 1):
        stop = min(start + step, n)
        picked = np.arange(start, stop) if rows is None else rows[start:stop]
        stages = [room[stage % 2][: (stop - start) * width].reshape(-1, width) for stage, width in enumerate(widths)]
        if out is not None:
            stages[-1] = out[start:stop]
        _run(load, X, picked, scale, shift, stages[0], finite)
        if not finite[: stop - start].all():
            raise DataError(
                f"row {picked[np.argmin(finite[: stop - start])]} holds NaN or infinity, or overflows {dtype.name}"
            )
        for layer, source, target in zip(layers, stages, stages[1:], strict=False):
            weight = matrix_of(layer)
            if isinstance(weight, HadamardWeight):
                target[:] = weight.apply(source)
            else:
                _times_transposed(source, weight, target)
            _run(_epilogue(layer, dtype), target, layer.bias, dtype.type(layer.parameter))
        yield picked, stages[-1]


def _cast(layer: Layer, dtype: np.dtype[Any]) -> Layer:
    """The layer in ``dtype``; no bias is a bias of zero, linear is LeakyReLU of slope 1."""
    bias = np.zeros(layer.weight.shape[0], dtype) if layer.bias is None else np.array(layer.bias, dtype)
    parameter = 1.0 if layer.activation == "linear" else layer.parameter
    weight = matrix_of(layer)
    if not isinstance(weight, HadamardWeight):
        weight = np.ascontiguousarray(weight, dtype)
    return layer._replace(weight=weight, bias=bias, parameter=parameter)


# Matrix products. A row-major matrix is the transpose of a column-major one: BLAS takes and fills views, nothing is
# copied, and the lower triangle is the upper one.


def _gemm(dtype: np.dtype[Any]) -> Callable[..., AnyArray]:
    return blas.sgemm if dtype == np.float32 else blas.dgemm  # type: ignore[no-any-return]


def _syrk(dtype: np.dtype[Any]) -> Callable[..., AnyArray]:
    return blas.ssyrk if dtype == np.float32 else blas.dsyrk  # type: ignore[no-any-return]


def _times_transposed(a: AnyArray, b: AnyArray, out: AnyArray) -> None:
    """out = A B^T, A (n, r), B (p, r), out (n, p)."""
    _gemm(out.dtype)(1.0, b.T, a.T, trans_a=1, c=out.T, overwrite_c=1)


# Kernels


class _Kernel:
    """Loops compiled for several threads, and for one, which starts none and can do without them after a fork."""

    def __init__(self, function: Callable[..., None], *signature: Any) -> None:
        self._function, self._signature = function, signature

    @functools.cached_property
    def together(self) -> Any:
        """On the threads that Numba has; compiling it starts them."""
        return _compile(*self._signature, parallel=True)(self._function)

    @functools.cached_property
    def alone(self) -> Any:
        """On the thread that calls. Its name is its own: Numba keeps machine code on disk by name."""
        function = self._function
        alone = FunctionType(function.__code__, function.__globals__)
        alone.__module__ = function.__module__
        alone.__qualname__ = f"{function.__qualname__}_alone"
        return _compile(*self._signature)(alone)


def _run(kernel: _Kernel, *arguments: Any) -> None:
    """Runs a kernel on as many threads as BLAS has: one limit (``threadpool_limits``) holds for both."""
    most = numba.config.NUMBA_NUM_THREADS
    threads = min(max((library.num_threads for library in _blas().lib_controllers), default=most), most)
    if forked():
        say_forked(threads > 1)
        threads = 1
    if threads == 1:
        kernel.alone(*arguments)
        return
    with _ONE_AT_A_TIME:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            kernel.together(*arguments)
        finally:
            numba.set_num_threads(before)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _compile(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, lazily; machine code is kept on disk unless no folder for it can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(*signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(*signature, nogil=True, **options)(function)

    return decorate


@functools.cache
def _load_kernel(source: np.dtype[Any], factors: np.dtype[Any], target: np.dtype[Any]) -> Any:
    """One kernel for all memory layouts of X, which ``numba`` would otherwise compile for each."""
    by, to = numba.from_dtype(factors), numba.from_dtype(target)
    X = types.Array(numba.from_dtype(source), 2, "A", readonly=True)
    picked = types.Array(types.int64, 1, "A", readonly=True)
    signature = types.void(X, picked, by[::1], by[::1], to[:, ::1], types.boolean[::1])
    return _Kernel(_load, signature)


def _load(
    X: AnyArray, picked: IntArray, scale: AnyArray, shift: AnyArray, out: AnyArray, finite: npt.NDArray[np.bool_]
) -> None:
    """out = X[picked] * scale + shift (neither if they are empty), finite[i]: whether row i of it is finite."""
    factor = scale.dtype.type
    for i in prange(len(out)):
        row, source = out[i], picked[i]
        if len(scale) == 0:
            for j in range(len(row)):
                row[j] = X[source, j]
        for j in range(len(scale)):
            row[j] = factor(X[source, j]) * scale[j] + shift[j]
        good = True
        for j in range(len(row)):
            good &= row[j] - row[j] == 0
        finite[i] = good


@_Kernel
def _leaky_relu(features: AnyArray, bias: AnyArray, slope: Any) -> None:
    for i in prange(len(features)):
        row = features[i]
        for j in range(len(row)):
            value = row[j] + bias[j]
            row[j] = value if value > 0 else slope * value


@_Kernel
def _cosine64(features: AnyArray, bias: AnyArray, scale: Any) -> None:
    for i in prange(len(features)):
        row = features[i]
        for j in range(len(row)):
            row[j] = scale * np.cos(row[j] + bias[j])


_TWO_OVER_PI = np.float32(0.636619772)
_HALF_PI = tuple(map(np.float32, (1.5703125, 4.837512969970703125e-4, 7.54978995489e-8)))
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adds, then subtracts, to round
_COS = tuple(map(np.float32, (1.0, -0.5, 4.166665465e-2, -1.388771917e-3, 2.447582979e-5)))
_SIN = tuple(map(np.float32, (-1.666665467e-1, 8.332165526e-3, -1.951592062e-4)))
_REDUCTION_LIMIT = np.float32(8192.0)


@_compile(inline="always")
def _cos_reduced(x: Any) -> Any:
    """cos for float32, |x| <= 8192: the reduction and the polynomials of csrc/cpu/elementwise_impl.h."""
    q = (x * _TWO_OVER_PI + _ROUND) - _ROUND
    r = ((x - q * _HALF_PI[0]) - q * _HALF_PI[1]) - q * _HALF_PI[2]
    z = r * r
    c = _COS[0] + z * (_COS[1] + z * (_COS[2] + z * (_COS[3] + z * _COS[4])))
    s = r + r * z * (_SIN[0] + z * (_SIN[1] + z * _SIN[2]))
    quadrant = np.int32(q)
    value = s if quadrant & 1 else c
    return -value if (quadrant + 1) & 2 else value


@_Kernel
def _cosine32(features: AnyArray, bias: AnyArray, scale: Any) -> None:
    for i in prange(len(features)):
        row = features[i]
        small = True
        for j in range(len(row)):
            row[j] += bias[j]
            small &= abs(row[j]) <= _REDUCTION_LIMIT
        if small:
            for j in range(len(row)):
                row[j] = scale * _cos_reduced(row[j])
        else:
            for j in range(len(row)):
                row[j] = scale * np.float32(np.cos(np.float64(row[j])))


def _epilogue(layer: Layer, dtype: np.dtype[Any]) -> Any:
    if layer.activation == "cosine":
        return _cosine32 if dtype == np.float32 else _cosine64
    return _leaky_relu


@_Kernel
def _flush(scratch: AnyArray, gram: FloatArray) -> None:
    """gram += scratch on the lower triangle; rows from both ends in turn, so that threads get equal shares."""
    p = len(gram)
    for pair in prange((p + 1) // 2):
        top = np.int64(pair)
        for i in range(top, p - top, p - 1 - 2 * top or 1):  # top and p - 1 - top, the middle row once
            row, more = gram[i, : i + 1], scratch[i, : i + 1]
            for j in range(len(row)):
                row[j] += more[j]


@_Kernel
def _class_sums(features: AnyArray, labels: IntArray, cross: FloatArray) -> None:
    """cross[label] += features, by columns: the order of each sum does not depend on the threads."""
    p = features.shape[1]
    for block in prange((p + 255) // 256):
        columns = slice(256 * block, min(256 * (block + 1), p))
        for i in range(len(features)):
            row, more = cross[labels[i], columns], features[i, columns]
            for j in range(len(row)):
                row[j] += more[j]


@_Kernel
def _count_correct(scores: AnyArray, labels: IntArray, correct: IntArray) -> None:
    """correct[l] += the number of rows i of scores (n, L, k) whose first largest score is that of labels[i]."""
    n, models, k = scores.shape
    for model in prange(models):
        count = 0
        for i in range(n):
            row = scores[i, model]
            best = 0
            for c in range(1, k):
                if row[c] > row[best]:
                    best = c
            count += best == labels[i]
        correct[model] += count
