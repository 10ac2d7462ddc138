"""From bytes in host memory to a certified file: the first call of the process, later ones; MNIST on GPU and CPU."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import krrdistill as kd
from gpu.problem_data import KERNELS, Images, map_of
from gpu.session import Session

__all__ = ["measure"]


def measure(session: Session) -> None:
    """One point per class of every map first, then more; then the real images."""
    images = Images.draw(session.sizes)
    maps = {}
    for kernel in KERNELS:
        start = time.perf_counter()
        maps[kernel] = map_of(kernel, session.sizes.d)
        session.row(name="drawing of the map", kernel=kernel, seconds=[time.perf_counter() - start])
    with tempfile.TemporaryDirectory() as folder:
        for per_class in session.sizes.per_class:
            for kernel, phi in maps.items():
                _cell(session, kernel, phi, images, per_class, Path(folder) / "distilled.npz")
    session.keep(real=_real(session))


def _cell(session: Session, kernel: str, phi: Any, images: Images, per_class: int, file: Path) -> None:
    """Distils, saves, reads back and certifies: the weights retrained from the file against the model's."""
    stages: list[dict[str, float]] = []
    errors: list[float] = []
    options = kd.DistillOptions(backend="cuda", points_per_class=per_class)

    def whole() -> None:
        result = kd.distill(images.X, images.y, phi, options=options, judge=False)
        seconds = dict(result.seconds)
        start = time.perf_counter()
        result.distilled.save(file)
        saved = time.perf_counter()
        read = kd.DistilledDataset.load(file)
        certificate = read.verify(result.model, backend="cuda")
        seconds |= {"save": saved - start, "certify": time.perf_counter() - saved}
        stages.append({name: float(value) for name, value in seconds.items()})
        errors.append(certificate.weight_relative_error)

    session.timed(
        "bytes to certified file",
        whole,
        repeats=session.sizes.later,
        most=6.0,
        id="end_to_end",
        kernel=kernel,
        per_class=per_class,
        stages=stages,
        weight_errors=errors,
    )


def _real(session: Session) -> list[dict[str, Any]] | str:
    """MNIST on the GPU and on the CPU: the same lambda, accuracies and verdict, or the rows say otherwise."""
    name, folder = session.sizes.dataset, os.environ.get("KRRDISTILL_DATA")
    if name != "digits" and not (folder and any(Path(folder).glob(f"*{name}*"))):
        return f"not run: {name} is not in the folder of KRRDISTILL_DATA"
    data = kd.load_dataset(name, data_dir=None if folder is None else Path(folder))
    rows = []
    for kernel in KERNELS:
        for backend in ("cuda", "native"):
            options = kd.DistillOptions(backend=backend)
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as out:
                report = kd.run_distillation(data, kernel=kernel, options=options, out=out).report
            rows.append(
                {
                    "dataset": name,
                    "kernel": kernel,
                    "backend": backend,
                    "seconds": time.perf_counter() - start,
                    "lambda": report["lambda"],
                    "test_accuracy": report["original"]["test_accuracy"],
                    "distilled_test_accuracy": report["distilled"]["test_accuracy"],
                    "prediction_agreement": report["certificate"]["prediction_agreement"],
                    "weight_relative_error": report["certificate"]["weight_relative_error"],
                }
            )
            print(rows[-1], flush=True)
            session.keep(real=rows)
    return rows
