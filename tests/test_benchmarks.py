"""The scripts in benchmarks/ that write pages of docs/ run and write what they say, on the bundled digits."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from conftest import framework

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS, DOCS = ROOT / "benchmarks", ROOT / "docs" / "measured"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls a script's main with the words of a command line."""
    framework("matplotlib")
    framework("sklearn")  # has the digits
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def main(name: str, *words: str | Path) -> Any:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        return script(name).main()

    return main


def script(name: str) -> ModuleType:
    """One of benchmarks/*.py."""
    return importlib.import_module(name)


def test_engines_are_measured_on_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    framework("pytest_benchmark")
    framework("psutil")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    assert script("harness").BACKENDS == kd.backends.BACKENDS


def headings(page: Path) -> list[str]:
    """The titles of a page and the heads of its tables."""
    lines = page.read_text(encoding="utf-8").splitlines()
    heads = [line for line, rule in pairwise(lines) if rule.startswith("|---")]
    return [line for line in lines if line.startswith("# ")] + sorted(set(heads))


def test_exactness_writes_the_page_of_cells_that_meet_their_targets(run: Any, tmp_path: Path) -> None:
    words = (
        "--datasets",
        "digits",
        "--kernels",
        "FCNN",
        "--ipcs",
        "1",
        "--seeds",
        "0",
        "--out",
        tmp_path,
        "--results",
        tmp_path,
    )
    assert run("exactness", *words) == 0
    content = json.loads((tmp_path / "exactness.json").read_text(encoding="utf-8"))
    assert len(content["cells"]) == 8
    committed = json.loads((SCRIPTS / "results" / "exactness.json").read_text(encoding="utf-8"))
    assert content["cells"][0].keys() == committed["cells"][0].keys()
    assert headings(tmp_path / "exactness.md") == headings(DOCS / "exactness.md")


def test_realism_puts_its_rows_into_the_page_and_keeps_those_of_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krrdistill.apps.report.rows.COLUMNS", 2)  # drawing takes most of the time
    page, figures = tmp_path / "realism.md", tmp_path / "figures"
    figures.mkdir()
    shutil.copy(DOCS / "realism.md", page)
    shutil.copy(DOCS / "figures" / "realism.json", figures)
    committed = json.loads((DOCS / "figures" / "realism.json").read_text(encoding="utf-8"))["cells"]
    words = ("--datasets", "digits", "--kernels", "identity", "--ipc", "1", "--out", tmp_path, "--page", page)
    assert run("realism", *words) == 0
    assert (figures / "realism_digits_identity.png").is_file()
    found = json.loads((figures / "realism.json").read_text(encoding="utf-8"))["cells"]
    assert found[3:] == committed
    assert found[0].keys() == committed[0].keys()
    assert all(row["mse"] > found[2]["mse"] for row in found[:2])  # the nearest set is the nearest
    text = page.read_text(encoding="utf-8")
    assert text.count("| digits | identity | 1 |") == 3
    assert text.count("| mnist | FCNN | 10 | nearest exact set |") == 1


def test_storage_writes_the_page_from_result_files(run: Any, tmp_path: Path) -> None:
    words = ("--dataset", "digits", "--kernels", "identity", "--ipcs", "1", "--results", tmp_path, "--docs", tmp_path)
    run("storage", *words)
    assert headings(tmp_path / "storage.md") == headings(DOCS / "storage.md")


def test_privacy_writes_the_page(run: Any, tmp_path: Path) -> None:
    words = ("--dataset", "digits", "--draws", "1", "--results", tmp_path, "--docs", tmp_path)
    run("privacy", "curve", *words)
    run("privacy", "audit", *words)
    run("privacy", "attack", "--trials", "40", "--float-trials", "100000", "--results", tmp_path, "--docs", tmp_path)
    before, *after = json.loads((tmp_path / "privacy-attack.json").read_text(encoding="utf-8"))["attacks"]
    assert before["delta"]["bound"] > 1e-3
    assert [(row["delta"]["bound"], row["epsilon"]["bound"] < 1.0) for row in after] == [(0.0, True)] * 3
    assert headings(tmp_path / "privacy.md") == headings(DOCS / "privacy.md")
    assert "digits, identity" in (tmp_path / "privacy.md").read_text(encoding="utf-8")


def test_maps_measures_a_row_and_writes_the_page(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = script("maps")
    rows = [maps.Row("digits", "map", "FCNN", True), maps.Row("digits", "user", "user", True, {"init": "real"})]
    monkeypatch.setattr(maps, "rows", lambda: rows)
    assert run("maps", "--out", tmp_path / "new", "--results", tmp_path / "new") == 0
    assert headings(tmp_path / "new" / "maps.md") == headings(DOCS / "maps.md")


def test_labels_only_writes_the_page(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels_only = script("labels_only")
    monkeypatch.setattr(labels_only, "WIDTHS", (60,))
    monkeypatch.setattr(kd, "load_dataset", lambda name, data_dir, load=kd.load_dataset: load("digits"))
    run("labels_only", "--out", tmp_path, "--results", tmp_path)
    assert headings(tmp_path / "labels-only.md") == headings(DOCS / "labels-only.md")


def test_selection_takes_model_and_points_from_files(run: Any, tmp_path: Path) -> None:
    selection, data = script("selection"), kd.load_dataset("digits")
    one_call = selection.prepare(data, "identity", tmp_path)
    found = {"dataset": "digits", "kernel": "identity", **selection.from_files(data, "identity", tmp_path)}
    assert found["same_bits_as_one_call"]
    assert found["ways"]["held-out rows"]["lambda"] == one_call["lambda"]
    (tmp_path / "selection.md").write_text(selection.page([found], script("machine").machine_facts()), encoding="utf-8")
    assert headings(tmp_path / "selection.md") == headings(DOCS / "selection.md")


def test_scaling_runs_every_point(run: Any) -> None:
    scaling, problem = script("scaling"), script("problem")
    rows = scaling.run(problem.load_problem("digits", train_rows=600), most_rows=600, repeats=1)
    assert {row["axis"] for row in rows} == {"n", "p", "k", "ipc", "threads"}
    assert scaling.fits(rows)["threads"] >= 1.0


def test_a_process_that_takes_more_than_it_may_is_ended(run: Any) -> None:
    memory = script("memory")
    patient = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(memory.NotDoneError, match="more than 0 s"):
        memory.run_watched(patient, 0.01, most_seconds=0.1)
    hungry = [sys.executable, "-c", "import time; x = bytearray(b'1') * 200_000_000; time.sleep(60)"]
    with pytest.raises(memory.NotDoneError, match="more than 0 GB, after"):
        memory.run_watched(hungry, 0.01, most_bytes=1e8)


@pytest.mark.parametrize("contestant", ["ours", "numpy", "sklearn", "himalaya"])
def test_contestants_reach_the_same_accuracy(run: Any, contestant: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("contestants", contestant)
    found = json.loads(capsys.readouterr().out)
    assert found["test_accuracy"] > 0.9
    if contestant in ("ours", "numpy"):  # the others distil nothing
        assert abs(found["distilled_test_accuracy"] - found["test_accuracy"]) <= tolerances.ACCURACY_NOISE


def test_pages_of_stored_results_are_those_that_are_committed(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plot_stages", "plot_scaling"):  # slow; memory's is drawn
        monkeypatch.setattr(script("plots"), name, lambda result, path: None)
    monkeypatch.setattr(script("privacy"), "plot", lambda result, figures: None)
    run("report", "--docs", tmp_path)
    run("tables", "--docs", tmp_path)
    run("storage", "--docs", tmp_path)
    run("privacy", "page", "--docs", tmp_path)
    page = tmp_path / "realism.md"
    shutil.copy(DOCS / "realism.md", page)
    run("realism", "--page-only", "--page", page)
    assert page.read_text(encoding="utf-8") == (DOCS / "realism.md").read_text(encoding="utf-8")
    for name in ("benchmarks", "tables", "kip", "storage", "privacy"):
        assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == (DOCS / f"{name}.md").read_text(
            encoding="utf-8"
        )


@pytest.mark.parametrize("name", ["large", "travel"])
def test_page_of_stored_results_is_the_one_that_is_committed(run: Any, name: str) -> None:
    stored = json.loads((SCRIPTS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert script(name).page(stored) == (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_tables_name_the_machine_of_every_row() -> None:
    measured_on = script("machine").measured_on
    rows = [{"machine": "A", "p": 1}, {"machine": "A", "p": 2}]
    assert measured_on(rows, lambda row: row["p"]) == "Measured on: A."
    several = measured_on([*rows, {"machine": "B", "p": 3}], lambda row: row["p"])
    assert several.splitlines()[-2:] == ["* 1, 2: A.", "* 3: B."]


def test_large_counts_its_rows_and_finds_exact_points(run: Any, tmp_path: Path) -> None:
    large = script("large")
    large.write_shards(tmp_path, 20_000, 512)
    found = large.rows_child(tmp_path, 20_000)
    assert found["rows"] == 20_000
    assert 0 < found["held_out"] < 60
    assert found["weight_relative_error"] <= tolerances.EXACT_WEIGHTS


@pytest.mark.parametrize("way", ["one call", "DataLoader", "8 shards"])
def test_ways_into_statistics_are_equal(run: Any, tmp_path: Path, way: str) -> None:
    framework("torch")
    travel = script("travel")
    travel.prepare(tmp_path, "digits", None, 0)
    source = travel.Source(tmp_path, "digits")
    X, y = source.arrays()
    expected = source.empty("float64").update(np.array(X), np.array(y))
    found, seconds = travel.WAYS[way](source, "float64")
    assert seconds > 0.0
    assert found.n == expected.n
    largest = float(np.abs(expected.gram).max())
    tolerances.assert_reduction(found.gram, expected.gram, np.float64, found.n, np.full_like(found.gram, largest))


@pytest.fixture
def gpu_session(run: Any, cuda_emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session of benchmarks/gpu on the emulated device, which is gone after the test."""
    framework("torch")
    monkeypatch.setitem(sys.modules, "krrdistill._cuda", cuda_emulated)
    session = script("gpu.session")
    return session.Session(session.SMALL, emulated=True)


# Of benchmarks/gpu: what is measured in the process of the tests, and by its command.
GPU_PARTS = ("ceilings", "stages", "end_to_end", "breakdown", "embeddings", "wide")
GPU_COMMAND = ("facts", "contestants", "kip", "parity", "sanitizer")


@pytest.mark.parametrize("part", GPU_PARTS)
def test_gpu_part_measures_everything_on_the_emulated_device(
    gpu_session: Any, part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script("gpu.end_to_end"), "KERNELS", ("FCNN",))
    script(f"gpu.{part}").measure(gpu_session)
    rows = gpu_session.results["rows"]
    assert [row for row in rows if "failed" in row] == []
    assert {row["id"] for row in rows if "id" in row}
    assert "FAILED" not in capsys.readouterr().out
    if part == "ceilings":
        assert script("gpu.floors").Rates.of(rows) is not None
    if part == "end_to_end":
        assert max(row["weight_errors"][0] for row in rows if "weight_errors" in row) <= tolerances.EXACT_WEIGHTS
        assert script("gpu.report")._compared(gpu_session.results["real"]) == ["FCNN: equal on GPU and CPU."]


def test_gpu_contestants_find_the_model_of_the_package(gpu_session: Any) -> None:
    contestants = script("gpu.contestants")
    contestants._models(gpu_session, "FCNN", script("gpu.problem_data").Images.draw(gpu_session.sizes))
    rows = {row["name"]: row for row in gpu_session.results["rows"]}
    assert rows["krrdistill"]["difference"] <= tolerances.EXACT_WEIGHTS
    assert rows["PyTorch"]["difference"] <= tolerances.solve(1.0, np.float32)  # products of both in float32


def test_gpu_published_algorithm_is_given_files_that_it_loads(gpu_session: Any, tmp_path: Path) -> None:
    contestants, sizes = script("gpu.contestants"), script("gpu.session").Sizes(n=3000)
    images = script("gpu.problem_data").Images.draw(sizes)
    name, folder = contestants._files(script("gpu.session").Session(sizes), images, tmp_path)
    data = kd.load_dataset(name, data_dir=folder)
    assert np.array_equal(data.x_train.reshape(3000, -1), images.X)


def test_gpu_part_over_its_time_limit_is_ended_and_says_so(run: Any, tmp_path: Path) -> None:
    with (tmp_path / "run.log").open("w") as log:
        found = script("gpu.run").measured("facts", ["--emulated", "--small"], 0.1, log)
    assert found["outcome"] == "over its time limit of 0 s"
    assert found["rows"] == []


def test_gpu_session_keeps_each_measurement_and_goes_on_after_a_failure(gpu_session: Any, tmp_path: Path) -> None:
    gpu_session.file = tmp_path / "part.json"
    assert gpu_session.timed("one", lambda: 1) == 1
    assert gpu_session.timed("two", lambda: {}["absent"]) is None
    rows = json.loads(gpu_session.file.read_text(encoding="utf-8"))["rows"]
    assert [len(row["seconds"]) for row in rows] == [1, 0]
    assert rows[1]["failed"] == "KeyError: 'absent'"


def test_gpu_command_measures_all_other_parts_and_its_page_shows_them(
    run: Any, tmp_path: Path, cuda_emulated: Any
) -> None:
    framework("torch")
    out = tmp_path / "results" / "device"
    command = [str(SCRIPTS / "gpu" / "run.sh"), *GPU_COMMAND, "--emulated", "--small", "--out", str(out)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*GPU_COMMAND, *GPU_PARTS} == set(script("gpu.run").PARTS)
    assert sorted(path.name for path in out.iterdir()) == ["parity.log", "results.json", "run.log", "sanitizer.log"]
    content = (out / "results.json").read_text(encoding="utf-8")
    assert str(ROOT) not in content
    parts = json.loads(content)["parts"]
    assert [part["outcome"] for part in parts.values()] == ["done"] * len(GPU_COMMAND)
    failed = [row["name"] for part in parts.values() for row in part["rows"] if "failed" in row]
    assert failed == ["CuPy", "CuPy"]  # which the emulation does without
    assert parts["parity"]["failed"] == []
    assert parts["parity"]["passed"] > 0

    assert run("gpu.report", "--results", tmp_path / "results", "--docs", tmp_path) is None
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for shown in ("no GPU (emulated)", "| gram | 1 |", "| FCNN | PyTorch |", "passed, 0 failed"):
        assert shown in text
    assert "Not run." in done.stdout


def test_gpu_page_of_stored_results_is_the_one_that_is_committed(run: Any, tmp_path: Path) -> None:
    run("gpu.report", "--docs", tmp_path)
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8") == (DOCS / "gpu.md").read_text(encoding="utf-8")


def gpu_result(date: str, device: str = "GPU A", **parts: Any) -> dict[str, Any]:
    """A run on hardware with one whole run in it, and other parts."""
    cell = {"id": "end_to_end", "kernel": "FCNN", "per_class": 1, "seconds": [0.2], "stages": []}
    sizes = {"n": 50_000, "d": 3072, "k": 100, "tile": 8192, "emulated": False}
    found = {"facts": {"device": device, "rows": []}, "end_to_end": {"rows": [cell]}, **parts}
    return {"date": date, "label": "", "sizes": sizes, "parts": found}


def gpu_predictions(*dates: str, milliseconds: float = 10.0) -> list[Any]:
    """A set of each date, of 10, 20, ... ms on GPU A; on GPU B its bytes take half of the time."""
    return [
        script("gpu.predicted").Prediction.of(
            {
                "date": date,
                "about": f"The design of {date}.",
                "devices": {"GPU A": {}, "GPU B": {"memory": 0.5}},
                "steps": {
                    "read": ["rows read", number * milliseconds / 2, "memory"],
                    "add": ["rows added", number * milliseconds / 2, "arithmetic"],
                },
                "stages": {"FCNN/path": ["read", "add"]},
                "end_to_end": {"FCNN/1": ["FCNN/path"]},
            }
        )
        for number, date in enumerate(dates, 1)
    ]


def test_gpu_prediction_adds_the_steps_of_a_stage_and_of_stages_in_it(run: Any) -> None:
    (found,) = gpu_predictions("2026-01-01")
    assert found.seconds("FCNN/path", "GPU A") == pytest.approx(0.01)
    assert found.seconds("whole/FCNN/1", "GPU A") == pytest.approx(0.01)
    assert found.seconds("whole/FCNN/1", "GPU B") == pytest.approx(0.0075)
    assert found.seconds("whole/FCNN/1", "GPU C") is None
    assert found.seconds("FCNN/fit", "GPU A") is None


def test_gpu_page_shows_the_newest_prediction_before_a_run_and_none_after_it(run: Any) -> None:
    report = script("gpu.report")
    sets = gpu_predictions("2026-01-01", "2026-01-02T08:00", "2026-01-02T10:00")

    def page(date: str) -> str:
        runs = {"a": {"1": gpu_result(date)}}
        return str(report.page(runs, report.Story({}, sets, {}, [])))

    assert "| FCNN | 1 | – | 200 | 1 | 20.0 |" in page("2026-01-02T09:00")
    assert "Predicted on 2026-01-02. The design of 2026-01-02T08:00." in page("2026-01-02T09:00")
    assert "| FCNN | 1 | – | 200 | 1 | 10.0 |" in page("2026-01-01")
    assert "| FCNN | 1 | – | 200 | 1 | – |" in page("2025-12-31")
    assert "| FCNN | 1 | – | 200 | 1 | 30.0 |" in page("2026-01-03")


def test_gpu_goals_of_an_h100_hold_for_an_h200_and_for_no_other_device(run: Any) -> None:
    report = script("gpu.report")
    for device, shown in (("NVIDIA H100 80GB HBM3", True), ("NVIDIA H200", True), ("NVIDIA A100", False)):
        text = report.page({"a": {"1": gpu_result("2026-01-01", device)}}, report.Story({}, [], {}, []))
        assert ("≤ 250: met" in text) == shown


def test_gpu_page_lists_predictions_of_devices_that_were_not_measured_since(run: Any) -> None:
    report, sets = script("gpu.report"), gpu_predictions("2026-01-01", "2026-01-03")

    def pending(*runs: Any) -> str:
        named = {str(number): run for number, run in enumerate(runs)}
        text = report.page({"a": named}, report.Story({}, sets, {}, []))
        return str(text.partition("not measured\n")[2])

    assert "| whole/FCNN/1 | 200 | 20.0 | 15.0 | FCNN/path |" in pending(gpu_result("2026-01-02"))
    assert "| read | rows read | 10 | memory |" in pending(gpu_result("2026-01-02"))
    later = gpu_result("2026-01-04")
    assert "| whole/FCNN/1 | 200 | 15.0 | FCNN/path |" in pending(later)
    assert pending(later, gpu_result("2026-01-05", "GPU B")) == ""


def test_gpu_predictions_that_are_stored_have_all_their_steps(run: Any) -> None:
    oldest, *others = script("gpu.predicted").read()
    assert oldest.seconds("FCNN/path", "NVIDIA H100 80GB HBM3") == 0.022
    assert others
    for found in others:
        used = {name for names in found.stages.values() for name in names}
        assert used >= found.steps.keys()
        assert {bound for _, _, bound in found.steps.values()} <= set(script("gpu.predicted").BOUNDS)
        for key in found.stages:
            first, *rest = (found.seconds(key, device) for device in found.devices)
            assert all(0.0 < seconds <= first for seconds in rest)


def test_gpu_page_says_which_code_was_measured_and_what_changed_since(run: Any) -> None:
    report = script("gpu.report")
    changed = [{"date": f"2026-01-0{day}T08:00", "what": f"Change {day}."} for day in (1, 2, 3)]
    runs = {"a": {"1": gpu_result("2026-01-01"), "2": gpu_result("2026-01-02T12:00")}}

    def page(commits: dict[str, str], commit: str = "") -> str:
        runs["a"]["2"]["commit"] = commit
        return str(report.page(runs, report.Story({}, [], commits, changed)))

    text = page({"a/1": "first", "a/2": "second"})
    assert "* GPU A, 2026-01-02: commit second." in text
    assert "Change 3." in text
    assert "Change 1." not in text
    assert "Change 2." not in text
    assert text.index("Change 3.") < text.index("## GPU A")
    assert "commit abc-dirty." in page({"a/2": "second"}, "abc-dirty")
    assert "commit not recorded." in page({})
    changed.pop()
    assert "has not been measured on hardware." in page({})


def test_gpu_device_work_counts_what_overlaps_once(run: Any) -> None:
    def event(kind: str, name: str, start: float, length: float) -> dict[str, Any]:
        return {"ph": "X", "cat": kind, "name": name, "ts": start, "dur": length}

    found = script("gpu.profiles").work_of(
        [
            event("kernel", "long", 100.0, 50.0),
            event("kernel", "short", 110.0, 10.0),
            event("kernel", "short", 190.0, 10.0),
            event("gpu_memcpy", "Memcpy HtoD", 140.0, 20.0),
            event("gpu_memset", "Memset", 300.0, 5.0),
            event("cuda_runtime", "cudaStreamSynchronize", 100.0, 900.0),
            event("cuda_runtime", "cudaMallocAsync", 100.0, 1.0),
            event("cuda_runtime", "cudaLaunchKernel", 100.0, 1.0),
            event("cpu_op", "aten::mm", 0.0, 5000.0),
            {"ph": "M", "name": "process_name"},
        ]
    )
    assert {name: found[name] for name in ("kernels", "copies", "synchronisations", "allocations")} == {
        "kernels": 3,
        "copies": 2,
        "synchronisations": 1,
        "allocations": 1,
    }
    assert found["busy_seconds"] == pytest.approx(75e-6)
    assert found["kernel_seconds"] == pytest.approx(60e-6)
    assert found["copy_seconds"] == pytest.approx(25e-6)
    assert [(row["name"], row["calls"]) for row in found["longest"]] == [("long", 1), ("short", 2)]


@pytest.mark.filterwarnings("ignore:CUDA is not available, disabling CUDA profiling")
def test_gpu_device_work_without_a_kernel_is_a_failure_but_for_the_emulation(gpu_session: Any) -> None:
    device_work = script("gpu.profiles").device_work
    device_work(gpu_session, "nothing", lambda: None)
    assert gpu_session.results["rows"][0]["kernels"] == 0
    gpu_session.emulated, gpu_session.synchronize = False, lambda: None
    device_work(gpu_session, "nothing", lambda: None)
    *_, timed, profiled = gpu_session.results["rows"]
    assert "kernels" not in timed
    assert profiled["failed"] == "RuntimeError: the profiler recorded no kernel"


def test_gpu_breakdown_names_functions_without_folders_and_is_shown(gpu_session: Any) -> None:
    def work() -> int:
        return sum(number for number in range(1000))

    result, functions = script("gpu.profiles").host_functions(work)
    assert result == 499500
    assert functions[0]["calls"] >= 1
    assert all(not row["function"].startswith("/") for row in functions)
    assert any(row["function"] == "tests/test_benchmarks.py: work" for row in functions)

    facts = {"kernels": 3, "copies": 2, "synchronisations": 1, "allocations": 0}
    times = {"busy_seconds": 0.004, "kernel_seconds": 0.003, "copy_seconds": 0.002}
    rows = [
        {"name": "pass", "kernel": "FCNN", "seconds": [0.005], **facts, **times},
        {"name": "save", "id": "file_save", "per_class": 50, "seconds": [0.5], "functions": functions[:1]},
        {"name": "SHA-256", "id": "file_alone", "per_class": 50, "seconds": [0.1], "bytes": 2e8},
        {"name": "load", "failed": "OSError: full"},
    ]
    lines = script("gpu.breakdown_page").breakdown(gpu_result("2026-01-01", breakdown={"rows": rows}))
    assert "| FCNN: pass | 5.0 | 4.0 | 3.0 | 2.0 | 3 | 2 | 1 | 0 |" in lines
    assert "| **save** | 500 | – |" in lines
    assert "| SHA-256 | 100 | 2.00 GB/s |" in lines
    assert "| load | OSError: full |" in lines


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("echo 'NVIDIA H200, 580.1, 345 MHz, 1980 MHz, 700 W, 143771 MiB'", "NVIDIA H200"),
        ("exit 6", None),
        ("kill -9 $$", None),
    ],
)
def test_gpu_facts_do_without_an_answer_of_nvidia_smi(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, expected: str | None
) -> None:
    file = tmp_path / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{does}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert script("gpu.facts")._smi().get("name") == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert script("gpu.facts")._smi() == {}


def test_gpu_tests_that_take_too_long_are_interrupted_and_say_so(gpu_session: Any) -> None:
    gpu_session._end = 0.0
    script("gpu.checks").parity(gpu_session)
    assert gpu_session.results["remark"] == "The time was over before all tests had run."
    assert gpu_session.results["status"] != 0


def test_gpu_floor_is_that_of_the_slowest_of_arithmetic_memory_and_bus(run: Any) -> None:
    floors = script("gpu.floors")
    rates = floors.Rates(int8=100.0, half=50.0, fp32=10.0, fp64=5.0, memory=4.0, bus=1.0)
    need = floors.Need(int8=200.0, fp64=5.0, memory=8.0, bus=2.0, plain_fp32=40.0)
    assert need.floor(rates) == (3.0, "arithmetic")
    assert need.fp32_floor(rates) == 5.0
    assert (need + floors.Need(bus=7.0)).floor(rates) == (9.0, "bus")
    assert (floors.Need(fp32=10.0) + need).fp32_floor(rates) == 6.0


def test_gpu_model_of_tensor_cores_has_the_bias_that_an_h100_showed(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("gpu.accumulators") == 0
    printed = capsys.readouterr().out
    assert "9.0: bias of 4096 rows of |normal| bfloat16 in one accumulator -1.4" in printed
    worst = [line for line in printed.splitlines() if "16 rows" in line]
    assert len(worst) == 1
    assert 1.0 < float(worst[0].split()[2]) < 8.0  # the bound of csrc/cuda/half_gram.cu


def test_gpu_kip_steps_are_read_from_lines(run: Any) -> None:
    rows = script("gpu.kip_steps").parsed("start\nKIP published, s per iteration, ipc 10 1.5e-01\nend")
    assert rows == [{"name": "KIP, published", "variant": "published", "per_class": 10, "seconds": [0.15]}]


def test_gpu_tests_that_failed_are_named(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "tests.xml"
    cases = '<testcase classname="tests.test_x" name="a[cuda]"><failure/></testcase><testcase name="b"/>'
    file.write_text(f"<testsuites><testsuite>{cases}<testcase name='c'><skipped/></testcase></testsuite></testsuites>")
    found = script("gpu.checks")._outcomes(file)
    assert found == {"passed": 1, "skipped": 1, "failed": ["test_x.py::a[cuda]"]}
    assert script("gpu.checks")._spread(list("abcdefghijklmnopqrstuvwxyz")) == list("adgjmpsvy")


def test_gpu_sanitizer_finds_the_tests_that_it_is_to_run(run: Any) -> None:
    checks, session = script("gpu.checks"), script("gpu.session").Session()
    for _, files, words in checks._CHECKED[:2]:  # the others have run
        tests = checks._spread(checks._collected(session, files, words))
        assert len(tests) > 5
        assert all(name.startswith(files[0]) and "cuda-emulated" not in name for name in tests)


def test_estimate_is_the_arithmetic_that_its_page_states(run: Any) -> None:
    scale = script("scale")
    cluster = scale.Cluster("two", workers=2, nodes=2, flops=1e12, reading=1e9, bus=1e12)
    found = scale.estimate(cluster, 1e6, d=10, p=100, k=5)
    assert found.arithmetic == pytest.approx(1e6 * (2 * 10 * 100 + 100**2) / (2e12 * scale.SHARE))
    assert found.reading == pytest.approx(1e6 * 10 * 2 / 2e9)
    assert found.reduction == pytest.approx(2 * 8 * (100 * 101 / 2 + 5 * 100 + 100 + 10) / scale.LINK)
    assert found.bound == "reading"


def test_published_tells_the_device_and_on_a_gpu_both_runs(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = framework("torch")
    run("published", "--dataset", "digits", "--kernel", "identity", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["driver"]) == ("cpu", "gelsy")
    total, stages = found["seconds"].pop("total"), found["seconds"]
    tolerances.assert_elementwise(sum(stages.values()), total, np.float64)
    published, problem = script("published"), script("problem").load_problem("digits")
    for name, value in (("get_device_name", "Some GPU"), ("max_memory_allocated", 1), ("reset_peak_memory_stats", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    on_gpu = published.run_on_gpu(problem, "identity", 1, 0, "gels", torch.device("cpu"))
    assert on_gpu["first_seconds"].keys() == on_gpu["seconds"].keys() == {"total", *stages}
    assert (on_gpu["gpu"], on_gpu["n_train"]) == ("Some GPU", found["n_train"])
    assert not torch.backends.cuda.matmul.allow_tf32
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            run("published", "--dataset", "digits", "--device", "cuda")
        assert "sees no GPU" in capsys.readouterr().err


def test_a_random_problem_has_the_shape_of_cifar100(run: Any) -> None:
    problem = script("problem").random_problem(200)
    assert (problem.x_train.shape, problem.x_test.shape, problem.x_train.dtype) == ((200, 3072), (100, 3072), np.uint8)
    assert problem.dataset.n_classes == 100


def test_the_steps_of_kip_are_measured_for_both_variants(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    framework("torch")
    run("gpu.kip", "--device", "cpu", "--rows", "90", "--dimension", "12", "--classes", "3", "--ipcs", "1,2",
        "--steps", "2")  # fmt: skip
    *lines, last = capsys.readouterr().out.strip().splitlines()
    found = json.loads(last)
    assert [(row["ipc"], row["variant"], row["steps"]) for row in found["rows"]] == [
        (ipc, variant, 2) for ipc in (1, 2) for variant in ("gram", "published")
    ]
    assert lines == [f"KIP {row['variant']}, s per iteration, ipc {row['ipc']} {row['seconds']:.6g}"
                     for row in found["rows"]]  # fmt: skip
    assert all(row["seconds"] > 0 and row["loss"] < 2 for row in found["rows"])
    assert found["device"] == "cpu"
