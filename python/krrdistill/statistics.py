"""Sufficient statistics of ridge regression: all that it needs of the data, and they add."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.arrays import as_labels, as_rows, as_samples, check_choice, check_count, check_device, to_host
from krrdistill.backends import Backend, Chain, get_backend
from krrdistill.errors import DataError
from krrdistill.feature_gram import largest_eigenvalue
from krrdistill.files import read_npz, write_npz

__all__ = ["CENTERS", "PRECISIONS", "CenteredStatistics", "RidgeStatistics", "check_weights"]

FloatArray = npt.NDArray[np.float64]
PRECISIONS = ("float32", "float64")
CENTERS = ("none", "targets", "both")
_FORMAT = "krrdistill-statistics-2"
_BATCH_ROWS = 16384  # rows between two reports of progress; a multiple of the core's flush interval
_SUMS = ("target_square", "target_sum", "feature_sum", "total_weight")
_WEIGHTED_ROWS = 2048  # rows whose features are held at once while they are multiplied by their weights
# Rounding of G relative to its largest eigenvalue, measured on MNIST and CIFAR-100 (docs/numerics.md).
_FLOAT32_ROUNDING = 10 * 2.0**-24


class CenteredStatistics(NamedTuple):
    """G and C of samples about their means, and those means: what one ridge regression is computed from."""

    gram: FloatArray  # (p, p)
    cross: FloatArray  # (k, p)
    target_square: float
    feature_mean: FloatArray  # (p,), 0 where features are not centred
    target_mean: FloatArray  # (k,), 0 where targets are not centred
    rounding: float  # of gram, relative to its largest eigenvalue


class RidgeStatistics:
    """G = sum w phi phi^T (p, p), C = sum w y phi^T (k, p), sum w ||y||^2, and the sums of w, w phi and w y.

    Over samples, w = 1 unless ``update`` gets weights; in float64 and one tile at a time.

    Streaming, out-of-core and distributed runs are the same object: ``update`` as often as there is data, ``merge``
    the parts.

    Parameters
    ----------
    chain : Chain or LayeredMap
        The feature map, or preprocessing and map (``LayeredMap.chain(preprocessing)``).
    n_targets : int
        k, the number of classes or of real-valued targets.
    precision : "float32" or "float64"
        Of features and products inside of a tile; sums over tiles are float64 either way.
    """

    def __init__(
        self, chain: Any, n_targets: int, *, precision: str = "float32", backend: Backend | str | None = None
    ) -> None:
        self.chain: Chain = chain if isinstance(chain, Chain) else chain.chain()
        self.precision = check_choice("RidgeStatistics", "precision", precision, PRECISIONS)
        self.backend = get_backend(backend)
        self._chosen = backend
        k = check_count("RidgeStatistics", "n_targets", n_targets)
        p = self.chain.output_dim
        self.n = 0
        self.total_weight = 0.0
        self.target_square = 0.0
        self.target_sum: FloatArray = np.zeros(k)
        self.feature_sum: FloatArray = np.zeros(p)
        self.cross: FloatArray = np.zeros((k, p))
        self._gram: FloatArray = np.zeros((p, p))
        self._symmetric = True

    @property
    def gram(self) -> FloatArray:
        """G, symmetric, shape (p, p)."""
        if not self._symmetric:
            self.backend.symmetrize(self._gram)
            self._symmetric = True
        return self._gram

    def update(
        self,
        X: Any,
        Y: Any,
        *,
        rows: npt.NDArray[np.int64] | None = None,
        weights: Any = None,
        progress: Callable[[float], None] | None = None,
    ) -> RidgeStatistics:
        """Adds samples. X (n, d) or (n, *shape), uint8 or float; Y labels (n,) or targets (n, k), of any framework.

        X is not copied; on a device it stays there, and the sums come back. ``rows`` picks samples without copying.
        ``weights`` (n,) >= 0 take a detour over the features, a matrix of 2048 rows at a time. Raises DataError (NaN,
        wrong shape, label or row out of range, features that overflow), after which the statistics hold an unknown part
        of the batch and must not be used.
        """
        samples = as_samples("statistics.update", X, input_dim=self.chain.input_dim)
        check_device("statistics.update", X=X, Y=Y)
        self.backend = get_backend(self._chosen, data=samples)
        n = samples.shape[0]
        targets = self._check_targets(Y, n)
        picked = None if rows is None else as_rows("statistics.update", rows, n)
        count = n if picked is None else len(picked)
        shares = None if weights is None else check_weights("statistics.update", weights, n)
        step = _BATCH_ROWS if shares is None else _WEIGHTED_ROWS
        extended = None
        if shares is not None or targets.ndim == 2:
            values = np.eye(len(self.cross))[targets] if targets.ndim == 1 else targets
            extended = np.column_stack([values, np.ones(n)])
        for start in range(0, count, step):
            stop = min(start + step, count)
            part = np.arange(start, stop) if picked is None else picked[start:stop]
            self._symmetric = False
            if extended is None:
                self._add_labelled(samples, targets, part)
            else:
                self._add(samples, extended, part, shares)
            if progress is not None:
                progress(stop / count)
        self.n += count
        if not (np.isfinite(self._gram.trace()) and np.isfinite(self.cross).all()):
            raise DataError(f"statistics.update: the features overflow {self.precision}; scale the inputs")
        return self

    def _add_labelled(self, samples: npt.NDArray[Any], labels: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        """Classes: C has a sum per class, and their sum is that of all features."""
        before = self.cross.sum(axis=0)
        dtype = np.dtype(self.precision)
        self.backend.accumulate(self.chain, samples, labels, self._gram, self.cross, dtype=dtype, rows=rows)
        self.feature_sum += self.cross.sum(axis=0) - before
        self.target_sum += np.bincount(labels[rows], minlength=len(self.cross))
        self.target_square += len(rows)
        self.total_weight += len(rows)

    def _add(
        self,
        samples: npt.NDArray[Any],
        targets: FloatArray,
        rows: npt.NDArray[np.int64],
        shares: FloatArray | None,
    ) -> None:
        """Targets (n, k + 1) whose last column is 1: its products with the features are their sum.

        With weights both are multiplied by their roots.
        """
        k, p, dtype = len(self.cross), self.chain.output_dim, np.dtype(self.precision)
        products = np.zeros((k + 1, p))
        used = targets[rows]
        if shares is None:
            w = np.ones(len(rows))
            self.backend.accumulate(self.chain, samples, targets, self._gram, products, dtype=dtype, rows=rows)
        else:
            w = shares[rows]
            root = np.sqrt(w)[:, None]
            features = to_host(
                "statistics.update", "X", self.backend.transform(self.chain, samples, dtype=dtype, rows=rows)
            )
            features = features * root.astype(dtype)
            backend = get_backend(self._chosen, data=features)
            backend.accumulate(Chain(p, ()), features, used * root, self._gram, products, dtype=dtype)
        sums = w @ used
        self.cross += products[:k]
        self.feature_sum += products[k]
        self.target_sum += sums[:k]
        self.total_weight += float(sums[k])
        self.target_square += float(w @ np.square(used[:, :k]).sum(axis=1))

    def _check_targets(self, Y: Any, n: int) -> npt.NDArray[Any]:
        k = len(self.cross)
        targets = to_host("statistics.update", "Y", Y)
        if targets.ndim == 1:
            return as_labels("statistics.update", targets, n, n_classes=k)
        if targets.shape != (n, k):
            raise DataError(f"statistics.update: Y must have shape ({n},) or ({n}, {k}), got {targets.shape}")
        targets = np.ascontiguousarray(targets, dtype=np.float64)
        if not np.isfinite(targets).all():
            raise DataError("statistics.update: Y holds NaN or infinity")
        return targets

    def merge(self, other: RidgeStatistics) -> RidgeStatistics:
        """Adds the statistics of other data under the same map."""
        if not isinstance(other, RidgeStatistics):
            raise TypeError(f"statistics.merge: other must be RidgeStatistics, got {type(other).__name__}")
        if self.cross.shape != other.cross.shape:
            raise DataError(f"statistics.merge: shapes {self.cross.shape} and {other.cross.shape} differ")
        if self.chain is not other.chain and self.chain.fingerprint() != other.chain.fingerprint():
            raise DataError("statistics.merge: the statistics are of different feature maps or preprocessing")
        self._gram = self.gram + other.gram
        self.cross = self.cross + other.cross
        self.n += other.n
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.precision == "float32":
            self.precision = "float32"
        return self

    def means(self, center: str = "none") -> tuple[FloatArray, FloatArray]:
        """(feature mean (p,), target mean (k,)), weighted, of what ``center`` takes about its mean; 0 of the rest."""
        check_choice("statistics", "center", center, CENTERS)
        k, p = self.cross.shape
        if center == "none":
            return np.zeros(p), np.zeros(k)
        if not self.total_weight > 0.0:
            raise DataError("statistics: there are no samples to centre")
        feature_mean = self.feature_sum / self.total_weight if center == "both" else np.zeros(p)
        return feature_mean, self.target_sum / self.total_weight

    def centered(self, center: str = "none") -> CenteredStatistics:
        """The statistics of samples about their weighted means: of neither, of the targets, or of both.

        "both" is ridge with an unpenalised intercept: G - s s^T / w and C - y_mean s^T with s = sum w phi.
        "targets" leaves G alone. The rounding of G stays, so relative to what is left of it, it grows.
        """
        feature_mean, target_mean = self.means(center)
        rounding = self.noise_floor(1.0)
        if center == "none":
            return CenteredStatistics(self.gram, self.cross, self.target_square, feature_mean, target_mean, rounding)
        cross = self.cross - np.outer(target_mean, self.feature_sum)
        square = max(self.target_square - self.total_weight * float(target_mean @ target_mean), 0.0)
        if center == "targets":
            return CenteredStatistics(self.gram, cross, square, feature_mean, target_mean, rounding)
        gram = self.gram - np.outer(self.feature_sum, feature_mean)
        before, after = (largest_eigenvalue(len(A), A.__matmul__) for A in (self.gram, gram))
        rounding *= before / after if after > rounding * before else 1.0
        return CenteredStatistics(gram, cross, square, feature_mean, target_mean, rounding)

    def noise_floor(self, largest_eigenvalue: float) -> float:
        """The size of the rounding errors in G: a lambda below it changes G by less than they do.

        u ||G||_2 with u = 10 * 2^-24 for float32 products, p * 2^-52 for float64.
        """
        u = len(self._gram) * float(np.finfo(np.float64).eps)
        if self.precision == "float32":
            u = max(u, _FLOAT32_ROUNDING)
        return u * max(largest_eigenvalue, 0.0)

    def save(self, path: str | Path) -> None:
        """Writes G, C, n and the sums to a .npz, atomically."""
        meta = {"format": _FORMAT, "n": self.n, "precision": self.precision, "features": self.chain.fingerprint()}
        arrays = {
            "gram": self.gram,
            "cross": self.cross,
            **{name: getattr(self, name) for name in _SUMS},
            "meta": np.array(json.dumps(meta)),
        }
        write_npz(Path(path), {name: np.asarray(array) for name, array in arrays.items()})

    def load(self, path: str | Path) -> RidgeStatistics:
        """Adds statistics that ``save`` wrote for the same map. Raises DataError for a file that does not fit."""
        arrays = read_npz(Path(path))
        try:
            meta = json.loads(str(arrays["meta"]))
            if meta["format"] != _FORMAT:
                raise ValueError(f"format {meta['format']!r}, this version reads {_FORMAT!r}")
            if meta["features"] != self.chain.fingerprint():
                raise ValueError("it is of another feature map or preprocessing")
            other = RidgeStatistics(self.chain, len(self.cross), precision=meta["precision"], backend=self.backend)
            other.n = check_count("load", "n", meta["n"], minimum=0)
            numbers = {name: arrays[name] for name in ("gram", "cross", *_SUMS)}
            fits = all(array.shape == np.shape(getattr(self, name)) for name, array in numbers.items())
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of ridge statistics ({error})") from error
        if not fits or not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in numbers.values()):
            raise DataError(f"{path}: the statistics do not fit p = {len(self._gram)}, k = {len(self.cross)}")
        other._gram = np.ascontiguousarray(arrays["gram"], dtype=np.float64)
        other.cross = np.ascontiguousarray(arrays["cross"], dtype=np.float64)
        for name in _SUMS:
            value = arrays[name].astype(np.float64)
            setattr(other, name, float(value) if value.ndim == 0 else value)
        return self.merge(other)


def check_weights(where: str, weights: Any, n: int) -> FloatArray:
    """Sample weights as float64 (n,), finite, not negative, not all zero."""
    array = np.asarray(weights)
    if array.dtype.kind not in "uifb":
        raise TypeError(f"{where}: weights must be numbers, got dtype {array.dtype}")
    if array.shape != (n,):
        raise DataError(f"{where}: weights must have shape ({n},), got {array.shape}")
    checked = np.ascontiguousarray(array, dtype=np.float64)
    if not (np.isfinite(checked).all() and (checked >= 0.0).all()):
        raise DataError(f"{where}: weights must be finite and not negative")
    if n and not checked.any():
        raise DataError(f"{where}: weights are all zero")
    return checked
