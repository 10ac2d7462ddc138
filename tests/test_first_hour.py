"""What a newcomer tries in the first hour: each mistake is refused with the remedy, in the words of who made it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
from krrdistill.data.columns import chosen_columns
from krrdistill.errors import DataError, DataWarning

N, K, D = 60, 3, 4
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.arange(N) % K
PHI = kd.FCNN(D, seed=1)


def made(**options: Any) -> kd.Distillation:
    return kd.distill(X, Y, PHI, **options)


def statistics(rows: slice = slice(None)) -> kd.RidgeStatistics:
    return kd.RidgeStatistics(PHI, K, precision="float64").update(X[rows], Y[rows])


def data() -> kd.Dataset:
    return kd.Dataset("mine", X, Y, X, Y, class_names=("a", "b", "c"))


def less_a_class() -> Any:
    whole, other = statistics(), kd.RidgeStatistics(PHI, K, precision="float64").update(X, np.full(N, 2))
    whole -= other
    return whole


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "more of a class is taken away than there is": (
        less_a_class, DataError, "statistics -=: 60 samples of class 2 cannot be taken from 20; only data",
    ),
    "y is None": (lambda: kd.distill(X, None, PHI), TypeError, "distill: y must be labels or targets, got None; "),
    "y is a column name": (
        lambda: kd.distill(X, "d", PHI), TypeError,
        "distill: y is the string 'd', not labels; X, y = krrdistill.read_samples(frame, y='d')",
    ),
    "X is a pair": (
        lambda: kd.distill((X, Y), Y, PHI), TypeError, "distill: X is a tuple of 2, not an array; pass X and y apart",
    ),
    "X is a list of a pair": (
        lambda: kd.distill([X, Y], Y, PHI), TypeError, "distill: X is a list of 2, not an array; pass X and y apart",
    ),
    "X is ragged": (
        lambda: kd.distill([[1, 2], [1]], [0, 1], PHI), DataError,
        "distill: X has samples of different lengths (2 and 1)",
    ),
    "X is our data set": (
        lambda: kd.distill(data(), Y, PHI), TypeError, "pass data.x_train, data.train_targets",
    ),
    "options is a dict": (
        lambda: kd.distill(X, Y, PHI, options={"seed": 1}), TypeError,  # type: ignore[arg-type]
        "distill: options must be DistillOptions, got dict; its entries are arguments: distill(..., **options)",
    ),
    "ipc": (lambda: made(ipc=1), TypeError, "distill: unknown option ipc; did you mean points_per_class?"),
    "lambda": (lambda: made(**{"lambda": 1}), TypeError, "unknown option lambda; did you mean lambdas?"),
    "test is an array": (
        lambda: made().distilled.verify(test=X), TypeError,
        "verify: test must be a pair (X, y) or a Dataset, got ndarray",
    ),
    "test is of three": (
        lambda: made().distilled.verify(test=(X, Y, 1)), TypeError, "or a Dataset, got a tuple of 3",
    ),
    "model is its weights": (
        lambda: made().distilled.verify(np.eye(K), test=(X, Y)), TypeError,  # type: ignore[arg-type]
        "verify: model must be a RidgeModel or (W, b), got ndarray; pass (W, None)",
    ),
    "model is a result": (
        lambda: made().distilled.verify(made(), test=(X, Y)), TypeError,  # type: ignore[arg-type]
        "verify: model must be a RidgeModel or (W, b), got Distillation; pass result.model",
    ),
    "model of distill_model is a result": (
        lambda: kd.distill_model(made()), TypeError, "got Distillation; pass result.model",  # type: ignore[arg-type]
    ),
    "map of a file is a callable": (
        lambda: kd.DistilledDataset.load("d.npz", feature_map=np.tanh), TypeError,  # type: ignore[arg-type]
        "load: feature_map must be a map, got ufunc; a function is a map of your own: UserMap(function, input_dim)",
    ),
    "widths is a number": (
        lambda: kd.FCNN(D, widths=32), TypeError,  # type: ignore[arg-type]
        "FCNN: widths must be a sequence of integers, got 32; pass [32]",
    ),
    "option of another map": (
        lambda: kd.make_map("FCNN", X, sigma=1.0), ValueError,
        "make_map: FCNN does not take sigma; it takes widths, hidden_layers, slope",
    ),
    "file to read is a folder": (
        lambda: kd.DistilledDataset.load("."), DataError, ".: is a folder; name the .npz file in it",
    ),
    "file to write is a folder": (
        lambda: made().distilled.save("."), IsADirectoryError, "is a folder; name a file in it",
    ),
    "folder to write in is missing": (
        lambda: made().distilled.save("missing/d.npz"), FileNotFoundError,
        "the folder missing does not exist; make it first: 'missing/d.npz'",
    ),
    "progress is a switch": (
        lambda: made(progress=True), TypeError,
        "progress must be callable, as progress(stage, fraction), or None, got bool",
    ),
    "too much is held out": (
        lambda: made(validation_fraction=0.97), DataError,
        "lower validation_fraction to 0.95, which leaves every class a sample",
    ),
    "validation is of three": (
        lambda: made(validation=(X, Y, 1)), TypeError, "validation must be a pair (X, y), got tuple of 3",
    ),
    "points beyond memory": (
        lambda: made(points_per_class=10**13), MemoryError,
        "distill: 30000000000000 points of 4 numbers take 8.94e+05 GiB, and more while they are made",
    ),
    "a slip": (lambda: made(point_per_class=1), TypeError, "did you mean points_per_class?"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_refused_with_its_remedy(mistake: str) -> None:
    call, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as refused:
        call()
    assert words in str(refused.value)


def test_index_of_pandas_is_no_feature_with_a_word() -> None:
    found = ["a", "b", "y", "__index_level_0__"]
    with pytest.warns(DataWarning, match="t: column '__index_level_0__' is the index that pandas stored; it is no fea"):
        assert chosen_columns("t", found, None, "y") == (["a", "b"], ["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen_columns("t", found, ["a", "__index_level_0__"], "y")[0] == ["a", "__index_level_0__"]


def test_index_of_a_csv_is_a_feature_with_a_word() -> None:
    with pytest.warns(DataWarning, match="'Unnamed: 0' looks like an index"):
        assert chosen_columns("t", ["Unnamed: 0", "a", "y"], None, "y") == (["Unnamed: 0", "a"], ["y"])


def test_configuration_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    from krrdistill.apps.cli.config import read_config
    from krrdistill.apps.cli.settings import DistillSettings
    from krrdistill.apps.cli.status import UsageError

    pytest.importorskip("yaml", reason="the cli extra is not installed")
    file = tmp_path / "c.yaml"
    for text, lines in (("seed: 1\nzca: true\nseed: 2\n", "1 and 3"), ("distill:\n  IPC: 1\n  IPC: 2\n", "2 and 3")):
        file.write_text(text)
        with pytest.raises(UsageError, match=f"is there twice, in lines {lines}"):
            read_config(file, DistillSettings)


def test_arrays_of_a_set_are_not_written_to(tmp_path: Path) -> None:
    distilled = made(include_weights=True).distilled
    distilled.save(tmp_path / "d.npz")
    for each in (distilled, kd.DistilledDataset.load(tmp_path / "d.npz")):
        for array in (each.Y, each.inputs, each.weights):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0.0  # type: ignore[index]


def test_edge_of_the_grid_is_said_only_where_it_scores_better() -> None:
    path = made(lambdas=[0.1, 1.0, 10.0]).model.path
    scored = {"rises": [0.1, 0.2, 0.3], "flat at the end": [0.1, 0.3, 0.3], "alike": [1 / 3] * 3}
    said = {name: replace(path, best=2, score=np.array(score)).edge() for name, score in scored.items()}
    assert said["rises"] == "the lambda chosen, 10, is the largest of the grid: give larger ones, too (lambdas)"
    assert said["flat at the end"] is None
    assert str(said["alike"]).startswith(
        "every lambda of the grid scores alike (0.333), so that the largest is taken: "
    )


def test_sum_of_statistics_is_that_of_their_data() -> None:
    shards = [statistics(slice(0, 20)), statistics(slice(20, 60))]
    total = sum(shards)
    assert isinstance(total, kd.RidgeStatistics)
    assert total.n == N
    assert [shard.n for shard in shards] == [20, 40]
    with pytest.raises(TypeError):
        1 + shards[0]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["fcnn", "IDENTITY", "Random_Fourier"])
def test_name_of_a_kernel_is_taken_in_any_case(name: str) -> None:
    assert kd.make_map(name, X).kernel.casefold() == name.casefold()


def test_text_file_is_refused_without_advice_to_load_pickles(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "objects.npz", X=np.array([{}], dtype=object))
    for name in ("d.npz", "objects.npz"):
        with pytest.raises(DataError) as refused:
            kd.DistilledDataset.load(tmp_path / name)
        assert "allow_pickle" not in str(refused.value)


def test_options_take_numbers_of_arrays_without_dimensions() -> None:
    options = kd.DistillOptions(seed=np.array(3), lambdas=np.array(0.5), points_per_class=np.array(2))  # type: ignore[arg-type]
    assert (options.seed, options.lambdas, options.points_per_class) == (3, (0.5,), 2)
    with pytest.raises(TypeError, match=r"seed must be an integer, got 1\.5"):
        kd.DistillOptions(seed=np.array(1.5))  # type: ignore[arg-type]


def test_partial_fit_before_every_class_has_come_says_what_to_pass() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from krrdistill.interop.sklearn import RidgeDistiller

    with pytest.raises(DataError, match="no sample of class 2 so far; pass solve=False until every class has come"):
        RidgeDistiller().partial_fit(X[Y < 2], Y[Y < 2], classes=[0, 1, 2])


def test_commands_take_a_folder_for_its_file_and_say_it_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    pytest.importorskip("matplotlib", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    out = tmp_path / "o"
    assert main(["distill", "--dataset", "digits", "--include-weights", "--out", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert main(["report", str(out / "distilled.npz")]) == 2
    assert f"is a file: give the folder of its run, {out}" in " ".join(capsys.readouterr().err.split())
    assert main(["distill", "--points-per-class", "2"]) == 2
    assert "No such option: --points-per-class; did you mean --ipc?" in capsys.readouterr().err


def test_columns_in_another_order_are_refused_wherever_samples_come_in(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("narwhals", reason="narwhals is not installed")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    swapped, others = frame[list("dcba")], frame.rename(columns={"a": "z"})
    result = kd.distill(frame, Y, PHI, include_weights=True)
    result.model.save(tmp_path / "m.npz")
    result.distilled.save(tmp_path / "d.npz")
    summed = kd.RidgeStatistics(PHI, K).update(frame, Y)
    summed.save(tmp_path / "s.npz")
    distilled = kd.DistilledDataset.load(tmp_path / "d.npz")
    model = kd.RidgeModel.load(tmp_path / "m.npz", PHI)
    read = kd.RidgeStatistics.load(tmp_path / "s.npz", PHI)
    for call in (
        model.predict,
        distilled.predict,
        lambda x: distilled.verify(test=(x, Y)),
        lambda x: read.update(x, Y),
        lambda x: summed.copy().merge(kd.RidgeStatistics(PHI, K, shard="others").update(x, Y)),
        lambda x: kd.distill(frame, Y, PHI, validation=(x, Y)),
        lambda x: kd.fit_model(summed, [1.0, 2.0], validation=(x, Y)),
        lambda x: kd.retrain(distilled, x, Y),
        lambda x: kd.Dataset("mine", frame, Y, x, Y),
    ):
        call(frame)
        call(X)  # an array has no names
        for wrong in (swapped, others):
            with pytest.raises(DataError, match="columns of X"):
                call(wrong)
    with pytest.raises(DataError) as refused:
        model.predict(swapped)
    expected = "predict: the columns of X are d, c, b, a, those trained on a, b, c, d; pass X[['a', 'b', 'c', 'd']]"
    assert str(refused.value) == expected
