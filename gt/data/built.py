"""What a source of somebody's own has built, held against what it promises before any of it is kept."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

import numpy as np

from gt.data.packed import Graphs
from gt.data.source import Source
from gt.errors import UserError, nearest
from gt.schema import UNLABELLED, Kind, Level, Schema, many

NEEDED = ("train", "valid")  # of splits, where there are any


def built(source: Source) -> Graphs | Iterable[Graphs]:
    """What a source builds; of a class outside this package each chunk is looked at, and the last as a whole.

    Raises:
        UserError: naming the class and what is wrong.
    """
    kind = type(source)
    if kind.build.__module__.partition(".")[0] == "gt":
        return source.build()
    return _checked(f"{kind.__module__}.{kind.__qualname__}.build", source.build())


def _checked(who: str, chunks: object) -> Iterator[Graphs]:
    if isinstance(chunks, Graphs) or not isinstance(chunks, Iterable):
        chunks = [chunks]
    last: Graphs | None = None
    for chunk in chunks:
        if not isinstance(chunk, Graphs):
            raise UserError(f"{who} gives a {type(chunk).__name__}, and should give gt.data.packed.Graphs")
        _check_edges(who, chunk)
        yield (last := chunk)
    if last is not None:
        _check_schema(who, last.schema)
        _check_splits(who, last.splits)
        _check_values(who, last)


def _check_edges(who: str, graphs: Graphs) -> None:
    """Whether edges stay within their graphs, in the order in which a batch takes them."""
    index, ptr = np.asarray(graphs.edge_index), graphs.edge_ptr
    if len(ptr) != len(graphs.node_ptr) or index.shape != (2, ptr[-1]) or index.dtype.kind not in "iu":
        raise UserError(
            f"{who}: edge_index is {index.shape} of {index.dtype}, with node_ptr {graphs.node_ptr.shape} and edge_ptr "
            f"{ptr.shape}, and should be (2, edge_ptr[-1]) whole numbers, with pointers of one length"
        )
    graph = np.repeat(np.arange(len(graphs)), np.diff(ptr))
    outside = ((index < 0) | (index >= graphs.sizes[graph])).any(0)
    if outside.any():
        wrong = int(graph[outside.argmax()])
        raise UserError(f"{who}: graph {wrong} has an edge to a node outside 0..{graphs.sizes[wrong] - 1}")
    order = np.lexsort((index[0], index[1], graph))
    if (np.diff(order) != 1).any():
        raise UserError(f"{who}: edges are not in the order of graph, target and source: return graphs.sort_edges()")


def _check_schema(who: str, schema: Schema) -> None:
    for name, value, known in (("kind", schema.kind, get_args(Kind)), ("level", schema.level, get_args(Level))):
        if value not in known:
            raise UserError(f"{who}: the schema's {name} is {value!r}: {nearest(str(value), known)}")


def _check_splits(who: str, splits: Mapping[str, np.ndarray]) -> None:
    for name in NEEDED if splits else ():
        if name not in splits:
            raise UserError(f"{who}: the splits are {', '.join(splits)}, and none of them is {name!r}")


def _check_values(who: str, graphs: Graphs) -> None:
    """Whether features and targets are those that the schema tells of."""
    schema = graphs.schema
    _check_features(f"{who}: x", graphs.nodes.get("x"), schema.node_vocab, schema.node_floats)
    _check_features(f"{who}: edge_attr", graphs.edges.get("edge_attr"), schema.edge_vocab, schema.edge_floats)
    y = getattr(graphs, f"{schema.level}s").get("y")
    if y is None or schema.kind != "multiclass" or schema.pointer:
        return
    if y.dtype.kind not in "iu":
        raise UserError(f"{who}: y is of {y.dtype}, and should be whole numbers, one of {schema.outputs} classes")
    y = y.reshape(len(y), -1)[:, : schema.positions]  # what follows is not looked at
    wrong = y[((y < 0) & (y != UNLABELLED)) | (y >= schema.outputs)]
    if wrong.size:
        raise UserError(
            f"{who}: y holds {wrong.flat[0]}, and should be 0 to {schema.outputs - 1}, or {UNLABELLED} for none"
        )


def _check_features(what: str, values: np.ndarray | None, vocab: Sequence[int], floats: int) -> None:
    columns = len(vocab) or floats
    if not columns or values is None:
        return
    if values.ndim != 2 or values.shape[1] != columns:
        raise UserError(f"{what} is {values.shape}, and the schema tells of (rows, {many(columns, 'column')})")
    for place, count in enumerate(vocab):
        column = values[:, place]
        if values.dtype.kind not in "iub":
            raise UserError(f"{what} is of {values.dtype}, and the schema tells of categories, which are whole numbers")
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < count:
            raise UserError(
                f"{what} holds {column.min()} to {column.max()} in column {place}, and the schema tells of 0 to "
                f"{count - 1}"
            )
