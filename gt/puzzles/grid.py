"""The grid: a row for each puzzle, a column for each setting, and what each cell is in the words of ``train.py``."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A puzzle.

    Attributes:
        data: its option of configs/data.
        needs: what it takes to solve it, for a reader.
        epochs: of training at most, enough for every setting that can solve it.
        encoding: overrides that choose the encoding of the settings that have one.
        causal: whether who reads all reads only what came before: nodes are tokens.
    """

    data: str
    needs: str
    epochs: int
    encoding: tuple[str, ...]
    causal: bool = False

    @property
    def encoding_name(self) -> str:
        return self.encoding[0].partition("=")[2].strip("[]")


@dataclass(frozen=True)
class Setting:
    """A column.

    Attributes:
        model: an option of configs/model.
        hops: how far a node reads in each layer, None as far as it can.
        encoded: whether the model has the encoding of the row.
        depth: layers.
    """

    model: str
    hops: int | None
    encoded: bool
    depth: int

    @property
    def name(self) -> str:
        """Several short lines."""
        layers = f"{self.depth} layer{'s' if self.depth > 1 else ''}"
        if self.model == "gin":
            return f"GIN\n{layers}"
        reads = f"{self.hops} hops" if self.hops else "all"
        return f"attention: {reads}\n{'encoding' if self.encoded else 'no encoding'}\n{layers}"


# features of pairs, which attention adds to its keys and values
WALKS = (
    "encoding=[rrwp]",
    "encoding.rrwp.writes=[x,p]",
    "model.block.attention.edges=true",
    "model.block.attention.edge_values=true",
)
ROWS = (
    Row("ring_transfer", "to reach 6 hops", 12, ("encoding=[laplacian]",)),
    Row("tree_match", "to choose among 32 leaves, 5 hops away", 10, ("encoding=[rwse]",)),
    Row("distance", "to know the edges", 8, WALKS),
    Row("connectivity", "to know the edges", 8, (*WALKS, "encoding.rrwp.steps=12")),
    Row("copying", "to know the order, 24 tokens back", 8, ("encoding=[learned]",), causal=True),
    Row("associative_recall", "to read twice: a key, then what follows", 16, ("encoding=[learned]",), causal=True),
    Row("needle", "to reach up to 127 tokens back", 6, ("encoding=[learned]",), causal=True),
)
SETTINGS = (
    Setting("gin", 1, False, 3),
    Setting("gin", 1, False, 8),
    Setting("transformer", 2, True, 2),
    Setting("transformer", None, False, 2),
    Setting("transformer", None, True, 1),
    Setting("transformer", None, True, 2),
)


@dataclass(frozen=True)
class Cell:
    """One training."""

    row: Row
    setting: Setting
    seed: int

    @property
    def overrides(self) -> list[str]:
        """What ``python train.py`` is told."""
        row, setting = self.row, self.setting
        told = [f"data={row.data}", f"model={setting.model}", f"model.depth={setting.depth}"]
        told += row.encoding if setting.encoded else ["encoding=none"]
        if setting.model == "transformer":
            whole = "mask=causal" if row.causal else "mask=hops"
            told += [whole] if setting.hops is None else ["mask=hops", f"mask.hops={setting.hops}"]
            told += ["model.block.prenorm=true", "model.block.attention.heads=2"]
        return [
            *told,
            "model.block.dropout=0",
            "optim.lr=2e-3",
            f"trainer.max_epochs={row.epochs}",
            f"seed={self.seed}",
        ]

    @property
    def name(self) -> str:
        """Of its file."""
        setting = self.setting
        reads = "all" if setting.hops is None else setting.hops
        coded = "encoded" if setting.encoded else "plain"
        return f"{self.row.data}-{setting.model}-{reads}-{coded}-{setting.depth}-{self.seed}"


def grid(rows: Iterable[Row], seeds: int) -> list[Cell]:
    """Every cell, puzzles in turn: two processes then seldom need the same data at the same time."""
    chosen = list(rows)
    return [Cell(row, setting, seed) for seed in range(seeds) for setting in SETTINGS for row in chosen]
