"""The file: round trip, determinism, and refusal of everything that is not one."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from krrdistill.common.files import write_atomically


@pytest.fixture(scope="module")
def distilled() -> kd.DistilledDataset:
    data = kd.load_dataset("digits")
    scaling = kd.standardize(data)
    phi = kd.make_map("FCNN", data, scaling)
    keywords: dict[str, Any] = {"points_per_class": 2, "include_weights": True}
    return kd.distill(data.x_train, data.y_train, phi, **keywords).distilled


@pytest.fixture
def path(distilled: kd.DistilledDataset, tmp_path: Path) -> Path:
    distilled.save(tmp_path / "distilled.npz")
    return tmp_path / "distilled.npz"


def rewrite(path: Path, **changes: Any) -> None:
    """Replaces (or, with None, removes) arrays of the archive."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def meta_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        meta: dict[str, Any] = json.loads(str(archive["meta"]))
    return meta


def test_round_trip(distilled: kd.DistilledDataset, path: Path) -> None:
    loaded = kd.DistilledDataset.load(path)
    for name in ("inputs", "X", "Y", "weights", "samples"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(distilled, name))
    assert loaded.lambda_s == distilled.lambda_s
    assert loaded.feature_map.fingerprint() == distilled.feature_map.fingerprint()
    np.testing.assert_array_equal(loaded.fit(), distilled.fit())
    assert {**distilled.meta, **loaded.meta} == loaded.meta


def test_same_content_same_bytes(distilled: kd.DistilledDataset, path: Path) -> None:
    first = path.read_bytes()
    kd.DistilledDataset.load(path).save(path)
    assert path.read_bytes() == first


def test_samples_are_the_inputs_in_pixels(distilled: kd.DistilledDataset) -> None:
    pixels = distilled.samples
    assert pixels.shape == (20, 8, 8)
    scaling = distilled.preprocessing
    magnitude = (np.abs(distilled.X) + np.abs(scaling.origin)) / np.abs(scaling.unit)
    tolerances.assert_elementwise(scaling.apply(pixels), distilled.inputs, np.float32, magnitude)


@pytest.mark.parametrize("embed", [True, False, None])
def test_embedding_is_a_choice(distilled: kd.DistilledDataset, tmp_path: Path, embed: bool | None) -> None:
    distilled.save(tmp_path / "d.npz", embed_map=embed)
    with np.load(tmp_path / "d.npz") as archive:
        assert ("map_weight_0" in archive.files) == (embed is not False)
    np.testing.assert_array_equal(kd.DistilledDataset.load(tmp_path / "d.npz").fit(), distilled.fit())


def test_prediction_of_images_of_another_layout_is_refused() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 6, 4, 3)).astype(np.uint8), np.arange(60) % 3
    phi = kd.make_map("identity", X, kd.standardize(X, layout="NHWC"))
    result = kd.distill(X, y, phi, backend="array")
    for predictor in (result.distilled, result.model):
        with pytest.raises(kd.DataError, match=r"have shape \(3, 6, 4\), those trained on \(6, 4, 3\)"):
            predictor.predict(np.moveaxis(X, -1, 1))
        flat = predictor.predict(X.reshape(60, -1))
        assert (flat == predictor.predict(X)).all()
        assert (flat == predictor.predict(X[:, :, :, None, :])).all()  # an axis of length 1 says nothing


def test_predicts_like_the_original_model(distilled: kd.DistilledDataset) -> None:
    data = kd.load_dataset("digits")
    features = distilled.feature_map.transform(data.x_test)
    assert distilled.weights is not None
    expected = (features @ distilled.weights.T).argmax(axis=1)
    np.testing.assert_array_equal(distilled.predict(data.x_test), expected)


def test_verify_retrains_the_original_where_it_is_not_stored(distilled: kd.DistilledDataset, path: Path) -> None:
    replace(kd.DistilledDataset.load(path), weights=None, intercept=None).save(path)
    loaded = kd.DistilledDataset.load(path)
    assert loaded.weights is None
    data = kd.load_dataset("digits")
    with pytest.raises(kd.DataError, match=r"does not hold the original model.*krrdistill\.retrain"):
        loaded.verify(test=data)
    certificate = loaded.verify(kd.retrain(loaded, data.x_train, data.y_train), test=data)
    assert certificate.weight_relative_error <= tolerances.solve(certificate.condition**2)
    assert certificate.prediction_agreement == 1.0
    assert certificate.original_accuracy == certificate.distilled_accuracy


def test_verify_sees_a_changed_set(path: Path) -> None:
    loaded = kd.DistilledDataset.load(path)
    replace(loaded, inputs=loaded.inputs + 0.01).save(path)
    assert kd.DistilledDataset.load(path).verify(test=kd.load_dataset("digits")).weight_relative_error > 1e-3


def test_verify_refuses_other_data(distilled: kd.DistilledDataset) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)), np.arange(40) % 2
    other = kd.Dataset("other", x, y, x, y, ("a", "b"))
    with pytest.raises(kd.DataError, match="verify: X has 5 columns, the map takes 64"):
        distilled.verify(test=other)


@pytest.mark.parametrize("size", [0, 10, 200, 3000])
def test_truncated_file(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(kd.DataError, match=r"distilled\.npz"):
        kd.DistilledDataset.load(path)


def test_flipped_bytes_are_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("X.npy").header_offset + 400
    content[start : start + 8] = bytes(255 - value for value in content[start : start + 8])
    path.write_bytes(bytes(content))
    with pytest.raises(kd.DataError, match="cannot read X: Bad CRC-32"):
        kd.DistilledDataset.load(path)


class _Explosive:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["X", "meta", "extra"])
def test_hidden_pickle_is_never_executed(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    payload = io.BytesIO()
    np.lib.format.write_array(payload, np.array([_Explosive()], dtype=object), allow_pickle=True)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files if key != name}
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", payload.getvalue())
    refused = "has no array 'extra'" if name == "extra" else f"{name} holds Python objects"
    with pytest.raises(kd.DataError, match=refused):
        kd.DistilledDataset.load(path)
    assert not Path("exploded").exists()


def test_a_bare_pickle_is_refused(path: Path) -> None:
    path.write_bytes(pickle.dumps({"X": [1, 2]}))
    with pytest.raises(kd.DataError, match="another kind of file"):
        kd.DistilledDataset.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(kd.DataError, match="no such file"):
        kd.DistilledDataset.load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "X missing"),
        ({"X": np.zeros((20, 63))}, r"X has shape \(20, 63\)"),
        ({"X": np.zeros((20, 64), dtype=np.int64)}, "dtype int64"),
        ({"X": np.full((20, 64), np.nan)}, "X holds NaN"),
        ({"Y": np.zeros((19, 10))}, r"Y has shape \(19, 10\)"),
        ({"Y": np.full((20, 10), np.inf)}, "Y holds NaN or infinity"),
        ({"W": np.zeros((10, 63))}, r"W has shape \(10, 63\)"),
        ({"lambda_s": np.float64(-1.0)}, "lambda_s must be one float64 number >= 0"),
        ({"lambda_s": np.zeros(2)}, "lambda_s must be"),
        ({"meta": np.array("{not json")}, "meta is not JSON"),
        ({"meta": np.array('{"format": "krrdistill-99"}')}, "format 'krrdistill-99'"),
        ({"map_weight_0": np.zeros((64, 64), dtype=np.float32)}, "map_weight_0 differs"),
        ({"X_origin": None}, "X_origin missing"),
        ({"X_unit": None}, "X_unit missing"),
        ({"X_unit": np.zeros(64)}, "unit holds zeros"),
        ({"X_unit": np.ones(63)}, r"unit must be float64 of shape"),
        ({"X_origin": np.full(64, np.nan)}, "origin holds NaN"),
        ({"meta": None}, "meta missing"),
        ({"W": np.array([["a"] * 64] * 10)}, "W has shape"),
        ({"Y": np.zeros((20, 0))}, "Y has shape"),
        ({"meta": np.array("[" * 100_000)}, "meta is not JSON"),
    ],
)
def test_inconsistent_files(path: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(path, **changes)
    with pytest.raises(kd.DataError, match=message):
        kd.DistilledDataset.load(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fingerprint", "0" * 64, "do not match the recorded fingerprint"),
        ("seed", 5, "do not match the recorded fingerprint"),
        ("kernel", "unheard_of", "unknown kernel 'unheard_of'"),
        ("widths", None, "incomplete"),
        ("input_dim", "64", "takes input_dim = '64' columns"),
        ("input_dim", 10**9, "takes input_dim = 1000000000 columns"),
    ],
)
def test_map_of_another_kind(path: Path, key: str, value: Any, message: str) -> None:
    meta = meta_of(path)
    meta["map"][key] = value
    rewrite(path, meta=np.array(json.dumps(meta)))
    with pytest.raises(kd.DataError, match=message):
        kd.DistilledDataset.load(path)


@pytest.mark.parametrize("shape", [[3, 3], [], [-8, -8], "88", [8.0, 8.0]])
def test_shape_of_another_size(path: Path, shape: Any) -> None:
    rewrite(path, meta=np.array(json.dumps({**meta_of(path), "shape": shape})))
    with pytest.raises(kd.DataError, match="does not have 64 entries"):
        kd.DistilledDataset.load(path)


def test_missing_preprocessing(path: Path) -> None:
    rewrite(path, meta=np.array(json.dumps({**meta_of(path), "preprocessing": None})))
    with pytest.raises(kd.DataError, match=r"distilled\.npz"):
        kd.DistilledDataset.load(path)


def test_nothing_infinite_is_written(distilled: kd.DistilledDataset, tmp_path: Path) -> None:
    with pytest.raises(kd.DataError, match="X in float32 would hold NaN or infinity"):
        replace(distilled, inputs=distilled.inputs * 1e40).save(tmp_path / "d.npz")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_nothing(tmp_path: Path, distilled: kd.DistilledDataset) -> None:
    target = tmp_path / "d.npz"
    target.write_bytes(b"before")

    def fail_halfway(stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, fail_halfway)
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.npz"]
    assert target.read_bytes() == b"before"


def test_a_model_of_another_map_is_refused(distilled: kd.DistilledDataset) -> None:
    data = kd.load_dataset("digits")
    other = kd.make_map("FCNN", data, kd.standardize(data), seed=1)
    model = kd.distill(data.x_train, data.y_train, other).model
    with pytest.raises(kd.DataError, match="verify: the model is of another feature map than the file"):
        distilled.verify(model, test=data)


def test_pickles_are_the_same_set(distilled: kd.DistilledDataset) -> None:
    again = pickle.loads(pickle.dumps(distilled))
    np.testing.assert_array_equal(again.fit(), distilled.fit())
    assert repr(again) == repr(distilled)
    assert "20 points for 10 classes, shape (8, 8)" in repr(again)


def test_a_fact_that_load_would_refuse_is_not_written(distilled: kd.DistilledDataset, tmp_path: Path) -> None:
    path = tmp_path / "distilled.npz"
    with pytest.raises(kd.DataError, match="meta has dataset"):
        distilled.with_meta(dataset=["a"]).save(path)
    assert not path.exists()
