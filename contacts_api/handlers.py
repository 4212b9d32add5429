"""Turns exceptions (FastAPI's, Pydantic's and PostgreSQL's) into problems, and answers with them."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from contacts_api import problems
from contacts_api.field_errors import code_and_detail
from contacts_api.problems import FieldError, Problem

logger = logging.getLogger(__name__)

# What Citus says, as an internal error, in a transaction that has lost its connection to a node.
LOST_NODE = "failure on connection"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DATABASE_ERRORS = (
    exc.DBAPIError,
    exc.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # a refused or lost connection; asyncio's time-outs are OSErrors, too
)


class UnexpectedDatabaseError(Exception):
    """A fault of ours, logged without PostgreSQL's DETAIL: that may hold a row with a password's hash."""

    def __init__(self, error: BaseException) -> None:
        original = getattr(error, "orig", None) or error
        message = getattr(original.__cause__ or original, "message", None) or type(original).__name__
        super().__init__(
            f"{message} (SQLSTATE {getattr(original, 'sqlstate', None)}): {getattr(error, 'statement', '')}"
        )


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every exception with problem+json."""
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    for error in DATABASE_ERRORS:
        app.add_exception_handler(error, _answer_database_error)


async def _answer(request: Request, error: Exception) -> Response:
    root_path = request.scope.get("root_path", "")
    if isinstance(error, HTTPException) and error.status_code == 405:
        return problems.MethodNotAllowed(headers={"Allow": _allowed_methods(request)}).response(root_path)
    return problem_of(error).response(root_path)


async def _answer_database_error(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if isinstance(problem, problems.InternalError):
        raise UnexpectedDatabaseError(error) from None
    if isinstance(problem, problems.DatabaseUnavailable):
        logger.warning("database unavailable: %s", type(getattr(error, "orig", None) or error).__name__)
    return problem.response(request.scope.get("root_path", ""))


def _allowed_methods(request: Request) -> str:
    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    return ", ".join(filter(is_taken, METHODS))


def problem_of(error: Exception) -> Problem:
    """Return the problem that answers an exception raised by a route."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return problems.Invalid(errors=[_field_error(details) for details in error.errors()[: problems.MAX_ERRORS]])
    if not isinstance(error, HTTPException):
        return problem_of_database_error(error)
    if error.status_code == 404:
        return problems.NotFound()
    # All others come from the framework's parsers of bodies.
    return problems.Invalid.field("body", code="malformed", detail=f"The body could not be read: {error.detail}")


def _field_error(details: Mapping[str, Any]) -> FieldError:
    code, detail = code_and_detail(details)
    loc = [part if isinstance(part, int) else part[:64] for part in details["loc"]]
    return FieldError(loc=loc, code=code, detail=detail)


def problem_of_database_error(error: BaseException) -> Problem:
    """Return the problem that answers an error of the database, by its SQLSTATE (PostgreSQL, appendix A)."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None) or ""
    if state == "23505":
        return problems.Conflict()
    if state == "42P01":
        return problems.SchemaOutdated()
    if state == "23503" and _is_of_owner(original):
        # The account of the caller was deleted a moment ago.
        return problems.Unauthorized()
    if state.startswith("22") or state == "23502":
        return problems.Invalid("A value does not fit where it is to be stored.")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # asyncpg cannot write a parameter as the type that it has in the statement.
        return problems.InternalError()
    if state == "XX000" and LOST_NODE in str(original):
        return problems.DatabaseUnavailable()
    if _is_passing(state) or not isinstance(error, exc.StatementError | asyncpg.PostgresError):
        return problems.DatabaseUnavailable()
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or not state):
        return problems.DatabaseUnavailable()
    return problems.InternalError()


def _is_of_owner(error: BaseException | None) -> bool:
    """Say whether a foreign key that failed is the one that leads from a row to its owner."""
    cause = getattr(error, "__cause__", None) or error
    # Citus adds the number of the shard to both names.
    name, table = (re.sub(r"_\d+$", "", str(getattr(cause, f"{kind}_name", None))) for kind in ("constraint", "table"))
    return name in (f"fk_{table}_owner_id", f"fk_{table}_user_id")


def _is_passing(state: str) -> bool:
    return state[:2] in ("08", "53", "57") or state in ("25006", "55P03", "40001", "40P01")
