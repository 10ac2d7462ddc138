"""krrdistill.interop.ray: a Ray data set against one process, and failures by name. One cluster for all tests."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from engines import HOLDOUT, SEED, assert_same_choice, assert_same_statistics, digits

pytest.importorskip("ray.data", reason="Ray is not installed (pip install krrdistill[ray])")
import ray

from krrdistill.interop.ray import _Columns, correct_counts, statistics

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ray_data.py"
pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning")  # Ray's own, of itself


@pytest.fixture(scope="module")
def dataset() -> Iterator[Any]:
    """Digits in 8 blocks, on two CPUs."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # no token is written to the home folder
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    problem = digits()
    rows = [{"pixels": x, "digit": c, "row": i} for i, (x, c) in enumerate(zip(problem.X, problem.y, strict=True))]
    yield ray.data.from_items(rows, override_num_blocks=8)
    ray.shutdown()


def test_ray_chooses_the_same_lambda_and_its_points_are_exact(dataset: Any) -> None:
    problem = digits()
    split = {"x": "pixels", "y": "digit", "row": "row", "holdout": HOLDOUT, "seed": SEED, "batch_size": 100}
    found = statistics(dataset, problem.phi, 10, precision="float64", **split)
    assert found.feature_map is problem.phi
    assert_same_statistics(found, problem.training)
    assert_same_choice(found, correct_counts(kd.ridge_path(found), found, dataset, **split), problem)


def test_ray_sums_columns_and_weights_in_float32(dataset: Any) -> None:
    names = [f"pixel {i}" for i in range(64)]
    problem, weight = digits("float32"), np.random.default_rng(0).uniform(0.5, 2.0, 1438)

    def columns(batch: dict[str, Any]) -> dict[str, Any]:
        pixels = dict(zip(names, batch["pixels"].T, strict=True))
        return {**pixels, "weight": weight[batch["row"]], "digit": batch["digit"], "twice": 2.0 * batch["digit"]}

    wide = dataset.map_batches(columns)
    found = statistics(wide, problem.phi, n_targets=2, x=names, y=["digit", "twice"], sample_weight="weight", workers=3)
    Y = np.column_stack([problem.y, 2.0 * problem.y])
    expected = kd.RidgeStatistics(problem.phi, n_targets=2).update(problem.X, Y, sample_weight=weight)
    assert found.columns == tuple(names)
    tolerances.assert_reduction(found.total_weight, expected.total_weight, np.float64, 1438, expected.total_weight)
    assert_same_statistics(found, expected)


def test_nan_on_a_ray_worker_reaches_the_user(dataset: Any) -> None:
    problem = digits()

    def broken(batch: dict[str, Any]) -> dict[str, Any]:
        pixels = batch["pixels"].copy()
        pixels[batch["row"] == 777] = np.nan
        return {**batch, "pixels": pixels}

    with pytest.raises(
        kd.DataError, match=r"^statistics: worker \d, batch \d+: statistics.update: X: row \d+ holds NaN"
    ):
        statistics(dataset.map_batches(broken), problem.phi, 10, x="pixels", y="digit")


def test_columns_that_are_not_there_are_named() -> None:
    columns, batch = _Columns("pixels", "label", None, "row"), {"pixels": np.zeros((2, 4)), "row": np.array([0.5, 1.5])}
    with pytest.raises(kd.DataError, match="batch 3: the data set has no column 'label'; its columns are pixels, row"):
        columns.batch("batch 3", batch)
    with pytest.raises(TypeError, match="batch 3: the column 'row' must hold integers, got float64"):
        columns.batch("batch 3", {**batch, "label": np.zeros(2)})


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "row numbers": (
        lambda data, phi: statistics(data, phi, 10, x="pixels", y="digit", holdout=0.1),
        r"holdout goes by the numbers of rows, .*: pass row='COLUMN'",
    ),
    "an array": (lambda data, phi: statistics(digits().X, phi, 10, x="x", y="y"), "^statistics: dataset must be a ray"),
    "no classes": (lambda data, phi: statistics(data, phi, x="pixels", y="digit"), "give classes, or n_targets"),
    "distill": (
        lambda data, phi: kd.distill(data, digits().y, phi),
        "is a Ray \\w*Dataset, .* krrdistill.interop.ray sums it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_ray_cannot_sum_is_refused_with_the_remedy(dataset: Any, case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(TypeError, match=message):
        call(dataset, digits().phi)


def test_the_ray_example_runs(dataset: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "exact" in capsys.readouterr().out
