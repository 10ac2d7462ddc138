"""Ray: ridge statistics of a Ray data set, from a pool of workers that stream it, and added up in pairs.

Ray gives the next block to the worker that asks for it, so that sums round differently from run to run.

>>> import ray
>>> from krrdistill.interop.ray import statistics
>>> dataset = ray.data.from_numpy(X).zip(ray.data.from_numpy(y))  # or read_parquet, read_images, ...
>>> statistics(dataset, kd.Identity(64), classes=10, x="data", y="data_1")
RidgeStatistics(n=1000, p=64, k=10, classes, products in float32)
"""

from __future__ import annotations

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
    import ray
    import ray.data
except ImportError as unusable:
    raise BackendUnavailable(
        f'krrdistill.interop.ray needs Ray Data ({unusable}): pip install "krrdistill[ray]"'
    ) from unusable

__all__ = ["correct_counts", "statistics"]


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
        By default as many as the cluster has CPUs, over ``threads``. They reserve no CPU: Ray Data needs some.
    threads : int
        Of BLAS and OpenMP, in every worker.
    batch_size : int
        Rows that a worker reads at a time.
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
    parts = _run(choice.where, _part, (sent, columns), dataset, workers, threads, batch_size)
    while len(parts) > 1:  # in pairs, where they lie
        pairs = (parts[start : start + 2] for start in range(0, len(parts), 2))
        parts = [_remote(_merged).remote(sent, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return task.whole(ray.get(parts[0]), shard)


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
    return added_counts(ray.get(counts))


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
) -> list[Any]:
    """References to what ``work`` made of each share of the rows; the first failure ends all of them.

    Tasks, not actors: Ray keeps their processes, which then import the package once, and starts a new one for each
    actor. None is tried again, since its share of the rows is gone.
    """
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(f"{where}: dataset must be a ray.data.Dataset, got a {type(dataset).__name__}")
    check_count(where, "batch_size", batch_size)
    count = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads) if workers is None else workers
    shares = dataset.streaming_split(check_count(where, "workers", count), equal=False)
    run = _remote(work, num_returns=2, max_retries=0)
    started = [
        run.remote(*arguments, share, batch_size, f"{where}: worker {number}") for number, share in enumerate(shares)
    ]
    pending = [ended for ended, _ in started]
    try:
        while pending:
            done, pending = ray.wait(pending)
            ray.get(done)
    except BaseException as error:
        for ended, _ in started:
            ray.cancel(ended, force=True)
        if isinstance(error, ray.exceptions.RayTaskError):
            raise error.cause from error
        raise
    return [made for _, made in started]


def _remote(work: Any, **options: Any) -> Any:
    """Reserves no CPU, so that Ray Data always finds one; spread over the nodes."""
    return ray.remote(work).options(num_cpus=0, scheduling_strategy="SPREAD", **options)


# On the workers


def _part(task: WorkerTask, columns: _Columns, rows: Any, batch_size: int, name: str) -> tuple[None, Part]:
    """A sign that it ended, and the part of its rows, which stays where it is."""
    return None, task.part(_batches(columns, rows, batch_size, name), name)


def _correct(
    task: WorkerTask, columns: _Columns, path: RidgePath, rows: Any, batch_size: int, name: str
) -> tuple[None, CorrectCounts]:
    return None, task.correct(path, _batches(columns, rows, batch_size, name))


def _batches(columns: _Columns, rows: Any, batch_size: int, name: str) -> Iterator[Batch]:
    for number, found in enumerate(rows.iter_batches(batch_size=batch_size, batch_format=columns.format)):
        yield columns.batch(f"{name}, batch {number}", found)


def _merged(task: WorkerTask, *parts: Part) -> Part:
    return task.merged(parts)
