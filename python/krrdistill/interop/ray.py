"""Ray: ridge statistics of a Ray data set, in tasks that take its blocks as they are read, and added up in pairs.

Blocks arrive in any order, so that sums round differently from run to run. Only references to them pass through the
process that asks.

>>> import ray
>>> from krrdistill.interop.ray import statistics
>>> dataset = ray.data.from_numpy(X).zip(ray.data.from_numpy(y))  # or read_parquet, read_images, ...
>>> statistics(dataset, kd.Identity(64), classes=10, x="data", y="data_1")
RidgeStatistics(n=1000, p=64, k=10, classes, products in float32)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from krrdistill.common.arrays import check_count
from krrdistill.errors import BackendUnavailable, DataError
from krrdistill.maps import FeatureMap
from krrdistill.ridge.path import RidgePath
from krrdistill.ridge.selection import CorrectCounts
from krrdistill.ridge.statistics import RidgeStatistics

from .parts import Batch, Part, RowChoice, WorkerTask, added_counts

try:
    import pandas as pd
    import ray
    import ray.data
    from ray.data.block import BlockAccessor
except ImportError as unusable:
    raise BackendUnavailable(
        f'krrdistill.interop.ray needs Ray Data ({unusable}): pip install "krrdistill[ray]"'
    ) from unusable

__all__ = ["correct_counts", "statistics"]

_SHARES = 16
"""Tasks that each worker is to have at least, where there are many rows."""
_SHARE_BYTES = 256 << 20
"""Of blocks that one task takes."""


def statistics(
    dataset: Any,
    feature_map: FeatureMap,
    classes: Any = None,
    *,
    x: str | Sequence[str],
    y: str | Sequence[str],
    sample_weight: str | None = None,
    row: str | None = None,
    n_targets: int | None = None,
    precision: str = "float32",
    holdout: float = 0.0,
    seed: int = 0,
    held_out: bool = False,
    workers: int | None = None,
    threads: int = 1,
    batch_size: int = 8192,
    backend: str | None = None,
    shard: str | None = None,
) -> RidgeStatistics:
    """``RidgeStatistics`` of the rows of a Ray data set.

    Parameters
    ----------
    dataset : ray.data.Dataset
    feature_map : FeatureMap
    classes : int or sequence of labels, optional
        Must be given, unless ``n_targets`` is: finding them would read all data twice (``dataset.unique(y)`` does).
    x : str or sequence of str
        The column of samples (tensors), or columns of numbers.
    y : str or sequence of str
        The column of labels or targets, or columns of targets.
    sample_weight : str, optional
        The column of weights.
    row : str, optional
        The column of row numbers, >= 0, that ``holdout`` needs: the order of rows is not kept.
    n_targets : int, optional
        k, of real-valued or 0/1 targets, in place of ``classes``.
    precision : "float32" or "float64"
    holdout : float
        Share of the rows to hold out, by a hash of ``seed`` and the row number: pass the same two to
        ``correct_counts``.
    seed : int
    held_out : bool
        The statistics of the rows that are held out, in place of those of the others: real-valued targets choose
        lambda by them.
    workers : int, optional
        Tasks at a time: by default as many as the cluster has CPUs, over ``threads``. They reserve no CPU: Ray Data
        needs some.
    threads : int
        Of BLAS and OpenMP, in every task.
    batch_size : int
        Rows that are summed at a time, and those that a task has at least.
    backend : str, optional
    shard : str, optional
        What the result is called where it is merged with others; by default a digest of the sums.

    Returns
    -------
    RidgeStatistics

    Raises
    ------
    DataError, TypeError
        For what ``RidgeStatistics.update`` refuses on a worker, and for rows to hold out without numbers.
    """
    choice = RowChoice("statistics", holdout, seed, held_out)
    task = WorkerTask(choice, threads, feature_map, classes, n_targets, precision, backend)
    sent, columns = ray.put(task), _Columns(x, y, sample_weight, row)
    columns.check(choice)
    parts: list[Any] = []  # the n-th is the sum of 2^n tasks, or None
    for part in _run(choice.where, _part, (sent, columns), dataset, workers, threads, batch_size):
        _carry(parts, part, sent)
    whole = functools.reduce(lambda one, other: _remote(_merged).remote(sent, one, other), filter(None, parts))
    return task.whole(_got(whole), shard)


def correct_counts(
    path: RidgePath,
    statistics: RidgeStatistics,
    dataset: Any,
    *,
    x: str | Sequence[str],
    y: str,
    row: str | None = None,
    holdout: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    threads: int = 1,
    batch_size: int = 8192,
) -> CorrectCounts:
    """How many held-out rows each model of a path classifies correctly: ``fit_model(validation=counts)``.

    Parameters
    ----------
    path : RidgePath
        ``ridge_path(statistics)``; every worker gets its models.
    statistics : RidgeStatistics
        Those of the path: their map, classes and precision are used.
    dataset : ray.data.Dataset
        That of ``statistics`` with the same ``holdout`` and ``seed``, or validation rows, all of which count.
    x, y, row, holdout, seed, workers, threads, batch_size
        As in ``statistics``.

    Returns
    -------
    CorrectCounts
    """
    choice = RowChoice("correct_counts", holdout, seed, held_out=True)
    sent, columns = ray.put(WorkerTask.like(statistics, choice, threads)), _Columns(x, y, None, row)
    columns.check(choice)
    counts = _run(choice.where, _correct, (sent, columns, ray.put(path)), dataset, workers, threads, batch_size)
    return added_counts(_got(list(counts)))


class _Columns(NamedTuple):
    """Names of the columns that a batch is made of."""

    x: str | Sequence[str]
    y: str | Sequence[str]
    sample_weight: str | None
    row: str | None

    def check(self, choice: RowChoice) -> None:
        """Raises TypeError where row numbers are needed and no column has them."""
        if self.row is None and not choice.takes_all:
            raise TypeError(
                f"{choice.where}: holdout goes by the numbers of rows, and Ray does not keep their order: pass "
                "row='COLUMN' of distinct integers, or split the data set (Dataset.train_test_split)"
            )

    @property
    def format(self) -> str:
        """What Ray makes of a batch: a data frame where X is columns of one."""
        return "numpy" if isinstance(self.x, str) else "pandas"

    def batch(self, name: str, found: Any) -> Batch:
        """From the columns by name. Raises DataError for one that is not there."""
        named = [name for names in (self.x, self.y, self.sample_weight, self.row) for name in _listed(names)]
        absent = [column for column in named if column not in found]
        if absent:
            columns = ", ".join(found)
            raise DataError(f"{name}: the data set has no column {absent[0]!r}; its columns are {columns}")
        X = found[self.x if isinstance(self.x, str) else list(self.x)]
        y = found[self.y] if isinstance(self.y, str) else np.column_stack([found[column] for column in self.y])
        weights = None if self.sample_weight is None else np.asarray(found[self.sample_weight])
        numbers = None if self.row is None else np.asarray(found[self.row])
        if numbers is not None and numbers.dtype.kind not in "iu":
            raise TypeError(f"{name}: the column {self.row!r} must hold integers, got {numbers.dtype}")
        return Batch(name, X, y, weights, numbers)


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _run(
    where: str,
    work: Callable[..., tuple[None, Any]],
    arguments: tuple[Any, ...],
    dataset: Any,
    workers: int | None,
    threads: int,
    batch_size: int,
) -> Iterator[Any]:
    """References to what ``work`` made of some blocks each, as tasks end. The first failure ends the pass.

    Tasks, not actors: Ray keeps their processes, which then import the package once, and starts a new one for each
    actor. ``Dataset.streaming_split`` has one, too, and took 1.1 s of every pass (2 cores) before the first row.
    After a failure the few tasks that run come to their end, and nobody takes what they made: ``ray.cancel``, with and
    without ``force``, could end this process, too (Ray 2.60).
    """
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"{where}: dataset must be a ray.data.Dataset, got a {type(dataset).__name__}")
    check_count(where, "batch_size", batch_size)
    count = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads) if workers is None else workers
    check_count(where, "workers", count)
    run = _remote(work, num_returns=2)
    pending: dict[Any, Any] = {}  # sign of the end of a task: its result
    for number, share in enumerate(_shares(dataset, count, batch_size)):
        if len(pending) == count:
            yield _next(pending)
        cuts, blocks = [block.cut for block in share], [block.reference for block in share]
        ended, made = run.remote(*arguments, batch_size, f"{where}: task {number}", cuts, *blocks)
        pending[ended] = made
    while pending:
        yield _next(pending)


def _got(references: Any) -> Any:
    """What they refer to. Raises what the task raised."""
    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _next(pending: dict[Any, Any]) -> Any:
    """Waits until a task ended, and takes its result from those pending. Raises what the task raised."""
    [ended], _ = ray.wait(list(pending))
    _got(ended)
    return pending.pop(ended)


class _Block(NamedTuple):
    """A block that Ray has read."""

    reference: Any
    rows: int
    size: int  # bytes
    cut: tuple[int, int] | None  # the rows that count, where not all do

    @staticmethod
    def of(dataset: Any) -> Iterator[_Block]:
        """All blocks, as they are read."""
        for bundle in dataset.iter_internal_ref_bundles():
            cuts = getattr(bundle, "slices", None) or [None] * len(bundle.block_refs)  # older versions have none
            for reference, facts, cut in zip(bundle.block_refs, bundle.metadata, cuts, strict=True):
                bounds = None if cut is None else (cut.start_offset, cut.end_offset)
                rows = facts.num_rows or 0 if cut is None else cut.num_rows
                yield _Block(reference, rows, facts.size_bytes or 0, bounds)


def _shares(dataset: Any, workers: int, batch_size: int) -> Iterator[list[_Block]]:
    """The blocks of each task; at least one share.

    Every task packs its sums, which takes as long for few rows as for many. So a share has a batch at least, and a
    small part of all rows so far, unless its blocks would fill the store of objects.
    """
    share: list[_Block] = []
    total = rows = size = 0
    for block in _Block.of(dataset):
        share.append(block)
        rows, size = rows + block.rows, size + block.size
        if rows >= max(batch_size, total // (_SHARES * workers)) or size >= _SHARE_BYTES:
            yield share
            share, total, rows, size = [], total + rows, 0, 0
    if share or not total:
        yield share


def _carry(parts: list[Any], part: Any, sent: Any) -> None:
    """Adds a part as binary numbers carry: few parts exist at a time, and each is in few sums."""
    for place, other in enumerate(parts):
        if other is None:
            parts[place] = part
            return
        part, parts[place] = _remote(_merged).remote(sent, other, part), None
    parts.append(part)


def _remote(work: Any, **options: Any) -> Any:
    """Reserves no CPU, so that Ray Data always finds one; spread over the nodes."""
    return ray.remote(work).options(num_cpus=0, scheduling_strategy="SPREAD", **options)


# On the workers


def _part(
    task: WorkerTask, columns: _Columns, batch_size: int, name: str, cuts: Sequence[Any], *blocks: Any
) -> tuple[None, Part]:
    """A sign that it ended, and the part of its rows, which stays where it is."""
    return None, task.part(_batches(columns, batch_size, name, cuts, blocks), name)


def _correct(
    task: WorkerTask, columns: _Columns, path: RidgePath, batch_size: int, name: str, cuts: Sequence[Any], *blocks: Any
) -> tuple[None, CorrectCounts]:
    return None, task.correct(path, _batches(columns, batch_size, name, cuts, blocks))


def _batches(
    columns: _Columns, batch_size: int, name: str, cuts: Sequence[Any], blocks: Sequence[Any]
) -> Iterator[Batch]:
    """The rows of blocks in batches of so many, or up to twice as many; small blocks are put together.

    A block is cut before its columns are arrays: what lies in one piece is not copied then, and no copy is larger than
    two batches.
    """
    held: list[Batch] = []
    number, last = itertools.count(), len(blocks) - 1
    for place, (block, cut) in enumerate(zip(blocks, cuts, strict=True)):
        rows = BlockAccessor.for_block(block)
        first, end = cut or (0, rows.num_rows())
        for start in range(first, end, batch_size):
            piece = BlockAccessor.for_block(rows.slice(start, min(start + batch_size, end)))
            held.append(columns.batch(f"{name}, batch {next(number)}", piece.to_batch_format(columns.format)))
            if sum(len(batch.X) for batch in held) >= batch_size:
                yield _whole(held)
                held = []
        if held and place == last:
            yield _whole(held)


def _whole(batches: Sequence[Batch]) -> Batch:
    """Batches as one, called by the first, and by the numbers of its rows, where a column has them."""
    found = Batch(batches[0].name, *map(_joined, list(zip(*batches, strict=True))[1:]))
    numbers = found.numbers
    if numbers is None:
        return found
    return found._replace(name=f"{found.name}, rows numbered {numbers.min()} ... {numbers.max()}")


def _joined(fields: Sequence[Any]) -> Any:
    """The same columns of several blocks, one behind the other."""
    first = fields[0]
    if len(fields) == 1 or first is None:
        return first
    return np.concatenate(fields) if isinstance(first, np.ndarray) else pd.concat(fields, ignore_index=True)


def _merged(task: WorkerTask, *parts: Part) -> Part:
    return task.merged(parts)
