"""Runs in experiment trackers: options, the course of KIP, the outcome, pictures."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tolerances import assert_exact

pytest.importorskip("typer", reason="the cli extra is not installed")

from krrdistill.apps.cli import main
from krrdistill.apps.tracking import TRACKERS

pytestmark = pytest.mark.usefixtures("undrawn_pages")

KIP = ["kip", "--backend", "array", "--iterations", "6", "--evaluate-every", "3", "--out", "o"]
DISTILL = ["distill", "--backend", "array", "--lambdas", "1,10", "--ipc", "2", "--out", "o"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's files in place of its data base, which takes long to make."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def report() -> Any:
    return json.loads(Path("o/report.json").read_text())


def tensorboard_values() -> dict[str, list[tuple[int, Any]]]:
    """Every value in the event files: tag -> (step, value); records are length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, Any]]] = {}
    for file in Path("o/tensorboard").rglob("events*"):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_tensorboard_keeps_the_course_of_kip_its_options_and_outcome() -> None:
    pytest.importorskip("tensorboardX", reason="the tensorboard extra is not installed")
    assert main([*KIP, "--log-to", "tensorboard"]) == 0
    values, record = tensorboard_values(), report()
    assert [step for step, _ in values["kip_train_loss"]] == [0, 3, 6]
    (best,) = [value.simple_value for step, value in values["kip_val_accuracy"] if step == record["last"]["iteration"]]
    assert best == pytest.approx(record["last"]["val_accuracy"], rel=1e-6)
    assert [value.simple_value for _, value in values["distilled_test_accuracy"]] == [
        pytest.approx(record["distilled"]["test_accuracy"], rel=1e-6)
    ]
    (_, start), *_ = values["_hparams_/session_start_info"]
    text = start.metadata.plugin_data.content
    assert all(word in text for word in (b"iterations", b"evaluate_every", b"dataset", b"digits"))
    assert values["distilled"][0][1].image.height > 0


def test_mlflow_keeps_the_course_of_kip_its_options_and_outcome(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    keep_in(folder / "kept", monkeypatch)
    assert main([*KIP, "--log-to", "mlflow"]) == 0
    from mlflow import MlflowClient

    client, record = MlflowClient((folder / "kept").as_uri()), report()
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.params["iterations"] == "6"
    assert [each.step for each in client.get_metric_history(run.info.run_id, "kip_train_loss")] == [0, 3, 6]
    assert_exact(run.data.metrics["distilled_test_accuracy"], record["distilled"]["test_accuracy"])
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"distilled.png"}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_distill_logs_what_it_reached(tracker: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(TRACKERS[tracker], reason=f"the {tracker} extra is not installed")
    keep_in(folder / "kept", monkeypatch)
    assert main([*DISTILL, "--log-to", tracker]) == 0
    assert f"--log-to {tracker}" in report()["command"]
    if tracker == "tensorboard":
        values = tensorboard_values()
        assert "weight_relative_error" in values
        assert {"distilled", "lambda_path"} <= set(values)
    else:
        assert list((folder / "kept").rglob("metrics/weight_relative_error"))
        assert list((folder / "kept").rglob("lambda_path.png"))


@pytest.mark.parametrize("command", ["distill", "kip"])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_missing_library_is_said_before_any_work(
    tracker: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    assert main([command, "--log-to", tracker, "--out", "o"]) == 1
    assert capsys.readouterr().err == (
        f'krrdistill: error: --log-to {tracker} needs {TRACKERS[tracker]}: pip install "krrdistill[{tracker}]"\n'
    )
    assert not Path("o").exists()


@pytest.mark.filterwarnings("always::krrdistill.errors.ResultWarning")
def test_mlflow_that_takes_nothing_is_said_before_the_run_and_does_not_spoil_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    keep_in(folder / "kept", monkeypatch)

    def refused(*given: Any, **named: Any) -> None:
        raise mlflow.MlflowException("no space")

    monkeypatch.setattr(mlflow, "log_metrics", refused)
    assert main([*DISTILL, "--log-to", "mlflow"]) == 0
    assert "warning: the run is complete, but MLflow did not take its outcome: no space" in capsys.readouterr().err
    assert report()["certificate"]["prediction_agreement"] == 1.0
    monkeypatch.setattr(mlflow, "start_run", refused)
    assert main([*DISTILL[:-1], "p", "--log-to", "mlflow"]) == 1
    assert "error: --log-to mlflow: no space" in capsys.readouterr().err


def test_unknown_tracker_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kip", "--log-to", "paper"]) == 2
    assert "--log-to must be one of tensorboard, mlflow" in capsys.readouterr().err
