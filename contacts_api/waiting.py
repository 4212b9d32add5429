"""Bounded waiting: short queues, a deadline for each request, and no work for clients that have gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.requests import Request

from contacts_api.problems import Busy

REQUEST_SECONDS = 5.0
"""How long a request may take once its body has been read. After that it is answered with a 503."""
ASKED_AFTER_SECONDS = 0.05
"""Who has waited for so long may have gone. To ask takes 50 µs of CPU, and most wait for a moment only."""

_request: ContextVar[Request] = ContextVar("request")


def has_come(request: Request) -> None:
    """Note that `request` has been read to its end. From now on, queues drop it if its client has gone."""
    _request.set(request)


class Places:
    """So many places, and a queue for them: first come, first served.

    `count` callers have a place at once; at most `max_waiting` more wait, each for at most `max_seconds`.
    """

    def __init__(self, count: int, *, max_waiting: int, max_seconds: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._max_waiting, self._max_seconds = max_waiting, max_seconds
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises Busy when the queue is full, the time is up or the client has gone."""
        await self.take()
        try:
            yield
        finally:
            self.leave()

    async def take(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= self._max_waiting:
            raise Busy
        self._waiting += 1
        begun_at = time.monotonic()
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1
        request = _request.get(None)
        if request is None or time.monotonic() - begun_at < ASKED_AFTER_SECONDS:
            return
        try:
            if await request.is_disconnected():
                raise Busy
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        self._free.release()
