"""Whether the blocks, masks and encodings of a network go together."""

from collections.abc import Iterable, Sequence
from itertools import product

from torch import nn

from gt.encodings import Encoding
from gt.layers.traits import name_of, parts_of, reads_of, uses_mask, writes_of
from gt.masks import Mask, Schedule


def turns(mask: Mask | Schedule) -> Sequence[Mask]:
    """The masks that take turns during training."""
    return mask.masks if isinstance(mask, Schedule) else (mask,)


def check_masks(blocks: Iterable[nn.Module], scheduled: Sequence[Mask | Schedule]) -> None:
    """Whether each block can run under its mask.

    Raises:
        ValueError: attention has another number of heads; masks differ where a layer keeps a state of each pair.
    """
    under = list(zip(blocks, scheduled, strict=True))
    keepers = [name_of(part) for block, _ in under for part in parts_of(block) if "p" in writes_of(part)]
    if keepers and len({mask for block, mask in under if uses_mask(block)}) > 1:
        raise ValueError(f"{keepers[0]} keeps a state of each pair, which masks that differ by layer do not share")
    for place, (block, of_block) in enumerate(under):
        for mask, part in product(turns(of_block), parts_of(block)):
            heads = getattr(part, "heads", mask.heads) if reads_of(part) == "pairs" else mask.heads
            if mask.heads not in (1, heads):
                raise ValueError(f"the mask of block {place} tells {mask.heads} heads apart, its attention has {heads}")


def check_streams(blocks: Iterable[nn.Module], encodings: Iterable[Encoding]) -> set[str]:
    """The streams that layers read.

    Raises:
        ValueError: an encoding gives features to another.
    """
    streams, parts = {"x"}, [part for block in blocks for part in parts_of(block)]
    if any(reads_of(part) != "self" and getattr(part, "reads_edges", True) for part in parts):
        streams.add("e")
    if any(reads_of(part) in ("pairs", "graph") and getattr(part, "reads_pairs", True) for part in parts):
        streams.add("p")
    for encoding in encodings:
        for stream in sorted(set(encoding.writes) - streams):
            rows, reader = {"e": ("edges", "GINE"), "p": ("pairs", "Attention with edges or pair_bias")}[stream]
            raise ValueError(
                f"{type(encoding).__name__} gives features to {rows}, which no layer reads: choose one that does, "
                f"such as {reader}, or leave {stream} out of what the encoding writes"
            )
    return streams
