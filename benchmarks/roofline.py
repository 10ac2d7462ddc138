"""How long the CUDA backend should take on an H100: a prediction from arithmetic, traffic and datasheet ceilings.

    python benchmarks/roofline.py [--n 47500] [--d 3072] [--p 3072] [--k 100] [--lambdas 24] [--validation 2500]

Nothing here was measured. Each operation is counted as csrc/cuda does it, in float32 with a map of one dense layer, and
takes as long as the slowest of its arithmetic, its traffic to device memory and its transfers from the host. Real
times are longer: products run below the ceiling, launches take microseconds, pinned copies reach less than the bus.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from krrdistill.backends import Layer
from krrdistill.backends.tiles import tile_rows
from krrdistill.maps import FeatureMap

_LANCZOS_STEPS = 64
_FLUSH_ROWS = 4096


@dataclass(frozen=True)
class Device:
    """Ceilings of a device: flop/s, bytes/s."""

    name: str
    float32: float
    float64: float
    memory: float
    bus: float
    source: str


# FP64 products and factorisations can use the FP64 tensor cores; PCIe 5.0 x16 has 64 GB/s in one direction.
H100 = Device(
    name="H100 SXM",
    float32=67e12,
    float64=67e12,
    memory=3.35e12,
    bus=64e9,
    source="NVIDIA H100 Tensor Core GPU datasheet: FP32 67 TFLOPS, FP64 Tensor Core 67 TFLOPS, 3.35 TB/s, PCIe Gen5",
)


@dataclass(frozen=True)
class Prediction:
    """flops at the device's float32 or float64 rate, bytes of device memory, bytes over the bus."""

    operation: str
    flops32: float
    flops64: float
    traffic: float
    transfer: float

    def seconds(self, device: Device) -> tuple[float, str]:
        """(time, what bounds it)."""
        bounds = {
            "arithmetic": self.flops32 / device.float32 + self.flops64 / device.float64,
            "memory": self.traffic / device.memory,
            "bus": self.transfer / device.bus,
        }
        limit = max(bounds, key=lambda name: bounds[name])
        return bounds[limit], limit


def predict(n: int, d: int, p: int, k: int, lambdas: int, validation: int) -> list[Prediction]:
    """The operations of a run in order: the pass over n uint8 rows, the path, the scores of the validation rows."""
    rows = tile_rows(
        FeatureMap(d, (Layer(np.broadcast_to(np.float32(0), (p, d)), None, "leaky_relu", 0.1),)), np.dtype("f4")
    )

    def features(samples: int) -> tuple[float, float]:
        # uint8 in and standardised out, read by the product; weights once per tile; features out, through the epilogue
        tiles = samples / rows
        return 2.0 * samples * p * d, samples * d * (1 + 4 + 4) + tiles * 4 * p * d + samples * p * 4 * 3

    flops, traffic = features(n)
    # SYRK reads features and updates its float triangle per tile; sums go to float64; class sums read the features
    triangle = p * p / 2
    traffic += 2 * n * p * 4 + (n / rows) * 8 * triangle + (n / _FLUSH_ROWS) * (4 + 16) * triangle
    statistics = Prediction("accumulate", flops + n * p * p, 0.0, traffic, n * d + 16.0 * p * p + 4.0 * p * d)
    # two factorisations per lambda (the model, and whether rounding hides it), each of a shifted copy of G
    factor = 2 * lambdas * (p**3 / 3)
    solve = lambdas * 2.0 * p * p * k
    path_traffic = 2 * lambdas * 3 * 8.0 * p * p + _LANCZOS_STEPS * 8.0 * p * p
    path = Prediction("ridge_path", 0.0, factor + solve, path_traffic, 8.0 * p * p + 2 * lambdas * k * p * 8)
    flops, traffic = features(validation)
    models = lambdas * k
    scored = traffic + validation * (p + 2 * models) * 4 + (validation / rows) * 4 * models * p
    transfer = validation * d + 4.0 * models * p + 4.0 * p * d
    return [statistics, path, Prediction("score_path", flops + 2.0 * validation * p * models, 0.0, scored, transfer)]


def table(predictions: list[Prediction], device: Device) -> str:
    """Markdown: what is done, and the predicted milliseconds."""
    lines = [
        "| operation | Gflop | GB of memory | GB over the bus | predicted ms | bound by |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row in predictions:
        seconds, limit = row.seconds(device)
        counted = f"{(row.flops32 + row.flops64) / 1e9:.0f} | {row.traffic / 1e9:.2f} | {row.transfer / 1e9:.2f}"
        lines.append(f"| `{row.operation}` | {counted} | {1e3 * seconds:.1f} | {limit} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"n": 47_500, "d": 3072, "p": 3072, "k": 100, "lambdas": 24, "validation": 2500}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    print(f"prediction for one {H100.name}, not a measurement ({H100.source})\n")
    print(table(predict(**vars(parser.parse_args())), H100))


if __name__ == "__main__":
    main()
