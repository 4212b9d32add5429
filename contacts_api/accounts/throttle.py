"""Throttling of wrong passwords. They are counted in PostgreSQL, so that all workers share the count.

After ten consecutive failures, an account is blocked for 30 seconds. Each further failure doubles this time, up to 15
minutes.
"""

import hashlib
from datetime import timedelta
from math import ceil

import sqlalchemy as sa

from contacts_api.database.engine import Database
from contacts_api.problems import RETRY_AFTER, Problem

FREE_FAILURES = 10
SHORTEST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=15)

_SECONDS_LEFT = sa.text(
    "SELECT extract(epoch FROM blocked_until - now()) FROM failed_attempt WHERE key = :key AND blocked_until > now()"
)
# The exponent is limited, because the interval would overflow otherwise.
_COUNT = sa.text(
    """
    INSERT INTO failed_attempt AS counted (key, failures) VALUES (:key, 1)
    ON CONFLICT (key) DO UPDATE SET
        failures = counted.failures + 1,
        failed_at = now(),
        blocked_until = CASE WHEN counted.failures + 1 >= :free THEN
            now() + least(:shortest * power(2, least(counted.failures + 1 - :free, 10)), :longest)
        END
    """
).bindparams(free=FREE_FAILURES, shortest=SHORTEST_WAIT, longest=LONGEST_WAIT)
_FORGET = sa.text("DELETE FROM failed_attempt WHERE key IN (:first, :last)")


class TooManyAttempts(Problem):
    """At least ten consecutive wrong passwords were tried for this account."""

    advice = "Wait for the seconds that Retry-After names. Sessions that are signed in go on."
    status, code, title = 429, "too_many_attempts", "Too many wrong passwords; wait before the next"

    headers = RETRY_AFTER

    def __init__(self, seconds: float) -> None:
        super().__init__(headers={"Retry-After": str(ceil(seconds))})


def key_of(kind: str, account: str) -> bytes:
    """Return the key that failures are counted under.

    It is a hash, because people sometimes type a password into the e-mail field.
    """
    return hashlib.sha256(f"{kind}:{account}".encode(errors="surrogatepass")).digest()


async def refuse_while_waiting(database: Database, key: bytes) -> None:
    if rows := await database.read(_SECONDS_LEFT, key=key):
        raise TooManyAttempts(float(rows[0][0]))


async def count_failure(database: Database, *keys: bytes) -> None:
    for key in keys:
        await database.execute(_COUNT, key=key)


async def forget(database: Database, *keys: bytes) -> None:
    """Forget the failures counted under one or two keys."""
    await database.execute(_FORGET, first=keys[0], last=keys[-1])
