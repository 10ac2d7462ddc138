"""The C++ library's distill(), and its reader and writer of the file, against Python's; `make embed` builds it."""

from __future__ import annotations

import os
import shlex
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.common.files import content_digest, write_npz
from krrdistill.common.random import Stream, normal, permutation, signs, uniform
from krrdistill.construct.closed_form import construct, orthogonal_start
from krrdistill.errors import DataError
from krrdistill.problem import split

TOOL = shlex.split(os.environ.get("KRRDISTILL_EMBED_TOOL", ""))
pytestmark = pytest.mark.skipif(not TOOL, reason="needs the C++ library: make embed builds it and runs these tests")
PARTS = Path((TOOL or ["none"])[-1]).with_name("embed_parts")  # built with the static library, which shows its steps
parts = pytest.mark.skipif(not PARTS.is_file(), reason="needs the static C++ library: make embed-static")
FloatArray = npt.NDArray[np.float64]
SIGMA2 = 60.0


def tool(*arguments: Any, program: Path | None = None) -> str:
    """What a run of the program prints. Raises DataError, with the message, where it refuses."""
    command = TOOL if program is None else [*TOOL[:-1], program]
    done = subprocess.run([*map(str, (*command, *arguments))], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), f"ended with {done.returncode}: {done.stderr}"
    if done.returncode:
        raise DataError(done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    data = kd.load_dataset("digits")
    return data.x_train.reshape(len(data.x_train), -1), data.y_train.astype(np.int64)


def map_of(kernel: str, X: Any, *, seed: int = 3, standardised: bool = True) -> kd.FeatureMap:
    preprocessing = kd.standardize(X) if standardised else None
    if kernel == "identity":
        return kd.Identity(64, preprocessing=preprocessing)
    if kernel == "random_fourier":
        return kd.RandomFourier(64, sigma2=SIGMA2, seed=seed, preprocessing=preprocessing)
    return kd.FCNN(64, [50, 45], seed=seed, preprocessing=preprocessing)


def distilled_by_cpp(
    folder: Path,
    kernel: str,
    X: npt.NDArray[Any],
    y: npt.NDArray[Any],
    *,
    selection: str = "held-out",
    precision: str = "float64",
    points: int = 2,
    standardised: bool = True,
    kind: str | None = None,
) -> kd.DistilledDataset:
    """What distill() of the C++ library makes of the same data and options, from its file."""
    (folder / "data.bin").write_bytes(X.tobytes() + np.ascontiguousarray(y).tobytes())
    option = SIGMA2 if kernel == "random_fourier" else 50
    tool(
        "distill", folder / "data.bin", folder / "cpp.npz", kernel, *X.shape, selection, precision, points, option, 3,
        int(standardised), kind or X.dtype,
    )  # fmt: skip
    return kd.DistilledDataset.load(folder / "cpp.npz")


def assert_same_set(cpp: kd.DistilledDataset, made: kd.Distillation) -> None:
    """The same points up to rounding, which the ridge system and the pseudo-inverse of its model magnify."""
    python, path = made.distilled, made.model.path
    values = np.linalg.svd(made.model.W, compute_uv=False)
    values = values[values > 1e-10 * values[0]]  # those that the construction uses
    system = 1.0 + path.largest_eigenvalue / made.model.lambda_
    condition = system * float(values[0] / values[-1])
    for layer, expected in zip(cpp.feature_map.own_layers, python.feature_map.own_layers, strict=True):
        tolerances.assert_exact(layer.weight, expected.weight)
    n, ours, theirs = python.meta["n_train"], cpp.preprocessing, python.preprocessing
    tolerances.assert_reduction(ours.unit, theirs.unit, np.float64, n, theirs.unit)
    tolerances.assert_reduction(ours.origin, theirs.origin, np.float64, n, np.abs(theirs.origin) + theirs.unit)
    assert cpp.meta["lambda"] == pytest.approx(python.meta["lambda"], rel=tolerances.elementwise(np.float64))
    tolerances.assert_solve(cpp.weights, made.model.W, system)
    tolerances.assert_solve(cpp.Y, python.Y, condition)
    if len(values) < len(made.model.W):  # rounding decides the direction that is left to the noise
        return
    tolerances.assert_solve(cpp.features(), python.features(), condition)
    for layer in python.feature_map.layers:  # arccos is steep where the largest feature is, 1e-12 inside of its range
        condition *= float(np.linalg.cond(layer.weight)) * (1e6 if layer.activation == "cosine" else 1.0)
    tolerances.assert_solve(cpp.inputs, python.inputs, condition)


@pytest.mark.parametrize("selection", ["held-out", "gcv"])
@pytest.mark.parametrize("kernel", ["identity", "random_fourier", "FCNN"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_cpp_distil_gives_the_points_of_python(
    tmp_path: Path, digits: Any, kernel: str, selection: str, kind: str
) -> None:
    X, y = digits[0].astype(kind), digits[1]
    cpp = distilled_by_cpp(tmp_path, kernel, X, y, selection=selection)
    options = {"points_per_class": 2, "selection": selection, "precision": "float64", "seed": 3}
    python = kd.distill(X, y, map_of(kernel, X), include_weights=True, **options)
    assert_same_set(cpp, python)
    tolerances.assert_promised(cpp.verify().weight_relative_error)
    assert cpp.meta["val_accuracy"] == python.distilled.meta["val_accuracy"]
    recorded = {name: cpp.meta["options"][name] for name in options}
    assert recorded == options
    tolerances.assert_promised(cpp.verify(kd.retrain(cpp, X, y)).weight_relative_error)


@pytest.mark.parametrize("points", [1, 9])
def test_cpp_distil_of_float32_products_is_exact_and_chooses_as_python(
    tmp_path: Path, digits: Any, points: int
) -> None:
    X, y = digits
    cpp = distilled_by_cpp(tmp_path, "FCNN", X, y, precision="float32", points=points)
    python = kd.distill(X, y, map_of("FCNN", X), points_per_class=points, seed=3).distilled
    assert cpp.meta["lambda"] == pytest.approx(python.meta["lambda"], rel=tolerances.elementwise(np.float64))
    assert len(cpp.inputs) == 10 * points
    tolerances.assert_promised(cpp.verify().weight_relative_error)


def test_cpp_distil_of_fewer_samples_than_features_solves_their_system(tmp_path: Path, digits: Any) -> None:
    X, y = digits[0][:45].astype(float), digits[1][:45]
    cpp = distilled_by_cpp(tmp_path, "random_fourier", X, y, points=1)
    python = kd.distill(X, y, map_of("random_fourier", X), precision="float64", seed=3, include_weights=True)
    assert_same_set(cpp, python)


@pytest.mark.parametrize("selection", ["held-out", "gcv"])
@pytest.mark.parametrize("binary", [True, False])
def test_cpp_distil_of_real_valued_targets_gives_the_points_of_python(
    tmp_path: Path, digits: Any, selection: str, binary: bool
) -> None:
    X = digits[0].astype(float)
    targets = np.column_stack([X[:, 20] > 8.0, X[:, 42] > 3.0]).astype(float) if binary else X[:, [20, 42]] / 3.0 - 1.0
    X = np.delete(X, [20, 42], axis=1)
    X = np.column_stack([X, X[:, :2] * X[:, 2:4]])
    cpp = distilled_by_cpp(tmp_path, "identity", X, targets, selection=selection, kind="real")
    python = kd.distill(
        X, targets, map_of("identity", X), points_per_class=2, selection=selection, precision="float64", seed=3,
        include_weights=True, targets="real",
    )  # fmt: skip
    assert cpp.targets == ("multilabel" if binary else "real")
    assert_same_set(cpp, python)


def step(folder: Path, name: str, *arguments: Any) -> bytes:
    """What a step of the C++ library writes."""
    tool(name, *arguments, folder / "out.bin", program=PARTS)
    return (folder / "out.bin").read_bytes()


@parts
@pytest.mark.parametrize("seed", [0, 3, (1 << 64) - 1])
@pytest.mark.parametrize("n", [1, 5, 4099])
@pytest.mark.parametrize("stream", [Stream.SPLIT, Stream.NOISE_ORDER, Stream.WEIGHTS + 1])
def test_cpp_draws_the_numbers_of_python(tmp_path: Path, stream: int, n: int, seed: int) -> None:
    written = step(tmp_path, "random", seed, int(stream), n)
    drawn = np.frombuffer(written[: 24 * n]).reshape(3, n)
    tolerances.assert_exact(drawn, [draw(seed, stream, n) for draw in (uniform, normal, signs)])
    tolerances.assert_exact(np.frombuffer(written[24 * n :], np.int64), permutation(seed, stream, n))


COUNTS = {
    "balanced": [40] * 10,
    "one rare class": [500, 1, 30],
    "many remainders of one size": [6] * 40,
    "classes of one sample have the largest remainders": [1, 1, 4, 4, 4, 4, 4],
    "two classes of two": [2, 2],
    "a half that rounds to even": [10, 10],
}


@parts
@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.125, 0.25])
@pytest.mark.parametrize("name", COUNTS)
def test_cpp_holds_out_the_rows_of_python(tmp_path: Path, name: str, fraction: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS[name])), COUNTS[name]))
    labels.astype(np.int64).tofile(tmp_path / "labels.bin")
    options, n = kd.DistillOptions(validation_fraction=fraction, seed=5), len(labels)
    for k, targets in ((len(COUNTS[name]), labels), (0, np.zeros((n, 1)))):
        written = np.frombuffer(step(tmp_path, "split", tmp_path / "labels.bin", n, k, fraction, 5), np.int64)
        held_out, rest = written[1 : written[0] + 1], written[written[0] + 1 :]
        for rows, expected in zip((held_out, rest), split("test", targets, options), strict=True):
            tolerances.assert_exact(rows, expected)


@parts
@pytest.mark.parametrize(("k", "p", "points"), [(3, 20, 1), (3, 20, 2), (4, 31, 6), (5, 12, 9)])
@pytest.mark.parametrize("limit", [float("inf"), 1e-3])
def test_cpp_constructs_the_features_of_python(tmp_path: Path, k: int, p: int, points: int, limit: float) -> None:
    W = np.random.default_rng(k).standard_normal((k, p))
    W.tofile(tmp_path / "W.bin")
    D, Y = orthogonal_start(W, points, seed=7)
    made = construct(D, Y, 0.0, lambda_=1.0, feature_limit=limit)
    written = np.frombuffer(step(tmp_path, "construct", tmp_path / "W.bin", k, p, points, 7, limit))
    m, condition = k * points, float(np.linalg.cond(W))
    tolerances.assert_solve(written[: m * p].reshape(m, p), made.F, condition)
    tolerances.assert_solve(written[m * p :].reshape(m, k), made.Y, condition)


@parts
@pytest.mark.parametrize("kernel", ["fcnn", "fourier"])
@pytest.mark.parametrize(("m", "d", "p"), [(1, 8, 8), (7, 30, 20)])
def test_cpp_finds_the_preimages_of_python(tmp_path: Path, kernel: str, m: int, d: int, p: int) -> None:
    phi = kd.FCNN(d, [p], seed=7) if kernel == "fcnn" else kd.RandomFourier(d, p, sigma2=SIGMA2, seed=7)
    F = 0.9 * min(phi.feature_limit(), 1.0) * np.random.default_rng(m).uniform(-1.0, 1.0, (m, p))
    F.tofile(tmp_path / "F.bin")
    written = np.frombuffer(step(tmp_path, "preimage", tmp_path / "F.bin", m, d, p, kernel, 7)).reshape(m, d)
    condition = float(np.linalg.cond(phi.layers[0].weight))
    tolerances.assert_solve(written, phi.standard_preimage(F), condition)


def fitted(path: Path) -> tuple[FloatArray, FloatArray]:
    """(W_S, b_S) that the C++ library retrains from a file."""
    tool("fit", path, path.with_suffix(".bin"))
    numbers, shape = np.fromfile(path.with_suffix(".bin")), kd.DistilledDataset.load(path)
    k, p = shape.Y.shape[1], shape.feature_map.output_dim
    return numbers[: k * p].reshape(k, p), numbers[k * p :]


FILES: dict[str, Callable[[Any, Any], kd.DistilledDataset]] = {
    **{
        kernel: lambda X, y, kernel=kernel: kd.distill(X, y, map_of(kernel, X), points_per_class=2).distilled
        for kernel in ("identity", "random_fourier", "FCNN")
    },
    "raw units": lambda X, y: kd.distill(X, y, map_of("FCNN", X, standardised=False)).distilled,
    "intercept": lambda X, y: kd.distill(X, y, map_of("identity", X), points_per_class=3, intercept=True).distilled,
    "centred targets": lambda X, y: kd.distill(X, y, map_of("FCNN", X), center_targets=True).distilled,
    "ridge": lambda X, y: kd.distill(X, y, map_of("FCNN", X), lambda_s=1e-3, scale_labels=True).distilled,
    "automatic ridge": lambda X, y: kd.distill(X, y, map_of("identity", X), lambda_s="auto").distilled,
    "zca": lambda X, y: kd.distill(X, y, kd.FCNN(64, [64], preprocessing=kd.zca(X))).distilled,
    "more points than features": lambda X, y: kd.distill(X, y, map_of("identity", X), points_per_class=8).distilled,
    "float32": lambda X, y: kd.distill(X, y, map_of("FCNN", X), store="float32", points_per_class=6).distilled,
    "float16": lambda X, y: kd.distill(X, y, map_of("FCNN", X), store="float16", points_per_class=6).distilled,
    "uint8": lambda X, y: kd.distill(X, y, map_of("FCNN", X), store="uint8", points_per_class=6).distilled,
    "deep linear": lambda X, y: kd.distill(X, y, kd.DeepLinear(64, [80, 60])).distilled,
    "laplacian": lambda X, y: (
        kd.distill(
            X, y, kd.RandomFourier(64, sigma2=1e4, spectral="laplacian", preprocessing=kd.standardize(X))
        ).distilled
    ),
    "names of classes": lambda X, y: kd.distill(X, np.array([*"zéro", *'deux"\\'])[y], map_of("FCNN", X)).distilled,
}


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::krrdistill.errors.ResultWarning")
def test_cpp_reads_a_file_of_python_and_retrains_to_its_model(
    tmp_path: Path, digits: Any, name: str, embed: bool
) -> None:
    points = FILES[name](*digits)
    points.save(tmp_path / "python.npz", embed_map=embed)
    if name == "laplacian" and not embed:
        with pytest.raises(DataError, match="embed_map"):
            fitted(tmp_path / "python.npz")
        return
    W, b = points.fit_weights()
    condition = float(np.linalg.cond(points.features()))
    W_S, b_S = fitted(tmp_path / "python.npz")
    tolerances.assert_solve(W_S, W, condition)
    tolerances.assert_solve(b_S, b, condition, magnitude=float(np.linalg.norm(W)) + float(np.linalg.norm(b)))


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("name", [name for name in FILES if name != "laplacian"])
@pytest.mark.filterwarnings("ignore::krrdistill.errors.ResultWarning")
def test_cpp_writes_what_it_read_and_python_reads_it(tmp_path: Path, digits: Any, name: str, embed: bool) -> None:
    points = FILES[name](*digits)
    points.save(tmp_path / "python.npz")
    tool("copy", tmp_path / "python.npz", tmp_path / "cpp.npz", int(embed))
    copy = kd.DistilledDataset.load(tmp_path / "cpp.npz")
    tolerances.assert_exact(copy.inputs, points.inputs)
    tolerances.assert_exact(copy.Y, points.Y)
    tolerances.assert_exact(copy.predict(digits[0][:20]), points.predict(digits[0][:20]))
    same = ("lambda_s", "shape", "targets", "centered")
    assert [getattr(copy, fact) for fact in same] == [getattr(points, fact) for fact in same]
    assert copy.meta == kd.DistilledDataset.load(tmp_path / "python.npz").meta
    tool("copy", tmp_path / "cpp.npz", tmp_path / "again.npz", int(embed))
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "cpp.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "cpp.npz", "python.npz"]


@pytest.fixture
def file(tmp_path: Path, digits: Any) -> Path:
    kd.distill(*digits, map_of("FCNN", digits[0]), include_weights=True).distilled.save(tmp_path / "file.npz")
    return tmp_path / "file.npz"


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with other arrays, or without those that are None, and a digest that fits."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "digest"}
    arrays = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    write_npz(path, {**arrays, "digest": np.array(content_digest(arrays))})
    return path


def with_meta(path: Path, before: str, after: str) -> Path:
    with np.load(path) as archive:
        text = str(archive["meta"])
    assert before in text
    return rewritten(path, meta=np.array(text.replace(before, after, 1)))


def deflated(path: Path) -> Path:
    with np.load(path) as archive:
        np.savez_compressed(path, **dict(archive))
    return path


def edited(path: Path) -> Path:
    with np.load(path) as archive:
        write_npz(path, {**dict(archive), "lambda_s": np.array(1e-3)})
    return path


def twice(path: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        Y = archive.read("Y.npy")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("Y.npy", Y)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def bit_flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def promising(path: Path) -> Path:
    """An array whose header promises 2^60 numbers."""
    numbers = np.lib.format.magic(1, 0) + b"v\0"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1073741824, 1073741824), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", numbers + header + b" " * (117 - len(header)) + b"\n" + bytes(64))
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "deflated": (deflated, "compressed"),
    "edited": (edited, "digest"),
    "an array twice": (twice, "twice"),
    "cut short": (cut, "cut short"),
    "a bit flipped": (bit_flipped, "CRC-32"),
    "a shape beyond the file": (promising, "promises"),
    "an unknown array": (lambda path: rewritten(path, code=np.ones(3)), "an array code"),
    "without labels": (lambda path: rewritten(path, Y=None), "Y is missing"),
    "NaN": (lambda path: rewritten(path, X=np.full((10, 64), np.nan)), "NaN"),
    "labels of other points": (lambda path: rewritten(path, Y=np.ones((11, 10))), "Y is"),
    "inputs of another map": (lambda path: rewritten(path, X=np.ones((10, 63))), "X is"),
    "a negative ridge": (lambda path: rewritten(path, lambda_s=np.array(-1.0)), "lambda_s"),
    "a unit of zero": (lambda path: rewritten(path, X_unit=np.zeros(64)), "unit of zero"),
    "other weights": (lambda path: rewritten(path, map_weight_0=np.ones((50, 64), np.float32)), "fingerprint"),
    "complex numbers": (lambda path: rewritten(path, W=np.ones((10, 45), complex)), "dtype"),
    "another format": (lambda path: with_meta(path, "krrdistill-2", "krrdistill-3"), "format"),
    "no JSON": (lambda path: rewritten(path, meta=np.array("{")), "JSON"),
    "deep JSON": (lambda path: rewritten(path, meta=np.array("[" * 100_000)), "64 deep"),
    "a key twice": (lambda path: with_meta(path, '{"centered"', '{"format": 1, "format": 2, "centered"'), "twice"),
    "a number beyond doubles": (lambda path: with_meta(path, '"lambda": ', '"lambda": 1e999, "x": '), "range"),
    "a convolution": (lambda path: with_meta(path, '"kernel": "FCNN"', '"kernel": "conv"'), "reads identity"),
    "too many random numbers": (
        lambda path: with_meta(
            rewritten(path, map_weight_0=None, map_weight_1=None, W=None), "[50, 45]", "[2000000, 2000000]"
        ),
        "more than a file may ask for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_cpp_refuses_a_hostile_file_and_says_why(file: Path, name: str) -> None:
    damage, words = HOSTILE[name]
    with pytest.raises(DataError, match=words) as caught:
        tool("fit", damage(file), file.with_suffix(".bin"))
    assert str(file) in str(caught.value)


def test_cpp_reads_damaged_files_or_refuses_them(file: Path) -> None:
    read, refused = (int(word) for word in tool("damage", file, 1, 5000).split() if word.isdigit())
    assert read + refused == 5000
    assert refused > 4000


def test_cpp_write_into_a_missing_folder_is_refused_and_leaves_nothing(file: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        tool("copy", file, file.parent / "missing" / "cpp.npz", 1)
    assert [path.name for path in file.parent.iterdir()] == ["file.npz"]


@pytest.mark.parametrize(
    ("labels", "kernel", "words"),
    [
        (np.zeros(40, np.int64), "identity", "one class"),
        (np.arange(40) % 3 * 2, "identity", "no sample"),
        (np.arange(40) % 2 - 1, "identity", "expected classes"),
        (np.arange(39) % 2, "identity", "too short"),
    ],
)
def test_cpp_distil_of_wrong_labels_is_refused(
    tmp_path: Path, digits: Any, labels: npt.NDArray[np.int64], kernel: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        distilled_by_cpp(tmp_path, kernel, digits[0][:40], labels)


@pytest.mark.parametrize("points", [0, -1, 1 << 61])
def test_cpp_distil_of_impossible_numbers_of_points_is_refused(tmp_path: Path, digits: Any, points: int) -> None:
    with pytest.raises(DataError, match="points_per_class"):
        distilled_by_cpp(tmp_path, "identity", digits[0], digits[1], points=points)


def test_cpp_distil_of_nan_names_the_sample(tmp_path: Path, digits: Any) -> None:
    X = digits[0].astype(float)
    X[70, 5] = np.nan
    with pytest.raises(DataError, match="row 70 holds NaN"):
        distilled_by_cpp(tmp_path, "identity", X, digits[1], standardised=False)


def test_cpp_distil_into_more_features_than_inputs_is_refused(tmp_path: Path, digits: Any) -> None:
    with pytest.raises(DataError, match="at most as many"):
        distilled_by_cpp(tmp_path, "FCNN", digits[0][:, :40].copy(), digits[1])
