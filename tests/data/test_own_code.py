"""What classes of somebody's own compute is kept under their text too, and looked at before it is kept."""

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
def own(tmp_path, monkeypatch):
    """Imports a module of a text anew, as another run would after an edit."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda text, result: _imported(tmp_path, text.replace("RESULT", result))
    sys.modules.pop("edited", None)


def _imported(folder, text):
    (folder / "edited.py").write_text(text)
    sys.modules.pop("edited", None)
    importlib.invalidate_caches()
    return importlib.import_module("edited")


def rows(graphs):
    return graphs.encodings["tails"].take(np.arange(graphs.node_ptr[-1]))


@pytest.mark.parametrize("around", [lambda encoding: encoding, Shuffled])
def test_an_edited_encoding_is_computed_anew(own, tmp_path, around):
    graphs = pack(AWKWARD)
    for factor in (1, 3, 2):
        encoding = around(own(TAILS, f"{factor} * rows").Tails())
        assert (rows(attach(graphs, tmp_path / "store", [encoding])) == factor).all()
    assert len(list((tmp_path / "store").glob("tails-*.npy"))) == 3


def test_an_encoding_that_is_not_edited_is_kept(own, tmp_path, monkeypatch):
    graphs, kind = pack(AWKWARD), own(TAILS, "rows").Tails
    attach(graphs, tmp_path / "store", [kind()])
    monkeypatch.setattr(kind, "compute", None)
    assert (rows(attach(graphs, tmp_path / "store", [kind()])) == 1).all()


def test_an_edited_source_is_built_anew(own, tmp_path):
    for number in (1, 2):
        source = own(ONES, str(number)).Ones()
        source.root = tmp_path / "root"
        data = GraphData(source)
        data.open([])
        assert (data.graphs.nodes["x"] == number).all()


def test_of_this_packages_classes_and_of_a_text_that_is_not_there_the_key_is_all(own, tmp_path):
    for encoding in (Degree(), RandomWalk(4)):
        assert full_key(encoding) == (encoding.key() or {})
    encoding = own(TAILS, "rows").Tails()
    assert "code" in full_key(encoding)
    (tmp_path / "edited.py").unlink()
    assert full_key(encoding) == encoding.key()


WRONG = {
    "short": ("rows[1:]", r"tails is \({short}, 2\), and should be \({nodes}, K\)"),
    "flat": ("rows[:, 0]", r"tails is \({nodes},\), and should be \({nodes}, K\)"),
    "a list": ("rows.tolist()", "tails is list"),
    "infinite": ("rows / 0", "tails .* no finite number"),
    "text": ("rows.astype(str)", "tails .* no finite number"),
    "another name": ('rows, "heads": rows', "tails, heads"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("work", ["stored", "held"])
def test_what_is_not_a_row_for_each_node_is_named_and_not_kept(own, tmp_path, name, work):
    graphs, (result, said) = pack(AWKWARD), WRONG[name]
    nodes, encoding = int(graphs.node_ptr[-1]), own(TAILS, result).Tails()
    with pytest.raises(UserError, match=f"edited.Tails.*{said.format(nodes=nodes, short=nodes - 1)}") as caught:
        compute(graphs, [encoding]) if work == "held" else attach(graphs, tmp_path / "store", [encoding])
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.npy"))
