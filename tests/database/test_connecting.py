"""Connections to one of several hosts. The hosts are directories with sockets; only one of them is PostgreSQL's."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
from psycopg2.extensions import parse_dsn

from contacts_api.app import create_app
from contacts_api.database.connecting import CONNECT_SECONDS, Connector, connect_synchronously
from contacts_api.database.engine import create_engine
from tests.conftest import client_of

NOWHERE = "/nowhere"


class Silent:
    """A host that accepts connections and says nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.accepted = directory, 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await reader.read()
        writer.close()


@pytest.fixture
async def silent(database_url: str) -> AsyncIterator[Silent]:
    # Not in tmp_path, which may be too long for a socket.
    with tempfile.TemporaryDirectory() as directory:
        host = Silent(Path(directory))
        socket = host.directory / f".s.PGSQL.{parse_dsn(database_url).get('port', '5432')}"
        async with await asyncio.start_unix_server(host.accept, socket):
            yield host


def url_of(database_url: str, *before: object, **parameters: str) -> str:
    """Return the URL of the database with these hosts before its own."""
    parts = parse_dsn(database_url)
    hosts = ",".join(map(str, (*before, parts.pop("host"))))
    return f"postgresql:///?{urlencode({**parts, 'host': hosts, **parameters})}"


async def connects(connector: Connector) -> bool:
    connection = await connector()
    answer = await connection.execute("SELECT 1")
    connection.terminate()
    return bool(answer == "SELECT 1")


async def test_the_next_host_is_tried_where_one_is_not_there(database_url: str) -> None:
    url = url_of(database_url, NOWHERE)

    assert await connects(Connector(url, 1.0))
    with closing(connect_synchronously(url)) as connection:
        assert connection.server_version


async def test_a_silent_host_costs_its_time_once(database_url: str, silent: Silent) -> None:
    connector = Connector(url_of(database_url, silent.directory), 1.0)

    begun_at = time.monotonic()
    await connects(connector)
    waited = time.monotonic() - begun_at
    await connects(connector)

    assert waited >= CONNECT_SECONDS
    assert silent.accepted == 1


async def test_two_that_wait_for_a_silent_host_put_it_last_once(database_url: str, silent: Silent) -> None:
    connector = Connector(url_of(database_url, silent.directory, NOWHERE), 1.0)

    assert await asyncio.gather(*(connects(connector) for _ in range(3))) == [True, True, True]
    await connects(connector)

    assert silent.accepted == 3


async def test_the_application_is_served_from_the_second_host(database_url: str, make_settings: Any) -> None:
    app = create_app(make_settings(database_url=url_of(database_url, NOWHERE)))

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("attributes", ["any", "read-write", "primary", "prefer-standby"])
async def test_a_primary_has_the_attributes(database_url: str, attributes: str) -> None:
    assert await connects(Connector(url_of(database_url, target_session_attrs=attributes), 1.0))


@pytest.mark.parametrize("attributes", ["standby", "read-only"])
async def test_a_primary_is_no_standby(database_url: str, attributes: str) -> None:
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await connects(Connector(url_of(database_url, target_session_attrs=attributes), 1.0))


async def test_what_only_libpq_knows_is_not_taken_for_a_setting(database_url: str) -> None:
    url = url_of(database_url, connect_timeout="3", keepalives="1", channel_binding="prefer", gssencmode="disable")

    assert await connects(Connector(url, 1.0))


@pytest.mark.parametrize("ports", ["1,2,3", "one"])
def test_ports_that_fit_no_hosts_are_refused(ports: str) -> None:
    with pytest.raises(ValueError, match="ports"):
        Connector(f"postgresql:///contacts?host=a,b&port={ports}", 1.0)


async def test_without_prepared_statements_none_is_left_behind(database_url: str) -> None:
    engine = create_engine(database_url, 1, prepared_statements=False)
    left = "SELECT name, statement FROM pg_prepared_statements WHERE name <> ''"

    async with engine.connect() as connection:
        for n in range(3):
            await connection.exec_driver_sql("SELECT $1::int", (n,))
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.fetch("SELECT $1::int", 1)
        remaining = await driver.fetch(left)
    await engine.dispose()

    assert remaining == []
