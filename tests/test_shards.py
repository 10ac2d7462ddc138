"""Which data are in statistics: no shard counts twice, classes meet by their names, files carry their map."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances

D, P = 6, 9
PHI = kd.RandomFourier(D, n_features=P, sigma2=4.0, seed=1)
Array = npt.NDArray[Any]


def statistics_of(rows: slice, classes: Any = 3, *, phi: Any = PHI, labels: Any = None, **options: Any) -> Any:
    rng = np.random.default_rng(0)
    X, codes = rng.standard_normal((90, D)), rng.integers(0, 3, 90)
    y = codes if labels is None else np.array(labels)[codes]
    known = [np.isin(y, classes) if not isinstance(classes, int) else np.ones(90, bool)][0]
    chosen = np.arange(90)[rows]
    chosen = chosen[known[chosen]]
    return kd.RidgeStatistics(phi, classes, precision="float64", **options).update(X[chosen], y[chosen])


def test_statistics_merged_twice_are_refused(tmp_path: Path) -> None:
    total, part = statistics_of(slice(30)), statistics_of(slice(30, 60))
    total += part
    before = total.gram.copy()
    part.save(tmp_path / "part.npz")
    for again in (
        part,
        copy.copy(part),
        pickle.loads(pickle.dumps(part)),
        kd.RidgeStatistics.load(tmp_path / "part.npz"),
    ):
        with pytest.raises(
            kd.DataError, match="the same samples by their digest, is already in these statistics; if these are other"
        ):
            total += again
        assert total.n == 60
    tolerances.assert_exact(total.gram, before)
    with pytest.raises(kd.DataError, match="already"):
        total += statistics_of(slice(30, 60))  # the task ran again
    with pytest.raises(kd.DataError, match="already"):
        total += part.update(np.ones((1, D)), [0])  # a part that grew holds what is in
    with pytest.raises(kd.DataError, match="already"):
        total += total


def test_a_named_shard_counts_once_and_others_of_equal_numbers_do() -> None:
    total = statistics_of(slice(30), shard="a")
    total += statistics_of(slice(30), shard="b")
    assert total.shards == {"a", "b"}
    with pytest.raises(kd.DataError, match="shard 'b' is already"):
        total += statistics_of(slice(50, 60), shard="b")
    with pytest.raises(TypeError, match="shard must be a name, got int"):
        kd.RidgeStatistics(PHI, 3, shard=1)  # type: ignore[arg-type]


def test_statistics_taken_away_can_come_back_but_not_go_twice(tmp_path: Path) -> None:
    whole, part = statistics_of(slice(60)), statistics_of(slice(40, 60))
    before = whole.gram.copy()
    whole -= part
    whole.save(tmp_path / "rest.npz")
    rest = kd.RidgeStatistics.load(tmp_path / "rest.npz")
    for left in (whole, rest):
        with pytest.raises(kd.DataError, match="already taken away"):
            left.__isub__(part)
        assert left.n == 40
        left.merge(part)
        tolerances.assert_reduction(left.gram, before, np.float64, 60, np.full((P, P), 60.0))
        left.__isub__(part)
        assert left.n == 40


def test_an_empty_total_has_the_shards_of_its_parts_only() -> None:
    total = kd.RidgeStatistics(PHI, 3, precision="float64")
    assert total.shards == frozenset()
    for name, rows in (("a", slice(30)), ("b", slice(30, 60))):
        total += statistics_of(rows, shard=name)
    assert total.shards == {"a", "b"}
    total -= statistics_of(slice(30), shard="a")
    assert total.shards == {"b"}


@pytest.mark.parametrize("n", [4, 60])
def test_classes_meet_by_their_names(n: int) -> None:
    names = ["cat", "dog", "eel"]
    pooled = statistics_of(slice(n), names, labels=names)
    total = statistics_of(slice(n // 2), ["eel", "dog"], labels=names)
    total += statistics_of(slice(n // 2, n), ["dog", "cat"], labels=names)
    total += statistics_of(slice(n // 2), ["cat"], labels=names)
    total += statistics_of(slice(n // 2, n), ["eel"], labels=names)
    assert total.classes.names == ("eel", "dog", "cat")
    order = [2, 1, 0]
    for name in ("cross", "target_sum", "target_square"):
        value = getattr(total, name)[order]
        tolerances.assert_reduction(value, getattr(pooled, name), np.float64, n, np.full(value.shape, float(n)))
    tolerances.assert_reduction(total.gram, pooled.gram, np.float64, n, np.full((P, P), float(n)))


def test_classes_without_labels_do_not_meet_by_guess() -> None:
    with pytest.raises(kd.DataError, match=r"3 and 4 classes without labels"):
        statistics_of(slice(30)).merge(statistics_of(slice(30, 60), 4))
    with pytest.raises(kd.DataError, match="of different types"):
        statistics_of(slice(30)).merge(statistics_of(slice(30), ["a", "b", "c"], labels=["a", "b", "c"]))
    few = statistics_of(slice(30), ["a", "b"], labels=["a", "b", "c"])
    with pytest.raises(kd.DataError, match="classes that these do not have"):
        few -= statistics_of(slice(10), ["c"], labels=["a", "b", "c"])


def test_statistics_files_carry_their_map(tmp_path: Path) -> None:
    X = np.random.default_rng(0).integers(0, 256, (90, D)).astype(float)
    phi = kd.FCNN(D, [P], seed=3, preprocessing=kd.standardize(X))
    saved = kd.RidgeStatistics(phi, ["a", "b"], precision="float64").update(X, np.array(["a", "b"])[np.arange(90) % 2])
    saved.save(tmp_path / "s.npz")
    loaded = kd.RidgeStatistics.load(tmp_path / "s.npz")
    assert loaded.feature_map.same_as(phi)
    tolerances.assert_exact(loaded.gram, saved.gram)
    model = kd.fit_model(loaded, 1.0)
    tolerances.assert_exact(model.W, kd.fit_model(saved, 1.0).W)
    model.save(tmp_path / "m.npz")
    tolerances.assert_exact(kd.RidgeModel.load(tmp_path / "m.npz").scores(X), model.scores(X))


def rounded_network(H: Array) -> Array:
    """``network`` on another device: the same up to rounding in float32."""
    return network(H) * (1.0 + 1e-7)


def network(H: Array) -> Array:
    return np.tanh(H @ np.arange(D * P).reshape(D, P) / 50.0)


def test_statistics_of_one_network_on_two_devices_merge(tmp_path: Path) -> None:
    """Their fingerprints differ, the features of fixed inputs are the same within the tolerance of files."""
    cpu, gpu = (kd.UserMap(function, D, name="network") for function in (network, rounded_network))
    assert cpu.fingerprint() != gpu.fingerprint()
    total = statistics_of(slice(30), phi=cpu)
    total += statistics_of(slice(30, 60), phi=gpu)
    assert total.n == 60
    total.save(tmp_path / "s.npz")
    assert kd.RidgeStatistics.load(tmp_path / "s.npz", gpu).n == 60
    with pytest.raises(kd.DataError, match="never loaded because a file says so"):
        kd.RidgeStatistics.load(tmp_path / "s.npz")
    other = kd.UserMap(lambda H: 2.0 * network(H), D, name="network")
    with pytest.raises(kd.DataError, match="different feature maps"):
        total += statistics_of(slice(60, 90), phi=other)
    scaled = kd.UserMap(
        network, D, name="network", preprocessing=kd.standardize(np.random.default_rng(0).normal(size=(9, D)))
    )
    with pytest.raises(kd.DataError, match=r"different feature maps: .*preprocessing='standardize'"):
        total += statistics_of(slice(60, 90), phi=scaled)
    with pytest.raises(kd.DataError, match="another preprocessing"):
        kd.RidgeStatistics.load(tmp_path / "s.npz", scaled)


def test_shards_taken_away_whole_are_gone_until_they_come_back(tmp_path: Path) -> None:
    parts = [statistics_of(slice(30 * i, 30 * i + 30), shard=name) for i, name in enumerate("abc")]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    for own in (0, 1):  # what update() added, and what was merged
        rest = total.copy()
        rest -= parts[own]
        rest.save(tmp_path / "rest.npz")
        for left in (rest, kd.RidgeStatistics.load(tmp_path / "rest.npz")):
            assert left.shards == {"a", "b", "c"} - {"ab"[own]}
            with pytest.raises(kd.DataError, match=f"shard '{'ab'[own]}' is already taken away"):
                left.__isub__(parts[own])
            assert left.n == 60
            left.merge(parts[own])
            assert (left.n, left.shards) == (90, {"a", "b", "c"})
            with pytest.raises(kd.DataError, match="is already in"):
                left.merge(parts[own])
            left.__isub__(parts[own])
            assert left.n == 60


def test_a_shard_gone_from_one_side_of_a_merge_is_there_by_the_other() -> None:
    a, b = statistics_of(slice(30), shard="a"), statistics_of(slice(30, 60), shard="b")
    without = (a + b).__isub__(a)
    total = statistics_of(slice(60, 90), shard="c")
    total += a
    total.merge(statistics_of(slice(0), shard="d"))
    with pytest.raises(kd.DataError, match="taken away"):
        without.__isub__(a)
    total += without
    assert total.shards == {"a", "b", "c"}
    total -= a
    assert total.shards == {"b", "c"}


def test_rows_added_after_a_shard_went_are_not_that_shard() -> None:
    total, part = statistics_of(slice(30), shard="a"), statistics_of(slice(30), shard="a")
    total += statistics_of(slice(30, 60), shard="b")
    total -= part
    rng = np.random.default_rng(7)
    total.update(rng.standard_normal((5, D)), np.arange(5) % 3)
    assert "a" not in total.shards
    assert len(total.shards) == 2
    total += part
    assert total.n == 65


def test_held_out_statistics_are_taken_by_the_labels_of_their_classes() -> None:
    names = ["cat", "dog", "eel"]
    training = statistics_of(slice(60), names, labels=names)
    held = statistics_of(slice(60, 90), names, labels=names)
    swapped = statistics_of(slice(60, 90), ["eel", "cat", "dog"], labels=names)
    expected = kd.fit_model(training, validation=held)
    found = kd.fit_model(training, validation=swapped)
    assert found.lambda_ == expected.lambda_
    tolerances.assert_reduction(found.path.score, expected.path.score, np.float64, 60, expected.path.score)
    fewer = statistics_of(slice(60), ["cat", "dog"], labels=names)
    with pytest.raises(kd.DataError, match=r"fit_model: validation: .* have classes that .* do not have"):
        kd.fit_model(fewer, validation=held)


def test_a_shard_that_came_back_does_not_come_twice() -> None:
    whole, part = statistics_of(slice(60)), statistics_of(slice(20))
    whole -= part
    whole += part
    with pytest.raises(kd.DataError, match="already in these statistics"):
        whole += part
    whole -= part
    assert whole.n == 40


def test_what_is_left_of_a_shard_has_a_name_of_its_own() -> None:
    statistics = statistics_of(slice(20))
    before = statistics.copy()
    rng = np.random.default_rng(5)
    statistics.update(rng.standard_normal((10, D)), rng.integers(0, 3, 10))
    statistics -= before
    assert len(statistics.shards) == 1
    with pytest.raises(kd.DataError, match="already in these statistics"):
        statistics += statistics.copy()


def test_nothing_is_left_when_everything_was_taken_away() -> None:
    a, b = statistics_of(slice(30)), statistics_of(slice(30, 60))
    total = a + b
    total -= a
    total -= b
    assert total.n == 0
    tolerances.assert_exact(total.gram, np.zeros((P, P)))
    tolerances.assert_exact(total.cross, np.zeros((3, P)))


def test_arrays_that_were_given_may_be_used_again() -> None:
    statistics = statistics_of(slice(5))
    header, arrays = statistics.to_arrays()
    read = kd.RidgeStatistics.from_arrays(PHI, header, arrays)
    expected = statistics.cross.copy(), statistics.gram.copy()
    for array in arrays.values():
        array[...] = 7.0
    for one in (statistics, read):
        tolerances.assert_exact(one.cross, expected[0])
        tolerances.assert_exact(one.gram, expected[1])


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    kd.HeldOutRows(np.ones((3, D)), np.arange(3)).save(tmp_path / "h.npz")
    np.savez(tmp_path / "d.npz", X=np.ones((3, D)))
    for name in ("h", "d"):
        with pytest.raises(kd.DataError, match=rf"{name}\.npz: not ridge statistics that this version reads"):
            kd.RidgeStatistics.load(tmp_path / f"{name}.npz")


def test_a_shard_taken_away_twice_is_named_where_too_few_samples_are_left() -> None:
    total, part = statistics_of(slice(40), shard="a"), statistics_of(slice(40, 90), shard="b")
    total += part
    total -= part
    with pytest.raises(kd.DataError, match="shard 'b' is already taken away"):
        total -= part
    assert (total.n, total.shards) == (40, {"a"})
