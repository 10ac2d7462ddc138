"""What a run was asked to do: options of the command line over a published YAML file over defaults."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from krrdistill.apps.cli.status import UsageError

KERNELS = ("identity", "random_fourier", "orthogonal_fourier", "FCNN", "deep_linear", "conv")
CHOICES: dict[str, tuple[str, ...]] = {
    "kernel": KERNELS,
    "init": ("noise", "real"),
    "root": ("plus", "minus"),
    "store": ("float64", "float32", "float16", "uint8"),
    "precision": ("float32", "float64"),
    "targets": ("classes", "real"),
    "spectral": ("gaussian", "laplacian", "matern"),
    "variant": ("gram", "published"),
    "mechanism": ("statistics", "output"),
}
_COUNTS = ("ipc", "threads", "hidden_layer", "n_features", "kernel_size", "stride", "iterations",
           "batch_size", "evaluate_every", "checkpoint_every")  # fmt: skip
MINIMUM = {"seed": 0, "padding": 0, **dict.fromkeys(_COUNTS, 1)}
POSITIVE = ("sigma2", "nu", "lr", "time_budget", "epsilon", "norm_bound", "model_lambda")
_FOURIER = ("random_fourier", "orthogonal_fourier")
KERNEL_OPTIONS: dict[str, tuple[str, ...]] = {
    "hidden_layer": ("FCNN",),
    "widths": ("FCNN", "deep_linear"),
    "n_features": _FOURIER,
    "sigma2": _FOURIER,
    "spectral": ("random_fourier",),
    "nu": ("random_fourier",),
    **dict.fromkeys(("channels", "kernel_size", "stride", "padding"), ("conv",)),
}

# Key of the published configurations -> (field of the settings, type). A field that a command lacks is ignored.
PUBLISHED_KEYS: dict[str, tuple[str | None, type]] = {
    "data.dataset": ("dataset", str),
    "data.zca_whiten": ("zca", bool),
    "data.gpu": (None, object),
    "model.seed": ("seed", int),
    "model.hidden_layer": ("hidden_layer", int),
    "model.batch_size": ("batch_size", int),
    "model.lr": ("lr", float),
    "model.iterations": ("iterations", int),
    "distill.IPC": ("ipc", int),
    "distill.kernel": ("kernel", str),
    "distill.generate_from_real_data": ("init", bool),
    "distill.reg_s": ("lambda_s", bool),
}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What ``distill`` and ``kip`` share. The defaults are the commands'."""

    dataset: str = "digits"
    data_dir: Path | None = None
    download: bool = False
    kernel: str = "identity"
    ipc: int = 1
    init: str = "noise"
    seed: int = 0
    zca: bool = False
    precision: str = "float32"
    backend: str | None = None
    threads: int | None = None
    hidden_layer: int | None = None
    widths: tuple[int, ...] | None = None
    n_features: int | None = None
    sigma2: float | None = None
    spectral: str | None = None
    nu: float | None = None
    lambdas: tuple[float, ...] | None = None
    embed_map: bool | None = None
    out: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the run's files go: ``--out`` or a name made of what distinguishes the run."""
        return Path("runs", self._name()) if self.out is None else self.out

    def _name(self) -> str:
        kernel = self.kernel.replace(":", "_")
        return f"{Path(self.dataset).stem}_{kernel}_ipc{self.ipc}_{self.init}_seed{self.seed}"

    @property
    def map_options(self) -> dict[str, Any]:
        """Options of the feature map, only those that were given and that the kernel has."""
        options = {"hidden_layers": self.hidden_layer if self.kernel == "FCNN" else None}
        options |= {name: getattr(self, name, None) for name in KERNEL_OPTIONS if name != "hidden_layer"}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """One run of ``krrdistill distill``."""

    channels: tuple[int, ...] | None = None
    kernel_size: int | None = None
    stride: int | None = None
    padding: int | None = None
    labels_only: bool = False
    strict: bool = False
    lambda_s: float | str = 0.0
    realism: float | None = None
    targets: str = "classes"
    intercept: bool = False
    center_targets: bool = False
    lambda_per_target: bool = False
    root: str = "plus"
    store: str = "float64"
    refit: bool = False
    include_weights: bool = False
    scale_labels: bool = False


@dataclass(frozen=True, kw_only=True)
class KipSettings(RunSettings):
    """One run of ``krrdistill kip``."""

    init: str = "real"
    variant: str = "gram"
    warm_start: bool = False
    iterations: int = 30_000
    lr: float = 0.01
    batch_size: int | None = None
    time_budget: float | None = None
    evaluate_every: int = 100
    checkpoint_every: int = 100

    def _name(self) -> str:
        return f"{super()._name()}_kip_{self.variant}"


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(RunSettings):
    """One run of ``krrdistill privacy``; ``mechanism`` makes it a private release."""

    epsilon: float = 1.0
    delta: float = 1e-5
    mechanism: str | None = None
    norm_bound: float | None = None
    model_lambda: float | None = None
    secret_labels: bool = False
    store: str = "float64"

    def _name(self) -> str:
        return f"{super()._name()}_private_{self.mechanism}_epsilon{self.epsilon:g}"


_AnySettings = TypeVar("_AnySettings", bound=RunSettings)


def command_line(settings: RunSettings) -> list[str]:
    """The words that ask for ``settings`` again: the data set and every option that differs from its default.

    Options of other kernels, which a configuration file may have, are left out: they decide nothing.
    """
    command = "kip" if isinstance(settings, KipSettings) else "distill"
    words = ["krrdistill", command, "--dataset", settings.dataset]
    for field in fields(settings):
        name, value = field.name.replace("_", "-"), getattr(settings, field.name)
        other_kernel = settings.kernel not in KERNEL_OPTIONS.get(field.name, (settings.kernel,))
        if field.name == "dataset" or value == field.default or other_kernel:
            continue
        if field.name == "lambda_s" and value == "auto":
            words.append("--reg-s")
        elif isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)]
    return words


def resolve(flags: Mapping[str, Any], config: Path | None = None) -> tuple[Settings, list[str]]:
    """The settings of ``distill``, see ``resolve_as``."""
    return resolve_as(Settings, flags, config)


def resolve_as(
    kind: type[_AnySettings], flags: Mapping[str, Any], config: Path | None = None
) -> tuple[_AnySettings, list[str]]:
    """Merge what was given on the command line over the file; returns the settings and notes for the user.

    ``flags`` has the fields of ``kind`` (None: not given), with ``lambdas`` as text, and for ``distill`` ``reg_s``,
    the switch that stands for ``lambda_s="auto"``.

    Raises
    ------
    UsageError
        For a value that cannot be meant; the message names the option, or the file and its key.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if "reg_s" in given:
        if given.pop("reg_s"):
            if "lambda_s" in given:
                raise UsageError("--reg-s and --lambda-s exclude each other: give one of them")
            given["lambda_s"] = "auto"
        else:
            given.setdefault("lambda_s", 0.0)
    if "lambdas" in given:
        given["lambdas"] = parse_lambdas(given["lambdas"])
    for name in {"widths", "channels"} & given.keys():
        given[name] = parse_counts(name, given[name])
    sources = {name: "--" + name.replace("_", "-") for name in given}
    if given.get("realism") is not None:
        given.setdefault("init", "real")  # it is a distance to real samples
    from_file, notes = read_config(config, kind) if config is not None else ({}, [])
    for name, (key, value) in from_file.items():
        if name not in given:
            given[name] = value
            sources[name] = f"{config}: {key}"
    _check(given, sources)
    given["dataset"] = _dataset_name(given.get("dataset", kind.dataset), sources.get("dataset", "--dataset"))
    settings = kind(**given)
    _check_map_options(settings, flags, sources)
    return settings, notes


def _check_map_options(settings: RunSettings, flags: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Options of a feature map that the command line gives belong to the kernel chosen."""
    for name, kernels in KERNEL_OPTIONS.items():
        if flags.get(name) is not None and settings.kernel not in kernels:
            raise UsageError(f"{sources[name]} belongs to --kernel {' or '.join(kernels)}, not to {settings.kernel}")
    if settings.hidden_layer is not None and settings.widths is not None:
        raise UsageError(f"{sources['hidden_layer']} and {sources['widths']} exclude each other: give one of them")
    if settings.nu is not None and settings.spectral != "matern":
        raise UsageError(f"{sources['nu']} belongs to --spectral matern")


def parse_lambdas(text: str) -> tuple[float, ...]:
    """``"1e-3,1e-2"`` -> (0.001, 0.01); every value positive and finite."""
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            raise UsageError(f"--lambdas must be numbers with commas between, got {part.strip()!r}") from None
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"--lambdas must be positive and finite, got {part.strip()}")
        values.append(value)
    return tuple(values)


def _check_fractions(given: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    if not 0.0 < given.get("delta", 0.5) < 1.0:
        raise UsageError(f"{sources['delta']} must be in (0, 1), got {given['delta']}")
    if not 0.0 <= given.get("realism", 0.0) <= 1.0:
        raise UsageError(f"{sources['realism']} must be from 0 to 1, got {given['realism']}")


def parse_counts(name: str, text: str) -> tuple[int, ...]:
    """``"512,256"`` -> (512, 256); every number whole and at least 1."""
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isascii() and part.isdigit() and int(part) > 0)]
    if wrong:
        raise UsageError(f"--{name} must be whole numbers of at least 1 with commas between, got {wrong[0]!r}")
    return tuple(map(int, parts))


def _is_object(name: str, given: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
    """Whether this is a kernel to import, package.module:object, which only the command line may name."""
    return name == "kernel" and ":" in given[name] and sources[name] == "--kernel"


def _check(given: dict[str, Any], sources: Mapping[str, str]) -> None:
    """Every given value lies where it may; names of choices take their canonical spelling."""
    for name, choices in CHOICES.items():
        if name in given and not _is_object(name, given, sources):
            spelling = {choice.casefold(): choice for choice in choices}
            if given[name].casefold() not in spelling:
                raise UsageError(f"{sources[name]} must be one of {', '.join(choices)}, got {given[name]!r}")
            given[name] = spelling[given[name].casefold()]
    for name, least in MINIMUM.items():
        if name in given and given[name] < least:
            raise UsageError(f"{sources[name]} must be at least {least}, got {given[name]}")
    for name in POSITIVE:
        if name in given and not (math.isfinite(given[name]) and given[name] > 0):
            raise UsageError(f"{sources[name]} must be positive and finite, got {given[name]}")
    _check_fractions(given, sources)
    lambda_s = given.get("lambda_s", 0.0)
    if lambda_s != "auto" and not (math.isfinite(lambda_s) and lambda_s >= 0):
        raise UsageError(f"{sources['lambda_s']} must be finite and not negative, got {lambda_s}")


def _dataset_name(name: str, source: str) -> str:
    """A known name in lower case, or the path of an existing ``.npz`` file."""
    from krrdistill.data import available_datasets

    if name.lower().endswith(".npz"):
        if not Path(name).expanduser().is_file():
            raise UsageError(f"{source}: no such file: {name}")
        return name
    if name.lower() not in available_datasets():
        known = ", ".join(available_datasets())
        raise UsageError(f"{source} must be one of {known}, or a path that ends in .npz; got {name!r}")
    return name.lower()


def read_config(path: Path, kind: type[RunSettings] = Settings) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Fields of ``kind`` from a published YAML file, ``{field: (key, value)}``, and what was ignored.

    Raises
    ------
    UsageError
        For malformed YAML (with its line), an unknown key or a value of the wrong type (with the key).
    OSError
        When the file cannot be read.
    """
    values: dict[str, tuple[str, Any]] = {}
    ignored = []
    known = {field.name for field in fields(kind)}
    for key, given in _flat_keys(path, _load_yaml(path)).items():
        field, of = PUBLISHED_KEYS[key]
        if field not in known:
            ignored.append(key)
            continue
        value = _typed(f"{path}: {key}", given, of)
        if key == "distill.generate_from_real_data":
            values[field] = key, "real" if value else "noise"
        elif key == "distill.reg_s":
            values[field] = key, "auto" if value else 0.0
        else:
            values[field] = key, value
    notes = [f"{path}: {key} is ignored: {_why_ignored(key)}" for key in ignored]
    return values, notes


def _typed(source: str, value: Any, kind: type) -> Any:
    """``value`` if it is of this kind; YAML 1.1 reads a number like ``1e-2``, without a point, as text."""
    if kind is float and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError):
            value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        got = "nothing" if value is None else repr(value)
        raise UsageError(f"{source} must be {_TYPE_NAMES[kind]}, got {got}")
    return value


def _why_ignored(key: str) -> str:
    if key == "data.gpu":
        return "this runs on the CPU"
    if key == "distill.reg_s":
        return "KIP trains on the distilled set with 1e-6 of the mean eigenvalue of its kernel"
    return "it belongs to the iterative KIP method"


def _load_yaml(path: Path) -> Any:
    import yaml

    content = path.read_bytes()
    try:
        return yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{path}, line {line}: malformed YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = content[: error.position].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: malformed YAML: {error.reason}") from error
    except RecursionError:
        raise UsageError(f"{path}: malformed YAML: nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path}: malformed YAML: {error}") from error


def _flat_keys(path: Path, document: Any) -> dict[str, Any]:
    """``{section: {key: value}}`` -> ``{"section.key": value}``, every key one of the published ones."""
    sections = sorted({key.partition(".")[0] for key in PUBLISHED_KEYS})
    if not isinstance(document, dict):
        got = "nothing" if document is None else f"a {type(document).__name__}"
        raise UsageError(f"{path}: expected the sections {', '.join(sections)}, got {got}")
    flat = {}
    for section, body in document.items():
        if section not in sections:
            raise UsageError(f"{path}: unknown key {section!r}{_suggestion(str(section), sections)}")
        if not isinstance(body, dict | None):
            raise UsageError(f"{path}: {section} must hold keys and values, got {body!r}")
        for name, value in (body or {}).items():
            key = f"{section}.{name}"
            if key not in PUBLISHED_KEYS:
                raise UsageError(f"{path}: unknown key {key!r}{_suggestion(key, list(PUBLISHED_KEYS))}")
            flat[key] = value
    return flat


def _suggestion(key: str, known: Sequence[str]) -> str:
    spelling = {name.casefold(): name for name in known}
    cutoff = 0.8 if "." in key else 0.6  # whole keys share their section
    close = difflib.get_close_matches(key.casefold(), list(spelling), n=1, cutoff=cutoff)
    return f"; did you mean {spelling[close[0]]!r}?" if close else f"; known keys: {', '.join(known)}"
