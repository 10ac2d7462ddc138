"""Where a run stands, and its file: an .npz without pickles, written atomically."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from krrdistill.common.archive import FileKind
from krrdistill.common.arrays import to_host
from krrdistill.common.documents import UNFIT, parse_json
from krrdistill.common.files import read_sealed, write_npz
from krrdistill.common.options import shown_value
from krrdistill.errors import DataError

from .iteration import MOST_LOOKS, MOST_STEPS

__all__ = ["Look", "State", "load_checkpoint", "save_checkpoint"]

Array = npt.NDArray[Any]
_FORMAT = "krrdistill-kip-2"
_MATRICES = ("X", "first", "second", "best")
_KIND = FileKind(
    "a checkpoint of KIP",
    re.compile("X|first|second|best|losses|curve|seconds|meta|digest"),
)
_MOST_LOOKS = MOST_LOOKS + 2  # the first and the last are not counted by their distance


class Look(NamedTuple):
    """A point of the curve: losses are per training point, over all of them; seconds are of the steps before it."""

    iteration: int
    train_loss: float
    val_accuracy: float
    seconds: float


@dataclass(eq=False)
class State:
    """Everything that the next step depends on, and the curve up to there.

    The inputs and Adam's means are arrays of the place where the steps are taken; the rest lies in host memory.
    The order of the batches needs no random state: the rows of a step follow from the seed and ``step``.
    """

    X: Array  # (m, d) distilled inputs
    first: Array  # (m, d) Adam's mean of gradients
    second: Array  # (m, d) and of their squares
    best: Array  # (m, d) inputs of ``best_look``
    losses: list[float] = field(default_factory=list)  # per training point of the batch, before each step
    curve: list[Look] = field(default_factory=list)
    seconds: float = 0.0
    ran_on: list[tuple[int, str]] = field(default_factory=list)  # (iteration, device and backend from there on)

    @classmethod
    def start(cls, X: Array) -> State:
        """Iteration 0 at inputs X (m, d)."""
        return cls(X.copy(), np.zeros_like(X), np.zeros_like(X), X.copy())

    def moved(self, put: Callable[[Array], Any]) -> State:
        """The same state with inputs and means made by ``put``, which takes NumPy arrays."""
        return replace(self, X=put(self.X), first=put(self.first), second=put(self.second))

    def goes_on(self, where: str) -> None:
        """Notes that the steps from here on are taken there."""
        if not self.ran_on or self.ran_on[-1][1] != where:
            self.ran_on.append((self.step, where))

    @property
    def step(self) -> int:
        """Iterations that are done."""
        return len(self.losses)

    @property
    def best_look(self) -> Look:
        """The first of those with the best validation accuracy."""
        return max(self.curve, key=lambda look: look.val_accuracy)


def save_checkpoint(path: Path, state: State, configuration: Mapping[str, Any]) -> None:
    """Replaces ``path`` when everything is on the disk; whatever fails before leaves the old file as it was."""
    meta = {
        "format": _FORMAT,
        "iteration": state.step,
        "configuration": dict(configuration),
        "ran_on": state.ran_on,
    }
    arrays = {name: to_host("kip", name, getattr(state, name)) for name in _MATRICES}
    arrays |= {name: np.asarray(getattr(state, name)) for name in ("losses", "curve", "seconds")}
    write_npz(path, {**arrays, "meta": np.array(json.dumps(meta, sort_keys=True, allow_nan=False))}, sealed=True)


def load_checkpoint(path: Path, configuration: Mapping[str, Any], like: Array) -> State:
    """The state that ``save_checkpoint`` wrote for this configuration and inputs shaped like ``like``.

    Raises
    ------
    DataError
        For a file that is cut, corrupt or no checkpoint, or was changed after it was written.
    ValueError
        For a checkpoint of another configuration; the message names what differs.
    """
    arrays = read_sealed(path, _KIND)
    try:
        meta = parse_json("meta", str(arrays["meta"]), finite=True)
        if meta["format"] != _FORMAT:
            raise ValueError(f"format {meta['format']!r}, this version reads {_FORMAT!r}")
        recorded = dict(meta["configuration"])
        if len(arrays["losses"]) > MOST_STEPS or len(arrays["curve"]) > _MOST_LOOKS:
            raise ValueError("of more steps than a run has")
        curve = [Look(int(iteration), *rest) for iteration, *rest in arrays["curve"].tolist()]
        X, first, second, best = matrices = [arrays[name] for name in _MATRICES]
        ran_on = [(int(iteration), str(where)) for iteration, where in meta.get("ran_on", ())]
        state = State(X, first, second, best, arrays["losses"].tolist(), curve, float(arrays["seconds"]), ran_on)
        whole = state.step == meta["iteration"] and 0 <= curve[-1].iteration <= state.step
    except UNFIT as error:
        raise DataError(f"{path}: not a checkpoint of KIP ({error})") from error
    _check_configuration(path, recorded, configuration)
    for name, matrix in zip(_MATRICES, matrices, strict=True):
        if matrix.shape != like.shape or matrix.dtype != like.dtype or not np.isfinite(matrix).all():
            raise DataError(f"{path}: {name} is no finite {like.dtype} array of shape {like.shape}")
    if not whole:
        raise DataError(f"{path}: the recorded curve does not belong to iteration {meta['iteration']}")
    return state


def _check_configuration(path: Path, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name} {shown_value(recorded.get(name))}, now {shown_value(wanted.get(name))}"
        for name in sorted({*recorded, *wanted})
        if recorded.get(name) != wanted.get(name)
    ]
    if different:
        raise ValueError(
            f"kip: {path} is a checkpoint of another configuration ({'; '.join(different)}); "
            "write elsewhere, or delete it to start again"
        )
