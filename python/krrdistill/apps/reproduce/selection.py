"""The cells of a table, or the figures, that are asked for: options declared once; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.apps.kip.iteration import KipOptions, is_cuda_name
from krrdistill.common.options import check_options, described, option, option_of
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
        "Data sets, with commas between.",
        choices=DATASETS,
        reason=_OWN_DATA,
        metavar="NAME,..",
        panel=_CELLS,
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
        default_text=None,
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
        _name_once(self, "datasets", "kernels", "ipcs", "seeds", "methods")
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
        FIGURES, "Figures, with commas between.", choices=FIGURES, metavar="NAME,..", panel=_DRAWN
    )
    zca: bool | None = option(
        None,
        "ZCA whitening in place of standardising.",
        default_text="as published: on for colour images, which are grey noise without; off in realism",
        panel=_DRAWN,
    )
    pixels: str | None = option(
        None,
        "Black and white are those of the data, the rest is cut off (clip), or the extremes of each picture (stretch).",
        choices=PIXELS,
        default_text="clip, but stretch where grey images were published so",
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
        text="Time of each search for the nearest exact set: what it has by then is exact, but less near.",
        panel=_DRAWN,
    )
    seed: int = option_of(DistillOptions, "seed", panel=_DRAWN)
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("reproduce", self)
        _name_once(self, "datasets", "only")


def _name_once(options: Any, *names: str) -> None:
    """Keeps every value of options that have several once. Raises ValueError where there is none."""
    for name in names:
        if not getattr(options, name):
            raise ValueError(f"reproduce: {name} must name at least one")
        object.__setattr__(options, name, tuple(dict.fromkeys(getattr(options, name))))
