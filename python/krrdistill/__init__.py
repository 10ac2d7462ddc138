"""Exact dataset distillation for kernel ridge regression.

>>> import krrdistill as kd
>>> data = kd.load_dataset("digits")
>>> scaling = kd.standardize(data)
>>> phi = kd.make_map("FCNN", data, scaling)
>>> result = kd.distill(data.x_train, data.y_train, phi, preprocessing=scaling, points_per_class=1)
>>> result.distilled.X.shape
(10, 64)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from krrdistill._version import __version__

if TYPE_CHECKING:
    from krrdistill.apps.distillation import RunResult, run_distillation
    from krrdistill.apps.kip import KipOptions, KipResult, kip_distill, run_kip
    from krrdistill.artifact.certificate import Certificate
    from krrdistill.artifact.file import DistilledDataset
    from krrdistill.backends import backend_status, get_backend
    from krrdistill.data import Dataset, Preprocessing, load_dataset, standardize, zca
    from krrdistill.errors import (
        BackendUnavailable,
        DataError,
        Diverged,
        KrrDistillError,
        LambdaOutOfRange,
        NotPositiveDefinite,
        NotSurjective,
    )
    from krrdistill.maps import (
        FCNN,
        ConvolutionalNetwork,
        DeepLinear,
        Identity,
        OrthogonalFourier,
        RandomFourier,
        UserMap,
        make_map,
    )
    from krrdistill.options import DistillOptions
    from krrdistill.pipeline import Distillation, distill
    from krrdistill.ridge.feature_gram import fit_features
    from krrdistill.ridge.path import RidgePath, default_lambdas, fit_ridge, ridge_path
    from krrdistill.ridge.statistics import RidgeStatistics

_HOMES = {
    "artifact.file": ("DistilledDataset",),
    "backends": ("backend_status", "get_backend"),
    "artifact.certificate": ("Certificate",),
    "data": ("Dataset", "Preprocessing", "load_dataset", "standardize", "zca"),
    "errors": (
        "BackendUnavailable",
        "DataError",
        "Diverged",
        "KrrDistillError",
        "LambdaOutOfRange",
        "NotPositiveDefinite",
        "NotSurjective",
    ),
    "ridge.feature_gram": ("fit_features",),
    "maps": (
        "FCNN",
        "ConvolutionalNetwork",
        "DeepLinear",
        "Identity",
        "OrthogonalFourier",
        "RandomFourier",
        "UserMap",
        "make_map",
    ),
    "apps.kip": ("KipOptions", "KipResult", "kip_distill", "run_kip"),
    "options": ("DistillOptions",),
    "pipeline": ("Distillation", "distill"),
    "ridge.path": ("RidgePath", "default_lambdas", "fit_ridge", "ridge_path"),
    "apps.distillation": ("RunResult", "run_distillation"),
    "ridge.statistics": ("RidgeStatistics",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FCNN",
    "BackendUnavailable",
    "Certificate",
    "ConvolutionalNetwork",
    "DataError",
    "Dataset",
    "DeepLinear",
    "DistillOptions",
    "Distillation",
    "DistilledDataset",
    "Diverged",
    "Identity",
    "KipOptions",
    "KipResult",
    "KrrDistillError",
    "LambdaOutOfRange",
    "NotPositiveDefinite",
    "NotSurjective",
    "OrthogonalFourier",
    "Preprocessing",
    "RandomFourier",
    "RidgePath",
    "RidgeStatistics",
    "RunResult",
    "UserMap",
    "__version__",
    "backend_status",
    "default_lambdas",
    "distill",
    "fit_features",
    "fit_ridge",
    "get_backend",
    "kip_distill",
    "load_dataset",
    "make_map",
    "ridge_path",
    "run_distillation",
    "run_kip",
    "standardize",
    "zca",
]


def __getattr__(name: str) -> Any:
    """Loads the module of a public name on first use, so that ``import krrdistill`` stays cheap."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
