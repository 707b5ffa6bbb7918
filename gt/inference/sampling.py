"""Text drawn from a language model, token by token."""

import torch
from torch import Tensor

from gt.inference.decode import Reader
from gt.ranges import at_least


def probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """(S, V) logits to the probabilities that tokens are drawn by.

    Args:
        logits: (S, V).
        temperature: divides the logits; 0 leaves the likeliest token alone.
        top_k: keeps the k likeliest tokens, and those as likely as the last of them.
        top_p: of what is left keeps the fewest of the likeliest tokens that together reach this probability (nucleus
            sampling, Holtzman et al. 2020).

    Raises:
        ValueError: an option out of its range.
    """
    at_least(0, temperature, "temperature")
    if top_k is not None:
        at_least(1, top_k, "top-k")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top-p must be above 0 and at most 1, not {top_p}")
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    logits = logits.double()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # the largest stays finite, however cold
    if top_k is not None and top_k < logits.shape[-1]:
        last = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


@torch.inference_mode()
def generate(
    read: Reader,
    prompt: Tensor,
    count: int,
    context: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Continue texts; the same for the same seed on the same machine.

    Args:
        read: says what comes next.
        prompt: (S, T) tokens, one or more of each text.
        count: tokens to add.
        context: tokens that the model reads at most.
        temperature, top_k, top_p: see `probabilities`.
        seed: what the draws come from.

    Returns:
        (S, T + count) tokens.
    """
    draw = torch.Generator(prompt.device).manual_seed(seed)
    samples, length = prompt.shape
    tokens = torch.cat([prompt, prompt.new_zeros(samples, count)], dim=1)
    first = 0
    read.restart()
    for stop in range(length, length + count):
        if stop - first > context:
            first = stop - (context + 1) // 2
            read.restart()
        chances = probabilities(read(tokens[:, first:stop]), temperature, top_k, top_p)
        tokens[:, stop] = torch.multinomial(chances, 1, generator=draw)[:, 0]
    return tokens
