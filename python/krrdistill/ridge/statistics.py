"""Sums over the data from which ridge regression is solved; they can be added."""

from __future__ import annotations

import copy
import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, Operator, PackedGram, Products, ResidentGram, get_backend, products_in
from krrdistill.backends.tiles import FLUSH_ROWS
from krrdistill.common.arrays import (
    as_rows,
    check_choice,
    check_count,
    check_device,
    check_number,
    check_seed,
    checked_columns,
    checked_shape,
    largest_entry,
    read_only,
)
from krrdistill.common.documents import UNFIT, parse_json
from krrdistill.common.files import opened_npz, write_npz
from krrdistill.common.memory import require_memory
from krrdistill.common.options import shown_value
from krrdistill.common.samples import as_samples, check_columns, check_shape, columns_of, sample_shape
from krrdistill.common.warning import warn
from krrdistill.data.batches import read_batches
from krrdistill.data.labels import Classes, Targets, real_targets
from krrdistill.data.units import Sizes, some_rows
from krrdistill.errors import DataError, DataWarning
from krrdistill.maps import FeatureMap, check_map, described, described_map
from krrdistill.options import PRECISIONS

from .batches import Split, StreamPlace, Training, blocks, read_ahead
from .held_out import HeldOutRows
from .shards import Shards, digest_name
from .statistics_format import FORMAT, KIND, products_of, read_numbers
from .stores import FeatureRows, SummedGram, store_of
from .sums import (
    Sums,
    all_binary,
    check_contained,
    check_rest,
    check_weights,
    largest_factor,
    mean_of_rows,
    one_hot,
)
from .system import Moments, RidgeSystem, centred_system, system_of_rows

__all__ = ["CENTERS", "RidgeStatistics"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Method = TypeVar("Method", bound=Callable[..., Any])
AnyGram = TypeVar("AnyGram", bound="FloatArray | ResidentGram")
CENTERS = ("none", "targets", "both")
_BATCH_ROWS = 65536  # rows between two reports of progress
_TARGET_ROWS = 16384  # the same where targets are laid out as a matrix,
_TARGET_NUMBERS = 1 << 22  # of at most so many numbers,
_LEAST_ROWS = 2048  # and never fewer rows
_LOOK_AT = 8  # inputs per entry of G up to which a look at them is cheaper than a second G


class _Batch(NamedTuple):
    """Checked samples, and the rows of them to add."""

    where: str
    samples: Any  # (n, d)
    targets: npt.NDArray[Any]  # codes (n,) or real values (n, k)
    weights: FloatArray | None
    chosen: IntArray


@contextmanager
def _together(first: RidgeStatistics, second: RidgeStatistics) -> Iterator[None]:
    """Nobody else changes two statistics; locked in one order, so that no two threads wait for each other."""
    one, other = sorted((first, second), key=id)
    with one._lock, other._lock:
        yield


def _one_at_a_time(method: Method) -> Method:
    """The method, which waits until no other thread is in such a method of the same statistics."""

    @functools.wraps(method)
    def waiting(self: RidgeStatistics, *arguments: Any, **keywords: Any) -> Any:
        with self._lock:
            self._check_at_rest()
            return method(self, *arguments, **keywords)

    return waiting  # type: ignore[return-value]


class RidgeStatistics:
    r"""Statistics of ridge regression: G = sum w phi phi^T (p, p), C = sum w y phi^T (k, p).

    They also hold the sums of w, w phi, w y and w y^2.

    The sums run over samples with weight w (default 1), in float64 and tile by tile. ``+=`` merges statistics of
    streams, shards and machines. While n < p the features of the samples are stored, and G is formed only when it is
    needed. From n = p on no single sample is stored.

    Threads may share them: operations on the sums wait for each other. Batches then arrive in any order, which changes
    the rounding. For results that do not depend on timing, give each thread statistics of its own and merge them in a
    fixed order. While other threads add samples, fit models to a ``copy``, and read ``gram`` from it. A second
    ``update_batches`` at the same time is refused, and so is any use from within an update, as by its ``progress``.
    The sums that properties give are read-only.

    Parameters
    ----------
    feature_map : FeatureMap
        phi, on raw inputs.
    classes : int or sequence of labels, optional
        k, or the labels that y can have: ["cat", "dog"], [-1, 1].
    n_targets : int, optional
        Number k of real-valued or 0/1 targets, instead of ``classes``.
    precision : "float32" or "float64"
        Precision of features, and of products within a tile. Sums over tiles are float64. For uint8 data and a map
        without layers, backends that can do so compute exact integer sums.
    backend : str or Backend, optional
    shard : str, optional
        Name of the samples that ``update`` adds. Statistics that share a shard are not merged, so that a task that ran
        twice is counted once. Without a name a digest of the sums is used.

    Attributes
    ----------
    n, total_weight : int, float
    shards : frozenset of str
        Names of the shards that were added.
    rows_read : int
        Number of rows of the stream that ``update_batches`` has read, including held-out rows.
    shape : tuple of int, of one sample
    columns : tuple of str, or None
        Names of the columns of X, if it was a data frame. Later data frames must have the same.
    sizes : Sizes, or None
        Mean squares of the entries of X, over a few rows of every batch. They reveal samples in other units.
    product_precision : "float32" or "float64"
        Lowest precision of the products so far; float64 for integers.
    product_rounding : float
        Largest rounding error of G so far, relative to its largest eigenvalue, as reported by the backends. It is 0 for
        float64 and integers. ``noise_floor`` is computed from it.

    Notes
    -----
    .. math::

        G = \sum_i w_i\, \varphi(x_i) \varphi(x_i)^\top, \qquad C = \sum_i w_i\, y_i \varphi(x_i)^\top

    Examples
    --------
    >>> import numpy as np
    >>> import krrdistill as kd
    >>> statistics = kd.RidgeStatistics(kd.Identity(3), classes=2)
    >>> statistics.update(np.eye(3), np.array([0, 1, 1]))
    RidgeStatistics(n=3, p=3, k=2, classes, products in float32)
    >>> other = kd.RidgeStatistics(kd.Identity(3), classes=2).update(2 * np.eye(3), np.array([0, 0, 1]))
    >>> statistics += other
    >>> statistics.n, statistics.gram.diagonal()
    (6, array([5., 5., 5.]))
    """

    _adding = False  # an update runs

    def __init__(
        self,
        feature_map: FeatureMap,
        classes: Any = None,
        *,
        n_targets: int | None = None,
        precision: str = "float32",
        backend: Backend | str | None = None,
        shard: str | None = None,
    ) -> None:
        check_map("RidgeStatistics", feature_map)
        if (classes is None) == (n_targets is None):
            raise TypeError("RidgeStatistics: give classes, or n_targets for real-valued targets")
        self.feature_map = feature_map
        self.precision = check_choice("RidgeStatistics", "precision", precision, PRECISIONS)
        self.classes = None if classes is None else Classes.of("RidgeStatistics", classes)
        count = self.classes.count if self.classes is not None else n_targets
        k = check_count("RidgeStatistics", "n_targets", 0 if count is None else count)
        self.product_precision, self.product_rounding = "float64", 0.0
        self._chosen = backend
        self.backend = get_backend(backend)
        self.shape: tuple[int, ...] = (feature_map.input_dim,)
        self.columns: tuple[str, ...] | None = None
        self.rows_read = 0
        self._stream: StreamPlace | None = None
        if not isinstance(shard, (str, type(None))):
            raise TypeError(f"RidgeStatistics: shard must be a name, got {type(shard).__name__}")
        self._shard = shard
        self._others = Shards()
        self._own_rows = 0  # of the samples that ``update`` added
        self.sizes: Sizes | None = None
        self._binary = True
        self._origin: FloatArray | None = None if self.classes is None else np.zeros(k)
        try:
            self._sums = Sums.zero(k, feature_map.output_dim)
        except MemoryError as error:
            gib = k * feature_map.output_dim * 8 / 2**30
            raise MemoryError(
                f"RidgeStatistics: C of {k} classes x {feature_map.output_dim} features takes {gib:.3g} GiB; "
                "are these identifiers, or real values (n_targets)?"
            ) from error
        self._store: FeatureRows | SummedGram = FeatureRows(feature_map.output_dim)
        self._broken = False
        self._lock = threading.RLock()
        self._streaming = False

    def __repr__(self) -> str:
        k, p = self._sums.cross.shape
        return f"RidgeStatistics(n={self.n}, p={p}, k={k}, {self.targets}, products in {self.product_precision})"

    # What was summed

    @property
    def n(self) -> int:
        """Number of samples so far."""
        return self._sums.n

    @property
    def total_weight(self) -> float:
        """Sum of the weights."""
        return self._sums.total_weight

    @property
    @_one_at_a_time
    def shards(self) -> frozenset[str]:
        """Names of the shards that were added."""
        return self._shards().names

    def _shards(self) -> Shards:
        """The own shard, which has a name from here on, and the others."""
        if not self._own_rows:
            return self._others
        if self._shard is None:
            sums = self._sums
            arrays = {name: np.asarray(getattr(sums, name)) for name in sums._fields}
            self._shard = digest_name(arrays)
        return replace(self._others, own=self._shard)

    @property
    def k(self) -> int:
        """Number of classes or targets."""
        return len(self._sums.cross)

    @property
    def targets(self) -> str:
        """ "classes", "multilabel" (every target so far was 0 or 1) or "real"."""
        return "classes" if self.classes is not None else "multilabel" if self._binary and self.n else "real"

    @property
    @_one_at_a_time
    def gram(self) -> FloatArray:
        """G, symmetric, shape (p, p)."""
        self._check_whole()
        return read_only(self._checked(self._store.gram(self._host)))

    @property
    def cross(self) -> FloatArray:
        """C, shape (k, p)."""
        return read_only(self._raw().cross)

    @property
    def feature_sum(self) -> FloatArray:
        """Sum of w phi, shape (p,)."""
        return read_only(self._sums.feature_sum)

    @property
    def target_sum(self) -> FloatArray:
        """Sum of w y, shape (k,)."""
        return read_only(self._raw().target_sum)

    @property
    def target_square(self) -> FloatArray:
        """Sum of w y^2, shape (k,)."""
        return read_only(self._raw().target_square)

    @property
    def target_spread(self) -> FloatArray:
        """Standard deviation of every target, shape (k,)."""
        weight = self.total_weight or 1.0
        mean = self._sums.target_sum / weight
        return np.sqrt(np.maximum(self._sums.target_square / weight - mean * mean, 0.0))

    @_one_at_a_time
    def _raw(self) -> Sums:
        """Sums for uncentred targets."""
        self._check_whole()
        return self._sums if self._origin is None else self._sums.moved(self._origin)

    def _check_whole(self) -> None:
        if self._broken:
            raise DataError("statistics: an update was interrupted in the middle; make these statistics again")

    def _check_at_rest(self) -> None:
        """Raises RuntimeError within an update of the same thread; other threads wait for its end."""
        if self._adding:
            raise RuntimeError(
                "statistics: an update is running, and their sums are those of part of its samples: use them when it "
                "has ended, not from its progress or from the map"
            )

    # Adding samples

    def update(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        rows: npt.NDArray[np.int64] | None = None,
        progress: Callable[[float], None] | None = None,
        where: str = "statistics.update",
    ) -> RidgeStatistics:
        """Add samples. If it fails, the statistics are unchanged.

        Parameters
        ----------
        X : array of shape (n, d) or ``(n, *shape)``, uint8 or float, of any framework
            Raw samples. They are not copied. Data on a GPU stay there.
        y : labels (n,), or targets (n, k) where there are ``n_targets``
        sample_weight : array of shape (n,), >= 0, optional
            Weights. The features of weighted samples are computed as a matrix, 2048 rows at a time (slower).
        rows : array of int, optional
            Indices of the samples to add; by default all. Selected samples are not copied.
        progress : callable, optional
            Called with the fraction done.
        where : str
            Name of the caller, for messages.

        Raises
        ------
        DataError, TypeError
            For NaN, wrong shapes, labels that are not among the classes, features that overflow.
        """
        return self._checked_update(where, X, y, sample_weight, rows, progress, {})

    @_one_at_a_time
    def _checked_update(
        self,
        where: str,
        X: Any,
        y: Any,
        sample_weight: Any,
        rows: npt.NDArray[np.int64] | None,
        progress: Callable[[float], None] | None,
        place: Mapping[str, Any],
    ) -> RidgeStatistics:
        """``update``; ``place`` holds the facts of a stream that hold when the rows are in, and not before."""
        self._check_whole()
        if isinstance(X, np.ndarray) and self._store.holds(X):
            X = X.copy()  # G would change while it is read
        samples = as_samples(where, X, input_dim=self.feature_map.input_dim)
        check_columns(where, self.columns, samples)
        check_device(where, X=X, y=y)
        n = samples.shape[0]
        targets = self.as_targets(where, y, n)
        picked = None if rows is None else as_rows(where, rows, n)
        weights = None if sample_weight is None else check_weights(where, sample_weight, n, all_zero=True)
        if self.n:
            check_shape(where, self.shape, sample_shape(X, samples.shape[1]))
        count = n if picked is None else len(picked)
        if count == 0:
            return self
        looked = some_rows(samples, picked)
        self.warn_of_units(where, looked)
        self.backend = self.backend_for(samples)
        chosen = np.arange(n) if picked is None else picked
        facts = {
            "shape": self.shape if self.n else sample_shape(X, samples.shape[1]),
            "columns": self.columns or columns_of(samples),
            "sizes": Sizes.of(looked).plus(self.sizes),
            "_binary": self._binary and (self.classes is not None or all_binary(targets, chosen)),
            "_own_rows": self._own_rows + count,
            **place,
        }
        return self._update(_Batch(where, samples, targets, weights, chosen), facts, progress)

    def _update(
        self, batch: _Batch, facts: Mapping[str, Any], progress: Callable[[float], None] | None
    ) -> RidgeStatistics:
        """``update`` with checked arguments; ``facts`` are those that hold when the rows are in."""
        where, samples, targets, weights, chosen = batch
        origin = mean_of_rows(targets, chosen) if self._origin is None else self._origin
        store = self._store
        with self.feature_map.named_rows(where, samples, self.precision, chosen):
            receiver, needs_merge = self._receiver(samples, chosen, largest_factor(targets, origin, weights))
        in_place = receiver is store and isinstance(store, SummedGram)
        self._broken = in_place and self.n > 0  # until G and the other sums are of the same samples again
        try:
            self._adding = True
            with self.feature_map.named_rows(where, samples, self.precision, chosen):
                added, used = self._add(receiver, batch, origin, progress)
            if not np.isfinite(added.target_square).all():
                raise DataError(f"{where}: the squares of y overflow float64; scale the targets")
            if not (np.isfinite(added.cross).all() and np.isfinite(receiver.trace())):
                raise DataError(f"{where}: the features overflow {self.precision}; scale the inputs")
        except BaseException:
            if receiver is store and isinstance(store, SummedGram):
                store.clear()
            raise
        finally:
            self._adding = False
        sums = self._sums.plus(added)
        if needs_merge:
            with self._changing_gram():
                store.merged(receiver, self._host)
        self._broken = True
        self.__dict__.update(facts, _store=store if needs_merge else receiver, _sums=sums, _origin=origin)
        self._take_products(used)
        self._broken = False
        return self

    @contextmanager
    def _changing_gram(self) -> Iterator[None]:
        """G changes in place in the block. Ctrl-C there leaves the statistics unusable; other failures change nothing.

        After the block they are unusable until the caller has changed the other sums, too.
        """
        self._broken = True
        try:
            yield
        except Exception:
            self._broken = False
            raise

    def _take_products(self, used: Products) -> None:
        """Keeps the worst of the products so far and these."""
        if used.precision == "float32":
            self.product_precision = "float32"
        self.product_rounding = max(self.product_rounding, used.rounding)

    @property
    def _products(self) -> Products:
        return Products("float32" if self.product_precision == "float32" else "float64", self.product_rounding)

    def update_batches(
        self,
        batches: Any,
        *,
        x: Any = None,
        y: Any = None,
        holdout: float = 0.0,
        held_out: str = "rows",
        max_held_out: int = 100_000,
        seed: int = 0,
        first_row: int = 0,
        skip: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        """Add a stream of batches, reading the next blocks while one is summed.

        Blocks are copied, as a stream may use its memory again, except those in read-only memory maps. Sums and
        held-out rows depend on the rows and their order, but not on the sizes of the batches.

        Parameters
        ----------
        batches : iterable
            A DataLoader or generator of (X, y) or (X, y, sample_weight), with any X and y that ``update`` takes. Or of
            tables or dicts, with columns ``x`` and ``y``: Arrow record batches, ``datasets`` (also streamed). Or of
            single samples (x, label).
        x, y : str or sequence of str, optional
            Names of columns, as in ``read_samples``.
        holdout : float, 0 <= holdout < 1
            Fraction of the rows to hold out. Row r is held out if a hash of ``seed`` and r is below it.
        held_out : "rows" or "statistics"
            Whether to keep the held-out rows themselves, or only their statistics.
        max_held_out : int
            Largest number of held-out rows. All later rows are used for training, with a warning.
        seed : int
        first_row : int
            Number of the first row, if this stream is a later part of a longer one.
        skip : int
            Number of rows at the beginning that were added before, to resume a stream: ``rows_read`` of saved
            statistics. Only held-out rows among them are collected again. Rows and order, ``holdout``, ``seed``,
            ``first_row`` and ``max_held_out`` must be those of before: the labels of the rows and these numbers are
            compared.
        progress : callable, optional
            Called after every block with the number of rows read. It may save the statistics.

        Returns
        -------
        HeldOutRows or RidgeStatistics
            The held-out rows, for ``fit_model(validation=)``; None without ``holdout``.

        Raises
        ------
        DataError, TypeError
            For a bad batch; the message has its number and rows. Earlier blocks were added, see ``rows_read``. For a
            stream that is not the one to resume.
        ValueError
            For another split than that of the stream to resume.
        RuntimeError
            If another stream is being added at the same time.
        """
        where = "update_batches"
        holdout = check_number(where, "holdout", holdout)
        if holdout >= 1.0:
            raise ValueError(f"{where}: holdout is a part of the rows, below 1, got {holdout}")
        check_choice(where, "held_out", held_out, ("rows", "statistics"))
        max_held_out = check_count(where, "max_held_out", max_held_out, minimum=0)
        first_row = check_count(where, "first_row", first_row, minimum=0)
        skip = check_count(where, "skip", skip, minimum=0)
        kept: list[HeldOutRows] = []
        apart = self._empty() if held_out == "statistics" else None
        most = max_held_out if apart is None and holdout > 0.0 else None
        place = StreamPlace(holdout, check_seed(where, seed), first_row, most)
        before = self._left(where, skip, place)
        found = blocks(
            where,
            read_batches(where, batches, x, y),
            input_dim=self.feature_map.input_dim,
            columns=self.columns,
            read_y=self._stream_targets,
            read_weight=functools.partial(check_weights, all_zero=True),
            split=Split(holdout, place.seed, sys.maxsize if most is None else most),
            first_row=first_row,
            skip=skip,
            before=before,
        )
        with self._one_stream(where):
            self.rows_read, self._stream, read = skip, before, 0
            for block in read_ahead(found):
                try:
                    if block.held_out is not None:
                        if apart is not None:
                            apart._update_rows(Training(block.held_out), {})
                        else:
                            X, codes, weight = block.held_out
                            kept.append(HeldOutRows(X, Targets(codes, self.classes), weight))
                    read = block.rows_read - first_row
                    if read < skip:  # the stream is too short to go on: its place is that of before
                        continue
                    # last, and at once: what fails before leaves nothing behind, and no sum is without its place
                    there = {"rows_read": read, "_stream": place._replace(labels=block.labels)}
                    self._update_rows(block.training, {"columns": self.columns or block.columns, **there})
                except DataError as error:
                    raise DataError(f"{where}: rows {block.first_row} ... {block.rows_read - 1}: {error}") from error
                if progress is not None:
                    progress(self.rows_read)
            _check_length(where, read, skip)
        if holdout == 0.0:
            return None
        return HeldOutRows.joined(kept) if apart is None else apart

    def _left(self, where: str, skip: int, place: StreamPlace) -> StreamPlace | None:
        """Where the stream to resume was left; None for any other. Raises ValueError for another split."""
        if self._stream is None or not 0 < skip == self.rows_read:
            return None
        self._stream.check_split(where, place)
        return self._stream

    @contextmanager
    def _one_stream(self, where: str) -> Iterator[None]:
        """``rows_read`` counts the rows of one stream. Raises RuntimeError while there is another."""
        with self._lock:
            if self._streaming:
                raise RuntimeError(
                    f"{where}: another stream is added to these statistics; give each its own, and merge them"
                )
            self._streaming = True
        try:
            yield
        finally:
            self._streaming = False

    def _stream_targets(self, where: str, y: Any, n: int) -> npt.NDArray[Any]:
        """Codes, or targets that are float64 whatever type a batch has."""
        targets = self.as_targets(where, y, n)
        return targets if self.classes is not None else targets.astype(np.float64, copy=False)

    def _update_rows(self, found: Training | None, place: Mapping[str, Any]) -> None:
        if found is None:
            self.__dict__.update(place)
        else:
            (X, y, weight), rows, where = found
            self._checked_update(where, X, Targets(y, self.classes), weight, rows, None, place)

    def _empty(self) -> RidgeStatistics:
        """Statistics of nothing, of the same kind."""
        k = self.k if self.classes is None else None
        return RidgeStatistics(
            self.feature_map, self.classes, n_targets=k, precision=self.precision, backend=self._chosen
        )

    def _receiver(
        self, samples: Any, rows: npt.NDArray[np.int64], factor: float
    ) -> tuple[FeatureRows | SummedGram, bool]:
        """(store that a batch is added to, whether it must be merged with the samples so far)."""
        store, p = self._store, self.feature_map.output_dim
        if isinstance(store, FeatureRows):
            if self.n + len(rows) >= p:
                return store.summed(self._host), False
            require_memory("statistics", f"the features of {len(rows)} samples ({p} in float64)", 8 * len(rows) * p)
            return store.copied(), False
        if self.n > 0 and self._may_fail(samples, rows, factor):
            return SummedGram.zero(p, self.backend), True
        return store, False

    def _may_fail(self, samples: Any, rows: npt.NDArray[np.int64], factor: float) -> bool:
        """Whether to sum a batch into a separate G because it may overflow midway. Small batches are scanned instead.

        ``factor`` bounds what features are multiplied by besides each other. Raises DataError for NaN or infinity.
        """
        runs_in_python = any(isinstance(layer.weight, Operator) for layer in self.feature_map.layers)
        if runs_in_python or not isinstance(samples, np.ndarray):
            return True
        largest = 255.0
        if samples.dtype != np.uint8:
            if len(rows) * samples.shape[1] > _LOOK_AT * self.feature_map.output_dim**2:
                return True
            largest = largest_entry(samples, rows)
        tile = float(np.finfo(self.precision).max) / FLUSH_ROWS
        return not max(self.feature_map.feature_bound(largest), 1.0) * factor < np.sqrt(tile)

    def _add(
        self,
        store: FeatureRows | SummedGram,
        found: _Batch,
        origin: FloatArray,
        progress: Callable[[float], None] | None,
    ) -> tuple[Sums, Products]:
        """Adds the rows to ``store``, and returns their other sums and how products were formed."""
        _, samples, targets, weights, chosen = found
        k, p = self._sums.cross.shape
        total, worst = Sums.zero(k, p), products_in(np.dtype(np.float64))
        summed = store if targets.ndim == 1 and weights is None and isinstance(store, SummedGram) else None
        step = _BATCH_ROWS if summed is not None else max(_LEAST_ROWS, min(_TARGET_ROWS, _TARGET_NUMBERS // k))
        dtype = np.dtype(self.precision)
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            if summed is not None:
                cross = np.zeros((k, p))
                used = summed.add(self.backend, self.feature_map, samples, targets, cross, dtype=dtype, rows=part)
                counts = np.bincount(targets[part], minlength=k).astype(np.float64)
                batch = Sums(len(part), float(len(part)), counts, counts, cross.sum(axis=0), cross)
            else:
                values = one_hot(targets[part], k) if targets.ndim == 1 else targets[part] - origin
                w = None if weights is None else weights[part]
                cross = np.zeros((k + 1, p))
                extended = np.column_stack([values, np.ones(len(part))])
                used = store.add_weighted(
                    self.backend, self.feature_map, samples, extended, w, cross, host=self._host, dtype=dtype, rows=part
                )
                w = np.ones(len(part)) if w is None else w
                square, sums = w @ np.square(values), w @ values
                batch = Sums(len(part), float(w.sum()), square, sums, cross[k], cross[:k])
            total = total.plus(batch)
            worst = worst.worse(used)
            if progress is not None:
                progress(min(start + step, len(chosen)) / len(chosen))
        return total, worst

    def _checked(self, gram: AnyGram) -> AnyGram:
        if not np.isfinite(gram.trace()):
            raise DataError(f"statistics: the features overflow {self.precision}; scale the inputs")
        return gram

    def warn_of_units(self, where: str, X: Any) -> None:
        """Warn if samples X (n, d) are in other units than those so far, or than the preprocessing expects."""
        if self.sizes is None:
            self.feature_map.preprocessing.warn_of_units(where, X)
        else:
            self.sizes.warn_of_units(where, X)

    def as_targets(self, where: str, y: Any, n: int) -> npt.NDArray[Any]:
        """Convert y to codes of classes (n,), or to finite float64 targets (n, k)."""
        if self.classes is not None:
            return self.classes.encode(where, y, n)
        return real_targets(where, y, n, self.k)

    def backend_for(self, data: Any) -> Backend:
        """The backend for data on the device where they are."""
        return get_backend(self._chosen, data=data)

    @property
    def _host(self) -> Backend:
        """The backend for G, which is always in host memory."""
        return self.backend_for(None)

    # Merging

    def __iadd__(self, other: RidgeStatistics) -> RidgeStatistics:
        """Add the statistics of other data with the same map, in place. New classes are appended.

        Raises DataError for another map or other columns, and for data that were added before.
        """
        return self._combine("statistics +=", other, 1)

    merge = __iadd__

    def __add__(self, other: RidgeStatistics) -> RidgeStatistics:
        """New statistics of the data of both."""
        return self.copy()._combine("statistics +", other, 1)

    def __radd__(self, other: int) -> RidgeStatistics:
        """A copy, for 0 + statistics: where ``sum(shards)`` starts."""
        if not isinstance(other, int) or other != 0:
            return NotImplemented
        return self.copy()

    def __isub__(self, other: RidgeStatistics) -> RidgeStatistics:
        """Takes away the statistics of data that are part of these, in place.

        Raises DataError where products were formed in float32: sums over other tiles round differently and would not
        cancel.
        """
        for statistics in (self, other):
            if isinstance(statistics, RidgeStatistics) and statistics.product_precision != "float64":
                precisions = f"{self.product_precision} and {other.product_precision}"
                raise DataError(
                    f"statistics -=: the products are in {precisions}; those in float32 round differently in every "
                    "tile, so that they do not cancel; make both with precision='float64' (bytes under the identity "
                    "map are exact as they are)"
                )
        return self._combine("statistics -=", other, -1)

    def _combine(self, where: str, other: RidgeStatistics, sign: int) -> RidgeStatistics:
        if not isinstance(other, RidgeStatistics):
            raise TypeError(f"{where}: other must be RidgeStatistics, got {type(other).__name__}")
        with _together(self, other):
            self._check_at_rest()
            other._check_at_rest()
            return self._combined(where, other, sign)

    def _combined(self, where: str, other: RidgeStatistics, sign: int) -> RidgeStatistics:
        self._check_whole()
        other._check_whole()
        self.check_fits(where, other, units=sign > 0)
        ours, theirs = self._shards(), other._shards()
        classes, other = self._common_classes(where, other)
        shards = ours.plus(where, theirs) if sign > 0 else ours.minus(where, theirs)
        if sign < 0:
            check_contained(self._sums, self.classes, other._sums, other.classes)
        before = dict(self.__dict__)
        try:
            if classes is not None:
                self._place(classes, np.arange(self.k))
            if other.n == 0:
                return self
            self._take_facts(other, sign)
            shift = np.zeros(self.k) if other._origin is None or self._origin is None else other._origin - self._origin
            sums = self._sums.plus(other._sums.moved(shift), sign)
            if sign < 0:
                check_rest(sums, self.total_weight, self._store.squares(), other._store.squares())
            with self._changing_gram():
                self._store = self._store.merged(other._store, self._host, sign, shift=shift)
        except BaseException:
            self.__dict__.update({**before, "_broken": self._broken})
            raise
        self._sums = sums
        self._others = replace(shards, own=None)
        if ours.own is not None and shards.own is None:
            gone = other._own_rows if theirs.own == ours.own else other.n
            self._own_rows, self._shard = max(0, self._own_rows - gone), None  # what is left is another shard
        if sign < 0 and self.n == 0:
            self._clear()
        self._broken = False
        return self

    def _clear(self) -> None:
        """No samples, without the rounding that is left of those that were taken away."""
        k, p = self._sums.cross.shape
        self._sums, self._store = Sums.zero(k, p), FeatureRows(p)
        self._origin = None if self.classes is None else np.zeros(k)
        self.product_precision, self.product_rounding, self._own_rows = "float64", 0.0, 0

    def _take_facts(self, other: RidgeStatistics, sign: int) -> None:
        """What is known of the samples besides their sums."""
        if self.n == 0:
            self.shape = other.shape
        self.columns = self.columns or other.columns
        if sign < 0:
            self.sizes = None  # samples that were taken away leave no trace
        elif other.sizes is not None:
            self.sizes = other.sizes.plus(self.sizes)
        if self._origin is None:
            self._origin = other._origin
        self._binary = self._binary and other._binary
        self._take_products(other._products)

    def _common_classes(self, where: str, other: RidgeStatistics) -> tuple[Classes | None, RidgeStatistics]:
        """(the classes of both, ``other`` with these classes)."""
        if self.classes is None or other.classes is None:
            return self.classes, other
        classes, positions = self.classes.union(where, other.classes)
        return classes, other._placed(classes, positions)

    def in_these_classes(self, where: str, other: RidgeStatistics) -> RidgeStatistics:
        """Return ``other`` with its classes in the order of these. Raises DataError for unknown classes."""
        classes, placed = self._common_classes(where, other)
        if classes != self.classes:
            raise DataError(f"{where}: {other!r} have classes that {self!r} do not have")
        return placed

    def check_fits(self, where: str, other: RidgeStatistics, *, units: bool = True) -> None:
        """Raise DataError unless map, columns and kind of targets are the same; ``where`` names the caller.

        Warns if the samples were in other units.
        """
        found = []
        ours, theirs = (f"{one.k} real targets" if one.classes is None else "classes" for one in (self, other))
        if ours != theirs:
            found.append(f"targets: {ours} and {theirs}")
        if self.columns and other.columns and self.columns != other.columns:
            found.append(f"columns of X, or their order: {shown_value(self.columns)} and {shown_value(other.columns)}")
        if not self.feature_map.same_as(other.feature_map):
            maps = f"{self.feature_map!r} and {other.feature_map!r}"
            alike = repr(self.feature_map) == repr(other.feature_map)
            scaled = ", each with the scaling of its own samples" if alike else ""
            found.append(f"feature maps: {maps}{scaled}; all shards take one map (--like)")
        if found:
            raise DataError(f"{where}: the statistics are of different {'; of different '.join(found)}")
        if self.n and other.n:
            check_shape(where, self.shape, other.shape)
        if units and self.sizes is not None and other.sizes is not None:
            self.sizes.warn_of_units(where, other.sizes.roots[None], "those so far, the", few=1)

    @_one_at_a_time
    def grow(self, classes: Any) -> RidgeStatistics:
        """Append classes, in place: their labels, or a number of them if classes are numbers."""
        self._check_whole()
        if self.classes is None:
            raise TypeError("statistics.grow: these statistics are of real-valued targets, which do not grow")
        self._place(self.classes.grown("statistics.grow", classes), np.arange(self.k))
        return self

    def _place(self, classes: Classes, positions: IntArray) -> None:
        """Class c becomes class positions[c] of ``classes``, in place."""
        if classes == self.classes:
            return
        k = classes.count
        sums, store, origin = self._sums.placed(positions, k), self._store.placed(positions, k), np.zeros(k)
        self.classes, self._sums, self._store, self._origin = classes, sums, store, origin

    def _placed(self, classes: Classes, positions: IntArray) -> RidgeStatistics:
        """These statistics with the classes of others; G is shared."""
        if classes == self.classes:
            return self
        other = RidgeStatistics.__new__(RidgeStatistics)
        other.__dict__.update(self.__dict__)
        other._place(classes, positions)
        return other

    def copy(self) -> RidgeStatistics:
        """Return an independent copy, with the same map."""
        return copy.copy(self)

    @_one_at_a_time
    def __copy__(self) -> RidgeStatistics:
        self._shards()  # both know by name what they share
        other = RidgeStatistics.__new__(RidgeStatistics)
        other.__dict__.update(self.__dict__, _store=self._store.copied(), _lock=threading.RLock(), _streaming=False)
        return other

    def __deepcopy__(self, memo: Any) -> RidgeStatistics:
        return self.__copy__()

    @_one_at_a_time
    def __getstate__(self) -> dict[str, Any]:
        """The state without the backend and the lock: both are made again where the statistics arrive."""
        self._shards()
        name = self._chosen if isinstance(self._chosen, str) or self._chosen is None else self._chosen.name
        return {key: value for key, value in self.__dict__.items() if key not in ("backend", "_lock")} | {
            "_chosen": name,
            "_streaming": False,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())
        self.backend = get_backend(self._chosen)

    # Solving

    @_one_at_a_time
    def squared_errors(self, W: FloatArray, b: FloatArray) -> FloatArray:
        """sum w (y_c - w_c phi - b_c)^2 of every target c, shape (k,), for a model W (k, p), b (k,).

        ||y - b||^2 - 2 <W, C_b> + <W G, W> with C_b for the targets y - b. Targets are shifted by b first, which avoids
        cancellation.
        """
        origin = np.zeros(self.k) if self._origin is None else self._origin
        sums = self._sums.moved(origin - b)
        errors = sums.target_square + np.einsum("kp,kp->k", W @ self.gram - 2.0 * sums.cross, W)
        return np.asarray(np.maximum(errors, 0.0))

    @_one_at_a_time
    def means(self, center: str = "none") -> tuple[FloatArray, FloatArray]:
        """Weighted means of features (p,) and targets (k,); 0 for what ``center`` does not centre."""
        check_choice("statistics", "center", center, CENTERS)
        k, p = self._sums.cross.shape
        if center == "none":
            return np.zeros(p), np.zeros(k)
        if not self.total_weight > 0.0:
            raise DataError("statistics: there are no samples to centre")
        feature_mean = self.feature_sum / self.total_weight if center == "both" else np.zeros(p)
        origin = np.zeros(k) if self._origin is None else self._origin
        return feature_mean, origin + self._sums.target_sum / self.total_weight

    @_one_at_a_time
    def system(self, center: str = "none") -> RidgeSystem:
        """The ridge system after centring nothing, the targets, or both, about their weighted means.

        "both" is ridge with an unpenalised intercept: G - s s^T / w and C - y_mean s^T with s = sum w phi.
        "targets" does not change G. Centring keeps the absolute rounding error of G, so its relative error grows.
        """
        self._check_whole()
        means = _, target_mean = self.means(center)
        origin = np.zeros(self.k) if self._origin is None else self._origin
        sums = self._raw() if center == "none" else self._sums.moved(origin - target_mean)
        square = float(np.maximum(sums.target_square, 0.0).sum())
        moments = Moments(sums.cross, square, *means, self.noise_floor(1.0))
        if isinstance(self._store, FeatureRows) and len(self._store):
            A, targets = self._store.features()
            roots = targets[:, -1:]
            return system_of_rows(A, targets[:, :-1] + roots * (origin - target_mean), roots, moments, center == "both")
        if center == "both":
            return centred_system(self.gram, self.feature_sum, moments)
        G = self._checked(self._store.matrix(self._host))
        return RidgeSystem(G, sums.cross, None, *moments, owned=False)

    def noise_floor(self, largest_eigenvalue: float) -> float:
        """Size of the rounding errors in G. A smaller lambda changes G by less than they do.

        It is u ||G||_2, with u = p * 2^-52 for float64 products. Otherwise u is the error that the backend states
        (``product_rounding``): 10 * 2^-24 for float32, 2^-15 for TF32.
        """
        u = max(self.feature_map.output_dim * float(np.finfo(np.float64).eps), self.product_rounding)
        return u * max(largest_eigenvalue, 0.0)

    # Travelling

    @_one_at_a_time
    def to_arrays(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Return (header, arrays): a JSON-able description of the statistics, and their numbers.

        G is stored as its packed lower triangle ``gram``. If there are fewer samples than features, G would be larger
        than the data. Then the rows are stored instead, as ``features`` (r, p) and ``targets`` (r, k + 1).
        """
        header, arrays = self._described()
        return header, {**self._store.arrays(self.k), **arrays}

    @_one_at_a_time
    def to_arrays_on(self, device: int, room: int) -> tuple[dict[str, Any], dict[str, FloatArray], PackedGram | None]:
        """``to_arrays``, but for G if it is on this CUDA device: packed there, behind ``room`` numbers."""
        packed = self._store.packed_on(device, room)
        return (*self.to_arrays(), None) if packed is None else (*self._described(), packed)

    def _described(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """(header, all sums but G)."""
        self._check_whole()
        sums = self._sums
        header = {
            "format": FORMAT,
            "n": self.n,
            "p": self.feature_map.output_dim,
            "k": self.k,
            "shape": list(self.shape),
            "classes": None if self.classes is None else list(self.classes.names or range(self.k)),
            "binary": self._binary,
            "precision": self.precision,
            "product_precision": self.product_precision,
            "product_rounding": self.product_rounding,
            "map": self.feature_map.spec(),
            "shards": self._shards().to_json(),
            "own_rows": self._own_rows,
            "rows_read": self.rows_read,
            **({} if self.columns is None else {"columns": list(self.columns)}),
            **({} if self._stream is None else {"stream": self._stream._asdict()}),
        }
        arrays = {
            **{name: getattr(sums, name).copy() for name in ("cross", "feature_sum", "target_sum", "target_square")},
            "target_origin": np.zeros(self.k) if self._origin is None else self._origin.copy(),
            "total_weight": np.asarray(sums.total_weight),
        }
        if self.sizes is not None:
            arrays |= self.sizes.to_arrays()
        return header, arrays

    @classmethod
    def from_arrays(
        cls,
        feature_map: FeatureMap,
        header: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        *,
        backend: Backend | str | None = None,
        gram: ResidentGram | None = None,
    ) -> RidgeStatistics:
        """Build statistics from the result of ``to_arrays`` and their map. Raises DataError if they do not fit.

        ``gram`` is a G of this ``backend`` in the place of the packed one in ``arrays``.
        """
        try:
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']!r}, this version reads {FORMAT!r}")
            feature_map.check_spec(header["map"])
            classes, k = header["classes"], check_count("statistics", "k", header["k"])
            n = check_count("statistics", "n", header["n"], minimum=0)
            if classes is not None and (not isinstance(classes, list) or len(classes) != k):
                raise ValueError(f"k = {k}, which is not the number of its classes")
            numbers = read_numbers(arrays, n, feature_map.output_dim, k, gram)
            made = cls(
                feature_map,
                classes,
                n_targets=k if classes is None else None,
                precision=header["precision"],
                backend=backend,
            )
            made._take_products(products_of(header))
            made._binary = header["binary"] is True
            made._others = Shards.from_json(header["shards"])
            made._shard = made._others.own
            own_rows = check_count("statistics", "own_rows", header["own_rows"], minimum=0)
            made._own_rows = 0 if made._shard is None else own_rows
            made._others = replace(made._others, own=None)
            made.rows_read = check_count("statistics", "rows_read", header["rows_read"], minimum=0)
            made._stream = StreamPlace.from_json(header.get("stream"))
            made.shape = checked_shape(header["shape"], feature_map.input_dim)
            made.columns = checked_columns(header.get("columns"), feature_map.input_dim)
            made.sizes = Sizes.from_arrays(arrays, feature_map.input_dim)
        except UNFIT as error:
            raise DataError(f"not ridge statistics that fit ({error})") from error
        made._store = store_of(numbers, feature_map.output_dim) if gram is None else SummedGram(gram)
        made._origin = numbers["target_origin"] if n or made.classes is not None else None
        names = ("target_square", "target_sum", "feature_sum", "cross")
        made._sums = Sums(n, float(numbers["total_weight"]), *(numbers[name] for name in names))
        return made

    def save(self, path: str | Path) -> None:
        """Write the statistics and the description of the map to an .npz file, atomically."""
        header, arrays = self.to_arrays()
        description, preprocessing = described(self.feature_map)
        text = json.dumps({**header, **description}, sort_keys=True)
        write_npz(Path(path), {**arrays, **preprocessing, "header": np.array(text)}, sealed=True)

    @classmethod
    def load(
        cls, path: str | Path, feature_map: FeatureMap | None = None, *, backend: Backend | str | None = None
    ) -> RidgeStatistics:
        """Read a file that ``save`` wrote. Raises DataError for a file that does not fit.

        The map is built from its description in the file. A ``UserMap`` must be passed as ``feature_map``.
        """
        with opened_npz(Path(path), KIND) as arrays:
            header = parse_json("header", str(arrays.pop("header", "null")))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                found = header.get("format") if isinstance(header, dict) else None
                raise ValueError(f"format {found!r}, not {FORMAT!r}")
            p = header["map"]["output_dim"]
            if arrays["feature_sum"].shape != (p,):  # before weights of that size are drawn
                raise ValueError(f"feature_sum has shape {arrays['feature_sum'].shape}, the map {p!r} features")
            feature_map = described_map(header, arrays, feature_map)
            return cls.from_arrays(feature_map, header, arrays, backend=backend)


def _check_length(where: str, rows: int, skip: int) -> None:
    """Raises DataError for a stream that is shorter than what is to be skipped, and warns of one without rows."""
    if rows < skip:
        raise DataError(f"{where}: skip is {skip}, the stream has {rows} rows only")
    if rows == 0:
        warn(f"{where}: the stream has no rows (a generator gives its rows once)", DataWarning)
