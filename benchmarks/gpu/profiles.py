"""What a profiler tells of one call: the work of the device beside the wall time, or the functions of the host.

PyTorch's profiler records what the driver does for the whole process, whoever launched it (CUPTI), so kernels of the
package are seen, too.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gpu.session import Session

__all__ = ["device_work", "host_functions", "work_of"]

_KERNELS, _COPIES, _CALLS = ("kernel",), ("gpu_memcpy", "gpu_memset"), ("cuda_runtime", "cuda_driver")
_SHOWN = 8
_NAME = 90  # letters of a kernel's name


def work_of(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and seconds of the device from the events of a trace, whose times are in microseconds.

    ``busy_seconds`` counts time in which kernels or copies overlap once. ``allocations`` are calls that take memory.
    """
    timed = [event for event in events if event.get("ph") == "X"]

    def of(kinds: tuple[str, ...]) -> list[Mapping[str, Any]]:
        return [event for event in timed if event.get("cat") in kinds]

    kernels, copies, calls = of(_KERNELS), of(_COPIES), of(_CALLS)
    names: dict[str, list[float]] = {}
    for event in kernels:
        names.setdefault(str(event["name"])[:_NAME], []).append(1e-6 * float(event["dur"]))
    longest = sorted(names.items(), key=lambda item: -sum(item[1]))[:_SHOWN]
    return {
        "kernels": len(kernels),
        "copies": len(copies),
        "synchronisations": sum("Synchronize" in str(event["name"]) for event in calls),
        "allocations": sum(str(event["name"]).startswith(("cudaMalloc", "cuMemAlloc")) for event in calls),
        "busy_seconds": _covered([*kernels, *copies]),
        "kernel_seconds": _covered(kernels),
        "copy_seconds": _covered(copies),
        "longest": [{"name": name, "calls": len(taken), "seconds": sum(taken)} for name, taken in longest],
    }


def _covered(events: Iterable[Mapping[str, Any]]) -> float:
    """Seconds in which at least one of them runs."""
    covered, end = 0.0, float("-inf")
    for start, length in sorted((float(event["ts"]), float(event["dur"])) for event in events):
        covered += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    return 1e-6 * covered


def device_work(session: Session, name: str, work: Callable[[], Any], **facts: Any) -> None:
    """A row with what the device does in one call of ``work``, which ran before; seconds are those of another call.

    On the emulated device nothing is recorded: its counts are 0.
    """
    profiler = session.torch.profiler
    activities = [profiler.ProfilerActivity.CPU]
    activities += [] if session.emulated else [profiler.ProfilerActivity.CUDA]
    session.timed(name, work, id="device_work", **facts)
    row = session.results["rows"][-1]
    if "failed" in row:
        return
    with session.attempt(f"{name}, profiled", **facts) as profiled, tempfile.TemporaryDirectory() as folder:
        session.synchronize()
        with profiler.profile(activities=activities) as profile:
            start = time.perf_counter()
            work()
            session.synchronize()
            profiled["profiled_seconds"] = time.perf_counter() - start
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        found = work_of(json.loads(file.read_text(encoding="utf-8"))["traceEvents"])
        if not (found["kernels"] or session.emulated):
            raise RuntimeError("the profiler recorded no kernel")
        row |= found


def host_functions(work: Callable[[], Any], most: int = _SHOWN) -> tuple[Any, list[dict[str, Any]]]:
    """(result, the functions of Python that took the most time themselves), of one call of ``work`` under cProfile."""
    profile = cProfile.Profile()
    result = profile.runcall(work)
    found: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows: list[dict[str, Any]] = [
        {"function": _told(*place), "calls": calls, "seconds": own, "with_callees": whole}
        for place, (_, calls, own, whole, _) in found.items()
    ]
    return result, sorted(rows, key=lambda row: -row["seconds"])[:most]


def _told(file: str, _: int, function: str) -> str:
    """Without the folders of this machine."""
    return function if file == "~" else f"{'/'.join(Path(file).parts[-2:])}: {function}"
