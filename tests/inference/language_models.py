"""Small language models, their logits for whole texts, and a fixture for the tests of decoding and sampling."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.encodings import LearnedPositions
from gt.graph import path_graphs
from gt.heads import Head
from gt.layers import Attention, FeedForward, ParallelBlock
from gt.masks import Causal, Window
from gt.model import GraphTransformer
from gt.schema import Schema

CONTEXT, VOCABULARY = 12, 11
LEARNED = (LearnedPositions(),)
WINDOW = Window(3) & Causal()


@pytest.fixture(autouse=True)
def single_thread():
    """Without gradients, and on one thread: for such small steps a second one only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def build_model(
    mask=Causal(),  # noqa: B008
    encodings=LEARNED,
    block=ParallelBlock,
    local=None,
    attention=True,
    prenorm=True,
    norm=nn.LayerNorm,
    depth=3,
    foreign=None,
    heads=2,
    **options,
) -> GraphTransformer:
    """A small language model whose weights are large enough for every token to matter."""
    torch.manual_seed(3)
    schema = Schema(node_vocab=(VOCABULARY,), level="node", outputs=VOCABULARY, max_nodes=CONTEXT, tokenizer="x")
    make_block = partial(
        block, local=local, attention=foreign or (partial(Attention, heads=heads, **options) if attention else None),
        feed_forward=FeedForward, prenorm=prenorm, norm=norm,
    )  # fmt: skip
    net = GraphTransformer(
        schema, 16, depth, make_block, mask, encodings, partial(Head, hidden=0, tied=True, bias=False), nn.LayerNorm
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer += 0.3 * torch.rand_like(buffer)
    return net.eval().double()


def tokens(samples: int, length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(length))


def full_logits(net: GraphTransformer, text: torch.Tensor) -> torch.Tensor:
    """(S, T) tokens to logits (S, T, outputs), each text as a batch of its own."""
    rows = []
    for row in text:
        batch = path_graphs([len(row)])
        batch.x = row[:, None]
        rows.append(net(batch))
    return torch.stack(rows)
