"""Incremental decoding: next-token logits of a causal language model as a text grows.

`Recompute` runs the model on the whole text for each token. `Cache` keeps the keys and values of earlier tokens (the KV
cache of GPT implementations) and the states of recurrent layers, so that a new token costs one row of every layer; both
give the same numbers.
"""

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from gt.graph import GraphBatch, path_graphs
from gt.inference.causal import check_causal
from gt.layers import Attention, State, declared_attribute, name_of, norms_of, parts_of, reads_of, writes_of
from gt.masks import Pairs
from gt.model import GraphTransformer
from gt.norms import mixes_rows


def obstacle(net: GraphTransformer) -> str | None:
    """The reason why the model cannot be decoded with a cache, or None."""
    if net.jump is not None:
        return f"{type(net.jump).__name__} reads all blocks"
    for part in (part for block in net.blocks for part in parts_of(block)):
        reads = reads_of(part)
        if reads == "edges":
            return f"message passing along edges ({name_of(part)}) cannot be cached"
        if reads == "pairs" and getattr(part, "reads_edges", True):
            return f"{name_of(part)} reads edge features"
        uncached = reads == "pairs" and declared_attribute(part, "cache", ...) is ...
        uncached |= reads == "graph" and declared_attribute(part, "carried", ...) is ...
        if uncached or {"p", "g"} & set(writes_of(part)):
            return f"{name_of(part)} cannot be cached"
    for norm in (net.embedding_norm, net.norm, *(norm for block in net.blocks for norm in norms_of(block))):
        if mixes_rows(norm):
            return f"{type(norm).__name__} normalises over several tokens"
    for encoding in net.encodings:
        if encoding.reads != "position":
            return f"{type(encoding).__name__} depends on more than a token's position"
    for mask in net.masks_in_use:
        if not mask.grows:
            return f"the mask {mask} depends on more than positions"
    return None


class Reader(ABC):
    """Computes next-token logits.

    Args:
        net: a causal language model, in eval mode.
    """

    def __init__(self, net: GraphTransformer) -> None:
        self.net = net

    @abstractmethod
    def restart(self) -> None:
        """Forget all tokens, before an unrelated text."""

    @abstractmethod
    def __call__(self, tokens: Tensor) -> Tensor:
        """(S, T) tokens of S texts to (S, outputs) logits of their next tokens.

        Until `restart`, each call must extend the texts of the previous one.
        """


class Recompute(Reader):
    """Runs the model on all tokens in each call; supports every model."""

    def restart(self) -> None:
        """Do nothing, as there is no state."""

    def __call__(self, tokens: Tensor) -> Tensor:
        samples, length = tokens.shape
        batch = path_graphs([length] * samples).to(tokens.device)
        batch.x = tokens.reshape(-1, 1)
        return self.net(batch).view(samples, length, -1)[:, -1]


class Rows(Pairs):
    """The pairs of the R tokens from ``start`` to ``stop`` of a path with all T before ``stop``, allowed or not.

    Attributes:
        batch: only the new tokens of every sample, with their positions.
        edges: (2, R * T), positions on the path; sorted by (target, source).
        visible: (1 or H, R, T) bool, the pairs that the mask allows.
    """

    def __init__(self, whole: Pairs, batch: GraphBatch, start: int, stop: int) -> None:
        super().__init__(batch, whole.mask)
        self.whole, self.slices = whole, (slice(start, stop), slice(stop))
        self.visible = whole.dense[0][:, *self.slices]

    @property
    def edges(self) -> Tensor:
        target, source = (torch.arange(s.stop, device=self.batch.device)[s] for s in self.slices)
        return torch.stack([source.repeat(len(target)), target.repeat_interleave(len(source))])

    @property
    def ahead(self) -> Tensor:
        source, target = self.edges  # positions in the text, as the batch has only the new tokens
        return source - target

    def hops(self, limit: int) -> Tensor:
        return self.whole.dense_hops(limit)[0, *self.slices].flatten()


class KeysAndValues:
    """The KV cache of one attention layer, its `gt.layers.Attention.cache`.

    Args:
        context: maximum number of tokens.
    """

    def __init__(self, context: int) -> None:
        self.context = context
        self.buffer: Tensor | None = None  # (2, S, context, kv_heads, D): keys and values

    def __call__(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        """(S * R, H, D) and twice (S * R, kv_heads, D) of new tokens to (S * R, H, D), attending to all so far."""
        assert isinstance(pairs, Rows)
        shape, samples = q.shape, pairs.batch.num_graphs
        q, k, v = (t.unflatten(0, (samples, -1)) for t in (q, k, v))  # (S, R, H, D)
        if self.buffer is None or self.buffer.shape[1] != samples:  # the number of texts may change after a restart
            self.buffer = k.new_empty(2, samples, self.context, *k.shape[2:])
        new, so_far = pairs.slices
        self.buffer[0, :, new], self.buffer[1, :, new] = k, v
        keys, values = layer.expand_kv(self.buffer[:, :, so_far])  # (S, T, H, D)
        if layer.score is not None:
            scores = layer.score(q[:, :, None], keys[:, None], None).permute(0, 3, 1, 2)  # (S, H, R, T)
        else:
            scores = torch.einsum("srhd,sthd->shrt", q / math.sqrt(q.shape[-1]), keys)
        if layer.hint is not None:
            scores = scores + layer.hint.bias(pairs, dense=False).T.unflatten(1, pairs.visible.shape[1:])
        scores = scores.masked_fill(~pairs.visible, -torch.inf)
        weights = torch._safe_softmax(scores, -1)  # tokens that read nothing get zeros
        return torch.einsum("shrt,sthd->srhd", weights, values).reshape(shape)


class Cache(Reader):
    """Runs the model on the new tokens only; for models without an `obstacle`.

    Args:
        net: a causal language model, in eval mode.
        context: maximum number of tokens of a text.
    """

    def __init__(self, net: GraphTransformer, context: int) -> None:
        super().__init__(net)
        self.path = path_graphs([context]).to(next(net.parameters()).device)
        shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
        self.blocks = copy.deepcopy(net.blocks, shared)  # shares the weights; only the caches are separate
        parts: list[Any] = [part for block in self.blocks for part in parts_of(block)]
        for part in parts:
            if reads_of(part) == "pairs":
                part.cache = KeysAndValues(context)
        self.recurrent = [part for part in parts if reads_of(part) == "graph"]
        self.restart()

    def restart(self) -> None:
        self.length = 0
        for part in self.recurrent:
            part.carried = []

    def __call__(self, tokens: Tensor) -> Tensor:
        samples, stop = tokens.shape
        new = tokens[:, self.length :]
        batch = self._batch(samples, self.length, stop)
        batch.x = new.reshape(-1, 1)
        state = State(self.net.embed(batch), encodings=self.net.rotations)
        rows = {mask: Rows(mask(self.path), batch, self.length, stop) for mask in self.net.masks_in_use}
        for block, mask in zip(self.blocks, self.net.masks, strict=True):
            state = block(state, batch, rows.get(mask))
        self.length = stop
        x = state.x.view(samples, new.shape[1], -1)[:, -1]
        return self.net.head(self.net.norm(x), batch)

    def _batch(self, samples: int, start: int, stop: int) -> GraphBatch:
        """The tokens ``start`` to ``stop`` of each sample as a separate graph, with their positions in the text."""
        device = self.path.device
        batch = GraphBatch(
            ptr=torch.arange(samples + 1, device=device) * (stop - start),
            edge_index=torch.empty(2, 0, dtype=torch.long, device=device),
            max_nodes=stop,  # for tables of positions
        )
        batch.position = torch.arange(start, stop, device=device).repeat(samples)
        return batch


def reader(net: GraphTransformer, context: int) -> Reader:
    """The fastest reader that supports a model.

    Raises:
        UserError: the model is not causal.
    """
    check_causal(net, context)
    return Recompute(net) if obstacle(net) else Cache(net, context)
