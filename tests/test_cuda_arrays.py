"""Arrays on the GPU into the CUDA backend and out of it: where they are read, when, and what is refused.

``CudaArray`` is the least that a framework has to be; for a whole one array-api-strict's second device keeps its arrays
on the emulated GPU.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from conftest import CudaArray, framework, set_tile_rows, stages
from krrdistill.backends import Backend, get_backend
from krrdistill.backends.cuda import CudaBackend
from krrdistill.common import arrays
from krrdistill.errors import DataError, DeviceOutOfMemory
from test_arrays import MAPS, D, K, distill, labels, samples
from test_backends import make_chain, make_inputs

Array = npt.NDArray[Any]
DTYPES = ("uint8", "float32", "float64")
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")


@pytest.fixture
def backend(one_backend: Backend, device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """On the emulated device, with so few rows in a tile that several are under way."""
    set_tile_rows(monkeypatch, one_backend, 7)
    return one_backend


# Memory


def layouts(x: Array) -> dict[str, Array]:
    """The numbers of x (n, d) in memory of every kind; the last three have their own."""
    wide = np.zeros((2 * len(x), 2 * x.shape[1] + 3), x.dtype)
    wide[::2, 3 : 3 + x.shape[1]] = x
    spread = np.repeat(x, 2, axis=1)
    return {
        "contiguous": x,
        "rows with a stride": wide[::2, 3 : 3 + x.shape[1]],
        "transposed": np.asfortranarray(x),
        "columns with a stride": spread[:, ::2],
        "backward": x[::-1, ::-1].copy()[::-1, ::-1],
        "one row, repeated": np.broadcast_to(x[3], x.shape),
        "one column": x[:, 5:6],
        "one value": np.broadcast_to(x[:1, :1], (9, 1)),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [16, 19, 24, 34])  # rows that 16, 4, 8 and 2 bytes divide, and their multiples
def test_every_layout_is_read_where_it_is(backend: Backend, d: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for name, x in layouts(make_inputs(23, d, dtype, rng)).items():
        chain = stages(x.shape[1], ())
        rows = rng.integers(0, len(x), 30)
        X = CudaArray(x)
        found = X.module.read(backend.transform(chain, X, dtype=FLOAT64, rows=rows))
        assert np.array_equal(found, x[rows].astype(np.float64)), name
        assert np.array_equal(X.module.read(backend.transform(chain, X, dtype=FLOAT64)), x), name


@pytest.mark.parametrize("kind", ["identity", "ZCA_FCNN_2", "mixed_3"])
def test_operations_give_the_bits_of_host_data(backend: Backend, kind: str) -> None:
    rng = np.random.default_rng(2)
    chain = make_chain(kind, 19, 18, rng, affine=True)
    p, rows = chain.output_dim, rng.integers(0, 40, 50)
    y, Y, W = rng.integers(0, 3, 40), rng.standard_normal((40, 3)), rng.standard_normal((2, 3, p))
    for dtype in (FLOAT32, FLOAT64):
        x = make_inputs(40, 19, "float32", rng)
        results: list[list[Array]] = []
        for X in (x, CudaArray(x)):
            sums = [np.zeros((p, p)), np.zeros((3, p)), np.zeros((3, p))]
            for targets, cross in ((y, sums[1]), (Y, sums[2])):
                backend.accumulate(chain, X, targets, sums[0], cross, dtype=dtype, rows=rows)
            features = backend.transform(chain, X, dtype=dtype, rows=rows)
            features = features if X is x else X.module.read(features)
            results.append([*sums, features, backend.score_path(chain, X, y, W, dtype=dtype, rows=rows)])
        for host, there in zip(*results, strict=True):
            assert there.dtype == host.dtype
            tolerances.assert_exact(there, host)


def test_results_stay_on_the_device_in_memory_of_their_own(device: ModuleType) -> None:
    before, x = device.live_objects(), np.arange(12.0).reshape(3, 4)
    backend, X = CudaBackend(), CudaArray(x)
    result = backend.transform(stages(4, ()), X, dtype=FLOAT64)
    gram, cross = np.zeros((4, 4)), np.zeros((1, 4))
    backend.accumulate(stages(4, ()), result, np.zeros(3, np.int64), gram, cross, dtype=FLOAT64)  # it is data, too
    tolerances.assert_exact(np.tril(gram), np.tril(x.T @ x))
    del X, backend
    gc.collect()
    assert device.live_objects() == before + 1
    assert result.__dlpack_device__() == (2, 0)
    tolerances.assert_exact(device.read(result), x)
    empty = CudaBackend().transform(stages(4, ()), CudaArray(x[:0]), dtype=FLOAT32)
    assert device.read(empty).shape == (0, 4)
    assert device.read(empty).dtype == np.float32


def test_memory_of_results_comes_from_the_budget(device: ModuleType) -> None:
    X = CudaArray(np.ones((100, 40), np.uint8))
    with pytest.raises(DeviceOutOfMemory, match=r"are needed, the budget has 1 MiB left of 1 MiB"):
        CudaBackend(memory_budget=30_000).transform(stages(40, ()), X, dtype=FLOAT64)
    device.peak_bytes()
    features = CudaBackend(memory_budget=40_000).transform(stages(40, ()), X, dtype=FLOAT64)
    assert device.peak_bytes() <= 40_000 + 4000
    tolerances.assert_exact(device.read(features), np.ones((100, 40)))


def test_what_frameworks_may_ask_of_results(device: ModuleType) -> None:
    x = np.arange(6.0).reshape(2, 3)
    matrix = CudaBackend().transform(stages(3, ()), CudaArray(x), dtype=FLOAT64)
    for stream in (None, -1, 1, 2, 1 << 40):  # whichever, the numbers are there
        matrix.__dlpack__(stream=stream, max_version=(1, 1), dl_device=(2, 0), copy=False)
    for option in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="shared where it is, not copied"):
            matrix.__dlpack__(**option)
    # A framework takes the memory over: it names the capsule anew, and calls the deleter when it is done.
    capsule, used = matrix.__dlpack__(), ctypes.c_char_p(b"used_dltensor")
    get, rename = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_SetName
    get.restype, get.argtypes, rename.argtypes = (
        ctypes.c_void_p,
        [ctypes.py_object, ctypes.c_char_p],
        [ctypes.py_object, ctypes.c_char_p],
    )
    tensor = get(capsule, b"dltensor")
    rename(capsule, used)
    with_memory = device.live_objects()
    del capsule, matrix
    assert device.live_objects() == with_memory
    deleter = ctypes.cast(tensor + 56, ctypes.POINTER(ctypes.CFUNCTYPE(None, ctypes.c_void_p))).contents
    deleter(tensor)
    assert device.live_objects() == with_memory - 1


# Numbers of 16 bits


def halves(kind: str, shape: tuple[int, int]) -> tuple[Array, Array]:
    """(bits of float16 or bfloat16 as the device gets them, the same numbers as float32)."""
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    infinite = 0x7C00 if kind == "float16" else 0x7F80
    bits[(bits & infinite) == infinite] &= 0x8001  # subnormal numbers and both zeros
    if kind == "float16":
        return bits.view(np.float16), bits.view(np.float16).astype(np.float32)
    bits[(bits & 0x7FFF) > 0x5000] &= 0xBFFF  # so large that squares overflow
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("d", [1, 16, 19])
def test_every_layout_of_16_bits_is_read_where_it_is(backend: Backend, d: int, kind: str) -> None:
    stored, numbers = halves(kind, (23, max(d, 6)))
    for name, x in layouts(stored).items():
        expected = layouts(numbers)[name]
        X = CudaArray(x, bfloat=kind == "bfloat16")
        found = X.module.read(backend.transform(stages(x.shape[1], ()), X, dtype=FLOAT32))
        assert np.array_equal(found, expected), name
        assert np.array_equal(np.signbit(found), np.signbit(expected)), name


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("kind", ["host", "float16", "bfloat16"])
def test_numbers_of_16_bits_give_the_bits_of_float32(backend: Backend, kind: str, affine: bool) -> None:
    rng = np.random.default_rng(2)
    numbers = rng.standard_normal((40, 19)).astype(np.float16).astype(np.float32)
    if kind == "bfloat16":
        numbers = (numbers.view(np.uint32) & 0xFFFF0000).view(np.float32)
        stored: Any = CudaArray((numbers.view(np.uint32) >> 16).astype(np.uint16), bfloat=True)
    else:
        stored = numbers.astype(np.float16)
        stored = stored if kind == "host" else CudaArray(stored)
    chain = make_chain("FCNN_1", 19, 18, rng, affine=affine)
    rows, y, W = rng.integers(0, 40, 50), rng.integers(0, 3, 40), rng.standard_normal((2, 3, 18))
    for dtype in (FLOAT32, FLOAT64):
        results: list[list[Array]] = []
        for X in (numbers, stored):
            gram, cross = np.zeros((18, 18)), np.zeros((3, 18))
            backend.accumulate(chain, X, y, gram, cross, dtype=dtype, rows=rows)
            features = backend.transform(chain, X, dtype=dtype, rows=rows)
            features = features if isinstance(X, np.ndarray) else X.module.read(features)
            results.append([gram, cross, features, backend.score_path(chain, X, y, W, dtype=dtype, rows=rows)])
        for expected, found in zip(*results, strict=True):
            tolerances.assert_exact(found, expected)


@pytest.mark.parametrize("layout", ["contiguous", "rows", "images", "columns"])
def test_float16_of_the_host_goes_to_the_device_as_it_is(
    device: ModuleType, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = {
        "contiguous": samples(dtype="float16"),
        "rows": samples(120, dtype="float16")[::2],
        "images": samples(dtype="float16").reshape(-1, 3, 4),
        "columns": np.asfortranarray(samples(dtype="float16")),
    }[layout]
    made: list[Any] = []
    operations = CudaBackend.accumulate
    monkeypatch.setattr(
        CudaBackend,
        "accumulate",
        lambda self, phi, X, *a, **k: (made.append(X.dtype), operations(self, phi, X, *a, **k))[1],
    )
    found, expected = (
        kd.RidgeStatistics(MAPS["FCNN"], K, backend="cuda").update(data, labels())
        for data in (X, np.ascontiguousarray(X, dtype=np.float32))
    )
    tolerances.assert_exact(found.gram, expected.gram)
    tolerances.assert_exact(found.cross, expected.cross)
    assert made == [np.float32 if layout == "columns" else np.float16, np.float32]
    native = kd.RidgeStatistics(MAPS["FCNN"], K, backend="array").update(X, labels())  # others get float32
    tolerances.assert_reduction(native.cross, expected.cross, np.float32, 60, 60.0 * np.abs(expected.cross).max())
    bad = np.array(X)
    bad[17] = np.nan
    with pytest.raises(DataError, match="row 17 holds NaN or infinity"):
        kd.RidgeStatistics(MAPS["FCNN"], K, backend="cuda").update(bad, labels())


@pytest.fixture
def torch_gpu(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch, all of whose tensors say that they are on the emulated GPU."""
    torch = framework("torch")

    def share(self: Any, *, stream: int) -> Any:
        bfloat = self.dtype == torch.bfloat16
        return CudaArray(
            self.view(torch.int16).numpy().view(np.uint16) if bfloat else self.numpy(), bfloat=bfloat
        ).__dlpack__(stream=stream)

    monkeypatch.setattr(torch.Tensor, "__dlpack_device__", lambda _: (2, 0))
    monkeypatch.setattr(torch.Tensor, "__dlpack__", share)
    monkeypatch.setattr(torch, "from_dlpack", lambda matrix: torch.from_numpy(device.read(matrix)))
    monkeypatch.setattr(arrays.compat, "to_device", lambda X, _: X.numpy())
    return torch


@pytest.mark.parametrize("backend", ["cuda", "array"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tensors_of_16_bits_are_not_converted_as_a_whole(
    torch_gpu: Any, dtype: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, phi = labels(300), MAPS["FCNN"]
    X = torch_gpu.from_numpy(samples(300, dtype="float32")).to(getattr(torch_gpu, dtype))
    whole = X.to(torch_gpu.float32)
    sizes: list[int] = []
    to = torch_gpu.Tensor.to
    monkeypatch.setattr(
        torch_gpu.Tensor, "to", lambda self, *a, **k: (sizes.append(self.numel()), to(self, *a, **k))[1]
    )
    for module in ("array", "compiled"):
        monkeypatch.setattr(f"krrdistill.backends.{module}.tile_rows", lambda feature_map, dtype, **_: 70)
    found, expected = (kd.RidgeStatistics(phi, K, backend=backend).update(data, y) for data in (X, whole))
    assert max(sizes) < X.numel()
    tolerances.assert_exact(found.gram, expected.gram)
    tolerances.assert_exact(found.cross, expected.cross)
    with pytest.raises(DataError, match="row 5 holds NaN or infinity"):
        kd.RidgeStatistics(phi, K, backend=backend).update(
            torch_gpu.where(torch_gpu.arange(300)[:, None] == 5, torch_gpu.nan, X), y
        )
    streamed, whole_stream = (kd.RidgeStatistics(phi, K, backend=backend) for _ in range(2))
    held, expected_rows = (
        one.update_batches([(data[:150], y[:150]), (data[150:], y[150:])], holdout=0.3)
        for one, data in ((streamed, X), (whole_stream, whole))
    )
    tolerances.assert_exact(streamed.gram, whole_stream.gram)
    tolerances.assert_exact(held.X, expected_rows.X)
    result, other = (distill(data, y, backend=backend) for data in (X, whole))
    tolerances.assert_exact(result.distilled.X, other.distilled.X)


# Streams


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("writer", [1, 2, "own"])
@pytest.mark.parametrize("worker", [0, 1, 2, "own"])
def test_the_backend_waits_for_who_writes_the_data(
    device: ModuleType, writer: int | str, worker: int | str, eager: bool
) -> None:
    device.emulate(eager=eager)
    x, made = np.arange(60.0).reshape(15, 4), [device.make_stream() for name in (writer, worker) if name == "own"]
    write, work = (made[0] if writer == "own" else writer), (made[-1] if worker == "own" else worker)
    backend = CudaBackend(stream=work)
    features = backend.transform(stages(4, ()), CudaArray(x, stream=write), dtype=FLOAT64)
    assert np.array_equal(device.read(features), x)  # reading waits for nothing
    late = CudaArray(x, stream=write, hand_over=False)
    if eager or write == work:
        assert np.array_equal(device.read(backend.transform(stages(4, ()), late, dtype=FLOAT64)), x)
    else:  # what a framework would do that ignores the stream: the data are not there yet
        with pytest.raises(DataError, match="row 0 holds NaN or infinity"):
            backend.transform(stages(4, ()), late, dtype=FLOAT64)
    del backend, late, features
    for stream in made:
        device.destroy_stream(stream)


# Devices


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_data_on_the_second_device_are_shared_while_it_is_current(device: ModuleType, stream: int) -> None:
    device.emulate(devices=2)
    x, y = np.arange(60.0).reshape(15, 4), np.arange(15) % 3
    backend = CudaBackend(device=1, stream=stream)
    gram, cross = np.zeros((4, 4)), np.zeros((3, 4))
    backend.accumulate(stages(4, ()), CudaArray(x, device=1), y, gram, cross, dtype=FLOAT64)
    tolerances.assert_exact(np.tril(gram), np.tril(x.T @ x))
    features = backend.transform(stages(4, ()), CudaArray(x, device=1), dtype=FLOAT64)
    assert device.current_device() == 0
    assert features.__dlpack_device__() == (2, 1)
    tolerances.assert_exact(device.read(features), x)
    broken = CudaArray(x[:, :3], device=1)
    with pytest.raises(ValueError, match="x must have shape"):
        backend.transform(stages(4, ()), broken, dtype=FLOAT64)
    assert device.current_device() == 0


def test_results_of_the_second_device_end_in_any_thread(device: ModuleType) -> None:
    device.emulate(devices=2)
    before, held = device.live_objects(), []
    backend = CudaBackend(device=1)
    held.append(backend.transform(stages(4, ()), CudaArray(np.ones((3, 4)), device=1), dtype=FLOAT64))
    held.append(backend)
    del backend
    end = threading.Thread(target=held.clear)
    end.start()
    end.join()
    gc.collect()
    assert device.live_objects() == before


# Errors


class Placed(CudaArray):
    """A matrix that says that it is elsewhere."""

    place = (2, 1)

    def __dlpack_device__(self) -> Any:
        return self.place


def test_other_devices_are_refused(device: ModuleType) -> None:
    device.emulate(devices=2)
    X = Placed(np.ones((3, 4)), device=1)
    with pytest.raises(
        TypeError, match=r"^cuda: X is on CUDA device 1, this backend works on device 0; use CudaBackend\(device=1\)$"
    ):
        CudaBackend().transform(stages(4, ()), X, dtype=FLOAT64)
    tolerances.assert_exact(
        device.read(CudaBackend(device=1).transform(stages(4, ()), X, dtype=FLOAT64)), np.ones((3, 4))
    )
    X = Placed(np.ones((3, 4)))
    X.place = (13, 0)  # managed memory
    tolerances.assert_exact(device.read(CudaBackend().transform(stages(4, ()), X, dtype=FLOAT64)), np.ones((3, 4)))
    X.place = (10, 0)  # ROCm
    with pytest.raises(
        TypeError, match="cuda: X must be in host memory or on CUDA device 0, DLPack calls its device kind 10"
    ):
        CudaBackend().transform(stages(4, ()), X, dtype=FLOAT64)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 4), np.uint16), "x must be uint8, float16, bfloat16, float32 or float64"),
        (np.ones((3, 5)), r"x must have shape \(n, input_dim\)"),
        (np.ones((3, 4 * 8 + 1), np.uint8)[:, 1:].view(np.float64), "x must be aligned to its items"),
    ],
)
def test_data_that_the_module_cannot_read(backend: Backend, x: Array, message: str) -> None:
    gram, cross = np.zeros((4, 4)), np.zeros((2, 4))
    with pytest.raises(ValueError, match=message):
        backend.accumulate(stages(4, ()), CudaArray(x), np.zeros(3, np.int64), gram, cross, dtype=FLOAT64)


def test_rows_and_labels_are_checked_before_the_device_reads(backend: Backend) -> None:
    X, gram, cross = CudaArray(np.ones((3, 4))), np.zeros((4, 4)), np.zeros((2, 4))
    for y, rows, message in (
        (np.zeros(3, np.int64), np.array([3]), "rows holds an index outside of the data"),
        (np.zeros(2, np.int64), None, "y must have a row for each row of x"),
        (np.full(3, 2), None, r"a label lies outside of \[0, k\)"),
    ):
        with pytest.raises(ValueError, match=message):
            backend.accumulate(stages(4, ()), X, y, gram, cross, dtype=FLOAT64, rows=rows)
    with pytest.raises(ValueError, match=r"labels: \(n,\)"):
        backend.score_path(stages(4, ()), X, np.zeros(2, np.int64), np.ones((1, 2, 4)), dtype=FLOAT64)


def test_nan_is_told_with_its_row(backend: Backend) -> None:
    x = np.ones((30, 4))
    x[22, 3] = np.nan
    with pytest.raises(DataError, match="row 22 holds NaN or infinity"):
        backend.transform(stages(4, ()), CudaArray(x), dtype=FLOAT32, rows=np.arange(29, -1, -1))


def test_only_capsules_of_arrays_are_read(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    X = CudaArray(np.ones((3, 4)))
    monkeypatch.setattr(CudaArray, "__dlpack__", lambda self, *, stream: self)
    with pytest.raises(TypeError, match="__dlpack__ of X must give a capsule called dltensor"):
        backend.transform(stages(4, ()), X, dtype=FLOAT32)


# A whole framework


@pytest.fixture
def gpu(device: ModuleType, closed_device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """array-api-strict's second device, whose arrays DLPack shows on the emulated GPU, written late."""
    strict = framework("array_api_strict")
    Strict = type(strict.zeros(1))

    def share(self: Any, *, stream: int) -> Any:
        index = self.__dlpack_device__()[1]
        return CudaArray(np.asarray(self._array), device=index).__dlpack__(stream=stream)

    def take(matrix: Any) -> Any:
        return strict.asarray(device.read(matrix), device=closed_device)

    host = Strict.__dlpack__
    monkeypatch.setattr(
        Strict, "__dlpack__", lambda self, **o: (share if self.device == closed_device else host)(self, **o)
    )
    monkeypatch.setattr(strict, "from_dlpack", take)
    return lambda values: strict.asarray(values, device=closed_device)


def read(array: Any) -> Array:
    """The numbers of an array that must be on the second device of array-api-strict."""
    assert str(arrays.device_of(array)).endswith("'device1')")
    return np.asarray(array._array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MAPS)
def test_transform_gives_the_same_kind(gpu: Any, name: str, dtype: str) -> None:
    X = samples(dtype=dtype)
    found = MAPS[name].transform(gpu(X), backend="cuda")
    expected = MAPS[name].transform(X, backend="cuda")
    assert arrays.dtype_name(found.dtype) == expected.dtype.name
    tolerances.assert_exact(read(found), expected)
    images = MAPS[name].transform(gpu(X.reshape(-1, 3, 4)), backend="cuda", dtype="float32")
    tolerances.assert_exact(read(images), MAPS[name].transform(X, backend="cuda", dtype="float32"))


def test_statistics_are_equal_to_the_last_bit(gpu: Any) -> None:
    X, y, rows = samples(dtype="float32"), labels(), np.array([5, 0, 17, 17])
    Y = np.random.default_rng(5).standard_normal((len(X), K))
    for targets, weights in ((y, None), (Y, None), (y, np.linspace(0.0, 1.0, len(X)))):
        kind = {"classes": K} if targets.ndim == 1 else {"n_targets": K}
        found, expected = (kd.RidgeStatistics(MAPS["FCNN"], **kind, backend="cuda") for _ in range(2))
        shares = None if weights is None else gpu(weights)
        found.update(gpu(X), gpu(targets), sample_weight=shares).update(gpu(X), targets, rows=gpu(rows))
        expected.update(X, targets, sample_weight=weights).update(X, targets, rows=rows)
        for name in ("gram", "cross", "feature_sum", "target_sum"):
            tolerances.assert_exact(getattr(found, name), getattr(expected, name))
        assert found.backend.name == "cuda (emulated)"


@pytest.mark.parametrize("init", ["noise", "real"])
def test_distill_is_equal_to_the_last_bit_and_leaves_the_data_there(
    gpu: Any, init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = samples(dtype="float32"), labels()
    expected = distill(X, y, init=init, backend="cuda")
    given, classes = gpu(X), gpu(y)
    for name in ("_RUNS", "_RUN_ROWS"):  # units are told by a few rows: of this many samples 4, not 256
        monkeypatch.setattr(f"krrdistill.data.units.{name}", 2)
    moved: list[int] = []
    to_device = type(given).to_device
    monkeypatch.setattr(
        type(given), "to_device", lambda self, *a, **b: (moved.append(self.size), to_device(self, *a, **b))[1]
    )
    found = distill(given, classes, init=init, backend="cuda")
    assert moved
    assert max(moved) <= 60  # labels, and the points of init="real"; X has 720 entries
    for name in ("X", "Y"):
        tolerances.assert_exact(getattr(found.distilled, name), getattr(expected.distilled, name))
    tolerances.assert_exact(found.model.W, expected.model.W)
    tolerances.assert_solve(found.distilled.fit(), found.model.W, 1e5)
    predicted = found.distilled.predict(given, backend="cuda")
    tolerances.assert_exact(read(predicted), expected.distilled.predict(X, backend="cuda"))


def test_layers_that_run_in_python(gpu: Any) -> None:
    X, y = samples(dtype="float32"), labels()
    phi = kd.UserMap(np.tanh, D)
    tolerances.assert_exact(read(phi.transform(gpu(X), backend="cuda")), phi.transform(X, backend="cuda"))
    found, expected = (kd.RidgeStatistics(phi, K, backend="cuda").update(data, y) for data in (gpu(X), X))
    tolerances.assert_exact(found.gram, expected.gram)
    tolerances.assert_exact(found.cross, expected.cross)


def test_the_device_of_the_data_is_chosen(gpu: Any, device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    X = gpu(samples())
    device.emulate(devices=2)
    monkeypatch.setattr(type(X), "__dlpack_device__", lambda _: (2, 1))
    zero = get_backend("cuda")
    with pytest.raises(TypeError, match="X is on CUDA device 1, this backend works on device 0"):
        MAPS["FCNN"].transform(X, backend=zero)
    tolerances.assert_exact(
        read(MAPS["FCNN"].transform(X, backend="cuda")), MAPS["FCNN"].transform(samples(), backend=zero)
    )
    monkeypatch.setattr(type(X), "__dlpack_device__", lambda _: (10, 0))
    with pytest.raises(
        TypeError, match=r"backend 'cuda' takes arrays in host memory or on a CUDA device, the data is on .*device1"
    ):
        MAPS["FCNN"].transform(X, backend="cuda")


def test_mixed_devices_and_types(gpu: Any) -> None:
    strict = framework("array_api_strict")
    statistics = kd.RidgeStatistics(MAPS["FCNN"], K, backend="cuda")
    with pytest.raises(TypeError, match=r"statistics.update: .*X on .*device1.*, y on the host"):
        statistics.update(gpu(samples()), strict.asarray(labels()))
    with pytest.raises(TypeError, match=r"transform: X must be a numeric array, got dtype .*complex128"):
        MAPS["FCNN"].transform(gpu(samples().astype(complex)), backend="cuda")
    whole = MAPS["FCNN"].transform(gpu(np.ones((2, D), np.int64)), backend="cuda")  # converted on the device
    tolerances.assert_exact(read(whole), MAPS["FCNN"].transform(np.ones((2, D)), backend="cuda"))


# Hardware


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "cupy", "jax.numpy"])
def test_frameworks_on_the_gpu(name: str) -> None:
    xp = framework(name)
    place = {"device": "cuda"} if name == "torch" else {}
    X, y = xp.asarray(samples(dtype="float32"), **place), labels()
    features = MAPS["FCNN"].transform(X + 0, backend="cuda")  # the sum may still be under way
    assert isinstance(features, type(X))
    assert arrays.device_of(features) == arrays.device_of(X)
    expected = MAPS["FCNN"].transform(samples(dtype="float32"), backend="cuda")
    tolerances.assert_exact(arrays.to_host("test", "features", features), expected)
    found, host = (distill(data, y, backend="cuda") for data in (X, samples(dtype="float32")))
    tolerances.assert_exact(found.distilled.X, host.distilled.X)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_of_16_bits_on_the_gpu(dtype: str) -> None:
    torch = framework("torch")
    X, y = torch.asarray(samples(dtype="float32"), device="cuda").to(getattr(torch, dtype)), labels()
    given = [X, X.to(torch.float32), *([X.cpu().numpy()] if dtype == "float16" else [])]
    sums = [kd.RidgeStatistics(MAPS["FCNN"], K, backend="cuda").update(data, y) for data in given]
    for other in sums[1:]:
        tolerances.assert_exact(other.gram, sums[0].gram)
        tolerances.assert_exact(other.cross, sums[0].cross)
