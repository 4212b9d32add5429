"""Keyset pagination: each page of a list continues after the last row of the previous page.

A `Listing` holds the SQL statements of a list, and `Pager` responds with one page of it. `Cursors` encodes positions as
authenticated strings, so that clients can store but not forge them.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, case, func, or_, select, true, tuple_
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from contacts_api.database.connecting import Row
from contacts_api.database.engine import Reader
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.http.answers import PRIVATE, json_answer
from contacts_api.http.errors import problem_of
from contacts_api.problems import Busy, DatabaseUnavailable, Invalid
from contacts_api.text import OneLine

T = TypeVar("T")
Position: TypeAlias = Mapping[str, str]
"""A position in a list: the sort keys of the last row returned, as text. Empty for the beginning."""

# `pages_of` reads few rows first, to respond quickly. After that, larger pages cost less overall.
FIRST_ROWS, PAGE_ROWS = 100, 1000
PAGE_BYTES = 2 * 1024 * 1024
"""A page ends with the row that exceeds this size, in bytes."""
STEP_ROWS = 100
"""The maximum number of rows that one statement reads for a page. Each row may be as large as a request body."""
WAIT_SECONDS, PAUSE_SECONDS = 30.0, 0.5
"""How long `pages_of` retries while the database is busy or unavailable, and the pause between two tries."""
_MAC_BYTES = 16


class Page(BaseModel, Generic[T]):
    """One page of a list. `next_cursor` leads to the next page, and is null on the last."""

    items: list[T] = Field(description="What this part of the list has, in its order.")
    next_cursor: str | None = Field(
        description="Send it as `cursor` to get the next part; null on the last.", examples=[None]
    )


class PageQuery(BaseModel):
    """The query parameters of every paginated list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=500, description="How many items at most.", examples=[50])
    cursor: Annotated[
        str | None,
        OneLine,
        Field(
            description="`next_cursor` of the page before, with the same sort and filters.",
            examples=["ZlJ8cX1vS2pQeXc0b3VhZ3siaWQiOiIwMWEyMjA0MiJ9"],
        ),
    ] = None


class InvalidCursor(Invalid):
    """The cursor was modified, or belongs to a list with other filters or another sort."""

    advice = "Leave it out to start again; follow the Link header to go on."
    code, title = "invalid_cursor", "The cursor does not belong to this list"
    detail = "Take it from next_cursor as it is, with the same sort and filters."
    loc = ("query", "cursor")


class Listing:
    """The SQL statements of a list that is sorted by `keys`. The keys are columns of its rows, and the last is unique.

    `first` selects at most `limit` rows from the beginning, `rest` at most `limit` rows after a position.

    With `size`, the size of a row in bytes, both stop after the row that reaches PAGE_BYTES. With `found`, a condition,
    both scan `limit` rows and return the matching ones and the last one. The column `is_found` marks the matches.
    """

    def __init__(
        self,
        rows: Select[Any],
        *keys: ColumnElement[Any],
        descending: bool = False,
        size: ColumnElement[int] | None = None,
        found: ColumnElement[bool] | None = None,
    ) -> None:
        self._parsers = {str(key.key): TypeAdapter(key.type.python_type) for key in keys}
        self._keys, self._descending = keys, descending
        first = rows.order_by(*self.order_of()).limit(bindparam("limit", type_=BigInteger))
        here, there = tuple_(*keys), tuple_(*(bindparam(f"after_{key.key}", type_=key.type) for key in keys))
        rest = first.where(here < there if descending else here > there)
        if size is not None:
            first, rest = (
                self._bound(statement, size, true() if found is None else found) for statement in (first, rest)
            )
        self.first, self.rest = first, rest

    def _bound(self, statement: Select[Any], size: ColumnElement[int], found: ColumnElement[bool]) -> Select[Any]:
        page = statement.add_columns(size.label("size"), found.label("is_found")).subquery("page")
        order = self.order_of(page.c)
        before = func.sum(case((page.c.is_found, page.c.size))).over(order_by=order, rows=(None, -1))
        is_last = func.lead(page.c.is_found).over(order_by=order).is_(None)
        sized = select(page, func.coalesce(before, 0).label("before"), is_last.label("is_last")).subquery("sized")
        columns = [sized.c[str(column.key)] for column in statement.selected_columns]
        return (
            select(*columns, sized.c.is_found)
            .where(sized.c.before < PAGE_BYTES, or_(sized.c.is_found, sized.c.is_last))
            .order_by(*self.order_of(sized.c))
        )

    def keys_of(self, columns: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[Any]]:
        """Return the key columns of a subquery."""
        return [columns[str(key.key)] for key in self._keys]

    def order_of(self, columns: ReadOnlyColumnCollection[str, Any] | None = None) -> list[ColumnElement[Any]]:
        """Return the ORDER BY expressions of the list, or of a subquery with these columns."""
        keys = self._keys if columns is None else self.keys_of(columns)
        return [key.desc() if self._descending else key.asc() for key in keys]

    async def read(self, database: Reader, limit: int, position: Position, **parameters: Any) -> list[Row]:
        """Return the rows after the position, as `read_in_steps` does."""

        async def read_step(limit: int, position: Position) -> list[Row]:
            return await self.read_at_once(database, limit, position, **parameters)

        return await read_in_steps(read_step, self, limit, position)

    async def read_at_once(self, database: Reader, limit: int, position: Position, **parameters: Any) -> list[Row]:
        statement = self.rest if position else self.first
        return await database.read(statement, limit=limit, **parameters, **self.after(position))

    def after(self, position: Position) -> dict[str, Any]:
        """Return the parameters of `rest` for a position."""
        return {
            f"after_{name}": key.validate_strings(position[name])
            for name, key in self._parsers.items()
            if name in position
        }

    def position_of(self, row: Row) -> dict[str, str]:
        return {name: str(row[name]) for name in self._parsers}


async def read_in_steps(
    read: Callable[[int, Position], Awaitable[Sequence[Row]]], listing: Listing, limit: int, position: Position
) -> list[Row]:
    """Return at most `limit` rows after the position. Calls `read` for at most STEP_ROWS rows at a time.

    Stops early once the rows exceed PAGE_BYTES. The result then has at least one row more than the page, if the list
    continues.
    """
    rows: list[Row] = []
    while True:
        step = min(STEP_ROWS, limit - len(rows))
        found = await read(step, position)
        rows += found
        if len(found) < step or len(rows) == limit or count_fitting(rows[:-1]) is not None:
            return rows
        position = listing.position_of(found[-1])


def count_fitting(rows: Sequence[Row]) -> int | None:
    """Return how many rows fill a page, including the one that exceeds PAGE_BYTES. None if all rows fit."""
    size = 0
    for n, row in enumerate(rows, 1):
        size += len(row["details"])
        if size > PAGE_BYTES:
            return n
    return None


async def pages_of(database: Reader, listing: Listing, **parameters: Any) -> AsyncIterator[list[Row]]:
    """Yield all rows of a list, page by page.

    If the database is busy or unavailable, the first page fails at once, because the response can still be an error.
    Later pages are retried for WAIT_SECONDS.
    """
    position: dict[str, str] = {}
    limit, give_up_at = FIRST_ROWS, float("inf")
    while True:
        try:
            rows = await listing.read_at_once(database, limit, position, **parameters)
        except (*DATABASE_ERRORS, Busy) as error:
            give_up_at = min(give_up_at, time.monotonic() + WAIT_SECONDS)
            is_passing = isinstance(problem_of(error), Busy | DatabaseUnavailable)
            if not position or not is_passing or time.monotonic() >= give_up_at:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        if not rows:
            return
        yield rows
        limit, position, give_up_at = PAGE_ROWS, listing.position_of(rows[-1]), float("inf")


class Cursors:
    """Encodes and decodes cursors. A cursor is a position with a MAC that binds it to one list.

    The MAC is HMAC-SHA256 (RFC 2104), truncated to 128 bits, with a key derived from `secret`. It covers the owner, the
    sort and the filters of the list, which are not stored in the cursor.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"cursor", hashlib.sha256)

    def write(self, position: Position, *which: object) -> str:
        payload = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(payload, which) + payload).rstrip(b"=").decode()

    def read(self, cursor: str, *which: object) -> dict[str, str]:
        """Return the position in `cursor`. Raises InvalidCursor if it was modified or belongs to another list."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise InvalidCursor from None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload, which)):
            raise InvalidCursor
        position: dict[str, str] = json.loads(payload)
        # Unused bits at the end of Base64 allow several texts for the same bytes. Accept only the text that we write.
        if self.write(position, *which) != cursor:
            raise InvalidCursor
        return position

    def _mac(self, payload: bytes, which: tuple[object, ...]) -> bytes:
        return hmac.digest(self._key, repr(which).encode() + b"\0" + payload, hashlib.sha256)[:_MAC_BYTES]


class Pager:
    """Decodes the cursor of a request, and responds with the page after it. `which` identifies the list."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._cursors: Cursors = request.app.state.cursors
        self.database: Reader = request.app.state.reader

    def position(self, query: PageQuery, *which: object) -> dict[str, str]:
        return self._cursors.read(query.cursor, self._path(), *which) if query.cursor is not None else {}

    async def page(
        self, listing: Listing, query: PageQuery, to_item: Callable[[Row], Any], **parameters: Any
    ) -> Response:
        """Respond with a page of the listing. `parameters` are the parameters of its statements."""
        which = sorted(parameters.items())
        rows = await listing.read(self.database, query.limit + 1, self.position(query, which), **parameters)
        return self.answer(listing, query, rows, to_item, which)

    def answer(
        self,
        listing: Listing,
        query: PageQuery,
        rows: Sequence[Row],
        to_item: Callable[[Row], Any],
        *which: object,
        keep: Position | None = None,
        limit: int | None = None,
        **members: Any,
    ) -> Response:
        """Respond with a page of these rows.

        Takes up to `query.limit` + 1 rows. The extra row means that there is a next page. `limit` makes the page
        shorter. `keep` is stored in the cursor together with the position.
        """
        headers, next_cursor = dict(PRIVATE), None
        limit = limit or query.limit
        items, more = rows[:limit], rows[limit:]
        if more:
            next_cursor = self._cursors.write({**(keep or {}), **listing.position_of(items[-1])}, self._path(), *which)
            path = self._request.scope["root_path"] + self._path()
            kept = [(name, value) for name, value in self._request.query_params.multi_items() if name != "cursor"]
            headers["Link"] = f'<{path}?{urlencode([*kept, ("cursor", next_cursor)])}>; rel="next"'
        return json_answer({"items": [to_item(row) for row in items], "next_cursor": next_cursor, **members}, headers)

    def _path(self) -> str:
        path: str = self._request.scope["path"]
        return path.removeprefix(self._request.scope["root_path"])


async def get_pager(request: Request) -> Pager:
    return Pager(request)


Pages: TypeAlias = Annotated[Pager, Depends(get_pager)]
"""Responds with pages of lists."""
