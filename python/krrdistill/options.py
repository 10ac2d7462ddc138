"""Options of a distillation, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from krrdistill.common.arrays import check_choice, check_count, check_number, check_seed

__all__ = ["DistillOptions"]

INITS = ("noise", "real")
PRECISIONS = ("float32", "float64")
ROOTS = ("plus", "minus")
SELECTIONS = ("held-out", "gcv")
STORES = ("float64", "float32", "float16", "uint8")
_LARGEST_LAMBDA_S = 1e150  # its square is a float64 still


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of a distillation; the defaults are the paper's.

    lambda_s : 0, a number > 0, or "auto" for min(lambda, 1 / (4 s1^2)), the published ``reg_s``; lambda with
        ``realism``
    labels_only : keep the real inputs of init "real" and learn labels for them (Theorem 4.2)
    strict : raise NotSurjective where the map has no exact preimage, in place of approximate inputs
    realism : None for the published construction; with init="real" a number from 0 to 1 for the exact set nearest to
        inputs between noise (0) and the real points (1), see docs/realism.md
    intercept : the original model has an unpenalised intercept, and so has the one retrained from the distilled set
    center_targets : the original model is trained on targets about their mean; the file has the mean
    lambda_per_target : every real-valued target has the lambda that is best for it
    root : which of the two solutions for lambda_s > 0
    scale_labels : allow the labels to be scaled where a fixed lambda_s needs it
    validation_fraction : held out, by a seeded permutation, to choose lambda
    selection : "held-out" chooses lambda on those samples, "gcv" from the statistics alone, and holds nothing out
    stratify : hold out the same part of every class; False is the published split
    refit : train the original model on all data with the lambda chosen, instead of on the 95% part
    include_weights, embed_map : store W, and the map's weights (by default when they are at most 2^20 numbers)
    store : float64, float32, float16 or uint8, of the stored inputs; labels are learned again from rounded inputs
    """

    points_per_class: int = 1
    init: str = "noise"
    labels_only: bool = False
    strict: bool = False
    lambda_s: float | str = 0.0
    realism: float | None = None
    root: str = "plus"
    scale_labels: bool = False
    intercept: bool = False
    center_targets: bool = False
    lambda_per_target: bool = False
    lambdas: Sequence[float] | None = None
    validation_fraction: float = 0.05
    selection: str = "held-out"
    stratify: bool = True
    refit: bool = False
    seed: int = 0
    precision: str = "float32"
    store: str = "float64"
    backend: str | None = None
    threads: int | None = None
    include_weights: bool = False
    embed_map: bool | None = None

    def __post_init__(self) -> None:
        check_count("distill", "points_per_class", self.points_per_class)
        check_choice("distill", "init", self.init, INITS)
        check_choice("distill", "root", self.root, ROOTS)
        check_choice("distill", "precision", self.precision, PRECISIONS)
        check_choice("distill", "store", self.store, STORES)
        check_choice("distill", "selection", self.selection, SELECTIONS)
        check_seed("distill", self.seed)
        if isinstance(self.lambda_s, str):
            check_choice("distill", "lambda_s", self.lambda_s, ("auto",))
        elif check_number("distill", "lambda_s", self.lambda_s) > _LARGEST_LAMBDA_S:
            raise ValueError(f"distill: lambda_s must be at most {_LARGEST_LAMBDA_S:g}, got {self.lambda_s:g}")
        self._check_combinations()
        if not 0.0 < check_number("distill", "validation_fraction", self.validation_fraction) < 1.0:
            raise ValueError(f"distill: validation_fraction must be in (0, 1), got {self.validation_fraction}")
        if self.threads is not None:
            check_count("distill", "threads", self.threads)
        # Plain Python numbers from here on: NumPy's are welcome, but JSON does not know them.
        plain = {
            "points_per_class": int,
            "seed": int,
            "validation_fraction": float,
            "refit": bool,
            "stratify": bool,
            "labels_only": bool,
            "strict": bool,
            "scale_labels": bool,
            "intercept": bool,
            "center_targets": bool,
            "lambda_per_target": bool,
        }
        if not isinstance(self.lambda_s, str):
            plain["lambda_s"] = float
        if self.realism is not None:
            plain["realism"] = float
        for name, kind in plain.items():
            object.__setattr__(self, name, kind(getattr(self, name)))

    def _check_combinations(self) -> None:
        if self.root == "minus" and self.lambda_s == 0.0:
            raise ValueError("distill: root = 'minus' needs lambda_s > 0; for lambda_s = 0 there is one solution")
        if self.scale_labels and (isinstance(self.lambda_s, str) or self.lambda_s == 0.0):
            raise ValueError(f"distill: scale_labels needs a fixed lambda_s > 0, got {self.lambda_s}")
        if self.selection == "gcv" and (self.refit or self.lambda_per_target):
            raise ValueError(
                "distill: selection = 'gcv' holds nothing out; refit and lambda_per_target have no meaning"
            )
        if self.intercept and self.center_targets:
            raise ValueError("distill: intercept implies center_targets; give one of them")
        if self.labels_only:
            self._check_labels_only()
        if self.realism is not None:
            self._check_realism(self.realism)

    def _check_labels_only(self) -> None:
        if self.init != "real":
            raise ValueError(f"distill: labels_only keeps real inputs, it needs init = 'real', got {self.init!r}")
        if self.root == "minus" or self.scale_labels:
            raise ValueError("distill: root and scale_labels have no meaning with labels_only")
        if self.realism is not None:
            raise ValueError("distill: realism has no meaning with labels_only, which keeps the real inputs")

    def _check_realism(self, realism: float) -> None:
        if check_number("distill", "realism", realism) > 1.0:
            raise ValueError(f"distill: realism must be from 0 to 1, got {realism}")
        if self.init != "real":
            raise ValueError(f"distill: realism needs init = 'real', got {self.init!r}")
        if self.root != "plus" or self.scale_labels:
            raise ValueError(
                "distill: realism finds the points first and then labels for any lambda_s; root and scale_labels "
                "belong to the published construction"
            )

    @property
    def center(self) -> str:
        """What of the training samples is taken about its mean: "both", "targets" or "none"."""
        return "both" if self.intercept else "targets" if self.center_targets else "none"

    def training(self) -> dict[str, Any]:
        """Those that decide how the original model is trained."""
        lambdas = None if self.lambdas is None else [float(value) for value in self.lambdas]
        names = (
            "validation_fraction",
            "selection",
            "stratify",
            "refit",
            "seed",
            "precision",
            "intercept",
            "center_targets",
            "lambda_per_target",
        )
        return {"lambdas": lambdas, **{name: getattr(self, name) for name in names}}
