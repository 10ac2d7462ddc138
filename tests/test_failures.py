"""Every stage of a run and every way in which it can fail: the status, one line, old files whole, nothing left."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import krrdistill.data
from kill import stop_at_write
from krrdistill.apps.cli import main
from krrdistill.apps.cli import statistics as cli_statistics
from krrdistill.apps.kip import optimize
from krrdistill.apps.privacy import release
from krrdistill.apps.report import page, write
from krrdistill.apps.report.run_folder import read_run
from krrdistill.backends.array import ArrayBackend
from krrdistill.common import files
from krrdistill.construct import points
from krrdistill.maps import FeatureMap

DISTILL = ["distill", "--backend", "array", "--seed", "3", "--overwrite", "--out"]
UNVERIFIED = ".distilled.npz.unverified.npz"
PICTURE = Image.new("L", (2, 2))
WRITTEN = ("distilled.npz", "distilled.png", "lambda_path.png", "figure_data.npz", "report.json", "report.html")

pytestmark = pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning")


def _raise(error: Callable[[], BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error()

    return fail


FAILURES: dict[str, tuple[Callable[[], Any], int, str]] = {
    "ENOSPC": (_raise(lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), 1, os.strerror(errno.ENOSPC)),
    "EIO": (_raise(lambda: OSError(errno.EIO, os.strerror(errno.EIO))), 1, os.strerror(errno.EIO)),
    "memory": (_raise(MemoryError), 1, "out of memory"),
    "SIGINT": (lambda: signal.raise_signal(signal.SIGINT), 130, "interrupted"),
    "SIGTERM": (lambda: signal.raise_signal(signal.SIGTERM), 143, "terminated"),
}
# What each stage calls; it fails when that is done, so that half of the work is.
STAGES: dict[str, tuple[Any, str]] = {
    "reading": (krrdistill.data, "load_dataset"),
    "statistics": (ArrayBackend, "accumulate"),
    "ridge": (ArrayBackend, "ridge_path"),
    "construct": (points, "construct"),
    "preimage": (FeatureMap, "standard_preimage"),
    "evaluate": (krrdistill.DistilledDataset, "verify"),
}


@pytest.fixture(autouse=True)
def signals() -> Any:
    """As a shell gives them: a job in the background may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of another seed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main([*DISTILL[:3], "--out", str(folder)]) == 0
    return folder


def assert_failed(status: int, failure: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The status of this failure, nothing on stdout, and one line about it on stderr, after what was said before."""
    _, expected, said = FAILURES[failure]
    captured = capsys.readouterr()
    assert (status, captured.out) == (expected, "")
    *before, line = captured.err.splitlines()
    assert [each.startswith("krrdistill: error: ") for each in (*before, line)] == [False] * len(before) + [True]
    assert all(each.startswith("krrdistill: ") for each in before)
    assert said in line


def assert_whole(path: Path) -> None:
    """A file that can be read to its end."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            assert all(archive[name] is not None for name in archive.files)
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".html":
        assert path.read_bytes().rstrip().endswith(b"</html>")


@pytest.mark.parametrize("failure", list(FAILURES))
@pytest.mark.parametrize("stage", list(STAGES))
def test_failure_in_a_stage_has_a_status_and_leaves_nothing(
    stage: str, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, name = STAGES[stage]
    original = getattr(place, name)

    @functools.wraps(original)
    def failing(*arguments: Any, **keywords: Any) -> Any:
        original(*arguments, **keywords)
        FAILURES[failure][0]()

    monkeypatch.setattr(place, name, failing)
    assert_failed(main([*DISTILL, str(tmp_path / "run")]), failure, capsys)
    assert list(tmp_path.iterdir()) == []


class HalfWritten:
    """A stream of which every write stops in the middle."""

    def __init__(self, stream: Any, fail: Callable[[], Any]) -> None:
        self._stream, self._fail = stream, fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        self._stream.write(memoryview(data).cast("B")[: len(memoryview(data).cast("B")) // 2])
        self._fail()
        return len(data)


def spoil(monkeypatch: pytest.MonkeyPatch, file: str, call: str, fail: Callable[[], Any]) -> None:
    """The system's ``call`` about the file of this name fails."""
    real_open, replace, fsync = open, os.replace, os.fsync
    descriptors: set[int] = set()

    def opening(path: Any, *arguments: Any, **keywords: Any) -> Any:
        if not Path(path).name.startswith(f".{file}."):  # of the partial file
            return real_open(path, *arguments, **keywords)
        if call == "open":
            fail()
        stream = real_open(path, *arguments, **keywords)
        descriptors.add(stream.fileno())
        return HalfWritten(stream, fail) if call == "write" else stream

    def replacing(source: Any, target: Any) -> None:
        if call == "replace" and Path(target).name == file:
            fail()
        replace(source, target)

    def syncing(descriptor: int) -> None:
        if call == "fsync" and descriptor in descriptors:
            fail()
        fsync(descriptor)

    monkeypatch.setattr(files, "open", opening, raising=False)
    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "fsync", syncing)


@pytest.mark.parametrize(
    ("call", "failure"),
    [("open", "ENOSPC"), ("write", "ENOSPC"), ("write", "memory"), ("write", "SIGINT"), ("fsync", "EIO"),
     ("replace", "EIO"), ("replace", "SIGTERM")],
)  # fmt: skip
@pytest.mark.parametrize("file", [UNVERIFIED, *WRITTEN])
def test_failed_write_leaves_old_files_whole(
    file: str,
    call: str,
    failure: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(write, "distilled_sheet", lambda *_, **__: SimpleNamespace(title="", caption="", image=PICTURE))
    monkeypatch.setattr(write, "score_figure", lambda *_, **__: Figure((1, 1)))
    monkeypatch.setattr(page, "run_page", lambda _: b"<html></html>")
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    spoil(monkeypatch, file, call, FAILURES[failure][0])
    assert_failed(main([*DISTILL, str(folder)]), failure, capsys)
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir()} == set(WRITTEN)
    done = WRITTEN.index(file) if file in WRITTEN else 0
    for name in WRITTEN[done:]:
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    for name in WRITTEN[:done]:
        assert_whole(folder / name)
    if 0 < done < WRITTEN.index("report.html"):
        with pytest.raises(krrdistill.DataError, match=r"is about another distilled\.npz"):
            read_run(folder)
    else:
        read_run(folder)


# The other commands that write


class Command(NamedTuple):
    """The words before the output, the stages of its work, its files, and what a failed run leaves on purpose."""

    words: list[str]
    stages: dict[str, tuple[Any, str]]
    files: tuple[str, ...]
    stays: tuple[str, ...] = ()


ARRAY = ["--backend", "array"]
RELEASE = ["--mechanism", "output", "--epsilon", "1", "--delta", "1e-5"]
RUN_STAGES = {name: STAGES[name] for name in ("reading", "statistics", "evaluate")}
CELL = "digits_identity_ipc1_noise_seed0/"
COMMANDS = {
    "kip": Command(
        ["kip", *ARRAY, "--iterations", "1", "--out", "{}"],
        {**RUN_STAGES, "iteration": (optimize, "adam_step"), "saving": (optimize, "save_checkpoint")},
        ("checkpoint.npz", "last.npz", "curve.npz", *(name for name in WRITTEN if name != "lambda_path.png")),
        ("checkpoint.npz", "distilled.npz", "last.npz"),
    ),
    "statistics": Command(
        ["statistics", *ARRAY, "--shard", "a", "--out", "{}/a.npz", "--held-out", "{}/held.npz"],
        {"reading": (cli_statistics, "load_part"), "statistics": STAGES["statistics"]},
        (".held.npz.unverified.npz", ".a.npz.unverified.npz"),
    ),
    "merge": Command(
        ["merge", "{parts}/a.npz", "{parts}/b.npz", "--out", "{}/merged.npz"],
        {"reading": (cli_statistics, "load_statistics"), "sum": (krrdistill.RidgeStatistics, "__iadd__")},
        ("merged.npz",),
    ),
    "sweep": Command(
        ["sweep", *ARRAY, "--out", "{}"],
        {**RUN_STAGES, "construct": STAGES["construct"]},
        (*(f"{CELL}{name}" for name in WRITTEN), "sweep.json", "sweep.csv", "sweep.html", "sweep.png"),
        ("sweep.json",),
    ),
    "privacy": Command(
        ["privacy", *ARRAY, *RELEASE, "--out", "{}"],
        {
            "reading": STAGES["reading"],
            "clipping": (release, "clipped_statistics"),
            "noise": (release, "perturb"),
            "construct": (release, "construct"),
            "evaluate": STAGES["evaluate"],
        },
        (UNVERIFIED, "release.json"),
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the statistics of two shards, and with other files of the names that commands write."""
    folder = tmp_path_factory.mktemp("parts")
    a, b, held = (str(folder / name) for name in ("a.npz", "b.npz", "held.npz"))
    words = ["statistics", *ARRAY, "--seed", "5", "--shard"]
    assert main([*words, "old", "--out", a, "--held-out", held]) == 0
    assert main([*words, "b", "--out", b, "--like", a]) == 0
    shutil.copy(b, folder / "merged.npz")
    return folder


@pytest.fixture
def run_of(tmp_path: Path, parts: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], int]:
    """Runs a command that writes to tmp_path/out; pictures and pages cost nothing."""
    monkeypatch.setattr(write, "distilled_sheet", lambda *_, **__: SimpleNamespace(title="", caption="", image=PICTURE))
    monkeypatch.setattr(write, "score_figure", lambda *_, **__: Figure((1, 1)))
    monkeypatch.setattr(page, "run_page", lambda _: b"<html></html>")
    out = tmp_path / "out"
    return lambda command: main([word.format(out, parts=parts) for word in command.words])


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failure", list(FAILURES))
@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name in COMMANDS for stage in COMMANDS[name].stages])
def test_failure_in_a_stage_of_any_command_has_a_status_and_leaves_nothing(
    name: str,
    stage: str,
    failure: str,
    run_of: Callable[[Command], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = COMMANDS[name]
    if "/" in command.words[-1]:  # a file, in a folder that is there
        (tmp_path / "out").mkdir()
    place, called = command.stages[stage]
    original = getattr(place, called)

    @functools.wraps(original)
    def failing(*arguments: Any, **keywords: Any) -> Any:
        original(*arguments, **keywords)
        FAILURES[failure][0]()

    monkeypatch.setattr(place, called, failing)
    if (name, failure) == ("sweep", "memory") and stage != "reading":  # of one cell: the others go on
        assert run_of(command) == 1
        assert "FAILED: out of memory" in capsys.readouterr().err
        assert not (tmp_path / "out" / CELL).exists()
        return
    assert_failed(run_of(command), failure, capsys)
    assert below(tmp_path).keys() <= {f"out/{each}" for each in command.stays}


@pytest.mark.parametrize(("call", "failure"), [("write", "ENOSPC"), ("replace", "SIGTERM")])
@pytest.mark.parametrize(("name", "file"), [(name, file) for name in COMMANDS for file in COMMANDS[name].files])
def test_failed_write_of_any_command_leaves_whole_files_alone(
    name: str,
    file: str,
    call: str,
    failure: str,
    run_of: Callable[[Command], int],
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, out = COMMANDS[name], tmp_path / "out"
    in_place = "/" in command.words[-1]
    if in_place:
        shutil.copytree(parts, out)
    before = below(out)
    capsys.readouterr()
    spoil(monkeypatch, Path(file).name, call, FAILURES[failure][0])
    assert_failed(run_of(command), failure, capsys)
    monkeypatch.undo()
    found = below(out) if out.exists() else {}
    if in_place or name == "privacy":
        assert found == before
    assert found.keys() <= {*before, *command.files}
    for each in found:
        assert_whole(out / each)


# Signals and limits of the system, in processes of their own


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
@pytest.mark.parametrize(("file", "left"), [(UNVERIFIED, ()), ("report.json", WRITTEN[:4])])
def test_sigterm_ends_a_command_with_one_line_and_without_leftovers(
    file: str, left: tuple[str, ...], tmp_path: Path
) -> None:
    status, err = stop_at_write(file, 1, [*DISTILL, str(tmp_path / "new" / "run")], signal.SIGTERM)
    assert (status, err.splitlines()[-1]) == (143, "krrdistill: error: terminated")
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(left)
    assert (tmp_path / "new").exists() is bool(left)


# The import of this module is interrupted.
IMPORTING = """
import importlib.abc, os, sys
name, number, *words = sys.argv[1:]
class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, found, path=None, target=None):
        if found == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Interrupting())
from krrdistill.apps.cli import main
sys.exit(main(words))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
@pytest.mark.parametrize(
    ("module", "number", "status", "said"),
    [("typer", signal.SIGINT, 130, "interrupted"), ("numpy", signal.SIGTERM, 143, "terminated")],
)
def test_signal_during_imports_is_one_line(
    module: str, number: signal.Signals, status: int, said: str, tmp_path: Path
) -> None:
    words = [module, str(int(number)), *DISTILL, str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", IMPORTING, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"krrdistill: error: {said}\n")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from krrdistill.apps.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit here")
def test_limit_of_the_file_size_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LIMITED, *DISTILL, str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("krrdistill: error: ")
    assert os.strerror(errno.EFBIG) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ignored_sigterm_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert main(["info", "--json"]) == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_audit_that_cannot_be_written_is_printed(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "privacy.json", "open", _raise(lambda: PermissionError(errno.EACCES, "Permission denied")))
    capsys.readouterr()
    assert main(["privacy", str(finished / "distilled.npz")]) == 0
    captured = capsys.readouterr()
    assert "W rebuilt from the file alone" in captured.out
    assert "is without the audit: Permission denied" in captured.err
