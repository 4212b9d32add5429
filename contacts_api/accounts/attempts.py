"""Throttling of wrong passwords. They are counted in PostgreSQL, so that all workers share the count."""

import hashlib
from datetime import timedelta
from math import ceil

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from contacts_api.accounts.models import FailedAttempt
from contacts_api.database import Database, table_of
from contacts_api.problems import RETRY_AFTER, Problem

FREE_FAILURES = 10
SHORTEST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=15)

_ATTEMPT = table_of(FailedAttempt)
_failures = _ATTEMPT.c.failures + 1
# The exponent is bounded, since an interval would overflow.
_next_wait = sa.func.least(SHORTEST_WAIT * sa.func.power(2, sa.func.least(_failures - FREE_FAILURES, 10)), LONGEST_WAIT)

_SECONDS_LEFT = sa.select(sa.extract("epoch", _ATTEMPT.c.blocked_until - sa.func.now())).where(
    _ATTEMPT.c.key == sa.bindparam("key"), _ATTEMPT.c.blocked_until > sa.func.now()
)
_COUNT = (
    insert(_ATTEMPT)
    .values(key=sa.bindparam("key"), failures=sa.literal(1))
    .on_conflict_do_update(
        index_elements=["key"],
        set_={
            "failures": _failures,
            "failed_at": sa.func.now(),
            "blocked_until": sa.case((_failures >= FREE_FAILURES, sa.func.now() + _next_wait)),
        },
    )
)
_FORGET = sa.delete(_ATTEMPT).where(_ATTEMPT.c.key.in_([sa.bindparam("first"), sa.bindparam("last")]))


class TooManyAttempts(Problem):
    """Ten wrong passwords in a row were tried for this account."""

    advice = "Wait for the seconds that Retry-After names. Sessions that are signed in go on."
    status, code, title = 429, "too_many_attempts", "Too many wrong passwords; wait before the next"

    headers = RETRY_AFTER

    def __init__(self, seconds: float) -> None:
        super().__init__(headers={"Retry-After": str(ceil(seconds))})


def key_of(kind: str, account: str) -> bytes:
    """Return the key that failures are counted by. A hash, since people type passwords into the e-mail field."""
    return hashlib.sha256(f"{kind}:{account}".encode(errors="surrogatepass")).digest()


class Attempts:
    """After ten failures in a row an account waits: 30 seconds, then twice as long each time, at most 15 minutes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def refuse_while_waiting(self, key: bytes) -> None:
        if rows := await self._database.read(_SECONDS_LEFT, key=key):
            raise TooManyAttempts(float(rows[0][0]))

    async def count_failure(self, *keys: bytes) -> None:
        for key in keys:
            await self._database.execute(_COUNT, key=key)

    async def forget(self, *keys: bytes) -> None:
        """Forget the failures counted by one key or two."""
        await self._database.execute(_FORGET, first=keys[0], last=keys[-1])
