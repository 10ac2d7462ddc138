"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl
from hypothesis import HealthCheck, settings

import krrdistill as kd
from krrdistill.backends import Backend
from krrdistill.backends.array import ArrayBackend
from krrdistill.backends.cuda import CudaBackend, forget_shared_backends
from krrdistill.backends.staged import StagedBackend
from krrdistill.common.native import load_native
from krrdistill.data import Preprocessing
from krrdistill.errors import BackendUnavailable
from krrdistill.maps import FeatureMap

# No health check of speed: nothing is timed in a test.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

try:
    NATIVE: ModuleType | None = load_native()  # as users get it: its idle threads do not spin
    ISAS: tuple[str, ...] = tuple(NATIVE.build_facts()["isas"])
except ImportError:
    NATIVE, ISAS = None, ("missing",)
    with warnings.catch_warnings():  # said once; test_backends.py looks at it
        warnings.simplefilter("ignore")
        kd.get_backend()
try:
    CUDA_EMULATED: ModuleType | None = importlib.import_module("krrdistill._cuda_emulated")
except ImportError:
    CUDA_EMULATED = None
try:
    importlib.import_module("krrdistill.backends.cuda").cuda_facts()
    NO_GPU = ""
except BackendUnavailable as unavailable:
    NO_GPU = str(unavailable)
HAS_NUMBA = importlib.util.find_spec("numba") is not None
REAL_DATA = Path(os.environ.get("KRRDISTILL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--compiled-only",
        action="store_true",
        help="leave out the rows of backends that run nothing of the compiled modules",
    )


def pytest_report_header() -> list[str]:
    """What this run covers."""
    native = "not built: its tests are skipped" if NATIVE is None else f"tested on {', '.join(ISAS)}"
    numba = "tested" if HAS_NUMBA else "not installed: its tests are skipped"
    emulated = "not built: its tests are skipped" if CUDA_EMULATED is None else "tested on an emulated device"
    gpu = f"tests marked gpu did not run: {NO_GPU}" if NO_GPU else "tested on this machine's GPU"
    data = f"{'in' if REAL_DATA.is_dir() else 'not in'} {REAL_DATA}"
    return [f"krrdistill: native backend {native}; Numba {numba}; real data {data}", f"CUDA: {emulated}; {gpu}"]


OPERATIONS = ("transform", "accumulate", "score_path", "ridge_path", "solve_spd", "preimage_solve")


def parameters_of(item: pytest.Item) -> dict[str, Any]:
    """The parameters of a test, by name."""
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def backend_names(item: pytest.Item) -> list[str]:
    """The backend that a test of every backend is of, in a list; an empty one for other tests."""
    found = [parameters_of(item).get(name) for name in ("backend", "any_backend", "path_backend")]
    return [name for name in found if isinstance(name, str)]


def remember_parity(item: pytest.Item) -> None:
    """Notes what a test of every backend covers: an operation (by its name), a precision, a map.

    As a property of the test, which reports bring along from the processes that run them.
    """
    parameters = parameters_of(item)
    for name in backend_names(item) if item.path.name == "test_backends.py" else ():
        operation = next((operation for operation in OPERATIONS if f"_{operation}" in item.name), "other")
        covered = (operation, str(parameters.get("dtype", "float64")), str(parameters.get("kind", "other maps")))
        item.user_properties.append(("parity", [name, *covered]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The parity matrix: how many tests of test_backends.py each backend passed."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            for _, (name, *covered) in (item for item in getattr(report, "user_properties", ()) if item[0] == "parity"):
                counts.setdefault(name, Counter()).update([*covered, "total"] if outcome == "passed" else [outcome])
    if not counts:
        return
    found = set().union(*counts.values())
    seen = [*OPERATIONS, "other", "float32", "float64", *sorted(found), "total", "failed", "skipped"]
    columns = [name for name in dict.fromkeys(seen) if name in found]
    columns.sort(
        key=lambda name: ("total", "failed", "skipped").index(name) if name in ("total", "failed", "skipped") else -1
    )
    terminalreporter.section("parity of the backends: tests passed by operation, by precision and by map")
    width = max(map(len, counts))
    for index in range(0, len(columns), 9):
        part = columns[index : index + 9]
        terminalreporter.write_line(" ".join([f"{'':{width}}", *(f"{name:>14}" for name in part)]))
        for name, row in counts.items():
            terminalreporter.write_line(" ".join([f"{name:{width}}", *(f"{row[column]:>14}" for column in part)]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked ``data`` are skipped, with the reason, where the real data sets are not at hand.

    Those marked ``gpu`` are left out where there is no GPU (the header says so), or skipped if they were asked for.
    """
    for item in items:
        remember_parity(item)
    if config.option.compiled_only:
        others = {*ARRAY_BACKENDS, "numba"}
        config.hook.pytest_deselected(items=[item for item in items if others & set(backend_names(item))])
        items[:] = [item for item in items if not others & set(backend_names(item))]
    if NO_GPU and "gpu" in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"did not run: {NO_GPU}"))
    elif NO_GPU:
        left_out = [item for item in items if item.get_closest_marker("gpu")]
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=left_out)
    if REAL_DATA.is_dir():
        return
    absent = pytest.mark.skip(reason=f"no real data sets in {REAL_DATA} (set KRRDISTILL_DATA)")
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of the real data sets; for tests marked ``data``."""
    return REAL_DATA


@pytest.fixture(scope="session")
def native_module() -> ModuleType:
    """The compiled module; the test is skipped where the package was installed without it."""
    if NATIVE is None:
        pytest.skip("the compiled core is not built (krrdistill info tells how)")
    return NATIVE


@pytest.fixture(scope="session")
def numba_module() -> ModuleType:
    """The module of the Numba backend; the test is skipped where Numba is not installed."""
    if not HAS_NUMBA:
        pytest.skip('Numba is not installed (pip install "krrdistill[numba]")')
    module = importlib.import_module("krrdistill.backends.numba")
    # Numba's first loop gives OpenMP as many threads as there are cores; the compiled module's tests have those set for
    # the process, which come back at the end of the block.
    with threadpoolctl.threadpool_limits(1):
        kd.get_backend("numba").transform(FeatureMap(1), np.zeros((1, 1)), dtype=np.dtype(np.float32))
    return module


@pytest.fixture(scope="session")
def cuda_emulated() -> ModuleType:
    """The CUDA backend on an emulated device, in the place of the real one; skipped where it was not built."""
    if CUDA_EMULATED is None:
        pytest.skip("the emulated CUDA backend is not built (KRRDISTILL_CUDA_EMULATED=ON)")
    return CUDA_EMULATED


def emulated_backend(module: ModuleType) -> Backend:
    """A CUDA backend on the emulated device; krrdistill._cuda is afterwards what it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "krrdistill._cuda", module)
        return StagedBackend(CudaBackend(keep_memory=False))  # freed memory is poisoned, memory that waits is not


class CudaArrays:
    """The namespace of ``CudaArray``: results stay what the backend made."""

    @staticmethod
    def from_dlpack(matrix: Any) -> Any:
        """``matrix`` itself."""
        return matrix


class CudaArray:
    """A matrix of some framework on an emulated device; a stream (1 or 2: CUDA's default ones) has yet to write it.

    Like PyTorch's, it is shared only while its device is current. ``bfloat``: x (uint16) are the bits of bfloat16.
    """

    def __init__(
        self, x: Any, *, stream: int = 1, hand_over: bool = True, device: int = 0, bfloat: bool = False
    ) -> None:
        self.module: Any = sys.modules["krrdistill._cuda"]
        self.shape, self.dtype, self.stream, self.hand_over, self.device = x.shape, x.dtype, stream, hand_over, device
        self.matrix = self.module.upload(x, stream=stream, device=device, bfloat=bfloat)

    def __array_namespace__(self, **_: Any) -> Any:
        return CudaArrays

    def __dlpack_device__(self) -> Any:
        return self.matrix.__dlpack_device__()

    def __dlpack__(self, *, stream: int) -> Any:
        if self.module.current_device() != self.device:
            raise BufferError(f"the array is on device {self.device}, current is {self.module.current_device()}")
        if self.hand_over:
            self.module.wait_for(stream, self.stream)
        return self.matrix.__dlpack__(stream=stream)


@pytest.fixture(scope="session")
def one_backend(cuda_emulated: ModuleType) -> Backend:
    """A backend that exists before the objects of a test are counted."""
    return emulated_backend(cuda_emulated)


@pytest.fixture
def device(cuda_emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The emulated module as krrdistill._cuda, with its settings as they were and nothing left when the test ends."""
    monkeypatch.setitem(sys.modules, "krrdistill._cuda", cuda_emulated)
    forget_shared_backends()
    gc.collect()
    gc.freeze()  # collections of this test and later ones look at its objects, not at those of all frameworks
    before = cuda_emulated.live_objects()
    yield cuda_emulated
    forget_shared_backends()
    gc.collect()
    cuda_emulated.emulate()
    assert cuda_emulated.live_objects() == before


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, native_module: ModuleType) -> Iterator[str]:
    """Every instruction set of this CPU and build in turn, the element-wise kernels set to it."""
    before = native_module.build_facts()["isa"]
    native_module.set_isa(request.param)
    yield request.param
    native_module.set_isa(before)


def framework(name: str) -> Any:
    """A framework's module; the test is skipped where it is not installed."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def closed_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """array-api-strict's second device, which then tells DLPack that it is a CUDA device, and shares nothing."""
    strict = framework("array_api_strict")
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("array-api-strict moves arrays between its devices with NumPy 2 only")
    Strict = type(strict.zeros(1))
    device, open_dlpack = strict.Device("device1"), Strict.__dlpack__

    def share(self: Any, **options: Any) -> Any:
        if self.device == device:
            raise BufferError("not in host memory")
        return open_dlpack(self, **options)

    monkeypatch.setattr(Strict, "__dlpack_device__", lambda self: (2 if self.device == device else 1, 0))
    monkeypatch.setattr(Strict, "__dlpack__", share)
    return device


def array_backend(name: str) -> Backend:
    """The array backend "array", or "array-FRAMEWORK" on arrays of that framework."""
    of = name.partition("-")[2]
    return ArrayBackend(framework(of).zeros(1)) if of else kd.get_backend(name)


def stages(d: int, layers: Any = (), scale: Any = None, shift: Any = None) -> FeatureMap:
    """The map x scale + shift, then the layers."""
    if scale is None:
        return FeatureMap(d, tuple(layers))
    unit = 1.0 / np.asarray(scale, dtype=np.float64)
    return FeatureMap(d, tuple(layers), preprocessing=Preprocessing("standardize", -np.asarray(shift) * unit, unit))


ARRAY_BACKENDS = ("array", "array-torch", "array-array_api_strict")


CUDA_ROWS = ("cuda-emulated", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=[*ARRAY_BACKENDS, "numba", *(f"native-{isa}" for isa in ISAS), *CUDA_ROWS])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend in turn, the native one on every instruction set of this CPU and build."""
    if request.param in ARRAY_BACKENDS:
        yield array_backend(request.param)
        return
    name, _, isa = request.param.partition("-")
    if isa == "emulated":
        yield emulated_backend(request.getfixturevalue("cuda_emulated"))
        return
    if name != "native":
        if name == "numba":
            request.getfixturevalue("numba_module")
        yield kd.get_backend(name)
        return
    native = request.getfixturevalue("native_module")
    before = native.build_facts()["isa"]
    native.set_isa(isa)
    yield kd.get_backend("native")
    native.set_isa(before)


ANY_BACKENDS = (*ARRAY_BACKENDS, "numba", "native", *CUDA_ROWS)


def named_backend(name: str, request: pytest.FixtureRequest) -> Backend:
    """One of ``ANY_BACKENDS``; the test is skipped where it is not there."""
    if name in ARRAY_BACKENDS:
        return array_backend(name)
    if name == "cuda-emulated":
        return emulated_backend(request.getfixturevalue("cuda_emulated"))
    if name in ("native", "numba"):
        request.getfixturevalue(f"{name}_module")
    return kd.get_backend(name)


@pytest.fixture(scope="session", params=ANY_BACKENDS)
def any_backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn, on the instruction set that users get."""
    return named_backend(request.param, request)


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype[np.floating]:
    """Both precisions of the data path."""
    return np.dtype(request.param)


@pytest.fixture
def undrawn_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of runs are written without their charts, which take most of the time of a run on small data.

    For tests of everything else that a run does. Those marked ``drawn`` look at the page and get it whole.
    """
    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr("krrdistill.apps.report.page.run_page", lambda run: b"<!doctype html>")


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers for test inputs."""
    return np.random.default_rng(2024)


@pytest.fixture(scope="session")
def mnist(real_data_dir: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The first 3000 training and 1000 test digits of MNIST."""
    with np.load(real_data_dir / "mnist.npz", allow_pickle=False) as archive:
        sizes = {"x_train": 3000, "y_train": 3000, "x_test": 1000, "y_test": 1000}
        return {name: archive[name][:n] for name, n in sizes.items()}


def set_tile_rows(monkeypatch: pytest.MonkeyPatch, backend: Backend, rows: int) -> None:
    """Tiles of this many rows, behind the stages in Python."""
    running = type(backend.inner if isinstance(backend, StagedBackend) else backend)
    for module in {sys.modules[kind.__module__] for kind in running.__mro__}:
        if hasattr(module, "tile_rows"):
            monkeypatch.setattr(module, "tile_rows", lambda feature_map, dtype, **_: rows)
