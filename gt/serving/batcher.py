"""Dynamic batching: items of requests that wait at the same time are computed together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gt.errors import UserError

Compute = Callable[[list[Any]], list[Any]]  # an answer for each item, in order


@dataclass
class Part:
    """Items of one call that are computed together, and where their answers go."""

    future: asyncio.Future[list[Any]]
    items: list[Any] = field(default_factory=list)
    cost: float = 0.0


class Full(Exception):
    """So much waits already that a request is turned away."""


class Batcher:
    """Collects items from many callers and computes them in one thread, a batch at a time.

    A batch that cannot be computed is computed again by caller, so that one caller's items never spoil another's. A
    caller whose items fill several batches takes turns with the others.

    Args:
        compute: see `Compute`; raises `UserError` for items that cannot be computed.
        most: items in a batch.
        wait: seconds that the first item of a batch waits for others.
        room: items that may wait.
        seen: called with the size of each batch.
        cost: of an item, as a share of what a batch may hold: one that costs more is a batch by itself.
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
        self._callers: deque[deque[Part]] = deque()  # what is left of each call
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "batches")

    async def ask(self, items: Sequence[Any]) -> list[Any]:
        """An answer for each item.

        Raises:
            Full: there is no room.
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
        """As few as may be, none of which is more than a batch."""
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
            gone = part.future.done()  # whoever asked has given up
            if batch and not gone and not self._fits(size + len(part.items), cost + part.cost):
                break
            caller = self._callers.popleft()
            caller.popleft()
            if caller:
                self._callers.append(caller)
            self.waiting -= len(part.items)
            if not gone:
                batch.append(part)
                size, cost = size + len(part.items), cost + part.cost
        if not batch:
            return
        self.seen(size)
        try:
            answers = iter(await self._in_thread([item for part in batch for item in part.items]))
            answered: list[list[Any] | Exception] = [[next(answers) for _ in part.items] for part in batch]
        except Exception as error:
            answered = [error] if len(batch) == 1 else [await self._alone(part.items) for part in batch]
        for part, answer in zip(batch, answered, strict=True):
            if part.future.done():
                continue
            if isinstance(answer, Exception):
                part.future.set_exception(answer)
            else:
                part.future.set_result(answer)

    async def _alone(self, items: list[Any]) -> list[Any] | Exception:
        try:
            return await self._in_thread(items)
        except Exception as error:
            return error

    async def _in_thread(self, items: list[Any]) -> list[Any]:
        answers = await asyncio.get_running_loop().run_in_executor(self._thread, self.compute, items)
        if len(answers) != len(items):
            raise UserError(f"{len(items)} items have {len(answers)} answers")
        return answers
