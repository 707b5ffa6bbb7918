"""Custom encodings and sources: cached by their source code, and validated before being stored."""

import importlib
import sys

import numpy as np
import pytest

from gt.data.encodings import attach, compute
from gt.data.graphs import GraphData
from gt.encodings import Degree, RandomWalk, Shuffled
from gt.errors import UserError
from gt.keys import full_key
from tests.encodings.samples import AWKWARD, pack

TAILS = """
import numpy as np
from gt.encodings import Encoding

class Tails(Encoding):
    arrays = ("tails",)

    def key(self):
        return {"encoding": "tails", "version": 1}

    def compute(self, graphs, progress=iter):
        rows = np.ones((graphs.node_ptr[-1], 2), np.float32)
        return {"tails": RESULT}
"""
ONES = """
import numpy as np
from gt.data.packed import Graphs, pointers
from gt.data.source import Source
from gt.schema import Schema

class Ones(Source):
    name = "ones"

    def key(self):
        return {"version": 1}

    def build(self):
        return Graphs(
            node_ptr=pointers(np.ones(9, int)), edge_ptr=pointers(np.zeros(9, int)), edge_index=np.zeros((2, 0), int),
            nodes={"x": np.full((9, 1), RESULT)}, graphs={"y": np.arange(9) % 2},
            splits={"train": np.arange(5), "valid": np.arange(5, 9)}, schema=Schema(node_vocab=(5,), outputs=2),
        )
"""


@pytest.fixture
def import_edited(tmp_path, monkeypatch):
    """Import a module from its text afresh, as another run would after an edit."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda text, result: _import_text(tmp_path, text.replace("RESULT", result))
    sys.modules.pop("edited", None)


def _import_text(folder, text):
    (folder / "edited.py").write_text(text)
    sys.modules.pop("edited", None)
    importlib.invalidate_caches()
    return importlib.import_module("edited")


def all_rows(graphs):
    return graphs.encodings["tails"].take(np.arange(graphs.node_ptr[-1]))


@pytest.mark.parametrize("wrap", [lambda encoding: encoding, Shuffled])
def test_edited_encoding_is_recomputed(import_edited, tmp_path, wrap):
    graphs = pack(AWKWARD)
    for factor in (1, 3, 2):
        encoding = wrap(import_edited(TAILS, f"{factor} * rows").Tails())
        assert (all_rows(attach(graphs, tmp_path / "store", [encoding])) == factor).all()
    assert len(list((tmp_path / "store").glob("tails-*.npy"))) == 3


def test_unedited_encoding_is_not_recomputed(import_edited, tmp_path, monkeypatch):
    graphs, kind = pack(AWKWARD), import_edited(TAILS, "rows").Tails
    attach(graphs, tmp_path / "store", [kind()])
    monkeypatch.setattr(kind, "compute", None)
    assert (all_rows(attach(graphs, tmp_path / "store", [kind()])) == 1).all()


def test_edited_source_is_rebuilt(import_edited, tmp_path):
    for number in (1, 2):
        source = import_edited(ONES, str(number)).Ones()
        source.root = tmp_path / "root"
        data = GraphData(source)
        data.open([])
        assert (data.graphs.nodes["x"] == number).all()


def test_subclass_with_inherited_key_has_its_own_store(import_edited, tmp_path):
    subclass = "class Others(Ones):\n    def build(self):\n        graphs = super().build()\n"
    module = import_edited(f"{ONES}\n{subclass}        graphs.nodes['x'] += 1\n        return graphs\n", "1")
    for kind, number in ((module.Ones, 1), (module.Others, 2)):
        source = kind()
        source.root = tmp_path / "root"
        data = GraphData(source)
        data.open([])
        assert (data.graphs.nodes["x"] == number).all()


def test_key_omits_code_if_built_in_or_unavailable(import_edited, tmp_path):
    for encoding in (Degree(), RandomWalk(4)):
        assert full_key(encoding) == (encoding.key() or {})
    encoding = import_edited(TAILS, "rows").Tails()
    assert "code" in full_key(encoding)
    (tmp_path / "edited.py").unlink()
    assert full_key(encoding) == encoding.key()


INVALID_GRAPHS = {
    "nothing": ("None", "returns a NoneType"),
    "a split": (
        "replace(ones, splits={'train': np.arange(5), 'val': np.arange(4)})",
        "the splits are train, val, without 'valid'",
    ),
    "a kind": (
        "replace(ones, schema=replace(ones.schema, kind='multi'))",
        "kind is 'multi': did you mean 'multiclass'",
    ),
    "a level": (
        "replace(ones, schema=replace(ones.schema, level='graphs'))",
        "level is 'graphs': did you mean 'graph'",
    ),
    "a category": ("replace(ones, nodes={'x': np.full((9, 1), 5)})", "x holds 5 to 5 in column 0, .* 0 to 4"),
    "no column": ("replace(ones, nodes={'x': np.ones(9, int)})", r"x is \(9,\)"),
    "real numbers": ("replace(ones, nodes={'x': np.ones((9, 1))})", "x is of float64"),
    "a class": ("replace(ones, graphs={'y': np.arange(9)})", "y holds 2, but should be 0 to 1"),
    "a real class": ("replace(ones, graphs={'y': np.ones(9)})", "y is of float64"),
    "another graph": ("joined([[0, 1]], [[1, 2]])", r"graph 0 has an edge to a node outside 0\.\.1"),
    "no order": ("joined([[0, 1]], [[1, 0]])", r"return graphs\.sort_edges\(\)"),
}
PAIR = """
from dataclasses import replace

def joined(source, target):
    return Graphs(
        node_ptr=np.array([0, 2, 4]), edge_ptr=np.array([0, 2, 2]), edge_index=np.concatenate([source, target]),
        nodes={"x": np.ones((4, 1), int)}, graphs={"y": np.arange(2)},
        splits={"train": np.arange(1), "valid": np.arange(1)}, schema=Schema(node_vocab=(5,), outputs=2),
    )

class Wrong(Ones):
    def build(self):
        ones = super().build()
        return RESULT
"""


@pytest.mark.parametrize("name", INVALID_GRAPHS)
def test_invalid_graphs_are_reported_and_not_stored(import_edited, tmp_path, name):
    result, message = INVALID_GRAPHS[name]
    source = import_edited(ONES.replace("RESULT", "1") + PAIR, result).Wrong()
    source.root = tmp_path / "root"
    with pytest.raises(UserError, match=rf"edited\.Wrong\.build.*{message}") as caught:
        GraphData(source).open([])
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.npy"))


INVALID_ROWS = {
    "short": ("rows[1:]", r"tails is \({short}, 2\), but should be \({nodes}, K\)"),
    "flat": ("rows[:, 0]", r"tails is \({nodes},\), but should be \({nodes}, K\)"),
    "a list": ("rows.tolist()", "tails is list"),
    "infinite": ("rows / 0", "tails .* not finite numbers"),
    "text": ("rows.astype(str)", "tails .* not finite numbers"),
    "another name": ('rows, "heads": rows', "tails, heads"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", INVALID_ROWS)
@pytest.mark.parametrize("mode", ["stored", "held"])
def test_invalid_encoding_rows_are_reported_and_not_stored(import_edited, tmp_path, name, mode):
    graphs, (result, message) = pack(AWKWARD), INVALID_ROWS[name]
    nodes, encoding = int(graphs.node_ptr[-1]), import_edited(TAILS, result).Tails()
    with pytest.raises(UserError, match=f"edited.Tails.*{message.format(nodes=nodes, short=nodes - 1)}") as caught:
        compute(graphs, [encoding]) if mode == "held" else attach(graphs, tmp_path / "store", [encoding])
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.npy"))
