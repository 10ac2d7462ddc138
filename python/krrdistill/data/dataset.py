"""The labelled data set that all other packages take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from krrdistill.common.rows import RowSource, blocks
from krrdistill.common.samples import check_columns, columns_of, host_samples
from krrdistill.errors import DataError

from .labels import Classes, Targets, label_array, label_names, read_targets, real_targets
from .layout import checked_layout

BLOCK_ELEMENTS = 1 << 20  # 8 MiB of float64: the largest temporary that a pass over the inputs makes


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled data set with a training and a test part. It is checked when it is created.

    Threads may share it if they may share its arrays and sources. Sources of ``read_samples`` can be shared.

    Parameters
    ----------
    name : str
        Name of the data set in reports.
    x_train, x_test : array of shape ``(n, *shape)``, data frame, sparse matrix or ``RowSource``
        Inputs. Arrays of uint8, float32 and float64 are used as they are. Anything else is converted to float32 or
        float64 block by block, when it is used.
    y_train, y_test : array, series or list
        Labels (n,): integers, booleans, strings or categories. They are stored as codes of ``classes``. Or targets
        (n, k), real values or 0/1, stored as float64. Every class needs at least one training sample.
    class_names : sequence of str, optional
        Names of the k classes or targets for reports and pictures; by default the labels themselves. Integers in y
        must then be the codes 0 ... k-1. ``predict`` returns labels as they are in y, integers or strings.
    targets : "classes" or "real", optional
        Meaning of y. Needed for whole-numbered floats, which could be either. The attribute is "classes",
        "multilabel" (0 or 1 in every column of y) or "real".
    layout : "NHWC" or "NCHW", optional
        Axis of the channels of images, last or first. Needed if the shape looks like channels first.
    x_validation, y_validation : optional
        Validation set to choose lambda on, instead of a hold-out of the training set.

    Raises
    ------
    TypeError
        For an object of the wrong type.
    DataError
        For wrong shapes or values.
    """

    name: str
    x_train: Any
    y_train: NDArray[Any]
    x_test: Any
    y_test: NDArray[Any]
    class_names: tuple[str, ...] = ()
    targets: Any = None
    layout: str | None = None
    x_validation: Any = None
    y_validation: Any = None
    classes: Classes | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"Dataset: name must be a string, got {type(self.name).__name__}")
        names = _checked_names(self.class_names)
        if (self.x_validation is None) != (self.y_validation is None):
            raise DataError("Dataset: x_validation and y_validation are given together or not at all")
        inputs = _checked_alike(x_train=self.x_train, x_test=self.x_test, x_validation=self.x_validation)
        x_train, x_test, x_validation = inputs
        y_train, classes = _read_labels(self.y_train, len(x_train), self.targets, names)
        y_test = _read_alike("y_test", self.y_test, len(x_test), y_train, classes)
        y_validation = self.y_validation
        if x_validation is not None:
            y_validation = _read_alike("y_validation", y_validation, len(x_validation), y_train, classes)
        k = y_train.shape[1] if classes is None else classes.count
        if not names:
            names = label_names(classes, k)
        if len(names) != k:
            raise DataError(f"Dataset: class_names has {len(names)} names, y_train {k} columns")
        kind = "classes" if classes is not None else "multilabel" if _is_binary(y_train, y_test) else "real"
        for name, value in {
            "class_names": names,
            "x_train": x_train,
            "x_test": x_test,
            "y_train": y_train,
            "y_test": y_test,
            "x_validation": x_validation,
            "y_validation": y_validation,
            "targets": kind,
            "layout": checked_layout("Dataset", x_train.shape[1:], self.layout),
            "classes": classes,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (h, w), (h, w, channels) or (d,)."""
        return tuple(int(s) for s in self.x_train.shape[1:])

    @property
    def input_dim(self) -> int:
        """d, the number of entries of one sample."""
        return math.prod(self.shape)

    @property
    def n_classes(self) -> int:
        """k, the number of classes."""
        return len(self.class_names)

    @property
    def train_targets(self) -> Targets:
        """Labels or targets of the training set, with the names of their classes, for ``distill``."""
        return Targets(self.y_train, self.classes)

    @property
    def test_targets(self) -> Targets:
        """Labels or targets of the test set, with the names of their classes."""
        return Targets(self.y_test, self.classes)

    @property
    def validation(self) -> tuple[Any, Any] | None:
        """Validation set (X, y) for ``distill``; None if there is none."""
        return None if self.x_validation is None else (self.x_validation, Targets(self.y_validation, self.classes))

    def check_classes(self, where: str) -> None:
        """Raises DataError, in the name of ``where``, unless the targets are classes."""
        if self.targets != "classes":
            raise DataError(f"{where}: needs classes, {self.name} has {self.targets} targets")

    def __repr__(self) -> str:
        validation = "" if self.x_validation is None else f"validation {len(self.x_validation)}, "
        return (
            f"Dataset({self.name!r}, train {len(self.x_train)}, {validation}test {len(self.x_test)}, "
            f"shape {self.shape}, {self.x_train.dtype}, {self.n_classes} classes)"
        )


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Slices that cover n rows of d entries, each at most 8 MiB in float64 (at least one row)."""
    step = max(1, BLOCK_ELEMENTS // d)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _checked_names(names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"Dataset: class_names must be a sequence of strings, got {type(names).__name__}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Dataset: class_names must hold strings, got {type(name).__name__}")
    return tuple(names)


def _checked_alike(**given: Any) -> list[Any]:
    """Samples of one shape and one unit; float32 and float64 meet in float64. None stays None."""
    checked = {name: _checked_inputs(name, x) for name, x in given.items() if x is not None or name != "x_validation"}
    train = checked["x_train"]
    for name, x in checked.items():
        if x.shape[1:] != train.shape[1:]:
            raise DataError(f"Dataset: {name} has samples of shape {x.shape[1:]}, x_train of {train.shape[1:]}")
        check_columns(f"Dataset: {name}", columns_of(train), x)
        if x.dtype != train.dtype and np.uint8 in (x.dtype, train.dtype):
            raise DataError(f"Dataset: {name} is {x.dtype} but x_train {train.dtype}; give both in the same units")
    if len({x.dtype for x in checked.values()}) > 1:
        checked = {
            name: x if isinstance(x, RowSource) else x.astype(np.float64, copy=False) for name, x in checked.items()
        }
    return [checked.get(name) for name in given]


def _checked_inputs(argument: str, x: Any) -> Any:
    """Samples as they are kept; those that are read a block at a time are checked when they are used."""
    with _named("X", argument):
        checked = host_samples("Dataset", x)
    if not isinstance(checked, RowSource) and checked.dtype.kind == "f":
        for rows, part in blocks(checked):
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                first = rows[int(finite.argmin())]
                raise DataError(f"Dataset: {argument} holds NaN or infinity, first in row {first}")
    return checked


@contextmanager
def _named(generic: str, argument: str) -> Iterator[None]:
    """Errors of functions that check X or y name the argument that it was here."""
    try:
        yield
    except (TypeError, DataError) as error:
        raise type(error)(str(error).replace(f"Dataset: {generic} ", f"Dataset: {argument} ", 1)) from error


def _read_labels(y: Any, n: int, targets: str | None, names: tuple[str, ...]) -> tuple[NDArray[Any], Classes | None]:
    """Codes of classes, each with a sample, or real-valued targets."""
    with _named("y", "y_train"):
        y = y if isinstance(y, Targets) else label_array("Dataset", y)
        coded = names and targets != "real" and isinstance(y, np.ndarray) and (y.ndim == 1 or y.shape[1] == 1)
        if coded:
            given = Classes(len(names), names) if y.dtype.kind == "U" else Classes(len(names))
            codes, classes = read_targets("Dataset", y, n, targets="classes", classes=given)
        else:
            codes, classes = read_targets("Dataset", y, n, targets=targets)
    if classes is None:
        return np.ascontiguousarray(codes, dtype=np.float64), None
    absent = np.flatnonzero(np.bincount(codes, minlength=classes.count) == 0)
    if absent.size:
        listed = ", ".join(str(classes.label(int(c))) for c in absent[:5]) + (", ..." if absent.size > 5 else "")
        raise DataError(f"Dataset: y_train has no sample of {absent.size} of {classes.count} classes: {listed}")
    return codes, classes


def _read_alike(argument: str, y: Any, n: int, like: NDArray[Any], classes: Classes | None) -> NDArray[Any]:
    """Other targets, of the kind of those of the training set."""
    with _named("y", argument):
        if classes is not None:
            return classes.encode("Dataset", y, n)
        return np.ascontiguousarray(real_targets("Dataset", y, n, like.shape[1]), dtype=np.float64)


def _is_binary(*targets: NDArray[Any]) -> bool:
    return all(bool(((y == 0) | (y == 1)).all()) for y in targets)
