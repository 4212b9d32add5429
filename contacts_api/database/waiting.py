"""Limits on waiting: bounded queues, a deadline for each request, and no work for disconnected clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypeAlias
from uuid import UUID

from starlette.requests import Request

from contacts_api.problems import Busy

REQUEST_SECONDS = 5.0
"""Time limit for a request after its body has been read. A request that exceeds it gets a 503."""
ASKED_AFTER_SECONDS = 0.05
"""Check for a disconnect only after this wait, because the check costs 50 µs."""

OwnerKey: TypeAlias = int | None
"""An owner's id as an integer, because integers compare faster than UUIDs. None if the owner is unknown."""

_request: ContextVar[Request] = ContextVar("request")


def has_come(request: Request) -> None:
    """Record that the body of `request` has been read. From now on, queues drop it if its client disconnects."""
    _request.set(request)


def act_for(request: Request, owner_id: UUID) -> None:
    """Record the owner that `request` acts for. From now on, its places count towards this owner's share."""
    request.scope["owner"] = owner_id.int


async def refuse_disconnected() -> None:
    """Raise Busy if the client of the current request has disconnected."""
    request = _request.get(None)
    if request is not None and await request.is_disconnected():
        raise Busy


class Places:
    """A semaphore with a bounded first-in, first-out queue, shared fairly between owners.

    At most `count` callers hold a place. At most `max_waiting` more wait, each for at most `max_seconds`. One owner
    gets at most half of the places and half of the queue, so one account cannot block the others. Requests without
    an owner, such as sign-ins, have no such limit.
    """

    def __init__(self, count: int, *, max_waiting: int, max_seconds: float) -> None:
        self._free = count
        self._max_taken, self._max_waiting, self._max_seconds = max(1, count // 2), max_waiting, max_seconds
        self._taken: dict[OwnerKey, int] = {}
        self._queue: dict[asyncio.Future[None], OwnerKey] = {}

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place. Raises Busy if the queue is full, the wait times out or the client disconnects."""
        owner = await self.take()
        try:
            yield
        finally:
            self.leave(owner)

    async def take(self) -> OwnerKey:
        """Take a place, and return its owner to pass to `leave`. Raises Busy as `place` does."""
        request = _request.get(None)
        owner: OwnerKey = request.scope.get("owner") if request else None
        if self._has_room(owner):
            self._give(owner)
        else:
            await self._wait(owner)
        return owner

    def leave(self, owner: OwnerKey) -> None:
        self._free += 1
        if self._taken[owner] == 1:
            del self._taken[owner]
        else:
            self._taken[owner] -= 1
        for turn, waiting in self._queue.items():
            if not turn.done() and self._has_room(waiting):
                self._give(waiting)
                del self._queue[turn]
                turn.set_result(None)
                return

    def _has_room(self, owner: OwnerKey) -> bool:
        return self._free > 0 and (owner is None or self._taken.get(owner, 0) < self._max_taken)

    def _give(self, owner: OwnerKey) -> None:
        self._free -= 1
        self._taken[owner] = self._taken.get(owner, 0) + 1

    async def _wait(self, owner: OwnerKey) -> None:
        waiting = list(self._queue.values())
        if len(waiting) >= self._max_waiting:
            raise Busy
        if owner is not None and waiting.count(owner) >= max(1, self._max_waiting // 2):
            raise Busy
        turn = asyncio.get_running_loop().create_future()
        self._queue[turn] = owner
        begun_at = time.monotonic()
        try:
            async with asyncio.timeout(self._max_seconds):
                await turn
            if time.monotonic() - begun_at >= ASKED_AFTER_SECONDS:
                await refuse_disconnected()
        except BaseException as error:
            # The place may have been granted just before the timeout or the cancellation. Give it back.
            if turn.done() and not turn.cancelled():
                self.leave(owner)
            if isinstance(error, TimeoutError):
                raise Busy from None
            raise
        finally:
            self._queue.pop(turn, None)
