"""Connections to several hosts. Each host is a directory with a socket, and only one belongs to PostgreSQL."""

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
    """A host that accepts connections but never answers."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.accepted = directory, 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await reader.read()
        writer.close()


@pytest.fixture
async def silent(database_url: str) -> AsyncIterator[Silent]:
    # Not in tmp_path, whose path may be too long for a socket.
    with tempfile.TemporaryDirectory() as directory:
        host = Silent(Path(directory))
        socket = host.directory / f".s.PGSQL.{parse_dsn(database_url).get('port', '5432')}"
        async with await asyncio.start_unix_server(host.accept, socket):
            yield host


def url_of(database_url: str, *before: object, **parameters: str) -> str:
    """Return the URL of the database with these hosts in front of its own."""
    parts = parse_dsn(database_url)
    hosts = ",".join(map(str, (*before, parts.pop("host"))))
    return f"postgresql:///?{urlencode({**parts, 'host': hosts, **parameters})}"


async def connects(connector: Connector) -> bool:
    connection = await connector()
    answer = await connection.execute("SELECT 1")
    connection.terminate()
    return bool(answer == "SELECT 1")


async def test_an_unreachable_host_is_skipped(database_url: str) -> None:
    url = url_of(database_url, NOWHERE)

    assert await connects(Connector(url, 1.0))
    with closing(connect_synchronously(url)) as connection:
        assert connection.server_version


async def test_a_silent_host_times_out_only_once(database_url: str, silent: Silent) -> None:
    connector = Connector(url_of(database_url, silent.directory), 1.0)

    begun_at = time.monotonic()
    await connects(connector)
    waited = time.monotonic() - begun_at
    await connects(connector)

    assert waited >= CONNECT_SECONDS
    assert silent.accepted == 1


async def test_concurrent_timeouts_move_a_silent_host_to_the_end_only_once(database_url: str, silent: Silent) -> None:
    connector = Connector(url_of(database_url, silent.directory, NOWHERE), 1.0)

    assert await asyncio.gather(*(connects(connector) for _ in range(3))) == [True, True, True]
    await connects(connector)

    assert silent.accepted == 3


async def test_the_application_works_with_the_second_host(database_url: str, make_settings: Any) -> None:
    app = create_app(make_settings(database_url=url_of(database_url, NOWHERE)))

    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("attributes", ["any", "read-write", "primary", "prefer-standby"])
async def test_a_primary_has_the_session_attributes(database_url: str, attributes: str) -> None:
    assert await connects(Connector(url_of(database_url, target_session_attrs=attributes), 1.0))


@pytest.mark.parametrize("attributes", ["standby", "read-only"])
async def test_a_primary_is_refused_as_a_standby(database_url: str, attributes: str) -> None:
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await connects(Connector(url_of(database_url, target_session_attrs=attributes), 1.0))


async def test_parameters_that_only_libpq_knows_are_not_sent_as_settings(database_url: str) -> None:
    url = url_of(database_url, connect_timeout="3", keepalives="1", channel_binding="prefer", gssencmode="disable")

    assert await connects(Connector(url, 1.0))


@pytest.mark.parametrize("ports", ["1,2,3", "one"])
def test_ports_that_do_not_match_the_hosts_are_refused(ports: str) -> None:
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
