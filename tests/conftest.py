"""Fixtures for all tests: a real PostgreSQL with the real migrations, and the application that uses it."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import psycopg2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import make_url

from contacts_api.app import create_app
from contacts_api.database import embedded
from contacts_api.database.migrating import migrate
from contacts_api.settings import Settings
from tests.client import Client, Clock
from tests.watcher import watch

SECRET = "a secret of the tests, which is long enough"

Execute = Callable[..., list[tuple[Any, ...]]]

# Slow examples and heavy filtering must not fail a test: a busy machine or bad luck would be enough.
settings.register_profile("tests", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("tests")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    watch(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """Return the URL of a migrated database for this process, on the TEST_DATABASE_URL server or an embedded one."""
    given = os.environ.get("TEST_DATABASE_URL")
    url = database_beside(given, worker_id) if given else embedded.start(tmp_path_factory.mktemp("data"))
    migrate(url)
    return url


def database_beside(url: str, name: str) -> str:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"DROP DATABASE IF EXISTS tests_of_{name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE tests_of_{name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    return make_url(url).set(database=f"tests_of_{name}").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def make_settings(database_url: str) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(**{"_env_file": None, "database_url": database_url, "jwt_secret": SECRET, **changes})

    return make


@pytest.fixture
def execute(database_url: str) -> Iterator[Execute]:
    """Run SQL directly on the database, bypassing the application."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True

        def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture(autouse=True)
def empty_tables(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "database_url" in request.fixturenames:
        with closing(psycopg2.connect(request.getfixturevalue("database_url"))) as connection, connection:
            # Not TRUNCATE: it would wait for open reads of the application, whose event loop this fixture blocks.
            connection.cursor().execute(
                'DELETE FROM "user"; DELETE FROM ended_session; DELETE FROM failed_attempt; DELETE FROM mail'
            )


@pytest.fixture
def clock(app: FastAPI) -> Iterator[Clock]:
    """The application's clock. Set `now` to change the time; the fixture resets it after the test."""
    clock: Clock = app.state.clock
    yield clock
    clock.now = None


@pytest.fixture(scope="session")
async def app(make_settings: Callable[..., Settings]) -> AsyncIterator[FastAPI]:
    app = create_app(make_settings(), clock=Clock())
    async with app.router.lifespan_context(app):
        yield app


def client_of(app: FastAPI, **options: Any) -> Client:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return Client(transport=transport, base_url="http://testserver", **options)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[Client]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def ada(app: FastAPI) -> AsyncIterator[Client]:
    async with client_of(app) as client:
        yield await client.sign_up("ada@example.com")


@pytest.fixture
async def ada_elsewhere(app: FastAPI, ada: Client) -> AsyncIterator[Client]:
    """A second session of Ada's."""
    async with client_of(app, headers={"User-Agent": "elsewhere/1.0"}) as client:
        client.email = ada.email
        yield await client.sign_in()


@pytest.fixture
async def grace(app: FastAPI) -> AsyncIterator[Client]:
    async with client_of(app) as client:
        yield await client.sign_up("grace@example.com")
