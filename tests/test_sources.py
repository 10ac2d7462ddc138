"""What may come in: every kind of source gives the points of NumPy arrays of the same numbers, to the last bit."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import krrdistill as kd
import tolerances
from krrdistill.common import rows as row_blocks
from krrdistill.common.rows import RowSource
from krrdistill.data.labels import Classes
from krrdistill.data.parts import read_part
from krrdistill.errors import DataWarning

Array = npt.NDArray[Any]
SHAPE, K = (6, 5), 3
D = SHAPE[0] * SHAPE[1]
NAMES = np.array(["ant", "bee", "cat"])
COLUMNS = [f"c{index}" for index in range(D)]
X_COLUMNS = ",".join(COLUMNS)


def numbers(part: str, dtype: Any) -> tuple[Array, Array]:
    """Images (n, 6, 5) and codes (n,), in the order in which folders of classes have them."""
    n = {"train": 60, "test": 15, "validation": 12}[part]
    rng = np.random.default_rng(len(part))
    y = np.repeat(np.arange(K), n // K)
    X = rng.integers(0, 256, (n, *SHAPE))
    X[:, 0, :K] = 255 * (y[:, None] == np.arange(K)) // 2 + X[:, 0, :K] // 2
    return (X if dtype == "uint8" else X / 7).astype(dtype), y


# One function for each kind: it stores X, y in a folder and gives the source.


class Made(NamedTuple):
    """A source with the names of x and y in it."""

    source: Any
    x: str | None = None
    y: str | None = None


def flat(X: Array) -> Array:
    return X.reshape(len(X), -1)


def vectors(X: Array) -> Any:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(X.ravel()), D)


def arrow_table(X: Array, y: Array) -> Any:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return pyarrow.table({"emb": vectors(X), "label": y, "note": NAMES[y]})


def write_parquet(path: Path, table: Any, **options: Any) -> Path:
    pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed").write_table(table, path, **options)
    return path


def parquet_of_vectors(folder: Path, X: Array, y: Array) -> Made:
    return Made(write_parquet(folder / "a.parquet", arrow_table(X, y), row_group_size=17), x="emb", y="label")


def parquet_of_columns(folder: Path, X: Array, y: Array) -> Made:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    columns = dict(zip(COLUMNS, flat(X).T, strict=True))
    table = pyarrow.table({"label": y, **dict(reversed(columns.items()))})
    return Made(write_parquet(folder / "a.parquet", table), x=X_COLUMNS, y="label")


def parquet_folder(folder: Path, X: Array, y: Array) -> Made:
    half = len(X) // 2
    write_parquet(folder / "part-0.parquet", arrow_table(X[:half], y[:half]))
    write_parquet(folder / "part-1.parquet", arrow_table(X[half:], y[half:]))
    return Made(folder, x="emb", y="label")


def pandas_frame(folder: Path, X: Array, y: Array) -> Made:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return Made(pandas.DataFrame(flat(X), columns=COLUMNS).assign(species=NAMES[y]), y="species")


def polars_frame(folder: Path, X: Array, y: Array) -> Made:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    return Made(polars.DataFrame({"label": y, "emb": flat(X)}))


def arrow(folder: Path, X: Array, y: Array) -> Made:
    return Made(arrow_table(X, y), x="emb", y="label")


def hugging_face(X: Array, y: Array, *, images: bool = False) -> Any:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    labels = datasets.ClassLabel(names=NAMES.tolist())
    if images:
        kind: Any = datasets.Image()
    elif X.ndim == 3 and X.dtype == "float64":
        kind = datasets.Array2D(SHAPE, "float64")
    else:
        X, kind = flat(X), datasets.Sequence(datasets.Value(str(X.dtype)), length=D)
    features = datasets.Features({"input": kind, "species": labels})
    if images:
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        return datasets.Dataset.from_dict({"input": [image.fromarray(x) for x in X], "species": y}, features)
    return datasets.Dataset.from_dict({"input": list(X), "species": y}, features)


def hugging_face_in_memory(folder: Path, X: Array, y: Array) -> Made:
    return Made(hugging_face(X, y).with_format("torch" if X.dtype == "float32" else None))


def hugging_face_saved(folder: Path, X: Array, y: Array) -> Made:
    hugging_face(X, y).save_to_disk(folder / "saved")
    return Made(f"hf:{folder / 'saved'}", x="input", y="species")


def hugging_face_pictures(folder: Path, X: Array, y: Array) -> Made:
    return Made(hugging_face(X, y, images=True))


def torch_dataset(folder: Path, X: Array, y: Array) -> Made:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return Made(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(y)))


def torch_dataset_with_targets(folder: Path, X: Array, y: Array) -> Made:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

    class Pictures(torch.utils.data.Dataset):  # type: ignore[misc]
        """As torchvision's are: items (PIL image, label), all labels in ``targets``."""

        targets = torch.tensor(y)

        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> Any:
            return image.fromarray(X[index]), int(y[index])

    return Made(Pictures())


def pictures(folder: Path, X: Array, y: Array, *, suffix: str = "png") -> Made:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for index, (x, code) in enumerate(zip(X, y, strict=True)):
        (folder / NAMES[code]).mkdir(exist_ok=True)
        image.fromarray(x).save(folder / NAMES[code] / f"{index:03}.{suffix}", lossless=True)
    return Made(folder)


def bitmaps(folder: Path, X: Array, y: Array) -> Made:
    return pictures(folder, X, y, suffix="bmp")


def npy(folder: Path, X: Array, y: Array) -> Made:
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return Made(folder / "X.npy", y=str(folder / "y.npy"))


def npy_pair(folder: Path, X: Array, y: Array) -> Made:
    npy(folder, X, y)
    return Made((folder / "X.npy", folder / "y.npy"))


def npz_of_any_keys(folder: Path, X: Array, y: Array) -> Made:
    np.savez(folder / "a.npz", embeddings=X, kinds=y, other=np.zeros(3))
    return Made(folder / "a.npz", x="embeddings", y="kinds")


def arrays(folder: Path, X: Array, y: Array) -> Made:
    return Made((X, y))


@dataclass(frozen=True)
class Kind:
    """A kind of source; ``named``: its labels are the names of classes, ``shaped``: its samples are images."""

    make: Callable[..., Made]
    dtype: str = "float32"
    named: bool = False
    shaped: bool = False

    def reference(self, part: str = "train") -> tuple[Array, Array]:
        X, y = numbers(part, self.dtype)
        return X if self.shaped else flat(X), NAMES[y] if self.named else y

    def part(self, tmp_path: Path, part: str = "train") -> Made:
        (tmp_path / part).mkdir()
        return self.make(tmp_path / part, *numbers(part, self.dtype))


KINDS = {
    "arrays": Kind(arrays, shaped=True),
    "npy": Kind(npy, shaped=True),
    "npy pair": Kind(npy_pair, "uint8", shaped=True),
    "npz": Kind(npz_of_any_keys, "float64", shaped=True),
    "parquet vectors": Kind(parquet_of_vectors),
    "parquet columns": Kind(parquet_of_columns, "float64"),
    "parquet folder": Kind(parquet_folder, "uint8"),
    "pandas": Kind(pandas_frame, named=True),
    "polars": Kind(polars_frame, "float64"),
    "arrow": Kind(arrow, "uint8"),
    "hf vectors": Kind(hugging_face_in_memory, named=True),
    "hf matrices": Kind(hugging_face_in_memory, "float64", named=True, shaped=True),
    "hf saved": Kind(hugging_face_saved, named=True),
    "hf pictures": Kind(hugging_face_pictures, "uint8", named=True, shaped=True),
    "torch tensors": Kind(torch_dataset, shaped=True),
    "torch pictures": Kind(torch_dataset_with_targets, "uint8", shaped=True),
    "pictures": Kind(pictures, "uint8", named=True, shaped=True),
    "bitmaps": Kind(bitmaps, "uint8", named=True, shaped=True),
}
FROM_PATHS = [name for name, kind in KINDS.items() if kind.make in {
    npy, npz_of_any_keys, parquet_of_vectors, parquet_of_columns, parquet_folder, hugging_face_saved, pictures, bitmaps
}]  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Every kind of source, read in many blocks."""
    monkeypatch.setattr(row_blocks, "_BLOCK_BYTES", 2000)
    return KINDS[request.param]


def assert_same_points(found: kd.DistilledDataset, expected: kd.DistilledDataset) -> None:
    tolerances.assert_exact(found.X, expected.X)
    tolerances.assert_exact(found.Y, expected.Y)
    assert found.classes == expected.classes


def test_samples_of_every_kind_are_those_of_arrays(kind: Kind, tmp_path: Path) -> None:
    made = kind.part(tmp_path)
    X, y = kd.read_samples(made.source, x=made.x, y=made.y)
    expected, labels = kind.reference()
    assert X.dtype == expected.dtype
    tolerances.assert_exact(X[:], expected)
    tolerances.assert_exact(np.asarray(y), labels)
    picked = np.array([59, 3, 3, 40, 0])  # back and forth, one twice
    tolerances.assert_exact(X[picked], expected[picked])
    if not isinstance(made.source, tuple) and kind.make is not npz_of_any_keys:
        assert isinstance(X, (RowSource, np.memmap))  # nothing is read before it is needed


@pytest.mark.parametrize("init", ["noise", "real"])
def test_python_gives_the_points_of_arrays(kind: Kind, init: str, tmp_path: Path) -> None:
    made = kind.part(tmp_path)
    found = kd.distill(*kd.read_samples(made.source, x=made.x, y=made.y), kd.Identity(D), init=init)
    expected = kd.distill(*kind.reference(), kd.Identity(D), init=init)
    assert_same_points(found.distilled, expected.distilled)
    tolerances.assert_exact(found.model.W, expected.model.W)


def test_data_sets_of_every_kind_have_the_parts_of_arrays(kind: Kind, tmp_path: Path) -> None:
    made, test, validation = (kind.part(tmp_path, part) for part in ("train", "test", "validation"))
    data = kd.load_dataset(
        made.source,
        x=made.x,
        y=made.y,
        test=test.source,
        y_test=test.y,
        validation=validation.source,
        y_validation=validation.y,
    )
    for part in ("train", "test", "validation"):
        X, y = kind.reference(part)
        tolerances.assert_exact(getattr(data, f"x_{part}")[:], X)
        tolerances.assert_exact(getattr(data, f"y_{part}"), np.searchsorted(np.unique(y), y))
    assert data.class_names == (tuple(NAMES) if kind.named else ("0", "1", "2"))


def test_scikit_learn_gives_the_points_of_arrays(kind: Kind, tmp_path: Path) -> None:
    interop = pytest.importorskip("krrdistill.interop.sklearn", reason="scikit-learn is not installed")
    made = kind.part(tmp_path)
    X, y = kd.read_samples(made.source, x=made.x, y=made.y)
    found = interop.RidgeDistiller().fit(flat(X[:]), np.asarray(y))
    expected, labels = kind.reference()
    tolerances.assert_exact(found.X_distilled_, interop.RidgeDistiller().fit(flat(expected), labels).X_distilled_)


def command(*words: Any) -> int:
    pytest.importorskip("typer", reason="the cli extra is not installed")
    from krrdistill.apps.cli import main

    return main([str(word) for word in words])


def words_of(made: Made, test: Made, validation: Made | None = None) -> list[Any]:
    words = ["--dataset", made.source]
    words += ["--x", made.x] if made.x else []
    words += ["--y", made.y] if made.y else []
    for name, part in (("test", test), ("validation", validation)):
        if part is not None:
            words += [f"--{name}", part.source, *([f"--y-{name}", part.y] if part.y else [])]
    return words


@pytest.mark.usefixtures("undrawn_pages")
@pytest.mark.parametrize("name", FROM_PATHS)
def test_the_command_gives_the_points_of_arrays_and_reproduces_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = KINDS[name]
    made, test, validation = (kind.part(tmp_path, part) for part in ("train", "test", "validation"))
    words = words_of(made, test, validation)
    assert command("distill", *words, "--out", "run", "--json") == 0
    said = capsys.readouterr()
    assert "note: lambda was chosen by the 12 samples of the validation part of" in said.err
    report = json.loads(said.out)
    parts = {f"{axis}_{part}": value for part in ("train", "test", "validation")
             for axis, value in zip("xy", kind.reference(part), strict=True)}  # fmt: skip
    np.savez("same.npz", **parts)
    assert command("distill", "--dataset", "same.npz", "--out", "same") == 0
    found, expected = (kd.DistilledDataset.load(f"{folder}/distilled.npz") for folder in ("run", "same"))
    assert_same_points(found, expected)
    assert (report["n_train"], report["n_val"], report["n_test"]) == (60, 12, 15)
    shutil.rmtree("run")
    assert command(*shlex.split(report["command"])[1:]) == 0
    assert_same_points(kd.DistilledDataset.load("run/distilled.npz"), expected)
    assert command("verify", "run/distilled.npz", *words) == 0
    assert command("verify", "run/distilled.npz", *words_of(made, test)) == 1
    assert "pass validation=(X, y), on the command line --validation SOURCE" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn_pages")
@pytest.mark.parametrize("words", [["kip", "--iterations", "2"], ["privacy"], ["privacy", "--mechanism", "output"]])
def test_other_commands_take_every_source(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind = KINDS["parquet vectors"]
    made, test = kind.part(tmp_path), kind.part(tmp_path, "test")
    assert command(*words, *words_of(made, test)) == 0


@pytest.mark.usefixtures("undrawn_pages")
def test_privacy_audits_a_file_of_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind = KINDS["pictures"]
    words = words_of(*(kind.part(tmp_path, part) for part in ("train", "test", "validation")))
    assert command("distill", *words, "--out", "run") == 0
    assert command("privacy", "run/distilled.npz", *words) == 0


# Parts


def npz_parts(tmp_path: Path, x: str, y: str, validation: str) -> Path:
    keys = {"train": "train", "test": "test", "validation": validation}
    parts = {part: numbers(part, "uint8") for part in keys}
    arrays = {x.format(keys[part]): X for part, (X, _) in parts.items()}
    arrays |= {y.format(keys[part]): y_part for part, (_, y_part) in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def folder_of_parts(tmp_path: Path) -> Path:
    for part, name in (("train", "train"), ("test", "test"), ("validation", "val")):
        (tmp_path / "root" / name).mkdir(parents=True)
        pictures(tmp_path / "root" / name, *numbers(part, "uint8"))
    return tmp_path / "root"


def parquet_files_of_parts(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    for part in ("train", "test", "validation"):
        X, y = numbers(part, "uint8")
        write_parquet(tmp_path / "root" / f"{part}-00000-of-00001.parquet", arrow_table(X, y).drop_columns("note"))
    return tmp_path / "root"


def saved_splits(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    parts = {part: hugging_face(*numbers(part, "uint8")) for part in ("train", "test", "validation")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def splits_in_memory(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    return datasets.DatasetDict(
        {part: hugging_face(*numbers(part, "uint8"), images=True) for part in ("train", "test", "validation")}
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda path: npz_parts(path, "x_{}", "y_{}", "val"),
        lambda path: npz_parts(path, "x_{}", "y_{}", "valid"),
        lambda path: npz_parts(path, "{}_images", "{}_labels", "val"),
        folder_of_parts,
        parquet_files_of_parts,
        saved_splits,
        splits_in_memory,
        lambda path: {part: numbers(part, "uint8") for part in ("train", "test", "validation")},
    ],
    ids=["npz", "npz valid", "MedMNIST", "folders", "parquet", "DatasetDict saved", "DatasetDict", "mapping"],
)
def test_sources_with_parts_are_taken_whole(make: Callable[[Path], Any], tmp_path: Path) -> None:
    data = kd.load_dataset(make(tmp_path))
    assert data.validation is not None
    for part in ("train", "test", "validation"):
        X, y = numbers(part, "uint8")
        tolerances.assert_exact(flat(getattr(data, f"x_{part}")[:]), flat(X))
        tolerances.assert_exact(getattr(data, f"y_{part}"), y)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: npz_parts(path, "x_{}", "y_{}", "val"),
        lambda path: npz_parts(path, "{}_images", "{}_labels", "val"),
        folder_of_parts,
        parquet_files_of_parts,
        saved_splits,
    ],
    ids=["npz", "MedMNIST", "folders", "parquet", "DatasetDict saved"],
)
def test_one_part_of_a_source_is_read_for_itself(make: Callable[[Path], Any], tmp_path: Path) -> None:
    source = make(tmp_path)
    for part in ("train", "test", "validation"):
        X, y = numbers(part, "uint8")
        found = read_part(source, part)
        tolerances.assert_exact(flat(found.X[:]), flat(X))
        tolerances.assert_exact(found.targets("here").values, y)


def test_a_shard_without_parts_is_read_whole_and_a_missing_part_is_named(tmp_path: Path) -> None:
    X, y = numbers("train", "uint8")
    np.savez(tmp_path / "shard.npz", X=X, y=y)
    for part in ("train", "test", "validation"):
        tolerances.assert_exact(read_part(tmp_path / "shard.npz", part).X, X)
    np.savez(tmp_path / "train.npz", x_train=X, y_train=y, class_names=["a", "b", "c", "absent"])
    found = read_part(tmp_path / "train.npz", "train")
    assert found.targets("here").classes == Classes(4)
    assert found.targets("here", classes=5).classes == Classes(5)
    with pytest.raises(kd.DataError, match="has no part for test; it has train"):
        read_part(tmp_path / "train.npz", "test")
    np.savez(tmp_path / "short.npz", X=X, y=y[:-1])
    with pytest.raises(kd.DataError, match="samples and 59 labels"):
        read_part(tmp_path / "short.npz", "train")


def test_one_column_of_labels_as_in_medmnist_is_taken_with_a_word(tmp_path: Path) -> None:
    X, y = numbers("train", "uint8")
    np.savez(tmp_path / "a.npz", train_images=X, train_labels=y[:, None], test_images=X, test_labels=y[:, None])
    with pytest.warns(DataWarning, match=r"y has shape \(60, 1\): its one column is taken as labels"):
        data = kd.load_dataset(tmp_path / "a.npz")
    tolerances.assert_exact(data.y_train, y)


def test_keys_of_one_file_name_every_part(tmp_path: Path) -> None:
    X, y = numbers("train", "uint8")
    np.savez(tmp_path / "a.npz", a=X, b=y, c=X[::2], d=y[::2], e=X[::3], f=y[::3])
    names = dict(zip(("x", "y", "x_test", "y_test", "x_validation", "y_validation"), "abcdef", strict=True))
    data = kd.load_dataset(tmp_path / "a.npz", **names)
    tolerances.assert_exact(data.x_test, X[::2])
    tolerances.assert_exact(data.y_validation, y[::3])


def test_columns_of_the_test_set_are_those_of_the_training_set() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, y = numbers("train", "float64")
    train = pandas.DataFrame(flat(X), columns=COLUMNS).assign(label=y)
    data = kd.load_dataset(train, test=train[["label", *reversed(COLUMNS)]])
    tolerances.assert_exact(data.x_test[:], data.x_train[:])


def test_a_part_of_a_file_with_class_names_becomes_the_test_set(tmp_path: Path) -> None:
    X, y = numbers("train", "float32")
    np.savez(tmp_path / "a.npz", X=X, y=y, class_names=np.array(["ant", "bee", "cat"]))
    made = kd.load_dataset(tmp_path / "a.npz", x="X", y="y", test_fraction=0.25)
    assert made.class_names == ("ant", "bee", "cat")
    tolerances.assert_exact(made.y_test, kd.load_dataset((X, y), test_fraction=0.25).y_test)


@pytest.mark.usefixtures("undrawn_pages")
def test_a_part_of_every_class_becomes_the_test_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = numbers("train", "float32")
    first, again = (kd.load_dataset((X, y), test_fraction=0.25) for _ in range(2))
    assert np.bincount(first.y_test).tolist() == [5, 5, 5]
    tolerances.assert_exact(first.x_test[:], again.x_test[:])
    both = np.concatenate([first.x_train[:], first.x_test[:]])
    tolerances.assert_exact(np.sort(both.ravel()), np.sort(X.ravel()))
    values = kd.load_dataset((X, flat(X)[:, 0].astype(float) + 0.5), test_fraction=0.25)
    assert (len(values.x_train), len(values.x_test)) == (45, 15)
    made = npy(tmp_path, X, y)
    words = ["--dataset", made.source, "--y", made.y, "--test-fraction", "0.25", "--out", tmp_path / "run"]
    assert command("distill", *words) == 0
    assert "the test set of X is 15 samples, 25% of every class, drawn by a fixed seed" in capsys.readouterr().err
    expected = kd.distill(first.x_train[:], first.y_train, kd.Identity(D, preprocessing=kd.standardize(first)))
    assert_same_points(kd.DistilledDataset.load(tmp_path / "run/distilled.npz"), expected.distilled)


# An explicit validation set


def test_lambda_is_chosen_by_the_validation_set_that_was_given() -> None:
    X, y = numbers("train", "float64")
    held = numbers("validation", "float64")
    result = kd.distill(X, y, kd.Identity(D), validation=held)
    statistics = kd.RidgeStatistics(kd.Identity(D), K).update(X, y)
    model = kd.fit_model(statistics, validation=held)
    tolerances.assert_exact(result.model.W, model.W)
    assert (result.model.n_train, result.model.n_validation) == (60, 12)
    assert result.distilled.meta["own_validation"] is True
    tolerances.assert_exact(kd.retrain(result.distilled, X, y, validation=held).W, model.W)
    with pytest.raises(kd.DataError, match="chosen by a validation set of its own: pass validation="):
        kd.retrain(result.distilled, X, y)
    with pytest.raises(kd.DataError, match="held out of X: leave validation out"):
        kd.retrain(kd.distill(X, y, kd.Identity(D)).distilled, X, y, validation=held)


def test_refit_trains_on_the_validation_set_too() -> None:
    (X, y), (X_val, y_val) = numbers("train", "float64"), numbers("validation", "float64")
    result = kd.distill(X, y, kd.Identity(D), validation=(X_val, y_val), refit=True)
    assert result.model.n_train == 72
    both = kd.RidgeStatistics(kd.Identity(D), K).update(X, y).update(X_val, y_val)
    tolerances.assert_exact(result.model.W, kd.fit_ridge(both, result.model.lambda_))


def test_kip_judges_by_the_validation_set_that_was_given() -> None:
    (X, y), (X_val, y_val) = numbers("train", "float64"), numbers("validation", "float64")
    options: dict[str, Any] = {"iterations": 2, "lambdas": [1.0]}
    right = kd.kip_distill(X, y, kd.Identity(D), validation=(X_val, y_val), **options)
    wrong = kd.kip_distill(X, y, kd.Identity(D), validation=(X_val, (y_val + 1) % K), **options)
    assert right.best.distilled.meta["n_val"] == 12
    assert right.curve["val_accuracy"][-1] > wrong.curve["val_accuracy"][-1]
    tolerances.assert_exact(kd.retrain(right.last.distilled, X, y, validation=(X_val, y_val)).W, right.model.W)


@pytest.mark.parametrize(
    ("validation", "options", "error", "message"),
    [
        ((np.ones((3, 4)), [0, 1, 2]), {}, kd.DataError, "distill: validation: X has 4 columns, the map takes 30"),
        ((np.ones((3, D)), [0, 1, 9]), {}, kd.DataError, "distill: validation: y holds the label 9"),
        ((np.ones((0, D)), []), {}, kd.DataError, "validation has no samples"),
        (np.ones((3, D)), {}, TypeError, r"validation must be a pair \(X, y\), got ndarray"),
        ((np.ones((3, D)), [0, 1, 2]), {"selection": "gcv"}, ValueError, "it takes no validation"),
    ],
)
def test_a_validation_set_that_does_not_fit_is_refused(
    validation: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kd.distill(*numbers("train", "float64"), kd.Identity(D), validation=validation, **options)


# Refusals


def of_size(folder: Path, size: tuple[int, ...], name: str = "zoo/1.png") -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(np.zeros(size, np.uint8)).save(folder / name)
    return folder


def saved(folder: Path, **given: Any) -> Path:
    np.savez(folder / "a.npz", **given)
    return folder / "a.npz"


def frame(**columns: Any) -> Any:
    return pytest.importorskip("polars", reason="polars is not installed").DataFrame(columns)


def parquet(folder: Path, **columns: Any) -> Path:
    return write_parquet(folder / "a.parquet", frame(**columns).to_arrow())


def changing(folder: Path) -> Any:
    class Augmented:
        """Items that change from read to read."""

        random = np.random.default_rng(0)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return self.random.normal(size=4), index

    return Augmented()


def two_schemas(folder: Path) -> Path:
    write_parquet(folder / "a.parquet", frame(a=[1, 2], label=[0, 1]).to_arrow())
    write_parquet(folder / "b.parquet", frame(a=[1.5, 2.0], label=[0, 1]).to_arrow())
    return folder


def unlabelled(folder: Path) -> Any:
    return hugging_face(numbers("test", "uint8")[0], np.full(15, -1))


def loader(folder: Path) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return torch.utils.data.DataLoader(torch_dataset(folder, *numbers("test", "uint8")).source)


REFUSED: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "missing": (lambda path: path / "no", {}, "no such file or folder: .*no"),
    "no label column": (
        lambda _: frame(a=[1], b=[2]),
        {},
        "holds y is not obvious; pass y=COLUMN; it has the columns a, b",
    ),
    "two label columns": (lambda _: frame(y=[1], label=[2], b=[2]), {}, "column holds y is not obvious.* y, label, b"),
    "no such column": (
        lambda _: frame(a=[1], y=[2]),
        {"x": "a,q"},
        "has no column 'q'; pass x=COLUMN; .* columns a, y",
    ),
    "y in x": (lambda _: frame(a=[1], y=[2]), {"x": "a,y"}, "y cannot be y and all of X too"),
    "parquet without y": (lambda path: parquet(path, a=[1], b=[2]), {}, "y is not obvious; .* it has the columns a, b"),
    "parquet text": (lambda path: parquet(path, a=["t"], y=[2]), {}, "column 'a' of X holds String, which are no numb"),
    "parquet lists": (lambda path: parquet(path, a=[[1.0], [1.0, 2.0]], y=[0, 1]), {}, "lists of different lengths"),
    "parquet missing": (lambda path: parquet(path, a=[1, None], y=[0, 1]), {}, "column 'a' of X has missing values"),
    "parquet schemas": (two_schemas, {}, "b.parquet: column 'a' holds double, in .*a.parquet int64"),
    "parquet damaged": (
        lambda path: (path / "a.parquet").write_bytes(b"PAR1") and path / "a.parquet",
        {},
        "cannot be r",
    ),
    "npz keys": (
        lambda path: saved(path, u=[1], v=[2]),
        {},
        "which key holds x is not obvious; pass x=KEY; .* keys u, v",
    ),
    "npz no key": (lambda path: saved(path, u=[1], v=[2]), {"x": "u", "y": "w"}, "lacks w; it holds u, v"),
    "npy alone": (lambda path: npy(path, *numbers("test", "uint8")).source, {}, r"x is the file itself, y=FILE\.npy"),
    "pictures of two sizes": (
        lambda path: of_size(of_size(path, (4, 4)), (4, 5), "zoo/2.png"),
        {},
        "2.png: is 5 x 4, L, 1.png is 4 x 4, L; all pictures must be of one size and mode",
    ),
    "pictures of two modes": (
        lambda path: of_size(of_size(path, (4, 4)), (4, 4, 3), "zoo/2.png"),
        {},
        "2.png: is 4 x 4, RGB, 1.png is 4 x 4, L",
    ),
    "no pictures": (lambda path: path, {}, r"no \.parquet files and no folders of pictures"),
    "not a picture": (
        lambda path: (of_size(path, (4, 4)) / "zoo/0.png").write_text("0") and path,
        {},
        "no picture that",
    ),
    "splits for samples": (folder_of_parts, {}, "test holds no pictures"),
    "not saved by datasets": (lambda path: f"hf:{path}", {}, "not a folder that save_to_disk of datasets wrote"),
    "splits": (splits_in_memory, {}, r"has the splits train, test, validation: pass one of them"),
    "no labels": (unlabelled, {}, r"row 0 has no label \(species is -1\)"),
    "changing items": (changing, {}, "item 0 differs from read to read"),
    "items": (lambda _: [(1, 2, 3)], {}, r"items must be pairs \(x, y\), item 0 is a tuple"),
    "columns of pairs": (lambda _: [([1.0], 2)], {"y": "label"}, "has no columns that x or y could name"),
    "loader": (loader, {}, "a DataLoader; a stream goes into statistics"),
    "array": (lambda _: np.ones((2, 2)), {}, r"a ndarray; pass a pair \(X, y\)"),
}


def read_whole(source: Any, **names: Any) -> None:
    """Everything is read: what is wrong in a later block is found then."""
    kd.read_samples(source, **names)[0][:]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_obvious_is_refused_with_what_there_is(name: str, tmp_path: Path) -> None:
    make, names, message = REFUSED[name]
    with pytest.raises((kd.DataError, TypeError), match=message) as caught:
        read_whole(make(tmp_path), **names)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"has no test set: give one, test=SOURCE \(--test\), or take a part of it, test_fraction=0.2"),
        ({"test": "self", "test_fraction": 0.5}, "it and test_fraction exclude each other"),
        ({"test_fraction": 0.001}, "leaves 0 for the test"),
    ],
)
def test_a_data_set_without_a_test_set_is_refused(given: dict[str, Any], message: str) -> None:
    pair = numbers("train", "uint8")
    given = {name: pair if value == "self" else value for name, value in given.items()}
    with pytest.raises(kd.DataError, match=message):
        kd.load_dataset(pair, **given)
    with pytest.raises(kd.DataError, match="test belongs to a file, folder or table; 'digits' has its own parts"):
        kd.load_dataset("digits", test=pair)


def test_pictures_with_alpha_and_other_files_are_said(tmp_path: Path) -> None:
    of_size(tmp_path, (4, 5, 4))
    (tmp_path / "zoo/notes.txt").write_text("")
    (tmp_path / "zoo/.hidden").write_text("")
    with (
        pytest.warns(DataWarning, match="RGBA; alpha is kept as a fourth channel"),
        pytest.warns(DataWarning, match=r"1 files are no pictures and left out, the first is .*notes.txt"),
    ):
        X, y = kd.read_samples(tmp_path)
    assert X.shape == (1, 4, 5, 4)
    assert y.tolist() == ["zoo"]


def test_splits_that_are_no_part_are_said() -> None:
    pair = numbers("train", "uint8")
    with pytest.warns(DataWarning, match="extra is neither train, test nor validation: left out"):
        kd.load_dataset({"train": pair, "test": pair, "extra": pair})


def test_targets_of_a_data_set_are_read_once_where_it_changes_them() -> None:
    class Shifted:
        """As torchvision's, with a target_transform."""

        targets = (0, 1)

        @staticmethod
        def target_transform(y: int) -> int:
            return 1 - y

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return np.ones(3), self.target_transform(self.targets[index])

    assert kd.read_samples(Shifted())[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("module", "name"), [("pyarrow.parquet", "parquet vectors"), ("datasets", "hf saved"), ("PIL", "pictures")]
)
def test_a_missing_library_is_named_with_how_to_get_it(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = KINDS[name].part(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(kd.BackendUnavailable, match=r"reading it needs .*: pip install"):
        kd.read_samples(made.source)


DOCS = Path(__file__).parents[1] / "docs" / "guide"


@pytest.mark.usefixtures("undrawn_pages")
def test_every_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.chdir(tmp_path)
    (X, y), (X_test, y_test) = numbers("train", "uint8"), numbers("test", "uint8")
    for name, part in (("", (X, y)), ("_test", (X_test, y_test))):
        np.save(f"X{name}.npy", part[0])
        np.save(f"y{name}.npy", part[1])
    np.savez("set.npz", x_train=X, y_train=y, x_test=X_test, y_test=y_test)
    np.savez("keys.npz", a=X, b=y, c=X_test, d=y_test)
    write_parquet(Path("set.parquet"), arrow_table(X, y))
    write_parquet(Path("test.parquet"), arrow_table(X_test, y_test))
    splits = datasets.DatasetDict({"train": hugging_face(X, y), "test": hugging_face(X_test, y_test)})
    splits.save_to_disk("saved")
    folder_of_parts(tmp_path)
    given = {
        "kd": kd,
        "X": X,
        "y": y,
        "X_test": X_test,
        "y_test": y_test,
        "splits": splits,
        "frame": arrow_table(X, y).drop_columns("note"),
        "torch_set": torch_dataset(tmp_path, X, y).source,
        "torch_test": torch_dataset(tmp_path, X_test, y_test).source,
    }
    table = [line for line in (DOCS / "data.md").read_text(encoding="utf-8").splitlines() if "<br>" in line]
    examples = [code for line in table for code in line.split("`") if code.startswith(("kd.", "--"))]
    assert len(examples) == 2 * len(table)
    for index, code in enumerate(examples):
        if code.startswith("kd."):
            found = eval(code, given)
            samples = (found.x_train[:], found.x_test[:]) if isinstance(found, kd.Dataset) else (found[0][:],)
            assert sum(map(len, samples)) in (60, 75), code
        else:
            assert command("distill", *code.split(), "--backend", "array", "--out", f"run{index}") == 0, code
