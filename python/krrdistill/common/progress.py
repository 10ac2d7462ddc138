"""Time and progress of the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["Progress", "Stopwatch"]

Progress = Callable[[str, float], None]  # (stage, fraction in [0, 1])


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

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Times the block as stage ``name`` and yields its progress function."""
        self.report(name, 0.0)
        start = time.perf_counter()
        yield lambda fraction: self.report(name, fraction)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.report(name, 1.0)
