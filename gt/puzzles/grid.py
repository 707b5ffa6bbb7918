"""The grid: one row per puzzle, one column per setting, and the ``train.py`` overrides of each cell."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A puzzle.

    Attributes:
        data: its option in configs/data.
        needs: what solving it takes, for display.
        epochs: maximum number of epochs, enough for every setting that can solve it.
        encoding: overrides that select the encoding, for settings with one.
        causal: whether the complete mask is causal, as nodes are tokens.
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
        model: an option in configs/model.
        hops: attention radius of each layer; None: unlimited.
        encoded: whether the model uses the row's encoding.
        depth: number of layers.
    """

    model: str
    hops: int | None
    encoded: bool
    depth: int

    @property
    def name(self) -> str:
        """Label of several short lines."""
        layers = f"{self.depth} layer{'s' if self.depth > 1 else ''}"
        if self.model == "gin":
            return f"GIN\n{layers}"
        reads = f"{self.hops} hops" if self.hops else "all"
        return f"attention: {reads}\n{'encoding' if self.encoded else 'no encoding'}\n{layers}"


# pair features, which attention adds to its keys and values
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
    """One training run."""

    row: Row
    setting: Setting
    seed: int

    @property
    def overrides(self) -> list[str]:
        """Overrides for ``python train.py``."""
        row, setting = self.row, self.setting
        overrides = [f"data={row.data}", f"model={setting.model}", f"model.depth={setting.depth}"]
        overrides += row.encoding if setting.encoded else ["encoding=none"]
        if setting.model == "transformer":
            mask = "mask=causal" if row.causal else "mask=hops"
            overrides += [mask] if setting.hops is None else ["mask=hops", f"mask.hops={setting.hops}"]
            overrides += ["model.block.prenorm=true", "model.block.attention.heads=2"]
        return [
            *overrides,
            "model.block.dropout=0",
            "optim.lr=2e-3",
            f"trainer.max_epochs={row.epochs}",
            f"seed={self.seed}",
        ]

    @property
    def name(self) -> str:
        """Stem of its file."""
        setting = self.setting
        reads = "all" if setting.hops is None else setting.hops
        encoding = "encoded" if setting.encoded else "plain"
        return f"{self.row.data}-{setting.model}-{reads}-{encoding}-{setting.depth}-{self.seed}"


def grid(rows: Iterable[Row], seeds: int) -> list[Cell]:
    """All cells, cycling through puzzles so that parallel processes seldom need the same data at once."""
    row_list = list(rows)
    return [Cell(row, setting, seed) for seed in range(seeds) for setting in SETTINGS for row in row_list]
