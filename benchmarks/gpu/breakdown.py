"""Where time goes: the device's share of each stage, Python's functions, and saving, reading and certifying a file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

import krrdistill as kd
from gpu.problem_data import Images, map_of
from gpu.profiles import device_work, host_functions
from gpu.session import Session

__all__ = ["measure"]


def measure(session: Session) -> None:
    """Passes first, then Python, then the file of the most points per class."""
    images = Images.draw(session.sizes)
    device_work(session, "a sum, which starts the profiler", session.torch.ones(1024, device=session.place).sum)
    for kernel in ("identity", "FCNN"):
        _device(session, kernel, map_of(kernel, session.sizes.d), images)
    phi = map_of("identity", session.sizes.d)
    with session.attempt("identity: distill", id="host_functions") as row:
        options = kd.DistillOptions(backend="cuda")
        _, row["functions"] = host_functions(lambda: kd.distill(images.X, images.y, phi, options=options))
    with tempfile.TemporaryDirectory() as folder:
        _file(session, images, Path(folder) / "distilled.npz")


def _device(session: Session, kernel: str, phi: Any, images: Images) -> None:
    """The pass over the rows, from host and device memory, and a whole distillation."""
    X, y, train, k = images.X, images.y, images.train, session.sizes.k
    on_device = session.torch.from_numpy(X).to(session.place)

    def update(samples: Any) -> kd.RidgeStatistics:
        return kd.RidgeStatistics(phi, k, backend="cuda").update(samples, y, rows=train)

    device_work(session, "statistics, X in host memory", lambda: update(X), kernel=kernel)
    device_work(session, "statistics, X on the device", lambda: update(on_device), kernel=kernel)
    options = kd.DistillOptions(backend="cuda")
    device_work(session, "distill", lambda: kd.distill(X, y, phi, options=options), kernel=kernel)


def _file(session: Session, images: Images, file: Path) -> None:
    """Saves, reads and certifies a set, and the steps of each alone."""
    per_class = session.sizes.per_class[-1]
    options = kd.DistillOptions(backend="cuda", points_per_class=per_class)
    phi = map_of("FCNN", session.sizes.d)
    result = kd.distill(images.X, images.y, phi, options=options, judge=False)
    facts: dict[str, Any] = {"per_class": per_class}

    def step(name: str, work: Callable[[], Any]) -> Any:
        found = session.timed(name, work, id=f"file_{name}", repeats=1, **facts)
        _, session.results["rows"][-1]["functions"] = host_functions(work)
        return found

    step("save", lambda: result.distilled.save(file))
    read = step("load", lambda: kd.DistilledDataset.load(file))
    step("certify", lambda: read.verify(result.model, backend="cuda"))
    device_work(session, "certify", lambda: read.verify(result.model, backend="cuda"), **facts)
    with session.attempt("bytes of the file, each step alone"):
        _bytes_alone(session, file, facts)
    with session.attempt("products of the file, each step alone"):
        _products_alone(session, read, facts)


def _alone(session: Session, name: str, work: Callable[[], Any], **facts: Any) -> Any:
    return session.timed(name, work, id="file_alone", repeats=2, most=1.0, **facts)


def _bytes_alone(session: Session, file: Path, facts: dict[str, Any]) -> None:
    """What save and load do to the bytes of the file, each alone."""
    content = file.read_bytes()
    other = file.with_suffix(".copy")

    def write(*, durable: bool) -> None:
        with other.open("wb") as stream:
            stream.write(content)
            if durable:
                os.fsync(stream.fileno())

    numbers = np.frombuffer(content, np.uint8)
    whole = {**facts, "bytes": len(content)}
    _alone(session, "SHA-256", lambda: hashlib.sha256(content).digest(), **whole)
    _alone(session, "CRC-32", lambda: zlib.crc32(content), **whole)
    _alone(session, "copy into new memory", numbers.copy, **whole)
    _alone(session, "write", lambda: write(durable=False), **whole)
    _alone(session, "write and fsync", lambda: write(durable=True), **whole)
    _alone(session, "read", other.read_bytes, **whole)


def _products_alone(session: Session, read: kd.DistilledDataset, facts: dict[str, Any]) -> None:
    """Features of the points and what is factored of them, on the device and on the host."""
    torch, k = session.torch, session.sizes.k
    found = _alone(session, "features", lambda: read.features(backend="cuda"), **facts)
    F = np.ascontiguousarray(found if len(found) <= found.shape[1] else found.T)
    where, on_device = "on the device", torch.from_numpy(F).to(session.place)
    _alone(session, "features to the device, pageable", lambda: torch.from_numpy(F).to(session.place), **facts)
    gram = _alone(session, f"Gram matrix in float64, {where}", lambda: on_device @ on_device.T, **facts)
    gram.diagonal().add_(float(gram.diagonal().mean()))
    _alone(session, f"its Cholesky factor, {where}", lambda: torch.linalg.cholesky_ex(gram), **facts)
    host = gram.cpu().numpy()
    _alone(session, "Gram matrix in float64, on the host", lambda: F @ F.T, **facts)
    factor = (scipy.linalg.cholesky(host, lower=True), True)
    _alone(session, "its Cholesky factor, on the host", lambda: scipy.linalg.cholesky(host, lower=True), **facts)
    columns = np.ones((len(host), k))
    _alone(session, f"{k} columns solved, on the host", lambda: scipy.linalg.cho_solve(factor, columns), **facts)
