"""The page of a run and of runs side by side: what stands on it, that it is whole, and what a bad folder gives."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_files import tiny_images, write_npz
from pages import Page, check_page, screenshot

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("matplotlib", reason="the cli extra is not installed")

import krrdistill.apps.report.jpeg
import krrdistill.apps.report.sprites
from krrdistill.apps.report.html import Markup, element
from krrdistill.apps.report.png import encode_png
from krrdistill.apps.report.record import read_run
from krrdistill.apps.report.sprites import Gallery, gallery

import krrdistill as kd
from krrdistill.apps.cli import main
from krrdistill.apps.cli.settings import DistillSettings, KipSettings, command_line
from krrdistill.apps.report.charts import Chart
from krrdistill.apps.roofline import pass_floor, pass_flops
from krrdistill.apps.text import megabytes, number, percent, seconds
from krrdistill.options import MapOptions

NASTY = "<script>alert(1)<b>&amp;\"'"
NAMES = ["<img src=x>", 'b"c', "d'e", "f&g"]
MAP = ["--backend", "array", "--hidden-layer", "1", "--kernel", "FCNN"]


def png_pixels(data: bytes) -> Any:
    """Decodes what ``encode_png`` writes: filters 0 and 2, 8 bits."""
    width, height, _, kind = np.frombuffer(data[16:26], ">u4,>u4,u1,u1")[0]
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[int(kind)]
    size = int.from_bytes(data[33:37], "big")
    assert data[37:41] == b"IDAT"
    assert zlib.crc32(data[37 : 41 + size]) == int.from_bytes(data[41 + size : 45 + size], "big")
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(height, 1 + width * channels)
    out = rows[:, 1:].copy()
    for y in range(1, height):
        if rows[y, 0] == 2:
            out[y] += out[y - 1]
    return out.reshape(height, width, channels)


def make_run(folder: Path, name: str, *options: str, shape: tuple[int, ...] = (4, 5, 3), k: int = 4) -> Path:
    """A run on random images, from a file called ``name``.npz."""
    data = write_npz(folder / f"{name}.npz", tiny_images(shape, k=k, n_train=80), class_names=np.array(NAMES[:k]))
    out = folder / f"run-{len(list(folder.iterdir()))}"
    words = ["distill", "--dataset", str(data), *MAP, "--lambdas", "1,10,100", "--out", str(out), *options]
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
        kept = {**archive, **arrays}
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
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 3
    alts = [attributes["alt"] for attributes in page.all("img")]
    assert alts == [f"{role}: {name}, 3 samples" for name in NAMES for role in ("real start", "distilled")]


def test_names_are_escaped(runs: list[Path]) -> None:
    content = (runs[0] / "report.html").read_bytes()
    page = check_page(content)
    assert NASTY in page.words
    assert all(name in page.words for name in NAMES)
    assert b"<script" not in content


def test_a_noise_start_has_no_starts(runs: list[Path]) -> None:
    page = check_page((runs[1] / "report.html").read_bytes())
    assert [attributes["alt"] for attributes in page.all("img")] == [f"distilled: {name}" for name in NAMES]


def test_pictures_hold_the_samples(runs: list[Path]) -> None:
    record = read_run(runs[0])
    assert record.start_images is not None
    sources = [attributes["src"] for attributes in Page((runs[0] / "report.html").read_bytes()).all("img")]
    for c, source in enumerate(sources[::2]):
        pixels = png_pixels(base64.b64decode((source or "").split(",")[1]))
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


def test_known_floor_is_shown(run: Path) -> None:
    edit(run, lambda report: report["floor_seconds"].update(statistics=0.125))
    assert main(["report", str(run)]) == 0
    words = check_page((run / "report.html").read_bytes()).words
    assert "0.125 s" in words
    assert "measured after the run" in words


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
        (lambda r: r.update(value_range=[1, 1]), "value_range must be"),
        (lambda r: r["certificate"].pop("condition"), "certificate.condition is ''"),
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
        ({"val_accuracy": np.array(["a", "b", "c"])}, "val_accuracy has dtype"),
        ({"start_images": np.zeros((12, 4, 5))}, "start_images are"),
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
    assert main(["compare", str(runs[0]), str(tmp_path), "--out", str(tmp_path / "c.html")]) == 1
    assert error_of(capsys).startswith(f"{tmp_path / 'report.json'}: no such file")
    assert not (tmp_path / "c.html").exists()


def test_runs_side_by_side(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", *map(str, runs)]
    assert main([*words, "--out", str(tmp_path / "c.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0]: line.split()[-2:] for line in lines}
    assert shown["init"] == ["real", "noise"]
    assert shown["samples m"] == ["12", "4"]
    assert shown["exact"] == ["yes", "yes"]
    page = check_page((tmp_path / "c.html").read_bytes())
    assert len(page.all("img")) == 8
    different = page.tags[[tag for tag, _ in page.tags].index("tbody") :]
    classes = [attributes.get("class") for tag, attributes in different if tag == "tr"]
    assert classes[0] == "different"  # the data sets
    assert classes[1] is None  # the kernel
    assert main([*words, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["runs"]
    assert [entry["folder"] for entry in entries] == [str(run) for run in runs]
    assert [entry["init"] for entry in entries] == ["real", "noise"]
    assert [entry["exact"] for entry in entries] == [True, True]


def test_a_comparison_names_the_runs_that_are_not_exact(run: Path, runs: list[Path], tmp_path: Path) -> None:
    edit(run, lambda report: report["certificate"].update(weight_relative_error=0.5))
    assert main(["compare", str(run), str(runs[1]), "--out", str(tmp_path / "c.html")]) == 0
    assert "NOT EXACT: copy" in check_page((tmp_path / "c.html").read_bytes()).words


def test_the_command_asks_for_the_same_run(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DistillSettings(
        dataset="digits", zca=True, out=Path("a b"), map_options=MapOptions(kernel="random_fourier", sigma2=2.5),
        options=kd.DistillOptions(lambda_s="auto", embed_map=False, lambdas=(0.1, 1e-7), seed=3, store="float32",
                                  refit=True),
    )  # fmt: skip
    seen: list[DistillSettings] = []
    monkeypatch.setattr("krrdistill.apps.cli.run.distill", lambda settings, as_json: seen.append(settings) or 0)
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
    charts = [svg["aria-label"] or "" for svg in page.all("svg") if svg.get("role") == "img"]
    assert [label.split(": ")[-1] for label in charts[:2]] == ["closed form, KIP, gram"] * 2
    for end in ("best", "last"):
        assert number(report[end]["train_loss"]) in page.words
        assert percent(report[end]["test_accuracy"]) in page.words
    assert seconds(report["closed_form"]["seconds"]) in page.words
    assert report["command"] in page.words
    assert report["command"].startswith("krrdistill kip --dataset")
    before = (kip_run / "report.html").read_bytes()
    assert main(["report", str(kip_run)]) == 0
    assert (kip_run / "report.html").read_bytes() == before


def test_the_closed_form_is_one_point_and_stays(kip_run: Path) -> None:
    (group,) = re.findall(r'<g class="curve-0">(.*?)</g>', (kip_run / "report.html").read_text())[:1]
    (line,) = re.findall(r'points="([^"]*)"', group)
    (x, y), (right, level) = (map(float, point.split(",")) for point in line.split())
    assert x < right == 348.0
    assert y == level
    curve = re.findall(r'<g class="curve-1">(.*?)</g>', (kip_run / "report.html").read_text())[0]
    assert curve.count("<circle") == 5  # iterations 0, 5, 10, 15, 20


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("report.json", {"lr": "fast"}, "lr is 'fast'"),
        ("report.json", {"best": {}}, "best.iteration is ''"),
        ("report.json", {"closed_form": {"seconds": "long"}}, "closed_form.seconds is 'long'"),
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
            kept = {**archive, **change}
        np.savez(copy / name, **{key: array for key, array in kept.items() if array is not None})
    assert main(["report", str(copy)]) == 1
    message = error_of(capsys)
    assert str(copy / name) in message
    assert words in message


def test_kip_beside_the_closed_form(
    runs: list[Path], kip_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs[1]), str(kip_run), "--out", str(tmp_path / "c.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("method") and "closed form" in line and "KIP, gram, 20 steps" in line for line in lines)
    words = check_page((tmp_path / "c.html").read_bytes()).words
    assert "Every closed form is exact; 1 of the runs are KIP." in words
    assert "NOT EXACT" not in words


def test_the_command_asks_for_the_same_run_of_kip(kip_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = kd.KipOptions(iterations=7, lr=0.5, warm_start=True, variant="published")
    settings = KipSettings(map_options=MapOptions(kernel="FCNN"), options=options)
    seen: list[KipSettings] = []
    monkeypatch.setattr("krrdistill.apps.cli.kip.kip", lambda settings, as_json: seen.append(settings) or 0)
    assert main(shlex.split(shlex.join(command_line(settings)))[1:]) == 0
    assert seen == [settings]


def test_png_round_trip(rng: np.random.Generator) -> None:
    for shape in ((1, 1), (3, 5), (7, 4, 2), (5, 6, 3), (2, 9, 4)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(png_pixels(encode_png(pixels)).reshape(shape), pixels)
    smooth = np.repeat(np.arange(64, dtype=np.uint8)[:, None], 64, axis=1)
    assert len(encode_png(smooth)) < 200
    np.testing.assert_array_equal(png_pixels(encode_png(smooth))[..., 0], smooth)


def test_pictures_keep_within_three_megabytes(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
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
    pixels = Image.open(io.BytesIO(base64.b64decode(first.distilled.split(",")[1])))
    assert pixels.size == (first.width, first.height) == (329, 32)
    error = np.asarray(pixels, float)[:, :32] - images[0]
    assert np.sqrt(np.mean(error**2)) < 40.0, "noise of 74 loses some, but is recognised"
    monkeypatch.setattr(krrdistill.apps.report.sprites, "has_jpeg", lambda: False)
    for start, copies in ((starts, 3), (None, 6)):
        shown = gallery(images, names, start=start, value_range=(0.0, 255.0))
        assert (len(shown.classes), shown.copies) == (100, copies)
        assert size(shown) < 2.9e6
        assert f"the first {copies} of 10 samples per class are shown; distilled.npz holds all" in shown.notes
    few = gallery(images, names, start=None, value_range=(0.0, 255.0), budget=10_000)
    assert (len(few.classes), few.copies) == (2, 1)
    assert any(note.startswith("the first 2 of 100 classes") for note in few.notes)


def test_grey_samples_are_compressed_too(rng: np.random.Generator) -> None:
    images = rng.uniform(0, 255, (40, 20, 20)).astype(np.float32)
    shown = gallery(images, ["a", "b"], start=None, value_range=(0.0, 255.0), budget=14_000)
    assert shown.copies == 20
    sheet = Image.open(io.BytesIO(base64.b64decode(shown.classes[1].distilled.split(",")[1])))
    assert (sheet.mode, sheet.size) == ("L", (209, 41))
    assert abs(int(np.asarray(sheet)[10, 20]) - 128) < 100
    loose = gallery(images, ["a", "b"], start=None, value_range=(0.0, 255.0))
    assert loose.classes[0].distilled.startswith("data:image/png")


def test_vectors_are_drawn_row_by_row() -> None:
    vectors = np.array([[0, 255, 0, 255, 255], [255, 0, 0, 0, 0]], dtype=np.float32)
    shown = gallery(vectors, ["a", "b"], start=None, value_range=(0.0, 255.0))
    pixels = [png_pixels(base64.b64decode(c.distilled.split(",")[1]))[..., 0].tolist() for c in shown.classes]
    assert pixels == [[[0, 255, 0], [255, 255, 0]], [[255, 0, 0], [0, 0, 0]]]


def chart(y: Any, **options: Any) -> str:
    x = 10.0 ** np.arange(len(y))
    facts: dict[str, Any] = {"x_label": "x", "y_label": "y", "description": "a chart", **options}
    return Chart(x=x, y=np.asarray(y, dtype=np.float64), **facts).svg()


def test_charts_mark_the_choice_and_leave_gaps() -> None:
    svg = chart([1.0, 2.0, np.nan, 3.0, 4.0], chosen=3, chosen_text="best", shade_to=10.0)
    assert svg.count("<polyline") == 2
    assert svg.count('class="point hollow"') == 2
    assert svg.count('class="point"') == 2
    assert ">best<" in svg
    assert "nan" not in svg


@pytest.mark.parametrize("y", [[5.0], [0.0, 0.0], [np.nan, np.nan], [1e-300, 1e300], [-1.0, 1e-9]])
def test_charts_of_few_or_equal_values(y: Any) -> None:
    numbers = [float(text) for text in re.findall(r' c?[xy]\d?="([^"]*)"', chart(y))]
    assert numbers
    assert np.isfinite(numbers).all()


def test_elements_escape_and_leave_out() -> None:
    assert element("p", "<&>", None, Markup("<b></b>"), class_="\"'", id=None) == (
        '<p class="&quot;&#x27;">&lt;&amp;&gt;<b></b></p>'
    )
    assert element("img", alt="x") == '<img alt="x">'


def test_numbers_in_words() -> None:
    assert [seconds(value) for value in (None, 0.01234, 12.34, 754.0)] == ["-", "12.3 ms", "12.3 s", "12 min 34 s"]
    assert (percent(None), percent(0.8641), number(1e4), megabytes(1_234_567)) == ("-", "86.41 %", "10000", "1.2 MB")


def test_the_floor_is_measured_for_long_passes_only() -> None:
    chain = kd.FCNN(100, hidden_layers=2).chain(kd.Preprocessing.none(100))
    assert pass_flops(chain, 1000) == 1000 * (2 * sum(layer.weight.size for layer in chain.layers) + 100**2)
    assert pass_floor(chain, 1000, "float32") is None
    short, long = (pass_floor(chain, n, "float32") for n in (10_000_000, 1_000_000_000))
    assert short is not None
    assert long is not None
    assert 0.0 < short < long


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


@pytest.mark.parametrize("quality", [60, 95, 100])
def test_jpeg_of_large_noise(quality: int) -> None:
    """More bytes than pixels: what a buffer of one byte a pixel has no room for."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (320, 640, 3), dtype=np.uint8)
    with image.open(io.BytesIO(krrdistill.apps.report.jpeg.encode_jpeg(pixels, quality))) as read:
        assert (read.format, read.size) == ("JPEG", (640, 320))
        assert quality < 100 or np.abs(np.asarray(read).astype(int) - pixels).max() <= 8
