"""What an update and a whole run cost besides arithmetic: calls that wait or allocate, and bytes over the bus.

Counted on the emulated device, where sizes are small. The formulas hold for any size; docs/guide/backends.md has them
for CIFAR-100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
from conftest import CudaArray, framework, set_tile_rows
from krrdistill.backends import cuda as module
from krrdistill.backends.cuda import CudaBackend

Array = npt.NDArray[Any]
WAITING = ("cudaStreamSynchronize", "cudaEventSynchronize")
ALLOCATING = ("cudaMalloc", "cudaMallocHost", "cudaFree", "cudaFreeHost")
ASKING = ("cudaMemGetInfo",)


class Cost(NamedTuple):
    """Of some operations."""

    waits: int
    to_device: int
    to_host: int
    allocations: int = 0  # memory that was taken or given back
    questions: int = 0  # how much memory is free


class Meter:
    """Counts what was done since the last look."""

    def __init__(self, device: ModuleType) -> None:
        self.device, self.calls = device, Counter[str]()
        self.look()

    def look(self) -> Cost:
        self.calls = Counter(self.device.calls_by_name())
        waits, allocations, questions = (
            sum(self.calls[name] for name in names) for names in (WAITING, ALLOCATING, ASKING)
        )
        return Cost(waits, *self.device.bus_bytes(), allocations, questions)


# One update


@pytest.fixture
def on_device(closed_device: Any, device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts arrays on the device before anything is counted: array-api-strict's, in memory that stays."""
    strict = framework("array_api_strict")
    held: dict[int, CudaArray] = {}

    def put(x: Array) -> Any:
        made = strict.asarray(x, device=closed_device)
        held[made._array.ctypes.data] = CudaArray(x)
        return made

    Strict = type(strict.zeros(1))
    host = Strict.__dlpack__

    def share(self: Any, **options: Any) -> Any:
        there = self.device == closed_device
        return held[self._array.ctypes.data].__dlpack__(**options) if there else host(self, **options)

    monkeypatch.setattr(Strict, "__dlpack__", share)
    yield put
    held.clear()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_an_update_moves_no_g_and_allocates_nothing(
    on_device: Any,
    device: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    where: str,
    kernel: str,
    dtype: str,
) -> None:
    n, p, k, tiles = 700, 528, 100, 6  # as many tiles as CIFAR-100 has in host memory, C as there above 256 KiB
    backend = CudaBackend()
    set_tile_rows(monkeypatch, backend, 128)
    X, y = rng.integers(0, 256, (n, p), dtype=np.uint8), np.arange(n) % k
    X = X if dtype == "uint8" else (X / 255).astype(np.float32)
    given = X if where == "host" else on_device(X)
    statistics = kd.RidgeStatistics(kd.Identity(p) if kernel == "identity" else kd.FCNN(p, seed=1), k, backend=backend)
    for _ in range(2):  # G begins; then it is added to, in memory that waits from then on
        statistics.update(given, y)
    meter = Meter(device)
    statistics.update(given, y)
    found = meter.look()

    exact = dtype == "uint8" and kernel == "identity"  # sums of integers
    waits = (
        (tiles - 2)  # of two tiles under way one must be done
        + 1  # NaN in the data
        + (0 if exact else 2)  # squares and units of the slices, which bound the error
        + 1  # C, and the trace of G with it
        + 2  # the end: both streams
        + (0 if where == "host" else 4)  # G of the batch alone, as it may overflow: it begins, and is added
    )
    up = (
        (X.nbytes if where == "host" else 8 * n)  # or the numbers of the rows
        + 4 * n  # rows of the tile by class
        + 4 * tiles * (k + 1)
    )
    down = 8 * k * p + 8 + 8 + (0 if exact else 3 * 8 * p)  # C, the trace, the row of the first NaN, bounds of slices
    assert found == Cost(waits, up, down), meter.calls


# One run


class Metered:
    """The operations of a device, and what each of them costs; "between" is what others ask of G and of the models."""

    def __init__(self, operations: Any, meter: Meter) -> None:
        self.operations, self.meter = operations, meter
        self.costs: list[tuple[str, Cost]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.operations, name)

        def measured(*arguments: Any, **keywords: Any) -> Any:
            self.note("between")
            result = found(*arguments, **keywords)
            self.note(name)
            return result

        return measured

    def note(self, name: str) -> None:
        cost = self.meter.look()
        if any(cost):
            self.costs.append((name, cost))


@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_a_run_costs_what_is_written_here(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, tmp_path: Path, kernel: str
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    n, held_out, d, k, lambdas = 2000, 100, 64, 4, [10.0, 1e3, 1e5]
    X, y = rng.integers(0, 256, (n, d), dtype=np.uint8), np.arange(n) % k
    backend = CudaBackend()
    backend._operations = metered = Metered(backend._operations, Meter(device))
    identity = kernel == "identity"

    def run(seed: int) -> Any:
        phi = kd.Identity(d) if identity else kd.FCNN(d, seed=seed)
        result = kd.distill(X, y, phi, backend=backend, lambdas=lambdas, validation_fraction=held_out / n)
        result.distilled.save(tmp_path / f"{seed}.npz")
        metered.note("distill")
        loaded = kd.DistilledDataset.load(tmp_path / f"{seed}.npz")
        metered.note("load")
        loaded.verify(result.model, test=(X[:held_out], y[:held_out]), backend=backend)
        metered.note("verify")
        return result

    run(1)  # what a first run allocates serves the next one
    metered.costs.clear()
    run(2)

    training, matrix, count = n - held_out, 8 * k * d, len(lambdas)
    weight = [] if identity else [("keep_weight", Cost(1 + 2, 4 * d * d, 0))]  # once; every end waits for two streams
    # The lambdas, and the lowest of them less the noise floor; steps of Lanczos, whose vectors are the host's, and
    # lambdas that the bounds leave open, which depend on the data.
    shifts = count + 1
    sent = dict(metered.costs)["ridge_path"].to_device - matrix - 8 * shifts
    steps, left = divmod(sent, 8 * d)
    again = left // 8
    assert 2 <= steps <= 64
    assert 0 <= again <= count
    solves = shifts + again
    expected = [
        ("zero_gram", Cost(2, 0, 0)),
        *weight,
        (
            "accumulate",
            Cost(
                1 + (0 if identity else 2) + 1 + 2,  # NaN in the data; bounds of slices; C with the trace of G; the end
                training * (d + 4) + 4 * (k + 1),  # the data, and their rows by class
                matrix + 8 + 8 + (0 if identity else 3 * 8 * d),
            ),
        ),
        (
            "ridge_path",
            Cost(
                # The end of mirroring G; C; Lanczos; of every batch of lambdas these, and their pivots; ||W||^2 with
                # <W, C>; the end
                2 + 1 + steps + 2 * (1 if again == 0 else 2) + 1 + 2,
                matrix + 8 * d * steps + 8 * solves,
                8 * d * steps + 16 * solves + 16 * count,
            ),
        ),
        ("score_models", Cost(1 + 1 + 2, held_out * (d + 8), 8 + 8 * count)),  # NaN; counts; the end
        ("between", Cost(1 + 2, 0, matrix)),  # the chosen model
    ]
    assert metered.costs[: len(expected)] == expected
    assert all(cost.allocations == cost.questions == 0 for _, cost in metered.costs)
    rest = metered.costs[len(expected) :]  # points, their features, the certificate: no pass over X, no other model
    assert not {"accumulate", "ridge_path", "score_models"} & {name for name, _ in rest}
    tested = held_out * (d + 2 * 8 * k)  # a test set goes there, scores of two models come back
    assert sum(cost.to_device for _, cost in rest) < 6 * matrix + (0 if identity else 8 * d * d) + tested
    assert sum(cost.to_host for _, cost in rest) < 6 * matrix + tested
