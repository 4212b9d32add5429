"""Failover with the documented configurations of Patroni, etcd and HAProxy: a node dies and is replaced."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import psycopg2
import pytest

from tests.client import Client
from tests.faults.load import Load
from tests.scale.conftest import BINARIES, directory
from tests.servers import HOST, ROOT, Api, free_port, run_as_postgres, user_of_postgres, wait_until

# The ttl in docs/patroni.yml, and the time until the new primary is found.
FAILOVER_SECONDS = 20 + 20


def configured(home: Path, name: str, *changes: tuple[str, str]) -> Path:
    """Write a documented configuration with these changes and return its path."""
    text = (ROOT / "docs" / name).read_text()
    for documented, here in changes:
        assert documented in text
        text = text.replace(documented, here)
    (home / name).write_text(text)
    return home / name


class Node:
    """A Patroni process and the PostgreSQL that it started."""

    def __init__(self, home: Path, etcd_port: int) -> None:
        self.port, self.rest_port, self.name = free_port(), free_port(), home.name
        self._home = home
        os.chown(home, user_of_postgres(), -1)
        configuration = configured(
            home,
            "patroni.yml",
            ("10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379", f"{HOST}:{etcd_port}"),
            ("/var/lib/postgresql/patroni", f"{home}/data"),
            ("/usr/lib/postgresql/15/bin", str(BINARIES)),
            ("/var/run/postgresql", str(home)),
            ("C.UTF-8", "C"),
        )
        self._process = run_as_postgres(
            home / "patroni.log",
            "/usr/bin/patroni",
            configuration,
            HOME=str(home),
            PATRONI_NAME=self.name,
            PATRONI_RESTAPI_LISTEN=f"{HOST}:{self.rest_port}",
            PATRONI_RESTAPI_CONNECT_ADDRESS=f"{HOST}:{self.rest_port}",
            PATRONI_POSTGRESQL_LISTEN=f"{HOST}:{self.port}",
            PATRONI_POSTGRESQL_CONNECT_ADDRESS=f"{HOST}:{self.port}",
        )

    def is_(self, role: str) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://{HOST}:{self.rest_port}/{role}").status_code == 200
        return False

    def kill(self) -> None:
        """Kill Patroni and PostgreSQL, as a power cut would."""
        with suppress(FileNotFoundError, ProcessLookupError):
            postmaster = int((self._home / "data" / "postmaster.pid").read_text().splitlines()[0])
            self._process.kill()
            os.kill(postmaster, signal.SIGKILL)
        self._process.kill()
        self._process.wait(20)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


@pytest.fixture
def nodes(home: Path) -> Iterator[list[Node]]:
    with ExitStack() as running:
        client_port, peer_port = free_port(), free_port()
        peers = f"http://{HOST}:{peer_port}"
        clients = f"http://{HOST}:{client_port}"
        os.chown(directory(home, "etcd"), user_of_postgres(), -1)
        etcd = run_as_postgres(
            home / "etcd.log",
            *("/usr/bin/etcd", "--data-dir", home / "etcd" / "data", "--initial-cluster", f"default={peers}"),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        )
        running.callback(stop, etcd)
        nodes: list[Node] = []
        for name in ("node1", "node2"):
            node = Node(directory(home, name), client_port)
            running.callback(node.kill)
            nodes.append(node)
            # The first node creates the cluster.
            wait_until(lambda: any(node.is_("primary") for node in nodes), "a primary", 60)
        wait_until(lambda: nodes[1].is_("synchronous"), "a synchronous standby", 60)
        yield nodes


@pytest.fixture
def proxies(home: Path, nodes: list[Node]) -> Iterator[tuple[int, int]]:
    """The ports of HAProxy for the primary and for the standbys."""
    ports = free_port(), free_port()
    changes = [(f"{HOST}:{documented}", f"{HOST}:{port}") for documented, port in zip((5000, 5001), ports, strict=True)]
    for n, node in enumerate(nodes, 1):
        changes.append((f"10.0.0.{n}:5432 check port 8008", f"{HOST}:{node.port} check port {node.rest_port}"))
    proxy = run_as_postgres(home / "haproxy.log", "/usr/sbin/haproxy", "-f", configured(home, "haproxy.cfg", *changes))
    wait_until(lambda: answers(ports[0]), "HAProxy", 30)
    # HAProxy first assumes that all servers match, until two checks, one second apart, have failed.
    time.sleep(4)
    yield ports
    stop(proxy)


def url_at(port: int, database: str = "contacts") -> str:
    return f"postgresql://postgres:change-me@{HOST}:{port}/{database}"


def answers(port: int) -> bool:
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(url_at(port, "postgres")).close()
        return True
    return False


def execute(url: str, statement: str) -> list[tuple[str, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


async def test_a_dead_node_is_replaced_and_no_write_is_lost(
    home: Path, nodes: list[Node], proxies: tuple[int, int]
) -> None:
    primary, standbys = proxies
    execute(url_at(primary, "postgres"), "CREATE DATABASE contacts")
    api = Api(home, url_at(primary), DATABASE_READ_URL=url_at(standbys))
    try:
        async with Client(base_url=api.url, timeout=20) as ada:
            await ada.sign_up("ada@example.com")
            load = Load(api.url, "failover", (ada.tokens["access_token"],) * 2, clients=5, pause=0.05, may_break=False)
            async with load.running():
                await asyncio.to_thread(nodes[0].kill)
                load.expect_recovery()
                for _ in range(FAILOVER_SECONDS * 10):
                    if load.recovery is not None:
                        break
                    await asyncio.sleep(0.1)
                await asyncio.sleep(1)
    finally:
        api.stop()

    stored = {email for (email,) in execute(url_at(nodes[1].port), "SELECT email FROM contact")}
    assert load.recovery is not None
    assert len(load.created) > 20
    assert load.created - stored == set()
    assert load.wrong == {}
    assert "Traceback" not in api.log.read_text()
