"""What a run was asked to do: the settings of each command, and the command line that repeats a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from krrdistill.apps.kip.iteration import KipOptions
from krrdistill.apps.naming import fitting, run_name, sweep_name
from krrdistill.apps.privacy.budget import PRIVACY, ReleaseOptions
from krrdistill.apps.reproduce.selection import FigureOptions, ReproduceOptions
from krrdistill.apps.sweep.grid import SweepOptions
from krrdistill.apps.tracking import TRACKERS, require_tracker
from krrdistill.common.documents import at_home
from krrdistill.common.options import as_words, check_options, declared_options, differing, group, option, option_of
from krrdistill.options import (
    DATASETS,
    LAYOUTS,
    MODEL,
    NAMED,
    TARGETS,
    DistillOptions,
    MapOptions,
    is_object_name,
    is_source_name,
)

__all__ = [
    "DistillSettings",
    "FigureSettings",
    "KipSettings",
    "MergeSettings",
    "PrivacySettings",
    "RunSettings",
    "SourceOptions",
    "StatisticsSettings",
    "SweepSettings",
    "TableSettings",
    "UsageError",
    "VerifySettings",
    "check_together",
    "command_line",
    "verify_line",
]

FILES = "Files"  # panel of the help
_ALWAYS_NAMED = (
    *("dataset", "statistics", *NAMED),
    *("variant", "mechanism", "epsilon"),  # of KIP, and of a private release
)
ONLY_CLASSES = "What y holds: class labels. Real values are refused."


class UsageError(Exception):
    """What the user asked for cannot be meant: an option, a file name or a key of a configuration file."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where the parts of a data set are, for files and folders of one's own; None leaves it to ``load_dataset``."""

    x: str | None = option(
        None,
        "Columns that hold the samples, separated by commas; or the key of an array in an .npz file.",
        metavar="COLUMN[,COLUMN]",
        default_text="all columns but those of the labels",
        panel=FILES,
    )
    y: str | None = option(
        None,
        "Column that holds the labels; or a key in an .npz file; or the .npy file with the labels.",
        metavar="COLUMN",
        default_text="the column label, labels, target or y; the usual key of an .npz file",
        panel=FILES,
    )
    test: str | None = option(None, "Test set: another file or folder.", metavar="SOURCE", panel=FILES)
    x_test: str | None = option(
        None,
        "Columns that hold the samples of the test set, or their key.",
        metavar="COLUMN[,COLUMN]",
        default_text="same as --x",
        panel=FILES,
    )
    y_test: str | None = option(
        None,
        "Column that holds the labels of the test set, or their key.",
        metavar="COLUMN",
        default_text="same as --y",
        panel=FILES,
    )
    validation: str | None = option(
        None, "Validation set to choose lambda on, instead of a hold-out.", metavar="SOURCE", panel=FILES
    )
    x_validation: str | None = option(
        None,
        "Columns that hold the samples of the validation set, or their key.",
        metavar="COLUMN[,COLUMN]",
        default_text="same as --x",
        panel=FILES,
    )
    y_validation: str | None = option(
        None,
        "Column that holds the labels of the validation set, or their key.",
        metavar="COLUMN",
        default_text="same as --y",
        panel=FILES,
    )
    test_fraction: float | None = option(
        None,
        "Fraction of every class to set apart as test set, if there is none.",
        above=0,
        below=1,
        panel=FILES,
    )

    layout: str | None = option(
        None,
        "Axis of the channels in image arrays: last (NHWC) or first (NCHW).",
        choices=LAYOUTS,
        default_text="NHWC; required if the shape is ambiguous",
        panel=FILES,
    )

    def __post_init__(self) -> None:
        check_options("data", self)


def check_source(dataset: str) -> None:
    """Raises UsageError for a file or folder that does not exist."""
    if dataset not in DATASETS and not at_home(dataset.removeprefix("hf:")).exists():
        raise UsageError(f"--dataset: no such file or folder: {dataset}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run says besides the options of its method: the data, the map, and where its files go."""

    command: ClassVar[str]

    dataset: str = option(
        "digits",
        "Data set: {choices}, a file, or a folder (see docs/guide/data.md).",
        choices=DATASETS,
        accepts=is_source_name,
        metavar="NAME|FILE|FOLDER|hf:PATH",
        panel=FILES,
        key="data.dataset",
    )
    data_dir: Path | None = option(
        None,
        "Folder with the files of the named data sets.",
        metavar="DIR",
        default_text="$KRRDISTILL_DATA, otherwise data",
        panel=FILES,
        in_files=False,
        names_run=False,
    )
    download: bool = option(
        False, "Download missing files of a named data set.", panel=FILES, in_files=False, names_run=False
    )
    out: Path | None = option(
        None,
        "Output folder.",
        metavar="DIR",
        default_text="runs/<name made from the options>",
        panel=FILES,
        in_files=False,
        names_run=False,
    )
    source: SourceOptions = field(default_factory=SourceOptions)
    map_options: MapOptions = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        check_options(self.command, self)
        check_source(self.dataset)

    @property
    def asked(self) -> dict[str, str]:
        """What tells this run from others, besides what names and titles of all runs have."""
        return differing(self, never=_ALWAYS_NAMED)

    def _folder(self, options: Any, init: str, suffix: str = "", name: str | None = None) -> Path:
        """``--out``, or a name made of what distinguishes the run; ``name`` in place of data and map."""
        if self.out is not None:
            return self.out
        parts = [Path(self.dataset.removeprefix("hf:")).stem, self.map_options.kernel] if name is None else [name]
        source = "_".join(map(fitting, parts))
        return Path("runs", run_name(source, options.points_per_class, init, self.asked, options.seed) + suffix)


@dataclass(frozen=True, kw_only=True)
class DistillSettings(RunSettings):
    """One run of ``krrdistill distill``."""

    command = "distill"

    zca: bool = option(
        False, "Whiten the inputs (ZCA) instead of standardising them.", panel=MODEL, key="data.zca_whiten"
    )
    targets: str | None = option(
        None,
        "What y holds: class labels, or real values (columns of 0 and 1 for several labels a sample).",
        choices=TARGETS,
        default_text="inferred from the type of y; whole-numbered floats are refused",
        panel=MODEL,
    )
    statistics: Path | None = option(
        None,
        "Distil a statistics file, not a data set. Needs --validation, --selection gcv or one value of --lambdas.",
        metavar="FILE",
        panel=FILES,
    )
    overwrite: bool = option(
        False, "Replace an earlier run in the output folder.", panel=FILES, in_files=False, names_run=False
    )
    log_to: str | None = option(
        None,
        "Experiment tracker that also gets options, progress and results: {choices}.",
        choices=tuple(TRACKERS),
        default_text="none",
        panel=FILES,
        names_run=False,
    )
    options: DistillOptions = field(default_factory=DistillOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tracker(self.log_to)
        if self.statistics is None:
            return
        if self.options.start == "real":
            raise UsageError("--init real, --realism and --labels-only take real samples, --statistics has none")
        by_samples, one = self.options.selection != "gcv", len(self.options.lambdas or ()) == 1
        if by_samples and self.source.validation is None and not one:
            raise UsageError(
                "--statistics needs what lambda is chosen by: --validation FILE of held-out rows, --selection gcv, or "
                "one of --lambdas"
            )
        if not by_samples and self.source.validation is not None:
            raise UsageError("--selection gcv chooses lambda without held-out samples, it takes no --validation")

    @property
    def folder(self) -> Path:
        """Where the files of the run go."""
        name = None if self.statistics is None else self.statistics.stem
        return self._folder(self.options, self.options.start, name=name)


@dataclass(frozen=True, kw_only=True)
class StatisticsSettings:
    """One run of ``krrdistill statistics``."""

    dataset: str = option_of(
        RunSettings,
        "dataset",
        text="Data set: {choices}, a file or a folder. The training part is used, or all if there are no parts.",
    )
    data_dir: Path | None = option_of(RunSettings, "data_dir")
    download: bool = option_of(RunSettings, "download")
    x: str | None = option_of(SourceOptions, "x")
    y: str | None = option_of(SourceOptions, "y")
    layout: str | None = option_of(SourceOptions, "layout")
    out: Path | None = option(None, "Statistics file to write.", metavar="FILE.npz", panel=FILES, in_files=False)
    held_out: Path | None = option(
        None,
        "Hold samples out to choose lambda later, and write them to this file (for distill --validation).",
        metavar="FILE.npz",
        default_text="nothing is held out",
        panel=FILES,
        in_files=False,
    )
    like: Path | None = option(
        None,
        "Statistics file of another shard: use its map, scaling, classes and precision, so that both can be merged.",
        metavar="FILE.npz",
        panel=FILES,
    )
    shard: str | None = option(
        None,
        "Name of this shard. Statistics that share a shard are not merged, so nothing is counted twice.",
        default_text="a digest of the sums",
        panel=FILES,
    )
    classes: Sequence[str] | None = option(
        None,
        "Number of classes, or all labels separated by commas, for a shard in which some do not occur.",
        metavar="K|LABEL,LABEL,..",
        default_text="those of --like, otherwise those that occur",
        panel=MODEL,
    )
    targets: str | None = option_of(DistillSettings, "targets")
    zca: bool = option_of(DistillSettings, "zca")
    map_options: MapOptions = field(default_factory=MapOptions)
    validation_fraction: float = option_of(
        DistillOptions, "validation_fraction", text="Fraction of the samples that --held-out sets apart."
    )
    stratify: bool = option_of(DistillOptions, "stratify")
    seed: int = option_of(DistillOptions, "seed")
    precision: str = option_of(DistillOptions, "precision")
    backend: Any = option_of(DistillOptions, "backend")
    threads: int | None = option_of(DistillOptions, "threads")

    def __post_init__(self) -> None:
        check_options("statistics", self)
        check_source(self.dataset)
        if self.out is None:
            raise UsageError("statistics needs --out FILE.npz")
        if self.held_out is not None and self.held_out.resolve() == self.out.resolve():
            raise UsageError("--out and --held-out name one file")
        if self.like is not None and self.like.resolve() == self.out.resolve():
            raise UsageError("--out would replace the statistics of --like: name another file, and merge both")


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """What ``krrdistill merge`` and ``subtract`` are told besides their files."""

    out: Path | None = option(None, "File to write.", metavar="FILE.npz")
    classes: int | None = option(
        None,
        "Number of classes of the result, if some files have fewer. New labels are added without it.",
        minimum=1,
        metavar="K",
    )
    kernel: str | None = option(
        None,
        "Your own feature map, if the files were made with one; files never load code by themselves.",
        metavar="PACKAGE.MODULE:OBJECT",
    )

    def __post_init__(self) -> None:
        check_options("merge", self)
        if self.out is None:
            raise UsageError("--out FILE.npz is missing")


@dataclass(frozen=True, kw_only=True)
class KipSettings(RunSettings):
    """One run of ``krrdistill kip``."""

    command = "kip"

    zca: bool = option_of(DistillSettings, "zca")
    targets: str | None = option_of(DistillSettings, "targets", text=ONLY_CLASSES, choices=("classes",))
    log_to: str | None = option_of(DistillSettings, "log_to")
    options: KipOptions = field(default_factory=KipOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tracker(self.log_to)

    @property
    def folder(self) -> Path:
        """Where the files of the run go."""
        return self._folder(self.options, self.options.init, f"_kip_{self.options.variant}")


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(RunSettings):
    """One run of ``krrdistill privacy``; a mechanism makes it a private release."""

    command = "privacy"

    targets: str | None = option_of(DistillSettings, "targets", text=ONLY_CLASSES, choices=("classes",))
    secret_labels: bool = option(
        False, "Assume that the labels of the distilled set stay secret (Theorem 6.2).", panel=PRIVACY
    )
    options: ReleaseOptions = field(default_factory=ReleaseOptions)

    @property
    def folder(self) -> Path:
        """Where the files of a release go."""
        epsilon = self.options.budget.epsilon
        return self._folder(self.options, "noise", f"_private_{self.options.mechanism}_epsilon{epsilon:g}")


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """One run of ``krrdistill reproduce table3|table4``."""

    data_dir: Path | None = option_of(RunSettings, "data_dir")
    download: bool = option_of(RunSettings, "download")
    out: Path | None = option_of(
        RunSettings, "out", text="Output folder. Finished cells of a table in it are kept.", default_text="runs/WHAT"
    )
    options: ReproduceOptions = field(default_factory=ReproduceOptions)


_AXES = {
    "kernel": "kernels",
    "points_per_class": "ipcs",
    "seed": "seeds",
    "lambda_s": "lambda_s",
    "init": "init",
}


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """One run of ``krrdistill sweep``: what its cells differ in, and the settings that all of them share."""

    command: ClassVar[str] = "sweep"

    grid: SweepOptions = field(default_factory=SweepOptions)
    run: DistillSettings = group(DistillSettings, axes=_AXES, without=("statistics", "overwrite", "log_to"))

    @property
    def folder(self) -> Path:
        """Where the files of the sweep go; the same request finds its folder again."""
        if self.run.out is not None:
            return self.run.out
        data = fitting(Path(self.run.dataset.removeprefix("hf:")).stem)
        asked = differing(self, never=("dataset",))
        return Path("runs", sweep_name(data, asked))

    def of_cell(self, kernel: str, map_options: Mapping[str, Any], options: DistillOptions) -> DistillSettings:
        """The settings of ``krrdistill distill`` that make one cell."""
        return replace(self.run, out=None, map_options=MapOptions(kernel=kernel, **map_options), options=options)


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """One run of ``krrdistill reproduce figures``."""

    data_dir: Path | None = option_of(RunSettings, "data_dir")
    download: bool = option_of(RunSettings, "download")
    out: Path | None = option_of(TableSettings, "out")
    options: FigureOptions = field(default_factory=FigureOptions)


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What ``krrdistill verify`` is told besides its file."""

    dataset: str | None = option_of(
        RunSettings,
        "dataset",
        default=None,
        text="Data set that the file was made from (name, file or folder), if the file does not name it.",
    )
    statistics: Path | None = option(
        None, "Statistics that the file was made from, instead of the data.", metavar="FILE", panel=FILES
    )
    source: SourceOptions = field(default_factory=SourceOptions)
    data_dir: Path | None = option_of(RunSettings, "data_dir")
    download: bool = option_of(RunSettings, "download")
    kernel: str | None = option(
        None,
        "Your own feature map, if the file was made with one; files never load code by themselves.",
        metavar="PACKAGE.MODULE:OBJECT",
        panel=MODEL,
    )
    tolerance: float | None = option(
        None,
        "Largest relative error of the weights that passes.",
        minimum=0,
        default_text="1e-6; 1e-4 if float32 statistics are computed again; 1e-2 for smaller number formats",
    )


def command_line(settings: RunSettings | SweepSettings) -> list[str]:
    """The words that ask for ``settings`` again: the data set and every option that differs from its default."""
    always = () if getattr(settings, "statistics", None) is not None else ("dataset",)
    return ["krrdistill", settings.command, *as_words(settings, always=always)]


def verify_line(settings: DistillSettings | KipSettings, folder: Path) -> list[str]:
    """The words that verify the file of the run in ``folder``, from where the run was started."""
    statistics, kernel = getattr(settings, "statistics", None), settings.map_options.kernel
    asked = VerifySettings(
        dataset=None if settings.dataset in DATASETS else settings.dataset,
        statistics=statistics,
        source=settings.source,
        data_dir=settings.data_dir,
        kernel=kernel if is_object_name(kernel) else None,
    )
    said = () if statistics is None else _ALREADY_SAID[VerifySettings][1]
    return ["krrdistill", "verify", str(folder), *as_words(asked, never=said)]


_OF_MAP = tuple(each.name for each in declared_options(MapOptions))
_OF_DATA = ("dataset", "x", "y", "test_fraction", "layout")
_OF_MODEL = ("targets", "zca", "precision", *_OF_MAP)
# Of a command: the option that says already what the others say.
_ALREADY_SAID: Mapping[type, tuple[str, tuple[str, ...]]] = {
    DistillSettings: ("statistics", (*_OF_DATA, *_OF_MODEL, "validation_fraction", "stratify", "refit")),
    StatisticsSettings: ("like", _OF_MODEL),
    VerifySettings: ("statistics", (*_OF_DATA, "validation", "x_validation", "y_validation")),
}


def check_together(kind: type, values: Mapping[str, Any]) -> None:
    """Raises UsageError where options, by the names of their fields, say twice what only one of them can."""
    leader, others = _ALREADY_SAID.get(kind, ("", ()))
    if values.get(leader) is None:
        return
    for each in declared_options(kind):
        own_map = each.name == "kernel" and is_object_name(str(values.get("kernel")))  # which no file can hold
        if each.name in others and each.name in values and not own_map:
            raise UsageError(f"--{leader} and {each.flag} exclude each other: {values[leader]} says it already")
