"""Fetches the official archives, verified by their published checksums."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from krrdistill.common.archive import one_line
from krrdistill.errors import BackendUnavailable, DataError

_LARGEST = 1 << 28  # bytes of a file; the official ones have up to 171 MB
_LONGEST = 3600.0  # seconds for a file
_STALLED = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """Files below one address. folder: where they go inside the data folder; md5: file name to checksum."""

    base_url: str
    folder: str
    md5: Mapping[str, str]


class _Bounded:
    """A file that takes no more than a file of a data set has, nor for longer than anybody waits."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._written, self._until = file, 0, time.monotonic() + _LONGEST

    def write(self, piece: bytes) -> int:
        """Raises OSError where it is too much or too late."""
        self._written += len(piece)
        if self._written > _LARGEST:
            raise OSError(f"it is larger than {_LARGEST} bytes")
        if time.monotonic() > self._until:
            raise OSError(f"it takes longer than {_LONGEST:.0f} s")
        return self._file.write(piece)

    def flush(self) -> None:
        """Hands on what was written."""
        self._file.flush()


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
    it is complete and its checksum is right; it ends where it is larger than 2^28 bytes or takes an hour.
    Raises BackendUnavailable without pooch, DataError when a file cannot be had or has the wrong checksum.
    """
    try:
        import pooch
    except ImportError as error:
        raise BackendUnavailable('downloading needs pooch: pip install "krrdistill[download]"') from error
    remote = REMOTES[name] if remote is None else remote
    download = pooch.HTTPDownloader(timeout=_STALLED)

    def bounded(url: str, path: str, pooch_of: Any) -> None:
        with open(path, "wb") as stream:
            download(url, _Bounded(stream), pooch_of)

    files = []
    for file, md5 in remote.md5.items():
        url = remote.base_url + file
        try:
            folder = data_dir / remote.folder
            files.append(Path(pooch.retrieve(url, f"md5:{md5}", fname=file, path=folder, downloader=bounded)))
        # The exceptions of requests are OSErrors; a wrong checksum is a ValueError.
        except (OSError, ValueError) as error:
            raise DataError(f"cannot download {url}: {one_line(error)}") from error
    return files
