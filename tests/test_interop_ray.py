"""krrdistill.interop.ray: a Ray data set against one process, and failures by name. One cluster for all tests."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from engines import HOLDOUT, SEED, assert_same_choice, assert_same_statistics, digits

pytest.importorskip("ray.data", reason="Ray is not installed (pip install krrdistill[ray])")
import pyarrow as pa
import ray

from krrdistill.interop.ray import _batches, _Columns, _shares, correct_counts, statistics

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


def test_nan_on_a_ray_worker_reaches_the_user(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = digits()
    monkeypatch.setattr(ray, "cancel", None)  # it can end this process

    def broken(batch: dict[str, Any]) -> dict[str, Any]:
        pixels = batch["pixels"].copy()
        pixels[batch["row"] == 777] = np.nan
        return {**batch, "pixels": pixels}

    with pytest.raises(
        kd.DataError, match=r"^statistics: task \d+, batch \d+: statistics.update: X: row \d+ holds NaN"
    ):
        statistics(dataset.map_batches(broken), problem.phi, 10, x="pixels", y="digit")
    with pytest.raises(kd.DataError, match=r", rows numbered \d+ \.\.\. \d+: statistics.update: X: row") as error:
        statistics(dataset.map_batches(broken), problem.phi, 10, x="pixels", y="digit", row="row", batch_size=100)
    first, last = map(int, re.findall(r"numbered (\d+) \.\.\. (\d+)", str(error.value))[0])
    assert first <= 777 <= last < first + 200


def test_batches_that_ray_gives_to_one_process_are_a_stream(dataset: Any) -> None:
    problem = digits()
    found = kd.RidgeStatistics(problem.phi, 10, precision="float64")
    found.update_batches(dataset.select_columns(["pixels", "digit"]).iter_batches(batch_size=100), y="digit")
    assert found.n == 1438
    for refused in (dataset, dataset.iterator()):
        with pytest.raises(TypeError, match=r"krrdistill\.interop\.ray sums it"):
            found.update_batches(refused)


def test_rows_of_small_blocks_are_put_together_and_cut_as_asked(dataset: Any) -> None:
    problem = digits()
    found = statistics(dataset.limit(700), problem.phi, 10, x="pixels", y="digit", precision="float64", batch_size=300)
    assert found.n == 700
    assert statistics(dataset.filter(lambda row: row["digit"] > 9), problem.phi, 10, x="pixels", y="digit").n == 0


def test_blocks_that_count_in_part_are_cut() -> None:
    columns = _Columns("pixels", "digit", None, "row")
    tables = [pa.table({"pixels": [float(i) for i in n], "digit": n, "row": n}) for n in (range(5), range(5, 8))]
    batches = list(_batches(columns, 3, "task 0", [(1, 3), None], tables))
    assert [batch.numbers.tolist() for batch in batches] == [[1, 2, 5, 6, 7]]
    whole = pa.table({"pixels": [0.0] * 8, "digit": range(8), "row": range(8)})
    batches = list(_batches(columns, 3, "task 0", [None], [whole]))
    assert [batch.numbers.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_shares_have_a_batch_at_least_and_grow_with_the_rows() -> None:
    blocks = [SimpleNamespace(num_rows=10, size_bytes=100)] * 1000
    bundle = SimpleNamespace(block_refs=range(1000), metadata=blocks)
    found = list(_shares(SimpleNamespace(iter_internal_ref_bundles=lambda: iter([bundle])), 2, 20))
    assert [block.reference for share in found for block in share] == list(range(1000))
    sizes = [len(share) for share in found]
    assert sizes[:3] == [2, 2, 2]
    assert 1000 / 32 >= max(sizes) >= sizes[-2] > 20


def test_a_worker_killed_in_the_middle_changes_nothing(dataset: Any, tmp_path: Path) -> None:
    problem, killed = digits(), tmp_path / "killed"

    class Deadly(kd.RandomFourier):
        def __setstate__(self, state: dict[str, Any]) -> None:
            """Arrives in a task; the first one dies."""
            self.__dict__.update(state)
            with suppress(FileExistsError), killed.open("x"):
                os._exit(1)

    phi = Deadly(64, 60, sigma2=64.0, seed=1, preprocessing=problem.phi.preprocessing)
    found = statistics(dataset, phi, 10, x="pixels", y="digit", precision="float64", batch_size=100)
    assert killed.exists()
    assert_same_statistics(found, problem.everything)


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
