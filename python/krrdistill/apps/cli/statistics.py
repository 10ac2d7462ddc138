"""Statistics as files: of a data set or shard, merged, taken away, and distilled without the data."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from krrdistill.apps.cli import output, status
from krrdistill.apps.cli.inputs import about, header_of, load_statistics, test_part
from krrdistill.apps.cli.run import of_command, show_record, tracked_run
from krrdistill.apps.cli.settings import DistillSettings, MergeSettings, StatisticsSettings
from krrdistill.apps.distillation import map_for, run_from_statistics
from krrdistill.apps.drawing import require_drawing
from krrdistill.apps.folder import Existing, OutputError, RunKind, output_folder
from krrdistill.apps.report.write import write_run
from krrdistill.artifact.record import to_json
from krrdistill.common.files import content_digest, write_together
from krrdistill.common.options import common_values
from krrdistill.common.progress import Stopwatch
from krrdistill.common.threads import limited_threads
from krrdistill.data.labels import Classes, label_array
from krrdistill.data.parts import OnePart
from krrdistill.data.registry import load_part
from krrdistill.errors import DataError
from krrdistill.options import DistillOptions
from krrdistill.problem import split
from krrdistill.ridge.held_out import HeldOutRows
from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["run_distill_statistics", "run_merge", "run_statistics", "run_subtract"]

STATISTICS, HELD_OUT = "krrdistill-statistics-", "krrdistill-held-out-"  # what the formats of the files begin with


@dataclass(frozen=True, kw_only=True)
class StatisticsFacts:
    """What a file of statistics, or of held-out rows, holds."""

    file: str
    n: int
    kind: str
    classes: tuple[str, ...] | None = None
    shards: tuple[str, ...] | None = None
    p: int | None = None
    kernel: str | None = None
    product_precision: str | None = None
    held_out: str | None = None
    n_held_out: int | None = None

    @staticmethod
    def of(file: Path, statistics: RidgeStatistics, **held_out: Any) -> StatisticsFacts:
        """Those of statistics."""
        classes = statistics.classes
        return StatisticsFacts(
            file=str(file),
            n=statistics.n,
            kind=statistics.targets,
            classes=None if classes is None else tuple(str(classes.label(c)) for c in range(classes.count)),
            shards=tuple(sorted(statistics.shards)),
            p=statistics.feature_map.output_dim,
            kernel=statistics.feature_map.kernel,
            product_precision=statistics.product_precision,
            **held_out,
        )

    def line(self) -> str:
        """All of it in one line."""
        if self.shards is None:
            return f"{self.file}: {self.n} held-out samples"
        of = f"of {len(self.classes)} classes" if self.classes is not None else f"with {self.kind} targets"
        shards = f"{len(self.shards)} shard{'' if len(self.shards) == 1 else 's'}"
        held = "" if self.held_out is None else f"; {self.n_held_out} held out in {self.held_out}"
        return (
            f"{self.file}: {self.n} samples {of}, {shards}, {self.p} features of {self.kernel}, products in "
            f"{self.product_precision}{held}"
        )


def run_statistics(settings: StatisticsSettings, *, as_json: bool) -> int:
    """Write the statistics of the training part of a data set, or of a shard, and the rows held out of them."""
    out, held_out = _file("--out", settings.out, STATISTICS), settings.held_out
    if held_out is not None:
        _file("--held-out", held_out, HELD_OUT)
    like = None if settings.like is None else load_statistics(settings.like, _own_map(settings.map_options.kernel))
    options = DistillOptions(**common_values(settings, DistillOptions))
    with limited_threads(settings.threads), output.stage_progress() as progress, about(settings.dataset):
        watch = Stopwatch(progress)
        with watch.stage("load"):
            part = load_part(
                settings.dataset,
                "train",
                data_dir=settings.data_dir,
                download=settings.download,
                x=settings.x,
                y=settings.y,
                layout=settings.layout,
            )
            targets = _targets(part, settings, like)
        feature_map = (
            map_for(
                part.X,
                settings.map_options.kernel,
                settings.map_options.given(),
                use_zca=settings.zca,
                seed=settings.seed,
                watch=watch,
                name=part.name,
                layout=part.layout,
            )
            if like is None
            else like.feature_map
        )
        statistics = RidgeStatistics(
            feature_map,
            targets.classes,
            n_targets=targets.values.shape[1] if targets.classes is None else None,
            precision=settings.precision if like is None else like.precision,
            backend=settings.backend,
            shard=settings.shard,
        )
        rows, kept = np.arange(len(targets.values)), None
        if held_out is not None:
            validation, rows = split("statistics", targets.values, options)
            kept = HeldOutRows(part.X, targets, rows=validation)
        with watch.stage("statistics") as report:
            statistics.update(part.X, targets, rows=rows, progress=report)
        if kept is None or held_out is None:
            statistics.save(out)
        else:  # held-out rows beside other statistics may be rows of those
            write_together({held_out: kept.save, out: statistics.save})
    if kept is None:
        status.say("note: nothing is held out (--held-out FILE does); choose lambda by other samples or by GCV")
    if like is None and feature_map.preprocessing.constants.get("source") == "x_train":
        status.say(f"note: the scaling is that of {settings.dataset} alone; make other shards with --like {out}")
    if like is None and settings.classes is None and targets.classes is not None and not part.class_names:
        found = f"the {targets.classes.count} classes are those that occur in {settings.dataset}"
        status.say(f"note: {found}; --classes says which others there are")
    n_held_out = None if kept is None else len(kept)
    _show(StatisticsFacts.of(out, statistics, held_out=held_out and str(held_out), n_held_out=n_held_out), as_json)
    return status.OK


def _targets(part: OnePart, settings: StatisticsSettings, like: RidgeStatistics | None) -> Any:
    """What the labels mean, by --classes, by the statistics that these are like, or by themselves."""
    if like is not None and like.classes is None:
        return part.targets("statistics", kind="real", classes=like.k)
    classes: Any = None if like is None else like.classes
    if settings.classes is not None:
        words = settings.classes
        integers = label_array("statistics", part.y).dtype.kind in "iu"
        try:
            numbers = [int(word) for word in words] if integers or len(words) == 1 else []
        except ValueError as error:
            raise status.UsageError(f"--classes: y holds integers, got {','.join(words)}") from error
        classes = numbers[0] if len(words) == 1 else Classes.of("--classes", numbers or list(words))
    return part.targets("statistics", kind=settings.targets or ("classes" if classes else None), classes=classes)


def run_merge(files: Sequence[Path], settings: MergeSettings, *, as_json: bool) -> int:
    """Write the sum of statistics of disjoint data, or held-out rows one behind the other."""
    formats = {file: _format(file) for file in files}
    rows = [file for file, found in formats.items() if found.startswith(HELD_OUT)]
    sums = [file for file, found in formats.items() if found.startswith(STATISTICS)]
    if rows and sums:
        raise status.UsageError(f"{rows[0]} holds held-out rows, {sums[0]} statistics; merge each kind by itself")
    if rows:
        return _join_held_out(files, settings, as_json=as_json)
    return _combine(files, settings, 1, as_json=as_json)


def run_subtract(files: Sequence[Path], settings: MergeSettings, *, as_json: bool) -> int:
    """Write the statistics of the first file without those of the others."""
    return _combine(files, settings, -1, as_json=as_json)


def _combine(files: Sequence[Path], settings: MergeSettings, sign: int, *, as_json: bool) -> int:
    out = _file("--out", settings.out, STATISTICS)
    with output.working("reading"):
        total = _of_classes(settings, files[0])
        precisions = {files[0]: total.product_precision}
        for file in files[1:]:
            other = _of_classes(settings, file)
            precisions[file] = other.product_precision
            with about(f"{files[0]} and {file}"):
                if sign > 0:
                    total += other
                else:
                    total -= other
        total.save(out)
    if len(set(precisions.values())) > 1:
        each = ", ".join(f"{file} {precision}" for file, precision in precisions.items())
        status.say(f"note: the sum has the lower precision of its parts, {total.product_precision}: {each}")
    _show(StatisticsFacts.of(out, total), as_json)
    return status.OK


def _of_classes(settings: MergeSettings, file: Path) -> RidgeStatistics:
    """The statistics of a file, with as many classes as --classes says."""
    statistics = load_statistics(file, settings.kernel)
    if settings.classes is None or settings.classes == statistics.k:
        return statistics
    asked, classes = f"--classes {settings.classes}", statistics.classes
    if classes is None:
        raise status.UsageError(f"{asked}: {file} has real-valued targets, no classes")
    if classes.names is not None:
        raise status.UsageError(f"{asked}: the classes of {file} have labels; leave it out, new labels are added")
    if settings.classes < classes.count:
        raise status.UsageError(f"{asked}: {file} has {classes.count} already")
    return statistics.grow(settings.classes - classes.count)


def _join_held_out(files: Sequence[Path], settings: MergeSettings, *, as_json: bool) -> int:
    if settings.classes is not None:
        raise status.UsageError("--classes is of statistics; held-out rows come with their labels")
    out = _file("--out", settings.out, HELD_OUT)
    parts, seen = list[HeldOutRows](), set[str]()
    for file in files:
        rows = HeldOutRows.load(file)
        digest = content_digest({"X": rows.X, "y": rows.y})
        if digest in seen:
            raise DataError(f"{file}: these held-out rows are already in")
        with about(f"{files[0]} and {file}"):
            HeldOutRows.joined([*parts[:1], rows])
        parts.append(rows)
        seen.add(digest)
    joined = HeldOutRows.joined(parts) or parts[0]
    joined.save(out)
    _show(StatisticsFacts(file=str(out), n=len(joined), kind="held-out rows"), as_json)
    return status.OK


def run_distill_statistics(settings: DistillSettings, file: Path, *, as_json: bool) -> int:
    """Distil statistics: the files of a run on data, and its certificate."""
    require_drawing()
    source, options = settings.source, settings.options
    start = time.perf_counter()
    kernel = _own_map(settings.map_options.kernel)
    existing = Existing.of(settings.out, overwrite=settings.overwrite)
    with (
        output_folder(settings.folder, RunKind.DISTILL, existing, say=status.note) as folder,
        tracked_run(settings, folder) as tracker,
        output.stage_progress(tracker=tracker) as progress,
    ):
        progress("load", 0.0)
        statistics = load_statistics(file, kernel, backend=options.backend)
        validation = None if source.validation is None else _held_out(settings)
        part = test_part(settings)
        if validation is not None:
            with about(f"--validation {source.validation}"):
                statistics.as_targets("validation", validation.y, len(validation))
        if part is not None:
            with about(f"--test {source.test}"):
                statistics.as_targets("test", part.y, len(part.X))
        result = run_from_statistics(
            statistics,
            validation=validation,
            test=None if part is None else (part.X, part.y),
            options=options,
            out=folder,
            name=file.name,
            kernel=kernel,
            class_names=() if part is None or len(part.class_names) != statistics.k else part.class_names,
            load_seconds=time.perf_counter() - start,
            progress=progress,
            say=lambda line: status.say(f"note: {line}"),
        )
        asked = result.record.criterion == "request"
        record = of_command(result.record, folder, settings, with_path=not asked, statistics=str(file))
        write_run(folder, record, result)
        tracker.outcome(record)
    show_record(record, as_json, output.print_summary)
    return status.OK


def _held_out(settings: DistillSettings) -> HeldOutRows:
    """What --validation names: a file of held-out rows, or any other source."""
    source = settings.source
    name = str(source.validation)
    if _format(Path(name)).startswith(HELD_OUT):
        return HeldOutRows.load(name)
    with about(f"--validation {name}"):
        part = load_part(name, "validation", data_dir=settings.data_dir, x=source.x_validation, y=source.y_validation)
    return HeldOutRows(part.X, part.y)


def _own_map(kernel: str) -> str | None:
    return kernel if ":" in kernel else None


def _format(file: Path) -> str:
    return str(header_of(file).get("format", ""))


def _file(flag: str, file: Path | None, kind: str) -> Path:
    """A file that may be written, before any long work; only one of its kind is replaced."""
    path = Path(str(file))
    if not path.parent.is_dir():
        raise status.UsageError(f"{flag} {path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{flag} {path}: cannot write to the folder {path.parent}")
    if path.exists() and not _format(path).startswith(kind):
        raise status.UsageError(f"{flag} {path}: there is another kind of file: give another name, or remove it")
    if path.exists():
        status.say(f"note: {path} will be replaced")
    return path


def _show(facts: StatisticsFacts, as_json: bool) -> None:
    if as_json:
        output.emit_json(to_json(facts))
    else:
        output.emit_line(facts.line())
