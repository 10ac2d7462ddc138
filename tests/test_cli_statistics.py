"""Statistics on the command line: made of shards, merged, taken away, distilled and verified without the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("sklearn", reason="the cli extra is not installed")

import krrdistill as kd
import tolerances
from conftest import REAL_DATA
from krrdistill.apps.cli import main
from krrdistill.apps.report.run_folder import read_run

pytestmark = [
    pytest.mark.usefixtures("undrawn_pages"),
    pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning"),
]
EXACT = ["--precision", "float64"]
MAP = ["--kernel", "random_fourier", "--n-features", "48", *EXACT]
POINTS = ("X", "Y", "lambda_s")


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KRRDISTILL_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> None:
    assert main([*words]) == 0


def arrays(file: str | Path) -> dict[str, Any]:
    with np.load(file) as archive:
        return {name: archive[name] for name in POINTS}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON object of a command, alone on stdout."""
    capsys.readouterr()
    run(*words, "--json")
    return json.loads(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> str:
    """The one line on stderr of a command that ends with this status."""
    capsys.readouterr()
    assert main([*words]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line.removeprefix("krrdistill: error: ")


def shards(X: Any, y: Any, count: int = 4) -> list[str]:
    """Files of the parts of some samples, none of which has a test set."""
    files = []
    for index, (X_part, y_part) in enumerate(zip(np.array_split(X, count), np.array_split(y, count), strict=True)):
        np.savez(f"shard{index}.npz", X=X_part, y=y_part)
        files.append(f"shard{index}.npz")
    return files


def summed(files: list[str], *options: str) -> list[str]:
    """Statistics of every shard, like those of the first."""
    made = [f"part{index}.npz" for index in range(len(files))]
    run("statistics", "--dataset", files[0], "--out", made[0], "--classes", "10", *options)
    for file, out in zip(files[1:], made[1:], strict=True):
        run("statistics", "--dataset", file, "--out", out, "--like", made[0])
    return made


@pytest.mark.parametrize("options", [["--zca"], ["--intercept"], ["--center-targets"], ["--no-stratify"]])
def test_statistics_then_distill_gives_the_points_of_distill(options: list[str]) -> None:
    of_statistics = [word for word in options if word in ("--zca", "--no-stratify")]
    of_model = [word for word in options if word in ("--intercept", "--center-targets")]
    kind = ["--kernel", "FCNN", "--seed", "3", "--validation-fraction", "0.1", "--threads", "1"]
    run("statistics", *kind, *of_statistics, "--out", "s.npz", "--held-out", "held.npz")
    points = ["--seed", "3", "--ipc", "2", "--threads", "1"]
    run("distill", "--statistics", "s.npz", "--validation", "held.npz", *points, *of_model, "--out", "a")
    run("distill", *kind, *options, "--ipc", "2", "--out", "b")
    ours, theirs = arrays("a/distilled.npz"), arrays("b/distilled.npz")
    for name in POINTS:
        tolerances.assert_exact(ours[name], theirs[name])
    records = [read_run(Path(folder)).record for folder in "ab"]
    same = ("n_train", "n_val", "lambda_", "val_accuracy", "kernel", "precision", "certificate", "intercept")
    for name in same[:-2]:
        assert getattr(records[0], name) == getattr(records[1], name), name
    tolerances.assert_promised(records[0].certificate.weight_relative_error or 0.0)
    assert records[0].intercept == records[1].intercept


def test_nothing_held_out_and_gcv_give_the_points_of_distill(capsys: pytest.CaptureFixture[str]) -> None:
    run("statistics", *MAP, "--threads", "1", "--out", "s.npz")
    assert "note: nothing is held out" in capsys.readouterr().err
    run("distill", "--statistics", "s.npz", "--selection", "gcv", "--threads", "1", "--out", "a")
    run("distill", *MAP, "--selection", "gcv", "--threads", "1", "--out", "b")
    ours, theirs = arrays("a/distilled.npz"), arrays("b/distilled.npz")
    for name in POINTS:
        tolerances.assert_exact(ours[name], theirs[name])


def _shards_against_one_call(data: kd.Dataset, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    X, y, held = data.x_train, data.y_train, (data.x_test[::2], data.y_test[::2])
    np.savez("whole.npz", x_train=X, y_train=y, x_test=data.x_test, y_test=data.y_test, x_val=held[0], y_val=held[1])
    made = summed(shards(X, y), *options)
    run("merge", *(made[index] for index in (2, 0, 3, 1)), "--out", "all.npz")
    run("statistics", "--dataset", "whole.npz", "--like", made[0], "--out", "one.npz")
    chosen = ["--validation", "whole.npz", "--test", "whole.npz"]
    report = printed(capsys, "distill", "--statistics", "all.npz", *chosen, "--out", "a")
    other = printed(capsys, "distill", "--statistics", "one.npz", *chosen, "--out", "b")
    for name in ("n_train", "n_val", "n_test", "lambda", "val_accuracy", "original", "distilled"):
        assert report[name] == other[name]
    assert report["n_val"] == len(held[0])
    assert report["n_train"] == len(X)
    tolerances.assert_promised(report["certificate"]["weight_relative_error"])
    assert report["certificate"]["prediction_agreement"] == 1.0
    ours, theirs = arrays("a/distilled.npz"), arrays("b/distilled.npz")
    for name in ("X", "Y"):
        tolerances.assert_merged(ours[name], theirs[name])
    verified = printed(capsys, "verify", "a", "--statistics", "one.npz", "--test", "whole.npz")
    tolerances.assert_promised(verified["certificate"]["weight_relative_error"])
    assert verified["original"] == report["original"]
    assert verified["statistics"] == "one.npz"


def test_shards_in_any_order_give_the_points_of_one_call(
    digits: kd.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    _shards_against_one_call(digits, ["--kernel", "FCNN", *EXACT], capsys)


@pytest.mark.skipif(not (REAL_DATA / "mnist.npz").is_file(), reason="MNIST is not here")
def test_shards_of_mnist_give_the_points_of_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    data = kd.load_dataset("mnist", data_dir=REAL_DATA)
    some = kd.Dataset("mnist", data.x_train[:6000], data.y_train[:6000], data.x_test, data.y_test)
    _shards_against_one_call(some, ["--kernel", "FCNN", "--widths", "120", *EXACT], capsys)


def test_a_shard_that_lacks_classes_takes_them_from_the_first(
    digits: kd.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.array(digits.class_names)[digits.y_train]
    few = digits.y_train < 4
    np.savez("a.npz", X=digits.x_train, y=labels)
    np.savez("b.npz", X=digits.x_train[few], y=labels[few])
    run("statistics", "--dataset", "a.npz", "--out", "sa.npz")
    assert "note: the 10 classes are those that occur in a.npz" in capsys.readouterr().err
    facts = printed(capsys, "statistics", "--dataset", "b.npz", "--like", "sa.npz", "--out", "sb.npz", "--shard", "b")
    assert facts["classes"] == sorted(digits.class_names)
    assert (facts["n"], facts["shards"]) == (int(few.sum()), ["b"])
    run("statistics", "--dataset", "b.npz", "--like", "sa.npz", "--out", "sc.npz", "--classes", "1,0,2,3")
    assert kd.RidgeStatistics.load("sc.npz").classes == kd.RidgeStatistics(kd.Identity(1), ["1", "0", "2", "3"]).classes


def test_classes_in_another_order_verify(digits: kd.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    labels, first = np.array(digits.class_names)[digits.y_train], digits.y_train < 5
    for name, rows in (("a", first), ("b", ~first)):
        np.savez(f"{name}.npz", X=digits.x_train[rows], y=labels[rows])
    run("statistics", "--dataset", "a.npz", "--out", "sa.npz", *MAP)
    names = ",".join(digits.class_names[5:])
    run("statistics", "--dataset", "b.npz", "--like", "sa.npz", "--out", "sb.npz", "--classes", names)
    run("merge", "sa.npz", "sb.npz", "--out", "ab.npz")
    run("merge", "sb.npz", "sa.npz", "--out", "ba.npz")
    run("distill", "--statistics", "ab.npz", "--lambdas", "10", "--out", "run")
    assert printed(capsys, "verify", "run", "--statistics", "ba.npz")["passed"]
    assert "passed" in printed(capsys, "verify", "run", "--statistics", "ab.npz")


def test_a_named_digits_data_set_and_its_file_scale_alike(digits: kd.Dataset) -> None:
    """The whiteness of digits, as the published constants of MNIST, goes by the name of a data set or its file."""
    np.savez("digits.npz", x_train=digits.x_train, y_train=digits.y_train)
    run("statistics", "--zca", "--out", "a.npz")
    run("statistics", "--zca", "--dataset", "digits.npz", "--out", "b.npz")
    ours, theirs = (kd.RidgeStatistics.load(file) for file in ("a.npz", "b.npz"))
    tolerances.assert_exact(ours.gram, theirs.gram)
    assert ours.feature_map.same_as(theirs.feature_map)


def test_subtract_takes_a_shard_away_once(digits: kd.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    made = summed(shards(digits.x_train, digits.y_train), *MAP)
    run("merge", *made, "--out", "all.npz")
    run("merge", *made[1:], "--out", "without.npz")
    facts = printed(capsys, "subtract", "all.npz", made[0], "--out", "rest.npz")
    assert len(facts["shards"]) == 3
    assert facts["n"] == kd.RidgeStatistics.load("without.npz").n
    rest, without = (kd.RidgeStatistics.load(file).gram for file in ("rest.npz", "without.npz"))
    tolerances.assert_reduction(rest, without, np.float64, len(digits.x_train), np.full_like(rest, 2.0 * 1366))
    again = error_of(capsys, 1, "subtract", "rest.npz", made[0], "--out", "x.npz")
    assert again.startswith(f"rest.npz and {made[0]}: statistics -=: shard 'sha256:")
    assert "already taken away" in again
    assert printed(capsys, "merge", "rest.npz", made[0], "--out", "back.npz")["n"] == len(digits.x_train)
    assert not Path("x.npz").exists()


def test_merge_says_the_precision_of_each_file_where_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    for precision in ("float32", "float64"):
        statistics = kd.RidgeStatistics(kd.Identity(3), 2, precision=precision, shard=precision)
        statistics.update(X, y).save(f"{precision}.npz")
    run("merge", "float64.npz", "float32.npz", "--out", "all.npz")
    said = "note: the sum has the lower precision of its parts, float32: float64.npz float64, float32.npz float32"
    assert said in capsys.readouterr().err
    run("merge", "float32.npz", "--out", "one.npz")
    assert "precision" not in capsys.readouterr().err


def test_later_shard_brings_new_classes(digits: kd.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = digits.x_train.reshape(len(digits.x_train), -1), digits.y_train
    for name, of in (("few", y < 6), ("all", y < 10), ("new", y >= 6)):
        np.savez(f"{name}.npz", X=X[of], y=y[of])
    run("statistics", "--dataset", "few.npz", "--out", "few_s.npz", *MAP)
    for name in ("new", "all"):
        words = ("--dataset", f"{name}.npz", "--out", f"{name}_s.npz", "--like", "few_s.npz", "--classes", "10")
        run("statistics", *words)
    merge = ("merge", "few_s.npz", "new_s.npz", "--out", "sum.npz")
    assert "both with classes=10 (--classes 10, which merge and subtract take)" in error_of(capsys, 1, *merge)
    assert "--classes 9: new_s.npz has 10 already" in error_of(capsys, 2, *merge, "--classes", "9")
    assert len(printed(capsys, *merge, "--classes", "10")["classes"]) == 10
    assert_of_same_data(kd.RidgeStatistics.load("sum.npz"), kd.RidgeStatistics.load("all_s.npz"))
    run("subtract", "sum.npz", "few_s.npz", "--classes", "10", "--out", "rest.npz")
    assert_of_same_data(kd.RidgeStatistics.load("rest.npz"), kd.RidgeStatistics.load("new_s.npz"))
    kd.RidgeStatistics(kd.Identity(3), ["a", "b"]).save("named.npz")
    kd.RidgeStatistics(kd.Identity(3), n_targets=2).save("real.npz")
    for file, why in (("named", "the classes of named.npz have labels"), ("real", "real.npz has real-valued targets")):
        said = error_of(capsys, 2, "merge", f"{file}.npz", "--classes", "3", "--out", "x.npz")
        assert said.startswith(f"--classes 3: {why}")
    kd.HeldOutRows(X[:4], y[:4]).save("held.npz")
    assert "held-out rows come with" in error_of(capsys, 2, "merge", "held.npz", "--classes", "10", "--out", "x.npz")


def assert_of_same_data(ours: kd.RidgeStatistics, theirs: kd.RidgeStatistics) -> None:
    assert (ours.n, ours.classes) == (theirs.n, theirs.classes)
    for name in ("gram", "cross", "target_sum"):
        tolerances.assert_merged(getattr(ours, name), getattr(theirs, name))


def test_held_out_rows_of_shards_merge(digits: kd.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = shards(digits.x_train, digits.y_train, 2)
    run("statistics", "--dataset", a, "--out", "sa.npz", "--held-out", "ha.npz", *MAP)
    facts = printed(capsys, "statistics", "--dataset", b, "--out", "sb.npz", "--held-out", "hb.npz", "--like", "sa.npz")
    assert (facts["held_out"], facts["n_held_out"]) == ("hb.npz", len(kd.HeldOutRows.load("hb.npz")))
    run("merge", "sa.npz", "sb.npz", "--out", "all.npz")
    joined = printed(capsys, "merge", "ha.npz", "hb.npz", "--out", "held.npz")
    report = printed(capsys, "distill", "--statistics", "all.npz", "--validation", "held.npz", "--out", "o")
    assert report["n_val"] == joined["n"]
    assert report["n_val"] + report["n_train"] == len(digits.x_train)
    assert "hb.npz: these held-out rows are already in" in error_of(
        capsys, 1, "merge", "ha.npz", "hb.npz", "hb.npz", "--out", "x.npz"
    )
    np.savez("other.npz", X=np.ones((4, 3)), y=np.arange(4))
    rows = kd.HeldOutRows(np.ones((4, 3)), np.array(["a", "b", "a", "b"]))
    rows.save("other.npz")
    said = error_of(capsys, 1, "merge", "ha.npz", "other.npz", "--out", "x.npz")
    assert said.startswith("ha.npz and other.npz: held-out rows of the shapes")


@pytest.mark.drawn
def test_a_run_without_a_test_set_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run("statistics", *MAP, "--out", "s.npz")
    capsys.readouterr()
    run("distill", "--statistics", "s.npz", "--lambdas", "1", "--out", "o")
    shown = capsys.readouterr().out
    assert "relative weight error" in shown
    assert "accuracy" not in shown
    record = read_run(Path("o")).record
    assert (record.n_test, record.criterion, record.value_range) == (0, "request", None)
    assert (record.original.test_accuracy, record.certificate.prediction_agreement) == (None, None)
    assert record.floor_seconds == {}
    assert record.exact
    page = Path("o/report.html").read_text()
    for text in ("No test set was given", "was asked for", "the range of the real images is not known"):
        assert text.casefold() in page.casefold()
    assert "No pass over the data" in page
    assert "test accuracy" not in page
    assert not Path("o/lambda_path.png").exists()  # one lambda and no score
    capsys.readouterr()
    run("verify", "o", "--statistics", "s.npz")
    assert "original" not in capsys.readouterr().out  # a column without numbers
    run("report", "o")
    run("compare", "o", "o", "--out", "c.html")


def test_real_targets_distill_without_data_and_certify_their_intercept(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 5))
    Y = X @ rng.standard_normal((5, 2)) + rng.standard_normal((300, 2)) + 3.0
    np.savez("r.npz", X=X, y=Y)
    run("statistics", "--dataset", "r.npz", "--targets", "real", "--out", "s.npz", "--held-out", "h.npz", *EXACT)
    words = ["distill", "--statistics", "s.npz", "--validation", "h.npz", "--ipc", "3"]
    report = printed(capsys, *words, "--intercept", "--lambda-per-target", "--out", "o")
    assert report["targets"] == "real"
    assert report["intercept"]
    assert len(report["val_r2"]) == len(report["lambda_per_target"]) == 2
    tolerances.assert_promised(report["certificate"]["weight_relative_error"])
    for folder, extra in (("o", []), ("p", ["--center-targets"])):
        if extra:
            run(*words, *extra, "--out", folder)
        verified = printed(capsys, "verify", folder, "--statistics", "s.npz")
        tolerances.assert_promised(verified["certificate"]["weight_relative_error"])


def test_verify_by_other_statistics_fails_with_the_reason(
    digits: kd.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    made = summed(shards(digits.x_train, digits.y_train), *MAP)
    run("merge", *made, "--out", "all.npz")
    run("distill", "--statistics", "all.npz", "--lambdas", "1", "--out", "o")
    run("statistics", "--out", "identity.npz")
    assert printed(capsys, "verify", "o", "--statistics", "all.npz")["passed"]
    assert main(["verify", "o", "--statistics", made[0]]) == 3
    said = capsys.readouterr().err
    assert f"made from {len(digits.x_train)} training samples" in said
    assert error_of(capsys, 1, "verify", "o", "--statistics", "identity.npz").startswith("identity.npz: ")
    assert "was made from statistics, of 'all.npz': give them with --statistics" in error_of(capsys, 2, "verify", "o")
    assert "--statistics and --dataset" in error_of(
        capsys, 2, "verify", "o", "--statistics", "all.npz", "--dataset", "digits"
    )


@pytest.fixture(scope="module")
def files_of_two(digits: kd.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of statistics s.npz, other.npz of another map, a data set, held-out rows and a file that was cut."""
    X, y = digits.x_train, digits.y_train
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.savez("data.npz", X=X, y=y)
        np.savez("names.npz", X=X, y=np.array(["a", "b"])[y % 2])
        run("statistics", "--out", "s.npz", "--held-out", "h.npz", *EXACT)
        run("statistics", "--out", "other.npz", "--kernel", "FCNN")
        run("statistics", "--dataset", "names.npz", "--out", "names_s.npz", "--like", "s.npz", "--classes", "a,b")
        Path("cut.npz").write_bytes(Path("s.npz").read_bytes()[:1000])
        Path("note.txt").write_text("mine")
    return folder


@pytest.fixture
def two(files_of_two: Path, tmp_path: Path) -> None:
    """The files of ``files_of_two``, each of which a command may spoil."""
    shutil.copytree(files_of_two, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("status", "line", "said"),
    [
        (2, "distill --statistics s.npz", "--validation FILE of held-out rows, --selection gcv, or one of --lambdas"),
        (2, "distill --statistics s.npz --lambdas 1,2", "needs what lambda is chosen by"),
        (2, "distill --statistics s.npz --lambdas 1 --dataset digits", "--statistics and --dataset exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --kernel FCNN", "--statistics and --kernel exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --hidden-layer 2", "--statistics and --hidden-layer exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --zca", "--statistics and --zca exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --refit", "--statistics and --refit exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --precision float32", "--statistics and --precision exclude"),
        (2, "distill --statistics s.npz --lambdas 1 --init real", "--init real, --realism and --labels-only"),
        (2, "distill --statistics s.npz --lambdas 1 --realism 1", "--init real, --realism and --labels-only"),
        (2, "distill --statistics s.npz --selection gcv --validation h.npz", "takes no --validation"),
        (2, "distill --statistics missing.npz --lambdas 1", "no such file: missing.npz"),
        (1, "distill --statistics cut.npz --lambdas 1", "cut.npz: not an .npz file: cut short"),
        (1, "distill --statistics s.npz --validation names.npz", "--validation names.npz: validation: y must hold"),
        (1, "distill --statistics s.npz --lambdas 1 --test names.npz", "--test names.npz: test: y must hold"),
        (1, "distill --statistics s.npz --lambdas 1 --test h.txt", "--test h.txt: no such file"),
        (2, "statistics --dataset data.npz", "--out FILE.npz"),
        (2, "statistics --dataset data.npz --out data.npz", "--out data.npz: there is another kind of file"),
        (2, "statistics --dataset data.npz --out note.txt", "--out note.txt: there is another kind of file"),
        (2, "statistics --dataset data.npz --out x.npz --held-out s.npz", "--held-out s.npz: there is another kind"),
        (2, "statistics --dataset data.npz --out x.npz --held-out x.npz", "name one file"),
        (2, "statistics --dataset data.npz --out s.npz --like s.npz", "would replace the statistics of --like"),
        (2, "statistics --dataset data.npz --out none/x.npz", "the folder none does not exist"),
        (2, "statistics --dataset data.npz --out x.npz --like s.npz --zca", "--like and --zca exclude"),
        (2, "statistics --dataset data.npz --out x.npz --classes a,b", "--classes: y holds integers, got a,b"),
        (1, "statistics --dataset data.npz --out x.npz --classes 3", "data.npz: statistics: y holds the label 9"),
        (1, "statistics --dataset names.npz --out x.npz --like s.npz", "names.npz: statistics: y must hold"),
        (2, "statistics --dataset data.npz --out x.npz --like missing.npz", "no such file: missing.npz"),
        (1, "merge s.npz s.npz --out x.npz", "s.npz and s.npz: statistics +=: shard"),
        (1, "merge s.npz other.npz --out x.npz", "s.npz and other.npz: statistics +=: the statistics are of "),
        (1, "merge s.npz names_s.npz --out x.npz", "s.npz and names_s.npz: statistics +=: the classes are"),
        (1, "merge s.npz cut.npz --out x.npz", "cut.npz: not an .npz file: cut short"),
        (1, "merge s.npz data.npz --out x.npz", "data.npz: "),
        (2, "merge s.npz h.npz --out x.npz", "h.npz holds held-out rows, s.npz statistics; merge each kind by itself"),
        (2, "merge h.npz s.npz --out x.npz", "h.npz holds held-out rows, s.npz statistics"),
        (2, "merge s.npz missing.npz --out x.npz", "no such file: missing.npz"),
        (2, "merge s.npz other.npz", "--out FILE.npz is missing"),
        (2, "merge s.npz --kernel FCNN --out x.npz", "--kernel names a map of your own"),
        (1, "subtract s.npz other.npz --out x.npz", "other.npz: statistics -=: "),
        (1, "subtract other.npz s.npz --out x.npz", "float32"),
    ],
)
@pytest.mark.usefixtures("two")
def test_bad_input_is_one_line_that_names_it(
    status: int, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in error_of(capsys, status, *line.split())
    assert not Path("x.npz").exists()
    assert not Path("runs").exists()
    assert Path("note.txt").read_text() == "mine"
    kd.HeldOutRows.load("h.npz")


def test_a_configuration_file_with_a_data_set_and_statistics_exclude_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("c.yaml").write_text("data: {dataset: digits}\nstatistics: s.npz\nselection: gcv\n")
    assert "--statistics and --dataset exclude" in error_of(capsys, 2, "distill", "--config", "c.yaml")


def test_a_map_of_ones_own_is_named_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cubes.py").write_text("import numpy as np\ndef phi(X):\n    return np.tanh(X / 16.0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--kernel", "cubes:phi"]
    run("statistics", *own, "--out", "s.npz", *EXACT)
    assert "which is never loaded because a file says so" in error_of(capsys, 1, "merge", "s.npz", "--out", "x.npz")
    run("merge", "s.npz", "--out", "x.npz", *own)
    assert printed(capsys, "statistics", "--like", "s.npz", *own, "--out", "y.npz")["n"] > 0
