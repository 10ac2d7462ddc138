"""The distilled data set as one self-contained .npz file (docs/file-format.md)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.artifact.certificate import Certificate, certify, predictions
from krrdistill.backends import Backend, get_backend
from krrdistill.common.arrays import as_samples, like
from krrdistill.common.files import read_npz, write_npz
from krrdistill.construct.storage import Encoding
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError
from krrdistill.maps import LayeredMap, check_describable, map_from_spec
from krrdistill.ridge.feature_gram import FeatureGram, contrasts
from krrdistill.ridge.scores import TARGET_KINDS, all_scores

__all__ = ["FORMAT", "DistilledDataset", "read_distilled_data"]

FloatArray = npt.NDArray[np.float64]
FORMAT = "krrdistill-1"
_EMBED_LIMIT = 1 << 20  # weights up to this many numbers are stored in the file by default


@dataclass(frozen=True, eq=False)
class DistilledDataset:
    """m points from which ridge regression retrains to the original model.

    Parameters
    ----------
    X : array of shape (m, d)
        Inputs as the map takes them (preprocessed), float64 or float32. Of classes, row i has class i mod k.
    encoding : Encoding, optional
        How a compact file stores X, which is float64 then and holds what its codes stand for.
    Y : array of shape (m, k)
        Labels.
    lambda_s : float
        The (absolute) ridge parameter to train with.
    weights : array of shape (k, p), optional
        The original model W; W can be rebuilt from X and Y in any case.
    intercept : array of shape (k,), optional
        b of the original model, with ``weights``.
    targets : "classes", "multilabel" or "real"
        What the columns of Y stand for.
    centered : bool
        Train with an unpenalised intercept: on features and labels about their means over the m points.
    offset : array of shape (k,), optional
        Mean of the training targets, to be added to predictions; labels are about it already.
    meta : dict
        JSON-able facts: data set, split, lambda, accuracies, certificate, timings, versions.
    """

    X: npt.NDArray[Any]
    Y: FloatArray
    lambda_s: float
    feature_map: LayeredMap
    preprocessing: Preprocessing
    shape: tuple[int, ...]
    encoding: Encoding | None = None
    weights: FloatArray | None = None
    intercept: FloatArray | None = None
    targets: str = "classes"
    centered: bool = False
    offset: FloatArray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> str:
        """How the file stores the inputs: float64, float32, float16 or uint8."""
        return str(self.X.dtype) if self.encoding is None else self.encoding.store

    @property
    def distilled_data(self) -> npt.NDArray[np.float32]:
        """The inputs undone to the units of the raw data, shape (m, *shape): for looking at, rounded to float32."""
        with np.errstate(over="ignore"):  # infinite where float32 ends; ``save`` refuses it
            return np.asarray(self.preprocessing.invert(self.X, self.shape), dtype=np.float32)

    def features(self, *, backend: Backend | str | None = None) -> FloatArray:
        """phi(X) in float64, shape (m, p)."""
        return np.asarray(self.feature_map.transform(self.X, dtype=np.float64, backend=backend))

    def fit(self, *, backend: Backend | str | None = None) -> FloatArray:
        """W_S = Y^T (F F^T + lambda_s I)^-1 F with F = phi(X), Y^T (F^+)^T for lambda_s = 0; shape (k, p)."""
        return self.fit_model(backend=backend)[0]

    def fit_model(self, *, backend: Backend | str | None = None) -> tuple[FloatArray, FloatArray]:
        """(W_S (k, p), b_S (k,)) of the predictions W_S phi + b_S."""
        F = self.features(backend=backend)
        return self._model(F, self._gram(F))

    def predict(self, X: Any, *, backend: Backend | str | None = None) -> Any:
        """Predictions for raw samples X (n, *shape) under the model retrained from this set, of the kind of X.

        Classes int64 (n,), of multi-label sets 0 or 1 and of real-valued ones the values, (n, k).
        """
        samples = as_samples("predict", X, input_dim=self.feature_map.input_dim)
        W, b = self.fit_model(backend=backend)
        chain, solver = self.feature_map.chain(self.preprocessing), get_backend(backend, data=samples)
        scores = all_scores(chain, samples, W[None], b[None], precision="float64", backend=solver)
        return like(predictions(scores[:, 0], self.targets), X)

    def to_torch(self, *, device: Any = None, dtype: Any = None) -> Any:
        """The points as ``torch.utils.data.TensorDataset`` (X, Y), see ``krrdistill.interop.torch.tensor_dataset``."""
        from krrdistill.interop.torch import tensor_dataset

        return tensor_dataset(self, device=device, dtype=dtype)

    def _gram(self, F: FloatArray) -> FeatureGram:
        return FeatureGram(contrasts(F) if self.centered else F)

    def _model(self, F: FloatArray, gram: FeatureGram) -> tuple[FloatArray, FloatArray]:
        if self.centered:
            W = gram.fit(contrasts(self.Y), self.lambda_s)
            return W, self.Y.mean(axis=0) - W @ F.mean(axis=0)
        offset = np.zeros(self.Y.shape[1]) if self.offset is None else self.offset
        return gram.fit(self.Y, self.lambda_s), offset

    def verify(
        self,
        dataset: Dataset,
        *,
        weights: FloatArray | None = None,
        intercept: FloatArray | None = None,
        backend: Any = None,
    ) -> Certificate:
        """Retrains from this set and compares with the original model on the test part of ``dataset``.

        The original is ``weights`` and ``intercept``, else the stored one, else it is trained again from ``dataset`` as
        recorded in ``meta``. Raises DataError if the data set does not fit.
        """
        if dataset.input_dim != self.feature_map.input_dim or dataset.n_classes != self.Y.shape[1]:
            raise DataError(
                f"verify: the data set has d = {dataset.input_dim}, k = {dataset.n_classes}; "
                f"the file has d = {self.feature_map.input_dim}, k = {self.Y.shape[1]}"
            )
        if (dataset.y_test.ndim == 1) != (self.targets == "classes"):
            raise DataError(f"verify: the file's targets are {self.targets}, the data set's {dataset.targets}")
        W, b = (self.weights, self.intercept) if weights is None else (weights, intercept)
        if W is None:
            from krrdistill.pipeline import retrain_original

            original = retrain_original(self, dataset, backend=backend)
            W, b = original.W, original.b
        precision = str(self.meta.get("options", {}).get("precision", "float32"))
        F = self.features(backend=backend)
        features = self._gram(F)
        W_S, b_S = self._model(F, features)
        if b is None:
            b = np.zeros(len(W)) if self.offset is None else self.offset
        return certify(
            W,
            W_S,
            features,
            self.feature_map.chain(self.preprocessing),
            dataset.x_test.reshape(len(dataset.x_test), -1),
            dataset.y_test,
            precision=precision,
            backend=backend,
            intercepts=(b, b_S),
            targets=self.targets,
        )

    def with_meta(self, **facts: Any) -> DistilledDataset:
        """A copy whose meta has ``facts`` added."""
        return replace(self, meta={**self.meta, **facts})

    def save(self, path: str | Path, *, embed_map: bool | None = None) -> None:
        """Writes the set atomically; the same content gives the same bytes.

        ``embed_map``: store the map's weights, by default when they are at most 2^20 numbers; without them the file has
        the seed and a fingerprint.
        """
        check_describable(str(path), self.feature_map)
        distilled_data = self.distilled_data
        for name, array in (("X", self.X), ("Y", self.Y), ("distilled_data", distilled_data)):
            if not np.isfinite(array).all():
                raise DataError(f"{path}: {name} would hold NaN or infinity; nothing was written")
        stored: dict[str, npt.NDArray[Any]] = {"X": self.X}
        if self.encoding is not None:
            codes = self.encoding.encode(self.X)
            if not np.array_equal(self.encoding.decode(codes), self.X):
                raise DataError(f"{path}: X is not what its {self.store} codes stand for; nothing was written")
            stored = {"X": codes, "X_scale": self.encoding.scale, "X_offset": self.encoding.offset}
        map_arrays = self.feature_map.arrays()
        if embed_map is None:
            embed_map = sum(array.size for array in map_arrays.values()) <= _EMBED_LIMIT
        meta = {
            **self.meta,
            "format": FORMAT,
            "map": self.feature_map.spec(),
            "preprocessing": self.preprocessing.spec(),
            "shape": list(self.shape),
            "targets": self.targets,
            "centered": self.centered,
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            **stored,
            "Y": self.Y,
            "lambda_s": np.asarray(self.lambda_s, dtype=np.float64),
            "distilled_data": distilled_data,
            "meta": np.array(json.dumps(meta, sort_keys=True, allow_nan=False)),
            **self.preprocessing.arrays(),
        }
        optional = {"W": self.weights, "intercept": self.intercept, "target_offset": self.offset}
        arrays |= {name: array for name, array in optional.items() if array is not None}
        write_npz(Path(path), {**arrays, **(map_arrays if embed_map else {})})

    @classmethod
    def load(cls, path: str | Path, *, feature_map: LayeredMap | None = None) -> DistilledDataset:
        """Reads and checks a file; nothing in it is executed. Raises DataError for anything unexpected.

        ``feature_map`` : the ``UserMap`` of a file made with one, checked against the features that the file records.
        """
        path = Path(path)
        arrays = read_npz(path)
        meta = _read_meta(path, arrays)
        try:
            d = meta["map"]["input_dim"]
            if arrays["X"].shape[1:] != (d,):  # before weights of that size are drawn
                raise DataError(f"X has shape {arrays['X'].shape}, the map takes input_dim = {d!r} columns")
            feature_map = map_from_spec(meta["map"], feature_map)
            preprocessing = Preprocessing.from_arrays(meta["preprocessing"], arrays)
            shape = _checked_shape(meta["shape"], d)
            encoding = _read_encoding(arrays)
            if encoding is not None:
                arrays["X"] = encoding.decode(arrays["X"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: {error}") from error
        _check_arrays(path, arrays, feature_map, shape)
        _check_targets(path, arrays, meta)
        return cls(
            X=arrays["X"],
            Y=arrays["Y"],
            lambda_s=float(arrays["lambda_s"]),
            feature_map=feature_map,
            preprocessing=preprocessing,
            shape=shape,
            encoding=encoding,
            weights=arrays.get("W"),
            intercept=arrays.get("intercept"),
            targets=meta.get("targets", "classes"),
            centered=meta.get("centered", False),
            offset=arrays.get("target_offset"),
            meta=meta,
        )


def read_distilled_data(path: Path) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """(meta, distilled_data) of a file: what there is to look at, without building its map.

    Raises DataError as ``DistilledDataset.load`` does.
    """
    arrays = read_npz(path)
    meta = _read_meta(path, arrays)
    images, shape = arrays["distilled_data"], meta.get("shape")
    if images.dtype != np.float32 or not isinstance(shape, list) or images.shape != (len(arrays["X"]), *shape):
        raise DataError(f"{path}: distilled_data is {images.dtype} {images.shape}, meta says {shape!r} a sample")
    if not np.isfinite(images).all():
        raise DataError(f"{path}: distilled_data holds NaN or infinity")
    return meta, images


def _read_meta(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    missing = {"X", "Y", "lambda_s", "distilled_data", "meta"} - arrays.keys()
    if missing:
        raise DataError(f"{path}: not a distilled data set, {', '.join(sorted(missing))} missing")
    try:
        meta = json.loads(str(arrays["meta"]))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: meta is not JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise DataError(f"{path}: format {found!r}, this version reads {FORMAT!r}")
    return meta


def _read_encoding(arrays: dict[str, npt.NDArray[Any]]) -> Encoding | None:
    """Of a compact file; None where X holds the inputs themselves."""
    if "X_scale" not in arrays:
        return None
    return Encoding(str(arrays["X"].dtype), arrays["X_scale"], arrays["X_offset"])


def _checked_shape(value: Any, d: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(s, int) and s > 0 for s in value) or math.prod(value) != d:
        raise DataError(f"shape {value!r} does not have {d} entries")
    return tuple(value)


def _check_arrays(
    path: Path, arrays: dict[str, npt.NDArray[Any]], feature_map: LayeredMap, shape: tuple[int, ...]
) -> None:
    X, Y, lambda_s = arrays["X"], arrays["Y"], arrays["lambda_s"]
    d, p = feature_map.input_dim, feature_map.output_dim
    if X.ndim != 2 or X.shape[1] != d or X.dtype not in (np.float32, np.float64):
        raise DataError(f"{path}: X has shape {X.shape} and dtype {X.dtype}, expected float64 or float32 (m, {d})")
    if Y.ndim != 2 or len(Y) != len(X) or Y.size == 0 or Y.dtype != np.float64:
        raise DataError(f"{path}: Y has shape {Y.shape} and dtype {Y.dtype}, expected float64 ({len(X)}, k)")
    if lambda_s.shape != () or lambda_s.dtype != np.float64 or not float(lambda_s) >= 0.0:
        raise DataError(f"{path}: lambda_s must be one float64 number >= 0")
    if "W" in arrays and (arrays["W"].shape != (Y.shape[1], p) or arrays["W"].dtype != np.float64):
        found = f"shape {arrays['W'].shape} and dtype {arrays['W'].dtype}"
        raise DataError(f"{path}: W has {found}, expected float64 ({Y.shape[1]}, {p})")
    if arrays["distilled_data"].shape != (len(X), *shape) or arrays["distilled_data"].dtype != np.float32:
        raise DataError(f"{path}: distilled_data must be float32 of shape {(len(X), *shape)}")
    for name in ("X", "Y", "lambda_s", "distilled_data", "W", "intercept", "target_offset"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise DataError(f"{path}: {name} holds NaN or infinity")
    for name, weight in feature_map.arrays().items():
        if name in arrays and not np.array_equal(arrays[name], weight):
            raise DataError(f"{path}: {name} differs from the map that meta describes")


def _check_targets(path: Path, arrays: dict[str, npt.NDArray[Any]], meta: dict[str, Any]) -> None:
    k = arrays["Y"].shape[1]
    if meta.get("targets", "classes") not in TARGET_KINDS or not isinstance(meta.get("centered", False), bool):
        raise DataError(f"{path}: meta has targets {meta.get('targets')!r} and centered {meta.get('centered')!r}")
    for name in ("intercept", "target_offset"):
        if name in arrays and (arrays[name].shape != (k,) or arrays[name].dtype != np.float64):
            found = f"shape {arrays[name].shape} and dtype {arrays[name].dtype}"
            raise DataError(f"{path}: {name} has {found}, expected float64 ({k},)")
