"""Hugging Face's GPT-2, Llama, Mistral, Qwen3 and BERT as graph transformers on causal and complete graphs.

The weights of a ``transformers`` model go into a `GraphTransformer` that gives the same logits, whichever way attention
is computed: by dense matrices, or by messages along the pairs that the mask lists. That package is not needed here:
what is read are the configuration and the parameters of the model that is passed in.
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
    """BERT's read-out of a token: a linear map, activation and norm, then the scores of every token."""

    def __init__(self, width: int, schema: Schema, activation: type[nn.Module] | Any, eps: float) -> None:
        super().__init__()
        self.transform = nn.Sequential(Linear(width, width), activation(), nn.LayerNorm(width, eps=eps))
        self.decoder = Linear(width, schema.outputs)

    def forward(self, x: Tensor, batch: GraphBatch) -> Tensor:
        """(N, width) to (N, tokens)."""
        return self.decoder(self.transform(x))


def activation_of(name: str) -> Any:
    """The activation of a Hugging Face configuration."""
    if name not in ACTIVATIONS:
        raise UserError(f"no activation is called '{name}' here; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_kind(model: Any, *kinds: str) -> None:
    """Whether a model is of one of these kinds, reads by itself alone and predicts tokens.

    Raises:
        UserError: it is not; others have parameters of the same names that mean something else.
    """
    config = model.config
    if config.model_type not in kinds:
        raise UserError(f"this is a model of the kind '{config.model_type}': {' or '.join(kinds)} can be taken over")
    if getattr(config, "add_cross_attention", False):
        raise UserError(
            f"a {config.model_type} that reads another model's states (add_cross_attention) is not supported"
        )
    if model.get_output_embeddings() is None:
        loader = "AutoModelForMaskedLM" if config.model_type == "bert" else "AutoModelForCausalLM"
        raise UserError(f"this {type(model).__name__} scores no tokens: load it by transformers.{loader}")


def block_of(heads: int, inner: int, activation: Any, eps: float, prenorm: bool, backend: str) -> Any:
    """A Transformer's block as a factory."""
    return partial(
        ParallelBlock,
        attention=partial(Attention, heads=heads, backend=backend),
        feed_forward=lambda width: FeedForward(width, inner / width, activation=activation),
        norm=partial(nn.LayerNorm, eps=eps),
        prenorm=prenorm,
    )


def filled(net: GraphTransformer, weights: Mapping[str, Tensor]) -> GraphTransformer:
    """The network with these parameters, each of which it must have, and no other; in eval mode."""
    own = dict(net.named_parameters())
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unknown:
        raise UserError(f"these weights do not fit: missing {missing[:3]}, unknown {unknown[:3]}")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return net.eval()


def from_gpt2(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers.GPT2LMHeadModel`` as attention on the causal complete graph of a path (Radford et al. 2019).

    Args:
        model: the model; batches for what is returned hold one token number a node, ``x`` (N, 1).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network whose predictions (N, tokens) are the model's logits.

    Raises:
        UserError: a configuration that changes the architecture.
    """
    c = model.config
    check_kind(model, "gpt2")
    if c.scale_attn_by_inverse_layer_idx or c.reorder_and_upcast_attn or not c.scale_attn_weights:
        raise UserError("this GPT-2 scales its attention in a way that is not supported")
    inner = c.n_inner or 4 * c.n_embd
    schema = Schema(node_vocab=(c.vocab_size,), level="node", outputs=c.vocab_size, max_nodes=c.n_positions)
    net = GraphTransformer(
        schema,
        c.n_embd,
        c.n_layer,
        block_of(c.n_head, inner, activation_of(c.activation_function), c.layer_norm_epsilon, True, backend),
        mask=Causal(),
        encodings=[LearnedPositions(c.n_positions)],
        head=partial(Head, hidden=0, tied=c.tie_word_embeddings, bias=False),
        norm=partial(nn.LayerNorm, eps=c.layer_norm_epsilon),
    )
    given = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    weights = {"nodes.table.weight": given["wte.weight"], "encodings.0.table.weight": given["wpe.weight"]}
    if not c.tie_word_embeddings:
        weights["head.mlp.0.weight"] = given["lm_head.weight"]
    parts = {
        "attention.project_in": "attn.c_attn",
        "attention.project_out": "attn.c_proj",
        "feed_forward.expand": "mlp.c_fc",
        "feed_forward.project_out": "mlp.c_proj",
        "norm_attention": "ln_1",
        "norm_feed_forward": "ln_2",
    }
    for layer in range(c.n_layer):
        for ours, theirs in parts.items():
            weight = given[f"h.{layer}.{theirs}.weight"]  # its maps keep their weights the other way round
            weights[f"blocks.{layer}.{ours}.weight"] = weight.T if weight.dim() == 2 else weight
            weights[f"blocks.{layer}.{ours}.bias"] = given[f"h.{layer}.{theirs}.bias"]
    weights |= {"norm.weight": given["ln_f.weight"], "norm.bias": given["ln_f.bias"]}
    return filled(net, weights)


def rotary_base(config: Any) -> float:
    """What the wavelengths of rotary positions go by, of a configuration of transformers 4 or 5.

    Raises:
        UserError: positions are scaled.
    """
    rope = getattr(config, "rope_parameters", None)
    if rope is None:  # before version 5
        scaling = getattr(config, "rope_scaling", None) or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        rope = {"rope_type": kind, "rope_theta": config.rope_theta}
    if rope["rope_type"] != "default":
        raise UserError(f"rotary positions that are scaled ('{rope['rope_type']}') are not supported")
    return float(rope["rope_theta"])


def from_llama(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers`` Llama, Mistral or Qwen3 ``ForCausalLM`` as attention on the causal complete graph of a path.

    Args:
        model: the model; batches for what is returned hold one token number a node, ``x`` (N, 1).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network whose predictions (N, tokens) are the model's logits.

    Raises:
        UserError: a configuration that changes the architecture.
    """
    c, given = model.config, dict(model.state_dict())
    check_kind(model, "llama", "mistral", "qwen3")
    base = rotary_base(c)
    if c.head_dim * c.num_attention_heads != c.hidden_size:
        raise UserError(f"heads of {c.head_dim} channels that do not add up to {c.hidden_size} are not supported")
    windowed = getattr(c, "use_sliding_window", True) and getattr(c, "sliding_window", None)
    if windowed or any(name.endswith("_proj.bias") for name in given):
        raise UserError(f"a sliding window, or maps with a bias, are not supported in a {c.model_type}")
    norm = partial(RMSNorm, eps=c.rms_norm_eps)
    qk_norm = "model.layers.0.self_attn.q_norm.weight" in given
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
    weights = {"nodes.table.weight": given["model.embed_tokens.weight"], "norm.weight": given["model.norm.weight"]}
    if not c.tie_word_embeddings:
        weights["head.mlp.0.weight"] = given["lm_head.weight"]
    parts = {
        "attention.project_out": "self_attn.o_proj",
        "feed_forward.project_out": "mlp.down_proj",
        "norm_attention": "input_layernorm",
        "norm_feed_forward": "post_attention_layernorm",
    }
    halves = torch.arange(c.head_dim).view(2, -1).T.flatten()  # theirs turn channel i with i + D / 2, ours with i + 1
    for layer in range(c.num_hidden_layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        q, k, v = (given[f"{theirs}.self_attn.{part}_proj.weight"] for part in "qkv")
        q, k = (rows.unflatten(0, (-1, c.head_dim))[:, halves].flatten(0, 1) for rows in (q, k))
        weights[f"{ours}.attention.project_in.weight"] = torch.cat([q, k, v])
        both = [given[f"{theirs}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        weights[f"{ours}.feed_forward.expand.weight"] = torch.cat(both)
        for part in "qk" if qk_norm else "":
            weights[f"{ours}.attention.norm_{part}.weight"] = given[f"{theirs}.self_attn.{part}_norm.weight"][halves]
        for own, other in parts.items():
            weights[f"{ours}.{own}.weight"] = given[f"{theirs}.{other}.weight"]
    return filled(net, weights)


def from_bert(model: Any, backend: str = "auto") -> GraphTransformer:
    """A ``transformers.BertForMaskedLM`` as attention on the complete graph (Devlin et al. 2019).

    Args:
        model: the model; batches for what is returned hold a token number and a segment number, ``x`` (N, 2).
        backend: how attention is computed, see `gt.attention.attend`.

    Returns:
        A network whose predictions (N, tokens) are the model's logits.

    Raises:
        UserError: a configuration that changes the architecture.
    """
    c = model.config
    check_kind(model, "bert")
    if c.is_decoder:
        raise UserError("a BERT that reads backwards alone (is_decoder) is not supported")
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
        block_of(c.num_attention_heads, c.intermediate_size, activation, c.layer_norm_eps, False, backend),
        mask=Complete(),
        encodings=[LearnedPositions(c.max_position_embeddings)],
        head=partial(MaskedTokenHead, activation=activation, eps=c.layer_norm_eps),
        embedding_norm=norm,
    )
    given = dict(model.state_dict())
    embeddings = "bert.embeddings"
    words, segments = (given[f"{embeddings}.{name}_embeddings.weight"] for name in ("word", "token_type"))
    weights = {
        "nodes.table.weight": torch.cat([words, segments]),
        "encodings.0.table.weight": given[f"{embeddings}.position_embeddings.weight"],
        "head.decoder.weight": given["cls.predictions.decoder.weight"],
        "head.decoder.bias": given["cls.predictions.decoder.bias"],
    }
    parts = {
        "attention.project_out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "feed_forward.expand": "intermediate.dense",
        "feed_forward.project_out": "output.dense",
        "norm_feed_forward": "output.LayerNorm",
    }
    for kind in ("weight", "bias"):
        weights[f"embedding_norm.{kind}"] = given[f"{embeddings}.LayerNorm.{kind}"]
        weights[f"head.transform.0.{kind}"] = given[f"cls.predictions.transform.dense.{kind}"]
        weights[f"head.transform.2.{kind}"] = given[f"cls.predictions.transform.LayerNorm.{kind}"]
        for layer in range(c.num_hidden_layers):
            theirs, ours = f"bert.encoder.layer.{layer}", f"blocks.{layer}"
            three = [given[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            weights[f"{ours}.attention.project_in.{kind}"] = torch.cat(three)
            for own, other in parts.items():
                weights[f"{ours}.{own}.{kind}"] = given[f"{theirs}.{other}.{kind}"]
    return filled(net, weights)
