"""Hugging Face's GPT-2, Llama, Mistral, Qwen3 and BERT as graph transformers on causal and complete graphs.

Copies the weights of a ``transformers`` model into a `GraphTransformer` with the same logits, whether attention is
computed with dense matrices or by message passing along the pairs of the mask. The ``transformers`` package itself is
not imported: only the configuration and parameters of the given model are read.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gt.encodings import LearnedPositions, Rotary
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.heads import Head
from gt.layers import Attention, FeedForward, ParallelBlock
from gt.linear import Linear
from gt.masks import Causal, Complete
from gt.model import GraphTransformer
from gt.norms import RMSNorm
from gt.schema import Schema

ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class MaskedTokenHead(nn.Module):
    """BERT's masked-language-model head: a linear map, activation and norm, then the logits of all tokens."""

    def __init__(self, width: int, schema: Schema, activation: type[nn.Module] | Any, eps: float) -> None:
        super().__init__()
        self.transform = nn.Sequential(Linear(width, width), activation(), nn.LayerNorm(width, eps=eps))
        self.decoder = Linear(width, schema.outputs)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """(N, width) to (N, tokens)."""
        return self.decoder(self.transform(x))


def activation_of(name: str) -> Any:
    """The activation with this name in Hugging Face configurations."""
    if name not in ACTIVATIONS:
        raise UserError(f"the activation '{name}' is not supported; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_kind(model: Any, *kinds: str) -> None:
    """Check that a model has one of these types, no cross-attention, and a language-model head.

    Raises:
        UserError: it does not; other types use the same parameter names with a different meaning.
    """
    config = model.config
    if config.model_type not in kinds:
        raise UserError(f"the model type '{config.model_type}' is not supported: expected {' or '.join(kinds)}")
    if getattr(config, "add_cross_attention", False):
        raise UserError(f"a {config.model_type} with cross-attention (add_cross_attention) is not supported")
    if model.get_output_embeddings() is None:
        loader = "AutoModelForMaskedLM" if config.model_type == "bert" else "AutoModelForCausalLM"
        raise UserError(f"this {type(model).__name__} has no language-model head: load it with transformers.{loader}")


def transformer_block(heads: int, inner: int, activation: Any, eps: float, prenorm: bool, backend: str) -> Any:
    """Factory of a Transformer block."""
    return partial(
        ParallelBlock,
        attention=partial(Attention, heads=heads, backend=backend),
        feed_forward=lambda width: FeedForward(width, inner / width, activation=activation),
        norm=partial(nn.LayerNorm, eps=eps),
        prenorm=prenorm,
    )


def load_weights(net: GraphTransformer, weights: Mapping[str, Tensor]) -> GraphTransformer:
    """Load parameters into a network, which must have exactly these names; returns it in eval mode."""
    parameters = dict(net.named_parameters())
    missing, unknown = sorted(parameters.keys() - weights.keys()), sorted(weights.keys() - parameters.keys())
    if missing or unknown:
        raise UserError(f"the weights do not fit: missing {missing[:3]}, unknown {unknown[:3]}")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    return net.eval()


def from_gpt2(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers.GPT2LMHeadModel`` as attention on the causal complete graph of a path (Radford et al. 2019).

    Args:
        model: the model. Batches for the returned network hold one token ID per node, ``x`` (N, 1).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network that predicts the model's logits (N, tokens).

    Raises:
        UserError: an option that changes the architecture is not supported.
    """
    c = model.config
    check_kind(model, "gpt2")
    if c.scale_attn_by_inverse_layer_idx or c.reorder_and_upcast_attn or not c.scale_attn_weights:
        raise UserError("the attention scaling of this GPT-2 is not supported")
    inner = c.n_inner or 4 * c.n_embd
    schema = Schema(node_vocab=(c.vocab_size,), level="node", outputs=c.vocab_size, max_nodes=c.n_positions)
    net = GraphTransformer(
        schema,
        c.n_embd,
        c.n_layer,
        transformer_block(c.n_head, inner, activation_of(c.activation_function), c.layer_norm_epsilon, True, backend),
        mask=Causal(),
        encodings=[LearnedPositions(c.n_positions)],
        head=partial(Head, hidden=0, tied=c.tie_word_embeddings, bias=False),
        norm=partial(nn.LayerNorm, eps=c.layer_norm_epsilon),
    )
    state = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    weights = {"nodes.table.weight": state["wte.weight"], "encodings.0.table.weight": state["wpe.weight"]}
    if not c.tie_word_embeddings:
        weights["head.mlp.0.weight"] = state["lm_head.weight"]
    renamed = {
        "attention.project_in": "attn.c_attn",
        "attention.project_out": "attn.c_proj",
        "feed_forward.expand": "mlp.c_fc",
        "feed_forward.project_out": "mlp.c_proj",
        "norm_attention": "ln_1",
        "norm_feed_forward": "ln_2",
    }
    for layer in range(c.n_layer):
        for ours, theirs in renamed.items():
            weight = state[f"h.{layer}.{theirs}.weight"]  # Conv1D stores weights transposed
            weights[f"blocks.{layer}.{ours}.weight"] = weight.T if weight.dim() == 2 else weight
            weights[f"blocks.{layer}.{ours}.bias"] = state[f"h.{layer}.{theirs}.bias"]
    weights |= {"norm.weight": state["ln_f.weight"], "norm.bias": state["ln_f.bias"]}
    return load_weights(net, weights)


def rotary_base(config: Any) -> float:
    """The base of the rotary wavelengths, from a configuration of transformers 4 or 5.

    Raises:
        UserError: positions are scaled.
    """
    rope = getattr(config, "rope_parameters", None)
    if rope is None:  # before version 5
        scaling = getattr(config, "rope_scaling", None) or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        rope = {"rope_type": kind, "rope_theta": config.rope_theta}
    if rope["rope_type"] != "default":
        raise UserError(f"scaled rotary positions ('{rope['rope_type']}') are not supported")
    return float(rope["rope_theta"])


def from_llama(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers`` Llama, Mistral or Qwen3 ``ForCausalLM`` as attention on the causal complete graph of a path.

    Args:
        model: the model. Batches for the returned network hold one token ID per node, ``x`` (N, 1).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network that predicts the model's logits (N, tokens).

    Raises:
        UserError: an option that changes the architecture is not supported.
    """
    c, state = model.config, dict(model.state_dict())
    check_kind(model, "llama", "mistral", "qwen3")
    base = rotary_base(c)
    if c.head_dim * c.num_attention_heads != c.hidden_size:
        raise UserError(f"heads of {c.head_dim} channels that do not add up to {c.hidden_size} are not supported")
    windowed = getattr(c, "use_sliding_window", True) and getattr(c, "sliding_window", None)
    if windowed or any(name.endswith("_proj.bias") for name in state):
        raise UserError(f"a {c.model_type} with a sliding window or with biases is not supported")
    norm = partial(RMSNorm, eps=c.rms_norm_eps)
    qk_norm = "model.layers.0.self_attn.q_norm.weight" in state
    net = GraphTransformer(
        Schema(node_vocab=(c.vocab_size,), level="node", outputs=c.vocab_size, max_nodes=c.max_position_embeddings),
        c.hidden_size,
        c.num_hidden_layers,
        partial(
            ParallelBlock,
            attention=partial(
                Attention,
                heads=c.num_attention_heads,
                kv_heads=c.num_key_value_heads,
                bias=False,
                backend=backend,
                qk_norm=norm if qk_norm else None,
            ),
            feed_forward=lambda width: FeedForward(
                width, c.intermediate_size / width, activation=activation_of(c.hidden_act), bias=False, gated=True
            ),
            norm=norm,
            prenorm=True,
        ),
        mask=Causal(),
        encodings=[Rotary(base)],
        head=partial(Head, hidden=0, tied=c.tie_word_embeddings, bias=False),
        norm=norm,
    )
    weights = {"nodes.table.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    if not c.tie_word_embeddings:
        weights["head.mlp.0.weight"] = state["lm_head.weight"]
    renamed = {
        "attention.project_out": "self_attn.o_proj",
        "feed_forward.project_out": "mlp.down_proj",
        "norm_attention": "input_layernorm",
        "norm_feed_forward": "post_attention_layernorm",
    }
    halves = (
        torch.arange(c.head_dim).view(2, -1).T.flatten()
    )  # theirs rotate channels i and i + D / 2, ours i and i + 1
    for layer in range(c.num_hidden_layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        q, k, v = (state[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv")
        q, k = (rows.unflatten(0, (-1, c.head_dim))[:, halves].flatten(0, 1) for rows in (q, k))
        weights[f"{ours}.attention.project_in.weight"] = torch.cat([q, k, v])
        gate_up = [state[f"{theirs}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        weights[f"{ours}.feed_forward.expand.weight"] = torch.cat(gate_up)
        for part in "qk" if qk_norm else "":
            weights[f"{ours}.attention.norm_{part}.weight"] = state[f"{theirs}.self_attn.{part}_norm.weight"][halves]
        for ours_part, theirs_part in renamed.items():
            weights[f"{ours}.{ours_part}.weight"] = state[f"{theirs}.{theirs_part}.weight"]
    return load_weights(net, weights)


def from_bert(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers.BertForMaskedLM`` as attention on the complete graph (Devlin et al. 2019).

    Args:
        model: the model. Batches for the returned network hold token and segment IDs, ``x`` (N, 2).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network that predicts the model's logits (N, tokens).

    Raises:
        UserError: an option that changes the architecture is not supported.
    """
    c = model.config
    check_kind(model, "bert")
    if c.is_decoder:
        raise UserError("a BERT decoder (is_decoder) is not supported")
    activation, norm = activation_of(c.hidden_act), partial(nn.LayerNorm, eps=c.layer_norm_eps)
    schema = Schema(
        node_vocab=(c.vocab_size, c.type_vocab_size),
        level="node",
        outputs=c.vocab_size,
        max_nodes=c.max_position_embeddings,
    )
    net = GraphTransformer(
        schema,
        c.hidden_size,
        c.num_hidden_layers,
        transformer_block(c.num_attention_heads, c.intermediate_size, activation, c.layer_norm_eps, False, backend),
        mask=Complete(),
        encodings=[LearnedPositions(c.max_position_embeddings)],
        head=partial(MaskedTokenHead, activation=activation, eps=c.layer_norm_eps),
        embedding_norm=norm,
    )
    state = dict(model.state_dict())
    embeddings = "bert.embeddings"
    tokens, segments = (state[f"{embeddings}.{name}_embeddings.weight"] for name in ("word", "token_type"))
    weights = {
        "nodes.table.weight": torch.cat([tokens, segments]),
        "encodings.0.table.weight": state[f"{embeddings}.position_embeddings.weight"],
        "head.decoder.weight": state["cls.predictions.decoder.weight"],
        "head.decoder.bias": state["cls.predictions.decoder.bias"],
    }
    renamed = {
        "attention.project_out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "feed_forward.expand": "intermediate.dense",
        "feed_forward.project_out": "output.dense",
        "norm_feed_forward": "output.LayerNorm",
    }
    for kind in ("weight", "bias"):
        weights[f"embedding_norm.{kind}"] = state[f"{embeddings}.LayerNorm.{kind}"]
        weights[f"head.transform.0.{kind}"] = state[f"cls.predictions.transform.dense.{kind}"]
        weights[f"head.transform.2.{kind}"] = state[f"cls.predictions.transform.LayerNorm.{kind}"]
        for layer in range(c.num_hidden_layers):
            theirs, ours = f"bert.encoder.layer.{layer}", f"blocks.{layer}"
            qkv = [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            weights[f"{ours}.attention.project_in.{kind}"] = torch.cat(qkv)
            for ours_part, theirs_part in renamed.items():
                weights[f"{ours}.{ours_part}.{kind}"] = state[f"{theirs}.{theirs_part}.{kind}"]
    return load_weights(net, weights)
