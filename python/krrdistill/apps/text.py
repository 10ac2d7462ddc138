"""Numbers as people read them, on the terminal and on pages alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["megabytes", "number", "percent", "plain_number", "printable", "seconds", "shown_device", "visible"]

# What a terminal obeys: control characters, and those that turn the direction of what follows.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def percent(fraction: float | None) -> str:
    """0.8641 -> "86.41 %"; None (unknown) -> "-"."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def number(value: Any, *, digits: int = 4) -> str:
    """Up to ``digits`` significant digits for a float, anything else as text; None (unknown) -> "-"."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.{digits + 6}g}"  # 1e+04 reads 10000


def seconds(value: float | None) -> str:
    """0.01234 -> "12.3 ms", 12.34 -> "12.3 s", 754 -> "12 min 34 s"; None (unknown) -> "-"."""
    if value is None:
        return "-"
    if value < 0.1:
        return f"{number(1000.0 * value, digits=3)} ms"
    if value < 100:
        return f"{number(float(value), digits=3)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def shown_device(facts: Mapping[str, str] | None) -> str:
    """The device of steps, from the record of a run: "cpu", "cuda:0 (NVIDIA H100), TF32 off"; None -> "-"."""
    if facts is None:
        return "-"
    gpu = f" ({facts['gpu']})" if "gpu" in facts else ""
    return f"{facts['device']}{gpu}" + (f", TF32 {facts['tf32']}" if "tf32" in facts else "")


def plain_number(value: float) -> str:
    """Three significant digits, an exponent only from a million on: 1000, 0.00316, 1e+06."""
    return f"{float(f'{value:.3g}'):g}"


def megabytes(size: int | None) -> str:
    """Bytes as MB (10^6): 1234567 -> "1.2 MB"; None (unknown) -> "-"."""
    return "-" if size is None else f"{size / 1e6:.1f} MB"


def printable(text: str) -> str:
    """One line without control characters or halves of surrogate pairs, which no font has."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in whole).split())


def visible(text: str) -> str:
    """One line of which a terminal obeys nothing: control characters, which files may hold, are spelled out."""
    return _OBEYED.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
