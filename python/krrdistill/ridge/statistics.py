"""Sufficient statistics of ridge regression: all that it needs of the data, and they add."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, Chain, get_backend
from krrdistill.common.arrays import as_labels, as_rows, as_samples, check_choice, check_count, check_device, to_host
from krrdistill.common.files import read_npz, write_npz
from krrdistill.common.products import gram as product_with_itself
from krrdistill.common.products import product
from krrdistill.errors import DataError
from krrdistill.options import PRECISIONS
from krrdistill.ridge.feature_gram import largest_eigenvalue

__all__ = ["CENTERS", "PRECISIONS", "RidgeStatistics", "RidgeSystem", "check_weights"]

FloatArray = npt.NDArray[np.float64]
CENTERS = ("none", "targets", "both")
_FORMAT = "krrdistill-statistics-2"
_BATCH_ROWS = 16384  # rows between two reports of progress; a multiple of the core's flush interval
_BATCH_BYTES = 65536  # the same for affine functions of bytes: the core's exact sums are of as many rows
_SUMS = ("target_square", "target_sum", "feature_sum", "total_weight")
_WEIGHTED_ROWS = 2048  # rows whose features are held at once while they are multiplied by their weights
# Rounding of G relative to its largest eigenvalue, measured on MNIST and CIFAR-100 (docs/numerics.md).
_FLOAT32_ROUNDING = 10 * 2.0**-24


class RidgeSystem(NamedTuple):
    """What one ridge regression is computed from: W = rhs (gram + lambda I)^-1, times ``rows`` where there are any.

    With samples A (n, p) and targets B (n, k), about their means and times the roots of their weights, it is
    B^T A (A^T A + lambda I)^-1, or of fewer samples than features B^T (A A^T + lambda I)^-1 A.
    """

    gram: FloatArray  # A^T A (p, p), or A A^T (n, n)
    rhs: FloatArray  # C (k, p), or B^T (k, n)
    rows: FloatArray | None  # A (n, p) of the second form
    cross: FloatArray  # C = B^T A (k, p)
    target_square: float  # ||B||_F^2
    feature_mean: FloatArray  # (p,), 0 where features are not centred
    target_mean: FloatArray  # (k,), 0 where targets are not centred
    rounding: float  # of G, relative to its largest eigenvalue

    def weights(self, solution: FloatArray) -> FloatArray:
        """W (..., p) of what systems with ``gram`` gave for ``rhs``."""
        if self.rows is None:
            return solution
        flat = product(solution.reshape(-1, len(self.rows)), self.rows)
        return flat.reshape(*solution.shape[:-1], -1)


class _Held(NamedTuple):
    """Samples times the roots of their weights."""

    features: npt.NDArray[Any]  # (r, p), in the precision of the products
    targets: FloatArray  # (r, k + 1), the last column of ones


class RidgeStatistics:
    """G = sum w phi phi^T (p, p), C = sum w y phi^T (k, p), sum w ||y||^2, and the sums of w, w phi and w y.

    Over samples, w = 1 unless ``update`` gets weights; in float64 and one tile at a time.

    Streaming, out-of-core and distributed runs are the same object: ``update`` as often as there is data, ``merge``
    the parts. Fewer samples than features are held as rows of features, and G is formed only when it is asked for:
    ridge regression then solves systems of order n instead of p.

    Parameters
    ----------
    chain : Chain or LayeredMap
        The feature map, or preprocessing and map (``LayeredMap.chain(preprocessing)``).
    n_targets : int
        k, the number of classes or of real-valued targets.
    precision : "float32" or "float64"
        Of features and products inside of a tile; sums over tiles are float64 either way. Bytes under a map without
        layers need neither: where the backend can, it sums them as integers, which is exact.

    Attributes
    ----------
    product_precision : "float32" or "float64"
        The coarsest that products were formed in so far, float64 for integers; ``noise_floor`` follows from it.
    """

    def __init__(
        self, chain: Any, n_targets: int, *, precision: str = "float32", backend: Backend | str | None = None
    ) -> None:
        self.chain: Chain = chain if isinstance(chain, Chain) else chain.chain()
        self.precision = check_choice("RidgeStatistics", "precision", precision, PRECISIONS)
        self.product_precision = "float64"
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
        self._held: list[_Held] | None = []  # all samples, while there are fewer than features; None from then on
        self._formed = 0  # how many of the held parts G is of

    @property
    def gram(self) -> FloatArray:
        """G, symmetric, shape (p, p)."""
        if self._held is not None and self._formed != len(self._held):
            parts = len(self._held)
            gram = self._gram_of_held()  # a new matrix, so that several threads may ask
            self._gram, self._formed = gram, parts
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
        if self.n + count >= len(self._gram):
            self._release()
        detour = self._held is not None or shares is not None
        dtype = np.dtype(self.precision)
        if shares is None:
            dtype = self.backend.product_dtype(self.chain, samples, dtype)
        if count > 0:
            self._coarsen(dtype.name)
        batch = _BATCH_BYTES if self.chain.is_affine_of_bytes(samples) else _BATCH_ROWS
        step = _WEIGHTED_ROWS if detour else batch
        extended = None
        if detour or targets.ndim == 2:
            values = np.eye(len(self.cross))[targets] if targets.ndim == 1 else targets
            extended = np.column_stack([values, np.ones(n)])
        for start in range(0, count, step):
            stop = min(start + step, count)
            part = np.arange(start, stop) if picked is None else picked[start:stop]
            if extended is None:
                self._add_labelled(samples, targets, part, dtype)
            else:
                self._add(samples, extended, part, shares, dtype)
            if progress is not None:
                progress(stop / count)
        self.n += count
        self._check_finite(float(self._gram.trace()))
        return self

    def _coarsen(self, product_precision: str) -> None:
        if product_precision == "float32":
            self.product_precision = "float32"

    def _check_finite(self, trace: float) -> None:
        if not (np.isfinite(trace) and np.isfinite(self.cross).all()):
            raise DataError(f"statistics.update: the features overflow {self.precision}; scale the inputs")

    def _add_labelled(
        self, samples: npt.NDArray[Any], labels: npt.NDArray[Any], rows: npt.NDArray[np.int64], dtype: np.dtype[Any]
    ) -> None:
        """Classes: C has a sum per class, and their sum is that of all features."""
        before = self.cross.sum(axis=0)
        self._symmetric = False
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
        dtype: np.dtype[Any],
    ) -> None:
        """Targets (n, k + 1) whose last column is 1: its products with the features are their sum.

        With weights both are multiplied by their roots.
        """
        k = len(self.cross)
        used = targets[rows]
        w = np.ones(len(rows)) if shares is None else shares[rows]
        if self._held is None and shares is None:
            products = np.zeros((k + 1, self.chain.output_dim))
            self._symmetric = False
            self.backend.accumulate(self.chain, samples, targets, self._gram, products, dtype=dtype, rows=rows)
        else:
            root = np.sqrt(w)[:, None]
            features = self.backend.transform(self.chain, samples, dtype=dtype, rows=rows)
            features = to_host("statistics.update", "X", features) * root.astype(dtype)
            part = _Held(features, used * root)
            if self._held is None:
                self._symmetric = False
                products = self._sum(part, self._gram)
            else:
                counted = w > 0.0
                if counted.any():
                    self._held.append(part if counted.all() else _Held(features[counted], part.targets[counted]))
                values = features.astype(np.float64)
                products = product(part.targets.T, values)
                self._check_finite(float(np.vdot(values, values)))
        sums = w @ used
        self.cross += products[:k]
        self.feature_sum += products[k]
        self.target_sum += sums[:k]
        self.total_weight += float(sums[k])
        self.target_square += float(w @ np.square(used[:, :k]).sum(axis=1))

    def _sum(self, part: _Held, gram: FloatArray) -> FloatArray:
        """Adds the features to the lower triangle of gram; returns their products (k + 1, p) with the targets."""
        products = np.zeros((part.targets.shape[1], len(gram)))
        backend = get_backend(self._chosen, data=part.features)
        dtype = np.dtype(part.features.dtype)
        backend.accumulate(Chain(len(gram), ()), part.features, part.targets, gram, products, dtype=dtype)
        return products

    def _gram_of_held(self) -> FloatArray:
        gram = np.zeros_like(self._gram)
        for part in self._held or []:
            self._sum(part, gram)
        self.backend.symmetrize(gram)
        self._check_finite(float(gram.trace()))
        return gram

    def _release(self) -> None:
        """From now on G is summed."""
        if self._held is not None:
            self._gram, self._held = self.gram, None

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
        if self._held is not None and other._held is not None and self.n + other.n < len(self._gram):
            self._held = self._held + other._held
        else:
            self._release()
            self._gram = self.gram + other.gram
        self.cross = self.cross + other.cross
        self.n += other.n
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._coarsen(other.product_precision)
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

    def system(self, center: str = "none") -> RidgeSystem:
        """The ridge regression of samples about their weighted means: of neither, of the targets, or of both.

        "both" is ridge with an unpenalised intercept: G - s s^T / w and C - y_mean s^T with s = sum w phi.
        "targets" leaves G alone. The rounding of G (or of rows) stays, so relative to what is left of it, it grows.
        """
        means = feature_mean, target_mean = self.means(center)
        cross = self.cross if center == "none" else self.cross - np.outer(target_mean, self.feature_sum)
        square = max(self.target_square - self.total_weight * float(target_mean @ target_mean), 0.0)
        rounding = self.noise_floor(1.0)
        if self._held:
            A = np.concatenate([part.features for part in self._held], dtype=np.float64)
            targets = np.concatenate([part.targets for part in self._held])
            B, roots = targets[:, :-1], targets[:, -1:]
            if center != "none":
                B = B - roots * target_mean
            if center == "both":
                before = float(np.linalg.norm(A))
                A -= roots * feature_mean
                after = float(np.linalg.norm(A))
                rounding = min(1.0, rounding * before / after) if after > 0.0 else 1.0
            K = product_with_itself(A)
            if center == "both":  # A^T r = B^T r = 0 for the roots r: their direction must not look singular
                K += (np.trace(K) / len(K)) * (roots @ roots.T) / np.vdot(roots, roots)
            return RidgeSystem(K, np.ascontiguousarray(B.T), A, cross, square, *means, rounding)
        G = self.gram
        if center == "both":
            G = G - np.outer(self.feature_sum, feature_mean)
            before, after = (largest_eigenvalue(len(matrix), matrix.__matmul__) for matrix in (self.gram, G))
            rounding *= before / after if after > rounding * before else 1.0
        return RidgeSystem(G, cross, None, cross, square, *means, rounding)

    def noise_floor(self, largest_eigenvalue: float) -> float:
        """The size of the rounding errors in G: a lambda below it changes G by less than they do.

        u ||G||_2 with u = 10 * 2^-24 for float32 products, p * 2^-52 for float64.
        """
        u = len(self._gram) * float(np.finfo(np.float64).eps)
        if self.product_precision == "float32":
            u = max(u, _FLOAT32_ROUNDING)
        return u * max(largest_eigenvalue, 0.0)

    def save(self, path: str | Path) -> None:
        """Writes G, C, n and the sums to a .npz, atomically. Held rows go into G: the file holds no single sample."""
        meta = {
            "format": _FORMAT,
            "n": self.n,
            "precision": self.product_precision,
            "features": self.chain.fingerprint(),
        }
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
            other = RidgeStatistics(self.chain, len(self.cross), backend=self.backend)
            other.product_precision = check_choice("load", "precision", meta["precision"], PRECISIONS)
            other.n = check_count("load", "n", meta["n"], minimum=0)
            numbers = {name: arrays[name] for name in ("gram", "cross", *_SUMS)}
            fits = all(array.shape == np.shape(getattr(self, name)) for name, array in numbers.items())
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of ridge statistics ({error})") from error
        if not fits or not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in numbers.values()):
            raise DataError(f"{path}: the statistics do not fit p = {len(self._gram)}, k = {len(self.cross)}")
        other._held = None
        other._gram = np.ascontiguousarray(arrays["gram"], dtype=np.float64)
        other.cross = np.ascontiguousarray(arrays["cross"], dtype=np.float64)
        for name in _SUMS:
            value = arrays[name].astype(np.float64)
            setattr(other, name, float(value) if value.ndim == 0 else value)
        return self.merge(other)


def check_weights(where: str, weights: Any, n: int) -> FloatArray:
    """Sample weights as float64 (n,), finite, not negative, not all zero."""
    array = to_host(where, "weights", weights)
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
