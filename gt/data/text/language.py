"""Language modelling, with each block of text as a path graph and each token as a node."""

import copy
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gt.attention import Reading
from gt.data.batch_sampler import Batches, Request
from gt.data.batching import BatchDataset, prepare_all, tensor
from gt.data.datamodule import Sized
from gt.data.files import print_line
from gt.data.store import fingerprint
from gt.data.store_folders import store_folder, temporary_store
from gt.data.text.corpus import Corpus
from gt.data.text.tokenizer import UnknownCharacter
from gt.data.text.tokens import Tokens, is_complete, open_or_build
from gt.encodings import Encoding
from gt.errors import UserError
from gt.graph import GraphBatch, path_graphs
from gt.inference.decode import obstacle, reader
from gt.inference.sampling import generate
from gt.keys import full_key
from gt.losses import Criterion
from gt.model import GraphTransformer
from gt.ranges import at_least
from gt.schema import Schema

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

PROMPT, GENERATED, TEMPERATURE = 32, 300, 0.8  # of an example, the first two in tokens
# characters that control a terminal or make a log look binary, except line feeds and tabs
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TextDataset(BatchDataset):
    """Blocks of consecutive tokens, sampled by start position; targets are the next tokens.

    Args:
        tokens: (T,) integers of any type, possibly memory-mapped.
        context: tokens in a block.
    """

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.context = tokens, context
        self.skeleton = lru_cache(maxsize=4)(self._skeleton)

    @staticmethod
    def _skeleton(sizes: tuple[int, ...], readings: frozenset[Reading]) -> GraphBatch:
        """A batch without its tokens, cached because nearly all batches have the same shape."""
        return prepare_all(path_graphs(sizes), readings)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each block of the contiguously cut text; each token but the first is a target once."""
        starts = np.arange(0, len(self.tokens) - 1, self.context)
        return np.minimum(self.context, len(self.tokens) - 1 - starts)

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, request: Request) -> GraphBatch:
        last = len(self.tokens) - 1
        sizes = tuple(min(self.context, last - start) for start in request.samples)
        batch = copy.copy(self.skeleton(sizes, frozenset(request.readings)))
        index = (torch.tensor(request.samples)[batch.batch] + batch.position).numpy()
        batch.x, batch.y = tensor(self.tokens[index])[:, None], tensor(self.tokens[index + 1])
        return batch


class TextBatches(Batches):
    """Batches of start positions of contiguous blocks, in training with a new random offset each epoch."""

    def __init__(
        self, sizes: np.ndarray, context: int, batch_size: int, shuffle: bool, seed: int, **options: Any
    ) -> None:
        # a training epoch omits the last block to leave room for the offset
        super().__init__(sizes[:-1] if shuffle else sizes, batch_size, shuffle, seed, **options)
        self.context = context

    def request(self, graphs: np.ndarray, index: int, **fields: Any) -> Request:
        offset = np.random.default_rng([self.seed, self.epoch, 1]).integers(self.context) if self.shuffle else 0
        return Request(tuple((graphs * self.context + offset).tolist()), **fields)


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageData(Sized):
    """Predict each next token of a text.

    Args:
        context: tokens in a block, the longest path that the model reads.
    """

    source: Corpus = field(kw_only=False)
    context: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self.context, "context")
        self.store: Tokens | None = None

    def open(self, encodings: Sequence[Encoding], model_schema: Schema | None = None) -> None:
        for encoding in encodings:
            if encoding.key() is not None:
                raise UserError(
                    f"{type(encoding).__name__} is precomputed per graph, but text is cut anew each epoch: "
                    "choose encoding=learned, sinusoidal or rope for text"
                )
        if model_schema is None:
            if summary := self.source.summary():
                print_line(summary)
            key = fingerprint(full_key(self.source))
            folder = store_folder(self.source.root, "text", key, is_complete, self.source.made_of)
            self.store = open_or_build(folder, self.source.build)
        else:
            self._temporary = temporary_store(self.source.root)
            try:
                self.store = open_or_build(
                    Path(self._temporary.name) / "text", partial(self.source.build_known, model_schema)
                )
            except UnknownCharacter as error:
                raise UserError(f"{self.source}: {error}") from None
        tokenizer = self.store.tokenizer
        counts = {split: len(tokens) for split, tokens in self.tokens.items()}
        if model_schema is None and counts["train"] < 2 * self.context + 1:
            raise UserError(
                f"{self.source} has {counts['train']:,} training {tokenizer.unit} of {sum(counts.values()):,}: too "
                f"few for blocks of {self.context}; lower data.context"
            )
        for split, count in counts.items():
            if count < 2:
                raise UserError(
                    f"{self.source}: the {split} split has {count} of {sum(counts.values()):,} {tokenizer.unit}, too "
                    "few to predict one from another: add more text or, for valid, raise data.valid"
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
        """The tokens loaded by `open`."""
        if self.store is None:
            raise RuntimeError("open() the data before use")
        return self.store

    @property
    def tokens(self) -> dict[str, np.ndarray]:
        """(T,) the tokens of each split, memory-mapped."""
        return self.opened.splits

    def measures(self) -> "tuple[MetricCollection, Criterion]":
        """Accuracy, perplexity and, for a lossless tokenizer, bits per byte; checkpoints are selected by the loss."""
        from gt.data.text.metrics import LanguageModel  # lazy, as both import torchmetrics
        from gt.metrics import metrics

        collection = metrics(self.schema)[0]
        collection.add_metrics(
            {"language": LanguageModel(self.opened.tokenizer.lengths() if self.opened.lossless else None)}
        )
        return collection, Criterion("loss", "min")

    def examples(self, net: nn.Module, split: str) -> str:
        """The network's continuation of the first tokens of a split; empty if it does not support cached decoding."""
        if not isinstance(net, GraphTransformer) or obstacle(net):
            return ""
        prompt = tensor(self.tokens[split][: max(1, min(PROMPT, self.context // 2))]).to(next(net.parameters()).device)
        generated = generate(reader(net.eval(), self.context), prompt[None], GENERATED, self.context, TEMPERATURE)[0]
        start, rest = (self.opened.tokenizer.decode(part.tolist()) for part in (prompt, generated[len(prompt) :]))
        rest = CONTROL.sub("\N{REPLACEMENT CHARACTER}", rest)
        return f"after {start!r} it writes:\n{textwrap.indent(rest, '    ', lambda line: True)}\n"

    def has(self, split: str) -> bool:
        return split in self.tokens

    def dataset(self, split: str) -> TextDataset:
        return TextDataset(self.tokens[split], self.context)

    def targets(self, split: str) -> Tensor:
        return tensor(self.tokens[split][1:])

    def batches(self, split: str, **state: int) -> Batches:
        sizes, train = self.dataset(split).sizes, split == "train"
        return TextBatches(sizes, self.context, shuffle=train, seed=self.seed, **self.measure(split), **state)
