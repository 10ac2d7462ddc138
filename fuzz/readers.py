"""Every reader of files against damaged and hostile ones: `make fuzz`.

A file is accepted, or refused with one of the package's own errors; anything else (another exception, more than 1 GB,
more than ten seconds of work, an end of the process) is a finding and is kept. atheris guides the mutations where it is
installed, else they are drawn from a seed. Seeds of the corpus are made by the package itself.

Each run adds a line for each reader to ``runs.jsonl`` of its folder; ``--sum`` makes one table of many such files.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from mutations import mutated

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

GUIDED = "atheris" in sys.argv


def _instrumented() -> AbstractContextManager[Any]:
    """What is imported inside tells atheris which lines an input reaches, where it is asked for."""
    if not GUIDED:
        return nullcontext()
    import atheris

    return atheris.instrument_imports(include=["krrdistill", "zipfile", "tarfile", "gzip", "json"])  # type: ignore


with _instrumented():
    import krrdistill as kd
    from data_files import idx_bytes, pack, python2_pickle, tiny_images
    from krrdistill.apps.cli.config import resolve
    from krrdistill.apps.cli.settings import DistillSettings
    from krrdistill.apps.cli.status import UsageError
    from krrdistill.apps.kip.checkpoint import Look, State, load_checkpoint, save_checkpoint
    from krrdistill.apps.report import matrices, page
    from krrdistill.apps.report.run_folder import read_run
    from krrdistill.apps.reproduce.cells import Cell, Store
    from krrdistill.artifact.file import read_points
    from krrdistill.data.formats import CIFAR_VERSIONS, read_cifar, read_idx
    from krrdistill.errors import KrrDistillError

MEMORY = 1 << 30  # bytes beyond those that the process has when it starts
SECONDS = 10  # of work, for one input
PATIENCE = 120  # seconds beyond those that a target was given
OUTCOMES = ("accepted", "refused", "other", "memory", "hang")
KEPT = 5  # inputs of one finding
NAMED = (b"cos\nsystem\n", b"cnumpy\ndtype\n", b"q\0", b"h\0", b"I1\n", b"\x80\4")
PROMISED = (b"r\xff\xff\xff\x1f", b"j\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"\x8a\xff")
PICKLED = (*(bytes([each]) for each in b"(tRb}]eu.\x93\x94"), *NAMED, *PROMISED)
TYPED = (b"!!int ''", b"!!bool x", b"!!python/object:os.system ", b"2001-99-99", b"0x", b"1_0", b".inf", b"~")
YAML = (
    b"&a ",
    b"*a",
    b"<<: ",
    b"? ",
    b": ",
    b"- ",
    b"---\n",
    b"...\n",
    *(bytes([each]) for each in b"|>\t\n#{}[]'"),
    *TYPED,
)


class Target(NamedTuple):
    """One reader: the name of its file, files that it accepts, and what reads one, given a folder with the file.

    ``words`` : what its format gives a meaning to.
    """

    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]
    words: tuple[bytes, ...] = ()


class Hang(BaseException):
    """An input took longer than ``SECONDS``."""


# ---- the readers and their seeds


def _saved(folder: Path, save: Callable[[Path], Any], *others: Callable[[Path], Any]) -> list[bytes]:
    contents = []
    for number, each in enumerate((save, *others)):
        path = folder / f"{number}.npz"
        each(path)
        contents.append(path.read_bytes())
    return contents


def _samples() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, 4)), np.arange(40) % 2


def _maps() -> list[Any]:
    X, _ = _samples()
    scaling = kd.standardize(X)
    return [
        kd.FCNN(4, [4, 3], preprocessing=scaling),
        kd.RandomFourier(4, 3, sigma2=4.0, preprocessing=scaling),
        kd.OrthogonalFourier(4, sigma2=4.0, preprocessing=scaling),
        kd.Identity(4),
        kd.ConvolutionalNetwork((2, 2, 1), [2], kernel_size=2, padding=0),
    ]


def _distilled(folder: Path) -> list[bytes]:
    X, y = _samples()
    made = [kd.distill(X, y, phi, points_per_class=1, include_weights=True).distilled for phi in _maps()[:4]]
    return _saved(folder, *(each.save for each in made))


def _read_distilled(folder: Path) -> None:
    repr(kd.DistilledDataset.load(folder / "distilled.npz").fit())


def _statistics(folder: Path) -> list[bytes]:
    X, y = _samples()
    made = [kd.RidgeStatistics(phi, classes=2).update(X[:n], y[:n]) for phi in _maps() for n in (2, 40)]
    return _saved(folder, *(each.save for each in made))


def _read_statistics(folder: Path) -> None:
    statistics = kd.RidgeStatistics.load(folder / "statistics.npz")
    if statistics.feature_map.output_dim <= 64:
        kd.fit_model(statistics, 1.0, center="both")


def _model(folder: Path) -> list[bytes]:
    X, y = _samples()
    models = [kd.fit_model(kd.RidgeStatistics(phi, classes=2).update(X, y), 1.0) for phi in _maps()]
    return _saved(folder, *(model.save for model in models))


def _read_model(folder: Path) -> None:
    model = kd.RidgeModel.load(folder / "model.npz")
    if model.feature_map.output_dim <= 64:
        model.predict(np.zeros((2, *model.shape)))


def _held_out(folder: Path) -> list[bytes]:
    X, y = _samples()
    return _saved(folder, kd.HeldOutRows(X, y).save, kd.HeldOutRows(X, y.astype(str), np.ones(40)).save)


def _checkpoint(folder: Path) -> list[bytes]:
    state = State.start(np.ones((2, 3)))
    state.curve.append(Look(0, 1.0, 0.5, 0.1))
    return _saved(folder, lambda path: save_checkpoint(path, state, {"a": 1}))


def _read_checkpoint(folder: Path) -> None:
    try:
        load_checkpoint(folder / "c.npz", {"a": 1}, np.ones((2, 3)))
    except ValueError as error:  # as its docstring says
        if "of another configuration" not in str(error):
            raise
        raise kd.DataError(str(error)) from error


def _run_folder(folder: Path) -> Path:
    """A finished run, in a folder that is made once."""
    from krrdistill.apps.cli import main

    data = folder / "data.npz"
    x, y, x_test, y_test = tiny_images((4, 4), k=2, n_train=40)
    np.savez(data, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    out = folder / "out"
    words = ["distill", "--dataset", str(data), "--kernel", "FCNN", "--lambdas", "1,10", "--backend", "array"]
    if main([*words, "--out", str(out), "--json"]):
        raise RuntimeError("the run for the corpus failed")
    return out


def _report(name: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        out = _run_folder(folder)
        content = out.joinpath(name).read_bytes()
        for path in out.iterdir():
            if path.name != name:
                (folder / path.name).write_bytes(path.read_bytes())
        if name == "report.json":  # else every change of distilled.npz would be refused by its digest
            return [content]
        report = json.loads((out / "report.json").read_bytes())
        report.pop("artifact_sha256", None)
        (folder / "report.json").write_text(json.dumps(report))
        return [content]

    return seeds


def _read_page(folder: Path) -> None:
    """Writes the page of a run with charts that are empty: Matplotlib takes most of the time of one."""
    empty: dict[str, Any] = {"to_svg": lambda *_, **__: ""}
    lines = dict.fromkeys(("lambda_path_figure", "line_figure"), lambda *_, **__: None)
    in_matrices: dict[str, Any] = {**empty, "heat_figure": lambda *_, **__: None}
    in_page: dict[str, Any] = {**empty, **lines}
    with mock.patch.multiple(page, **in_page), mock.patch.multiple(matrices, **in_matrices):
        page.write_page(folder)


def _data(folder: Path) -> list[bytes]:
    x, y, x_test, y_test = tiny_images((3, 3), k=2)
    arrays: dict[str, Any] = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    named = {**arrays, "class_names": np.array(["a", "b"])}
    floats = {**arrays, "x_train": np.asfortranarray(x / 255.0), "x_test": x_test / 255.0}
    return _saved(
        folder,
        lambda path: np.savez(path, **named),
        lambda path: np.savez_compressed(path, **arrays),
        lambda path: np.savez(path, **floats),
    )


def _npy(folder: Path) -> list[bytes]:
    np.save(folder / "labels.npy", np.arange(6))
    contents = []
    for array in (np.arange(12.0).reshape(6, 2), np.asfortranarray(np.ones((6, 3), np.uint8)), np.array(["a", "bc"])):
        stream = io.BytesIO()
        np.save(stream, array)
        contents.append(stream.getvalue())
    return contents


def _read_npy(folder: Path) -> None:
    for each in kd.read_samples(folder / "x.npy", y=str(folder / "labels.npy")):
        np.asarray(each).sum() if each.dtype.kind in "uif" else repr(each)


def _idx(folder: Path) -> list[bytes]:
    content = idx_bytes(np.arange(24).reshape(2, 3, 4))
    return [content, gzip.compress(content, mtime=0)]


def _batch(n: int) -> dict[str, Any]:
    data, labels = np.zeros((n, 3072), np.uint8), [each % 10 for each in range(n)]
    return {"data": data, "labels": labels, "filenames": ["a.png"] * n, "batch_label": "b"}


CIFAR = dataclasses.replace(CIFAR_VERSIONS["cifar10"][0], train=("data_batch_1",))  # the other four are read alike


def _read_cifar(path: Path) -> None:
    read_cifar(path, CIFAR, name="cifar10", class_names=tuple("0123456789"))


def _pickle(folder: Path) -> list[bytes]:
    path = folder / CIFAR.folder
    path.mkdir()
    (path / CIFAR.train[0]).write_bytes(python2_pickle(_batch(10)))
    import pickle

    return [python2_pickle(_batch(1)), pickle.dumps(_batch(1), 2), pickle.dumps(_batch(2), 4)]


def _read_pickle(folder: Path) -> None:
    os.replace(folder / "test_batch", folder / CIFAR.folder / "test_batch")
    _read_cifar(folder / CIFAR.folder)


def _tar(folder: Path) -> list[bytes]:
    _pickle(folder)
    written = folder / CIFAR.folder
    (written / CIFAR.test).write_bytes(python2_pickle(_batch(1)))
    content = pack(written, folder / "packed").read_bytes()
    return [content, gzip.decompress(content)]


def _yaml(folder: Path) -> list[bytes]:
    texts = (
        "data: {dataset: digits}\nmodel: {seed: 1}\ndistill: {IPC: 2, kernel: FCNN}\n",
        "ipc: 3\nlambdas: [1, 10.5]\nkernel: random_fourier\nsigma2: 1e3\n",
    )
    return [text.encode() for text in texts]


def _cell(folder: Path) -> list[bytes]:
    Store(folder).write(_CELL, {"accuracy": 0.5, "seconds": {"total": 1.0}})
    return [Store(folder).path(_CELL).read_bytes()]


_CELL = Cell("digits", "FCNN", 0, 1, "closed_form")
TARGETS: dict[str, Target] = {
    "distilled set": Target("distilled.npz", _distilled, _read_distilled),
    "distilled set, samples only": Target("a.npz", _distilled, lambda folder: read_points(folder / "a.npz")),
    "statistics": Target("statistics.npz", _statistics, _read_statistics),
    "model": Target("model.npz", _model, _read_model),
    "held-out rows": Target("held.npz", _held_out, lambda folder: kd.HeldOutRows.load(folder / "held.npz")),
    "KIP checkpoint": Target("c.npz", _checkpoint, _read_checkpoint),
    "report.json": Target("report.json", _report("report.json"), read_run),
    "figure_data.npz": Target("figure_data.npz", _report("figure_data.npz"), read_run),
    "page of a run": Target("report.json", _report("report.json"), page.write_page),
    "page of a run, empty charts": Target("report.json", _report("report.json"), _read_page),
    "page of its distilled set": Target("distilled.npz", _report("distilled.npz"), page.write_page),
    "page of its distilled set, empty charts": Target("distilled.npz", _report("distilled.npz"), _read_page),
    "cell of a table": Target(Store(Path()).path(_CELL).name, _cell, lambda folder: Store(folder).read(_CELL)),
    "data set .npz": Target("data.npz", _data, lambda folder: kd.load_dataset(folder / "data.npz")),
    "data .npy": Target("x.npy", _npy, _read_npy),
    "IDX": Target("x.idx", _idx, lambda folder: read_idx(folder / "x.idx", ndim=3)),
    "CIFAR pickle": Target("test_batch", _pickle, _read_pickle, PICKLED),
    "CIFAR archive": Target("data.tar.gz", _tar, lambda folder: _read_cifar(folder / "data.tar.gz"), PICKLED),
    "configuration": Target("c.yaml", _yaml, lambda folder: resolve(DistillSettings, {}, folder / "c.yaml"), YAML),
}


# ---- one input, and many


class Found(NamedTuple):
    """What became of one input: its outcome, the line that ended it, and the traceback of a finding."""

    kind: str
    place: str = ""
    text: str = ""


class Watch:
    """Raises Hang in an input that works for too long, or waits for ten times as long, as on a busy machine."""

    def __init__(self) -> None:
        self._work = self._wait = float("inf")  # when an input is late
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)

    def start(self) -> None:
        """Of an input."""
        self._work, self._wait = time.process_time() + SECONDS, time.monotonic() + 10 * SECONDS

    def stop(self) -> float:
        """Seconds of work since ``start``."""
        left, self._work, self._wait = self._work - time.process_time(), float("inf"), float("inf")
        return SECONDS - left

    def _look(self, *_: Any) -> None:
        if time.process_time() > self._work or time.monotonic() > self._wait:
            raise Hang


def outcome(target: Target, folder: Path, content: bytes) -> Found:
    """What becomes of one input, which may end in Hang."""
    with open(folder / target.file, "wb", buffering=0) as stream:
        stream.write(content)
    try:
        target.read(folder)
    except (KrrDistillError, UsageError) as error:
        kind = "memory" if isinstance(error.__cause__, MemoryError) else "refused"
        return Found(kind, _place(error), traceback.format_exc() if kind == "memory" else "")
    except MemoryError as error:
        return Found("memory", _place(error), traceback.format_exc())
    except Exception as error:
        return Found("other", _place(error), traceback.format_exc())
    return Found("accepted")


def _place(error: BaseException) -> str:
    """The kind of an exception and the line that raised it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
    return f"{type(error).__name__} {where}"


class Tally:
    """Counts of one target; findings are written to ``kept``."""

    def __init__(self, name: str, kept: Path, counts: Path) -> None:
        self.name, self.kept, self.counts = name, kept, counts
        self.seen: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.slowest = 0.0

    def add(self, found: Found, content: bytes, seconds: float) -> None:
        """One input that took so many seconds of work."""
        self.seen[found.kind] += 1
        self.slowest = max(self.slowest, seconds)
        if found.place:
            self.places[found.place] += 1
        if found.kind in OUTCOMES[2:] and self.places[found.place] <= KEPT:
            self.kept.mkdir(parents=True, exist_ok=True)
            name = f"{_slug(self.name)}-{found.kind}-{hashlib.sha256(content).hexdigest()[:12]}"
            text = f"{seconds:.1f} s of work\n{found.text}"
            (self.kept / name).write_bytes(content)
            (self.kept / f"{name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        if self.seen.total() % 500 == 0:
            self.write()

    def write(self) -> None:
        """The counts so far: the engine of atheris ends the process itself."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        counts = {**self.seen, "peak_bytes": peak, "slowest": round(self.slowest, 3), "places": len(self.places)}
        self.counts.write_text(json.dumps(counts))


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


class Fuzzed:
    """A target in a folder, with the files of its corpus, under the limits."""

    def __init__(self, name: str, folder: Path) -> None:
        warnings.simplefilter("ignore")
        self.target, self.folder = TARGETS[name], folder
        self.seeds = self.target.seeds(folder)
        for content in self.seeds:
            found = outcome(self.target, folder, content)
            if found.kind != "accepted" and self.target.file != "x.npy":
                raise RuntimeError(f"{name}: a file of the corpus is not accepted: {found}")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        gc.freeze()
        self.watch = Watch()

    def one(self, content: bytes) -> tuple[Found, float]:
        """What becomes of an input, and its seconds of work."""
        try:
            self.watch.start()
            found = outcome(self.target, self.folder, content)
        except Hang as error:
            found = Found("hang", _place(error), traceback.format_exc())
        return found, self.watch.stop()


def fuzz_one(asked: argparse.Namespace) -> None:
    """Many inputs of one target, in this process."""
    name, rng = asked.target[0], random.Random(f"{asked.seed} {asked.target[0]}")
    fuzzed = Fuzzed(name, asked.folder)
    tally = Tally(name, asked.out / "findings", _counts(asked.out, name))
    if asked.engine == "atheris":
        _guided(fuzzed, asked.seconds, asked.seed, tally)
        return
    pool, until = list(fuzzed.seeds), time.monotonic() + asked.seconds
    while time.monotonic() < until:
        content = mutated(pool[int(rng.random() * len(pool))], fuzzed.seeds, rng, fuzzed.target.words)
        found, seconds = fuzzed.one(content)
        if found.kind == "accepted" and len(pool) < 200 and rng.random() < 0.05:
            pool.append(content)
        tally.add(found, content, seconds)
    tally.write()


def _guided(fuzzed: Fuzzed, seconds: float, seed: int, tally: Tally) -> None:
    """atheris chooses the inputs, by the lines that they reach; half of them are mutated as above."""
    import atheris

    corpus = fuzzed.folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(fuzzed.seeds):
        (corpus / str(number)).write_bytes(content)

    def custom(content: bytes, most: int, chosen: int) -> bytes:
        rng = random.Random(chosen)
        if rng.random() < 0.5:
            return mutated(content, fuzzed.seeds, rng, fuzzed.target.words)[:most]
        return bytes(atheris.Mutate(content, most))

    def one(content: bytes) -> None:
        found, worked = fuzzed.one(content)
        tally.add(found, content, worked)

    limits = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=65536", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-verbosity=0"], one, custom_mutator=custom)
    atheris.Fuzz()


def _counts(out: Path, name: str) -> Path:
    return out / f"{_slug(name)}.json"


def run_target(name: str, seconds: float, engine: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One target in a process of its own: what it counted, and ``status``, not 0 where the process ended otherwise.

    The input that ended it is kept: it is still in its folder.
    """
    counts = _counts(asked.out, name)
    counts.unlink(missing_ok=True)
    words = ["--in-process", "--target", name, "--seconds", str(seconds), "--seed", str(asked.seed), "--engine", engine]
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder,
        counts.with_suffix(".log").open("wb") as log,  # atheris says much
    ):
        words += ["--out", str(asked.out), "--folder", folder]
        status = _ended([sys.executable, __file__, *words], log, seconds + PATIENCE)
        last = Path(folder) / TARGETS[name].file
        if status and last.is_file():
            (asked.out / "findings").mkdir(exist_ok=True)
            shutil.copy(last, asked.out / "findings" / f"{_slug(name)}-ended-{status}-seed-{asked.seed}")
    found = json.loads(counts.read_text()) if counts.exists() else {}
    found["hang" if status == "stuck" else "other"] = found.get("hang" if status == "stuck" else "other", 0) + bool(
        status
    )
    return {"reader": name, "seed": asked.seed, "engine": engine, "seconds": seconds, "status": status, **found}


def _ended(words: list[str], log: Any, seconds: float) -> int | str:
    """The status of a process; "stuck" of one that had to be ended, as when it never comes back from a call."""
    try:
        return subprocess.run(words, stdout=log, stderr=log, check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return "stuck"


def table(runs: Iterable[dict[str, Any]]) -> str:
    """Markdown of all runs together, a row for each reader."""
    of_reader: dict[str, list[dict[str, Any]]] = {name: [] for name in TARGETS}
    for run in runs:
        of_reader[run["reader"]].append(run)
    rows, sums = [], [0] * len(OUTCOMES)
    for name, found in of_reader.items():
        seen = [sum(run.get(kind, 0) for run in found) for kind in OUTCOMES]
        sums = [a + b for a, b in zip(sums, seen, strict=True)]
        peak, slowest = (max((run.get(key, 0) for run in found), default=0) for key in ("peak_bytes", "slowest"))
        if found:
            rows.append((name, sum(seen), *seen, f"{peak / 1e6:.0f} MB", f"{slowest:.1f} s"))
    rows.append(("all", sum(sums), *sums, "", ""))
    lines = ["| reader | inputs | " + " | ".join(OUTCOMES) + " | peak memory | slowest |", "|---|" + "--:|" * 8]
    lines += ["| " + " | ".join(f"{each:,}" if isinstance(each, int) else each for each in row) + " |" for row in rows]
    return "\n".join(lines)


def replay(asked: argparse.Namespace) -> None:
    """Prints what becomes of the input in a file."""
    with tempfile.TemporaryDirectory() as folder:
        fuzzed = Fuzzed(asked.target[0], Path(folder))
        found, seconds = fuzzed.one(asked.replay.read_bytes())
    print(f"{found.kind} after {seconds:.2f} s of work: {found.place}\n{found.text}")


def main() -> int:
    """Fuzzes every target, or some of them, and prints a table of what became of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["auto", "mutator", "atheris"], default="auto")
    parser.add_argument("--target", choices=list(TARGETS), action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--sum", type=Path, nargs="+", metavar="RUNS", help="only print the table of runs that were")
    parser.add_argument("--replay", type=Path, metavar="INPUT", help="only read this file, by the target")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.sum:
        print(table(json.loads(line) for path in asked.sum for line in path.read_text().splitlines()))
        return 0
    if asked.replay or asked.in_process:
        (replay if asked.replay else fuzz_one)(asked)
        return 0
    installed = importlib.util.find_spec("atheris") is not None
    engine = ("atheris" if installed else "mutator") if asked.engine == "auto" else asked.engine
    asked.out.mkdir(parents=True, exist_ok=True)
    chosen, runs = asked.target or list(TARGETS), []
    for name in chosen:
        runs.append(run_target(name, asked.seconds / len(chosen), engine, asked))
        with (asked.out / "runs.jsonl").open("a") as lines:
            lines.write(json.dumps(runs[-1]) + "\n")
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    print(table(runs))
    return int(any(run["status"] or not run.get("refused") or any(map(run.get, OUTCOMES[2:])) for run in runs))


if __name__ == "__main__":
    raise SystemExit(main())
