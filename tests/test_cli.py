"""The command: exit statuses, messages, what goes to stdout and stderr, and which files are written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("sklearn", reason="the cli extra is not installed")

import krrdistill.apps.distillation
import krrdistill.apps.report.write
import krrdistill.artifact.file
import krrdistill.options
from krrdistill.apps.cli import main
from krrdistill.artifact.certificate import Certificate
from krrdistill.artifact.record import RunRecord, from_json
from krrdistill.errors import (
    BackendUnavailable,
    DataError,
    LambdaOutOfRange,
    NotPositiveDefinite,
    NotSurjective,
)

FILES = ["distilled.npz", "distilled.png", "figure_data.npz", "lambda_path.png", "report.html", "report.json"]
JSON_KEYS = {
    "dataset", "kernel", "ipc", "seed", "n_train", "n_val", "n_test", "d", "p", "k", "m", "lambda",
    "lambda_s", "val_accuracy", "original", "distilled", "certificate", "seconds", "peak_memory_bytes",
    "backend", "artifact", "figure", "warnings",
}  # fmt: skip
STAGES = {"load", "statistics", "ridge", "construct", "preimage", "evaluate", "save", "total"}


def fake_report(out: Path) -> dict[str, Any]:
    return {
        "dataset": "digits", "kernel": "identity", "ipc": 1, "seed": 0, "n_train": 1366, "n_val": 72,
        "n_test": 359, "d": 64, "p": 64, "k": 10, "m": 10, "lambda": 10.0, "lambda_s": 0.0,
        "val_accuracy": 0.9, "original": {"test_accuracy": 0.9375},
        "distilled": {"test_accuracy": 0.9375}, "init": "noise", "store": "float64", "precision": "float32",
        "range_scale": 1.0, "value_range": [0.0, 16.0], "floor_seconds": {"statistics": None},
        "certificate": {"weight_relative_error": 1e-15, "weight_cosine": 1.0, "prediction_agreement": 1.0,
                        "condition": None},
        "seconds": dict.fromkeys(STAGES, 0.1), "peak_memory_bytes": 1, "backend": "array",
        "artifact": str(out), "warnings": ["a lambda lies under the noise floor"],
        "realism": {"asked": None, "mse": None, "psnr": None, "out_of_range": 0.5},
    }  # fmt: skip


class FakeRun:
    """Stands in for ``run_distillation``: records how it was called, writes a file, or fails."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: BaseException | None = None

    def __call__(self, dataset: Any, **options: Any) -> Any:
        self.calls.append({"dataset": dataset, **options})
        options["progress"]("statistics", 0.5)
        if self.error is not None:
            raise self.error
        artifact = options["out"] / "distilled.npz"
        artifact.write_bytes(b"artefact")
        path = SimpleNamespace(
            lambdas=np.array([0.1, 1.0]),
            score=np.array([np.nan, 0.9]),
            train_rmse=np.array([np.nan, 0.1]),
            below_noise_floor=np.array([True, False]),
            noise_floor=0.5,
            best=1,
        )
        images = np.zeros((10, 8, 8))
        return SimpleNamespace(
            record=from_json(RunRecord, fake_report(artifact)),
            distilled=SimpleNamespace(distilled_data=images),
            path=path,
            start_images=None,
            singular_values=None,
        )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(krrdistill.apps.distillation, "run_distillation", fake)
    # The page needs a real file; test_report.py makes and reads it.
    monkeypatch.setattr(krrdistill.apps.report.write, "write_page", lambda out: (out / "report.html").touch())
    return fake


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KRRDISTILL_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; stdout must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("krrdistill: error: ")
    return line.removeprefix("krrdistill: error: ")


def test_distill_writes_its_files_and_prints_a_summary(
    run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill"]) == 0
    folder = tmp_path / "runs" / "digits_identity_ipc1_noise_seed0"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    captured = capsys.readouterr()
    for shown in ("1366 samples distilled to 10", "93.75 %", "1e-15", "100.00 %", "lambda"):
        assert shown in captured.out
    assert captured.err == "krrdistill: warning: a lambda lies under the noise floor\n"


def test_json_is_the_only_thing_on_stdout(run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--json", "--out", "o"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    report = json.loads(captured.out)
    assert set(report) >= JSON_KEYS
    assert set(report["seconds"]) == STAGES
    assert report["certificate"]["condition"] is None
    assert report["figure"] == str(Path("o", "distilled.png"))
    assert json.loads((tmp_path / "o" / "report.json").read_text()) == report


def test_options_reach_the_library(run: FakeRun) -> None:
    line = (
        "distill --kernel fcnn --hidden-layer 2 --ipc 3 --init real --lambda-s 1e-4 --root minus --seed 5 "
        "--zca --store float32 --refit --precision float64 --backend array --threads 2 --lambdas 1,10 "
        "--include-weights --out somewhere"
    )
    assert main(line.split()) == 0
    (call,) = run.calls
    assert (call["kernel"], call["map_options"], call["use_zca"]) == ("FCNN", {"hidden_layers": 2}, True)
    assert call["out"] == Path("somewhere")
    assert call["load_seconds"] > 0
    assert call["dataset"].name == "digits"
    assert call["options"] == krrdistill.options.DistillOptions(
        points_per_class=3, init="real", lambda_s=1e-4, root="minus", lambdas=(1.0, 10.0), refit=True, seed=5,
        precision="float64", store="float32", backend="array", threads=2, include_weights=True,
    )  # fmt: skip


def test_reg_s_asks_for_the_largest_lambda_s(run: FakeRun) -> None:
    assert main(["distill", "--reg-s"]) == 0
    assert run.calls[0]["options"].lambda_s == "auto"


def test_config_file_with_an_option_over_it(run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "distill.yaml"
    config.write_text("data: {dataset: digits, gpu: 0}\ndistill: {IPC: 4, kernel: FCNN}\nmodel: {seed: 2}\n")
    assert main(["distill", "--config", str(config), "--ipc", "2"]) == 0
    assert run.calls[0]["options"].points_per_class == 2
    assert (tmp_path / "runs" / "digits_FCNN_ipc2_noise_seed2").is_dir()
    assert "krrdistill: note: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "status", "expected"),
    [
        ("distill --dataset imagenet", 2, "--dataset must be one of digits, mnist, cifar10, cifar100"),
        ("distill --dataset none.npz", 2, "no such file: none.npz"),
        (
            "distill --kernel rbf",
            2,
            "--kernel must be one of identity, random_fourier, orthogonal_fourier, FCNN, deep_linear, conv, got",
        ),
        ("distill --ipc 0", 2, "--ipc must be at least 1, got 0"),
        ("distill --ipc many", 2, "'--ipc'"),
        ("distill --reg-s --lambda-s 1", 2, "--reg-s and --lambda-s exclude each other"),
        ("distill --config none.yaml", 2, "none.yaml: No such file or directory"),
        ("distill --config bad.yaml", 2, "bad.yaml, line 2: malformed YAML"),
        ("distill --nonsense", 2, "--nonsense"),
        ("distil", 2, "distil"),
        ("", 2, "no command given: distill, kip, verify, privacy, report, compare, reproduce or info"),
        ("verify", 2, "FILE"),
        ("verify none.npz", 2, "no such file: none.npz"),
        ("distill --dataset broken.npz", 1, "broken.npz"),
        ("distill --out file/below", 1, "cannot write to the folder"),
        ("distill --out file", 1, "cannot write to the folder file"),
        ("distill --dataset mnist --data-dir .", 1, "mnist is not in"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    line: str, status: int, expected: str, run: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text("data: [\n")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    (tmp_path / "file").write_text("a file, not a folder")
    before = sorted(tmp_path.rglob("*"))
    assert main(line.split()) == status
    assert expected in error_of(capsys)
    assert run.calls == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (LambdaOutOfRange("lambda_s is 3, at most 1 is possible"), 2, "lambda_s is 3, at most 1 is possible"),
        (NotSurjective("p = 9 is more than d = 4"), 2, "p = 9 is more than d = 4"),
        (ValueError("class 3 has 4 samples,\n ipc is 9"), 2, "class 3 has 4 samples, ipc is 9"),
        (DataError("x_train holds NaN"), 1, "x_train holds NaN"),
        (NotPositiveDefinite("leading minor 5"), 1, "leading minor 5"),
        (BackendUnavailable("no native"), 1, "no native"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "out of memory: Unable to allocate 9 GiB"),
        (MemoryError(), 1, "out of memory"),
        (
            OSError(28, "No space left on device"),
            1,
            "runs/digits_identity_ipc1_noise_seed0: No space left on device",
        ),
        (PermissionError(13, "Permission denied", "x.npz"), 1, "x.npz: Permission denied"),
        (KeyError("W"), 1, "unexpected KeyError: 'W' (--traceback shows where)"),
        (TypeError("bad call"), 1, "unexpected TypeError: bad call (--traceback shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_of_a_run_have_a_status_and_leave_no_folder(
    error: BaseException,
    status: int,
    expected: str,
    run: FakeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run.error = error
    assert main(["distill", "--json"]) == status
    assert error_of(capsys) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_survives_a_failure(run: FakeRun, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").touch()
    run.error = DataError("x")
    assert main(["distill", "--out", "o"]) == 1
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["mine"]


@pytest.mark.parametrize("how", ["option", "environment"])
def test_traceback_on_request(
    how: str, run: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.error = DataError("x_train holds NaN")
    if how == "environment":
        monkeypatch.setenv("KRRDISTILL_TRACEBACK", "1")
    assert main(["distill", *(["--traceback"] if how == "option" else [])]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "krrdistill: error: x_train holds NaN"


def test_warnings_are_one_line(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    def warning_run(dataset: Any, **options: Any) -> Any:
        warnings.warn("the compiled backend is missing", RuntimeWarning, stacklevel=1)
        return run(dataset, **options)

    monkeypatch.setattr(krrdistill.apps.distillation, "run_distillation", warning_run)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["distill"]) == 0
    assert "krrdistill: warning: the compiled backend is missing\n" in capsys.readouterr().err


class FakeDistilled:
    """Stands in for a loaded artefact with a given storage and weight error."""

    lambda_s = 0.0
    targets = "classes"

    def __init__(self, dtype: str, error: float, made_from: str = "digits") -> None:
        self.store = dtype
        self.meta = {"dataset": made_from, "options": {"backend": "array", "precision": "float32"}}
        self.weights: Any = None
        self.error = error
        self.dataset: Any = None

    def verify(self, dataset: Any, *, backend: str | None) -> Certificate:
        self.dataset = dataset
        self.backend = backend
        return Certificate(self.error, 1.0, 1.0, 2.0, 0.9, 0.9)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ``d.npz`` load as a given fake."""

    def load_as(distilled: FakeDistilled) -> FakeDistilled:
        (tmp_path / "d.npz").touch()
        monkeypatch.setattr(krrdistill.artifact.file.DistilledDataset, "load", lambda path, feature_map: distilled)
        return distilled

    return load_as


@pytest.mark.parametrize(
    ("dtype", "error", "options", "status"),
    [
        ("float64", 2e-6, [], 0),  # the original was retrained from float32 statistics: 1e-4
        ("float64", 2e-4, [], 3),
        ("float32", 2e-6, [], 0),
        ("float32", 2e-2, [], 3),
        ("float64", 2e-4, ["--tolerance", "1e-3"], 0),
        ("float64", 1e-9, ["--tolerance", "1e-10"], 3),
        ("float64", float("nan"), [], 3),
    ],
)
def test_verify_judges_by_the_tolerance(
    dtype: str, error: float, options: list[str], status: int, load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled = load(FakeDistilled(dtype, error))
    assert main(["verify", "d.npz", "--json", *options]) == status
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    assert outcome["passed"] is (status == 0)
    assert outcome["certificate"]["weight_relative_error"] == (None if np.isnan(error) else error)
    assert ("--include-weights" in captured.err) is (status == 3 and error < 1e-2)  # rounding explains no more
    assert (distilled.dataset.name, distilled.backend) == ("digits", "array")


@pytest.mark.parametrize(("error", "verdict"), [(1e-9, "is within"), (1e-3, "EXCEEDS")])
def test_verify_prints_its_verdict(error: float, verdict: str, load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    load(FakeDistilled("float64", error))
    main(["verify", "d.npz"])
    printed = capsys.readouterr().out
    assert "relative weight error" in printed
    assert f"{verdict} the tolerance 0.0001" in printed


@pytest.mark.parametrize(("weights", "precision"), [(np.zeros((2, 3)), "float32"), (None, "float64")])
def test_verify_blames_rounding_only_where_the_original_was_retrained_in_float32(
    weights: Any, precision: str, load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled = load(FakeDistilled("float64", 1e-3))
    distilled.weights = weights
    distilled.meta["options"]["precision"] = precision
    assert main(["verify", "d.npz"]) == 3
    assert capsys.readouterr().err == ""


def test_verify_needs_the_file_that_a_set_was_made_from(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    distilled = load(FakeDistilled("float64", 1e-9, made_from="mine"))
    assert main(["verify", "d.npz"]) == 2
    assert "made from 'mine': give that file with --dataset FILE.npz" in error_of(capsys)
    assert main(["verify", "d.npz", "--dataset", "digits"]) == 0
    assert distilled.dataset.name == "digits"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == krrdistill._version.__version__ + "\n"


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom krrdistill.apps.cli import main\nstatus = main(['distill', '--help'])\n"
        "heavy = {'numpy', 'scipy', 'matplotlib', 'sklearn', 'yaml'} & set(sys.modules)\n"
        "assert status == 0 and not heavy, heavy\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "--kernel" in done.stdout


def test_without_the_extra_the_entry_point_says_how_to_get_it() -> None:
    code = "import sys\nsys.modules['typer'] = None\nfrom krrdistill.apps.cli import main\nsys.exit(main())\n"
    done = python(code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ('krrdistill: error: the command line needs typer: pip install "krrdistill[cli]"\n')


def test_control_c_ends_a_run_with_130(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, krrdistill.apps.distillation\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background may ignore it
        "def run(dataset, **options):\n    print('running', flush=True)\n    time.sleep(60)\n"
        "krrdistill.apps.distillation.run_distillation = run\n"
        "from krrdistill.apps.cli import main\nsys.exit(main(['distill']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "krrdistill: error: interrupted"
    assert list(tmp_path.iterdir()) == []


# From here on the whole pipeline runs, on the bundled digits with the backend that is always there.
REAL = ["distill", "--backend", "array", "--out", "o"]
no_native = pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning")


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
    assert set(report) >= JSON_KEYS
    assert set(report["seconds"]) >= STAGES
    certificate = report["certificate"]
    assert certificate["weight_relative_error"] <= (1e-2 if "float32" in options else 1e-6)
    assert certificate["prediction_agreement"] >= (0.998 if "float32" in options else 1.0)
    assert report["original"]["test_accuracy"] > 0.85
    assert main(["verify", "o/distilled.npz", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["certificate"].keys() == certificate.keys()
    assert outcome["distilled"] == report["distilled"]


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
    arrays: dict[str, Any] = {"x_train": np.ones((4, 3)), "y_train": np.array([0, 0, 1, 1])}
    arrays |= {"x_test": np.ones((2, 3)), "y_test": np.array([0, 1])}
    np.savez(tmp_path / "nan.npz", **{**arrays, "x_test": np.full((2, 3), np.nan)})
    np.savez(tmp_path / "pickle.npz", **{**arrays, "x_test": np.array([[1, {}, 2]] * 2, dtype=object)})
    assert main([*REAL, *options]) == status
    assert expected in error_of(capsys)
    assert not (tmp_path / "o").exists()


@no_native
def test_verify_tells_a_changed_file_from_a_damaged_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REAL, "--include-weights"]) == 0
    capsys.readouterr()
    whole = (tmp_path / "o" / "distilled.npz").read_bytes()
    with np.load(tmp_path / "o" / "distilled.npz") as arrays:
        changed = {**arrays, "Y": 1.001 * arrays["Y"]}
    np.savez(tmp_path / "changed.npz", **changed)
    assert main(["verify", "changed.npz"]) == 3
    assert "EXCEEDS the tolerance 1e-06" in capsys.readouterr().out
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "pickle.npz", **{**changed, "Y": np.array([{}])})
    for damaged in ("cut.npz", "pickle.npz"):
        assert main(["verify", damaged]) == 1
        assert damaged in error_of(capsys)


def test_two_runs_give_identical_figures(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        assert main(["distill", "--backend", "array", "--out", folder, "--init", "real"]) == 0
    for name in ("distilled.png", "lambda_path.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
