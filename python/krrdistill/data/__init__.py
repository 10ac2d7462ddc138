"""Inputs, labels and their affine preprocessing: the room where a run begins."""

from .dataset import Dataset
from .preprocess import Preprocessing, standardize, zca
from .registry import available_datasets, load_dataset

__all__ = ["Dataset", "Preprocessing", "available_datasets", "load_dataset", "standardize", "zca"]
