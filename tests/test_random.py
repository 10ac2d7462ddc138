"""Random numbers: the stream is part of the file format, so the golden values below never change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

import oracles
import tolerances
from krrdistill.common import random
from krrdistill.common.random import Stream, normal, permutation, signs, uniform

SEEDS = st.integers(0, 2**64 - 1)
STREAMS = st.sampled_from([*Stream, Stream.WEIGHTS + 1, Stream.WEIGHTS + 7])
DRAWS = (uniform, normal, permutation, signs)
# Where AS 241 goes from one rational function to the next, and the ends of what uniform can return.
BRANCHES = (0.075, 0.925, float(np.exp(-25.0)))
EXTREMES = (2.0**-53, 1.0 - 2.0**-53, 0.5 - 2.0**-53, 0.5 + 2.0**-53)


def test_streams_are_pinned() -> None:
    names = {stream.name: int(stream) for stream in Stream}
    pinned = {"SPLIT": 1, "NOISE": 2, "REAL_POINTS": 3, "SUBSAMPLE": 4, "FOURIER_BIAS": 5, "WEIGHTS": 16}
    assert {name: names[name] for name in pinned} == pinned
    assert len(set(names.values())) == len(names)
    families = ("WEIGHTS", "BATCHES")  # of one stream per layer, and of one per epoch
    assert max(value for name, value in names.items() if name not in families) < Stream.WEIGHTS
    assert Stream.WEIGHTS + 1_000_000 < Stream.BATCHES


@pytest.mark.parametrize(
    ("draw", "seed", "stream", "expected"),
    [
        (uniform, 0, 2, ("0x1.a0fd70193ff81p-1", "0x1.c23baf57f9b42p-2", "0x1.32e9cead1c32ap-2")),
        (uniform, 2**64 - 1, 17, ("0x1.4cc2dd7b2f7cep-2", "0x1.69ca1de602029p-1", "0x1.d70b65e2f26a0p-6")),
        (normal, 0, 2, ("0x1.c9e8afdc4bdf9p-1", "-0x1.36d7aa934649fp-3", "-0x1.0ce7c9eca9ccap-1")),
        (normal, 2**64 - 1, 17, ("-0x1.d0c2a3ba90469p-2", "0x1.164a9049c52bdp-1", "-0x1.e644bdbd265bdp+0")),
    ],
)  # fmt: skip
def test_golden_numbers(draw: Callable[..., Any], seed: int, stream: int, expected: tuple[str, ...]) -> None:
    assert tuple(value.hex() for value in draw(seed, stream, len(expected)).tolist()) == expected


def test_golden_permutations() -> None:
    assert permutation(0, Stream.SPLIT, 10).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert permutation(7, Stream.REAL_POINTS, 10).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]


def test_golden_signs() -> None:
    assert signs(0, Stream.WEIGHTS, 10).tolist() == [-1, -1, 1, -1, 1, 1, -1, 1, 1, 1]
    assert signs(7, Stream.WEIGHTS + 1, 10).tolist() == [-1, -1, 1, -1, -1, 1, 1, -1, 1, -1]


@given(SEEDS, STREAMS, st.integers(0, 9))
def test_bits_are_philox(seed: int, stream: int, n: int) -> None:
    words = oracles.philox(seed | (int(stream) << 64), n)
    tolerances.assert_exact(uniform(seed, stream, n), [((word >> 12) + 0.5) / 2**52 for word in words])
    assert permutation(seed, stream, n).tolist() == sorted(range(n), key=words.__getitem__)
    assert signs(seed, stream, n).tolist() == [-1 if word >> 63 else 1 for word in words]


@given(SEEDS, STREAMS, st.integers(1, 200), st.integers(0, 200))
def test_shorter_draws_are_prefixes(seed: int, stream: int, n: int, more: int) -> None:
    for draw in (uniform, normal, signs):
        tolerances.assert_exact(draw(seed, stream, n + more)[:n], draw(seed, stream, n))


def reference_normal(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    out = np.empty(len(raw))
    random._normal_from_bits(raw, out)
    return out


@pytest.mark.parametrize("chunk", [1, 7, 99, 100, 101])
def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    raw = random._bits(3, Stream.NOISE, 100)
    whole = reference_normal(raw)
    monkeypatch.setattr(random, "_CHUNK", chunk)
    tolerances.assert_exact(reference_normal(raw), whole)


def special_bits() -> npt.NDArray[np.uint64]:
    """Bits that give the ends of the range, and uniform numbers around the branches of the inverse normal."""
    near = [round(u * 2**52) + step for u in (*BRANCHES, 0.5) for step in (-2, -1, 0, 1, 2)]
    return np.array([0, 1, 2**12 - 1, 2**12, 2**64 - 1, 2**63, *(value << 12 for value in near)], np.uint64)


@pytest.mark.parametrize("n", [0, 1, 2, 4095, 4096, 4097, 200_000])
def test_compiled_normal_is_the_reference_to_the_last_bit(native_module: ModuleType, n: int) -> None:
    raw = np.concatenate([random._bits(5, Stream.WEIGHTS, n), special_bits()])
    out = np.empty(len(raw))
    native_module.normal_from_bits(raw, out)
    tolerances.assert_exact(out, reference_normal(raw))


@pytest.mark.usefixtures("native_module")
def test_normal_without_the_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = normal(9, Stream.WEIGHTS, 5000)
    monkeypatch.setitem(sys.modules, "krrdistill._native", None)
    monkeypatch.delattr("krrdistill._native")
    tolerances.assert_exact(normal(9, Stream.WEIGHTS, 5000), compiled)


@pytest.mark.parametrize("draw", DRAWS)
def test_seeds_and_streams_differ(draw: Callable[..., Any]) -> None:
    draws = [tuple(draw(seed, stream, 20)) for seed in (0, 1, 2**63) for stream in (*Stream, Stream.WEIGHTS + 1)]
    assert len(set(draws)) == len(draws)
    assert tuple(draw(1, Stream.NOISE, 20)) in draws


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("n", [0, 1])
def test_few_numbers(draw: Callable[..., Any], n: int) -> None:
    assert draw(0, Stream.NOISE, n).shape == (n,)


def test_equal_keys_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.arange(1000, dtype=np.uint64) % np.uint64(7)
    monkeypatch.setattr(random, "_bits", lambda seed, stream, n: keys[:n])
    assert permutation(0, Stream.SPLIT, 1000).tolist() == sorted(range(1000), key=keys.tolist().__getitem__)


@given(SEEDS, st.integers(0, 300))
def test_permutation_holds_every_index_once(seed: int, n: int) -> None:
    order = permutation(seed, Stream.SPLIT, n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


@pytest.mark.parametrize("power", [0, 1, 3, 8, 11, 14, 15])
def test_inverse_normal_agrees_with_scipy(power: int) -> None:
    u = uniform(1, Stream.NOISE, 5000) * 10.0**-power
    for points in (u[u > 0], 1.0 - u[(u > 0) & (u < 0.5)]):
        inner = points[points < 1.0]
        tolerances.assert_elementwise(random._inverse_normal(inner), ndtri(inner), np.float64)


def test_inverse_normal_at_branches_and_extremes() -> None:
    u = np.array([*BRANCHES, *np.nextafter(BRANCHES, 0.0), *np.nextafter(BRANCHES, 1.0), *EXTREMES])
    tolerances.assert_elementwise(random._inverse_normal(u), ndtri(u), np.float64)


@given(SEEDS)
def test_inverse_normal_is_odd(seed: int) -> None:
    u = uniform(seed, Stream.NOISE, 50)  # 1 - u is exact
    tolerances.assert_exact(random._inverse_normal(1.0 - u), -random._inverse_normal(u))


def test_logarithm_agrees_with_numpy() -> None:
    split = float(np.sqrt(0.5))  # where the mantissa is doubled
    edges = [*EXTREMES, split, np.nextafter(split, 0.0), np.nextafter(split, 1.0), *2.0 ** -np.arange(1.0, 53.0)]
    x = np.concatenate([uniform(3, Stream.NOISE, 5000), uniform(4, Stream.NOISE, 500) * 1e-12, edges])
    tolerances.assert_elementwise(random._negative_log(x), -np.log(x), np.float64)


@pytest.mark.parametrize("stream", [Stream.NOISE, Stream.WEIGHTS])
def test_moments(stream: int) -> None:
    n = 100_000
    u, z = uniform(11, stream, n), normal(11, stream, n)
    assert 0.0 < u.min() < u.max() < 1.0
    cases = [  # sample, mean, standard deviation of one term
        (u, 1 / 2, np.sqrt(1 / 12)), (u * u, 1 / 3, np.sqrt(4 / 45)), (u[1:] * u[:-1], 1 / 4, np.sqrt(7 / 144)),
        (z, 0, 1), (z**2, 1, np.sqrt(2)), (z**3, 0, np.sqrt(15)), (z**4, 3, np.sqrt(96)), (z[1:] * z[:-1], 0, 1),
        (z * normal(12, stream, n), 0, 1), (z * normal(11, stream + 1, n), 0, 1), (z > 1.6448536269514722, 0.05, 0.22),
    ]  # fmt: skip
    for sample, mean, deviation in cases:
        assert abs(np.mean(sample) - mean) < tolerances.statistical(len(sample), deviation)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(
    ("seed", "kind", "message"),
    [
        (-1, ValueError, "seed must be at least 0, got -1"),
        (2**64, ValueError, "seed must be below 2"),
        (1.5, TypeError, "seed must be an integer, got 1.5"),
        (True, TypeError, "seed must be an integer, got True"),
        ("7", TypeError, "seed must be an integer, got '7'"),
        (None, TypeError, "seed must be an integer, got None"),
    ],
)
def test_bad_seeds(draw: Callable[..., Any], seed: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        draw(seed, Stream.NOISE, 3)


def test_numpy_integers_are_seeds() -> None:
    tolerances.assert_exact(normal(np.uint64(2**64 - 1), 1, 5), normal(2**64 - 1, 1, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("first", [0, 3, 5])
def test_numbers_do_not_depend_on_the_threads_that_draw_them(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr(random, "_PART", 16)
    monkeypatch.setattr(random, "allowed_threads", lambda: 3)
    together = random._bits(4, 2, 150, first)
    monkeypatch.setattr(random, "allowed_threads", lambda: 1)
    tolerances.assert_exact(random._bits(4, 2, 150, first), together)
    tolerances.assert_exact(np.random.Philox(key=4 | (2 << 64)).random_raw(150 + first)[first:], together)
