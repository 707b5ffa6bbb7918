"""Ensembles: means and deviations against a loop; dropout that leaves norms unchanged; embeddings."""

from functools import partial

import pytest
import torch
from torch import nn

from gt.errors import UserError
from gt.graph import path_graphs
from gt.heads import Head, Mean
from gt.layers import EGT, GRASS, GRIT, Attention, FeedForward, PairBlock, ParallelBlock
from gt.masks import RandomEdges
from gt.masks.random import redraw_mask
from gt.metrics import metrics
from gt.model import GraphTransformer
from gt.prediction.models import Models, dropout_on
from gt.schema import Schema
from gt.train.meaning import DESCRIPTIONS
from gt.train.task import Task


def make_task(seed: int, dropout: float = 0.0, **schema: object) -> Task:
    torch.manual_seed(seed)
    data_schema = Schema(node_vocab=(5,), **{"kind": "multiclass", "outputs": 3, **schema})  # type: ignore[arg-type]
    attention, feed_forward = partial(Attention, heads=2, dropout=dropout), partial(FeedForward, dropout=dropout)
    block = partial(ParallelBlock, attention=attention, feed_forward=feed_forward)
    net = GraphTransformer(data_schema, 8, 1, block, head=partial(Head, hidden=1))
    return Task(net, data_schema, *metrics(data_schema)).eval()


def make_batch() -> object:
    graphs = path_graphs([4, 3, 5])
    graphs.x = torch.randint(5, (12, 1), generator=torch.Generator().manual_seed(0))
    return graphs


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
@torch.no_grad()
def test_ensemble_gives_mean_and_deviation(kind: str) -> None:
    tasks = [make_task(seed, kind=kind) for seed in range(3)]
    answer = Models(tasks)(make_batch())  # type: ignore[arg-type]
    outputs = torch.stack([task(make_batch()) for task in tasks])
    to_answer = {"multiclass": lambda x: x.softmax(-1), "binary": torch.sigmoid, "regression": lambda x: x}[kind]
    torch.testing.assert_close(to_answer(answer.prediction), to_answer(outputs).mean(0))
    torch.testing.assert_close(answer.deviation, to_answer(outputs).std(0), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_single_model_has_no_deviation() -> None:
    task = make_task(0)
    answer = Models([task])(make_batch())  # type: ignore[arg-type]
    assert torch.equal(answer.prediction, task(make_batch()))
    assert answer.deviation is None


@torch.no_grad()
def test_dropout_is_temporary_and_leaves_norms_unchanged() -> None:
    task = make_task(0, dropout=0.5)
    before = task(make_batch())
    norm = next(module for module in task.net.modules() if isinstance(module, nn.BatchNorm1d))
    mean = norm.running_mean.clone()
    answer, repeated = (Models([task], passes=30)(make_batch()) for _ in range(2))  # type: ignore[arg-type]
    assert (answer.deviation > 1e-3).all()
    assert torch.equal(answer.deviation, repeated.deviation)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(task(make_batch()), before)
    with dropout_on(task.net):
        assert {part.training for part in task.net.modules() if isinstance(part, Attention)} == {True}
        assert not norm.training
    with pytest.raises(UserError, match="dropout"):
        Models([make_task(0)], passes=2)


@pytest.mark.parametrize("kind", [GRASS, EGT, GRIT])
@torch.no_grad()
def test_dropout_includes_attention_weights_of_pairs(kind: type) -> None:
    torch.manual_seed(0)
    data_schema = Schema(node_vocab=(5,), kind="binary")
    block = partial(PairBlock, attention=partial(kind, attention_dropout=0.5), norm=nn.LayerNorm)
    net = GraphTransformer(data_schema, 8, 1, block, head=partial(Head, hidden=0))
    task = Task(net, data_schema, *metrics(data_schema)).eval()
    answer = Models([task], passes=30)(make_batch())  # type: ignore[arg-type]
    assert (answer.deviation > 1e-6).all()


@torch.no_grad()
def test_embedding_is_the_input_of_the_head() -> None:
    task = make_task(0)
    answer = Models([task], embed=True)(make_batch())  # type: ignore[arg-type]
    assert answer.embedding.shape == (3, 8)
    torch.testing.assert_close(task.net.head.mlp(answer.embedding), answer.prediction)
    states = []
    task.net.head.register_forward_pre_hook(lambda module, given: states.append(given[0]))
    task(make_batch())
    torch.testing.assert_close(answer.embedding, Mean()(states[0], make_batch()))  # type: ignore[arg-type]


@torch.no_grad()
def test_embedding_is_mean_over_redrawn_masks() -> None:
    mask, embeddings = RandomEdges(1), []
    for draw in (0, 1):
        task = make_task(0)
        task.net.masks = [redraw_mask(mask, draw)]
        embeddings.append(Models([task], embed=True)(make_batch()).embedding)  # type: ignore[arg-type]
    task.net.masks, task.net.redraw = [mask], 2
    answer = Models([task], embed=True)(make_batch())  # type: ignore[arg-type]
    torch.testing.assert_close(answer.embedding, (embeddings[0] + embeddings[1]) / 2)
    assert not torch.allclose(*embeddings)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("outputs", {}, {"outputs": 4}),
        ("columns", {"node_names": ("kind",)}, {"node_names": ("colour",)}),
        ("undirected", {}, {"undirected": True}),
    ],
)
def test_models_of_different_data_are_rejected(name: str, first: dict, second: dict) -> None:
    with pytest.raises(UserError, match=f"differ in {DESCRIPTIONS.get(name, name)}"):
        Models([make_task(0, **first), make_task(0, **second)])
