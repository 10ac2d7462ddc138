"""Random numbers that are the same on every machine, backend and version.

Raw Philox-4x64 bits (a stable stream in NumPy) are turned into numbers here, with additions, multiplications,
divisions and square roots only: IEEE 754 rounds those alike everywhere, which no libm promises for log or cos.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_seed
from krrdistill.common.native import load_native
from krrdistill.common.threads import allowed_threads, threads_for

__all__ = ["Stream", "normal", "permutation", "signs", "uniform"]

FloatArray = npt.NDArray[np.float64]
_PER_COUNT = 4  # numbers that Philox-4x64 makes of one count
_PART = 1 << 18  # numbers that a thread draws at a time
_MOST_THREADS = 8
_PER_NUMBER = 50.0  # operations of the inverse distribution function
_CHUNK = 1 << 16  # numbers at a time: the temporaries stay in the L2 cache


class Stream(IntEnum):
    """Independent streams of one seed; the values are part of the file format and never change."""

    SPLIT = 1
    NOISE = 2
    REAL_POINTS = 3
    SUBSAMPLE = 4
    FOURIER_BIAS = 5
    LABELS = 6
    HELD_OUT = 7
    PROBE = 8
    SPECTRAL = 9
    NOISE_ORDER = 10
    NOISE_SIGNS = 11
    WEIGHTS = 16  # layer l uses WEIGHTS + l
    BATCHES = 1 << 32  # epoch e uses BATCHES + e


def _bits(seed: int, stream: int, n: int, first: int = 0) -> npt.NDArray[np.uint64]:
    key = check_seed("random", seed) | (int(stream) << 64)
    before = first % _PER_COUNT
    raw, count = np.empty(before + n, dtype=np.uint64), first // _PER_COUNT

    def draw(start: int) -> None:
        part = raw[start : start + _PART]
        part[:] = np.random.Philox(key=key, counter=count + start // _PER_COUNT).random_raw(len(part))

    starts = range(0, len(raw), _PART)
    if len(starts) <= 1 or allowed_threads() == 1:
        for start in starts:
            draw(start)
    else:  # a count has its numbers whatever was drawn before it, and NumPy draws without the interpreter's lock
        with ThreadPoolExecutor(min(allowed_threads(), len(starts), _MOST_THREADS)) as pool:
            list(pool.map(draw, starts))
    return raw[before:]


def _to_unit(raw: npt.NDArray[np.uint64]) -> FloatArray:
    """(b + 1/2) / 2^52 with b the upper 52 bits: exact, never 0 or 1."""
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def uniform(seed: int, stream: int, n: int, *, first: int = 0) -> FloatArray:
    """Numbers ``first`` ... first + n - 1 of a stream from U(0, 1), shape (n,)."""
    return _to_unit(_bits(seed, stream, n, first))


def signs(seed: int, stream: int, n: int) -> npt.NDArray[np.int8]:
    """n signs of equal probability, shape (n,): -1 where the first of 64 random bits is set, else 1."""
    return np.where(_bits(seed, stream, n) >> np.uint64(63), -1, 1).astype(np.int8)


def permutation(seed: int, stream: int, n: int) -> npt.NDArray[np.int64]:
    """A uniformly random order of 0 .. n-1: the stable argsort of n random 64-bit keys."""
    return np.argsort(_bits(seed, stream, n), kind="stable").astype(np.int64)


def normal(seed: int, stream: int, n: int) -> FloatArray:
    """n numbers from N(0, 1), shape (n,): the inverse normal distribution function of U(0, 1).

    Source: M. Wichura, Algorithm AS 241, Applied Statistics 37 (1988); relative accuracy about 1e-16.
    """
    raw = _bits(seed, stream, n)
    out: FloatArray = raw.view(np.float64)  # in place
    try:
        native = load_native()
    except ImportError:
        _normal_from_bits(raw, out)
    else:
        with threads_for(_PER_NUMBER * n):
            native.normal_from_bits(raw, out)
    return out


def _normal_from_bits(raw: npt.NDArray[np.uint64], out: FloatArray) -> None:
    """The reference of the compiled function of this name: the same numbers to the last bit."""
    for start in range(0, raw.size, _CHUNK):
        out[start : start + _CHUNK] = _inverse_normal(_to_unit(raw[start : start + _CHUNK]))


# Numerators and denominators of AS 241 (PPND16), constant term first: centre, tail, far tail.
_CENTRE = (
    (3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_TAIL = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR_TAIL = (
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _horner(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value *= x
        value += coefficient
    return value


def _rational(pair: tuple[tuple[float, ...], tuple[float, ...]], x: FloatArray) -> FloatArray:
    return _horner(pair[0], x) / _horner(pair[1], x)


def _negative_log(x: FloatArray) -> FloatArray:
    """-ln(x) for 0 < x < 1: x = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.70710678118654752440
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    exponent = exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _horner(tuple(2.0 / (2 * j + 1) for j in range(12)), s * s)
    return -(exponent * 0.69314718055994530942 + s * series)


def _inverse_normal(u: FloatArray) -> FloatArray:
    q = u - 0.5
    out = q * _rational(_CENTRE, 0.180625 - q * q)
    outer = np.flatnonzero(np.abs(q) > 0.425)
    q_outer = q[outer]
    r = np.sqrt(_negative_log(np.where(q_outer < 0, u[outer], 1.0 - u[outer])))
    tail = np.where(r <= 5.0, _rational(_TAIL, r - 1.6), _rational(_FAR_TAIL, r - 5.0))
    out[outer] = np.copysign(tail, q_outer)
    return out
