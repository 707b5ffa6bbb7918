"""Analysis of attention for the report: its reach by hop during training, and the learned distance profiles."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

import gt
from gt.encodings import Distance
from gt.graph import path_graphs
from gt.inference.analysis import Reach, attention_reach, distance_profiles
from gt.layers import Attention, ParallelBlock
from gt.masks import Complete, RandomEdges
from gt.masks.random import redraw_mask
from gt.model import GraphTransformer
from gt.schema import Schema
from gt.train.callbacks.attention import NUM_GRAPHS, sample_graphs
from gt.train.figures import distance_lines, reach_maps
from tests.graphs import random_batch
from tests.small_runs import configured, train, write_graphs


def read_logged_reach(run):
    log = pd.read_csv(next(run.rglob("metrics.csv")))
    return log[[name for name in log.columns if name.startswith("attention/")]].dropna()


def test_reach_is_logged_at_intervals_and_sums_to_one(tmp_path):
    steps = ["callbacks.attention.steps=7", "trainer.max_epochs=4", "model.depth=2", "model=gps"]
    train(tmp_path / "run", *write_graphs(tmp_path), *steps)  # validated after steps 5, 10, 15 and 20
    logged = read_logged_reach(tmp_path / "run")
    assert len(logged) == 2
    for layer in range(2):
        names = [f"attention/layer_{layer}/{hop}" for hop in [*(f"hop_{n}" for n in range(7)), "further"]]
        assert logged[names].sum(1).tolist() == pytest.approx([1, 1])
    assert logged.shape[1] == 16
    assert np.abs(logged.diff().iloc[1]).max() > 1e-6  # of the weights at that step


def test_logged_reach_is_of_the_current_weights(tmp_path):
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=1", "model=gps")
    task = gt.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    lines = [json.loads(line) for line in (tmp_path / "graphs.jsonl").read_text().splitlines()]
    sizes = [len(line["nodes"]) for line in lines if line["graph"]["split"] == "valid"]
    with configured(tmp_path / "again", *write_graphs(tmp_path)) as cfg:
        data = instantiate(cfg.data)
        data.open([])
    batch = sample_graphs(data)
    assert batch.sizes.tolist() == sorted(sizes)[:: (len(sizes) - 1) // (NUM_GRAPHS - 1)]  # 36: every fifth
    (row,) = read_logged_reach(tmp_path / "run").to_dict("records")
    assert row == pytest.approx(attention_reach(task.net, [batch]).by_name(), abs=1e-5)


def test_reach_under_redrawn_masks_is_the_mean_over_draws():
    torch.manual_seed(0)
    mask, batches, reaches = RandomEdges(1), [random_batch((6, 4)), random_batch((3, 5), seed=1)], []
    net = GraphTransformer(
        Schema(node_vocab=(5, 5)), 8, 1, partial(ParallelBlock, attention=partial(Attention, heads=2)), mask=mask
    ).eval()
    for draw in (0, 1):
        net.masks = [redraw_mask(mask, draw)]
        reaches.append(attention_reach(net, batches))
    net.masks, net.redraw = [mask], 2
    reach = attention_reach(net, batches)
    torch.testing.assert_close(reach.share[0], (reaches[0].share[0] + reaches[1].share[0]) / 2)
    torch.testing.assert_close(reach.even, (reaches[0].even + reaches[1].even) / 2)


def test_link_task_samples_its_graph_once(tmp_path):
    ends = torch.combinations(torch.arange(12))[::2].tolist()
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *(f"{u},{v}" for u, v in ends)]))
    data_options = [f"data.source.path={tmp_path}", f"data.source.root={tmp_path}"]
    with configured(tmp_path / "run", "data=csv_links", *data_options, "data.eval_batch_size=2") as cfg:
        data = instantiate(cfg.data)
        data.open([])
    assert len(data.dataset("valid")) > 1
    assert sample_graphs(data).sizes.tolist() == [12]


def test_reach_by_layer_and_hop():
    share = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]]])
    assert Reach(["a"], [*share], share[:, 0]).by_name() == pytest.approx(
        {"attention/layer_0/hop_0": 0.3, "attention/layer_0/hop_1": 0.575, "attention/layer_0/further": 0.125}
    )


def test_layers_with_different_numbers_of_heads():
    def block(heads):
        return lambda width: ParallelBlock(width, attention=lambda w: Attention(w, heads), norm=nn.LayerNorm)

    schema = Schema(node_vocab=(5,), outputs=2)
    net = GraphTransformer(schema, 8, 2, [block(2), block(4)], Complete()).eval()
    reach = attention_reach(net, [replace(path_graphs([3, 6]), x=torch.arange(9)[:, None] % 5)], max_hops=3)
    assert [share.shape for share in reach.share] == [(2, 5), (4, 5)]
    for share in reach.share:
        assert share.sum(1).tolist() == pytest.approx([1] * len(share))
    assert len(reach.by_name()) == 10
    figure = reach_maps(reach)
    assert [len(axes.get_yticks()) for axes in figure.axes] == [3, 5]


def train_network(folder, *overrides: str):
    train(folder / "run", *write_graphs(folder, train=8, valid=8, test=8), "trainer.max_epochs=1", *overrides)
    return gt.load(folder / "run" / "checkpoints" / "last.ckpt").net


@pytest.mark.parametrize("unit", ["hops", "positions"])
def test_distance_profile_of_decay_hints(unit, tmp_path):
    hint = {"hops": "hop_decay", "positions": "position_decay"}[unit]
    net = train_network(tmp_path, "model=gps", f"model/hint={hint}", "model.depth=2")
    profiles = distance_profiles(net)
    assert [(each.layers, each.unit) for each in profiles] == [("layer 0", unit), ("layer 1", unit)]
    for layer, profile in enumerate(profiles):
        rates = F.softplus(dict(net.named_parameters())[f"blocks.{layer}.attention.hint.raw"])
        for distance in range(9):
            for head, rate in enumerate(rates.tolist()):
                assert float(profile.score[distance, head]) == pytest.approx(-rate * distance, abs=1e-6)
    assert (tmp_path / "run" / "distance.png").exists()
    panels = distance_lines(profiles).axes
    assert [len(axes.get_lines()) for axes in panels] == [4, 4]


def test_distance_profile_of_bias_table(tmp_path):
    net = train_network(
        tmp_path, "model=graphormer", "model.block.attention.heads=2", "encoding=[degree,distance_bias]"
    )
    (profile,) = distance_profiles(net, max_distance=3)
    (table,) = (module.table.weight for module in net.modules() if isinstance(module, Distance))
    assert (profile.layers, profile.score.tolist()) == ("all layers", table[:4].tolist())


def test_network_without_hints_has_no_distance_profile(tmp_path):
    assert distance_profiles(train_network(tmp_path, "model=gin")) == []
    assert not (tmp_path / "run" / "distance.png").exists()


@pytest.mark.parametrize(("sizes", "expected"), [
    ([100, 3, 128, 129, 500], [3, 100, 128]),
    ([256, 256, 256, 300], [256, 256]),
    ([400, 600], [400]),
    ([600, 700], None),
])  # fmt: skip
def test_sampled_graphs_are_limited_in_size(sizes, expected):
    class Dataset:
        def __getitem__(self, request):
            return [sizes[sample] for sample in request.samples]

    Dataset.sizes = np.array(sizes)
    assert sample_graphs(SimpleNamespace(has=lambda split: True, dataset=lambda split: Dataset())) == expected
