"""PgBouncer in transaction mode with docs/pgbouncer.ini. tests/scale/run also runs the whole suite through it."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import psycopg2
import pytest

from tests.client import Client
from tests.scale.conftest import BINARIES, directory
from tests.servers import HOST, ROOT, Api, Postgres, free_port, run_as_postgres, wait_until

POOL = 5


class PgBouncer:
    """PgBouncer with the documented configuration, except for addresses, roles and the pool size."""

    def __init__(self, home: Path, postgres: Postgres) -> None:
        self.port = free_port()
        self.url = f"postgresql://contacts@{HOST}:{self.port}/contacts"
        (home / "users.txt").write_text('"contacts" ""\n')
        text = (ROOT / "docs" / "pgbouncer.ini").read_text()
        for documented, here in (
            ("port=5432", f"port={postgres.port}"),
            ("listen_port = 6432", f"listen_port = {self.port}"),
            ("auth_type = scram-sha-256", "auth_type = trust"),
            ("auth_file = /etc/pgbouncer/userlist.txt", f"auth_file = {home}/users.txt"),
            ("default_pool_size = 20", f"default_pool_size = {POOL}"),
        ):
            assert documented in text
            text = text.replace(documented, here)
        (home / "pgbouncer.ini").write_text(text)
        self._home = home
        self.start()

    def start(self) -> None:
        self._process = run_as_postgres(
            self._home / "pgbouncer.log", "/usr/sbin/pgbouncer", self._home / "pgbouncer.ini"
        )
        wait_until(self._answers, "PgBouncer starts")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    def _answers(self) -> bool:
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(self.url).close()
            return True
        return False


@pytest.fixture
def pooled(home: Path) -> Iterator[tuple[Postgres, PgBouncer]]:
    with ExitStack() as running:
        postgres = Postgres(directory(home, "postgres"), BINARIES)
        running.callback(postgres.stop)
        pooler = PgBouncer(directory(home, "pgbouncer"), postgres)
        running.callback(pooler.stop)
        yield postgres, pooler


@pytest.fixture
def api(home: Path, pooled: tuple[Postgres, PgBouncer]) -> Iterator[Api]:
    api = Api(home, pooled[1].url, PREPARED_STATEMENTS="false")
    yield api
    api.stop()


async def test_migrate_prints_the_settings_that_the_role_needs(api: Api, pooled: tuple[Postgres, PgBouncer]) -> None:
    postgres, pooler = pooled

    said = api.command("migrate")
    for line in said.splitlines():
        if line.lstrip().startswith("ALTER ROLE"):
            postgres.execute(line)
    pooler.stop()
    pooler.start()

    assert "does not pass on idle_in_transaction_session_timeout, jit, lock_timeout, statement_timeout." in said
    assert api.command("migrate") == "The database has the newest schema.\n"


async def test_a_pooler_without_prepared_statements_is_reported(api: Api) -> None:
    # A statement that one client prepared still exists when another client gets the same connection.
    with pytest.raises(subprocess.CalledProcessError) as failure:
        _ = [api.command("migrate", PREPARED_STATEMENTS="true") for _ in range(POOL + 1)]

    assert failure.value.stdout == (
        "contacts_api: The pooler cannot keep prepared statements: set PREPARED_STATEMENTS=false.\n"
    )


async def test_every_command_works_through_pgbouncer(api: Api, home: Path) -> None:
    api.command("seed", "--email", "ada@example.com", "--contacts", "20")
    exported = api.command("export", "--email", "ada@example.com", str(home / "contacts.csv"))
    imported = api.command("import", str(home / "contacts.csv"), "--email", "ada@example.com")
    api.command("set-password", "ada@example.com", input="correct horse battery staple\n")
    api.command("reindex")

    assert "Traceback" not in exported
    assert "0 created, 0 updated, 20 skipped, 0 failed" in imported
    async with Client(base_url=api.url, timeout=20) as client:
        client.email = "ada@example.com"
        assert len(await (await client.sign_in()).list_contacts()) == 20


async def test_imports_do_not_block_other_accounts(api: Api) -> None:
    many = "first_name\n" + "".join(f"{n}\n" for n in range(40_000))
    async with AsyncExitStack() as open_clients:
        all_clients = [await open_clients.enter_async_context(Client(base_url=api.url, timeout=60)) for _ in range(7)]
        for n, client in enumerate(all_clients):
            await client.sign_up(f"{n}@example.com")
        stranger, *clients = all_clients
        imports = [
            asyncio.create_task(client.post("/contacts/import", files={"file": ("a.csv", many)})) for client in clients
        ]
        longest = 0.0
        while not all(task.done() for task in imports):
            begun_at = time.monotonic()
            assert (await stranger.get("/contacts")).status_code == 200
            longest = max(longest, time.monotonic() - begun_at)
            await asyncio.sleep(0.02)

    assert [task.result().json()["created"] for task in imports] == [40_000] * 6
    assert longest < 2
