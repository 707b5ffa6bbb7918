"""Checks that the blocks, masks and encodings of a network are compatible."""

from collections.abc import Iterable, Sequence
from itertools import product

from torch import nn

from gt.encodings import Encoding
from gt.layers.traits import name_of, parts_of, reads_of, uses_mask, writes_of
from gt.masks import Mask, Schedule


def masks_of(mask: Mask | Schedule) -> Sequence[Mask]:
    """All masks that a schedule goes through during training, or the mask itself."""
    return mask.masks if isinstance(mask, Schedule) else (mask,)


def check_masks(blocks: Iterable[nn.Module], scheduled: Sequence[Mask | Schedule]) -> None:
    """Check that each block can run under its mask.

    Raises:
        ValueError: numbers of heads differ, or masks differ although a layer keeps a state for each pair.
    """
    masked_blocks = list(zip(blocks, scheduled, strict=True))
    writers = [name_of(part) for block, _ in masked_blocks for part in parts_of(block) if "p" in writes_of(part)]
    if writers and len({mask for block, mask in masked_blocks if uses_mask(block)}) > 1:
        raise ValueError(f"{writers[0]} keeps a state for each pair, so every layer needs the same mask")
    for index, (block, block_mask) in enumerate(masked_blocks):
        for mask, part in product(masks_of(block_mask), parts_of(block)):
            heads = getattr(part, "heads", mask.heads) if reads_of(part) == "pairs" else mask.heads
            if mask.heads not in (1, heads):
                raise ValueError(f"the mask of block {index} has {mask.heads} heads, its attention has {heads}")


def check_streams(blocks: Iterable[nn.Module], encodings: Iterable[Encoding]) -> set[str]:
    """The streams that the layers read.

    Raises:
        ValueError: an encoding writes to a stream that no layer reads.
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
                f"{type(encoding).__name__} adds features to {rows}, which no layer reads: choose a layer that does, "
                f"such as {reader}, or remove {stream} from what the encoding writes"
            )
    return streams
