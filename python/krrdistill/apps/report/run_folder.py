"""What a run folder holds: enough for its page, without the data set and without computing anything again.

report.json       the facts of the run, as ``krrdistill distill --json`` prints them
distilled.npz     the distilled set (docs/reference/file-format.md)
figure_data.npz   the lambda path, singular values, start images, the first rows of W, and what was predicted
curve.npz         of KIP only: its loss and accuracy
privacy.json      what ``krrdistill privacy`` found out about distilled.npz, where it was asked
report.html       the page, made of the others
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from krrdistill.apps.likeness import likeness
from krrdistill.artifact.file import StoredPoints, read_points
from krrdistill.artifact.record import KipRecord, RunRecord, from_json, to_json
from krrdistill.common.archive import FileKind
from krrdistill.common.documents import parse_json, read_bounded
from krrdistill.common.files import content_digest, read_npz, read_sealed, sha256_of, write_atomically, write_npz
from krrdistill.common.options import as_word
from krrdistill.errors import DataError
from krrdistill.options import class_counts

if TYPE_CHECKING:
    from krrdistill.artifact.certificate import Certificate
    from krrdistill.ridge.path import RidgePath

__all__ = [
    "CURVE",
    "DATA",
    "DISTILLED",
    "FIGURE",
    "PAGE",
    "PATH_FIGURE",
    "PRIVACY",
    "REPORT",
    "PathData",
    "PrivacyAudit",
    "RunFolder",
    "WeightsData",
    "check_pair",
    "read_run",
    "recorded_sha256",
    "write_figure_data",
    "write_record",
]

T = TypeVar("T")
FloatArray = npt.NDArray[np.float64]
REPORT, DISTILLED, DATA, PAGE = "report.json", "distilled.npz", "figure_data.npz", "report.html"
FIGURE, PATH_FIGURE = "distilled.png", "lambda_path.png"
CURVE = "curve.npz"
PRIVACY = "privacy.json"
_LARGEST = 1e100  # of a number in the arrays of a run
_MOST_WEIGHTS = 1 << 16  # numbers of W, and of W_S - W, that are kept: 0.5 MB each
_MOST_OUTCOMES = 1 << 17  # rows of what was predicted: 4 MB
_FACTS = (  # of report.json that distilled.npz has, too
    *("dataset", "targets", "criterion", "n_train", "n_val", "lambda", "val_accuracy"),
    *("original", "distilled", "certificate", "seconds"),
)
_CURVE = ("iteration", "train_loss", "val_accuracy", "seconds")
_CURVE_KIND = FileKind("the curve of a run", re.compile("losses|digest|" + "|".join(_CURVE)))
_DATA_KIND = FileKind(
    "the figure data of a run",
    re.compile(
        "lambdas|score|train_rmse|below_noise_floor|noise_floor|best|singular_values|start_images|outcomes|weights|"
        "weights_difference|digest"
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class PathData:
    """The lambda path as its charts need it.

    lambdas, score, train_rmse, below_noise_floor : arrays of shape (L,), L >= 1
    best : index of the chosen lambda
    """

    lambdas: FloatArray
    score: FloatArray
    train_rmse: FloatArray
    below_noise_floor: npt.NDArray[np.bool_]
    noise_floor: float
    best: int

    @classmethod
    def of(cls, path: RidgePath) -> PathData:
        """The path of a run; ``score`` is that of its criterion, NaN where lambda was asked for."""
        score = np.full(len(path.lambdas), np.nan) if path.score is None else np.asarray(path.score)
        return cls(
            lambdas=np.asarray(path.lambdas),
            score=np.where(np.isfinite(score), score, np.nan),
            train_rmse=np.asarray(path.train_rmse),
            below_noise_floor=np.asarray(path.below_noise_floor),
            noise_floor=float(path.noise_floor),
            best=int(path.best),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightsData:
    """The original model W and how far the distilled one is from it, of the first classes.

    original, difference : (c, p), of W and of W_S - W, 1 <= c <= k
    """

    original: FloatArray
    difference: FloatArray

    @classmethod
    def of(cls, W: FloatArray, difference: FloatArray | None) -> WeightsData | None:
        """As many classes as are kept; None where not one is."""
        count = min(len(W), _MOST_WEIGHTS // W.shape[1])
        return None if difference is None or not count else cls(original=W[:count], difference=difference[:count])


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """W rebuilt from the file alone."""

    relative_error: float | None
    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Distances of distilled and of held-out samples to the nearest training sample."""

    count: int
    median: float
    minimum: float
    baseline_median: float
    baseline_minimum: float
    near_share: float


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One assumption of Theorem 6.2."""

    name: str
    holds: bool
    statement: str


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """Theorem 6.2 for the file; sigma is None where there is none."""

    sigma: float | None
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool:
        """Whether every assumption does."""
        return all(condition.holds for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class PrivacyAudit:
    """What the page shows of privacy.json."""

    sha256: str
    epsilon: float
    delta: float
    reconstruction: Reconstruction
    neighbours: Neighbours
    theorem: Theorem
    limits: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RunFolder:
    """One run, read and checked."""

    folder: Path
    record: RunRecord
    points: StoredPoints
    class_names: tuple[str, ...]
    start_images: npt.NDArray[Any] | None
    path: PathData
    singular_values: FloatArray  # of the distilled features; empty where they were not computed
    outcomes: npt.NDArray[np.int64] | None  # Certificate.outcomes; None where there are none, and in older folders
    weights: WeightsData | None
    curve: Mapping[str, npt.NDArray[Any]] | None  # of KIP: iteration, train_loss, val_accuracy, seconds; else None
    privacy: PrivacyAudit | None  # None where no audit of this very distilled.npz is there

    @property
    def meta(self) -> Mapping[str, Any]:
        """Of distilled.npz."""
        return self.points.meta

    @property
    def images(self) -> npt.NDArray[np.float32]:
        """The distilled samples (m, *shape), in the units of the raw data."""
        return self.points.samples

    @property
    def agrees(self) -> bool:
        """Whether report.json names this very distilled.npz, and says of it what the file and its samples say."""
        record, facts = self.record, to_json(self.record)
        told = {"lambda_s": self.points.lambda_s, **{key: self.meta[key] for key in _FACTS if key in self.meta}}
        psnr = likeness(self.images, self.start_images, record.value_range).psnr
        found, said = (math.nan if each is None else each for each in (psnr, record.realism.psnr))
        same = np.isclose(found, said, equal_nan=True) and all(facts[key] == told[key] for key in told)
        return record.artifact_sha256 is not None and bool(same)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the page is made of."""
        return (REPORT, DISTILLED, DATA) if self.curve is None else (REPORT, DISTILLED, CURVE, DATA)


def write_figure_data(
    folder: Path,
    path: PathData,
    W: FloatArray,
    certificate: Certificate,
    start_images: npt.NDArray[Any] | None,
) -> None:
    """Writes what the page draws and no other file of the run holds."""
    values, outcomes = certificate.singular_values, certificate.outcomes
    arrays = {
        **{item.name: np.asarray(getattr(path, item.name)) for item in fields(path)},
        "singular_values": np.empty(0) if values is None else values,
    }
    if start_images is not None:
        arrays["start_images"] = start_images
    weights = WeightsData.of(W, certificate.difference)
    if weights is not None:
        arrays |= {"weights": weights.original, "weights_difference": weights.difference}
    if outcomes is not None and len(outcomes) <= _MOST_OUTCOMES:
        arrays["outcomes"] = outcomes
    write_npz(folder / DATA, arrays, sealed=True)


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes the facts of a run as ``folder``/report.json."""
    text = json.dumps(to_json(record), indent=2, allow_nan=False) + "\n"
    write_atomically(folder / REPORT, lambda stream: stream.write(text.encode()))


def read_run(folder: Path) -> RunFolder:
    """Reads and checks a run folder. Raises DataError, which names the file, for anything missing or unexpected."""
    document = _read_json(folder / REPORT)
    points = read_points(folder / DISTILLED)
    images = points.samples
    record = _record(folder / REPORT, {**_facts_of_file(points.meta, document), **document})
    check_pair(folder, record.artifact_sha256)
    data = read_sealed(folder / DATA, _DATA_KIND)
    path = _read_path(folder / DATA, data)
    k, m = record.k, record.m
    counts = class_counts(min(k, m), record.ipc)  # no more than that fit, whatever a damaged report says
    if len(images) != m or k < 1 or points.Y.shape[1] != k or len(counts) != k or min(counts) < 1 or sum(counts) != m:
        asked = as_word(record.ipc)
        raise DataError(
            f"{folder}: {REPORT} has m = {m}, k = {k}, ipc = {asked}; {DISTILLED} holds {len(images)} samples "
            f"with {points.Y.shape[1]} labels each"
        )
    start = data.get("start_images")
    if start is not None and (
        start.shape != images.shape or start.dtype.kind not in "uif" or not np.isfinite(start).all()
    ):
        raise DataError(
            f"{folder / DATA}: start_images are {start.dtype} {start.shape}, expected finite ones of {images.shape}"
        )
    names = points.meta.get("class_names")
    if not isinstance(names, list) or len(names) != k:
        raise DataError(f"{folder / DISTILLED}: meta has no names for its {k} classes")
    return RunFolder(
        folder=folder,
        record=record,
        points=points,
        class_names=tuple(str(name) for name in names),
        start_images=start,
        path=path,
        singular_values=data["singular_values"].astype(np.float64),
        outcomes=_read_outcomes(folder / DATA, data, record),
        weights=_read_weights(folder / DATA, data, record),
        curve=_read_curve(folder / CURVE) if isinstance(record, KipRecord) else None,
        privacy=_read_privacy(folder),
    )


def check_pair(folder: Path, sha256: str | None) -> None:
    """Raises DataError where report.json is about another distilled.npz; None, of older reports, is about any."""
    path = folder / DISTILLED
    if sha256 is not None and path.is_file() and sha256_of(path) != sha256:
        arrays = read_npz(path)
        whole = str(arrays.pop("digest", None)) == content_digest(arrays)
        trusted = (
            f"{DISTILLED} is whole by its own digest: trust it, and not {REPORT}, the page and the pictures"
            if whole
            else f"{DISTILLED} was changed after it was written: trust none of them"
        )
        raise DataError(
            f"{path}: {REPORT} is about another {DISTILLED} than the one beside it: a run was interrupted while it "
            f"wrote them, or files were mixed; {trusted}; run it again"
        )


def recorded_sha256(folder: Path) -> str | None:
    """Of the distilled.npz that the report of a folder is about; None where there is none that says so."""
    if not (folder / REPORT).is_file():
        return None
    found = _read_json(folder / REPORT).get("artifact_sha256")
    return found if isinstance(found, str) else None


def _record(path: Path, document: Mapping[str, Any]) -> RunRecord:
    return _typed(KipRecord if "variant" in document else RunRecord, document, path)


def _facts_of_file(meta: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that reports of older versions lack, from the distilled file beside them."""
    options, preprocessing = (
        of if isinstance(of := meta.get(key), dict) else {} for key in ("options", "preprocessing")
    )
    from_noise = document.get("init") == "noise" and "variant" not in document
    return {"zca": preprocessing.get("kind") == "zca", "noise": options.get("noise") if from_noise else None}


def _read_privacy(folder: Path) -> PrivacyAudit | None:
    """The audit, if there is one and it is of the distilled set that lies beside it."""
    path = folder / PRIVACY
    if not path.is_file():
        return None
    document, own = _read_json(path), sha256_of(folder / DISTILLED)
    other = document.get("sha256", own)
    return None if isinstance(other, str) and other != own else _typed(PrivacyAudit, document, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(f"{path}:", read_bounded(path), finite=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; is {path.parent} the folder of a run?") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected an object, got {type(document).__name__}")
    return document


def _typed(kind: type[T], document: Any, path: Path) -> T:
    """``from_json`` with the file in its message."""
    try:
        return from_json(kind, document)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_curve(path: Path) -> dict[str, npt.NDArray[Any]]:
    """KIP's curve."""
    arrays = read_sealed(path, _CURVE_KIND)
    missing = [name for name in _CURVE if name not in arrays]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing")
    curve = {name: arrays[name] for name in _CURVE}
    lengths = {array.shape for array in curve.values()}
    finite = all(array.dtype.kind in "if" and (np.abs(array) < _LARGEST).all() for array in curve.values())
    if not finite or len(lengths) != 1 or curve["iteration"].ndim != 1 or not curve["iteration"].size:
        raise DataError(f"{path}: {', '.join(_CURVE)} must be finite and of one length")
    return curve


def _read_path(file: Path, data: Mapping[str, npt.NDArray[Any]]) -> PathData:
    """The lambda path in figure_data.npz; the singular values beside it are checked too."""
    along = ("lambdas", "score", "train_rmse", "below_noise_floor")
    for name in (*along, "noise_floor", "best", "singular_values"):
        if name not in data:
            raise DataError(f"{file}: {name} is missing")
        if data[name].dtype.kind not in "bif":
            raise DataError(f"{file}: {name} has dtype {data[name].dtype}")
        if (np.abs(data[name]) > _LARGEST).any():
            raise DataError(f"{file}: {name} holds numbers beyond {_LARGEST:g}")
    lambdas, values, best = data["lambdas"], data["singular_values"], data["best"]
    if any(data[name].shape != (lambdas.size,) for name in along) or not lambdas.size:
        raise DataError(f"{file}: {', '.join(along)} must be of one length")
    if not (np.isfinite(lambdas).all() and (lambdas > 0).all() and data["below_noise_floor"].dtype == bool):
        raise DataError(f"{file}: lambdas must be positive and below_noise_floor true or false")
    if best.shape != () or not 0 <= best < lambdas.size or data["noise_floor"].shape != ():
        raise DataError(f"{file}: best must be one index below {lambdas.size}, and noise_floor one number")
    if values.ndim != 1 or not (np.isfinite(values).all() and (values >= 0).all()):
        raise DataError(f"{file}: singular_values must be finite and not negative")
    return PathData(
        lambdas=lambdas.astype(np.float64),
        score=data["score"].astype(np.float64),
        train_rmse=data["train_rmse"].astype(np.float64),
        below_noise_floor=data["below_noise_floor"],
        noise_floor=float(data["noise_floor"]),
        best=int(best),
    )


def _read_outcomes(file: Path, data: Mapping[str, npt.NDArray[Any]], record: RunRecord) -> npt.NDArray[np.int64] | None:
    """What was predicted, of every sample of the test set once; None of runs without it."""
    found = data.get("outcomes")
    if found is None:
        return None
    whole = found.dtype == np.int64 and found.ndim == 2 and found.shape[1] == 4 and found.size and found.min() >= 0
    if not whole or found[:, :3].max() >= record.k or int(found[:, 3].sum()) != record.n_test:
        raise DataError(
            f"{file}: outcomes must be int64 (r, 4), classes below {record.k} and counts that sum to {record.n_test}"
        )
    return found


def _read_weights(file: Path, data: Mapping[str, npt.NDArray[Any]], record: RunRecord) -> WeightsData | None:
    """The first rows of W and of W_S - W; None of runs without them."""
    found = [data[name] for name in ("weights", "weights_difference") if name in data]
    if not found:
        return None
    W = found[0]
    fits = W.ndim == 2 and 1 <= len(W) <= record.k and W.shape[1] == record.p
    same = len(found) == 2 and all(each.shape == W.shape and each.dtype == np.float64 for each in found)
    if not fits or not same or not all(np.isfinite(each).all() for each in found):
        raise DataError(
            f"{file}: weights and weights_difference must be finite float64 (c, {record.p}), c up to {record.k}"
        )
    return WeightsData(original=W, difference=found[1])
