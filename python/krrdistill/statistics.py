"""Sufficient statistics of ridge regression: all that it needs of the data, and they add."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.arrays import as_labels, as_rows, as_samples, check_choice, check_count, check_device, to_host
from krrdistill.backends import Backend, Chain, get_backend
from krrdistill.errors import DataError
from krrdistill.files import read_npz, write_npz

__all__ = ["PRECISIONS", "RidgeStatistics"]

FloatArray = npt.NDArray[np.float64]
PRECISIONS = ("float32", "float64")
_FORMAT = "krrdistill-statistics-1"
_BATCH_ROWS = 16384  # rows between two reports of progress; a multiple of the core's flush interval
# Rounding of G relative to its largest eigenvalue, measured on MNIST and CIFAR-100 (docs/numerics.md).
_FLOAT32_ROUNDING = 10 * 2.0**-24


class RidgeStatistics:
    """G = phi(X)^T phi(X) (p, p), C = Y^T phi(X) (k, p), n and ||Y||^2, in float64 and one tile at a time.

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
        self.target_square = 0.0
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
        progress: Callable[[float], None] | None = None,
    ) -> RidgeStatistics:
        """Adds samples. X (n, d) or (n, *shape), uint8 or float; Y labels (n,) or targets (n, k), of any framework.

        X is not copied; on a device it stays there, and the sums come back. ``rows`` picks samples without copying.
        Raises DataError (NaN, wrong shape, label or row out of range, features that overflow), after which the
        statistics hold an unknown part of the batch and must not be used.
        """
        samples = as_samples("statistics.update", X, input_dim=self.chain.input_dim)
        check_device("statistics.update", X=X, Y=Y)
        self.backend = get_backend(self._chosen, data=samples)
        n = samples.shape[0]
        targets = self._check_targets(Y, n)
        picked = None if rows is None else as_rows("statistics.update", rows, n)
        count = n if picked is None else len(picked)
        for start in range(0, count, _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, count)
            part = np.arange(start, stop) if picked is None else picked[start:stop]
            self._symmetric = False
            dtype = np.dtype(self.precision)
            self.backend.accumulate(self.chain, samples, targets, self._gram, self.cross, dtype=dtype, rows=part)
            if progress is not None:
                progress(stop / count)
        self.n += count
        used = targets if picked is None else targets[picked]
        self.target_square += float(count if used.ndim == 1 else np.vdot(used, used))
        if not (np.isfinite(self._gram.trace()) and np.isfinite(self.cross).all()):
            raise DataError(f"statistics.update: the features overflow {self.precision}; scale the inputs")
        return self

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
        self.target_square += other.target_square
        if other.precision == "float32":
            self.precision = "float32"
        return self

    def noise_floor(self, largest_eigenvalue: float) -> float:
        """The size of the rounding errors in G: a lambda below it changes G by less than they do.

        u ||G||_2 with u = 10 * 2^-24 for float32 products, p * 2^-52 for float64.
        """
        u = len(self._gram) * float(np.finfo(np.float64).eps)
        if self.precision == "float32":
            u = max(u, _FLOAT32_ROUNDING)
        return u * max(largest_eigenvalue, 0.0)

    def save(self, path: str | Path) -> None:
        """Writes G, C, n and ||Y||^2 to a .npz, atomically."""
        meta = {"format": _FORMAT, "n": self.n, "precision": self.precision, "features": self.chain.fingerprint()}
        arrays = {
            "gram": self.gram,
            "cross": self.cross,
            "target_square": np.float64(self.target_square),
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
            other.target_square = float(arrays["target_square"])
            fits = arrays["gram"].shape == self._gram.shape and arrays["cross"].shape == self.cross.shape
            numbers = [arrays[name] for name in ("gram", "cross", "target_square")]
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a file of ridge statistics ({error})") from error
        if not fits or not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in numbers):
            raise DataError(f"{path}: the statistics do not fit p = {len(self._gram)}, k = {len(self.cross)}")
        other._gram = np.ascontiguousarray(arrays["gram"], dtype=np.float64)
        other.cross = np.ascontiguousarray(arrays["cross"], dtype=np.float64)
        return self.merge(other)
