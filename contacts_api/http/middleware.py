"""Middleware: request ids, HEAD, the access log, and a 500 for unhandled errors."""

import logging
import re
import time
from contextvars import ContextVar
from urllib.parse import unquote_to_bytes

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.problems import Busy, InternalError, Invalid

logger = logging.getLogger("contacts_api.access")

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# The scope key of the request id.
_ID = "contacts_api.request_id"
_scope: ContextVar[Scope] = ContextVar("scope")
# Replaced in logs, because a proxy may forward any text as the client's address.
_NOT_IN_ADDRESSES = re.compile(r"[^0-9A-Za-z.:%_-]")


def describe_request() -> dict[str, str]:
    """Return the `client` address and the `request_id` of the current request. Empty outside a request."""
    scope = _scope.get(None)
    if scope is None:
        return {}
    # Clients of a Unix socket have no address.
    host = scope["client"][0] if scope.get("client") else ""
    client = {"client": _NOT_IN_ADDRESSES.sub("?", host[:64])} if host else {}
    return {**client, "request_id": scope[_ID]}


class AccessLog:
    """The outermost middleware. It

    - gives every request an id,
    - handles HEAD as GET without a body,
    - writes one log line per request, without the query string, which may contain names, addresses and keys,
    - removes the query string from OpenTelemetry traces.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        request_id = _request_id(scope)
        if "fastapi.telemetry" in scope and scope["query_string"]:
            trace.get_current_span().set_attribute("url.query", "not recorded")
        status = 0

        async def send_tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        # Copy the scope: uvicorn reads the method from its own to decide whether to send a body.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner_scope = {**scope, "method": method, _ID: request_id.decode()}
        token = _scope.set(inner_scope)
        try:
            await self.app(inner_scope, receive, send_tagged)
        finally:
            _scope.reset(token)
            logger.info(
                "%s %s %d %.1fms %s",
                scope["method"],
                scope["raw_path"].decode("ascii", "backslashreplace")[:200],
                status,
                (time.perf_counter() - started_at) * 1000,
                request_id.decode(),
            )


class LastResort:
    """Rejects query strings that are not UTF-8, and responds to unhandled exceptions with a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        app = self.app
        try:
            unquote_to_bytes(scope["query_string"]).decode()
        except UnicodeDecodeError:
            app = Invalid.field("query", code="malformed", detail="The query string must be UTF-8.").response(
                scope["root_path"]
            )
        try:
            await app(scope, receive, send_noted)
        except Exception as error:
            # If the response has started, Starlette wraps a handled exception in its own.
            cause = error.__cause__ or error
            if has_begun and isinstance(cause, (*DATABASE_ERRORS, Busy)):
                # uvicorn closes the connection and logs it.
                logger.info("request %s broke off: %s", scope[_ID], type(cause).__name__)
                return
            logger.exception("request %s failed", scope[_ID])
            if has_begun:
                raise
            await InternalError().response(scope.get("root_path", ""))(scope, receive, send)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return bytes(value)
    return uuid7().hex.encode()
