"""The scripts in benchmarks/ that write pages of docs/ run and write what they say, on the bundled digits."""

from __future__ import annotations

import importlib
import json
import shutil
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
SCRIPTS, DOCS = ROOT / "benchmarks", ROOT / "docs"


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


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the pages that scripts write parts of."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for page in DOCS.glob("*.md"):
        shutil.copy(page, folder)
    return folder


def test_exactness_writes_the_page_of_cells_that_meet_their_targets(run: Any, tmp_path: Path) -> None:
    words = ("--datasets", "digits", "--kernels", "FCNN", "--ipcs", "1", "--seeds", "0", "--out", tmp_path)
    assert run("exactness", *words) == 0
    content = json.loads((tmp_path / "exactness.json").read_text(encoding="utf-8"))
    assert len(content["cells"]) == 8
    assert content["cells"][0].keys() == json.loads((DOCS / "exactness.json").read_text())["cells"][0].keys()
    assert headings(tmp_path / "exactness.md") == headings(DOCS / "exactness.md")


def test_realism_prints_the_table_of_its_page(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script("realism"), "PICTURED", 2)  # columns; drawing takes most of the time
    words = ("--datasets", "digits", "--kernels", "identity", "--ipc", "1", "--out", tmp_path)
    assert run("realism", *words) == 0
    assert (tmp_path / "figures" / "realism_digits_identity.png").is_file()
    found = json.loads((tmp_path / "figures" / "realism.json").read_text(encoding="utf-8"))["cells"]
    committed = json.loads((DOCS / "figures" / "realism.json").read_text(encoding="utf-8"))["cells"]
    assert found[0].keys() == committed[0].keys()
    assert all(row["mse"] > found[-1]["mse"] for row in found[:-1])  # the nearest set is the nearest
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| data set")]
    assert printed[0] in (DOCS / "realism.md").read_text(encoding="utf-8")


def test_storage_writes_the_page_from_result_files(run: Any, tmp_path: Path) -> None:
    words = ("--dataset", "digits", "--kernels", "identity", "--ipcs", "1", "--results", tmp_path, "--docs", tmp_path)
    run("storage", *words)
    assert headings(tmp_path / "storage.md") == headings(DOCS / "storage.md")


def test_privacy_writes_its_part_of_the_page(run: Any, tmp_path: Path, docs: Path) -> None:
    words = ("--dataset", "digits", "--draws", "1", "--results", tmp_path, "--docs", docs)
    run("privacy", "curve", *words)
    run("privacy", "audit", *words)
    assert headings(docs / "privacy.md") == headings(DOCS / "privacy.md")
    assert "digits, identity" in (docs / "privacy.md").read_text(encoding="utf-8")


def test_maps_measures_a_row_and_writes_the_page(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = script("maps")
    rows = [maps.Row("digits", "map", "FCNN", True), maps.Row("digits", "user", "user", True, {"init": "real"})]
    monkeypatch.setattr(maps, "rows", lambda: rows)
    assert run("maps", "--out", tmp_path / "new") == 0
    assert headings(tmp_path / "new" / "maps.md") == headings(DOCS / "maps.md")


def test_labels_only_writes_the_page(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels_only = script("labels_only")
    monkeypatch.setattr(labels_only, "WIDTHS", (60,))
    monkeypatch.setattr(kd, "load_dataset", lambda name, data_dir, load=kd.load_dataset: load("digits"))
    run("labels_only", "--out", tmp_path)
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


@pytest.mark.parametrize("contestant", ["ours", "numpy", "sklearn"])
def test_contestants_reach_the_same_accuracy(run: Any, contestant: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("contestants", contestant)
    found = json.loads(capsys.readouterr().out)
    assert found["test_accuracy"] > 0.9
    if contestant != "sklearn":  # it distils nothing
        assert abs(found["distilled_test_accuracy"] - found["test_accuracy"]) <= tolerances.ACCURACY_NOISE


def test_pages_of_stored_results_are_those_that_are_committed(
    run: Any, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plot_stages", "plot_scaling"):  # slow; memory's is drawn
        monkeypatch.setattr(script("plots"), name, lambda result, path: None)
    monkeypatch.setattr(script("privacy"), "plot", lambda result, figures: None)
    run("report", "--docs", docs)
    run("tables", "--docs", docs)
    run("storage", "--docs", docs)
    run("privacy", "page", "--docs", docs)
    for name in ("benchmarks", "tables", "kip", "storage", "privacy"):
        assert (docs / f"{name}.md").read_text(encoding="utf-8") == (DOCS / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["large", "travel"])
def test_page_of_stored_results_is_the_one_that_is_committed(run: Any, name: str) -> None:
    stored = json.loads((SCRIPTS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert script(name).page(stored) == (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_large_counts_its_rows_and_finds_exact_points(run: Any, tmp_path: Path) -> None:
    large = script("large")
    large.write_shards(tmp_path, 20_000)
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


def test_estimate_is_the_arithmetic_that_its_page_states(run: Any) -> None:
    scale = script("scale")
    cluster = scale.Cluster("two", workers=2, nodes=2, flops=1e12, reading=1e9, bus=1e12)
    found = scale.estimate(cluster, 1e6, d=10, p=100, k=5)
    assert found.arithmetic == pytest.approx(1e6 * (2 * 10 * 100 + 100**2) / (2e12 * scale.SHARE))
    assert found.reading == pytest.approx(1e6 * 10 * 2 / 2e9)
    assert found.reduction == pytest.approx(2 * 8 * (100 * 101 / 2 + 5 * 100 + 100 + 10) / scale.LINK)
    assert found.bound == "reading"
