"""The page of a set that was distilled in Python, and what a set says that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the cli extra is not installed")
pytest.importorskip("PIL", reason="the cli extra is not installed")
pytest.importorskip("jinja2", reason="the cli extra is not installed")

import krrdistill as kd
from krrdistill.apps.folder import OutputError, locked
from krrdistill.apps.report.run_folder import read_run
from krrdistill.errors import DataError
from pages import check_page

FILES = ["distilled.npz", "distilled.png", "figure_data.npz", "lambda_path.png", "report.html", "report.json"]


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


def distilled(digits: kd.Dataset, **options: Any) -> kd.Distillation:
    phi = kd.make_map("identity", digits, kd.standardize(digits))
    return kd.distill(digits.x_train, digits.y_train, phi, **options)


def test_report_of_a_result_is_that_of_a_run(digits: kd.Dataset, tmp_path: Path) -> None:
    result = distilled(digits, init="real")
    page = kd.write_report(result, tmp_path / "run", data=digits)
    assert page == tmp_path / "run" / "report.html"
    assert sorted(path.name for path in page.parent.iterdir()) == FILES
    run = read_run(page.parent)
    assert run.record.dataset == "digits"
    assert run.record.exact
    assert run.record.asked == {}
    assert run.record.original.test_accuracy == result.model.score(digits.x_test, digits.y_test)
    np.testing.assert_array_equal(run.start_images, digits.x_train[result.start_rows])
    words = check_page(page.read_bytes()).words
    assert "digits, identity, 1 per class" in words
    assert "predictions differ" in words


def test_report_without_data_says_their_number(digits: kd.Dataset, tmp_path: Path) -> None:
    result = distilled(digits)
    kd.write_report(result, tmp_path, test=(digits.x_test, digits.y_test))
    n = result.model.n_train
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dataset"] == f"{n} samples of 8 x 8 numbers, 10 classes"
    assert report["n_test"] == len(digits.y_test)
    assert kd.DistilledDataset.load(tmp_path / "distilled.npz").made_from == report["dataset"]
    assert "value_range" in report
    assert "None" not in check_page((tmp_path / "report.html").read_bytes()).words


def test_folder_of_a_run_is_replaced_only_when_asked(digits: kd.Dataset, tmp_path: Path) -> None:
    result = distilled(digits)
    kd.write_report(result, tmp_path, name="first")
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(DataError, match=r"holds a run: name another folder, or pass overwrite=True"):
        kd.write_report(result, tmp_path, name="second")
    assert (tmp_path / "report.json").read_bytes() == before
    kd.write_report(result, tmp_path, name="second", overwrite=True)
    assert json.loads((tmp_path / "report.json").read_text())["dataset"] == "second"


def test_report_of_points_of_a_model_is_that_of_their_distillation(digits: kd.Dataset, tmp_path: Path) -> None:
    model = distilled(digits).model
    points = kd.distill_model(model, points_per_class=2)
    page = kd.write_report(points, tmp_path / "points", model=model, data=digits)
    together = kd.write_report(kd.Distillation(points, model, None), tmp_path / "together", data=digits)
    assert page.with_name("distilled.png").read_bytes() == together.with_name("distilled.png").read_bytes()
    record = read_run(page.parent).record
    assert (record.exact, record.m, record.n_train) == (True, 20, model.n_train)


def test_report_of_what_is_no_result_is_refused_with_what_to_call(digits: kd.Dataset, tmp_path: Path) -> None:
    result = distilled(digits)
    needs = r"needs the model that was given to it: write_report\(points, folder, model=model\)"
    with pytest.raises(TypeError, match=needs):
        kd.write_report(result.distilled, tmp_path)
    with pytest.raises(TypeError, match=needs + ", got Distillation"):
        kd.write_report(result.distilled, tmp_path, model=result)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model belongs to a result of distill_model; that of distill has its own"):
        kd.write_report(result, tmp_path, model=result.model)
    with pytest.raises(TypeError, match="result must be what distill or distill_model returns, got RidgeModel"):
        kd.write_report(result.model, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"folder is empty; '\.' is the current one"):
        kd.write_report(result, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"class_names": ["a", "b"]}, DataError, "class_names must be 10 names"),
        ({"class_names": "abcdefghij"}, DataError, "class_names must be 10 names"),
        ({"class_names": [None] * 10}, DataError, "class_names must be 10 names"),
        ({"name": 3}, TypeError, "name must be a str, got int"),
        ({"test": (np.empty((0, 8, 8)), np.empty(0, int))}, DataError, "test has no samples"),
        ({"data": np.zeros((5, 8, 8))}, DataError, "data has 5 samples, and the points started from number"),
        ({"data": np.zeros((2000, 4, 16))}, DataError, "data: samples have shape"),
    ],
)
def test_report_of_what_does_not_fit_is_refused_and_the_folder_stays_as_it_was(
    digits: kd.Dataset, tmp_path: Path, given: dict[str, Any], kind: type[Exception], said: str
) -> None:
    result = distilled(digits, init="real")
    kd.write_report(result, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(kind, match=said):
        kd.write_report(result, tmp_path, overwrite=True, **given)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_that_fails_leaves_no_folder(digits: kd.Dataset, tmp_path: Path) -> None:
    test = (digits.x_test[:, :4], digits.y_test)
    with pytest.raises(DataError):
        kd.write_report(distilled(digits), tmp_path / "a" / "b", test=test)
    assert list(tmp_path.iterdir()) == []


def test_report_into_a_folder_that_another_run_writes_is_refused(digits: kd.Dataset, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OutputError, match=r"is writing to .*: wait until it ends"):
        kd.write_report(distilled(digits), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_file_says_what_it_was_made_from(
    digits: kd.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    result = distilled(digits, name="digits")
    assert result.distilled.made_from == "digits"
    result.distilled.save(tmp_path / "named.npz")
    assert main(["verify", str(tmp_path / "named.npz")]) == 0
    capsys.readouterr()
    nameless = distilled(digits).distilled
    nameless.save(tmp_path / "nameless.npz")
    assert main(["verify", str(tmp_path / "nameless.npz")]) == 2
    assert f"made from {nameless.made_from}, data without a name: give them with --dataset" in capsys.readouterr().err
    summed = nameless.with_meta(split=False)
    summed.save(tmp_path / "summed.npz")
    assert main(["verify", str(tmp_path / "summed.npz")]) == 2
    said = f"was made from statistics, of {summed.made_from}: give them with --statistics"
    assert said in capsys.readouterr().err


def test_results_print_in_one_short_line(digits: kd.Dataset) -> None:
    phi = kd.make_map("identity", digits, kd.standardize(digits))
    result = kd.distill(digits.x_train, digits.y_train, phi)
    statistics = kd.RidgeStatistics(phi, classes=10)
    held = kd.HeldOutRows(digits.x_train, digits.y_train)
    moments = kd.Moments.of(digits.x_train)
    kip = kd.kip_distill(digits.x_train, digits.y_train, phi, iterations=2)
    counts = kd.CorrectCounts(np.arange(50), 100)
    shown = (result, result.distilled, result.model, result.model.path, statistics, held, moments, kip, counts, digits)
    for value in (*shown, phi, phi.preprocessing):
        text = repr(value)
        assert "\n" not in text
        assert len(text) < 420, text
