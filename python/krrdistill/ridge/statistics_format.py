"""What a file of statistics holds, and what is checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from krrdistill.backends import Products, products_in
from krrdistill.common.archive import FileKind
from krrdistill.common.arrays import check_choice, check_number
from krrdistill.options import PRECISIONS

__all__ = ["FORMAT", "KIND", "products_of", "read_numbers"]

FloatArray = npt.NDArray[np.float64]
FORMAT = "krrdistill-statistics-5"
KIND = FileKind(
    "ridge statistics that this version reads",
    re.compile(
        "gram|features|targets|cross|feature_sum|target_sum|target_square|target_origin|total_weight|"
        "X_origin|X_unit|whitening|input_count|input_squares|header|digest"
    ),
)


def products_of(header: Mapping[str, Any]) -> Products:
    """How the products of a file were formed. Files before there was ``product_rounding`` have that of the precision.

    Raises ValueError for what is no precision, or less rounding than it has.
    """
    least = products_in(
        np.dtype(check_choice("statistics", "product_precision", header["product_precision"], PRECISIONS))
    )
    rounding = check_number("statistics", "product_rounding", header.get("product_rounding", least.rounding))
    if not least.rounding <= rounding < 1.0:
        raise ValueError(f"product_rounding {rounding} of products in {least.precision}")
    return least._replace(rounding=rounding)


def read_numbers(arrays: Mapping[str, npt.NDArray[Any]], n: int, p: int, k: int) -> dict[str, FloatArray]:
    """The sums of n samples, p features and k targets. Raises ValueError, KeyError for what no statistics hold."""
    held = len(arrays["features"]) if "features" in arrays else None
    if held is not None and held >= max(1, min(n + 1, p)):
        raise ValueError(f"{held} rows of {n} samples and {p} features")
    stored = {"gram": (p * (p + 1) // 2,)} if held is None else {"features": (held, p), "targets": (held, k + 1)}
    shapes: dict[str, tuple[int, ...]] = {
        **stored,
        "cross": (k, p),
        "feature_sum": (p,),
        "target_sum": (k,),
        "target_square": (k,),
        "target_origin": (k,),
        "total_weight": (),
    }
    return {name: _checked(name, arrays[name], shape) for name, shape in shapes.items()}


def _checked(name: str, array: Any, shape: tuple[int, ...]) -> FloatArray:
    if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite float64 of shape {shape}, got {array.dtype} {array.shape}")
    own = np.ascontiguousarray if name == "gram" else np.array  # G is unpacked; the caller may use the rest again
    return np.asarray(own(array)).reshape(shape)
