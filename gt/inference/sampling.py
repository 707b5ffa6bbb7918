"""Sampling text from a language model, token by token."""

import torch
from torch import Tensor

from gt.inference.decode import Reader
from gt.ranges import at_least


def probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """(S, V) logits to sampling probabilities.

    Args:
        logits: (S, V).
        temperature: divides the logits; 0 is greedy decoding.
        top_k: keeps the k most likely tokens and those tied with the last of them.
        top_p: of these keeps the smallest set of most likely tokens whose total probability reaches this (nucleus
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
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # the largest stays finite at any temperature
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
        read: computes next-token logits.
        prompt: (S, T) tokens, at least one of each text.
        count: number of tokens to add.
        context: maximum number of tokens that the model reads.
        temperature, top_k, top_p: see `probabilities`.
        seed: of the random numbers.

    Returns:
        (S, T + count) tokens.
    """
    generator = torch.Generator(prompt.device).manual_seed(seed)
    samples, length = prompt.shape
    tokens = torch.cat([prompt, prompt.new_zeros(samples, count)], dim=1)
    first = 0
    read.restart()
    for stop in range(length, length + count):
        if stop - first > context:
            first = stop - (context + 1) // 2
            read.restart()
        weights = probabilities(read(tokens[:, first:stop]), temperature, top_k, top_p)
        tokens[:, stop] = torch.multinomial(weights, 1, generator=generator)[:, 0]
    return tokens
