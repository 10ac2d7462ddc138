"""Errors of tensor cores, which truncate when they add: a model, for positive numbers, in units of 2^-24.

    python benchmarks/gpu/accumulators.py

Exact products and the sum so far are aligned to the largest of them, cut ``bits`` under the last bit of float32, added,
and the sum is cut to float32: eight products at a time and one bit for compute capability 8.0, sixteen and two for 9.0
(Fasi, Higham, Mikaitis and Pranesh 2021; Khattak and Mikaitis 2025). An H100 showed a bias of -1.4e-5 for 4096 rows of
bfloat16 in one accumulator (docs/measured/gpu.md); the model has the same.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CORES", "Cores", "main", "of_constants", "relative_error", "sums"]

FloatArray = npt.NDArray[np.float64]
UNIT = 2.0**-24


class Cores(NamedTuple):
    """Tensor cores of one generation."""

    products: int  # at a time
    bits: int  # under the last one of float32


CORES = {"8.0": Cores(8, 1), "9.0": Cores(16, 2)}


def _cut(x: FloatArray, size: FloatArray, bits: int) -> FloatArray:
    """x, truncated to ``bits`` bits less than the largest power of two in ``size``."""
    unit = 2.0 ** (np.floor(np.log2(np.maximum(size, np.finfo(np.float64).tiny))) - bits)
    return np.asarray(np.trunc(x / unit) * unit)


def _accumulated(cores: Cores, products: FloatArray) -> FloatArray:
    """The sum of products (n, ...) in one accumulator."""
    total = np.zeros(products.shape[1:])
    for start in range(0, len(products), cores.products):
        terms = np.concatenate([products[start : start + cores.products], total[None]])
        total = _cut(terms, np.abs(terms).max(axis=0), 23 + cores.bits).sum(axis=0)
        total = _cut(total, np.abs(total), 23)
    return total


def sums(cores: Cores, X: FloatArray, promoted: int, chains: tuple[int, ...] = ()) -> FloatArray:
    """X^T X, a new accumulator every ``promoted`` rows; float32 sums over each number of ``chains``, then float64."""
    products = X[:, :, None] * X[:, None, :]
    parts = [_accumulated(cores, products[i : i + promoted]) for i in range(0, len(X), promoted)]
    for before, rows in zip((promoted, *chains), chains, strict=False):
        chain = rows // before
        parts = [np.add.accumulate(np.array(parts[i : i + chain], np.float32))[-1] for i in range(0, len(parts), chain)]
    return np.asarray(np.sum(np.array(parts, np.float64), axis=0))


def relative_error(found: FloatArray, X: FloatArray) -> float:
    """||G - G*||_2 / ||G*||_2."""
    exact = X.T @ X
    return float(np.linalg.norm(found - exact, 2) / np.linalg.norm(exact, 2))


def of_constants() -> tuple[float, float]:
    """The worst relative errors over all float16 from 0.5 to 1, in every row: of these sums, and of one in float32."""
    squares = np.arange(0x3800, 0x3C00, dtype=np.uint16).view(np.float16).astype(np.float64) ** 2

    def chained(terms: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
        return np.asarray(np.add.accumulate(np.repeat(terms[None].astype(np.float32), count, axis=0))[-1])

    def off(found: npt.NDArray[Any], rows: int) -> float:
        return float(np.abs(found / (rows * squares) - 1.0).max())

    products = np.repeat(squares[None], 16, axis=0)
    slabs = [chained(chained(_accumulated(cores, products), 16), 8) for cores in CORES.values()]
    return max(off(slab, 2048) for slab in slabs), off(chained(squares, 256), 256)


def bfloat16(X: FloatArray) -> FloatArray:
    """The upper halves of float32."""
    return np.asarray((X.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32), np.float64)


def main() -> int:
    """Prints the table."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4096, 16))
    cases = {
        "|normal|": np.abs(normal),
        "uniform": rng.random((4096, 16)),
        "normal": normal,
        "bytes / 255": rng.integers(0, 256, (4096, 16)) / 255,
        "exp(2 normal)": np.exp(2.0 * normal),
    }
    X = bfloat16(np.abs(normal))
    for name, cores in CORES.items():
        bias = float((sums(cores, X, len(X)) / (X.T @ X) - 1.0).mean())
        print(f"{name}: bias of 4096 rows of |normal| bfloat16 in one accumulator {bias:.2e}")
    print("float16, ||dG||_2 / ||G||_2 over 2^-24, rows of an accumulator:")
    for case, numbers in cases.items():
        X = numbers.astype(np.float16).astype(np.float64)
        for name, cores in CORES.items():
            errors = {
                rows: relative_error(sums(cores, X, rows, (max(256, rows), 2048)), X) / UNIT
                for rows in (16, 32, 64, 128)
            }
            print(f"  {case:14} {name}  " + "  ".join(f"{rows}: {error:5.2f}" for rows, error in errors.items()))
    worst, plain = of_constants()
    print(f"  one constant   {worst / UNIT:.2f} at most, 16 rows; {plain / UNIT:.2f} in one float32 sum over 256 rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
