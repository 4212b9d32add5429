"""Builds JSON and streaming responses. Rows from the database are serialized only here."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from contacts_api.text import format_timestamp

JSON = "application/json"
PRIVATE = {"Cache-Control": "private, no-cache"}


def json_answer(content: Any, headers: Mapping[str, str], status: int = 200) -> Response:
    """Return `content` as a JSON response. Prepare rows with `as_json` first."""
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, dict(headers), JSON)


def as_json(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return these columns of a row as JSON members for `json_answer`. Formats `id`, `created_at` and `updated_at`."""
    members = {name: row[name] for name in names}
    # orjson does not accept asyncpg's subclass of UUID, and omits the microseconds if they are zero.
    members["id"] = str(members["id"])
    for name in ("created_at", "updated_at"):
        if name in members and not members[name].microsecond:
            members[name] = format_timestamp(members[name])
    return members


async def streamed(pieces: AsyncIterator[bytes], media_type: str, headers: dict[str, str]) -> Response:
    # Read the first piece before the response starts, so that a database error can still become a 503.
    first = await anext(pieces)

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(content(), headers=headers, media_type=media_type)


def file_of(media_type: str, example: bytes, *headers: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a file response."""
    content = {"schema": {"type": "string"}, "example": example.decode("utf-8-sig")}
    return {200: {**with_headers(*headers), "content": {media_type: content}}}


def with_headers(*headers: str) -> dict[str, Any]:
    """Return the OpenAPI description of response headers."""
    return {"headers": {name: {"schema": {"type": "string"}} for name in headers}}
