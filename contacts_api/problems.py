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

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
BEARER = {"WWW-Authenticate": "Bearer"}
# A body of 64 KiB has room for thousands of unknown fields.
MAX_ERRORS = 100
"""How many errors one answer names."""


CATALOGUE = "/docs/errors"
"""The page that explains every problem."""


class FieldError(BaseModel):
    """One rule that one field broke."""

    loc: list[str | int] = Field(
        description="The way to the field: `body` or `query`, the names of members, and the indexes of items, from 0.",
        examples=[["body", "email"]],
    )
    code: str = Field(description="The rule, for programs: see `/docs/errors`.", examples=["malformed"])
    detail: str = Field(
        description="The rule, for people. It never repeats a value that was sent.", examples=["Is required."]
    )


class ProblemDetails(BaseModel):
    """An error (RFC 9457); `code` is the word for a program to switch on."""

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
    """The base of all problems. Raise one to answer with it.

    A subclass has a status, a code and a title. Its docstring says when it comes and its `advice` what to do about it,
    for the catalogue of errors. Where needed, it has a detail that says more than the title, the headers that it is
    always sent with, and the place (`loc`) of the one field that causes it.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    advice: ClassVar[str]
    detail: str = ""
    headers: Mapping[str, str] = {}
    further_headers: ClassVar[tuple[str, ...]] = ()
    """The names of headers whose values depend on the request."""
    loc: ClassVar[tuple[str, ...]] = ()
    example_errors: ClassVar[tuple[FieldError, ...]] = ()
    """The errors of fields that the documentation shows."""

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
    """The call needs a sign-in, and the request has no `Authorization: Bearer …` header."""

    advice = "Sign in by POST /auth/login, and send the access token as a Bearer token."
    status, code, title = 401, "not_authenticated", "Sign in first"
    headers = BEARER


class OriginRefused(Problem):
    """A browser asks for a page of another site, which this server does not list."""

    advice = "The operator of the server can add the site to CORS_ORIGINS."
    status, code, title = 403, "origin_refused", "Pages of this origin may not call this API"


class NotFound(Problem):
    """No route has this path: a typo, a slash too many, or an id that is no UUID."""

    advice = "Compare the path with the documentation."
    status, code, title = 404, "not_found", "There is nothing at this address"


class MethodNotAllowed(Problem):
    """The path is right, and the method is not."""

    advice = "Use one of the methods in the Allow header."
    status, code, title = 405, "method_not_allowed", "This address does not accept this method"


class Conflict(Problem):
    """Two requests stored the same thing at the same time, and the other one came first."""

    advice = "Read what is stored now. If your change is still needed, send it again."
    status, code, title = 409, "conflict", "This conflicts with what is stored"


class BodyTooLarge(Problem):
    """The body has more bytes than the call takes: 64 KiB, 2 MiB for a batch, 100 MB for an import."""

    advice = (
        "Send fewer items at a time, a smaller file, or shorter texts. The detail says how many bytes there may be."
    )
    status, code, title = 413, "body_too_large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The Content-Type header is missing or names another type than the call takes; or the body is compressed."""

    advice = "Send the type that the detail names."
    status, code, title = 415, "unsupported_media_type", "The body has a type that is not accepted here"
    further_headers = ("Accept", "Accept-Encoding", "Accept-Patch")


class Invalid(Problem):
    """A member of the body or a parameter of the query breaks a rule. `errors` names each, and its rule."""

    advice = "Go through `errors`: `loc` leads to the field, and `code` is one of the field errors below."
    status, code, title = 422, "validation_error", "The request breaks a rule"
    example_errors = (FieldError(loc=["body", "email"], code="missing", detail="Is required."),)

    @classmethod
    def field(cls, *loc: str, code: str, detail: str) -> "Invalid":
        """Return the problem that one field has."""
        return cls(detail, errors=[FieldError(loc=list(loc), code=code, detail=detail)])


class InvalidJSON(Invalid):
    """The body cannot be read as JSON (RFC 8259): its syntax, its encoding, or far too many values."""

    advice = "Send what a JSON library writes, in UTF-8."
    code, title = "invalid_json", "The body is not valid JSON"
    loc = ("body",)


class TooMany(Invalid):
    """An account may have a limited number of contacts; the detail says how many."""

    advice = "Delete some that you do not need, or ask the operator of the server for more."
    code, title = "too_many", "The account has as many of these as it may have"
    loc = ("body",)


class InternalError(Problem):
    """A fault of the server."""

    advice = "Try again later. The operator finds the fault in the log by the X-Request-ID of the answer."
    status, code, title = 500, "internal_error", "Something went wrong on the server, and it has been logged"


class DatabaseUnavailable(Problem):
    """The server runs, but its database does not answer in time."""

    advice = "Try again after the seconds that Retry-After names. Nothing was half written."
    status, code, title = 503, "database_unavailable", "The database does not answer; try again in a moment"
    headers = RETRY_AFTER


class SchemaOutdated(DatabaseUnavailable):
    """The server is newer than the schema of its database."""

    advice = "The operator of the server runs `python -m contacts_api migrate`."
    code, title = "schema_outdated", "The database must be migrated: python -m contacts_api migrate"


class Busy(Problem):
    """More requests came at once than the server can answer in time."""

    advice = "Try again after the seconds that Retry-After names."
    status, code, title = 503, "busy", "Too many requests are waiting; try again in a moment"
    headers = RETRY_AFTER


def all_problems(base: type[Problem] = Problem) -> list[type[Problem]]:
    """Return every kind of problem that a route may answer with, by status and code."""
    found = {problem for child in base.__subclasses__() for problem in (child, *all_problems(child))}
    # Of this package: the tests have some of their own.
    named = [each for each in found if hasattr(each, "code") and each.__module__.startswith(f"{__package__}.")]
    return sorted(named, key=lambda problem: (problem.status, problem.code, problem.__name__))


def documented(
    *problems: type[Problem], onto: Mapping[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can answer with these problems, on top of those in `onto`."""
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
