"""Imports into a full account: all kinds of imports finish, whatever the contacts are."""

from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.engine import make_url

from contacts_api.app import create_app
from contacts_api.contacts.models import FOLDING
from contacts_api.database.migrating import migrate
from contacts_api.settings import Settings
from tests.client import Client
from tests.conftest import client_of

# In production, a full account has a million contacts and work_mem is 4 MB. Here both are 64 times smaller.
CONTACTS, WORK_MEM, ROWS = 1_000_000 // 64, "64kB", 3000
FILL = f"""
    INSERT INTO contact (owner_id, id, first_name, last_name, email, uid, search_text, sort_name, identity, folding)
    SELECT "user".id, md5(n::text)::uuid, 'First' || n, 'Last' || n, n || '@example.com', 'uid-' || n,
        concat(E'\\nFIRSTNAME first', n, E'\\nLASTNAME last', n, E'\\nEMAIL ', n, '@example.com'),
        concat_ws(E'\\n', 'last' || n, 'first' || n),
        concat_ws(E'\\n', 'last' || n, 'first' || n, n || '@example.com'), {FOLDING}
    FROM "user", generate_series(1, {CONTACTS}) AS n
"""


@pytest.fixture(scope="module")
def small_url(database_url: str) -> str:
    """A database with a small work_mem."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE small TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
            cursor.execute(f"ALTER DATABASE small SET work_mem = '{WORK_MEM}'")
    url = make_url(database_url).set(database="small").render_as_string(hide_password=False)
    migrate(url)
    return url


@pytest.fixture
async def full_app(make_settings: Callable[..., Settings], small_url: str) -> AsyncIterator[FastAPI]:
    """The application, with this database."""
    app = create_app(make_settings(database_url=small_url))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def full(full_app: FastAPI, small_url: str) -> AsyncIterator[Client]:
    """A client that is signed in to a full account."""
    with closing(psycopg2.connect(small_url)) as connection:
        connection.autocommit = True
        async with client_of(full_app) as client:
            await client.sign_up("ada@example.com")
            connection.cursor().execute(FILL)
            yield client
        connection.cursor().execute('DELETE FROM "user"')


def explain_all(app: FastAPI) -> list[str]:
    """Return a list that collects the plan of each statement of an import, just before the statement runs."""
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(f"EXPLAIN {statement}", parameters)
                plans.append("\n".join(line for (line,) in cursor.fetchall()))

    event.listen(app.state.imports.engine.sync_engine, "before_cursor_execute", explain)
    return plans


@pytest.mark.parametrize(
    ("on_duplicate", "expected"), [("skip", (0, 0, ROWS)), ("update", (0, ROWS, 0)), ("create", (ROWS, 0, 0))]
)
async def test_an_import_into_a_full_account_reads_its_contacts_only_a_few_times(
    full_app: FastAPI, full: Client, on_duplicate: str, expected: tuple[int, ...]
) -> None:
    plans = explain_all(full_app)
    cards = "".join(
        f"BEGIN:VCARD\r\nVERSION:3.0\r\nUID:uid-{n}\r\nN:Last{n};First{n}\r\nNOTE:New\r\nEND:VCARD\r\n"
        for n in range(1, ROWS + 1)
    )

    response = await full.post(
        "/contacts/import", files={"file": ("file", cards)}, params={"on_duplicate": on_duplicate}
    )

    assert response.status_code == 200, response.text
    assert tuple(response.json()[name] for name in ("created", "updated", "skipped")) == expected
    assert any("Insert on contact" in plan for plan in plans)
    # PostgreSQL may run a SubPlan for each row.
    assert [plan for plan in plans if "SubPlan" in plan] == []
