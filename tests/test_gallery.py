"""Pages of the gallery can be built, name what exists, and the claims of some hold on the bundled digits.

The documentation build runs all of them (examples/gallery/README.rst).
"""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import krrdistill as kd
import tolerances
from krrdistill.apps import privacy

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
PAGES = sorted(GALLERY.glob("plot_*.py"))
NAMESPACES = {"kd": kd, "privacy": privacy}


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a page on the digits; its own assertions are what is tested."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn (the cli extra)")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="pages have figures (the cli extra)")
    pyplot.switch_backend("Agg")
    for variable in ("KRRDISTILL_DATA", "DATASET", "KERNEL"):
        monkeypatch.delenv(variable, raising=False)
    try:
        return runpy.run_path(str(GALLERY / f"{name}.py"), run_name="__main__")
    finally:
        pyplot.close("all")


def test_pages_are_numbered_in_order() -> None:
    numbers = [int(page.stem.split("_")[1]) for page in PAGES]
    assert numbers == list(range(1, len(PAGES) + 1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_has_title_prose_and_claim(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tree = ast.parse(text)
    title, underline, empty = (ast.get_docstring(tree) or "").split("\n")[:3]
    assert title
    assert underline == "=" * len(title)
    assert not empty
    assert len(re.findall(r"^# %%$", text, re.MULTILINE)) >= 2
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_uses_only_public_names(page: Path) -> None:
    for node in ast.walk(ast.parse(page.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NAMESPACES:
            assert node.attr in dir(NAMESPACES[node.value.id]), f"line {node.lineno}: {node.value.id}.{node.attr}"


def test_federated_sites_give_the_model_of_the_pooled_data(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("plot_07_federated", monkeypatch)
    assert found["difference"] <= tolerances.TRAVELLED
    if found["private_accuracy"] is not None:  # OpenDP is optional
        assert 0.3 < found["private_accuracy"] < found["certificate"].original_accuracy


def test_tasks_one_after_the_other_give_the_model_of_joint_training(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("plot_08_continual", monkeypatch)
    assert found["difference"] <= tolerances.TRAVELLED
    assert len(found["merged"]) == 5


def test_what_is_taken_away_was_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("plot_09_unlearning", monkeypatch)["differences"]["model before"] > 1e-3


def test_torch_head_is_trained_through_the_solve_and_distilled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    losses = run("plot_04_torch_head", monkeypatch)["losses"]
    assert losses[-1] < 0.9 * losses[0]
