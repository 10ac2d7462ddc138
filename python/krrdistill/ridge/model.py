"""The model: W, b and lambda, and how lambda was chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.archive import FileKind
from krrdistill.common.arrays import (
    check_choice,
    check_count,
    check_number,
    checked_columns,
    checked_shape,
    like,
    read_only,
)
from krrdistill.common.documents import parse_json
from krrdistill.common.files import opened_npz, write_npz
from krrdistill.common.products import product
from krrdistill.common.samples import as_samples, check_columns, check_shape, sample_shape
from krrdistill.common.warning import warn
from krrdistill.data.labels import Classes
from krrdistill.data.units import Sizes
from krrdistill.errors import DataError, ResultWarning
from krrdistill.maps import FeatureMap, described, described_map
from krrdistill.options import PRECISIONS, SELECTIONS

from .held_out import HeldOutRows
from .path import RidgePath, fit_intercept, fit_ridge, ridge_path
from .scores import TARGET_KINDS, all_scores, predictions, score_of
from .selection import (
    CorrectCounts,
    check_solvable,
    select_by_counts,
    select_by_gcv,
    select_by_rows,
    select_by_statistics,
)
from .statistics import CENTERS, RidgeStatistics

__all__ = ["RidgeModel", "fit_model", "fitted", "refitted"]

FloatArray = npt.NDArray[np.float64]
_FORMAT = "krrdistill-model-2"
_FEW_HELD_OUT = 20  # below it, one sample is more than 5 % of the accuracy
_PATH = "path_"
_KIND = FileKind(
    "a file of a ridge model",
    re.compile("W|b|lambdas|spread|X_origin|X_unit|whitening|input_count|input_squares|header|digest|path_[a-z0-9_]+"),
)


@dataclass(frozen=True, eq=False)
class RidgeModel:
    r"""A ridge model W = C (G + lambda I)^-1 with predictions W phi(x) + b: the original model of a distillation.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    feature_map : FeatureMap
        phi.
    W : array of shape (k, p)
        Weights.
    b : array of shape (k,), or None for 0
        Intercept.
    lambda_ : float
        Ridge parameter. If every target has its own, the smallest of them.
    lambdas : array of shape (k,)
        Ridge parameter of each target; None if they share one.
    path : RidgePath
        Scores for all lambdas that were compared, without their weights.
    targets : "classes", "multilabel" or "real"
        Kind of the targets.
    classes : Classes
        The classes and their labels; None for other targets.
    center : "none", "targets" or "both"
        What was centred for training.
    spread : array of shape (k,)
        Standard deviation of each training target.
    precision : "float32" or "float64"
        Precision of the features.
    n_train : int
        Number of training samples.
    shape : tuple of int
        Shape of one raw sample.
    n_validation : int
        Number of held-out samples on which lambda was chosen.
    outside_range : float
        Relative size of the part of W outside the linear range of the map, which was removed. None if the map has no
        such range.
    weighted : bool
        Whether the training samples had weights.
    split : mapping
        How the training samples were chosen; None if the model was fitted to given statistics.
    columns : tuple of str, or None
        Names of the columns of X, if it was a data frame. ``predict`` requires the same.
    sizes : Sizes, or None
        Mean squares of the entries of the training samples. ``predict`` warns of samples in other units.

    Notes
    -----
    W and b minimise, over the training samples with weights w (b = 0 without centring):

    .. math::

        \min_{W, b}\ \sum_i w_i \lVert y_i - W \varphi(x_i) - b \rVert^2 + \lambda \lVert W \rVert^2
    """

    feature_map: FeatureMap
    W: FloatArray
    b: FloatArray | None
    lambda_: float
    lambdas: FloatArray | None
    path: RidgePath
    targets: str
    classes: Classes | None
    center: str
    spread: FloatArray
    precision: str
    n_train: int
    shape: tuple[int, ...]
    n_validation: int = 0
    outside_range: float | None = None
    weighted: bool = False
    split: Mapping[str, Any] | None = field(default=None)
    columns: tuple[str, ...] | None = None
    sizes: Sizes | None = None

    def __post_init__(self) -> None:
        """Nobody writes into the arrays: what the model says of itself would not hold any more."""
        for name in ("W", "b", "lambdas", "spread"):
            array = getattr(self, name)
            if array is not None:
                object.__setattr__(self, name, read_only(array))

    def __repr__(self) -> str:
        k, p = self.W.shape
        chosen = f"lambda={self.lambda_:.3g} by {self.path.criterion or 'request'}"
        return f"RidgeModel(k={k}, p={p}, {self.targets}, {chosen}, n={self.n_train})"

    @property
    def val_accuracy(self) -> float | None:
        """Accuracy of the model on held-out data; None if lambda was chosen by another criterion."""
        return float(self.path.val_accuracy[self.path.best]) if self.path.criterion == "accuracy" else None

    @property
    def val_r2(self) -> tuple[float, ...] | None:
        """R^2 of every target on held-out data; None if lambda was chosen by another criterion."""
        path = self.path
        if path.val_r2 is None:
            return None
        chosen = np.full(path.val_r2.shape[1], path.best) if path.chosen is None else path.chosen
        return tuple(path.val_r2[chosen, np.arange(len(chosen))].tolist())

    def scores(self, X: Any, *, backend: Backend | str | None = None) -> FloatArray:
        """Compute W phi(x) + b for raw samples X (n, d) or ``(n, *shape)``: float64 array of shape (n, k)."""
        samples = as_samples("predict", X, input_dim=self.feature_map.input_dim)
        check_shape("predict", self.shape, sample_shape(X, samples.shape[1]))
        check_columns("predict", self.columns, samples)
        (self.sizes or self.feature_map.preprocessing).warn_of_units("predict", samples)
        b = None if self.b is None else self.b[None]
        solver = get_backend(backend, data=samples)
        return all_scores(self.feature_map, samples, self.W[None], b, precision="float64", backend=solver)[:, 0]

    def predict(self, X: Any, *, backend: Backend | str | None = None) -> Any:
        """Predict labels (n,), or an array (n, k) of 0 and 1 or of real values. It is of the kind of X."""
        predicted = predictions(self.scores(X, backend=backend), self.targets)
        if self.classes is not None and self.classes.names is not None:
            return self.classes.decode(predicted)
        return like(predicted, X)

    def score(self, X: Any, y: Any, *, backend: Backend | str | None = None) -> float:
        """Accuracy on samples X, y (for 0/1 targets the mean over them), or the mean R^2 of real-valued targets."""
        scores = self.scores(X, backend=backend)
        known = y if self.classes is None else self.classes.encode("score", y, len(scores))
        return score_of(scores, np.asarray(known), self.targets)

    def statements(self) -> list[str]:
        """Sentences about what a user should know about the model and the choice of lambda."""
        said = (*self.path.statements(), self.below_mean(), self.few_held_out())
        return [sentence for sentence in said if sentence is not None]

    def few_held_out(self) -> str | None:
        """A sentence if lambda was chosen on very few samples; otherwise None."""
        if len(self.path.lambdas) == 1 or not 0 < self.n_validation < _FEW_HELD_OUT:
            return None
        samples = f"{self.n_validation} held-out sample{'' if self.n_validation == 1 else 's'}"
        return (
            f"lambda was chosen on {samples} only, too few to tell models apart: hold out more "
            "(validation_fraction), give a validation set, or use selection='gcv', which holds nothing out"
        )

    def below_mean(self) -> str | None:
        """A sentence about targets that their means predict better on held-out samples; None if there are none."""
        path = self.path
        if path.val_r2 is None or self.center != "none":
            return None
        targets = np.arange(path.val_r2.shape[1])
        scores = path.val_r2[path.best if path.chosen is None else path.chosen, targets]
        worse = np.flatnonzero(scores < 0.0)
        if not worse.size:
            return None
        return (
            f"R^2 is below 0 on the held-out samples, for {worse.size} of {len(scores)} targets (lowest "
            f"{scores.min():.3g}): their means predict them better; fit an intercept (intercept=True, of fit_model "
            "center='both')"
        )

    def save(self, path: str | Path) -> None:
        """Write the model and the description of its map to an .npz file, atomically."""
        description, preprocessing = described(self.feature_map)
        header = {
            **description,
            "format": _FORMAT,
            "classes": None if self.classes is None else list(self.classes.names or range(self.classes.count)),
            "split": None if self.split is None else dict(self.split),
            "shape": list(self.shape),
            **({} if self.columns is None else {"columns": list(self.columns)}),
            **{name: getattr(self, name) for name in _PLAIN},
        }
        arrays = {"W": self.W, "spread": self.spread}
        arrays |= {name: value for name in ("b", "lambdas") if (value := getattr(self, name)) is not None}
        arrays |= {} if self.sizes is None else self.sizes.to_arrays()
        arrays |= {f"{_PATH}{name}": value for name, value in self.path.to_arrays().items()}
        write_npz(
            Path(path), {**arrays, **preprocessing, "header": np.array(json.dumps(header, sort_keys=True))}, sealed=True
        )

    @staticmethod
    def load(path: str | Path, feature_map: FeatureMap | None = None) -> RidgeModel:
        """Read a file that ``save`` wrote. Raises DataError for a file that does not fit.

        The map is built from its description in the file. A ``UserMap`` must be passed as ``feature_map``.
        """
        with opened_npz(Path(path), _KIND) as arrays:
            header = parse_json("header", str(arrays["header"]))
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']!r}, this version reads {_FORMAT!r}")
            p = header["map"]["output_dim"]
            if arrays["W"].shape[1:] != (p,):  # before weights of that size are drawn
                raise ValueError(f"W has shape {arrays['W'].shape}, the map {p!r} features")
            feature_map = described_map(header, arrays, feature_map)
            classes = None if header["classes"] is None else Classes.of("load", header["classes"])
            W = arrays["W"]
            if classes is not None and classes.count != len(W):
                raise ValueError(f"W is of {len(W)} classes, not {classes.count}")
            shapes = {"W": (len(W), feature_map.output_dim), "b": (len(W),), "lambdas": (len(W),), "spread": (len(W),)}
            for name, shape in shapes.items():
                if name in arrays and (arrays[name].shape != shape or not np.isfinite(arrays[name]).all()):
                    raise ValueError(f"{name} must be finite, of shape {shape}")
            check_choice("load", "center", header["center"], CENTERS)
            check_choice("load", "precision", header["precision"], PRECISIONS)
            check_choice("load", "targets", header["targets"], TARGET_KINDS)
            check_number("load", "lambda_", header["lambda_"])
            for name in ("n_train", "n_validation"):
                check_count("load", name, header[name], minimum=0)
            if (classes is None) != (header["targets"] != "classes"):
                raise ValueError("classes and targets contradict each other")
            return RidgeModel(
                feature_map=feature_map,
                W=W,
                b=arrays.get("b"),
                lambdas=arrays.get("lambdas"),
                spread=arrays["spread"],
                path=_read_path(arrays),
                classes=classes,
                split=header["split"],
                shape=checked_shape(header["shape"], feature_map.input_dim),
                columns=checked_columns(header.get("columns"), feature_map.input_dim),
                sizes=Sizes.from_arrays(arrays, feature_map.input_dim),
                **{name: header[name] for name in _PLAIN},
            )


_PLAIN = ("lambda_", "targets", "center", "precision", "n_train", "n_validation", "outside_range", "weighted")


def _read_path(arrays: Mapping[str, npt.NDArray[Any]]) -> RidgePath:
    kinds = {item.name: str(item.type) for item in fields(RidgePath)}
    found: dict[str, Any] = {"weights": None, "intercepts": None}
    for name, kind in kinds.items():
        if f"{_PATH}{name}" in arrays:
            array = arrays[f"{_PATH}{name}"]
            found[name] = {"float": float, "int": int, "str": str}.get(kind, np.asarray)(array)
    return RidgePath(**found)


def fit_model(
    statistics: RidgeStatistics,
    lambdas: Any = None,
    *,
    validation: HeldOutRows | RidgeStatistics | CorrectCounts | tuple[Any, Any] | None = None,
    selection: str = "held-out",
    center: str = "none",
    per_target: bool = False,
) -> RidgeModel:
    """Fit a ridge model to statistics, with lambda chosen from a grid.

    W(lambda) = C (G + lambda I)^-1 is computed for all lambdas together.

    Parameters
    ----------
    statistics : RidgeStatistics
        Statistics of the training samples.
    lambdas : number or sequence, optional
        Candidates, > 0 and absolute (added to the eigenvalues of G); by default 10^-6 ... 10^5.5. A single number needs
        no validation.
    validation : (X, y), HeldOutRows, RidgeStatistics or CorrectCounts, optional
        Held-out data to choose lambda on. Samples are compared by accuracy, or by R^2 for real-valued targets.
        Held-out statistics are compared by squared error. ``CorrectCounts`` holds the correct predictions for every
        lambda.
    selection : "held-out" or "gcv"
        "gcv" is generalised cross-validation. It needs no held-out data. It is a squared error, which prefers larger
        lambdas than accuracy does.
    center : "none", "targets" or "both"
        "targets" subtracts their mean. "both" fits an unpenalised intercept.
    per_target : bool
        Whether to choose lambda separately for every real-valued target.

    Returns
    -------
    RidgeModel

    Raises
    ------
    ValueError
        If there are several lambdas and nothing to choose by.
    NotPositiveDefinite, DataError

    Examples
    --------
    >>> import krrdistill as kd
    >>> digits = kd.load_dataset("digits")
    >>> statistics = kd.RidgeStatistics(kd.Identity(digits.input_dim), classes=10)
    >>> kd.fit_model(statistics.update(digits.x_train, digits.y_train), selection="gcv").W.shape
    (10, 64)
    """
    return fitted(
        "fit_model",
        statistics,
        lambdas,
        validation=validation,
        selection=selection,
        center=center,
        per_target=per_target,
    )


def fitted(
    where: str,
    statistics: RidgeStatistics,
    lambdas: Any,
    *,
    validation: HeldOutRows | RidgeStatistics | CorrectCounts | tuple[Any, Any] | None,
    selection: str,
    center: str,
    per_target: bool,
) -> RidgeModel:
    """``fit_model`` within the function ``where``, which messages about held-out rows name."""
    if not isinstance(statistics, RidgeStatistics):
        raise TypeError(f"fit_model: statistics must be RidgeStatistics, got {type(statistics).__name__}")
    check_choice("fit_model", "selection", selection, SELECTIONS)
    if statistics.n == 0:
        raise DataError("fit_model: the statistics are of no samples")
    if statistics.classes is not None and not statistics.target_square.all():
        absent = np.flatnonzero(statistics.target_square == 0.0)
        name = statistics.classes.decode(absent).tolist()[0]
        raise DataError(f"fit_model: class {name!r} has no sample of positive weight ({absent.size} classes have none)")
    if per_target and statistics.classes is not None:
        raise ValueError("fit_model: per_target needs real-valued targets; the classes of one label share lambda")
    path = ridge_path(statistics, lambdas, center=center)
    chosen, n_validation = _select(path, statistics, validation, selection, center, per_target, where)
    W, b, own = chosen.model()
    model = _finished_model(
        statistics,
        W=W,
        b=None if center == "none" else b,
        lambdas=own if per_target else None,
        lambda_=float(own.min()),
        path=chosen.without_models(),
        center=center,
        n_validation=n_validation,
    )
    for said in (model.path.edge(), model.below_mean(), model.few_held_out()):
        if said is not None:
            warn(f"fit_model: {said}", ResultWarning)
    return model


def _select(
    path: RidgePath,
    statistics: RidgeStatistics,
    validation: Any,
    selection: str,
    center: str,
    per_target: bool,
    where: str,
) -> tuple[RidgePath, int]:
    """(the path with its choice, number of held-out samples)."""
    if selection == "gcv":
        if validation is not None or per_target:
            raise ValueError("fit_model: selection='gcv' takes neither validation nor per_target")
        return select_by_gcv(path, statistics, center=center), 0
    if isinstance(validation, tuple):
        validation = HeldOutRows(*validation)
    if isinstance(validation, HeldOutRows):
        where = where if validation.rows is not None else f"{where}: validation"  # rows of the caller's own X
        return select_by_rows(path, statistics, validation, where=where, per_target=per_target), len(validation)
    if isinstance(validation, RidgeStatistics):
        statistics.check_fits("fit_model: validation", validation)
        if validation.n == 0:
            raise DataError("fit_model: validation has no samples")
        validation = statistics.in_these_classes("fit_model: validation", validation)
        return select_by_statistics(path, validation, per_target=per_target), validation.n
    if isinstance(validation, CorrectCounts):
        if statistics.classes is None:
            raise TypeError("fit_model: counts are of classes; these statistics are of real-valued targets")
        return select_by_counts(path, validation), validation.n
    if validation is not None:
        kind = type(validation).__name__
        raise TypeError(
            f"fit_model: validation must be (X, y), HeldOutRows, RidgeStatistics or CorrectCounts, got {kind}"
        )
    return _only(path), 0


def _only(path: RidgePath) -> RidgePath:
    """The path of one lambda, which needs no choice."""
    if len(path.lambdas) > 1:
        raise ValueError(
            f"fit_model: {len(path.lambdas)} lambdas and nothing to choose by: give validation=(X, y), held-out "
            "statistics or counts, selection='gcv', or one lambda"
        )
    check_solvable(path)
    return replace(path, best=0)


def _finished_model(
    statistics: RidgeStatistics,
    *,
    W: FloatArray,
    b: FloatArray | None,
    lambdas: FloatArray | None,
    lambda_: float,
    path: RidgePath,
    center: str,
    n_validation: int,
) -> RidgeModel:
    if statistics.classes is not None and center != "none":
        W = W - W.mean(axis=0)  # centred one-hot targets sum to 0, and so do the models, up to rounding
    W, outside = _within_range(W, statistics.feature_map)
    return RidgeModel(
        feature_map=statistics.feature_map,
        W=W,
        b=b,
        lambda_=lambda_,
        lambdas=lambdas,
        path=path,
        targets=statistics.targets,
        classes=statistics.classes,
        center=center,
        spread=statistics.target_spread,
        precision=statistics.precision,
        n_train=statistics.n,
        shape=statistics.shape,
        n_validation=n_validation,
        outside_range=outside,
        columns=statistics.columns,
        sizes=statistics.sizes,
    )


def _within_range(W: FloatArray, feature_map: FeatureMap) -> tuple[FloatArray, float | None]:
    """Projects W onto the map's linear range (rounding alone moves it out); also returns the relative part removed."""
    Q = feature_map.range_basis() if feature_map.reach == "exact" else None
    if Q is None:
        return W, None
    inside = product(product(W, Q), Q.T)
    return inside, float(np.linalg.norm(W - inside)) / (float(np.linalg.norm(W)) or 1.0)


def refitted(model: RidgeModel, statistics: RidgeStatistics) -> RidgeModel:
    """The model of more samples with the same lambda; ``statistics`` are those of all samples."""
    lambdas = model.lambda_ if model.lambdas is None else model.lambdas
    W = fit_ridge(statistics, lambdas, center=model.center)
    b = None if model.center == "none" else fit_intercept(statistics, W, center=model.center)
    kept = {name: getattr(model, name) for name in ("lambdas", "lambda_", "path", "center", "n_validation")}
    return replace(_finished_model(statistics, W=W, b=b, **kept), weighted=model.weighted, split=model.split)
