"""ogbg-code2: predict the name of a Python function from its syntax tree (Hu et al. 2020).

Graphs, targets and scoring follow OGB's published baseline: the edges of the tree and those between consecutive tokens,
each in both directions; the first five words of the name, out of the 5,000 most frequent.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from gt.data.ogb.graphs import OGBGraphs
from gt.data.ogb.metric import OGBWords
from gt.data.ogb.raw import Piece, Table, pieces, splits_of
from gt.data.ogb.raw_csv import Check, counts, refuse, within
from gt.data.packed import Arrays, Graphs, pointers
from gt.data.reading import open_bytes
from gt.errors import UserError, first_line
from gt.graph import GraphBatch
from gt.schema import UNLABELLED, Schema

POSITIONS = 5  # predicted words of a name
VOCABULARY_SIZE = 5000  # words
MAX_DEPTH = 20  # larger depths are clipped to this
UNKNOWN, END = "__UNK__", "__EOS__"  # the last two entries of the vocabulary


class FunctionNames(OGBGraphs):
    """ogbg-code2: 452,741 functions, split by project, scored by the F1 of the words of their names.

    ``x`` holds (type, attribute, depth) of each node, ``edge_attr`` (0 tree, 1 next token; 0 forward, 1 backward) of
    each edge. ``y`` holds the word at each of 5 positions, then all distinct words of the name, for the metric only: a
    name may be longer or have words outside the vocabulary.

    Args:
        root: the folder that holds, or will hold, ``ogbg_code2``.
    """

    version = 1

    def __init__(self, root: str = "data") -> None:
        super().__init__("ogbg-code2", root)

    def metric(self, graphs: Graphs) -> OGBWords:
        return OGBWords(graphs.schema.names, POSITIONS, graphs.graphs["y"].shape[1] - POSITIONS)

    def spelled(self, graphs: Graphs, numbers: np.ndarray, answers: Tensor, batch: GraphBatch) -> list[str]:
        """The names spelled by the words at the positions (rows, POSITIONS)."""
        return [" ".join(words) for words in self.metric(graphs).decoded(answers)]

    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        sizes = counts(tables["num-node-list"], minimum=1)
        names, splits = words(tables["graph-label"], len(sizes)), splits_of(tables, len(sizes))
        vocabulary = frequent([names[g] for g in splits["train"]], VOCABULARY_SIZE)
        y = targets(names, vocabulary)
        vocab = (rows(tables["typeidx2type"]), rows(tables["attridx2attr"]))
        nodes = {
            "node-feat": Table(2, check=within(tables["node-feat"], vocab)),
            "node_depth": Table(1, check=_non_negative(tables["node_depth"])),
            "node_dfs_order": Table(1, check=_non_negative(tables["node_dfs_order"])),
            "node_is_attributed": Table(1, check=within(tables["node_is_attributed"], (2,))),
        }
        for piece in pieces(tables, sizes, nodes, {}):
            depth = np.minimum(piece.tables["node_depth"], MAX_DEPTH)
            edge_ptr, edge_index, edge_attr = augmented(piece)
            yield Graphs(
                node_ptr=pointers(piece.sizes),
                edge_ptr=edge_ptr,
                edge_index=edge_index,
                nodes={"x": np.concatenate([piece.tables["node-feat"], depth.astype(np.uint16)], axis=1)},
                edges={"edge_attr": edge_attr},
                graphs={"y": y[piece.graphs]},
                splits=splits,
                schema=Schema(
                    node_vocab=(*vocab, MAX_DEPTH + 1),
                    edge_vocab=(2, 2),
                    level="graph",
                    kind="multiclass",
                    outputs=len(vocabulary),
                    positions=POSITIONS,
                    names=tuple(vocabulary),
                    target=("the function's name",),
                    max_nodes=int(piece.sizes.max()),
                ),
            ).sort_edges()


def _non_negative(path: Path) -> Check:
    def check(values: np.ndarray, first: int) -> np.ndarray:
        refuse(path, values < 0, values, "is less than 0", first)
        return values

    return check


def _text(path: Path, header: int | None) -> pd.DataFrame:
    try:
        with open_bytes(path) as stream:
            return pd.read_csv(stream, header=header)
    except ValueError as error:
        raise UserError(f"cannot read {path} ({first_line(error)}): replace the file by OGB's") from None


def rows(path: Path) -> int:
    """Number of entries of a table of names."""
    return len(_text(path, header=0))


def words(path: Path, graphs: int) -> list[list[str]]:
    """The words of each function's name; a name that pandas parses as missing becomes ``nan``, as in OGB."""
    table = _text(path, header=None)
    if table.shape != (graphs, 1):
        shape = "{} rows of {} columns".format(*table.shape)
        raise UserError(f"{path} has {shape}, but num-node-list.csv.gz implies {graphs} of 1: replace both by OGB's")
    return [str(name).split(" ") for name in table[0].tolist()]


def frequent(names: Sequence[Sequence[str]], size: int) -> list[str]:
    """The vocabulary: the most frequent words, ties in order of appearance; then the unknown word and the end."""
    counter = Counter(word for name in names for word in name)
    return [*(word for word, _ in counter.most_common(size)), UNKNOWN, END]


def targets(names: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> np.ndarray:
    """(G, POSITIONS + R) the words at the positions, then the distinct words, see `FunctionNames`."""
    number = {word: n for n, word in enumerate(vocabulary[:-2])}
    unknown, end = len(vocabulary) - 2, len(vocabulary) - 1
    distinct = [[*dict.fromkeys(name)] for name in names]
    y = np.full((len(names), POSITIONS + max(map(len, distinct), default=0)), UNLABELLED, dtype=np.int32)
    y[:, :POSITIONS] = end
    for g, (name, unique) in enumerate(zip(names, distinct, strict=True)):
        y[g, : min(len(name), POSITIONS)] = [number.get(word, unknown) for word in name[:POSITIONS]]
        # ids of words outside the vocabulary need to be unique within one name only
        y[g, POSITIONS : POSITIONS + len(unique)] = [number.get(word, end + 1 + n) for n, word in enumerate(unique)]
    return y


def augmented(piece: Piece) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tree's edges and those from each token to the next, each followed by its reverse.

    A token is a node with an attribute; tokens are in the depth-first order of the tree.

    Returns:
        (G + 1,) offsets, (2, E) endpoints within each graph, (E, 2) edge features; by graph, then tree, then tokens.
    """
    tables: Arrays = piece.tables
    graph = np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    position = np.arange(len(graph)) - np.repeat(pointers(piece.sizes)[:-1], piece.sizes)
    tokens = np.flatnonzero(tables["node_is_attributed"][:, 0])
    tokens = tokens[np.lexsort((tables["node_dfs_order"][tokens, 0], graph[tokens]))]
    before, after = tokens[:-1], tokens[1:]
    inside = graph[before] == graph[after]
    before, after = before[inside], after[inside]
    edge_graph = np.concatenate([np.repeat(np.arange(len(piece.sizes)), piece.lines), graph[before]])
    ends = np.concatenate([piece.ends, np.stack([position[before], position[after]], axis=1)])
    kind = np.repeat([0, 1], [len(piece.ends), len(before)]).astype(np.uint8)
    order = np.argsort(edge_graph, kind="stable")
    ends, kind = ends[order], kind[order]
    edge_index = np.stack([ends.ravel(), ends[:, ::-1].ravel()])
    edge_attr = np.stack([np.repeat(kind, 2), np.tile(np.array([0, 1], dtype=np.uint8), len(kind))], axis=1)
    return pointers(2 * np.bincount(edge_graph, minlength=len(piece.sizes))), edge_index, edge_attr
