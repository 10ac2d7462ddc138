"""Inputs, labels and their affine preprocessing: where a run begins."""

from .dataset import Dataset
from .preprocess import Moments, Preprocessing, standardize, zca
from .registry import available_datasets, load_dataset
from .sources import read_samples

__all__ = [
    "Dataset",
    "Moments",
    "Preprocessing",
    "available_datasets",
    "load_dataset",
    "read_samples",
    "standardize",
    "zca",
]
