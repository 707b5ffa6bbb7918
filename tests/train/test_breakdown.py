"""Errors by class and by size, against a loop over all targets."""

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


def random_batches(schema: Schema):
    """Three batches of paths with random predictions and targets, some of them missing."""
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


def iterate_targets(schema, prediction, target):
    """The labelled entries of a row, a list for each target of its (task, truth, prediction, loss)."""
    if schema.kind == "multiclass":
        positions = zip(prediction.view(-1, schema.outputs), target.reshape(-1).tolist(), strict=True)
        for logits, truth in positions:
            if truth != UNLABELLED:
                yield [(None, truth, int(logits.argmax()), float(F.cross_entropy(logits[None], torch.tensor([truth]))))]
        return
    parts = []
    for task, (logit, truth) in enumerate(zip(prediction.tolist(), target.tolist(), strict=True)):
        if not math.isnan(truth):
            p = 1 / (1 + math.exp(-logit))
            loss = abs(logit - truth) if schema.kind == "regression" else -math.log(p if truth else 1 - p)
            parts.append((task, int(truth), int(logit > 0), loss))
    if parts:
        yield parts


@pytest.mark.parametrize("name", SCHEMAS)
def test_breakdown_matches_loop(name):
    schema, breakdown = SCHEMAS[name], Breakdown(SCHEMAS[name])
    targets: list = []
    for batch, prediction in random_batches(schema):
        breakdown.add(prediction, batch.y, sizes_of(schema, batch))
        sizes = [size for size in batch.sizes.tolist() for _ in range(size if schema.level == "node" else 1)]
        for row, size in enumerate(sizes):
            targets += [(size, parts) for parts in iterate_targets(schema, prediction[row], batch.y[row])]
    by_class = breakdown.classes()
    entries = [part for _, parts in targets for part in parts]
    multi_task = schema.kind == "binary" and schema.outputs > 1
    for index, row in enumerate(by_class.itertuples(index=False)):
        label = 1 if multi_task else index
        of_task = [part for part in entries if part[0] == index] if multi_task else entries
        positives, predicted = ([p for p in of_task if p[k] == label] for k in (1, 2))
        correct = [p for p in positives if p[2] == label]
        assert row.targets == len(positives)
        assert row.recall == pytest.approx(len(correct) / len(positives) if positives else math.nan, nan_ok=True)
        assert row.precision == pytest.approx(len(correct) / len(predicted) if predicted else math.nan, nan_ok=True)
    assert len(by_class) == {"yes or no": 2, "numbers": 0}.get(name, schema.outputs)
    if name == "yes or no":
        assert by_class["class"].tolist() == ["dead", "alive"]
    if name == "classes":
        assert math.isnan(by_class["recall"].iloc[-1])  # no target has this class
    by_size = breakdown.sizes()
    assert by_size["targets"].sum() == len(targets)
    for row in by_size.to_dict("records"):
        inside = [parts for size, parts in targets if row["from"] <= size <= row["to"]]
        assert row["targets"] == len(inside)
        mean = np.mean([np.mean([part[3] for part in parts]) for parts in inside])
        assert row["error" if name == "numbers" else "loss"] == pytest.approx(mean, rel=1e-5)
        if name != "numbers":
            accuracy = np.mean([np.mean([part[1] == part[2] for part in parts]) for parts in inside])
            assert row["accuracy"] == pytest.approx(accuracy)


def test_sizes_of_graphs_and_text_prefixes():
    text = Schema(level="node", outputs=7, node_vocab=(7,), tokenizer="x")
    assert sizes_of(text, path_graphs([2, 3])).tolist() == [1, 2, 1, 2, 3]
    assert sizes_of(Schema(level="link"), path_graphs([2])) is None
    for level in ("graph", "node"):
        batch = path_graphs([4, 1, 6, 3])
        rows = batch.num_nodes if level == "node" else 4
        batch.x, batch.y = torch.zeros(batch.num_nodes, 1), torch.arange(rows)
        shares = [share_of(batch, rank, 3, level) for rank in range(3)]
        found = {
            int(y): int(size)
            for share in shares
            if share.y is not None
            for y, size in zip(share.y, sizes_of(Schema(level=level), share), strict=True)
        }
        assert [found[row] for row in range(rows)] == sizes_of(Schema(level=level), batch).tolist()


@pytest.mark.parametrize("test", [20, 0])
def test_report_shows_breakdown_of_final_split(tmp_path, monkeypatch, test):
    shown = []
    monkeypatch.setattr(gt.train.report, "errors", lambda breakdown, split: shown.append((breakdown, split)) or "")
    train(tmp_path / "run", *write_graphs(tmp_path, train=16, valid=30, test=test), "trainer.max_epochs=2")
    ((breakdown, split),) = shown
    assert split == ("test" if test else "valid")
    graphs = [json.loads(line) for line in (tmp_path / "graphs.jsonl").read_text().splitlines()]
    of_split = [graph for graph in graphs if graph["graph"]["split"] == split]
    assert breakdown.classes()["targets"].tolist() == np.bincount([f["graph"]["y"] for f in of_split]).tolist()
    by_size, scores = breakdown.sizes(), json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    for row in by_size.to_dict("records"):
        assert row["targets"] == sum(row["from"] <= len(graph["nodes"]) <= row["to"] for graph in of_split)
    assert (by_size["targets"] * by_size["accuracy"]).sum() / len(of_split) == pytest.approx(scores["accuracy"])
    assert (by_size["targets"] * by_size["loss"]).sum() / len(of_split) == pytest.approx(scores["loss"], rel=1e-4)


def test_byte_classes_are_shown_as_characters():
    schema = Schema(node_vocab=(256,), level="node", outputs=256, tokenizer=Bytes().dumps(), max_nodes=4)
    names = Breakdown(schema).classes()["class"]
    assert [names[byte] for byte in (10, 32, 101, 200)] == ["'\\n'", "' '", "'e'", "200"]
