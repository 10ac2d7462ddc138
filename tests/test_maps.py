"""Maps without exact preimages of everything, labels only, and maps that run in Python."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
import scipy.special

import krrdistill as kd
import oracles
import tolerances
from conftest import stages
from krrdistill.apps.cli import main
from krrdistill.apps.cli.config import resolve
from krrdistill.apps.cli.settings import DistillSettings
from krrdistill.apps.distillation import map_for
from krrdistill.backends import Backend, Layer
from krrdistill.common.progress import Stopwatch
from krrdistill.construct import span
from krrdistill.construct.labels import labels_only_errors
from krrdistill.construct.span import span_model
from krrdistill.maps import FeatureMap, map_from_spec, registry
from krrdistill.maps.convolution import Convolution
from krrdistill.maps.user import load_object

pytestmark = pytest.mark.usefixtures("undrawn_pages")

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

Array = npt.NDArray[Any]
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed (pip install torch)")
EXACT = 1e-9  # relative weight error that counts as exact for these small problems
K = 4
D = 12


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    """400 samples of four overlapping classes in twelve dimensions."""
    rng = np.random.default_rng(5)
    y = np.arange(400) % K
    return rng.standard_normal((K, D))[y] + 0.8 * rng.standard_normal((400, D)), y


def distill(data: tuple[Array, Array], phi: FeatureMap, **options: Any) -> kd.Distillation:
    return kd.distill(*data, phi, **{"precision": "float64", "seed": 1, **options})


def weight_error(result: kd.Distillation) -> float:
    W = result.model.W
    return float(np.linalg.norm(result.distilled.fit() - W) / np.linalg.norm(W))


def convolution(shape: tuple[int, int, int] = (6, 5, 2), *, size: int = 3, stride: int = 2, padding: int = 1) -> Any:
    kernel = np.random.default_rng(0).standard_normal((size, size, shape[2], 3)).astype(np.float32)
    return Convolution(shape, kernel, stride=stride, padding=padding)


# Layers that run in Python


def test_chains_with_operators_on_every_backend(any_backend: Backend, dtype: Any, rng: np.random.Generator) -> None:
    operator = convolution((2, 3, 2), size=2, stride=1, padding=0)
    dense = operator.apply(np.eye(12)).T
    before, after = (rng.standard_normal(shape).astype(np.float32) for shape in ((12, 12), (5, dense.shape[0])))
    shift = rng.standard_normal(12)

    def chain(middle: Any) -> FeatureMap:
        layers = (
            Layer(before, None, "leaky_relu", 0.1),
            Layer(middle, None, "leaky_relu", 0.2),
            Layer(after, None, "cosine", 1.0),
        )
        return stages(12, layers, np.full(12, 0.5), shift)

    with_operator, with_matrix = chain(operator), chain(dense)
    X, y, rows = rng.standard_normal((20, 12)), rng.integers(0, 3, 20), np.array([3, 1, 17, 4, 4])
    oracle = kd.get_backend("array")
    F = oracle.transform(with_matrix, X, dtype=np.dtype(float), rows=rows)
    actual = any_backend.transform(with_operator, X, dtype=dtype, rows=rows)
    assert actual.dtype == dtype
    tolerances.assert_solve(actual, F, 10.0, dtype)
    gram, cross = np.zeros((5, 5)), np.zeros((3, 5))
    any_backend.accumulate(with_operator, X, y, gram, cross, dtype=dtype, rows=rows)
    any_backend.symmetrize(gram)
    tolerances.assert_solve(gram, F.T @ F, 10.0, dtype)
    tolerances.assert_solve(cross, np.eye(3)[y[rows]].T @ F, 10.0, dtype)
    weights = rng.standard_normal((2, 3, 5))
    correct = any_backend.score_path(with_operator, X, y, weights, dtype=dtype, rows=rows)
    tolerances.assert_exact(correct, [np.sum((F @ W.T).argmax(1) == y[rows]) for W in weights])


@pytest.mark.parametrize(
    "phi",
    [
        kd.FCNN(D, [15, 7], slope=0.3),
        kd.RandomFourier(D, 17, sigma2=9.0),
        kd.OrthogonalFourier(D, 9, sigma2=9.0),
        kd.DeepLinear(D, [20, 15]),
        kd.ConvolutionalNetwork((2, 3, 2), [4], kernel_size=2, stride=1, padding=1),
    ],
)
def test_jacobian_products(phi: FeatureMap, rng: np.random.Generator) -> None:
    X, V, U = rng.standard_normal((3, D)), rng.standard_normal((3, D)), rng.standard_normal((3, phi.output_dim))
    value, forward, backward = phi.linearize(X)
    tolerances.assert_solve(value, phi.transform(X, backend="array"))
    step = 1e-6
    difference = (phi.transform(X + step * V) - phi.transform(X - step * V)) / (2 * step)
    tolerances.assert_solve(forward(V), difference, 1e6)
    tolerances.assert_solve(np.vdot(U, forward(V)), np.vdot(backward(U), V), 10.0)


# Deep linear networks (Theorem 5.3)


@pytest.mark.parametrize(("widths", "r"), [([20], 12), ([20, 15], 12), ([7, 25], 7), ([30, 16, 14], 12), ([9], 9)])
@pytest.mark.parametrize("options", [{}, {"init": "real"}, {"points_per_class": 6}, {"lambda_s": "auto"}])
def test_deep_linear_networks_are_exact_for_every_m(
    data: tuple[Array, Array], widths: list[int], r: int, options: dict[str, Any]
) -> None:
    result = distill(data, kd.DeepLinear(D, widths), strict=True, **options)
    assert weight_error(result) < EXACT
    assert result.solution["method"] == "exact"
    assert result.solution["range_dimension"] == r
    outside = result.solution["outside_range"]
    assert outside is None if widths[-1] == r else 0.0 <= outside < EXACT


def test_float32_statistics_leave_the_range_and_are_put_back(data: tuple[Array, Array]) -> None:
    result = distill(data, kd.DeepLinear(D, [20]), precision="float32", lambdas=[0.1])
    assert result.solution["outside_range"] > 100 * EXACT
    assert weight_error(result) < EXACT


def test_models_outside_of_the_range_are_out_of_reach(data: tuple[Array, Array]) -> None:
    """Theorem 5.3, the negative side: what is outside of the range of M stays, for every m."""
    phi = kd.DeepLinear(D, [20])
    original = distill(data, phi).model
    W = original.W + np.random.default_rng(0).standard_normal(original.W.shape)
    Q = phi.range_basis()
    assert Q is not None
    outside = np.linalg.norm(W - W @ Q @ Q.T) / np.linalg.norm(W)
    assert outside > 0.1
    from dataclasses import replace

    for points in (1, 5):
        found = kd.distill_model(replace(original, W=W), points_per_class=points, seed=1)
        tolerances.assert_estimate(float(np.linalg.norm(found.fit() - W) / np.linalg.norm(W)), outside)


@pytest.mark.parametrize("widths", [[20], [20, 15], [7, 25]])
def test_preimage_of_a_deep_linear_network(widths: list[int], any_backend: Backend) -> None:
    phi = kd.DeepLinear(D, widths)
    X, near = np.random.default_rng(0).standard_normal((2, 5, D))
    F = phi.transform(X)
    found = phi.preimage(F, near=near, backend=any_backend)
    tolerances.assert_solve(phi.transform(found), F, 1e3)
    if min(widths) >= D:
        tolerances.assert_solve(found, X, 1e3)
    else:  # the nearest of many: the step has no part in the null space of M
        M = oracles.dense(phi.layers[1].weight) @ oracles.dense(phi.layers[0].weight)
        null = np.eye(D) - np.linalg.pinv(M) @ M
        tolerances.assert_solve((found - near) @ null, np.zeros_like(X), 1e3, magnitude=float(np.linalg.norm(X)))


def test_linear_layers_behind_a_network_have_a_linear_range(data: tuple[Array, Array]) -> None:
    layers = (*kd.FCNN(D, [10]).layers, *kd.DeepLinear(10, [16]).layers)
    phi = FeatureMap(D, layers)
    assert phi.reach == "exact"
    assert phi.range_basis().shape == (16, 10)  # type: ignore[union-attr]
    bent = FeatureMap(D, (*kd.DeepLinear(D, [16]).layers, *kd.FCNN(16, [14]).layers))
    assert bent.reach == "approximate"
    with pytest.raises(kd.NotSurjective, match="layer 2 maps 12 inputs to 14 features"):
        bent.range_basis()


# Approximate inputs


@pytest.mark.parametrize("init", ["noise", "real"])
@pytest.mark.parametrize("phi", [kd.FCNN(D, [20]), kd.RandomFourier(D, 24, sigma2=30.0)], ids=["FCNN", "fourier"])
def test_maps_without_preimages_are_exact_with_enough_points(
    data: tuple[Array, Array], phi: FeatureMap, init: str
) -> None:
    result = distill(data, phi, init=init, points_per_class=3)
    assert result.solution["method"] == "approximate"
    assert 1 <= result.solution["steps"] < 100
    assert weight_error(result) < EXACT
    assert phi.output_dim > 12  # fewer points than features: labels alone would not do


def test_unknowns_need_only_outnumber_equations(data: tuple[Array, Array]) -> None:
    """k (p - m) = 88 equations, m d = 96 unknowns: what labels reach by themselves is no equation."""
    result = distill(data, kd.RandomFourier(D, 30, sigma2=30.0), init="real", points_per_class=2)
    assert weight_error(result) < EXACT


@pytest.mark.parametrize("lambda_s", ["auto", 0.01])
def test_approximate_inputs_with_lambda_s(data: tuple[Array, Array], lambda_s: Any) -> None:
    result = distill(data, kd.FCNN(D, [20]), lambda_s=lambda_s, points_per_class=4)
    assert result.distilled.lambda_s == (result.model.lambda_ if lambda_s == "auto" else lambda_s)
    assert weight_error(result) < EXACT


def test_too_few_unknowns_leave_an_error(data: tuple[Array, Array]) -> None:
    """k (p - m) equations are more than m d unknowns: the error is large, less than at the start, and is the file's."""
    phi = kd.FCNN(D, [60])
    start = distill(data, phi, init="real", labels_only=True)
    result = distill(data, phi, init="real")
    assert 0.01 < weight_error(result) < 0.95 * weight_error(start)
    stored = distill(data, phi, init="real", store="float32")
    tolerances.assert_within(
        weight_error(stored), weight_error(result), tolerances.promised("float32") * weight_error(result)
    )


def test_strict_refuses_approximate_inputs(data: tuple[Array, Array]) -> None:
    with pytest.raises(kd.NotSurjective, match="strict: FCNN: layer 1 maps 12 inputs to 20 features"):
        distill(data, kd.FCNN(D, [20]), strict=True)


@pytest.mark.parametrize("option", [{"root": "minus"}, {"scale_labels": True}])
def test_approximate_inputs_refuse_options_of_the_closed_form(
    data: tuple[Array, Array], option: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="noise belong to exact preimages; FCNN: layer 1 maps 12"):
        distill(data, kd.FCNN(D, [20]), lambda_s=0.1, **option)


# Labels only (Theorem 4.2)


def test_labels_alone_are_exact_from_p_points_on(data: tuple[Array, Array]) -> None:
    phi = kd.FCNN(D, [20])
    errors = {}
    for points in (1, 4, 5, 7):
        result = distill(data, phi, init="real", labels_only=True, points_per_class=points, lambda_s=0.1)
        tolerances.assert_exact(result.distilled.X, data[0][result.start_rows])
        assert result.distilled.lambda_s == 0.1
        errors[points * K] = weight_error(result)
    assert errors[4] > errors[16] > 1e-3
    assert errors[20] < EXACT
    assert errors[28] < EXACT
    F = result.distilled.features()
    curve = labels_only_errors(F, result.model.W, list(errors))
    for actual, expected in zip(curve[:2], list(errors.values())[:2], strict=True):
        tolerances.assert_estimate(actual, expected)
    assert max(curve[2:]) < EXACT
    below = F[:16]
    W = result.model.W
    left = np.linalg.norm(W - W @ np.linalg.pinv(below) @ below) / np.linalg.norm(W)
    tolerances.assert_estimate(curve[1], left)


@pytest.mark.parametrize(
    ("phi", "options"),
    [
        (kd.DeepLinear(D, [20]), {"points_per_class": 2}),
        (kd.DeepLinear(D, [20]), {"points_per_class": 2, "init": "real"}),
        (kd.FCNN(D, [20]), {"points_per_class": 3, "init": "real"}),
        (kd.FCNN(D, [20]), {"points_per_class": 7, "init": "real", "labels_only": True}),
    ],
)
def test_all_ways_take_an_intercept(data: tuple[Array, Array], phi: FeatureMap, options: dict[str, Any]) -> None:
    assert weight_error(distill(data, phi, intercept=True, **options)) < EXACT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "noise"}, "labels_only keeps real inputs, it needs init = 'real', got 'noise'"),
        ({"init": "real", "lambda_s": 1.0, "root": "minus"}, "root and scale_labels have no meaning with labels_only"),
        ({"init": "real", "lambda_s": 1.0, "scale_labels": True}, "no meaning with labels_only"),
    ],
)
def test_labels_only_options(data: tuple[Array, Array], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(data, kd.Identity(D), labels_only=True, **options)


@pytest.mark.parametrize("phi", [kd.ConvolutionalNetwork((3, 4)), kd.UserMap(np.copy, D, inverse=np.copy)])
def test_realism_refuses_layers_in_python(data: tuple[Array, Array], phi: FeatureMap) -> None:
    with pytest.raises(ValueError, match=f"realism needs a map whose layers are matrices, got kernel {phi.kernel}"):
        distill(data, phi, init="real", realism=1.0)


# Maps of the user


class Rotation:
    """An orthogonal map with its inverse."""

    def __init__(self) -> None:
        self.matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]

    def __call__(self, X: Array) -> Array:
        return np.asarray(np.sinh(X @ self.matrix))

    def inverse(self, F: Array) -> Array:
        return np.asarray(np.arcsinh(F) @ self.matrix.T)


def fail_at_length(X: Array) -> Array:
    raise ValueError("so long\n" * 1000)


def expand(X: Array) -> Array:
    """More features than inputs, no inverse."""
    return np.hstack([X, X**2])


@pytest.mark.parametrize("init", ["noise", "real"])
def test_user_map_with_an_inverse_is_exact(data: tuple[Array, Array], init: str, tmp_path: Path) -> None:
    phi = kd.UserMap(Rotation(), D)
    result = distill(data, phi, init=init, points_per_class=2, strict=True)
    assert weight_error(result) < EXACT
    statistics = kd.RidgeStatistics(phi, K, precision="float64").update(*data)
    F = Rotation()(data[0])
    tolerances.assert_solve(statistics.gram, F.T @ F, 10.0)
    result.distilled.save(tmp_path / "a.npz")
    with pytest.raises(kd.DataError, match="Rotation, which is never loaded because a file says so"):
        kd.DistilledDataset.load(tmp_path / "a.npz")
    loaded = kd.DistilledDataset.load(tmp_path / "a.npz", feature_map=kd.UserMap(Rotation(), D))
    tolerances.assert_exact(loaded.fit(), result.distilled.fit())
    changed = Rotation()
    changed.matrix = changed.matrix * 1.01
    with pytest.raises(kd.DataError, match="features of the probe inputs are not those in the file"):
        kd.DistilledDataset.load(tmp_path / "a.npz", feature_map=kd.UserMap(changed, D))
    with pytest.raises(kd.DataError, match="has output_dim 24, the file's map has 12"):
        kd.DistilledDataset.load(tmp_path / "a.npz", feature_map=kd.UserMap(expand, D))
    with pytest.raises(kd.DataError, match="not of the identity map"):
        kd.DistilledDataset.load(tmp_path / "a.npz", feature_map=kd.Identity(D))


def test_user_map_is_asked_for_its_features_alone(data: tuple[Array, Array]) -> None:
    """The origin, where preimages of other maps start, need not be in its domain."""
    phi = kd.UserMap(lambda X: 1.0 / X, D, inverse=lambda F: 1.0 / F)
    F = np.random.default_rng(0).uniform(1.0, 2.0, (3, D))
    tolerances.assert_solve(phi.preimage(F), 1.0 / F)


def test_only_files_of_user_maps_take_a_map() -> None:
    with pytest.raises(kd.DataError, match="the file's map is identity, which is rebuilt"):
        map_from_spec(kd.Identity(D).spec(), kd.Identity(D))


@pytest.mark.parametrize(
    ("inverse", "fault"), [(np.arctanh, "holds NaN or infinity"), (np.tanh, "differ from F by")], ids=["NaN", "another"]
)
def test_an_inverse_that_does_not_take_every_feature_is_refused_with_the_remedy(inverse: Any, fault: str) -> None:
    phi = kd.UserMap(np.tanh, D, inverse=inverse)
    with np.errstate(invalid="ignore"), pytest.raises(kd.DataError, match=f"{fault}.*a bounded one.*--labels-only"):
        phi.preimage(np.full((1, D), 1.5))


def test_labels_of_too_alike_points_are_refused_with_the_rank_of_their_features(data: tuple[Array, Array]) -> None:
    X = np.repeat(data[0][:12], 10, axis=0)
    with pytest.warns(kd.NotExactWarning, match=r"; these 48 have rank \d+ of p = 24$"):
        kd.distill(X, np.arange(len(X)) % K, kd.UserMap(expand, D), labels_only=True, points_per_class=12, lambdas=1.0)


def test_user_map_without_inverse_learns_labels(data: tuple[Array, Array]) -> None:
    phi = kd.UserMap(expand, D)
    assert phi.reach == "none"
    assert phi.spec()["name"] == "test_maps:expand"
    said = (
        r"the map test_maps:expand has no inverse and no gradients; give it an inverse, .* \(labels_only=True, --labels"
    )
    with pytest.raises(kd.NotSurjective, match=said):
        distill(data, phi)
    result = distill(data, phi, init="real", labels_only=True, points_per_class=7)
    assert weight_error(result) < EXACT


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (5, TypeError, "UserMap: function must be callable, got int"),
        (lambda X: X[:, 0], kd.DataError, r"must give \(n, p\) for \(n, 12\), gives \(8,\) for 8 rows"),
        (lambda X: X[:3], kd.DataError, "must give"),
        (lambda X: X @ np.eye(3), kd.DataError, r"fails for rows of shape \(8, 12\): ValueError: matmul"),
        (fail_at_length, kd.DataError, r"ValueError: (so long ){30,40}(so )?\[\.\.\.\]$"),
        (lambda X: X / 0.0, kd.DataError, "gives NaN or infinity"),
        (lambda X: X.astype(str), kd.DataError, "gives dtype <U32, expected numbers"),
        (lambda X: X - X.mean(axis=0), kd.DataError, "change with the other rows or from call to call"),
        (lambda X: X + np.random.default_rng().standard_normal(X.shape), kd.DataError, "from call to call"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_user_maps(function: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kd.UserMap(function, D)


def test_bad_inverses(data: tuple[Array, Array]) -> None:
    with pytest.raises(TypeError, match="UserMap: inverse must be callable, got int"):
        kd.UserMap(expand, D, inverse=3)
    with pytest.raises(kd.DataError, match=r"the features of inverse\(F\) differ from F by"):
        distill(data, kd.UserMap(lambda X: 2.0 * X, D, inverse=lambda F: F))
    with pytest.raises(kd.DataError, match=r"inverse that gives shape \(4, 11\), expected \(4, 12\)"):
        distill(data, kd.UserMap(lambda X: 2.0 * X, D, inverse=lambda F: F[:, 1:]))


def test_callables_must_be_wrapped(data: tuple[Array, Array]) -> None:
    own = r"; a function is a map of your own: UserMap\(function, input_dim\)"
    for given, said in (
        (expand, f"got function{own}"),
        ("FCNN", r"got str; a name makes one: make_map\('FCNN', X, standardize\(X\)\)"),
        (kd.FCNN, r"got FCNN; make one: FCNN\(input_dim, ...\)"),
    ):
        with pytest.raises(TypeError, match=f"feature_map must be a map, {said}"):
            kd.distill(*data, given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"make_map: kernel must be a name, got function{own}"):
        kd.make_map(expand, data[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kip: needs a map whose layers are matrices, got kernel user"):
        kd.kip_distill(*data, kd.UserMap(expand, D))


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_module_is_followed_by_its_gradients(data: tuple[Array, Array], dtype: str) -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(D, 18), torch.nn.Tanh(), torch.nn.Linear(18, 20))
    module = torch.nn.Sequential(*layers).to(getattr(torch, dtype)).eval()
    phi = kd.UserMap(module, D)
    assert phi.reach == "approximate"
    result = distill(data, phi, init="real", points_per_class=4)
    assert weight_error(result) < (EXACT if dtype == "float64" else 1e-2)
    features = module(torch.from_numpy(data[0]).to(getattr(torch, dtype))).detach().numpy()
    tolerances.assert_solve(phi.transform(data[0]), features, dtype=np.float32)


@needs_torch
def test_torch_modules_in_training_mode_are_refused() -> None:
    with pytest.raises(kd.DataError, match=r"torch modules need .eval\(\)"):
        kd.UserMap(torch.nn.Sequential(torch.nn.Linear(D, 5), torch.nn.BatchNorm1d(5)), D)


# The command line


def test_user_map_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_map.py").write_text(
        "import numpy as np\n\n\ndef phi(X):\n    return np.sinh(X / 2)\n\n\n"
        "phi.inverse = lambda F: 2 * np.arcsinh(F)\n",
        encoding="utf-8",
    )
    arguments = ["distill", "--kernel", "own_map:phi", "--precision", "float64", "--out", "run"]
    assert main(arguments) == 0
    assert main(["verify", "run/distilled.npz", "--kernel", "own_map:phi"]) == 0
    capsys.readouterr()
    for words, message in (
        (["verify", "run/distilled.npz"], "never loaded because a file says so"),
        (["verify", "run/distilled.npz", "--kernel", "FCNN"], "--kernel names a map of your own"),
        (["verify", "run/distilled.npz", "--kernel", "own_map:other"], "cannot load 'own_map:other' from "),
        (["distill", "--kernel", "nowhere:phi", "--out", "b"], "cannot load 'nowhere:phi'"),
        (["distill", "--kernel", "own_map:phi", "--sigma2", "3", "--out", "b"], "--sigma2 belongs to --kernel"),
        (["distill", "--kernel", "FCNN", "--widths", "80", "--strict", "--out", "b"], "strict: FCNN: layer 1 maps"),
        (["distill", "--kernel", "FCNN", "--widths", "80,x", "--out", "b"], "--widths must be integers"),
        (["distill", "--kernel", "random_fourier", "--nu", "1.5", "--out", "b"], "nu belongs to spectral = 'matern'"),
        (["distill", "--labels-only", "--init", "noise", "--out", "b"], "labels_only keeps real inputs"),
        (["distill", "--kernel", "conv", "--stride", "0", "--out", "b"], "--stride must be >= 1"),
    ):
        assert main(words) in (1, 2)
        *notes, line = capsys.readouterr().err.strip().splitlines()
        assert message in line
        assert all(" gets standardised samples, unless it is a map with" in note for note in notes)
    assert not Path("b").exists()


@pytest.mark.parametrize(
    "reference", ["path_map.py:phi", "./path_map.py:phi", "sub/path_map:phi", "sub/path_map.py:phi", "none.py:phi"]
)
def test_a_map_that_is_named_by_its_file_is_refused_with_the_form_that_works(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    Path("path_map.py").write_text("def phi(X):\n    return X\n", encoding="utf-8")
    stem = Path(reference.partition(":")[0]).stem
    said = f"{reference}' names a file, not a module: write {stem}:phi, in the folder of {stem}.py or with that folder"
    with pytest.raises(ValueError, match=re.escape(said)):
        load_object(reference, D)
    assert isinstance(load_object("path_map:phi", D), kd.UserMap)


@pytest.mark.parametrize(
    ("given", "done"),
    [
        ({"kernel": "m:phi"}, "standardised"),
        ({"kernel": "m:phi", "zca": True}, "whitened"),
        ({"kernel": "FCNN", "zca": True}, None),
        ({"kernel": "m:phi", "statistics": "s.npz", "lambdas": "1"}, None),  # whose scaling it has
    ],
)
def test_the_scaling_that_an_own_map_gets_is_said(given: dict[str, Any], done: str | None) -> None:
    notes = resolve(DistillSettings, given)[1]
    assert notes == [] if done is None else f"m:phi gets {done} samples, unless it is a map with" in notes[0]


def test_zca_of_an_own_map_with_another_preprocessing_is_refused(
    data: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, own = data[0], kd.UserMap(np.array, D, name="own:phi", preprocessing=kd.standardize(data[0]))
    monkeypatch.setattr("krrdistill.maps.registry.load_object", lambda reference, input_dim: own)
    said = r"own:phi has a preprocessing of its own, standardize: leave zca \(--zca\) out"
    with pytest.raises(ValueError, match=said):
        map_for(X, "own:phi", None, use_zca=True, seed=0, watch=Stopwatch(None))
    assert map_for(X, "own:phi", None, use_zca=False, seed=0, watch=Stopwatch(None)) is own


def test_own_kinds_of_layered_maps_are_refused_before_the_work(
    data: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = (
        "import krrdistill as kd\nimport krrdistill.maps\n\nphi = kd.maps.FeatureMap(64, kd.FCNN(64, [9]).layers)\n"
    )
    (tmp_path / "own_kind.py").write_text(source, encoding="utf-8")
    out = tmp_path / "run"
    assert main(["distill", "--kernel", "own_kind:phi", "--out", str(out)]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "own_kind:phi: files cannot describe the FeatureMap of kernel 'layers'; use a UserMap" in line
    assert not list(tmp_path.rglob("*.npz"))
    result = distill(data, FeatureMap(D, kd.FCNN(D, [9]).layers))
    with pytest.raises(kd.DataError, match=r"own\.npz: files cannot describe the FeatureMap of kernel 'layers'"):
        result.distilled.save(tmp_path / "own.npz")


def test_registered_maps_have_the_names_of_their_classes() -> None:
    assert {name: kind.kernel for name, kind in registry._CLASSES.items()} == {name: name for name in registry.KERNELS}


def test_a_registered_map_needs_no_edit_of_the_factory(
    data: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without a seed, whose description may lack an option."""

    class Doubled(FeatureMap):
        kernel = "doubled"
        optional_in_spec = ("times",)

        def __init__(self, input_dim: int, *, times: int = 2, preprocessing: Any = None) -> None:
            weight = times * np.eye(input_dim, dtype=np.float32)
            super().__init__(input_dim, (Layer(weight, None, "linear", 1.0),), preprocessing=preprocessing)

    monkeypatch.setattr(registry, "KERNELS", (*registry.KERNELS, "doubled"))
    monkeypatch.setattr(registry, "_CLASSES", {**registry._CLASSES, "doubled": Doubled})
    phi = kd.make_map("doubled", data[0])
    tolerances.assert_exact(phi.transform(np.eye(D)), 2.0 * np.eye(D))
    assert map_from_spec(phi.spec()).fingerprint() == phi.fingerprint()


def test_configuration_files_cannot_name_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("distill:\n  kernel: os:getcwd\n", encoding="utf-8")
    assert main(["distill", "--config", str(path)]) == 2
    assert "distill.kernel must be one of" in capsys.readouterr().err


@pytest.mark.drawn
def test_approximate_inputs_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "--kernel", "FCNN", "--widths", "70", "--ipc", "2", "--precision", "float64"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("krrdistill: note: FCNN: layer 1 maps 64 inputs to 70 features; an exact preimage")
    assert "the map has no exact preimage: inputs are approximate, after" in captured.out
    assert "NOT EXACT" not in captured.err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "inputs were moved until training on them came as near to the model as it gets" in page
    capsys.readouterr()
    assert main([*words[:4], "120", "--overwrite", "--out", str(tmp_path / "run")]) == 0
    error = capsys.readouterr().err
    assert "NOT EXACT" in error
    assert "the map has no exact preimage: use more points per class" in error


@pytest.mark.drawn
def test_labels_only_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "--kernel", "FCNN", "--widths", "30", "--init", "real", "--labels-only", "--ipc", "8", "--json"]
    assert main([*words, "--precision", "float64", "--out", str(tmp_path / "run")]) == 0
    import json

    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    curve = dict(zip(report["labels_only"]["m"], report["labels_only"]["weight_relative_error"], strict=True))
    assert report["solution"]["method"] == "labels_only"
    assert curve[10] > 0.1
    tolerances.assert_promised(curve[80])
    tolerances.assert_promised(report["certificate"]["weight_relative_error"])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "only their labels learned" in page
    assert "Line chart of the error of learned labels, from" in page


# Spectral measures


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, lambda x, y, s: np.exp(-np.sum((x - y) ** 2) / (2 * s**2))),
        ({"spectral": "laplacian"}, lambda x, y, s: np.exp(-np.abs(x - y).sum() / s)),
        ({"spectral": "matern", "nu": 0.5}, lambda x, y, s: np.exp(-np.linalg.norm(x - y) / s)),
        ({"spectral": "matern", "nu": 1.0}, lambda x, y, s: matern(np.linalg.norm(x - y) / s, 1.0)),
        ({"spectral": "matern"}, lambda x, y, s: matern(np.linalg.norm(x - y) / s, 1.5)),
        ({"spectral": "matern", "nu": 2.5}, lambda x, y, s: matern(np.linalg.norm(x - y) / s, 2.5)),
    ],
)
@pytest.mark.parametrize("sigma2", [1.0, 6.25])
def test_features_approximate_their_kernel(options: dict[str, Any], kernel: Any, sigma2: float) -> None:
    """The mean of p products of cosines with variance at most 1."""
    p = 40_000
    phi = kd.RandomFourier(3, p, sigma2=sigma2, seed=2, **options)
    x, y = np.random.default_rng(3).standard_normal((2, 8, 3))
    F, H = phi.transform(x), phi.transform(y)
    expected = [kernel(a, b, sigma2**0.5) for a, b in zip(x, y, strict=True)]
    error = np.einsum("ij,ij->i", F, H) - expected
    assert np.abs(error).max() <= tolerances.statistical(p, 1.0)
    assert np.ptp(expected) > 5 * tolerances.statistical(p, 1.0)


def matern(r: float, nu: float) -> float:
    s = np.sqrt(2 * nu) * r
    return float(2 ** (1 - nu) / scipy.special.gamma(nu) * s**nu * scipy.special.kv(nu, s))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spectral": "cauchy"}, "spectral must be one of gaussian, laplacian, matern; got 'cauchy'"),
        ({"nu": 1.5}, "nu belongs to spectral = 'matern', not to 'gaussian'"),
        ({"spectral": "matern", "nu": 0.7}, "nu must be a multiple of 1/2 up to 50, got 0.7"),
        ({"spectral": "matern", "nu": 50.5}, "nu must be a multiple of 1/2 up to 50, got 50.5"),
        ({"spectral": "matern", "nu": 0.0}, "nu must be finite and > 0"),
    ],
)
def test_bad_spectral_measures(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kd.RandomFourier(3, sigma2=1.0, **options)


def test_descriptions_without_a_measure_are_gaussian() -> None:
    phi, other = kd.RandomFourier(3, sigma2=2.0), kd.RandomFourier(3, sigma2=2.0, spectral="matern", nu=2.0)
    assert "spectral" not in phi.spec()
    assert (other.spec()["spectral"], other.spec()["nu"]) == ("matern", 2.0)
    with pytest.raises(kd.DataError, match="do not match the recorded fingerprint"):
        map_from_spec({**other.spec(), "nu": 2.5})


@pytest.mark.parametrize("spectral", ["laplacian", "matern"])
def test_spectral_measures_distil_exactly(data: tuple[Array, Array], spectral: str) -> None:
    for p in (8, D):
        phi = kd.RandomFourier(D, p, sigma2=30.0, spectral=spectral)
        assert weight_error(distill(data, phi, points_per_class=2, strict=True)) < EXACT


# Convolutions


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (1, 1, 0), (2, 2, 0), (3, 1, 2), (5, 3, 1)])
def test_convolution_is_that_of_scipy(size: int, stride: int, padding: int, dtype: Any) -> None:
    operator = convolution(size=size, stride=stride, padding=padding)
    h, w, c = operator.shape_in
    x = np.random.default_rng(1).standard_normal((2, h, w, c))
    around = ((padding, padding), (padding, padding), (0, 0))
    expected = [
        [
            scipy.signal.correlate(np.pad(sample, around), operator.kernel[..., o].astype(float), "valid")[..., 0]
            for o in range(3)
        ]
        for sample in x
    ]
    cut = np.moveaxis(np.array(expected), 1, -1)[:, ::stride, ::stride].reshape(2, -1)
    actual = operator.apply(x.reshape(2, -1).astype(dtype))
    assert actual.dtype == dtype
    assert operator.shape == (cut.shape[1], h * w * c)
    tolerances.assert_solve(actual, cut, 1.0, dtype)
    u = np.random.default_rng(2).standard_normal((2, cut.shape[1]))
    tolerances.assert_solve(np.vdot(u, cut), np.vdot(operator.transposed(u), x), 10.0)


@needs_torch
def test_convolution_is_that_of_torch() -> None:
    operator = convolution()
    x = np.random.default_rng(1).standard_normal((4, *operator.shape_in))
    weight = torch.from_numpy(operator.kernel.astype(float)).permute(3, 2, 0, 1)
    expected = torch.nn.functional.conv2d(torch.from_numpy(x).permute(0, 3, 1, 2), weight, stride=2, padding=1)
    tolerances.assert_solve(operator.apply(x.reshape(4, -1)), expected.permute(0, 2, 3, 1).reshape(4, -1).numpy())


@pytest.mark.parametrize(
    "options",
    [{}, {"channels": [4], "kernel_size": 2, "padding": 0}, {"channels": [3, 5], "kernel_size": 2, "padding": 0}],
)
@pytest.mark.parametrize("init", ["noise", "real"])
def test_onto_convolutions_are_exact(options: dict[str, Any], init: str) -> None:
    rng = np.random.default_rng(5)
    y = np.arange(300) % K
    X = rng.standard_normal((K, 8, 8))[y] + 0.8 * rng.standard_normal((300, 8, 8))
    phi = kd.ConvolutionalNetwork((8, 8), **options)
    result = distill((X, y), phi, init=init, points_per_class=3, strict=True)
    assert weight_error(result) < EXACT
    assert map_from_spec(phi.spec()).fingerprint() == phi.fingerprint()


def test_preimage_of_a_convolution_is_the_nearest() -> None:
    phi = kd.ConvolutionalNetwork((6, 6), [2])
    F, near = np.random.default_rng(0).standard_normal((3, phi.output_dim)), np.ones((3, 36))
    X = phi.preimage(F, near=near)
    tolerances.assert_solve(phi.transform(X), F, 1e3)
    matrix = phi.layers[0].weight.apply(np.eye(36))
    row_space = np.linalg.pinv(matrix) @ matrix
    step = X - near
    tolerances.assert_solve(step @ matrix @ np.linalg.pinv(matrix), step, 1e4)
    assert row_space.shape == (18, 18)


@pytest.mark.parametrize(
    ("channels", "message"),
    [([5], "layer 1 maps 64 inputs to 80 features"), ([4], "layer 1 is not onto: a random target keeps"),
     ([2, 40], "layer 2 maps 32 inputs to 160 features")],
)  # fmt: skip
def test_convolutions_that_are_not_onto(channels: list[int], message: str) -> None:
    phi = kd.ConvolutionalNetwork((8, 8), channels)
    assert phi.reach == "approximate"
    with pytest.raises(kd.NotSurjective, match=message):
        phi.check_surjective()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (4,)}, r"input_shape must be \(h, w\) or \(h, w, c\), got \(4,\)"),
        ({"input_shape": (4, 0)}, "input_shape must be at least 1, got 0"),
        ({"kernel_size": 9}, "kernel_size 9 is larger than the 4 x 4 inputs of a layer"),
        ({"channels": []}, "channels must name at least one layer"),
        ({"channels": [2, 0]}, r"channels\[1\] must be at least 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": 3}, "padding must be below kernel_size = 3, got 3"),
        ({"slope": 0.0}, "slope must be finite and > 0"),
    ],
)
def test_bad_convolutions(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kd.ConvolutionalNetwork(**{"input_shape": (4, 4), **arguments})


def test_bad_deep_linear_networks() -> None:
    with pytest.raises(ValueError, match="DeepLinear: widths must name at least one layer"):
        kd.DeepLinear(4, [])
    with pytest.raises(ValueError, match=r"DeepLinear: widths\[1\] must be at least 1, got 0"):
        kd.DeepLinear(4, [3, 0])


# What the search for approximate inputs takes, and what is said of it


def counted_network() -> tuple[kd.UserMap, list[int]]:
    """A map 64 -> 32 without an inverse, and the rows of every call of its module."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32, dtype=torch.float64), torch.nn.Tanh()).eval()
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return kd.UserMap(network, 64), calls


def blobs() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 10
    return rng.standard_normal((1000, 64)) + 2.0 * np.eye(10, 64)[y], y


@needs_torch
def test_approximate_inputs_of_torch_modules_take_few_calls(rng: np.random.Generator) -> None:
    phi, calls = counted_network()
    X, y = blobs()
    model = kd.fit_model(kd.RidgeStatistics(phi, 10, precision="float64").update(X, y), 1.0)
    calls.clear()
    found = span_model(model.W, rng.standard_normal((10, 64)), phi.on_standardised.linearize)
    assert found.steps < 100
    assert len(calls) <= 10 * found.steps  # tens of thousands of products with the Jacobian before
    assert found.residual < 0.2


@pytest.mark.parametrize("centered", [False, True])
def test_steps_by_cholesky_and_by_lsqr_are_the_same(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, centered: bool
) -> None:
    phi = kd.FCNN(D, [20])
    W, X = rng.standard_normal((4, 20)), rng.standard_normal((8, D))
    for name in ("_TOLERANCE", "_INNER_TOLERANCE"):
        monkeypatch.setattr(span, name, 1e-15)
    steps = []
    for limit in (0, 10_000):
        monkeypatch.setattr(span, "_MOST_EQUATIONS", limit)
        state = span._State(W, X, phi.on_standardised.linearize, centered, None)
        steps.append(state.step(1.0))
    condition = 1.0 + float(np.linalg.norm(state._equations[2], 2))  # of the Gram matrix plus the damping
    tolerances.assert_solve(steps[0], steps[1], condition)


def test_an_end_of_the_search_by_its_bound_is_said(rng: np.random.Generator) -> None:
    phi = kd.RandomFourier(D, 60, sigma2=30.0)
    W, X = rng.standard_normal((4, 60)), rng.standard_normal((4, D))
    by_steps = span_model(W, X, phi.on_standardised.linearize, max_steps=2)
    assert (by_steps.steps, by_steps.stopped) == (2, "steps")
    by_time = span_model(W, X, phi.on_standardised.linearize, max_seconds=1e-9)
    assert (by_time.steps, by_time.stopped) == (0, "seconds")
    tolerances.assert_exact(by_time.X, X)


def test_approximate_results_warn_and_show_it(data: tuple[Array, Array]) -> None:
    phi = kd.RandomFourier(D, 60, sigma2=30.0)
    with pytest.warns(
        kd.NotExactWarning, match=r"^distill: NOT EXACT: .* off by .*the map has no exact preimage"
    ) as said:
        result = distill(data, phi, lambdas=[1.0], max_seconds=1e-9)
    before, after = (str(warning.message) for warning in said)
    assert before.startswith(f"distill: random_fourier: layer 1 maps {D} inputs to 60 features")
    assert "approximate inputs are searched for, in up to 100 steps; max_seconds (--max-seconds) bounds" in before
    assert "the search stopped after max_seconds" in after
    assert "NOT EXACT" in repr(result.distilled)
    assert "NOT EXACT" in repr(result)
    tolerances.assert_estimate(result.distilled.weight_error, weight_error(result))
    with (
        pytest.warns(kd.ResultWarning, match="^distill_model: random_fourier: .*approximate inputs are searched for"),
        pytest.warns(kd.NotExactWarning, match="^distill_model: NOT EXACT"),
    ):
        kd.distill_model(result.model, max_seconds=1e-9)
    exact = distill(data, kd.FCNN(D, [10]), points_per_class=2)
    assert "NOT EXACT" not in repr(exact)
