"""Language modelling: every block of text is a path graph, every token a node."""

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchmetrics import MetricCollection

from gt.attention import Reading
from gt.data.batch_sampler import Batches
from gt.data.batching import prepare_all, readings_of, tensor
from gt.data.datamodule import ALL, DataModule
from gt.data.store import fingerprint
from gt.data.store_folders import store_folder, temporary_store
from gt.data.text.files import digest, pieces, text_files
from gt.data.text.metrics import LanguageModel
from gt.data.text.tokenizer import KINDS, BytePairs, Tokenizer, UnknownCharacter, loads
from gt.data.text.tokens import VERSION, Texts, Tokens, held_out, is_complete, open_or_build
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
from gt.metrics import Criterion
from gt.ranges import at_least
from gt.schema import Schema

Kind = Literal["characters", "bytes", "bpe"]


class TextDataset(Dataset[GraphBatch]):
    """Blocks of consecutive tokens; a list of start positions gives a batch whose targets are the next tokens.

    Args:
        tokens: (T,) integers of any type; may be memory-mapped.
        context: tokens in a block.
        readings: what a model will ask of each batch.
    """

    def __init__(self, tokens: np.ndarray, context: int, readings: Iterable[Reading]) -> None:
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
        batch = copy.copy(self.skeleton(sizes, frozenset(readings_of(starts, self.readings))))
        place = (torch.tensor(starts)[batch.batch] + batch.position).numpy()
        batch.x, batch.y = tensor(self.tokens[place])[:, None], tensor(self.tokens[place + 1])
        return batch


class TextBatches(Batches):
    """Batches of start positions: blocks end to end; in training from an offset that each epoch draws anew."""

    def __init__(
        self, sizes: np.ndarray, context: int, batch_size: int, shuffle: bool, seed: int, **options: Any
    ) -> None:
        # a training epoch leaves the last block out to have room for the offset
        super().__init__(sizes[:-1] if shuffle else sizes, batch_size, shuffle, seed, **options)
        self.context = context

    def items(self, graphs: np.ndarray, place: int) -> list[int]:
        offset = np.random.default_rng([self.seed, self.epoch, 1]).integers(self.context) if self.shuffle else 0
        return (graphs * self.context + offset).tolist()


class LanguageModelling(DataModule):
    """Predict each next token of a text.

    Args:
        context: tokens in a block, the longest path that a model reads.
        valid: the share of the training text, at its end, that is held out where there is no text for validation.
        tokens: what a token is: ``characters``, ``bytes``, or ``bpe``, byte pairs learned on the training text.
        vocabulary: how many tokens to learn, for ``bpe``.
        tokenizer: a ``tokenizer.json`` to take instead.
        root: where tokens are kept, in ``<root>/stores``.
        batch_size: blocks in a training batch; the rest as in `DataModule`.
    """

    def __init__(
        self,
        context: int,
        valid: float,
        tokens: Kind,
        vocabulary: int,
        tokenizer: str | None,
        root: str,
        batch_size: int,
        eval_batch_size: int | None,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, workers, seed)
        at_least(1, context, "context")
        if not 0 < valid < 1:
            raise ValueError(f"valid, the share that is held out, must lie between 0 and 1, not {valid}")
        if tokens not in KINDS:
            raise ValueError(f"tokens must be characters, bytes or bpe, not {tokens}")
        self.context, self.valid, self.root = context, valid, Path(root)
        self.kind, self.vocabulary = tokens, vocabulary
        self.given = None if tokenizer is None else Path(tokenizer)
        self.store: Tokens | None = None

    @property
    @abstractmethod
    def where(self) -> str:
        """What the text is called in messages."""

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """JSON-able facts that tell the text from any other."""

    @abstractmethod
    def texts(self) -> Texts:
        """The text of each split; ``train`` at least."""

    def key(self) -> dict[str, Any]:
        """What the stored tokens depend on."""
        if self.given is not None:
            facts: dict[str, Any] = {"tokenizer": BytePairs.read(self.given).dumps()}
        else:
            facts = {"tokens": self.kind, "vocabulary": self.vocabulary if self.kind == "bpe" else None}
        return facts | {"version": VERSION, "source": self.source(), "valid": self.valid}

    def build(self) -> tuple[Texts, Tokenizer]:
        """The text by split, and a tokenizer for it; byte pairs are learned on the training text alone."""
        texts = held_out(self.texts(), self.valid, self.where)
        if self.given is not None:
            return texts, BytePairs.read(self.given)
        known = ["train"] if self.kind == "bpe" else texts
        return texts, KINDS[self.kind].learn((piece for split in known for piece in texts[split]()), self.vocabulary)

    def whole(self, known: Schema) -> tuple[Texts, Tokenizer]:
        """The text of every split, one after the other, and the tokenizer of a trained model."""
        texts = list(self.texts().values())
        return {ALL: lambda: (piece for text in texts for piece in text())}, loads(known.tokenizer)

    def open(self, encodings: Sequence[Encoding], known: Schema | None = None) -> None:
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is computed once per stored graph and text is cut anew each epoch: "
                    "choose encoding=learned, sinusoidal or rope for text"
                )
        if known is None:
            folder = store_folder(self.root, f"text-{fingerprint(self.key())}", is_complete)
            self.store = open_or_build(folder, self.build)
        else:
            self._temporary = temporary_store(self.root)
            try:
                self.store = open_or_build(Path(self._temporary.name) / "text", partial(self.whole, known))
            except UnknownCharacter as error:
                raise UserError(f"{self.where}: {error}") from None
        tokenizer = self.store.tokenizer
        short = known is None and len(self.tokens["train"]) < 2 * self.context + 1
        if short or any(len(t) < 2 for t in self.tokens.values()):
            total = sum(map(len, self.tokens.values()))
            raise UserError(
                f"{self.where} has {total} {tokenizer.unit}: too few for blocks of {self.context}; lower data.context"
            )
        self.schema = Schema(
            node_vocab=(tokenizer.size,),
            level="node",
            outputs=tokenizer.size,
            names=tokenizer.names,
            target=("the next token",),
            max_nodes=self.context,
            tokenizer=tokenizer.dumps(),
        )

    @property
    def opened(self) -> Tokens:
        """What `open` found."""
        if self.store is None:
            raise RuntimeError("open() the data before use")
        return self.store

    @property
    def tokens(self) -> dict[str, np.ndarray]:
        """(T,) the tokens of each split, memory-mapped."""
        return self.opened.splits

    def measures(self) -> tuple[MetricCollection, Criterion]:
        """Accuracy, perplexity and, where the tokenizer loses nothing, bits per byte; the loss decides."""
        collection = super().measures()[0]
        collection.add_metrics(
            {"language": LanguageModel(self.opened.tokenizer.lengths() if self.opened.lossless else None)}
        )
        return collection, Criterion("loss", "min")

    def has(self, split: str) -> bool:
        return split in self.tokens

    def dataset(self, split: str) -> TextDataset:
        return TextDataset(self.tokens[split], self.context, self.readings)

    def targets(self, split: str) -> Tensor:
        return tensor(self.tokens[split][1:])

    def batches(self, split: str, **place: int) -> Batches:
        sizes, train = self.dataset(split).sizes, split == "train"
        return TextBatches(sizes, self.context, shuffle=train, seed=self.seed, **self.measure(split), **place)


class Text(LanguageModelling):
    """The text of a file, of a folder, or of the files that fit a glob.

    Files follow one another in the order of their names. Where some name a split (``wiki.train.txt``, ``valid.txt``)
    and there is more than one split, each belongs to its own; else the last part of all is held out.

    Args:
        path: UTF-8 text; ``.gz`` is unpacked. The rest as in `LanguageModelling`.
    """

    def __init__(
        self,
        path: str,
        context: int = 128,
        valid: float = 0.1,
        tokens: Kind = "characters",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            context, valid, tokens, vocabulary, tokenizer, root, batch_size, eval_batch_size, workers, seed
        )
        self.path = path

    @property
    def where(self) -> str:
        return self.path

    def source(self) -> dict[str, Any]:
        return {"text": digest(text_files(self.path))}

    def texts(self) -> Texts:
        return {split: partial(pieces, paths) for split, paths in text_files(self.path).items()}
