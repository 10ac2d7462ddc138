"""The named maps: made for some data, or rebuilt from a file's description."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.common.arrays import check_choice, to_host
from krrdistill.common.samples import host_samples
from krrdistill.data import Dataset, Preprocessing
from krrdistill.data.layout import checked_layout
from krrdistill.errors import DataError
from krrdistill.options import KERNELS, MAPS

from .base import FeatureMap
from .random_fourier import median_sigma2
from .user import UserMap, load_object
from .weights import drawn_for_a_file

__all__ = ["check_describable", "described", "described_map", "kernels_with", "make_map", "map_from_spec"]


def _class_of(place: str) -> Any:
    """The class that ``MAPS`` has as module:class."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"krrdistill.maps.{module}"), name)


_CLASSES: Mapping[str, Any] = {kernel: _class_of(place) for kernel, place in MAPS.items()}
_OF_THE_DATA = ("input_dim", "shape", "layout", "seed")  # what ``make_map`` gives a constructor itself
_MEDIAN_ROWS = 4000  # of the data, evenly spaced, for the median heuristic
_PUBLISHED_SIGMA2 = {"mnist": 1000.0, "cifar10": 1000.0, "cifar100": 1000.0}


def make_map(
    kernel: str,
    data: Any,
    preprocessing: Preprocessing | None = None,
    *,
    seed: int = 0,
    layout: str | None = None,
    name: str = "",
    **options: Any,
) -> FeatureMap:
    """Make the feature map named ``kernel`` for some data, with the published defaults.

    Parameters
    ----------
    kernel : one of ``KERNELS``, or "package.module:object"
        Name of a map, or an object to import: a map of this package, which keeps its own preprocessing, or a callable
        or torch module, which becomes a ``UserMap``.
    data : Dataset or array of shape ``(n, *shape)``
        Raw inputs. They determine the input size and, for Fourier features, the bandwidth (median heuristic). Named
        data sets get the published bandwidth.
    preprocessing : Preprocessing, optional
        Preprocessing of raw inputs, such as ``standardize(data)``; by default none.
    seed : int
        Seed of the weights.
    layout : "NHWC" or "NCHW", optional
        For conv: axis of the channels of images, last or first. A ``Dataset`` has its own.
    name : str, optional
        Name of the data set, if ``data`` is an array from it. A ``Dataset`` has its own.
    **options
        Options of the constructor of the map, such as ``widths``, ``n_features`` or ``sigma2``. By default ``sigma2``
        is 1000 for the Gaussian kernel on MNIST and CIFAR, otherwise it is found by the median heuristic.

    Returns
    -------
    FeatureMap

    Raises
    ------
    ValueError
        For an unknown kernel, and for options that the map does not have.

    Examples
    --------
    >>> import krrdistill as kd
    >>> digits = kd.load_dataset("digits")
    >>> kd.make_map("FCNN", digits, kd.standardize(digits), widths=(60, 50))
    FCNN(64 -> 50, widths=[60, 50], slope=0.1, seed=0, preprocessing='standardize')
    """
    samples, name = (data.x_train, data.name) if isinstance(data, Dataset) else (host_samples("make_map", data), name)
    shape = tuple(int(s) for s in samples.shape[1:])
    input_dim = math.prod(shape)
    if not isinstance(kernel, str):
        own = "; a function is a map of your own: UserMap(function, input_dim)" if callable(kernel) else ""
        raise TypeError(f"make_map: kernel must be a name, got {type(kernel).__name__}{own}")
    kernel = {name.casefold(): name for name in KERNELS}.get(kernel.casefold(), kernel)
    if ":" in kernel:
        if options:
            raise ValueError(f"make_map: {kernel} does not take {', '.join(sorted(options))}")
        loaded = load_object(kernel, input_dim)
        check_describable(f"kernel: {kernel}", loaded)
        own = loaded.preprocessing.kind != "none"
        return loaded if own or preprocessing is None else loaded.with_preprocessing(preprocessing)
    check_choice("make_map", "kernel", kernel, KERNELS)
    kind, parameters = _CLASSES[kernel], _parameters(kernel)
    unknown = sorted(options.keys() - set(parameters))
    if unknown:
        takes = [name for name in parameters if name not in _OF_THE_DATA]
        known = f"it takes {', '.join(takes)}" if takes else "it takes no options"
        raise ValueError(f"make_map: {kernel} does not take {', '.join(unknown)}; {known}")
    if "sigma2" in parameters and options.get("sigma2") is None:
        spectral = options.get("spectral", "gaussian")
        published = _PUBLISHED_SIGMA2.get(name) if spectral == "gaussian" else None
        options["sigma2"] = published or _median_of(samples, preprocessing, spectral, seed)
    if "seed" in parameters:
        options["seed"] = seed
    if "layout" in parameters:
        options["layout"] = checked_layout("make_map", shape, data.layout if isinstance(data, Dataset) else layout)
    made: FeatureMap = kind(shape if kind.takes_shape else input_dim, preprocessing=preprocessing, **options)
    return made


def kernels_with(option: str) -> tuple[str, ...]:
    """Names of the maps whose constructor takes ``option``."""
    return tuple(kernel for kernel in KERNELS if option in _parameters(kernel))


def _median_of(samples: Any, preprocessing: Preprocessing | None, spectral: str, seed: int) -> float:
    step = max(1, len(samples) // _MEDIAN_ROWS)
    rows = samples[::step]
    preprocessing = preprocessing or Preprocessing.none(math.prod(np.shape(rows)[1:]))
    inputs = to_host("make_map", "data", preprocessing.apply(rows))
    if not np.isfinite(inputs).all():
        first = int(np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1).argmin()) * step
        raise DataError(f"make_map: data: row {first} holds NaN or infinity, so that sigma2 cannot be found")
    return median_sigma2(inputs, spectral=spectral, seed=seed)


def check_describable(where: str, feature_map: FeatureMap) -> None:
    """Raises DataError for a map that ``map_from_spec`` does not know: a user's own subclass of FeatureMap."""
    if feature_map.kernel not in (*_CLASSES, UserMap.kernel):
        kind = type(feature_map).__name__
        raise DataError(f"{where}: files cannot describe the {kind} of kernel {feature_map.kernel!r}; use a UserMap")


def map_from_spec(
    spec: Mapping[str, Any],
    given: FeatureMap | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    stored: int = 0,
) -> FeatureMap:
    """Rebuilds the map that ``FeatureMap.spec`` described from its seed, checked against its fingerprint.

    A user's map cannot be rebuilt: it is ``given``, and checked against the description. No more random numbers are
    drawn than a file can mean that has ``stored`` of them (``drawn_for_a_file``).
    """
    try:
        kernel, d = spec["kernel"], spec["input_dim"]
        if kernel == UserMap.kernel:
            return _checked_user_map(spec, given, preprocessing)
        if given is not None:
            raise DataError(f"map: the file's map is {kernel}, which is rebuilt; none must be given")
        if kernel not in _CLASSES:
            raise DataError(f"map: unknown kernel {kernel!r}")
        kind = _CLASSES[kernel]
        names = [name for name in _parameters(kernel) if name in spec or name not in kind.optional_in_spec]
        options = {name: _stated(spec, name) for name in names}
        with drawn_for_a_file(1 if preprocessing is None else preprocessing.input_dim, stored):
            made: FeatureMap = kind(**options, preprocessing=preprocessing)
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
    """Names of the constructor's parameters, without the preprocessing."""
    return [name for name in inspect.signature(_CLASSES[kernel]).parameters if name != "preprocessing"]


def _stated(spec: Mapping[str, Any], name: str) -> Any:
    if spec[name] is None:
        raise TypeError(f"{name} is null")
    return spec[name]


def _checked_user_map(
    spec: Mapping[str, Any], given: FeatureMap | None, preprocessing: Preprocessing | None
) -> UserMap:
    if given is None:
        raise DataError(
            f"map: the features are of {spec['name']}, which is never loaded because a file says so: give it "
            "(DistilledDataset.load(path, feature_map=...), --kernel on the command line)"
        )
    if not isinstance(given, UserMap):
        raise DataError(f"map: the features are of {spec['name']}, not of the {given.kernel} map that was given")
    if preprocessing is not None and given.preprocessing.kind == "none":
        given = given.with_preprocessing(preprocessing)
    given.check_spec(spec)
    return given


def described(feature_map: FeatureMap) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """(part of a file's header, arrays) that ``described_map`` finds the map in."""
    preprocessing = feature_map.preprocessing
    return {"map": feature_map.spec(), "preprocessing": preprocessing.spec()}, preprocessing.arrays()


def described_map(
    header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], given: FeatureMap | None = None
) -> FeatureMap:
    """The map of a file: ``given``, if it is the one that the file describes, else rebuilt. Raises DataError."""
    if given is not None and given.kernel != UserMap.kernel:
        given.check_spec(header["map"])
        return given
    preprocessing = Preprocessing.from_arrays(header["preprocessing"], arrays)
    if header["map"]["input_dim"] != preprocessing.input_dim:
        raise DataError("map: its input_dim is not the size of its preprocessing")
    return map_from_spec(header["map"], given, preprocessing=preprocessing)
