"""Options of a private release, each declared once; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from krrdistill.common.options import check_options, described, option, option_of
from krrdistill.options import DistillOptions, PointsPerClass

__all__ = ["MECHANISMS", "PrivacyBudget", "ReleaseOptions"]

MECHANISMS = ("statistics", "output")
PRIVACY = "Privacy"  # panel of the help


@described
@dataclass(frozen=True)
class PrivacyBudget:
    """(epsilon, delta) of differential privacy. Raises TypeError or ValueError."""

    epsilon: float = option(1.0, "Epsilon of (epsilon, delta)-differential privacy.", above=0, panel=PRIVACY)
    delta: float = option(1e-5, "Delta of (epsilon, delta)-differential privacy.", above=0, below=1, panel=PRIVACY)

    def __post_init__(self) -> None:
        check_options("privacy", self)


@described
@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """Options of a private release; without a mechanism there is none, only what Theorem 6.2 says."""

    mechanism: str | None = option(
        None,
        "Make a private file: add noise to the sufficient statistics (statistics) or to the weights W (output).",
        choices=MECHANISMS,
        panel=PRIVACY,
    )
    budget: PrivacyBudget = field(default_factory=PrivacyBudget)
    norm_bound: float | None = option(
        None,
        "Bound B on the norm of every feature vector. It is checked; with --mechanism, longer vectors are clipped.",
        minimum=1e-50,  # fourth powers of both, in the search for lambda, are float64 numbers
        maximum=1e50,
        metavar="B",
        default_text="largest norm in the data; with --mechanism the expected norm of standardised inputs",
        panel=PRIVACY,
    )
    lambda_: float | None = option(
        None,
        "Ridge parameter of the model (absolute value). Choose it without looking at the data.",
        above=0,
        cli="model-lambda",
        default_text="0 for Theorem 6.2; with --mechanism computed from epsilon, delta, n, p and B",
        panel=PRIVACY,
    )
    ledger: Path | None = option(
        None,
        "File that records every release of these data. This release is added, and the total budget spent is shown.",
        metavar="FILE.json",
        names_run=False,
        default_text="none: other releases are not counted",
        panel=PRIVACY,
    )
    budget_epsilon: float | None = option(
        None,
        "Limit of the ledger's total epsilon, for this delta. A release that would exceed it is refused.",
        above=0,
        names_run=False,
        default_text="no limit",
        panel=PRIVACY,
    )
    points_per_class: PointsPerClass = option_of(DistillOptions, "points_per_class")
    seed: int = option_of(
        DistillOptions, "seed", text="Seed of the feature map and of Z. The private noise has no seed."
    )
    store: str = option_of(DistillOptions, "store")
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("privacy", self)
        if self.budget_epsilon is not None and self.ledger is None:
            raise ValueError("privacy: --budget-epsilon needs --ledger, whose total it limits")
