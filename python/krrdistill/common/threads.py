"""How many threads BLAS and OpenMP take inside of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl

__all__ = ["limited_threads"]


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """At most this many threads of every BLAS and OpenMP runtime inside of the block; None changes nothing."""
    if threads is None:
        yield
        return
    with threadpoolctl.threadpool_limits(limits=threads):
        yield
