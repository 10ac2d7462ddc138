"""Names of the data that statistics contain, so that no shard is added or removed twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from krrdistill.common.files import content_digest
from krrdistill.errors import DataError

__all__ = ["Shards", "digest_name"]

_SHOWN = 3  # names in a message
_DIGEST = "sha256:"
_REMEDY = (
    "; if these are other samples, give each statistics a name of their own: RidgeStatistics(..., shard='NAME') "
    "(--shard)"
)


@dataclass(frozen=True)
class Shards:
    """Names of the data that are in some statistics.

    Parameters
    ----------
    own : str, optional
        Name of what ``update`` added; a digest of the sums where the user gave none, from when others can see them.
    merged : frozenset of str
        Those of statistics that were added.
    removed : frozenset of str
        Those of statistics that were taken away, out of a larger shard.
    gone : frozenset of str
        Those that were in and were taken away whole.
    """

    own: str | None = None
    merged: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All that is in."""
        return self.merged if self.own is None else self.merged | {self.own}

    def plus(self, where: str, other: Shards) -> Shards:
        """Those of both. Raises DataError where they share one."""
        both = self.names & other.names
        if both:
            raise DataError(f"{where}: {_listed(both)} already in these statistics{_REMEDY}")
        return Shards(
            self.own,
            self.merged | other.names,
            (self.removed - other.names) | (other.removed - self.names),
            (self.gone - other.names) | (other.gone - self.names),
        )

    def minus(self, where: str, other: Shards) -> Shards:
        """Those that are left. Raises DataError for what was taken away before."""
        twice = other.names & (self.removed | self.gone)
        if twice:
            raise DataError(f"{where}: {_listed(twice)} already taken away from these statistics{_REMEDY}")
        known = other.names & self.names
        own = None if self.own in known else self.own
        return Shards(own, self.merged - known, self.removed | (other.names - known), self.gone | known)

    def to_json(self) -> dict[str, Any]:
        """For the header of a file."""
        sets = {"merged": self.merged, "removed": self.removed, "gone": self.gone}
        return {"own": self.own, **{name: sorted(names) for name, names in sets.items()}}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Shards:
        """Raises ValueError, TypeError, KeyError for what ``to_json`` did not write."""
        own, sets = values["own"], [values["merged"], values["removed"], values.get("gone", [])]
        listed = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sets)
        if not listed or not isinstance(own, (str, type(None))):
            raise ValueError("shards must be names")
        return Shards(own, *map(frozenset, sets))


def digest_name(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """What samples without a name are called: a digest of their sums."""
    return f"{_DIGEST}{content_digest(arrays)[:32]}"


def _listed(names: frozenset[str]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    if len(names) > 1:
        return f"shards {shown} are"
    digest = next(iter(names)).startswith(_DIGEST)
    return f"shard {shown}{', the same samples by their digest,' if digest else ''} is"
