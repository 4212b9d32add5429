"""Deletes old sessions, endings, counters and erased accounts, a few thousand rows at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from fastapi import Depends, Request
from sqlmodel import SQLModel, col

from contacts_api.accounts.models import AuthSession, EndedSession, FailedAttempt, User
from contacts_api.accounts.sessions import LEEWAY_SECONDS
from contacts_api.database import Database, table_of

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
RETRY_SECONDS = 10.0
BITE_ROWS = 5000
ERASE_SECONDS = 1.0
"""How long a request that deletes an account waits for its rows to be deleted. The rest is deleted afterwards."""


def _bite(
    table: sa.Table, which: sa.ColumnElement[bool], order: sa.ColumnExpressionArgument[Any] | None = None
) -> sa.Select[Any]:
    """Return the statement that deletes up to BITE_ROWS of these rows, and returns how many it deleted."""
    keys = sa.select(*table.primary_key).where(which).order_by(order).limit(sa.literal(BITE_ROWS))
    gone = sa.delete(table).where(which, sa.tuple_(*table.primary_key).in_(keys)).returning(sa.literal(1)).cte("gone")
    return sa.select(sa.func.count().label("deleted")).select_from(gone)


@cache
def _bites_of_owner() -> list[sa.Select[Any]]:
    """Return such a statement for each table of rows that belong to the user `owner_id`, referring tables first."""
    return [
        _bite(table, key.parent == sa.bindparam("owner_id", type_=sa.Uuid))
        for table in reversed(SQLModel.metadata.sorted_tables)
        for key in table.foreign_keys
        if key.column is table_of(User).c.id
    ]


_KEPT = sa.bindparam("kept", type_=sa.Interval)
_SESSIONS = _bite(table_of(AuthSession), col(AuthSession.expires_at) < sa.func.now(), col(AuthSession.expires_at))
_ENDINGS = _bite(table_of(EndedSession), col(EndedSession.ended_at) < sa.func.now() - _KEPT, col(EndedSession.ended_at))
# Counters of accounts with no failed sign-in for a day.
_ATTEMPTS = _bite(
    table_of(FailedAttempt), col(FailedAttempt.failed_at) < sa.func.now() - _KEPT, col(FailedAttempt.failed_at)
)
_ERASED = sa.select(col(User.id)).where(col(User.erased_at).is_not(None)).limit(sa.literal(100))
_FORGET_USER = sa.delete(User).where(col(User.id) == sa.bindparam("owner_id"), col(User.erased_at).is_not(None))


class Cleanup:
    """Deletes what is old. Each kind has a task of its own, so that a failing or slow one does not stop the others."""

    def __init__(self, database: Database, access_token_seconds: int) -> None:
        self._database = database
        # As long as an access token may be taken.
        kept = timedelta(seconds=access_token_seconds + 2 * LEEWAY_SECONDS)
        self._sweeps: tuple[Callable[[], Awaitable[object]], ...] = (
            self._erase_all,
            lambda: self._delete(_SESSIONS),
            lambda: self._delete(_ENDINGS, kept=kept),
            lambda: self._delete(_ATTEMPTS, kept=timedelta(days=1)),
        )
        self._erasing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Delete what is old every SWEEP_SECONDS, until cancelled."""
        await asyncio.gather(*(self._repeat(sweep) for sweep in self._sweeps))

    async def sweep(self) -> None:
        """Delete all that is old. Raises the first error, after all sweeps have ended."""
        done = await asyncio.gather(*(sweep() for sweep in self._sweeps), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def erase(self, owner_id: UUID) -> None:
        """Delete the rows of an erased account. After ERASE_SECONDS this goes on in the background."""
        # In a context of its own, so that it goes on when the client of this request has gone.
        erasing = asyncio.create_task(self._erase_at_last(owner_id), context=Context())
        self._erasing.add(erasing)
        erasing.add_done_callback(self._erasing.discard)
        await asyncio.wait([erasing], timeout=ERASE_SECONDS)

    async def _erase_at_last(self, owner_id: UUID) -> None:
        while True:
            try:
                await self._erase(owner_id)
                return
            except Exception as error:
                logger.warning("cannot delete all of an account yet: %s", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _erase_all(self) -> None:
        while erased := await self._database.read(_ERASED):
            for (owner_id,) in erased:
                await self._erase(owner_id)

    async def _erase(self, owner_id: UUID) -> None:
        for bite in _bites_of_owner():
            await self._delete(bite, owner_id=owner_id)
        await self._database.execute(_FORGET_USER, owner_id=owner_id)

    async def _delete(self, bite: sa.Select[Any], **parameters: Any) -> None:
        """Delete until nothing is left. After each statement, pause for half as long as it took."""
        while True:
            begun_at = time.monotonic()
            ((deleted,),) = await self._database.execute(bite, **parameters)
            if deleted < BITE_ROWS:
                return
            await asyncio.sleep((time.monotonic() - begun_at) / 2)

    async def _repeat(self, sweep: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await sweep()
                await asyncio.sleep(SWEEP_SECONDS)
            except Exception as error:
                logger.warning("cannot delete what is past: %s", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)


async def get_cleanup(request: Request) -> Cleanup:
    cleanup: Cleanup = request.app.state.cleanup
    return cleanup


AccountCleanup: TypeAlias = Annotated[Cleanup, Depends(get_cleanup)]
