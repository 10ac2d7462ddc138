"""Dask: ridge statistics of dask arrays, data frames, bags and delayed batches, summed where the rows are.

Every chunk becomes one part, and parts are added in a tree whose shape depends on the chunks alone. So the result is
the same to the last bit however many workers there are, and when one of them is lost. Only the sum comes back.

>>> import dask.array as da
>>> from krrdistill.interop.dask import statistics
>>> X, y = da.random.random((1000, 64), chunks=(250, 64)), da.arange(1000, chunks=250) % 10
>>> statistics(X, y, kd.Identity(64), classes=10)
RidgeStatistics(n=1000, p=64, k=10, classes, products in float32)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from krrdistill.common.arrays import check_count
from krrdistill.data.labels import Classes, label_array
from krrdistill.errors import BackendUnavailable, DataError
from krrdistill.maps import FeatureMap
from krrdistill.ridge.path import RidgePath
from krrdistill.ridge.selection import CorrectCounts
from krrdistill.ridge.statistics import RidgeStatistics

from .parts import Batch, Part, RowChoice, WorkerTask, added_counts

try:
    import dask
    from dask import delayed
except ImportError as unusable:
    raise BackendUnavailable(
        f'krrdistill.interop.dask needs Dask ({unusable}): pip install "krrdistill[dask]"'
    ) from unusable

__all__ = ["correct_counts", "correct_counts_of_batches", "statistics", "statistics_of_batches"]

_LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"


class _Chunk(NamedTuple):
    """Rows that one task reads: a delayed ``(X, y)`` or ``(X, y, sample_weight)``, or several in a list."""

    batches: Any
    name: str
    first_row: int | None = None


def statistics(
    X: Any,
    y: Any,
    feature_map: FeatureMap,
    classes: Any = None,
    *,
    n_targets: int | None = None,
    sample_weight: Any = None,
    precision: str = "float32",
    holdout: float = 0.0,
    seed: int = 0,
    held_out: bool = False,
    threads: int = 1,
    split_every: int = 8,
    backend: str | None = None,
    shard: str | None = None,
    client: Any = None,
) -> RidgeStatistics:
    """``RidgeStatistics`` of the rows of dask arrays or data frames.

    Parameters
    ----------
    X : dask array of shape (n, ...) in chunks of rows, or dask data frame
        A part costs as much for few rows as for many: chunks of three times as many rows as features, or more.
    y : dask array or series of labels (n,) or targets (n, k)
        Arrays are cut like X.
    feature_map : FeatureMap
    classes : int or sequence of labels, optional
        By default those that occur, which a first pass over y finds.
    n_targets : int, optional
        k, of real-valued or 0/1 targets, in place of ``classes``.
    sample_weight : dask array of shape (n,), optional
    precision : "float32" or "float64"
    holdout : float
        Share of the rows to hold out, by a hash of ``seed`` and the row number: pass the same two to
        ``correct_counts``.
    seed : int
    held_out : bool
        The statistics of the rows that are held out, in place of those of the others: real-valued targets choose
        lambda by them.
    threads : int
        Of BLAS and OpenMP in every task. Workers run one task on each of their own threads.
    split_every : int
        Parts that one task adds up.
    backend : str, optional
    shard : str, optional
        What the result is called where it is merged with others; by default a digest of the sums.
    client : distributed.Client, optional
        By default the current one, or Dask's scheduler in this process.

    Returns
    -------
    RidgeStatistics

    Raises
    ------
    DataError, TypeError
        For what ``RidgeStatistics.update`` refuses on a worker, with the number of the chunk; for chunks that cut
        samples; for unknown sizes of chunks where rows are held out.
    """
    choice = RowChoice("statistics", holdout, seed, held_out)
    chunks = _chunks(choice, X, y, sample_weight)
    if classes is None and n_targets is None:
        classes = _found_classes(chunks, client)
    task = WorkerTask(choice, threads, feature_map, classes, n_targets, precision, backend)
    return _summed(task, chunks, split_every, client, shard)


def statistics_of_batches(
    batches: Any,
    feature_map: FeatureMap,
    classes: Any = None,
    *,
    n_targets: int | None = None,
    precision: str = "float32",
    threads: int = 1,
    split_every: int = 8,
    backend: str | None = None,
    shard: str | None = None,
    client: Any = None,
) -> RidgeStatistics:
    """``RidgeStatistics`` of batches ``(X, y)`` or ``(X, y, sample_weight)`` that workers make.

    Parameters
    ----------
    batches : dask bag of batches, or sequence of delayed batches or futures
    feature_map, classes, n_targets, precision, threads, split_every, backend, shard, client
        As in ``statistics``; ``classes`` or ``n_targets`` must be given, since finding them would read all data twice.

    Returns
    -------
    RidgeStatistics
    """
    choice = RowChoice("statistics_of_batches", 0.0, 0, held_out=False)
    task = WorkerTask(choice, threads, feature_map, classes, n_targets, precision, backend)
    return _summed(task, _batches(choice, batches), split_every, client, shard)


def correct_counts(
    path: RidgePath,
    statistics: RidgeStatistics,
    X: Any,
    y: Any,
    *,
    holdout: float = 1.0,
    seed: int = 0,
    threads: int = 1,
    client: Any = None,
) -> CorrectCounts:
    """How many held-out rows each model of a path classifies correctly: ``fit_model(validation=counts)``.

    Parameters
    ----------
    path : RidgePath
        ``ridge_path(statistics)``; every worker gets its models.
    statistics : RidgeStatistics
        Those of the path: their map, classes and precision are used.
    X, y : dask arrays or data frames
        Those of ``statistics`` with the same ``holdout`` and ``seed``, or validation rows, all of which count.
    holdout : float
    seed : int
    threads : int
    client : distributed.Client, optional

    Returns
    -------
    CorrectCounts
    """
    choice = RowChoice("correct_counts", holdout, seed, held_out=True)
    return _counted(path, WorkerTask.like(statistics, choice, threads), _chunks(choice, X, y, None), client)


def correct_counts_of_batches(
    path: RidgePath, statistics: RidgeStatistics, batches: Any, *, threads: int = 1, client: Any = None
) -> CorrectCounts:
    """``correct_counts`` of all rows of batches, as ``statistics_of_batches`` takes them."""
    choice = RowChoice("correct_counts_of_batches", 1.0, 0, held_out=True)
    return _counted(path, WorkerTask.like(statistics, choice, threads), _batches(choice, batches), client)


def _summed(
    task: WorkerTask, chunks: Sequence[_Chunk], split_every: int, client: Any, shard: str | None
) -> RidgeStatistics:
    where = task.choice.where
    if check_count(where, "split_every", split_every) < 2:
        raise ValueError(f"{where}: split_every must be at least 2, got {split_every}")
    sent = _sent(task)
    parts = [delayed(_part)(sent, *chunk) for chunk in chunks]
    while len(parts) > 1:
        groups = (parts[start : start + split_every] for start in range(0, len(parts), split_every))
        parts = [group[0] if len(group) == 1 else delayed(_merged)(sent, group) for group in groups]
    return task.whole(_computed(parts[0], client), shard)


def _counted(path: RidgePath, task: WorkerTask, chunks: Sequence[_Chunk], client: Any) -> CorrectCounts:
    models, sent = _sent(path), _sent(task)
    counts = [delayed(_correct)(sent, models, *chunk) for chunk in chunks]
    return added_counts(_computed(delayed(list)(counts), client))


def _found_classes(chunks: Sequence[_Chunk], client: Any) -> Classes:
    """The classes that occur, in ascending order: a pass over y."""
    found = [delayed(_labels)(chunk.batches[1], chunk.name) for chunk in chunks]
    return Classes.of("statistics", sorted(set().union(*_computed(delayed(list)(found), client))))


def _chunks(choice: RowChoice, X: Any, y: Any, sample_weight: Any) -> list[_Chunk]:
    """The chunks of X, each with those of y and of the weights."""
    where = choice.where
    given = {"X": X, "y": y} | ({} if sample_weight is None else {"sample_weight": sample_weight})
    for name, array in given.items():
        if not (dask.is_dask_collection(array) and hasattr(array, "to_delayed")):
            remedy = (
                "krrdistill.RidgeStatistics sums what is in this process"
                if name == "X"
                else f"dask.array.from_array({name}, chunks=X.chunks[0]) makes one"
            )
            raise TypeError(
                f"{where}: {name} must be a dask array or data frame, got a {type(array).__name__}; {remedy}"
            )
    parts = [_cut(where, name, array, X) for name, array in given.items()]
    sizes = X.chunks[0] if hasattr(X, "chunks") else (math.nan,) * X.npartitions
    if not any(math.isnan(size) for size in sizes):
        first_rows = np.cumsum((0, *sizes[:-1])).tolist()
        return [
            _Chunk(batch, f"{where}: chunk {number}, rows {first} ... {first + size - 1}", first)
            for number, (batch, first, size) in enumerate(zip(zip(*parts, strict=True), first_rows, sizes, strict=True))
        ]
    if not choice.takes_all:
        remedy = "X.compute_chunk_sizes()" if hasattr(X, "chunks") else "X.to_dask_array(lengths=True)"
        raise DataError(
            f"{where}: holdout goes by the numbers of rows, and the chunks of X have unknown sizes: {remedy} finds them"
        )
    return [_Chunk(batch, f"{where}: chunk {number}") for number, batch in enumerate(zip(*parts, strict=True))]


def _cut(where: str, name: str, array: Any, X: Any) -> list[Any]:
    """The delayed chunks of an array or data frame, cut along its rows like X. Raises DataError."""
    if not hasattr(array, "chunks"):
        pieces = list(array.to_delayed())
    else:
        whole = dict.fromkeys(range(1, array.ndim), -1)
        if name == "X" and any(len(array.chunks[axis]) > 1 for axis in whole):
            raise DataError(f"{where}: the chunks of X cut samples, {array.chunksize}; pass X.rechunk({whole})")
        known = hasattr(X, "chunks") and not any(math.isnan(size) for size in (*X.chunks[0], *array.chunks[0]))
        if known and array.shape[0] != X.shape[0]:
            raise DataError(f"{where}: {name} has {array.shape[0]} rows, X has {X.shape[0]}")
        pieces = array.rechunk({0: X.chunks[0], **whole} if known else whole).to_delayed().ravel().tolist()
    count = X.numblocks[0] if hasattr(X, "chunks") else X.npartitions
    if len(pieces) != count:
        raise DataError(f"{where}: {name} has {len(pieces)} chunks, X has {count}; cut both alike")
    return pieces


def _batches(choice: RowChoice, batches: Any) -> list[_Chunk]:
    """The partitions of a bag, or delayed batches."""
    kind = "partition" if hasattr(batches, "to_delayed") else "batch"
    found = list(batches.to_delayed() if kind == "partition" else batches)
    if not found:
        raise DataError(f"{choice.where}: there are no batches")
    return [_Chunk(batch, f"{choice.where}: {kind} {number}") for number, batch in enumerate(found)]


def _sent(value: Any) -> Any:
    """A value that tasks share: it goes to the scheduler once, and outlives every worker."""
    return delayed(value, pure=False, traverse=False)


def _computed(value: Any, client: Any) -> Any:
    with dask.config.set({_LARGE_GRAPH: "1 TiB"}):  # the map and the models are in it once, on purpose
        return value.compute() if client is None else value.compute(scheduler=client)


# On the workers


def _part(task: WorkerTask, found: Any, name: str, first_row: int | None) -> Part:
    return task.part(_read(found, name, first_row), name)


def _merged(task: WorkerTask, parts: Sequence[Part]) -> Part:
    return task.merged(parts)


def _correct(task: WorkerTask, path: RidgePath, *chunk: Any) -> CorrectCounts:
    return task.correct(path, _read(*chunk))


def _read(found: Any, name: str, first_row: int | None) -> Iterator[Batch]:
    """The batches of a chunk: a tuple is one, anything else holds some."""
    for batch in [found] if isinstance(found, tuple) else found:
        yield Batch.of(name, batch, first_row)


def _labels(y: Any, name: str) -> set[Any]:
    labels = label_array(name, y)
    if labels.dtype.kind == "f":
        raise TypeError(f"{name}: y holds {labels.dtype}; pass classes for labels, n_targets for real values")
    return set(np.unique(labels).tolist())
