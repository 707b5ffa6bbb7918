"""OGB's molecule datasets, against OGB's own reader and Evaluator, and against broken files and servers."""

import gzip
import http.server
import os
import shutil
import socket
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics import MetricCollection

from gt.data import ogb
from gt.data.ogb import OGBMetric
from gt.errors import UserError

# isort: split
# after gt.data.ogb, which keeps the import of ogb from asking the network
from ogb.graphproppred import Evaluator
from ogb.io.read_graph_raw import read_csv_graph_raw

DATA = os.environ.get("GT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="GT_DATA names no folder with real data")

# three bonded atoms, a lone atom, a pair, a triangle with a fourth atom apart
SIZES, BONDS = [3, 1, 2, 4], [2, 0, 1, 3]
EDGES = [[0, 1], [2, 1], [1, 0], [0, 1], [1, 2], [2, 0]]
ATOMS = np.arange(90).reshape(10, 9) % [119, 5, 12, 12, 10, 6, 6, 2, 2]
KINDS = [[0, 0, 0], [1, 2, 1], [4, 5, 0], [3, 0, 1], [3, 0, 1], [2, 1, 0]]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def table(rows: object) -> str:
    return pd.DataFrame(rows).to_csv(header=False, index=False)


def write(folder: Path, labels: object) -> Path:
    """A dataset of four molecules in OGB's layout."""
    raw = {"num-node-list": SIZES, "num-edge-list": BONDS, "edge": EDGES, "node-feat": ATOMS, "edge-feat": KINDS}
    for part, rows in {**raw, "graph-label": labels}.items():
        put(folder / "raw" / f"{part}.csv.gz", table(rows))
    for part, ids in {"train": [3, 0], "valid": [1], "test": [2]}.items():
        put(folder / "split" / "scaffold" / f"{part}.csv.gz", table(ids))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "ogbg_molhiv", [0, 1, 1, 0])
    return tmp_path


def same_as_ogb(name: str, root: Path) -> None:
    """Every graph, label and split is what OGB's own reader makes of the same files."""
    folder = root / name.replace("-", "_")
    graphs = ogb.build(name, root)
    theirs = read_csv_graph_raw(str(folder / "raw"), add_inverse_edge=True)
    assert len(graphs) == len(theirs)
    for g, other in enumerate(theirs):
        nodes, edges = (slice(p[g], p[g + 1]) for p in (graphs.node_ptr, graphs.edge_ptr))
        np.testing.assert_array_equal(graphs.nodes["x"][nodes], other["node_feat"])
        mine = np.c_[graphs.edge_index[:, edges].T, graphs.edges["edge_attr"][edges]]
        expected = np.c_[other["edge_index"].T, other["edge_feat"]]
        np.testing.assert_array_equal(mine, expected[np.lexsort((expected[:, 0], expected[:, 1]))])
    labels = pd.read_csv(folder / "raw" / "graph-label.csv.gz", header=None).to_numpy(np.float32)
    np.testing.assert_array_equal(graphs.graphs["y"], labels)
    for part in ("train", "valid", "test"):
        ids = pd.read_csv(folder / "split" / "scaffold" / f"{part}.csv.gz", header=None)[0]
        np.testing.assert_array_equal(graphs.splits[part], ids)


def test_no_thread_asks_for_a_newer_ogb() -> None:
    assert sys.modules["outdated"] is None


def test_build_on_four_molecules(root: Path) -> None:
    graphs = ogb.build("ogbg-molhiv", root)
    assert graphs.node_ptr.tolist() == [0, 3, 4, 6, 10]
    assert graphs.edge_ptr.tolist() == [0, 4, 4, 6, 12]
    assert graphs.edge_index[:, :6].tolist() == [[1, 0, 2, 1, 1, 0], [0, 1, 1, 2, 0, 1]]
    assert graphs.edges["edge_attr"][:6].tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 1], [1, 2, 1], [4, 5, 0], [4, 5, 0]]
    assert graphs.graphs["y"].dtype == np.float32
    schema = graphs.schema
    assert (schema.level, schema.kind, schema.outputs, schema.max_nodes) == ("graph", "binary", 1, 4)
    assert sum(schema.node_vocab) == 174
    assert schema.edge_vocab == (5, 6, 2)
    same_as_ogb("ogbg-molhiv", root)


def test_several_tasks_some_unlabelled(tmp_path: Path) -> None:
    labels = np.tile([0, 1, np.nan], 16).reshape(4, 12)
    labels[2] = np.nan
    write(tmp_path / "ogbg_moltox21", labels)
    same_as_ogb("ogbg-moltox21", tmp_path)
    assert ogb.build("ogbg-moltox21", tmp_path).schema.outputs == 12


def test_one_task_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "ogbg_molbbbp", [0, np.nan, 1, np.nan])
    same_as_ogb("ogbg-molbbbp", tmp_path)


def test_regression(tmp_path: Path) -> None:
    write(tmp_path / "ogbg_mollipo", [0.1, -3.25, 1e-3, 4.0])
    same_as_ogb("ogbg-mollipo", tmp_path)
    assert ogb.build("ogbg-mollipo", tmp_path).schema.kind == "regression"


def test_molecules_of_one_atom_only(root: Path) -> None:
    raw = root / "ogbg_molhiv" / "raw"
    for part, text in {
        "num-node-list": "1\n" * 4,
        "num-edge-list": "0\n" * 4,
        "node-feat": table(ATOMS[:4]),
        "edge": "",
        "edge-feat": "",
    }.items():
        put(raw / f"{part}.csv.gz", text)
    graphs = ogb.build("ogbg-molhiv", root)
    assert len(graphs) == 4
    assert graphs.edge_index.shape == (2, 0)
    assert graphs.edges["edge_attr"].shape == (0, 3)


@needs_data
def test_same_as_ogb_on_real_molecules() -> None:
    same_as_ogb("ogbg-molhiv", Path(DATA or "", "ogb_mini"))


@needs_data
def test_published_facts_of_molhiv() -> None:
    graphs = ogb.build("ogbg-molhiv", Path(DATA or ""))
    y = graphs.graphs["y"][:, 0]
    assert len(graphs) == 41_127
    assert graphs.sizes.mean() == pytest.approx(25.51, abs=0.005)
    assert np.diff(graphs.edge_ptr).mean() / 2 == pytest.approx(27.47, abs=0.005)
    assert y.sum() == 1_443
    counts = {part: (len(ids), y[ids].sum()) for part, ids in graphs.splits.items()}
    assert counts == {"train": (32_901, 1_232), "valid": (4_113, 81), "test": (4_113, 130)}


def test_key_follows_contents(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("copy")
    shutil.copytree(root / "ogbg_molhiv", other / "ogbg_molhiv")
    os.utime(other / "ogbg_molhiv" / "raw" / "edge.csv.gz", (1, 1))
    assert ogb.key("ogbg-molhiv", other) == ogb.key("ogbg-molhiv", root)
    put(other / "ogbg_molhiv" / "raw" / "graph-label.csv.gz", "1\n1\n1\n0\n")
    assert ogb.key("ogbg-molhiv", other) != ogb.key("ogbg-molhiv", root)


def fails(call: Callable[[], object], *parts: str) -> str:
    """The error's one line, which has all these parts."""
    with pytest.raises(UserError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
    return line


@pytest.mark.parametrize(
    ("part", "text", "says"),
    [
        ("num-node-list", "", ["num-node-list.csv.gz is empty"]),
        ("num-node-list", "3\n-1\n4\n4\n", ["row 2", "-1 is less than 0"]),
        ("num-node-list", "3\n1\n2\n5\n", ["node-feat.csv.gz has 10 rows", "ask for 11"]),
        ("num-node-list", "3\n2\n1\n4\n", ["edge.csv.gz, row 3", "1 is no atom"]),
        ("num-node-list", "3,1\n1,1\n2,1\n4,1\n", ["row 1", "2 columns where there should be 1"]),
        ("num-edge-list", "2\n0\n1\n", ["num-edge-list.csv.gz has 3 rows", "ask for 4"]),
        ("num-edge-list", "2\n0\n1\n4\n", ["has 6 rows", "ask for 7"]),
        ("edge", "0,1\n1,2\n0,1\n0,1\n1,4\n2,0\n", ["edge.csv.gz, row 5", "4 is no atom"]),
        ("edge", "0,1\n1,2\n0,1\n0,1\n1,-1\n2,0\n", ["row 5", "-1 is no atom"]),
        ("edge", "0,1\n1,2\n0,1\n0,1\n1\n2,0\n", ["row 5", "1 columns where there should be 2"]),
        ("edge", "0,1\n1,2\n0,1\n0,1,5\n1,2\n2,0\n", ["row 4", "3 columns where there should be 2"]),
        ("edge", "0,1\n1,2\n0,\n0,1\n1,2\n2,0\n", ["row 3", "'' is not a whole number"]),
        ("edge", "0,1\n1,2\n0,1.5\n0,1\n1,2\n2,0\n", ["row 3", "'1.5' is not a whole number"]),
        ("edge", "0,1\n1,2\n0,99999999999999999999\n0,1\n1,2\n2,0\n", ["row 3", "99999999999999999999"]),
        ("edge-feat", "0,0,0\n" * 5, ["edge-feat.csv.gz has 5 rows", "ask for 6"]),
        ("edge-feat", "0,0,0\n" * 5 + "0,6,0\n", ["row 6", "6 is outside"]),
        ("node-feat", table(ATOMS).replace("45,", "oxygen,"), ["node-feat.csv.gz, row 6", "'oxygen'"]),
        ("node-feat", table(ATOMS[:, :8]), ["row 1", "8 columns where there should be 9"]),
        ("graph-label", "0\n1\n2\n0\n", ["graph-label.csv.gz, row 3", "2.0 is neither 0 nor 1"]),
        ("graph-label", "0\n1\nactive\n0\n", ["row 3", "'active' is not a number"]),
        ("graph-label", "0\n1\n0\n", ["has 3 rows", "ask for 4"]),
        ("train", "3\n4\n", ["train.csv.gz, row 2", "4 is no graph"]),
        ("train", "3\n3\n", ["train.csv.gz, row 1", "more than once"]),
        ("test", "2\n1\n", ["test.csv.gz, row 2", "1 is in the splits more than once"]),
    ],
)
def test_malformed_table(root: Path, part: str, text: str, says: list[str]) -> None:
    put(ogb.files("ogbg-molhiv", root / "ogbg_molhiv")[part], text)
    fails(lambda: ogb.build("ogbg-molhiv", root), *says)


def test_label_rows_that_are_short_are_not_taken_for_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "ogbg_molclintox", [[0, 1], [1, 1], [0, 0], [1, np.nan]])
    put(tmp_path / "ogbg_molclintox" / "raw" / "graph-label.csv.gz", "0,1\n1,1\n0\n1,\n")
    fails(lambda: ogb.build("ogbg-molclintox", tmp_path), "row 3: 1 columns where there should be 2")


def test_infinite_target(tmp_path: Path) -> None:
    write(tmp_path / "ogbg_molesol", [1, 2, np.inf, 3])
    fails(lambda: ogb.build("ogbg-molesol", tmp_path), "graph-label.csv.gz, row 3: inf is not finite")


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda data: b"<html>", lambda data: b""])
def test_damaged_file(root: Path, damage: Callable[[bytes], bytes]) -> None:
    path = root / "ogbg_molhiv" / "raw" / "node-feat.csv.gz"
    path.write_bytes(damage(path.read_bytes()))
    fails(lambda: ogb.build("ogbg-molhiv", root), "node-feat.csv.gz")


@pytest.mark.parametrize("part", [*ogb.RAW, *ogb.SPLITS])
def test_missing_file(root: Path, part: str) -> None:
    path = ogb.files("ogbg-molhiv", root / "ogbg_molhiv")[part]
    path.unlink()
    fails(lambda: ogb.build("ogbg-molhiv", root), f"{path} is missing", "data.root")


@pytest.mark.parametrize(
    ("name", "near"),
    [("ogbg_molhiv", "ogbg-molhiv"), ("molpcba", "ogbg-molpcba"), ("ogbg-ppa", "ogbg-mol"), ("", "ogbg")],
)
def test_unknown_name(tmp_path: Path, name: str, near: str) -> None:
    fails(lambda: ogb.locate(name, tmp_path), repr(name), near)
    fails(lambda: OGBMetric(name), near)


class Server(http.server.ThreadingHTTPServer):
    """Serves one answer, whatever is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.body = b""
        self.headers: dict[str, str] = {}
        self.stall = threading.Event()
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hiv.zip"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.server.stall.is_set() and self.server.asked > 1:
            self.wfile.write(self.server.body[:10])
            self.wfile.flush()
            threading.Event().wait(1)
        else:
            self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on this machine that OGB's facts name as the source of ogbg-molhiv; it has a good archive."""
    packed = tmp_path_factory.mktemp("packed")
    write(packed / "hiv", [0, 1, 1, 0])
    archive = shutil.make_archive(str(packed / "archive"), "zip", packed, "hiv")
    with Server() as found:
        found.body = Path(archive).read_bytes()
        known = ogb.catalogue() | {"ogbg-molhiv": ogb.catalogue()["ogbg-molhiv"] | {"url": found.url}}
        monkeypatch.setattr(ogb, "catalogue", lambda: known)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked a question"))
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def left_in(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.suffix != ".lock"]


def test_download(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "new"
    before = socket.getdefaulttimeout()
    assert ogb.locate("ogbg-molhiv", root) == root / "ogbg_molhiv"
    same_as_ogb("ogbg-molhiv", root)
    assert left_in(root) == ["ogbg_molhiv"]
    assert socket.getdefaulttimeout() == before
    asked = server.asked
    ogb.locate("ogbg-molhiv", root)
    assert server.asked == asked


def test_download_replaces_what_a_failed_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "ogbg_molhiv" / "raw").mkdir(parents=True)
    same_as_ogb("ogbg-molhiv", ogb.locate("ogbg-molhiv", tmp_path).parent)


def test_several_processes_download_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched, real = [], ogb.download_url

    def download(url: str, folder: str) -> str:
        fetched.append(url)
        return real(url, folder)

    monkeypatch.setattr(ogb, "download_url", download)
    threads = [threading.Thread(target=ogb.locate, args=("ogbg-molhiv", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert left_in(tmp_path) == ["ogbg_molhiv"]


def test_no_network(server: Server, tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound and not listening: a connection is refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/hiv.zip"
        ogb.catalogue()["ogbg-molhiv"]["url"] = url
        for root in (tmp_path / "new", tmp_path):
            call = partial(ogb.build, "ogbg-molhiv", root)
            fails(call, str(root / "ogbg_molhiv"), url, "refused", "data.root", "raw")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", ["truncated", "page", "other", "incomplete", "no size", "stalled", "disk", "short"])
def test_failed_download_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    says = [str(tmp_path)]
    if spoil == "truncated":
        server.body = server.body[:-100]
        says += ["not a zip file"]
    elif spoil == "page":
        server.body = b"<html>please log in</html>"
        says += ["not a zip file"]
    elif spoil in ("other", "incomplete"):
        path = tmp_path / "other.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hiv/raw/num-node-list.csv.gz" if spoil == "incomplete" else "readme", b"x")
        server.body = path.read_bytes()
        path.unlink()
        says += ["holds no hiv/raw/num-" + ("edge" if spoil == "incomplete" else "node")]
    elif spoil == "no size":
        server.headers = {"Content-Length": ""}
        says += ["how large"]
    elif spoil == "stalled":
        server.stall.set()
        monkeypatch.setattr(ogb, "TIMEOUT", 0.2)
        says += ["timed out"]
    elif spoil == "disk":
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2 * len(server.body) - 1))
        says += ["MiB", "data.root"]
    else:
        server.headers = {"Content-Length": str(len(server.body) + 5)}  # the connection ends before that
        server.body = server.body[:200]
    before = socket.getdefaulttimeout()
    fails(lambda: ogb.locate("ogbg-molhiv", tmp_path), *says)
    assert left_in(tmp_path) == []
    assert socket.getdefaulttimeout() == before


def test_root_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(lambda: ogb.locate("ogbg-molhiv", tmp_path / "file"), "data.root")


def test_interrupted_download_stays_an_interruption(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> str:
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722  OGB's code catches everything
            raise RuntimeError("Stopped downloading due to interruption.")  # noqa: B904

    monkeypatch.setattr(ogb, "download_url", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ogb.locate("ogbg-molhiv", tmp_path)
    assert left_in(tmp_path) == []


def samples(tasks: int, rows: int = 60, regression: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(tasks)
    preds = torch.randn(rows, tasks, generator=draw)
    target = torch.randn(rows, tasks, generator=draw)
    return preds, target if regression else (target > 0.5).float()


@pytest.mark.parametrize(
    ("name", "tasks", "measure"),
    [
        ("ogbg-molhiv", 1, "rocauc"),
        ("ogbg-moltox21", 12, "rocauc"),
        ("ogbg-molmuv", 17, "ap"),
        ("ogbg-mollipo", 1, "rmse"),
    ],
)
def test_metric_is_the_evaluators(name: str, tasks: int, measure: str) -> None:
    preds, target = samples(tasks, regression=measure == "rmse")
    target[5:9, 0] = torch.nan
    target[:, 1:2] = torch.nan
    whole, parts = OGBMetric(name), OGBMetric(name)
    assert (whole.measure, whole.higher_is_better) == (measure, measure != "rmse")
    whole.update(preds, target)
    for some in torch.arange(len(preds)).split([1, 20, 39]):
        parts.update(preds[some], target[some])
    expected = Evaluator(name).eval({"y_true": target.numpy(), "y_pred": preds.numpy()})[measure]
    assert whole.compute().shape == ()
    assert float(whole.compute()) == pytest.approx(expected, rel=1e-6)
    assert float(parts.compute()) == float(whole.compute())


def test_metric_takes_low_precision_and_integer_labels() -> None:
    preds, target = samples(1)
    metric = OGBMetric("ogbg-molhiv")
    metric.update(preds.bfloat16().requires_grad_(), target.long())
    y_pred = preds.bfloat16().float().numpy()
    expected = Evaluator("ogbg-molhiv").eval({"y_true": target.numpy(), "y_pred": y_pred})["rocauc"]
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "preds", "target"),
    [
        ("ogbg-molhiv", [0.1, 0.2], [0.0, 0.0]),
        ("ogbg-molhiv", [0.1, 0.2], [1.0, torch.nan]),
        ("ogbg-molhiv", [0.1, torch.nan], [1.0, 0.0]),
        ("ogbg-molhiv", [0.1, torch.inf], [1.0, 0.0]),
        ("ogbg-mollipo", [0.1, 0.2], [torch.nan, torch.nan]),
    ],
)
def test_metric_that_is_not_defined_is_nan(name: str, preds: list[float], target: list[float]) -> None:
    metric = OGBMetric(name)
    metric.update(torch.tensor(preds)[:, None], torch.tensor(target)[:, None])
    assert metric.compute().isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_before_any_sample_and_after_reset() -> None:
    metric = OGBMetric("ogbg-molhiv")
    assert metric.compute().isnan()
    metric.update(*samples(1))
    assert not metric.compute().isnan()
    metric.reset()
    assert metric.compute().isnan()


@pytest.mark.parametrize(("preds", "target"), [((4,), (4,)), ((4, 1), (4,)), ((4, 2), (4, 2)), ((3, 1), (4, 1))])
def test_metric_refuses_other_shapes(preds: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1\)"):
        OGBMetric("ogbg-molhiv").update(torch.zeros(preds), torch.zeros(target))


def test_metric_in_a_collection() -> None:
    collection = MetricCollection({"rocauc": OGBMetric("ogbg-molhiv")}).clone(prefix="valid/")
    preds, target = samples(1)
    collection.update(preds, target)
    expected = Evaluator("ogbg-molhiv").eval({"y_true": target.numpy(), "y_pred": preds.numpy()})["rocauc"]
    assert float(collection.compute()["valid/rocauc"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", ["ogbg-molhiv", "ogbg-moltox21"])
@pytest.mark.parametrize("shares", [[20, 40], [60, 0], [0, 0]])
def test_metric_over_processes(name: str, shares: list[int]) -> None:
    """Threads stand for processes; what they exchange must agree in dimensions and type, or a real gather fails."""
    preds, target = samples(12 if name == "ogbg-moltox21" else 1, rows=sum(shares))
    barrier, sent, values = threading.Barrier(2, timeout=5), [torch.empty(0)] * 2, [torch.empty(0)] * 2

    def run(rank: int, rows: torch.Tensor) -> None:
        def gather(tensor: torch.Tensor, group: object) -> list[torch.Tensor]:
            sent[rank] = tensor
            barrier.wait()
            found = list(sent)
            barrier.wait()
            assert len({(one.ndim, one.dtype) for one in found}) == 1
            return found

        metric = OGBMetric(name)
        metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
        if len(rows):
            metric.update(preds[rows], target[rows])
        values[rank] = metric.compute()

    parts = torch.arange(sum(shares)).split(shares)
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not sum(shares):
        assert all(value.isnan() for value in values)
    else:
        expected = Evaluator(name).eval({"y_true": target.numpy(), "y_pred": preds.numpy()})["rocauc"]
        assert [float(value) for value in values] == pytest.approx([expected] * 2, rel=1e-6)
