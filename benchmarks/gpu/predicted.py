"""Times that were written down before they were measured: the sets in ``predictions/``, and the one before a run.

A set is a file of its own, dated, and not changed once a run followed it. Its ``steps`` are [what and how much,
milliseconds, what bounds it]; a stage lists the names of steps and of other stages, whose times add up. ``devices`` are
the GPUs that the set is for, each with factors by which steps differ there: {"memory": 0.7}. The set of 2026-11-27 has
whole stages for one device.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BOUNDS", "Prediction", "before", "pending", "read"]

BOUNDS = ("arithmetic", "memory", "bus", "calls", "host")
_FOLDER = Path(__file__).resolve().parent / "predictions"
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Prediction:
    """One set: when it was written, of what, for which devices, and its stages."""

    date: str
    about: str
    devices: Mapping[str, Mapping[str, float]]
    stages: Mapping[str, Any]
    steps: Mapping[str, tuple[str, float, str]]

    @staticmethod
    def of(content: Mapping[str, Any]) -> Prediction:
        """From a file; whole runs get the key "whole/MAP/POINTS PER CLASS"."""
        whole = {f"whole/{key}": stage for key, stage in content["end_to_end"].items()}
        devices = content["devices"] if "devices" in content else {content["device"]: {}}
        stages = {**content["stages"], **whole}
        return Prediction(content["date"], content["about"], devices, stages, content.get("steps", {}))

    def seconds(self, key: str, device: str) -> float | None:
        """Of a stage on a device; None where the set says nothing of it."""
        if device not in self.devices or key not in self.stages:
            return None
        stage, factors = self.stages[key], self.devices[device]
        if isinstance(stage, Mapping):
            return 1e-3 * float(stage["ms"])
        return 1e-3 * sum(factors.get(bound, 1.0) * milliseconds for _, milliseconds, bound in self.of_stage(key))

    def of_stage(self, key: str) -> list[tuple[str, float, str]]:
        """The steps of a stage, in order; a name is a step, or else a stage."""
        found = []
        for name in self.stages[key]:
            found += [self.steps[name]] if name in self.steps else self.of_stage(name)
        return found


def read(folder: Path = _FOLDER) -> list[Prediction]:
    """All sets, oldest first."""
    found = [Prediction.of(json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda prediction: prediction.date)


def before(predictions: Iterable[Prediction], device: str, date: str) -> Prediction | None:
    """The newest set for a device that was written before a run of this date (ISO, in UTC)."""
    return max(
        (found for found in predictions if device in found.devices and found.date <= date),
        key=lambda found: found.date,
        default=None,
    )


def pending(predictions: Sequence[Prediction], runs: Iterable[Result]) -> tuple[Prediction, list[str]] | None:
    """(the newest set, its devices on which nothing was measured since); None where there are none."""
    if not predictions:
        return None
    newest = max(predictions, key=lambda found: found.date)
    measured = {run["parts"].get("facts", {}).get("device") for run in runs if run["date"] >= newest.date}
    waiting = [device for device in newest.devices if device not in measured]
    return (newest, waiting) if waiting else None
