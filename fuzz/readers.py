"""Every reader of files against damaged and hostile ones: `make fuzz`.

A file is accepted, or refused with one of the package's own errors; anything else (another exception, more than 1 GB,
more than ten seconds of work) is a finding and is kept. atheris guides the mutations where it is installed, else they
are drawn from a seed. Seeds of the corpus are made by the package itself.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
    from data_files import idx_bytes, pack, python2_pickle, tiny_images, write_cifar_python
    from krrdistill.apps.cli.config import resolve
    from krrdistill.apps.cli.settings import DistillSettings
    from krrdistill.apps.cli.status import UsageError
    from krrdistill.apps.kip.checkpoint import Look, State, load_checkpoint, save_checkpoint
    from krrdistill.apps.report.page import write_page
    from krrdistill.apps.report.run_folder import read_run
    from krrdistill.apps.reproduce.cells import Cell, Store
    from krrdistill.artifact.file import read_points
    from krrdistill.data.formats import CIFAR_VERSIONS, read_cifar, read_idx
    from krrdistill.errors import KrrDistillError

MEMORY = 1 << 30  # bytes beyond those that the process has when it starts
SECONDS = 10
PATIENCE = 120  # seconds beyond those that a target was given
OUTCOMES = ("accepted", "refused", "other", "memory", "hang")
INTERESTING = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
NUMBERS = ("0", "-1", "1e999", "NaN", "10000000", "9" * 40, "1.5")
WORDS = (*NUMBERS, "null", "true", "[]", "{}", '"\\ud800"', '"\\u001b[31m"')


class Target(NamedTuple):
    """One reader: the name of its file, files that it accepts, and what reads one, given a folder with the file."""

    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], Any]


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
    return {"data": np.zeros((n, 3072), np.uint8), "labels": [3] * n, "filenames": ["a.png"] * n, "batch_label": "b"}


def _pickle(folder: Path) -> list[bytes]:
    write_cifar_python(folder, "cifar10", tiny_images((32, 32, 3), n_train=10, n_test=1))
    import pickle

    return [python2_pickle(_batch(1)), pickle.dumps(_batch(1), 2), pickle.dumps(_batch(2), 4)]


def _read_pickle(folder: Path) -> None:
    path = folder / "cifar-10-batches-py"
    (path / "test_batch").write_bytes((folder / "test_batch").read_bytes())
    read_cifar(path, CIFAR_VERSIONS["cifar10"][0], name="cifar10", class_names=tuple("0123456789"))


def _tar(folder: Path) -> list[bytes]:
    written = write_cifar_python(folder, "cifar10", tiny_images((32, 32, 3), n_train=10, n_test=1))
    content = pack(written, folder / "packed").read_bytes()
    return [content, gzip.decompress(content)]


def _read_tar(folder: Path) -> None:
    read_cifar(folder / "data.tar.gz", CIFAR_VERSIONS["cifar10"][0], name="cifar10", class_names=tuple("0123456789"))


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
    "page of a run": Target("report.json", _report("report.json"), write_page),
    "page of its distilled set": Target("distilled.npz", _report("distilled.npz"), write_page),
    "cell of a table": Target(Store(Path()).path(_CELL).name, _cell, lambda folder: Store(folder).read(_CELL)),
    "data set .npz": Target("data.npz", _data, lambda folder: kd.load_dataset(folder / "data.npz")),
    "data .npy": Target("x.npy", _npy, _read_npy),
    "IDX": Target("x.idx", _idx, lambda folder: read_idx(folder / "x.idx", ndim=3)),
    "CIFAR pickle": Target("test_batch", _pickle, _read_pickle),
    "CIFAR archive": Target("data.tar.gz", _tar, _read_tar),
    "configuration": Target("c.yaml", _yaml, lambda folder: resolve(DistillSettings, {}, folder / "c.yaml")),
}


# ---- mutations


def mutated(content: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """One mutation, of what is inside of an archive as often as of its bytes."""
    if rng.random() < 0.6:
        for inside in (_inside_zip, _inside_gzip):
            found = inside(content, rng)
            if found is not None:
                return found
    return _bytes(content, rng.choice(seeds), rng)


def _inside_zip(content: bytes, rng: random.Random) -> bytes | None:
    """The same archive with one member, or its entry in the directory, changed, and everything else made to fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return None
    if not members:
        return None
    at = rng.randrange(len(members))
    name, body = members[at]
    choice = rng.random()
    if choice < 0.08:
        members.append((rng.choice([name, "extra.npy", "a", "../x.npy", "x\x1b[31m.npy"]), body))
    elif choice < 0.12:
        del members[at]
    else:
        members[at] = (name, _npy_changed(body, rng))
    stream = io.BytesIO()
    method = rng.choice([zipfile.ZIP_STORED] * 5 + [zipfile.ZIP_DEFLATED] * 2 + [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(stream, "w", method) as archive:
        for each, written in members:
            archive.writestr(each, written)
    return stream.getvalue()


def _npy_changed(body: bytes, rng: random.Random) -> bytes:
    """A .npy file whose header or numbers changed; the text of a JSON member as text."""
    try:
        array = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception:
        return _bytes(body, body, rng)
    choice = rng.random()
    if array.dtype.kind == "U" and array.ndim == 0 and choice < 0.8:
        array = np.array(_text(str(array), rng))
    elif choice < 0.3 and array.size and array.dtype.kind == "f":
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, 0.0, -1.0, 1e308, 1e-308, 1e160])
    elif choice < 0.5:
        kinds = [np.float32, np.float64, np.int64, np.uint8, bool, ">f8", "U3", "S2", complex, "i4,f4", "M8[s]", object]
        shape = tuple(rng.choice([0, 1, 2, 3, 4, 40]) for _ in range(rng.randrange(4)))
        array = np.zeros(shape, rng.choice(kinds))
    else:
        return _bytes(body[:128], body, rng) + body[128:]
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def _inside_gzip(content: bytes, rng: random.Random) -> bytes | None:
    if content[:2] != b"\x1f\x8b":
        return None
    try:
        inner = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None
    return gzip.compress(_bytes(inner, inner, rng), compresslevel=1, mtime=0)


def _text(text: str, rng: random.Random) -> str:
    """A JSON text with some of its values replaced, or with its letters changed."""
    if rng.random() < 0.2:
        return _bytes(text.encode("utf-8", "replace"), b"", rng).decode("latin1")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _bytes(b" " + text.encode("utf-8", "replace"), b"", rng).decode("latin1")
    places = list(_places(document))
    for _ in range(rng.randrange(1, 4)):
        if places:
            holder, key = rng.choice(places)
            try:
                if rng.random() < 0.15:
                    del holder[key]
                elif rng.random() < 0.3:
                    holder[key] = rng.choice(places)[0]
                else:
                    holder[key] = json.loads(rng.choice(WORDS))
            except (KeyError, IndexError):
                continue
    try:
        return json.dumps(document)
    except (ValueError, RecursionError):  # it holds itself
        return "[" * rng.choice([65, 1000, 100000])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(pairs):
        yield value, key
        yield from _places(each)


def _bytes(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, moved, repeated, left out, or taken from another file."""
    changed = bytearray(content)
    if changed[:1] in (b"{", b"[") and rng.random() < 0.7:
        return _text(content.decode("utf-8", "replace"), rng).encode("utf-8", "replace")
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at, length = rng.randrange(len(changed) + 1), rng.choice([1, 2, 4, 8, 32, 256])
        start, width = rng.randrange(len(other) + 1), rng.choice([1, 2, 4, 8])
        number = (rng.choice(INTERESTING) % (1 << 8 * width)).to_bytes(width, rng.choice(["little", "big"]))
        here = bytes(changed[at : at + length])
        left_out, put = rng.choice(
            [
                (1, bytes([rng.randrange(256)])),
                (1, bytes([here[0] ^ 1 << rng.randrange(8)]) if here else b""),
                (width, number),
                (length, b""),
                (0, here * rng.choice([1, 2, 16])),
                (length, other[start : start + length]),
                (0, rng.choice(WORDS).encode()),
                (len(changed), b""),
            ]
        )
        changed[at : at + left_out] = put
    return bytes(changed)


# ---- one input, and many


@contextmanager
def limited() -> Iterator[None]:
    """Raises Hang in the block when it works for too long, or waits for ten times as long, as on a busy machine."""
    began, worked = time.monotonic(), time.process_time()

    def late(*_: Any) -> None:
        if time.process_time() - worked > SECONDS or time.monotonic() - began > 10 * SECONDS:
            raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(target: Target, folder: Path, content: bytes) -> tuple[str, str]:
    """What becomes of one input: its outcome, and the traceback of a finding."""
    (folder / target.file).write_bytes(content)
    try:
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder)
    except (KrrDistillError, UsageError) as error:
        return ("memory" if "fit in memory" in str(error) else "refused"), ""
    except MemoryError:
        return "memory", traceback.format_exc()
    except Hang:
        return "hang", traceback.format_exc()
    except Exception:
        return "other", traceback.format_exc()
    return "accepted", ""


class Tally:
    """Counts of one target; findings are written to ``kept``."""

    def __init__(self, name: str, kept: Path, counts: Path) -> None:
        self.name, self.kept, self.counts = name, kept, counts
        self.seen: Counter[str] = Counter()
        self.places: Counter[str] = Counter()

    def add(self, found: tuple[str, str], content: bytes) -> None:
        """One input."""
        kind, text = found
        self.seen[kind] += 1
        if kind in OUTCOMES[2:]:
            place = f"{kind}: {text.strip().splitlines()[-1][:100] if text else ''}"
            self.places[place] += 1
            if self.places[place] == 1:
                self.kept.mkdir(parents=True, exist_ok=True)
                path = self.kept / f"{self.name.replace(' ', '-')}-{len(self.places)}"
                path.write_bytes(content)
                path.with_name(f"{path.name}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
        if sum(self.seen.values()) % 500 == 0:
            self.write()

    def write(self) -> None:
        """The counts so far: the engine of atheris ends the process itself."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.counts.write_text(json.dumps({**self.seen, "peak_bytes": peak}))


def fuzz_one(name: str, seconds: float, seed: int, engine: str, kept: Path, counts: Path) -> None:
    """Many inputs of one target, in this process."""
    target, rng = TARGETS[name], random.Random(f"{seed} {name}")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        folder = Path(made)
        seeds = target.seeds(folder)
        tally = Tally(name, kept, counts)
        for content in seeds:
            kind, text = outcome(target, folder, content)
            if kind != "accepted" and target.file != "x.npy":
                raise RuntimeError(f"{name}: a file of the corpus is not accepted: {kind} {text}")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        if engine == "atheris":
            _guided(target, folder, seeds, seconds, seed, tally)
            return
        pool, until = list(seeds), time.monotonic() + seconds
        while time.monotonic() < until:
            content = mutated(rng.choice(pool), seeds, rng)
            found = outcome(target, folder, content)
            if found[0] == "accepted" and len(pool) < 200 and rng.random() < 0.05:
                pool.append(content)
            tally.add(found, content)
        tally.write()


def _guided(target: Target, folder: Path, seeds: list[bytes], seconds: float, seed: int, tally: Tally) -> None:
    """atheris chooses the inputs, by the lines that they reach; half of them are mutated as above."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)

    def custom(content: bytes, most: int, chosen: int) -> bytes:
        rng = random.Random(chosen)
        if rng.random() < 0.5:
            return bytes(mutated(content, seeds, rng))[:most]
        return bytes(atheris.Mutate(content, most))

    def one(content: bytes) -> None:
        tally.add(outcome(target, folder, content), content)

    limits = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=65536", "-rss_limit_mb=0"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-verbosity=0"], one, custom_mutator=custom)
    atheris.Fuzz()


def _ended(words: list[str], log: Any, seconds: float) -> int | str:
    """The status of a process; "stuck" of one that had to be ended, as when its engine fails."""
    try:
        return subprocess.run(words, stdout=log, stderr=log, check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return "stuck"


def main() -> int:
    """Fuzzes every target, or one of them, and prints a table of what became of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["auto", "mutator", "atheris"], default="auto")
    parser.add_argument("--target", choices=list(TARGETS))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    chosen = [asked.target] if asked.target else list(TARGETS)
    counts = {name: asked.out / f"{name.replace(' ', '-')}.json" for name in chosen}
    if asked.in_process:
        warnings.simplefilter("ignore")  # of zipfile, about names that are there twice
        fuzz_one(asked.target, asked.seconds, asked.seed, asked.engine, asked.out / "findings", counts[asked.target])
        return 0
    installed = importlib.util.find_spec("atheris") is not None
    engine = ("atheris" if installed else "mutator") if asked.engine == "auto" else asked.engine
    asked.out.mkdir(parents=True, exist_ok=True)
    failed, rows, each = False, [], asked.seconds / len(chosen)
    for name in chosen:
        counts[name].unlink(missing_ok=True)
        words = ["--in-process", "--target", name, "--seconds", str(each), "--seed", str(asked.seed)]
        words += ["--engine", engine, "--out", str(asked.out)]
        with counts[name].with_suffix(".log").open("wb") as log:  # atheris says much
            status = _ended([sys.executable, __file__, *words], log, each + PATIENCE)
        found = json.loads(counts[name].read_text()) if counts[name].exists() else {}
        seen = [found.get(kind, 0) for kind in OUTCOMES]
        failed |= status != 0 or not sum(seen) or any(seen[2:])
        rows.append((name, sum(seen), *seen, f"{found.get('peak_bytes', 0) / 1e6:.0f} MB"))
        shown = dict(zip(OUTCOMES, seen, strict=True))
        said = f", see {counts[name].with_suffix('.log')}" if status else ""
        print(f"{name}: {shown}, status {status}{said}", file=sys.stderr, flush=True)
    print("| reader | inputs | " + " | ".join(OUTCOMES) + " | peak memory |")
    print("|---|" + "--:|" * (len(OUTCOMES) + 2))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(f"| all | {' | '.join(str(sum(row[column] for row in rows)) for column in range(1, len(OUTCOMES) + 2))} | |")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
