"""Affine preprocessing with an exact inverse: standardisation and ZCA whitening."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from krrdistill.common.arrays import like, to_host
from krrdistill.errors import DataError

from .dataset import Dataset, row_blocks

Vector = NDArray[np.float64]
_FIELDS = {
    "none": ("scale", "shift"),
    "standardize": ("scale", "shift"),
    "zca": ("scale", "shift", "mean", "matrix", "unmixing"),
}
# Mean and standard deviation per channel of x / 255, as used by the paper (Chen, Huang, Weng, NeurIPS 2024).
_PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
_DIGITS_WHITE = 16.0  # the bundled digits have grey levels 0 ... 16 in their uint8
_MAX_LISTED = 16  # constants of at most so many channels are listed in spec()


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """z = x * scale + shift, and with ZCA then (z - mean) @ matrix; both can be undone exactly.

    kind : "none", "standardize" or "zca"
    scale, shift : float64 (d,), scale without zeros
    mean : float64 (d,), None unless kind is "zca"
    matrix, unmixing : symmetric float64 (d, d), inverse to each other, None unless kind is "zca"
    eps : the ridge of ZCA
    constants : where scale and shift come from, for reports

    Raises DataError for an unknown kind, and for arrays that are missing, of the wrong shape or not finite.
    """

    kind: str
    scale: Vector
    shift: Vector
    mean: Vector | None = None
    matrix: Vector | None = None
    unmixing: Vector | None = None
    eps: float | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fields, d = _fields_of(self.kind), np.size(self.scale)
        if self.eps is not None and not isinstance(self.eps, Real):
            raise DataError(f"Preprocessing: eps must be a number, got {type(self.eps).__name__}")
        if not isinstance(self.constants, Mapping):
            raise DataError(f"Preprocessing: constants must be a mapping, got {type(self.constants).__name__}")
        for name in ("scale", "shift", "mean", "matrix", "unmixing"):
            value = getattr(self, name)
            if name in fields:
                shape = (d, d) if name in ("matrix", "unmixing") else (d,)
                object.__setattr__(self, name, _checked_array(name, value, shape))
            elif value is not None:
                raise DataError(f"Preprocessing: {name} has no place in kind {self.kind!r}")
        if not self.scale.all():
            raise DataError("Preprocessing: scale holds zeros, which cannot be undone")

    @staticmethod
    def none(input_dim: int) -> Preprocessing:
        """The identity on d entries."""
        return Preprocessing("none", np.ones(input_dim), np.zeros(input_dim))

    @property
    def input_dim(self) -> int:
        """d, the number of entries of one sample."""
        return len(self.scale)

    def apply(self, X: Any) -> Any:
        """z = x * scale + shift, then (z - mean) @ matrix with ZCA.

        X : array of shape (n, *shape) or (n, d), any real dtype. Returns float64 (n, d), of the kind of X.
        """
        rows = self._rows("apply", "X", X)
        out = np.empty(rows.shape)
        for block in row_blocks(*rows.shape):
            np.multiply(rows[block], self.scale, out=out[block])
            out[block] += self.shift
            if self.mean is not None and self.matrix is not None:
                out[block] = (out[block] - self.mean) @ self.matrix
        return like(out, X)

    def invert(self, Z: Any, shape: tuple[int, ...]) -> Any:
        """x = (z - shift) / scale, with ZCA after z @ unmixing + mean: the inverse of ``apply``.

        Z : array of shape (n, d); shape : of one sample, d entries. Returns float64 (n, *shape) in raw units, of the
        kind of Z.
        """
        rows = self._rows("invert", "Z", Z)
        if math.prod(shape) != self.input_dim:
            raise DataError(f"Preprocessing.invert: shape {shape} has {math.prod(shape)} entries, not {self.input_dim}")
        out = np.empty(rows.shape)
        for block in row_blocks(*rows.shape):
            z = rows[block]
            if self.mean is not None and self.unmixing is not None:
                z = z @ self.unmixing + self.mean
            np.subtract(z, self.shift, out=out[block])
            out[block] /= self.scale
        return like(out.reshape(len(out), *shape), Z)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that ``from_arrays`` needs, their names prefixed "preprocess_"."""
        return {f"preprocess_{name}": getattr(self, name) for name in _FIELDS[self.kind]}

    def spec(self) -> dict[str, Any]:
        """The rest, ready for JSON: kind, eps and constants."""
        return {"kind": self.kind, "eps": self.eps, "constants": dict(self.constants)}

    @staticmethod
    def from_arrays(spec: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Preprocessing:
        """Rebuilds what ``spec`` and ``arrays`` describe; raises DataError when they are invalid."""
        kind: Any = spec.get("kind")
        names = {name: f"preprocess_{name}" for name in _fields_of(kind)}
        missing = [stored for stored in names.values() if stored not in arrays]
        if missing:
            raise DataError(f"Preprocessing: lacks {', '.join(missing)}")
        fields: dict[str, Any] = {name: arrays[stored] for name, stored in names.items()}
        return Preprocessing(kind, eps=spec.get("eps"), constants=spec.get("constants", {}), **fields)

    def _rows(self, method: str, argument: str, values: Any) -> NDArray[Any]:
        array = to_host(f"Preprocessing.{method}", argument, values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"Preprocessing.{method}: {argument} must hold real numbers, got {array.dtype}")
        if array.ndim < 2 or math.prod(array.shape[1:]) != self.input_dim:
            expected = f"rows of {self.input_dim} entries"
            raise DataError(f"Preprocessing.{method}: {argument} must have {expected}, got shape {array.shape}")
        return array.reshape(len(array), self.input_dim)


def standardize(dataset: Dataset) -> Preprocessing:
    """z = (x / unit - mean) / std per channel of images, per feature of vectors.

    uint8 "mnist", "cifar10" and "cifar100" take the published constants (unit 255); every other set takes the
    mean and standard deviation of its x_train (unit 1). Samples of shape (h, w) have one channel.
    A channel or feature that never changes gets std 1. Raises DataError when the spread overflows float64.
    """
    channels = {1: dataset.input_dim, 2: 1}.get(len(dataset.shape), dataset.shape[-1])
    constants: dict[str, Any] = {"source": "x_train", "unit": 1.0}
    published = _PUBLISHED.get(dataset.name)
    if published is not None and dataset.x_train.dtype == np.uint8 and len(published[0]) == channels:
        constants = {"source": "published", "unit": 255.0}
        mean, std = np.array(published[0]), np.array(published[1])
    else:
        mean, std = _moments(dataset.x_train, channels)
    if channels <= _MAX_LISTED:
        constants |= {"mean": mean.tolist(), "std": std.tolist()}
    repeats = dataset.input_dim // channels
    scale, shift = np.tile(1 / (constants["unit"] * std), repeats), np.tile(-mean / std, repeats)
    return Preprocessing("standardize", scale, shift, constants=constants)


def zca(dataset: Dataset, *, eps: float = 0.1) -> Preprocessing:
    """z = (x / unit - mean) @ matrix, matrix = U diag(1/sqrt(s + eps)) U^T, with cov = U diag(s) U^T.

    unit : 255 for uint8 (16 for "digits", their white), else the largest magnitude in x_train
    mean, cov : of x_train / unit, over the n samples (cov divided by n), in float64
    eps : > 0, added to the eigenvalues of the covariance

    Takes O(n d^2 + d^3) time and a few d x d matrices; x_train is never copied whole.
    Raises TypeError or ValueError for eps.
    """
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise TypeError(f"zca: eps must be a number, got {type(eps).__name__}")
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"zca: eps must be finite and > 0, got {eps}")
    rows = dataset.x_train.reshape(len(dataset.x_train), -1)
    unit = _pixel_unit(dataset)
    mean, covariance = _covariance(rows, 1 / unit)
    s, U = scipy.linalg.eigh(covariance, lower=False, overwrite_a=True, driver="evd")
    spread = np.sqrt(np.maximum(s, 0.0) + eps)  # rounding can leave s a little below zero
    d = dataset.input_dim
    return Preprocessing(
        "zca",
        np.full(d, 1 / unit),
        np.zeros(d),
        mean=mean,
        matrix=_symmetric(U, 1 / spread),
        unmixing=_symmetric(U, spread),
        eps=float(eps),
        constants={"source": "x_train", "unit": unit},
    )


def _fields_of(kind: Any) -> tuple[str, ...]:
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise DataError(f"Preprocessing: unknown kind {kind!r}; expected one of {', '.join(_FIELDS)}")
    return _FIELDS[kind]


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


def _moments(x: NDArray[Any], channels: int) -> tuple[Vector, Vector]:
    """Mean and standard deviation per channel in two passes over blocks; std 1 where a channel is constant.

    Sums are of differences from the first value, which are exactly zero in a constant channel.
    """
    values = x.reshape(len(x), -1, channels)
    count = values.shape[0] * values.shape[1]
    blocks = list(row_blocks(len(x), math.prod(x.shape[1:])))
    with np.errstate(over="ignore", invalid="ignore"):
        first = values[0, 0].astype(np.float64)
        mean = first + sum((values[b] - first).sum(axis=(0, 1)) for b in blocks) / count
        std = np.sqrt(sum(np.square(values[b] - mean).sum(axis=(0, 1)) for b in blocks) / count)
    std = np.where(std == 0, 1.0, std)
    if not np.isfinite(std).all():
        raise DataError("standardize: x_train spreads too widely for float64")
    return mean, std


def _pixel_unit(dataset: Dataset) -> float:
    if dataset.x_train.dtype == np.uint8:
        return _DIGITS_WHITE if dataset.name == "digits" else 255.0
    return max(abs(float(dataset.x_train.min())), abs(float(dataset.x_train.max()))) or 1.0


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
