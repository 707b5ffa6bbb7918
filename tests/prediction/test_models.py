"""Several models asked as one: means and deviations against a loop, dropout that leaves norms alone."""

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


def task(seed: int, dropout: float = 0.0, **schema: object) -> Task:
    torch.manual_seed(seed)
    of_data = Schema(node_vocab=(5,), **{"kind": "multiclass", "outputs": 3, **schema})  # type: ignore[arg-type]
    attention, feed_forward = partial(Attention, heads=2, dropout=dropout), partial(FeedForward, dropout=dropout)
    block = partial(ParallelBlock, attention=attention, feed_forward=feed_forward)
    net = GraphTransformer(of_data, 8, 1, block, head=partial(Head, hidden=1))
    return Task(net, of_data, *metrics(of_data)).eval()


def batch() -> object:
    made = path_graphs([4, 3, 5])
    made.x = torch.randint(5, (12, 1), generator=torch.Generator().manual_seed(0))
    return made


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
@torch.no_grad()
def test_an_ensemble_says_the_mean_and_the_deviation(kind: str) -> None:
    tasks = [task(seed, kind=kind) for seed in range(3)]
    answer = Models(tasks)(batch())  # type: ignore[arg-type]
    said = torch.stack([each(batch()) for each in tasks])
    read = {"multiclass": lambda x: x.softmax(-1), "binary": torch.sigmoid, "regression": lambda x: x}[kind]
    torch.testing.assert_close(read(answer.prediction), read(said).mean(0))
    torch.testing.assert_close(answer.deviation, read(said).std(0), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_one_model_says_what_it_says() -> None:
    only = task(0)
    answer = Models([only])(batch())  # type: ignore[arg-type]
    assert torch.equal(answer.prediction, only(batch()))
    assert answer.deviation is None


@torch.no_grad()
def test_dropout_is_on_for_a_while_and_norms_stay_as_they_are() -> None:
    only = task(0, dropout=0.5)
    before = only(batch())
    norm = next(module for module in only.net.modules() if isinstance(module, nn.BatchNorm1d))
    mean = norm.running_mean.clone()
    answer, again = (Models([only], passes=30)(batch()) for _ in range(2))  # type: ignore[arg-type]
    assert (answer.deviation > 1e-3).all()
    assert torch.equal(answer.deviation, again.deviation)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(only(batch()), before)
    with dropout_on(only.net):
        assert {part.training for part in only.net.modules() if isinstance(part, Attention)} == {True}
        assert not norm.training
    with pytest.raises(UserError, match="dropout"):
        Models([task(0)], passes=2)


@pytest.mark.parametrize("kind", [GRASS, EGT, GRIT])
@torch.no_grad()
def test_attention_weights_of_pairs_are_dropped_too(kind: type) -> None:
    torch.manual_seed(0)
    of_data = Schema(node_vocab=(5,), kind="binary")
    block = partial(PairBlock, attention=partial(kind, attention_dropout=0.5), norm=nn.LayerNorm)
    net = GraphTransformer(of_data, 8, 1, block, head=partial(Head, hidden=0))
    only = Task(net, of_data, *metrics(of_data)).eval()
    answer = Models([only], passes=30)(batch())  # type: ignore[arg-type]
    assert (answer.deviation > 1e-6).all()


@torch.no_grad()
def test_the_embedding_is_what_the_head_predicts_from() -> None:
    only = task(0)
    answer = Models([only], embed=True)(batch())  # type: ignore[arg-type]
    assert answer.embedding.shape == (3, 8)
    torch.testing.assert_close(only.net.head.mlp(answer.embedding), answer.prediction)
    states = []
    only.net.head.register_forward_pre_hook(lambda module, given: states.append(given[0]))
    only(batch())
    torch.testing.assert_close(answer.embedding, Mean()(states[0], batch()))  # type: ignore[arg-type]


@torch.no_grad()
def test_the_embedding_under_masks_that_are_redrawn_is_the_mean_over_the_draws() -> None:
    mask, asked = RandomEdges(1), []
    for draw in (0, 1):
        only = task(0)
        only.net.masks = [redraw_mask(mask, draw)]
        asked.append(Models([only], embed=True)(batch()).embedding)  # type: ignore[arg-type]
    only.net.masks, only.net.redraw = [mask], 2
    answer = Models([only], embed=True)(batch())  # type: ignore[arg-type]
    torch.testing.assert_close(answer.embedding, (asked[0] + asked[1]) / 2)
    assert not torch.allclose(*asked)


@pytest.mark.parametrize(
    ("name", "mine", "yours"),
    [
        ("outputs", {}, {"outputs": 4}),
        ("columns", {"node_names": ("kind",)}, {"node_names": ("colour",)}),
        ("undirected", {}, {"undirected": True}),
    ],
)
def test_models_of_other_data_are_not_asked_together(name: str, mine: dict, yours: dict) -> None:
    with pytest.raises(UserError, match=f"differ in {DESCRIPTIONS.get(name, name)}"):
        Models([task(0, **mine), task(0, **yours)])
