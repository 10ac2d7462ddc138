"""Compact storage: what a code stands for, labels for what was stored, round trips, and refusal of damaged files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.construct.labels import learned_labels
from krrdistill.construct.storage import Encoding, round_inputs
from krrdistill.options import STORES

Array = npt.NDArray[Any]
COMPACT = ("float16", "uint8")


def rows(*, size: float = 1.0, m: int = 5, d: int = 33) -> Array:
    """Rows of very different size and centre."""
    rng = np.random.default_rng(0)
    return size * 10.0 ** np.arange(-2, m - 2)[:, None] * (rng.standard_normal((m, d)) + rng.standard_normal((m, 1)))


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


def distil(data: kd.Dataset, store: str, **options: Any) -> kd.Distillation:
    scaling = kd.standardize(data)
    phi = kd.make_map(options.pop("kernel", "FCNN"), data, scaling)
    return kd.distill(data.x_train, data.y_train, phi, store=store, **options)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_float16_keeps_eleven_bits_of_any_size(size: float) -> None:
    X = rows(size=size)
    stored, encoding = round_inputs(X, "float16")
    assert encoding is not None
    largest = np.abs(X).max(axis=1, keepdims=True)
    assert (np.abs(stored - X) <= np.maximum(2.0**-11 * np.abs(X), 2.0**-24 * largest)).all()
    tolerances.assert_exact(np.log2(encoding.scale) % 1.0, np.zeros(len(X)))
    assert (np.abs(encoding.encode(X)) <= 1.0).all()


def test_uint8_has_256_levels_per_sample() -> None:
    X = rows()
    stored, encoding = round_inputs(X, "uint8")
    assert encoding is not None
    codes = encoding.encode(X)
    tolerances.assert_exact(codes.min(axis=1), np.zeros(len(X), np.uint8))
    tolerances.assert_exact(codes.max(axis=1), np.full(len(X), 255, np.uint8))
    step = (X.max(axis=1) - X.min(axis=1)) / 255.0
    assert (np.abs(stored - X) <= 0.5000001 * step[:, None]).all()
    assert np.abs(stored - X).max() > 0.4 * step.max()


@pytest.mark.parametrize("store", COMPACT)
@pytest.mark.parametrize("value", [0.0, -3.7, 0.5, 1.0])
def test_constant_samples(store: str, value: float) -> None:
    X = np.full((2, 4), value)
    stored, _ = round_inputs(X, store)
    assert (np.abs(stored - X) <= 2.0**-11 * abs(value)).all()


@pytest.mark.parametrize("store", STORES)
def test_rounding_twice_is_rounding_once(store: str) -> None:
    stored, encoding = round_inputs(rows(), store)
    if encoding is None:
        tolerances.assert_exact(stored, rows().astype(store))
        assert stored.dtype == store
    else:
        tolerances.assert_exact(encoding.decode(encoding.encode(stored)), stored)


@pytest.mark.parametrize("store", COMPACT)
@pytest.mark.parametrize("lambda_s", [0.0, "auto"])
def test_labels_are_those_of_the_stored_inputs(digits: kd.Dataset, store: str, lambda_s: Any) -> None:
    result = distil(digits, store, points_per_class=2, lambda_s=lambda_s)
    distilled, W = result.distilled, result.model.W
    tolerances.assert_exact(distilled.Y, learned_labels(distilled.features(), W, distilled.lambda_s))
    error = np.linalg.norm(distilled.fit() - W)
    assert error > 1e-3 * np.linalg.norm(W)  # m < p: something is left outside of the rounded features
    exact = distil(digits, "float64", points_per_class=2, lambda_s=lambda_s).distilled
    assert error < np.linalg.norm(replace(distilled, Y=exact.Y).fit() - W)  # and more with the labels as they were


@pytest.mark.parametrize("store", COMPACT)
@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "FCNN"])
def test_as_many_points_as_features_are_exact_in_a_byte(digits: kd.Dataset, store: str, kernel: str) -> None:
    result = distil(digits, store, kernel=kernel, points_per_class=10)
    certificate = result.distilled.verify(result.model, test=digits)
    tolerances.assert_promised(certificate.weight_relative_error)
    assert certificate.prediction_agreement == 1.0


@pytest.mark.parametrize("store", STORES)
def test_round_trip(digits: kd.Dataset, tmp_path: Path, store: str) -> None:
    distilled = distil(digits, store, points_per_class=2, include_weights=True).distilled
    distilled.save(tmp_path / "a.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "a.npz")
    assert loaded.store == store
    for name in ("inputs", "X", "Y", "weights", "samples"):
        tolerances.assert_exact(getattr(loaded, name), getattr(distilled, name))
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["X"].dtype == store
        assert ("X_scale" in archive.files) == (store in COMPACT)


@pytest.mark.parametrize("store", COMPACT)
def test_a_run_reports_what_storage_costs(digits: kd.Dataset, tmp_path: Path, store: str) -> None:
    options = kd.DistillOptions(points_per_class=1, store=store)
    result = kd.run_distillation(digits, kernel="FCNN", options=options, out=tmp_path)
    assert result.report["store"] == store
    assert result.report["certificate"]["weight_relative_error"] > 1e-2
    assert any(f"target 1e-02 for {store} storage" in warning for warning in result.report["warnings"])
    assert result.distilled.store == store


@pytest.mark.parametrize("store", COMPACT)
def test_other_inputs_do_not_slip_into_the_codes(digits: kd.Dataset, tmp_path: Path, store: str) -> None:
    distilled = distil(digits, store).distilled
    with pytest.raises(kd.DataError, match=f"X is not what its {store} codes stand for; nothing was written"):
        replace(distilled, inputs=distilled.inputs * 1.01).save(tmp_path / "d.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_scale": None, "X_offset": None}, r"X has shape \(10, 64\) and dtype uint8, expected float64 or float32"),
        ({"X_offset": None}, "X_offset"),
        ({"X_scale": np.ones(9)}, "X_offset must be finite float64"),
        ({"X_scale": np.full(10, np.nan)}, "X_scale must be finite float64"),
        ({"X_scale": np.zeros(10)}, "X_scale must be positive, got 0"),
        ({"X_scale": np.ones(10, np.float32)}, "X_scale must be finite float64"),
        ({"X": np.zeros((10, 64))}, "codes must be float16 or uint8, got float64"),
        ({"X": np.zeros((9, 64), np.uint8)}, "expected uint8 with 10 rows"),
        ({"X": np.full((10, 64), np.inf, np.float16)}, "X holds NaN or infinity"),
    ],
)
def test_damaged_files(digits: kd.Dataset, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "d.npz"
    distil(digits, "uint8").distilled.save(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(kd.DataError, match=rf"d\.npz: .*{message}"):
        kd.DistilledDataset.load(path)


def test_unknown_stores() -> None:
    with pytest.raises(ValueError, match="store must be one of float64, float32, float16, uint8; got 'int4'"):
        round_inputs(rows(), "int4")
    with pytest.raises(kd.DataError, match="codes must be float16 or uint8, got int8"):
        Encoding("int8", np.ones(1), np.zeros(1))


def test_meta_says_how_inputs_are_stored(digits: kd.Dataset, tmp_path: Path) -> None:
    distil(digits, "uint8").distilled.save(tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as archive:
        assert json.loads(str(archive["meta"]))["options"]["store"] == "uint8"
