"""Waiting with a bound: a place in a short queue, a deadline from when the request came, no work for who has gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.requests import Request

from contacts_api.problems import Busy

REQUEST_SECONDS = 5.0
"""How long a request may take from when it has come whole: what is not answered by then is a 503."""

_request: ContextVar[Request] = ContextVar("request")


def has_come(request: Request) -> None:
    """Note that `request` has been read to its end: from now on, nobody works for it if its client has gone."""
    _request.set(request)


async def _client_has_gone() -> bool:
    request = _request.get(None)
    return request is not None and await request.is_disconnected()


class Places:
    """So many may work at once, and so many more wait for `seconds` at most: first come, first served."""

    def __init__(self, count: int, *, waiting: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting, self._most, self._seconds = 0, waiting, seconds

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises Busy where the queue is full, the time is up or the client has gone."""
        await self.take()
        try:
            yield
        finally:
            self.leave()

    async def take(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= self._most:
            raise Busy
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1
        if await _client_has_gone():
            self.leave()
            raise Busy

    def leave(self) -> None:
        self._free.release()
