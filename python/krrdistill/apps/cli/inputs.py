"""What commands read: data sets, statistics, maps of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krrdistill.apps.cli import status
from krrdistill.apps.cli.settings import DistillSettings, RunSettings, VerifySettings
from krrdistill.common.documents import parse_json
from krrdistill.errors import DataError

if TYPE_CHECKING:
    from krrdistill.artifact.file import DistilledDataset
    from krrdistill.data import Dataset
    from krrdistill.data.parts import OnePart
    from krrdistill.maps import FeatureMap
    from krrdistill.ridge.statistics import RidgeStatistics

__all__ = ["about", "header_of", "load_data", "load_statistics", "named_map", "recorded_dataset", "test_part"]


def load_data(
    settings: RunSettings | VerifySettings, *, name: str | None = None, targets: str | None = None
) -> Dataset:
    """The data set that the settings name, or ``name``; a test set that was drawn is said."""
    from krrdistill.data import load_dataset

    dataset = load_dataset(
        name or settings.dataset,
        data_dir=settings.data_dir,
        download=settings.download,
        targets=targets,
        **vars(settings.source),
    )
    if settings.source.test_fraction is not None:
        part = f"{settings.source.test_fraction:.0%} of every class, drawn by a fixed seed"
        status.say(f"note: the test set of {dataset.name} is {len(dataset.x_test)} samples, {part}")
    return dataset


def test_part(settings: DistillSettings | VerifySettings) -> OnePart | None:
    """The test set that --test names: the test part of a source that has parts, else all of it."""
    from krrdistill.data.registry import load_part

    source = settings.source
    if source.test is None:
        return None
    with about(f"--test {source.test}"):
        return load_part(
            source.test,
            "test",
            data_dir=settings.data_dir,
            download=settings.download,
            x=source.x_test,
            y=source.y_test,
        )


def load_statistics(file: Path, kernel: str | None = None, *, backend: Any = None) -> RidgeStatistics:
    """Statistics of a file; ``kernel`` names a map of the user's own, which no file loads by itself."""
    from krrdistill.ridge.statistics import RidgeStatistics

    if not file.is_file():
        raise status.UsageError(f"no such file: {file}")
    feature_map = None if kernel is None else _own_map(kernel, int(header_of(file)["map"]["input_dim"]))
    return RidgeStatistics.load(file, feature_map, backend=backend)


def header_of(file: Path) -> dict[str, Any]:
    """The header of a file of ours, of which no other array is read; empty for any other file."""
    from krrdistill.data.npz import npz_arrays, npz_keys

    if not (file.is_file() and file.suffix.lower() == ".npz" and "header" in npz_keys(file)):
        return {}
    try:
        found = parse_json("header", str(npz_arrays(file, ["header"])["header"]))
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def named_map(kernel: str, file: Path) -> FeatureMap:
    """The map that --kernel names, for a file that was made with a user's map."""
    from krrdistill.artifact.file import read_points

    return _own_map(kernel, read_points(file).preprocessing.input_dim)


def _own_map(kernel: str, input_dim: int) -> FeatureMap:
    from krrdistill.maps.user import load_object

    if ":" not in kernel:
        raise status.UsageError(f"--kernel names a map of your own, package.module:object, got {kernel!r}")
    return load_object(kernel, input_dim)


def recorded_dataset(distilled: DistilledDataset, file: Path) -> str:
    """The named data set that a file says it was made from."""
    from krrdistill.data import available_datasets

    name = distilled.meta.get("dataset")
    if distilled.meta.get("split") is False and distilled.weights is None:
        said = distilled.made_from if name is None else repr(name)
        raise status.UsageError(f"{file} was made from statistics, of {said}: give them with --statistics")
    if name is None:
        raise status.UsageError(
            f"{file} was made from {distilled.made_from}, data without a name: give them with --dataset"
        )
    if name not in available_datasets():
        raise status.UsageError(
            f"{file} was made from {name!r}: give it with --dataset, and the other options of data as in the run"
        )
    return str(name)


@contextmanager
def about(what: object) -> Iterator[None]:
    """Errors of the block about data say what they are about."""
    try:
        yield
    except (DataError, TypeError) as error:
        text = str(error)
        raise DataError(text if str(what) in text else f"{what}: {text}") from error
