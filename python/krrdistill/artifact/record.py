"""The facts of a run, each declared once: ``report.json``, terminal, page and comparison all come from here.

>>> score = Score(test_accuracy=0.75)
>>> to_json(score)
{'test_accuracy': 0.75}
>>> from_json(Score, {"test_accuracy": "high"})
Traceback (most recent call last):
krrdistill.errors.DataError: test_accuracy is 'high', which no run writes
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from krrdistill.common.options import short_word
from krrdistill.errors import DataError
from krrdistill.options import STORES, shown_points

__all__ = [
    "CRITERIA",
    "WEIGHT_ERROR_TARGETS",
    "CertificateNumbers",
    "ClosedFormRecord",
    "Criterion",
    "ErrorCurve",
    "KipPointRecord",
    "KipRecord",
    "Likeness",
    "RunRecord",
    "Score",
    "Solution",
    "Verification",
    "from_json",
    "plain",
    "to_json",
]

T = TypeVar("T")
# Relative weight error that a file must not exceed.
WEIGHT_ERROR_TARGETS = {"float64": 1e-6, "float32": 1e-2, "float16": 1e-2, "uint8": 1e-2}
_LARGEST_INTEGER = 2**128


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What lambda was chosen by, in words.

    name : of the score
    best : the score that was chosen
    percent : whether the score is shown in per cent
    """

    name: str
    best: str
    percent: bool = False

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[0].upper() + self.name[1:]

    @property
    def label(self) -> str:
        """The name with its unit."""
        return f"{self.name} (%)" if self.percent else self.name

    def shown(self, score: Any) -> Any:
        """Scores in the unit of ``label``."""
        return 100.0 * score if self.percent else score


CRITERIA: Mapping[str, Criterion] = {
    "accuracy": Criterion(name="validation accuracy", best="best accuracy", percent=True),
    "r2": Criterion(name="validation R\N{SUPERSCRIPT TWO}", best="best R\N{SUPERSCRIPT TWO}", percent=True),
    "squared_error": Criterion(name="validation squared error", best="smallest squared error"),
    "gcv": Criterion(name="generalised cross-validation score", best="smallest generalised cross-validation score"),
    "request": Criterion(name="score", best="lambda that was asked for"),
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a model does on the test set; all None where there is none.

    test_accuracy : of classes, or the mean over labels (multi-label); None for real values
    test_per_target : lists of k: "r2", "mse", of multi-label "accuracy"; None for classes
    """

    test_accuracy: float | None
    test_per_target: Mapping[str, tuple[float, ...]] | None = None

    @property
    def mean_r2(self) -> float | None:
        """The mean over targets of R^2; None for classes."""
        values = (self.test_per_target or {}).get("r2")
        return sum(values) / len(values) if values else None


@dataclass(frozen=True, kw_only=True)
class CertificateNumbers:
    """The numbers of a ``Certificate``; None for those that are not finite."""

    weight_relative_error: float | None
    weight_cosine: float | None
    prediction_agreement: float | None
    condition: float | None


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How far distilled samples are from the real ones that they started from, with the range of the data as 1."""

    mse: float | None
    psnr: float | None
    out_of_range: float | None
    asked: float | None


@dataclass(frozen=True, kw_only=True)
class Solution:
    """How the inputs were found.

    method : "exact", "nearest", "approximate" or "labels_only"
    outside_range : relative part of the weights outside the map's linear range; None if it has no such range
    range_dimension : dimension of that range
    steps : number of Gauss-Newton steps of approximate inputs
    stopped : "steps" or "seconds", what ended those before they were done
    """

    method: str
    outside_range: float | None
    range_dimension: int | None = None
    steps: int | None = None
    stopped: str | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorCurve:
    """The error of learned labels for the first m points, m and errors of one length."""

    m: tuple[int, ...]
    weight_relative_error: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.m) != len(self.weight_relative_error) or not self.m or min(self.m) < 1:
            raise DataError("m and weight_relative_error must be of one length, m positive")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of ``distill``, from its options to its outcome; the command line adds the fields after ``artifact``.

    ipc : points of each class: one number where they are alike, else k
    m : number of distilled samples
    criterion : key of ``CRITERIA``
    range_scale : factor that brought the features into the range of the map
    realism : likeness to the real samples of the start
    value_range : (lowest, highest) value of the raw data, None where only statistics are known
    asked : the options that tell this run from one of defaults (``common.options.differing``)
    zca : whether the inputs are whitened
    noise : the noise that the points started from, None for a start from real samples and for KIP
    statistics : the file of statistics that the model is of, where there were no data
    command, verify_command : what makes the run again, and verifies its file, from the folder where the run was started
    floor_seconds : lower bound on the time of stages (roofline), None where it is not measured
    """

    dataset: str
    kernel: str
    ipc: int | tuple[int, ...]
    init: str
    asked: Mapping[str, str] = field(default_factory=dict)
    noise: str | None = None
    zca: bool = False
    seed: int
    store: str
    n_train: int
    n_val: int
    n_test: int
    d: int
    p: int
    k: int
    m: int
    lambda_: float = field(metadata={"key": "lambda"})
    lambda_s: float
    range_scale: float
    solution: Solution | None = None
    labels_only: ErrorCurve | None = None
    criterion: str
    val_accuracy: float | None
    val_r2: tuple[float, ...] | None = None
    lambda_per_target: tuple[float, ...] | None = None
    targets: str = "classes"
    intercept: bool = False
    original: Score
    distilled: Score
    certificate: CertificateNumbers
    realism: Likeness
    value_range: tuple[float, float] | None
    peak_memory_bytes: int | None
    backend: str
    precision: str
    seconds: Mapping[str, float]
    floor_seconds: Mapping[str, float | None]
    warnings: tuple[str, ...]
    statistics: str | None = None
    artifact: str | None = None
    artifact_sha256: str | None = None
    figure: str | None = None
    lambda_path_figure: str | None = None
    report: str | None = None
    page: str | None = None
    command: str | None = None
    verify_command: str | None = None
    machine: Mapping[str, str] | None = None
    finished: str | None = None

    def __post_init__(self) -> None:
        if self.store not in STORES:
            raise DataError(f"store is {self.store!r}, expected one of {', '.join(STORES)}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            limits = list(self.value_range)
            raise DataError(f"value_range must be two numbers, the lower one first, got {limits}")
        if self.criterion not in CRITERIA:
            raise DataError(f"criterion is {self.criterion!r}, expected one of {', '.join(CRITERIA)}")
        if "total" not in self.seconds:
            raise DataError("seconds.total is missing")

    @property
    def chosen_by(self) -> Criterion:
        """What lambda was chosen by."""
        return CRITERIA[self.criterion]

    @property
    def training(self) -> str:
        """The samples that the model was trained on, and those that lambda was chosen on, in words."""
        others = f" (lambda chosen on {self.n_val} {'of them' if 'refit' in self.asked else 'others'})"
        return f"{self.n_train} samples{others if self.n_val else ''}"

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of every stage, without their total."""
        return {stage: value for stage, value in self.seconds.items() if stage != "total"}

    @property
    def weight_error_target(self) -> float:
        """The relative weight error that the file must not exceed."""
        return WEIGHT_ERROR_TARGETS[self.store]

    @property
    def exact(self) -> bool:
        """Whether the model retrained from the file is the original one, as far as its storage allows."""
        error = self.certificate.weight_relative_error
        return error is not None and error <= self.weight_error_target

    @property
    def method(self) -> str:
        """How the samples were made, in words."""
        return "closed form"

    @property
    def title(self) -> str:
        """What tells this run from others: the facts that the default name of its folder has."""
        asked = (f"{name.replace('-', ' ')} {short_word(value)}".rstrip() for name, value in self.asked.items())
        points = f"{shown_points(self.ipc)} per class"
        return ", ".join((self.dataset, self.kernel, points, f"{self.init} start", *asked, f"seed {self.seed}"))


@dataclass(frozen=True, kw_only=True)
class KipPointRecord:
    """One iteration of KIP."""

    iteration: int
    train_loss: float | None
    val_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class ClosedFormRecord:
    """What ``distill`` makes of the model that KIP started from."""

    seconds: float | None
    train_loss: float | None
    val_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class KipRecord(RunRecord):
    """One run of KIP; ``distilled`` and ``certificate`` are of its best iteration.

    device : where the steps were taken (``backend`` is of the statistics): device, library, of a GPU "gpu" and "tf32"
    """

    variant: str
    warm_start: bool = False
    iterations: int
    lr: float
    batch_size: int | None = None
    best: KipPointRecord
    last: KipPointRecord
    closed_form: ClosedFormRecord | None
    setup_seconds: float
    seconds_per_iteration: float
    device: Mapping[str, str] | None = None
    resumed_from: int = 0
    last_artifact: str | None = None
    curve: str | None = None

    @property
    def method(self) -> str:
        """How the samples were made, in words."""
        return f"KIP, {self.variant}, {self.iterations} steps"

    @property
    def title(self) -> str:
        """What tells this run from others."""
        return f"{super().title}, KIP ({self.variant})"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A certificate recomputed from a file."""

    artifact: str
    dataset: str
    store: str
    lambda_s: float
    original: Score
    distilled: Score
    certificate: CertificateNumbers
    tolerance: float
    passed: bool
    statistics: str | None = None
    warnings: tuple[str, ...] = ()


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON-able values, its fields in order; NaN and infinity become None.

    Fields that are None by default are left out while they are.
    """
    values = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if value is not None or item.default is not None:
            values[_key(item)] = plain(value)
    return values


def from_json(kind: type[T], document: Any, name: str = "") -> T:
    """The record of class ``kind`` in a JSON object; keys that it does not know are passed over.

    Raises
    ------
    DataError
        For anything that is missing or of another type, which the message names by its path, as in "best.train_loss".
    """
    if not isinstance(document, Mapping):
        raise DataError(_unexpected(name or "the document", document))
    values = {}
    for item, expected in _fields(typing.cast(Any, kind)):
        key = _key(item)
        path = f"{name}.{key}" if name else key
        if key in document:
            values[item.name] = _read(expected, document[key], path)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise DataError(f"{path} is missing; was the run made by another version?")
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"{name}: {error}" if name else str(error)) from None


def _key(item: dataclasses.Field[Any]) -> str:
    """The name of a field in JSON."""
    return str(item.metadata.get("key", item.name))


def plain(value: Any) -> Any:
    """A value as JSON has it: records and mappings as objects, NumPy values as numbers, paths as text, NaN as null."""
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _fields(kind: Any) -> tuple[tuple[dataclasses.Field[Any], Any], ...]:
    """Every field of a record with its type."""
    hints = typing.get_type_hints(kind)
    return tuple((item, hints[item.name]) for item in dataclasses.fields(kind))


def _read(expected: Any, value: Any, path: str) -> Any:
    """``value`` as a field of type ``expected``."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (types.UnionType, typing.Union):  # None or one type, and lists of it
        if value is None and types.NoneType in arguments:
            return None
        offered = [argument for argument in arguments if argument is not types.NoneType]
        fitting = [kind for kind in offered if (typing.get_origin(kind) is tuple) == isinstance(value, list)]
        return _read((fitting or offered)[0], value, path)
    if dataclasses.is_dataclass(expected):
        return from_json(typing.cast(Any, expected), value, path)
    if origin is Mapping or expected is Mapping:
        _expect(isinstance(value, dict), path, value)
        return {key: _read(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if origin is tuple:
        _expect(isinstance(value, list), path, value)
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        _expect(len(value) == len(kinds), path, value)
        return tuple(_read(kind, item, path) for kind, item in zip(kinds, value, strict=True))
    return _scalar(expected, value, path)


def _scalar(expected: type, value: Any, path: str) -> Any:
    """A number, a text or a truth value; no integer is beyond 2^128, as JSON's can be, and no number infinite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if expected is float and is_number:
        _expect(isinstance(value, float) or abs(value) < _LARGEST_INTEGER, path, value)
        value = float(value)
    _expect(type(value) is expected, path, value)
    if is_number:
        _expect(math.isfinite(value) if expected is float else abs(value) < _LARGEST_INTEGER, path, value)
    return value


def _expect(condition: bool, path: str, value: Any) -> None:
    if not condition:
        raise DataError(_unexpected(path, value))


def _unexpected(path: str, value: Any) -> str:
    text = repr(value)
    return f"{path} is {text if len(text) < 80 else text[:77] + '...'}, which no run writes"
