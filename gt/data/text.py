"""Language modelling on a text file: every block of text is a path graph, every character a node."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchmetrics import MetricCollection

from gt.attention import Reading
from gt.data.batching import Batches, asked, prepare_all
from gt.data.datamodule import DataModule
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.metrics import Criterion
from gt.schema import Schema


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: no such file, nothing in it, or bytes that are not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no text file at {path}: set data.path to an existing file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: set data.path to one text file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be read; convert it first") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{path} is empty: set data.path to a file with text")
    return text


def characters(text: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each character as a number (T,), and the characters by number."""
    codes, tokens = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), return_inverse=True)
    return tokens.astype(np.int64), tuple(map(chr, codes.tolist()))


def path_graphs(sizes: Sequence[int]) -> GraphBatch:
    """Paths of the given lengths, without features; node i reads node i - 1, so that edges never look ahead."""
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    target = torch.arange(int(ptr[-1]))
    target = target[~torch.isin(target, ptr)]
    return GraphBatch(
        ptr=ptr,
        edge_index=torch.stack([target - 1, target]),
        max_nodes=max(sizes),
        equal_sizes=len(set(sizes)) == 1,
    ).finish()


class TextDataset(Dataset[GraphBatch]):
    """Blocks of consecutive tokens; a list of start positions gives a batch whose targets are the next tokens."""

    def __init__(self, tokens: Tensor, context: int, readings: Iterable[Reading]) -> None:
        self.tokens, self.context, self.readings = tokens, context, readings
        self.skeleton = lru_cache(maxsize=4)(self._skeleton)

    @staticmethod
    def _skeleton(sizes: tuple[int, ...], readings: frozenset[Reading]) -> GraphBatch:
        """All of a batch but its tokens: nearly every batch has the same shape, so this is made once."""
        return prepare_all(path_graphs(sizes), readings)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each block when the text is cut end to end; each token but the first is a target once."""
        starts = np.arange(0, len(self.tokens) - 1, self.context)
        return np.minimum(self.context, len(self.tokens) - 1 - starts)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitems__(self, starts: list[int]) -> GraphBatch:
        last = len(self.tokens) - 1
        sizes = tuple(min(self.context, last - start) for start in starts)
        batch = copy.copy(self.skeleton(sizes, frozenset(asked(starts, self.readings))))
        place = torch.tensor(starts)[batch.batch] + batch.position
        batch.x, batch.y = self.tokens[place][:, None], self.tokens[place + 1]
        return batch


class TextBatches(Batches):
    """Batches of start positions: blocks end to end; in training from an offset that each epoch draws anew."""

    def __init__(
        self, sizes: np.ndarray, context: int, batch_size: int, shuffle: bool, seed: int, **place: int
    ) -> None:
        # a training epoch leaves the last block out to have room for the offset
        super().__init__(sizes[:-1] if shuffle else sizes, batch_size, shuffle, seed, **place)
        self.context = context

    def __iter__(self) -> Iterator[list[int]]:
        room = np.random.default_rng([self.seed, self.epoch, 1]).integers(self.context)
        offset = int(room) if self.shuffle else 0
        for batch in super().__iter__():
            yield [block * self.context + offset for block in batch]


class Text(DataModule):
    """Predict each next character of a text file; the last part of the file is held out for validation.

    Args:
        path: a UTF-8 text file.
        context: characters in a block, the longest path that a model reads.
        valid: the share of the file, at its end, that is held out.
        batch_size: blocks in a training batch; the rest as in `DataModule`.
    """

    def __init__(
        self,
        path: str,
        context: int = 128,
        valid: float = 0.1,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed)
        if context < 1:
            raise ValueError(f"context must be 1 or more, not {context}")
        if not 0 < valid < 1:
            raise ValueError(f"the share held out must lie between 0 and 1, not {valid}")
        self.path, self.context, self.valid = Path(path), context, valid
        self.tokens: dict[str, Tensor] = {}

    def open(self, encodings: Sequence[Encoding]) -> None:
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is computed once per stored graph and text is cut anew each epoch: "
                    "choose encoding=learned, sinusoidal or rope for text"
                )
        tokens, names = characters(read_text(self.path))
        cut = int(len(tokens) * (1 - self.valid))
        self.tokens = {"train": torch.from_numpy(tokens[:cut]), "valid": torch.from_numpy(tokens[cut:])}
        if cut < 2 * self.context + 1 or len(tokens) - cut < 2:
            raise UserError(
                f"{self.path} has {len(tokens)} characters: too few for blocks of {self.context}; lower data.context"
            )
        self.schema = Schema(
            node_vocab=(len(names),), level="node", outputs=len(names), names=names, max_nodes=self.context
        )

    def measures(self) -> tuple[MetricCollection, Criterion]:
        return super().measures()[0], Criterion("loss", "min")

    def has(self, split: str) -> bool:
        return split in self.tokens

    def dataset(self, split: str) -> TextDataset:
        return TextDataset(self.tokens[split], self.context, self.readings)

    def targets(self, split: str) -> Tensor:
        return self.tokens[split][1:]

    def batches(self, split: str, **place: int) -> Batches:
        train = split == "train"
        size = self.batch_size if train else self.eval_batch_size
        return TextBatches(self.dataset(split).sizes, self.context, size, train, self.seed, **place)
