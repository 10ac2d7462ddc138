"""The arithmetic and the memory traffic that an operation cannot avoid, and the time they take at the ceilings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ceilings import Ceilings
from krrdistill.backends import HadamardWeight, Weight
from krrdistill.maps import FeatureMap

__all__ = ["Work", "factor_work", "map_work", "pass_work", "pipeline_work", "product_flops"]

_RATES = ("sgemm", "ssyrk", "dgemm", "dsyrk", "eigvalsh", "dpotrf")


@dataclass(frozen=True)
class Work:
    """flops per kind of routine (the names of ``Ceilings``), and bytes that must at least move."""

    flops: Mapping[str, float] = field(default_factory=dict)
    bytes: float = 0.0

    def __post_init__(self) -> None:
        unknown = set(self.flops) - set(_RATES)
        if unknown:
            raise ValueError(f"Work: no ceiling for {', '.join(sorted(unknown))}")

    def __add__(self, other: Work) -> Work:
        names = self.flops.keys() | other.flops.keys()
        flops = {name: self.flops.get(name, 0.0) + other.flops.get(name, 0.0) for name in sorted(names)}
        return Work(flops, self.bytes + other.bytes)

    @property
    def total_flops(self) -> float:
        """Of all routines."""
        return float(sum(self.flops.values()))

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds: the arithmetic at its ceilings, or the traffic at the memory's, whichever takes longer."""
        arithmetic = sum(flops / getattr(ceilings, name) for name, flops in self.flops.items())
        return max(float(arithmetic), self.bytes / ceilings.bandwidth)


def _prefix(dtype: str) -> str:
    return {"float32": "s", "float64": "d"}[dtype]


def product_flops(weight: Weight) -> float:
    """W h for one h: 2 p d, or per round and block n log2 n additions and n products, and p at the end."""
    p, d = weight.shape
    if not isinstance(weight, HadamardWeight):
        return float(2 * p * d)
    return float(weight.signs.size * (math.log2(weight.signs.shape[2]) + 1.0) + p)


def map_work(chain: FeatureMap, n: int, dtype: str = "float32", *, input_bytes: int = 1, stored: bool = False) -> Work:
    """phi of n samples: one product per layer, all at the rate of GEMM; ``stored`` counts the features written."""
    flops = float(n) * sum(product_flops(layer.weight) for layer in chain.layers)
    traffic = float(n) * chain.input_dim * input_bytes
    if stored:
        traffic += float(n) * chain.output_dim * (4 if dtype == "float32" else 8)
    return Work({f"{_prefix(dtype)}gemm": flops}, traffic)


def pass_work(chain: FeatureMap, n: int, dtype: str = "float32") -> Work:
    """G and C of n labelled samples: the map, then n p^2 flops on one triangle. Class sums are no product.

    Bytes under the identity map count alike, at the rate of SYRK: sums of integers may take less than this floor.
    """
    triangle = float(n) * chain.output_dim**2
    return map_work(chain, n, dtype) + Work({f"{_prefix(dtype)}syrk": triangle})


def factor_work(p: int, columns: int = 0) -> Work:
    """Cholesky of order p and two triangular solves for ``columns`` right-hand sides, float64."""
    return Work({"dpotrf": p**3 / 3.0, "dgemm": 2.0 * p * p * columns})


def pipeline_work(chain: FeatureMap, n_train: int, n_validation: int, n_test: int) -> dict[str, Work]:
    """The floor of a run by stage: the pass, one eigenvalue-only factorisation, and the features of held-out rows.

    train 2 n p d + n p^2, validation and test 2 n p d flops (identity: no 2 n p d; structured: ``product_flops``).
    """
    p = chain.output_dim
    factorisation = Work({"eigvalsh": 4.0 / 3.0 * p**3})
    return {
        "statistics": pass_work(chain, n_train),
        "ridge": factorisation + map_work(chain, n_validation),
        "evaluate": map_work(chain, n_test),
    }


def as_json(work: Work) -> dict[str, Any]:
    """For result files."""
    return {"flops": work.total_flops, "flops_by_routine": dict(work.flops), "bytes": work.bytes}
