"""Which graphs go together: each once an epoch, within the budget, in as many steps on every rank."""

import numpy as np
import pytest

from gt.data.batch_sampler import Batches


def drawn(number):
    """Sizes of graphs and the arguments of `Batches`, of any kind."""
    draw = np.random.default_rng(number)
    count = int(draw.integers(1, 80))
    sizes = draw.integers(0, 60, count) if number % 2 else np.minimum(draw.lognormal(2.5, 1.2, count), 200).astype(int)
    budget = None if number % 3 == 0 else int(draw.integers(10, 300))
    options = {"batch_size": int(draw.integers(1, 9)), "budget": budget, "pairs": int(draw.integers(0, 2)) * 500}
    return sizes, options | {"world": int(draw.integers(1, 4)), "seed": number}


@pytest.mark.parametrize("number", range(60))
def test_every_graph_counts_once_in_every_epoch_and_ranks_step_together(number):
    sizes, options = drawn(number)
    for epoch in range(6):
        ranks = [Batches(sizes, shuffle=True, epoch=epoch, rank=rank, **options) for rank in range(options["world"])]
        requests = [list(rank) for rank in ranks]
        counted = [graph for rank in requests for request in rank if request.counts for graph in request.samples]
        assert sorted(counted) == list(range(len(sizes)))
        assert {len(rank) for rank in requests} == {len(rank) for rank in ranks} == {len(ranks[0])}
        if options["budget"] is not None and not options["pairs"]:
            for request in (request for rank in requests for request in rank):
                own = sizes[list(request.samples)]
                assert len(own) == 1 or own.max() * len(own) <= options["budget"] or options["world"] > 1


def test_an_epoch_that_packs_into_more_batches_than_the_schedule_has_is_drawn_again():
    sizes = np.random.default_rng(1).integers(5, 60, 22)
    batches = Batches(sizes, 1, shuffle=True, budget=74)
    plans = [batches.plan(epoch) for epoch in range(80)]
    assert any(len(batches._drawn(epoch)) > batches.total for epoch in range(80))
    assert {len(plan) for plan in plans} == {batches.total}
    assert all(sorted(np.concatenate(plan)) == list(range(22)) for plan in plans)
    assert len({tuple(np.concatenate(plan)) for plan in plans}) == 80
