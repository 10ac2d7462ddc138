"""What a distilled file reveals, measured: the model, and how near its inputs are to the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.apps.distillation import original_of
from krrdistill.artifact.file import DistilledDataset
from krrdistill.common.products import product
from krrdistill.construct.closed_form import dual
from krrdistill.data import Dataset
from krrdistill.ridge.feature_gram import FeatureGram, contrasts

__all__ = ["Neighbours", "Reconstruction", "nearest_neighbours", "noise_deviation", "reconstruct"]

FloatArray = npt.NDArray[np.float64]
_TRAIN_ROWS = 8192  # training rows in one product of distances
_NEAR_QUANTILE = 0.05  # of the baseline: what of fresh data lies below it by definition


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """W as whoever has the file computes it (Proposition 6.1)."""

    W: FloatArray
    relative_error: float  # ||W_file - W|| / ||W||
    test_accuracy: float  # of the W that was rebuilt


def reconstruct(distilled: DistilledDataset, dataset: Dataset, *, backend: Any = None) -> Reconstruction:
    """W = Y^T (F F^T + lambda_s I)^-1 F from X, Y, lambda_s and the map of the file: the attack is ordinary training.

    The truth that it is compared with is the stored W, or the original model trained again from ``dataset``.
    """
    certificate = distilled.verify(original_of(distilled, dataset, backend), test=dataset, backend=backend)
    W = distilled.fit(backend=backend)
    return Reconstruction(W, certificate.weight_relative_error, certificate.distilled_accuracy)


def noise_deviation(distilled: DistilledDataset, *, backend: Any = None) -> float:
    """The standard deviation of Z in a file that started from noise: ||(I - P Y^T) D||_F / sqrt((m - k) r).

    (I - P Y^T) D = (I - P Y^T) Z holds whatever W is, and has m - k degrees of freedom in each of the r dimensions of
    the map's range. With an intercept all of it is about the mean, m - 1 rows and labels of rank k - 1. 0 where the
    file has no such Z: for orthogonal noise, a real start, approximate inputs, labels learned again for inputs that
    were rounded, and for m = k, where nothing of Z is left.
    """
    options = distilled.meta.get("options", {})
    gaussian = options.get("init") == "noise" and options.get("noise", "gaussian") == "gaussian"
    if not gaussian or distilled.feature_map.reach != "exact" or distilled.store != "float64":
        return 0.0
    Q = distilled.feature_map.range_basis()
    F, Y = distilled.features(backend=backend), distilled.Y
    F = F if Q is None else product(F, Q)
    if distilled.centered:
        F, Y = contrasts(F), contrasts(Y)
    freedom = len(Y) - int(np.linalg.matrix_rank(Y))
    if freedom == 0:
        return 0.0
    D = FeatureGram(F).inverse(distilled.lambda_s)
    free = dual(np.zeros((Y.shape[1], D.shape[1])), Y, D)
    return float(np.linalg.norm(free)) / float(np.sqrt(freedom * D.shape[1]))


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Root mean square distance per entry, in the units of the raw data, to the nearest training sample.

    distances : of the distilled samples; baseline : of held-out (test) samples, which training never saw
    nearest : row of x_train that is nearest to each distilled sample
    near_share : of distilled samples that are nearer than the 5% quantile of the baseline; 5% is what fresh data have
    """

    distances: FloatArray
    baseline: FloatArray
    nearest: npt.NDArray[np.int64]

    @property
    def near_share(self) -> float:
        """Share of distilled samples nearer to the training set than all but 5% of held-out samples are."""
        return float(np.mean(self.distances < np.quantile(self.baseline, _NEAR_QUANTILE)))


def nearest_neighbours(distilled: DistilledDataset, dataset: Dataset, *, limit: int = 500) -> Neighbours:
    """Distances of up to ``limit`` distilled samples, evenly spaced, and of as many test samples.

    An empirical check: small distances show that images were copied, large ones prove nothing.
    """
    d = dataset.input_dim
    train = dataset.x_train.reshape(len(dataset.x_train), d)
    inputs = distilled.samples.reshape(len(distilled.inputs), -1)
    nearest, distances = _nearest(_spaced(inputs, limit), train)
    _, baseline = _nearest(_spaced(dataset.x_test.reshape(len(dataset.x_test), d), limit), train)
    return Neighbours(distances, baseline, nearest)


def _spaced(rows: npt.NDArray[Any], limit: int) -> npt.NDArray[Any]:
    return rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(np.int64)]


def _nearest(rows: npt.NDArray[Any], train: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """(row of train, root mean square difference) for each row: ||a - b||^2 = ||a||^2 - 2 a b + ||b||^2 finds the row,
    the difference itself gives the distance."""
    queries = rows.astype(np.float64)
    best, nearest = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(train), _TRAIN_ROWS):
        block = train[start : start + _TRAIN_ROWS].astype(np.float64)
        squares = np.einsum("ij,ij->i", block, block) - 2.0 * product(queries, block.T)
        index = squares.argmin(axis=1)
        value = squares[np.arange(len(queries)), index]
        closer = value < best
        best[closer], nearest[closer] = value[closer], start + index[closer]
    difference = queries - train[nearest]
    return nearest, np.sqrt(np.mean(difference * difference, axis=1))
