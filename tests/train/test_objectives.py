"""Self-supervised objectives: what they mask, that the network cannot see it, and their losses against a loop."""

from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.nn import functional as F

from gt.cli.config_files import CONFIGS
from gt.data.batching import prepare_all
from gt.data.static import Shape, pad_batch
from gt.errors import UserError
from gt.masks import Pairs, with_virtual_nodes
from gt.objectives import Denoising, MaskedEdges, MaskedNodes, run_objectives
from gt.schema import Schema
from gt.train.network import build, network_config
from tests.graphs import random_batch

CATEGORIES = Schema(node_vocab=(5, 5), edge_vocab=(3,), outputs=3, max_nodes=12)
NUMBERS = Schema(node_floats=3, edge_floats=2, outputs=3, node_mean=(1, 2, 3), node_scale=(1, 2, 4), max_nodes=12)
SIZES = (7, 1, 12, 4, 9)


def network(schema, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = network_config(compose("train", overrides=["model.width=32", "model.depth=2", *overrides]))
    torch.manual_seed(0)
    return build(config, schema).double().eval()


def make_batch(schema):
    batch = random_batch(SIZES, directed=False)
    if schema.node_floats:
        draw = torch.Generator().manual_seed(0)
        batch.x = torch.randn(batch.num_nodes, 3, generator=draw)
        batch.edge_attr = torch.randn(batch.num_edges, 2, generator=draw)
    return batch


def make_objective(kind, net, schema, **options):
    objective = kind(**options)
    torch.manual_seed(1)
    objective.build(net, schema)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return objective.double()


CHANGED_COLUMN = {MaskedNodes: "x", MaskedEdges: "edge_attr", Denoising: "x"}


@pytest.mark.parametrize("schema", [CATEGORIES, NUMBERS], ids=["categories", "numbers"])
@pytest.mark.parametrize("kind", [MaskedNodes, MaskedEdges])
def test_mask_hides_share_of_one_column_only(kind, schema):
    batch = make_batch(schema)
    before = {name: getattr(batch, name).clone() for name in ("x", "edge_attr", "edge_index", "y")}
    objective, shares = make_objective(kind, network(schema), schema, share=0.3), []
    for draw in range(200):
        masked, question = objective.disturb(batch, draw)
        values, name = getattr(masked, CHANGED_COLUMN[kind]), CHANGED_COLUMN[kind]
        assert not values[question.asked].any()
        assert torch.equal(values[~question.asked], before[name][~question.asked])
        assert torch.equal(question.values, before[name])
        unmasked = before.keys() - {name}
        assert all(torch.equal(getattr(masked, column), before[column]) for column in unmasked)
        shares.append(question.asked.double().mean())
    assert torch.stack(shares).mean() == pytest.approx(0.3, abs=0.03)
    assert len({tuple(objective.disturb(batch, draw)[1].asked.tolist()) for draw in range(5)}) == 5
    assert all(torch.equal(getattr(batch, name), value) for name, value in before.items())
    assert make_objective(kind, network(schema), schema, share=1.0).disturb(batch, 0)[1].asked.all()


def test_both_directions_of_edge_are_masked_together():
    batch = make_batch(CATEGORIES)
    hidden = make_objective(MaskedEdges, network(CATEGORIES), CATEGORIES, share=0.5).disturb(batch, 3)[1].asked.tolist()
    ends = list(map(tuple, batch.edge_index.T.tolist()))
    is_hidden = dict(zip(ends, hidden, strict=True))
    assert all(is_hidden[target, source] == is_hidden[source, target] for source, target in ends)
    assert 0 < sum(hidden) < len(hidden)


def test_padding_is_never_masked():
    batch = pad_batch(make_batch(CATEGORIES), [Shape(max_nodes=12, nodes=45, edges=110, graphs=9)], CATEGORIES)
    for kind in (MaskedNodes, MaskedEdges):
        question = make_objective(kind, network(CATEGORIES), CATEGORIES, share=1.0).disturb(batch, 0)[1]
        assert torch.equal(question.asked, batch.node_mask if kind is MaskedNodes else batch.edge_mask)


MODELS = {  # edges read by layers, by pairs, by both, beside virtual nodes
    "gps": [], "gps with edges": ["+model.block.attention.edges=true"], "gt": ["model=gt", "encoding=none"],
    "grit": ["model=grit", "encoding=[rrwp_pairs,edges_only]"], "egt": ["model=egt", "encoding=[distance,edges]"],
    "exphormer": ["model=exphormer", "encoding=[edges]"], "grass": ["model=grass", "encoding=[edges]"],
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("kind", "schema"),
    [(MaskedNodes, CATEGORIES), (MaskedNodes, NUMBERS), (MaskedEdges, CATEGORIES), (MaskedEdges, NUMBERS)],
)
@torch.no_grad()
def test_network_cannot_see_masked_values(kind, schema, model):
    net = network(schema, "encoding=none", *MODELS[model])
    objective, name = make_objective(kind, net, schema, share=0.4), CHANGED_COLUMN[kind]

    def outputs(batch):
        prepare_all(batch, frozenset(net.readings()))  # as in the loader, before anything is masked
        states = []
        hook = net.head.register_forward_pre_hook(lambda module, arguments: states.append(arguments[0]))
        prediction, _ = run_objectives(net, batch, [objective], 5)
        hook.remove()
        return torch.cat([prediction.flatten(), *(state.flatten() for state in states)])

    batch, hidden_differs, visible_differs = make_batch(schema), make_batch(schema), make_batch(schema)
    for each in (batch, hidden_differs, visible_differs):  # differ from the batch where it is masked, or elsewhere
        setattr(each, name, getattr(batch, name).clone())
    hidden = objective.disturb(batch, 5)[1].asked
    values = getattr(batch, name) + 1 if schema.node_floats else (getattr(batch, name) + 1) % 3
    getattr(hidden_differs, name)[hidden] = values[hidden]
    getattr(visible_differs, name)[~hidden] = values[~hidden]
    assert not torch.equal(getattr(hidden_differs, name), getattr(batch, name))
    assert torch.equal(outputs(batch), outputs(hidden_differs))
    assert not torch.equal(outputs(batch), outputs(visible_differs))


def test_memoised_pairs_refer_to_masked_batch():
    net, batch = network(CATEGORIES, "model=exphormer", "encoding=[edges]"), make_batch(CATEGORIES)
    prepare_all(batch, frozenset(net.readings()))
    masked, _ = make_objective(MaskedEdges, net, CATEGORIES, share=0.5).disturb(batch, 0)
    pairs = [value for value in masked.memo.values() if isinstance(value, Pairs)]
    pairs += [value for wide in masked.memo.values() for value in getattr(wide, "memo", {}).values()]
    assert pairs
    assert all(with_virtual_nodes(each.batch, 0) is masked for each in pairs)


def brute_force(kind, objective, net, schema, batch, draw):
    """The mean loss of an objective, row by row."""
    masked, question = objective.disturb(batch, draw)
    states = []
    with objective.reading(question):
        hook = net.head.register_forward_pre_hook(lambda module, arguments: states.append(arguments[0]))
        net(masked)
        hook.remove()
    x, losses = states[0], []
    for row in question.asked.nonzero().flatten().tolist():
        if kind is Denoising:
            noise = (masked.x[row] - batch.x[row]) / (0.1 * torch.tensor([1.0, 2.0, 4.0]))
            losses.append(F.mse_loss(objective.noise(x[row]), noise.double()))
            continue
        source, target = batch.edge_index[:, row] if kind is MaskedEdges else (row, row)
        prediction = objective.columns(x[source] + x[target] if kind is MaskedEdges else x[row])
        values = (batch.edge_attr if kind is MaskedEdges else batch.x)[row]
        if schema.node_floats:
            mean, scale = (values.new_tensor(m) for m in ((1, 2, 3), (1, 2, 4)))
            values = (values - mean) / scale if kind is MaskedNodes else values
            losses.append(F.mse_loss(prediction, values.double()))
        else:
            sizes = (3,) if kind is MaskedEdges else (5, 5)
            ends = [0, *torch.tensor(sizes).cumsum(0).tolist()]
            parts = [prediction[low:high].log_softmax(0) for low, high in pairwise(ends)]
            losses.append(-sum(part[value] for part, value in zip(parts, values, strict=True)) / len(parts))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (MaskedNodes, CATEGORIES),
        (MaskedNodes, NUMBERS),
        (MaskedEdges, CATEGORIES),
        (MaskedEdges, NUMBERS),
        (Denoising, NUMBERS),
    ],
)
def test_loss_matches_loop(kind, schema):
    net, batch = network(schema, "encoding=none"), make_batch(schema)
    objective = make_objective(kind, net, schema, **({} if kind is Denoising else {"share": 0.4}))
    (total, count), *_ = run_objectives(net, batch, [objective], 7)[1]
    expected = brute_force(kind, objective, net, schema, batch, 7)
    torch.testing.assert_close(total / count, expected, rtol=1e-5, atol=1e-7)
    parameters = list(objective.parameters())
    gradients = [torch.autograd.grad(value, parameters, allow_unused=True) for value in (total / count, expected)]
    for actual, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-5, atol=1e-7)


def test_noise_is_added_to_named_columns_only():
    net, batch = network(NUMBERS, "encoding=none"), make_batch(NUMBERS)
    objective = make_objective(Denoising, net, NUMBERS, columns=[2, 0], deviation=0.5)
    added = torch.stack([objective.disturb(batch, draw)[0].x - batch.x for draw in range(200)])
    assert not added[..., 1].any()
    assert added[..., 0].std() == pytest.approx(0.5, rel=0.05)
    assert added[..., 2].std() == pytest.approx(2.0, rel=0.05)


def test_objectives_share_one_forward_pass():
    net, batch = network(CATEGORIES, "encoding=none"), make_batch(CATEGORIES)
    objectives = [make_objective(kind, net, CATEGORIES, share=0.4) for kind in (MaskedNodes, MaskedEdges)]
    passes = []
    hook = net.register_forward_hook(lambda *_: passes.append(1))
    together = run_objectives(net, batch, objectives, 7)[1]
    hook.remove()
    assert len(passes) == 1
    alone = [run_objectives(net, batch, [objective], 7)[1][0] for objective in objectives]
    for (total, count), (own, own_count) in zip(together, alone, strict=True):
        assert count == own_count
        assert total != own  # with both masked, neither helps to predict the other


def test_edge_masking_leaves_encoding_tables_unchanged():
    net, batch = network(CATEGORIES, "encoding=[colours]"), make_batch(CATEGORIES)
    objective, colours = make_objective(MaskedEdges, net, CATEGORIES), net.encodings[0].nodes(batch)
    masked, question = objective.disturb(batch, 3)
    assert question.asked.any()
    assert torch.equal(net.encodings[0].nodes(masked), colours)
    run_objectives(net, batch, [objective], 3)


@pytest.mark.parametrize(
    ("kind", "schema", "overrides", "message"),
    [
        (Denoising, CATEGORIES, [], "mask_nodes"),
        (MaskedEdges, Schema(node_vocab=(5, 5), outputs=3), [], "no edge features"),
        (MaskedEdges, CATEGORIES, ["model=plain_gcn"], "no layer"),
        (MaskedEdges, CATEGORIES, ["model=graphormer"], "edge_path_bias"),
    ],
)
def test_unsuitable_objective_is_rejected(kind, schema, overrides, message):
    net = network(schema, *(overrides or ["encoding=none"]))
    with pytest.raises(UserError, match=message):
        kind().build(net, schema)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"weight": 0.0}])
def test_invalid_numbers_are_rejected(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MaskedNodes(**options)
