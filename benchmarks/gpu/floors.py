"""The least time of each stage: its arithmetic, traffic and transfers at the rates that ``ceilings.py`` measured.

Three yardsticks stand beside a measured time. *Floor*: the arithmetic in the cheapest form that is accurate enough
(integer tensor cores where the design uses them), the bytes of device memory that must move at least, and those over
the bus; the slowest of the three, as they can overlap. *FP32*: the same with plain float32 products. *Library*: the
time that the vendors' routines for the same step took in the same session.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Need", "Rates", "embeddings_need", "library_seconds", "stage_needs", "wide_needs"]

LAMBDAS = 24
_SLICES = 3  # of 8 bits each, which float32 accuracy takes
_SLICE_PRODUCTS = 6  # n p^2 operations: S0 S0 and S1 S1 one triangle each, S0 S1 and S0 S2 whole


@dataclass(frozen=True)
class Rates:
    """flop/s of products by type, bytes/s of device memory and of the bus."""

    int8: float
    half: float
    fp32: float
    fp64: float
    memory: float
    bus: float

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]]) -> Rates | None:
        """The best of the ceilings; None where one of them is missing."""
        found = {row["id"]: row for row in rows if row.get("id") and row.get("seconds") and "failed" not in row}

        def best(work: str, *starts: str) -> float:
            rows = [row for name, row in found.items() if name.startswith(starts) and work in row]
            return max(float(row[work] / statistics.median(row["seconds"])) for row in rows)

        try:
            return Rates(
                int8=best("flops", "int8_"),
                half=best("flops", "bf16_"),
                fp32=best("flops", "sgemm_"),
                fp64=best("flops", "dgemm_"),
                memory=best("bytes", "copy"),
                bus=best("bytes", "host_to_device_pinned"),
            )
        except ValueError:  # max of nothing
            return None


@dataclass(frozen=True)
class Need:
    """Operations by type, bytes of device memory and of the bus that a stage cannot do without."""

    int8: float = 0.0
    half: float = 0.0
    fp32: float = 0.0
    fp64: float = 0.0
    memory: float = 0.0
    bus: float = 0.0
    plain_fp32: float | None = None  # operations with float32 products only; None: as above

    def __add__(self, other: Need) -> Need:
        names = ("int8", "half", "fp32", "fp64", "memory", "bus")
        plain = self._plain + other._plain
        return Need(**{name: getattr(self, name) + getattr(other, name) for name in names}, plain_fp32=plain)

    @property
    def _plain(self) -> float:
        return self.fp32 if self.plain_fp32 is None else self.plain_fp32

    def floor(self, rates: Rates) -> tuple[float, str]:
        """(seconds, what bounds them)."""
        arithmetic = self.int8 / rates.int8 + self.half / rates.half + self.fp32 / rates.fp32 + self.fp64 / rates.fp64
        bounds = {"arithmetic": arithmetic, "memory": self.memory / rates.memory, "bus": self.bus / rates.bus}
        limit = max(bounds, key=lambda name: bounds[name])
        return bounds[limit], limit

    def fp32_floor(self, rates: Rates) -> float:
        """Seconds with float32 products in the place of those of integers and halves."""
        arithmetic = self._plain / rates.fp32 + self.fp64 / rates.fp64
        return max(arithmetic, self.memory / rates.memory, self.bus / rates.bus)


def stage_needs(sizes: Mapping[str, Any], kernel: str) -> dict[str, Need]:
    """The stages of ``stages.py`` by id, for one kernel; p = d."""
    n, d, k, m = int(sizes["n"]) - int(sizes["n"]) // 20, int(sizes["d"]), int(sizes["k"]), int(sizes["n"]) // 20
    p, square = d, float(d) * d
    identity = kernel == "identity"
    plain = n * square + (0.0 if identity else 2.0 * n * square)
    exact = n * square if identity else (2.0 * _SLICES + _SLICE_PRODUCTS) * n * square
    update = Need(int8=exact, memory=float(n) * d + 8 * square, plain_fp32=plain)
    path = Need(fp64=LAMBDAS * (p**3 / 3 + 2 * square * k), memory=LAMBDAS * 2 * 8 * square)
    layer = 0.0 if identity else 2.0 * m * square
    score = Need(fp32=layer + 2.0 * m * p * k * LAMBDAS, bus=float(m) * d)
    needs = {
        "update_host": update + Need(bus=float(n) * d),
        "update_device": update,
        "path": path,
        "score": score,
        "fit": path + score,
    }
    points = Need(bus=8.0 * k * d) if identity else preimage_need(p, k)
    needs["distill"] = needs["update_host"] + needs["fit"] + points
    return needs


def preimage_need(p: int, m: int) -> Need:
    """QR of a square weight, a triangular solve and a product with Q for m points."""
    square = float(p) * p
    return Need(fp64=4 * square * p / 3 + 3.0 * m * square, bus=8.0 * m * p)


def solve_need(order: int, columns: int) -> Need:
    """Cholesky and two triangular solves, from host memory and back."""
    return Need(fp64=order**3 / 3 + 2.0 * order**2 * columns, bus=8.0 * (order**2 + order * columns))


def embeddings_need(rows: int, p: int, size: int) -> Need:
    """One pass over embeddings on the device, ``size`` bytes a value: halves in one product, float32 in slices."""
    square = float(rows) * p * p
    traffic = float(rows) * p * size
    if size == 2:
        return Need(half=square, memory=traffic, plain_fp32=square)
    return Need(int8=_SLICE_PRODUCTS * square, memory=traffic, plain_fp32=square)


def wide_needs(rows: int, p: int, k: int) -> dict[str, Need]:
    """The stages of ``wide.py`` by id."""
    square = float(p) * p
    path = Need(fp64=LAMBDAS * (p**3 / 3 + 2 * square * k), memory=LAMBDAS * 2 * 8 * square)
    update = Need(int8=_SLICE_PRODUCTS * rows * square, memory=4.0 * rows * p + 8 * square, plain_fp32=rows * square)
    return {"update_device": update, "path": path}


def library_seconds(rows: Iterable[Mapping[str, Any]], sizes: Mapping[str, Any], kernel: str) -> dict[str, float]:
    """Seconds of the vendors' routines for a stage, from the same ceilings."""
    found = {row["id"]: statistics.median(row["seconds"]) for row in rows if row.get("id") and row.get("seconds")}
    trained = int(sizes["n"]) - int(sizes["n"]) // 20
    library: dict[str, float] = {}
    if "sgemm_gram" in found and "sgemm_layer" in found:
        layer = 0.0 if kernel == "identity" else found["sgemm_layer"] * trained / min(trained, int(sizes["tile"]))
        library["update_device"] = found["sgemm_gram"] + layer
    paths = [seconds for name, seconds in found.items() if name.startswith("potrf_path")]
    if paths and "potrs" in found:
        library["path"] = min(paths) + LAMBDAS * found["potrs"]
    if "potrf_wide" in found and "potrs_wide" in found:
        library["wide_path"] = LAMBDAS * (found["potrf_wide"] + found["potrs_wide"])
    if "geqrf" in found:
        library["preimage"] = found["geqrf"]
    return library
