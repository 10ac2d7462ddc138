"""Every example runs as its first lines say, and shows what it claims."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tolerances

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern + r" ([-+.e0-9]+[0-9])", text)
    assert found is not None, text
    return float(found.group(1))


def test_federated_sites_give_the_model_of_the_pooled_data() -> None:
    printed = run("federated.py", "--epsilon", "8")
    assert number("relative difference", printed) <= tolerances.TRAVELLED
    accuracies = re.findall(r"test accuracy ([.0-9]+), from the points ([.0-9]+)", printed)
    assert len(accuracies) == 1
    assert accuracies[0][0] == accuracies[0][1]
    assert 0.3 < number(r"differentially private: test accuracy", printed) < float(accuracies[0][0])


def test_tasks_one_after_the_other_give_the_model_of_joint_training() -> None:
    printed = run("continual.py")
    assert number("relative difference", printed) <= tolerances.TRAVELLED
    assert number("retrain to the model up to", printed) <= tolerances.EXACT_WEIGHTS
    assert len(re.findall(r"^task", printed, re.MULTILINE)) == 5


def test_what_is_taken_away_was_never_there() -> None:
    printed = run("unlearning.py")
    assert number("model", printed.split("against training")[1]) <= tolerances.EXACT_WEIGHTS
    assert number("points", printed.split("against training")[1]) <= tolerances.EXACT_WEIGHTS
    assert number("never saw them up to", printed) <= tolerances.EXACT_WEIGHTS


def test_federated_flower() -> None:
    pytest.importorskip("flwr", reason="flwr[simulation] is not installed")
    printed = run("federated_flower.py")
    assert number("relative difference", printed) <= tolerances.TRAVELLED
