"""Statistics in parts, for engines that spread the rows: what a worker is told, and how parts become one.

A part is what ``RidgeStatistics.to_arrays`` gives: a header, and k p + p (p + 1) / 2 numbers besides a few sums. The
feature map is not in it. Nothing writes to a part, so that an engine may keep one, send it twice, or make it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_count, check_number, check_seed
from krrdistill.common.threads import limited_threads
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap
from krrdistill.ridge.batches import is_held_out
from krrdistill.ridge.held_out import HeldOutRows
from krrdistill.ridge.path import RidgePath
from krrdistill.ridge.selection import CorrectCounts, count_correct
from krrdistill.ridge.shards import Shards, digest_name
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["Batch", "Part", "RowChoice", "WorkerTask", "added_counts"]

IntArray = npt.NDArray[np.int64]
Part = tuple[dict[str, Any], dict[str, npt.NDArray[np.float64]]]


@dataclass(frozen=True)
class RowChoice:
    """The rows that are held out, or the others: those of ``RidgeStatistics.update_batches``."""

    where: str
    fraction: float
    seed: int
    held_out: bool

    def __post_init__(self) -> None:
        if check_number(self.where, "holdout", self.fraction) > 1.0:
            raise ValueError(f"{self.where}: holdout must be a part of the rows, 0 ... 1, got {self.fraction}")
        if self.fraction == 1.0 and not self.held_out:
            raise ValueError(f"{self.where}: holdout must be below 1, got {self.fraction}: no row is left to sum")
        check_seed(self.where, self.seed)

    @property
    def takes_all(self) -> bool:
        """Whether no row is left out, so that row numbers are not needed."""
        return self.fraction == (1.0 if self.held_out else 0.0)

    def of(self, numbers: IntArray | None) -> IntArray | None:
        """Indices of the chosen among rows that have these numbers in the whole data; None for all."""
        if self.takes_all or numbers is None:
            return None
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)  # of rows that follow each other
        found = [is_held_out(self.fraction, self.seed, int(run[0]), len(run)) for run in runs if len(run)]
        held_out = np.concatenate([np.empty(0, dtype=bool), *found])
        return np.flatnonzero(held_out == self.held_out)


class Batch(NamedTuple):
    """Some rows, and what messages begin with: the function, and which rows."""

    name: str
    X: Any
    y: Any
    sample_weight: Any = None
    numbers: IntArray | None = None  # of the rows in the whole data

    @staticmethod
    def of(name: str, batch: Any, first_row: int | None = None) -> Batch:
        """From ``(X, y)`` or ``(X, y, sample_weight)``, whose first row has this number."""
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(f"{name}: a batch must be (X, y) or (X, y, sample_weight), got a {type(batch).__name__}")
        found = Batch(name, *batch)
        n = len(HeldOutRows(found.X, found.y))
        return found if first_row is None else found._replace(numbers=np.arange(first_row, first_row + n))


@dataclass(frozen=True, eq=False)
class WorkerTask:
    """What each worker does with its batches, on ``threads`` threads of BLAS and OpenMP in every task."""

    choice: RowChoice
    threads: int
    feature_map: FeatureMap
    classes: Any
    n_targets: int | None
    precision: str
    backend: str | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_count(self.choice.where, "threads", self.threads)
        self.empty()

    @staticmethod
    def like(statistics: RidgeStatistics, choice: RowChoice, threads: int) -> WorkerTask:
        """For the map, the classes, the precision and the columns of some statistics."""
        k = statistics.k if statistics.classes is None else None
        phi, classes = statistics.feature_map, statistics.classes
        return WorkerTask(choice, threads, phi, classes, k, statistics.precision, columns=statistics.columns)

    def empty(self, shard: str | None = None) -> RidgeStatistics:
        """Statistics of no samples. Raises TypeError, ValueError for arguments that do not fit."""
        made = RidgeStatistics(
            self.feature_map,
            self.classes,
            n_targets=self.n_targets,
            precision=self.precision,
            backend=self.backend,
            shard=shard,
        )
        made.columns = self.columns
        return made

    def part(self, batches: Iterable[Batch], shard: str) -> Part:
        """The part of the chosen rows; ``shard`` is what it is called, so that it is not added twice."""
        statistics = self.empty(shard)
        for name, X, y, sample_weight, numbers in batches:
            with self._work(name):
                statistics.update(X, y, sample_weight=sample_weight, rows=self.choice.of(numbers))
        return _read_only(statistics.to_arrays())

    def merged(self, parts: Sequence[Part]) -> Part:
        """The sum of parts in their order; triangles are added as they are."""
        first, *others = parts
        total = RidgeStatistics.from_arrays(self.feature_map, *first)
        with limited_threads(self.threads):
            for part in others:
                total += RidgeStatistics.from_arrays(self.feature_map, *part)
        return _read_only(total.to_arrays())

    def whole(self, part: Part, shard: str | None) -> RidgeStatistics:
        """The statistics of the sum of all parts, which are one shard from now on: by default a digest of the sums."""
        header, arrays = part
        sums = {name: array for name, array in arrays.items() if name not in ("gram", "features", "targets")}
        shards = Shards(shard or digest_name(sums))
        header = {**header, "shards": shards.to_json(), "own_rows": header["n"]}
        own = {name: np.array(array) for name, array in arrays.items()}  # an engine keeps the memory of what it gave
        return RidgeStatistics.from_arrays(self.feature_map, *_read_only((header, own)), backend=self.backend)

    def correct(self, path: RidgePath, batches: Iterable[Batch]) -> CorrectCounts:
        """How many of the chosen rows each model classifies correctly."""
        total, like = CorrectCounts(np.zeros(len(path.lambdas), dtype=np.int64), 0), self.empty()
        for name, X, y, _, numbers in batches:
            with self._work(name):
                total += count_correct(path, like, HeldOutRows(X, y, rows=self.choice.of(numbers)))
        return total

    @contextmanager
    def _work(self, name: str) -> Iterator[None]:
        """Limits the threads; what is refused inside of the block is refused in the name of the batch."""
        try:
            with limited_threads(self.threads):
                yield
        except (DataError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from error


def _read_only(part: Part) -> Part:
    """The part, to which nobody can write: engines need not copy it, nor merging unpack it."""
    for array in part[1].values():
        array.setflags(write=False)
    return part


def added_counts(counts: Sequence[CorrectCounts]) -> CorrectCounts:
    """The sum of counts of disjoint samples. Raises DataError for those of different lambdas."""
    return sum(counts[1:], counts[0])
