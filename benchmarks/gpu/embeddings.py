"""Many embeddings that are on the device already, batch by batch into statistics, in float16 and float32."""

from __future__ import annotations

from typing import Any

import numpy as np

import krrdistill as kd
from gpu.session import Session

__all__ = ["measure"]

_CHECKED_ROWS = 20_000


def measure(session: Session) -> None:
    """The pass of both types, the accuracy of G on one part of the rows, and model and points of the last."""
    torch, (rows, p, batch), k = session.torch, session.sizes.embeddings, session.sizes.k
    phi = kd.Identity(p)
    y = np.random.default_rng(0).integers(0, k, rows)
    for name in ("float16", "float32"):
        generator = torch.Generator(device=session.place).manual_seed(0)
        starts = range(0, rows, batch)
        parts = [
            torch.randn(min(batch, rows - start), p, device=session.place, generator=generator).to(getattr(torch, name))
            for start in starts
        ]

        def update(parts: list[object] = parts, starts: range = starts) -> kd.RidgeStatistics:
            statistics = kd.RidgeStatistics(phi, k, backend="cuda")
            for start, part in zip(starts, parts, strict=True):
                statistics.update(part, y[start : start + batch])
            return statistics

        facts: dict[str, Any] = {"rows": rows, "p": p, "size": parts[0].element_size()}
        statistics = session.timed(f"statistics, {name}", update, id=f"update_{name}", repeats=2, most=8.0, **facts)
        few = parts[0][:_CHECKED_ROWS]
        found = kd.RidgeStatistics(phi, k, backend="cuda").update(few, y[: len(few)])
        exact = (few.double().T @ few.double()).cpu().numpy()
        error = float(np.linalg.norm(np.asarray(found.gram) - exact) / np.linalg.norm(exact))
        session.row(name=f"error of G, {name}", relative_error=error)
        print(f"relative error of G from {name}: {error:.2e}", flush=True)
    if statistics is not None:
        held_out = (parts[-1], y[-len(parts[-1]) :])
        session.timed(
            "model and one point per class",
            lambda: kd.distill_model(kd.fit_model(statistics, validation=held_out), backend="cuda"),
            id="model_and_points",
            repeats=1,
        )
