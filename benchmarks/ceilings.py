"""What this machine can do: BLAS products, memory, factorisations. The yardstick of every other figure here.

    python benchmarks/ceilings.py [--p 3072] [--factor-p 3072] [--repeats 5] [--json]

Measured in the calling process, through the BLAS and LAPACK that the package uses (SciPy's), on Fortran-ordered
operands with the output preallocated, so that no copy is timed. Best of several. A SYRK of n rows counts n p^2 flops
(one triangle), a GEMM 2 n p d, a Cholesky factorisation p^3 / 3, a tridiagonal reduction 4 p^3 / 3.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from machine import blas_threads, machine_facts

__all__ = ["TILE_BYTES", "Ceilings", "best_seconds", "measure"]

AnyArray = npt.NDArray[Any]
TILE_BYTES = 24 << 20  # of the float32 features of one timed product; a tile of the pass has up to twice as many
_STREAM_BYTES = 128 << 20  # of one array of the bandwidth tests: beyond the last-level cache


@dataclass(frozen=True)
class Ceilings:
    """Best rates of one process: flop/s, bytes/s of memory, seconds of factorisations of order factor_p."""

    p: int
    tile_rows: int
    factor_p: int
    threads: int
    sgemm: float
    ssyrk: float
    dgemm: float
    dsyrk: float
    copy: float
    triad: float
    eigvalsh_seconds: float
    dpotrf_seconds: float

    @property
    def eigvalsh(self) -> float:
        """flop/s of an eigenvalue-only float64 factorisation, counted as 4 p^3 / 3."""
        return 4.0 / 3.0 * self.factor_p**3 / self.eigvalsh_seconds

    @property
    def dpotrf(self) -> float:
        """flop/s of a float64 Cholesky factorisation, counted as p^3 / 3."""
        return self.factor_p**3 / 3.0 / self.dpotrf_seconds

    @property
    def bandwidth(self) -> float:
        """bytes/s, the better of copy and triad."""
        return max(self.copy, self.triad)

    def better_of(self, other: Ceilings) -> Ceilings:
        """The best of two measurements of the same machine, sizes and threads."""
        best: dict[str, Any] = asdict(self)
        for name, value in asdict(other).items():
            if name in ("p", "tile_rows", "factor_p", "threads"):
                if best[name] != value:
                    raise ValueError(f"ceilings: {name} differs ({best[name]} and {value})")
            else:
                best[name] = min(best[name], value) if name.endswith("_seconds") else max(best[name], value)
        return Ceilings(**best)


def best_seconds(function: Callable[[], Any], repeats: int, setup: Callable[[], Any] | None = None) -> float:
    """The shortest of ``repeats`` runs, each after an untimed ``setup``; the first run of all is a warm-up."""
    best = float("inf")
    for number in range(repeats + 1):
        if setup is not None:
            setup()
        start = time.perf_counter()
        function()
        seconds = time.perf_counter() - start
        if number > 0:
            best = min(best, seconds)
    return best


def measure(p: int = 3072, *, factor_p: int | None = None, repeats: int = 5, tile_rows: int | None = None) -> Ceilings:
    """All ceilings: products of a tile of ``tile_rows`` rows with p features, factorisations of order ``factor_p``."""
    n = tile_rows or max(64, TILE_BYTES // (4 * p))
    order = factor_p or p
    return Ceilings(
        p=p,
        tile_rows=n,
        factor_p=order,
        threads=blas_threads(),
        sgemm=_gemm(blas.sgemm, np.float32, n, p, repeats),
        ssyrk=_syrk(blas.ssyrk, np.float32, n, p, repeats),
        dgemm=_gemm(blas.dgemm, np.float64, n, p, repeats),
        dsyrk=_syrk(blas.dsyrk, np.float64, n, p, repeats),
        copy=_copy(repeats),
        triad=_triad(repeats),
        eigvalsh_seconds=_eigvalsh(order, repeats),
        dpotrf_seconds=_factorisation(lambda a: lapack.dpotrf(a, lower=1, clean=0, overwrite_a=1), order, repeats),
    )


def _operand(rows: int, columns: int, dtype: Any) -> AnyArray:
    drawn = np.random.default_rng(rows).standard_normal((columns, rows), dtype=dtype)
    return np.asarray(drawn.T)  # Fortran order


def _gemm(gemm: Any, dtype: Any, n: int, p: int, repeats: int) -> float:
    """C (p, n) = W^T X or W X, the better, with W (p, p) and X (p, n): the product of a map's layer."""
    weight, x = _operand(p, p, dtype), _operand(p, n, dtype)
    out = np.zeros((p, n), dtype, order="F")
    calls = [partial(gemm, 1.0, weight, x, c=out, trans_a=transposed, overwrite_c=1) for transposed in (0, 1)]
    return 2.0 * n * p * p / min(best_seconds(call, repeats) for call in calls)


def _syrk(syrk: Any, dtype: Any, n: int, p: int, repeats: int) -> float:
    """One triangle, the better, of C (p, p) += F F^T with F (p, n): the Gram matrix of a tile."""
    features = _operand(p, n, dtype)
    out = np.zeros((p, p), dtype, order="F")
    calls = [partial(syrk, 1.0, features, beta=1.0, c=out, lower=lower, overwrite_c=1) for lower in (0, 1)]
    return float(n) * p * p / min(best_seconds(call, repeats) for call in calls)


def _copy(repeats: int) -> float:
    """b = a on as many threads as BLAS has; 2 streams."""
    source, target = np.ones(_STREAM_BYTES // 8), np.zeros(_STREAM_BYTES // 8)
    threads = blas_threads()
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # copyto releases the GIL
        seconds = best_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), repeats)
    return 2.0 * _STREAM_BYTES / seconds


def _triad(repeats: int) -> float:
    """y = y + a x by daxpy; 3 streams."""
    x, y = np.ones(_STREAM_BYTES // 8), np.zeros(_STREAM_BYTES // 8)
    seconds = best_seconds(lambda: blas.daxpy(x, y, a=1e-9), repeats)
    return 3.0 * _STREAM_BYTES / seconds


def _eigvalsh(order: int, repeats: int) -> float:
    """Seconds of dsyevd without vectors; with less than the workspace it asks for it would run unblocked."""
    lwork = int(lapack.dsyevd_lwork(order, compute_v=0, lower=1)[0])
    return _factorisation(lambda a: lapack.dsyevd(a, compute_v=0, lower=1, lwork=lwork, overwrite_a=1), order, repeats)


def _factorisation(factor: Callable[[AnyArray], Any], order: int, repeats: int) -> float:
    """Seconds of an in-place factorisation of a well-conditioned symmetric matrix (p, p)."""
    drawn = _operand(order, order, np.float64)
    matrix = np.asfortranarray(drawn + drawn.T)
    matrix[np.diag_indices(order)] += 4.0 * order
    scratch = np.empty_like(matrix, order="F")
    return best_seconds(lambda: factor(scratch), max(1, repeats // 2), setup=lambda: np.copyto(scratch, matrix))


def describe(ceilings: Ceilings) -> str:
    """The ceilings in a few lines."""
    c = ceilings
    rates = ", ".join(f"{name} {getattr(c, name) / 1e9:.1f}" for name in ("sgemm", "ssyrk", "dgemm", "dsyrk"))
    products = f"products of {c.tile_rows} rows, p = {c.p}, {c.threads} BLAS thread(s), GFLOP/s: {rates}"
    memory = f"memory, GB/s: copy {c.copy / 1e9:.1f}, triad {c.triad / 1e9:.1f}"
    seconds = f"eigenvalues only {c.eigvalsh_seconds:.3f}, Cholesky {c.dpotrf_seconds:.3f}"
    return f"{products}\n{memory}\nfactorisations of order {c.factor_p}, float64, seconds: {seconds}"


def main() -> None:
    """Prints the ceilings of this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--p", type=int, default=3072, help="features of the products")
    parser.add_argument("--factor-p", type=int, default=None, help="order of the factorisations (p)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.p, factor_p=arguments.factor_p, repeats=arguments.repeats)
    if arguments.json:
        print(json.dumps({"machine": machine_facts(), "ceilings": asdict(found)}))
    else:
        print(describe(found))


if __name__ == "__main__":
    main()
