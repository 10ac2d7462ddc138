"""Downloads, against a server on this machine."""

import dataclasses
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from data_files import pack, tiny_images, write_cifar_python, write_mnist, write_npz
from krrdistill.common.files import sha256_of
from krrdistill.data import load_dataset
from krrdistill.data.download import REMOTES, Remote, fetch
from krrdistill.data.formats import CIFAR_VERSIONS
from krrdistill.errors import BackendUnavailable, DataError

pytest.importorskip("pooch", reason="the download extra (pooch) is not installed")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; a file named in ``short`` is promised one byte longer than it is."""

    requested: list[str]
    short: set[str]

    def do_GET(self):
        name = self.path.lstrip("/")
        self.requested.append(name)
        if name not in self.short:
            super().do_GET()
            return
        data = self.translate_path(self.path)
        with open(data, "rb") as file:
            content = file.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 1))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Nothing on stderr."""


@dataclasses.dataclass
class Server:
    """A running server: its address, the folder it serves, what was asked of it."""

    url: str
    folder: object
    requested: list
    short: set


@pytest.fixture
def server(tmp_path, monkeypatch):
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (Quiet,), {"requested": [], "short": set()})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}/"
    yield Server(url, folder, handler.requested, handler.short)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def served(server, name):
    """The official table entry with the local address and the checksums of the files served there."""
    sha256 = {file: sha256_of(server.folder / file) for file in REMOTES[name].sha256}
    return dataclasses.replace(REMOTES[name], base_url=server.url, sha256=sha256)


def serve_mnist(server):
    arrays = tiny_images((28, 28))
    write_mnist(server.folder, arrays, compress=True)
    return arrays


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def assert_same(dataset, arrays):
    for field, expected in zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True):
        np.testing.assert_array_equal(getattr(dataset, field), expected)


def test_mnist_is_fetched_once_and_read(server, tmp_path, monkeypatch):
    arrays = serve_mnist(server)
    monkeypatch.setitem(REMOTES, "mnist", served(server, "mnist"))
    for _ in range(2):
        assert_same(load_dataset("mnist", data_dir=tmp_path / "d", download=True), arrays)
    assert files_below(tmp_path / "d") == sorted(f"MNIST/raw/{file}" for file in REMOTES["mnist"].sha256)
    assert server.requested == list(REMOTES["mnist"].sha256)  # the second time nothing was asked for
    assert_same(load_dataset("mnist", data_dir=tmp_path / "d"), arrays)


@pytest.mark.parametrize(("name", "k"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_fetched_and_read(server, tmp_path, monkeypatch, name, k):
    arrays = tiny_images((32, 32, 3), k=k)
    pack(write_cifar_python(server.folder, name, arrays), server.folder / next(iter(REMOTES[name].sha256)))
    monkeypatch.setitem(REMOTES, name, served(server, name))
    assert_same(load_dataset(name, data_dir=tmp_path / "d", download=True), arrays)
    assert files_below(tmp_path / "d") == list(REMOTES[name].sha256)


def test_nothing_is_fetched_when_the_data_is_there(server, tmp_path, monkeypatch):
    monkeypatch.setitem(REMOTES, "mnist", Remote(server.url, ".", {"a": "0" * 64}))
    arrays = tiny_images((28, 28))
    write_npz(tmp_path / "mnist.npz", arrays)
    assert_same(load_dataset("mnist", data_dir=tmp_path, download=True), arrays)
    assert server.requested == []


def test_nothing_is_fetched_unasked(server, tmp_path, monkeypatch):
    serve_mnist(server)
    monkeypatch.setitem(REMOTES, "mnist", served(server, "mnist"))
    with pytest.raises(DataError, match="--download"):
        load_dataset("mnist", data_dir=tmp_path / "d")
    assert server.requested == []
    assert not (tmp_path / "d").exists()


def test_only_missing_files_are_fetched(server, tmp_path):
    serve_mnist(server)
    remote = served(server, "mnist")
    kept, *fetched = remote.sha256
    raw = tmp_path / "d" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / kept).write_bytes((server.folder / kept).read_bytes())
    assert fetch("mnist", tmp_path / "d", remote=remote) == [raw / file for file in remote.sha256]
    assert server.requested == fetched


def test_wrong_checksum_leaves_no_file(server, tmp_path, monkeypatch):
    serve_mnist(server)
    remote = served(server, "mnist")
    first = next(iter(remote.sha256))
    remote = dataclasses.replace(remote, sha256={**remote.sha256, first: "0" * 64})
    monkeypatch.setitem(REMOTES, "mnist", remote)
    words = f"load_dataset: cannot download {server.url}{first}: its SHA-256 is [0-9a-f]+, not 0+: it is another file"
    with pytest.raises(DataError, match=words) as e:
        load_dataset("mnist", data_dir=tmp_path / "d", download=True)
    assert "\n" not in str(e.value)
    assert files_below(tmp_path / "d") == []


def test_broken_connection_leaves_no_file(server, tmp_path):
    serve_mnist(server)
    remote = served(server, "mnist")
    server.short.add(next(iter(remote.sha256)))
    with pytest.raises(DataError, match=r"cannot download .*IncompleteRead"):
        fetch("mnist", tmp_path / "d", remote=remote)
    assert files_below(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [("_LARGEST", 100, "it is larger than 100 bytes"), ("_LONGEST", -1.0, "it takes longer than")],
)
def test_download_that_is_too_large_or_too_slow_leaves_no_file(server, tmp_path, monkeypatch, limit, value, words):
    serve_mnist(server)
    monkeypatch.setattr(f"krrdistill.data.download.{limit}", value)
    with pytest.raises(DataError, match=f"cannot download {server.url}.*: {words}"):
        fetch("mnist", tmp_path / "d", remote=served(server, "mnist"))
    assert files_below(tmp_path / "d") == []


def test_download_removes_what_a_killed_one_left(server, tmp_path):
    serve_mnist(server)
    remote = served(server, "mnist")
    raw = tmp_path / "d" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / f".{next(iter(remote.sha256))}.0123abcd.partial").write_bytes(b"half")
    assert fetch("mnist", tmp_path / "d", remote=remote) == [raw / file for file in remote.sha256]
    assert {path.name for path in raw.iterdir()} == set(remote.sha256)


def test_missing_file_on_the_server(server, tmp_path):
    with pytest.raises(DataError, match=r"cannot download .*cifar-10-python.tar.gz: 404"):
        fetch("cifar10", tmp_path / "d", remote=dataclasses.replace(REMOTES["cifar10"], base_url=server.url))
    assert files_below(tmp_path / "d") == []


def test_server_down(server, tmp_path, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/"
    remote = dataclasses.replace(REMOTES["cifar100"], base_url=url)
    monkeypatch.setitem(REMOTES, "cifar100", remote)
    with pytest.raises(DataError, match=f"load_dataset: cannot download {url}cifar-100-python.tar.gz: ") as caught:
        load_dataset("cifar100", data_dir=tmp_path / "d", download=True)
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path / "d") == []


def test_unwritable_folder(server, tmp_path):
    serve_mnist(server)
    (tmp_path / "d").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot download"):
        fetch("mnist", tmp_path / "d", remote=served(server, "mnist"))


def test_without_pooch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(BackendUnavailable, match=r'load_dataset: .*pip install "krrdistill\[download\]"'):
        load_dataset("mnist", data_dir=tmp_path, download=True)


def test_the_table_names_files_that_are_looked_for():
    for name, versions in CIFAR_VERSIONS.items():
        assert set(REMOTES[name].sha256) == {versions[0].archive}
    for remote in REMOTES.values():
        assert re.fullmatch(r"https://[\w./~-]+/", remote.base_url)
        assert all(re.fullmatch("[0-9a-f]{64}", each) for each in remote.sha256.values())
