"""Affine preprocessing with an exact inverse: standardisation and ZCA whitening."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from krrdistill.common.arrays import like, to_host
from krrdistill.common.faults import rows_of
from krrdistill.common.rows import blocks
from krrdistill.common.samples import host_samples
from krrdistill.common.threads import in_order
from krrdistill.errors import DataError

from .dataset import Dataset, row_blocks
from .layout import checked_layout, count_channels
from .units import warn_of_units

__all__ = ["Moments", "Preprocessing", "standardize", "zca"]

Vector = NDArray[np.float64]
_KINDS = ("none", "standardize", "zca")
# Mean and standard deviation per channel of x / 255, as used by the paper (Chen, Huang, Weng, NeurIPS 2024).
_PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
_DIGITS_WHITE = 16.0  # the bundled digits have grey levels 0 ... 16 in their uint8
_CACHED = 1 << 16  # numbers whose differences, 512 KiB, stay in the cache of a core
_MAX_LISTED = 16  # constants of at most so many channels are listed in spec()


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """First stage of a feature map: u = (x - origin) / unit, and with ZCA z = u @ whitening.

    The origin is subtracted first, so that a large origin with a small spread costs no accuracy.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    kind : "none", "standardize" or "zca"
    origin, unit : float64 (d,), unit without zeros
    whitening : symmetric positive definite float64 (d, d), None unless kind is "zca"
    eps : the ridge of ZCA
    constants : where origin and unit come from, for reports

    Raises
    ------
    DataError
        For an unknown kind, and for arrays that are missing, of the wrong shape or not finite.
    """

    kind: str
    origin: Vector
    unit: Vector
    whitening: Vector | None = None
    eps: float | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in _KINDS:
            raise DataError(f"Preprocessing: unknown kind {self.kind!r}; expected one of {', '.join(_KINDS)}")
        if self.eps is not None and not isinstance(self.eps, Real):
            raise DataError(f"Preprocessing: eps must be a number, got {type(self.eps).__name__}")
        if not isinstance(self.constants, Mapping):
            raise DataError(f"Preprocessing: constants must be a mapping, got {type(self.constants).__name__}")
        d = np.size(self.origin)
        for name in ("origin", "unit"):
            object.__setattr__(self, name, _own(_checked_array(name, getattr(self, name), (d,))))
        if self.kind == "zca":
            object.__setattr__(self, "whitening", _own(_checked_array("whitening", self.whitening, (d, d))))
        elif self.whitening is not None:
            raise DataError(f"Preprocessing: whitening has no place in kind {self.kind!r}")
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if not np.isfinite([1.0 / self.unit, self.origin / self.unit]).all():
                raise DataError("Preprocessing: unit holds zeros (or numbers next to zero), which cannot be undone")

    def __repr__(self) -> str:
        return f"Preprocessing({self.kind}, d={self.input_dim})"

    @staticmethod
    def none(input_dim: int) -> Preprocessing:
        """The identity on inputs with d entries."""
        return Preprocessing("none", np.zeros(input_dim), np.ones(input_dim))

    @property
    def input_dim(self) -> int:
        """d, the number of entries of one sample."""
        return len(self.origin)

    @property
    def scale(self) -> Vector:
        """1 / unit: u = x scale + shift."""
        return np.asarray(1.0 / self.unit)

    @property
    def shift(self) -> Vector:
        """-origin / unit."""
        return np.asarray(-self.origin / self.unit)

    def standardise(self, X: Any) -> Any:
        """u = (x - origin) / unit, without whitening.

        X : array of shape ``(n, *shape)`` or (n, d), any real dtype. Returns float64 (n, d), of the kind of X.
        """
        return like(self._standard(self._rows("standardise", "X", X)), X)

    def _standard(self, rows: NDArray[Any]) -> Vector:
        out = np.empty(rows.shape)
        for block in row_blocks(*rows.shape):
            np.subtract(rows[block], self.origin, out=out[block])
            out[block] /= self.unit
        return out

    def raw(self, U: Any, shape: tuple[int, ...] | None = None) -> Any:
        """x = u unit + origin: the inverse of ``standardise``, float64 (n, d) or ``(n, *shape)``, of the kind of U."""
        return like(self._raw("raw", self._rows("raw", "U", U), shape), U)

    def _raw(self, method: str, rows: NDArray[Any], shape: tuple[int, ...] | None) -> Vector:
        if shape is not None and math.prod(shape) != self.input_dim:
            found = f"shape {shape} has {math.prod(shape)} entries, not {self.input_dim}"
            raise DataError(f"Preprocessing.{method}: {found}")
        out: Vector = rows * self.unit
        out += self.origin
        return out if shape is None else out.reshape(len(out), *shape)

    def apply(self, X: Any) -> Any:
        """z = u, with ZCA z = u @ whitening. Returns float64 (n, d), of the kind of X."""
        return like(self.whiten(self._standard(self._rows("apply", "X", X))), X)

    def whiten(self, U: Vector) -> Vector:
        """z = u @ whitening, with any other kind u itself; float64 (n, d)."""
        if self.whitening is None:
            return U
        Z = np.empty(U.shape)
        for block in row_blocks(*U.shape):
            Z[block] = U[block] @ self.whitening
        return Z

    def unwhiten(self, Z: Vector) -> Vector:
        """u = z @ whitening^-1, the inverse of ``whiten``, float64 (n, d)."""
        if self._whitening_factor is None:
            return Z
        return np.asarray(scipy.linalg.cho_solve(self._whitening_factor, Z.T, check_finite=False).T)

    def invert(self, Z: Any, shape: tuple[int, ...] | None = None) -> Any:
        """x from z, the inverse of ``apply``: float64 (n, d) or ``(n, *shape)``, of the kind of Z."""
        rows = np.asarray(self._rows("invert", "Z", Z), np.float64)
        return like(self._raw("invert", self.unwhiten(rows), shape), Z)

    def warn_of_units(self, where: str, X: Any) -> None:
        """Warn if samples X (n, d) are ten times as large or small as the training samples; ``where`` names the caller.

        The reference is the root mean square of the training samples, sqrt(origin^2 + unit^2). Without preprocessing
        nothing is known. For ZCA only bounds are known: its unit is the largest entry, its origin a lower bound.
        """
        if self.kind == "none":
            return
        most = np.hypot(self.origin, self.unit)
        least = most if self.kind == "standardize" else np.full(most.shape, np.sqrt(np.mean(np.square(self.origin))))
        warn_of_units(where, X, least, most, "the training samples'")

    @cached_property
    def _whitening_factor(self) -> Any:
        return None if self.whitening is None else scipy.linalg.cho_factor(self.whitening, lower=True)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that ``from_arrays`` needs, under their names in the file format."""
        named = {"X_origin": self.origin, "X_unit": self.unit}
        return named if self.whitening is None else {**named, "whitening": self.whitening}

    def spec(self) -> dict[str, Any]:
        """Everything else that ``from_arrays`` needs, as JSON-able values: kind, eps and constants."""
        return {"kind": self.kind, "eps": self.eps, "constants": dict(self.constants)}

    @staticmethod
    def from_arrays(spec: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Preprocessing:
        """Build the preprocessing from its ``spec`` and ``arrays``. Raises DataError if they are invalid."""
        kind: Any = spec.get("kind")
        missing = [
            name for name in ("X_origin", "X_unit", *(["whitening"] if kind == "zca" else [])) if name not in arrays
        ]
        if missing:
            raise DataError(f"Preprocessing: lacks {', '.join(missing)}")
        return Preprocessing(
            kind,
            arrays["X_origin"],
            arrays["X_unit"],
            arrays.get("whitening"),
            eps=spec.get("eps"),
            constants=spec.get("constants", {}),
        )

    def _rows(self, method: str, argument: str, values: Any) -> NDArray[Any]:
        array = to_host(f"Preprocessing.{method}", argument, values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"Preprocessing.{method}: {argument} must hold real numbers, got {array.dtype}")
        if array.ndim < 2 or math.prod(array.shape[1:]) != self.input_dim:
            expected = f"rows of {self.input_dim} entries"
            raise DataError(f"Preprocessing.{method}: {argument} must have {expected}, got shape {array.shape}")
        return array.reshape(len(array), self.input_dim)


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations, per channel of images or per feature of vectors.

    Moments of disjoint data can be added with ``+``.

    Merging: Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    shape : of one sample: (d,), (h, w) with one channel, (h, w, channels), or by ``layout`` (channels, h, w)
    count : numbers per channel
    mean, deviations : float64 (channels,); the deviations are sums of (x - mean)^2
    layout : "NHWC" or "NCHW"
    """

    shape: tuple[int, ...]
    count: int
    mean: Vector
    deviations: Vector
    layout: str = "NHWC"

    def __repr__(self) -> str:
        return f"Moments(shape={self.shape}, {self.count} numbers per channel)"

    @staticmethod
    def of(X: Any, *, layout: str | None = None) -> Moments:
        """Compute the moments of an array ``(n, *shape)``, block by block, on all allowed threads."""
        x = host_samples("Moments", X)
        shape = tuple(int(s) for s in x.shape[1:])
        layout = checked_layout("standardize", shape, layout)
        channels = count_channels(shape, layout)
        x = x.reshape(len(x), math.prod(shape))
        stored = getattr(x, "half", None)
        x = x if stored is None else stored  # float16 is converted where it is summed
        total = Moments(shape, 0, np.zeros(channels), np.zeros(channels), layout)
        with np.errstate(over="ignore", invalid="ignore"):
            for count, *sums in in_order(_column_moments, (x[block] for block in row_blocks(*x.shape))):
                mean, deviations = (_by_channel(values, channels, layout) for values in sums)
                total += Moments(shape, count * mean.shape[1], *_of_columns(count, mean, deviations), layout)
        return total

    def __add__(self, other: Moments) -> Moments:
        if (self.shape, self.layout) != (other.shape, other.layout):
            raise DataError(f"Moments: samples of shape {self.shape} and {other.shape} do not merge")
        count = self.count + other.count
        if count == 0:
            return self
        share = other.count / count
        difference = other.mean - self.mean
        return Moments(
            self.shape,
            count,
            self.mean + share * difference,
            self.deviations + other.deviations + self.count * share * difference * difference,
            self.layout,
        )

    @property
    def std(self) -> Vector:
        """Standard deviation per channel; 1 for constant channels. Raises DataError if it overflows."""
        std = np.sqrt(self.deviations / max(self.count, 1))
        if np.isnan(self.mean).any():
            raise DataError("standardize: the data hold NaN or infinity")
        if not (np.isfinite(std).all() and np.isfinite(self.mean).all()):
            raise DataError("standardize: the data spread too widely for float64, or hold infinity")
        return np.where(std == 0, 1.0, std)


def _column_moments(rows: NDArray[Any]) -> tuple[int, Vector, Vector]:
    """Rows, and mean and sum of squared deviations of every column, of a block (r, d).

    A part of the block at a time, which stays in a core's cache, and about a value near the mean: differences are zero
    in a constant column, so that its deviations are, too.
    """
    step = max(1, _CACHED // rows.shape[1])
    space = np.empty((min(step, len(rows)), rows.shape[1]))
    sums = np.zeros((2, rows.shape[1]))

    def differences(origin: Vector) -> Iterator[Vector]:
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            yield np.subtract(part, origin, out=space[: len(part)])

    with np.errstate(over="ignore", invalid="ignore"):
        first = rows[0].astype(np.float64)
        near = first + next(differences(first)).mean(axis=0)
        near = np.where(np.isfinite(near), near, first)  # finite numbers whose difference is not
        for part in differences(near):
            sums += part.sum(axis=0), np.einsum("ij,ij->j", part, part)
        offset = sums[0] / len(rows)
        square = sums[1] - len(rows) * offset * offset
        if not _resolved(square, len(rows), offset):
            square = np.zeros_like(square)
            for part in differences(near + offset):
                square += np.einsum("ij,ij->j", part, part)
    return len(rows), near + offset, np.maximum(square, 0.0)


def _resolved(square: Vector, count: int, mean: Vector) -> bool:
    """Whether sums of squares about another value lose no more than a digit when the mean is taken out."""
    return bool((square >= 0.5 * count * mean * mean).all())


def _by_channel(values: Vector, channels: int, layout: str) -> Vector:
    """Values of the entries of a sample, (channels, entries of each)."""
    return values.reshape(channels, -1) if layout == "NCHW" else values.reshape(-1, channels).T


def _of_columns(count: int, mean: Vector, deviations: Vector) -> tuple[Vector, Vector]:
    """Mean and deviations per channel from those of its entries (channels, entries), of ``count`` numbers each."""
    first = np.where(np.isfinite(mean[:, :1]), mean[:, :1], 0.0)  # the differences of a constant channel are zero
    merged = first + (mean - first).mean(axis=1, keepdims=True)
    return merged[:, 0], deviations.sum(axis=1) + count * np.square(mean - merged).sum(axis=1)


def standardize(data: Any, *, layout: str | None = None, name: str = "") -> Preprocessing:
    """Standardise inputs: u = (x - mean) / std, per channel of images or per feature of vectors.

    Parameters
    ----------
    data : Dataset, array ``(n, *shape)`` or Moments
        Raw inputs; of a data set its training part. Mean and standard deviation are computed from them. The uint8 data
        sets "mnist", "cifar10" and "cifar100" get the published constants instead. Samples of shape (h, w) have one
        channel, those of shape (h, w, c) have c. Constant channels and features get std 1.
    layout : "NHWC" or "NCHW", optional
        Axis of the channels of images, last or first. Needed if the shape looks like channels first. A ``Dataset`` has
        its own.
    name : str, optional
        Name of the data set, if ``data`` is an array from it. A ``Dataset`` has its own.

    Returns
    -------
    Preprocessing

    Raises
    ------
    DataError
        If the standard deviation overflows float64.

    Examples
    --------
    >>> import numpy as np
    >>> import krrdistill as kd
    >>> scaling = kd.standardize(np.array([[0.0, 10.0], [4.0, 30.0]]))
    >>> scaling.apply(np.array([[2.0, 30.0]]))
    array([[0., 1.]])
    """
    constants: dict[str, Any] = {"source": "x_train", "unit": 1.0}
    if isinstance(data, (Dataset, Moments)):
        layout = data.layout
    if isinstance(data, Dataset):
        data, name = data.x_train, data.name
    data = data if isinstance(data, Moments) else host_samples("standardize", data)
    published = None if isinstance(data, Moments) or data.dtype != np.uint8 else _PUBLISHED.get(name)
    shape = data.shape if isinstance(data, Moments) else tuple(np.shape(data)[1:])
    layout = checked_layout("standardize", shape, layout)
    if published is not None and len(published[0]) == count_channels(shape, layout):
        constants = {"source": "published", "unit": 255.0}
        mean, std = np.array(published[0]), np.array(published[1])
    else:
        moments = data if isinstance(data, Moments) else Moments.of(data, layout=layout)
        with nullcontext() if isinstance(data, Moments) else _named_rows("standardize", data):
            mean, std = moments.mean, moments.std
    channels = len(mean)
    if channels <= _MAX_LISTED:
        constants |= {"mean": mean.tolist(), "std": std.tolist()}
    repeats = math.prod(shape) // channels
    spread_out = np.repeat if layout == "NCHW" else np.tile
    origin, unit = (spread_out(constants["unit"] * values, repeats) for values in (mean, std))
    return Preprocessing("standardize", origin, unit, constants=constants)


def zca(data: Any, *, eps: float = 0.1, name: str = "") -> Preprocessing:
    """Whiten inputs (ZCA): z = (x / white - mean) @ W, W = U diag(1/sqrt(s + eps)) U^T, cov = U diag(s) U^T.

    Parameters
    ----------
    data : Dataset or array ``(n, *shape)``
    eps : float
        Positive number that is added to the eigenvalues of the covariance of x / white. white is 255 for uint8 (16 for
        "digits"), otherwise the largest absolute value in the data.
    name : str, optional
        Name of the data set, if ``data`` is an array from it. A ``Dataset`` has its own.

    Returns
    -------
    Preprocessing

    Raises
    ------
    TypeError, ValueError
        For eps.

    Notes
    -----
    Takes O(n d^2 + d^3) time and a few d x d matrices; the data are never copied whole.
    """
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise TypeError(f"zca: eps must be a number, got {type(eps).__name__}")
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"zca: eps must be finite and > 0, got {eps}")
    x, name = (data.x_train, data.name) if isinstance(data, Dataset) else (host_samples("zca", data), name)
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    unit = _pixel_unit(x, name)
    mean, covariance = _covariance(rows, 1 / unit)
    with _named_rows("zca", x):
        if not np.isfinite(covariance).all():
            raise DataError("zca: the data spread too widely for float64")
    s, U = scipy.linalg.eigh(covariance, lower=False, overwrite_a=True, driver="evd")
    spread = np.sqrt(np.maximum(s, 0.0) + eps)  # rounding can leave s a little below zero
    constants = {"source": "x_train", "unit": unit}
    units = np.full(rows.shape[1], unit)
    return Preprocessing("zca", mean * unit, units, _symmetric(U, 1 / spread), eps=float(eps), constants=constants)


def _named_rows(where: str, x: Any) -> AbstractContextManager[None]:
    """``rows_of`` for samples (n, *shape)."""
    return rows_of(where, x.reshape(len(x), math.prod(x.shape[1:])), np.float64)


def _own(array: Vector) -> Vector:
    """A copy that nobody writes to: maps have factors made of it, and copies of it stay on GPUs."""
    copied = np.array(array)
    copied.flags.writeable = False
    return copied


def _checked_array(name: str, value: Any, shape: tuple[int, ...]) -> Vector:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.shape != shape or not value.size:
        got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DataError(f"Preprocessing: {name} must be float64 of shape {shape}, got {got}")
    checked: Vector = np.ascontiguousarray(value, dtype=np.float64)
    if not np.isfinite(checked).all():
        raise DataError(f"Preprocessing: {name} holds NaN or infinity")
    if len(shape) == 2 and not np.array_equal(checked, checked.T):
        raise DataError(f"Preprocessing: {name} is not symmetric")
    return checked


def _pixel_unit(x: NDArray[Any], name: str) -> float:
    if x.dtype == np.uint8:
        return _DIGITS_WHITE if name == "digits" else 255.0
    return max(float(np.abs(part).max()) for _, part in blocks(x)) or 1.0


def _covariance(rows: NDArray[Any], factor: float) -> tuple[Vector, Vector]:
    """Mean (d,) and the upper triangle of the covariance (d, d) of factor * rows, block by block."""
    n, d = rows.shape
    mean = factor * sum(rows[b].sum(axis=0, dtype=np.float64) for b in row_blocks(n, d)) / n
    covariance = np.zeros((d, d), order="F")
    for block in row_blocks(n, d):
        centred = rows[block].astype(np.float64)
        centred *= factor
        centred -= mean
        covariance = scipy.linalg.blas.dsyrk(1 / n, centred.T, beta=1.0, c=covariance, overwrite_c=True)
    return mean, covariance


def _symmetric(U: Vector, values: Vector) -> Vector:
    """U diag(values) U^T, symmetric to the last bit."""
    product = (U * values) @ U.T
    return np.asarray((product + product.T) / 2)
