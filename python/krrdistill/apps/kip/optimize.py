"""Adam on the distilled inputs: the loop that both variants share."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import namespace_of
from krrdistill.common.progress import IterationFacts
from krrdistill.common.random import Stream, permutation
from krrdistill.errors import Diverged

from .checkpoint import Look, State, save_checkpoint
from .iteration import KipOptions
from .place import Place

__all__ = ["Objective", "adam_step", "batch_rows", "check_loss", "evaluate", "optimize"]

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
_DECAY = (0.9, 0.999)  # of Adam's averages of gradients and of their squares
_EPSILON = 1e-8
_LOSS_LIMIT = 10.0  # per point; labels of zero reach 1
_BLOCK = 1 << 16  # numbers of Adam's update at a time: they stay in the L2 cache

Evaluate = Callable[[Array], tuple[float, float]]
Tell = Callable[[IterationFacts], None]


class Objective(Protocol):
    """A variant of the loss; ``place`` is where its arrays lie."""

    place: Place

    def loss_and_gradient(self, X: Array, rows: IntArray | None) -> tuple[float, Array]:
        """Loss and gradient at inputs X (m, d); ``rows`` are the batch, None for all training points; of the place."""
        ...

    def labels(self, X: Array, F: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The labels (m, k) for inputs X with features F (m, p), in host memory; NaN where there are none."""
        ...


def batch_rows(step: int, n: int, size: int, seed: int) -> IntArray:
    """Rows of the batch of a step: consecutive pieces of a seeded order of n points, another one for each epoch.

    The last batch of an epoch is smaller where ``size`` does not divide n.
    """
    epoch, part = divmod(step, math.ceil(n / size))
    return _order(seed, epoch, n)[part * size : (part + 1) * size]


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, n: int) -> IntArray:
    return permutation(seed, Stream.BATCHES + epoch, n)


def adam_step(state: State, gradient: Array, lr: float) -> None:
    """One step of Adam (Kingma and Ba, ICLR 2015) on ``state.X``, in place.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  X -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).
    """
    t = state.step + 1
    rate, root = lr / (1.0 - _DECAY[0] ** t), math.sqrt(1.0 - _DECAY[1] ** t)
    flat = [array.reshape(-1) for array in (state.X, state.first, state.second, gradient)]
    n = len(flat[0])
    block = _BLOCK if isinstance(state.X, np.ndarray) else max(n, 1)  # a device has no L2 cache to fit, but launches
    sqrt = namespace_of(state.X).sqrt
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at X
        for start in range(0, n, block):
            X, first, second, g = (array[start : start + block] for array in flat)
            first *= _DECAY[0]
            first += (1.0 - _DECAY[0]) * g
            second *= _DECAY[1]
            second += (1.0 - _DECAY[1]) * (g * g)
            scale = sqrt(second)
            scale /= root
            scale += _EPSILON
            X -= rate * first / scale


def optimize(
    state: State,
    objective: Objective,
    validate: Evaluate,
    *,
    n: int,
    options: KipOptions,
    checkpoint: Path | None,
    configuration: dict[str, Any],
    tell: Tell,
) -> None:
    """Steps ``state``, in the place of the objective, to ``options.iterations`` or to the end of the time budget.

    ``tell`` hears of every step and evaluation. The file ``checkpoint`` is written every ``options.checkpoint_every``
    iterations and at the end.

    Raises
    ------
    Diverged
        When a loss is NaN, infinite or far beyond what labels of zero would reach; the last checkpoint stays.
    """
    size, place = options.batch(n), objective.place
    xp = namespace_of(state.X)
    saved = state.step if state.step else -1
    while state.step < options.iterations and not _out_of_time(state, options):
        start = _now(place)
        rows = None if size is None else place.put(batch_rows(state.step, n, size, options.seed))
        loss, gradient = objective.loss_and_gradient(state.X, rows)
        loss /= n if rows is None else len(rows)
        check_loss(loss, state.step, options)
        seconds = _now(place) - start
        if state.step % options.evaluate_every == 0:  # only inputs that have a loss
            evaluate(state, validate, options, place, tell)
        start = _now(place)
        adam_step(state, gradient, options.lr)
        if not bool(xp.all(xp.isfinite(state.X))):
            check_loss(math.inf, state.step, options)
        state.losses.append(loss)
        state.seconds += seconds + _now(place) - start
        tell(_facts(state, options))
        if checkpoint is not None and state.step % options.checkpoint_every == 0:
            save_checkpoint(checkpoint, state, configuration)
            saved = state.step
    if checkpoint is not None and saved != state.step:
        save_checkpoint(checkpoint, state, configuration)


def evaluate(state: State, validate: Evaluate, options: KipOptions, place: Place, tell: Tell) -> None:
    """Adds the current inputs to the curve and tells of them; the best ones are the first of the best accuracy.

    ``validate`` takes them in host memory and returns the loss per training point and the validation accuracy.
    """
    X = place.take(state.X)
    train_loss, accuracy = validate(X)
    check_loss(train_loss, state.step, options)
    if not state.curve or accuracy > state.best_look.val_accuracy:
        state.best = X
    state.curve.append(Look(state.step, train_loss, accuracy, state.seconds))
    tell(_facts(state, options))


def _facts(state: State, options: KipOptions) -> IterationFacts:
    """Where the state stands, which has been evaluated."""
    look = state.curve[-1]
    return IterationFacts(
        iteration=state.step,
        iterations=options.iterations,
        batch_loss=state.losses[-1] if state.losses else None,
        train_loss=look.train_loss,
        val_accuracy=look.val_accuracy,
        evaluated=look.iteration == state.step,
        seconds_per_iteration=state.seconds / state.step if state.step else None,
    )


def _now(place: Place) -> float:
    """The clock when everything that was asked of the place is done."""
    place.synchronize()
    return time.perf_counter()


def _out_of_time(state: State, options: KipOptions) -> bool:
    return options.time_budget is not None and state.seconds >= options.time_budget


def check_loss(loss: float, step: int, options: KipOptions) -> None:
    """Raises Diverged for a loss per point that is NaN or out of bounds: labels of zero have ||y||^2 = 1."""
    if -_LOSS_LIMIT <= loss <= _LOSS_LIMIT:
        return
    advice = f"a smaller lr than {options.lr:g}"
    if options.precision == "float32":
        advice += ", or precision float64"
    raise Diverged(f"kip: the loss per point is {loss:.3g} at iteration {step}; try {advice}")
