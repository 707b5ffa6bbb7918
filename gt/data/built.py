"""Validates the graphs of user-defined sources before they are stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

import numpy as np

from gt.data.packed import Graphs
from gt.data.source import Source
from gt.errors import UserError, nearest
from gt.schema import UNLABELLED, Kind, Level, Schema, pluralise

REQUIRED_SPLITS = ("train", "valid")  # if there are any splits


def checked_build(source: Source) -> Graphs | Iterable[Graphs]:
    """What a source builds; for classes outside this package, each chunk is checked, and the last one in full.

    Raises:
        UserError: names the class and the problem.
    """
    kind = type(source)
    if kind.build.__module__.partition(".")[0] == "gt":
        return source.build()
    return _checked(f"{kind.__module__}.{kind.__qualname__}.build", source.build())


def _checked(builder: str, chunks: object) -> Iterator[Graphs]:
    if isinstance(chunks, Graphs) or not isinstance(chunks, Iterable):
        chunks = [chunks]
    last: Graphs | None = None
    for chunk in chunks:
        if not isinstance(chunk, Graphs):
            raise UserError(f"{builder} returns a {type(chunk).__name__}, but should return gt.data.packed.Graphs")
        _check_edges(builder, chunk)
        yield (last := chunk)
    if last is not None:
        _check_schema(builder, last.schema)
        _check_splits(builder, last.splits)
        _check_values(builder, last)


def _check_edges(builder: str, graphs: Graphs) -> None:
    """Check that edges stay within their graphs and are sorted."""
    index, ptr = np.asarray(graphs.edge_index), graphs.edge_ptr
    if len(ptr) != len(graphs.node_ptr) or index.shape != (2, ptr[-1]) or index.dtype.kind not in "iu":
        raise UserError(
            f"{builder}: edge_index is {index.shape} of {index.dtype}, with node_ptr {graphs.node_ptr.shape} and "
            f"edge_ptr {ptr.shape}, but should be (2, edge_ptr[-1]) integers, with pointers of equal length"
        )
    graph = np.repeat(np.arange(len(graphs)), np.diff(ptr))
    outside = ((index < 0) | (index >= graphs.sizes[graph])).any(0)
    if outside.any():
        wrong = int(graph[outside.argmax()])
        raise UserError(f"{builder}: graph {wrong} has an edge to a node outside 0..{graphs.sizes[wrong] - 1}")
    order = np.lexsort((index[0], index[1], graph))
    if (np.diff(order) != 1).any():
        raise UserError(f"{builder}: edges are not sorted by graph, target and source: return graphs.sort_edges()")


def _check_schema(builder: str, schema: Schema) -> None:
    for name, value, allowed in (("kind", schema.kind, get_args(Kind)), ("level", schema.level, get_args(Level))):
        if value not in allowed:
            raise UserError(f"{builder}: the schema's {name} is {value!r}: {nearest(str(value), allowed)}")


def _check_splits(builder: str, splits: Mapping[str, np.ndarray]) -> None:
    for name in REQUIRED_SPLITS if splits else ():
        if name not in splits:
            raise UserError(f"{builder}: the splits are {', '.join(splits)}, without {name!r}")


def _check_values(builder: str, graphs: Graphs) -> None:
    """Check that features and targets match the schema."""
    schema = graphs.schema
    _check_features(f"{builder}: x", graphs.nodes.get("x"), schema.node_vocab, schema.node_floats)
    _check_features(f"{builder}: edge_attr", graphs.edges.get("edge_attr"), schema.edge_vocab, schema.edge_floats)
    y = getattr(graphs, f"{schema.level}s").get("y")
    if y is None or schema.kind != "multiclass" or schema.pointer:
        return
    if y.dtype.kind not in "iu":
        raise UserError(f"{builder}: y is of {y.dtype}, but should be integers, one of {schema.outputs} classes")
    y = y.reshape(len(y), -1)[:, : schema.positions]  # further columns are ignored
    wrong = y[((y < 0) & (y != UNLABELLED)) | (y >= schema.outputs)]
    if wrong.size:
        raise UserError(
            f"{builder}: y holds {wrong.flat[0]}, but should be 0 to {schema.outputs - 1}, or {UNLABELLED} for none"
        )


def _check_features(name: str, values: np.ndarray | None, vocab: Sequence[int], floats: int) -> None:
    columns = len(vocab) or floats
    if not columns or values is None:
        return
    if values.ndim != 2 or values.shape[1] != columns:
        raise UserError(f"{name} is {values.shape}, but the schema has (rows, {pluralise(columns, 'column')})")
    for index, count in enumerate(vocab):
        column = values[:, index]
        if values.dtype.kind not in "iub":
            raise UserError(f"{name} is of {values.dtype}, but the schema has categories, which are integers")
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < count:
            raise UserError(
                f"{name} holds {column.min()} to {column.max()} in column {index}, but the schema has 0 to {count - 1}"
            )
