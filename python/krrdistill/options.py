"""The options of a distillation and of the named feature maps, each declared once, with the choices of every name.

The arguments in Python, the command line, the keys of configuration files and the checks come from these fields.
Nothing heavy is imported here, so that help is quick.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from krrdistill.common.documents import at_home
from krrdistill.common.options import check_options, declared_options, described, option

__all__ = [
    "DATASETS",
    "INITS",
    "KERNELS",
    "LAYOUTS",
    "MAPS",
    "NAMED",
    "PRECISIONS",
    "ROOTS",
    "SELECTIONS",
    "SPECTRAL",
    "STORES",
    "TARGETS",
    "DistillOptions",
    "MapOptions",
    "PointsPerClass",
    "class_counts",
    "is_object_name",
    "is_source_name",
    "shown_points",
]

DATASETS = ("digits", "mnist", "cifar10", "cifar100")
INITS = ("noise", "real")
NOISES = ("orthogonal", "gaussian")
# Every named map, and module:class of its class in krrdistill.maps: maps.registry imports them.
MAPS = {
    "identity": "identity:Identity",
    "random_fourier": "random_fourier:RandomFourier",
    "orthogonal_fourier": "orthogonal_fourier:OrthogonalFourier",
    "FCNN": "fcnn:FCNN",
    "deep_linear": "deep_linear:DeepLinear",
    "conv": "convolution:ConvolutionalNetwork",
}
KERNELS = tuple(MAPS)
LAYOUTS = ("NHWC", "NCHW")
PRECISIONS = ("float32", "float64")
ROOTS = ("plus", "minus")
SPECTRAL = ("gaussian", "laplacian", "matern")
SELECTIONS = ("held-out", "gcv")
STORES = ("float64", "float32", "float16", "uint8")
TARGETS = ("classes", "real")

ALIASES = {  # other words for options, which messages know
    **dict.fromkeys(("ipc", "points"), "points_per_class"),
    **dict.fromkeys(("lambda", "lambda_", "lam", "reg", "alpha"), "lambdas"),
}
NAMED = ("kernel", "points_per_class", "init", "seed")  # what the name of every run has, differing or not
MODEL, RESULT, COMPUTATION = "Model", "Distilled set", "Computation"  # panels of the help
_LARGEST_LAMBDA_S = 1e150  # its square is a float64 still
PointsPerClass = int | Sequence[int] | Mapping[Any, int]


def is_object_name(kernel: str) -> bool:
    """Whether this names an object to import, ``package.module:object``, in place of a map of the package."""
    return ":" in kernel


def is_source_name(name: str) -> bool:
    """Whether this names a file or folder and no known data set: hf:PATH, FILE.npz, FOLDER."""
    path = Path(name)
    known = name.startswith("hf:") or path.suffix.lower() in (".npz", ".npy", ".parquet")
    is_folder = bool(name) and at_home(path).is_dir()  # Path("") is the current folder
    return known or len(path.parts) > 1 or name.endswith(("/", os.sep)) or is_folder


def class_counts(k: int, points_per_class: PointsPerClass) -> tuple[int, ...]:
    """How many points each of k classes gets, of one number for all or one for each (``Problem`` looks labels up)."""
    assert not isinstance(points_per_class, Mapping)
    return (points_per_class,) * k if isinstance(points_per_class, int) else tuple(points_per_class)


def shown_points(points_per_class: int | Sequence[int]) -> str:
    """As titles have it: "3", or "1 to 5" where classes differ."""
    counts = class_counts(1, points_per_class)
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


@described
@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """Which feature map, and what its constructor is given; None leaves an option to the constructor."""

    kernel: str = option(
        "identity",
        "Feature map: {choices}; or your own callable or torch module, named by where to import it from.",
        choices=KERNELS,
        accepts=is_object_name,
        metavar="NAME|MODULE:OBJECT",
        panel=MODEL,
        key="distill.kernel",
    )
    hidden_layers: int | None = option(
        None,
        "Number of hidden layers of FCNN.",
        minimum=1,
        cli="hidden-layer",
        default_text="1",
        panel=MODEL,
        key="model.hidden_layer",
    )
    widths: Sequence[int] | None = option(
        None,
        "Number of outputs of each layer of FCNN or deep_linear, separated by commas.",
        minimum=1,
        metavar="P,P,..",
        default_text="FCNN: the input size; deep_linear: twice the input size",
        panel=MODEL,
    )
    n_features: int | None = option(
        None, "Number of random Fourier features.", minimum=1, metavar="P", default_text="the input size", panel=MODEL
    )
    sigma2: float | None = option(
        None,
        "Squared bandwidth (sigma^2) of the kernel that the Fourier features approximate.",
        above=0,
        default_text="1000 on MNIST and CIFAR, otherwise the median heuristic",
        panel=MODEL,
    )
    spectral: str | None = option(
        None,
        "Kernel that random_fourier approximates: {choices}.",
        choices=SPECTRAL,
        default_text="gaussian",
        panel=MODEL,
    )
    nu: float | None = option(
        None, "Smoothness of the matern kernel, a multiple of 1/2.", above=0, default_text="1.5", panel=MODEL
    )
    channels: Sequence[int] | None = option(
        None,
        "Number of output channels of each layer of conv, separated by commas.",
        minimum=1,
        metavar="C,C,..",
        default_text="3 times the channels of the inputs",
        panel=MODEL,
    )
    kernel_size: int | None = option(
        None, "Side length of the convolution kernels of conv.", minimum=1, default_text="3", panel=MODEL
    )
    stride: int | None = option(None, "Stride of each layer of conv.", minimum=1, default_text="2", panel=MODEL)
    padding: int | None = option(
        None, "Width of the zero padding of each layer of conv.", minimum=0, default_text="1", panel=MODEL
    )
    slope: float | None = option(
        None, "Slope of the LeakyReLU of FCNN and conv for negative inputs.", above=0, default_text="0.1", panel=MODEL
    )

    def __post_init__(self) -> None:
        check_options("map", self)
        if self.hidden_layers is not None and self.widths is not None:
            raise ValueError("map: hidden_layers and widths exclude each other: give one of them")
        if self.nu is not None and self.spectral != "matern":
            raise ValueError("map: nu belongs to spectral = 'matern'")

    def given(self) -> dict[str, Any]:
        """The arguments for the map's constructor: the options that are not None."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "kernel"}
        return {name: value for name, value in found.items() if value is not None}


@described
@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of a distillation; the defaults are the paper's.

    Threads may share it, as it is immutable.
    """

    points_per_class: PointsPerClass = option(
        1,
        "Distilled samples per class: one number for all classes, or a list with one for each (in Python "
        "also a mapping from labels to numbers).",
        minimum=1,
        reason="every class needs a point: labels of rank k are what retrains to the model",
        cli="ipc",
        metavar="N|N,N,..",
        panel=RESULT,
        key="distill.IPC",
    )
    init: str | None = option(
        None,
        "Initialise the distilled samples from noise or from real samples.",
        choices=INITS,
        default_text="real with realism or labels_only, otherwise noise",
        panel=RESULT,
        key="distill.generate_from_real_data",
        meanings={True: "real", False: "noise"},
    )
    noise: str = option(
        "orthogonal",
        "Kind of noise to initialise from: orthogonal (smallest condition number) or gaussian (as published).",
        choices=NOISES,
        panel=RESULT,
    )
    labels_only: bool = option(
        False, "Keep real samples as inputs and learn only their labels (Theorem 4.2).", panel=RESULT
    )
    strict: bool = option(False, "Refuse feature maps for which only approximate inputs can be found.", panel=RESULT)
    max_seconds: float | None = option(
        None,
        "Time limit in seconds for approximate inputs and realism. The best result so far is kept; runs then differ.",
        above=0,
        default_text="no time limit",
        panel=RESULT,
    )
    lambda_s: float | str = option(
        0.0,
        "Ridge parameter to train with on the distilled set. auto: the model's lambda, or the largest value that the "
        "construction allows if that is smaller.",
        choices=("auto",),
        minimum=0,
        maximum=_LARGEST_LAMBDA_S,
        metavar="V|auto",
        panel=RESULT,
        key="distill.reg_s",
        meanings={True: "auto", False: 0.0},
    )
    realism: float | None = option(
        None,
        "Choose the exact set that is nearest to real samples (1), to noise (0), or to a blend of both.",
        minimum=0,
        maximum=1,
        metavar="0..1",
        default_text="the published construction",
        panel=RESULT,
    )
    root: str = option(
        "plus",
        "Root of the quadratic equation of Theorem 4.1, for lambda_s > 0: {choices}.",
        choices=ROOTS,
        panel=RESULT,
    )
    scale_labels: bool = option(False, "Allow scaling the labels if a fixed lambda_s requires it.", panel=RESULT)
    intercept: bool = option(
        False, "Fit an unpenalised intercept, on the data and on the distilled set.", decides_model=True, panel=MODEL
    )
    center_targets: bool = option(
        False,
        "Subtract the mean of the targets before training. The file stores the mean.",
        decides_model=True,
        panel=MODEL,
    )
    lambda_per_target: bool = option(
        False, "Choose lambda separately for each real-valued target.", decides_model=True, panel=MODEL
    )
    lambdas: Sequence[float] | None = option(
        None,
        "Ridge parameters lambda to choose from, separated by commas (absolute values, added to G unscaled).",
        above=0,
        metavar="V,V,..",
        default_text="the published grid",
        decides_model=True,
        panel=MODEL,
    )
    validation_fraction: float = option(
        0.05,
        "Fraction of the training data that is held out to choose lambda.",
        above=0,
        below=1,
        decides_model=True,
        panel=MODEL,
    )
    selection: str = option(
        "held-out",
        "How to choose lambda: on held-out samples, or by generalised cross-validation (gcv), which holds nothing out.",
        choices=SELECTIONS,
        decides_model=True,
        panel=MODEL,
    )
    stratify: bool = option(
        True,
        "Hold out the same fraction of every class. Without it the split is the published one.",
        decides_model=True,
        panel=MODEL,
    )
    refit: bool = option(
        False,
        "Train again on training and held-out data, with the lambda that was chosen.",
        decides_model=True,
        panel=MODEL,
    )
    seed: int = option(
        0,
        "Seed of all random numbers.",
        minimum=0,
        below=1 << 64,
        metavar="S",
        decides_model=True,
        panel=COMPUTATION,
        key="model.seed",
    )
    precision: str = option(
        "float32",
        "Precision of features and matrix products over the training data: {choices}.",
        choices=PRECISIONS,
        decides_model=True,
        panel=COMPUTATION,
    )
    store: str = option("float64", "Number format of the inputs in the file: {choices}.", choices=STORES, panel=RESULT)
    backend: Any = option(
        None,
        "Backend of the computation: native, numba, array or cuda.",
        metavar="NAME",
        default_text="the first of native, numba, array that works",
        names_run=False,
        panel=COMPUTATION,
    )
    threads: int | None = option(
        None,
        "Number of threads.",
        minimum=1,
        metavar="T",
        default_text="all cores",
        recorded=False,
        names_run=False,
        panel=COMPUTATION,
    )
    include_weights: bool = option(
        False, "Store the weights W of the original model in the file as well.", recorded=False, panel=RESULT
    )
    embed_map: bool | None = option(
        None,
        "Store the weights of the feature map in the file, not only its seed.",
        default_text="if there are at most 2^20 of them",
        recorded=False,
        panel=RESULT,
    )

    def __post_init__(self) -> None:
        check_options("distill", self)
        if self.root == "minus" and self.lambda_s == 0.0:
            raise ValueError("distill: root = 'minus' needs lambda_s > 0; for lambda_s = 0 there is one solution")
        if self.scale_labels and (isinstance(self.lambda_s, str) or self.lambda_s == 0.0):
            raise ValueError(f"distill: scale_labels needs a fixed lambda_s > 0, got {self.lambda_s}")
        if self.selection == "gcv" and (self.refit or self.lambda_per_target):
            raise ValueError("distill: selection = 'gcv' holds nothing out, it takes no refit and no lambda_per_target")
        if self.intercept and self.center_targets:
            raise ValueError("distill: intercept implies center_targets; give one of them")
        if self.noise != "orthogonal" and self.start == "real":
            raise ValueError(f"distill: noise = {self.noise!r} has no meaning with a start from real samples")
        if self.labels_only:
            self._check_labels_only()
        if self.realism is not None:
            self._check_realism()

    def _check_labels_only(self) -> None:
        if self.start != "real":
            raise ValueError(f"distill: labels_only keeps real inputs, it needs init = 'real', got {self.init!r}")
        if self.root == "minus" or self.scale_labels:
            raise ValueError("distill: root and scale_labels have no meaning with labels_only")
        if self.realism is not None:
            raise ValueError("distill: realism has no meaning with labels_only, which keeps the real inputs")

    def _check_realism(self) -> None:
        if self.start != "real":
            raise ValueError(f"distill: realism needs init = 'real', got {self.init!r}")
        if self.root != "plus" or self.scale_labels:
            raise ValueError(
                "distill: realism finds the points first and then labels for any lambda_s; root and scale_labels "
                "belong to the published construction"
            )

    @property
    def start(self) -> str:
        """What the points are initialised from: ``init`` if it is given, otherwise its default."""
        return self.init or ("real" if self.labels_only or self.realism is not None else "noise")

    @property
    def center(self) -> str:
        """What is centred for training: "both" (features and targets), "targets" or "none"."""
        return "both" if self.intercept else "targets" if self.center_targets else "none"

    def training(self) -> dict[str, Any]:
        """The options that decide how the original model is trained, as JSON-able values."""
        names = [each.name for each in declared_options(type(self)) if each.option.decides_model]
        return {**{name: getattr(self, name) for name in names}, "lambdas": self.lambdas and list(self.lambdas)}
