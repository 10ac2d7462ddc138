"""Where a run stands, and its file: an .npz without pickles, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.files import read_npz, write_npz
from krrdistill.errors import DataError

__all__ = ["State", "load_checkpoint", "save_checkpoint"]

_FORMAT = "krrdistill-kip-1"
_MATRICES = ("X", "first", "second", "best")


@dataclass(eq=False)
class State:
    """Everything that the next step depends on, and what came before it.

    The order of the batches needs no random state: the rows of a step follow from the seed and ``step``.
    """

    X: npt.NDArray[Any]  # (m, d) distilled inputs
    first: npt.NDArray[Any]  # (m, d) Adam's mean of gradients
    second: npt.NDArray[Any]  # (m, d) and of their squares
    best: npt.NDArray[Any]  # (m, d) inputs of the best validation accuracy so far
    step: int = 0
    best_index: int = -1  # into the evaluations
    losses: list[float] = field(default_factory=list)  # per training point of the batch, before each step
    evaluated: list[int] = field(default_factory=list)  # iterations that were looked at
    train_loss: list[float] = field(default_factory=list)  # per training point, over all of them
    val_accuracy: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)  # seconds of steps up to there
    seconds: float = 0.0

    @classmethod
    def start(cls, X: npt.NDArray[Any]) -> State:
        """Iteration 0 at inputs X (m, d)."""
        return cls(X.copy(), np.zeros_like(X), np.zeros_like(X), X.copy())


_SERIES = {"losses": np.float64, "evaluated": np.int64, "train_loss": np.float64, "val_accuracy": np.float64,
           "elapsed": np.float64}  # fmt: skip
_EVALUATIONS = ("evaluated", "train_loss", "val_accuracy", "elapsed")


def save_checkpoint(path: Path, state: State, configuration: Mapping[str, Any]) -> None:
    """Replaces ``path`` when everything is on the disk; whatever fails before leaves the old file as it was."""
    meta = {"format": _FORMAT, "configuration": dict(configuration), "step": state.step}
    arrays = {name: getattr(state, name) for name in _MATRICES}
    arrays |= {name: np.array(getattr(state, name), dtype=dtype) for name, dtype in _SERIES.items()}
    arrays |= {"seconds": np.array(state.seconds), "best_index": np.array(state.best_index)}
    write_npz(path, {**arrays, "meta": np.array(json.dumps(meta, sort_keys=True, allow_nan=False))})


def load_checkpoint(path: Path, configuration: Mapping[str, Any], like: npt.NDArray[Any]) -> State:
    """The state that ``save_checkpoint`` wrote for this configuration and inputs shaped like ``like``.

    Raises
    ------
    DataError
        For a file that is cut, corrupt or no checkpoint.
    ValueError
        For a checkpoint of another configuration; the message names what differs.
    """
    arrays = read_npz(path)
    try:
        meta = json.loads(str(arrays["meta"]))
        if meta["format"] != _FORMAT:
            raise ValueError(f"format {meta['format']!r}, this version reads {_FORMAT!r}")
        recorded, step = dict(meta["configuration"]), int(meta["step"])
        fields: dict[str, Any] = {name: arrays[name] for name in _MATRICES}
        fields |= {name: arrays[name].astype(dtype).tolist() for name, dtype in _SERIES.items()}
        state = State(
            **fields,
            step=step,
            seconds=float(arrays["seconds"]),
            best_index=int(arrays["best_index"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a checkpoint of KIP ({error})") from error
    _check_configuration(path, recorded, configuration)
    for name in _MATRICES:
        matrix = getattr(state, name)
        if matrix.shape != like.shape or matrix.dtype != like.dtype or not np.isfinite(matrix).all():
            raise DataError(f"{path}: {name} is no finite {like.dtype} array of shape {like.shape}")
    counts = {len(getattr(state, name)) for name in _EVALUATIONS}
    if len(state.losses) != step or len(counts) != 1 or not -1 <= state.best_index < counts.pop():
        raise DataError(f"{path}: the recorded curve does not belong to iteration {step}")
    return state


def _check_configuration(path: Path, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = sorted({*recorded, *wanted})
    different = [
        f"{name} {recorded.get(name)}, now {wanted.get(name)}"
        for name in names
        if recorded.get(name) != wanted.get(name)
    ]
    if different:
        raise ValueError(
            f"kip: {path} is a checkpoint of another configuration ({'; '.join(different)}); "
            "write elsewhere, or delete it to start again"
        )
