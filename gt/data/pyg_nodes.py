"""Single large graphs of PyTorch Geometric (Fey & Lenssen 2019) with a target at each node, such as Planetoid's.

As in `gt.data.pyg`, PyG reads its files by unpickling them: the folder where it keeps them is trusted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch_geometric.data import Dataset

from gt.data.nodes import NodeData
from gt.data.own import file_name
from gt.data.pyg import VERSION, one_graph
from gt.data.pyg_open import open_dataset, title
from gt.data.pyg_read import digest
from gt.data.sampling import Sampler
from gt.data.store import Graphs
from gt.encodings import Encoding
from gt.schema import Kind


class PyGNodes(NodeData):
    """The one graph of a PyG dataset; splits are its masks, or drawn at random where it has none.

    Args:
        dataset: makes the dataset, such as ``partial(Planetoid, root="data/pyg", name="Cora")``.
        kind: what targets are; None finds it, see `gt.data.found.answer`.
        fractions: shares of train, valid and test of a random split.
        split_seed: what a random split is drawn from.
        root: where the store is kept.
        sampler: what a training step sees, see `gt.data.sampling`; the rest as in `NodeData`.

    Raises:
        UserError: on ``open``, a dataset that cannot be had or read, or that has several graphs.
    """

    def __init__(
        self,
        dataset: Callable[..., Dataset],
        kind: Kind | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        root: str = "data",
        sampler: Sampler | None = None,
        evaluate: Literal["full", "sampled"] = "full",
        chunk: int = 1 << 19,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.make = dataset if isinstance(dataset, partial) else partial(dataset)
        super().__init__(file_name(title(self.make)), root, sampler, evaluate, chunk, workers, seed)
        self.kind, self.fractions, self.split_seed = kind, tuple(fractions), split_seed
        self._source: Dataset | None = None

    def source(self) -> Dataset:
        """PyG's own dataset, held while the store is opened."""
        if self._source is None:
            self._source = open_dataset(self.make)
        return self._source

    def open(self, encodings: Sequence[Encoding]) -> None:
        try:
            super().open(encodings)
        finally:
            self._source = None  # all is in the store now

    def key(self) -> dict[str, Any]:
        facts = {"kind": self.kind, "fractions": self.fractions, "seed": self.split_seed}
        return {"source": "pyg nodes", "version": VERSION, "content": digest({"": self.source()}, self.name), **facts}

    def build(self) -> Graphs:
        return one_graph(self.source(), self.name, self.kind, self.fractions, self.split_seed)
