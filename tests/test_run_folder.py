"""A run folder is one thing: one writer at a time, one kind of run, no leftovers, files that belong together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
from kill import kill_at_write
from krrdistill.apps.cli import main
from krrdistill.apps.distillation import run_distillation
from krrdistill.apps.folder import LOCK, Existing, OutputError, locked, output_folder
from krrdistill.apps.privacy import PrivacyBudget, ReleaseOptions, private_release
from krrdistill.apps.report.run_folder import read_run
from krrdistill.apps.reproduce.sections import Publication, Section, to_markdown
from krrdistill.apps.run_kind import RunKind
from krrdistill.artifact.record import WEIGHT_ERROR_TARGETS
from krrdistill.common import files
from krrdistill.common.files import content_digest, write_atomically, write_together

ARRAY = ["--backend", "array"]
DISTILL = ["distill", *ARRAY, "--out"]
AGAIN = ["distill", *ARRAY, "--overwrite", "--out"]
KIP = ["kip", *ARRAY, "--iterations", "2", "--out"]
RELEASE = ["privacy", *ARRAY, "--mechanism", "statistics", "--epsilon", "1", "--delta", "1e-5", "--out"]
HOLDER = """
import sys
from pathlib import Path
from krrdistill.apps.folder import Existing, RunKind, output_folder
with output_folder(Path(sys.argv[1]), RunKind.DISTILL, Existing.CONTINUED) as folder:
    print("READY", flush=True)
    sys.stdin.read()
"""

pytestmark = [
    pytest.mark.usefixtures("undrawn_pages"),
    pytest.mark.filterwarnings("ignore:the compiled backend:RuntimeWarning"),
]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of a finished run."""
    assert main([*DISTILL, str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that writes to a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "READY\n"
    return process


# One writer


def test_second_run_into_a_folder_that_is_written_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    with holder(run) as other:
        assert main([*AGAIN, str(run)]) == 1
        error = capsys.readouterr().err
        assert other.stdin is not None
        other.stdin.close()
    assert f"process {other.pid} is writing to {run}: wait until it ends, or write to another folder" in error
    assert contents(run) == before
    assert main([*AGAIN, str(run)]) == 0


def test_page_of_a_folder_that_is_written_stays_and_the_audit_is_printed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    with locked(run):
        assert main(["report", str(run)]) == 1
        assert f"is writing to {run}" in capsys.readouterr().err
        assert main(["privacy", str(run)]) == 0
        captured = capsys.readouterr()
    assert "W rebuilt from the file alone" in captured.out
    assert f"warning: the page of {run} is without the audit: process" in captured.err
    assert contents(run) == before


def test_lock_of_a_killed_run_is_taken_over_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with holder(run) as other:
        other.kill()
    assert (run / LOCK).exists()
    assert main([*AGAIN, str(run)]) == 0
    assert f"process {other.pid} was killed while it wrote to {run}" in capsys.readouterr().err
    assert not (run / LOCK).exists()


def test_leftovers_of_a_killed_run_are_removed_by_the_next(run: Path) -> None:
    names = set(contents(run))
    kill_at_write("report.json", 1, [*AGAIN, str(run)])
    (run / ".distilled.npz.unverified.npz").write_bytes(b"PK")
    (run / ".mine.partial").write_bytes(b"of somebody else")
    assert any(name.endswith(".partial") for name in set(contents(run)) - names - {".mine.partial"})
    assert main([*AGAIN, str(run)]) == 0
    assert set(contents(run)) == names | {".mine.partial"}


def test_what_a_living_process_writes_in_the_folder_stays(tmp_path: Path) -> None:
    """A run that began meanwhile took it for that of a dead one, so that the other lost its work."""

    def begin_a_run(stream: Any) -> None:
        stream.write(b"statistics")
        with output_folder(tmp_path, RunKind.DISTILL):
            pass

    write_atomically(tmp_path / "statistics.npz", begin_a_run)
    assert contents(tmp_path) == {"statistics.npz": b"statistics"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("link", ["symbolic", "hard", "pipe"])
def test_lock_that_is_a_link_empties_no_other_file(tmp_path: Path, link: str) -> None:
    mine, out = tmp_path / "mine.txt", tmp_path / "out"
    mine.write_bytes(b"precious")
    out.mkdir()
    if link == "pipe":
        os.mkfifo(out / LOCK)
    else:
        (os.symlink if link == "symbolic" else os.link)(mine, out / LOCK)
    with pytest.raises(OutputError, match="cannot write to the folder"), locked(out):
        pass
    assert mine.read_bytes() == b"precious"
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_new_files_stay_whatever_the_clock_says(run: Path) -> None:
    """By its time alone, a new file was taken for that of the run which it replaced."""
    picture = run / "lambda_path.png"
    os.utime(picture, ns=(5, 5))
    os.utime(run / "report.html", ns=(5, 5))
    with output_folder(run, RunKind.DISTILL, Existing.REPLACED):
        write_atomically(picture, lambda stream: stream.write(b"new"))
        os.utime(picture, ns=(5, 5))
    assert picture.read_bytes() == b"new"


# A run that is there already


def refused(*words: Any, **options: Any) -> Any:
    raise AssertionError("work began")


def test_explicit_folder_that_holds_a_run_is_refused_before_any_work(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    monkeypatch.setattr("krrdistill.apps.cli.run.load_data", refused)
    assert main([*DISTILL, str(run), "--zca"]) == 1
    error = capsys.readouterr().err
    assert f"{run} holds a run already: give another --out, or --overwrite to replace it" in error
    assert contents(run) == before


def test_default_folder_that_holds_a_run_is_kept_and_the_next_number_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = Path("runs/digits_identity_ipc1_noise_seed0")
    words = ["distill", *ARRAY]
    assert main(words) == 0
    before = contents(first)
    capsys.readouterr()
    with holder(first.with_name(f"{first.name}_2")) as other:
        assert main(words) == 0, "a folder that another process has is passed over"
        assert other.stdin is not None
        other.stdin.close()
    assert f"note: {first} holds a run already: this one goes to {first}_3" in capsys.readouterr().err
    assert contents(first) == before
    assert main([*words, "--overwrite"]) == 0
    assert main([*words, "--zca"]) == 0
    names = {path.name.removeprefix(first.name.removesuffix("_seed0")) for path in Path("runs").iterdir()}
    assert names == {"_seed0", "_seed0_2", "_seed0_3", "_zca_seed0"}
    assert read_run(Path(f"{first}_3")).record.artifact == str(Path(f"{first}_3/distilled.npz"))


def test_processes_that_start_together_choose_different_numbers(tmp_path: Path) -> None:
    script = HOLDER.replace("CONTINUED", "KEPT").replace('"READY"', "folder.name")
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    names = {process.stdout.readline().strip() for process in processes}
    for process in processes:
        process.communicate()
    assert names == {"run", "run_2", "run_3", "run_4"}


def test_overwriting_run_that_fails_leaves_the_old_one_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    kill_at_write("distilled.npz", 1, [*AGAIN, str(run), "--seed", "3"])
    assert {name: content for name, content in contents(run).items() if not name.startswith(".")} == before
    assert main([*AGAIN, str(run), "--lambda-s", "1e9"]) == 2
    assert contents(run) == before
    assert main(["report", str(run)]) == 0


def test_overwriting_run_leaves_nothing_of_the_old_one(run: Path) -> None:
    assert main(["privacy", str(run / "distilled.npz")]) == 0
    assert (run / "privacy.json").exists()
    assert main([*AGAIN, str(run)]) == 0
    assert not (run / "privacy.json").exists()
    assert (run / "lambda_path.png").exists()


def test_private_release_of_the_same_name_gets_the_next_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(RELEASE[:-1]) == 0
    assert len(list(Path("runs").iterdir())) == 2
    assert "goes to runs" in capsys.readouterr().err


def test_longer_kip_run_goes_on_in_its_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for iterations in ("2", "4"):
        assert main(["kip", *ARRAY, "--iterations", iterations]) == 0
    (folder,) = Path("runs").iterdir()
    assert json.loads((folder / "report.json").read_bytes())["resumed_from"] == 2


# One kind


@pytest.mark.parametrize("words", [KIP, RELEASE], ids=["kip", "privacy"])
def test_run_of_another_kind_into_a_folder_is_refused(
    run: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert main([*words, str(run)]) == 1
    error = capsys.readouterr().err
    assert str(run) in error
    assert "give another --out, or remove what is in it" in error
    assert contents(run) == before


def test_distill_into_the_folder_of_kip_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*KIP, str(tmp_path)]) == 0
    assert main([*DISTILL, str(tmp_path)]) == 1
    assert "holds the files of krrdistill kip, not of krrdistill distill" in capsys.readouterr().err


def test_private_release_of_the_library_asks_for_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "figure_data.npz").write_bytes(b"images")
    options = ReleaseOptions(mechanism="statistics", budget=PrivacyBudget(1.0, 1e-5))
    with pytest.raises(kd.DataError, match=r"not empty \(figure_data.npz\)"):
        private_release(kd.load_dataset("digits"), options=options, out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (RunKind.DISTILL, "distilled.npz"),
        (RunKind.DISTILL, "report.html"),
        (RunKind.DISTILL, "report.json"),
        (RunKind.KIP, "curve.npz"),
        (RunKind.SWEEP, "sweep.csv"),
    ],
)
@pytest.mark.parametrize("existing", list(Existing))
def test_file_that_no_run_wrote_is_never_replaced(tmp_path: Path, kind: RunKind, name: str, existing: Existing) -> None:
    np.savez(tmp_path / "data.npz", x_train=np.ones(3))
    mine = (tmp_path / "data.npz").rename(tmp_path / name)
    if name == "report.json":
        mine.write_text('{"of": "another tool"}', encoding="utf-8")
    if existing is Existing.KEPT:
        with output_folder(tmp_path, kind, existing, say=lambda _: None) as folder:
            assert folder != tmp_path
    else:
        with pytest.raises(kd.DataError, match=f"holds a file {name} that no run wrote: {kind.value} would replace it"):
            output_folder(tmp_path, kind, existing).__enter__()
    assert list(tmp_path.iterdir()) == [mine]


def test_audit_of_another_file_is_not_read(run: Path) -> None:
    (run / "privacy.json").write_text('{"sha256": "of another version"}', encoding="utf-8")
    assert read_run(run).privacy is None


@pytest.mark.parametrize("kind", list(RunKind))
def test_new_and_empty_folders_are_taken_by_every_kind(tmp_path: Path, kind: RunKind) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        with output_folder(folder, kind) as taken:
            assert [path.name for path in taken.iterdir() if path.is_file()] == [LOCK]
        assert not (folder / LOCK).exists()


# Files that belong together


def test_report_and_verify_refuse_a_file_of_another_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kill_at_write("report.json", 1, [*AGAIN, str(run), "--seed", "3"])
    for words in (["report", str(run)], ["verify", str(run / "distilled.npz")]):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert "is about another distilled.npz than the one beside it" in error
        assert "distilled.npz is whole by its own digest: trust it" in error
    assert main([*AGAIN, str(run), "--seed", "3"]) == 0
    assert main(["report", str(run)]) == 0


def test_report_of_an_older_version_gets_zca_and_noise_from_the_file_beside_it(tmp_path: Path) -> None:
    assert main([*DISTILL, str(tmp_path), "--zca", "--noise", "gaussian"]) == 0
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert (report.pop("zca"), report.pop("noise")) == (True, "gaussian")
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    record = read_run(tmp_path).record
    assert (record.zca, record.noise) == (True, "gaussian")


def edited(file: Path, **changes: Any) -> Path:
    with np.load(file) as archive:
        arrays = dict(archive)
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    np.savez(file.with_name("edited.npz"), **{name: array for name, array in arrays.items() if array is not None})
    return file.with_name("edited.npz")


@pytest.mark.parametrize("name", ["X", "Y", "lambda_s"])
def test_verify_refuses_an_edited_array(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = edited(run / "distilled.npz", **{name: lambda array: array + 1e-9})
    assert main(["verify", str(file)]) == 1
    assert "its content was changed after it was written" in capsys.readouterr().err


def test_verify_refuses_edited_facts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def better(meta: Any) -> Any:
        return np.array(json.dumps({**json.loads(str(meta)), "val_accuracy": 1.0}, sort_keys=True))

    assert main(["verify", str(edited(run / "distilled.npz", meta=better))]) == 1
    assert "its content was changed" in capsys.readouterr().err


def test_verify_says_where_a_file_has_no_digest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(edited(run / "distilled.npz", digest=lambda _: None))]) == 0
    assert "no digest of its content" in capsys.readouterr().err


def test_content_digest_depends_on_every_part_and_on_no_layout() -> None:
    a = np.arange(6.0).reshape(2, 3)
    digests = [content_digest(arrays) for arrays in ({"a": a}, {"b": a}, {"a": a.reshape(3, 2)}, {"a": a.view("i8")})]
    assert len(set(digests)) == 4
    assert content_digest({"a": np.asfortranarray(a)}) == digests[0]


# What errors name


def test_failed_write_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing") as caught:
        write_atomically(tmp_path / "missing" / "a.npz", lambda stream: stream.write(b""))
    assert caught.value.filename == str(tmp_path / "missing" / "a.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="no such files here")
def test_write_to_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(FileExistsError, match="is no plain file; name another"):
        write_atomically(tmp_path / "a", lambda stream: stream.write(b""))
    assert (tmp_path / "a").is_fifo()


def test_write_removes_the_dead_temporaries_of_its_file_and_no_others(tmp_path: Path) -> None:
    dead, other, mine = (tmp_path / name for name in (".a.0123abcd.partial", ".ab.0123abcd.partial", ".a.x.partial"))
    for path in (dead, other, mine):
        path.write_bytes(b"half")

    def interrupted_by_another(stream: Any) -> None:
        write_atomically(tmp_path / "a", lambda inner: inner.write(b"first"))
        stream.write(b"second")

    write_atomically(tmp_path / "a", interrupted_by_another)
    assert contents(tmp_path) == {other.name: b"half", mine.name: b"half", "a": b"second"}


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions here")
def test_write_keeps_the_permissions_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    """What only its owner could read, statistics or held-out samples, was for everybody after the next run."""
    path, seen = tmp_path / "a.npz", list[int]()
    path.write_bytes(b"old")
    path.chmod(0o600)

    def write(stream: Any) -> None:
        seen.append(os.fstat(stream.fileno()).st_mode & 0o777)
        stream.write(b"new")

    write_atomically(path, write)
    beside = tmp_path / "b.npz"
    write_together({beside: lambda to: write_atomically(to, write), path: lambda to: write_atomically(to, write)})
    assert seen == [0o600, beside.stat().st_mode & 0o777, 0o600]
    assert path.stat().st_mode & 0o777 == 0o600
    assert beside.stat().st_mode & 0o077  # a new file has those of the process
    path.chmod(0o644)
    write_atomically(path, write)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions here")
def test_file_of_a_group_that_the_user_is_not_in_is_for_no_other_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o664)

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert path.stat().st_mode & 0o777 == 0o644


def test_name_of_the_greatest_length_is_written_and_its_dead_temporaries_removed(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 251}.npz"
    for content in (b"old", b"new"):
        write_atomically(path, lambda stream, content=content: stream.write(content))
    assert contents(tmp_path) == {path.name: b"new"}
    write_together({tmp_path / "b": lambda to: to.write_bytes(b"b"), path: lambda to: to.write_bytes(b"both")})
    assert contents(tmp_path) == {"b": b"b", path.name: b"both"}

    def leaves_one(stream: Any) -> None:
        (temporary,) = (each for each in tmp_path.iterdir() if each.name.endswith(".partial"))
        (tmp_path / f"{temporary.name[:-16]}01234567.partial").write_bytes(b"half")

    write_atomically(path, leaves_one)
    write_atomically(path, lambda stream: stream.write(b"last"))
    assert contents(tmp_path) == {"b": b"b", path.name: b"last"}


def test_two_files_that_are_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    paths = [tmp_path / name / "a" for name in ("folder", "link")]
    with pytest.raises(ValueError, match="are one file: give each a name of its own"):
        write_together({path: lambda to: to.write_bytes(b"new") for path in paths})
    assert not contents(tmp_path / "folder")


def test_write_begins_again_when_its_new_temporary_is_taken_for_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def lock(descriptor: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()

    monkeypatch.setattr(files, "lock", lock)
    write_atomically(tmp_path / "a", lambda stream: stream.write(b"whole"))
    assert contents(tmp_path) == {"a": b"whole"}
    assert taken


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"", b"\x80\x04]q\x00."])
def test_file_that_is_no_archive_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(kd.DataError, match="another kind of file") as caught:
        kd.DistilledDataset.load(tmp_path / "a.npz")
    assert "pickle" not in str(caught.value)


def test_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"), output_folder(tmp_path / "file", RunKind.DISTILL):
        pass


# Names and encodings


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode here")
def test_any_file_name_and_an_ascii_terminal_do(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/r\xffn \xce\xbb")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    file = os.path.join(folder, "distilled.npz")
    one_process = """
import sys
from krrdistill.apps.cli import main
folder, file = sys.argv[1:3]
for words in (sys.argv[3:] + [folder], ["verify", file], ["report", folder], ["compare", folder, folder], ["info"]):
    status = main(words)
    assert status == 0, words
"""
    command = [sys.executable, "-c", one_process, folder, file, *DISTILL]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"codec" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_shortfall_of_the_identity_says_nothing_of_deep_maps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(WEIGHT_ERROR_TARGETS, "float64", 0.0)
    for kernel, deep in (("identity", False), ("FCNN", True)):
        options = {"hidden_layers": 2} if deep else {}
        result = run_distillation(
            kd.load_dataset("digits"), kernel=kernel, map_options=options, options=kd.DistillOptions(), out=tmp_path
        )
        (said,) = [warning for warning in result.record.warnings if "NOT EXACT" in warning]
        assert ("deep maps" in said) is deep


# What a file may make a terminal, a page or Python do


def test_control_characters_of_a_report_are_spelled_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads((run / "report.json").read_bytes())
    report["dataset"] = "\x1b]0;x\x07\u202e\n"
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert main(["compare", str(run), str(run)]) == 0
    captured = capsys.readouterr()
    assert r"\x1b]0;x\x07\u202e\n" in captured.out
    assert not set("\x1b\x07\u202e") & set(captured.out + captured.err)
    assert main(["report", str(run / "\x1b[2J")]) == 2
    assert r"\x1b[2J" in capsys.readouterr().err


def test_markdown_of_a_table_has_no_tags() -> None:
    section = Section(name="a", title="a", text=("a <img src=x>",), head=("b",), rows=(("<script>\n|", "p < 10"),))
    text = to_markdown(Publication(title="t", passed=True, verdict="v", sections=(section,)))
    assert r"a \<img src=x>" in text
    assert r"| \<script> \| | p < 10 |" in text


def test_own_kernel_takes_the_place_of_no_installed_module(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise SystemExit('a stranger ran')", encoding="utf-8")
    (tmp_path / "own_map.py").write_text("def phi(X):\n    return X\n", encoding="utf-8")
    words = [sys.executable, "-P", "-m", "krrdistill", *DISTILL, "run", "--labels-only", "--init", "real", "--kernel"]
    if sys.version_info < (3, 11):
        words.remove("-P")
        words[1:3] = ["-c", "import sys; sys.path.pop(0); from krrdistill.apps.cli import main; sys.exit(main())"]
    done = subprocess.run([*words, "own_map:phi"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_kill_between_two_files_leaves_no_old_one_beside_a_new_one(tmp_path: Path) -> None:
    out, held = tmp_path / "a.npz", tmp_path / "held.npz"
    words = ["statistics", "--dataset", "digits", "--backend", "array", "--out", str(out), "--held-out", str(held)]
    words += ["--shard", "a", "--seed"]
    assert main([*words, "0"]) == 0
    old = out.read_bytes(), held.read_bytes()
    kill_at_write("held.npz", 1, [*words, "1"])
    assert not out.exists()
    assert held.read_bytes() == old[1]
    kill_at_write("a.npz", 1, [*words, "1"])
    assert not out.exists()
    assert held.read_bytes() != old[1]
    assert main([*words, "1"]) == 0
    assert kd.RidgeStatistics.load(out).n
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "held.npz"]


def test_failed_first_move_of_two_puts_the_old_file_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    last.write_bytes(b"old")
    replace = os.replace

    def failing(source: Any, target: Any) -> None:
        if target == first:
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no"):
        write_together({path: lambda beside: beside.write_bytes(b"new") for path in (first, last)})
    assert last.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
