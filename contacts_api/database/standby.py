"""Reads from a standby, which answers as the primary would: whoever has just written reads what they wrote.

Before a read, the primary is asked up to where its log (WAL) is written, and the standby must have replayed that much.
All reads that wait for this share one question, so that the primary is asked once for many. To remember what each
client wrote last would not do: its next request may go to another worker.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from sqlalchemy import text
from sqlalchemy.sql.base import Executable

from contacts_api.database.connecting import Connection, Row
from contacts_api.database.engine import LOST, Database
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.problems import Busy

logger = logging.getLogger(__name__)

CATCH_UP_SECONDS = 0.25
"""How long a read waits for the standby, before it goes to the primary."""
READY_SECONDS = 1.0
"""How long it may take to have a connection to the standby, its replay included."""
POLL_SECONDS = 0.005
AWAY_SECONDS = 5.0
"""How long all reads go to the primary after the standby has failed."""

# The same for both, since a standby may become the primary.
_POSITION = """
    SELECT pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0'
    )::bigint
"""
_ASK_POSITION = text(_POSITION)


class StandbyIsBehindError(Exception):
    """The standby has not replayed what was written before the read."""


class Standby:
    """Answers reads from a standby; from the primary where the standby is away or behind."""

    def __init__(self, primary: Database, standby: Database) -> None:
        self._primary, self._standby = primary, standby
        self._position_of_primary = Shared(self._ask_primary)
        self._away_until = float("-inf")

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        """Return the rows."""
        if time.monotonic() >= self._away_until:
            position = await self._position_of_primary()
            is_ready = False
            try:
                async with asyncio.timeout(READY_SECONDS) as limit:

                    async def ready(connection: Connection) -> None:
                        nonlocal is_ready
                        await _wait_for_replay(position, connection)
                        is_ready = True
                        # From here on the statement has its own limit.
                        limit.reschedule(None)

                    return await self._standby.execute(statement, ready, **parameters)
            except (*DATABASE_ERRORS, Busy, StandbyIsBehindError) as error:
                if is_ready and not isinstance(error, LOST):
                    # The statement's own fault, or the standby has cancelled it for the sake of its replay.
                    return await self._primary.read(statement, **parameters)
                logger.warning("cannot read from the standby: %s", type(error).__name__)
                self._away_until = time.monotonic() + AWAY_SECONDS
        return await self._primary.read(statement, **parameters)

    async def _ask_primary(self) -> int:
        ((position,),) = await self._primary.read(_ASK_POSITION)
        return int(position)


async def _wait_for_replay(position: int, connection: Connection) -> None:
    """Wait until the server of this connection has come so far. Raises StandbyIsBehindError."""
    give_up_at = time.monotonic() + CATCH_UP_SECONDS
    while connection.replayed < position:
        connection.replayed = await connection.fetchval(_POSITION)
        if connection.replayed < position:
            if time.monotonic() >= give_up_at:
                raise StandbyIsBehindError
            await asyncio.sleep(POLL_SECONDS)


class Shared:
    """Asks one question for all who want an answer that is no older than their wish for it."""

    def __init__(self, ask: Callable[[], Awaitable[int]]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None

    async def __call__(self) -> int:
        if self._next is None:
            # In a context of its own: it does not end with the request that was the first to wish it.
            self._next = asyncio.create_task(self._ask_after(self._asked), context=Context())
        return await asyncio.shield(self._next)

    async def _ask_after(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        # From here on, whoever comes must not have this answer, but the next one.
        self._asked, self._next = self._next, None
        return await self._ask()
