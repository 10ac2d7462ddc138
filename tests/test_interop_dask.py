"""krrdistill.interop.dask: every kind of data against one process, failures by name, and a worker that is killed."""

from __future__ import annotations

import copy
import os
import pickle
import re
import runpy
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from engines import HOLDOUT, SEED, assert_same_choice, assert_same_statistics, digits

pytest.importorskip("dask.array", reason="Dask is not installed (pip install krrdistill[dask])")
pytest.importorskip("distributed", reason="Dask is not installed (pip install krrdistill[dask])")
import dask
import dask.array as da
import dask.bag as db
import distributed

from krrdistill.interop import parts
from krrdistill.interop.dask import correct_counts, correct_counts_of_batches, statistics, statistics_of_batches

LIMIT = 120  # seconds; what hangs, hangs for ever
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "dask_cluster.py"


def cluster() -> Any:
    return distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes; they are given to each call, and are not Dask's default."""
    with cluster() as workers, distributed.Client(workers, set_as_default=False) as found:
        yield found


def cut(X: Any, y: Any, rows: int = 200) -> tuple[Any, Any]:
    return da.from_array(X, chunks=(rows, -1)), da.from_array(y, chunks=rows)


# The same as in one process


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_dask_arrays_give_the_statistics_of_one_update(client: Any, precision: str) -> None:
    problem = digits(precision)
    X, y = cut(problem.X, problem.y)
    found = statistics(X, y, problem.phi, 10, precision=precision, client=client)
    assert found.feature_map is problem.phi
    assert_same_statistics(found, problem.everything)


def test_dask_chooses_the_same_lambda_and_its_points_are_exact(client: Any) -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y, 157)
    split = {"holdout": HOLDOUT, "seed": SEED, "client": client}
    found = statistics(X, y, problem.phi, 10, precision="float64", **split)
    assert_same_statistics(found, problem.training)
    assert_same_choice(found, correct_counts(kd.ridge_path(found), found, X, y, **split), problem)


def test_the_result_does_not_depend_on_workers(client: Any) -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y, 50)
    here, there = (statistics(X, y, problem.phi, 10, split_every=3, client=where) for where in (None, client))
    for name in ("gram", "cross", "target_sum"):
        tolerances.assert_exact(getattr(here, name), getattr(there, name))
    assert here.shards == there.shards


def kinds() -> dict[str, Callable[[Any], kd.RidgeStatistics]]:
    """Ways to hand over the same rows; the default scheduler runs them in threads."""

    def batches(problem: Any) -> list[Any]:
        return [(problem.X[i : i + 300], problem.y[i : i + 300]) for i in range(0, len(problem.X), 300)]

    def frames(problem: Any) -> kd.RidgeStatistics:
        dd = pytest.importorskip("dask.dataframe", reason="dask.dataframe is not installed")
        X = dd.from_dask_array(cut(problem.X, problem.y)[0], columns=[f"pixel {i}" for i in range(64)])
        found = statistics(X, dd.from_dask_array(cut(problem.X, problem.y)[1]), problem.phi, 10, precision="float64")
        assert found.columns == tuple(X.columns)
        return found

    def cut_otherwise(problem: Any) -> kd.RidgeStatistics:
        X, y = cut(problem.X, problem.y)
        return statistics(X, y.rechunk(333), problem.phi, 10, precision="float64")

    def unknown_sizes(problem: Any) -> kd.RidgeStatistics:
        X, y = cut(problem.X, problem.y)
        every = da.ones(len(problem.X), chunks=200, dtype=bool)
        return statistics(X[every], y[every], problem.phi, 10, precision="float64")

    def images(problem: Any) -> kd.RidgeStatistics:
        X, y = cut(problem.X, problem.y)
        found = statistics(X.reshape(-1, 8, 8), y, problem.phi, 10, precision="float64")
        assert found.shape == (8, 8)
        return found

    return {
        "bag": lambda problem: statistics_of_batches(
            db.from_sequence(batches(problem), npartitions=2), problem.phi, 10, precision="float64"
        ),
        "delayed": lambda problem: statistics_of_batches(
            [dask.delayed(batch) for batch in batches(problem)], problem.phi, 10, precision="float64"
        ),
        "frames": frames,
        "cut otherwise": cut_otherwise,
        "unknown sizes": unknown_sizes,
        "images": images,
        "classes found": lambda problem: statistics(*cut(problem.X, problem.y), problem.phi, precision="float64"),
    }


@pytest.mark.parametrize("kind", kinds())
def test_dask_data_of_every_kind_give_the_same(kind: str) -> None:
    assert_same_statistics(kinds()[kind](digits()), digits().everything)


def test_batches_count_like_arrays() -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y)
    path = kd.ridge_path(problem.training)
    whole = kd.count_correct(path, problem.training, kd.HeldOutRows(problem.X, problem.y))
    bag = db.from_sequence([(problem.X[:1000], problem.y[:1000]), (problem.X[1000:], problem.y[1000:])])
    for found in (
        correct_counts(path, problem.training, X, y),
        correct_counts_of_batches(path, problem.training, bag),
    ):
        tolerances.assert_exact(found.correct, whole.correct)
        assert found.n == whole.n


def test_weighted_real_targets_are_scored_by_held_out_statistics() -> None:
    problem = digits()
    Y = np.column_stack([problem.y + 1e3, problem.X[:, 20]]).astype(np.float64)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(Y))
    X, targets = cut(problem.X, Y)
    keywords = {"n_targets": 2, "precision": "float64", "sample_weight": da.from_array(weight, chunks=100)}
    split = {"holdout": HOLDOUT, "seed": SEED}
    found = statistics(X, targets, problem.phi, **keywords, **split)
    apart = statistics(X, targets, problem.phi, **keywords, **split, held_out=True)
    expected = kd.RidgeStatistics(problem.phi, n_targets=2, precision="float64")
    held = expected.update_batches([(problem.X, Y, weight)], **split, held_out="statistics")
    assert_same_statistics(found, expected)
    assert_same_statistics(apart, held)
    model = kd.fit_model(found, validation=apart)
    assert model.lambda_ == kd.fit_model(expected, validation=held).lambda_


def test_the_scaling_is_made_of_moments_of_chunks(client: Any) -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y)
    moments = [dask.delayed(kd.Moments.of)(block) for block in X.to_delayed().ravel()]
    scaling = kd.standardize(dask.delayed(sum)(moments[1:], moments[0]).compute(scheduler=client))
    phi = kd.FCNN(64, widths=[60], preprocessing=scaling)
    expected = kd.RidgeStatistics(phi, 10, precision="float64").update(problem.X, problem.y)
    assert_same_statistics(statistics(X, y, phi, precision="float64", client=client), expected)


def test_classes_are_found_by_their_names() -> None:
    problem = digits()
    names = np.array([f"digit {c}" for c in range(10)])
    X, y = cut(problem.X, names[problem.y])
    found = statistics(X, y, problem.phi)
    assert found.classes is not None
    assert found.classes.names == tuple(names.tolist())


# Parts


def test_merging_changes_no_part_and_no_part_is_added_twice() -> None:
    problem = digits()
    task = parts.WorkerTask(parts.RowChoice("statistics", 0.0, 0, False), 1, problem.phi, 10, None, "float64")
    rows = (slice(0, 700), slice(700, 1400), slice(1400, 1430))  # the last has fewer rows than features
    made = [task.part([parts.Batch("rows", problem.X[r], problem.y[r])], f"part {i}") for i, r in enumerate(rows)]
    for _, arrays in made:
        for array in arrays.values():
            array.setflags(write=False)  # as they arrive from another process
    before = copy.deepcopy(made)
    for _ in range(2):  # as if the task ran again
        total = task.whole(task.merged(made), "all")
        assert total.n == 1430
        assert total.shards == {"all"}
    for (_, ours), (_, theirs) in zip(made, before, strict=True):
        for name, array in ours.items():
            tolerances.assert_exact(array, theirs[name])
    assert total.update(problem.X[:5], problem.y[:5]).n == 1435  # its sums are its own
    with pytest.raises(kd.DataError, match="shard 'part 0' is already in these statistics"):
        task.merged([made[0], made[1], made[0]])


@pytest.mark.parametrize("form", ["copy", "pickle", "deepcopy", "arrays", "itself"])
def test_packed_parts_give_the_sums_of_matrices(form: str) -> None:
    problem = digits()
    task = parts.WorkerTask(parts.RowChoice("statistics", 0.0, 0, False), 1, problem.phi, 10, None, "float64")
    rows = (slice(0, 500), slice(500, 1000), slice(1000, 1430))
    made = [task.part([parts.Batch("rows", problem.X[r], problem.y[r])], f"part {i}") for i, r in enumerate(rows)]
    assert not any(array.flags.writeable for _, arrays in made for array in arrays.values())
    packed = [kd.RidgeStatistics.from_arrays(problem.phi, *part) for part in made]
    whole = [kd.RidgeStatistics(problem.phi, 10, precision="float64", shard=f"part {i}") for i in range(3)]
    for one, r in zip(whole, rows, strict=True):
        one.update(problem.X[r], problem.y[r])
    for each in (packed, whole):
        each[0] += each[1]
        each[0] += each[2]
        each[0] -= each[1]
    taken = {
        "copy": lambda one: one.copy(),
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
        "deepcopy": copy.deepcopy,
        "arrays": lambda one: kd.RidgeStatistics.from_arrays(problem.phi, *one.to_arrays()),
        "itself": lambda one: one,
    }[form](packed[0])
    packed[0] += packed[1].copy()  # changes neither what was taken from it, nor parts
    if form != "itself":
        tolerances.assert_exact(taken.gram, whole[0].gram)
    whole[0] += whole[1]
    tolerances.assert_exact(packed[0].gram, whole[0].gram)
    n = taken.n
    assert taken.update(problem.X[:5], problem.y[:5]).n == n + 5  # its sums are its own
    again = task.part([parts.Batch("rows", problem.X[rows[0]], problem.y[rows[0]])], "part 0")
    tolerances.assert_exact(made[0][1]["gram"], again[1]["gram"])


def test_tasks_limit_the_threads_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, limited = [], parts.limited_threads
    monkeypatch.setattr(parts, "limited_threads", lambda threads: asked.append(threads) or limited(threads))
    problem = digits()
    X, y = cut(problem.X, problem.y, 800)
    statistics(X, y, problem.phi, 10, threads=2)
    assert asked == [2, 2, 2]  # two parts and their sum


def test_the_same_data_are_not_merged_twice() -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y)
    total = statistics(X, y, problem.phi, 10)
    with pytest.raises(kd.DataError, match="already in these statistics"):
        total += statistics(X, y, problem.phi, 10)
    total += statistics(X[:300], y[:300], problem.phi, 10, shard="yesterday's")
    assert "yesterday's" in total.shards


# Failures


def nan_in_chunk_four(block: Any, block_id: Any = None) -> Any:
    block = block.copy()
    if block_id[0] == 4:
        block[7, 3] = np.nan
    return block


def test_nan_in_one_chunk_is_named_and_other_work_goes_on(client: Any) -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y)
    total = problem.everything.copy()
    bad = X.map_blocks(nan_in_chunk_four, dtype=X.dtype, meta=np.empty((0, 0), X.dtype))
    with pytest.raises(
        kd.DataError, match=r"^statistics: chunk 4, rows 800 ... 999: statistics.update: X: row 7 holds NaN"
    ):
        total += statistics(bad, y, problem.phi, 10, client=client)
    tolerances.assert_exact(total.gram, problem.everything.gram)
    found = statistics(bad[:800], y[:800], problem.phi, 10, precision="float64", client=client)
    expected = kd.RidgeStatistics(problem.phi, 10, precision="float64").update(problem.X[:800], problem.y[:800])
    assert_same_statistics(found, expected)


def test_an_exception_of_a_worker_reaches_the_user(client: Any) -> None:
    def missing(folder: str) -> Any:
        raise FileNotFoundError(f"{folder} is not mounted on this node")

    with pytest.raises(FileNotFoundError, match="/mnt/shards is not mounted on this node"):
        statistics_of_batches([dask.delayed(missing)("/mnt/shards")], digits().phi, 10, client=client)


REFUSED: dict[str, tuple[Callable[[Any, Any, Any], Any], type[Exception], str]] = {
    "features cut": (
        lambda X, y, phi: statistics(X.rechunk((200, 32)), y, phi, 10),
        kd.DataError,
        r"chunks of X cut samples, \(200, 32\); pass X.rechunk\(\{1: -1\}\)",
    ),
    "unknown sizes": (
        lambda X, y, phi: statistics(X[y > 3], y[y > 3], phi, 10, holdout=0.1),
        kd.DataError,
        r"numbers of rows, .* unknown sizes: X.compute_chunk_sizes\(\) finds them",
    ),
    "lengths": (lambda X, y, phi: statistics(X, y[:-1], phi, 10), kd.DataError, "y has 1437 rows, X has 1438"),
    "unlike chunks": (
        lambda X, y, phi: statistics(X[y > 3], y[:400], phi, 10),
        kd.DataError,
        "y has 2 chunks, X has 8; cut both alike",
    ),
    "array": (lambda X, y, phi: statistics(digits().X, y, phi, 10), TypeError, "X must be a dask array .* ndarray"),
    "labels": (lambda X, y, phi: statistics(X, digits().y, phi, 10), TypeError, "y must be a dask array .* ndarray"),
    "float labels": (
        lambda X, y, phi: statistics(X, y.astype(float), phi),
        TypeError,
        "chunk .*: y holds float64; pass classes for labels, n_targets for real values",
    ),
    "holdout": (lambda X, y, phi: statistics(X, y, phi, 10, holdout=1.5), ValueError, "holdout must be a part"),
    "all held out": (
        lambda X, y, phi: statistics(X, y, phi, 10, holdout=1.0),
        ValueError,
        "no row is left",
    ),
    "threads": (lambda X, y, phi: statistics(X, y, phi, 10, threads=0), ValueError, "threads must be at least 1"),
    "split_every": (lambda X, y, phi: statistics(X, y, phi, 10, split_every=1), ValueError, "at least 2, got 1"),
    "no batches": (lambda X, y, phi: statistics_of_batches([], phi, 10), kd.DataError, "there are no batches"),
    "no pair": (
        lambda X, y, phi: statistics_of_batches([dask.delayed([3.0])], phi, 10),
        TypeError,
        r"^statistics_of_batches: batch 0: a batch must be \(X, y\) or \(X, y, sample_weight\), got a float",
    ),
    "classes missing": (
        lambda X, y, phi: statistics_of_batches([dask.delayed((1, 2))], phi),
        TypeError,
        "give classes, or n_targets",
    ),
    "a label": (lambda X, y, phi: statistics(X, y, phi, 9), kd.DataError, r"chunk \d, rows \d+ ... \d+: .* label 9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_dask_cannot_sum_is_refused_with_the_remedy(case: str) -> None:
    call, kind, message = REFUSED[case]
    problem = digits()
    with pytest.raises(kind, match=message):
        call(*cut(problem.X, problem.y), problem.phi)


ENTRANCES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "distill": lambda X, y, problem: kd.distill(X, y, problem.phi),
    "labels": lambda X, y, problem: kd.distill(problem.X, y, problem.phi),
    "update": lambda X, y, problem: problem.everything.copy().update(X, y),
    "update_batches": lambda X, y, problem: problem.everything.copy().update_batches([(X, y)]),
    "a stream of rows": lambda X, y, problem: problem.everything.copy().update_batches(X),
    "weights": lambda X, y, problem: problem.everything.copy().update(problem.X, problem.y, sample_weight=y),
    "validation": lambda X, y, problem: kd.fit_model(problem.training, validation=(X, y)),
    "transform": lambda X, y, problem: problem.phi.transform(X),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_dask_arrays_are_not_pulled_into_one_process(entrance: str) -> None:
    problem = digits()
    computed = []
    X, y = cut(problem.X, problem.y)
    lazy = [array.map_blocks(lambda block: computed.append(1) or block, meta=array._meta) for array in (X, y)]
    message = "is a Dask Array, which this process would have to hold; krrdistill.interop.dask sums it"
    with pytest.raises(TypeError, match=re.escape(message)):
        ENTRANCES[entrance](*lazy, problem)
    assert not computed


# A worker that is lost


def waiting_batch(X: Any, y: Any, number: int) -> Any:
    """A batch that says who is making it, and waits until it may go on."""
    with distributed.worker_client(separate_thread=False) as client:
        distributed.Queue("making", client=client).put((number, os.getpid()))
        assert distributed.Event(f"go {number}", client=client).wait(LIMIT)
    return X, y


def test_a_worker_killed_in_the_middle_changes_nothing() -> None:
    problem = digits()
    pieces = [(problem.X[i : i + 200], problem.y[i : i + 200], i // 200) for i in range(0, len(problem.X), 200)]
    undisturbed = statistics_of_batches([dask.delayed(piece[:2]) for piece in pieces], problem.phi, 10)
    with cluster() as workers, distributed.Client(workers) as client, ThreadPoolExecutor(1) as thread:
        go = [distributed.Event(f"go {number}") for number in range(len(pieces))]
        batches = [dask.delayed(waiting_batch)(*piece) for piece in pieces]
        summing = thread.submit(statistics_of_batches, batches, problem.phi, 10, client=client)
        making, made_by = distributed.Queue("making"), defaultdict(list)
        while True:
            number, pid = making.get(LIMIT)
            made_by[pid].append(number)
            if len(made_by[pid]) == 3:  # two are behind it, and in its memory only
                break
            go[number].set()
        os.kill(pid, signal.SIGKILL)
        for event in go:
            event.set()
        found = summing.result(LIMIT)
        later = [making.get(LIMIT)[0] for _ in range(making.qsize())]
    assert set(made_by[pid]) <= set(later), "what was lost was made again"
    for name in ("gram", "cross", "target_sum"):
        tolerances.assert_exact(getattr(found, name), getattr(undisturbed, name))
    assert found.n == len(problem.X)


def test_the_dask_example_runs(
    client: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "LocalCluster", lambda **_: nullcontext(client.cluster))  # as it would start one
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "exact" in capsys.readouterr().out


def test_labels_of_this_process_beside_rows_of_dask_are_refused_with_the_remedy() -> None:
    problem = digits()
    X, y = cut(problem.X, problem.y)
    with pytest.raises(TypeError, match=r"y must be .* got a ndarray; dask\.array\.from_array\(y, chunks=X\.chunks"):
        statistics(X, problem.y, problem.phi, 10)
    with pytest.raises(TypeError, match=r"X must be .*RidgeStatistics sums what is in this process"):
        statistics(problem.X, y, problem.phi, 10)
