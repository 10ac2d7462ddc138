"""Many features: the statistics and the lambda path of a large G (p = 8192)."""

from __future__ import annotations

from typing import Any

import numpy as np

import krrdistill as kd
from gpu.session import Session

__all__ = ["measure"]


def measure(session: Session) -> None:
    """float32 embeddings on the device, the path, the model and its points."""
    torch, (rows, p), k = session.torch, session.sizes.wide, session.sizes.k
    generator = torch.Generator(device=session.place).manual_seed(0)
    X = torch.randn(rows, p, device=session.place, generator=generator)
    y = np.random.default_rng(0).integers(0, k, rows)
    phi, held = kd.Identity(p), rows // 20

    def update() -> kd.RidgeStatistics:
        return kd.RidgeStatistics(phi, k, backend="cuda").update(X[held:], y[held:])

    facts: dict[str, Any] = {"rows": rows - held, "p": p}
    statistics = session.timed("statistics, X on the device", update, id="update_device", repeats=2, **facts)
    session.timed("path, 24 lambdas", lambda: kd.ridge_path(statistics), id="path", repeats=2, **facts)
    model = session.timed(
        "path, scores and choice",
        lambda: kd.fit_model(statistics, validation=(X[:held], y[:held])),
        id="fit",
        repeats=1,
        **facts,
    )
    session.timed(
        "one point per class, judged",
        lambda: kd.distill_model(model, backend="cuda"),
        id="points",
        repeats=1,
        **facts,
    )
