"""The distilled data set as one self-contained .npz file (docs/reference/file-format.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Backend, get_backend
from krrdistill.common.archive import FileKind
from krrdistill.common.arrays import checked_columns, checked_shape, like, read_only, to_host
from krrdistill.common.documents import parse_json
from krrdistill.common.files import opened_npz, write_npz
from krrdistill.common.placed import AnyMatrix
from krrdistill.common.samples import as_samples, check_columns, check_shape, sample_shape
from krrdistill.construct.storage import Encoding
from krrdistill.data import Dataset, Preprocessing
from krrdistill.data.labels import Classes, real_targets
from krrdistill.data.npz import npz_keys
from krrdistill.data.units import Sizes
from krrdistill.errors import DataError
from krrdistill.maps import FeatureMap, check_describable, check_map, map_from_spec
from krrdistill.maps.weights import most_drawn
from krrdistill.ridge.feature_gram import FeatureGram, contrasts
from krrdistill.ridge.model import RidgeModel
from krrdistill.ridge.scores import TARGET_KINDS, all_scores, predictions

from .certificate import Certificate, certify
from .record import WEIGHT_ERROR_TARGETS

__all__ = ["FORMAT", "DistilledDataset", "StoredPoints", "has_digest", "read_points"]

FloatArray = npt.NDArray[np.float64]
FORMAT = "krrdistill-2"
_EMBED_LIMIT = 1 << 20  # weights up to this many numbers are stored in the file by default
_KIND = FileKind(
    "a distilled data set",
    re.compile(
        "X|X_scale|X_offset|X_origin|X_unit|whitening|Y|lambda_s|W|intercept|target_offset|input_count|input_squares|meta|"
        r"digest|map_(weight|bias|kernel|kernel_channels_first|signs|scale)_\d{1,4}"
    ),
)


@dataclass(frozen=True, eq=False)
class DistilledDataset:
    """A distilled set: m labelled points on which ridge regression gives the original model again.

    Threads may share it, as it is immutable.

    Parameters
    ----------
    inputs : array of shape (m, d), float64 or float32
        Standardised inputs u = (x - origin) / unit. ``X`` gives the raw inputs. With classes the order is: one point
        of each class, ascending, then the second point of each class that has one, and so on.
    Y : array of shape (m, k)
        Labels.
    lambda_s : float
        Ridge parameter to train with (absolute).
    feature_map : FeatureMap
        Feature map phi on raw inputs, including its preprocessing.
    shape : tuple of int
        Shape of one raw sample, d entries.
    encoding : Encoding, optional
        Number format of a compact file. ``inputs`` are then the decoded values in float64.
    weights : array of shape (k, p), optional
        Weights W of the original model. W can also be computed from X and Y.
    intercept : array of shape (k,), optional
        Intercept b of the original model, if ``weights`` are there.
    targets : "classes", "multilabel" or "real"
        Kind of the columns of Y.
    classes : Classes, optional
        The k classes and their labels, in the order of the columns of Y.
    centered : bool
        Whether to train with an unpenalised intercept, that is on centred features and labels.
    offset : array of shape (k,), optional
        Mean of the training targets. It was subtracted from Y, and is added to predictions.
    sizes : Sizes, optional
        Mean squares of the entries of the training samples, for maps without preprocessing. With them ``predict``
        recognises samples in other units.
    meta : dict
        Facts about the set, as JSON-able values: data set, split, lambda, accuracies, certificate, times, versions.
    weight_error : float, optional
        ||W_S - W|| / ||W||, with W_S the model trained on this set, if it was computed when the set was made.

    Examples
    --------
    >>> import krrdistill as kd
    >>> digits = kd.load_dataset("digits")
    >>> phi = kd.make_map("identity", digits, kd.standardize(digits))
    >>> points = kd.distill(digits.x_train, digits.y_train, phi).distilled
    >>> points.X.shape, points.Y.shape
    ((10, 64), (10, 10))
    >>> points.predict(digits.x_test).shape
    (359,)
    """

    inputs: npt.NDArray[Any]
    Y: FloatArray
    lambda_s: float
    feature_map: FeatureMap
    shape: tuple[int, ...]
    encoding: Encoding | None = None
    weights: FloatArray | None = None
    intercept: FloatArray | None = None
    targets: str = "classes"
    classes: Classes | None = None
    centered: bool = False
    offset: FloatArray | None = None
    sizes: Sizes | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    weight_error: float | None = None

    def __post_init__(self) -> None:
        """Nobody writes into the arrays: what the set says of itself would not hold any more."""
        for name in ("inputs", "Y", "weights", "intercept", "offset"):
            array = getattr(self, name)
            if array is not None:
                object.__setattr__(self, name, read_only(array))

    def __repr__(self) -> str:
        m, k = self.Y.shape
        certified = (self.meta.get("certificate") or {}).get("weight_relative_error")
        error = self.weight_error if certified is None else certified
        judged = "" if error is None else f", weight error {error:.2g}"
        judged += ", NOT EXACT" if error is not None and error > WEIGHT_ERROR_TARGETS[self.store] else ""
        return (
            f"DistilledDataset({m} points for {k} {self.targets}, shape {self.shape}, {self.feature_map!r}, "
            f"lambda_s={self.lambda_s:.3g}, {self.store}{judged})"
        )

    @property
    def made_from(self) -> str:
        """Name of the training data; if they have none, their number, shape and kind of targets."""
        name = self.meta.get("dataset")
        if isinstance(name, str):
            return name
        counted = f"{self.meta['n_train']} samples" if "n_train" in self.meta else "samples"
        noun = {"classes": "classes", "multilabel": "labels"}.get(self.targets, "targets")
        return f"{counted} of {' x '.join(map(str, self.shape))} numbers, {self.Y.shape[1]} {noun}"

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the feature map. It converts ``inputs`` to the raw units of ``X``."""
        return self.feature_map.preprocessing

    @property
    def store(self) -> str:
        """Number format of the inputs in the file: float64, float32, float16 or uint8."""
        return str(self.inputs.dtype) if self.encoding is None else self.encoding.store

    @property
    def X(self) -> FloatArray:
        """The points in the units of the raw data: inputs unit + origin, float64 of shape (m, d)."""
        return np.asarray(self.preprocessing.raw(self.inputs))

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """``X`` in the shape of raw samples, ``(m, *shape)``, rounded to float32, for example for pictures."""
        with np.errstate(over="ignore"):  # infinite where float32 ends; ``save`` refuses it
            return self.X.astype(np.float32).reshape(len(self.inputs), *self.shape)

    def features(self, *, backend: Backend | str | None = None) -> FloatArray:
        """phi(X) in float64, shape (m, p). It is computed from ``inputs``, so a large origin costs no accuracy."""
        return np.asarray(self.feature_map.on_standardised.transform(self.inputs, dtype=np.float64, backend=backend))

    def fit(self, *, backend: Backend | str | None = None) -> FloatArray:
        """Train on the set: W_S = Y^T (F F^T + lambda_s I)^-1 F with F = phi(X), shape (k, p).

        For lambda_s = 0 it is Y^T (F^+)^T.
        """
        return self.fit_weights(backend=backend)[0]

    def fit_weights(self, *, backend: Backend | str | None = None) -> tuple[FloatArray, FloatArray]:
        """Train on the set. Returns W_S (k, p) and b_S (k,) of the predictions W_S phi + b_S."""
        with get_backend(backend).dense():
            F = self.feature_map.standard_features(self.inputs, backend=backend)
            return self._model(F, self._gram(F))

    def predict(self, X: Any, *, backend: Backend | str | None = None) -> Any:
        """Predict raw samples X ``(n, *shape)`` with the model trained on this set.

        Returns labels (n,), or an array (n, k) of real values or of 0 and 1. It is of the kind of X (NumPy, torch ...).
        """
        samples = as_samples("predict", X, input_dim=self.feature_map.input_dim)
        check_shape("predict", self.shape, sample_shape(X, samples.shape[1]))
        check_columns("predict", self.meta.get("columns"), samples)
        (self.sizes or self.preprocessing).warn_of_units("predict", samples)
        W, b = self.fit_weights(backend=backend)
        solver = get_backend(backend, data=samples)
        scores = all_scores(self.feature_map, samples, W[None], b[None], precision="float64", backend=solver)
        predicted = predictions(scores[:, 0], self.targets)
        if self.classes is not None and self.classes.names is not None:
            return self.classes.decode(predicted)
        return like(predicted, X)

    def to_torch(self, *, device: Any = None, dtype: Any = None) -> Any:
        """The raw points ``(m, *shape)`` and labels Y (m, k) as a ``torch.utils.data.TensorDataset``.

        ``dtype`` is float32 by default, the type of most networks. float64 keeps every digit. Raises TypeError for
        types that are not floating point.
        """
        import torch

        kind = torch.float32 if dtype is None else dtype
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            raise TypeError(f"to_torch: dtype must be a floating-point type of torch, as torch.float32, got {kind}")
        arrays = (self.X.reshape(len(self.inputs), *self.shape), self.Y)
        return torch.utils.data.TensorDataset(*(torch.tensor(a, device=device, dtype=kind) for a in arrays))

    def _fits_float32(self) -> bool:
        """Whether ``samples`` are finite; they are made only where their largest possible size does not tell."""
        unit, origin = self.preprocessing.unit, self.preprocessing.origin
        largest = max(float(self.inputs.max()), -float(self.inputs.min()))
        bound = largest * float(np.abs(unit).max()) + float(np.abs(origin).max())
        return bound < float(np.finfo(np.float32).max) or bool(np.isfinite(self.samples).all())

    def _gram(self, F: AnyMatrix) -> FeatureGram:
        return FeatureGram(contrasts(F) if self.centered else F)

    def _model(self, F: AnyMatrix, gram: FeatureGram) -> tuple[FloatArray, FloatArray]:
        if self.centered:
            W = gram.fit(contrasts(self.Y), self.lambda_s)
            return W, self.Y.mean(axis=0) - W @ F.mean(axis=0)
        offset = np.zeros(self.Y.shape[1]) if self.offset is None else self.offset
        return gram.fit(self.Y, self.lambda_s), offset

    def verify(
        self,
        model: RidgeModel | tuple[FloatArray, FloatArray | None] | None = None,
        *,
        test: Any = None,
        backend: Backend | str | None = None,
    ) -> Certificate:
        """Compare the model trained on this set with the original one: weights, and predictions on test samples.

        Parameters
        ----------
        model : RidgeModel, or (W, b)
            The original model; by default the one in the file (``include_weights``). ``krrdistill.retrain`` trains it
            again from its data.
        test : (X, y) or Dataset, optional
            Raw samples and their labels or targets. Without them only the weights are compared.

        Raises
        ------
        DataError
            For samples that do not fit, and if there is no original model to compare with.
        """
        if isinstance(test, Dataset):
            test = (test.x_test, test.test_targets)
        if test is not None and len(test[1]) == 0:
            raise DataError("verify: test has no samples; leave it out to compare the weights alone")
        samples, y = (None, None) if test is None else self._test_samples(test)
        W, b = self._original(model)
        if W.shape != (self.Y.shape[1], self.feature_map.output_dim):
            expected = (self.Y.shape[1], self.feature_map.output_dim)
            raise DataError(f"verify: the model has weights {W.shape}, the file is of {expected}")
        with get_backend(backend).dense():
            F = self.feature_map.standard_features(self.inputs, backend=backend)
            features = self._gram(F)
            W_S, b_S = self._model(F, features)
            if b is None:
                b = np.zeros(len(W)) if self.offset is None else self.offset
            return certify(
                W,
                W_S,
                features,
                self.feature_map,
                samples,
                y,
                precision=str(self.meta.get("options", {}).get("precision", "float32")),
                backend=backend,
                intercepts=(b, b_S),
                targets=self.targets,
            )

    def _original(self, model: Any) -> tuple[FloatArray, FloatArray | None]:
        if model is None:
            if self.weights is None:
                raise DataError(
                    "verify: the file does not hold the original model (include_weights): pass it, or train it again "
                    "with krrdistill.retrain"
                )
            return self.weights, self.intercept
        if isinstance(model, RidgeModel):
            if not self.feature_map.same_as(model.feature_map):
                raise DataError("verify: the model is of another feature map than the file")
            return model.W, model.b
        if not isinstance(model, (tuple, list)) or len(model) != 2:
            remedy = "; pass result.model" if isinstance(getattr(model, "model", None), RidgeModel) else ""
            remedy = "; pass (W, None)" if hasattr(model, "dtype") else remedy
            raise TypeError(f"verify: model must be a RidgeModel or (W, b), got {_kind(model)}{remedy}")
        W, b = model
        return to_host("verify", "W", W), None if b is None else to_host("verify", "b", b)

    def _test_samples(self, test: Any) -> tuple[Any, npt.NDArray[Any]]:
        if not isinstance(test, (tuple, list)) or len(test) != 2:
            raise TypeError(f"verify: test must be a pair (X, y) or a Dataset, got {_kind(test)}")
        samples = as_samples("verify", test[0], input_dim=self.feature_map.input_dim)
        check_columns("verify", self.meta.get("columns"), samples)
        (self.sizes or self.preprocessing).warn_of_units("verify: test", samples)
        return samples, self._test_targets(test[1], samples.shape[0])

    def _test_targets(self, y: Any, n: int) -> npt.NDArray[Any]:
        k = self.Y.shape[1]
        if self.targets == "classes":
            return (self.classes or Classes(k)).encode("verify", y, n)
        return np.asarray(real_targets("verify", y, n, k), dtype=np.float64)

    def with_meta(self, **facts: Any) -> DistilledDataset:
        """Return a copy with ``facts`` added to its meta."""
        return replace(self, meta={**self.meta, **facts})

    def save(self, path: str | Path, *, embed_map: bool | None = None) -> None:
        """Write the set to a file, atomically. The same content gives the same bytes.

        ``embed_map`` : whether to store the weights of the map. Otherwise the file has their seed and a fingerprint. By
        default they are stored if there are at most 2^20 of them, or so many that ``load`` would refuse to draw them.
        """
        check_describable(str(path), self.feature_map)
        _check_facts(self.meta)
        for name, array in (("X", self.inputs), ("Y", self.Y)):
            if not np.isfinite(array).all():
                raise DataError(f"{path}: {name} would hold NaN or infinity; nothing was written")
        if not self._fits_float32():
            raise DataError(f"{path}: X in float32 would hold NaN or infinity; nothing was written")
        stored: dict[str, npt.NDArray[Any]] = {"X": self.inputs}
        if self.encoding is not None:
            codes = self.encoding.encode(self.inputs)
            if not np.array_equal(self.encoding.decode(codes), self.inputs):
                raise DataError(f"{path}: X is not what its {self.store} codes stand for; nothing was written")
            stored = {"X": codes, "X_scale": self.encoding.scale, "X_offset": self.encoding.offset}
        map_arrays = self.feature_map.arrays()
        if embed_map is None:
            numbers = sum(array.size for array in map_arrays.values())
            embed_map = numbers <= _EMBED_LIMIT or numbers > most_drawn(self.feature_map.input_dim)
        meta = {
            **self.meta,
            "format": FORMAT,
            "map": self.feature_map.spec(),
            "preprocessing": self.preprocessing.spec(),
            "shape": list(self.shape),
            "targets": self.targets,
            "classes": None if self.classes is None or self.classes.names is None else list(self.classes.names),
            "centered": self.centered,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            **stored,
            "Y": self.Y,
            "lambda_s": np.asarray(self.lambda_s, dtype=np.float64),
            "meta": np.array(json.dumps(meta, sort_keys=True, allow_nan=False)),
            **self.preprocessing.arrays(),
            **({} if self.sizes is None else self.sizes.to_arrays()),
        }
        optional = {"W": self.weights, "intercept": self.intercept, "target_offset": self.offset}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        arrays |= map_arrays if embed_map else {}
        write_npz(Path(path), arrays, sealed=True)

    @classmethod
    def load(cls, path: str | Path, *, feature_map: FeatureMap | None = None) -> DistilledDataset:
        """Read and check a file. Nothing in it is executed.

        Raises DataError for anything unexpected, and if the content was changed after it was written.

        ``feature_map`` : your own map, if the file was made with a ``UserMap``. It is checked against features that the
        file records.
        """
        if feature_map is not None:
            check_map("load", feature_map)
        with opened_npz(Path(path), _KIND) as arrays:
            meta = _read_meta(arrays)
            d = meta["map"]["input_dim"]
            if arrays["X"].shape[1:] != (d,):  # before weights of that size are drawn
                raise DataError(f"X has shape {arrays['X'].shape}, the map takes input_dim = {d!r} columns")
            preprocessing = Preprocessing.from_arrays(meta["preprocessing"], arrays)
            if "W" in arrays and arrays["W"].shape[1:] != (meta["map"]["output_dim"],):
                raise DataError(f"W has shape {arrays['W'].shape}, the map {meta['map']['output_dim']!r} features")
            stored = sum(array.size for name, array in arrays.items() if name.startswith("map_"))
            feature_map = map_from_spec(meta["map"], feature_map, preprocessing=preprocessing, stored=stored)
            shape = checked_shape(meta["shape"], d)
            checked_columns(meta.get("columns"), d)
            sizes = Sizes.from_arrays(arrays, d)
            names = meta.get("classes")
            classes = None if names is None else Classes.of("classes", names)
            encoding = _read_encoding(arrays)
            if encoding is not None:
                arrays["X"] = encoding.decode(arrays["X"])
            _check_arrays(arrays, feature_map)
            _check_targets(arrays, meta, classes)
        return cls(
            inputs=arrays["X"],
            Y=arrays["Y"],
            lambda_s=float(arrays["lambda_s"]),
            feature_map=feature_map,
            shape=shape,
            encoding=encoding,
            weights=arrays.get("W"),
            intercept=arrays.get("intercept"),
            targets=meta.get("targets", "classes"),
            classes=classes or (Classes(arrays["Y"].shape[1]) if meta.get("targets", "classes") == "classes" else None),
            centered=meta.get("centered", False),
            offset=arrays.get("target_offset"),
            sizes=sizes,
            meta=meta,
        )


_NONE = type(None)
# What the facts of meta are, for whoever looks one up; the map, the classes and such are checked by what builds them.
_FACTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("map", "preprocessing", "options", "solution", "kip", "versions"), (dict,)),
    **dict.fromkeys(("certificate", "privacy"), (dict, _NONE)),
    **dict.fromkeys(("class_names", "lambda_per_target"), (list, _NONE)),
    **dict.fromkeys(("n_train", "n_val"), (int, _NONE)),
    "dataset": (str, _NONE),
    "lambda": (int, float, _NONE),
}
_INNER_FACTS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("map", "layers", (list,)),
    ("certificate", "weight_relative_error", (int, float, _NONE)),
    ("privacy", "guarantee", (list,)),
)


def _kind(value: Any) -> str:
    """What a message calls the wrong thing."""
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, (tuple, list)) else name


def has_digest(path: Path) -> bool:
    """Whether a file can tell that its content was changed; those of older versions cannot."""
    return "digest" in npz_keys(path)


@dataclass(frozen=True, eq=False)
class StoredPoints:
    """What there is to look at in a file, without building its map.

    Parameters
    ----------
    meta : dict
    samples : array of shape (m, *shape), float32
        In the units of the raw data.
    inputs : array of shape (m, d)
        Standardised.
    Y : array of shape (m, k)
    lambda_s : float
    preprocessing : Preprocessing
    """

    meta: dict[str, Any]
    samples: npt.NDArray[np.float32]
    inputs: npt.NDArray[np.floating]
    Y: FloatArray
    lambda_s: float
    preprocessing: Preprocessing


def read_points(path: Path) -> StoredPoints:
    """Reads what there is to look at. Raises DataError as ``DistilledDataset.load`` does."""
    with opened_npz(path, _KIND) as arrays:
        meta = _read_meta(arrays)
        preprocessing = Preprocessing.from_arrays(meta["preprocessing"], arrays)
        shape = checked_shape(meta["shape"], preprocessing.input_dim)
        encoding = _read_encoding(arrays)
        inputs = arrays["X"] if encoding is None else encoding.decode(arrays["X"])
        with np.errstate(over="ignore"):
            samples = np.asarray(preprocessing.raw(inputs, shape), dtype=np.float32)
        lambda_s = float(arrays["lambda_s"])
        if not np.isfinite(samples).all():
            raise DataError("X holds NaN or infinity")
        Y = arrays["Y"]
        if Y.ndim != 2 or len(Y) != len(samples) or not Y.size or Y.dtype != np.float64 or not np.isfinite(Y).all():
            raise DataError(f"Y must be finite float64 numbers ({len(samples)}, k), got {Y.dtype} {Y.shape}")
    return StoredPoints(meta, samples, inputs, Y, lambda_s, preprocessing)


def _read_meta(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    missing = {"X", "X_origin", "X_unit", "Y", "lambda_s", "meta"} - arrays.keys()
    if missing:
        raise DataError(f"not a distilled data set, {', '.join(sorted(missing))} missing")
    meta = parse_json("meta", str(arrays["meta"]))
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise DataError(f"format {found!r}, this version reads {FORMAT!r}")
    if "map" not in meta:
        raise DataError("meta does not describe a map")
    _check_facts(meta)
    return meta


def _check_facts(meta: Mapping[str, Any]) -> None:
    """Raises DataError for a fact of another kind than what looks it up takes it for."""
    for name, kinds in _FACTS.items():
        if name in meta and not isinstance(meta[name], kinds):
            raise DataError(f"meta has {name} = {str(meta[name])[:80]!r}, which no such file has")
    for holder, name, kinds in _INNER_FACTS:
        held = meta.get(holder) or {}
        if name in held and not isinstance(held[name], kinds):
            raise DataError(f"meta has {name} = {str(held[name])[:80]!r} in {holder}, which no such file has")


def _read_encoding(arrays: dict[str, npt.NDArray[Any]]) -> Encoding | None:
    """The encoding of a compact file; None where X holds the inputs themselves."""
    if "X_scale" not in arrays:
        return None
    return Encoding(str(arrays["X"].dtype), arrays["X_scale"], arrays["X_offset"])


def _check_arrays(arrays: dict[str, npt.NDArray[Any]], feature_map: FeatureMap) -> None:
    X, Y, lambda_s = arrays["X"], arrays["Y"], arrays["lambda_s"]
    d, p = feature_map.input_dim, feature_map.output_dim
    if X.ndim != 2 or X.shape[1] != d or X.dtype not in (np.float32, np.float64):
        raise DataError(f"X has shape {X.shape} and dtype {X.dtype}, expected float64 or float32 (m, {d})")
    if Y.ndim != 2 or len(Y) != len(X) or Y.size == 0 or Y.dtype != np.float64:
        raise DataError(f"Y has shape {Y.shape} and dtype {Y.dtype}, expected float64 ({len(X)}, k)")
    if lambda_s.shape != () or lambda_s.dtype != np.float64 or not float(lambda_s) >= 0.0:
        raise DataError("lambda_s must be one float64 number >= 0")
    if "W" in arrays and (arrays["W"].shape != (Y.shape[1], p) or arrays["W"].dtype != np.float64):
        found = f"shape {arrays['W'].shape} and dtype {arrays['W'].dtype}"
        raise DataError(f"W has {found}, expected float64 ({Y.shape[1]}, {p})")
    for name in ("X", "Y", "lambda_s", "W", "intercept", "target_offset"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise DataError(f"{name} holds NaN or infinity")
    for name, weight in feature_map.arrays().items():
        if name in arrays and not np.array_equal(arrays[name], weight):
            raise DataError(f"{name} differs from the map that meta describes")


def _check_targets(arrays: dict[str, npt.NDArray[Any]], meta: dict[str, Any], classes: Classes | None) -> None:
    k = arrays["Y"].shape[1]
    if classes is not None and classes.count != k:
        raise DataError(f"meta names {classes.count} classes, Y has {k} columns")
    if meta.get("targets", "classes") not in TARGET_KINDS or not isinstance(meta.get("centered", False), bool):
        raise DataError(f"meta has targets {meta.get('targets')!r} and centered {meta.get('centered')!r}")
    for name in ("intercept", "target_offset"):
        if name in arrays and (arrays[name].shape != (k,) or arrays[name].dtype != np.float64):
            found = f"shape {arrays[name].shape} and dtype {arrays[name].dtype}"
            raise DataError(f"{name} has {found}, expected float64 ({k},)")
