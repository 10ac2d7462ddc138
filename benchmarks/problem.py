"""The arrays that the benchmarks run on: real data where it is at hand, else made-up images of the same shape."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import krrdistill as kd
from krrdistill.maps import FeatureMap

__all__ = [
    "KERNELS",
    "PUBLISHED_KERNELS",
    "SIZES",
    "Problem",
    "load_problem",
    "problem_of_size",
    "random_problem",
    "training_statistics",
]

AnyArray = npt.NDArray[Any]
KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
PUBLISHED_KERNELS = ("identity", "random_fourier", "FCNN")  # of the paper, and so of published.py
# --size: data set, training rows (None: all), test rows
SIZES: dict[str, tuple[str, int | None, int | None]] = {
    "small": ("mnist", 4000, 1000),
    "mnist": ("mnist", None, None),
    "cifar100": ("cifar100", None, None),
}
_SHAPES = {"mnist": ((28, 28), 10, 60_000, 10_000), "cifar100": ((32, 32, 3), 100, 50_000, 10_000)}


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set; its standardisation is computed, and maps are drawn, once each, when they are first asked for."""

    dataset: kd.Dataset
    source: str  # "mnist", "mnist (first 4000 training rows)", "synthetic, shaped like mnist"

    @functools.cached_property
    def scaling(self) -> kd.Preprocessing:
        """Published constants, or mean and standard deviation of the training rows."""
        return kd.standardize(self.dataset)

    @property
    def x_train(self) -> AnyArray:
        """Training images, (n, d), mostly uint8."""
        return np.asarray(self.dataset.x_train).reshape(len(self.dataset.x_train), -1)

    @property
    def x_test(self) -> AnyArray:
        """Test images, (n, d)."""
        return np.asarray(self.dataset.x_test).reshape(len(self.dataset.x_test), -1)

    @functools.cache  # noqa: B019 - a handful of problems per process, which live as long as it does
    def feature_map(self, kernel: str, seed: int = 0) -> FeatureMap:
        """The map of a kernel with the published defaults, on raw inputs."""
        from krrdistill.maps import make_map

        return make_map(kernel, self.dataset, self.scaling, seed=seed)


def data_folder(data_dir: Path | None = None) -> Path | None:
    """The folder of the real data sets: the argument, KRRDISTILL_DATA, or none."""
    chosen = data_dir or os.environ.get("KRRDISTILL_DATA")
    return None if not chosen else Path(chosen)


def load_problem(
    name: str, *, data_dir: Path | None = None, train_rows: int | None = None, test_rows: int | None = None
) -> Problem:
    """A data set of ``krrdistill.load_dataset``, or "embeddings", cut to its first rows where asked."""
    if name == "embeddings":
        return Problem(_cut(_embeddings(), train_rows, test_rows), name)
    dataset = kd.load_dataset(name, data_dir=data_folder(data_dir))
    source = dataset.name
    if train_rows is not None and train_rows < len(dataset.x_train):
        source += f" (first {train_rows} training rows)"
    dataset = _cut(dataset, train_rows, test_rows)
    return Problem(dataset, source)


def problem_of_size(size: str, data_dir: Path | None = None) -> Problem:
    """The problem of ``--size``; made up where the real data set is not at hand."""
    name, train_rows, test_rows = SIZES[size]
    if data_folder(data_dir) is not None:
        return load_problem(name, data_dir=data_dir, train_rows=train_rows, test_rows=test_rows)
    dataset = _cut(_synthetic(name, train_rows, test_rows), train_rows, test_rows)
    return Problem(dataset, f"synthetic, shaped like {name}")


def random_problem(rows: int) -> Problem:
    """Random bytes of the shape of CIFAR-100, ``rows`` to train on and a fifth as many to test; for times alone."""
    shape, k, _, _ = _SHAPES["cifar100"]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (n, *shape), np.uint8) for n in (rows, max(rows // 5, k))]
    labels = [np.arange(len(x)) % k for x in images]
    names = tuple(str(c) for c in range(k))
    dataset = kd.Dataset("random", images[0], labels[0], images[1], labels[1], names)
    return Problem(dataset, f"{rows} random images shaped like cifar100")


def training_statistics(problem: Problem, kernel: str) -> kd.RidgeStatistics:
    """G and C of all training rows, by the default backend."""
    statistics = kd.RidgeStatistics(problem.feature_map(kernel), problem.dataset.n_classes)
    return statistics.update(problem.x_train, problem.dataset.y_train)


def _embeddings() -> kd.Dataset:
    """200,000 made-up vectors of 1024 float32 around 100 centres, whose classes overlap, and 10,000 to test."""
    n, tests, d, k = 200_000, 10_000, 1024, 100
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((k, d), np.float32)
    x, labels = rng.standard_normal((n + tests, d), np.float32), np.arange(n + tests) % k
    x *= 8.0
    x += centres[labels]
    names = tuple(str(c) for c in range(k))
    return kd.Dataset("embeddings", x[:n], labels[:n], x[n:], labels[n:], names)


def _cut(dataset: kd.Dataset, train_rows: int | None, test_rows: int | None) -> kd.Dataset:
    return replace(
        dataset,
        x_train=dataset.x_train[:train_rows],
        y_train=dataset.y_train[:train_rows],
        x_test=dataset.x_test[:test_rows],
        y_test=dataset.y_test[:test_rows],
    )


def _synthetic(name: str, train_rows: int | None, test_rows: int | None) -> kd.Dataset:
    """Smooth class images with noise, uint8; the data set keeps its name, and so its published constants."""
    shape, k, all_train, all_test = _SHAPES[name]
    rng = np.random.default_rng(0)
    centres = rng.normal(128.0, 40.0, (k, *shape))

    def part(n: int) -> tuple[AnyArray, npt.NDArray[np.int64]]:
        labels = np.arange(n) % k
        images = np.empty((n, *shape), np.uint8)
        for start in range(0, n, 1024):
            rows = labels[start : start + 1024]
            noise = rng.normal(0.0, 60.0, (len(rows), *shape))
            images[start : start + 1024] = np.clip(centres[rows] + noise, 0, 255)
        return images, labels

    x_train, y_train = part(train_rows or all_train)
    x_test, y_test = part(test_rows or all_test)
    return kd.Dataset(name, x_train, y_train, x_test, y_test, tuple(str(c) for c in range(k)))
