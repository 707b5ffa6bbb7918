"""A Transformer is a graph neural network: GPT-2, Llama, Mistral, Qwen3 and BERT as this package's one operator."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gt import GraphBatch
from gt.errors import UserError
from gt.graph import path_graphs
from gt.huggingface import from_bert, from_gpt2, from_llama, rotary_base
from gt.masks import Causal, Complete

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


def test_gpt2_on_a_pyg_graph(gpt2):
    from torch_geometric.data import Data

    tokens = torch.randint(61, (5, 1))
    line = torch.stack([torch.arange(4), torch.arange(1, 5)])
    batch = GraphBatch.from_data_list([Data(x=tokens, edge_index=line)])
    with torch.no_grad():
        torch.testing.assert_close(from_gpt2(gpt2)(batch), gpt2(tokens.T).logits[0], rtol=1e-4, atol=1e-4)
