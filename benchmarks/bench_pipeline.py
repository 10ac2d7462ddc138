"""From loaded arrays to a distilled set, and to a certified file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import krrdistill as kd
from harness import BACKENDS, Recorder, backend_or_skip
from numpy_pipeline import run as numpy_run
from problem import KERNELS, Problem
from work import Work, pipeline_work

_EXACT = 1e-6  # the target of docs/measured/exactness.md


def _floor(problem: Problem, kernel: str) -> Work:
    n = len(problem.x_train)
    held_out = round(0.05 * n)
    parts = pipeline_work(problem.feature_map(kernel), n - held_out, held_out, len(problem.x_test))
    return sum(parts.values(), start=Work())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_certified_file(record: Recorder, problem: Problem, tmp_path: Path, kernel: str, name: str) -> None:
    options = kd.DistillOptions(backend=backend_or_skip(name).name)

    def call() -> kd.RunResult:
        return kd.run_distillation(problem.dataset, kernel=kernel, options=options, out=tmp_path)

    report = record(call, _floor(problem, kernel), kernel=kernel).report
    assert report["certificate"]["weight_relative_error"] <= _EXACT
    assert report["certificate"]["prediction_agreement"] == 1.0
    assert report["distilled"]["test_accuracy"] == report["original"]["test_accuracy"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_numpy(record: Recorder, problem: Problem, tmp_path: Path, kernel: str) -> None:
    chain = problem.feature_map(kernel)

    def call() -> dict[str, Any]:
        return numpy_run(problem.dataset, chain, 1, tmp_path)

    result = record(call, _floor(problem, kernel), kernel=kernel)
    assert result["weight_relative_error"] <= _EXACT
    assert abs(result["distilled_test_accuracy"] - result["test_accuracy"]) <= 1e-3
