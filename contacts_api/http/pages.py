"""The documentation pages, the catalogue of errors, static files and health checks."""

import gzip
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from html import escape
from pathlib import Path
from string import Template
from typing import Literal

import orjson
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, Field
from sqlalchemy import text
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from contacts_api.database.engine import Autocommit
from contacts_api.database.migrating import newest_revision
from contacts_api.http.answers import JSON
from contacts_api.http.etags import etag_of, is_known
from contacts_api.http.field_errors import CODES
from contacts_api.http.openapi import at_server
from contacts_api.http.route import Route
from contacts_api.problems import DatabaseUnavailable, SchemaOutdated, all_problems, documented

STATIC = Path(__file__).parent / "static"
# The pages load nothing from other servers. Without this policy, ReDoc would fetch its logo from a CDN.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src blob:; frame-ancestors 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_REVISIONS = text("SELECT version_num FROM alembic_version")
_COMPRESSIBLE = (".css", ".html", ".js")


@dataclass(frozen=True, eq=False)
class CodeList:
    """Codes that responses contain, with their meanings. Rendered as a section of /docs/errors."""

    title: str
    introduction: str
    codes: Mapping[str, str]


FIELD_ERRORS = CodeList(
    "Field errors",
    'A 422 has `errors`. For each, `loc` is the way to the field (`["body", "items", 3, "email"]`), `detail` states '
    "the rule in words, and `code` is one of these, or the code of a problem above.",
    CODES,
)

pages = APIRouter(include_in_schema=False)
health = APIRouter(prefix="/health", route_class=Route)


class Assets(StaticFiles):
    """Serves static files. Each worker compresses a file once and keeps the result."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Vary"] = "Accept-Encoding"
        is_whole = response.status_code == 200 and path.endswith(_COMPRESSIBLE)
        if not (isinstance(response, FileResponse) and is_whole and _takes_gzip(Request(scope))):
            return response
        content = await to_thread(_compressed_file, str(response.path), response.headers["last-modified"])
        headers = {name: response.headers[name] for name in ("ETag", "Last-Modified", "Vary")}
        return Response(content, headers={**headers, "Content-Encoding": "gzip"}, media_type=response.media_type)


@lru_cache(maxsize=16)
def _compressed_file(path: str, last_modified: str) -> bytes:
    return gzip.compress(Path(path).read_bytes(), mtime=0)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


@lru_cache(maxsize=8)
def _schema(app: FastAPI, address: str, *, compress: bool) -> tuple[bytes, str]:
    """Return the OpenAPI document for this server address, and a hash of it for the ETag."""
    content = orjson.dumps(at_server(app.openapi(), address))
    tag = blake2b(content, digest_size=16).hexdigest()
    return gzip.compress(content, mtime=0) if compress else content, tag


@lru_cache(maxsize=1)
def _catalogue(code_lists: tuple[CodeList, ...]) -> str:
    """Return the HTML page that explains every problem code and the other code lists."""
    texts: dict[str, str] = {}
    for problem in all_problems():
        if "code" in vars(problem):
            texts[problem.code] = (
                f"{texts.get(problem.code, '')}<h2><code>{problem.code}</code> · {problem.status}</h2>"
                f"<p><strong>{escape(problem.title)}.</strong> {_marked_up(problem.__doc__ or '')}</p>"
                f"<p>{_marked_up(problem.advice)}</p>"
            )
    sections = [f'<section id="{code}">{text}</section>' for code, text in texts.items()]
    page = Template((STATIC / "errors.html").read_text())
    return page.substitute(sections="\n".join([*sections, *map(_section, code_lists)]))


def _section(codes: CodeList) -> str:
    entries = [f"<dt><code>{code}</code></dt><dd>{_marked_up(text)}</dd>" for code, text in codes.codes.items()]
    return f"<h2>{escape(codes.title)}</h2><p>{_marked_up(codes.introduction)}</p><dl>{''.join(entries)}</dl>"


def _marked_up(text: str) -> str:
    """Return a text as HTML, with text in backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


class Healthy(BaseModel):
    """The result of a successful health check."""

    status: Literal["ok"] = Field("ok", description="Always `ok`; else the answer is a problem.", examples=["ok"])


@health.get("/live")
async def check_live() -> Healthy:
    """Check that the process runs. Does not need the database."""
    return Healthy()


@health.get("/ready", responses=documented(DatabaseUnavailable, SchemaOutdated))
async def check_ready(database: Autocommit) -> Healthy:
    """Check that the database is available. Its schema must be current, too."""
    revisions = await database.read(_REVISIONS)
    if [row.version_num for row in revisions] != [newest_revision()]:
        raise SchemaOutdated
    return Healthy()


@pages.get("/")
async def go_to_docs(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope['root_path']}/docs")


@pages.get("/docs")
@pages.get("/redoc")
@pages.get("/reset-password")
@pages.get("/verify")
async def show_page(request: Request) -> FileResponse:
    return FileResponse(STATIC / f"{request.scope['route'].path[1:]}.html", headers=PAGE_HEADERS)


@pages.get("/docs/errors")
async def show_errors(request: Request) -> HTMLResponse:
    return HTMLResponse(_catalogue(request.app.state.code_lists), headers=PAGE_HEADERS)


@pages.get("/openapi.json")
async def show_schema(request: Request) -> Response:
    compress = _takes_gzip(request)
    content, tag = await to_thread(_schema, request.app, str(request.base_url).rstrip("/"), compress=compress)
    headers = {"ETag": etag_of(tag), "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers | ({"Content-Encoding": "gzip"} if compress else {}), media_type=JSON)
