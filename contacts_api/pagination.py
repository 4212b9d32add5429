"""Pages that continue where the one before ended (keyset pagination)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from contacts_api.problems import Invalid
from contacts_api.text import OneLine

T = TypeVar("T")

_MAC_BYTES = 16


class Page(BaseModel, Generic[T]):
    """A part of a list. `next_cursor` leads to the next part; null on the last."""

    items: list[T]
    next_cursor: str | None


class PageQuery(BaseModel):
    """The query parameters of every list that comes in pages."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=500, description="How many items at most.")] = 50
    cursor: Annotated[
        str | None, OneLine, Field(description="`next_cursor` of the page before, with the same sort and filters.")
    ] = None


class InvalidCursor(Invalid):
    code, title = "invalid_cursor", "The cursor does not belong to this list"
    detail = "Take it from next_cursor as it is, with the same sort and filters."
    loc = ("query", "cursor")


class Cursors:
    """Writes and reads cursors: a position in a list, authenticated with the list it belongs to.

    `secret` keys the authentication (HMAC-SHA256, RFC 2104, cut to 128 bits). What identifies
    the list (whose it is, its sort, its filters) is authenticated but not stored in the cursor.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"cursor", hashlib.sha256)

    def write(self, position: Mapping[str, str], *which: object) -> str:
        payload = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(payload, which) + payload).rstrip(b"=").decode()

    def read(self, cursor: str, *which: object) -> dict[str, str]:
        """Return the position in `cursor`. Raises InvalidCursor for any other list's, or a changed one."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise InvalidCursor from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload, which)):
            raise InvalidCursor
        position: dict[str, str] = json.loads(payload)
        # Base64 has spare bits at its end: two texts may decode to the same bytes.
        if self.write(position, *which) != cursor:
            raise InvalidCursor
        return position

    def _mac(self, payload: bytes, which: tuple[object, ...]) -> bytes:
        return hmac.digest(self._key, repr(which).encode() + b"\0" + payload, hashlib.sha256)[:_MAC_BYTES]
