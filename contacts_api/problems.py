"""Problems: the error responses of the API, as problem+json (RFC 9457).

This module has the shared problems. A feature defines its own beside the code that raises them.

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

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
BEARER = {"WWW-Authenticate": "Bearer"}
MAX_ERRORS = 100
"""The maximum number of field errors in a response. A body of 64 KiB could cause thousands."""


CATALOGUE = "/docs/errors"
"""The page that explains every problem."""


class FieldError(BaseModel):
    """A rule that a field violates."""

    loc: list[str | int] = Field(
        description="The way to the field: `body` or `query`, the names of members, and the indexes of items, from 0.",
        examples=[["body", "email"]],
    )
    code: str = Field(description="The rule, for programs: see `/docs/errors`.", examples=["malformed"])
    detail: str = Field(
        description="The rule, for people. It never repeats a value that was sent.", examples=["Is required."]
    )


class ProblemDetails(BaseModel):
    """An error response (RFC 9457). Programs should check `code`."""

    type: str = Field(
        description="The address, relative to this server, of what there is to know about this error.",
        json_schema_extra={"format": "uri-reference"},
        examples=[f"{CATALOGUE}#contact_not_found"],
    )
    title: str = Field(description="What has happened: always the same for a code.", examples=["Contact not found"])
    status: int = Field(description="The HTTP status, from 400 to 599.", examples=[404])
    detail: str = Field(description="What has happened this time, for people.", examples=["Contact not found."])
    code: str = Field(description="What has happened, for programs.", examples=["contact_not_found"])
    errors: list[FieldError] = Field(
        [],
        description=f"What is wrong with which field, at most {MAX_ERRORS} of them. Only there where there is one.",
        examples=[[{"loc": ["body", "email"], "code": "missing", "detail": "Is required."}]],
    )


class Problem(HTTPException):
    """The base of all problems. Raise a subclass to send it as the response.

    A subclass defines `status`, `code` and `title`. For the catalogue of errors, its docstring states the cause and its
    `advice` the remedy. It may define `detail`, which says more than the title, `headers`, which are always sent, and
    `loc`, the one field that causes the problem.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    advice: ClassVar[str]
    detail: str = ""
    headers: Mapping[str, str] = {}
    further_headers: ClassVar[tuple[str, ...]] = ()
    """Headers whose values depend on the request."""
    loc: ClassVar[tuple[str, ...]] = ()
    example_errors: ClassVar[tuple[FieldError, ...]] = ()
    """Field errors for the example in the documentation."""

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
        body = {
            "type": f"{CATALOGUE}#{cls.code}",
            "title": cls.title,
            "status": cls.status,
            "detail": detail,
            "code": cls.code,
        }
        named = [error.model_dump() for error in errors]
        return {**body, "errors": named} if named else body

    def response(self, root_path: str) -> Response:
        body = {**self.body, "type": f"{root_path}{self.body['type']}"}
        return JSONResponse(body, self.status, self.headers, media_type=PROBLEM_JSON)


class Unauthorized(Problem):
    """The call requires authentication, but the request has no `Authorization: Bearer …` header."""

    advice = "Sign in by POST /auth/login, and send the access token as a Bearer token."
    status, code, title = 401, "not_authenticated", "Sign in first"
    headers = BEARER


class OriginRefused(Problem):
    """A browser sent the request for a page of another site, and this server does not allow that site."""

    advice = "The operator of the server can add the site to CORS_ORIGINS."
    status, code, title = 403, "origin_refused", "Pages of this origin may not call this API"


class NotFound(Problem):
    """No route matches this path. It may have a typo, an extra slash, or an id that is not a UUID."""

    advice = "Compare the path with the documentation."
    status, code, title = 404, "not_found", "There is nothing at this address"


class MethodNotAllowed(Problem):
    """The path exists, but does not support this method."""

    advice = "Use one of the methods in the Allow header."
    status, code, title = 405, "method_not_allowed", "This address does not accept this method"


class Conflict(Problem):
    """Another request stored the same thing at the same time, and came first."""

    advice = "Read what is stored now. If your change is still needed, send it again."
    status, code, title = 409, "conflict", "This conflicts with what is stored"


class BodyTooLarge(Problem):
    """The body exceeds the limit of the call: 64 KiB, 2 MiB for a batch, or 100 MB for an import."""

    advice = (
        "Send fewer items at a time, a smaller file, or shorter texts. The detail says how many bytes there may be."
    )
    status, code, title = 413, "body_too_large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The Content-Type header is missing or not supported by the call, or the body is compressed."""

    advice = "Send the type that the detail names."
    status, code, title = 415, "unsupported_media_type", "The body has a type that is not accepted here"
    further_headers = ("Accept", "Accept-Encoding", "Accept-Patch")


class Invalid(Problem):
    """A member of the body or a query parameter violates a rule. `errors` lists each field and its rule."""

    advice = "Go through `errors`: `loc` leads to the field, and `code` is one of the field errors below."
    status, code, title = 422, "validation_error", "The request breaks a rule"
    example_errors = (FieldError(loc=["body", "email"], code="missing", detail="Is required."),)

    @classmethod
    def field(cls, *loc: str, code: str, detail: str) -> "Invalid":
        """Return a problem with one field error."""
        return cls(detail, errors=[FieldError(loc=list(loc), code=code, detail=detail)])


class InvalidJSON(Invalid):
    """The body is not valid JSON (RFC 8259) because of its syntax or encoding, or it has far too many values."""

    advice = "Send what a JSON library writes, in UTF-8."
    code, title = "invalid_json", "The body is not valid JSON"
    loc = ("body",)


class TooMany(Invalid):
    """The account has reached its maximum number of contacts. The detail states the maximum."""

    advice = "Delete some that you do not need, or ask the operator of the server for more."
    code, title = "too_many", "The account has as many of these as it may have"
    loc = ("body",)


class InternalError(Problem):
    """An unexpected error occurred on the server."""

    advice = "Try again later. The operator finds the fault in the log by the X-Request-ID of the answer."
    status, code, title = 500, "internal_error", "Something went wrong on the server, and it has been logged"


class DatabaseUnavailable(Problem):
    """The server is running, but its database does not respond in time."""

    advice = "Try again after the seconds that Retry-After names. Nothing was half written."
    status, code, title = 503, "database_unavailable", "The database does not answer; try again in a moment"
    headers = RETRY_AFTER


class SchemaOutdated(DatabaseUnavailable):
    """The database schema is older than the server requires."""

    advice = "The operator of the server runs `python -m contacts_api migrate`."
    code, title = "schema_outdated", "The database must be migrated: python -m contacts_api migrate"


class Busy(Problem):
    """The server has more requests than it can handle in time."""

    advice = "Try again after the seconds that Retry-After names."
    status, code, title = 503, "busy", "Too many requests are waiting; try again in a moment"
    headers = RETRY_AFTER


def all_problems(base: type[Problem] = Problem) -> list[type[Problem]]:
    """Return all problem classes of this package, sorted by status and code."""
    found = {problem for child in base.__subclasses__() for problem in (child, *all_problems(child))}
    # The tests define problems too. Leave them out.
    named = [each for each in found if hasattr(each, "code") and each.__module__.startswith(f"{__package__}.")]
    return sorted(named, key=lambda problem: (problem.status, problem.code, problem.__name__))


def documented(
    *problems: type[Problem], onto: Mapping[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can raise these problems, added to those in `onto`."""
    responses = deepcopy(dict(onto or {}))
    for problem in problems:
        document = {
            "description": HTTPStatus(problem.status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}},
            "headers": {name: {"schema": {"type": "string"}} for name in (*problem.headers, *problem.further_headers)},
        }
        examples = responses.setdefault(problem.status, document)["content"][PROBLEM_JSON]["examples"]
        examples[problem.code] = {
            "summary": problem.title,
            "value": problem.details(errors=vars(problem).get("example_errors", ())),
        }
    return responses


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that the responses of `documented` refer to."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ProblemDetails": schema}
