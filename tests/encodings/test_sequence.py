"""Sequence positions (sinusoidal, learned, rotary), against loops over the papers' formulas."""

import cmath
import math

import pytest
import torch

from gt.encodings import LearnedPositions, Rotary, Sinusoidal
from gt.errors import UserError
from gt.schema import Schema
from tests.graphs import SIZES, random_batch


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("width", [8, 7, 1])
def test_sinusoidal_matches_formula(sizes, width):
    actual = Sinusoidal(base=100.0).module(width, Schema()).nodes(random_batch(sizes))
    expected = [
        [(math.cos if c % 2 else math.sin)(position / 100 ** ((c - c % 2) / width)) for c in range(width)]
        for size in sizes
        for position in range(size)
    ]
    torch.testing.assert_close(actual, torch.tensor(expected), atol=1e-5, rtol=0)


def test_sinusoidal_exceeds_length_of_schema():
    actual = Sinusoidal().module(4, Schema(max_nodes=3)).nodes(random_batch((3000,), density=0.0))
    position = torch.arange(3000, dtype=torch.float64)
    expected = torch.stack([position.sin(), position.cos(), (position / 100).sin(), (position / 100).cos()], dim=1)
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_learned_positions_are_table_rows(sizes):
    module = LearnedPositions().module(6, Schema(max_nodes=max(sizes)))
    assert module.table.weight.shape == (max(sizes), 6)
    expected = torch.cat([module.table.weight[:size] for size in sizes])
    assert torch.equal(module.nodes(random_batch(sizes)), expected)


def test_learned_positions_beyond_the_table_are_reported():
    with pytest.raises(UserError, match="graph of 9 nodes exceeds the table of 8 positions"):
        LearnedPositions(length=8).module(6, Schema(max_nodes=9))
    with pytest.raises(UserError, match="graph of 9 nodes exceeds the table of 8 positions"):
        LearnedPositions(length=8).module(6, Schema(max_nodes=5)).nodes(random_batch((2, 9)))
    with pytest.raises(UserError, match="is empty"):
        LearnedPositions().module(6, Schema())


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_rotary_matches_complex_rotation(sizes):
    batch = random_batch(sizes)
    q, k = torch.randn(2, batch.num_nodes, 3, 6)
    rotated = Rotary(base=100.0).module(18, Schema()).rotate(q, k, batch)
    for before, after in zip((q, k), rotated, strict=True):
        for node, position in enumerate(p for size in sizes for p in range(size)):
            for pair in range(3):
                real, imaginary = before[node, :, 2 * pair], before[node, :, 2 * pair + 1]
                expected = torch.complex(real, imaginary) * cmath.exp(1j * position * 100 ** (-2 * pair / 6))
                actual = torch.complex(after[node, :, 2 * pair], after[node, :, 2 * pair + 1])
                torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_rotary_scores_depend_on_relative_position():
    batch = random_batch((40, 12))
    q, k = (torch.randn(1, 2, 8, dtype=torch.float64).expand(52, 2, 8) for _ in range(2))
    q, k = Rotary().module(16, Schema()).rotate(q, k, batch)
    scores = torch.einsum("ihd,jhd->hij", q, k)
    for offset in range(-11, 12):
        first = scores[:, 11, 11 + offset]
        for low, high in ((0, 40), (40, 52)):
            diagonal = scores[:, low:high, low:high].diagonal(offset, 1, 2)
            torch.testing.assert_close(diagonal, first[:, None].expand_as(diagonal), atol=1e-5, rtol=0)
    row = scores[0, 0, :12]
    assert (row.diff().abs() > 1e-4).all(), "constant scores would make the test vacuous"


def test_rotary_keeps_norm_dtype_and_gradients():
    batch = random_batch((30, 5))
    module = Rotary().module(16, Schema())
    q, k = torch.randn(2, 35, 2, 8, dtype=torch.float64, requires_grad=True)
    rotated, _ = module.rotate(q, k, batch)
    torch.testing.assert_close(rotated.norm(dim=-1), q.norm(dim=-1), atol=1e-6, rtol=0)
    assert torch.autograd.gradcheck(lambda x: module.rotate(x, x, batch)[0], q[:, :1, :2].detach().requires_grad_())
    for dtype in (torch.bfloat16, torch.float16):
        half, _ = module.rotate(q.to(dtype), k.to(dtype), batch)
        assert half.dtype == dtype
        torch.testing.assert_close(half.double(), rotated, atol=0.03, rtol=0)


def test_rotary_needs_even_channels():
    q = torch.randn(5, 2, 7)
    with pytest.raises(UserError, match="even number of channels per head, not 7"):
        Rotary().module(14, Schema()).rotate(q, q, random_batch((5,)))


def test_streams_and_keys_of_each_encoding():
    for encoding in (Sinusoidal(), LearnedPositions(5)):
        module = encoding.module(8, Schema())
        assert (module.concat, encoding.key(), encoding.arrays) == (0, None, ())
        assert (module.writes, module.rotates) == (("x",), False)
    assert (Rotary().writes, Rotary().rotates) == ((), True)
    assert not list(Rotary().module(8, Schema()).parameters())


def test_rotary_tables_are_cached_and_move_with_batch():
    batch, module = random_batch((5, 3)), Rotary().module(8, Schema())
    q = torch.randn(8, 2, 8)
    module.rotate(q, q, batch)
    ((_, table),) = batch.memo.items()
    module.rotate(q, q, batch)
    assert list(batch.memo.values()) == [table]
    Rotary(base=10.0).module(8, Schema()).rotate(q, q, batch)
    assert len(batch.memo) == 2
    assert all(values.is_meta for values in batch.to("meta").memo.values())
