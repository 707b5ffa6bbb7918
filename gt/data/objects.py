"""What a program holds rather than a file: SMILES, texts, PyG's and NetworkX's graphs, read as a trained model does.

What reads one kind is imported when it is met: molecules take RDKit, which readers of texts may lack.
"""

import tempfile
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from torch_geometric.data import Data

from gt.data.large.links import LinkSource
from gt.data.own.assemble import Choices
from gt.data.own.graph_records import tables
from gt.data.own.known import assemble_known
from gt.data.own.networkx_files import record_of
from gt.data.own.pyg_pack import pack_known
from gt.data.own.pyg_read import read
from gt.data.packed import Graphs, pointers
from gt.data.source import Records
from gt.data.table import Table
from gt.data.text.tokenizer import loads
from gt.errors import UserError
from gt.schema import UNLABELLED, Schema

ATOM_FEATURES = 9  # in OGB
PART = 2000  # molecules that a process reads at a time, and objects that are held rather than stored


class Objects(LinkSource):
    """Objects of one kind, in their order.

    Args:
        items: text or SMILES, as the model has learned from either; or `torch_geometric.data.Data`, whose
            ``edge_label_index`` (2, K) are the links that are asked for; or NetworkX graphs, with the attributes of
            nodes and edges that the files of the training had.

    Raises:
        UserError: no items, or of several kinds; on ``open``, what the model cannot read.
    """

    name = "objects"

    def __init__(self, items: Sequence[Any]) -> None:
        if isinstance(items, str | Data | nx.Graph):
            raise UserError(f"what is predicted are several items, in a list: [{type(items).__name__}]")
        self.items, self.root = list(items), Path(tempfile.gettempdir())
        self.in_memory = len(self.items) <= PART  # a service answers without a disk
        kinds = {kind for item in self.items for kind in (str, Data, nx.Graph) if isinstance(item, kind)}
        odd = [item for item in self.items if not isinstance(item, str | Data | nx.Graph | None)]
        if odd or len(kinds) != 1:
            said = f"not a {type(odd[0]).__name__}" if odd else "all of one kind" if kinds else "and there are none"
            raise UserError(f"what is predicted are texts, SMILES, PyG's Data or NetworkX graphs, {said}")
        (self.kind,) = kinds
        links = getattr(self.items[0], "edge_label_index", None) if len(self.items) == 1 else None
        self.query_pairs = None if links is None else links.T.cpu().numpy()

    def key(self) -> dict[str, Any]:
        raise NotImplementedError("objects are new to a model: open them with its schema")

    def build(self) -> Graphs:
        raise NotImplementedError("objects are new to a model: open them with its schema")

    def build_known(self, known: Schema) -> Graphs | Iterable[Graphs]:
        if self.kind is Data:
            return self._pyg(known)
        if self.kind is nx.Graph:
            return self._networkx(known)
        if known.is_language_model:
            return self._tokens(known)
        if known.tokenizer:
            return self._texts(known)
        if reads_molecules(known):
            return self._molecules(known)
        raise UserError("this model reads neither texts nor molecules: hand it PyG's Data or NetworkX graphs")

    def _pyg(self, known: Schema) -> Graphs:
        graphs = self.items
        if reads_molecules(known):
            check_codes(graphs)
        if known.level == "link":  # what PyG calls y are then labels of nodes
            graphs = [Data.from_dict({k: v for k, v in each.to_dict().items() if k != "y"}) for each in graphs]
        return pack_known(read(graphs, "these graphs", known.level, optional=True), "these graphs", known)

    def _table(self, column: str) -> Table:
        return Table("items", {column: np.array(self.items, dtype=object)}, lambda row: f"item {row}")

    def _molecules(self, known: Schema) -> Generator[Graphs]:
        from gt.data.molecules.known import molecules_of

        self.records = yield from molecules_of(self._table("smiles"), "smiles", known, None, PART)

    def _texts(self, known: Schema) -> Graphs:
        from gt.data.text.known import texts_of
        from gt.data.text.paths import packed

        texts, y, self.records = texts_of([self._table("text")], ["text"], known)
        return packed(texts, y, loads(known.tokenizer), known, known.longest)

    def _tokens(self, known: Schema) -> Graphs:
        """Each text a path along which nodes read those before; of each token the next one is predicted."""
        if empty := [row for row, text in enumerate(self.items) if not text]:
            raise UserError(f"item {empty[0]} is empty: a language model goes on after a token at least")
        tokenizer = loads(known.tokenizer)
        encoded = tokenizer.encode(self.items)
        sizes = np.array([len(tokens) for tokens in encoded], np.int64)
        tokens, text = np.concatenate(encoded), np.repeat(np.arange(len(sizes)), sizes)
        target = np.arange(len(tokens)) - pointers(sizes)[text]
        target = target[target > 0]
        spelled = [tokenizer.decode([token]) for token in tokens.tolist()]
        self.records = Records(pd.DataFrame({"text": text, "token": spelled}), np.arange(len(tokens)), {})
        return Graphs(
            node_ptr=pointers(sizes),
            edge_ptr=pointers(sizes - 1),
            edge_index=np.stack([target - 1, target]),
            nodes={"x": tokens[:, None], "y": np.full(len(tokens), UNLABELLED)},
            schema=replace(known, max_nodes=int(sizes.max())),
        )

    def _networkx(self, known: Schema) -> Graphs:
        if not reads_names(known):
            raise UserError(
                "this model has learned from no attributes of nodes by name: hand it PyG's Data, SMILES or text"
            )
        records = [record_of(graph, f"graph {row}", dict(graph.graph)) for row, graph in enumerate(self.items)]
        nodes, edges, about, undirected = tables(records, "the graphs", known)
        if undirected != known.undirected:
            right, kind = ("an undirected graph", "nx.Graph") if known.undirected else ("a directed one", "nx.DiGraph")
            raise UserError(f"graph 0 has to be {right}, as the model has learned from such: hand over an {kind}")
        graphs, self.records = assemble_known(nodes, edges, about, Choices(undirected=undirected), known)
        return graphs


def reads_names(schema: Schema) -> bool:
    """Whether NetworkX's graphs are read, by the names of features of nodes, or these are the degree alone."""
    return len(schema.node_names) == len(schema.node_categories) and bool(schema.node_names or schema.degree)


def reads_molecules(schema: Schema) -> bool:
    """Whether nodes are atoms as OGB describes them, which SMILES are turned into."""
    if len(schema.node_vocab) != ATOM_FEATURES:  # others need not import what reads molecules
        return False
    from gt.data.molecules.smiles import ATOM_VOCAB

    return tuple(schema.node_vocab) == ATOM_VOCAB


def check_codes(graphs: Sequence[Data]) -> None:
    """Whether the atoms of graphs that carry their SMILES are counted as in OGB, as a model of molecules reads them.

    PyG's ``from_smiles`` has as many features, most of which also fit, counted from other ends.

    Raises:
        UserError: those of one are not.
    """
    from gt.data.molecules.smiles import smiles_graphs

    named = [place for place, graph in enumerate(graphs) if isinstance(getattr(graph, "smiles", None), str)]
    if not named:
        return
    ours = smiles_graphs([graphs[place].smiles for place in named])
    rows = np.split(ours.x, pointers(ours.node_counts)[1:-1])
    for place, own in zip([named[kept] for kept in ours.indices], rows, strict=False):
        theirs = graphs[place].x
        if theirs is not None and theirs.shape == own.shape and not np.array_equal(theirs.cpu().numpy(), own):
            raise UserError(
                f"item {place}: its x does not count atoms as OGB's smiles2graph does, by which this model has learned "
                "(PyG's from_smiles does otherwise): hand it SMILES, [graph.smiles for graph in graphs]"
            )
