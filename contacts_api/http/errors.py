"""Converts exceptions of FastAPI, Pydantic and PostgreSQL to problem responses."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from contacts_api import problems
from contacts_api.database.errors import DATABASE_ERRORS, UnexpectedDatabaseError, problem_of_database_error
from contacts_api.http.field_errors import code_and_detail
from contacts_api.problems import FieldError, Problem

logger = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` respond to every exception with problem+json."""
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
    """Return the problem for an exception raised by a route."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return problems.Invalid(errors=[_field_error(details) for details in error.errors()[: problems.MAX_ERRORS]])
    if not isinstance(error, HTTPException):
        return problem_of_database_error(error)
    if error.status_code == 404:
        return problems.NotFound()
    # The framework raises all others while it parses a body.
    return problems.Invalid.field("body", code="malformed", detail=f"The body could not be read: {error.detail}")


def _field_error(details: Mapping[str, Any]) -> FieldError:
    code, detail = code_and_detail(details)
    loc = [part if isinstance(part, int) else part[:64] for part in details["loc"]]
    return FieldError(loc=loc, code=code, detail=detail)
