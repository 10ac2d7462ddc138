"""What is seen of a run while it computes: bars on a terminal, plain lines on stderr elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from krrdistill.apps.text import number, percent, seconds
from krrdistill.common.progress import IterationFacts, Listener

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.text import Text

__all__ = ["Listeners", "StageBars", "StageLines", "shown_facts", "ticking"]

EVERY = 10.0  # seconds: no two lines are nearer to each other, and no stage lasts longer in silence
SEARCHES = ("construct", "preimage")  # stages whose steps tell how far they are and not how long they take
EARLIEST = 1.0  # seconds of a stage after which the expected time is worth saying


def shown_facts(facts: IterationFacts) -> str:
    """Where an iteration stands, in one line."""
    of_batch = not facts.evaluated and facts.batch_loss is not None
    loss = facts.batch_loss if of_batch else facts.train_loss
    parts = [
        f"iteration {facts.iteration} of {facts.iterations}",
        f"{'loss of the batch' if of_batch else 'loss'} {number(loss)} per training sample",
        f"validation accuracy {percent(facts.val_accuracy)}",
    ]
    if facts.seconds_per_iteration is not None:
        parts.append(f"{seconds(facts.seconds_per_iteration)} per iteration")
    return ", ".join(parts)


class Listeners(Listener):
    """Several that hear the same."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def __call__(self, stage: str, fraction: float) -> None:
        """Tells all of them."""
        for each in self._listeners:
            each(stage, fraction)

    def facts(self, stage: str, facts: IterationFacts) -> None:
        """Tells all of them."""
        for each in self._listeners:
            each.facts(stage, facts)


class StageBars(Listener):
    """A bar for each stage, and a line under them for an iteration.

    overall : a stage that all others are parts of: they come again and again while it lasts
    """

    def __init__(self, bars: Progress, line: Text, overall: str | None = None) -> None:
        self._bars, self._line, self._overall = bars, line, overall
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, fraction: float) -> None:
        """Moves the bar of the stage; those of the others are full."""
        if stage not in self._tasks:
            for name, task in self._tasks.items():
                if name != self._overall:
                    self._bars.update(task, completed=1.0)
            self._tasks[stage] = self._bars.add_task(stage, total=1.0)
            self._line.plain = ""
        elif fraction == 0.0:
            self._bars.reset(self._tasks[stage])
        self._bars.update(self._tasks[stage], completed=min(1.0, max(0.0, fraction)))

    def facts(self, stage: str, facts: IterationFacts) -> None:
        """Writes the line."""
        self._line.plain = shown_facts(facts)


class StageLines(Listener):
    """A line in ten seconds of a stage; ``tick`` is to be called often.

    The first one comes as soon as the stage is known to last longer than that, and at an iteration's first evaluation.

    say : prints a line
    overall : a stage that all others are parts of; its share stands before theirs
    """

    def __init__(
        self, say: Callable[[str], None], overall: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._overall, self._clock = say, overall, clock
        self._before = ""
        self._lock = threading.Lock()  # ``tick`` comes from another thread
        self._stage, self._fraction = "", 1.0
        self._start = self._first = 0.0
        self._said: float | None = None
        self._facts: IterationFacts | None = None

    def __call__(self, stage: str, fraction: float) -> None:
        """Notes how far the stage is."""
        if stage == self._overall:
            self._before = f"{stage} {100 * fraction:.0f} %, "
            return
        with self._lock:
            if stage != self._stage or fraction < self._fraction:
                self._stage, self._start, self._first = stage, self._clock(), fraction
                self._said = self._facts = None
            self._fraction = fraction
        if self._facts is None:  # else they follow at once
            self.tick()

    def facts(self, stage: str, facts: IterationFacts) -> None:
        """Notes where the iteration stands, and says it of an evaluation unless something was said just now."""
        with self._lock:
            self._facts, now = facts, self._clock()
            if facts.evaluated and (self._said is None or now - self._said >= EVERY):
                self._speak(now)
        self.tick()

    def tick(self) -> None:
        """Says where the stage is, when it is time."""
        with self._lock:
            now = self._clock()
            late = now - (self._start if self._said is None else self._said) >= EVERY
            known = self._said is None and now - self._start >= EARLIEST and (self._remaining(now) or 0.0) >= EVERY
            if self._fraction < 1.0 and (late or known):
                self._speak(now)

    def _remaining(self, now: float) -> float | None:
        """Seconds to the end of the stage at its rate so far; None where nothing is known of that."""
        done = 0.0 if self._stage in SEARCHES else self._fraction - self._first
        return (now - self._start) * (1.0 - self._fraction) / done if done > 0.0 else None

    def _speak(self, now: float) -> None:
        self._said, remaining = now, self._remaining(now)
        known = self._facts is None and self._fraction > 0.0
        parts = [f"{100 * self._fraction:.0f} %"] if known else []
        parts += [f"{seconds(now - self._start)} so far"] if self._facts is None else [shown_facts(self._facts)]
        if remaining is not None:
            parts.append(f"about {seconds(remaining)} to go")
        self._say(f"{self._before}{self._stage}: {', '.join(parts)}")


@contextmanager
def ticking(lines: StageLines) -> Iterator[None]:
    """Calls ``tick`` once a second while the block runs, also where the work of a stage reports nothing."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1.0):
            lines.tick()

    thread = threading.Thread(target=run, name="krrdistill-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
