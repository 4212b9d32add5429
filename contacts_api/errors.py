"""Every answer that reports an error, as problem+json (RFC 9457)."""

import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from http import HTTPStatus
from typing import Any, ClassVar

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
# A body of 64 KiB has room for thousands of unknown fields.
MAX_ERRORS = 100
RETRY_AFTER = {"Retry-After": "1"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class FieldError(BaseModel):
    """One rule that one field broke."""

    loc: list[str | int]
    code: str
    detail: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457); `code` is the word for a program to switch on."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """An answer other than success. A subclass owns its status, code and title."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldError] = (),
    ) -> None:
        super().__init__(self.status, detail or f"{self.title}.", dict(headers or {}))
        self.errors = list(errors)
        self.members: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        body = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        errors = {"errors": [error.model_dump() for error in self.errors]} if self.errors else {}
        return {**body, "code": self.code, **errors, **self.members}

    def response(self) -> Response:
        return JSONResponse(self.body(), self.status, self.headers, media_type=PROBLEM_JSON)


class NotFound(Problem):
    status, code, title = 404, "not_found", "Nothing is at this address"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method_not_allowed", "This address does not take this method"


class BodyTooLarge(Problem):
    status, code, title = 413, "body_too_large", "The body is too large"


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported_media_type", "The body is of a type that is not taken here"


class Invalid(Problem):
    status, code, title = 422, "validation_error", "The request breaks a rule"

    @classmethod
    def field(cls, *loc: str, code: str | None = None, detail: str) -> "Invalid":
        """Return the problem that one field has."""
        return cls(detail, errors=[FieldError(loc=list(loc), code=code or cls.code, detail=detail)])


class TooMany(Invalid):
    code, title = "too_many", "There may be no more of these"


class InvalidJSON(Invalid):
    code, title = "invalid_json", "The body is not valid JSON"


class Unauthorized(Problem):
    status, code, title = 401, "not_authenticated", "Sign in first"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Conflict(Problem):
    status, code, title = 409, "conflict", "This is in conflict with what is stored"


class InternalError(Problem):
    status, code, title = 500, "internal_error", "This is our fault, and it has been logged"


class DatabaseUnavailable(Problem):
    status, code, title = 503, "database_unavailable", "The database does not answer; try again in a moment"

    def __init__(self) -> None:
        super().__init__(headers=RETRY_AFTER)


class SchemaOutdated(DatabaseUnavailable):
    code, title = "schema_outdated", "The database is to be migrated: python -m contacts_api migrate"


def documented(
    *problems: type[Problem], onto: Mapping[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can answer with these problems, on top of those in `onto`."""
    responses = deepcopy(dict(onto or {}))
    for problem in problems:
        response = responses.setdefault(problem.status, _response_document(problem))
        examples = response["content"][PROBLEM_JSON]["examples"]
        examples[problem.code] = {"summary": problem.title, "value": problem().body()}
    return responses


def _response_document(problem: type[Problem]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        "description": HTTPStatus(problem.status).phrase,
        "content": {PROBLEM_JSON: {"schema": schema, "examples": {}}},
        "headers": {name: {"schema": {"type": "string"}} for name in problem().headers or ()},
    }


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that the responses of `documented` refer to."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ProblemDetails": schema}


def problem_of_database_error(error: BaseException) -> Problem:
    """Return what a client is told about an error of the database, by its SQLSTATE.

    The classes are those of PostgreSQL's documentation, appendix A.
    """
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None) or ""
    if state == "23505":
        return Conflict()
    if state == "42P01":
        return SchemaOutdated()
    if state == "23503" and _is_of_owner(original):
        # The owner of a new row is gone: its account was deleted a moment ago.
        return Unauthorized()
    if state.startswith("22") or state == "23502":
        return Invalid("A value does not fit where it is to be stored.")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # asyncpg cannot write a parameter as the type that it has in the statement.
        return InternalError()
    if _is_passing(state) or not isinstance(error, exc.StatementError | asyncpg.PostgresError):
        return DatabaseUnavailable()
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or not state):
        return DatabaseUnavailable()
    return InternalError()


class UnexpectedDatabaseError(Exception):
    """A fault of ours, without what PostgreSQL adds in DETAIL: the row, a password's hash included."""

    def __init__(self, error: BaseException) -> None:
        original = getattr(error, "orig", None) or error
        message = getattr(original.__cause__ or original, "message", None) or type(original).__name__
        super().__init__(
            f"{message} (SQLSTATE {getattr(original, 'sqlstate', None)}): {getattr(error, 'statement', '')}"
        )


def _is_of_owner(error: BaseException | None) -> bool:
    """Say whether a foreign key that failed is the one that leads from a row to its owner."""
    cause = getattr(error, "__cause__", None) or error
    name, table = (getattr(cause, f"{of}_name", None) for of in ("constraint", "table"))
    return name in (f"fk_{table}_owner_id", f"fk_{table}_user_id")


def _is_passing(state: str) -> bool:
    return state[:2] in ("08", "53", "57") or state in ("25006", "55P03", "40001", "40P01")


def _allowed_methods(request: Request) -> str:
    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    return ", ".join(filter(is_taken, METHODS))


async def _answer_http_exception(request: Request, error: HTTPException) -> Response:
    if isinstance(error, Problem):
        return error.response()
    if error.status_code == 404:
        return NotFound().response()
    if error.status_code == 405:
        return MethodNotAllowed(headers={"Allow": _allowed_methods(request)}).response()
    # What is left comes from the framework's parsers of bodies.
    return Invalid.field("body", detail=f"The body could not be read: {error.detail}").response()


async def _answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    return validation_problem(error).response()


def validation_problem(error: RequestValidationError) -> Invalid:
    """Return the problem that names each field and its rule, but no value."""
    return Invalid(errors=[_field_error(details) for details in error.errors()[:MAX_ERRORS]])


def _field_error(details: Mapping[str, Any]) -> FieldError:
    loc = [part if isinstance(part, int) else part[:64] for part in details["loc"]]
    return FieldError(loc=loc, code=details["type"], detail=detail_of(details))


def detail_of(details: Mapping[str, Any]) -> str:
    """Return Pydantic's message about a value, where it does not quote the value."""
    # Where Pydantic gives a cause, its message quotes what was sent.
    return "This is not a valid value." if "error" in details.get("ctx", {}) else str(details["msg"])


async def _answer_database_error(request: Request, error: Exception) -> Response:
    problem = problem_of_database_error(error)
    if isinstance(problem, InternalError):
        raise UnexpectedDatabaseError(error) from None
    if isinstance(problem, DatabaseUnavailable):
        logger.warning("database unavailable: %s", type(getattr(error, "orig", None) or error).__name__)
    return problem.response()


DATABASE_ERRORS = (
    exc.DBAPIError,
    exc.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # a refused or lost connection; asyncio's time-outs are OSErrors, too
)


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every exception with problem+json."""
    app.add_exception_handler(HTTPException, _answer_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _answer_validation_error)  # type: ignore[arg-type]
    for error in DATABASE_ERRORS:
        app.add_exception_handler(error, _answer_database_error)
