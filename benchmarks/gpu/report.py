"""Writes docs/measured/gpu.md from the results of ``run.py`` in benchmarks/results/gpu/DEVICE/NAME.json, by name.

    cd benchmarks && python -m gpu.report [--results results/gpu] [--docs ../docs]

The last run of a device is shown whole, earlier ones beside it in one table. ``notes.json`` in the folder of a device
gives reasons for stages that take more than 1.5 times their floor, by run: {NAME: {"FCNN/path": "...", "*/score":
"..."}}; a star stands for every map. Of what was not run the page says that it was not run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu.floors import (
    Need,
    Rates,
    embeddings_need,
    library_seconds,
    preimage_need,
    solve_need,
    stage_needs,
    wide_needs,
)

__all__ = ["FORMAT", "page", "summary", "write"]

FORMAT = "krrdistill-gpu-1"
_HERE = Path(__file__).resolve().parent
_ABSENT = "Not run.\n"
_FAR = 1.5  # times the floor, from which on a reason is asked for
_KIP_ITERATIONS = 30_000
_GOALS = {"identity": 0.15, "FCNN": 0.25}  # seconds from bytes in host memory to the certified file, H100
_FASTER_THAN_FP32, _OVER_PUBLISHED = 2.0, 20.0
_KERNELS = ("identity", "FCNN", "random_fourier")

_INTRODUCTION = """\
# The CUDA backend on a GPU

Written by `benchmarks/gpu/report.py` from the results of `benchmarks/gpu/run.sh`, which are kept in
`benchmarks/results/gpu`. Times are medians, in milliseconds unless they say otherwise. The first call of a process,
which also loads libraries, stands apart where it was measured. What was not run says so.

* **Floor**: the least time of a stage at the rates that the same run measured: its arithmetic in the cheapest form that
  is accurate enough (integer products where the design uses them), the bytes of device memory that must move, and those
  over the bus. The slowest of the three counts. **Ratio** is measured time over floor.
* **FP32**: the same floor with plain float32 products.
* **Library**: what cuBLAS and cuSOLVER take for the same step, as PyTorch calls them.
* **Predicted**: for the design that keeps everything on the device; written down in `benchmarks/gpu/predictions.json`
  before that design was measured.
"""

Result = dict[str, Any]
Row = Mapping[str, Any]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _median(row: Row) -> float | None:
    return statistics.median(row["seconds"]) if row.get("seconds") else None


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _range(row: Row) -> str:
    """The median, and the range where there are several runs."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    taken = row["seconds"]
    spread = f" ({_ms(min(taken))} … {_ms(max(taken))})" if len(taken) > 1 else ""
    return _ms(_median(row)) + spread


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _part(result: Result, name: str) -> Result:
    return dict(result["parts"].get(name, {}))


def _rows(result: Result, name: str) -> list[Result]:
    return list(_part(result, name).get("rows", []))


def _unfinished(result: Result, *names: str) -> list[str]:
    """A sentence for each part that did not come to its end."""
    lines = []
    for name in names:
        part = _part(result, name)
        for said in (part.get("outcome", "done"), part.get("skipped"), part.get("failed")):
            if isinstance(said, str) and said != "done":
                lines += [f"Part `{name}`: {said}.", ""]
    return lines


def _is_real(result: Result) -> bool:
    """Goals and predictions are about full sizes on hardware."""
    return not result["sizes"]["emulated"] and result["sizes"]["d"] == 3072


def _device(result: Result) -> str:
    return str(_part(result, "facts").get("device", "unknown device"))


# Stages beside their floors


def _measured_stages(result: Result) -> list[tuple[str, str, Row, Need | None, float | None]]:
    """(key, name, row, what it needs at least, seconds of the library) of every stage that has a floor or a time."""
    sizes, ceilings = result["sizes"], _rows(result, "ceilings")
    found: list[tuple[str, str, Row, Need | None, float | None]] = []
    for row in _rows(result, "stages"):
        if "id" not in row:
            continue
        if "kernel" in row:
            kernel = row["kernel"]
            library = library_seconds(ceilings, sizes, kernel)
            key, name = f"{kernel}/{row['id']}", f"{kernel}: {row['name']}"
            found.append((key, name, row, stage_needs(sizes, kernel).get(row["id"]), library.get(row["id"])))
        elif row["id"] == "preimage":
            library = library_seconds(ceilings, sizes, "FCNN")
            need = preimage_need(sizes["d"], row["points"])
            found.append((f"preimage/{row['points']}", row["name"], row, need, library.get("preimage")))
        else:
            need = solve_need(row["order"], sizes["k"])
            found.append((f"solve_spd/{row['order']}", row["name"], row, need, None))
    for row in _rows(result, "embeddings"):
        if str(row.get("id", "")).startswith("update"):
            need = embeddings_need(row["rows"], row["p"], row["size"])
            name = f"embeddings {row['rows']:,} x {row['p']}: {row['name']}"
            found.append((f"embeddings/{row['id']}", name, row, need, None))
        elif "id" in row:
            found.append((f"embeddings/{row['id']}", f"embeddings: {row['name']}", row, None, None))
    for row in _rows(result, "wide"):
        if "id" in row:
            needs = wide_needs(row["rows"], row["p"], sizes["k"])
            library = library_seconds(ceilings, sizes, "identity")
            name = f"p = {row['p']}: {row['name']}"
            found.append((f"wide/{row['id']}", name, row, needs.get(row["id"]), library.get(f"wide_{row['id']}")))
    return found


def _stages(result: Result, predictions: Mapping[str, Any], notes: Mapping[str, str]) -> list[str]:
    rates = Rates.of(_rows(result, "ceilings"))
    lines = ["### Stages beside their floors", ""]
    measured = _measured_stages(result)
    if not measured:
        return [*lines, _ABSENT]
    if rates is None:
        lines += ["The ceilings are missing in this run, so no floor is known.", ""]
    predicted = predictions["stages"] if predictions.get("device") == _device(result) else {}
    rows, reasons, pass_lines = [], [], []
    for key, name, row, need, library in measured:
        seconds = None if "failed" in row else _median(row)
        floor, bound = need.floor(rates) if need is not None and rates is not None else (None, "")
        plain = need.fp32_floor(rates) if need is not None and rates is not None else None
        ratio = None if seconds is None or not floor else seconds / floor
        expected = 1e-3 * predicted[key]["ms"] if key in predicted else None
        shown_floor = f"{_ms(floor)} ({bound})" if floor else "–"
        rows.append((name, _range(row), _ms(expected), shown_floor, _times(ratio), _ms(plain), _ms(library)))
        if ratio is not None and ratio > _FAR:
            reasons.append((name, _times(ratio), _reason(key, notes)))
        if key.endswith("update_device") and not key.startswith("wide") and seconds and plain and _is_real(result):
            faster = plain / seconds
            verdict = "met" if faster >= _FASTER_THAN_FP32 else "**missed**"
            pass_lines.append(
                f"{name}: {faster:.2f} × as fast as the FP32 floor (goal ≥ {_FASTER_THAN_FP32:g} ×: {verdict})  "
            )
    lines += _table(("stage", "measured (range)", "predicted", "floor (bound by)", "ratio", "FP32", "library"), rows)
    lines += [*pass_lines, ""] if pass_lines else []
    if reasons:
        lines += [f"Stages over {_FAR:g} times their floor, and why:", ""]
        lines += _table(("stage", "ratio", "reason"), reasons)
    return lines + _unfinished(result, "stages", "embeddings", "wide")


def _reason(key: str, notes: Mapping[str, str]) -> str:
    """Of this stage, or of the stage under every map."""
    every = f"*/{key.partition('/')[2]}"
    return notes.get(key, notes.get(every, "no reason is recorded yet"))


# Whole runs


def _whole(result: Result, predictions: Mapping[str, Any]) -> list[str]:
    lines = ["### Whole runs: bytes in host memory to a certified file", ""]
    cells = [row for row in _rows(result, "end_to_end") if row.get("id") == "end_to_end"]
    lines += _unfinished(result, "end_to_end")
    if not cells:
        return [*lines, _ABSENT]
    predicted = predictions["end_to_end"] if predictions.get("device") == _device(result) else {}
    rows = []
    for row in cells:
        kernel, per_class = row["kernel"], row["per_class"]
        goal = _GOALS.get(kernel) if per_class == 1 and _is_real(result) and "H100" in _device(result) else None
        seconds, verdict = _median(row), "–"
        if goal is not None and seconds is not None:
            verdict = f"≤ {_ms(goal)}: {'met' if seconds <= goal else '**missed**'}"
        expected = predicted.get(f"{kernel}/{per_class}")
        error = max(row["weight_errors"]) if row.get("weight_errors") else None
        rows.append(
            (
                kernel,
                str(per_class),
                _ms(row.get("first")),
                _range(row),
                str(len(row["seconds"])),
                "–" if expected is None else _ms(1e-3 * expected["ms"]),
                verdict,
                _error(error),
            )
        )
    head = ("map", "per class", "first call", "later calls (range)", "calls", "predicted", "goal", "weight error")
    lines += _table(head, rows)
    lines += ["Median milliseconds of the later calls by stage:", ""]
    return lines + _stage_table([row for row in cells if row.get("stages")])


def _stage_table(cells: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in cells for run in row["stages"] for name in run))
    rows = []
    for row in cells:
        runs = row["stages"][1:] or row["stages"]
        middles = [statistics.median(run[name] for run in runs) if name in runs[0] else None for name in names]
        rows.append((row["kernel"], str(row.get("per_class", 1)), *(_ms(middle) for middle in middles)))
    return _table(("map", "per class", *names), rows)


def _real(result: Result) -> list[str]:
    lines = ["### Real images on the GPU and on the CPU", ""]
    rows = _part(result, "end_to_end").get("real")
    if not isinstance(rows, list):
        return [*lines, f"{rows.capitalize()}.\n" if rows else _ABSENT]
    shown = [
        (
            row["dataset"],
            row["kernel"],
            row["backend"],
            f"{row['seconds']:.2f}",
            f"{row['lambda']:.3g}",
            f"{_percent(row['test_accuracy'])} → {_percent(row['distilled_test_accuracy'])}",
            _percent(row["prediction_agreement"]),
            _error(row["weight_relative_error"]),
        )
        for row in rows
    ]
    head = ("data", "map", "backend", "seconds", "λ", "test accuracy %", "agreement %", "weight error")
    lines += _table(head, shown)
    return [*lines, *(f"{said}  " for said in _compared(rows)), ""]


def _compared(rows: Sequence[Row]) -> list[str]:
    """Whether both backends give the same numbers, a sentence for each map."""
    said = []
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        pair = [row for row in rows if row["kernel"] == kernel]
        if len(pair) == 2:
            names = ("lambda", "test_accuracy", "distilled_test_accuracy", "prediction_agreement")
            differ = [name.replace("_", " ") for name in names if pair[0][name] != pair[1][name]]
            said.append(f"{kernel}: {'**differs** in ' + ', '.join(differ) if differ else 'equal on GPU and CPU'}.")
    return said


# Others


def _contestants(result: Result) -> list[str]:
    lines = ["### Beside others on the same GPU", "", *_unfinished(result, "contestants")]
    models = [row for row in _rows(result, "contestants") if row.get("id") == "model"]
    if models:
        ours = {row["kernel"]: _median(row) for row in models if row["name"] == "krrdistill"}
        rows = []
        for row in models:
            seconds, own = _median(row) if "failed" not in row else None, ours.get(row["kernel"])
            ratio = seconds / own if seconds and own else None
            lambda_ = f"{row['lambda']:.3g}" if "lambda" in row else "–"
            shown = (_range(row), _times(ratio), lambda_, _error(row.get("difference")))
            rows.append((row["kernel"], row["name"], *shown))
        lines += [
            "Bytes in host memory to the weights W of the best λ; nothing is distilled. Where many λ score alike, each",
            "way takes another one of them; the difference is to our W of the same λ.",
            "",
        ]
        lines += _table(("map", "written in", "milliseconds (range)", "over ours", "λ", "‖W − ours‖ / ‖ours‖"), rows)
    published = [row for row in _rows(result, "contestants") if row.get("id") == "published"]
    if published:
        lines += [*_published(result, published)]
    elif "published" in _part(result, "contestants"):
        lines += [f"The published algorithm: {_part(result, 'contestants')['published']}.", ""]
    return lines if models or published else [*lines, _ABSENT]


def _published(result: Result, cells: Sequence[Row]) -> list[str]:
    rows = []
    for row in cells:
        theirs, ours = row.get("published"), row.get("ours")
        seconds = [None if side is None else side["seconds"]["total"] for side in (theirs, ours)]
        ratio = seconds[0] / seconds[1] if seconds[0] and seconds[1] else None
        verdict = _times(ratio)
        if ratio is not None and _is_real(result):
            verdict += f" (goal ≥ {_OVER_PUBLISHED:g}: {'met' if ratio >= _OVER_PUBLISHED else '**missed**'})"
        errors = [_error(None if side is None else side["weight_relative_error"]) for side in (theirs, ours)]
        shown = [f"failed: {row['failed']}" if "failed" in row else _ms(seconds[0]), _ms(seconds[1])]
        rows.append((row["kernel"], str(row["per_class"]), *shown, verdict, *errors))
    head = (
        "map",
        "per class",
        "published",
        "krrdistill",
        "published over ours",
        "its weight error",
        "our weight error",
    )
    said = "The published algorithm in PyTorch on the GPU, whole runs with a test set, the second run of each process:"
    return [said, "", *_table(head, rows)]


def _kip(result: Result) -> list[str]:
    lines = ["### KIP", "", *_unfinished(result, "kip")]
    steps = [row for row in _rows(result, "kip") if row.get("seconds")]
    if not steps:
        return [*lines, _ABSENT]
    cells = [row for row in _rows(result, "end_to_end") if row.get("kernel") == "FCNN" and "per_class" in row]
    ours = {row["per_class"]: _median(row) for row in cells}
    rows = []
    for row in steps:
        seconds = _median(row)
        assert seconds is not None
        whole, own = _KIP_ITERATIONS * seconds, ours.get(row["per_class"])
        ratio = "–" if own is None else f"{whole / own:,.0f} (extrapolated)"
        shown = f"{whole / 60:,.1f} min (extrapolated)"
        rows.append((row["variant"], str(row["per_class"]), f"{seconds:.4g}", shown, ratio))
    head = ("variant", "per class", "seconds per iteration", f"{_KIP_ITERATIONS:,} iterations", "over our whole run")
    return [*lines, *_table(head, rows)]


# Tests, ceilings, accuracy


def _tests(result: Result) -> list[str]:
    lines = ["### Tests on the device", "", *_unfinished(result, "parity", "sanitizer")]
    parity = _part(result, "parity")
    if "passed" in parity:
        failed = parity["failed"]
        lines += [f"`pytest -m gpu`: {parity['passed']} passed, {len(failed)} failed, {parity['skipped']} skipped.", ""]
        lines += [f"* failed: `{name}`" for name in failed]
        lines += [""] if failed else []
        lines += [parity["remark"], ""] if "remark" in parity else []
    else:
        lines += [f"`pytest -m gpu`: {_ABSENT}"]
    rows = [
        (row["name"], str(row.get("passed", "–")), str(row.get("summary", row.get("failed", "–"))))
        for row in _rows(result, "sanitizer")
    ]
    return lines + (_table(("compute-sanitizer", "tests passed", "what it found"), rows) if rows else [])


def _accuracy(result: Result) -> list[str]:
    rows = [
        (row.get("kernel", "identity"), row["name"], _error(row["relative_error"]))
        for part in ("stages", "embeddings")
        for row in _rows(result, part)
        if "relative_error" in row and row["name"].startswith("error of G")
    ]
    lines = ["### Accuracy of G", ""]
    if not rows:
        return [*lines, _ABSENT]
    lines += ["Relative error against float64, Frobenius norm, one part of the rows:", ""]
    return lines + _table(("map", "what", "error"), rows)


def _ceilings(result: Result) -> list[str]:
    lines = ["### Ceilings of this run", "", *_unfinished(result, "ceilings")]
    timed = [row for row in _rows(result, "ceilings") if row.get("seconds") or row.get("failed")]
    if not timed:
        return [*lines, _ABSENT]
    rows = []
    for row in timed:
        seconds, rate = _median(row), "–"
        if seconds and row.get("flops"):
            rate = f"{row['flops'] / seconds / 1e12:.1f} Tflop/s"
        elif seconds and row.get("bytes"):
            rate = f"{row['bytes'] / seconds / 1e9:,.1f} GB/s"
        rows.append((row["name"], f"failed: {row['failed']}" if "failed" in row else _ms(seconds), rate))
    lines += _table(("routine", "milliseconds", "rate"), rows)
    sums = [row for row in _rows(result, "ceilings") if "bias" in row]
    if sums:
        lines += ["Long sums of positive products: a bias means that the accumulator truncates.", ""]
        shown = [(row["name"], _error(row["bias"]), _error(row["relative_error"])) for row in sums]
        lines += _table(("sums", "bias", "relative error"), shown)
    return lines


def _facts(result: Result) -> list[str]:
    facts = _part(result, "facts")
    gpu, machine = facts.get("gpu", {}), facts.get("machine", {})
    said = [
        _device(result),
        f"driver {gpu['driver_version']}" if gpu.get("driver_version") else "",
        f"{facts['multiprocessors']} multiprocessors" if facts.get("multiprocessors") else "",
        f"SM clock at most {gpu['clocks.max.sm']}" if gpu.get("clocks.max.sm") else "",
        f"power limit {gpu['power.limit']}" if gpu.get("power.limit") else "",
        f"PyTorch {facts['torch']['version']} (CUDA {facts['torch']['cuda']})" if facts.get("torch") else "",
        *(f"{name} {version}" for name, version in facts.get("versions", {}).items() if name != "torch"),
        f"{machine['cpu']}" if machine.get("cpu") else "the CPU model is not recorded",
        f"{machine['cores']} cores" if machine.get("cores") else "",
        f"krrdistill {machine['krrdistill']}" if machine.get("krrdistill") else "",
    ]
    sizes = result["sizes"]
    return [
        f"{'; '.join(part for part in said if part)}.",
        "",
        f"Random bytes: n = {sizes['n']:,}, of which a twentieth is held out; d = p = {sizes['d']}, k = {sizes['k']}.",
        "",
    ]


def _history(runs: Sequence[Result]) -> list[str]:
    """Medians of every stage and whole run, a column for each run."""
    named: dict[str, dict[int, float | None]] = {}
    for number, run in enumerate(runs):
        for _, name, row, _, _ in _measured_stages(run):
            named.setdefault(name, {})[number] = None if "failed" in row else _median(row)
        for row in _rows(run, "end_to_end"):
            if row.get("id") == "end_to_end":
                name = f"{row['kernel']}: bytes to certified file, {row['per_class']} per class"
                named.setdefault(name, {})[number] = _median(row)
    rows = [(name, *(_ms(found.get(number)) for number in range(len(runs)))) for name, found in named.items()]
    return ["### All runs, milliseconds", "", *_table(("stage", *(_title(run) for run in runs)), rows)]


def _title(run: Result) -> str:
    return f"{run['date']}{', ' + run['label'] if run['label'] else ''}"


def page(devices: Mapping[str, Sequence[Result]], notes: Mapping[str, Mapping[str, str]], predictions: Result) -> str:
    """The whole page: runs by device, reasons for the last run of each, predictions."""
    lines = [_INTRODUCTION]
    if not devices:
        lines += [_ABSENT]
    for device, runs in devices.items():
        last = runs[-1]
        lines += [f"## {_device(last)}: {_title(last)}", "", *_facts(last)]
        lines += [*_whole(last, predictions), *_stages(last, predictions, notes.get(device, {}))]
        lines += [*_contestants(last), *_kip(last), *_real(last), *_tests(last), *_accuracy(last), *_ceilings(last)]
        if len(runs) > 1:
            lines += _history(runs)
    return "\n".join(lines).rstrip() + "\n"


def summary(result: Result) -> list[str]:
    """What the run that just ended shows, in the words of the page."""
    predictions = _read(_HERE / "predictions.json")
    parts = (_tests(result), _whole(result, predictions), _stages(result, predictions, {}), _contestants(result))
    return [line for part in (*parts, _kip(result), _real(result)) for line in part]


def _read(path: Path) -> Result:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write(results: Path, docs: Path) -> None:
    """The page, from whatever results there are."""
    devices: dict[str, list[Result]] = {}
    notes: dict[str, Result] = {}
    for folder in sorted({path.parent for path in results.glob("*/*.json")}):
        files = [path for path in sorted(folder.glob("*.json")) if path.name != "notes.json"]
        devices[folder.name] = [_read(path) for path in files]
        found = _read(folder / "notes.json") if (folder / "notes.json").exists() else {}
        notes[folder.name] = found.get(files[-1].stem, {})
    docs.mkdir(parents=True, exist_ok=True)
    text = page(devices, notes, _read(_HERE / "predictions.json"))
    (docs / "gpu.md").write_text(text, encoding="utf-8")


def main() -> None:
    """Writes the page again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=_HERE.parent / "results" / "gpu")
    parser.add_argument("--docs", type=Path, default=_HERE.parents[1] / "docs" / "measured")
    arguments = parser.parse_args()
    write(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
