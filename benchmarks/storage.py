"""What compact storage costs: data sets x kernels x points per class x start x storage, every file read back.

    python benchmarks/storage.py --data-dir ../shared/data --dataset mnist
    python benchmarks/storage.py --data-dir ../shared/data --dataset cifar100 --kernels FCNN --ipcs 1 10 p

``--ipcs p`` stands for as many points as there are features, where Gaussian noise is worst.
Writes <results>/storage-NAME-KERNEL.json, then <docs>/storage.md from all of these files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import krrdistill as kd
from krrdistill.options import STORES
from krrdistill.pipeline import train
from krrdistill.problem import Problem
from machine import machine_facts, one_line

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """# Compact storage

`--store float64|float32|float16|uint8` chooses how a file keeps its inputs. float16 and uint8 files keep one code
per number and two numbers per sample, x = scale · code + offset:

| store | bytes per number | code | error of x |
|---|---|---|---|
| `float64` | 8 | x itself | none |
| `float32` | 4 | x itself | 2⁻²⁴ of x |
| `float16` | 2 | x / 2ᵉ, 2ᵉ above the sample's largest: any size fits | 2⁻¹¹ of x, or 2⁻²⁵ of the sample's largest |
| `uint8` | 1 | 256 levels from the smallest to the largest entry of the sample | 1/510 of that span |

After rounding, the labels are learned again from the features of what was stored, Y = F Wᵀ + λ_S (F⁺)ᵀ Wᵀ
(Theorem 4.2): the best labels for these inputs. What is left is the part of W outside of the row space of the rounded
features. So **any storage is exact from m = p points on** (where those have rank p), and with fewer points the error
grows with the rounding and with the condition of the map: behind square Gaussian weights (random Fourier, FCNN) inputs
are 10² to 10⁶ in size and their small differences matter; one byte a number is not enough there, and on CIFAR-100 nor
are two. Identity and `orthogonal_fourier`, whose preimages have condition 1, lose little: there a byte a number keeps
the accuracy to within a point at every size below. A file that is off by more than 1e-2 says NOT EXACT.

Points start from one of two kinds of noise. **Orthogonal** noise (`--noise orthogonal`, the default) has the spectrum
that makes the features as well conditioned as the labels allow (`construct/orthogonal.py`): their condition number is
that of W, for any number of points. **Gaussian** noise (`--noise gaussian`) is the published choice; its features are
worst conditioned where points are about as many as features.

The tables are of files after they were written and read back; bytes are those of `X` (with scale and offset) and `Y`,
without the map and the pictures. The original model's W alone has 8 k p bytes.
"""


STARTS = ("orthogonal noise", "Gaussian noise", "real")


def counts(ipc: str, p: int, k: int) -> int | list[int]:
    """Points of each class: a number, or for "p" as equal ones as possible that sum to p."""
    return int(ipc) if ipc != "p" else [p // k + (c < p % k) for c in range(k)]


def measure(data: kd.Dataset, kernel: str, ipcs: list[str]) -> list[dict[str, Any]]:
    """All cells of one data set and kernel; the original model is trained once."""
    scaling = kd.standardize(data)
    phi = kd.make_map(kernel, data, scaling)
    problem = Problem.of("storage", data.x_train, data.y_train, phi, kd.DistillOptions(stratify=False))
    model = train(problem).model
    reference = (data.x_train[problem.training], data.y_train[problem.training])
    rows = []
    for ipc, start, store in itertools.product(ipcs, STARTS, STORES):
        real = start == "real"
        how: dict[str, Any] = {"init": "real"} if real else {"noise": start.split()[0].lower()}
        options = kd.DistillOptions(points_per_class=counts(ipc, phi.output_dim, len(model.W)), store=store, **how)
        points = kd.distill_model(model, reference=reference if real else None, options=options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "distilled.npz"
            points.save(path, embed_map=False)
            loaded = kd.DistilledDataset.load(path)
        certificate = loaded.verify(model, test=data)
        size = 0 if loaded.encoding is None else 16 * len(loaded.inputs)
        row = {
            "kernel": kernel,
            "p": phi.output_dim,
            "ipc": ipc,
            "m": len(loaded.inputs),
            "start": start,
            "store": store,
            "bytes": size + loaded.X.size * {"float64": 8, "float32": 4, "float16": 2, "uint8": 1}[store]
            + loaded.Y.nbytes,
            "original_accuracy": certificate.original_accuracy,
            "distilled_accuracy": certificate.distilled_accuracy,
            "agreement": certificate.prediction_agreement,
            "weight_error": certificate.weight_relative_error,
            "condition": certificate.condition,
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def page(results: list[dict[str, Any]]) -> str:
    """docs/measured/storage.md."""
    lines = [INTRODUCTION]
    for result in results:
        lines += [
            f"## {result['dataset']}, {result['kernel']}",
            "",
            f"Written by `benchmarks/storage.py` on {one_line(result['machine'])}.",
            "",
            "| p | m | start | storage | MB | accuracy (%) | agreement | weight error | condition |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            condition = "–" if row["condition"] is None else f"{row['condition']:.1e}"
            accuracy = f"{100 * row['original_accuracy']:.2f} → {100 * row['distilled_accuracy']:.2f}"
            lines.append(
                f"| {row['p']} | {row['m']} | {row['start']} | {row['store']} | {row['bytes'] / 1e6:.3f} | "
                f"{accuracy} | {row['agreement']:.4f} | {row['weight_error']:.1e} | {condition} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measures what was asked for and writes the page from all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--dataset", default=None, help="without it the page is written again from what is there")
    parser.add_argument("--kernels", nargs="+", default=["identity", "random_fourier", "FCNN"])
    parser.add_argument("--ipcs", nargs="+", default=["1", "10", "50", "p"])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "measured")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    if arguments.dataset is not None:
        data = kd.load_dataset(arguments.dataset, data_dir=arguments.data_dir)
        for kernel in arguments.kernels:
            rows = measure(data, kernel, arguments.ipcs)
            content = {"dataset": data.name, "kernel": kernel, "machine": machine_facts(), "rows": rows}
            path = arguments.results / f"storage-{data.name}-{kernel}.json"
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.results.glob("storage-*.json"))]
    (arguments.docs / "storage.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
