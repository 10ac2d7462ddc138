"""Which cells of a table are asked for, each option declared once; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.apps.kip.iteration import KipOptions, is_cuda_name
from krrdistill.common.options import check_options, described, option, option_of
from krrdistill.options import DATASETS, DistillOptions

__all__ = ["METHODS", "ReproduceOptions"]

METHODS = ("closed_form", "gram", "published")
_KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
_CELLS = "Cells"  # panel of the help


@described
@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The cells of a table: data sets x kernels x seeds x points per class x methods."""

    datasets: Sequence[str] = option(
        ("mnist", "cifar100"), "Data sets, with commas between.", choices=DATASETS, metavar="NAME,..", panel=_CELLS
    )
    kernels: Sequence[str] = option(
        ("identity", "random_fourier", "FCNN"),
        "Feature maps, with commas between; of table4 only FCNN where none is given.",
        choices=_KERNELS,
        metavar="NAME,..",
        panel=_CELLS,
    )
    ipcs: Sequence[int] = option(
        (1, 10, 50), "Distilled samples per class, with commas between.", minimum=1, metavar="N,..", panel=_CELLS
    )
    seeds: Sequence[int] = option(
        (0, 1, 2, 3),
        "Seeds of every draw, the hold-out set included, with commas between.",
        minimum=0,
        below=1 << 64,
        metavar="S,..",
        panel=_CELLS,
    )
    methods: Sequence[str] = option(
        METHODS, "Rows of table4, with commas between.", choices=METHODS, metavar="NAME,..", panel=_CELLS
    )
    kip_iterations: int = option_of(KipOptions, "iterations", text="Steps of a whole KIP run.", key=None)
    time_budget: float = option_of(
        KipOptions,
        "time_budget",
        default=60.0,
        text="Seconds of steps of one KIP cell, over all runs; the rest of its time is extrapolated, and marked.",
    )
    device: str = option_of(
        KipOptions,
        "device",
        text="Where all methods run: a GPU's steps are taken by PyTorch, and --backend is cuda where none is given.",
        panel=_CELLS,
    )
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("reproduce", self)
        for name in ("datasets", "kernels", "ipcs", "seeds", "methods"):
            if not getattr(self, name):
                raise ValueError(f"reproduce: {name} must name at least one")
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if self.device != "cpu" and self.backend is None:
            object.__setattr__(self, "backend", "cuda")
        if self.device == "cpu" and is_cuda_name(self.backend) and self.methods != ("closed_form",):
            raise ValueError(
                "reproduce: backend 'cuda' would run the closed form on the GPU and KIP's steps on the CPU; pass "
                "device='cuda' (--device cuda) for both, or methods=('closed_form',) (--methods closed_form)"
            )
