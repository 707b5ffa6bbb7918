"""``python -m gt.generate CHECKPOINT``: continue a text with a trained language model.

Needs nothing but the checkpoint. If the text outgrows the model's context, the older half of the context is dropped
whenever it is full.
"""

import argparse
import sys
import time
from pathlib import Path

from gt.cli.program import add_device, add_trust, device_of, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.generate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--prompt", default="\n", help="the text to continue (default: a newline)")
    parser.add_argument("--tokens", type=int, default=500, help="number of tokens to generate")
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="sampling temperature; 0 always takes the likeliest token"
    )
    parser.add_argument("--top-k", type=int, help="sample from this many of the likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, help="sample from the likeliest tokens that reach this total probability"
    )
    parser.add_argument("--samples", type=int, default=1, help="number of continuations")
    parser.add_argument("--seed", type=int, default=0)
    add_trust(parser)
    add_device(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    import_from_here()
    if args.tokens < 1 or args.samples < 1:
        raise UserError("--tokens and --samples must be 1 or more")
    if not -(1 << 63) <= args.seed < 1 << 64:  # the range that PyTorch accepts
        raise UserError(f"--seed {args.seed} has more than 64 bits: choose a smaller number")
    with importing():  # late, so that --help and typos are answered at once
        from gt.train.checkpoint import load
    device = device_of(args.device)
    task = load(args.checkpoint, args.trust)
    with importing():
        import torch

        from gt.data.text.tokenizer import loads
        from gt.inference.decode import obstacle, reader
        from gt.inference.sampling import generate
        from gt.model import GraphTransformer
        from gt.prediction.models import check_answers
    schema, net = task.schema, task.net
    if not schema.is_language_model or not isinstance(net, GraphTransformer):
        raise UserError(
            f"{args.checkpoint} holds no language model: train one with python train.py data=text data.path=FILE"
        )
    check_answers([task])
    tokenizer = loads(schema.tokenizer)
    try:
        args.prompt.encode()
    except UnicodeEncodeError:
        raise UserError("--prompt is not valid UTF-8") from None
    prompt = tokenizer.encode([args.prompt])[0]
    if not len(prompt):
        raise UserError("there is nothing to continue: give --prompt TEXT")
    net.to(device)
    read = reader(net, schema.max_nodes)
    if reason := obstacle(net):
        print(f"generation is slow, as every token reads the whole text again: {reason}", file=sys.stderr)
    start = torch.tensor(prompt.astype(int), device=device).repeat(args.samples, 1)
    started = time.perf_counter()
    try:
        samples = generate(
            read, start, args.tokens, schema.max_nodes, args.temperature, args.top_k, args.top_p, args.seed
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    seconds = time.perf_counter() - started
    for index, sample in enumerate(samples.tolist()):
        if index:
            print("---")
        print(tokenizer.decode(sample))
    count = args.tokens * args.samples
    print(f"{count} {tokenizer.unit} in {seconds:.1f} s, {count / seconds:.0f} a second", file=sys.stderr)


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
