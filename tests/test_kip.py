"""KIP: the loss and its gradient, the loop, checkpoints and resuming, files, and bad input."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import krrdistill.common.files
import oracles
from kill import kill_at_write
from krrdistill.apps.kip import distill as distill_module
from krrdistill.apps.kip import optimize as optimize_module
from krrdistill.apps.kip.checkpoint import Look, State, load_checkpoint, save_checkpoint
from krrdistill.apps.kip.gram import GramObjective
from krrdistill.apps.kip.optimize import adam_step, batch_rows
from krrdistill.apps.kip.place import TorchPlace, place_of
from krrdistill.apps.kip.problem import KipProblem
from krrdistill.apps.kip.published import PublishedObjective
from krrdistill.errors import DeviceOutOfMemory
from krrdistill.pipeline import train
from krrdistill.problem import Problem, split
from tolerances import (
    assert_elementwise,
    assert_estimate,
    assert_exact,
    assert_solve,
    assert_within,
    promised,
    reduction,
    statistical,
)

pytestmark = pytest.mark.usefixtures("undrawn_pages")

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

FloatArray = npt.NDArray[np.float64]
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed (pip install torch)")
VARIANTS = ("gram", pytest.param("published", marks=needs_torch))
KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
N, D, K, M = 90, 12, 3, 6
MAPS: dict[str, kd.FeatureMap] = {
    "identity": kd.Identity(D),
    "random_fourier": kd.RandomFourier(D, 11, sigma2=12.0),
    "orthogonal_fourier": kd.OrthogonalFourier(D, 11, sigma2=12.0),
    "FCNN": kd.FCNN(D, [14, 10], slope=0.2),
}


@pytest.fixture(scope="module")
def digits() -> kd.Dataset:
    return kd.load_dataset("digits")


class Toy:
    """Random points, their features under a map, the statistics, and inputs to look at."""

    def __init__(self, kernel: str, seed: int = 0, m: int = M) -> None:
        rng = np.random.default_rng(seed)
        self.map = MAPS[kernel]
        self.x, self.y = rng.normal(size=(N, D)), np.arange(N) % K
        self.Phi = self.map.transform(self.x, backend="array").T
        self.Y = oracles.one_hot(self.y, K)
        self.statistics = kd.RidgeStatistics(self.map, K, precision="float64", backend="array")
        self.statistics.update(self.x, self.y)
        self.X = rng.normal(size=(m, D))
        self.direction = rng.normal(size=(m, D))
        self.rows = np.sort(rng.permutation(N)[:25])

    def features(self, X: FloatArray) -> FloatArray:
        return np.asarray(self.map.transform(X, backend="array"))

    def gram(self, dtype: Any = np.float64, *, batches: bool = True) -> GramObjective:
        points = (self.Phi.T.astype(dtype), self.y) if batches else None
        return GramObjective(self.map.layers, self.statistics, dtype=dtype, points=points)

    def published(self) -> PublishedObjective:
        return PublishedObjective(self.map, np.ascontiguousarray(self.Phi.T), self.y, K)

    def condition(self) -> float:
        """Of K_SS + lambda_s I, which every step solves with."""
        F = self.features(self.X).T
        return oracles.condition(F.T @ F)


def distill(data: kd.Dataset, kernel: str = "FCNN", **options: Any) -> kd.KipResult:
    phi = kd.make_map(kernel, data, kd.standardize(data))
    defaults = {"iterations": 12, "evaluate_every": 5, "backend": "array"}
    return kd.kip_distill(data.x_train, data.y_train, phi, **{**defaults, **options})


# ---- the loss


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gram_loss_and_labels_are_those_of_the_formula(kernel: str, batch: bool) -> None:
    toy = Toy(kernel)
    rows = toy.rows if batch else None
    F = toy.features(toy.X)
    loss, _ = toy.gram().loss_and_gradient(toy.X, rows)
    expected = oracles.kip_loss(F.T, toy.Phi, toy.Y, slice(None) if rows is None else rows)
    assert_solve(loss, expected, toy.condition())
    labels, _, _ = oracles.kip_labels(F.T, toy.Phi, toy.Y)
    assert_solve(toy.gram().labels(toy.X, F), labels.T, toy.condition())


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gram_gradient_is_the_slope_of_the_loss(kernel: str, batch: bool) -> None:
    """Central differences of the oracle's loss, through the labels and lambda_s."""
    toy = Toy(kernel)
    rows = toy.rows if batch else None
    step = 1e-6

    def at(shift: float) -> float:
        F = toy.features(toy.X + shift * toy.direction)
        return oracles.kip_loss(F.T, toy.Phi, toy.Y, slice(None) if rows is None else rows)

    _, gradient = toy.gram().loss_and_gradient(toy.X, rows)
    assert_estimate(float(np.vdot(gradient, toy.direction)), (at(step) - at(-step)) / (2 * step))


def test_float32_gradient_is_that_of_float64_to_rounding() -> None:
    toy = Toy("FCNN")
    expected = toy.gram().loss_and_gradient(toy.X, None)
    loss, gradient = toy.gram(np.float32).loss_and_gradient(toy.X.astype(np.float32), None)
    assert gradient.dtype == np.float32
    assert_solve(loss, expected[0], toy.condition(), np.float32)
    assert_solve(gradient, expected[1], toy.condition(), np.float32)


@pytest.mark.parametrize("m", [9, 12, 24])
def test_with_as_many_points_as_features_the_labels_alone_are_least_squares(m: int) -> None:
    """M has rank p < m: the loss is the training set's least-squares residual and nothing is left to change."""
    toy = Toy("random_fourier", m=m)
    loss, gradient = toy.gram().loss_and_gradient(toy.X, None)
    least = oracles.rmse(oracles.retrained(toy.Phi, toy.Y, 0.0), toy.Y, toy.Phi) ** 2 * N
    if m < toy.map.output_dim:
        assert loss > least * 1.01
        assert np.abs(gradient).max() > 1e-3
        return
    assert_solve(loss, least, oracles.condition(toy.Phi @ toy.Phi.T))
    assert_solve(gradient, np.zeros_like(gradient), oracles.condition(toy.Phi @ toy.Phi.T), magnitude=loss)


def test_a_batch_needs_the_features_of_the_points() -> None:
    toy = Toy("identity")
    with pytest.raises(ValueError, match="the loss over a batch needs the features"):
        toy.gram(batches=False).loss_and_gradient(toy.X, toy.rows)


@needs_torch
@pytest.mark.parametrize("kernel", KERNELS)
def test_published_loss_is_the_formula(kernel: str) -> None:
    toy = Toy(kernel)
    F = toy.features(toy.X)
    put = TorchPlace().put
    loss, _ = toy.published().loss_and_gradient(put(toy.X), put(toy.rows))
    assert_solve(loss, oracles.kip_loss(F.T, toy.Phi, toy.Y, toy.rows), toy.condition())
    assert_solve(toy.published().labels(toy.X, F), oracles.kip_labels(F.T, toy.Phi, toy.Y)[0].T, toy.condition())


@needs_torch
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("batch_size", [300, 10**6])
def test_both_variants_agree_step_by_step(digits: kd.Dataset, kernel: str, batch_size: int) -> None:
    """float64, ten steps: the same losses, inputs and labels, over batches and over everything."""
    options = {"precision": "float64", "batch_size": batch_size, "iterations": 10, "evaluate_every": 1}
    gram = distill(digits, kernel, **options)
    published = distill(digits, kernel, variant="published", **options)
    F = gram.last.distilled.features(backend="array")
    condition = oracles.condition(F @ F.T)
    assert_solve(gram.losses, published.losses, condition)
    assert_solve(gram.curve["train_loss"], published.curve["train_loss"], condition)
    assert_solve(gram.last.distilled.X, published.last.distilled.X, condition)
    assert_solve(gram.last.distilled.Y, published.last.distilled.Y, condition)
    assert gram.losses[-1] < gram.losses[0]


def test_gram_over_everything_never_sees_a_training_feature(digits: kd.Dataset, monkeypatch: Any) -> None:
    seen = []
    features = KipProblem.features
    monkeypatch.setattr(KipProblem, "features", lambda self, rows: seen.append(rows) or features(self, rows))
    result = distill(digits)
    assert [len(rows) for rows in seen] == [result.model.n_validation]
    distill(digits, batch_size=300)
    assert [len(rows) for rows in seen[1:]] == [result.model.n_train, result.model.n_validation]


# ---- the loop


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_adam_is_its_formula(rng: np.random.Generator, precision: str) -> None:
    gradients = [rng.normal(size=(3, 40_000)).astype(precision) for _ in range(5)]
    start = rng.normal(size=(3, 40_000)).astype(precision)
    state = State.start(start)
    for gradient in gradients:
        adam_step(state, gradient, 0.01)
        state.losses.append(0.0)
    expected = oracles.adam(start.astype(float), [g.astype(float) for g in gradients], 0.01)
    assert_elementwise(state.X, expected, precision, magnitude=1.0 + np.abs(expected))
    assert state.X.dtype == precision


@needs_torch
def test_adam_is_pytorchs(rng: np.random.Generator) -> None:
    gradients = [rng.normal(size=(4, 7)) for _ in range(20)]
    state = State.start(rng.normal(size=(4, 7)))
    inputs = torch.from_numpy(state.X.copy())
    adam = torch.optim.Adam([inputs], lr=0.05)
    for gradient in gradients:
        adam_step(state, gradient, 0.05)
        state.losses.append(0.0)
        inputs.grad = torch.from_numpy(gradient)
        adam.step()
    assert_elementwise(state.X, inputs.numpy(), np.float64, magnitude=2.0)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 5), (10, 9), (10, 1), (7, 7)])
def test_every_epoch_is_a_partition_in_an_order_of_its_own(n: int, size: int) -> None:
    per_epoch = -(-n // size)
    epochs = [
        np.concatenate([batch_rows(epoch * per_epoch + part, n, size, seed=4) for part in range(per_epoch)])
        for epoch in range(3)
    ]
    for epoch in epochs:
        assert_exact(np.sort(epoch), np.arange(n))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    assert len(batch_rows(0, n, size, seed=4)) == size
    order = np.concatenate([batch_rows(part, 100, 10, seed=5) for part in range(10)])
    assert not np.array_equal(order, np.concatenate([batch_rows(part, 100, 10, seed=6) for part in range(10)]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_falls_and_the_curve_is_complete(digits: kd.Dataset, variant: str) -> None:
    result = distill(digits, variant=variant, iterations=40, evaluate_every=15)
    assert result.losses.shape == (40,)
    assert result.losses[-1] < 0.95 * result.losses[0]
    assert_exact(result.curve["iteration"], [0, 15, 30, 40])
    assert (np.diff(result.curve["train_loss"]) < 0).all()
    assert result.curve["seconds"][0] == 0.0, "a point of the curve counts the steps before it, and no part of the next"
    assert (np.diff(result.curve["seconds"]) > 0).all()
    assert result.last.iteration == 40
    assert result.seconds["optimize"] == result.curve["seconds"][-1]


def test_the_full_loss_of_a_step_is_that_of_the_curve(digits: kd.Dataset) -> None:
    """One comes from the step's own systems, the other from the retrained model W_S and the statistics."""
    result = distill(digits, precision="float64", evaluate_every=1)
    F = result.last.distilled.features(backend="array")
    assert_solve(result.losses, result.curve["train_loss"][:-1], oracles.condition(F @ F.T))


@pytest.mark.parametrize("variant", VARIANTS)
def test_best_is_the_first_of_the_best_validation_accuracies(digits: kd.Dataset, variant: str) -> None:
    result = distill(digits, "identity", variant=variant, lr=0.3, iterations=30, evaluate_every=1)
    accuracy = result.curve["val_accuracy"]
    index = int(np.argmax(accuracy))
    assert 0 < index < 30, "the case needs a best iteration inside of the run"
    assert (result.best.iteration, result.best.val_accuracy) == (index, accuracy[index])
    assert (result.last.iteration, result.last.val_accuracy) == (30, accuracy[-1])
    assert not np.array_equal(result.best.distilled.X, result.last.distilled.X)
    again = distill(digits, "identity", variant=variant, lr=0.3, iterations=index, evaluate_every=1)
    assert_exact(again.last.distilled.X, result.best.distilled.X)
    assert_exact(again.last.distilled.Y, result.best.distilled.Y)


def test_the_validation_accuracy_is_the_models(digits: kd.Dataset) -> None:
    result = distill(digits)
    rows, _ = split("distill", digits.y_train, kd.DistillOptions())
    predicted = result.best.distilled.predict(digits.x_train[rows], backend="array")
    assert float(np.mean(predicted == digits.y_train[rows])) == result.best.val_accuracy


def test_the_test_set_decides_nothing(digits: kd.Dataset, tmp_path: Path) -> None:
    other = replace(digits, y_test=(digits.y_test + 1) % 10, x_test=digits.x_test[::-1].copy())
    options = kd.KipOptions(iterations=20, evaluate_every=3, backend="array")
    runs = [
        kd.run_kip(data, kernel="FCNN", options=options, out=tmp_path / name)
        for name, data in (("a", digits), ("b", other))
        if not (tmp_path / name).mkdir()
    ]
    assert runs[0].report["best"]["test_accuracy"] != runs[1].report["best"]["test_accuracy"]
    for name in ("distilled.npz", "last.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_seed_decides_everything(digits: kd.Dataset) -> None:
    runs = [distill(digits, seed=seed, batch_size=200, init=init) for seed, init in ((1, "noise"), (1, "noise"))]
    assert_exact(runs[0].last.distilled.X, runs[1].last.distilled.X)
    assert_exact(runs[0].losses, runs[1].losses)
    other = distill(digits, seed=2, batch_size=200, init="noise")
    assert not np.array_equal(other.curve["train_loss"], runs[0].curve["train_loss"])


def test_a_time_budget_ends_a_run(digits: kd.Dataset) -> None:
    result = distill(digits, time_budget=1e-9)
    assert result.last.iteration == 1
    assert_exact(result.curve["iteration"], [0, 1])


# ---- devices


class Elsewhere(TorchPlace):
    """PyTorch's CPU in the place of a GPU: the same code but for the name, and for what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "cuda:0"

    def put(self, array: Any) -> Any:
        return torch.tensor(array)

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "gpu": "Some GPU", "tf32": "off"}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> TorchPlace:
    """Runs with a device other than the CPU are taken to it."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    place = Elsewhere()
    known = distill_module.place_of
    monkeypatch.setattr(
        distill_module, "place_of", lambda options: place if options.device != "cpu" else known(options)
    )
    return place


@needs_torch
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gram_in_torch_is_gram_in_numpy_to_rounding(kernel: str, batch: bool, precision: str) -> None:
    toy, place = Toy(kernel), TorchPlace()
    X, rows = toy.X.astype(precision), toy.rows if batch else None
    expected = toy.gram(precision).loss_and_gradient(X, rows)
    there = GramObjective(
        toy.map.layers,
        toy.statistics,
        dtype=precision,
        points=(toy.Phi.T.astype(precision), toy.y),
        place=place,
    )
    loss, gradient = there.loss_and_gradient(place.put(X), None if rows is None else place.put(rows))
    assert isinstance(gradient, torch.Tensor)
    assert gradient.dtype == getattr(torch, precision)
    assert_solve(loss, expected[0], toy.condition(), precision)
    assert_solve(gradient.numpy(), expected[1], toy.condition(), precision, magnitude=np.abs(expected[1]).max())
    assert_exact(there.labels(X, toy.features(toy.X)), toy.gram(precision).labels(X, toy.features(toy.X)))


@needs_torch
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("m", [M, 24])
@pytest.mark.parametrize("variant", ["gram", "published"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_step_makes_no_array_elsewhere(kernel: str, variant: str, m: int, batch: bool) -> None:
    """Arrays whose device nobody named would be on "meta" here, and no operation takes them with those of the place."""
    toy, place = Toy(kernel, m=m), TorchPlace()
    objective: Any = toy.published()
    if variant == "gram":
        points = (toy.Phi.T, toy.y)
        objective = GramObjective(toy.map.layers, toy.statistics, dtype=np.float64, points=points, place=place)
    state, rows = State.start(toy.X).moved(place.put), place.put(toy.rows) if batch else None
    with torch.device("meta"):
        _, gradient = objective.loss_and_gradient(state.X, rows)
        adam_step(state, gradient, 0.01)
    assert all(isinstance(array, torch.Tensor) for array in (gradient, state.X, state.first, state.second))
    assert state.X.device.type == gradient.device.type == "cpu"


@needs_torch
@pytest.mark.parametrize("m", [12, 24])
def test_in_torch_too_more_points_than_features_are_least_squares(m: int) -> None:
    toy, place = Toy("random_fourier", m=m), TorchPlace()
    there = GramObjective(toy.map.layers, toy.statistics, dtype=np.float64, place=place)
    loss, gradient = there.loss_and_gradient(place.put(toy.X), None)
    least = oracles.rmse(oracles.retrained(toy.Phi, toy.Y, 0.0), toy.Y, toy.Phi) ** 2 * N
    condition = oracles.condition(toy.Phi @ toy.Phi.T)
    assert_solve(loss, least, condition)
    assert_solve(gradient.numpy(), np.zeros_like(toy.X), condition, magnitude=loss)


@pytest.mark.parametrize("batch_size", [300, 10**6])
@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
@pytest.mark.parametrize("variant", ["gram", "published"])
def test_a_device_takes_the_steps_of_the_cpu(
    digits: kd.Dataset, elsewhere: TorchPlace, variant: str, kernel: str, batch_size: int
) -> None:
    options = {"variant": variant, "precision": "float64", "batch_size": batch_size, "iterations": 10}
    there, here = distill(digits, kernel, device="cuda", **options), distill(digits, kernel, **options)
    F = here.last.distilled.features(backend="array")
    condition = oracles.condition(F @ F.T)
    assert_solve(there.losses, here.losses, condition)
    assert_solve(there.curve["train_loss"], here.curve["train_loss"], condition)
    assert_solve(there.last.distilled.X, here.last.distilled.X, condition)
    assert_solve(there.last.distilled.Y, here.last.distilled.Y, condition)
    assert (there.device["device"], here.device["device"]) == ("cuda:0", "cpu")
    assert there.setup_seconds >= there.seconds["warm_up"] > 0.0
    assert "warm_up" not in here.seconds


@pytest.mark.parametrize("variant", ["gram", "published"])
def test_every_clock_is_read_when_the_device_is_done(
    digits: kd.Dataset, elsewhere: TorchPlace, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """Work of a device that is still under way counts for the step that asked for it."""
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    monkeypatch.setattr(elsewhere, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(optimize_module, "time", SimpleNamespace(perf_counter=clock))
    result = distill(digits, variant=variant, device="cuda", iterations=3)
    clocks = [index for index, event in enumerate(events) if event == "clock"]
    assert len(clocks) == 4 * len(result.losses)
    assert all(events[index - 1] == "wait" for index in clocks)


@pytest.mark.parametrize("variant", ["gram", "published"])
@pytest.mark.parametrize("order", [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_checkpoint_goes_on_on_the_same_or_another_device(
    digits: kd.Dataset, elsewhere: TorchPlace, tmp_path: Path, order: tuple[str, str], variant: str
) -> None:
    options = {"variant": variant, "precision": "float64", "evaluate_every": 5}
    first, second = order
    distill(digits, device=first, iterations=10, checkpoint=tmp_path / "c.npz", **options)
    resumed = distill(digits, device=second, iterations=20, checkpoint=tmp_path / "c.npz", **options)
    whole = distill(digits, iterations=20, **options)
    F = whole.last.distilled.features(backend="array")
    assert resumed.resumed_from == 10
    assert_solve(resumed.losses, whole.losses, oracles.condition(F @ F.T))
    assert_solve(resumed.last.distilled.X, whole.last.distilled.X, oracles.condition(F @ F.T))
    assert [iteration for iteration, _ in resumed.ran_on] == ([0] if first == second else [0, 10])
    named = {"cpu": "cpu, backend array", "cuda": "cuda:0 (Some GPU), TF32 off, backend array"}
    assert resumed.ran_on[-1][1] == named[second]
    assert resumed.ran_on[0][1] == named[first]


def test_a_run_on_two_devices_says_so_and_where_it_ended(
    digits: kd.Dataset, elsewhere: TorchPlace, tmp_path: Path
) -> None:
    options = kd.KipOptions(iterations=4, backend="array")
    kd.run_kip(digits, kernel="FCNN", options=options, out=tmp_path)
    run = kd.run_kip(digits, kernel="FCNN", options=replace(options, iterations=6, device="cuda"), out=tmp_path)
    (warning,) = [sentence for sentence in run.report["warnings"] if "several places" in sentence]
    assert "from iteration 0 on cpu, backend array; from iteration 4 on cuda:0 (Some GPU)" in warning
    assert run.report["device"] == {
        "device": "cuda:0", "gpu": "Some GPU", "tf32": "off", "torch": str(torch.__version__)
    }  # fmt: skip
    assert run.report["backend"] == "array", "the statistics stayed where they were"
    assert "cuda" not in json.dumps(run.distilled.meta["options"])


@pytest.mark.drawn
def test_terminal_and_pages_say_where_the_steps_ran_and_what_the_backend_did(
    elsewhere: TorchPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    for name, words in (("there", ["--device", "cuda"]), ("here", [])):
        assert main([*COMMAND, "--iterations", "3", *words, "--out", str(tmp_path / name)]) == 0
    printed = capsys.readouterr().out
    assert "ms per iteration on cuda:0 (Some GPU), TF32 off" in printed
    assert "ms per iteration on cpu" in printed
    assert printed.count("s with the array backend") == 2
    page = (tmp_path / "there" / "report.html").read_text()
    assert "cuda:0 (Some GPU), TF32 off" in page
    assert "cuda" not in (tmp_path / "here" / "report.html").read_text()
    assert main(["compare", str(tmp_path / "there"), str(tmp_path / "here")]) == 0
    printed = capsys.readouterr().out
    assert "steps on" in printed
    assert "cuda:0" in printed


@pytest.mark.parametrize("variant", ["gram", "published"])
def test_a_diverging_run_on_a_device_stops_with_advice(digits: kd.Dataset, elsewhere: TorchPlace, variant: str) -> None:
    with pytest.raises(kd.Diverged, match=r"loss per point is .* try a smaller lr than 1e\+"):
        distill(digits, variant=variant, device="cuda", lr=1e38, iterations=50)


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_on_only_in_a_run_that_asked_for_it(elsewhere: TorchPlace, tf32: bool) -> None:
    before = torch.get_float32_matmul_precision()
    with TorchPlace(tf32=tf32).active():
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert torch.get_float32_matmul_precision() == before


def test_too_little_memory_of_a_device_is_said_with_what_helps(elsewhere: TorchPlace) -> None:
    reason = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
    message = r"cuda:0 has too little memory \(CUDA out .* 2.00 GiB\); take fewer"
    with pytest.raises(DeviceOutOfMemory, match=message), elsewhere.active():
        raise torch.OutOfMemoryError(reason)


class FakeCuda:
    """What PyTorch says of GPUs."""

    def __init__(self, count: int, current: int = 0) -> None:
        self._count, self._current = count, current

    def is_available(self) -> bool:
        return self._count > 0

    def device_count(self) -> int:
        return self._count

    def current_device(self) -> int:
        return self._current

    def get_device_name(self, device: str) -> str:
        return f"GPU {device}"


@pytest.fixture
def fake_gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes PyTorch see this many GPUs."""
    pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

    def make(count: int, built: str | None = "13.0", current: int = 0) -> None:
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch, "cuda", FakeCuda(count, current))

    return make


@pytest.mark.parametrize(
    ("count", "built", "device", "message"),
    [
        (0, None, "cuda", "needs PyTorch with CUDA, this is .* https://pytorch.org; device 'cpu' does without"),
        (0, "13.0", "cuda", r"CUDA 13\.0\) sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"),
        (2, "13.0", "cuda:2", "device 'cuda:2' does not exist: PyTorch sees 2; choose another one"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_the_long_part(
    digits: kd.Dataset, fake_gpus: Any, count: int, built: str | None, device: str, message: str
) -> None:
    fake_gpus(count, built)
    started: list[str] = []
    for variant in ("gram", "published"):
        with pytest.raises(kd.BackendUnavailable, match=message):
            distill(digits, variant=variant, device=device, progress=lambda stage, _: started.append(stage))
    assert started == []


def test_a_gpu_is_named_by_its_number_and_its_arithmetic_recorded(
    fake_gpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(2, current=1)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    place = place_of(kd.KipOptions(device="cuda"))
    assert place.facts() == {
        "device": "cuda:1", "gpu": "GPU cuda:1", "tf32": "off", "torch": str(torch.__version__)
    }  # fmt: skip
    assert place_of(kd.KipOptions(device="cuda:0", tf32=True)).facts()["tf32"] == "on"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert place.facts()["tf32"] == "off, but NVIDIA_TF32_OVERRIDE=1"
    with pytest.raises(ValueError, match="backend 'cuda' works on cuda:0, device is cuda:1; set CUDA_VISIBLE_DEVICES"):
        place_of(kd.KipOptions(device="cuda", backend="cuda"))


def test_without_torch_a_device_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(kd.BackendUnavailable, match=r"device 'cuda' needs PyTorch .*pip install torch; variant 'gram'"):
        place_of(kd.KipOptions(device="cuda"))


@pytest.mark.gpu
@needs_torch
@pytest.mark.parametrize("batch_size", [300, 10**6])
@pytest.mark.parametrize("variant", ["gram", "published"])
def test_a_gpu_takes_the_steps_of_the_cpu_and_hands_them_back(
    digits: kd.Dataset, tmp_path: Path, variant: str, batch_size: int
) -> None:
    options = {"variant": variant, "precision": "float64", "batch_size": batch_size}
    file = tmp_path / "c.npz"
    there = distill(digits, device="cuda", iterations=10, checkpoint=file, **options)
    back = distill(digits, iterations=20, checkpoint=file, **options)
    here = distill(digits, iterations=20, **options)
    F = here.last.distilled.features(backend="array")
    condition = oracles.condition(F @ F.T)
    assert_solve(there.losses, here.losses[:10], condition)
    assert_solve(back.losses, here.losses, condition)
    assert_solve(back.last.distilled.X, here.last.distilled.X, condition)
    assert there.device["device"] == "cuda:0"
    assert there.device["tf32"].startswith("off")


@pytest.mark.gpu
@needs_torch
def test_the_statistics_and_the_steps_may_share_a_gpu(digits: kd.Dataset) -> None:
    there = distill(digits, device="cuda", backend="cuda", precision="float64")
    here = distill(digits, precision="float64")
    F = here.last.distilled.features(backend="array")
    assert_solve(there.losses, here.losses, oracles.condition(F @ F.T))


# ---- starts


def test_real_start_is_the_chosen_training_points(digits: kd.Dataset) -> None:
    result = distill(digits, points_per_class=2, iterations=1, lr=1e-30)
    assert result.start_rows is not None
    assert_exact(digits.y_train[result.start_rows], np.tile(np.arange(10), 2))
    expected = kd.standardize(digits).apply(digits.x_train[result.start_rows].reshape(20, -1))
    assert_exact(result.last.distilled.inputs, expected.astype(np.float32))


def test_points_of_a_whitened_run_are_raw_samples_in_the_file(digits: kd.Dataset) -> None:
    """With ZCA the steps are taken on whitened inputs; what is stored comes back to the images of the start."""
    phi = kd.make_map("FCNN", digits, kd.zca(digits))
    options = {"iterations": 1, "lr": 1e-30, "precision": "float64", "backend": "array"}
    result = kd.kip_distill(digits.x_train, digits.y_train, phi, **options)
    whitening = phi.preprocessing.whitening
    assert whitening is not None
    images = digits.x_train[result.start_rows].reshape(10, -1).astype(float)
    assert_solve(result.last.distilled.X, images, oracles.condition(whitening))
    warm = kd.kip_distill(digits.x_train, digits.y_train, phi, warm_start=True, **options)
    assert warm.closed_form is not None
    assert warm.losses[0] <= warm.closed_form.train_loss + reduction(np.float64, 1366, 1.0)
    assert warm.losses[0] < result.losses[0]


def test_noise_start_is_standard_normal(digits: kd.Dataset) -> None:
    X = distill(digits, points_per_class=20, init="noise", iterations=1, lr=1e-30).last.distilled.inputs
    assert_within(X.mean(), 0.0, statistical(X.size))
    assert_within(X.var(), 1.0, statistical(X.size, float(np.sqrt(2.0))))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("init", ["noise", "real"])
def test_warm_start_is_the_closed_form_and_no_worse_than_the_ridge_model(
    digits: kd.Dataset, kernel: str, init: str
) -> None:
    result = distill(digits, kernel, warm_start=True, init=init, precision="float64", iterations=1, lr=1e-30)
    phi = kd.make_map(kernel, digits, kd.standardize(digits))
    closed = kd.distill(digits.x_train, digits.y_train, phi, init=init, precision="float64", backend="array")
    assert_exact(result.last.distilled.inputs, closed.distilled.inputs)
    path = closed.model.path
    ridge_loss = path.train_rmse[path.best] ** 2
    assert result.losses[0] <= ridge_loss + reduction(np.float64, 1366, 1.0)
    cold = distill(digits, kernel, init=init, precision="float64", iterations=1)
    assert result.losses[0] < cold.losses[0]


def test_the_closed_form_is_a_global_minimum_for_fewer_points_than_features(digits: kd.Dataset) -> None:
    """Theorem 6.1, n <= p: a model that interpolates has loss 0, and so has the set distilled from it."""
    rows = np.concatenate([np.flatnonzero(digits.y_train == c)[:5] for c in range(10)])
    few = replace(digits, x_train=digits.x_train[rows], y_train=digits.y_train[rows])
    options = {"precision": "float64", "lambdas": [1e-7], "iterations": 1}
    warm = distill(few, "random_fourier", warm_start=True, init="noise", **options)
    cold = distill(few, "random_fourier", **options)
    ridge_loss = float(warm.model.path.train_rmse[0]) ** 2
    assert ridge_loss <= promised()
    assert warm.losses[0] <= ridge_loss + reduction(np.float64, 50, 1.0)
    assert cold.losses[0] > 0.1


def test_the_closed_form_stands_beside_the_curve(digits: kd.Dataset) -> None:
    """Judged from the set that distill makes, it is the ridge model."""
    result = distill(digits, precision="float64", points_per_class=2)
    path = result.model.path
    assert result.closed_form is not None
    assert_solve(result.closed_form.train_loss, path.train_rmse[path.best] ** 2, 1e4)
    assert result.closed_form.val_accuracy == path.val_accuracy[path.best]
    stages = ("statistics", "ridge", "closed_form")
    assert sum(result.seconds[stage] for stage in stages[:2]) < result.closed_form.seconds
    assert result.closed_form.seconds <= sum(result.seconds[stage] for stage in stages)


def test_a_model_that_is_trained_already_changes_nothing(digits: kd.Dataset) -> None:
    phi = kd.make_map("FCNN", digits, kd.standardize(digits))
    options = kd.KipOptions(iterations=5, backend="array")
    trained = train(Problem.of("test", digits.x_train, digits.y_train, phi, options.distillation()))
    arguments: Any = (digits.x_train, digits.y_train, phi)
    shared = kd.kip_distill(*arguments, options=options, trained=trained)
    alone = kd.kip_distill(*arguments, options=options)
    assert_exact(shared.last.distilled.X, alone.last.distilled.X)
    assert_exact(shared.last.distilled.Y, alone.last.distilled.Y)
    assert shared.seconds["statistics"] == trained.seconds["statistics"]
    with pytest.raises(ValueError, match="kip: trained is of another map, split or lambdas"):
        kd.kip_distill(*arguments, options=replace(options, seed=1), trained=trained)


# ---- checkpoints


class Killed(Exception):  # noqa: N818 - stands for SIGKILL
    """Raised where the process would have died."""


def kill_at(iteration: int, of: int) -> Any:
    def progress(stage: str, fraction: float) -> None:
        if stage == "optimize" and round(fraction * of) == iteration:
            raise Killed

    return progress


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_size", [250, 10**6])
def test_a_killed_run_goes_on_bit_for_bit(digits: kd.Dataset, tmp_path: Path, variant: str, batch_size: int) -> None:
    options = {"variant": variant, "batch_size": batch_size, "iterations": 23, "checkpoint_every": 4}
    whole = distill(digits, checkpoint=tmp_path / "whole.npz", **options)
    for iteration in (9, 18):
        with pytest.raises(Killed):
            distill(digits, checkpoint=tmp_path / "c.npz", progress=kill_at(iteration, 23), **options)
    resumed = distill(digits, checkpoint=tmp_path / "c.npz", **options)
    assert (whole.resumed_from, resumed.resumed_from) == (0, 16)
    assert_exact(resumed.losses, whole.losses)
    for name in ("iteration", "train_loss", "val_accuracy"):
        assert_exact(resumed.curve[name], whole.curve[name])
    for end in ("best", "last"):
        a, b = getattr(resumed, end), getattr(whole, end)
        assert_exact(a.distilled.X, b.distilled.X)
        assert_exact(a.distilled.Y, b.distilled.Y)
        assert a.facts() == b.facts()


def test_a_longer_run_goes_on_from_a_shorter_one(digits: kd.Dataset, tmp_path: Path) -> None:
    options = {"checkpoint": tmp_path / "c.npz", "evaluate_every": 6}
    short = distill(digits, iterations=10, **options)
    longer = distill(digits, iterations=20, **options)
    assert longer.resumed_from == 10
    assert_exact(short.curve["iteration"], [0, 6, 10])
    whole = distill(digits, iterations=20, evaluate_every=6)
    assert_exact(longer.curve["iteration"], [0, 6, 12, 18, 20])
    assert_exact(longer.last.distilled.X, whole.last.distilled.X)
    assert_exact(longer.losses, whole.losses)
    with pytest.raises(ValueError, match=r"c\.npz is at iteration 20, beyond iterations = 15"):
        distill(digits, iterations=15, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, r"lr 0\.01, now 0\.5"),
        ({"points_per_class": 2}, "points_per_class 1, now 2"),
        ({"batch_size": 100}, "batch_size None, now 100"),
        ({"seed": 1}, r"\(seed 0, now 1"),
        ({"init": "noise"}, "init 'real', now 'noise'"),
        ({"warm_start": True}, "warm_start False, now True"),
        ({"precision": "float64"}, "precision 'float32', now 'float64'"),
        ({"evaluate_every": 7}, "evaluate_every 5, now 7"),
        ({"validation_fraction": 0.1}, r"validation_fraction 0\.05, now 0\.1"),
        ({"lambdas": [1.0]}, r"lambdas None, now \[1\.0\]"),
        ({"kernel": "identity"}, r"\(features"),
        ({"data": "other"}, r"\(data"),
        pytest.param({"variant": "published"}, "variant 'gram', now 'published'", marks=needs_torch),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(
    digits: kd.Dataset, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / "c.npz"
    distill(digits, checkpoint=file)
    before = file.read_bytes()
    data = digits
    if change.pop("data", None):
        x = digits.x_train.copy()
        x[3, 2, 2] += 1
        data = replace(digits, x_train=x)
    with pytest.raises(ValueError, match=f"c.npz is a checkpoint of another configuration.*{message}"):
        distill(data, **{"kernel": "FCNN", **change}, checkpoint=file)
    assert file.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(digits: kd.Dataset, tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    distill(digits, checkpoint=file)
    whole = file.read_bytes()
    with np.load(file) as archive:
        arrays = dict(archive)
    bad = {
        "not an .npz file: cut short": None,
        "not a checkpoint of KIP": {"first": None},
        "format 'krrdistill-1'": {"meta": np.array('{"format": "krrdistill-1"}')},
        "X is no finite float32 array": {"X": np.full_like(arrays["X"], np.nan)},
        "second is no finite float32 array": {"second": arrays["second"][:5]},
        "the recorded curve does not belong": {"losses": arrays["losses"][:-1]},
        "its content was changed after it was written": {"X": 2.0 * arrays["X"], "digest": arrays["digest"]},
    }
    for message, change in bad.items():
        if change is None:
            file.write_bytes(whole[:-200])
        else:
            kept = {**arrays, "digest": None, **change}
            np.savez(file, **{name: array for name, array in kept.items() if array is not None})
        with pytest.raises(kd.DataError, match=f"c.npz.*{message}"):
            distill(digits, checkpoint=file)


def test_a_full_disk_leaves_the_previous_checkpoint(
    digits: kd.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.npz"
    sync = krrdistill.common.files.os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(krrdistill.common.files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        distill(digits, checkpoint=file, iterations=20, checkpoint_every=4)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]
    monkeypatch.undo()
    resumed = distill(digits, checkpoint=file, iterations=20, checkpoint_every=4)
    assert resumed.resumed_from == 8
    assert_exact(resumed.losses, distill(digits, iterations=20).losses)


def test_checkpoints_hold_no_pickles_and_come_back_as_they_were(tmp_path: Path, rng: np.random.Generator) -> None:
    X, first, second, best = (rng.normal(size=(2, 3)) for _ in range(4))
    curve = [Look(0, 0.7, 0.25, 0.0), Look(1, 0.6, 1 / 7, 0.125)]
    state = State(X, first, second, best, losses=[0.5, 1 / 3], curve=curve, seconds=0.1)
    save_checkpoint(tmp_path / "c.npz", state, {"lr": 0.01})
    again = load_checkpoint(tmp_path / "c.npz", {"lr": 0.01}, state.X)
    for name, value in vars(state).items():
        assert_exact(getattr(again, name), value)
    assert (again.step, again.best_look) == (2, Look(0, 0.7, 0.25, 0.0))
    with np.load(tmp_path / "c.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fiU" for name in archive.files)


# ---- bad input


@pytest.mark.parametrize(
    ("variant", "lr"), [("gram", 1e38), *(pytest.param("published", lr, marks=needs_torch) for lr in (1e18, 1e38))]
)
@pytest.mark.parametrize("kernel", ["identity", "FCNN"])
def test_a_diverging_run_stops_with_advice(
    digits: kd.Dataset, tmp_path: Path, variant: str, lr: float, kernel: str
) -> None:
    file = tmp_path / "c.npz"
    with pytest.raises(kd.Diverged, match=r"loss per point is .* at iteration [0-9]+; try a smaller lr than 1e\+"):
        distill(digits, kernel, variant=variant, lr=lr, checkpoint=file, checkpoint_every=1, iterations=50)
    if file.exists():  # of the last iteration that was still finite
        with np.load(file) as archive:
            assert np.isfinite(archive["X"]).all()


def test_a_loss_that_rises_is_said_in_the_report(digits: kd.Dataset, tmp_path: Path) -> None:
    def warnings(lr: float) -> list[str]:
        (tmp_path / f"{lr}").mkdir()
        options = kd.KipOptions(iterations=3, lr=lr, backend="array")
        run = kd.run_kip(digits, kernel="FCNN", options=options, out=tmp_path / f"{lr}")
        return [warning for warning in run.report["warnings"] if "rose" in warning]

    assert warnings(0.01) == []
    (warning,) = warnings(1e3)
    assert "a smaller lr than 1000" in warning


def test_without_torch_the_published_variant_says_how_to_get_it(
    digits: kd.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    started = []
    with pytest.raises(kd.BackendUnavailable, match=r"'published' needs PyTorch .*pip install torch"):
        distill(digits, variant="published", progress=lambda stage, _: started.append(stage))
    assert started == []
    assert distill(digits, iterations=2).last.iteration == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variant": "fast"}, ValueError, "kip: variant must be one of gram, published"),
        ({"init": "zero"}, ValueError, "init must be one of noise, real"),
        ({"iterations": 0}, ValueError, "kip: iterations must be >= 1"),
        ({"iterations": 1.5}, TypeError, "kip: iterations must be an integer"),
        ({"lr": 0.0}, ValueError, "kip: lr must be finite and > 0"),
        ({"lr": float("nan")}, ValueError, "kip: lr must be finite"),
        ({"batch_size": 0}, ValueError, "kip: batch_size must be >= 1"),
        ({"time_budget": -1.0}, ValueError, "kip: time_budget must be finite and > 0"),
        ({"evaluate_every": 0}, ValueError, "kip: evaluate_every must be >= 1"),
        ({"checkpoint_every": 0}, ValueError, "kip: checkpoint_every must be >= 1"),
        ({"precision": "half"}, ValueError, "precision must be one of float32, float64"),
        ({"device": "gpu"}, ValueError, r"kip: device must be one of cpu, cuda or cuda:N; got 'gpu'"),
        ({"device": "cuda:-1"}, ValueError, "kip: device must be one of cpu, cuda"),
        ({"backend": "cuda"}, ValueError, r"leave the steps to the CPU; pass device='cuda' \(--device cuda\)"),
        ({"tf32": True}, ValueError, r"kip: tf32 is of a GPU, device is 'cpu'; pass device='cuda'"),
        ({"points_per_class": 500}, ValueError, "fewer than points_per_class = 500"),
    ],
)
def test_bad_options(digits: kd.Dataset, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        distill(digits, **options)


def test_a_map_that_is_not_onto_serves_without_a_warm_start(digits: kd.Dataset) -> None:
    phi = kd.RandomFourier(64, 100, sigma2=60.0, preprocessing=kd.standardize(digits))
    arguments = (digits.x_train, digits.y_train, phi)
    options = {"iterations": 5, "backend": "array"}
    result = kd.kip_distill(*arguments, **options)
    assert result.losses[-1] < 1
    assert result.closed_form is None
    with pytest.raises(kd.NotSurjective):
        kd.kip_distill(*arguments, warm_start=True, **options)


# ---- files and the command


def test_files_and_report_agree(digits: kd.Dataset, tmp_path: Path) -> None:
    options = kd.KipOptions(iterations=30, evaluate_every=4, backend="array", points_per_class=2)
    run = kd.run_kip(digits, kernel="FCNN", options=options, out=tmp_path)
    names = ["checkpoint.npz", "curve.npz", "distilled.npz", "last.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert json.loads(json.dumps(run.report, allow_nan=False)) == run.report
    for end, name in (("best", "distilled.npz"), ("last", "last.npz")):
        loaded = kd.DistilledDataset.load(tmp_path / name)
        point = getattr(run.result, end)
        assert_exact(loaded.X, point.distilled.X)
        accuracy = float(np.mean(loaded.predict(digits.x_test, backend="array") == digits.y_test))
        assert run.report[end] == {**point.facts(), "test_accuracy": accuracy}
        assert loaded.meta["kip"]["iteration"] == point.iteration
        F = loaded.features(backend="array")
        assert_solve(loaded.lambda_s, 1e-6 * np.trace(F @ F.T) / 20)
        original = kd.retrain(loaded, digits.x_train, digits.y_train, backend="array")  # as the file records
        certificate = loaded.verify(original, test=digits, backend="array")
        assert certificate.original_accuracy == run.report["original"]["test_accuracy"]
    with np.load(tmp_path / "curve.npz") as curve:
        assert_exact(curve["losses"], run.result.losses)
        assert_exact(curve["iteration"], [0, 4, 8, 12, 16, 20, 24, 28, 30])
    assert run.start_images is not None
    assert run.start_images.shape == (20, 8, 8)
    assert run.report["seconds_per_iteration"] == run.result.seconds["optimize"] / 30


COMMAND = ["kip", "--kernel", "FCNN", "--evaluate-every", "7", "--backend", "array", "--checkpoint-every", "5"]


def test_sigkill_and_the_same_command_give_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed while the third checkpoint is written beside the second one: the run goes on from the second.

    Batches and the published variant go on bit for bit in ``test_a_killed_run_goes_on_bit_for_bit``.
    """
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    line = [*COMMAND, "--threads", "1", "--iterations", "40", "--json", "--out"]
    kill_at_write("checkpoint.npz", 3, [*line, str(killed)])
    assert {path.suffix or path.name for path in killed.iterdir()} == {".npz", ".partial", ".krrdistill-lock"}
    for folder in (whole, killed):
        capsys.readouterr()
        assert main([*line, str(folder)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["resumed_from"], report["iterations"]) == (10, 40)
    for name in ("distilled.npz", "last.npz", "distilled.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    with np.load(killed / "curve.npz") as a, np.load(whole / "curve.npz") as b:
        for name in set(a.files) - {"seconds", "digest"}:
            assert_exact(a[name], b[name])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to write a file beyond this size, as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="no limits of resources on this system")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_grow_is_one_line_and_the_run_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last checkpoint that fits stays."""
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    folder, checkpoint = tmp_path / "o", tmp_path / "o" / "checkpoint.npz"
    assert main([*COMMAND, "--iterations", "10", "--out", str(folder)]) == 0
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    longer = [*COMMAND, "--iterations", "150", "--json", "--out", str(folder)]
    with largest_file(checkpoint.stat().st_size + 400):  # the curve of some thirty iterations more
        assert main(longer) == 1
    *said, line = capsys.readouterr().err.strip().splitlines()
    assert line == f"krrdistill: error: {folder}: File too large"
    assert all(text.startswith("krrdistill: optimize: iteration ") for text in said)
    with np.load(checkpoint) as archive:
        reached = len(archive["losses"])
    assert 10 < reached < 150
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"checkpoint.npz"}
    assert after.keys() == before.keys()
    assert main(longer) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["resumed_from"], report["iterations"]) == (reached, 150)


JSON_KEYS = {
    "dataset", "kernel", "variant", "ipc", "init", "seed", "n_train", "n_val", "n_test", "d", "p", "k", "m", "lambda",
    "lambda_s", "val_accuracy", "original", "distilled", "best", "last", "certificate", "seconds", "iterations", "lr",
    "batch_size", "seconds_per_iteration", "resumed_from", "peak_memory_bytes", "backend", "artifact", "last_artifact",
    "curve", "figure", "report", "warnings", "closed_form", "setup_seconds", "page", "command", "machine",
}  # fmt: skip
FILES = ["checkpoint.npz", "curve.npz", "distilled.npz", "distilled.png", "figure_data.npz", "last.npz", "report.html",
         "report.json"]  # fmt: skip


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    monkeypatch.chdir(tmp_path)
    from krrdistill.apps.cli import main

    return main


def test_the_command_writes_its_files_and_json(cli: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "kip.yaml"
    config.write_text(
        "data: {dataset: digits, gpu: 0}\n"
        "model: {seed: 3, hidden_layer: 2, iterations: 11, lr: 0.02, batch_size: 100}\n"
        "distill: {IPC: 2, kernel: FCNN, generate_from_real_data: False, reg_s: True}\n"
    )
    line = ["kip", "--config", str(config), "--iterations", "9", "--backend", "array", "--json", "--out", "o"]
    assert cli(line) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report) >= JSON_KEYS
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == FILES
    found = {name: report[name] for name in ("ipc", "init", "seed", "iterations", "lr", "batch_size", "variant", "m")}
    assert found == {"ipc": 2, "init": "noise", "seed": 3, "iterations": 9, "lr": 0.02, "batch_size": 100,
                     "variant": "gram", "m": 20}  # fmt: skip
    assert json.loads((tmp_path / "o" / "report.json").read_text()) == report
    stages = {"load", "statistics", "ridge", "closed_form", "optimize", "validate", "save", "total"}
    assert set(report["seconds"]) >= stages
    assert "distill.reg_s is ignored" in captured.err


def test_the_command_prints_a_summary(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert cli(["kip", "--iterations", "8", "--backend", "array", "--out", "o"]) == 0
    printed = capsys.readouterr().out
    for shown in ("(lambda chosen on 72 others) distilled to 10 by KIP (gram", "best by validation", "ms per iteration",
                  "went on from the checkpoint at iteration 8", "wrote distilled.npz, last.npz"):  # fmt: skip
        assert shown in printed


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--lr", "0"], 2, "--lr must be finite and > 0, got 0.0"),
        (["--variant", "quick"], 2, "--variant must be one of gram, published; got 'quick'"),
        (["--iterations", "0"], 2, "--iterations must be >= 1 and <= 2^23, got 0"),
        (["--ipc", "900"], 2, "fewer than points_per_class = 900"),
        (["--lr", "1e38"], 1, "try a smaller lr than 1e+38, or precision float64"),
        (["--variant", "published"], 1, "pip install torch"),
    ],
)
def test_the_command_refuses_and_leaves_nothing(
    options: list[str],
    status: int,
    expected: str,
    cli: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli(["kip", "--kernel", "FCNN", "--backend", "array", "--out", "o", *options]) == status
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_another_configuration(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["kip", "--iterations", "3", "--backend", "array", "--out", "o"]
    assert cli(line) == 0
    capsys.readouterr()
    assert cli([*line, "--lr", "0.5"]) == 2
    assert "another configuration (lr 0.01, now 0.5); write elsewhere, or delete it" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.parametrize("kernel", KERNELS)
def test_mnist_improves_on_its_start(real_data_dir: Path, kernel: str) -> None:
    data = kd.load_dataset("mnist", data_dir=real_data_dir)
    small = replace(data, x_train=data.x_train[:4000], y_train=data.y_train[:4000])
    result = distill(small, kernel, iterations=60, evaluate_every=60, backend=None)
    assert result.curve["train_loss"][-1] < 0.9 * result.curve["train_loss"][0]
    assert result.last.val_accuracy > result.curve["val_accuracy"][0]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"iterations": 1 << 24}, r"iterations must be >= 1 and <= 2\^23, got 16777216"),
        ({"iterations": 300_000, "evaluate_every": 1}, "evaluate_every=1.*which a checkpoint holds"),
    ],
)
def test_runs_that_no_checkpoint_holds_are_refused_before_they_begin(asked: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=f"kip: {words}"):
        kd.KipOptions(**asked)
