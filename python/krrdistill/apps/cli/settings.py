"""What a run was asked to do: the settings of each command, and the words that ask for a run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from krrdistill.apps.cli.status import UsageError
from krrdistill.apps.kip.iteration import KipOptions
from krrdistill.apps.privacy.budget import PRIVACY, ReleaseOptions
from krrdistill.apps.reproduce.selection import ReproduceOptions
from krrdistill.common.options import as_word, as_words, check_options, option, option_of
from krrdistill.options import (
    DATASETS,
    LAYOUTS,
    MODEL,
    TARGETS,
    DistillOptions,
    MapOptions,
    is_source_name,
    shown_points,
)

__all__ = [
    "DistillSettings",
    "KipSettings",
    "PrivacySettings",
    "RunSettings",
    "SourceOptions",
    "TableSettings",
    "VerifySettings",
    "command_line",
]

FILES = "Files"  # panel of the help
_MOST_NAMED = 10  # classes whose points are all in the name of a folder
ONLY_CLASSES = "Content of y: class labels, nothing else is taken."


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Where the parts of a data set are, for files and folders of one's own; None leaves it to ``load_dataset``."""

    x: str | None = option(
        None,
        "Columns of the samples, with commas between, or the key of an .npz file.",
        metavar="COLUMN[,COLUMN]",
        default_text="all but --y",
        panel=FILES,
    )
    y: str | None = option(
        None,
        "Column of the labels, a key of an .npz file, the labels' .npy file.",
        metavar="COLUMN",
        default_text="what is usual",
        panel=FILES,
    )
    test: str | None = option(None, "The test set: another file or folder.", metavar="SOURCE", panel=FILES)
    x_test: str | None = option(
        None, "Its columns or key.", metavar="COLUMN[,COLUMN]", default_text="those of --x", panel=FILES
    )
    y_test: str | None = option(
        None, "Its column or key of labels.", metavar="COLUMN", default_text="that of --y", panel=FILES
    )
    validation: str | None = option(
        None, "Samples that lambda is chosen by, in place of a hold-out.", metavar="SOURCE", panel=FILES
    )
    x_validation: str | None = option(
        None, "Their columns or key.", metavar="COLUMN[,COLUMN]", default_text="those of --x", panel=FILES
    )
    y_validation: str | None = option(
        None, "Their column or key of labels.", metavar="COLUMN", default_text="that of --y", panel=FILES
    )
    test_fraction: float | None = option(
        None, "Without a test set: the part of every class that becomes one.", above=0, below=1, panel=FILES
    )

    layout: str | None = option(
        None,
        "Where images have their channels: last (NHWC) or first (NCHW).",
        choices=LAYOUTS,
        default_text="last; asked for where the shape speaks against it",
        panel=FILES,
    )

    def __post_init__(self) -> None:
        check_options("data", self)


def check_source(dataset: str) -> None:
    """Raises UsageError for a file or folder that does not exist."""
    if dataset not in DATASETS and not Path(dataset.removeprefix("hf:")).expanduser().exists():
        raise UsageError(f"--dataset: no such file or folder: {dataset}")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run says besides the options of its method: the data, the map, and where its files go."""

    command: ClassVar[str]

    dataset: str = option(
        "digits",
        "{choices}, a file, or a folder (docs/data.md).",
        choices=DATASETS,
        accepts=is_source_name,
        metavar="NAME|FILE|FOLDER|hf:PATH",
        panel=FILES,
        key="data.dataset",
    )
    data_dir: Path | None = option(None, "Folder of the named data sets.", metavar="DIR", panel=FILES, in_files=False)
    download: bool = option(False, "Fetch missing official files.", panel=FILES, in_files=False)
    out: Path | None = option(
        None,
        "Output folder.",
        metavar="DIR",
        default_text="runs/<what was asked for>",
        panel=FILES,
        in_files=False,
    )
    source: SourceOptions = field(default_factory=SourceOptions)
    map_options: MapOptions = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        check_options(self.command, self)
        check_source(self.dataset)

    def _folder(self, options: Any, init: str, suffix: str = "") -> Path:
        """``--out``, or a name made of what distinguishes the run."""
        kernel = self.map_options.kernel.replace(":", "_")
        data = Path(self.dataset.removeprefix("hf:")).stem
        points = options.points_per_class
        many = isinstance(points, tuple) and len(points) > _MOST_NAMED  # names of folders are short
        ipc = (shown_points(points) if many else as_word(points)).replace(" ", "-").replace(",", "-")
        name = f"{data}_{kernel}_ipc{ipc}_{init}_seed{options.seed}{suffix}"
        return Path("runs", name) if self.out is None else self.out


@dataclass(frozen=True, kw_only=True)
class DistillSettings(RunSettings):
    """One run of ``krrdistill distill``."""

    command = "distill"

    zca: bool = option(False, "ZCA whitening in place of standardising.", panel=MODEL, key="data.zca_whiten")
    targets: str | None = option(
        None,
        "Content of y: class labels, or real values (columns of 0 and 1: multi-label).",
        choices=TARGETS,
        default_text="by the type of y; whole-numbered floats are refused",
        panel=MODEL,
    )
    options: DistillOptions = field(default_factory=DistillOptions)

    @property
    def folder(self) -> Path:
        """Where the files of the run go."""
        return self._folder(self.options, self.options.start)


@dataclass(frozen=True, kw_only=True)
class KipSettings(RunSettings):
    """One run of ``krrdistill kip``."""

    command = "kip"

    zca: bool = option_of(DistillSettings, "zca")
    targets: str | None = option_of(DistillSettings, "targets", text=ONLY_CLASSES, choices=("classes",))
    options: KipOptions = field(default_factory=KipOptions)

    @property
    def folder(self) -> Path:
        """Where the files of the run go."""
        return self._folder(self.options, self.options.init, f"_kip_{self.options.variant}")


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(RunSettings):
    """One run of ``krrdistill privacy``; a mechanism makes it a private release."""

    command = "privacy"

    targets: str | None = option_of(DistillSettings, "targets", text=ONLY_CLASSES, choices=("classes",))
    secret_labels: bool = option(False, "Assume that the distilled labels stay unknown.", panel=PRIVACY)
    options: ReleaseOptions = field(default_factory=ReleaseOptions)

    @property
    def folder(self) -> Path:
        """Where the files of a release go."""
        epsilon = self.options.budget.epsilon
        return self._folder(self.options, "noise", f"_private_{self.options.mechanism}_epsilon{epsilon:g}")


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """One run of ``krrdistill reproduce``."""

    data_dir: Path | None = option_of(RunSettings, "data_dir")
    out: Path | None = option_of(
        RunSettings, "out", text="Output folder; a run goes on from it.", default_text="runs/TABLE"
    )
    options: ReproduceOptions = field(default_factory=ReproduceOptions)


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What ``krrdistill verify`` is told besides its file."""

    dataset: str | None = option_of(
        RunSettings, "dataset", default=None, text="What the file was made from, if the file does not name it."
    )
    source: SourceOptions = field(default_factory=SourceOptions)
    data_dir: Path | None = option_of(RunSettings, "data_dir")
    kernel: str | None = option(
        None,
        "The feature map of a file made with one of your own; no file loads it by itself.",
        metavar="PACKAGE.MODULE:OBJECT",
        panel=MODEL,
    )
    tolerance: float | None = option(
        None,
        "Largest relative weight error that passes.",
        minimum=0,
        default_text="1e-6; 1e-4 where float32 statistics are made again, 1e-2 for smaller storage",
    )


def command_line(settings: RunSettings) -> list[str]:
    """The words that ask for ``settings`` again: the data set and every option that differs from its default."""
    return ["krrdistill", settings.command, *as_words(settings, always=("dataset",))]
