"""Dynamic batching: the order of callers, the cost of a batch, errors, and a full queue."""

import asyncio
import time

import pytest

from gt.errors import UserError
from gt.serving.batcher import Batcher, Full


def test_full_batcher_rejects_requests():
    async def run_batcher():
        batcher = Batcher(lambda items: time.sleep(0.05) or items, most=2, wait=0.0, room=4)
        worker = asyncio.create_task(batcher.run())
        first = [asyncio.create_task(batcher.ask([n, -n])) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batcher.ask([9])
        assert await asyncio.gather(*first) == [[0, 0], [1, -1]]
        assert await batcher.ask([9]) == [9]
        worker.cancel()

    asyncio.run(run_batcher())


def test_callers_alternate_and_batch_cost_is_limited():
    batches = []

    async def run_batcher():
        batcher = Batcher(
            lambda items: batches.append(items) or items, most=4, wait=0.02, room=99, cost=lambda item: item / 10
        )
        worker = asyncio.create_task(batcher.run())
        assert await asyncio.gather(*map(batcher.ask, ([6, 6, 5, 5, 30, 1, 1, 1], [3, 2], [], [4]))) == [
            [6, 6, 5, 5, 30, 1, 1, 1],
            [3, 2],
            [],
            [4],
        ]
        worker.cancel()

    asyncio.run(run_batcher())
    assert batches == [[6], [3, 2, 4], [6], [5, 5], [30], [1, 1, 1]]


def test_batches_are_filled_and_errors_isolated():
    seen = []

    def compute(items):
        if "bad" in items:
            raise UserError("bad")
        return [item * 2 for item in items]

    async def run_batcher():
        batcher = Batcher(compute, most=4, wait=0.02, room=100, seen=seen.append)
        worker = asyncio.create_task(batcher.run())
        calls = [["a"], ["b"], ["bad"], ["c"], ["d"], list("efghij")]
        answers = await asyncio.gather(*(batcher.ask(items) for items in calls), return_exceptions=True)
        worker.cancel()
        return answers

    answers = asyncio.run(run_batcher())
    assert answers[:2] + answers[3:] == [["aa"], ["bb"], ["cc"], ["dd"], ["ee", "ff", "gg", "hh", "ii", "jj"]]
    assert isinstance(answers[2], UserError)
    assert sum(seen) == 11
    assert max(seen) == 4
