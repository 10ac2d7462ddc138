"""The package beside the published algorithm in PyTorch, and beside plain PyTorch and CuPy, on one device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import krrdistill as kd
from gpu.plain import with_cupy, with_torch
from gpu.problem_data import Images, map_of
from gpu.session import Session
from krrdistill.apps.distillation import map_for
from krrdistill.common.progress import Stopwatch

__all__ = ["measure", "measure_published"]

_PUBLISHED = Path(__file__).resolve().parents[1] / "published.py"
_TEST_ROWS = 10_000
_CELLS = (("FCNN", 1), ("identity", 1), ("FCNN", 50))


def measure(session: Session) -> None:
    """Models first; then whole distillations."""
    images = Images.draw(session.sizes)
    for kernel in ("identity", "FCNN"):
        _models(session, kernel, images)
    measure_published(session, images)


def _models(session: Session, kernel: str, images: Images) -> None:
    """Host bytes to the weights of the best lambda; how far they are from ours of the lambda that each way chose."""
    k, lambdas, phi = session.sizes.k, kd.default_lambdas(), map_of(kernel, session.sizes.d)
    weight = np.array(phi.layers[0].weight) if phi.layers else None
    held_out = (images.X[images.held_out], images.y[images.held_out])

    def ours() -> tuple[Any, float]:
        statistics = kd.RidgeStatistics(phi, k, backend="cuda").update(images.X, images.y, rows=images.train)
        model = kd.fit_model(statistics, lambdas, validation=held_out)
        return model.W, model.lambda_

    ways = {"krrdistill": ours, "PyTorch": lambda: with_torch(images, weight, k, lambdas, session.place)}
    if importlib.util.find_spec("cupy") is not None and not session.emulated:
        ways["CuPy"] = lambda: with_cupy(images, weight, k, lambdas)
    else:
        session.row(name="CuPy", kernel=kernel, failed="not installed, or in the emulation")
    statistics = kd.RidgeStatistics(phi, k, backend="cuda").update(images.X, images.y, rows=images.train)
    for name, way in ways.items():
        found = session.timed(name, way, id="model", kernel=kernel, repeats=3, most=8.0)
        if found is None:
            continue
        W = kd.fit_model(statistics, found[1]).W
        difference = float(np.linalg.norm(found[0] - W) / np.linalg.norm(W))
        session.results["rows"][-1] |= {"lambda": found[1], "difference": difference}
        session.keep()


def measure_published(session: Session, images: Images) -> None:
    """``published.py --device cuda`` and the package on the same files, whole runs with a test set.

    Of both the second run of a process; the published algorithm has one of its own.
    """
    spoken = subprocess.run([sys.executable, str(_PUBLISHED), "--help"], capture_output=True, text=True, check=False)
    if "--device" not in spoken.stdout:
        session.keep(published="not run: published.py has no --device here")
        return
    with tempfile.TemporaryDirectory() as folder:
        name, data_dir = _files(session, images, Path(folder))
        data = kd.load_dataset(name, data_dir=data_dir)
        for kernel, per_class in _CELLS[: 1 if session.emulated else None]:
            row: dict[str, Any] = {"kernel": kernel, "per_class": per_class, "id": "published"}
            try:
                row["ours"] = _ours(data, kernel, per_class, Path(folder) / "out.npz")
                row["published"] = _published(session, name, data_dir, kernel, per_class)
            except Exception as error:
                words = str(getattr(error, "stderr", None) or error).strip().splitlines()
                row["failed"] = words[-1][:200] if words else type(error).__name__
            session.row(name="published.py", **row)
            print(row, flush=True)


def _files(session: Session, images: Images, folder: Path) -> tuple[str, Path | None]:
    """The random bytes under the name of CIFAR-100, whose shape they have; the digits in the emulation."""
    if session.emulated:
        return "digits", None
    test = np.random.default_rng(2).integers(0, 256, (_TEST_ROWS, session.sizes.d), np.uint8)
    shape = (-1, 32, 32, 3)
    arrays = {
        "x_train": images.X.reshape(shape),
        "y_train": images.y,
        "x_test": test.reshape(shape),
        "y_test": np.arange(_TEST_ROWS) % session.sizes.k,
    }
    np.savez(folder / "cifar100.npz", **arrays)  # type: ignore[arg-type]
    return "cifar100", folder


def _published(session: Session, name: str, data_dir: Path | None, kernel: str, per_class: int) -> dict[str, Any]:
    command = [sys.executable, str(_PUBLISHED), "--dataset", name, "--kernel", kernel, "--ipc", str(per_class)]
    command += ["--device", session.place, "--json"] + ([] if data_dir is None else ["--data-dir", str(data_dir)])
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=session.left(60.0))
    found = json.loads(done.stdout.strip().splitlines()[-1])
    kept = ("seconds", "first_seconds", "test_accuracy", "distilled_test_accuracy", "weight_relative_error", "lambda")
    return {name: found.get(name) for name in kept}


def _ours(data: kd.Dataset, kernel: str, per_class: int, out: Path) -> dict[str, Any]:
    """The same with this package, with drawing the map; the file is written, read back and certified. The second of two
    runs.
    """
    options = kd.DistillOptions(backend="cuda", points_per_class=per_class)
    for _ in range(2):
        start = time.perf_counter()
        phi = map_for(data, kernel, None, use_zca=False, seed=0, watch=Stopwatch(None))
        result = kd.distill(data.x_train, data.y_train, phi, options=options, judge=False)
        result.distilled.save(out)
        certificate = kd.DistilledDataset.load(out).verify(result.model, test=data, backend="cuda")
        seconds = time.perf_counter() - start
    return {
        "seconds": {**result.seconds, "total": seconds},
        "test_accuracy": certificate.original_accuracy,
        "distilled_test_accuracy": certificate.distilled_accuracy,
        "weight_relative_error": certificate.weight_relative_error,
        "lambda": result.model.lambda_,
    }
