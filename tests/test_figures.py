"""Figures: layout, honest captions, gaps, and files that are whole and equal from run to run."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the cli extra is not installed")
pytest.importorskip("PIL", reason="the cli extra is not installed")

import matplotlib
from PIL import Image

import tolerances
from krrdistill.apps.report.axes import PALETTE
from krrdistill.apps.report.charts import (
    Curve,
    Panel,
    SpreadCurve,
    curves_figure,
    heat_figure,
    lambda_path_figure,
    line_figure,
    panels_figure,
)
from krrdistill.apps.report.sheet import Sheet, distilled_sheet, save_sheet
from krrdistill.apps.report.svg import save_figure, to_svg

NAMES = [str(c) for c in range(10)]
LAMBDAS = 10.0 ** np.arange(-3, 3)
NO_FLOOR = {"below_noise_floor": np.zeros(6, bool), "noise_floor": 0.0}
ACCURACY = {"label": "validation accuracy (%)", "unit": " %"}


def shown(sheet: Sheet, index: int, shape: tuple[int, ...]) -> Any:
    """Sample ``index`` as it is drawn, one number per pixel of the sample, which is a block of equal ones."""
    drawn = np.asarray(sheet.image.crop(sheet.boxes[index]))
    rows, columns = (drawn.shape[i] // shape[i] for i in (0, 1))
    blocks = drawn.reshape(shape[0], rows, shape[1], columns, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    pixels = blocks[:, 0, :, 0]
    return pixels if len(shape) == 3 else pixels[..., 0]


def levels(image: Any, low: float = 0.0, high: float = 255.0) -> Any:
    """The bytes that values are drawn as."""
    return np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).uniform(0, 255, (20, 8, 8))


def test_one_column_per_class_and_one_row_per_copy(images: Any) -> None:
    sheet = distilled_sheet(images, NAMES, title="a run")
    boxes = np.array(sheet.boxes)
    assert len(boxes) == 20
    assert len(np.unique(boxes[:, 0])) == 10
    assert len(np.unique(boxes[:, 1])) == 2
    assert (boxes[:, 2:] <= sheet.image.size).all()
    assert list(sheet.names) == NAMES
    assert sheet.title == "a run"
    for index in range(20):
        np.testing.assert_array_equal(shown(sheet, index, (8, 8)), levels(images[index]))


def test_real_images_stand_above_the_distilled_ones(images: Any) -> None:
    real = images[::-1].astype(np.uint8)
    sheet = distilled_sheet(images, NAMES, start_images=real)
    assert len(sheet.boxes) == 40
    assert sheet.boxes[0][1] < sheet.boxes[20][1]
    np.testing.assert_array_equal(shown(sheet, 0, (8, 8)), real[0])
    np.testing.assert_array_equal(shown(sheet, 20, (8, 8)), levels(images[0]))


def test_only_ten_classes_and_four_copies_are_shown() -> None:
    names = [f"class_{c}" for c in range(12)]
    sheet = distilled_sheet(np.full((12 * 6, 4, 4, 3), 100.0), names, value_range=(0, 255))
    assert len(sheet.boxes) == 40
    assert "first 10 of 12 classes" in sheet.caption
    assert "first 4 of 6 samples per class" in sheet.caption
    assert sheet.names == tuple(f"class {c}" for c in range(10))


def test_sheet_is_about_ten_inches_wide_and_says_what_it_shows(images: Any, tmp_path: Path) -> None:
    images[3] = 1000 * images[3]
    save_sheet(distilled_sheet(images, NAMES, title="a run"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert 9.0 * 150 <= image.width <= 10.5 * 150
        assert np.asarray(image).std() > 0.05 * 255
        assert image.info["Description"].startswith("a run; 1 of 20 distilled images contrast-stretched")


def test_colours_are_drawn_as_they_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(float)
    images[:, 0, 0], images[:, 0, 1] = 0.0, 255.0
    sheet = distilled_sheet(images, ["a", "b"])
    for index in range(2):
        np.testing.assert_array_equal(shown(sheet, index, (6, 5, 3)), images[index])


def test_an_image_in_range_is_shown_as_it_is(images: Any) -> None:
    assert "stretched" not in distilled_sheet(images, NAMES).caption


def test_an_image_that_leaves_the_range_is_stretched_and_the_caption_says_so(images: Any) -> None:
    images[3] = 1000 * images[3] - 5e4
    sheet = distilled_sheet(images, NAMES)
    low, high = np.percentile(images[3], (1, 99))
    np.testing.assert_array_equal(shown(sheet, 3, (8, 8)), levels(images[3], low, high))
    np.testing.assert_array_equal(shown(sheet, 4, (8, 8)), levels(images[4]))
    assert sheet.caption.startswith("1 of 20 distilled images contrast-stretched")


def test_a_slight_excess_is_clipped_and_a_faint_image_is_stretched(images: Any) -> None:
    images[0, 0, 0] = 260.0
    images[1] = 100 + images[1] / 50
    sheet = distilled_sheet(images, NAMES)
    np.testing.assert_array_equal(shown(sheet, 0, (8, 8)), levels(images[0]))
    assert np.ptp(shown(sheet, 1, (8, 8))) == 255


def test_a_constant_image_is_grey() -> None:
    sheet = distilled_sheet(np.full((2, 4, 4), 9e9), ["a", "b"])
    assert np.all(shown(sheet, 0, (4, 4)) == 128)


def test_vectors_are_drawn_as_lines() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 30))
    vectors[0] = np.arange(30)
    sheet = distilled_sheet(vectors, ["a", "b", "c"], start_images=vectors)
    assert len(sheet.boxes) == 12
    assert "30 features" in sheet.caption
    dark = np.asarray(sheet.image.crop(sheet.boxes[0]).convert("L")) < 200
    rows, columns = np.nonzero(dark)
    assert np.corrcoef(columns, rows)[0, 1] < -0.99, "from the bottom left to the top right"


def test_long_and_strange_names_are_one_line_that_fits(tmp_path: Path) -> None:
    names = ["$\\bad$", "x" * 2000, "two\nlines", "\udcff\0"]
    sheet = distilled_sheet(np.zeros((4, 4, 4)), names, title="a\nb")
    assert sheet.names[0] == "$\\bad$"
    assert sheet.names[1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert sheet.names[2] == "two lines"
    save_sheet(sheet, tmp_path / "names.png")


@pytest.mark.parametrize(
    ("images", "names", "options", "expected"),
    [
        (np.zeros((3, 4, 4)), ["a", "b"], {}, r"images of shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 4)), ["a", "b"], {}, "images of shape"),
        (np.zeros(2), ["a", "b"], {}, "images of shape"),
        (np.zeros((2, 4, 4)), [], {}, "of 0 classes"),
        (np.zeros((2, 4, 4)), ["a", "b"], {"start_images": np.zeros((2, 5, 5))}, "start_images hold samples"),
        (np.zeros((2, 4, 4)), ["a", "b"], {"start_images": np.zeros((3, 4, 4))}, "start_images of shape"),
        (np.zeros((2, 4, 4)), ["a", "b"], {"value_range": (1.0, 1.0)}, "value_range must be increasing"),
    ],
)
def test_bad_samples_are_named(images: Any, names: list[str], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        distilled_sheet(images, names, **options)


def test_lambda_path_marks_the_choice_with_its_value() -> None:
    figure = lambda_path_figure(LAMBDAS, [10, 20, 90, 30, 20, 10], best=2, **ACCURACY, **NO_FLOOR)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["90 % at \N{GREEK SMALL LETTER LAMDA} = 0.1"]
    assert any(list(line.get_xdata()) == [0.1] and list(line.get_ydata()) == [90.0] for line in axes.lines)
    assert not [patch for patch in axes.patches if patch.get_visible()]


def test_lambda_path_leaves_gaps_where_there_is_no_model(tmp_path: Path) -> None:
    accuracy = [np.nan, 20, np.nan, 30, 20, 10]
    figure = lambda_path_figure(LAMBDAS, accuracy, best=3, **ACCURACY, **NO_FLOOR)
    line = np.asarray(figure.axes[0].lines[0].get_ydata(), dtype=float)
    assert np.isnan(line).tolist() == np.isnan(accuracy).tolist()
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    assert "nan" not in to_svg(figure, "path", "a chart")
    save_figure(figure, tmp_path / "path.png")
    with Image.open(tmp_path / "path.png") as image:
        assert image.size == (960, 600)


def test_lambda_path_shades_what_lies_below_the_noise_floor() -> None:
    below = LAMBDAS < 0.05
    figure = lambda_path_figure(
        LAMBDAS, np.full(6, 50.0), best=4, below_noise_floor=below, noise_floor=0.05, **ACCURACY
    )
    (axes,) = figure.axes
    (span,) = axes.patches
    edge = span.get_window_extent().transformed(axes.transData.inverted()).x1
    tolerances.assert_solve(edge, 0.05)
    assert any("under the noise floor of G, 0.05" in text.get_text() for text in axes.texts)
    (hollow,) = [line for line in axes.lines if line.get_markerfacecolor() == PALETTE["paper"]]
    np.testing.assert_array_equal(hollow.get_xdata(), LAMBDAS[below])


def test_lambda_path_of_one_point() -> None:
    figure = lambda_path_figure([1.0], [50.0], best=0, below_noise_floor=[True], noise_floor=5.0, **ACCURACY)
    low, high = figure.axes[0].get_xlim()
    assert 0.0 < low < 1.0 < high < np.inf
    assert to_svg(figure, "path", "a chart").count("<use") >= 2


def test_lambda_path_is_not_shaded_where_every_model_is_above_the_floor() -> None:
    figure = lambda_path_figure(
        LAMBDAS, np.full(6, 50.0), best=4, below_noise_floor=np.zeros(6, bool), noise_floor=7.0, **ACCURACY
    )
    assert not figure.axes[0].patches


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lambdas": LAMBDAS[:5]}, "must have one length"),
        ({"lambdas": -LAMBDAS}, "lambdas must be positive"),
        ({"best": 6}, r"best must be in \[0, 6\), got 6"),
    ],
)
def test_bad_paths_are_named(change: dict[str, Any], expected: str) -> None:
    options = {"lambdas": LAMBDAS, "values": np.zeros(6), "best": 0, **ACCURACY, **NO_FLOOR, **change}
    with pytest.raises(ValueError, match=expected):
        lambda_path_figure(**options)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "y", [[5.0], [0.0, 0.0], [np.nan, np.nan], [1e-300, 1e300], [-1.0, 1e-9], [1.0, 1.0001, 1.0002], [2.0, 30.0]]
)
def test_charts_of_few_or_equal_values_have_finite_coordinates(y: list[float], log: bool) -> None:
    figure = line_figure(np.arange(1, len(y) + 1), y, x_label="x", y_label="y", x_log=log, y_log=log)
    svg = to_svg(figure, "few", "a chart")
    assert not re.search(r"\b(nan|inf)\b", svg)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"x", "y"} <= set(texts)
    assert len(texts) >= 4, "axes have ticks"


def test_a_curve_of_one_point_goes_on_to_the_right() -> None:
    figure = curves_figure([Curve("ours", [0.5], [2.0]), Curve("theirs", [1, 10], [5, 3])], x_label="x", y_label="y")
    onward = figure.axes[0].lines[0]
    assert list(onward.get_xdata()) == [0.5, figure.axes[0].get_xlim()[1]]
    assert list(onward.get_ydata()) == [2.0, 2.0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "theirs"]
    styles = {line.get_color() for line in figure.axes[0].lines}
    assert len(styles) == 2


def test_svg_has_only_colours_that_the_style_sheet_names() -> None:
    below = LAMBDAS < 0.05
    options = {"below_noise_floor": below, "noise_floor": 0.05, **ACCURACY}
    path = lambda_path_figure(LAMBDAS, np.arange(6.0), best=4, **options)
    race = curves_figure([Curve(name, [1, 2], [3, 4]) for name in "abc"], x_label="x", y_label="y")
    for figure in (path, race):
        svg = to_svg(figure, "name", 'a "chart" <of> things')
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b", re.sub(r'href="#[^"]*"', "", svg))
        assert set(re.findall(r"var\(--([a-z]+)\)", svg)) <= set(PALETTE)
        assert not re.search(r"https?:|url\(|<style|<metadata|xmlns", svg)
        ids = re.findall(r' id="([^"]*)"', svg)
        assert len(set(ids)) == len(ids)
        assert all(found.startswith("name-") for found in ids)
        assert set(re.findall(r'href="#([^"]*)"', svg)) <= set(ids)
        assert 'aria-label="a &quot;chart&quot; &lt;of&gt; things"' in svg


def test_texts_in_charts_are_escaped_and_never_read_as_mathematics() -> None:
    figure = curves_figure([Curve("<script>$x$", [1, 2], [3, 4])], x_label="$\\bad$", y_label="<b>")
    svg = to_svg(figure, "name", "a chart")
    assert "<script" not in svg
    assert "&lt;b&gt;" in svg
    assert "$\\bad$" in svg


def test_equal_figures_give_equal_bytes_without_date_or_version(images: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_sheet(distilled_sheet(images, NAMES, title="t"), tmp_path / f"{name}-sheet.png")
        save_figure(
            lambda_path_figure(LAMBDAS, np.arange(6.0), best=2, **ACCURACY, **NO_FLOOR), tmp_path / f"{name}-path.png"
        )
    for kind in ("sheet", "path"):
        first = (tmp_path / f"first-{kind}.png").read_bytes()
        assert first == (tmp_path / f"second-{kind}.png").read_bytes()
        assert first.startswith(b"\x89PNG")
        assert not any(word in first for word in (b"Software", b"Matplotlib", b"tIME", b"Creation"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        save_sheet(distilled_sheet(images, NAMES), path)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_drawing_imports_no_pyplot() -> None:
    code = (
        "import sys, numpy as np\n"
        "from krrdistill.apps.report.sheet import distilled_sheet\n"
        "from krrdistill.apps.report.charts import line_figure\n"
        "from krrdistill.apps.report.svg import to_svg\n"
        "distilled_sheet(np.zeros((2, 4, 4)), ['a', 'b'])\n"
        "to_svg(line_figure([1, 2], [3, 4], x_label='x', y_label='y', x_log=True, y_log=True), 'a', 'b')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("counts", [True, False])
def test_a_matrix_is_drawn_pixel_by_pixel_with_its_scale(counts: bool) -> None:
    values = np.zeros((3, 400))
    values[1, 7], values[2, 9] = 1108.0, 0.0 if counts else -1108.0
    figure = heat_figure(values, x_label="x", y_label="y", y_names=["a", "a", "b"], counts=counts)
    root = ElementTree.fromstring(to_svg(figure, "m", "a matrix"))
    matrix, bar = (image.attrib for image in root.iter("image"))
    with Image.open(io.BytesIO(base64.b64decode(matrix["href"].partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (3, 400, 3)
    assert (pixels[0] == pixels[0, 0]).all()
    assert (pixels[1, 7] != pixels[0, 0]).any()
    assert (pixels[2, 9] != pixels[0, 0]).any() == (not counts)
    axes = figure.axes[0].get_window_extent()
    step = float(matrix["transform"].removeprefix("matrix(").split()[0])
    tolerances.assert_elementwise(400 * step, axes.width * 72 / figure.dpi, np.float32)
    texts = ["".join(text.itertext()) for text in root.iter("text")]
    assert [text for text in texts if text in "ab"] == ["a", "b"], "equal neighbours are named once"
    assert texts[-2 if counts else -3 :] == (["0", "1108"] if counts else ["-1110", "0", "1110"]), "three digits"
    assert bar["href"].startswith("data:image/png;base64,")


def test_small_counts_are_written_exactly() -> None:
    figure = heat_figure([[1108, 0], [3, 12345]], x_label="x", y_label="y", counts=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1108", "0", "3", "12345"]


def test_the_standard_error_is_a_band_about_the_path() -> None:
    error = np.linspace(0.1, 0.6, 6)
    figure = lambda_path_figure(LAMBDAS, np.arange(6.0), best=2, error=error, **NO_FLOOR, **ACCURACY)
    (band,) = figure.axes[0].collections
    x, y = band.get_paths()[0].vertices.T
    for lam, value, half in zip(LAMBDAS, np.arange(6.0), error, strict=True):
        at = y[np.isclose(x, lam)]
        tolerances.assert_elementwise([at.min(), at.max()], [value - half, value + half], np.float64, 1.0)


def test_matrix_of_few_rows_has_room_for_its_names_and_labels() -> None:
    """What stands beside a matrix lies within the figure, and no text on another."""
    names = ["WWWWWWWWWWWWWWWW", "iiii", "another name"]
    figure = heat_figure(np.eye(3), x_label="predicted", y_label="original predicts", x_names=names, y_names=names)
    axes, whole = figure.axes[0], figure.bbox
    figure.draw_without_rendering()
    label = axes.yaxis.label.get_window_extent()
    assert whole.y0 <= label.y0 < label.y1 <= whole.y1
    beside = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert label.x0 >= whole.x0
    assert label.x1 <= min(box.x0 for box in beside)
    assert min(tick.get_window_extent().y0 for tick in axes.get_xticklabels()) >= whole.y0


def test_many_long_names_of_curves_lie_above_axes_of_the_usual_height() -> None:
    names = [f"a_package_of_mine.maps:a_long_name_{number}, real, lambda_S 0.001" for number in range(16)]
    names.append("x" * 200)
    curves = [SpreadCurve(name, (0, 0), [1, 2], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]) for name in names]
    curves.append(SpreadCurve("original model", (0, 0), [1, 2], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0], dotted=True))
    few = panels_figure([Panel("accuracy", curves[:1])])
    figure = panels_figure([Panel("accuracy", curves), Panel("error", curves[:2])])
    (legend,) = figure.legends
    assert "".join(text.get_text().replace("\n", "") for text in legend.get_texts()).count("original model") == 1
    assert len(legend.get_texts()) == len(curves)
    box = legend.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1 + 1.0
    heights = [each.axes[0].get_window_extent().height for each in (few, figure)]
    assert heights[0] == pytest.approx(heights[1], rel=1e-9)
    assert all(box.y0 >= axes.get_window_extent().y1 for axes in figure.axes)


def test_pictures_are_the_same_whatever_a_matplotlibrc_says(tmp_path: Path) -> None:
    """One that lay in the working directory changed them, or ended a run where it drew them, and ran LaTeX."""

    def drawn(name: str) -> tuple[bytes, str]:
        figure = line_figure([1.0, 2.0], [3.0, 4.0], x_label="$x", y_label="y", x_log=False, y_log=True)
        save_figure(figure, tmp_path / name)
        return (tmp_path / name).read_bytes(), str(to_svg(figure, "chart", "a chart"))

    expected = drawn("plain.png")
    changed = {"text.usetex": True, "savefig.facecolor": "red", "lines.linewidth": 9.0, "savefig.bbox": "tight"}
    with matplotlib.rc_context(changed):
        assert drawn("changed.png") == expected
        assert matplotlib.rcParams["lines.linewidth"] == 9.0
