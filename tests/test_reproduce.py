"""The published tables made again: cells and their files, going on after a kill, and what was not measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")

import krrdistill as kd
import tolerances
from kill import kill_at_write
from krrdistill.apps.cli import main
from krrdistill.apps.kip import distill as kip_module
from krrdistill.apps.kip.place import TorchPlace, place_of
from krrdistill.apps.reproduce import ReproduceOptions, publication, reproduce, to_markdown, to_page
from krrdistill.apps.reproduce import case as case_module
from krrdistill.apps.reproduce import run as run_module
from krrdistill.apps.reproduce.case import Case
from krrdistill.apps.reproduce.cells import Cell, Store
from krrdistill.apps.reproduce.published import TABLE3, TABLE4, differing_cells, spread
from pages import check_page, screenshot

pytestmark = pytest.mark.usefixtures("undrawn_pages")

TABLE3_DIGITS = ["reproduce", "table3", "--datasets", "digits", "--backend", "array"]
TABLE4_DIGITS = ["reproduce", "table4", "--datasets", "digits", "--backend", "array", "--methods", "closed_form,gram"]


def options(**changes: Any) -> ReproduceOptions:
    chosen = {"datasets": ("digits",), "kernels": ("FCNN",), "ipcs": (1,), "seeds": (0,), "backend": "array"}
    return ReproduceOptions(**{**chosen, **changes})


def closed(**changes: Any) -> ReproduceOptions:
    return options(methods=("closed_form",), **changes)


def gram(**changes: Any) -> ReproduceOptions:
    return options(methods=("closed_form", "gram"), **changes)


# ---- the published figures


# The tables as the paper prints them, typed from it apart from ``published.py``: the original and ipc 1, 10, 50;
# accuracy, its deviation and seconds of KIP and of the closed form at ipc 1, 10, 50, and the speed-up.
PRINTED_3 = """
mnist    | 86.41 → 86.41 86.41 86.41 | 93.89 → 93.89 93.89 93.85 | 93.82 → 93.82 93.82 93.82
cifar10  | 39.48 → 39.48 39.48 39.48 | 47.86 → 47.87 47.84 47.81 | 42.84 → 42.84 42.87 42.73
cifar100 | 14.37 → 14.37 14.37 14.37 | 21.42 → 21.41 21.52 21.49 | 18.71 → 18.70 18.69 18.57
"""
PRINTED_4 = """
mnist    | 93.44±0.17 159 / 93.75±0.10 554 / 93.72±0.11 3114 | 93.72±0.14 16 / 93.69±0.17 16 / 93.62±0.24 16
cifar10  | 45.83±0.29 225 / 47.50±0.29 594 / 47.48±0.20 3510 | 47.85±0.10 21 / 47.76±0.12 20 / 47.77±0.06 20
cifar100 | 20.08±0.20 616 / 21.56±0.16 9323 / – 396000 | 21.58±0.15 20 / 21.59±0.15 20 / 21.58±0.13 25
"""
SPEED_UPS = {
    "mnist": (9.9, 34.6, 194.6),
    "cifar10": (10.7, 29.7, 175.5),
    "cifar100": (30.8, 466.1, 15840.0),
}


def printed(table: str) -> dict[str, list[str]]:
    """The columns of each data set."""
    rows = (line.split("|") for line in table.strip().splitlines())
    return {name.strip(): [column.strip() for column in columns] for name, *columns in rows}


def timed(entry: str) -> tuple[float | None, float | None, float]:
    """(accuracy, deviation, seconds)."""
    accuracy, seconds = entry.split()
    if accuracy == "–":
        return None, None, float(seconds)
    mean, deviation = accuracy.split("±")
    return float(mean), float(deviation), float(seconds)


def test_table3_is_the_printed_one() -> None:
    found = {
        (name, kernel): f"{row.original:.2f} → " + " ".join(f"{row.distilled[ipc]:.2f}" for ipc in (1, 10, 50))
        for (name, kernel), row in TABLE3.items()
    }
    expected = {
        (name, kernel): column
        for name, columns in printed(PRINTED_3).items()
        for kernel, column in zip(("identity", "FCNN", "random_fourier"), columns, strict=True)
    }
    assert found == expected
    assert differing_cells(TABLE3) == 12  # what the project states of the paper's table


def test_table4_is_the_printed_one() -> None:
    expected = {}
    for name, (kip, closed_form) in printed(PRINTED_4).items():
        for ipc, one, other in zip((1, 10, 50), kip.split(" / "), closed_form.split(" / "), strict=True):
            expected[name, ipc] = (timed(one), timed(other))
    found = {
        key: tuple((entry.accuracy, entry.deviation, entry.seconds) for entry in (race.kip, race.closed_form))
        for key, race in TABLE4.items()
    }
    assert found == expected
    for (name, ipc), race in TABLE4.items():
        ratio = race.kip.seconds / race.closed_form.seconds
        assert round(ratio, 1) == SPEED_UPS[name][(1, 10, 50).index(ipc)]
        assert race.kip.extrapolated == (race.kip.accuracy is None), "what was not run is marked"
        assert not race.closed_form.extrapolated


def test_the_spread_is_the_largest_printed_deviation_and_only_of_fcnn() -> None:
    assert [spread(name, "FCNN") for name in ("mnist", "cifar10", "cifar100", "digits")] == [0.24, 0.12, 0.15, None]
    assert spread("mnist", "identity") is None


# ---- table 3


def test_table3_writes_json_markdown_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*TABLE3_DIGITS, "--ipcs", "1,3", "--seeds", "0,1", "--out", str(tmp_path)]
    assert main(line) == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / "table3.json").read_text())
    assert len(document["cells"]) == 3 * 2 * 2
    for cell in document["cells"]:
        assert cell["original_accuracy"] == cell["distilled_accuracy"] > 0.85
        tolerances.assert_promised(cell["certificate"]["weight_relative_error"])
        tolerances.assert_solve(cell["seconds"]["total"], sum(cell["seconds"].values()) / 2)
        assert {"preprocess", "statistics", "ridge", "construct", "preimage"} <= cell["seconds"].keys()
    markdown = (tmp_path / "table3.md").read_text()
    assert markdown in printed
    assert "Distilled equals original in 12 of 12 cells." in markdown
    accuracy = 50 * sum(cell["original_accuracy"] for cell in document["cells"][:4:2])
    assert f"| digits | identity | 1 | {accuracy:.2f} | {accuracy:.2f} | 2 of 2 |" in markdown
    page = check_page((tmp_path / "table3.html").read_bytes())
    assert "12 of 12" in page.words
    assert "0 of the 0" not in page.words
    assert "The paper has no value for these cells." in page.words
    assert [svg["aria-label"] for svg in page.all("svg")] == [
        "digits: test accuracy by map and points per class; original, distilled"
    ]
    assert document["command"] in page.words
    capsys.readouterr()
    assert main([*line, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["cells"] == document["cells"]
    assert again["passed"] is True


def test_the_model_is_that_of_distill(tmp_path: Path) -> None:
    (cell,) = reproduce("table3", closed(seeds=(3,), ipcs=(2,)), out=tmp_path)["cells"]
    data = kd.load_dataset("digits")
    phi = kd.make_map("FCNN", data, kd.standardize(data), seed=3)
    result = kd.distill(data.x_train, data.y_train, phi, points_per_class=2, stratify=False, seed=3, backend="array")
    certificate = result.distilled.verify(result.model, test=data, backend="array")
    assert cell["lambda"] == result.model.lambda_
    assert cell["certificate"] == certificate.numbers()
    assert cell["distilled_accuracy"] == certificate.distilled_accuracy


def test_one_pass_over_the_data_serves_all_cells_of_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    train = case_module.train
    monkeypatch.setattr(case_module, "train", lambda *rest: passes.append(rest) or train(*rest))
    reproduce("table4", gram(ipcs=(1, 2, 5), kip_iterations=3), out=tmp_path)
    assert len(passes) == 1
    reproduce("table4", gram(ipcs=(1, 2, 5), seeds=(0, 1), kip_iterations=3), out=tmp_path)
    assert len(passes) == 2


def test_an_interrupted_table_runs_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = closed(ipcs=(1, 2, 3))
    run = Case.closed_form
    ran: list[int] = []

    def note(self: Case, ipc: int, folder: Path) -> Any:
        if ipc == stop_at:
            raise KeyboardInterrupt
        ran.append(ipc)
        return run(self, ipc, folder)

    monkeypatch.setattr(Case, "closed_form", note)
    stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        reproduce("table3", wanted, out=tmp_path)
    first = Store(tmp_path / "cells").read(Cell("digits", "FCNN", 0, 1, "closed_form"))
    stop_at = 0
    done = reproduce("table3", wanted, out=tmp_path)
    assert ran == [1, 2, 3]
    assert [cell["ipc"] for cell in done["cells"]] == [1, 2, 3]
    assert first is not None
    assert first.items() <= done["cells"][0].items()
    assert sorted(path.suffix for path in (tmp_path / "cells").iterdir()) == [".json"] * 3


def document_of(accuracies: list[float], *, kernel: str = "FCNN", **changes: Any) -> dict[str, Any]:
    """Table 3 with one cell per seed, nothing of which was run."""
    certificate = {"weight_relative_error": 1e-12, "prediction_agreement": 1.0}
    cells = [
        {"dataset": "mnist", "kernel": kernel, "ipc": 1, "seed": seed, "original_accuracy": accuracy,
         "distilled_accuracy": accuracy, "certificate": certificate, "seconds": {"total": 2.0},
         "machine": {"CPUs": "x"}, "versions": {"numpy": "1"}, "finished": "2026-01-01 00:00 UTC", **changes}
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return {"table": "table3", "asked": {}, "command": "krrdistill", "cells": cells, "not_run": []}


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, "2 of 2"),
        ({"distilled_accuracy": 0.9388}, "0 of 2"),
        ({"certificate": {"weight_relative_error": 1e-5, "prediction_agreement": 1.0}}, "0 of 2"),
        ({"certificate": {"weight_relative_error": 1e-9, "prediction_agreement": 0.9999}}, "0 of 2"),
    ],
)
def test_equal_means_equal(change: dict[str, Any], count: str) -> None:
    found = publication(document_of([0.9389, 0.9389], **change))
    assert found.verdict.startswith(f"Distilled equals original in {count} cells.")
    assert found.passed == (count == "2 of 2")


def test_published_accuracies_are_drawn_beside_ours_where_there_are_some() -> None:
    found = publication(document_of([0.9389, 0.9391]))
    ((caption, chart),) = found.sections[0].charts
    assert caption == "mnist: test accuracy by map and points per class"
    assert "original, distilled, distilled, published" in chart
    assert "In the published table 1 of the 3 cells of these rows differ" in found.sections[0].text[1]


def test_a_table_without_a_cell_says_that_nothing_was_measured() -> None:
    empty = publication({**document_of([]), "not_run": []})
    assert empty.verdict == "Nothing was measured."
    assert not empty.passed
    assert "0 of" not in to_markdown(empty)


def test_the_noise_of_seeds_decides_whether_an_original_is_reached() -> None:
    def row(accuracies: list[float], kernel: str = "FCNN") -> tuple[str, ...]:
        return publication(document_of(accuracies, kernel=kernel)).sections[1].rows[0]

    # MNIST, FCNN: published 93.89, its deviation at most 0.24, so 2 * 0.24 * sqrt(1 + 1/2) = 0.59
    assert row([0.9340, 0.9340])[3:] == ("93.40", "0.00", "0.24", "93.89", "-0.49", "0.59", "yes")
    assert row([0.9320, 0.9320])[-1] == "NO"
    assert row([0.91, 0.95])[-3:] == ("-0.89", "6.93", "yes")  # our own spread is the larger one
    assert row([0.9381], "random_fourier")[-2:] == ("–", "unknown")  # one seed, and no published spread
    low = publication(document_of([0.9320, 0.9320]))
    assert "Originals beyond the noise of seeds below the published ones: mnist, FCNN." in low.verdict


def test_a_cell_that_is_not_exact_has_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*TABLE3_DIGITS, "--kernels", "FCNN", "--ipcs", "1", "--seeds", "0", "--out", str(tmp_path)]
    assert main(line) == 0
    (file,) = (tmp_path / "cells").glob("*.json")
    cell, store = Cell("digits", "FCNN", 0, 1, "closed_form"), Store(file.parent)
    store.write(cell, {**(store.read(cell) or {}), "distilled_accuracy": 0.5})
    assert main(line) == 3
    assert "0 of 1 cells" in capsys.readouterr().out
    assert "verdict bad" in (tmp_path / "table3.html").read_text()


# ---- table 4


def test_what_the_budget_ends_is_extrapolated_marked_and_gone_on_with(tmp_path: Path) -> None:
    short = reproduce("table4", gram(kip_iterations=200, time_budget=1e-9), out=tmp_path)
    ours, cut = short["cells"]
    assert (cut["method"], cut["iterations"]) == ("gram", 1)
    markdown = to_markdown(publication(short))
    expected = cut["seconds"]["setup"] + 200 * cut["seconds"]["steps"]
    ratio = expected / ours["seconds"]["total"]
    (line,) = (line for line in markdown.splitlines() if "KIP, gram" in line and line.startswith("|"))
    assert f"| 1 of 200 | {float(f'{expected:.3g}'):g} (extrapolated) | " in line
    assert f"{float(f'{ratio:.3g}'):,g} × (extrapolated)" in line
    whole = reproduce("table4", gram(kip_iterations=200), out=tmp_path)
    assert [cell["iterations"] for cell in whole["cells"][1:]] == [200]
    assert whole["cells"][0] == ours
    assert "extrapolated)" not in to_markdown(publication(whole)).split("## How")[0].split("| data set")[1]
    data = kd.load_dataset("digits")
    phi = kd.make_map("FCNN", data, kd.standardize(data))
    alone = kd.kip_distill(data.x_train, data.y_train, phi, iterations=200, stratify=False, backend="array")
    assert whole["cells"][1]["last"]["train_loss"] == alone.last.train_loss


def test_fewer_iterations_than_were_run_are_refused_in_words(tmp_path: Path) -> None:
    reproduce("table4", gram(kip_iterations=20), out=tmp_path)
    found = reproduce("table4", gram(kip_iterations=10), out=tmp_path)
    (missing,) = found["not_run"]
    assert "is at iteration 20, beyond iterations = 10" in missing["reason"]
    assert missing["reason"] in to_markdown(publication(found))
    assert [cell["method"] for cell in found["cells"]] == ["closed_form"]


@pytest.mark.parametrize("noted", [True, False])
def test_cells_of_another_budget_are_not_compared(noted: bool, tmp_path: Path) -> None:
    reproduce("table4", gram(kip_iterations=20), out=tmp_path)
    store, cell = Store(tmp_path / "cells"), Cell("digits", "FCNN", 0, 1, "gram")
    stored = store.read(cell)
    assert stored is not None
    assert stored["time_budget"] == 60.0
    if not noted:
        del stored["time_budget"]
        store.write(cell, stored)
    found = reproduce("table4", gram(kip_iterations=20, time_budget=1e-9), out=tmp_path)
    (missing,) = found["not_run"]
    said = "a time budget of 60 s" if noted else "an unknown time budget"
    assert f"was made under {said}, not 1e-09 s" in missing["reason"]
    assert [cell["method"] for cell in found["cells"]] == ["closed_form"]
    assert reproduce("table4", gram(kip_iterations=20, time_budget=50.0), out=tmp_path)["cells"][1:], "it took less"


def test_a_cell_is_kept_under_the_budget_that_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = gram(kip_iterations=20, time_budget=1e-9)
    first = reproduce("table4", wanted, out=tmp_path)
    monkeypatch.setattr(Case, "kip", None)
    assert reproduce("table4", wanted, out=tmp_path) == first


def test_the_command_asks_for_the_same_again(tmp_path: Path) -> None:
    command = reproduce("table3", closed(threads=1), out=tmp_path)["command"]
    assert command.endswith("--backend array --threads 1")
    there = reproduce("table3", closed(threads=1), out=tmp_path, data_dir=Path("my data"))["command"]
    assert there == f"{command} --data-dir 'my data'"


def race_document(steps: dict[str, float], iterations: dict[str, int], accuracy: dict[str, float]) -> dict[str, Any]:
    """Table 4 for CIFAR-100, FCNN, ipc 10: a closed form of 20 s, and what KIP's variants are said to have done."""
    common = {"dataset": "cifar100", "kernel": "FCNN", "ipc": 10, "seed": 0, "machine": {"CPUs": "x"},
              "versions": {"numpy": "1"}, "finished": "2026-01-01 00:00 UTC"}  # fmt: skip
    cells: list[dict[str, Any]] = [
        {**common, "method": "closed_form", "distilled_accuracy": 0.2150, "train_loss": 0.9, "val_accuracy": 0.21,
         "seconds": {"total": 20.0}}
    ]  # fmt: skip
    for method, taken in steps.items():
        end = {"test_accuracy": accuracy[method]}
        curve = {"seconds": [0.0, taken], "train_loss": [1.0, 0.95], "val_accuracy": [0.1, 0.2]}
        cells.append({**common, "method": method, "iterations": iterations[method], "best": end, "last": end,
                      "seconds": {"setup": 10.0, "steps": taken}, "curve": curve})  # fmt: skip
    asked = {"kip_iterations": 30_000, "time_budget": 60.0}
    return {"table": "table4", "asked": asked, "command": "krrdistill", "cells": cells, "not_run": []}


def test_ratios_and_differences_are_those_of_the_cells() -> None:
    document = race_document(
        {"gram": 60.0, "published": 100.0}, {"gram": 100, "published": 5}, {"gram": 0.21, "published": 0.19}
    )
    found = publication(document)
    race, duel = found.sections[0].rows, found.sections[1].rows
    assert race[0][4:] == ("cpu", "21.50", "–", "–", "20", "–", "21.59 ± 0.15 (-0.09)", "20", "–")
    assert race[1][4:] == ("cpu", "21.00", "21.00", "100 of 30,000", "18,000 (extrapolated)", "900 × (extrapolated)",
                           "–", "–", "–")  # fmt: skip
    assert race[2][7:] == ("5 of 30,000", "600,000 (extrapolated)", "30,000 × (extrapolated)",
                           "21.56 ± 0.16 (-2.56)", "9,320", "466 ×")  # fmt: skip
    assert duel[0][3:] == ("20", "0.6", "33.3 ×", "19.00", "21.00", "+2.00")
    assert "30,000 times fewer seconds than KIP, published (extrapolated)" in found.verdict
    assert "33 times fewer seconds from the statistics than as published" in found.verdict
    assert "not lower in any cell" in found.verdict
    document["cells"][0]["seconds"]["total"] = 36_000.0
    assert "KIP, gram takes 0.5 times the seconds of the closed form (extrapolated)." in publication(document).verdict
    document["cells"][1]["last"] = {"test_accuracy": 0.18}
    assert "LOWER for cifar100, FCNN, 10 per class" in publication(document).verdict
    assert "## cifar100" not in to_markdown(found), "the Markdown has no charts, and so no headings of theirs"
    page = check_page(to_page(found))
    labels = [svg["aria-label"] or "" for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(labels) == 4
    assert labels[1] == (
        "Seconds of a whole run by points per class, those of KIP extrapolated: closed form, KIP, gram, KIP, published"
    )
    assert "9,320" in page.words


def test_a_published_extrapolation_is_marked_too() -> None:
    document = race_document({"published": 100.0}, {"published": 30_000}, {"published": 0.19})
    for cell in document["cells"]:
        cell["ipc"] = 50
    row = publication(document).sections[0].rows[1]
    assert row[7:] == ("30,000", "110", "5.5 ×", "–", "396,000 (extrapolated)", "15,800 × (extrapolated)")


def test_without_torch_the_published_cells_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    line = ["reproduce", "table4", "--datasets", "digits", "--ipcs", "1", "--seeds", "0", "--backend", "array",
            "--kip-iterations", "5", "--out", str(tmp_path)]  # fmt: skip
    assert main(line) == 1
    assert "pip install torch" in capsys.readouterr().err
    markdown = (tmp_path / "table4.md").read_text()
    assert "## Not run" in markdown
    assert "| digits | FCNN | 1 | 0 | published | kip: variant 'published' needs PyTorch" in markdown
    assert "KIP, gram" in markdown
    assert not list((tmp_path / "cells").glob("*published*"))


def test_published_kip_is_a_row_of_the_table(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    found = reproduce("table4", options(kip_iterations=12), out=tmp_path)
    assert [cell["method"] for cell in found["cells"]] == ["closed_form", "gram", "published"]
    gram_cell, published = found["cells"][1:]
    assert published["curve"]["iteration"] == [0, 10, 12]
    tolerances.assert_estimate(published["last"]["train_loss"], gram_cell["last"]["train_loss"])
    assert [part.name for part in publication(found).sections] == ["race", "kip", "curve-digits-FCNN-1", "how"]


def test_sigkill_and_the_same_command_finish_the_table(tmp_path: Path) -> None:
    """Killed inside of a cell of KIP: the cells before it stay, it goes on from its checkpoint to the same result."""
    words = [*TABLE4_DIGITS, "--ipcs", "1", "--seeds", "0", "--kip-iterations", "300", "--threads", "1", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    cell = Cell("digits", "FCNN", 0, 1, "gram")
    kill_at_write(".checkpoint.npz", 2, [*words, str(killed)])
    assert Store(killed / "cells").checkpoint(cell).exists()
    assert not Store(killed / "cells").path(cell).exists()
    first = (Store(killed / "cells").path(replace(cell, method="closed_form"))).read_bytes()
    for folder in (killed, whole):
        assert main([*words, str(folder)]) == 0
    found, expected = (Store(folder / "cells").read(cell) for folder in (killed, whole))
    assert found is not None
    assert expected is not None
    for name in ("last", "best", "iterations"):
        assert found[name] == expected[name]
    assert found["curve"]["train_loss"] == expected["curve"]["train_loss"]
    assert (Store(killed / "cells").path(replace(cell, method="closed_form"))).read_bytes() == first


# ---- devices


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's CPU in the place of a GPU."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

    class Elsewhere(TorchPlace):
        def facts(self) -> dict[str, str]:
            return {**super().facts(), "device": "cuda:0", "gpu": "Some GPU", "tf32": "off"}

    for module in (run_module, kip_module):
        monkeypatch.setattr(module, "place_of", lambda asked: Elsewhere() if asked.device != "cpu" else place_of(asked))


def test_a_table_of_a_device_stands_beside_that_of_the_cpu(elsewhere: None, tmp_path: Path) -> None:
    """Every contestant says where it ran, and no cell of one device passes for one of another."""
    cpu = reproduce("table4", gram(kip_iterations=3), out=tmp_path)
    gpu = reproduce("table4", options(kip_iterations=3, device="cuda"), out=tmp_path)
    label = "cuda:0 (Some GPU), TF32 off"
    assert [cell["ran_on"] for cell in cpu["cells"]] == ["cpu", "cpu"]
    assert [cell["ran_on"] for cell in gpu["cells"]] == ["cpu", label, label]
    assert gpu["cells"][1]["steps_on"]["torch"]
    assert gpu["command"].endswith("--device cuda --backend array")
    rows = publication(gpu).sections[0].rows
    assert [row[3:5] for row in rows] == [("closed form", "cpu"), ("KIP, gram", label), ("KIP, published", label)]
    names = {path.name for path in (tmp_path / "cells").iterdir()}
    assert {"digits-FCNN-ipc1-seed0-gram.json", "digits-FCNN-ipc1-seed0-gram-cuda.json"} <= names
    before = {cell["finished"] for cell in gpu["cells"]}
    assert {cell["finished"] for cell in reproduce("table4", options(kip_iterations=3, device="cuda"), out=tmp_path)[
        "cells"]} == before  # fmt: skip


def test_a_cell_from_before_there_were_devices_is_one_of_the_cpu(tmp_path: Path) -> None:
    asked = closed()
    reproduce("table3", asked, out=tmp_path)
    (path,) = (tmp_path / "cells").iterdir()
    content = json.loads(path.read_text())
    del content["cell"]["device"], content["result"]["ran_on"], content["digest"]
    path.write_text(json.dumps(content))
    (cell,) = reproduce("table3", asked, out=tmp_path)["cells"]
    assert cell["finished"] == content["result"]["finished"]


def test_a_kip_cell_that_does_not_say_where_it_ran_is_of_the_cpu_whatever_its_backend() -> None:
    document = race_document({"gram": 60.0}, {"gram": 100}, {"gram": 0.21})
    for cell in document["cells"]:
        cell["backend"] = "cuda"
    assert [row[4] for row in publication(document).sections[0].rows] == ["cuda:0", "cpu"]


def test_a_gpu_is_for_all_methods_or_for_the_closed_form_alone() -> None:
    with pytest.raises(ValueError, match=r"on the CPU; pass device='cuda' .* or methods=\('closed_form',\)"):
        options(backend="cuda")
    assert closed(backend="cuda").device == "cpu"
    assert options(device="cuda", backend=None).backend == "cuda"


# ---- bad input


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "krrdistill-cell-1", "cell": {"dataset": "mnist"}, "result": {}}']
)
def test_a_file_that_is_no_cell_is_named(content: str, tmp_path: Path) -> None:
    path = Store(tmp_path / "cells").path(Cell("digits", "FCNN", 0, 1, "closed_form"))
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(kd.DataError, match=r"digits-FCNN-ipc1-seed0-closed_form\.json: not the result of this cell"):
        reproduce("table3", closed(), out=tmp_path)
    assert path.read_text() == content


def test_cell_that_was_edited_is_refused(tmp_path: Path) -> None:
    store, cell = Store(tmp_path), Cell("digits", "FCNN", 0, 1, "closed_form")
    store.write(cell, {"distilled_accuracy": 0.5, "seconds": {"total": 1.0}})
    content = json.loads(store.path(cell).read_text())
    content["result"]["distilled_accuracy"] = 0.9
    store.path(cell).write_text(json.dumps(content))
    with pytest.raises(kd.DataError, match=r"it was changed after it was written.*; delete it to run the cell again"):
        store.read(cell)


def test_a_cell_without_its_numbers_is_named(tmp_path: Path) -> None:
    cell = Cell("digits", "FCNN", 0, 1, "gram")
    store = Store(tmp_path / "cells")
    store.folder.mkdir()
    store.write(cell, {"iterations": 5})
    with pytest.raises(kd.DataError, match=r"digits-FCNN-ipc1-seed0-gram\.json: not the result of this cell"):
        reproduce("table4", options(methods=("gram",)), out=tmp_path)
    store.write(Cell("digits", "FCNN", 0, 1, "closed_form"), {})
    document = reproduce("table3", closed(), out=tmp_path)
    with pytest.raises(kd.DataError, match="the results of the cells are not whole"):
        publication(document)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table5"], "there are table3, table4 and figures; got 'table5'"),
        (["table3", "--methods", "gram"], "--methods belongs to table4"),
        (["table3", "--time-budget", "5"], "--time-budget belongs to table4"),
        (["table3", "--device", "cuda"], "--device belongs to table4"),
        (["table4", "--device", "gpu"], "device must be one of cpu, cuda or cuda:N; got 'gpu'"),
        (["table4", "--backend", "cuda"], "pass device='cuda' (--device cuda) for both"),
        (["table4", "--ipcs", "1,x"], "--ipcs must be integers with commas between, got 'x'"),
        (["table4", "--ipcs", "0"], "ipcs must be >= 1, got 0"),
        (["table4", "--seeds", ","], "--seeds must be integers with commas between"),
        (["table4", "--datasets", "imagenet"], "datasets must be one of digits, mnist"),
        (["table4", "--kernels", "rbf"], "kernels must be one of identity"),
        (["table4", "--kip-iterations", "0"], "--kip-iterations must be >= 1"),
        (["table4", "--time-budget", "0"], "--time-budget must be finite and > 0"),
        (["table4", "--threads", "0"], "threads must be >= 1, got 0"),
        (["table4", "--seeds", str(1 << 64)], "--seeds must be >= 0 and < 2^64"),
        (["table4", "--backend", "fortran"], "backend must be one of native"),
    ],
)
def test_bad_words_are_usage_errors(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path / "o")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_absent_data_set_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    line = ["reproduce", "table3", "--datasets", "cifar10", "--data-dir", str(tmp_path / "none")]
    assert main([*line, "--out", str(tmp_path / "o")]) == 1
    (line_,) = capsys.readouterr().err.strip().splitlines()
    assert "cifar10" in line_


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_renders_the_tables(scheme: str, tmp_path: Path) -> None:
    document = race_document(
        {"gram": 60.0, "published": 100.0}, {"gram": 100, "published": 5}, {"gram": 0.21, "published": 0.19}
    )
    page = tmp_path / "table4.html"
    page.write_bytes(to_page(publication(document)))
    screenshot(page, tmp_path, size="1280,1600", scheme=scheme)
