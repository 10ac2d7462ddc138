"""What the cells of a sweep differ in, each option declared once; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

from krrdistill.common.options import check_options, described, keep_once, option, option_of
from krrdistill.options import DistillOptions, MapOptions

__all__ = ["SweepOptions"]

_CELLS = "Cells"  # panel of the help


@described
@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The cells of a sweep: feature maps x seeds x starts x lambda_S x points per class.

    None leaves an option to the ``DistillOptions`` of all cells.
    """

    kernels: Sequence[str] = option_of(
        MapOptions,
        "kernel",
        default=("identity",),
        text="Feature maps, separated by commas: {choices}; or your own, named by where to import them from.",
        metavar="NAME,..|MODULE:OBJECT",
        panel=_CELLS,
    )
    ipcs: Sequence[int] | None = option(
        None,
        "Distilled samples per class, separated by commas.",
        minimum=1,
        metavar="N,..",
        default_text="1",
        panel=_CELLS,
        key="distill.IPC",
    )
    seeds: Sequence[int] | None = option_of(
        DistillOptions,
        "seed",
        default=None,
        text="Seeds of all random numbers, separated by commas. The table shows means over them.",
        metavar="S,..",
        default_text="0",
        panel=_CELLS,
    )
    lambda_s: Sequence[float | str] | None = option_of(
        DistillOptions,
        "lambda_s",
        default=None,
        text="Ridge parameters to train with on the distilled set, separated by commas; auto as in distill.",
        metavar="V,..|auto",
        default_text="0",
        panel=_CELLS,
    )
    init: Sequence[str] | None = option_of(
        DistillOptions,
        "init",
        default=None,
        text="What to initialise the distilled samples from, separated by commas: noise, real.",
        metavar="NAME,..",
        panel=_CELLS,
    )

    def __post_init__(self) -> None:
        check_options("sweep", self)
        keep_once("sweep", self, *(each.name for each in fields(self)))

    def cells(self, options: DistillOptions) -> Iterator[tuple[str, DistillOptions]]:
        """Kernel and options of every cell; those of one model, of a kernel and seed, stand together.

        Raises ValueError for a combination that excludes itself.
        """
        points: Sequence[int] = self.ipcs or (options.points_per_class,)  # type: ignore[assignment]
        if not all(isinstance(each, int) for each in points):
            raise ValueError("sweep: points_per_class must be one number for all classes; ipcs has several of them")
        axes = (self.kernels, self.seeds or (options.seed,), self.init or (options.init,))
        for kernel, seed, init, lambda_s, ipc in product(*axes, self.lambda_s or (options.lambda_s,), sorted(points)):
            yield kernel, replace(options, seed=seed, init=init, lambda_s=lambda_s, points_per_class=ipc)
