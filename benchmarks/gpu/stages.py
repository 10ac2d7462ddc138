"""Seconds of each stage of a run, and the accuracy of G, on random bytes of the size of CIFAR-100."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import krrdistill as kd
from gpu.problem_data import Images, map_of
from gpu.session import Session

__all__ = ["measure"]

_CHECKED_ROWS = 6000
_SPD = 1024


def measure(session: Session) -> None:
    """All stages of two maps, and the solvers alone."""
    images = Images.draw(session.sizes)
    for kernel in ("identity", "FCNN"):
        phi = map_of(kernel, session.sizes.d)
        _accuracy(session, kernel, phi, images)
        _stages(session, kernel, phi, images)
    _solvers(session)


def _options() -> kd.DistillOptions:
    return kd.DistillOptions(backend="cuda")


def _stages(session: Session, kernel: str, phi: Any, images: Images) -> None:
    X, y, train, k = images.X, images.y, images.train, session.sizes.k

    def update(samples: Any) -> kd.RidgeStatistics:
        return kd.RidgeStatistics(phi, k, backend="cuda").update(samples, y, rows=train)

    def timed(stage: str, name: str, work: Any, **facts: Any) -> Any:
        return session.timed(name, work, kernel=kernel, id=stage, **facts)

    statistics = timed("update_host", "statistics, X in host memory", lambda: update(X))
    on_device = session.torch.from_numpy(X).to(session.place)
    timed("update_device", "statistics, X on the device", lambda: update(on_device))
    path = timed("path", "path, 24 lambdas", lambda: kd.ridge_path(statistics), repeats=2)
    _score(session, kernel, phi, images, path)
    held_out = (X[images.held_out], y[images.held_out])
    model = timed("fit", "path, scores and choice", lambda: kd.fit_model(statistics, validation=held_out), repeats=2)
    timed("points", "one point per class, judged", lambda: kd.distill_model(model, options=_options()), repeats=2)
    taken: list[dict[str, float]] = []

    def whole() -> None:
        taken.append({name: float(value) for name, value in kd.distill(X, y, phi, options=_options()).seconds.items()})

    timed("distill", "distill, whole", whole, stages=taken)


def _score(session: Session, kernel: str, phi: Any, images: Images, path: Any) -> None:
    """Correct predictions of every model of the path: the one call of a backend's own operation here."""
    backend = kd.get_backend("cuda")
    session.timed(
        "scores of the path",
        lambda: backend.score_path(
            phi, images.X, images.y, path.weights, dtype=np.dtype(np.float32), rows=images.held_out
        ),
        kernel=kernel,
        id="score",
    )


def _accuracy(session: Session, kernel: str, phi: Any, images: Images) -> None:
    """Relative error of G (Frobenius norm) against float64 on the host."""
    rows = images.train[:_CHECKED_ROWS]
    features = phi.transform(images.X[rows], dtype="float64")
    exact = features.T @ features
    for precision in ("float32", "float64"):
        statistics = kd.RidgeStatistics(phi, session.sizes.k, precision=precision, backend="cuda")
        found = np.asarray(statistics.update(images.X, images.y, rows=rows).gram)
        error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        session.row(name=f"error of G, {precision}", kernel=kernel, precision=precision, relative_error=error)
        print(f"{kernel}: relative error of G in {precision}: {error:.2e}", flush=True)


def _solvers(session: Session) -> None:
    backend, rng, d = kd.get_backend("cuda"), np.random.default_rng(1), session.sizes.d
    weight = rng.standard_normal((d, d)) / d**0.5
    for m in (session.sizes.k, session.sizes.k * session.sizes.per_class[-1]):
        rhs = rng.standard_normal((m, d))
        session.timed(
            f"preimages of {m} points",
            partial(backend.preimage_solve, weight, rhs),
            id="preimage",
            points=m,
            repeats=2,
        )
    order = min(_SPD, 4 * d)
    matrix = rng.standard_normal((order, order))
    matrix = matrix @ matrix.T + order * np.eye(order)
    columns = np.ones((order, session.sizes.k))
    session.timed(f"solve_spd, order {order}", lambda: backend.solve_spd(matrix, columns), id="solve_spd", order=order)
