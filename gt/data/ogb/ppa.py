"""ogbg-ppa: from which of 37 taxa does a neighbourhood of a protein association network come? (Hu et al. 2020)"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gt.data.ogb.catalogue import metadata
from gt.data.ogb.graphs import OGBGraphs
from gt.data.ogb.metric import LeaderboardMetric, OGBAccuracy
from gt.data.ogb.raw import Table, pieces, splits_of
from gt.data.ogb.raw_csv import counts, numbers, refuse
from gt.data.packed import Graphs, pointers
from gt.schema import Schema

STRENGTHS = 7  # kinds of evidence for an association of two proteins, each from 0 to 1


class ProteinAssociations(OGBGraphs):
    """ogbg-ppa: 158,100 graphs without node features, edges with 7 strengths in [0, 1], 37 classes, split by species.

    Every node has the same category, 0. Each association, stored once in the files, becomes two edges, one in
    each direction, 359 million in all. Strengths are float32, which their three decimals in the files require.

    Args:
        root: the folder that holds, or will hold, ``ogbg_ppa``.
    """

    version = 1
    store_bytes = 12 * 2**30

    def __init__(self, root: str = "data") -> None:
        super().__init__("ogbg-ppa", root)

    def metric(self, graphs: Graphs) -> LeaderboardMetric:
        return OGBAccuracy(self.name)

    def read(self, tables: Mapping[str, Path]) -> Iterator[Graphs]:
        classes = int(metadata(self.name)["num classes"])
        sizes = counts(tables["num-node-list"], minimum=1)
        y = numbers(tables["graph-label"], 1, np.int64, len(sizes))
        refuse(tables["graph-label"], (y < 0) | (y >= classes), y, f"is not one of {classes} classes")
        splits, path = splits_of(tables, len(y)), tables["edge-feat"]

        def strengths(values: np.ndarray, first: int) -> np.ndarray:
            refuse(path, ~((values >= 0) & (values <= 1)), values, "is not a strength from 0 to 1", first)
            return values

        edges = {"edge-feat": Table(STRENGTHS, np.float32, strengths)}
        for piece in pieces(tables, sizes, {}, edges):
            edge_ptr, edge_index = piece.both_ways()
            yield Graphs(
                node_ptr=pointers(piece.sizes),
                edge_ptr=edge_ptr,
                edge_index=edge_index,
                nodes={"x": np.zeros((piece.sizes.sum(), 1), dtype=np.uint8)},
                edges={"edge_attr": np.repeat(piece.tables["edge-feat"], 2, axis=0)},
                graphs={"y": y[piece.graphs]},
                splits=splits,
                schema=Schema(
                    node_vocab=(1,),
                    edge_floats=STRENGTHS,
                    level="graph",
                    kind="multiclass",
                    outputs=classes,
                    target=("the taxonomic group",),
                    max_nodes=int(piece.sizes.max()),
                ),
            ).sort_edges()
