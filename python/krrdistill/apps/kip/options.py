"""Options of a KIP run, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.common.arrays import check_choice, check_count, check_number
from krrdistill.options import DistillOptions

__all__ = ["VARIANTS", "KipOptions"]

VARIANTS = ("gram", "published")
_PUBLISHED_BATCH = 5000


@dataclass(frozen=True, kw_only=True)
class KipOptions:
    """Options of a KIP run; the defaults are the published ones, but for the variant.

    variant : "gram" (statistics only, NumPy) or "published" (the n training features, PyTorch); one loss, two ways
    init : "real" training points, or "noise" N(0, 1)
    warm_start : start from the closed form that ``distill`` makes of this ``init`` (Theorem 6.1)
    batch_size : training points of the loss of one step; None is 5000 for "published" and all of them for "gram"
    time_budget : seconds of steps (validation not counted) after which the run ends early
    evaluate_every : iterations between two looks at the validation accuracy
    checkpoint_every : iterations between two checkpoints
    lambdas, validation_fraction : of the ridge model that is compared with, and the split, as in ``DistillOptions``
    precision : of inputs, features and products; systems of order m are float64 in "gram"
    """

    variant: str = "gram"
    points_per_class: int = 1
    init: str = "real"
    warm_start: bool = False
    iterations: int = 30_000
    lr: float = 0.01
    batch_size: int | None = None
    time_budget: float | None = None
    evaluate_every: int = 100
    checkpoint_every: int = 100
    lambdas: Sequence[float] | None = None
    validation_fraction: float = 0.05
    seed: int = 0
    precision: str = "float32"
    backend: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_choice("kip", "variant", self.variant, VARIANTS)
        for name in ("iterations", "evaluate_every", "checkpoint_every"):
            object.__setattr__(self, name, check_count("kip", name, getattr(self, name)))
        object.__setattr__(self, "lr", check_number("kip", "lr", self.lr, positive=True))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", check_count("kip", "batch_size", self.batch_size))
        if self.time_budget is not None:
            check_number("kip", "time_budget", self.time_budget, positive=True)
        common = self.distillation()
        for name in ("points_per_class", "seed", "validation_fraction"):
            object.__setattr__(self, name, getattr(common, name))
        object.__setattr__(self, "warm_start", bool(self.warm_start))

    def distillation(self) -> DistillOptions:
        """The options that ``distill`` has too: of the split, the ridge model and the start."""
        return DistillOptions(
            points_per_class=self.points_per_class,
            init=self.init,
            lambdas=self.lambdas,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
            precision=self.precision,
            backend=self.backend,
            threads=self.threads,
        )

    def batch(self, n: int) -> int | None:
        """Points per batch out of n, None for the loss over all of them."""
        size = self.batch_size
        if size is None and self.variant == "published":
            size = _PUBLISHED_BATCH
        return None if size is None or size >= n else size

    def configuration(self, n: int) -> dict[str, Any]:
        """What decides the course of a run over n training points; how long it goes on is no part of it."""
        names = ("variant", "points_per_class", "init", "warm_start", "lr", "evaluate_every", "seed", "precision")
        lambdas = None if self.lambdas is None else [float(value) for value in self.lambdas]
        return {
            **{name: getattr(self, name) for name in names},
            "batch_size": self.batch(n),
            "validation_fraction": self.validation_fraction,
            "lambdas": lambdas,
        }
