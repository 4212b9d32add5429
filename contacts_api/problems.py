"""Problems: the errors that the API answers with, as problem+json (RFC 9457).

These are for all features. A feature keeps its own problems beside the code that raises them.

Problem
  * 401 Unauthorized
  * 403 OriginRefused
  * 404 NotFound
  * 405 MethodNotAllowed
  * 409 Conflict
  * 413 BodyTooLarge
  * 415 UnsupportedMediaType
  * 422 Invalid
    + InvalidJSON
    + TooMany
  * 500 InternalError
  * 503 DatabaseUnavailable
    + SchemaOutdated
  * 503 Busy
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
BEARER = {"WWW-Authenticate": "Bearer"}
# A body of 64 KiB has room for thousands of unknown fields.
MAX_ERRORS = 100
"""How many errors one answer names."""


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
    """The base of all problems. Raise one to answer with it.

    A subclass has a status, a code and a title and, where needed, a detail that says more than the title,
    the headers that it is always sent with, and the place (`loc`) of the one field that causes it.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    detail: str = ""
    headers: Mapping[str, str] = {}
    loc: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldError] = (),
    ) -> None:
        self.body = self.details(detail, errors)
        super().__init__(self.status, self.body["detail"], {**self.headers, **(headers or {})})

    @classmethod
    def details(cls, detail: str | None = None, errors: Iterable[FieldError] = ()) -> dict[str, Any]:
        """Return the members of ProblemDetails."""
        detail = detail or cls.detail or f"{cls.title}."
        if cls.loc:
            errors = [FieldError(loc=list(cls.loc), code=cls.code, detail=detail)]
        body = {"type": "about:blank", "title": cls.title, "status": cls.status, "detail": detail, "code": cls.code}
        named = [error.model_dump() for error in errors]
        return {**body, "errors": named} if named else body

    def response(self) -> Response:
        return JSONResponse(self.body, self.status, self.headers, media_type=PROBLEM_JSON)


class Unauthorized(Problem):
    status, code, title = 401, "not_authenticated", "Sign in first"
    headers = BEARER


class OriginRefused(Problem):
    status, code, title = 403, "origin_refused", "Pages of this origin may not call this API"


class NotFound(Problem):
    status, code, title = 404, "not_found", "There is nothing at this address"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method_not_allowed", "This address does not accept this method"


class Conflict(Problem):
    status, code, title = 409, "conflict", "This conflicts with what is stored"


class BodyTooLarge(Problem):
    status, code, title = 413, "body_too_large", "The body is too large"


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported_media_type", "The body has a type that is not accepted here"


class Invalid(Problem):
    status, code, title = 422, "validation_error", "The request breaks a rule"

    @classmethod
    def field(cls, *loc: str, code: str | None = None, detail: str) -> "Invalid":
        """Return the problem that one field has."""
        return cls(detail, errors=[FieldError(loc=list(loc), code=code or cls.code, detail=detail)])


class InvalidJSON(Invalid):
    code, title = "invalid_json", "The body is not valid JSON"


class TooMany(Invalid):
    code, title = "too_many", "There are too many of these"


class InternalError(Problem):
    status, code, title = 500, "internal_error", "Something went wrong on the server, and it has been logged"


class DatabaseUnavailable(Problem):
    status, code, title = 503, "database_unavailable", "The database does not answer; try again in a moment"
    headers = RETRY_AFTER


class SchemaOutdated(DatabaseUnavailable):
    code, title = "schema_outdated", "The database must be migrated: python -m contacts_api migrate"


class Busy(Problem):
    status, code, title = 503, "busy", "Too many requests are waiting; try again in a moment"
    headers = RETRY_AFTER


def documented(
    *problems: type[Problem], onto: Mapping[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can answer with these problems, on top of those in `onto`."""
    responses = deepcopy(dict(onto or {}))
    for problem in problems:
        document = {
            "description": HTTPStatus(problem.status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}},
            "headers": {name: {"schema": {"type": "string"}} for name in problem.headers},
        }
        examples = responses.setdefault(problem.status, document)["content"][PROBLEM_JSON]["examples"]
        examples[problem.code] = {"summary": problem.title, "value": problem.details()}
    return responses


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that the responses of `documented` refer to."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ProblemDetails": schema}
