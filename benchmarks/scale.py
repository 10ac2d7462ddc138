"""How long 10^9 rows should take on one GPU, on a cluster, on CPU nodes: an estimate from arithmetic and datasheets.

    python benchmarks/scale.py [--rows 1000000000] [--d 1024] [--k 100]

Nothing here was measured but the rate of a CPU core, which is asked of this machine. Prints the table of
docs/measured/scale.md.
A pass takes as long as the slower of its products and its reading, and then the reduction; products are taken at a
share of the ceiling that this package reaches on CPUs.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from ceilings import measure
from roofline import H100

SHARE = 0.7  # of a ceiling that products of such shapes reach
DISK = 5e9  # bytes/s of one local NVMe drive
OBJECT_STORE = 2e9  # bytes/s a node reads over its network
LINK = 25e9  # bytes/s between nodes: 200 Gbit/s
CORES = 64  # of a CPU node


@dataclass(frozen=True)
class Cluster:
    """Workers with a rate for float32 products each, nodes that read, and the links between them."""

    name: str
    workers: int
    nodes: int
    flops: float  # of a worker
    reading: float  # bytes/s of a node
    bus: float  # bytes/s into a worker


@dataclass(frozen=True)
class Estimate:
    """Seconds of the parts of one pass."""

    arithmetic: float
    reading: float
    reduction: float

    @property
    def seconds(self) -> float:
        """Reading goes on beside the products; the reduction comes after both."""
        return max(self.arithmetic, self.reading) + self.reduction

    @property
    def bound(self) -> str:
        """What takes longest."""
        return "reading" if self.reading > self.arithmetic else "products"


def estimate(cluster: Cluster, n: float, d: int, p: int, k: int, itemsize: int = 2) -> Estimate:
    """One pass over n rows of d numbers of ``itemsize`` bytes; p features, p = d without a layer."""
    layer = 0.0 if p == d else 2.0 * d * p
    flops = n * (layer + float(p) * p)
    data = n * d * itemsize
    reading = max(data / (cluster.nodes * cluster.reading), data / (cluster.workers * cluster.bus))
    return Estimate(
        arithmetic=flops / (cluster.workers * cluster.flops * SHARE),
        reading=reading,
        reduction=0.0 if cluster.nodes == 1 else 2.0 * reduced_bytes(p, k) / LINK,
    )


def reduced_bytes(p: int, k: int) -> float:
    """What one worker sends: the packed triangle of G, C and the small sums, in float64."""
    return 8.0 * (p * (p + 1) / 2 + k * p + p + 2 * k)


def clusters() -> list[Cluster]:
    """The machines of the table; the rate of a CPU core is measured here."""
    found = measure(1024, repeats=3)
    core = found.ssyrk / found.threads
    return [
        Cluster("1 GPU, one NVMe drive", 1, 1, H100.float32, DISK, H100.bus),
        Cluster("8 GPUs in one node, 8 drives", 8, 1, H100.float32, 8 * DISK, H100.bus),
        Cluster("64 GPUs in 8 nodes, 8 drives each", 64, 8, H100.float32, 8 * DISK, H100.bus),
        Cluster(f"100 CPU nodes of {CORES} cores, object store", 100, 100, CORES * core, OBJECT_STORE, 1e12),
    ]


def table(n: float, d: int, k: int) -> str:
    """Markdown: a row for a cluster, a pair of columns for every number of features."""
    sizes = (d, 4 * d, 16 * d)
    head = "| machines | " + " | ".join(f"p = {p:,}" for p in sizes) + " |"
    lines = [head, "|---|" + "---|" * len(sizes)]
    for cluster in clusters():
        cells = []
        for p in sizes:
            found = estimate(cluster, n, d, p, k)
            cells.append(f"{_time(found.seconds)} ({found.bound})")
        lines.append(f"| {cluster.name} | {' | '.join(cells)} |")
    sent = " | ".join(f"{reduced_bytes(p, k) / 1e6:,.0f} MB" for p in sizes)
    lines.append(f"| *each worker sends* | {sent} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--k", type=int, default=100)
    options = parser.parse_args()
    terabytes = options.rows * options.d * 2 / 1e12
    print(f"{options.rows:.0e} rows x {options.d}, float16 ({terabytes:.1f} TB), k = {options.k}\n")
    print(table(options.rows, options.d, options.k))


if __name__ == "__main__":
    main()
