"""Decoding with a cache, against the whole model; models that cannot be cached or are not causal."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.attention.scores import Additive, Gated, HopDecay, PositionDecay, Separable
from gt.encodings import Degree, LearnedPositions, Rotary, Sinusoidal
from gt.errors import UserError
from gt.inference.decode import Cache, Recompute, check_causal, obstacle, reader
from gt.layers import GCN, EdgeGatedBlock, Mamba2, RandomFeatures, SequentialBlock
from gt.layers import LinearAttention as Linear
from gt.layers import Recurrent as Ordered
from gt.masks import Causal, Complete, Hops, PerHead, RandomEdges, Strided, VirtualNodes, Window
from tests.foreign import Derived, LinearAttention, Parted, Recurrent, Uncached
from tests.inference.language_models import CONTEXT, WINDOW, build_model, full_logits, single_thread, tokens  # noqa: F401  a fixture

CASES = {
    "learned": {},
    "sinusoidal": {"encodings": (Sinusoidal(),)},
    "rope": {"encodings": (Rotary(),)},
    "rope and learned": {"encodings": (Rotary(), LearnedPositions(20))},
    "no positions": {"encodings": ()},
    "window": {"mask": WINDOW},
    "strided": {"mask": (Window(2) | Strided(4)) & Causal()},
    "hops": {"mask": Hops(2)},
    "by layer": {"mask": [Causal(), WINDOW, Hops(0)]},
    "by head": {"mask": PerHead([Causal(), WINDOW])},
    "a head that reads nobody": {"mask": PerHead([Causal(), Strided(5) & Hops(2) & Causal() & Strided(2)])},
    "hop decay": {"hint": partial(HopDecay, most=4), "encodings": ()},
    "position decay": {"hint": PositionDecay, "mask": WINDOW},
    "both, by head": {"hint": partial(HopDecay, most=2), "mask": PerHead([WINDOW, Causal()])},
    "additive": {"score": Additive},
    "gated": {"score": Gated},
    "separable, with a hint": {"score": Separable, "hint": PositionDecay, "encodings": (Rotary(),)},
    "sequential, post-norm": {"block": SequentialBlock, "prenorm": False},
    "batch norm": {"norm": nn.BatchNorm1d},
    "no bias": {"bias": False},
    "linear attention": {"foreign": Linear},
    "random features": {"foreign": partial(Linear, feature_map=RandomFeatures), "block": SequentialBlock},
    "lstm": {"foreign": Ordered, "encodings": ()},
    "gru": {"foreign": partial(Ordered, rnn=nn.GRU)},
    "mamba": {"foreign": Mamba2, "encodings": ()},
    "mamba beside attention": {"local": Mamba2},
    "grouped queries": {"heads": 4, "kv_heads": 2, "qk_norm": nn.RMSNorm, "encodings": (Rotary(),)},
    "one key for all": {"heads": 4, "kv_heads": 1, "score": Additive},
    "no attention": {"attention": False},
    "no blocks": {"depth": 0},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_cache_matches_the_model_at_every_step(options):
    net = build_model(**options)
    text = tokens(3, CONTEXT)
    expected = full_logits(net, text)
    assert obstacle(net) is None
    for first in (1, 5, CONTEXT):  # length of the prompt, read at once
        cache = reader(net, CONTEXT)
        assert isinstance(cache, Cache)
        for stop in range(first, CONTEXT + 1):
            torch.testing.assert_close(cache(text[:, :stop]), expected[:, stop - 1], rtol=1e-8, atol=1e-8)
    cache.restart()
    torch.testing.assert_close(cache(text[:, 4:9]), full_logits(net, text[:, 4:9])[:, -1], rtol=1e-8, atol=1e-8)
    assert torch.allclose(Recompute(net)(text), expected[:, -1], atol=1e-8)


def test_cases_give_different_logits():
    """So that the comparison above fails if a cache ignores a mask or a hint."""
    text = tokens(3, CONTEXT)
    logits = {name: full_logits(build_model(**options), text) for name, options in CASES.items() if name != "no blocks"}
    for name in ("sinusoidal", "rope", "window", "by head", "position decay", "no attention"):
        assert (logits["learned"] - logits[name]).abs().max() > 0.05, name
    assert (logits["hop decay"] - logits["no positions"]).abs().max() > 0.05


def test_cache_embeds_only_new_tokens(monkeypatch):
    net = build_model()
    seen = []
    monkeypatch.setattr(net.nodes, "forward", lambda x, run=net.nodes.forward: (seen.append(len(x)), run(x))[1])
    cache = Cache(net, CONTEXT)
    for stop in (4, 5, 6):
        cache(tokens(2, CONTEXT)[:, :stop])
    assert seen == [8, 2, 2]


UNCACHEABLE = {
    "message passing": ({"local": GCN}, "message passing along edges"),
    "a foreign branch": ({"local": Recurrent}, "Recurrent cannot be cached"),
    "a foreign branch with parts": ({"local": Parted}, "Parted cannot be cached"),
    "a derived attention": ({"foreign": Derived, "mask": Hops(0)}, "Derived cannot be cached"),
    "an attention without a cache": ({"foreign": Uncached}, "Uncached cannot be cached"),
    "a foreign attention": ({"foreign": LinearAttention, "mask": Hops(0)}, "LinearAttention cannot be cached"),
    "an edge stream": ({"block": lambda width, **_: EdgeGatedBlock(width, 2)}, "message passing along edges"),
    "pairs": ({"edges": True}, "Attention reads edge features"),
    "degrees": ({"encodings": (Degree(),)}, "Degree depends on more than a token's position"),
    "random": ({"mask": (RandomEdges(2) | Window(1)) & Causal()}, "depends on more than positions"),
}


@pytest.mark.parametrize(("options", "message"), UNCACHEABLE.values(), ids=UNCACHEABLE)
def test_uncacheable_models_recompute_the_whole_text(options, message):
    net = build_model(**options)
    assert message in str(obstacle(net))
    read = reader(net, CONTEXT)
    assert isinstance(read, Recompute)
    text = tokens(2, 7)
    for stop in (1, 4, 7):
        assert torch.allclose(read(text[:, :stop]), full_logits(net, text[:, :stop])[:, -1], atol=1e-8)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Complete(), r"the mask Complete\(\) lets a token read later tokens: train with a causal one"),
        (Window(2), r"the mask Window\((width=)?2\) lets a token"),
        (Hops(None), r"the mask Complete\(\) lets a token"),
        ([Causal(), Causal(), Complete()], r"the mask Complete\(\) lets"),
        (PerHead([Causal(), Complete()]), "lets a token read later tokens"),
        (Causal() | VirtualNodes(2), "virtual nodes, which see later tokens"),
    ],
)
def test_non_causal_models_are_rejected(mask, message):
    with pytest.raises(UserError, match=message) as caught:
        reader(build_model(mask), CONTEXT)
    assert "\n" not in str(caught.value)
    check_causal(build_model(), CONTEXT)


def test_reader_accepts_other_batch_sizes_after_restart():
    net = build_model()
    read = reader(net, CONTEXT)
    for samples in (2, 3, 1):
        text = tokens(samples, 5)
        read.restart()
        torch.testing.assert_close(read(text), Recompute(net)(text))
