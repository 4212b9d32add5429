"""The secret keys in calendar addresses. A key gives access to the birthdays until it is replaced or revoked."""

import hashlib
import secrets
from uuid import UUID

from contacts_api.accounts.sessions import Claims, while_signed_in
from contacts_api.database.engine import Database
from contacts_api.features.feed import queries
from contacts_api.problems import Unauthorized


class InvalidFeedKey(Unauthorized):
    """The key in the address does not belong to a calendar, or the address has been replaced."""

    advice = "Make a new address by POST /contacts/birthdays/feed, and subscribe to that."
    code, title = "invalid_feed_key", "This address of the calendar is not valid, or has been replaced"


async def open_feed(database: Database, owner: Claims) -> str:
    """Create a key, which replaces the previous one, and return it: the owner's id and 256 random bits.

    Only a hash of the random bits is stored. Raises InvalidToken if the session has ended.
    """
    secret = secrets.token_urlsafe(32)
    async with while_signed_in(database, owner) as session:
        await session.execute(queries.OPEN_FEED, {"owner_id": owner.user_id, "key_hash": _hash(secret)})
    return f"{owner.user_id.hex}.{secret}"


async def find_feed(database: Database, key: str) -> UUID:
    """Return the id of the key's owner. Raises InvalidFeedKey."""
    owner, _, secret = key.partition(".")
    try:
        owner_id = UUID(owner)
    except ValueError:
        raise InvalidFeedKey from None
    if not await database.read(queries.FIND_FEED, owner_id=owner_id, key_hash=_hash(secret)):
        raise InvalidFeedKey
    return owner_id


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
