"""``python -m gt.demo``: the claims of each demonstration, and the files that it writes."""

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
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gt.demo", *words])
    gt.demo.main()


@pytest.fixture
def small_models(monkeypatch):
    """Small random GPT-2 and BERT, with weights so large that every part affects the logits."""
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


def test_matrices_and_messages_match_hugging_face(small_models):
    for model in small_models:
        tokens = equivalence.documents(model)
        ways, batch = equivalence.compare(model, tokens)
        assert batch.num_nodes == sum(map(len, tokens)) == len(ways[0].logits)
        assert [way.name for way in ways[1:]] == list(equivalence.WAYS.values())
        for way in ways[1:]:
            torch.testing.assert_close(way.logits, ways[0].logits, rtol=1e-4, atol=1e-4)
            assert way.difference(ways[0]) > 0  # a different computation, not the same one
        assert ways[1].difference(ways[2]) > 0
        assert ways[0].logits.std() > 0.1
        assert equivalence.verdict(ways).startswith("equal")


def test_different_logits_are_reported_as_not_equal(small_models, monkeypatch):
    forward = Attention.forward
    monkeypatch.setattr(Attention, "forward", lambda *args: {"x": 1.01 * forward(*args)["x"]})
    ways, _ = equivalence.compare(small_models[0], equivalence.documents(small_models[0]))
    assert equivalence.verdict(ways).startswith("NOT equal")


def test_equivalence_prints_every_computation_and_draws(small_models, monkeypatch, tmp_path, capsys):
    run(monkeypatch, "equivalence", "--out", str(tmp_path / "new"))
    output = capsys.readouterr().out
    for words in ("GPT-2", "BERT", "Hugging Face", *equivalence.WAYS.values(), "equal up to rounding"):
        assert words in output
    assert str(tmp_path / "new" / "equivalence.png") in output
    assert (tmp_path / "new" / "equivalence.png").read_bytes().startswith(b"\x89PNG")


def test_pretrained_model_is_read_from_a_folder(small_models, monkeypatch, tmp_path):
    gpt2, _ = small_models
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


def test_missing_model_or_library_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="nowhere"):
        equivalence.pretrained(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        run(monkeypatch, "equivalence", "--out", str(tmp_path))


# ---- encodings as hints


TINY = ("trainer=cpu", "data.train=300", "data.valid=50", "data.test=100", "data.batch_size=32")


@pytest.fixture
def isolated_process(monkeypatch):
    """Runs with one thread, and restores what they change in the process."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    GlobalHydra.instance().clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_right_hint_helps_and_wrong_hint_misleads(isolated_process, restore_logging, monkeypatch, tmp_path, capsys):  # noqa: F811
    arguments = [*TINY, f"data.root={tmp_path / 'data'}", "trainer.max_epochs=6", "optim.lr=0.005"]
    run(monkeypatch, "hints", *arguments, "--seeds", "1", "--out", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "hints.csv").set_index("hint")["score"]
    assert table[hints.RIGHT] > table[hints.ABSENT] + 0.1
    assert abs(table[hints.WRONG] - table[hints.ABSENT]) < 0.05  # it has learned to ignore the hint
    assert table[hints.MISLED] < table[hints.ABSENT] - 0.05
    output = capsys.readouterr().out
    assert "minus no hint" in output
    assert str(tmp_path / "out" / "hints.png") in output
    assert (tmp_path / "out" / "hints.png").stat().st_size > 10_000
    before = (tmp_path / "out" / "right-0" / "result.json").stat().st_mtime_ns
    run(monkeypatch, "hints", *arguments, "--seeds", "1", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "right-0" / "result.json").stat().st_mtime_ns == before  # finished runs are reused
    with pytest.raises(UserError, match="--out"):
        run(monkeypatch, "hints", *arguments, "model.width=8", "--out", str(tmp_path / "out"))


def test_reloaded_run_reproduces_its_score(isolated_process, restore_logging, tmp_path):  # noqa: F811
    arguments = [*TINY, f"data.root={tmp_path / 'data'}", "trainer.max_epochs=1"]
    overrides = runs.settings(arguments, hints.USUAL)
    result = runs.train_once(tmp_path / "run", [*overrides, "encoding=[rwse]"])
    task, data = runs.open_run(tmp_path / "run")
    scores = predict(Models([task]), data, data.measures()[0], "test", torch.device("cpu")).scores
    assert scores["accuracy"] == pytest.approx(result["scores"]["accuracy"], abs=1e-6)


@pytest.mark.parametrize("encoding", ["sinusoidal", "none", "rrwp"])
def test_encoding_that_cannot_be_shuffled_is_rejected(encoding, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"shuffled|precomputed"):
        run(monkeypatch, "hints", "--encoding", encoding, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


# ---- structure found without edges


def test_heads_attend_to_withheld_neighbours(isolated_process, restore_logging, monkeypatch, tmp_path, capsys):  # noqa: F811
    arguments = ["trainer=cpu", "data.side=4", "data.train=2000", "data.valid=64", "data.test=64", "model.depth=1"]
    arguments += [f"data.root={tmp_path / 'data'}", "trainer.max_epochs=3", "optim.lr=0.005"]
    run(monkeypatch, "structure", *arguments, "--out", str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "structure.csv")
    heads, uniform = table[table["head"] != "even"], table[table["head"] == "even"].iloc[0]
    assert uniform["hops_1"] == pytest.approx(3 / 16)  # 48 directed edges among 16 nodes
    assert uniform["hops_0"] == pytest.approx(1 / 16)
    assert heads["hops_1"].max() > uniform["hops_1"] + 0.15
    assert table.drop(columns=["layer", "head"]).sum(axis=1).to_numpy() == pytest.approx(1)
    output = capsys.readouterr().out
    assert "times the 0.19 of uniform attention" in output
    assert str(tmp_path / "out" / "structure.png") in output
    assert (tmp_path / "out" / "structure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("mask", {"mask": Hops(1)}),
        ("GINE", {"block": partial(ParallelBlock, local=GINE)}),
        ("RandomWalk", {"encodings": [RandomWalk()]}),
        ("Attention", {"block": partial(ParallelBlock, attention=partial(Attention, hint=partial(HopDecay, most=3)))}),
        ("Attention", {"block": partial(ParallelBlock, attention=partial(Attention, edges=True))}),
    ],
)
def test_parts_that_read_edges_are_rejected(part, options):
    schema = Schema(node_vocab=(3,), edge_vocab=(2,), outputs=2)
    defaults = {"block": partial(ParallelBlock, attention=Attention), "encodings": [Sinusoidal()]}
    structure.check_withheld(GraphTransformer(schema, 32, 1, **defaults))
    with pytest.raises(UserError, match=part):
        structure.check_withheld(GraphTransformer(schema, 32, 1, **{**defaults, **options}))
