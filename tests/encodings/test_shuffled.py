"""Wrong hints: the rows of another encoding, at other nodes of the same graph."""

import numpy as np
import pytest
import torch

from gt.encodings import Laplacian, RandomWalk, RelativeWalks, Shuffled, Sinusoidal
from gt.errors import UserError
from gt.schema import Schema
from tests.encodings.samples import AWKWARD, CONNECTED, batch_of, pack, per_graph


def by_rows(array: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.nan_to_num(array, nan=9).tolist()))


@pytest.mark.parametrize("encoding", [RandomWalk(6), Laplacian(3)], ids=["walks", "laplacian"])
def test_every_graph_keeps_its_rows_in_another_order(encoding):
    right, wrong = encoding.compute(pack(AWKWARD)), Shuffled(encoding).compute(pack(AWKWARD))
    assert right.keys() == wrong.keys() == set(encoding.arrays)
    for name in right:
        for ours, theirs in zip(per_graph(AWKWARD, right[name]), per_graph(AWKWARD, wrong[name]), strict=True):
            assert by_rows(ours) == by_rows(theirs)
    again = Shuffled(encoding).compute(pack(AWKWARD))
    other = Shuffled(encoding, seed=1).compute(pack(AWKWARD))
    for name in right:
        np.testing.assert_array_equal(again[name], wrong[name])
    first = encoding.arrays[0]  # eigenvalues are those of a whole graph
    for unlike in (right, other):
        assert not np.array_equal(unlike[first], wrong[first], equal_nan=True)


def test_arrays_of_a_node_stay_together():
    right, wrong = (e.compute(pack(CONNECTED)) for e in (Laplacian(3), Shuffled(Laplacian(3))))
    rows = [np.concatenate([arrays[name] for name in Laplacian.arrays], axis=1) for arrays in (right, wrong)]
    for ours, theirs in zip(*(per_graph(CONNECTED, array) for array in rows), strict=True):
        assert by_rows(ours) == by_rows(theirs)


def test_a_model_reads_it_as_the_other_one():
    inner = RandomWalk(5, dim=4)
    schema = Schema(node_vocab=(3,))
    torch.manual_seed(0)
    right = inner.module(16, schema)
    torch.manual_seed(0)
    wrong = Shuffled(inner).module(16, schema)
    assert wrong.concat == 4
    batch = batch_of(CONNECTED, inner)
    torch.testing.assert_close(right.eval().nodes(batch), wrong.eval().nodes(batch))
    assert not hasattr(inner, "linear")  # the one of the configuration is left as it was


def test_what_is_stored_goes_by_what_is_shuffled():
    keys = [Shuffled(RandomWalk(5)), Shuffled(RandomWalk(6)), Shuffled(RandomWalk(5), seed=1), RandomWalk(5)]
    assert len({str(encoding.key()) for encoding in keys}) == 4


@pytest.mark.parametrize("encoding", [Sinusoidal(), RelativeWalks()], ids=["positions", "pairs"])
def test_what_has_no_rows_is_refused(encoding):
    with pytest.raises(UserError, match=type(encoding).__name__):
        Shuffled(encoding)
