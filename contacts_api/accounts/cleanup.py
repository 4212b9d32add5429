"""Deletes old sessions, keys, endings, counters and erased accounts, a few thousand rows at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from contacts_api.accounts.mail import COUNTED, KEPT
from contacts_api.accounts.models import AccessKey, AuthSession, EndedSession, FailedAttempt, Mail, User
from contacts_api.accounts.sessions import kept_seconds
from contacts_api.database.engine import Database, from_state, owner_columns, renew_statistics, table_of
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.problems import Busy

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
RETRY_SECONDS = 10.0
BITE_ROWS = 5000
# The other connections are for requests, also where opening one takes long.
BITES_AT_ONCE = 2
# Any number will do, as long as nothing else in the database locks it.
SWEEPING = 726_542_032
ERASE_SECONDS = 1.0
"""How long a request that deletes an account waits for its rows to be deleted. The rest is deleted afterwards."""


def _bite(
    table: sa.Table,
    which: sa.ColumnElement[bool],
    turn_of: sa.ColumnElement[str],
    order: sa.ColumnExpressionArgument[Any] | None = None,
    key: Sequence[sa.ColumnElement[Any]] = (),
) -> sa.Select[Any]:
    """Return the statement that deletes up to BITE_ROWS of these rows, unless another worker is at it.

    The rows are found by their primary key, or by another `key`.
    It returns whether it was our turn, which `turn_of` names, and how many rows it deleted. (An advisory lock of a
    transaction: those of a session do not go through a pooler.)
    """
    lock = sa.func.pg_try_advisory_xact_lock(SWEEPING, sa.func.hashtext(turn_of))
    turn = sa.select(lock.label("is_ours")).cte("turn").prefix_with("MATERIALIZED")
    is_ours = sa.select(turn.c.is_ours).scalar_subquery()
    key = key or tuple(table.primary_key)
    keys = sa.select(*key).select_from(table).where(is_ours, which).order_by(order).limit(sa.literal(BITE_ROWS))
    gone = sa.delete(table).where(which, sa.tuple_(*key).in_(keys)).returning(sa.literal(1)).cte("gone")
    return sa.select(is_ours.label("is_ours"), sa.func.count().label("deleted")).select_from(gone)


@cache
def _bites_of_owner() -> list[sa.Select[Any]]:
    """Return such a statement for each table of rows that belong to the user `owner_id`."""
    owner_id = sa.bindparam("owner_id", type_=sa.Uuid)
    return [_bite(owner.table, owner == owner_id, sa.cast(owner_id, sa.Text)) for owner in reversed(owner_columns())]


def _bite_before(time: Any, moment: sa.ColumnElement[datetime], *key: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Return such a statement for the rows of before a moment, the oldest first, by the index on `time`."""
    table: sa.Table = time.table
    return _bite(table, time < moment, sa.literal(table.name), time, key)


_KEPT = sa.func.now() - sa.bindparam("kept", type_=sa.Interval)
_SESSIONS = _bite_before(table_of(AuthSession).c.expires_at, sa.func.now())
_KEYS = _bite_before(table_of(AccessKey).c.expires_at, sa.func.now())
_MAIL = table_of(Mail)
# Those that were sent and are not counted any more; and those that nobody sends, since SMTP_URL is no longer set.
_MAILS = _bite(
    _MAIL,
    sa.and_(
        _MAIL.c.created_at < sa.func.now() - COUNTED,
        sa.or_(_MAIL.c.done_at.is_not(None), _MAIL.c.created_at < sa.func.now() - 2 * KEPT),
    ),
    sa.literal("mail"),
    _MAIL.c.created_at,
)
_ENDINGS = _bite_before(table_of(EndedSession).c.ended_at, _KEPT)
# Counters of accounts with no failed sign-in for a day. A flood leaves millions, so they are deleted by where they lie:
# those of one time lie together, and their keys, which are hashes, all over the index.
_ATTEMPTS = _bite_before(table_of(FailedAttempt).c.failed_at, _KEPT, sa.literal_column("ctid"))
_ERASED = sa.select(col(User.id)).where(col(User.erased_at).is_not(None)).limit(sa.literal(100))
_FORGET_USER = sa.delete(User).where(col(User.id) == sa.bindparam("owner_id"), col(User.erased_at).is_not(None))


class Cleanup:
    """Deletes what is old. Each kind has a task of its own, so that a failing or slow one does not stop the others."""

    def __init__(self, database: Database, patient: Database, access_token_seconds: int) -> None:
        """`patient` is the way to the same database for statements that may take long."""
        self._database = database
        self._patient = patient
        kept = timedelta(seconds=kept_seconds(access_token_seconds))
        self._sweeps: tuple[Callable[[], Awaitable[object]], ...] = (
            self._erase_all,
            lambda: self._delete(_SESSIONS),
            lambda: self._delete(_KEYS),
            lambda: self._delete(_MAILS),
            lambda: self._delete(_ENDINGS, kept=kept),
            lambda: self._delete(_ATTEMPTS, kept=timedelta(days=1)),
        )
        self._erasing: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(BITES_AT_ONCE)

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
                if not await self._erase(owner_id):
                    return

    async def _erase(self, owner_id: UUID) -> bool:
        """Delete the rows of an erased account, and then the account; return False if another worker is at it."""
        # Should this fail, deleting may take a minute more.
        with suppress(*DATABASE_ERRORS, Busy):
            async with self._patient.session() as session:
                for owner in owner_columns():
                    await renew_statistics(session, owner)
        for bite in _bites_of_owner():
            if not await self._delete(bite, owner_id=owner_id):
                return False
        await self._database.execute(_FORGET_USER, owner_id=owner_id)
        return True

    async def _delete(self, bite: sa.Select[Any], **parameters: Any) -> bool:
        """Delete until nothing is left; return False as soon as another worker is at it.

        After each statement, pause for half as long as it took.
        """
        while True:
            async with self._turns:
                begun_at = time.monotonic()
                ((is_ours, deleted),) = await self._database.execute(bite, **parameters)
            if deleted < BITE_ROWS:
                return bool(is_ours)
            await asyncio.sleep((time.monotonic() - begun_at) / 2)

    async def _repeat(self, sweep: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await sweep()
                await asyncio.sleep(SWEEP_SECONDS)
            except Exception as error:
                logger.warning("cannot delete what is past: %s", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)


AccountCleanup: TypeAlias = Annotated[Cleanup, from_state("cleanup")]
