"""krrdistill.interop.torch: operators with their derivatives, modules and data sets, against oracle and backends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import krrdistill as kd
import oracles
import tolerances
from krrdistill.errors import DataError, NotPositiveDefinite
from krrdistill.maps import ConvolutionalNetwork, FeatureMap

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
interop = pytest.importorskip("krrdistill.interop.torch")

P, K = 5, 3


def problem(dtype: Any = torch.float64, p: int = P) -> tuple[Any, Any, Any]:
    """(G, C, lambdas) that need gradients."""
    generator = torch.Generator().manual_seed(4)
    A = torch.randn((p + 3, p), generator=generator, dtype=torch.float64)
    C = torch.randn((K, p), generator=generator, dtype=torch.float64)
    tensors = (A.T @ A, C, torch.tensor([0.3, 2.0, 10.0], dtype=torch.float64))
    return tuple(tensor.to(dtype).requires_grad_() for tensor in tensors)  # type: ignore[return-value]


def condition(G: Any, lambda_: Any) -> float:
    return oracles.condition(G.detach().double().numpy() + float(lambda_) * np.eye(len(G)))


# Values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [1, 5, 70])
def test_solve_and_path(dtype: str, p: int) -> None:
    G, C, lambdas = (tensor.detach() for tensor in problem(getattr(torch, dtype), p))
    path = interop.ridge_path(G, C, lambdas)
    assert (path.dtype, path.shape) == (G.dtype, (3, K, p))
    for W, value in zip(path, lambdas, strict=True):
        expected = oracles.ridge_of_statistics(G.double().numpy(), C.double().numpy(), float(value))
        for found in (W, interop.ridge_solve(G, C, value), interop.ridge_solve(G, C, float(value))):
            assert found.dtype == G.dtype
            tolerances.assert_solve(found.double().numpy(), expected, condition(G, value), np.dtype(dtype))


def test_they_are_the_functions_of_the_package() -> None:
    X = np.random.default_rng(1).standard_normal((40, P))
    statistics = kd.RidgeStatistics(kd.Identity(P), K, precision="float64").update(X, np.arange(40) % K)
    G, C = torch.tensor(statistics.gram), torch.tensor(statistics.cross)
    tolerances.assert_exact(interop.ridge_solve(G, C, 0.5), kd.fit_ridge(statistics, 0.5))
    tolerances.assert_exact(interop.ridge_path(G, C, [0.5, 2.0]), kd.ridge_path(statistics, [0.5, 2.0]).weights)


def test_only_the_symmetric_part_of_the_gram_matrix_counts() -> None:
    G, C, lambdas = (tensor.detach() for tensor in problem())
    skew = torch.triu(torch.ones_like(G), 1)
    for call in (lambda A: interop.ridge_solve(A, C, 1.0), lambda A: interop.ridge_path(A, C, lambdas)):
        tolerances.assert_solve(call(G + skew - skew.T), call(G), condition(G, 0.3))


# Derivatives


def test_gradients_are_those_of_finite_differences() -> None:
    G, C, lambdas = problem()
    assert torch.autograd.gradcheck(interop.ridge_solve, (G, C, lambdas[1].detach().requires_grad_()))
    assert torch.autograd.gradcheck(interop.ridge_path, (G, C, lambdas))


def test_so_are_second_derivatives() -> None:
    G, C, lambdas = problem()
    assert torch.autograd.gradgradcheck(interop.ridge_solve, (G, C, lambdas[1].detach().requires_grad_()))
    assert torch.autograd.gradgradcheck(interop.ridge_path, (G, C, lambdas))


def test_gradients_are_those_of_a_plain_solve() -> None:
    G, C, lambdas = problem(p=30)
    weight = torch.randn((3, K, 30), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    systems = G + lambdas[:, None, None] * torch.eye(30, dtype=torch.float64)
    plain = (torch.linalg.solve(systems, C.T).mT * weight).sum()
    expected = torch.autograd.grad(plain, (G, C, lambdas))
    found = torch.autograd.grad((interop.ridge_path(G, C, lambdas) * weight).sum(), (G, C, lambdas))
    symmetric = (expected[0] + expected[0].T) / 2
    for actual, reference in zip(found, (symmetric, *expected[1:]), strict=True):
        tolerances.assert_solve(actual, reference, condition(G, 0.3) ** 2)


def test_models_that_do_not_exist_take_no_part_in_gradients() -> None:
    G = torch.diag(torch.tensor([-1.0, 2.0], dtype=torch.float64)).requires_grad_()
    C, lambdas = torch.ones((1, 2), dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)
    path = interop.ridge_path(G, C, lambdas)
    assert torch.isnan(path[0]).all()
    tolerances.assert_solve(path[1].detach(), [[0.5, 0.2]])
    for loss in (path[1].sum(), torch.nansum(path)):
        tolerances.assert_solve(torch.autograd.grad(loss, G, retain_graph=True)[0].diagonal(), [-0.25, -0.04])
    with pytest.raises(NotPositiveDefinite, match=r"leading minor 1.*raise lambda"):
        interop.ridge_solve(G, C, 0.5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # PyTorch's own, at its first jvp
@pytest.mark.parametrize("name", ["gram", "cross", "lambda"])
@pytest.mark.parametrize("call", ["ridge_solve", "ridge_path"])
def test_forward_mode_is_refused_rather_than_zero(call: str, name: str) -> None:
    G, C, lambdas = (tensor.detach() for tensor in problem())
    arguments = {"gram": G, "cross": C, "lambda": lambdas[:1]}

    def of(value: Any) -> Any:
        return getattr(interop, call)(*{**arguments, name: value}.values())

    value = arguments[name]
    with pytest.raises(TypeError, match=f"^{call}: {name} carries a forward tangent"):
        torch.func.jvp(of, (value,), (torch.ones_like(value),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(value, torch.ones_like(value))
        with pytest.raises(TypeError, match=f"^{call}: {name} carries a forward tangent"):
            of(dual)
    with pytest.raises(TypeError, match=f"^{call}: {name} carries a forward tangent"):
        torch.func.jacfwd(of)(value)


# torch.library and torch.compile


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_operators_pass_opcheck(requires_grad: bool) -> None:
    G, C, lambdas = (tensor.detach().requires_grad_(requires_grad) for tensor in problem())
    torch.library.opcheck(torch.ops.krrdistill.ridge_path.default, (G, C, lambdas))
    several = C.detach().expand(3, K, P).clone().requires_grad_(requires_grad)
    for strict in (True, False):
        torch.library.opcheck(torch.ops.krrdistill.ridge_solve.default, (G, several, lambdas, strict))


@pytest.mark.parametrize("name", ["ridge_solve", "ridge_path"])
def test_they_compile_into_one_graph(name: str) -> None:
    G, C, lambdas = problem()
    chosen = lambdas if name == "ridge_path" else lambdas[1].detach().requires_grad_()

    def loss(G: Any, C: Any, chosen: Any) -> Any:
        return torch.tanh(getattr(interop, name)(G, C, torch.exp(chosen))).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found, expected = compiled(G, C, chosen), loss(G, C, chosen)
    tolerances.assert_exact(found.detach(), expected.detach())
    gradients = (torch.autograd.grad(value, (G, C, chosen)) for value in (found, expected))
    for actual, reference in zip(*gradients, strict=True):
        tolerances.assert_solve(actual, reference)


# Bad arguments


@pytest.mark.parametrize("name", ["ridge_solve", "ridge_path"])
@pytest.mark.parametrize(
    ("gram", "cross", "kind", "message"),
    [
        (np.eye(2), torch.ones((1, 2)), TypeError, "gram must be a float32 or float64 tensor, got ndarray"),
        (torch.eye(2).int(), torch.ones((1, 2)), TypeError, "gram must be a float32 .* got torch.int32"),
        (torch.eye(2), torch.ones((1, 2)).half(), TypeError, "cross must be a float32 .* got torch.float16"),
        (
            torch.eye(2),
            torch.ones((1, 2)).double(),
            TypeError,
            "of one type on one device, got torch.float32 on cpu and",
        ),
        (torch.eye(2), torch.ones((1, 2), device="meta"), TypeError, "one device, got .* on cpu and .* on meta"),
        (
            torch.ones((2, 3)),
            torch.ones((1, 2)),
            DataError,
            r"gram must have shape \(p, p\) .* got \(2, 3\) and \(1, 2\)",
        ),
        (torch.eye(2), torch.ones(2), DataError, r"cross \(k, p\), got \(2, 2\) and \(2,\)"),
        (torch.eye(2), torch.ones((1, 3)), DataError, r"cross \(k, p\), got \(2, 2\) and \(1, 3\)"),
    ],
)
def test_bad_statistics(name: str, gram: Any, cross: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"{name}: .*{message}"):
        getattr(interop, name)(gram, cross, [1.0])


def test_bad_lambdas() -> None:
    G, C = torch.eye(2), torch.ones((1, 2))
    with pytest.raises(DataError, match="ridge_solve: lambda_ must be one number, got 2; ridge_path takes several"):
        interop.ridge_solve(G, C, [1.0, 2.0])
    for lambdas in (1.0, [], [[1.0]]):
        with pytest.raises(DataError, match=r"ridge_path: lambdas must have shape \(L,\), L >= 1, got \("):
            interop.ridge_path(G, C, lambdas)


# Maps and points

D = 12
MAPS: dict[str, FeatureMap] = {
    "identity": kd.Identity(D),
    "random_fourier": kd.RandomFourier(D, 10, sigma2=30.0, seed=1),
    "orthogonal_fourier": kd.OrthogonalFourier(D, 11, sigma2=30.0, seed=1),
    "FCNN": kd.FCNN(D, [11, 9], seed=1),
}


def images(n: int = 30) -> Any:
    return np.random.default_rng(2).integers(0, 256, (n, 3, 4), dtype=np.uint8)


def dataset() -> kd.Dataset:
    X = images(40)
    y = np.arange(40) % K
    return kd.Dataset("small", X, y, X[:5], y[:5], ("a", "b", "c"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("preprocessed", ["raw", "standardize", "zca"])
@pytest.mark.parametrize("name", MAPS)
def test_modules_are_the_maps(name: str, preprocessed: str, dtype: str) -> None:
    X = images()
    preprocessing = None if preprocessed == "raw" else getattr(kd, preprocessed)(dataset())
    chain = MAPS[name] if preprocessing is None else MAPS[name].with_preprocessing(preprocessing)
    module = interop.FeatureModule(chain, dtype=getattr(torch, dtype))
    found = module(torch.from_numpy(X))
    arguments = (X.reshape(len(X), -1).T, chain.layers, chain.scale, chain.shift)
    magnitude, terms = oracles.feature_magnitude(*arguments).T, D + sum(layer.weight.shape[1] for layer in chain.layers)
    assert found.dtype == getattr(torch, dtype)
    assert found.shape == (len(X), module.output_dim)
    tolerances.assert_reduction(found.numpy(), oracles.features(*arguments).T, np.dtype(dtype), terms, magnitude)


@pytest.mark.parametrize("name", MAPS)
def test_modules_move_differentiate_and_compile(name: str) -> None:
    module = interop.FeatureModule(MAPS[name].with_preprocessing(kd.standardize(dataset())))
    double = interop.FeatureModule(MAPS[name].with_preprocessing(kd.standardize(dataset()))).double()
    assert not list(module.parameters())
    X = torch.from_numpy(images(4)).double().requires_grad_()
    assert double(X).dtype == torch.float64
    assert torch.autograd.gradcheck(double, (X / 50.0,))
    compiled = torch.compile(double, fullgraph=True, backend="aot_eager")
    tolerances.assert_exact(compiled(X).detach(), double(X).detach())
    other = interop.FeatureModule(MAPS[name].with_preprocessing(kd.standardize(dataset())))
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(module.state_dict())
    tolerances.assert_exact(other(X.detach()), module(X.detach()))
    assert f"{D} -> {MAPS[name].output_dim}" in repr(module)


def test_modules_name_the_width() -> None:
    with pytest.raises(DataError, match=r"FeatureModule: X must hold rows of 12 entries, got shape \(2, 11\)"):
        interop.FeatureModule(MAPS["FCNN"])(torch.zeros((2, 11)))


def test_a_head_trained_on_the_data_set_is_the_original_model(tmp_path: Path) -> None:
    data = dataset()
    scaling = kd.standardize(data)
    result = kd.distill(data.x_train, data.y_train, MAPS["FCNN"].with_preprocessing(scaling), points_per_class=2)
    result.distilled.save(tmp_path / "set.npz")
    distilled = kd.DistilledDataset.load(tmp_path / "set.npz")
    X, Y = distilled.to_torch(dtype=torch.float64).tensors
    assert (X.shape, X.dtype, len(distilled.to_torch())) == ((2 * K, 3, 4), torch.float64, 2 * K)
    F = interop.FeatureModule(distilled.feature_map, dtype=torch.float64)(X)
    W = torch.linalg.lstsq(F, Y, driver="gelsd").solution.T
    tolerances.assert_solve(W, result.model.W, oracles.condition(F.numpy()) ** 2)
    single = distilled.to_torch().tensors
    assert [tensor.dtype for tensor in single] == [torch.float32] * 2
    for whole in (torch.int64, torch.uint8, torch.bool, np.int64):
        with pytest.raises(TypeError, match="to_torch: dtype must be a floating-point type of torch"):
            distilled.to_torch(dtype=whole)


def test_without_torch_the_error_says_how_to_get_it() -> None:
    code = """
import sys
sys.modules["torch"] = None
import krrdistill as kd
try:
    import krrdistill.interop.torch
except kd.BackendUnavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "krrdistill.interop.torch needs PyTorch" in done.stdout
    assert "pip install torch" in done.stdout


# What they do not take


@pytest.mark.parametrize(
    ("arguments", "dtype", "message"),
    [
        ("distilled", torch.float32, "must be a map, got DistilledDataset; pass distilled.feature_map"),
        ("map", torch.int32, "dtype must be a floating-point type, got torch.int32"),
        ("conv", torch.float32, "layer 1 is a Convolution, which has no weight matrix"),
    ],
)
def test_other_maps_are_refused(arguments: str, dtype: Any, message: str) -> None:
    X, phi = np.random.default_rng(1).standard_normal((40, P)), kd.Identity(P)
    given: Any = {"map": phi, "conv": ConvolutionalNetwork((6, 6, 1))}.get(arguments)
    if arguments == "distilled":
        given = kd.distill(X, np.arange(40) % 2, phi).distilled
    with pytest.raises(TypeError, match=re.escape(message)):
        interop.FeatureModule(given, dtype=dtype)


@pytest.mark.parametrize("name", ["gram", "cross"])
def test_sparse_tensors_are_refused(name: str) -> None:
    tensors = dict(zip(("gram", "cross"), (tensor.detach() for tensor in problem()), strict=False))
    tensors[name] = tensors[name].to_sparse()
    with pytest.raises(TypeError, match=rf"^ridge_solve: {name} must be dense, got torch.sparse_coo"):
        interop.ridge_solve(**tensors, lambda_=1.0)
