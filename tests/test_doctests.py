"""The examples in the docstrings of public names and in guides: they run, and print what they say."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import krrdistill as kd

pytest.importorskip("sklearn", reason="scikit-learn, which has the digits, is not installed")

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# The names that most programs use: every one of them has an example.
SHOWN = (
    "DistilledDataset",
    "RidgeStatistics",
    "UserMap",
    "distill",
    "distill_model",
    "fit_model",
    "load_dataset",
    "make_map",
    "read_samples",
    "standardize",
)


def examples(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(getattr(kd, name), name, module=False, globs={})
    return [each for each in found if each.examples]


@pytest.mark.parametrize("name", sorted(name for name in kd.__all__ if inspect.getdoc(getattr(kd, name))))
def test_examples_of_public_name_print_what_they_say(name: str) -> None:
    tests = examples(name)
    assert tests or name not in SHOWN, "no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for each in tests:
        runner.run(each, out=said.append)
    assert not runner.failures, "".join(said)


def test_example_of_the_guide_to_statistics_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[1] / "docs" / "guide" / "statistics.md"
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    assert (failed, tried > 5) == (0, True)
