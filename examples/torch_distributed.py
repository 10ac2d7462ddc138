"""Two processes of torch.distributed sum their shards in one all_reduce; every rank then has the same model.

pip install "krrdistill[cli]" torch
python examples/torch_distributed.py  # starts both; under torchrun, each process calls ``train(rank, world_size)``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch.distributed as dist
import torch.multiprocessing as mp

import krrdistill as kd
from krrdistill.interop.torch_distributed import all_reduce, all_reduce_counts

WORLD_SIZE = 2


def train(rank: int, world_size: int) -> None:
    """Own rows, one all_reduce for the statistics, a small one for lambda."""
    digits = kd.load_dataset("digits")
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    X, y = digits.x_train[rank::world_size], digits.y_train[rank::world_size]  # each sample on one rank, none padded
    held = len(X) // 5

    own = kd.RidgeStatistics(phi, classes=10, precision="float64").update(X[held:], y[held:])
    sums = all_reduce(own)
    path = kd.ridge_path(sums)
    counts = all_reduce_counts(kd.count_correct(path, sums, kd.HeldOutRows(X[:held], y[:held])))
    model = kd.fit_model(sums, validation=counts)
    if rank == 0:
        print(f"{own.n} of {sums.n} samples were here, lambda {model.lambda_:.3g} by {counts.n} held-out samples")
        points = kd.distill_model(model, points_per_class=1)
        certificate = points.verify(model, test=(digits.x_test, digits.y_test))
        word = "exact" if certificate.prediction_agreement == 1.0 else "not exact"
        print(f"{len(points.X)} points, {word}: weight error {certificate.weight_relative_error:.1e}")


def start(rank: int, file: str) -> None:
    """One process of the group; on GPUs the group is "nccl"."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD_SIZE)
    train(rank, WORLD_SIZE)
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(start, args=(str(Path(folder) / "group"),), nprocs=WORLD_SIZE)
