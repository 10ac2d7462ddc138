"""krrdistill.interop.torch_distributed: two gloo processes against one process, and failures that reach both."""

from __future__ import annotations

import contextlib
import io
import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from engines import HOLDOUT, SEED, assert_same_choice, assert_same_statistics, digits
from krrdistill.backends.cuda import CudaBackend
from krrdistill.errors import DeviceOutOfMemory

pytest.importorskip("torch.distributed", reason="PyTorch is not installed (pip install torch)")
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from krrdistill.interop import torch_distributed
from krrdistill.interop.torch_distributed import all_reduce, all_reduce_counts, check_sampler

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "torch_distributed.py"


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], None]:
    """Two processes of one gloo group run each of ``BODIES`` up to the first that fails; raises what became of one."""
    folder, failure = tmp_path_factory.mktemp("ranks"), None
    try:
        mp.spawn(_rank, args=(str(folder),), nprocs=2)
    except mp.ProcessRaisedException as error:
        failure = error

    def outcome(body: Any) -> None:
        if len([*folder.glob(f"{body.__name__}-*")]) < 2:
            raise failure or AssertionError(f"{body.__name__} did not run")

    return outcome


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        for body in BODIES:
            body(rank)
            Path(folder, f"{body.__name__}-{rank}").touch()
    finally:
        dist.destroy_process_group()


# The same as in one process


def same_model(rank: int) -> None:
    for precision in ("float32", "float64"):
        problem = digits(precision)
        own = kd.RidgeStatistics(problem.phi, 10, precision=precision).update(problem.X[rank::2], problem.y[rank::2])
        before = own.gram.copy()
        assert_same_statistics(all_reduce(own), problem.everything)
        tolerances.assert_exact(own.gram, before)

    half = len(problem.X) // 2
    rows = slice(0, half) if rank == 0 else slice(half, None)
    held: list[Any] = []

    def shard() -> kd.RidgeStatistics:
        own = kd.RidgeStatistics(problem.phi, 10, precision="float64")
        stream = [(problem.X[rows], problem.y[rows])]
        held.append(own.update_batches(stream, holdout=HOLDOUT, seed=SEED, first_row=rank * half))
        return own

    found = all_reduce(shard)
    assert_same_statistics(found, problem.training)
    path = kd.ridge_path(found)
    counts = all_reduce_counts(lambda: kd.count_correct(path, found, held[0]))
    assert_same_choice(found, counts, problem)
    everywhere: list[Any] = [None, None]
    dist.all_gather_object(everywhere, found.gram)
    tolerances.assert_exact(*everywhere)


def test_two_ranks_have_the_model_of_one_process(both_ranks: Any) -> None:
    both_ranks(same_model)


def few_rows(rank: int) -> None:
    """Ranks that hold rows, G, or nothing: p = 60."""
    problem = digits()
    Y = np.column_stack([problem.y + 1e3, problem.X[:, 20] - 5.0]).astype(np.float64)
    for ends in ((20, 35), (10, 200), (300, 310), (50, 90), (0, 300), (0, 30)):
        rows = slice(*((0, ends[0]), ends)[rank])
        for targets, keywords in ((problem.y, {"classes": 10}), (Y, {"n_targets": 2})):
            own = kd.RidgeStatistics(problem.phi, **keywords, precision="float64")
            found = all_reduce(own.update(problem.X[rows], targets[rows]))
            one = kd.RidgeStatistics(problem.phi, **keywords, precision="float64")
            one.update(problem.X[: ends[1]], targets[: ends[1]])
            assert_same_statistics(found, one)
            held = ["features" in statistics.to_arrays()[1] for statistics in (found, one)]
            assert held == [ends[1] < 60] * 2
            tolerances.assert_reduction(
                found.target_square, one.target_square, np.float64, ends[1], np.abs(one.target_square)
            )


def test_ranks_with_fewer_rows_than_features_add_up(both_ranks: Any) -> None:
    both_ranks(few_rows)


# Failures


def failures(rank: int) -> None:
    problem = digits()
    X, y = problem.X[rank::2], problem.y[rank::2]

    def missing() -> kd.RidgeStatistics:
        if rank == 1:
            raise FileNotFoundError("shard-1.npz")
        return kd.RidgeStatistics(problem.phi, 10).update(X, y)

    other = kd.RandomFourier(64, 60, sigma2=64.0, seed=rank)
    frame = {"columns": [f"pixel {i}" for i in range(64)]}
    if rank == 1:
        frame["columns"].reverse()
    refused: dict[str, Any] = {
        r"rank 1 has the classes \[0, .*10\], rank 0 has \[0": lambda: kd.RidgeStatistics(problem.phi, 10 + rank),
        "rank 1 has the number of features 60, rank 0 has 61": lambda: kd.RidgeStatistics(
            kd.RandomFourier(64, 61 - rank, sigma2=1.0, seed=0), 10
        ),
        "rank 1 has the precision float64, rank 0 has float32": lambda: kd.RidgeStatistics(
            problem.phi, 10, precision=("float32", "float64")[rank]
        ),
        "^all_reduce: rank 1 has another feature map .* than rank 0; all ranks": lambda: kd.RidgeStatistics(other, 10),
        "rank 1: shard 'Monday' is already in": lambda: kd.RidgeStatistics(problem.phi, 10, shard="Monday").update(
            X, y
        ),
        "rank 1: shard 'sha256:.*', the same .* is already in": lambda: (
            problem.everything
        ),  # nobody took their part of the rows
        "rank 1 has other columns of X than rank 0": lambda: kd.RidgeStatistics(problem.phi, 10).update(
            library_frame(X, frame["columns"]), y
        ),
    }
    for message, make in refused.items():
        with pytest.raises(kd.DataError, match=message):
            all_reduce(make)
    own_error: tuple[Any, str] = (FileNotFoundError, "^shard-1.npz$")
    theirs: tuple[Any, str] = (kd.DataError, "^all_reduce: rank 1 failed: FileNotFoundError: shard-1.npz$")
    kind, message = own_error if rank == 1 else theirs
    with pytest.raises(kind, match=message):
        all_reduce(missing)
    with pytest.raises((TypeError, kd.DataError), match="needs RidgeStatistics, or a function that makes them, got"):
        all_reduce((problem.everything, None)[rank])
    with pytest.raises(kd.DataError, match="counts of 2 and 3 lambdas do not add"):
        all_reduce_counts(kd.CorrectCounts(np.zeros(2 + rank, dtype=np.int64), 1))
    assert_same_statistics(  # nobody is left behind
        all_reduce(kd.RidgeStatistics(problem.phi, 10, precision="float64").update(X, y)), problem.everything
    )


def library_frame(X: Any, columns: list[str]) -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed").DataFrame(X, columns=columns)


def test_a_failure_of_one_rank_is_raised_on_all(both_ranks: Any) -> None:
    both_ranks(failures)


def test_numbers_travel_through_a_device_where_the_group_has_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL, of which only the way of the buffer is seen here."""
    moved = []
    monkeypatch.setattr(dist, "get_backend_config", lambda group: "cuda:nccl")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device) or tensor.clone())
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group: tensor.mul_(2.0))
    tolerances.assert_exact(torch_distributed._Ranks(None).summed(np.arange(3.0)), [0.0, 2.0, 4.0])
    assert moved == [torch.device("cuda", 3)]


def test_numbers_on_the_device_are_added_there_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's all_reduce makes the current stream wait, not the process."""
    done: list[Any] = []
    numbers = torch.arange(3.0)[None]

    class Stream:
        def synchronize(self) -> None:
            done.append("waited")

    monkeypatch.setattr(dist, "get_backend_config", lambda group: "cuda:nccl")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: done.append(device) or Stream())
    monkeypatch.setattr(dist, "all_reduce", lambda tensor, group: done.append((tensor.mul_(2.0).shape, group)))
    torch_distributed._Ranks("group").add_there(numbers)
    assert done == [((3,), "group"), 3, "waited"]
    tolerances.assert_exact(numbers, [[0.0, 2.0, 4.0]])


class Board:
    """Where the threads of ranks meet. One of them runs at a time, as the emulated device needs it."""

    def __init__(self, module: ModuleType, devices: list[int | None]) -> None:
        self.module, self.devices, self.turn = module, devices, threading.Condition()
        self.rounds: dict[int, dict[int, Any]] = {}
        self.errors: list[BaseException] = []

    def run(self, body: Callable[[Any], None]) -> None:
        threads = [threading.Thread(target=self._rank, args=(rank, body)) for rank in range(len(self.devices))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def _rank(self, rank: int, body: Callable[[Any], None]) -> None:
        with self.turn:
            try:
                body(Ranks(self, rank))
            except BaseException as error:
                self.errors.append(error)
                self.turn.notify_all()


class Ranks:
    """The process group of one rank, as ``all_reduce`` uses it, on emulated devices."""

    def __init__(self, board: Board, rank: int) -> None:
        self.board, self.rank, self.device, self.round = board, rank, board.devices[rank], 0

    def told(self, fact: Any) -> list[Any]:
        board, number = self.board, self.round
        found = board.rounds.setdefault(number, {})
        found[self.rank] = fact
        self.round += 1
        board.turn.notify_all()
        board.turn.wait_for(lambda: len(found) == len(board.devices) or board.errors)
        return [found[rank] for rank in range(len(board.devices))]

    def summed(self, numbers: Any) -> Any:
        module = self.board.module
        stream = module.make_stream()
        matrix = module.upload(numbers[None], stream=stream, device=self.device or 0)
        module.destroy_stream(stream)  # it is there
        self.add_there(matrix)
        return module.read(matrix)[0]

    def add_there(self, numbers: Any) -> None:
        place = numbers.__dlpack_device__()
        assert place == (2, self.device or 0)
        matrices = self.told(numbers)
        if self.rank == 0:
            self.board.module.add_all(matrices)
        self.told(None)


def shards(precision: str = "float64") -> tuple[Any, list[kd.RidgeStatistics]]:
    """(a problem, the statistics of one half each on emulated device 0 and 1)."""
    problem = digits(precision)
    return problem, [
        kd.RidgeStatistics(problem.phi, 10, precision=precision, backend=CudaBackend(device=rank)).update(
            problem.X[rank::2], problem.y[rank::2]
        )
        for rank in range(2)
    ]


def test_g_of_ranks_on_devices_never_leaves_them(device: ModuleType) -> None:
    device.emulate(devices=2)
    problem, own = shards()
    before = [statistics.gram.copy() for statistics in own]
    small = 8 * (problem.phi.output_dim * 11 + 2 * 10 + 1 + 1 + problem.X.shape[1])
    found: list[Any] = [None, None]

    def reduce(ranks: Ranks) -> None:
        found[ranks.rank] = torch_distributed._all_reduce(own[ranks.rank], ranks)

    device.bus_bytes()
    Board(device, [0, 1]).run(reduce)
    assert device.bus_bytes() == (2 * small, 2 * (small + 8))  # all but G up and down, and one trace
    for rank, statistics in enumerate(found):
        assert statistics._store._matrix.device == rank
        assert_same_statistics(statistics, problem.everything)
        tolerances.assert_exact(statistics.gram, before[0] + before[1])
        tolerances.assert_exact(own[rank].gram, before[rank])
    tolerances.assert_exact(found[0].cross, found[1].cross)
    device.bus_bytes()
    found[1].update(problem.X[:9], problem.y[:9])  # it goes on where it is
    assert device.bus_bytes()[1] < 2 * small < 8 * problem.phi.output_dim**2
    assert kd.fit_model(found[1], 1.0).W.shape == (10, problem.phi.output_dim)


@pytest.mark.parametrize("devices", [(0, 0), (1, 1), (1, 0), (None, None)])
def test_g_on_another_device_than_the_group_goes_through_the_host(
    device: ModuleType, devices: tuple[int | None, int | None]
) -> None:
    device.emulate(devices=2)
    problem, own = shards()
    expected = own[0].gram + own[1].gram
    found: list[Any] = [None, None]

    def reduce(ranks: Ranks) -> None:
        found[ranks.rank] = torch_distributed._all_reduce(own[ranks.rank], ranks)

    Board(device, [*devices]).run(reduce)
    for rank, statistics in enumerate(found):
        tolerances.assert_exact(statistics.gram, expected)
        assert_same_statistics(statistics, problem.everything)
        assert isinstance(statistics._store._matrix, np.ndarray) == (devices[rank] != rank)


def test_g_of_a_backend_by_name_stays_on_its_device(device: ModuleType) -> None:
    problem = digits()
    own = kd.RidgeStatistics(problem.phi, 10, precision="float64", backend="cuda").update(problem.X, problem.y)
    found: list[Any] = []
    Board(device, [0]).run(lambda ranks: found.append(torch_distributed._all_reduce(own, ranks)))
    tolerances.assert_exact(found[0].gram, own.gram)
    device.bus_bytes()
    found[0].update(problem.X[:99], problem.y[:99])
    path = kd.ridge_path(found[0], [1.0])
    assert path.weights.shape == (1, 10, 60)
    to_device, to_host = device.bus_bytes()
    assert to_device < problem.X[:99].nbytes + 8 * 60 * 64 + 8 * 60**2  # data and weights, but no G
    assert to_host < 8 * 60**2


def test_ranks_of_rows_and_of_g_on_a_device_add_up(device: ModuleType) -> None:
    device.emulate(devices=2)
    problem, own = shards()
    few = kd.RidgeStatistics(problem.phi, 10, precision="float64", backend=CudaBackend(device=1))
    own[1] = few.update(problem.X[1:40:2], problem.y[1:40:2])
    expected = own[0].gram + own[1].gram
    found: list[Any] = [None, None]

    def reduce(ranks: Ranks) -> None:
        found[ranks.rank] = torch_distributed._all_reduce(own[ranks.rank], ranks)

    Board(device, [0, 1]).run(reduce)
    for statistics in found:
        tolerances.assert_exact(statistics.gram, expected)


@pytest.mark.parametrize("what", ["infinite", "no memory"])
def test_a_failure_on_a_device_is_raised_on_all_ranks(device: ModuleType, what: str) -> None:
    device.emulate(devices=2)
    _, own = shards()
    before = own[0].gram.copy()
    if what == "infinite":
        for statistics in own:
            statistics._store._matrix.add(np.full((60, 60), 1.7e308))
    said: list[str] = []

    def reduce(ranks: Ranks) -> None:
        if ranks.rank == 1 and what == "no memory":
            own[1].backend.release_memory()
            device.emulate(devices=2, memory=1)
        with pytest.raises((kd.DataError, DeviceOutOfMemory)) as error:
            torch_distributed._all_reduce(own[ranks.rank], ranks)
        said.append(str(error.value))

    Board(device, [0, 1]).run(reduce)
    device.emulate(devices=2)
    if what == "infinite":
        assert all("gram must be finite" in message for message in said)
    else:
        assert any(message.startswith("all_reduce: rank 1 failed: DeviceOutOfMemory: CUDA") for message in said)
        tolerances.assert_exact(own[0].gram, before)


@pytest.mark.gpu
def test_nccl_keeps_g_on_the_gpu(tmp_path: Path) -> None:
    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        pytest.skip("PyTorch is built without CUDA or NCCL")
    problem = digits()
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        own = kd.RidgeStatistics(problem.phi, 10, precision="float64", backend="cuda").update(problem.X, problem.y)
        found: Any = all_reduce(own)
    finally:
        dist.destroy_process_group()
    assert found._store._matrix.device == torch.cuda.current_device()
    tolerances.assert_exact(found.gram, own.gram)
    assert_same_statistics(found, problem.everything)


# Samplers


@pytest.mark.parametrize(("n", "drop_last", "word"), [(10, False, "repeats 2 of 10"), (10, True, "leaves out 1 of 10")])
def test_padding_of_a_distributed_sampler_is_warned_about(n: int, drop_last: bool, word: str) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(n, 2))
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=3, rank=0, drop_last=drop_last)
    with pytest.warns(kd.DataWarning, match=f"{word} samples, so that each of 3 ranks .* range\\(rank, len"):
        check_sampler(sampler)


def test_a_sampler_that_takes_each_sample_once_is_no_matter() -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(9, 2))
    check_sampler(torch.utils.data.DistributedSampler(data, num_replicas=3, rank=0))


# The example


def example(rank: int) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(EXAMPLE))["train"](rank, 2)
    assert ("exact" in printed.getvalue()) == (rank == 0)


def test_the_torch_example_trains_on_two_ranks(both_ranks: Any) -> None:
    both_ranks(example)


def test_the_torch_example_starts_two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(mp, "spawn", lambda function, args, nprocs: started.append((function, args, nprocs)))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: started.append((backend, options)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: started.append("end"))
    names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    (start, (file,), ranks) = started.pop()
    start.__globals__["train"] = lambda *of: started.append(of)
    start(1, file)
    options = {"init_method": f"file://{file}", "rank": 1, "world_size": ranks}
    assert started == [("gloo", options), (1, names["WORLD_SIZE"]), "end"]


BODIES = (same_model, few_rows, failures, example)
