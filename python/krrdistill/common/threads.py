"""How many threads BLAS and OpenMP take: inside of a block, and in a process that was forked.

GCC's OpenMP does not survive a fork: the child has the books of a pool whose threads are gone, and waits for them for
ever. A team of one needs no pool, so a forked process runs the loops of the compiled core on one thread, and Numba's
kernels without their threads. BLAS looks after itself (OpenBLAS starts its threads anew).
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import threadpoolctl

from krrdistill.common.native import MOST_THREADS, load_native
from krrdistill.common.warning import warn

__all__ = [
    "allowed_threads",
    "blas_for",
    "forked",
    "in_order",
    "limited_threads",
    "say_forked",
    "threads_for",
]


T = TypeVar("T")
R = TypeVar("R")
_ALONE = 2e8  # operations, about 5 ms of one thread


class _Process:
    """What this process knows of its threads."""

    def __init__(self) -> None:
        self.forked = False
        self.lost_threads = False  # the compiled core had several before the fork
        self.word: int | None = None  # a pipe of one byte, for all processes that are forked: who gets it speaks
        self.lock = threading.Lock()
        self.limits: dict[object, int] = {}  # of the blocks that are running, of all Python threads
        self.found: Any = None  # a threadpoolctl.ThreadpoolController
        self.looked_at = 0
        self.blas: list[tuple[Any, int]] = []  # each BLAS, and its threads before the first of them
        self.in_torch: dict[object, int] = {}  # the Python threads of the blocks that limit PyTorch
        self.torch_threads = 1  # PyTorch's threads before the first of them

    def libraries(self, kind: str) -> Any:
        """A controller of every "blas" or "openmp" of the process, looked for again when a module was imported since.

        A search takes 2 ms, as long as the products of a small batch.
        """
        if self.looked_at != len(sys.modules):
            self.found, self.looked_at = threadpoolctl.ThreadpoolController(), len(sys.modules)
        return self.found.select(user_api=kind)

    def before_fork(self) -> None:
        """In the parent: what is written once is read once, whichever of its children come first."""
        if self.word is None and not self.forked and sys.platform != "win32":  # which has no forks, nor set_blocking
            self.word, written = os.pipe()
            os.set_blocking(self.word, False)
            os.write(written, b"!")
            os.close(written)

    def may_speak(self) -> bool:
        """Whether no other process has spoken for all."""
        try:
            return self.word is not None and os.read(self.word, 1) == b"!"
        except BlockingIOError:
            return False

    def after_fork(self) -> None:
        """In the child."""
        self.forked = True
        self.lock = threading.Lock()
        self.limits.clear()
        self.in_torch.clear()
        native = sys.modules.get("krrdistill._native")
        if native is not None:
            self.lost_threads |= native.set_threads(1) > 1


_PROCESS = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_PROCESS.before_fork, after_in_child=_PROCESS.after_fork)


def forked() -> bool:
    """Whether this process is the child of a fork of a process that had this package."""
    return _PROCESS.forked


def allowed_threads() -> int:
    """Threads that a computation may start here: the lowest limit of the blocks that are running, or the cores."""
    if _PROCESS.forked:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_PROCESS.limits.values()]))


def say_forked(lost_threads: bool = False) -> None:
    """Warns that a forked process has one thread, once for all processes of a family."""
    if not (_PROCESS.forked and (lost_threads or _PROCESS.lost_threads) and _PROCESS.may_speak()):
        return
    warn(
        "this process was forked from one that had threads, so krrdistill runs on one thread here; "
        'start processes with multiprocessing.get_context("spawn") or "forkserver" for more',
        RuntimeWarning,
    )


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """At most this many threads of every BLAS, OpenMP runtime and PyTorch inside of the block; None changes nothing.

    OpenMP and PyTorch are limited for the Python thread that asks. BLAS has one limit for all of them: where blocks
    overlap, the lowest holds, and the last one to end restores what was before.

    Raises ValueError for more threads than OpenMP can start.
    """
    if threads is None:
        yield
        return
    if threads > MOST_THREADS:
        raise ValueError(f"threads: at most {MOST_THREADS} can be started, got {threads}; leave it out for all cores")
    with suppress(ImportError):
        load_native()  # a runtime that is loaded later would not be limited
    limit = 1 if _PROCESS.forked else threads
    with ExitStack() as stack:
        stack.enter_context(_limited_torch(limit))  # first: its number is that of OpenMP
        # threadpool_limits(user_api=...) would restore BLAS too
        stack.enter_context(_PROCESS.libraries("openmp").limit(limits=limit))
        stack.enter_context(_limited_blas(limit))
        yield


@contextmanager
def blas_for(operations: float) -> Iterator[None]:
    """One BLAS thread in a block whose products take so few operations that waking the others takes longer.

    They also go on waiting for work after it, and take the cores from whatever runs next.
    """
    if operations > _ALONE:
        yield
        return
    with _limited_blas(1):
        yield


@contextmanager
def threads_for(operations: float, *, blas: float | None = None) -> Iterator[None]:
    """As ``blas_for``, for the loops of the compiled core too; ``blas`` operations of each call, by default all."""
    before = None if operations > _ALONE else load_native().set_threads(1)
    try:
        with blas_for(operations if blas is None else blas):
            yield
    finally:
        if before is not None:
            load_native().set_threads(before)


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of ``work``, in order, by all allowed threads; of NumPy alone, which leaves the interpreter's lock.

    The caller's thread gets the items; a few at a time are worked on or waiting.
    """
    threads = allowed_threads()
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from _results(pool, threads, work, items)


def _results(pool: ThreadPoolExecutor, threads: int, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    for item in items:
        if len(waiting) >= 2 * threads:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, item))
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _limited_blas(threads: int) -> Iterator[None]:
    block = object()
    try:
        with _PROCESS.lock:
            lowest = min(_PROCESS.limits.values(), default=None)
            if lowest is None:
                found = _PROCESS.libraries("blas").lib_controllers
                _PROCESS.blas = [(library, library.num_threads) for library in found]
            _PROCESS.limits[block] = threads  # where it is low enough already, too: the block that made it so may end
            if lowest is None or threads < lowest:
                _set_blas()
        yield
    finally:  # of Ctrl-C while the limit is set, too; a fork inside of the block forgot it
        with _PROCESS.lock:
            if _PROCESS.limits.pop(block, None) is not None and min(_PROCESS.limits.values(), default=None) != threads:
                _set_blas()


def _set_blas() -> None:
    """The lowest limit that is asked for. From 3.8 on, threadpoolctl listens to one thread until that releases it."""
    for library, before in _PROCESS.blas:
        release = getattr(library, "clear_controlling_thread", lambda force: None)
        release(force=True)
        library.set_num_threads(min(_PROCESS.limits.values(), default=before))
        release(force=True)


@contextmanager
def _limited_torch(threads: int) -> Iterator[None]:
    """PyTorch's own threads, where it is loaded: threadpoolctl does not reach those of its matrix products."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    block, me, before = object(), threading.get_ident(), None
    try:
        with _PROCESS.lock:
            before = torch.get_num_threads()
            running = _PROCESS.in_torch.values()
            if not running:
                _PROCESS.torch_threads = before
            elif me not in running:
                before = _PROCESS.torch_threads  # a new thread begins with the limit of the block that runs elsewhere
            _PROCESS.in_torch[block] = me
            torch.set_num_threads(threads)
        yield
    finally:
        with _PROCESS.lock:
            _PROCESS.in_torch.pop(block, None)
        if before is not None:
            torch.set_num_threads(before)
