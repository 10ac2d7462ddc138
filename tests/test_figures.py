"""Figures: layout, honest captions, gaps, and files that are whole and equal from run to run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the cli extra is not installed")

from krrdistill.apps.report import distilled_figure, lambda_path_figure, save_figure

NAMES = [str(c) for c in range(10)]
LAMBDAS = 10.0 ** np.arange(-3, 3)
NO_FLOOR = {"below_noise_floor": np.zeros(6, bool), "noise_floor": 0.0}


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.texts]


def pixels(figure: Any, tmp_path: Path) -> Any:
    from matplotlib.image import imread

    save_figure(figure, tmp_path / "figure.png")
    return imread(tmp_path / "figure.png")


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).uniform(0, 255, (20, 8, 8))


def test_one_column_per_class_and_one_row_per_copy(images: Any) -> None:
    figure = distilled_figure(images, NAMES, title="a run")
    assert len(figure.axes) == 20
    boxes = np.array([axes.get_position().bounds for axes in figure.axes])
    assert len(np.unique(boxes[:, 0].round(6))) == 10
    assert len(np.unique(boxes[:, 1].round(6))) == 2
    assert [t for t in words(figure) if t in NAMES] == NAMES
    assert {"a run", "distilled"} <= set(words(figure))
    assert "real" not in words(figure)


def test_real_images_stand_above_the_distilled_ones(images: Any) -> None:
    figure = distilled_figure(images, NAMES, start_images=images[::-1].astype(np.uint8))
    assert len(figure.axes) == 40
    assert words(figure)[:2] == ["real", "distilled"]
    first, last = figure.axes[0], figure.axes[20]
    assert first.get_position().y0 > last.get_position().y0
    shown = first.images[0].get_array()
    np.testing.assert_allclose(shown, images[-1].astype(np.uint8) / 255)


def test_only_ten_classes_and_four_copies_are_shown() -> None:
    names = [f"class_{c}" for c in range(12)]
    figure = distilled_figure(np.full((12 * 6, 4, 4, 3), 100.0), names, value_range=(0, 255))
    assert len(figure.axes) == 40
    caption = " ".join(words(figure)[-2:])
    assert "first 10 of 12 classes" in caption
    assert "first 4 of 6 samples per class" in caption
    assert "class 9" in words(figure)
    assert "class 10" not in words(figure)


def test_size_is_about_ten_inches_at_150_dpi(images: Any, tmp_path: Path) -> None:
    image = pixels(distilled_figure(images, NAMES), tmp_path)
    assert 9.0 * 150 <= image.shape[1] <= 10.5 * 150
    assert image.std() > 0.05


def test_an_image_in_range_is_shown_as_it_is(images: Any) -> None:
    figure = distilled_figure(images, NAMES)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), images[0] / 255)
    assert not any("stretched" in text for text in words(figure))


def test_an_image_that_leaves_the_range_is_stretched_and_the_caption_says_so(images: Any) -> None:
    images[3] = 1000 * images[3] - 5e4
    figure = distilled_figure(images, NAMES)
    shown = figure.axes[3].images[0].get_array()
    low, high = np.percentile(images[3], (1, 99))
    np.testing.assert_allclose(shown, np.clip((images[3] - low) / (high - low), 0, 1))
    np.testing.assert_allclose(figure.axes[4].images[0].get_array(), images[4] / 255)
    assert any(text.startswith("1 of 20 distilled images contrast-stretched") for text in words(figure))


def test_a_slight_excess_is_clipped_and_a_faint_image_is_stretched(images: Any) -> None:
    images[0, 0, 0] = 260.0
    images[1] = 100 + images[1] / 50
    figure = distilled_figure(images, NAMES)
    assert figure.axes[0].images[0].get_array().max() == 1.0
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[1:], images[0, 1:] / 255)
    assert np.ptp(figure.axes[1].images[0].get_array()) == 1.0


def test_a_constant_image_is_grey() -> None:
    figure = distilled_figure(np.full((2, 4, 4), 9e9), ["a", "b"])
    assert np.all(figure.axes[0].images[0].get_array() == 0.5)


def test_vectors_are_drawn_as_lines() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 30))
    figure = distilled_figure(vectors, ["a", "b", "c"], start_images=vectors)
    assert len(figure.axes) == 12
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), vectors[0])
    assert any("30 features" in text for text in words(figure))


def test_names_are_never_read_as_mathematics(tmp_path: Path) -> None:
    figure = distilled_figure(np.zeros((2, 4, 4)), ["$\\bad$", "x" * 200])
    save_figure(figure, tmp_path / "names.png")
    assert any(text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in words(figure))


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
        distilled_figure(images, names, **options)


def test_ridge_path_marks_the_choice_with_its_value() -> None:
    figure = lambda_path_figure(LAMBDAS, [0.1, 0.2, 0.9, 0.3, 0.2, 0.1], best=2, **NO_FLOOR)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["\N{GREEK SMALL LETTER LAMDA} = 0.1: 90.00 %"]
    assert any(list(line.get_xdata()) == [0.1] and list(line.get_ydata()) == [90.0] for line in axes.lines)
    assert not axes.patches


def test_ridge_path_leaves_gaps_where_there_is_no_model(tmp_path: Path) -> None:
    accuracy = [np.nan, 0.2, np.nan, 0.3, 0.2, 0.1]
    figure = lambda_path_figure(LAMBDAS, accuracy, best=3, **NO_FLOOR)
    line = np.asarray(figure.axes[0].lines[0].get_ydata(), dtype=float)
    assert np.isnan(line).tolist() == np.isnan(accuracy).tolist()
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    assert pixels(figure, tmp_path).shape == (570, 960, 4)


def test_ridge_path_shades_what_lies_below_the_noise_floor() -> None:
    below = LAMBDAS < 0.05
    figure = lambda_path_figure(LAMBDAS, np.full(6, 0.5), best=4, below_noise_floor=below, noise_floor=0.05)
    (axes,) = figure.axes
    (span,) = axes.patches
    edge = span.get_window_extent().transformed(axes.transData.inverted()).x1
    assert edge == pytest.approx(0.05, rel=1e-6)
    assert any("below the noise floor of G (0.05)" in text.get_text() for text in axes.texts)
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    np.testing.assert_array_equal(hollow[0].get_xdata(), LAMBDAS[below])


def test_ridge_path_of_one_point(tmp_path: Path) -> None:
    figure = lambda_path_figure([1.0], [0.5], best=0, below_noise_floor=[True], noise_floor=5.0)
    assert pixels(figure, tmp_path).shape[2] == 4


def test_ridge_path_is_not_shaded_where_every_model_is_above_the_floor() -> None:
    figure = lambda_path_figure(LAMBDAS, np.full(6, 0.5), best=4, below_noise_floor=np.zeros(6, bool), noise_floor=7.0)
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
    options = {"lambdas": LAMBDAS, "val_accuracy": np.zeros(6), "best": 0, **NO_FLOOR, **change}
    with pytest.raises(ValueError, match=expected):
        lambda_path_figure(**options)


def test_equal_figures_give_equal_bytes_without_date_or_version(images: Any, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        save_figure(distilled_figure(images, NAMES, title="t"), tmp_path / name)
    first = (tmp_path / "first.png").read_bytes()
    assert first == (tmp_path / "second.png").read_bytes()
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
        save_figure(distilled_figure(images, NAMES), path)
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_drawing_imports_no_pyplot_and_importing_no_matplotlib() -> None:
    code = (
        "import sys, numpy as np\n"
        "from krrdistill.apps.report import distilled_figure\n"
        "assert 'matplotlib' not in sys.modules\n"
        "distilled_figure(np.zeros((2, 4, 4)), ['a', 'b'])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
