"""What the command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krrdistill.apps.cli.status import say
from krrdistill.apps.text import number, percent, shown_device, visible
from krrdistill.artifact.record import plain
from krrdistill.options import shown_points

if TYPE_CHECKING:
    from rich.table import Table

    from krrdistill.apps.report.compare import Comparison
    from krrdistill.apps.reproduce.sections import Publication
    from krrdistill.artifact.record import CertificateNumbers, KipRecord, RunRecord, Score, Verification
    from krrdistill.common.progress import Listener


def emit_json(document: Mapping[str, Any]) -> None:
    """Print the one JSON object of a ``--json`` run."""
    print(to_json(document), flush=True)


def emit_line(text: str) -> None:
    """Print one line on stdout, whatever it holds."""
    print(visible(text))


def to_json(document: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON text of ``document``; see ``plain``."""
    return json.dumps(plain(document), indent=indent, allow_nan=False)


_WIDEST = 1000  # letters of a line of a table that is never folded


@contextmanager
def stage_progress(*, tracker: Listener | None = None, overall: str | None = None) -> Iterator[Listener]:
    """What shows the stages while the block runs, on stderr: bars on a terminal, else lines.

    tracker : hears the same
    overall : a stage that all others are parts of: they come again and again while it lasts
    """
    from krrdistill.apps.cli.progress import Listeners, StageBars, StageLines, ticking

    others = () if tracker is None else (tracker,)
    if not sys.stderr.isatty():
        lines = StageLines(say, overall)
        with ticking(lines):
            yield Listeners(lines, *others)
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("expected"),
        TimeRemainingColumn(),
    )
    bars, line = Progress(*columns), Text()
    with Live(Group(bars, line), console=Console(stderr=True), transient=True):
        yield Listeners(StageBars(bars, line, overall), *others)


def print_summary(record: RunRecord) -> None:
    """The original model beside the one retrained from the file, and what the file holds."""
    emit_line(
        f"{record.dataset}, {record.kernel}: {record.training} distilled to {record.m} "
        f"({shown_points(record.ipc)} per class, d = {record.d}, p = {record.p}, seed {record.seed})"
    )
    table = _comparison(record.original, record.distilled, record.certificate, ("original", "distilled"))
    original, distilled = record.original.mean_r2, record.distilled.mean_r2
    if original is None:
        if record.val_accuracy is not None or record.n_test:
            table.add_row("validation accuracy", percent(record.val_accuracy), "")
    else:
        table.add_row("mean test R\N{SUPERSCRIPT TWO} of the targets", percent(original), percent(distilled))
    table.add_row("lambda", number(record.lambda_), number(record.lambda_s))
    if record.realism.psnr is not None:
        table.add_row("PSNR to the real samples (dB)", "", f"{record.realism.psnr:.2f}")
    _show(table)
    _print_solution(record)
    _print_time(record)
    _print_files(record.artifact, record.figure, record.lambda_path_figure, record.report, record.page)


def _print_solution(record: RunRecord) -> None:
    """Where inputs are no exact preimages: what they are, and for labels only how the error falls with m."""
    solution, curve = record.solution, record.labels_only
    if solution is not None and solution.method == "approximate":
        emit_line(f"the map has no exact preimage: inputs are approximate, after {solution.steps} steps")
    if curve is not None:
        pairs = zip(curve.m, curve.weight_relative_error, strict=True)
        errors = ", ".join(f"{number(error, digits=2)} (m = {m})" for m, error in pairs)
        emit_line(f"real inputs with learned labels, p = {record.p}; weight error {errors}")


def print_kip_summary(record: KipRecord) -> None:
    """The original model beside the best and the last iteration of KIP."""
    emit_line(
        f"{record.dataset}, {record.kernel}: {record.training} distilled to {record.m} by KIP "
        f"({record.variant}, {shown_points(record.ipc)} per class, p = {record.p}, seed {record.seed})"
    )
    table = _table("", "original", "best by validation", "last")
    ends = (record.best, record.last)
    table.add_row("iteration", "", *(str(end.iteration) for end in ends))
    table.add_row("test accuracy", *(percent(end.test_accuracy) for end in (record.original, *ends)))
    table.add_row("validation accuracy", percent(record.val_accuracy), *(percent(end.val_accuracy) for end in ends))
    table.add_row("loss per training sample", "", *(number(end.train_loss) for end in ends))
    table.add_row("lambda", number(record.lambda_), number(record.lambda_s))
    _show(table)
    if record.resumed_from:
        emit_line(f"went on from the checkpoint at iteration {record.resumed_from}")
    where = "" if record.device is None else f" on {shown_device(record.device)}"
    emit_line(f"{1e3 * record.seconds_per_iteration:.2f} ms per iteration{where}")
    _print_time(record)
    _print_files(record.artifact, record.last_artifact, record.curve, record.figure, record.report, record.page)


def print_privacy(report: Mapping[str, Any]) -> None:
    """Findings first, then every condition and every limit, in full."""
    emit_line(f"{report.get('artifact', report['dataset'])}: privacy (data set {report['dataset']})")
    if "reconstruction" in report:
        found, near = report["reconstruction"], report["neighbours"]
        emit_line(
            f"W rebuilt from the file alone: relative error {number(found['relative_error'])}, "
            f"test accuracy {percent(found['test_accuracy'])}"
        )
        table = _table("distance to the nearest training sample (RMS per entry)", "distilled", "held-out")
        for name in ("median", "minimum"):
            table.add_row(name, number(near[name]), number(near[f"baseline_{name}"]))
        _show(table)
        emit_line(f"{percent(near['near_share'])} are nearer than 95 % of held-out samples are; fresh data: 5 %")
    if "theorem" in report:
        _print_theorem(report["theorem"], report)
    if "release" in report:
        _print_release(report)
    emit_line("limits")
    for limit in report["limits"]:
        emit_line(f"  {limit}")
    if "page" in report:
        emit_line(f"wrote {report['page']}")


def _print_theorem(theorem: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    verdict = "applies" if theorem["holds"] else "DOES NOT APPLY"
    sigma = "none" if theorem["sigma"] is None else number(theorem["sigma"])
    emit_line(
        f"Theorem 6.2 {verdict}: sigma of Z for epsilon {report['epsilon']:g}, delta {report['delta']:g}: {sigma}"
    )
    for condition in theorem["conditions"]:
        emit_line(f"  {'holds   ' if condition['holds'] else 'VIOLATED'} {condition['name']}: {condition['statement']}")


def _print_release(report: Mapping[str, Any]) -> None:
    release = report["release"]
    emit_line(
        f"private release, mechanism {release['mechanism']}: epsilon {release['epsilon']:g}, delta "
        f"{release['delta']:g}, B {number(release['norm_bound'])}, lambda {number(release['lambda'])}, noise "
        f"{number(release['noise_std'])} (sensitivity {number(release['sensitivity'])})"
    )
    if release.get("total_epsilon") is not None:
        emit_line(
            f"with all {release['releases']} releases of the ledger: epsilon {release['total_epsilon']:.4g}, delta "
            f"{release['delta']:g} (rho {number(release['total_rho'])})"
        )
    if "private" in report:
        emit_line(f"test accuracy of the private model: {percent(report['private']['test_accuracy'])}")
        emit_line(f"wrote {Path(report['artifact']).name} to {Path(report['artifact']).parent}")


def _print_time(record: RunRecord) -> None:
    parts = ", ".join(f"{stage} {value:.2f}" for stage, value in record.stages.items())
    emit_line(f"{record.seconds['total']:.2f} s with the {record.backend} backend ({parts})")


def _print_files(*paths: str | None) -> None:
    files = [Path(path) for path in paths if path is not None]
    emit_line(f"wrote {', '.join(file.name for file in files)} to {files[0].parent}")


def print_certificate(outcome: Verification) -> None:
    """A recomputed certificate and whether it is within the tolerance."""
    compared = f"on {outcome.dataset}" if outcome.statistics is None else f"with the model of {outcome.statistics}"
    emit_line(f"{outcome.artifact}, retrained and compared {compared}")
    tested = outcome.certificate.prediction_agreement is not None
    columns = ("original", "distilled") if tested else ("distilled",)
    _show(_comparison(outcome.original, outcome.distilled, outcome.certificate, columns))
    error, limit = outcome.certificate.weight_relative_error, outcome.tolerance
    verdict = "is within" if outcome.passed else "EXCEEDS"
    emit_line(f"relative weight error {number(error)} {verdict} the tolerance {limit:g}")


def _comparison(original: Score, distilled: Score, certificate: CertificateNumbers, columns: tuple[str, ...]) -> Table:
    """Rows that a run and a verification share; of the certificate the last of the columns holds the numbers."""
    table, blank = _table("", *columns), [""] * (len(columns) - 1)
    if certificate.prediction_agreement is not None:  # there was a test set
        table.add_row("test accuracy", percent(original.test_accuracy), percent(distilled.test_accuracy))
        table.add_row("predictions that agree", "", percent(certificate.prediction_agreement))
    table.add_row("relative weight error", *blank, number(certificate.weight_relative_error))
    table.add_row("cosine of the weights", *blank, number(certificate.weight_cosine, digits=10))
    table.add_row("condition number", *blank, number(certificate.condition))
    return table


def _table(first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="bold")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on stderr while the block runs; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def print_comparison(found: Comparison) -> None:
    """What the runs have alike, and then a row for each; on a terminal no line is wider than it."""
    from rich.console import Console

    from krrdistill.apps.cli.table import TextColumn, fitted

    console = Console()
    width = console.width if console.is_terminal else None
    common = ", ".join(f"{name} {value}" for name, value in found.common)
    if common:
        _print_wrapped(f"the same in all runs: {common}", width)
    columns = [TextColumn("run", [*map(visible, found.names)], left=True)]
    for column in found.columns:
        cells = [*map(visible, column.cells)]
        columns.append(TextColumn(column.fact.name, cells, rank=column.fact.rank, left=column.is_text))
    table = fitted(columns, width)
    for line in table.lines():
        emit_line(line)
    if table.left_out:
        names = "; ".join(column.heading for column in table.left_out)
        _print_wrapped(f"no room for: {names} (a wider terminal, --out or --json shows them)", width)
    if found.inexact:
        _print_wrapped(f"NOT EXACT: {', '.join(found.inexact)}", width)


def _print_wrapped(text: str, width: int | None) -> None:
    lines = [text] if width is None else textwrap.wrap(visible(text), width, break_on_hyphens=False)
    for line in lines:
        emit_line(line)


def print_sections(publication: Publication, *, names: Sequence[str]) -> None:
    """The verdict and the tables of some sections of what there is to read."""
    emit_line(publication.title)
    for section in publication.sections:
        if section.name in names:
            table = _table(section.head[0], *section.head[1:])
            for row in section.rows:
                table.add_row(*map(visible, row))
            _show(table, width=_WIDEST)
    emit_line(publication.verdict)


def _show(table: Table, *, width: int | None = None) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False, soft_wrap=True, width=width).print(table)


def print_info(facts: Mapping[str, Any]) -> None:
    """The facts of ``krrdistill.apps.info.gather``, one a line; what is missing with its remedy."""
    emit_line(f"krrdistill {facts['version']} on {facts['python']}, {facts['platform']}")
    emit_line(f"NumPy {facts['numpy']}, SciPy {facts['scipy']}")
    emit_line(f"CPUs: {facts['usable_cpus']} usable of {facts['cpus']}")
    emit_line("backends")
    for name, backend in facts["backends"].items():
        detail = backend["detail"]
        if isinstance(detail, Mapping):
            detail = ", ".join(f"{key} {_words(value)}" for key, value in detail.items())
        _print_item(name, backend["available"], detail, backend["remedy"])
    _print_item("torch", facts["torch"]["available"], facts["torch"]["detail"], facts["torch"]["install"])
    emit_line("linear algebra and thread pools")
    for pool in facts["blas"]:
        known = [pool[key] for key in ("version", "architecture") if pool[key]]
        emit_line(f"  {' '.join([pool['library'], *known])}, {pool['threads']} threads ({pool['file']})")
    emit_line("extras")
    for name, extra in facts["extras"].items():
        if name in facts["backends"]:  # which says it already
            continue
        detail = f"missing {', '.join(extra['missing'])}" if extra["missing"] else ""
        _print_item(name, extra["available"], detail, extra["install"])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _print_item(name: str, available: bool, detail: str, remedy: str | None) -> None:
    parts = [
        "yes" if available else "no",
        detail,
        f"get it with: {remedy}" if remedy and not available else "",
    ]
    emit_line(f"  {name:<10} {'; '.join(part for part in parts if part)}")
