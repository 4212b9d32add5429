"""What HTTP asks of every route alike: limits, media types, request ids, HEAD, the log."""

import asyncio
import inspect
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, get_args
from urllib.parse import unquote_to_bytes

from fastapi import Request as FastAPIRequest
from fastapi import params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from contacts_api.bodies import BodyLimit, Request, name_few
from contacts_api.errors import (
    DATABASE_ERRORS,
    BodyTooLarge,
    InternalError,
    Invalid,
    InvalidJSON,
    Problem,
    UnsupportedMediaType,
    documented,
)
from contacts_api.waiting import REQUEST_SECONDS, Busy, has_come

logger = logging.getLogger("contacts_api.access")


class OriginRefused(Problem):
    status, code, title = 403, "origin_refused", "No page of this origin may make such a request"


class NoQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _read_query(endpoint: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the endpoint with its query read by us, and the OpenAPI document of the query.

    FastAPI's own way, field by field, took a sixth of the CPU of a search. As errors
    of the query come after the dependencies, a caller that is not let in is told so first.
    """
    signature = inspect.signature(endpoint)
    others, requests, name, model = [], [], "", NoQuery
    for parameter in signature.parameters.values():
        if any(isinstance(marker, params.Query) for marker in getattr(parameter.annotation, "__metadata__", ())):
            name, model = parameter.name, get_args(parameter.annotation)[0]
        elif parameter.annotation is FastAPIRequest:
            # FastAPI passes the request to one parameter only.
            requests.append(parameter.name)
        else:
            others.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

    @wraps(endpoint)
    async def read_and_run(*, _request: FastAPIRequest, **arguments: Any) -> Any:
        if name or _request.scope["query_string"]:
            try:
                query = model.model_validate(name_few(model, dict(_request.query_params)))
            except ValidationError as error:
                details = error.errors()
                raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in details]) from None
            if name:
                arguments[name] = query
        return await endpoint(**arguments, **dict.fromkeys(requests, _request))

    ours = inspect.Parameter("_request", inspect.Parameter.KEYWORD_ONLY, annotation=FastAPIRequest)
    read_and_run.__signature__ = signature.replace(parameters=[*others, ours])  # type: ignore[attr-defined]
    document = model.model_json_schema() if name else {}
    required = document.get("required", ())
    documents = [
        {
            "name": key,
            "in": "query",
            "required": key in required,
            "schema": schema,
            "description": schema["description"],
        }
        for key, schema in document.get("properties", {}).items()
    ]
    return read_and_run, {"parameters": documents} if documents else {}


class Route(APIRoute):
    """A route that reads bodies of its own media types only, and no query parameter that it does not declare."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        parameters = inspect.signature(endpoint).parameters.values()
        markers = [marker for p in parameters for marker in getattr(p.annotation, "__metadata__", ())]
        self.body_limit = next((marker for marker in markers if isinstance(marker, BodyLimit)), None)
        endpoint, document_of_query = _read_query(endpoint)
        options["openapi_extra"] = {**(options.get("openapi_extra") or {}), **document_of_query}
        super().__init__(path, endpoint, **{**options, "operation_id": endpoint.__name__})
        body_problems = (InvalidJSON, BodyTooLarge, UnsupportedMediaType) if self.body_field else ()
        self.responses = documented(Invalid, *body_problems, onto=self.responses)

    def get_route_handler(self) -> Callable[[FastAPIRequest], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        taken = self._media_types()

        async def read_and_handle(request: FastAPIRequest) -> Response:
            request = Request(request.scope, request.receive)
            request.body_field = self.body_field
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.body_limit:
                request.max_bytes = self.body_limit.of(request.app.state.settings)
            if self.body_field:
                request.refuse_announced()
            if taken and media_type not in taken and await request.has_body():
                raise UnsupportedMediaType(f"Send it as {taken[0]}.")
            try:
                async with self.admitted(request):
                    return await handle(request)
            except ClientDisconnect:
                raise Invalid.field("body", detail="The body did not come whole.") from None
            except RequestValidationError:
                if request.refused:
                    raise RequestValidationError(request.refused) from None
                raise
            except (*DATABASE_ERRORS, Busy):
                await self._refuse_invalid(request)
                raise

        return read_and_handle

    @asynccontextmanager
    async def admitted(self, request: FastAPIRequest) -> AsyncIterator[None]:
        """Read the body, which is of a type that is taken, and bound the time that the rest takes."""
        if self.body_field:
            await request.body()
        has_come(request)
        async with asyncio.timeout(REQUEST_SECONDS):
            yield

    async def _refuse_invalid(self, request: Request) -> None:
        """Raise what is wrong with a JSON body anyway: to wait for the database would be in vain."""
        if self.body_field and not isinstance(self.body_field.field_info, params.Form):
            body = await request.json()
            errors = request.refused or self.body_field.validate(body, loc=("body",))[1]
            if errors:
                raise RequestValidationError(errors)

    def _media_types(self) -> tuple[str, ...]:
        if self.body_field is None:
            return ()
        if isinstance(self.body_field.field_info, params.File):
            return ("multipart/form-data",)
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
                await Invalid.field("query", detail="The query string must be UTF-8.").response()(
                    inner, receive, send_tagged
                )
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
