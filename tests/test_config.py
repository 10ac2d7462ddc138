"""The published YAML configuration, its errors, and options of the command line over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml", reason="the cli extra is not installed")
pytest.importorskip("typer", reason="the cli extra is not installed")

from dataclasses import fields

from krrdistill import maps as features
from krrdistill.apps.cli.config import (
    KERNELS,
    PUBLISHED_KEYS,
    KipSettings,
    Settings,
    command_line,
    parse_lambdas,
    read_config,
    resolve,
    resolve_as,
)
from krrdistill.apps.cli.status import UsageError

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


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_yaml(text: str | bytes) -> Path:
        path = tmp_path / "distill.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_yaml


def test_published_file_is_taken_unchanged(write: Any) -> None:
    settings, notes = resolve({}, write(PUBLISHED))
    assert settings == Settings(
        dataset="cifar100",
        zca=True,
        seed=3,
        hidden_layer=2,
        ipc=10,
        kernel="FCNN",
        init="real",
        lambda_s="auto",
    )
    assert len(notes) == 1
    assert "data.gpu is ignored" in notes[0]


def test_false_switches_mean_noise_and_no_regularisation(write: Any) -> None:
    text = "distill:\n  generate_from_real_data: False\n  reg_s: False\n"
    settings, _ = resolve({}, write(text))
    assert (settings.init, settings.lambda_s) == ("noise", 0.0)


@pytest.mark.parametrize("name", ["MNIST", "mnist", "Mnist"])
def test_dataset_names_take_any_case(write: Any, name: str) -> None:
    assert resolve({}, write(f"data: {{dataset: {name}}}"))[0].dataset == "mnist"


@pytest.mark.parametrize("given", ["fcnn", "FCNN", "Fcnn"])
def test_kernel_names_take_the_canonical_spelling(given: str) -> None:
    assert resolve({"kernel": given})[0].kernel == "FCNN"


def test_options_win_over_the_file(write: Any) -> None:
    flags = {"ipc": 2, "kernel": "identity", "seed": 0, "zca": False, "init": "noise", "dataset": "digits"}
    settings, _ = resolve(flags, write(PUBLISHED))
    assert {name: getattr(settings, name) for name in flags} == flags
    assert settings.lambda_s == "auto"


@pytest.mark.parametrize(
    ("flags", "expected"), [({"lambda_s": 1e-4}, 1e-4), ({"reg_s": False}, 0.0), ({"reg_s": None}, "auto")]
)
def test_lambda_s_options_win_over_reg_s_of_the_file(write: Any, flags: dict[str, Any], expected: Any) -> None:
    assert resolve(flags, write(PUBLISHED))[0].lambda_s == expected


def test_options_that_were_not_given_do_not_hide_the_file(write: Any) -> None:
    assert resolve({"ipc": None, "seed": None}, write(PUBLISHED))[0].ipc == 10


def test_keys_of_the_kip_script_are_ignored_with_a_note(write: Any) -> None:
    text = "model: {batch_size: 5000, lr: 0.01, iterations: 30000}\n"
    settings, notes = resolve({}, write(text))
    assert settings == Settings()
    assert [note.split(": ")[1].split()[0] for note in notes] == [
        "model.batch_size",
        "model.lr",
        "model.iterations",
    ]


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


def test_published_kip_file_is_taken_unchanged(write: Any) -> None:
    settings, notes = resolve_as(KipSettings, {}, write(KIP))
    assert settings == KipSettings(
        dataset="cifar100",
        batch_size=5000,
        lr=0.01,
        iterations=30000,
        seed=3,
        hidden_layer=1,
        ipc=10,
        kernel="FCNN",
        init="real",
    )
    assert [note.split(": ")[1].split()[0] for note in notes] == ["data.gpu", "distill.reg_s"]


def test_kip_options_win_over_the_file_and_real_images_are_its_default_start(write: Any) -> None:
    flags = {"lr": 0.5, "variant": "PUBLISHED", "batch_size": 7}
    settings, _ = resolve_as(KipSettings, flags, write(KIP))
    assert (settings.lr, settings.variant, settings.batch_size, settings.iterations) == (0.5, "published", 7, 30000)
    assert resolve_as(KipSettings, {})[0].init == "real"
    noise = "distill: {generate_from_real_data: false}\n"
    assert resolve_as(KipSettings, {}, write(noise))[0].init == "noise"


def test_kip_folder_names_the_variant() -> None:
    assert KipSettings(kernel="FCNN").folder == Path("runs/digits_FCNN_ipc1_real_seed0_kip_gram")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {lr: fast}\n", "model.lr must be a number, got 'fast'"),
        ("model: {lr: true}\n", "model.lr must be a number, got True"),
        ("model: {lr: [1]}\n", "model.lr must be a number, got [1]"),
        ("model: {lr: 0}\n", "model.lr must be positive and finite, got 0.0"),
        ("model: {lr: .nan}\n", "model.lr must be positive and finite, got nan"),
        ("model: {iterations: 1.5}\n", "model.iterations must be a whole number, got 1.5"),
        ("model: {iterations: 0}\n", "model.iterations must be at least 1, got 0"),
        ("model: {batch_size: -1}\n", "model.batch_size must be at least 1, got -1"),
    ],
)
def test_bad_kip_files_are_named_with_what_is_wrong(write: Any, text: str, expected: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        resolve_as(KipSettings, {}, path)
    assert str(caught.value) == f"{path}: {expected}"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"variant": "fast"}, "--variant must be one of gram, published, got 'fast'"),
        ({"lr": -1.0}, "--lr must be positive and finite, got -1.0"),
        ({"time_budget": 0.0}, "--time-budget must be positive and finite, got 0.0"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1, got 0"),
        ({"evaluate_every": 0}, "--evaluate-every must be at least 1, got 0"),
    ],
)
def test_bad_kip_options_are_named_with_what_came(flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_as(KipSettings, flags)
    assert str(caught.value) == expected


def test_empty_section_is_no_error(write: Any) -> None:
    assert resolve({}, write("model:\ndistill: {IPC: 4}\n"))[0].ipc == 4


def test_hidden_layer_of_the_file_is_dropped_for_other_kernels(write: Any) -> None:
    settings, _ = resolve({"kernel": "identity"}, write(PUBLISHED))
    assert settings.map_options == {}
    assert "--hidden-layer" not in command_line(settings)  # which would refuse it
    settings, _ = resolve({}, write(PUBLISHED))
    assert settings.map_options == {"hidden_layers": 2}
    assert "--hidden-layer" in command_line(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  dataset: [MNIST\nmodel: 3\n", "line 3: malformed YAML"),
        ("a: b: c\n", "line 1: malformed YAML"),
        ("data:\n\tdataset: MNIST\n", "line 2: malformed YAML"),
        (b"data:\n  dataset: \xff\xfe\n", "line 2: malformed YAML"),
        ("[" * 5000, "malformed YAML: nested too deeply"),
        ("data: {dataset: 2024-13-45}\n", "malformed YAML: month must be in 1..12"),
        ("data: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("", "expected the sections data, distill, model, got nothing"),
        ("- 1\n", "expected the sections data, distill, model, got a list"),
        ("data: 3\n", "data must hold keys and values, got 3"),
        ("datum: {dataset: MNIST}\n", "unknown key 'datum'; did you mean 'data'?"),
        ("model: {sed: 1}\n", "unknown key 'model.sed'; did you mean 'model.seed'?"),
        ("distill: {ipc: 1}\n", "unknown key 'distill.ipc'; did you mean 'distill.IPC'?"),
        ("distill: {temperature: 1}\n", "unknown key 'distill.temperature'; known keys: data.dataset"),
        ("distill: {IPC: ten}\n", "distill.IPC must be a whole number, got 'ten'"),
        ("distill: {IPC: true}\n", "distill.IPC must be a whole number, got True"),
        ("distill: {IPC: 1.5}\n", "distill.IPC must be a whole number, got 1.5"),
        ("distill: {IPC: }\n", "distill.IPC must be a whole number, got nothing"),
        ("distill: {IPC: 0}\n", "distill.IPC must be at least 1, got 0"),
        (
            "distill: {kernel: rbf}\n",
            "distill.kernel must be one of identity, random_fourier, orthogonal_fourier, FCNN, deep_linear, conv",
        ),
        ("distill: {reg_s: 1}\n", "distill.reg_s must be true or false, got 1"),
        ("model: {seed: -1}\n", "model.seed must be at least 0, got -1"),
        ("data: {dataset: 3}\n", "data.dataset must be a name, got 3"),
        ("data: {dataset: MINST}\n", "data.dataset must be one of digits, mnist"),
        ("data: {zca_whiten: maybe}\n", "data.zca_whiten must be true or false, got 'maybe'"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(write: Any, text: str | bytes, expected: str) -> None:
    path = write(text)
    with pytest.raises(UsageError) as caught:
        resolve({}, path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_every_published_key_is_read(write: Any) -> None:
    for kind, text in ((Settings, PUBLISHED), (KipSettings, KIP)):
        known = {field.name for field in fields(kind)}
        values = read_config(write(text), kind)[0].values()
        assert {key for key, _ in values} == {key for key, (field, _) in PUBLISHED_KEYS.items() if field in known}


def test_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        resolve({}, Path("no-such-file.yaml"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"ipc": 0}, "--ipc must be at least 1, got 0"),
        ({"seed": -3}, "--seed must be at least 0, got -3"),
        ({"threads": 0}, "--threads must be at least 1, got 0"),
        (
            {"kernel": "rbf"},
            "orthogonal_fourier, FCNN, deep_linear, conv, got 'rbf'",
        ),
        ({"init": "zero"}, "--init must be one of noise, real, got 'zero'"),
        ({"root": "times"}, "--root must be one of plus, minus, got 'times'"),
        ({"store": "int8"}, "--store must be one of float64, float32, float16, uint8, got 'int8'"),
        ({"precision": "half"}, "--precision must be one of float32, float64, got 'half'"),
        ({"dataset": "imagenet"}, "--dataset must be one of digits, mnist, cifar10, cifar100"),
        ({"dataset": "nowhere/x.npz"}, "--dataset: no such file: nowhere/x.npz"),
        ({"reg_s": True, "lambda_s": 0.1}, "--reg-s and --lambda-s exclude each other"),
        ({"lambda_s": -1.0}, "--lambda-s must be finite and not negative, got -1.0"),
        ({"lambda_s": float("nan")}, "--lambda-s must be finite and not negative, got nan"),
        ({"kernel": "random_fourier", "sigma2": 0.0}, "--sigma2 must be positive and finite, got 0.0"),
        ({"sigma2": 3.0}, "--sigma2 belongs to --kernel random_fourier or orthogonal_fourier, not to identity"),
        (
            {"kernel": "FCNN", "n_features": 3},
            "--n-features belongs to --kernel random_fourier or orthogonal_fourier, not to FCNN",
        ),
        ({"hidden_layer": 2}, "--hidden-layer belongs to --kernel FCNN, not to identity"),
        ({"lambdas": "1,x"}, "--lambdas must be numbers with commas between, got 'x'"),
        ({"lambdas": "1,-2"}, "--lambdas must be positive and finite, got -2"),
        ({"lambdas": "inf"}, "--lambdas must be positive and finite, got inf"),
        ({"lambdas": ""}, "--lambdas must be numbers with commas between, got ''"),
    ],
)
def test_bad_options_are_named_with_what_came(flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(flags)
    assert expected in str(caught.value)


def test_kernels_are_those_of_the_package() -> None:
    assert KERNELS == features.KERNELS


def test_lambdas() -> None:
    assert parse_lambdas("1e-3, 1e-2,5") == (1e-3, 1e-2, 5.0)


@pytest.mark.parametrize("kernel", ["random_fourier", "orthogonal_fourier"])
def test_map_options_hold_only_what_was_given(kernel: str) -> None:
    settings, _ = resolve({"kernel": kernel, "n_features": 40, "sigma2": 2.5})
    assert settings.map_options == {"n_features": 40, "sigma2": 2.5}
    assert resolve({"kernel": "FCNN"})[0].map_options == {}


def test_folder_names_the_run(tmp_path: Path) -> None:
    assert Settings().folder == Path("runs/digits_identity_ipc1_noise_seed0")
    file = tmp_path / "my set.npz"
    file.touch()
    settings, _ = resolve({"dataset": str(file), "kernel": "fcnn", "ipc": 3, "init": "real", "seed": 7})
    assert settings.folder == Path("runs/my set_FCNN_ipc3_real_seed7")
    assert resolve({"out": tmp_path})[0].folder == tmp_path
