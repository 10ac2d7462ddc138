"""The cells of a table, or the figures, that are asked for: options declared once; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.apps.kip.iteration import KipOptions, is_cuda_name
from krrdistill.common.options import check_options, described, keep_once, option, option_of
from krrdistill.options import DATASETS, DistillOptions

__all__ = ["METHODS", "FigureOptions", "ReproduceOptions"]

METHODS = ("closed_form", "gram", "published")
FIGURES = ("one-per-class", "figure2", "realism")
PIXELS = ("clip", "stretch")
_KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
_CELLS, _DRAWN = "Cells", "Figures"  # panels of the help
_OWN_DATA = "for data of your own there is krrdistill sweep --dataset SOURCE"


@described
@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The cells of a table: data sets x kernels x seeds x points per class x methods."""

    datasets: Sequence[str] = option(
        ("mnist", "cifar100"),
        "Data sets, separated by commas.",
        choices=DATASETS,
        reason=_OWN_DATA,
        metavar="NAME,..",
        panel=_CELLS,
    )
    kernels: Sequence[str] = option(
        ("identity", "random_fourier", "FCNN"),
        "Feature maps, separated by commas (for table4 the default is FCNN).",
        choices=_KERNELS,
        metavar="NAME,..",
        panel=_CELLS,
    )
    ipcs: Sequence[int] = option(
        (1, 10, 50), "Distilled samples per class, separated by commas.", minimum=1, metavar="N,..", panel=_CELLS
    )
    seeds: Sequence[int] = option(
        (0, 1, 2, 3),
        "Seeds of all random numbers, separated by commas. The hold-out depends on them, too.",
        minimum=0,
        below=1 << 64,
        metavar="S,..",
        panel=_CELLS,
    )
    methods: Sequence[str] = option(
        METHODS, "Methods (rows) of table4, separated by commas.", choices=METHODS, metavar="NAME,..", panel=_CELLS
    )
    kip_iterations: int = option_of(KipOptions, "iterations", text="Number of steps of a full KIP run.", key=None)
    time_budget: float = option_of(
        KipOptions,
        "time_budget",
        default=60.0,
        default_text=None,
        text="Seconds of optimisation for one KIP cell. The time of the remaining steps is extrapolated, and marked.",
    )
    device: str = option_of(
        KipOptions,
        "device",
        text="Device of all methods. On a GPU, KIP runs with PyTorch, and --backend is cuda unless it is given.",
        panel=_CELLS,
    )
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("reproduce", self)
        keep_once("reproduce", self, "datasets", "kernels", "ipcs", "seeds", "methods")
        if self.device != "cpu" and self.backend is None:
            object.__setattr__(self, "backend", "cuda")
        if self.device == "cpu" and is_cuda_name(self.backend) and self.methods != ("closed_form",):
            raise ValueError(
                "reproduce: backend 'cuda' would run the closed form on the GPU and KIP's steps on the CPU; pass "
                "device='cuda' (--device cuda) for both, or methods=('closed_form',) (--methods closed_form)"
            )


@described
@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """The published figures of data sets, and how their pictures are made and drawn."""

    datasets: Sequence[str] = option_of(ReproduceOptions, "datasets")
    only: Sequence[str] = option(
        FIGURES, "Figures, separated by commas.", choices=FIGURES, metavar="NAME,..", panel=_DRAWN
    )
    zca: bool | None = option(
        None,
        "Whiten the inputs (ZCA) instead of standardising them.",
        default_text="as published: on for colour images, which otherwise look like grey noise; off in realism",
        panel=_DRAWN,
    )
    pixels: str | None = option(
        None,
        "How to show values outside the range of the data: clip them, or stretch the contrast of each image.",
        choices=PIXELS,
        default_text="clip; stretch for grey images that were published so",
        panel=_DRAWN,
    )
    kernel: str = option(
        "FCNN",
        "Feature map of the figure realism: {choices}. The published figures have the identity.",
        choices=("identity", "random_fourier", "FCNN"),
        panel=_DRAWN,
    )
    max_seconds: float = option_of(
        DistillOptions,
        "max_seconds",
        default=300.0,
        default_text=None,
        text="Time limit in seconds of each search for the nearest exact set. Stopped ones are exact, but less near.",
        panel=_DRAWN,
    )
    seed: int = option_of(DistillOptions, "seed", panel=_DRAWN)
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("reproduce", self)
        keep_once("reproduce", self, "datasets", "only")
