"""Answers in JSON: what the database has returned as rows becomes text here, and nowhere else."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from contacts_api.text import format_timestamp

JSON = "application/json"
PRIVATE = {"Cache-Control": "private, no-cache"}


def json_answer(content: Any, headers: Mapping[str, str], status: int = 200) -> Response:
    """Return `content` as JSON. Rows are made ready by `as_json`."""
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, dict(headers), JSON)


def as_json(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return these members of a row as `json_answer` takes them: its `id`, and the time of its creation and change."""
    members = {name: row[name] for name in names}
    # orjson does not take asyncpg's subclass of UUID, and leaves out the six digits of a second where all are zero.
    members["id"] = str(members["id"])
    for name in ("created_at", "updated_at"):
        if name in members and not members[name].microsecond:
            members[name] = format_timestamp(members[name])
    return members


async def streamed(pieces: AsyncIterator[bytes], media_type: str, headers: dict[str, str]) -> Response:
    # An answer that has begun can no longer say that the database is away.
    first = await anext(pieces)

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(content(), headers=headers, media_type=media_type)


def file_of(media_type: str, example: bytes, *headers: str) -> dict[int | str, dict[str, Any]]:
    """Return what documents the answer with a file."""
    content = {"schema": {"type": "string"}, "example": example.decode("utf-8-sig")}
    return {200: {**with_headers(*headers), "content": {media_type: content}}}


def with_headers(*headers: str) -> dict[str, Any]:
    """Return what documents the headers of a response."""
    return {"headers": {name: {"schema": {"type": "string"}} for name in headers}}
