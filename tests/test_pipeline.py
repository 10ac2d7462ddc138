"""From arrays to a certified file: exactness of every cell, determinism, and bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import krrdistill as kd
from krrdistill.backends import Backend
from krrdistill.backends.array import ArrayBackend
from krrdistill.pipeline import retrain
from krrdistill.problem import choose_real_rows, split
from tolerances import assert_exact, assert_promised, assert_promised_model, assert_solve, solve

KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
CELLS = list(itertools.product(KERNELS, (1, 10, 50), ("noise", "real"), (0.0, "auto")))


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


def run(data: kd.Dataset, out: Path, kernel: str = "FCNN", **options: Any) -> kd.RunResult:
    return kd.run_distillation(data, kernel=kernel, options=kd.DistillOptions(**options), out=out)


def distill_digits(data: kd.Dataset, kernel: str = "FCNN", **options: Any) -> kd.Distillation:
    phi = kd.make_map(kernel, data, kd.standardize(data))
    return kd.distill(data.x_train, data.y_train, phi, **options)


def model_condition(original: kd.RidgeModel) -> float:
    """Of G + lambda I, at most."""
    return (original.path.largest_eigenvalue + original.lambda_) / original.lambda_


def assert_certified(report: dict[str, Any], store: str = "float64", agreement: float = 1.0) -> None:
    assert_promised(report["certificate"]["weight_relative_error"], store)
    assert report["certificate"]["prediction_agreement"] >= agreement
    if agreement == 1.0:
        assert report["distilled"] == report["original"]


@pytest.mark.parametrize(("kernel", "ipc", "init", "lambda_s"), CELLS)
def test_every_cell_is_exact(
    digits: kd.Dataset, tmp_path: Path, kernel: str, ipc: int, init: str, lambda_s: float | str
) -> None:
    result = run(digits, tmp_path, kernel, points_per_class=ipc, init=init, lambda_s=lambda_s)
    assert_certified(result.report)
    assert result.report["m"] == 10 * ipc
    assert result.report["original"]["test_accuracy"] > 0.9
    assert (result.report["lambda_s"] > 0) == (lambda_s == "auto")


@pytest.mark.parametrize(("kernel", "ipc", "init"), list(itertools.product(KERNELS, (1, 10, 50), ("noise", "real"))))
def test_float32_storage(digits: kd.Dataset, tmp_path: Path, kernel: str, ipc: int, init: str) -> None:
    result = run(digits, tmp_path, kernel, points_per_class=ipc, init=init, store="float32")
    assert result.distilled.inputs.dtype == np.float32
    assert_certified(result.report, "float32", agreement=0.998)


@pytest.mark.data
@pytest.mark.parametrize(
    ("kernel", "init", "lambda_s"),  # their product is above
    [
        ("identity", "real", "auto"),
        ("random_fourier", "noise", "auto"),
        ("orthogonal_fourier", "real", 0.0),
        ("FCNN", "noise", 0.0),
    ],
)
def test_mnist_is_exact(real_data_dir: Path, tmp_path: Path, kernel: str, init: str, lambda_s: float | str) -> None:
    data = kd.load_dataset("mnist", data_dir=real_data_dir)
    result = run(data, tmp_path, kernel, points_per_class=10, init=init, lambda_s=lambda_s)
    assert_certified(result.report)
    # The paper's table; its random Fourier figure holds for orthogonal features as well.
    published = {"identity": 0.8641, "random_fourier": 0.9382, "orthogonal_fourier": 0.9382, "FCNN": 0.9389}[kernel]
    assert result.report["original"]["test_accuracy"] > published - 0.006  # THEORY's table, one seed


@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_on_every_instruction_set(isa: str, digits: kd.Dataset, tmp_path: Path, kernel: str) -> None:
    """What one set wrote, all of them retrain to."""
    result = run(digits, tmp_path, kernel, points_per_class=2, backend="native")
    assert_certified(result.report)
    W_S = kd.DistilledDataset.load(Path(result.report["artifact"])).fit(backend="array")
    assert_promised_model(W_S, result.model.W)


@pytest.mark.parametrize("root", ["plus", "minus"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_both_roots_of_a_fixed_lambda_s(digits: kd.Dataset, tmp_path: Path, kernel: str, root: str) -> None:
    result = run(digits, tmp_path, kernel, points_per_class=3, lambda_s=1e-6, root=root)
    assert result.report["lambda_s"] == 1e-6
    assert_certified(result.report)


def test_lambda_s_beyond_the_range_of_the_map(digits: kd.Dataset, tmp_path: Path) -> None:
    with pytest.raises(kd.LambdaOutOfRange, match="too large for features within the range of the map"):
        run(digits, tmp_path, "random_fourier", points_per_class=3, lambda_s=1e-2)
    result = run(digits, tmp_path, "random_fourier", points_per_class=3, lambda_s=1e-2, root="minus")
    assert result.report["lambda_s"] == 1e-2
    assert_certified(result.report)


def test_lambda_s_beyond_its_bound(digits: kd.Dataset, tmp_path: Path) -> None:
    with pytest.raises(kd.LambdaOutOfRange, match=r"lambda_s = 1e\+06 exceeds"):
        run(digits, tmp_path, "identity", lambda_s=1e6)
    result = run(digits, tmp_path, "identity", lambda_s=1e6, scale_labels=True)
    assert result.report["lambda_s"] == 1e6
    assert_certified(result.report)


@pytest.mark.parametrize("option", [{"refit": True}, {"precision": "float64"}, {"backend": "array"}])
def test_options_keep_exactness(digits: kd.Dataset, tmp_path: Path, option: dict[str, Any]) -> None:
    result = run(digits, tmp_path, points_per_class=2, **option)
    assert_certified(result.report)
    n_train = {"refit": len(digits.x_train)}.get(next(iter(option)), round(0.95 * len(digits.x_train)))
    assert result.report["n_train"] == n_train
    backend = option.get("backend")
    again = kd.retrain(result.distilled, digits.x_train, digits.y_train, backend=backend)  # as recorded
    certificate = result.distilled.verify(again, test=digits, backend=backend)
    assert certificate.weight_relative_error <= solve(certificate.condition**2)


def test_zca_is_exact(digits: kd.Dataset, tmp_path: Path) -> None:
    options = kd.DistillOptions(points_per_class=2, init="real")
    result = kd.run_distillation(digits, kernel="FCNN", use_zca=True, options=options, out=tmp_path)
    assert result.distilled.preprocessing.kind == "zca"
    assert_certified(result.report)


def test_deep_and_narrow_maps(digits: kd.Dataset, tmp_path: Path) -> None:
    options = kd.DistillOptions(points_per_class=2, init="real")
    for kernel, map_options in (
        ("FCNN", {"widths": [50, 40]}),
        ("random_fourier", {"n_features": 40}),
        ("orthogonal_fourier", {"n_features": 40}),
    ):
        result = kd.run_distillation(digits, kernel=kernel, map_options=map_options, options=options, out=tmp_path)
        assert result.report["p"] == 40
        assert_certified(result.report)


def test_two_runs_write_the_same_file(digits: kd.Dataset, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(digits, tmp_path / name, points_per_class=5, init="real")
        with np.load(tmp_path / name / "distilled.npz") as archive:
            arrays = {key: archive[key].tobytes() for key in archive.files if key not in ("meta", "digest")}
            meta = json.loads(str(archive["meta"]))
        assert meta.pop("seconds")
        contents.append((arrays, meta))
    assert contents[0] == contents[1]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_threads_agree_to_rounding(digits: kd.Dataset, precision: str) -> None:
    models = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(limits=threads):
            models.append(distill_digits(digits, precision=precision).model)
    assert_solve(models[0].W, models[1].W, model_condition(models[0]), precision)


def test_backends_agree_to_rounding(digits: kd.Dataset, any_backend: Backend) -> None:
    array = distill_digits(digits, backend="array", precision="float64")
    found = distill_digits(digits, precision="float64", backend=any_backend)
    assert found.distilled.meta["options"]["backend"] == any_backend.name
    assert found.model.lambda_ == array.model.lambda_
    assert_solve(found.model.W, array.model.W, model_condition(found.model))
    assert_solve(found.distilled.X, array.distilled.X, model_condition(found.model))


def test_seed_decides_everything(digits: kd.Dataset) -> None:
    first, again, other = (distill_digits(digits, seed=seed).distilled.X for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_real_points_are_balanced_training_points(digits: kd.Dataset) -> None:
    options = kd.DistillOptions(points_per_class=7, init="real")
    validation, train = split("distill", digits.y_train, options)
    assert sorted([*validation, *train]) == list(range(len(digits.x_train)))
    rows = choose_real_rows("distill", digits.y_train, train, 10, options)
    np.testing.assert_array_equal(digits.y_train[rows], np.arange(70) % 10)
    assert set(rows) <= set(train)
    assert len(set(rows)) == 70


def test_real_start_stays_near_the_real_images(digits: kd.Dataset, tmp_path: Path) -> None:
    result = run(digits, tmp_path, "identity", points_per_class=1, init="real")
    assert result.start_images is not None
    real = result.start_images.astype(float)
    distance = np.linalg.norm(result.distilled.samples - real) / np.linalg.norm(real)
    assert distance < 0.8


def test_progress_covers_every_stage(digits: kd.Dataset, tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    kd.run_distillation(digits, out=tmp_path, progress=lambda stage, fraction: seen.update({stage: fraction}))
    stages = {"preprocess", "statistics", "ridge", "construct", "preimage", "save", "evaluate"}
    assert seen == dict.fromkeys(stages, 1.0)


def test_report_is_complete_and_json(digits: kd.Dataset, tmp_path: Path) -> None:
    report = json.loads(json.dumps(run(digits, tmp_path).report, allow_nan=False))
    assert {"dataset", "kernel", "ipc", "seed", "n_train", "n_val", "n_test", "d", "p", "k", "m"} <= report.keys()
    stages = {"load", "statistics", "ridge", "construct", "preimage", "evaluate", "save", "total"}
    assert stages <= report["seconds"].keys()
    assert report["peak_memory_bytes"] > 1 << 20
    assert Path(report["artifact"]).is_file()


def test_class_smaller_than_points_per_class(digits: kd.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"class 0 has \d+ training points, fewer than points_per_class = 500"):
        run(digits, tmp_path, points_per_class=500, init="real")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"points_per_class": 0}, ValueError, "points_per_class must be >= 1, got 0"),
        ({"points_per_class": 1.5}, TypeError, "points_per_class must be an integer"),
        ({"init": "random"}, ValueError, "init must be one of noise, real; got 'random'"),
        ({"lambda_s": -1.0}, ValueError, "lambda_s must be finite and >= 0"),
        ({"lambda_s": float("nan")}, ValueError, "lambda_s must be finite"),
        ({"lambda_s": 2e150}, ValueError, r"lambda_s must be finite and >= 0 and <= 1e\+150, got 2e\+150"),
        ({"lambda_s": "best"}, ValueError, "lambda_s must be a number, or one of auto"),
        ({"root": "both"}, ValueError, "root must be one of plus, minus"),
        ({"root": "minus"}, ValueError, "root = 'minus' needs lambda_s > 0"),
        ({"scale_labels": True}, ValueError, "scale_labels needs a fixed lambda_s > 0, got 0.0"),
        ({"scale_labels": True, "lambda_s": "auto"}, ValueError, "scale_labels needs a fixed lambda_s > 0, got auto"),
        ({"precision": "float16"}, ValueError, "precision must be one of float32, float64"),
        ({"store": "uint4"}, ValueError, "store must be one of float64, float32, float16, uint8; got"),
        ({"seed": -1}, ValueError, "seed must be >= 0"),
        ({"seed": 1 << 64}, ValueError, "seed must be >= 0 and < 2"),
        ({"validation_fraction": 1.0}, ValueError, r"validation_fraction must be finite and > 0 and < 1"),
        ({"threads": 0}, ValueError, "threads must be >= 1"),
        ({"lambdas": []}, ValueError, "lambdas must hold at least one value"),
        ({"lambdas": [0.0]}, ValueError, "lambdas must be finite and > 0"),
        ({"backend": "abacus"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options(digits: kd.Dataset, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        distill_digits(digits, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y: (np.where(np.arange(64) == 3, np.nan, x.reshape(-1, 64).astype(float)), y), kd.DataError, "NaN"),
        (lambda x, y: (np.full((len(x), 64), np.inf), y), kd.DataError, "NaN or infinity"),
        (lambda x, y: (x[:, :4], y), kd.DataError, r"X has samples of shape \(4, 8\), 32 numbers, the map takes 64$"),
        (lambda x, y: (x.astype(str), y), TypeError, "X must be a numeric array"),
        (lambda x, y: (x, y[:-1]), kd.DataError, "y must have one label for each"),
        (lambda x, y: (x, np.where(y == 4, None, y)), kd.DataError, r"y has \d+ missing values \(first in row \d+\)"),
        (lambda x, y: (x, np.zeros(len(x), int)), kd.DataError, "y has one class only"),
        (lambda x, y: (x, np.where(y == 4, np.nan, y)), kd.DataError, "y holds NaN"),
        (lambda x, y: (x, y.reshape(2, -1).T), kd.DataError, "y must have shape"),
        (lambda x, y: (x, y.astype("f4")), TypeError, "y holds whole numbers as float32"),
        (lambda x, y: (x[:1], y[:1] * 0), kd.DataError, "y has one class only"),
        (lambda x, y: (x[:0], y[:0]), kd.DataError, "no samples"),
        (lambda x, y: (np.ma.masked_equal(x, 0), y), TypeError, "X is a masked array"),
    ],
)
def test_bad_data(digits: kd.Dataset, change: Any, error: type[Exception], message: str) -> None:
    X, y = change(digits.x_train, digits.y_train)
    with pytest.raises(error, match=message):
        kd.distill(X, y, kd.FCNN(64))


def test_label_out_of_range(digits: kd.Dataset) -> None:
    with pytest.raises(kd.DataError, match="label 9, there are 9 classes"):
        kd.distill(digits.x_train, digits.y_train, kd.FCNN(64), classes=9)


def test_class_without_samples(digits: kd.Dataset) -> None:
    with pytest.raises(kd.DataError, match=r"no sample of class 10 \(2 of 12 classes are missing\)"):
        kd.distill(digits.x_train, digits.y_train, kd.FCNN(64), classes=12)


def test_impossible_preimage_is_said_before_the_work(digits: kd.Dataset) -> None:
    with pytest.raises(kd.NotSurjective, match="maps 64 inputs to 80 features"):
        kd.distill(digits.x_train, digits.y_train, kd.RandomFourier(64, 80, sigma2=50.0), strict=True)


def test_any_numeric_array_is_taken(digits: kd.Dataset) -> None:
    reference = kd.distill(digits.x_train, digits.y_train, kd.FCNN(64)).model.W
    for dtype in (np.int32, np.float16, np.float32, np.float64, ">f4"):
        W = kd.distill(digits.x_train.astype(dtype), digits.y_train.astype(np.uint8), kd.FCNN(64)).model.W
        assert_exact(W, reference)


def test_a_trained_model_is_distilled_again(digits: kd.Dataset) -> None:
    model = distill_digits(digits).model
    _, train = split("distill", digits.y_train, kd.DistillOptions())
    again = kd.distill_model(
        model, reference=(digits.x_train[train], digits.y_train[train]), points_per_class=3, init="real"
    )
    assert_exact(again.X, distill_digits(digits, points_per_class=3, init="real").distilled.X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lambdas": [3.0]}, TypeError, "lambdas belongs to the training of a model"),
        ({"options": kd.DistillOptions(refit=True)}, TypeError, "refit belongs to the training of a model"),
        ({"init": "real"}, ValueError, r"init='real' takes its points from reference=\(X, y\)"),
        ({"reference": (np.zeros((2, 64)), [0, 1])}, ValueError, "reference belongs to init='real'"),
        ({"points": 3}, TypeError, "unknown option points"),
    ],
)
def test_distill_model_refuses_what_it_does_not_take(
    digits: kd.Dataset, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kd.distill_model(distill_digits(digits).model, **options)


def test_retrain_takes_a_backend_and_speaks_in_the_name_of_its_caller(digits: kd.Dataset) -> None:
    class Counting(ArrayBackend):
        passes = 0

        def accumulate(self, *arguments: Any, **keywords: Any) -> str:
            self.passes += 1
            return super().accumulate(*arguments, **keywords)

    result, backend = distill_digits(digits), Counting()
    retrain(result.distilled, digits.x_train, digits.y_train, backend=backend)
    assert backend.passes > 0
    with pytest.raises(ValueError, match="backend must be one of"):
        retrain(result.distilled, digits.x_train, digits.y_train, backend="abacus")
    with pytest.raises(kd.DataError, match="audit: the hold-out took every sample of class"):
        retrain(result.distilled, digits.x_train[:2], [0, 1], classes=2, where="audit")


def test_an_inexact_file_is_said_to_be_one(digits: kd.Dataset, tmp_path: Path) -> None:
    options = kd.DistillOptions(store="float32")
    result = kd.run_distillation(digits, kernel="FCNN", map_options={"hidden_layers": 5}, options=options, out=tmp_path)
    assert result.report["certificate"]["weight_relative_error"] > 1e-2
    assert any("NOT EXACT" in warning for warning in result.report["warnings"])


def test_a_failed_run_replaces_nothing(digits: kd.Dataset, tmp_path: Path) -> None:
    run(digits, tmp_path)
    before = (tmp_path / "distilled.npz").read_bytes()
    with pytest.raises(kd.KrrDistillError):
        kd.run_distillation(digits, kernel="FCNN", map_options={"hidden_layers": 30}, out=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["distilled.npz"]
    assert (tmp_path / "distilled.npz").read_bytes() == before


@pytest.mark.parametrize("lambda_s", [0.0, "auto", 1.0])
def test_a_model_of_nothing_is_refused(lambda_s: float | str) -> None:
    with pytest.raises(kd.DataError, match="the original model is zero"):
        kd.distill(np.zeros((60, 5)), np.arange(60) % 3, kd.Identity(5), lambda_s=lambda_s)


def test_numpy_numbers_are_options_too(digits: kd.Dataset, tmp_path: Path) -> None:
    numbers = {"seed": np.int64(2), "points_per_class": np.int64(2), "lambda_s": np.float32(0), "refit": np.bool_(True)}
    distill_digits(digits, validation_fraction=np.float64(0.1), **numbers).distilled.save(tmp_path / "d.npz")
    assert kd.DistilledDataset.load(tmp_path / "d.npz").meta["options"]["seed"] == 2
