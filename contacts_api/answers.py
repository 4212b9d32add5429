"""Answers in JSON: what the database has returned as rows becomes text here, and nowhere else."""

from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response, StreamingResponse

from contacts_api.text import format_timestamp

JSON = "application/json"
PRIVATE = {"Cache-Control": "private, no-cache"}


def json_answer(content: Any, headers: Mapping[str, str], status: int = 200) -> Response:
    """Return `content` as JSON: dates and ids as text, moments in UTC with six digits of the second."""
    body = orjson.dumps(content, default=_as_text, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return Response(body, status, dict(headers), JSON)


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, date):
        return value.isoformat()
    # asyncpg's UUID is a subclass, which orjson itself does not take.
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


async def streamed(pieces: AsyncIterator[bytes], media_type: str, headers: dict[str, str]) -> Response:
    # An answer that has begun can no longer say that the database is away.
    first = await anext(pieces)

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(content(), headers=headers, media_type=media_type)


def file_of(media_type: str, *headers: str) -> dict[int | str, dict[str, Any]]:
    """Return what documents the answer with a file."""
    return {200: {**with_headers(*headers), "content": {media_type: {"schema": {"type": "string"}}}}}


def with_headers(*headers: str) -> dict[str, Any]:
    """Return what documents the headers of a response."""
    return {"headers": {name: {"schema": {"type": "string"}} for name in headers}}
