"""Keys for scripts: Bearer tokens that give access only to contacts and outlive sessions. Only their hash is stored."""

import base64
import binascii
import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col
from uuid_utils.compat import uuid7

from contacts_api.accounts.events import log_event
from contacts_api.accounts.models import AccessKey, KeyCreate, Scope, User
from contacts_api.accounts.sessions import Claims, while_signed_in
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Database, from_state, table_of
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.problems import Busy, NotFound, Problem, TooMany

PREFIX = "ck_"
# Trust a key this long after a lookup. Below a second, so that a deleted key stops working everywhere within a second.
FRESH_SECONDS = 0.8
MAX_REMEMBERED = 4096
# Update `last_used_at` at most this often.
USED_SECONDS = 60.0
_SECRET_BYTES = 32

_key = table_of(AccessKey).c
_OF_OWNER = _key.owner_id == sa.bindparam("owner_id")
_OWN = (_OF_OWNER, _key.id == sa.bindparam("key_id"))
_IS_VALID = sa.or_(_key.expires_at.is_(None), _key.expires_at > sa.func.now())
_SHOWN = [_key[name] for name in ("id", "name", "scope", "expires_at", "created_at", "last_used_at")]
_COUNT = sa.select(sa.func.count()).where(_OF_OWNER, _IS_VALID)
_CREATE = sa.insert(table_of(AccessKey)).returning(*_SHOWN)
_LIST = sa.select(*_SHOWN).where(_OF_OWNER, _IS_VALID).order_by(_key.id)
_DELETE = sa.delete(table_of(AccessKey)).where(*_OWN).returning(_key.id)
_FIND = (
    sa.select(_key.key_hash, _key.scope, _key.last_used_at)
    .join(User, col(User.id) == _key.owner_id)
    .where(*_OWN, _IS_VALID, col(User.is_active))
)
_USE = sa.update(table_of(AccessKey)).where(*_OWN).values(last_used_at=sa.bindparam("now"))
END_KEYS = sa.delete(table_of(AccessKey)).where(_OF_OWNER)
"""Delete all keys of `owner_id`."""


class KeyNotAllowed(Problem):
    """The request needs a sign-in instead of a key, or it writes and the key may only read."""

    advice = "Use a key for contacts alone, and one with the scope `write` to change them. For all else, sign in."
    status, code, title = 403, "key_not_allowed", "A key is not allowed here"


class KeyNotFound(NotFound):
    """You have no key with this id."""

    advice = "List your keys: GET /auth/keys."
    code, title = "key_not_found", "Key not found"


class TooManyKeys(TooMany):
    detail = "An account may have at most 100 keys."

    def __init__(self, max_keys: int) -> None:
        super().__init__(f"An account may have at most {max_keys:,} keys.")


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """The owner and the scope of a key."""

    user_id: UUID
    scope: Scope


class Keys:
    """The keys of all users, with a cache of the keys that this worker has just looked up."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered: dict[str, tuple[float, KeyClaims]] = {}

    async def create(self, owner: Claims, new: KeyCreate, max_keys: int) -> dict[str, Any]:
        """Create a key and return it with its text. Raises TooManyKeys, and InvalidToken if the session has ended."""
        owner_id = owner.user_id
        key_id, secret = uuid7(), secrets.token_bytes(_SECRET_BYTES)
        values = {"owner_id": owner_id, "id": key_id, "key_hash": sha256(secret).digest(), **new.model_dump()}
        async with while_signed_in(self._database, owner) as session:
            if (await session.scalar(_COUNT, {"owner_id": owner_id}) or 0) >= max_keys:
                raise TooManyKeys(max_keys)
            row = (await session.execute(_CREATE, values)).mappings().one()
        log_event("key_made", user_id=owner_id, key_id=key_id)
        return {**row, "key": _written(owner_id, key_id, secret)}

    async def list(self, owner_id: UUID) -> list[Row]:
        return await self._database.read(_LIST, owner_id=owner_id)

    async def delete(self, owner_id: UUID, key_id: UUID) -> None:
        """Delete a key. Raises KeyNotFound."""
        if not await self._database.execute(_DELETE, owner_id=owner_id, key_id=key_id):
            raise KeyNotFound
        log_event("key_deleted", user_id=owner_id, key_id=key_id)

    async def find(self, text: str) -> KeyClaims | None:
        """Return the claims of a key, or None if it is not valid (any more)."""
        asked_at = time.monotonic()
        found_at, claims = self._remembered.get(text, (float("-inf"), None))
        if asked_at - found_at <= FRESH_SECONDS:
            return claims
        self._remembered.pop(text, None)
        if (parts := _read(text)) is None:
            return None
        owner_id, key_id, secret = parts
        rows = await self._database.read(_FIND, owner_id=owner_id, key_id=key_id)
        if not rows or not hmac.compare_digest(rows[0].key_hash, sha256(secret).digest()):
            return None
        now, last_used_at = datetime.now(UTC), rows[0].last_used_at
        if last_used_at is None or now - last_used_at > timedelta(seconds=USED_SECONDS):
            # If the database accepts no writes, the key still works.
            with suppress(*DATABASE_ERRORS, Busy):
                await self._database.execute(_USE, owner_id=owner_id, key_id=key_id, now=now)
        claims = KeyClaims(owner_id, rows[0].scope)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[text] = asked_at, claims
        return claims


def _written(owner_id: UUID, key_id: UUID, secret: bytes) -> str:
    """Return the text of a key: the id of the owner, the id of the key, and 256 random bits, in base64url."""
    return PREFIX + base64.urlsafe_b64encode(owner_id.bytes + key_id.bytes + secret).rstrip(b"=").decode()


def _read(text: str) -> tuple[UUID, UUID, bytes] | None:
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX) + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 2 * 16 + _SECRET_BYTES:
        return None
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32]), raw[32:]


AccessKeys: TypeAlias = Annotated[Keys, from_state("keys")]
