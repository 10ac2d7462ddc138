"""Runs side by side: their order, the table that fits a terminal, folders of runs, and the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import tiny_images, write_npz
from pages import check_page, screenshot

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("matplotlib", reason="the cli extra is not installed")
pytest.importorskip("jinja2", reason="the cli extra is not installed")

from rich.cells import cell_len
from rich.console import Console

from krrdistill.apps.cli import main
from krrdistill.apps.cli.table import TextColumn, fitted, folded
from krrdistill.apps.report.axes import PALETTE
from krrdistill.apps.report.compare import Comparison, compare_page
from krrdistill.apps.report.run_folder import read_run

RUNS = {
    "ten": ["--ipc", "10"],
    "two": ["--ipc", "2"],
    "one": ["--ipc", "1"],
    "white": ["--ipc", "2", "--zca"],
    "real": ["--ipc", "2", "--realism", "1"],
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five runs, and of one folder that is none."""
    folder = tmp_path_factory.mktemp("compare")
    data = write_npz(folder / "set.npz", tiny_images((4, 5), k=4, n_train=120))
    words = ["distill", "--dataset", str(data), "--backend", "array", "--lambdas", "1,10,100", "--precision", "float64"]
    for name, options in RUNS.items():
        assert main([*words, *options, "--out", str(folder / "runs" / name)]) == 0
    (folder / "runs" / "notes").mkdir()
    return folder / "runs"


@pytest.fixture
def many(parent: Path, tmp_path: Path) -> Path:
    """Sixty runs that differ in seed and options, copies of one another."""
    for number in range(60):
        name = list(RUNS)[number % len(RUNS)]
        copy = Path(shutil.copytree(parent / name, tmp_path / "many" / f"a_rather_long_name_of_{name}_seed{number}"))
        report = json.loads((copy / "report.json").read_text())
        report.update(seed=number, backend=f"backend {number}", precision="float32" if number % 2 else "float64")
        (copy / "report.json").write_text(json.dumps(report))
    return tmp_path / "many"


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command prints on stdout."""
    assert main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_compare_rows_are_runs_in_natural_order(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = compared(capsys, *(parent / name for name in RUNS)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["run", "one", "two", "ten", "real", "white"]
    assert lines[0].startswith("the same in all runs: data set set, kernel identity, method closed form")
    head = lines[1]
    assert all(name in head for name in ("ZCA", "realism", "per class", "PSNR (dB)", "weight error", "total time"))
    assert not any(name in head for name in ("data set", "kernel", "seed", "storage"))
    entries = json.loads(compared(capsys, parent, "--json"))["runs"]
    assert [entry["ipc"] for entry in entries] == [1, 2, 10, 2, 2]
    assert [(entry["zca"], entry["realism"]["asked"]) for entry in entries[3:]] == [(False, 1.0), (True, None)]
    assert all(entry["exact"] for entry in entries)


def test_compare_sorts_by_a_field_and_refuses_one_that_no_run_has(
    parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads(compared(capsys, parent, "--json", "--sort", "certificate.condition"))["runs"]
    conditions = [entry["certificate"]["condition"] for entry in entries]
    assert conditions == sorted(conditions)
    assert main(["compare", str(parent), "--sort", "speed"]) == 2
    assert "no run has a field 'speed' to sort by" in capsys.readouterr().err


def test_compare_of_a_folder_of_runs_says_which_it_found(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(parent)]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        f"krrdistill: note: 5 runs in {parent}: one, real, ten, two, white; passed over, as they hold no finished run: "
        "notes\n"
    )
    assert len(captured.out.splitlines()) == 7


@pytest.mark.parametrize("width", [40, 80, 120])
def test_compare_of_sixty_runs_fits_the_terminal_and_says_what_it_leaves_out(
    width: int, many: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", str(width))
    lines = compared(capsys, many).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert 60 <= len(lines) <= 3 * 61 + 12  # no letter a line
    said = " ".join(lines)
    assert "no room for:" in said
    assert "a wider terminal, --out or --json shows them" in said
    assert "condition" in said.partition("no room for:")[2]


def test_compare_without_a_terminal_keeps_one_line_a_run(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = compared(capsys, many).splitlines()
    assert len(lines) == 62
    assert "a_rather_long_name_of_ten_seed10" in "\n".join(lines)
    assert [line.split()[0].rpartition("seed")[2] for line in lines[2:6]] == ["2", "7", "12", "17"]  # as numbers


def test_cells_are_folded_at_word_borders_and_end_in_an_ellipsis() -> None:
    assert folded("test accuracy, original", 9) == ["test", "accuracy,", "original"]
    assert folded("mnist_identity_ipc10", 14) == ["mnist_", "identity_ipc10"]
    assert folded("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert folded("one two three four five", 5) == ["one", "two", "thre…"]
    wide = folded("\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587", 4)
    assert all(cell_len(line) <= 4 for line in wide)


def test_columns_of_the_highest_rank_go_first_and_the_name_stays() -> None:
    columns = [
        TextColumn("run", ["a name"], left=True),
        *(TextColumn(f"c{i}", ["12345"], rank=i % 3) for i in range(6)),
    ]
    table = fitted(columns, 6 + 2 * 7)
    assert [column.heading for column in table.columns] == ["run", "c0", "c3"]
    assert [column.heading for column in table.left_out] == ["c1", "c4", "c2", "c5"]
    assert list(table.lines()) == ["run        c0     c3", "a name  12345  12345"]
    assert fitted(columns, 1).columns == columns[:1]


def test_cells_become_narrower_before_columns_are_left_out() -> None:
    columns = [TextColumn("run", ["a"], left=True), TextColumn("kernel", ["random_fourier_features"], left=True)]
    assert list(fitted(columns, 20).lines()) == ["run  kernel", "a    random_", "     fourier_", "     features"]


def charts_of(found: Comparison) -> Any:
    page = check_page(compare_page(found))
    return page, [svg["aria-label"] or "" for svg in page.all("svg") if svg.get("role") == "img"]


def test_page_draws_one_chart_of_paths_and_one_curve_for_equal_ones(parent: Path) -> None:
    page, charts = charts_of(Comparison.of([read_run(parent / name) for name in RUNS]))
    assert charts[0].endswith(": ZCA no; ZCA yes")
    assert [chart.split(" against ")[0].removeprefix("Line chart: ") for chart in charts] == [
        "validation accuracy (%)", "test accuracy, distilled (%)",
    ]  # fmt: skip
    assert charts[1].endswith(": ZCA no, no realism; ZCA no, realism 1; ZCA yes, no realism")
    assert "The same in all runs: data set set, kernel identity" in " ".join(page.words.split())
    assert len(page.all("img")) == 4 * len(RUNS)


def test_page_of_sixty_runs_names_every_run(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(capsys, many, "--out", tmp_path / "c.html")
    page = check_page((tmp_path / "c.html").read_bytes())
    assert all(folder.name in page.words for folder in many.iterdir())


def test_curves_of_a_comparison_are_told_apart_by_what_was_asked(parent: Path) -> None:
    found = Comparison.of([read_run(parent / name) for name in ("one", "ten", "white")])
    assert found.labels([[0], [1], [2]]) == ["per class 1", "per class 10", "per class 2"]
    assert found.labels([[0, 1, 2]]) == ["all runs"]
    assert found.labels([[0], [0]]) == ["one", "one"]


def test_run_of_a_comparison_has_one_colour_in_all_charts(parent: Path) -> None:
    found = Comparison.of([read_run(parent / name) for name in RUNS])
    by_model, by_series = found.styles(found.models), found.styles(found.series)
    assert len(by_model) == 2
    assert len({color for color, _ in by_model}) == 2
    assert len(set(by_series)) == 3, "dashes tell the starts of one model apart"
    of_models = {i: color for group, (color, _) in zip(found.models, by_model, strict=True) for i in group}
    of_series = {i: color for group, (color, _) in zip(found.series, by_series, strict=True) for i in group}
    assert of_models == of_series


def test_runs_of_one_model_are_told_apart_by_colours(parent: Path) -> None:
    found = Comparison.of([read_run(parent / name) for name in ("one", "two", "real")])
    assert len({color for color, _ in found.styles(found.series)}) == 2
    (color, dashes) = found.styles(found.models)[0]
    assert (color, dashes) == (PALETTE["ink"], ()), "its one path is of both"


def test_damaged_run_is_said_and_the_others_are_compared(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = tmp_path / "runs", tmp_path / "c.html"
    for name in ("one", "two", "ten"):
        shutil.copytree(parent / name, folder / name)
    (folder / "two" / "figure_data.npz").write_bytes(b"PK")
    assert main(["compare", str(folder), "--out", str(page)]) == 1
    captured = capsys.readouterr()
    reason = f"{folder / 'two' / 'figure_data.npz'}: "
    assert f"krrdistill: warning: {folder / 'two'} is left out: {reason}" in captured.err
    assert [line.split()[0] for line in captured.out.splitlines()[2:4]] == ["one", "ten"]
    words = check_page(page.read_bytes()).words
    assert f"Not compared: {reason}" in words
    assert "All other runs are exact." in words
    assert main(["compare", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found["unread"]) == [str(folder / "two")]
    assert len(found["runs"]) == 2
    assert main(["compare", str(folder / "one"), str(folder / "two")]) == 1
    assert f"fewer than two runs can be read: {reason}" in capsys.readouterr().err


def test_folder_without_runs_is_refused_and_deeper_ones_are_named(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"krrdistill: error: compare: no run in {tmp_path}\n"
    deep = tmp_path / "a" / "deep"
    shutil.copytree(parent / "one", deep / "one")
    assert main(["compare", str(deep.parent)]) == 2
    assert f"no run in {deep.parent}; runs lie one level deeper, give their folders: {deep}" in capsys.readouterr().err
    for name in ("one", "two"):
        shutil.copytree(parent / name, deep.parent / name)
    assert main(["compare", str(deep.parent)]) == 0
    note, more = capsys.readouterr().err.splitlines()
    assert note == f"krrdistill: note: 2 runs in {deep.parent}: one, two"
    assert more == f"krrdistill: note: more runs lie one level deeper, give their folders: {deep}"


@pytest.mark.chromium
def test_chromium_draws_the_comparison_no_wider_than_a_phone(many: Path, tmp_path: Path) -> None:
    """The table scrolls in its own box: right of the margin nothing is drawn but paper."""
    page = tmp_path / "c.html"
    page.write_bytes(compare_page(Comparison.of([read_run(folder) for folder in many.iterdir()])))
    pixels = screenshot(page, tmp_path, size="500,2400", scheme="light")
    assert np.ptp(pixels[:, -8:], axis=(0, 1)).max() < 0.05


def test_compare_page_replaces_a_page_and_no_other_file(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compared.html"
    for _ in range(2):
        assert main(["compare", str(parent), "--out", str(out)]) == 0
    out.write_bytes(b"notes of somebody")
    assert main(["compare", str(parent), "--out", str(out)]) == 2
    assert "there is another kind of file" in capsys.readouterr().err
    assert out.read_bytes() == b"notes of somebody"


def test_page_of_somebody_else_is_not_replaced(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "index.html"
    page.write_text("<!DOCTYPE html>\n<title>My home</title>", encoding="utf-8")
    before = page.read_bytes()
    assert main(["compare", str(parent), "--out", str(page)]) == 2
    assert "there is another kind of file" in capsys.readouterr().err
    assert page.read_bytes() == before
    page.unlink()
    for _ in range(2):  # its own it does
        assert main(["compare", str(parent), "--out", str(page)]) == 0
