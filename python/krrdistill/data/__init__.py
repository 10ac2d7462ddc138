"""Inputs, labels and their affine preprocessing: where a run begins."""

from .dataset import Dataset
from .preprocess import Moments, Preprocessing, standardize, zca
from .registry import available_datasets, load_dataset

__all__ = ["Dataset", "Moments", "Preprocessing", "available_datasets", "load_dataset", "standardize", "zca"]
