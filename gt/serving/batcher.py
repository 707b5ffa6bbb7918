"""Dynamic batching: items of requests that wait at the same time are computed together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gt.errors import UserError

Compute = Callable[[list[Any]], list[Any]]  # an answer for each item, in order


class Full(Exception):
    """So much waits already that a request is turned away."""


class Batcher:
    """Collects items from many callers and computes them in one thread, a batch at a time.

    A batch that cannot be computed is computed again by caller, so that one caller's items never spoil another's.

    Args:
        compute: see `Compute`; raises `UserError` for items that cannot be computed.
        most: items in a batch; a caller with more has several.
        wait: seconds that the first item of a batch waits for others.
        room: items that may wait.
        seen: called with the size of each batch.
    """

    def __init__(
        self, compute: Compute, most: int, wait: float, room: int, seen: Callable[[int], None] = lambda size: None
    ) -> None:
        self.compute, self.most, self.wait, self.room, self.seen = compute, most, wait, room, seen
        self.waiting = 0
        self._calls: deque[tuple[list[Any], asyncio.Future[list[Any]]]] = deque()
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
        parts = [list(items[n : n + self.most]) for n in range(0, len(items), self.most)]
        futures = [asyncio.get_running_loop().create_future() for _ in parts]
        self.waiting += len(items)
        self._calls.extend(zip(parts, futures, strict=True))
        self._arrived.set()
        answers = await asyncio.gather(*futures)
        return [answer for part in answers for answer in part]

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._arrived.wait()
            if sum(len(items) for items, _ in self._calls) < self.most:
                await asyncio.sleep(self.wait)
            await self._batch()
            if not self._calls:
                self._arrived.clear()

    async def _batch(self) -> None:
        batch: list[tuple[list[Any], asyncio.Future[list[Any]]]] = []
        size = 0
        while self._calls and size + len(self._calls[0][0]) <= self.most:
            items, future = self._calls.popleft()
            self.waiting -= len(items)
            if not future.done():  # whoever asked may have gone
                batch.append((items, future))
                size += len(items)
        if not batch:
            return
        self.seen(size)
        try:
            answers = iter(await self._in_thread([item for items, _ in batch for item in items]))
            parts: list[list[Any] | Exception] = [[next(answers) for _ in items] for items, _ in batch]
        except Exception as error:
            parts = [error] if len(batch) == 1 else [await self._alone(items) for items, _ in batch]
        for (_, future), part in zip(batch, parts, strict=True):
            if future.done():
                continue
            if isinstance(part, Exception):
                future.set_exception(part)
            else:
                future.set_result(part)

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
