"""The commands. Nothing heavy is imported before one of them runs, so that help is quick."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer

from krrdistill._version import __version__
from krrdistill.apps.cli import options, status
from krrdistill.apps.cli.output import emit_json, print_info, say

app = typer.Typer(
    name="krrdistill",
    help="Exact dataset distillation for kernel ridge regression.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_NOT_OF_TABLES = ("table", "data_dir", "out", "as_json", "show_traceback")


def run_app(argv: Sequence[str] | None = None) -> int:
    """Run one command line; whatever goes wrong becomes one line on stderr and a status."""
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        return _run(None if argv is None else list(argv))


def _run(arguments: list[str] | None) -> int:
    session = options.Session(traceback=os.environ.get("KRRDISTILL_TRACEBACK", "") not in ("", "0"))
    try:
        command = typer.main.get_command(app)
        result = command.main(arguments, prog_name="krrdistill", standalone_mode=False, obj=session)
        if result == status.INTERRUPTED:  # newer parsers turn Ctrl-C into this status themselves
            raise KeyboardInterrupt
        return result if isinstance(result, int) else status.OK
    except (Exception, KeyboardInterrupt) as error:
        if session.traceback:
            traceback.print_exception(error)
        say(f"error: {status.message(error)}")
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
    say(f"warning: {' '.join(str(message).split())}")


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
        raise status.UsageError(
            "no command given: distill, kip, verify, privacy, report, compare, reproduce or info (--help shows more)"
        )


@app.command("distill")
def distill(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    config: options.Config = None,
    out: options.Out = None,
    kernel: options.Kernel = None,
    hidden_layer: options.HiddenLayer = None,
    widths: options.Widths = None,
    n_features: options.NFeatures = None,
    sigma2: options.Sigma2 = None,
    spectral: options.Spectral = None,
    nu: options.Nu = None,
    zca: options.Zca = None,
    lambdas: options.Lambdas = None,
    refit: options.Refit = False,
    ipc: options.Ipc = None,
    init: options.Init = None,
    channels: options.Channels = None,
    kernel_size: options.KernelSize = None,
    stride: options.Stride = None,
    padding: options.Padding = None,
    labels_only: options.LabelsOnly = False,
    strict: options.Strict = False,
    reg_s: options.RegS = None,
    lambda_s: options.LambdaS = None,
    realism: options.Realism = None,
    targets: options.Targets = "classes",
    intercept: options.Intercept = False,
    center_targets: options.CenterTargets = False,
    lambda_per_target: options.LambdaPerTarget = False,
    root: options.Root = "plus",
    scale_labels: options.ScaleLabels = False,
    store: options.Store = "float64",
    include_weights: options.IncludeWeights = False,
    embed_map: options.EmbedMap = None,
    seed: options.Seed = None,
    precision: options.Precision = "float32",
    backend: options.Backend = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Compress a labelled data set to a few samples per class that retrain to the same ridge model."""
    given = dict(locals())
    from krrdistill.apps.cli.config import resolve
    from krrdistill.apps.cli.run import distill as run_distill

    for switch in ("config", "as_json", "show_traceback"):
        del given[switch]
    settings, notes = resolve(given, config)
    for note in notes:
        say(f"note: {note}")
    raise typer.Exit(run_distill(settings, as_json=as_json))


@app.command("kip")
def kip(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    config: options.Config = None,
    out: options.Out = None,
    kernel: options.Kernel = None,
    hidden_layer: options.HiddenLayer = None,
    widths: options.Widths = None,
    n_features: options.NFeatures = None,
    sigma2: options.Sigma2 = None,
    spectral: options.Spectral = None,
    nu: options.Nu = None,
    zca: options.Zca = None,
    lambdas: options.Lambdas = None,
    ipc: options.Ipc = None,
    init: options.KipInit = None,
    embed_map: options.EmbedMap = None,
    variant: options.Variant = None,
    warm_start: options.WarmStart = False,
    iterations: options.Iterations = None,
    lr: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    time_budget: options.TimeBudget = None,
    evaluate_every: options.EvaluateEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    seed: options.Seed = None,
    precision: options.Precision = "float32",
    backend: options.Backend = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Compress a data set by kernel inducing points, the iterative baseline; resumes from its checkpoint."""
    given = dict(locals())
    from krrdistill.apps.cli.config import KipSettings, resolve_as
    from krrdistill.apps.cli.kip import kip as run_kip

    for switch in ("config", "as_json", "show_traceback"):
        del given[switch]
    settings, notes = resolve_as(KipSettings, given, config)
    for note in notes:
        say(f"note: {note}")
    raise typer.Exit(run_kip(settings, as_json=as_json))


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A distilled.npz.", show_default=False)],
    dataset: options.VerifyDataset = None,
    data_dir: options.DataDir = None,
    kernel: options.VerifyKernel = None,
    tolerance: options.Tolerance = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Reload a distilled file, recompute its certificate; exit with 3 when it is worse than the tolerance."""
    from krrdistill.apps.cli.run import verify as run_verify

    outcome = run_verify(file, dataset=dataset, data_dir=data_dir, kernel=kernel, tolerance=tolerance, as_json=as_json)
    raise typer.Exit(outcome)


@app.command("privacy")
def privacy(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A distilled.npz to audit.", show_default=False)
    ] = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    epsilon: options.Epsilon = None,
    delta: options.Delta = None,
    norm_bound: options.NormBound = None,
    secret_labels: options.SecretLabels = False,
    mechanism: options.Mechanism = None,
    model_lambda: options.ModelLambda = None,
    out: options.Out = None,
    kernel: options.Kernel = None,
    hidden_layer: options.HiddenLayer = None,
    n_features: options.NFeatures = None,
    sigma2: options.Sigma2 = None,
    ipc: options.Ipc = None,
    store: options.PrivateStore = None,
    seed: options.MapSeed = None,
    backend: options.Backend = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Say what FILE reveals, what noise Theorem 6.2 asks for, or (--mechanism) make a differentially private file."""
    given = dict(locals())
    from krrdistill.apps.cli.config import PrivacySettings, resolve_as
    from krrdistill.apps.cli.privacy import privacy as run_privacy

    for switch in ("file", "as_json", "show_traceback"):
        del given[switch]
    settings, _ = resolve_as(PrivacySettings, given)
    raise typer.Exit(run_privacy(file, settings, given, as_json=as_json))


@app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Write the page of a run, report.html, again from what its folder holds."""
    from krrdistill.apps.cli.pages import write_report

    write_report(folder, as_json=as_json)


@app.command("compare")
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs.", show_default=False)],
    out: options.ComparePage = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Show runs side by side: what they were asked, how exact they are, what they took."""
    from krrdistill.apps.cli.pages import compare_runs

    compare_runs(folders, out=out, as_json=as_json)


@app.command("reproduce")
def reproduce(
    table: Annotated[str, typer.Argument(metavar="table3|table4", help="The published table.", show_default=False)],
    datasets: options.Datasets = None,
    kernels: options.Kernels = None,
    ipcs: options.Ipcs = None,
    seeds: options.Seeds = None,
    methods: options.Methods = None,
    kip_iterations: options.KipIterations = None,
    time_budget: options.CellBudget = None,
    data_dir: options.DataDir = None,
    out: options.TableFolder = None,
    backend: options.Backend = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    show_traceback: options.Traceback = False,
) -> None:
    """Make a published table again: every cell on its own data, finished cells are kept, published figures beside."""
    given = {name: value for name, value in locals().items() if name not in _NOT_OF_TABLES}
    from krrdistill.apps.cli.reproduce import reproduce as run_reproduce

    raise typer.Exit(run_reproduce(table, given, data_dir=data_dir, out=out, as_json=as_json))


@app.command("info")
def info(as_json: options.Json = False, show_traceback: options.Traceback = False) -> None:
    """Show backends, instruction set, BLAS, threads and extras; what is missing and how to get it."""
    from krrdistill.apps.info import gather

    facts = gather()
    if as_json:
        emit_json(facts)
    else:
        print_info(facts)
