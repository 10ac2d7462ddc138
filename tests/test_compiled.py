"""The compiled module is loaded with idle threads that sleep, and without a trace in the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("krrdistill._native", reason="the compiled module is not built")

SCRIPT = """
import os, time
before = dict(os.environ)
from krrdistill.common.native import load_native
module = load_native()
assert dict(os.environ) == before
import numpy as np
def work():  # a loop of all threads, then idle
    for _ in range(20):
        module.normal_from_bits(np.zeros(1 << 16, np.uint64), np.empty(1 << 16))
        time.sleep(0.005)
work()
start = time.process_time()
for _ in range(40):
    gram = np.zeros((2, 2))
    module.symmetrize(gram)
    time.sleep(0.005)
print(time.process_time() - start)
"""


def idle_seconds(**environment: str) -> float:
    """Processor seconds of 40 tiny parallel loops with 5 ms of sleep after each."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = {**inherited, "OMP_NUM_THREADS": "2", **environment}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="needs GCC's OpenMP and two cores")
def test_idle_threads_sleep() -> None:
    assert idle_seconds() < 0.5 * idle_seconds(GOMP_SPINCOUNT="100000000")


def test_a_choice_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from krrdistill.common.native import load_native

    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    load_native()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_more_threads_than_openmp_can_start_are_not_tried() -> None:
    """They ended every operation, or, where it was large, the process."""
    script = (
        "import os, numpy as np\nimport krrdistill as kd\n"
        "kd.RidgeStatistics(kd.Identity(9), 2, backend='native').update(np.ones((50, 9)), np.arange(50) % 2)\n"
        "from krrdistill.common.native import load_native\n"
        "print(load_native().set_threads(1), os.environ['OMP_NUM_THREADS'])\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "100000,2"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() in (["1024", "100000,2"], ["1", "100000,2"])  # one where the compiler has no OpenMP
