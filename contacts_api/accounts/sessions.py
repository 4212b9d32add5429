"""Sessions: a sign-in opens one, a refresh rotates its tokens, and its end reaches every worker within a second."""

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

# An access token is taken for this much longer, since the clocks of servers differ.
LEEWAY_SECONDS = 30
# A refresh token may be used a second time within this time: the answer to the first may have been lost.
GRACE_SECONDS = 10
# A worker reads the ended sessions this often. When its copy is older than FRESH_SECONDS, it looks each session up.
POLL_SECONDS = 0.5
FRESH_SECONDS = 1.0
MAX_SESSIONS = 100
# A row has the time when its transaction began, and shows when it commits: each reading goes back this far.
OVERLAP_SECONDS = 30.0
BITE_ROWS = 2000
"""How many ended sessions are read at a time."""

_SESSION = table_of(AuthSession)
_OWN = (_SESSION.c.user_id == sa.bindparam("owner_id"), _SESSION.c.id == sa.bindparam("session_id"))
_LIVE = _SESSION.c.expires_at > sa.func.now()

# Sign-ins to an account share this lock, and a change of its password takes it exclusively. So a session that is opened
# with the old password is committed before the change ends all sessions, or it is not opened. An advisory lock, because
# on Citus a lock on a row of "user", a reference table, needs every node; this one needs only the coordinator.
_LOCK_KEY = sa.func.hashtextextended(sa.cast(sa.bindparam("owner_id", type_=sa.Uuid), sa.Text), 0)
_SHARE_SIGN_INS = sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK_KEY))
LOCK_SIGN_INS = sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY))
"""Wait for the sign-ins to `owner_id` under way, and make new ones wait until the transaction ends."""

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
    """Return the statement that ends the sessions of `owner_id` that meet these conditions, and returns their ids."""
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
"""End the sessions of `owner_id`: all, `only` one, or all `but` one. Returns the ids of those that ended."""

_newest_first = sa.select(_SESSION.c.id).where(_of_owner).order_by(_SESSION.c.created_at.desc(), _SESSION.c.id.desc())
_END_OLDEST = _end(_SESSION.c.id.in_(_newest_first.offset(sa.literal(MAX_SESSIONS, sa.Integer))))
_LIST = sa.select(_SESSION).where(_of_owner, _LIVE).order_by(_SESSION.c.id)
IS_LIVE = sa.select(sa.literal(1)).where(*_OWN, _LIVE)
_NOW = sa.select(sa.cast(sa.extract("epoch", sa.func.now()), sa.Double))
# Names no owner: every worker needs the ended sessions of all users. Times are in seconds.
_ENDED_AFTER = sa.text(
    """
    SELECT id, extract(epoch FROM ended_at)::float8 AS ended_at
    FROM ended_session WHERE (ended_session.ended_at, id) > (to_timestamp(:after), :last_id)
    ORDER BY ended_session.ended_at, id LIMIT :bite
    """
).bindparams(sa.bindparam("after", type_=sa.Double), sa.bindparam("last_id", type_=sa.Uuid))


def kept_seconds(access_token_seconds: int) -> int:
    """Return how long the end of a session is remembered: as long as one of its access tokens may be taken."""
    return access_token_seconds + 2 * LEEWAY_SECONDS


class InvalidToken(Unauthorized):
    """The access token is too old, its session has ended, or it is not one of ours."""

    advice = "Get the next pair of tokens by POST /auth/refresh; if that is refused, sign in again."
    code, title = "invalid_token", "The token is invalid or no longer valid"
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}  # noqa: RUF012 (RFC 6750, 3.1)


class InvalidRefreshToken(Unauthorized):
    """The refresh token was used before, its session has ended, or it is too old."""

    advice = "Sign in again. Keep only the newest pair of tokens."
    code, title = "invalid_refresh_token", "The refresh token is invalid or no longer valid; sign in again"


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token: its session and, for a refresh token, its place in the sequence (`seq`)."""

    user_id: UUID
    session_id: UUID
    expires_at: int
    seq: int | None = None


@asynccontextmanager
async def while_signed_in(database: Database, owner: Claims) -> AsyncIterator[AsyncSession]:
    """Yield a transaction in which the session of `owner` has not ended. Raises InvalidToken if it has.

    Use it to make what outlives the session, such as a key. The account is locked, as it is by whatever ends its
    sessions and keys: what is made before that is ended by it, and nothing is made afterwards.
    """
    async with database.session() as session:
        await session.execute(_LOCK_ACCOUNT, {"owner_id": owner.user_id})
        if not await session.scalar(IS_LIVE, {"owner_id": owner.user_id, "session_id": owner.session_id}):
            raise InvalidToken
        yield session


class Sessions:
    """The sessions of all users. Each statement is committed by itself."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._idle = timedelta(seconds=settings.refresh_token_seconds)
        self._lifetime = timedelta(seconds=settings.session_seconds)

    async def open(self, user: User, user_agent: str | None) -> Any:
        """Return the row of a new session; None if the account has changed since `user` was read.

        If there are more than MAX_SESSIONS, the oldest end.
        """
        new = {"session_id": uuid7(), "user_agent": user_agent, "idle": self._idle, "lifetime": self._lifetime}
        async with self._database.session() as session:
            await session.execute(_SHARE_SIGN_INS, {"owner_id": user.id})
            checked = {"owner_id": user.id, "hashed_password": user.hashed_password}
            if not await session.scalar(_IS_UNCHANGED, checked):
                return None
            row = (await session.execute(_OPEN, {"owner_id": user.id, **new})).one()
        log_event("signed_in", user_id=user.id, session_id=row.id)
        # After the commit, so that of several sign-ins at once the last one counts all sessions.
        for ended in await self._database.execute(_END_OLDEST, owner_id=user.id):
            log_event("sessions_ended", user_id=user.id, session_id=ended.id)
        return row

    async def rotate(self, claims: Claims) -> Row:
        """Return the row of the session after a refresh with the token of these claims.

        The newest token raises `seq`. The one before it, within GRACE_SECONDS, is a retry: the row stays as it is.
        Any other old token is treated as stolen: the session ends, which is committed, and then InvalidRefreshToken is
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
        """End all sessions of the user, or `only` one. Return True if there were any."""
        has_ended = await self._end(user_id, only)
        if has_ended:
            log_event("sessions_ended", user_id=user_id, session_id=only)
        return has_ended

    async def sign_out(self, claims: Claims) -> None:
        """End the session of a token, unless it has ended before."""
        if await self._end(claims.user_id, claims.session_id):
            log_event("signed_out", user_id=claims.user_id, session_id=claims.session_id)

    async def _end(self, user_id: UUID, only: UUID | None) -> bool:
        return bool(await self._database.execute(END, owner_id=user_id, only=only, but=None))


class EndedSessions:
    """A worker's copy of the sessions that ended while their access tokens are still valid.

    It is read once when the worker starts, a few thousand rows at a time. From then on only what is new is read, over a
    connection of its own (`watch`), so that it never waits for requests.
    """

    def __init__(self, watch: Database, database: Database, access_token_seconds: int) -> None:
        self._watch, self._database = watch, database
        self._kept = kept_seconds(access_token_seconds)
        # Roughly in the order in which they ended, so that `_forget` can stop at the first one that is still needed.
        self._ended_at: dict[UUID, float] = {}
        # By the database's clock.
        self._as_of = 0.0
        self._read_at = float("-inf")

    async def has_ended(self, claims: Claims) -> bool:
        """Say whether the session has ended. Asks the database only if the copy is older than FRESH_SECONDS."""
        if time.monotonic() - self._read_at <= FRESH_SECONDS:
            return claims.session_id in self._ended_at
        return not await self._database.read(IS_LIVE, owner_id=claims.user_id, session_id=claims.session_id)

    async def watch(self) -> None:
        """Keep the copy fresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception as error:
                # The next attempt may succeed. Until then every request looks up its own session.
                logger.warning("cannot read the ended sessions: %s", type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Read what has ended since the last time."""
        asked_at = time.monotonic()
        ((now,),) = await self._watch.read(_NOW)
        # After a failover the clock of the database may be behind.
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
        """Drop those whose access tokens have expired."""
        expired = takewhile(lambda session: session[1] < self._as_of - self._kept, self._ended_at.items())
        for session_id, _ in list(expired):
            del self._ended_at[session_id]


OpenSessions: TypeAlias = Annotated[Sessions, from_state("sessions")]
