"""What only CUDA has, on the emulated device and on a GPU: products of halves, slices of narrow maps, placed matrices,
G that stays there, preimages by Cholesky.

Names with "small" also run under NVIDIA's compute-sanitizer (benchmarks/gpu).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

import krrdistill as kd
import tolerances
from conftest import CUDA_ROWS, emulated_backend, stages
from krrdistill.backends import Layer, products_in
from krrdistill.backends import cuda as module
from krrdistill.backends.cuda import CudaBackend
from krrdistill.common.products import cholesky, eigenvectors, gram, largest_magnitude, product, solve_factored
from krrdistill.construct.orthogonal import OrthogonalDual
from test_cuda import graded, hidden

Array = npt.NDArray[Any]
FLOAT32, FLOAT64 = np.dtype("float32"), np.dtype("float64")
SMALL = [(1, 1), (15, 16), (17, 127), (33, 128), (70, 129), (300, 20)]
LARGE = [(2049, 40), (4200, 9)]
FULL = [(5000, 257), (20_000, 1030)]  # on a GPU


@pytest.fixture(scope="module", params=CUDA_ROWS)
def cuda(request: pytest.FixtureRequest) -> Any:
    """The backend itself, without options where there is a GPU."""
    if request.param == "cuda":
        return CudaBackend()
    staged: Any = emulated_backend(request.getfixturevalue("cuda_emulated"))
    return staged.inner


def is_real(cuda: Any) -> bool:
    return cuda.name == "cuda"


def gram_of(cuda: Any, X: Any, labels: Array) -> tuple[Array, Array, Any]:
    """(G, C, how they were formed) of rows that are the features."""
    p = X.shape[1]
    there, cross = cuda.zero_gram(p), np.zeros((int(labels.max()) + 1, p))
    used = cuda.accumulate(stages(p), X, labels, there, cross, dtype=FLOAT32)
    return np.asarray(there), cross, used


def relative(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def families(rng: np.random.Generator, n: int, p: int) -> dict[str, Array]:
    normal = rng.standard_normal((n, p))
    return {
        "positive": np.abs(normal),
        "normal": normal,
        "offset": 30.0 + normal,
        "sparse": (rng.random((n, p)) < 0.02) * rng.random((n, p)),
        "constant": np.full((n, p), 0.7),
        "least": np.full((n, p), 2.0**-24),
        "largest": np.full((n, p), 65504.0),
    }


def check_halves(cuda: Any, numbers: Array) -> None:
    """Within the bound that is told, with the same bits in two runs."""
    X, labels = numbers.astype(np.float16), np.arange(len(numbers)) % 3
    exact = X.astype(np.float64)
    found, cross, used = gram_of(cuda, X, labels)
    if not exact.any():
        return
    assert used.arithmetic == "halves"
    expected = exact.T @ exact
    assert relative(found, expected) * np.linalg.norm(expected) <= used.bound * np.linalg.norm(expected, 2)
    assert used.bound <= products_in(FLOAT32).rounding
    wanted = np.eye(len(cross))[labels].T
    tolerances.assert_reduction(cross, wanted @ exact, FLOAT64, len(X), wanted @ np.abs(exact))
    again, _, _ = gram_of(cuda, X, labels)
    tolerances.assert_exact(again, found)


@pytest.mark.parametrize(("n", "p"), SMALL)
def test_halves_small(cuda: Any, rng: np.random.Generator, n: int, p: int) -> None:
    check_halves(cuda, rng.standard_normal((n, p)))


@pytest.mark.parametrize("family", families(np.random.default_rng(0), 1, 1))
def test_halves_of_many_rows(cuda: Any, rng: np.random.Generator, family: str) -> None:
    for n, p in [*LARGE, *(FULL if is_real(cuda) else [])]:
        check_halves(cuda, families(rng, n, p)[family])


@pytest.mark.gpu
def test_halves_of_a_framework_lie_anywhere(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    cuda = CudaBackend()
    whole = torch.from_numpy(rng.standard_normal((3000, 210))).cuda()
    for kind in (torch.float16, torch.bfloat16):
        halves = whole.to(kind)
        for X in (halves, halves[::2], halves[1:, 3:200], halves.T[:, :400], halves[:, ::3]):
            exact = X.double().cpu().numpy()
            found, _, used = gram_of(cuda, X, np.zeros(len(X), np.int64))
            assert used.arithmetic == "halves"
            expected = exact.T @ exact
            assert np.linalg.norm(found - expected) <= used.bound * np.linalg.norm(expected, 2)


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize(("n", "p"), [*SMALL, (4500, 33)])
def test_slices_of_narrow_maps_small(cuda: Any, rng: np.random.Generator, n: int, p: int, outliers: bool) -> None:
    X = rng.standard_normal((n, p)).astype(np.float32)
    if outliers:
        X[n // 2] *= 1e6  # of which float32 chains know nothing worse
    exact, labels = X.astype(np.float64), np.arange(n) % 3
    found, _, used = gram_of(cuda, X, labels)
    assert used.arithmetic in ("slices", "float32")
    assert relative(found, exact.T @ exact) <= used.rounding
    again, _, _ = gram_of(cuda, X, labels)
    tolerances.assert_exact(again, found)


def test_g_that_stays_small(cuda: Any, rng: np.random.Generator) -> None:
    X = rng.standard_normal((90, 37))
    expected, own = X.T @ X, cuda.zero_gram(37)
    cuda.accumulate(stages(37), X, np.zeros((90, 0)), own, np.zeros((0, 37)), dtype=FLOAT64)
    tolerances.assert_reduction(np.asarray(own), expected, FLOAT64, 90, np.abs(X).T @ np.abs(X))
    twice = own.copy()
    twice.add(own)
    tolerances.assert_exact(np.asarray(twice), 2.0 * np.asarray(own))
    assert twice.trace() == 2.0 * own.trace()
    packed = twice.packed(5)
    packed.write(np.arange(5.0))
    tolerances.assert_exact(packed.read(), np.arange(5.0))
    tolerances.assert_exact(np.asarray(packed.unpacked()), np.asarray(twice))
    twice.add(own, -1)
    tolerances.assert_exact(np.asarray(twice), np.asarray(own))


PLACED: dict[str, Callable[[Any, Array, Array], tuple[Any, Array]]] = {
    "product": lambda cuda, A, B: (product(cuda.place(A), B), A @ B),
    "product of transposes": lambda cuda, A, B: (product(cuda.place(B).T, cuda.place(A).T), B.T @ A.T),
    "product with few": lambda cuda, A, B: (product(cuda.place(A), B[:, :1]), A @ B[:, :1]),
    "vector": lambda cuda, A, B: (A[:, 0] @ cuda.place(A), A[:, 0] @ A),
    "gram": lambda cuda, A, B: (gram(cuda.place(A)), A @ A.T),
    "gram of a transpose": lambda cuda, A, B: (gram(cuda.place(A).T), A.T @ A),
    "difference": lambda cuda, A, B: (cuda.place(A) - 2.0 * cuda.place(B).T, A - 2.0 * B.T),
    "row": lambda cuda, A, B: (cuda.place(A) + A[3], A + A[3]),
    "factors": lambda cuda, A, B: (cuda.scaled_columns(cuda.place(A), B[:, 0]), A * B[:, 0]),
}


@pytest.mark.parametrize("name", PLACED)
def test_placed_products_small(cuda: Any, rng: np.random.Generator, name: str) -> None:
    for m, n in [(7, 5), (30, 70), *([(700, 300)] if is_real(cuda) else [])]:
        A, B = rng.standard_normal((m, n)), rng.standard_normal((n, m))
        found, expected = PLACED[name](cuda, A, B)
        tolerances.assert_reduction(np.asarray(found), expected, FLOAT64, max(m, n), float(30 * max(m, n)))
        assert largest_magnitude(cuda.place(A)) == np.abs(A).max()


def test_placed_factors_small(cuda: Any, rng: np.random.Generator) -> None:
    for n in (3, 45, *((129, 600) if is_real(cuda) else ())):
        root, B = rng.standard_normal((n, n)), rng.standard_normal((n, 4))
        A = root @ root.T + n * np.eye(n)
        condition = float(np.linalg.cond(A))
        lower, estimate = cholesky(cuda.place(A), 1.0)
        assert lower is not None
        assert condition / n < estimate * 10.0
        shifted = A + np.eye(n)
        for columns in (B, B[:, :1], np.asfortranarray(B)):
            solved = solve_factored(lower, cuda.place(columns))
            tolerances.assert_solve(np.asarray(solved), scipy.linalg.solve(shifted, columns), condition)
        assert cholesky(cuda.place(-A), 1.0) == (None, float("inf"))
        values, vectors = eigenvectors(cuda.place(A))
        tolerances.assert_solve(values, scipy.linalg.eigvalsh(A), 1.0)
        V = np.asarray(vectors)
        tolerances.assert_solve((V * values) @ V.T, A, float(n))


def test_placed_noise_small(cuda: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPERATIONS_PER_NUMBER", 0.0)
    Q, _ = np.linalg.qr(rng.standard_normal((40, 3)))
    W = rng.standard_normal((3, 50))
    expected = OrthogonalDual.of(Q, W, seed=7)
    with cuda.dense():
        found = OrthogonalDual.of(Q, W, seed=7)
        tolerances.assert_solve(np.asarray(found.noise), np.asarray(expected.noise), 1.0)
        tolerances.assert_solve(np.asarray(found.array()), np.asarray(expected.array()), 1.0)


@pytest.mark.parametrize("activation", ["leaky_relu", "cosine"])
def test_placed_activations_small(cuda: Any, rng: np.random.Generator, activation: str) -> None:
    T, near = rng.standard_normal((20, 30)), rng.standard_normal((20, 30))
    layer = Layer(np.eye(30), None, activation, 0.3)
    H = 0.3 * np.cos(T) if activation == "cosine" else np.where(T > 0, T, 0.3 * T)
    found = np.asarray(cuda.undo_activation(layer, cuda.place(H), cuda.place(near))) + near
    again = 0.3 * np.cos(found) if activation == "cosine" else np.where(found > 0, found, 0.3 * found)
    tolerances.assert_solve(again, H, 1.0)
    assert activation == "cosine" or np.allclose(found, T)
    assert np.abs(found - near).max() <= np.pi + 1e-9 or activation != "cosine"


WEIGHTS = {
    "good": graded(13, 20, 10.0),
    "graded": graded(13, 20, 1e9),
    "hidden": hidden(26, 31),
    "square": graded(40, 40, 1e3),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_preimages_small(cuda: Any, rng: np.random.Generator, kind: str) -> None:
    weight = WEIGHTS[kind]
    p, _ = weight.shape
    right = rng.standard_normal((9, p))
    expected = right @ scipy.linalg.pinv(weight, rtol=1e-15).T
    for found in (cuda.preimage_solve(weight, right), np.asarray(cuda.preimage_solve(weight, cuda.place(right)))):
        assert np.linalg.norm(found @ weight.T - right) <= 1e-9 * np.linalg.norm(found) * np.linalg.norm(weight)
        tolerances.assert_solve(found, expected, float(np.linalg.cond(weight)))


@pytest.mark.parametrize("start", ["noise", "real"])
@pytest.mark.parametrize("kernel", ["identity", "FCNN", "random_fourier", "orthogonal_fourier"])
def test_whole_runs_with_placed_matrices(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, kernel: str, start: str
) -> None:
    monkeypatch.setattr(module, "_OPERATIONS_PER_NUMBER", 0.0)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    n, d = (4000, 300) if is_real(cuda) else (300, 24)
    y = np.arange(n) % 3
    X = (rng.integers(0, 200, (n, d)) + 20 * y[:, None]).astype(np.uint8)
    options = {} if kernel == "identity" else {"seed": 1}
    phi = kd.make_map(kernel, X, kd.standardize(X), **options, **({"sigma2": 1e3} if "fourier" in kernel else {}))
    result = kd.distill(X, y, phi, backend=cuda, init=start, points_per_class=10, lambdas=[100.0])
    assert result.distilled.weight_error is not None
    assert result.distilled.weight_error <= tolerances.EXACT_WEIGHTS
    expected = kd.fit_model(kd.RidgeStatistics(phi, 3, backend="array").update(X, y), 100.0)
    assert relative(result.model.W, expected.W) < 0.5  # of other rows: some are held out
