"""How the CUDA backend forms products: sums of bytes, slices of int8, float32 chains; and what it tells of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import oracles
import tolerances
from conftest import CudaArray, set_tile_rows, stages
from krrdistill.backends import Backend, Layer, Products, products_in
from krrdistill.backends.cuda import CudaBackend
from krrdistill.errors import DeviceError, DeviceOutOfMemory
from krrdistill.ridge.statistics import products_of

Array = npt.NDArray[Any]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")


@pytest.fixture
def auto(one_backend: Backend, device: ModuleType) -> Backend:
    """The backend without options."""
    return one_backend


def sums(
    backend: Backend, chain: Any, X: Any, Y: Array, dtype: Any = FLOAT32, rows: Any = None
) -> tuple[Array, Array, Products]:
    """(lower triangle of G, C, how they were formed), added to numbers that are there already."""
    p, k = chain.output_dim, int(Y.max()) + 1 if Y.ndim == 1 else Y.shape[1]
    gram, cross = np.tril(np.full((p, p), 0.25)), np.full((k, p), -0.5)
    used = backend.accumulate(chain, X, Y, gram, cross, dtype=dtype, rows=rows)
    return np.tril(gram), cross, used


def real_rows(folder: Path, n: int) -> tuple[Array, Any]:
    data = kd.load_dataset("cifar100", data_dir=folder)
    return data.x_train.reshape(len(data.x_train), -1)[:n], kd.standardize(data)


def small_map(kernel: str, X: Array, scaling: Any) -> Any:
    """With 300 features."""
    options: dict[str, Any] = {"widths": (300,)} if kernel == "FCNN" else {"n_features": 300}
    return kd.make_map(kernel, X, scaling, name="cifar100", **options)


def relative(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected, 2) / np.linalg.norm(expected, 2))


# Bytes without layers


@pytest.mark.parametrize("targets", ["labels", "values", "none"])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (15, 16), (33, 31), (300, 129), (129, 200)])
def test_sums_of_bytes_have_the_bits_of_the_native_backend(
    auto: Backend, native_module: ModuleType, monkeypatch: pytest.MonkeyPatch, n: int, p: int, targets: str
) -> None:
    if not native_module.has_byte_products():
        pytest.skip("no kernel of byte products for this CPU")
    set_tile_rows(monkeypatch, auto, 100)  # 64: tiles end where the sums of 65,536 rows do
    native, rng = kd.get_backend("native"), np.random.default_rng(n)
    X = rng.integers(0, 256, (n, p), dtype=np.uint8)
    Y = {"labels": rng.integers(0, 5, n), "values": rng.standard_normal((n, 3)), "none": np.empty((n, 0))}[targets]
    rows = rng.integers(0, n, n)
    for chain in (stages(p), stages(p, (), rng.uniform(0.01, 30.0, p), rng.standard_normal(p))):
        for dtype in (FLOAT32, FLOAT64):
            expected = sums(native, chain, X, Y, dtype, rows)
            found = sums(auto, chain, X, Y, dtype, rows)
            there = sums(auto, chain, CudaArray(X), Y, dtype, rows)
            assert (found[2].precision, found[2].rounding, found[2].arithmetic) == ("float64", 0.0, "integers")
            tolerances.assert_exact(found[0], expected[0])
            tolerances.assert_exact(there[0], found[0])
            tolerances.assert_exact(there[1], found[1])
            if targets == "values":
                magnitude = np.abs(Y[rows]).T @ np.abs(oracles.features(X[rows].T, (), chain.scale, chain.shift)).T + 1
                tolerances.assert_reduction(found[1], expected[1], FLOAT64, n, magnitude)
            else:
                tolerances.assert_exact(found[1], expected[1])


def test_sums_of_bytes_start_again_every_65536_rows(auto: Backend, native_module: ModuleType) -> None:
    if not native_module.has_byte_products():
        pytest.skip("no kernel of byte products for this CPU")
    X = np.full((70_000, 3), 255, np.uint8)  # the largest sums that there can be
    X[::3, 1] = 0
    labels = np.arange(70_000) % 2
    expected, found = (sums(backend, stages(3), X, labels) for backend in (kd.get_backend("native"), auto))
    tolerances.assert_exact(found[0], expected[0])
    tolerances.assert_exact(found[1], expected[1])


def test_products_fp32_forms_no_integers(device: ModuleType) -> None:
    X, labels = np.random.default_rng(0).integers(0, 256, (40, 7), dtype=np.uint8), np.arange(40) % 2
    for dtype, expected in ((FLOAT32, "float32"), (FLOAT64, "float64")):
        used = sums(CudaBackend(products="fp32"), stages(7), X, labels, dtype)[2]
        assert (used.precision, used.arithmetic) == (expected, expected)


# The first layer on bytes


@pytest.mark.data
def test_first_layer_on_real_bytes_is_more_accurate_than_float32_products(
    device: ModuleType, real_data_dir: Path
) -> None:
    X, scaling = real_rows(real_data_dir, 300)
    for kernel in ("FCNN", "random_fourier"):
        phi = small_map(kernel, X, scaling)
        exact = kd.get_backend("array").transform(phi, X, dtype=FLOAT64)
        auto, fp32 = (
            np.linalg.norm(CudaBackend(products=products).transform(phi, X, dtype=FLOAT32) - exact)
            for products in ("auto", "fp32")
        )
        assert 0.0 < auto < fp32
        assert auto <= tolerances.elementwise(np.float32, np.linalg.norm(exact))


@pytest.mark.parametrize("activation", ["linear", "leaky_relu", "cosine"])
@pytest.mark.parametrize(("n", "d", "p"), [(1, 1, 1), (31, 17, 33), (70, 130, 65)])
def test_first_layer_on_bytes_agrees_with_float64(auto: Backend, activation: Any, n: int, d: int, p: int) -> None:
    rng = np.random.default_rng(d)
    weight, bias = rng.standard_normal((p, d)).astype(np.float32), rng.standard_normal(p).astype(np.float32)
    weight[0], weight[-1, 0] = 0.0, 1e3  # a row of zeros, and a number much larger than the others
    X = rng.integers(0, 256, (n, d), dtype=np.uint8)
    for affine in ((), (rng.uniform(0.01, 0.06, d), rng.standard_normal(d))):
        chain = stages(d, (Layer(weight / 100, bias, activation, 0.5),), *affine)
        found = auto.transform(chain, X, dtype=FLOAT32)
        expected = oracles.features(X.T, chain.layers, chain.scale, chain.shift).T
        inputs = np.abs(oracles.features(X.T, (), chain.scale, chain.shift)).T + 8.0
        tolerances.assert_reduction(found, expected, np.float32, d, inputs @ np.abs(weight / 100).T + np.abs(bias))


def test_a_spread_that_hides_behind_the_mean_is_left_to_float32(auto: Backend, device: ModuleType) -> None:
    """Of bytes that differ by one, standardised: 128 a is far beyond the inputs."""
    rng = np.random.default_rng(3)
    X = rng.integers(100, 102, (50, 40), dtype=np.uint8)
    weight = rng.standard_normal((20, 40)).astype(np.float32)
    chain = stages(40, (Layer(weight, None, "linear", 1.0),), np.full(40, 2.0), np.full(40, -201.0))
    tolerances.assert_exact(
        auto.transform(chain, X, dtype=FLOAT32), CudaBackend(products="fp32").transform(chain, X, dtype=FLOAT32)
    )


# G of float32 features


@pytest.mark.data
@pytest.mark.parametrize("kernel", ["FCNN", "random_fourier"])
def test_slices_of_real_features_are_float32_accurate(auto: Backend, real_data_dir: Path, kernel: str) -> None:
    X, scaling = real_rows(real_data_dir, 2000)
    phi = small_map(kernel, X, scaling)
    F = auto.transform(phi, X, dtype=FLOAT32).astype(np.float64)
    gram, _, used = sums(auto, phi, X, np.empty((len(X), 0)))
    gram -= np.tril(np.full(gram.shape, 0.25))
    found = relative(gram + np.tril(gram, -1).T, F.T @ F)
    assert used.arithmetic == "slices"
    assert found <= used.bound <= products_in(FLOAT32).rounding
    assert found <= tolerances.slices(len(X))


@pytest.mark.parametrize("n", [1, 31, 128, 300])
@pytest.mark.parametrize("p", [1, 33, 64, 65, 130])
def test_slices_agree_with_float64(auto: Backend, monkeypatch: pytest.MonkeyPatch, n: int, p: int) -> None:
    set_tile_rows(monkeypatch, auto, 130)
    rng = np.random.default_rng(n)
    X = (rng.standard_normal((n, p)) * 10.0 ** rng.integers(-20, 15, p)).astype(np.float32)
    X[:, 0] = 0.0
    gram, _, used = sums(auto, stages(p), X, np.empty((n, 0)))
    exact = X.astype(np.float64)
    magnitude = np.abs(exact).T @ np.abs(exact)
    most = n * np.outer(np.abs(exact).max(axis=0), np.abs(exact).max(axis=0))  # slices round to the largest of a column
    assert used.precision == "float32"
    tolerances.assert_reduction(gram, np.tril(exact.T @ exact + 0.25), FLOAT32, n, np.tril(magnitude + most + 0.25))


def test_slices_of_small_integers_are_exact(auto: Backend) -> None:
    X = np.random.default_rng(0).integers(-200, 200, (300, 40)).astype(np.float32)
    gram, _, used = sums(auto, stages(40), X, np.empty((300, 0)))
    assert used.arithmetic == "slices"
    tolerances.assert_exact(gram, np.tril(X.astype(np.int64).T @ X.astype(np.int64) + 0.25))


def test_columns_with_outliers_fall_back_to_float32_products(auto: Backend, device: ModuleType) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((2000, 30)).astype(np.float32)
    X[7] += 300.0 * np.arange(30)  # one sample hides the digits of all the others
    labels = rng.integers(0, 3, 2000)
    gram, cross, used = sums(auto, stages(30), X, labels)
    expected = sums(CudaBackend(products="fp32"), stages(30), X, labels)
    assert used == expected[2]
    tolerances.assert_exact(gram, expected[0])
    tolerances.assert_exact(cross, expected[1])


@pytest.mark.parametrize(("n", "p"), [(40, 128), (300, 380), (200, 1100)])
def test_two_products_of_slices_have_the_bits_of_five(device: ModuleType, n: int, p: int) -> None:
    """Which of them are formed follows from how many blocks the device takes at a time: with one, five."""
    X = np.random.default_rng(p).integers(200, 300, (n, p)).astype(np.float32)  # exact in slices
    found, calls = [], []
    for processors in (132, 1):
        device.emulate(multiprocessors=processors)
        backend = CudaBackend()
        device.emulate(multiprocessors=processors)
        found.append(sums(backend, stages(p), X, np.empty((n, 0))))
        calls.append(device.calls())
    assert calls[0] < calls[1]
    assert found[0][2] == found[1][2]
    assert found[0][2].arithmetic == "slices"
    tolerances.assert_exact(found[0][0], found[1][0])


def test_a_small_batch_is_not_summed_twice_for_want_of_digits(device: ModuleType) -> None:
    """Of white noise the norm of G is small beside its trace: slices are not accurate enough, which few rows tell."""
    X, labels = np.random.default_rng(8).standard_normal((4100, 300)).astype(np.float32), np.arange(4100) % 3
    backend = CudaBackend()
    device.bus_bytes()
    gram, cross, used = sums(backend, stages(300), X, labels)
    assert X.nbytes <= device.bus_bytes()[0] < 1.6 * X.nbytes  # G, too
    expected = sums(CudaBackend(products="fp32"), stages(300), X, labels)
    assert used == expected[2]
    magnitude = np.abs(X.astype(np.float64)).T @ np.abs(X) + 0.25
    tolerances.assert_within(gram, expected[0], 2.0**-40 * np.tril(magnitude))  # added to G in another order
    tolerances.assert_reduction(cross, expected[1], FLOAT64, 4100, np.abs(expected[1]) + 4100.0)


def test_a_failure_while_slices_are_judged_leaves_nothing(device: ModuleType) -> None:
    X = np.random.default_rng(8).standard_normal((4100, 300)).astype(np.float32)
    backend = CudaBackend()
    expected = [sums(backend, stages(300), X, np.empty((4100, 0)))[0] for _ in range(2)][1]
    device.emulate()
    tolerances.assert_exact(sums(backend, stages(300), X, np.empty((4100, 0)))[0], expected)
    calls, before = device.calls(), device.live_objects()
    for number in range(8, calls - 8, 3):
        device.emulate(fail_at=number)
        gram = np.zeros((300, 300))
        with contextlib.suppress(DeviceError, DeviceOutOfMemory):
            backend.accumulate(stages(300), X, np.empty((4100, 0)), gram, np.zeros((0, 300)), dtype=FLOAT32)
            assert device.failed() == "cudaMalloc"  # tried again
        assert device.pending() == 0
        device.emulate()
        assert device.live_objects() == before, device.failed()
    tolerances.assert_exact(sums(backend, stages(300), X, np.empty((4100, 0)))[0], expected)


@pytest.mark.parametrize("outlier", [False, True])
def test_slices_that_look_accurate_enough_are_still_judged_at_the_end(device: ModuleType, outlier: bool) -> None:
    X = np.random.default_rng(9).standard_normal((5000, 30)).astype(np.float32)
    if outlier:
        X[4500] += 3e4 * np.arange(30)  # behind the rows that are looked at first
    gram, _, used = sums(CudaBackend(), stages(30), X, np.empty((5000, 0)))
    exact = X.astype(np.float64)
    assert used.arithmetic == ("float32" if outlier else "slices")
    gram -= np.tril(np.full(gram.shape, 0.25))
    assert relative(gram + np.tril(gram, -1).T, exact.T @ exact) <= used.bound


def test_features_that_overflow_are_not_finite_in_g(auto: Backend) -> None:
    X = np.ones((20, 4), np.float32)
    chain = stages(4, (Layer(np.full((5, 4), 3e38, np.float32), None, "linear", 1.0),))
    gram, _, _ = sums(auto, chain, X, np.empty((20, 0)))
    assert not np.isfinite(gram.trace())


# Noise floors


def test_noise_floor_covers_long_chains_of_positive_terms(device: ModuleType) -> None:
    """Sums of 6000 terms of one sign in one float32 chain are further off than the floor says."""
    X = np.random.default_rng(2).integers(0, 256, (6000, 40)).astype(np.float32)
    exact = X.astype(np.float64).T @ X
    for products in ("auto", "fp32"):
        statistics = kd.RidgeStatistics(kd.Identity(40), classes=2, backend=CudaBackend(products=products))
        statistics.update(X, np.arange(6000) % 2)
        floor = statistics.noise_floor(1.0)
        assert np.linalg.norm(statistics.gram - exact) <= floor * np.linalg.norm(exact)
        assert floor == products_in(FLOAT32).rounding


def test_noise_floor_of_tf32_is_kept_by_merges_and_files(device: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 9)).astype(np.float32), np.arange(60) % 2

    def statistics(products: str) -> kd.RidgeStatistics:
        made = kd.RidgeStatistics(kd.Identity(9), classes=2, backend=CudaBackend(products=products))
        return made.update(rng.permutation(X), y)

    coarse, fine = statistics("tf32"), statistics("auto")
    rounding = coarse.noise_floor(1.0)
    assert rounding >= 1.8e-5 > fine.noise_floor(1.0) > 0.0  # measured on an H100
    coarse.save(tmp_path / "coarse.npz")
    for kept in (
        kd.RidgeStatistics.load(tmp_path / "coarse.npz"),
        statistics("auto").merge(coarse),
        statistics("tf32").merge(fine),
        coarse.copy(),
        statistics("tf32").update(X.astype(np.float64), y),
    ):
        assert kept.noise_floor(1.0) == rounding
        assert kept.product_precision == "float32"


def test_files_without_a_rounding_have_that_of_their_precision() -> None:
    assert products_of({"product_precision": "float32"}).rounding == products_in(FLOAT32).rounding
    assert products_of({"product_precision": "float64"}).rounding == 0.0
    assert products_of({"product_precision": "float32", "product_rounding": 1e-3}).rounding == 1e-3
    for rounding in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="product_rounding"):
            products_of({"product_precision": "float32", "product_rounding": rounding})


def test_products_that_are_none_are_refused(device: ModuleType) -> None:
    with pytest.raises(ValueError, match="products must be one of"):
        CudaBackend(products="fp16")


def test_worse_products_win() -> None:
    coarse, fine = Products("float32", 1e-3, "tf32"), products_in(FLOAT64)
    assert coarse.worse(fine) == fine.worse(coarse) == coarse
    assert fine.worse(fine) == fine
