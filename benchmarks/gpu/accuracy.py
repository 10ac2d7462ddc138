"""How far G is from float64, for every map and every way that the CUDA backend forms products, on real CIFAR-100 rows.

    KRRDISTILL_DATA=... python benchmarks/gpu/accuracy.py --rows 4096 [--device emulated|real] [--json out.json]

Three errors of each G against the float64 features and products of the same map: ``total`` is ||G - G*||_2 / ||G*||_2,
``products`` is the same for products of exactly those float32 features that the backend computed, and ``features`` is
||F - F*||_F / ||F*||_F. ``pixels_float16`` and ``features_float16`` are rows of float16 without a map: pixels in
[0, 1], and features of FCNN. Beside them stand what the backend told: arithmetic, its own bound, and the noise floor.
The script fails where an error exceeds what was told.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse.linalg

import krrdistill as kd
from krrdistill.backends import Products
from krrdistill.maps import FeatureMap

MAPS = ("identity", "FCNN", "random_fourier")
HALVES = ("pixels_float16", "features_float16")
PRODUCTS = ("auto", "fp32")
FloatArray = npt.NDArray[np.float64]


def norm(symmetric: FloatArray) -> float:
    """||A||_2 of a symmetric matrix, to a relative 1e-3."""
    start = np.cos(np.arange(1.0, len(symmetric) + 1.0))
    if not symmetric.any():
        return 0.0
    found = scipy.sparse.linalg.eigsh(symmetric, k=1, which="LM", v0=start, tol=1e-3, return_eigenvectors=False)
    return float(abs(found[0]))


def summed(backend: Any, phi: FeatureMap, X: npt.NDArray[Any], dtype: str) -> tuple[FloatArray, Products]:
    """(G, how it was formed)."""
    gram = np.zeros((phi.output_dim, phi.output_dim))
    used = backend.accumulate(phi, X, np.zeros((len(X), 0)), gram, np.zeros((0, phi.output_dim)), dtype=np.dtype(dtype))
    backend.symmetrize(gram)
    return gram, used


def rows_of(phi: FeatureMap, X: npt.NDArray[Any], backends: dict[str, Any]) -> list[dict[str, Any]]:
    """The row of each kind of products."""
    wide = X.astype(np.float64) if X.dtype == np.float16 else X
    exact = kd.get_backend("array").transform(phi, wide, dtype=np.dtype(np.float64))
    expected = exact.T @ exact
    size, features_size = norm(expected), float(np.linalg.norm(exact))
    found = []
    for name, backend in backends.items():
        gram, used = summed(backend, phi, X, "float32")
        row: dict[str, Any] = {"products": name, "arithmetic": used.arithmetic, "bound": used.bound}
        row |= {"rounding": used.rounding, "total": norm(gram - expected) / size}
        if used.precision == "float32":
            F = backend.transform(phi, X, dtype=np.dtype(np.float32)).astype(np.float64)
            row["features"] = float(np.linalg.norm(F - exact)) / features_size
            row["own"] = norm(gram - F.T @ F) / size
        found.append(row)
    return found


def problem_of(name: str, p: int | None, X: npt.NDArray[Any], make: Any) -> tuple[FeatureMap, npt.NDArray[Any]]:
    """(map, rows) of images X; rows of float16 are as somebody may keep them, pixels or features."""
    of_map = "FCNN" if name in HALVES else name
    sizes: dict[str, dict[str, Any]] = {"FCNN": {"widths": (p,)}, "random_fourier": {"n_features": p}}
    phi = make(of_map, **({} if p is None else sizes.get(of_map, {})))
    if name not in HALVES:
        return phi, X
    features = (
        kd.get_backend("array").transform(phi, X, dtype=np.dtype(np.float32))
        if name == "features_float16"
        else X / 255.0
    )
    rows = features.astype(np.float16)
    return kd.Identity(rows.shape[1]), rows


def main() -> int:
    """Prints the table; 1 where an error is larger than the backend told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--features", type=int, default=None, help="p of FCNN and random Fourier, by default d = 3072")
    parser.add_argument("--device", choices=("real", "emulated"), default="real")
    parser.add_argument("--maps", nargs="*", default=[*MAPS, *HALVES], choices=MAPS + HALVES)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.device == "emulated":
        sys.modules["krrdistill._cuda"] = __import__("krrdistill._cuda_emulated", fromlist=["*"])
    from krrdistill.backends.cuda import CudaBackend

    data = kd.load_dataset("cifar100", data_dir=os.environ["KRRDISTILL_DATA"])
    X = data.x_train.reshape(len(data.x_train), -1)[: arguments.rows]
    scaling = kd.standardize(data)
    backends = {name: CudaBackend(products=name) for name in PRODUCTS}
    make = functools.partial(kd.make_map, data=data, preprocessing=scaling, seed=0)
    table, good = [], True
    print(f"{backends['auto'].name}, {len(X)} rows")
    for kernel in arguments.maps:
        phi, rows = problem_of(kernel, arguments.features, X, make)
        for row in rows_of(phi, rows, backends):
            least = phi.output_dim * 2.0**-52
            kept = row["total"] <= max(row["rounding"], least) and row.get("own", 0.0) <= max(row["bound"], least)
            good = good and kept
            table.append({"map": kernel, "n": len(X), "p": phi.output_dim, **row, "kept": kept})
            shown = " ".join(f"{key} {value:.2e}" for key, value in row.items() if isinstance(value, float))
            print(f"{kernel:15} {row['products']:5} {row['arithmetic']:9} {shown}{'' if kept else '  NOT AS TOLD'}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(table, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
