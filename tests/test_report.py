"""The page of a run and of runs side by side: what stands on it, that it is whole, and what a bad folder gives."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import tiny_images, write_npz
from pages import Page, check_page, screenshot, worked_on

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("matplotlib", reason="the cli extra is not installed")
pytest.importorskip("jinja2", reason="the cli extra is not installed")

from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

import krrdistill as kd
import tolerances
from krrdistill.apps.cli import main
from krrdistill.apps.cli.settings import DistillSettings, KipSettings, command_line
from krrdistill.apps.report.axes import PALETTE
from krrdistill.apps.report.compare import Comparison, compare_page
from krrdistill.apps.report.pictures import Gallery, gallery
from krrdistill.apps.report.render import TEMPLATES, environment
from krrdistill.apps.report.run_folder import read_run
from krrdistill.apps.roofline import pass_floor, pass_flops, search_notice, search_seconds
from krrdistill.apps.text import megabytes, number, percent, seconds
from krrdistill.options import MapOptions

NASTY = "<script>alert(1)<b>&amp;\"'"
NAMES = ["<img src=x>", 'b"c', "d'e", "f&g"]
MAP = ["--backend", "array", "--hidden-layer", "1", "--kernel", "FCNN"]


def pixels_of(address: str | None) -> Any:
    """The pixels of a picture inside the page."""
    kind, _, content = (address or "").partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert f"data:image/{(image.format or '').lower()}" == kind
        return np.asarray(image)


def charts_of(page: Page) -> list[str]:
    """What is said of every chart to who does not see it."""
    return [svg["aria-label"] or "" for svg in page.all("svg") if svg.get("role") == "img"]


def make_run(folder: Path, name: str, *options: str, shape: tuple[int, ...] = (4, 5, 3), k: int = 4) -> Path:
    """A run on random images, from a file called ``name``.npz."""
    data = write_npz(folder / f"{name}.npz", tiny_images(shape, k=k, n_train=80), class_names=np.array(NAMES[:k]))
    out = folder / f"run-{len(list(folder.iterdir()))}"
    words = ["distill", "--dataset", str(data), *(() if "--kernel" in options else MAP), "--lambdas", "1,10,100"]
    words += ["--out", str(out), *options]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run with a real start and a nasty name, and one from noise."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder, NASTY, "--init", "real", "--ipc", "3", "--precision", "float64"),
        make_run(folder, "plain", "--precision", "float64"),
    ]


@pytest.fixture
def run(runs: list[Path], tmp_path: Path) -> Path:
    """A copy of the first run, to be damaged."""
    return Path(shutil.copytree(runs[0], tmp_path / "copy"))


def edit(run: Path, change: Any) -> None:
    """Changes report.json."""
    report = json.loads((run / "report.json").read_text())
    change(report)
    (run / "report.json").write_text(json.dumps(report))


def edit_data(run: Path, **arrays: Any) -> None:
    """Replaces arrays of figure_data.npz; None removes one."""
    with np.load(run / "figure_data.npz") as archive:
        kept = {**archive, "digest": None, **arrays}
    np.savez(run / "figure_data.npz", **{name: array for name, array in kept.items() if array is not None})


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line.removeprefix("krrdistill: error: ")


def test_the_page_is_whole_and_says_what_the_run_says(runs: list[Path]) -> None:
    page = check_page((runs[0] / "report.html").read_bytes())
    report = json.loads((runs[0] / "report.json").read_text())
    for accuracy in (report["original"]["test_accuracy"], report["distilled"]["test_accuracy"], report["val_accuracy"]):
        assert percent(accuracy) in page.words
    for value in ("weight_relative_error", "condition"):
        assert number(report["certificate"][value]) in page.words
    assert all(stage in page.words for stage in report["seconds"])
    assert megabytes(report["peak_memory_bytes"]) in page.words
    assert report["command"] in page.words
    assert all(version in page.words for version in read_run(runs[0]).meta["versions"].values())
    assert "Exact." in page.words
    assert "NOT EXACT" not in page.words
    assert [chart.split(",")[0].split(" from")[0] for chart in charts_of(page)] == [
        "Heat map of the labels of 12 distilled samples", "Heat map: confusion matrix of 4 classes",
        f"Heat map: 0 of {report['n_test']} predictions differ", "Heat map of 4 rows: W of the original model",
        "Heat map of 4 rows: W_S", "Heat map of 4 rows: W_S - W",
        "Line chart: validation accuracy (%)", "Line chart: training RMSE", "Line chart of 12 singular values",
    ]  # fmt: skip
    alts = [attributes["alt"] for attributes in page.all("img")]
    assert alts == [f"{role}: {name}, 3 samples" for name in NAMES for role in ("real start", "distilled")]


def test_a_choice_by_gcv_is_shown_as_such(tmp_path: Path, runs: list[Path]) -> None:
    run = make_run(tmp_path, "gcv", "--selection", "gcv", "--precision", "float64")
    page = check_page((run / "report.html").read_bytes())
    score = read_run(run).path.score
    assert read_run(run).record.criterion == "gcv"
    assert "has the smallest generalised cross-validation score." in page.words
    assert number(score[np.nanargmin(score)]) in page.words
    assert not any(words in page.words for words in ("validation accuracy (%)", "best accuracy", "validation samples"))
    assert charts_of(page)[6].startswith("Line chart: generalised cross-validation score,")
    both = check_page(compare_page(Comparison.of([read_run(run), read_run(runs[1])])))
    assert [chart.split(" against")[0] for chart in charts_of(both)] == [
        "Line chart: validation accuracy (%)", "Line chart: generalised cross-validation score",
    ]  # fmt: skip


def test_names_are_escaped(runs: list[Path]) -> None:
    content = (runs[0] / "report.html").read_bytes()
    page = check_page(content)
    assert NASTY in page.words
    assert all(name in page.words for name in NAMES)
    assert content.count(b"<script") == 1, "the one that check_page knows"


def test_a_noise_start_has_no_starts(runs: list[Path]) -> None:
    page = check_page((runs[1] / "report.html").read_bytes())
    assert [attributes["alt"] for attributes in page.all("img")] == [f"distilled: {name}" for name in NAMES]


def test_pictures_hold_the_samples(runs: list[Path]) -> None:
    record = read_run(runs[0])
    assert record.start_images is not None
    sources = [attributes["src"] for attributes in Page((runs[0] / "report.html").read_bytes()).all("img")]
    for c, source in enumerate(sources[::2]):
        pixels = pixels_of(source)
        assert pixels.shape == (4, 17, 4)  # three samples of 4 x 5 with a transparent column between
        for copy in range(3):
            part = pixels[:, 6 * copy : 6 * copy + 5]
            np.testing.assert_array_equal(part[..., :3], record.start_images[4 * copy + c])
            assert (part[..., 3] == 255).all()
        assert (pixels[:, [5, 11], 3] == 0).all()


def test_written_again_from_the_folder_it_has_the_same_bytes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": str(run / "report.html"), "bytes": len(before)}
    assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize("error", [1e-3, None])
def test_a_run_that_is_not_exact_says_so_first(error: float | None, run: Path) -> None:
    edit(run, lambda report: report["certificate"].update(weight_relative_error=error))
    assert main(["report", str(run)]) == 0
    page = check_page((run / "report.html").read_bytes())
    assert 0 < page.words.index("NOT EXACT") < page.words.index("test accuracy")
    assert "Exact." not in page.words


@pytest.mark.parametrize("measured", [0.5, 0.0625])
def test_floor_above_the_measured_time_is_no_floor(measured: float, run: Path) -> None:
    edit(run, lambda report: report.update(floor_seconds={"statistics": 0.125}))
    edit(run, lambda report: report["seconds"].update(statistics=measured))
    assert main(["report", str(run)]) == 0
    page = check_page((run / "report.html").read_bytes())
    words = " ".join(page.words.split())
    assert "0.125 s" in words
    assert "measured after the run" in words
    assert ("measured after the run, 0.125 s, so that no floor is shown" in words) == (measured < 0.125)
    assert len(page.all("line")) == (measured > 0.125)


@pytest.mark.parametrize("name", ["report.json", "distilled.npz", "figure_data.npz"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_folder_is_one_line(name: str, damage: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "report.html").read_bytes()
    content = (run / name).read_bytes()
    (run / name).unlink()
    if damage != "missing":
        (run / name).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    assert main(["report", str(run)]) == 1
    assert str(run / name) in error_of(capsys)
    assert (run / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.pop("kernel"), "kernel is missing"),
        (lambda r: r.update(ipc="3"), "ipc is '3'"),
        (lambda r: r.update(k=True), "k is True"),
        (lambda r: r.update(m=11), "holds 12 samples"),
        (lambda r: r.update(store="int4"), "store is 'int4'"),
        (lambda r: r.update(criterion="luck"), "criterion is 'luck', expected one of accuracy, r2"),
        (lambda r: r.update(value_range=[1, 1]), "value_range must be"),
        (lambda r: r["certificate"].pop("condition"), "certificate.condition is missing"),
        (lambda r: r.update(certificate=[1]), "certificate is [1]"),
        (lambda r: r.update(warnings=[3]), "warnings is 3"),
        (lambda r: r.update(m=10**4000), "m is 1000"),
        (lambda r: r.update(peak_memory_bytes=1.5), "peak_memory_bytes is 1.5"),
        (lambda r: r["seconds"].pop("total"), "seconds.total is missing"),
        (lambda r: r.update(labels_only={"m": [1, 2], "weight_relative_error": [0.1]}), "labels_only: m and"),
        (lambda r: r.update(solution={"method": None}), "solution.method is None"),
        (lambda r: r["seconds"].update(ridge="long"), "seconds.ridge is 'long'"),
        (lambda r: r["seconds"].update(total=float("inf")), "not JSON"),
    ],
)
def test_a_report_that_no_run_writes(change: Any, words: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, change)
    assert main(["report", str(run)]) == 1
    assert words in error_of(capsys)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"lambdas": None}, "lambdas is missing"),
        ({"lambdas": np.array([0.0, 1.0, 2.0])}, "lambdas must be positive"),
        ({"train_rmse": np.ones(2)}, "must be of one length"),
        ({"best": np.array(3)}, "best must be one index below 3"),
        ({"singular_values": np.array([np.nan])}, "singular_values must be finite"),
        ({"score": np.array(["a", "b", "c"])}, "score has dtype"),
        ({"start_images": np.zeros((12, 4, 5))}, "start_images are"),
        ({"outcomes": np.array([[0, 0, 4, 1]])}, "outcomes must be int64 (r, 4), classes below 4"),
        ({"outcomes": np.array([[0, 0, 0, 1]])}, "counts that sum to"),
        ({"outcomes": np.ones((0, 4), int)}, "outcomes must be"),
        ({"outcomes": np.ones((2, 4))}, "outcomes must be"),
        ({"weights": np.zeros((4, 3))}, "weights and weights_difference must be finite float64 (c, 60)"),
        ({"weights_difference": np.full((4, 60), np.inf)}, "weights and weights_difference must be"),
        ({"weights_difference": None}, "weights and weights_difference must be"),
    ],
)
def test_figure_data_that_no_run_writes(arrays: Any, words: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_data(run, **arrays)
    assert main(["report", str(run)]) == 1
    assert words in error_of(capsys)


def test_a_folder_that_is_not_there_is_a_usage_error(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert error_of(capsys) == f"no such folder: {tmp_path / 'none'}"
    assert main(["compare", str(runs[0])]) == 2
    assert error_of(capsys) == "compare needs at least two runs, got 1"
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "none" / "c.html")]) == 2
    assert error_of(capsys) == f"no such folder: {tmp_path / 'none'}"
    assert main(["compare", *map(str, runs), "--out", str(tmp_path)]) == 2
    assert error_of(capsys) == f"compare: --out must name a file, {tmp_path} is a folder"
    assert main(["compare", str(runs[0]), str(tmp_path), "--out", str(tmp_path / "c.html")]) == 2
    assert error_of(capsys) == f"compare: no run in {tmp_path}"
    assert not (tmp_path / "c.html").exists()


def test_runs_side_by_side(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", *map(str, runs)]
    assert main([*words, "--out", str(tmp_path / "c.html")]) == 0
    common, head, *rows = capsys.readouterr().out.splitlines()[:4]
    assert "kernel FCNN" in common
    assert "exact yes" in common
    assert all(name in head for name in ("data set", "init", "samples"))
    assert [row.split()[0] for row in rows] == [runs[0].name, runs[1].name]
    page = check_page((tmp_path / "c.html").read_bytes())
    assert len(page.all("img")) == 8
    assert main([*words, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["runs"]
    assert [entry["folder"] for entry in entries] == [str(run) for run in runs]
    assert [entry["init"] for entry in entries] == ["real", "noise"]
    assert [entry["exact"] for entry in entries] == [True, True]


def test_a_comparison_names_the_runs_that_are_not_exact(
    run: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, lambda report: report["certificate"].update(weight_relative_error=0.5))
    assert main(["compare", str(run), str(runs[1]), "--out", str(tmp_path / "c.html")]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "NOT EXACT: copy"
    assert "NOT EXACT: copy" in check_page((tmp_path / "c.html").read_bytes()).words


def test_the_command_asks_for_the_same_run(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DistillSettings(
        dataset="digits", zca=True, out=Path("a b"), map_options=MapOptions(kernel="random_fourier", sigma2=2.5),
        options=kd.DistillOptions(lambda_s="auto", embed_map=False, lambdas=(0.1, 1e-7), seed=3, store="float32",
                                  refit=True),
    )  # fmt: skip
    seen: list[DistillSettings] = []
    monkeypatch.setattr("krrdistill.apps.cli.run.run_distill", lambda settings, as_json: seen.append(settings) or 0)
    words = shlex.split(shlex.join(command_line(settings)))
    assert words[0] == "krrdistill"
    assert main(words[1:]) == 0
    assert seen == [settings]


@pytest.fixture(scope="module")
def kip_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty iterations on random images."""
    folder = tmp_path_factory.mktemp("kip")
    data = write_npz(folder / "plain.npz", tiny_images((4, 5, 3), k=4, n_train=80), class_names=np.array(NAMES))
    out = folder / "run"
    words = ["kip", "--dataset", str(data), *MAP, "--lambdas", "1,10", "--iterations", "20", "--evaluate-every", "5"]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_the_page_of_kip_has_its_curves_beside_the_closed_form(kip_run: Path) -> None:
    page = check_page((kip_run / "report.html").read_bytes())
    report = json.loads((kip_run / "report.json").read_text())
    assert "Exact" not in page.words
    assert "NOT EXACT" not in page.words
    assert [label.split(": ")[-1] for label in charts_of(page)[:2]] == ["closed form, KIP, gram"] * 2
    for end in ("best", "last"):
        assert number(report[end]["train_loss"]) in page.words
        assert percent(report[end]["test_accuracy"]) in page.words
    assert seconds(report["closed_form"]["seconds"]) in page.words
    assert report["command"] in page.words
    assert report["command"].startswith("krrdistill kip --dataset")
    before = (kip_run / "report.html").read_bytes()
    assert main(["report", str(kip_run)]) == 0
    assert (kip_run / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("report.json", {"lr": "fast"}, "lr is 'fast'"),
        ("report.json", {"best": {}}, "best.iteration is missing"),
        ("report.json", {"closed_form": {"seconds": "long"}}, "closed_form.seconds is 'long'"),
        ("curve.npz", {"digest": np.array("of other numbers")}, "its content was changed after it was written"),
        ("figure_data.npz", {"digest": np.array("of other numbers")}, "its content was changed after it was written"),
        ("curve.npz", {"seconds": None}, "seconds is missing"),
        ("curve.npz", {"train_loss": np.full(5, np.nan)}, "must be finite and of one length"),
        ("curve.npz", {"seconds": np.ones(3)}, "must be finite and of one length"),
    ],
)
def test_a_damaged_run_of_kip_is_one_line(
    name: str, change: dict[str, Any], words: str, kip_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(kip_run, tmp_path / "copy"))
    if name == "report.json":
        edit(copy, lambda report: report.update(change))
    else:
        with np.load(copy / name) as archive:
            kept = {**archive, "digest": None, **change}
        np.savez(copy / name, **{key: array for key, array in kept.items() if array is not None})
    assert main(["report", str(copy)]) == 1
    message = error_of(capsys)
    assert str(copy / name) in message
    assert words in message


def test_kip_beside_the_closed_form(
    runs: list[Path], kip_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs[1]), str(kip_run), "--out", str(tmp_path / "c.html")]) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("method", "closed form", "KIP, gram, 20 steps"))
    assert "NOT EXACT" not in printed
    words = check_page((tmp_path / "c.html").read_bytes()).words
    assert "Every closed form is exact; 1 of the runs are KIP." in words
    assert "NOT EXACT" not in words


def test_the_command_asks_for_the_same_run_of_kip(kip_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = kd.KipOptions(iterations=7, lr=0.5, warm_start=True, variant="published")
    settings = KipSettings(map_options=MapOptions(kernel="FCNN"), options=options)
    seen: list[KipSettings] = []
    monkeypatch.setattr("krrdistill.apps.cli.kip.run_kip", lambda settings, as_json: seen.append(settings) or 0)
    assert main(shlex.split(shlex.join(command_line(settings)))[1:]) == 0
    assert seen == [settings]


def test_pictures_keep_within_three_megabytes(rng: np.random.Generator) -> None:
    """CIFAR-100 at 10 per class: distilled images as incompressible as can be, starts with some structure."""
    images = rng.uniform(0, 255, (1000, 32, 32, 3)).astype(np.float32)
    starts = images[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    names = [f"class {c}" for c in range(100)]

    def size(shown: Gallery) -> int:
        return sum(len(c.distilled) + len(c.start or "") for c in shown.classes)

    whole = gallery(images, names, start=starts, value_range=(0.0, 255.0))
    assert (len(whole.classes), whole.copies) == (100, 10)
    assert 1.5e6 < size(whole) < 2.9e6  # the rest of the page takes 0.1e6
    assert any("JPEG" in note for note in whole.notes)
    assert not any("are shown" in note for note in whole.notes if "stretched" not in note)
    first = whole.classes[0]
    pixels = pixels_of(first.distilled)
    assert pixels.shape[1::-1] == (first.width, first.height) == (329, 32)
    error = pixels[:, :32].astype(float) - images[0]
    assert np.sqrt(np.mean(error**2)) < 40.0, "noise of 74 loses some, but is recognised"
    for start, budget, copies in ((starts, 800_000, 1), (None, 800_000, 2)):
        shown = gallery(images, names, start=start, value_range=(0.0, 255.0), budget=budget)
        assert (len(shown.classes), shown.copies) == (100, copies)
        assert size(shown) < 1.45 * budget
        assert f"the first {copies} of 10 samples per class are shown; distilled.npz holds all" in shown.notes
        assert all(c.distilled.startswith("data:image/png") for c in shown.classes)
    few = gallery(images, names, start=None, value_range=(0.0, 255.0), budget=10_000)
    assert (len(few.classes), few.copies) == (2, 1)
    assert any(note.startswith("the first 2 of 100 classes") for note in few.notes)


def test_grey_samples_are_compressed_too(rng: np.random.Generator) -> None:
    images = rng.uniform(0, 255, (40, 20, 20)).astype(np.float32)
    shown = gallery(images, ["a", "b"], start=None, value_range=(0.0, 255.0), budget=14_000)
    assert shown.copies == 20
    sheet = pixels_of(shown.classes[1].distilled)
    assert sheet.shape == (41, 209)
    assert abs(int(sheet[10, 20]) - 128) < 100
    loose = gallery(images, ["a", "b"], start=None, value_range=(0.0, 255.0))
    assert loose.classes[0].distilled.startswith("data:image/png")


def test_vectors_are_strips_and_no_squares() -> None:
    vectors = np.array([[0, 255, 0, 255, 255] * 8, [255, 0, 0, 0, 0] * 8], dtype=np.float32)
    shown = gallery(vectors, ["a", "b"], start=None, value_range=(0.0, 255.0))
    for picture, vector in zip(shown.classes, vectors, strict=True):
        np.testing.assert_array_equal(pixels_of(picture.distilled), [vector] * 3)


def test_templates_escape_and_refuse_unknown_names() -> None:
    template = environment().from_string("<p title='{{ a }}'>{{ a }}</p>{{ b }}")
    assert template.render(a="\"'<&>", b=Markup("<b></b>")) == (
        "<p title='&#34;&#39;&lt;&amp;&gt;'>&#34;&#39;&lt;&amp;&gt;</p><b></b>"
    )
    with pytest.raises(UndefinedError):
        template.render(a="")
    assert all(environment().get_template(name) for name in TEMPLATES)


def test_numbers_in_words() -> None:
    assert [seconds(value) for value in (None, 0.01234, 12.34, 754.0)] == ["-", "12.3 ms", "12.3 s", "12 min 34 s"]
    assert (percent(None), percent(0.8641), number(1e4), megabytes(1_234_567)) == ("-", "86.41 %", "10000", "1.2 MB")


def test_the_floor_is_measured_for_long_passes_only() -> None:
    phi = kd.FCNN(100, hidden_layers=2)
    assert pass_flops(phi, 1000) == 1000 * (2 * sum(layer.weight.size for layer in phi.layers) + 100**2)
    assert pass_floor(phi, 1000, "float32") is None
    short, long = (pass_floor(phi, n, "float32") for n in (10_000_000, 1_000_000_000))
    assert short is not None
    assert long is not None
    assert 0.0 < short < long


def test_the_expected_time_of_a_search_is_its_arithmetic_at_the_rate_of_a_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("krrdistill.apps.roofline._seconds_per_flop", lambda precision: 1e-8)
    affine, network = search_seconds(kd.Identity(100)), search_seconds(kd.FCNN(100))
    tolerances.assert_solve(affine, 10 * 100**3 * 1e-8)
    tolerances.assert_solve(network, 100 * 100**3 * 1e-8)
    assert search_seconds(kd.FCNN(100, [50])) == network / 2
    assert "expected to take a few seconds after" in search_notice(kd.FCNN(100), None)
    assert "expected to take 4 to 16 s after" in search_notice(kd.FCNN(200), None)


@pytest.mark.parametrize(
    ("n_val", "asked", "words"),
    [
        (0, {}, "57 samples"),
        (3, {}, "57 samples (lambda chosen on 3 others)"),
        (3, {"refit": ""}, "57 samples (lambda chosen on 3 of them)"),
    ],
)
def test_a_run_says_what_its_samples_that_were_not_trained_on_are(
    n_val: int, asked: dict[str, str], words: str, runs: list[Path]
) -> None:
    record = replace(read_run(runs[1]).record, n_train=57, n_val=n_val, asked=asked)
    assert record.training == words


@pytest.mark.parametrize(
    ("limit", "takes"),
    [(60.0, "4 to 16 s"), (9.0, "4 to 9 s"), (4.0, "its whole limit of 4 s"), (0.5, "its whole limit of 0.5 s")],
)
def test_the_expected_time_of_a_search_with_a_limit_is_not_beyond_it(
    limit: float, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krrdistill.apps.roofline._seconds_per_flop", lambda precision: 1e-8)
    said = search_notice(kd.FCNN(200), limit)
    assert f"is expected to take {takes} after the model is trained; it ends after {limit:g} s at the latest" in said


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_renders_the_page_of_kip(scheme: str, kip_run: Path, tmp_path: Path) -> None:
    screenshot(kip_run / "report.html", tmp_path, size="500,1600", scheme=scheme)


@pytest.mark.chromium
@pytest.mark.parametrize("size", ["1280,1600", "500,1600"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chromium_renders_the_page(size: str, scheme: str, runs: list[Path], tmp_path: Path) -> None:
    """The pictures are there, nothing is logged, and the page is as dark as asked for."""
    pixels = screenshot(runs[0] / "report.html", tmp_path, size=size, scheme=scheme)
    assert np.ptp(pixels, axis=-1).max() > 0.5  # the random colours of the pictures


@pytest.mark.parametrize("budget", [1_200_000, 500_000])
def test_pictures_of_large_noise_are_jpeg(budget: int) -> None:
    """More bytes than pixels at the best quality: what a buffer of one byte a pixel has no room for."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 320, 640, 3)).astype(np.float32)
    shown = gallery(images, ["a", "b"], start=None, value_range=(0.0, 255.0), budget=budget)
    assert all(picture.distilled.startswith("data:image/jpeg") for picture in shown.classes)
    assert pixels_of(shown.classes[0].distilled).shape == (320, 640, 3)


def test_light_and_dark_colours_have_the_same_names() -> None:
    style = resources.files("krrdistill.apps.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    for scheme in ("prefers-color-scheme: dark", "print"):
        _, _, rules = style.partition(f"@media {scheme}" if scheme == "print" else scheme)
        named = set(re.findall(r"--([a-z-]+):", rules.partition("}")[0]))
        assert set(PALETTE) <= named, scheme


def test_page_counts_the_predictions_that_differ(runs: list[Path], run: Path) -> None:
    found = read_run(runs[0])
    assert found.outcomes is not None
    truth, original, _, counts = found.outcomes.T
    words = " ".join(check_page((runs[0] / "report.html").read_bytes()).words.split())
    assert f"0 of {counts.sum()} predictions differ between the original" in words
    for c, name in enumerate(NAMES):
        right, of = (int(counts[(truth == c) & chosen].sum()) for chosen in (original == c, original >= 0))
        assert f"{name}{of}{percent(right / of)}{percent(right / of)}" in words
    assert re.search(r"right on [\d.]+ % of class .* \(lowest\) to [\d.]+ % of class .* \(highest\)", words)
    changed = found.outcomes.copy()
    changed[0, 2] = (changed[0, 1] + 1) % 4
    edit_data(run, outcomes=changed)
    assert main(["report", str(run)]) == 0
    assert f"{changed[0, 3]} of {counts.sum()} predictions differ" in (run / "report.html").read_text()


def test_page_of_a_model_that_is_always_right_names_no_class(run: Path) -> None:
    found = read_run(run).outcomes
    assert found is not None
    edit_data(run, outcomes=np.column_stack([found[:, [0, 0, 0]], found[:, 3]]))
    assert main(["report", str(run)]) == 0
    assert "is right on 100.00 % of every class." in (run / "report.html").read_text()


def test_older_folder_says_what_is_not_in_it(run: Path) -> None:
    edit_data(run, outcomes=None, weights=None, weights_difference=None)
    assert main(["report", str(run)]) == 0
    words = check_page((run / "report.html").read_bytes()).words
    assert "What each model predicts is not in the files of this run." in words
    assert "The weights are not in the files of this run." in words


def test_verdict_says_what_it_means(runs: list[Path], run: Path) -> None:
    real, noise = (" ".join(check_page((each / "report.html").read_bytes()).words.split()) for each in runs)
    assert "Ridge regression on these 12 samples and their labels gives the model of all" in real
    assert "a low PSNR is no fault. The closed form moves them as far as it needs to; --realism 1" in real
    assert "look like noise. That is expected and no fault" in noise
    assert "look like noise" not in real
    edit(run, lambda report: report["certificate"].update(weight_relative_error=0.5))
    assert main(["report", str(run)]) == 0
    words = " ".join(check_page((run / "report.html").read_bytes()).words.split())
    assert "NOT EXACT. The model retrained from these 12 samples differs from the original one." in words
    assert "What to do: use more points per class, or float64 storage." in words


def test_labels_are_drawn_by_class(runs: list[Path]) -> None:
    page = check_page((runs[0] / "report.html").read_bytes())
    shapes = [pixels_of(image["href"]).shape[:2] for image in page.all("image")]
    assert shapes[0] == (12, 4), "a row for each sample, before the scale of colours"
    run = read_run(runs[0])
    drawn = pixels_of(page.all("image")[0]["href"])[..., :3].astype(int)
    positive = run.points.Y[np.argsort(np.arange(12) % 4, kind="stable")] > 0.3 * np.abs(run.points.Y).max()
    assert (drawn[positive][:, 0] > drawn[positive][:, 2]).all(), "red is positive"


def test_weights_of_pixels_are_images_and_others_are_matrices(runs: list[Path], tmp_path: Path) -> None:
    run = make_run(tmp_path, "plain", "--kernel", "identity", "--precision", "float64")
    page = check_page((run / "report.html").read_bytes())
    drawn = {image["alt"]: pixels_of(image["src"]) for image in page.all("img")}
    assert [alt for alt in drawn if "W" in (alt or "")] == [
        f"{what}: {name}" for name in NAMES for what in ("W", "W_S", "W_S - W")
    ]
    weights = read_run(run).weights
    assert weights is not None
    limit = np.abs(weights.original).max()
    expected = np.rint(127.5 * (1 + weights.original[1].reshape(4, 5, 3) / limit))
    np.testing.assert_allclose(drawn[f"W: {NAMES[1]}"], expected, atol=1)
    assert "W_S - W" not in [image["alt"] for image in check_page((runs[0] / "report.html").read_bytes()).all("img")]


def test_vectors_are_drawn_as_their_features(tmp_path: Path) -> None:
    run = make_run(tmp_path, "vectors", "--init", "real", "--ipc", "2", shape=(30,))
    page = check_page((run / "report.html").read_bytes())
    assert not page.all("img")
    assert [chart.split(":")[0] for chart in charts_of(page)][:3] == [
        "Heat map of the features of 8 samples", "Heat map of the features of 8 samples",
        "Scatter plot of 16 samples in the plane of their first two principal components",
    ]  # fmt: skip
    assert "are no images" in page.words
    assert "in standard deviations of the training data" in page.words


def test_only_the_first_of_many_classes_are_open_and_each_is_found(tmp_path: Path) -> None:
    names = np.array([f"class {c}" for c in range(40)])
    data = write_npz(tmp_path / "many.npz", tiny_images((4, 5, 3), k=40, n_train=400), class_names=names)
    assert main(["distill", "--dataset", str(data), *MAP, "--lambdas", "1,10", "--out", str(tmp_path / "run")]) == 0
    page = check_page((tmp_path / "run" / "report.html").read_bytes())
    more = next(at for at, (tag, attributes) in enumerate(page.tags) if attributes.get("class") == "more")
    cards = [at for at, (_, attributes) in enumerate(page.tags) if "data-name" in attributes]
    assert sum(at < more for at in cards) == 20
    assert [page.tags[at][1]["data-name"] for at in cards] == names.tolist()
    assert [box["id"] for box in page.all("input") if box.get("type") == "search"] == ["filter"]


@pytest.mark.parametrize(("shape", "least"), [((28, 28), 12), ((32, 32, 3), 10)])
@pytest.mark.parametrize("copies", [1, 10])
def test_a_class_seen_large_is_larger_than_every_size(shape: tuple[int, ...], least: int, copies: int) -> None:
    shown = gallery(np.zeros((2 * copies, *shape), np.float32), ["a", "b"], start=None, value_range=(0.0, 255.0))
    assert least <= shown.large
    assert max(shown.sizes) < shown.large
    assert shown.size in shown.sizes
    assert shown.large_narrow * shape[1] < 360, "a phone"


def test_contents_name_every_section(runs: list[Path]) -> None:
    page = check_page((runs[0] / "report.html").read_bytes())
    sections = [section["id"] for section in page.all("section")]
    links = [link["href"] for link in page.all("a")]
    assert links[: len(sections)] == [f"#{name}" for name in sections]


def test_lines_of_the_page_load_the_file(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    content = (runs[0] / "report.html").read_text()
    found = re.search(r'<code id="load">(.*?)</code>', content, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(runs[0])
    known: dict[str, Any] = {"samples": np.zeros((2, 4, 5, 3))}
    exec(html.unescape(found.group(1)), known)
    assert known["predicted"].shape == (2,)
    assert known["W"].shape == (4, 60)
    assert [button["data-copies"] for button in Page(content.encode()).all("button")] == ["rerun", "load", "verify"]


def test_page_allows_its_own_script_alone(runs: list[Path]) -> None:
    page = check_page((runs[0] / "report.html").read_bytes())
    (policy,) = [meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_path_says_the_standard_error_of_the_choice(runs: list[Path]) -> None:
    run = read_run(runs[0])
    accuracy, n = run.path.score, run.record.n_val
    error = np.sqrt(accuracy[run.path.best] * (1 - accuracy[run.path.best]) / n)
    within = np.count_nonzero(accuracy >= accuracy[run.path.best] - error)
    words = " ".join(check_page((runs[0] / "report.html").read_bytes()).words.split())
    assert f"sqrt(a (1 - a) / n): {percent(error)} at the choice. {within} of the 3 values" in words


@pytest.mark.chromium
def test_filter_leaves_the_classes_that_have_the_words(runs: list[Path], tmp_path: Path) -> None:
    script = "const f = document.getElementById('filter'); f.value = 'B'; f.dispatchEvent(new Event('input'))"
    page = worked_on(runs[1] / "report.html", tmp_path, script)
    hidden = {card["data-name"]: "hidden" in card for card in page.all("li") if "data-name" in card}
    assert hidden == {name: "b" not in name for name in NAMES}
    assert "1 of the classes shown" in page.words
    assert not any("hidden" in button for button in page.all("button"))
