"""The application: create_app() builds it, and uvicorn serves `app`."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import FastAPI

from contacts_api import __version__, runtime
from contacts_api.accounts.cleanup import Cleanup
from contacts_api.accounts.keys import Keys
from contacts_api.accounts.mail import Mails, Sender
from contacts_api.accounts.passwords import PasswordHasher
from contacts_api.accounts.routes import auth, token, users
from contacts_api.accounts.sessions import EndedSessions, Sessions
from contacts_api.accounts.strategy import Tokens
from contacts_api.accounts.users import UserManager
from contacts_api.contacts.routes import contacts, relabelling
from contacts_api.database.engine import Database, create_engine
from contacts_api.database.standby import Standby
from contacts_api.database.waiting import Places
from contacts_api.features import load_features
from contacts_api.features.exchange.imports import IMPORT_SECONDS, IMPORT_WAIT_SECONDS, IMPORTS, IMPORTS_WAITING
from contacts_api.features.feed.queries import CLOSE_FEED
from contacts_api.http.cors import CORS
from contacts_api.http.errors import add_error_handlers
from contacts_api.http.middleware import AccessLog, LastResort
from contacts_api.http.openapi import completed
from contacts_api.http.pages import FIELD_ERRORS, STATIC, Assets, health, pages
from contacts_api.http.paging import Cursors
from contacts_api.settings import Settings

# Large bodies are validated one at a time. Most take a fraction of a second.
LARGE_BODIES_WAITING, LARGE_BODIES_SECONDS = 24, 15.0
# On shutdown, wait this long for background tasks, then again for connections to close.
END_SECONDS = 5


class Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            self.openapi_schema = completed(super().openapi())
        return self.openapi_schema


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(settings: Settings | None = None, clock: Callable[[], datetime] = utc_now) -> FastAPI:
    """Return the application. `clock` returns the current time, for the expiry of tokens and for "today"."""
    settings = settings or Settings()
    is_observed = any("OTEL_" in name for name in os.environ)
    app = Application(
        title="Contacts API",
        version=__version__,
        contact={"name": "The operator of this server"},
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": settings.root_path or "/", "description": "This server"}],
        root_path_in_servers=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # OpenTelemetry is configured by its own environment variables. Without them it is off, which saves 10 µs per
        # request. Its logs are always off, because they would contain error messages and request data.
        telemetry={"tracing": is_observed, "metrics": is_observed, "logs": False},
        lifespan=lifespan,
    )
    # An attribute, because FastAPI deprecates the parameter. uvicorn's root_path supports only proxies that strip the
    # prefix.
    app.root_path = settings.root_path
    app.state.settings = settings
    app.state.clock = clock
    # The routes of contacts are first, because they are called most. include_router() would match each router again. It
    # adds 25 to 40 µs of CPU to a call on contacts, which takes 200 µs, and 50 µs to a sign-in.
    features = load_features()
    routers_of_features = [router for feature in features for router in feature.routers]
    for router in (contacts, relabelling, *routers_of_features, auth, token, users, health, pages):
        app.router.routes += router.routes
    app.state.code_lists = (FIELD_ERRORS, *(codes for feature in features for codes in feature.code_lists))
    app.mount("/assets", Assets(directory=STATIC, packages=[("fastapi_offline", "static")]))
    add_error_handlers(app)
    # From the inside out. CORS is outside LastResort, so that allowed origins can read its 500 responses too.
    app.add_middleware(LastResort)
    if settings.cors_origins:
        app.add_middleware(CORS, settings.cors_origins, settings.root_path)
    app.add_middleware(AccessLog)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Create the services, and run the background tasks until the server stops.

    Raises RuntimeError without DATABASE_URL and JWT_SECRET.
    """
    settings: Settings = app.state.settings
    if settings.database_url is None or settings.jwt_secret is None:
        raise RuntimeError("DATABASE_URL and JWT_SECRET are not set; `python -m contacts_api` does without them.")
    connect = partial(create_engine, settings.url, prepared_statements=settings.prepared_statements)
    # The watch of ended sessions has its own connection, so that it never waits for requests. Imports have their own
    # connections, so that requests never wait for imports. A small POOL_SIZE, as behind a pooler, reduces them.
    imports = max(1, min(IMPORTS, settings.pool_size // 4))
    engines = [connect(settings.pool_size), connect(1), connect(imports, IMPORT_SECONDS)]
    app.state.database = app.state.reader = Database(engines[0])
    watch = Database(engines[1])
    app.state.imports = Database(engines[2], max_waiting=IMPORTS_WAITING, max_seconds=IMPORT_WAIT_SECONDS)
    if settings.database_read_url:
        url = settings.database_read_url.get_secret_value()
        engines.append(create_engine(url, settings.pool_size, prepared_statements=settings.prepared_statements))
        app.state.reader = Standby(app.state.database, Database(engines[-1]))
    app.state.sessions = Sessions(app.state.database, settings)
    app.state.ended_sessions = EndedSessions(watch, app.state.database, settings.access_token_seconds)
    app.state.cleanup = Cleanup(app.state.database, app.state.imports, settings.access_token_seconds)
    app.state.keys = Keys(app.state.database)
    app.state.tokens = Tokens(settings, app.state.clock)
    hasher = PasswordHasher(settings.hashing_threads)
    app.state.mails = Mails(app.state.database, settings)
    app.state.users = UserManager(app.state.database, hasher, app.state.mails, settings, ways_in=[CLOSE_FEED])
    sender = Sender(app.state.database, settings, app.state.users.token_for)
    app.state.large_bodies = Places(1, max_waiting=LARGE_BODIES_WAITING, max_seconds=LARGE_BODIES_SECONDS)
    app.state.cursors = Cursors(settings.secrets[0].encode())
    background = (app.state.ended_sessions.watch(), app.state.cleanup.run(), sender.run())
    tasks = [asyncio.create_task(work) for work in background]
    runtime.prepare_worker()
    try:
        yield
    finally:
        await end(tasks)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*(engine.dispose() for engine in engines))


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks, and wait for them, at most END_SECONDS."""
    for _ in range(END_SECONDS):
        for task in tasks:
            task.cancel()
        # Cancel every second, because a library may lose a cancellation, as asyncio.wait_for() does before Python 3.12.
        _, tasks = await asyncio.wait(tasks, timeout=1)
        if not tasks:
            return


app = create_app()
