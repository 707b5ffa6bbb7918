"""Dynamic batching: items of concurrent requests share a batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gt.errors import UserError

Compute = Callable[[list[Any]], list[Any]]  # returns an answer for each item, in order


@dataclass
class Part:
    """Items of one call that share a batch, with the future for their answers."""

    future: asyncio.Future[list[Any]]
    items: list[Any] = field(default_factory=list)
    cost: float = 0.0


class Full(Exception):
    """Raised for a request if too many items are already waiting."""


class Batcher:
    """Collects items from many callers and computes them in one thread, a batch at a time.

    If a batch fails, it is computed again for each caller separately, so that no caller's items affect another's. A
    caller whose items fill several batches takes turns with the others.

    Args:
        compute: see `Compute`; raises `UserError` for items that cannot be computed.
        most: items per batch.
        wait: seconds that the first item of a batch waits for others.
        room: limit of waiting items.
        seen: called with the size of each batch.
        cost: cost of an item relative to the limit of a batch; an item above the limit forms a batch by itself.
    """

    def __init__(
        self,
        compute: Compute,
        most: int,
        wait: float,
        room: int,
        seen: Callable[[int], None] = lambda size: None,
        cost: Callable[[Any], float] = lambda item: 0.0,
    ) -> None:
        self.compute, self.most, self.wait, self.room, self.seen, self.cost = compute, most, wait, room, seen, cost
        self.waiting = 0
        self._callers: deque[deque[Part]] = deque()  # the remaining parts of each call
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "batches")

    async def ask(self, items: Sequence[Any]) -> list[Any]:
        """Return the answers for some items, in order.

        Raises:
            Full: too many items are waiting.
            UserError: these items cannot be computed.
        """
        if self.waiting + len(items) > self.room:
            raise Full
        if parts := self._parts(items):
            self.waiting += len(items)
            self._callers.append(deque(parts))
            self._arrived.set()
        answers = await asyncio.gather(*(part.future for part in parts))
        return [answer for part in answers for answer in part]

    def _parts(self, items: Sequence[Any]) -> list[Part]:
        """Split items into as few parts as possible, each within the limits of a batch."""
        parts: list[Part] = []
        for item in items:
            cost = self.cost(item)
            if not parts or not self._fits(len(parts[-1].items) + 1, parts[-1].cost + cost):
                parts.append(Part(asyncio.get_running_loop().create_future()))
            parts[-1].items.append(item)
            parts[-1].cost += cost
        return parts

    def _fits(self, items: int, cost: float) -> bool:
        return items <= self.most and cost <= 1

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._arrived.wait()
            if self.waiting < self.most:
                await asyncio.sleep(self.wait)
            await self._batch()
            if not self._callers:
                self._arrived.clear()

    async def _batch(self) -> None:
        batch: list[Part] = []
        size, cost = 0, 0.0
        while self._callers:
            part = self._callers[0][0]
            cancelled = part.future.done()  # the caller has given up
            if batch and not cancelled and not self._fits(size + len(part.items), cost + part.cost):
                break
            caller = self._callers.popleft()
            caller.popleft()
            if caller:
                self._callers.append(caller)
            self.waiting -= len(part.items)
            if not cancelled:
                batch.append(part)
                size, cost = size + len(part.items), cost + part.cost
        if not batch:
            return
        self.seen(size)
        try:
            answers = iter(await self._in_thread([item for part in batch for item in part.items]))
            results: list[list[Any] | Exception] = [[next(answers) for _ in part.items] for part in batch]
        except Exception as error:
            results = [error] if len(batch) == 1 else [await self._compute_part(part.items) for part in batch]
        for part, answer in zip(batch, results, strict=True):
            if part.future.done():
                continue
            if isinstance(answer, Exception):
                part.future.set_exception(answer)
            else:
                part.future.set_result(answer)

    async def _compute_part(self, items: list[Any]) -> list[Any] | Exception:
        try:
            return await self._in_thread(items)
        except Exception as error:
            return error

    async def _in_thread(self, items: list[Any]) -> list[Any]:
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, self.compute, items)
        if len(answers) != len(items):
            raise UserError(f"{len(items)} items got {len(answers)} answers")
        return answers
