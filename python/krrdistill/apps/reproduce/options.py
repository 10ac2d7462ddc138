"""What a table is asked to hold, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.backends import get_backend
from krrdistill.common.arrays import check_choice, check_count, check_number, check_seed

__all__ = ["METHODS", "ReproduceOptions"]

METHODS = ("closed_form", "gram", "published")
_KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """The cells of a table: data sets x kernels x seeds x points per class x methods.

    datasets : names of ``load_dataset``; kernels : names of ``make_map``
    ipcs : points per class; seeds : of every draw, the hold-out set included
    methods : "closed_form" and the two variants of KIP
    kip_iterations : steps of a whole KIP run; fewer are run where the budget ends, and its time is extrapolated
    time_budget : seconds of steps of one KIP cell, over all runs that work on it
    """

    datasets: Sequence[str] = ("mnist", "cifar100")
    kernels: Sequence[str] = ("identity", "random_fourier", "FCNN")
    ipcs: Sequence[int] = (1, 10, 50)
    seeds: Sequence[int] = (0, 1, 2, 3)
    methods: Sequence[str] = METHODS
    kip_iterations: int = 30_000
    time_budget: float = 60.0
    backend: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        from krrdistill.data import available_datasets

        choices = {"datasets": available_datasets(), "kernels": _KERNELS, "methods": METHODS}
        for name, known in choices.items():
            self._keep(name, [check_choice("reproduce", name, value, tuple(known)) for value in getattr(self, name)])
        self._keep("ipcs", [check_count("reproduce", "ipcs", value) for value in self.ipcs])
        self._keep("seeds", [check_seed("reproduce", value) for value in self.seeds])
        check_count("reproduce", "kip_iterations", self.kip_iterations)
        check_number("reproduce", "time_budget", self.time_budget, positive=True)
        if self.threads is not None:
            check_count("reproduce", "threads", self.threads)
        get_backend(self.backend)  # raises where there is none of this name, or it does not work here

    def _keep(self, name: str, values: list[Any]) -> None:
        if not values:
            raise ValueError(f"reproduce: {name} must name at least one")
        object.__setattr__(self, name, tuple(dict.fromkeys(values)))
