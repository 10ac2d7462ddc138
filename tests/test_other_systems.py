"""What Windows and macOS lack is absent in a process of its own: imports, every command, locks, printed text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="made of what Linux has")
pytest.importorskip("typer", reason="the cli extra is not installed")
pytest.importorskip("sklearn", reason="the cli extra is not installed")

import other_systems

SYSTEMS = ("windows", "macos")
TESTS = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made of what Linux has")


def run_like(system: str, code: str, folder: Path, *options: str) -> str:
    """What Python code prints in a process that looks like one on ``system``."""
    before = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nimport other_systems\nother_systems.{system}()\n"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, *options, "-c", before + code],
        cwd=folder, capture_output=True, encoding="cp1252", env=environment, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


IMPORTS = """
import importlib, pkgutil
import krrdistill
for found in pkgutil.walk_packages(krrdistill.__path__, "krrdistill."):
    last = found.name.rpartition(".")[2]
    if last == "__main__" or last.startswith("_") or found.name == "krrdistill.interop.ray":  # Ray itself needs POSIX
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        if error.name in other_systems.POSIX_MODULES:
            raise
import krrdistill.common.memory, krrdistill.common.threads
print(hasattr(krrdistill.common.threads.os, "sched_getaffinity"), krrdistill.common.threads.allowed_threads() > 0)
"""


def test_every_module_imports_without_what_only_posix_has(tmp_path: Path) -> None:
    assert run_like("windows", IMPORTS, tmp_path) == "False True\n"


# Every command, on files that the commands before it have written. Files are text in UTF-8 wherever Python writes them.
COMMANDS = """
import warnings
warnings.filterwarnings("error", category=EncodingWarning, module="krrdistill")
import numpy as np
import krrdistill as kd
from krrdistill.apps.cli import main
digits = kd.load_dataset("digits")
for shard in range(2):
    np.savez(f"shard{shard}.npz", X=digits.x_train[shard::2], y=digits.y_train[shard::2])
def run(line):
    print("$ krrdistill", line)
    status = main(line.split())
    assert status == 0, (line, status)
run("info")
run("distill --kernel FCNN --ipc 1 --out one")
run("distill --kernel identity --ipc 2 --init real --store uint8 --out two")
run("verify one/distilled.npz")
run("report one")
run("compare one two --out compare.html")
run("statistics --dataset shard0.npz --classes 10 --kernel FCNN --precision float64 --out a.npz")
run("statistics --dataset shard1.npz --like a.npz --out b.npz")
run("merge a.npz b.npz --out both.npz")
run("subtract both.npz a.npz --out again.npz")
run("distill --statistics both.npz --selection gcv --out three")
run("verify three/distilled.npz --statistics both.npz")
run("kip --iterations 3 --kernel FCNN --out kip")
run("kip --iterations 5 --kernel FCNN --out kip")
run("privacy one/distilled.npz")
run("privacy --mechanism statistics --epsilon 1 --delta 1e-5 --out private")
run("reproduce table3 --datasets digits --kernels identity --ipcs 1 --seeds 0 --out table3")
"""


def test_every_command_runs_without_what_only_posix_or_linux_has(tmp_path: Path) -> None:
    assert {*other_systems.LINUX_NAMES["os"], "sysconf"} <= {*other_systems.POSIX_NAMES["os"]}  # macOS lacks less
    shown = run_like("windows", COMMANDS, tmp_path, "-X", "warn_default_encoding")
    assert shown.count("$ krrdistill") == 17
    for written in ("one/report.html", "compare.html", "kip/report.html", "private/distilled.npz", "table3/cells"):
        assert (tmp_path / written).exists(), written
    assert list(tmp_path.rglob(".krrdistill-lock")) == []


LOCKS = """
import os
from pathlib import Path
from krrdistill.apps.folder import LOCK, OutputError, output_folder
from krrdistill.apps.run_kind import RunKind
from krrdistill.common.files import lock
with open("file", "a+") as first, open("file", "a+") as second:
    first.write("7")
    first.flush()
    lock(first.fileno())
    second.seek(0)
    assert second.read() == "7"  # what is locked is behind what is written
    try:
        lock(second.fileno())
    except OSError:
        print("refused")
    first.close()
    lock(second.fileno())
with output_folder(Path("run"), RunKind.DISTILL):
    try:
        with output_folder(Path("run"), RunKind.DISTILL):
            pass
    except OutputError as error:
        print(str(error).replace(str(os.getpid()), "PID"))
with output_folder(Path("run"), RunKind.DISTILL):
    print((Path("run") / LOCK).exists())
print((Path("run") / LOCK).exists())
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_folder_is_written_by_one_run_at_a_time_with_the_locks_of_each_system(system: str, tmp_path: Path) -> None:
    said = "process PID is writing to run: wait until it ends, or write to another folder"
    assert run_like(system, LOCKS, tmp_path).splitlines() == ["refused", said, "True", "False"]


MEMORY = """
from krrdistill.apps.distillation import peak_memory_bytes
from krrdistill.apps.info import cpu_model
from krrdistill.common.memory import available_bytes
print(type(peak_memory_bytes()).__name__, type(available_bytes()).__name__, bool(cpu_model()))
"""


@pytest.mark.parametrize(("system", "known"), [("windows", "NoneType NoneType True"), ("macos", "int NoneType True")])
def test_memory_is_known_or_said_to_be_unknown(system: str, known: str, tmp_path: Path) -> None:
    assert run_like(system, MEMORY, tmp_path).strip() == known
