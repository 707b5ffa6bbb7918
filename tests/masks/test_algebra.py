"""Nested unions and intersections of masks against sets of pairs, with and without virtual nodes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.masks import (
    Causal,
    Complete,
    Expander,
    Hops,
    Intersection,
    PerHead,
    RandomEdges,
    Strided,
    Union,
    VirtualNodes,
    Window,
    with_virtual_nodes,
)
from tests.graphs import random_batch
from tests.masks.test_virtual import pair_table

LEAVES = [Complete(), Hops(None), Hops(1), Hops(2), Causal(), Window(1), Strided(2), RandomEdges(2, seed=1),
          Expander(2), VirtualNodes(1), VirtualNodes(2)]  # fmt: skip
PARTS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.builds(
        lambda kind, masks: kind(masks), st.sampled_from([Union, Intersection]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)
HEADS = st.one_of(PARTS, st.builds(PerHead, st.lists(PARTS, min_size=2, max_size=2)))
MASKS = st.one_of(HEADS, st.builds(lambda a, b: a | b, HEADS, HEADS), st.builds(lambda a, b: a & b, HEADS, HEADS))


def expected_table(mask, batch, head):
    """(N, N) the pairs of a head, by unions and intersections of the tables of the innermost masks."""
    if isinstance(mask, PerHead):
        return expected_table(mask.masks[head], batch, 0)
    if not isinstance(mask, Union | Intersection):
        return pair_table(mask(batch))
    parts = torch.stack([expected_table(part, batch, head) for part in mask.masks])
    return parts.any(0) if isinstance(mask, Union) else parts.all(0)


@settings(max_examples=150, deadline=None)
@given(MASKS, st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(2, 3))
def test_nested_masks_match_sets_of_pairs(mask, sizes, virtual):
    batch = with_virtual_nodes(random_batch(tuple(sizes), seed=sum(sizes)), virtual)
    pairs = mask(batch)
    expected = torch.stack([expected_table(mask, batch, head) for head in range(mask.heads)])
    assert torch.equal(torch.stack([pair_table(pairs, head) for head in range(mask.heads)]), expected)
    assert pairs.count >= expected.any(0).sum()  # may include pairs that no head uses
    assert pairs.all_read == expected.any(-1).all()
    if not mask.virtual_nodes:
        narrow = mask(batch.narrow)
        real = batch.real
        assert torch.equal(pair_table(narrow), expected[0][real][:, real])
        assert narrow.all_read == expected[:, real].any(-1).all()
