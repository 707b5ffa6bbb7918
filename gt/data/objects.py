"""In-memory objects as new data for a trained model: SMILES, texts, PyG and NetworkX graphs.

The readers are imported on demand: molecules need RDKit, which may not be installed.
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
CHUNK = 2000  # molecules that a process reads at a time; and the number of objects up to which no store is used


class Objects(LinkSource):
    """Objects of one kind, in the given order.

    Args:
        items: texts or SMILES, whichever the model was trained on; or `torch_geometric.data.Data`, whose
            ``edge_label_index`` (2, K) are the links to predict; or NetworkX graphs with the node and edge attributes
            of the training files.

    Raises:
        UserError: no items, or items of several kinds; on ``open``, items that the model cannot read.
    """

    name = "objects"

    def __init__(self, items: Sequence[Any]) -> None:
        if isinstance(items, str | Data | nx.Graph):
            raise UserError(f"pass the items to predict in a list: [{type(items).__name__}]")
        self.items, self.root = list(items), Path(tempfile.gettempdir())
        self.in_memory = len(self.items) <= CHUNK  # a service can then answer without a disk
        kinds = {kind for item in self.items for kind in (str, Data, nx.Graph) if isinstance(item, kind)}
        wrong = [item for item in self.items if not isinstance(item, str | Data | nx.Graph | None)]
        if wrong or len(kinds) != 1:
            problem = (
                f"not a {type(wrong[0]).__name__}" if wrong else "all of one kind" if kinds else "and there are none"
            )
            raise UserError(f"the items to predict must be texts, SMILES, PyG Data or NetworkX graphs, {problem}")
        (self.kind,) = kinds
        links = getattr(self.items[0], "edge_label_index", None) if len(self.items) == 1 else None
        self.query_pairs = None if links is None else links.T.cpu().numpy()

    def key(self) -> dict[str, Any]:
        raise NotImplementedError("objects are new to a model: open them with its schema")

    def build(self) -> Graphs:
        raise NotImplementedError("objects are new to a model: open them with its schema")

    def build_known(self, model_schema: Schema) -> Graphs | Iterable[Graphs]:
        if self.kind is Data:
            return self._from_pyg(model_schema)
        if self.kind is nx.Graph:
            return self._from_networkx(model_schema)
        if model_schema.is_language_model:
            return self._from_tokens(model_schema)
        if model_schema.tokenizer:
            return self._from_texts(model_schema)
        if reads_molecules(model_schema):
            return self._from_molecules(model_schema)
        raise UserError("this model reads neither texts nor molecules: pass PyG Data or NetworkX graphs")

    def _from_pyg(self, model_schema: Schema) -> Graphs:
        graphs = self.items
        if reads_molecules(model_schema):
            check_codes(graphs)
        if model_schema.level == "link":  # PyG's y then holds node labels
            graphs = [Data.from_dict({k: v for k, v in graph.to_dict().items() if k != "y"}) for graph in graphs]
        return pack_known(read(graphs, "these graphs", model_schema.level, optional=True), "these graphs", model_schema)

    def _table(self, column: str) -> Table:
        return Table("items", {column: np.array(self.items, dtype=object)}, lambda row: f"item {row}")

    def _from_molecules(self, model_schema: Schema) -> Generator[Graphs]:
        from gt.data.molecules.known import molecules_of

        self.records = yield from molecules_of(self._table("smiles"), "smiles", model_schema, None, CHUNK)

    def _from_texts(self, model_schema: Schema) -> Graphs:
        from gt.data.text.known import texts_of
        from gt.data.text.paths import packed

        texts, y, self.records = texts_of([self._table("text")], ["text"], model_schema)
        return packed(texts, y, loads(model_schema.tokenizer), model_schema, model_schema.longest)

    def _from_tokens(self, model_schema: Schema) -> Graphs:
        """Texts as paths on which nodes see the previous ones; each token predicts the next."""
        if empty := [row for row, text in enumerate(self.items) if not text]:
            raise UserError(f"item {empty[0]} is empty: a language model needs at least one token to continue")
        tokenizer = loads(model_schema.tokenizer)
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
            schema=replace(model_schema, max_nodes=int(sizes.max())),
        )

    def _from_networkx(self, model_schema: Schema) -> Graphs:
        if not reads_names(model_schema):
            raise UserError(
                "this model has not learned from named node attributes: pass PyG Data, SMILES or text instead"
            )
        records = [record_of(graph, f"graph {row}", dict(graph.graph)) for row, graph in enumerate(self.items)]
        nodes, edges, graph_table, undirected = tables(records, "the graphs", model_schema)
        if undirected != model_schema.undirected:
            kind, cls = (
                ("an undirected graph", "nx.Graph") if model_schema.undirected else ("a directed one", "nx.DiGraph")
            )
            raise UserError(f"graph 0 must be {kind}, as in the model's training data: pass an {cls}")
        graphs, self.records = assemble_known(nodes, edges, graph_table, Choices(undirected=undirected), model_schema)
        return graphs


def reads_names(schema: Schema) -> bool:
    """Whether NetworkX graphs can be read: node features have names, or are only the degree."""
    return len(schema.node_names) == len(schema.node_categories) and bool(schema.node_names or schema.degree)


def reads_molecules(schema: Schema) -> bool:
    """Whether nodes are atoms with OGB's features, so that SMILES can be read."""
    if len(schema.node_vocab) != ATOM_FEATURES:  # avoids importing RDKit for other models
        return False
    from gt.data.molecules.smiles import ATOM_VOCAB

    return tuple(schema.node_vocab) == ATOM_VOCAB


def check_codes(graphs: Sequence[Data]) -> None:
    """Check that graphs with SMILES have the atom codes of OGB, which models of molecules expect.

    PyG's ``from_smiles`` has the same number of features, mostly in the same ranges, but with different codes.

    Raises:
        UserError: a graph has other codes.
    """
    from gt.data.molecules.smiles import smiles_graphs

    indices = [index for index, graph in enumerate(graphs) if isinstance(getattr(graph, "smiles", None), str)]
    if not indices:
        return
    reference = smiles_graphs([graphs[index].smiles for index in indices])
    rows = np.split(reference.x, pointers(reference.node_counts)[1:-1])
    for index, expected in zip([indices[position] for position in reference.indices], rows, strict=False):
        x = graphs[index].x
        if x is not None and x.shape == expected.shape and not np.array_equal(x.cpu().numpy(), expected):
            raise UserError(
                f"item {index}: its x does not have the atom codes of OGB's smiles2graph, with which this model was "
                "trained (PyG's from_smiles has others): pass SMILES, [graph.smiles for graph in graphs]"
            )
