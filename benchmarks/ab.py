"""Interleaves two commands, A B A B ..., and prints medians and the pairwise ratio A / B.

    python benchmarks/ab.py --rounds 7 --key seconds.total \
        --a "old/bin/python benchmarks/contestants.py ours --dataset mnist" \
        --b "new/bin/python benchmarks/contestants.py ours --dataset mnist"

Without --key the wall time of the whole process is compared; with it a number from the last JSON object on stdout.
Pairs are compared with each other, not with the average: what disturbs the machine for a while disturbs both.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memory import Watched, last_json, run_watched

__all__ = ["Comparison", "compare", "interleave"]


@dataclass(frozen=True)
class Comparison:
    """Two series measured in turn; ratios are a[i] / b[i]."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """One per pair."""
        return tuple(left / right for left, right in zip(self.a, self.b, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Medians, ranges, and how often B was the shorter one."""
        ratios = self.ratios
        return {
            "a": {"median": statistics.median(self.a), "min": min(self.a), "max": max(self.a)},
            "b": {"median": statistics.median(self.b), "min": min(self.b), "max": max(self.b)},
            "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            "b_shorter": sum(ratio > 1.0 for ratio in ratios),
            "rounds": len(ratios),
        }


def interleave(a: Callable[[], float], b: Callable[[], float], rounds: int) -> Comparison:
    """A B, B A, A B, ... so that neither always comes second; one untimed round first."""
    a(), b()
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            left, right = a(), b()
        else:
            right, left = b(), a()
        pairs.append((left, right))
        print(f"round {number + 1}: A {left:.4g}  B {right:.4g}  A/B {left / right:.3f}", file=sys.stderr, flush=True)
    return Comparison(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def compare(a: list[str], b: list[str], rounds: int, key: str | None = None) -> Comparison:
    """Two commands by wall time, or by a number ``key`` (dots descend) of the JSON that they print."""

    def value(watched: Watched) -> float:
        if key is None:
            return watched.seconds
        found: Any = last_json(watched.stdout)
        for part in key.split("."):
            found = found[part]
        return float(found)

    return interleave(lambda: value(run_watched(a)), lambda: value(run_watched(b)), rounds)


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--a", required=True, help="first command, quoted")
    parser.add_argument("--b", required=True, help="second command, quoted")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--key", default=None, help="number in the printed JSON, such as seconds.total")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = compare(shlex.split(arguments.a), shlex.split(arguments.b), arguments.rounds, arguments.key).as_dict()
    if arguments.json:
        print(json.dumps(found))
        return
    for name in ("a", "b", "ratio"):
        label = "A/B" if name == "ratio" else name.upper()
        print(
            f"{label:>3}  median {found[name]['median']:.4g}  ({found[name]['min']:.4g} ... {found[name]['max']:.4g})"
        )
    print(f"B was shorter in {found['b_shorter']} of {found['rounds']} pairs")


if __name__ == "__main__":
    main()
