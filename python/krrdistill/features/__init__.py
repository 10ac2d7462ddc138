"""Feature maps: one file per map, one registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from krrdistill.arrays import check_choice
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError

from .base import LayeredMap
from .fcnn import FCNN
from .identity import Identity
from .orthogonal_fourier import OrthogonalFourier
from .random_fourier import RandomFourier, median_sigma2

__all__ = [
    "FCNN",
    "KERNELS",
    "Identity",
    "LayeredMap",
    "OrthogonalFourier",
    "RandomFourier",
    "make_map",
    "map_from_spec",
    "median_sigma2",
]

KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN")
_FOURIER = {"random_fourier": RandomFourier, "orthogonal_fourier": OrthogonalFourier}
_PUBLISHED_SIGMA2 = {"mnist": 1000.0, "cifar10": 1000.0, "cifar100": 1000.0}


def make_map(
    kernel: str, dataset: Dataset, preprocessing: Preprocessing, *, seed: int = 0, **options: Any
) -> LayeredMap:
    """The map named ``kernel`` for a data set, with the published defaults.

    random_fourier, orthogonal_fourier: ``n_features`` (d), ``sigma2`` (1000 on MNIST and CIFAR, else the median
    heuristic).
    FCNN: ``hidden_layers`` (1) or ``widths``, ``slope`` (0.1). Raises ValueError for an unknown kernel.
    """
    check_choice("make_map", "kernel", kernel, KERNELS)
    if kernel in _FOURIER and options.get("sigma2") is None:
        options["sigma2"] = _PUBLISHED_SIGMA2.get(dataset.name) or _median_of(dataset, preprocessing, seed)
    if kernel != "identity":
        options["seed"] = seed
    classes: Mapping[str, Any] = {"identity": Identity, **_FOURIER, "FCNN": FCNN}
    try:
        made: LayeredMap = classes[kernel](dataset.input_dim, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"make_map: {kernel} does not take {', '.join(sorted(options.keys() - {'seed'}))}") from error
    return made


def _median_of(dataset: Dataset, preprocessing: Preprocessing, seed: int) -> float:
    step = max(1, len(dataset.x_train) // 4000)
    return median_sigma2(preprocessing.apply(dataset.x_train[::step]), seed=seed)


def map_from_spec(spec: Mapping[str, Any]) -> LayeredMap:
    """The map that ``LayeredMap.spec`` described, rebuilt from its seed and checked against its fingerprint."""
    try:
        kernel, d = spec["kernel"], spec["input_dim"]
        made: LayeredMap
        if kernel == "identity":
            made = Identity(d)
        elif kernel in _FOURIER:
            made = _FOURIER[kernel](d, spec["n_features"], sigma2=spec["sigma2"], seed=spec["seed"])
        elif kernel == "FCNN":
            made = FCNN(d, list(spec["widths"]), slope=spec["slope"], seed=spec["seed"])
        else:
            raise DataError(f"map: unknown kernel {kernel!r}")
    except (KeyError, TypeError) as error:
        raise DataError(f"map: the description of the feature map is incomplete: {error}") from error
    rebuilt = made.spec()
    if rebuilt["fingerprint"] != spec.get("fingerprint"):
        raise DataError(f"map: the {kernel} weights rebuilt from the seed do not match the recorded fingerprint")
    for name, value in rebuilt.items():
        if spec.get(name, value) != value:
            raise DataError(f"map: {name} of the description contradicts the rest of it")
    return made
