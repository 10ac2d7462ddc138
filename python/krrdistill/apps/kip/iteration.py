"""Options of a KIP run, each declared once; nothing heavy is imported here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.common.options import check_options, common_values, described, option, option_of
from krrdistill.options import DistillOptions, PointsPerClass

__all__ = ["DEVICES", "MOST_LOOKS", "MOST_STEPS", "VARIANTS", "KipOptions", "is_cuda_device", "is_cuda_name"]

VARIANTS = ("gram", "published")
DEVICES = ("cpu", "cuda")
ITERATION = "Iteration"  # panel of the help
MOST_STEPS, MOST_LOOKS = 1 << 23, 1 << 18  # of a run, in its checkpoint; a number takes 40 bytes in a list
_PUBLISHED_BATCH = 5000


def is_cuda_device(name: str) -> bool:
    """Whether this names one of several GPUs: cuda:N."""
    return re.fullmatch(r"cuda:\d{1,4}", name, re.ASCII) is not None


def is_cuda_name(backend: Any) -> bool:
    """Whether a backend, or its name, is of a GPU."""
    return str(backend if isinstance(backend, str) else getattr(backend, "name", "")).startswith("cuda")


@described
@dataclass(frozen=True, kw_only=True)
class KipOptions:
    """Options of a KIP run. The defaults are the published ones, except for the variant.

    ``lambdas`` and ``validation_fraction`` are for the ridge model that KIP is compared with, as in
    ``DistillOptions``. ``precision`` is that of inputs, features and products. The variant "gram" solves its m x m
    systems in float64.

    Threads may share it, as it is immutable.
    """

    variant: str = option(
        "gram",
        "Loss from the sufficient statistics (gram), or from all training features with PyTorch (published).",
        choices=VARIANTS,
        panel=ITERATION,
    )
    points_per_class: PointsPerClass = option_of(DistillOptions, "points_per_class")
    init: str = option_of(DistillOptions, "init", default="real", default_text=None)
    warm_start: bool = option(
        False, "Start from the exact set that distill makes with the same options (Theorem 6.1).", panel=ITERATION
    )
    iterations: int = option(
        30_000,
        "Number of optimisation steps (Adam).",
        minimum=1,
        maximum=MOST_STEPS,
        panel=ITERATION,
        key="model.iterations",
        names_run=False,
    )
    lr: float = option(0.01, "Learning rate of Adam.", above=0, panel=ITERATION, key="model.lr")
    batch_size: int | None = option(
        None,
        "Number of training samples in the loss of one step.",
        minimum=1,
        default_text="5000 for published, all for gram",
        panel=ITERATION,
        key="model.batch_size",
    )
    time_budget: float | None = option(
        None,
        "Stop after this many seconds of optimisation.",
        above=0,
        default_text="none",
        panel=ITERATION,
        names_run=False,
    )
    evaluate_every: int = option(
        100, "Steps between two evaluations on the validation set.", minimum=1, panel=ITERATION
    )
    checkpoint_every: int = option(
        100,
        "Steps between two checkpoints. The same command resumes from the last one.",
        minimum=1,
        names_run=False,
        panel=ITERATION,
    )
    device: str = option(
        "cpu",
        "Device of the optimisation: {choices} (GPU, with PyTorch). --backend is for the statistics.",
        choices=DEVICES,
        accepts=is_cuda_device,
        metavar="DEVICE|cuda:N",
        names_run=False,
        panel=ITERATION,
    )
    tf32: bool = option(False, "On a GPU: TF32 for float32 products (10 bits of mantissa, faster).", panel=ITERATION)
    lambdas: Sequence[float] | None = option_of(DistillOptions, "lambdas")
    validation_fraction: float = option_of(DistillOptions, "validation_fraction")
    stratify: bool = option_of(DistillOptions, "stratify")
    seed: int = option_of(DistillOptions, "seed")
    precision: str = option_of(DistillOptions, "precision")
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")
    embed_map: bool | None = option_of(DistillOptions, "embed_map")

    def __post_init__(self) -> None:
        check_options("kip", self)
        if self.iterations // self.evaluate_every > MOST_LOOKS:
            raise ValueError(
                f"kip: evaluate_every={self.evaluate_every} gives more than {MOST_LOOKS} evaluations in "
                f"{self.iterations} iterations, which a checkpoint holds; evaluate less often (--evaluate-every)"
            )
        if self.device != "cpu":
            return
        if is_cuda_name(self.backend):
            raise ValueError(
                "kip: backend 'cuda' would sum the statistics on the GPU and leave the steps to the CPU; pass "
                "device='cuda' (--device cuda) for both, or leave backend out"
            )
        if self.tf32:
            raise ValueError("kip: tf32 is of a GPU, device is 'cpu'; pass device='cuda' (--device cuda) too")

    def distillation(self) -> DistillOptions:
        """The options that ``distill`` has too: of the split, the ridge model and the start."""
        return DistillOptions(**common_values(self, DistillOptions))

    def batch(self, n: int) -> int | None:
        """Points per batch out of n, None for the loss over all of them."""
        size = self.batch_size
        if size is None and self.variant == "published":
            size = _PUBLISHED_BATCH
        return None if size is None or size >= n else size

    def configuration(self, n: int) -> dict[str, Any]:
        """What decides the course of a run over n training points, but for rounding; how long it goes on is no part."""
        names = ("variant", "init", "warm_start", "lr", "evaluate_every", "seed", "precision")
        points = self.points_per_class
        return {
            **{name: getattr(self, name) for name in names},
            "points_per_class": list(points) if isinstance(points, tuple) else points,
            "batch_size": self.batch(n),
            **({"tf32": True} if self.tf32 else {}),
            "validation_fraction": self.validation_fraction,
            "stratify": self.stratify,
            "lambdas": None if self.lambdas is None else list(self.lambdas),
        }
