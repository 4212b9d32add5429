"""The query plans of searches that the application runs repeatedly."""

from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import create_engine as create_synchronous_engine
from sqlalchemy import insert, text
from sqlalchemy.engine import make_url
from uuid_utils.compat import uuid7

from contacts_api.accounts.models import User
from contacts_api.cli.demo import believable_contacts
from contacts_api.contacts import queries
from contacts_api.contacts.models import Contact, columns_of
from contacts_api.contacts.queries import ContactQuery
from contacts_api.database.connecting import connect_synchronously
from contacts_api.database.engine import Database, create_engine
from contacts_api.database.migrating import migrate

# From the sixth execution on, PostgreSQL considers a generic plan.
EXECUTIONS = 10
TARAS = {
    "first_name": "Тарас",
    "last_name": "Łukasz",
    "email": "taras.l@example.org",
    "phone_number": "+380 44 123-45-67",
}


@pytest.fixture(scope="module")
def url(database_url: str) -> str:
    """Its own database, because under LC_CTYPE=C trigrams contain only ASCII letters."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE searched TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
    url = make_url(database_url).set(database="searched").render_as_string(hide_password=False)
    migrate(url)
    return url


@pytest.fixture(scope="module")
def owner_id(url: str) -> UUID:
    """The id of one of four owners with 5,000 contacts each."""
    owners = [uuid7() for _ in range(4)]
    rows = [columns_of(TARAS), *(columns_of(contact.model_dump()) for contact in believable_contacts(4999))]
    engine = create_synchronous_engine("postgresql+psycopg2://", creator=partial(connect_synchronously, url))
    with engine.begin() as connection:
        users = [{"id": owner, "email": f"{owner}@example.com", "hashed_password": "!"} for owner in owners]
        connection.execute(insert(User), users)
        contacts = [{"owner_id": owner, "id": uuid7()} | row for owner in owners for row in rows]
        connection.execute(insert(Contact), contacts)
    # Autovacuum would do this eventually.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE contact"))
    engine.dispose()
    return owners[0]


@pytest.mark.parametrize(
    "query",
    [
        {"q": "тарас"},
        {"q": "Łuk"},
        {"q": "0441234567"},
        {"q": "+380 (44) 123-45-67"},
        {"q": "тар example.org", "sort": "-created_at", "with_total": "true"},
        {"last_name": "łukasz", "limit": "200"},
        {"email": "taras.l@"},
    ],
)
async def test_a_repeated_search_uses_the_trigram_index(url: str, owner_id: UUID, query: dict[str, Any]) -> None:
    asked = ContactQuery.model_validate(query)
    plans: list[str] = []
    engine = create_engine(url, pool_size=1)
    async with engine.connect() as connection:
        server: Any = (await connection.get_raw_connection()).driver_connection
        await server.execute("LOAD 'auto_explain'")
        await server.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on")
        await server.execute("SET client_min_messages = log")
        server.add_log_listener(lambda _, message: plans.append(message.message))

    database = Database(engine)
    for _ in range(EXECUTIONS):
        rows = await queries.find(database, asked.sort, asked.terms(), asked.limit + 1, {}, owner_id)
        assert "Тарас" in [row.first_name for row in rows]
        if asked.with_total:
            assert await queries.count(database, asked.terms(), owner_id) == len(rows)
    await engine.dispose()

    # Before it searches, the query walks through the first contacts. Тарас is not among them.
    searches = [plan for plan in plans if "walked" not in plan]
    assert len(searches) == EXECUTIONS * (2 if asked.with_total else 1)
    for plan in searches:
        # The next line of the plan has the condition. It matters because the index also contains the owners.
        scans = [scan for scan, what in pairwise(plan.splitlines()) if "ix_contact_by_trigram" in scan and "~~" in what]
        assert scans
