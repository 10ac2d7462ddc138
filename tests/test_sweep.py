"""A sweep: one pass over the data per map, cells that are runs of their own, going on after a kill, plots."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")

import krrdistill as kd
import tolerances
from conftest import framework
from kill import kill_at_write
from krrdistill.apps.cli import main
from krrdistill.apps.distillation import run_distillation
from krrdistill.apps.report.run_folder import read_run
from krrdistill.apps.sweep import SweepOptions, run_sweep, write_sweep
from krrdistill.apps.sweep.outcome import Spread
from krrdistill.apps.sweep.run import _digest
from krrdistill.common.files import content_digest
from krrdistill.common.samples import host_samples
from pages import check_page, screenshot

ARRAY = ["--backend", "array", "--threads", "1"]
SWEEP = ["sweep", *ARRAY, "--ipcs", "2,10,1", "--seeds", "0,1"]
SHARED = kd.DistillOptions(backend="array", threads=1)

pytestmark = [
    pytest.mark.usefixtures("undrawn_pages"),
    pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning"),
]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small() -> kd.Dataset:
    """A hundred digits of three classes."""
    digits = kd.load_dataset("digits")
    parts = {}
    for part, n in (("train", 100), ("test", 40)):
        x, y = getattr(digits, f"x_{part}"), getattr(digits, f"y_{part}")
        rows = np.flatnonzero(y < 3)[:n]
        parts |= {f"x_{part}": x[rows], f"y_{part}": y[rows]}
    return kd.Dataset("small", **parts)


def test_sweep_passes_over_the_data_once_per_map(
    small: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, update = [], kd.RidgeStatistics.update

    def counted(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        passes.append(self.feature_map.kernel)
        return update(self, X, *args, **options)

    monkeypatch.setattr(kd.RidgeStatistics, "update", counted)
    grid = SweepOptions(kernels=("identity", "FCNN"), ipcs=(1, 2), seeds=(0, 1), lambda_s=("auto", 0.0))
    sweep = run_sweep(small, grid, options=SHARED, out=tmp_path)
    assert len(sweep.cells) == 16
    assert passes == ["identity", "identity", "FCNN", "FCNN"]


@pytest.mark.parametrize("init", ["noise", "real"])
def test_cell_is_the_run_of_distill(small: kd.Dataset, tmp_path: Path, init: str) -> None:
    options = replace(SHARED, seed=1, points_per_class=2, init=init)
    grid = SweepOptions(kernels=("FCNN",), ipcs=(1, 2), seeds=(0, 1), init=("noise", "real"))
    sweep = run_sweep(small, grid, options=replace(SHARED, refit=True), out=tmp_path / "sweep")
    alone = run_distillation(small, kernel="FCNN", options=replace(options, refit=True), out=tmp_path / "alone")
    name = f"small_FCNN_ipc2_{init}_refit_seed1"
    assert name in [cell.folder for cell in sweep.cells]
    cell = read_run(tmp_path / "sweep" / name)
    tolerances.assert_exact(kd.DistilledDataset.load(tmp_path / "sweep" / name / "distilled.npz").X, alone.distilled.X)
    assert cell.record.title == alone.record.title
    assert (cell.start_images is None) is (init == "noise")
    assert cell.record.seconds["total"] >= sum(cell.record.stages.values()) * 0.5


def test_command_leaves_runs_a_table_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    assert main([*SWEEP, "--init", "real", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("identity")]
    assert [row[3] for row in rows] == ["1", "2", "10"], "natural order"
    assert all("\N{PLUS-MINUS SIGN}" in row for row in rows)
    assert "6 of 6 cells retrain to their original model" in printed.out
    assert "1 of 6, " in printed.err
    assert " left" in printed.err
    warnings = [line for line in printed.err.splitlines() if "warning: " in line]
    assert warnings
    assert len(warnings) == len(set(warnings)), "what several cells warn of is said once"
    names = [f"digits_identity_ipc{ipc}_real_seed{seed}" for ipc in (1, 2, 10) for seed in (0, 1)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, "sweep.csv", "sweep.html", "sweep.json", "sweep.png"]
    )
    document = json.loads((out / "sweep.json").read_bytes())
    assert sorted(cell["folder"] for cell in document["cells"]) == sorted(names)
    with open(out / "sweep.csv", newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["folder"] for line in lines] == [cell["folder"] for cell in document["cells"]]
    assert all(float(line["psnr"]) == cell["psnr"] for line, cell in zip(lines, document["cells"], strict=True))
    cell = out / names[0]
    for words in (["report", str(cell)], ["verify", str(cell)], ["compare", str(cell), str(out / names[1])]):
        assert main(words) == 0
    record = read_run(cell).record
    assert record.command == "krrdistill distill --dataset digits --init real --backend array --threads 1"
    assert record.verify_command == f"krrdistill verify {cell}"
    page = check_page((out / "sweep.html").read_bytes())
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 3
    assert "original model" in page.words
    assert main([*SWEEP, "--init", "real", "--out", str(out)]) == 0
    assert "6 of 6 cells are there already" in capsys.readouterr().err


def test_killed_sweep_goes_on_and_keeps_finished_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    words = [*SWEEP, "--out", str(out)]
    kill_at_write("report.json", 3, words)
    first, second, third = (out / f"digits_identity_ipc{ipc}_noise_seed0" for ipc in (1, 2, 10))
    kept = files(first)
    assert "report.html" in kept
    assert not (third / "report.json").exists()
    (second / "distilled.npz").write_bytes((first / "distilled.npz").read_bytes())  # no longer what its report is about
    assert main(words) == 0
    assert "1 of 6 cells are there already" in capsys.readouterr().err
    assert files(first) == kept
    for folder in (second, third):
        assert read_run(folder).record.artifact == str(folder / "distilled.npz")
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not (out / ".krrdistill-lock").exists()


def test_cell_whose_report_was_edited_is_made_again(small: kd.Dataset, tmp_path: Path) -> None:
    grid, options = SweepOptions(ipcs=(1,), init=("real",)), replace(SHARED, store="uint8")
    run_sweep(small, grid, options=options, out=tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    report, whole = folder / "report.json", (folder / "report.json").read_text()
    edits: list[Callable[[dict[str, Any]], Any]] = [
        lambda r: r["certificate"].update(weight_relative_error=0.0),
        lambda r: r["realism"].update(psnr=99.0),
        lambda r: r.update(lambda_s=0.5),
        lambda r: r.pop("artifact_sha256"),
        lambda r: r["distilled"].update(test_accuracy=0.99),
    ]
    assert read_run(folder).agrees
    for edit in edits:
        changed = json.loads(whole)
        edit(changed)
        report.write_text(json.dumps(changed))
        assert not read_run(folder).agrees
    run_sweep(small, grid, options=options, out=tmp_path)
    facts = ("distilled", "certificate", "realism", "lambda_s")
    again, before = json.loads(report.read_text()), json.loads(whole)
    assert {name: again[name] for name in facts} == {name: before[name] for name in facts}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that was killed after its second cell; tests leave it as it is."""
    out = tmp_path_factory.mktemp("killed")
    kill_at_write("sweep.json", 2, ["sweep", *ARRAY, "--ipcs", "1,2,3", "--out", str(out)])
    return out


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--store", "float32"], "store 'float64', now 'float32'"),
        (["--zca"], "zca False, now True"),
        (["--seeds", "0,1,2"], "cells: 6 cells that it lacks"),
    ],
)
def test_folder_of_another_sweep_is_refused(
    killed: Path, changes: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(killed)
    assert main(["sweep", *ARRAY, "--ipcs", "1,2,3", "--out", str(killed), *changes]) == 1
    error = capsys.readouterr().err
    assert "holds another sweep" in error
    assert named in error
    assert "another --out" in error
    assert {name: content for name, content in files(killed).items() if "/" in name} == {
        name: content for name, content in before.items() if "/" in name
    }


def test_sweep_of_other_samples_under_the_same_name_is_refused(small: kd.Dataset, tmp_path: Path) -> None:
    run_sweep(small, options=SHARED, out=tmp_path)
    other = kd.Dataset("small", small.x_train + 1, small.y_train, small.x_test, small.y_test)
    with pytest.raises(kd.DataError, match=r"holds another sweep \(x_train "):
        run_sweep(other, options=SHARED, out=tmp_path)


def test_digest_of_samples_read_in_blocks_is_that_of_their_array(rng: np.random.Generator) -> None:
    half = rng.standard_normal((9000, 7, 19)).astype(np.float16)  # more than a block
    array = half.astype(np.float32)
    assert _digest(host_samples("test", half)) == _digest(array) == content_digest({"part": array})
    changed = array.copy()
    changed[-1, -1, -1] += 1
    assert _digest(changed) != _digest(array)
    assert _digest(array.reshape(9000, 19, 7)) != _digest(array)


def test_sweep_of_other_samples_that_are_read_in_blocks_is_refused(small: kd.Dataset, tmp_path: Path) -> None:
    framework("pyarrow")
    import pyarrow as pa
    from pyarrow.parquet import write_table

    file, out = tmp_path / "set.parquet", tmp_path / "o"
    for change, status in ((0.0, 0), (1.0, 1)):
        x = small.x_train.reshape(len(small.x_train), -1) + change
        table = {**{f"c{j}": x[:, j] for j in range(20, 30)}, "label": small.y_train}
        write_table(pa.table(table), file)
        words = ["sweep", *ARRAY, "--dataset", str(file), "--test-fraction", "0.2", "--out", str(out)]
        assert main(words) == status


def test_sweep_of_an_own_map_that_changed_is_refused(
    small: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swept_maps.py").write_text("def f(X):\n    return X\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("swept_maps")
    shared = replace(SHARED, init="real", labels_only=True)
    run_sweep(small, SweepOptions(kernels=("swept_maps:f",), init=("real",)), options=shared, out=tmp_path / "o")
    monkeypatch.setattr(module, "f", lambda X: X[:, ::-1] * 2.0)
    with pytest.raises(kd.DataError, match=r"holds another sweep \(swept_maps:f"):
        run_sweep(small, SweepOptions(kernels=("swept_maps:f",), init=("real",)), options=shared, out=tmp_path / "o")


def test_cells_that_would_share_a_folder_are_refused(small: kd.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the maps a:b_c and a_b:c would share the folder"):
        run_sweep(small, SweepOptions(kernels=("a:b_c", "a_b:c")), options=SHARED, out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_file_where_a_cell_belongs_fails_that_cell_alone(small: kd.Dataset, tmp_path: Path) -> None:
    (tmp_path / "small_identity_ipc1_noise_seed0").touch()
    sweep = run_sweep(small, SweepOptions(ipcs=(1, 2)), options=SHARED, out=tmp_path)
    assert [cell.ipc for cell in sweep.cells] == [2]
    assert list(sweep.failed) == ["small_identity_ipc1_noise_seed0"]


def test_sweep_and_run_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *ARRAY, "--out", str(tmp_path / "run")]) == 0
    assert main(["sweep", *ARRAY, "--out", str(tmp_path / "run")]) == 1
    assert "holds the files of krrdistill distill, not of krrdistill sweep" in capsys.readouterr().err
    assert main(["sweep", *ARRAY, "--out", str(tmp_path / "sweep")]) == 0
    assert main(["distill", *ARRAY, "--overwrite", "--out", str(tmp_path / "sweep")]) == 1
    assert "holds the files of krrdistill sweep" in capsys.readouterr().err


def test_failing_cell_is_reported_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", *ARRAY, "--ipcs", "1,2", "--lambda-s", "1e9,0", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [cell["lambda_s"] for cell in document["cells"]] == [0.0, 0.0]
    assert len(document["failed"]) == 2
    assert printed.err.count("FAILED: ") == 2
    assert "2 of 4 cells" in (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert not [name for name in document["failed"] if (tmp_path / name).exists()]
    assert main(words) == 1, "what failed is tried again"
    assert "2 of 4 cells are there already" in capsys.readouterr().err


def test_options_of_a_map_go_to_the_maps_that_take_them(small: kd.Dataset, tmp_path: Path) -> None:
    grid = SweepOptions(kernels=("identity", "FCNN"))
    sweep = run_sweep(small, grid, map_options={"hidden_layers": 2}, options=SHARED, out=tmp_path)
    names = ["small_identity_ipc1_noise_seed0", "small_FCNN_ipc1_noise_hidden-layer2_seed0"]
    assert [cell.folder for cell in sweep.cells] == names
    with pytest.raises(ValueError, match="none of the kernels identity takes hidden_layers"):
        run_sweep(small, map_options={"hidden_layers": 2}, options=SHARED, out=tmp_path / "b")


def test_sweep_of_real_values_shows_r2(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = X @ rng.standard_normal((5, 2)) + 0.1 * rng.standard_normal((60, 2))
    data = kd.Dataset("values", X[:40], y[:40], X[40:], y[40:], targets="real")
    sweep = run_sweep(data, SweepOptions(ipcs=(1, 2)), options=SHARED, out=tmp_path)
    assert sweep.score == "mean test R²"
    assert all(cell.distilled is not None and cell.psnr is None for cell in sweep.cells)
    write_sweep(sweep, tmp_path)
    assert "Mean test R² of the model retrained" in (tmp_path / "sweep.html").read_text(encoding="utf-8")


def test_sweep_without_a_finished_cell_has_a_page_and_no_plot(small: kd.Dataset, tmp_path: Path) -> None:
    sweep = run_sweep(small, SweepOptions(lambda_s=(1e9,)), options=SHARED, out=tmp_path)
    assert not sweep.cells
    readable = write_sweep(sweep, tmp_path)
    assert not readable.passed
    assert [section.name for section in readable.sections] == ["cells", "missing", "how"]
    assert not (tmp_path / "sweep.png").exists()


def test_means_are_over_seeds_and_unknown_values_have_none() -> None:
    assert Spread.of([1.0, 3.0]) == Spread(2.0, 2.0**0.5)
    assert Spread.of([1.0]) == Spread(1.0, None)
    assert Spread.of([1.0, None]) is None


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn_in_both_schemes(small: kd.Dataset, tmp_path: Path, scheme: str) -> None:
    grid = SweepOptions(kernels=("identity", "random_fourier"), ipcs=(1, 2), init=("real",))
    sweep = run_sweep(small, grid, options=SHARED, out=tmp_path / "o")
    assert write_sweep(sweep, tmp_path / "o").passed
    screenshot(tmp_path / "o" / "sweep.html", tmp_path, size="390,1600", scheme=scheme)
