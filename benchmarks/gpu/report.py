"""Writes docs/measured/gpu.md from the results of ``run.py`` in benchmarks/results/gpu/DEVICE/NAME.json, by name.

    cd benchmarks && python -m gpu.report [--results results/gpu] [--docs ../docs]

The last run of a device is shown whole, earlier ones beside it in one table. ``notes.json`` in the folder of a device
gives reasons for stages that take more than 1.5 times their floor, by run: {NAME: {"FCNN/path": "...", "*/score":
"..."}}; a star stands for every map. ``code.json`` beside the folders tells the commits of runs that do not tell them
themselves, and what changed in the code, each with the time (UTC): what is later than the last run is listed as not
measured. Of what was not run the page says that it was not run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu.breakdown_page import breakdown
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
from gpu.predicted import Prediction, before, pending, read
from gpu.shown import (
    ABSENT,
    Result,
    Row,
    device_of,
    is_real,
    median,
    ms,
    part_of,
    percent,
    ranged,
    rows_of,
    scientific,
    table,
    times,
    unfinished,
)

__all__ = ["FORMAT", "Story", "page", "summary", "write"]

FORMAT = "krrdistill-gpu-1"
_HERE = Path(__file__).resolve().parent
_FAR = 1.5  # times the floor, from which on a reason is asked for
_KIP_ITERATIONS = 30_000
_GOALS = {"identity": 0.15, "FCNN": 0.25}  # seconds from bytes in host memory to the certified file, H100
_FASTER_THAN_FP32, _OVER_PUBLISHED = 2.0, 20.0
_KERNELS = ("identity", "FCNN", "random_fourier")

_TITLE = """\
# The CUDA backend on a GPU

Written by `benchmarks/gpu/report.py` from the results of `benchmarks/gpu/run.sh`, which are kept in
`benchmarks/results/gpu`. Times are medians, in milliseconds unless they say otherwise. The first call of a process,
which also loads libraries, stands apart where it was measured. What was not run says so.
"""
_WORDS = """\
## What the columns are

* **Floor**: the least time of a stage at the rates that the same run measured: its arithmetic in the cheapest form that
  is accurate enough (integer products where the design uses them), the bytes of device memory that must move, and those
  over the bus. The slowest of the three counts. **Ratio** is measured time over floor.
* **FP32**: the same floor with plain float32 products.
* **Library**: what cuBLAS and cuSOLVER take for the same step, as PyTorch calls them.
* **Predicted**: written down before the run, in `benchmarks/gpu/predictions`.
* **Goal**: for an H100. An H200 has the same arithmetic and faster memory, and is held against the same goals.
"""


# Stages beside their floors


def _measured_stages(result: Result) -> list[tuple[str, str, Row, Need | None, float | None]]:
    """(key, name, row, what it needs at least, seconds of the library) of every stage that has a floor or a time."""
    sizes, ceilings = result["sizes"], rows_of(result, "ceilings")
    found: list[tuple[str, str, Row, Need | None, float | None]] = []
    for row in rows_of(result, "stages"):
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
    for row in rows_of(result, "embeddings"):
        if str(row.get("id", "")).startswith("update"):
            need = embeddings_need(row["rows"], row["p"], row["size"])
            name = f"embeddings {row['rows']:,} x {row['p']}: {row['name']}"
            found.append((f"embeddings/{row['id']}", name, row, need, None))
        elif "id" in row:
            found.append((f"embeddings/{row['id']}", f"embeddings: {row['name']}", row, None, None))
    for row in rows_of(result, "wide"):
        if "id" in row:
            needs = wide_needs(row["rows"], row["p"], sizes["k"])
            library = library_seconds(ceilings, sizes, "identity")
            name = f"p = {row['p']}: {row['name']}"
            found.append((f"wide/{row['id']}", name, row, needs.get(row["id"]), library.get(f"wide_{row['id']}")))
    return found


def _stages(result: Result, predictions: Sequence[Prediction], notes: Mapping[str, str]) -> list[str]:
    rates = Rates.of(rows_of(result, "ceilings"))
    lines = ["### Stages beside their floors", ""]
    measured = _measured_stages(result)
    if not measured:
        return [*lines, ABSENT]
    if rates is None:
        lines += ["The ceilings are missing in this run, so no floor is known.", ""]
    predicted = _lookup(result, predictions)
    rows, reasons, pass_lines = [], [], []
    for key, name, row, need, library in measured:
        seconds = None if "failed" in row else median(row)
        floor, bound = need.floor(rates) if need is not None and rates is not None else (None, "")
        plain = need.fp32_floor(rates) if need is not None and rates is not None else None
        ratio = None if seconds is None or not floor else seconds / floor
        shown_floor = f"{ms(floor)} ({bound})" if floor else "–"
        rows.append((name, ranged(row), ms(predicted(key)), shown_floor, times(ratio), ms(plain), ms(library)))
        if ratio is not None and ratio > _FAR:
            reasons.append((name, times(ratio), _reason(key, notes)))
        if key.endswith("update_device") and not key.startswith("wide") and seconds and plain and is_real(result):
            faster = plain / seconds
            verdict = "met" if faster >= _FASTER_THAN_FP32 else "**missed**"
            pass_lines.append(
                f"{name}: {faster:.2f} × as fast as the FP32 floor (goal ≥ {_FASTER_THAN_FP32:g} ×: {verdict})  "
            )
    lines += table(("stage", "measured (range)", "predicted", "floor (bound by)", "ratio", "FP32", "library"), rows)
    lines += [*pass_lines, ""] if pass_lines else []
    if reasons:
        lines += [f"Stages over {_FAR:g} times their floor, and why:", ""]
        lines += table(("stage", "ratio", "reason"), reasons)
    return lines + unfinished(result, "stages", "embeddings", "wide")


def _reason(key: str, notes: Mapping[str, str]) -> str:
    """Of this stage, or of the stage under every map."""
    every = f"*/{key.partition('/')[2]}"
    return notes.get(key, notes.get(every, "no reason is recorded yet"))


def _prediction(result: Result, predictions: Sequence[Prediction]) -> Prediction | None:
    """The newest set before a run."""
    return before(predictions, device_of(result), result["date"]) if is_real(result) else None


def _lookup(result: Result, predictions: Sequence[Prediction]) -> Callable[[str], float | None]:
    """Predicted seconds by stage."""
    found = _prediction(result, predictions)
    return lambda key: None if found is None else found.seconds(key, device_of(result))


# Whole runs


def _is_hopper(result: Result) -> bool:
    """The goals are for an H100; an H200 has the same arithmetic and faster memory."""
    return any(name in device_of(result) for name in ("H100", "H200"))


def _whole(result: Result, predictions: Sequence[Prediction]) -> list[str]:
    lines = ["### Whole runs: bytes in host memory to a certified file", ""]
    cells = [row for row in rows_of(result, "end_to_end") if row.get("id") == "end_to_end"]
    lines += unfinished(result, "end_to_end")
    if not cells:
        return [*lines, ABSENT]
    predicted = _lookup(result, predictions)
    rows = []
    for row in cells:
        kernel, per_class = row["kernel"], row["per_class"]
        goal = _GOALS.get(kernel) if per_class == 1 and is_real(result) and _is_hopper(result) else None
        seconds, verdict = median(row), "–"
        if goal is not None and seconds is not None:
            verdict = f"≤ {ms(goal)}: {'met' if seconds <= goal else '**missed**'}"
        error = max(row["weight_errors"]) if row.get("weight_errors") else None
        rows.append(
            (
                kernel,
                str(per_class),
                ms(row.get("first")),
                ranged(row),
                str(len(row["seconds"])),
                ms(predicted(f"whole/{kernel}/{per_class}")),
                verdict,
                scientific(error),
            )
        )
    head = ("map", "per class", "first call", "later calls (range)", "calls", "predicted", "goal", "weight error")
    lines += table(head, rows)
    lines += ["Median milliseconds of the later calls by stage:", ""]
    return lines + _stage_table([row for row in cells if row.get("stages")])


def _stage_table(cells: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in cells for run in row["stages"] for name in run))
    rows = []
    for row in cells:
        runs = row["stages"][1:] or row["stages"]
        middles = [statistics.median(run[name] for run in runs) if name in runs[0] else None for name in names]
        rows.append((row["kernel"], str(row.get("per_class", 1)), *(ms(middle) for middle in middles)))
    return table(("map", "per class", *names), rows)


def _real(result: Result) -> list[str]:
    lines = ["### Real images on the GPU and on the CPU", ""]
    rows = part_of(result, "end_to_end").get("real")
    if not isinstance(rows, list):
        return [*lines, f"{rows.capitalize()}.\n" if rows else ABSENT]
    shown = [
        (
            row["dataset"],
            row["kernel"],
            row["backend"],
            f"{row['seconds']:.2f}",
            f"{row['lambda']:.3g}",
            f"{percent(row['test_accuracy'])} → {percent(row['distilled_test_accuracy'])}",
            percent(row["prediction_agreement"]),
            scientific(row["weight_relative_error"]),
        )
        for row in rows
    ]
    head = ("data", "map", "backend", "seconds", "λ", "test accuracy %", "agreement %", "weight error")
    lines += table(head, shown)
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
    lines = ["### Beside others on the same GPU", "", *unfinished(result, "contestants")]
    models = [row for row in rows_of(result, "contestants") if row.get("id") == "model"]
    if models:
        ours = {row["kernel"]: median(row) for row in models if row["name"] == "krrdistill"}
        rows = []
        for row in models:
            seconds, own = median(row) if "failed" not in row else None, ours.get(row["kernel"])
            ratio = seconds / own if seconds and own else None
            lambda_ = f"{row['lambda']:.3g}" if "lambda" in row else "–"
            shown = (ranged(row), times(ratio), lambda_, scientific(row.get("difference")))
            rows.append((row["kernel"], row["name"], *shown))
        lines += [
            "Bytes in host memory to the weights W of the best λ; nothing is distilled. Where many λ score alike, each",
            "way takes another one of them; the difference is to our W of the same λ.",
            "",
        ]
        lines += table(("map", "written in", "milliseconds (range)", "over ours", "λ", "‖W − ours‖ / ‖ours‖"), rows)
    published = [row for row in rows_of(result, "contestants") if row.get("id") == "published"]
    if published:
        lines += [*_published(result, published)]
    elif "published" in part_of(result, "contestants"):
        lines += [f"The published algorithm: {part_of(result, 'contestants')['published']}.", ""]
    return lines if models or published else [*lines, ABSENT]


def _published(result: Result, cells: Sequence[Row]) -> list[str]:
    rows = []
    for row in cells:
        theirs, ours = row.get("published"), row.get("ours")
        seconds = [None if side is None else side["seconds"]["total"] for side in (theirs, ours)]
        ratio = seconds[0] / seconds[1] if seconds[0] and seconds[1] else None
        verdict = times(ratio)
        if ratio is not None and is_real(result):
            verdict += f" (goal ≥ {_OVER_PUBLISHED:g}: {'met' if ratio >= _OVER_PUBLISHED else '**missed**'})"
        errors = [scientific(None if side is None else side["weight_relative_error"]) for side in (theirs, ours)]
        shown = [f"failed: {row['failed']}" if "failed" in row else ms(seconds[0]), ms(seconds[1])]
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
    return [said, "", *table(head, rows)]


def _kip(result: Result) -> list[str]:
    lines = ["### KIP", "", *unfinished(result, "kip")]
    steps = [row for row in rows_of(result, "kip") if row.get("seconds")]
    if not steps:
        return [*lines, ABSENT]
    cells = [row for row in rows_of(result, "end_to_end") if row.get("kernel") == "FCNN" and "per_class" in row]
    ours = {row["per_class"]: median(row) for row in cells}
    rows = []
    for row in steps:
        seconds = median(row)
        assert seconds is not None
        whole, own = _KIP_ITERATIONS * seconds, ours.get(row["per_class"])
        ratio = "–" if own is None else f"{whole / own:,.0f} (extrapolated)"
        shown = f"{whole / 60:,.1f} min (extrapolated)"
        rows.append((row["variant"], str(row["per_class"]), f"{seconds:.4g}", shown, ratio))
    head = ("variant", "per class", "seconds per iteration", f"{_KIP_ITERATIONS:,} iterations", "over our whole run")
    return [*lines, *table(head, rows)]


# Tests, ceilings, accuracy


def _tests(result: Result) -> list[str]:
    lines = ["### Tests on the device", "", *unfinished(result, "parity", "sanitizer")]
    parity = part_of(result, "parity")
    if "passed" in parity:
        failed = parity["failed"]
        lines += [f"`pytest -m gpu`: {parity['passed']} passed, {len(failed)} failed, {parity['skipped']} skipped.", ""]
        lines += [f"* failed: `{name}`" for name in failed]
        lines += [""] if failed else []
        lines += [parity["remark"], ""] if "remark" in parity else []
    else:
        lines += [f"`pytest -m gpu`: {ABSENT}"]
    rows = [
        (row["name"], str(row.get("passed", "–")), str(row.get("summary", row.get("failed", "–"))))
        for row in rows_of(result, "sanitizer")
    ]
    return lines + (table(("compute-sanitizer", "tests passed", "what it found"), rows) if rows else [])


def _accuracy(result: Result) -> list[str]:
    rows = [
        (row.get("kernel", "identity"), row["name"], scientific(row["relative_error"]))
        for part in ("stages", "embeddings")
        for row in rows_of(result, part)
        if "relative_error" in row and row["name"].startswith("error of G")
    ]
    lines = ["### Accuracy of G", ""]
    if not rows:
        return [*lines, ABSENT]
    lines += ["Relative error against float64, Frobenius norm, one part of the rows:", ""]
    return lines + table(("map", "what", "error"), rows)


def _ceilings(result: Result) -> list[str]:
    lines = ["### Ceilings of this run", "", *unfinished(result, "ceilings")]
    timed = [row for row in rows_of(result, "ceilings") if row.get("seconds") or row.get("failed")]
    if not timed:
        return [*lines, ABSENT]
    rows = []
    for row in timed:
        seconds, rate = median(row), "–"
        if seconds and row.get("flops"):
            rate = f"{row['flops'] / seconds / 1e12:.1f} Tflop/s"
        elif seconds and row.get("bytes"):
            rate = f"{row['bytes'] / seconds / 1e9:,.1f} GB/s"
        rows.append((row["name"], f"failed: {row['failed']}" if "failed" in row else ms(seconds), rate))
    lines += table(("routine", "milliseconds", "rate"), rows)
    sums = [row for row in rows_of(result, "ceilings") if "bias" in row]
    if sums:
        lines += ["Long sums of positive products: a bias means that the accumulator truncates.", ""]
        shown = [(row["name"], scientific(row["bias"]), scientific(row["relative_error"])) for row in sums]
        lines += table(("sums", "bias", "relative error"), shown)
    return lines


def _facts(result: Result) -> list[str]:
    facts = part_of(result, "facts")
    gpu, machine = facts.get("gpu", {}), facts.get("machine", {})
    said = [
        device_of(result),
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
            named.setdefault(name, {})[number] = None if "failed" in row else median(row)
        for row in rows_of(run, "end_to_end"):
            if row.get("id") == "end_to_end":
                name = f"{row['kernel']}: bytes to certified file, {row['per_class']} per class"
                named.setdefault(name, {})[number] = median(row)
    rows = [(name, *(ms(found.get(number)) for number in range(len(runs)))) for name, found in named.items()]
    return ["### All runs, milliseconds", "", *table(("stage", *(_title(run) for run in runs)), rows)]


def _title(run: Result) -> str:
    return f"{run['date'][:10]}{', ' + run['label'] if run['label'] else ''}"


@dataclass(frozen=True)
class Story:
    """What a page tells beside the results.

    Parameters
    ----------
    notes : for each folder of results, reasons by stage for its last run
    predictions : all sets
    commits : of the code of a run, by FOLDER/NAME, where the run does not tell it
    changed : {"date", "what"} of changes of the code, in the order of their dates
    """

    notes: Mapping[str, Mapping[str, str]]
    predictions: Sequence[Prediction]
    commits: Mapping[str, str]
    changed: Sequence[Mapping[str, str]]


def _code(devices: Mapping[str, Mapping[str, Result]], story: Story) -> list[str]:
    """Which code was measured, and what of it changed since the last run of any device."""
    lines = ["## Which code was measured", ""]
    for folder, runs in devices.items():
        name, last = list(runs.items())[-1]
        commit = last.get("commit") or story.commits.get(f"{folder}/{name}", "not recorded")
        lines += [f"* {device_of(last)}, {last['date'][:10]}: commit {commit}."]
    newest = max(run["date"] for runs in devices.values() for run in runs.values())
    since = [change for change in story.changed if change["date"] > newest]
    more = ", above all:" if since else "."
    lines += ["", f"What changed after these runs has not been measured on hardware{more}", ""]
    lines += [f"* {change['date'][:10]}: {change['what']}" for change in since]
    return [*lines, ""] if since else lines


def _expected(devices: Mapping[str, Mapping[str, Result]], predictions: Sequence[Prediction]) -> list[str]:
    """The newest predictions beside the newest run, for devices that have not been measured since."""
    runs = sorted((run for runs in devices.values() for run in runs.values()), key=lambda run: str(run["date"]))
    found = pending(predictions, runs)
    if found is None:
        return []
    newest, waiting = found
    last = next((run for run in reversed(runs) if is_real(run)), None)
    measured = {} if last is None else _medians(last)
    rows = [
        (key, ms(measured.get(key)), *(ms(newest.seconds(key, device)) for device in waiting), ", ".join(parts))
        for key, parts in newest.stages.items()
    ]
    before_it = "measured before" if last is None else f"{device_of(last)}, measured {last['date'][:10]}"
    head = ("stage", before_it, *(f"{device}, predicted" for device in waiting), "steps")
    steps = [(name, what, f"{milliseconds:g}", bound) for name, (what, milliseconds, bound) in newest.steps.items()]
    lines = [f"## Predicted on {newest.date[:10]}, not measured", "", newest.about, "", *table(head, rows)]
    return [*lines, *table(("step", "what", "milliseconds", "bound by"), steps)]


def _medians(run: Result) -> dict[str, float | None]:
    """By the keys of predictions."""
    found = {key: median(row) for key, _, row, _, _ in _measured_stages(run)}
    cells = [row for row in rows_of(run, "end_to_end") if row.get("id") == "end_to_end"]
    return found | {f"whole/{row['kernel']}/{row['per_class']}": median(row) for row in cells}


def page(devices: Mapping[str, Mapping[str, Result]], story: Story) -> str:
    """The whole page, from the runs of each folder by name."""
    lines = [_TITLE, *(_code(devices, story) if devices else [ABSENT]), _WORDS]
    for folder, named in devices.items():
        runs = list(named.values())
        last = runs[-1]
        lines += [f"## {device_of(last)}: {_title(last)}", "", *_facts(last)]
        predicted = _prediction(last, story.predictions)
        lines += [] if predicted is None else [f"Predicted on {predicted.date[:10]}. {predicted.about}", ""]
        lines += [*_whole(last, story.predictions), *_stages(last, story.predictions, story.notes.get(folder, {}))]
        for section in (breakdown, _contestants, _kip, _real, _tests, _accuracy, _ceilings):
            lines += section(last)
        if len(runs) > 1:
            lines += _history(runs)
    lines += _expected(devices, story.predictions)
    return "\n".join(lines).rstrip() + "\n"


def summary(result: Result) -> list[str]:
    """What the run that just ended shows, in the words of the page."""
    predictions = read()
    parts = (_tests(result), _whole(result, predictions), _stages(result, predictions, {}), breakdown(result))
    return [line for part in (*parts, _contestants(result), _kip(result), _real(result)) for line in part]


def _read(path: Path) -> Result:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write(results: Path, docs: Path) -> None:
    """The page, from whatever results there are."""
    devices: dict[str, dict[str, Result]] = {}
    notes: dict[str, Result] = {}
    for folder in sorted({path.parent for path in results.glob("*/*.json")}):
        files = [path for path in sorted(folder.glob("*.json")) if path.name != "notes.json"]
        devices[folder.name] = {path.stem: _read(path) for path in files}
        found = _read(folder / "notes.json") if (folder / "notes.json").exists() else {}
        notes[folder.name] = found.get(files[-1].stem, {})
    docs.mkdir(parents=True, exist_ok=True)
    code = _read(results / "code.json") if (results / "code.json").exists() else {"commits": {}, "changed": []}
    story = Story(notes, read(), code["commits"], code["changed"])
    (docs / "gpu.md").write_text(page(devices, story), encoding="utf-8")


def main() -> None:
    """Writes the page again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=_HERE.parent / "results" / "gpu")
    parser.add_argument("--docs", type=Path, default=_HERE.parents[1] / "docs" / "measured")
    arguments = parser.parse_args()
    write(arguments.results, arguments.docs)


if __name__ == "__main__":
    main()
