"""A primary and a standby: reads come from the standby, which is promoted after the primary is killed."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from contacts_api.database.standby import AWAY_SECONDS
from tests.client import Client
from tests.faults.load import Load
from tests.scale.conftest import BINARIES, directory
from tests.servers import HOST, Api, Postgres, wait_until

READ_WRITE = "target_session_attrs=read-write"


@pytest.fixture
def servers(home: Path) -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


def pair(home: Path, servers: ExitStack) -> tuple[Postgres, Postgres]:
    """Return a primary and its standby."""
    primary = Postgres(directory(home, "primary"), BINARIES)
    servers.callback(primary.stop, signal.SIGQUIT)
    standby = Postgres(directory(home, "standby"), BINARIES, primary=primary)
    servers.callback(standby.stop, signal.SIGQUIT)
    wait_until(lambda: primary.execute("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'"), "it streams")
    return primary, standby


def url_of(*hosts: Postgres) -> str:
    return f"postgresql://contacts@{','.join(f'{HOST}:{host.port}' for host in hosts)}/contacts?{READ_WRITE}"


@asynccontextmanager
async def signed_up(api: Api) -> AsyncIterator[Client]:
    async with Client(base_url=api.url, timeout=20) as client:
        yield await client.sign_up("ada@example.com")


def serve(home: Path, servers: ExitStack, url: str, **settings: str) -> Api:
    api = Api(home, url, **settings)
    servers.callback(api.stop)
    return api


async def test_a_promotion_loses_no_acknowledged_write(home: Path, servers: ExitStack) -> None:
    primary, standby = pair(home, servers)
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    api = serve(home, servers, url_of(primary, standby))
    async with signed_up(api) as ada:
        load = Load(api.url, "promotion", (ada.tokens["access_token"],) * 2, clients=10, pause=0.02, may_break=False)

        async with load.running():
            await asyncio.to_thread(primary.stop, signal.SIGKILL)
            await asyncio.sleep(1)
            standby.execute("SELECT pg_promote()")
            load.expect_recovery()
            await asyncio.sleep(3)

    stored = dict(standby.execute("SELECT email, additional_info FROM contact", "contacts"))
    assert len(load.created) > 20
    assert load.created - stored.keys() == set()
    assert {email for email in load.patched if stored[email] != "patched"} == set()
    assert load.recovery is not None
    assert load.recovery <= 2
    assert (load.wrong, "Traceback" in api.log.read_text()) == ({}, False)


async def test_a_frozen_first_host_does_not_delay_later_reads(home: Path, servers: ExitStack) -> None:
    primary, standby = pair(home, servers)

    with standby.frozen():
        api = serve(home, servers, url_of(standby, primary))
        async with signed_up(api) as ada:
            await ada.create_contact()
            begun_at = time.monotonic()
            assert await ada.first_names() == ["Grace"]
            assert time.monotonic() - begun_at < 1


async def test_a_read_from_the_standby_sees_the_latest_write(home: Path, servers: ExitStack) -> None:
    def reads() -> int:
        # PostgreSQL counts some transactions only after a connection has been idle for ten seconds.
        time.sleep(11)
        ((count,),) = standby.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = 'contacts'")
        return int(count)

    primary, standby = pair(home, servers)
    api = serve(home, servers, url_of(primary), DATABASE_READ_URL=standby.url)
    async with signed_up(api) as ada:
        before = reads()
        for n in range(100):
            await ada.create_contact(email=f"{n}@example.com")
            assert len(await ada.list_contacts(email=f"{n}@example.com")) == 1
        # Each read first asks how far the standby has replayed, and then reads the contacts.
        assert reads() - before >= 200

        standby.execute("SELECT pg_wal_replay_pause()")
        await ada.create_contact(email="paused@example.com")
        assert len(await ada.list_contacts(email="paused@example.com")) == 1
        standby.execute("SELECT pg_wal_replay_resume()")
        await asyncio.sleep(AWAY_SECONDS)

        with standby.away():
            await ada.create_contact(email="away@example.com")
            assert len(await ada.list_contacts(email="away@example.com")) == 1

    assert "Traceback" not in api.log.read_text()


MANY_CONTACTS = """
    INSERT INTO contact (owner_id, id, first_name, search_text, sort_name)
    SELECT "user".id, gen_random_uuid(), repeat('x', 80), '', n FROM "user", generate_series(1, 100000) AS n
"""


async def read_while_it_is_killed(client: Client, file: str, postgres: Postgres) -> None:
    # The export waits for half a minute for the database to come back.
    async with client.stream("GET", f"/contacts/{file}", timeout=90) as response:
        async for _ in response.aiter_raw():
            postgres.process.send_signal(signal.SIGQUIT)
            # Read slowly, so that part of the file is not buffered yet.
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("file", ["export.csv", "export.vcf"])
async def test_an_interrupted_export_is_one_line_in_the_log(home: Path, servers: ExitStack, file: str) -> None:
    postgres = Postgres(directory(home, "primary"), BINARIES)
    servers.callback(postgres.stop, signal.SIGQUIT)
    api = serve(home, servers, postgres.url)
    async with signed_up(api) as ada:
        postgres.execute(MANY_CONTACTS, "contacts")

        with pytest.raises(httpx.RemoteProtocolError):
            await read_while_it_is_killed(ada, file, postgres)

    log = api.log.read_text()
    assert (log.count("returned without completing response"), log.count("Traceback")) == (1, 0)
