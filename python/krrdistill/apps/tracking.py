"""A run in an experiment tracker: options, progress, results and pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from krrdistill.artifact.record import RunRecord
from krrdistill.common.options import as_word
from krrdistill.common.progress import IterationFacts, Listener
from krrdistill.common.warning import warn
from krrdistill.errors import BackendUnavailable, ResultWarning

__all__ = ["TRACKERS", "Tracker", "require_tracker", "tracked"]

TRACKERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}  # name: the library


class Tracker(Listener):
    """Keeps nothing; the base of those that do."""

    def outcome(self, record: RunRecord) -> None:
        """The run has ended like this."""


def require_tracker(name: str | None) -> None:
    """Raises BackendUnavailable, before any work, where the library of a tracker is missing."""
    if name is not None and importlib.util.find_spec(TRACKERS[name]) is None:
        raise BackendUnavailable(f'--log-to {name} needs {TRACKERS[name]}: pip install "krrdistill[{name}]"')


@contextmanager
def tracked(name: str | None, folder: Path, options: Mapping[str, Any]) -> Iterator[Tracker]:
    """The tracker of that name for the run that writes to ``folder``; None keeps nothing.

    TensorBoard's files go to ``folder``/tensorboard, MLflow's runs where MLflow puts them (MLFLOW_TRACKING_URI).
    """
    given = {key: value if isinstance(value, bool | int | float | str) else as_word(value)
             for key, value in options.items() if value is not None}  # fmt: skip
    if name is None:
        yield Tracker()
    elif name == "tensorboard":
        from tensorboardX import SummaryWriter

        with SummaryWriter(str(folder / "tensorboard")) as writer:
            yield _TensorBoard(writer, given)
    else:
        import mlflow

        try:
            run = mlflow.start_run(run_name=folder.name)
            mlflow.log_params(given)
        except mlflow.MlflowException as error:
            raise BackendUnavailable(f"--log-to mlflow: {error}") from error
        with run:
            yield _MLflow(mlflow)


def _numbers(record: RunRecord) -> dict[str, float]:
    """What is compared between runs, as far as it is known."""
    found = {
        "original_test_accuracy": record.original.test_accuracy,
        "distilled_test_accuracy": record.distilled.test_accuracy,
        "original_test_r2": record.original.mean_r2,
        "distilled_test_r2": record.distilled.mean_r2,
        "val_accuracy": record.val_accuracy,
        **vars(record.certificate),
        "psnr": record.realism.psnr,
        "lambda": record.lambda_,
        "lambda_s": record.lambda_s,
        "total_seconds": record.seconds["total"],
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _evaluation(facts: IterationFacts) -> dict[str, float]:
    """What is known of an iteration that was evaluated, else nothing."""
    if not facts.evaluated:
        return {}
    return {"kip_train_loss": facts.train_loss, "kip_val_accuracy": facts.val_accuracy}


def _pictures(record: RunRecord) -> list[Path]:
    return [Path(path) for path in (record.figure, record.lambda_path_figure) if path is not None]


class _TensorBoard(Tracker):
    def __init__(self, writer: Any, options: Mapping[str, Any]) -> None:
        self._writer, self._options = writer, options

    def facts(self, stage: str, facts: IterationFacts) -> None:
        for name, value in _evaluation(facts).items():
            self._writer.add_scalar(name, value, facts.iteration)

    def outcome(self, record: RunRecord) -> None:
        import numpy as np
        from PIL import Image
        from tensorboardX.summary import hparams

        # Not add_hparams: its file has the name of this one where both were opened in the same second.
        numbers = _numbers(record)
        for summary in hparams(dict(self._options), numbers):
            self._writer.file_writer.add_summary(summary)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, 0)
        for path in _pictures(record):
            with Image.open(path) as picture:
                self._writer.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")


class _MLflow(Tracker):
    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow

    def facts(self, stage: str, facts: IterationFacts) -> None:
        numbers = _evaluation(facts)
        if numbers:
            self._mlflow.log_metrics(numbers, step=facts.iteration)

    def outcome(self, record: RunRecord) -> None:
        try:
            self._mlflow.log_metrics(_numbers(record))
            for path in _pictures(record):
                self._mlflow.log_artifact(str(path))
        except self._mlflow.MlflowException as error:
            said = f"the run is complete, but MLflow did not take its outcome: {error}"
            warn(said, ResultWarning)
