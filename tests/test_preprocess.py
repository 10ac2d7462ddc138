"""Preprocessing: the published constants, ZCA, exact inverses, memory."""

import json
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import krrdistill as kd
import oracles
import tolerances
from krrdistill.common.samples import as_samples
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset, Moments, Preprocessing, standardize, zca
from krrdistill.errors import DataError

BLOCKS = "krrdistill.data.dataset.BLOCK_ELEMENTS"


def dataset(x, *, name="tiny"):
    labels = np.zeros(len(x), int)
    return Dataset(name, x, labels, x, labels, ("only",))


def pixels(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, size=shape, dtype=np.uint8)


def assert_undone(preprocessing, x, spread=1.0):
    """invert(apply(x)) = x up to rounding; spread is the condition number of the map."""
    z = preprocessing.apply(x)
    assert (z.dtype, z.shape) == (np.float64, (len(x), preprocessing.input_dim))
    back = preprocessing.invert(z, x.shape[1:])
    assert (back.dtype, back.shape) == (np.float64, x.shape)
    size = np.abs(x).max() + np.abs(preprocessing.origin).max()
    d = preprocessing.input_dim if preprocessing.kind == "zca" else 1
    bound = tolerances.elementwise(np.float64, d * spread * size) + np.finfo(np.float64).tiny
    tolerances.assert_within(back, x, bound)


# standardize


@pytest.mark.parametrize(
    ("name", "shape", "mean", "std"),
    [
        ("mnist", (28, 28), 0.1307, 0.3081),
        ("mnist", (784,), None, None),
        ("cifar10", (32, 32, 3), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (32, 32, 3), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ],
)
def test_published_constants(name, shape, mean, std):
    x = pixels(5, *shape)
    preprocessing = standardize(dataset(x, name=name))
    if mean is None:  # vectors have no channels: statistics of the data
        assert preprocessing.spec()["constants"] == {"source": "x_train", "unit": 1.0}
        return
    expected = (x / 255 - np.array(mean)) / np.array(std)
    expected = expected.reshape(5, -1)
    tolerances.assert_elementwise(preprocessing.apply(x), expected, np.float64, 1.0 + np.abs(expected))
    assert preprocessing.spec() == {
        "kind": "standardize",
        "eps": None,
        "constants": {
            "source": "published",
            "unit": 255.0,
            "mean": np.atleast_1d(mean).tolist(),
            "std": np.atleast_1d(std).tolist(),
        },
    }
    assert_undone(preprocessing, x)


def test_published_constants_are_for_uint8_only():
    preprocessing = standardize(dataset(pixels(5, 28, 28) / 255, name="mnist"))
    assert preprocessing.spec()["constants"]["source"] == "x_train"


@pytest.mark.parametrize("block", [1, 24, 100, 1 << 20])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 6), (0, 1, 2)), ((4, 3, 2), (0, 1, 2)), ((2, 2, 3, 2), (0, 1, 2, 3)), ((24,), 0)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_standardize_by_channel_or_feature(shape, axes, dtype, block, monkeypatch):
    monkeypatch.setattr(BLOCKS, block)
    x = (pixels(17, *shape) * np.linspace(0.1, 1, shape[-1])).astype(dtype)
    preprocessing = standardize(dataset(x))
    z = preprocessing.apply(x).reshape(x.shape)
    mean, std = z.mean(axis=axes), z.std(axis=axes)
    tolerances.assert_within(mean, np.zeros_like(mean), tolerances.solve(1.0))
    tolerances.assert_within(std, np.ones_like(std), tolerances.solve(1.0))
    assert_undone(preprocessing, x)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9 / 3, 255.0])
@pytest.mark.parametrize("shape", [(5,), (3, 3), (3, 3, 5)])
def test_constant_channels_have_std_one(shape, value):
    x = np.random.default_rng(0).normal(size=(33, *shape))
    if len(shape) == 2:
        x[:] = value
    else:
        x[..., 2] = value
    preprocessing = standardize(dataset(x))
    z = preprocessing.apply(x).reshape(x.shape)
    constant = z if len(shape) == 2 else z[..., 2]
    assert np.abs(constant).max() <= tolerances.elementwise(np.float64, abs(value))
    constants = preprocessing.spec()["constants"]
    assert constants["std"][0 if len(shape) == 2 else 2] == 1.0
    assert_undone(preprocessing, x)


def test_standardize_survives_a_large_offset():
    x = 1e8 + np.random.default_rng(0).normal(size=(1000, 3))
    z = standardize(dataset(x)).apply(x)
    tolerances.assert_within(z.std(axis=0), np.ones(3), tolerances.elementwise(np.float64, 1e8))


def test_standardize_refuses_what_overflows():
    with pytest.raises(DataError, match="standardize: the data spread too widely for float64"):
        standardize(dataset(np.array([[1e300], [-1e300]])))
    with pytest.raises(DataError, match="spread too widely"):  # their difference alone is infinite
        standardize(dataset(np.array([[1.7e308], [-1.7e308]])))


# ZCA


def whitening(x, unit, eps):
    """ZCA as the textbook has it, with one full float64 copy."""
    scaled = x.reshape(len(x), -1).astype(np.float64) / unit
    mean = scaled.mean(axis=0)
    covariance = (scaled - mean).T @ (scaled - mean) / len(x)
    s, U = np.linalg.eigh(covariance)
    return mean, U @ np.diag((s + eps) ** -0.5) @ U.T


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
@pytest.mark.parametrize(
    ("name", "x", "unit"),
    [
        ("a", pixels(40, 3, 4), 255),
        ("a", pixels(40, 2, 2, 3, high=9), 255),
        ("digits", pixels(40, 3, 4, high=17), 16),
        ("a", pixels(40, 12) / 50 - 4, None),
        ("a", (pixels(40, 12) / 50 - 1).astype(np.float32), None),
        ("a", pixels(7, 12), 255),  # fewer samples than entries
        ("a", np.zeros((7, 3)), 1),
    ],
)
def test_zca_against_the_textbook(name, x, unit, block, monkeypatch):
    monkeypatch.setattr(BLOCKS, block)
    unit = float(np.abs(x).max()) if unit is None else float(unit)
    preprocessing = zca(dataset(x, name=name), eps=0.1)
    mean, matrix = whitening(x, unit, 0.1)
    tolerances.assert_within(preprocessing.origin / unit, mean, tolerances.solve(1.0))
    np.testing.assert_array_equal(preprocessing.unit, unit)
    tolerances.assert_within(preprocessing.whitening, matrix, tolerances.solve(10.0))  # eigenvalues from eps = 0.1
    expected = (x.reshape(len(x), -1).astype(np.float64) / unit - mean) @ matrix
    tolerances.assert_within(preprocessing.apply(x), expected, tolerances.solve(10.0))
    assert preprocessing.spec() == {
        "kind": "zca",
        "eps": 0.1,
        "constants": {"source": "x_train", "unit": unit},
    }


def test_whitening_is_symmetric_and_undone() -> None:
    preprocessing = zca(dataset(pixels(60, 5, 5)), eps=1e-3)
    whitening = preprocessing.whitening
    assert whitening.dtype == np.float64
    np.testing.assert_array_equal(whitening, whitening.T)
    u = np.random.default_rng(0).normal(size=(7, 25))
    tolerances.assert_solve(preprocessing.unwhiten(u @ whitening), u, oracles.condition(whitening))


def test_zca_whitens_when_eps_is_small():
    x = np.random.default_rng(0).normal(size=(500, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    z = zca(dataset(x), eps=1e-15).apply(x)
    condition = oracles.condition(np.cov(x.T))
    tolerances.assert_solve(z.T @ z / len(z), np.eye(6), condition)


def test_zca_undone_when_eps_is_small():
    x = pixels(50, 4, 4)
    x[:, 0] = 7  # constant pixels: the covariance is singular
    assert_undone(zca(dataset(x), eps=1e-6), x, spread=1e3)


@pytest.mark.parametrize("eps", [0, -0.1, np.nan, np.inf])
def test_zca_eps_out_of_range(eps):
    with pytest.raises(ValueError, match="zca: eps must be finite and > 0, got"):
        zca(dataset(pixels(3, 2)), eps=eps)


@pytest.mark.parametrize("eps", ["0.1", None, True, 1j])
def test_zca_eps_of_the_wrong_kind(eps):
    with pytest.raises(TypeError, match="zca: eps must be a number, got"):
        zca(dataset(pixels(3, 2)), eps=eps)


# apply, invert


@settings(deadline=None, max_examples=60)
@given(
    x=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-1e6, 1e6)),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
)
def test_invert_undoes_an_affine_map(x, scale, shift):
    d = x.shape[1]
    assert_undone(Preprocessing("standardize", np.full(d, shift), np.full(d, -scale)), x)


@settings(deadline=None, max_examples=40)
@given(x=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)), eps=st.floats(0.01, 10))
def test_invert_undoes_what_was_fitted(x, eps):
    data = dataset(x)
    assert_undone(Preprocessing.none(data.input_dim), x)
    assert_undone(standardize(data), x)
    d = data.input_dim
    assert_undone(zca(data, eps=eps), x, spread=np.sqrt(1 + d / eps))  # eigenvalues are at most d


def test_apply_takes_images_and_vectors_of_any_real_type():
    x = pixels(6, 2, 3)
    preprocessing = zca(dataset(x))
    z = preprocessing.apply(x)
    for same in (x.reshape(6, 6), x.astype(np.float32), x.tolist(), np.asfortranarray(x)):
        np.testing.assert_array_equal(preprocessing.apply(same), z)
    assert preprocessing.apply(x[:0]).shape == (0, 6)
    assert preprocessing.invert(z[:0], (2, 3)).shape == (0, 2, 3)
    assert preprocessing.invert(z, (6,)).shape == (6, 6)


def test_none_changes_nothing():
    x = pixels(4, 3)
    preprocessing = Preprocessing.none(3)
    np.testing.assert_array_equal(preprocessing.apply(x), x)
    assert preprocessing.spec() == {"kind": "none", "eps": None, "constants": {}}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda p: p.apply(np.ones((2, 5))),
            DataError,
            r"apply: X must have rows of 6 entries, got shape \(2, 5\)",
        ),
        (lambda p: p.apply(np.ones(6)), DataError, r"apply: X must have rows of 6 entries, got shape \(6,\)"),
        (lambda p: p.apply(np.full((1, 6), "a")), TypeError, "apply: X must hold real numbers, got <U1"),
        (lambda p: p.invert(np.ones((2, 5)), (2, 3)), DataError, "invert: Z must have rows of 6 entries"),
        (
            lambda p: p.invert(np.ones((2, 6)), (2, 2)),
            DataError,
            r"invert: shape \(2, 2\) has 4 entries, not 6",
        ),
        (lambda p: p.invert(np.ones((2, 6), complex), (6,)), TypeError, "invert: Z must hold real numbers"),
    ],
)
def test_apply_and_invert_refuse(call, error, words):
    with pytest.raises(error, match=f"Preprocessing.{words}"):
        call(Preprocessing.none(6))


# memory


@pytest.mark.parametrize("fit", [standardize, zca])
def test_fitting_makes_no_float_copy_of_the_data(fit, monkeypatch):
    monkeypatch.setattr(BLOCKS, 1 << 16)  # half a megabyte
    data = dataset(pixels(20000, 16, 16))  # 41 MB in float64
    tracemalloc.start()
    fit(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * data.x_train.size / 8


# arrays and spec


@pytest.mark.parametrize(
    ("fitted", "count"),
    [
        (Preprocessing.none(12), 2),
        (standardize(dataset(pixels(9, 2, 2, 3), name="cifar10")), 2),
        (standardize(dataset(pixels(9, 12))), 2),
        (zca(dataset(pixels(9, 2, 2, 3)), eps=0.3), 3),
    ],
)
def test_serialisation_round_trip(fitted, count, tmp_path):
    arrays = fitted.arrays()
    assert len(arrays) == count
    assert arrays.keys() <= {"X_origin", "X_unit", "whitening"}
    np.savez(tmp_path / "a.npz", **arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        again = Preprocessing.from_arrays(json.loads(json.dumps(fitted.spec())), dict(stored))
    assert again.spec() == fitted.spec()
    x = pixels(4, 12)
    np.testing.assert_array_equal(again.apply(x), fitted.apply(x))
    np.testing.assert_array_equal(again.invert(x, (12,)), fitted.invert(x, (12,)))


def damage(**changes):
    """Arrays and spec of a ZCA of 3 entries, changed; None removes an array."""
    fitted = zca(dataset(pixels(9, 3)))
    spec = fitted.spec() | {k: v for k, v in changes.items() if k not in fitted.arrays()}
    arrays = fitted.arrays() | {k: v for k, v in changes.items() if k in fitted.arrays()}
    return spec, {k: v for k, v in arrays.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "pca"}, "unknown kind 'pca'; expected one of none, standardize, zca"),
        ({"kind": None}, "unknown kind None"),
        ({"kind": ["zca"]}, r"unknown kind \['zca'\]"),
        ({"eps": "a"}, "eps must be a number, got str"),
        ({"constants": [1]}, "constants must be a mapping, got list"),
        ({"X_unit": None, "whitening": None}, "lacks X_unit, whitening"),
        ({"X_unit": np.zeros(3)}, "unit holds zeros"),
        ({"X_unit": np.full(3, 1e-310)}, "unit holds zeros"),
        ({"X_unit": np.ones((3, 1))}, r"unit must be float64 of shape \(3,\), got float64 of shape \(3, 1\)"),
        ({"X_unit": np.ones(0)}, "unit must be float64"),
        ({"X_origin": np.ones(2)}, r"unit must be float64 of shape \(2,\)"),
        ({"X_origin": np.array(["a"] * 3)}, "origin must be float64 .* got <U1"),
        ({"X_origin": np.array([0, 1, np.nan])}, "origin holds NaN or infinity"),
        ({"whitening": np.eye(4)}, r"whitening must be float64 of shape \(3, 3\)"),
        ({"whitening": np.triu(np.ones((3, 3)))}, "whitening is not symmetric"),
        ({"whitening": [1.0]}, "whitening must be float64 .* got list"),
    ],
)
def test_from_arrays_refuses(changes, words):
    with pytest.raises(DataError, match=f"Preprocessing: .*{words}"):
        Preprocessing.from_arrays(*damage(**changes))


def test_arrays_that_the_kind_does_not_take():
    with pytest.raises(DataError, match="Preprocessing: whitening has no place in kind 'standardize'"):
        Preprocessing("standardize", np.zeros(3), np.ones(3), whitening=np.eye(3))


# moments


@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 2)])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_parts_add_to_those_of_all(shape, offset, monkeypatch):
    monkeypatch.setattr(BLOCKS, 40)
    x = offset + np.random.default_rng(0).normal(size=(57, *shape))
    total = Moments.of(x[:10]) + Moments.of(x[10:11]) + Moments.of(x[11:])
    axes = {1: 0, 2: (0, 1, 2), 3: (0, 1, 2)}[len(shape)]
    centred = x - offset
    size, mean, std = max(offset, 1.0), np.atleast_1d(centred.mean(axis=axes)), np.atleast_1d(centred.std(axis=axes))
    tolerances.assert_within(total.mean - offset, mean, tolerances.elementwise(np.float64, size))
    tolerances.assert_within(total.std, std, tolerances.reduction(np.float64, x.size // len(std), size))
    origin = standardize(x).origin
    tolerances.assert_elementwise(standardize(total).origin, origin, np.float64, 1.0 + np.abs(origin))


def test_moments_of_constant_channels_have_no_deviation():
    x = np.full((9, 2, 2, 3), 0.1)
    total = Moments.of(x[:4]) + Moments.of(x[4:])
    np.testing.assert_array_equal(total.deviations, 0.0)
    np.testing.assert_array_equal(total.std, 1.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_moments_are_those_of_float64_whatever_the_type_and_the_threads(dtype):
    rng = np.random.default_rng(1)
    x = (100.0 + 20.0 * rng.standard_normal((5000, 300))).astype(dtype)  # two blocks, many parts
    x[:, 7] = np.sort(x[:, 7])  # its first rows are far from its mean
    exact = x.astype(np.longdouble)
    found = Moments.of(x)
    tolerances.assert_elementwise(found.mean, exact.mean(axis=0).astype(float), np.float64, found.mean)
    tolerances.assert_within(
        found.std, exact.std(axis=0).astype(float), tolerances.reduction(np.float64, 64, found.std)
    )
    with limited_threads(1):
        alone = Moments.of(x)
    np.testing.assert_array_equal([alone.mean, alone.deviations], [found.mean, found.deviations])


def test_moments_refuse_samples_of_other_shapes():
    with pytest.raises(DataError, match=r"shape \(3,\) and \(2,\) do not merge"):
        Moments.of(np.ones((2, 3))) + Moments.of(np.ones((2, 2)))
    with pytest.raises(DataError, match="at least one entry"):
        Moments.of(np.ones((0, 3)))


# Units at prediction


def said_units(scaling, X):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scaling.warn_of_units("predict", X)
    return [str(warning.message) for warning in said]


def test_bytes_and_floats_are_told_apart_at_prediction():
    data = kd.load_dataset("digits")
    scaling, x = kd.standardize(data), data.x_test.reshape(len(data.x_test), -1)
    floats = kd.standardize(data.x_train / 255.0)
    assert "X is at most" in said_units(scaling, x / 255.0)[0]
    assert "for a tenth of its entries over" in said_units(floats, x)[0]
    result = kd.distill(data.x_train, data.train_targets, kd.Identity(64, preprocessing=scaling))
    assert said_units(scaling, as_samples("predict", (x / 255.0).astype(np.float16)))
    for predictor in (result.model, result.distilled):
        with pytest.warns(kd.DataWarning, match="^predict: X is at most .* give it in their units") as said:
            predictor.predict(data.x_test / 255.0)
        assert len(said) == 1


def test_ordinary_samples_are_not_suspected(rng):
    data = kd.load_dataset("digits")
    x = data.x_test.reshape(len(data.x_test), -1)
    scaling = kd.standardize(data)
    for part in (x, x / 1.0, np.zeros((3, 64)), *x[:, None]):
        assert said_units(scaling, part) == []
    assert said_units(kd.zca(data.x_train.reshape(-1, 64)), x) == []
    assert said_units(kd.zca(data.x_train.reshape(-1, 64)), x / 255.0) != []
    normal = kd.standardize(rng.standard_normal((500, 20)))
    tails = kd.standardize(np.exp(2.0 * rng.standard_normal((500, 20))))
    sparse = kd.standardize((rng.random((500, 200)) < 0.02).astype(float))
    for kind, X in (
        (normal, 5.0 + rng.standard_normal((100, 20))),
        (tails, np.exp(2.0 * rng.standard_normal((100, 20)))),
        (sparse, (rng.random((100, 200)) < 0.02).astype(float)),
        (Preprocessing.none(20), 1e6 * np.ones((2, 20))),
    ):
        assert said_units(kind, X) == []


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_no_sample_of_a_test_set_is_suspected(name, real_data_dir):
    with np.load(real_data_dir / f"{name}.npz", allow_pickle=False) as archive:
        x = archive["x_test"][:1000]
    scaling = kd.standardize(x)
    assert all(said_units(scaling, part) == [] for part in x.reshape(len(x), 1, -1))


def test_preprocessing_does_not_change_with_the_arrays_that_it_was_made_of() -> None:
    """A map had factors of the old unit, and its points were written in the new one."""
    unit, origin = np.full(3, 2.0), np.ones(3)
    made = Preprocessing("standardize", origin, unit)
    unit[:], origin[:] = 5.0, 7.0
    tolerances.assert_exact(made.unit, np.full(3, 2.0))
    tolerances.assert_exact(made.origin, np.ones(3))
    for array in (made.unit, made.origin):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
