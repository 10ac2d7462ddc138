"""Unequal points per class: exact for every start, equal numbers as before, and told everywhere it is shown."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import oracles
import tolerances
from krrdistill.common.options import declared_options, read_value
from krrdistill.common.random import Stream, normal
from krrdistill.construct.closed_form import gaussian_start
from krrdistill.construct.labels import one_hot_labels, point_classes
from krrdistill.options import DistillOptions

COUNTS = [1, 1, 5, 1, 2, 1, 1, 12, 1, 3]
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
BY_NAME = dict(zip(NAMES.tolist(), COUNTS, strict=True))
ROUNDS = [*range(10), 2, 4, 7, 9, 2, 7, 9, 2, 7, 2, 7, *[7] * 7]
KERNELS = ("identity", "random_fourier", "FCNN")
STARTS: tuple[dict[str, Any], ...] = (
    {},
    {"init": "real"},
    {"lambda_s": "auto"},
    {"lambda_s": 1e-6},
    {"lambda_s": 1e-3, "root": "minus"},
    {"intercept": True},
    {"intercept": True, "init": "real"},
    {"center_targets": True},
    {"realism": 0.5},
    {"store": "float32"},
)


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


def fcnn(digits: kd.Dataset) -> kd.FeatureMap:
    return kd.make_map("FCNN", digits, kd.standardize(digits))


def made(digits: kd.Dataset, points: Any, *, y: Any = None, **options: Any) -> kd.Distillation:
    return kd.distill(
        digits.x_train, digits.y_train if y is None else y, fcnn(digits), points_per_class=points, **options
    )


def test_points_stand_in_rounds_of_the_classes_that_have_more() -> None:
    assert point_classes(10, COUNTS).tolist() == ROUNDS
    assert point_classes(3, 2).tolist() == [0, 1, 2, 0, 1, 2]
    tolerances.assert_exact(one_hot_labels(10, COUNTS), np.eye(10)[ROUNDS])


def test_noise_has_one_scale_for_all_points() -> None:
    W = np.random.default_rng(0).standard_normal((10, 6))
    D, Y = gaussian_start(W, COUNTS, seed=5)
    Z = np.std(W) / 2.8 * normal(5, Stream.NOISE, 28 * 6).reshape(28, 6)
    tolerances.assert_solve(D, oracles.dual(W, Y.T, Z), 10.0)


@pytest.mark.parametrize("options", STARTS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_unequal_points_of_the_digits_retrain_exactly(digits: kd.Dataset, kernel: str, options: dict[str, Any]) -> None:
    phi = kd.make_map(kernel, digits, kd.standardize(digits))
    result = kd.distill(digits.x_train, digits.y_train, phi, points_per_class=COUNTS, precision="float64", **options)
    certificate = result.distilled.verify(result.model, test=digits)
    assert result.distilled.Y.shape == (28, 10)
    assert certificate.prediction_agreement == 1.0
    tolerances.assert_promised(certificate.weight_relative_error, result.distilled.store)
    if result.start_rows is not None:
        assert digits.y_train[result.start_rows].tolist() == ROUNDS
    elif not options:
        assert result.distilled.Y.argmax(axis=1).tolist() == ROUNDS


@pytest.mark.data
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("init", ["noise", "real"])
def test_unequal_points_of_mnist_retrain_exactly(mnist: dict[str, Any], kernel: str, init: str) -> None:
    X, y = mnist["x_train"][:8000], mnist["y_train"][:8000]
    phi = kd.make_map(kernel, X, kd.standardize(X), **({} if kernel == "identity" else {"seed": 1}))
    result = kd.distill(X, y, phi, points_per_class=COUNTS, init=init)
    certificate = result.distilled.verify(result.model, test=(mnist["x_test"], mnist["y_test"]))
    assert certificate.prediction_agreement == 1.0
    tolerances.assert_promised(certificate.weight_relative_error, "float64")


@pytest.mark.parametrize("options", [*STARTS, {"labels_only": True}], ids=str)
def test_equal_numbers_give_the_points_of_one_number(digits: kd.Dataset, options: dict[str, Any]) -> None:
    one, list_, mapping = (
        made(digits, each, judge=False, **options) for each in (2, [2] * 10, dict.fromkeys(range(10), 2))
    )
    for other in (list_, mapping):
        tolerances.assert_exact(other.distilled.inputs, one.distilled.inputs)
        tolerances.assert_exact(other.distilled.Y, one.distilled.Y)
        assert other.distilled.meta == one.distilled.meta
    assert one.distilled.meta["options"]["points_per_class"] == 2


def test_a_mapping_names_the_classes_in_any_order(digits: kd.Dataset) -> None:
    y = NAMES[digits.y_train]
    ordered = [BY_NAME[name] for name in sorted(NAMES)]
    expected = made(digits, ordered, y=y).distilled
    series: Any = {"kept as a mapping": dict(reversed(BY_NAME.items())), "Counter": Counter(BY_NAME)}
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    series["Series"] = pandas.Series(BY_NAME).sort_values()  # its labels count, not its order
    for name, points in series.items():
        assert made(digits, points, y=y).distilled.X.tobytes() == expected.X.tobytes(), name
    assert expected.meta["options"]["points_per_class"] == ordered


def test_points_of_a_model_are_those_of_one_call_and_the_file_says_how_many(digits: kd.Dataset, tmp_path: Path) -> None:
    result = made(digits, BY_NAME, y=NAMES[digits.y_train])
    points = kd.distill_model(result.model, points_per_class=BY_NAME)
    assert points.X.tobytes() == result.distilled.X.tobytes()
    real = kd.distill_model(
        result.model, points_per_class=BY_NAME, init="real", reference=(digits.x_train, NAMES[digits.y_train])
    )
    tolerances.assert_promised(real.weight_error, "float64")
    points.save(tmp_path / "points.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "points.npz")
    assert loaded.meta["options"] == points.meta["options"]
    again = kd.retrain(loaded, digits.x_train, NAMES[digits.y_train])
    tolerances.assert_exact(again.W, result.model.W)


def test_maps_without_preimages_and_few_samples_take_unequal_points(digits: kd.Dataset) -> None:
    phi = kd.make_map("conv", digits, kd.standardize(digits), channels=[3])
    approximate = kd.distill(digits.x_train, digits.y_train, phi, points_per_class=COUNTS)
    assert len(approximate.distilled.Y) == 28
    few = np.concatenate([np.flatnonzero(digits.y_train == c)[:3] for c in range(10)])  # fewer than features
    for init in ("noise", "real"):
        result = kd.distill(
            digits.x_train[few], digits.y_train[few], fcnn(digits), points_per_class=[2, *[1] * 9], init=init
        )
        tolerances.assert_promised(result.distilled.weight_error, "float64")


def test_learned_labels_are_judged_after_every_round(digits: kd.Dataset, tmp_path: Path) -> None:
    options = DistillOptions(points_per_class=[1, 3, *[2] * 8], labels_only=True)
    result = kd.run_distillation(digits, kernel="FCNN", options=options, out=tmp_path)
    assert result.report["labels_only"]["m"] == [10, 19, 20]


@pytest.mark.parametrize(
    ("points", "kind", "expected"),
    [
        ([1, 2], ValueError, "points_per_class has 2 numbers for 10 classes: give each class one"),
        ([], ValueError, "points_per_class has 0 numbers for 10 classes"),
        (
            [1] * 9 + [0],
            ValueError,
            "points_per_class must be >= 1, got 0; every class needs a point: labels of rank k",
        ),
        ({**BY_NAME, "two": 0}, ValueError, "points_per_class of 'two' must be >= 1, got 0; every class needs a point"),
        ({**BY_NAME, "two": 1.5}, TypeError, "points_per_class of 'two' must be an integer, got 1.5"),
        (
            {**BY_NAME, "cow": 2},
            ValueError,
            r"numbers for \['cow'\], no labels of y: the classes are \['eight', 'five'",
        ),
        (dict.fromkeys(range(10), 2), ValueError, r"numbers for \[0, 1, 2, 3, 4, 5, ...\], no labels of y"),
        ({"two": 1, **dict.fromkeys(NAMES[3:], 1)}, ValueError, r"no number for the classes \['one', 'zero'\]"),
        ({1, 2}, TypeError, r"must be an integer or a list of integers, got \{1, 2\}"),
        ("1,2", TypeError, "must be an integer or a list of integers, got '1,2'"),
        ([1.0] * 10, TypeError, "points_per_class must be an integer, got 1.0"),
        (None, TypeError, "points_per_class must be an integer, got None"),
        ([200, *[1] * 9], ValueError, "class 'eight' has 132 training points, fewer than points_per_class = 200"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    digits: kd.Dataset, points: Any, kind: type[Exception], expected: str
) -> None:
    with pytest.raises(kind, match=expected):
        made(digits, points, y=NAMES[digits.y_train], init="real")


@pytest.mark.parametrize("points", [[1, 2], {0: 1, 1: 2}, [2, 2]])
def test_real_valued_targets_take_one_number_only(digits: kd.Dataset, points: Any) -> None:
    targets = np.stack([digits.y_train + 0.5, digits.y_train - 0.5], axis=1)
    with pytest.raises(ValueError, match="points_per_class must be one number for real-valued targets"):
        made(digits, points, y=targets)


def test_numbers_too_large_for_memory_are_named(digits: kd.Dataset) -> None:
    with pytest.raises(MemoryError, match=r"lower points_per_class = \(1000000000000000000000, 1,"):
        made(digits, [10**21, *[1] * 9])


def test_words_are_one_number_or_several() -> None:
    (declared,) = (each for each in declared_options(DistillOptions) if each.name == "points_per_class")
    assert [read_value("--ipc", declared, text) for text in ("3", "1, 1,5")] == [3, (1, 1, 5)]
    assert read_value("ipc", declared, [1, 1, 5]) == (1, 1, 5)
    for wrong in ("1,", "1,x"):
        with pytest.raises(ValueError, match="--ipc must be integers with commas between"):
            read_value("--ipc", declared, wrong)
    with pytest.raises(TypeError, match="only Python takes a mapping"):
        read_value("ipc", declared, {"cat": 3})


@pytest.mark.parametrize("points", [COUNTS, dict(enumerate(COUNTS))])
def test_the_estimator_names_the_class_of_every_point(digits: kd.Dataset, points: Any) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.base import clone

    from krrdistill.interop.sklearn import RidgeDistiller

    X = digits.x_train.reshape(len(digits.x_train), -1)
    fitted = clone(RidgeDistiller(kernel="FCNN", points_per_class=points)).fit(X, digits.y_train)
    added = RidgeDistiller(points_per_class=points, lam=1.0).partial_fit(X, digits.y_train, classes=np.arange(10))
    for model in (fitted, added):
        assert model.y_distilled_.tolist() == ROUNDS
        assert model.Y_distilled_.argmax(axis=1).tolist() == ROUNDS
        tolerances.assert_promised(model.certificate_.weight_relative_error, "float64")


# Commands and pages


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("typer", "matplotlib", "PIL"):
        pytest.importorskip(name, reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    folder = tmp_path_factory.mktemp("unequal") / "run"
    words = ["--ipc", ",".join(map(str, COUNTS)), "--init", "real", "--include-weights", "--out", str(folder)]
    assert main(["distill", "--dataset", "digits", "--kernel", "FCNN", *words]) == 0
    return folder


def test_command_records_the_numbers_and_verifies(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from krrdistill.apps.cli import main

    report = json.loads((run / "report.json").read_text())
    assert (report["ipc"], report["m"]) == (COUNTS, 28)
    assert main(["verify", str(run)]) == 0
    capsys.readouterr()
    words = shlex.split(report["command"])[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words) == 0
    assert "(1 to 12 per class, " in capsys.readouterr().out
    first, second = (kd.DistilledDataset.load(folder / "distilled.npz") for folder in (run, tmp_path / "again"))
    assert first.X.tobytes() == second.X.tobytes()
    assert main(["compare", str(run), str(tmp_path / "again")]) == 0
    assert main(["distill", "--dataset", "digits", "--ipc", "1,2"]) == 2
    assert "points_per_class has 2 numbers for 10 classes" in capsys.readouterr().err


def test_configuration_file_takes_a_list(tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli.config import resolve
    from krrdistill.apps.cli.settings import DistillSettings

    file = tmp_path / "run.yaml"
    for text in ("distill:\n  IPC: [1, 1, 5]\n", "ipc: 1,1,5\n"):
        file.write_text(text)
        settings = resolve(DistillSettings, {}, file)[0]
        assert settings.options.points_per_class == (1, 1, 5)
        assert settings.folder == Path("runs/digits_identity_ipc1-1-5_noise_seed0")
    many = resolve(DistillSettings, {"points_per_class": ",".join(["12"] * 99 + ["3"])})[0]
    assert many.folder == Path("runs/digits_identity_ipc3-to-12_noise_seed0")


def test_page_shows_every_class_with_its_own_number_of_pictures(run: Path) -> None:
    from krrdistill.apps.report.page import write_page
    from krrdistill.apps.report.pictures import gallery
    from krrdistill.apps.report.run_folder import read_run
    from krrdistill.apps.report.sheet import distilled_sheet

    page = write_page(run).read_text(encoding="utf-8")
    assert "digits, FCNN, 1 to 12 per class" in page
    assert "1, 1, 5, 1, 2, 1, 1, 12, 1, 3" in page
    assert 'alt="distilled: 7, 12 samples"' in page
    assert 'alt="distilled: 0"' in page
    found = read_run(run)
    limits = found.record.value_range
    shown = gallery(found.images, NAMES, start=None, value_range=limits, points_per_class=COUNTS)
    assert [picture.copies for picture in shown.classes] == COUNTS
    assert {picture.width for picture in shown.classes} == {10 * 9 - 1}, "one scale for all"
    assert [picture.height for picture in shown.classes] == [17 if count > 10 else 8 for count in COUNTS]
    sheet = distilled_sheet(found.images, NAMES, value_range=limits, points_per_class=COUNTS)
    assert len(sheet.boxes) == sum(min(count, 4) for count in COUNTS)
    columns = Counter(box[0] for box in sheet.boxes)
    assert [columns[x] for x in sorted(columns)] == [min(count, 4) for count in COUNTS]
    assert "first 4 of 1 to 12 samples per class" in sheet.caption


def test_pictures_of_unequal_classes_keep_within_their_budget() -> None:
    pytest.importorskip("PIL", reason="the cli extra is not installed")
    from krrdistill.apps.report.pictures import gallery

    images = np.random.default_rng(0).uniform(0, 255, (13, 8, 8)).astype(np.float32)
    options: dict[str, Any] = {"start": None, "value_range": (0.0, 255.0), "points_per_class": (1, 10, 2)}
    shown = gallery(images, ["a", "b", "c"], budget=3 * 1000 + 7 * 64, **options)
    assert [picture.copies for picture in shown.classes] == [1, 4, 2]
    assert "the first 4 of 1 to 10 samples per class are shown; distilled.npz holds all" in shown.notes
    for count in (12, 14):
        with pytest.raises(ValueError, match="is not 1 to 10 samples for each of 3 classes"):
            gallery(images[:1].repeat(count, axis=0), ["a", "b", "c"], **options)


@pytest.mark.parametrize("change", [{"ipc": [1] * 10}, {"ipc": [*COUNTS, 1]}, {"ipc": 3}, {"ipc": [29, -1, *[0] * 8]}])
def test_report_whose_numbers_are_not_those_of_the_file_is_refused(
    run: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    from krrdistill.apps.report.run_folder import read_run
    from krrdistill.errors import DataError

    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    report = json.loads((run / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, **change}))
    with pytest.raises(DataError, match="m = 28, k = 10, ipc = "):
        read_run(tmp_path)


def test_kip_takes_unequal_points_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    for name in ("typer", "matplotlib", "PIL"):
        pytest.importorskip(name, reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    words = ["kip", "--dataset", "digits", "--ipc", ",".join(map(str, COUNTS)), "--out", str(tmp_path), "--iterations"]
    assert main([*words, "5"]) == 0
    assert main([*words, "8"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["ipc"], report["m"], report["resumed_from"]) == (COUNTS, 28, 5)
    start = kd.load_dataset("digits").y_train[_start_rows(COUNTS)]
    assert start.tolist() == ROUNDS


def _start_rows(points: list[int]) -> Any:
    from krrdistill.apps.kip import KipOptions
    from krrdistill.apps.kip.problem import KipProblem

    data = kd.load_dataset("digits")
    options = KipOptions(points_per_class=points)
    problem = KipProblem.of(data.x_train, data.y_train, kd.Identity(64), None, options)
    assert problem.shape == (28, 64)
    return problem.start_rows


def test_private_release_takes_unequal_points(digits: kd.Dataset, tmp_path: Path) -> None:
    from krrdistill.apps.privacy import private_release, theorem_for_data
    from krrdistill.apps.privacy.budget import PrivacyBudget, ReleaseOptions

    budget = PrivacyBudget(50.0, 1e-5)
    options = ReleaseOptions(mechanism="output", budget=budget, points_per_class=COUNTS)
    release = private_release(digits, options=options, out=tmp_path)
    assert release.distilled.meta["options"]["points_per_class"] == COUNTS
    assert release.distilled.Y.argmax(axis=1).tolist() == ROUNDS
    tolerances.assert_promised(release.certificate.weight_relative_error, "float64")
    report = theorem_for_data(digits, kd.Identity(64), budget, lambda_=0.0, points_per_class=dict(enumerate(COUNTS)))
    assert report["ipc"] == tuple(COUNTS)
    freedom = next(found for found in report["theorem"]["conditions"] if found["name"] == "freedom")
    assert not freedom["holds"], "the only point of a class has no room for noise"
