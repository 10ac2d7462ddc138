"""Time and progress of the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["IterationFacts", "Listener", "Progress", "Stopwatch"]

Progress = Callable[[str, float], None]  # (stage, fraction in [0, 1]); a ``Listener`` is told facts as well


@dataclass(frozen=True, kw_only=True)
class IterationFacts:
    """Where an iteration stands.

    iteration, iterations : steps that are done, and those asked for
    batch_loss : per training sample of the last batch; None before the first
    train_loss, val_accuracy : of the last evaluation
    evaluated : whether that is of this very iteration
    seconds_per_iteration : without the evaluations; None before the first step
    """

    iteration: int
    iterations: int
    batch_loss: float | None
    train_loss: float
    val_accuracy: float
    evaluated: bool
    seconds_per_iteration: float | None


class Listener:
    """Progress that is told where an iteration stands, too; this one hears everything and does nothing."""

    def __call__(self, stage: str, fraction: float) -> None:
        """``stage`` is done to this fraction."""

    def facts(self, stage: str, facts: IterationFacts) -> None:
        """What is known of an iteration."""


class Stopwatch:
    """Seconds per stage, and progress to whoever listens."""

    def __init__(self, progress: Progress | None, seconds: Mapping[str, float] | None = None) -> None:
        if progress is not None and not callable(progress):
            kind = type(progress).__name__
            raise TypeError(f"progress must be callable, as progress(stage, fraction), or None, got {kind}")
        self.seconds: dict[str, float] = dict(seconds or {})
        self._progress = progress

    def report(self, stage: str, fraction: float) -> None:
        """Tells the listener how far a stage is."""
        if self._progress is not None:
            self._progress(stage, fraction)

    def facts(self, stage: str, facts: IterationFacts) -> None:
        """Tells a ``Listener`` where an iteration stands."""
        if isinstance(self._progress, Listener):
            self._progress.facts(stage, facts)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Times the block as stage ``name`` and yields its progress function."""
        self.report(name, 0.0)
        start = time.perf_counter()
        yield lambda fraction: self.report(name, fraction)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.report(name, 1.0)
