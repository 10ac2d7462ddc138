"""Whether there is memory for a large matrix, asked before it is made: systems that overcommit end the process."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_bytes", "require_memory"]

_LARGE = 1 << 30  # bytes below which nobody looks
_GROUP = Path("/sys/fs/cgroup")  # of a container


def available_bytes() -> int | None:
    """Memory that this process may still take, by the system and its control group; None where neither tells."""
    known = [number for number in (_of_the_system(), _of_the_group()) if number is not None]
    return min(known) if known else None


def require_memory(where: str, what: str, needed: int) -> None:
    """Raises MemoryError, with the bytes, where ``needed`` bytes are not there."""
    if needed < _LARGE:
        return
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryError(f"{where}: {what} needs {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available")


def _of_the_system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
        if hasattr(os, "sysconf"):
            return int(os.sysconf("SC_AVPHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        pass
    return None


def _of_the_group() -> int | None:
    """What the control group has left beside what its processes allocated; its file cache is given back in need."""
    try:
        limit = int((_GROUP / "memory.max").read_text(encoding="ascii"))
        facts = dict(line.split() for line in (_GROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - int(facts["anon"])
    except (OSError, ValueError, KeyError):
        return None
