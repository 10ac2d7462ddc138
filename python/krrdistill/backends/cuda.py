"""The operations in C++/CUDA (csrc/cuda): fused kernels, cuBLAS and cuSOLVER; data in host memory or on the GPU."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import weakref
from contextlib import AbstractContextManager
from multiprocessing import spawn
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg

from krrdistill.common.arrays import check_choice, is_half, is_on_host, namespace_of
from krrdistill.common.placed import AnyMatrix, Cosines, Placed
from krrdistill.common.products import products_on
from krrdistill.errors import BackendUnavailable

from .array import ArrayBackend
from .base import FloatArray, IntArray, Layer, MapStages, Matrix, PathSolution, Products, products_in
from .compiled import ACTIVATIONS, CompiledBackend, check_rank, structured
from .hadamard import HadamardWeight
from .models import Models, ModelStack
from .native import NativeBackend
from .operators import Operator
from .tiles import device_tile_rows as tile_rows
from .tiles import rcond_floor

__all__ = [
    "BUILD_REMEDY",
    "PRODUCTS",
    "CudaBackend",
    "ResidentGram",
    "cuda_facts",
    "forget_shared_backends",
    "math_overrides",
    "shared_backend",
]

BUILD_REMEDY = (
    'install the CUDA 13 toolkit (nvcc), then: pip install "krrdistill[cuda13]" && pip install --force-reinstall '
    "--no-deps --no-binary krrdistill krrdistill -C cmake.define.KRRDISTILL_CUDA=ON"
)
_DRIVER_REMEDY = "install NVIDIA driver 580 or newer (nvidia-smi shows the version)"
_CAPABILITY = (8, 0)
_OPERATIONS_PER_NUMBER = 320.0  # 8 bytes take 0.5 ns each way, the host's BLAS 400 operations a ns
_SHARE = 8  # of the memory may be a matrix that stays: it is among half a dozen of its size
# cuSOLVER's syevd refuses 23,200 columns, whose work space is beyond 32 bits:
# https://github.com/JuliaGPU/CUDA.jl/issues/2908
_MOST_EIGENVECTORS = 20_000
_KEPT_BYTES = 1 << 20  # smaller weights go to the GPU every time
PRODUCTS = ("auto", "fp32", "tf32")
# Of the environment: NVIDIA's libraries read them, and take other arithmetic than they were asked for.
_OVERRIDES = ("NVIDIA_TF32_OVERRIDE", "CUBLAS_EMULAT", "CUBLAS_FIXEDPOINT_EMULATION")
_ASK_SECONDS = 120
# A program of its own, because CUDA does not survive a fork: whoever was asked for its devices can fork no workers.
_ASK = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location(*sys.argv[1:])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(module.driver_facts()))
"""


class PackedGram(NamedTuple):
    """Numbers and a packed G in one array on the GPU, see ``backends.PackedGram``."""

    made: Any
    room: int

    def shared(self) -> Any:
        """The array; what has it keeps its memory."""
        return self.made.shared()

    def write(self, numbers: FloatArray) -> None:
        """Sets the numbers before the triangle."""
        self.made.write(numbers)

    def read(self) -> FloatArray:
        """The numbers before the triangle."""
        out = np.empty(self.room)
        self.made.read(out)
        return out

    def unpacked(self) -> ResidentGram:
        """G of the triangle, on the GPU."""
        return ResidentGram(self.made.unpacked())


class ResidentGram:
    """G (p, p) in memory of the GPU; ``np.asarray`` copies it to the host, symmetric. Pickled it is an array."""

    def __init__(self, made: Any) -> None:
        self.made = made

    @property
    def device(self) -> int:
        """Number of the GPU."""
        return int(self.made.device)

    def packed(self, room: int) -> PackedGram:
        """A packed copy behind ``room`` numbers, on the GPU."""
        return PackedGram(self.made.packed(room), room)

    def __len__(self) -> int:
        return len(self.made)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        if copy is False:
            raise ValueError("G is in memory of the GPU: NumPy gets a copy")
        out = np.empty((len(self), len(self)))
        self.made.download(out)
        return out if dtype is None else out.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """As an array."""
        return np.asarray, (np.asarray(self),)

    def add(self, other: Any, sign: int = 1) -> None:
        """+= sign times G of other samples; one of another backend goes through the host."""
        beside = isinstance(other, ResidentGram) and self.made.is_beside(other.made)
        theirs = other.made if beside else np.ascontiguousarray(other, dtype=np.float64)
        self.made.add(theirs, float(sign))

    def trace(self) -> float:
        """Trace of G."""
        return float(self.made.trace())

    def copy(self) -> ResidentGram:
        """A copy on the GPU."""
        return ResidentGram(self.made.copy())

    def clear(self) -> None:
        """G of no samples."""
        self.made.clear()


class _Kept(NamedTuple):
    """A weight whose copy is on the GPU."""

    weight: Any  # a weak reference, which lets go of the rest when the weight dies
    address: int  # of the weight, by which operations find its copy
    cast: npt.NDArray[Any] | None  # to the type of the operations, where that is another one
    copy: Any


class CudaBackend(CompiledBackend):
    """GPU backend. Rows of data of any size stream through the device tile by tile, on two streams.

    G stays in memory of the GPU from the first update to the models (``ResidentGram``). So do large matrices of points
    inside of ``dense`` (``Placed``), where the backend is the ``Engine`` of large products.

    X may be an array on this device: ``__dlpack__(stream=...)`` makes a stream of the backend wait for what the
    framework still does with it, and tiles are gathered from it on the device. Every operation returns when it is done,
    so that results are ready on every stream, and X may be changed.

    Parameters
    ----------
    device : int
        Index of the GPU.
    stream : int, optional
        Address of a ``cudaStream_t`` of this device, which must outlive the backend, or 1 or 2 for CUDA's legacy and
        per-thread default stream; without it, or with 0, a stream of its own.
    memory_budget : int, optional
        Bytes of device memory that an operation may take; without it, nine tenths of what is free when it starts.
    products : "auto", "fp32" or "tf32"
        "auto" takes integer tensor cores where they are exact (bytes under a map without layers) or as accurate as
        float32: the first layer on bytes, and G of float32 features, in slices of int8. Where a column's range makes
        slices less accurate, and with "fp32", float32 sums over at most 256 rows are added in float64. "tf32" takes
        TF32 tensor cores, which keep 10 bits of the mantissa, and raises the noise floor of the statistics.
    keep_memory : bool
        Whether device and pinned memory of one operation waits for the next one: allocating it takes longer than many
        operations. ``release_memory`` gives it back.

    Raises
    ------
    BackendUnavailable
        If the module was not built, the driver is missing or too old, or there is no such device.
    DeviceError
        If CUDA fails; operations raise it too, and DeviceOutOfMemory.
    TypeError
        By operations, for X on another device.
    """

    reads_half = True

    def __init__(
        self,
        *,
        device: int = 0,
        stream: int | None = None,
        memory_budget: int | None = None,
        products: str = "auto",
        keep_memory: bool = True,
    ) -> None:
        check_choice("CudaBackend", "products", products, PRODUCTS)
        if memory_budget is not None and memory_budget < 1:
            raise ValueError(f"CudaBackend: memory_budget must be at least 1 byte, got {memory_budget}")
        module = _load()
        facts = module.driver_facts()
        _check_device(facts, device)
        operations = module.Device(
            device=device,
            stream=stream or 0,
            memory_budget=memory_budget or 0,
            products=products,
            keep_memory=keep_memory,
        )
        self._integers = products == "auto"
        self._keeps_weights = keep_memory and memory_budget is None
        self._kept: dict[tuple[int, Any], _Kept] = {}
        self._room = (memory_budget or facts["devices"][device]["memory_bytes"]) // _SHARE
        self._matrices = operations.dense()
        super().__init__("cuda (emulated)" if module.emulated else "cuda", module, operations)

    def release_memory(self) -> None:
        """Gives memory that waits for the next operation, and copies of weights, back to the device and the host."""
        self._kept.clear()
        self._operations.release_memory()

    def zero_gram(self, p: int) -> ResidentGram:
        """G of no samples, on the GPU."""
        return ResidentGram(self._operations.zero_gram(p))

    def own_gram(self, gram: Any) -> ResidentGram:
        """The same G in memory of this backend: itself, or a copy."""
        if isinstance(gram, ResidentGram) and self._operations.owns(gram.made):
            return gram
        own = self.zero_gram(len(gram))
        own.add(np.asarray(gram))
        return own

    def transform(self, feature_map: MapStages, X: Any, *, dtype: np.dtype[Any], rows: IntArray | None = None) -> Any:
        """phi(X), see ``Backend.transform``; of X on the device it is there too, in memory that is not copied."""
        if is_on_host(X):
            return super().transform(feature_map, X, dtype=dtype, rows=rows)
        step = self._tile_rows(feature_map, dtype)
        made = self._operations.transform_there(self._map(feature_map, dtype), X, rows, step)
        return namespace_of(X).from_dlpack(made)

    def _preimage_weight(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As it is: it becomes float64 on the GPU, where the factorisation overwrites it."""
        return self._dense(weight, np.dtype(np.float32 if weight.dtype == np.float32 else np.float64))

    def preimage_solve(self, weight: Matrix, rhs: Any, *, overwrite: bool = False) -> Any:
        """See ``Backend.preimage_solve``; of a placed rhs X is placed."""
        if not isinstance(rhs, Placed):
            return super().preimage_solve(weight, rhs, overwrite=overwrite)
        if isinstance(weight, HadamardWeight):
            form = structured(weight, np.dtype(np.float64))
            return Placed(self, self._operations.hadamard_preimages_here(*form, weight.shape[1], rhs.made))
        floor = rcond_floor(weight.shape)
        X, rcond = self._operations.preimages_here(self._preimage_weight(weight), rhs.made, floor)
        check_rank(weight, rcond, floor)
        return Placed(self, X)

    def ridge_path(
        self, gram: Any, cross: FloatArray, lambdas: FloatArray, *, rounding: float, overwrite: bool = False
    ) -> PathSolution:
        """All lambdas in one call; the models stay on the device, see ``Backend.ridge_path``."""
        squares, products = np.empty((2, len(lambdas)))
        positive_definite, resolved = np.empty((2, len(lambdas)), dtype=bool)
        handle, largest = self._operations.ridge_path(
            _made(gram), cross, lambdas, rounding, squares, products, positive_definite, resolved
        )
        return PathSolution(ModelStack(handle), positive_definite, resolved, largest, squares, products)

    def score_path(
        self,
        feature_map: MapStages,
        X: Any,
        labels: IntArray,
        weights: Models,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> IntArray:
        """See ``Backend.score_path``; models that are on this device are not copied from there."""
        if not (isinstance(weights, ModelStack) and self._operations.has(weights.handle)):
            return super().score_path(feature_map, X, labels, weights, dtype=dtype, rows=rows)
        correct = np.empty(len(weights), dtype=np.int64)
        self._operations.score_models(
            self._map(feature_map, dtype), X, rows, labels, weights.handle, correct, self._tile_rows(feature_map, dtype)
        )
        return correct

    def accumulate(
        self,
        feature_map: MapStages,
        X: Any,
        Y: npt.NDArray[Any],
        gram: Any,
        cross: FloatArray,
        *,
        dtype: np.dtype[Any],
        rows: IntArray | None = None,
    ) -> Products:
        """Adds to G and C, see ``Backend.accumulate``; affine functions of bytes with the bits of the native backend.

        The device tells how it formed the products, and what it knows of their error.
        """
        if self._integers and not feature_map.layers and _is_bytes(X):
            dtype = np.dtype(np.float64)  # csrc/cuda/byte_statistics.cu, and faster than float32
        as_they_are = self._integers and not feature_map.layers and feature_map.scale is None
        halves = as_they_are and is_half(getattr(X, "dtype", ""))
        stored = np.dtype(np.float16) if halves else dtype  # what the buffers of a tile hold
        step = tile_rows(feature_map, stored, there=not is_on_host(X))
        arithmetic, bound = self._operations.accumulate(
            self._map(feature_map, dtype), X, rows, Y, _made(gram), cross, step
        )
        plain = products_in(dtype)
        return plain._replace(rounding=max(plain.rounding, bound), arithmetic=arithmetic, bound=bound)

    def _dense(self, weight: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A weight, whose copy stays on the GPU as long as it lives: it serves many operations of a run.

        Only one that nobody can write into.
        """
        if weight.nbytes < _KEPT_BYTES or not self._keeps_weights or dtype not in (np.float32, np.float64):
            return super()._dense(weight, dtype)
        key = (id(weight), dtype)
        if not _is_frozen(weight):
            for other, found in list(self._kept.items()):  # it was when it, or one in the same place, was kept
                if found.address == weight.ctypes.data or other == key:
                    self._kept.pop(other, None)
            return super()._dense(weight, dtype)
        kept = self._kept.get(key)
        if kept is None:
            dense = super()._dense(weight, dtype)
            own = weakref.ref(self)  # a weight may outlive the backend

            def forget(_: Any) -> None:
                backend = own()
                if backend is not None:
                    backend._kept.pop(key, None)

            cast = None if np.may_share_memory(dense, weight) else dense
            copy = self._operations.keep_weight(dense)
            kept = _Kept(weakref.ref(weight, forget), weight.ctypes.data, cast, copy)
            self._kept[key] = kept
        return weight if kept.cast is None else kept.cast

    def _tile_rows(self, feature_map: MapStages, dtype: np.dtype[Any]) -> int:
        return tile_rows(feature_map, dtype)

    def scores(
        self, feature_map: MapStages, X: Any, weights: FloatArray, *, dtype: np.dtype[Any], rows: IntArray | None = None
    ) -> FloatArray:
        """Features and products on the GPU, see ``Backend.scores``."""
        out = np.empty((X.shape[0] if rows is None else len(rows), len(weights)))
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        step = self._tile_rows(feature_map, dtype)
        self._operations.scores(self._map(feature_map, dtype), X, rows, weights, out, step)
        return out

    def dense(self) -> AbstractContextManager[None]:
        """See ``Backend.dense``."""
        return products_on(self)

    def pays(self, operations: float, numbers: int) -> bool:
        """Whether the bus is not slower than the host's BLAS (an H100 with 16 cores: docs/measured/gpu.md)."""
        return operations > _OPERATIONS_PER_NUMBER * numbers

    def holds(self, numbers: int) -> bool:
        """Whether a matrix of so many numbers takes an eighth of the memory at most."""
        return 8 * numbers <= self._room

    def place(self, A: FloatArray) -> Placed:
        """A copy on the GPU."""
        return Placed(self, self._matrices.place(_contiguous(A)))

    def product(self, A: AnyMatrix, B: AnyMatrix) -> AnyMatrix:
        """A B, (m, r)."""
        out = None if _any_placed(A, B) else np.empty((len(A), B.shape[1]))
        return self._result(self._matrices.multiply(_operand(A), _operand(B), out), out)

    def gram(self, A: AnyMatrix) -> AnyMatrix:
        """A A^T, (m, m)."""
        out = None if _any_placed(A) else np.empty((len(A), len(A)))
        return self._result(self._matrices.gram_of(_operand(A), out), out)

    def solve_factored(self, lower: AnyMatrix, B: AnyMatrix) -> AnyMatrix:
        """(L L^T)^-1 B from a factor in column-major order."""
        right = _operand(B)
        out = None if _any_placed(lower, B) else np.empty_like(right)
        factor = lower.made if isinstance(lower, Placed) else np.asfortranarray(lower)
        return self._result(self._matrices.solve_factored(factor, right, out), out)

    def cholesky(self, A: Placed, shift: float) -> tuple[Placed | None, float]:
        """(L, ||A + shift I||_1), None for L of a matrix that is not positive definite."""
        lower, norm = self._matrices.cholesky(A.made, shift)
        return None if lower is None else Placed(self, lower), norm

    def eigenvectors(self, A: Placed) -> tuple[FloatArray, Placed]:
        """(eigenvalues of a symmetric A, ascending, eigenvectors in columns); of a very large one by the host."""
        if len(A) > _MOST_EIGENVECTORS:
            values, found = linalg.eigh(np.asarray(A))
            return values, self.place(found)
        values = np.empty(len(A))
        vectors = Placed(self, self._matrices.eigenvectors(A.made, values))
        return values, vectors

    def combine(self, alpha: float, A: AnyMatrix, beta: float, B: AnyMatrix) -> Placed:
        """alpha A + beta B, or of a row B beta times it added to each of A."""
        return Placed(self, self._matrices.combine(alpha, _operand(A), beta, _operand(B)))

    def combine_into(self, alpha: float, A: Placed, beta: float, B: AnyMatrix) -> None:
        """The same in the place of A."""
        self._matrices.combine_into(alpha, A.made, beta, _operand(B))

    def scaled_columns(self, A: Placed, factors: FloatArray) -> Placed:
        """A diag(factors)."""
        return Placed(self, self._matrices.scale_columns(A.made, factors))

    def largest_magnitude(self, A: Placed) -> float:
        """max |A_ij|, NaN where one of them is."""
        return float(self._matrices.largest_magnitude(A.made))

    def cosines(self, shape: tuple[int, int], drawn: Cosines) -> Placed:
        """A matrix that is zero but for its last rows and columns, which are E of ``drawn``."""
        return Placed(self, self._matrices.cosines(*shape, *drawn))

    def undo_activation(self, layer: Layer, H: Placed, near: AnyMatrix) -> Placed:
        """T - near with act(T) = H, by rows."""
        kind = ACTIVATIONS[layer.activation]
        return Placed(self, self._matrices.undo_activation(kind, layer.parameter, H.made, _operand(near)))

    def features(self, feature_map: MapStages, X: npt.NDArray[Any] | Placed) -> Placed | None:
        """phi(X) in float64, which stays on the GPU; an X that nobody can write into goes there once in its life."""
        if any(isinstance(layer.weight, Operator) for layer in feature_map.layers):
            return None
        dtype = np.dtype(np.float64)
        taken = X.made if isinstance(X, Placed) else self._dense(X, X.dtype)
        return Placed(
            self, self._operations.features(self._map(feature_map, dtype), taken, tile_rows(feature_map, dtype))
        )

    def _result(self, made: Any, out: FloatArray | None) -> AnyMatrix:
        return Placed(self, made) if out is None else out

    def degrees_of_freedom(self, gram: Any, lambdas: FloatArray) -> FloatArray:
        """On the host, where G is, by its native backend or else by NumPy, see ``Backend.degrees_of_freedom``."""
        return _host().degrees_of_freedom(np.asarray(gram), lambdas)


def _made(gram: Any) -> Any:
    """G as the compiled operations take it."""
    return gram.made if isinstance(gram, ResidentGram) else gram


def _any_placed(*matrices: AnyMatrix) -> bool:
    return any(isinstance(A, Placed) for A in matrices)


def _operand(A: AnyMatrix) -> Any:
    """A matrix as the compiled operations take it."""
    return A.made if isinstance(A, Placed) else _contiguous(A)


def _contiguous(A: FloatArray) -> FloatArray:
    """A by rows or by columns: copies only what is neither."""
    return A if A.flags.c_contiguous or A.flags.f_contiguous else np.ascontiguousarray(A)


def _is_frozen(array: Any) -> bool:
    """Whether an array and those that it is a view of are read-only."""
    while isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.base
    return array is None


def _is_bytes(X: Any) -> bool:
    """Whether an array of any framework holds bytes."""
    return str(getattr(X, "dtype", "")).rpartition(".")[2] == "uint8"


def _host() -> NativeBackend | ArrayBackend:
    try:
        return NativeBackend()
    except ImportError:
        return ArrayBackend()


_shared: dict[tuple[str, int], CudaBackend] = {}


def shared_backend(device: int) -> CudaBackend:
    """The backend on this device without options, with its streams, handles and memory, until the process ends."""
    key = (_load().__name__, device)
    if key not in _shared:
        _shared[key] = CudaBackend(device=device)
    return _shared[key]


def forget_shared_backends() -> None:
    """Lets go of the shared backends, and of their memory on the devices."""
    _shared.clear()


atexit.register(forget_shared_backends)


def cuda_facts() -> dict[str, Any]:
    """``devices``, the versions of ``driver`` and ``runtime``, and what in the environment overrides the arithmetic.

    A process of its own asks for them, so that this one may still be forked. Raises BackendUnavailable with the remedy.
    """
    module = _load()
    facts = _ask(module)
    _check_device(facts, 0)
    names = [f"{d['name']} ({_version(d['compute_capability'])})" for d in facts["devices"]]
    shown = {"devices": names, "driver": _cuda(facts["driver"]), "runtime": _cuda(facts["runtime"])}
    overrides = math_overrides()
    if overrides:
        shown["overrides"] = overrides
    return {**shown, "emulated": True} if module.emulated else shown


def math_overrides() -> list[str]:
    """The variables of the environment, as NAME=VALUE, by which NVIDIA's libraries change their arithmetic."""
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_OVERRIDES)]


def _ask(module: Any) -> dict[str, Any]:
    """What ``driver_facts`` of the module says in another process. Raises BackendUnavailable."""
    command = [os.fsdecode(spawn.get_executable()), "-c", _ASK, module.__name__, module.__file__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)
        return dict(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().rpartition("\n")[2]
        raise BackendUnavailable(
            f"the CUDA backend is built, but a process that asks for devices fails ({said})"
        ) from error


def _load() -> Any:
    try:
        return importlib.import_module("krrdistill._cuda")
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"the CUDA backend is not built ({error}); {BUILD_REMEDY}") from error
    except ImportError as error:
        remedy = 'pip install "krrdistill[cuda13]"'
        raise BackendUnavailable(f"the CUDA backend is built, but cannot be loaded ({error}); {remedy}") from error


def _check_device(facts: dict[str, Any], device: int) -> None:
    """Raises BackendUnavailable unless this device can run the module."""
    driver, runtime, devices = facts["driver"], facts["runtime"], facts["devices"]
    if driver == 0:
        raise BackendUnavailable(f"the CUDA backend is built, but no NVIDIA driver is loaded; {_DRIVER_REMEDY}")
    if driver // 1000 < runtime // 1000:
        found = f"the NVIDIA driver supports CUDA {_cuda(driver)}, this build needs {_cuda(runtime)}"
        raise BackendUnavailable(f"{found}; {_DRIVER_REMEDY}")
    if not devices:
        reason = facts["error"] or "none found"
        raise BackendUnavailable(f"no CUDA device is visible ({reason}); check nvidia-smi and CUDA_VISIBLE_DEVICES")
    if not 0 <= device < len(devices):
        raise BackendUnavailable(f"CUDA device {device} does not exist: there are {len(devices)}; choose another one")
    capability = tuple(devices[device]["compute_capability"])
    if capability < _CAPABILITY:
        found = f"CUDA device {device} ({devices[device]['name']}) has compute capability {_version(capability)}"
        raise BackendUnavailable(f"{found}, this build needs {_version(_CAPABILITY)}; choose another one")


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _version(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
