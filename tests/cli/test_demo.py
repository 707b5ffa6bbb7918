"""What the demonstrations claim, and what each leaves behind."""

import sys
from functools import partial

import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import gt.demo
from gt.attention.scores import HopDecay
from gt.cli.demo import equivalence, hints, runs, structure
from gt.encodings import RandomWalk, Sinusoidal
from gt.errors import UserError
from gt.layers import GINE, Attention, ParallelBlock
from gt.masks import Hops
from gt.model import GraphTransformer
from gt.prediction.asking import predict
from gt.prediction.models import Models
from gt.schema import Schema
from tests.cli.test_sweep import own_logging  # noqa: F401  a fixture


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gt.demo", *words])
    gt.demo.main()


@pytest.fixture
def small(monkeypatch):
    """Random models of a few channels, with weights so large that every part of them shows."""
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_positions=96, n_embd=24, n_layer=2, n_head=3))
    bert = BertForMaskedLM(
        BertConfig(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    )
    torch.manual_seed(0)
    for parameter in [*gpt2.parameters(), *bert.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    models = [gpt2.eval(), bert.eval()]
    monkeypatch.setattr(equivalence, "random_models", lambda: models)
    return models


def test_matrices_and_messages_give_the_same_logits_as_hugging_face(small):
    for model in small:
        tokens = equivalence.documents(model)
        ways, batch = equivalence.compare(model, tokens)
        assert batch.num_nodes == sum(map(len, tokens)) == len(ways[0].logits)
        assert [way.name for way in ways[1:]] == list(equivalence.WAYS.values())
        for way in ways[1:]:
            torch.testing.assert_close(way.logits, ways[0].logits, rtol=1e-4, atol=1e-4)
            assert way.difference(ways[0]) > 0  # another way, not the same one
        assert ways[1].difference(ways[2]) > 0
        assert ways[0].logits.std() > 0.1
        assert equivalence.verdict(ways).startswith("equal")


def test_a_difference_is_said(small, monkeypatch):
    forward = Attention.forward
    monkeypatch.setattr(Attention, "forward", lambda *args: {"x": 1.01 * forward(*args)["x"]})
    ways, _ = equivalence.compare(small[0], equivalence.documents(small[0]))
    assert equivalence.verdict(ways).startswith("NOT equal")


def test_the_command_prints_every_way_and_draws(small, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "equivalence", "--out", str(tmp_path / "new"))
    said = capsys.readouterr().out
    for words in ("GPT-2", "BERT", "Hugging Face", *equivalence.WAYS.values(), "equal up to rounding"):
        assert words in said
    assert str(tmp_path / "new" / "equivalence.png") in said
    assert (tmp_path / "new" / "equivalence.png").read_bytes().startswith(b"\x89PNG")


def test_a_pretrained_model_in_a_folder(small, monkeypatch, tmp_path):
    gpt2, _ = small
    gpt2.save_pretrained(tmp_path / "gpt2")
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained",
        lambda name: lambda text: {"input_ids": list(map(len, text.split()))},
    )
    model, tokenizer = equivalence.pretrained(str(tmp_path / "gpt2"))
    tokens = equivalence.documents(model, tokenizer)
    assert tokens[0].tolist() == [len(word) for word in equivalence.TEXT.split()]
    ways, _ = equivalence.compare(model, tokens)
    assert equivalence.verdict(ways).startswith("equal")


def test_what_is_missing_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="nowhere"):
        equivalence.pretrained(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        run(monkeypatch, "equivalence", "--out", str(tmp_path))


# ---- encodings as hints


TINY = ("trainer=cpu", "data.train=300", "data.valid=50", "data.test=100", "data.batch_size=32")


@pytest.fixture
def quiet(monkeypatch):
    """One thread; what runs change of the process is put back."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_right_hint_helps_and_who_trusts_it_is_misled(quiet, own_logging, monkeypatch, tmp_path, capsys):  # noqa: F811
    words = [*TINY, f"data.root={tmp_path / 'data'}", "trainer.max_epochs=6", "optim.lr=0.005"]
    run(monkeypatch, "hints", *words, "--seeds", "1", "--out", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "hints.csv").set_index("hint")["score"]
    assert table[hints.RIGHT] > table[hints.ABSENT] + 0.1
    assert abs(table[hints.WRONG] - table[hints.ABSENT]) < 0.05  # it has learned to pass it over
    assert table[hints.MISLED] < table[hints.ABSENT] - 0.05
    said = capsys.readouterr().out
    assert "minus no hint" in said
    assert str(tmp_path / "out" / "hints.png") in said
    assert (tmp_path / "out" / "hints.png").stat().st_size > 10_000
    before = (tmp_path / "out" / "right-0" / "result.json").stat().st_mtime_ns
    run(monkeypatch, "hints", *words, "--seeds", "1", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "right-0" / "result.json").stat().st_mtime_ns == before  # finished: not made again
    with pytest.raises(UserError, match="--out"):
        run(monkeypatch, "hints", *words, "model.width=8", "--out", str(tmp_path / "out"))


def test_the_right_hints_told_again_give_the_score_of_the_run(quiet, own_logging, tmp_path):  # noqa: F811
    words = [*TINY, f"data.root={tmp_path / 'data'}", "trainer.max_epochs=1"]
    overrides = runs.settings(words, hints.USUAL)
    result = runs.train_once(tmp_path / "run", [*overrides, "encoding=[rwse]"])
    task, data = runs.open_run(tmp_path / "run")
    again = predict(Models([task]), data, data.measures()[0], "test", torch.device("cpu")).scores
    assert again["accuracy"] == pytest.approx(result["scores"]["accuracy"], abs=1e-6)


@pytest.mark.parametrize("encoding", ["sinusoidal", "none", "rrwp"])
def test_an_encoding_that_cannot_be_shuffled_is_one_line(encoding, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"shuffled|precomputed"):
        run(monkeypatch, "hints", "--encoding", encoding, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


# ---- structure found without edges


def test_heads_find_the_neighbours_that_nobody_told_them(quiet, own_logging, monkeypatch, tmp_path, capsys):  # noqa: F811
    words = ["trainer=cpu", "data.side=4", "data.train=2000", "data.valid=64", "data.test=64", "model.depth=1"]
    words += [f"data.root={tmp_path / 'data'}", "trainer.max_epochs=3", "optim.lr=0.005"]
    run(monkeypatch, "structure", *words, "--out", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "structure.csv")
    heads, even = table[table["head"] != "even"], table[table["head"] == "even"].iloc[0]
    assert even["hops_1"] == pytest.approx(3 / 16)  # 48 edges of both directions among 16 nodes
    assert even["hops_0"] == pytest.approx(1 / 16)
    assert heads["hops_1"].max() > even["hops_1"] + 0.15
    assert table.drop(columns=["layer", "head"]).sum(axis=1).to_numpy() == pytest.approx(1)
    said = capsys.readouterr().out
    assert "times the 0.19 of uniform attention" in said
    assert str(tmp_path / "out" / "structure.png") in said
    assert (tmp_path / "out" / "structure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("mask", {"mask": Hops(1)}),
        ("GINE", {"block": partial(ParallelBlock, local=GINE)}),
        ("RandomWalk", {"encodings": [RandomWalk()]}),
        ("Attention", {"block": partial(ParallelBlock, attention=partial(Attention, hint=partial(HopDecay, most=3)))}),
        ("Attention", {"block": partial(ParallelBlock, attention=partial(Attention, edges=True))}),
    ],
)
def test_what_reads_edges_is_refused(what, options):
    schema = Schema(node_vocab=(3,), edge_vocab=(2,), outputs=2)
    plain = {"block": partial(ParallelBlock, attention=Attention), "encodings": [Sinusoidal()]}
    structure.check_withheld(GraphTransformer(schema, 32, 1, **plain))
    with pytest.raises(UserError, match=what):
        structure.check_withheld(GraphTransformer(schema, 32, 1, **{**plain, **options}))
