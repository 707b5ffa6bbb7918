"""``python -m gt.generate CHECKPOINT``: continue a text with a language model that was trained here.

The checkpoint is all it needs. Text that outgrows the model's context is read through a window, which drops its older
half whenever it is full.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from gt.data.text.tokenizer import Tokenizer, loads
from gt.errors import Parser, UserError, one_line
from gt.inference.decode import Reader, obstacle, reader
from gt.model import GraphTransformer
from gt.ranges import at_least
from gt.schema import Schema
from gt.train.checkpoint import load


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
    logits = logits / temperature
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


def language_model(path: Path, trust: bool = False) -> tuple[GraphTransformer, Schema, Tokenizer]:
    """The model of a checkpoint, in eval mode, and what reads and writes its tokens.

    Raises:
        UserError: no checkpoint, or not one of a language model.
    """
    task = load(path, trust)
    schema, net = task.schema, task.net
    if not schema.is_language_model or not isinstance(net, GraphTransformer):
        raise UserError(f"{path} holds no language model: train one with python train.py data=text data.path=FILE")
    return net, schema, loads(schema.tokenizer)


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.generate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="such as runs/.../checkpoints/best.ckpt")
    parser.add_argument("--prompt", default="\n", help="the text to continue; a line end unless given")
    parser.add_argument("--tokens", type=int, default=500, help="how many to add")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token each time")
    parser.add_argument("--top-k", type=int, help="draw among so many of the likeliest tokens")
    parser.add_argument("--top-p", type=float, help="draw among the likeliest tokens that reach this probability")
    parser.add_argument("--samples", type=int, default=1, help="continuations of the same prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trust", action="store_true", help="import parts that do not come with this program")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("this machine has no GPU: choose --device cpu")
    if args.tokens < 1 or args.samples < 1:
        raise UserError("--tokens and --samples must be 1 or more")
    net, schema, tokenizer = language_model(args.checkpoint, args.trust)
    prompt = tokenizer.encode([args.prompt])[0]
    if not len(prompt):
        raise UserError("there is nothing to continue: give --prompt TEXT")
    net.to(args.device)
    read = reader(net, schema.max_nodes)
    if why := obstacle(net):
        print(f"every token reads the whole text again, which is slow: {why}", file=sys.stderr)
    start = torch.tensor(prompt.astype(int), device=args.device).repeat(args.samples, 1)
    began = time.perf_counter()
    try:
        samples = generate(
            read, start, args.tokens, schema.max_nodes, args.temperature, args.top_k, args.top_p, args.seed
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - began
    for place, sample in enumerate(samples.tolist()):
        if place:
            print("---")
        print(tokenizer.decode(sample))
    made = args.tokens * args.samples
    print(f"{made} {tokenizer.unit} in {seconds:.1f} s, {made / seconds:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    with one_line():
        main()
