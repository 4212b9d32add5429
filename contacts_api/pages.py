"""The docs pages and the health checks."""

from pathlib import Path

from fastapi import APIRouter, Request
from sqlalchemy import text
from starlette.responses import FileResponse, RedirectResponse

from contacts_api.database import Autocommit
from contacts_api.migrating import newest_revision
from contacts_api.problems import DatabaseUnavailable, SchemaOutdated, documented
from contacts_api.routing import Route

STATIC = Path(__file__).parent / "static"
# The pages load nothing from elsewhere; without this, ReDoc would fetch its logo from a CDN.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_REVISIONS = text("SELECT version_num FROM alembic_version")

pages = APIRouter(include_in_schema=False)
health = APIRouter(prefix="/health", tags=["health"], route_class=Route)


@health.get("/live")
async def check_live() -> dict[str, str]:
    """Answer 200 while the process runs, with or without a database."""
    return {"status": "ok"}


@health.get("/ready", responses=documented(DatabaseUnavailable, SchemaOutdated))
async def check_ready(database: Autocommit) -> dict[str, str]:
    """Answer 200 when the database answers and its schema is current."""
    revisions = await database.read(_REVISIONS)
    if [row.version_num for row in revisions] != [newest_revision()]:
        raise SchemaOutdated
    return {"status": "ok"}


@pages.get("/")
async def go_to_docs(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope['root_path']}/docs")


@pages.get("/docs")
async def show_docs() -> FileResponse:
    return FileResponse(STATIC / "docs.html", headers=PAGE_HEADERS)


@pages.get("/redoc")
async def show_redoc() -> FileResponse:
    return FileResponse(STATIC / "redoc.html", headers=PAGE_HEADERS)
