"""Convert the inputs of a request to what the model reads: texts, molecules, or graphs in one of two forms."""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

from gt.data.objects import reads_molecules, reads_names
from gt.errors import UserError, nearest
from gt.prediction.models import check_answers
from gt.prediction.trained import Trained
from gt.schema import Schema

KINDS = {  # with their descriptions in messages
    "text": "text as a string",
    "molecule": "molecule as a string",
    "graph": "graph in node-link form",
    "tensors": "graph as lists of numbers: x, edge_index, edge_attr",
}


def kind_of(model: Trained) -> str:
    """The kind of input that a model reads, one of `KINDS`.

    Raises:
        UserError: the model has no single answer for an input, or was trained without labels.
    """
    check_answers([model])
    schema = model.schema
    if schema.level != "graph":
        raise UserError(
            f"this model answers for each {schema.level}: only models with one answer per graph or text can be served"
        )
    if schema.pointer:
        raise UserError("this model chooses among nodes named by its data, which requests cannot name")
    if schema.tokenizer:
        return "text"
    if reads_molecules(schema):
        return "molecule"
    return "graph" if reads_names(schema) else "tensors"


def check_kind(values: Sequence[str | dict[str, Any]], kind: str) -> None:
    """Check that all inputs are of the kind that the model reads.

    Raises:
        UserError: one is not.
    """
    for index, value in enumerate(values):
        if isinstance(value, str) != (kind in ("text", "molecule")):
            raise UserError(f"inputs[{index}]: this model reads a {KINDS[kind]}")


def items_of(
    values: Sequence[str | dict[str, Any]], kind: str, longest: int, schema: Schema
) -> tuple[list[Any], dict[int, str]]:
    """Convert the readable inputs to items of the model; returns the reasons for the others by index, too."""
    items, unreadable = [], {}
    for index, value in enumerate(values):
        try:
            if isinstance(value, str):
                item: Any = string_of(value)
            else:
                item = graph_of(value) if kind == "graph" else tensors_of(value, schema)
        except UserError as error:
            unreadable[index] = str(error)
            continue
        if kind != "text" and size_of(item) > longest:
            unreadable[index] = (
                f"more than {longest:,} {'characters' if kind == 'molecule' else 'nodes'}, see --longest"
            )
        else:
            items.append(item)
    return items, unreadable


def size_of(item: Any) -> int:
    """The number of characters of a string, or of nodes of a graph."""
    return len(item.x) if isinstance(item, Data) else len(item)


def string_of(value: str) -> str:
    """Return a text or SMILES unchanged if it is valid Unicode.

    Raises:
        UserError: it has a lone surrogate, which JSON allows.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError("not a valid text: it has a lone surrogate") from None
    return value


def graph_of(value: dict[str, Any]) -> nx.Graph:
    """Parse a NetworkX graph in node-link form.

    Raises:
        UserError: it is invalid.
    """
    attributes = value.get("graph", {})
    if not isinstance(attributes, dict):
        raise UserError(f"'graph' must hold the attributes of the graph by name, not a {type(attributes).__name__}")
    try:
        links = "links" if "links" in value and "edges" not in value else "edges"  # as NetworkX and D3 write them
        return nx.node_link_graph(value, edges=links)
    except Exception as error:
        raise UserError(f"not a graph in node-link form: {type(error).__name__} {error}") from None


def tensors_of(value: dict[str, Any], schema: Schema) -> Data:
    """Parse a PyG graph from lists: x, a row per node; edge_index, sources and targets; edge_attr, a row per edge.

    Raises:
        UserError: it is invalid.
    """
    keys = ("x", "edge_index", "edge_attr")
    if unknown := sorted({*value} - {*keys}):
        raise UserError(f"no key '{unknown[0]}': {nearest(unknown[0], keys)}")
    if missing := [key for key in keys[:2] if value.get(key) is None]:
        raise UserError(
            f"no {missing[0]}: a graph needs x, a row of numbers per node, and edge_index, sources and targets"
        )
    try:
        arrays = {key: np.asarray(content, dtype=np.float64) for key, content in value.items() if content is not None}
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"x, edge_index and edge_attr must each be rows of numbers of equal length: {error}") from None
    x, ends = arrays["x"], arrays["edge_index"]
    if not ends.size:
        ends, arrays["edge_attr"] = ends.reshape(2, 0), np.zeros((0, len(schema.edge_vocab) or schema.edge_floats))
    if ends.ndim != 2 or len(ends) != 2 or (ends != np.floor(ends)).any() or not x.ndim:
        raise UserError("a graph needs x, a row of numbers per node, and edge_index, two lists of nodes counted from 0")
    floats = {key: torch.from_numpy(array) for key, array in arrays.items() if key != "edge_index"}
    return Data(edge_index=torch.from_numpy(ends.astype(np.int64)), **floats)
