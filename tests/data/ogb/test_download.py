"""Downloading OGB datasets, also from servers that are slow, faulty or unreachable, and locating their files."""

import http.server
import shutil
import socket
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gt.data.ogb import catalogue as ogb_catalogue
from gt.data.ogb import download as ogb_download
from tests.data.ogb_files import assert_fails, assert_same_as_ogb, read_molecules, write_molecules


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_molecules(tmp_path / "ogbg_molhiv", [0, 1, 1, 0])
    return tmp_path


RAW = ("num-node-list", "num-edge-list", "node-feat", "edge", "edge-feat", "graph-label")


@pytest.mark.parametrize("part", [*RAW, *ogb_download.SPLITS])
def test_missing_file_is_reported(root: Path, part: str) -> None:
    path = ogb_download.files("ogbg-molhiv", root / "ogbg_molhiv")[part]
    path.unlink()
    assert_fails(lambda: read_molecules("ogbg-molhiv", root), f"{path} is missing", "data.root")


def test_older_release_is_reported(root: Path) -> None:
    (root / "ogbg_molhiv" / "RELEASE_v1.txt").rename(root / "ogbg_molhiv" / "RELEASE_v0.txt")
    assert_fails(lambda: read_molecules("ogbg-molhiv", root), "RELEASE_v1.txt is missing", "older release", "data.root")


MINI = ("ogbg-molhiv", "ogbg-ppa", "ogbg-code2", "ogbn-arxiv", "ogbn-proteins", "ogbl-collab", "pcqm4m-v2")


@pytest.mark.parametrize("name", MINI)
def test_files_lists_every_file_of_a_dataset(real_data: Path, name: str) -> None:
    folder = ogb_download.locate(name, real_data / "ogb_mini")
    ignored = {"mol.csv.gz", "split_dict_np2.pt", f"RELEASE_v{ogb_catalogue.metadata(name)['version']}.txt"}
    present = {path for path in folder.rglob("*") if path.is_file() and path.name not in ignored}
    assert set(ogb_download.files(name, folder).values()) == present


def test_species_file_under_either_name(tmp_path: Path) -> None:
    raw = tmp_path / "ogbn_proteins" / "raw"
    raw.mkdir(parents=True)
    files = ogb_download.files("ogbn-proteins", tmp_path / "ogbn_proteins")
    assert files["node_species"] == raw / "node_species.csv.gz"
    (raw / "species.csv.gz").touch()
    assert ogb_download.files("ogbn-proteins", tmp_path / "ogbn_proteins")["node_species"] == raw / "species.csv.gz"


def test_catalogue_has_datasets_of_every_level() -> None:
    levels = {name: info["level"] for name, info in ogb_catalogue.catalogue().items()}
    assert (levels["ogbg-code2"], levels["ogbn-mag"], levels["ogbl-ddi"]) == ("graph", "node", "link")
    for name in levels:
        assert ogb_download.files(name, Path("x"))
        assert ogb_catalogue.metadata(name)["url"].startswith("http")
    assert_fails(lambda: ogb_catalogue.metadata("ogbn-arxif"), "did you mean ogbn-arxiv?")
    assert_fails(lambda: ogb_catalogue.metadata("ogbg-ppa", "link"), "no link-level dataset", "did you mean ogbl-ppa?")


class Server(http.server.ThreadingHTTPServer):
    """Gives the same answer to every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.headers: dict[str, str] = {}
        self.stall = threading.Event()
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hiv.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.server.stall.is_set() and self.server.requests > 1:
            self.wfile.write(self.server.body[:10])
            self.wfile.flush()
            threading.Event().wait(1)
        else:
            self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A local server with a valid archive, to which the URL of ogbg-molhiv in OGB's metadata points."""
    folder = tmp_path_factory.mktemp("packed")
    write_molecules(folder / "hiv", [0, 1, 1, 0])
    archive = shutil.make_archive(str(folder / "archive"), "zip", folder, "hiv")
    with Server() as server:
        server.body = Path(archive).read_bytes()
        real = ogb_catalogue.catalogue()
        patched = real | {"ogbg-molhiv": real["ogbg-molhiv"] | {"url": server.url}}
        monkeypatch.setattr(ogb_catalogue, "catalogue", lambda: patched)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked a question"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remaining_files(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.suffix != ".lock"]


def test_download_into_new_folder(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "new"
    before = socket.getdefaulttimeout()
    assert ogb_download.locate("ogbg-molhiv", root) == root / "ogbg_molhiv"
    assert_same_as_ogb("ogbg-molhiv", root)
    assert remaining_files(root) == ["ogbg_molhiv"]
    assert socket.getdefaulttimeout() == before
    requests = server.requests
    ogb_download.locate("ogbg-molhiv", root)
    assert server.requests == requests


def test_download_replaces_remains_of_failed_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ogbg_molhiv" / "raw").mkdir(parents=True)
    assert_same_as_ogb("ogbg-molhiv", ogb_download.locate("ogbg-molhiv", tmp_path).parent)


def test_concurrent_calls_download_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls, original = [], ogb_download.download_url

    def download(url: str, folder: str) -> str:
        urls.append(url)
        return original(url, folder)

    monkeypatch.setattr(ogb_download, "download_url", download)
    threads = [threading.Thread(target=ogb_download.locate, args=("ogbg-molhiv", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 1
    assert remaining_files(tmp_path) == ["ogbg_molhiv"]


def test_refused_connection_is_reported(server: Server, tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/hiv.zip"
        ogb_catalogue.catalogue()["ogbg-molhiv"]["url"] = url
        for root in (tmp_path / "new", tmp_path):
            call = partial(read_molecules, "ogbg-molhiv", root)
            assert_fails(call, str(root / "ogbg_molhiv"), url, "refused", "data.root", "raw")
    assert list(tmp_path.iterdir()) == []


def test_disk_space_check_includes_store(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**21 + 2 * len(server.body)))
    assert_fails(
        lambda: ogb_download.locate("ogbg-molhiv", tmp_path, store_bytes=2**22),
        "needs 4 MiB",
        "2 are free",
        "larger disk",
    )
    assert remaining_files(tmp_path) == []
    ogb_download.locate("ogbg-molhiv", tmp_path, store_bytes=2**20)


@pytest.mark.parametrize("fault", ["truncated", "page", "other", "incomplete", "no size", "stalled", "disk", "short"])
def test_failed_download_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    messages = [str(tmp_path)]
    if fault == "truncated":
        server.body = server.body[:-100]
        messages += ["not a zip file"]
    elif fault == "page":
        server.body = b"<html>please log in</html>"
        messages += ["not a zip file"]
    elif fault in ("other", "incomplete"):
        path = tmp_path / "other.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hiv/raw/num-node-list.csv.gz" if fault == "incomplete" else "readme", b"x")
        server.body = path.read_bytes()
        path.unlink()
        messages += ["lacks hiv/raw/num-" + ("edge" if fault == "incomplete" else "node")]
    elif fault == "no size":
        server.headers = {"Content-Length": ""}
        messages += ["does not report its size"]
    elif fault == "stalled":
        server.stall.set()
        monkeypatch.setattr(ogb_download, "TIMEOUT", 0.2)
        messages += ["timed out"]
    elif fault == "disk":
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * len(server.body) - 1))
        messages += ["MiB", "data.root"]
    else:
        server.headers = {"Content-Length": str(len(server.body) + 5)}  # the connection closes before that
        server.body = server.body[:200]
    before = socket.getdefaulttimeout()
    assert_fails(lambda: ogb_download.locate("ogbg-molhiv", tmp_path), *messages)
    assert remaining_files(tmp_path) == []
    assert socket.getdefaulttimeout() == before


def test_root_must_not_be_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_fails(lambda: ogb_download.locate("ogbg-molhiv", tmp_path / "file"), "data.root")


def test_keyboard_interrupt_is_not_swallowed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> str:
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722  OGB's code has a bare except
            raise RuntimeError("Stopped downloading due to interruption.")  # noqa: B904

    monkeypatch.setattr(ogb_download, "download_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ogb_download.locate("ogbg-molhiv", tmp_path)
    assert remaining_files(tmp_path) == []
