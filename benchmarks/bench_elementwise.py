"""The parts of the pass that are no product, on every instruction set: uint8 to standardised float, bias, LeakyReLU,
cosine, and the rounds of a structured weight.

A map with one input per sample makes the layer's product a mere write of its outputs, so the epilogue is what is timed;
``linear`` is that write alone. The note of a row: its time against the floor of the FCNN's pass over as many rows.
"""

# mypy: disable-error-code="import-not-found"
# oracles and tolerances are the tests'.
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import oracles
import tolerances
from harness import Recorder, backend_or_skip
from krrdistill.backends import HadamardWeight, Layer
from krrdistill.maps import FeatureMap
from numpy_pipeline import features
from problem import Problem
from work import Work, map_work, pass_work

_ROWS = 2048
_ACTIVATIONS = ("linear", "leaky_relu", "cosine")
_ISAS = ("base", "avx2", "avx512")


@pytest.fixture(params=[*(f"native-{isa}" for isa in _ISAS), "numba", "array", "numpy"])
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Backend names, the native one on each instruction set of this CPU and build."""
    kind, _, isa = request.param.partition("-")
    if kind != "native":
        yield kind
        return
    backend_or_skip("native")
    module: Any = importlib.import_module("krrdistill._native")
    facts = module.build_facts()
    if isa not in facts["isas"]:
        pytest.skip(f"this CPU and build have {', '.join(facts['isas'])}, not {isa}")
    module.set_isa(isa)
    yield kind
    module.set_isa(facts["isa"])


def _transform(name: str, chain: FeatureMap, X: Any) -> Callable[[], Any]:
    if name == "numpy":
        return lambda: features(chain, X)
    backend = backend_or_skip(name)
    return lambda: backend.transform(chain, X, dtype=np.dtype(np.float32))


def test_load(record: Recorder, problem: Problem, name: str) -> None:
    chain, X = problem.feature_map("identity"), problem.x_train[:_ROWS]
    the_pass = pass_work(problem.feature_map("FCNN"), len(X))
    found = record(_transform(name, chain, X), map_work(chain, len(X), stored=True), share_of=the_pass)
    wanted = oracles.features(X.T, (), chain.scale, chain.shift).T
    magnitude = oracles.feature_magnitude(X.T, (), chain.scale, chain.shift).T
    tolerances.assert_elementwise(found, wanted, np.float32, magnitude)


@pytest.mark.parametrize("activation", _ACTIVATIONS)
def test_epilogue(record: Recorder, problem: Problem, activation: Any, name: str) -> None:
    p = problem.dataset.input_dim
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((p, 1)).astype(np.float32)
    bias = (2.0 * np.pi * rng.random(p)).astype(np.float32)
    chain = FeatureMap(1, (Layer(weight, bias, activation, 0.1),))
    X = rng.standard_normal((_ROWS, 1)).astype(np.float32)
    # written by the product, then read and written by the epilogue
    work, the_pass = Work(bytes=3.0 * 4.0 * _ROWS * p), pass_work(problem.feature_map("FCNN"), _ROWS)
    found = record(_transform(name, chain, X), work, share_of=the_pass, elements=_ROWS * p)
    wanted = oracles.features(X.T, chain.layers).T
    magnitude = oracles.feature_magnitude(X.T, chain.layers).T
    tolerances.assert_reduction(found, wanted, np.float32, 1, magnitude)


def test_rounds(record: Recorder, problem: Problem, name: str) -> None:
    """H W^T with the weight of orthogonal_fourier: at least, rows are read and results written."""
    (layer,) = problem.feature_map("orthogonal_fourier").layers
    assert isinstance(layer.weight, HadamardWeight)
    p, d = layer.weight.shape
    chain = FeatureMap(d, (Layer(layer.weight, None, "linear", 1.0),))
    X = np.random.default_rng(0).standard_normal((_ROWS, d)).astype(np.float32)
    work, the_pass = Work(bytes=4.0 * _ROWS * (d + p)), pass_work(problem.feature_map("FCNN"), _ROWS)
    found = record(_transform(name, chain, X), work, share_of=the_pass, elements=_ROWS * p)
    wanted = oracles.features(X.T, chain.layers).T
    magnitude = oracles.feature_magnitude(X.T, chain.layers).T
    tolerances.assert_reduction(found, wanted, np.float32, d, magnitude)
