"""Sessions: sign-in opens one, refresh rotates its tokens. All workers learn within a second that one has ended."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningInsert
from sqlmodel import col
from uuid_utils.compat import uuid7

from contacts_api.accounts.events import log_event
from contacts_api.accounts.models import AuthSession, EndedSession, User
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Database, from_state, table_of
from contacts_api.problems import Unauthorized
from contacts_api.settings import Settings

logger = logging.getLogger(__name__)

# Accept an access token for this long after it expires, because server clocks differ.
LEEWAY_SECONDS = 30
# Accept the previous refresh token for this long after a refresh, because the response may have been lost.
GRACE_SECONDS = 10
# Workers poll the ended sessions. A worker whose copy is older than FRESH_SECONDS queries each session instead.
POLL_SECONDS = 0.5
FRESH_SECONDS = 1.0
MAX_SESSIONS = 100
# `ended_at` is the start of a transaction, but the row is visible only after the commit. Each poll goes back this far.
OVERLAP_SECONDS = 30.0
BITE_ROWS = 2000
"""The maximum number of ended sessions read in one query."""

_SESSION = table_of(AuthSession)
_OWN = (_SESSION.c.user_id == sa.bindparam("owner_id"), _SESSION.c.id == sa.bindparam("session_id"))
_LIVE = _SESSION.c.expires_at > sa.func.now()

# Signing in takes this lock in shared mode; changing the password takes it exclusively. A sign-in with the old password
# therefore either commits before the change, which ends its session, or opens no session.
# It is an advisory lock because it needs only the coordinator on Citus. A row lock on "user", a reference table, needs
# every node.
_LOCK_KEY = sa.func.hashtextextended(sa.cast(sa.bindparam("owner_id", type_=sa.Uuid), sa.Text), 0)
_SHARE_SIGN_INS = sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK_KEY))
LOCK_SIGN_INS = sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY))
"""Wait for running sign-ins of `owner_id`, and block new ones until the transaction ends."""

_IS_UNCHANGED = sa.select(sa.literal(1)).where(
    col(User.id) == sa.bindparam("owner_id"),
    col(User.hashed_password) == sa.bindparam("hashed_password"),
    col(User.is_active),
)
_OPEN = sa.text(
    """
    INSERT INTO auth_session (user_id, id, seq, expires_at, ends_at, user_agent)
    VALUES (
        :owner_id, :session_id, 0, now() + least(CAST(:idle AS interval), CAST(:lifetime AS interval)),
        now() + CAST(:lifetime AS interval), :user_agent
    )
    RETURNING *
    """
)
_LOCK_ACCOUNT = sa.select(col(User.id)).where(col(User.id) == sa.bindparam("owner_id")).with_for_update(key_share=True)
_ROTATE = sa.text(
    """
    UPDATE auth_session
    SET seq = seq + 1, refreshed_at = now(), expires_at = least(now() + CAST(:idle AS interval), ends_at)
    WHERE user_id = :owner_id AND id = :session_id AND seq = :presented AND expires_at > now()
    RETURNING *
    """
)
_CURRENT = sa.select(
    _SESSION, (_SESSION.c.refreshed_at > sa.func.now() - timedelta(seconds=GRACE_SECONDS)).label("in_grace")
).where(*_OWN, _LIVE)
_of_owner = _SESSION.c.user_id == sa.bindparam("owner_id")


def _end(*conditions: sa.ColumnElement[bool]) -> ReturningInsert[tuple[UUID]]:
    """Return a statement that ends the sessions of `owner_id` that meet all conditions. It returns their ids."""
    ended = sa.delete(_SESSION).where(_of_owner, *conditions).returning(_SESSION.c.id).cte("ended")
    return (
        insert(table_of(EndedSession))
        .from_select(["id"], sa.select(ended.c.id), include_defaults=False)
        .on_conflict_do_nothing()
        .returning(col(EndedSession.id))
    )


END = _end(
    sa.or_(sa.bindparam("only", type_=sa.Uuid).is_(None), _SESSION.c.id == sa.bindparam("only", type_=sa.Uuid)),
    sa.or_(sa.bindparam("but", type_=sa.Uuid).is_(None), _SESSION.c.id != sa.bindparam("but", type_=sa.Uuid)),
)
"""End the sessions of `owner_id`: all, `only` one, or all `but` one. Returns the ids of the ended sessions."""

_newest_first = sa.select(_SESSION.c.id).where(_of_owner).order_by(_SESSION.c.created_at.desc(), _SESSION.c.id.desc())
_END_OLDEST = _end(_SESSION.c.id.in_(_newest_first.offset(sa.literal(MAX_SESSIONS, sa.Integer))))
_LIST = sa.select(_SESSION).where(_of_owner, _LIVE).order_by(_SESSION.c.id)
IS_LIVE = sa.select(sa.literal(1)).where(*_OWN, _LIVE)
_NOW = sa.select(sa.cast(sa.extract("epoch", sa.func.now()), sa.Double))
# Not limited to one owner, because every worker needs the ended sessions of all users. Times are Unix times in seconds.
_ENDED_AFTER = sa.text(
    """
    SELECT id, extract(epoch FROM ended_at)::float8 AS ended_at
    FROM ended_session WHERE (ended_session.ended_at, id) > (to_timestamp(:after), :last_id)
    ORDER BY ended_session.ended_at, id LIMIT :bite
    """
).bindparams(sa.bindparam("after", type_=sa.Double), sa.bindparam("last_id", type_=sa.Uuid))


def kept_seconds(access_token_seconds: int) -> int:
    """Return how many seconds to remember an ended session: until none of its access tokens is accepted any longer."""
    return access_token_seconds + 2 * LEEWAY_SECONDS


class InvalidToken(Unauthorized):
    """The access token has expired, its session has ended, or this server did not issue it."""

    advice = "Get the next pair of tokens by POST /auth/refresh; if that is refused, sign in again."
    code, title = "invalid_token", "The token is invalid or no longer valid"
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}  # noqa: RUF012 (RFC 6750, 3.1)


class InvalidRefreshToken(Unauthorized):
    """The refresh token has already been used, its session has ended, or it has expired."""

    advice = "Sign in again. Keep only the newest pair of tokens."
    code, title = "invalid_refresh_token", "The refresh token is invalid or no longer valid; sign in again"


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token. `seq` is the number of a refresh token within its session; None for an access token."""

    user_id: UUID
    session_id: UUID
    expires_at: int
    seq: int | None = None


@asynccontextmanager
async def while_signed_in(database: Database, owner: Claims) -> AsyncIterator[AsyncSession]:
    """Yield a transaction in which the session of `owner` is valid. Raises InvalidToken if the session has ended.

    Use it to create things that outlive the session, such as a key. It locks the account, as does every request that
    ends the account's sessions and keys. Such a request therefore also ends keys created just before it, and no key can
    be created with the session afterwards.
    """
    async with database.session() as session:
        await session.execute(_LOCK_ACCOUNT, {"owner_id": owner.user_id})
        if not await session.scalar(IS_LIVE, {"owner_id": owner.user_id, "session_id": owner.session_id}):
            raise InvalidToken
        yield session


class Sessions:
    """The sessions of all users. Each method commits its own writes."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._idle = timedelta(seconds=settings.refresh_token_seconds)
        self._lifetime = timedelta(seconds=settings.session_seconds)

    async def open(self, user: User, user_agent: str | None) -> Any:
        """Open a session. Return its row, or None if the account has changed since `user` was read.

        If the user then has more than MAX_SESSIONS, the oldest sessions end.
        """
        new = {"session_id": uuid7(), "user_agent": user_agent, "idle": self._idle, "lifetime": self._lifetime}
        async with self._database.session() as session:
            await session.execute(_SHARE_SIGN_INS, {"owner_id": user.id})
            checked = {"owner_id": user.id, "hashed_password": user.hashed_password}
            if not await session.scalar(_IS_UNCHANGED, checked):
                return None
            row = (await session.execute(_OPEN, {"owner_id": user.id, **new})).one()
        log_event("signed_in", user_id=user.id, session_id=row.id)
        # Only after the commit, so that the last of several concurrent sign-ins counts all sessions.
        for ended in await self._database.execute(_END_OLDEST, owner_id=user.id):
            log_event("sessions_ended", user_id=user.id, session_id=ended.id)
        return row

    async def rotate(self, claims: Claims) -> Row:
        """Refresh a session with the token of these claims, and return its row. Raises InvalidRefreshToken.

        The newest token increments `seq`. The token before it counts as a retry within GRACE_SECONDS, and the row stays
        unchanged. Any other old token is treated as stolen, and the session ends. This is committed before the error is
        raised.
        """
        own = {"owner_id": claims.user_id, "session_id": claims.session_id}
        rotated = await self._database.execute(_ROTATE, presented=claims.seq, idle=self._idle, **own)
        if rotated:
            return rotated[0]
        found = await self._database.read(_CURRENT, **own)
        if not found or claims.seq is None or claims.seq > found[0].seq:
            raise InvalidRefreshToken
        (row,) = found
        if claims.seq + 1 < row.seq or not row.in_grace:
            if await self._end(claims.user_id, claims.session_id):
                log_event("refresh_token_reused", user_id=claims.user_id, session_id=claims.session_id)
            raise InvalidRefreshToken
        return row

    async def list(self, user_id: UUID) -> list[Row]:
        return await self._database.read(_LIST, owner_id=user_id)

    async def end(self, user_id: UUID, *, only: UUID | None = None) -> bool:
        """End all sessions of the user, or `only` one. Return True if any session ended."""
        has_ended = await self._end(user_id, only)
        if has_ended:
            log_event("sessions_ended", user_id=user_id, session_id=only)
        return has_ended

    async def sign_out(self, claims: Claims) -> None:
        """End the session of a token, unless it has already ended."""
        if await self._end(claims.user_id, claims.session_id):
            log_event("signed_out", user_id=claims.user_id, session_id=claims.session_id)

    async def _end(self, user_id: UUID, only: UUID | None) -> bool:
        return bool(await self._database.execute(END, owner_id=user_id, only=only, but=None))


class EndedSessions:
    """A worker's copy of the ended sessions whose access tokens may still be valid.

    The worker reads all of them when it starts, BITE_ROWS at a time, and later only the new ones. It reads through
    `watch`, a separate connection, so that it never waits for requests.
    """

    def __init__(self, watch: Database, database: Database, access_token_seconds: int) -> None:
        self._watch, self._database = watch, database
        self._kept = kept_seconds(access_token_seconds)
        # Roughly ordered by time, so that `_forget` can stop at the first session that is still needed.
        self._ended_at: dict[UUID, float] = {}
        # The time of the last read: by the database's clock, and by this worker's monotonic clock.
        self._as_of = 0.0
        self._read_at = float("-inf")

    async def has_ended(self, claims: Claims) -> bool:
        """Return True if the session has ended. Queries the database only if the copy is older than FRESH_SECONDS."""
        if time.monotonic() - self._read_at <= FRESH_SECONDS:
            return claims.session_id in self._ended_at
        return not await self._database.read(IS_LIVE, owner_id=claims.user_id, session_id=claims.session_id)

    async def watch(self) -> None:
        """Keep the copy fresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception as error:
                # The next attempt may succeed. Until then, each request queries its own session.
                logger.warning("cannot read the ended sessions: %s", type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Read the sessions that have ended since the last read."""
        asked_at = time.monotonic()
        ((now,),) = await self._watch.read(_NOW)
        # After a failover, the clock of the new database server may be behind.
        after, last_id = min(self._as_of, now) - OVERLAP_SECONDS, UUID(int=0)
        while rows := await self._watch.read(_ENDED_AFTER, after=after, last_id=last_id, bite=BITE_ROWS):
            self._ended_at.update(rows)
            after, last_id = rows[-1].ended_at, rows[-1].id
            if len(rows) < BITE_ROWS:
                break
        self._as_of = now
        self._forget()
        self._read_at = asked_at

    def _forget(self) -> None:
        """Drop the sessions whose access tokens have all expired."""
        expired = takewhile(lambda session: session[1] < self._as_of - self._kept, self._ended_at.items())
        for session_id, _ in list(expired):
            del self._ended_at[session_id]


OpenSessions: TypeAlias = Annotated[Sessions, from_state("sessions")]
