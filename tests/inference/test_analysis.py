"""What the report shows of attention: by hop while a network learns, and what it has learned of distance."""

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


def looks(run):
    log = pd.read_csv(next(run.rglob("metrics.csv")))
    return log[[name for name in log.columns if name.startswith("attention/")]].dropna()


def test_looks_are_as_far_apart_as_is_said_and_each_layer_gives_all_its_attention(tmp_path):
    steps = ["callbacks.attention.steps=7", "trainer.max_epochs=4", "model.depth=2", "model=gps"]
    train(tmp_path / "run", *write_graphs(tmp_path), *steps)  # validated after steps 5, 10, 15 and 20
    looked = looks(tmp_path / "run")
    assert len(looked) == 2
    for layer in range(2):
        names = [f"attention/layer_{layer}/{hop}" for hop in [*(f"hop_{n}" for n in range(7)), "further"]]
        assert looked[names].sum(1).tolist() == pytest.approx([1, 1])
    assert looked.shape[1] == 16
    assert np.abs(looked.diff().iloc[1]).max() > 1e-6  # of the weights as they are by then


def test_a_look_is_at_the_weights_of_that_step(tmp_path):
    train(tmp_path / "run", *write_graphs(tmp_path), "trainer.max_epochs=1", "model=gps")
    task = gt.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    lines = [json.loads(line) for line in (tmp_path / "graphs.jsonl").read_text().splitlines()]
    sizes = [len(line["nodes"]) for line in lines if line["graph"]["split"] == "valid"]
    with configured(tmp_path / "again", *write_graphs(tmp_path)) as cfg:
        data = instantiate(cfg.data)
        data.open([])
    batch = sample_graphs(data)
    assert batch.sizes.tolist() == sorted(sizes)[:: (len(sizes) - 1) // (NUM_GRAPHS - 1)]  # 36: every fifth
    (row,) = looks(tmp_path / "run").to_dict("records")
    assert row == pytest.approx(attention_reach(task.net, [batch]).by_name(), abs=1e-5)


def test_reach_under_masks_that_are_redrawn_is_the_mean_over_the_draws():
    torch.manual_seed(0)
    mask, batches, each = RandomEdges(1), [random_batch((6, 4)), random_batch((3, 5), seed=1)], []
    net = GraphTransformer(
        Schema(node_vocab=(5, 5)), 8, 1, partial(ParallelBlock, attention=partial(Attention, heads=2)), mask=mask
    ).eval()
    for draw in (0, 1):
        net.masks = [redraw_mask(mask, draw)]
        each.append(attention_reach(net, batches))
    net.masks, net.redraw = [mask], 2
    reach = attention_reach(net, batches)
    torch.testing.assert_close(reach.share[0], (each[0].share[0] + each[1].share[0]) / 2)
    torch.testing.assert_close(reach.even, (each[0].even + each[1].even) / 2)


def test_of_links_of_one_graph_it_is_that_graph_however_many_batches_ask_about_it(tmp_path):
    ends = torch.combinations(torch.arange(12))[::2].tolist()
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *(f"{u},{v}" for u, v in ends)]))
    places = [f"data.source.path={tmp_path}", f"data.source.root={tmp_path}"]
    with configured(tmp_path / "run", "data=csv_links", *places, "data.eval_batch_size=2") as cfg:
        data = instantiate(cfg.data)
        data.open([])
    assert len(data.dataset("valid")) > 1
    assert sample_graphs(data).sizes.tolist() == [12]


def test_names_are_of_layer_and_hop():
    share = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]]])
    assert Reach(["a"], [*share], share[:, 0]).by_name() == pytest.approx(
        {"attention/layer_0/hop_0": 0.3, "attention/layer_0/hop_1": 0.575, "attention/layer_0/further": 0.125}
    )


def test_layers_may_have_heads_of_different_number():
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


def network(folder, *overrides: str):
    train(folder / "run", *write_graphs(folder, train=8, valid=8, test=8), "trainer.max_epochs=1", *overrides)
    return gt.load(folder / "run" / "checkpoints" / "last.ckpt").net


@pytest.mark.parametrize("unit", ["hops", "positions"])
def test_a_learned_rate_is_a_line_for_each_head(unit, tmp_path):
    hint = {"hops": "hop_decay", "positions": "position_decay"}[unit]
    net = network(tmp_path, "model=gps", f"model/hint={hint}", "model.depth=2")
    profiles = distance_profiles(net)
    assert [(each.layers, each.unit) for each in profiles] == [("layer 0", unit), ("layer 1", unit)]
    for place, profile in enumerate(profiles):
        rates = F.softplus(dict(net.named_parameters())[f"blocks.{place}.attention.hint.raw"])
        for distance in range(9):
            for head, rate in enumerate(rates.tolist()):
                assert float(profile.score[distance, head]) == pytest.approx(-rate * distance, abs=1e-6)
    assert (tmp_path / "run" / "distance.png").exists()
    drawn = distance_lines(profiles).axes
    assert [len(axes.get_lines()) for axes in drawn] == [4, 4]


def test_a_bias_by_distance_is_that_of_its_table(tmp_path):
    net = network(tmp_path, "model=graphormer", "model.block.attention.heads=2", "encoding=[degree,distance_bias]")
    (profile,) = distance_profiles(net, max_distance=3)
    (table,) = (module.table.weight for module in net.modules() if isinstance(module, Distance))
    assert (profile.layers, profile.score.tolist()) == ("all layers", table[:4].tolist())


def test_without_a_hint_there_is_nothing_to_draw(tmp_path):
    assert distance_profiles(network(tmp_path, "model=gin")) == []
    assert not (tmp_path / "run" / "distance.png").exists()


@pytest.mark.parametrize(("sizes", "chosen"), [
    ([100, 3, 128, 129, 500], [3, 100, 128]),
    ([256, 256, 256, 300], [256, 256]),
    ([400, 600], [400]),
    ([600, 700], None),
])  # fmt: skip
def test_a_look_has_about_as_many_pairs_of_nodes_whatever_the_data(sizes, chosen):
    class Dataset:
        def __getitem__(self, request):
            return [sizes[sample] for sample in request.samples]

    Dataset.sizes = np.array(sizes)
    assert sample_graphs(SimpleNamespace(has=lambda split: True, dataset=lambda split: Dataset())) == chosen
