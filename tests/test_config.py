"""Configuration files, published ones and our own, their errors, and options of the command line over them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="the cli extra is not installed")
pytest.importorskip("typer", reason="the cli extra is not installed")

from krrdistill import maps
from krrdistill.apps.cli.config import read_config, resolve
from krrdistill.apps.cli.settings import (
    DistillSettings,
    KipSettings,
    RunSettings,
    SweepSettings,
    VerifySettings,
    command_line,
    verify_line,
)
from krrdistill.apps.cli.status import UsageError
from krrdistill.apps.kip import KipOptions
from krrdistill.apps.sweep import SweepOptions
from krrdistill.common.options import Declared, declared_options
from krrdistill.options import DistillOptions, MapOptions

PUBLISHED = """\
data:
  dataset: CIFAR100 # MNIST, CIFAR10, CIFAR100
  zca_whiten: True
  gpu: 0

model:
  seed: 3
  hidden_layer: 2

distill:
  IPC: 10
  kernel: FCNN   # identity, random_fourier
  generate_from_real_data: True
  reg_s: True
"""
KIP = """\
data:
  dataset: CIFAR100
  zca_whiten: False
  gpu: 0

model:
  batch_size: 5000
  lr: 1e-2
  iterations: 30000
  seed: 3
  hidden_layer: 1

distill:
  IPC: 10
  kernel: FCNN
  generate_from_real_data: True
  reg_s: True
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_yaml(text: str | bytes) -> Path:
        path = tmp_path / "distill.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_yaml


def distill(given: dict[str, Any], config: Path | None = None) -> DistillSettings:
    return resolve(DistillSettings, given, config)[0]


def test_published_file_is_taken_unchanged(write: Any) -> None:
    settings, notes = resolve(DistillSettings, {}, write(PUBLISHED))
    assert settings == DistillSettings(
        dataset="cifar100",
        zca=True,
        map_options=MapOptions(kernel="FCNN", hidden_layers=2),
        options=DistillOptions(points_per_class=10, init="real", lambda_s="auto", seed=3),
    )
    assert len(notes) == 1
    assert "data.gpu is ignored" in notes[0]


def test_published_kip_file_is_taken_unchanged(write: Any) -> None:
    settings, notes = resolve(KipSettings, {}, write(KIP))
    assert settings == KipSettings(
        dataset="cifar100",
        map_options=MapOptions(kernel="FCNN", hidden_layers=1),
        options=KipOptions(points_per_class=10, init="real", batch_size=5000, lr=0.01, iterations=30000, seed=3),
    )
    assert [note.split(": ")[1].split()[0] for note in notes] == ["data.gpu", "distill.reg_s"]


def test_keys_of_the_kip_script_are_ignored_with_a_note(write: Any) -> None:
    settings, notes = resolve(DistillSettings, {}, write("model: {batch_size: 5000, lr: 0.01, iterations: 30000}\n"))
    assert settings == DistillSettings()
    assert [note.split(": ")[1].split()[0] for note in notes] == ["model.batch_size", "model.lr", "model.iterations"]


def test_false_switches_mean_noise_and_no_regularisation(write: Any) -> None:
    options = distill({}, write("distill:\n  generate_from_real_data: False\n  reg_s: False\n")).options
    assert (options.init, options.lambda_s) == ("noise", 0.0)
    noise = write("distill: {generate_from_real_data: false}\n")
    assert resolve(KipSettings, {})[0].options.init == "real"
    assert resolve(KipSettings, {}, noise)[0].options.init == "noise"


@pytest.mark.parametrize("name", ["points_per_class", "ipc"])
def test_a_file_takes_options_by_their_own_names(write: Any, name: str) -> None:
    text = (
        f"kernel: fcnn\nwidths: [20, 10]\n{name}: 3\nlambda_s: 1e-4\nlambdas: [1, 1e1]\nstore: FLOAT32\nrefit: yes\n"
        "threads: null\nzca: true\ntargets: classes\n"
    )
    assert distill({}, write(text)) == DistillSettings(
        zca=True,
        targets="classes",
        map_options=MapOptions(kernel="FCNN", widths=(20, 10)),
        options=DistillOptions(points_per_class=3, lambda_s=1e-4, lambdas=(1.0, 10.0), store="float32", refit=True),
    )


@pytest.mark.parametrize("name", ["MNIST", "mnist", "Mnist"])
def test_names_take_any_case(write: Any, name: str) -> None:
    assert distill({}, write(f"data: {{dataset: {name}}}")).dataset == "mnist"
    assert distill({"dataset": name, "kernel": "Fcnn"}).map_options.kernel == "FCNN"


def test_options_win_over_the_file(write: Any) -> None:
    given = {"points_per_class": "2", "kernel": "identity", "seed": "0", "zca": False, "init": "noise"}
    settings = distill(given, write(PUBLISHED))
    assert settings == DistillSettings(
        dataset="cifar100", options=DistillOptions(init="noise", points_per_class=2, lambda_s="auto")
    )
    assert distill({"lambda_s": "1e-4"}, write(PUBLISHED)).options.lambda_s == 1e-4
    kip = resolve(KipSettings, {"lr": "0.5", "variant": "PUBLISHED"}, write(KIP))[0].options
    assert (kip.lr, kip.variant, kip.batch_size) == (0.5, "published", 5000)


def test_realism_without_init_starts_from_real_samples(write: Any) -> None:
    from_file, given = distill({}, write("realism: 1\n")), distill({"realism": "1"})
    assert from_file == given == DistillSettings(options=DistillOptions(realism=1.0))
    assert from_file.options.start == DistillOptions(labels_only=True).start == "real"
    assert DistillOptions().start == "noise"
    assert "--init" not in command_line(given)
    with pytest.raises(ValueError, match="realism needs init = 'real', got 'noise'"):
        distill({"realism": "1"}, write("init: noise\n"))


def test_map_options_of_the_file_are_dropped_for_other_maps(write: Any) -> None:
    settings = distill({"kernel": "identity"}, write(PUBLISHED))
    assert settings.map_options == MapOptions()
    assert "--hidden-layer" not in command_line(settings)  # which would refuse it
    assert "--hidden-layer" in command_line(distill({}, write(PUBLISHED)))


def test_map_options_are_arguments_of_the_constructors() -> None:
    assert all(maps.kernels_with(each.name) for each in declared_options(MapOptions) if each.name != "kernel")
    given = distill({"kernel": "random_fourier", "n_features": "40", "sigma2": "2.5"}).map_options.given()
    assert given == {"n_features": 40, "sigma2": 2.5}


@pytest.mark.parametrize("kind", [DistillSettings, KipSettings])
def test_the_recorded_command_asks_for_the_same_run(kind: type[RunSettings]) -> None:
    """With every option away from its default that can be so together with the others."""
    values: dict[str, Any] = {"kernel": "random_fourier", "spectral": "matern", "lambda_s": "auto", "out": "a b"}
    others = {"hidden_layers", "widths", "channels", "kernel_size", "stride", "padding", "slope"}  # of other maps
    others |= {"realism", "scale_labels", "labels_only", "center_targets", "selection"}  # they exclude what is given
    others |= {"dataset", "statistics"}  # said always; in place of the data
    declared = {each.flag: each for each in declared_options(kind)}
    for each in declared.values():
        if each.name not in others:
            values.setdefault(each.name, _another(each))
    values = {each.name: values[each.name] for each in declared.values() if each.name in values}
    settings = resolve(kind, values)[0]
    words = iter(shlex.split(shlex.join(command_line(settings)))[2:])
    read: dict[str, Any] = {}
    for word in words:
        each = declared["--" + word.removeprefix("--").removeprefix("no-")]
        read[each.name] = not word.startswith("--no-") if each.base is bool else next(words)
    assert read.keys() == values.keys() | {"dataset"}
    assert resolve(kind, read)[0] == settings


def _another(declared: Declared) -> Any:
    """A value that is not the default."""
    if declared.base is bool:
        return not declared.default
    if declared.option.choices:
        return next(choice for choice in declared.option.choices if choice != declared.default)
    return "2,3" if declared.several else "0.25" if declared.base is float else "7"


def test_folder_names_the_run(tmp_path: Path) -> None:
    assert DistillSettings().folder == Path("runs/digits_identity_ipc1_noise_seed0")
    file = tmp_path / "my set.npz"
    file.touch()
    given = {"dataset": str(file), "kernel": "fcnn", "points_per_class": "3", "init": "real", "seed": "7"}
    assert distill(given).folder == Path("runs/my set_FCNN_ipc3_real_seed7")
    assert distill({"out": str(tmp_path)}).folder == tmp_path
    kip = KipSettings(map_options=MapOptions(kernel="FCNN"))
    assert kip.folder == Path("runs/digits_FCNN_ipc1_real_seed0_kip_gram")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"zca": True, "realism": "0.5"}, "digits_identity_ipc1_real_zca_realism0.5_seed0"),
        ({"realism": "1", "max_seconds": "5"}, "digits_identity_ipc1_real_max-seconds5_realism1_seed0"),
        ({"store": "uint8", "refit": True}, "digits_identity_ipc1_noise_refit_store-uint8_seed0"),
        ({"lambdas": "0.1,10", "stratify": False}, "digits_identity_ipc1_noise_lambdas0.1-10_no-stratify_seed0"),
        ({"noise": "gaussian", "precision": "float64"}, "digits_identity_ipc1_noise_noise-gaussian_precision-float64_"),
        ({"labels_only": True, "lambda_s": "auto"}, "digits_identity_ipc1_real_labels-only_lambda-s-auto_seed0"),
        ({"kernel": "FCNN", "hidden_layers": "2"}, "digits_FCNN_ipc1_noise_hidden-layer2_seed0"),
        ({"threads": "1", "backend": "array", "data_dir": "d", "download": True}, "digits_identity_ipc1_noise_seed0"),
    ],
)
def test_folder_is_named_by_what_differs_from_the_defaults(given: dict[str, Any], name: str) -> None:
    found = distill(given).folder.name
    assert found.startswith(name)
    assert found.endswith("seed0")


def test_folder_names_are_bounded_and_fit_every_file_system(tmp_path: Path) -> None:
    file = tmp_path / f"{'ä' * 60}.npz"
    file.touch()
    many = {"lambdas": ",".join(str(0.5 + i) for i in range(40)), "dataset": str(file), "test": "/a b/c:d?.npz"}
    name = distill(many).folder.name
    assert len(name.encode()) < 200
    assert not set(name) & set('/:?" ,')
    others = [distill({**many, **change}).folder.name for change in ({"test": "/a b/e.npz"}, {"lambdas": "1"})]
    assert len({name, *others}) == 3
    all_at_once = {"validation_fraction": "0.123456", "root": "minus", "lambda_s": "0.0001234", "store": "float32"}
    all_at_once |= {"precision": "float64", "refit": True, "include_weights": True, "embed_map": False, "zca": True}
    assert len(distill({**many, **all_at_once, "stratify": False}).folder.name.encode()) < 200


def test_folder_of_kip_is_named_by_what_decides_its_course() -> None:
    given = {"iterations": "5", "time_budget": "1", "checkpoint_every": "2", "threads": "1", "lr": "0.5"}
    assert resolve(KipSettings, given)[0].folder.name == "digits_identity_ipc1_real_lr0.5_seed0_kip_gram"


# A sweep


def test_sweep_takes_the_options_of_distill_and_several_values_of_its_axes() -> None:
    given = {"kernels": "identity,fcnn", "ipcs": "1,10", "seeds": "0,1", "lambda_s": "auto,0", "init": "noise,real"}
    settings = resolve(SweepSettings, {**given, "store": "float32", "zca": True, "hidden_layers": "2"})[0]
    assert settings.grid == SweepOptions(
        kernels=("identity", "FCNN"), ipcs=(1, 10), seeds=(0, 1), lambda_s=("auto", 0.0), init=("noise", "real")
    )
    assert (settings.run.zca, settings.run.options.store) == (True, "float32")
    cells = list(settings.grid.cells(settings.run.options))
    assert len(cells) == 32
    assert cells[1] == ("identity", DistillOptions(points_per_class=10, init="noise", lambda_s="auto", store="float32"))
    words = command_line(settings)
    assert words[:4] == ["krrdistill", "sweep", "--kernels", "identity,FCNN"]
    assert not {"--kernel", "--ipc", "--seed"} & set(words)
    assert "--statistics" not in {each.flag for each in declared_options(SweepSettings)}
    read = dict(zip(words[2::2], words[3::2], strict=False))
    assert read["--lambda-s"] == "auto,0"


@pytest.mark.parametrize("kind", [DistillSettings, KipSettings, SweepSettings])
def test_help_names_the_choices(kind: type) -> None:
    texts = {each.name: each.option.text for each in declared_options(kind)}
    assert not [name for name, text in texts.items() if "{" in text]
    assert "random_fourier" in texts["kernels" if kind is SweepSettings else "kernel"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"kernels": "identity", "hidden_layers": "2"}, UsageError, "--hidden-layer belongs to --kernel FCNN, not to"),
        ({"lambda_s": "auto,much"}, UsageError, "--lambda-s must be numbers with commas between, got 'much'"),
        ({"lambda_s": "-1"}, UsageError, "--lambda-s must be finite and >= 0"),
        ({"kernels": "rbf"}, UsageError, "--kernels must be one of identity"),
        ({"ipcs": "0"}, UsageError, "--ipcs must be >= 1"),
    ],
)
def test_sweep_refuses_what_cannot_be_meant(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        resolve(SweepSettings, given)


def test_sweep_refuses_a_combination_that_excludes_itself() -> None:
    settings = resolve(SweepSettings, {"lambda_s": "auto,0", "root": "minus"})[0]
    with pytest.raises(ValueError, match="root = 'minus' needs lambda_s > 0"):
        list(settings.grid.cells(settings.run.options))


def test_sweep_takes_a_published_file(write: Any) -> None:
    settings, notes = resolve(SweepSettings, {"seeds": "0,1"}, write(PUBLISHED))
    assert settings.grid == SweepOptions(
        kernels=("FCNN",), ipcs=(10,), seeds=(0, 1), lambda_s=("auto",), init=("real",)
    )
    assert (settings.run.dataset, settings.run.zca) == ("cifar100", True)
    assert len(notes) == 1


def test_sweep_of_the_same_request_has_the_same_default_folder() -> None:
    first, second = (resolve(SweepSettings, {"ipcs": "1,10", "threads": t, "zca": True})[0] for t in ("1", "2"))
    assert first.folder == second.folder == Path("runs/digits_sweep_ipcs1-10_zca")
    assert resolve(SweepSettings, {"ipcs": "1,10"})[0].folder != first.folder


def test_empty_section_is_no_error(write: Any) -> None:
    assert distill({}, write("model:\ndistill: {IPC: 4}\n")).options.points_per_class == 4


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  dataset: [MNIST\nmodel: 3\n", "line 3: malformed YAML"),
        ("a: b: c\n", "line 1: malformed YAML"),
        ("data:\n\tdataset: MNIST\n", "line 2: malformed YAML"),
        (b"data:\n  dataset: \xff\xfe\n", "line 2: malformed YAML"),
        ("[" * 500 + "]" * 500, "malformed YAML: nested too deeply"),
        ("data: {dataset: 2024-13-45}\n", "malformed YAML: month must be in 1..12"),
        ("data: {dataset: !!int ''}\n", "malformed YAML: "),
        ("data: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (BOMB, "line 1: malformed YAML: anchors and aliases are not taken"),
        ("ipc: &n 3\nseed: *n\n", "line 1: malformed YAML: anchors and aliases are not taken"),
        ("ipc: 3\nseed: &n 1\n", "line 2: malformed YAML: anchors and aliases are not taken"),
        ("seed: !!bool x\n", "malformed YAML: "),
        (f"seed: {':'.join(['59'] * 30_000)}\n", "has more than 65536 bytes"),
        (f"seed: {':'.join(['59'] * 20_000)}\n", "got an integer of "),
        ("", "expected options, or the sections data, model, distill, got nothing"),
        ("- 1\n", "expected options, or the sections data, model, distill, got a list"),
        ("data: 3\n", "data must hold keys and values, got 3"),
        ("3: 3\n", "a key must be text, got 3"),
        ("datum: {dataset: MNIST}\n", "unknown key 'datum'; did you mean 'data'?"),
        ("model: {sed: 1}\n", "unknown key 'model.sed'; did you mean 'model.seed'?"),
        ("distill: {ipc: 1}\n", "unknown key 'distill.ipc'; did you mean 'distill.IPC'?"),
        ("distill: {temperature: 1}\n", "unknown key 'distill.temperature'"),
        ("points_per_clas: 1\n", "unknown key 'points_per_clas'; did you mean 'points_per_class'?"),
        ("out: elsewhere\n", "unknown key 'out'"),
        ("ipc: 1\ndistill: {IPC: 2}\n", "distill.IPC and ipc are the same option: give one of them"),
        ("distill: {IPC: ten}\n", "distill.IPC must be an integer or a list of integers, got 'ten'"),
        ("distill: {IPC: true}\n", "distill.IPC must be an integer, got True"),
        ("distill: {IPC: 1.5}\n", "distill.IPC must be an integer, got 1.5"),
        ("distill: {IPC: }\n", "distill.IPC must be an integer, got None"),
        ("distill: {IPC: 0}\n", "distill.IPC must be >= 1, got 0"),
        ("distill: {kernel: rbf}\n", "distill.kernel must be one of identity, random_fourier, orthogonal_fourier"),
        ("kernel: os:getcwd\n", "an object to import is named on the command line only"),
        ("distill: {reg_s: 1}\n", "distill.reg_s must be true or false, got 1"),
        ("model: {seed: -1}\n", "model.seed must be >= 0 and < 2^64, got -1"),
        (f"model: {{seed: 0x{'f' * 999}}}\n", "model.seed must be >= 0 and < 2^64, got an integer of 3996 bits"),
        (
            "data: {dataset: 3}\n",
            "data.dataset must be one of digits, mnist, cifar10, cifar100 or FILE|FOLDER|hf:PATH; got 3",
        ),
        ("data: {dataset: MINST}\n", "data.dataset must be one of digits, mnist"),
        ("data: {zca_whiten: maybe}\n", "data.zca_whiten must be true or false, got 'maybe'"),
        ("refit: 1\n", "refit must be true or false, got 1"),
        ("lambdas: {}\n", "lambdas must be numbers, got {}"),
        ("lambdas: [1, two]\n", "lambdas must be a number, got 'two'"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(write: Any, text: str | bytes, expected: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        distill({}, path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {lr: fast}\n", "model.lr must be a number, got 'fast'"),
        ("model: {lr: true}\n", "model.lr must be a number, got True"),
        ("model: {lr: [1]}\n", "model.lr must be a number, got [1]"),
        ("model: {lr: 0}\n", "model.lr must be finite and > 0, got 0.0"),
        ("model: {lr: .nan}\n", "model.lr must be finite and > 0, got nan"),
        ("model: {iterations: 1.5}\n", "model.iterations must be an integer, got 1.5"),
        ("model: {batch_size: -1}\n", "model.batch_size must be >= 1, got -1"),
    ],
)
def test_bad_kip_files_are_named_with_what_is_wrong(write: Any, text: str, expected: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        resolve(KipSettings, {}, path)
    assert str(caught.value) == f"{path}: {expected}"


def test_every_published_key_is_read(write: Any) -> None:
    for kind, text in ((DistillSettings, PUBLISHED), (KipSettings, KIP)):
        declared = {each.name for each in declared_options(kind) if each.option.key is not None}
        assert read_config(write(text), kind)[0].keys() == declared


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        distill({}, Path("no-such-file.yaml"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"points_per_class": "0"}, "--ipc must be >= 1, got 0"),
        ({"seed": "-3"}, "--seed must be >= 0 and < 2^64, got -3"),
        ({"kernel": "rbf"}, "orthogonal_fourier, FCNN, deep_linear, conv or MODULE:OBJECT; got 'rbf'"),
        ({"store": "int8"}, "--store must be one of float64, float32, float16, uint8; got 'int8'"),
        ({"dataset": "imagenet"}, "--dataset must be one of digits, mnist, cifar10, cifar100"),
        ({"dataset": "nowhere/x.npz"}, "--dataset: no such file or folder: nowhere/x.npz"),
        ({"lambda_s": "-1"}, "--lambda-s must be finite and >= 0 and <= 1e+150, got -1.0"),
        ({"lambda_s": "nan"}, "--lambda-s must be finite and >= 0 and <= 1e+150, got nan"),
        ({"lambda_s": "best"}, "--lambda-s must be a number, or one of auto; got 'best'"),
        ({"kernel": "random_fourier", "sigma2": "0"}, "--sigma2 must be finite and > 0, got 0.0"),
        ({"sigma2": "3"}, "--sigma2 belongs to --kernel random_fourier or orthogonal_fourier, not to identity"),
        ({"kernel": "a.b:c", "sigma2": "3"}, "--sigma2 belongs to --kernel random_fourier or orthogonal_fourier, not"),
        ({"kernel": "FCNN", "n_features": "3"}, "--n-features belongs to --kernel random_fourier or orthogonal_"),
        ({"hidden_layers": "2"}, "--hidden-layer belongs to --kernel FCNN, not to identity"),
        ({"lambdas": "1,x"}, "--lambdas must be numbers with commas between, got 'x'"),
        ({"lambdas": "1,-2"}, "--lambdas must be finite and > 0, got -2.0"),
        ({"lambdas": "inf"}, "--lambdas must be finite and > 0, got inf"),
        ({"lambdas": ""}, "--lambdas must be numbers with commas between, got ''"),
        ({"realism": "2"}, "--realism must be finite and >= 0 and <= 1, got 2.0"),
    ],
)
def test_bad_options_are_named_with_what_came(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        distill(given)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kernel": "FCNN", "hidden_layers": "2", "widths": "9"}, "hidden_layers and widths exclude each other"),
        ({"kernel": "random_fourier", "nu": "1.5"}, "nu belongs to spectral = 'matern'"),
        ({"intercept": True, "center_targets": True}, "intercept implies center_targets"),
    ],
)
def test_options_that_exclude_each_other(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        distill(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"data_dir": "there", "kernel": "FCNN", "seed": "3", "zca": True, "backend": "array"}, "--data-dir there"),
        ({"dataset": "./a.npz", "x": "a,b", "test": "t.npz"}, "--dataset ./a.npz --x a,b --test t.npz"),
        ({"dataset": "./a.npz", "test_fraction": "0.25", "kernel": "m:phi"},
         "--dataset ./a.npz --test-fraction 0.25 --kernel m:phi"),
        ({"statistics": "s.npz", "validation": "h.npz", "test": "mnist", "data_dir": "there"},
         "--statistics s.npz --test mnist --data-dir there"),
    ],
)  # fmt: skip
def test_the_verify_command_has_what_the_file_does_not_say(
    given: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npz").touch()
    line = verify_line(distill(given), Path("runs/a"))
    assert line == ["krrdistill", "verify", "runs/a", *words.split()]
    declared = {each.flag: each.name for each in declared_options(VerifySettings)}
    resolve(VerifySettings, {declared[flag]: value for flag, value in zip(line[3::2], line[4::2], strict=True)})


def test_the_recorded_command_of_statistics_names_no_data_set() -> None:
    given = {"statistics": "a b.npz", "selection": "gcv", "seed": "3"}
    settings = distill(given)
    assert command_line(settings) == "krrdistill distill --statistics|a b.npz|--selection|gcv|--seed|3".replace(
        " ", "|", 2
    ).split("|")
    assert settings.folder == Path("runs/a b_ipc1_noise_selection-gcv_seed3")
