"""The page of a set that was distilled in Python."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from krrdistill.apps.distillation import RunData, written
from krrdistill.apps.drawing import require_drawing
from krrdistill.apps.folder import Existing, output_folder
from krrdistill.apps.likeness import value_range
from krrdistill.apps.run_kind import RunKind, check_kind, is_taken
from krrdistill.artifact.file import DistilledDataset
from krrdistill.backends import get_backend
from krrdistill.common.arrays import host_rows
from krrdistill.common.progress import Stopwatch
from krrdistill.common.samples import as_samples, check_shape, sample_shape
from krrdistill.common.threads import limited_threads
from krrdistill.data import Dataset
from krrdistill.data.labels import label_names
from krrdistill.errors import DataError, ResultWarning
from krrdistill.options import DistillOptions
from krrdistill.pipeline import Distillation
from krrdistill.ridge.model import RidgeModel

__all__ = ["write_report"]


def write_report(
    result: Distillation | DistilledDataset,
    folder: str | Path,
    *,
    model: RidgeModel | None = None,
    data: Any = None,
    test: Any = None,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the files of a run to a folder, as ``krrdistill distill`` does: set, pictures, report and page.

    The set is saved, read back and verified.

    Parameters
    ----------
    result : Distillation or DistilledDataset
        Result of ``distill``, or of ``distill_model``.
    folder : str or Path
        Folder for the files. It is created if it does not exist.
    model : RidgeModel, optional
        For a result of ``distill_model``: the model that was given to it.
    data : Dataset or array of shape ``(n, *shape)``, optional
        The training samples. The page shows those that the points were initialised from, and uses their range of
        values. A ``Dataset`` also has the test set and the names.
    test : (X, y) or Dataset, optional
        The test set. Without it only the weights are compared.
    name : str, optional
        Name of the data in the file and on the page; by default the name in ``distill`` or in ``data``, or their number
        and shape.
    class_names : sequence of str, optional
        Names of the classes or targets; by default their labels.
    overwrite : bool
        Whether to replace an earlier run in the folder.

    Returns
    -------
    Path
        Path of the page, report.html.

    Raises
    ------
    DataError
        For a folder that contains a run, unless ``overwrite`` is given, and for samples that do not fit.
    KrrDistillError
        If another process writes to the folder, or it cannot be made or written.
    BackendUnavailable
        If the packages that draw pictures are missing.
    """
    require_drawing()
    from krrdistill.apps.report.run_folder import PAGE
    from krrdistill.apps.report.write import in_folder, write_run

    result = _distillation(result, model)
    if not os.fspath(folder):
        raise ValueError("write_report: folder is empty; '.' is the current one")
    folder = Path(folder)
    if is_taken(folder, RunKind.DISTILL) and not overwrite:
        raise DataError(f"write_report: {folder} holds a run: name another folder, or pass overwrite=True")
    check_kind(folder, RunKind.DISTILL)
    points, model, samples = result.distilled, result.model, data
    known = points.meta["options"]
    backend = None if known["backend"] == get_backend(None).name else known["backend"]  # the default is not said
    options = DistillOptions(**dict(known, lambdas=None, backend=backend))
    for given in (data, test):
        if isinstance(given, Dataset):
            name, class_names = name or given.name, given.class_names if class_names is None else class_names
            test = (given.x_test, given.test_targets) if test is None or test is given else test
    if isinstance(data, Dataset):
        samples = data.x_train
    limits, start = None, None
    if samples is not None:
        check_shape("write_report: data", points.shape, sample_shape(samples, points.feature_map.input_dim))
        samples = as_samples("write_report: data", samples, input_dim=points.feature_map.input_dim)
        limits = value_range(samples)
        if result.start_rows is not None:
            if samples.shape[0] <= result.start_rows.max():
                raise DataError(
                    f"write_report: data has {samples.shape[0]} samples, and the points started from number "
                    f"{result.start_rows.max()}: pass the samples that were distilled"
                )
            rows = host_rows("write_report: data", samples, result.start_rows)
            start = rows.reshape(len(rows), *points.shape)
    k = points.Y.shape[1]
    names = label_names(points.classes, k) if class_names is None else _names(class_names, k)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"write_report: name must be a str, got {type(name).__name__}")
    facts = RunData(name or points.made_from, names, test, limits, "statistics" in result.seconds)
    existing = Existing.REPLACED if overwrite else Existing.REFUSED
    with (
        output_folder(folder, RunKind.DISTILL, existing),
        limited_threads(options.threads),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResultWarning)  # the record says it
        began, watch = time.perf_counter() - sum(result.seconds.values()), Stopwatch(None, result.seconds)
        run = written(result, facts, model.feature_map.kernel, options, folder, watch, began, start)
        with_path = run.record.criterion != "request"
        record = in_folder(run.record, folder, threads=options.threads, with_path=with_path)
        write_run(folder, record, run)
    return folder / PAGE


def _distillation(result: Any, model: Any) -> Distillation:
    """The result with its model. Raises TypeError where there is none, or another one."""
    if isinstance(result, DistilledDataset):
        if not isinstance(model, RidgeModel):
            given = "" if model is None else f", got {type(model).__name__}"
            raise TypeError(
                "write_report: a result of distill_model needs the model that was given to it: "
                f"write_report(points, folder, model=model){given}"
            )
        return Distillation(result, model, None)
    if not isinstance(result, Distillation):
        kind = type(result).__name__
        raise TypeError(f"write_report: result must be what distill or distill_model returns, got {kind}")
    if model is not None:
        raise TypeError("write_report: model belongs to a result of distill_model; that of distill has its own")
    return result


def _names(class_names: Sequence[str], k: int) -> tuple[str, ...]:
    """The names of classes or targets. Raises DataError where they are not k names."""
    given = () if isinstance(class_names, str) else tuple(class_names)
    if len(given) != k or any(each is None for each in given):
        raise DataError(f"write_report: class_names must be {k} names, got {class_names!r}")
    return tuple(map(str, given))
