"""Errors by class and by size are those of a loop over all targets."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import gt.train.report
from gt.data.text.tokenizer import Bytes
from gt.graph import path_graphs
from gt.parallel import share_of
from gt.schema import UNLABELLED, Schema
from gt.train.breakdown import Breakdown, sizes_of
from tests.small_runs import train, write_graphs

SCHEMAS = {
    "classes": Schema(outputs=5),
    "classes at positions": Schema(outputs=4, positions=3),
    "classes of nodes": Schema(outputs=3, level="node"),
    "yes or no": Schema(kind="binary", answers=(("dead", "alive"),)),
    "several tasks": Schema(kind="binary", outputs=3),
    "numbers": Schema(kind="regression", outputs=2),
}


def batches(schema: Schema):
    """Three batches of paths with random predictions and targets, some of which are missing."""
    draw = torch.Generator().manual_seed(0)
    for sizes in ([1, 2, 3, 4], [5, 6, 7, 12, 30], [11, 24]):
        batch = path_graphs(sizes)
        rows = batch.num_nodes if schema.level == "node" else len(sizes)
        prediction = torch.randn(rows, schema.positions * schema.outputs, generator=draw)
        if schema.kind == "multiclass":
            batch.y = torch.randint(schema.outputs - 1, (rows, schema.positions), generator=draw)  # the last is absent
            batch.y = batch.y.masked_fill(torch.rand(batch.y.shape, generator=draw) < 0.2, UNLABELLED).squeeze(1)
        else:
            batch.y = torch.randint(2, prediction.shape, generator=draw).float()
            batch.y[torch.rand(batch.y.shape, generator=draw) < 0.3] = torch.nan
        yield batch, prediction


def answered(schema, prediction, target):
    """Of one target: class or task, truth, what was said, loss; none where there is no label."""
    if schema.kind == "multiclass":
        places = zip(prediction.view(-1, schema.outputs), target.reshape(-1).tolist(), strict=True)
        for logits, truth in places:
            if truth != UNLABELLED:
                yield [(None, truth, int(logits.argmax()), float(F.cross_entropy(logits[None], torch.tensor([truth]))))]
        return
    parts = []
    for task, (logit, truth) in enumerate(zip(prediction.tolist(), target.tolist(), strict=True)):
        if not math.isnan(truth):
            chance = 1 / (1 + math.exp(-logit))
            loss = abs(logit - truth) if schema.kind == "regression" else -math.log(chance if truth else 1 - chance)
            parts.append((task, int(truth), int(logit > 0), loss))
    if parts:
        yield parts


@pytest.mark.parametrize("name", SCHEMAS)
def test_counts_are_those_of_a_loop(name):
    schema, counted = SCHEMAS[name], Breakdown(SCHEMAS[name])
    answers: list = []
    for batch, prediction in batches(schema):
        counted.add(prediction, batch.y, sizes_of(schema, batch))
        sizes = [size for size in batch.sizes.tolist() for _ in range(size if schema.level == "node" else 1)]
        for row, size in enumerate(sizes):
            answers += [(size, parts) for parts in answered(schema, prediction[row], batch.y[row])]
    by_class = counted.classes()
    single = [part for _, parts in answers for part in parts]
    of_tasks = schema.kind == "binary" and schema.outputs > 1
    for place, row in enumerate(by_class.itertuples(index=False)):
        wanted = 1 if of_tasks else place
        mine = [part for part in single if part[0] == place] if of_tasks else single
        true, said = ([p for p in mine if p[k] == wanted] for k in (1, 2))
        both = [p for p in true if p[2] == wanted]
        assert row.targets == len(true)
        assert row.recall == pytest.approx(len(both) / len(true) if true else math.nan, nan_ok=True)
        assert row.precision == pytest.approx(len(both) / len(said) if said else math.nan, nan_ok=True)
    assert len(by_class) == {"yes or no": 2, "numbers": 0}.get(name, schema.outputs)
    if name == "yes or no":
        assert by_class["class"].tolist() == ["dead", "alive"]
    if name == "classes":
        assert math.isnan(by_class["recall"].iloc[-1])  # no target has it
    by_size = counted.sizes()
    assert by_size["targets"].sum() == len(answers)
    for row in by_size.to_dict("records"):
        inside = [parts for size, parts in answers if row["from"] <= size <= row["to"]]
        assert row["targets"] == len(inside)
        mean = np.mean([np.mean([part[3] for part in parts]) for parts in inside])
        assert row["error" if name == "numbers" else "loss"] == pytest.approx(mean, rel=1e-5)
        if name != "numbers":
            right = np.mean([np.mean([part[1] == part[2] for part in parts]) for parts in inside])
            assert row["accuracy"] == pytest.approx(right)


def test_sizes_are_of_whole_graphs_and_of_the_text_so_far():
    text = Schema(level="node", outputs=7, node_vocab=(7,), tokenizer="x")
    assert sizes_of(text, path_graphs([2, 3])).tolist() == [1, 2, 1, 2, 3]
    assert sizes_of(Schema(level="link"), path_graphs([2])) is None
    for level in ("graph", "node"):
        batch = path_graphs([4, 1, 6, 3])
        rows = batch.num_nodes if level == "node" else 4
        batch.x, batch.y = torch.zeros(batch.num_nodes, 1), torch.arange(rows)
        shares = [share_of(batch, rank, 3, level) for rank in range(3)]
        told = {
            int(y): int(size)
            for share in shares
            if share.y is not None
            for y, size in zip(share.y, sizes_of(Schema(level=level), share), strict=True)
        }
        assert [told[row] for row in range(rows)] == sizes_of(Schema(level=level), batch).tolist()


@pytest.mark.parametrize("test", [20, 0])
def test_a_run_shows_them_of_its_last_split(tmp_path, monkeypatch, test):
    seen = []
    monkeypatch.setattr(gt.train.report, "errors", lambda breakdown, split: seen.append((breakdown, split)) or "")
    train(tmp_path / "run", *write_graphs(tmp_path, train=16, valid=30, test=test), "trainer.max_epochs=2")
    ((breakdown, split),) = seen
    assert split == ("test" if test else "valid")
    facts = [json.loads(line) for line in (tmp_path / "graphs.jsonl").read_text().splitlines()]
    mine = [fact for fact in facts if fact["graph"]["split"] == split]
    assert breakdown.classes()["targets"].tolist() == np.bincount([f["graph"]["y"] for f in mine]).tolist()
    by_size, scores = breakdown.sizes(), json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    for row in by_size.to_dict("records"):
        assert row["targets"] == sum(row["from"] <= len(fact["nodes"]) <= row["to"] for fact in mine)
    assert (by_size["targets"] * by_size["accuracy"]).sum() / len(mine) == pytest.approx(scores["accuracy"])
    assert (by_size["targets"] * by_size["loss"]).sum() / len(mine) == pytest.approx(scores["loss"], rel=1e-4)


def test_classes_of_a_tokenizer_without_names_are_spelled():
    schema = Schema(node_vocab=(256,), level="node", outputs=256, tokenizer=Bytes().dumps(), max_nodes=4)
    names = Breakdown(schema).classes()["class"]
    assert [names[byte] for byte in (10, 32, 101, 200)] == ["'\\n'", "' '", "'e'", "200"]
