"""Forks, threads and interrupts: what becomes of a process that uses the package, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
import threadpoolctl

from conftest import framework
from krrdistill.backends import backend_status
from krrdistill.common.threads import limited_threads

LIMIT = 240  # seconds; what hangs, hangs for ever
THREADS = {"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "3"}
BACKENDS = ("native", "numba", "array")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SETUP = """
import multiprocessing as mp, os, signal, sys, threading, time
import numpy as np
import krrdistill as kd
rng = np.random.default_rng(0)
X, y = rng.normal(size=(2000, 64)).astype("f4"), np.arange(2000) % 10
phi = kd.RandomFourier(64, 32, sigma2=64.0, seed=0)
"""


def run_alone(code: str, *words: str, prelude: str = SETUP) -> tuple[str, str]:
    """(stdout, stderr) of Python code in a process of its own, which is killed with its children where it hangs."""
    command = [sys.executable, "-c", prelude + code, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, env={**os.environ, **THREADS}
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("it hangs")
    assert process.returncode == 0, err
    return out, err


def usable(backend: str) -> str:
    status = backend_status()[backend]
    if not status["available"]:
        pytest.skip(status["detail"])
    return backend


# Forks

FORK = """
backend, what = sys.argv[1:]
def use(seed):
    if what == "update":
        return kd.RidgeStatistics(phi, classes=10, backend=backend).update(X, y).gram.sum()
    return kd.distill(X, y, phi, backend=backend, threads=seed + 1).distilled.Y.sum()
expected = use(1)
with mp.get_context("fork").Pool(2) as pool:
    found = pool.map(use, range(4), chunksize=2)
assert np.allclose(found, expected), (found, expected)
"""


@posix
@pytest.mark.parametrize("what", ["update", "distill"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_fork_after_use_works_on_one_thread_and_says_so_once(backend: str, what: str) -> None:
    _, err = run_alone(FORK, usable(backend), what)
    assert err.count("runs on one thread here") == 1


@posix
def test_fork_before_use_says_nothing() -> None:
    code = """
def use(seed):
    return kd.RidgeStatistics(kd.Identity(64), classes=10).update(np.ones((100, 64)), np.zeros(100, int)).n
with mp.get_context("fork").Pool(2) as pool:
    print(pool.map(use, range(2)))
"""
    assert run_alone(code, prelude=SETUP.replace("phi =", "_ = lambda:")) == ("[100, 100]\n", "")


@posix
def test_torch_workers_transform_after_use_in_the_parent() -> None:
    framework("torch")
    code = """
import torch
class Features(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return phi.transform(X[i : i + 1])[0]
expected = phi.transform(X[:8])
loader = torch.utils.data.DataLoader(Features(), batch_size=4, num_workers=2, multiprocessing_context="fork")
found = torch.cat(list(loader)).numpy()
assert np.allclose(found, expected, atol=1e-5)
"""
    run_alone(code)


# Threads

COUNT = """
def others():
    me = str(threading.get_native_id())
    tasks = [task for task in os.listdir("/proc/self/task") if task != me]
    return {task: int(open(f"/proc/self/task/{task}/schedstat").read().split()[0]) for task in tasks}
backend, *kinds = sys.argv[1:]
X = np.tile(X, (6, 4))  # of few features, a thread sums 4096 rows
y = np.arange(len(X)) % 10
def made(kind):
    if kind == "torch":
        import torch
        return kd.UserMap(torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU()).double(), 256)
    return kd.Identity(256) if kind == "identity" else kd.FCNN(256)
for threads in (1, 3):
    for kind in kinds:
        phi, options = made(kind), {"labels_only": True, "init": "real"} if kind == "torch" else {}
        before, seen = others(), None
        while before != seen:  # threads of BLAS spin for a while after their last work
            time.sleep(0.1)
            before, seen = others(), before
        elsewhere = time.process_time_ns() - time.thread_time_ns()
        kd.distill(X, y, phi, threads=threads, backend=backend, **options)
        elsewhere = time.process_time_ns() - time.thread_time_ns() - elsewhere  # threads that have ended, too
        worked = sum(now - before.get(task, 0) for task, now in others().items())
        print(worked, len(others()) - len(before), elsewhere)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs Linux's times of single threads")
@pytest.mark.parametrize("backend", BACKENDS)
def test_distill_on_one_thread_leaves_the_others_idle(backend: str) -> None:
    torch = backend == "native" and importlib.util.find_spec("torch")  # PyTorch's map is the same on every backend
    kinds = ["identity", "FCNN", *(["torch"] if torch else [])]
    lines = [[int(word) for word in line.split()] for line in run_alone(COUNT, usable(backend), *kinds)[0].splitlines()]
    one, several = (dict(zip(kinds, part, strict=True)) for part in (lines[: len(kinds)], lines[len(kinds) :]))
    assert {kind: found[:2] for kind, found in one.items()} == {kind: [0, 0] for kind in kinds}
    assert all(elsewhere > 1_000_000 for _, _, elsewhere in several.values()), several
    assert all(found[2] < several[kind][2] for kind, found in one.items()), (one, several)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def test_overlapping_limits_restore_what_was_before() -> None:
    before = blas_threads()
    inside, leave = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        with limited_threads(1):
            inside.set()
            leave.wait(LIMIT)

    thread = threading.Thread(target=other)
    with limited_threads(2):
        thread.start()
        inside.wait(LIMIT)
        seen.append(set(blas_threads()))
    leave.set()
    thread.join(LIMIT)
    assert seen == [{1}]
    assert blas_threads() == before


# Ctrl-C

# The operation has begun where `begun()`; the watcher then interrupts, and the operation must not reach `ended()`.
# Seconds are those of one processor, which other processes do not lengthen.
INTERRUPT = """
import signal, threadpoolctl, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
threadpoolctl.threadpool_limits(1)
from krrdistill.common.native import load_native
native, what = load_native(), sys.argv[1]
n, d, p, wide = 400_000, 1024, 8, 4096
one_row, rows = np.ones((1, d), "f4"), np.zeros(n, int)
label = np.zeros(1, int)
layers = [(np.full(size, 1e-3, "f4"), None, 1, 0.1) for size in ((wide, d), (p, wide))]
network, plain = native.FeatureMapF32(d, None, None, layers), native.FeatureMapF32(d, None, None, [])
if what == "transform":
    out = np.zeros((n, p), "f4")
    call = lambda: native.transform(network, one_row, rows, out, 1024)
    begun, ended = lambda: out[0, 0] != 0, lambda: out[-1, 0] != 0
elif what == "score_path":
    correct = np.zeros(1, int)
    call = lambda: native.score_path(network, one_row, rows, label, np.ones((1, 1, p), "f4"), correct, 1024)
    begun, ended = lambda: correct[0] > 0, lambda: correct[0] == n
elif what in ("accumulate", "bytes"):
    gram, cross = np.zeros((d, d)), np.zeros((1, d))
    if what == "bytes" and not native.has_byte_products():
        sys.exit()
    if what == "bytes":
        rows = np.zeros(4 * n, int)
        plain, one_row = native.FeatureMapF64(d, None, None, []), one_row.astype("u1")
    call = lambda: native.accumulate(plain, one_row, rows, label, gram, cross, 1024)
    begun, ended = lambda: cross[0, 0] > 0, lambda: cross[0, 0] == len(rows)
else:
    p, count = (3000, 2) if what == "band" else (1500, 200)
    gram, cross = np.eye(p) + 1.0, np.ones((1, p))
    models, flags = np.zeros((count, 1, p)), np.zeros((2, count), bool)
    call = lambda: native.ridge_path(gram, cross, np.geomspace(1, 2, count), 1e-9, models, *flags, what)
    begun = (lambda: gram[0, -1] != 1) if what == "band" else (lambda: models[0, 0, 0] != 0)
    ended = lambda: models[-1, 0, 0] != 0
sent = []
def watch():
    while not begun():
        pass
    sent.append(time.process_time())
    os.kill(os.getpid(), signal.SIGINT)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
try:
    call()
except KeyboardInterrupt:
    print(time.process_time() - sent[0] < 2.0, not ended())
"""


@posix
@pytest.mark.parametrize("what", ["transform", "score_path", "accumulate", "bytes", "cholesky", "band"])
def test_interrupt_ends_a_native_call_between_two_steps(what: str) -> None:
    out, _ = run_alone(INTERRUPT, what)
    if out == "" and what == "bytes":
        pytest.skip("no integer products on this CPU")
    assert out == "True True\n"
