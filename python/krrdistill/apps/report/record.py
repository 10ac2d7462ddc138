"""What a run folder holds: enough for its page, without the data set and without computing anything again.

report.json       the facts of the run, as ``krrdistill distill --json`` prints them
distilled.npz     the distilled set (docs/file-format.md)
figure_data.npz   the lambda path, singular values and start images
curve.npz         of KIP only: its loss and accuracy
privacy.json      what ``krrdistill privacy`` found out about distilled.npz, where it was asked
report.html       the page, made of the others
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.file import read_distilled_data
from krrdistill.common.files import read_npz, write_npz
from krrdistill.errors import DataError

if TYPE_CHECKING:
    from krrdistill.ridge.path import RidgePath

__all__ = ["CURVE", "DATA", "DISTILLED", "PAGE", "PRIVACY", "REPORT", "RunRecord", "read_run", "write_figure_data"]

REPORT, DISTILLED, DATA, PAGE = "report.json", "distilled.npz", "figure_data.npz", "report.html"
CURVE = "curve.npz"
PRIVACY = "privacy.json"

_NUMBER = (int, float)
_UNKNOWN = (int, float, type(None))  # infinity and NaN are null in JSON
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "dataset": str, "kernel": str, "init": str, "store": str, "precision": str, "backend": str, "command": str,
    "finished": str, "ipc": int, "seed": int, "n_train": int, "n_val": int, "n_test": int, "d": int, "p": int, "k": int,
    "m": int, "peak_memory_bytes": int, "lambda": _NUMBER, "lambda_s": _NUMBER, "range_scale": _NUMBER,
    "val_accuracy": _UNKNOWN, "original": dict, "distilled": dict, "certificate": dict, "seconds": dict,
    "floor_seconds": dict, "machine": dict, "realism": dict, "value_range": list, "warnings": list,
}  # fmt: skip
_KIP_FIELDS: dict[str, type | tuple[type, ...]] = {
    "variant": str, "iterations": int, "lr": _NUMBER, "best": dict, "last": dict, "setup_seconds": _NUMBER,
    "seconds_per_iteration": _NUMBER, "closed_form": (dict, type(None)),
}  # fmt: skip
_KIP_NUMBERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("best", "last"), ("iteration", "train_loss", "val_accuracy", "test_accuracy")),
    "closed_form": ("seconds", "train_loss", "val_accuracy"),
}
_CURVE = ("iteration", "train_loss", "val_accuracy", "seconds")
_NUMBERS = {
    "original": ("test_accuracy",),
    "distilled": ("test_accuracy",),
    "certificate": ("weight_relative_error", "weight_cosine", "prediction_agreement", "condition"),
    "seconds": ("total",),
    "realism": ("mse", "psnr", "out_of_range"),
}
# privacy.json, audit of a run's file.
_AUDIT: dict[str, type | tuple[type, ...]] = {
    "sha256": str, "epsilon": _NUMBER, "delta": _NUMBER, "limits": list, "reconstruction": dict,
    "reconstruction.relative_error": _UNKNOWN, "reconstruction.test_accuracy": _NUMBER, "neighbours": dict,
    **{f"neighbours.{name}": _NUMBER for name in
       ("count", "median", "minimum", "baseline_median", "baseline_minimum", "near_share")},
    "theorem": dict, "theorem.sigma": _UNKNOWN, "theorem.conditions": list,
}  # fmt: skip
_PATH = ("lambdas", "val_accuracy", "train_rmse", "below_noise_floor")


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run, read and checked."""

    folder: Path
    report: dict[str, Any]
    meta: dict[str, Any]  # of distilled.npz
    class_names: tuple[str, ...]
    images: npt.NDArray[np.float32]  # (m, *shape), in the units of the raw data
    start_images: npt.NDArray[Any] | None
    path: Mapping[str, npt.NDArray[Any]]  # lambdas, val_accuracy, train_rmse, below_noise_floor: (L,)
    noise_floor: float
    best: int
    singular_values: npt.NDArray[np.float64]  # of the distilled features; empty where they were not computed
    curve: Mapping[str, npt.NDArray[Any]] | None  # of KIP: iteration, train_loss, val_accuracy, seconds; else None
    privacy: dict[str, Any] | None  # None where no audit of this very distilled.npz is there

    @property
    def title(self) -> str:
        """What tells this run from others."""
        report = self.report
        name = f"{report['dataset']}, {report['kernel']}, {report['ipc']} per class"
        return name if self.curve is None else f"{name}, KIP ({report['variant']})"

    @property
    def target(self) -> float:
        """The relative weight error that the file must not exceed."""
        from krrdistill.apps.distillation import WEIGHT_ERROR_TARGETS

        return WEIGHT_ERROR_TARGETS[self.report["store"]]

    @property
    def exact(self) -> bool:
        """Whether the model retrained from the file is the original one, as far as its storage allows."""
        error = self.report["certificate"]["weight_relative_error"]
        return error is not None and error <= self.target


def write_figure_data(
    folder: Path,
    path: RidgePath,
    singular_values: npt.NDArray[np.float64] | None,
    start_images: npt.NDArray[Any] | None,
) -> None:
    """Writes what the page draws and no other file of the run holds."""
    arrays = {
        "lambdas": path.lambdas,
        "val_accuracy": path.score,
        "train_rmse": path.train_rmse,
        "below_noise_floor": path.below_noise_floor,
        "noise_floor": np.float64(path.noise_floor),
        "best": np.int64(path.best),
        "singular_values": np.empty(0) if singular_values is None else singular_values,
    }
    if start_images is not None:
        arrays["start_images"] = start_images
    write_npz(folder / DATA, {name: np.asarray(array) for name, array in arrays.items()})


def read_run(folder: Path) -> RunRecord:
    """Reads and checks a run folder. Raises DataError, which names the file, for anything missing or unexpected."""
    report = _read_report(folder / REPORT)
    meta, images = read_distilled_data(folder / DISTILLED)
    data = read_npz(folder / DATA)
    try:
        _check_data(data)
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / DATA}: {error.args[0]}") from error
    k, m = report["k"], report["m"]
    if len(images) != m or k < 1 or m % k:
        raise DataError(f"{folder}: {REPORT} has m = {m}, k = {k}; {DISTILLED} holds {len(images)} samples")
    start = data.get("start_images")
    if start is not None and (start.shape != images.shape or start.dtype.kind not in "uif"):
        raise DataError(f"{folder / DATA}: start_images are {start.dtype} {start.shape}, expected shape {images.shape}")
    names = meta.get("class_names")
    if not isinstance(names, list) or len(names) != k:
        raise DataError(f"{folder / DISTILLED}: meta has no names for its {k} classes")
    return RunRecord(
        folder=folder,
        report=report,
        meta=meta,
        class_names=tuple(str(name) for name in names),
        images=images,
        start_images=start,
        path={name: data[name] for name in _PATH},
        noise_floor=float(data["noise_floor"]),
        best=int(data["best"]),
        singular_values=data["singular_values"],
        curve=_read_curve(folder / CURVE) if "variant" in report else None,
        privacy=_read_privacy(folder),
    )


def _read_curve(path: Path) -> dict[str, npt.NDArray[Any]]:
    """KIP's curve."""
    arrays = read_npz(path)
    missing = [name for name in _CURVE if name not in arrays]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing")
    curve = {name: arrays[name] for name in _CURVE}
    lengths = {array.shape for array in curve.values()}
    finite = all(array.dtype.kind in "if" and np.isfinite(array).all() for array in curve.values())
    if not finite or len(lengths) != 1 or curve["iteration"].ndim != 1 or not curve["iteration"].size:
        raise DataError(f"{path}: {', '.join(_CURVE)} must be finite and of one length")
    return curve


def _read_json(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; is {path.parent} the folder of a run?") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(report, dict):
        raise DataError(f"{path}: expected an object, got {type(report).__name__}")
    return report


def _read_privacy(folder: Path) -> dict[str, Any] | None:
    """The audit, if there is one and it is of the distilled set that lies beside it."""
    path = folder / PRIVACY
    if not path.is_file():
        return None
    audit = _read_json(path)
    for name, kind in _AUDIT.items():
        group, _, key = name.rpartition(".")
        holder = audit.get(group) if group else audit
        _check(path, name, holder.get(key) if isinstance(holder, dict) else None, kind)
    for condition in audit["theorem"]["conditions"]:
        if not isinstance(condition, dict) or condition.keys() != {"name", "holds", "statement"}:
            raise DataError(f"{path}: theorem.conditions holds {condition!r}, which no audit writes")
    return audit if audit["sha256"] == hashlib.sha256((folder / DISTILLED).read_bytes()).hexdigest() else None


def _read_report(path: Path) -> dict[str, Any]:
    report = _read_json(path)
    is_kip = "variant" in report
    for name, kind in {**_FIELDS, **(_KIP_FIELDS if is_kip else {})}.items():
        if name not in report:
            raise DataError(f"{path}: {name} is missing; was the run made by another version?")
        _check(path, name, report[name], kind)
    for name, keys in {**_NUMBERS, **(_KIP_NUMBERS if is_kip else {})}.items():
        for key in keys:
            if report[name] is not None:
                _check(path, f"{name}.{key}", report[name].get(key, ""), _UNKNOWN)
    _check_values(path, report)
    return report


def _check_values(path: Path, report: dict[str, Any]) -> None:
    from krrdistill.construct.storage import STORES

    if report["store"] not in STORES:
        raise DataError(f"{path}: store is {report['store']!r}, expected one of {', '.join(STORES)}")
    for group, kinds in (("seconds", _NUMBER), ("floor_seconds", _UNKNOWN)):
        for stage, value in report[group].items():
            _check(path, f"{group}.{stage}", value, kinds)
    limits = report["value_range"]
    for value in limits:
        _check(path, "value_range", value, _NUMBER)
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise DataError(f"{path}: value_range must be two numbers, the lower one first, got {limits}")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _check(path: Path, name: str, value: Any, kind: type | tuple[type, ...]) -> None:
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"{path}: {name} is {value!r}, which no run writes")


def _check_data(data: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raises KeyError or ValueError, whose first argument says what is wrong."""
    for name in (*_PATH, "noise_floor", "best", "singular_values"):
        if name not in data:
            raise KeyError(f"{name} is missing")
        if data[name].dtype.kind not in "bif":
            raise ValueError(f"{name} has dtype {data[name].dtype}")
    lambdas, values, best = data["lambdas"], data["singular_values"], data["best"]
    if any(data[name].shape != (lambdas.size,) for name in _PATH) or not lambdas.size:
        raise ValueError(f"{', '.join(_PATH)} must be of one length")
    if not (np.isfinite(lambdas).all() and (lambdas > 0).all() and data["below_noise_floor"].dtype == bool):
        raise ValueError("lambdas must be positive and below_noise_floor true or false")
    if best.shape != () or not 0 <= int(best) < lambdas.size or data["noise_floor"].shape != ():
        raise ValueError(f"best must be one index below {lambdas.size}, and noise_floor one number")
    if values.ndim != 1 or not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("singular_values must be finite and not negative")
