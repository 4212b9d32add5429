"""Statements stay fast when PostgreSQL's statistics are out of date."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy.dialects import postgresql

from contacts_api.contacts import queries
from tests.client import Client
from tests.conftest import Execute

FILL = """
    INSERT INTO contact (owner_id, id, first_name, search_text, sort_name)
    SELECT %s, lpad(to_hex(n), 32, '0')::uuid, 'Ada', 'ada', 'ada' FROM generate_series(1, %s) AS n
"""
KNOWN = "SELECT reltuples::int FROM pg_class WHERE oid = 'contact'::regclass"


async def id_of(client: Client) -> UUID:
    return UUID((await client.get("/users/me")).json()["id"])


@pytest.fixture
async def owner_id(ada: Client, grace: Client, execute: Execute) -> AsyncIterator[UUID]:
    """Ada's id. The statistics cover some of Grace's contacts and none of Ada's."""
    owner_id, other_id = await id_of(ada), await id_of(grace)
    execute("ALTER TABLE contact SET (autovacuum_enabled = off)")
    execute(FILL, str(other_id), 500)
    execute("ANALYZE contact")
    execute(FILL, str(owner_id), 20_000)
    execute("SELECT pg_stat_force_next_flush()")
    yield owner_id
    execute("ALTER TABLE contact RESET (autovacuum_enabled)")


async def test_a_lookup_by_id_does_not_use_the_birthday_index(owner_id: UUID, execute: Execute) -> None:
    statement = queries.GET.params(owner_id=owner_id, contact_id=UUID(int=7))
    sql = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]

    ((plan,), *_) = execute(f"EXPLAIN {sql}")

    assert "birthday" not in plan


async def test_an_import_updates_the_statistics_first(ada: Client, owner_id: UUID, execute: Execute) -> None:
    assert execute(KNOWN) == [(500,)]

    imported = await ada.post("/contacts/import", files={"file": ("contacts.csv", b"first_name\r\nGrace\r\n")})

    assert imported.json()["created"] == 1
    assert execute(KNOWN) == [(20_500,)]


async def test_a_large_import_updates_the_statistics(ada: Client, execute: Execute) -> None:
    execute("DELETE FROM contact")
    execute("ANALYZE contact")
    file = b"first_name\r\n" + b"Ada\r\n" * 2000

    await ada.post("/contacts/import?on_duplicate=create&dry_run=true", files={"file": ("contacts.csv", file)})
    assert execute(KNOWN) == [(0,)]
    await ada.post("/contacts/import?on_duplicate=create", files={"file": ("contacts.csv", file)})

    assert execute(KNOWN) == [(2000,)]


async def test_deleting_an_account_updates_the_statistics_first(app: FastAPI, owner_id: UUID, execute: Execute) -> None:
    execute('UPDATE "user" SET erased_at = now() WHERE id = %s', str(owner_id))

    await app.state.cleanup.sweep()

    assert execute(KNOWN) == [(20_500,)]
    assert execute("SELECT count(*) FROM contact WHERE owner_id = %s", str(owner_id)) == [(0,)]
