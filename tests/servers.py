"""PostgreSQL and the API as child processes, and faults to inject into PostgreSQL."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2

from contacts_api.database.migrating import newest_revision

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
MAX_CONNECTIONS, POOL_SIZE, WORKERS = 40, 5, 2
OURS = "FROM pg_stat_activity WHERE application_name = 'contacts_api'"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


A_MIGRATION = """
from alembic import op

revision = "2099_alter"
down_revision = {newest!r}


def upgrade() -> None:
    op.execute({statement!r})
"""


def copy_with_migration(directory: Path, statement: str) -> None:
    """Copy the project and add a migration that executes the statement."""
    for name in ("contacts_api", "migrations"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", directory)
    migration = A_MIGRATION.format(newest=newest_revision(), statement=statement)
    (directory / "migrations" / "versions" / "2099-01-01_alter.py").write_text(migration)


def user_of_postgres() -> int:
    """Return the uid to run PostgreSQL under, because PostgreSQL refuses to run as root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()


def run_as_postgres(log: Path, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    user: dict[str, Any] = {"user": user_of_postgres(), "extra_groups": ()} if os.geteuid() == 0 else {}
    with log.open("ab") as file:
        return subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file, cwd="/", **user)


class Postgres:
    """A PostgreSQL server as a direct child, so that a killed server is reaped and can be started again.

    With a `primary`, the server is its standby.
    """

    def __init__(self, home: Path, binaries: Path, *settings: str, primary: "Postgres | None" = None) -> None:
        self.home, self.binaries, self.port = home, binaries, free_port()
        self.url = f"postgresql://contacts@{HOST}:{self.port}/contacts"
        self._user = user_of_postgres()
        self.data = self._make_directory("data")
        ours = f"listen_addresses={HOST}", "unix_socket_directories=", f"max_connections={MAX_CONNECTIONS}"
        self._settings = [f"--{setting}" for setting in (*ours, *settings)]
        self.process: subprocess.Popen[bytes]
        if primary:
            source = f"host={HOST} port={primary.port} user=postgres application_name={home.name}"
            self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", source).wait()
            self.start()
            return
        self._run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C").wait()
        self.start()
        ((self.version,),) = self.execute("SELECT 'PostgreSQL ' || current_setting('server_version')")
        self.execute("CREATE ROLE contacts LOGIN")
        self.execute("CREATE DATABASE contacts OWNER contacts")

    def _make_directory(self, name: str) -> Path:
        (made := self.home / name).mkdir(mode=0o700)
        os.chown(made, self._user, -1)
        return made

    def _run(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        return run_as_postgres(self.home / "postgres.log", self.binaries / program, *arguments)

    def start(self) -> None:
        def is_up() -> bool:
            if self.process.poll() is not None:
                # Backends of a killed server may still hold its shared memory.
                self.process = self._run("postgres", *server)
            return self.answers()

        server: list[str | Path] = ["-D", self.data, "-p", str(self.port), *self._settings]
        self.process = self._run("postgres", *server)
        wait_until(is_up, "PostgreSQL starts")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.wait(20)

    def connect(self, database: str = "contacts", user: str = "postgres") -> Any:
        connection = psycopg2.connect(host=HOST, port=self.port, user=user, dbname=database, connect_timeout=3)
        connection.autocommit = True
        return connection

    def answers(self) -> bool:
        with suppress(psycopg2.OperationalError):
            self.connect("postgres").close()
            return True
        return False

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def backends_killed(self) -> Iterator[None]:
        for _ in range(3):
            os.kill(self.execute(f"SELECT pid {OURS}")[0][0], signal.SIGKILL)
            time.sleep(0.1)
            wait_until(self.answers, "PostgreSQL recovers")
            time.sleep(0.5)
        yield

    @contextmanager
    def away(self, number: signal.Signals = signal.SIGINT) -> Iterator[None]:
        self.stop(number)
        yield
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        server = psutil.Process(self.process.pid)
        server.suspend()
        # Wait until the server has stopped. Otherwise it could fork another backend that keeps running.
        while server.status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)
        processes = [server, *server.children()]
        for process in processes[1:]:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextmanager
    def table_locked(self) -> Iterator[None]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE contact IN ACCESS EXCLUSIVE MODE")
            yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            cursor.execute("SELECT pg_reload_conf(), pg_sleep(0.3)")
            yield
            cursor.execute("ALTER SYSTEM RESET default_transaction_read_only")
            cursor.execute("SELECT pg_reload_conf()")

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Move the contacts to a file system of 32 MiB and fill it."""
        disk = self._make_directory("small")
        as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        options = f"size=32m,mode=0700,uid={self._user}"
        subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
        try:
            self.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            self.execute("ALTER TABLE contact SET TABLESPACE small", "contacts")
            # Leave no free space in the pages of the table, because inserts would use it first.
            self.execute("VACUUM FULL contact", "contacts")
            with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(4096))
            time.sleep(1)
            yield
            (disk / "ballast").unlink()
            self.execute("ALTER TABLE contact SET TABLESPACE pg_default", "contacts")
            self.execute("DROP TABLESPACE small")
        finally:
            # Unmount lazily: a backend may still have a file open.
            subprocess.run([*as_root, "umount", "--lazy", disk], check=True)

    @contextmanager
    def connections_used_up(self, api: "Api") -> Iterator[None]:
        with ExitStack() as taken:
            # Suspend the workers. Otherwise they would reconnect before the slots are taken.
            for worker in api.workers():
                worker.suspend()
            self.execute(f"SELECT pg_terminate_backend(pid, 1000) {OURS}")
            with suppress(psycopg2.OperationalError):
                for _ in range(MAX_CONNECTIONS):
                    taken.enter_context(closing(self.connect(user="contacts")))
            for worker in api.workers():
                worker.resume()
            yield


class Api:
    """The API with its workers, started with the real command line."""

    def __init__(self, home: Path, database_url: str, **settings: str) -> None:
        self.port, self.log = free_port(), home / "api.log"
        self.url = f"http://{HOST}:{self.port}"
        ours = {"DATABASE_URL": database_url, "JWT_SECRET": secrets.token_hex(32), "POOL_SIZE": str(POOL_SIZE)}
        ours |= {"SMTP_URL": f"file://{home}/outbox", "LOG_LEVEL": "WARNING"}
        self._environment = {**os.environ, **ours, **settings}
        self.start_command("migrate").wait(60)
        self.start()

    def command(self, *arguments: str, input: str = "", **environment: str) -> str:  # noqa: A002 (as in subprocess)
        """Run a command to completion and return its output."""
        command = [sys.executable, "-m", "contacts_api", *arguments]
        return subprocess.run(
            command,
            env={**self._environment, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            input=input,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def start_command(self, *arguments: str, directory: Path = ROOT) -> subprocess.Popen[bytes]:
        """Start a command with the code in the directory. Its output goes to the log."""
        # Start with a low limit on open files, as many shells set it. The API raises the limit.
        limited = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"]
        command = [*limited, sys.executable, "-m", "contacts_api", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, cwd=directory, stdout=log, stderr=log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def start(self) -> None:
        self.process = self.start_command("serve", "--port", str(self.port), "--workers", str(WORKERS))
        wait_until(self._is_live, "the API starts", 60)

    def _is_live(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health/live").is_success and len(self.workers()) == WORKERS
        return False

    def workers(self) -> list[psutil.Process]:
        children = [c for c in psutil.Process(self.process.pid).children() if c.status() != psutil.STATUS_ZOMBIE]
        return [child for child in children if any("spawn_main" in part for part in child.cmdline())]

    def connections(self) -> list[tuple[int, int, int]]:
        """Return the connections of the workers as (pid, local port, remote port)."""
        ends = ((worker.pid, end) for worker in self.workers() for end in worker.net_connections() if end.raddr)
        return [(pid, end.laddr.port, end.raddr.port) for pid, end in ends]
