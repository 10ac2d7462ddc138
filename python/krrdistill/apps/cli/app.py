"""The commands. Nothing heavy is imported before one of them runs, so that help is quick."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer

from krrdistill._version import __version__
from krrdistill.apps.cli import status
from krrdistill.apps.cli.arguments import Config, Json, RegS, Session, with_options
from krrdistill.apps.cli.settings import (
    DistillSettings,
    FigureSettings,
    KipSettings,
    MergeSettings,
    PrivacySettings,
    StatisticsSettings,
    SweepSettings,
    TableSettings,
    VerifySettings,
)
from krrdistill.apps.cli.signals import Terminated
from krrdistill.apps.drawing import require_drawing

T = TypeVar("T")
Given = Mapping[str, Any]
Files = Annotated[list[Path], typer.Argument(metavar="FILE FILE...", help="Statistics files.", show_default=False)]

app = typer.Typer(
    name="krrdistill",
    help="Exact dataset distillation for kernel ridge regression.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_app(argv: Sequence[str] | None = None) -> int:
    """Run one command line; whatever goes wrong becomes one line on stderr and a status."""
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        return _run(None if argv is None else list(argv))


def _run(arguments: list[str] | None) -> int:
    session = Session(traceback=os.environ.get("KRRDISTILL_TRACEBACK", "") not in ("", "0"))
    try:
        command = typer.main.get_command(app)
        result = command.main(arguments, prog_name="krrdistill", standalone_mode=False, obj=session)
        if result == status.INTERRUPTED:  # newer parsers turn Ctrl-C into this status themselves
            raise KeyboardInterrupt
        return result if isinstance(result, int) else status.OK
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if session.traceback:
            traceback.print_exception(error)
        status.say(f"error: {status.message(error)}")
        return status.exit_status(error)


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Take the place of ``warnings.showwarning``: one line, without where in the code it came from."""
    status.say(f"warning: {' '.join(str(message).split())}")


def _resolve(kind: type[T], given: Given, config: Path | None = None) -> T:
    """Settings from arguments and configuration file; ignored keys are reported on stderr."""
    from krrdistill.apps.cli.config import resolve

    settings, notes = resolve(kind, given, config)
    for note in notes:
        status.say(f"note: {note}")
    return settings


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def krrdistill(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        names = ", ".join(str(command.name) for command in app.registered_commands)
        raise status.UsageError(f"no command given: {names} (--help shows more)")


@app.command("distill")
@with_options(DistillSettings)
def distill(given: Given, config: Config = None, reg_s: RegS = None, as_json: Json = False) -> int:
    """Compress a data set to a few samples per class that train to the same ridge model as all of it."""
    if reg_s is not None:
        if reg_s and "lambda_s" in given:
            raise status.UsageError("--reg-s and --lambda-s exclude each other: give one of them")
        given = {"lambda_s": "auto" if reg_s else "0", **given}
    settings = _resolve(DistillSettings, given, config)
    if settings.statistics is not None:
        from krrdistill.apps.cli.statistics import run_distill_statistics

        return run_distill_statistics(settings, settings.statistics, as_json=as_json)
    from krrdistill.apps.cli.run import run_distill

    return run_distill(settings, as_json=as_json)


@app.command("statistics")
@with_options(StatisticsSettings)
def statistics(given: Given, config: Config = None, as_json: Json = False) -> int:
    """Compute the statistics of a data set or shard. They can be merged, and distilled without the data."""
    settings = _resolve(StatisticsSettings, given, config)
    from krrdistill.apps.cli.statistics import run_statistics

    return run_statistics(settings, as_json=as_json)


@app.command("merge")
@with_options(MergeSettings)
def merge(files: Files, given: Given, as_json: Json = False) -> int:
    """Merge the statistics of several shards, or their files of held-out samples."""
    settings = _resolve(MergeSettings, given)
    from krrdistill.apps.cli.statistics import run_merge

    return run_merge(files, settings, as_json=as_json)


@app.command("subtract")
@with_options(MergeSettings)
def subtract(files: Files, given: Given, as_json: Json = False) -> int:
    """Remove data from statistics: subtract those of the other files from those of the first."""
    settings = _resolve(MergeSettings, given)
    from krrdistill.apps.cli.statistics import run_subtract

    return run_subtract(files, settings, as_json=as_json)


@app.command("kip")
@with_options(KipSettings)
def kip(given: Given, config: Config = None, as_json: Json = False) -> int:
    """Compress a data set by kernel inducing points (KIP), the iterative baseline. Resumes from checkpoints."""
    settings = _resolve(KipSettings, given, config)
    from krrdistill.apps.cli.kip import run_kip

    return run_kip(settings, as_json=as_json)


@app.command("verify")
@with_options(VerifySettings)
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File distilled.npz, or the folder of its run.", show_default=False)
    ],
    given: Given,
    as_json: Json = False,
) -> int:
    """Compare the model trained on a file with the original model. Exit status 3: worse than the tolerance."""
    settings = _resolve(VerifySettings, given)
    from krrdistill.apps.cli.run import run_verify

    return run_verify(file, settings, as_json=as_json)


@app.command("privacy")
@with_options(PrivacySettings)
def privacy(
    given: Given,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="File distilled.npz to audit, or the folder of its run.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Report what FILE reveals of its training data, or make a differentially private file (--mechanism)."""
    settings = _resolve(PrivacySettings, given)
    from krrdistill.apps.cli.privacy import run_privacy

    return run_privacy(file, settings, given, as_json=as_json)


@app.command("report")
@with_options()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the page report.html of a run again."""
    require_drawing()
    from krrdistill.apps.cli.pages import write_report

    write_report(folder, as_json=as_json)


@app.command("compare")
@with_options()
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...", help="Folders of runs, or a folder that contains them.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write the comparison as a page.", metavar="FILE.html", show_default=False),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            help="Field to sort by, as --json names it, for example seconds.total.",
            metavar="FIELD",
            show_default="data set, kernel, ZCA, realism, samples per class, seed",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Compare runs in a table: options that differ, accuracy, exactness, time."""
    require_drawing()
    from krrdistill.apps.cli.pages import compare_runs

    return compare_runs(folders, out=out, sort=sort, as_json=as_json)


@app.command("sweep")
@with_options(SweepSettings)
def sweep(given: Given, config: Config = None, as_json: Json = False) -> int:
    """Distil a data set with many combinations of options; writes a table and plots."""
    settings = _resolve(SweepSettings, given, config)
    require_drawing()
    from krrdistill.apps.cli.sweep import run_sweep

    return run_sweep(settings, as_json=as_json)


@app.command("reproduce")
@with_options(TableSettings, FigureSettings)
def reproduce(
    what: Annotated[
        str,
        typer.Argument(metavar="table3|table4|figures", help="Published table, or the figures.", show_default=False),
    ],
    given: Given,
    as_json: Json = False,
) -> int:
    """Reproduce a table of the paper, next to its published values, or draw its figures. Tables can be resumed."""
    require_drawing()
    from krrdistill.apps.cli.reproduce import run_reproduce

    return run_reproduce(what, given, as_json=as_json)


@app.command("info")
@with_options()
def info(as_json: Json = False) -> None:
    """Show the installation: backends, instruction set, BLAS, threads, optional libraries, and what is missing."""
    from krrdistill.apps.cli.output import emit_json, print_info
    from krrdistill.apps.info import gather

    facts = gather()
    if as_json:
        emit_json(facts)
    else:
        print_info(facts)
