"""Deletes old sessions, ended sessions, keys, mails, failure counters and erased accounts, in batches."""

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
# The number of concurrent batches. The other connections are for requests, even if opening a connection takes long.
BITES_AT_ONCE = 2
# The class of the advisory locks. Any number works if nothing else in the database locks it.
SWEEPING = 726_542_032
ERASE_SECONDS = 1.0
"""How long a request that deletes an account waits for its rows to be deleted. The rest goes on in the background."""


def _bite(
    table: sa.Table,
    which: sa.ColumnElement[bool],
    turn_of: sa.ColumnElement[str],
    order: sa.ColumnExpressionArgument[Any] | None = None,
    key: Sequence[sa.ColumnElement[Any]] = (),
) -> sa.Select[Any]:
    """Return a statement that deletes up to BITE_ROWS of these rows, unless another worker is deleting them.

    It selects the rows by their primary key, or by another `key`. It returns two columns: `is_ours`, which is false if
    another worker holds the lock that `turn_of` names, and `deleted`, the number of deleted rows.

    The advisory lock belongs to the transaction, because session locks do not work through a connection pooler.
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
    """Return a `_bite` statement for each table with rows of the user `owner_id`."""
    owner_id = sa.bindparam("owner_id", type_=sa.Uuid)
    return [_bite(owner.table, owner == owner_id, sa.cast(owner_id, sa.Text)) for owner in reversed(owner_columns())]


def _bite_before(time: Any, moment: sa.ColumnElement[datetime], *key: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Return a `_bite` statement for the rows whose `time` is before `moment`, oldest first, by the index on `time`."""
    table: sa.Table = time.table
    return _bite(table, time < moment, sa.literal(table.name), time, key)


_KEPT = sa.func.now() - sa.bindparam("kept", type_=sa.Interval)
_SESSIONS = _bite_before(table_of(AuthSession).c.expires_at, sa.func.now())
_KEYS = _bite_before(table_of(AccessKey).c.expires_at, sa.func.now())
_MAIL = table_of(Mail)
# Mails that are done and no longer counted, and mails that nobody sends because SMTP_URL is no longer set.
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
# Counters of accounts without a failed sign-in for a day. A flood leaves millions, so they are deleted by `ctid`.
# Rows of the same time lie together in the table, while their keys, which are hashes, are spread over the whole index.
_ATTEMPTS = _bite_before(table_of(FailedAttempt).c.failed_at, _KEPT, sa.literal_column("ctid"))
_ERASED = sa.select(col(User.id)).where(col(User.erased_at).is_not(None)).limit(sa.literal(100))
_FORGET_USER = sa.delete(User).where(col(User.id) == sa.bindparam("owner_id"), col(User.erased_at).is_not(None))


class Cleanup:
    """Deletes old rows. Each kind has its own task, so that a failing or slow one does not stop the others."""

    def __init__(self, database: Database, patient: Database, access_token_seconds: int) -> None:
        """`patient` connects to the same database, for statements that may take long."""
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
        """Delete old rows every SWEEP_SECONDS, until cancelled."""
        await asyncio.gather(*(self._repeat(sweep) for sweep in self._sweeps))

    async def sweep(self) -> None:
        """Delete all old rows. Raises the first error after all sweeps have ended."""
        done = await asyncio.gather(*(sweep() for sweep in self._sweeps), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def erase(self, owner_id: UUID) -> None:
        """Delete the rows of an erased account. After ERASE_SECONDS, this continues in the background."""
        # An empty context, so that the deletion continues if the client of this request disconnects.
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
        """Delete the rows of an erased account, then the account. Return False if another worker is deleting them."""
        # If this fails, deleting may take a minute longer.
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
        """Run `bite` until no rows are left. Return False as soon as another worker is deleting them.

        After each statement, pause for half of its duration.
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
