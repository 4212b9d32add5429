"""What HTTP asks of every route alike: limits, media types, request ids, HEAD, the log."""

import inspect
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Query, params
from fastapi import Request as FastAPIRequest
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from contacts_api.errors import (
    BodyTooLarge,
    InternalError,
    Invalid,
    InvalidJSON,
    Problem,
    UnsupportedMediaType,
    documented,
)

logger = logging.getLogger("contacts_api.access")

BODY_BYTES = 64 * 1024


class Request(FastAPIRequest):
    """A request whose body has a limit, and whose JSON is JSON (RFC 8259): no NaN, no lone surrogate."""

    async def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > BODY_BYTES:
                raise BodyTooLarge(f"It may have at most {BODY_BYTES:,} bytes.")
            yield chunk

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError:
            raise InvalidJSON.field("body", detail="The body must be one JSON value, in UTF-8.") from None


class OriginRefused(Problem):
    status, code, title = 403, "origin_refused", "No page of this origin may make such a request"


class NoQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")


async def forbid_query(query: Annotated[NoQuery, Query()]) -> None:
    """Refuse query parameters; as any error of validation, only once the caller is known to be let in."""


class Route(APIRoute):
    """A route that reads bodies of its own media types only, and no query parameter that it does not declare."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        parameters = inspect.signature(endpoint).parameters.values()
        markers = (marker for p in parameters for marker in getattr(p.annotation, "__metadata__", ()))
        if not any(isinstance(marker, params.Query) for marker in markers):
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(forbid_query)]
        super().__init__(path, endpoint, **options)
        body_problems = (InvalidJSON, BodyTooLarge, UnsupportedMediaType) if self.body_field else ()
        self.responses = documented(Invalid, *body_problems, onto=self.responses)

    def get_route_handler(self) -> Callable[[FastAPIRequest], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        taken = self._media_types()

        async def read_and_handle(request: FastAPIRequest) -> Response:
            request = Request(request.scope, request.receive)
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if taken and media_type not in taken and await request.body():
                raise UnsupportedMediaType(f"Send it as {taken[0]}.")
            return await handle(request)

        return read_and_handle

    def _media_types(self) -> tuple[str, ...]:
        if self.body_field is None:
            return ()
        if isinstance(self.body_field.field_info, params.Form):
            return ("application/x-www-form-urlencoded",)
        if self.methods == {"PATCH"}:
            return ("application/json", "application/merge-patch+json")
        return ("application/json",)


class RequestLog:
    """Gives every request an id, answers HEAD where GET is answered, and writes one line to the log.

    The line has the path without its query, which may hold names, addresses and keys.
    """

    _SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        request_id = self._request_id(scope)
        status = 0

        async def send_tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            if _is_utf8(scope["query_string"]):
                await self.app(inner, receive, send_tagged)
            else:
                await Invalid("The query string must be UTF-8.").response()(inner, receive, send_tagged)
        except Exception:
            logger.exception("request %s failed", request_id.decode())
            if status:
                raise
            await InternalError().response()(inner, receive, send_tagged)
        finally:
            logger.info(
                "%s %s %d %.1fms %s",
                scope["method"],
                scope["raw_path"].decode("ascii", "backslashreplace")[:200],
                status,
                (time.perf_counter() - started_at) * 1000,
                request_id.decode(),
            )

    def _request_id(self, scope: Scope) -> bytes:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and self._SANE_ID.fullmatch(value):
                return bytes(value)
        return uuid7().hex.encode()


class CORS(CORSMiddleware):
    """Starlette's, refusing as everything else here does."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else OriginRefused().response()


def _is_utf8(query_string: bytes) -> bool:
    try:
        unquote_to_bytes(query_string).decode()
    except UnicodeDecodeError:
        return False
    return True
