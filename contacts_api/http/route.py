"""The route class of the API. It checks the media type, the query parameters and the body size, and sets a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any, TypeAlias

from fastapi import Request as FastAPIRequest
from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.database.waiting import REQUEST_SECONDS, has_come
from contacts_api.http.bodies import BodyLimit, Request
from contacts_api.http.query import NO_PARAMETERS, QueryParameters
from contacts_api.problems import BodyTooLarge, Busy, Invalid, InvalidJSON, UnsupportedMediaType, documented

NO_ENCODING = {"Accept-Encoding": "identity"}
Handler: TypeAlias = Callable[[FastAPIRequest], Coroutine[Any, Any, Response]]


# Whether FastAPI has validated the current request.
_is_validated: ContextVar[bool] = ContextVar("is_validated", default=False)


def _note_validation(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint, which FastAPI calls once it has validated a request."""

    @wraps(endpoint)
    async def call(*arguments: Any, **values: Any) -> Any:
        _is_validated.set(True)
        return await endpoint(*arguments, **values)

    return call


class Route(APIRoute):
    """A route that rejects other media types and undeclared query parameters."""

    seconds = REQUEST_SECONDS
    check_sender: Callable[[FastAPIRequest], Awaitable[object]] | None = None
    """Awaited before more than 64 KiB of a body are read."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        signature = inspect.signature(endpoint)
        options["operation_id"] = endpoint.__name__
        if signature.return_annotation is None:
            # An endpoint that returns None sends no body, so it needs no media type.
            options["response_class"] = Response
        # FastAPI's constructor calls get_route_handler() below, which sets self.query.
        super().__init__(path, _note_validation(endpoint), **options)
        annotations = [parameter.annotation for parameter in signature.parameters.values()]
        marks = [mark for annotation in annotations for mark in getattr(annotation, "__metadata__", ())]
        self.body_limit = next((mark for mark in marks if isinstance(mark, BodyLimit)), None)
        documented_parameters = [
            *(self.openapi_extra or {}).get("parameters", ()),
            *(self.query.parameters() if self.query else ()),
        ]
        self.openapi_extra = {**(self.openapi_extra or {}), "parameters": documented_parameters}
        body_problems = (InvalidJSON, BodyTooLarge, UnsupportedMediaType) if self.body_field else ()
        self.responses = documented(Invalid, *body_problems, onto=self.responses)

    def get_route_handler(self) -> Handler:
        self.query = _find_query(self.dependant)
        # Validate the query last, so that a 401 or a 404 takes precedence over its 422.
        self.dependant.dependencies.sort(key=lambda dependant: _find_query(dependant) is not None)
        without_query = with_query = super().get_route_handler()
        if self.query is None:
            # A second handler, for requests with a query string, rejects all parameters. FastAPI builds it from
            # self.dependant. Using it for all requests would cost 25 µs of CPU more per request.
            refuse_all = get_dependant(path=self.path_format, call=NO_PARAMETERS)
            self.dependant = replace(self.dependant, dependencies=[*self.dependant.dependencies, refuse_all])
            with_query = super().get_route_handler()
        accepted = self._media_types()

        async def read_and_handle(request: FastAPIRequest) -> Response:
            request = Request(request.scope, request.receive)
            _is_validated.set(False)
            request.check_sender = self.check_sender
            if self.body_limit:
                request.max_bytes = self.body_limit.of(request.app.state.settings)
            if self.body_field:
                if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
                    # RFC 9110, 15.5.16
                    raise UnsupportedMediaType("Send it without Content-Encoding.", headers=NO_ENCODING)
                request.refuse_announced()
                media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if media_type not in accepted and await request.has_body():
                    # RFC 9110, 15.5.16, and RFC 5789, 3.1.
                    name = "Accept-Patch" if self.methods == {"PATCH"} else "Accept"
                    detail = f"Send it as {' or '.join(accepted)}."
                    raise UnsupportedMediaType(detail, headers={name: ", ".join(accepted)})
            try:
                return await self.run(with_query if request.scope["query_string"] else without_query, request)
            except ClientDisconnect:
                raise Invalid.field("body", code="malformed", detail="The body did not come whole.") from None
            except (*DATABASE_ERRORS, Busy):
                if not _is_validated.get():
                    await self._refuse_invalid(request)
                raise

        return read_and_handle

    async def run(self, handle: Handler, request: FastAPIRequest) -> Response:
        """Read the body, then call `handle` with a deadline of `seconds`. Reading has no deadline here. Raises Busy."""
        if self.body_field:
            await request.body()
        has_come(request)
        try:
            async with asyncio.timeout(self.seconds) as deadline:
                return await handle(request)
        except TimeoutError:
            if deadline.expired():
                raise Busy from None
            raise

    async def _refuse_invalid(self, request: Request) -> None:
        """Raise RequestValidationError if the JSON body is invalid, so that it gets a 422 even if the database is down.

        FastAPI validates a body only after the dependencies, and authentication may need the database.
        """
        if self.body_field and not isinstance(self.body_field.field_info, params.Form):
            body = await request.json() if await request.body() else None
            errors = self.body_field.validate(body, loc=("body",))[1]
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


def _find_query(dependant: Dependant) -> QueryParameters[Any] | None:
    """Return the QueryParameters among a dependant and its dependencies, or None."""
    if isinstance(dependant.call, QueryParameters):
        return dependant.call
    return next(filter(None, map(_find_query, dependant.dependencies)), None)
