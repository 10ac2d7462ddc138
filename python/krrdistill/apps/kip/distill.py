"""KIP from labelled arrays to distilled sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.text import shown_device
from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.progress import IterationFacts, Progress, Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.maps import FeatureMap
from krrdistill.pipeline import Trained, train
from krrdistill.ridge.model import RidgeModel

from .checkpoint import Look, State, load_checkpoint
from .iteration import KipOptions
from .judge import Judge
from .optimize import batch_rows, evaluate, optimize
from .place import place_of
from .problem import KipProblem

__all__ = ["ClosedForm", "KipPoint", "KipResult", "kip_distill"]

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_SETUP = {"gram": ("statistics", "features", "warm_up"), "published": ("features", "warm_up")}


@dataclass(frozen=True, eq=False)
class KipPoint:
    """The distilled set of one iteration, its loss per training point and its validation accuracy."""

    distilled: DistilledDataset
    iteration: int
    train_loss: float
    val_accuracy: float

    def facts(self) -> dict[str, Any]:
        """The numbers alone."""
        return {name: getattr(self, name) for name in ("iteration", "train_loss", "val_accuracy")}


@dataclass(frozen=True)
class ClosedForm:
    """What ``distill`` makes of the same model, points per class and start, judged as the points of KIP's curve are.

    seconds : of statistics, ridge, construction and preimage
    """

    seconds: float
    train_loss: float
    val_accuracy: float


@dataclass(frozen=True, eq=False)
class KipResult:
    """Result of KIP: best and last point sets, training curve, and the models to compare with.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    best : KipPoint
        The iteration with the best validation accuracy (the first if several are equal).
    last : KipPoint
        The final iteration.
    model : RidgeModel
    closed_form : ClosedForm
        The exact set for the same problem. None for a map that is not surjective.
    start_rows : array of int
        Rows of the real samples that the run started from; None for noise.
    losses : array of shape (iterations,)
        Loss per sample on the batch of each step, before the step.
    curve : mapping
        iteration, train_loss (per point, all training points), val_accuracy, seconds, each (evaluations,).
    resumed_from : int
        Iteration of the checkpoint that the run resumed from; 0 if there was none.
    seconds : mapping
        Seconds of each stage.
    setup_seconds : float
        Seconds before the first step.
    device : mapping
        Device of the optimisation: device, library, and for a GPU its name and "tf32".
    ran_on : sequence of (int, str)
        Devices and backends of the whole run, each with the iteration at which its use began.
    """

    best: KipPoint
    last: KipPoint
    model: RidgeModel
    closed_form: ClosedForm | None
    start_rows: IntArray | None
    losses: FloatArray
    curve: Mapping[str, Array]
    resumed_from: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    setup_seconds: float = 0.0
    device: Mapping[str, str] = field(default_factory=dict)
    ran_on: Sequence[tuple[int, str]] = ()

    def __repr__(self) -> str:
        best = f"best at {self.best.iteration} with validation accuracy {self.best.val_accuracy:.4g}"
        return f"KipResult({len(self.losses)} iterations, {best}: {self.best.distilled!r})"


def kip_distill(
    X: Any,
    y: Any,
    feature_map: FeatureMap,
    *,
    classes: Any = None,
    validation: tuple[Any, Any] | None = None,
    options: KipOptions | None = None,
    checkpoint: Path | None = None,
    trained: Trained | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> KipResult:
    """Distil labelled data with kernel inducing points (KIP): Adam on KIP's loss.

    Loss on a batch B: ||Y_S (K_SS + lambda_s I)^-1 K_SB - Y_B||^2 over X_S, where Y_S are the best labels for the whole
    training set and lambda_s = 1e-6 trace(K_SS) / m (Nguyen, Chen, Lee, ICLR 2021).

    Parameters
    ----------
    X : array of shape ``(n, *shape)``, uint8 or float
        Raw inputs.
    y : array of int, shape (n,)
        Labels.
    feature_map : FeatureMap
        phi, with its preprocessing. It must be surjective only for ``warm_start``.
    classes : int or sequence of labels, optional
        The classes of y; by default those that occur.
    validation : (X, y), optional
        Validation set to choose lambda and the best iteration on; by default a part of X is held out.
    options : KipOptions, optional
    checkpoint : Path, optional
        File that is written every ``checkpoint_every`` iterations. If it exists, the run resumes from it.
    trained : Trained, optional
        Ridge model and statistics of the same data, map and options, so that they are not computed again.
    progress : callable, optional
        Called with (stage, fraction done). A ``krrdistill.common.progress.Listener`` also gets facts of every step.
    **keywords
        Fields of ``KipOptions``. They override those of ``options``.

    Returns
    -------
    KipResult

    Raises
    ------
    Diverged
        If the optimisation diverges.
    BackendUnavailable
        If PyTorch is needed (variant "published", or a GPU) and missing, or the device does not exist.
    DeviceOutOfMemory
    ValueError, TypeError, DataError, NotSurjective, NotPositiveDefinite
        As in ``distill``. ValueError also for a checkpoint of another configuration.
    """
    options = replace(options or KipOptions(), **keywords)
    place = place_of(options)  # imports PyTorch, before its threads are limited
    with limited_threads(options.threads), place.active():
        problem = KipProblem.of(X, y, feature_map, classes, options, validation=validation)
        state = None if checkpoint is None else _resume(checkpoint, problem)
        resumed_from = 0 if state is None else state.step
        watch, validation_watch = Stopwatch(progress), Stopwatch(None)
        trained = _train(problem, trained, progress)
        watch.seconds.update(trained.seconds)
        with watch.stage("features"):
            judge = Judge.of(problem, trained, place)
            place.synchronize()
        own = Stopwatch(None)
        with watch.stage("closed_form"), own.stage("closed_form"):
            closed = problem.closed_form(trained.model)
        closed_form = None if closed is None else _judge_closed_form(judge, closed, own)
        if state is None:
            state = State.start(problem.start(closed))
        state = state.moved(place.put)
        facts = place.facts()
        state.goes_on(f"{shown_device(facts)}, backend {problem.common.backend.name}")
        if place.name != "cpu":
            with watch.stage("warm_up"):  # what a device does once: handles, workspaces, kernels that are loaded
                _step_for_nothing(judge, state, options)

        def validate(inputs: Array) -> tuple[float, float]:
            with validation_watch.stage("validate"):
                return judge.inputs(inputs)

        def tell(facts: IterationFacts) -> None:
            done, budget = facts.iteration / facts.iterations, options.time_budget
            watch.report("optimize", done if budget is None else min(1.0, max(done, state.seconds / budget)))
            watch.facts("optimize", facts)

        optimize(
            state,
            judge.objective,
            validate,
            n=trained.statistics.n,
            options=options,
            checkpoint=checkpoint,
            configuration=problem.configuration,
            tell=tell,
        )
        evaluate(
            state, validate, options, place, tell
        )  # after the last checkpoint: a longer run does not know of this look
        seconds = {**watch.seconds, "optimize": state.seconds, **validation_watch.seconds}
        return KipResult(
            best=_point(judge, state.best, state.best_look),
            last=_point(judge, place.take(state.X), state.curve[-1]),
            model=trained.model,
            closed_form=closed_form,
            start_rows=problem.start_rows,
            losses=np.array(state.losses),
            curve={name: np.array([getattr(look, name) for look in state.curve]) for name in Look._fields},
            resumed_from=resumed_from,
            seconds=seconds,
            setup_seconds=sum(seconds.get(stage, 0.0) for stage in _SETUP[options.variant]),
            device=facts,
            ran_on=tuple(state.ran_on),
        )


def _step_for_nothing(judge: Judge, state: State, options: KipOptions) -> None:
    """The loss and gradient that the first step finds again."""
    n, place = judge.trained.statistics.n, judge.objective.place
    size = options.batch(n)
    rows = None if size is None else place.put(batch_rows(state.step, n, size, options.seed))
    judge.objective.loss_and_gradient(state.X, rows)
    place.synchronize()


def _resume(checkpoint: Path, problem: KipProblem) -> State | None:
    """Where an earlier run of the same configuration stopped, None where there was none."""
    if not checkpoint.exists():
        return None
    state = load_checkpoint(checkpoint, problem.configuration, np.empty(problem.shape, problem.dtype))
    if state.step > problem.options.iterations:
        raise ValueError(
            f"kip: {checkpoint} is at iteration {state.step}, beyond iterations = {problem.options.iterations}; "
            "write elsewhere, or delete it to start again"
        )
    return state


def _train(problem: KipProblem, known: Trained | None, progress: Progress | None) -> Trained:
    """The ridge model that ``distill`` would distil, and its statistics; ``known`` after a check, where given."""
    if known is None:
        return train(problem.common, progress)
    model, wanted = known.model, problem.common.split_facts
    if not problem.common.feature_map.same_as(model.feature_map) or model.split != wanted:
        raise ValueError("kip: trained is of another map, split or lambdas")
    return known


def _judge_closed_form(judge: Judge, closed: DistilledDataset, watch: Stopwatch) -> ClosedForm:
    """The facts of the closed form; its seconds include those of the ridge model."""
    seconds = sum((*judge.trained.seconds.values(), *watch.seconds.values()))
    return ClosedForm(seconds, *judge.model(closed.fit(backend=judge.problem.options.backend)))


def _point(judge: Judge, Z: Array, look: Look) -> KipPoint:
    """Inputs Z of a look as a distilled set."""
    return KipPoint(judge.distilled(Z, look.iteration), look.iteration, look.train_loss, look.val_accuracy)
