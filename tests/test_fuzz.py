"""The fuzzer of the readers: what it changes fits again, and what it finds is counted and kept."""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
pytestmark = [
    pytest.mark.skipif(not FUZZ.is_dir(), reason="needs the repository"),
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGALRM"),
]


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FUZZ))
    return importlib.import_module("readers")


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, X=np.ones((3, 2)), meta=np.array('{"a": [1, 2.5], "b": "text"}'))
    return stream.getvalue()


def _whole(content: bytes) -> bool:
    """Whether every member of an archive has the sum that the directory tells."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except Exception:
        return False


def test_mutations_differ_and_most_archives_stay_whole(readers: Any) -> None:
    seed = _npz()
    changed = [readers.mutated(seed, [seed], Random(number)) for number in range(300)]
    assert changed == [readers.mutated(seed, [seed], Random(number)) for number in range(300)]
    assert len(set(changed)) > 250
    assert 150 < sum(map(_whole, changed)) < 300


def test_input_that_works_for_too_long_is_a_hang_and_is_kept(
    readers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(folder: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(readers, "SECONDS", 0.1)
    monkeypatch.setattr(readers.gc, "freeze", lambda: None)
    monkeypatch.setattr(readers.resource, "setrlimit", lambda *_: None)
    monkeypatch.setitem(readers.TARGETS, "endless", readers.Target("a", lambda _: [], endless))
    alarm = readers.signal.getsignal(readers.signal.SIGALRM)
    try:
        found, seconds = readers.Fuzzed("endless", tmp_path).one(b"input")
    finally:
        readers.signal.setitimer(readers.signal.ITIMER_REAL, 0.0)
        readers.signal.signal(readers.signal.SIGALRM, alarm)
    assert found.kind == "hang"
    assert seconds > 0.1
    tally = readers.Tally("endless", tmp_path / "kept", tmp_path / "counts.json")
    tally.add(found, b"input", seconds)
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.suffix for path in kept] == ["", ".txt"]
    assert kept[0].read_bytes() == b"input"


def test_table_sums_runs_of_a_reader(readers: Any) -> None:
    run = {"reader": "IDX", "accepted": 1, "refused": 1999, "peak_bytes": 3_000_000, "slowest": 0.04}
    rows = readers.table([run, {**run, "hang": 1, "slowest": 12.0}]).splitlines()
    assert rows[2:] == [
        "| IDX | 4,001 | 2 | 3,998 | 0 | 0 | 1 | 3 MB | 12.0 s |",
        "| all | 4,001 | 2 | 3,998 | 0 | 0 | 1 |  |  |",
    ]
