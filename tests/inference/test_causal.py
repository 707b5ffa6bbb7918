"""The causality check of language models: which masks, layers and encodings pass, and what an error names."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.encodings import LearnedPositions, Rotary
from gt.errors import UserError
from gt.graph import path_graphs
from gt.heads import Head
from gt.inference.causal import check_causal
from gt.layers import GCN, GINE, Attention, EdgeGatedBlock, FeedForward, GatedGCN, ParallelBlock, SequentialBlock
from gt.masks import Causal, Complete, Expander, Hops, PerHead, RandomEdges, Schedule, Strided, VirtualNodes, Window
from gt.model import GraphTransformer
from gt.schema import Schema

CONTEXT = 40
SCHEMA = Schema(node_vocab=(11,), level="node", outputs=11, max_nodes=CONTEXT, tokenizer="x")


def model(mask=Causal(), block=ParallelBlock, local=None, encodings=(), head=Head, attention=True) -> GraphTransformer:  # noqa: B008
    parts = {"local": local, "attention": partial(Attention, heads=2) if attention else None}
    return GraphTransformer(
        SCHEMA, 16, 2, partial(block, **parts, feed_forward=FeedForward), mask, encodings, partial(head, hidden=0)
    )


class Both(nn.Module):
    """Message passing along the edges in both directions."""

    reads_edges = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width))  # reads later tokens only once trained

    def forward(self, state, batch, pairs):
        x = state.x
        source, target = batch.edge_index
        back = x.new_zeros(x.shape).index_add(0, source, x.index_select(0, target))
        return {"x": x + self.gate * back}


class MeanOfText(LearnedPositions):
    """An encoding that shows each token the whole text."""

    def nodes(self, batch):
        mean = batch.x.new_zeros(batch.num_graphs, 1).index_add(0, batch.batch, batch.x).float()
        return mean.index_select(0, batch.batch).expand(-1, self.table.embedding_dim)


class NextState(Head):
    """A head that also reads the next token."""

    def forward(self, x, batch):
        return super().forward(x + x.roll(-1, 0), batch)


NON_CAUSAL = {
    "complete": ({"mask": Complete()}, r"Complete\(\)"),
    "all hops": ({"mask": Hops(None)}, r"Complete\(\)"),
    "window": ({"mask": Window(2)}, "Window"),
    "far ahead": ({"mask": Strided(39)}, "Strided"),
    "random": ({"mask": RandomEdges(1)}, "RandomEdges"),
    "expander": ({"mask": Causal() | Expander(2)}, "Expander"),
    "one layer": ({"mask": [Causal(), Window(1)]}, "Window"),
    "one head": ({"mask": PerHead([Causal(), Complete()])}, "PerHead|Causal"),
    "later in training": ({"mask": Hops(schedule=(1, 2, None))}, r"Complete\(\)"),
    "later, in a union": ({"mask": Schedule([Causal(), Causal() | Window(1)])}, "Window"),
    "virtual nodes": ({"mask": Causal() | VirtualNodes(1)}, "VirtualNodes.*virtual nodes"),
    "virtual nodes of one layer": ({"mask": [Causal(), Causal() | VirtualNodes(1)]}, "virtual nodes"),
    "a local branch": ({"local": Both}, r"block 0 \(Both\)"),
    "a local branch alone": ({"local": Both, "attention": False}, "block 0"),
    "a local branch, in sequence": ({"local": Both, "block": SequentialBlock}, r"block 0 \(Both\)"),
    "an encoding": ({"encodings": (MeanOfText(),)}, "block 0|the network"),
    "a head": ({"head": NextState}, "the network"),
}
CAUSAL = {
    "causal": {},
    "window": {"mask": Window(3) & Causal()},
    "hops along the text": {"mask": Hops(3)},
    "schedule": {"mask": Hops(schedule=(1, 2, 5))},
    "schedule within causal": {"mask": Schedule([Hops(1) & Causal(), Causal()])},
    "random": {"mask": (RandomEdges(3) | Window(1)) & Causal()},
    "by head": {"mask": PerHead([Causal(), Hops(1)])},
    "positions": {"encodings": (LearnedPositions(), Rotary())},
    "GCN": {"local": GCN},
    "GINE": {"local": GINE, "block": SequentialBlock},
    "GatedGCN": {"local": GatedGCN},
    "edges alone, whatever the mask": {"mask": Complete(), "local": GCN, "attention": False},
    "edge stream": {"block": lambda width, **_: EdgeGatedBlock(width, 2), "mask": Complete()},
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), NON_CAUSAL.values(), ids=NON_CAUSAL)
def test_non_causal_part_is_rejected_by_name(options, message):
    with pytest.raises(UserError, match=message) as caught:
        check_causal(model(**options), CONTEXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
def test_causal_network_passes_unchanged(options):
    torch.manual_seed(0)
    net = model(**options)
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    check_causal(net, CONTEXT)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(getattr(block.attention, "used", None) for block in net.blocks if hasattr(block, "attention"))
    # brute force: changing a token leaves the predictions before it unchanged
    batch, net = path_graphs([7]), net.eval()
    batch.x = torch.arange(7)[:, None]
    with torch.no_grad():
        original = net(batch)
        for position in range(7):
            batch.x = torch.arange(7)[:, None] + 3 * (torch.arange(7) == position)[:, None]
            torch.testing.assert_close(net(batch)[:position], original[:position])


def test_single_token_text_is_always_causal():
    check_causal(model(Complete()), 1)
