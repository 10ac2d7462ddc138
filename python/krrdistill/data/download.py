"""Fetches the official archives, verified by their published checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from krrdistill.common.archive import one_line
from krrdistill.errors import BackendUnavailable, DataError


@dataclass(frozen=True)
class Remote:
    """Files below one address. folder: where they go inside the data folder; md5: file name to checksum."""

    base_url: str
    folder: str
    md5: Mapping[str, str]


# CIFAR: checksums and addresses as printed on https://www.cs.toronto.edu/~kriz/cifar.html.
# MNIST: the mirror and checksums that torchvision.datasets.MNIST uses, since the original site no longer
# serves the files; they go where torchvision keeps them.
REMOTES: dict[str, Remote] = {
    "mnist": Remote(
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folder="MNIST/raw",
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "cifar10": Remote(
        base_url="https://www.cs.toronto.edu/~kriz/",
        folder=".",
        md5={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    ),
    "cifar100": Remote(
        base_url="https://www.cs.toronto.edu/~kriz/",
        folder=".",
        md5={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
    ),
}


def fetch(name: str, data_dir: Path, *, remote: Remote | None = None) -> list[Path]:
    """Downloads what data set ``name`` consists of into ``data_dir``; returns the files.

    remote : other than the official one
    A file that is already there with the right checksum is kept. A download appears under its name only when
    it is complete and its checksum is right.
    Raises BackendUnavailable without pooch, DataError when a file cannot be had or has the wrong checksum.
    """
    try:
        import pooch
    except ImportError as error:
        raise BackendUnavailable('downloading needs pooch: pip install "krrdistill[download]"') from error
    remote = REMOTES[name] if remote is None else remote
    files = []
    for file, md5 in remote.md5.items():
        url = remote.base_url + file
        try:
            files.append(Path(pooch.retrieve(url, f"md5:{md5}", fname=file, path=data_dir / remote.folder)))
        # The exceptions of requests are OSErrors; a wrong checksum is a ValueError.
        except (OSError, ValueError) as error:
            raise DataError(f"cannot download {url}: {one_line(error)}") from error
    return files
