"""Feature maps: one file per map; ``registry.py`` names them."""

from krrdistill.options import KERNELS

from .base import FeatureMap
from .convolution import ConvolutionalNetwork
from .deep_linear import DeepLinear
from .fcnn import FCNN
from .identity import Identity
from .orthogonal_fourier import OrthogonalFourier
from .random_fourier import RandomFourier, median_sigma2
from .registry import check_describable, described, described_map, kernels_with, make_map, map_from_spec
from .user import UserMap, check_map, given_map

__all__ = [
    "FCNN",
    "KERNELS",
    "ConvolutionalNetwork",
    "DeepLinear",
    "FeatureMap",
    "Identity",
    "OrthogonalFourier",
    "RandomFourier",
    "UserMap",
    "check_describable",
    "check_map",
    "described",
    "described_map",
    "given_map",
    "kernels_with",
    "make_map",
    "map_from_spec",
    "median_sigma2",
]
