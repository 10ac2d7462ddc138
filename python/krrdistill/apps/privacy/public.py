"""Why each field of a released file may be seen by everybody. What is not listed here is not released."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from krrdistill.common.files import read_npz

__all__ = ["PUBLIC", "released_fields", "unexplained"]

_NOISY = "computed from the noisy W, public numbers and a public seed (post-processing)"
_CHOSEN = "chosen by who releases, without the data"
_SHAPE = "part of the neighbouring relation: all data sets that the guarantee compares have it in common"
_SCALING = "published constants, or 0 and 1: never moments of the data"
_DRAWN = "drawn from the public seed"
_BUDGET = "computed from the budget, n, k, p, B and lambda"

# Members of distilled.npz, and of its meta; a * stands for a number, or for all that lies below.
PUBLIC: Mapping[str, str] = {
    "X": _NOISY,
    "X_scale": _NOISY,
    "X_offset": _NOISY,
    "Y": _NOISY,
    "W": "the noisy model itself, or computed from noisy (G, C)",
    "lambda_s": "always 0",
    "X_origin": _SCALING,
    "X_unit": _SCALING,
    "map_*": _DRAWN,
    "digest": "computed from the other members",
    "meta.format": "the same in all files",
    "meta.map.*": "kernel, sizes, seed and parameters of the map: " + _CHOSEN + "; its fingerprint follows from them",
    "meta.preprocessing.*": _SCALING,
    "meta.shape": _SHAPE,
    "meta.targets": _SHAPE,
    "meta.classes": _SHAPE,
    "meta.class_names": _SHAPE,
    "meta.n_train": _SHAPE,
    "meta.centered": "always false",
    "meta.dataset": "name that the data were loaded by: " + _CHOSEN,
    "meta.lambda": _CHOSEN + ", or computed from the budget, n, p and B",
    "meta.options.*": _CHOSEN,
    "meta.versions.*": "of the software",
    "meta.privacy.mechanism": _CHOSEN,
    "meta.privacy.epsilon": _CHOSEN,
    "meta.privacy.delta": _CHOSEN,
    "meta.privacy.neighbours": "the same in all files",
    "meta.privacy.norm_bound": _CHOSEN + ", or computed from the map alone",
    "meta.privacy.lambda": _CHOSEN + ", or computed from the budget, n, p and B",
    "meta.privacy.sensitivity": _BUDGET,
    "meta.privacy.noise_std": _BUDGET,
    "meta.privacy.rho": _BUDGET,
    "meta.privacy.total_rho": "sum over the budgets of releases in the ledger",
    "meta.privacy.total_epsilon": "computed from the budgets of releases in the ledger",
    "meta.privacy.releases": "number of releases in the ledger",
    "meta.privacy.guarantee": "the same in all files of the mechanism",
}


def released_fields(path: Path) -> list[str]:
    """Every member of a file, and every field of its meta, as keys with dots."""
    arrays = read_npz(path)
    return [*(name for name in arrays if name != "meta"), *_fields("meta", json.loads(str(arrays["meta"])))]


def unexplained(path: Path) -> list[str]:
    """Fields of a file that PUBLIC has no reason for."""
    families = tuple(name[:-1] for name in PUBLIC if name.endswith("*"))
    return [name for name in released_fields(path) if name not in PUBLIC and not name.startswith(families)]


def _fields(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        yield name
        return
    for key, inner in value.items():
        yield from _fields(f"{name}.{key}", inner)
