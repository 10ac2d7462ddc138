"""The command: exit statuses, messages, what goes to stdout and stderr, and which files are written."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("sklearn", reason="the cli extra is not installed")

import krrdistill as kd
import tolerances
from data_files import tiny_images, write_npz
from krrdistill.apps.cli import main
from krrdistill.apps.cli.status import UsageError, exit_status, message
from krrdistill.errors import BackendUnavailable, DataError, LambdaOutOfRange, NotPositiveDefinite, NotSurjective
from pages import check_page

pytestmark = pytest.mark.usefixtures("undrawn_pages")

FILES = ["distilled.npz", "distilled.png", "figure_data.npz", "lambda_path.png", "report.html", "report.json"]
JSON_KEYS = {
    "dataset", "kernel", "ipc", "seed", "n_train", "n_val", "n_test", "d", "p", "k", "m", "lambda",
    "lambda_s", "val_accuracy", "original", "distilled", "certificate", "seconds", "peak_memory_bytes",
    "backend", "artifact", "figure", "warnings",
}  # fmt: skip
STAGES = {"load", "statistics", "ridge", "construct", "preimage", "evaluate", "save", "total"}
ARRAY = ["--backend", "array"]  # the backend that is always there
REAL = ["distill", *ARRAY, "--out", "o"]
no_native = pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KRRDISTILL_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)


def made(tmp_path_factory: pytest.TempPathFactory, *words: str) -> Path:
    """The file of a real run on the bundled digits."""
    out = tmp_path_factory.mktemp("run") / "o"
    assert main(["distill", *ARRAY, *words, "--out", str(out)]) == 0
    return out / "distilled.npz"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without the original weights, from float32 statistics."""
    return made(tmp_path_factory)


@pytest.fixture(scope="module")
def with_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that holds the original weights."""
    return made(tmp_path_factory, "--include-weights")


def off_by(file: Path, error: float) -> str:
    """A copy of the file whose model is off by this relative error: for lambda_s = 0 it is linear in the labels."""
    distilled = kd.DistilledDataset.load(file)
    replace(distilled, Y=(1.0 + error) * distilled.Y).save("changed.npz")
    return "changed.npz"


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("krrdistill: error: ")
    return line.removeprefix("krrdistill: error: ")


# What a run leaves


@no_native
def test_distill_writes_its_files_and_prints_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *ARRAY]) == 0
    folder = tmp_path / "runs" / "digits_identity_ipc1_noise_seed0"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    report = json.loads((folder / "report.json").read_text())
    printed = capsys.readouterr()
    accuracy = f"{report['distilled']['test_accuracy']:.2%}".replace("%", " %")
    trained = "1366 samples (lambda chosen on 72 others) distilled to 10"
    for shown in (trained, accuracy, "100.00 %", "lambda", "wrote distilled.npz"):
        assert shown in printed.out
    assert printed.err == "".join(f"krrdistill: warning: {warning}\n" for warning in report["warnings"])


@no_native
def test_json_is_the_only_thing_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REAL, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    report = json.loads(captured.out)
    assert set(report) >= JSON_KEYS
    assert set(report["seconds"]) >= STAGES
    assert report["figure"] == str(Path("o", "distilled.png"))
    assert json.loads((tmp_path / "o" / "report.json").read_text()) == report


@no_native
def test_every_option_reaches_the_file(tmp_path: Path) -> None:
    line = (
        "distill --kernel fcnn --hidden-layer 2 --ipc 3 --init real --lambda-s 1e-4 --root minus --seed 5 --zca "
        "--store float32 --refit --precision float64 --backend array --threads 2 --lambdas 1,10 --include-weights "
        "--validation-fraction 0.1 --no-embed-map --out somewhere"
    )
    assert main(line.split()) == 0
    distilled = kd.DistilledDataset.load("somewhere/distilled.npz")
    asked = {
        "points_per_class": 3, "init": "real", "lambda_s": 1e-4, "root": "minus", "seed": 5, "store": "float32",
        "refit": True, "precision": "float64", "backend": "array", "lambdas": [1.0, 10.0], "validation_fraction": 0.1,
    }  # fmt: skip
    recorded = distilled.meta["options"]
    assert {name: recorded[name] for name in asked} == asked
    assert distilled.feature_map.spec()["widths"] == [64, 64]
    assert distilled.feature_map.spec()["seed"] == 5
    assert distilled.preprocessing.kind == "zca"
    assert distilled.X.shape == (30, 64)
    assert distilled.weights is not None
    report = json.loads(Path("somewhere/report.json").read_text())
    assert report["n_train"] == 1438  # all samples, after the choice
    assert report["machine"]["threads"] == "2"
    given = {word for word in line.split() if word.startswith("--")}
    assert {word for word in shlex.split(report["command"]) if word.startswith("--")} == given | {"--dataset"}


@no_native
def test_reg_s_asks_for_the_largest_lambda_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REAL, "--reg-s", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["lambda_s"] <= report["lambda"]
    assert "--lambda-s auto" in report["command"]


@no_native
@pytest.mark.drawn
def test_the_verify_command_of_a_run_works_as_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KRRDISTILL_DATA", raising=False)
    Path("ownmap.py").write_text("def phi(X):\n    return 2.0 * X\n\nphi.inverse = lambda F: F / 2.0\n")
    X, y = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8), np.arange(200) % 10
    Path("my data").mkdir()
    np.savez("my data/mnist.npz", x_train=X, y_train=y, x_test=X[:20], y_test=y[:20])
    words = ["--dataset", "mnist", "--data-dir", "my data", "--kernel", "ownmap:phi", "--out", "o o"]
    assert main(["distill", *words, "--precision", "float64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verify_command"] == "krrdistill verify 'o o' --data-dir 'my data' --kernel ownmap:phi"
    assert report["verify_command"] in check_page(Path("o o/report.html").read_bytes()).words
    assert main(shlex.split(report["verify_command"])[1:]) == 0


@pytest.mark.parametrize(
    "words",
    [
        "distill --dataset mnist --out o",
        "kip --dataset mnist --out o",
        "privacy --dataset mnist",
        "statistics --dataset mnist --out s.npz",
        "sweep --dataset mnist --out o",
        "reproduce table3 --datasets mnist --kernels identity --ipcs 1 --seeds 0 --out o",
        "reproduce figures --datasets mnist --out o",
        "verify with_weights.npz --dataset mnist",
    ],
)
def test_download_that_a_message_advises_is_an_option_of_the_command(
    words: str, with_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, folder: Path) -> None:
        raise DataError(f"{name} would be fetched to {folder}")

    monkeypatch.setattr("krrdistill.data.registry.fetch", fetch)
    Path("with_weights.npz").write_bytes(with_weights.read_bytes())
    given = [*words.split(), "--data-dir", "none"]
    assert main(given) == 1
    assert "or fetch it with --download (download=True)" in capsys.readouterr().err
    assert main([*given, "--download"]) == 1
    assert "mnist would be fetched to none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["distill --out", "kip --out", "sweep --out", "statistics --out", "reproduce table3 --out", "distill --data-dir"],
)
def test_an_empty_path_is_refused_and_not_the_current_folder(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *others, flag = words.split()
    assert main([command, *others, flag, ""]) == 2
    assert f"{flag} must be a path, got ''; '.' is the current folder" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_an_empty_data_set_is_refused_and_not_the_current_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--dataset", ""]) == 2
    assert "--dataset must be one of digits, mnist" in capsys.readouterr().err


@no_native
def test_few_held_out_samples_are_said_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = np.random.default_rng(0).standard_normal((60, 5)), np.arange(60) % 3
    np.savez("few.npz", x_train=X, y_train=y, x_test=X, y_test=y)
    assert main([*REAL, "--dataset", "few.npz", "--json"]) == 0
    report, said = json.loads((captured := capsys.readouterr()).out), captured.err
    few = "lambda was chosen on 3 held-out samples only, too few to tell models apart: hold out more"
    assert few in said
    assert any(few in warning for warning in report["warnings"])
    with pytest.warns(kd.ResultWarning, match=f"^fit_model: {few}"):
        kd.distill(X, y, kd.Identity(5))


@no_native
def test_config_file_with_an_option_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "distill.yaml"
    config.write_text("data: {dataset: digits, gpu: 0}\ndistill: {IPC: 4, kernel: FCNN}\nmodel: {seed: 2}\n")
    assert main(["distill", *ARRAY, "--config", str(config), "--ipc", "2"]) == 0
    folder = tmp_path / "runs" / "digits_FCNN_ipc2_noise_seed2"
    assert kd.DistilledDataset.load(folder / "distilled.npz").X.shape == (20, 64)
    assert "krrdistill: note: " in capsys.readouterr().err


# What is refused


@pytest.mark.parametrize(
    ("line", "status", "expected"),
    [
        (
            "distill --dataset imagenet",
            2,
            "--dataset must be one of digits, mnist, cifar10, cifar100 or FILE|FOLDER|hf:PATH; got",
        ),
        ("distill --dataset none.npz", 2, "no such file or folder: none.npz"),
        (
            "distill --kernel rbf",
            2,
            "--kernel must be one of identity, random_fourier, orthogonal_fourier, FCNN, deep_linear, conv or",
        ),
        ("distill --ipc 0", 2, "--ipc must be >= 1, got 0"),
        ("distill --ipc many", 2, "--ipc must be an integer or a list of integers, got 'many'"),
        ("distill --reg-s --lambda-s 1", 2, "--reg-s and --lambda-s exclude each other"),
        ("distill --config none.yaml", 2, "none.yaml: No such file or directory"),
        ("distill --config bad.yaml", 2, "bad.yaml, line 2: malformed YAML"),
        ("distill --nonsense", 2, "--nonsense"),
        ("distil", 2, "distil"),
        (
            "",
            2,
            "no command given: distill, statistics, merge, subtract, kip, verify, privacy, report, compare",
        ),
        ("verify", 2, "FILE"),
        ("verify none.npz", 2, "no such file: none.npz"),
        ("verify bad.yaml --tolerance -1", 2, "--tolerance must be finite and >= 0, got -1.0"),
        ("distill --dataset broken.npz", 1, "broken.npz"),
        ("distill --out file/below", 1, "cannot write to the folder"),
        ("distill --out file", 1, "cannot write to the folder file"),
        ("distill --dataset mnist --data-dir .", 1, "mnist is not in"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    line: str, status: int, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("data: [\n")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    (tmp_path / "file").write_text("a file, not a folder")
    before = sorted(tmp_path.rglob("*"))
    assert main(line.split()) == status
    assert expected in error_of(capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (UsageError("--ipc must be at least 1"), 2, "--ipc must be at least 1"),
        (LambdaOutOfRange("lambda_s is 3, at most 1 is possible"), 2, "lambda_s is 3, at most 1 is possible"),
        (NotSurjective("p = 9 is more than d = 4"), 2, "p = 9 is more than d = 4"),
        (ValueError("class 3 has 4 samples,\n ipc is 9"), 2, "class 3 has 4 samples, ipc is 9"),
        (DataError("x_train holds NaN"), 1, "x_train holds NaN"),
        (NotPositiveDefinite("leading minor 5"), 1, "leading minor 5"),
        (BackendUnavailable("no native"), 1, "no native"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "out of memory: Unable to allocate 9 GiB"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (PermissionError(13, "Permission denied", "x.npz"), 1, "x.npz: Permission denied"),
        (KeyError("W"), 1, "unexpected KeyError: 'W' (--traceback shows where)"),
        (TypeError("bad call"), 1, "unexpected TypeError: bad call (--traceback shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_failure_has_a_status_and_one_line(error: BaseException, status: int, expected: str) -> None:
    assert (exit_status(error), message(error)) == (status, expected)


@no_native
@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--init", "real", "--ipc", "200"], 2, "fewer than points_per_class = 200"),
        (["--lambda-s", "1e9"], 2, "lambda_s = 1e+09 exceeds"),
        (["--kernel", "random_fourier", "--n-features", "65", "--strict"], 2, "at most 64 features"),
        (
            ["--kernel", "orthogonal_fourier", "--n-features", "65"],
            2,
            "n_features must be at most input_dim = 64, got 65",
        ),
        (["--dataset", "nan.npz"], 1, "NaN"),
        (["--dataset", "pickle.npz"], 1, "pickle"),
        (["--backend", "abacus"], 2, "'abacus'"),
    ],
)
def test_what_the_library_refuses(
    options: list[str], status: int, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nan(tmp_path / "nan.npz")
    arrays: dict[str, Any] = {"x_train": np.ones((4, 3)), "y_train": np.array([0, 0, 1, 1])}
    objects = np.array([[1, {}, 2]] * 2, dtype=object)
    np.savez(tmp_path / "pickle.npz", **arrays, x_test=objects, y_test=np.array([0, 1]))
    assert main([*REAL, *options]) == status
    assert expected in error_of(capsys)
    assert not (tmp_path / "o").exists()


def write_nan(path: Path) -> None:
    """A data set whose test images are NaN."""
    np.savez(path, x_train=np.ones((4, 3)), y_train=np.array([0, 0, 1, 1]), x_test=np.full((2, 3), np.nan),
             y_test=np.array([0, 1]))  # fmt: skip


@no_native
def test_a_folder_with_files_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").touch()
    assert main([*REAL, "--lambda-s", "1e9"]) == 2
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["mine"]


@pytest.mark.parametrize("how", ["option", "environment"])
def test_traceback_on_request(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nan(tmp_path / "nan.npz")
    if how == "environment":
        monkeypatch.setenv("KRRDISTILL_TRACEBACK", "1")
    words = [*REAL, "--dataset", "nan.npz", *(["--traceback"] if how == "option" else [])]
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("krrdistill: error: ")
    assert "NaN" in lines[-1]


def own_map(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> list[str]:
    """The words for a feature map of one's own, whose module this is."""
    name = f"own_{folder.name}"
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return [*REAL, "--kernel", f"{name}:phi"]


def test_warnings_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = own_map(tmp_path, monkeypatch, "import warnings\n\nwarnings.warn('two\\nlines', RuntimeWarning)\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(words) == 2  # the module has no phi
    _, warning, error = capsys.readouterr().err.splitlines()
    assert warning == "krrdistill: warning: two lines"
    assert "AttributeError" in error


def test_control_c_ends_a_run_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
    code = "import signal\n\n\ndef phi(X):\n    signal.raise_signal(signal.SIGINT)\n"
    assert main(own_map(tmp_path, monkeypatch, code)) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("interrupted")
    assert not Path("o").exists()


# Verification


@no_native
@pytest.mark.parametrize(
    ("error", "options", "status"),
    [
        (2e-6, [], 0),  # the original was retrained from float32 statistics: 1e-4
        (2e-4, [], 3),
        (2e-2, [], 3),
        (2e-4, ["--tolerance", "1e-3"], 0),
        (1e-9, ["--tolerance", "1e-10"], 3),
    ],
)
def test_verify_judges_by_the_tolerance(
    error: float, options: list[str], status: int, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", off_by(plain, error), "--json", *options]) == status
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    assert outcome["passed"] is (status == 0)
    tolerances.assert_estimate(outcome["certificate"]["weight_relative_error"], error)
    assert outcome["dataset"] == "digits"
    assert ("--include-weights" in captured.err) is (status == 3 and error < 1e-2)  # rounding explains no more


@no_native
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (1e-9, "is within the tolerance 1e-06"),
        (2e-6, "is within the tolerance 0.0001"),
        (1e-3, "EXCEEDS the tolerance"),
    ],
)
def test_verify_prints_its_verdict_and_why_its_tolerance_is_larger(
    error: float, verdict: str, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["verify", off_by(plain, error)])
    printed = capsys.readouterr()
    assert f"relative weight error {error:g} {verdict}" in printed.out.replace("1.000e-09", "1e-09")
    assert ("note: the tolerance is 0.0001: the original was trained again" in printed.err) is (error > 1e-6)


@no_native
@pytest.mark.parametrize("options", [["--store", "float32"], ["--precision", "float64"]])
def test_verify_blames_rounding_only_where_the_original_was_retrained_in_float32(
    options: list[str], with_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", off_by(with_weights, 1e-3)]) == 3
    assert capsys.readouterr().err == ""
    assert main([*REAL, *options]) == 0
    capsys.readouterr()
    float32 = "float32" in options
    assert main(["verify", off_by(Path("o/distilled.npz"), 1e-3)]) == (0 if float32 else 3)  # its tolerance is 1e-2
    assert capsys.readouterr().err == ""


@no_native
def test_verify_needs_the_file_that_a_set_was_made_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_npz(tmp_path / "mine.npz", tiny_images((4, 5), k=3, n_train=60))
    assert main([*REAL, "--dataset", "mine.npz"]) == 0
    capsys.readouterr()
    assert main(["verify", "o/distilled.npz"]) == 2
    assert "made from 'mine': give it with --dataset, and the other options of data as in the run" in error_of(capsys)
    assert main(["verify", "o/distilled.npz", "--dataset", "mine.npz"]) == 0


@no_native
def test_verify_tells_a_changed_file_from_a_damaged_one(
    with_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", off_by(with_weights, 1e-3)]) == 3
    assert "EXCEEDS the tolerance 1e-06" in capsys.readouterr().out
    whole = with_weights.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with np.load(with_weights) as arrays:
        np.savez(tmp_path / "pickle.npz", **{**arrays, "Y": np.array([{}])})
    for damaged in ("cut.npz", "pickle.npz"):
        assert main(["verify", damaged]) == 1
        assert damaged in error_of(capsys)


# The command itself


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == kd.__version__ + "\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom krrdistill.apps.cli import main\n"
        "for command in ('distill', 'kip', 'verify', 'privacy', 'report', 'compare', 'reproduce', 'info'):\n"
        "    assert main([command, '--help']) == 0\n"
        "heavy = {'numpy', 'scipy', 'matplotlib', 'sklearn', 'yaml'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--kernel" in done.stdout


def test_without_the_extra_the_entry_point_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "krrdistill.apps.cli.app")
    assert main(["--version"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == 'krrdistill: error: the command line needs typer: pip install "krrdistill[cli]"\n'


# The whole pipeline


@no_native
@pytest.mark.parametrize(
    "options",
    [
        ["--kernel", "identity", "--init", "real", "--ipc", "3"],
        ["--kernel", "random_fourier", "--reg-s", "--include-weights"],
        ["--kernel", "orthogonal_fourier", "--n-features", "60", "--sigma2", "30"],
        ["--kernel", "FCNN", "--hidden-layer", "2", "--zca"],
        ["--kernel", "identity", "--store", "float32", "--precision", "float64", "--refit"],
    ],
)
def test_a_run_on_digits_is_exact_and_verifies(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*REAL, "--json", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == FILES
    certificate = report["certificate"]
    assert certificate["weight_relative_error"] <= (1e-2 if "float32" in options else 1e-6)
    assert certificate["prediction_agreement"] >= (0.998 if "float32" in options else 1.0)
    assert report["original"]["test_accuracy"] > 0.85
    assert main(["verify", "o/distilled.npz", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["certificate"].keys() == certificate.keys()
    assert outcome["distilled"] == report["distilled"]


def test_two_runs_give_identical_figures(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        assert main(["distill", *ARRAY, "--out", folder, "--init", "real"]) == 0
    for name in ("distilled.png", "lambda_path.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "bound"),
    [([], "; --max-seconds bounds it"), (["--max-seconds", "90"], "; it ends after 90 s at the latest")],
)
def test_realism_says_the_expected_time_of_its_search_before_it_starts(
    words: list[str], bound: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*REAL, "--ipc", "2", "--realism", "1", *words]) == 0
    said = capsys.readouterr().err.splitlines()[0]
    assert "the search for the nearest exact set is expected to take a few seconds after the model is trained" in said
    assert bound in said


def test_runs_without_a_search_say_nothing_of_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(REAL) == 0
    assert "search" not in capsys.readouterr().err


@pytest.mark.parametrize("words", ["sweep --out o", "compare a b", "report a", "reproduce table3 --out o"])
def test_commands_that_draw_say_what_pictures_need_before_any_work(words: str, tmp_path: Path) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'matplotlib': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'matplotlib' else real(name, *rest)\n"
        "from krrdistill.apps.cli import main\n"
        f"sys.exit(main({words.split()!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1, 'krrdistill: error: the pictures need matplotlib: pip install "krrdistill[cli]"\n'
    )  # fmt: skip
    assert not (tmp_path / "o").exists()
