"""Feature maps: one file per map, one registry."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from krrdistill.common.arrays import check_choice
from krrdistill.data import Dataset, Preprocessing
from krrdistill.errors import DataError
from krrdistill.options import KERNELS

from .base import LayeredMap
from .convolution import ConvolutionalNetwork
from .deep_linear import DeepLinear
from .fcnn import FCNN
from .identity import Identity
from .orthogonal_fourier import OrthogonalFourier
from .random_fourier import RandomFourier, median_sigma2
from .user import UserMap, given_map, load_object

__all__ = [
    "FCNN",
    "KERNELS",
    "ConvolutionalNetwork",
    "DeepLinear",
    "Identity",
    "LayeredMap",
    "OrthogonalFourier",
    "RandomFourier",
    "UserMap",
    "check_describable",
    "given_map",
    "kernels_with",
    "make_map",
    "map_from_spec",
    "median_sigma2",
]

_FOURIER = ("random_fourier", "orthogonal_fourier")
_CLASSES: Mapping[str, Any] = {
    kind.kernel: kind for kind in (Identity, RandomFourier, OrthogonalFourier, FCNN, DeepLinear, ConvolutionalNetwork)
}
_OPTIONAL = ("spectral", "nu")  # in descriptions of random_fourier: those of the Gaussian kernel have neither
_PUBLISHED_SIGMA2 = {"mnist": 1000.0, "cifar10": 1000.0, "cifar100": 1000.0}


def make_map(
    kernel: str, dataset: Dataset, preprocessing: Preprocessing, *, seed: int = 0, **options: Any
) -> LayeredMap:
    """The map named ``kernel`` for a data set, with the published defaults.

    random_fourier, orthogonal_fourier: ``n_features`` (d), ``sigma2`` (1000 for the Gaussian kernel on MNIST and CIFAR,
    else the median heuristic); random_fourier also ``spectral`` and ``nu``.
    FCNN: ``hidden_layers`` (1) or ``widths``, ``slope`` (0.1). deep_linear: ``widths``.
    conv: ``channels``, ``kernel_size``, ``stride``, ``padding``, ``slope``. "package.module:object" is
    imported: a map of the package, a callable or a torch module (``UserMap``). Raises ValueError for an unknown kernel.
    """
    if ":" in kernel:
        if options:
            raise ValueError(f"make_map: {kernel} does not take {', '.join(sorted(options))}")
        loaded = load_object(kernel, dataset.input_dim)
        check_describable(f"kernel: {kernel}", loaded)
        return loaded
    check_choice("make_map", "kernel", kernel, KERNELS)
    if kernel in _FOURIER and options.get("sigma2") is None:
        spectral = options.get("spectral", "gaussian")
        published = _PUBLISHED_SIGMA2.get(dataset.name) if spectral == "gaussian" else None
        options["sigma2"] = published or _median_of(dataset, preprocessing, spectral, seed)
    if kernel != "identity":
        options["seed"] = seed
    size = dataset.shape if kernel == "conv" else dataset.input_dim  # where pixels are does not matter to the others
    try:
        made: LayeredMap = _CLASSES[kernel](size, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"make_map: {kernel} does not take {', '.join(sorted(options.keys() - {'seed'}))}") from error
    return made


def kernels_with(option: str) -> tuple[str, ...]:
    """Names of the maps whose constructor takes ``option``."""
    return tuple(kernel for kernel in KERNELS if option in inspect.signature(_CLASSES[kernel]).parameters)


def _median_of(dataset: Dataset, preprocessing: Preprocessing, spectral: str, seed: int) -> float:
    step = max(1, len(dataset.x_train) // 4000)
    return median_sigma2(preprocessing.apply(dataset.x_train[::step]), spectral=spectral, seed=seed)


def check_describable(where: str, feature_map: LayeredMap) -> None:
    """Raises DataError for a map that ``map_from_spec`` does not know: a user's own subclass of LayeredMap."""
    if feature_map.kernel not in (*_CLASSES, UserMap.kernel):
        kind = type(feature_map).__name__
        raise DataError(f"{where}: files cannot describe the {kind} of kernel {feature_map.kernel!r}; use a UserMap")


def map_from_spec(spec: Mapping[str, Any], given: LayeredMap | None = None) -> LayeredMap:
    """The map that ``LayeredMap.spec`` described, rebuilt from its seed and checked against its fingerprint.

    A user's map cannot be rebuilt: it is ``given``, and checked against the description.
    """
    try:
        kernel, d = spec["kernel"], spec["input_dim"]
        if kernel == UserMap.kernel:
            return _checked_user_map(spec, given)
        if given is not None:
            raise DataError(f"map: the file's map is {kernel}, which is rebuilt; none must be given")
        if kernel not in _CLASSES:
            raise DataError(f"map: unknown kernel {kernel!r}")
        options = {name: _stated(spec, name) for name in _parameters(kernel) if name in spec or name not in _OPTIONAL}
        made: LayeredMap = _CLASSES[kernel](**options)
    except (KeyError, TypeError) as error:
        raise DataError(f"map: the description of the feature map is incomplete: {error}") from error
    rebuilt = made.spec()
    if rebuilt["input_dim"] != d:
        raise DataError(f"map: input_dim {d!r} contradicts the rest of the description")
    if rebuilt["fingerprint"] != spec.get("fingerprint"):
        raise DataError(f"map: the {kernel} weights rebuilt from the seed do not match the recorded fingerprint")
    for name, value in rebuilt.items():
        if spec.get(name, value) != value:
            raise DataError(f"map: {name} of the description contradicts the rest of it")
    return made


def _parameters(kernel: str) -> list[str]:
    """Names of what the class takes and its description states."""
    names = list(inspect.signature(_CLASSES[kernel]).parameters)
    return [name for name in names if name != "hidden_layers"]


def _stated(spec: Mapping[str, Any], name: str) -> Any:
    if spec[name] is None:
        raise TypeError(f"{name} is null")
    return spec[name]


def _checked_user_map(spec: Mapping[str, Any], given: LayeredMap | None) -> UserMap:
    if given is None:
        raise DataError(
            f"map: the features are of {spec['name']}, which is never loaded because a file says so: give it "
            "(DistilledDataset.load(path, feature_map=...), --kernel on the command line)"
        )
    if not isinstance(given, UserMap):
        raise DataError(f"map: the features are of {spec['name']}, not of the {given.kernel} map that was given")
    given.check_spec(spec)
    return given
