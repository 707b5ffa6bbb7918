"""Shuffled: the rows of another encoding, permuted among the nodes of each graph."""

import numpy as np
import pytest
import torch

from gt.encodings import Laplacian, RandomWalk, RelativeWalks, Shuffled, Sinusoidal
from gt.errors import UserError
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, CONNECTED, batch_of, pack, per_graph


def sorted_rows(array: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.nan_to_num(array, nan=9).tolist()))


@pytest.mark.parametrize("encoding", [RandomWalk(6), Laplacian(3)], ids=["walks", "laplacian"])
def test_rows_are_permuted_within_each_graph(encoding):
    original, shuffled = encoding.compute(pack(AWKWARD)), Shuffled(encoding).compute(pack(AWKWARD))
    assert original.keys() == shuffled.keys() == set(encoding.arrays)
    for name in original:
        for before, after in zip(per_graph(AWKWARD, original[name]), per_graph(AWKWARD, shuffled[name]), strict=True):
            assert sorted_rows(before) == sorted_rows(after)
    repeated = Shuffled(encoding).compute(pack(AWKWARD))
    reseeded = Shuffled(encoding, seed=1).compute(pack(AWKWARD))
    for name in original:
        np.testing.assert_array_equal(repeated[name], shuffled[name])
    first = encoding.arrays[0]  # not the eigenvalues, equal at all nodes of a graph
    for different in (original, reseeded):
        assert not np.array_equal(different[first], shuffled[first], equal_nan=True)


def test_arrays_share_one_permutation():
    original, shuffled = (e.compute(pack(CONNECTED)) for e in (Laplacian(3), Shuffled(Laplacian(3))))
    rows = [np.concatenate([arrays[name] for name in Laplacian.arrays], axis=1) for arrays in (original, shuffled)]
    for before, after in zip(*(per_graph(CONNECTED, array) for array in rows), strict=True):
        assert sorted_rows(before) == sorted_rows(after)


def test_module_equals_that_of_inner_encoding():
    inner = RandomWalk(5, dim=4)
    schema = Schema(node_vocab=(3,))
    torch.manual_seed(0)
    original = inner.module(16, schema)
    torch.manual_seed(0)
    shuffled = Shuffled(inner).module(16, schema)
    assert shuffled.concat == 4
    batch = batch_of(CONNECTED, inner)
    torch.testing.assert_close(original.eval().nodes(batch), shuffled.eval().nodes(batch))
    assert not hasattr(inner, "linear")  # the configured encoding is left unchanged


def test_key_depends_on_encoding_and_seed():
    encodings = [Shuffled(RandomWalk(5)), Shuffled(RandomWalk(6)), Shuffled(RandomWalk(5), seed=1), RandomWalk(5)]
    assert len({str(encoding.key()) for encoding in encodings}) == 4


@pytest.mark.parametrize("encoding", [Sinusoidal(), RelativeWalks()], ids=["positions", "pairs"])
def test_encodings_without_stored_rows_are_rejected(encoding):
    with pytest.raises(UserError, match=type(encoding).__name__):
        Shuffled(encoding)
