"""Names of the folders of runs: what tells a run from others, short and fit for every file system."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from krrdistill.common.options import as_word, short_word
from krrdistill.options import shown_points

__all__ = ["fitting", "run_name", "sweep_name"]

# Beyond these, digests take the place of what they are of.
_MOST_NAMED = 10  # classes whose points are all in the name
_LONGEST_OPTIONS = 100  # letters
_LONGEST_STEM = 60  # bytes of the name of data, or of a map
_SHOWN = 12  # letters of a longer one


def run_name(source: str, points: Any, start: str, asked: Mapping[str, str], seed: int) -> str:
    """The name of a run: its data and map, points per class, start, the options that differ from their defaults, seed.

    >>> run_name("mnist_FCNN", 10, "real", {"zca": "", "realism": "0.5", "store": "uint8"}, 0)
    'mnist_FCNN_ipc10_real_zca_realism0.5_store-uint8_seed0'
    """
    many = isinstance(points, tuple) and len(points) > _MOST_NAMED
    ipc = (shown_points(points) if many else as_word(points)).replace(" ", "-").replace(",", "-")
    return "_".join(part for part in (source, f"ipc{ipc}", start, _options(asked), f"seed{seed}") if part)


def sweep_name(data: str, asked: Mapping[str, str]) -> str:
    """The name of a sweep, with what its cells differ in and what they share."""
    return "_".join(part for part in (data, "sweep", _options(asked)) if part)


def fitting(text: str) -> str:
    """The name of data or of a map, which may be of any length, as the name of a folder has it."""
    text = re.sub(r"[/\\:\0]", "_", text)
    return text if len(os.fsencode(text)) <= _LONGEST_STEM else f"{text[:_SHOWN]}-{short_word(text)}"


def _options(asked: Mapping[str, str]) -> str:
    joined = "_".join(_part(*item) for item in asked.items())
    return joined if len(joined) <= _LONGEST_OPTIONS else short_word(joined)


def _part(name: str, value: str) -> str:
    """One option: zca, realism0.5, store-uint8, lambdas0.1-1-10."""
    word = short_word(value).replace(",", "-")
    return f"{name}{word}" if word[:1].isdigit() or not word else f"{name}-{word}"
