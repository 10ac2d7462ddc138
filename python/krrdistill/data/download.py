"""Fetches the official archives, verified by their published SHA-256."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from krrdistill.common.archive import one_line
from krrdistill.common.files import sha256_of, write_atomically
from krrdistill.errors import BackendUnavailable, DataError

_LARGEST = 1 << 28  # bytes of a file; the official ones have up to 171 MB
_LONGEST = 3600.0  # seconds for a file
_STALLED = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """Files below one address. folder: where they go inside the data folder; sha256: file name to checksum."""

    base_url: str
    folder: str
    sha256: Mapping[str, str]


class _Bounded:
    """A file that takes no more than a file of a data set has, nor for longer than anybody waits; digest: SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._written, self._until = file, 0, time.monotonic() + _LONGEST
        self.digest = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        """Raises OSError where it is too much or too late."""
        self._written += len(piece)
        if self._written > _LARGEST:
            raise OSError(f"it is larger than {_LARGEST} bytes")
        if time.monotonic() > self._until:
            raise OSError(f"it takes longer than {_LONGEST:.0f} s")
        self.digest.update(piece)
        return self._file.write(piece)

    def flush(self) -> None:
        """Hands on what was written."""
        self._file.flush()


# CIFAR: addresses of https://www.cs.toronto.edu/~kriz/cifar.html, which prints MD5 only; the SHA-256 are those that
# Keras (keras.datasets) and torchvision (prototype.datasets) check, too.
# MNIST: the mirror that torchvision.datasets.MNIST uses, since the original site no longer serves the files; they go
# where torchvision keeps them. The SHA-256 are those that its prototype.datasets check.
REMOTES: dict[str, Remote] = {
    "mnist": Remote(
        base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folder="MNIST/raw",
        sha256={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "cifar10": Remote(
        base_url="https://www.cs.toronto.edu/~kriz/",
        folder=".",
        sha256={"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
    ),
    "cifar100": Remote(
        base_url="https://www.cs.toronto.edu/~kriz/",
        folder=".",
        sha256={"cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"},
    ),
}


def fetch(name: str, data_dir: Path, *, remote: Remote | None = None) -> list[Path]:
    """Downloads what data set ``name`` consists of into ``data_dir``; returns the files.

    remote : other than the official one
    A file that is already there with the right checksum is kept. A download appears under its name only when
    it is complete and its checksum is right; it ends where it is larger than 2^28 bytes or takes an hour. What a killed
    download left is removed by the next.
    Raises BackendUnavailable without pooch, DataError when a file cannot be had or has the wrong checksum.
    """
    try:
        import pooch
    except ImportError as error:
        raise BackendUnavailable('downloading needs pooch: pip install "krrdistill[download]"') from error
    remote = REMOTES[name] if remote is None else remote
    download = pooch.HTTPDownloader(timeout=_STALLED)

    def receive(url: str, sha256: str, stream: IO[bytes]) -> None:
        bounded = _Bounded(stream)
        download(url, bounded, None)
        if bounded.digest.hexdigest() != sha256:
            raise OSError(f"its SHA-256 is {bounded.digest.hexdigest()}, not {sha256}: it is another file")

    folder, files = data_dir / remote.folder, []
    for file, sha256 in remote.sha256.items():
        url, path = remote.base_url + file, folder / file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or sha256_of(path) != sha256:
                write_atomically(path, partial(receive, url, sha256))
        except OSError as error:  # the exceptions of requests are OSErrors, too
            raise DataError(f"cannot download {url}: {one_line(error)}") from error
        files.append(path)
    return files
