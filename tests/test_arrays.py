"""Arrays of other frameworks: the same numbers from the same memory, results of the caller's kind, and what is refused.

What works on an accelerator is shown on array-api-strict's second device, made as closed as one: NumPy cannot read it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from conftest import framework
from krrdistill.backends import get_backend
from krrdistill.backends.array import ArrayBackend
from krrdistill.common import arrays
from krrdistill.common import samples as samples_module
from krrdistill.common.rows import RowSource

D, K = 12, 3
MAPS = {
    "identity": kd.Identity(D),
    "random_fourier": kd.RandomFourier(D, 10, sigma2=30.0, seed=1),
    "orthogonal_fourier": kd.OrthogonalFourier(D, 11, sigma2=30.0, seed=1),
    "FCNN": kd.FCNN(D, [11, 9], seed=1),
}
Array = npt.NDArray[Any]


def samples(n: int = 60, dtype: Any = "float64", seed: int = 3) -> Array:
    X = np.random.default_rng(seed).standard_normal((n, D))
    return (100 + 20 * X).astype(dtype) if np.dtype(dtype).kind == "u" else X.astype(dtype)


def labels(n: int = 60) -> Array:
    return np.arange(n) % K


class Kind:
    """One kind of array: how to make one, and to read it back."""

    def __init__(self, name: str, module: ModuleType, device: Any = None) -> None:
        self.name, self.module, self.device = name, module, device

    def make(self, values: Any) -> Any:
        if self.name == "numpy":
            return np.array(values)
        return self.module.asarray(np.array(values), device=self.device)

    def read(self, array: Any, dtype: str) -> Array:
        """The numbers of an array that must be of this kind, on its device, in ``dtype``."""
        assert isinstance(array, type(self.make(0.0)))
        assert arrays.dtype_name(array.dtype) == dtype
        assert arrays.device_of(array) == arrays.device_of(self.make(0.0))
        return np.asarray(array if arrays.is_on_host(array) else array.to_device(self.module.Device("CPU_DEVICE")))


@pytest.fixture(params=["numpy", "torch", "jax", "array_api_strict", "device"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of array in turn."""
    if request.param == "device":
        return Kind("device", framework("array_api_strict"), request.getfixturevalue("closed_device"))
    if request.param == "jax":
        framework("jax")
        return Kind("jax", framework("jax.numpy"))
    return Kind(request.param, framework(request.param))


@pytest.fixture(params=["torch", "jax"])
def shared(request: pytest.FixtureRequest) -> tuple[Callable[[Array], Any], Callable[[Any], int]]:
    """(array of a framework, its address), for the frameworks that say where their memory is."""
    if request.param == "torch":
        torch = framework("torch")
        return torch.tensor, lambda X: int(X.data_ptr())
    framework("jax")
    return framework("jax.numpy").asarray, lambda X: int(X.unsafe_buffer_pointer())


# Memory


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_host_arrays_are_used_where_they_are(shared: Any, dtype: str) -> None:
    make, address = shared
    X = make(samples(dtype=dtype))
    seen = samples_module.as_samples("f", X, input_dim=D)
    assert type(seen) is np.ndarray
    assert seen.ctypes.data == address(X)
    tolerances.assert_exact(seen, samples(dtype=dtype))


def test_the_compiled_module_reads_the_tensor_itself(
    native_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = framework("torch")
    seen: list[int] = []
    accumulate = native_module.accumulate

    def record(handle: Any, X: Array, *arguments: Any) -> None:
        seen.append(X.ctypes.data)
        accumulate(handle, X, *arguments)

    monkeypatch.setattr(native_module, "accumulate", record)
    X, y = torch.tensor(samples(dtype="float32")), torch.tensor(labels())
    kd.RidgeStatistics(MAPS["FCNN"], K, backend="native").update(X, y)
    assert seen == [X.data_ptr()]


def test_layouts_of_tensors() -> None:
    torch = framework("torch")
    wide = torch.tensor(np.hstack([samples(), samples(seed=4)]))
    phi = MAPS["FCNN"]
    for X, is_shared in (
        (wide[:, :D], True),
        (wide[::2, D:], True),
        (wide[:, ::2], False),  # kernels read contiguous rows
        (torch.tensor(samples().T.copy()).T, False),
        (wide[:1, :D].expand(7, D), True),
        (wide[:, :D].reshape(-1, 3, 4), None),
    ):
        before = X.clone()
        found = samples_module.as_samples("f", X, input_dim=D)
        if is_shared:
            assert found.ctypes.data == X.data_ptr()
        elif is_shared is not None:
            assert isinstance(found, RowSource)
        flat = X.reshape(len(X), D).numpy().copy()
        tolerances.assert_exact(phi.transform(X).numpy(), phi.transform(flat))
        assert torch.equal(X, before)


def test_layouts_that_only_numpy_has(tmp_path: Path) -> None:
    torch_backend = ArrayBackend(framework("torch").zeros(1))
    X = samples()
    X.tofile(tmp_path / "X.bin")
    mapped = np.memmap(tmp_path / "X.bin", dtype=X.dtype, mode="r", shape=X.shape)
    read_only = X.copy()
    read_only.flags.writeable = False
    for backend in (None, "array", torch_backend):
        expected = kd.Identity(D).transform(X, backend=backend)
        for other in (mapped, read_only, X[::-1][::-1], np.asfortranarray(X)):
            tolerances.assert_exact(kd.Identity(D).transform(other, backend=backend), expected)


def test_results_are_not_copied_either() -> None:
    torch = framework("torch")
    result = np.arange(6.0)
    assert arrays.like(result, torch.zeros(1)).data_ptr() == result.ctypes.data
    assert arrays.like(result, [1.0]) is result
    distilled = distill(samples(), labels()).distilled
    points, targets = distilled.to_torch(dtype=torch.float64).tensors
    tolerances.assert_exact(points.numpy(), distilled.X)
    tolerances.assert_exact(targets.numpy(), distilled.Y)
    points.zero_()
    targets.zero_()
    assert distilled.X.any()  # the tensors are the caller's own: the set stays as it is
    assert distilled.Y.any()


# Values and kinds


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("name", MAPS)
def test_transform_gives_the_same_kind(kind: Kind, name: str, dtype: str) -> None:
    X, phi = samples(dtype=dtype), MAPS[name]
    given = kind.make(X)
    precision = "float32" if dtype == "float32" or kind.name == "jax" else "float64"  # JAX has no float64 by default
    if kind.name == "jax" and dtype == "float64":
        X = X.astype("float32")
    actual = kind.read(phi.transform(given), precision)
    expected = phi.transform(X, backend="array" if kind.name == "device" else None)
    tolerances.assert_exact(actual, expected.astype(precision))
    assert kind.read(phi.transform(given, dtype="float32"), "float32").shape == expected.shape


def test_transform_takes_the_dtypes_of_frameworks() -> None:
    torch = framework("torch")
    X = torch.tensor(samples())
    assert kd.Identity(D).transform(X, dtype=torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match="dtype must be one of float32, float64; got 'float16'"):
        kd.Identity(D).transform(X, dtype=torch.float16)


def test_jax_keeps_float64_where_it_has_it() -> None:
    jax = framework("jax")
    with jax.enable_x64(True):
        F = MAPS["FCNN"].transform(jax.numpy.asarray(samples()))
        assert F.dtype == np.float64
    tolerances.assert_exact(F, MAPS["FCNN"].transform(samples()))


@pytest.mark.parametrize("backend", [None, "numba", "array"])
def test_statistics_are_equal_to_the_last_bit(kind: Kind, backend: str | None, request: pytest.FixtureRequest) -> None:
    if backend == "numba":
        request.getfixturevalue("numba_module")
    if kind.name == "device":
        backend = "array"
    X, y = samples(dtype="float32"), labels()
    Y = np.random.default_rng(5).standard_normal((len(X), K)).astype("float32")
    rows = np.array([5, 0, 17, 17])
    for targets in (y, Y):
        options: dict[str, Any] = {"classes": K} if targets.ndim == 1 else {"n_targets": K}
        found = kd.RidgeStatistics(MAPS["FCNN"], **options, backend=backend).update(kind.make(X), kind.make(targets))
        found.update(kind.make(X), kind.make(targets), rows=kind.make(rows))
        expected = kd.RidgeStatistics(MAPS["FCNN"], **options, backend=backend).update(X, targets)
        expected.update(X, targets, rows=rows)
        tolerances.assert_exact(found.gram, expected.gram)
        tolerances.assert_exact(found.cross, expected.cross)
        tolerances.assert_exact(found.target_square, expected.target_square)
        assert found.backend.name == expected.backend.name
        lambdas = np.array([0.5, 2.0], "float32")
        tolerances.assert_exact(
            kd.ridge_path(found, kind.make(lambdas)).weights, kd.ridge_path(expected, lambdas).weights
        )


def distill(X: Any, y: Any, name: str = "FCNN", **options: Any) -> kd.Distillation:
    return kd.distill(X, y, MAPS[name], lambdas=[0.1, 10.0], **options)


@pytest.mark.parametrize("init", ["noise", "real"])
@pytest.mark.parametrize("name", MAPS)
def test_distill_is_equal_to_the_last_bit_and_exact(kind: Kind, name: str, init: str) -> None:
    X, y = samples(dtype="float32"), labels()
    backend = "array" if kind.name == "device" else None
    found = distill(kind.make(X), kind.make(y), name, init=init)
    expected = distill(X, y, name, init=init, backend=backend)
    tolerances.assert_exact(found.distilled.X, expected.distilled.X)
    tolerances.assert_exact(found.distilled.Y, expected.distilled.Y)
    tolerances.assert_exact(found.model.W, expected.model.W)
    tolerances.assert_solve(found.distilled.fit(), found.model.W, 1e5)
    predicted = kind.read(found.distilled.predict(kind.make(X)), "int32" if kind.name == "jax" else "int64")
    tolerances.assert_exact(predicted, expected.distilled.predict(X, backend=backend))


@pytest.mark.parametrize("name", MAPS)
def test_preimages_and_solutions_give_the_same_kind(kind: Kind, name: str) -> None:
    near = samples(5, "float32")
    F = MAPS[name].transform(near, dtype="float32")
    precision = "float32" if kind.name == "jax" else "float64"
    found = kind.read(MAPS[name].preimage(kind.make(F), near=kind.make(near)), precision)
    tolerances.assert_exact(found, MAPS[name].preimage(F, near=near).astype(precision))
    Y = np.eye(5, K, dtype="float32")
    W = kind.read(kd.fit_features(kind.make(F), kind.make(Y), 0.5), precision)
    tolerances.assert_exact(W, kd.fit_features(F, Y, 0.5).astype(precision))


def test_preprocessing_gives_the_same_kind(kind: Kind) -> None:
    scaling = kd.Preprocessing("standardize", np.full(D, 2.0), np.full(D, 2.0))
    X = samples(4, "float32").reshape(4, 3, 4)
    precision = "float32" if kind.name == "jax" else "float64"
    Z = kind.read(scaling.apply(kind.make(X)), precision)
    tolerances.assert_exact(Z, scaling.apply(X).astype(precision))
    back = kind.read(scaling.invert(kind.make(Z), (3, 4)), precision)
    tolerances.assert_exact(back, scaling.invert(Z, (3, 4)).astype(precision))


def test_kip_takes_tensors() -> None:
    torch = framework("torch")
    X, y = samples(dtype="float32"), labels()
    options: dict[str, Any] = {"iterations": 2, "lambdas": [1.0]}
    found = kd.kip_distill(torch.tensor(X), torch.tensor(y), MAPS["FCNN"], **options)
    expected = kd.kip_distill(X, y, MAPS["FCNN"], **options)
    tolerances.assert_exact(found.losses, expected.losses)


# Devices


def test_data_on_a_device_is_not_brought_to_the_host(closed_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = framework("array_api_strict")
    X, y = (strict.asarray(a, device=closed_device) for a in (samples(), labels()))
    for name in ("_RUNS", "_RUN_ROWS"):  # units are told by a few rows: of this many samples 4, not 256
        monkeypatch.setattr(f"krrdistill.data.units.{name}", 2)
    moved: list[int] = []
    to_device = type(X).to_device
    monkeypatch.setattr(
        type(X), "to_device", lambda self, *a, **b: (moved.append(self.size), to_device(self, *a, **b))[1]
    )
    result = distill(X, y, precision="float64")
    assert moved
    assert max(moved) <= 11 * 11  # labels, G and C; X has 720 entries
    assert result.distilled.meta["options"]["backend"] == "array"


@pytest.mark.parametrize("name", ["native", "numba"])
def test_backends_of_the_host_refuse_a_device(closed_device: Any, name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(f"{name}_module")
    X = framework("array_api_strict").asarray(samples(), device=closed_device)
    message = rf"backend '{name}' takes arrays in host memory, the data is on .*device1.*; use backend='array', or copy"
    for backend in (name, get_backend(name)):
        with pytest.raises(TypeError, match=message):
            MAPS["FCNN"].transform(X, backend=backend)


def test_mixed_devices(closed_device: Any) -> None:
    strict = framework("array_api_strict")
    X, y, Y = samples(), labels(), np.eye(K)[labels()]
    here, there = strict.asarray, strict.asarray(X, device=closed_device)
    statistics = kd.RidgeStatistics(MAPS["FCNN"], K)
    F = MAPS["FCNN"].transform(there)
    pairs: list[tuple[Callable[[], Any], str]] = [
        (lambda: statistics.update(there, here(y)), "statistics.update: .*X on .*device1.*, y on the host"),
        (lambda: statistics.update(here(X), strict.asarray(Y, device=closed_device)), "X on the host, y on .*device1"),
        (lambda: distill(there, here(y)), "distill: .*X on .*device1.*, y on the host"),
        (lambda: MAPS["FCNN"].preimage(F, near=here(X)), "preimage: .*F on .*device1.*, near on the host"),
        (lambda: kd.fit_features(here(X), F), "fit_features: .*F on the host, Y on .*device1"),
    ]
    for call, message in pairs:
        with pytest.raises(TypeError, match=message):
            call()
    assert statistics.n == 0
    for anywhere in (y, y.tolist()):
        statistics.update(there, anywhere)
    assert statistics.n == 2 * len(X)


def test_frameworks_that_cannot_be_written_to() -> None:
    with pytest.raises(TypeError, match=r"array backend: JAX arrays cannot be written to; copy this one from .*cpu"):
        ArrayBackend(framework("jax.numpy").zeros(1))


def test_frameworks_whose_factorisations_fail_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = framework("array_api_strict")
    factor = strict.linalg.cholesky

    def silent(A: Any) -> Any:
        try:
            return factor(A)
        except np.linalg.LinAlgError:
            return A * strict.nan

    monkeypatch.setattr(strict.linalg, "cholesky", silent)
    with pytest.raises(kd.NotPositiveDefinite, match="leading minor 2; raise lambda"):
        ArrayBackend(strict.zeros(1)).solve_spd(np.diag([1.0, -1.0, 1.0]), np.ones((3, 1)))


def test_a_device_that_dlpack_does_not_know() -> None:
    torch = framework("torch")
    assert not arrays.is_on_host(torch.zeros((2, D), device="meta"))
    with pytest.raises(TypeError, match=r"^distill: X is on PyTorch's meta device and has no values$"):
        kd.distill(torch.zeros((2, D), device="meta"), [0, 1], kd.Identity(D))
    with pytest.raises(TypeError, match=r"y is a torch array of torch.int64 that NumPy cannot read \(.*\); convert it"):
        arrays.to_host("f", "y", torch.zeros(2, dtype=torch.int64, device="meta"))


# Refusals


def one_line(error: pytest.ExceptionInfo[BaseException]) -> None:
    assert "\n" not in str(error.value)


def test_gradients_are_refused() -> None:
    torch = framework("torch")
    X = torch.tensor(samples(), requires_grad=True)
    y, F = torch.tensor(labels()), MAPS["FCNN"].transform(X.detach())
    learned = F.clone().requires_grad_()
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("FCNN.transform: X", lambda: MAPS["FCNN"].transform(X)),
        ("statistics.update: X", lambda: kd.RidgeStatistics(MAPS["FCNN"], K).update(X, y)),
        ("statistics.update: y", lambda: kd.RidgeStatistics(MAPS["FCNN"], 9).update(X.detach(), learned)),
        ("distill: X", lambda: distill(X, y)),
        ("FCNN.preimage: F", lambda: MAPS["FCNN"].preimage(learned)),
        ("fit_features: F", lambda: kd.fit_features(learned, learned)),
    ]
    for where, call in calls:
        with pytest.raises(TypeError, match=rf"{where} requires gradients.*detach\(\).*interop.torch") as caught:
            call()
        one_line(caught)


def test_traced_arrays_are_refused() -> None:
    jax = framework("jax")
    X = jax.numpy.asarray(samples(dtype="float32"))
    for transform in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"transform: X is being traced by JAX .* call it outside") as caught:
            transform(lambda x: MAPS["FCNN"].transform(x).sum())(X)
        one_line(caught)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("complex64", "transform: X must be a numeric array, got dtype complex64"),
    ],
)
def test_types_of_tensors_that_cannot_be(dtype: str, message: str) -> None:
    torch = framework("torch")
    with pytest.raises(TypeError, match=message) as caught:
        MAPS["FCNN"].transform(torch.zeros((2, D), dtype=getattr(torch, dtype)))
    one_line(caught)


def test_sparse_tensors_are_refused() -> None:
    torch = framework("torch")
    with pytest.raises(TypeError, match=r"transform: X is a torch array .* cannot read \(.*layout.*\)"):
        MAPS["FCNN"].transform(torch.zeros((2, D)).to_sparse())


def test_types_on_a_device_that_cannot_be(closed_device: Any) -> None:
    strict = framework("array_api_strict")
    with pytest.raises(TypeError, match=r"transform: X must be a numeric array, got dtype .*complex128"):
        MAPS["FCNN"].transform(strict.zeros((2, D), dtype=strict.complex128, device=closed_device))
    whole = strict.ones((2, D), dtype=strict.int64, device=closed_device)
    assert arrays.dtype_name(samples_module.as_samples("f", whole).dtype) == "float64"
    for small in (strict.int16, strict.bool):
        whole = strict.ones((2, D), dtype=small, device=closed_device)
        assert arrays.dtype_name(samples_module.as_samples("f", whole).dtype) == "float32"


def test_floats_are_no_labels(kind: Kind) -> None:
    with pytest.raises(
        TypeError, match=r"distill: y holds whole numbers as float32, .*targets='classes'.*targets='real'"
    ):
        distill(kind.make(samples()), kind.make(labels().astype("float32")))
