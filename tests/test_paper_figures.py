"""The paper's figures by one command: what is drawn, what is said of it, and nothing that overlaps."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the cli extra is not installed")
pytest.importorskip("typer", reason="the cli extra is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import krrdistill as kd
from krrdistill.apps.cli import main
from krrdistill.apps.report.rows import Panel, PictureRow, drawn, rows_figure, to_file
from krrdistill.apps.reproduce import FigureOptions, draw_figures
from krrdistill.apps.reproduce import case as case_module
from krrdistill.apps.reproduce import figures as figures_module
from pages import check_page

LIMITS = (0.0, 255.0)


def test_figures_command_writes_pictures_page_and_what_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krrdistill.apps.report.rows.COLUMNS", 2)  # drawing takes most of the time
    words = ["reproduce", "figures", "--datasets", "digits", "--kernel", "identity", "--backend", "array"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    names = ("one-per-class", "figure2", "realism")
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"figures.json", "figures.md", "figures.html"}
    document = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["name"] for figure in document["figures"]] == list(names)
    assert document["asked"]["seed"] == 0
    realism = document["figures"][2]["parts"][0]
    real, published, nearest = realism["rows"]
    assert real == {"label": "real images"}
    assert nearest["psnr"] > published["psnr"]
    assert (realism["zca"], realism["pixels"], realism["points_per_class"]) == (False, "clip", 10)
    page = check_page((tmp_path / "figures.html").read_bytes())
    assert len(page.all("img")) == 3
    for said in (
        "5 of 5 distilled sets",
        "ZCA whitening is off",
        "stretched from its own smallest",
        "black is 0 and white is 16",
        document["command"],
    ):
        assert said in page.words
    assert (tmp_path / "figures.md").read_text() in capsys.readouterr().out
    with Image.open(tmp_path / "realism.png") as image:
        assert image.width == 1650
        assert round(image.info["dpi"][0]) == 300


def test_colour_images_are_whitened_and_clipped_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    parts = {"x_train": (80, 4, 4, 3), "x_test": (10, 4, 4, 3)}
    images: dict[str, Any] = {name: random.integers(0, 256, shape, dtype=np.uint8) for name, shape in parts.items()}
    labels = {"y_train": np.arange(80) % 2, "y_test": np.arange(10) % 2}
    data = kd.Dataset(name="cifar10", class_names=("a", "b"), **images, **labels)
    monkeypatch.setattr(figures_module, "load_dataset", lambda name, **given: data)
    for changes, zca, pixels in (({}, True, "clip"), ({"zca": False, "pixels": "stretch"}, False, "stretch")):
        options = FigureOptions(datasets=("cifar10",), only=("one-per-class",), backend="array", **changes)
        (figure,) = draw_figures(options, folder=tmp_path).document["figures"]
        assert (figure["parts"][0]["zca"], figure["parts"][0]["pixels"]) == (zca, pixels)


def test_clipped_pixels_are_black_or_white_and_stretched_ones_span_each_picture() -> None:
    samples = np.array([[[-50.0, 0.0], [255.0, 300.0]], [[10.0, 20.0], [30.0, 40.0]]])
    np.testing.assert_array_equal(drawn(samples, 2, LIMITS), [[[0, 0], [255, 255]], [[10, 20], [30, 40]]])
    stretched = drawn(samples, 2, LIMITS, stretch=True)
    assert stretched.min(axis=(1, 2)).tolist() == [0, 0]
    assert stretched.max(axis=(1, 2)).tolist() == [255, 255]
    assert (drawn(np.full((2, 2, 2), 7.0), 2, LIMITS, stretch=True) == 0).all()


def test_nothing_written_on_a_figure_overlaps_or_leaves_it() -> None:
    names = ("apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle")
    pictures = np.zeros((10, 32, 32, 3), np.uint8)
    labels = ("real images", "published\nconstruction", "nearest\nexact set")
    rows = tuple(PictureRow(label, "" if index == 0 else "−35.4 dB", pictures) for index, label in enumerate(labels))
    title = "CIFAR-100, random Fourier, 10 per class: original 100.00 %, retrained 100.00 %"
    figure = rows_figure([Panel(title, names, rows), Panel(title, names, rows)])
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
    assert len(boxes) == 2 * (1 + 11 + 3 + 2 + 30)
    for one, other in itertools.combinations(boxes, 2):
        assert not (
            min(one.x1, other.x1) - max(one.x0, other.x0) > 0.5 and min(one.y1, other.y1) - max(one.y0, other.y0) > 0.5
        )
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_equal_figures_have_equal_bytes() -> None:
    panel = Panel("a", ("b",), (PictureRow("c", "d", np.zeros((1, 4, 4), np.uint8)),))
    for kind in ("png", "pdf"):
        assert to_file(rows_figure([panel]), kind) == to_file(rows_figure([panel]), kind)
    with Image.open(io.BytesIO(to_file(rows_figure([panel]), "png"))) as image:
        assert image.mode == "RGBA"
        assert image.getpixel((0, 0)) == (255, 255, 255, 255)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["figures", "--ipcs", "1"], "--ipcs belongs to the tables, not to figures"),
        (["table3", "--zca"], "--zca belongs to figures, not to table3"),
        (["figures", "--pixels", "blur"], "--pixels must be one of clip, stretch; got 'blur'"),
        (["figures", "--only", "figure3"], "--only must be one of one-per-class, figure2, realism; got 'figure3'"),
        (["figures", "--datasets", "mine.npz"], "krrdistill sweep --dataset SOURCE"),
        (["table3", "--datasets", "mine.npz"], "krrdistill sweep --dataset SOURCE"),
    ],
)
def test_options_of_another_part_and_own_data_are_refused_with_the_remedy(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path / "o")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_figures_do_not_go_into_the_folder_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells").mkdir()
    assert main(["reproduce", "figures", "--datasets", "digits", "--out", str(tmp_path)]) == 1
    assert "holds the files of krrdistill reproduce, not of krrdistill reproduce figures" in capsys.readouterr().err


def test_one_pass_over_the_data_serves_all_figures_of_one_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Any] = []
    train = case_module.train
    monkeypatch.setattr(case_module, "train", lambda *rest: passes.append(rest) or train(*rest))
    monkeypatch.setattr("krrdistill.apps.report.rows.COLUMNS", 2)
    draw_figures(FigureOptions(datasets=("digits",), kernel="identity", backend="array"), folder=tmp_path)
    assert len(passes) == 1
