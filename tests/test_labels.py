"""What y means: one rule for every kind of array, with the names kept; what is ambiguous is refused or said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import tolerances
from krrdistill.apps.cli import main
from krrdistill.common.arrays import as_rows
from krrdistill.data.labels import Classes

N, K, D = 120, 4, 6
CODES = np.arange(N) % K
NAMES = np.array(["ant", "bee", "cat", "dog"])
PHI = kd.FCNN(D, seed=1)


def samples() -> Any:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> kd.Distillation:
    return kd.distill(samples(), CODES, PHI)


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed")


LABELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "list": (CODES.tolist, None),
    "int8": (lambda: CODES.astype("i1"), None),
    "uint64": (lambda: CODES.astype("u8"), None),
    "from one": (lambda: CODES + 1, (1, 2, 3, 4)),
    "gaps": (lambda: np.array([-7, 0, 3, 900])[CODES], (-7, 0, 3, 900)),
    "identifiers": (lambda: CODES + 10**8, tuple(range(10**8, 10**8 + K))),
    "beyond int64": (lambda: CODES.astype("u8") + 2**63, tuple(2**63 + c for c in range(K))),
    "strings": (lambda: NAMES[CODES], tuple(NAMES)),
    "bytes": (lambda: NAMES.astype("S")[CODES], tuple(NAMES)),
    "objects": (lambda: NAMES[CODES].astype(object), tuple(NAMES)),
    "pandas": (lambda: library("pandas").Series(CODES), None),
    "pandas nullable": (lambda: library("pandas").Series(CODES).astype("Int64"), None),
    "pandas strings": (lambda: library("pandas").Series(NAMES[CODES]), tuple(NAMES)),
    "pandas categories": (lambda: library("pandas").Series(NAMES[CODES]).astype("category"), tuple(NAMES)),
    "polars": (lambda: library("polars").Series(CODES), None),
    "polars categories": (lambda: library("polars").Series(NAMES[CODES]).cast(library("polars").Categorical), NAMES),
    "arrow": (lambda: library("pyarrow").array(CODES), None),
    "arrow dictionary": (lambda: library("pyarrow").array(NAMES[CODES]).dictionary_encode(), NAMES),
    "torch": (lambda: library("torch").from_numpy(CODES), None),
    "jax": (lambda: library("jax.numpy").asarray(CODES), None),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind_give_the_same_points_and_keep_their_names(kind: str, reference: kd.Distillation) -> None:
    make, names = LABELS[kind]
    result = kd.distill(samples(), make(), PHI)
    tolerances.assert_exact(result.distilled.inputs, reference.distilled.inputs)
    tolerances.assert_exact(result.distilled.Y, reference.distilled.Y)
    assert result.model.classes is not None
    expected = None if names is None else tuple(names)
    assert result.model.classes.names == expected
    labels = np.arange(K) if expected is None else np.array(expected)
    codes = reference.model.predict(samples())
    assert (result.model.predict(samples()) == labels[codes]).all()


def test_booleans_are_two_classes() -> None:
    result = kd.distill(samples(), CODES < 2, PHI)
    assert len(result.distilled.inputs) == 2
    assert result.model.predict(samples()).dtype == bool


def test_names_survive_the_file(tmp_path: Any) -> None:
    result = kd.distill(samples(), CODES < 2, PHI)
    result.distilled.save(tmp_path / "a.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "a.npz")
    assert loaded.classes is not None
    assert loaded.classes.names == (False, True)
    tolerances.assert_exact(loaded.predict(samples()), result.distilled.predict(samples()))


@pytest.mark.parametrize("make", [lambda: CODES[:, None], lambda: library("pandas").DataFrame({"y": CODES})])
def test_one_column_of_labels_is_taken_with_a_word(make: Callable[[], Any], reference: kd.Distillation) -> None:
    with pytest.warns(kd.errors.DataWarning, match=r"distill: y has shape \(120, 1\): its one column is taken as lab"):
        result = kd.distill(samples(), make(), PHI)
    tolerances.assert_exact(result.distilled.Y, reference.distilled.Y)


@pytest.mark.parametrize("make", [lambda: CODES.astype("f4"), lambda: library("torch").from_numpy(CODES).float()])
def test_whole_numbered_floats_are_refused_until_it_is_said_what_they_are(
    make: Callable[[], Any], reference: kd.Distillation
) -> None:
    with pytest.raises(TypeError, match=r"y holds whole numbers as float32, .*targets='classes'.*targets='real'"):
        kd.distill(samples(), make(), PHI)
    for said in ({"targets": "classes"}, {"classes": K}):
        tolerances.assert_exact(kd.distill(samples(), make(), PHI, **said).distilled.Y, reference.distilled.Y)
    assert kd.distill(samples(), make(), PHI, targets="real").model.targets == "real"
    assert kd.distill(samples(), CODES, PHI, targets="real").model.targets == "real"


def test_one_hot_rows_are_said_to_be_labels_of_their_own() -> None:
    with pytest.warns(kd.errors.DataWarning, match=r"every row of y has a single 1 .* pass y.argmax\(axis=1\)"):
        assert kd.distill(samples(), np.eye(K)[CODES], PHI).model.targets == "multilabel"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: np.ma.masked_equal(CODES, 1), TypeError, "y is a masked array"),
        (lambda: library("pandas").Series(CODES).mask(CODES == 3), kd.DataError, r"missing value|y holds NaN"),
        (lambda: library("pandas").array([None, *CODES[1:]]), kd.DataError, r"1 missing values \(first in row 0\)"),
        (lambda: [None, *NAMES[CODES[1:]]], kd.DataError, r"1 missing values \(first in row 0\)"),
        (lambda: [0.5, *NAMES[CODES[1:]]], TypeError, "y must hold labels of one type, got objects of type float, str"),
        (lambda: np.arange(N) + 7, kd.DataError, r"as many classes as samples \(120\).*targets='real'"),
        (lambda: np.zeros(N, int), kd.DataError, "y has one class only"),
        (lambda: CODES.astype("datetime64[D]"), TypeError, "class labels or real-valued targets, got dtype datetime64"),
    ],
)
def test_labels_that_mean_nothing_are_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kd.distill(samples(), make(), PHI)


def test_split_of_weighted_samples_never_takes_the_last_of_a_class_that_counts() -> None:
    weights = np.ones(N)
    weights[CODES == 2] = 0.0
    weights[[2, 6]] = 1.0  # two samples of class 2 count
    for seed in range(40):
        kd.distill(samples(), CODES, PHI, sample_weight=weights, seed=seed)


@pytest.mark.parametrize("start", ["noise", "real"])
def test_kip_takes_labels_of_every_kind(start: str) -> None:
    options: dict[str, Any] = {"iterations": 2, "init": start, "batch_size": 20}
    codes = kd.kip_distill(samples(), CODES, kd.Identity(D), **options)
    names = kd.kip_distill(samples(), NAMES[CODES], kd.Identity(D), **options)
    tolerances.assert_exact(names.best.distilled.inputs, codes.best.distilled.inputs)
    assert names.best.distilled.classes is not None
    assert names.best.distilled.classes.names == tuple(NAMES)


def test_classes_that_cannot_all_have_samples_are_refused_at_once() -> None:
    with pytest.raises(kd.DataError, match=r"no sample of class 4 \(999999996 of 1000000000 classes are missing\)"):
        kd.distill(samples(), CODES, PHI, classes=10**9)


def test_named_integers_are_predicted_as_integers_and_named_strings_as_strings() -> None:
    X, names = samples(), tuple("abcdefgh"[:K])
    for y, kind in ((CODES, "i"), (np.array(names)[CODES], "U")):
        data = kd.Dataset("mine", X, y, X, y, class_names=names)
        result = kd.distill(data.x_train, data.train_targets, PHI)
        assert result.model.predict(X).dtype.kind == kind
        assert data.class_names == names


@pytest.mark.parametrize(
    "command",
    [
        ["kip", "--iterations", "1", "--out"],
        ["privacy", "--mechanism", "statistics", "--epsilon", "1", "--delta", "1e-5", "--out"],
        ["privacy"],
    ],
)
def test_commands_for_classes_take_whole_numbered_floats_when_told(command: list[str], tmp_path: Path) -> None:
    X = samples()
    np.savez(tmp_path / "a.npz", x_train=X, y_train=CODES.astype("f4"), x_test=X, y_test=CODES.astype("f4"))
    words = [*command, str(tmp_path / "run")] if command[-1] == "--out" else command
    words += ["--dataset", str(tmp_path / "a.npz"), "--backend", "array"]
    assert main(words) == 1
    assert main([*words, "--targets", "classes"]) == 0


@pytest.mark.parametrize("classes", [3, [0, 1, 2]], ids=["count", "labels"])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_codes_and_rows_are_copies_that_nobody_else_can_change(classes: Any, dtype: str) -> None:
    y, rows = np.array([0, 1, 1, 0]).astype(dtype), np.array([2, 0])
    assert not np.shares_memory(Classes.of("test", classes).encode("test", y, 4), y)
    assert not np.shares_memory(as_rows("test", rows, 4), rows)
