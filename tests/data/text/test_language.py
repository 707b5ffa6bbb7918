"""Language modelling on text as path graphs: every token is predicted from those before it, and none is lost."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gt.attention import Demand
from gt.data.batch_sampler import Request
from gt.data.python import text as python_text
from gt.data.python.library import split_of
from gt.data.python.text import PythonText
from gt.data.text import language
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData, TextBatches, TextDataset
from gt.encodings import RandomWalk, Sinusoidal
from gt.errors import UserError
from gt.graph import path_graphs
from gt.layers import Attention, FeedForward, ParallelBlock
from gt.masks import Causal
from gt.model import GraphTransformer
from tests.data.modules import make_data

DISTINCT = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))  # no character repeats, so that a token tells its position


def write_text(folder: Path, text: str = DISTINCT) -> str:
    path = folder / "input.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def open_data(folder: Path, text: str = DISTINCT, **options) -> Text:
    data = make_data(
        LanguageData,
        Text,
        write_text(folder, text),
        **({"context": 16, "batch_size": 4, "eval_batch_size": 3, "root": str(folder)} | options),
    )
    data.open([])
    return data


@pytest.mark.parametrize("length", [150, 1000])
@pytest.mark.parametrize("context", [1, 7, 16, 33])
@pytest.mark.parametrize("valid", [0.1, 0.5])
def test_validation_predicts_each_token_but_the_first_once(context, length, valid, tmp_path):
    data = open_data(tmp_path, DISTINCT[:length], context=context, valid=valid)
    held_out = data.tokens["valid"].tolist()
    targets = torch.cat([batch.y for batch in data.loader("valid")])
    assert sorted(targets.tolist()) == held_out[1:]
    assert sorted(data.targets("valid").tolist()) == held_out[1:]
    assert data.tokens["train"].tolist() + held_out == list(range(length))
    assert len(held_out) == length - int(length * (1 - valid))
    assert not data.has("test")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_target_is_the_next_token(split, tmp_path):
    data = open_data(tmp_path)
    batches = list(data.loader(split))
    assert len(batches) > 2
    for batch in batches:
        assert batch.x.shape == (batch.num_nodes, 1)
        assert torch.equal(batch.y, batch.x[:, 0] + 1)  # tokens are numbered in the order of the text
        inside = batch.position > 0
        assert torch.equal(batch.x[inside, 0], batch.y[:-1][inside[1:]])
        assert (batch.y - batch.position == (batch.y[batch.ptr[:-1]])[batch.batch]).all()  # blocks are consecutive
        assert batch.max_nodes <= 16


@pytest.mark.parametrize("sizes", [(5,), (1,), (1, 1), (4, 4, 4), (3, 1, 6)])
def test_edges_only_point_to_the_next_token(sizes):
    batch = path_graphs(sizes)
    expected, start = [], 0
    for size in sizes:
        expected += [(start + i - 1, start + i) for i in range(1, size)]
        start += size
    assert list(map(tuple, batch.edge_index.T.tolist())) == expected
    assert batch.sizes.tolist() == list(sizes)
    assert batch.max_nodes == max(sizes)
    assert batch.equal_sizes == (len(set(sizes)) == 1)
    assert torch.equal(batch.in_degree, (batch.position > 0).long())


@given(length=st.integers(2, 300), context=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 50))
def test_training_blocks_stay_inside_the_text_without_overlap(length, context, seed, epoch):
    if length < 2 * context + 1:
        return
    dataset = TextDataset(np.arange(length), context)
    batches = TextBatches(dataset.sizes, context, 3, True, seed)
    batches.set_epoch(epoch)
    seen = []
    for request in batches:
        batch = dataset[request]
        assert torch.equal(batch.y, batch.x[:, 0] + 1)
        seen += batch.x[:, 0].tolist()
    assert len(set(seen)) == len(seen)
    assert min(seen) < context
    assert max(seen) <= length - 2
    assert len(seen) >= length - 1 - 2 * context  # at most two blocks are left out


def test_each_epoch_shifts_the_training_blocks(tmp_path):
    data = open_data(tmp_path)
    batches = data.batches("train")
    offsets = []
    for epoch in range(40):
        batches.set_epoch(epoch)
        starts = sorted(start for batch in batches for start in batch.samples)
        offsets.append(starts[0])
        assert starts == list(range(starts[0], starts[0] + 16 * len(starts), 16))
        again = data.batches("train", epoch=epoch)
        assert list(again) == list(batches)
    assert set(offsets) <= set(range(16))
    assert len(set(offsets)) > 10
    other_seed = LanguageData(Text(data.source.path, root=str(tmp_path)), context=16, batch_size=4, seed=1)
    other_seed.open([])
    assert list(other_seed.batches("train")) != list(data.batches("train"))


def test_validation_blocks_are_fixed_and_end_short():
    dataset = TextDataset(np.arange(24), 10)
    assert dataset.sizes.tolist() == [10, 10, 3]
    batches = TextBatches(dataset.sizes, 10, 2, False, 0)
    first = list(batches)
    batches.set_epoch(7)
    assert list(batches) == first
    assert sorted(start for batch in first for start in batch.samples) == [0, 10, 20]
    last = dataset[Request((20, 0))]
    assert last.sizes.tolist() == [3, 10]
    assert last.x[:3, 0].tolist() == [20, 21, 22]
    assert last.y[:3].tolist() == [21, 22, 23]


def test_batches_of_one_shape_share_edges_and_masks():
    dataset = TextDataset(np.arange(100), 10)
    first, second = (dataset[Request(starts, ((Causal(), Demand()),))] for starts in ((0, 20), (50, 3)))
    assert first.edge_index is second.edge_index
    assert Causal()(first) is Causal()(second)
    assert first.x[0, 0] == 0  # whereas each batch has its own tokens
    assert second.x[0, 0] == 50


def test_schema_of_a_text(tmp_path):
    data = open_data(tmp_path, "the cat sat on the mat\n" * 20, context=8)
    assert data.schema.names == tuple(sorted(set("the cat sat on the mat\n")))
    assert data.schema.node_vocab == (len(data.schema.names),) == (data.schema.outputs,)
    assert (data.schema.level, data.schema.kind, data.schema.max_nodes) == ("node", "multiclass", 8)


def test_ranks_read_disjoint_blocks(tmp_path):
    data = open_data(tmp_path)
    for split, count in (("train", 56), ("valid", 7)):
        seen = [s for rank in range(3) for batch in data.batches(split, rank=rank, world=3) for s in batch.samples]
        assert len(set(seen)) == len(seen)
        assert count - 4 * 2 <= len(seen) <= count
        assert split == "train" or len(seen) == count


def test_shortest_sufficient_text(tmp_path):
    data = open_data(tmp_path, "x" * 37, context=16)
    assert len(list(data.loader("train"))) == 1
    assert len(list(data.loader("valid"))) == 1


def test_path_below_a_file_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"^cannot read .*: Not a directory$"):
        LanguageData(Text(write_text(tmp_path) + "/more", root=str(tmp_path))).open([])


def test_options_out_of_range_are_rejected(tmp_path):
    for options in ({"context": 0}, {"valid": 0.0}, {"valid": 1.0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="must"):
            make_data(LanguageData, Text, "any", **options)


def test_encodings_of_stored_graphs_are_rejected(tmp_path):
    data = LanguageData(Text(write_text(tmp_path), root=str(tmp_path)), context=16)
    with pytest.raises(UserError, match="choose encoding=learned, sinusoidal or rope for text"):
        data.open([RandomWalk(4)])
    data.open([Sinusoidal()])
    assert data.has("train")


def test_tiny_shakespeare(real_data, tmp_path):
    data = LanguageData(Text(str(real_data / "tinyshakespeare" / "input.txt"), root=str(tmp_path)), context=64)
    data.open([])
    assert data.schema.outputs == 65
    assert len(data.tokens["train"]) + len(data.tokens["valid"]) == 1_115_394
    assert sum(len(batch.samples) for batch in data.batches("valid")) == -(-(len(data.tokens["valid"]) - 1) // 64)


def test_example_continues_the_text(tmp_path, monkeypatch):
    class NextDigit:
        """A perfect predictor of the digit after the last one."""

        def restart(self):
            pass

        def __call__(self, tokens):
            return 50.0 * torch.nn.functional.one_hot((tokens[:, -1] + 1) % 10, 10)

    monkeypatch.setattr(language, "reader", lambda net, context: NextDigit())
    data = open_data(tmp_path, "0123456789" * 200)
    block = partial(ParallelBlock, attention=Attention, feed_forward=FeedForward)
    example = data.examples(GraphTransformer(data.schema, 32, 1, block, Causal()), "valid")
    first, continuation = example.splitlines()
    assert repr("01234567") in first
    assert continuation.strip() == ("8901234567" * 30)
    assert data.examples(torch.nn.Linear(1, 1), "valid") == ""


def test_example_shows_no_control_characters(tmp_path, monkeypatch):
    text = "é\n\t\x00\x1b[31m\r\x7f\u200d\x85"
    monkeypatch.setattr(language, "reader", lambda net, context: None)
    monkeypatch.setattr(language, "generate", lambda read, prompt, *_: torch.cat([prompt[0], tokens])[None])
    data = open_data(tmp_path, "0123456789" * 200, tokens="bytes")
    tokens = torch.tensor(list(text.encode()))
    block = partial(ParallelBlock, attention=Attention, feed_forward=FeedForward)
    example = data.examples(GraphTransformer(data.schema, 32, 1, block, Causal()), "valid")
    assert example.endswith("é\n    \t��[31m��\u200d�\n")


def test_python_library_is_split_by_file(tmp_path, monkeypatch):
    for number in range(60):
        (tmp_path / f"m{number}.py").write_text(f"# {number}\nä = {number}\n")
    monkeypatch.setattr(python_text, "library", lambda: tmp_path)
    data = LanguageData(PythonText(root=str(tmp_path / "root")), context=8, batch_size=4)
    data.open([])
    text = "".join(data.opened.tokenizer.decode(data.tokens[split].tolist()) for split in ("train", "valid", "test"))
    assert sorted(text.splitlines()) == sorted(f"# {n}" for n in range(60)) + sorted(f"ä = {n}" for n in range(60))
    for split in ("train", "valid", "test"):
        decoded = data.opened.tokenizer.decode(data.tokens[split].tolist())
        expected = [n for n in range(60) if split_of(Path(f"m{n}.py")) == split]
        assert sorted(int(line[2:]) for line in decoded.splitlines() if line.startswith("#")) == expected
