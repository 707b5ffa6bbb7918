"""Text generation: decoding with a cache against the whole model, sampling, and the command."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gt
from gt.attention.scores import Additive, Gated, HopDecay, PositionDecay, Separable
from gt.data.text.tokenizer import BytePairs, Bytes, Characters, loads
from gt.encodings import Degree, LearnedPositions, Rotary, Sinusoidal
from gt.errors import UserError, one_line
from gt.generate import main
from gt.graph import path_graphs
from gt.heads import Head
from gt.inference.decode import Cache, Recompute, check_causal, obstacle, reader
from gt.inference.sampling import generate, probabilities
from gt.layers import (
    GCN,
    Attention,
    EdgeGatedBlock,
    FeedForward,
    Mamba2,
    ParallelBlock,
    RandomFeatures,
    SequentialBlock,
)
from gt.layers import LinearAttention as Linear
from gt.layers import Recurrent as Ordered
from gt.masks import Causal, Complete, Hops, PerHead, RandomEdges, Strided, VirtualNodes, Window
from gt.metrics import metrics
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.task import Task
from tests.foreign import Derived, LinearAttention, Parted, Recurrent, Uncached

ROOT = Path(__file__).parents[2]
CONTEXT, VOCABULARY = 12, 11


LEARNED = (LearnedPositions(),)


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
    made = partial(
        block, local=local, attention=foreign or (partial(Attention, heads=heads, **options) if attention else None),
        feed_forward=FeedForward, prenorm=prenorm, norm=norm,
    )  # fmt: skip
    net = GraphTransformer(
        schema, 16, depth, made, mask, encodings, partial(Head, hidden=0, tied=True, bias=False), nn.LayerNorm
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


WINDOW = Window(3) & Causal()
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


# ---- draws


def reference_probabilities(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> list[float]:
    weights = {i: np.exp(value / temperature) for i, value in enumerate(logits)}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if top_k is not None:
        ranked = ranked[:top_k]
    if top_p is not None:
        total, kept, reached = sum(weights[i] for i in ranked), [], 0.0
        for i in ranked:
            if reached >= top_p:
                break
            kept.append(i)
            reached += weights[i] / total
        ranked = kept
    total = sum(weights[i] for i in ranked)
    return [weights[i] / total if i in ranked else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_probabilities_match_loop(temperature, top_k, top_p):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    found = probabilities(logits, temperature, top_k, top_p)
    for row, each in zip(found.tolist(), logits.tolist(), strict=True):
        assert row == pytest.approx(reference_probabilities(each, temperature, top_k, top_p), abs=1e-9)


@pytest.mark.parametrize("temperature", [1e-40, 1e-300])
def test_tiny_temperatures_are_greedy(temperature):
    logits = torch.tensor([[-3.0, 2.0, 1.999], [1e30, -1e30, 0.0]])
    assert probabilities(logits, temperature).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_zero_temperature_is_greedy():
    logits = torch.tensor([[1.0, 5.0, 2.0], [0.0, -1.0, -2.0]])
    assert probabilities(logits, 0.0).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_options_out_of_range_are_rejected(options):
    with pytest.raises(ValueError, match="must be"):
        probabilities(torch.zeros(1, 3), **options)


@pytest.mark.parametrize(
    "options", [{}, {"encodings": (Rotary(),)}, {"mask": WINDOW}], ids=["learned", "rope", "window"]
)
def test_cache_changes_no_text_beyond_the_context(options):
    net = build_model(**options)
    prompt = tokens(1, 3).repeat(4, 1)
    texts = [generate(r, prompt, 40, CONTEXT, seed=5) for r in (Cache(net, CONTEXT), Recompute(net))]
    assert torch.equal(*texts)
    assert texts[0].shape == (4, 43)
    assert torch.equal(texts[0][:, :3], prompt)
    assert len({tuple(row) for row in texts[0].tolist()}) == 4


def test_reader_accepts_other_batch_sizes_after_restart():
    net = build_model()
    read = reader(net, CONTEXT)
    for samples in (2, 3, 1):
        text = tokens(samples, 5)
        read.restart()
        torch.testing.assert_close(read(text), Recompute(net)(text))


def test_texts_depend_on_the_seed_unless_greedy():
    net, prompt = build_model(), tokens(2, 1)
    one, again, other = (generate(Cache(net, CONTEXT), prompt, 30, CONTEXT, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    greedy = [generate(Cache(net, CONTEXT), prompt, 30, CONTEXT, temperature=0.0, seed=s) for s in (1, 2)]
    assert torch.equal(*greedy)


def test_sampled_frequencies_match_the_model():
    """The first sampled token of many texts has the frequencies that the model predicts."""
    net, prompt = build_model(), tokens(1, 4).repeat(20_000, 1)
    drawn = generate(Cache(net, CONTEXT), prompt, 1, CONTEXT, seed=0)[:, -1]
    expected = full_logits(net, prompt[:1])[0, -1].softmax(-1)
    found = torch.bincount(drawn, minlength=VOCABULARY).double() / len(drawn)
    assert torch.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT, CONTEXT + 1, 5 * CONTEXT])
def test_long_prompt_is_truncated_to_its_end(length):
    net = build_model()
    generated = generate(Cache(net, CONTEXT), tokens(2, length), 1, CONTEXT, temperature=0.0)
    read = tokens(2, length)[:, 0 if length <= CONTEXT else -(CONTEXT + 1) // 2 + (CONTEXT + 1) % 2 :]
    assert torch.equal(generated[:, -1], full_logits(net, read)[:, -1].argmax(-1))


# ---- the command


CONFIG = {
    "model": {
        "_target_": "gt.model.GraphTransformer", "_partial_": True, "width": 8, "depth": 1,
        "block": {
            "_target_": "gt.layers.ParallelBlock", "_partial_": True,
            "attention": {"_target_": "gt.layers.Attention", "_partial_": True, "heads": 2},
            "norm": {"_target_": "torch.nn.LayerNorm", "_partial_": True},
        },
    },
    "mask": {"_target_": "gt.masks.Causal"},
    "encoding": {"rope": {"_target_": "gt.encodings.Rotary"}},
}  # fmt: skip


def write_checkpoint(path: Path, schema: Schema, config=CONFIG) -> str:
    """Write the checkpoint of an untrained model as a trainer saves it; returns its path."""
    from gt.train.network import build

    torch.manual_seed(0)
    task = Task(build(config, schema), schema, *metrics(schema), config=config)
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    task.on_save_checkpoint(state)
    torch.save(state, path)
    return str(path)


def text_schema(tokenizer=None, **options) -> Schema:
    tokenizer = tokenizer or Characters("abc \n")
    facts = {"node_vocab": (tokenizer.size,), "level": "node", "outputs": tokenizer.size, "max_nodes": 8}
    return Schema(**facts, tokenizer=tokenizer.dumps(), **options)


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "gt.generate", *arguments], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_command_continues_a_prompt(tmp_path):
    path = write_checkpoint(tmp_path / "best.ckpt", text_schema())
    result = run_command(path, "--prompt", "abba", "--tokens", "20", "--samples", "2", "--top-k", "4", "--top-p", "0.9")
    assert result.returncode == 0, result.stderr
    one, two = result.stdout.split("\n---\n")
    assert one[:4] == two[:4] == "abba"
    assert len(one) == 24
    assert len(two) == 24 + len("\n")
    assert result.stderr.startswith("40 characters in ")


def test_tokenizer_is_restored_from_checkpoint(tmp_path):
    task = gt.load(write_checkpoint(tmp_path / "b.ckpt", text_schema(Bytes())))
    assert (task.net.width, task.schema.max_nodes, loads(task.schema.tokenizer).decode([104, 105])) == (8, 8, "hi")


def test_checkpoint_of_other_models_is_rejected(tmp_path, monkeypatch):
    schemas = {
        "graphs": Schema(node_vocab=(5,), outputs=5),
        "nodes": Schema(node_vocab=(5,), level="node", outputs=5, max_nodes=8),
        "labels": Schema(node_vocab=(5,), outputs=2, max_nodes=8, tokenizer=json.dumps({"words": list("abcd")})),
    }
    for name, schema in schemas.items():
        path = write_checkpoint(tmp_path / f"{name}.ckpt", schema)
        monkeypatch.setattr(sys, "argv", ["gt.generate", path])
        with pytest.raises(UserError, match="holds no language model: train one with") as caught:
            main()
        assert "\n" not in str(caught.value)


def test_invalid_arguments_are_reported_in_one_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tokenizers")
    causal = write_checkpoint(tmp_path / "good.ckpt", text_schema())
    non_causal = write_checkpoint(
        tmp_path / "ahead.ckpt", text_schema(), CONFIG | {"mask": {"_target_": "gt.masks.Complete"}}
    )
    byte_pairs = write_checkpoint(tmp_path / "pairs.ckpt", text_schema(BytePairs.learn(["abc"], 256)))
    for arguments, message in (
        ((causal, "--prompt", "a\udcff"), "--prompt is not valid UTF-8"),
        ((byte_pairs, "--prompt", "a\udcff"), "--prompt is not valid UTF-8"),
        ((str(tmp_path / "none.ckpt"),), "no checkpoint at"),
        ((non_causal,), "the mask Complete() lets a token read later tokens"),
        ((causal, "--prompt", "abcd"), "the character 'd' is not among the 5 known to this model"),
        ((causal, "--prompt", ""), "there is nothing to continue: give --prompt TEXT"),
        ((causal, "--top-k", "0"), "top-k must be 1 or more, not 0"),
        ((causal, "--temperature", "-1"), "temperature must be 0 or more"),
        ((causal, "--seed", str(1 << 64)), "has more than 64 bits: choose a smaller number"),
        ((causal, "--tokens", "0"), "--tokens and --samples must be 1 or more"),
    ):
        monkeypatch.setattr(sys, "argv", ["gt.generate", *arguments])
        with pytest.raises(SystemExit) as caught, one_line():
            main()
        assert caught.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert message in error


def test_recomputation_is_announced_once(tmp_path, monkeypatch, capsys):
    block = CONFIG["model"]["block"] | {"local": {"_target_": "gt.layers.GCN", "_partial_": True}}
    path = write_checkpoint(tmp_path / "a.ckpt", text_schema(), CONFIG | {"model": CONFIG["model"] | {"block": block}})
    monkeypatch.setattr(sys, "argv", ["gt.generate", path, "--tokens", "12", "--prompt", "a"])
    main()
    captured = capsys.readouterr()
    assert captured.err.count("reads the whole text again: message passing along edges") == 1
    assert len(captured.out) == 14
