"""One data set on six ways into statistics: equal models, the same lambda, exact points; and how fast the engines are.

    pip install ".[bench,dask,ray]" torch
    python benchmarks/travel.py --data-dir ../shared/data --repeats 5

The ways: one call, a DataLoader, eight saved shards merged in shuffled order, Dask, Ray, two processes of
torch.distributed. The data: CIFAR-100 (FCNN, two precisions), and 2 000 000 x 512 embeddings in float16 that are made
here. Every way runs in a process of its own. Efficiency: two workers of one thread each against one process with two
threads, on the same rows, in alternation; the start of a cluster is not counted, reading is. Writes
results/travel.json and docs/measured/travel.md.
"""

from __future__ import annotations

import argparse
import json
import statistics as averages
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from large import SHARDS, K, batches, write_shards
from machine import machine_facts, measured_on, one_line

CHUNKS = 8
"""Files of the shards, and parts of a data set that processes read at a time."""
LEAST_ROWS = 3
"""Rows of a part that Dask and Ray read, in features at least (docs/guide/clusters.md)."""
GOAL = 0.85
"""Efficiency of two workers."""
Array = Any
D = 512  # features of the embeddings
_WAYS_TEXT = (
    "Training rows on six ways into statistics, each in processes of its own; then λ by the same held-out rows, and "
    "one point per class. *Difference*: ‖W − W₁‖ / ‖W₁‖ against one call of `update`.\n"
)
_EFFICIENCY_TEXT = (
    "Seconds of the pass in float32, median of the runs (all runs in `results/travel.json`), reading and reduction "
    "included, the start of the cluster not. Dask and Ray read at most eight parts of the rows, of three times as many "
    "rows as features at least. *Efficiency*: median ratio of the runs beside each other.\n"
)


class Source:
    """Rows in files, which every process opens by itself: X as .npy of any type, y as integers."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.n, self.k, self.kernel = facts["n"], facts["k"], facts["kernel"]
        self.engine_chunks = min(CHUNKS, max(2, self.n // (LEAST_ROWS * facts["p"])) // 2 * 2)

    def arrays(self) -> tuple[Array, Array]:
        """All training rows, as memory maps."""
        return (np.load(self.folder / f"{self.name}_{part}.npy", mmap_mode="r") for part in "xy")  # type: ignore[return-value]

    def chunk(self, number: int, count: int = CHUNKS) -> tuple[Array, Array]:
        """One of so many parts, in order."""
        X, y = self.arrays()
        rows = slice(self.n * number // count, self.n * (number + 1) // count)
        return X[rows], np.array(y[rows])

    def held(self) -> kd.HeldOutRows:
        """The rows that lambda is chosen by."""
        return kd.HeldOutRows.load(self.folder / f"{self.name}_held.npz")

    def feature_map(self) -> kd.FeatureMap:
        """The map, which a file of statistics describes."""
        return kd.RidgeStatistics.load(self.folder / f"{self.name}_empty.npz").feature_map

    def empty(self, precision: str, shard: str | None = None) -> kd.RidgeStatistics:
        """Statistics of nothing."""
        return kd.RidgeStatistics(self.feature_map(), self.k, precision=precision, shard=shard)


def prepare(folder: Path, name: str, data_dir: Path | None, rows: int) -> None:
    """The files of a source."""
    if name == "embeddings":
        write_shards(folder, rows, D)
        parts = list(batches(folder, rows))
        X, y = (np.concatenate(each) for each in zip(*parts, strict=True))
        phi: kd.FeatureMap = kd.Identity(D)
        k, held = K, 2000
        for shard in range(SHARDS):
            (folder / f"x{shard}.npy").unlink()
    else:
        data = kd.load_dataset(name, data_dir=data_dir)
        X, y, k, held = data.x_train, data.y_train, data.n_classes, len(data.y_train) // 20
        phi = kd.make_map("FCNN", data, kd.standardize(data))
        np.savez(folder / f"{name}_test.npz", X=data.x_test, y=data.y_test)
    np.save(folder / f"{name}_x.npy", X[held:])
    np.save(folder / f"{name}_y.npy", y[held:])
    kd.HeldOutRows(X[:held], y[:held]).save(folder / f"{name}_held.npz")
    kd.RidgeStatistics(phi, k).save(folder / f"{name}_empty.npz")
    facts = {"n": len(X) - held, "k": k, "kernel": phi.kernel, "p": phi.output_dim}
    (folder / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")


# The ways


def _timed(total: kd.RidgeStatistics, start: float) -> tuple[kd.RidgeStatistics, float]:
    """Statistics and the seconds since the start. G as a matrix is included: some ways leave it packed until then."""
    total.gram  # noqa: B018
    return total, time.perf_counter() - start


def one_call(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """``update`` of all rows."""
    X, y = source.arrays()
    total, start = source.empty(precision), time.perf_counter()
    return _timed(total.update(X, np.array(y)), start)


def loader(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """A DataLoader that draws batches of 1000 rows."""
    import torch

    class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.X, self.y = source.arrays()

        def __len__(self) -> int:
            return len(self.y)

        def __getitem__(self, rows: list[int]) -> tuple[Any, Any]:
            return torch.from_numpy(self.X[rows]), torch.from_numpy(self.y[rows])

    rows = Rows()
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(rows), 1000, drop_last=False)
    total, start = source.empty(precision), time.perf_counter()
    total.update_batches(torch.utils.data.DataLoader(rows, sampler=sampler, batch_size=None))
    return _timed(total, start)


def shards(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """Eight files, merged in shuffled order."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(CHUNKS):
            source.empty(precision, f"shard {number}").update(*source.chunk(number)).save(f"{folder}/{number}.npz")
        order = np.random.default_rng(0).permutation(CHUNKS).tolist()
        total: Any = sum(kd.RidgeStatistics.load(f"{folder}/{number}.npz") for number in order)
        return _timed(total, start)


def dask(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """Two processes of Dask, delayed batches."""
    import distributed
    from dask import delayed

    from krrdistill.interop.dask import statistics_of_batches

    phi = source.feature_map()
    engine: Any = distributed
    with (
        engine.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        engine.Client(cluster) as client,
    ):
        client.run(_first_rows, source)  # workers import and load, as in a cluster that runs
        start = time.perf_counter()
        count = source.engine_chunks
        parts = [delayed(source.chunk)(number, count) for number in range(count)]
        total = statistics_of_batches(parts, phi, source.k, precision=precision, threads=1)
        return _timed(total, start)


def _first_rows(source: Source) -> None:
    """What a worker does once: imports, the compiled core, BLAS."""
    import krrdistill.interop.dask  # noqa: F401

    X, y = source.chunk(0)
    source.empty("float32").update(X[:16], y[:16])


def ray(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """Two tasks of Ray at a time, on a data set of row numbers."""
    import ray as engine

    from krrdistill.interop.ray import statistics

    def read(rows: dict[str, Any]) -> dict[str, Any]:
        X, y = source.arrays()
        picked = slice(int(rows["id"][0]), int(rows["id"][-1]) + 1)
        return {"x": np.asarray(X[picked]), "y": np.asarray(y[picked])}

    phi = source.feature_map()
    engine.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    data = engine.data.range(source.n, override_num_blocks=source.engine_chunks).map_batches(read, batch_size=8192)
    few = engine.data.range(64, override_num_blocks=4).map_batches(read)
    statistics(few, phi, source.k, x="x", y="y", workers=2, batch_size=16)  # starts the workers, which import
    start = time.perf_counter()
    total = statistics(data, phi, source.k, x="x", y="y", precision=precision, workers=2, threads=1)
    timed = _timed(total, start)
    engine.shutdown()
    return timed


def torch(source: Source, precision: str) -> tuple[kd.RidgeStatistics, float]:
    """Two processes of torch.distributed, one all_reduce; the slower one's time, from a barrier on."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--rank", folder, str(source.folder), source.name, precision]
        ranks = [subprocess.Popen([*words, str(rank)]) for rank in range(2)]
        if sum(rank.wait() != 0 for rank in ranks):
            raise RuntimeError("a rank failed")
        seconds = max(float(Path(folder, f"{rank}.txt").read_text(encoding="ascii")) for rank in range(2))
        return kd.RidgeStatistics.load(Path(folder, "total.npz")), seconds


def rank_child(folder: Path, source: Source, precision: str, rank: int) -> None:
    """One of the two processes."""
    import torch.distributed as group

    from krrdistill.common.threads import limited_threads
    from krrdistill.interop.torch_distributed import all_reduce

    group.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    own = source.empty(precision, f"rank {rank}")
    group.barrier()
    start = time.perf_counter()
    with limited_threads(1):
        half = range(rank * CHUNKS // 2, (rank + 1) * CHUNKS // 2)
        own.update_batches(source.chunk(number) for number in half)
        total, seconds = _timed(all_reduce(own), start)
    (folder / f"{rank}.txt").write_text(str(seconds), encoding="ascii")
    if rank == 0:
        total.save(folder / "total.npz")
    group.destroy_process_group()


WAYS: dict[str, Callable[[Source, str], tuple[kd.RidgeStatistics, float]]] = {
    "one call": one_call,
    "DataLoader": loader,
    "8 shards": shards,
    "Dask": dask,
    "Ray": ray,
    "torch.distributed": torch,
}
ENGINES = ("Dask", "Ray", "torch.distributed")


def travelled(folder: Path, name: str, precision: str, way: str) -> float:
    """Runs one way in a process of its own, which writes its statistics; the seconds of the pass."""
    words = [sys.executable, __file__, "--way", way, str(folder), name, precision]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def compare(folder: Path, name: str, precision: str) -> Iterator[dict[str, Any]]:
    """Every way against the first."""
    source = Source(folder, name)
    first: kd.RidgeModel | None = None
    for way in WAYS:
        seconds = travelled(folder, name, precision, way)
        total = kd.RidgeStatistics.load(folder / "total.npz")
        model = kd.fit_model(total, validation=source.held())
        points = kd.distill_model(model)
        first = first or model
        yield {
            "source": name,
            "precision": precision,
            "way": way,
            "n": total.n,
            "seconds": seconds,
            "difference": float(np.linalg.norm(model.W - first.W) / np.linalg.norm(first.W)),
            "lambda": model.lambda_,
            "weight_error": points.weight_error,
        }


def efficiency(folder: Path, name: str, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each engine beside those of one process, in alternation."""
    taken: dict[str, list[float]] = {way: [] for way in ("one call", *ENGINES)}
    for _ in range(repeats):
        for way, seconds in taken.items():
            seconds.append(travelled(folder, name, "float32", way))
    return [
        {
            "source": name,
            "way": way,
            "seconds": taken[way],
            "efficiency": averages.median(
                one / engine for one, engine in zip(taken["one call"], taken[way], strict=True)
            ),
        }
        for way in ENGINES
    ]


def _machines(rows: list[dict[str, Any]]) -> str:
    return "\n" + measured_on(rows, lambda row: row["source"])


def page(results: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    lines = [
        "# Many ways to the same model\n",
        _WAYS_TEXT,
        "| data, precision | way | difference | λ | weight error of the points |",
        "|---|---|---|---|---|",
    ]
    for row in results["ways"]:
        lines.append(
            f"| {row['source']} ({row['n']:,} rows), {row['precision']} | {row['way']} | {row['difference']:.1e} | "
            f"{row['lambda']:.3g} | {row['weight_error']:.1e} |"
        )
    lines += [
        _machines(results["ways"]),
        "\n## Two workers of one thread against one process of two\n",
        _EFFICIENCY_TEXT,
        f"| data | way | seconds | efficiency, goal {GOAL} |",
        "|---|---|---|---|",
    ]
    for row in results["efficiency"]:
        middle = averages.median(row["seconds"])
        missed = "" if row["efficiency"] >= GOAL else " **missed**"
        lines.append(f"| {row['source']} | {row['way']} | {middle:.1f} | {row['efficiency']:.3f}{missed} |")
    lines.append(_machines(results["efficiency"]))
    lines.append("\n[Where the time goes](../explanation/performance.md#workers-of-dask-and-ray).")
    lines.append("\nWritten by `benchmarks/travel.py`.\n")
    return "\n".join(lines)


def main() -> None:
    """Measures; or is one of the processes (``--way``, ``--rank``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sources", default="cifar100,embeddings")
    parser.add_argument("--rows", type=int, default=2_000_000, help="embeddings")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", default="ways,efficiency")
    parser.add_argument("--out", type=Path, default=Path("docs/measured"))
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--way", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--rank", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        folder, data, name, precision, rank = options.rank
        rank_child(Path(folder), Source(Path(data), name), precision, int(rank))
        return
    if options.way:
        way, folder, name, precision = options.way
        total, seconds = WAYS[way](Source(Path(folder), name), precision)
        total.save(Path(folder) / "total.npz")
        print(seconds)
        return
    store = options.results / "travel.json"
    stored = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    results = {"ways": [], "efficiency": [], **stored}
    here = one_line(machine_facts())
    names = options.sources.split(",")
    for part in options.parts.split(","):
        results[part] = [row for row in results[part] if row["source"] not in names]
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            prepare(Path(scratch), name, options.data_dir, options.rows)
            for part in options.parts.split(","):
                found = _part(part, Path(scratch), name, options.repeats)
                results[part] += [{**row, "machine": here} for row in found]
                options.results.mkdir(parents=True, exist_ok=True)
                store.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                (options.out / "travel.md").write_text(page(results), encoding="utf-8")


def _part(part: str, folder: Path, name: str, repeats: int) -> Iterator[dict[str, Any]]:
    if part == "efficiency":
        yield from efficiency(folder, name, repeats)
        return
    for precision in ("float64", "float32"):
        yield from compare(folder, name, precision)


if __name__ == "__main__":
    main()
