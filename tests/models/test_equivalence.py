"""A Transformer is a graph neural network: GPT-2, BERT and PyG's attention layers are this package's one operator."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GATv2Conv, GINEConv, GPSConv, TransformerConv

from gt import GraphBatch
from gt.attention import attend
from gt.attention.scores import Additive, Separable
from gt.errors import UserError
from gt.graph import path_graphs
from gt.huggingface import from_bert, from_gpt2, from_llama, rotary_base
from gt.layers import GINE, Attention, FeedForward, ParallelBlock, State
from gt.masks import Causal, Complete, Hops
from tests.attention.masks import Neighbours
from tests.graphs import random_batch

BACKENDS = ("dense", "sdpa", "sparse", "auto")
LENGTHS = [7, 1, 12]


def randomise_weights(model):
    """The model with weights large enough that every part of the architecture matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


tied_or_untied = pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])


@tied_or_untied
def gpt2(request):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 3, "n_head": 3}
    return randomise_weights(GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=request.param)))


@tied_or_untied
def bert(request):
    from transformers import BertConfig, BertForMaskedLM

    return randomise_weights(BertForMaskedLM(BertConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=16, tie_word_embeddings=request.param,
    )))  # fmt: skip


@pytest.fixture(scope="module", params=["Llama", "Llama, tied", "Qwen3", "Mistral"])
def llama(request):
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    sizes = {
        "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "head_dim": 4,
        "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": 16,
    }  # fmt: skip
    if request.param == "Qwen3":
        return randomise_weights(Qwen3ForCausalLM(Qwen3Config(**sizes)))
    if request.param == "Mistral":
        return randomise_weights(MistralForCausalLM(MistralConfig(**sizes, sliding_window=None)))
    return randomise_weights(LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings="tied" in request.param)))


def random_documents(columns):
    """Paths of several lengths with random token ids in each column."""
    batch = path_graphs(LENGTHS)
    draw = torch.Generator().manual_seed(1)
    batch.x = torch.stack([torch.randint(top, (sum(LENGTHS),), generator=draw) for top in columns], dim=1)
    return batch


@pytest.mark.parametrize("backend", BACKENDS)
def test_gpt2_is_message_passing_on_the_causal_complete_graph(gpt2, backend):
    net, batch = from_gpt2(gpt2, backend), random_documents((61,))
    assert set(net.masks) == {Causal()}
    with torch.no_grad():
        logits = net(batch)
        for part, tokens in zip(logits.split(LENGTHS), batch.x[:, 0].split(LENGTHS), strict=True):
            torch.testing.assert_close(part, gpt2(tokens[None]).logits[0], rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.1
    assert net.parameter_count() == sum(p.numel() for p in gpt2.parameters())


@pytest.mark.parametrize("backend", BACKENDS)
def test_llama_mistral_and_qwen3_logits_and_gradients(llama, backend):
    net, batch = from_llama(llama, backend), random_documents((61,))
    logits = net(batch)
    expected = torch.cat([llama(text[None, :, 0]).logits[0] for text in batch.x.split(LENGTHS)])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.1
    assert net.parameter_count() == sum(p.numel() for p in llama.parameters())
    # gradients: one of our maps stacks several of theirs, with the rotary channels of queries and keys reordered
    llama.zero_grad()
    for out in (logits, expected):
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    block, layer, order = net.blocks[1], llama.model.layers[1], torch.arange(4).view(2, 2).T.flatten()
    q, k, v = (getattr(layer.self_attn, f"{part}_proj").weight.grad for part in "qkv")
    q, k = (rows.unflatten(0, (-1, 4))[:, order].flatten(0, 1) for rows in (q, k))
    for ours, expected_grad in (
        (block.attention.project_in, torch.cat([q, k, v])),
        (block.feed_forward.expand, torch.cat([layer.mlp.gate_proj.weight.grad, layer.mlp.up_proj.weight.grad])),
        (block.norm_attention, layer.input_layernorm.weight.grad),
        (net.nodes.table, llama.model.embed_tokens.weight.grad),
    ):
        torch.testing.assert_close(ours.weight.grad, expected_grad, rtol=1e-3, atol=1e-3)
    if hasattr(layer.self_attn, "q_norm"):
        expected_grad = layer.self_attn.q_norm.weight.grad[order]
        torch.testing.assert_close(block.attention.norm_q.weight.grad, expected_grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bert_is_message_passing_on_the_complete_graph(bert, backend):
    net, batch = from_bert(bert, backend), random_documents((61, 2))
    assert set(net.masks) == {Complete()}
    with torch.no_grad():
        logits = net(batch)
        for part, x in zip(logits.split(LENGTHS), batch.x.split(LENGTHS), strict=True):
            expected = bert(input_ids=x[None, :, 0], token_type_ids=x[None, :, 1]).logits[0]
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_full_size_models(backend):
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    for model, build, columns in (
        (GPT2LMHeadModel(GPT2Config()).eval(), from_gpt2, (50257,)),
        (BertForMaskedLM(BertConfig()).eval(), from_bert, (30522, 2)),
    ):
        batch = path_graphs([100])
        batch.x = torch.stack([torch.randint(top, (100,)) for top in columns], dim=1)
        with torch.no_grad():
            expected = model(**dict(zip(("input_ids", "token_type_ids"), batch.x.T[:, None], strict=False))).logits[0]
            torch.testing.assert_close(build(model, backend)(batch), expected, rtol=1e-4, atol=1e-4)


def test_unsupported_gpt2_options_are_rejected(gpt2):
    import copy

    changed = copy.deepcopy(gpt2)
    changed.config.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(UserError, match="attention scaling of this GPT-2"):
        from_gpt2(changed)
    changed = copy.deepcopy(gpt2)
    changed.config.activation_function = "swish"
    with pytest.raises(UserError, match="the activation 'swish' is not supported; there are gelu"):
        from_gpt2(changed)


def test_unsupported_llama_options_are_rejected(llama):
    import copy

    for changes in (
        {"head_dim": 8},
        {"rope_parameters": {"rope_type": "llama3"}},
        {"sliding_window": 3, "use_sliding_window": True},
    ):
        changed = copy.copy(llama)
        changed.config = copy.copy(llama.config)
        vars(changed.config).update(changes)
        with pytest.raises(UserError, match="not supported"):
            from_llama(changed)


def test_rotary_base_of_old_and_new_configurations():
    plain = {"rope_type": "default", "rope_theta": 5e5}
    assert rotary_base(SimpleNamespace(rope_parameters=plain)) == 5e5
    assert rotary_base(SimpleNamespace(rope_scaling=None, rope_theta=1e4)) == 1e4
    for scaling in ({"type": "linear", "factor": 2.0}, {"rope_type": "llama3"}):
        with pytest.raises(UserError, match="scaled"):
            rotary_base(SimpleNamespace(rope_scaling=scaling, rope_theta=1e4))


@pytest.mark.parametrize(
    ("convert", "config", "word"),
    [
        (from_gpt2, {"model_type": "gpt_neo"}, "gpt_neo"),
        (from_gpt2, {"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention"),
        (from_llama, {"model_type": "gemma"}, "gemma"),
        (from_llama, {"model_type": "granite"}, "granite"),
        (from_bert, {"model_type": "roberta"}, "roberta"),
        (from_bert, {"model_type": "bert", "is_decoder": True}, "is_decoder"),
    ],
)
def test_unsupported_model_types_are_rejected(convert, config, word):
    with pytest.raises(UserError, match=word):
        convert(SimpleNamespace(config=SimpleNamespace(**config), state_dict=dict, get_output_embeddings=dict))


def test_model_without_language_head_is_rejected(gpt2, llama, bert):
    for convert, model, loader in (
        (from_gpt2, gpt2, "Causal"),
        (from_llama, llama, "Causal"),
        (from_bert, bert, "Masked"),
    ):
        with pytest.raises(
            UserError, match=f"Model has no language-model head: load it with transformers.AutoModelFor{loader}LM"
        ):
            convert(model.base_model)


# ---- PyG's layers, values and gradients, on graphs where some nodes have no incoming edges

HEADS, CHANNELS, WIDTH = 3, 4, 12


def assert_same(ours, expected, leaves):
    """Equal tensors, and equal gradients of one random sum of them."""
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    our_grads, expected_grads = (torch.autograd.grad((out * weights).sum(), leaves) for out in (ours, expected))
    for a, b in zip(our_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def graph():
    torch.manual_seed(0)
    batch = random_batch((1, 6, 4), density=0.3)
    x = torch.randn(batch.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    e = torch.randn(batch.num_edges, WIDTH, dtype=torch.float64, requires_grad=True)
    pairs = Neighbours()(batch)
    assert torch.equal(pairs.edges, batch.edge_index)
    return batch, pairs, x, e


def split_heads(linear, x):
    return linear(x).view(-1, HEADS, CHANNELS)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_gat(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = GATConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None, add_self_loops=False).double()
    score = Separable(HEADS, CHANNELS).double()
    score.of_source, score.of_target = (nn.Parameter(p[0]) for p in (reference.att_src.data, reference.att_dst.data))
    pair = None
    if with_edges:
        score.of_pair = nn.Parameter(reference.att_edge.data[0])
        pair = split_heads(reference.lin_edge, e)
    h = split_heads(reference.lin, x)
    ours = attend(h, h, h, pairs, backend=backend, score=score, pair=pair).flatten(1) + reference.bias
    leaves = [x, reference.lin.weight, *([e] if with_edges else [])]
    assert_same(ours, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_gatv2(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = GATv2Conv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None, add_self_loops=False).double()
    score = Additive(HEADS, CHANNELS).double()
    score.vector = nn.Parameter(reference.att.data[0])
    pair = split_heads(reference.lin_edge, e) if with_edges else None
    sent = split_heads(reference.lin_l, x)
    ours = attend(split_heads(reference.lin_r, x), sent, sent, pairs, backend=backend, score=score, pair=pair)
    leaves = [x, reference.lin_l.weight, reference.lin_r.weight, *([e] if with_edges else [])]
    assert_same(ours.flatten(1) + reference.bias, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse", "auto"])
@pytest.mark.parametrize("with_edges", [False, True])
def test_transformer_conv(graph, backend, with_edges):
    batch, pairs, x, e = graph
    reference = TransformerConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH if with_edges else None).double()
    pair = split_heads(reference.lin_edge, e) if with_edges else None
    q, k, v = (split_heads(linear, x) for linear in (reference.lin_query, reference.lin_key, reference.lin_value))
    ours = attend(q, k, v, pairs, backend=backend, pair=pair, pair_value=pair).flatten(1) + reference.lin_skip(x)
    leaves = [x, reference.lin_query.weight, reference.lin_value.weight, *([e] if with_edges else [])]
    assert_same(ours, reference(x, batch.edge_index, e if with_edges else None), leaves)


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_attention_layer_with_edges_matches_transformer_conv(graph, backend):
    batch, _, x, e = graph
    pairs = Hops(1)(batch)
    layer = Attention(WIDTH, HEADS, backend=backend, edges=True, edge_values=True).double()
    reference = TransformerConv(WIDTH, CHANNELS, HEADS, edge_dim=WIDTH, root_weight=False).double()
    for linear, weight, bias in zip(
        (reference.lin_query, reference.lin_key, reference.lin_value),
        layer.project_in.weight.chunk(3),
        layer.project_in.bias.chunk(3),
        strict=True,
    ):
        linear.weight, linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    reference.lin_edge.weight = nn.Parameter(layer.pairs.project.weight.detach())
    loop = pairs.edges[0] == pairs.edges[1]  # a node and itself have no edge: that feature is learned
    features = torch.empty(pairs.count, WIDTH, dtype=torch.float64)
    features[loop], features[~loop] = layer.pairs.no_edge.detach(), e.detach()
    expected = layer.project_out(reference(x, pairs.edges, features))
    torch.testing.assert_close(layer(State(x, e), pairs.batch, pairs)["x"], expected)


@pytest.mark.parametrize("training", [False, True])
def test_gps_conv(training):
    torch.manual_seed(0)
    batch = random_batch((1, 6, 4), density=0.3)
    x = torch.randn(batch.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    e = torch.randn(batch.num_edges, WIDTH, dtype=torch.float64, requires_grad=True)
    mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    reference = GPSConv(WIDTH, GINEConv(mlp, train_eps=False), HEADS, norm="batch_norm").double()
    ours = ParallelBlock(
        WIDTH, GINE, partial(Attention, heads=HEADS), partial(FeedForward, ratio=2), nn.BatchNorm1d
    ).double()
    names = {
        "local.mlp": "conv.nn",
        "attention.project_in.weight": "attn.in_proj_weight",
        "attention.project_in.bias": "attn.in_proj_bias",
        "attention.project_out": "attn.out_proj",
        "norm_local": "norm1.module",
        "norm_attention": "norm2.module",
        "norm_feed_forward": "norm3.module",
        "feed_forward.expand": "mlp.0",
        "feed_forward.project_out": "mlp.3",
    }
    given, state = reference.state_dict(), ours.state_dict()
    for name in state:
        prefix = next((p for p in names if name.startswith(p)), None)
        if prefix is not None:
            state[name] = given[names[prefix] + name.removeprefix(prefix)]
    ours.load_state_dict(state)
    ours.train(training), reference.train(training)
    out = ours(State(x, e), batch, Complete()(batch)).x
    assert_same(out, reference(x, batch.edge_index, batch.batch, edge_attr=e), [x, e])


def test_gpt2_on_a_pyg_graph(gpt2):
    from torch_geometric.data import Data

    tokens = torch.randint(61, (5, 1))
    line = torch.stack([torch.arange(4), torch.arange(1, 5)])
    batch = GraphBatch.from_data_list([Data(x=tokens, edge_index=line)])
    with torch.no_grad():
        torch.testing.assert_close(from_gpt2(gpt2)(batch), gpt2(tokens.T).logits[0], rtol=1e-4, atol=1e-4)
