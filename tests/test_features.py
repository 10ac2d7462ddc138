"""Feature maps: how their weights are drawn, transform, preimage, description and bad arguments."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import krrdistill as kd
import oracles
import tolerances
from krrdistill.backends import Backend, Layer, get_backend
from krrdistill.backends.base import weight_arrays
from krrdistill.common.random import Stream, normal, permutation, uniform
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError, NotSurjective
from krrdistill.maps import KERNELS, FeatureMap, map_from_spec, median_sigma2

Array = npt.NDArray[Any]

D = 8


def fourier(p: int, seed: int = 0) -> kd.RandomFourier:
    return kd.RandomFourier(D, p, sigma2=6.0, seed=seed)


def orthogonal(p: int, seed: int = 0) -> kd.OrthogonalFourier:
    return kd.OrthogonalFourier(D, p, sigma2=6.0, seed=seed)


MAPS: dict[str, FeatureMap] = {
    "identity": kd.Identity(D),
    "fourier_square": fourier(D),
    "fourier_wide": fourier(5),
    "fourier_one": fourier(1),
    "fourier_orthogonal": orthogonal(D),
    "fourier_orthogonal_wide": orthogonal(5),
    "fourier_orthogonal_one": orthogonal(1),
    "fcnn_square": kd.FCNN(D),
    "fcnn_wide": kd.FCNN(D, [5]),
    "fcnn_deep": kd.FCNN(D, hidden_layers=3, seed=1),
    "fcnn_narrowing": kd.FCNN(D, [7, 7, 4], slope=0.3, seed=2),
    "fcnn_one": kd.FCNN(D, [1]),
    "fourier_laplacian": kd.RandomFourier(D, 5, sigma2=6.0, spectral="laplacian"),
    "fourier_matern": kd.RandomFourier(D, 5, sigma2=6.0, spectral="matern", nu=1.5),
    "deep_linear_narrowing": kd.DeepLinear(D, [7, 5]),
}
FOURIER = {name: phi for name, phi in MAPS.items() if name.startswith("fourier")}
UNIQUE = ("identity", "fcnn_square", "fcnn_deep")  # invertible: the preimage is the input


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def condition_of(phi: FeatureMap) -> float:
    """Product of the layers' condition numbers and of what their activations' inverses multiply errors by."""
    slopes = [1.0 / layer.parameter if layer.activation == "leaky_relu" else 1.0 for layer in phi.layers]
    return math.prod(slopes) * math.prod(oracles.condition(oracles.dense(layer.weight)) for layer in phi.layers)


def features_in_range(phi: FeatureMap, m: int, seed: int = 0) -> Array:
    """Features that are no image of known inputs, away from the ends of the range (arccos is steep there)."""
    limit = phi.feature_limit()
    if math.isinf(limit):
        return gaussian(m, phi.output_dim, seed=seed)
    return np.random.default_rng(seed).uniform(-0.95 * limit, 0.95 * limit, (m, phi.output_dim))


# Weights and transform


@pytest.mark.parametrize(("d", "p", "sigma2", "seed"), [(8, 5, 6.0, 0), (3, 7, 0.5, 2**64 - 1)])
def test_fourier_weights(d: int, p: int, sigma2: float, seed: int) -> None:
    (layer,) = kd.RandomFourier(d, p, sigma2=sigma2, seed=seed).layers
    weight = normal(seed, Stream.WEIGHTS, p * d).reshape(p, d) / np.sqrt(sigma2)
    tolerances.assert_exact(layer.weight, weight.astype(np.float32))
    tolerances.assert_exact(layer.bias, (2 * np.pi * uniform(seed, Stream.FOURIER_BIAS, p)).astype(np.float32))
    assert (layer.activation, layer.parameter) == ("cosine", math.sqrt(2 / p))
    assert layer.weight.dtype == np.float32


@pytest.mark.parametrize(("d", "p", "sigma2", "seed"), [(8, 5, 6.0, 0), (7, 7, 0.5, 2**64 - 1), (1, 1, 3.0, 1)])
def test_orthogonal_fourier_weights(d: int, p: int, sigma2: float, seed: int) -> None:
    (layer,) = kd.OrthogonalFourier(d, p, sigma2=sigma2, seed=seed).layers
    n = {8: 8, 7: 4, 1: 1}[d]
    expected = np.where(uniform(seed, Stream.WEIGHTS, 6 * n) > 0.5, -1, 1).reshape(3, 2, n)
    tolerances.assert_exact(layer.weight.signs, expected)
    tolerances.assert_exact(layer.weight.scale, np.full(p, np.sqrt(d / sigma2), np.float32))
    tolerances.assert_exact(layer.bias, kd.RandomFourier(d, p, sigma2=1.0, seed=seed).layers[0].bias)
    assert (layer.activation, layer.parameter) == ("cosine", math.sqrt(2 / p))
    matrix = oracles.dense(layer.weight)
    tolerances.assert_solve(matrix @ matrix.T, float(layer.weight.scale[0]) ** 2 * np.eye(p))


def test_fcnn_weights() -> None:
    phi = kd.FCNN(6, [5, 4], slope=0.2, seed=9)
    for number, (layer, inputs, outputs) in enumerate(zip(phi.layers, (6, 5), (5, 4), strict=True)):
        weight = normal(9, Stream.WEIGHTS + number, outputs * inputs).reshape(outputs, inputs) / np.sqrt(inputs)
        tolerances.assert_exact(layer.weight, weight.astype(np.float32))
        assert (layer.bias, layer.activation, layer.parameter) == (None, "leaky_relu", 0.2)
    assert [layer.weight.shape for layer in kd.FCNN(6, hidden_layers=3).layers] == [(6, 6)] * 3
    assert kd.FCNN(6).layers[0].parameter == 0.1
    assert not np.array_equal(phi.layers[0].weight[:4, :5], phi.layers[1].weight)


def test_weights_are_shared_and_read_only() -> None:
    first, second, other = kd.FCNN(6, [5], seed=9), kd.FCNN(6, [5, 4], seed=9), kd.FCNN(6, [5], seed=8)
    assert first.layers[0].weight is second.layers[0].weight
    assert first.layers[0].weight is not other.layers[0].weight
    with pytest.raises(ValueError, match="read-only"):
        first.layers[0].weight[0, 0] = 1.0
    before = first.layers[0].weight.copy()
    del first, second  # nobody holds them any more: they are drawn again
    tolerances.assert_exact(kd.FCNN(6, [5], seed=9).layers[0].weight, before)


@pytest.mark.parametrize("name", MAPS)
def test_transform(any_backend: Backend, dtype: Any, name: str) -> None:
    phi, X = MAPS[name], gaussian(9, D)
    actual = phi.transform(X, dtype=dtype, backend=any_backend)
    expected, magnitude = (f(X.T, phi.layers).T for f in (oracles.features, oracles.feature_magnitude))
    assert actual.dtype == dtype
    assert phi.output_dim == actual.shape[1]
    tolerances.assert_reduction(actual, expected, dtype, D * (1 + len(phi.layers)), magnitude)


@pytest.mark.parametrize("name", MAPS)
def test_transform_of_images_and_of_nothing(any_backend: Backend, name: str) -> None:
    phi = MAPS[name]
    images = np.random.default_rng(0).integers(0, 5, (3, 2, 4), dtype=np.uint8)
    expected = phi.transform(images.reshape(3, D).astype(float), backend=any_backend)
    tolerances.assert_exact(phi.transform(images, backend=any_backend), expected)
    assert phi.transform(np.zeros((0, D)), backend=any_backend).shape == (0, phi.output_dim)


def test_fourier_features_approximate_the_gaussian_kernel() -> None:
    p, sigma2 = 20_000, 3.0
    X = gaussian(6, 4)
    Phi = kd.RandomFourier(4, p, sigma2=sigma2, seed=1).transform(X)
    squares = np.sum((X[:, None] - X[None]) ** 2, axis=2)
    kernel = np.exp(-squares / (2 * sigma2))
    assert np.abs(Phi @ Phi.T - kernel).max() <= tolerances.statistical(p, deviation=1.5)


def kernel_error(phi: FeatureMap, X: Array, sigma2: float) -> Array:
    """phi(x) . phi(y) - exp(-||x - y||^2 / (2 sigma^2)) over all pairs of different rows."""
    Phi = phi.transform(X, dtype=np.float32).astype(np.float64)
    square = np.sum(X * X, axis=1)
    kernel = np.exp((2.0 * X @ X.T - square[:, None] - square) / (2.0 * sigma2))
    return np.asarray((Phi @ Phi.T - kernel)[np.triu_indices(len(X), k=1)])


@pytest.mark.data
@pytest.mark.parametrize(("name", "d"), [("cifar100", 1536), ("cifar100", 1023), ("mnist", 784)])
def test_orthogonal_features_approximate_the_kernel_as_well_as_random_ones(
    real_data_dir: Path, name: str, d: int
) -> None:
    """1023 = 2 * 512 - 1: the two blocks of a round overlap in one coordinate; in 1536 = 3 * 512 by half of each."""
    data = kd.load_dataset(name, data_dir=real_data_dir)
    X = kd.standardize(data).apply(data.x_train[:2000:40])[:, :d]
    seeds, sigma2 = 8, 1000.0
    errors = {
        kind: np.stack([kernel_error(kind(d, sigma2=sigma2, seed=seed), X, sigma2) for seed in range(seeds)])
        for kind in (kd.OrthogonalFourier, kd.RandomFourier)
    }
    spread = {kind: float(np.sqrt(np.mean(error**2))) for kind, error in errors.items()}
    assert spread[kd.OrthogonalFourier] <= 1.05 * spread[kd.RandomFourier]
    # No bias: the mean over seeds is as much smaller than one seed's error as for independent errors.
    mean = float(np.sqrt(np.mean(errors[kd.OrthogonalFourier].mean(axis=0) ** 2)))
    assert mean <= 1.25 * spread[kd.RandomFourier] / math.sqrt(seeds)


def test_fcnn_weights_have_the_variance_of_the_fan_in() -> None:
    for layer, fan_in in zip(kd.FCNN(300, [200, 100]).layers, (300, 200), strict=True):
        square = float(np.mean(layer.weight.astype(float) ** 2)) * fan_in
        assert abs(square - 1.0) <= tolerances.statistical(layer.weight.size, math.sqrt(2.0))


PREPROCESSING = {
    "none": Preprocessing.none(D),
    "standardize": Preprocessing("standardize", np.linspace(0.01, 0.02, D), np.linspace(-1.0, 1.0, D)),
    "zca": kd.zca(Dataset("x", gaussian(50, D), np.zeros(50, int), gaussian(2, D), np.zeros(2, int), ("a",))),
}


@pytest.mark.parametrize("kind", PREPROCESSING)
@pytest.mark.parametrize("name", ["identity", "fourier_wide", "fcnn_narrowing"])
def test_map_with_preprocessing_is_the_map_of_preprocessed_inputs(
    any_backend: Backend, dtype: Any, name: str, kind: str
) -> None:
    preprocessing = PREPROCESSING[kind]
    phi = MAPS[name].with_preprocessing(preprocessing)
    X = 10.0 * gaussian(7, D)
    Z = preprocessing.apply(X)
    magnitude = oracles.feature_magnitude(X.T, phi.layers, phi.scale, phi.shift).T
    magnitude += oracles.feature_magnitude(Z.T, MAPS[name].layers).T
    expected = oracles.features(Z.T, MAPS[name].layers).T
    terms = D * (2 + len(MAPS[name].layers))
    for actual in (
        any_backend.transform(phi, X, dtype=np.dtype(dtype)),
        phi.transform(X, dtype=dtype, backend=any_backend),
    ):
        assert actual.dtype == dtype
        tolerances.assert_reduction(actual, expected, dtype, terms, magnitude)
    assert (phi.input_dim, phi.output_dim) == (D, MAPS[name].output_dim)


# Preimage


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_transform_undoes_preimage(any_backend: Backend, name: str, with_reference: bool) -> None:
    phi = MAPS[name]
    for m in (0, 1, 30):
        F = features_in_range(phi, m)
        near = gaussian(m, D, seed=1) if with_reference else None
        X = phi.preimage(F, near=near, backend=any_backend)
        assert X.shape == (m, D)
        tolerances.assert_solve(phi.transform(X), F, condition_of(phi))


@pytest.mark.parametrize("name", MAPS)
def test_preimage_undoes_transform_at_the_reference(any_backend: Backend, name: str) -> None:
    phi, X = MAPS[name], gaussian(30, D)
    F = phi.transform(X)
    back = phi.preimage(F, near=X, backend=any_backend)
    if name in FOURIER:  # where the cosine is flat, rounding is magnified to its square root
        steep = np.abs(F / phi.feature_limit()).max(axis=1) < 0.95
        assert steep.any()
        X, back = X[steep], back[steep]
    tolerances.assert_solve(back, X, condition_of(phi))


@pytest.mark.parametrize("name", UNIQUE)
def test_preimage_undoes_transform_where_it_is_unique(any_backend: Backend, name: str) -> None:
    phi, X = MAPS[name], gaussian(30, D)
    tolerances.assert_solve(phi.preimage(phi.transform(X), backend=any_backend), X, condition_of(phi))


@given(st.integers(0, 10_000), st.integers(1, D), st.sampled_from([[], [0], [0, 0]]), st.floats(0.01, 1.0))
def test_random_networks_are_undone(seed: int, narrowest: int, more: list[int], slope: float) -> None:
    widths = sorted([narrowest, *(D - w for w in more)], reverse=True)
    phi = kd.FCNN(D, widths, slope=slope, seed=seed)
    F = gaussian(3, phi.output_dim, seed=seed)
    tolerances.assert_solve(phi.transform(phi.preimage(F)), F, condition_of(phi))


@pytest.mark.parametrize("name", ["fcnn_wide", "fcnn_one"])
def test_nearest_preimage_of_a_network(name: str) -> None:
    """The solutions of W x = t are an affine space; the nearest one differs from x_0 in the row space of W only."""
    phi, near = MAPS[name], gaussian(6, D, seed=1)
    F = features_in_range(phi, 6)
    X = phi.preimage(F, near=near)
    weight = oracles.dense(phi.layers[0].weight)
    inner = np.where(F > 0, F, F / phi.layers[0].parameter)
    expected = near.T + oracles.least_norm(weight, inner.T - weight @ near.T)
    tolerances.assert_solve(X, expected.T, condition_of(phi))
    elsewhere = phi.preimage(F)
    assert np.all(np.linalg.norm(X - near, axis=1) < np.linalg.norm(elsewhere - near, axis=1))


@pytest.mark.parametrize("name", FOURIER)
def test_nearest_branch_of_the_cosine(name: str) -> None:
    phi, near = FOURIER[name], 5.0 * gaussian(40, D, seed=1)
    (layer,) = phi.layers
    assert layer.bias is not None
    F = features_in_range(phi, 40)
    X = phi.preimage(F, near=near)
    weight, bias = oracles.dense(layer.weight), layer.bias.astype(float)
    at_reference = near @ weight.T + bias
    principal = np.arccos(F / layer.parameter)
    turns = 2.0 * np.pi * np.arange(-500, 501)[:, None, None]
    branches = np.concatenate([turns + principal, turns - principal])  # all angles with this cosine
    nearest = np.abs(branches - at_reference).min(axis=0)
    taken = X @ weight.T + bias
    size = float(np.linalg.norm(at_reference))
    tolerances.assert_solve(np.abs(taken - at_reference), nearest, condition_of(phi), magnitude=size)
    expected = near.T + oracles.least_norm(weight, (taken - at_reference).T)
    tolerances.assert_solve(X, expected.T, condition_of(phi))


def test_nearest_preimage_is_closer_than_the_principal_branch() -> None:
    d, p = 120, 100  # the theory's measurement: 3.5 times at p/d = 0.83
    phi = kd.RandomFourier(d, p, sigma2=d)
    near = gaussian(20, d)
    F = phi.transform(near + 0.3 * gaussian(20, d, seed=1))
    closest, default = phi.preimage(F, near=near), phi.preimage(F)
    tolerances.assert_solve(phi.transform(closest), F, condition_of(phi) ** 2)
    assert 2.0 * np.linalg.norm(closest - near) < np.linalg.norm(default - near)


def test_features_at_the_ends_of_the_range() -> None:
    phi = MAPS["fourier_square"]
    limit = phi.feature_limit()
    for value in (limit, -limit, limit * (1 + 1e-10)):  # the last counts as rounding
        X = phi.preimage(np.full((1, D), value))
        tolerances.assert_solve(phi.transform(X), np.full((1, D), np.clip(value, -limit, limit)), condition_of(phi))
    with pytest.raises(DataError, match=r"a feature is 1\.01 times the range of the cosine; scale the features"):
        phi.preimage(np.full((1, D), -1.01 * limit))


@pytest.mark.parametrize("name", MAPS)
def test_feature_limit(name: str) -> None:
    phi = MAPS[name]
    limit = phi.feature_limit()
    assert math.isfinite(limit) == (name in FOURIER)
    if name in FOURIER:
        assert limit == math.sqrt(2 / phi.output_dim)
        largest = np.abs(phi.transform(100.0 * gaussian(500, D))).max()
        assert 0.9 * limit < largest <= limit


@pytest.mark.parametrize(
    ("phi", "layer", "inputs", "outputs"),
    [(fourier(9), 1, 8, 9), (kd.FCNN(D, [9]), 1, 8, 9), (kd.FCNN(D, [3, 2, 4]), 3, 2, 4)],
)
def test_more_features_than_inputs_have_no_preimage(phi: FeatureMap, layer: int, inputs: int, outputs: int) -> None:
    message = f"layer {layer} maps {inputs} inputs to {outputs} features; an exact preimage needs at most {inputs}"
    with pytest.raises(NotSurjective, match=message):
        phi.check_surjective()
    with pytest.raises(NotSurjective, match=message):
        phi.preimage(phi.transform(gaussian(2, D)))


@pytest.mark.parametrize("p", [3, D])
def test_rank_deficient_weights_have_no_preimage(any_backend: Backend, p: int) -> None:
    weight = gaussian(p, D).astype(np.float32)
    weight[-1] = weight[0]
    phi = FeatureMap(D, (Layer(weight, None, "leaky_relu", 0.1),))
    phi.check_surjective()
    with pytest.raises(NotSurjective, match="rank deficient"):
        phi.preimage(gaussian(2, p), backend=any_backend)


@pytest.mark.parametrize(
    ("F", "near", "message"),
    [
        (np.zeros((2, 6)), None, r"F must have shape \(2, 5\), got \(2, 6\)"),
        (np.zeros(5), None, r"F must have shape \(5, 5\), got \(5,\)"),
        (np.float64(0), None, r"F must have shape \(0, 5\), got \(\)"),
        (np.full((2, 5), np.nan), None, "F holds NaN or infinity"),
        (np.zeros((2, 5)), np.zeros((2, 7)), r"near must have shape \(2, 8\), got \(2, 7\)"),
        (np.zeros((2, 5)), np.zeros((1, 8)), r"near must have shape \(2, 8\), got \(1, 8\)"),
        (np.zeros((2, 5)), np.full((2, 8), np.inf), "near holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("name", ["fourier_wide", "fcnn_wide"])
def test_preimage_bad_arguments(name: str, F: Any, near: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"preimage: {message}"):
        MAPS[name].preimage(F, near=near)


def test_identity_preimage_checks_its_argument() -> None:
    with pytest.raises(DataError, match=r"Identity.preimage: F must have shape \(2, 8\), got \(2, 7\)"):
        kd.Identity(D).preimage(np.zeros((2, 7)))


# Description


@pytest.mark.parametrize(
    ("phi", "weights", "fingerprint"),
    [
        (
            kd.Identity(4),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "fe376993c198d6cb9478dc86c17073a6faeed3acb183ae7764d9ae389a15981d",
        ),
        (
            kd.RandomFourier(5, 4, sigma2=2.0, seed=3),
            "bcd142968de2f3e194153b38a0bf089a4af6b47ae6ef6af15808d3c4a6fd415b",
            "46e61d3f32aa498e285d127d6ef4af8216bec27a149c2193774835d6cbf7acc9",
        ),
        (
            kd.OrthogonalFourier(5, 4, sigma2=2.0, seed=3),
            "ff93551062751ea0d6e161277a2ca69d27f11d510e61b03382108759e0100642",
            "464301c5a4bb045f91632292fdabdbdc040122e4cebb6ec40fb8a28c368b9c05",
        ),
        (
            kd.OrthogonalFourier(8, sigma2=3.0, seed=2**64 - 1),
            "d356cd42c76eb61cac1734e778104ef040506bc5f2704761a701c492cfec4cf8",
            "006a08f495292ea0a01740cad024e9038e8d002056fa7de8dae6f64aa55c87d9",
        ),
        (
            kd.RandomFourier(5, 4, sigma2=2.0, seed=3, spectral="laplacian"),
            "ee4a55be830e5a858e80ae94bdce018130deb0978f2f2fc17935745ee370dd0c",
            "97f64c254c662d9630751145b345f9797305a0fd62c4f2052b9ca73b4972b7e6",
        ),
        (
            kd.RandomFourier(5, 4, sigma2=2.0, seed=3, spectral="matern", nu=2.5),
            "c02c36c6e20e24bbd7902510a188f4c8ba29765f1160d94733494b2a02f285df",
            "5b4dc106881b6f70b958cd0fe01ec03fd05706ec5e142571aac37303aaf8789e",
        ),
        (
            kd.DeepLinear(5, [7, 3], seed=3),
            "f8c478ae11b801261932e3bcb61429921aca6a19092119468b49cacbd792bf29",
            "969d7707d8cc8b149f24f3d2b2fca80470cbb116f4d0c887f868d2ddf930cfc2",
        ),
        (
            kd.ConvolutionalNetwork((4, 4), seed=3),
            "6208ed46fe8fcc856af82937b565f29ebcb4689f98d93b672b4fe41e11c836de",
            "e5b61c086170be5bd736a49640dfe9457ee7a1a501cdd6c7fa83f35ea92be3c0",
        ),
        (
            kd.FCNN(5, [4, 3], seed=3),
            "bb021f4ba232c4919fe73383458f2948b1b0a2cd010d58992b7aeef5d39b3072",
            "e7bd9f1d96c72f0e970eab6dc51e7f789bcde09a44c3ac8737dce7b494849730",
        ),
        (
            kd.FCNN(3, [3], slope=0.5, seed=2**64 - 1),
            "6fc9bf698db9b75d9d8d1ed9700c901c92e1dacf0ad7507b29c4376773c8ee84",
            "9263338ddb50c18f957387abf7c081fc90ee26a1fe73472bbfd5f98e80eb0ae8",
        ),
    ],
)
def test_weights_and_fingerprints_are_pinned(phi: FeatureMap, weights: str, fingerprint: str) -> None:
    """Users have them in their files: weights or fingerprints that change make those files unreadable."""
    digest = hashlib.sha256()
    for name, array in phi.arrays().items():
        digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).astype("<f4").tobytes())
    assert digest.hexdigest() == weights
    assert phi.fingerprint() == fingerprint


@pytest.mark.parametrize("name", MAPS)
def test_description_rebuilds_the_map(name: str) -> None:
    phi = MAPS[name]
    rebuilt = map_from_spec(json.loads(json.dumps(phi.spec())))
    assert type(rebuilt) is type(phi)
    assert rebuilt.spec() == phi.spec()
    for mine, theirs in zip(phi.layers, rebuilt.layers, strict=True):
        for array, other in zip(
            weight_arrays(mine.weight).values(), weight_arrays(theirs.weight).values(), strict=True
        ):
            tolerances.assert_exact(array, other)
        assert (mine.bias is None) == (theirs.bias is None)
        assert (mine.activation, mine.parameter) == (theirs.activation, theirs.parameter)


def test_description_states_the_formula() -> None:
    spec = MAPS["fcnn_narrowing"].spec()
    assert spec["kernel"] == "FCNN"
    assert (spec["input_dim"], spec["output_dim"], spec["widths"], spec["seed"]) == (D, 4, [7, 7, 4], 2)
    assert spec["layers"] == [{"activation": "leaky_relu", "parameter": 0.3}] * 3
    assert list(MAPS["fcnn_narrowing"].arrays()) == ["map_weight_0", "map_weight_1", "map_weight_2"]
    assert list(MAPS["fourier_wide"].arrays()) == ["map_weight_0", "map_bias_0"]
    assert list(MAPS["fourier_orthogonal"].arrays()) == ["map_signs_0", "map_scale_0", "map_bias_0"]
    assert MAPS["identity"].arrays() == {}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("fourier_wide", {"seed": 1}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"sigma2": 6.5}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"n_features": 4}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"input_dim": 9}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"fingerprint": "0" * 64}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"fingerprint": None}, "do not match the recorded fingerprint"),
        ("fourier_wide", {"kernel": "FCNN"}, "incomplete"),
        ("fourier_wide", {"kernel": "poly"}, "unknown kernel 'poly'"),
        ("fourier_wide", {"output_dim": 6}, "output_dim of the description contradicts"),
        ("fourier_orthogonal_wide", {"seed": 1}, "do not match the recorded fingerprint"),
        ("fourier_orthogonal_wide", {"sigma2": 6.5}, "do not match the recorded fingerprint"),
        ("fourier_orthogonal_wide", {"n_features": 4}, "do not match the recorded fingerprint"),
        ("fourier_orthogonal_wide", {"n_features": 9}, "n_features must be at most input_dim = 8, got 9"),
        ("fourier_orthogonal_wide", {"input_dim": 9}, "do not match the recorded fingerprint"),
        ("fourier_orthogonal_wide", {"kernel": "random_fourier"}, "do not match the recorded fingerprint"),
        ("fcnn_narrowing", {"seed": 0}, "do not match the recorded fingerprint"),
        ("fcnn_narrowing", {"widths": [7, 7]}, "do not match the recorded fingerprint"),
        ("fcnn_narrowing", {"widths": None}, "incomplete"),
        ("fcnn_narrowing", {"widths": [0]}, r"widths\[0\] must be at least 1"),
        ("fcnn_narrowing", {"slope": 0.2}, "do not match the recorded fingerprint"),
        ("fcnn_narrowing", {"layers": []}, "layers of the description contradicts"),
        ("identity", {"input_dim": 9}, "do not match the recorded fingerprint"),
        ("identity", {"output_dim": 9}, "output_dim of the description contradicts"),
        ("identity", {"input_dim": "8"}, "incomplete"),
        ("identity", {"kernel": None}, "unknown kernel None"),
    ],
)
def test_tampered_descriptions(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        map_from_spec({**MAPS[name].spec(), **change})


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("identity", "kernel"),
        ("identity", "input_dim"),
        ("identity", "fingerprint"),
        ("fourier_wide", "sigma2"),
        ("fourier_wide", "n_features"),
        ("fourier_wide", "seed"),
        ("fourier_orthogonal_wide", "sigma2"),
        ("fourier_orthogonal_wide", "n_features"),
        ("fcnn_wide", "widths"),
        ("fcnn_wide", "slope"),
    ],
)
def test_incomplete_descriptions(name: str, missing: str) -> None:
    spec = MAPS[name].spec()
    del spec[missing]
    with pytest.raises(DataError, match=r"map: "):
        map_from_spec(spec)


def test_fingerprint_sees_every_number() -> None:
    layer = MAPS["fourier_wide"].layers[0]
    assert layer.bias is not None
    before = MAPS["fourier_wide"].fingerprint()
    weight, bias = layer.weight.copy(), layer.bias.copy()
    weight[-1, -1] = np.nextafter(weight[-1, -1], np.float32(9))
    bias[0] = np.nextafter(bias[0], np.float32(9))
    changed = [
        layer._replace(weight=weight),
        layer._replace(bias=bias),
        layer._replace(weight=layer.weight.reshape(8, 5)),
    ]
    prints = {FeatureMap(D, (other,)).fingerprint() for other in changed}
    assert len(prints | {before}) == 4


def test_fingerprint_sees_every_number_of_a_structured_weight() -> None:
    phi = MAPS["fourier_orthogonal_wide"]
    (layer,) = phi.layers
    signs, scale = layer.weight.signs.copy(), layer.weight.scale.copy()
    signs[-1, -1, -1] *= -1
    scale[-1] = np.nextafter(scale[-1], np.float32(9))
    weights = [
        replace(layer.weight, signs=signs),
        replace(layer.weight, scale=scale),
        replace(layer.weight, signs=layer.weight.signs[:2]),
    ]
    changed = [FeatureMap(D, (layer._replace(weight=weight),)) for weight in weights]
    assert len({other.fingerprint() for other in [phi, *changed]}) == 4
    assert len({other.with_preprocessing(PREPROCESSING["zca"]).fingerprint() for other in [phi, *changed]}) == 4


# Bad arguments


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: kd.Identity(0), ValueError, "Identity: input_dim must be at least 1, got 0"),
        (lambda: kd.Identity(2.0), TypeError, "Identity: input_dim must be an integer, got 2.0"),
        (lambda: kd.Identity("2"), TypeError, "input_dim must be an integer, got '2'"),
        (lambda: kd.RandomFourier(0, sigma2=1.0), ValueError, "RandomFourier: input_dim must be at least 1"),
        (lambda: kd.RandomFourier(True, sigma2=1.0), TypeError, "input_dim must be an integer, got True"),
        (lambda: kd.RandomFourier(3, 0, sigma2=1.0), ValueError, "n_features must be at least 1, got 0"),
        (lambda: kd.RandomFourier(3, 1.5, sigma2=1.0), TypeError, "n_features must be an integer, got 1.5"),
        (lambda: kd.RandomFourier(3, sigma2=0.0), ValueError, "sigma2 must be finite and > 0, got 0.0"),
        (lambda: kd.RandomFourier(3, sigma2=-1), ValueError, "sigma2 must be finite and > 0, got -1"),
        (lambda: kd.RandomFourier(3, sigma2=math.nan), ValueError, "sigma2 must be finite and > 0, got nan"),
        (lambda: kd.RandomFourier(3, sigma2=math.inf), ValueError, "sigma2 must be finite and > 0, got inf"),
        (lambda: kd.RandomFourier(3, sigma2=None), TypeError, "sigma2 must be a number, got None"),
        (lambda: kd.RandomFourier(3, sigma2=1.0, seed=-1), ValueError, "RandomFourier: seed must be at least 0"),
        (lambda: kd.RandomFourier(3, sigma2=1.0, seed=2**64), ValueError, "RandomFourier: seed must be below"),
        (lambda: kd.RandomFourier(3, sigma2=1.0, seed=0.5), TypeError, "seed must be an integer, got 0.5"),
        (lambda: kd.OrthogonalFourier(0, sigma2=1.0), ValueError, "OrthogonalFourier: input_dim must be at least 1"),
        (lambda: kd.OrthogonalFourier(3, 4, sigma2=1.0), ValueError, "n_features must be at most input_dim = 3, got 4"),
        (lambda: kd.OrthogonalFourier(3, 0, sigma2=1.0), ValueError, "n_features must be at least 1, got 0"),
        (lambda: kd.OrthogonalFourier(3, sigma2=0.0), ValueError, "sigma2 must be finite and > 0, got 0.0"),
        (lambda: kd.OrthogonalFourier(3, sigma2=1e-90), ValueError, "scale must be positive and finite, got inf"),
        (lambda: kd.OrthogonalFourier(3, sigma2=1e200), ValueError, "scale must be positive and finite, got 0.0"),
        (lambda: kd.OrthogonalFourier(3, sigma2=1.0, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: kd.FCNN(0), ValueError, "FCNN: input_dim must be at least 1, got 0"),
        (lambda: kd.FCNN(3, []), ValueError, "FCNN: widths must name at least one layer"),
        (lambda: kd.FCNN(3, [3, 0]), ValueError, r"widths\[1\] must be at least 1, got 0"),
        (lambda: kd.FCNN(3, [2.0]), TypeError, r"widths\[0\] must be an integer, got 2.0"),
        (lambda: kd.FCNN(3, hidden_layers=0), ValueError, "hidden_layers must be at least 1, got 0"),
        (lambda: kd.FCNN(3, hidden_layers=1.0), TypeError, "hidden_layers must be an integer, got 1.0"),
        (lambda: kd.FCNN(3, slope=0.0), ValueError, "slope must be finite and > 0, got 0.0"),
        (lambda: kd.FCNN(3, slope=-0.1), ValueError, "slope must be finite and > 0, got -0.1"),
        (lambda: kd.FCNN(3, slope="a"), TypeError, "slope must be a number, got 'a'"),
        (lambda: kd.FCNN(3, seed=-1), ValueError, "FCNN: seed must be at least 0"),
        (lambda: kd.FCNN(3, seed=None), TypeError, "FCNN: seed must be an integer, got None"),
    ],
)
def test_bad_construction(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("name", ["identity", "fourier_wide", "fcnn_wide"])
@pytest.mark.parametrize(
    ("X", "options", "kind", "message"),
    [
        (np.zeros((2, 7)), {}, DataError, r"transform: X has 7 columns, the map takes 8"),
        (np.zeros(8), {}, DataError, r"transform: X must have shape \(n, \.\.\.\)"),
        (np.full((2, 8), np.nan), {}, DataError, "row 0 holds NaN or infinity"),
        (np.full((2, 8), "a"), {}, TypeError, "transform: X must be a numeric array"),
        (np.zeros((2, 8)), {"dtype": np.float16}, ValueError, "dtype must be one of float32, float64; got 'float16'"),
        (np.zeros((2, 8)), {"dtype": int}, ValueError, "dtype must be one of float32, float64; got 'int64'"),
        (
            np.zeros((2, 8)),
            {"backend": "gpu"},
            ValueError,
            "backend must be one of native, numba, array, cuda; got 'gpu'",
        ),
    ],
)
def test_transform_bad_arguments(
    any_backend: Backend, name: str, X: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        MAPS[name].transform(X, **{"backend": any_backend, **options})


# Choice of a map for a data set


def test_median_heuristic() -> None:
    for n in (2, 3, 10, 41):
        X = gaussian(n, 3, seed=n)
        magnitude = 4.0 * np.sum(X**2, axis=1).max()
        tolerances.assert_reduction(median_sigma2(X), oracles.median_square_distance(X.T), np.float64, 3, magnitude)
    assert median_sigma2(gaussian(1, 3)) == 1.0
    assert median_sigma2(np.ones((5, 3))) == 1.0


def test_median_heuristic_takes_a_seeded_thousand() -> None:
    X = gaussian(1500, 2)
    taken = X[np.sort(permutation(4, Stream.SUBSAMPLE, 1500)[:1000])]
    assert median_sigma2(X, seed=4) == median_sigma2(taken, seed=9)
    assert median_sigma2(X, seed=4) != median_sigma2(X, seed=5)


def dataset(name: str) -> Dataset:
    y = np.arange(30) % 3
    return Dataset(name, gaussian(30, 2, 4), y, gaussian(4, 2, 4), y[:4], ("a", "b", "c"))


@pytest.mark.parametrize("kernel", ["random_fourier", "orthogonal_fourier"])
@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "mine"])
def test_sigma2_by_default(name: str, kernel: str) -> None:
    data = dataset(name)
    preprocessing = kd.standardize(data)
    phi = kd.make_map(kernel, data, preprocessing, seed=3)
    published = 1000.0
    expected = median_sigma2(preprocessing.apply(data.x_train), seed=3) if name == "mine" else published
    assert phi.parameters == {"n_features": D, "sigma2": expected, "seed": 3}
    given_one = kd.make_map(kernel, data, preprocessing, seed=3, sigma2=2.5, n_features=4)
    assert given_one.parameters == {"n_features": 4, "sigma2": 2.5, "seed": 3}


def test_make_map() -> None:
    data = dataset("mine")
    preprocessing = kd.standardize(data)
    made = {kernel: kd.make_map(kernel, data, preprocessing, seed=5) for kernel in KERNELS}
    assert {kernel: type(phi) for kernel, phi in made.items()} == {
        "identity": kd.Identity,
        "random_fourier": kd.RandomFourier,
        "orthogonal_fourier": kd.OrthogonalFourier,
        "FCNN": kd.FCNN,
        "deep_linear": kd.DeepLinear,
        "conv": kd.ConvolutionalNetwork,
    }
    assert made["FCNN"].fingerprint() == kd.FCNN(D, seed=5, preprocessing=preprocessing).fingerprint()
    assert all(phi.preprocessing is preprocessing for phi in made.values())
    deep = kd.make_map("FCNN", data, preprocessing, hidden_layers=2, slope=0.2)
    expected = kd.FCNN(D, hidden_layers=2, slope=0.2, preprocessing=preprocessing)
    assert deep.fingerprint() == expected.fingerprint()
    assert deep.parameters["slope"] == 0.2
    with pytest.raises(
        ValueError,
        match=r"kernel must be one of identity, .*, FCNN, deep_linear, conv; got 'CNN'",
    ):
        kd.make_map("CNN", data, preprocessing)
    with pytest.raises(ValueError, match="FCNN does not take sigma2"):
        kd.make_map("FCNN", data, preprocessing, sigma2=1.0)
    with pytest.raises(ValueError, match="identity does not take hidden_layers"):
        kd.make_map("identity", data, preprocessing, hidden_layers=1)
    with pytest.raises(TypeError, match="hidden_layers must be an integer"):
        kd.make_map("FCNN", data, preprocessing, hidden_layers=1.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_float16_is_widened_exactly_by_every_instruction_set(dtype: Any) -> None:
    native = pytest.importorskip("krrdistill._native")
    backend, facts = get_backend("native"), native.build_facts()
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 62)
    try:
        for isa in facts["isas"]:
            native.set_isa(isa)
            found = backend.transform(kd.Identity(62), finite, dtype=np.dtype(dtype))
            tolerances.assert_exact(found, finite.astype(dtype))
            tolerances.assert_exact(np.signbit(found), np.signbit(finite))
            for value in every[~np.isfinite(every)][::97]:
                rows = np.ones((3, 62), np.float16)
                rows[1, 60] = value
                with pytest.raises(DataError, match="row 1 holds NaN or infinity"):
                    backend.transform(kd.Identity(62), rows, dtype=np.dtype(dtype))
    finally:
        native.set_isa(facts["isa"])


@pytest.mark.usefixtures("native_module")
@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_of_float16_are_those_of_the_same_float32(weighted: bool, tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).standard_normal((5000, 20)).astype(np.float16), np.arange(5000) % 7
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    scaling = kd.standardize(X.astype(np.float32))
    phi = kd.RandomFourier(20, 16, sigma2=10.0, seed=0).with_preprocessing(scaling)
    weight = {"sample_weight": np.linspace(0.5, 2.0, 5000)} if weighted else {}

    def statistics() -> kd.RidgeStatistics:
        return kd.RidgeStatistics(phi, classes=7, backend="native")

    expected = statistics().update(X.astype(np.float32), y, **weight)
    streamed = statistics()
    parts = [slice(start, start + 300) for start in range(0, 5000, 300)]
    streamed.update_batches([(mapped[part], y[part], *(w[part] for w in weight.values())) for part in parts])
    for found in (statistics().update(X, y, **weight), statistics().update(mapped, y, **weight), streamed):
        tolerances.assert_exact(found.gram, expected.gram)
        tolerances.assert_exact(found.cross, expected.cross)
    X[4321, 3] = np.inf
    with pytest.raises(DataError, match="row 4321 holds NaN or infinity"):
        statistics().update(X, y)
    with pytest.raises(DataError, match=r"batch 14 \(from row 4200\): X: row 121 holds NaN or infinity"):
        statistics().update_batches([(X[part], y[part]) for part in parts])
