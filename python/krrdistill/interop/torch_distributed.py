"""torch.distributed: the statistics of all ranks in one all_reduce, and what lambda is chosen by in another.

>>> import torch.distributed as dist
>>> from krrdistill.interop.torch_distributed import all_reduce
>>> dist.init_process_group("gloo")
>>> own = kd.RidgeStatistics(phi, classes=10).update(X[rank::world_size], y[rank::world_size])
>>> statistics = all_reduce(own)  # the same on every rank
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, PackedGram, Products, get_backend
from krrdistill.common.warning import warn
from krrdistill.errors import BackendUnavailable, DataError, DataWarning
from krrdistill.maps import FeatureMap
from krrdistill.ridge.selection import CorrectCounts
from krrdistill.ridge.shards import Shards
from krrdistill.ridge.statistics import RidgeStatistics
from krrdistill.ridge.statistics_format import products_of
from krrdistill.ridge.stores import store_of
from krrdistill.ridge.sums import Sums

from .parts import added_counts

try:
    import torch
    import torch.distributed as dist
except ImportError as unusable:
    raise BackendUnavailable(
        f"krrdistill.interop.torch_distributed needs PyTorch ({unusable}): pip install torch"
    ) from unusable

__all__ = ["all_reduce", "all_reduce_counts", "check_sampler"]

T = TypeVar("T")
FloatArray = npt.NDArray[np.float64]
_SIZES = ("input_count", "input_squares")  # of samples: the units that X was in
_ALIKE = {"precision": "precision", "classes": "classes", "k": "number of targets", "p": "number of features"}


def all_reduce(statistics: RidgeStatistics | Callable[[], RidgeStatistics], group: Any = None) -> RidgeStatistics:
    """The sum of the statistics of all ranks, on every rank.

    All ranks compare what their statistics are of; then one ``all_reduce`` sums k p + p (p + 1) / 2 float64 numbers
    besides a few sums. While all ranks together have fewer samples than features, the rows travel in place of G.

    Parameters
    ----------
    statistics : RidgeStatistics, or a function of no arguments that makes them
        Of the samples of this rank; they stay what they are. Where the function fails on one rank, all ranks raise, and
        none waits for it.
    group : torch.distributed.ProcessGroup, optional
        By default all processes. The numbers travel through host memory (gloo), or through the current CUDA device
        (NCCL). If this is the device where a rank has its G, that G stays there: it is packed, added and unpacked on
        the device. Any other G goes through host memory first.

    Returns
    -------
    RidgeStatistics
        With G on the device where it stayed there, and the backend that it belongs to; else in host memory.

    Raises
    ------
    DataError
        On every rank, with the number of the first one whose map, classes, precision or columns are not those of rank
        0, or that has a shard of a rank before it.
    """
    return _all_reduce(statistics, _Ranks(group))


def _all_reduce(statistics: Any, ranks: _Ranks) -> RidgeStatistics:
    own, headers = _agreed("all_reduce", ranks, lambda: _described(statistics, ranks.device))
    header = _joint_header(headers)
    _, fits = _agreed("all_reduce", ranks, lambda: (None, own.has_map(headers[0]["map"])))
    if not all(fits):
        raise DataError(
            f"all_reduce: rank {fits.index(False)} has another feature map or preprocessing than rank 0; all ranks "
            "take one map with one scaling, of krrdistill.Moments that were added"
        )
    layout = _Layout.of(headers, header)
    numbers, _ = _agreed("all_reduce", ranks, lambda: (own.numbers(layout, ranks.rank), None))
    if own.gram is None:
        return RidgeStatistics.from_arrays(own.feature_map, header, layout.arrays(ranks.summed(numbers)))
    ranks.add_there(own.gram.shared())
    arrays = layout.arrays(own.gram.read())
    return RidgeStatistics.from_arrays(own.feature_map, header, arrays, backend=own.backend, gram=own.gram.unpacked())


def all_reduce_counts(counts: CorrectCounts | Callable[[], CorrectCounts], group: Any = None) -> CorrectCounts:
    """The sum of the correct counts of all ranks, on every rank: ``fit_model(statistics, validation=counts)``.

    Parameters
    ----------
    counts : CorrectCounts, or a function of no arguments that makes them
        Of ``count_correct(path, statistics, held_out)`` with the held-out samples of this rank, and the path of what
        ``all_reduce`` gave.
    group : torch.distributed.ProcessGroup, optional

    Returns
    -------
    CorrectCounts

    Raises
    ------
    DataError
        On every rank, where one failed or has counts of other lambdas.
    """
    _, found = _agreed("all_reduce_counts", _Ranks(group), lambda: (None, _called(counts, CorrectCounts)))
    return added_counts(found)


def check_sampler(sampler: Any) -> None:
    """Warns of samples that a ``DistributedSampler`` repeats or leaves out so that all ranks have equally many.

    Parameters
    ----------
    sampler : torch.utils.data.DistributedSampler
        Statistics would count a repeated sample twice.
    """
    n, total, world_size = len(sampler.dataset), int(sampler.total_size), int(sampler.num_replicas)
    if total != n:
        change = f"repeats {total - n}" if total > n else f"leaves out {n - total}"
        warn(
            f"all_reduce: the DistributedSampler {change} of {n} samples, so that each of {world_size} ranks has as "
            "many; statistics need each sample once: torch.utils.data.Subset(dataset, range(rank, len(dataset), "
            "world_size)) without this sampler",
            DataWarning,
        )


class _Ranks:
    """What is asked of a process group."""

    def __init__(self, group: Any) -> None:
        self._group = group

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(dist.get_rank(self._group))

    @property
    def device(self) -> int | None:
        """The CUDA device that numbers are added on (NCCL); None: in host memory."""
        return None if "cpu:" in dist.get_backend_config(self._group) else int(torch.cuda.current_device())

    def told(self, fact: Any) -> list[Any]:
        """What every rank tells."""
        found: list[Any] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(found, fact, group=self._group)
        return found

    def summed(self, numbers: FloatArray) -> FloatArray:
        """The sum over all ranks, in place where that is possible."""
        tensor = torch.from_numpy(numbers)
        if self.device is not None:
            tensor = tensor.to(torch.device("cuda", self.device))
        dist.all_reduce(tensor, group=self._group)
        return np.asarray(tensor.cpu().numpy())

    def add_there(self, numbers: Any) -> None:
        """An array on ``device`` becomes the sum over all ranks. It is there when this returns."""
        tensor = torch.from_dlpack(numbers).view(-1)
        dist.all_reduce(tensor, group=self._group)
        torch.cuda.current_stream(self.device).synchronize()  # all_reduce only makes this stream wait


class _Own(NamedTuple):
    """The statistics of this rank, as arrays."""

    feature_map: FeatureMap
    backend: Backend
    header: dict[str, Any]
    arrays: dict[str, FloatArray]
    gram: PackedGram | None  # on the device of the ranks, in the place of that of ``arrays``

    def has_map(self, spec: dict[str, Any]) -> bool:
        """Whether the map is that of another rank."""
        try:
            self.feature_map.check_spec(spec)
        except DataError:
            return False
        return True

    def numbers(self, layout: _Layout, rank: int) -> FloatArray:
        """All numbers in one array (its length is the same on all ranks), with targets about the common origin.

        All but a packed G on the device: then they are written before that, too.
        """
        arrays, shift = self.arrays, self.arrays["target_origin"] - layout.origin
        sums = Sums(
            self.header["n"],
            float(arrays["total_weight"]),
            *(arrays[name] for name in ("target_square", "target_sum", "feature_sum", "cross")),
        ).moved(shift)
        parts = {name: np.asarray(getattr(sums, name)) for name in layout.shapes if hasattr(sums, name)}
        parts |= {name: arrays.get(name, np.zeros(layout.shapes[name])) for name in _SIZES}
        if self.gram is not None:
            numbers = np.concatenate([parts[name].ravel() for name in layout.shapes if name != "gram"])
            self.gram.write(numbers)
            return numbers
        if "gram" not in layout.shapes:
            place = layout.places[rank]
            for name in ("features", "targets"):
                parts[name] = np.zeros(layout.shapes[name])
                parts[name][place] = arrays[name]
            parts["targets"][place, :-1] += arrays["targets"][:, -1:] * shift
        elif "gram" in arrays:
            parts["gram"] = arrays["gram"]
        else:  # fewer samples than features on this rank only
            p, k = self.header["p"], self.header["k"]
            parts["gram"] = store_of(arrays, p).summed(get_backend()).arrays(k)["gram"]
        return np.concatenate([parts[name].ravel() for name in layout.shapes])


class _Layout(NamedTuple):
    """What the sum of all ranks consists of."""

    shapes: dict[str, tuple[int, ...]]
    origin: FloatArray  # what is subtracted from targets
    places: list[slice]  # of the rows of every rank, where rows travel

    @staticmethod
    def of(headers: Sequence[dict[str, Any]], header: dict[str, Any]) -> _Layout:
        """Rows while all ranks together have fewer than p, else G; the origin is that of the first with samples."""
        k, p = header["k"], header["p"]
        rows = [one["rows"] for one in headers]
        ends = np.cumsum([0, *(0 if count is None else count for count in rows)]).tolist()
        in_rows = None not in rows and ends[-1] < p
        held = {"features": (ends[-1], p), "targets": (ends[-1], k + 1)} if in_rows else {"gram": (p * (p + 1) // 2,)}
        shapes = {**_small_shapes(k, p, math.prod(header["shape"])), **held}  # G is the last: it may be on a device
        origin = np.asarray(_first_with_samples(headers)["origin"])
        return _Layout(shapes, origin, [slice(*ends[rank : rank + 2]) for rank in range(len(headers))])

    def arrays(self, numbers: FloatArray) -> dict[str, FloatArray]:
        """The arrays again, or those before G."""
        arrays, start = {}, 0
        for name, shape in self.shapes.items():
            part = numbers[start : start + math.prod(shape)]
            if part.size or name != "gram":
                arrays[name] = part.reshape(shape)
            start += math.prod(shape)
        small = {name: array.copy() for name, array in arrays.items() if name != "gram"}  # they outlive the buffer
        if not small["input_count"]:  # no rank has samples
            small, arrays = ({name: one[name] for name in one if name not in _SIZES} for one in (small, arrays))
        return {**arrays, **small, "target_origin": self.origin}


def _small_shapes(k: int, p: int, d: int) -> dict[str, tuple[int, ...]]:
    """Of what travels besides G or rows, by name."""
    return {
        "total_weight": (),
        "target_square": (k,),
        "target_sum": (k,),
        "feature_sum": (p,),
        "cross": (k, p),
        "input_count": (),
        "input_squares": (d,),
    }


def _described(statistics: Any, device: int | None) -> tuple[_Own, dict[str, Any]]:
    """(the statistics of this rank, what the others have to know of them)."""
    own, gram = _called(statistics, RidgeStatistics), None
    if device is None:
        header, arrays = own.to_arrays()
    else:
        phi = own.feature_map
        shapes = _small_shapes(own.k, phi.output_dim, phi.input_dim)
        header, arrays, gram = own.to_arrays_on(device, sum(map(math.prod, shapes.values())))
    rows = len(arrays["features"]) if "features" in arrays else None
    told = {**header, "rows": rows, "origin": arrays["target_origin"].tolist()}
    return _Own(own.feature_map, own.backend, header, arrays, gram), told


def _first_with_samples(headers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((header for header in headers if header["n"]), headers[0])


def _joint_header(headers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The header of the sum, the same on all ranks. Raises DataError where the ranks do not fit together."""
    shards = Shards()
    for rank, header in enumerate(headers):
        for name, what in _ALIKE.items():
            if header[name] != headers[0][name]:
                raise DataError(f"all_reduce: rank {rank} has the {what} {header[name]}, rank 0 has {headers[0][name]}")
        shards = shards.plus(f"all_reduce: rank {rank}", Shards.from_json(header["shards"]))
    named = [(rank, header["columns"]) for rank, header in enumerate(headers) if "columns" in header]
    for rank, columns in named:
        if columns != named[0][1]:
            raise DataError(
                f"all_reduce: rank {rank} has other columns of X than rank {named[0][0]}, or in another order"
            )
    products = functools.reduce(Products.worse, (products_of(header) for header in headers))
    return {
        **_first_with_samples(headers),
        **({"columns": named[0][1]} if named else {}),
        "n": sum(header["n"] for header in headers),
        "binary": all(header["binary"] for header in headers),
        "product_precision": products.precision,
        "product_rounding": products.rounding,
        "shards": shards.to_json(),
        "rows_read": 0,
        "stream": None,
    }


def _called(given: Any, kind: type[T]) -> T:
    """An object of this kind, or what a function makes."""
    made = given() if callable(given) else given
    if not isinstance(made, kind):
        raise TypeError(f"it needs {kind.__name__}, or a function that makes them, got a {type(made).__name__}")
    return made


def _agreed(where: str, ranks: _Ranks, work: Callable[[], tuple[T, Any]]) -> tuple[T, list[Any]]:
    """(what ``work`` made, what it told on every rank). Where it fails on one rank, all raise."""
    error: Exception | None = None
    made: Any = None
    told = None
    try:
        made, told = work()
    except Exception as failure:
        error = failure
    found = ranks.told((told, None if error is None else f"{type(error).__name__}: {error}"))
    if error is not None:
        raise error
    for rank, (_, failed) in enumerate(found):
        if failed is not None:
            raise DataError(f"{where}: rank {rank} failed: {failed}")
    return made, [told for told, _ in found]
