"""What a run was asked to do: the settings of each command, and the words that ask for a run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from krrdistill.apps.cli.status import UsageError
from krrdistill.apps.kip.iteration import KipOptions
from krrdistill.apps.privacy.budget import PRIVACY, ReleaseOptions
from krrdistill.apps.reproduce.selection import ReproduceOptions
from krrdistill.common.options import as_words, check_options, option, option_of
from krrdistill.options import DATASETS, MODEL, TARGETS, DistillOptions, MapOptions

__all__ = [
    "DistillSettings",
    "KipSettings",
    "PrivacySettings",
    "RunSettings",
    "TableSettings",
    "VerifySettings",
    "command_line",
]

FILES = "Files"  # panel of the help


def is_data_file(name: str) -> bool:
    """Whether this names a file and no known data set."""
    return name.lower().endswith(".npz")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every run says besides the options of its method: the data, the map, and where its files go."""

    command: ClassVar[str]

    dataset: str = option(
        "digits",
        "{choices} or a file.",
        choices=DATASETS,
        accepts=is_data_file,
        metavar="NAME|FILE.npz",
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
    map_options: MapOptions = field(default_factory=MapOptions)

    def __post_init__(self) -> None:
        check_options(self.command, self)
        if is_data_file(self.dataset) and not Path(self.dataset).expanduser().is_file():
            raise UsageError(f"--dataset: no such file: {self.dataset}")

    def _folder(self, options: Any, init: str, suffix: str = "") -> Path:
        """``--out``, or a name made of what distinguishes the run."""
        kernel = self.map_options.kernel.replace(":", "_")
        name = f"{Path(self.dataset).stem}_{kernel}_ipc{options.points_per_class}_{init}_seed{options.seed}{suffix}"
        return Path("runs", name) if self.out is None else self.out


@dataclass(frozen=True, kw_only=True)
class DistillSettings(RunSettings):
    """One run of ``krrdistill distill``."""

    command = "distill"

    zca: bool = option(False, "ZCA whitening in place of standardising.", panel=MODEL, key="data.zca_whiten")
    targets: str | None = option(
        None,
        "Content of y in FILE.npz: class labels, or real values (columns of 0 and 1: multi-label).",
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
    options: KipOptions = field(default_factory=KipOptions)

    @property
    def folder(self) -> Path:
        """Where the files of the run go."""
        return self._folder(self.options, self.options.init, f"_kip_{self.options.variant}")


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(RunSettings):
    """One run of ``krrdistill privacy``; a mechanism makes it a private release."""

    command = "privacy"

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
