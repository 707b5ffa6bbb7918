"""Reading a growing text: what a causal language model says comes next, one new token at a time.

`Recompute` reads the whole text again for each token. `Cache` keeps the keys and values of what was read (as GPT
implementations do) and the states of recurrent layers, so that a new token costs one row of every layer; both give the
same numbers.
"""

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from gt.graph import GraphBatch, path_graphs
from gt.inference.causal import check_causal
from gt.layers import Attention, State, declared, name_of, norms_of, parts_of, reads_of, writes_of
from gt.masks import Pairs
from gt.model import GraphTransformer
from gt.norms import mixes_rows


def obstacle(net: GraphTransformer) -> str | None:
    """Why what layers make of a text so far cannot be kept, in a phrase, or None."""
    if net.jump is not None:
        return f"{type(net.jump).__name__} reads all blocks"
    for part in (part for block in net.blocks for part in parts_of(block)):
        reads = reads_of(part)
        if reads == "edges":
            return f"message passing along edges ({name_of(part)}) reads what no cache holds"
        if reads == "pairs" and getattr(part, "reads_edges", True):
            return f"{name_of(part)} reads features of edges"
        uncached = reads == "pairs" and declared(part, "cache", ...) is ...
        uncached |= reads == "graph" and declared(part, "carried", ...) is ...
        if uncached or {"p", "g"} & set(writes_of(part)):
            return f"{name_of(part)} reads what no cache holds"
    for norm in (net.embedding_norm, net.norm, *(norm for block in net.blocks for norm in norms_of(block))):
        if mixes_rows(norm):
            return f"{type(norm).__name__} normalises a token by others"
    for encoding in net.encodings:
        if encoding.reads != "position":
            return f"{type(encoding).__name__} goes by more than a token's position"
    for mask in net.masks_in_use:
        if not mask.grows:
            return f"the mask {mask} goes by more than positions"
    return None


class Reader(ABC):
    """Says what comes next.

    Args:
        net: a causal language model, in eval mode.
    """

    def __init__(self, net: GraphTransformer) -> None:
        self.net = net

    @abstractmethod
    def restart(self) -> None:
        """Forget what was read: the next text is another one."""

    @abstractmethod
    def __call__(self, tokens: Tensor) -> Tensor:
        """(S, T) tokens of S texts to (S, outputs) logits of each next one.

        Until `restart` each call must give the texts of the last one with more at their end.
        """


class Recompute(Reader):
    """Runs the model on all tokens each time; serves every model."""

    def restart(self) -> None:
        """Nothing is remembered."""

    def __call__(self, tokens: Tensor) -> Tensor:
        samples, length = tokens.shape
        batch = path_graphs([length] * samples).to(tokens.device)
        batch.x = tokens.reshape(-1, 1)
        return self.net(batch).view(samples, length, -1)[:, -1]


class Rows(Pairs):
    """The tokens ``start`` to ``stop`` of a path as readers of all that come before ``stop``, allowed or not.

    Attributes:
        batch: the new tokens alone, of every sample; they know their positions.
        edges: (2, R * T), numbers on the path; sorted by (target, source).
        visible: (1 or H, R, T) bool, what the mask allows.
    """

    def __init__(self, whole: Pairs, batch: GraphBatch, start: int, stop: int) -> None:
        super().__init__(batch, whole.mask)
        self.whole, self.place = whole, (slice(start, stop), slice(stop))
        self.visible = whole.dense[0][:, *self.place]

    @property
    def edges(self) -> Tensor:
        target, source = (torch.arange(s.stop, device=self.batch.device)[s] for s in self.place)
        return torch.stack([source.repeat(len(target)), target.repeat_interleave(len(source))])

    @property
    def ahead(self) -> Tensor:
        source, target = self.edges  # positions in the text, of which the batch has the new tokens alone
        return source - target

    def hops(self, most: int) -> Tensor:
        return self.whole.dense_hops(most)[0, *self.place].flatten()


class KeysAndValues:
    """The keys and values of the tokens that one attention layer has read, its `gt.layers.Attention.cache`.

    Args:
        context: tokens to keep at most.
    """

    def __init__(self, context: int) -> None:
        self.context = context
        self.kept: Tensor | None = None  # (2, S, context, kv_heads, D): keys and values

    def __call__(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        """(S * R, H, D) and twice (S * R, kv_heads, D) of new tokens to (S * R, H, D), read from all so far."""
        assert isinstance(pairs, Rows)
        shape, samples = q.shape, pairs.batch.num_graphs
        q, k, v = (t.unflatten(0, (samples, -1)) for t in (q, k, v))  # (S, R, H, D)
        if self.kept is None or self.kept.shape[1] != samples:  # after a restart it may be of more or fewer texts
            self.kept = k.new_empty(2, samples, self.context, *k.shape[2:])
        here, so_far = pairs.place
        self.kept[0, :, here], self.kept[1, :, here] = k, v
        keys, values = layer.for_all_heads(self.kept[:, :, so_far])  # (S, T, H, D)
        if layer.score is not None:
            scores = layer.score(q[:, :, None], keys[:, None], None).permute(0, 3, 1, 2)  # (S, H, R, T)
        else:
            scores = torch.einsum("srhd,sthd->shrt", q / math.sqrt(q.shape[-1]), keys)
        if layer.hint is not None:
            scores = scores + layer.hint.bias(pairs, dense=False).T.unflatten(1, pairs.visible.shape[1:])
        scores = scores.masked_fill(~pairs.visible, -torch.inf)
        weights = torch._safe_softmax(scores, -1)  # who reads nobody gets zeros
        return torch.einsum("shrt,sthd->srhd", weights, values).reshape(shape)


class Cache(Reader):
    """Runs the model on the new tokens only; for models that `obstacle` finds nothing against.

    Args:
        net: a causal language model, in eval mode.
        context: tokens of a text at most.
    """

    def __init__(self, net: GraphTransformer, context: int) -> None:
        super().__init__(net)
        self.path = path_graphs([context]).to(next(net.parameters()).device)
        shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
        self.blocks = copy.deepcopy(net.blocks, shared)  # the same weights: only what a layer remembers is its own
        parts: list[Any] = [part for block in self.blocks for part in parts_of(block)]
        for part in parts:
            if reads_of(part) == "pairs":
                part.cache = KeysAndValues(context)
        self.recurrent = [part for part in parts if reads_of(part) == "graph"]
        self.restart()

    def restart(self) -> None:
        self.read = 0
        for part in self.recurrent:
            part.carried = []

    def __call__(self, tokens: Tensor) -> Tensor:
        samples, stop = tokens.shape
        new = tokens[:, self.read :]
        batch = self._batch(samples, self.read, stop)
        batch.x = new.reshape(-1, 1)
        state = State(self.net.embed(batch), encodings=self.net.rotations)
        rows = {mask: Rows(mask(self.path), batch, self.read, stop) for mask in self.net.masks_in_use}
        for block, mask in zip(self.blocks, self.net.masks, strict=True):
            state = block(state, batch, rows.get(mask))
        self.read = stop
        x = state.x.view(samples, new.shape[1], -1)[:, -1]
        return self.net.head(self.net.norm(x), batch)

    def _batch(self, samples: int, start: int, stop: int) -> GraphBatch:
        """The tokens ``start`` to ``stop`` of each sample as a graph of their own, which knows where they stand."""
        device = self.path.device
        batch = GraphBatch(
            ptr=torch.arange(samples + 1, device=device) * (stop - start),
            edge_index=torch.empty(2, 0, dtype=torch.long, device=device),
            max_nodes=stop,  # tables of positions reach so far
        )
        batch.position = torch.arange(start, stop, device=device).repeat(samples)
        return batch


def reader(net: GraphTransformer, context: int) -> Reader:
    """The fastest reader that serves a model.

    Raises:
        UserError: the model is not causal.
    """
    check_causal(net, context)
    return Recompute(net) if obstacle(net) else Cache(net, context)
